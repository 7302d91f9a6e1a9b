"""Measure the quality judge on songs that it never heard: python examples/evaluate_judge.py DATA.

DATA holds manifest.csv (path, kind, split, genre, ...); songs of split `dev` and `extra` are asked
about, `train` is only what judges are fitted on. Prints Markdown tables:

1. the shipped judge on whole songs, and on 30 s of each with one defect at a random strength;
2. the same defects, each judged by one that was fitted without it (and, for what an old record is
   made of, without simulated old records);
3. genuine old recordings, and simulated and degraded items that others made;
4. music that is meant to sound so; songs of `train` among it are judged without having been heard.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from train_judge import BAD_KINDS, GOOD_KINDS, GOOD_ODDS, LEAST_LEAF, cached, songs

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
from mgen.core.quality.features import RATE
from mgen.core.quality.training import fit, roc_auc

Heard = tuple[np.ndarray, np.ndarray]
OLD_RECORD_HAS = {"crackle", "hiss", "band-limit", "wow-flutter"}
STRENGTHS = (0.25, 1.0)
MEANT = {  # beginnings of genre or path
    "lo-fi": ("lofi",), "chiptune": ("chiptune",),
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


def listen(data: Path) -> tuple[list[Heard], dict[str, list[Heard]]]:
    """Whole held-out songs, 30 s of each untouched (kind ''), and with each defect."""
    rows = songs(data, {"dev", "extra"}, GOOD_KINDS)
    whole: list[Heard] = []
    parts: dict[str, list[Heard]] = defaultdict(list)
    for number, row in enumerate(rows):
        sound = read_mono(data / row["path"], RATE)
        print(f"{number + 1}/{len(rows)} {row['path']}", file=sys.stderr)
        whole.append(hear(sound))
        start = max(0, len(sound) // 2 - 15 * RATE)
        part = sound[start : start + 30 * RATE]
        parts[""].append(hear(part))
        for kind in DEGRADATIONS:
            strength = np.random.default_rng([number, len(kind)]).uniform(*STRENGTHS)
            parts[kind].append(hear(degrade(part, kind, strength, seed=number)))
    return whole, parts


def heard_before(data: Path, cache: Path | None) -> tuple[list[Heard], dict[str, list[Heard]]]:
    """`listen`, or what an earlier run of it left in a file."""
    if cache is not None and cache.exists():
        held = np.load(cache)
        features, loud = (np.split(held[n], held["ends"][:-1]) for n in ("features", "loud"))
        parts: dict[str, list[Heard]] = defaultdict(list)
        for kind, *one in zip(held["kinds"], features, loud, strict=True):
            parts[str(kind)].append((one[0], one[1]))
        return parts.pop("whole"), parts
    whole, parts = listen(data)
    if cache is not None:
        kinds = ["whole"] * len(whole) + [kind for kind, all_ in parts.items() for _ in all_]
        every = [*whole, *(one for all_ in parts.values() for one in all_)]
        np.savez(
            cache, features=np.concatenate([x for x, _ in every]), kinds=kinds,
            loud=np.concatenate([x for _, x in every]),
            ends=np.cumsum([len(x) for x, _ in every]),
        )  # fmt: skip
    return whole, parts


def scores(judge: Judge, heard: list[Heard]) -> np.ndarray:
    return np.array([weigh(judge, *one).quality for one in heard])


def without(data: Path, cache: Path | None, kind: str = "", avoid: set[int] | None = None) -> Judge:
    """A judge fitted as the shipped one is, without a kind of defect, or without some songs."""
    examples, kinds = cached(data, cache)
    out = {kind} | ({"old-record"} if kind in OLD_RECORD_HAS else set())
    keep = np.array([not out & set(k.split()) for k in kinds])
    keep &= ~np.isin(examples.song_W, sorted(avoid or ()))
    forest = fit(examples.where(keep), good_odds=GOOD_ODDS, least_leaf=LEAST_LEAF)
    return Judge(forest, "refitted", {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv")
    parser.add_argument("--model", type=Path, default=None, help="[the shipped judge]")
    parser.add_argument("--cache", type=Path, help="train_judge.py's, so as not to hear again")
    parser.add_argument("--heard", type=Path, help="an .npz to keep what was heard in")
    parser.add_argument("--fast", action="store_true", help="without the judges fitted anew")
    options = parser.parse_args()
    judge = load_judge(options.model or shipped_judge())
    rows = songs(options.data, {"dev", "extra"}, GOOD_KINDS)
    whole, parts = heard_before(options.data, options.heard)
    whole_scores, clean = scores(judge, whole), scores(judge, parts[""])
    kept = int((whole_scores >= THRESHOLD).sum())
    print(f"{judge.id}\n\nwhole songs kept: {kept} of {len(rows)}, {wilson(kept, len(rows))}")
    for row, score in zip(rows, whole_scores, strict=True):
        if score < THRESHOLD:
            print(f"  refused: {score:.2f} {row['path']} ({row['genre']})")
    print_defects(judge, parts, clean, options)
    print_found(judge, options.data)
    print_meant(judge, rows, whole_scores, options)
    return 0


def print_defects(
    judge: Judge, parts: dict[str, list[Heard]], clean: np.ndarray, options: argparse.Namespace
) -> None:
    print("\n| defect | refused | AUC | left out: refused | AUC | good songs kept |")
    print("|---|---|---|---|---|---|")
    n, all_bad, left_bad, left_good = len(clean), [], [], []
    for kind in DEGRADATIONS:
        bad = scores(judge, parts[kind])
        all_bad.append(bad)
        line = f"| {kind} | {wilson(int((bad < THRESHOLD).sum()), n)} | {auc(clean, bad):.3f} |"
        if not options.fast:
            other = without(options.data, options.cache, kind)
            unseen, still = scores(other, parts[kind]), scores(other, parts[""])
            left_bad.append((unseen < THRESHOLD).mean())
            left_good.append((still >= THRESHOLD).mean())
            line += f" {wilson(int((unseen < THRESHOLD).sum()), n)} | {auc(still, unseen):.3f} |"
            line += f" {100 * left_good[-1]:.0f} % |"
        print(line, flush=True)
    bad = np.concatenate(all_bad)
    hits, recall = (clean >= THRESHOLD).mean(), (bad < THRESHOLD).mean()
    print(
        f"\nall kinds: balanced accuracy {100 * (hits + recall) / 2:.1f} %, good kept"
        f" {100 * hits:.1f} %, bad refused {100 * recall:.1f} %, AUC {auc(clean, bad):.3f}"
    )
    if left_bad:
        both = (np.mean(left_bad) + np.mean(left_good)) / 2
        print(f"left out, mean over kinds: balanced accuracy {100 * both:.1f} %")


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    labels = np.repeat([True, False], [len(good), len(bad)])
    return roc_auc(np.concatenate([good, bad]), labels)


def print_found(judge: Judge, data: Path) -> None:
    print("\n| recording | quality | 95 % of the mean | windows refused | verdict |")
    print("|---|---|---|---|---|")
    genuine = songs(data, {"train", "dev", "extra"}, {"old-recording", "old-recording-restored"})
    for row in genuine + songs(data, {"dev", "extra"}, BAD_KINDS):
        found, loud = hear(read_mono(data / row["path"], RATE))
        raw = judge.probabilities(found)
        quality = weigh(judge, found, loud).quality
        refused = wilson(int((raw < THRESHOLD).sum()), len(raw))
        verdict = "kept" if quality >= THRESHOLD else "refused"
        print(f"| {row['title']} | {quality:.2f} | {bootstrap(raw)} | {refused} | {verdict} |")


def print_meant(
    judge: Judge, rows: list[dict[str, str]], whole: np.ndarray, options: argparse.Namespace
) -> None:
    print("\n| meant to sound so | kept | lowest | median |\n|---|---|---|---|")
    found: dict[str, list[float]] = defaultdict(list)
    for row, score in zip(rows, whole, strict=True):
        for group in groups_of(row):
            found[f"{group} (dev, extra)"].append(score)
    if not options.fast:
        train = songs(options.data, {"train"}, GOOD_KINDS)
        for group in MEANT:
            mine = {i for i, row in enumerate(train) if group in groups_of(row)}
            other = without(options.data, options.cache, avoid=mine)
            heard = [hear(read_mono(options.data / train[i]["path"], RATE)) for i in sorted(mine)]
            found[f"{group} (train, group left out)"] = list(scores(other, heard))
    for name, values in sorted(found.items()):
        kept = int((np.array(values) >= THRESHOLD).sum())
        print(f"| {name} | {kept} of {len(values)} | {min(values):.2f} | {np.median(values):.2f} |")


if __name__ == "__main__":
    sys.exit(main())
