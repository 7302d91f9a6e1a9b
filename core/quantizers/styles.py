"""Style actions: a few weights over N learned embeddings.

Shapes: S items, U vectors of an item, T tokens that a vector is pooled of, W width, N actions,
A width of an embedding, D dims of a code, K numbers of a payload, Q quantizers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.core.layers import RMSNorm
from mgen.core.quantizers.dead_codes import Tended
from mgen.core.quantizers.payload import TINY, Payload, Quantized, use_figures, use_of, weighted
from mgen.core.train_loop import Draw
from mgen.kernels.compile_policy import never_compiled
from mgen.kernels.topk_softmax import largest, topk_softmax

_SHARP = 4.0
"""How much larger than usual the queries of styles begin: with 1, the k largest weights stay all
but equal, and the actions say less (measured: 1.5 against 1.6 dB)."""


class StyleActions(nn.Module):
    """Weights over N learned embeddings, found by attention (Wang et al. 2018, "Style Tokens").

    One head, and the tokens of a vector attend before they are pooled: pooled first, they would
    ask for what most of them have in common. Of the pooled weights the k largest are kept. They
    begin dense and become sparse, so that every embedding has been moved before it has to compete;
    those that lose everywhere are put where tokens of the batch are. A share of the vectors keeps
    the largest weight alone, so that a single action is enough.

    Parameters
    ----------
    width, embedding
        W and A.
    actions, top_k
        N, and K of them that count.
    warmup, sparse_at
        Steps that are dense; the step at which only the k largest count. A line between them.
    one_hot
        Share of the vectors in training that keep their largest weight alone.
    reset_until
        Step from which dead embeddings are no longer replaced.
    """

    by_quantizer = False

    def __init__(
        self, width: int, embedding: int, *, actions: int, top_k: int, warmup: int = 1000,
        sparse_at: int = 5000, one_hot: float = 0.2, reset_until: int = 5000,
    ) -> None:  # fmt: skip
        super().__init__()
        self.actions, self.numbers = actions, top_k
        self.warmup, self.sparse_at, self.one_hot = warmup, sparse_at, one_hot
        self.norm = RMSNorm(width)
        self.query = nn.Linear(width, embedding, bias=False)
        with torch.no_grad():
            self.query.weight.mul_(_SHARP)
        start_NA = torch.randn(actions, embedding) / math.sqrt(embedding)
        self.styles = Tended(start_NA, reset_until)
        self.norm_styles = RMSNorm(embedding)
        self.norm_out = RMSNorm(embedding)

    def dense_share(self, step: int) -> float:
        """How much the dense softmax counts at a step: 1, then a line down to 0."""
        if step < self.warmup:
            return 1.0
        return max(0.0, 1.0 - (step - self.warmup) / max(1, self.sparse_at - self.warmup))

    def forward(self, x_SUTW: Tensor, draw: Draw | None = None) -> Quantized:
        """(S, U, T, W) -> embeddings; `draw` only where it is trained."""
        with torch.autocast(x_SUTW.device.type, enabled=False):
            query_SUTA = self.query(self.norm(x_SUTW))
            if self.training and draw is not None:
                self.styles.tend(_unit(query_SUTA.detach()).flatten(1, 2), draw)
            styles_NA = self.norm_styles(self.styles.entries)
            scores_SUTN = query_SUTA @ styles_NA.T / math.sqrt(styles_NA.shape[1])
            pooled_SUN = torch.softmax(scores_SUTN, dim=-1).mean(2)
            log_SUN = pooled_SUN.clamp(min=TINY).log()
            weight_SUN, kept_SUN = self._sparse(log_SUN, draw)
            embedding_SUA = self.norm_out(weight_SUN @ styles_NA)
        payload = Payload(*largest(kept_SUN.detach(), self.numbers))
        if self.training and draw is not None:
            self.styles.count(payload.index)
        mean_N = weight_SUN.flatten(0, 1).mean(0)
        entropy = -(mean_N * mean_N.clamp(min=TINY).log()).sum()
        figures = use_figures(use_of(payload, self.actions, by_quantizer=False))
        each_SU = -(kept_SUN * kept_SUN.clamp(min=TINY).log()).sum(-1)
        figures["sample_entropy"] = each_SU.detach().mean()
        balance = 1.0 - entropy / math.log(max(2, self.actions))
        return Quantized(embedding_SUA, payload, figures, balance)

    def embed(self, payload: Payload) -> Tensor:
        """Payloads (..., K) -> embeddings (..., A)."""
        return self.norm_out(weighted(self.norm_styles(self.styles.entries), payload))

    def _sparse(self, log_SUN: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        """The weights that count in this step, and those that count once it is trained."""
        if not self.training or draw is None:
            kept_SUN = topk_softmax(log_SUN, self.numbers)
            return kept_SUN, kept_SUN
        share = _as_tensor(self, draw).to(log_SUN.device)
        mixed_SUN = topk_softmax(log_SUN, self.numbers, share)
        best_SUN = F.one_hot(log_SUN.argmax(-1), self.actions).to(mixed_SUN)
        # straight through: which one is the largest can still be learned
        best_SUN = best_SUN + mixed_SUN - mixed_SUN.detach()
        alone_SU = draw.chance(self.one_hot, log_SUN.shape[1])
        weight_SUN = torch.where(alone_SU[..., None], best_SUN, mixed_SUN)
        return weight_SUN, topk_softmax(log_SUN.detach(), self.numbers)


@never_compiled
def _as_tensor(styles: StyleActions, draw: Draw) -> Tensor:
    """The dense share of a step, as a value that a compiled loss is not compiled again for."""
    return torch.tensor(styles.dense_share(draw.step))


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)
