"""What a store hands out: a song's row, its sound without loading it, a table of bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mgen.core.errors import StoreError
from mgen.core.store.layer import Layer
from mgen.core.store.schema import RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class SongRow:
    """One song of a store. `index` is its row; -1 before it is stored."""

    id: str
    name: str
    source: str
    sha256: str
    index: int = -1
    source_rate: int = 0
    source_channels: int = 0
    start_s: float = 0.0
    n_samples: int = 0
    quality: float = float("nan")
    kept: bool = True
    reason: str = ""

    @property
    def duration_s(self) -> float:
        """Length of the stored sound in seconds."""
        return self.n_samples / RATE


class SongPcm:
    """A song's samples, int16 mono at 16 kHz, read from the store where they are sliced."""

    def __init__(self, layer: Layer, start: int, stop: int) -> None:
        self._layer, self._start, self._stop = layer, start, stop

    dtype = np.dtype(np.int16)
    ndim = 1

    @property
    def shape(self) -> tuple[int]:
        """(N,), as an array would say."""
        return (len(self),)

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, key: slice) -> npt.NDArray[np.int16]:
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise ValueError("songs are read forwards and without gaps: use a step of 1")
        data = self._layer.read("pcm", self._start + start, self._start + max(start, stop))
        return data.astype(np.int16, copy=False)

    def blocks(self, samples: int = 1 << 20) -> Iterator[npt.NDArray[np.int16]]:
        """The whole song in blocks, one in memory at a time."""
        for start in range(0, len(self), samples):
            yield self[start : start + samples]

    def floats(self) -> npt.NDArray[np.float32]:
        """The whole song (n,) as float32 in -1..1."""
        samples_N = np.empty(len(self), np.float32)
        at = 0
        for block in self.blocks():
            np.divide(block, 32768.0, out=samples_N[at : at + len(block)], dtype=np.float32)
            at += len(block)
        return samples_N


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BarTable:
    """Bars as columns (B,), in the order of the store.

    `row` addresses `Store.bar_pcm`; it is empty before the bars are stored.
    """

    song: npt.NDArray[np.int32]
    index: npt.NDArray[np.int32]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    beats: npt.NDArray[np.int8]
    bpm: npt.NDArray[np.float32]
    stretch: npt.NDArray[np.float32]
    jitter: npt.NDArray[np.int8]
    valid: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float32]
    row: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.start_s)

    def where(self, mask: npt.NDArray[np.bool_]) -> BarTable:
        """The bars where `mask` (B,) is true."""
        row = self.row[mask] if len(self.row) else self.row
        return BarTable(**{name: getattr(self, name)[mask] for name in BAR_COLUMNS}, row=row)


BAR_COLUMNS = (
    "song", "index", "start_s", "end_s", "beats", "bpm", "stretch", "jitter", "valid", "confidence",
)  # fmt: skip


def pick_song(songs: list[SongRow], wanted: str, where: str) -> SongRow:
    """The song that an id (or its beginning), a row number or a name means.

    Raises
    ------
    StoreError
        If no song, or more than one, is meant.
    """
    for test in (
        lambda s: s.id == wanted,
        lambda s: s.name == wanted,
        lambda s: str(s.index) == wanted,
        lambda s: len(wanted) >= 4 and s.id.startswith(wanted),
        lambda s: wanted.casefold() in s.name.casefold(),
    ):
        found = [s for s in songs if test(s)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{s.id} ({s.name})" for s in found[:4])
            raise StoreError(f"{where}: '{wanted}' is {len(found)} songs: {names}; give an id")
    raise StoreError(f"{where}: no song is called '{wanted}'; `mgen info` lists the {len(songs)}")
