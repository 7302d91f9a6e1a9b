"""Measure beat trackers against annotations: python examples/evaluate_beats.py DATA [--split dev].

DATA holds manifest.csv (path, genre, split, has_beats, ...) and, beside each song that has beats,
NAME.beats.csv (time_s,beat_in_bar). Prints a table per genre and tracker: mir_eval's F-measure at
70 ms, CMLt and AMLt (continuity at the annotated tempo, and at any allowed metrical level),
downbeat F-measure, the median distance of matched beats in ms, and seconds of work per minute of
music.
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
    options = parser.parse_args()
    rows = select(options.data, options.split, options.genre)[: options.limit]
    if not rows:
        print("no annotated song fits these filters", file=sys.stderr)
        return 1
    results: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for row in rows:
        samples_N, rate = load_mono(options.data / row["path"])
        truth = read_beats((options.data / row["path"]).with_suffix(".beats.csv"))
        for tracker in options.tracker or ("mgen", "librosa"):
            began = time.perf_counter()
            found = track_beats(samples_N, rate, tracker=tracker, beat_model=options.beat_model)
            spent = time.perf_counter() - began
            figures = [*score(truth, found), spent * 60.0 * rate / len(samples_N)]
            for genre in (row["genre"], "all", f"all {row['split']}"):
                results[genre, tracker].append(figures)
            if options.songs:
                line = " ".join(f"{x:7.3f}" for x in figures)
                print(f"{line} {tracker:8} {truth.bpm:6.1f} {found.bpm:6.1f} {row['path']}")
    print_table(results)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
