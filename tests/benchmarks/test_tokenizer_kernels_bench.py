"""Time the tokenizer's kernels: pytest tests/benchmarks --benchmark-enable. Otherwise once each.

Sizes are those of the shipped decoder: a bar of 128 frames, 64 tokens, width 384.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mgen.kernels.adaln import gate_residual, gate_residual_reference, modulate, modulate_reference
from mgen.kernels.depthwise import depthwise, depthwise_reference
from mgen.kernels.overlap_add import (
    istft_same,
    istft_same_reference,
    overlap_add,
    overlap_add_reference,
    stft_same,
    stft_same_reference,
)

FRAMES, TOKENS, WIDTH, LENGTH, HOP = 128, 64, 384, 1024, 256


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("call", [modulate, modulate_reference])
def test_modulate(benchmark: Any, call: Any) -> None:
    condition_BLW = noise(1, TOKENS, WIDTH)
    out = benchmark(call, noise(1, FRAMES, WIDTH), condition_BLW, condition_BLW)
    assert out.shape == (1, FRAMES, WIDTH)


@pytest.mark.parametrize("call", [gate_residual, gate_residual_reference])
def test_gate_residual(benchmark: Any, call: Any) -> None:
    x_BTW = noise(1, FRAMES, WIDTH)
    out = benchmark(call, x_BTW, x_BTW, noise(1, TOKENS, WIDTH))
    assert out.shape == (1, FRAMES, WIDTH)


@pytest.mark.parametrize("rate", ["latent", "full"])
def test_modulation_with_its_projection(benchmark: Any, rate: str) -> None:
    """What the trick saves in the seed's UNet: scale and shift for 4096 positions of 64 tokens."""
    x_BTW, tokens_BLK = noise(1, 4096, 64), noise(1, TOKENS, 256)
    condition = tokens_BLK if rate == "latent" else tokens_BLK.repeat_interleave(64, dim=1)
    weight_KW = noise(256, 128)

    def run() -> torch.Tensor:
        scale, shift = (condition @ weight_KW).chunk(2, dim=-1)
        return modulate(x_BTW, scale, shift)

    assert benchmark(run).shape == x_BTW.shape


def by_pytorch(x_BTW: torch.Tensor, kernel_WK: torch.Tensor, bias_W: torch.Tensor) -> torch.Tensor:
    """The peer: PyTorch's own convolution, backward too."""
    kernel_W1K, x_BWT = kernel_WK[:, None], x_BTW.transpose(1, 2)
    padding, groups = kernel_WK.shape[1] // 2, len(kernel_WK)
    out_BWT = torch.nn.functional.conv1d(x_BWT, kernel_W1K, bias_W, padding=padding, groups=groups)
    return out_BWT.transpose(1, 2)


@pytest.mark.parametrize("call", [depthwise, by_pytorch, depthwise_reference])
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_depthwise(benchmark: Any, call: Any, way: str) -> None:
    inputs = [noise(8, FRAMES, WIDTH), noise(WIDTH, 7), noise(WIDTH)]
    if way == "forward":
        assert benchmark(call, *inputs).shape == (8, FRAMES, WIDTH)
        return
    inputs = [value.requires_grad_() for value in inputs]
    out_BTW = call(*inputs)
    ones = torch.ones_like(out_BTW)
    grads = benchmark(lambda: torch.autograd.grad(out_BTW, inputs, ones, retain_graph=True))
    assert [g.shape for g in grads] == [value.shape for value in inputs]


@pytest.mark.parametrize("call", [overlap_add, overlap_add_reference])
@pytest.mark.parametrize("hop", [HOP, HOP - 1], ids=["whole-hops", "fold"])
def test_overlap_add(benchmark: Any, call: Any, hop: int) -> None:
    signal = benchmark(call, noise(1, FRAMES, LENGTH), hop)
    assert signal.shape == (1, (FRAMES - 1) * hop + LENGTH)


@pytest.mark.parametrize("call", [stft_same, stft_same_reference])
def test_stft_same(benchmark: Any, call: Any) -> None:
    spectra = benchmark(call, noise(1, 8 * HOP), LENGTH, HOP)
    assert spectra.shape == (1, 8, LENGTH // 2 + 1)


@pytest.mark.parametrize("call", [istft_same, istft_same_reference])
def test_istft_same(benchmark: Any, call: Any) -> None:
    spectra = torch.complex(
        noise(1, FRAMES, LENGTH // 2 + 1), noise(1, FRAMES, LENGTH // 2 + 1).flip(1)
    )
    signal = benchmark(call, spectra, LENGTH, HOP)
    assert signal.shape == (1, FRAMES * HOP)
