"""Compare ways to write bars: python examples/compare_sampling.py WORK [--windows 12] [--try ...].

WORK/dev.zarr is as examples/evaluate_actions.py leaves it; it is only read. In windows of 12 bars
of its songs the middle 4 are written anew, as `mgen edit` does it, and with one thing changed:

    --try steps=16 --try shift=1,guidance=3 --try precision=f32

read back  share of the bars told one action of the palette in which it is read again from their
           latents, as the first and among the 3 largest
error      mean squared error to the true latents, told the bars' own actions, over that of the mean
           of the 8 bars around
changes    power of the changes from token to token over that of the real bars', told an action and
           told their own: below 1 is smoother than music
seconds    of processor, four bars

The same windows, actions and noise in all rows.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from evaluate_actions import BARS, WRITTEN, Models, Window, single, whole_labels, windows_of
from torch import Tensor

from mgen.core.dynamics.guidance import Guidance
from mgen.core.dynamics.model import Dynamics, load_dynamics
from mgen.core.dynamics.sampling import Sampling
from mgen.core.editing.writer import GUIDANCE, RESCALE, WRITING
from mgen.core.lam.data import read_bars
from mgen.core.lam.folder import load_lam
from mgen.core.store import Store
from mgen.core.tokenizer import load_tokenizer

TRIED = (
    "", "steps=4", "steps=6", "steps=16", "steps=16,shift=1", "guidance=1", "guidance=2",
    "guidance=3", "guidance=4.5", "rescale=0", "precision=f32",
)  # fmt: skip
COLUMNS = ("read back, first", "in 3", "error", "changes, told", "own", "seconds")


def tried(models: Models, text: str) -> Models:
    """The models, writing as a text says: `steps=16,shift=1`; what it leaves out stays."""
    asked = dict(part.split("=") for part in text.split(",") if part)
    sampling = Sampling(
        steps=int(asked.pop("steps", WRITING.steps)),
        shift=float(asked.pop("shift", WRITING.shift)),
    )
    guidance = Guidance(
        scale=float(asked.pop("guidance", GUIDANCE)), rescale=float(asked.pop("rescale", RESCALE))
    )
    dynamics = models.dynamics
    if (precision := asked.pop("precision", "auto")) != "auto":
        dynamics = Dynamics(dynamics.network, dynamics.id, bf16=precision == "bf16")
    if asked:
        raise SystemExit(f"--try {text}: no {', '.join(asked)}; say steps, shift, guidance, rescale"
                         " or precision")  # fmt: skip
    return replace(models, dynamics=dynamics, sampling=sampling, guidance=guidance)


def changes(z_BLD: Tensor) -> float:
    return float(z_BLD[WRITTEN].diff(dim=1).square().mean())


def measured(models: Models, windows: list[Window]) -> list[str]:
    rng = np.random.default_rng(1)
    rows = []
    for seed, window in enumerate(windows):
        action = int(rng.integers(models.lam.config.actions))
        own_BA = models.told(window.payload)
        told_BA = own_BA.clone()
        told_BA[WRITTEN] = models.told(single(action, window.payload))[WRITTEN]
        began = time.process_time()
        asked_BLD = models.write(window, told_BA, seed)
        seconds = time.process_time() - began
        again_XLD = window.whole_XLD.clone()
        again_XLD[window.written] = asked_BLD[WRITTEN]
        found = models.lam.label(again_XLD)
        index_WK = torch.where(found.weight > 0, found.index, -1)[window.written]
        own_BLD = models.write(window, own_BA, seed)
        around_BLD = torch.cat([window.z_BLD[: WRITTEN.start], window.z_BLD[WRITTEN.stop :]])
        error, plain = (
            float((z_WLD - window.z_BLD[WRITTEN]).square().mean())
            for z_WLD in (own_BLD[WRITTEN], around_BLD.mean(0))
        )
        real = changes(window.z_BLD)
        rows.append(
            [
                float((index_WK[:, 0] == action).float().mean()),
                float((index_WK == action).any(1).float().mean()),
                error / plain, changes(asked_BLD) / real, changes(own_BLD) / real, seconds,
            ]
        )  # fmt: skip
    return [f"{value:.2f}" for value in np.mean(rows, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("core/weights"))
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--try", dest="tried", action="append", help="steps=16,shift=1")
    options = parser.parse_args()
    lam = load_lam(options.weights / "lam")
    dynamics = load_dynamics(options.weights / "dynamics")
    with Store.open(options.work / "dev.zarr") as store:
        bars, table = read_bars([store], lam.config), store.bars(jittered=True)
        labels = whole_labels(bars, lam)
        windows = windows_of(store, bars, table, labels, options.windows)
    shipped = Models(load_tokenizer(options.weights / "tokenizer"), lam, dynamics)
    print(f"{len(windows)} windows of {BARS} bars, {len({w.song for w in windows})} songs")
    print("| | " + " | ".join(COLUMNS) + " |")
    for text in options.tried or TRIED:
        figures = measured(tried(shipped, text), windows)
        print(f"| {text or 'as it ships'} | " + " | ".join(figures) + " |", flush=True)


if __name__ == "__main__":
    main()
