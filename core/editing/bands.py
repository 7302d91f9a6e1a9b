"""From 16 kHz mono, which is what the models write, to the rate and the channels of the source.

Below the crossover the written bar is heard, spread over the channels as the recording's sound is
(`width`); above it the recording's own highs, shaped by the new attacks (`highs`). The recording's
sound is that of the pieces which the bar was made of (`mosaic`), else that of the bar before.

Arrays: C channels, N samples.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mgen.core.editing.filters import Spectrum, low_weights
from mgen.core.editing.highs import reshape_highs
from mgen.core.editing.width import spread

MODEL_RATE = 16000
"""Hz of what the models write."""

_CROSSOVER = (7000.0 / 8000.0, 7300.0 / 8000.0)
"""In shares of the Nyquist frequency of the slower rate: what a resampler (soxr HQ) keeps whole."""


def crossover_hz(rate: int) -> tuple[float, float] | None:
    """Below the first frequency the written bar alone is heard, above the second the source alone.

    In between the two add up to unity. 7.0 and 7.3 kHz; less where the source is slower than the
    models, None where it is as fast: nothing is resampled, and the bar is heard whole.
    """
    if rate == MODEL_RATE:
        return None
    low, high = (share * min(rate, MODEL_RATE) / 2 for share in _CROSSOVER)
    return low, high


def aligned(sample: int, rate: int) -> int:
    """The nearest sample at or before that lies on one of 16 kHz; both rates count from 0."""
    block = rate // math.gcd(rate, MODEL_RATE)
    return sample // block * block


def to_model_rate(samples_N: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """Mono samples at 16 kHz; the first is the same instant."""
    return _resampled(samples_N, rate, MODEL_RATE)


def from_model_rate(
    samples_N: npt.NDArray[np.float32], rate: int, count: int
) -> npt.NDArray[np.float32]:
    """`count` samples at `rate` of 16 kHz mono; the first is the same instant."""
    made_N = _resampled(samples_N, MODEL_RATE, rate)[:count]
    return np.pad(made_N, (0, count - len(made_N)))


def dress(
    new_N: npt.NDArray[np.float32], old_NC: npt.NDArray[np.float32], rate: int
) -> npt.NDArray[np.float32]:
    """Give new mono sound what the model cannot know: channels, and the band above its own.

    Parameters
    ----------
    new_N
        New sound at the source's rate (`from_model_rate`), with some context on both sides.
    old_NC
        The recording's sound that it stands for, as long.

    Returns
    -------
    Samples (N, C), float32. Where the new sound is the old one's own downmix, they are the old
    ones, up to what the way to 16 kHz and back loses. The downmix of all channels is the new sound
    below the crossover, always.
    """
    crossover = crossover_hz(rate)
    if crossover is None:
        return spread(new_N, old_NC, rate)
    old = Spectrum(old_NC, rate)
    below_F = low_weights(old.hertz_F, *crossover)
    low_NC = old.weighted(below_F)
    new_low_N = Spectrum(new_N, rate).weighted(below_F)
    highs_NC = old.weighted(1 - below_F)
    return spread(new_low_N, low_NC, rate) + reshape_highs(
        highs_NC, new_low_N, low_NC.mean(axis=1), rate, crossover[0]
    )


def _resampled(samples_N: npt.NDArray[np.float32], old: int, new: int) -> npt.NDArray[np.float32]:
    if old == new:
        return samples_N.copy()
    import soxr

    return np.asarray(soxr.resample(samples_N, old, new, quality="HQ"), np.float32)
