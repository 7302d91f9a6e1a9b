"""Audio files -> songs: reading recordings into a store."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mgen.core.audio import find_audio, probe, require_usable, sha256_file, stream_mono
from mgen.core.errors import (
    AudioError,
    InputNotFoundError,
    MgenError,
    MissingDependencyError,
    StoreError,
    UsageError,
)
from mgen.core.parallel import SerialExecutor, in_order
from mgen.core.store import RATE, Provenance, SongRow, Store

_SOURCE_ERRNOS = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENXIO}
"""Errors of the operating system that speak of the song; others (a full disk) stop the pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SongReport:
    """What became of one input of `filter_songs`.

    `added`: new in the store. `known`: the store holds this content already. `rejected`: its row
    says why. `failed`: it could not even be identified, and left no row.
    """

    source: str
    status: Literal["added", "known", "rejected", "failed"]
    song: int | None = None
    name: str = ""
    duration_s: float = 0.0
    reason: str = ""


def list_songs(inputs: Iterable[str | Path]) -> tuple[list[Path], list[SongReport]]:
    """The recordings that files and folders stand for, and the inputs that stand for none."""
    found: dict[Path, None] = {}
    failed: list[SongReport] = []
    for given in inputs:
        try:
            below = find_audio([given])
        except InputNotFoundError as error:
            failed.append(_failed(str(given), str(error)))
            continue
        if not below:
            failed.append(_failed(str(given), "no audio in this folder; name another"))
        found.update(dict.fromkeys(below))
    return list(found), failed


def filter_songs(
    store: Store,
    inputs: Sequence[Path],
    *,
    executor: Executor | None = None,
    window: int | None = None,
    threshold: float = 0.0,
    resume: bool = True,
    force: bool = False,
    command: str = "",
) -> Generator[SongReport]:
    """Read recordings into a store: 16 kHz mono int16, one row each.

    Content that the store holds is not read again, whatever its name. A recording that is
    unreadable, silent, too short or cut short keeps a row with its reason and no samples.

    Parameters
    ----------
    store
        Open for appending.
    inputs
        Files, as `list_songs` gives them.
    executor, window
        Where to decode, and how many songs at once; in this process by default.
    threshold
        Least quality to keep; 0 keeps all, and nothing else is possible without a judge.
    resume
        Without it, the store's songs are dropped and all inputs are read anew.
    force
        Allows dropping songs that are not among the inputs.

    Raises
    ------
    UsageError
        If `threshold` is not 0.
    StoreError
        If starting anew would drop songs that the inputs do not hold, without `force`.
    OSError
        If the store cannot be written to (a full disk); what is published stays.
    """
    if threshold != 0:
        raise UsageError(
            "this version has no quality judge yet: --threshold takes 0, which keeps all songs"
        )
    made = Provenance(command=command, settings={"rate": RATE, "threshold": threshold})
    anew = force or not resume
    if anew and not force:
        _require_same_songs(store, inputs)
    store.begin("songs", made, anew=anew)
    ids = {song.id for song in store.songs()}
    known = {song.sha256: song.index for song in store.songs()}
    before = len(known)
    tasks = _song_tasks(inputs, set(known), store.spool)
    for task, future in in_order(executor or SerialExecutor(), _decode_song, tasks, window=window):
        decoded = future.result()
        if decoded.failure:
            yield _failed(task.path, decoded.failure)
            continue
        if task.sha256 not in known:  # always, but for the second of two equal files
            row = _song_row(task, decoded, ids)
            known[task.sha256] = store.append_song(row, _spooled(task.spool, decoded), made)
            status: Literal["added", "known"] = "added"
        else:
            status = "known"
        Path(task.spool).unlink(missing_ok=True)
        yield _song_report(store.song(known[task.sha256]), task, status, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SongTask:
    path: str
    sha256: str = ""
    spool: str = ""
    failure: str = ""
    known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """What a worker found; the samples lie in the spool file."""

    rate: int = 0
    channels: int = 0
    n_samples: int = 0
    reason: str = ""
    failure: str = ""


def _song_tasks(inputs: Iterable[Path], known: set[str], spool: Path) -> Iterator[_SongTask]:
    """Hash each file just before it is needed; what is known is not decoded."""
    for number, path in enumerate(inputs):
        try:
            sha256 = sha256_file(path)
        except OSError as error:
            if error.errno not in _SOURCE_ERRNOS:
                raise
            yield _SongTask(path=str(path), failure=(error.strerror or str(error)).lower())
            continue
        yield _SongTask(
            path=str(path), sha256=sha256, spool=str(spool / f"song-{number}.pcm"),
            known=sha256 in known,
        )  # fmt: skip
        known.add(sha256)


def _decode_song(task: _SongTask) -> _Decoded:
    """Decode one recording into its spool file, block by block (runs in a worker)."""
    if task.failure or task.known:
        return _Decoded(failure=task.failure)
    try:
        info = probe(task.path)
    except (MgenError, OSError) as error:
        return _refusal(task, error)
    n_samples, peak = 0, 0.0
    try:
        with open(task.spool, "wb") as spool:
            for block in stream_mono(task.path, RATE):
                spool.write(to_int16(block).astype("<i2", copy=False).tobytes())
                n_samples += len(block)
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
        require_usable(task.path, duration_s=n_samples / RATE, peak=peak)
    except (MgenError, OSError) as error:
        refusal = _refusal(task, error)
        return _Decoded(
            rate=info.rate, channels=info.channels, reason=refusal.reason, failure=refusal.failure
        )
    return _Decoded(rate=info.rate, channels=info.channels, n_samples=n_samples)


def _refusal(task: _SongTask, error: MgenError | OSError) -> _Decoded:
    """A row with a reason, or (what may read well tomorrow) a failure; a full disk goes on up."""
    text = str(error).removeprefix(f"{task.path}: ")
    if isinstance(error, AudioError):
        return _Decoded(reason=text)
    if isinstance(error, (MissingDependencyError, InputNotFoundError)):
        return _Decoded(failure=text)
    if isinstance(error, OSError) and error.errno in _SOURCE_ERRNOS:
        return _Decoded(failure=(error.strerror or text).lower())
    raise error


def to_int16(samples_N: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Samples in -1..1 as int16, rounded to the nearest and clipped; what came from int16 comes
    back unchanged.
    """
    return np.clip(np.rint(samples_N * np.float32(32768)), -32768, 32767).astype(np.int16)


def _spooled(path: str, decoded: _Decoded) -> Iterator[npt.NDArray[np.int16]]:
    """The samples of a spool file in blocks; none for a rejected song."""
    if decoded.reason:
        return
    with open(path, "rb") as spool:
        while len(block := np.frombuffer(spool.read(1 << 21), "<i2")):
            yield block.astype(np.int16, copy=False)


def _song_row(task: _SongTask, decoded: _Decoded, ids: set[str]) -> SongRow:
    digits = next(n for n in range(12, 65, 4) if task.sha256[:n] not in ids)
    ids.add(task.sha256[:digits])
    return SongRow(
        id=task.sha256[:digits], name=Path(task.path).stem,
        source=str(Path(task.path).absolute()), sha256=task.sha256, source_rate=decoded.rate,
        source_channels=decoded.channels, kept=not decoded.reason, reason=decoded.reason,
    )  # fmt: skip


def _song_report(
    row: SongRow, task: _SongTask, status: Literal["added", "known"], before: int
) -> SongReport:
    reason = row.reason
    if reason and row.index < before:
        reason += " (found in an earlier run; --no-resume reads it again)"
    return SongReport(
        source=task.path, status=status if row.kept else "rejected", song=row.index,
        name=row.name, duration_s=row.duration_s, reason=reason,
    )  # fmt: skip


def _failed(source: str, reason: str) -> SongReport:
    return SongReport(
        source=source, status="failed", name=Path(source).stem,
        reason=reason.removeprefix(f"{source}: "),
    )  # fmt: skip


def _require_same_songs(store: Store, inputs: Sequence[Path]) -> None:
    kept = {song.sha256: song.name for song in store.songs() if song.kept}
    for path in inputs:
        if not kept:
            return
        if os.access(path, os.R_OK):
            kept.pop(sha256_file(path), None)
    if kept:
        raise StoreError(
            f"{store.where}: reading anew would drop {len(kept)} songs that are not among the"
            f" inputs (first: {next(iter(kept.values()))}); --force drops them"
        )
