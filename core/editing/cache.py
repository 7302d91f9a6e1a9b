"""The store of a single song: where it is kept, and what an edit needs of it, made when it is not.

An edit of a file needs its beats, its bars and their latents. They are made once and kept in
`<song>.mgen.zarr` beside the song, with the takes; or in the user's cache directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mgen.core.corpus import Segmentation, filter_songs, segment_songs
from mgen.core.errors import AudioError, StaleError, StoreError
from mgen.core.store import LATENTS, SongRow, Store

if TYPE_CHECKING:
    from mgen.core.tokenizer import Tokenizer

ENDING = ".mgen.zarr"


def cache_path(song: Path, sha256: str) -> Path:
    """Where the store of a song is: `<song>.mgen.zarr` beside it, if that can be written.

    Else, or always where MGEN_CACHE names a folder, it lies in the user's cache directory, with
    part of the song's hash in its name.
    """
    given = os.environ.get("MGEN_CACHE")
    beside = song.absolute().with_name(f"{song.stem}{ENDING}")
    if not given and os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside
    folder = Path(given).expanduser() if given else user_cache()
    return folder / f"{song.stem}-{sha256[:12]}{ENDING}"


def user_cache() -> Path:
    """The folder of this system for what can be made again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "mgen"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/mgen"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mgen"


def open_cache(song: Path, sha256: str) -> Store:
    """Open the store of a song for writing; make it where there is none."""
    path = cache_path(song, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Store.open_or_create(path)


def add_song(store: Store, path: Path, sha256: str, command: str = "") -> SongRow:
    """The row of a file in its store, read into it where it is not there yet.

    Raises
    ------
    AudioError, MissingDependencyError
        If it cannot be read, is silent or too short.
    """
    row = song_of(store, sha256)
    if row is None:
        for report in filter_songs(store, [path], command=command):
            if report.status == "failed":
                raise AudioError(f"{path}: {report.reason}")
        row = song_of(store, sha256)
    if row is None:
        raise AudioError(f"{path}: changed while it was read; run the same command again")
    if not row.kept:
        raise AudioError(f"{path}: {row.reason}")
    return row


def song_of(store: Store, sha256: str) -> SongRow | None:
    """The row of a whole file, if the store holds it."""
    return next((s for s in store.songs() if s.sha256 == sha256 and s.start_s == 0), None)


def prepare(
    store: Store, song: SongRow, tokenizer: Tokenizer | None, command: str = ""
) -> Iterator[str]:
    """Make the bars and latents of a song, and of those before it, where they are missing.

    All of the song is done, not only what is around the edited bars. Actions are relative to its
    average bar, which a few bars do not tell: of 25 songs, with 32 bars spread over each 14 of 100
    bars had another first action, with 48 still 10, and a quarter of the work (half of that in a
    song of three minutes) would have been saved, once a song. Most of it finds the beats, by which
    bars are numbered.

    Yields
    ------
    What is being done, before it is.
    """
    bars = store.layer("bars")
    if bars is None or bars.length() <= song.index:
        yield "beats and bars"
        for _ in segment_songs(store, Segmentation(), command=command):
            pass
    if tokenizer is None:
        return
    from mgen.core.tokenizer.passes import latents_id, tokenize_songs

    latents = store.layer(f"{LATENTS}/{latents_id(tokenizer)}")
    if latents is None or latents.length() <= song.index:
        yield "latents"
        for _ in tokenize_songs(store, tokenizer, command=command):
            pass


def require(store: Store, song: SongRow, tokenizer: Tokenizer | None) -> None:
    """Refuse a song whose bars or latents are missing or stale.

    Raises
    ------
    StoreError, StaleError
        With the command that makes them.
    """
    layers = {"bars": "segment-bars"}
    if tokenizer is not None:
        from mgen.core.tokenizer.passes import latents_id

        layers[f"{LATENTS}/{latents_id(tokenizer)}"] = "tokenize"
    for name, made_by in layers.items():
        layer = store.need(name)
        if reason := store.stale(name):
            raise StaleError(f"{store.where}: {name} are stale: {reason}; `mgen {made_by} --force`")
        if layer.length() <= song.index:
            raise StoreError(
                f"{store.where}: '{song.name}' has no {name} yet; run `mgen {made_by}` first"
            )
