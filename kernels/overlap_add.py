"""Short-time spectra that fit their signal exactly, and the way back by windowed overlap-add.

"Same" padding: (L - hop) // 2 zeros before and the rest of L - hop after, so that N = T * hop
samples give T frames and T frames give N samples; frame t is centred on the middle of its hop. The
inverse divides by the overlapped power of the window (Griffin and Lim, 1984, equation 6), edges
included, so that it gives back the signal exactly, and of spectra that no signal has the nearest
signal in the least-squares sense.

Shapes: B batch, N samples, T frames, L frame length, F = L / 2 + 1 frequency bins.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def overlap_add(frames_BTL: torch.Tensor, hop: int) -> torch.Tensor:
    """Frames laid `hop` samples apart and added up.

    Parameters
    ----------
    frames_BTL
        Real frames (B, T, L), T at least 1.
    hop
        Samples from one frame to the next; at least 1.

    Returns
    -------
    torch.Tensor
        Signals (B, (T - 1) * hop + L).

    Raises
    ------
    ValueError
        If the frames are not (B, T, L) with T >= 1, or hop is below 1.
    """
    _check_frames(frames_BTL, hop)
    n_items, n_frames, length = frames_BTL.shape
    if length % hop:
        total = (n_frames - 1) * hop + length
        added = F.fold(frames_BTL.transpose(1, 2), (1, total), (1, length), stride=(1, hop))
        return added.reshape(n_items, total)
    # whole hops: a few shifted sums of contiguous blocks are faster than fold's columns
    overlaps = length // hop
    blocks = frames_BTL.unflatten(2, (overlaps, hop))
    out = frames_BTL.new_zeros((n_items, n_frames + overlaps - 1, hop))
    for k in range(overlaps):
        out[:, k : k + n_frames] += blocks[:, :, k]
    return out.flatten(1)


def overlap_add_reference(frames_BTL: torch.Tensor, hop: int) -> torch.Tensor:
    """Slow twin of `overlap_add`: float64, frame by frame."""
    _check_frames(frames_BTL, hop)
    n_items, n_frames, length = frames_BTL.shape
    out_BN = torch.zeros((n_items, (n_frames - 1) * hop + length), dtype=torch.float64)
    for t in range(n_frames):
        out_BN[:, t * hop : t * hop + length] += frames_BTL[:, t].double()
    return out_BN


def stft_same(x_BN: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Complex spectra of Hann-windowed frames under "same" padding.

    Parameters
    ----------
    x_BN
        Signals (B, N), float32 or float64, N a multiple of hop and at least one hop.
    length
        Samples of a frame: even, at least 4 and at least two hops.
    hop
        Samples from one frame to the next.

    Returns
    -------
    torch.Tensor
        spectra_BTF (B, N / hop, length / 2 + 1), complex, not normalised (as torch.fft.rfft).

    Raises
    ------
    ValueError
        If N, length or hop do not fit together.
    """
    _check_signal(x_BN, length, hop)
    before = (length - hop) // 2
    frames_BTL = F.pad(x_BN, (before, length - hop - before)).unfold(1, length, hop)
    return torch.fft.rfft(frames_BTL * _hann(length, x_BN.dtype, x_BN.device))


def stft_same_reference(x_BN: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Slow twin of `stft_same`: float64, sample by sample, the DFT as a matrix."""
    _check_signal(x_BN, length, hop)
    n_items, n_samples = x_BN.shape
    before = (length - hop) // 2
    frames_BTL = torch.zeros((n_items, n_samples // hop, length), dtype=torch.float64)
    for t in range(n_samples // hop):
        for i in range(length):
            if 0 <= (n := t * hop + i - before) < n_samples:
                frames_BTL[:, t, i] = x_BN[:, n].double()
    angle_LF = _angles(length).T
    frames_BTL = frames_BTL * _hann_reference(length)
    return torch.complex(frames_BTL @ torch.cos(angle_LF), -(frames_BTL @ torch.sin(angle_LF)))


def istft_same(spectra_BTF: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Signals of spectra as `stft_same` gives them: inverse, window, overlap-add, normalise.

    Parameters
    ----------
    spectra_BTF
        Complex spectra (B, T, length / 2 + 1), T at least 1.
    length, hop
        As given to `stft_same`.

    Returns
    -------
    torch.Tensor
        x_BN (B, T * hop), real.

    Raises
    ------
    ValueError
        If the spectra do not have length / 2 + 1 bins, or length and hop do not fit together.
    """
    _check_spec(length, hop, spectra_BTF)
    n_frames = spectra_BTF.shape[1]
    frames_BTL = torch.fft.irfft(spectra_BTF, n=length)
    window_L = _hann(length, frames_BTL.dtype, frames_BTL.device)
    kept = _kept(n_frames, length, hop)
    signal_BN = overlap_add(frames_BTL * window_L, hop)[:, kept]
    power_1TL = window_L.square().expand(1, n_frames, length)
    return signal_BN / overlap_add(power_1TL, hop)[:, kept]


def istft_same_reference(spectra_BTF: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Slow twin of `istft_same`: float64, the inverse DFT as a sum of cosines, frame by frame."""
    _check_spec(length, hop, spectra_BTF)
    n_items, n_frames, n_bins = spectra_BTF.shape
    window_L, angle_FL = _hann_reference(length), _angles(length)
    # a real signal's bins but the first and the last stand for their mirror image too
    weight_F = torch.full((n_bins,), 2.0 / length, dtype=torch.float64)
    weight_F[0] = weight_F[-1] = 1.0 / length
    signal_BN = torch.zeros((n_items, (n_frames - 1) * hop + length), dtype=torch.float64)
    power_N = torch.zeros(signal_BN.shape[1], dtype=torch.float64)
    for t in range(n_frames):
        real_BF, imag_BF = spectra_BTF[:, t].real.double(), spectra_BTF[:, t].imag.double()
        frame_BL = (real_BF * weight_F) @ torch.cos(angle_FL)
        frame_BL = frame_BL - (imag_BF * weight_F) @ torch.sin(angle_FL)
        signal_BN[:, t * hop : t * hop + length] += frame_BL * window_L
        power_N[t * hop : t * hop + length] += window_L**2
    kept = _kept(n_frames, length, hop)
    return signal_BN[:, kept] / power_N[kept]


def _hann(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.hann_window(length, dtype=dtype, device=device)


def _hann_reference(length: int) -> torch.Tensor:
    index_L = torch.arange(length, dtype=torch.float64)
    return 0.5 - 0.5 * torch.cos(2.0 * math.pi * index_L / length)


def _angles(length: int) -> torch.Tensor:
    index = torch.arange(length, dtype=torch.float64)
    return 2.0 * math.pi / length * index[: length // 2 + 1, None] * index[None, :]


def _kept(n_frames: int, length: int, hop: int) -> slice:
    before = (length - hop) // 2
    return slice(before, before + n_frames * hop)


def _check_frames(frames_BTL: torch.Tensor, hop: int) -> None:
    if frames_BTL.ndim != 3 or frames_BTL.shape[1] < 1:
        raise ValueError(f"frames are (batch, at least 1, samples), not {tuple(frames_BTL.shape)}")
    if hop < 1:
        raise ValueError(f"hop {hop} must be at least 1")


def _check_signal(x_BN: torch.Tensor, length: int, hop: int) -> None:
    _check_spec(length, hop)
    if x_BN.ndim != 2 or x_BN.shape[1] < hop or x_BN.shape[1] % hop:
        raise ValueError(f"signals {tuple(x_BN.shape)} are not (batch, multiple of {hop} samples)")


def _check_spec(length: int, hop: int, spectra_BTF: torch.Tensor | None = None) -> None:
    # below that the window's power reaches zero between frames
    if hop < 1 or length < max(2 * hop, 4) or length % 2:
        raise ValueError(f"length {length} must be even, at least 4 and two hops of {hop} samples")
    if spectra_BTF is not None and (
        spectra_BTF.ndim != 3 or spectra_BTF.shape[1] < 1 or spectra_BTF.shape[2] != length // 2 + 1
    ):
        raise ValueError(
            f"spectra are (batch, at least 1 frame, {length // 2 + 1} bins), "
            f"not {tuple(spectra_BTF.shape)}"
        )
