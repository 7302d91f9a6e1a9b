"""`Info.dat`: what a level is called, where its files are, and how fast its notes fly.

Written as 2.1.0; 2.x and 4.x are read. `BPMInfo.dat` 2.0.0 goes beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mgen import __version__
from mgen.core.beatmap.chart import BeatMap, Chart, Difficulty
from mgen.core.beatmap.formats.fields import Record, tidy
from mgen.core.beatmap.formats.tempo import regions
from mgen.core.errors import MapError, UsageError

INFO_NAME = "Info.dat"
BPM_INFO_NAME = "BPMInfo.dat"
INFO_VERSION = "2.1.0"
EDITOR = "mgen"
CHARACTERISTICS = (
    "Standard", "OneSaber", "NoArrows", "360Degree", "90Degree", "Legacy", "Lawless", "Lightshow",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One difficulty as Info.dat lists it: its chart without objects, and its files."""

    header: Chart
    filename: str
    lightshow: str = ""


@dataclass(frozen=True, slots=True)
class Info:
    """Info.dat as read: the map without charts, its difficulties, and v4's audio data file."""

    beat_map: BeatMap
    entries: tuple[Entry, ...]
    audio_data: str = ""


def parse(doc: Record) -> Info:
    """Read Info.dat of format 2 or 4.

    Raises
    ------
    MapError
        If it is of another format or a field is not what the format says.
    """
    version = doc.text("_version", doc.text("version"))
    if version.startswith("2"):
        return _parse_v2(doc, version)
    if version.startswith("4"):
        return _parse_v4(doc, version)
    named = f"of format {version[:12]}" if version else "without a version"
    raise MapError(
        f"{doc.where}: an info file {named}; formats 2 and 4 are read: save it in an editor"
    )


def _parse_v2(doc: Record, version: str) -> Info:
    entries = []
    for group in doc.records("_difficultyBeatmapSets"):
        for d in group.records("_difficultyBeatmaps"):
            header = Chart(
                difficulty=_difficulty(d, "_difficulty"),
                characteristic=group.text("_beatmapCharacteristicName", "Standard"),
                njs=d.number("_noteJumpMovementSpeed"),
                njs_offset=d.number("_noteJumpStartBeatOffset"),
                label=d.record("_customData").text("_difficultyLabel"),
            )
            entries.append(Entry(header, d.text("_beatmapFilename", None)))
    beat_map = BeatMap(
        title=doc.text("_songName"),
        subtitle=doc.text("_songSubName"),
        artist=doc.text("_songAuthorName"),
        mapper=doc.text("_levelAuthorName"),
        bpm=_bpm(doc, "_beatsPerMinute"),
        preview_start_s=doc.number("_previewStartTime", 12.0),
        preview_duration_s=doc.number("_previewDuration", 10.0),
        environment=doc.text("_environmentName", "DefaultEnvironment"),
        song_filename=doc.text("_songFilename", None),
        cover_filename=doc.text("_coverImageFilename", ""),
        version=version,
        song_time_offset_s=doc.number("_songTimeOffset"),
    )
    return Info(beat_map, tuple(entries))


def _parse_v4(doc: Record, version: str) -> Info:
    song, audio = doc.record("song"), doc.record("audio")
    entries, mappers = [], []
    for d in doc.records("difficultyBeatmaps"):
        header = Chart(
            difficulty=_difficulty(d, "difficulty"),
            characteristic=d.text("characteristic", "Standard"),
            njs=d.number("noteJumpMovementSpeed"),
            njs_offset=d.number("noteJumpStartBeatOffset"),
            label=d.record("customData").text("difficultyLabel"),
        )
        entries.append(
            Entry(header, d.text("beatmapDataFilename", None), d.text("lightshowDataFilename"))
        )
        names = d.record("beatmapAuthors").values("mappers")
        mappers += [n for n in names if isinstance(n, str) and n not in mappers]
    environments = [e for e in doc.values("environmentNames") if isinstance(e, str)]
    beat_map = BeatMap(
        title=song.text("title"),
        subtitle=song.text("subTitle"),
        artist=song.text("author"),
        mapper=", ".join(mappers),
        bpm=_bpm(audio, "bpm"),
        preview_start_s=audio.number("previewStartTime", 12.0),
        preview_duration_s=audio.number("previewDuration", 10.0),
        environment=environments[0] if environments else "DefaultEnvironment",
        song_filename=audio.text("songFilename", None),
        cover_filename=doc.text("coverImageFilename"),
        version=version,
    )
    return Info(beat_map, tuple(entries), audio.text("audioDataFilename"))


def _difficulty(d: Record, key: str) -> Difficulty:
    name = d.text(key, None)
    try:
        return Difficulty(name)
    except ValueError:
        names = ", ".join(x.value for x in Difficulty)
        raise MapError(f"{d.where}: no difficulty is called '{name}' ({names})") from None


def _bpm(doc: Record, key: str) -> float:
    bpm = doc.number(key, None)
    if bpm <= 0:
        doc.fail(key, f"is {bpm:g}, not a tempo")
    return bpm


def chart_filename(chart: Chart) -> str:
    """Name of a difficulty's file, `ExpertPlusStandard.dat`."""
    return f"{chart.difficulty.value}{chart.characteristic}.dat"


def in_file_order(charts: tuple[Chart, ...]) -> tuple[Chart, ...]:
    """Charts as Info.dat lists them: by characteristic, then easiest first."""

    def key(chart: Chart) -> tuple[int, str, int]:
        known = chart.characteristic in CHARACTERISTICS
        place = CHARACTERISTICS.index(chart.characteristic) if known else len(CHARACTERISTICS)
        return place, chart.characteristic, chart.difficulty.rank

    return tuple(sorted(charts, key=key))


def dump(beat_map: BeatMap) -> dict[str, Any]:
    """Build Info.dat 2.1.0.

    The `_editors` tag and `_lastEditedBy` say honestly that a program made this.

    Raises
    ------
    UsageError
        If two charts have the same difficulty and characteristic.
    """
    m = beat_map
    sets: dict[str, list[Chart]] = {}
    for chart in in_file_order(m.charts):
        group = sets.setdefault(chart.characteristic, [])
        if any(c.difficulty is chart.difficulty for c in group):
            raise UsageError(
                f"{chart.difficulty.value} {chart.characteristic} is there twice;"
                " a map holds each difficulty once"
            )
        group.append(chart)
    return {
        "_version": INFO_VERSION,
        "_songName": m.title,
        "_songSubName": m.subtitle,
        "_songAuthorName": m.artist,
        "_levelAuthorName": m.mapper,
        "_beatsPerMinute": tidy(m.bpm),
        "_songTimeOffset": tidy(m.song_time_offset_s),
        "_shuffle": 0,
        "_shufflePeriod": 0.5,
        "_previewStartTime": tidy(m.preview_start_s),
        "_previewDuration": tidy(m.preview_duration_s),
        "_songFilename": m.song_filename,
        "_coverImageFilename": m.cover_filename,
        "_environmentName": m.environment,
        "_allDirectionsEnvironmentName": "GlassDesertEnvironment",
        "_environmentNames": [m.environment],
        "_colorSchemes": [],
        "_customData": {"_editors": {"_lastEditedBy": EDITOR, EDITOR: {"version": __version__}}},
        "_difficultyBeatmapSets": [
            {
                "_beatmapCharacteristicName": name,
                "_difficultyBeatmaps": [_difficulty_entry(c) for c in group],
            }
            for name, group in sets.items()
        ],
    }


def _difficulty_entry(chart: Chart) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "_difficulty": chart.difficulty.value,
        "_difficultyRank": chart.difficulty.rank,
        "_beatmapFilename": chart_filename(chart),
        "_noteJumpMovementSpeed": tidy(chart.njs),
        "_noteJumpStartBeatOffset": tidy(chart.njs_offset),
        "_beatmapColorSchemeIdx": 0,
        "_environmentNameIdx": 0,
    }
    if chart.label:
        entry["_customData"] = {"_difficultyLabel": chart.label}
    return entry


def dump_bpm_info(beat_map: BeatMap) -> dict[str, Any]:
    """Build BPMInfo.dat 2.0.0: the song's length and its regions of constant tempo."""
    changes = beat_map.charts[0].bpm_changes if beat_map.charts else ()
    return {
        "_version": "2.0.0",
        "_songSampleCount": beat_map.song_samples,
        "_songFrequency": beat_map.song_rate,
        "_regions": regions(
            beat_map.bpm, changes, beat_map.song_samples, beat_map.song_rate
        ),
    }  # fmt: skip
