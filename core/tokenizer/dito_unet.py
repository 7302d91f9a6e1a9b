"""Architecture `dito-unet`: the seed's tokenizer, flow matching on samples by a UNet.

DiTo (Chen et al. 2025, "Diffusion autoencoders are scalable image tokenizers") for sound: an
encoder of DC-AE down blocks gives latents, and a UNet with one skip a scale (the last layer before
each downsampling, given to all layers of that scale on the way up) predicts the velocity. Latents
and time reach it as the modulation of every block, computed at the rate of the latents.

Letters: B items, C channels, N samples, L tokens, D dims, T positions of a scale, W its width,
K width of the condition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from mgen.core.layers import (
    AdaLNZero,
    ConvNeXtBlock,
    DownBlock,
    TimeConv,
    TimeEmbedding,
    UpBlock,
    normalise_tokens,
)
from mgen.core.tokenizer.config import TokenizerConfig, refuse_lengths

SEED_RATIOS = (8, 4, 4, 2, 2)
"""The seed's, for 512 samples a token: much at first, little where a position holds much."""
LEVEL = 0.2
"""Usual RMS of music: samples are divided by it, so that signal and noise are of one size."""
_EDGE_KERNEL = 7


def ratios(hop: int) -> tuple[int, ...]:
    """Factors whose product is `hop`, one a scale: in proportion as near the seed's as they come.

    What has a large prime factor gets a large ratio: rates and token rates with small ones are
    better.
    """
    share = (hop / math.prod(SEED_RATIOS)) ** (1.0 / len(SEED_RATIOS))

    def strangeness(found: tuple[int, ...]) -> float:
        pairs = zip(found, SEED_RATIOS, strict=True)
        return sum(math.log(ratio / (share * seed)) ** 2 for ratio, seed in pairs)

    found = _factorings(hop, len(SEED_RATIOS))
    # steepest first where two are as near
    return min(found, key=lambda f: (round(strangeness(f), 9), [-ratio for ratio in f]))


def _factorings(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (number,)
        return
    for first in (d for d in range(1, number + 1) if number % d == 0):
        for rest in _factorings(number // first, parts - 1):
            yield (first, *rest)


class Encoder(nn.Module):
    """Samples (B, C, N) -> tokens (B, N / hop, D), before their norm."""

    def __init__(
        self, channels: int, widths: Sequence[int], factors: Sequence[int], blocks: int, dims: int
    ) -> None:
        super().__init__()
        self.enter = TimeConv(channels, widths[0], _EDGE_KERNEL)
        layers: list[nn.Module] = []
        for width, after, factor in zip(widths, (*widths[1:], widths[-1]), factors, strict=True):
            layers += [ConvNeXtBlock(width) for _ in range(blocks)]
            layers.append(DownBlock(width, after, factor))
        layers += [ConvNeXtBlock(widths[-1]) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1])
        self.leave = nn.Linear(widths[-1], dims)

    def forward(self, x_BCN: Tensor) -> Tensor:
        """Tokens (B, L, D)."""
        x_BTW = self.layers(self.enter(x_BCN.transpose(1, 2)))
        z_BLD: Tensor = self.leave(self.norm(x_BTW))
        return z_BLD


class UNetBlock(nn.Module):
    """A ConvNeXt block under AdaLN-Zero, with or without its scale's skip.

    Parameters
    ----------
    width, condition
        W and K.
    skip
        Whether `forward` is given a skip, which is projected and added first.
    """

    def __init__(self, width: int, condition: int, *, skip: bool = False) -> None:
        super().__init__()
        self.merge = nn.Linear(width, width) if skip else None
        self.adaln = AdaLNZero(condition, width)
        self.block = ConvNeXtBlock(width, modulated=True)

    def forward(
        self, x_BTW: Tensor, condition_BLK: Tensor, skip_BTW: Tensor | None = None
    ) -> Tensor:
        """Same shape out; T is a multiple of L."""
        if self.merge is not None:
            assert skip_BTW is not None
            x_BTW = x_BTW + self.merge(skip_BTW)
        out_BTW: Tensor = self.block(x_BTW, *self.adaln(condition_BLK))
        return out_BTW


class UNet(nn.Module):
    """Noisy samples (B, C, N) and a condition (B, L, K) -> (B, C, N), zero at the start.

    Parameters
    ----------
    channels
        C.
    widths, factors
        Of each scale; what brings it to the next.
    blocks
        Of each scale on the way down, as many on the way up, and between the two.
    condition
        K.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], factors: Sequence[int], blocks: int,
        condition: int,
    ) -> None:  # fmt: skip
        super().__init__()

        def stack(width: int, skip: bool = False) -> nn.ModuleList:
            return nn.ModuleList(UNetBlock(width, condition, skip=skip) for _ in range(blocks))

        scales = list(zip(widths, (*widths[1:], widths[-1]), factors, strict=True))
        self.enter = TimeConv(channels, widths[0], _EDGE_KERNEL)
        self.before = nn.ModuleList(stack(width) for width in widths)
        self.down = nn.ModuleList(DownBlock(width, below, f) for width, below, f in scales)
        self.middle = stack(widths[-1])
        self.up = nn.ModuleList(UpBlock(below, width, f) for width, below, f in scales)
        self.after = nn.ModuleList(stack(width, skip=True) for width in widths)
        self.norm = nn.LayerNorm(widths[0])
        self.leave = TimeConv(widths[0], channels, _EDGE_KERNEL)
        nn.init.zeros_(self.leave.conv.weight)
        assert self.leave.conv.bias is not None
        nn.init.zeros_(self.leave.conv.bias)

    def forward(self, x_BCN: Tensor, condition_BLK: Tensor) -> Tensor:
        """Same shape as x; N is a multiple of L times the product of the factors."""
        x_BTW = self.enter(x_BCN.transpose(1, 2))
        skips: list[Tensor] = []
        for blocks, down in zip(self.before, self.down, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x_BTW = block(x_BTW, condition_BLK)
            skips.append(x_BTW)
            x_BTW = down(x_BTW)
        for block in self.middle:
            x_BTW = block(x_BTW, condition_BLK)
        for i in reversed(range(len(skips))):
            x_BTW = self.up[i](x_BTW)
            for block in self.after[i]:  # type: ignore[attr-defined]
                x_BTW = block(x_BTW, condition_BLK, skips[i])
        out_BCN: Tensor = self.leave(self.norm(x_BTW)).transpose(1, 2)
        return out_BCN


class DitoUNet(nn.Module):
    """Encoder and UNet; the interface of every architecture. The condition is (B, L, K)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        widths, factors = config.widths("channels"), ratios(config.hop)
        condition = widths[-1]
        self.encoder = Encoder(
            config.channels, widths, factors, config.width("encoder_blocks"), config.dims
        )
        self.from_tokens = nn.Linear(config.dims, condition)
        self.time = TimeEmbedding(condition)
        self.unet = UNet(config.channels, widths, factors, config.width("blocks"), condition)

    def decoder_modules(self) -> list[nn.Module]:
        """None: the latents are learned through the decoder."""
        return []

    def calibrate(self, samples_BCN: Tensor) -> None:
        """Takes nothing from data."""

    def encode(self, samples_BCN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Latents (B, L, D), each token with zero mean and unit variance.

        Raises
        ------
        ValueError
            If N is no multiple of a token, or lengths are given.
        """
        refuse_lengths(lengths_B)
        if samples_BCN.shape[-1] < 1 or samples_BCN.shape[-1] % self.config.hop:
            raise ValueError(f"{samples_BCN.shape[-1]} samples are no multiple of a token's, "
                             f"{self.config.hop}")  # fmt: skip
        return normalise_tokens(self.encoder(samples_BCN / LEVEL))

    def condition(self, z_BLD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Projected latents (B, L, K)."""
        refuse_lengths(lengths_B)
        condition_BLK: Tensor = self.from_tokens(z_BLD)
        return condition_BLK

    def flow_shape(self, n_samples: int) -> tuple[int, ...]:
        """Of one item: (C, N)."""
        return self.config.channels, n_samples

    def to_flow(self, samples_BCN: Tensor, condition_BLK: Tensor) -> Tensor:
        """Samples at the level of noise."""
        return samples_BCN / LEVEL

    def from_flow(self, x_BCN: Tensor, condition_BLK: Tensor, n_samples: int) -> Tensor:
        """Samples (B, C, N)."""
        return x_BCN[..., :n_samples].float() * LEVEL

    def finish(self, samples_BCN: Tensor, condition: object) -> Tensor:
        """As it is."""
        return samples_BCN

    def band_levels(self, condition: object) -> None:
        """Nothing: what a sound is like is known by sampling alone."""

    def predict(self, x_BCN: Tensor, t_B: Tensor, condition_BLK: Tensor) -> Tensor:
        """Velocity, or the clean signal where the config says so."""
        out_BCN: Tensor = self.unet(x_BCN, condition_BLK + self.time(t_B)[:, None])
        return out_BCN

    def extra_losses(self, condition_BLK: Tensor, samples_BCN: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}
