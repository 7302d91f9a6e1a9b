"""When torch.compile pays.

Compiling costs about 30 s on a processor (cached after) and some seconds on a GPU; it is won back
only over many calls. One song, one edit, one map on a CPU never win it back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch._compile import _disable_dynamo

P = ParamSpec("P")
R = TypeVar("R")

Mode = Literal["auto", "on", "off"]

MIN_ITEMS_CPU = 2000
"""Calls from which compiling pays on a processor: 30 s against about 15 ms saved per call."""
MIN_ITEMS_CUDA = 200
"""The same on a GPU."""


def never_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`torch.compiler.disable`, without the second that importing the compiler takes: what is
    never called inside a compiled function never needs it.
    """
    kept: Callable[P, R] = _disable_dynamo(function)
    return kept


def should_compile(mode: str, *, device: str | torch.device, items: int) -> bool:
    """Whether to compile something that will be called `items` times with the same shapes.

    Raises
    ------
    ValueError
        If the mode is not auto, on or off.
    """
    if mode not in ("auto", "on", "off"):
        raise ValueError(f"compile mode '{mode}' is unknown; choose auto, on or off")
    if mode != "auto":
        return mode == "on"
    on_gpu = torch.device(device).type == "cuda"
    return items >= (MIN_ITEMS_CUDA if on_gpu else MIN_ITEMS_CPU)


def maybe_compile(
    fn: Callable[P, R],
    mode: Mode | str = "auto",
    *,
    device: str | torch.device,
    items: int,
    **options: Any,
) -> Callable[P, R]:
    """`torch.compile(fn, **options)` where the mode says so or, under `auto`, where it pays.

    Parameters
    ----------
    fn
        A function or module.
    mode
        `on` and `off` decide; `auto` compiles only long jobs.
    device
        Where `fn` will run.
    items
        How often it will be called with the same shapes.

    Raises
    ------
    ValueError
        If the mode is not auto, on or off.
    """
    if not should_compile(mode, device=device, items=items):
        return fn
    return torch.compile(fn, **options)
