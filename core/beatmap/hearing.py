"""What is heard on the beats of a song: events on the 1/48 grid, loudness, sections.

Shapes: T frames of 5 ms, E events, K beats, M bars, B bands, D features of a bar.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap.chart import SLOTS_PER_BEAT, TimeMap
from mgen.core.beatmap.rhythm import Timing
from mgen.core.beats.attacks import FPS, PITCH_FPS, Attacks, listen
from mgen.core.beats.pulse import shape

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

MAX_OFF_S = 0.045
"""Events farther than this from every plausible slot are dropped."""
PEAK_REACH = 8
"""Frames (40 ms) within which only the strongest peak counts."""
LATENCY_S = 0.006
"""How late the strongest moment of an attack comes after the note that makes it."""
SLOT_COST: tuple[tuple[int, float], ...] = (
    (48, 0.0), (24, 0.1), (12, 0.3), (16, 0.75), (8, 1.0), (6, 1.1),
)  # fmt: skip
"""Slots per division (1/1, 1/2, 1/4, 1/3, 1/6, 1/8) and what each costs, in units of 20 ms off,
squared."""
OFF_UNIT_S = 0.02
THRESHOLD = 1.5
"""How far a peak must stand out from the mean of the 0.4 s around it."""
SECTION_APART = 0.5
MIN_NOVELTY = 0.12
CLOSE_REPEAT = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Events, beats and bars of one song under one timing.

    Attributes
    ----------
    slot_E
        Slot of 1/48 beat, counted from beat 0 (negative before it), strictly increasing.
    time_s_E
        True onset time in the source, seconds.
    strength_E
        0..1, comparable over the song; 1 is among its strongest.
    low_E, mid_E, high_E
        The same per band: kick and bass, the middle, hats and consonants; 0..1.
    harmonic_E
        How much the pitches change here, 0..1.
    sustain_E
        Seconds until the sound that begins here has decayed, or the next event begins.
    loudness_K
        Loudness of each beat, 0..1 within the song.
    bar_section_M
        Label of each bar; bars of the same section share it. Labels count up from 0.
    repeat_of_M
        Earlier bar that this one repeats closely, -1 where there is none.
    n_beats
        Beats from beat 0 to the end, a partial last one included.
    duration_s
        Length of the source.
    """

    slot_E: Integers
    time_s_E: Array
    strength_E: Floats
    low_E: Floats
    mid_E: Floats
    high_E: Floats
    harmonic_E: Floats
    sustain_E: Floats
    loudness_K: Floats
    bar_section_M: Integers
    repeat_of_M: Integers
    n_beats: int
    duration_s: float


def hear(
    samples_N: npt.ArrayLike, rate: int, timing: Timing, *, attacks: Attacks | None = None
) -> Heard:
    """Find what begins in a mono signal and put it on the grid of its timing.

    Onsets are peaks of the three-band flux that stand out from their surroundings (after SuperFlux,
    Böck and Widmer 2013); each goes to the slot with the least cost of distance and rarity, one
    event per slot. Silence gives a `Heard` without events. `attacks` are those of the same samples,
    where they are known already.

    Raises
    ------
    AudioError
        If the samples are not one channel of finite numbers.
    """
    attacks = attacks or listen(np.asarray(samples_N), rate)
    clock = timing.time_map()
    frame_E, strength_T, bands_TB = _pick(attacks)
    time_E = _refined(strength_T, frame_E) - LATENCY_S
    beat_E = np.array([clock.to_beats(t - timing.offset_s) for t in time_E], np.float64)
    slot_E, keep_E = _snap(beat_E, time_E, clock, timing.offset_s)
    frame_E, time_E, slot_E = frame_E[keep_E], time_E[keep_E], slot_E[keep_E]
    level_E = _song_level(strength_T)[frame_E] if len(frame_E) else np.zeros(0)
    order = _strongest_per_slot(slot_E, level_E)
    frame_E, time_E = frame_E[order], time_E[order]
    slot_E, level_E = slot_E[order], level_E[order]
    bands_EB = np.stack([_song_level(b)[frame_E] for b in bands_TB.T], axis=1)
    n_beats = max(0, int(np.ceil(clock.to_beats(attacks.duration_s - timing.offset_s))))
    edges_s = timing.offset_s + np.array([clock.to_seconds(k) for k in range(n_beats + 1)])
    section_M, repeat_M = _structure(attacks, bands_TB, edges_s, timing.beats_per_bar)
    return Heard(
        slot_E=slot_E,
        time_s_E=time_E,
        strength_E=level_E.astype(np.float32),
        low_E=bands_EB[:, 0].astype(np.float32),
        mid_E=bands_EB[:, 1].astype(np.float32),
        high_E=bands_EB[:, 2].astype(np.float32),
        harmonic_E=_harmonic(attacks, time_E),
        sustain_E=_sustain(attacks, frame_E),
        loudness_K=_loudness(attacks, edges_s),
        bar_section_M=section_M,
        repeat_of_M=repeat_M,
        n_beats=n_beats,
        duration_s=attacks.duration_s,
    )


# ---------------------------------------------------------------- events


def _pick(attacks: Attacks) -> tuple[Integers, Array, Array]:
    """Frames of the onsets (E,), the summed strength (T,) and the shaped bands (T, B)."""
    bands_TB = shape(attacks.flux_TK)
    strength_T = bands_TB.sum(1)
    if attacks.silent:
        return np.zeros(0, np.int64), strength_T, bands_TB
    highest_T = _running_max(strength_T, PEAK_REACH)
    floor_T = _running_mean(strength_T, 40)
    is_peak = (strength_T >= highest_T) & (strength_T > floor_T + THRESHOLD)
    frame_E = np.flatnonzero(is_peak)
    if len(frame_E):  # a plateau counts once
        frame_E = frame_E[np.concatenate(([True], np.diff(frame_E) > PEAK_REACH // 2))]
    return frame_E, strength_T, bands_TB


def _running_max(x_T: Array, reach: int) -> Array:
    padded = np.pad(x_T, reach, constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(1)


def _running_mean(x_T: Array, reach: int) -> Array:
    total = np.concatenate(([0.0], np.cumsum(x_T)))
    n = np.arange(len(x_T))
    lo, hi = np.maximum(n - reach, 0), np.minimum(n + reach + 1, len(x_T))
    return np.asarray((total[hi] - total[lo]) / (hi - lo))


def _refined(strength_T: Array, frame_E: Integers) -> Array:
    """Seconds of the peaks, by a parabola through three frames."""
    if len(frame_E) == 0:
        return np.zeros(0)
    before = strength_T[np.maximum(frame_E - 1, 0)]
    after = strength_T[np.minimum(frame_E + 1, len(strength_T) - 1)]
    bend = np.minimum(before - 2 * strength_T[frame_E] + after, -1e-9)
    return np.asarray(
        np.maximum(0.0, (frame_E + np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) / FPS)
    )


def _snap(
    beat_E: Array, time_E: Array, clock: TimeMap, offset_s: float
) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Slot of each event by least cost, and whether it is near enough to keep."""
    best_E = np.full(len(beat_E), np.inf)
    slot_E = np.zeros(len(beat_E), np.int64)
    off_E = np.zeros(len(beat_E))
    spb_E = np.array([60.0 / clock.bpm_at(b) for b in beat_E])
    for step, rarity in SLOT_COST:
        near_E = np.round(beat_E * SLOTS_PER_BEAT / step).astype(np.int64) * step
        away_E = np.abs(beat_E - near_E / SLOTS_PER_BEAT) * spb_E
        cost_E = (away_E / OFF_UNIT_S) ** 2 + rarity
        better = cost_E < best_E - 1e-9
        best_E[better], slot_E[better], off_E[better] = (
            cost_E[better], near_E[better], away_E[better],
        )  # fmt: skip
    return slot_E, off_E <= MAX_OFF_S


def _strongest_per_slot(slot_E: Integers, level_E: Array) -> Integers:
    """Indices of the strongest event of every slot, in slot order."""
    order = np.lexsort((-level_E, slot_E))
    first = np.concatenate(([True], np.diff(slot_E[order]) > 0)) if len(order) else order
    return np.asarray(order[first.astype(bool)], np.int64)


def _song_level(x_T: Array) -> Array:
    """Scale so that the strongest hundredth of the peaks is 1."""
    peaks = x_T[1:-1][(x_T[1:-1] >= x_T[:-2]) & (x_T[1:-1] > x_T[2:]) & (x_T[1:-1] > 0)]
    top = float(np.percentile(peaks, 98)) if len(peaks) else 0.0
    return np.clip(x_T / top, 0.0, 1.0) if top > 0 else np.zeros_like(x_T)


def _harmonic(attacks: Attacks, time_E: Array) -> Floats:
    """1 - cosine of the spectra 150 ms before and after each event."""
    pitch_PQ = attacks.pitch_PQ.astype(np.float64)
    if len(time_E) == 0 or len(pitch_PQ) == 0:
        return np.zeros(len(time_E), np.float32)
    total = np.concatenate([np.zeros((1, pitch_PQ.shape[1])), np.cumsum(pitch_PQ, axis=0)])
    reach = round(0.15 * PITCH_FPS)

    def mean(start: Integers) -> Array:
        lo = np.clip(start, 0, len(pitch_PQ) - 1)
        hi = np.clip(start + reach, lo + 1, len(pitch_PQ))
        part = (total[hi] - total[lo]) / (hi - lo)[:, None]
        return np.asarray(part / np.sqrt((part**2).sum(1, keepdims=True) + 1e-2))

    at = np.round(time_E * PITCH_FPS).astype(np.int64)
    change = 1.0 - (mean(at - reach - 1) * mean(at + 2)).sum(1)
    top = max(float(np.percentile(change, 98)), 1e-6)
    return np.clip(change / top, 0.0, 1.0).astype(np.float32)


def _sustain(attacks: Attacks, frame_E: Integers) -> Floats:
    """Seconds until the level is 12 dB under the event's own peak, at most to the next event."""
    level_T = attacks.level_T
    out = np.zeros(len(frame_E), np.float32)
    stops = [*frame_E[1:].tolist(), len(level_T)][: len(frame_E)]
    for i, (start, stop) in enumerate(zip(frame_E.tolist(), stops, strict=True)):
        part = level_T[start : max(start + 1, stop)]
        peak = part[: max(1, round(0.05 * FPS))].max()
        below = np.flatnonzero(part < peak - 12.0)
        after = below[below > round(0.05 * FPS)]
        out[i] = (after[0] if len(after) else len(part)) / FPS
    return out


def _loudness(attacks: Attacks, edges_s: Array) -> Floats:
    """Mean level of each beat, -40..+6 dB of the song's own loudness as 0..1."""
    power_T = 10.0 ** (attacks.level_T.astype(np.float64) / 10.0)
    return np.clip((_between(power_T, edges_s, db=True) + 40.0) / 46.0, 0.0, 1.0).astype(np.float32)


def _between(x_T: Array, edges_s: Array, db: bool = False) -> Array:
    total = np.concatenate(([0.0], np.cumsum(x_T)))
    at = np.clip(np.round(edges_s * FPS).astype(int), 0, len(x_T))
    mean = np.diff(total[at]) / np.maximum(1, np.diff(at))
    return 10.0 * np.log10(np.maximum(mean, 1e-10)) if db else np.asarray(mean)


# ---------------------------------------------------------------- structure


def _structure(
    attacks: Attacks, bands_TB: Array, edges_s: Array, beats_per_bar: int
) -> tuple[Integers, Integers]:
    """Section label and repeated bar of every whole or partial bar."""
    n_bars = -(-(len(edges_s) - 1) // beats_per_bar)
    if n_bars == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    alike_MM = _bar_similarity(attacks, bands_TB, edges_s, beats_per_bar, n_bars)
    repeat_M = np.full(n_bars, -1, np.int64)
    for bar in range(1, n_bars):
        best = int(alike_MM[bar, :bar].argmax())
        if alike_MM[bar, best] >= CLOSE_REPEAT:
            repeat_M[bar] = best
    return _sections(alike_MM), repeat_M


def _bar_similarity(
    attacks: Attacks, bands_TB: Array, edges_s: Array, beats_per_bar: int, n_bars: int
) -> Array:
    """Cosine similarity of bars: pitch per beat, attacks per quarter beat and band, loudness."""
    beats = n_bars * beats_per_bar
    step = edges_s[-1] - edges_s[-2] if len(edges_s) > 1 else 0.5
    extra = beats + 1 - len(edges_s)
    edges = np.concatenate([edges_s, edges_s[-1] + step * np.arange(1, extra + 1)])
    pitch_PQ = attacks.pitch_PQ.astype(np.float64)
    pitch_at = edges * (PITCH_FPS / FPS)
    pitch_KQ = np.stack([_between(q, pitch_at) for q in pitch_PQ.T], axis=1)
    pitch_KQ = pitch_KQ - pitch_KQ.mean(0)
    quarters = np.interp(np.arange(4 * beats) / 4.0, np.arange(beats + 1), edges)
    frames = np.round(quarters * FPS).astype(int)[:, None] + np.arange(-3, 6)
    frames = np.clip(frames, 0, len(bands_TB) - 1)
    hits_SB = np.sqrt(bands_TB[frames].max(1))
    hits_SB = hits_SB - hits_SB.mean(0)
    parts = [pitch_KQ.reshape(n_bars, -1), hits_SB.reshape(n_bars, -1)]
    alike = np.zeros((n_bars, n_bars))
    for part in parts:
        size = np.sqrt((part**2).sum(1, keepdims=True))
        floor = 0.1 * size.mean() + 1e-9
        unit = part / np.maximum(size, floor)
        alike += unit @ unit.T / len(parts)
    return alike


def _sections(alike_MM: Array) -> Integers:
    """Label of each bar: runs of bars between boundaries, clustered by how well each bar of the one
    finds its like in the other.
    """
    edges = _boundaries(alike_MM)
    runs = [slice(a, b) for a, b in itertools.pairwise(edges)]
    apart = np.zeros((len(runs), len(runs)))
    for i, one in enumerate(runs):
        for j, other in enumerate(runs[:i]):
            block = alike_MM[one, other]
            apart[i, j] = apart[j, i] = 1.0 - 0.5 * (block.max(1).mean() + block.max(0).mean())
    label_R = _clusters(np.maximum(apart, 0.0))
    label_M = np.concatenate(
        [np.full(run.stop - run.start, label) for run, label in zip(runs, label_R, strict=True)]
    )
    seen: dict[int, int] = {}
    return np.array([seen.setdefault(int(label), len(seen)) for label in label_M], np.int64)


def _boundaries(alike_MM: Array) -> list[int]:
    """Bars at which something new begins, 0 and the end included.

    Checkerboard novelty (Foote 2000) over four bars on either side; a boundary is the highest
    within two bars, and stands out.
    """
    n_bars, reach = len(alike_MM), 4
    novelty = np.zeros(n_bars + 1)
    for bar in range(2, n_bars - 1):
        size = min(reach, bar, n_bars - bar)
        before, after = slice(bar - size, bar), slice(bar, bar + size)
        pairs = max(1, size * (size - 1))
        within = sum(alike_MM[s, s].sum() - np.trace(alike_MM[s, s]) for s in (before, after))
        novelty[bar] = 0.5 * within / pairs - alike_MM[before, after].mean()
    floor = max(MIN_NOVELTY, float(np.median(novelty)))
    inner = [
        bar for bar in range(2, n_bars - 1)
        if novelty[bar] >= floor and novelty[bar] >= novelty[max(0, bar - 2) : bar + 3].max()
    ]  # fmt: skip
    return [0, *inner, n_bars]


def _clusters(apart_RR: Array) -> Integers:
    """Labels of runs by average linkage."""
    if len(apart_RR) < 2:
        return np.zeros(len(apart_RR), np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    tree = linkage(squareform(apart_RR, checks=False), method="average")
    return np.asarray(fcluster(tree, SECTION_APART, criterion="distance"), np.int64)
