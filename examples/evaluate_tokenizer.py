"""Measure tokenizers: python examples/evaluate_tokenizer.py DATA [--tokenizer MODEL ...].

DATA holds manifest.csv (path, kind, split, has_beats, ...). Bars of each song (annotated beats, or
tracked ones) go through the warp and back: as they are (`warp`), through the untrained baseline of
pca_baseline.py (`pca`), through each tokenizer; a tokenizer of plain seconds or of bars at their
own lengths hears the bar unwarped. Compared at the bar's own length:

    mel dB    mean absolute difference of 80-band log-mel (librosa, n_fft 1024, hop 256, top_db 80)
    stft dB   the same of log-magnitude spectra, mean over windows of 256, 1024 and 2048
    chroma    mean cosine of chroma frames
    onset F1  of librosa's onsets, 50 ms
    SI-SDR    in dB; decoders resample phase, so it is low by construction

Per song the mean of its bars, then means; seconds of encoding and decoding per bar, peak memory.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import librosa
import mir_eval
import numpy as np
import pca_baseline
import torch

from mgen.core.audio import read_mono
from mgen.core.bars import BAR_RATE as RATE
from mgen.core.bars import BAR_SAMPLES, bar_samples, bars_from_beats, unwarp_bar, warp_song_bar
from mgen.core.beats import read_beats, track_beats
from mgen.core.tokenizer import Tokenizer, load_tokenizer

MEASURES = ("mel dB", "stft dB", "chroma", "onset F1", "SI-SDR")
TOP_DB = 80.0


@dataclass(frozen=True, slots=True, eq=False)
class Bar:
    """A bar in its song: first sample, the one past the last, and the bar warped."""

    song_N: np.ndarray
    first: int
    last: int
    warped_N: np.ndarray

    @property
    def own_N(self) -> np.ndarray:
        return self.song_N[self.first : self.last]


System = Callable[[Bar], np.ndarray]
"""A bar -> what comes back of it, at its own length."""


def warp_alone(bar: Bar) -> np.ndarray:
    return unwarp_bar(bar.warped_N, bar.last - bar.first)


def through_warp(process: Callable[[np.ndarray], np.ndarray]) -> System:
    return lambda bar: unwarp_bar(process(bar.warped_N), bar.last - bar.first)


def through_tokenizer(tokenizer: Tokenizer, steps: int | None, seed: int) -> System:
    config = tokenizer.config

    def code(samples_N: np.ndarray, length: int | None = None) -> np.ndarray:
        samples_BCN = torch.from_numpy(samples_N.astype(np.float32))[None, None]
        lengths_B = None if length is None else torch.tensor([length])
        z_BLD = tokenizer.encode(samples_BCN, lengths_B).half().float()  # as a store keeps them
        back_BCN = tokenizer.decode(
            z_BLD, keys=[0], seed=seed, steps=steps, n_samples=len(samples_N), lengths_B=lengths_B
        )
        return back_BCN[0, 0].float().cpu().numpy()

    def whole(bar: Bar) -> np.ndarray:
        n = bar.last - bar.first
        return code(np.pad(bar.own_N, (0, -n % 8192)), n)[:n]

    def cut(bar: Bar) -> np.ndarray:
        """Items that begin before the bar and reach past it."""
        n = bar.last - bar.first
        total = -(-n // config.samples) * config.samples
        begin = max(0, bar.first - (total - n) // 2)
        heard = bar.song_N[begin : begin + total]
        heard = np.pad(heard, (0, total - len(heard)))
        back = np.concatenate([code(part) for part in heard.reshape(-1, config.samples)])
        return back[bar.first - begin : bar.last - begin]

    if (config.rate, config.channels) != (RATE, 1):
        sys.exit(f"only tokenizers of {RATE} Hz mono are measured here")
    if config.unit == "second":
        return cut
    return whole if config.arch == "perceiver" else through_warp(code)


# measures


def decibels(power: np.ndarray) -> np.ndarray:
    return librosa.power_to_db(power, top_db=TOP_DB)


def mel_l1_db(truth: np.ndarray, found: np.ndarray) -> float:
    one, other = pca_baseline.log_mel(truth), pca_baseline.log_mel(found)
    return float(np.abs(one - other).mean())


def stft_l1_db(truth: np.ndarray, found: np.ndarray) -> float:
    distances = []
    for length in (256, 1024, 2048):
        one, other = (
            decibels(np.abs(librosa.stft(y, n_fft=length, hop_length=length // 4)) ** 2)
            for y in (truth, found)
        )
        distances.append(np.abs(one - other).mean())
    return float(np.mean(distances))


def chroma_cosine(truth: np.ndarray, found: np.ndarray) -> float:
    one, other = (
        librosa.feature.chroma_stft(y=y, sr=RATE, n_fft=2048, hop_length=512, tuning=0.0, norm=None)
        for y in (truth, found)
    )
    loud = one.sum(axis=0) > 1e-4 * one.sum(axis=0).max()  # silence has no chroma
    lengths = np.linalg.norm(one, axis=0) * np.linalg.norm(other, axis=0)
    cosines = (one * other).sum(axis=0) / np.maximum(lengths, 1e-12)
    return float(cosines[loud].mean()) if loud.any() else 1.0


def onset_f1(truth: np.ndarray, found: np.ndarray) -> float:
    one, other = (
        librosa.onset.onset_detect(y=y, sr=RATE, hop_length=256, units="time")
        for y in (truth, found)
    )
    if len(one) == 0 and len(other) == 0:
        return 1.0
    return float(mir_eval.onset.f_measure(one, other, window=0.05)[0])


def si_sdr(truth: np.ndarray, found: np.ndarray) -> float:
    truth, found = (x.astype(np.float64) - x.mean() for x in (truth, found))
    target = truth * (truth @ found / max(truth @ truth, 1e-12))
    error = found - target
    return float(10 * np.log10((target @ target + 1e-12) / (error @ error + 1e-9)))


def measure(truth: np.ndarray, found: np.ndarray) -> list[float]:
    return [f(truth, found) for f in (mel_l1_db, stft_l1_db, chroma_cosine, onset_f1, si_sdr)]


# songs


def songs_of(data: Path, split: str, only: str | None) -> list[dict[str, str]]:
    with open(data / "manifest.csv", newline="", encoding="utf-8") as file:
        return [
            row for row in csv.DictReader(file)
            if row["split"] == split and row["kind"] in pca_baseline.KINDS
            and (only is None or only in row["path"])
        ]  # fmt: skip


def spread(rows: list[dict[str, str]], limit: int | None) -> list[dict[str, str]]:
    """At most so many rows, from all over the list."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def bars_of(path: Path, annotated: bool, count: int) -> list[Bar]:
    """Up to `count` bars fit to learn from, spread over the song (one: from its middle); none that
    is silent.
    """
    song_N = read_mono(path, RATE)
    beats = read_beats(path.with_suffix(".beats.csv")) if annotated else track_beats(song_N, RATE)
    grid = bars_from_beats(beats, len(song_N) / RATE)
    bars = []
    for i in np.flatnonzero(grid.valid):
        first, last = bar_samples(grid.start_s[i], grid.end_s[i], RATE)
        last = min(last, len(song_N))
        if np.abs(song_N[first:last]).max(initial=0.0) > 1e-3:
            bars.append((first, last, float(grid.start_s[i]), float(grid.end_s[i])))
    last = len(bars) - 1
    at = np.linspace(0, last, min(count, len(bars))) if count > 1 else np.arange(1) + last / 2
    chosen = np.unique(at.round().astype(int))[: len(bars)]
    found = []
    for first, last, start_s, end_s in (bars[i] for i in chosen):
        warped = warp_song_bar(song_N, start_s, end_s)
        pcm = np.clip(np.rint(warped * 32768), -32768, 32767)  # as a store keeps it
        found.append(Bar(song_N, first, last, (pcm / 32768).astype(np.float32)))
    return found


def sweep() -> Bar:
    """A tone that rises from 50 to 7500 Hz in the length of a warped bar."""
    t = np.arange(BAR_SAMPLES) / RATE
    ratio, length = 7500 / 50, BAR_SAMPLES / RATE
    phase = 2 * np.pi * 50 * length / np.log(ratio) * (ratio ** (t / length) - 1)
    tone = (0.3 * np.sin(phase)).astype(np.float32)
    return Bar(tone, 0, BAR_SAMPLES, tone)


def draw(path: Path, title: str, sounds: dict[str, np.ndarray]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(sounds), 3.4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    shown = {
        name: 10 * np.log10(np.abs(librosa.stft(y, n_fft=1024, hop_length=128)) ** 2 + 1e-10)
        for name, y in sounds.items()
    }
    top = next(iter(shown.values())).max()
    for axes, (name, db) in zip(figure.subplots(1, len(sounds), sharey=True, squeeze=False)[0],
                                shown.items(), strict=True):  # fmt: skip
        axes.imshow(
            db, origin="lower", aspect="auto", vmin=top - TOP_DB, vmax=top, cmap="magma",
            extent=(0, len(sounds[name]) / RATE, 0, RATE / 2000),
        )  # fmt: skip
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("s")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path)


@dataclass
class Results:
    """Figures by system: a row per song (means of its bars), and seconds per bar."""

    rows: dict[str, list[list[float]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def song(self, bars: list[Bar], systems: dict[str, System]) -> dict[str, list[float]]:
        figures: dict[str, list[list[float]]] = {name: [] for name in systems}
        for bar in bars:
            for name, system in systems.items():
                began = time.perf_counter()
                back = system(bar)
                self.seconds.setdefault(name, []).append(time.perf_counter() - began)
                figures[name].append(measure(bar.own_N, back))
        means = {name: np.mean(rows, axis=0).tolist() for name, rows in figures.items()}
        for name, row in means.items():
            self.rows.setdefault(name, []).append(row)
        return means


def show(name: str, figures: list[float], title: str) -> None:
    print(f"{name:24} {' '.join(f'{x:9.3f}' for x in figures)}  {title}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv")
    parser.add_argument("--tokenizer", type=Path, action="append", default=[], help="repeatable")
    parser.add_argument("--baseline", type=Path, help="an .npz by pca_baseline.py [fitted here]")
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, help="at most so many songs, spread over the list")
    parser.add_argument("--only", help="songs with this in their path")
    parser.add_argument("--bars", type=int, default=12, help="of each song")
    parser.add_argument("--steps", type=int, help="of the sampler [the model's own]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw a bar of each song, a sweep")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = spread(songs_of(options.data, options.split, options.only), options.limit)
    if not rows:
        print("no song fits these filters", file=sys.stderr)
        return 1
    systems: dict[str, System] = {"warp": warp_alone}
    if not options.no_baseline:
        held = options.baseline
        fitted = pca_baseline.load(held) if held else pca_baseline.fit(
            pca_baseline.sounds_of(options.data)
        )  # fmt: skip
        systems["pca"] = through_warp(fitted)
    for folder in options.tokenizer:
        tokenizer = load_tokenizer(folder, options.device)
        systems[folder.name] = through_tokenizer(tokenizer, options.steps, options.seed)
    if options.plot:
        options.plot.mkdir(parents=True, exist_ok=True)
        tone = sweep()
        sounds = {"original": tone.own_N, **{name: s(tone) for name, s in systems.items()}}
        draw(options.plot / "sweep.png", "sweep, 50 to 7500 Hz", sounds)
    results = Results()
    print(f"{'':24} {' '.join(f'{m:>9}' for m in MEASURES)}")
    for row in rows:
        bars = bars_of(options.data / row["path"], row["has_beats"] == "1", options.bars)
        if not bars:
            print(f"no bars: {row['path']}", file=sys.stderr)
            continue
        for name, figures in results.song(bars, systems).items():
            show(name, figures, f"{row['path']} ({row['kind']}, {len(bars)} bars)")
        if options.plot:
            bar = bars[len(bars) // 2]
            sounds = {"original": bar.own_N, **{name: s(bar) for name, s in systems.items()}}
            draw(options.plot / f"{Path(row['path']).stem}.png", row["path"], sounds)
    print()
    base = np.array(results.rows.get("pca", []))
    for name, songs in results.rows.items():
        show(name, np.mean(songs, axis=0).tolist(), f"mean of {len(songs)} songs;"
             f" {np.median(results.seconds[name]):.3f} s a bar")  # fmt: skip
        if len(base) and name not in ("warp", "pca"):
            won = int((np.array(songs)[:, 0] < base[:, 0]).sum())
            print(f"{'':24} below the baseline's mel dB on {won} of {len(songs)} songs")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB, {torch.get_num_threads()} threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
