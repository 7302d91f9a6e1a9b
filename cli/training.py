"""What the commands that train have in common: options, settings, and the run as it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgen.cli import output

if TYPE_CHECKING:
    from mgen.core.train_loop import StepReport, Task, TrainSettings


class Size(StrEnum):
    """The one dial; widths and depths follow."""

    small = "small"
    base = "base"
    large = "large"


class Optimiser(StrEnum):
    """What moves the weights."""

    muon = "muon"
    adamw = "adamw"


OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="The folder to write the model to.", metavar="MODEL")
]
SizeOption = Annotated[Size, typer.Option(help="small runs on a CPU; base and large want a GPU.")]
StepsOption = Annotated[int, typer.Option(help="Updates in all; may grow later.", min=1)]
BatchOption = Annotated[int, typer.Option(help="Items of an update.", min=1)]
OptimiserOption = Annotated[
    Optimiser, typer.Option(help="muon (with AdamW for what is no matrix) needs far fewer steps.")
]
LrOption = Annotated[
    float | None,
    typer.Option(
        help="Highest learning rate; falls as a cosine. [0.002; adamw: 0.0003]",
        show_default=False,
    ),
]

_RATES = {"muon": 2e-3, "adamw": 3e-4}
_LOG_EVERY, _SAMPLES_EVERY, _WARMUP = 50, 1000, 1000


def settings_of(
    *, steps: int, batch: int, optimiser: Optimiser, lr: float | None, seed: int, device: StrEnum,
    precision: StrEnum, compile: StrEnum,
) -> TrainSettings:  # fmt: skip
    """How to train, from the options."""
    from mgen.core.train_loop import TrainSettings

    return TrainSettings(
        steps=steps, batch=batch, lr=_RATES[optimiser.value] if lr is None else lr,
        warmup=min(_WARMUP, steps // 20), schedule="cosine", optimiser=optimiser.value, seed=seed,
        device=device.value, precision=precision.value,  # type: ignore[arg-type]
        compile=compile.value, log_every=_LOG_EVERY,  # type: ignore[arg-type]
        samples_every=_SAMPLES_EVERY,
    )  # fmt: skip


def run(
    task: Task, settings: TrainSettings, folder: Path, *, title: str, items: str
) -> StepReport | None:
    """Train, showing how far it is; gives the last report, None where nothing was left to do."""
    from mgen.core.train_loop import train

    last = None
    with output.progress(settings.steps, title, "step") as bar:
        for last in train(task, settings, folder):
            bar.update(last.step - bar.n)
            output.say(output.step_line(last, items))
    return last


def link(stores: Sequence[Path | str], stage: str, model_id: str, out: Path) -> None:
    """Make a model the current one of stores."""
    from mgen.core.store import Store

    for path in stores:
        with Store.open(path, "a") as store:
            store.link_model(stage, model_id, out)
