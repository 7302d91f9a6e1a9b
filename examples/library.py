"""mgen as a library: a song's bars, and a beat map of it, in 15 lines."""

import sys
from pathlib import Path

from mgen.core.beatmap.chart import Difficulty
from mgen.core.beatmap.formats import write_map
from mgen.core.beatmap.generate import ChartRequest
from mgen.core.beatmap.mapping import Mapped, Source, map_song
from mgen.core.corpus import segment_file

song, out = Path(sys.argv[1]), Path(sys.argv[2])
bars = segment_file(song).grid
print(f"{len(bars)} bars, the first from {bars.start_s[0]:.3f} s at {bars.bpm[0]:.1f} BPM")
for step in map_song(Source(song), [ChartRequest(difficulty=Difficulty.EXPERT_PLUS)]):
    if isinstance(step, Mapped):  # before it come the names of the steps
        write_map(out, step.beat_map)
        print(f"{len(step.beat_map.charts[0].notes)} notes at {step.timing.bpm:.2f} BPM -> {out}")
