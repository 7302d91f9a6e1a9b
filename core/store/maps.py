"""`maps/<n>`: the notes of maps that were written from a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mgen.core.errors import StoreError
from mgen.core.store.files import damage
from mgen.core.store.layer import Provenance, content_hash
from mgen.core.store.schema import NOTE_COLUMNS

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredMap:
    """The notes of one difficulty, float32 (notes, 5): beat, column, row, colour, direction."""

    song: int
    song_sha256: str
    difficulty: str
    seed: int
    model: str
    notes: npt.NDArray[np.float32]
    hash: str = ""


def read_maps(root: zarr.Group, where: str) -> list[int]:
    """Numbers of the maps whose metadata is written, which is done last."""
    with damage(where, "maps"):
        if "maps" not in root:
            return []
        groups = dict(root["maps"].groups())  # type: ignore[union-attr]
        return sorted(int(n) for n, g in groups.items() if n.isdigit() and "mgen" in g.attrs)


def read_map(root: zarr.Group, where: str, number: int) -> StoredMap:
    """One map; StoreError where there is none of that number or it is damaged."""
    if number not in read_maps(root, where):
        raise StoreError(f"{where}: holds no map {number}; `mgen info` lists what it holds")
    with damage(where, f"maps/{number}"):
        group: Any = root[f"maps/{number}"]
        about = group.attrs["mgen"]
        notes = np.asarray(group["notes"][:], np.float32)
        if notes.shape != (about["length"]["notes"], len(NOTE_COLUMNS)):
            raise ValueError(f"notes {notes.shape}")
        return StoredMap(
            song=int(about["song"]), song_sha256=str(about["song_sha256"]),
            difficulty=str(about["difficulty"]), seed=int(about["seed"]),
            model=str(about["model"]), notes=notes, hash=str(about["hash"]),
        )  # fmt: skip


def write_map(root: zarr.Group, entry: StoredMap, provenance: Provenance) -> int:
    """Write a map under the next free number: the notes first, the metadata makes it exist."""
    from zarr.codecs import ZstdCodec

    maps: Any = root.require_group("maps")
    taken = [int(n) for n, g in maps.groups() if n.isdigit() and "mgen" in g.attrs]
    number = max(taken, default=-1) + 1
    group = maps.create_group(str(number), overwrite=True)
    rows = max(1, len(entry.notes))
    notes = group.create_array(
        "notes", shape=entry.notes.shape, dtype="float32", chunks=(rows, len(NOTE_COLUMNS)),
        compressors=ZstdCodec(level=1, checksum=True), config={"write_empty_chunks": True},
        attributes={"columns": list(NOTE_COLUMNS)}, dimension_names=("note", "column"),
    )  # fmt: skip
    notes[:] = entry.notes
    about = {
        "layer": "map", "length": {"notes": len(entry.notes)}, "song": entry.song,
        "song_sha256": entry.song_sha256, "difficulty": entry.difficulty, "seed": entry.seed,
        "model": entry.model, "command": provenance.command,
        "settings": dict(provenance.settings), "hash": content_hash(map_bytes(entry.notes)),
    }  # fmt: skip
    group.update_attributes({"mgen": about})
    return number


def map_bytes(notes: npt.NDArray[np.float32]) -> bytes:
    """The notes as they are hashed."""
    return np.ascontiguousarray(notes, "<f4").tobytes()
