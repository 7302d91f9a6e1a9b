"""What a tokenizer learns from: bars of stores, or cuts of plain sound, by seed and step.

All sound is copied once into a file without a name that is mapped into memory: a batch costs
neither a decompression nor memory, and the copy ends with the process. A batch is a pure function
of seed and step, so a run that is resumed sees what an unbroken one sees.

Whole songs are held out, never single bars: the bars of a song are too much alike.

Letters: B items, C channels, N samples, n samples of one block, P pieces (bars, or songs).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgen.core.audio import read_audio
from mgen.core.bars import BAR_SAMPLES, bar_samples
from mgen.core.corpus.songs import to_int16
from mgen.core.errors import AudioError, StaleError, StoreError, UsageError
from mgen.core.store import RATE, SongRow, Store
from mgen.core.tokenizer.augment import (
    Augmentation,
    at_speed,
    bent_at_random,
    gain_of,
)
from mgen.core.tokenizer.config import TokenizerConfig

_GROWTH = (4, 2, 1)
"""Cuts of plain sound grow from a quarter of the longest to all of it (1, 2, 4 s)."""

_BARS_AT_ONCE = 256  # a shard of the store

PADDED_TO = 8192
"""Bars at their own lengths are padded to a multiple of so many samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """How items are drawn.

    Attributes
    ----------
    seed
        Of the order, the cuts and the augmentation, and of which songs are held out.
    held_out
        Share of the songs that is kept for validation; at least one where there are two.
    augmentation
        How items are changed. Bars at their own lengths keep their speed.
    """

    seed: int = 0
    held_out: float = 0.05
    augmentation: Augmentation = field(default_factory=Augmentation)


def own_lengths(config: TokenizerConfig) -> bool:
    """Whether items are bars at their own lengths, not warped to one (the perceiver's)."""
    return config.unit == "bar" and config.arch == "perceiver"


def check_sound(config: TokenizerConfig) -> None:
    """Refuse a tokenizer whose bars no store holds.

    Raises
    ------
    UsageError
        If it takes bars, but not those of 16 kHz mono that `segment-bars` makes.
    """
    if config.unit == "bar" and (config.rate, config.channels) != (RATE, 1):
        raise UsageError(
            f"bars of a store are {RATE} Hz mono, not {config.rate} Hz with {config.channels}"
            " channels; for other sound take a preset of seconds"
        )
    if config.unit == "bar" and not own_lengths(config) and config.samples != BAR_SAMPLES:
        raise UsageError(f"bars of a store have {BAR_SAMPLES} samples, not {config.samples}")


def song_blocks(store: Store, song: SongRow, rate: int, channels: int) -> Iterator[np.ndarray]:
    """A song's sound, blocks of (n, C) int16: the store's own, or from its source where a
    tokenizer takes another rate, or more channels than one.

    Raises
    ------
    InputNotFoundError, AudioError
        If the source is needed, and is gone or cannot be read.
    """
    if (rate, channels) == (RATE, 1):
        for block in store.song_pcm(song.index).blocks():
            yield block[:, None]
        return
    import soxr

    sound = read_audio(song.source, start_s=song.start_s, duration_s=song.duration_s)
    if sound.samples_CN.shape[0] < channels:
        samples_CN = np.repeat(sound.samples_CN[:1], channels, axis=0)
    elif channels == 1:
        samples_CN = sound.samples_CN.mean(axis=0, keepdims=True, dtype=np.float32)
    else:
        samples_CN = sound.samples_CN[:channels]
    if abs(samples_CN.shape[1] / sound.rate - song.duration_s) > 0.1:
        raise AudioError(f"{song.source}: is not as long as it was; run `mgen filter` on it again")
    yield to_int16(soxr.resample(samples_CN.T, sound.rate, rate))


def bar_edges(store: Store, song: int) -> list[tuple[int, int]]:
    """First sample and the one past the last of each bar of a song, jittered copies too."""
    table, row = store.bars(song, jittered=True), store.song(song)
    edges = (
        bar_samples(start - row.start_s, end - row.start_s, RATE)
        for start, end in zip(table.start_s.tolist(), table.end_s.tolist(), strict=True)
    )
    return [(first, min(last, row.n_samples)) for first, last in edges]


class _Bank:
    """16-bit sound on disk, mapped into memory: pieces (n, C) by number."""

    def __init__(self, channels: int, folder: Path | None) -> None:
        self._channels = channels
        # it has no name, and goes when neither this nor the map holds it
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self._edges = [0]
        self._sound: npt.NDArray[np.int16] = np.empty((0, channels), np.int16)

    def __len__(self) -> int:
        return len(self._edges) - 1

    def append(self, blocks: Iterator[np.ndarray]) -> None:
        total = 0
        for block_nC in blocks:
            data = np.ascontiguousarray(block_nC, "<i2").tobytes()
            self._file.write(data)
            self._digest.update(data)
            total += len(block_nC)
        self._edges.append(self._edges[-1] + total)

    def seal(self) -> str:
        """Map what was written, and take no more; gives its hash."""
        with self._file as file:
            file.flush()
            if self._edges[-1]:
                shape = (self._edges[-1], self._channels)
                self._sound = np.memmap(file, "<i2", "r", shape=shape)
        self.n_samples_P = np.diff(self._edges)
        return self._digest.hexdigest()

    def cut(self, piece: int, start: int, length: int) -> npt.NDArray[np.float32]:
        """Samples (C, length) of a piece, silence where it ends before."""
        first = self._edges[piece] + start
        last = min(first + length, self._edges[piece + 1])
        out_CN = np.zeros((self._channels, length), np.float32)
        np.divide(self._sound[first:last].T, np.float32(32768), out=out_CN[:, : last - first])
        return out_CN


class TrainingSound:
    """Batches of items for a tokenizer, from stores.

    Attributes
    ----------
    train, held_out
        Numbers of the pieces (bars or songs) to learn from, and to validate on.
    about
        What decides the batches, as plain JSON.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        config: TokenizerConfig,
        settings: DataSettings,
        *,
        steps: int,
        folder: Path | None = None,
    ) -> None:
        """Copy the sound of all stores.

        Parameters
        ----------
        stores
            Open; bars fit to learn from are taken, jittered copies too, or whole songs.
        config
            What the items are.
        settings
            How they are drawn.
        steps
            Of the whole run: cuts of plain sound grow over it.
        folder
            Where the copy goes; the system's temporary folder by default.

        Raises
        ------
        UsageError
            As `check_sound`.
        StaleError, StoreError
            If bars are stale or missing, or there is nothing to learn from.
        """
        check_sound(config)
        self.config, self.settings, self.steps = config, settings, steps
        self._bank = _Bank(config.channels, folder)
        owners: list[str] = []
        take = self._take_bars if config.unit == "bar" else self._take_songs
        try:
            for store in stores:
                owners += take(store)
        finally:
            content = self._bank.seal()
        if not owners:
            names = ", ".join(store.where for store in stores)
            what = "bars fit to learn from" if config.unit == "bar" else "songs with sound"
            raise StoreError(f"{names}: holds no {what}; `mgen info` shows what there is")
        held = held_out_songs(owners, settings.seed, settings.held_out)
        is_held_P = np.array([owner in held for owner in owners])
        self.train: npt.NDArray[np.int64] = np.flatnonzero(~is_held_P)
        self.held_out: npt.NDArray[np.int64] = np.flatnonzero(is_held_P)
        self.about: dict[str, Any] = {
            "sound": content, "songs": len(set(owners)), "songs_held_out": len(held),
            "pieces": len(owners), "seed": settings.seed,
            "held_out": settings.held_out, "augmentation": asdict(settings.augmentation),
        }  # fmt: skip
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, self.train)

    @property
    def seconds(self) -> float:
        """Of sound to learn from."""
        return float(self._bank.n_samples_P[self.train].sum() / self.config.rate)

    def _take_bars(self, store: Store) -> list[str]:
        reason = store.stale("bars")
        if reason:
            raise StaleError(
                f"{store.where}: bars are stale: {reason}; run `mgen segment-bars --force`"
            )
        table, songs = store.bars(jittered=True), store.songs()
        owners = []
        if own_lengths(self.config):
            for song in np.unique(table.song).tolist():
                valid = table.valid[table.song == song]
                pcm = store.song_pcm(song)
                for (first, last), good in zip(bar_edges(store, song), valid, strict=True):
                    if good and last > first:
                        self._bank.append(iter([pcm[first:last][:, None]]))
                        owners.append(songs[song].sha256)
            return owners
        for start in range(0, len(table), _BARS_AT_ONCE):
            valid = table.valid[start : start + _BARS_AT_ONCE]
            if valid.any():
                rows = store.bar_pcm(slice(start, start + len(valid)))
                for bar, song in zip(rows[valid], table.song[start:][: len(valid)][valid],
                                     strict=True):  # fmt: skip
                    self._bank.append(iter([bar[:, None]]))
                    owners.append(songs[song].sha256)
        return owners

    def _take_songs(self, store: Store) -> list[str]:
        kept = [song for song in store.songs() if song.kept]
        for song in kept:
            self._bank.append(song_blocks(store, song, self.config.rate, self.config.channels))
        return [song.sha256 for song in kept]

    # batches

    def length(self, step: int) -> int:
        """Samples of the cuts of a step: they grow, each length taking half of the steps that are
        left, the last one all.
        """
        share, left = step / max(1, self.steps), 1.0
        for parts in _GROWTH[:-1]:
            left /= 2.0
            if share < 1.0 - left:
                return max(1, self.config.tokens // parts) * self.config.hop
        return self.config.samples

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The items of a step: `samples_BCN` float32, and `lengths_B` int64 for `own_lengths`."""
        rng = np.random.default_rng([self.settings.seed, 1, step])
        if self.config.unit == "bar":
            items = self._whole(self._next_pieces(step * size, size))
        else:
            length = self.length(step)
            items = self._cut(self._random_cuts(rng, length, size), length)
        for item_CN in items["samples_BCN"].numpy():
            self._change(item_CN, rng)
        if "lengths_B" in items:  # what is padded stays silent
            real_BN = torch.arange(items["samples_BCN"].shape[-1]) < items["lengths_B"][:, None]
            items["samples_BCN"] *= real_BN[:, None]
        return items

    def held_out_items(self, count: int) -> dict[str, Tensor]:
        """Up to `count` items of held-out songs, always the same, spread over them; where no song
        is held out (there is only one), of the one there is.
        """
        pieces = self.held_out if len(self.held_out) else self.train
        if self.config.unit == "bar":
            at = np.linspace(0, len(pieces) - 1, min(count, len(pieces))).round().astype(int)
            return self._whole(pieces[at].tolist())
        rounds, length = -(-count // len(pieces)), self.config.samples
        cuts = [
            (p, int(max(0, self._bank.n_samples_P[p] - length) * (i + 1) / (rounds + 1)))
            for i in range(rounds) for p in pieces.tolist()
        ]  # fmt: skip
        return self._cut(cuts[:count], length)

    def _whole(self, pieces: Sequence[int]) -> dict[str, Tensor]:
        """Bars: of one length, or padded to the longest, in steps that keep shapes few."""
        if not own_lengths(self.config):
            return self._cut([(p, 0) for p in pieces], self.config.samples)
        lengths_B = torch.from_numpy(self._bank.n_samples_P[list(pieces)].astype(np.int64))
        length = -(-int(lengths_B.max()) // PADDED_TO) * PADDED_TO
        return {**self._cut([(p, 0) for p in pieces], length), "lengths_B": lengths_B}

    def _cut(self, cuts: Sequence[tuple[int, int]], length: int) -> dict[str, Tensor]:
        items = np.stack([self._bank.cut(piece, start, length) for piece, start in cuts])
        return {"samples_BCN": torch.from_numpy(items)}

    def _next_pieces(self, first: int, count: int) -> list[int]:
        """Each piece once in every round, each round in another order."""
        return [self._round(i // len(self.train))[i % len(self.train)] for i in
                range(first, first + count)]  # fmt: skip

    def _round(self, number: int) -> npt.NDArray[np.int64]:
        if self._order[0] != number:
            rng = np.random.default_rng([self.settings.seed, 0, number])
            self._order = number, rng.permutation(self.train)
        return self._order[1]

    def _random_cuts(
        self, rng: np.random.Generator, length: int, count: int
    ) -> list[tuple[int, int]]:
        """Every sample of the songs is as likely as any other; a short song is taken whole."""
        starts_P = np.maximum(1, self._bank.n_samples_P[self.train] - length + 1)
        ends_P = np.cumsum(starts_P)
        at_B = rng.integers(0, ends_P[-1], count)
        which_B = np.searchsorted(ends_P, at_B, side="right")
        return [
            (int(self.train[w]), int(a - (ends_P[w] - starts_P[w])))
            for w, a in zip(which_B, at_B, strict=True)
        ]

    def _change(self, item_CN: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
        """Augment an item in place."""
        how = self.settings.augmentation
        changed_CN = self._varied(item_CN, rng)
        if rng.random() < how.mix:
            piece = int(self.train[rng.integers(len(self.train))])
            spare = max(0, int(self._bank.n_samples_P[piece]) - item_CN.shape[1])
            other_CN = self._bank.cut(piece, int(rng.integers(spare + 1)), item_CN.shape[1])
            level = 10.0 ** (rng.uniform(-12.0, 0.0) / 20.0)
            changed_CN = changed_CN + np.float32(level) * self._varied(other_CN, rng)
        item_CN[:] = changed_CN * np.float32(gain_of(changed_CN, how, rng))

    def _varied(
        self, sound_CN: npt.NDArray[np.float32], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        how, length = self.settings.augmentation, sound_CN.shape[1]
        if how.speed and not own_lengths(self.config):
            ratio = float(np.exp(rng.uniform(-1.0, 1.0) * np.log1p(how.speed)))
            sound_CN = at_speed(sound_CN, ratio, int(rng.integers(length)), length)
        if how.tone_db:
            sound_CN = bent_at_random(sound_CN, self.config.rate, how.tone_db, rng)
        return sound_CN


def held_out_songs(owners: Sequence[str], seed: int, share: float) -> set[str]:
    """Songs (hashes of their sources: a song in two stores is one) that are held out, at least one
    where there are two; the same ones in every stage that trains with this seed.
    """
    songs = sorted(set(owners), key=lambda s: hashlib.sha256(f"{seed} {s}".encode()).digest())
    if len(songs) < 2 or share <= 0:
        return set()
    return set(songs[: max(1, min(len(songs) - 1, round(share * len(songs))))])
