"""Moving beats from the tracker's frame to the attack that is heard.

Shapes: n beats, T frames of 1 ms.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mgen.core.beats.features import Samples
from mgen.core.beats.grid import Beats

Array = npt.NDArray[np.float64]

REACH_S = 0.03
"""How far a beat may move."""
_BLOCK_S, _MARGIN_S = 60.0, 0.5
_STEP_S = 0.001
_DECAY_S = 0.008
_FLOOR = 0.02
"""Energy, as a share of the local mean, below which a rise is not heard."""
_CLEAR = 1.5
"""Rise in nepers of energy (6.5 dB) from which an attack is clear evidence."""
_NEAR_S = 0.015
_STIFFNESS = 0.3
_BEND_S = 0.015
"""Differences between neighbouring beat lengths above this are taken as tempo, not as jitter."""


def refine_beats(beats: Beats, samples_N: Samples, rate: int) -> Beats:
    """Move each beat to the attack nearest to it, where there is clear evidence within 30 ms.

    An attack is where energy after exceeds energy before the most, both weighted by exponentials of
    8 ms that meet at the attack. Beats without evidence follow their neighbours; jitter between
    neighbouring beats is smoothed, a change of tempo is not.

    Parameters
    ----------
    beats
        Beats to refine.
    samples_N
        The song; read in blocks.
    rate
        Samples per second.

    Returns
    -------
    Beats
        As many beats, none moved by more than 30 ms, in the same order.
    """
    if len(beats) < 2:
        return beats
    target_s, weight_n = beats.time_s.copy(), np.zeros(len(beats))
    for at_n, attack_T, start_s in _attacks(beats.time_s, samples_N, rate):
        for i in at_n:
            shift, weight = _nearest_attack(attack_T, (beats.time_s[i] - start_s) / _STEP_S - 0.5)
            target_s[i] += shift * _STEP_S
            weight_n[i] = weight
    smooth_s = _smooth(target_s, np.maximum(weight_n, 0.02))
    # at most 30 ms, and less than half the way to a neighbour, so that the order stays
    gap_s = np.diff(beats.time_s)
    room_s = 0.45 * np.minimum(np.append(gap_s, np.inf), np.append(np.inf, gap_s))
    limit_s = np.minimum(REACH_S, room_s)
    earliest_s = np.maximum(beats.time_s - limit_s, np.minimum(beats.time_s, 0.0))
    moved_s = np.clip(smooth_s, earliest_s, beats.time_s + limit_s)
    return Beats(moved_s, beats.beat_in_bar, beats.confidence)


def _attacks(
    time_s: Array, samples_N: Samples, rate: int
) -> Iterator[tuple[npt.NDArray[np.int64], Array, float]]:
    """Beats of each minute, how clearly something begins at each millisecond, and its start."""
    n = samples_N.shape[0]
    for block in np.unique(time_s // _BLOCK_S):
        at_n = np.flatnonzero(time_s // _BLOCK_S == block)
        first = max(0, int((time_s[at_n[0]] - _MARGIN_S) * rate))
        stop = min(n, int((time_s[at_n[-1]] + _MARGIN_S) * rate) + 1)
        if stop - first < rate * 4 * _STEP_S:
            continue
        x = np.asarray(samples_N[first:stop]).astype(np.float64)
        yield at_n, attack_curve(x, rate), first / rate


def attack_curve(x_N: Array, rate: int) -> Array:
    """Log-ratio of the energy after to the energy before each millisecond (T,).

    The mean of two: of the signal, and of its first difference, where a hi-hat is not drowned by
    the bass.
    """
    curves = []
    for signal in (x_N, np.diff(x_N, prepend=x_N[:1])):
        n_frames = int(len(signal) / rate / _STEP_S)
        total = np.concatenate([[0.0], np.cumsum(signal**2)])
        edges = np.minimum(np.round(np.arange(n_frames + 1) * rate * _STEP_S), len(signal))
        energy_T = np.diff(total[edges.astype(int)])
        curves.append(_log_ratio(energy_T))
    return np.mean(curves, axis=0)


def _log_ratio(energy_T: Array) -> Array:
    from scipy.ndimage import uniform_filter1d

    share = 1.0 - np.exp(-_STEP_S / _DECAY_S)
    before = share * np.concatenate([[0.0], _fading_sum(energy_T)[:-1]])
    after = share * _fading_sum(energy_T[::-1])[::-1]
    local = uniform_filter1d(energy_T, int(1.0 / _STEP_S), mode="nearest")
    floor = _FLOOR * np.maximum(local, 0.0) + 1e-12 * (1.0 + energy_T.max(initial=0.0))
    return np.asarray(np.log((after + floor) / (before + floor)))


def _fading_sum(x_T: Array) -> Array:
    """The sum of each value and those before it, which fade with `_DECAY_S` (T,).

    Twice as many a round, until the last has faded below rounding; SciPy's filters would do the
    same, and take half a second to import.
    """
    sum_T = np.array(x_T, np.float64)
    reach = 1
    while reach < len(sum_T) and (fade := np.exp(-reach * _STEP_S / _DECAY_S)) > 1e-17:
        sum_T[reach:] = sum_T[reach:] + fade * sum_T[:-reach]
        reach *= 2
    return sum_T


def _nearest_attack(attack_T: Array, at: float) -> tuple[float, float]:
    """Shift to the best attack within reach, in frames, and its weight 0..1."""
    reach = round(REACH_S / _STEP_S)
    centre = round(at)
    lo, hi = max(1, centre - reach), min(len(attack_T) - 1, centre + reach + 1)
    if hi - lo < 3:
        return 0.0, 0.0
    part = attack_T[lo - 1 : hi + 1]
    is_peak = (part[1:-1] >= part[:-2]) & (part[1:-1] > part[2:])
    if not is_peak.any():
        return 0.0, 0.0
    distance = (np.arange(lo, hi) - at) * _STEP_S / _NEAR_S
    # only peaks compete by nearness: on a slope it would pull the place itself
    worth = np.where(is_peak, attack_T[lo:hi] * np.exp(-0.5 * distance**2), -np.inf)
    peak = int(worth.argmax()) + lo
    rise = float(attack_T[peak])
    if rise < _CLEAR:
        return 0.0, 0.0
    left, right = attack_T[peak - 1], attack_T[peak + 1]
    bend = left - 2.0 * rise + right
    offset = 0.5 * (left - right) / bend if bend < 0.0 else 0.0
    return peak + float(np.clip(offset, -0.5, 0.5)) - at, min(1.0, rise / (2.0 * _CLEAR))


def _smooth(target_s: Array, weight_n: Array) -> Array:
    """Least squares of staying at the target and of even beat lengths; big bends are let be."""
    from scipy.linalg import solveh_banded

    n = len(target_s)
    if n < 4:
        return target_s
    smooth_s = target_s
    for _ in range(4):
        bend_s = np.diff(smooth_s, 2)
        stiff = _STIFFNESS / (1.0 + (bend_s / _BEND_S) ** 2) ** 2
        banded = np.zeros((3, n))  # upper diagonals: second, first, main
        banded[2] = weight_n
        for offset, factor in ((0, 1.0), (1, 4.0), (2, 1.0)):
            banded[2, offset : offset + n - 2] += factor * stiff
        banded[1, 1 : n - 1] += -2.0 * stiff
        banded[1, 2:n] += -2.0 * stiff
        banded[0, 2:n] += stiff
        smooth_s = solveh_banded(banded, weight_n * target_s)
    return np.asarray(smooth_s)
