"""What several models are built of: convolution and attention blocks, AdaLN-Zero, DC-AE shuffles.

All activations are channel-last (B, T, W), which is what LayerNorm and linear layers want; the
convolutions take them as they lie, as 2-D convolutions in the channels-last memory format.

A conditioned block gets its `Modulation` from outside, at the rate of the condition: L tokens for
T = L * r positions (see kernels.adaln). `AdaLNZero` makes it, and starts at zero, so that the
block starts as the identity.

Shapes: B batch, T positions, L tokens of a condition, S positions of a context, W width,
H heads, E width of a head, K width of a condition, f factor of a shuffle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.kernels.adaln import gate_residual, modulate
from mgen.kernels.depthwise import depthwise


class Modulation(NamedTuple):
    """What a condition does to a block: each (B, L, W), L a divisor of the block's positions."""

    scale_BLW: Tensor
    shift_BLW: Tensor
    gate_BLW: Tensor


class AdaLNZero(nn.Module):
    """Condition -> modulations, all zero at the start (Peebles and Xie 2023, section 3.2).

    Parameters
    ----------
    condition, width
        Widths of the condition and of the block that is modulated.
    parts
        How many modulations: one for each residual branch.
    """

    def __init__(self, condition: int, width: int, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.project = nn.Linear(condition, 3 * parts * width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, condition_BLK: Tensor) -> tuple[Modulation, ...]:
        """(B, L, K) -> `parts` modulations of (B, L, W)."""
        chunks = self.project(F.silu(condition_BLK)).chunk(3 * self.parts, dim=-1)
        return tuple(Modulation(*chunks[3 * i : 3 * i + 3]) for i in range(self.parts))


class TimeEmbedding(nn.Module):
    """Time of a flow -> vector: sinusoids, then two linear layers.

    Parameters
    ----------
    width
        Of the result.
    waves
        Sinusoids; even.
    """

    def __init__(self, width: int, waves: int = 256) -> None:
        super().__init__()
        self.waves = waves
        self.layers = nn.Sequential(nn.Linear(waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t_B: Tensor) -> Tensor:
        """Times 0..1 (B,) -> (B, width)."""
        embedded_BK: Tensor = self.layers(sinusoids(1000.0 * t_B, self.waves))
        return embedded_BK


def sinusoids(position: Tensor, waves: int, longest: float = 10_000.0) -> Tensor:
    """Cosines, then sines of a position (...,) at rates from 1 to 1 / longest: (..., waves).

    Vaswani et al. 2017, section 3.5; float32.
    """
    half = waves // 2
    steps = torch.arange(half, dtype=torch.float32, device=position.device) / half
    angles = position.float()[..., None] * torch.exp(-math.log(longest) * steps)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def normalise_tokens(z_BLD: Tensor) -> Tensor:
    """Each token to mean 0 and variance 1 over its dims, without learned scale; float32 (DiTo)."""
    return F.layer_norm(z_BLD.float(), (z_BLD.shape[-1],))


class TimeConv(nn.Module):
    """Convolution over T of (B, T, W), zeros beyond the ends, as many positions out as in.

    Parameters
    ----------
    width, out
        Channels in and out.
    kernel
        Positions that are seen; odd.
    """

    def __init__(self, width: int, out: int, kernel: int) -> None:
        super().__init__()
        assert kernel % 2, kernel
        self.conv = nn.Conv2d(width, out, (1, kernel), padding=(0, kernel // 2))

    def forward(self, x_BTW: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, out)."""
        out_BWT: Tensor = self.conv(x_BTW.transpose(1, 2)[:, :, None])[:, :, 0]
        return out_BWT.transpose(1, 2)


class DepthwiseConv(nn.Module):
    """The same with a kernel for each channel by itself (see kernels.depthwise)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(kernel)
        self.weight = nn.Parameter(torch.empty(width, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Same shape out."""
        return depthwise(x_BTW, self.weight, self.bias)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, wide GELU layer; residual (Liu et al., CVPR 2022).

    Parameters
    ----------
    width
        W.
    expand
        Of the hidden layer.
    kernel
        Positions that the convolution sees; odd.
    modulated
        Whether `forward` is given a modulation; otherwise norm and gain are learned.
    gain
        At which the learned gain starts.
    """

    def __init__(
        self, width: int, *, expand: int = 3, kernel: int = 7, modulated: bool = False,
        gain: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.spread = DepthwiseConv(width, kernel)
        self.norm = None if modulated else nn.LayerNorm(width, eps=1e-6)
        self.gain = None if modulated else nn.Parameter(torch.full((width,), gain))
        self.widen = nn.Linear(width, expand * width)
        self.narrow = nn.Linear(expand * width, width)

    def forward(self, x_BTW: Tensor, modulation: Modulation | None = None) -> Tensor:
        """Same shape out."""
        h_BTW = self.spread(x_BTW)
        if self.norm is not None and self.gain is not None:
            assert modulation is None
            return x_BTW + self.gain * self._hidden(self.norm(h_BTW))
        assert modulation is not None
        h_BTW = modulate(h_BTW, modulation.scale_BLW, modulation.shift_BLW)
        return gate_residual(x_BTW, self._hidden(h_BTW), modulation.gate_BLW)

    def _hidden(self, h_BTW: Tensor) -> Tensor:
        out_BTW: Tensor = self.narrow(F.gelu(self.widen(h_BTW)))
        return out_BTW


def unshuffle(x_BTW: Tensor, factor: int) -> Tensor:
    """Time into channels: (B, T, W) -> (B, T / f, W * f), channel outer, offset inner.

    Channel w * f + o holds channel w at offset o, so that neighbouring channels are neighbouring
    times and averaging them is averaging over time.
    """
    return x_BTW.unflatten(1, (-1, factor)).transpose(2, 3).flatten(2, 3)


def shuffle(x_BTW: Tensor, factor: int) -> Tensor:
    """Channels into time, the inverse of `unshuffle`: (B, T, W * f) -> (B, T * f, W)."""
    return x_BTW.unflatten(2, (-1, factor)).transpose(2, 3).flatten(1, 2)


def regroup(x_BTW: Tensor, width: int) -> Tensor:
    """Channels to another number without parameters: neighbours averaged, or each one repeated.

    Where neither number divides the other, the means are of overlapping neighbourhoods.
    """
    have = x_BTW.shape[-1]
    if have % width == 0:
        return x_BTW.unflatten(2, (width, -1)).mean(-1)
    if width % have == 0:
        return x_BTW.repeat_interleave(width // have, dim=2)
    return F.adaptive_avg_pool1d(x_BTW, width)


class DownBlock(nn.Module):
    """T -> T / f: unshuffle and convolve, plus a shortcut that averages neighbouring times.

    DC-AE (Chen et al., ICLR 2025, section 3.2): what moves information from time to channels has
    no parameters; the convolution learns the rest.
    """

    def __init__(self, width: int, out: int, factor: int, kernel: int = 3) -> None:
        super().__init__()
        self.out, self.factor = out, factor
        self.conv = TimeConv(width * factor, out, kernel)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """(B, T, W) -> (B, T / f, out); T is a multiple of f."""
        x_BTW = unshuffle(x_BTW, self.factor)
        return regroup(x_BTW, self.out) + self.conv(x_BTW)


class UpBlock(nn.Module):
    """T -> T * f: convolve and shuffle, plus a shortcut that repeats channels and shuffles them.

    DC-AE, as `DownBlock`; with as many channels out as in, the shortcut repeats every position.
    """

    def __init__(self, width: int, out: int, factor: int, kernel: int = 3) -> None:
        super().__init__()
        self.out, self.factor = out, factor
        self.conv = TimeConv(width, out * factor, kernel)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """(B, T, W) -> (B, T * f, out)."""
        shortcut = regroup(x_BTW, self.out * self.factor)
        return shuffle(shortcut + self.conv(x_BTW), self.factor)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm with a learned scale, computed in float32 (Zhang and Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        return super().forward(x.float())


class Attention(nn.Module):
    """Multi-head attention to itself or to a context, with normalised queries and keys.

    Rotary positions (Su et al. 2021) where it attends to itself; a context brings its own.

    Parameters
    ----------
    width, heads
        W, and how many heads it is cut into; W / heads is even.
    context
        Width of what is attended to; None for itself.
    """

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        assert width % (2 * heads) == 0, (width, heads)
        self.heads, self.rotary = heads, context is None
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(context or width, 2 * width, bias=False)
        self.norm_query = RMSNorm(width // heads)
        self.norm_key = RMSNorm(width // heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x_BTW: Tensor, context_BSW: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        x_BTW
            What asks (B, T, W).
        context_BSW
            What is asked (B, S, context); nothing where x attends to itself.
        mask
            True where a position may be seen, at least one from every position: (B, S), or
            (B or 1, T, S) where that depends on who asks (causality).

        Returns
        -------
        Tensor
            (B, T, W).
        """
        assert (context_BSW is None) == self.rotary
        source = x_BTW if context_BSW is None else context_BSW
        by_head = (self.heads, -1)
        query_BHTE = self.norm_query(self.query(x_BTW).unflatten(2, by_head)).transpose(1, 2)
        key, value = self.key_value(source).chunk(2, dim=-1)
        key_BHSE = self.norm_key(key.unflatten(2, by_head)).transpose(1, 2)
        value_BHSE = value.unflatten(2, by_head).transpose(1, 2)
        if self.rotary:
            query_BHTE, key_BHSE = rotate(query_BHTE), rotate(key_BHSE)
        if mask is not None:
            mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        seen_BHTE = F.scaled_dot_product_attention(
            query_BHTE.to(value), key_BHSE.to(value), value_BHSE, attn_mask=mask
        )
        out_BTW: Tensor = self.out(seen_BHTE.transpose(1, 2).flatten(2))
        return out_BTW


def rotate(x_BHTE: Tensor, longest: float = 10_000.0) -> Tensor:
    """Rotary positions: each head's halves turned by the position (Su et al. 2021, eq. 15)."""
    length, width = x_BHTE.shape[-2:]
    angles = torch.arange(length, device=x_BHTE.device)
    cos_TE, sin_TE = sinusoids(angles, width, longest).chunk(2, dim=-1)
    first, second = x_BHTE.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos_TE - second * sin_TE, second * cos_TE + first * sin_TE], dim=-1)
    return turned.to(x_BHTE.dtype)


class SwiGLU(nn.Module):
    """Gated hidden layer (Shazeer 2020): silu(a) * b, and back to the width."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 2 * hidden, bias=False)
        self.narrow = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Same shape out."""
        gate, value = self.widen(x_BTW).chunk(2, dim=-1)
        out_BTW: Tensor = self.narrow(F.silu(gate) * value)
        return out_BTW


class TransformerBlock(nn.Module):
    """Attention to itself, to a context if there is one, and SwiGLU; each a residual branch.

    Parameters
    ----------
    width, heads
        W, and its heads.
    context
        Width of a context to attend to between the two; None for none.
    hidden
        Of SwiGLU; by default as many weights as a layer of 4 W without a gate.
    modulated
        Whether `forward` is given modulations (of the attention to itself, and of SwiGLU: make
        them with `AdaLNZero(..., parts=2)`) in place of learned RMSNorms.
    """

    def __init__(
        self, width: int, heads: int, *, context: int | None = None, hidden: int | None = None,
        modulated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attend = Attention(width, heads)
        self.swiglu = SwiGLU(width, hidden or 8 * width // 3 // 8 * 8)
        self.norm_attend = None if modulated else RMSNorm(width)
        self.norm_swiglu = None if modulated else RMSNorm(width)
        self.ask = None if context is None else Attention(width, heads, context)
        self.norm_ask = None if context is None else RMSNorm(width)

    def forward(
        self,
        x_BTW: Tensor,
        modulations: tuple[Modulation, ...] = (),
        *,
        mask: Tensor | None = None,
        context_BSW: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Same shape out; masks are those of `Attention`, of x and of the context."""
        if self.norm_attend is not None and self.norm_swiglu is not None:
            x_BTW = x_BTW + self.attend(self.norm_attend(x_BTW), None, mask)
            x_BTW = self._ask(x_BTW, context_BSW, context_mask)
            return x_BTW + self.swiglu(self.norm_swiglu(x_BTW))
        first, second = modulations
        h_BTW = modulate(x_BTW, first.scale_BLW, first.shift_BLW)
        x_BTW = gate_residual(x_BTW, self.attend(h_BTW, None, mask), first.gate_BLW)
        x_BTW = self._ask(x_BTW, context_BSW, context_mask)
        h_BTW = modulate(x_BTW, second.scale_BLW, second.shift_BLW)
        return gate_residual(x_BTW, self.swiglu(h_BTW), second.gate_BLW)

    def _ask(self, x_BTW: Tensor, context_BSW: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.ask is None or self.norm_ask is None:
            return x_BTW
        asked: Tensor = self.ask(self.norm_ask(x_BTW), context_BSW, mask)
        return x_BTW + asked
