"""Passes over a corpus: audio files -> songs, songs -> beats and bars, beats -> files
for a person to correct; generators of reports.

Workers decode, track and warp, and leave sound in the store's spool folder, so that hours never
sit in memory or cross a pipe; one coordinator appends it to the store and publishes song by song.
Whatever was published stays when a pass is stopped, and the same call goes on from there.
"""

from mgen.core.corpus.bars import (
    BarReport,
    Segmentation,
    SegmentedFile,
    known_songs,
    segment_file,
    segment_songs,
)
from mgen.core.corpus.exports import (
    ExportReport,
    export_songs,
    exports_folder,
    is_segmented,
    plan_exports,
)
from mgen.core.corpus.files import beats_files, file_stems
from mgen.core.corpus.report import write_report
from mgen.core.corpus.songs import SongReport, filter_songs, list_songs

__all__ = [
    "BarReport",
    "ExportReport",
    "Segmentation",
    "SegmentedFile",
    "SongReport",
    "beats_files",
    "export_songs",
    "exports_folder",
    "file_stems",
    "filter_songs",
    "is_segmented",
    "known_songs",
    "list_songs",
    "plan_exports",
    "segment_file",
    "segment_songs",
    "write_report",
]  # fmt: skip
