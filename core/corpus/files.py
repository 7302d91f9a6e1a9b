"""What the files of a song are called, and which of a person's files are whose."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mgen.core.beats import Beats, read_beats
from mgen.core.errors import OutputExistsError, UsageError
from mgen.core.store import SongRow

_BEATS_ENDINGS = (
    ".beats", ".beats.csv", ".beats.tsv", ".beats.json", ".tsv", ".csv", ".json", ".txt"
)  # fmt: skip
_LONGEST_STEM = 200  # bytes; a name may have 255, and a temporary one is longer


def file_stems(songs: Iterable[SongRow]) -> dict[int, str]:
    """What the files of each song are called, without their endings; rows -> names.

    The song's name, without what a file system takes no name with; with the song's id after it
    where two songs share one (also where they differ in upper and lower case only).
    """
    songs = list(songs)
    plain = {song.index: _safe(song.name) or song.id for song in songs}
    count = Counter(_folded(stem) for stem in plain.values())
    stems: dict[int, str] = {}
    taken = set(count)
    for song in songs:
        stem = plain[song.index]
        if count[_folded(stem)] > 1:
            stem = f"{stem}-{song.id}"
            if _folded(stem) in taken:  # another song is called just that
                stem = f"{stem}-{song.index}"
            taken.add(_folded(stem))
        stems[song.index] = stem
    return stems


def _safe(name: str) -> str:
    kept = "".join("_" if c in "/\\" or not c.isprintable() else c for c in name).lstrip(".")
    return kept.encode()[:_LONGEST_STEM].decode("utf-8", "ignore").rstrip()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def beats_files(path: Path, songs: Iterable[SongRow]) -> dict[int, Path]:
    """Which file of a person's beats belongs to which kept song; rows -> files.

    Parameters
    ----------
    path
        A file, where one song is kept; or a folder with a file for each, see `file_stems`.
    songs
        All songs of the store.

    Raises
    ------
    UsageError
        If there is one file for several songs, none for a song, or two that do not agree.
    InputError
        If a file cannot be read: all are read here, before anything is replaced.
    """
    kept = [song for song in songs if song.kept]
    if path.is_dir():
        stems = file_stems(kept)
        return {song.index: _beats_file(path, stems[song.index], song) for song in kept}
    if len(kept) > 1:
        raise UsageError(
            f"{path}: one file of beats, but the store holds {len(kept)} songs; give a folder"
            " with a file per song, named as the song"
        )
    read_beats(path, least=1)
    return {song.index: path for song in kept}


def _beats_file(folder: Path, stem: str, song: SongRow) -> Path:
    """The file of a song's beats in a folder; refused where two files do not say the same."""
    files = [file for ending in _BEATS_ENDINGS if (file := folder / f"{stem}{ending}").is_file()]
    if not files:
        raise UsageError(f"{folder}: no beats for song '{song.name}'; add {stem}.beats")
    chosen = read_beats(files[0], least=1)
    # both are what an export writes: a correction in one of them must not be passed over
    for other in (f for f in files[1:] if {f.suffix, files[0].suffix} == {".beats", ".txt"}):
        if not _same_beats(chosen, read_beats(other, least=1)):
            raise UsageError(
                f"{files[0]} and {other.name} hold different beats; remove the one that is not"
                " corrected"
            )
    return files[0]


def _same_beats(one: Beats, other: Beats) -> bool:
    """Whether they are the same to what Audacity keeps of a time when it saves: six decimals."""
    return np.array_equal(one.beat_in_bar, other.beat_in_bar) and np.allclose(
        one.time_s, other.time_s, rtol=0.0, atol=2e-6
    )


def check_outputs(paths: Sequence[Path], option: str, *, force: bool) -> None:
    """Refuse to write where something is, without `force`.

    Raises
    ------
    OutputExistsError
        If some of the files exist; `option` names another folder.
    """
    there = [path for path in paths if os.path.lexists(path)]
    if there and not force:
        more = f" and {len(there) - 1} files more" if len(there) > 1 else ""
        verb = "exist" if more else "exists"
        raise OutputExistsError(
            f"{there[0]}{more}: {verb}; --force replaces what is there, {option} names another"
            " folder"
        )


def check_output_folder(folder: Path, option: str) -> None:
    """Refuse a folder for a person's files that is none, or where a store would be damaged.

    Raises
    ------
    UsageError
        If it is a file, or part of a store; `option` names another.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder; name another with {option}")
    if any((up / "zarr.json").exists() for up in (folder.absolute(), *folder.absolute().parents)):
        raise UsageError(f"{folder}: lies in a store; name another folder with {option}")
