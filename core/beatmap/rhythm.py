"""Tempo and phase of a song: fitted to what begins when, good enough to place notes on.

Method: the scorers of pulse.py choose the tempo's level and the downbeat; the tempo is then
refined on the coherent sum of all attacks over the song, the phase on the average beat. Where a
constant tempo does not fit, the beats of a tracker give the tempo bar by bar.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap import pulse as p
from mgen.core.beatmap.attacks import FPS, Attacks, listen
from mgen.core.beatmap.chart import BpmChange, TimeMap
from mgen.core.beats import Beats
from mgen.core.errors import UsageError

DEFAULT_BPM = 120.0
MIN_GIVEN_BPM, MAX_GIVEN_BPM = 10.0, 1000.0
SLOW_BPM = 70.0
"""A map of a slower song counts twice as fast: else its notes would all fall between beats, where
no human chart has them. Ranking takes any multiple of a song's tempo."""
SNAP_S = 0.005
"""A downbeat found this near to the file's first sample is the first sample: loops and exports
begin there, and their audio then needs no padding."""
MIN_PEAKS = 8
"""Attacks below which nothing is fitted."""
MIN_GAIN = 1.18
"""The tempo drifts where the attacks gather this much better on the tracker's beats."""
MIN_DRIFT_BEATS = 16
KNOT_TOLERANCE_S = 0.02
ATTACK_LATENCY_S = 0.007
MAX_DRIFT_CONFIDENCE = 0.6
CONFIDENCE_SLOPE, CONFIDENCE_AT = 3.0, math.log(5.0)


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
        A tracker's beats: they tell a drifting tempo from a constant one, and give its changes.
        Without them the tempo counts as constant.
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
    pulse = p.find_pulse(attacks or listen(samples_N, rate))
    if len(pulse.time_s_E) < MIN_PEAKS:
        return _default(bpm, offset_s)
    tempo = bpm if bpm is not None else _fit_bpm(pulse)
    period = 60.0 / tempo
    slots = p.slots_heard(pulse, period, phase := p.strongest_phase(pulse, period))
    meter = 3 if p.meter_evidence(slots) > 0 else 4
    anchor_s = offset_s
    if offset_s is None:
        offset_s = _fit_downbeat(pulse, slots, meter, period, phase)
    if bpm is None and beats is not None and len(beats) >= MIN_DRIFT_BEATS:
        beat_s = _smoothed(_without_gaps(beats.time_s))
        if _drifts(pulse, beat_s, period):
            return _follow(pulse, beats, beat_s, period, meter, anchor_s)
    bar_s = meter * period
    confidence = _confidence(pulse, period, offset_s)
    offset_s %= bar_s
    if anchor_s is None and min(offset_s, bar_s - offset_s) <= SNAP_S:
        offset_s = 0.0
    return Timing(tempo, offset_s, confidence, meter, (), bpm is not None)


def _check_given(bpm: float | None, offset_s: float | None) -> None:
    if bpm is not None and not (math.isfinite(bpm) and MIN_GIVEN_BPM <= bpm <= MAX_GIVEN_BPM):
        raise UsageError(f"a tempo of {bpm:g} BPM makes no sense; give one between 10 and 1000")
    if offset_s is not None and not math.isfinite(offset_s):
        raise UsageError(f"an offset of {offset_s} s makes no sense; give the second of a downbeat")


def _default(bpm: float | None, offset_s: float | None) -> Timing:
    tempo = DEFAULT_BPM if bpm is None else bpm
    return Timing(tempo, (offset_s or 0.0) % (4 * 60.0 / tempo), 0.0, 4, (), bpm is not None)


def _fit_bpm(pulse: p.Pulse) -> float:
    """The tempo whose level scores best, refined over the whole song."""
    scores_G = p.level_scores(pulse)
    bpm = p.refine_bpm(pulse, float(p.TEMPI_G[scores_G.argmax()]))[0]
    return bpm * 2.0 if bpm < SLOW_BPM else bpm


def _fit_downbeat(
    pulse: p.Pulse, slots: p.Array, beats_per_bar: int, period_s: float, phase_s: float
) -> float:
    """Second of a downbeat in [0, one bar)."""
    if len(slots) < 2 * beats_per_bar * p.PER_BEAT:
        place = 0
    else:
        place = int(p.bar_scores(slots, beats_per_bar).argmax())
    rough = phase_s + place * period_s / p.PER_BEAT
    return p.refine_phase(pulse, period_s, rough) % (beats_per_bar * period_s)


def _confidence(pulse: p.Pulse, period_s: float, offset_s: float) -> float:
    """How far the attacks on the grid stand out from those on shifted grids, as a probability.

    z counts standard errors by which the mean attack on beats and halves exceeds the mean over all
    shifts; the curve is fitted on right and on wrong (given 1.5 % off) tempi and on noise.
    """
    total_T = pulse.shaped_TK.sum(1)
    half = period_s / 2
    lags = np.arange(0.0, half, min(0.005, half / 8))
    folded = p.folded_at(pulse, half, offset_s % half + lags)
    near = np.minimum(lags, half - lags) <= 0.015
    count = max(1.0, len(total_T) / FPS / half)
    z = float((folded[near].max() - folded.mean()) * math.sqrt(count) / (total_T.std() + 1e-9))
    return 1.0 / (1.0 + math.exp(-CONFIDENCE_SLOPE * (math.log(max(z, 1e-3)) - CONFIDENCE_AT)))


# ---------------------------------------------------------------- drifting tempo


def _drifts(pulse: p.Pulse, beat_s: p.Array, period_s: float) -> bool:
    """Whether the attacks gather better on a tracker's beats than on any even grid: that of the
    fitted tempo, or the best one near the tracker's own. The beats are smoothed, so that they
    cannot chase single attacks.
    """
    inside = (pulse.time_s_E > beat_s[0]) & (pulse.time_s_E < beat_s[-1])
    if inside.sum() < MIN_PEAKS:
        return False
    time_E, weight_E = pulse.time_s_E[inside], pulse.weight_E[inside]
    tracked_bpm = 60.0 / float(np.median(np.diff(beat_s)))
    factor = _octaves(period_s * tracked_bpm / 60.0)
    followed_E = np.interp(time_E, beat_s, np.arange(len(beat_s))) * factor
    tempi = (60.0 / period_s, p.refine_bpm(pulse, tracked_bpm * factor)[0])
    even = max(p.gathering(time_E * bpm / 60.0, weight_E) for bpm in tempi)
    return bool(p.gathering(followed_E, weight_E) > MIN_GAIN * even)


def _octaves(ratio: float) -> float:
    """Power of two nearest to 1 / ratio."""
    return float(2.0 ** -round(math.log2(ratio)))


def _smoothed(times_s: p.Array) -> p.Array:
    """Beats on straight lines through their four neighbours on either side."""
    out = times_s.copy()
    for i in range(len(times_s)):
        near = np.arange(max(0, i - 4), min(len(times_s), i + 5))
        out[i] = np.polyfit(near - i, times_s[near], 1)[1]
    return out


def _follow(
    pulse: p.Pulse,
    beats: Beats,
    beat_s: p.Array,
    period_s: float,
    meter: int,
    anchor_s: float | None,
) -> Timing:
    """Timing through a tracker's beats: one tempo for as long as it explains the beats. The
    downbeat is the given one, or the tracker's first.
    """
    factor = int(_octaves(period_s / float(np.median(np.diff(beat_s)))))
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


def _without_gaps(times_s: p.Array) -> p.Array:
    """Fill in beats that a tracker left out (an interval of about a whole number of others)."""
    intervals = np.diff(times_s)
    filled = [float(times_s[0])]
    for i, interval in enumerate(intervals):
        typical = float(np.median(intervals[max(0, i - 4) : i + 5]))
        parts = max(1, round(interval / typical))
        filled += [float(times_s[i] + interval * k / parts) for k in range(1, parts + 1)]
    return np.array(filled)


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
