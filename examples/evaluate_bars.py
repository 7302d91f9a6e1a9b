"""Measure bars as `segment-bars` makes them, on annotated songs and on rendered MIDI.

    python examples/evaluate_bars.py DATA --soundfont FLUID.sf2 [--work DIR] [--split dev]

Songs: how far each annotated downbeat is from the nearest bar edge, among those within 70 ms; how
many are; whether the first downbeat and the beats before it are right. Rendered: MIDI of titles
marked `dev` is given other meters (midi_rendering.py), changes of meter and pickups, and rendered
with fluidsynth, so that the truth is exact. A bar is right if both its edges are, with no other
between them; the next column also counts pairs of bars where all are found two by two (2/4 taken
for 4/4, 6/8 for 12/8: as hard to tell as half and double tempo); a bar's count is right if it also
has as many beats as the truth, or twice or half as many (three times in 6/8). Counted are eighths
in x/8, dotted quarters in 6/8. Needs `pip install mido mir_eval`; renders stay in --work. Eight
minutes on one core, two the second time.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_beats import load_mono, score, select
from midi_rendering import (
    RATE,
    as_six_eighths,
    beats_of,
    render,
    shortened,
    with_other_bars,
    without_beginning,
)

from mgen.core.bars import BarGrid, bars_from_beats
from mgen.core.beats import Beats, read_beats, track_beats

NEAR_S = 0.07
RENDER_S = 75
KINDS = ("2/4", "3/4", "4/4", "5/4", "6/8", "7/8", "7/4", "4/4-3/4", "pickup 1", "pickup 2")
SECTION = 10
"""Bars from one change of meter to the next."""


@dataclass(frozen=True)
class Example:
    """Sound with known beats: a name, what it is an example of, samples (N,), rate, truth."""

    name: str
    kind: str
    samples_N: np.ndarray
    rate: int
    truth: Beats


@dataclass(frozen=True)
class Figures:
    """What is measured on one example; shares are 0..1, distances in ms (any number of them)."""

    beat_f: float
    downbeat_f: float
    found: float  # share of true downbeats with an edge near
    right: float  # share of edges, within the annotated stretch, that are true downbeats
    bars: float  # share of true bars with both edges and none between
    paired: float  # the same, or of pairs of them, all along
    counts: float  # share of true bars that have the right number of beats as well
    first: float
    off_ms: np.ndarray
    followed: list[int]  # bars after each change of meter until two in a row are right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv and midi/index.csv")
    parser.add_argument("--soundfont", type=Path, action="append", default=[], help="repeatable")
    parser.add_argument("--work", type=Path, default=Path("bar-renders"), help="keeps renders")
    parser.add_argument("--split", action="append", help="of the songs: dev, extra; repeatable")
    parser.add_argument("--pieces", type=int, default=6, help="rendered pieces of each kind")
    parser.add_argument("--tracker", default="mgen")
    parser.add_argument("--songs", action="store_true", help="a line per song, too")
    given = parser.parse_args()
    splits = given.split or ["dev", "extra"]
    results: dict[str, list[Figures]] = defaultdict(list)
    for example in itertools.chain(
        annotated(given.data, splits),
        rendered(given.data, given.soundfont, given.work, given.pieces) if given.soundfont else (),
    ):
        found = track_beats(example.samples_N, example.rate, tracker=given.tracker)
        figures = measure(example.truth, found, len(example.samples_N) / example.rate)
        results[example.kind].append(figures)
        if example.kind.startswith(("dev ", "extra ")):
            results[f"all {example.kind.split()[0]}"].append(figures)
        if given.songs:
            print(f"{row_of([figures])} {example.kind} {example.name}", flush=True)
    print_table(results)
    return 0


# ---------------------------------------------------------------- examples


def annotated(data: Path, splits: list[str]) -> Iterator[Example]:
    """Songs with annotated beats."""
    for row in select(data, splits, None):
        samples_N, rate = load_mono(data / row["path"])
        truth = read_beats((data / row["path"]).with_suffix(".beats.csv"))
        yield Example(row["path"], f"{row['split']} {row['genre']}", samples_N, rate, truth)


def rendered(
    data: Path, soundfonts: list[Path], work: Path, pieces: int, take: int = 0
) -> Iterator[Example]:
    """MIDI of dev titles in every kind of bar; `take` 1 gives other titles than `take` 0."""
    work.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        for i, path in enumerate(titles(data, kind, take)[:pieces]):
            name = f"{kind.replace('/', '').replace(' ', '-')}-{path.stem}"
            file = work / f"{name}.npz"
            if not file.exists():
                rng = random.Random(name)
                midi, beats = rebarred(path, kind)
                pcm = render(midi, soundfonts[i % len(soundfonts)], rng)
                made = file.with_suffix(".part.npz")
                np.savez(made, pcm=pcm, beats=beats[beats[:, 0] < len(pcm) / RATE])
                made.replace(file)
            with np.load(file) as made:
                pcm, beats = made["pcm"], made["beats"]
            truth = Beats(beats[:, 0], beats[:, 1].astype(np.int8), np.ones(len(beats)))
            yield Example(name, kind, pcm, RATE, truth)


def titles(data: Path, kind: str, take: int) -> list[Path]:
    """Dev MIDI that is of one tempo and long enough, in an order of its own for each kind."""
    with (data / "midi" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["split"] == "dev"
            and row["path"].split("/")[1] != "groove"
            and int(row["tempo_changes"] or 0) <= 3
            and float(row["duration_s"]) > RENDER_S * 0.9
        ]
    waltzes = [data / r["path"] for r in rows if r["meters"] == "3/4"]
    common = sorted(data / r["path"] for r in rows if r["meters"] == "4/4")
    random.Random(0).shuffle(common)
    common = common[take::2]
    random.Random(kind).shuffle(common)
    return [*waltzes[take::2], *common] if kind == "3/4" else common


def rebarred(path: Path, kind: str) -> tuple[Any, np.ndarray]:
    """A piece in the bars of a kind, RENDER_S long, and its beats (n, 2)."""
    import mido

    midi = mido.MidiFile(path)
    if kind == "6/8":
        midi = as_six_eighths(midi)
    elif kind == "4/4-3/4":
        midi = with_other_bars(midi, ["4/4"] * SECTION + ["3/4"] * SECTION)
    elif kind.startswith("pickup"):
        return without_beginning(midi, int(kind[-1]), RENDER_S)
    elif kind not in ("3/4", "4/4") or "3/4" not in signatures(midi):
        midi = with_other_bars(midi, [kind])
    shortened(midi, RENDER_S)
    return midi, beats_of(midi)


def signatures(midi: Any) -> set[str]:
    """Meters that a file names."""
    return {
        f"{m.numerator}/{m.denominator}"
        for track in midi.tracks
        for m in track
        if m.type == "time_signature"
    }


# ---------------------------------------------------------------- figures


def measure(truth: Beats, found: Beats, duration_s: float) -> Figures:
    """Compare the bars that `found` makes with the true beats."""
    beat_f, _, _, downbeat_f, _ = score(truth, found)
    grid = bars_from_beats(found, duration_s)
    edge_s = np.append(grid.start_s, grid.end_s[-1])
    true_s = truth.time_s[truth.beat_in_bar == 1]
    off_s, nearest = _nearest(true_s, edge_s)
    met = off_s <= NEAR_S
    first_s, last_s = truth.time_s[[0, -1]]
    # the outer edges are where the beats begin and end, which need not be a downbeat
    inner_s = edge_s[1:-1]
    inner_s = inner_s[(inner_s >= first_s - NEAR_S) & (inner_s <= last_s + NEAR_S)]
    bars, counts, followed = _bars(truth, grid, nearest, met)
    return Figures(
        beat_f,
        downbeat_f,
        float(met.mean()),
        float((_nearest(inner_s, true_s)[0] <= NEAR_S).mean()) if len(inner_s) else 0.0,
        float(np.mean(bars)),
        max(float(np.mean(bars)), *(bars_found(true_s[k::2], edge_s) for k in range(2))),
        float(np.mean(counts)),
        float(first_is_right(truth, grid)),
        1000.0 * off_s[met],
        followed,
    )


def first_is_right(truth: Beats, grid: BarGrid) -> bool:
    """Whether the first downbeat found is one, with as many beats before it as the truth has."""
    true_s = truth.time_s[truth.beat_in_bar == 1]
    ahead = grid.start_s >= truth.time_s[0] - NEAR_S
    start_s, beats = grid.start_s[ahead], grid.beats[ahead]
    if len(start_s) < 2:
        return False
    short = len(start_s) == len(grid) and beats[0] < beats[1]
    pickup = int(np.sum(truth.time_s < true_s[0] - NEAR_S))
    found = int(beats[0]) if short else 0
    is_downbeat = np.abs(true_s - start_s[int(short)]).min() <= NEAR_S
    return bool(is_downbeat) and found in (pickup, 2 * pickup, pickup / 2)


def _nearest(x_s: np.ndarray, among_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each time to the nearest of others, and which that is."""
    distance = np.abs(x_s[:, None] - among_s[None, :])
    return distance.min(axis=1), distance.argmin(axis=1)


def bars_found(true_s: np.ndarray, edge_s: np.ndarray) -> float:
    """Share of the bars between these lines that have both as edges, and none between."""
    if len(true_s) < 2 or not len(edge_s):
        return 0.0
    off_s, nearest = _nearest(true_s, edge_s)
    met = off_s <= NEAR_S
    return float(np.mean(met[:-1] & met[1:] & (np.diff(nearest) == 1)))


def _bars(
    truth: Beats, grid: BarGrid, nearest: np.ndarray, met: np.ndarray
) -> tuple[list[bool], list[bool], list[int]]:
    """Which true bars are found, which with their count, and how soon changes are followed."""
    size = np.diff(np.flatnonzero(truth.beat_in_bar == 1))
    bars, counts = [], []
    for i, beats in enumerate(size):
        whole = bool(met[i] and met[i + 1] and nearest[i + 1] == nearest[i] + 1)
        bars.append(whole)
        found = int(grid.beats[nearest[i]]) if whole else 0
        # dotted quarters may be found as eighths
        counts.append(found in (beats, 2 * beats, beats / 2, 3 * beats if beats == 2 else beats))
    followed = []
    changes = [0, *(np.flatnonzero(np.diff(size)) + 1).tolist(), len(size)]
    for begin, stop in itertools.pairwise(changes[1:]):
        good = [k for k in range(begin, stop - 1) if counts[k] and counts[k + 1]]
        followed.append((good[0] if good else stop) - begin)
    return bars, counts, followed


# ---------------------------------------------------------------- table

HEAD = (
    "| kind | n | beat F | downbeat F | edges found | edges right | median ms | 90 % ms "
    "| bars | or two as one | counts | first | followed after |"
)


def row_of(figures: list[Figures]) -> str:
    """The cells of one line of the table."""
    off_ms = np.concatenate([f.off_ms for f in figures])
    median, high = np.percentile(off_ms, [50, 90]) if len(off_ms) else (np.nan, np.nan)
    followed = sorted(k for f in figures for k in f.followed)
    means = [
        np.mean([getattr(f, name) for f in figures])
        for name in ("beat_f", "downbeat_f", "found", "right", "bars", "paired", "counts", "first")
    ]
    shares = [f"{x:.3f}" for x in means]
    after = ""
    if followed:
        after = f"{np.median(followed):.0f} ({np.mean(np.array(followed) <= 3):.0%} in 3)"
    cells = [*shares[:4], f"{median:.1f}", f"{high:.1f}", *shares[4:], after]
    return f"| {len(figures)} | " + " | ".join(cells) + " |"


def print_table(results: dict[str, list[Figures]]) -> None:
    print(HEAD)
    print("|---" * (HEAD.count("|") - 1) + "|")
    order = {kind: i for i, kind in enumerate(KINDS)}
    for kind in sorted(results, key=lambda k: (order.get(k, -1), k.startswith("all"), k)):
        print(f"| {kind} {row_of(results[kind])}")


if __name__ == "__main__":
    sys.exit(main())
