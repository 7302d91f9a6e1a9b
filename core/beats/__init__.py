"""Where the beats and downbeats of a song are: trackers, fixed grids, files, refinement."""

from mgen.core.beats.files import read_beats
from mgen.core.beats.grid import Beats, fixed_beats
from mgen.core.beats.refine import refine_beats
from mgen.core.beats.track import TRACKERS, track_beats, tracker_id

__all__ = [
    "TRACKERS",
    "Beats",
    "fixed_beats",
    "read_beats",
    "refine_beats",
    "track_beats",
    "tracker_id",
]
