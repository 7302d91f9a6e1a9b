"""Steady tones where a spectrum has peaks: what random phases cannot give.

Spectral modelling (Serra and Smith, Computer Music Journal 1990) writes sound as sinusoids and
noise. Here the sinusoids follow the peaks among levels of semitones, and only begin a sound: levels
are set afterwards, so tones may be laid over what a decoder wrote.

Letters: X sounds, T frames, M semitones, N samples.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mgen.core.tokenizer.bands import LOWEST_NOTE

PROMINENCE = 0.6
"""By how many 10 dB a peak stands above the lower of its neighbours."""
_SMOOTH = 9
"""Frames that a tone's frequency is averaged over."""
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def peaks(levels_XTM: Tensor) -> tuple[Tensor, Tensor]:
    """Power and note of the tone in each band and frame: (X, T, M) each; power 0 where none is.

    Notes are MIDI numbers with a fraction: the centroid of a peak and its neighbours, where a tone
    between two triangles lies.

    Parameters
    ----------
    levels_XTM
        Of semitones from MIDI note 36 up, in units of 10 dB.
    """
    wide_XTM = F.pad(levels_XTM, (1, 1), mode="replicate")
    below_XTM, above_XTM = wide_XTM[..., :-2], wide_XTM[..., 2:]
    is_peak = (levels_XTM > below_XTM) & (levels_XTM >= above_XTM)
    is_peak &= levels_XTM - torch.minimum(below_XTM, above_XTM) > PROMINENCE
    down_XTM, own_XTM, up_XTM = (
        torch.pow(10.0, x) for x in (below_XTM, levels_XTM, above_XTM)
    )  # fmt: skip
    offset_XTM = (up_XTM - down_XTM) / (down_XTM + own_XTM + up_XTM)
    notes_M = LOWEST_NOTE + torch.arange(levels_XTM.shape[-1], device=levels_XTM.device)
    return torch.where(is_peak, own_XTM, 0.0), notes_M + offset_XTM


def tones(levels_XTM: Tensor, *, rate: int, n_fft: int, hop: int) -> Tensor:
    """Sinusoids (X, N) at the peaks of levels, N = T * hop; phases run on from frame to frame.

    Each semitone has one oscillator. Its amplitude is the one that gives its level in a Hann window
    of `n_fft` samples; it is silent where the semitone is no peak.
    """
    return torch.stack([_tones(levels_TM, rate, n_fft, hop) for levels_TM in levels_XTM])


def _tones(levels_TM: Tensor, rate: int, n_fft: int, hop: int) -> Tensor:
    """Of one sound, as the oscillators of many would take much memory."""
    power_1TM, note_1TM = peaks(levels_TM[None])
    hz_1TM = 440.0 * torch.exp2((note_1TM - 69.0) / 12.0)
    weight_1TM = power_1TM + 1e-12
    hz_1MT = _smooth(hz_1TM * weight_1TM) / _smooth(weight_1TM)
    amplitude_1MT = 4.0 / n_fft * power_1TM.sqrt().transpose(1, 2)
    length = levels_TM.shape[0] * hop
    hz_MN = _stretch(hz_1MT, length)[0].double()
    bands = torch.arange(len(hz_MN), device=levels_TM.device)[:, None]
    phase_MN = torch.cumsum(hz_MN / rate, dim=-1) + _GOLDEN * bands  # in turns, none alike
    wave_MN = torch.sin(2.0 * math.pi * (phase_MN - phase_MN.floor()).float())
    return (_stretch(amplitude_1MT, length)[0] * wave_MN).sum(dim=0)


def _smooth(x_1TM: Tensor) -> Tensor:
    """(1, T, M) -> (1, M, T)."""
    return F.avg_pool1d(
        x_1TM.transpose(1, 2), _SMOOTH, 1, _SMOOTH // 2, count_include_pad=False
    )  # fmt: skip


def _stretch(x_1MT: Tensor, length: int) -> Tensor:
    return F.interpolate(x_1MT, size=length, mode="linear", align_corners=False)
