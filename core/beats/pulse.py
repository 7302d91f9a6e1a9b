"""Which tempo and which place in the bar the attacks of a song speak for.

Two linear scorers, fitted by `examples/fit_rhythm.py` on songs with annotated beats: one weighs
every tempo by the periodicities around it (half, double, triple, bar), one weighs every place of
the downbeat by what is heard on and between the beats of the average bar. Fine tempo and phase
are then found by measuring, not by learning.

Shapes: T frames of 5 ms, K bands, W frequencies, G tempi, F features, L slots of a bar, S shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beats.attacks import FPS, PITCH_FPS, Attacks
from mgen.core.beats.rhythm_weights import BAR_WEIGHTS, LEVEL_WEIGHTS, METER_BIAS

Array = npt.NDArray[np.float64]

MIN_BPM, MAX_BPM = 50.0, 250.0
"""Tempi that are searched."""
USUAL_BPM = (85.0, 200.0)
"""Outside of these a tempo needs evidence: `OUTSIDE_COST` of log-odds for every octave."""
OUTSIDE_COST = 8.0
TEMPI_G: Array = np.exp(np.arange(np.log(MIN_BPM), np.log(MAX_BPM), 0.005))
BEATS_SHARE = 0.5
"""What beats heard otherwise count for beside the attacks when the tempo is refined."""
PER_BEAT = 12
"""Slots per beat that a downbeat may fall on: halves, thirds, quarters, sixths."""

_WINDOW = 2400
_TEMPI_AT_ONCE = 64
_FFT = 32768
_TOP_HZ = 24.0
_RATIOS = (1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0, 4 / 3, 3 / 2, 2.0, 3.0, 4.0, 6.0, 8.0)
_FINE = ((1, 1.0), (2, 1.0), (3, 0.5), (4, 1.0))
"""Multiples of the beat and their weights when the tempo is refined."""


@dataclass(frozen=True, slots=True, eq=False)
class Pulse:
    """Attacks made comparable over time, and their strongest moments.

    Attributes
    ----------
    shaped_TK
        Low, mid, high: local mean removed, local loudness divided out.
    time_s_E, weight_E
        Peaks of the sum of the three, to a fraction of a frame.
    """

    attacks: Attacks
    shaped_TK: Array
    time_s_E: Array
    weight_E: Array


def find_pulse(attacks: Attacks) -> Pulse:
    """Shape the curves and pick their peaks."""
    shaped_TK = shape(attacks.flux_TK)
    total_T = shaped_TK.sum(1)
    mid = total_T[1:-1]
    peak_E = 1 + np.flatnonzero((mid > total_T[:-2]) & (mid >= total_T[2:]) & (mid > 0.5))
    before, at, after = total_T[peak_E - 1], total_T[peak_E], total_T[peak_E + 1]
    shift_E = 0.5 * (before - after) / np.minimum(before - 2 * at + after, -1e-12)
    return Pulse(attacks, shaped_TK, (peak_E + shift_E) / FPS, at)


def shape(flux_TK: npt.ArrayLike) -> Array:
    """Divide every band by its mean, take off the local mean, divide by the local loudness."""
    flux = np.asarray(flux_TK, np.float64)
    if len(flux) == 0:
        return flux
    flux = flux / (flux.mean(0) + 1e-9)
    rise = np.maximum(flux - _smooth(flux, 81), 0.0)
    loud = np.sqrt(np.maximum(_smooth(rise * rise, 1601), 0.0))
    return np.asarray(rise / (loud + 0.3 * loud.mean(0) + 1e-9))


def _smooth(x_TK: Array, width: int) -> Array:
    """Centred mean over `width` frames; the ends are averaged over what is there."""
    total = np.concatenate([np.zeros((1, x_TK.shape[1])), np.cumsum(x_TK, axis=0)])
    n, half = len(x_TK), width // 2
    lo = np.maximum(np.arange(n) - half, 0)
    hi = np.minimum(np.arange(n) + half + 1, n)
    return np.asarray((total[hi] - total[lo]) / (hi - lo)[:, None])


# ---------------------------------------------------------------- tempo


def level_features(pulse: Pulse) -> Array:
    """What speaks for every tempo of `TEMPI_G` (G, F): spectrum of the attack curves at multiples
    and fractions of the tempo, in four bands and pitch change; log tempo and its square.
    """
    shaped = pulse.shaped_TK
    change_TK = shape(_pitch_change(pulse.attacks, len(shaped))[:, None])
    curves_TK = np.concatenate([shaped, shaped.sum(1, keepdims=True), change_TK], axis=1)
    spectrum_WK = _tempogram(curves_TK)
    hz_W = np.arange(len(spectrum_WK)) * FPS / _FFT
    columns = []
    for band in range(spectrum_WK.shape[1]):
        for ratio in _RATIOS:
            hz_G = TEMPI_G / 60.0 * ratio
            near = [
                np.interp(hz_G * (1 + d), hz_W, spectrum_WK[:, band], right=0.0)
                for d in (-0.004, 0.0, 0.004)
            ]
            columns.append(np.max(near, axis=0))
    octave_G = np.log2(TEMPI_G / 125.0)
    return np.stack([*columns, octave_G, octave_G**2], axis=1)


def _tempogram(curves_TK: Array) -> Array:
    """Mean magnitude spectrum over windows of 12 s, each window with unit energy."""
    if len(curves_TK) < _WINDOW:
        curves_TK = np.pad(curves_TK, ((0, _WINDOW - len(curves_TK)), (0, 0)))
    hann = np.hanning(_WINDOW)[:, None]
    top = int(_TOP_HZ / FPS * _FFT)
    total = np.zeros((top, curves_TK.shape[1]))
    starts = range(0, len(curves_TK) - _WINDOW + 1, _WINDOW // 2)
    for start in starts:
        part = curves_TK[start : start + _WINDOW]
        spectrum = np.abs(np.fft.rfft((part - part.mean(0)) * hann, _FFT, axis=0))[:top]
        total += spectrum / np.sqrt((spectrum**2).mean(0) + 1e-12)
    return np.asarray(total / len(starts))


def _pitch_change(attacks: Attacks, frames: int) -> Array:
    """How much the notes differ between 115 ms before and after every frame, 0..1."""
    smooth_PQ = _smooth(attacks.pitch_PQ.astype(np.float64), 7)
    smooth_PQ /= np.sqrt((smooth_PQ**2).sum(1, keepdims=True) + 1e-3)
    change_P = np.zeros(len(smooth_PQ))
    if len(smooth_PQ) > 10:
        change_P[5:-5] = np.maximum(0.0, 1.0 - (smooth_PQ[:-10] * smooth_PQ[10:]).sum(1))
    times = np.arange(len(change_P)) / PITCH_FPS
    return np.interp(np.arange(frames) / FPS, times, change_P)


def level_scores(pulse: Pulse) -> Array:
    """Log-odds of every tempo of `TEMPI_G` (G,), up to a constant.

    The rule for half and double tempo: what periodicities at all levels, and the usual range of
    tempi, make of it together.
    """
    low, high = USUAL_BPM
    octaves_G = np.maximum(0.0, np.maximum(np.log2(low / TEMPI_G), np.log2(TEMPI_G / high)))
    scores_G: Array = level_features(pulse) @ np.asarray(LEVEL_WEIGHTS) - OUTSIDE_COST * octaves_G
    return scores_G


def refine_bpm(
    pulse: Pulse, bpm: float, beats: tuple[Array, Array] | None = None, span: float = 0.012
) -> tuple[float, float]:
    """The tempo within `span` (a fraction) that gathers the peaks best over the whole song, and
    how well it does: coherent sums at 1, 2, 3 and 4 times the beat, and, at `BEATS_SHARE`, that of
    beats heard otherwise (seconds, weights), which a song of soft attacks needs.

    Steps are fine enough that the last beat of the song moves less than a sixteenth of a
    quarter-beat from one tempo to the next. Whole tempi, then halves, win near ties.
    """
    if len(pulse.time_s_E) < 8:
        return bpm, 0.0
    cycles = bpm / 60.0 * float(np.ptp(pulse.time_s_E)) * 4
    step = min(2e-4, 1.0 / (16.0 * max(cycles, 1.0)))
    tempi = bpm * np.exp(np.arange(-span, span + step, step))
    scores = coherence(pulse, tempi, beats)
    best = int(scores.argmax())
    fine = float(tempi[best])
    if 0 < best < len(tempi) - 1:
        a, b, c = scores[best - 1 : best + 2]
        fine *= float(np.exp(step * 0.5 * (a - c) / min(a - 2 * b + c, -1e-12)))
    for grain, tie in ((1.0, 0.97), (0.5, 0.99)):
        rounded = round(fine / grain) * grain
        if rounded > 0 and abs(rounded / fine - 1) < span:
            score = float(coherence(pulse, np.array([rounded]), beats)[0])
            if score >= tie * scores[best]:
                return rounded, score
    return fine, float(scores[best])


def coherence(pulse: Pulse, tempi: Array, beats: tuple[Array, Array] | None = None) -> Array:
    """How well the peaks, and the beats, gather on grids of these tempi, whatever the phase."""
    scores = np.zeros(len(tempi))
    for start in range(0, len(tempi), _TEMPI_AT_ONCE):
        hz = tempi[start : start + _TEMPI_AT_ONCE] / 60.0
        part = gathering(np.outer(hz, pulse.time_s_E), pulse.weight_E)
        if beats is not None and len(beats[0]):
            turns = np.exp(2j * np.pi * np.outer(hz, beats[0]))
            part += BEATS_SHARE * np.abs(turns @ beats[1]) / (beats[1].sum() + 1e-9)
        scores[start : start + _TEMPI_AT_ONCE] = part
    return scores


def gathering(beat_E: Array, weight_E: Array) -> Array:
    """How well peaks at these beats (..., E) gather at one phase of the beat, its half, its third
    and its quarter: weighted mean of the coherent sums, 0..1.
    """
    base = np.exp(2j * np.pi * beat_E)
    power, total = np.ones_like(base), np.zeros(beat_E.shape[:-1])
    weight = dict(_FINE)
    for multiple in range(1, max(weight) + 1):
        power = power * base
        total += weight[multiple] * np.abs(power @ weight_E)
    return np.asarray(total / (sum(weight.values()) * weight_E.sum()))


# ---------------------------------------------------------------- phase


def strongest_phase(pulse: Pulse, period_s: float) -> float:
    """Seconds in [0, period) where most attacks fall."""
    lags = np.arange(0.0, period_s, 0.003)
    folded = folded_at(pulse, period_s, lags)
    return float(lags[folded.argmax()])


def folded_at(pulse: Pulse, period_s: float, lags: Array) -> Array:
    """Mean attack at each lag (seconds) after the whole multiples of the period."""
    total_T = pulse.shaped_TK.sum(1)
    duration_s = len(total_T) / FPS
    n = np.arange(max(1, int((duration_s - lags.min()) / period_s)))
    times = n[None, :] * period_s + lags[:, None]
    return np.interp(times * FPS, np.arange(len(total_T)), total_T, left=0.0, right=0.0).mean(1)


def refine_phase(pulse: Pulse, period_s: float, phase_s: float, reach_s: float = 0.03) -> float:
    """Move a phase to where the sound of the average beat begins: 70 % of the way up to its peak.

    Peaks come 8 ms (median) after the written note on real instruments, whose attack takes that
    long; this point is 1 ms after it there and 3 ms before a click.
    """
    reach_s = min(reach_s, period_s / 8)
    lags = np.arange(-reach_s - 0.03, reach_s, 0.001)
    curve = folded_at(pulse, period_s, phase_s + lags)
    curve = curve - np.percentile(curve, 10)
    inner = np.flatnonzero(lags >= -reach_s)
    peak = int(inner[curve[inner].argmax()])
    if curve[peak] <= 0:
        return phase_s
    start = peak
    while start > 0 and curve[start] > 0.7 * curve[peak]:
        start -= 1
    return phase_s + float(lags[start])


# ---------------------------------------------------------------- bar


def slots_heard(pulse: Pulse, period_s: float, phase_s: float) -> Array:
    """Attacks in three bands and pitch change over one and two beats, at `PER_BEAT` places of
    every beat from `phase_s` on (beats * PER_BEAT, 5).
    """
    attacks = pulse.attacks
    beats = max(0, int((attacks.duration_s - phase_s - 0.05) / period_s))
    times: Array = phase_s + np.arange(beats * PER_BEAT, dtype=np.float64) * (period_s / PER_BEAT)
    frames = np.arange(len(pulse.shaped_TK))
    columns = [
        np.max(
            [np.interp((times + d) * FPS, frames, curve, right=0.0)
             for d in (-0.005, 0.0, 0.005, 0.01)],
            axis=0,
        )
        for curve in pulse.shaped_TK.T
    ]  # fmt: skip
    columns += [_pitch_step(attacks, times, reach) for reach in (period_s, 2 * period_s)]
    return np.stack(columns, axis=1)


def _pitch_step(attacks: Attacks, times: Array, reach_s: float) -> Array:
    """1 - cosine between the mean spectra of `reach_s` before and after each time."""
    pitch_PQ = attacks.pitch_PQ.astype(np.float64)
    total = np.concatenate([np.zeros((1, pitch_PQ.shape[1])), np.cumsum(pitch_PQ, axis=0)])

    def mean(start: Array, stop: Array) -> Array:
        lo = np.clip(np.round(start * PITCH_FPS).astype(int), 0, len(pitch_PQ) - 1)
        hi = np.clip(np.round(stop * PITCH_FPS).astype(int), lo + 1, len(pitch_PQ))
        part = (total[hi] - total[lo]) / (hi - lo)[:, None]
        return np.asarray(part / np.sqrt((part**2).sum(1, keepdims=True) + 1e-2))

    before = mean(times - reach_s, times - 0.02)
    after = mean(times + 0.02, times + reach_s)
    return 1.0 - np.asarray((before * after).sum(1))


def bar_features(slots: Array, beats_per_bar: int) -> Array:
    """What speaks for the downbeat at each of the bar's slots (S, F): the mean bar, read from
    there, on the downbeat, the middle of the bar, the other beats, and between them.
    """
    length = beats_per_bar * PER_BEAT
    whole = len(slots) // length * length
    bar_L5 = slots[:whole].reshape(-1, length, slots.shape[1]).mean(0)
    bar_L5 = (bar_L5 - bar_L5.mean(0)) / (bar_L5.std(0) + 1e-6)
    other = [b for b in range(1, beats_per_bar) if 2 * b != beats_per_bar]
    rows = []
    for shift in range(length):
        turned = np.roll(bar_L5, -shift, axis=0).reshape(beats_per_bar, PER_BEAT, -1)
        row = []
        for place in (0, PER_BEAT // 2):
            here = turned[:, place]
            middle = here[beats_per_bar // 2] if beats_per_bar % 2 == 0 else 0 * here[0]
            row += [here[0], middle, here[other].mean(0) if other else 0 * here[0]]
        row += [turned[:, place].mean(0) for place in (3, 9, 4, 8)]
        row.append(turned[:, [1, 11]].mean((0, 1)))
        rows.append(np.concatenate(row))
    return np.array(rows)


def bar_scores(slots: Array, beats_per_bar: int) -> Array:
    """Log-odds of the downbeat being at each slot of the bar (S,), up to a constant."""
    return bar_features(slots, beats_per_bar) @ np.asarray(BAR_WEIGHTS)


def meter_evidence(slots: Array) -> float:
    """How much more of what is heard repeats every three beats than every four (log ratio)."""
    share = {}
    for beats_per_bar in (3, 4):
        length = beats_per_bar * PER_BEAT
        whole = len(slots) // length * length
        if whole < 4 * length:
            return -10.0
        part = slots[:whole].reshape(-1, length, slots.shape[1])
        within = part.reshape(-1, beats_per_bar, PER_BEAT, slots.shape[1]).mean((0, 1))
        bar = part.mean(0).reshape(beats_per_bar, PER_BEAT, -1) - within
        share[beats_per_bar] = (bar**2).mean((0, 1)) / (part.var((0, 1)) + 1e-9)
    return float(np.log((share[3] + 1e-4) / (share[4] + 1e-4)).mean()) - METER_BIAS
