"""Changes of sound that a tokenizer should not mind, so that a few songs teach it more.

Letters: C channels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]

_CURVE_POINTS = 8
_LOWEST_HZ = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far items are changed.

    Attributes
    ----------
    speed
        Items are played faster or slower by up to this share, key and all.
    tone_db
        Levels over frequency are bent by a smooth curve of up to so much.
    mix
        Share of the items that another is laid over.
    gain_db
        Items are made louder or softer by up to so much, never beyond full scale.
    polarity
        Whether half of the items are turned upside down.
    """

    speed: float = 0.15
    tone_db: float = 6.0
    mix: float = 0.4
    gain_db: float = 6.0
    polarity: bool = True

    @classmethod
    def none(cls) -> Augmentation:
        """Sound as it is."""
        return cls(speed=0.0, tone_db=0.0, mix=0.0, gain_db=0.0, polarity=False)


def at_speed(sound_CN: Sound, ratio: float, start: int, length: int) -> Sound:
    """`length` samples of a sound played `ratio` times as fast, from `start`, round and round.

    Resampled with soxr, so that nothing folds back above half the rate.
    """
    import soxr

    need = round(length * ratio) + 1
    looped_CN = np.take(sound_CN, np.arange(start, start + need), axis=1, mode="wrap")
    changed_NC = soxr.resample(looped_CN.T, ratio, 1.0, quality="MQ")[:length]
    missing = length - len(changed_NC)
    return np.pad(changed_NC, ((0, missing), (0, 0))).T.astype(np.float32)


def bend_tone(sound_CN: Sound, rate: int, points_db: npt.NDArray[np.float64]) -> Sound:
    """A sound with levels changed by a curve through points even in octaves from 40 Hz up."""
    count = sound_CN.shape[1]
    hz_F = np.fft.rfftfreq(count, 1.0 / rate)
    at_P = np.linspace(np.log2(_LOWEST_HZ), np.log2(rate / 2), len(points_db))
    curve_F = np.interp(np.log2(np.maximum(hz_F, _LOWEST_HZ)), at_P, points_db)
    bent_CF = np.fft.rfft(sound_CN) * 10.0 ** (curve_F / 20.0)
    return np.fft.irfft(bent_CF, count).astype(np.float32)


def bent_at_random(
    sound_CN: Sound, rate: int, most_db: float, rng: np.random.Generator
) -> Sound:  # fmt: skip
    """A sound through `bend_tone` with a random curve."""
    return bend_tone(sound_CN, rate, rng.uniform(-most_db, most_db, _CURVE_POINTS))


def gain_of(sound_CN: Sound, how: Augmentation, rng: np.random.Generator) -> float:
    """A factor that keeps the peak within full scale; below 0 where it is turned upside down."""
    gain_db, turned = rng.uniform(-1.0, 1.0) * how.gain_db, rng.random() < 0.5
    peak = float(np.abs(sound_CN).max(initial=0.0))
    gain = float(min(10.0 ** (gain_db / 20.0), 1.0 / peak if peak else 1.0))
    return -gain if turned and how.polarity else gain
