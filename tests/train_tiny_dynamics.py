"""A tiny dynamics model in training: what two processes and a killed run are tested with.

python train_tiny_dynamics.py RUN JSON: JSON has TrainSettings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mgen.core.dynamics import DynamicsConfig
from mgen.core.dynamics.data import BarRows, TrainingBars, WindowSettings
from mgen.core.dynamics.training import DynamicsTask
from mgen.core.train_loop import TrainSettings, train

TOKENS, DIMS, ACTION = 4, 3, 6


def rows(songs: int = 3, bars: int = 7, seed: int = 0) -> BarRows:
    """Songs of bars that all differ, each with an action that tells what it is."""
    rng = np.random.default_rng(seed)
    n = songs * bars
    action_XA = rng.standard_normal((n, ACTION)).astype(np.float32)
    return BarRows(
        z_XLD=rng.standard_normal((n, TOKENS, DIMS)).astype(np.float16),
        bpm_X=rng.uniform(60, 180, n).astype(np.float32), action_XA=action_XA,
        single_XA=0.5 * action_XA, runs=[(i * bars, (i + 1) * bars) for i in range(songs)],
        owners=[f"song {i}" for i in range(songs)], copies=np.repeat(np.arange(songs), bars),
    )  # fmt: skip


def tiny_task(given: BarRows | None = None, **changed: Any) -> DynamicsTask:
    """A task on windows of 3 and of 5 bars at most."""
    batch = changed.pop("batch", 4)
    parts = {name: changed.pop(name) for name in ("recipe", "tokenizer") if name in changed}
    bars = TrainingBars(given or rows(), WindowSettings(bars=changed.pop("bars", 5), seed=3))
    shape: dict[str, Any] = {
        "condition": "adaln", "tokens": TOKENS, "dims": DIMS, "action": ACTION,
        "bars": bars.lengths[-1], "width": 24, "depth": 2, "heads": 2, "embedding": 16, "rank": 4,
    }  # fmt: skip
    return DynamicsTask(DynamicsConfig(**{**shape, **changed}), bars, batch=batch, **parts)


def main(run: str, given: str) -> None:
    for report in train(tiny_task(), TrainSettings(**json.loads(given)), Path(run)):
        print(report.step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
