"""Fit the shipped judge: python examples/train_judge.py DATA [-o core/weights/judge].

DATA holds manifest.csv (path, kind, split, ...) and midi/. Only what is of split `train` is heard.
Good: songs of kind recorded, produced, sequenced-render, synthetic pieces (synthetic_music.py) and
single instruments and drum kits played from MIDI (solo_music.py), as they are and after what does
no harm (gain, tone, speed, room, a limiter, a faint noise, a decent coder, two songs at once).
Bad: excerpts of the same with one or two defects at random strengths, half of them harmlessly
treated afterwards, the simulated old records, the degraded items, and the genuine old record.

How far the judge leans towards good follows a rule (`operating_point`), on `train` alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from solo_music import solo, solo_files
from synthetic_music import synthesise

from mgen.core.audio import read_mono
from mgen.core.quality import DEGRADATIONS, THRESHOLD, QualityMeter, degrade, save_judge
from mgen.core.quality.degradations import coded
from mgen.core.quality.features import RATE, WINDOW_SAMPLES
from mgen.core.quality.forest import Forest
from mgen.core.quality.training import DEPTH, TREES, Examples, fit, roc_auc

GOOD_KINDS = {"recorded", "produced", "sequenced-render"}
BAD_KINDS = {"simulated-old-record", "degraded"}
GENUINE = {"old-recording", "old-recording-restored"}
EXCERPT = WINDOW_SAMPLES
REPEATS = {"song": 2, "synthetic": 1, "solo": 1}  # excerpts of each piece with each defect
COPIES = 2  # harmless versions of each piece
LONGEST = 40 * RATE  # of one piece
SYNTHETIC, SOLO = 40, 48
MILDEST = 0.1  # weakest strength that is taught; an old record is to be refused however little worn
SECOND = 0.25  # share of excerpts with a second defect
TREATED = 0.55  # share of excerpts that went through something harmless after the defect
KEPT = 0.95  # share of the good songs of `train` that are to be kept, each unheard
MADE_BY = {  # manifest items: which of our kinds they are, for leaving that kind out
    "simulated old record": "old-record", "hard clipping": "clipping", "MP3": "low-bitrate",
    "8-bit": "few-bits", "dropouts": "dropouts", "hum": "hum",
}  # fmt: skip
LEAST_LEAF = 5  # windows
ASKED = 0.4  # share of the features that each node chooses among
SOUNDFONT = "FluidR3_GM.sf2"


@dataclass(frozen=True, slots=True)
class Found:
    """Windows of one excerpt: features, whether good, of which piece, the defects in them."""

    features: np.ndarray
    good: bool
    song: int
    kinds: str = ""
    source: str = "song"


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
    from scipy.signal import butter, fftconvolve, sosfilt

    out = sound.astype(np.float64)
    if rng.random() < 0.3:  # played faster or slower, by up to a fifth
        speed = rng.uniform(0.83, 1.2)
        out = np.interp(np.arange(0, len(out) - 1, speed), np.arange(len(out)), out)
    if rng.random() < 0.15:  # a room
        tail = rng.standard_normal(RATE // 2) * np.exp(
            -np.arange(RATE // 2) / rng.uniform(500, 4e3)
        )
        tail *= rng.uniform(0.1, 0.6) / np.sqrt(np.sum(tail**2))
        out = out + fftconvolve(out, tail)[: len(out)]
    if rng.random() < 0.25:  # the noise of a decent microphone
        level = np.sqrt(np.mean(out**2)) * 10 ** (rng.uniform(-65, -45) / 20)
        out = out + level * rng.standard_normal(len(out))
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
    """Five seconds from anywhere in a song that are not silent."""
    for _ in range(8):
        start = int(rng.integers(0, max(1, len(sound) - EXCERPT)))
        part = sound[start : start + EXCERPT]
        if np.sqrt(np.mean(part**2)) > 0.003:
            break
    return part


def spoilt(sound: np.ndarray, number: int, source: str, rng: np.random.Generator) -> list[Found]:
    """Excerpts of a piece with defects."""
    bad = []
    for kind in DEGRADATIONS:
        for repeat in range(REPEATS[source] * (2 if kind == "old-record" else 1)):
            kinds = [kind]
            if rng.random() < SECOND:
                kinds.append(str(rng.choice([k for k in DEGRADATIONS if k != kind])))
            part = excerpt(sound, rng)
            if rng.random() < 0.3:
                part = harmless(part, rng)
            for one in kinds:
                strength = rng.uniform(0.0 if one == "old-record" else MILDEST, 1.0)
                part = degrade(part, one, strength, seed=number * 100 + repeat)
            if rng.random() < TREATED:
                part = harmless(part, rng)
            bad.append(Found(features(part), False, number, " ".join(kinds), source))
    return bad


class Pieces:
    """All good pieces by number: songs, then synthetic ones, then single instruments."""

    def __init__(self, data: Path, soundfonts: Path) -> None:
        self.data, self.soundfonts = data, soundfonts
        self.rows = songs(data, {"train"}, GOOD_KINDS)
        self.solos = solo_files(data, SOLO)

    def __len__(self) -> int:
        return len(self.rows) + SYNTHETIC + SOLO

    def piece(self, number: int) -> tuple[np.ndarray, str]:
        """Sound, and whether it is a song, synthetic or solo."""
        if number < len(self.rows):
            return read_mono(self.data / self.rows[number]["path"], RATE), "song"
        if number < len(self.rows) + SYNTHETIC:
            return synthesise(number), "synthetic"
        path, what = self.solos[number - len(self.rows) - SYNTHETIC]
        return solo(path, what, next(self.soundfonts.rglob(SOUNDFONT)), number), "solo"

    def examples(self, first: int, stop: int) -> Iterator[Found]:
        """Examples made of some pieces; each piece's depend on it and the one before it alone."""
        before = self.piece(first - 1)[0] if first else np.zeros(0, np.float32)
        for number in range(first, stop):
            rng = np.random.default_rng([8, number])
            whole, source = self.piece(number)
            start = int(rng.integers(0, max(1, len(whole) - LONGEST)))
            sound = whole[start : start + LONGEST]
            if len(sound) < EXCERPT:
                continue
            if number % 10 == 0:
                print(f"{number}/{len(self)}", file=sys.stderr)
            yield Found(features(sound), True, number, "", source)
            for _ in range(COPIES):
                mixed = sound.copy()
                if rng.random() < 0.25:
                    n = min(len(before), len(mixed))
                    mixed[:n] += before[:n] * rng.uniform(0.3, 1.0)
                mixed = mixed[int(rng.integers(0, max(1, len(mixed) - LONGEST * 2 // 3))) :]
                treated = harmless(mixed[: LONGEST * 2 // 3], rng)
                yield Found(features(treated), True, number, "harmless", source)
            before = whole
            yield from spoilt(sound, number, source, rng)

    def worn(self) -> Iterator[Found]:
        """The simulated, degraded and genuine items of `train`."""
        names = {Path(row["path"]).name: i for i, row in enumerate(self.rows)}
        for i, row in enumerate(songs(self.data, {"train"}, BAD_KINDS | GENUINE)):
            kind = next((k for word, k in MADE_BY.items() if word in row["title"]), "genuine")
            of = names.get(Path(row["pair_of"].split(" @")[0]).name, len(self) + i)
            sound = read_mono(self.data / row["path"], RATE)
            yield Found(features(sound), False, of, kind)


@dataclass(frozen=True, slots=True)
class Taught:
    """What the judge is fitted on, and what is known of each window."""

    examples: Examples
    kinds: np.ndarray
    source: np.ndarray


def gathered(found: list[Found]) -> Taught:
    """All windows, weighed so that each kind of defect counts the same, old records twice."""
    counts = [len(one.features) for one in found]

    def column(values: list[object]) -> np.ndarray:
        return np.repeat(np.array(values), counts)

    kinds, source = column([f.kinds for f in found]), column([f.source for f in found])
    good, song = column([f.good for f in found]), column([f.song for f in found])
    first = column([f.kinds.split(" ")[0] for f in found])
    weight = np.ones(len(good))
    for kind in np.unique(first[~good]):
        mine = ~good & (first == kind)
        share = {"old-record": 2.0, "genuine": 0.25}.get(kind, 1.0)
        weight[mine] = share * 1000 / mine.sum()
    stacked = np.concatenate([f.features for f in found])
    return Taught(Examples(stacked, good, song, weight), kinds, source)


@cache
def taught(data: Path, held: Path | None, soundfonts: Path) -> Taught:
    """Everything to learn from, or what an earlier run left in a file."""
    if held is not None and held.exists():
        arrays = np.load(held)
        names = ("features", "good", "song", "weight")
        return Taught(Examples(*(arrays[n] for n in names)), arrays["kinds"], arrays["source"])
    pieces = Pieces(data, soundfonts)
    found = gathered([*pieces.examples(0, len(pieces)), *pieces.worn()])
    if held is not None:
        keep(found, held)
    return found


def keep(found: Taught, path: Path) -> None:
    """Write what `taught` reads."""
    some = found.examples
    np.savez(
        path, features=some.features_WF, good=some.good_W, song=some.song_W, weight=some.weight_W,
        kinds=found.kinds, source=found.source,
    )  # fmt: skip


def fitted(examples: Examples, odds: float, seed: int) -> Forest:
    """Trees as the shipped judge has them."""
    return fit(examples, seed, good_odds=odds, least_leaf=LEAST_LEAF, asked=ASKED)


def unheard(found: Taught, seed: int, folds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Songs of `train`, and each window's probability by a judge that heard no other of its song.

    Synthetic and solo pieces are always learned from.
    """
    some = found.examples
    of_song = found.source == "song"
    numbers = np.random.default_rng(seed).permutation(np.unique(some.song_W[of_song]))
    p_W = np.full(len(some.good_W), np.nan)
    for fold in range(folds):
        asked = np.isin(some.song_W, numbers[fold::folds])
        p_W[asked] = fitted(some.where(~asked), 1.0, seed).predict(some.features_WF[asked])
    return numbers, p_W


def operating_point(found: Taught, seed: int) -> tuple[float, str]:
    """The smallest odds at which KEPT of the good songs of `train` are kept, none of them heard.

    A song is its untouched part. Also a line on how well the judges of the five folds did.
    """
    some = found.examples
    numbers, p_W = unheard(found, seed)

    def score(mine: np.ndarray, odds: float) -> np.ndarray:
        p = np.clip(p_W[mine], 1e-6, 1 - 1e-6)
        of = some.song_W[mine]
        led = odds * p / (odds * p + 1 - p)
        return np.array([led[of == n].mean() for n in numbers if (of == n).any()])

    clean = some.good_W & (found.kinds == "") & (found.source == "song")
    for odds in np.round(np.arange(1.0, 8.01, 0.05), 2):
        if (score(clean, odds) >= THRESHOLD).mean() >= KEPT:
            break
    good = score(clean, odds)
    words = [f"odds {odds:.2f}, good kept {100 * (good >= THRESHOLD).mean():.1f} %"]
    first = np.array([k.split(" ")[0] for k in found.kinds])
    for kind in DEGRADATIONS:
        bad = score(~some.good_W & (first == kind) & (found.source == "song"), odds)
        labels = np.repeat([True, False], [len(good), len(bad)])
        area = roc_auc(np.concatenate([good, bad]), labels)
        words.append(f"{kind} {100 * (bad < THRESHOLD).mean():.0f} % {area:.3f}")
    return float(odds), "; ".join(words)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this script and evaluate_judge.py share."""
    parser.add_argument("data", type=Path, help="folder with manifest.csv and midi/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="an .npz to keep what is learned from in")
    parser.add_argument("--soundfonts", type=Path, default=Path("/usr/share/sounds"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("-o", "--out", type=Path, default=Path("core/weights/judge"))
    options = parser.parse_args()
    if "MP3" not in soundfile.available_formats():
        print("libsndfile was built without MP3; low bitrates cannot be made", file=sys.stderr)
        return 1
    found = taught(options.data, options.cache, options.soundfonts)
    odds, held = operating_point(found, options.seed)
    print(f"train, each song unheard: {held}")
    examples = found.examples
    forest = fitted(examples, odds, options.seed)
    about = {
        "made_by": "examples/train_judge.py", "trees": TREES, "depth": DEPTH, "seed": options.seed,
        "good_odds": odds, "least_leaf": LEAST_LEAF, "asked": ASKED,
        "good_windows": int(examples.good_W.sum()), "bad_windows": int((~examples.good_W).sum()),
        "pieces": len(np.unique(examples.song_W)),
    }  # fmt: skip
    judge = save_judge(options.out, forest, about, force=True)
    size = sum(p.stat().st_size for p in options.out.iterdir()) / 2**20
    print(f"{options.out}: {judge.id}, {len(forest.feature_K)} nodes, {size:.2f} MB, {about}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
