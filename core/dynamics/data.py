"""What a dynamics model learns from: windows of consecutive bars of one song, by seed and step.

All latents lie in memory as they are stored (float16: 2 KB a bar). A batch is a pure function of
seed and step, so a run that is resumed sees what an unbroken one sees. Whole songs are held out.

Letters: X bars of the corpus, S windows, B bars of a window, L tokens, D dims, A numbers of an
action.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgen.core.dynamics.spans import span_mask
from mgen.core.errors import StoreError
from mgen.core.tokenizer.data import held_out_songs

_STRIDE = 8
"""Windows have 8, 16, 24, ... bars, and the longest; one length a step, so that shapes are few."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BarRows:
    """Bars of one store or several, a row each.

    Attributes
    ----------
    z_XLD
        Latents, float16.
    bpm_X
        Tempo; not a number where it is not known.
    action_XA
        What the model is told of each bar's action, float32.
    single_XA
        The same of the largest of its weights (or its first code) alone.
    runs
        First row and the one past the last of usable bars that follow one another.
    owners
        The song of each run: the hash of its source.
    copies
        The copy of a song that each row is of, from 0.
    """

    z_XLD: npt.NDArray[np.float16]
    bpm_X: npt.NDArray[np.float32]
    action_XA: npt.NDArray[np.float32]
    single_XA: npt.NDArray[np.float32]
    runs: Sequence[tuple[int, int]]
    owners: Sequence[str]
    copies: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse columns that do not belong together."""
        n = len(self.z_XLD)
        columns = (self.bpm_X, self.action_XA, self.single_XA, self.copies)
        if any(len(column) != n for column in columns):
            raise ValueError("columns of bars differ in length")
        if len(self.runs) != len(self.owners) or any(not 0 <= a < b <= n for a, b in self.runs):
            raise ValueError(f"runs of bars reach beyond {n} bars, or have no owner")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """How windows are drawn.

    Attributes
    ----------
    bars
        Of the longest window.
    seed
        Of the draws, and of which songs are held out.
    held_out
        Share of the songs that is kept for validation; at least one where there are two.
    spans
        Share of the windows of which only spans of bars are written.
    """

    bars: int = 16
    seed: int = 0
    held_out: float = 0.05
    spans: float = 0.25


class TrainingBars:
    """Batches of windows.

    Attributes
    ----------
    rows, settings
        What it was made of.
    lengths
        Bars of windows, rising: one of them is drawn each step.
    train, held_out
        First rows of all windows, by their length.
    about
        What decides the batches, as plain JSON.
    """

    def __init__(self, rows: BarRows, settings: WindowSettings) -> None:
        """Find the windows.

        Raises
        ------
        StoreError
            If no window to learn from is there.
        """
        self.rows, self.settings = rows, settings
        self._usual_CLD = _means(rows.z_XLD, rows.copies)
        wanted = sorted({*range(_STRIDE, settings.bars, _STRIDE), settings.bars})
        lengths_of_runs = [last - first for first, last in rows.runs]
        able = {
            owner for owner, n in zip(rows.owners, lengths_of_runs, strict=True) if n >= wanted[0]
        }
        if not able:
            longest = max(lengths_of_runs, default=0)
            raise StoreError(
                f"no song has {wanted[0]} bars on end that are fit to learn from (at most"
                f" {longest}); give more songs, or shorter windows: --bars"
            )
        held = held_out_songs(sorted(able), settings.seed, settings.held_out)
        self.train = self._windows(wanted, able - held)
        self.held_out = self._windows(wanted, held)
        self.lengths = sorted(self.train)
        self.about: dict[str, Any] = {
            "content": _digest(rows), "songs": len(set(rows.owners)), "songs_held_out": len(held),
            "bars_used": len(self.training_rows()), "lengths": self.lengths, **asdict(settings),
        }  # fmt: skip

    def _windows(self, lengths: Sequence[int], songs: set[str]) -> dict[int, npt.NDArray[np.int64]]:
        """First rows of all windows of songs, by length; lengths that none has are left out."""
        found: dict[int, npt.NDArray[np.int64]] = {}
        for length in lengths:
            starts = [
                np.arange(first, last - length + 1)
                for (first, last), owner in zip(self.rows.runs, self.rows.owners, strict=True)
                if owner in songs and last - first >= length
            ]
            if starts:
                found[length] = np.concatenate(starts)
        return found

    def training_rows(self) -> npt.NDArray[np.int64]:
        """Rows of all bars to learn from, once each."""
        return np.unique(
            np.concatenate([(w[:, None] + np.arange(n)).ravel() for n, w in self.train.items()])
        )

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The windows of a step: `z_SBLD`, `bpm_SB`, `action_SBA`, `single_SBA`, `usual_SLD` (the
        average bar of the same copy of the song; all float32), and `span_SB` (bool): the bars that
        are written, all of them in most windows.
        """
        rng = np.random.default_rng([self.settings.seed, step])
        length = int(rng.choice(self.lengths))
        starts = self.train[length]
        items = self.gathered(starts[rng.integers(0, len(starts), size)], length)
        spans = np.ones((size, length), bool)
        for i in np.flatnonzero(rng.random(size) < self.settings.spans):
            spans[i] = span_mask(length, rng)
        return {**items, "span_SB": torch.from_numpy(spans)}

    def held_out_windows(self, count: int) -> dict[str, Tensor]:
        """Up to `count` windows of held-out songs, always the same, spread over them; where no
        held-out song is long enough, of the others. The longest length that there is.
        """
        found = self.held_out or self.train
        length = max(found)
        starts = found[length]
        at = np.linspace(0, len(starts) - 1, min(count, len(starts))).round().astype(int)
        return self.gathered(starts[at], length)

    def gathered(self, starts: npt.NDArray[np.int64], length: int) -> dict[str, Tensor]:
        """The columns of windows given by their first rows."""
        columns: dict[str, npt.NDArray[Any]] = {
            "z_SBLD": self.rows.z_XLD, "bpm_SB": self.rows.bpm_X,
            "action_SBA": self.rows.action_XA, "single_SBA": self.rows.single_XA,
        }  # fmt: skip
        rows_SB = starts[:, None] + np.arange(length)
        found = {
            name: torch.from_numpy(column[rows_SB].astype(np.float32))
            for name, column in columns.items()
        }
        return {**found, "usual_SLD": torch.from_numpy(self._usual_CLD[self.rows.copies[starts]])}


def _means(
    z_XLD: npt.NDArray[np.float16], copies_X: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The average bar of each copy (C, L, D)."""
    edges = np.concatenate([[0], np.cumsum(np.bincount(copies_X))])
    means = [
        z_XLD[a:b].mean(0, dtype=np.float32) if a < b else np.zeros(z_XLD.shape[1:], np.float32)
        for a, b in itertools.pairwise(edges.tolist())
    ]
    return np.stack(means)


def _digest(rows: BarRows) -> str:
    digest = hashlib.sha256(repr((list(rows.runs), list(rows.owners))).encode())
    for column in (rows.z_XLD, rows.bpm_X, rows.action_XA, rows.single_XA, rows.copies):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
