"""One tempo for a whole song, and where its beats and bars lie: the grid that everything heard
speaks for together. Songs made to a click keep to it better than any chain of single decisions.

Half or double tempo, and beat or off-beat, by one rule. Candidates are the tempi around which the
periodicities of the attacks are strongest, and for each every slot of the bar; the sum of the
log-odds of the tempo (pulse.level_scores), of the downbeat at that slot (pulse.bar_scores), of how
far a tracker's beats and downbeats lie on that grid, and of the tempo at which the tracker counts
decides; a tempo that music seldom has needs more. Where attacks gather clearly better on the
tracker's own beats than on the grid, the tempo drifts, and there is no grid.

Shapes: E attacks, H heard beats, G tempi, S slots of a bar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beats import pulse as p

Array = npt.NDArray[np.float64]

MIN_PEAKS = 8
"""Attacks below which nothing is fitted."""
MIN_GAIN = 1.12
"""The tempo drifts where the attacks gather this much better on the tracker's beats. Songs made to
a click give at most 1.07, those with changes of tempo 1.17 or more."""
AGREEMENT, DOWNBEATS, SAME_TEMPO = 3.0, 3.0, 3.0
"""Log-odds of a grid on which all heard beats lie, all downbeats, and that of the tracker's tempo.
"""
LEVEL_SHARE = 0.25
"""What the log-odds of the tempo count beside a tracker: they add up over periodicities that say
much the same, and so are too sure of themselves."""
USUAL_BPM, UNUSUAL = 120.0, 2.0
"""Tempi are expected around this; log-odds that an octave from it costs, two octaves four times
that. With these the tempo is right on all dev songs and 72 renders of other dev titles (none in
7/8), and on all but one from .1 to .3 of `LEVEL_SHARE` and 2 to 4 of `SAME_TEMPO`."""
SAME_TEMPO_WITHIN = 0.04
NEAR_S = 0.035
"""How far a heard beat may lie from the grid and still count."""
MAX_CANDIDATES, WORTH = 5, 9.0
"""Tempi that are looked at closely: so many, within this log-odds of the best."""
CONFIDENCE_SLOPE, CONFIDENCE_AT = 3.0, math.log(5.0)


@dataclass(frozen=True, slots=True, eq=False)
class HeardBeats:
    """What a tracker thinks of the song.

    Attributes
    ----------
    time_s_H, weight_H
        Places that sound like a beat, and how much, 0..1.
    downbeat_H
        How much each sounds like a downbeat, 0..1.
    bpm
        Tempo at which the tracker counts.
    """

    time_s_H: Array
    weight_H: Array
    downbeat_H: Array
    bpm: float


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Even beats over a whole song.

    Attributes
    ----------
    bpm
        Tempo.
    downbeat_s
        Second of a downbeat, in [0, one bar).
    beats_per_bar
        3 or 4.
    place_S
        Log-odds of the downbeat at each slot of the bar, `pulse.PER_BEAT` per beat, from the
        downbeat that was chosen on.
    confidence
        0..1: how far the attacks on the grid stand out from those on shifted grids.
    """

    bpm: float
    downbeat_s: float
    beats_per_bar: int
    place_S: Array
    confidence: float

    def beats(self, duration_s: float) -> tuple[Array, Array]:
        """Seconds of the beats from 0 to the end (n,), and the log-odds of each to be a downbeat
        over those of the bar's middling beat (n,). A beat up to `NEAR_S` before 0 is at 0: it is
        the first attack's, whose rise the fold may place a little early.
        """
        period_s = 60.0 / self.bpm
        first = math.ceil((-self.downbeat_s - NEAR_S) / period_s)
        index = np.arange(first, max(first, math.ceil((duration_s - self.downbeat_s) / period_s)))
        on_beats = self.place_S[:: p.PER_BEAT]
        odds_n = (on_beats - np.median(on_beats))[index % self.beats_per_bar]
        time_s = np.maximum(self.downbeat_s + index * period_s, 0.0)
        inside_n = time_s < duration_s
        return time_s[inside_n], odds_n[inside_n]


def fit_grid(
    pulse: p.Pulse, heard: HeardBeats | None = None, bpm: float | None = None
) -> Grid | None:
    """The grid that explains a whole song best; None where hardly anything begins.

    Parameters
    ----------
    pulse
        The song's attacks.
    heard
        What a tracker made of it, if anything.
    bpm
        A tempo that is known: only phase and bar are fitted.
    """
    if len(pulse.time_s_E) < MIN_PEAKS:
        return None
    best, best_total = None, -math.inf
    for tempo, level in [(bpm, 0.0)] if bpm is not None else _candidates(pulse, heard):
        period_s = 60.0 / tempo
        phase_s = p.strongest_phase(pulse, period_s)
        slots = p.slots_heard(pulse, period_s, phase_s)
        meter = 3 if p.meter_evidence(slots) > 0 else 4
        place_S = _place_scores(slots, meter)
        if heard is not None:
            place_S = place_S + _agreement(heard, pulse, period_s, phase_s, meter)
            level *= LEVEL_SHARE
            level += SAME_TEMPO * (abs(math.log(tempo / heard.bpm)) < SAME_TEMPO_WITHIN)
            level -= UNUSUAL * math.log2(tempo / USUAL_BPM) ** 2
        slot = int(place_S.argmax())
        if level + place_S[slot] > best_total:
            best_total = level + float(place_S[slot])
            best = tempo, phase_s + slot * period_s / p.PER_BEAT, meter, np.roll(place_S, -slot)
    if best is None:
        return None
    tempo, rough_s, meter, place_S = best
    downbeat_s = p.refine_phase(pulse, 60.0 / tempo, rough_s) % (meter * 60.0 / tempo)
    return Grid(tempo, downbeat_s, meter, place_S, grid_confidence(pulse, tempo, downbeat_s))


def _candidates(pulse: p.Pulse, heard: HeardBeats | None) -> list[tuple[float, float]]:
    """Tempi at the peaks of the level scores, refined, with their log-odds; the best first."""
    scores_G = p.level_scores(pulse)
    padded = np.pad(scores_G, 8, constant_values=-np.inf)
    highest_G = np.lib.stride_tricks.sliding_window_view(padded, 17).max(1)
    peaks = np.flatnonzero((scores_G >= highest_G) & (scores_G > scores_G.max() - WORTH))
    peaks = peaks[np.argsort(-scores_G[peaks], kind="stable")][:MAX_CANDIDATES]
    beats = None if heard is None else (heard.time_s_H, heard.weight_H)
    return [(p.refine_bpm(pulse, float(p.TEMPI_G[g]), beats)[0], float(scores_G[g])) for g in peaks]


def _place_scores(slots: Array, meter: int) -> Array:
    """Log-odds of the downbeat at each slot, over an even chance (S,); too short a song gives 0."""
    size = meter * p.PER_BEAT
    if len(slots) < 2 * size:
        return np.zeros(size)
    scores_S = p.bar_scores(slots, meter)
    return scores_S - np.logaddexp.reduce(scores_S) + math.log(size)


def _agreement(
    heard: HeardBeats, pulse: p.Pulse, period_s: float, phase_s: float, meter: int
) -> Array:
    """What the heard beats say for the downbeat at each slot of the bar (S,).

    For the beats Dice's coefficient of what is heard and what the grid has, which halves alike for
    twice and for half the beats; for the downbeats the mean of those on the grid's.
    """
    size = meter * p.PER_BEAT
    slot_s = period_s / p.PER_BEAT
    reach = max(0.5, NEAR_S / slot_s)
    off_HS = (heard.time_s_H[:, None] - phase_s) / slot_s - np.arange(size)
    near_beat_HS = np.abs((off_HS + p.PER_BEAT / 2) % p.PER_BEAT - p.PER_BEAT / 2) <= reach
    near_bar_HS = np.abs((off_HS + size / 2) % size - size / 2) <= reach
    n_beats = pulse.attacks.duration_s / period_s
    dice_S = 2.0 * (heard.weight_H @ near_beat_HS) / (n_beats + heard.weight_H.sum())
    downbeat_S = (heard.downbeat_H @ near_bar_HS) / max(n_beats / meter, 1.0)
    return np.asarray(AGREEMENT * dice_S + DOWNBEATS * np.minimum(downbeat_S, 1.0))


def grid_confidence(pulse: p.Pulse, bpm: float, offset_s: float) -> float:
    """How far the attacks on the grid stand out from those on shifted grids, as a probability.

    z counts standard errors by which the mean attack on beats and halves exceeds the mean over all
    shifts; the curve is fitted on right and on wrong (given 1.5 % off) tempi and on noise.
    """
    total_T = pulse.shaped_TK.sum(1)
    half = 30.0 / bpm
    lags = np.arange(0.0, half, min(0.005, half / 8))
    folded = p.folded_at(pulse, half, offset_s % half + lags)
    near = np.minimum(lags, half - lags) <= 0.015
    count = max(1.0, len(total_T) / p.FPS / half)
    z = float((folded[near].max() - folded.mean()) * math.sqrt(count) / (total_T.std() + 1e-9))
    return 1.0 / (1.0 + math.exp(-CONFIDENCE_SLOPE * (math.log(max(z, 1e-3)) - CONFIDENCE_AT)))


# ---------------------------------------------------------------- drifting tempo


def drifts(pulse: p.Pulse, beat_s: Array, bpm: float) -> bool:
    """Whether the attacks gather better on a tracker's beats than on any even grid: that of the
    fitted tempo, or the best one near the tracker's own. The beats are smoothed (`smoothed`), so
    that they cannot chase single attacks.
    """
    inside = (pulse.time_s_E > beat_s[0]) & (pulse.time_s_E < beat_s[-1])
    if inside.sum() < MIN_PEAKS:
        return False
    time_E, weight_E = pulse.time_s_E[inside], pulse.weight_E[inside]
    tracked_bpm = 60.0 / float(np.median(np.diff(beat_s)))
    factor = octaves(tracked_bpm / bpm)
    followed_E = np.interp(time_E, beat_s, np.arange(len(beat_s))) * factor
    tempi = (bpm, p.refine_bpm(pulse, tracked_bpm * factor)[0])
    even = max(p.gathering(time_E * tempo / 60.0, weight_E) for tempo in tempi)
    return bool(p.gathering(followed_E, weight_E) > MIN_GAIN * even)


def octaves(ratio: float) -> float:
    """Power of two nearest to 1 / ratio."""
    return float(2.0 ** -round(math.log2(ratio)))


def smoothed(times_s: Array) -> Array:
    """Beats, gaps filled in, on straight lines through their four neighbours on either side."""
    times_s = _without_gaps(times_s)
    out = times_s.copy()
    for i in range(len(times_s)):
        near = np.arange(max(0, i - 4), min(len(times_s), i + 5))
        out[i] = np.polyfit(near - i, times_s[near], 1)[1]
    return out


def _without_gaps(times_s: Array) -> Array:
    """Fill in beats that a tracker left out (an interval of about a whole number of others)."""
    intervals = np.diff(times_s)
    filled = [float(times_s[0])]
    for i, interval in enumerate(intervals):
        typical = float(np.median(intervals[max(0, i - 4) : i + 5]))
        parts = max(1, round(interval / typical))
        filled += [float(times_s[i] + interval * k / parts) for k in range(1, parts + 1)]
    return np.array(filled)
