"""How near two sounds are as the ear has it: the measure `mel_l1_db`, and losses of its kind.

Everything that is more than 80 dB below an item's loudest band counts as so far below, as in
librosa's `power_to_db(top_db=80)`.

Letters: B items, C channels, N samples, T frames, F bins, M mel bands.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mgen.kernels.log_mel import LogMelSpec, log_mel, mel_filterbank

TOP_DB = 80.0
STFT_LENGTHS = (256, 1024, 2048)
_SILENCE = 1e-10  # of power: -100 dB


@lru_cache(maxsize=8)
def mel_spec(rate: int) -> LogMelSpec:
    """What `mel_l1_db` looks at: librosa's default mel spectrogram, 80 bands, window 1024, hop
    256, in dB.
    """
    return LogMelSpec(
        rate=rate, n_fft=1024, hop=256, n_mels=80, f_max=rate / 2, power=2.0, normalized=False,
        area=True, log="db", pad="zero",
    )  # fmt: skip


def mel_l1_db(truth_N: np.ndarray | Tensor, found_N: np.ndarray | Tensor, rate: int) -> float:
    """Mean absolute difference of two log-mel spectrograms in dB, each (N,) and of one length.

    Equals librosa's melspectrogram (80 bands, n_fft 1024, hop 256) and power_to_db (top_db 80) of
    both.
    """
    decibels = []
    for samples in (truth_N, found_N):
        mel_TM = log_mel(torch.as_tensor(samples)[None].float(), mel_spec(rate))[0]
        decibels.append(mel_TM.clamp(min=float(mel_TM.max()) - TOP_DB))
    return float((decibels[0] - decibels[1]).abs().mean())


class Distances:
    """Differentiable distances of sounds in units of 10 dB; windows and filters are made once."""

    def __init__(self, rate: int) -> None:
        self._mel_FM = mel_filterbank(mel_spec(rate)).float().T.contiguous()
        self._windows = {length: torch.hann_window(length) for length in STFT_LENGTHS}

    def mel(self, truth_BCN: Tensor, found_BCN: Tensor) -> Tensor:
        """Mean absolute difference of log-mel spectrograms, those of `mel_l1_db`."""
        mel_FM = self._mel_FM.to(truth_BCN)
        return _distance(*(self._power(x, 1024) @ mel_FM for x in (truth_BCN, found_BCN)))

    def stft(self, truth_BCN: Tensor, found_BCN: Tensor) -> Tensor:
        """Mean absolute difference of log-magnitude spectra, mean over three resolutions."""
        parts = [
            _distance(self._power(truth_BCN, length), self._power(found_BCN, length))
            for length in STFT_LENGTHS
        ]
        return torch.stack(parts).mean()

    def _power(self, x_BCN: Tensor, length: int) -> Tensor:
        """(B, C, T, F)."""
        spectrum_XFT = torch.stft(
            x_BCN.flatten(0, 1), length, length // 4, window=self._windows[length].to(x_BCN),
            pad_mode="constant", return_complex=True,
        )  # fmt: skip
        power_XFT = torch.view_as_real(spectrum_XFT).square().sum(-1)
        return power_XFT.transpose(1, 2).unflatten(0, x_BCN.shape[:2])


def _distance(truth: Tensor, found: Tensor) -> Tensor:
    """Of powers (B, C, T, bands); what lies 80 dB below the item's maximum is at the floor."""
    one, other = (torch.log10(x.clamp(min=_SILENCE)) for x in (truth, found))
    floor = one.amax(dim=(1, 2, 3), keepdim=True) - TOP_DB / 10.0
    return (one.maximum(floor) - other.maximum(floor)).abs().mean()
