"""Attention in which a block of positions sees itself and the blocks before it, or any mask.

A block is what is written at once: the tokens of a bar see one another, and no later bar. Three
ways to the same numbers:

- `block_causal_attention`: fused attention. Without gradients on a processor it goes block by
  block and never computes what a mask would hide (2.6 ms for 4.5 with 16 blocks of 32, 6 heads of
  48, on one core); with gradients, and on a GPU, it is one call with a mask.
- `block_causal_flex_attention`: the mask compiled into the kernel, which skips hidden tiles. For a
  GPU and many calls of one shape; on a processor it took 5.2 ms, and it has no gradients there.
- `block_causal_attention_reference`: the formula in float64.

`masked_attention` is what all of it rests on: torch's fused attention, but for bfloat16 on a
processor, where the fused one computes in float32 and plain products take half the time (forward
and backward of 16 x 6 heads of 48, 512 positions, on one core: 126 ms for 240).

Letters: B batch, H heads, T positions, E width of a head.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES_AT_ONCE = 1 << 23
"""Plain products are taken of so many pairs of positions at a time: more fall out of the cache."""


def block_causal_mask(length: int, block: int, device: torch.device | str = "cpu") -> Tensor:
    """True where position i may see position j, bool (T, T): j's block is i's or an earlier one.

    Parameters
    ----------
    length
        T.
    block
        Positions of a block; the last block may be cut short.
    device
        Of the result.
    """
    if block < 1:
        raise ValueError(f"a block has at least 1 position, not {block}")
    of_T = torch.arange(length, device=device) // block
    return of_T[:, None] >= of_T


def masked_attention(
    query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention under any mask.

    Parameters
    ----------
    query_BHTE, key_BHTE, value_BHTE
        Of one type.
    mask
        True where a position may be seen, at least one from every position; broadcasts to
        (B, H, T, T). None: everything.

    Returns
    -------
    Tensor
        (B, H, T, E).
    """
    if query_BHTE.dtype != torch.bfloat16 or query_BHTE.device.type != "cpu":
        return F.scaled_dot_product_attention(query_BHTE, key_BHTE, value_BHTE, attn_mask=mask)
    batch, heads, length, _ = query_BHTE.shape
    size = max(1, _SCORES_AT_ONCE // (heads * length * key_BHTE.shape[2]))
    masks = [mask] * batch
    if mask is not None and mask.ndim == 4 and len(mask) > 1:
        masks = list(mask.split(size))
    queries, keys, values = (x.split(size) for x in (query_BHTE, key_BHTE, value_BHTE))
    return torch.cat([_products(*part) for part in zip(queries, keys, values, masks, strict=False)])


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores_BHTT = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        # added, not filled in: the gradient then passes as it is
        scores_BHTT = scores_BHTT + torch.zeros_like(mask, dtype=query.dtype).masked_fill(
            ~mask, -torch.inf
        )
    return torch.softmax(scores_BHTT, dim=-1) @ value


def block_causal_attention(
    query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, block: int
) -> Tensor:
    """Scaled dot-product attention under `block_causal_mask`.

    Parameters
    ----------
    query_BHTE, key_BHTE, value_BHTE
        Of one shape and type.
    block
        Positions of a block; the last block may be cut short.

    Returns
    -------
    Tensor
        (B, H, T, E).

    Raises
    ------
    ValueError
        If the shapes differ, or a block has no position.
    """
    _check(query_BHTE, key_BHTE, value_BHTE, block)
    inputs = (query_BHTE, key_BHTE, value_BHTE)
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    if learns or query_BHTE.device.type != "cpu" or torch.compiler.is_compiling():
        mask_TT = block_causal_mask(query_BHTE.shape[2], block, query_BHTE.device)
        return masked_attention(*inputs, mask_TT)
    rows = [
        masked_attention(
            query_BHTE[:, :, start : start + block],
            key_BHTE[:, :, : start + block],
            value_BHTE[:, :, : start + block],
        )
        for start in range(0, query_BHTE.shape[2], block)
    ]
    return torch.cat(rows, dim=2)


def block_causal_flex_attention(
    query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, block: int
) -> Tensor:
    """The same by FlexAttention (Dong et al. 2024), compiled for each shape at its first call."""
    _check(query_BHTE, key_BHTE, value_BHTE, block)
    tiles = _tiles(query_BHTE.shape[2], block, str(query_BHTE.device))
    out_BHTE: Tensor = _compiled_flex()(query_BHTE, key_BHTE, value_BHTE, block_mask=tiles)
    return out_BHTE


def block_causal_attention_reference(
    query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, block: int
) -> Tensor:
    """Slow twin of `block_causal_attention`: float64, position by position."""
    _check(query_BHTE, key_BHTE, value_BHTE, block)
    query_BHTE, key_BHTE, value_BHTE = query_BHTE.double(), key_BHTE.double(), value_BHTE.double()
    rows = []
    for i in range(query_BHTE.shape[2]):
        seen = (i // block + 1) * block
        scores_BHS = (query_BHTE[:, :, i, None] * key_BHTE[:, :, :seen]).sum(-1)
        weights_BHS = torch.softmax(scores_BHS / query_BHTE.shape[3] ** 0.5, dim=-1)
        rows.append((weights_BHS[..., None] * value_BHTE[:, :, :seen]).sum(2))
    return torch.stack(rows, dim=2)


@functools.lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@functools.lru_cache(maxsize=16)
def _tiles(length: int, block: int, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query // block >= key // block

    return create_block_mask(seen, None, None, length, length, device=device)


def _check(query: Tensor, key: Tensor, value: Tensor, block: int) -> None:
    if block < 1:
        raise ValueError(f"a block has at least 1 position, not {block}")
    if query.ndim != 4 or not query.shape == key.shape == value.shape:
        raise ValueError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)}"
            " must be of one shape (batch, heads, positions, width)"
        )
