"""What the dynamics model's transformer is built of.

Positions are factorised: one part of each head is turned by the number of the bar, the rest by the
place in the bar, so that "the same beat, some bars ago" is one direction whatever the distance.

Letters: S sequences, B bars, T positions of all bars, W width, H heads, E width of a head, K width
of a bar's embedded conditions, J positions of conditions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mgen.core.layers import Attention, Modulation, RMSNorm, SwiGLU, sinusoids
from mgen.kernels.adaln import gate_residual, modulate
from mgen.kernels.block_causal import (
    block_causal_attention,
    block_causal_mask,
    masked_attention,
)

_LONGEST = 100.0
"""Slowest turn: once in so many bars, or places, times 2 pi."""


class View(NamedTuple):
    """Who may see whom, and where positions lie; the same for all blocks of a pass.

    Attributes
    ----------
    turns
        Cosines and sines (T, E / 2) of the positions.
    block
        Positions of a bar.
    causal
        Whether no bar sees a later one, in any sequence.
    mask_S1TT
        True where a position may be seen, where that differs between sequences; None elsewhere.
    own_1TJ
        True where a condition belongs to a position's bar, for cross-attention.
    """

    turns: tuple[Tensor, Tensor]
    block: int
    causal: bool
    mask_S1TT: Tensor | None
    own_1TJ: Tensor | None


def make_view(
    bars: int, block: int, head: int, causal: bool | Tensor, *, asks: int = 0,
    device: torch.device,
) -> View:  # fmt: skip
    """The view of `bars` bars of `block` positions.

    Parameters
    ----------
    bars, block
        Bars, and positions of each.
    head
        Width of a head, even, at least 6.
    causal
        Whether no bar sees a later one; a bool tensor (S,) says it of each sequence.
    asks
        Conditions of a bar that are attended to.
    device
        Of the result.
    """
    index_T = torch.arange(bars * block, device=device)
    of_bar = head // 6 * 2
    angles_bar = sinusoids(index_T // block, of_bar, _LONGEST).chunk(2, dim=-1)
    angles_place = sinusoids(index_T % block, head - of_bar, _LONGEST).chunk(2, dim=-1)
    cos, sin = (torch.cat(pair, dim=-1) for pair in zip(angles_bar, angles_place, strict=True))
    mask = own = None
    if isinstance(causal, Tensor):
        mask = block_causal_mask(bars * block, block, device) | ~causal[:, None, None, None]
        causal = False
    if asks:
        index_J = torch.arange(bars * asks, device=device)
        own = (index_T[:, None] // block == index_J // asks)[None]
    return View((cos, sin), block, causal, mask, own)


class BarAttention(nn.Module):
    """Attention of all bars' positions to one another, with normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.norm_query = RMSNorm(width // heads)
        self.norm_key = RMSNorm(width // heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_STW: Tensor, view: View) -> Tensor:
        """(S, T, W) -> (S, T, W)."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.query_key_value(x_STW).chunk(3, dim=-1)
        )
        query = _turn(self.norm_query(query), view.turns).to(value)
        key = _turn(self.norm_key(key), view.turns).to(value)
        if view.causal:
            seen_SHTE = block_causal_attention(query, key, value, view.block)
        else:
            seen_SHTE = masked_attention(query, key, value, view.mask_S1TT)
        out_STW: Tensor = self.out(seen_SHTE.transpose(1, 2).flatten(2))
        return out_STW


def _turn(x_SHTE: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 15), float32."""
    cos, sin = turns
    first, second = x_SHTE.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class LowRankModulation(nn.Module):
    """What a block adds to the modulations that all share: zero at the start.

    AdaLN with one projection for all blocks (Chen et al., PixArt-alpha, ICLR 2024, section 2.3),
    and, in place of their table, a low-rank one a block, so that each may hear the conditions its
    own way.
    """

    def __init__(self, embedding: int, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(embedding, rank, bias=False)
        self.up = nn.Linear(rank, 6 * width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, shared_SBV: Tensor, embedded_SBK: Tensor) -> tuple[Modulation, Modulation]:
        """Modulations of the attention and of SwiGLU, each (S, B, W)."""
        chunks = (shared_SBV + self.up(self.down(embedded_SBK))).chunk(6, dim=-1)
        return Modulation(*chunks[:3]), Modulation(*chunks[3:])


class BarBlock(nn.Module):
    """Attention between positions, to conditions if there are any, and SwiGLU; residual.

    Parameters
    ----------
    width, heads
        W and H.
    modulated
        Whether `forward` is given modulations of each bar in place of learned norms.
    asks
        Whether it attends to a context of conditions.
    """

    def __init__(
        self, width: int, heads: int, *, modulated: bool = False, asks: bool = False
    ) -> None:
        super().__init__()
        self.attend = BarAttention(width, heads)
        self.swiglu = SwiGLU(width, 8 * width // 3 // 8 * 8)
        self.norm_attend = None if modulated else RMSNorm(width)
        self.norm_swiglu = None if modulated else RMSNorm(width)
        self.ask = Attention(width, heads, width) if asks else None
        self.norm_ask = RMSNorm(width) if asks else None

    def forward(
        self, x_STW: Tensor, view: View, modulations: tuple[Modulation, Modulation] | None = None,
        context_SJW: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Same shape out."""
        if modulations is not None:
            first, second = modulations
            h_STW = modulate(x_STW, first.scale_BLW, first.shift_BLW)
            x_STW = gate_residual(x_STW, self.attend(h_STW, view), first.gate_BLW)
            h_STW = modulate(x_STW, second.scale_BLW, second.shift_BLW)
            return gate_residual(x_STW, self.swiglu(h_STW), second.gate_BLW)
        assert self.norm_attend is not None
        assert self.norm_swiglu is not None
        x_STW = x_STW + self.attend(self.norm_attend(x_STW), view)
        if self.ask is not None and self.norm_ask is not None:
            x_STW = x_STW + self.ask(self.norm_ask(x_STW), context_SJW, view.own_1TJ)
        out_STW: Tensor = x_STW + self.swiglu(self.norm_swiglu(x_STW))
        return out_STW
