"""One layer of an open store: reading what is published, appending, publishing.

The commit protocol. Rows are appended beyond the published lengths: arrays grow, chunks and shards
are replaced by supersets of themselves, and nothing that is published changes. Then one
replacement of the layer's `zarr.json` (an atomic rename) publishes the new lengths, the hash and
the parents' hashes together. A writer that dies before it has published nothing; the next one cuts
the arrays back to the published lengths and goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mgen.core.errors import StoreError
from mgen.core.store.files import damage
from mgen.core.store.schema import DIGEST_BYTES, LAYERS, ArraySpec, LayerSpec

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made a layer: the command line, the settings that decide the result, the model's id."""

    command: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""

    def __post_init__(self) -> None:  # as JSON will give them back, so that they compare
        object.__setattr__(self, "settings", json.loads(json.dumps(dict(self.settings))))

    def same_work(self, other: Provenance) -> bool:
        """Whether both give the same result from the same input (the wording may differ)."""
        return self.settings == other.settings and self.model == other.model


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerState:
    """What a layer's metadata publishes."""

    length: Mapping[str, int]
    provenance: Provenance
    parents: Mapping[str, Mapping[str, Any]]
    hash: str


def content_hash(digests: bytes) -> str:
    """Hash of a layer, or of its first rows: SHA-256 over the digests of its songs, in order."""
    return hashlib.sha256(digests).hexdigest()


def rows_digest(spec: LayerSpec, columns: Mapping[str, npt.NDArray[Any]]) -> hashlib._Hash:
    """SHA-256 over one song's rows, small columns in the declared order; sound is added after."""
    digest = hashlib.sha256()
    for array in spec.arrays:
        if array.name in columns and not (array.sharded or array.edges or array.name == "digest"):
            digest.update(as_bytes(array, columns[array.name]))
    return digest


def as_bytes(array: ArraySpec, rows: npt.ArrayLike) -> bytes:
    """Rows as they are hashed: little-endian, strings as UTF-8 with a NUL after each."""
    if array.dtype == "str":
        return b"".join(str(row).encode() + b"\0" for row in np.asarray(rows).tolist())
    dtype = array.numpy_dtype.newbyteorder("<")
    return np.ascontiguousarray(rows, dtype).tobytes()


class Layer:
    """A layer that is open; see the module for the protocol."""

    def __init__(self, root: zarr.Group, spec: LayerSpec, where: str, *, writable: bool) -> None:
        self.spec = spec
        self._where = where
        self._writable = writable
        with damage(where, f"{spec.name}/zarr.json"):
            self._group = root[spec.name]
            self.state = _read_state(self._group.attrs.asdict(), spec)
        self._parts: dict[str, Any] = {}
        for array in (*spec.arrays, *self._companion_arrays()):
            self._parts[array.name] = self._open_array(root, array)
        self._digests: bytes | None = None
        self._written = {name: self.read_rows(name) for name in self._parts}
        if writable:
            self._cut_back()

    def _companion_arrays(self) -> tuple[ArraySpec, ...]:
        """Arrays of the layers that this one publishes as well."""
        return tuple(
            a for s in LAYERS.values() if s.published_by == self.spec.name for a in s.arrays
        )

    def _home(self, array: ArraySpec) -> str:
        for spec in LAYERS.values():
            if array in spec.arrays and spec.publisher == self.spec.name:
                return spec.name
        return self.spec.name

    def _open_array(self, root: zarr.Group, array: ArraySpec) -> Any:
        path = f"{self._home(array)}/{array.name}"
        with damage(self._where, path):
            part: Any = root[path]
            # chunks of zeros are written too: then a chunk that is not there is a sign of damage
            part = part.with_config({"write_empty_chunks": True})
            shape, dtype = part.shape, part.dtype
        need = array.rows(self.length(array.axis))
        if dtype != array.numpy_dtype or shape[1:] != array.tail or shape[0] < need:
            raise StoreError(
                f"{self._where}: damaged at {path} ({dtype}{list(shape)}, not {array.dtype}"
                f"{[need, *array.tail]}); restore it from a copy, or make the store again"
            )
        return part

    def array(self, name: str) -> ArraySpec:
        """The table's entry of an array of this layer."""
        return next(a for a in (*self.spec.arrays, *self._companion_arrays()) if a.name == name)

    def part(self, name: str) -> Any:
        """The zarr array itself, for checks; it may be longer than what is published."""
        return self._parts[name]

    def path(self, name: str) -> str:
        """Path of an array inside the store."""
        return f"{self._home(self.array(name))}/{name}"

    @property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """All arrays that this layer publishes."""
        return (*self.spec.arrays, *self._companion_arrays())

    def length(self, axis: str = "songs") -> int:
        """Published length of an axis."""
        return int(self.state.length[axis])

    def read_rows(self, name: str) -> int:
        """Published rows of an array."""
        array = self.array(name)
        return array.rows(self.length(array.axis))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Published rows `start:stop` of an array.

        Raises
        ------
        StoreError
            If the bytes on disk are damaged.
        """
        end = self.read_rows(name)
        stop = end if stop is None else min(stop, end)
        with damage(self._where, self.path(name)):
            return np.asarray(self._parts[name][start : max(start, stop)])

    def digests(self) -> bytes:
        """The digests of all published songs, end to end."""
        if self._digests is None:
            self._digests = self.read("digest").tobytes()
        return self._digests

    def hash_at(self, songs: int) -> str:
        """Hash of the first `songs` songs, so that a grown parent can still be recognised."""
        return content_hash(self.digests()[: songs * DIGEST_BYTES])

    # writing

    def _cut_back(self) -> None:
        """Drop rows that a dead writer appended and never published."""
        for name, part in self._parts.items():
            rows = self.read_rows(name)
            if part.shape[0] > rows:
                part.resize((rows, *part.shape[1:]))
            self._written[name] = rows

    def append(self, name: str, rows: npt.ArrayLike | Sequence[str]) -> None:
        """Write rows after those already written; no reader sees them before `publish`."""
        array, part = self.array(name), self._parts[name]
        data = np.asarray(rows, array.numpy_dtype)
        start, stop = self._written[name], self._written[name] + len(data)
        with damage(self._where, self.path(name)):  # the last chunk is read, and may be broken
            if part.shape[0] != stop:
                part.resize((stop, *array.tail))
            at = start
            while at < stop:  # shard by shard: memory stays at one shard, each is written once
                end = min(stop, (at // array.write_rows + 1) * array.write_rows)
                part[at:end] = data[at - start : end - start]
                at = end
        self._written[name] = stop

    def append_blocks(self, name: str, blocks: Iterable[npt.NDArray[Any]], digest: Any) -> int:
        """Write a stream of rows, gathered into whole shards; adds the bytes to `digest`.

        Returns the number of rows.
        """
        array = self.array(name)
        gathered: list[npt.NDArray[Any]] = []
        held = total = 0
        for block in blocks:
            digest.update(as_bytes(array, block))
            total += len(block)
            gathered.append(block)
            held += len(block)
            room = array.write_rows - self._written[name] % array.write_rows
            while held >= room:
                data = np.concatenate(gathered)
                gathered, held = [data[room:].copy()], held - room
                self.append(name, data[:room])
                room = array.write_rows
        if held:
            self.append(name, np.concatenate(gathered))
        return total

    def last_edge(self, axis: str) -> int:
        """Rows written so far along an axis: the value of the next edge."""
        name = next(a.name for a in self.arrays if a.axis == axis and not a.edges)
        return self._written[name]

    def publish(self, provenance: Provenance, parents: Mapping[str, Layer]) -> None:
        """Make everything that was appended visible, in one atomic replacement.

        Every array must have been appended to the same length along its axis.
        """
        length: dict[str, int] = {}
        for array in self.arrays:
            rows = self._written[array.name] - array.rows(0)
            assert length.setdefault(array.axis, rows) == rows, f"{array.name}: {rows} rows"
        songs, known = length["songs"], self.length()
        digests = self.digests()[: known * DIGEST_BYTES]
        if songs > known:
            with damage(self._where, self.path("digest")):
                digests += np.asarray(self._parts["digest"][known:songs]).tobytes()
        state = LayerState(
            length=length,
            provenance=provenance,
            parents={
                name: {"length": songs, "hash": parent.hash_at(songs)}
                for name, parent in parents.items()
            },
            hash=content_hash(digests),
        )
        self._group.update_attributes({"mgen": _write_state(state, self.spec)})
        self.state, self._digests = state, digests

    def clear(self, provenance: Provenance) -> None:
        """Publish the layer as empty, then drop its rows: work starts anew, by new settings."""
        empty = replace(
            self.state, length=dict.fromkeys(self.state.length, 0), provenance=provenance,
            parents={}, hash=content_hash(b""),
        )  # fmt: skip
        self._group.update_attributes({"mgen": _write_state(empty, self.spec)})
        self.state, self._digests = empty, b""
        self._cut_back()


def create_layer(root: zarr.Group, spec: LayerSpec, provenance: Provenance) -> None:
    """Make an empty layer, its companions first; it exists once its metadata says so."""
    companions = [s for s in LAYERS.values() if s.published_by == spec.name]
    axes: dict[str, int] = {}
    if "/" in spec.name:  # its family's group, which says nothing of its own
        root.require_group(spec.name.split("/")[0])
    for layer in (*companions, spec):
        group = root.create_group(layer.name, overwrite=True)
        if layer is not spec:
            group.update_attributes({"mgen": {"layer": layer.name, "published_by": spec.name}})
        for array in layer.arrays:
            _create_array(group, array)
            axes[array.axis] = 0
    state = LayerState(length=axes, provenance=provenance, parents={}, hash=content_hash(b""))
    group.update_attributes({"mgen": _write_state(state, spec)})


def _create_array(group: zarr.Group, array: ArraySpec) -> None:
    from zarr.codecs import ZstdCodec

    rows = array.rows(0)
    part = group.create_array(
        array.name,
        shape=(rows, *array.tail),
        dtype=array.numpy_dtype,
        chunks=(array.chunk_rows, *array.tail),
        shards=(array.write_rows, *array.tail) if array.sharded else None,
        compressors=ZstdCodec(level=1, checksum=True),  # a flipped bit is an error, not a sound
        config={"write_empty_chunks": True},
        dimension_names=array.dimensions,
    )
    if rows:
        part[:] = np.zeros(rows, array.numpy_dtype)


def _write_state(state: LayerState, spec: LayerSpec) -> dict[str, Any]:
    return {
        "layer": spec.name,
        **spec.facts,
        "length": dict(state.length),
        "command": state.provenance.command,
        "settings": dict(state.provenance.settings),
        "model": state.provenance.model,
        "parents": {k: dict(v) for k, v in state.parents.items()},
        "hash": state.hash,
    }


def _read_state(attributes: Mapping[str, Any], spec: LayerSpec) -> LayerState:
    """Parse a layer's `mgen` attribute; ValueError and the like where it is not as it should be."""
    about = attributes["mgen"]
    companions = [s for s in LAYERS.values() if s.published_by == spec.name]
    axes = {axis for s in (spec, *companions) for axis in s.axes}
    length = about["length"]
    if set(length) != axes or not all(type(n) is int and n >= 0 for n in length.values()):
        raise ValueError("attribute mgen.length")
    parents = {
        str(k): {"length": int(v["length"]), "hash": str(v["hash"])}
        for k, v in about["parents"].items()
    }
    provenance = Provenance(
        command=str(about["command"]), settings=about["settings"], model=str(about["model"])
    )
    return LayerState(
        length=length, provenance=provenance, parents=parents, hash=str(about["hash"])
    )
