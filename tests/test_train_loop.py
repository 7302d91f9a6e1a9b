"""The training loop: what it computes, and that nothing which ends a run costs it anything."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from train_toy import Toy

from mgen.cli.output import step_line
from mgen.core.checkpoint import load_model, load_state
from mgen.core.errors import InputError, MgenError, UsageError
from mgen.core.train_loop import Draw, NotFiniteError, StepReport, TrainSettings, loop, train
from mgen.core.train_loop.feed import Feed
from mgen.core.train_loop.optimiser import (
    Average,
    Optimiser,
    decay_groups,
    hidden_matrices,
    learning_rate,
)

SCRIPT = Path(__file__).with_name("train_toy.py")


def how(**changes: Any) -> TrainSettings:
    given: dict[str, Any] = {
        "steps": 12, "batch": 8, "lr": 1e-2, "warmup": 3, "schedule": "cosine", "log_every": 4,
        "device": "cpu", "precision": "f32", "compile": "off", "ema": 0.9, "samples_every": 0,
    }  # fmt: skip
    return TrainSettings(**{**given, **changes})


def finish(run: Path, toy: Toy | None = None, **changes: Any) -> list[StepReport]:
    return list(train(toy or Toy(), how(**changes), run))


def tensors_of(run: Path) -> dict[str, Tensor]:
    state = load_state(run / "checkpoints")
    assert state is not None
    return state.tensors


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(run)
    return run


# ---------------------------------------------------------------- what a step computes


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (29, 0.5 + math.sqrt(0.5) / 2), (54, 0.5), (104, 0)],
)
def test_the_rate_rises_in_a_line_and_falls_in_a_cosine(step: int, expected: float) -> None:
    rate = partial(learning_rate, step, lr=2.0, warmup=4, steps=104)
    assert rate(schedule="cosine") == pytest.approx(2 * expected)
    assert rate(schedule="constant") == min(2.0, (step + 1) / 2)


def test_matrices_decay_and_nothing_else_does() -> None:
    model = nn.Sequential(nn.Conv1d(1, 6, 5), nn.GroupNorm(2, 6), nn.Linear(6, 1))
    model.register_parameter("scale", nn.Parameter(torch.ones(6)))
    model.register_parameter("bias", nn.Parameter(torch.ones(6, 2)))
    model[2].weight.requires_grad_(False)
    shrunk, left = decay_groups(model)
    assert set(shrunk) == {"0.weight"}
    assert set(left) == {"scale", "bias", "0.bias", "1.weight", "1.bias", "2.bias"}


def test_decay_is_decoupled_and_everything_has_a_gradient() -> None:
    model = nn.Linear(2, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = Optimiser(model, weight_decay=0.5, betas=(0.9, 0.999))
    optimiser.step(0.1)  # a gradient of zero: decay alone
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias.detach(), before["bias"])


def test_gradients_lie_in_one_tensor_and_are_clipped_by_their_norm() -> None:
    model = nn.Linear(2, 1)
    optimiser = Optimiser(model, weight_decay=0.0, betas=(0.9, 0.999))
    for _ in range(2):  # gradients add up
        (model(torch.tensor([[3.0, 4.0]])) * 6).sum().backward()
    assert optimiser.gradient.tolist() == [36, 48, 12]
    norm = math.sqrt(36**2 + 48**2 + 12**2)
    assert optimiser.clip(2.0).item() == pytest.approx(norm)
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, torch.tensor([[36.0, 48.0]]) * 2 / norm)
    assert optimiser.clip(5.0).item() == pytest.approx(2.0)
    assert torch.linalg.vector_norm(optimiser.gradient).item() == pytest.approx(2.0)
    optimiser.clear()
    assert not model.weight.grad.any()


def test_muon_turns_a_matrix_along_the_nearest_orthogonal_one() -> None:
    model = nn.ModuleList([nn.Linear(24, 8)])
    weight, bias = model[0].weight, model[0].bias
    before, bias_before = weight.detach().clone(), bias.detach().clone()
    optimiser = Optimiser(model, weight_decay=0.0, betas=(0.9, 0.999), muon=True)
    gradient = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    assert weight.grad is not None
    assert bias.grad is not None
    weight.grad.copy_(gradient)
    bias.grad.copy_(torch.tensor([1.0, -2.0] * 4))
    optimiser.step(0.1)
    u, _, v = torch.linalg.svd(gradient.double(), full_matrices=False)
    moved = (before - weight.detach()).double() / (0.1 * 0.2 * math.sqrt(24))
    assert torch.cosine_similarity(moved.flatten(), (u @ v).flatten(), dim=0) > 0.95
    sizes = torch.linalg.svdvals(moved)  # five iterations in bf16 end near 1, not at it
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    torch.testing.assert_close(  # what is no matrix goes by AdamW
        bias.detach(), bias_before - 0.1 * torch.tensor([1.0, -1.0] * 4)
    )


def test_hidden_matrices_are_those_of_blocks() -> None:
    model = nn.Module()
    model.enter = nn.Linear(3, 4)
    model.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in "ab"])
    model.blocks[1][0].requires_grad_(False)  # type: ignore[index]
    assert set(hidden_matrices(model)) == {"blocks.0.0.weight"}


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("count", torch.zeros(()))
    average = Average(model, 0.3)
    expected = model.weight.item()
    for updates in range(8):
        with torch.no_grad():
            model.weight.fill_(updates**2)
        model.get_buffer("count").fill_(updates)
        average.follow(updates)
        keep = min(0.3, (1 + updates) / (10 + updates))
        expected = keep * expected + (1 - keep) * updates**2
    assert average.model.weight.item() == pytest.approx(expected, rel=1e-5)  # type: ignore[operator]
    assert average.model.get_buffer("count") == 7
    assert not average.model.training


def test_parameters_of_another_precision_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'weight' is torch\.float16"):
        Optimiser(nn.Linear(2, 2).half(), weight_decay=0.0, betas=(0.9, 0.999))
    with pytest.raises(ValueError, match="no trainable"):
        Optimiser(nn.GELU(), weight_decay=0.0, betas=(0.9, 0.999))


DRAWS: dict[str, Callable[[Draw], Tensor]] = {
    "normal": lambda draw: draw.normal(3, 2),
    "scalars": lambda draw: draw.normal(),
    "uniform": lambda draw: draw.uniform(5),
    "chance": lambda draw: draw.chance(0.3),
    "integers": lambda draw: draw.integers(2, 9, 4),
}


def draw(first: int, items: int, **changes: int) -> Draw:
    return Draw(**{"seed": 1, "step": 5, "total": 24, "first": first, "items": items, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", DRAWS)
def test_slices_of_a_draw_are_the_whole(kind: str) -> None:
    make = DRAWS[kind]
    whole = make(draw(0, 24))
    pieces = [make(draw(first, 8)) for first in (0, 8, 16)]
    assert torch.equal(torch.cat(pieces), whole)
    twice = draw(0, 24)
    assert torch.equal(make(twice), whole)
    for other in (make(twice), make(draw(0, 24, step=6)), make(draw(0, 24, seed=2))):
        assert other.shape == whole.shape
        assert not torch.equal(other, whole)


def test_draws_have_the_law_of_their_name() -> None:
    many = draw(0, 24)
    assert many.normal(4000).mean().item() == pytest.approx(0, abs=0.02)
    assert many.normal(4000).std().item() == pytest.approx(1, abs=0.02)
    assert many.uniform(4000).mean().item() == pytest.approx(0.5, abs=0.01)
    assert many.chance(0.1, 4000).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert set(many.integers(2, 5, 100).unique().tolist()) == {2, 3, 4}


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": math.nan}, {"ema": 1.0}, {"keep": 0},
        {"schedule": "linear"}, {"precision": "fp8"}, {"compile": "yes"}, {"clip": -1.0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        how(**wrong)


# ---------------------------------------------------------------- a whole run


class Line(Toy):
    """Linear regression whose optimum is known."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 1)

    def batch(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": x @ torch.tensor([[2.0], [-3.0]]) + 0.5}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        return {"loss": (model(batch["x"]) - batch["y"]).square().mean()}

    def samples(self, model: nn.Module, folder: Path, step: int) -> dict[str, float]:
        return {}


def test_a_regression_finds_its_optimum(tmp_path: Path) -> None:
    steps = 250
    settings = how(steps=steps, lr=0.1, clip=0, weight_decay=0, log_every=steps)
    list(train(Line(), settings, tmp_path))
    _, model = load_model(tmp_path / "model", "toy")
    torch.testing.assert_close(model["weight"], torch.tensor([[2.0, -3.0]]), atol=1e-2, rtol=0)
    torch.testing.assert_close(model["bias"], torch.tensor([0.5]), atol=1e-2, rtol=0)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_one_batch_is_overfitted(precision: str, tmp_path: Path) -> None:
    toy = Toy(dropout=False)
    batch = toy.batch(0)
    toy.batch = lambda step: batch  # type: ignore[method-assign]
    reports = finish(tmp_path, toy, steps=150, precision=precision, lr=3e-2, log_every=50)
    assert reports[-1].losses["loss"] < 0.15 * reports[0].losses["loss"]
    assert {x.dtype for x in tensors_of(tmp_path).values()} == {torch.float32, torch.int64}


def test_reports_and_files(unbroken: Path, tmp_path: Path) -> None:
    reports = finish(tmp_path, steps=12, samples_every=6)
    assert [r.step for r in reports] == [1, 4, 6, 8, 12]
    for report, line in zip(reports, metrics_of(tmp_path), strict=True):
        assert list(report.losses) == ["loss", "loss/first"]
        assert report.losses.items() <= line.items()
        assert line == report.line()
        assert set(report.figures) == ({"valid/weight"} if report.step in (6, 12) else set())
        assert report.memory_gb > 0.01
        assert report.items_per_s > 0
        assert 0 <= report.data_wait <= 1
    assert reports[-1].eta_s == 0
    assert reports[0].lr == pytest.approx(1e-2 / 3)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["12.txt", "6.txt"]
    assert (tmp_path / "samples" / "6.txt").read_text("utf-8") == "False"  # listened to in eval
    about, model = load_model(tmp_path / "model", "toy")
    assert (about["steps"], about["task"]) == (12, {"data": {"items": 8, "songs": "sines"}})
    kept = tensors_of(tmp_path)
    assert same(
        {f"average/{name}": x for name, x in model.items()},
        {name: x for name, x in kept.items() if name.startswith("average/")},
    )
    assert same(kept, tensors_of(unbroken))  # how often it reports is its own affair
    assert finish(tmp_path, steps=12) == []  # done


def test_an_interval_reports_the_mean_of_its_steps(unbroken: Path, tmp_path: Path) -> None:
    each = {r.step: r.losses["loss"] for r in finish(tmp_path, log_every=1)}
    before = 0
    for line in metrics_of(unbroken):
        steps = range(before + 1, line["step"] + 1)
        assert line["loss"] == pytest.approx(sum(each[i] for i in steps) / len(steps))
        before = line["step"]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(tmp_path: Path) -> None:
    whole, parts = Toy(dropout=False), Toy(dropout=False)
    finish(tmp_path / "whole", whole)
    finish(tmp_path / "parts", parts, accumulate=4)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_callers_generator_is_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    finish(tmp_path, steps=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="take a multiple of 3"):
        finish(tmp_path, accumulate=3)
    with pytest.raises(ValueError, match="'x' has 8 items, a batch 16"):
        finish(tmp_path, batch=16)


def test_a_compiled_loss_gives_the_same_model(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated ahead of time, without the minute that generating code takes."""
    traced = partial(torch.compile, backend="aot_eager", dynamic=False, fullgraph=True)
    monkeypatch.setattr(loop, "maybe_compile", lambda loss, mode, **_: traced(loss))
    finish(tmp_path / "on", Toy(dropout=False), steps=6, accumulate=2)
    monkeypatch.undo()
    finish(tmp_path / "off", Toy(dropout=False), steps=6, accumulate=2)
    on, off = tensors_of(tmp_path / "on"), tensors_of(tmp_path / "off")
    assert on.keys() == off.keys()  # no _orig_mod
    for name in off:
        torch.testing.assert_close(on[name], off[name], atol=1e-5, rtol=1e-4)


def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler")

    compiled = partial(torch.compile, backend=broken)
    monkeypatch.setattr(loop, "maybe_compile", lambda loss, mode, **_: compiled(loss))
    with pytest.raises(MgenError, match=r"no C\+\+ compiler.*--compile off") as caught:
        finish(tmp_path)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- ends, and going on


def start(run: Path, **arguments: Any) -> subprocess.Popen[str]:
    given = {"batch": 8, "lr": 1e-2, "warmup": 3, "schedule": "cosine", "log_every": 4, "ema": 0.9,
             "device": "cpu", "precision": "f32", "compile": "off", "samples_every": 0}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(run), json.dumps({**given, **arguments})],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_killed_run_goes_on_to_the_same_state_bit_for_bit(optimiser: str, tmp_path: Path) -> None:
    settings = {"steps": 40, "checkpoint_minutes": 0, "optimiser": optimiser}
    random_step = int.from_bytes(os.urandom(1), "big") % 38 + 1
    # once between two checkpoints, right before the model's folder is written; once wherever it is
    with start(tmp_path / "a", **settings, toy={"die_at": random_step}) as killed:
        assert killed.wait(120) == -signal.SIGKILL
    with start(tmp_path / "a", **settings, toy={"slow_s": 0.05}) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()  # the first report of this sitting
        killed.kill()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        finish(tmp_path / "a", **settings)
        finish(tmp_path / "b", steps=40, optimiser=optimiser)
    finally:
        torch.set_num_threads(threads)
    a, b = tmp_path / "a", tmp_path / "b"
    assert same(tensors_of(a), tensors_of(b)), random_step
    assert not list(a.rglob("*.part"))
    for path in (b / "model").iterdir():
        assert path.read_bytes() == (a / "model" / path.name).read_bytes()
    timed = ("items_per_s", "data_wait", "memory_gb", "eta_s", "seconds")
    lines = [
        [{k: v for k, v in line.items() if k not in timed} for line in metrics_of(run)]
        for run in (a, b)
    ]
    assert [line["step"] for line in lines[0]] == [1, *range(4, 41, 4)]  # each once
    assert lines[0] == lines[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_checkpoint(
    number: signal.Signals, unbroken: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    toy = Toy()
    real = toy.loss

    def loss(model: nn.Module, given: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        if int(draw._key[1]) == 4:
            os.kill(os.getpid(), number)
        return real(model, given, draw)

    toy.loss = loss  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path, toy)
    assert signal.getsignal(number) == before
    state = load_state(tmp_path / "checkpoints")
    assert state is not None
    assert state.step == 5  # the step that was being computed is finished
    finish(tmp_path)
    assert same(tensors_of(tmp_path), tensors_of(unbroken))
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 4, 8, 12]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    toy = Toy()
    real = toy.loss

    def loss(model: nn.Module, given: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        if int(draw._key[1]) == 6:
            first = signal.getsignal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            while signal.getsignal(signal.SIGINT) is first:
                pass  # two that come before Python looks are one to it
            signal.raise_signal(signal.SIGINT)
        return real(model, given, draw)

    toy.loss = loss  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path, toy)
    assert load_state(tmp_path / "checkpoints") is None  # a half-done step is not kept


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    toy = Toy()
    real = toy.loss

    def loss(model: nn.Module, given: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        signal.raise_signal(signal.SIGINT)
        return real(model, given, draw)

    toy.loss = loss  # type: ignore[method-assign]
    try:
        finish(tmp_path, toy)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    state = load_state(tmp_path / "checkpoints")
    assert state is not None
    assert state.step == how().steps


def test_a_closed_run_keeps_its_state(unbroken: Path, tmp_path: Path) -> None:
    reports = train(Toy(), how(), tmp_path)
    assert [next(reports).step, next(reports).step] == [1, 4]
    reports.close()
    state = load_state(tmp_path / "checkpoints")
    assert state is not None
    assert state.step == 4
    finish(tmp_path)
    assert same(tensors_of(tmp_path), tensors_of(unbroken))


def test_a_constant_rate_run_that_grows_is_the_longer_run(tmp_path: Path) -> None:
    for steps in (5, 12):
        finish(tmp_path / "grown", steps=steps, schedule="constant")
    finish(tmp_path / "whole", steps=12, schedule="constant")
    assert same(tensors_of(tmp_path / "grown"), tensors_of(tmp_path / "whole"))
    about = json.loads((tmp_path / "grown" / "config.json").read_text("utf-8"))
    assert about["grown"] == [{"at": 5, "from": 5, "to": 12}]


@pytest.mark.parametrize("field", ["lr", "seed", "batch", "task"])
def test_other_settings_are_refused_in_one_line(field: str, tmp_path: Path) -> None:
    finish(tmp_path, steps=2)
    toy = Toy(items=16 if field == "batch" else 8)
    changes: dict[str, Any] = {}
    if field == "task":
        toy.about = {"data": {"songs": "squares", "items": 8}}
        message = r"task.data.songs sines, now squares"
    else:
        changes = {field: {"lr": 0.5, "seed": 3, "batch": 16}[field]}
        message = rf"settings.{field} [\d.]+, now {changes[field]}"
    with pytest.raises(InputError, match=message) as caught:
        finish(tmp_path, toy, **{"steps": 4, **changes})
    assert "\n" not in str(caught.value)


def test_fewer_steps_are_refused_and_what_is_free_is_free(tmp_path: Path) -> None:
    finish(tmp_path, steps=4)
    with pytest.raises(InputError, match="steps 4, now 3, which may only grow"):
        finish(tmp_path, steps=3)
    finish(tmp_path, steps=5, log_every=1, keep=1, samples_every=2, accumulate=2)


def test_a_folder_of_something_else_is_refused(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a 'toy', not a training-run"):
        finish(unbroken / "model")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not the config of a training run"):
        finish(tmp_path)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    first = train(Toy(), how(), tmp_path)
    next(first)
    with pytest.raises(InputError, match="another process is training there"):
        finish(tmp_path)
    first.close()
    finish(tmp_path)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_ends_the_run_at_its_step(broken: str, tmp_path: Path) -> None:
    toy = Toy(nan_at=6)
    if broken == "gradient":  # the square root of 0
        toy = Toy()
        real = toy.loss

        def loss(model: nn.Module, given: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
            losses = real(model, given, draw)
            nothing = (model.second.bias * (int(draw._key[1]) == 6)).sum()  # type: ignore[union-attr, operator]
            infinite = (nothing - nothing.detach()).sqrt() if int(draw._key[1]) == 6 else 0
            return {**losses, "loss": losses["loss"] + infinite}

        toy.loss = loss  # type: ignore[method-assign]
    what = "'loss' is nan" if broken == "loss" else "the gradient's norm is (inf|nan)"
    with pytest.raises(NotFiniteError, match=f"step 7: {what}.*state of step 6 is kept"):
        finish(tmp_path, toy, checkpoint_minutes=0)
    state = load_state(tmp_path / "checkpoints")
    assert state is not None
    assert state.step == 6
    assert all(torch.isfinite(x).all() for x in state.tensors.values())
    load_model(tmp_path / "model", "toy")


def test_an_error_in_a_batch_comes_out_as_it_is(tmp_path: Path) -> None:
    threads = threading.active_count()
    with pytest.raises(LookupError, match="the song is gone"):
        finish(tmp_path, Toy(fail_at=5))
    assert threading.active_count() == threads


def test_batches_come_in_order_and_few_ahead() -> None:
    made: list[int] = []
    feed = Feed(lambda step: made.append(step) or step, 3, 100, ahead=2)
    assert [feed.take() for _ in range(4)] == [3, 4, 5, 6]
    feed.close()
    assert len(made) <= 4 + 2 + 1
    assert made == list(range(3, 3 + len(made)))


# ---------------------------------------------------------------- several processes


@pytest.fixture
def two_processes() -> Iterator[Callable[..., list[str]]]:
    """Runs the toy as `torchrun --nproc-per-node 2` would; gives what each printed."""
    started: list[subprocess.Popen[str]] = []

    def run(folder: Path, **arguments: Any) -> list[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given = json.dumps({"device": "cpu", "precision": "f32", "compile": "off", **arguments})
        for rank in range(2):
            env = {
                **os.environ, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            words = [sys.executable, str(SCRIPT), str(folder), given]
            started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env))
        said = [one.communicate(timeout=120)[0] for one in started]
        assert [one.returncode for one in started] == [0, 0]
        return said

    yield run
    for one in started:
        one.kill()


def test_two_processes_do_what_one_does(
    two_processes: Callable[..., list[str]], tmp_path: Path
) -> None:
    settings = {"steps": 12, "batch": 8, "lr": 1e-2, "log_every": 4, "ema": 0.9, "clip": 0.1}
    said = two_processes(tmp_path / "two", **settings, toy={"dropout": False})
    assert said == ["1\n4\n8\n12\n", ""]  # one reports
    finish(tmp_path / "one", Toy(dropout=False), **settings, warmup=0, schedule="constant")
    for name in ("model-00001-of-00001.safetensors",):
        one = load_file(tmp_path / "one" / "model" / name)
        two = load_file(tmp_path / "two" / "model" / name)
        assert one.keys() == two.keys()
        for key in one:
            torch.testing.assert_close(one[key], two[key], atol=1e-5, rtol=0)
    for a, b in zip(metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], abs=1e-5)


def test_the_line_that_is_printed() -> None:
    report = StepReport(
        step=50, steps=1000, losses={"loss": 0.12345, "loss/mel": 2.0}, lr=1e-4, grad_norm=0.5,
        items_per_s=41.26, data_wait=0.031, memory_gb=1.234, eta_s=3725.4, seconds=10.0,
    )  # fmt: skip
    assert step_line(report, "bars") == (
        "step 50/1000  loss 0.1235 mel 2 grad 0.5  lr 1.00e-04  41.3 bars/s"
        "  data wait 3%  1.23 GB  ETA 1:02:05"
    )
