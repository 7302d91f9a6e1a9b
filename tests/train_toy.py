"""A toy task for the training loop, and a script that trains it: what a killed run is tested with.

python train_toy.py RUN JSON: JSON has TrainSettings, and the arguments of Toy under "toy".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgen.core.checkpoint import save_model
from mgen.core.train_loop import Draw, TrainSettings, train


class Net(nn.Module):
    """A tiny convolutional autoencoder whose loss uses two of its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 6, 5, padding=2)
        self.norm = nn.LayerNorm(6)
        self.dropout = nn.Dropout(0.1)
        self.middle = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.second = nn.Conv1d(6, 1, 5, padding=2)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def encode(self, x_BCN: Tensor) -> Tensor:
        return self.norm(self.first(x_BCN).transpose(1, 2))

    def decode(self, z_BNW: Tensor) -> Tensor:
        for layer in self.middle:
            z_BNW = z_BNW + torch.tanh(layer(z_BNW))
        return self.second(torch.tanh(self.dropout(z_BNW)).transpose(1, 2))


class Toy:
    """Reconstruction of noisy sines; `batch` and `loss` can be told to fail at a step."""

    def __init__(
        self, items: int = 8, *, dropout: bool = True, fail_at: int = -1, nan_at: int = -1,
        die_at: int = -1, slow_s: float = 0.0,
    ) -> None:  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.model: nn.Module = Net()
        if not dropout:
            self.model.dropout.p = 0.0  # type: ignore[union-attr, assignment]
        self.items, self.fail_at, self.nan_at, self.die_at = items, fail_at, nan_at, die_at
        self.slow_s = slow_s
        self.about: dict[str, Any] = {"data": {"songs": "sines", "items": items}}

    def batch(self, step: int) -> dict[str, Tensor]:
        if step == self.fail_at:
            raise LookupError("the song is gone")
        time.sleep(self.slow_s)
        generator = torch.Generator().manual_seed(step)
        rate = torch.rand(self.items, 1, 1, generator=generator) + 0.1
        x = torch.sin(rate * torch.arange(32.0))
        return {"x": x * (float("nan") if step == self.nan_at else 1.0)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        x = batch["x"]
        z = model.encode(x)  # type: ignore[operator]
        z = z + 0.1 * draw.normal(*z.shape[1:]) * draw.chance(0.5, 1, 1)
        error = (model.decode(z) - x).square()  # type: ignore[operator]
        if model.training:
            model.seen += 1  # type: ignore[operator]
        return {"loss": error.mean(), "loss/first": error[..., 0].mean()}

    def samples(self, model: nn.Module, folder: Path, step: int) -> dict[str, float]:
        folder.mkdir(exist_ok=True)
        (folder / f"{step}.txt").write_text(str(model.training), "utf-8")
        return {"valid/weight": float(model.second.weight.abs().mean())}  # type: ignore[union-attr]

    def save(self, model: nn.Module, folder: Path, about: dict[str, Any]) -> str:
        if about["steps"] == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return save_model(folder, model.state_dict(), about, "toy", torch.float32)


def main(run: str, given: str) -> None:
    arguments = json.loads(given)
    toy = Toy(**arguments.pop("toy", {}))
    for report in train(toy, TrainSettings(**arguments), Path(run)):
        print(report.step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
