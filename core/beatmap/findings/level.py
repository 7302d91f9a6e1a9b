"""Findings on a level as a whole: its files, its texts, its spread of difficulties."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from mgen.core.beatmap.chart import BeatMap
from mgen.core.beatmap.findings.sheet import Finding, Sheet

MIN_COVER = 256
MIN_SONG_S = 20.0
DEFAULT_PREVIEW = (12.0, 10.0)
BPM = (10.0, 1000.0)
MAX_NAMES, MAX_LABEL = 100, 30
STEP = (0.10, 0.40)
TOTAL_DROP = 0.60
# A song up to this long needs its slowest difficulty below so many swings per second.
LOWEST_SPS = ((120.0, 3.2), (240.0, 4.2), (360.0, 5.2))


def check(level: BeatMap, sheets: list[Sheet]) -> Iterator[Finding]:
    """All findings on the level as a whole."""
    yield from _files(level)
    yield from _texts(level)
    yield from _charts(level)
    yield from _progression(sheets, duration_of(level))


def duration_of(level: BeatMap) -> float | None:
    """Length of the song in seconds; None where it is not known."""
    if level.song_samples <= 0 or level.song_rate <= 0:
        return None
    return level.song_samples / level.song_rate


def _files(level: BeatMap) -> Iterator[Finding]:
    if not level.song:
        yield Finding("Missing file", "error", f"'{level.song_filename}' is not there")
    elif not level.song.startswith(b"OggS"):
        text = f"'{level.song_filename}' is not Ogg Vorbis; the game plays nothing else"
        yield Finding("Audio format", "error", text)
    length = duration_of(level)
    if length is not None and length < MIN_SONG_S:
        yield Finding("Short audio", "rank", f"{length:.1f} s, 20 or more wanted")
    if not level.cover:
        yield Finding("Missing file", "error", f"'{level.cover_filename}' is not there")
        return
    size = _picture_size(level.cover)
    if size is None:
        text = f"'{level.cover_filename}' is not a picture that the game reads"
        yield Finding("Cover image", "error", text)
    elif size[0] != size[1] or size[0] < MIN_COVER:
        text = f"{size[0]} x {size[1]} pixels; a square of at least {MIN_COVER} wanted"
        yield Finding("Cover image", "error", text)


def _picture_size(data: bytes) -> tuple[int, int] | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def _texts(level: BeatMap) -> Iterator[Finding]:
    if not level.title.strip():
        yield Finding("Song name", "error", "the song has no name")
    if len(level.title) + len(level.mapper) > MAX_NAMES:
        text = f"song name and mapper are longer than {MAX_NAMES} characters together"
        yield Finding("Song name", "error", text)
    if not BPM[0] <= level.bpm <= BPM[1]:
        yield Finding("BPM", "error", f"{level.bpm:g} is outside 10 to 1000")
    if level.song_time_offset_s != 0:
        text = f"{level.song_time_offset_s:g} instead of 0; pad the audio instead"
        yield Finding("Song time offset", "error", text)
    preview = (level.preview_start_s, level.preview_duration_s)
    if preview == DEFAULT_PREVIEW:
        yield Finding("Preview time", "info", "left at the default of 12 s for 10 s")
    elif preview[0] < 0 or preview[1] <= 0:
        yield Finding("Preview time", "error", f"from {preview[0]:g} s for {preview[1]:g} s")


def _charts(level: BeatMap) -> Iterator[Finding]:
    if not level.charts:
        yield Finding("No difficulty", "error", "a level without a difficulty")
    names = Counter((c.characteristic, c.difficulty.value) for c in level.charts)
    for (characteristic, name), count in names.items():
        if count > 1:
            text = f"{characteristic} {name} is there {count} times"
            yield Finding("Duplicate difficulty", "error", text)
    for chart in level.charts:
        if len(chart.label) > MAX_LABEL:
            text = f"the label is longer than {MAX_LABEL} characters"
            yield Finding("Difficulty label", "error", text, chart.difficulty.value)


def swings_per_second(sheet: Sheet) -> float:
    """Swings per second between the first and the last note; 0 for fewer than two times."""
    count = sum(len(hand) for hand in sheet.judged)
    if not sheet.notes or sheet.note_times[-1] <= sheet.note_times[0]:
        return 0.0
    return count / (sheet.note_times[-1] - sheet.note_times[0])


def _progression(sheets: list[Sheet], duration_s: float | None) -> Iterator[Finding]:
    """ScoreSaber's spread rule: steps of 10 to 40 % in swings per second, and an easy way in."""
    plain = [s for s in sheets if s.chart.characteristic == "Standard" and s.notes]
    speeds = sorted(((swings_per_second(s), s) for s in plain), key=lambda pair: pair[0])
    if duration_s is None or duration_s > LOWEST_SPS[-1][0] or not speeds:
        return
    lowest_wanted = next(sps for length, sps in LOWEST_SPS if duration_s <= length)
    lowest, highest = speeds[0][0], speeds[-1][0]
    if lowest > lowest_wanted and lowest > (1.0 - TOTAL_DROP) * highest:
        text = f"the lowest has {lowest:.1f} swings per second, {lowest_wanted} wanted"
        yield Finding("Difficulty progression", "rank", text)
    for (slow, _), (fast, sheet) in pairwise(speeds):
        drop = 1.0 - slow / fast
        if fast > lowest_wanted and not STEP[0] <= drop <= STEP[1]:
            text = f"{100 * drop:.0f} % fewer swings in the next one down, 10 to 40 wanted"
            yield Finding("Difficulty progression", "rank", text, sheet.name)
