"""The latent action model, tiny: causality, what the decoder may see, one batch learned, labels."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from mgen.core.errors import InputError, UsageError
from mgen.core.lam.config import BOTTLENECKS, PRESETS, BottleneckName, LamConfig, LamSizes
from mgen.core.lam.config import make_config as make_full_config
from mgen.core.lam.data import Bars, TrainingBars
from mgen.core.lam.folder import LatentActionModel, load_lam, save_lam
from mgen.core.lam.model import ActionNetwork
from mgen.core.lam.training import LamTask
from mgen.core.lam.usual import usual_of
from mgen.core.train_loop import Draw, TrainSettings, train

TOKENS, DIMS = 8, 4
TINY = LamSizes(
    width=32, heads=2, hidden=32, spatial=1, temporal=1, decoder=1, condition=16, embedding=16
)
STEPS: tuple[BottleneckName, ...] = ("vq", "fsq", "residual-fsq")
KINDS = (*BOTTLENECKS, "relative")
"""`style` is of a bar alone here, `relative` of what is left of it without what is usual."""


def make_config(name: str, **changed: Any) -> LamConfig:
    styles = name in ("style", "relative")
    axes: dict[str, Any] = {"actions": 8, "top_k": 2, "relative": name == "relative"}
    bottleneck = cast(BottleneckName, "style" if styles else name)
    config = make_full_config(
        bottleneck, tokens=TOKENS, dims=DIMS, tokenizer="0" * 12, run_steps=100,
        **(axes if styles else {}),
    )  # fmt: skip
    return replace(config, sizes=TINY, **changed)


def tiny(name: str, **changed: Any) -> ActionNetwork:
    torch.manual_seed(0)
    return ActionNetwork(make_config(name, **changed))


def woken(network: ActionNetwork) -> ActionNetwork:
    """The network with noise in place of all zeros, as if it had been trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2, generator=generator)
    return network


def latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, TOKENS, DIMS, generator=torch.Generator().manual_seed(seed))


def drawn(step: int, items: int) -> Draw:
    return Draw(seed=0, step=step, total=items, first=0, items=items)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("per", [1, 2])
def test_no_bar_is_seen_before_its_time(name: BottleneckName, per: int) -> None:
    network = tiny(name, bars_per_action=per).eval()
    z_SBLD = latents(2, 8).requires_grad_()
    h_SUTW = network.encode(z_SBLD)
    for unit in range(8 // per):
        (grad,) = torch.autograd.grad(h_SUTW[:, unit].square().sum(), z_SBLD, retain_graph=True)
        seen_B = grad.abs().sum((0, 2, 3)) > 0
        assert torch.equal(seen_B, torch.arange(8) < (unit + 1) * per)


@pytest.mark.parametrize("name", STEPS)
def test_an_action_is_a_step_from_the_bar_before(name: BottleneckName) -> None:
    network, z_SBLD = tiny(name, ).eval(), latents(1, 8).requires_grad_()  # fmt: skip
    index = network.infer(z_SBLD).payload.index
    shorter = network.infer(z_SBLD[:, :5]).payload.index
    assert torch.equal(index[:, :5], shorter)
    later = z_SBLD.detach().clone()
    later[:, 6:] += 3.0
    assert torch.equal(network.infer(later).payload.index[:, :6], index[:, :6])


@pytest.mark.parametrize("per", [1, 2])
def test_a_style_is_of_its_bars_alone(per: int) -> None:
    network = tiny("style", bars_per_action=per).eval()
    z_SBLD = latents(2, 8).requires_grad_()
    embedding = network.infer(z_SBLD).embedding
    (grad,) = torch.autograd.grad(embedding[:, 1].square().sum(), z_SBLD)
    seen_B = (grad.abs().sum((0, 2, 3)) > 0).tolist()
    assert [b for b, seen in enumerate(seen_B) if seen] == list(range(per, 2 * per))


class TestUsual:
    def test_what_is_left_is_white(self) -> None:
        """Its numbers are uncorrelated over the song, with variance 1: against float64."""
        mix_DD = torch.randn(DIMS, DIMS, generator=torch.Generator().manual_seed(1))
        z_XLD = latents(200) @ mix_DD * 3.0 + latents(1, seed=7)[0]
        left_XLD = usual_of(z_XLD).left_of(z_XLD)
        assert torch.allclose(left_XLD.mean(0), torch.zeros(TOKENS, DIMS), atol=1e-4)
        covariance_DD = np.cov(left_XLD.double().flatten(0, 1).T.numpy(), bias=True)
        assert np.allclose(covariance_DD, np.eye(DIMS), atol=0.12)

    def test_what_all_bars_have_in_common_does_not_count(self) -> None:
        z_XLD = latents(30)
        louder_XLD = 1.5 * z_XLD + latents(1, seed=4)
        one, other = (usual_of(x).left_of(x) for x in (z_XLD, louder_XLD))
        assert torch.allclose(one, other, atol=0.05)

    @pytest.mark.parametrize("bars", [1, 2])
    def test_one_bar_and_equal_bars_leave_nothing(self, bars: int) -> None:
        z_XLD = latents(1).expand(bars, -1, -1)
        assert torch.allclose(usual_of(z_XLD).left_of(z_XLD), torch.zeros(()), atol=1e-5)


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_the_decoder_sees_the_first_bar_and_earlier_actions_only(name: BottleneckName) -> None:
    network = woken(tiny(name))
    z_SUTP = network.units(latents(1, 8)).requires_grad_()
    noisy = torch.randn(z_SUTP.shape, requires_grad=True)
    told = torch.randn(1, 8, TINY.embedding, requires_grad=True)
    out = network.decoder(noisy, torch.full((1, 8), 0.7), told, z_SUTP[:, 0])
    for unit in (0, 3):
        inputs = (noisy, told)
        grads = torch.autograd.grad(out[:, unit].square().sum(), inputs, retain_graph=True)
        own, action = ((g.flatten(2).abs().sum((0, 2)) > 0).tolist() for g in grads)
        assert [u for u, seen in enumerate(own) if seen] == [unit]
        steps = network.config.steps
        assert [u for u, seen in enumerate(action) if seen] == (
            list(range(1, unit + 1)) if steps and unit else [unit]
        )
    assert not out.requires_grad or z_SUTP.grad is None
    other = network.decoder(noisy, torch.full((1, 8), 0.7), told, z_SUTP[:, 0] + 1.0)
    changed = (other - out).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [network.config.steps and unit > 0 for unit in range(8)]


def test_no_gradient_goes_into_what_is_shown() -> None:
    network = woken(tiny("vq"))
    first = network.units(latents(1, 8))[:, 0].requires_grad_()
    noisy = torch.randn(1, 8, *first.shape[1:])
    out = network.decoder(noisy, torch.rand(1, 8), torch.randn(1, 8, TINY.embedding), first)
    assert torch.autograd.grad(out.sum(), first, allow_unused=True) == (None,)


@pytest.mark.parametrize("name", KINDS)
def test_gradient_reaches_everything(name: str) -> None:
    task = LamTask(make_config(name, mapping=True), some_bars(name), batch=4)
    network = woken(cast(ActionNetwork, task.model)).train()
    task.loss(network, task.batch(0), drawn(20, 4))["loss"].backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_mapping_starts_as_the_identity_and_is_told_to_the_decoder() -> None:
    network = tiny("style", mapping=True)
    embedding = torch.randn(2, 3, TINY.embedding)
    assert torch.equal(network.inform(embedding), embedding)
    assert network.mapping is not None
    torch.nn.init.normal_(network.mapping.narrow.weight)
    assert not torch.allclose(network.inform(embedding), embedding, atol=0.1)
    plain = tiny("style")
    assert plain.inform(embedding) is embedding


@pytest.mark.parametrize("name", BOTTLENECKS)
@pytest.mark.parametrize("mapping", [False, True])
def test_shipped_size_fits_the_budget(name: BottleneckName, mapping: bool) -> None:
    with torch.device("meta"):
        network = ActionNetwork(
            make_full_config(name, tokens=64, dims=16, tokenizer="0" * 12, mapping=mapping)
        )
    assert sum(p.numel() for p in network.parameters()) <= 4_000_000
    assert (network.config.sizes.width, network.config.sizes.spatial) == (256, 4)


class TestConfig:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_presets_of_styles(self, preset: str) -> None:
        config = make_full_config("style", tokens=64, dims=16, tokenizer="x", preset=preset)
        axes = (config.actions, config.bars_per_action, config.top_k)
        assert preset == "-".join(map(str, axes))
        assert LamConfig.from_json(config.to_json()) == config

    def test_axes_win_over_the_preset(self) -> None:
        config = make_full_config(
            "style", tokens=64, dims=16, tokenizer="x", preset="1024-2-10", actions=6, top_k=4
        )
        assert (config.actions, config.bars_per_action, config.top_k) == (6, 2, 4)

    @pytest.mark.parametrize(
        ("wanted", "have"), [(64, (8, 8)), (256, (8, 6, 5)), (1000, (8, 5, 5, 5))]
    )
    def test_levels(self, wanted: int, have: tuple[int, ...]) -> None:
        config = make_full_config("fsq", tokens=64, dims=16, tokenizer="x", actions=wanted)
        assert config.levels == have

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ({"bottleneck": "vae"}, "no bottleneck 'vae'"),
            ({"bottleneck": "fsq", "actions": 65}, "no levels for 65"),
            ({"bottleneck": "vq", "preset": "256-1-5"}, "are for styles"),
            ({"bottleneck": "vq", "relative": True}, "styles alone are"),
            ({"bottleneck": "vq", "top_k": 3}, "are for styles"),
            ({"bottleneck": "style", "preset": "1-1-1"}, "no preset"),
            ({"bottleneck": "style", "actions": 3, "top_k": 4}, "top-k 4"),
            ({"bottleneck": "vq", "bars": 3}, "at least 4"),
            ({"bottleneck": "vq", "bars_per_action": 3}, "a multiple"),
            ({"bottleneck": "vq", "size": "huge"}, "no size"),
            ({"bottleneck": "vq", "tokens": 7}, "do not divide"),
            ({"bottleneck": "vq", "input": "text"}, "no input"),
        ],
    )
    def test_refusals(self, words: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            make_full_config(**{"tokens": 64, "dims": 16, "tokenizer": "x", **words})


def some_bars(name: str, songs: int = 3, bars: int = 10) -> TrainingBars:
    """Songs whose bars are one of four patterns, with a little noise."""
    generator = torch.Generator().manual_seed(5)
    patterns = latents(4, seed=9)
    which = torch.randint(4, (songs * bars,), generator=generator)
    z = patterns[which] + 0.05 * torch.randn(
        songs * bars, TOKENS, DIMS, generator=generator
    )  # fmt: skip
    held = Bars(
        z_XLD=z.half().numpy(), mel_XLM=None,
        runs=tuple((s * bars, (s + 1) * bars) for s in range(songs)),
        owners=tuple(str(s) for s in range(songs)), copies=np.arange(songs).repeat(bars),
        songs=tuple(str(s) for s in range(songs)),
    )  # fmt: skip
    return TrainingBars(held, make_config(name), seed=0, held_out=0.3)


LEARNED = {"vq": 0.3, "fsq": 0.5, "residual-fsq": 0.4, "style": 0.6, "relative": 0.6}
"""What must be left of the loss after 80 steps; measured: 0.12, 0.35, 0.22, 0.42 and 0.42."""


@pytest.mark.parametrize("name", KINDS)
def test_learns_one_batch_through_the_action(name: str) -> None:
    """The loss falls, and the actions are what it fell by: with others the error is larger."""
    task = LamTask(make_config(name), some_bars(name), batch=4)
    network = cast(ActionNetwork, task.model).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    batch, losses = task.batch(0), []
    for step in range(80):
        loss = task.loss(network, batch, drawn(step, 4))["loss/flow"]
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(losses[-10:]) < LEARNED[name] * sum(losses[:10])
    task.bars.held_out = task.bars.train[:4]
    figures = task.samples(network, Path("unused"), 80)
    assert figures["valid/gain_db"] > 0.5
    assert network.training


class TestLabels:
    @pytest.mark.parametrize("name", KINDS)
    @pytest.mark.parametrize("bars", [1, 3, 8, 9, 21])
    @pytest.mark.parametrize("per", [1, 2])
    def test_every_bar_has_one(self, name: str, bars: int, per: int) -> None:
        lam = LatentActionModel(tiny(name, bars_per_action=per))
        found = lam.label(latents(bars))
        assert found.index.shape == found.weight.shape == (bars, lam.config.numbers)
        assert (found.weight.sum(-1) > 0.99).all()
        pairs = found.index[: bars // per * per].unflatten(0, (-1, per))
        assert (pairs == pairs[:, :1]).all()

    def test_a_short_song_is_read_as_one_sequence(self) -> None:
        lam, z_XLD = LatentActionModel(tiny("vq")), latents(8)
        direct = lam.network.infer(z_XLD[None]).payload.index[0]
        assert torch.equal(lam.label(z_XLD).index, direct)

    def test_a_long_song_is_read_with_what_leads_up_to_it(self) -> None:
        lam, z_XLD = LatentActionModel(tiny("vq")), latents(20)
        found = lam.label(z_XLD).index
        for start in (0, 4, 8, 12):  # the second half of each window
            window = lam.network.infer(z_XLD[None, start : start + 8]).payload.index[0]
            assert torch.equal(found[start + 4 : start + 8], window[4:])

    def test_styles_do_not_depend_on_the_rest_of_the_song(self) -> None:
        lam, z_XLD = LatentActionModel(tiny("style")), latents(11)
        whole = lam.label(z_XLD)
        for bar in (0, 7, 10):
            alone = lam.label(z_XLD[bar : bar + 1])
            assert torch.equal(alone.index[0], whole.index[bar])
            assert torch.allclose(alone.weight[0], whole.weight[bar], atol=1e-6)

    def test_relative_styles_are_told_apart_from_the_whole_song(self) -> None:
        lam, z_XLD = LatentActionModel(tiny("relative")), latents(21)
        found = lam.label(z_XLD)
        direct = lam.network.infer(usual_of(z_XLD).left_of(z_XLD)[None]).payload
        assert torch.equal(found.index, direct.index[0])
        assert torch.equal(lam.label(z_XLD + 1.0).index, found.index)

    @pytest.mark.parametrize("name", ["style", "relative"])
    def test_some_bars_and_the_average_are_enough_for_styles(self, name: str) -> None:
        lam, z_XLD = LatentActionModel(tiny(name)), latents(21)
        whole, some = lam.label(z_XLD), [2, 3, 4, 17, 20]
        found = lam.label(z_XLD[some], usual_of(z_XLD))
        assert lam.by_bar
        assert torch.equal(found.index, whole.index[some])
        assert torch.allclose(found.weight, whole.weight[some], atol=1e-6)
        assert not LatentActionModel(tiny("vq")).by_bar
        assert not LatentActionModel(tiny(name, bars_per_action=2)).by_bar


class TestFolder:
    @pytest.mark.parametrize("name", KINDS)
    def test_comes_back_as_it_was_written(self, name: str, tmp_path: Path) -> None:
        network = tiny(name, mapping=True).half().float()  # as it is stored
        model_id = save_lam(network, tmp_path / "lam", {"steps": 3})
        lam, z_XLD = load_lam(tmp_path / "lam"), latents(9)
        assert (lam.id, lam.config) == (model_id, network.config)
        before = LatentActionModel(network)
        one, two = lam.label(z_XLD), before.label(z_XLD)
        assert torch.equal(one.index, two.index)
        assert torch.allclose(lam.embed(one), before.embed(two), atol=1e-6)

    def test_another_kind_or_damage_is_refused_in_one_line(self, tmp_path: Path) -> None:
        save_lam(tiny("vq"), tmp_path / "lam", {})
        text = (tmp_path / "lam" / "config.json").read_text("utf-8")
        (tmp_path / "lam" / "config.json").write_text(text.replace('"vq"', '"fsq"'), "utf-8")
        with pytest.raises(InputError, match="not those that were written"):
            load_lam(tmp_path / "lam")


def test_a_run_that_is_stopped_goes_on_to_the_same_model(tmp_path: Path) -> None:
    """Codes, counts of use and steps are in the state: bit for bit."""
    settings = TrainSettings(
        steps=24, batch=4, lr=1e-3, device="cpu", precision="f32", compile="off", log_every=100,
        samples_every=0, checkpoint_minutes=0,
    )  # fmt: skip

    def task() -> LamTask:
        return LamTask(make_config("vq"), some_bars("vq"), batch=4)

    whole = task()
    list(train(whole, settings, tmp_path / "whole"))
    parts = task()
    for report in train(parts, replace(settings, log_every=13), tmp_path / "parts"):
        if report.step == 13:
            break
    again = task()
    list(train(again, settings, tmp_path / "parts"))
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key
    assert not torch.equal(whole.model.bottleneck.codes.entries,  # type: ignore[union-attr]
                           task().model.bottleneck.codes.entries)  # type: ignore[union-attr]  # fmt: skip


@pytest.mark.parametrize("name", ["vq", "style"])
def test_two_processes_do_what_one_does(name: BottleneckName, tmp_path: Path) -> None:
    """Dead codes are those of the whole batch, and are replaced by rows of the whole batch."""
    given = {
        "steps": 12, "batch": 8, "lr": 1e-3, "device": "cpu", "precision": "f32", "compile": "off",
        "log_every": 100, "samples_every": 0, "ema": 0.5, "bottleneck": name,
    }  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script, started = Path(__file__).with_name("train_tiny_lam.py"), []
    for run, world, rank in (("two", 2, 0), ("two", 2, 1), ("one", 1, 0)):
        env = {
            **os.environ, "WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        words = [sys.executable, str(script), str(tmp_path / run), json.dumps(given)]
        started.append(subprocess.Popen(words, env=env))
    try:
        assert [process.wait(timeout=240) for process in started] == [0, 0, 0]
    finally:
        for process in started:
            process.kill()
    one, two = (load_lam(tmp_path / run / "model").network for run in ("one", "two"))
    for (key, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0, msg=key)
