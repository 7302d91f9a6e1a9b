"""Measure tempo and phase against annotated beats.

    python examples/evaluate_tempo.py DATA [--split dev] [--speed 1.0137] [--tracker mgen] [--list]

DATA holds manifest.csv and NAME.beats.csv beside the audio. Annotated renders start on a downbeat,
which would flatter any method that guesses 0: so 0.5 to 3.5 s, fixed by the name, are cut off the
start of every song. `--speed` also resamples the song, so that its tempo is no whole number.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CONSTANT_S = 0.015


@dataclass(frozen=True)
class Song:
    """One annotated song; tempo and phase by linear regression on the annotated beats."""

    path: str
    split: str
    genre: str
    kind: str
    bpm: float
    first_beat_s: float
    downbeat: int
    beats_per_bar: int
    constant: bool
    beats_s: np.ndarray


def annotated_songs(data: Path) -> list[Song]:
    """All songs of the manifest that have beats."""
    songs = []
    with open(data / "manifest.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            beats_file = (data / row["path"]).with_suffix(".beats.csv")
            if row["has_beats"] != "1" or not beats_file.exists():
                continue
            beats = np.loadtxt(beats_file, delimiter=",", skiprows=1)
            n = np.arange(len(beats))
            period, first = np.polyfit(n, beats[:, 0], 1)
            off = np.abs(beats[:, 0] - first - period * n).max()
            downbeats = np.flatnonzero(beats[:, 1] == 1)
            meter = int(np.bincount(np.diff(downbeats)).argmax())
            songs.append(
                Song(row["path"], row["split"], row["genre"], row["kind"], 60.0 / period, first,
                     int(downbeats[0]), meter, bool(off < CONSTANT_S), beats[:, 0])
            )  # fmt: skip
    return songs


def cut_s(song: Song) -> float:
    return 0.5 + 3.0 * (zlib.crc32(song.path.encode()) % 1000) / 1000


def load_cropped(song: Song, data: Path) -> tuple[np.ndarray, int, float]:
    """Mono samples without the first seconds, their rate, and the time of a downbeat in them."""
    import soundfile

    samples, rate = soundfile.read(data / song.path, dtype="float32", always_2d=True)
    cut = round(cut_s(song) * rate)
    downbeat = song.first_beat_s + song.downbeat * 60.0 / song.bpm - cut / rate
    return samples[cut:].mean(1), rate, downbeat


@dataclass(frozen=True)
class Row:
    """What came out for one song."""

    song: Song
    bpm: float
    ratio: float
    phase_ms: float
    downbeat_ok: bool
    meter_ok: bool
    confidence: float
    changes: int
    seconds: float
    beat_f: float


def measure(song: Song, data: Path, speed: float, tracker: str) -> Row:
    import mir_eval

    from mgen.core.beatmap.rhythm import fit_timing

    samples, rate, downbeat = load_cropped(song, data)
    if speed != 1.0:
        import soxr

        samples = soxr.resample(samples, rate * speed, rate).astype(np.float32)
    beats = None
    if tracker != "none":
        from mgen.core.beats import track_beats

        beats = track_beats(samples, rate, tracker=tracker)
    start = time.perf_counter()
    timing = fit_timing(samples, rate, beats=beats)
    seconds = time.perf_counter() - start
    true_bpm, downbeat = song.bpm * speed, downbeat / speed
    ratio = timing.bpm / true_bpm
    period = 60.0 / max(timing.bpm, true_bpm)
    phase = (timing.offset_s - downbeat + period / 2) % period - period / 2
    bar = song.beats_per_bar * 60.0 / true_bpm
    off_bar = (timing.offset_s - downbeat + bar / 2) % bar - bar / 2
    duration = len(samples) / rate
    truth = (song.beats_s - cut_s(song)) / speed
    first = int(np.floor(timing.beat(0.0)))
    count = int(np.ceil(timing.beat(duration)))
    found = np.array([timing.seconds(b) for b in range(first, count)])
    beat_f = mir_eval.beat.f_measure(truth[truth >= 5.0], found[found >= 5.0])
    return Row(song, timing.bpm, ratio, 1000 * phase, abs(off_bar) < 0.03,
               timing.beats_per_bar == song.beats_per_bar, timing.confidence,
               len(timing.changes), seconds, beat_f)  # fmt: skip


def near(ratio: float, target: float) -> bool:
    return abs(ratio / target - 1.0) <= 0.002


def table(rows: list[Row], title: str) -> None:
    exact = [r for r in rows if near(r.ratio, 1.0)]
    octave = [r for r in rows if any(near(r.ratio, t) for t in (0.5, 1.0, 2.0))]
    phases = np.array([abs(r.phase_ms) for r in octave]) if octave else np.array([np.nan])
    share = 100.0 / len(rows)
    both = sum(abs(r.phase_ms) <= 10 for r in octave)
    print(
        f"{title:28s} {len(rows):4d} {len(exact) * share:6.1f} {len(octave) * share:6.1f}"
        f" {both * share:6.1f} {np.median(phases):6.1f}"
        f" {sum(r.downbeat_ok and r in exact for r in rows) * share:6.1f}"
        f" {sum(r.meter_ok for r in rows) * share:6.1f}"
        f" {np.mean([r.confidence for r in rows]):5.2f}"
        f" {sum(r.changes > 0 for r in rows):4d} {np.mean([r.beat_f for r in rows]):5.3f}"
        f" {np.mean([r.seconds for r in rows]):5.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--speed", type=float, default=1.0, help="play the songs this much faster")
    parser.add_argument("--tracker", default="none", help="hand in this tracker's beats")
    parser.add_argument("--list", action="store_true", help="one line per song that went wrong")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    songs = [s for s in annotated_songs(arguments.data) if arguments.split in (None, s.split)]
    rows = [measure(s, arguments.data, arguments.speed, arguments.tracker) for s in songs]
    constant = [r for r in rows if r.song.constant]
    if arguments.list:
        for r in rows:
            wrong = not near(r.ratio, 1.0) or abs(r.phase_ms) > 10 or not r.downbeat_ok
            if wrong or not r.song.constant or r.changes:
                print(
                    f"{r.song.path:52s} {r.song.split:5s} true {r.song.bpm:8.3f} got {r.bpm:8.3f}"
                    f" ratio {r.ratio:.4f} phase {r.phase_ms:6.1f} ms downbeat {r.downbeat_ok:d}"
                    f" conf {r.confidence:.2f} changes {r.changes:3d} F {r.beat_f:.3f}"
                    f"{'' if r.song.constant else '  (tempo varies)'}"
                )
    print(
        f"{'songs of constant tempo':28s}    n   .2 %  octave phase10 med ms   down  meter"
        "  conf  var beatF  s/song"
    )
    groups: dict[str, list[Row]] = defaultdict(list)
    for r in constant:
        groups["split " + r.song.split].append(r)
        groups[r.song.genre.split("-")[0] + ", " + r.song.kind].append(r)
    for title in sorted(groups):
        table(groups[title], title)
    table(constant, "all")
    varying = [r for r in rows if not r.song.constant]
    if varying:
        table(varying, "tempo varies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
