"""Recordings: finding them, reading them at any rate, and writing them.

Arrays: C channels, N samples, n samples of one block. Samples are float32, full scale is 1.0.
"""

from mgen.core.audio.files import AUDIO_SUFFIXES, find_audio, sha256_file
from mgen.core.audio.reading import (
    MIN_SONG_S,
    SILENCE_PEAK,
    Audio,
    SourceInfo,
    Tags,
    probe,
    read_audio,
    read_mono,
    read_tags,
    require_usable,
    stream_audio,
    stream_mono,
)
from mgen.core.audio.writing import write_audio, write_wav

__all__ = [
    "AUDIO_SUFFIXES",
    "MIN_SONG_S",
    "SILENCE_PEAK",
    "Audio",
    "SourceInfo",
    "Tags",
    "find_audio",
    "probe",
    "read_audio",
    "read_mono",
    "read_tags",
    "require_usable",
    "sha256_file",
    "stream_audio",
    "stream_mono",
    "write_audio",
    "write_wav",
]
