"""One process at a time in a folder; the claim ends with the process, however it dies."""

from __future__ import annotations

import os
from pathlib import Path


def claim_folder(path: Path) -> int | None:
    """Claim a folder for this process: an advisory lock (flock) on the folder itself.

    Nothing is written, so there is nothing to clean up.

    Returns
    -------
    int or None
        A handle whose closing ends the claim; None where the system or the file system has no such
        lock: there, keeping to one process is left to the person.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # some network file systems
        os.close(handle)
        return None
    return handle
