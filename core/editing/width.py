"""Stereo width: a written mono bar spread over the channels as the source's bar is.

Each channel of the source is what follows from its mono downmix, band by band (a real gain, so no
phase moves), and a rest. The gains are applied to the new mono. The rest, which is what makes
sound wide, stays where the new sound is the old one; elsewhere it is replaced by as much of a
decorrelated copy of the new sound. Gains have a mean of 1 over the channels and rests add up to 0,
so the downmix of the result is the written bar itself.

Arrays: C channels, N samples, F frequencies, K bands, T frames.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mgen.core.editing.filters import (
    Spectrum,
    band_middles,
    band_weights,
    frame_length,
    from_frames,
    to_frames,
)

_NEIGHBOUR = 1e-3  # what a band counts for its neighbour: only where that one is all but empty
_WIDEST = 2.0  # largest ratio of rest to downmix in a band
_ALIKE, _SAME = 0.5, 0.9  # coherence from where on the old rest comes in, and is kept whole
_SMOOTHED_FRAMES = 9
_TINY = 1e-12
_LEAST = 1e-30


def spread(
    new_N: npt.NDArray[np.float32], old_NC: npt.NDArray[np.float32], rate: int
) -> npt.NDArray[np.float32]:
    """Give a mono signal the channels (N, C) of an old one of the same length.

    Parameters
    ----------
    new_N
        What is to be heard.
    old_NC
        What it replaces, in the same range of frequencies.
    """
    channels = old_NC.shape[1]
    if channels == 1:
        return new_N[:, None].copy()
    new, old = Spectrum(new_N, rate), Spectrum(old_NC, rate)
    mono_F = old.bins.mean(axis=1)
    weights_KF = band_weights(new.hertz_F, band_middles(rate / 2))
    gain_FC = (_gains(old.bins, mono_F, weights_KF).T @ weights_KF).T
    rest_FC = old.bins - gain_FC * mono_F[:, None]
    ratio_FC = (_ratios(rest_FC, mono_F, weights_KF).T @ weights_KF).T
    out_NC = new.samples(gain_FC * new.bins[:, None])
    rest_NC, mono_N = old.samples(rest_FC), old.samples(mono_F)
    if not ratio_FC.any():
        return out_NC
    made_NC = new.samples(_decorrelated(new.bins, new.hertz_F, ratio_FC))
    return out_NC + _mixed(rest_NC, made_NC, new_N, mono_N, rate)


def _gains(
    old_FC: npt.NDArray[np.complex64], mono_F: npt.NDArray[np.complex64],
    weights_KF: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Real gains (K, C) that make the downmix most like each channel; their mean is 1."""
    channels = old_FC.shape[1]
    near_KK = _near(len(weights_KF))
    shared_KC = near_KK @ (weights_KF @ (old_FC * mono_F.conj()[:, None]).real)
    power_K = near_KK @ (weights_KF @ (np.abs(mono_F) ** 2))
    level_KC = np.sqrt(near_KK @ (weights_KF @ (np.abs(old_FC) ** 2)))
    mean_K = level_KC.mean(axis=1)
    # where the downmix says nothing: as the levels are, which leaves empty channels empty, too
    plain_KC = np.where(
        mean_K[:, None] > 0, level_KC / np.maximum(mean_K, _LEAST)[:, None], 1.0
    )  # fmt: skip
    gain_KC = np.where(
        power_K[:, None] > 0, shared_KC / np.maximum(power_K, _LEAST)[:, None], plain_KC
    )
    # a channel alone has C times the downmix; beyond that stands chance, pulled in for all alike
    farthest_K = np.abs(gain_KC - plain_KC).max(axis=1)
    kept_K = np.minimum(1, (channels - 1) / np.maximum(farthest_K, _TINY))
    found: npt.NDArray[np.float64] = plain_KC + (gain_KC - plain_KC) * kept_K[:, None]
    return found


def _ratios(
    rest_FC: npt.NDArray[np.complex64], mono_F: npt.NDArray[np.complex64],
    weights_KF: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Level of each channel's rest over that of the downmix (K, C)."""
    near_KK = _near(len(weights_KF))
    rest_KC = near_KK @ (weights_KF @ (np.abs(rest_FC) ** 2))
    power_K = near_KK @ (weights_KF @ (np.abs(mono_F) ** 2))
    ratio_KC = np.sqrt(rest_KC / np.maximum(power_K, _TINY)[:, None])
    return ratio_KC * np.minimum(1.0, _WIDEST / np.maximum(ratio_KC.max(axis=1), _TINY))[:, None]


def _near(bands: int) -> npt.NDArray[np.float64]:
    """What bands count for each other (K, K): an empty one is told by its nearest that is not."""
    at = np.arange(bands)
    return _NEIGHBOUR ** np.abs(at[:, None] - at)


def _decorrelated(
    new_F: npt.NDArray[np.complex64], hertz_F: npt.NDArray[np.float64],
    ratio_FC: npt.NDArray[np.float64],
) -> npt.NDArray[np.complex64]:  # fmt: skip
    """Rests (F, C) of the new sound: spread in time by all-passes, adding up to nothing.

    An all-pass of each channel delays every frequency by its own time, at most 12 ms (3 ms from
    4 kHz on, where the ear hears time better). Which times is fixed, not drawn anew.
    """
    channels = ratio_FC.shape[1]
    middles = band_middles(float(hertz_F[-1]))
    longest_F = np.interp(hertz_F, [500.0, 4000.0], [0.012, 0.003])
    out_FC = np.empty((len(new_F), channels), np.complex64)
    for channel in range(channels):
        rng = np.random.Generator(np.random.Philox(channel))
        share_F = np.interp(hertz_F, middles, rng.uniform(size=len(middles)))
        phase_F = -2 * np.pi * np.cumsum(longest_F * share_F) * (hertz_F[1] - hertz_F[0])
        out_FC[:, channel] = new_F * np.exp(1j * phase_F) * ratio_FC[:, channel]
    sum_F = np.maximum(ratio_FC.sum(axis=1), _TINY)
    share_FC = ratio_FC / sum_F[:, None]
    # the mean is taken out in proportion, so an empty channel stays empty; the level is made good
    left_F = (ratio_FC**2).sum(axis=1) * (1 + (share_FC**2).sum(axis=1))
    left_F -= 2 * (share_FC * ratio_FC**2).sum(axis=1)
    level_F = np.sqrt((ratio_FC**2).sum(axis=1) / np.maximum(left_F, _TINY))
    out_FC -= share_FC * out_FC.sum(axis=1, keepdims=True)
    return (out_FC * level_F[:, None]).astype(np.complex64)


def _mixed(
    rest_NC: npt.NDArray[np.float32], made_NC: npt.NDArray[np.float32],
    new_N: npt.NDArray[np.float32], old_N: npt.NDArray[np.float32], rate: int,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """The old rest where the new sound is the old, the made one elsewhere."""
    width = frame_length(rate)
    new_TF, old_TF = (to_frames(x_N[:, None], width)[..., 0] for x_N in (new_N, old_N))
    keep_TF, make_TF = _likeness(new_TF, old_TF, np.arange(width // 2 + 1) * (rate / width))
    mixed_TFC = to_frames(rest_NC, width) * keep_TF[..., None]
    mixed_TFC += to_frames(made_NC, width) * make_TF[..., None]
    return from_frames(mixed_TFC, width, len(new_N))


def _likeness(
    new_TF: npt.NDArray[np.complex64], old_TF: npt.NDArray[np.complex64],
    hertz_F: npt.NDArray[np.floating],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:  # fmt: skip
    """Weights (T, F) of the old rest and of the made one, from the coherence of both sounds."""
    from scipy.ndimage import uniform_filter1d

    weights_KF = band_weights(hertz_F, band_middles(float(hertz_F[-1])))
    gather_FK = (_near(len(weights_KF)) @ weights_KF).T

    def pooled(values_TF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        smooth: npt.NDArray[np.float64] = uniform_filter1d(
            values_TF @ gather_FK, _SMOOTHED_FRAMES, axis=0, mode="nearest"
        )
        return smooth

    shared_TK = pooled((new_TF * old_TF.conj()).real)
    new_TK, old_TK = np.maximum(pooled(np.abs(new_TF) ** 2), 0), pooled(np.abs(old_TF) ** 2)
    coherence_TK = shared_TK / np.maximum(np.sqrt(new_TK * np.maximum(old_TK, 0)), _TINY)
    alike_TK = np.clip((coherence_TK - _ALIKE) / (_SAME - _ALIKE), 0.0, 1.0)
    level_TK = np.minimum(_WIDEST, np.sqrt(new_TK / np.maximum(old_TK, _TINY)))
    keep_TF = (alike_TK * level_TK) @ weights_KF
    make_TF = np.sqrt(1 - alike_TK**2) @ weights_KF
    return keep_TF.astype(np.float32), make_TF.astype(np.float32)
