"""Reading recordings: whole, in part, or as a stream whose memory stays flat.

Arrays: C channels, N samples, n samples of one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgen.core.audio.decoding import Source, open_source
from mgen.core.errors import AudioError, UsageError

MIN_SONG_S = 1.0
"""Shorter than this, a recording is refused by `require_usable`."""

SILENCE_PEAK = 10.0 ** (-70 / 20)
"""A recording whose largest sample is smaller (-70 dBFS) is refused as silent."""


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Samples (C, N) float32 and their rate in Hz."""

    samples_CN: np.ndarray
    rate: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples_CN.shape[1] / self.rate

    def mono(self) -> np.ndarray:
        """Return the mean of the channels, (N,) float32."""
        return _downmix(self.samples_CN)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a file's header says. `n_samples` counts per channel and is None where unknown."""

    path: Path
    format: str
    subtype: str
    rate: int
    channels: int
    n_samples: int | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says of its music; '' where it says nothing. `title` is never empty."""

    title: str
    artist: str
    album: str
    year: str
    genre: str


def probe(path: str | Path) -> SourceInfo:
    """Read a recording's header.

    Raises
    ------
    InputNotFoundError, AudioError, MissingDependencyError
        As `read_audio`; samples are not decoded, so damage inside is not seen.
    """
    with open_source(path) as source:
        n = source.n_samples
        return SourceInfo(
            Path(path), source.format, source.subtype, source.rate, source.channels, n,
            None if n is None else n / source.rate,
        )  # fmt: skip


def read_tags(path: str | Path) -> Tags:
    """Read title, artist, album, year and genre; the title falls back to the file's stem.

    Raises
    ------
    InputNotFoundError, AudioError, MissingDependencyError
        As `read_audio`.
    """
    with open_source(path) as source:
        tags = source.tags
    return Tags(
        title=tags.get("title") or Path(path).stem,
        artist=tags.get("artist", ""),
        album=tags.get("album", ""),
        year=tags.get("date", "")[:4],
        genre=tags.get("genre", ""),
    )


def read_audio(path: str | Path, *, start_s: float = 0.0, duration_s: float | None = None) -> Audio:
    """Read a recording, or a part of it, at its own rate and channels.

    Parameters
    ----------
    path
        Any format of libsndfile (wav, flac, ogg, opus, mp3, aiff, ...); others through `ffmpeg`.
    start_s, duration_s
        Where to begin and how much to read, in seconds; a part past the end is shorter.

    Raises
    ------
    InputNotFoundError
        If the file is not there.
    AudioError
        If it is empty, no audio, damaged, cut short, or holds samples that are no numbers.
    MissingDependencyError
        If only an `ffmpeg` program could read it, and there is none.
    UsageError
        If `start_s` or `duration_s` is negative.
    """
    if start_s < 0 or (duration_s is not None and duration_s < 0):
        raise UsageError(f"{path}: cannot read from {start_s} s for {duration_s} s")
    with open_source(path) as source:
        rate, channels = source.rate, source.channels
        count = None if duration_s is None else round(duration_s * rate)
        blocks = list(source.blocks(round(start_s * rate), count, 1 << 20))
    if not blocks and start_s == 0 and count != 0:
        raise _no_samples(path)
    empty = np.zeros((channels, 0), np.float32)
    return Audio(np.concatenate(blocks, axis=1) if blocks else empty, rate)


def stream_audio(path: str | Path, block_s: float = 30.0) -> Iterator[np.ndarray]:
    """Read a recording in blocks (C, n) float32 of `block_s` seconds; memory stays flat.

    Raises
    ------
    InputNotFoundError, AudioError, MissingDependencyError
        As `read_audio`; damage is only found when the stream comes to it.
    """
    with open_source(path) as source:
        yield from _all_blocks(path, source, block_s)


def stream_mono(path: str | Path, rate: int = 16000, block_s: float = 30.0) -> Iterator[np.ndarray]:
    """Read a recording as mono at `rate`, in blocks (n,) float32 of about `block_s` seconds.

    All blocks together have `round(N * rate / source_rate)` samples, and equal resampling in one
    go (soxr, high quality) within its tolerance.

    Raises
    ------
    InputNotFoundError, AudioError, MissingDependencyError
        As `stream_audio`.
    """
    with open_source(path) as source:
        mono = (_downmix(block) for block in _all_blocks(path, source, block_s))
        yield from mono if rate == source.rate else _resampled(mono, source.rate, rate)


def read_mono(path: str | Path, rate: int = 16000) -> np.ndarray:
    """Read a whole recording as mono at `rate`, (N,) float32. Raises as `stream_mono`."""
    return np.concatenate([np.zeros(0, np.float32), *stream_mono(path, rate)])


def require_usable(
    path: str | Path, *, duration_s: float, peak: float, min_s: float = MIN_SONG_S
) -> None:
    """Refuse a recording that can be read but holds no music to work on.

    Raises
    ------
    AudioError
        If it is shorter than `min_s` seconds, or its largest sample is below `SILENCE_PEAK`.
    """
    if duration_s < min_s:
        raise AudioError(
            f"{path}: too short ({duration_s:.3g} s); give a recording of at least {min_s:g} s"
        )
    if peak < SILENCE_PEAK:
        level = f"peak {20 * math.log10(peak):.0f} dBFS" if peak > 0 else "all samples are zero"
        raise AudioError(f"{path}: silent ({level}); check how it was recorded or exported")


def _all_blocks(path: str | Path, source: Source, block_s: float) -> Iterator[np.ndarray]:
    empty = True
    for block in source.blocks(0, None, max(1, round(block_s * source.rate))):
        empty = False
        yield block
    if empty:
        raise _no_samples(path)


def _no_samples(path: str | Path) -> AudioError:
    return AudioError(f"{path}: a header without any samples; copy or export it again")


def _downmix(samples_CN: np.ndarray) -> np.ndarray:
    if samples_CN.shape[0] == 1:
        return samples_CN[0]
    mean: np.ndarray = samples_CN.mean(axis=0, dtype=np.float32)
    return mean


def _resampled(blocks: Iterator[np.ndarray], old: int, new: int) -> Iterator[np.ndarray]:
    import soxr

    stream = soxr.ResampleStream(old, new, 1, dtype="float32", quality="HQ")
    taken = given = 0
    for block in blocks:
        taken += len(block)
        part = stream.resample_chunk(block)
        # soxr may round the length up: never give more than the part that is sure
        part = part[: max(0, round(taken * new / old) - given)]
        given += len(part)
        if len(part):
            yield part
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    short = round(taken * new / old) - given
    rest = np.pad(rest[:short], (0, max(0, short - len(rest))))
    if len(rest):
        yield rest.astype(np.float32, copy=False)
