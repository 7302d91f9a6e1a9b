"""Block-causal attention: every path against the float64 reference, and what a block may see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mgen.kernels import block_causal
from mgen.kernels.block_causal import (
    block_causal_attention,
    block_causal_attention_reference,
    block_causal_flex_attention,
    block_causal_mask,
    masked_attention,
)


def inputs(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3)]


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3), heads=st.integers(1, 3), length=st.integers(1, 30),
    block=st.integers(1, 12), seed=st.integers(0, 99), learns=st.booleans(),
)  # fmt: skip
def test_fast_equals_reference(
    batch: int, heads: int, length: int, block: int, seed: int, learns: bool
) -> None:
    given_BHTE = inputs(batch, heads, length, 4, seed=seed, dtype=torch.float64)
    slow = block_causal_attention_reference(*given_BHTE, block)
    fast = block_causal_attention(*(x.requires_grad_(learns) for x in given_BHTE), block)
    assert fast.requires_grad == learns
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=1e-9)


def test_gradients_are_the_references() -> None:
    given_BHTE = [x.requires_grad_() for x in inputs(1, 2, 10, 4, dtype=torch.float64)]
    fast, slow = (
        torch.autograd.grad(call(*given_BHTE, 3).sin().sum(), given_BHTE)
        for call in (block_causal_attention, block_causal_attention_reference)
    )
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("call", [block_causal_attention, block_causal_attention_reference])
def test_a_block_sees_itself_and_nothing_later(call: object) -> None:
    given_BHTE = [x.requires_grad_() for x in inputs(1, 1, 9, 4)]
    out_BHTE = call(*given_BHTE, 3)  # type: ignore[operator]
    for i in range(9):
        grads = torch.autograd.grad(out_BHTE[0, 0, i].square().sum(), given_BHTE, retain_graph=True)
        reached_T = (grads[1] + grads[2])[0, 0].abs().sum(-1) > 0
        assert torch.equal(reached_T, torch.arange(9) < (i // 3 + 1) * 3)


def test_the_mask_of_two_blocks_and_a_half() -> None:
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert torch.equal(block_causal_mask(5, 2), torch.tensor(expected, dtype=torch.bool))
    assert block_causal_mask(4, 9).all()


def test_mixed_precision_keeps_its_type() -> None:
    given_BHTE = inputs(2, 2, 12, 8)
    fast = block_causal_attention(*(x.bfloat16() for x in given_BHTE), 4)
    assert fast.dtype == torch.bfloat16
    slow = block_causal_attention_reference(*given_BHTE, 4)
    torch.testing.assert_close(fast.double(), slow, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(9, 9), (5, 1, 9, 9), None])
@pytest.mark.parametrize("at_once", [1, 2 * 3 * 9 * 9, 1 << 23])
def test_any_mask(
    dtype: torch.dtype, shape: tuple[int, ...] | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_causal, "_SCORES_AT_ONCE", at_once)
    given_BHTE = [x.to(dtype).requires_grad_() for x in inputs(5, 3, 9, 4)]
    mask = None
    if shape is not None:
        generator = torch.Generator().manual_seed(1)
        mask = (torch.rand(shape, generator=generator) < 0.5) | torch.eye(9, dtype=torch.bool)
    query, key, value = (x.double() for x in given_BHTE)
    scores_BHTT = query @ key.transpose(2, 3) / 2.0
    if mask is not None:
        scores_BHTT = scores_BHTT + torch.where(mask, 0.0, -torch.inf)
    slow = torch.softmax(scores_BHTT, -1) @ value
    fast = masked_attention(*given_BHTE, mask)
    assert fast.dtype == dtype
    near = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(fast.double(), slow, atol=near, rtol=near)
    one, other = (
        torch.autograd.grad(out.double().square().sum(), given_BHTE) for out in (fast, slow)
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=8 * near, rtol=4 * near)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compiling costs 20 s here")
def test_flex_equals_reference_on_a_gpu() -> None:
    given_BHTE = [x.cuda().requires_grad_() for x in inputs(2, 2, 96, 32)]
    slow = block_causal_attention_reference(*given_BHTE, 24)
    fast = block_causal_flex_attention(*given_BHTE, 24)
    torch.testing.assert_close(fast.double(), slow, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "call",
    [block_causal_attention, block_causal_attention_reference, block_causal_flex_attention],
)
def test_refuses_what_does_not_fit(call: object) -> None:
    query, key, value = inputs(1, 1, 6, 4)
    with pytest.raises(ValueError, match="of one shape"):
        call(query, key[:, :, :5], value, 2)  # type: ignore[operator]
    with pytest.raises(ValueError, match="at least 1 position"):
        call(query, key, value, 0)  # type: ignore[operator]
