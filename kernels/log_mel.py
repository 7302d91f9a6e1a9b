"""Log-mel spectrograms: the fast path on torch.stft, and a float64 reference that agrees with it.

Shapes: B batch, N samples, T frames, L samples of a frame, F frequency bins, M mel bands.

With centre padding, frame t is centred on sample t * hop: its time is t * hop / rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from mgen.kernels.framing import frame_reference

# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


@dataclass(frozen=True, kw_only=True)
class LogMelSpec:
    """Everything that fixes a log-mel spectrogram; hashable, so filterbanks are cached by it.

    `normalized` divides the spectrum by sqrt(n_fft) (torchaudio's `frame_length`). `area` gives
    every filter unit area (librosa's `norm="slaney"`); without it every filter peaks at about 1.
    `log` is `log1p` (log(1 + log_scale * x)), `db` (10 log10(max(x, 1e-10)), meant for power 2) or
    `none`.
    `centre` pads by n_fft/2 on both sides, by `reflect` or `zero`.
    """

    rate: int
    n_fft: int
    hop: int
    n_mels: int
    f_min: float = 0.0
    f_max: float
    power: float = 1.0
    normalized: bool = True
    area: bool = False
    log: Literal["log1p", "db", "none"] = "log1p"
    log_scale: float = 1000.0
    centre: bool = True
    pad: Literal["reflect", "zero"] = "reflect"

    def __post_init__(self) -> None:
        if not 0.0 <= self.f_min < self.f_max <= self.rate / 2.0:
            raise ValueError(
                f"mel bands from {self.f_min} to {self.f_max} Hz do not fit a rate of {self.rate}"
            )
        if self.hop < 1 or self.n_fft < 2 or self.n_fft % 2 or self.n_mels < 1:
            raise ValueError("hop and n_mels must be at least 1, n_fft even and at least 2")

    @property
    def frames_per_second(self) -> float:
        """Frames per second: rate / hop."""
        return self.rate / self.hop

    @property
    def silence(self) -> float:
        """The value that silence has in every band."""
        return -100.0 if self.log == "db" else 0.0

    def frames(self, n_samples: int) -> int:
        """Frames that `n_samples` give."""
        padded = n_samples + (self.n_fft if self.centre else 0)
        return 0 if padded < self.n_fft or n_samples == 0 else 1 + (padded - self.n_fft) // self.hop


BEAT_THIS = LogMelSpec(rate=22050, n_fft=1024, hop=441, n_mels=128, f_min=30.0, f_max=11000.0)
"""What Beat This! was trained on (Foscarin et al. 2024, section 3.1): 50 frames a second."""

ONSETS = LogMelSpec(
    rate=16000, n_fft=512, hop=160, n_mels=80, f_min=30.0, f_max=8000.0, pad="zero",
    log_scale=100.0,
)  # fmt: skip
"""For onsets and the shipped beat tracker: 100 frames a second of 32 ms, at the store's rate.

Padding is zero: a mirrored attack at the start would look like sound before the first sample.
"""


def hz_to_mel(hz: torch.Tensor) -> torch.Tensor:
    """Frequency in Hz to Slaney mels."""
    above = _LOG_START_MEL + torch.log(hz.clamp(min=1e-9) / _LOG_START_HZ) / _LOG_STEP
    return torch.where(hz >= _LOG_START_HZ, above, hz / _LINEAR_HZ_PER_MEL)


def mel_to_hz(mel: torch.Tensor) -> torch.Tensor:
    """Slaney mels to frequency in Hz."""
    above = _LOG_START_HZ * torch.exp(_LOG_STEP * (mel - _LOG_START_MEL))
    return torch.where(mel >= _LOG_START_MEL, above, mel * _LINEAR_HZ_PER_MEL)


@lru_cache(maxsize=16)
def band_edges_hz(spec: LogMelSpec) -> torch.Tensor:
    """Corners of the triangular filters in Hz, float64 (M + 2): band m rises from m, peaks at
    m + 1 and falls to m + 2.
    """
    lo, hi = hz_to_mel(torch.tensor([spec.f_min, spec.f_max], dtype=torch.float64)).tolist()
    return mel_to_hz(torch.linspace(lo, hi, spec.n_mels + 2, dtype=torch.float64))


@lru_cache(maxsize=16)
def mel_filterbank(spec: LogMelSpec) -> torch.Tensor:
    """Triangular mel filters on Slaney's scale, float64 (M, F); the numbers of librosa."""
    edges = band_edges_hz(spec)
    bins_F = torch.arange(spec.n_fft // 2 + 1, dtype=torch.float64) * (spec.rate / spec.n_fft)
    width = edges.diff()
    rising = (bins_F[None, :] - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins_F[None, :]) / width[1:, None]
    filters_MF = torch.minimum(rising, falling).clamp(min=0.0)
    if spec.area:
        filters_MF = filters_MF * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters_MF


def log_mel(x_BN: torch.Tensor, spec: LogMelSpec) -> torch.Tensor:
    """Log-mel spectrogram of signals in -1..1.

    Parameters
    ----------
    x_BN
        Signals (B, N) at `spec.rate`, floating point; any N, one sample too.
    spec
        What to compute.

    Returns
    -------
    torch.Tensor
        mel_BTM (B, T, M), the dtype and device of the input; T = `spec.frames(N)`.

    Raises
    ------
    ValueError
        If the input is not a floating-point (B, N).
    """
    _check(x_BN)
    if spec.frames(x_BN.shape[1]) == 0:
        return x_BN.new_zeros((x_BN.shape[0], 0, spec.n_mels))
    if spec.centre:
        x_BN = _pad(x_BN, spec)
    window_L = _hann(spec.n_fft, x_BN.dtype, x_BN.device)
    stft_BFT = torch.stft(
        x_BN, spec.n_fft, spec.hop, window=window_L, center=False, return_complex=True,
        normalized=spec.normalized,
    )  # fmt: skip
    if spec.power == 2.0:
        magnitude_BFT = torch.view_as_real(stft_BFT).square().sum(-1)
    else:
        magnitude_BFT = stft_BFT.abs()
        if spec.power != 1.0:
            magnitude_BFT = magnitude_BFT.pow(spec.power)
    filters_FM = mel_filterbank(spec).to(x_BN).T
    return _compress(magnitude_BFT.transpose(1, 2) @ filters_FM, spec)


def log_mel_reference(x_BN: torch.Tensor, spec: LogMelSpec) -> torch.Tensor:
    """Slow twin of `log_mel`: float64, frames gathered by index, the DFT as a matrix."""
    _check(x_BN)
    x_BN = x_BN.double()
    if spec.frames(x_BN.shape[1]) == 0:
        return x_BN.new_zeros((x_BN.shape[0], 0, spec.n_mels))
    if spec.centre:
        n, half = x_BN.shape[1], spec.n_fft // 2
        padded = x_BN.new_zeros((x_BN.shape[0], n + spec.n_fft))
        for target in range(n + spec.n_fft):
            source = _mirror(target - half, n) if spec.pad == "reflect" else target - half
            if 0 <= source < n:
                padded[:, target] = x_BN[:, source]
        x_BN = padded
    index_L = torch.arange(spec.n_fft, dtype=torch.float64)
    window_L = 0.5 - 0.5 * torch.cos(2.0 * math.pi * index_L / spec.n_fft)
    frames_BTL = frame_reference(x_BN, spec.n_fft, spec.hop) * window_L
    bins_F = torch.arange(spec.n_fft // 2 + 1, dtype=torch.float64)
    angle_LF = 2.0 * math.pi / spec.n_fft * (index_L[:, None] * bins_F[None, :])
    real_BTF = frames_BTL @ torch.cos(angle_LF)
    imag_BTF = frames_BTL @ torch.sin(angle_LF)
    magnitude_BTF = torch.sqrt(real_BTF**2 + imag_BTF**2)
    if spec.normalized:
        magnitude_BTF = magnitude_BTF / math.sqrt(spec.n_fft)
    return _compress(magnitude_BTF**spec.power @ mel_filterbank(spec).T, spec)


@lru_cache(maxsize=16)
def _hann(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.hann_window(length, dtype=dtype, device=device)


def _check(x_BN: torch.Tensor) -> None:
    if x_BN.ndim != 2 or not x_BN.is_floating_point():
        raise ValueError(
            f"log_mel takes floating-point (batch, samples), not {x_BN.dtype} {tuple(x_BN.shape)}"
        )


def _compress(x: torch.Tensor, spec: LogMelSpec) -> torch.Tensor:
    if spec.log == "log1p":
        return torch.log1p(spec.log_scale * x)
    if spec.log == "db":
        return 10.0 * torch.log10(x.clamp(min=1e-10))
    return x


def _mirror(index: int, n: int) -> int:
    """Where a reflection that leaves out the edge sample puts an index (numpy's `reflect`)."""
    if n == 1:
        return 0
    index = abs(index) % (2 * (n - 1))
    return min(index, 2 * (n - 1) - index)


def _pad(x_BN: torch.Tensor, spec: LogMelSpec) -> torch.Tensor:
    half = spec.n_fft // 2
    if spec.pad == "zero":
        return torch.nn.functional.pad(x_BN, (half, half))
    if x_BN.shape[1] > half:
        return torch.nn.functional.pad(x_BN, (half, half), mode="reflect")
    n = x_BN.shape[1]  # torch reflects only once; a signal this short needs several reflections
    return x_BN[:, [_mirror(i, n) for i in range(-half, n + half)]]
