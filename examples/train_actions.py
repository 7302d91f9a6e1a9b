"""Train the shipped action models: the recipe of core/weights/lam and core/weights/dynamics.

    python examples/train_actions.py WORK [--lam-steps N] [--dynamics-steps N] [--start MODEL]
        [-o core/weights]

WORK is where examples/train_tokenizer.py has left its stores of songs and of rendered MIDI. Each
song is added four times more, played so much faster or slower that it is in another key. The
tokenizer that ships makes their latents. The latent action model learns from the songs as they are,
the dynamics model from all; the copies of songs that are held out are held out with them. It
resumes from WORK; figures are in WORK/lam/metrics.jsonl and WORK/dynamics/metrics.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import random
from dataclasses import replace
from pathlib import Path

import soundfile
from train_tokenizer import fill_store

from mgen.core.audio import read_audio
from mgen.core.beats import Beats
from mgen.core.beats.exports import beats_text
from mgen.core.checkpoint import load_model, save_model, summarise
from mgen.core.corpus import Segmentation
from mgen.core.dynamics import make_dynamics_config
from mgen.core.dynamics.data import BarRows, WindowSettings
from mgen.core.dynamics.data import TrainingBars as Windows
from mgen.core.dynamics.model import KIND as DYNAMICS
from mgen.core.dynamics.reading import read_rows
from mgen.core.dynamics.training import DynamicsTask
from mgen.core.lam.config import make_config
from mgen.core.lam.data import TrainingBars, current_latents, read_bars
from mgen.core.lam.folder import KIND as LAM
from mgen.core.lam.folder import LatentActionModel, load_lam
from mgen.core.lam.palette import load_palette, save_palette
from mgen.core.lam.passes import PALETTE, label_songs
from mgen.core.lam.survey import find_palette, health, survey
from mgen.core.lam.training import LamTask
from mgen.core.store import Store
from mgen.core.tokenizer import load_tokenizer
from mgen.core.tokenizer.passes import tokenize_songs
from mgen.core.train_loop import TrainSettings, train

SHIFTS = {"shifted": (2.0, 4.0), "shifted-2": (2.0, 4.0), "shifted-3": (0.5, 2.0),
          "shifted-4": (4.0, 6.0)}  # fmt: skip
"""Semitones that the copies of songs in each store are moved by: at least, at most. Up or down by
chance, but `shifted-2` the other way than `shifted`."""


def shift_of(song: str, copy: str) -> float:
    """Semitones that a copy of a song is moved by: always the same."""
    if copy in {"shifted", "shifted-2"}:
        rng = random.Random(song)
        way, by = rng.choice((-1, 1)), rng.uniform(*SHIFTS["shifted"])
        return way * by if copy == "shifted" else -way * rng.uniform(*SHIFTS[copy])
    rng = random.Random(f"{song}/{copy.removeprefix('shifted-')}")
    return rng.choice((-1, 1)) * rng.uniform(*SHIFTS[copy])


def shifted_songs(store: Store, folder: Path) -> dict[str, str]:
    """Copies of a store's songs in another key, and their beats; gives whose copy each file is,
    hash by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    origin = {}
    for song in store.songs():
        ratio = 2.0 ** (shift_of(song.sha256, folder.name) / 12.0)
        out = folder / f"{song.name}-{song.sha256[:8]}.flac"
        origin[out.name] = song.sha256
        if out.exists():
            continue
        sound = read_audio(song.source, start_s=song.start_s, duration_s=song.duration_s)
        rate, beats = round(sound.rate * ratio), store.beats(song.index)
        time_s = (beats.time_s - song.start_s) * sound.rate / rate
        at = time_s >= 0
        moved = Beats(time_s[at], beats.beat_in_bar[at], beats.confidence[at])
        out.with_suffix(".beats").write_text(beats_text(moved), "utf-8")
        part = out.with_suffix(".part")
        soundfile.write(part, sound.samples_CN.mean(0), rate, format="FLAC")  # played faster
        part.replace(out)
    return origin


def run(
    task: LamTask | DynamicsTask, steps: int, lr: float, out: Path, options: argparse.Namespace
) -> Path:
    settings = TrainSettings(
        steps=steps, batch=task.size, lr=lr, warmup=min(100, steps // 25), schedule="cosine",
        optimiser="muon", log_every=25, samples_every=options.samples_every,
        compile=options.compile, checkpoint_minutes=5.0,
    )  # fmt: skip
    for report in train(task, settings, out):
        print(report.line(), flush=True)
    return out / "model"


def learned_lam(stores: list[Store], options: argparse.Namespace) -> LatentActionModel:
    """The latent action model and its palette, written; all stores are labelled."""
    songs, out = stores[0], options.out / "lam"
    spoken, tokens, dims = current_latents([songs], options.tokenizer)
    config = make_config(
        "style", tokens=tokens, dims=dims, tokenizer=spoken, run_steps=options.lam_steps
    )
    data = TrainingBars(read_bars([songs], config), config)
    folder = run(
        LamTask(config, data, batch=32), options.lam_steps, 4e-3, options.work / "lam", options
    )
    about, state = load_model(folder, LAM)
    save_model(out, state, about, LAM)
    lam = load_lam(out)
    for store in stores:
        for report in label_songs(store, lam):
            print(report.status, report.name, report.items, flush=True)
    found = survey(stores[:1], lam)
    print(health(lam, found), flush=True)
    if not (out / PALETTE).exists() or load_palette(out / PALETTE).lam != lam.id:
        save_palette(find_palette(lam, found), out / PALETTE, force=True)
    return lam


def dynamics_task(
    rows: BarRows, lam: LatentActionModel, batch: int, *, valid_windows: int = 32, **sizes: int
) -> DynamicsTask:
    """A small dynamics model of windows of up to 12 bars; `sizes` in place of the preset's."""
    windows = Windows(rows, WindowSettings(bars=12))
    config = make_dynamics_config(
        "small", tokens=lam.config.tokens, dims=lam.config.dims, action=lam.width,
        bars=windows.lengths[-1], tokenizer=lam.config.tokenizer, lam=lam.id,
    )  # fmt: skip
    return DynamicsTask(replace(config, **sizes), windows, batch=batch, valid_windows=valid_windows)


def begin_with(task: DynamicsTask, start: Path) -> None:
    """Go on from the weights of another model, which may have been told other actions; what is
    known of the data (means and spreads) is that of the new.
    """
    _, state = load_model(start, DYNAMICS)
    for name, value in task.model.named_parameters():
        if name in state:
            value.data.copy_(state[name])
    task.about["start"] = summarise(start).id


def learn_dynamics(
    stores: list[Store], lam: LatentActionModel, origin: dict[str, str],
    options: argparse.Namespace,
) -> None:  # fmt: skip
    rows = read_rows(stores, lam)
    rows = replace(rows, owners=[origin.get(owner, owner) for owner in rows.owners])
    task = dynamics_task(rows, lam, options.batch)
    if options.start is not None:
        begin_with(task, options.start)
    folder = run(task, options.dynamics_steps, options.lr, options.work / "dynamics", options)
    about, state = load_model(folder, DYNAMICS)
    save_model(options.out / "dynamics", state, about, DYNAMICS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=Path("core/weights/tokenizer"))
    parser.add_argument("--lam-steps", type=int, default=500)
    parser.add_argument("--dynamics-steps", type=int, default=1700)
    parser.add_argument("--start", type=Path, help="dynamics model whose weights to go on from")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--samples-every", type=int, default=250)
    parser.add_argument("-o", "--out", type=Path, default=Path("core/weights"))
    options = parser.parse_args()
    by_name: dict[str, dict[str, str]] = {}
    for name in SHIFTS:
        folder = options.work / name
        with Store.open(options.work / "songs.zarr") as songs:
            by_name[name] = shifted_songs(songs, folder)
        copies = sorted(folder / file for file in by_name[name])
        fill_store(options.work / f"{name}.zarr", copies, Segmentation(beats_path=folder))
    tokenizer = load_tokenizer(options.tokenizer)
    with contextlib.ExitStack() as stack:
        stores = [
            stack.enter_context(Store.open(options.work / f"{name}.zarr", "a"))
            for name in ("songs", "renders", *SHIFTS)
        ]
        for store in stores:
            for report in tokenize_songs(store, tokenizer):
                print(report.status, report.name, flush=True)
        origin = {
            song.sha256: by_name[name][Path(song.source).name]
            for name, store in zip(SHIFTS, stores[2:], strict=True)
            for song in store.songs()
        }
        lam = learned_lam(stores, options)
        learn_dynamics(stores, lam, origin, options)


if __name__ == "__main__":
    main()
