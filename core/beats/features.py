"""What the trackers hear: onset envelopes by band, spectra by beat. Computed in blocks, so that
hours of audio never sit in memory as floats.

Shapes: N samples, T frames of 10 ms, K onset bands, S frames of 50 ms, C pitch classes,
M mel bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mgen.core.errors import AudioError

RATE = 16000
"""Everything is computed at the store's rate, so that a song and its store give the same beats."""
FPS = 100
SLOW_FPS = 20
_CHROMA_N_FFT = 2048
BLOCK_S = 60.0
PEAK, MAX_GAIN = 0.9, 10.0 ** (30 / 20)
BAND_LIMITS_HZ = (200.0, 2000.0)
"""Between kick and bass, snare and voice, hats and cymbals."""

FloatArray = npt.NDArray[np.float32]


class Samples(Protocol):
    """Mono samples that slice to numpy, int16 or float: an array, a memmap, a zarr array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N,)."""
        ...

    @property
    def dtype(self) -> Any:
        """int16 or floating point."""
        ...

    def __getitem__(self, key: slice, /) -> Any:
        """Some samples."""
        ...


@dataclass(frozen=True, slots=True)
class Features:
    """What one song sounds like over time.

    Attributes
    ----------
    onsets_TK
        Rise per band at 100 frames a second (T, 3): low, middle, high.
    chroma_SC
        Energy per pitch class at 20 frames a second (S, 12).
    bass_SC
        The same below 260 Hz (S, 12).
    mel_SM
        Log-mel spectrum at 20 frames a second (S, 20).
    duration_s
        Length of the song.
    """

    onsets_TK: FloatArray
    chroma_SC: FloatArray
    bass_SC: FloatArray
    mel_SM: FloatArray
    duration_s: float


def blocks(samples_N: Samples, rate: int, to_rate: int) -> Iterator[FloatArray]:
    """Successive stretches of about a minute as float32 in -1..1, at `to_rate`.

    Raises
    ------
    AudioError
        If the samples are not mono, not int16 or float, or hold NaN or infinity.
    """
    if len(samples_N.shape) != 1:
        raise AudioError(f"beats are tracked in mono, not in an array of shape {samples_N.shape}")
    kind = np.dtype(samples_N.dtype)
    if kind != np.int16 and kind.kind != "f":
        raise AudioError(f"beats are tracked in int16 or float samples, not in {kind}")
    scale = np.float32(1.0 / 32768.0 if kind == np.int16 else 1.0)
    resampler = None
    if rate != to_rate:
        import soxr

        resampler = soxr.ResampleStream(rate, to_rate, 1, dtype="float32")
    n, step = samples_N.shape[0], max(1, int(BLOCK_S * rate))
    for start in range(0, n, step):
        block = np.asarray(samples_N[start : start + step]).astype(np.float32) * scale
        if not np.isfinite(block).all():
            raise AudioError(
                f"the audio holds NaN or infinity near {start / rate:.0f} s; export it again"
            )
        if resampler is not None:
            block = resampler.resample_chunk(block, last=start + step >= n)
        if len(block):
            yield block


def level_gain(samples_N: Samples, rate: int) -> np.float32:
    """Gain that brings a song's peak to 0.9: a quiet master is the same music. At most 30 dB, so
    that the noise of a silent recording stays noise.

    Raises
    ------
    AudioError
        If the samples cannot be used; see `blocks`.
    """
    peak = max((float(np.abs(block).max()) for block in blocks(samples_N, rate, rate)), default=0.0)
    return np.float32(min(PEAK / max(peak, 1e-9), MAX_GAIN))


class Framer:
    """Hands out the stretches that give whole frames, centred as if all samples came at once.

    Outside the song lies silence or, with `mirror`, the song reflected at its ends. `hop` is less
    than half of `n_fft`, and with `mirror` the first block is longer than that.
    """

    def __init__(self, n_fft: int, hop: int, mirror: bool = False) -> None:
        self.n_fft, self.hop, self.mirror = n_fft, hop, mirror
        self.buffer: FloatArray | None = None

    def push(self, block: FloatArray) -> FloatArray:
        """Samples for every frame that is complete by now; may be empty."""
        if self.buffer is None:
            half = self.n_fft // 2
            before = block[half:0:-1] if self.mirror else block[:0]
            self.buffer = np.concatenate([np.zeros(half - len(before), np.float32), before])
        self.buffer = np.concatenate([self.buffer, block])
        frames = max(0, 1 + (len(self.buffer) - self.n_fft) // self.hop)
        ready = self.buffer[: (frames - 1) * self.hop + self.n_fft] if frames else self.buffer[:0]
        self.buffer = self.buffer[frames * self.hop :]
        return ready

    def flush(self) -> FloatArray:
        """The last frames."""
        if self.buffer is None:
            return np.zeros(0, np.float32)
        half = self.n_fft // 2
        after = self.buffer[-2 : -half - 2 : -1] if self.mirror else self.buffer[:0]
        return self.push(np.concatenate([after, np.zeros(half - len(after), np.float32)]))


def framed(
    stream: Iterable[FloatArray], n_fft: int, hop: int, mirror: bool = False
) -> Iterator[FloatArray]:
    """Stretches that together give the frames of the whole stream; see `Framer`."""
    framer = Framer(n_fft, hop, mirror)
    for block in stream:
        if len(ready := framer.push(block)):
            yield ready
    if len(ready := framer.flush()):
        yield ready


def extract(
    samples_N: Samples, rate: int, on_mel: Callable[[FloatArray], None] | None = None
) -> Features:
    """Compute the features of a song, block by block; `on_mel` is handed the log-mel (t, 80) of
    each as it comes (kernels.log_mel's ONSETS).

    Raises
    ------
    AudioError
        If the samples cannot be used; see `blocks`.
    """
    import torch

    from mgen.kernels.log_mel import ONSETS, log_mel
    from mgen.kernels.onset_strength import bands_below, onset_lag, onset_strength_bands

    spec = replace(ONSETS, centre=False)
    lag, edges = onset_lag(spec), bands_below(spec, *BAND_LIMITS_HZ)
    fast, slow = Framer(spec.n_fft, spec.hop), Framer(_CHROMA_N_FFT, RATE // SLOW_FPS)
    before = torch.zeros(1, lag, spec.n_mels)
    # room for all of it at once: pieces kept between the big blocks would fragment the heap
    seconds = samples_N.shape[0] / rate
    onsets, mels = _Rows(seconds * FPS, len(edges) - 1), _Rows(seconds * FPS, spec.n_mels // 4)
    chromas, basses = _Rows(seconds * SLOW_FPS, 12), _Rows(seconds * SLOW_FPS, 12)

    def take(fast_x: FloatArray, slow_x: FloatArray) -> None:
        nonlocal before
        if len(fast_x):
            mel_1TM = torch.cat([before, log_mel(torch.from_numpy(fast_x)[None], spec)], dim=1)
            onsets.add(onset_strength_bands(mel_1TM, edges, lag)[0, lag:].numpy())
            if on_mel is not None:
                on_mel(mel_1TM[0, lag:].numpy())
            mels.add(mel_1TM[0, lag:].numpy().reshape(-1, spec.n_mels // 4, 4).mean(-1))
            before = mel_1TM[:, -lag:].clone()
        if len(slow_x):
            chroma, bass = _chroma(torch.from_numpy(slow_x))
            chromas.add(chroma)
            basses.add(bass)

    with torch.inference_mode():
        gain = level_gain(samples_N, rate)
        for block in blocks(samples_N, rate, RATE):
            block *= gain
            take(fast.push(block), slow.push(block))
        take(fast.flush(), slow.flush())
    per_slow = FPS // SLOW_FPS
    mel_TM = mels.filled()
    mel_TM = mel_TM[: len(mel_TM) // per_slow * per_slow]
    return Features(
        onsets_TK=onsets.filled(),
        chroma_SC=chromas.filled(),
        bass_SC=basses.filled(),
        mel_SM=mel_TM.reshape(len(mel_TM) // per_slow, per_slow, mel_TM.shape[1]).mean(1),
        duration_s=seconds,
    )


class _Rows:
    """An array that is filled from the front."""

    def __init__(self, expected: float, width: int) -> None:
        self.values = np.zeros((int(expected) + 16, width), np.float32)
        self.used = 0

    def add(self, rows: FloatArray) -> None:
        self.values[self.used : self.used + len(rows)] = rows
        self.used += len(rows)

    def filled(self) -> FloatArray:
        return self.values[: self.used]


@lru_cache(maxsize=1)
def _chroma_maps() -> tuple[Any, Any]:
    """Bins to pitch classes: all of 65-2000 Hz, and the bass below 260 Hz; float32 (F, 12)."""
    import torch

    hz = torch.arange(1, _CHROMA_N_FFT // 2 + 1) * (RATE / _CHROMA_N_FFT)
    pitch = 69.0 + 12.0 * torch.log2(hz / 440.0)
    distance = (pitch[:, None] - torch.arange(12)[None, :] + 6.0) % 12.0 - 6.0
    near = torch.exp(-0.5 * (distance / 0.5) ** 2)
    whole = near * ((hz > 65.0) & (hz < 2000.0))[:, None]
    low = near * ((hz > 40.0) & (hz < 260.0))[:, None]
    zero = torch.zeros(1, 12)
    return torch.cat([zero, whole]), torch.cat([zero, low])


def _chroma(x: Any) -> tuple[FloatArray, FloatArray]:
    import torch

    window = torch.hann_window(_CHROMA_N_FFT)
    spectrum_FS = torch.stft(
        x, _CHROMA_N_FFT, RATE // SLOW_FPS, window=window, center=False, return_complex=True,
        normalized=True,
    ).abs()  # fmt: skip
    loud_SF = torch.log1p(10.0 * spectrum_FS).T
    whole, low = _chroma_maps()
    return (loud_SF @ whole).numpy(), (loud_SF @ low).numpy()
