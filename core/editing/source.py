"""The recording that is edited, sample for sample as libsndfile decodes it.

Integer files are read as the integers that they hold, 64-bit float ones as float64, everything else
as float32; so what is not edited goes back into a file unchanged. Nothing is read whole.

Arrays: C channels, N samples, n samples of one block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mgen.core.audio import sha256_file
from mgen.core.audio.decoding import EXPORT_CURE, open_source
from mgen.core.errors import AudioError, InputError
from mgen.core.store import SongRow, Store

BLOCK = 1 << 16
"""Samples per channel that are in memory at once while a file is copied."""

# what libsndfile reads each encoding as, and the encoding that takes it back without loss
_INT16 = (
    "PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "ALAC_16",
    "DWVW_12", "DWVW_16",
)  # fmt: skip
_INT32 = ("PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32", "DWVW_24")
_TAGS = ("title", "artist", "album", "date", "genre")
_KEPT = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"}
_KEPT_AS = {"ALAC_20": "PCM_24", "ALAC_24": "PCM_24", "DWVW_24": "PCM_24", "ALAC_32": "PCM_32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a recording holds its samples.

    Attributes
    ----------
    format, subtype
        libsndfile's names; of a file that only `ffmpeg` reads, its ending and codec.
    rate, channels
        Of the file.
    dtype
        NumPy's name of the type that its samples are read as.
    exact_subtype
        libsndfile's name of an encoding that holds these samples without loss.
    tags
        Title, artist and the like, where the file has them.
    """

    format: str
    subtype: str
    rate: int
    channels: int
    dtype: str
    exact_subtype: str
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def full_scale(self) -> float:
        """The number that stands for 1.0."""
        return {"int16": 32768.0, "int32": 2147483648.0}.get(self.dtype, 1.0)

    @property
    def step(self) -> int:
        """Distance of two neighbouring values of an integer encoding, in the type it is read as.

        libsndfile gives 24 bits in the upper part of 32, and 8 bits in the upper part of 16.
        """
        return {"PCM_24": 256, "PCM_S8": 256, "PCM_U8": 256}.get(self.exact_subtype, 1)


class SourceFile(AbstractContextManager["SourceFile"]):
    """An open recording.

    Raises
    ------
    InputNotFoundError, AudioError, MissingDependencyError
        If it is not there, damaged, no audio, or only an absent `ffmpeg` could read it.
    """

    def __init__(self, path: Path) -> None:
        import soundfile

        self.path = path
        with open_source(path) as header:
            self._promised = header.n_samples
            tags = tuple((key, header.tags[key]) for key in _TAGS if header.tags.get(key))
        dtype = "int16" if header.subtype in _INT16 else "float32"
        dtype = "int32" if header.subtype in _INT32 else dtype
        dtype = "float64" if header.subtype == "DOUBLE" else dtype
        exact = header.subtype if header.subtype in _KEPT else _KEPT_AS.get(header.subtype)
        exact = exact or {"int16": "PCM_16"}.get(dtype, "FLOAT")
        self._file: Any = None
        if dtype != "float32":
            self._file = soundfile.SoundFile(os.fspath(path))
        self.encoding = Encoding(
            format=header.format, subtype=header.subtype, rate=header.rate,
            channels=header.channels, dtype=dtype, exact_subtype=exact, tags=tags,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def length_bound(self, least: int = 0) -> int:
        """Samples per channel that the recording can have at most, as far as its header says."""
        return max(least, self._promised or 0)

    def blocks(self, size: int = BLOCK) -> Iterator[npt.NDArray[Any]]:
        """The whole recording from its first sample on, blocks (n, C) of its own type.

        Opus alone is decoded in one go: libsndfile 1.2.2 gives other samples for its last page
        where a read begins inside it.
        """
        if self._file is None:
            # from the start: what a lossy decoder gives must not depend on where it began
            with open_source(self.path) as source:
                whole = source.n_samples if self.encoding.subtype == "OPUS" else None
                for block_Cn in source.blocks(0, None, whole or size):
                    for at in range(0, block_Cn.shape[1], size):
                        yield np.ascontiguousarray(block_Cn[:, at : at + size].T)
            return
        with self._reading():
            self._file.seek(0)
            while len(block_nC := self._read(size)):
                yield block_nC

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[npt.NDArray[Any]]:
        """Samples `first` to `last` of each span, arrays (N, C); past the end there is less.

        Files that can be sought are sought, others are read once from the start.
        """
        if self._file is None:
            return self._pass_over(spans)
        found = []
        with self._reading():
            for first, last in spans:
                self._file.seek(min(first, self._file.frames))
                found.append(self._read(max(0, last - first)))
        return found

    def _pass_over(self, spans: Sequence[tuple[int, int]]) -> list[npt.NDArray[Any]]:
        parts: list[list[npt.NDArray[Any]]] = [[] for _ in spans]
        at = 0
        end = max((last for _, last in spans), default=0)
        for block_nC in self.blocks():
            for part, (first, last) in zip(parts, spans, strict=True):
                part.append(block_nC[max(0, first - at) : max(0, last - at)])
            at += len(block_nC)
            if at >= end:
                break
        empty = np.zeros((0, self.encoding.channels), self.encoding.dtype)
        return [np.concatenate([empty, *part]) for part in parts]

    def _read(self, count: int) -> npt.NDArray[Any]:
        block_nC: npt.NDArray[Any] = self._file.read(
            count, dtype=self.encoding.dtype, always_2d=True
        )
        return block_nC

    @contextmanager
    def _reading(self) -> Iterator[None]:
        import soundfile

        try:
            yield
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{self.path}: damaged or cut short; {EXPORT_CURE}") from error


def find_source(store: Store, song: SongRow, given: Path | None = None) -> Path:
    """The file that a song of a store was made from: where it was, or where a person says it is.

    Raises
    ------
    InputError
        If it is gone, or is not the same file any more.
    """
    path = given if given is not None else Path(song.source)
    cure = "name the file as it was: --source FILE"
    if given is not None:
        cure = f"give the file that '{song.name}' was made from (SHA-256 {song.sha256[:12]}...)"
    if not path.is_file():
        raise InputError(f"{path}: gone since {store.where} was made; {cure}")
    if sha256_file(path) != song.sha256:
        raise InputError(f"{path}: not the file that {store.where} was made from; {cure}")
    return path


def as_floats(pcm_NC: npt.NDArray[Any], encoding: Encoding) -> npt.NDArray[np.float32]:
    """Native samples (N, C) as float32 in -1..1."""
    return (pcm_NC / np.float64(encoding.full_scale)).astype(np.float32)


def as_native(samples_NC: npt.NDArray[Any], encoding: Encoding) -> npt.NDArray[Any]:
    """Float samples (N, C) as the type of the recording, rounded to the nearest and clipped.

    No dither is added: new sound comes with a noise floor far above the last bit, silence stays
    silence, what is not changed comes back to the bit, and the same edit gives the same bytes.
    """
    if encoding.dtype in ("float32", "float64"):
        return np.asarray(samples_NC, encoding.dtype)
    steps = encoding.full_scale / encoding.step
    rounded = np.rint(np.asarray(samples_NC, np.float64) * steps)
    limited = np.clip(rounded, -steps, steps - 1)
    return (limited * encoding.step).astype(encoding.dtype)
