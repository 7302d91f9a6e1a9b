"""Fit the baseline that needs no training: python examples/pca_baseline.py STORE_OR_DATA -o FILE.

16 principal components of two consecutive 80-band log-mel frames (window 1024, hop 256), 31.25
times a second: as many numbers a bar as the tokenizer's 64 x 16. Back by the components, librosa's
inverse of the mel filters and 60 iterations of Griffin-Lim. DATA is a folder with manifest.csv, of
which the songs of split `train` are heard; of a STORE all bars that are fit to learn from are.
An autoencoder of the same size that cannot beat this is broken.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np

from mgen.core.audio import read_mono
from mgen.core.bars import BAR_RATE as RATE
from mgen.core.bars import BAR_SAMPLES
from mgen.core.store import Store

KINDS = ("recorded", "produced", "sequenced-render")
BANDS, FRAMES, COMPONENTS = 80, 2, 16
N_FFT, HOP, ITERATIONS = 1024, 256, 60
LONGEST_S = 60.0  # of one song of DATA


def log_mel(samples_N: np.ndarray) -> np.ndarray:
    """Log-mel in dB (bands, frames), as the metric `mel_l1_db` has it."""
    power = librosa.feature.melspectrogram(
        y=samples_N, sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS
    )
    return librosa.power_to_db(power, top_db=80)


def pairs(mel_db: np.ndarray) -> np.ndarray:
    """Frames two by two (pairs, 160); an odd last one is paired with itself."""
    if mel_db.shape[1] % FRAMES:
        mel_db = np.concatenate([mel_db, mel_db[:, -1:]], axis=1)
    return mel_db.T.reshape(-1, FRAMES * BANDS)


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Mean (160,) and principal components (16, 160) of pairs of frames."""

    mean: np.ndarray
    components: np.ndarray

    def mel(self, samples_N: np.ndarray) -> np.ndarray:
        """The log-mel that 16 numbers a pair leave of a sound's own."""
        mel_db = log_mel(samples_N)
        numbers = (pairs(mel_db) - self.mean) @ self.components.T
        back = numbers @ self.components + self.mean
        return back.reshape(-1, BANDS).T[:, : mel_db.shape[1]]

    def __call__(self, samples_N: np.ndarray) -> np.ndarray:
        """The sound that they leave, of the same length."""
        mel = librosa.db_to_power(self.mel(samples_N))
        magnitude = librosa.feature.inverse.mel_to_stft(mel, sr=RATE, n_fft=N_FFT)
        return librosa.griffinlim(
            magnitude, n_iter=ITERATIONS, hop_length=HOP, n_fft=N_FFT, length=len(samples_N),
            random_state=0,
        )  # fmt: skip


def fit(sounds: Iterator[np.ndarray]) -> Baseline:
    """Principal components of all pairs of all sounds."""
    size = FRAMES * BANDS
    count, total, products = 0, np.zeros(size), np.zeros((size, size))
    for samples_N in sounds:
        rows = pairs(log_mel(samples_N)).astype(np.float64)
        count += len(rows)
        total += rows.sum(axis=0)
        products += rows.T @ rows
    if not count:
        sys.exit("nothing to fit on")
    mean = total / count
    _, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return Baseline(mean, vectors[:, ::-1][:, :COMPONENTS].T)


def sounds_of(place: Path) -> Iterator[np.ndarray]:
    """Bars of a store, or songs of the split `train` of a data folder, (N,) each."""
    if (place / "manifest.csv").exists():
        with open(place / "manifest.csv", newline="", encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if r["split"] == "train" and r["kind"] in KINDS]
        for row in rows:
            yield read_mono(place / row["path"], RATE)[: round(LONGEST_S * RATE)]
        return
    with Store.open(place) as store:
        bars = store.bars()
        for row in bars.row[bars.valid].tolist():
            yield store.bar_pcm(row).astype(np.float32) / 32768


def load(path: Path) -> Baseline:
    """What `main` wrote."""
    held = np.load(path)
    return Baseline(held["mean"], held["components"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", type=Path, metavar="STORE_OR_DATA")
    parser.add_argument("-o", "--out", type=Path, help="an .npz for evaluate_tokenizer.py")
    options = parser.parse_args()
    baseline = fit(sounds_of(options.place))
    if options.out is not None:
        np.savez(options.out, mean=baseline.mean, components=baseline.components)
    numbers = COMPONENTS * BAR_SAMPLES // (FRAMES * HOP)
    print(f"{COMPONENTS} components of {FRAMES} x {BANDS} bands: {numbers} numbers a warped bar")
    return 0


if __name__ == "__main__":
    sys.exit(main())
