"""`takes/<n>`: edits of songs, each with its parent, what was asked for, and the sound it made.

A take holds the samples of its edited spans alone, in the type that the source is read as, so its
file can be written again from the source without a model. Its metadata is written last and makes it
exist. The group's own metadata says which take of each song is the current one (its head).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mgen.core.errors import StoreError, UsageError
from mgen.core.store import files
from mgen.core.store.layer import Provenance, content_hash

if TYPE_CHECKING:
    from mgen.core.store.store import Store
    from mgen.core.store.tables import SongRow

GROUP = "takes"

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredTake:
    """One edit of one song.

    Attributes
    ----------
    number
        Its place under `takes/`, from 1; 0 before it is stored.
    parent
        The take that it was made on, 0 for the original.
    song, song_sha256
        Id of the song in the store, and hash of the file that was edited.
    rate, channels, subtype, dtype
        Of the file, and the type of `pcm`.
    spans
        First sample and the one past the last of each edited stretch, in samples of the file.
    crossfade
        Samples of the crossfades, which lie inside the spans.
    bars
        Edited bars, from 0; those past the end of the song were appended.
    action
        Actions and their shares; empty where the action is that of another clip, or the strength 0.
    settings
        Everything that decides the result (strength, guidance, depth, ...), as it was asked for.
    palette
        Id of the palette that the actions are rows of.
    strength, seed, candidate
        Candidate k is the k-th of `--takes`, from 1.
    models
        Ids of the models: stage -> id.
    request
        Hash of all that decides the result; an edit that has it is the same edit.
    z
        Latents (bars, tokens, dims); of no tokens where nothing was written by a model.
    pcm
        Samples (N, C) of all spans, end to end.
    """

    number: int = 0
    parent: int = 0
    song: str
    song_sha256: str
    rate: int
    channels: int
    subtype: str
    spans: tuple[tuple[int, int], ...]
    crossfade: int
    bars: tuple[int, ...]
    action: tuple[tuple[int, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    palette: str = ""
    strength: float = 1.0
    seed: int = 0
    candidate: int = 1
    models: Mapping[str, str] = field(default_factory=dict)
    request: str = ""
    z: npt.NDArray[np.float16]
    pcm: npt.NDArray[Any]

    def pieces(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """First sample and samples (n, C) of each span."""
        at = 0
        for first, last in self.spans:
            yield first, self.pcm[at : at + last - first]
            at += last - first


_FACTS = (
    "parent", "song", "song_sha256", "rate", "channels", "subtype", "crossfade", "palette",
    "strength", "seed", "candidate", "request",
)  # fmt: skip


class Takes:
    """The takes of an open store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def numbers(self, song: SongRow | None = None) -> list[int]:
        """Numbers of the takes that are complete, in order; of one song, or of all."""
        store = self._store
        with files.damage(store.where, GROUP):
            if GROUP not in store.root:
                return []
            groups: Any = dict(store.root[GROUP].groups())  # type: ignore[union-attr]
            return sorted(
                int(n) for n, g in groups.items()
                if n.isdigit() and "mgen" in g.attrs
                and (song is None or g.attrs["mgen"]["song"] == song.id)
            )  # fmt: skip

    def read(self, number: int, song: SongRow | None = None, *, sound: bool = True) -> StoredTake:
        """One take; without `sound`, its arrays are empty.

        Raises
        ------
        UsageError
            If there is none of that number, or it is one of another song.
        StoreError
            If it is damaged.
        """
        store = self._store
        known = self.numbers(song)
        if number not in known:
            there = f"it has {_listed(known)}" if known else "it has none yet"
            of = f" of '{song.name}'" if song is not None else ""
            raise UsageError(f"{store.where}: there is no take {number}{of}; {there}")
        with files.damage(store.where, f"{GROUP}/{number}"):
            group: Any = store.root[f"{GROUP}/{number}"]
            about = group.attrs["mgen"]
            z, pcm = group["z"], group["pcm"]
            spans = tuple((int(a), int(b)) for a, b in about["spans"])
            if (
                pcm.shape[0] != sum(b - a for a, b in spans)
                or pcm.shape[0] != about["length"]["samples"]
            ):
                raise ValueError(f"{pcm.shape[0]} samples in spans {spans}")
            return StoredTake(
                number=number, spans=spans, bars=tuple(int(b) for b in about["bars"]),
                action=tuple((int(a), float(w)) for a, w in about["action"]),
                settings=dict(about["settings"]), models=dict(about["models"]),
                z=np.asarray(z[:] if sound else z[:0]),
                pcm=np.asarray(pcm[:] if sound else pcm[:0]),
                **{name: about[name] for name in _FACTS},
            )  # fmt: skip

    def with_request(self, request: str, song: SongRow) -> StoredTake | None:
        """The take that was made by the same request, if there is one."""
        for number in self.numbers(song):
            take = self.read(number, song, sound=False)
            if take.request == request:
                return take
        return None

    def line(self, number: int, song: SongRow) -> list[StoredTake]:
        """A take and those that it was made on, the oldest first; none for 0.

        Raises
        ------
        UsageError, StoreError
            As `read`; or if they stand in a circle.
        """
        found: list[StoredTake] = []
        while number:
            if number in (take.number for take in found):
                where = f"{self._store.where}: damaged at {GROUP}/{number}"
                raise StoreError(f"{where} (it was made on itself); restore it from a copy")
            found.insert(0, self.read(number, song))
            number = found[0].parent
        return found

    def free_number(self) -> int:
        """The number after the last take's."""
        return max(self.numbers(), default=0) + 1

    def add(self, take: StoredTake, provenance: Provenance) -> StoredTake:
        """Keep a take under its number (the next free one for 0): sound first, metadata last."""
        store = self._store
        number = take.number or self.free_number()
        if not store.writable:
            raise StoreError(f"{store.where}: opened for reading; open it with mode 'a'")
        if number in self.numbers():
            raise ValueError(f"take {number} is there already")
        with files.writing(store.where):
            takes: Any = store.root.require_group(GROUP)
            group = takes.create_group(str(number), overwrite=True)
            _write_array(group, "z", take.z, ("bar", "token", "dim"))
            _write_array(group, "pcm", take.pcm, ("sample", "channel"))
            about = {
                "layer": "take", "length": {"samples": len(take.pcm), "bars": len(take.bars)},
                "spans": [list(span) for span in take.spans], "bars": list(take.bars),
                "action": [list(share) for share in take.action],
                "settings": dict(take.settings), "models": dict(take.models),
                "command": provenance.command, "hash": _hash(take),
                **{name: getattr(take, name) for name in _FACTS},
            }  # fmt: skip
            group.update_attributes({"mgen": about})
        return replace(take, number=number)

    # heads

    def head(self, song: SongRow) -> int:
        """Number of a song's current take, 0 for the original."""
        with files.damage(self._store.where, GROUP):
            if GROUP not in self._store.root:
                return 0
            about: Any = self._store.root[GROUP].attrs.get("mgen", {})
            return int(about.get("heads", {}).get(song.id, 0))

    def move_head(self, song: SongRow, number: int) -> None:
        """Make a take (0: the original) the current one of its song, in one step."""
        store = self._store
        if number:
            self.read(number, song, sound=False)
        if self.head(song) == number:
            return
        if not store.writable:
            raise StoreError(f"{store.where}: opened for reading; open it with mode 'a'")
        with files.damage(store.where, GROUP), files.writing(store.where):
            group = store.root.require_group(GROUP)
            about: Any = group.attrs.get("mgen", {})
            heads = {**about.get("heads", {}), song.id: number}
            group.update_attributes({"mgen": {**about, "heads": heads}})


def check_takes(store: Store, *, deep: bool = False) -> Iterator[str]:
    """What is wrong with the takes of a store; with `deep` their sound is read and compared."""
    takes = Takes(store)
    try:
        numbers = takes.numbers()
        sources = {song.id: song.sha256 for song in store.songs()} if numbers else {}
    except StoreError as error:
        yield str(error).removeprefix(f"{store.where}: ")
        return
    for number in numbers:
        try:
            take = takes.read(number, sound=deep)
        except StoreError as error:
            yield str(error).removeprefix(f"{store.where}: ")
            continue
        if take.song not in sources:
            yield f"{number} is of song {take.song}, which the store does not hold"
        elif sources[take.song] != take.song_sha256:
            yield f"{number} is stale: song {take.song} is another one now"
        if take.parent and take.parent not in numbers:
            yield f"{number} was made on take {take.parent}, which is not there"
        if deep and _hash(take) != store.root[f"{GROUP}/{number}"].attrs["mgen"]["hash"]:  # type: ignore[index, call-overload]
            yield f"{number}: its sound is not what was written"


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers)


def _hash(take: StoredTake) -> str:
    z = np.ascontiguousarray(take.z, "<f2").tobytes()
    pcm = np.ascontiguousarray(take.pcm, take.pcm.dtype.newbyteorder("<")).tobytes()
    return content_hash(z + pcm)


def _write_array(
    group: Any, name: str, data: npt.NDArray[Any], dimensions: tuple[str, ...]
) -> None:
    from zarr.codecs import ZstdCodec

    row = max(1, data[:1].nbytes)
    part = group.create_array(
        name, shape=data.shape, dtype=data.dtype,
        chunks=(max(1, min(len(data), _CHUNK_BYTES // row)), *(max(1, n) for n in data.shape[1:])),
        compressors=ZstdCodec(level=1, checksum=True), config={"write_empty_chunks": True},
        dimension_names=dimensions,
    )  # fmt: skip
    part[:] = data
