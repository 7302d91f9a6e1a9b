"""How likely a beat is right: figures that are high on a click track and near zero on noise.

Shapes: T frames, K bands, n beats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mgen.core.beats.features import FPS

Array = npt.NDArray[np.float64]

REACH = 8
"""Beats on either side that a beat is judged with."""
ENOUGH = 8
"""Beats from which a regular row of attacks is no accident; fewer count for less."""
_NOISE, _CLEAR = 0.4, 0.8
BEAT_ODDS = 8.0
_NO_PULSE, _PULSE = 0.08, 0.2
"""Contrast of onsets up to which beats are those that noise has, and from which they are not."""
_SLOPE, _OFFSET = 0.4, 2.36
"""From the network's log-odds to those of the beat being right: it is too sure of itself."""
_SUREST = 3.0
"""Log-odds beyond which the network is right no more often: then it is the level that is wrong,
half a beat off or at another tempo."""


def beat_confidence(level_TK: Array, frames_n: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Confidence of each beat (n,), 0..1.

    Parameters
    ----------
    level_TK
        Activations from `decoder.level_activations`.
    frames_n
        Beats in frames.

    Returns
    -------
    numpy.ndarray
        Over the eight beats on either side: how far the median activation on beats stands out from
        the mean between beats, as a contrast, measured from what noise gives (0) to what is clear
        (1). The median, because one loud attack is no pulse.
    """
    n, n_frames = len(frames_n), len(level_TK)
    if n < 2 or n_frames == 0:
        return np.zeros(n, np.float32)
    share = min(1.0, n / ENOUGH)
    contrast_n = _contrast(level_TK.mean(axis=1), frames_n)
    return (share * np.clip((contrast_n - _NOISE) / (_CLEAR - _NOISE), 0, 1)).astype(np.float32)


def _contrast(strength_T: Array, frames_n: npt.NDArray[np.int64]) -> Array:
    """How far activations on beats stand out from those between them (n,): -1..1, 0 on noise."""
    n_frames = len(strength_T)
    near = np.clip(frames_n[:, None] + np.arange(-3, 4)[None, :], 0, n_frames - 1)
    on_n = _median_around(strength_T[near].max(axis=1))
    edges = np.clip(np.append(frames_n, 2 * frames_n[-1] - frames_n[-2]), 0, n_frames)
    total = np.concatenate([[0.0], np.cumsum(strength_T)])
    between_n = (total[edges[1:]] - total[edges[:-1]]) / np.maximum(np.diff(edges), 1)
    between_n = _median_around(between_n)
    return (on_n - between_n) / (on_n + between_n + 0.05)


def _median_around(x: Array) -> Array:
    reach = min(REACH, len(x) - 1)
    padded = np.pad(x, reach, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.asarray(np.median(windows, axis=1))


def posterior_confidence(
    beat_T: Array, audible_T: Array, frames_n: npt.NDArray[np.int64], *, steady: bool = False
) -> npt.NDArray[np.float32]:
    """Probability that each beat is within 70 ms of a true one (n,), 0..1.

    The median log-odds of the network within 60 ms of the eight beats on either side (its training
    weighs a beat `BEAT_ODDS` times, which is taken back), mapped by a logistic curve that was
    fitted on songs it had not learned from (Platt 1999): one beat heard clearly among many that
    were not is no pulse. Where onsets on beats stand out no more than they do on noise, it is 0.

    Parameters
    ----------
    beat_T
        The network's beat logits at the rate of the frames.
    audible_T
        Onset activations, the largest of all bands.
    frames_n
        Beats in frames.
    steady
        Whether the beats are even over the whole song: then the song as a whole vouches for a
        passage in which little stands out.
    """
    n, n_frames = len(frames_n), len(beat_T)
    if n < 2 or n_frames == 0:
        return np.zeros(n, np.float32)
    near = np.clip(frames_n[:, None] + np.arange(-6, 7)[None, :], 0, n_frames - 1)
    heard_n = _median_around(beat_T[near].max(axis=1) - np.log(BEAT_ODDS))
    odds_n = np.exp(_SLOPE * np.clip(heard_n, -_SUREST, _SUREST) + _OFFSET)
    pulse_n = np.clip((_contrast(audible_T, frames_n) - _NO_PULSE) / (_PULSE - _NO_PULSE), 0.0, 1.0)
    if steady:
        pulse_n = np.maximum(pulse_n, np.median(pulse_n))
    second = np.clip(frames_n[:, None] + np.arange(-FPS, FPS + 1, 5)[None, :], 0, n_frames - 1)
    audible_n = audible_T[second].max(axis=1) > 0.0
    right_n = audible_n * pulse_n * odds_n / (1.0 + odds_n)
    return (min(1.0, n / ENOUGH) * right_n).astype(np.float32)
