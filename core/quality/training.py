"""Fitting a judge: scikit-learn grows the trees, nothing of it is kept but their numbers.

Shapes: W windows of all recordings, F features.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mgen.core.audio import require_usable, sha256_file, stream_mono
from mgen.core.errors import (
    AudioError,
    InputError,
    InputNotFoundError,
    MgenError,
    MissingDependencyError,
)
from mgen.core.quality.features import N_FEATURES, RATE, WINDOW_SAMPLES, QualityMeter
from mgen.core.quality.forest import LEAF, Forest, from_sklearn

TREES, DEPTH = 100, 12
_WORDS = {"good": True, "1": True, "bad": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One line of a list of labels: a recording, or the five seconds from `start_s`."""

    path: Path
    good: bool
    line: int
    start_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Windows with their labels. `song_W` tells which windows must not be split apart, `weight_W`
    lets every labelled recording count the same, however long it is.
    """

    features_WF: npt.NDArray[np.float32]
    good_W: npt.NDArray[np.bool_]
    song_W: npt.NDArray[np.int64]
    weight_W: npt.NDArray[np.float64]

    @property
    def enough(self) -> bool:
        """Whether two songs of each kind are there, so that some can be held out."""
        return all(len(np.unique(self.song_W[self.good_W == kind])) >= 2 for kind in (True, False))

    def where(self, chosen_W: npt.NDArray[Any]) -> Examples:
        """The windows that a mask, or a list of rows, chooses."""
        return Examples(
            self.features_WF[chosen_W], self.good_W[chosen_W], self.song_W[chosen_W],
            self.weight_W[chosen_W],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardLabel:
    """What was heard of one label; `reason` says why nothing was."""

    label: Label
    features_WF: npt.NDArray[np.float32]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How well judges do on recordings that they have not seen, recording by recording."""

    accuracy: float
    auc: float
    recordings: int
    folds: int


def read_labels(path: Path) -> list[Label]:
    """Read `path,label[,start_s]` with a header line; paths count from the file's own folder.

    Raises
    ------
    InputNotFoundError
        If the file is not there.
    InputError
        If it has no such columns, a label is none of good, bad, 1, 0, a time is no number, or
        fewer than two recordings are good or bad.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: not found; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text in UTF-8; save it as CSV (UTF-8)") from None
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = [(name or "").strip().lower() for name in rows.fieldnames or []]
    if "path" not in header or "label" not in header:
        raise InputError(f"{path}: the first line must name the columns: path,label[,start_s]")
    rows.fieldnames = header
    labels = [_label(path, rows.line_num, row) for row in rows if any(row.values())]
    for good, word in ((True, "good"), (False, "bad")):
        count = len({one.path for one in labels if one.good is good})
        if count < 2:
            raise InputError(
                f"{path}: {count} recordings are labelled {word}; label at least 2 of each kind"
            )
    return labels


def _label(where: Path, line: int, row: dict[str, str | None]) -> Label:
    name, word = (row.get("path") or "").strip(), (row.get("label") or "").strip()
    if not name:
        raise InputError(f"{where}, line {line}: no path")
    if word.lower() not in _WORDS:
        raise InputError(f"{where}, line {line}: label '{word}'; write good or bad (or 1, 0)")
    start = (row.get("start_s") or "").strip()
    try:
        start_s = float(start) if start else None
    except ValueError:
        start_s = float("nan")
    if start_s is not None and not 0.0 <= start_s < float("inf"):
        raise InputError(f"{where}, line {line}: start_s '{start}'; write seconds from the start")
    path = where.parent / Path(name).expanduser()
    return Label(path=path, good=_WORDS[word.lower()], line=line, start_s=start_s)


def hear_labels(labels: Sequence[Label]) -> Generator[HeardLabel]:
    """Compute the features of each labelled recording, in order; what cannot be read says why."""
    for label in labels:
        try:
            features_WF, reason = hear(label.path, label.start_s), ""
        except (MgenError, OSError) as error:
            features_WF = np.zeros((0, 0), np.float32)
            reason = str(error).removeprefix(f"{label.path}: ")
        yield HeardLabel(label=label, features_WF=features_WF, reason=reason)


def hear(path: Path, start_s: float | None = None) -> npt.NDArray[np.float32]:
    """Features of a whole recording (W, F), or of the one window that begins at `start_s`.

    Raises
    ------
    AudioError
        If it cannot be read, is silent, or ends before `start_s`.
    """
    first = None if start_s is None else round(start_s * RATE)
    meter, n_samples, peak = QualityMeter(), 0, 0.0
    for block in stream_mono(path, RATE):
        at, n_samples = n_samples, n_samples + len(block)
        if first is not None:
            block = block[max(0, first - at) : max(0, first + WINDOW_SAMPLES - at)]
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        meter.push(block)
        if first is not None and n_samples >= first + WINDOW_SAMPLES:
            break
    if first is not None and n_samples - first < RATE:
        raise AudioError(f"{path}: ends less than a second after {start_s:g} s")
    require_usable(path, duration_s=n_samples / RATE, peak=peak)
    return meter.finish()[0]


def gather(heard: Sequence[HeardLabel]) -> Examples:
    """Examples of all labels that could be heard; equal contents count as one song."""
    heard = [one for one in heard if not one.reason]
    if not heard:
        empty = np.zeros(0)
        return Examples(np.zeros((0, N_FEATURES), np.float32), empty > 0, empty.astype(int), empty)
    songs: dict[str, int] = {}
    song = [songs.setdefault(sha256_file(one.label.path), len(songs)) for one in heard]
    counts = [len(one.features_WF) for one in heard]
    return Examples(
        np.concatenate([one.features_WF for one in heard]),
        np.repeat([one.label.good for one in heard], counts),
        np.repeat(song, counts),
        np.repeat(1.0 / np.maximum(counts, 1), counts),
    )


def require_trainer() -> None:
    """Raise MissingDependencyError where scikit-learn is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDependencyError(
            "fitting a judge needs scikit-learn: pip install 'mgen[train]'"
        )


def fit(
    examples: Examples,
    seed: int = 0,
    *,
    good_odds: float = 1.0,
    least_leaf: int = 1,
    asked: float | None = None,
) -> Forest:
    """Fit extremely randomised trees (Geurts et al. 2006): 100, of depth 12, classes balanced.

    `good_odds` above 1 leans towards good: every leaf's odds are multiplied by it.
    A leaf holds at least `least_leaf` windows. Each node chooses among a share `asked` of the
    features, or among the square root of their number.

    Raises
    ------
    MissingDependencyError
        If scikit-learn is not installed.
    """
    require_trainer()
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        TREES,
        max_depth=DEPTH,
        class_weight="balanced_subsample",
        random_state=seed,
        n_jobs=1,
        min_samples_leaf=least_leaf,
        max_features=asked or "sqrt",
    )
    model.fit(examples.features_WF, examples.good_W.astype(int), examples.weight_W)
    return lean(from_sklearn(model), good_odds)


def lean(forest: Forest, good_odds: float) -> Forest:
    """The forest with the odds of good in every leaf multiplied, as if so many more were good."""
    leaf_K = forest.feature_K == LEAF
    p_K = forest.value_K
    return replace(
        forest, value_K=np.where(leaf_K, good_odds * p_K / (good_odds * p_K + 1 - p_K), p_K)
    )


def cross_validate(examples: Examples, seed: int = 0, folds: int = 5) -> Held:
    """Fit on some songs and ask about the others, until every song was asked about once.

    A recording's score is the mean over its windows; accuracy is at 0.55.
    """
    from mgen.core.quality.verdict import THRESHOLD

    songs = np.unique(examples.song_W)
    fold_of = np.zeros(songs.max() + 1, int)
    kinds = np.array([examples.good_W[examples.song_W == song].any() for song in songs])
    rng = np.random.default_rng(seed)
    folds = min(folds, *(int((kinds == kind).sum()) for kind in (True, False)))
    for kind in (True, False):  # each fold has songs of both kinds
        mine = rng.permutation(songs[kinds == kind])
        fold_of[mine] = np.arange(len(mine)) % folds
    score_W = np.zeros(len(examples.good_W))
    for fold in range(folds):
        asked_W = fold_of[examples.song_W] == fold
        forest = fit(examples.where(~asked_W), seed)
        score_W[asked_W] = forest.predict(examples.features_WF[asked_W])
    keys = np.stack([examples.song_W, examples.good_W], axis=1)
    _, recording_W = np.unique(keys, axis=0, return_inverse=True)
    counts = np.bincount(recording_W.ravel())
    score = np.bincount(recording_W.ravel(), score_W) / counts
    good = np.bincount(recording_W.ravel(), examples.good_W) / counts > 0.5
    return Held(
        accuracy=float(((score >= THRESHOLD) == good).mean()), auc=roc_auc(score, good),
        recordings=len(score), folds=folds,
    )  # fmt: skip


def roc_auc(score: npt.NDArray[np.floating], good: npt.NDArray[np.bool_]) -> float:
    """Probability that a good one scores above a bad one, ties counted half (Mann-Whitney)."""
    from scipy.stats import rankdata

    n_good, n_bad = int(good.sum()), int((~good).sum())
    if not n_good or not n_bad:
        return float("nan")
    above = rankdata(score)[good].sum() - n_good * (n_good + 1) / 2
    return float(above / (n_good * n_bad))
