"""Time the kernels of the actions: pytest tests/benchmarks --benchmark-enable. Otherwise once each.

Sizes are those of a training step: 32 sequences of 8 bars, 32 tokens a bar, 256 actions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mgen.kernels.fsq import codes_to_indices, fsq, fsq_reference
from mgen.kernels.topk_softmax import topk_softmax, topk_softmax_reference

BARS, TOKENS, ACTIONS, TOP = 256, 32, 256, 5


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("call", [fsq, fsq_reference])
@pytest.mark.parametrize("levels", [[8, 8], [8, 5, 5, 5]], ids=["64", "1000"])
def test_fsq(benchmark: Any, call: Any, levels: list[int]) -> None:
    code = benchmark(call, noise(BARS * TOKENS, len(levels)), levels)
    assert code.shape == (BARS * TOKENS, len(levels))


def test_codes_to_indices(benchmark: Any) -> None:
    code = fsq(noise(BARS * TOKENS, 4), [8, 5, 5, 5])
    assert benchmark(codes_to_indices, code, [8, 5, 5, 5]).shape == (BARS * TOKENS,)


def by_masking(x: torch.Tensor, k: int, dense: float) -> torch.Tensor:
    """The usual way: all that is below the k-th largest to minus infinity, and two softmaxes."""
    least = x.topk(k, dim=-1).values[..., -1:]
    kept = x.masked_fill(x < least, -torch.inf).softmax(-1)
    return dense * x.softmax(-1) + (1.0 - dense) * kept


@pytest.mark.parametrize("call", [topk_softmax, by_masking, topk_softmax_reference])
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_topk_softmax(benchmark: Any, call: Any, way: str) -> None:
    x = noise(BARS, ACTIONS)
    if way == "forward":
        weight = benchmark(call, x, TOP, 0.5)
        assert torch.allclose(weight.sum(-1).float(), torch.ones(BARS), atol=1e-5)
        return
    x = x.requires_grad_()
    weight, upstream = call(x, TOP, 0.5), noise(BARS, ACTIONS)
    (grad,) = benchmark(
        lambda: torch.autograd.grad(weight, x, upstream.to(weight), retain_graph=True)
    )
    assert grad.shape == x.shape
