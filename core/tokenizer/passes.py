"""The pass over a store that makes latents of songs or bars; a generator of reports.

Letters: B items, C channels, N samples, L tokens, D dims.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mgen.core.store import (
    ID_DIGITS,
    Provenance,
    SongReport,
    SongRow,
    Store,
    add_layer,
    current_model,
    latents_layer,
)
from mgen.core.tokenizer.config import TokenizerConfig
from mgen.core.tokenizer.data import (
    PADDED_TO,
    bar_edges,
    check_sound,
    own_lengths,
    song_blocks,
)
from mgen.core.tokenizer.model import Tokenizer, load_tokenizer

STAGE = "tokenizer"
BATCH = 8


def latents_id(tokenizer: Tokenizer) -> str:
    """What a tokenizer's layer of latents is called."""
    return tokenizer.latents_id[:ID_DIGITS]


def current_tokenizer(
    store: Store | None, given: Path | None = None, device: str = "cpu"
) -> tuple[Tokenizer, Path]:
    """The tokenizer that was named, else the store's current one, else the one that ships; and its
    folder. Raises as `mgen.core.store.current_model`.
    """
    return current_model(store, STAGE, given, partial(load_tokenizer, device=device), noun=STAGE)


# sound -> latents


def tokenize_songs(
    store: Store,
    tokenizer: Tokenizer,
    *,
    resume: bool = True,
    force: bool = False,
    command: str = "",
) -> Generator[SongReport]:
    """Encode every song of a store: its bars, jittered and invalid ones too, or plain seconds.

    Parameters
    ----------
    store
        Open for appending.
    tokenizer
        Its id names the layer; those of other tokenizers stay.
    resume, force
        Either way (`resume` off, `force` on) the layer is made again from the first song.

    Raises
    ------
    UsageError
        If the tokenizer takes sound that no store holds.
    StaleError
        If its bars, or the latents themselves, are stale (the latents: without `force`).
    StoreError
        If songs have no bars yet.
    """
    config = tokenizer.config
    check_sound(config)
    spec = latents_layer(
        latents_id(tokenizer), unit=config.unit, tokens=config.tokens, dims=config.dims,
        samples=config.samples, rate=config.rate, channels=config.channels,
    )  # fmt: skip
    made = Provenance(command=command, model=tokenizer.latents_id)

    def add(song: SongRow) -> int:
        z_BLD = np.zeros((0, config.tokens, config.dims), np.float16)
        n_samples = 0
        if song.kept:
            z_BLD, n_samples = _encode_song(store, song, tokenizer)
        store.append_latents(latents_id(tokenizer), z_BLD, n_samples, made)
        return len(z_BLD)

    yield from add_layer(store, spec, made, add, anew=force or not resume)


def _encode_song(
    store: Store, song: SongRow, tokenizer: Tokenizer
) -> tuple[npt.NDArray[np.float16], int]:
    """Latents of a song's items, and its samples at the tokenizer's rate."""
    config = tokenizer.config
    parts = [np.zeros((0, config.tokens, config.dims), np.float16)]
    n_samples = song.n_samples
    if config.unit == "bar":
        batches = _own_bars(store, song.index) if own_lengths(config) else _bars(store, song.index)
    else:
        pcm_nC = np.concatenate(list(song_blocks(store, song, config.rate, config.channels)))
        n_samples, batches = len(pcm_nC), _stretches(pcm_nC, config)
    for pcm_BCN, lengths_B in batches:
        samples_BCN = torch.from_numpy(pcm_BCN.astype(np.float32) / np.float32(32768))
        z_BLD = tokenizer.encode(
            samples_BCN, None if lengths_B is None else torch.tensor(lengths_B)
        )
        parts.append(z_BLD.cpu().numpy().astype(np.float16))
    return np.concatenate(parts), n_samples


_Batch = tuple[npt.NDArray[np.int16], list[int] | None]


def _bars(store: Store, song: int) -> Iterator[_Batch]:
    row = store.bars(song, jittered=True).row
    for start in range(0, len(row), BATCH):
        rows = row[start : start + BATCH]
        yield store.bar_pcm(slice(int(rows[0]), int(rows[-1]) + 1))[:, None], None


def _own_bars(store: Store, song: int) -> Iterator[_Batch]:
    """One at a time: what a bar becomes must not depend on how much its neighbours are padded."""
    pcm = store.song_pcm(song)
    for first, last in bar_edges(store, song):
        out = np.zeros((1, 1, padded(last - first)), np.int16)
        out[0, 0, : last - first] = pcm[first:last]
        yield out, [max(1, last - first)]


def _stretches(pcm_nC: npt.NDArray[np.int16], config: TokenizerConfig) -> Iterator[_Batch]:
    length = config.samples
    for start in range(0, len(pcm_nC), BATCH * length):
        part = pcm_nC[start : start + BATCH * length]
        part = np.pad(part, ((0, -len(part) % length), (0, 0)))
        yield part.reshape(-1, length, config.channels).transpose(0, 2, 1), None


def padded(length: int) -> int:
    """The length that a bar of `length` samples is padded to, where bars keep their lengths."""
    return max(1, -(-length // PADDED_TO)) * PADDED_TO


def model_facts(config: TokenizerConfig) -> dict[str, object]:
    """What to tell of a tokenizer in one line."""
    return {
        "arch": config.arch, "unit": config.unit, "tokens": config.tokens, "dims": config.dims,
        "tokens_per_s": round(config.rate * config.tokens / config.samples, 3), "rate": config.rate,
        "channels": config.channels,
    }  # fmt: skip
