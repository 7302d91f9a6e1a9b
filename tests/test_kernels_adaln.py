"""AdaLN at latent rate: against the reference that repeats the condition to the full rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.kernels.adaln import gate_residual, gate_residual_reference, modulate, modulate_reference


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3), tokens=st.integers(1, 6), repeats=st.integers(1, 9),
    width=st.integers(2, 20), seed=st.integers(0, 99),
)  # fmt: skip
def test_fast_equals_reference(
    batch: int, tokens: int, repeats: int, width: int, seed: int
) -> None:
    x_BTW = 3.0 * noise(batch, tokens * repeats, width, seed=seed) + 1.0
    update_BTW = noise(batch, tokens * repeats, width, seed=seed + 1)
    a_BLW, b_BLW = (noise(batch, tokens, width, seed=seed + i) for i in (2, 3))
    fast, slow = modulate(x_BTW, a_BLW, b_BLW), modulate_reference(x_BTW, a_BLW, b_BLW)
    assert fast.shape == slow.shape == x_BTW.shape
    assert fast.dtype == torch.float32
    assert slow.dtype == torch.float64
    # rows of two that are nearly equal are divided by hardly more than the root of eps
    assert torch.allclose(fast.double(), slow, atol=2e-3, rtol=1e-3)
    fast = gate_residual(x_BTW, update_BTW, a_BLW)
    assert torch.allclose(
        fast.double(), gate_residual_reference(x_BTW, update_BTW, a_BLW), atol=1e-5
    )


def test_modulation_is_what_its_words_say() -> None:
    x_BTW = torch.tensor([[[1.0, 3.0], [0.0, 10.0], [5.0, 1.0], [2.0, 4.0]]])
    scale_BLW = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    shift_BLW = torch.tensor([[[0.0, 0.0], [0.5, -0.5]]])
    expected = torch.tensor([[[-1.0, 1.0], [-1.0, 1.0], [2.5, -2.5], [-1.5, 1.5]]])
    assert torch.allclose(modulate(x_BTW, scale_BLW, shift_BLW), expected, atol=1e-4)


def test_gate_of_zero_is_identity() -> None:
    x_BTW, update_BTW = noise(2, 12, 8), noise(2, 12, 8, seed=1)
    assert torch.equal(gate_residual(x_BTW, update_BTW, torch.zeros(2, 3, 8)), x_BTW)
    opened = gate_residual(x_BTW, update_BTW, torch.ones(2, 1, 8))
    assert torch.equal(opened, x_BTW + update_BTW)


def test_gradients_are_the_references() -> None:
    x_BTW, update_BTW = noise(1, 8, 4).double(), noise(1, 8, 4, seed=1).double()
    a_BLW, b_BLW = noise(1, 2, 4, seed=2).double(), noise(1, 2, 4, seed=3).double()
    inputs = [v.requires_grad_() for v in (x_BTW, update_BTW, a_BLW, b_BLW)]

    def through(mod: Callable[..., torch.Tensor], gate: Callable[..., torch.Tensor]) -> list:
        out = gate(x_BTW, mod(update_BTW, a_BLW, b_BLW), a_BLW)
        return list(torch.autograd.grad(out.sin().sum(), inputs))

    fast = through(modulate, gate_residual)
    slow = through(modulate_reference, gate_residual_reference)
    assert all(torch.allclose(f, s, atol=1e-9) for f, s in zip(fast, slow, strict=True))


@pytest.mark.parametrize("call", [modulate, modulate_reference])
def test_modulate_refuses_what_does_not_fit(call: Callable[..., torch.Tensor]) -> None:
    x_BTW = noise(1, 7, 4)
    with pytest.raises(ValueError, match="no multiple of 3"):
        call(x_BTW, noise(1, 3, 4), noise(1, 3, 4))
    with pytest.raises(ValueError, match="does not fit"):
        call(x_BTW, noise(1, 1, 5), noise(1, 1, 5))
    with pytest.raises(ValueError, match="does not fit"):
        call(x_BTW, noise(1, 1, 4), noise(1, 7, 4))


@pytest.mark.parametrize("call", [gate_residual, gate_residual_reference])
def test_gate_refuses_what_does_not_fit(call: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="no multiple of 3"):
        call(noise(1, 7, 4), noise(1, 7, 4), noise(1, 3, 4))


def test_mixed_precision_keeps_the_residual_in_float32() -> None:
    x_BTW, update_BTW = noise(2, 12, 8), noise(2, 12, 8, seed=1).bfloat16()
    gate_BLW = noise(2, 3, 8, seed=2).bfloat16()
    out = gate_residual(x_BTW, update_BTW, gate_BLW)
    assert out.dtype == torch.float32
    slow = gate_residual_reference(x_BTW, update_BTW, gate_BLW)
    assert torch.allclose(out.double(), slow, atol=1e-6)
