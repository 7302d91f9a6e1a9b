"""Adaptive LayerNorm whose scale, shift and gate live at the rate of the latents.

A condition of L tokens modulates T = L * r positions: position t takes the numbers of token
t // r. Computing the numbers once a token and repeating them is the same as computing them at
every position of the upsampled condition (they depend on nothing else), and r times cheaper; the
repetition itself is a broadcast, so nothing is copied.

Shapes: B batch, T positions, L tokens (T = L * r; 1 for one condition an item), W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

EPS = 1e-6


def modulate(x_BTW: torch.Tensor, scale_BLW: torch.Tensor, shift_BLW: torch.Tensor) -> torch.Tensor:
    """LayerNorm without affine, then times (1 + scale) plus shift of each position's token.

    Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, section 3.2.

    Parameters
    ----------
    x_BTW
        Activations (B, T, W), floating point.
    scale_BLW, shift_BLW
        Of each token (B, L, W); T is a multiple of L.

    Returns
    -------
    torch.Tensor
        (B, T, W).

    Raises
    ------
    ValueError
        If T is no multiple of L, or the shapes do not belong together.
    """
    _check(x_BTW, scale_BLW, shift_BLW)
    normal_BTW = F.layer_norm(x_BTW, (x_BTW.shape[-1],), eps=EPS)
    groups_BLRW = normal_BTW.unflatten(1, (scale_BLW.shape[1], -1))
    scale, shift = 1.0 + scale_BLW[:, :, None], shift_BLW[:, :, None]
    return torch.addcmul(shift, groups_BLRW, scale).flatten(1, 2)


def modulate_reference(
    x_BTW: torch.Tensor, scale_BLW: torch.Tensor, shift_BLW: torch.Tensor
) -> torch.Tensor:
    """Slow twin of `modulate`: float64, the condition repeated to the full rate."""
    _check(x_BTW, scale_BLW, shift_BLW)
    x_BTW, repeats = x_BTW.double(), x_BTW.shape[1] // scale_BLW.shape[1]
    mean = x_BTW.mean(-1, keepdim=True)
    variance = ((x_BTW - mean) ** 2).mean(-1, keepdim=True)
    normal_BTW = (x_BTW - mean) / torch.sqrt(variance + EPS)
    scale_BTW = scale_BLW.double().repeat_interleave(repeats, dim=1)
    shift_BTW = shift_BLW.double().repeat_interleave(repeats, dim=1)
    return normal_BTW * (1.0 + scale_BTW) + shift_BTW


def gate_residual(
    x_BTW: torch.Tensor, update_BTW: torch.Tensor, gate_BLW: torch.Tensor
) -> torch.Tensor:
    """x + gate * update, each position with its token's gate.

    Parameters
    ----------
    x_BTW, update_BTW
        What a block was given, and what it adds (B, T, W).
    gate_BLW
        Of each token (B, L, W); T is a multiple of L.

    Returns
    -------
    torch.Tensor
        (B, T, W).

    Raises
    ------
    ValueError
        If T is no multiple of L, or the shapes do not belong together.
    """
    _check(x_BTW, gate_BLW, gate_BLW)
    groups = (gate_BLW.shape[1], -1)
    x_BLRW, update_BLRW = x_BTW.unflatten(1, groups), update_BTW.unflatten(1, groups)
    return torch.addcmul(x_BLRW, gate_BLW[:, :, None], update_BLRW).flatten(1, 2)


def gate_residual_reference(
    x_BTW: torch.Tensor, update_BTW: torch.Tensor, gate_BLW: torch.Tensor
) -> torch.Tensor:
    """Slow twin of `gate_residual`: float64, the gate repeated to the full rate."""
    _check(x_BTW, gate_BLW, gate_BLW)
    repeats = x_BTW.shape[1] // gate_BLW.shape[1]
    gate_BTW = gate_BLW.double().repeat_interleave(repeats, dim=1)
    return x_BTW.double() + gate_BTW * update_BTW.double()


def _check(x_BTW: torch.Tensor, first_BLW: torch.Tensor, second_BLW: torch.Tensor) -> None:
    n_tokens = first_BLW.shape[1]
    if first_BLW.shape != second_BLW.shape or first_BLW.shape[-1] != x_BTW.shape[-1]:
        raise ValueError(
            f"modulation {tuple(first_BLW.shape)}, {tuple(second_BLW.shape)} does not fit "
            f"activations {tuple(x_BTW.shape)}"
        )
    if n_tokens < 1 or x_BTW.shape[1] % n_tokens:
        raise ValueError(f"{x_BTW.shape[1]} positions are no multiple of {n_tokens} tokens")
