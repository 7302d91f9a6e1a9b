"""A tiny latent action model in training: what two processes are tested with.

python train_tiny_lam.py RUN JSON: JSON has TrainSettings, and a bottleneck under "bottleneck".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from test_lam_model import make_config, some_bars

from mgen.core.lam.config import BottleneckName
from mgen.core.lam.training import LamTask, LossWeights
from mgen.core.train_loop import TrainSettings, train


def tiny_task(name: BottleneckName, batch: int) -> LamTask:
    """A task whose loss is a mean over items; evenness of use is one of the batch."""
    return LamTask(make_config(name), some_bars(name), batch=batch, weights=LossWeights(balance=0))


def main(run: str, given: str) -> None:
    arguments = json.loads(given)
    settings = TrainSettings(**{k: v for k, v in arguments.items() if k != "bottleneck"})
    for report in train(tiny_task(arguments["bottleneck"], settings.batch), settings, Path(run)):
        print(report.step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
