"""Architecture `perceiver`: bars of their own lengths to a fixed number of latents, and back.

No time-warp: learned queries read patches of samples (Perceiver, Jaegle et al., ICML 2021), asking
them in every block, and a flow decoder writes patches that ask the latents. Patches beyond an
item's length are masked everywhere. The decoder gives the clean patches, not the velocity: it is
hardly wider than a patch, and what it gives need not carry the noise through (Li and He 2025,
"Back to basics").

Letters: B items, C channels, N samples, L tokens, D dims, P patches, G = C * samples of a patch,
W width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.core.layers import (
    AdaLNZero,
    RMSNorm,
    TimeEmbedding,
    TransformerBlock,
    normalise_tokens,
    sinusoids,
)
from mgen.core.tokenizer.config import TokenizerConfig

LEVEL = 0.2
"""Usual RMS of music: samples are divided by it, so that signal and noise are of one size."""
_PARTS = 1000.0
"""A position in the item is told in thousandths of its length."""


class Condition(NamedTuple):
    """What latents and lengths determine: `context_BLW`, and `lengths_B` (None: whole patches)."""

    context_BLW: Tensor
    lengths_B: Tensor | None


class Perceiver(nn.Module):
    """Perceiver encoder and flow decoder on patches; the interface of every architecture."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = config.width("patch")
        width, heads = config.width("hidden"), config.width("heads")
        values = config.channels * self.patch
        self.read = nn.Linear(values, width)
        self.queries = nn.Parameter(torch.randn(config.tokens, width) * 0.5)
        self.encoder = nn.ModuleList(
            TransformerBlock(width, heads, context=width)
            for _ in range(config.width("encoder_depth"))
        )
        self.norm = RMSNorm(width)
        self.to_tokens = nn.Linear(width, config.dims)
        self.from_tokens = nn.Linear(config.dims, width)
        self.places = nn.Parameter(torch.randn(config.tokens, width) * 0.5)
        self.enter = nn.Linear(values, width)
        self.time = TimeEmbedding(width)
        depth = config.width("decoder_depth")
        self.modulate = nn.ModuleList(AdaLNZero(width, width, parts=2) for _ in range(depth))
        self.decoder = nn.ModuleList(
            TransformerBlock(width, heads, context=width, modulated=True) for _ in range(depth)
        )
        self.last = RMSNorm(width)
        self.leave = nn.Linear(width, values)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    # latents

    def decoder_modules(self) -> list[nn.Module]:
        """None: the latents are learned through the decoder."""
        return []

    def calibrate(self, samples_BCN: Tensor) -> None:
        """Takes nothing from data."""

    def encode(self, samples_BCN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Latents (B, L, D), each token with zero mean and unit variance.

        Parameters
        ----------
        samples_BCN
            Items (B, C, N), any N.
        lengths_B
            Samples of each item that are real; what follows them changes nothing.

        Raises
        ------
        ValueError
            If a length is not in 1..N.
        """
        n = samples_BCN.shape[-1]
        if lengths_B is None:
            lengths_B = torch.full((len(samples_BCN),), n)
        if n < 1 or lengths_B.min() < 1 or lengths_B.max() > n:
            raise ValueError(f"lengths of items must lie in 1 to {n} samples")
        lengths_B = lengths_B.to(samples_BCN.device)
        patches_BPG = self._cut(samples_BCN / LEVEL, lengths_B)
        n_patches = patches_BPG.shape[1]
        x_BPW = self.read(patches_BPG) + self._positions(n_patches, lengths_B)
        mask_BP = self._real_patches(n_patches, lengths_B)
        z_BLW = self.queries.expand(len(samples_BCN), -1, -1)
        for block in self.encoder:
            z_BLW = block(z_BLW, context_BSW=x_BPW, context_mask=mask_BP)
        return normalise_tokens(self.to_tokens(self.norm(z_BLW)))

    def condition(self, z_BLD: Tensor, lengths_B: Tensor | None = None) -> Condition:
        """Projected latents, and how long the items are to become (None: all of N)."""
        if lengths_B is not None:
            lengths_B = lengths_B.to(z_BLD.device)
        return Condition(self.from_tokens(z_BLD) + self.places, lengths_B)

    # the space of the flow

    def flow_shape(self, n_samples: int) -> tuple[int, ...]:
        """Of one item: (P, G)."""
        return -(-n_samples // self.patch), self.config.channels * self.patch

    def to_flow(self, samples_BCN: Tensor, condition: Condition) -> Tensor:
        """Patches (B, P, G) at the level of noise, zero beyond the items' lengths."""
        return self._cut(samples_BCN / LEVEL, condition.lengths_B)

    def from_flow(self, x_BPG: Tensor, condition: Condition, n_samples: int) -> Tensor:
        """Samples (B, C, N), zero beyond the items' lengths."""
        x_BPG = self._mask(x_BPG.float(), condition.lengths_B)
        samples_BCN = x_BPG.unflatten(2, (-1, self.patch)).transpose(1, 2).flatten(2)
        return samples_BCN[..., :n_samples] * LEVEL

    def finish(self, samples_BCN: Tensor, condition: object) -> Tensor:
        """As it is."""
        return samples_BCN

    def band_levels(self, condition: object) -> None:
        """Nothing: what a sound is like is known by sampling alone."""

    def predict(self, x_BPG: Tensor, t_B: Tensor, condition: Condition) -> Tensor:
        """Clean patches (or velocity, if the config says so), zero beyond the items' lengths."""
        context_BLW, lengths_B = condition
        n_patches = x_BPG.shape[1]
        x_BPG = self._mask(x_BPG, lengths_B)
        all_B = torch.full((len(x_BPG),), n_patches * self.patch, device=x_BPG.device)
        positions_BPW = self._positions(n_patches, all_B if lengths_B is None else lengths_B)
        mask_BP = None if lengths_B is None else self._real_patches(n_patches, lengths_B)
        time_B1W = self.time(t_B)[:, None]
        h_BPW = self.enter(x_BPG) + positions_BPW
        for block, modulate in zip(self.decoder, self.modulate, strict=True):
            h_BPW = block(
                h_BPW, modulate(time_B1W), mask=mask_BP, context_BSW=context_BLW
            )  # fmt: skip
        return self._mask(self.leave(self.last(h_BPW)), lengths_B)

    def extra_losses(self, condition: Condition, samples_BCN: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}

    # patches

    def _cut(self, samples_BCN: Tensor, lengths_B: Tensor | None) -> Tensor:
        """Patches (B, P, G) of samples, channel by channel, filled up with zeros."""
        missing = -samples_BCN.shape[-1] % self.patch
        patches_BCPG = F.pad(samples_BCN, (0, missing)).unflatten(2, (-1, self.patch))
        return self._mask(patches_BCPG.transpose(1, 2).flatten(2), lengths_B)

    def _mask(self, x_BPG: Tensor, lengths_B: Tensor | None) -> Tensor:
        if lengths_B is None:
            return x_BPG
        sample_PG = torch.arange(x_BPG.shape[1] * self.patch, device=x_BPG.device)
        real_BPG = (sample_PG < lengths_B[:, None]).unflatten(1, (-1, self.patch))
        return torch.where(real_BPG.repeat(1, 1, self.config.channels), x_BPG, 0.0)

    def _real_patches(self, n_patches: int, lengths_B: Tensor) -> Tensor:
        first_P = torch.arange(n_patches, device=lengths_B.device) * self.patch
        return first_P < lengths_B[:, None]

    def _positions(self, n_patches: int, lengths_B: Tensor) -> Tensor:
        """Where patches lie, in patches and as a part of the item (B, P, W)."""
        half = self.config.width("hidden") // 2
        index_P = torch.arange(n_patches, device=lengths_B.device, dtype=torch.float32)
        part_BP = _PARTS * self.patch * index_P / lengths_B[:, None]
        index_BPW = sinusoids(index_P, half).expand(len(lengths_B), -1, -1)
        return torch.cat([index_BPW, sinusoids(part_BP, half)], dim=-1)
