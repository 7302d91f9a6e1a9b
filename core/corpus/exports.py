"""Beats of a store -> files beside it, for a person to hear, look at and correct by hand."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mgen.core.audio import write_wav
from mgen.core.beats import Beats
from mgen.core.beats.exports import CLICK_SONG_PEAK, beats_text, labels_text, mix_clicks
from mgen.core.corpus.files import check_output_folder, check_outputs, file_stems
from mgen.core.errors import StaleError, StoreError
from mgen.core.store import RATE, SongRow, Store

Kind = Literal["beats", "audacity", "click"]
ENDINGS: dict[str, str] = {"beats": ".beats", "audacity": ".txt", "click": ".click.wav"}

_LOUDEST_GAIN = 4.0  # 12 dB: a faint song is raised, a hiss is not made a storm


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """One file of a song: what it is and where it is, or will be."""

    song: int
    name: str
    kind: Kind
    path: Path


def exports_folder(store: Path | str) -> Path:
    """Where exports go by default: `jazz-beats` beside `jazz.zarr`; for a URL, here."""
    if isinstance(store, str):
        return Path(store.rstrip("/").rsplit("/", 1)[-1].removesuffix(".zarr") + "-beats")
    path = store if store.name.strip(".") else store.resolve()  # `.` has no name
    return path.with_name(path.name.removesuffix(".zarr") + "-beats")


def is_segmented(store: Store) -> bool:
    """Whether beats and bars of all songs are there and up to date."""
    layers = [store.layer(name) for name in ("beats", "bars")]
    return all(
        layer is not None and layer.length() == len(store.songs()) and not store.stale(name)
        for layer, name in zip(layers, ("beats", "bars"), strict=True)
    )


def plan_exports(
    store: Store, kinds: Collection[Kind], folder: Path, *, force: bool = False
) -> list[ExportReport]:
    """Which files `export_songs` would write, before any work is done.

    Raises
    ------
    OutputExistsError
        If some of them exist, without `force`.
    UsageError
        If the folder is a file, or part of a store.
    """
    check_output_folder(folder, "--export-dir")
    kept = [song for song in store.songs() if song.kept]
    stems = file_stems(kept)
    plan = [
        ExportReport(
            song=song.index, name=song.name, kind=kind,
            path=folder / f"{stems[song.index]}{ENDINGS[kind]}",
        )
        for song in kept for kind in dict.fromkeys(kinds)
    ]  # fmt: skip
    check_outputs([report.path for report in plan], "--export-dir", force=force)
    return plan


def export_songs(
    store: Store, kinds: Sequence[Kind], folder: Path, *, force: bool = False
) -> Generator[ExportReport]:
    """Write the beats of every kept song, in seconds from the song's first sample.

    `beats`: NAME.beats, see `beats_text`. `audacity`: NAME.txt, see `labels_text`. `click`:
    NAME.click.wav, the song as the store has it (16 kHz, mono) with a click on every beat. Each
    file is whole or not there; a song is never in memory as a whole.

    Raises
    ------
    OutputExistsError, UsageError
        As `plan_exports`; nothing is written then.
    StoreError, StaleError
        If the songs have no beats yet, or those of other songs.
    OSError
        If the folder cannot be written to, or the disk is full.
    """
    plan = plan_exports(store, kinds, folder, force=force)
    layer = store.need("beats")
    if stale := store.stale("beats"):
        raise StaleError(f"{store.where}: beats are stale: {stale}; --force makes them again")
    if layer.length() < len(store.songs()):
        raise StoreError(
            f"{store.where}: only {layer.length()} of {len(store.songs())} songs have beats; run"
            " `mgen segment-bars` first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for report in plan:
        beats = _beats_in_song(store.beats(report.song), store.song(report.song))
        if report.kind == "click":
            _write_clicks(store, report, beats)
        else:
            text = beats_text(beats) if report.kind == "beats" else labels_text(beats)
            _write_text(report.path, text)
        yield report


def _beats_in_song(beats: Beats, song: SongRow) -> Beats:
    """Beats in seconds of the song's own samples, such that adding the song's start to them gives
    the very same numbers again.
    """
    inside = (beats.time_s >= song.start_s) & (beats.time_s <= song.start_s + song.duration_s)
    stored = beats.time_s[inside]
    time_s = np.clip(stored - song.start_s, 0.0, song.duration_s)
    for way in (-np.inf, np.inf):  # the difference is rounded, so the sum may be one step off
        near = np.nextafter(time_s, way)
        better = (time_s + song.start_s != stored) & (near + song.start_s == stored)
        time_s = np.where(better, near, time_s)
    return Beats(time_s, beats.beat_in_bar[inside], beats.confidence[inside])


def _write_clicks(store: Store, report: ExportReport, beats: Beats) -> None:
    pcm = store.song_pcm(report.song)
    peak = max((int(np.abs(b.astype(np.int32)).max(initial=0)) for b in pcm.blocks()), default=0)
    gain = min(_LOUDEST_GAIN, CLICK_SONG_PEAK * 32767 / max(peak, 1))
    write_wav(report.path, mix_clicks(pcm.blocks(), beats, RATE, gain=gain), RATE)


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(text.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
