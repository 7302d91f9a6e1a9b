"""Softmax over the k largest of N, zero elsewhere, and its mix with the dense one.

Style actions (Wang et al. 2018, "Style Tokens") are weights over N embeddings of which only a few
may count; training begins dense and ends with k.

Shapes: ... anything, N choices, K of them kept.
"""

from __future__ import annotations

import torch


def topk_softmax(x: torch.Tensor, k: int, dense: float | torch.Tensor = 0.0) -> torch.Tensor:
    """dense * softmax(x) + (1 - dense) * softmax over the k largest.

    Which of equal numbers are kept is not said, but always k are. Computed in float32 or better;
    the gradient reaches all N where `dense` is above 0, the k kept otherwise.

    Parameters
    ----------
    x
        Logits (..., N), floating point.
    k
        How many are kept, 1..N.
    dense
        Share of the dense softmax, 0..1: a number, or a tensor without axes (so that a compiled
        caller need not be compiled again as it falls).

    Returns
    -------
    torch.Tensor
        Weights (..., N) that sum to 1; float32, or float64 where x is.

    Raises
    ------
    ValueError
        If k or the share makes no sense.
    """
    _check(x, k, dense)
    x = x if x.dtype == torch.float64 else x.float()
    value, index = x.topk(k, dim=-1)
    kept = torch.zeros_like(x).scatter(-1, index, value.softmax(-1))
    if not isinstance(dense, torch.Tensor) and dense == 0.0:
        return kept
    return dense * torch.softmax(x, dim=-1) + (1.0 - dense) * kept


def topk_softmax_reference(
    x: torch.Tensor, k: int, dense: float | torch.Tensor = 0.0
) -> torch.Tensor:
    """Slow twin of `topk_softmax`: float64, row by row, exponentials of what is kept."""
    _check(x, k, dense)
    rows = []
    for row_N in x.double().reshape(-1, x.shape[-1]):
        values = row_N.tolist()
        order = sorted(range(len(values)), key=[-value for value in values].__getitem__)
        powers_N = torch.exp(row_N - max(values))
        keep_N = torch.zeros_like(row_N)
        keep_N[order[:k]] = 1.0
        kept_N = keep_N * powers_N / (keep_N * powers_N).sum()
        rows.append(dense * powers_N / powers_N.sum() + (1.0 - dense) * kept_N)
    return torch.stack(rows).reshape(x.shape)


def largest(weight: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest weights, largest first, and where they are: int64 and float (..., K).

    They are divided by their sum. Of equal weights the first in order comes first.

    Raises
    ------
    ValueError
        If k is not in 1..N.
    """
    _check(weight, k, 0.0)
    value, index = weight.sort(dim=-1, descending=True, stable=True)
    value, index = value[..., :k], index[..., :k]
    return index, value / value.sum(-1, keepdim=True)


def _check(x: torch.Tensor, k: int, dense: float | torch.Tensor) -> None:
    if not x.is_floating_point() or x.ndim < 1 or not 1 <= k <= x.shape[-1]:
        raise ValueError(f"the {k} largest of {x.dtype} {tuple(x.shape)}: give 1 <= k <= N")
    if not isinstance(dense, torch.Tensor) and not 0.0 <= dense <= 1.0:
        raise ValueError(f"a share of {dense} is not in 0..1")
