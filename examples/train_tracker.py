"""Train the shipped beat tracker: the recipe of core/weights/tracker.

    python examples/train_tracker.py DATA --soundfont FLUID.sf2 --soundfont MUSESCORE.sf3
        [--work DIR] [--start MODEL] [--steps 5000] [-o core/weights/tracker]

Takes what DATA marks `train`: songs with annotated beats, and MIDI, which is rendered here with
fluidsynth: each file twice, with another soundfont, tempo, key, balance and reverb, sometimes
without drums or with rubato; then in two other meters, with meters that change, and in 6/8
(midi_rendering.py). Training sounds are changed in tempo, key, level, tone colour and noise as
they are drawn. The loss forgives beats that are off by up to 60 ms (Foscarin et al., ISMIR 2024,
section 3.3). Needs `pip install mido` and fluidsynth. It resumes from --work. About an hour on one
core to render (--render-only; it may be ended early), and more to train.
core/weights/tracker/README.md has the options of what ships.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from midi_rendering import (
    RATE,
    as_six_eighths,
    beats_of,
    render,
    shortened,
    varied,
    with_other_bars,
)
from torch import nn

from mgen.core.audio import read_mono
from mgen.core.beats.model import BeatNet, BeatNetConfig, load_beat_net, save_beat_net
from mgen.core.checkpoint import summarise
from mgen.core.train_loop import Draw, RunFolder, TrainSettings, train
from mgen.kernels.log_mel import ONSETS, log_mel

FRAMES = 2400
"""Mel frames of one training excerpt: 24 s."""
REAL_SHARE = 0.4
BEGINNINGS = 0.15
"""Of the excerpts, those that hold the beginning of the piece, where a pickup is."""
POSITIVE_WEIGHT = (8.0, 16.0)
MAX_RENDER_S = 90


@dataclass(frozen=True)
class Excerptable:
    """A song to draw from: log-mel (T, 80) float16, beats (n, 2) of second and place in the bar."""

    mel_TM: np.ndarray
    beats_N2: np.ndarray


# ---------------------------------------------------------------- rendering


def jobs(data: Path) -> Iterator[tuple[Path, str]]:
    """MIDI files of the training split, and what to do with their bars."""
    with open(data / "midi" / "index.csv", newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            path, drums_only = data / row["path"], row["path"].split("/")[1] == "groove"
            if row["split"] != "train" or (drums_only and float(row["duration_s"]) < 20):
                continue
            if drums_only and number % 3:  # there are many, and all alike
                continue
            yield path, "as it is"
            steady = int(row["tempo_changes"] or 0) < 3
            if drums_only:
                if steady and row["meters"] == "4/4":
                    yield path, "another meter"
                continue
            yield path, "as it is"
            if steady and row["meters"] == "4/4":
                yield path, "another meter"
                yield path, "another meter"
                yield path, "meters that change"
                yield path, "six eighths"


def rebarred(midi: Any, change: str, rng: random.Random) -> Any:
    """A piece with its bars changed as `jobs` says."""
    if change == "another meter":
        often = ["3/4", "3/4", "5/4", "5/4", "7/4", "7/8", "7/8"]
        meter = rng.choice([*often, "2/4", "6/4", "5/8"])
        return with_other_bars(midi, [meter])
    if change == "meters that change":
        one, other = rng.sample(["4/4", "4/4", "3/4", "5/4", "2/4", "7/8", "6/4"], 2)
        bars = [one] * rng.choice([3, 4, 8, 12]) + [other] * rng.choice([1, 4, 8])
        return with_other_bars(midi, bars)
    return as_six_eighths(midi) if change == "six eighths" else midi


def render_all(data: Path, soundfonts: list[Path], work: Path) -> None:
    """Render what is not there yet."""
    import mido

    todo = list(jobs(data))
    random.Random(1).shuffle(todo)
    for i, (path, change) in enumerate(todo):
        out, rng = work / f"render-{i:04d}.npz", random.Random(i)
        if out.exists():
            continue
        try:
            midi = varied(rebarred(mido.MidiFile(path), change, rng), rng)
            shortened(midi, MAX_RENDER_S)
            beats, pcm = beats_of(midi), render(midi, rng.choice(soundfonts), rng)
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            print(f"{path.name}: left out ({error})", flush=True)
            continue
        made = out.with_suffix(".part.npz")
        np.savez(made, mel=mel_of(pcm), beats=beats[beats[:, 0] < len(pcm) / RATE])
        made.replace(out)


# ---------------------------------------------------------------- data


def mel_of(pcm: np.ndarray) -> np.ndarray:
    """Log-mel (T, 80) float16 of int16 samples."""
    with torch.inference_mode():
        x = torch.from_numpy(pcm.astype(np.float32) / 32768)
        return log_mel(x[None], ONSETS)[0].half().numpy()


def annotated(data: Path) -> Iterator[Excerptable]:
    """Songs of the training split that have beats."""
    with open(data / "manifest.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            beats = (data / row["path"]).with_suffix(".beats.csv")
            if row["split"] == "train" and row["has_beats"] == "1" and beats.exists():
                sound = read_mono(data / row["path"], RATE)
                pcm = np.round(sound / np.abs(sound).max() * 0.9 * 32767).astype(np.int16)
                yield Excerptable(mel_of(pcm), np.loadtxt(beats, delimiter=",", skiprows=1))


def excerpt(song: Excerptable, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Mel (FRAMES, 80), targets (FRAMES / 2, 2) and which frames count, changed at random."""
    speed = float(np.exp(rng.uniform(-0.18, 0.18))) if rng.random() < 0.6 else 1.0
    total = len(song.mel_TM)
    last_start = max(1, total - int(FRAMES * speed) + 200)
    start = int(rng.integers(-200, 1 if rng.random() < BEGINNINGS else last_start))
    at = start + np.arange(FRAMES) * speed
    below = np.clip(np.floor(at).astype(int), 0, total - 2)
    share = (at - np.floor(at))[:, None].astype(np.float32)
    mel = song.mel_TM[below] * (1 - share) + song.mel_TM[below + 1] * share
    mel[(at < 0) | (at >= total - 1)] = 0.0
    mel = recoloured(transposed(mel, int(rng.integers(-5, 6))), rng)
    beats_u = (song.beats_N2[:, 0] * 100 - start) / speed / 2
    target = np.zeros((FRAMES // 2, 2), np.float32)
    for k, frames in enumerate((beats_u, beats_u[song.beats_N2[:, 1] == 1])):
        inside = np.round(frames).astype(int)
        target[inside[(inside >= 0) & (inside < FRAMES // 2)], k] = 1
    first, last = song.beats_N2[[0, -1], 0] * 100
    counts = (at[::2] >= max(0.0, first - 50)) & (at[::2] <= last + 50)
    return mel.astype(np.float32), target, counts.astype(np.float32)


def transposed(mel: np.ndarray, bands: int) -> np.ndarray:
    """The spectrum moved by some mel bands."""
    moved = np.roll(mel, bands, axis=1)
    if bands > 0:
        moved[:, :bands] = 0.0
    elif bands < 0:
        moved[:, bands:] = moved[:, bands - 1 : bands]
    return moved


def recoloured(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another level, tone colour, noise, and now and then a missing top."""
    if rng.random() < 0.7:
        linear = np.expm1(mel)
        slope = np.cos(np.pi * np.linspace(0, 1, mel.shape[1]) * rng.uniform(0.5, 3)
                       + rng.uniform(0, 6))  # fmt: skip
        linear *= 10 ** ((rng.uniform(-14, 6) + rng.normal(0, 4) * slope) / 20)
        if rng.random() < 0.4:
            linear += np.abs(rng.normal(0, 1, mel.shape)) * 10 ** rng.uniform(-3, -0.5)
        mel = np.log1p(linear)
    if rng.random() < 0.2:
        mel[:, int(rng.integers(45, 80)) :] = 0.0
    return mel


# ---------------------------------------------------------------- training


def forgiving_loss(
    logits: torch.Tensor, target: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy (2,); a beat may be off by 3 frames, within 6 nothing counts as none."""

    def widest(x: torch.Tensor, reach: int) -> torch.Tensor:
        wide = F.max_pool1d(x.transpose(1, 2), 2 * reach + 1, stride=1, padding=reach)
        return wide.transpose(1, 2)

    beat = -F.logsigmoid(widest(logits, 3)) * target * target.new_tensor(POSITIVE_WEIGHT)
    rest = -F.logsigmoid(-logits) * (1 - widest(target, 6))
    return ((beat + rest) * counts[..., None]).mean((0, 1))


def rendered(work: Path) -> list[Excerptable]:
    """What has been rendered; pieces too short to learn from are left out."""
    found = []
    for file in sorted(work.glob("render-????.npz")):
        with np.load(file) as made:
            if len(made["mel"]) >= 800 and len(made["beats"]) >= 8:
                found.append(Excerptable(made["mel"], made["beats"]))
    return found


class TrackerTask:
    """The tracker's network in training: a `Task` of `mgen.core.train_loop`.

    Attributes
    ----------
    model
        The network, new or that of a model.
    about
        What shapes the run besides the loop's own settings, as plain JSON.
    """

    def __init__(
        self, real: list[Excerptable], made: list[Excerptable], *, batch: int, seed: int = 0,
        start: Path | None = None,
    ) -> None:  # fmt: skip
        if start is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.model: nn.Module = BeatNet(BeatNetConfig())
        else:
            self.model = copy.deepcopy(load_beat_net(start))
        self.real, self.made, self.size, self.seed = real, made, batch, seed
        frames = [[len(song.mel_TM) for song in songs] for songs in (real, made)]
        digest = hashlib.sha256(json.dumps(frames).encode()).hexdigest()
        self.about: dict[str, Any] = {
            "songs": len(real), "renders": len(made), "frames_sha256": digest, "seed": seed,
            "start": "" if start is None else summarise(start).id,
        }  # fmt: skip

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The excerpts of a step."""
        rng = np.random.default_rng([self.seed, step])
        pools = [self.real if rng.random() < REAL_SHARE else self.made for _ in range(self.size)]
        drawn = [excerpt(pool[rng.integers(len(pool))], rng) for pool in pools]
        stacked = (torch.from_numpy(np.stack(x)) for x in zip(*drawn, strict=True))
        return dict(zip(("mel_BTM", "target_BU2", "counts_BU"), stacked, strict=True))

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], draw: Draw
    ) -> dict[str, torch.Tensor]:
        """`loss`, and its two parts."""
        del draw
        logits_BU2 = model(batch["mel_BTM"]).float()
        beat, downbeat = forgiving_loss(logits_BU2, batch["target_BU2"], batch["counts_BU"])
        return {"loss": beat + downbeat, "loss/beat": beat, "loss/downbeat": downbeat}

    def samples(self, model: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """No figures: all pieces are learned from; evaluate_beats.py measures on others."""
        return {}

    def save(self, model: nn.Module, folder: Path, about: dict[str, Any]) -> None:
        """Write the model's folder."""
        save_beat_net(cast(BeatNet, model), folder, about)


def blended(net: BeatNet, start: BeatNet, share: float) -> BeatNet:
    """The mean of a model and of the one that it began as, which forgets less of what the first
    knew (Wortsman et al., CVPR 2022).
    """
    began, mean = start.state_dict(), copy.deepcopy(net)
    mean.load_state_dict({
        name: torch.lerp(x, began[name], share) if x.is_floating_point() else x
        for name, x in net.state_dict().items()
    })  # fmt: skip
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--soundfont", type=Path, action="append", default=[])
    parser.add_argument("--render-only", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("tracker-training"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--stop-after", type=int, default=0, help="end so early in these steps")
    parser.add_argument("--start", type=Path, help="go on from the weights of this model")
    parser.add_argument(
        "--start-share", type=float, default=0.0, help="of --start's weights in what is saved"
    )
    parser.add_argument("--rate", type=float, default=2e-3, help="peak of the learning rate")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("-o", "--out", type=Path, default=Path("core/weights/tracker"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.soundfont:
        render_all(given.data, given.soundfont, given.work)
    if given.render_only:
        return
    task = TrackerTask(
        list(annotated(given.data)), rendered(given.work), batch=given.batch, start=given.start
    )
    settings = TrainSettings(
        steps=given.steps, batch=given.batch, lr=given.rate, warmup=min(300, given.steps // 10),
        schedule="cosine", samples_every=0, checkpoint_minutes=5.0, compile=given.compile,
    )  # fmt: skip
    run = given.work / "run"
    with contextlib.closing(train(task, settings, run)) as reports:
        for report in reports:
            print(report.line(), flush=True)
            if given.stop_after and report.step >= given.stop_after:
                break
    about: dict[str, Any] = {
        **task.about, "steps": given.steps, "rate": given.rate, "stopped_after": given.stop_after,
        "start_share": given.start_share,
    }  # fmt: skip
    net = load_beat_net(RunFolder(run).model)
    if given.start is not None:
        net = blended(net, load_beat_net(given.start), given.start_share)
    save_beat_net(net, given.out, about)
    print(given.out)


if __name__ == "__main__":
    main()
