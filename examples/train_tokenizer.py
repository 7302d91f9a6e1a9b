"""Train the shipped tokenizer: the recipe of core/weights/tokenizer.

    python examples/train_tokenizer.py DATA --soundfont FLUID.sf2 --soundfont MUSESCORE.sf3
        [--work DIR] [-o core/weights/tokenizer]

Takes the songs that DATA marks `train` and whose kind is recorded, produced or sequenced-render,
and a minute of each MIDI file of that split, rendered here with fluidsynth in another tempo, key
and balance (midi_rendering.py; needs `pip install mido`). Makes stores of them in --work (all are
kept, whatever the judge says), cuts them into bars, those of the songs once more with moved edges,
and trains: the latents with the guide alone, then the decoder, as `mgen train-tokenizer` does. It
resumes from --work; figures are in WORK/tokenizer/latents/metrics.jsonl and
WORK/tokenizer/metrics.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from midi_rendering import RATE, beats_of, render, shortened, varied

from mgen.core.beats import Beats
from mgen.core.beats.exports import beats_text
from mgen.core.checkpoint import load_model, save_model
from mgen.core.corpus import Segmentation, filter_songs, segment_songs
from mgen.core.quality import Screening
from mgen.core.store import Store
from mgen.core.tokenizer import ARCHS, make_config
from mgen.core.tokenizer.data import DataSettings, TrainingSound
from mgen.core.tokenizer.model import KIND
from mgen.core.tokenizer.stages import stages
from mgen.core.train_loop import TrainSettings, train

RENDERED_S = 60.0
KINDS = {"recorded", "produced", "sequenced-render"}


def songs_to_learn_from(data: Path) -> list[Path]:
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [
            data / row["path"]
            for row in csv.DictReader(file)
            if row["split"] == "train" and row["kind"] in KINDS
        ]


def fill_store(path: Path, songs: list[Path], how: Segmentation) -> None:
    """Songs and bars that are not there yet."""
    with Store.open_or_create(path) as store:
        for report in filter_songs(store, songs, how=Screening(threshold=0.0)):
            print(report.status, report.name or report.source, report.reason, flush=True)
        for bars in segment_songs(store, how):
            print(bars.status, bars.name, bars.bars, "bars", flush=True)


def render_songs(data: Path, soundfonts: list[Path], folder: Path) -> list[Path]:
    """A minute of each piece of the training split that is not drums alone, and its beats."""
    import mido

    folder.mkdir(parents=True, exist_ok=True)
    with (data / "midi" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "train"]
    songs = []
    for row in rows:
        source, rng = data / row["path"], random.Random(row["path"])
        if "groove" in source.parts:
            continue
        out = folder / f"{source.parent.name}-{source.stem}.flac"
        if not out.exists():
            midi = varied(mido.MidiFile(source), rng)
            shortened(midi, RENDERED_S)
            beats_N2, pcm_N = beats_of(midi), render(midi, rng.choice(soundfonts), rng)
            beats_N2 = beats_N2[beats_N2[:, 0] < len(pcm_N) / RATE]
            beats = Beats(
                beats_N2[:, 0], beats_N2[:, 1].astype(np.int8),
                np.ones(len(beats_N2), np.float32),
            )  # fmt: skip
            out.with_suffix(".beats").write_text(beats_text(beats), "utf-8")
            soundfile.write(out, pcm_N, RATE)
        songs.append(out)
    return songs


def recipe(steps: int, *, batch: int = 24, lr: float = 2e-3, **rest: Any) -> TrainSettings:
    """How the shipped tokenizer learned; `rest` are further settings of the loop."""
    return TrainSettings(
        steps=steps, batch=batch, lr=lr, warmup=min(200, steps // 10), schedule="cosine",
        optimiser="muon", betas=(0.9, 0.99), **rest,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("tokenizer-training"))
    parser.add_argument("--soundfont", type=Path, action="append", default=[], help="repeatable")
    parser.add_argument(
        "--store", type=Path, action="append", default=[], help="in place of DATA; repeatable"
    )
    parser.add_argument("--arch", default="spectral", choices=ARCHS)
    parser.add_argument("--preset", default="bar")
    parser.add_argument("--size", default="small")
    parser.add_argument("--latent-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=3000, help="of the decoder, or of all")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--samples-every", type=int, default=500)
    parser.add_argument("-o", "--out", type=Path, default=Path("core/weights/tokenizer"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    paths = options.store or [options.work / "songs.zarr", options.work / "renders.zarr"]
    if not options.store:
        fill_store(paths[0], songs_to_learn_from(options.data), Segmentation(jitter=1))
        folder = options.work / "renders"
        renders = render_songs(options.data, options.soundfont, folder)
        fill_store(paths[1], renders, Segmentation(beats_path=folder))
    config = make_config(options.preset, options.arch, options.size)

    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(Store.open(path)) for path in paths]
        sound = TrainingSound(
            stores, config, DataSettings(), steps=options.steps, folder=options.work
        )  # fmt: skip
    settings = recipe(
        options.steps, batch=options.batch, lr=options.lr,
        samples_every=options.samples_every, compile=options.compile,
    )  # fmt: skip
    run = options.work / "tokenizer"
    for stage in stages(config, sound, settings, run, latent_steps=options.latent_steps):
        for report in train(stage.task, stage.settings, stage.folder):
            print(stage.title, report.line(), flush=True)
    about, state = load_model(run / "model", KIND)
    save_model(options.out, state, about, KIND)  # nothing else in the folder is touched
    print(options.out)


if __name__ == "__main__":
    main()
