"""The processes of one training: alone, or as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mgen.core.devices import choose_device


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; rank 0 writes and reports."""

    rank: int
    world: int
    device: torch.device

    def average(self, x: Tensor) -> None:
        """Replace x by its mean over the processes."""
        if self.world > 1:
            dist.all_reduce(x)
            x /= self.world

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give rank 0's values to all."""
        if self.world > 1:
            for x in tensors:
                dist.broadcast(x, 0)

    def meet(self) -> None:
        """Wait until all are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes that torchrun started (WORLD_SIZE, RANK, ...), if there are any.

    NCCL between GPUs, Gloo between processors. A process group that is there already is used, and
    left as it was.

    Raises
    ------
    UsageError
        If there is no such device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    ours = not dist.is_initialized()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if ours:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if ours:
            dist.destroy_process_group()
