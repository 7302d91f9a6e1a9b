"""Codes and embeddings that nothing uses, and how they are brought back; one process or several.

Shapes: S items, U vectors of an item, T tokens that a vector is pooled of, W width, N actions,
A width of an embedding, D dims of a code, K numbers of a payload, Q quantizers.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mgen.core.train_loop import Draw
from mgen.kernels.compile_policy import never_compiled

RESETS = ((10, 100), (100, 1000), (500, 1 << 62))
"""Dead codes are replaced every 10 steps up to step 100, every 100 up to 1000, then every 500."""


def reset_due(step: int, until: int) -> bool:
    """Whether dead codes are replaced before step `step` (from 0); never at `until` or after."""
    if step >= until:
        return False
    return next(step % every == 0 for every, before in RESETS if step < before)


class Tended(nn.Module):
    """A set of vectors of which those that nothing uses are replaced from the batch, for a while.

    Attributes
    ----------
    entries
        (N, D), a parameter.
    used
        How often each was used since the last replacement, int64 (N,).
    """

    used: Tensor
    replaced_at: Tensor

    def __init__(self, entries_ND: Tensor, until: int) -> None:
        super().__init__()
        self.until = until
        self.entries = nn.Parameter(entries_ND)
        self.register_buffer("used", torch.zeros(len(entries_ND), dtype=torch.int64))
        self.register_buffer("replaced_at", torch.tensor(-1))

    @never_compiled
    @torch.no_grad()
    def tend(self, rows_SXD: Tensor, draw: Draw, *, first: bool = False) -> None:
        """Where it is due, put random rows of this batch in the place of what was not used.

        With `first`, everything is replaced at step 0: the codes begin where the data is. The
        parts of a batch that is accumulated count as one. All processes replace alike.
        """
        keys_SX = draw.uniform(rows_SXD.shape[1])  # always, so that later draws are the same
        step = draw.step
        if not reset_due(step, self.until) or step <= int(self.replaced_at):
            return
        dead = self.used == 0
        if step == 0 and not first:
            dead = torch.zeros_like(dead)
        where = dead.nonzero().flatten()
        rows_XD = _of_all(rows_SXD).flatten(0, 1)
        order = _of_all(keys_SX).flatten().argsort(descending=True, stable=True)
        chosen = rows_XD[order[torch.arange(len(where), device=order.device) % len(order)]]
        self.entries[where] = chosen.to(self.entries)
        self.used.zero_()
        self.replaced_at.fill_(step)

    @never_compiled
    @torch.no_grad()
    def count(self, index: Tensor) -> None:
        """Note that these were used, by any process."""
        self.used += _summed(index.flatten().bincount(minlength=len(self.used)))


def _world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _summed(x: Tensor) -> Tensor:
    """The sum over the processes."""
    if _world() > 1:
        dist.all_reduce(x)
    return x


def _of_all(x: Tensor) -> Tensor:
    """What all processes have, end to end: the whole batch."""
    if _world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(_world())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)
