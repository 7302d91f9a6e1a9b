"""Measure the quality judge on songs that it never heard: python examples/evaluate_judge.py DATA.

DATA holds manifest.csv (path, kind, split, genre, ...) and midi/; songs of split `dev` and `extra`
are asked about, `train` is only what judges are fitted on. Prints Markdown tables:

1. the shipped judge on whole songs, and on 30 s of each with one defect at a random strength, as it
   is and (every third song) after a decent coder and another level;
2. the same defects, each judged by one that was fitted without it (and, for what an old record is
   made of, without simulated old records);
3. genuine old recordings (one of `train`, by a judge fitted without it), and simulated and degraded
   items that others made;
4. music that is meant to sound so; songs of `train` among it are judged without having been heard.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from solo_music import solo, solo_files
from train_judge import (
    BAD_KINDS,
    GENUINE,
    GOOD_KINDS,
    SOUNDFONT,
    add_options,
    fitted,
    songs,
    taught,
)

from mgen.core.audio import read_mono
from mgen.core.quality import (
    DEGRADATIONS,
    THRESHOLD,
    Judge,
    QualityMeter,
    degrade,
    load_judge,
    shipped_judge,
    weigh,
)
from mgen.core.quality.degradations import coded
from mgen.core.quality.features import RATE
from mgen.core.quality.training import roc_auc

Heard = tuple[np.ndarray, np.ndarray]
OLD_RECORD_HAS = {"crackle", "hiss", "band-limit", "wow-flutter"}
STRENGTHS = (0.25, 1.0)
SOUNDFONTS = (SOUNDFONT, "MuseScore_General_Full.sf3")  # the second is new to the judge
SOLO = 24  # pieces from `dev` MIDI
CODED = "coded "  # before a kind: heard after a coder
MEANT = {  # beginnings of genre or path
    "lo-fi": ("lofi",), "chiptune": ("chiptune",), "chiptune from BeepBox": ("chiptune-beepbox",),
    "game MIDI (OpenMSX)": ("audio/openmsx",), "ambient": ("ambient",),
    "solo piano, music box": (
        "audio/holizna/001-01", "audio/holizna/001-02", "audio/holizna/001-04",
        "audio/holizna/001-06", "audio/mcl/ambience_diminixed-pianowtune02",
        "audio/librosa/Dance_of_the_Sugar",
    ),
}  # fmt: skip


def hear(sound: np.ndarray) -> Heard:
    meter = QualityMeter()
    meter.push(sound)
    return meter.finish()


def wilson(hits: int, n: int) -> str:
    """95 % interval of a share (Wilson 1927)."""
    if not n:
        return "-"
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return f"{100 * p:.0f} % ({max(0, 100 * (middle - half)):.0f}-{100 * (middle + half):.0f})"


def bootstrap(values: np.ndarray, seed: int = 0) -> str:
    """95 % interval of a mean, over resampled windows."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (2000, len(values))).mean(axis=1)
    return f"{np.quantile(means, 0.025):.2f}-{np.quantile(means, 0.975):.2f}"


def groups_of(row: dict[str, str]) -> list[str]:
    return [
        name for name, starts in MEANT.items()
        if row["genre"].startswith(starts) or row["path"].startswith(starts)
    ]  # fmt: skip


def listen(data: Path, soundfonts: Path) -> tuple[list[Heard], dict[str, list[Heard]]]:
    """Whole held-out songs, 30 s of each untouched (kind ''), and with each defect; solo music."""
    rows = songs(data, {"dev", "extra"}, GOOD_KINDS)
    whole: list[Heard] = []
    parts: dict[str, list[Heard]] = defaultdict(list)
    for number, row in enumerate(rows):
        print(f"{number + 1}/{len(rows)} {row['path']}", file=sys.stderr)
        for kind, one in versions(read_mono(data / row["path"], RATE), number):
            (whole if kind == WHOLE else parts[kind]).append(one)
    for kind, one in solos(data, soundfonts):
        parts[kind].append(one)
    return whole, parts


def versions(sound: np.ndarray, number: int) -> Iterator[tuple[str, Heard]]:
    """A song as a whole, and its parts by what was done to them."""
    yield WHOLE, hear(sound)
    start = max(0, len(sound) // 2 - 15 * RATE)
    part = sound[start : start + 30 * RATE]
    for kind in ["", *DEGRADATIONS]:
        worse = part
        if kind:
            strength = np.random.default_rng([number, len(kind)]).uniform(*STRENGTHS)
            worse = degrade(part, kind, strength, seed=number)
        yield kind, hear(worse)
        if number % 3 == 0:
            yield CODED + kind, hear(passed_on(worse, number))


def solos(data: Path, soundfonts: Path) -> Iterator[tuple[str, Heard]]:
    """Single instruments from MIDI of `dev`."""
    for number, (path, what) in enumerate(solo_files(data, SOLO, "dev")):
        sound = solo(path, what, next(soundfonts.rglob(SOUNDFONTS[number % 2])), number)
        if len(sound) > 10 * RATE:
            yield f"{SOLO_NAMES[what]} (dev MIDI)", hear(sound)


WHOLE = "whole"
SOLO_NAMES = {"drums": "drums alone", "part": "one part alone", "all": "one instrument, all parts"}


def passed_on(sound: np.ndarray, number: int) -> np.ndarray:
    """What a defect has been through when it is met: another level and a decent coder."""
    rng = np.random.default_rng([3, number])
    quiet = sound * 10 ** (rng.uniform(-12, -1) / 20)
    if number % 2 == 0:
        return coded(quiet, "MP3", 0.5).astype(np.float32)  # 80 kbit/s
    return coded(quiet, "OGG", rng.uniform(0.3, 0.7)).astype(np.float32)


def heard_before(options: argparse.Namespace) -> tuple[list[Heard], dict[str, list[Heard]]]:
    """`listen`, or what an earlier run of it left in a file."""
    cache = options.heard
    if cache is not None and cache.exists():
        held = np.load(cache)
        features, loud = (np.split(held[n], held["ends"][:-1]) for n in ("features", "loud"))
        parts: dict[str, list[Heard]] = defaultdict(list)
        for kind, *one in zip(held["kinds"], features, loud, strict=True):
            parts[str(kind)].append((one[0], one[1]))
        return parts.pop(WHOLE), parts
    whole, parts = listen(options.data, options.soundfonts)
    if cache is not None:
        kinds = [WHOLE] * len(whole) + [kind for kind, all_ in parts.items() for _ in all_]
        every = [*whole, *(one for all_ in parts.values() for one in all_)]
        np.savez(
            cache, features=np.concatenate([x for x, _ in every]), kinds=kinds,
            loud=np.concatenate([x for _, x in every]),
            ends=np.cumsum([len(x) for x, _ in every]),
        )  # fmt: skip
    return whole, parts


def scores(judge: Judge, heard: list[Heard]) -> np.ndarray:
    return np.array([weigh(judge, *one).quality for one in heard])


def without(options: argparse.Namespace, kind: str = "", avoid: set[int] | None = None) -> Judge:
    """A judge fitted as the shipped one is, without a kind of defect, or without some songs."""
    found = taught(options.data, options.cache, options.soundfonts)
    out = {kind} | ({"old-record"} if kind in OLD_RECORD_HAS else set())
    keep = np.array([not out & set(k.split()) for k in found.kinds])
    keep &= ~np.isin(found.examples.song_W, sorted(avoid or ()))
    odds = load_judge(shipped_judge()).about["good_odds"]
    return Judge(fitted(found.examples.where(keep), odds, options.seed), "refitted", {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--model", type=Path, default=None, help="[the shipped judge]")
    parser.add_argument("--heard", type=Path, help="an .npz to keep what was heard in")
    parser.add_argument("--fast", action="store_true", help="without the judges fitted anew")
    options = parser.parse_args()
    judge = load_judge(options.model or shipped_judge())
    rows = songs(options.data, {"dev", "extra"}, GOOD_KINDS)
    whole, parts = heard_before(options)
    whole_scores, clean = scores(judge, whole), scores(judge, parts[""])
    kept = int((whole_scores >= THRESHOLD).sum())
    print(f"{judge.id}\n\nwhole songs kept: {kept} of {len(rows)}, {wilson(kept, len(rows))}")
    for row, score in zip(rows, whole_scores, strict=True):
        if score < THRESHOLD:
            print(f"  refused: {score:.2f} {row['path']} ({row['genre']}, {row['split']})")
    print_defects(judge, parts, clean, options)
    print_found(judge, options)
    print_meant(judge, rows, whole_scores, parts, options)
    return 0


def print_defects(
    judge: Judge, parts: dict[str, list[Heard]], clean: np.ndarray, options: argparse.Namespace
) -> None:
    print("\n| defect | refused | AUC | coded: refused | AUC | left out: refused | AUC |")
    print("|---|---|---|---|---|---|---|")
    bad, coded_bad = {}, {}
    left_bad, left_good = [], []
    coded_clean = scores(judge, parts[CODED])
    for kind in DEGRADATIONS:
        bad[kind] = scores(judge, parts[kind])
        coded_bad[kind] = scores(judge, parts[CODED + kind])
        line = f"| {kind} |{cells(clean, bad[kind])}{cells(coded_clean, coded_bad[kind])}"
        if not options.fast:
            other = without(options, kind)
            unseen, still = scores(other, parts[kind]), scores(other, parts[""])
            left_bad.append((unseen < THRESHOLD).mean())
            left_good.append((still >= THRESHOLD).mean())
            line += cells(still, unseen)
        print(line, flush=True)
    print(f"\nall kinds: {summary(clean, bad)}\ncoded: {summary(coded_clean, coded_bad)}")
    if left_bad:
        both = (np.mean(left_bad) + np.mean(left_good)) / 2
        print(
            f"left out, mean over kinds: balanced accuracy {100 * both:.1f} %, good kept"
            f" {100 * np.mean(left_good):.1f} %, bad refused {100 * np.mean(left_bad):.1f} %"
        )


def cells(good: np.ndarray, bad: np.ndarray) -> str:
    return f" {wilson(int((bad < THRESHOLD).sum()), len(bad))} | {auc(good, bad):.3f} |"


def summary(good: np.ndarray, by_kind: dict[str, np.ndarray]) -> str:
    bad = np.concatenate(list(by_kind.values()))
    hits, recall = (good >= THRESHOLD).mean(), (bad < THRESHOLD).mean()
    return (
        f"balanced accuracy {100 * (hits + recall) / 2:.1f} %, good kept {100 * hits:.1f} %,"
        f" bad refused {100 * recall:.1f} %, AUC {auc(good, bad):.3f}"
    )


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    labels = np.repeat([True, False], [len(good), len(bad)])
    return roc_auc(np.concatenate([good, bad]), labels)


def print_found(judge: Judge, options: argparse.Namespace) -> None:
    print("\n| recording | quality | 95 % of the mean | windows refused | verdict |")
    print("|---|---|---|---|---|")
    genuine = songs(options.data, {"train", "dev", "extra"}, GENUINE)
    for row in genuine + songs(options.data, {"dev", "extra"}, BAD_KINDS):
        asked, note = judge, ""
        if row["split"] == "train":
            if options.fast:
                continue
            asked, note = without(options, "genuine"), ", judge fitted without it"
        found, loud = hear(read_mono(options.data / row["path"], RATE))
        raw = asked.probabilities(found)
        quality = weigh(asked, found, loud).quality
        refused = wilson(int((raw < THRESHOLD).sum()), len(raw))
        verdict = "kept" if quality >= THRESHOLD else "refused"
        print(
            f"| {row['title']} ({row['split']}{note}) | {quality:.2f} | {bootstrap(raw)} |"
            f" {refused} | {verdict} |"
        )


def print_meant(
    judge: Judge, rows: list[dict[str, str]], whole: np.ndarray, parts: dict[str, list[Heard]],
    options: argparse.Namespace,
) -> None:  # fmt: skip
    print("\n| meant to sound so | kept | lowest | median |\n|---|---|---|---|")
    found: dict[str, list[float]] = defaultdict(list)
    for row, score in zip(rows, whole, strict=True):
        for group in groups_of(row):
            found[f"{group} (dev, extra)"].append(score)
    for name, heard in parts.items():
        if name.endswith("(dev MIDI)"):
            found[name] = list(scores(judge, heard))
    if not options.fast:
        train = songs(options.data, {"train"}, GOOD_KINDS)
        for group in MEANT:
            mine = {i for i, row in enumerate(train) if group in groups_of(row)}
            if not mine:
                continue
            other = without(options, avoid=mine)
            heard = [hear(read_mono(options.data / train[i]["path"], RATE)) for i in sorted(mine)]
            found[f"{group} (train, group left out)"] = list(scores(other, heard))
    for name, values in sorted(found.items()):
        kept = int((np.array(values) >= THRESHOLD).sum())
        print(f"| {name} | {kept} of {len(values)} | {min(values):.2f} | {np.median(values):.2f} |")


if __name__ == "__main__":
    sys.exit(main())
