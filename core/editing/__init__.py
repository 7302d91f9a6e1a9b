"""Editing: bars of a recording are written anew, and the rest stays what it was, bit for bit.

    with open_cache(path, sha256_file(path)) as store:
        song = add_song(store, path, sha256_file(path))
        request = EditRequest(bars=parse_bars("8-12", 87), action=parse_action("17"))
        for step in edit_song(store, song, request, writer, Target(song=path)):
            ...

What writes the bars stands behind `BarWriter`; everything else here is signal processing.
"""

from mgen.core.editing.files import EditReport, Target, rewrite_take, undo
from mgen.core.editing.pipeline import edit_song, song_bars
from mgen.core.editing.request import BarWriter, Clip, EditRequest, WriteRequest, WrittenBars
from mgen.core.editing.spans import Share, every_bar, parse_action, parse_bars, parse_like

__all__ = [
    "BarWriter", "Clip", "EditReport", "EditRequest", "Share", "Target", "WriteRequest",
    "WrittenBars", "edit_song", "every_bar", "parse_action", "parse_bars", "parse_like",
    "rewrite_take", "song_bars", "undo",
]  # fmt: skip
