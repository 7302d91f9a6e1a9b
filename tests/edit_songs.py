"""For the tests of edits: songs whose bars are known, their stores, and a writer without models."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
from conftest import click_track

from mgen.core.audio import sha256_file
from mgen.core.corpus import Segmentation, filter_songs, segment_songs
from mgen.core.editing.cache import add_song, open_cache
from mgen.core.editing.files import EditReport, Target
from mgen.core.editing.pipeline import edit_song
from mgen.core.editing.request import EditRequest, WriteRequest, WrittenBars
from mgen.core.editing.spans import Share, parse_bars
from mgen.core.store import SongRow, Store

BPM, OFFSET_S = 120.0, 0.25
BAR_S = 2.0
ACTION = (Share(17, 1.0),)


def song_sound(seconds: float, rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """Clicks at 120 BPM from 0.25 s on, chords and hiss, (N, C): every channel is another mix."""
    n = int(seconds * rate)
    t = np.arange(n) / rate
    rng = np.random.default_rng(seed)
    clicks = click_track(BPM, seconds + 1 / rate, rate, offset_s=OFFSET_S)[:n]
    tones = [np.sin(2 * np.pi * f * t + i) for i, f in enumerate((220.0, 277.2, 329.6))]
    hiss = 0.01 * rng.standard_normal(n)
    mix = rng.uniform(0.02, 0.12, (5, channels))
    mix[0] = 0.4
    return np.stack([clicks, *tones, hiss], axis=1) @ mix


def write_song(
    path: Path, seconds: float = 6.6, rate: int = 16000, channels: int = 1, seed: int = 0,
    **how: str,
) -> Path:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    sound_NC = song_sound(seconds, rate, channels, seed)
    with soundfile.SoundFile(path, "w", rate, channels, **how) as file:
        for start in range(0, len(sound_NC), 1 << 16):
            file.write(sound_NC[start : start + (1 << 16)])
    return path


def fill_store(store: Store, *paths: Path) -> None:
    """Songs with bars of exactly two seconds from 0.25 s on, by a grid that is given."""
    list(filter_songs(store, list(paths)))
    list(segment_songs(store, Segmentation(bpm=BPM, offset_s=OFFSET_S)))


def cached(path: Path) -> Store:
    """The open store beside a song, with bars on the grid."""
    store = open_cache(path, sha256_file(path))
    if store.layer("bars") is None:
        fill_store(store, path)
    return store


class NoiseWriter:
    """Writes noise that decays within each beat, and the bar itself backwards below it.

    Everything follows from the seed, the take and the bar, as it does in the models.
    """

    model_ids: ClassVar = {"dynamics": "noise", "palette": "none"}
    tokenizer = None
    actions = 64

    def __init__(self, change_LU: float = 0.0) -> None:
        self.change_LU = change_LU
        self.asked: list[WriteRequest] = []

    def write(self, request: WriteRequest) -> WrittenBars:
        self.asked.append(request)
        sounds = []
        for bar in request.edited.tolist():
            rng = np.random.default_rng([request.seed, request.take, bar])
            decay = np.exp(-np.tile(np.arange(8192) / 2000, 4))
            own = np.zeros(32768)
            if request.bars.row[bar] >= 0:
                own = request.store.bar_pcm(int(request.bars.row[bar]))[::-1] / 32768
            noise = 0.1 * decay * rng.standard_normal(32768)
            sounds.append((noise + request.strength * 0.2 * own).astype(np.float32))
        count = len(sounds)
        z_BLD = np.full((count, 64, 16), request.take, np.float32)
        return WrittenBars(
            pcm_BN=np.stack(sounds), z_BLD=z_BLD, change_LU=np.full(count, self.change_LU)
        )


def edit(
    path: Path, bars: str, *, writer: NoiseWriter | None = None, out: Path | None = None,
    lossy: bool = False, force: bool = False, **request: object,
) -> list[EditReport]:  # fmt: skip
    """Edit a file as the command does, and give its reports."""
    with cached(path) as store:
        row = add_song(store, path, sha256_file(path))
        return edit_in(store, row, bars, Target(song=path, out=out, lossy=lossy), writer,
                       source=path, force=force, **request)  # fmt: skip


def edit_in(
    store: Store, row: SongRow, bars: str, target: Target, writer: NoiseWriter | None = None,
    *, source: Path | None = None, force: bool = False, **request: object,
) -> list[EditReport]:  # fmt: skip
    wanted = EditRequest(
        bars=parse_bars(bars, 999) if bars else (),
        **{"action": ACTION, **request},  # type: ignore[arg-type]
    )
    steps = edit_song(
        store, row, wanted, writer or NoiseWriter(), target, source=source, force=force
    )
    return [step for step in steps if isinstance(step, EditReport)]


def native(path: Path, dtype: str) -> np.ndarray:
    """Samples (N, C) as libsndfile decodes them."""
    return soundfile.read(path, dtype=dtype, always_2d=True)[0]


def span(bar: int, rate: int, last: int | None = None) -> slice:
    """Samples of bars (from 1, both included) of the songs that are made here."""
    edges = (OFFSET_S + (bar - 1) * BAR_S, OFFSET_S + (last or bar) * BAR_S)
    return slice(*(round(edge * rate) for edge in edges))
