"""In what order bars lose their noise, and which stretches of a song are seen at once.

A schedule is a table of noise levels, a row a step and a column a bar; this table alone makes one
model write autoregressively, in both directions, or between bars that are kept (Chen et al.,
Diffusion Forcing, NeurIPS 2024, section 3.3).

Letters: B bars, K rows of a schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgen.core.errors import UsageError


def shifted(t: Tensor, shift: float) -> Tensor:
    """Noise levels moved towards noise: shift * t / (1 + (shift - 1) * t); 0 and 1 stay.

    Esser et al., "Scaling rectified flow transformers", ICML 2024, section 5.3.2.
    """
    return shift * t / (1.0 + (shift - 1.0) * t)


def staircase(
    mask_B: Sequence[bool], steps: int, lag: int, start_t: float = 1.0, shift: float = 1.0
) -> Tensor:
    """Noise levels of bars after each step, float32 (K, B): from `start_t` to 0.

    Parameters
    ----------
    mask_B
        Bars to write; the others are at 0 throughout.
    steps
        Steps that each bar takes.
    lag
        Steps by which each bar begins after the one before it: 0 writes all at once, `steps` one
        after the other, numbers between as a pyramid.
    start_t
        Where writing begins: 1 from noise, less from the source with so much noise.
    shift
        Steps are even before levels are shifted by it: above 1, smaller where there is most noise.

    Raises
    ------
    UsageError
        If the numbers make no sense.
    """
    if steps < 1 or lag < 0:
        raise UsageError(f"{steps} steps with a lag of {lag} write nothing; take 1 step or more")
    if not 0.0 <= start_t <= 1.0:
        raise UsageError(f"writing begins at a noise level of 0 to 1, not {start_t}")
    if not shift > 0.0:
        raise UsageError(f"levels cannot be shifted by {shift}; take 1 for even steps")
    written = [i for i, write in enumerate(mask_B) if write]
    rows = steps + lag * max(0, len(written) - 1) + 1
    levels_KB = torch.zeros(rows, len(mask_B), dtype=torch.float64)
    done_K = torch.arange(rows, dtype=torch.float64)
    shifted_back = start_t / (shift - (shift - 1.0) * start_t)
    for turn, bar in enumerate(written):
        left_K = 1.0 - ((done_K - turn * lag) / steps).clamp(0.0, 1.0)
        levels_KB[:, bar] = shifted(shifted_back * left_K, shift)
    return levels_KB.float()


@dataclass(frozen=True, slots=True)
class Window:
    """Bars `first` to `last` (not included), of which those before `until` are kept as written."""

    first: int
    last: int
    until: int


def windows(mask_B: Sequence[bool], length: int, *, context: int, look_ahead: int) -> list[Window]:
    """Windows of at most `length` bars in which all bars of a mask are written, left to right.

    A window begins some bars before the first that is still to be written, so that what was written
    last is its context. Its last bars are written to be looked at, and again in the next window, so
    that no bar is written without knowing what follows it.

    Parameters
    ----------
    mask_B
        Bars to write.
    length
        Bars that the model was trained on.
    context
        Bars before the first that is written, less than `length`.
    look_ahead
        Bars at the end that are written again, fewer than what is left; 0 where no bar sees a
        later one.
    """
    assert 0 <= look_ahead < length - context
    n, plan = len(mask_B), []
    at = next((i for i, write in enumerate(mask_B) if write), n)
    while at < n:
        first = max(0, min(at - context, n - length))
        last = min(n, first + length)
        plan.append(Window(first, last, last - look_ahead if last < n else last))
        at = next((i for i in range(plan[-1].until, n) if mask_B[i]), n)
    return plan
