"""A pass over the songs of a store that adds one layer, song by song; a generator of reports."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mgen.core.errors import StaleError, StoreError
from mgen.core.store.layer import Provenance
from mgen.core.store.schema import LayerSpec
from mgen.core.store.store import Store
from mgen.core.store.tables import SongRow


@dataclass(frozen=True, slots=True, kw_only=True)
class SongReport:
    """What became of one song in `add_layer`. `skipped`: rejected by `filter`."""

    song: int
    name: str
    status: Literal["done", "known", "skipped"]
    items: int = 0


def add_layer(
    store: Store, spec: LayerSpec, made: Provenance, add: Callable[[SongRow], int], *,
    anew: bool = False,
) -> Generator[SongReport]:  # fmt: skip
    """Add what a layer lacks. A song is there when all of it is; the same call goes on at the first
    that is not.

    Parameters
    ----------
    store
        Open for appending.
    spec
        The layer; it has `song_offset`.
    made
        How it is made.
    add
        Appends a song, also one that is not kept; gives how many items it has.
    anew
        From the first song.

    Raises
    ------
    StaleError
        If its parents, or the layer itself, are stale (the layer: without `anew`).
    StoreError
        If its parents do not have all songs yet, or it was made with other settings.
    """
    songs = store.songs()
    for parent in spec.parents:
        _require_whole(store, parent, len(songs))
    counts = np.diff(store.begin(spec, made, anew=anew).read("song_offset")).tolist()
    for song, count in zip(songs, counts, strict=False):
        yield _report(song, "known", count)
    for song in songs[len(counts) :]:
        yield _report(song, "done", add(song))


def _report(song: SongRow, status: Literal["done", "known"], items: int) -> SongReport:
    return SongReport(
        song=song.index, name=song.name, status=status if song.kept else "skipped", items=items
    )


def _require_whole(store: Store, name: str, songs: int) -> None:
    """Make sure that a layer is current and has all songs."""
    layer = store.need(name)
    command = "mgen segment-bars" if name == "bars" else "mgen tokenize"
    if reason := store.stale(name):
        raise StaleError(
            f"{store.where}: {name} are stale: {reason}; run `{command} --force` first"
        )
    if layer.length() < songs:
        raise StoreError(
            f"{store.where}: only {layer.length()} of {songs} songs have {name}; run `{command}`"
            " first"
        )
