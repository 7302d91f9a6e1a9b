"""Peaks: what they are between the samples, and a gain that keeps new sound below them.

Arrays: C channels, N samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_OVERSAMPLED = 176_400  # Hz that ITU-R BS.1770 annex 2 wants at least
_LOOK_S = 0.003
_TAPS = 10
"""Samples to each side that one between two is made of."""


def true_peak(samples_NC: npt.NDArray[np.floating], rate: int) -> float:
    """Largest magnitude of the oversampled signal (ITU-R BS.1770-5, annex 2); 1.0 is 0 dBTP."""
    return float(_peaks(samples_NC, rate).max(initial=0.0))


def limit(
    samples_NC: npt.NDArray[np.float32], rate: int, *, peak: float, between: float
) -> npt.NDArray[np.float32]:
    """Turn sound down around peaks, all channels alike; what has none comes back as it is.

    Parameters
    ----------
    peak
        Largest magnitude that a sample may have.
    between
        Largest true peak.
    """
    allowed_N = np.minimum(
        _ratio(peak, np.abs(samples_NC).max(axis=1, initial=0.0)),
        _ratio(between, _peaks(samples_NC, rate)),
    )
    if allowed_N.min(initial=1.0) >= 1.0:
        return samples_NC
    from scipy.ndimage import convolve1d, minimum_filter1d

    # the mean of minima over windows that all hold a peak is never above what the peak allows
    width = 2 * max(1, round(_LOOK_S * rate)) + 1
    weights = np.hanning(width + 2)[1:-1]
    gain_N = convolve1d(
        minimum_filter1d(allowed_N, width, mode="nearest"), weights / weights.sum(), mode="nearest"
    )
    return (samples_NC * gain_N[:, None]).astype(np.float32)


def _ratio(ceiling: float, level_N: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.minimum(1.0, ceiling / np.maximum(level_N.astype(np.float64), ceiling))


def _peaks(samples_NC: npt.NDArray[np.floating], rate: int) -> npt.NDArray[np.float64]:
    """Largest magnitude (N,) around each sample, over all channels."""
    times = max(1, -(-_OVERSAMPLED // rate)) if rate < _OVERSAMPLED else 1
    if times == 1 or not len(samples_NC):
        return np.abs(samples_NC).max(axis=1, initial=0.0).astype(np.float64)
    highest_N = np.zeros(len(samples_NC))
    for samples_N in np.asarray(samples_NC, np.float64).T:
        highest_N = np.maximum(highest_N, np.abs(oversampled(samples_N, times)).max(axis=1))
    return highest_N


def oversampled(samples_N: npt.NDArray[np.float64], times: int) -> npt.NDArray[np.float64]:
    """Samples and those between them (N, times), by a sinc under a Kaiser window of 5, ten samples
    to each side: `scipy.signal.resample_poly`, without half a second for importing it.
    """
    half = _TAPS * times
    at = np.arange(-half, half + 1) / times
    taps = np.sinc(at) * np.kaiser(len(at), 5.0)
    taps *= times / taps.sum()
    padded = np.pad(samples_N, _TAPS)
    phases = [
        np.convolve(padded, taps[p::times])[2 * _TAPS : 2 * _TAPS + len(samples_N)]
        for p in range(times)
    ]
    return np.stack(phases, axis=1)
