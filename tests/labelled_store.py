"""A small store with bars and latents whose answer is known: four kinds of bar, in random order."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mgen.core.beats import Beats
from mgen.core.store import BarTable, Provenance, SongRow, Store, latents_layer
from mgen.core.tokenizer import Tokenizer, TokenizerConfig, build, load_tokenizer, save_tokenizer
from mgen.core.tokenizer.passes import latents_id

MADE = Provenance(command="mgen test", settings={"a": 1})
TOKENS, DIMS, SAMPLES = 64, 16, 32768


def tokenizer_in(folder: Path) -> Tokenizer:
    """A tokenizer that never learned anything, written to a folder and read again."""
    config = TokenizerConfig(
        arch="perceiver", unit="bar", rate=16000, channels=1, samples=SAMPLES, tokens=TOKENS,
        dims=DIMS, prediction="x",
        sizes={"patch": 512, "hidden": 8, "heads": 1, "encoder_depth": 1, "decoder_depth": 1},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_tokenizer(build(config), folder, {})
    return load_tokenizer(folder)


with TemporaryDirectory() as _folder:
    TOKENIZER = latents_id(tokenizer_in(Path(_folder)))
"""12 digits of what its latents are called."""

KINDS = ("quiet bass", "loud bass", "quiet hiss", "loud hiss")
BARS = (12, 0, 9, 10)
"""Of each song; the second is rejected. Each has a jittered copy of its bars beside."""


def kinds(song: int) -> np.ndarray:
    """The kind of each bar of a song."""
    return np.random.default_rng(song + 7).integers(0, 4, BARS[song])


def bar_of(kind: int, seed: int) -> np.ndarray:
    """Sound of a bar, int16: four notes of 80 Hz, or high noise; loud is 20 dB up."""
    rng, t = np.random.default_rng(seed), np.arange(SAMPLES // 4) / 16000
    tone = np.sin(2 * np.pi * 80 * t) if kind < 2 else np.diff(rng.standard_normal(len(t) + 1))
    note = tone * np.exp(-6 * t)
    sound = 0.02 * np.tile(note / np.abs(note).max(), 4) * (10 if kind % 2 else 1)
    return np.round(sound * 32767).astype(np.int16)


def latents_of(kind: int, seed: int) -> np.ndarray:
    """Latents of a bar: its kind's own, and a little noise."""
    own = np.random.default_rng(kind + 100).standard_normal((TOKENS, DIMS))
    return (own + 0.1 * np.random.default_rng(seed).standard_normal(own.shape)).astype(np.float16)


def bar_table(song: int) -> BarTable:
    """The real bars, then the copy."""
    n = BARS[song]
    start = np.tile(np.arange(n) * 0.05, 2)
    return BarTable(
        song=np.full(2 * n, song, np.int32), index=np.tile(np.arange(n, dtype=np.int32), 2),
        start_s=start, end_s=start + 0.05, beats=np.full(2 * n, 4, np.int8),
        bpm=np.full(2 * n, 120, np.float32), stretch=np.ones(2 * n, np.float32),
        jitter=np.repeat(np.array([0, 1], np.int8), n), valid=np.ones(2 * n, bool),
        confidence=np.ones(2 * n, np.float32),
    )  # fmt: skip


def make_store(path: Path, *, latents: bool = True) -> None:
    """Write it."""
    by = Provenance(command="mgen tokenize", model=TOKENIZER)
    with Store.create(path) as store:
        for song, n in enumerate(BARS):
            row = SongRow(
                id=f"id{song:04d}", name=f"song {song}", source=f"/x/{song}.wav",
                sha256=f"{song:064x}", kept=n > 0, reason="" if n else "silent",
            )  # fmt: skip
            store.append_song(row, [np.ones(16000 if n else 0, np.int16)], MADE)
            store.append_beats(Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0)), MADE)
            which = np.tile(kinds(song), 2)
            pcm = [bar_of(kind, 50 * song + i)[None] for i, kind in enumerate(which)]
            store.append_bars(bar_table(song), pcm, MADE)
        if latents:
            store.begin(
                latents_layer(TOKENIZER, unit="bar", tokens=TOKENS, dims=DIMS,
                              samples=SAMPLES, rate=16000, channels=1), by,
            )  # fmt: skip
            for song, n in enumerate(BARS):
                which = np.tile(kinds(song), 2)
                rows = [latents_of(kind, 50 * song + i) for i, kind in enumerate(which)]
                z = np.stack(rows) if n else np.zeros((0, TOKENS, DIMS), np.float16)
                store.append_latents(TOKENIZER, z, 16000 if n else 0, by)
        folder = path.with_name("tokenizer")
        store.link_model("tokenizer", tokenizer_in(folder).id, folder)
