"""From beats to bars: which beat is the first of the bar, and how many there are.

A Viterbi over (meter, place in the bar): bars go round freely; a new meter or a bar cut short
costs, so that it happens only where the music insists. A downbeat is where the bass enters, where
more begins than at other beats, and where harmony and timbre change (Goto 2001; Davies and Plumbley
2006). Music that repeats after m beats speaks for bars of m.

Shapes: n beats, S frames of 50 ms, C pitch classes, M mel bands, P states (meter and place).
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSettings:
    """How much each cue counts, and what the decoder believes beforehand."""

    low: float = 1.7
    middle: float = 0.3
    high: float = 0.2
    harmony: float = 1.5
    bass: float = 1.2
    timbre: float = 0.1
    repeat: float = 0.7
    heard: float = 1.0
    learned: float = 0.0
    new_meter_cost: float = 20.0
    cut_bar_cost: float = 18.0
    # per beat, in the order of METERS
    prior: tuple[float, ...] = (-0.5, -0.15, 0.0, -0.5, -0.4, -0.5)


WITH_NETWORK = MeterSettings(heard=0.5, learned=0.5)
"""Where a network's downbeats are there as well."""


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
        Weights and costs; the defaults are for the cues alone.
    learned_n
        A network's downbeat logit at each beat (n,), if there is one.
    """
    settings = settings or MeterSettings()
    n = len(time_s)
    if n < 3:
        return (np.arange(n) % 4 + 1).astype(np.int8)
    evidence_n = settings.heard * downbeat_evidence(time_s, features, settings)
    if learned_n is not None:
        evidence_n += settings.learned * np.clip(learned_n - np.median(learned_n), -6.0, 6.0)
    repeat_nR = repetition(time_s, features) * settings.repeat
    return _viterbi(evidence_n, repeat_nR, settings)


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


def downbeat_evidence(time_s: Array, features: Features, settings: MeterSettings) -> Array:
    """How much each beat sounds like a first beat (n,), about zero mean and unit spread."""
    onsets_nK = _onsets_at(time_s, features)
    total = (
        settings.low * _standard(onsets_nK[:, 0])
        + settings.middle * _standard(onsets_nK[:, 1])
        + settings.high * _standard(onsets_nK[:, 2])
        + settings.harmony * _standard(_change(_per_beat(time_s, features.chroma_SC)))
        + settings.bass * _standard(_change(_per_beat(time_s, features.bass_SC)))
        + settings.timbre * _standard(_change(_per_beat(time_s, features.mel_SM)))
    )
    return _standard(total)


def repetition(time_s: Array, features: Features) -> Array:
    """How much better the music repeats after each meter's beats than after others (n, meters)."""
    n = len(time_s)
    onsets_nK = np.apply_along_axis(_standard, 0, _onsets_at(time_s, features))
    chroma_nC = _per_beat(time_s, features.chroma_SC)
    chroma_nC = chroma_nC - chroma_nC.mean(axis=0)
    chroma_nC /= np.linalg.norm(chroma_nC, axis=1, keepdims=True) + 1e-6
    alike = np.zeros((n, len(METERS)))
    for r, meter in enumerate(METERS):
        if n > meter:
            rhythm = np.clip(onsets_nK[meter:] * onsets_nK[:-meter], -3.0, 3.0).mean(axis=1)
            tones = (chroma_nC[meter:] * chroma_nC[:-meter]).sum(axis=1)
            alike[meter:, r] = rhythm + tones
    kernel = np.hanning(35)[1:-1]
    kernel /= kernel.sum()
    smooth = np.stack([_convolve_same(alike[:, r], kernel) for r in range(len(METERS))], axis=1)
    return smooth - smooth.mean(axis=1, keepdims=True)


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
    move_PP = _moves(place_P, meter_P, size_P, settings)
    best_P = score_nP[0].copy()
    came_nP = np.zeros(score_nP.shape, np.int64)
    for i in range(1, len(score_nP)):
        arrive_PP = best_P[:, None] + move_PP
        came_nP[i] = arrive_PP.argmax(axis=0)
        best_P = arrive_PP[came_nP[i], np.arange(len(place_P))] + score_nP[i]
    state = int(best_P.argmax())
    places = [int(place_P[state])]
    for i in range(len(score_nP) - 1, 0, -1):
        state = int(came_nP[i, state])
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


def _moves(
    place_P: npt.NDArray[np.int64],
    meter_P: npt.NDArray[np.int64],
    size_P: npt.NDArray[np.int64],
    settings: MeterSettings,
) -> Array:
    """Log-score of going from one state (row) to the next (column)."""
    same = meter_P[:, None] == meter_P[None, :]
    full = place_P == size_P
    move_PP = np.full((len(place_P), len(place_P)), -np.inf)
    move_PP[same & (place_P[None, :] == place_P[:, None] + 1)] = 0.0
    to_first = np.broadcast_to(place_P[None, :] == 1, same.shape)
    cost = np.where(full, 0.0, settings.cut_bar_cost)[:, None] + np.where(
        same, 0.0, settings.new_meter_cost
    )
    move_PP[to_first] = -cost[to_first]
    return move_PP
