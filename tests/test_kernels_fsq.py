"""FSQ: against the reference that tries every level; codes, indices and back; the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.kernels.fsq import (
    all_codes,
    codes_to_indices,
    fsq,
    fsq_reference,
    indices_to_codes,
)

MIXED = ([8, 8], [8, 6, 5], [8, 5, 5, 5], [2], [3, 2, 7])
levels_of = st.lists(st.integers(2, 9), min_size=1, max_size=4)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(deadline=None, max_examples=40)
@given(levels=levels_of, items=st.integers(1, 20), seed=st.integers(0, 99))
def test_fast_equals_reference(levels: list[int], items: int, seed: int) -> None:
    z = noise(items, len(levels), seed=seed)
    fast, slow = fsq(z, levels), fsq_reference(z, levels)
    assert fast.dtype == slow.dtype == torch.float64
    assert torch.allclose(fast, slow, atol=1e-12)
    # the same cells in float32, but for what lies on an edge
    middle = ((torch.tanh(z) + 1) * (torch.tensor(levels) - 1) / 2 % 1 - 0.5).abs() < 1e-4
    single = fsq(z.float(), levels)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double()[~middle], slow[~middle], atol=1e-6)


@pytest.mark.parametrize("levels", MIXED)
def test_gradient_is_that_of_the_tanh(levels: list[int]) -> None:
    z = noise(50, len(levels)).requires_grad_()
    grads = [
        torch.autograd.grad((call(z, levels) * noise(50, len(levels), seed=1)).sum(), z)[0]
        for call in (fsq, fsq_reference)
    ]
    expected = (1.0 - torch.tanh(z.detach()) ** 2) * noise(50, len(levels), seed=1)
    assert all(torch.allclose(grad, expected, atol=1e-12) for grad in grads)


@pytest.mark.parametrize("levels", MIXED)
def test_every_index_there_and_back(levels: list[int]) -> None:
    every = torch.arange(math.prod(levels))
    codes = indices_to_codes(every, levels)
    assert codes.dtype == torch.float32
    assert torch.allclose(codes, all_codes(levels), atol=1e-6)
    assert torch.equal(codes_to_indices(codes, levels), every)
    assert len(codes.unique(dim=0)) == len(every)
    for d, n in enumerate(levels):
        steps = codes[:, d].unique()
        assert torch.allclose(steps, torch.linspace(-1, 1, n), atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(levels=levels_of, seed=st.integers(0, 99))
def test_codes_to_indices_to_codes(levels: list[int], seed: int) -> None:
    code = fsq(noise(3, 4, len(levels), seed=seed, dtype=torch.float32), levels)
    index = codes_to_indices(code, levels)
    assert index.shape == (3, 4)
    assert ((index >= 0) & (index < math.prod(levels))).all()
    assert torch.allclose(indices_to_codes(index, levels), code, atol=1e-6)


def test_a_code_is_quantised_to_itself() -> None:
    inner = all_codes([8, 6, 5]).clamp(-0.999, 0.999)
    assert torch.allclose(fsq(torch.atanh(inner), [8, 6, 5]), all_codes([8, 6, 5]), atol=1e-6)


def test_normal_input_uses_all_codes_of_64() -> None:
    index = codes_to_indices(fsq(noise(20000, 2) / 1.5, [8, 8]), [8, 8])
    share = index.bincount(minlength=64) / 20000
    assert (share > 0).all()
    assert float(torch.exp(-(share * share.log()).sum())) > 60


def test_under_autocast_it_stays_float32() -> None:
    z = noise(400, 2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fsq(z, [8, 8]), fsq(z, [8, 8]).float())
    assert fsq(z.bfloat16(), [8, 8]).dtype == torch.float32


@pytest.mark.parametrize("call", [fsq, fsq_reference, codes_to_indices])
@pytest.mark.parametrize(
    ("shape", "levels"), [((3, 2), [8]), ((3, 1), [1]), ((3, 0), []), ((3, 9), [8] * 9)]
)
def test_refuses_what_does_not_fit(
    call: Callable[..., torch.Tensor], shape: tuple[int, ...], levels: list[int]
) -> None:
    with pytest.raises(ValueError, match="levels"):
        call(torch.zeros(shape), levels)


def test_indices_are_whole_numbers() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        indices_to_codes(torch.zeros(3), [8, 8])
    with pytest.raises(ValueError, match="levels"):
        indices_to_codes(torch.zeros(3, dtype=torch.int64), [1])
