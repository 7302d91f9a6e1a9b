"""Fit the shipped judge: python examples/train_judge.py DATA [-o core/weights/judge].

DATA holds manifest.csv (path, kind, split, ...). Only songs of split `train` are heard. Good: those
of kind recorded, produced, sequenced-render and synthetic pieces (synthetic_music.py), as they are
and after what does no harm (gain, tone, speed, a limiter, a decent coder, two songs at once). Bad:
excerpts of the same with one or two defects at random strengths, and the simulated old records and
degraded items. Genuine old recordings are left for the report. Wow and flutter alone is not used:
statistics of mel bands do not show it, and it would only teach that good music is bad.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
from synthetic_music import synthesise

from mgen.core.audio import read_mono
from mgen.core.quality import DEGRADATIONS, QualityMeter, degrade, save_judge
from mgen.core.quality.degradations import coded
from mgen.core.quality.features import RATE, WINDOW_SAMPLES, WINDOW_STEP
from mgen.core.quality.training import DEPTH, TREES, Examples, fit

GOOD_KINDS = {"recorded", "produced", "sequenced-render"}
BAD_KINDS = {"simulated-old-record", "degraded"}
EXCERPT = WINDOW_SAMPLES + WINDOW_STEP  # two windows
REPEATS = 2  # excerpts of each song with each defect
COPIES = 3  # harmless versions of each song
LONGEST = 75 * RATE  # of one song
SYNTHETIC = 50
TAUGHT = [kind for kind in DEGRADATIONS if kind != "wow-flutter"]
MILDEST = 0.4  # weakest strength that is taught: what is hardly heard teaches that good is bad;
# but an old record is to be refused however little worn, and is what the filter is for: thrice
GOOD_ODDS = 3.0  # to lose good music is worse than to keep some that is bad; tuned on `dev`
SECOND = 0.25  # share of excerpts with a second defect
MADE_BY = {  # manifest items: which of our kinds they are, for leaving that kind out
    "simulated old record": "old-record", "hard clipping": "clipping", "MP3": "low-bitrate",
    "8-bit": "few-bits", "dropouts": "dropouts", "hum": "hum",
}  # fmt: skip
LEAST_LEAF = 5  # windows, the same


def songs(data: Path, splits: set[str], kinds: set[str]) -> list[dict[str, str]]:
    """Rows of the manifest, in its order."""
    with open(data / "manifest.csv", newline="", encoding="utf-8") as file:
        return [r for r in csv.DictReader(file) if r["split"] in splits and r["kind"] in kinds]


def features(sound: np.ndarray) -> np.ndarray:
    """Features of the windows that are loud enough to say something."""
    meter = QualityMeter()
    meter.push(sound)
    found, loud = meter.finish()
    return found[loud]


def harmless(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a good recording may have been through: a level, a tone control, a decent coder."""
    from scipy.signal import butter, sosfilt

    out = sound.astype(np.float64)
    if rng.random() < 0.3:  # played faster or slower, by up to a fifth
        speed = rng.uniform(0.83, 1.2)
        out = np.interp(np.arange(0, len(out) - 1, speed), np.arange(len(out)), out)
    if rng.random() < 0.3:  # a limiter: loud, but rounded
        drive = rng.uniform(0.5, 1.5) / max(1e-9, np.sqrt(np.mean(out**2)))
        out = np.tanh(0.4 * drive * out) / (0.4 * drive)
    if rng.random() < 0.7:  # tilt by up to 8 dB on one side of a corner
        corner, gain = rng.uniform(200, 4000), 10 ** (rng.uniform(-8, 8) / 20)
        low = sosfilt(butter(1, corner, "lowpass", fs=RATE, output="sos"), out)
        out = low * gain + (out - low)
    draw = rng.random()
    if draw < 0.3:
        out = coded(out, "MP3", rng.uniform(0.2, 0.65))  # 130 to 56 kbit/s
    elif draw < 0.6:
        out = coded(out, "OGG", rng.uniform(0.0, 0.7))
    elif draw < 0.7:
        out = sosfilt(butter(6, rng.uniform(5500, 7500), "lowpass", fs=RATE, output="sos"), out)
    gain = 10 ** (rng.uniform(-20, 3) / 20)
    return np.clip(out * min(gain, 1 / max(1e-9, np.abs(out).max())), -1, 1).astype(np.float32)


def excerpt(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ten seconds from anywhere in a song that are not silent."""
    for _ in range(8):
        start = int(rng.integers(0, max(1, len(sound) - EXCERPT)))
        part = sound[start : start + EXCERPT]
        if np.sqrt(np.mean(part**2)) > 0.003:
            break
    return part


def spoilt(
    sound: np.ndarray, number: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, str]]:
    """Features of excerpts with defects, and the names of these."""
    bad = []
    for kind in TAUGHT:
        for repeat in range(REPEATS * (3 if kind == "old-record" else 1)):
            kinds = [kind]
            if rng.random() < SECOND:
                kinds.append(str(rng.choice([k for k in DEGRADATIONS if k != kind])))
            part = excerpt(sound, rng)
            if rng.random() < 0.3:
                part = harmless(part, rng)
            for one in kinds:
                strength = rng.uniform(0.0 if one == "old-record" else MILDEST, 1.0)
                part = degrade(part, one, strength, seed=number * 100 + repeat)
            if rng.random() < 0.4:
                part = harmless(part, rng)
            bad.append((features(part), " ".join(kinds)))
    return bad


def build(data: Path) -> tuple[Examples, np.ndarray]:
    """Examples, and for each window the kinds of defect in it (a string; empty where good)."""
    # features, good, song, weight, kinds
    found: list[tuple[np.ndarray, bool, int, float, str]] = []
    rows = songs(data, {"train"}, GOOD_KINDS)
    before = np.zeros(0, np.float32)
    for number in range(len(rows) + SYNTHETIC):
        rng = np.random.default_rng([7, number])
        if number < len(rows):
            sound = read_mono(data / rows[number]["path"], RATE)
        else:
            sound = synthesise(number)
        start = int(rng.integers(0, max(1, len(sound) - LONGEST)))
        sound = sound[start : start + LONGEST]
        if number % 10 == 0:
            print(f"{number}/{len(rows) + SYNTHETIC}", file=sys.stderr)
        found.append((features(sound), True, number, 1.0, ""))
        for _ in range(COPIES):
            mixed = sound.copy()
            if rng.random() < 0.35:
                n = min(len(before), len(mixed))
                mixed[:n] += before[:n] * rng.uniform(0.3, 1.0)
            found.append((features(harmless(mixed, rng)), True, number, 1.0, ""))
        before = sound
        found += [(x, False, number, 1.0, kinds) for x, kinds in spoilt(sound, number, rng)]
    names = {Path(row["path"]).name: i for i, row in enumerate(rows)}
    for row in songs(data, {"train"}, BAD_KINDS):
        kind = next((k for word, k in MADE_BY.items() if word in row["title"]), "")
        of = names.get(Path(row["pair_of"].split(" @")[0]).name, len(rows) + SYNTHETIC)
        sound = read_mono(data / row["path"], RATE)
        found.append((features(sound), False, of, 1.0, kind))
    counts = [len(x) for x, *_ in found]
    columns = [np.repeat([one[i] for one in found], counts) for i in range(1, 5)]
    stacked = np.concatenate([x for x, *_ in found])
    return Examples(stacked, columns[0], columns[1], columns[2]), columns[3]


def cached(data: Path, cache: Path | None) -> tuple[Examples, np.ndarray]:
    """`build`, or what an earlier run of it left in a file."""
    if cache is not None and cache.exists():
        held = np.load(cache)
        names = ("features", "good", "song", "weight")
        return Examples(*(held[name] for name in names)), held["kinds"]
    examples, kinds = build(data)
    if cache is not None:
        np.savez(
            cache, features=examples.features_WF, good=examples.good_W, song=examples.song_W,
            weight=examples.weight_W, kinds=kinds,
        )  # fmt: skip
    return examples, kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv")
    parser.add_argument("-o", "--out", type=Path, default=Path("core/weights/judge"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="an .npz to keep the features in")
    options = parser.parse_args()
    if "MP3" not in soundfile.available_formats():
        print("libsndfile was built without MP3; low bitrates cannot be made", file=sys.stderr)
        return 1
    examples, _ = cached(options.data, options.cache)
    forest = fit(examples, options.seed, good_odds=GOOD_ODDS, least_leaf=LEAST_LEAF)
    about = {
        "made_by": "examples/train_judge.py", "trees": TREES, "depth": DEPTH, "seed": options.seed,
        "good_odds": GOOD_ODDS, "least_leaf": LEAST_LEAF,
        "good_windows": int(examples.good_W.sum()), "bad_windows": int((~examples.good_W).sum()),
        "songs": len(np.unique(examples.song_W)),
    }  # fmt: skip
    judge = save_judge(options.out, forest, about, force=True)
    size = sum(p.stat().st_size for p in options.out.iterdir()) / 2**20
    print(f"{options.out}: {judge.id}, {len(forest.feature_K)} nodes, {size:.2f} MB, {about}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
