"""Measure beat trackers against annotations: python examples/evaluate_beats.py DATA [--split dev].

DATA holds manifest.csv (path, genre, split, has_beats, ...) and, beside each song that has beats,
NAME.beats.csv (time_s,beat_in_bar). Prints a table per genre and tracker: mir_eval's F-measure at
70 ms, CMLt and AMLt (continuity at the annotated tempo, and at any allowed metrical level),
downbeat F-measure, the median distance of matched beats in ms, and seconds of work per minute of
music; then the genres in which mgen is behind librosa. With --calibration it also compares how sure
mgen is of its beats with how often they are right, and draws it.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

import mir_eval
import numpy as np
import soundfile

from mgen.core.beats import TRACKERS, Beats, read_beats, track_beats
from mgen.core.pictures import FAINT, INK

Judged = tuple[np.ndarray, np.ndarray]
"""Confidence of each beat of a song, and whether it is right."""

NEAR_S = 0.07
BINS = 10
COLUMNS = ("F", "CMLt", "AMLt", "downbeat F", "median ms", "s/min")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv")
    parser.add_argument("--tracker", action="append", choices=TRACKERS, help="repeatable")
    parser.add_argument("--beat-model", type=Path, help="checkpoint for beat-this")
    parser.add_argument("--split", action="append", help="train, dev, extra; repeatable")
    parser.add_argument("--genre", action="append", help="start of a genre's name; repeatable")
    parser.add_argument("--limit", type=int, help="at most so many songs")
    parser.add_argument("--songs", action="store_true", help="a line per song, too")
    parser.add_argument(
        "--librosa-beats",
        type=Path,
        help="folder that keeps librosa's beats; empty it when core/beats/meter.py changes",
    )
    parser.add_argument("--calibration", type=Path, help="draw mgen's confidence as a PNG")
    options = parser.parse_args()
    rows = select(options.data, options.split, options.genre)[: options.limit]
    if not rows:
        print("no annotated song fits these filters", file=sys.stderr)
        return 1
    results: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    sure: list[Judged] = []
    for row in rows:
        samples_N, rate = load_mono(options.data / row["path"])
        truth = read_beats((options.data / row["path"]).with_suffix(".beats.csv"))
        for tracker in options.tracker or ("mgen", "librosa"):
            began = time.perf_counter()
            if tracker == "librosa" and options.librosa_beats:
                found = kept_beats(options.librosa_beats, row["path"], samples_N, rate)
            else:
                found = track_beats(samples_N, rate, tracker=tracker, beat_model=options.beat_model)
            spent = time.perf_counter() - began
            figures = [*score(truth, found), spent * 60.0 * rate / len(samples_N)]
            for genre in (row["genre"], "all", f"all {row['split']}"):
                results[genre, tracker].append(figures)
            if tracker == "mgen":
                sure.append(judged(truth, found))
            if options.songs:
                line = " ".join(f"{x:7.3f}" for x in figures)
                print(f"{line} {tracker:8} {truth.bpm:6.1f} {found.bpm:6.1f} {row['path']}")
    print_table(results)
    print_verdict(results)
    if options.calibration and sure:
        error = draw_calibration(options.calibration, sure)
        print(f"expected calibration error {error:.3f} ({len(sure)} songs), {options.calibration}")
    return 0


def kept_beats(folder: Path, name: str, samples_N: np.ndarray, rate: int) -> Beats:
    """librosa's beats, from the folder if they are there; times in it are no times of work."""
    file = folder / f"{name.replace('/', '_')}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beats = track_beats(samples_N, rate, tracker="librosa")
        np.savez(file, time_s=beats.time_s, place=beats.beat_in_bar, confidence=beats.confidence)
    with np.load(file) as kept:
        return Beats(kept["time_s"], kept["place"], kept["confidence"])


def select(data: Path, splits: list[str] | None, genres: list[str] | None) -> list[dict[str, str]]:
    """Rows of the manifest with beats that pass the filters."""
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [
            row
            for row in csv.DictReader(file)
            if row["has_beats"] == "1"
            and (not splits or row["split"] in splits)
            and (not genres or row["genre"].startswith(tuple(genres)))
        ]


def load_mono(path: Path) -> tuple[np.ndarray, int]:
    samples_NC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples_NC.mean(axis=1), rate


def score(truth: Beats, found: Beats) -> list[float]:
    """F, CMLt, AMLt, downbeat F and the median distance in ms, first 5 s left out as is usual."""
    reference = mir_eval.beat.trim_beats(truth.time_s)
    estimate = mir_eval.beat.trim_beats(found.time_s)
    if len(reference) < 2 or len(estimate) < 2:
        return [0.0, 0.0, 0.0, 0.0, float("nan")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mir_eval warns of an empty list and returns 0: so be it
        _, cmlt, _, amlt = mir_eval.beat.continuity(reference, estimate)
        downbeat_f = mir_eval.beat.f_measure(
            mir_eval.beat.trim_beats(truth.time_s[truth.beat_in_bar == 1]),
            mir_eval.beat.trim_beats(found.time_s[found.beat_in_bar == 1]),
        )
        f_measure = mir_eval.beat.f_measure(reference, estimate)
    distance = np.abs(estimate[:, None] - reference[None, :]).min(axis=1)
    matched = distance[distance <= 0.07]
    median_ms = 1000.0 * float(np.median(matched)) if len(matched) else float("nan")
    return [f_measure, cmlt, amlt, downbeat_f, median_ms]


def print_table(results: dict[tuple[str, str], list[list[float]]]) -> None:
    print(f"| {'genre':24} | {'tracker':9} | songs | " + " | ".join(COLUMNS) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    for (genre, tracker), figures in sorted(
        results.items(), key=lambda item: (item[0][0].startswith("all"), item[0])
    ):
        mean = np.nanmean(np.array(figures), axis=0) if figures else []
        cells = " | ".join(f"{x:.3f}" if i < 4 else f"{x:.1f}" for i, x in enumerate(mean[:-1]))
        print(f"| {genre:24} | {tracker:9} | {len(figures)} | {cells} | {mean[-1]:.2f} |")


def print_verdict(results: dict[tuple[str, str], list[list[float]]]) -> None:
    """Where mgen is behind librosa in F or downbeat F."""
    genres = sorted({g for g, _ in results if not g.startswith("all")})
    both = [g for g in genres if {(g, "mgen"), (g, "librosa")} <= results.keys()]
    for column in (0, 3) if both else ():
        behind = []
        for genre in both:
            ours, theirs = (
                float(np.mean([figures[column] for figures in results[genre, tracker]]))
                for tracker in ("mgen", "librosa")
            )
            if ours < theirs - 5e-4:
                behind.append(f"{genre} ({ours:.3f} to {theirs:.3f})")
        print(
            f"{COLUMNS[column]}: mgen is behind librosa in {len(behind)} of {len(both)} genres"
            + (f": {', '.join(behind)}" if behind else "")
        )


def judged(truth: Beats, found: Beats) -> Judged:
    """Confidence of the beats within the annotated stretch, and whether each is near a true one."""
    inside = (found.time_s >= truth.time_s[0] - NEAR_S) & (
        found.time_s <= truth.time_s[-1] + NEAR_S
    )
    distance = np.abs(found.time_s[inside, None] - truth.time_s[None, :]).min(axis=1)
    return found.confidence[inside].astype(np.float64), distance <= NEAR_S


def calibration(sure: list[Judged]) -> np.ndarray:
    """Mean confidence, share right, share of all beats in each tenth (10, 3); songs weigh alike."""
    songs = [song for song in sure if len(song[0])]
    confidence = np.concatenate([c for c, _ in songs])
    right = np.concatenate([r for _, r in songs])
    weight = np.concatenate([np.full(len(c), 1.0 / len(c) / len(songs)) for c, _ in songs])
    tenth = np.minimum((confidence * BINS).astype(int), BINS - 1)
    share = np.bincount(tenth, weight, BINS)
    mean = np.bincount(tenth, weight * confidence, BINS) / np.maximum(share, 1e-12)
    hit = np.bincount(tenth, weight * right, BINS) / np.maximum(share, 1e-12)
    return np.stack([mean, hit, share], axis=1)


def draw_calibration(path: Path, sure: list[Judged]) -> float:
    """Draw how often beats are right over how sure the tracker is; gives the expected calibration
    error: the mean distance of the two (Guo et al., ICML 2017, section 2).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bins = calibration(sure)
    error = float((bins[:, 2] * np.abs(bins[:, 0] - bins[:, 1])).sum())
    figure = Figure(figsize=(5.0, 5.0), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axes.bar((np.arange(BINS) + 0.5) / BINS, bins[:, 2], 0.9 / BINS, color=FAINT, alpha=0.4)
    seen = bins[:, 2] > 0
    axes.plot(bins[seen, 0], bins[seen, 1], "o-", color=INK)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share of beats within 70 ms")
    axes.set_title(f"expected calibration error {error:.3f}; grey: share of beats")
    figure.savefig(path, format="png", metadata={"Software": "mgen"})
    return error


if __name__ == "__main__":
    sys.exit(main())
