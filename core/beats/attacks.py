"""How strongly sound begins, moment by moment, in three bands, and how its pitches change.

What the whole-song tempo and the beat maps listen to: attacks every 5 ms on time to a few
milliseconds, pitch content every 23 ms. Loud and quiet songs give the same curves.

Shapes: N samples, T frames of 5 ms, K bands (low, mid, high), P pitch frames, Q pitch bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beats.features import FloatArray, Framer, Samples, blocks
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


def listen(samples_N: Samples, rate: int) -> Attacks:
    """Curves of a mono signal at any rate, read in blocks.

    Raises
    ------
    AudioError
        If the samples are not one channel, not int16 or float, or not finite.
    """
    import torch

    from mgen.kernels.log_mel import LogMelSpec, log_mel
    from mgen.kernels.onset_strength import bands_below, onset_lag, onset_strength_bands

    if len(samples_N.shape) != 1:
        raise AudioError(f"rhythm is heard in one channel, not in {samples_N.shape}; mix it down")
    spec = LogMelSpec(rate=RATE, n_fft=512, hop=HOP, n_mels=48, f_min=30.0, f_max=11000.0,
                      centre=False, log_scale=100.0)  # fmt: skip
    pitch_spec = LogMelSpec(rate=RATE, n_fft=4096, hop=PITCH_HOP, n_mels=96, f_min=60.0,
                            f_max=3000.0, centre=False, log_scale=100.0)  # fmt: skip
    lag, edges = onset_lag(spec), bands_below(spec, LOW_HZ, HIGH_HZ)
    before_BTM = torch.zeros(1, lag, spec.n_mels)
    flux, pitch = [np.zeros((0, 3), np.float32)], [np.zeros((0, 96), np.float32)]

    def take(fast_x: FloatArray, slow_x: FloatArray) -> None:
        nonlocal before_BTM
        if len(fast_x):
            mel_BTM = log_mel(torch.from_numpy(fast_x)[None], spec)
            mel_BTM = torch.cat([before_BTM, mel_BTM], dim=1)
            bands_BTK = onset_strength_bands(mel_BTM, edges, lag=lag, max_width=1)
            flux.append(bands_BTK[0, lag:].numpy())
            before_BTM = mel_BTM[:, -lag:].clone()
        if len(slow_x):
            pitch.append(log_mel(torch.from_numpy(slow_x)[None], pitch_spec)[0].numpy())

    gain = _working_gain(samples_N, rate)
    fast, slow = Framer(spec.n_fft, HOP), Framer(pitch_spec.n_fft, PITCH_HOP)
    power, rest = [np.zeros(0)], np.zeros(0)
    with torch.inference_mode():
        for block in blocks(samples_N, rate, RATE):
            block *= gain
            take(fast.push(block), slow.push(block))
            rest = np.concatenate([rest, np.square(block, dtype=np.float64)])
            whole = len(rest) // HOP * HOP
            power.append(rest[:whole].reshape(-1, HOP).sum(1))
            rest = rest[whole:]
        take(fast.flush(), slow.flush())
    flux_TK = np.concatenate(flux)
    level_T = _level_db(np.concatenate([*power, [rest.sum()]]), len(flux_TK))
    return Attacks(flux_TK, level_T, np.concatenate(pitch), samples_N.shape[0] / rate)


def _working_gain(samples_N: Samples, rate: int) -> np.float32:
    """What brings the loud half of the half-seconds to a fixed loudness; 0 for silence."""
    size = max(1, min(rate // 2, samples_N.shape[0]))  # a song shorter than that is one
    powers = [np.zeros(0)]
    for block in blocks(samples_N, rate, rate):
        parts = block[: len(block) // size * size].reshape(-1, size)
        powers.append(np.mean(np.square(parts, dtype=np.float64), axis=1))
    power = np.sort(np.concatenate(powers))
    loud = float(np.sqrt(power[len(power) // 2 :].mean())) if len(power) else 0.0
    return np.float32(0.0 if loud < _SILENT_RMS else _REFERENCE_RMS / loud)


def _level_db(power: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.float32]:
    """Energy around each frame (two hops wide) over that of the reference level, in dB."""
    power = np.pad(power, (0, max(0, frames - len(power))))[:frames]
    smooth = 0.5 * (power + np.concatenate(([0.0], power[:-1])))[:frames]
    ratio = smooth / (HOP * _REFERENCE_RMS**2)
    return np.asarray(10.0 * np.log10(np.maximum(ratio, 1e-10)), np.float32)
