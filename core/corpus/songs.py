"""Audio files -> songs: reading recordings into a store."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
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
)
from mgen.core.parallel import SerialExecutor, in_order
from mgen.core.quality import QualityMeter, Screening, Verdict, load_judge, weigh
from mgen.core.quality.verdict import clip_curve, decide
from mgen.core.store import RATE, Provenance, SongRow, Store

_SOURCE_ERRNOS = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENXIO}
"""Errors of the operating system that speak of the song; others (a full disk) stop the pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SongReport:
    """What became of one input of `filter_songs`.

    `added`: new in the store. `known`: the store holds this content already. `poor`: read, and
    judged not good enough. `rejected`: it cannot be used. The rows of both say why. `failed`: it
    could not even be identified, and left no row. `clips` are the rows that it has in the store,
    `song` is the first of them; `quality` is NaN where it was not judged.
    """

    source: str
    status: Literal["added", "known", "poor", "rejected", "failed"]
    song: int | None = None
    clips: int = 0
    name: str = ""
    duration_s: float = 0.0
    quality: float = float("nan")
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
    how: Screening | None = None,
    executor: Executor | None = None,
    window: int | None = None,
    resume: bool = True,
    force: bool = False,
    command: str = "",
) -> Generator[SongReport]:
    """Read recordings into a store: 16 kHz mono int16, one row each (or one per good stretch).

    Content that the store holds is not read again, whatever its name. A recording that is
    unreadable, silent, too short, cut short or not good enough keeps a row with its reason, its
    score and no samples.

    Parameters
    ----------
    store
        Open for appending.
    inputs
        Files, as `list_songs` gives them.
    how
        How they are judged; without it, all that can be read is kept, unjudged.
    executor, window
        Where to decode and judge, and how many songs at once; in this process by default.
    resume
        Without it, the store's songs are dropped and all inputs are read anew.
    force
        Allows dropping songs that are not among the inputs.

    Raises
    ------
    InputError
        If the judge cannot be used.
    StoreError
        If starting anew would drop songs that the inputs do not hold, without `force`; if the
        songs of the store were judged otherwise.
    OSError
        If the store cannot be written to (a full disk); what is published stays.
    """
    made = _provenance(how, command)
    anew = force or not resume
    if anew and not force:
        _require_same_songs(store, inputs)
    store.begin("songs", made, anew=anew)
    ids = {song.id.split("-")[0] for song in store.songs()}
    known: dict[str, list[int]] = {}
    for song in store.songs():
        known.setdefault(song.sha256, []).append(song.index)
    before = len(store.songs())
    tasks = _song_tasks(inputs, set(known), store.spool, how)
    for task, future in in_order(executor or SerialExecutor(), _decode_song, tasks, window=window):
        decoded = future.result()
        if decoded.failure:
            yield _failed(task.path, decoded.failure)
            continue
        if task.sha256 not in known:  # always, but for the second of two equal files
            known[task.sha256] = store.append_songs(_stored(task, decoded, ids), made)
            status: Literal["added", "known"] = "added"
        else:
            status = "known"
        Path(task.spool).unlink(missing_ok=True)
        yield _song_report([store.song(i) for i in known[task.sha256]], task, status, before)


def _provenance(how: Screening | None, command: str) -> Provenance:
    if how is None:
        return Provenance(command=command, settings={"rate": RATE})
    settings = {"rate": RATE, "threshold": how.threshold, "keep": how.keep}
    if how.keep == "clips":
        settings["min_clip_s"] = how.min_clip_s
    return Provenance(command=command, settings=settings, model=load_judge(how.model).id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SongTask:
    path: str
    sha256: str = ""
    spool: str = ""
    failure: str = ""
    known: bool = False
    how: Screening | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """What a worker found; the samples lie in the spool file. A song has a `verdict` unless it
    has a `reason`.
    """

    rate: int = 0
    channels: int = 0
    reason: str = ""
    failure: str = ""
    verdict: Verdict | None = None


def _song_tasks(
    inputs: Iterable[Path], known: set[str], spool: Path, how: Screening | None
) -> Iterator[_SongTask]:
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
            known=sha256 in known, how=how,
        )  # fmt: skip
        known.add(sha256)


def _decode_song(task: _SongTask) -> _Decoded:
    """Decode and judge one recording, block by block, into its spool file (runs in a worker)."""
    if task.failure or task.known:
        return _Decoded(failure=task.failure)
    try:
        info = probe(task.path)
    except (MgenError, OSError) as error:
        return _refusal(task, error)
    n_samples, peak, meter = 0, 0.0, QualityMeter()
    try:
        with open(task.spool, "wb") as spool:
            for block in stream_mono(task.path, RATE):
                pcm = to_int16(block)
                spool.write(pcm.astype("<i2", copy=False).tobytes())
                if task.how is not None:  # judged is what is stored
                    meter.push(pcm / np.float32(32768))
                n_samples += len(block)
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
        require_usable(task.path, duration_s=n_samples / RATE, peak=peak)
    except (MgenError, OSError) as error:
        refusal = _refusal(task, error)
        return _Decoded(
            rate=info.rate, channels=info.channels, reason=refusal.reason, failure=refusal.failure
        )
    return _Decoded(
        rate=info.rate, channels=info.channels, verdict=_judge(meter, n_samples, task.how)
    )


def _judge(meter: QualityMeter, n_samples: int, how: Screening | None) -> Verdict:
    if how is None:
        return Verdict(float("nan"), np.zeros(0, np.float32), ((0, n_samples),))
    return decide(weigh(load_judge(how.model), *meter.finish()), n_samples, how)


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


def _spooled(path: str, start: int, stop: int) -> Iterator[npt.NDArray[np.int16]]:
    """The samples from `start` to `stop` of a spool file, in blocks."""
    with open(path, "rb") as spool:
        spool.seek(2 * start)
        while start < stop:
            block = np.frombuffer(spool.read(2 * min(1 << 20, stop - start)), "<i2")
            yield block.astype(np.int16, copy=False)
            start += len(block)


def _stored(
    task: _SongTask, decoded: _Decoded, ids: set[str]
) -> Iterator[tuple[SongRow, Iterable[npt.NDArray[np.int16]], npt.NDArray[np.float32]]]:
    """The rows of one recording with their samples and curves: the song, its clips, or a reason."""
    digits = next(n for n in range(12, 65, 4) if task.sha256[:n] not in ids)
    ids.add(task.sha256[:digits])
    verdict = decoded.verdict or Verdict(float("nan"), np.zeros(0, np.float32), (), decoded.reason)
    row = SongRow(
        id=task.sha256[:digits], name=Path(task.path).stem,
        source=str(Path(task.path).absolute()), sha256=task.sha256, source_rate=decoded.rate,
        source_channels=decoded.channels, kept=bool(verdict.clips), reason=verdict.reason,
        quality=verdict.quality,
    )  # fmt: skip
    if not verdict.clips:
        yield row, (), verdict.curve_W
    elif task.how is None or task.how.keep == "songs":
        yield row, _spooled(task.spool, *verdict.clips[0]), verdict.curve_W
    else:
        for number, (start, stop) in enumerate(verdict.clips, 1):
            curve_W = clip_curve(verdict, (start, stop))
            clip = replace(
                row, id=f"{row.id}-{number}", start_s=start / RATE,
                name=f"{row.name} {start / RATE:.0f}-{stop / RATE:.0f}s",
                quality=float(curve_W.mean()),
            )  # fmt: skip
            yield clip, _spooled(task.spool, start, stop), curve_W


def _song_report(
    rows: Sequence[SongRow], task: _SongTask, status: Literal["added", "known"], before: int
) -> SongReport:
    row, reason = rows[0], rows[0].reason
    if reason and row.index < before:
        reason += " (found in an earlier run; --no-resume reads it again)"
    refused: Literal["poor", "rejected"] = "rejected" if math.isnan(row.quality) else "poor"
    return SongReport(
        source=task.path, status=status if row.kept else refused, song=row.index,
        clips=sum(one.kept for one in rows), name=Path(task.path).stem, quality=row.quality,
        duration_s=sum(one.duration_s for one in rows), reason=reason,
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
