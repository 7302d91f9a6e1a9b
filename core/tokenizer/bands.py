"""Levels of frequency bands over time, and sound brought to given levels.

Letters: B items, C channels, N samples, T frames, F bins, M bands.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.kernels.overlap_add import istft_same, stft_same

FLOOR_DB = -100.0
LOWEST_NOTE, HIGHEST_NOTE = 36, 119


class Bands(nn.Module):
    """Filters over short-time spectra; nothing in it is learned or saved.

    Attributes
    ----------
    n_fft, hop
        Of the frames; frame t is centred on the middle of its hop, and N samples give N / hop.
    filters_FM, spread_MF
        From bin powers to band powers, and back: see `spread`.
    """

    filters_FM: Tensor
    spread_MF: Tensor
    area_M: Tensor
    covered_F: Tensor

    def __init__(self, filters_MF: Tensor, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("filters_FM", filters_MF.T.contiguous(), persistent=False)
        self.register_buffer("spread_MF", spread(filters_MF), persistent=False)
        self.register_buffer("area_M", filters_MF.sum(dim=1), persistent=False)
        self.register_buffer("covered_F", filters_MF.sum(dim=0) > 0, persistent=False)

    @property
    def count(self) -> int:
        """M."""
        return len(self.area_M)

    def stft(self, samples_BCN: Tensor) -> Tensor:
        """Complex frames (B, C, T, F).

        Raises
        ------
        ValueError
            If N is no multiple of the hop.
        """
        with torch.autocast(samples_BCN.device.type, enabled=False):
            spectra_XTF = stft_same(samples_BCN.float().flatten(0, 1), self.n_fft, self.hop)
        return spectra_XTF.unflatten(0, samples_BCN.shape[:2])

    def levels(self, samples_BCN: Tensor) -> Tensor:
        """Band powers (B, C, T, M) in units of 10 dB."""
        return self.levels_of(self.stft(samples_BCN).abs().square())

    def levels_of(self, power_BCTF: Tensor) -> Tensor:
        """The same of bin powers."""
        with torch.autocast(power_BCTF.device.type, enabled=False):
            return log10_power(power_BCTF @ self.filters_FM)

    def bring_to(
        self, samples_BCN: Tensor, wanted_BCTM: Tensor, *, range_db: float, most_db: float,
        over: int = 1,
    ) -> Tensor:  # fmt: skip
        """Sound whose bands are moved towards the levels that are wanted, phases as they are.

        Frames overlap, so the levels come near after a few calls, as in Griffin and Lim (1984).
        What is more than `range_db` below the loudest band that is wanted counts as so far below.
        No band is moved by more than `most_db`, bins outside all bands by nothing. With `over`, an
        odd number of frames, it is their mean amplitude that is brought to what is wanted: what
        happens within them stays the sound's own.
        """
        floor = floor_of(wanted_BCTM, range_db)
        spectra_BCTF = self.stft(samples_BCN)
        found_BCTM = self.levels_of(spectra_BCTF.abs().square())
        wanted, found = (averaged(x.maximum(floor), over) for x in (wanted_BCTM, found_BCTM))
        step_BCTM = wanted - found
        step_BCTM = step_BCTM.clamp(-most_db / 10.0, most_db / 10.0)
        gain_BCTF = torch.pow(10.0, 0.5 * ((step_BCTM * self.area_M) @ self.spread_MF))
        gain_BCTF = torch.where(self.covered_F, gain_BCTF, 1.0)
        samples_XN = istft_same((spectra_BCTF * gain_BCTF).flatten(0, 1), self.n_fft, self.hop)
        return samples_XN.unflatten(0, samples_BCN.shape[:2])


def averaged(levels_BCTM: Tensor, over: int) -> Tensor:
    """Levels of the mean amplitude over an odd number of frames; at the ends, of what is there."""
    if over == 1:
        return levels_BCTM
    amplitude_XTM = torch.pow(10.0, 0.5 * levels_BCTM).flatten(0, 1)
    mean_XTM = F.avg_pool2d(
        amplitude_XTM[:, None], (over, 1), 1, (over // 2, 0), count_include_pad=False
    )  # fmt: skip
    return 2.0 * mean_XTM[:, 0].log10().view_as(levels_BCTM)


def log10_power(power: Tensor) -> Tensor:
    """Powers in units of 10 dB, not below `FLOOR_DB`."""
    return torch.log10(power.clamp(min=10.0 ** (FLOOR_DB / 10.0)))


def floor_of(levels_BCTM: Tensor, range_db: float) -> Tensor:
    """What lies so far below an item's loudest band (B, 1, 1, 1)."""
    return levels_BCTM.amax(dim=(1, 2, 3), keepdim=True) - range_db / 10.0


def semitones(rate: int, n_fft: int) -> Tensor:
    """A triangle for each semitone, from MIDI note 36 (65 Hz) to 119 (7.9 kHz): (M, F).

    Each falls to zero at its neighbours; those that would reach beyond half the rate are left out.
    """
    hz_F = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    note_F = 69.0 + 12.0 * torch.log2(hz_F.clamp(min=1.0) / 440.0)
    top = 69.0 + 12.0 * math.log2(rate / 2 / 440.0)
    centres_M = torch.arange(LOWEST_NOTE, min(HIGHEST_NOTE, math.floor(top) - 1) + 1)
    return (1.0 - (note_F - centres_M[:, None]).abs()).clamp(min=0.0).float()


def spread(filters_MF: Tensor) -> Tensor:
    """From band powers to bin powers (M, F): each bin takes the weighted mean of its bands.

    A band's power is that of its bins times the filter's area, so it is divided by it first.
    """
    area_M = filters_MF.sum(dim=1).clamp(min=1e-12)
    share_MF = filters_MF / area_M[:, None]
    weight_MF = filters_MF / filters_MF.amax(dim=1, keepdim=True).clamp(min=1e-12)
    total_F = weight_MF.sum(dim=0)
    bare = total_F < 1e-6  # below the first band's rise and above the last one's fall
    weight_MF = torch.where(bare, 0.0, weight_MF / total_F.clamp(min=1e-6))
    nearest_F = share_MF.argmax(dim=0)
    first, last = int((~bare).nonzero()[0]), int((~bare).nonzero()[-1])
    for f in bare.nonzero().flatten().tolist():
        weight_MF[nearest_F[min(max(f, first), last)], f] = 1.0
    return weight_MF / area_M[:, None]
