"""Ways in which a recording goes bad: each at a strength from 0 (just audible) to 1 (awful).

For making bad examples of good music. Sound is mono (N,) float32 at 16 kHz; the same sound, kind,
strength and seed give the same samples. Levels follow the sound's own RMS.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mgen.core.errors import UsageError
from mgen.core.quality.features import RATE

Sound = npt.NDArray[np.float64]
_Degradation = Callable[[Sound, float, np.random.Generator], Sound]


def degrade(
    samples_N: npt.NDArray[np.floating], kind: str, strength: float, seed: int
) -> npt.NDArray[np.float32]:
    """The sound with one kind of defect, as long as before; never beyond full scale.

    Raises
    ------
    UsageError
        If there is no such kind, or the strength is not within 0..1.
    """
    if kind not in DEGRADATIONS:
        raise UsageError(f"no degradation is called '{kind}'; there are: {', '.join(DEGRADATIONS)}")
    if not 0.0 <= strength <= 1.0:
        raise UsageError(f"a strength of {strength:g} is not within 0..1")
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    worse_N = DEGRADATIONS[kind](np.asarray(samples_N, np.float64), strength, rng)
    return (worse_N / max(1.0, float(np.abs(worse_N).max(initial=0.0)))).astype(np.float32)


def _between(strength: float, mild: float, awful: float) -> float:
    return mild + (awful - mild) * strength


def _rms(sound_N: Sound) -> float:
    return float(np.sqrt(np.mean(np.square(sound_N)))) if len(sound_N) else 0.0


def _at_snr(sound_N: Sound, noise_N: Sound, snr_db: float) -> Sound:
    """Noise at a level so many dB under the sound's RMS."""
    return noise_N * (_rms(sound_N) / max(_rms(noise_N), 1e-12) * 10.0 ** (-snr_db / 20.0))


def _filtered(sound_N: Sound, kind: str, hz: float | list[float], order: int = 4) -> Sound:
    from scipy.signal import butter, sosfilt

    filtered: Sound = sosfilt(butter(order, hz, kind, fs=RATE, output="sos"), sound_N)
    return filtered


def _impulses(n: int, per_s: float, decay_s: float, rng: np.random.Generator) -> Sound:
    """Scratches: noise bursts that decay, at random times, of log-normal heights."""
    count = max(1, int(rng.poisson(per_s * n / RATE)))
    train_N = np.zeros(n)
    heights = rng.lognormal(0.0, 0.7, count) * rng.choice([-1.0, 1.0], count)
    np.add.at(train_N, rng.integers(0, n, count), heights)
    t = np.arange(max(2, int(5 * decay_s * RATE))) / RATE
    burst = np.exp(-t / decay_s) * rng.uniform(-1.0, 1.0, len(t))
    burst[0] = 1.0
    shaped: Sound = np.convolve(train_N, burst)[:n]
    return shaped


def crackle(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """The fine scratches of a worn record: many, short."""
    per_s = rng.uniform(15.0, 120.0)
    scratches_N = _impulses(len(sound_N), per_s, rng.uniform(0.0002, 0.001), rng)
    return sound_N + _at_snr(sound_N, scratches_N, _between(strength, 22.0, 4.0))


def clicks(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """Single loud pops."""
    pops_N = _impulses(len(sound_N), _between(strength, 1.0, 8.0), rng.uniform(0.001, 0.004), rng)
    loudest = max(float(np.abs(pops_N).max()), 1e-12)
    return sound_N + pops_N * (_between(strength, 3.0, 8.0) * _rms(sound_N) / loudest)


def hiss(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """Noise of tape or of a poor amplifier, white or duller."""
    noise_N = rng.standard_normal(len(sound_N))
    if rng.random() < 0.5:
        noise_N = _filtered(noise_N, "lowpass", rng.uniform(1000.0, 6000.0), 1)
    return sound_N + _at_snr(sound_N, noise_N, _between(strength, 25.0, 3.0))


def hum(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """Mains hum with its harmonics."""
    t_N = np.arange(len(sound_N)) / RATE
    mains = rng.choice([50.0, 60.0])
    fall = rng.uniform(0.5, 1.2)
    hum_N = np.zeros(len(sound_N))
    for k in range(1, 25):
        height = k**-fall * rng.uniform(0.3, 1.0)
        hum_N += height * np.sin(2 * np.pi * (mains * k * t_N + rng.random()))
    return sound_N + _at_snr(sound_N, hum_N, _between(strength, 12.0, -3.0))


def band_limit(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """A telephone, a horn, a tiny loudspeaker: no bass, no treble."""
    low = _between(strength, 120.0, 450.0) * rng.uniform(0.8, 1.25)
    high = _between(strength, 3600.0, 1800.0) * rng.uniform(0.9, 1.1)
    return _filtered(sound_N, "bandpass", [low, high], int(rng.integers(3, 7)))


def clipping(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """Recorded far too loud: cut off at a fraction of its RMS, then as loud as before."""
    ceiling = _rms(sound_N) * 10.0 ** (_between(strength, 1.0, -14.0) / 20.0)
    cut_N = np.clip(sound_N, -ceiling, ceiling)
    return cut_N * (_rms(sound_N) / max(_rms(cut_N), 1e-12))


def wow_flutter(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """A turntable or tape that does not keep its speed: slow (wow) and fast (flutter) wavering."""
    from scipy.ndimage import map_coordinates

    t_N = np.arange(len(sound_N)) / RATE
    drift_N = np.zeros(len(sound_N))
    for depth, lowest, highest in ((0.02, 0.4, 2.0), (0.012, 5.0, 25.0)):
        hz = rng.uniform(lowest, highest)
        depth *= _between(strength, 0.3, 1.0)
        drift_N += depth / (2 * np.pi * hz) * np.sin(2 * np.pi * (hz * t_N + rng.random()))
    at_N = np.clip((t_N + drift_N) * RATE, 0, max(0, len(sound_N) - 1))
    wavering: Sound = map_coordinates(sound_N, at_N[None], order=3, mode="nearest")
    return wavering


def low_bitrate(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """MP3 at 24 to 8 kbit/s: chirps, holes and pre-echo."""
    return coded(sound_N, "MP3", _between(strength, 0.9, 0.985))


def coded(sound_N: Sound, fmt: str, compression: float) -> Sound:
    """Through a lossy coder and back: libsndfile's MP3 or OGG (Vorbis), compression 0..1."""
    import soundfile

    file = io.BytesIO()
    loudest = max(1.0, float(np.abs(sound_N).max(initial=0.0)) * 1.05)
    constant = {"bitrate_mode": "CONSTANT"} if fmt == "MP3" else {}
    with soundfile.SoundFile(
        file, "w", RATE, 1, format=fmt, compression_level=compression, **constant
    ) as out:
        for at in range(0, len(sound_N), RATE):  # libsndfile's Vorbis dies of a long one
            out.write(sound_N[at : at + RATE] / loudest)
    file.seek(0)
    decoded_N = soundfile.read(file, dtype="float64")[0][: len(sound_N)]
    padded: Sound = np.pad(decoded_N, (0, len(sound_N) - len(decoded_N))) * loudest
    return padded


def few_bits(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """Eight to four bits, at 8 kHz more often than not, the samples held (so that they alias)."""
    full = max(float(np.abs(sound_N).max(initial=0.0)), 1e-12)
    levels = 2.0 ** (_between(strength, 7.5, 4.0) - 1.0)
    coarse_N = np.clip(np.round(sound_N / full * levels), -levels, levels - 1) / levels * full
    if rng.random() < 0.6:
        coarse_N = np.repeat(coarse_N[::2], 2)[: len(sound_N)]
    return coarse_N


def dropouts(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """A damaged tape or a lost packet: gaps, with edges of 2 ms."""
    gain_N = np.ones(len(sound_N))
    for _ in range(max(1, int(rng.poisson(_between(strength, 1.0, 6.0) * len(sound_N) / RATE)))):
        start = int(rng.integers(0, max(1, len(sound_N))))
        length = int(rng.uniform(0.02, _between(strength, 0.1, 0.25)) * RATE)
        gain_N[start : start + length] = rng.choice([0.0, 0.0, 0.05])
    edge = np.hanning(34)[1:-1]
    return sound_N * np.convolve(gain_N, edge / edge.sum(), mode="same")


def old_record(sound_N: Sound, strength: float, rng: np.random.Generator) -> Sound:
    """A shellac disc or cylinder: a horn's band, surface noise, crackle, rumble, wow.

    The rumble of a raw transfer, below 30 to 120 Hz, may be far louder than the music.
    """
    worn_N = _filtered(
        sound_N, "bandpass", [rng.uniform(150, 300), _between(strength, 5000, 2800)], 2
    )
    worn_N = np.tanh(worn_N * (_between(strength, 0.5, 2.5) / max(_rms(worn_N), 1e-12)))
    worn_N = wow_flutter(worn_N, strength * 0.5, rng)
    surface_N = _filtered(rng.standard_normal(len(sound_N)), "lowpass", rng.uniform(2000, 7000), 1)
    rumble_N = _filtered(rng.standard_normal(len(sound_N)), "lowpass", rng.uniform(30, 120), 2)
    surface_N = surface_N / max(_rms(surface_N), 1e-12)
    rumble_N *= 10.0 ** rng.uniform(-1.0, 1.3) / max(_rms(rumble_N), 1e-12)
    t_N = np.arange(len(sound_N)) / RATE  # each turn sounds like the last
    surface_N *= 1 + 0.3 * np.sin(2 * np.pi * (rng.choice([1.3, 2.67]) * t_N + rng.random()))
    scratches_N = _impulses(len(sound_N), rng.uniform(10, 80), rng.uniform(0.0002, 0.001), rng)
    noise_N = _at_snr(worn_N, surface_N, _between(strength, 22.0, 6.0))
    noise_N += _at_snr(worn_N, scratches_N, _between(strength, 24.0, 8.0))
    worn_N = worn_N + noise_N + rumble_N * _rms(noise_N)
    return worn_N * (_rms(sound_N) / max(_rms(worn_N), 1e-12))


DEGRADATIONS: dict[str, _Degradation] = {
    "crackle": crackle,
    "clicks": clicks,
    "hiss": hiss,
    "hum": hum,
    "band-limit": band_limit,
    "clipping": clipping,
    "wow-flutter": wow_flutter,
    "low-bitrate": low_bitrate,
    "few-bits": few_bits,
    "dropouts": dropouts,
    "old-record": old_record,
}
