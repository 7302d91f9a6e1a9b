"""Time a tokenizer: python examples/measure_tokenizer.py [MODEL] [--device cuda] [--compile].

Prints GFLOP of one decoder step and item (a bar), and for 1 and 8 items at once the seconds an item
takes to encode, to take one step of the decoder, and to decode with the model's own number of
steps: eager and, with --compile, with the decoder's network under torch.compile, and what the first
call costs then, compilers included. By the clock, the median of five calls, and in brackets the
processor time of all threads, which other work on the machine changes less. Peak memory at the end.
MODEL is the shipped tokenizer unless it is given.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mgen.core.devices import choose_device, peak_memory
from mgen.core.tokenizer import Tokenizer, load_tokenizer
from mgen.core.weights import shipped

CALLS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Of one of several items: by the clock, of all threads; and of the first call for them all."""

    clock: float
    processor: float
    first: float
    first_processor: float

    def __str__(self) -> str:
        return f"{self.clock:.4f} s ({self.processor:.4f})"


def gflop_of_a_step(tokenizer: Tokenizer) -> float:
    net, config = tokenizer.network, tokenizer.config
    z_BLD = torch.zeros(1, config.tokens, config.dims, device=tokenizer.device)
    with torch.inference_mode():
        condition = net.condition(z_BLD)
        x = torch.zeros(1, *net.flow_shape(config.samples), device=tokenizer.device)
        with FlopCounterMode(display=False) as counter:
            net.predict(x, torch.ones(1, device=tokenizer.device), condition)
    return float(counter.get_total_flops() / 1e9)


def seconds(call: Callable[[], Tensor], items: int) -> Seconds:
    """The first call, and the median of those that follow."""
    clock, processor = [], []
    for _ in range(CALLS + 1):
        began, busy = time.perf_counter(), processor_seconds()
        result = call()
        if result.is_cuda:
            torch.cuda.synchronize()
        clock.append(time.perf_counter() - began)
        processor.append(processor_seconds() - busy)
    return Seconds(
        clock=statistics.median(clock[1:]) / items,
        processor=statistics.median(processor[1:]) / items,
        first=clock[0], first_processor=processor[0],
    )  # fmt: skip


def processor_seconds() -> float:
    """Of this process and its children that ended, compilers among them."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def time_encoding(tokenizer: Tokenizer, items: int) -> Seconds:
    sound_BCN = 0.1 * torch.randn(items, tokenizer.config.channels, tokenizer.config.samples)
    return seconds(lambda: tokenizer.encode(sound_BCN), items)


def time_decoding(tokenizer: Tokenizer, items: int) -> Seconds:
    z_BLD = some_latents(tokenizer, items)
    return seconds(lambda: tokenizer.decode(z_BLD, keys=range(items)), items)


def time_a_step(tokenizer: Tokenizer, items: int) -> Seconds:
    net, config = tokenizer.network, tokenizer.config
    with torch.inference_mode():
        condition = net.condition(some_latents(tokenizer, items))
        x = torch.randn(items, *net.flow_shape(config.samples), device=tokenizer.device)
        t_B = torch.full((items,), 0.5, device=tokenizer.device)
        return seconds(lambda: net.predict(x, t_B, condition), items)


def some_latents(tokenizer: Tokenizer, items: int) -> Tensor:
    """Those of noise."""
    config = tokenizer.config
    return tokenizer.encode(0.1 * torch.randn(items, config.channels, config.samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", help="[the shipped one]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    tokenizer = load_tokenizer(
        options.model or shipped("tokenizer"), str(choose_device(options.device))
    )
    config, device = tokenizer.config, tokenizer.device
    weights = sum(p.numel() for p in tokenizer.network.parameters())
    print(
        f"{config.arch}, {weights / 1e6:.1f} M weights, {gflop_of_a_step(tokenizer):.2f} GFLOP a"
        f" step and item, {config.steps} steps; {device}, {torch.get_num_threads()} threads"
    )
    for compiled in (False, True)[: 2 if options.compile else 1]:
        if compiled:
            tokenizer.network.predict = torch.compile(tokenizer.network.predict, dynamic=False)
        for items in (1, 8):
            encoding = time_encoding(tokenizer, items)
            step = time_a_step(tokenizer, items)
            decoding = time_decoding(tokenizer, items)
            print(
                f"{'compiled' if compiled else 'eager':9} {items} at once, an item: encode"
                f" {encoding}, a step {step}, decode {decoding}; the first step of all took"
                f" {step.first:.2f} s ({step.first_processor:.2f})",
                flush=True,
            )
    print(f"peak memory {peak_memory(device) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
