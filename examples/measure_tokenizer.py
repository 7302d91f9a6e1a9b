"""Time a tokenizer: python examples/measure_tokenizer.py [MODEL] [--device cuda] [--compile].

Prints GFLOP of one decoder step and bar, and for batches of 1 and 8 bars (or items) the seconds a
bar takes to encode and to decode with the model's own number of steps, eager and, with --compile,
under torch.compile, with what the first call costs; the median of five calls. Peak memory at the
end. MODEL is the shipped tokenizer unless it is given.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mgen.core.devices import choose_device, peak_memory
from mgen.core.tokenizer import Tokenizer, load_tokenizer
from mgen.core.weights import shipped

CALLS = 5


def gflop_of_a_step(tokenizer: Tokenizer) -> float:
    net, config = tokenizer.network, tokenizer.config
    z_BLD = torch.zeros(1, config.tokens, config.dims, device=tokenizer.device)
    with torch.inference_mode():
        condition = net.condition(z_BLD)
        x = torch.zeros(1, *net.flow_shape(config.samples), device=tokenizer.device)
        with FlopCounterMode(display=False) as counter:
            net.predict(x, torch.ones(1, device=tokenizer.device), condition)
    return float(counter.get_total_flops() / 1e9)


def seconds(call: Callable[[], Tensor]) -> tuple[float, float]:
    """Of the first call, and the median of those that follow."""
    taken = []
    for _ in range(CALLS + 1):
        began = time.perf_counter()
        result = call()
        if result.is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[0], statistics.median(taken[1:])


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
            sound_BCN = 0.1 * torch.randn(items, config.channels, config.samples)
            z_BLD = tokenizer.encode(sound_BCN)
            _, encode_s = seconds(lambda sound_BCN=sound_BCN: tokenizer.encode(sound_BCN))
            first_s, decode_s = seconds(
                lambda z_BLD=z_BLD: tokenizer.decode(z_BLD, keys=range(len(z_BLD)))
            )
            print(
                f"{'compiled' if compiled else 'eager':9} {items} at once: encode"
                f" {encode_s / items:.4f} s an item, decode {decode_s / items:.4f} s (first call"
                f" {first_s:.2f} s)"
            )
    print(f"peak memory {peak_memory(device) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
