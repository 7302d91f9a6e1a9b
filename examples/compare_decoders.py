"""Tokenizers at equal training cost: python examples/compare_decoders.py DATA --store SONGS.

    [--arch spectral --arch dito-unet --arch perceiver] [--preset bar] [--seconds 565] [--work DIR]

Trains a tokenizer of each architecture and preset on the songs of SONGS, a store with bars (that of
train_tokenizer.py, whose recipe it takes), each for as much processor time: the cost of an update
is measured first, and the number of updates follows. `spectral` spends --latents of it on its
latents and the rest on its decoder. Then all hear the same bars of DATA, as in
evaluate_tokenizer.py, beside the warp alone and principal components, and what decoding costs is
measured as in measure_tokenizer.py, each in a process of its own. Prints a table:

    cost      processor seconds of the updates, one thread where OMP_NUM_THREADS=1 (the last
              validation, which is no training, is left out)
    GFLOP     of a decoder step and bar (2.048 s of sound)
    s a bar   processor seconds to decode one with the model's own number of steps, two at once
    MB        peak memory of a process that does so, torch and all

What was trained is kept in --work and not trained again; a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import evaluate_tokenizer
import measure_tokenizer
import numpy as np
import pca_baseline
from train_tokenizer import recipe

from mgen.core.bars import BAR_RATE, BAR_SAMPLES
from mgen.core.devices import peak_memory
from mgen.core.store import Store
from mgen.core.tokenizer import ARCHS, PRESETS, TokenizerConfig, load_tokenizer, make_config
from mgen.core.tokenizer.data import DataSettings, TrainingSound
from mgen.core.tokenizer.stages import stages
from mgen.core.train_loop import StepReport, TrainSettings, train

AT_ONCE = 2
"""Items that are decoded together where the cost is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a tokenizer is trained with: updates of each stage, and processor seconds of each."""

    steps: list[int]
    seconds: list[list[float]]

    @property
    def cost(self) -> float:
        """Of all."""
        return sum(map(sum, self.seconds))


def timed(reports: Iterator[StepReport]) -> Iterator[tuple[StepReport, float]]:
    """Reports of single updates, and processor seconds of each.

    After the last one the loop validates, which is no training: it counts as the one before.
    """
    began = time.process_time()
    spent = 0.0
    for report in reports:
        now = time.process_time()
        spent = now - began if report.step < report.steps or not spent else spent
        print(report.step, f"{spent:.2f} s", report.losses, report.figures or "", flush=True)
        yield report, spent
        began = time.process_time()


def cost_of_updates(
    config: TokenizerConfig, sound: TrainingSound, settings: TrainSettings
) -> list[float]:
    """Processor seconds of an update of each stage, mean over all lengths of the cuts.

    Cuts of plain sound are a quarter as long for half of the updates, then half as long for half of
    those that are left. The very first update, which makes what is kept, is left out.
    """
    costs = []
    sound.steps = 4
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages(config, sound, settings, Path(folder)):
            reports = train(stage.task, stage.settings, stage.folder)
            _, quarter, half, whole = (s for _, s in islice(timed(reports), sound.steps))
            reports.close()  # which writes the model that the next stage begins with
            costs.append(quarter / 2 + half / 4 + whole / 4)
    return costs


def train_for(
    config: TokenizerConfig, store: Path, folder: Path, options: argparse.Namespace
) -> Run:
    """Train a tokenizer for `options.seconds`, or go on; it lies in `folder`/model."""
    note = folder / "cost.json"
    run = Run(**json.loads(note.read_text("utf-8"))) if note.exists() else None
    if run and [len(s) for s in run.seconds] == run.steps:
        return run
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(store) as opened:
        sound = TrainingSound([opened], config, DataSettings(), steps=1, folder=folder)
    loop = {"batch": options.batch, "samples_every": 0, "compile": "off", "log_every": 1}
    if run is None:
        costs = cost_of_updates(config, sound, recipe(1000, **loop))
        shares = [1.0] if len(costs) == 1 else [options.latents, 1.0 - options.latents]
        steps = [
            max(2, round(share * options.seconds / cost))
            for share, cost in zip(shares, costs, strict=True)
        ]
        run = Run(steps=steps, seconds=[[] for _ in steps])
        print(f"{folder.name}: {steps} updates of {[round(c, 2) for c in costs]} s", flush=True)
    planned = stages(
        config, sound, recipe(run.steps[-1], **loop), folder, latent_steps=run.steps[0]
    )
    for stage, seconds in zip(planned, run.seconds, strict=True):
        sound.steps = stage.settings.steps
        for report, spent in timed(train(stage.task, stage.settings, stage.folder)):
            seconds[report.step - 1 :] = [spent]  # those after a checkpoint are taken again
            note.write_text(json.dumps(asdict(run)), "utf-8")
    return run


def configs(options: argparse.Namespace) -> Iterator[tuple[str, TokenizerConfig]]:
    for preset in options.preset or ["bar"]:
        for arch in options.arch or ARCHS:
            name = arch if preset == "bar" else f"{arch} {preset}"
            yield name, make_config(preset, arch, "small")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What it costs: of a step and bar, of a bar, of the process."""

    gflop: float
    seconds: float
    megabytes: float


def cost_of_decoding(model: Path) -> Decoding:
    tokenizer = load_tokenizer(model)
    bars = tokenizer.config.samples / tokenizer.config.rate * BAR_RATE / BAR_SAMPLES
    return Decoding(
        gflop=measure_tokenizer.gflop_of_a_step(tokenizer) / bars,
        seconds=measure_tokenizer.time_decoding(tokenizer, AT_ONCE).processor / bars,
        megabytes=peak_memory(tokenizer.device) / 1e6,
    )


def in_a_fresh_process(model: Path) -> Decoding:
    """As peak memory is the process's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(cost_of_decoding, model).result()


def show(
    results: evaluate_tokenizer.Results, runs: dict[str, Run], costs: dict[str, Decoding]
) -> None:
    titles = [*evaluate_tokenizer.MEASURES, "cost", "GFLOP", "s a bar", "MB"]
    print(f"{'':18} {' '.join(f'{t:>9}' for t in titles)}  updates")
    for name, songs in results.rows.items():
        line = f"{name:18} {' '.join(f'{x:9.3f}' for x in np.mean(songs, axis=0))}"
        if name in runs:
            run, cost = runs[name], costs[name]
            figures = (run.cost, cost.gflop, cost.seconds, cost.megabytes)
            line += f" {' '.join(f'{x:9.2f}' for x in figures)}  {' + '.join(map(str, run.steps))}"
        print(line)
    print(f"means of {len(next(iter(results.rows.values())))} songs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv")
    parser.add_argument("--store", type=Path, required=True, help="bars to learn from")
    parser.add_argument("--work", type=Path, default=Path("decoders"))
    parser.add_argument("--arch", action="append", choices=ARCHS, help="repeatable [all]")
    parser.add_argument("--preset", action="append", choices=list(PRESETS), help="repeatable [bar]")
    parser.add_argument("--seconds", type=float, default=565.0, help="processor time of training")
    parser.add_argument("--latents", type=float, default=0.5, help="share of it for the latents")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, help="at most so many songs, spread over the list")
    parser.add_argument("--bars", type=int, default=6, help="of each song")
    parser.add_argument("--baseline", type=Path, help="an .npz by pca_baseline.py [fitted here]")
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    runs, costs = {}, {}
    for name, config in configs(options):
        folder = options.work / name.replace(" ", "-")
        runs[name] = train_for(config, options.store, folder, options)
    if options.train_only:
        return 0
    held = options.baseline
    fitted = pca_baseline.load(held) if held else pca_baseline.fit(
        pca_baseline.sounds_of(options.data)
    )  # fmt: skip
    systems = {
        "warp": evaluate_tokenizer.warp_alone,
        "pca": evaluate_tokenizer.through_warp(fitted),
    }
    for name in runs:
        model = options.work / name.replace(" ", "-") / "model"
        costs[name] = in_a_fresh_process(model)
        systems[name] = evaluate_tokenizer.through_tokenizer(load_tokenizer(model), None, 0)
    results = evaluate_tokenizer.Results()
    rows = evaluate_tokenizer.songs_of(options.data, options.split, None)
    for row in evaluate_tokenizer.spread(rows, options.limit):
        path = options.data / row["path"]
        bars = evaluate_tokenizer.bars_of(path, row["has_beats"] == "1", options.bars)
        if bars:
            results.song(bars, systems)
    show(results, runs, costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
