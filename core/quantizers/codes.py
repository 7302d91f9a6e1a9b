"""Codes: one of N learned ones (VQ), or one of a grid (FSQ, and several of them, residual).

Shapes: S items, U vectors of an item, T tokens that a vector is pooled of, W width, N actions,
A width of an embedding, D dims of a code, K numbers of a payload, Q quantizers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.core.layers import RMSNorm
from mgen.core.quantizers.dead_codes import Tended
from mgen.core.quantizers.payload import (
    Payload,
    Quantized,
    on_sphere,
    use_figures,
    use_of,
    weighted,
)
from mgen.core.train_loop import Draw
from mgen.kernels.fsq import codes_to_indices, fsq, indices_to_codes


class VQ(nn.Module):
    """One of N learned codes, trained by noise substitution (NSVQ).

    While it is trained, the error of the nearest code is replaced by noise of the same length, so
    that the gradient reaches encoder and codes without a loss of their own (Vali and Backstrom,
    "NSVQ", IEEE Access 2022, section III). Vectors and codes lie on one sphere.

    Parameters
    ----------
    width, embedding
        W and A.
    actions, dims
        N codes of D numbers.
    reset_until
        Step from which dead codes are no longer replaced.
    """

    by_quantizer = True

    def __init__(
        self, width: int, embedding: int, *, actions: int, dims: int = 16, reset_until: int = 5000
    ) -> None:
        super().__init__()
        self.actions, self.numbers = actions, 1
        self.norm = RMSNorm(width)
        self.enter = nn.Linear(width, dims)
        self.codes = Tended(torch.randn(actions, dims), reset_until)
        self.leave = nn.Linear(dims, embedding)

    def forward(self, x_SUW: Tensor, draw: Draw | None = None) -> Quantized:
        """(S, U, W) -> embeddings; `draw` only where it is trained."""
        with torch.autocast(x_SUW.device.type, enabled=False):
            z_SUD = on_sphere(self.enter(self.norm(x_SUW)))
            if self.training and draw is not None:
                self.codes.tend(z_SUD.detach(), draw, first=True)
            codes_ND = on_sphere(self.codes.entries)
            # on one sphere the nearest is the one with the largest product
            index_SU = (z_SUD @ codes_ND.T).argmax(-1)
            code_SUD = codes_ND[index_SU]
            if self.training and draw is not None:
                self.codes.count(index_SU)
                noise_SUD = F.normalize(draw.normal(*z_SUD.shape[1:]), dim=-1)
                code_SUD = z_SUD + (z_SUD - code_SUD).norm(dim=-1, keepdim=True) * noise_SUD
            embedding_SUA = self.leave(code_SUD)
        payload = Payload(index_SU[..., None], torch.ones_like(z_SUD[..., :1]))
        return Quantized(embedding_SUA, payload, use_figures(use_of(
            payload, self.actions, by_quantizer=True)))  # fmt: skip

    def embed(self, payload: Payload) -> Tensor:
        """Payloads (..., 1) -> embeddings (..., A)."""
        return weighted(self.leave(on_sphere(self.codes.entries)), payload)


class FSQ(nn.Module):
    """Finite scalar quantisation between two linear layers (Mentzer et al., ICLR 2024).

    The layer before keeps PyTorch's own initialisation: with a smaller one, as GPTs have it,
    everything falls into the few codes around 0, and nothing leads out of them.
    """

    by_quantizer = True

    def __init__(self, width: int, embedding: int, *, levels: Sequence[int] = (8, 8)) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.actions, self.numbers = math.prod(self.levels), 1
        self.norm = RMSNorm(width)
        self.enter = nn.Linear(width, len(self.levels))
        self.leave = nn.Linear(len(self.levels), embedding)

    def forward(self, x_SUW: Tensor, draw: Draw | None = None) -> Quantized:
        """(S, U, W) -> embeddings; draws nothing."""
        with torch.autocast(x_SUW.device.type, enabled=False):
            z_SUD = self.enter(self.norm(x_SUW))
            code_SUD = fsq(z_SUD, self.levels)
            embedding_SUA = self.leave(code_SUD)
            balance = _far_from_normal(z_SUD)
        index_SU = codes_to_indices(code_SUD.detach(), self.levels)
        payload = Payload(index_SU[..., None], torch.ones_like(code_SUD[..., :1]))
        return Quantized(embedding_SUA, payload, use_figures(use_of(
            payload, self.actions, by_quantizer=True)), balance)  # fmt: skip

    def embed(self, payload: Payload) -> Tensor:
        """Payloads (..., 1) -> embeddings (..., A)."""
        every = torch.arange(self.actions, device=self.leave.weight.device)
        return weighted(self.leave(indices_to_codes(every, self.levels)), payload)


class ResidualFSQ(nn.Module):
    """Several FSQs, each of what those before it left over, from coarse to fine.

    Each quantizer looks at the residual through a projection of its own, as the low-dimensional
    codes of DAC do (Kumar et al., NeurIPS 2023, section 3.2): with one projection for all, Q times
    [8, 8] would be two numbers, however fine. In training some items keep only the first few
    (Zeghidour et al. 2021, "SoundStream", section III-C), so that each depth means something.

    Parameters
    ----------
    width, embedding
        W and A.
    levels, quantizers
        Of each quantizer, and Q of them.
    dropout
        Share of the vectors whose depth is drawn from 1..Q; the others keep all.
    """

    by_quantizer = True

    def __init__(
        self, width: int, embedding: int, *, levels: Sequence[int] = (8, 8), quantizers: int = 3,
        dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.levels, self.dropout = tuple(levels), dropout
        self.actions, self.numbers = math.prod(self.levels), quantizers
        self.norm = RMSNorm(width)
        self.enter = nn.Linear(width, embedding)
        self.down = nn.ModuleList(nn.Linear(embedding, len(self.levels)) for _ in range(quantizers))
        self.up = nn.ModuleList(
            nn.Linear(len(self.levels), embedding, bias=False) for _ in range(quantizers)
        )

    def forward(
        self, x_SUW: Tensor, draw: Draw | None = None, depth: int | None = None
    ) -> Quantized:
        """(S, U, W) -> embeddings, of the first `depth` quantizers (all unless it is given)."""
        depth_SU = torch.full(x_SUW.shape[:2], depth or self.numbers, device=x_SUW.device)
        if self.training and draw is not None:
            drawn_SU = draw.integers(1, self.numbers + 1, x_SUW.shape[1])
            dropped_SU = draw.chance(self.dropout, x_SUW.shape[1])
            depth_SU = torch.where(dropped_SU, drawn_SU, depth_SU)
        indices, weights, balances = [], [], []
        with torch.autocast(x_SUW.device.type, enabled=False):
            left_SUA = on_sphere(self.enter(self.norm(x_SUW)))
            sum_SUA = torch.zeros_like(left_SUA)
            for q, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
                z_SUD = down(left_SUA)
                balances.append(_far_from_normal(z_SUD))
                code_SUD = fsq(z_SUD, self.levels)
                indices.append(codes_to_indices(code_SUD.detach(), self.levels))
                weights.append((q < depth_SU).to(left_SUA.dtype))
                part_SUA = up(code_SUD)
                left_SUA = left_SUA - part_SUA
                sum_SUA = sum_SUA + weights[-1][..., None] * part_SUA
        payload = Payload(torch.stack(indices, -1), torch.stack(weights, -1))
        whole = Payload(payload.index, torch.ones_like(payload.weight))  # use at any depth
        return Quantized(sum_SUA, payload, use_figures(use_of(
            whole, self.actions, by_quantizer=True)), torch.stack(balances).mean())  # fmt: skip

    def embed(self, payload: Payload) -> Tensor:
        """Payloads (..., Q) -> embeddings (..., A)."""
        codes = indices_to_codes(payload.index, self.levels)
        parts = [
            payload.weight[..., q, None].to(codes) * up(codes[..., q, :])
            for q, up in enumerate(self.up)
        ]
        return torch.stack(parts).sum(0)


def _far_from_normal(z_SUD: Tensor) -> Tensor:
    """Squared means, and squared difference of the covariance from the identity, over D, 0-d.

    Without it tanh saturates, and after some hundred steps a few codes have everything.
    """
    z_XD = z_SUD.flatten(0, -2)
    mean_D = z_XD.mean(0)
    centred_XD = z_XD - mean_D
    covariance_DD = centred_XD.T @ centred_XD / len(z_XD)
    off_DD = covariance_DD - torch.eye(len(mean_D), device=z_XD.device)
    return (mean_D.square().sum() + off_DD.square().sum()) / len(mean_D)
