"""The folder of a training run: config.json, metrics.jsonl, samples, checkpoints, the model.

The config says how the run was begun; whoever goes on with it must want the same. The metrics are
one JSON object a report; what a run did after its last checkpoint and before it was killed is cut
off when it goes on, so no step is there twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgen.core.checkpoint import RunState, load_state, save_state, write_atomically, write_json
from mgen.core.errors import InputError
from mgen.core.locks import claim_folder

KIND = "training-run"
FORMAT = 1

_SHOWN = 3
"""Differences that a message names."""


class RunFolder:
    """A run's files, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder and keep other processes from training in it.

        Raises
        ------
        InputError
            If another process does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = _lock(self.path)
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def steps(self) -> int | None:
        """Steps that the run was last asked for; None at its beginning."""
        return int(self._read_config()["free"]["steps"]) if self.config.is_file() else None

    def resume(self, shape: Mapping[str, Any], free: Mapping[str, Any]) -> RunState | None:
        """The state to go on from, None at a run's beginning. Reads only.

        Parameters
        ----------
        shape
            What shapes the run, as plain JSON (nested): must be what the run was begun with.
        free
            Settings that may be others each time. `steps` among them may grow.

        Raises
        ------
        InputError
            If the run was begun with other settings, or the folder holds something else.
        """
        if not self.config.is_file():
            return None
        there = self._read_config()
        differences = list(_differences(there["shape"], _plain(shape)))
        before, now = int(there["free"]["steps"]), int(free["steps"])
        if now < before:
            differences.append(f"steps {before}, now {now}, which may only grow")
        if differences:
            more = len(differences) - _SHOWN
            named = "; ".join(differences[:_SHOWN]) + (f"; {more} more" if more > 0 else "")
            raise InputError(
                f"{self.path}: begun with other settings ({named}); give the same, or another"
                " folder for a new run"
            )
        return load_state(self.checkpoints)

    def begin(self, shape: Mapping[str, Any], free: Mapping[str, Any], step: int) -> None:
        """Write the config, drop half-written files, and cut the metrics off after `step`."""
        there = self._read_config() if self.config.is_file() else None
        grown = list(there["grown"]) if there else []
        if there and free["steps"] != there["free"]["steps"]:
            grown.append({"at": step, "from": there["free"]["steps"], "to": free["steps"]})
        write_json(
            self.config,
            {"kind": KIND, "format": FORMAT, "shape": shape, "free": free, "grown": grown},
        )
        for folder in (self.path, self.checkpoints):
            for part in folder.glob("*.part"):
                part.unlink()
        if self.metrics.is_file():
            kept = "".join(
                f"{line}\n" for line in self._lines() if json.loads(line)["step"] <= step
            )
            write_atomically(self.metrics, lambda part: _write(part, kept))

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the metrics."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def save(self, state: RunState, keep: int) -> None:
        """Write a checkpoint, and sync the metrics that lead up to it."""
        if self.metrics.is_file():
            with open(self.metrics, "rb+") as file:
                os.fsync(file.fileno())
        save_state(self.checkpoints, state, keep)

    def _lines(self) -> Iterator[str]:
        """Whole lines of the metrics; the last may be cut where the run was killed."""
        for line in self.metrics.read_text("utf-8", errors="replace").split("\n")[:-1]:
            try:
                whole = isinstance(json.loads(line), dict)
            except ValueError:
                continue
            if whole:
                yield line

    def _read_config(self) -> dict[str, Any]:
        try:
            there = json.loads(self.config.read_text("utf-8"))
            found, found_format = there["kind"], there["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.config}: not the config of a training run; name another folder"
            ) from error
        if found != KIND:
            raise InputError(f"{self.path}: holds a '{found}', not a {KIND}; name another folder")
        if found_format > FORMAT:
            raise InputError(f"{self.path}: begun with a newer mgen; upgrade mgen")
        return dict(there)


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def _differences(there: Any, now: Any, where: str = "") -> Iterator[str]:
    """Each place where two JSON values differ, for a message."""
    if isinstance(there, dict) and isinstance(now, dict):
        for key in sorted(there.keys() | now.keys()):
            here = f"{where}.{key}" if where else key
            yield from _differences(there.get(key), now.get(key), here)
    elif there != now:
        yield f"{where} {_short(there)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lock(path: Path) -> int | None:
    """Claim a run for this process."""
    try:
        return claim_folder(path)
    except BlockingIOError:
        raise InputError(
            f"{path}: another process is training there; wait until it is done, or stop it"
        ) from None
