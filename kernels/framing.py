"""Cutting a signal into overlapping frames.

Shapes: B batch, N samples, T frames, L frame length.
"""

from __future__ import annotations

import torch


def frame_count(n_samples: int, length: int, hop: int) -> int:
    """How many whole frames of `length` fit into `n_samples`, one every `hop` samples."""
    return 0 if n_samples < length else 1 + (n_samples - length) // hop


def frame(x_BN: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Overlapping frames as a view of the signal: nothing is copied, samples past the last whole
    frame are left out.

    Parameters
    ----------
    x_BN
        Signals (B, N).
    length, hop
        Samples per frame, and from one frame to the next; both at least 1.

    Returns
    -------
    torch.Tensor
        Frames x_BTL (B, T, length); T is 0 where the signal is shorter than one frame. Write into
        a clone, never into the view: frames share memory.

    Raises
    ------
    ValueError
        If the input is not (B, N), or length or hop is below 1.
    """
    _check(x_BN, length, hop)
    if x_BN.shape[1] < length:
        return x_BN.new_empty((x_BN.shape[0], 0, length))
    return x_BN.unfold(1, length, hop)


def frame_reference(x_BN: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Slow twin of `frame`: gathers every sample by its index."""
    _check(x_BN, length, hop)
    starts_T = torch.arange(frame_count(x_BN.shape[1], length, hop)) * hop
    index_TL = starts_T[:, None] + torch.arange(length)[None, :]
    return x_BN[:, index_TL.to(x_BN.device)]


def _check(x_BN: torch.Tensor, length: int, hop: int) -> None:
    if x_BN.ndim != 2:
        raise ValueError(f"frames are cut from (batch, samples), not from {tuple(x_BN.shape)}")
    if length < 1 or hop < 1:
        raise ValueError(f"frame length {length} and hop {hop} must both be at least 1")
