"""The spectral architecture: its spaces round-trip, its parts learn, and an item is its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mgen.core import flow
from mgen.core.tokenizer import Tokenizer, TokenizerConfig, make_config
from mgen.core.tokenizer.bands import Bands, semitones
from mgen.core.tokenizer.data import DataSettings
from mgen.core.tokenizer.spectral import Spectral, companded, expanded, frames_per_token
from mgen.core.tokenizer.tones import tones
from mgen.core.tokenizer.training import LossWeights, TokenizerTask

TINY = {
    "encoder": 16, "encoder_depth": 1, "guide": 16, "guide_depth": 1, "decoder": 24,
    "decoder_depth": 2, "condition": 8,
}  # fmt: skip


def tiny(preset: str = "bar", rate: int = 16000, channels: int = 1) -> TokenizerConfig:
    return dataclasses.replace(make_config(preset, rate=rate, channels=channels), sizes=TINY)


def sound(items: int, config: TokenizerConfig, samples: int | None = None) -> torch.Tensor:
    """Chords of random pitches with attacks and a little noise (items, C, N)."""
    generator = torch.Generator().manual_seed(5)
    n = samples or config.samples
    t = torch.arange(n) / config.rate
    shape = (items, config.channels, 1)
    out = 0.003 * torch.randn((items, config.channels, n), generator=generator)
    for _ in range(4):
        hz = 80.0 * 2.0 ** (4.0 * torch.rand(shape, generator=generator))
        start = torch.rand(shape, generator=generator) * n / config.rate * 0.7
        since = (t - start).clamp(min=0.0)
        out += 0.2 * torch.sin(2 * torch.pi * hz * since) * torch.exp(-4.0 * since) * (t > start)
    return out


@pytest.mark.parametrize(
    ("preset", "rate", "channels"),
    [("bar", 16000, 1), ("50x128", 16000, 1), ("32x16", 16000, 2), ("8x256", 16000, 1),
     ("bar", 44100, 2), ("32x16", 48000, 1)],
)  # fmt: skip
def test_shapes_and_round_trip_of_the_flow_space(preset: str, rate: int, channels: int) -> None:
    config = tiny(preset, rate, channels)
    net = Spectral(config)
    x_BCN = sound(2, config)
    net.calibrate(x_BCN)
    z_BLD = net.encode(x_BCN)
    assert z_BLD.shape == (2, config.tokens, config.dims)
    torch.testing.assert_close(z_BLD.mean(-1), torch.zeros(2, config.tokens), atol=1e-5, rtol=0)
    assert (z_BLD.var(-1, unbiased=False) < 1.001).all()
    condition = net.condition(z_BLD)
    frames = net.to_flow(x_BCN, condition)
    assert frames.shape == (2, *net.flow_shape(config.samples))
    back_BCN = net.from_flow(frames, condition, config.samples)
    torch.testing.assert_close(back_BCN, x_BCN, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 65])
def test_any_number_of_tokens(tokens: int) -> None:
    config = tiny("32x16")
    net = Spectral(config)
    x_BCN = sound(1, config, tokens * config.hop)
    z_BLD = net.encode(x_BCN)
    assert z_BLD.shape[1] == tokens
    out = Tokenizer(net).decode(z_BLD, keys=[0], steps=1)
    assert out.shape == x_BCN.shape


def test_samples_that_are_no_whole_number_of_tokens_are_refused() -> None:
    net = Spectral(tiny())
    with pytest.raises(ValueError, match="whole number of tokens"):
        net.encode(torch.zeros(1, 1, 32768 + 100))
    with pytest.raises(ValueError, match="perceiver"):
        net.encode(torch.zeros(1, 1, 32768), torch.tensor([20000]))


def test_the_whitened_space_of_a_right_guide_has_unit_variance() -> None:
    """White noise under a guide that knows its level: every bin near variance one."""
    config = tiny()
    net = Spectral(config)
    x_BCN = 0.1 * torch.randn((4, 1, config.samples), generator=torch.Generator().manual_seed(0))
    condition = net.condition(net.encode(x_BCN))
    power = 0.1**2 * torch.hann_window(net.n_fft).square().sum()
    right = condition._replace(gain_BCTF=power.sqrt().expand_as(condition.gain_BCTF))
    frames = net.to_flow(x_BCN, right)[:, :, 4:-4]
    # what complex normal numbers of unit power have
    draws = torch.randn((2, 100000), generator=torch.Generator().manual_seed(1)) / 2**0.5
    expected = companded(draws.square().sum(0).sqrt()).square().mean()
    both = frames.square().unflatten(-1, (2, -1)).sum(-2)[..., 2:-2] / 2.0
    torch.testing.assert_close(both.mean(), expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("db", [-80, -20, -1, 0, 1, 20, 59])
def test_companding_is_undone(db: float) -> None:
    size = torch.tensor([10 ** (db / 20)], dtype=torch.float64)
    torch.testing.assert_close(expanded(companded(size)), size)
    assert float(companded(size)) <= float(size) + 1e-12


def test_bands_spread_to_bins_keep_a_flat_spectrum_flat() -> None:
    net = Spectral(tiny())
    flat_F = torch.full((net.n_fft // 2 + 1,), 3.0)
    torch.testing.assert_close((flat_F @ net.mel.filters_FM) @ net.mel.spread_MF, flat_F)


def test_the_guide_loss_is_zero_for_the_true_spectrum_and_ten_db_is_one() -> None:
    config = tiny()
    net = Spectral(config)
    x_BCN = sound(2, config)
    condition = net.condition(net.encode(x_BCN))
    true = torch.log10((net._stft(x_BCN).abs().square() @ net.mel.filters_FM).clamp(min=1e-10))
    assert net.extra_losses(condition._replace(mel_BCTM=true), x_BCN)["guide"] < 1e-6
    louder = net.extra_losses(condition._replace(mel_BCTM=true + 1.0), x_BCN)["guide"]
    assert 0.7 < float(louder) <= 1.0 + 1e-5  # what lies below the range counts for less


def test_the_guide_is_not_pushed_by_the_flow() -> None:
    """Whitening is measured against, not learned: the flow's space carries no gradient."""
    config = tiny()
    net = Spectral(config)
    x_BCN = sound(1, config)
    condition = net.condition(net.encode(x_BCN))
    assert condition.mel_BCTM.requires_grad
    assert not net.to_flow(x_BCN, condition).requires_grad


def test_calibrated_it_begins_with_the_principal_components() -> None:
    """The guide of an untrained model is the projection that numpy makes."""
    config = tiny()
    net = Spectral(config)
    with torch.no_grad():  # the networks beside the linear map silent
        for parameter in (*net.to_tokens.parameters(), *net.to_mel.parameters()):
            parameter.zero_()
    x_BCN = sound(4, config)
    net.calibrate(x_BCN)
    mel_BCTM = torch.log10((net._stft(x_BCN).abs().square() @ net.mel.filters_FM).clamp(min=1e-10))
    mel_BCTM = mel_BCTM.maximum(mel_BCTM.amax((1, 2, 3), keepdim=True) - 8.0)
    tokens = mel_BCTM[:, 0].unflatten(1, (-1, 2)).flatten(2).flatten(0, 1).numpy()
    mean = tokens.mean(0)
    basis = np.linalg.svd(tokens - mean, full_matrices=False)[2][: config.dims - 2]
    expected = (tokens - mean) @ basis.T @ basis + mean
    with torch.no_grad():
        # tokens near the floor may differ: the encoder hears below it
        found = net.condition(net.encode(x_BCN)).mel_BCTM[:, 0].unflatten(1, (-1, 2))
    error = np.abs(found.flatten(2).flatten(0, 1).numpy() - expected)
    assert np.median(error) < 1e-3
    own = np.abs(expected - tokens).mean()
    assert np.abs(found.flatten(2).flatten(0, 1).numpy() - tokens).mean() < own + 0.05


@pytest.mark.parametrize("preset", ["50x128", "8x256"])
def test_an_update_does_not_undo_what_calibration_gave(preset: str) -> None:
    """Of many inputs and dims each weight may move by the rate: 8x256 lost 11 dB in one update."""
    config = make_config(preset)
    torch.manual_seed(0)
    net = Spectral(config)
    x_BCN = sound(24, config, 16 * config.hop)
    net.calibrate(x_BCN)
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=2e-4)
    losses = []
    for _ in range(3):
        losses.append(net.extra_losses(net.condition(net.encode(x_BCN)), x_BCN)["guide"])
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0] < 0.2  # 2 dB
    assert losses[1] < 1.7 * losses[0]
    assert losses[2] < 1.2 * losses[0]


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2)])
@torch.no_grad()
def test_the_last_touch_brings_bands_to_the_guides_levels(rate: int, channels: int) -> None:
    config = tiny(rate=rate, channels=channels)
    net = Spectral(config)
    truth_BCN = sound(2, config)
    right = net.condition(net.encode(truth_BCN))._replace(
        mel_BCTM=net.mel.levels(truth_BCN), pitch_BCTM=net.pitch.levels(truth_BCN)
    )
    wrong_BCN = truth_BCN.flip(-1) + 0.05 * torch.randn_like(truth_BCN)
    before, after, own = (
        net.extra_losses(right, x)
        for x in (wrong_BCN, net.match(wrong_BCN, right), net.match(truth_BCN, right))
    )
    assert float(before["guide"]) > 0.8  # units of 10 dB
    for name in ("guide", "pitch"):
        assert float(after[name]) < 0.3 * float(before[name]), name
        assert float(own[name]) < 0.01, name
    torch.testing.assert_close(net.match(truth_BCN, right), truth_BCN, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("rate", "notes"), [(16000, 83), (44100, 84), (8000, 71)])
def test_semitones_tell_a_tone_from_its_neighbours(rate: int, notes: int) -> None:
    n_fft = 16 * round(rate / 62.5 / 2) * 2
    filters_MF = semitones(rate, n_fft)
    assert len(filters_MF) == notes
    assert (filters_MF.amax(1) > 0.3).all()  # each holds a bin
    bands = Bands(filters_MF, n_fft, n_fft // 16)
    for note in (45, 69, 100):
        hz = 440.0 * 2.0 ** ((note - 69) / 12)
        tone = torch.sin(2 * torch.pi * hz * torch.arange(rate // n_fft * n_fft) / rate)
        levels_TM = bands.levels(0.5 * tone[None, None])[0, 0]
        middle_M = levels_TM[len(levels_TM) // 2]
        assert int(middle_M.argmax()) == note - 36


class Noise:
    """White noise in place of the bars of a store."""

    settings, about, held_out = DataSettings(), {}, [0]

    def __init__(self, config: TokenizerConfig) -> None:
        self.sound = 0.1 * torch.randn(24, 1, 16 * config.hop)

    def batch(self, step: int, size: int) -> dict[str, torch.Tensor]:
        return {"samples_BCN": self.sound}

    def held_out_items(self, count: int) -> dict[str, torch.Tensor]:
        return {"samples_BCN": self.sound[:count]}


@pytest.mark.parametrize("preset", ["bar", "8x256"])
def test_latents_alone_are_heard_at_the_levels_that_they_tell(preset: str, tmp_path: Path) -> None:
    """The decoder gives silence yet: on music 8x256 was 41 dB off, its guide 2 dB."""
    config = tiny(preset)
    torch.manual_seed(0)
    weights = LossWeights(flow=0.0, mel=0.0, stft=0.0)
    noise: Any = Noise(config)
    task = TokenizerTask(config, noise, batch=2, weights=weights, valid_items=3)
    with torch.no_grad():  # no semitone stands out, so there are no tones either
        task.model.to_pitch.weight.zero_()
    figures = task.samples(task.model, tmp_path, 1)
    assert figures["valid/mel_l1_db"] < 10 * figures["valid/guide"] + 5.0
    assert figures == task.samples(task.model, tmp_path, 1)


def test_silence_stays_silent_whatever_the_guide_says() -> None:
    config = tiny()
    net = Spectral(config)
    silence = torch.zeros(1, 1, config.samples)
    loud = net.condition(net.encode(sound(1, config)))
    assert (net.match(silence, loud) == 0).all()


@pytest.mark.parametrize(("rate", "hz"), [(16000, 220.0), (16000, 1234.5), (44100, 3000.0)])
def test_tones_give_back_a_tone(rate: int, hz: float) -> None:
    """Frequency and level of a sine, from the levels of its semitones alone."""
    n_fft = 16 * round(rate / 62.5 / 2) * 2
    bands = Bands(semitones(rate, n_fft), n_fft, n_fft // 16)
    n = 2 * n_fft
    tone = 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(n) / rate)
    found_N = tones(bands.levels(tone[None, None])[0], rate=rate, n_fft=n_fft, hop=bands.hop)[0]
    assert found_N.shape == (n,)
    middle = found_N[n // 4 : -n // 4]
    power = torch.fft.rfft(middle * torch.hann_window(len(middle))).abs()
    cents = 1200 * abs(np.log2(float(power.argmax()) * rate / len(middle) / hz))
    assert cents < max(20.0, 1200 * np.log2(1 + rate / len(middle) / hz))  # a bin of this window
    db = 20 * np.log10(float(middle.std() / tone.std()))
    assert abs(db) < 3.0  # a tone between two semitones has its power in both
    silence = tones(torch.full((1, 8, 83), -10.0), rate=rate, n_fft=n_fft, hop=bands.hop)
    assert (silence == 0).all()


def test_an_untrained_decoder_gives_silence_in_the_flow_space() -> None:
    config = tiny()
    net = Spectral(config)
    x_BCN = sound(1, config)
    condition = net.condition(net.encode(x_BCN))
    noise = torch.randn(1, *net.flow_shape(config.samples))
    assert (net.predict(noise, torch.ones(1), condition) == 0).all()


def test_overfits_one_batch() -> None:
    torch.manual_seed(0)
    config = tiny()
    net = Spectral(config)
    x_BCN = sound(2, config, 16 * config.hop)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    losses = []
    for _ in range(120):
        condition = net.condition(net.encode(x_BCN))
        x = net.to_flow(x_BCN, condition)
        noise, t_B = torch.randn_like(x), torch.rand(len(x))
        x_t = flow.blend(x, noise, t_B, 0.0)
        estimate = net.predict(x_t, t_B, condition)
        loss = (estimate - x).square().mean() + net.extra_losses(condition, x_BCN)["guide"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert net.enter.weight.grad is not None
    assert float(net.enter.weight.grad.abs().sum()) > 0.0


def test_an_item_decodes_the_same_in_any_batch() -> None:
    config = tiny("32x16")
    net = Spectral(config)
    torch.nn.init.normal_(net.clean.weight, std=0.05)
    tokenizer = Tokenizer(net)
    z_BLD = tokenizer.encode(sound(3, config, 8 * config.hop))
    together = tokenizer.decode(z_BLD, keys=[4, 5, 6], seed=1, steps=3)
    alone = tokenizer.decode(z_BLD[1:2], keys=[5], seed=1, steps=3)
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=1e-4)
    again = tokenizer.decode(z_BLD, keys=[4, 5, 6], seed=1, steps=3)
    assert torch.equal(again, together)
    other = tokenizer.decode(z_BLD[1:2], keys=[5], seed=2, steps=3)
    assert float((other - alone).abs().max()) > 1e-3


@pytest.mark.parametrize("preset", ["bar", "32x16", "50x128", "8x256"])
def test_a_step_of_the_shipped_size_is_cheap(preset: str) -> None:
    """At most 10 GFLOP a step and 2.048 s, as the design asks; counted, not timed."""
    config = make_config(preset)
    net = Spectral(config)
    n = round(2.048 * config.rate / config.hop) * config.hop
    with torch.inference_mode():
        condition = net.condition(torch.zeros(1, n // config.hop, config.dims))
        with FlopCounterMode(display=False) as counter:
            net.predict(torch.zeros(1, *net.flow_shape(n)), torch.ones(1), condition)
    assert counter.get_total_flops() < 10e9
    assert sum(p.numel() for p in net.parameters()) * 2 < 28e6  # bytes in half precision


def test_frames_of_a_token_are_even_and_near_62_a_second() -> None:
    for preset in ("bar", "50x128", "32x16", "8x256"):
        for rate in (16000, 22050, 44100, 48000):
            config = make_config(preset, rate=rate)
            hop = config.hop // frames_per_token(config)
            assert hop % 2 == 0
            assert 30 < rate / hop < 130
