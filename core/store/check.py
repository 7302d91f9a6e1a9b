"""What is wrong with a store: from its metadata and columns, or (`deep`) from every byte in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mgen.core.errors import StoreError
from mgen.core.store import files
from mgen.core.store.layer import Layer, content_hash, rows_digest
from mgen.core.store.maps import map_bytes
from mgen.core.store.schema import ACTIONS, DIGEST_BYTES, FAMILIES, LATENTS, LAYERS, is_layer
from mgen.core.store.takes import GROUP, check_takes

if TYPE_CHECKING:
    from mgen.core.store.store import Store

_BLOCK = 1 << 22
_ITEMS = 1 << 12
_NO_METADATA = "its rows are there, but its metadata (zarr.json) is not"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and in which layer."""

    layer: str
    message: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.message}"


def check_store(store: Store, *, deep: bool = False) -> list[Finding]:
    """Everything that is wrong with an open store; an empty list where nothing is.

    Without `deep`: metadata, lengths, missing chunks, offsets, foreign keys, hashes of hashes,
    stale layers. With it: every byte is read, decompressed and compared with its song's digest.
    """
    found: list[Finding] = []
    for name in store.layers():
        try:
            layer = store.layer(name)
            if layer is None:
                found += _lost_metadata(store, name)
                continue
            problems = list(_check_layer(store, layer))
            if not problems:
                problems += list(_CHECKS[name.split("/")[0]](store, layer))
                problems += list(_check_digests(store, layer)) if deep else []
        except StoreError as error:
            problems = [str(error).removeprefix(f"{store.where}: ")]
        found += [Finding(name, problem) for problem in problems]
    for family in FAMILIES:
        found += _lost_members(store, family)
    found += [Finding("maps", problem) for problem in _check_maps(store, deep)]
    found += [Finding(GROUP, problem) for problem in check_takes(store, deep=deep)]
    return found


def _lost_members(store: Store, family: str) -> Iterator[Finding]:
    """Layers of a family whose metadata is gone: zarr itself no longer lists them."""
    path = files.local_path(store.location)
    folder = path / family if path is not None else None
    for one in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
        name = f"{family}/{one.name}"
        if is_layer(name) and name not in store.layers():
            with files.damage(store.where, name):
                part: Any = store.root.get(f"{name}/digest")
                if part is not None and part.shape[0]:
                    yield Finding(name, _NO_METADATA)


def _lost_metadata(store: Store, name: str) -> list[Finding]:
    for array in LAYERS[name].arrays:
        with files.damage(store.where, f"{name}/{array.name}"):
            part: Any = store.root.get(f"{name}/{array.name}")
            if part is not None and part.shape[0] > array.rows(0):
                return [Finding(name, _NO_METADATA)]
    return []


def _check_layer(store: Store, layer: Layer) -> Iterator[str]:
    """What is the same for every layer."""
    for array in layer.arrays:
        yield from _missing_chunks(store, layer, array.name)
        if array.edges:
            edges = layer.read(array.name)
            counted = layer.length(array.edges)
            if edges[0] != 0 or (np.diff(edges) < 0).any() or edges[-1] != counted:
                yield f"{array.name} does not run from 0 up to {counted}"
    if len(layer.digests()) != layer.length() * DIGEST_BYTES or (
        content_hash(layer.digests()) != layer.state.hash
    ):
        yield "the hash in its metadata is not that of its digests"
    reason = store.stale(layer.spec.name)
    if reason:
        yield f"stale: {reason}; make them again with --force"


def _missing_chunks(store: Store, layer: Layer, name: str) -> Iterator[str]:
    """Chunks of published rows that are not on disk (zarr itself would read zeros)."""
    path = files.local_path(store.location)
    rows, array = layer.read_rows(name), layer.array(name)
    if path is None or not rows:
        return
    part = layer.part(name)
    for i in range(math.ceil(rows / array.write_rows)):
        key = part.metadata.encode_chunk_key((i,) + (0,) * len(array.tail))
        chunk = path / layer.path(name) / key
        if not chunk.is_file() or not chunk.stat().st_size:
            yield f"{name}: {chunk.relative_to(path)} is missing or empty"


def _check_songs(store: Store, layer: Layer) -> Iterator[str]:
    kept, n_samples = layer.read("kept"), layer.read("n_samples")
    if (np.diff(layer.read("offset")) != n_samples).any():
        yield "n_samples and offset disagree"
    if (n_samples[~kept] != 0).any() or (n_samples[kept] <= 0).any():
        yield "kept songs need samples, and rejected ones must have none"
    ids = layer.read("id").tolist()
    if len(set(ids)) != len(ids):
        yield f"{len(ids) - len(set(ids))} ids are used twice"


def _check_beats(store: Store, layer: Layer) -> Iterator[str]:
    songs = store.need("songs")
    if layer.length() > songs.length():
        yield f"{layer.length()} songs, but the store holds {songs.length()}"
        return
    time_s, edges = layer.read("time_s"), layer.read("song_offset")
    duration_s = np.array([s.start_s + s.duration_s for s in store.songs()][: layer.length()])
    owner = np.repeat(np.arange(layer.length()), np.diff(edges))
    if not np.isfinite(time_s).all() or (np.diff(time_s)[np.diff(owner) == 0] <= 0).any():
        yield "times that do not increase"
    elif (time_s > duration_s[owner]).any() or (time_s < 0).any():
        yield "times outside their songs"


def _check_bars(store: Store, layer: Layer) -> Iterator[str]:
    songs, beats = store.need("songs"), store.need("beats")
    if layer.length() > min(songs.length(), beats.length()):
        yield f"{layer.length()} songs, but the layers before hold fewer"
        return
    owner = np.repeat(np.arange(layer.length()), np.diff(layer.read("song_offset")))
    if (layer.read("song") != owner).any():
        yield "column song names other songs than song_offset does"
    start_s, end_s = layer.read("start_s"), layer.read("end_s")
    if not (np.isfinite(start_s).all() and np.isfinite(end_s).all() and (end_s > start_s).all()):
        yield "bars that end before they start"


def _check_latents(store: Store, layer: Layer) -> Iterator[str]:
    parent = store.need(layer.spec.parents[0])
    if layer.length() > parent.length():
        yield f"{layer.length()} songs, but its {parent.spec.name} reach {parent.length()}"
        return
    counts = np.diff(layer.read("song_offset"))
    if parent.spec.name == "bars":
        wanted = np.diff(parent.read("song_offset"))[: layer.length()]
    else:
        wanted = -(-layer.read("n_samples") // int(layer.spec.facts["samples"]))
    if (counts != wanted).any():
        yield f"song {int(np.argmax(counts != wanted))} has more or fewer items than it should"
    for start in range(0, layer.length("items"), _ITEMS):
        if not np.isfinite(layer.read("z", start, start + _ITEMS)).all():
            yield "z holds NaN or infinity"
            return


def _check_actions(store: Store, layer: Layer) -> Iterator[str]:
    bars, facts = store.need("bars"), layer.spec.facts
    if layer.length() > bars.length():
        yield f"{layer.length()} songs, but the bars reach {bars.length()}"
        return
    counts = np.diff(layer.read("song_offset"))
    wanted = np.diff(bars.read("song_offset"))[: layer.length()]
    if (counts != wanted).any():
        yield f"song {int(np.argmax(counts != wanted))} has more or fewer bars than it should"
    name = "index" if facts["bottleneck"] == "style" else "codes"
    index = layer.read(name)
    if (index < 0).any() or (index >= facts["actions"]).any():
        yield f"{name} names actions outside 0 to {facts['actions'] - 1}"
    if name == "index" and not np.allclose(layer.read("weight").sum(axis=1), 1.0, atol=1e-3):
        yield "weights that do not sum to 1"


_CHECKS = {
    "songs": _check_songs, "beats": _check_beats, "bars": _check_bars, LATENTS: _check_latents,
    ACTIONS: _check_actions,
}  # fmt: skip


def _check_maps(store: Store, deep: bool) -> Iterator[str]:
    try:
        songs = store.songs()
        for number in store.maps():
            entry = store.map(number)
            if not 0 <= entry.song < len(songs):
                yield f"{number} is of song {entry.song}, which the store does not hold"
            elif songs[entry.song].sha256 != entry.song_sha256:
                yield f"{number} is stale: song {entry.song} is another one now"
            if deep and content_hash(map_bytes(entry.notes)) != entry.hash:
                yield f"{number}: its notes are not those that were written"
    except StoreError as error:
        yield str(error).removeprefix(f"{store.where}: ")


def _check_digests(store: Store, layer: Layer) -> Iterator[str]:
    """Read everything and compare each song's content with its digest."""
    for name in (a.name for a in layer.arrays):
        if not layer.array(name).sharded:
            layer.read(name)  # columns outside the digest still have their checksums
    stored = layer.read("digest")
    for song in range(layer.length()):
        digest = _song_digest(store, layer, song)
        if digest != stored[song].tobytes():
            yield f"song {song} is not what was written (its content does not match its digest)"


def _song_digest(store: Store, layer: Layer, song: int) -> bytes:
    name = layer.spec.name
    if name == "songs":
        row = store.song(song)
        digest = rows_digest(layer.spec, {"start_s": np.array([row.start_s])})
        for block in store.song_pcm(song).blocks(_BLOCK):
            digest.update(block.astype("<i2", copy=False).tobytes())
        return digest.digest()
    start, stop = layer.read("song_offset", song, song + 2).tolist()
    columns: dict[str, npt.NDArray[Any]] = {}
    for array in layer.spec.arrays:
        if not (array.sharded or array.edges or array.name == "digest"):
            rows = (song, song + 1) if array.axis == "songs" else (start, stop)
            columns[array.name] = layer.read(array.name, *rows)
    digest = rows_digest(layer.spec, columns)
    if name == "bars":
        for at in range(start, stop, 64):
            pcm = layer.read("pcm", at, min(at + 64, stop))
            digest.update(pcm.astype("<i2", copy=False).tobytes())
    return digest.digest()
