"""Compare what an action can be made of: python examples/compare_bottlenecks.py WORK -o RUNS.

WORK is where examples/train_actions.py and examples/evaluate_actions.py have left their stores. For
each bottleneck a small action model learns from WORK/songs.zarr, a small dynamics model is told its
actions, and both are measured on the songs of WORK/dev.zarr, which neither has heard. All take the
same steps of the same batches of the same bars, from the same seed; the stores are only read. Runs
and figures are kept in RUNS: the same command goes on where it was stopped, and prints the table.

bits             that a bar's action is told in: log2 of the codes; of styles, which ones count,
                 and their weights as numbers besides
used, perplexity of the actions (of several quantizers the mean), on dev
song             normalised mutual information of a bar's first action with its song
gain             by how much the action model's own decoder writes held-out bars better with their
                 actions than with those of another sequence, from noise alone
control          four bars of twelve written by the dynamics model: by how much their latents are
                 nearer to the true ones when it is told their actions than when it is told those of
                 another song's bars, the noise the same
read back        share of the bars told one action in which it is the first to be read again, in
                 their latents; one of 64 by chance
minutes          of processor, both trainings (of the last call, where they were interrupted)
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from evaluate_actions import (
    WRITTEN,
    Models,
    Window,
    control,
    identity,
    interval,
    single,
    whole_labels,
    windows_of,
)
from train_actions import dynamics_task, run

from mgen.core.dynamics.data import BarRows
from mgen.core.dynamics.model import load_dynamics
from mgen.core.dynamics.reading import single_of, told_of
from mgen.core.lam.config import LamConfig, make_config
from mgen.core.lam.data import Bars, TrainingBars, current_latents, read_bars
from mgen.core.lam.effects import FIGURES
from mgen.core.lam.folder import LatentActionModel, load_lam
from mgen.core.lam.survey import Survey, health
from mgen.core.lam.training import LamTask
from mgen.core.quantizers import Payload
from mgen.core.store import BarTable, Store
from mgen.core.tokenizer import load_tokenizer

BOTTLENECKS: Mapping[str, Mapping[str, Any]] = {
    "vq": {"bottleneck": "vq"},
    "fsq": {"bottleneck": "fsq"},
    "residual-fsq": {"bottleneck": "residual-fsq"},
    "style, relative": {"bottleneck": "style", "relative": True},
    "style, absolute": {"bottleneck": "style", "relative": False},
}
LAM_SIZES = {"width": 128, "hidden": 240, "spatial": 2, "temporal": 1}
DYNAMICS_SIZES = {"width": 128, "depth": 4, "heads": 4}
"""In place of those of `small`: so that models have seen enough in a few minutes of one core."""
COLUMNS = ("bits", "used", "perplexity", "song", "gain, dB", "control, dB", "read back",
           "minutes")  # fmt: skip


def bits(config: LamConfig) -> str:
    if config.bottleneck == "style":
        return f"{math.log2(math.comb(config.actions, config.top_k)):.1f} + weights"
    return f"{config.quantizers * math.log2(config.actions):.0f}"


def real_bars(store: Store, config: LamConfig, every: int) -> tuple[Bars, BarTable]:
    """The real bars of every so many songs of a store, no jittered ones."""
    bars, table = read_bars([store], config), store.bars(jittered=True)
    kept_X = (table.jitter == 0) & (table.song % every == 0)
    at_X = np.cumsum(kept_X) - kept_X  # where each bar goes
    runs = [(own, run) for own, run in zip(bars.owners, bars.runs, strict=True) if kept_X[run[0]]]
    kept, copies = np.unique(bars.copies[kept_X], return_inverse=True)
    chosen = Bars(
        z_XLD=bars.z_XLD[kept_X], mel_XLM=None, copies=copies.astype(np.int64),
        runs=tuple((int(at_X[a]), int(at_X[b - 1]) + 1) for _, (a, b) in runs),
        owners=tuple(own for own, _ in runs), songs=tuple(bars.songs[c] for c in kept),
    )  # fmt: skip
    return chosen, table.where(kept_X)


def rows_of(bars: Bars, table: BarTable, lam: LatentActionModel) -> BarRows:
    """What a dynamics model learns from, labelled in memory."""
    labels = whole_labels(bars, lam)
    return BarRows(
        z_XLD=bars.z_XLD, bpm_X=table.bpm.astype(np.float32),
        action_XA=told_of(lam, labels).numpy(), single_XA=told_of(lam, single_of(labels)).numpy(),
        runs=bars.runs, owners=bars.owners, copies=bars.copies,
    )  # fmt: skip


def survey_of(table: BarTable, labels: Payload) -> Survey:
    """The real bars of labelled songs, of which no sound was measured."""
    real = np.flatnonzero(table.valid)
    return Survey(
        labels=Payload(labels.index[real], labels.weight[real]), song_X=table.song[real],
        bar_X=table.index[real].astype(np.int64) + 1,
        differences_XE=np.full((len(real), len(FIGURES)), np.nan),
    )  # fmt: skip


def last_figures(folder: Path) -> dict[str, Any]:
    """The last line of a run."""
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def in_latents(
    models: Models, windows: list[Window], used: npt.NDArray[np.int64]
) -> dict[str, str]:
    """Controllability without the tokenizer's own errors (and its time)."""
    rng = np.random.default_rng(0)
    nearer: list[float] = []
    again: list[float] = []
    for seed, window in enumerate(windows):
        others = [w for w in windows if w.song != window.song]
        other = others[rng.integers(len(others))]
        own_BA = models.told(window.payload)
        wrong_BA = own_BA.clone()
        wrong_BA[WRITTEN] = models.told(other.payload)[WRITTEN]
        errors = [
            (models.write(window, told_BA, seed) - window.z_BLD)[WRITTEN].square().mean()
            for told_BA in (wrong_BA, own_BA)
        ]
        nearer.append(float(10.0 * (errors[0] / errors[1]).log10()))
        action = int(used[rng.integers(len(used))])
        one_BA = own_BA.clone()
        one_BA[WRITTEN] = models.told(single(action, window.payload))[WRITTEN]
        read_XLD = window.whole_XLD.clone()
        read_XLD[window.written] = models.write(window, one_BA, seed)[WRITTEN]
        first_W = models.lam.label(read_XLD).index[window.written, 0]
        again.append(float((first_W == action).float().mean()))
    return {"control, dB": interval(nearer), "read back": interval(again)}


def compared(name: str, folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """Train both models of a bottleneck and measure them: the figures by column."""
    began = time.process_time()
    with Store.open(options.work / "songs.zarr") as songs:
        spoken, tokens, dims = current_latents([songs], options.weights / "tokenizer")
        config = make_config(
            tokens=tokens, dims=dims, tokenizer=spoken, run_steps=options.lam_steps,
            **BOTTLENECKS[name],
        )  # fmt: skip
        bars, table = real_bars(songs, config, options.every)
    config = replace(config, sizes=replace(config.sizes, **LAM_SIZES))
    task = LamTask(config, TrainingBars(bars, config), batch=options.batch)
    lam = load_lam(run(task, options.lam_steps, 4e-3, folder / "lam", options))
    task = dynamics_task(
        rows_of(bars, table, lam), lam, options.dynamics_batch, valid_windows=8, **DYNAMICS_SIZES
    )
    model = run(task, options.dynamics_steps, 3e-3, folder / "dynamics", options)
    minutes = (time.process_time() - began) / 60.0
    with Store.open(options.work / "dev.zarr") as store:
        bars, table = real_bars(store, config, 1)
        labels = whole_labels(bars, lam)
        windows = windows_of(store, bars, table, labels, options.windows)
    palette = health(lam, survey_of(table, labels))
    models = Models(load_tokenizer(options.weights / "tokenizer"), lam, load_dynamics(model))
    found = in_latents(models, windows, np.unique(labels.index[:, 0].numpy()))
    figures = {
        "bits": bits(config), "used": f"{palette['utilisation']:.2f}",
        "perplexity": f"{palette['perplexity']:.1f}", "song": f"{palette['song_information']:.2f}",
        "gain, dB": f"{last_figures(folder / 'lam')['valid/gain_db']:.2f}",
        **found,
        "minutes": f"{minutes:.0f}",
    }  # fmt: skip
    if options.sound:
        heard = control(models, windows, ["mixtures"], takes=1)
        heard |= identity(models, windows, (bars, labels), None)
        for what, value in heard.items():
            print(f"{name}: {what:40} {value}", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path("core/weights"))
    parser.add_argument("--only", choices=BOTTLENECKS, action="append")
    parser.add_argument("--every", type=int, default=2, help="learn from every so many songs")
    parser.add_argument("--lam-steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dynamics-steps", type=int, default=250)
    parser.add_argument("--dynamics-batch", type=int, default=4)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--sound", action="store_true", help="measure the sound, too")
    parser.add_argument("--compile", default="off", choices=("auto", "on", "off"))
    options = parser.parse_args()
    options.samples_every = 0  # measured once, at the end
    torch.manual_seed(0)
    wanted = options.only or list(BOTTLENECKS)
    for name in wanted:
        folder = options.out / name.replace(", ", "-")
        kept = folder / "figures.json"
        if not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(compared(name, folder, options), indent=1), "utf-8")
    print("| actions | " + " | ".join(COLUMNS) + " |")
    for name in wanted:
        figures = json.loads((options.out / name.replace(", ", "-") / "figures.json").read_text())
        print(f"| {name} | " + " | ".join(figures[column] for column in COLUMNS) + " |")


if __name__ == "__main__":
    main()
