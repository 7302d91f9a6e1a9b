"""Fit the two linear scorers of core/beats/pulse.py and write core/beats/rhythm_weights.py.

    python examples/fit_rhythm.py DATA [--out core/beats/rhythm_weights.py] \
        [--soundfont FluidR3_GM.sf2 --soundfont TimGM6mb.sf2]

DATA holds manifest.csv, NAME.beats.csv beside the audio, and midi/index.csv. Only songs of the
`train` split with a constant tempo are used; with a soundfont (and fluidsynth) also the first 75 s
of every `train` MIDI of one tempo and one meter, at most `MAX_PER_CORPUS` of a corpus; the shipped
weights used both soundfonts above. Both scorers are conditional logits (McFadden 1974): softmax
over the tempi, or over the places of the downbeat, of one song; L2 keeps the weights small.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from evaluate_tempo import Song, annotated_songs, cut_s, load_cropped

from mgen.core.beats import pulse as p
from mgen.core.beats.attacks import listen

LEVEL_L2, BAR_L2 = 0.003, 0.01
METER_BIAS = 0.6
MAX_PER_CORPUS = 60
RENDER_S, RENDER_RATE = 75, 22050
LATENCY_S = 0.007  # how late the strongest moment of an attack is after the written note


def fit_logit(examples: list[tuple[np.ndarray, np.ndarray]], l2: float) -> np.ndarray:
    """Weights for raw features, given (features (S, F), right (S,)) of every choice made."""
    everything = np.concatenate([features for features, _ in examples])
    scale = torch.tensor(everything.std(0) + 1e-6)
    rows = [(torch.tensor(f) / scale, torch.tensor(right)) for f, right in examples]
    weights = torch.zeros(everything.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=300)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = l2 * weights.square().sum()
        for features, right in rows:
            scores = features @ weights
            loss = loss + (scores.logsumexp(0) - scores[right].logsumexp(0)) / len(rows)
        loss.backward()
        return loss

    optimiser.step(closure)
    return (weights.detach() / scale).numpy()


def examples_of(song: Song, samples: np.ndarray, rate: int, first_downbeat_s: float):
    """The tempo choice of one song, and up to three downbeat choices (whole and halves)."""
    pulse = p.find_pulse(listen(samples, rate))
    right_G = np.abs(np.log(p.TEMPI_G / song.bpm)) < 0.011
    level = [(p.level_features(pulse), right_G)] if right_G.any() else []
    bars = []
    if song.beats_per_bar in (3, 4):
        period = 60.0 / song.bpm
        phase = p.strongest_phase(pulse, period)
        slots = p.slots_heard(pulse, period, phase)
        length = song.beats_per_bar * p.PER_BEAT
        place = round((first_downbeat_s + LATENCY_S - phase) / period * p.PER_BEAT) % length
        half = len(slots) // 2 // length * length
        parts = [slots] + ([slots[:half], slots[half:]] if half > 16 * length else [])
        for part in parts:
            if len(part) >= 4 * length:
                right = np.arange(length) == place
                bars.append((p.bar_features(part, song.beats_per_bar), right))
    return level, bars


def rendered_songs(data: Path, soundfonts: list[Path]) -> Iterator[tuple[Song, np.ndarray, float]]:
    """Train MIDI of one tempo and meter: the song, its samples, and the time of a downbeat."""
    taken: Counter[str] = Counter()
    with open(data / "midi" / "index.csv", newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda r: zlib.crc32(r["path"].encode()))
    for row in rows:
        corpus = row["path"].split("/")[1]
        usable = row["split"] == "train" and row["tempo_changes"] == "1"
        usable &= row["meters"] in ("4/4", "3/4") and float(row["duration_s"]) > 30
        if not usable or float(row["on_grid"]) < 0.7 or taken[corpus] >= MAX_PER_CORPUS:
            continue
        font = soundfonts[taken[corpus] % len(soundfonts)]
        taken[corpus] += 1
        song = Song(row["path"], "train", corpus, "sequenced-render", float(row["bpm"]), 0.0, 0,
                    int(row["meters"][0]), True, np.zeros(0))  # fmt: skip
        cut = round(cut_s(song) * RENDER_RATE)
        samples = render(data / row["path"], font)[cut:]
        if len(samples) > 20 * RENDER_RATE:
            yield song, samples, -cut / RENDER_RATE


def render(midi: Path, soundfont: Path) -> np.ndarray:
    """The first `RENDER_S` seconds of a MIDI file, mono."""
    command = ["fluidsynth", "-q", "-n", "-i", "-r", str(RENDER_RATE), "-O", "s16", "-T", "raw",
               "-g", "0.5", "-F", "-", str(soundfont), str(midi)]  # fmt: skip
    wanted = RENDER_S * RENDER_RATE * 4
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        raw = process.stdout.read(wanted)
        process.kill()
    pairs = np.frombuffer(raw[: len(raw) // 4 * 4], "<i2").reshape(-1, 2)
    return (pairs.mean(1) / 32768).astype(np.float32)


def as_python(name: str, values: np.ndarray, width: int) -> str:
    rows = (values[start : start + width] for start in range(0, len(values), width))
    lines = ["    " + ", ".join(f"{v:.4f}" for v in row) + "," for row in rows]
    return "\n".join([f"{name}: tuple[float, ...] = (", *lines, ")"])


def module_text(levels: list, bars: list) -> str:
    """The module of weights, fitted on these choices."""
    return "\n\n".join(
        [
            '"""Weights of pulse.py. Written by examples/fit_rhythm.py; do not edit."""',
            "# fmt: off",
            as_python("LEVEL_WEIGHTS", fit_logit(levels, LEVEL_L2), 7)
            + '\n"""One per feature of `level_features`: five curves by fourteen ratios, tempo."""',
            as_python("BAR_WEIGHTS", fit_logit(bars, BAR_L2), 5)
            + '\n"""One per feature of `bar_features`: eleven places by five curves."""',
            f"METER_BIAS = {METER_BIAS}\n"
            '"""Log ratio from which a song counts in three; the songs in three start at 0.9."""\n',
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("core/beats/rhythm_weights.py"))
    parser.add_argument("--soundfont", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    levels, bars = [], []
    for song in annotated_songs(arguments.data):
        if song.constant and song.split == "train":
            level, downbeats = examples_of(song, *load_cropped(song, arguments.data))
            levels += level
            bars += downbeats
    if arguments.soundfont:
        for song, samples, downbeat_s in rendered_songs(arguments.data, arguments.soundfont):
            level, downbeats = examples_of(song, samples, RENDER_RATE, downbeat_s)
            levels += level
            bars += downbeats
    print(f"{len(levels)} tempo choices, {len(bars)} downbeat choices", file=sys.stderr)
    arguments.out.write_text(module_text(levels, bars), encoding="utf-8")
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
