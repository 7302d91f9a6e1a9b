"""stdout is the result and nothing else; everything a person reads on the way goes to stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from mgen.core.train_loop import StepReport


def console() -> Console:
    """The console on stderr that tables and messages go to (rich honours NO_COLOR)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One plain line to stderr."""
    print(message, file=sys.stderr)


def warn(message: str) -> None:
    """One line that a person should not miss, to stderr."""
    print(f"mgen: warning: {message}", file=sys.stderr)


def result(
    paths: Iterable[Path | str], figures: Mapping[str, Any], as_json: bool, key: str = "paths"
) -> None:
    """Print the result: one path per line, or with `--json` one object of paths and figures."""
    listed = [os.fspath(p) for p in paths]
    if as_json:
        print(json.dumps({key: listed, **figures}, ensure_ascii=False, allow_nan=False))
    else:
        for path in listed:
            print(path)
    sys.stdout.flush()


def command_line() -> str:
    """The command as it was typed: what a layer records of how it was made."""
    return shlex.join(["mgen", *sys.argv[1:]])


@contextmanager
def progress(total: float | None, label: str, unit: str = "it") -> Iterator[Any]:
    """A tqdm bar on stderr, drawn only where stderr is a terminal."""
    from tqdm import tqdm

    with tqdm(
        total=total, desc=label, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty(),
        dynamic_ncols=True, leave=False,
    ) as bar:  # fmt: skip
        yield bar


def step_line(report: StepReport, unit: str = "items") -> str:
    """A training report as one line for stderr; `unit` is what the batches count."""
    values = {**report.losses, "grad": report.grad_norm, **report.figures}
    shown = " ".join(f"{k.removeprefix('loss/')} {value:.4g}" for k, value in values.items())
    return (
        f"step {report.step}/{report.steps}  {shown}  lr {report.lr:.2e}"
        f"  {report.items_per_s:.3g} {unit}/s  data wait {report.data_wait:.0%}"
        f"  {report.memory_gb:.2f} GB  ETA {_time_left(report.eta_s)}"
    )


def _time_left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
