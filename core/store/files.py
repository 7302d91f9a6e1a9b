"""Where a store lies: opening its root, refusing what is not one, one writer at a time.

Every file is written under another name and renamed (zarr's LocalStore does so), so a killed
writer leaves whole files, and at worst a stray `*.partial`, removed when the next writer opens.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgen.core.errors import InputNotFoundError, StoreError
from mgen.core.locks import claim_folder
from mgen.core.store.schema import FORMAT_VERSION, KIND

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store as ZarrStore

    Location = Path | str | ZarrStore

_WRITE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM
}  # fmt: skip

_DAMAGE = (ValueError, RuntimeError, KeyError, IndexError, TypeError, EOFError, AttributeError)
"""What zarr and its codecs raise on bytes that are not what the metadata says."""


@contextlib.contextmanager
def damage(where: str, what: str) -> Iterator[None]:
    """Turn what zarr raises on broken files into one line that names store and part."""
    try:
        yield
    except StoreError:
        raise
    except (*_DAMAGE, FileNotFoundError, IsADirectoryError) as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise StoreError(
            f"{where}: damaged at {what} ({cause}); restore it from a copy, or make the store again"
        ) from error


@contextlib.contextmanager
def writing(where: str) -> Iterator[None]:
    """Let a full disk or a missing permission name the store, not a file inside it."""
    try:
        yield
    except OSError as error:
        inside = str(error.filename or "").startswith(where)
        if error.errno in _WRITE_ERRNOS and (inside or not error.filename):
            raise OSError(error.errno, error.strerror, where) from error
        raise


def local_path(location: Location) -> Path | None:
    """The folder of a local store; None for a URL or a zarr store object."""
    if isinstance(location, Path):
        return location
    if isinstance(location, str) and "://" not in location:
        return Path(location).expanduser()
    return None


def name_of(location: Location) -> str:
    """The store as a message names it."""
    path = local_path(location)
    return str(path) if path is not None else str(location)


def open_root(location: Location, *, writable: bool) -> tuple[zarr.Group, dict[str, Any]]:
    """The root group of an existing store and its `mgen` attribute.

    Raises
    ------
    InputNotFoundError
        If there is nothing at that place.
    StoreError
        If what is there is no store of ours, is damaged, or is of a newer format.
    """
    import zarr

    where, path = name_of(location), local_path(location)
    if path is not None:
        if not path.exists():
            raise InputNotFoundError(f"{where}: not found; `mgen filter` makes a store")
        if not path.is_dir():
            raise StoreError(f"{where}: a file, not a store; a store is a folder (*.zarr)")
        if not (path / "zarr.json").is_file():
            raise StoreError(f"{where}: not a store (no zarr.json in it); `mgen filter` makes one")
    elif is_free(location):
        raise InputNotFoundError(f"{where}: not found; `mgen filter` makes a store")
    with damage(where, "zarr.json"):
        root = zarr.open_group(
            path if path is not None else location, mode="r+" if writable else "r", zarr_format=3
        )
        attributes = dict(root.attrs)
    about = attributes.get("mgen")
    if about is None:
        raise StoreError(f"{where}: a Zarr folder, but not one of mgen's; name another")
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise StoreError(f"{where}: damaged at zarr.json (attribute mgen); restore it from a copy")
    if about.get("kind") != KIND:
        raise StoreError(f"{where}: holds a '{about.get('kind')}', not a store; name another")
    if about["format"] > FORMAT_VERSION:
        raise StoreError(
            f"{where}: store format {about['format']} is newer than this mgen reads"
            f" ({FORMAT_VERSION}); upgrade mgen"
        )
    return root, about


def create_root(location: Location) -> None:
    """Write the root of a new store: one file, complete or absent."""
    import zarr

    path = local_path(location)
    about = {"format": FORMAT_VERSION, "kind": KIND, "models": {}}
    zarr.create_group(
        path if path is not None else location, zarr_format=3, attributes={"mgen": about}
    )


def is_free(location: Location) -> bool:
    """Whether a store can be made there: nothing yet, or a folder left empty by a dead writer."""
    path = local_path(location)
    if path is None:
        import zarr

        try:
            zarr.open_group(location, mode="r", zarr_format=3)
        except FileNotFoundError:
            return True
        return False
    if not path.exists():
        return True
    return path.is_dir() and all(p.name.endswith(".partial") for p in path.iterdir())


def lock(path: Path) -> int | None:
    """Claim the store for this process; see `claim_folder`.

    Raises
    ------
    StoreError
        If another process is writing to the store.
    """
    try:
        return claim_folder(path)
    except BlockingIOError:
        raise StoreError(
            f"{path}: another process is writing to it; wait until it is done, or stop it"
        ) from None


def sweep(path: Path) -> None:
    """Remove what dead writers left half written. Only for the process that holds the lock."""
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(".partial"):
                (Path(folder) / name).unlink(missing_ok=True)
    shutil.rmtree(_spool_beside(path), ignore_errors=True)


def _spool_beside(path: Path) -> Path:
    path = path.absolute()
    return path.with_name(f".{path.name}.spool")


def make_spool(path: Path | None) -> Path:
    """A folder for sound on its way into the store: beside it (the same disk), or temporary."""
    if path is not None and os.access(path.absolute().parent, os.W_OK):
        folder = _spool_beside(path)
        folder.mkdir(exist_ok=True)
        return folder
    return Path(tempfile.mkdtemp(prefix="mgen-spool-"))
