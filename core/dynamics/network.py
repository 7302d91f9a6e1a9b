"""The network: a diffusion transformer over bars, each at its own noise level.

DiT (Peebles and Xie 2023) with Diffusion Forcing (Chen et al., NeurIPS 2024): every bar has its own
t, from 0 (the bar itself) to 1 (noise). What is kept, what is written, and in what order, is a
matter of these levels alone. Attention runs both ways between bars, or block-causally: one network
is trained for both. Each bar is also shown the average bar of its song, position by position: a
window sees few bars, and actions may be relative to all.

Letters: S sequences, B bars, L tokens of a bar, D dims of a token, A numbers of an action, P
patches of a bar, T = B * P positions, W width, K width of a bar's embedded conditions, N bars of a
corpus.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.core.dynamics.blocks import BarBlock, LowRankModulation, make_view
from mgen.core.dynamics.config import DynamicsConfig
from mgen.core.layers import RMSNorm, TimeEmbedding, sinusoids
from mgen.kernels.adaln import modulate

_KINDS = 3
"""Conditions of a bar: noise level, tempo, action."""
_BPM_WAVES = 32
_BPM_TURNS = 8.0
"""Radians that the fastest wave turns in a standard deviation of log tempo."""


class Condition(NamedTuple):
    """What is known of bars beside their latents.

    Attributes
    ----------
    bpm_SB
        Tempo; any number where it is not known.
    action_SBA
        Embedded actions, as the LAM gives them; any numbers where not known.
    knows_bpm_SB, knows_action_SB
        False where the network is told nothing (a learned null).
    usual_SLD
        The average bar of each sequence's song, which actions may be relative to; where it is not
        known that of all music, the network's `mean_D`; None: known of none.
    """

    bpm_SB: Tensor
    action_SBA: Tensor
    knows_bpm_SB: Tensor
    knows_action_SB: Tensor
    usual_SLD: Tensor | None = None

    def forgotten(self) -> Condition:
        """The same, with no tempo and no action known."""
        nothing_SB = torch.zeros_like(self.knows_bpm_SB)
        return self._replace(knows_bpm_SB=nothing_SB, knows_action_SB=nothing_SB)

    def and_then(self, other: Condition) -> Condition:
        """Of these sequences, and those."""
        usual_SLD = None
        if self.usual_SLD is not None and other.usual_SLD is not None:
            usual_SLD = torch.cat([self.usual_SLD, other.usual_SLD])
        return Condition(
            torch.cat([self.bpm_SB, other.bpm_SB]),
            torch.cat([self.action_SBA, other.action_SBA]),
            torch.cat([self.knows_bpm_SB, other.knows_bpm_SB]),
            torch.cat([self.knows_action_SB, other.knows_action_SB]),
            usual_SLD,
        )


class DynamicsNetwork(nn.Module):
    """Noisy bars, their noise levels and conditions -> velocity or clean bars.

    Latents go through `to_flow` first: what the flow sees has mean 0 and variance 1.
    """

    mean_D: Tensor
    scale: Tensor
    bpm_mean_scale: Tensor
    action_mean_A: Tensor
    action_scale: Tensor

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        width, adaln = config.width, config.condition == "adaln"
        asks = config.condition == "cross-attention"
        embedding = config.embedding if adaln else width
        self.register_buffer("mean_D", torch.zeros(config.dims))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("bpm_mean_scale", torch.tensor([4.8, 0.3]))
        self.register_buffer("action_mean_A", torch.zeros(config.action))
        self.register_buffer("action_scale", torch.ones(()))
        values = config.patch * config.dims
        self.enter = nn.Linear(values, width)
        self.show = nn.Linear(values, width, bias=False)
        nn.init.zeros_(self.show.weight)
        self.time = TimeEmbedding(embedding)
        self.bpm = nn.Linear(_BPM_WAVES, embedding)
        self.action = nn.Linear(config.action, embedding)
        self.null_bpm = nn.Parameter(0.02 * torch.randn(embedding))
        self.null_action = nn.Parameter(0.02 * torch.randn(embedding))
        self.blocks = nn.ModuleList(
            BarBlock(width, config.heads, modulated=adaln, asks=asks) for _ in range(config.depth)
        )
        if adaln:
            self.mix = nn.Linear(embedding, embedding)
            self.shared = nn.Linear(embedding, 8 * width)  # a block's six, the last layer's two
            nn.init.zeros_(self.shared.weight)
            nn.init.zeros_(self.shared.bias)
            self.own = nn.ModuleList(
                LowRankModulation(embedding, width, config.rank) for _ in range(config.depth)
            )
        else:
            self.last = RMSNorm(width)
        self.leave = nn.Linear(width, values)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    # what is measured once

    @torch.no_grad()
    def calibrate(self, z_NLD: Tensor, bpm_N: Tensor, action_NA: Tensor) -> None:
        """Take mean and scale of latents, log tempo and actions from data."""
        z_XD = z_NLD.float().flatten(0, 1)
        self.mean_D.copy_(z_XD.mean(0))
        self.scale.copy_(_spread(z_XD - self.mean_D))
        log_N = bpm_N[torch.isfinite(bpm_N) & (bpm_N > 0)].float().log()
        if len(log_N):
            mean = log_N.mean()
            self.bpm_mean_scale.copy_(torch.stack([mean, _spread(log_N - mean)]))
        self.action_mean_A.copy_(action_NA.float().mean(0))
        self.action_scale.copy_(_spread(action_NA.float() - self.action_mean_A))

    def to_flow(self, z_SBLD: Tensor) -> Tensor:
        """Latents in the space of the flow, float32."""
        return (z_SBLD.float() - self.mean_D) / self.scale

    def from_flow(self, x_SBLD: Tensor) -> Tensor:
        """Latents of what the flow made, float32."""
        return x_SBLD.float() * self.scale + self.mean_D

    # the network

    def forward(
        self, x_SBLD: Tensor, t_SB: Tensor, condition: Condition, causal: bool | Tensor = False
    ) -> Tensor:
        """Velocity or clean bars, as the config's `prediction` says.

        Parameters
        ----------
        x_SBLD
            Noisy bars in the space of the flow (S, B, L, D).
        t_SB
            Their noise levels, 0..1.
        condition
            Tempo and actions.
        causal
            Whether a bar sees itself and earlier bars only; a bool tensor (S,) says it of each
            sequence.

        Returns
        -------
        Tensor
            (S, B, L, D).
        """
        c, (_, bars) = self.config, t_SB.shape
        embedded_SBCK = self._embed(t_SB, condition)
        h_SBPW = self.enter(x_SBLD.reshape(*t_SB.shape, c.patches, c.patch * c.dims))
        if condition.usual_SLD is not None:
            usual_SLD = self.to_flow(condition.usual_SLD)
            h_SBPW = h_SBPW + self.show(usual_SLD.reshape(-1, 1, c.patches, c.patch * c.dims))
        asks = _KINDS if c.condition == "cross-attention" else 0
        if c.condition == "concatenation":
            h_SBPW = torch.cat([h_SBPW, embedded_SBCK.to(h_SBPW)], dim=2)
        block = h_SBPW.shape[2]
        view = make_view(bars, block, c.width // c.heads, causal, asks=asks, device=x_SBLD.device)
        h_STW = h_SBPW.flatten(1, 2)
        if c.condition == "adaln":
            h_STW = self._modulated(h_STW, embedded_SBCK, view)
        else:
            context_SJW = embedded_SBCK.flatten(1, 2) if asks else None
            for one in self.blocks:
                h_STW = one(h_STW, view, None, context_SJW)
            h_STW = self.last(h_STW)
        h_SBPW = h_STW.unflatten(1, (bars, block))[:, :, : c.patches]
        out: Tensor = self.leave(h_SBPW).reshape(x_SBLD.shape)
        return out

    def _modulated(self, h_STW: Tensor, embedded_SBCK: Tensor, view: object) -> Tensor:
        embedded_SBK = F.silu(self.mix(F.silu(embedded_SBCK.sum(2))))
        shared_SBV = self.shared(embedded_SBK)
        six = 6 * self.config.width
        for one, own in zip(self.blocks, self.own, strict=True):
            h_STW = one(h_STW, view, own(shared_SBV[..., :six], embedded_SBK))
        scale_SBW, shift_SBW = shared_SBV[..., six:].chunk(2, dim=-1)
        return modulate(h_STW, scale_SBW, shift_SBW)

    def _embed(self, t_SB: Tensor, condition: Condition) -> Tensor:
        """Noise level, tempo and action of each bar, embedded: (S, B, 3, K)."""
        time_SBK = self.time(t_SB.flatten()).unflatten(0, t_SB.shape)
        mean, scale = self.bpm_mean_scale
        knows_bpm_SB1 = condition.knows_bpm_SB[..., None]
        log_SB = torch.where(condition.knows_bpm_SB, condition.bpm_SB, 1.0).float().log()
        waves = sinusoids(_BPM_TURNS * (log_SB - mean) / scale, _BPM_WAVES, 10.0)
        bpm_SBK = torch.where(knows_bpm_SB1, self.bpm(waves), self.null_bpm)
        knows_SB1 = condition.knows_action_SB[..., None]
        told_SBA = torch.where(knows_SB1, condition.action_SBA.float(), self.action_mean_A)
        action_SBK = self.action((told_SBA - self.action_mean_A) / self.action_scale)
        action_SBK = torch.where(knows_SB1, action_SBK, self.null_action)
        return torch.stack([time_SBK, bpm_SBK.to(time_SBK), action_SBK.to(time_SBK)], dim=2)


def _spread(x: Tensor) -> Tensor:
    """Root mean square, 1 where it is 0."""
    rms = x.square().mean().sqrt()
    return torch.where(rms > 0, rms, torch.ones_like(rms))
