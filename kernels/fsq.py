"""Finite scalar quantisation: each number to one of a few levels, and codes to indices and back.

Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024, section 3.1, with
levels that are symmetric about 0 whether they are odd or even in number: dim d has n_d levels at
even steps from -1 to 1, so nothing has to be shifted. A code of D dims is one of prod(levels);
its index counts in mixed radix, dim 0 fastest.

Everything is float32 or better inside whatever the input is: in bfloat16 a number near the middle
between two levels goes to the wrong one.

Shapes: ... anything, D dims.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

MOST_CODES = 1 << 24
"""Codes of one quantizer; beyond this an index would not fit what stores it."""


def fsq(z: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
    """Bound each number by tanh and round it to the nearest of its dim's levels.

    The gradient is that of the tanh: rounding is passed straight through.

    Parameters
    ----------
    z
        Numbers (..., D), floating point.
    levels
        How many each dim has; at least 2 each.

    Returns
    -------
    torch.Tensor
        Codes (..., D) in -1..1; float32, or float64 where z is.

    Raises
    ------
    ValueError
        If the levels make no sense, or are not D in number.
    """
    _check(z, levels)
    z = z if z.dtype == torch.float64 else z.float()
    with torch.autocast(z.device.type, enabled=False):
        half = _halves(levels, z)
        bounded = torch.tanh(z)
        code = _rounded(bounded, half)
        return bounded + (code - bounded).detach() if bounded.requires_grad else code


def fsq_reference(z: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
    """Slow twin of `fsq`: float64, every level tried."""
    _check(z, levels)
    bounded = torch.tanh(z.double())
    columns = []
    for d, n in enumerate(levels):
        grid_N = torch.tensor([-1.0 + 2.0 * i / (n - 1) for i in range(n)], dtype=torch.float64)
        distance = (bounded[..., d, None].detach() - grid_N.to(z.device)).abs()
        columns.append(grid_N.to(z.device)[distance.argmin(-1)])
    code = torch.stack(columns, dim=-1)
    return bounded + (code - bounded.detach())


def codes_to_indices(code: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
    """Index of each code: (..., D) as `fsq` gives it -> int64 (...), 0 <= index < prod(levels).

    Raises
    ------
    ValueError
        As `fsq`.
    """
    _check(code, levels)
    code = code if code.dtype == torch.float64 else code.float()
    digits = ((code + 1.0) * _halves(levels, code)).round().to(torch.int64)
    return (digits * _basis(levels, code.device)).sum(-1)


def indices_to_codes(index: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
    """Codes float32 (..., D) of indices (...); the inverse of `codes_to_indices`.

    Raises
    ------
    ValueError
        If the levels make no sense, or the indices are no whole numbers.
    """
    _check_levels(levels)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"indices are whole numbers, not {index.dtype}")
    n_levels = torch.tensor(levels, device=index.device)
    digits = index.long()[..., None] // _basis(levels, index.device) % n_levels
    half = 0.5 * (n_levels - 1).float()
    return (digits.float() - half) / half


def all_codes(levels: Sequence[int]) -> torch.Tensor:
    """Every code in the order of the indices, float32 (prod(levels), D): a slow list of them."""
    _check_levels(levels)
    steps = [[-1.0 + 2.0 * i / (n - 1) for i in range(n)] for n in levels]
    return torch.tensor([row[::-1] for row in itertools.product(*steps[::-1])])


def _rounded(bounded: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    """To whole steps counted from -1, so that even numbers of levels need no offset."""
    return torch.round((bounded + 1.0) * half) / half - 1.0


def _halves(levels: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0.5 * (n - 1) for n in levels], dtype=like.dtype, device=like.device)


def _basis(levels: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([math.prod(levels[:d]) for d in range(len(levels))], device=device)


def _check(z: torch.Tensor, levels: Sequence[int]) -> None:
    _check_levels(levels)
    if not z.is_floating_point() or z.ndim < 1 or z.shape[-1] != len(levels):
        raise ValueError(
            f"{len(levels)} levels quantise floating-point (..., {len(levels)}), not {z.dtype}"
            f" {tuple(z.shape)}"
        )


def _check_levels(levels: Sequence[int]) -> None:
    if not levels or min(levels) < 2 or math.prod(levels) > MOST_CODES:
        raise ValueError(f"levels {list(levels)}: give at least 2 each, {MOST_CODES} codes in all")
