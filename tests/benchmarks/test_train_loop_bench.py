"""Time steps of the training loop, compiled and not; both must end with the same model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mgen.core.checkpoint import load_model
from mgen.core.train_loop import TrainSettings, train

sys.path.insert(0, str(Path(__file__).parents[1]))

from train_toy import Toy

STEPS = 200


def trained(run: Path, compiled: str) -> dict[str, torch.Tensor]:
    settings = TrainSettings(
        steps=STEPS, batch=8, lr=1e-3, log_every=STEPS, device="cpu", precision="f32",
        compile=compiled,  # type: ignore[arg-type]
    )  # fmt: skip
    for _ in train(Toy(dropout=False), settings, run):
        pass
    return load_model(run / "model", "toy")[1]


def test_steps(benchmark: Any, tmp_path: Path) -> None:
    runs = iter(range(100))
    model = benchmark.pedantic(lambda: trained(tmp_path / str(next(runs)), "off"), rounds=1)
    assert all(torch.isfinite(x).all() for x in model.values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
def test_compiled_steps(benchmark: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("generating code takes half a minute; --benchmark-enable runs it")
    model = benchmark.pedantic(lambda: trained(tmp_path / "on", "on"), rounds=1)
    for name, x in trained(tmp_path / "off", "off").items():
        torch.testing.assert_close(model[name], x, atol=1e-4, rtol=1e-3)
