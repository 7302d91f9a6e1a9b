"""Give a stretched signal back the short-time magnitudes that its source has.

A phase vocoder gets the phases right from one block to the next, and blurs what happens inside a
block. Projections of Griffin and Lim (1984), in the fast form of Perraudin, Balazs and Sondergaard
(2013), start from its phases and take the magnitudes of the source at the same musical time. Two
passes in blocks of 16 ms, then two in blocks of 48 ms, take a quarter to a half off the error of
the way there and back, at block lengths that the passes use and at those they do not
(examples/compare_stretchers.py).

Arrays: N samples, F frames, K frequency bins, W samples of a window.
"""

from __future__ import annotations

import numpy as np

# Seconds of a block; below the first frequency the magnitudes are left as they are, from the second
# on they are the source's. A block cannot tell neighbours apart that are closer than about 4 / its
# length: their beating would be stretched too, and become wrong tones.
_STAGES = ((0.016, 1000.0, 4000.0), (0.048, 150.0, 700.0))
_PASSES = 2
_MOMENTUM = 0.99

_TINY = 1e-9


def restore_magnitudes(stretched_N: np.ndarray, source_N: np.ndarray, rate: int) -> np.ndarray:
    """Pull the magnitudes of `stretched_N` towards those of `source_N` at the same musical time.

    Parameters
    ----------
    stretched_N
        What a stretcher made of `source_N`, evenly from the first sample to the last.
    source_N
        Samples of any other length.

    Returns
    -------
    Samples of the length of `stretched_N`, float32.
    """
    for block_s, leave_hz, take_hz in _STAGES:
        hop = max(1, round(block_s * rate / 4))
        share_K = _share_of_source(np.arange(2 * hop + 1) * (rate / (4 * hop)), leave_hz, take_hz)
        stretched_N = _projected(stretched_N, source_N, hop, share_K)
    return stretched_N


def _share_of_source(hertz_K: np.ndarray, leave_hz: float, take_hz: float) -> np.ndarray:
    octaves_K = np.log((hertz_K + _TINY) / leave_hz) / np.log(take_hz / leave_hz)
    share_K: np.ndarray = np.clip(octaves_K, 0.0, 1.0).astype(np.float32)
    return share_K


def _projected(
    stretched_N: np.ndarray, source_N: np.ndarray, hop: int, share_K: np.ndarray
) -> np.ndarray:
    n = len(stretched_N)
    window_W = np.hanning(4 * hop + 1)[:-1].astype(np.float32)
    centre_F = np.arange(-(-n // hop) + 4) * hop
    source_F = np.rint(np.minimum(centre_F, n) * (len(source_N) / n)).astype(np.int64)
    frames_FK = _spectra(stretched_N, centre_F, window_W)
    wanted_FK = np.abs(_spectra(source_N, source_F, window_W)) + _TINY
    wanted_FK = wanted_FK**share_K * (np.abs(frames_FK) + _TINY) ** (1 - share_K)
    before_FK: np.ndarray | None = None
    for _ in range(_PASSES - 1):
        now_FK = _spectra(_signal(_with(frames_FK, wanted_FK), n, window_W), centre_F, window_W)
        frames_FK = now_FK
        if before_FK is not None:
            frames_FK = now_FK + _MOMENTUM * (now_FK - before_FK)
        before_FK = now_FK
    return _signal(_with(frames_FK, wanted_FK), n, window_W)


def _with(frames_FK: np.ndarray, magnitudes_FK: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = frames_FK * (magnitudes_FK / np.maximum(np.abs(frames_FK), _TINY))
    return scaled


def _spectra(samples_N: np.ndarray, centre_F: np.ndarray, window_W: np.ndarray) -> np.ndarray:
    """Spectra of the frames around `centre_F`; past the ends there is silence."""
    from scipy import fft

    width = len(window_W)
    padded = np.pad(samples_N, (width // 2, width // 2 + max(0, centre_F[-1] - len(samples_N))))
    frames_FW = np.lib.stride_tricks.sliding_window_view(padded, width)[centre_F]
    spectra: np.ndarray = fft.rfft(frames_FW * window_W, axis=1)
    return spectra


def _signal(frames_FK: np.ndarray, n: int, window_W: np.ndarray) -> np.ndarray:
    """Overlap-add of windowed frames, a quarter window apart; the inverse of `_spectra`."""
    from scipy import fft

    width = len(window_W)
    hop = width // 4
    frames_FW = fft.irfft(frames_FK, width, axis=1) * window_W
    count = len(frames_FW)
    summed = np.zeros((count + 3) * hop, np.float32)
    for quarter in range(4):
        part = frames_FW[:, quarter * hop : (quarter + 1) * hop]
        summed[quarter * hop : (quarter + count) * hop] += part.reshape(-1)
    # the squares of four Hann windows a quarter apart add up to 3/2
    return summed[width // 2 : width // 2 + n] / np.float32(1.5)
