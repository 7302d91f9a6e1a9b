"""What passes a bottleneck, and how evenly it is used.

Shapes: S items, U vectors of an item, T tokens that a vector is pooled of, W width, N actions,
A width of an embedding, D dims of a code, K numbers of a payload, Q quantizers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Payload:
    """What is kept of an action: (..., K) indices, and how much each counts.

    A code has K = 1 and weight 1; a residual code an index a quantizer, with weight 0 for those
    beyond its depth; a style the indices of its largest weights, which sum to 1.
    """

    index: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Quantized:
    """What passed a bottleneck.

    Attributes
    ----------
    embedding
        (S, U, A).
    payload
        (S, U, K).
    figures
        How the actions are used in this batch, 0-d each: `perplexity` (exponential of the entropy
        of the mean use; of several quantizers the mean), `utilisation` (share used at all), for
        styles `sample_entropy` too (of one vector's weights, in nats).
    balance
        How unevenly the actions are used, with a gradient; 0 at even use. Of styles 1 - entropy of
        the mean use / log N; of FSQ how far its numbers are from standard normal, whose cells are
        all but equally full.
    """

    embedding: Tensor
    payload: Payload
    figures: dict[str, Tensor] = field(default_factory=dict)
    balance: Tensor | None = None


def use_figures(use_QN: Tensor) -> dict[str, Tensor]:
    """`perplexity` and `utilisation` of uses (Q, N): counts or weights, not all zero in a row."""
    share_QN = use_QN.double() / use_QN.double().sum(-1, keepdim=True).clamp(min=TINY)
    entropy_Q = -(share_QN * share_QN.clamp(min=1e-30).log()).sum(-1)
    return {
        "perplexity": entropy_Q.exp().mean().float(),
        "utilisation": (use_QN > 0).float().mean(),
    }


def use_of(payload: Payload, actions: int, *, by_quantizer: bool) -> Tensor:
    """Summed weights of each action (Q, N); Q = 1 where all K numbers are of one set."""
    index_XK, weight_XK = payload.index.flatten(0, -2), payload.weight.flatten(0, -2).float()
    if not by_quantizer:
        index_XK, weight_XK = index_XK.reshape(-1, 1), weight_XK.reshape(-1, 1)
    use_QN = weight_XK.new_zeros(index_XK.shape[1], actions)
    return use_QN.scatter_add(1, index_XK.T, weight_XK.T)


def on_sphere(x: Tensor) -> Tensor:
    """To a root mean square of 1 over the last axis."""
    return F.rms_norm(x, (x.shape[-1],), eps=1e-6)


def weighted(table_NA: Tensor, payload: Payload) -> Tensor:
    """Weighted sums of a table's rows: payloads (..., K) -> (..., A)."""
    rows = table_NA[payload.index.to(table_NA.device)]
    return (payload.weight.to(rows)[..., None] * rows).sum(-2)
