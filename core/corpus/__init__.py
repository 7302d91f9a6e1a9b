"""Passes over a corpus: audio files -> songs, songs -> beats and bars; generators of reports.

Workers decode, track and warp, and leave sound in the store's spool folder, so that hours never
sit in memory or cross a pipe; one coordinator appends it to the store and publishes song by song.
Whatever was published stays when a pass is stopped, and the same call goes on from there.
"""

from mgen.core.corpus.bars import (
    BarReport,
    Segmentation,
    SegmentedFile,
    segment_file,
    segment_songs,
)
from mgen.core.corpus.songs import SongReport, filter_songs, list_songs

__all__ = [
    "BarReport",
    "Segmentation",
    "SegmentedFile",
    "SongReport",
    "filter_songs",
    "list_songs",
    "segment_file",
    "segment_songs",
]  # fmt: skip
