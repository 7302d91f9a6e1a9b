"""Top-k softmax: against the reference row by row; known answers, ties, gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.kernels.topk_softmax import largest, topk_softmax, topk_softmax_reference


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2.0 * torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 4), n=st.integers(1, 12), data=st.data(), dense=st.floats(0.0, 1.0),
    seed=st.integers(0, 99), coarse=st.booleans(),
)  # fmt: skip
def test_fast_equals_reference(
    rows: int, n: int, data: st.DataObject, dense: float, seed: int, coarse: bool
) -> None:
    k = data.draw(st.integers(1, n))
    x = noise(rows, n, seed=seed)
    x = x.round() if coarse else x  # many ties
    fast, slow = topk_softmax(x, k, dense), topk_softmax_reference(x, k, dense)
    assert fast.dtype == slow.dtype == torch.float64
    if coarse:  # of equal logits either may be kept: the weights are the same ones
        assert torch.allclose(fast.sort(-1).values, slow.sort(-1).values, atol=1e-12)
        order = x.gather(-1, fast.argsort(-1))
        assert (order.diff(dim=-1) >= 0).all()
    else:
        assert torch.allclose(fast, slow, atol=1e-12)
    assert torch.allclose(fast.sum(-1), torch.ones(rows, dtype=torch.float64))
    single = topk_softmax(x.float(), k, dense)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), fast, atol=1e-5)
    if dense == 0.0:
        assert ((fast > 0).sum(-1) == k).all()


@pytest.mark.parametrize("dense", [0.0, 0.3, 1.0])
def test_gradients_are_the_references(dense: float) -> None:
    x = noise(3, 7).requires_grad_()
    fast, slow = (
        torch.autograd.grad((call(x, 3, dense) * noise(3, 7, seed=1)).sum(), x)[0]
        for call in (topk_softmax, topk_softmax_reference)
    )
    assert torch.allclose(fast, slow, atol=1e-12)
    reached = (fast != 0).sum(-1)
    assert (reached == (7 if dense else 3)).all()


def test_known_answers() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 5.0]).log()
    assert topk_softmax(x, 1).tolist() == [0.0, 0.0, 0.0, 1.0]
    assert torch.allclose(topk_softmax(x, 2), torch.tensor([0.0, 0.0, 2 / 7, 5 / 7]))
    assert torch.allclose(topk_softmax(x, 4), torch.tensor([0.0, 0.125, 0.25, 0.625]))
    mixed = topk_softmax(x, 1, torch.tensor(0.5))
    assert torch.allclose(mixed, torch.tensor([0.0, 0.0625, 0.125, 0.8125]))


def test_huge_logits_stay_finite() -> None:
    x = torch.tensor([1e4, -1e4, 9.9e3]).requires_grad_()
    weight = topk_softmax(x, 2, 0.5)
    weight[0].backward()
    assert torch.allclose(weight, torch.tensor([1.0, 0.0, 0.0]))
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_largest_are_in_order_and_sum_to_one() -> None:
    weight = torch.tensor([[0.1, 0.4, 0.1, 0.4], [0.0, 0.0, 1.0, 0.0]])
    index, value = largest(weight, 3)
    assert index.tolist() == [[1, 3, 0], [2, 0, 1]]
    assert torch.allclose(value, torch.tensor([[4 / 9, 4 / 9, 1 / 9], [1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("call", [topk_softmax, topk_softmax_reference])
@pytest.mark.parametrize(("k", "dense"), [(0, 0.0), (5, 0.0), (2, -0.1), (2, 1.5)])
def test_refuses_what_makes_no_sense(
    call: Callable[..., torch.Tensor], k: int, dense: float
) -> None:
    with pytest.raises(ValueError, match=r"give 1 <= k|share"):
        call(torch.zeros(2, 4), k, dense)
