"""How strongly sound begins, moment by moment, in three bands, and how its pitches change.

What rhythm and hearing both listen to: attacks every 5 ms on time to a few milliseconds, pitch
content every 23 ms. Loud and quiet songs give the same curves.

Shapes: N samples, T frames of 5 ms, K bands (low, mid, high), P pitch frames, Q pitch bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.errors import AudioError

RATE = 22050
HOP = 110
FPS = RATE / HOP
PITCH_HOP = 512
PITCH_FPS = RATE / PITCH_HOP
LOW_HZ, HIGH_HZ = 180.0, 2500.0
"""Kick and bass below, hats and consonants above, everything else between."""

_REFERENCE_RMS = 0.1
_SILENT_RMS = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Attacks:
    """Curves of one song.

    Attributes
    ----------
    flux_TK
        Onset strength per band, float32, never negative; frame t is at t / FPS seconds.
    level_T
        Energy in dB relative to the song's loudness, float32; -100 in silence.
    pitch_PQ
        Log spectrum in semitones, float32; frame p is at p / PITCH_FPS seconds.
    duration_s
        Length of the audio.
    """

    flux_TK: npt.NDArray[np.float32]
    level_T: npt.NDArray[np.float32]
    pitch_PQ: npt.NDArray[np.float32]
    duration_s: float

    @property
    def silent(self) -> bool:
        """Whether nothing begins anywhere."""
        return not bool(self.flux_TK.any())


def listen(samples_N: npt.ArrayLike, rate: int) -> Attacks:
    """Curves of a mono signal at any rate.

    Raises
    ------
    AudioError
        If the samples are not one channel, or not finite.
    """
    import torch

    from mgen.kernels.log_mel import LogMelSpec, log_mel
    from mgen.kernels.onset_strength import bands_below, onset_lag, onset_strength_bands

    samples_N = np.asarray(samples_N, np.float32)
    if samples_N.ndim != 1:
        raise AudioError(f"rhythm is heard in one channel, not in {samples_N.shape}; mix it down")
    if not np.isfinite(samples_N).all():
        raise AudioError("the audio holds samples that are not numbers; export it again")
    duration_s = len(samples_N) / rate
    samples_N = _at_working_level(_resampled(samples_N, rate))
    x_BN = torch.from_numpy(samples_N)[None]
    spec = LogMelSpec(rate=RATE, n_fft=512, hop=HOP, n_mels=48, f_min=30.0, f_max=11000.0,
                      pad="zero", log_scale=100.0)  # fmt: skip
    mel_BTM = log_mel(x_BN, spec)
    flux_TK = onset_strength_bands(
        mel_BTM, bands_below(spec, LOW_HZ, HIGH_HZ), lag=onset_lag(spec), max_width=1
    )[0].numpy()
    pitch_spec = LogMelSpec(rate=RATE, n_fft=4096, hop=PITCH_HOP, n_mels=96, f_min=60.0,
                            f_max=3000.0, pad="zero", log_scale=100.0)  # fmt: skip
    pitch_PQ = log_mel(x_BN, pitch_spec)[0].numpy()
    return Attacks(flux_TK, _level_db(samples_N, len(flux_TK)), pitch_PQ, duration_s)


def _resampled(samples_N: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    if rate == RATE or len(samples_N) == 0:
        return samples_N
    import soxr

    return np.asarray(soxr.resample(samples_N, rate, RATE, quality="MQ"), np.float32)


def _at_working_level(samples_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale to a fixed loudness of the loud half; leave silence alone."""
    if len(samples_N) == 0:
        return samples_N
    block = RATE // 2
    whole = len(samples_N) // block * block
    blocks = samples_N[:whole].reshape(-1, block) if whole else samples_N[None]
    rms_B = np.sqrt(np.mean(np.square(blocks, dtype=np.float64), axis=1))
    loud = float(np.sqrt(np.mean(np.sort(rms_B)[len(rms_B) // 2 :] ** 2)))
    if loud < _SILENT_RMS:
        return np.zeros_like(samples_N)
    return np.asarray(samples_N * (_REFERENCE_RMS / loud), np.float32)


def _level_db(samples_N: npt.NDArray[np.float32], frames: int) -> npt.NDArray[np.float32]:
    """Energy around each frame (two hops wide) over that of the reference level, in dB."""
    power = np.zeros(frames + 1)
    squares = np.square(samples_N, dtype=np.float64)
    for t, start in enumerate(range(0, len(squares), HOP * 4096)):
        part = squares[start : start + HOP * 4096]
        sums = np.add.reduceat(part, np.arange(0, len(part), HOP))
        power[t * 4096 : t * 4096 + len(sums)] = sums[: len(power) - t * 4096]
    smooth = 0.5 * (power[:-1] + np.concatenate(([0.0], power[:-2])))
    ratio = smooth / (HOP * _REFERENCE_RMS**2)
    return np.asarray(10.0 * np.log10(np.maximum(ratio, 1e-10)), np.float32)
