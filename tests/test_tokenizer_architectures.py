"""The seed's two tokenizers, tiny: shapes, identities, masks, gradients, learning one batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mgen.core import flow
from mgen.core.tokenizer import PRESETS, Tokenizer, TokenizerConfig, build, make_config
from mgen.core.tokenizer.config import Arch
from mgen.core.tokenizer.dito_unet import DitoUNet, UNetBlock, ratios
from mgen.core.tokenizer.perceiver import Perceiver

BOTH: tuple[Arch, ...] = ("dito-unet", "perceiver")
HOP, TOKENS = 64, 6
TINY: dict[str, dict[str, Any]] = {
    "dito-unet": {"channels": (4, 8, 8, 12, 16), "blocks": 1, "encoder_blocks": 1},
    "perceiver": {"patch": 32, "hidden": 32, "heads": 2, "encoder_depth": 2, "decoder_depth": 2},
}

LEARNED = {"dito-unet": 0.6, "perceiver": 0.3}
"""What must be left of the loss after 40 steps; measured: 0.41 and 0.11."""


def tiny(arch: Arch, **changed: Any) -> Any:
    """An untrained network with the same weights every time."""
    shape: dict[str, Any] = {
        "arch": arch, "unit": "bar", "rate": 16000, "channels": 1, "samples": HOP * TOKENS,
        "tokens": TOKENS, "dims": 4, "prediction": "v" if arch == "dito-unet" else "x",
        "sizes": TINY[arch],
    }  # fmt: skip
    torch.manual_seed(0)
    return build(TokenizerConfig(**{**shape, **changed}))


def woken(network: Any) -> Any:
    """The network with noise in place of all zeros, as if it had been trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2, generator=generator)
    return network


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tones(n_samples: int = HOP * TOKENS) -> Tensor:
    """Two notes (2, 1, N)."""
    time_N = torch.arange(n_samples) / 16000
    notes = [(230.0, 20.0), (610.0, 90.0)]
    return torch.stack(
        [0.3 * torch.sin(math.tau * hz * time_N) * torch.exp(-rate * time_N) for hz, rate in notes]
    )[:, None]


@pytest.mark.parametrize("arch", BOTH)
class TestBoth:
    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("tokens", [TOKENS, 1, 7])
    def test_shapes(self, arch: Arch, channels: int, tokens: int) -> None:
        network = tiny(arch, channels=channels)
        x_BCN = noise(3, channels, tokens * HOP)
        z_BLD = network.encode(x_BCN)
        assert z_BLD.shape == (3, tokens if arch == "dito-unet" else TOKENS, 4)
        assert z_BLD.dtype == torch.float32
        condition = network.condition(z_BLD)
        x = network.to_flow(x_BCN, condition)
        assert x.shape == (3, *network.flow_shape(tokens * HOP))
        assert network.predict(x, torch.rand(3), condition).shape == x.shape
        assert network.extra_losses(condition, x_BCN) == {}

    @pytest.mark.parametrize("channels", [1, 2])
    def test_space_of_the_flow_is_left_as_it_was_entered(self, arch: Arch, channels: int) -> None:
        network = tiny(arch, channels=channels)
        n = 3 * HOP if arch == "dito-unet" else 3 * HOP + 17
        x_BCN = noise(2, channels, n)
        condition = network.condition(noise(2, TOKENS, 4))
        again_BCN = network.from_flow(network.to_flow(x_BCN, condition), condition, n)
        assert torch.allclose(again_BCN, x_BCN, atol=1e-6)

    def test_tokens_are_normal(self, arch: Arch) -> None:
        z_BLD = tiny(arch).encode(noise(2, 1, HOP * TOKENS))
        assert torch.allclose(z_BLD.mean(-1), torch.tensor(0.0), atol=1e-5)
        assert torch.allclose(z_BLD.square().mean(-1), torch.tensor(1.0), atol=1e-2)

    def test_says_nothing_at_the_start(self, arch: Arch) -> None:
        network = tiny(arch)
        condition = network.condition(noise(2, TOKENS, 4))
        x = torch.randn(2, *network.flow_shape(HOP * TOKENS))
        assert not network.predict(x, torch.rand(2), condition).any()

    def test_depends_on_noise_time_and_latents(self, arch: Arch) -> None:
        network = woken(tiny(arch))
        z_BLD = noise(1, TOKENS, 4)
        x, t_B = noise(1, *network.flow_shape(HOP * TOKENS)), torch.tensor([0.3])
        out = network.predict(x, t_B, network.condition(z_BLD))
        others = [
            network.predict(x + 0.1, t_B, network.condition(z_BLD)),
            network.predict(x, t_B + 0.3, network.condition(z_BLD)),
            network.predict(x, t_B, network.condition(z_BLD + 0.5)),
        ]
        assert all((out - other).abs().max() > 1e-4 for other in others)

    def test_gradient_reaches_everything(self, arch: Arch) -> None:
        network = woken(tiny(arch))
        x_BCN = noise(2, 1, HOP * TOKENS)
        condition = network.condition(network.encode(x_BCN))
        x = network.to_flow(x_BCN, condition)
        network.predict(x, torch.rand(2), condition).square().sum().backward()
        without = [
            name for name, p in network.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.any())
        ]  # fmt: skip
        assert without == []

    def test_same_seed_same_samples(self, arch: Arch) -> None:
        one, two = Tokenizer(woken(tiny(arch))), Tokenizer(woken(tiny(arch)))
        x_BCN = noise(2, 1, HOP * TOKENS)
        z_BLD = one.encode(x_BCN)
        assert torch.equal(z_BLD, two.encode(x_BCN))
        sound = one.decode(z_BLD, keys=[5, 6], steps=2)
        assert sound.shape == x_BCN.shape
        assert torch.equal(sound, two.decode(z_BLD, keys=[5, 6], steps=2))
        assert not torch.equal(sound, two.decode(z_BLD, keys=[5, 6], steps=2, seed=1))
        alone = one.decode(z_BLD[1:], keys=[6], steps=2)
        assert torch.allclose(sound[1:], alone, atol=1e-5)

    def test_learns_one_batch(self, arch: Arch) -> None:
        network, x_BCN = tiny(arch), tones()
        optimiser = torch.optim.AdamW(network.parameters(), lr=6e-3)
        losses = [_step(network, optimiser, x_BCN, seed) for seed in range(40)]
        assert 0.8 < sum(losses[:2]) / 2 < 1.2  # nothing said: the power of what is to be said
        assert sum(losses[-8:]) / 8 < LEARNED[arch]

    def test_shipped_size_fits_the_budget(self, arch: Arch) -> None:
        with torch.device("meta"):
            network: Any = build(make_config("bar", arch, "small")).requires_grad_(False)
            config = network.config
            condition = network.condition(torch.zeros(1, config.tokens, config.dims))
            x = torch.zeros(1, *network.flow_shape(config.samples))
            with FlopCounterMode(display=False) as counter:
                network.predict(x, torch.zeros(1), condition)
        assert counter.get_total_flops() <= 10e9
        assert sum(p.numel() for p in network.parameters()) * 2 <= 32e6

    @pytest.mark.parametrize("preset", PRESETS)
    @pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2)])
    def test_every_preset_builds(self, arch: Arch, preset: str, rate: int, channels: int) -> None:
        config = make_config(preset, arch, "small", rate=rate, channels=channels)
        with torch.device("meta"):
            network: Any = build(config)
            condition = network.condition(torch.zeros(1, config.tokens, config.dims))
            x = torch.zeros(1, *network.flow_shape(config.samples))
            assert network.predict(x, torch.zeros(1), condition).shape == x.shape


def _step(network: Any, optimiser: torch.optim.Optimizer, x_BCN: Tensor, seed: int) -> float:
    """One step; gives the loss over the target's power."""
    generator = torch.Generator().manual_seed(seed)
    condition = network.condition(network.encode(x_BCN))
    x = network.to_flow(x_BCN, condition)
    eps, t_B = torch.randn(x.shape, generator=generator), torch.rand(len(x), generator=generator)
    target = flow.velocity(x, eps, 1e-5) if network.config.prediction == "v" else x
    said = network.predict(flow.blend(x, eps, t_B, 1e-5), t_B, condition)
    loss = (said - target).square().mean() / target.square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


class TestRatios:
    @pytest.mark.parametrize(
        ("hop", "expected"),
        [
            (512, (8, 4, 4, 2, 2)),
            (320, (5, 4, 4, 2, 2)),
            (500, (5, 5, 5, 2, 2)),
            (2000, (10, 5, 5, 4, 2)),
        ],
    )
    def test_of_the_presets(self, hop: int, expected: tuple[int, ...]) -> None:
        assert ratios(hop) == expected

    @settings(deadline=None, max_examples=30)
    @given(hop=st.integers(1, 3000))
    def test_multiply_to_the_hop(self, hop: int) -> None:
        found = ratios(hop)
        assert len(found) == 5
        assert math.prod(found) == hop


class TestDitoUNet:
    def test_modulation_at_latent_rate_is_that_at_full_rate(self) -> None:
        torch.manual_seed(0)
        block = woken(UNetBlock(8, 5, skip=True))
        x_BTW, skip_BTW = noise(2, 24, 8), noise(2, 24, 8, seed=1)
        condition_BLK = noise(2, 3, 5, seed=2)
        full_BTK = condition_BLK.repeat_interleave(8, dim=1)
        slow = block(x_BTW, full_BTK, skip_BTW)
        assert torch.allclose(block(x_BTW, condition_BLK, skip_BTW), slow, atol=1e-6)

    def test_one_skip_a_scale_reaches_all_its_later_layers(self) -> None:
        network = tiny("dito-unet", sizes={**TINY["dito-unet"], "blocks": 2})
        kept: list[Tensor] = []
        given_to: list[list[Tensor]] = []
        for before, after in zip(network.unet.before, network.unet.after, strict=True):
            before[-1].register_forward_hook(lambda _m, _i, out: kept.append(out))
            seen: list[Tensor] = []
            given_to.append(seen)
            for block in after:
                block.register_forward_hook(lambda _m, i, _o, seen=seen: seen.append(i[2]))
        network.predict(noise(1, 1, 2 * HOP), torch.zeros(1), noise(1, 2, 16))
        for skip, seen in zip(kept, given_to, strict=True):
            assert len(seen) == 2
            assert all(found is skip for found in seen)

    @pytest.mark.parametrize("n", [0, 1, HOP - 1, HOP + 1])
    def test_refuses_parts_of_tokens(self, n: int) -> None:
        with pytest.raises(ValueError, match="no multiple of a token"):
            tiny("dito-unet").encode(torch.zeros(1, 1, n))

    def test_refuses_lengths(self) -> None:
        network: DitoUNet = tiny("dito-unet")
        with pytest.raises(ValueError, match="perceiver"):
            network.encode(torch.zeros(1, 1, HOP), torch.tensor([HOP]))
        with pytest.raises(ValueError, match="perceiver"):
            network.condition(torch.zeros(1, 1, 4), torch.tensor([HOP]))


class TestPerceiver:
    @pytest.mark.parametrize("n", [1, 31, 32, 33, 777])
    def test_any_length_gives_the_same_tokens_and_comes_back(self, n: int) -> None:
        tokenizer = Tokenizer(woken(tiny("perceiver", channels=2)))
        z_BLD = tokenizer.encode(noise(1, 2, n))
        assert z_BLD.shape == (1, TOKENS, 4)
        sound = tokenizer.decode(z_BLD, keys=[0], steps=1, n_samples=n)
        assert sound.shape == (1, 2, n)
        assert sound.isfinite().all()

    @pytest.mark.parametrize("channels", [1, 2])
    def test_samples_beyond_the_length_change_nothing(self, channels: int) -> None:
        network: Perceiver = woken(tiny("perceiver", channels=channels))
        lengths_B = torch.tensor([100, 250, 1])
        x_BCN = noise(3, channels, 250).requires_grad_()
        beyond_BN = torch.arange(250) >= lengths_B[:, None]
        z_BLD = network.encode(x_BCN, lengths_B)
        (grad_BCN,) = torch.autograd.grad(z_BLD[..., 0].square().sum(), x_BCN)
        reached_BN = grad_BCN.abs().sum(1) > 0
        assert torch.equal(reached_BN, ~beyond_BN)
        other_BCN = torch.where(beyond_BN[:, None], 9.0, x_BCN.detach())
        assert torch.equal(network.encode(other_BCN, lengths_B), z_BLD)
        alone_BLD = network.encode(x_BCN[:1, :, :100])
        assert torch.allclose(alone_BLD, z_BLD[:1], atol=1e-5)

    def test_noise_beyond_the_length_changes_nothing(self) -> None:
        network: Perceiver = woken(tiny("perceiver"))
        lengths_B = torch.tensor([100, 250])
        condition = network.condition(noise(2, TOKENS, 4), lengths_B)
        x_BPG = noise(2, *network.flow_shape(250)).requires_grad_()
        out_BPG = network.predict(x_BPG, torch.tensor([0.3, 0.6]), condition)
        (grad_BPG,) = torch.autograd.grad(out_BPG.square().sum(), x_BPG)
        real_BN = torch.arange(256) < lengths_B[:, None]
        assert torch.equal(grad_BPG.flatten(1) != 0, real_BN)
        assert torch.equal(out_BPG.flatten(1) != 0, real_BN)
        assert torch.equal(network.to_flow(torch.ones(2, 1, 250), condition).flatten(1) != 0,
                           real_BN)  # fmt: skip

    def test_padded_decodes_as_alone(self) -> None:
        tokenizer = Tokenizer(woken(tiny("perceiver")))
        z_BLD, lengths_B = noise(2, TOKENS, 4), torch.tensor([100, 250])
        padded = tokenizer.decode(z_BLD, keys=[3, 4], steps=2, n_samples=250, lengths_B=lengths_B)
        assert padded.shape == (2, 1, 250)
        assert not padded[0, :, 100:].any()
        alone = tokenizer.decode(
            z_BLD[:1], keys=[3], steps=2, n_samples=100, lengths_B=lengths_B[:1]
        )
        assert torch.allclose(padded[:1, :, :100], alone, atol=1e-5)

    @pytest.mark.parametrize("lengths", [[0, 50], [50, 101], [-1, 3]])
    def test_refuses_impossible_lengths(self, lengths: list[int]) -> None:
        with pytest.raises(ValueError, match="1 to 100 samples"):
            tiny("perceiver").encode(torch.zeros(2, 1, 100), torch.tensor(lengths))
