"""Every rule of `mgen check` on the smallest map that breaks it; a sound map breaks none."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from chart_samples import BPM, chart_of, seconds

from mgen.core.beatmap.chart import (
    DOWN,
    RED,
    Arc,
    BeatMap,
    Bomb,
    BpmChange,
    Chain,
    Difficulty,
    Light,
    Note,
    Wall,
)
from mgen.core.beatmap.findings import SEVERITIES, check_chart, check_map

LIGHTS = tuple(Light(float(b), 2, 1) for b in range(12))
STREAM = "8:r101 9:b201 10:r100 11:b200 12:r101 13:b201 14:r100 15:b200"


def found(chart, duration_s=None):
    return {f.rule for f in check_chart(chart, BPM, duration_s)}


def sound(text: str = STREAM, **fields):
    return chart_of(text, **{"lights": LIGHTS, "njs_offset": -0.5, **fields})


def picture(size=(256, 256), kind="PNG") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind)
    return buffer.getvalue()


def level_of(*charts, **fields) -> BeatMap:
    given = {
        "title": "T", "mapper": "m", "bpm": BPM, "preview_start_s": 3.0, "song": b"OggS",
        "cover": picture(), "song_samples": 44100 * 30, "charts": charts,
    }  # fmt: skip
    return BeatMap(**{**given, **fields})


def test_a_sound_chart_has_no_findings():
    assert check_chart(sound(), BPM, duration_s=10.0) == []


def test_a_sound_level_has_no_findings():
    chart = replace(sound(), walls=(Wall(40.0, 2.0, 0, 0, 1, 5),), bombs=(Bomb(50.0, 0, 2),))
    assert check_map(level_of(chart)) == []


@pytest.mark.parametrize(
    ("notes", "rule", "severity", "beat"),
    [
        ("8:r101 9:r101", "Parity error", "error", 9),
        ("8:r101 9:r101", "Double-directional", "warning", 9),
        ("8:r107 9:r104 10:r102", "Parity warning", "warning", 10),
        ("8:r111 8.5:b101", "Vision block", "warning", 8.5),
        ("8:r113 8:b212", "Handclap", "error", 8),
        ("8:r112 8:b213", "Handclap", "error", 8),
        ("8:b201 8:b301", "Parallel notes", "error", 8),
        ("8:r002 8:b101", "Hitbox path", "error", 8),
        ("8:r101 8.16:b101", "Hitbox inline", "rank", 8.16),
        ("8:r101 8.05:b110", "Hitbox reverse staircase", "rank", 8),
        ("7:r101 8:r110 8.2:b123", "Hitbox staircase", "rank", 8.2),
        ("8:r101 8:r101", "Stacked note", "error", 8),
        ("8:r113 8.25:r110", "Inline sharp angle", "warning", 8.25),
        ("8:r107 8.5:r210", "shrado angle", "warning", 8.5),
        ("8:r121 8.12:r111", "Slow slider", "warning", 8),
        ("8:b201 8.02:b211 8.1:b228", "Varying swing speed", "warning", 8),
        ("8:r101 8.15:r100", "Effective BPM", "warning", 8.15),
        ("8:r101 8.22:r100", "Effective BPM (swing)", "warning", 8.22),
        ("8.2:r101", "Off-beat precision", "warning", 8.2),
        ("2:r101", "Hot start", "warning", 2),
        ("8:x20 8:b201", "Stacked bomb", "error", 8),
        ("8:x20 8:b211", "Hammer hit", "error", 8),
        ("-1:r101", "Outside playable object", "error", -1),
        ("8:r501", "Invalid note", "error", 8),
        ("8:r109", "Invalid note", "error", 8),
        ("8:x13 9:r101", "Invalid bomb", "error", 8),
    ],
)
def test_notes_and_bombs(notes, rule, severity, beat):
    hits = [f for f in check_chart(sound(notes), BPM) if f.rule == rule]
    assert [(f.severity, f.beat, f.difficulty) for f in hits] == [(severity, beat, "Expert")]
    assert hits[0].time_s == pytest.approx(seconds(beat))


@pytest.mark.parametrize(
    ("notes", "rule"),
    [
        ("8:r101 9:r100", "Parity error"),
        ("8:r111 8.5:b201", "Vision block"),
        ("8:r111 10:b101", "Vision block"),
        ("8:r101 8:b201", "Handclap"),
        ("8:r101 8:b301", "Hitbox path"),
        ("8:b201 8:b211", "Parallel notes"),
        ("8:r101 9:b101", "Hitbox inline"),
        ("8:r113 8.5:r110", "Inline sharp angle"),
        ("8:b201 8.05:b211 8.1:b228", "Varying swing speed"),
        ("8.125:r101 9.167:b201", "Off-beat precision"),
        ("7.5:x22 8:b211", "Hammer hit"),
    ],
)
def test_what_is_allowed_is_not_found(notes, rule):
    assert rule not in found(sound(notes))


@pytest.mark.parametrize(
    ("walls", "rule"),
    [
        ([Wall(8, 1, 1, 0, 2, 5)], "2-wide center obstacle"),
        ([Wall(8, 1, 0, 0, 3, 5)], "2-wide center obstacle"),
        ([Wall(8, 1, 0, 0, 2, 5), Wall(9.4, 1, 2, 0, 2, 5)], "2-wide center obstacle"),
        ([Wall(8, 0.02, 0, 0, 1, 5)], "Short obstacle"),
        ([Wall(8, 0, 0, 0, 1, 5)], "Zero value obstacle"),
        ([Wall(8, -1, 0, 0, 1, 5)], "Negative obstacle"),
        ([Wall(8, 1, 0, 0, 2, 5), Wall(9.6, 1, 2, 0, 2, 5)], ""),
        ([Wall(8, 1, 0, 2, 4, 3)], ""),
        ([Wall(8, 1, 0, 0, 1, 5), Wall(8, 1, 3, 0, 1, 5)], ""),
    ],
)
def test_walls(walls, rule):
    rules = found(sound(walls=tuple(walls)))
    assert rules == ({rule} if rule else set())


def test_arcs_and_chains_stand_on_notes():
    arc = Arc(8.0, 1, 0, RED, DOWN, 10.0, 1, 0, DOWN)
    chain = Chain(8.0, 1, 0, RED, DOWN, 8.25, 1, 1, 3)
    assert found(sound(arcs=(arc,), chains=(chain,))) == set()
    assert found(sound(arcs=(replace(arc, column=0),))) == {"Improper arc"}
    assert found(sound(chains=(replace(chain, beat=8.5),))) == {"Improper chain"}
    assert found(sound(chains=(replace(chain, squish=0.0),))) == {"Improper chain"}


def test_arcs_may_end_in_the_air_but_not_on_the_other_hand():
    arc = Arc(8.0, 1, 0, RED, DOWN, 9.0, 2, 0, DOWN)
    assert found(sound(arcs=(arc,))) == {"Improper arc"}  # blue's note
    assert found(sound(arcs=(replace(arc, tail_column=0),))) == set()
    assert found(sound(arcs=(replace(arc, tail_beat=7.0),))) == {"Improper arc"}


@pytest.mark.parametrize(
    ("difficulty", "gap", "severity"),
    [
        (Difficulty.EASY, 1.25, "warning"),
        (Difficulty.NORMAL, 1.25, "warning"),
        (Difficulty.EASY, 1.0, "error"),
        (Difficulty.HARD, 4.0, "error"),
    ],
)
def test_a_reset_with_time_is_no_error_on_the_easy_end(difficulty, gap, severity):
    chart = sound(f"8:r101 {8 + gap}:r101", difficulty=difficulty)
    hits = [f.severity for f in check_chart(chart, BPM) if f.rule == "Parity error"]
    assert hits == [severity]  # 0.6 s is 1.2 beats


def test_extra_angles():
    note = Note(8.0, 1, 0, RED, DOWN, 10)
    dot = Note(8.0, 1, 0, RED, 8, 45)
    assert found(sound("", notes=(note,))) == {"Angle offset"}
    assert found(sound("", notes=(dot,))) == set()


def test_lights():
    few = tuple(Light(float(b), 2, 1) for b in range(10))
    assert found(sound(lights=few)) == {"Insufficient lighting event"}
    off = (*(Light(float(b) / 4, 1, 1) for b in range(12)), Light(4.0, 1, 0))
    bombs = (Bomb(4.4, 0, 0), Bomb(10.0, 0, 0))
    hits = check_chart(sound(lights=off, bombs=bombs), BPM)
    assert [(f.rule, f.beat) for f in hits] == [("Unlit bomb", 10.0)]
    faded = (*(Light(float(b) / 4, 1, 3) for b in range(12)), Light(8.5, 1, 3))
    assert check_chart(sound(lights=faded, bombs=bombs), BPM) == []


@pytest.mark.parametrize(
    ("duration_s", "rule"), [(7.0, "Outside playable object"), (8.0, "Outro"), (40.0, "Outro")]
)
def test_the_end_of_the_song(duration_s, rule):
    assert found(sound(), duration_s) == {rule}


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"njs": 0.0}, {"Unset NJS"}),
        ({"njs": 25.0, "njs_offset": 0.0}, {"NJS", "High jump distance"}),
        ({"njs": 8.0, "njs_offset": -2.0}, {"Jump distance"}),
        ({"njs": 16.0, "njs_offset": 3.0}, {"Jump distance"}),
        ({"njs": 23.0, "njs_offset": -0.2}, {"Quick reaction time"}),
        ({"njs": 16.0, "njs_offset": -2.0}, {"Unnecessary negative offset", "Jump distance",
                                             "Quick reaction time"}),
    ],
)  # fmt: skip
def test_jump_speed(fields, rules):
    assert found(sound(**fields)) == rules


def test_doubles_all_the_way():
    words = (f"{8 + i}:r10{(i + 1) % 2} {8 + i}:b20{(i + 1) % 2}" for i in range(20))
    assert found(sound(" ".join(words))) == {"Excessive double"}


def test_times_follow_tempo_changes():
    chart = sound("2:r101", bpm_changes=(BpmChange(0.0, 60.0),))
    assert found(chart) == set()  # 2 s at 60 BPM: no hot start


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"song": b""}, "Missing file"),
        ({"cover": b""}, "Missing file"),
        ({"song": b"RIFF"}, "Audio format"),
        ({"song_samples": 44100 * 11}, "Short audio"),
        ({"cover": picture((255, 255))}, "Cover image"),
        ({"cover": picture((300, 256))}, "Cover image"),
        ({"cover": b"no picture"}, "Cover image"),
        ({"title": " "}, "Song name"),
        ({"title": "x" * 100}, "Song name"),
        ({"preview_start_s": 12.0}, "Preview time"),
        ({"preview_start_s": -1.0}, "Preview time"),
        ({"song_time_offset_s": 0.1}, "Song time offset"),
        ({"charts": ()}, "No difficulty"),
        ({"charts": (sound(), sound())}, "Duplicate difficulty"),
        ({"charts": (sound(label="x" * 31),)}, "Difficulty label"),
        ({"charts": (sound(""),)}, "No notes"),
    ],
)
def test_levels(fields, rule):
    rules = {f.rule for f in check_map(level_of(sound(), **fields))}
    assert rule in rules
    assert rules <= {rule, "Outro"}


def test_tempo_outside_the_format():
    assert "BPM" in {f.rule for f in check_map(level_of(sound(), bpm=5.0))}


def test_a_jpeg_cover_is_fine():
    assert check_map(level_of(sound(), cover=picture((512, 512), "JPEG"))) == [
        f for f in check_map(level_of(sound())) if f.rule != "Cover image"
    ]


def test_progression_wants_steps_between_10_and_40_percent():
    def every(gap_beats, difficulty):
        text = " ".join(f"{8 + i * gap_beats}:{'rb'[i % 2]}{1 + i % 2}01" for i in range(40))
        return sound(text, difficulty=difficulty)

    def steps(*charts):
        level = level_of(*charts, song_samples=44100 * 100)
        return [f.difficulty for f in check_map(level) if f.rule == "Difficulty progression"]

    # swings per second: 2.9, 4, 5, 6.7
    easy, hard = every(0.7, Difficulty.EASY), every(0.5, Difficulty.HARD)
    expert, top = every(0.4, Difficulty.EXPERT), every(0.3, Difficulty.EXPERT_PLUS)
    assert steps(top, expert, hard, easy) == []
    assert steps(top, expert, hard) == [""]  # nothing below 3.2 a second
    assert steps(top, easy) == ["ExpertPlus"]
    assert steps(top, replace(top, difficulty=Difficulty.EXPERT), expert, hard, easy) != []


def test_findings_are_ordered_and_named():
    level = level_of(
        sound("8:r101 9:r101"), sound("8:r101 8:r101", characteristic="OneSaber", njs=0.0)
    )
    hits = check_map(level)
    assert {f.difficulty for f in hits if f.difficulty} == {"Expert", "Expert OneSaber"}
    for name in ("Expert", "Expert OneSaber"):
        beats = [f.beat for f in hits if f.difficulty == name and f.beat is not None]
        assert beats == sorted(beats)
    assert all(f.severity in SEVERITIES and f.message for f in hits)


def test_a_chart_without_anything_is_not_a_crash():
    chart = sound("", lights=(), notes=())
    assert {f.rule for f in check_chart(chart, BPM, 30.0)} == {
        "No notes", "Insufficient lighting event",
    }  # fmt: skip


def test_notes_of_modded_maps_are_reported_and_do_no_harm():
    wild = tuple(Note(8.0 + i / 50, 1000, -7, RED, 1000 + i) for i in range(3))
    chart = sound("", notes=wild, bombs=(Bomb(9.0, 9, 9),))
    assert found(chart) == {"Invalid note", "Invalid bomb"}
