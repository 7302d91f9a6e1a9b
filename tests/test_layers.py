"""Blocks of the models: orders that are easily had wrong, identities, masks, positions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.layers import (
    AdaLNZero,
    Attention,
    ConvNeXtBlock,
    DownBlock,
    Modulation,
    RMSNorm,
    SwiGLU,
    TimeConv,
    TimeEmbedding,
    TransformerBlock,
    UpBlock,
    normalise_tokens,
    regroup,
    rotate,
    shuffle,
    sinusoids,
    unshuffle,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def silence_convolution(block: DownBlock | UpBlock) -> None:
    for parameter in block.conv.parameters():
        torch.nn.init.zeros_(parameter)


class TestShuffles:
    @settings(deadline=None, max_examples=30)
    @given(
        batch=st.integers(1, 3), places=st.integers(1, 7), factor=st.integers(1, 8),
        width=st.integers(1, 6),
    )  # fmt: skip
    def test_one_undoes_the_other(self, batch: int, places: int, factor: int, width: int) -> None:
        x_BTW = torch.randn(batch, places * factor, width)
        assert torch.equal(shuffle(unshuffle(x_BTW, factor), factor), x_BTW)
        y_BTW = torch.randn(batch, places, width * factor)
        assert torch.equal(unshuffle(shuffle(y_BTW, factor), factor), y_BTW)

    def test_order_is_channel_outer_offset_inner(self) -> None:
        x_BTW = torch.randn(2, 12, 5)
        batch, length, width = x_BTW.shape
        # the formula of the design, on (B, C, L)
        x_BCL = x_BTW.transpose(1, 2)
        expected_BCL = (
            x_BCL.reshape(batch, width, length // 4, 4)
            .permute(0, 1, 3, 2)
            .reshape(batch, width * 4, length // 4)
        )
        assert torch.equal(unshuffle(x_BTW, 4), expected_BCL.transpose(1, 2))

    def test_no_multiple_is_refused(self) -> None:
        with pytest.raises(RuntimeError):
            unshuffle(torch.randn(1, 7, 2), 2)

    @pytest.mark.parametrize("factor", [1, 2, 5])
    def test_down_shortcut_averages_neighbouring_times(self, factor: int) -> None:
        block = DownBlock(6, 6, factor)
        silence_convolution(block)
        x_BTW = torch.randn(2, 4 * factor, 6)
        expected_BTW = F.avg_pool1d(x_BTW.transpose(1, 2), factor).transpose(1, 2)
        assert torch.allclose(block(x_BTW), expected_BTW, atol=1e-6)

    def test_down_shortcut_to_more_channels_averages_fewer_times(self) -> None:
        block = DownBlock(3, 6, 4)
        silence_convolution(block)
        x_BTW = torch.randn(1, 8, 3)
        pairs_BTW = F.avg_pool1d(x_BTW.transpose(1, 2), 2).transpose(1, 2)
        expected_BTW = torch.stack([pairs_BTW[:, 0::2], pairs_BTW[:, 1::2]], dim=-1).flatten(2)
        assert torch.allclose(block(x_BTW), expected_BTW, atol=1e-6)

    @pytest.mark.parametrize("factor", [1, 2, 5])
    def test_up_shortcut_is_repeat_interleave(self, factor: int) -> None:
        block = UpBlock(6, 6, factor)
        silence_convolution(block)
        x_BTW = torch.randn(2, 4, 6)
        assert torch.equal(block(x_BTW), x_BTW.repeat_interleave(factor, dim=1))

    def test_up_shortcut_to_half_the_channels_keeps_what_down_keeps(self) -> None:
        down, up = DownBlock(3, 6, 2), UpBlock(6, 3, 2)
        silence_convolution(down)
        silence_convolution(up)
        x_BTW = torch.randn(2, 8, 3)
        assert torch.equal(up(down(x_BTW)), x_BTW)

    @settings(deadline=None, max_examples=30)
    @given(have=st.integers(1, 24), want=st.integers(1, 24))
    def test_regroup_keeps_constants_and_order(self, have: int, want: int) -> None:
        rising = regroup(torch.arange(float(have)).expand(1, 2, have), want)
        assert rising.shape == (1, 2, want)
        assert (rising.diff(dim=-1) >= 0).all()
        assert torch.allclose(regroup(torch.full((1, 2, have), 3.0), want), torch.tensor(3.0))

    @pytest.mark.parametrize(("width", "out", "factor"), [(4, 8, 2), (32, 64, 5), (6, 4, 3)])
    def test_blocks_shapes_for_any_ratio(self, width: int, out: int, factor: int) -> None:
        low = DownBlock(width, out, factor)(torch.randn(2, 3 * factor, width))
        assert low.shape == (2, 3, out)
        assert UpBlock(out, width, factor)(low).shape == (2, 3 * factor, width)


class TestConvolution:
    @pytest.mark.parametrize(("out", "kernel"), [(6, 7), (4, 3), (6, 1)])
    def test_is_conv1d(self, out: int, kernel: int) -> None:
        layer = TimeConv(6, out, kernel)
        x_BTW = torch.randn(2, 9, 6)
        expected_BWT = F.conv1d(
            x_BTW.transpose(1, 2), layer.conv.weight[:, :, 0], layer.conv.bias,
            padding=kernel // 2,
        )  # fmt: skip
        assert torch.allclose(layer(x_BTW), expected_BWT.transpose(1, 2), atol=1e-5)

    def test_convnext_sees_three_positions_either_side(self) -> None:
        block = ConvNeXtBlock(4)
        x_BTW = torch.randn(1, 15, 4, requires_grad=True)
        (grad_BTW,) = torch.autograd.grad(block(x_BTW)[0, 7].square().sum(), x_BTW)
        seen_T = grad_BTW[0].abs().sum(-1) > 0
        assert seen_T.nonzero().flatten().tolist() == list(range(4, 11))

    @pytest.mark.parametrize("length", [1, 2, 9])
    def test_convnext_takes_any_length(self, length: int) -> None:
        assert ConvNeXtBlock(8)(torch.randn(2, length, 8)).shape == (2, length, 8)


class TestAdaLNZero:
    def test_convnext_starts_as_identity(self) -> None:
        block, adaln = ConvNeXtBlock(8, modulated=True), AdaLNZero(5, 8)
        x_BTW = torch.randn(2, 12, 8)
        assert torch.equal(block(x_BTW, *adaln(torch.randn(2, 3, 5))), x_BTW)

    def test_transformer_starts_as_identity(self) -> None:
        block, adaln = TransformerBlock(8, 2, modulated=True), AdaLNZero(5, 8, parts=2)
        x_BTW = torch.randn(2, 12, 8)
        assert torch.equal(block(x_BTW, adaln(torch.randn(2, 1, 5))), x_BTW)

    def test_gradient_reaches_the_projection_at_the_start(self) -> None:
        block, adaln = ConvNeXtBlock(8, modulated=True), AdaLNZero(5, 8)
        block(torch.randn(2, 12, 8), *adaln(torch.randn(2, 3, 5))).square().sum().backward()
        assert adaln.project.weight.grad is not None
        assert adaln.project.weight.grad[16:].abs().sum() > 0  # the gate's rows

    def test_latent_rate_equals_full_rate(self) -> None:
        block, adaln = ConvNeXtBlock(8, modulated=True), AdaLNZero(5, 8)
        torch.nn.init.normal_(adaln.project.weight)
        x_BTW, condition_BLK = torch.randn(2, 12, 8), torch.randn(2, 3, 5)
        full_BTK = condition_BLK.repeat_interleave(4, dim=1)
        slow = block(x_BTW, *adaln(full_BTK))
        assert torch.allclose(block(x_BTW, *adaln(condition_BLK)), slow, atol=1e-5)

    def test_parts_come_in_order(self) -> None:
        adaln = AdaLNZero(2, 3, parts=2)
        torch.nn.init.zeros_(adaln.project.weight)
        adaln.project.bias.data = torch.arange(18.0)
        first, second = adaln(torch.randn(1, 1, 2))
        assert isinstance(first, Modulation)
        assert first.gate_BLW.flatten().tolist() == [6.0, 7.0, 8.0]
        assert second.scale_BLW.flatten().tolist() == [9.0, 10.0, 11.0]


class TestEmbeddings:
    def test_sinusoids(self) -> None:
        found = sinusoids(torch.tensor([0.0, 2.0]), 4, longest=100.0)
        expected = [[1.0, 1.0, 0.0, 0.0],
                    [math.cos(2), math.cos(0.2), math.sin(2), math.sin(0.2)]]  # fmt: skip
        assert torch.allclose(found, torch.tensor(expected), atol=1e-6)

    def test_times_are_told_apart(self) -> None:
        embed = TimeEmbedding(16)
        t_B = torch.linspace(0, 1, 101)
        embedded = embed(t_B)
        assert embedded.shape == (101, 16)
        distance = torch.cdist(embedded, embedded) + torch.eye(101) * 1e9
        assert distance.min() > 1e-3

    def test_tokens_have_no_mean_and_unit_variance(self) -> None:
        z_BLD = normalise_tokens(5.0 + 3.0 * torch.randn(2, 7, 16).bfloat16())
        assert z_BLD.dtype == torch.float32
        assert torch.allclose(z_BLD.mean(-1), torch.tensor(0.0), atol=1e-5)
        assert torch.allclose(z_BLD.var(-1, unbiased=False), torch.tensor(1.0), atol=1e-3)


class TestAttention:
    def test_rotation_depends_on_the_distance_alone(self) -> None:
        query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
        turned_query = rotate(query.expand(1, 1, 9, 8))[0, 0]
        turned_key = rotate(key.expand(1, 1, 9, 8))[0, 0]
        scores = turned_query @ turned_key.T
        for offset in (-3, 0, 4):
            diagonal = scores.diagonal(offset)
            assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-5)
        assert torch.allclose(turned_query.norm(dim=-1), query.norm().expand(9), atol=1e-5)

    def test_is_softmax_of_scaled_products(self) -> None:
        layer = Attention(12, 2, context=5)
        x_BTW, context_BSW = torch.randn(2, 4, 12), torch.randn(2, 3, 5)
        key, value = layer.key_value(context_BSW).chunk(2, dim=-1)
        heads = []
        for h in (slice(0, 6), slice(6, 12)):
            query_BTE = layer.norm_query(layer.query(x_BTW)[..., h])
            weights_BTS = query_BTE @ layer.norm_key(key[..., h]).transpose(1, 2) / math.sqrt(6)
            heads.append(weights_BTS.softmax(-1) @ value[..., h])
        expected = layer.out(torch.cat(heads, dim=-1))
        assert torch.allclose(layer(x_BTW, context_BSW), expected, atol=1e-5)

    def test_context_has_no_order_of_its_own(self) -> None:
        layer = Attention(8, 2, context=8)
        x_BTW, context_BSW = torch.randn(1, 4, 8), torch.randn(1, 5, 8)
        assert torch.allclose(layer(x_BTW, context_BSW), layer(x_BTW, context_BSW.flip(1)),
                              atol=1e-5)  # fmt: skip
        itself = Attention(8, 2)
        assert not torch.allclose(itself(x_BTW), itself(x_BTW.flip(1)).flip(1), atol=1e-3)

    def test_masked_keys_have_no_gradient(self) -> None:
        block = TransformerBlock(8, 2, context=6)
        x_BTW = torch.randn(2, 5, 8, requires_grad=True)
        context_BSW = torch.randn(2, 4, 6, requires_grad=True)
        mask_BT = torch.arange(5) < torch.tensor([[5], [3]])
        context_mask_BS = torch.arange(4) < torch.tensor([[1], [4]])
        out_BTW = block(x_BTW, mask=mask_BT, context_BSW=context_BSW, context_mask=context_mask_BS)
        real = out_BTW[mask_BT].square().sum()
        x_grad, context_grad = torch.autograd.grad(real, (x_BTW, context_BSW))
        assert (x_grad[~mask_BT] == 0).all()
        assert (x_grad[mask_BT].abs().sum(-1) > 0).all()
        assert (context_grad[~context_mask_BS] == 0).all()

    def test_masked_equals_shorter(self) -> None:
        layer = Attention(8, 2)
        x_BTW = torch.randn(1, 7, 8)
        masked = layer(x_BTW, None, torch.arange(7)[None] < 4)[:, :4]
        assert torch.allclose(masked, layer(x_BTW[:, :4]), atol=1e-5)

    def test_a_mask_of_pairs_hides_what_comes_later(self) -> None:
        block = TransformerBlock(8, 2)
        x_BTW = torch.randn(2, 5, 8, requires_grad=True)
        causal_1TT = torch.ones(5, 5, dtype=torch.bool).tril()[None]
        out_BTW = block(x_BTW, mask=causal_1TT)
        (grad_BTW,) = torch.autograd.grad(out_BTW[:, 2].square().sum(), x_BTW)
        assert (grad_BTW[:, 3:] == 0).all()
        assert (grad_BTW[:, :3].abs().sum(-1) > 0).all()
        shorter = block(x_BTW[:, :3], mask=causal_1TT[:, :3, :3])
        assert torch.allclose(shorter, out_BTW[:, :3], atol=1e-5)

    def test_rms_norm_and_swiglu_by_formula(self) -> None:
        x_BTW = torch.randn(2, 3, 6)
        expected = x_BTW / x_BTW.square().mean(-1, keepdim=True).sqrt()
        assert torch.allclose(RMSNorm(6)(x_BTW), expected, atol=1e-4)
        layer = SwiGLU(6, 10)
        gate, value = (x_BTW @ layer.widen.weight.T).split(10, dim=-1)
        expected = (gate * torch.sigmoid(gate) * value) @ layer.narrow.weight.T
        assert torch.allclose(layer(x_BTW), expected, atol=1e-5)


@pytest.mark.parametrize("modulated", [False, True])
def test_blocks_under_bfloat16_autocast_keep_a_float32_residual(modulated: bool) -> None:
    x_BTW, condition_BLK = torch.randn(2, 6, 16), torch.randn(2, 3, 4)
    one, two = AdaLNZero(4, 16), AdaLNZero(4, 16, parts=2)
    for adaln in (one, two):
        torch.nn.init.normal_(adaln.project.weight, std=0.3)
    conv, attend = (
        ConvNeXtBlock(16, modulated=modulated),
        TransformerBlock(16, 2, modulated=modulated),
    )

    def run() -> torch.Tensor:
        h_BTW = conv(x_BTW, one(condition_BLK)[0] if modulated else None)
        out_BTW: torch.Tensor = attend(h_BTW, two(condition_BLK) if modulated else ())
        return out_BTW

    exact = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = run()
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, atol=0.1)
