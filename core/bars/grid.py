"""From beats to bars: a grid that tiles the song, whatever the beats are like.

Arrays: b bars, n beats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mgen.core.errors import UsageError

if TYPE_CHECKING:
    from mgen.core.beats import Beats

BAR_SAMPLES = 32768
"""Samples of a warped bar: 64 latents of 512 samples."""

BAR_RATE = 16000
"""Hz."""

BAR_S = BAR_SAMPLES / BAR_RATE
"""Seconds of a warped bar: 2.048, which is four beats at 117.19 BPM."""

MIN_STRETCH, MAX_STRETCH = 0.4, 2.5

_CLOSEST_S = 0.06  # beats closer than 1000 BPM are one beat
_GAP = 1.75  # an interval this many times the local beat has lost beats inside
_UNGROUPED_CONFIDENCE = 0.3  # of bars whose downbeats are only counted off
_NEIGHBOURS = 4  # bars to each side that say what the local meter is


@dataclass(frozen=True, slots=True, eq=False)
class BarGrid:
    """Bars of one song, in order; the end of each is the start of the next.

    Attributes
    ----------
    start_s, end_s
        Edges in seconds from the first sample (b,), float64.
    beats
        Beats in each bar (b,), int8; 0 where there is no beat to count.
    bpm
        Tempo (b,), float32, smoothed by a median over five bars.
    stretch
        2.048 s over the bar's length (b,), float32: above 1 the warp makes the bar longer.
    valid
        Whether the bar is one to learn from (b,): its stretch lies within 0.4 to 2.5, and it has
        as many beats as the bars around it.
    confidence
        How sure beats and downbeats are (b,), float32 in 0..1.
    """

    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    beats: npt.NDArray[np.int8]
    bpm: npt.NDArray[np.float32]
    stretch: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.start_s)


def bars_from_beats(beats: Beats, duration_s: float) -> BarGrid:
    """Group the beats of a song into bars that tile it from the first beat to the last.

    The last bar reaches one beat past the last beat where the song is that long. Beats before the
    first downbeat are a bar of their own, as are those that no full bar is left for at the end:
    both are kept, and not valid. Bars of 8, 12 and 16 beats are folded into bars of 4 (or of what
    the bars around them have), a false downbeat inside a bar is dropped, beats that a tracker has
    missed are filled in evenly, odd meters stay. Without any downbeat, four beats make a bar, at a
    low confidence; without beats, 2.048 seconds do, at confidence 0.

    Parameters
    ----------
    beats
        As a tracker gives them; those outside 0 to `duration_s` are left out.
    duration_s
        Length of the song in seconds.
    """
    time_s, place, confidence = _cleaned(beats, duration_s)
    if len(time_s) < 2:
        return _unmeasured(duration_s)
    downbeats = np.flatnonzero(place == 1)
    if len(downbeats) == 0:
        downbeats = np.arange(0, len(time_s), 4)
        confidence = confidence * _UNGROUPED_CONFIDENCE
    edge_s = np.append(time_s, _end_of_last_beat(time_s, duration_s))
    last = len(time_s)
    if edge_s[-1] <= edge_s[-2]:
        last -= 1
    cuts = [int(i) for i in downbeats if i < last]
    if not cuts:
        cuts = [0]
    counts = [int(c) for c in np.diff([*cuts, last])]
    meters = _local_meters(counts)
    counts, meters = _regrouped(counts, meters)
    if cuts[0] > 0:  # the pickup, and whole bars that a tracker saw no downbeat in
        whole, rest = divmod(cuts[0], meters[0])
        head = ([rest] if rest else []) + [meters[0]] * whole
        counts, meters = head + counts, [meters[0]] * len(head) + meters
    edges = np.concatenate([[0], np.cumsum(counts)])
    sure = np.add.reduceat(confidence[:last], edges[:-1]) / counts
    return _grid(edge_s[edges], np.array(counts), np.array(counts) == np.array(meters), sure)


def jitter_grid(
    grid: BarGrid, copies: int, rng: np.random.Generator, *, spread_beats: float = 0.125
) -> Iterator[BarGrid]:
    """Give copies of a grid with every edge moved at random, for training.

    An edge moves by at most `spread_beats` of the shorter beat beside it, evenly distributed, so a
    copy still tiles the same song; the outer edges stay inside the grid's own span.

    Raises
    ------
    UsageError
        If `spread_beats` is not within 0 to 0.45: edges must not meet.
    """
    if not 0 <= spread_beats <= 0.45:
        raise UsageError(f"cannot move bar edges by {spread_beats} beats; give 0 to 0.45")
    if len(grid) == 0:
        yield from (grid for _ in range(copies))
        return
    edge_s = np.append(grid.start_s, grid.end_s[-1])
    beat_s = np.diff(edge_s) / np.maximum(grid.beats, 1)
    reach_s = spread_beats * np.minimum(np.append(beat_s, np.inf), np.append(np.inf, beat_s))
    for _ in range(copies):
        moved = edge_s + rng.uniform(-1.0, 1.0, len(edge_s)) * reach_s
        moved[0] = max(moved[0], edge_s[0])
        moved[-1] = min(moved[-1], edge_s[-1])
        yield _grid(moved, grid.beats, grid.valid, grid.confidence)


def _stretch_in_range(length_s: np.ndarray) -> npt.NDArray[np.bool_]:
    stretch = BAR_S / length_s
    inside: npt.NDArray[np.bool_] = (stretch >= MIN_STRETCH) & (stretch <= MAX_STRETCH)
    return inside


def _grid(
    edge_s: np.ndarray, counts: np.ndarray, in_meter: np.ndarray, confidence: np.ndarray
) -> BarGrid:
    length_s = np.diff(edge_s)
    bpm = 60.0 * counts / length_s
    smooth = bpm
    if len(bpm):
        padded = np.pad(bpm, 2, mode="edge")
        smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    return BarGrid(
        start_s=edge_s[:-1].astype(np.float64),
        end_s=edge_s[1:].astype(np.float64),
        beats=counts.astype(np.int8),
        bpm=smooth.astype(np.float32),
        stretch=(BAR_S / length_s).astype(np.float32),
        valid=in_meter & _stretch_in_range(length_s),
        confidence=confidence.astype(np.float32),
    )


def _unmeasured(duration_s: float) -> BarGrid:
    """Bars of 2.048 s, and the rest, at confidence 0."""
    edge_s = np.arange(0.0, duration_s + 1e-3, BAR_S)
    if duration_s - edge_s[-1] > 1e-3:
        edge_s = np.append(edge_s, duration_s)
    edge_s[-1] = min(edge_s[-1], duration_s)
    length_s = np.diff(edge_s)
    whole = length_s > BAR_S - 1e-6
    counts = np.where(whole, 4, np.maximum(1, np.rint(4 * length_s / BAR_S))).astype(np.int64)
    return _grid(edge_s, counts, whole, np.zeros(len(length_s)))


def _cleaned(
    beats: Beats, duration_s: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Beats inside the song, no two closer than 1000 BPM, with lost ones filled in."""
    time_s: list[float] = []
    place: list[int] = []
    sure: list[float] = []
    for t, p, c in zip(beats.time_s, beats.beat_in_bar, beats.confidence, strict=True):
        if not 0.0 <= t <= duration_s:
            continue
        if time_s and t - time_s[-1] < _CLOSEST_S:
            place[-1] = 1 if p == 1 else place[-1]
            continue
        time_s.append(float(t))
        place.append(int(p))
        sure.append(float(c))
    gaps = np.diff(time_s)
    filled_s, filled_place, filled_sure = time_s[:1], place[:1], sure[:1]
    for i, gap in enumerate(gaps):
        beat_s = float(np.median(gaps[max(0, i - 8) : i + 9]))
        missing = round(gap / beat_s) - 1 if gap > _GAP * beat_s else 0
        for k in range(1, missing + 1):
            filled_s.append(time_s[i] + gap * k / (missing + 1))
            filled_place.append(0)
            filled_sure.append(0.0)
        filled_s.append(time_s[i + 1])
        filled_place.append(place[i + 1])
        filled_sure.append(sure[i + 1])
    return np.array(filled_s), np.array(filled_place, np.int64), np.array(filled_sure)


def _end_of_last_beat(time_s: np.ndarray, duration_s: float) -> float:
    """Where the last beat ends; the beat itself where the song breaks it off."""
    beat_s = float(np.median(np.diff(time_s[-9:])))
    end_s = float(time_s[-1]) + beat_s
    if end_s <= duration_s:
        return end_s
    # a loop cut at its bar line is often a hair short
    return duration_s if end_s - duration_s <= 0.1 * beat_s else float(time_s[-1])


def _fold(count: int) -> int:
    """The meter that a bar of so many beats is made of: 8, 12, 16 -> 4; 9 -> 3; 10 -> 5."""
    if count <= 7:
        return count
    return next((m for m in (4, 3, 5, 7) if count % m == 0), 4)


def _local_meters(counts: Sequence[int]) -> list[int]:
    """The meter around each bar: the commonest fold among it and its neighbours."""
    folds = [_fold(c) for c in counts]
    inner = folds[:-1] or folds  # the last bar may be broken off
    overall = Counter(inner)
    meters = []
    for i in range(len(counts)):
        near = Counter(inner[max(0, i - _NEIGHBOURS) : i + _NEIGHBOURS + 1] or inner[-1:])
        meters.append(max(near, key=lambda m: (near[m], overall[m], m == 4, m)))
    return meters


def _regrouped(counts: Sequence[int], meters: Sequence[int]) -> tuple[list[int], list[int]]:
    """Split bars that hold several, join the parts of one that a false downbeat has cut."""
    bars: list[int] = []
    expected: list[int] = []
    for count, meter in zip(counts, meters, strict=True):
        if bars and bars[-1] < meter and expected[-1] == meter and bars[-1] + count == meter:
            bars[-1] = meter
            continue
        whole, rest = divmod(count, meter)
        if meter < 3 or (count < 2 * meter and count <= 7):
            parts = [count]
        else:
            parts = [meter] * whole + ([rest] if rest else [])
        bars += parts
        expected += [meter] * len(parts)
    return bars, expected
