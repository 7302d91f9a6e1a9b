"""Which files are recordings, and what they are by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mgen.core.errors import InputNotFoundError

AUDIO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        "wav", "wave", "w64", "rf64", "flac", "ogg", "oga", "opus", "egg", "mp3",
        "aif", "aiff", "aifc", "au", "caf", "m4a", "aac", "wma",
    )
)  # fmt: skip
"""Endings that a folder is searched for; a file given by name may end as it likes."""


def find_audio(inputs: Iterable[str | Path]) -> list[Path]:
    """List the recordings that files and folders stand for.

    A file is taken as it is, whatever its name. A folder is searched with all that is below it,
    links included, for `AUDIO_SUFFIXES`; hidden files and folders are skipped. The list keeps the
    order of the inputs, sorted within each folder, and names each file once.

    Raises
    ------
    InputNotFoundError
        If an input is not there.
    """
    found: dict[str, Path] = {}
    for text in inputs:
        given = Path(text).expanduser()
        if not given.exists():
            raise InputNotFoundError(f"{text}: not found; check the path")
        for path in _below(given) if given.is_dir() else (given,):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; memory stays flat."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _below(root: Path) -> Iterator[Path]:
    visited: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        # a link may point back up: enter each real folder once
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(folder, name)
