"""What a stage hands to the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from mgen.core.train_loop.draws import Draw

Batch = dict[str, Tensor]


class Task(Protocol):
    """What a stage hands to the loop.

    Attributes
    ----------
    model
        With its first parameters; the loop moves it to the device.
    about
        What shapes the run besides the settings (config of the model, data), as plain JSON.
    """

    model: nn.Module
    about: dict[str, Any]

    def batch(self, step: int) -> Batch:
        """The whole batch of a step (from 0), items first, on the CPU; called in a thread."""

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """`loss` is minimised, the rest is logged: means over the items, 0-d."""

    def samples(self, model: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Write the same few samples each time; gives figures for the metrics, or {}."""

    def save(self, model: nn.Module, folder: Path, about: dict[str, Any]) -> object:
        """Write the averaged model's folder."""
