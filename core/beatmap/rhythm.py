"""Tempo and phase of a song: fitted to what begins when, good enough to place notes on.

Method: one grid for the whole song (beats/tempo.py), to which the beats of a tracker, where there
are any, speak as well. Where a constant tempo does not fit, they give the tempo bar by bar.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap.chart import BpmChange, TimeMap
from mgen.core.beats import Beats
from mgen.core.beats import pulse as p
from mgen.core.beats.attacks import Attacks, listen
from mgen.core.beats.tempo import (
    Grid,
    HeardBeats,
    drifts,
    fit_grid,
    grid_confidence,
    octaves,
    smoothed,
)
from mgen.core.errors import UsageError

DEFAULT_BPM = 120.0
MIN_GIVEN_BPM, MAX_GIVEN_BPM = 10.0, 1000.0
SLOW_BPM = 70.0
"""A map of a slower song counts twice as fast: else its notes would all fall between beats, where
no human chart has them. Ranking takes any multiple of a song's tempo."""
SNAP_S = 0.005
"""A downbeat found this near to the file's first sample is the first sample: loops and exports
begin there, and their audio then needs no padding."""
MIN_DRIFT_BEATS = 16
KNOT_TOLERANCE_S = 0.02
ATTACK_LATENCY_S = 0.007
MAX_DRIFT_CONFIDENCE = 0.6


@dataclass(frozen=True, slots=True)
class Timing:
    """When the beats of a song are.

    Attributes
    ----------
    bpm
        Base tempo.
    offset_s
        Second of a downbeat in the source, in [0, one bar); beat 0.
    confidence
        0..1: how far to trust tempo and phase.
    beats_per_bar
        3 or 4 as heard.
    changes
        Tempo changes, beats counted from `offset_s`; empty for a constant tempo.
    given
        Whether a person gave the tempo.
    """

    bpm: float
    offset_s: float
    confidence: float
    beats_per_bar: int = 4
    changes: tuple[BpmChange, ...] = ()
    given: bool = False

    def time_map(self) -> TimeMap:
        """Beats to seconds from `offset_s` on, and back."""
        return TimeMap(self.bpm, self.changes)

    def seconds(self, beat: float) -> float:
        """Second of a beat in the source."""
        return self.offset_s + self.time_map().to_seconds(beat)

    def beat(self, second: float) -> float:
        """Beat (fractional) at a second of the source; negative before `offset_s`."""
        return self.time_map().to_beats(second - self.offset_s)


def fit_timing(
    samples_N: npt.ArrayLike,
    rate: int,
    *,
    beats: Beats | None = None,
    bpm: float | None = None,
    offset_s: float | None = None,
    attacks: Attacks | None = None,
) -> Timing:
    """Fit tempo, phase and bar of a song.

    Parameters
    ----------
    samples_N
        Mono samples (N,).
    rate
        Samples per second.
    beats
        A tracker's beats: they help to choose tempo and downbeat, tell a drifting tempo from a
        constant one, and give its changes. Without them the tempo counts as constant.
    bpm
        A tempo that a person gives: only phase and bar are fitted. No changes are made.
    offset_s
        Second of a downbeat that a person gives: kept, folded into the first bar.
    attacks
        Those of the same samples, where they are known already.

    Returns
    -------
    Timing
        120 BPM at 0 with a confidence near 0 where nothing has a beat.

    Raises
    ------
    UsageError
        If the tempo is not a number from 10 to 1000, or the offset not a finite number.
    AudioError
        If the samples are not one channel of finite numbers.
    """
    _check_given(bpm, offset_s)
    pulse = p.find_pulse(attacks or listen(np.asarray(samples_N), rate))
    enough = beats is not None and len(beats) >= MIN_DRIFT_BEATS
    grid = _fit(pulse, _heard(beats) if beats is not None and enough else None, bpm)
    if grid is None:
        return _default(bpm, offset_s)
    if bpm is None and beats is not None and enough:
        beat_s = smoothed(beats.time_s)
        if drifts(pulse, beat_s, grid.bpm):
            return _follow(pulse, beats, beat_s, grid, offset_s)
    bar_s = grid.beats_per_bar * 60.0 / grid.bpm
    if offset_s is None:
        start_s, confidence = grid.downbeat_s, grid.confidence
        if min(start_s, bar_s - start_s) <= SNAP_S:
            start_s = 0.0
    else:
        start_s, confidence = offset_s % bar_s, grid_confidence(pulse, grid.bpm, offset_s)
    return Timing(grid.bpm, start_s, confidence, grid.beats_per_bar, (), bpm is not None)


def _fit(pulse: p.Pulse, heard: HeardBeats | None, bpm: float | None) -> Grid | None:
    """The song's grid, at twice the tempo where it is slow."""
    grid = fit_grid(pulse, heard, bpm)
    if bpm is None and grid is not None and grid.bpm < SLOW_BPM:
        return fit_grid(pulse, heard, 2.0 * grid.bpm)
    return grid


def _heard(beats: Beats) -> HeardBeats:
    return HeardBeats(
        beats.time_s, np.ones(len(beats)), (beats.beat_in_bar == 1).astype(np.float64), beats.bpm
    )


def _check_given(bpm: float | None, offset_s: float | None) -> None:
    if bpm is not None and not (math.isfinite(bpm) and MIN_GIVEN_BPM <= bpm <= MAX_GIVEN_BPM):
        raise UsageError(f"a tempo of {bpm:g} BPM makes no sense; give one between 10 and 1000")
    if offset_s is not None and not math.isfinite(offset_s):
        raise UsageError(f"an offset of {offset_s} s makes no sense; give the second of a downbeat")


def _default(bpm: float | None, offset_s: float | None) -> Timing:
    tempo = DEFAULT_BPM if bpm is None else bpm
    return Timing(tempo, (offset_s or 0.0) % (4 * 60.0 / tempo), 0.0, 4, (), bpm is not None)


# ---------------------------------------------------------------- drifting tempo


def _follow(
    pulse: p.Pulse,
    beats: Beats,
    beat_s: p.Array,
    grid: Grid,
    anchor_s: float | None,
) -> Timing:
    """Timing through a tracker's beats: one tempo for as long as it explains the beats. The
    downbeat is the given one, or the tracker's first.
    """
    meter = grid.beats_per_bar
    factor = int(octaves(60.0 / grid.bpm / float(np.median(np.diff(beat_s)))))
    if anchor_s is None:
        downbeats = beats.time_s[beats.beat_in_bar == 1]
        first = int(np.abs(beat_s - downbeats[0]).argmin()) if len(downbeats) else 0
    else:
        first = min(int(np.abs(beat_s - anchor_s).argmin()), len(beat_s) - 2)
        beat_s = beat_s + (anchor_s - beat_s[first])
    index = np.arange(len(beat_s)) - first
    if factor > 1:  # the tracker counts more slowly than the level that was chosen
        fine = np.arange(index[0] * factor, index[-1] * factor + 1)
        beat_s = np.interp(fine / factor, index, beat_s)
        index = fine
    times = _on_attacks(pulse, beat_s)
    first = int(np.flatnonzero(index == 0)[0])
    if anchor_s is not None:
        times[first] = anchor_s
    knots = _knots(times, first)
    bpms = [60.0 * (b - a) / (times[b] - times[a]) for a, b in itertools.pairwise(knots)]
    bar_s = meter * 60.0 / bpms[0]
    bars_back = math.floor(times[first] / bar_s)
    lead = bars_back * meter - first
    changes = tuple(
        BpmChange(float(knot + lead if i else 0), float(bpm))
        for i, (knot, bpm) in enumerate(zip(knots, bpms, strict=False))
    )
    trust = MAX_DRIFT_CONFIDENCE * float(np.clip(beats.confidence.mean(), 0.1, 1.0))
    typical = float(60.0 / np.median(np.diff(times)))
    offset_s = float(times[first] - bars_back * bar_s)
    return Timing(typical, offset_s, trust, meter, changes, False)


def _on_attacks(pulse: p.Pulse, times_s: p.Array) -> p.Array:
    """Move each beat halfway towards the strongest peak within 30 ms, keeping their order."""
    moved = times_s.copy()
    for i, t in enumerate(times_s):
        lo, hi = np.searchsorted(pulse.time_s_E, (t - 0.03, t + 0.03))
        if hi > lo:
            best = lo + int(pulse.weight_E[lo:hi].argmax())
            moved[i] = pulse.time_s_E[best] - ATTACK_LATENCY_S
    return moved if (np.diff(moved) > 0.05).all() else times_s


def _knots(times_s: p.Array, first: int) -> list[int]:
    """Beats between which a constant tempo keeps every beat within `KNOT_TOLERANCE_S`."""
    knots, last = [first], len(times_s) - 1
    while knots[-1] < last:
        a, b = knots[-1], min(knots[-1] + 1, last)
        reach = b
        while b < last:
            b += 1
            line = times_s[a] + (times_s[b] - times_s[a]) * np.arange(b - a + 1) / (b - a)
            off = np.abs(line - times_s[a : b + 1]).max()
            if off <= KNOT_TOLERANCE_S:
                reach = b
            elif b - reach >= 8:
                break
        knots.append(reach)
    return knots
