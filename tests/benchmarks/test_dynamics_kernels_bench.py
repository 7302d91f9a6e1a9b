"""Time the dynamics model's kernels: pytest tests/benchmarks --benchmark-enable. Otherwise once.

Sizes are those of the shipped model: 16 bars of 32 tokens, 6 heads of 48.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mgen.kernels.block_causal import (
    block_causal_attention,
    block_causal_attention_reference,
    block_causal_flex_attention,
    block_causal_mask,
    masked_attention,
)

BARS, BLOCK, HEADS, WIDTH = 16, 32, 6, 48


def masked(query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, block: int) -> Tensor:
    """The peer: one fused call that computes what it then hides."""
    mask_TT = block_causal_mask(query_BHTE.shape[2], block)
    return F.scaled_dot_product_attention(query_BHTE, key_BHTE, value_BHTE, attn_mask=mask_TT)


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, HEADS, BARS * BLOCK, WIDTH, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("call", [block_causal_attention, masked, block_causal_attention_reference])
def test_block_causal_attention(benchmark: Any, call: Any) -> None:
    with torch.no_grad():
        out = benchmark(call, *inputs(), BLOCK)
    assert out.shape == (1, HEADS, BARS * BLOCK, WIDTH)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
def test_block_causal_flex_attention(benchmark: Any) -> None:
    if benchmark.disabled:
        pytest.skip("compiling costs 20 s")
    given = inputs()
    with torch.no_grad():
        block_causal_flex_attention(*given, BLOCK)  # compiles
        out = benchmark(block_causal_flex_attention, *given, BLOCK)
    torch.testing.assert_close(out, block_causal_attention(*given, BLOCK), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("call", [masked_attention, F.scaled_dot_product_attention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_attention_as_it_is_trained(benchmark: Any, call: Any, dtype: torch.dtype) -> None:
    """Forward and backward of 8 sequences, both ways between bars."""
    given = [x.to(dtype).expand(8, -1, -1, -1).clone().requires_grad_() for x in inputs()]
    ones = torch.ones_like(given[0])
    grads = benchmark(lambda: torch.autograd.grad(call(*given), given, ones))
    assert [g.shape for g in grads] == [x.shape for x in given]
