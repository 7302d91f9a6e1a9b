"""Randomness that is a function of seed, step and item, however a batch is spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Draw:
    """The randomness of one step, the same however a batch is spread over processes and parts.

    Each draw is made for the whole batch by a generator seeded by (seed, step, number of the
    draw), and the items of this slice are taken from it. Shapes are those of one item:
    `normal(64, 16)` is (items, 64, 16) and `uniform()` is (items,), so they must not depend on
    which items a slice holds. A GPU draws otherwise than a CPU does.

    Attributes
    ----------
    items
        Items of this slice.
    device
        Where the draws are made.
    """

    def __init__(
        self, *, seed: int, step: int, total: int, first: int, items: int,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.items, self.device = items, torch.device(device)
        # a tensor, so that a compiled loss takes it as a value and is compiled once
        self._key = torch.tensor([seed, step, first])
        self._total, self._number = total, 0

    @property
    def step(self) -> int:
        """The step that this is the randomness of, from 0."""
        return int(self._key[1])

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32 (items, *shape)."""
        return self._draw("normal", shape)

    def uniform(self, *shape: int) -> Tensor:
        """U[0, 1), float32 (items, *shape)."""
        return self._draw("uniform", shape)

    def chance(self, p: float, *shape: int) -> Tensor:
        """True with probability p, bool (items, *shape)."""
        return self.uniform(*shape) < p

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers low <= n < high, int64 (items, *shape)."""
        return self._draw("integers", shape, low, high)

    def _draw(self, law: str, shape: Sequence[int], low: int = 0, high: int = 0) -> Tensor:
        number, self._number = self._number, self._number + 1
        draw = _draw_compiled if torch.compiler.is_compiling() else _draw_slice
        return draw(self._key, number, self._total, self.items, law, shape, low, high, self.device)


def mixed_seed(*numbers: int) -> int:
    """One seed of several numbers, each of which changes it altogether."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _draw_slice(
    key: Tensor, number: int, total: int, items: int, law: str, shape: Sequence[int],
    low: int, high: int, device: torch.device,
) -> Tensor:  # fmt: skip
    seed, step, first = key.tolist()
    generator = torch.Generator(device).manual_seed(mixed_seed(seed, step, number))
    size = (total, *shape)
    if law == "normal":
        whole = torch.randn(size, generator=generator, device=device)
    elif law == "uniform":
        whole = torch.rand(size, generator=generator, device=device)
    else:
        whole = torch.randint(low, high, size, generator=generator, device=device)
    return whole[first : first + items]


# for the compiler an operation like any other, which it need not look into: a loss that draws is
# one graph and not several
_draw_compiled = torch.library.custom_op(
    "mgen::draw", _draw_slice, mutates_args=(),
    schema="(Tensor key, int number, int total, SymInt items, str law, SymInt[] shape,"
    " int low, int high, Device device) -> Tensor",
)  # fmt: skip


@_draw_compiled.register_fake
def _(
    key: Tensor, number: int, total: int, items: int, law: str, shape: Sequence[int],
    low: int, high: int, device: torch.device,
) -> Tensor:  # fmt: skip
    dtype = torch.int64 if law == "integers" else torch.float32
    return torch.empty((items, *shape), dtype=dtype, device=device)
