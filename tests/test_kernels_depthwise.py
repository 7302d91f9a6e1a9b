"""Depthwise convolution: value and gradients against the sum written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.kernels.depthwise import depthwise, depthwise_reference


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3), length=st.integers(1, 12), width=st.integers(1, 9),
    half=st.integers(0, 4),
)  # fmt: skip
def test_value_and_gradients_equal_reference(
    batch: int, length: int, width: int, half: int
) -> None:
    inputs = [noise(batch, length, width), noise(width, 2 * half + 1, seed=1), noise(width, seed=2)]
    inputs = [v.requires_grad_() for v in inputs]
    fast, slow = depthwise(*inputs), depthwise_reference(*inputs)
    assert fast.shape == slow.shape == (batch, length, width)
    assert torch.allclose(fast.double(), slow, atol=1e-4)
    fast_grads = torch.autograd.grad(fast.sin().sum(), inputs)
    slow_grads = torch.autograd.grad(slow.sin().sum(), inputs)
    for found, expected in zip(fast_grads, slow_grads, strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def test_is_conv1d() -> None:
    x_BTW, kernel_WK, bias_W = noise(2, 9, 4), noise(4, 5, seed=1), noise(4, seed=2)
    expected_BWT = F.conv1d(x_BTW.transpose(1, 2), kernel_WK[:, None], bias_W, padding=2, groups=4)
    assert torch.allclose(
        depthwise(x_BTW, kernel_WK, bias_W), expected_BWT.transpose(1, 2), atol=1e-5
    )


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_gradients_only_where_asked(frozen: int) -> None:
    inputs = [noise(1, 5, 3), noise(3, 3, seed=1), noise(3, seed=2)]
    for i, value in enumerate(inputs):
        value.requires_grad_(i != frozen)
    depthwise(*inputs).square().sum().backward()
    assert [value.grad is None for value in inputs] == [i == frozen for i in range(3)]


def test_autocast_computes_in_bfloat16_and_gives_float32_gradients() -> None:
    inputs = [noise(2, 40, 6), noise(6, 7, seed=1), noise(6, seed=2)]
    inputs = [v.requires_grad_() for v in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out_BTW = depthwise(*inputs)
    assert out_BTW.dtype == torch.bfloat16
    exact = torch.autograd.grad(depthwise_reference(*inputs).sum(), inputs)
    rough = torch.autograd.grad(out_BTW.sum(), inputs)
    for found, expected in zip(rough, exact, strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, rtol=0.05, atol=0.15)


@pytest.mark.parametrize("call", [depthwise, depthwise_reference])
def test_refuses_what_does_not_fit(call: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        call(noise(1, 5, 3), noise(4, 3), noise(3))
    with pytest.raises(ValueError, match="no middle"):
        call(noise(1, 5, 3), noise(3, 4), noise(3))
