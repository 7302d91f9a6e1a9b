"""Compare time-stretchers on real bars: there, back, and what is left of the bar.

    python examples/compare_stretchers.py DATA [--songs 40] [--bars 2] [--seed 0]

DATA holds a manifest.csv (path, kind, split, ...) and the songs that it names; `stems/` is used if
it is there. Cuts of many lengths are warped to 32,768 samples at 16 kHz and back. Per bucket of
stretch (2.048 s over the bar's length; below 1 the warp shortens) a row gives mel L1 in dB (80-band
log-mel, window 1024, hop 256) and F1 of the onsets that librosa finds (50 ms); then ms for one bar
both ways, the level error of the bar's first and last 20 ms, and the worst bar near stretch 1.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import librosa
import mir_eval
import numpy as np

from mgen.core.audio import read_mono
from mgen.core.bars import BAR_RATE, BAR_SAMPLES, unwarp_bar, warp_bar

BUCKETS = ((0.4, 0.8), (0.8, 1.25), (1.25, 2.5))
KINDS = {"recorded", "produced", "sequenced-render"}
REACH = BAR_RATE // 2

# there and back: (samples before, bar, samples after) -> the bar after both warps
RoundTrip = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ours(stretcher: str, restore: bool, context: bool = True) -> RoundTrip:
    def there_and_back(before: np.ndarray, bar: np.ndarray, after: np.ndarray) -> np.ndarray:
        around = {"before": before, "after": after} if context else {}
        warped = warp_bar(bar, stretcher=stretcher, restore=restore, **around)
        return unwarp_bar(warped, len(bar), stretcher=stretcher, restore=restore)

    return there_and_back


def phase_vocoder(before: np.ndarray, bar: np.ndarray, after: np.ndarray) -> np.ndarray:
    def stretch(samples: np.ndarray, n: int) -> np.ndarray:
        return librosa.util.fix_length(
            librosa.effects.time_stretch(samples, rate=len(samples) / n, n_fft=1024), size=n
        )

    return stretch(stretch(bar, BAR_SAMPLES), len(bar))


def resampling(before: np.ndarray, bar: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Change of speed: moves the pitch, so no candidate; what 32,768 samples can hold at best."""

    def stretch(samples: np.ndarray, n: int) -> np.ndarray:
        spectrum = np.fft.rfft(samples)[: n // 2 + 1]
        return np.fft.irfft(spectrum, n).astype(np.float32)

    return stretch(stretch(bar, BAR_SAMPLES), len(bar))


CANDIDATES: list[tuple[str, RoundTrip]] = [
    ("signalsmith (default)", ours("signalsmith", restore=True)),
    ("  no context at the edges", ours("signalsmith", restore=True, context=False)),
    ("  as the engine makes it", ours("signalsmith", restore=False)),
    ("rubberband", ours("rubberband", restore=True)),
    ("  as the engine makes it", ours("rubberband", restore=False)),
    ("librosa phase vocoder", phase_vocoder),
    ("(speed change)", resampling),
]


def mel_db(samples: np.ndarray) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=samples, sr=BAR_RATE, n_fft=1024, hop_length=256, n_mels=80
    )
    return librosa.power_to_db(power, top_db=80)


def onset_f1(bar: np.ndarray, back: np.ndarray) -> float:
    truth, found = (
        librosa.onset.onset_detect(y=y, sr=BAR_RATE, hop_length=256, units="time")
        for y in (bar, back)
    )
    if len(truth) == 0 and len(found) == 0:
        return 1.0
    return mir_eval.onset.f_measure(truth, found, window=0.05)[0]


def edge_level_db(bar: np.ndarray, back: np.ndarray) -> float:
    """By how much the first and last 20 ms are too loud or too soft."""
    n = BAR_RATE // 50
    levels = [[np.sqrt(np.mean(part**2) + 1e-8) for part in (y[:n], y[-n:])] for y in (bar, back)]
    return float(np.abs(20 * np.log10(np.divide(*levels))).mean())


def songs_of(data: Path, count: int) -> list[Path]:
    with open(data / "manifest.csv", newline="", encoding="utf-8") as file:
        listed = [data / row["path"] for row in csv.DictReader(file)
                  if row["split"] == "dev" and row["kind"] in KINDS]  # fmt: skip
    alone = [p for name in ("drums", "vocals") for p in sorted(data.glob(f"stems/*/{name}.ogg"))]
    return (alone[:8] + listed)[:count]


def bars_of(
    songs: list[Path], per_bucket: int, seed: int
) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    bars = []
    for path in songs:
        song = read_mono(path)
        for bucket, (low, high) in enumerate(BUCKETS):
            found = 0
            for _ in range(50):
                n = round(BAR_SAMPLES / np.exp(rng.uniform(np.log(low), np.log(high))))
                if found == per_bucket or len(song) < n + 2 * REACH:
                    break
                start = int(rng.integers(REACH, len(song) - n - REACH + 1))
                bar = song[start : start + n]
                if np.std(bar) < 0.01:
                    continue
                around = song[start - REACH : start], song[start + n : start + n + REACH]
                bars.append((bucket, around[0], bar, around[1]))
                found += 1
    return bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--bars", type=int, default=2, help="per song and bucket")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    songs = songs_of(options.data, options.songs)
    bars = bars_of(songs, options.bars, options.seed)
    print(f"{len(bars)} bars of {len(songs)} songs; mel L1 (dB), onset F1, by stretch")
    head = "".join(f"{f'{low:g}-{high:g}':^14}" for low, high in BUCKETS)
    print(f"{'':28}{head}  ms/bar  edges dB  worst .8-1.25")
    for name, there_and_back in CANDIDATES:
        mels: list[list[float]] = [[], [], []]
        onsets: list[list[float]] = [[], [], []]
        edges, seconds = [], 0.0
        for bucket, before, bar, after in bars:
            begin = time.perf_counter()
            back = there_and_back(before, bar, after)
            seconds += time.perf_counter() - begin
            mels[bucket].append(float(np.abs(mel_db(bar) - mel_db(back)).mean()))
            onsets[bucket].append(onset_f1(bar, back))
            edges.append(edge_level_db(bar, back))
        cells = "".join(
            f"{np.mean(m):7.2f} {np.mean(f):5.3f} " for m, f in zip(mels, onsets, strict=True)
        )
        print(
            f"{name:28}{cells}  {1e3 * seconds / len(bars):5.0f}  {np.median(edges):7.2f}"
            f"  {np.max(mels[1]):8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
