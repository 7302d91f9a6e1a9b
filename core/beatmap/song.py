"""The song inside a level: audio whose sample 0 is beat 0, as Ogg Vorbis.

Arrays: C channels, n samples of one block.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mgen.core.audio import SourceInfo, probe, read_audio, stream_audio
from mgen.core.beatmap.formats.archive import vorbis_length

if TYPE_CHECKING:
    from mgen.core.beatmap.rhythm import Timing

HOT_START_S = 2.0
"""The first note comes no earlier: the player needs to see it fly in."""
EXACT_S = 1e-3
"""A shift smaller than this is none: a person hears no less than ten times as much."""
MAX_BAR_LEAD_S = 4.0
"""Padding goes to a whole bar as long as that costs no more silence than this."""
QUALITY = 0.6
"""Vorbis quality q6, about 190 kbit/s in stereo: what people upload."""

_RATES = (22050, 24000, 32000, 44100, 48000)
_BLOCK = 1 << 16  # libsndfile's encoder can overrun its stack on one very large write

# left-channel weights by channel count (WAVE order); the right one mirrors them
_LEFT_WEIGHTS = {
    3: (1.0, 0.0, 0.71),
    4: (1.0, 0.0, 0.71, 0.0),
    5: (1.0, 0.0, 0.71, 0.71, 0.0),
    6: (1.0, 0.0, 0.71, 0.0, 0.71, 0.0),
}
_MIRROR = {3: (1, 0, 2), 4: (1, 0, 3, 2), 5: (1, 0, 2, 4, 3), 6: (1, 0, 2, 3, 5, 4)}


@dataclass(frozen=True, slots=True)
class Lead:
    """Silence before the song: the source's `timing.offset_s` becomes chart beat `beats`."""

    beats: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PackedSong:
    """A level's audio. `own_bytes`: the source file itself, not encoded again."""

    data: bytes
    rate: int
    n_samples: int
    lead: Lead
    own_bytes: bool

    @property
    def duration_s(self) -> float:
        """Length with the lead, in seconds."""
        return self.n_samples / self.rate


def plan_lead(timing: Timing, opening_s: float = 0.0) -> Lead:
    """Choose the silence that puts beat 0 on sample 0 and leaves the opening playable.

    The shortest lead of whole beats that puts the first sound at least `HOT_START_S` into the
    song; whole bars where that costs at most `MAX_BAR_LEAD_S` in all; none where the file is on
    the grid as it is.

    Parameters
    ----------
    timing
        The grid: `offset_s` is a beat of the source, a bar's first where that is known.
    opening_s
        When the first sound that a note may stand on is heard, in the source.
    """
    beat_s = 60.0 / timing.bpm
    least_s = max(0.0, HOT_START_S - opening_s)
    slack_s = 1e-6 if least_s else EXACT_S
    beats = math.ceil((timing.offset_s + least_s - slack_s) / beat_s)

    def seconds(k: int) -> float:
        lead = k * beat_s - timing.offset_s
        return 0.0 if abs(lead) < EXACT_S else lead

    if seconds(beats) == 0.0:
        return Lead(beats, 0.0)
    to_bar = math.ceil(beats / timing.beats_per_bar) * timing.beats_per_bar
    if seconds(to_bar) <= max(MAX_BAR_LEAD_S, seconds(beats)):
        beats = to_bar
    return Lead(beats, seconds(beats))


def pack_song(
    path: str | os.PathLike[str],
    lead: Lead,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> PackedSong:
    """Make a level's audio from a recording; the same input gives the same bytes.

    Where no padding is needed and the source is Ogg Vorbis already, its own bytes are taken.
    Otherwise it is decoded, padded and encoded in blocks at its own rate (44.1 or 48 kHz where
    that is exotic), mono or stereo. `start_s` and `duration_s` take a part of the recording.

    Raises
    ------
    InputNotFoundError, AudioError, MissingDependencyError
        As `mgen.core.audio.read_audio`.
    """
    path = Path(path)
    info = probe(path)
    whole = start_s == 0.0 and duration_s is None
    if lead.seconds == 0.0 and whole and _is_playable(info):
        data = path.read_bytes()
        length = vorbis_length(data)
        if length is not None and length[1] == info.rate:
            return PackedSong(data, info.rate, length[0], lead, own_bytes=True)
    rate = target_rate(info.rate)
    if whole:
        source = stream_audio(path, block_s=10.0)
    else:
        source = iter([read_audio(path, start_s=start_s, duration_s=duration_s).samples_CN])
    data, n_samples = _encode(_padded(source, info, rate, lead.seconds), rate)
    return PackedSong(data, rate, n_samples, lead, own_bytes=False)


def _is_playable(info: SourceInfo) -> bool:
    vorbis = info.format == "OGG" and info.subtype == "VORBIS"
    return vorbis and info.channels <= 2 and info.rate in _RATES


def target_rate(rate: int) -> int:
    """Rate of the level's audio for a source's: its own where the game surely plays that."""
    if rate in _RATES:
        return rate
    return 44100 if rate % 11025 == 0 else 48000


def _padded(
    source: Iterator[np.ndarray], info: SourceInfo, rate: int, lead_s: float
) -> Iterator[np.ndarray]:
    channels = min(info.channels, 2)
    pad = round(lead_s * rate)
    if pad:
        yield np.zeros((channels, pad), np.float32)
    stereo = (downmixed(block) for block in source)
    yield from stereo if rate == info.rate else _resampled(stereo, info.rate, rate, channels)


def downmixed(block_Cn: np.ndarray) -> np.ndarray:
    """Fold more than two channels to two: centre and surrounds at -3 dB, no LFE (ITU-R BS.775)."""
    channels = len(block_Cn)
    if channels <= 2:
        return block_Cn
    weights = _LEFT_WEIGHTS.get(channels)
    if weights is None:
        return np.repeat(block_Cn.mean(axis=0, keepdims=True), 2, axis=0)
    left = np.array(weights, np.float32)
    mix_2C = np.stack([left, left[list(_MIRROR[channels])]]) / left.sum()
    folded: np.ndarray = mix_2C @ block_Cn
    return folded


def _resampled(
    blocks: Iterator[np.ndarray], old: int, new: int, channels: int
) -> Iterator[np.ndarray]:
    import soxr

    stream = soxr.ResampleStream(old, new, channels, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True).T


def _encode(blocks: Iterator[np.ndarray], rate: int) -> tuple[bytes, int]:
    import soundfile

    first = next(blocks)
    buffer = io.BytesIO()
    written = 0
    with soundfile.SoundFile(
        buffer, "w", samplerate=rate, channels=len(first), format="OGG", subtype="VORBIS",
        compression_level=1.0 - QUALITY,
    ) as file:  # fmt: skip
        for block in itertools.chain([first], blocks):
            for start in range(0, block.shape[1], _BLOCK):
                part = np.ascontiguousarray(block[:, start : start + _BLOCK].T)
                file.write(part)
                written += len(part)
    return with_serial(buffer.getvalue(), 1), written


_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def with_serial(data: bytes, serial: int) -> bytes:
    """Give an Ogg stream a serial number of our own.

    libsndfile draws it at random, which would make every encoding of the same song differ. Each
    page's checksum (RFC 3533, section 6: polynomial 0x04c11db7, most significant bit first) is
    that of zlib with all bits mirrored and without its inversions.
    """
    out = bytearray(data)
    at = 0
    while data[at : at + 4] == b"OggS":
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        out[at + 14 : at + 18] = serial.to_bytes(4, "little")
        out[at + 22 : at + 26] = bytes(4)
        mirrored = zlib.crc32(out[at:end].translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        out[at + 22 : at + 26] = mirrored.to_bytes(4, "big").translate(_REVERSED)
        at = end
    return bytes(out)
