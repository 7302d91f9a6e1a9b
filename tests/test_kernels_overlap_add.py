"""Overlap-add and "same" spectra: against references, and as a round trip of the signal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.kernels.overlap_add import (
    istft_same,
    istft_same_reference,
    overlap_add,
    overlap_add_reference,
    stft_same,
    stft_same_reference,
)

SIZES = [(8, 2), (12, 3), (10, 3), (16, 8), (24, 5), (64, 16)]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def spectra(batch: int, n_frames: int, length: int) -> torch.Tensor:
    parts = noise(2, batch, n_frames, length // 2 + 1)
    return torch.complex(parts[0], parts[1])


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3), n_frames=st.integers(1, 12), length=st.integers(1, 24),
    hop=st.integers(1, 30),
)  # fmt: skip
def test_sum_equals_reference(batch: int, n_frames: int, length: int, hop: int) -> None:
    frames_BTL = noise(batch, n_frames, length)
    fast, slow = overlap_add(frames_BTL, hop), overlap_add_reference(frames_BTL, hop)
    assert fast.shape == slow.shape == (batch, (n_frames - 1) * hop + length)
    assert torch.allclose(fast.double(), slow, atol=1e-4)


def test_sum_by_hand() -> None:
    frames_BTL = torch.tensor([[[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]])
    assert overlap_add(frames_BTL, 1).tolist() == [[1.0, 12.0, 23.0, 30.0]]
    assert overlap_add(frames_BTL, 4).tolist() == [[1.0, 2.0, 3.0, 0.0, 10.0, 20.0, 30.0]]


@pytest.mark.parametrize(("length", "hop"), SIZES)
@pytest.mark.parametrize("n_frames", [1, 2, 9])
def test_spectra_equal_reference(length: int, hop: int, n_frames: int) -> None:
    x_BN = noise(2, n_frames * hop)
    fast, slow = stft_same(x_BN, length, hop), stft_same_reference(x_BN, length, hop)
    assert fast.shape == slow.shape == (2, n_frames, length // 2 + 1)
    assert torch.allclose(fast.to(torch.complex128), slow, atol=1e-4)


@pytest.mark.parametrize(("length", "hop"), SIZES)
@pytest.mark.parametrize("n_frames", [1, 2, 9])
def test_inverse_equals_reference_for_any_spectra(length: int, hop: int, n_frames: int) -> None:
    x_BTF = spectra(2, n_frames, length)
    fast, slow = istft_same(x_BTF, length, hop), istft_same_reference(x_BTF, length, hop)
    assert fast.shape == slow.shape == (2, n_frames * hop)
    assert torch.allclose(fast.double(), slow, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(
    hop=st.integers(1, 12), more=st.integers(0, 30), n_frames=st.integers(1, 20),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_signal_comes_back(hop: int, more: int, n_frames: int, seed: int) -> None:
    length = max(4, 2 * hop + more + more % 2)
    x_BN = noise(1, n_frames * hop, seed=seed)
    again_BN = istft_same(stft_same(x_BN, length, hop), length, hop)
    assert again_BN.shape == x_BN.shape
    assert torch.allclose(again_BN, x_BN, atol=1e-4)


def test_inverse_is_least_squares() -> None:
    length, hop = 16, 4
    wanted_BTF = spectra(1, 6, length)
    found_BN = istft_same(wanted_BTF, length, hop)

    def distance(x_BN: torch.Tensor) -> float:
        off_BTF = stft_same(x_BN, length, hop) - wanted_BTF
        weight_F = torch.tensor([1.0] + [2.0] * (length // 2 - 1) + [1.0])  # of mirrored bins
        return float((off_BTF.abs().square() * weight_F).sum())

    least = distance(found_BN)
    assert all(distance(found_BN + 0.05 * noise(*found_BN.shape, seed=s)) > least for s in range(9))


def test_frames_are_centred_on_their_hop() -> None:
    x_BN = torch.zeros(1, 80)
    x_BN[0, 35] = 1.0  # the middle of hop 3
    energy_T = stft_same(x_BN, 40, 10)[0].abs().square().sum(-1)
    assert energy_T.argmax() == 3
    assert torch.isclose(energy_T[2], energy_T[4])


def test_inverse_has_a_gradient() -> None:
    x_BTF = spectra(1, 3, 4).to(torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: istft_same(s, 4, 2), (x_BTF,))


@pytest.mark.parametrize("call", [stft_same, stft_same_reference])
def test_spectra_refuse_what_does_not_fit(call: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="two hops of"):
        call(noise(1, 12), 7, 2)
    with pytest.raises(ValueError, match="two hops of"):
        call(noise(1, 12), 6, 4)
    with pytest.raises(ValueError, match="at least 4"):
        call(noise(1, 12), 2, 1)
    with pytest.raises(ValueError, match="multiple of 5"):
        call(noise(1, 12), 10, 5)


@pytest.mark.parametrize("call", [istft_same, istft_same_reference])
def test_inverse_refuses_what_does_not_fit(call: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="6 bins"):
        call(spectra(1, 3, 8), 10, 2)
    with pytest.raises(ValueError, match="two hops of"):
        call(spectra(1, 3, 8), 8, 5)


@pytest.mark.parametrize("call", [overlap_add, overlap_add_reference])
def test_sum_refuses_what_does_not_fit(call: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="at least 1, samples"):
        call(noise(1, 0, 4), 2)
    with pytest.raises(ValueError, match="hop 0"):
        call(noise(1, 2, 4), 0)
