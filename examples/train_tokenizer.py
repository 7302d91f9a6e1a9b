"""Train the shipped tokenizer: the recipe of core/weights/tokenizer.

    python examples/train_tokenizer.py DATA [--work DIR] [--steps 6000] [--batch 16]
        [-o core/weights/tokenizer]

Takes the songs that DATA marks `train` and whose kind is recorded, produced or sequenced-render,
makes a store of them in --work (all are kept, whatever the judge says), cuts them into bars, each
bar once more with moved edges, and trains. It resumes from --work; the run's figures are in
WORK/run/metrics.jsonl. The model is written to -o at the end.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from mgen.core.checkpoint import load_model, save_model
from mgen.core.corpus import Segmentation, filter_songs, segment_songs
from mgen.core.quality import Screening
from mgen.core.store import Store
from mgen.core.tokenizer import ARCHS, make_config
from mgen.core.tokenizer.data import DataSettings, TrainingSound
from mgen.core.tokenizer.model import KIND
from mgen.core.tokenizer.training import LossWeights, TokenizerTask
from mgen.core.train_loop import TrainSettings, train

KINDS = {"recorded", "produced", "sequenced-render"}


def songs_to_learn_from(data: Path) -> list[Path]:
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [
            data / row["path"]
            for row in csv.DictReader(file)
            if row["split"] == "train" and row["kind"] in KINDS
        ]


def fill_store(path: Path, songs: list[Path]) -> None:
    """Songs and bars that are not there yet."""
    with Store.open_or_create(path) as store:
        for report in filter_songs(store, songs, how=Screening(threshold=0.0)):
            print(report.status, report.name or report.source, report.reason, flush=True)
        for bars in segment_songs(store, Segmentation(jitter=1)):
            print(bars.status, bars.name, bars.bars, "bars", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("tokenizer-training"))
    parser.add_argument("--store", type=Path, help="a store that is there, in place of DATA's")
    parser.add_argument("--arch", default="spectral", choices=ARCHS)
    parser.add_argument("--preset", default="bar")
    parser.add_argument("--size", default="small")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--mel", type=float, default=0.1)
    parser.add_argument("--stft", type=float, default=0.1)
    parser.add_argument("--flow", type=float, default=1.0)
    parser.add_argument("--start", type=Path, help="a tokenizer to begin with")
    parser.add_argument("--fixed-latents", action="store_true", help="the decoder alone learns")
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--samples-every", type=int, default=1000)
    parser.add_argument("-o", "--out", type=Path, default=Path("core/weights/tokenizer"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    path = given.store or given.work / "train.zarr"
    if not given.store:
        fill_store(path, songs_to_learn_from(given.data))
    config = make_config(given.preset, given.arch, given.size)
    settings = TrainSettings(
        steps=given.steps, batch=given.batch, lr=given.lr, warmup=min(200, given.steps // 10),
        schedule="cosine", optimiser="muon", betas=(0.9, 0.99),
        samples_every=given.samples_every, compile=given.compile,
    )  # fmt: skip
    with Store.open(path) as store:
        sound = TrainingSound([store], config, DataSettings(), steps=given.steps, folder=given.work)
    weights = LossWeights(flow=given.flow, mel=given.mel, stft=given.stft)
    task = TokenizerTask(
        config, sound, batch=given.batch, weights=weights, start=given.start,
        fixed_latents=given.fixed_latents,
    )  # fmt: skip
    for report in train(task, settings, given.work / "run"):
        print(report.line(), flush=True)
    config_of_run, state = load_model(given.work / "run" / "model", KIND)
    save_model(given.out, state, config_of_run, KIND)  # nothing else in the folder is touched
    print(given.out)


if __name__ == "__main__":
    main()
