"""How much the sound supports a grid: figures that are high on a click track and low on noise."""

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
    strength_T = level_TK.mean(axis=1)
    near = np.clip(frames_n[:, None] + np.arange(-3, 4)[None, :], 0, n_frames - 1)
    on_n = _median_around(strength_T[near].max(axis=1))
    edges = np.clip(np.append(frames_n, 2 * frames_n[-1] - frames_n[-2]), 0, n_frames)
    total = np.concatenate([[0.0], np.cumsum(strength_T)])
    between_n = (total[edges[1:]] - total[edges[:-1]]) / np.maximum(np.diff(edges), 1)
    between_n = _median_around(between_n)
    contrast = (on_n - between_n) / (on_n + between_n + 0.05)
    share = min(1.0, n / ENOUGH)
    return (share * np.clip((contrast - _NOISE) / (_CLEAR - _NOISE), 0, 1)).astype(np.float32)


def _median_around(x: Array) -> Array:
    reach = min(REACH, len(x) - 1)
    padded = np.pad(x, reach, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.asarray(np.median(windows, axis=1))


def posterior_confidence(
    beat_T: Array, audible_T: Array, frames_n: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Confidence of each beat (n,), 0..1, from a network's beat logits (T,).

    The median probability within 60 ms of the eight beats on either side: one that the network
    heard clearly among many that it did not is no pulse. Its training weighs a beat `BEAT_ODDS`
    times, which is taken back. 0 where nothing begins within a second (`audible_T`, onsets).
    """
    n, n_frames = len(frames_n), len(beat_T)
    if n < 2 or n_frames == 0:
        return np.zeros(n, np.float32)
    near = np.clip(frames_n[:, None] + np.arange(-6, 7)[None, :], 0, n_frames - 1)
    odds_n = np.exp(beat_T[near].max(axis=1)) / BEAT_ODDS
    heard_n = _median_around(odds_n / (1.0 + odds_n))
    second = np.clip(frames_n[:, None] + np.arange(-FPS, FPS + 1, 5)[None, :], 0, n_frames - 1)
    heard_n *= audible_T[second].max(axis=1) > 0.0
    return (min(1.0, n / ENOUGH) * heard_n).astype(np.float32)
