"""The network of a latent action model: bars to actions, and a decoder that keeps them honest.

The encoder attends within each bar first, then causally across bars (LAPA, Ye et al., ICLR 2025,
section 3.1). What a step is made of is the difference between a bar and the one before; a style is
made of a bar alone, without any history: of all that the bar is, or (relative styles) of what is
left of it without what is usual in its song (`mgen.core.lam.usual`), which encoder and decoder then
have in place of the bar. A style of all that a bar is tells its song, above all; what a song is
like is known to whoever edits it, and need not be told. The decoder is a small diffusion
transformer that writes each bar from noise: it is told the action by AdaLN and sees the *first* bar
of the sequence only (styles: none), so that what a bar is has to pass through the action.

Bars that share an action are one *unit* here; T counts the positions of a unit.

Letters: S sequences, B bars, L tokens of a bar, U units, T positions of a unit, D dims of a token,
F features of a token that the encoder reads, P = patch * D numbers of a position, W width,
A width of an embedding, K width of a condition.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.core.lam.config import LamConfig
from mgen.core.layers import AdaLNZero, RMSNorm, TimeEmbedding, TransformerBlock
from mgen.core.quantizers import (
    FSQ,
    VQ,
    Bottleneck,
    Payload,
    Quantized,
    ResidualFSQ,
    StyleActions,
)
from mgen.core.train_loop import Draw


class ActionNetwork(nn.Module):
    """Encoder, bottleneck and decoder."""

    def __init__(self, config: LamConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.sizes
        self.register_buffer("feature_mean", torch.zeros(config.features))
        self.register_buffer("feature_std", torch.ones(config.features))
        self.read = nn.Linear(sizes.patch * config.features, sizes.width)
        blocks = [
            TransformerBlock(sizes.width, sizes.heads, hidden=sizes.hidden)
            for _ in range(sizes.spatial + (sizes.temporal if config.steps else 0))
        ]
        self.spatial = nn.ModuleList(blocks[: sizes.spatial])
        self.temporal = nn.ModuleList(blocks[sizes.spatial :])
        self.norm = RMSNorm(sizes.width)
        if config.steps:
            self.null_bar = nn.Parameter(torch.randn(sizes.width) * 0.1)
        self.bottleneck = make_bottleneck(config)
        self.mapping = ActionMapping(sizes.embedding) if config.mapping else None
        self.decoder = BarDecoder(config)

    feature_mean: Tensor
    feature_std: Tensor

    @torch.no_grad()
    def calibrate(self, features_SBLF: Tensor) -> None:
        """Take mean and spread of each feature from data, before training."""
        flat_XF = features_SBLF.flatten(0, -2).float()
        self.feature_mean.copy_(flat_XF.mean(0))
        self.feature_std.copy_(flat_XF.std(0).clamp(min=1e-3))

    def units(self, x_SBLX: Tensor) -> Tensor:
        """Bars (S, B, L, X) -> units (S, U, T, patch * X); B is a multiple of a unit's bars."""
        x_SULX = x_SBLX.unflatten(1, (-1, self.config.bars_per_action)).flatten(2, 3)
        return x_SULX.unflatten(2, (-1, self.config.sizes.patch)).flatten(3, 4)

    def encode(self, features_SBLF: Tensor) -> Tensor:
        """Vectors of the positions of each unit (S, U, T, W); a unit sees itself and earlier ones,
        a style itself alone.
        """
        x_SBLF = (features_SBLF - self.feature_mean) / self.feature_std
        x_SUTW = self.read(self.units(x_SBLF))
        n_sequences, n_units, n_positions = x_SUTW.shape[:3]
        h_XTW = x_SUTW.flatten(0, 1)
        for block in self.spatial:
            h_XTW = block(h_XTW)
        if not self.temporal:
            return h_XTW.unflatten(0, (n_sequences, n_units))
        h_XUW = h_XTW.unflatten(0, (n_sequences, n_units)).transpose(1, 2).flatten(0, 1)
        causal_1UU = torch.ones(1, n_units, n_units, dtype=torch.bool, device=h_XUW.device).tril()
        for block in self.temporal:
            h_XUW = block(h_XUW, mask=causal_1UU)
        return h_XUW.unflatten(0, (n_sequences, n_positions)).transpose(1, 2)

    def infer(self, features_SBLF: Tensor, draw: Draw | None = None) -> Quantized:
        """The action of each unit; `draw` where it is trained.

        Parameters
        ----------
        features_SBLF
            Latents (S, B, L, D) or log-mel (S, B, L, 80), as the config's `input` says; of
            relative styles what is left of them.
        draw
            Randomness of a training step.
        """
        h_SUTW = self.norm(self.encode(features_SBLF))
        if isinstance(self.bottleneck, StyleActions):
            return self.bottleneck(h_SUTW, draw)
        pooled_SUW = h_SUTW.mean(2)
        first_S1W = self.null_bar.to(pooled_SUW).expand(len(pooled_SUW), 1, -1)
        before_SUW = torch.cat([first_S1W, pooled_SUW[:, :-1]], dim=1)
        return self.bottleneck(pooled_SUW - before_SUW, draw)

    def embed(self, payload: Payload) -> Tensor:
        """Embeddings (..., A) of payloads: set A, that of the palette."""
        return self.bottleneck.embed(payload)

    def inform(self, embedding: Tensor) -> Tensor:
        """Set A -> set B', what the decoder (and the dynamics model) is told: same shape."""
        return embedding if self.mapping is None else self.mapping(embedding)


def make_bottleneck(config: LamConfig) -> Bottleneck:
    """The bottleneck that a config names, untrained."""
    width, embedding = config.sizes.width, config.sizes.embedding
    if config.bottleneck == "vq":
        return VQ(width, embedding, actions=config.actions, reset_until=config.reset_until)
    if config.bottleneck == "fsq":
        return FSQ(width, embedding, levels=config.levels)
    if config.bottleneck == "residual-fsq":
        return ResidualFSQ(
            width, embedding, levels=config.levels, quantizers=config.quantizers,
            dropout=config.dropout,
        )  # fmt: skip
    return StyleActions(
        width, embedding, actions=config.actions, top_k=config.top_k, warmup=config.warmup,
        sparse_at=config.sparse_at, one_hot=config.one_hot, reset_until=config.reset_until,
    )  # fmt: skip


class ActionMapping(nn.Module):
    """A residual MLP from the actions that people see to those that are most told; identity at
    the start.
    """

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.norm = RMSNorm(embedding)
        self.widen = nn.Linear(embedding, 2 * embedding)
        self.narrow = nn.Linear(2 * embedding, embedding)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x_XA: Tensor) -> Tensor:
        """Same shape out."""
        out_XA: Tensor = self.narrow(F.silu(self.widen(self.norm(x_XA))))
        return x_XA + out_XA


class BarDecoder(nn.Module):
    """Velocity of noisy units, told their actions and shown the first unit of the sequence.

    Steps also tell the sum of all steps since the first unit: where they have led.
    """

    def __init__(self, config: LamConfig) -> None:
        super().__init__()
        self.steps = config.steps
        sizes = config.sizes
        numbers, width = sizes.patch * config.dims, sizes.width
        self.time = TimeEmbedding(sizes.condition)
        self.told = nn.Linear(sizes.embedding, sizes.condition)
        self.enter = nn.Linear(numbers, width)
        if config.steps:
            self.show = nn.Linear(numbers, width)
            self.led = nn.Linear(sizes.embedding, sizes.condition)
            self.nothing = nn.Parameter(torch.randn(width) * 0.1)
        self.modulate = nn.ModuleList(
            AdaLNZero(sizes.condition, width, parts=2) for _ in range(sizes.decoder)
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(width, sizes.heads, hidden=sizes.hidden, modulated=True)
            for _ in range(sizes.decoder)
        )
        self.last = RMSNorm(width)
        self.leave = nn.Linear(width, numbers)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x_SUTP: Tensor, t_SU: Tensor, embedding_SUA: Tensor, shown_STP: Tensor
    ) -> Tensor:
        """Velocity (S, U, T, P).

        Parameters
        ----------
        x_SUTP
            Noisy units.
        t_SU
            Their times, 0 (clean) to 1 (noise).
        embedding_SUA
            Their actions, as `ActionNetwork.inform` gives them.
        shown_STP
            The clean first unit of each sequence, which that unit itself does not see; styles see
            none.
        """
        n_units, n_positions = x_SUTP.shape[1:3]
        condition_SUK = self.time(t_SU.flatten()).unflatten(0, t_SU.shape)
        condition_SUK = condition_SUK + self.told(embedding_SUA)
        h_SUTW = self.enter(x_SUTP)
        if self.steps:
            # the first step leads to the first bar, which is shown: the way begins there
            since_SUA = embedding_SUA.cumsum(1) - embedding_SUA[:, :1]
            count_U11 = torch.arange(1, n_units + 1, device=x_SUTP.device)[:, None]
            condition_SUK = condition_SUK + self.led(since_SUA / count_U11.sqrt())
            shown_SUTW = self.show(shown_STP.detach())[:, None].expand_as(h_SUTW)
            is_first_U11 = torch.arange(n_units, device=x_SUTP.device)[:, None, None] == 0
            shown_SUTW = torch.where(is_first_U11, self.nothing.to(h_SUTW), shown_SUTW)
            h_SUTW = torch.cat([h_SUTW, shown_SUTW], dim=2)
        h_XTW, condition_X1K = h_SUTW.flatten(0, 1), condition_SUK.flatten(0, 1)[:, None]
        for block, modulate in zip(self.blocks, self.modulate, strict=True):
            h_XTW = block(h_XTW, modulate(condition_X1K))
        out_XTP: Tensor = self.leave(self.last(h_XTW[:, :n_positions]))
        return out_XTP.unflatten(0, (-1, n_units))
