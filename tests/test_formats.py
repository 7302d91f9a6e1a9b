"""Map formats: what is written is read back, what strangers wrote is understood or refused."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mgen.core.beatmap.chart import (
    Arc,
    BeatMap,
    Bomb,
    Boost,
    BpmChange,
    Chain,
    Chart,
    Difficulty,
    Light,
    Note,
    Wall,
)
from mgen.core.beatmap.formats import archive
from mgen.core.beatmap.formats.archive import read_map, write_map
from mgen.core.beatmap.formats.info import in_file_order
from mgen.core.errors import InputNotFoundError, MapError, OutputExistsError, UsageError

BEAT = st.integers(0, 48 * 400).map(lambda slot: slot / 48)
COLUMN, ROW, DIRECTION = st.integers(0, 3), st.integers(0, 2), st.integers(0, 8)
SMALL = st.floats(0, 100, allow_nan=False, width=32)


def _tuple(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(strategy, max_size=6).map(lambda items: tuple(sorted(items)))


@st.composite
def charts(draw: st.DrawFn, *, v2: bool) -> tuple[Chart, ...]:
    places = draw(
        st.sets(st.tuples(st.sampled_from(["Standard", "OneSaber", "Odd"]),
                          st.sampled_from(Difficulty)), min_size=1, max_size=4)
    )  # fmt: skip
    angle = st.just(0) if v2 else st.integers(-360, 360)
    made = []
    for characteristic, difficulty in places:
        made.append(
            Chart(
                difficulty=difficulty,
                characteristic=characteristic,
                njs=draw(SMALL),
                njs_offset=draw(st.floats(-4, 4)),
                label=draw(st.text(max_size=5)),
                notes=draw(
                    _tuple(st.builds(Note, BEAT, COLUMN, ROW, st.integers(0, 1), DIRECTION, angle))
                ),
                bombs=draw(_tuple(st.builds(Bomb, BEAT, COLUMN, ROW))),
                walls=draw(
                    _tuple(st.builds(Wall, BEAT, SMALL, COLUMN, ROW, COLUMN, st.integers(1, 5)))
                    if not v2
                    else _tuple(st.builds(Wall, BEAT, SMALL, COLUMN, st.just(0), COLUMN,
                                          st.integers(1, 5)))
                ),
                arcs=draw(
                    _tuple(st.builds(Arc, BEAT, COLUMN, ROW, st.integers(0, 1), DIRECTION, BEAT,
                                     COLUMN, ROW, DIRECTION, SMALL, SMALL, st.integers(0, 2)))
                ),
                chains=()
                if v2
                else draw(
                    _tuple(st.builds(Chain, BEAT, COLUMN, ROW, st.integers(0, 1), DIRECTION, BEAT,
                                     COLUMN, ROW, st.integers(2, 20), SMALL))
                ),
                lights=draw(
                    _tuple(st.builds(Light, BEAT, st.sampled_from([0, 1, 2, 3, 4, 8, 9, 12, 13]),
                                     st.integers(0, 12), SMALL))
                ),
                boosts=draw(_tuple(st.builds(Boost, BEAT, st.booleans()))),
                bpm_changes=draw(
                    _tuple(st.builds(BpmChange, BEAT, st.floats(10, 1000, allow_nan=False)))
                ),
            )
        )  # fmt: skip
    return tuple(made)


@st.composite
def maps(draw: st.DrawFn, *, v2: bool) -> BeatMap:
    return BeatMap(
        title=draw(st.text(max_size=10)),
        subtitle=draw(st.text(max_size=10)),
        artist=draw(st.text(max_size=10)),
        mapper=draw(st.text(max_size=10)),
        bpm=draw(st.floats(10, 1000)),
        preview_start_s=draw(SMALL),
        preview_duration_s=draw(SMALL),
        charts=draw(charts(v2=v2)),
        song=draw(st.binary(min_size=1, max_size=20)),
        cover=draw(st.binary(min_size=1, max_size=20)),
        song_samples=draw(st.integers(1, 10**8)),
        song_rate=draw(st.sampled_from([44100, 48000])),
    )


@pytest.mark.parametrize("version", ["v3", "v2"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_written_map_is_read_back(tmp_path, version, data):
    made = data.draw(maps(v2=version == "v2"))
    path = write_map(tmp_path / "m.zip", made, version=version, force=True)
    read = read_map(path)
    assert read == replace(made, charts=in_file_order(made.charts), version="2.1.0")


def _small(**changes: object) -> BeatMap:
    chart = Chart(difficulty=Difficulty.EXPERT_PLUS, njs=18, notes=(Note(4.0, 1, 0, 0, 1),))
    base = BeatMap(title="Café", mapper="me", bpm=120, charts=(chart,), song=b"OggS", cover=b"png",
                   song_samples=48000, song_rate=48000)  # fmt: skip
    return replace(base, **changes)


def _documents(path) -> dict[str, dict]:
    with zipfile.ZipFile(path) as z:
        return {n: json.loads(z.read(n)) for n in z.namelist() if n.endswith(".dat")}


def test_the_zip_holds_what_the_game_and_beatsaver_ask_for(tmp_path):
    path = write_map(tmp_path / "m.zip", _small())
    with zipfile.ZipFile(path) as z:
        assert z.namelist() == [
            "Info.dat", "ExpertPlusStandard.dat", "BPMInfo.dat", "song.egg", "cover.png",
        ]  # fmt: skip
        assert b"\xef\xbb\xbf" not in z.read("Info.dat")[:3]
        assert "Café".encode() in z.read("Info.dat")
    documents = _documents(path)
    info = documents["Info.dat"]
    assert info["_version"] == "2.1.0"
    assert info["_songTimeOffset"] == 0
    assert info["_customData"]["_editors"]["_lastEditedBy"] == "mgen"
    (entry,) = info["_difficultyBeatmapSets"][0]["_difficultyBeatmaps"]
    assert (entry["_difficulty"], entry["_difficultyRank"]) == ("ExpertPlus", 9)
    chart = documents["ExpertPlusStandard.dat"]
    arrays = {k for k, v in chart.items() if isinstance(v, list)}
    assert arrays == {
        "bpmEvents", "rotationEvents", "colorNotes", "bombNotes", "obstacles", "sliders",
        "burstSliders", "waypoints", "basicBeatmapEvents", "colorBoostBeatmapEvents",
        "lightColorEventBoxGroups", "lightRotationEventBoxGroups", "lightTranslationEventBoxGroups",
        "vfxEventBoxGroups",
    }  # fmt: skip
    assert chart["_fxEventsCollection"] == {"_il": [], "_fl": []}
    assert chart["colorNotes"] == [{"b": 4, "x": 1, "y": 0, "c": 0, "d": 1, "a": 0}]
    assert documents["BPMInfo.dat"]["_regions"] == [
        {"_startSampleIndex": 0, "_endSampleIndex": 48000, "_startBeat": 0, "_endBeat": 2}
    ]


def test_bpm_info_follows_tempo_changes(tmp_path):
    # one beat at 120 (0.5 s), then 60 BPM: the second that is left holds half a beat
    chart = replace(_small().charts[0], bpm_changes=(BpmChange(1.0, 60.0),))
    path = write_map(tmp_path / "m.zip", _small(charts=(chart,)))
    first, second = _documents(path)["BPMInfo.dat"]["_regions"]
    assert (first["_endSampleIndex"], first["_endBeat"]) == (24000, 1)
    assert (second["_startSampleIndex"], second["_endSampleIndex"]) == (24000, 48000)
    assert second["_endBeat"] == 1.5


def test_the_same_map_gives_the_same_bytes(tmp_path):
    one = write_map(tmp_path / "a.zip", _small()).read_bytes()
    assert write_map(tmp_path / "b.zip", _small()).read_bytes() == one


def test_v2_says_what_it_cannot_hold(tmp_path):
    chart = replace(_small().charts[0], chains=(Chain(1.0, 0, 0, 0, 1, 2.0, 1, 1, 3),))
    with pytest.raises(UsageError, match="chains"):
        write_map(tmp_path / "m.zip", _small(charts=(chart,)), version="v2")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_is_left_half_written(tmp_path, monkeypatch):
    path = write_map(tmp_path / "m.zip", _small())
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="--force"):
        write_map(path, _small(title="other"))
    assert path.read_bytes() == before

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_map(path, _small(title="other"), force=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.zip"]
    with pytest.raises(InputNotFoundError, match="no such folder"):
        write_map(tmp_path / "no" / "m.zip", _small())
    with pytest.raises(UsageError, match="is a folder"):
        write_map(tmp_path, _small())


INFO = {
    "_version": "2.0.0", "_songName": "S", "_songAuthorName": "A", "_levelAuthorName": "M",
    "_beatsPerMinute": 100, "_songFilename": "song.ogg", "_coverImageFilename": "cover.jpg",
    "_difficultyBeatmapSets": [
        {
            "_beatmapCharacteristicName": "Standard",
            "_difficultyBeatmaps": [
                {"_difficulty": "Hard", "_difficultyRank": 5, "_beatmapFilename": "Hard.dat",
                 "_noteJumpMovementSpeed": 14}
            ],
        }
    ],
}  # fmt: skip
NOTE = {"_time": 1, "_lineIndex": 2, "_lineLayer": 1, "_type": 1, "_cutDirection": 8}


def _folder(path, hard: object, info: object = INFO, info_name: str = "Info.dat"):
    path.mkdir(exist_ok=True)
    for name, value in ((info_name, info), ("Hard.dat", hard)):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("spelling", ["Info.dat", "info.dat", "INFO.DAT"])
def test_v2_with_every_spelling_of_info(tmp_path, spelling):
    hard = {
        "_version": "2.0.0",
        "_notes": [NOTE, {**NOTE, "_type": 3}, {**NOTE, "_type": "0", "_time": 2}],
        "_obstacles": [
            {"_time": 1, "_duration": 2, "_lineIndex": 0, "_type": 1, "_width": 1},
            {"_time": 9, "_duration": 2, "_lineIndex": 3, "_type": 0, "_width": 1},
        ],
        "_events": [
            {"_time": 0, "_type": 1, "_value": 3},
            {"_time": 1, "_type": 5, "_value": 1},
            {"_time": 2, "_type": 14, "_value": 3},
            {"_time": 4, "_type": 100, "_value": 0, "_floatValue": 200},
        ],
    }
    (chart,) = read_map(_folder(tmp_path / "m", hard, info_name=spelling)).charts
    assert chart.notes == (Note(1, 2, 1, 1, 8), Note(2, 2, 1, 0, 8))
    assert chart.bombs == (Bomb(1, 2, 1),)
    assert chart.walls == (Wall(1, 2, 0, 2, 1, 3), Wall(9, 2, 3, 0, 1, 5))
    assert chart.lights == (Light(0, 1, 3, 1.0),)
    assert chart.boosts == (Boost(1, True),)
    assert chart.bpm_changes == (BpmChange(4, 200),)
    assert chart.time_map(100).to_seconds(6) == pytest.approx(4 * 0.6 + 2 * 0.3)


@pytest.mark.parametrize("gzipped", [False, True])
def test_v3_defaults_byte_order_marks_and_gzip(tmp_path, gzipped):
    hard = {
        "version": "3.3.0",
        "colorNotes": [{}, {"b": 2, "c": 1, "x": 2}],
        "rotationEvents": [{"b": 1, "r": 15}],
        "obstacles": [{"b": 1, "d": 1, "w": 1, "h": 5}],
    }
    data = b"\xef\xbb\xbf" + json.dumps(hard).encode()
    data = gzip.compress(data) if gzipped else data
    (chart,) = read_map(_folder(tmp_path / "m", data)).charts
    assert chart.notes == (Note(0, 0, 0, 0, 0), Note(2, 2, 0, 1, 0))
    assert chart.walls == (Wall(1, 1, 0, 0, 1, 5),)


def test_old_editors_bpm_changes_keep_every_second(tmp_path):
    # base 100 BPM; the editor's grid turns to 150 BPM at base beat 2.5 and snaps to beat 3
    marks = [{"_time": 2.5, "_BPM": 150, "_beatsPerBar": 4, "_metronomeOffset": 4}]
    times = [0.0, 1.0, 2.0, 2.5, 2.5 + 100 / 150, 2.5 + 5 * 100 / 150]
    hard = {
        "_version": "2.2.0",
        "_notes": [{**NOTE, "_time": t} for t in times],
        "_customData": {"_BPMChanges": marks},
    }
    (chart,) = read_map(_folder(tmp_path / "m", hard)).charts
    beats = [n.beat for n in chart.notes]
    assert beats == pytest.approx([0, 1, 2, 3, 4, 8])
    clock = chart.time_map(100)
    assert [clock.to_seconds(b) for b in beats] == pytest.approx([t * 0.6 for t in times])
    assert chart.bpm_changes == (BpmChange(2, pytest.approx(200)), BpmChange(3, 150))


def test_v4_indices_lights_and_tempo(tmp_path):
    info = {
        "version": "4.0.0",
        "song": {"title": "T", "subTitle": "", "author": "A"},
        "audio": {"songFilename": "song.ogg", "bpm": 120, "audioDataFilename": "AudioData.dat"},
        "coverImageFilename": "c.png",
        "environmentNames": ["WeaveEnvironment"],
        "difficultyBeatmaps": [
            {"characteristic": "Standard", "difficulty": "Hard", "beatmapDataFilename": "Hard.dat",
             "lightshowDataFilename": "Lights.dat", "noteJumpMovementSpeed": 14,
             "beatmapAuthors": {"mappers": ["M"], "lighters": []}}
        ],
    }  # fmt: skip
    hard = {
        "version": "4.0.0",
        "colorNotes": [{"b": 10, "i": 1}, {"b": 4}, {"b": 4, "i": 1}],
        "colorNotesData": [{"x": 1, "d": 1}, {"x": 2, "y": 1, "c": 1, "d": 8}],
        "bombNotes": [{"b": 7}],
        "bombNotesData": [{"x": 3}],
        "obstacles": [{"b": 7}],
        "obstaclesData": [{"d": 2, "x": 3, "w": 1, "h": 5}],
        "arcs": [{"hb": 4, "tb": 10, "hi": 0, "ti": 1, "ai": 0}],
        "arcsData": [{"m": 1, "tm": 0.5}],
        "chains": [{"hb": 10, "tb": 10.5, "i": 1, "ci": 0}],
        "chainsData": [{"tx": 3, "ty": 0, "c": 4, "s": 0.5}],
    }
    folder = _folder(tmp_path / "m", hard, info)
    lights = {"version": "4.0.0", "basicEvents": [{"b": 4, "i": 0}],
              "basicEventsData": [{"t": 1, "i": 3, "f": 1}],
              "colorBoostEvents": [{"b": 8, "i": 0}], "colorBoostEventsData": [{"b": 1}],
              }  # fmt: skip
    audio = {"version": "4.0.0", "songSampleCount": 300, "songFrequency": 100,
             "bpmData": [{"si": 0, "ei": 100, "sb": 0, "eb": 2},
                         {"si": 100, "ei": 300, "sb": 2, "eb": 4}]}  # fmt: skip
    (folder / "Lights.dat").write_text(json.dumps(lights))
    (folder / "AudioData.dat").write_text(json.dumps(audio))
    level = read_map(folder)
    (chart,) = level.charts
    assert (level.title, level.mapper, level.environment) == ("T", "M", "WeaveEnvironment")
    assert (level.song_samples, level.song_rate) == (300, 100)
    assert chart.notes == (Note(4, 1, 0, 0, 1), Note(4, 2, 1, 1, 8), Note(10, 2, 1, 1, 8))
    assert chart.arcs == (Arc(4, 1, 0, 0, 1, 10, 2, 1, 8, 1, 0.5, 0),)
    assert chart.chains == (Chain(10, 2, 1, 1, 8, 10.5, 3, 0, 4, 0.5),)
    assert chart.lights == (Light(4, 1, 3, 1),)
    assert chart.boosts == (Boost(8, True),)
    assert chart.bpm_changes == (BpmChange(0, 120), BpmChange(2, 60))

    hard["colorNotes"] = [{"b": 1, "i": 7}]
    with pytest.raises(MapError, match="entry 7 of 2"):
        read_map(_folder(tmp_path / "m", hard, info))


def _with(**fields: object) -> dict:
    return {**INFO, **fields}


V2 = {"_version": "2.0.0", "_notes": [NOTE]}
OUTSIDE = json.loads(json.dumps(INFO).replace("Hard.dat", "../Hard.dat"))


@pytest.mark.parametrize(
    ("hard", "info", "words"),
    [
        (V2, b"{", "not valid JSON"),
        (V2, b"[]", "not an object"),
        (V2, b"\xff\xfe{}", "UTF-8"),
        (V2, b"[" * 100_000, "nested too deeply"),
        (V2, _with(_version="9.0"), "format 9.0"),
        (V2, _with(_beatsPerMinute=0), "not a tempo"),
        (V2, _with(_beatsPerMinute="fast"), "not a number"),
        (V2, _with(_difficultyBeatmapSets=[]), "no difficulty"),
        (V2, _with(_difficultyBeatmapSets=3), "not a list"),
        (V2, _with(_difficultyBeatmapSets=INFO["_difficultyBeatmapSets"] * 101), "not a map"),
        (V2, json.loads(json.dumps(INFO).replace('"Hard"', '"Hardest"')), "'Hardest'"),
        (V2, json.loads(json.dumps(INFO).replace("Hard.dat", "No.dat")), "'No.dat' is missing"),
        (V2, OUTSIDE, "outside the map"),
        (V2, json.loads(json.dumps(INFO).replace("Hard.dat", "/etc/passwd")), "outside the map"),
        (V2, _with(_songFilename="C:\\x.ogg"), "outside the map"),
        (b'{"_version":"2.0.0","_notes":[{"_time":NaN}]}', INFO, "NaN"),
        (b'{"_version":"2.0.0","_notes":[{"_time":1e999,"_type":0}]}', INFO, "finite"),
        (b'{"_version":"2.0.0","_notes":[{"_type":0}]}', INFO, "_time is missing"),
        (b'{"_version":"2.0.0","_notes":[7]}', INFO, "holds 7"),
        (b'{"_version":"2.0.0","_notes":[{"_time":1,"_type":0.5}]}', INFO, "not a whole number"),
        (b"\x1f\x8bnonsense", INFO, "gzip"),
        ({"version": "5.0.0"}, INFO, "format 5.0.0"),
        ({"version": "3.3.0", "bpmEvents": [{"b": 1, "m": 0}]}, INFO, "0 BPM"),
    ],
)
def test_a_damaged_map_is_refused_in_one_line(tmp_path, hard, info, words):
    with pytest.raises(MapError) as caught:
        read_map(_folder(tmp_path / "m", hard, info))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert str(tmp_path) in message


def test_archives_that_are_none(tmp_path):
    with pytest.raises(InputNotFoundError):
        read_map(tmp_path / "no.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(MapError, match="not a zip"):
        read_map(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(MapError, match=r"no Info\.dat"):
        read_map(tmp_path / "empty.zip")
    whole = write_map(tmp_path / "good.zip", _small()).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MapError, match="not a zip"):
        read_map(tmp_path / "cut.zip")
    at = whole.index(b"ExpertPlusStandard.dat") + 60
    broken = whole[:at] + bytes(b ^ 0xFF for b in whole[at : at + 20]) + whole[at + 20 :]
    (tmp_path / "broken.zip").write_bytes(broken)
    with pytest.raises(MapError, match="damaged inside the zip"):
        read_map(tmp_path / "broken.zip")


def test_a_zip_of_another_compression_is_not_called_damaged(tmp_path):
    data = bytearray(write_map(tmp_path / "good.zip", _small()).read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # local and central headers
        place = data.find(mark)
        while place >= 0:
            data[place + at : place + at + 2] = (9).to_bytes(2, "little")  # Deflate64
            place = data.find(mark, place + 4)
    (tmp_path / "other.zip").write_bytes(data)
    with pytest.raises(MapError, match="packed in a way that is not read here; unpack it first"):
        read_map(tmp_path / "other.zip")


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_TEXT_BYTES", 10_000)
    huge = json.dumps(V2).encode() + b" " * 20_000
    for data in (huge, gzip.compress(huge)):
        with pytest.raises(MapError, match="unpacked"):
            read_map(_folder(tmp_path / "m", data))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("Info.dat", huge)
    (tmp_path / "bomb.zip").write_bytes(buffer.getvalue())
    with pytest.raises(MapError, match="unpacked"):
        read_map(tmp_path / "bomb.zip")


def test_a_link_that_leads_outside_is_refused(tmp_path):
    (tmp_path / "secret.dat").write_text(json.dumps(V2))
    folder = _folder(tmp_path / "m", V2)
    (folder / "Hard.dat").unlink()
    (folder / "Hard.dat").symlink_to(tmp_path / "secret.dat")
    with pytest.raises(MapError, match="outside the map"):
        read_map(folder)


def test_a_folder_inside_the_zip_is_tolerated(tmp_path):
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("level/info.dat", json.dumps(INFO))
        z.writestr("level/HARD.dat", json.dumps(V2))
        z.writestr("level/song.ogg", b"song")
    level = read_map(path)
    assert level.song == b"song"
    assert level.cover == b""
    assert len(level.charts[0].notes) == 1
