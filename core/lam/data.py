"""What a latent action model learns from: sequences of bars of one song, by seed and step.

All latents are in memory as float16. A sequence is of bars that follow one another, all fit to
learn from, all real or all of the same jittered copy. A batch is a pure function of seed and step.
Whole songs are held out, the same ones as in the training of a tokenizer with this seed.

Where a song is there in several copies (its bars' edges moved a little, `segment-bars --jitter`),
the actions of a sequence are read in another copy than the one to write: an action is then of what
the copies share.

Letters: X bars, S sequences, B bars of a sequence, L tokens, D dims, M mel bands, N samples.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgen.core.bars import BAR_SAMPLES
from mgen.core.errors import StaleError, StoreError
from mgen.core.lam.config import MEL_BANDS, LamConfig
from mgen.core.lam.usual import usual_of
from mgen.core.store import LATENTS, RATE, BarTable, Store
from mgen.core.tokenizer.data import held_out_songs
from mgen.core.tokenizer.passes import current_tokenizer, latents_id
from mgen.kernels.log_mel import LogMelSpec, log_mel

_BARS_AT_ONCE = 256  # a shard of the store


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bars:
    """Bars in memory, and where they follow one another.

    Attributes
    ----------
    z_XLD
        Latents, float16.
    mel_XLM
        Log-mel in dB, float16, where the model reads it.
    runs
        First row and the one past the last of bars that follow one another.
    owners
        The song of each run: the hash of its source.
    copies
        The copy of a song (real, or one of its jittered ones) that each row is of, from 0: all
        rows of a copy lie together.
    songs
        The song of each copy (hash).
    """

    z_XLD: npt.NDArray[np.float16]
    mel_XLM: npt.NDArray[np.float16] | None
    runs: tuple[tuple[int, int], ...]
    owners: tuple[str, ...]
    copies: npt.NDArray[np.int64]
    songs: tuple[str, ...]


def runs_of(table: BarTable) -> list[tuple[int, int]]:
    """Rows (first, one past the last) of valid bars that follow one another in one song and one
    copy of it.
    """
    if not len(table):
        return []
    same = (np.diff(table.song) == 0) & (np.diff(table.jitter) == 0) & (np.diff(table.index) == 1)
    broken = ~(same & table.valid[1:] & table.valid[:-1])
    edges = [0, *(np.flatnonzero(broken) + 1).tolist(), len(table)]
    return [(a, b) for a, b in itertools.pairwise(edges) if table.valid[a]]


def read_bars(stores: Sequence[Store], config: LamConfig) -> Bars:
    """The bars of stores with their latents (and their log-mel, if the model reads that).

    Raises
    ------
    StaleError, StoreError
        If latents by the config's tokenizer are missing, incomplete, stale or not of bars.
    """
    z: list[npt.NDArray[np.float16]] = []
    mel: list[npt.NDArray[np.float16]] = []
    runs: list[tuple[int, int]] = []
    owners: list[str] = []
    copies = [np.zeros(0, np.int64)]
    names: list[str] = []
    total = 0
    for store in stores:
        z_XLD = bar_latents(store, config.tokenizer)
        table, songs = store.bars(jittered=True), store.songs()
        if len(table) != len(z_XLD):
            raise StoreError(f"{store.where}: some songs have no latents; run `mgen tokenize`")
        for first, last in runs_of(table):
            runs.append((total + first, total + last))
            owners.append(songs[int(table.song[first])].sha256)
        z.append(z_XLD)
        copies_X = copies_of(table)
        begins = np.unique(copies_X, return_index=True)[1]
        names += [songs[int(song)].sha256 for song in table.song[begins]]
        copies.append(copies_X + (copies[-1].max(initial=-1) + 1))
        if config.input == "mel":
            mel += [
                bar_mel(store.bar_pcm(slice(at, at + _BARS_AT_ONCE)), config.tokens)
                for at in range(0, len(table), _BARS_AT_ONCE)
            ]
        total += len(table)
    return Bars(
        z_XLD=np.concatenate(z), mel_XLM=np.concatenate(mel) if mel else None, runs=tuple(runs),
        owners=tuple(owners), copies=np.concatenate(copies), songs=tuple(names),
    )  # fmt: skip


def copies_of(table: BarTable) -> npt.NDArray[np.int64]:
    """Which copy of a song each bar is of, real or jittered: (X,), numbered from 0."""
    changes = (np.diff(table.song, prepend=-1) != 0) | (np.diff(table.jitter, prepend=-1) != 0)
    return np.cumsum(changes, dtype=np.int64) - 1


def current_latents(stores: Sequence[Store], given: Path | None = None) -> tuple[str, int, int]:
    """The latents to learn from: those by the tokenizer that is named, else the stores' current.

    Returns
    -------
    tuple
        12 digits of what the tokenizer's latents are called, tokens of a bar, dims of a token.

    Raises
    ------
    InputNotFoundError, InputError
        If a tokenizer cannot be read.
    StoreError
        If a store has no latents by it, or the stores' tokenizers are not one.
    """
    found: dict[str, str] = {}
    for store in stores:
        tokenizer, _ = current_tokenizer(store, given)
        if (current := latents_id(tokenizer)) not in store.family(LATENTS):
            raise StoreError(
                f"{store.where}: holds no latents by its tokenizer {current}; run `mgen tokenize`"
                " first"
            )
        found[current] = store.where
    if len(found) > 1:
        places = ", ".join(f"{one} in {where}" for one, where in found.items())
        raise StoreError(
            f"the stores' latents are of several tokenizers ({places}); run `mgen tokenize"
            " --tokenizer MODEL` on them with the same one"
        )
    (one,) = found
    facts = stores[0].need(f"{LATENTS}/{one}").spec.facts
    return one, int(facts["tokens"]), int(facts["dims"])


def bar_latents(store: Store, tokenizer: str, song: int | None = None) -> npt.NDArray[np.float16]:
    """Latents of bars (X, L, D) by a tokenizer (12 digits of its id), of a song or all.

    Raises
    ------
    StaleError
        If they, or the bars, have changed since they were made.
    StoreError
        If there are none, or they are not of bars.
    """
    name = f"{LATENTS}/{tokenizer}"
    facts = store.need(name).spec.facts
    if facts["unit"] != "bar":
        raise StoreError(
            f"{store.where}: latents {tokenizer} are of {facts['unit']}s, and actions are of bars;"
            " tokenize with a tokenizer of bars (`mgen train-tokenizer --preset bar`)"
        )
    if reason := store.stale(name):
        raise StaleError(f"{store.where}: {name} is stale: {reason}; run `mgen tokenize --force`")
    return store.latents(tokenizer, song)


def mel_spec(tokens: int) -> LogMelSpec:
    """The log-mel of a bar, one frame a token."""
    hop = BAR_SAMPLES // tokens
    return LogMelSpec(
        rate=RATE, n_fft=2 * hop, hop=hop, n_mels=MEL_BANDS, f_max=RATE / 2, power=2.0, log="db"
    )


def bar_mel(pcm_XN: npt.NDArray[np.int16], tokens: int) -> npt.NDArray[np.float16]:
    """Log-mel (X, L, M) in dB of warped bars, a frame centred on the middle of each token."""
    spec = mel_spec(tokens)
    samples_XN = torch.from_numpy(pcm_XN.astype(np.float32) / np.float32(32768))
    mel_XLM = log_mel(samples_XN[:, spec.hop // 2 :], spec)[:, :tokens]
    return mel_XLM.numpy().astype(np.float16)


class TrainingBars:
    """Batches of sequences.

    Attributes
    ----------
    train, held_out
        First rows of the sequences to learn from, and to validate on (of those, ones that do not
        overlap).
    about
        What decides the batches, as plain JSON.
    """

    def __init__(
        self, bars: Bars, config: LamConfig, *, seed: int = 0, held_out: float = 0.05
    ) -> None:
        """Find the sequences.

        Parameters
        ----------
        bars
            What there is.
        config
            How long a sequence is.
        seed, held_out
            Of the order, and of which share of the songs is held out.

        Raises
        ------
        StoreError
            If no song has enough bars on end.
        """
        self.bars, self.length, self.seed = bars, config.bars, seed
        long_enough = {
            owner for owner, (a, b) in zip(bars.owners, bars.runs, strict=True)
            if b - a >= self.length
        }  # fmt: skip
        if not long_enough:
            raise StoreError(
                f"no song has {self.length} bars on end that are fit to learn from; give more"
                " songs, or shorter sequences: --bars"
            )
        self._others = _in_other_copies(bars)
        self._read_XLF = bars.z_XLD if bars.mel_XLM is None else bars.mel_XLM
        self._z_XLD = bars.z_XLD
        if config.relative:
            self._z_XLD = _without_usual(bars.z_XLD, bars.copies)
            self._read_XLF = (
                self._z_XLD if bars.mel_XLM is None else _without_usual(bars.mel_XLM, bars.copies)
            )
        held = held_out_songs(sorted(long_enough), seed, held_out)
        train: list[int] = []
        kept: list[int] = []
        for owner, (first, last) in zip(bars.owners, bars.runs, strict=True):
            step = self.length if owner in held else 1
            (kept if owner in held else train).extend(range(first, last - self.length + 1, step))
        self.train: npt.NDArray[np.int64] = np.array(train, np.int64)
        self.held_out: npt.NDArray[np.int64] = np.array(kept, np.int64)
        digest = hashlib.sha256(np.ascontiguousarray(bars.z_XLD).tobytes())
        digest.update(repr(bars.runs).encode())
        if bars.mel_XLM is not None:
            digest.update(np.ascontiguousarray(bars.mel_XLM).tobytes())
        self.about: dict[str, Any] = {
            "content": digest.hexdigest(), "songs": len(set(bars.owners)),
            "songs_held_out": len(held), "bars": len(bars.z_XLD), "sequences": len(self.train),
            "seed": seed, "held_out": held_out,
        }  # fmt: skip
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, self.train)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The sequences of a step, as `sequences` gives them; each once in every round."""
        count = len(self.train)
        firsts = [self._round(i // count)[i % count] for i in range(step * size, (step + 1) * size)]
        return self.sequences(np.array(firsts), np.random.default_rng([self.seed, 3, step]))

    def some(self, count: int, *, held_out: bool) -> dict[str, Tensor]:
        """Up to `count` sequences, always the same, spread over the songs."""
        firsts = self.held_out if held_out else self.train
        at = np.linspace(0, len(firsts) - 1, min(count, len(firsts))).round().astype(int)
        return self.sequences(firsts[at])

    def sequences(
        self, firsts: npt.NDArray[np.int64], rng: np.random.Generator | None = None
    ) -> dict[str, Tensor]:
        """`z_SBLD`, what is to be written, and `read_SBLF`, what the model reads (latents or
        log-mel, as its input is), float32; of relative styles what is left without the usual.

        With `rng`, another copy of the song is read than is written, where there is one.
        """
        read_S = firsts if rng is None else self._elsewhere(firsts, rng)
        along_B = np.arange(self.length)
        return {
            name: torch.from_numpy(x_XLF[rows_S[:, None] + along_B]).float()
            for name, x_XLF, rows_S in (
                ("z_SBLD", self._z_XLD, firsts), ("read_SBLF", self._read_XLF, read_S)
            )
        }  # fmt: skip

    def _elsewhere(
        self, firsts: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """The same sequences in other copies, where there are any."""
        found = firsts.copy()
        for at, first in enumerate(firsts.tolist()):
            if moves := self._others[self.bars.copies[first]]:
                found[at] = first + moves[int(rng.integers(len(moves)))]
        return found

    def _round(self, number: int) -> npt.NDArray[np.int64]:
        if self._order[0] != number:
            rng = np.random.default_rng([self.seed, 2, number])
            self._order = number, rng.permutation(self.train)
        return self._order[1]


def _in_other_copies(bars: Bars) -> list[list[int]]:
    """For each copy how many rows on (or back) its bars are in each other one of the song."""
    counts_C = np.bincount(bars.copies)
    first_C = np.concatenate([[0], np.cumsum(counts_C)[:-1]]).tolist()
    alike: dict[tuple[str, int], list[int]] = {}
    for copy, song in enumerate(bars.songs):
        alike.setdefault((song, int(counts_C[copy])), []).append(copy)
    return [
        [first_C[o] - first_C[copy] for o in alike[song, int(counts_C[copy])] if o != copy]
        for copy, song in enumerate(bars.songs)
    ]


def _without_usual(
    x_XLF: npt.NDArray[np.float16], copies_X: npt.NDArray[np.int64]
) -> npt.NDArray[np.float16]:
    """What is left of each copy's bars without what is usual in it."""
    edges = np.concatenate([[0], np.cumsum(np.bincount(copies_X))])
    out_XLF = np.empty_like(x_XLF)
    for a, b in itertools.pairwise(edges.tolist()):
        copy_XLF = torch.from_numpy(x_XLF[a:b])
        out_XLF[a:b] = usual_of(copy_XLF).left_of(copy_XLF).half().numpy()
    return out_XLF
