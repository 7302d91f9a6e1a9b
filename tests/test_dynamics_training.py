"""Training a dynamics model: spans, windows, what is told, one batch learned, one run or two."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from train_tiny_dynamics import DIMS, TOKENS, rows, tiny_task

from mgen.core.dynamics import HOWS, Condition, Dynamics, DynamicsNetwork, Sampling, inpaint
from mgen.core.dynamics.config import How
from mgen.core.dynamics.data import BarRows, TrainingBars, WindowSettings
from mgen.core.dynamics.spans import LEAST_SHARE, MOST_SPANS, span_mask
from mgen.core.dynamics.training import (
    Recipe,
    mean_of_spans,
    measured,
    middle_half,
    noise_levels,
    told,
    velocity_error,
)
from mgen.core.errors import StoreError, UsageError
from mgen.core.train_loop import Draw, TrainSettings, train

SCRIPT = Path(__file__).with_name("train_tiny_dynamics.py")


def draw(items: int = 4, seed: int = 0) -> Draw:
    return Draw(seed=seed, step=0, total=items, first=0, items=items)


def spans_of(mask: np.ndarray) -> list[int]:
    return [len(list(group)) for written, group in itertools.groupby(mask.tolist()) if written]


# ---------------------------------------------------------------- spans


@settings(max_examples=200)
@given(bars=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_spans_are_few_apart_and_cover_their_share(bars: int, seed: int) -> None:
    mask = span_mask(bars, np.random.default_rng(seed))
    assert mask.shape == (bars,)
    assert 1 <= len(spans_of(mask)) <= MOST_SPANS
    assert mask.sum() >= max(1, round(LEAST_SHARE * bars))
    again = span_mask(bars, np.random.default_rng(seed))
    assert np.array_equal(mask, again)


def test_spans_of_every_number_and_place() -> None:
    rng = np.random.default_rng(0)
    masks = [span_mask(12, rng) for _ in range(2000)]
    counts = np.bincount([len(spans_of(m)) for m in masks], minlength=5)
    assert (counts[1:] > 150).all()
    share = np.mean(masks, axis=0)
    assert share.min() > 0.5  # every bar, the first and the last too
    assert share.max() < 0.7
    assert np.ptp([m.sum() for m in masks]) == 10


# ---------------------------------------------------------------- windows


def test_windows_are_runs_of_one_song() -> None:
    bars = TrainingBars(rows(4, 11), WindowSettings(bars=10, seed=1))
    assert bars.lengths == [8, 10]
    assert bars.about["songs_held_out"] == 1
    (held,) = {int(first) // 11 for first in bars.held_out[8]}
    seen: set[int] = set()
    for length, starts in bars.train.items():
        assert len(starts) == 3 * (11 - length + 1)
        assert set((starts // 11).tolist()) == set(((starts + length - 1) // 11).tolist())
        seen |= set((starts // 11).tolist())
    assert seen == {0, 1, 2, 3} - {held}
    assert set((bars.training_rows() // 11).tolist()) == seen


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    bars = TrainingBars(rows(4, 11), WindowSettings(bars=10, seed=1))
    again = TrainingBars(rows(4, 11), WindowSettings(bars=10, seed=1))
    shapes = set()
    for step in range(12):
        one, other = bars.batch(step, 3), again.batch(step, 3)
        assert all(torch.equal(one[name], other[name]) for name in one)
        length = one["bpm_SB"].shape[1]
        shapes.add(length)
        assert one["z_SBLD"].shape == (3, length, TOKENS, DIMS)
        for i in range(3):  # consecutive rows of the columns
            (first,) = np.flatnonzero(bars.rows.bpm_X == float(one["bpm_SB"][i, 0]))
            part = slice(first, first + length)
            assert np.array_equal(one["z_SBLD"][i], bars.rows.z_XLD[part].astype(np.float32))
            assert np.array_equal(one["action_SBA"][i], bars.rows.action_XA[part])
            assert np.array_equal(one["single_SBA"][i], bars.rows.single_XA[part])
    assert shapes == {8, 10}
    assert not torch.equal(bars.batch(0, 3)["z_SBLD"], bars.batch(100, 3)["z_SBLD"])


def test_a_quarter_of_the_windows_has_spans() -> None:
    bars = TrainingBars(rows(2, 9), WindowSettings(bars=8))
    whole = torch.cat([bars.batch(step, 64)["span_SB"].all(1) for step in range(20)])
    # some masks cover all bars too: a share between .97 and 1 is rounded to it
    assert float(whole.float().mean()) == pytest.approx(0.75 + 0.25 * 0.06, abs=0.04)


def test_songs_that_are_too_short_are_left_out_or_refused() -> None:
    given_rows = rows(3, 7)
    short = BarRows(
        z_XLD=given_rows.z_XLD, bpm_X=given_rows.bpm_X, action_XA=given_rows.action_XA,
        single_XA=given_rows.single_XA, runs=[(0, 7), (7, 9)], owners=["a", "b"],
        copies=given_rows.copies,
    )  # fmt: skip
    bars = TrainingBars(short, WindowSettings(bars=5))
    assert bars.held_out == {}
    assert {name: len(x) for name, x in bars.held_out_windows(9).items()} == {
        "z_SBLD": 3, "bpm_SB": 3, "action_SBA": 3, "single_SBA": 3, "usual_SLD": 3,
    }  # fmt: skip
    with pytest.raises(StoreError, match=r"no song has 8 bars on end.*at most 7.*--bars"):
        TrainingBars(short, WindowSettings(bars=16))
    with pytest.raises(ValueError, match="differ in length"):
        BarRows(
            z_XLD=given_rows.z_XLD, bpm_X=given_rows.bpm_X[1:], action_XA=given_rows.action_XA,
            single_XA=given_rows.single_XA, runs=[], owners=[], copies=given_rows.copies,
        )  # fmt: skip


# ---------------------------------------------------------------- what is noised and told


def test_levels_of_windows_without_and_with_spans() -> None:
    items, bars = 4000, 6
    span_SB = torch.ones(items, bars, dtype=torch.bool)
    span_SB[: items // 2, 3:] = False
    t_SB = noise_levels(span_SB, Recipe(shift=3.0), draw(items))
    free = torch.logit(t_SB[items // 2 :])
    assert float(free.mean()) == pytest.approx(math.log(3.0), abs=0.03)  # moved, not widened
    assert float(free.std()) == pytest.approx(1.0, abs=0.03)
    assert (free.std(1) > 0).all()  # each bar its own
    kept = t_SB[: items // 2, 3:]
    assert float((kept == 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert 0.049 < float(kept.max()) <= 0.05
    alike = (t_SB[: items // 2, :3] == t_SB[: items // 2, :1]).all(1)
    assert float(alike.float().mean()) == pytest.approx(0.5, abs=0.04)


def test_shares_of_what_is_told() -> None:
    items, bars = 20000, 5
    batch = {
        "bpm_SB": torch.full((items, bars), 90.0), "action_SBA": torch.ones(items, bars, 1),
        "single_SBA": torch.zeros(items, bars, 1),
    }  # fmt: skip
    found = told(batch, Recipe(), draw(items))
    single_S = ~found.action_SBA.bool().flatten(1).any(1)
    assert torch.equal(~single_S, found.action_SBA.bool().flatten(1).all(1))
    all_S = found.knows_bpm_SB.all(1) & found.knows_action_SB.all(1)
    none_S = ~found.knows_bpm_SB.any(1) & ~found.knows_action_SB.any(1)
    apart = 0.5**bars * 0.5  # of the windows in which each is dropped by itself, by chance
    for share, expected in (
        (single_S, 0.3), (single_S & all_S, 0.3), (none_S, 0.1 + 0.2 * apart),
        (all_S & ~single_S, 0.4 + 0.2 * apart),
    ):  # fmt: skip
        assert float(share.float().mean()) == pytest.approx(expected, abs=0.012)
    rest_S = ~(single_S | all_S | none_S)
    assert float(rest_S.float().mean()) == pytest.approx(0.2 * (1 - 2 * apart), abs=0.012)
    assert (found.knows_bpm_SB[rest_S].float().std(1) == 0).all()  # tempo: all bars or none
    assert float(found.knows_action_SB[rest_S].float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(found.knows_bpm_SB[rest_S].float().mean()) == pytest.approx(0.5, abs=0.03)


def test_an_unknown_tempo_is_never_told() -> None:
    batch = {
        "bpm_SB": torch.tensor([[math.nan, 0.0, 120.0]]).expand(64, -1),
        "action_SBA": torch.ones(64, 3, 1), "single_SBA": torch.ones(64, 3, 1),
    }  # fmt: skip
    knows_SB = told(batch, Recipe(nothing=0, everything=1, single=0), draw(64)).knows_bpm_SB
    assert torch.equal(knows_SB, torch.tensor([[False, False, True]]).expand(64, -1))


def test_shares_above_1_are_refused() -> None:
    with pytest.raises(UsageError, match="shares"):
        Recipe(everything=0.7)
    with pytest.raises(UsageError, match="shift"):
        Recipe(shift=0.0)


# ---------------------------------------------------------------- the loss


def all_known(batch: dict[str, Tensor]) -> Condition:
    known_SB = torch.ones_like(batch["bpm_SB"], dtype=torch.bool)
    return Condition(batch["bpm_SB"], batch["action_SBA"], known_SB, known_SB)


def test_the_average_bar_is_that_of_the_same_copy() -> None:
    given_rows = rows(3, 7)
    bars = TrainingBars(given_rows, WindowSettings(bars=5))
    found = bars.gathered(np.array([0, 2, 9, 14]), 3)["usual_SLD"]
    for at, song in enumerate((0, 0, 1, 2)):
        wanted = given_rows.z_XLD[song * 7 : song * 7 + 7].astype(np.float64).mean(0)
        assert np.allclose(found[at], wanted, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_songs_are_left_unknown_by_the_recipe(share: float) -> None:
    task = tiny_task(recipe=Recipe(no_song=share), batch=16)
    network, batch = cast(DynamicsNetwork, task.model), task.batch(0)
    torch.nn.init.normal_(network.show.weight)
    torch.nn.init.normal_(network.leave.weight)
    other = {**batch, "usual_SLD": batch["usual_SLD"] + 3.0}
    with torch.no_grad():
        one, two = (float(task.loss(network, b, draw(16))["loss"]) for b in (batch, other))
    assert (one == two) == (share == 1.0)


@pytest.mark.parametrize("prediction", ["v", "x"])
def test_the_loss_of_silence_is_the_power_of_what_is_to_be_said(prediction: str) -> None:
    task = tiny_task(prediction=prediction, batch=64)
    network, batch = task.model, task.batch(0)
    assert isinstance(network, DynamicsNetwork)
    noise, t_SB = draw(64).normal(*batch["z_SBLD"].shape[1:]), torch.full_like(batch["bpm_SB"], 0.5)
    error_SB = velocity_error(network, batch["z_SBLD"], noise, t_SB, all_known(batch))
    x = network.to_flow(batch["z_SBLD"])
    said = noise - x if prediction == "v" else x / 0.5
    torch.testing.assert_close(error_SB, said.square().mean((2, 3)))
    wanted = {"v": 2.0, "x": 4.0}[prediction]
    assert float(error_SB.detach().mean()) == pytest.approx(wanted, rel=0.1)


def test_only_bars_that_are_written_count() -> None:
    error_SB = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    span_SB = torch.tensor([[True, True, True], [False, True, False]])
    assert float(mean_of_spans(error_SB, span_SB)) == pytest.approx((7 / 3 + 16) / 2)
    task = tiny_task(batch=4)
    batch = {name: x.clone() for name, x in task.batch(0).items()}
    batch["span_SB"][:] = False
    batch["span_SB"][:, 1] = True
    batch["z_SBLD"].requires_grad_()
    loss = task.loss(task.model, batch, draw())["loss"]  # an untrained network says nothing
    (grad,) = torch.autograd.grad(loss, batch["z_SBLD"])
    assert grad[:, 1].any()
    assert not grad[:, [0, 2]].any()


def test_a_batch_in_parts_is_the_batch() -> None:
    task = tiny_task(batch=8)
    batch = task.batch(1)
    whole = task.loss(task.model, batch, draw(8))["loss"]
    parts = [
        task.loss(
            task.model, {name: x[at : at + 4] for name, x in batch.items()},
            Draw(seed=0, step=0, total=8, first=at, items=4),
        )["loss"]
        for at in (0, 4)
    ]  # fmt: skip
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


LEARNED = 0.16
"""What must be left of the loss of one window after 250 steps; measured: 0.11 to 0.12."""


@pytest.mark.parametrize("how", HOWS)
def test_learns_one_batch_and_writes_it(how: How) -> None:
    """The window comes back where it is written from noise, by its actions and its other bars."""
    task = tiny_task(rows(1, 5), condition=how, batch=8)
    network = task.model
    assert isinstance(network, DynamicsNetwork)
    batch = {**task.batch(0), "span_SB": torch.ones(8, 5, dtype=torch.bool)}
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.0)
    losses = []
    for step in range(250):
        loss = task.loss(network, batch, Draw(seed=0, step=step, total=8, first=0, items=8))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2.0, rel=0.2)
    assert sum(losses[-20:]) / 20 < LEARNED * losses[0]
    z_BLD, mask_B = batch["z_SBLD"][0], torch.tensor([False, True, False, True, True])
    out_BLD = inpaint(
        Dynamics(network), torch.where(mask_B[:, None, None], 0.0, z_BLD), mask_B,
        batch["bpm_SB"][0], batch["action_SBA"][0], usual_LD=batch["usual_SLD"][0],
        sampling=Sampling(steps=8),
    )  # fmt: skip
    assert torch.equal(out_BLD[~mask_B], z_BLD[~mask_B])
    to_bar = (out_BLD - z_BLD)[mask_B].square().mean((1, 2))
    to_mean = (out_BLD - z_BLD.mean(0))[mask_B].square().mean((1, 2))
    assert (to_bar < 0.25 * to_mean).all()


# ---------------------------------------------------------------- figures and runs


def test_figures_tell_right_from_wrong_actions() -> None:
    """A network that knows a bar by its action alone has a gap; one that says nothing has none."""
    task = tiny_task(batch=4)
    items = task.bars.held_out_windows(3)
    network = task.model
    assert isinstance(network, DynamicsNetwork)
    silent = measured(network, items)
    assert silent["valid/loss"] == pytest.approx(2.0, rel=0.3)
    assert silent["valid/action_gap"] == silent["valid/fill_gap"] == silent["valid/null_gap"] == 0

    class Knowing(DynamicsNetwork):
        """Looks the bar up by its action."""

        def forward(
            self, x: Tensor, t_SB: Tensor, condition: Condition, causal: Any = False
        ) -> Any:
            known = torch.from_numpy(task.bars.rows.action_XA)
            row_SB = torch.cdist(condition.action_SBA, known[None]).argmin(-1)
            clean = self.to_flow(torch.from_numpy(task.bars.rows.z_XLD.astype(np.float32))[row_SB])
            return (x - clean) / t_SB[..., None, None].clamp(min=1e-3)

    knowing = Knowing(network.config)
    knowing.load_state_dict(network.state_dict())
    figures = measured(knowing, items)
    assert figures["valid/loss"] < 1e-6
    assert figures["valid/action_gap"] > 0.5
    assert figures["valid/fill"] < 1e-6
    assert figures["valid/fill_gap"] > 0.5
    assert figures["valid/tempo_gap"] == 0


@pytest.mark.parametrize(("bars", "expected"), [(1, [0]), (2, [0]), (3, [1]), (8, [2, 3, 4, 5])])
def test_the_middle_half(bars: int, expected: list[int]) -> None:
    assert middle_half(bars).nonzero().flatten().tolist() == expected


QUICK: dict[str, Any] = {
    "steps": 8, "batch": 4, "lr": 1e-2, "log_every": 4, "samples_every": 0, "device": "cpu",
    "precision": "f32", "compile": "off",
}  # fmt: skip


def test_a_run_that_ends_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = list(train(tiny_task(), TrainSettings(**QUICK), tmp_path / "whole"))
    reports = train(tiny_task(), TrainSettings(**QUICK), tmp_path / "parts")
    next(reports)
    reports.close()
    assert list(train(tiny_task(), TrainSettings(**QUICK), tmp_path / "parts"))[-1].step == 8
    one, other = (load_file(*(tmp_path / n / "model").glob("*.safetensors")) for n in
                  ("whole", "parts"))  # fmt: skip
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {"valid/loss", "valid/action_gap", "valid/fill_gap"} <= whole[-1].figures.keys()


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    list(train(tiny_task(), TrainSettings(**QUICK), tmp_path / "one"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path / "two"), json.dumps(QUICK)],
            stdout=subprocess.PIPE, text=True,
            env={
                **os.environ, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [one.communicate(timeout=120)[0] for one in processes]
    finally:
        for one in processes:
            one.kill()
    assert [one.returncode for one in processes] == [0, 0]
    assert said == ["1\n4\n8\n", ""]
    one, two = (load_file(*(tmp_path / n / "model").glob("*.safetensors")) for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:  # written as float16
        torch.testing.assert_close(one[name], two[name], atol=2e-3, rtol=2e-3)
    lines = [
        [json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    ]
    for a, b in zip(*lines, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], abs=1e-5)
