"""From beats to bars: which beat is the first of the bar, and how many there are.

A Viterbi over (meter, place in the bar): bars go round freely; a new meter or a bar cut short
costs, so that it happens only where the music insists. A downbeat is where the network hears one,
where the bass enters, where more begins than at other beats, and where harmony and timbre change
(Goto 2001; Davies and Plumbley 2006). Music that repeats after one, two or four bars of m beats
speaks for bars of m.

Shapes: n beats, S frames of 50 ms, C pitch classes, M mel bands, K cues, R meters, P states (meter
and place).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beats.features import FPS, SLOW_FPS, Features

Array = npt.NDArray[np.float64]

METERS = (2, 3, 4, 5, 6, 7)
"""Eight is folded to four by not being here."""
REPEATS = (1, 2, 4)
"""Bars after which music is looked at for coming back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSettings:
    """How much each cue counts per beat, and what the decoder believes beforehand.

    Scores are about log-odds: the weights were fitted so that, of all meters and places that 24
    beats can have, the true one is the likeliest (a conditional logit), then tuned to the bars of
    songs and renders that the network had not learned from (`examples/fit_meter.py` scores them).
    """

    low: float = 0.032
    middle: float = 0.02
    high: float = 0.004
    harmony: float = 0.12
    bass: float = 0.06
    timbre: float = 0.008
    learned: float = 0.035
    rhythm: float = 0.1
    tones: float = 0.05
    longer: float = 1.0
    """What repeating after two and four bars counts, next to after one."""
    new_meter_cost: float = 3.0
    cut_bar_cost: float = 4.5
    pickup_cost: float = 3.0
    # per beat, in the order of METERS
    prior: tuple[float, ...] = (-0.09, -0.096, 0.0, -0.058, -0.133, -0.045)

    @property
    def downbeat_K(self) -> Array:
        """Weights in the order of `Cues.downbeat_nK`."""
        rules = (self.low, self.middle, self.high, self.harmony, self.bass, self.timbre)
        return np.array([*rules, self.learned])


RULES_ALONE = MeterSettings(prior=(-0.108, -0.096, 0.0, -0.058, -0.133, -0.045))
"""Without a network bars of two need more to speak for them."""

_HALVED_BARS, _HALVED_ODDS = 3, 2.0
"""Odd bars in a row, and log-odds of a downbeat in their middle: within these of that at their
start, and that far above what is between other beats."""


def place_beats(
    time_s: Array,
    features: Features,
    settings: MeterSettings | None = None,
    learned_n: Array | None = None,
) -> npt.NDArray[np.int8]:
    """Place of every beat in its bar, from 1.

    Parameters
    ----------
    time_s
        Beat times (n,), increasing.
    features
        The song's features.
    settings
        Weights and costs; those that were fitted with or without a network by default.
    learned_n
        A network's downbeat logit at each beat (n,), if there is one.
    """
    n = len(time_s)
    if n < 3:
        return (np.arange(n) % 4 + 1).astype(np.int8)
    if settings is None:
        settings = RULES_ALONE if learned_n is None else MeterSettings()
    return best_places(find_cues(time_s, features, learned_n), settings)


@dataclass(frozen=True, slots=True, eq=False)
class Cues:
    """What is heard of the bars of a song, before it is weighed.

    Attributes
    ----------
    downbeat_nK
        How much each beat sounds like a first beat: low, middle and high onsets, change of harmony,
        bass and timbre (each of zero mean and unit spread), the network's logit over its median.
    rhythm_nRB, tones_nRB
        How much better rhythm and tones come back after bars of each meter than of others: after
        each of `REPEATS` bars.
    """

    downbeat_nK: Array
    rhythm_nRB: Array
    tones_nRB: Array


def find_cues(time_s: Array, features: Features, learned_n: Array | None = None) -> Cues:
    """Cues at the beats of a song, three or more; the arguments are those of `place_beats`."""
    onsets_nK = np.apply_along_axis(_standard, 0, _onsets_at(time_s, features))
    changes = [
        _standard(_change(_per_beat(time_s, slow_SC)))
        for slow_SC in (features.chroma_SC, features.bass_SC, features.mel_SM)
    ]
    learned_n = np.zeros(len(time_s)) if learned_n is None else learned_n
    over_n = np.clip(learned_n - np.median(learned_n), -12.0, 12.0)
    rhythm_nRB, tones_nRB = _repetition(onsets_nK, _per_beat(time_s, features.chroma_SC))
    return Cues(np.column_stack([onsets_nK, *changes, over_n]), rhythm_nRB, tones_nRB)


def best_places(cues: Cues, settings: MeterSettings) -> npt.NDArray[np.int8]:
    """Place of every beat in its bar, from 1 (n,): the likeliest by these weights."""
    bars_B = np.array([1.0 if bars == 1 else settings.longer for bars in REPEATS])
    repeat_nR = (settings.rhythm * cues.rhythm_nRB + settings.tones * cues.tones_nRB) @ bars_B
    return _viterbi(cues.downbeat_nK @ settings.downbeat_K, repeat_nR, settings)


def halve_odd_bars(
    time_s: Array, place_n: npt.NDArray[np.int8], downbeat_T: Array
) -> tuple[Array, npt.NDArray[np.int8]]:
    """Beats and their places, with eighths for beats where bars of 5/8 or 7/8 went two in one.

    At a quarter's pace every other bar of 7/8 begins between two beats. Where bars of 5 or 7 follow
    each other and the network hears a downbeat in their middle as well as at their start, but not
    between other beats, every beat there becomes two.

    Parameters
    ----------
    time_s, place_n
        Beats and their places in the bar (n,).
    downbeat_T
        The network's downbeat logits, FPS a second.
    """
    double_n = np.zeros(len(time_s), bool)
    size_n = np.zeros(len(time_s), np.int64)
    first = np.flatnonzero(place_n == 1)
    sizes = np.diff(first)
    runs = np.flatnonzero(np.diff(sizes, prepend=0, append=0))
    for begin, stop in itertools.pairwise(runs.tolist()):
        meter, bars = int(sizes[begin]), first[begin:stop]
        if meter not in (5, 7) or len(bars) < _HALVED_BARS or len(downbeat_T) == 0:
            continue
        between_BJ = _between(time_s, bars, meter, downbeat_T)
        start = np.median(_near(time_s[bars], downbeat_T))
        middle = np.median(between_BJ[:, meter // 2])
        other = np.median(np.delete(between_BJ, meter // 2, axis=1))
        if middle > max(start, other + 2 * _HALVED_ODDS) - _HALVED_ODDS:
            # with what is left of a bar before and after
            low = 0 if begin == 0 else int(bars[0])
            high = len(time_s) if stop == len(sizes) else int(first[stop])
            double_n[low:high], size_n[low:high] = True, meter
    if not double_n.any():
        return time_s, place_n
    step_s = np.append(np.diff(time_s), time_s[-1] - time_s[-2])
    at_n = 2 * (place_n.astype(np.int64) - 1)
    odd_n = np.maximum(size_n, 1)
    one_n = np.where(double_n, at_n % odd_n + 1, place_n)
    two_n = (at_n + 1) % odd_n + 1
    # the last beat's second half would lie past what was heard
    add = np.flatnonzero(double_n[:-1])
    halves_s = np.insert(time_s, add + 1, time_s[add] + step_s[add] / 2)
    return halves_s, np.insert(one_n, add + 1, two_n[add]).astype(np.int8)


def _between(time_s: Array, bars: npt.NDArray[np.int64], meter: int, downbeat_T: Array) -> Array:
    """Downbeat logits half-way to the next beat, for each beat of each bar (bars, meter)."""
    at = np.minimum(bars[:, None] + np.arange(meter), len(time_s) - 2)
    return _near((time_s[at] + time_s[at + 1]) / 2, downbeat_T)


def _near(at_s: Array, x_T: Array) -> Array:
    """The largest value within 60 ms of each time."""
    at = np.round(at_s * FPS).astype(int)[..., None] + np.arange(-6, 7)
    return np.asarray(x_T[np.clip(at, 0, len(x_T) - 1)].max(axis=-1))


def count_places(n: int, downbeats: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """Place of each of n beats, counted from the downbeats (indices, increasing, at least two).

    A pickup counts towards the first downbeat as the end of a bar. A bar of twice the usual length
    or more, where it divides, is so many bars: 8/4 becomes 4/4.
    """
    sizes = np.diff(downbeats)
    values, counts = np.unique(sizes, return_counts=True)
    usual = int(values[counts.argmax()])
    if usual >= 8 and usual % 4 == 0:
        usual = 4
    place_n = np.zeros(n, np.int8)
    for first, stop in itertools.pairwise([*downbeats.tolist(), n]):
        size = stop - first
        wrap = usual if stop == n or size % usual == 0 else max(size, 1)
        place_n[first:stop] = np.arange(size) % wrap % 127 + 1
    pickup = int(downbeats[0])
    place_n[:pickup] = (np.arange(-pickup, 0) % usual) + 1
    return place_n


def _repetition(onsets_nK: Array, chroma_nC: Array) -> tuple[Array, Array]:
    """Likeness of rhythm and of tones to those a bar, two and four bars before, over the mean of
    the meters (n, R, B) each.
    """
    chroma_nC = chroma_nC - chroma_nC.mean(axis=0)
    chroma_nC /= np.linalg.norm(chroma_nC, axis=1, keepdims=True) + 1e-6
    kernel = np.hanning(35)[1:-1]
    kernel /= kernel.sum()

    def after(lag: int) -> tuple[Array, Array]:
        alike_2n = np.zeros((2, len(onsets_nK)))
        if len(onsets_nK) > lag:
            alike_2n[0, lag:] = np.clip(onsets_nK[lag:] * onsets_nK[:-lag], -3.0, 3.0).mean(axis=1)
            alike_2n[1, lag:] = (chroma_nC[lag:] * chroma_nC[:-lag]).sum(axis=1)
        return _convolve_same(alike_2n[0], kernel), _convolve_same(alike_2n[1], kernel)

    alike = {lag: after(lag) for lag in {meter * bars for meter in METERS for bars in REPEATS}}
    both = [
        np.stack([np.stack([alike[m * b][i] for b in REPEATS], axis=-1) for m in METERS], axis=1)
        for i in range(2)
    ]
    return both[0] - both[0].mean(axis=1, keepdims=True), both[1] - both[1].mean(1, keepdims=True)


def _convolve_same(x: Array, kernel: Array) -> Array:
    half = len(kernel) // 2
    return np.convolve(np.pad(x, half, mode="edge"), kernel, mode="valid")


def _onsets_at(time_s: Array, features: Features) -> Array:
    """The strongest rise within 40 ms of each beat, per band."""
    onsets_TK = features.onsets_TK
    if len(onsets_TK) == 0:
        return np.zeros((len(time_s), 3))
    at_n = np.round(time_s * FPS).astype(int)
    near = np.clip(at_n[:, None] + np.arange(-4, 5)[None, :], 0, len(onsets_TK) - 1)
    return onsets_TK[near].max(axis=1).astype(np.float64)


def _per_beat(time_s: Array, slow_SC: npt.ArrayLike) -> Array:
    """Mean of a slow feature from each beat to the next (n, C)."""
    slow = np.asarray(slow_SC, np.float64)
    if len(slow) == 0:
        return np.zeros((len(time_s), slow.shape[1]))
    total = np.concatenate([np.zeros((1, slow.shape[1])), np.cumsum(slow, axis=0)])
    edges = np.append(time_s, 2 * time_s[-1] - time_s[-2])
    index = np.clip(np.round(edges * SLOW_FPS).astype(int), 0, len(slow))
    width = np.maximum(np.diff(index), 1)[:, None]
    return np.asarray((total[index[1:]] - total[index[:-1]]) / width)


def _change(x_nC: Array) -> Array:
    """How different the two beats from here on are from the two before (n,): 1 - cosine, 0..2."""
    n = len(x_nC)
    x_nC = x_nC - x_nC.mean(axis=0)
    padded = np.pad(x_nC, ((2, 1), (0, 0)), mode="edge")
    after = padded[2 : n + 2] + 0.5 * padded[3 : n + 3]
    before = padded[1 : n + 1] + 0.5 * padded[:n]
    product = np.linalg.norm(after, axis=1) * np.linalg.norm(before, axis=1)
    return np.asarray(1.0 - (after * before).sum(axis=1) / (product + 1e-9))


def _standard(x: Array) -> Array:
    """Zero mean and unit spread, outliers cut at three."""
    spread = x.std()
    if spread < 1e-6:
        return np.zeros_like(x)
    return np.clip((x - x.mean()) / spread, -3.0, 3.0)


def _viterbi(evidence_n: Array, repeat_nR: Array, settings: MeterSettings) -> npt.NDArray[np.int8]:
    place_P = np.concatenate([np.arange(1, m + 1) for m in METERS])
    meter_P = np.concatenate([np.full(m, r) for r, m in enumerate(METERS)])
    size_P = np.array(METERS)[meter_P]
    template_P = np.concatenate([_bar_template(m) for m in METERS])
    prior_P = np.array(settings.prior)[meter_P]
    score_nP = evidence_n[:, None] * template_P + repeat_nR[:, meter_P] + prior_P
    # a bar may begin after any state: after a full bar of its meter at no cost
    cut_P = np.where(place_P == size_P, 0.0, settings.cut_bar_cost)
    other_RP = np.where(meter_P == np.arange(len(METERS))[:, None], 0.0, settings.new_meter_cost)
    begin_RP = -(cut_P + other_RP)
    first_R = np.flatnonzero(place_P == 1)
    later_P = np.flatnonzero(place_P > 1)
    # music begins with a whole bar more often than not
    best_P = score_nP[0] - np.where(place_P == 1, 0.0, settings.pickup_cost)
    came_nR = np.zeros((len(score_nP), len(METERS)), np.int64)
    for i in range(1, len(score_nP)):
        begin_from_RP = best_P + begin_RP
        came_nR[i] = begin_from_RP.argmax(axis=1)
        arrived_P = score_nP[i].copy()
        arrived_P[later_P] += best_P[later_P - 1]
        arrived_P[first_R] += begin_from_RP[np.arange(len(METERS)), came_nR[i]]
        best_P = arrived_P
    state = int(best_P.argmax())
    places = [int(place_P[state])]
    for i in range(len(score_nP) - 1, 0, -1):
        state = int(came_nR[i, meter_P[state]]) if place_P[state] == 1 else state - 1
        places.append(int(place_P[state]))
    return np.array(places[::-1], np.int8)


def _bar_template(meter: int) -> Array:
    """What downbeat evidence looks like over one bar: zero mean and unit power, so that no meter
    gains by its length alone.
    """
    bar = np.zeros(meter)
    bar[0] = 1.0
    bar -= bar.mean()
    return np.asarray(bar / np.sqrt((bar**2).mean()))
