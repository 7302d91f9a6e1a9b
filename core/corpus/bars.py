"""Songs -> beats and bars: tracking, cutting and warping every song of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mgen.core.audio import sha256_file, stream_mono
from mgen.core.bars import (
    BAR_SAMPLES,
    STRETCHERS,
    BarGrid,
    bar_samples,
    bars_from_beats,
    jitter_grid,
    warp_bar,
)
from mgen.core.beats import TRACKERS, Beats, fixed_beats, read_beats, track_beats, tracker_id
from mgen.core.corpus.files import beats_files
from mgen.core.corpus.songs import to_int16
from mgen.core.errors import AudioError, InputNotFoundError, UsageError
from mgen.core.parallel import SerialExecutor, in_order
from mgen.core.store import RATE, BarTable, Provenance, SongPcm, SongRow, Store

if TYPE_CHECKING:
    from mgen.core.store.files import Location

_WARP_BLOCK = 16  # bars that the coordinator holds at once


@dataclass(frozen=True, slots=True, kw_only=True)
class BarReport:
    """What became of one song in `segment_songs`; `bars` and `valid` leave jittered copies out.

    `known`: its bars were there. `skipped`: rejected by `filter`. `failed`: `reason` says why.
    """

    song: int
    name: str
    status: Literal["done", "known", "skipped", "failed"]
    beats: int = 0
    bars: int = 0
    valid: int = 0
    bpm: float = 0.0
    confidence: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """How beats are found and bars are cut; what decides the result is recorded in the store."""

    tracker: str = "mgen"
    beat_model: Path | None = None
    beats_path: Path | None = None
    bpm: float | None = None
    offset_s: float = 0.0
    jitter: int = 0
    stretcher: str = "signalsmith"
    seed: int = 0
    device: str = "cpu"
    compile: str = "auto"

    def check(self) -> None:
        """Refuse what makes no sense before any work is done.

        Raises
        ------
        UsageError
            If there is no such tracker, or options exclude each other.
        InputNotFoundError
            If a file that is named is not there.
        """
        if self.tracker not in TRACKERS:
            raise UsageError(
                f"no tracker is called '{self.tracker}'; choose from {', '.join(TRACKERS)}"
            )
        if self.bpm is not None and self.beats_path is not None:
            raise UsageError("--beats and --bpm exclude each other; give one of them")
        if self.bpm is None and self.offset_s:
            raise UsageError("--offset places a fixed grid; give its --bpm too")
        if self.bpm is not None:
            fixed_beats(1.0, self.bpm, self.offset_s)
        if self.stretcher not in STRETCHERS:
            raise UsageError(
                f"no stretcher is called '{self.stretcher}'; choose from {', '.join(STRETCHERS)}"
            )
        if not 0 <= self.jitter <= 127:
            raise UsageError(f"--jitter {self.jitter}: give 0 to 127 copies")
        for path in (self.beat_model, self.beats_path):
            if path is not None and not path.exists():
                raise InputNotFoundError(f"{path}: not found; check the path")

    def beats_provenance(self, command: str, file_hashes: Sequence[str] = ()) -> Provenance:
        """Settings that decide the beats; of a person's files, the hashes of those used so far."""
        if self.beats_path is not None:
            content = hashlib.sha256("".join(file_hashes).encode()).hexdigest()
            return Provenance(command=command, settings={"beats": content})
        if self.bpm is not None:
            return Provenance(
                command=command, settings={"bpm": self.bpm, "offset_s": self.offset_s}
            )
        model = tracker_id(self.tracker, self.beat_model)
        return Provenance(command=command, settings={"tracker": self.tracker}, model=model)

    def bars_provenance(self, command: str) -> Provenance:
        """Settings that decide the bars, given the beats."""
        settings: dict[str, object] = {"stretcher": self.stretcher, "jitter": self.jitter}
        if self.jitter:
            settings["seed"] = self.seed
        return Provenance(command=command, settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentedFile:
    """Beats and bars of a recording that is in no store."""

    duration_s: float
    beats: Beats
    grid: BarGrid

    @property
    def bpm(self) -> float:
        """Median tempo of the bars."""
        return float(np.median(self.grid.bpm)) if len(self.grid) else 0.0

    @property
    def confidence(self) -> float:
        """Mean confidence of the bars, 0..1."""
        return float(self.grid.confidence.mean()) if len(self.grid) else 0.0


def segment_file(path: Path | str, *, tracker: str = "mgen") -> SegmentedFile:
    """Beats and bars of a recording, the same that its store would hold.

    Raises
    ------
    AudioError, InputNotFoundError, MissingDependencyError
        If it cannot be read.
    """
    pcm = np.concatenate([to_int16(block) for block in stream_mono(path, RATE)])
    beats = track_beats(pcm, RATE, tracker=tracker)
    duration_s = len(pcm) / RATE
    return SegmentedFile(
        duration_s=duration_s, beats=beats, grid=bars_from_beats(beats, duration_s)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _BarTask:
    location: Location
    song: SongRow
    how: Segmentation
    beats_file: Path | None
    has_beats: bool
    spool: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Segmented:
    """What a worker made: beats in seconds of the source, bars; their sound is in the spool."""

    beats: Beats
    table: BarTable
    reason: str = ""
    pcm: str = ""


def segment_songs(
    store: Store,
    how: Segmentation,
    *,
    executor: Executor | None = None,
    window: int | None = None,
    resume: bool = True,
    force: bool = False,
    command: str = "",
) -> Generator[BarReport]:
    """Find the beats of every song, cut it into bars, and warp each bar to 2.048 s.

    Parameters
    ----------
    store
        Open for appending.
    how
        Tracker or own beats, jitter, stretcher.
    executor, window
        Where to work, and on how many songs at once; in this process by default.
    resume, force
        Either way (`resume` off, `force` on) the layers are made again from the first song.

    Raises
    ------
    UsageError, InputNotFoundError
        As `Segmentation.check`; or if one file of beats is given for several songs, or a folder
        has none for a song, or two that differ.
    InputError
        If a file of beats cannot be read; the store is as it was.
    StaleError
        If beats or bars were made from songs that have changed since, without `force`.
    StoreError
        If they were made with other settings, without `force`.
    """
    how.check()
    songs = store.songs()
    store.need("songs")
    files = beats_files(how.beats_path, songs) if how.beats_path is not None else {}
    hashes = [sha256_file(files[s.index]) if s.index in files else "" for s in songs]
    made_bars = how.bars_provenance(command)
    anew = force or not resume
    if anew:  # what is made of the beats goes first: nothing is stale if this is where it ends
        store.begin("bars", made_bars, anew=True)
    layer = store.layer("beats")
    have_beats = 0 if anew or layer is None else layer.length()
    # songs may come later, so what is there is compared with its own files only
    store.begin("beats", how.beats_provenance(command, hashes[:have_beats]), anew=anew)
    done = store.begin("bars", made_bars).length()
    yield from known_songs(store)
    tasks = (
        _BarTask(
            location=store.location, song=song, how=how, beats_file=files.get(song.index),
            has_beats=song.index < have_beats, spool=str(store.spool / f"bars-{song.index}.pcm"),
        )
        for song in songs[done:]
    )  # fmt: skip
    for task, future in in_order(executor or SerialExecutor(), _segment, tasks, window=window):
        made = future.result()
        if not task.has_beats:
            so_far = hashes[: task.song.index + 1]
            store.append_beats(made.beats, how.beats_provenance(command, so_far))
        store.append_bars(made.table, _spooled_bars(made.pcm), made_bars, made.reason)
        Path(task.spool).unlink(missing_ok=True)
        yield _bar_report(task.song, made)


def known_songs(store: Store) -> Iterator[BarReport]:
    """Report the songs that have their bars, as `segment_songs` does before it makes more."""
    for song in store.songs()[: store.need("bars").length()]:
        if not song.kept:
            yield _skipped(song)
            continue
        table, reason = store.bars(song.index), store.segment_reason(song.index)
        yield _report(song, "failed" if reason else "known", table,
                      len(store.beats(song.index)), reason)  # fmt: skip


def _bar_report(song: SongRow, made: _Segmented) -> BarReport:
    if not song.kept:
        return _skipped(song)
    real = made.table.where(made.table.jitter == 0)
    return _report(song, "failed" if made.reason else "done", real, len(made.beats), made.reason)


def _skipped(song: SongRow) -> BarReport:
    return BarReport(song=song.index, name=song.name, status="skipped", reason=song.reason)


def _report(
    song: SongRow, status: Literal["done", "known", "failed"], real: BarTable, beats: int,
    reason: str,
) -> BarReport:  # fmt: skip
    return BarReport(
        song=song.index, name=song.name, status=status, beats=beats, bars=len(real),
        valid=int(real.valid.sum()), reason=reason,
        bpm=float(np.median(real.bpm)) if len(real) else 0.0,
        confidence=float(real.confidence.mean()) if len(real) else 0.0,
    )  # fmt: skip


def _segment(task: _BarTask) -> _Segmented:
    """Beats, bars and warped sound of one song (runs in a worker)."""
    nothing = _Segmented(beats=_no_beats(), table=_table(task.song, []))
    if not task.song.kept:
        return nothing
    with Store.open(task.location) as store:
        pcm = store.song_pcm(task.song.index)
        try:
            beats = _find_beats(task, store)
        except AudioError as error:
            return _Segmented(beats=nothing.beats, table=nothing.table, reason=str(error))
        grid = bars_from_beats(beats, task.song.duration_s)
        rng = np.random.Generator(
            np.random.Philox([task.how.seed, int(task.song.sha256[:16] or "0", 16)])
        )
        grids = [grid, *jitter_grid(grid, task.how.jitter, rng)]
        with open(task.spool, "wb") as spool:
            for one in grids:
                for start_s, end_s in zip(one.start_s, one.end_s, strict=True):
                    bar = _warped(pcm, start_s, end_s, task.how.stretcher)
                    spool.write(bar.astype("<i2", copy=False).tobytes())
    shift = task.song.start_s
    return _Segmented(
        beats=Beats(beats.time_s + shift, beats.beat_in_bar, beats.confidence),
        table=_table(task.song, grids),
        pcm=task.spool,
    )


def _find_beats(task: _BarTask, store: Store) -> Beats:
    """Beats in seconds of the song's own samples: kept ones, a person's, a grid, or tracked."""
    song, how = task.song, task.how
    if task.has_beats:
        stored = store.beats(song.index)
        return Beats(stored.time_s - song.start_s, stored.beat_in_bar, stored.confidence)
    if task.beats_file is not None:
        given = read_beats(task.beats_file, least=1)
        inside = (given.time_s >= 0) & (given.time_s <= song.duration_s)
        return Beats(given.time_s[inside], given.beat_in_bar[inside], given.confidence[inside])
    if how.bpm is not None:
        return fixed_beats(song.duration_s, how.bpm, how.offset_s)
    found = track_beats(
        store.song_pcm(song.index), RATE, tracker=how.tracker, beat_model=how.beat_model,
        device=how.device, compile=how.compile,
    )  # fmt: skip
    inside = (found.time_s >= 0) & (found.time_s <= song.duration_s)
    return Beats(found.time_s[inside], found.beat_in_bar[inside], found.confidence[inside])


def _warped(pcm: SongPcm, start_s: float, end_s: float, stretcher: str) -> npt.NDArray[np.int16]:
    """One bar at 2.048 s, heard with a second of the song on each side."""
    start, end = bar_samples(start_s, end_s, RATE)
    end = min(end, len(pcm))
    first = max(0, start - RATE)
    around = pcm[first : end + RATE].astype(np.float32) / np.float32(32768)
    inside = slice(start - first, end - first)
    return to_int16(
        warp_bar(
            around[inside], stretcher=stretcher, before=around[: inside.start],
            after=around[inside.stop :],
        )
    )  # fmt: skip


def _no_beats() -> Beats:
    return Beats(np.empty(0), np.empty(0, np.int8), np.empty(0, np.float32))


def _table(song: SongRow, grids: Sequence[BarGrid]) -> BarTable:
    """The grids of one song as rows: the real bars, then each jittered copy."""
    copies = [np.full(len(grid), copy) for copy, grid in enumerate(grids)]
    numbers = [np.arange(len(grid)) for grid in grids]

    def joined(parts: Sequence[npt.NDArray[Any]], dtype: str) -> npt.NDArray[Any]:
        return np.concatenate([np.empty(0), *parts]).astype(dtype)

    count = sum(len(grid) for grid in grids)
    return BarTable(
        song=np.full(count, song.index, np.int32),
        index=joined(numbers, "int32"),
        start_s=joined([g.start_s for g in grids], "float64") + song.start_s,
        end_s=joined([g.end_s for g in grids], "float64") + song.start_s,
        beats=joined([g.beats for g in grids], "int8"),
        bpm=joined([g.bpm for g in grids], "float32"),
        stretch=joined([g.stretch for g in grids], "float32"),
        jitter=joined(copies, "int8"),
        valid=joined([g.valid for g in grids], "bool"),
        confidence=joined([g.confidence for g in grids], "float32"),
    )


def _spooled_bars(path: str) -> Iterator[npt.NDArray[np.int16]]:
    """The warped bars of a spool file, (rows, 32768) at a time."""
    if not path:
        return
    with open(path, "rb") as spool:
        while len(block := np.frombuffer(spool.read(2 * BAR_SAMPLES * _WARP_BLOCK), "<i2")):
            yield block.reshape(-1, BAR_SAMPLES).astype(np.int16, copy=False)
