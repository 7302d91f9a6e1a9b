"""Filters that shift no phase: weights over the spectrum of a stretch of sound, and short frames.

Arrays: C channels, N samples, F frequencies, K bands, T frames, W samples of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

_PAD_S = 0.1  # silence behind a stretch, so that its end does not ring into its beginning


class Spectrum:
    """The spectrum of samples (N, C) or (N,), to be weighted and turned back into samples."""

    def __init__(self, samples: Floats, rate: int) -> None:
        from scipy import fft

        self.count, self.rate = len(samples), rate
        self._size = fft.next_fast_len(self.count + round(_PAD_S * rate), real=True)
        self.bins = fft.rfft(np.asarray(samples, np.float32), self._size, axis=0)

    @property
    def hertz_F(self) -> npt.NDArray[np.float64]:
        """Frequency of each bin."""
        return np.arange(len(self.bins)) * (self.rate / self._size)

    def weighted(self, weights: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Samples of the spectrum times weights that broadcast to it."""
        return self.samples(self.bins * _column(weights, self.bins.ndim))

    def samples(self, bins: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Samples of another spectrum of this size."""
        from scipy import fft

        back: npt.NDArray[np.float32] = fft.irfft(bins, self._size, axis=0)[: self.count]
        return back.astype(np.float32, copy=False)


def low_weights(hertz_F: Floats, begin: float, end: float) -> npt.NDArray[np.float32]:
    """1 below `begin` Hz, 0 above `end`, a raised cosine between: with its complement, unity."""
    fall_F = np.clip((hertz_F - begin) / (end - begin), 0.0, 1.0)
    weights: npt.NDArray[np.float32] = ((1 + np.cos(np.pi * fall_F)) / 2).astype(np.float32)
    return weights


def band_middles(highest: float) -> npt.NDArray[np.float64]:
    """Middles of bands (K,): 100 Hz apart at first, then thirds of octaves, up to `highest`."""
    middles = [0.0]
    while middles[-1] < highest:
        middles.append(max(middles[-1] + 100.0, middles[-1] * 2 ** (1 / 3)))
    return np.array(middles)


def band_weights(hertz_F: Floats, middles_K: Sequence[float] | Floats) -> npt.NDArray[np.float32]:
    """Triangles (K, F) between the middles of neighbouring bands; each column adds up to 1."""
    eye = np.eye(len(middles_K))
    return np.stack([np.interp(hertz_F, middles_K, row) for row in eye]).astype(np.float32)


def frame_length(rate: int) -> int:
    """Samples of a frame of about 23 ms, a power of two."""
    return 1 << round(float(np.log2(0.0232 * rate)))


def to_frames(samples_NC: Floats, width: int) -> npt.NDArray[np.complex64]:
    """Spectra (T, F, C) of frames a quarter of their width apart; `from_frames` undoes it."""
    from scipy import fft

    hop = width // 4
    count = -(-len(samples_NC) // hop) + 3
    padded = np.pad(
        np.asarray(samples_NC, np.float32),
        ((width - hop, count * hop - len(samples_NC)), (0, 0)),
    )
    frames_TCW = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)[::hop][:count]
    spectra: npt.NDArray[np.complex64] = fft.rfft(frames_TCW * _window(width), axis=2)
    return spectra.transpose(0, 2, 1)


def from_frames(
    spectra_TFC: npt.NDArray[np.complex64], width: int, count: int
) -> npt.NDArray[np.float32]:
    """Samples (N, C) by overlap-add of the windowed frames of `to_frames`."""
    from scipy import fft

    hop = width // 4
    frames_TWC = fft.irfft(spectra_TFC, width, axis=1) * _window(width)[:, None]
    n_frames, _, channels = frames_TWC.shape
    summed: npt.NDArray[np.float32] = np.zeros(((n_frames + 3) * hop, channels), np.float32)
    for quarter in range(4):
        part = frames_TWC[:, quarter * hop : (quarter + 1) * hop]
        summed[quarter * hop : (quarter + n_frames) * hop] += part.reshape(-1, channels)
    # the squares of four Hann windows a quarter apart add up to 3/2
    summed /= np.float32(1.5)
    return summed[width - hop : width - hop + count]


def _window(width: int) -> npt.NDArray[np.float32]:
    return np.hanning(width + 1)[:-1].astype(np.float32)


def _column(weights: npt.NDArray[np.generic], dimensions: int) -> npt.NDArray[np.generic]:
    return weights[:, None] if dimensions == 2 and weights.ndim == 1 else weights
