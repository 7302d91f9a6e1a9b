"""Parity, swings and masks; the golden counts are npm bsmap 2.2.9's own on the same notes."""

from __future__ import annotations

import numpy as np
import pytest
from chart_samples import BPM, chart_of, drawn_chart, parse, seconds
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.beatmap import states
from mgen.core.beatmap.chart import BLUE, DOT, DOWN, RED, UP, Difficulty, Note, Wall
from mgen.core.beatmap.findings import check_chart
from mgen.core.beatmap.parity import BACKHAND, FOREHAND, HandState, judge_hand, step
from mgen.core.beatmap.playability import HARD_RULES, PlacementContext, Rules
from mgen.core.beatmap.rules import VISION_WINDOW_S
from mgen.core.beatmap.swings import effective_bpm, group_swings

# notes, beats of errors, number of warnings: as the reference prints them at 120 BPM
GOLDEN = {
    "streams": (
        "4:r101 4.5:b201 5:r100 5.5:b200 6:r101 6.5:b201 7:r100 7.5:b200 8:r101", [], 0),
    "all down": ("4:r101 6:r101 8:r101 10:r101 12:r101", [6, 8, 10, 12], 0),
    "inward, outward": (
        "4:r113 5:r112 6:r113 7:r112 4:b212 5:b213 6:b212 7:b213", [], 0),
    "around": (
        "4:r101 4.5:r004 5:r107 5.5:r102 6:r105 6.5:r100 7:r003 7.5:r106", [], 3),
    "turns without a break": (
        "4:b201 5:b205 6:b206 7:b203 8:b202 9:b200 10:b201 11:b204 12:b207 13:b200", [], 0),
    "dots": ("4:r108 5:r100 6:r108 7:r108 8:r101 9:r108 10:r101 11:r100", [], 0),
    "sliders of dots": (
        "4:r221 5:r018 5.05:r118 5.1:r218 6:r101 7:r218 7.05:r118 7.1:r018 8:r103 9:r108 "
        "9.05:r118 10:r101", [], 0),
    "bombs reset": (
        "4:r101 5:x10 6:r101 7:x12 8:r100 9:r101 10:x20 11:r101 12:x10 13:r100 14:r101",
        [11, 13, 14], 0),
    "bombs before the first note": ("2:x30 4:r100 5:r101 6:b201 7:b200", [4], 0),
    "stacks": (
        "4:b201 4:b211 5:b210 5.1:b220 5.2:b221 6:b310 6.05:b324 6.1:b328 7:b301 7:b301 8:b200",
        [7, 7], 0),
    "random, with bombs": (
        "4.25:b006 4.3125:r327 5.3125:r326 6.3125:b228 6.5625:r106 6.6875:b200 6.75:r020 "
        "6.8125:b324 7.0625:b012 7.125:r007 8.125:b005 8.25:r005 8.375:r223 8.875:b311 9:b117 "
        "9.0625:r227 9.1875:r022 10.1875:r010 10.6875:r015 11.6875:r124 11.9375:r217 12:b313 "
        "12.5:b106 12.625:b110 6.3425:x10 8.405:x22", [7.0625, 10.1875, 12], 6),
    "random, fast": (
        "4.25:b018 4.5:b027 5:b104 5.125:b021 5.1875:b210 5.4375:b105 6.4375:r314 6.9375:b018 "
        "7.4375:b207 7.6875:b025 8.6875:b022 8.8125:b101 8.9375:b318 9.0625:r304 9.125:b318 "
        "10.125:b223 10.25:r220 10.3125:r218 10.8125:b222 11.3125:b302 11.8125:r004 11.9375:b311 "
        "12.9375:r014 13.4375:r324 5.03:x22 6.9675:x22",
        [5.125, 5.1875, 5.4375, 7.6875, 8.8125, 9.0625, 10.25, 11.8125, 11.9375, 12.9375, 13.4375],
        5),
}  # fmt: skip


def context_of(difficulty: Difficulty = Difficulty.EXPERT, bombs: str = "") -> PlacementContext:
    return PlacementContext(Rules(difficulty, BPM, 16.0), seconds, parse(bombs)[1])


def placed(text: str, difficulty: Difficulty = Difficulty.EXPERT, bombs: str = ""):
    context = context_of(difficulty, bombs)
    for note in parse(text)[0]:
        context.place(note)
    return context


def broken_by(context: PlacementContext, note: str) -> list[str]:
    (asked,), _ = parse(note)
    return context.judge(asked.colour, asked.beat).reasons(states.index_of(asked))


@pytest.mark.parametrize("name", GOLDEN)
def test_parity_agrees_with_the_reference(name):
    text, errors, warnings = GOLDEN[name]
    notes, bombs = parse(text)
    judged = [
        (swing.beat, verdict.parity)
        for colour in (RED, BLUE)
        for swing, verdict in judge_hand(colour, notes, bombs, seconds)
    ]
    assert sorted(beat for beat, level in judged if level == "error") == errors
    assert sum(level == "warning" for _, level in judged) == warnings


def test_a_hand_alternates_and_repeats_its_side_after_an_error():
    state, sides = HandState(RED), []
    for beat, direction in ((4, DOWN), (5, UP), (6, DOWN), (7, DOWN), (8, UP)):
        state, verdict = step(state, [Note(beat, 1, 0, RED, direction)], seconds(beat))
        sides.append((verdict.parity, verdict.side))
    assert sides == [
        ("none", FOREHAND), ("none", BACKHAND), ("none", FOREHAND), ("error", FOREHAND),
        ("none", BACKHAND),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(0, 2), st.integers(0, 8)),
        min_size=1,
        max_size=25,
    )
)
def test_parity_is_the_same_for_the_mirrored_hand(steps):
    beat, notes = 4.0, []
    for eighths, column, row, direction in steps:
        beat += eighths / 8
        notes.append(Note(beat, column, row, RED, direction))
    chart = chart_of("", notes=tuple(notes))
    red = judge_hand(RED, chart.notes, (), seconds)
    blue = judge_hand(BLUE, chart.mirrored().notes, (), seconds)
    if all(s.notes[0].direction != DOT and len(s.notes) == 1 for s, _ in red):
        assert [v.parity for _, v in red] == [v.parity for _, v in blue]
    assert len(red) == len(blue)


def test_swings_gather_what_one_movement_cuts():
    # 0.05 s apart and on; then the same cell, a turn, and more than 70 ms: each its own swing
    notes, _ = parse("4:r201 4.1:r211 4.2:r228 5:r201 5.04:r201 6:r201 6.08:r110 7:r101 7.15:r001")
    swings = group_swings(notes, seconds)
    assert [len(s.notes) for s in swings] == [3, 1, 1, 1, 1, 1, 1]
    assert swings[0].direction == DOWN
    assert swings[0].end_s - swings[0].time_s == pytest.approx(0.1)


def test_effective_bpm_of_half_beats_is_the_tempo():
    assert effective_bpm(60.0 / 174 / 2) == pytest.approx(174.0)


def test_mask_closes_exactly_what_parity_calls_an_error():
    text = "4:r101 4.5:b201 5:r100 5.5:b200 6:r103 6.5:b204 7:r106"
    context = placed(text)
    for colour in (RED, BLUE):
        judged = context.judge(colour, 8.0)
        for index in range(states.STATES):
            note = states.state_note(index, colour, 8.0)
            _, verdict = step(context.hands[colour], [note], seconds(8.0))
            assert ("Parity error" in judged.reasons(index)) == (verdict.parity == "error")
            assert ("Parity warning" in judged.reasons(index)) == (verdict.parity == "warning")


@pytest.mark.parametrize(
    ("before", "note", "rule"),
    [
        ("4:r101", "5:r101", "Double-directional"),
        ("4:r113", "4:b212", "Handclap"),
        ("4:r112", "4:b213", "Handclap"),
        ("4:r103", "4:b201", ""),
        ("4:r002", "4:b101", "Hitbox path"),
        ("4:r101", "4:b101", "Stacked note"),
        ("4:r201", "4:r101", "Parallel notes"),
        ("4:r211", "4:r201", ""),
        ("4:r101", "4.16:b101", "Hitbox inline"),
        ("3:r101 4:r110", "4.2:b123", "Hitbox staircase"),
        ("4:r113", "4.25:r110", "Inline sharp angle"),
        ("4:r107", "4.4:r210", "shrado angle"),
        ("4:r111", "5:b101", "Vision block"),
        ("4:r111", "5:b210", ""),
        ("4:r101", "4.15:r100", "Effective BPM"),
        ("4:r221", "4.12:r211", "Slow slider"),
        ("4:r221", "4.04:r211", ""),
        ("4:b201", "5:b000", "Crossover"),
    ],
)
def test_each_rule_is_found(before, note, rule):
    found = broken_by(placed(before), note)
    assert (rule in found) if rule else not found


@pytest.mark.parametrize(
    ("bombs", "note", "rule"),
    [
        ("4:x20", "4:b201", "Stacked bomb"),
        ("4:x20", "4:b211", "Hammer hit"),
        ("3.8:x22", "4:b211", "Hammer hit"),
        ("3.6:x22", "4:b210", ""),
        ("3.4:x11", "4:r001", "Vision block"),
    ],
)
def test_bombs_are_seen(bombs, note, rule):
    found = broken_by(context_of(bombs=bombs), note)
    assert (rule in found) if rule else not found


def test_a_wall_closes_its_cells_while_it_lasts():
    context = context_of()
    context.add_wall(Wall(4.0, 2.0, 0, 0, 1, 5))
    assert broken_by(context, "5:r000") == ["Inside a wall"]
    assert broken_by(context, "5:r100") == broken_by(context, "6.5:r000") == []
    context.add_wall(Wall(8.0, 1.0, 0, 2, 4, 3))
    assert broken_by(context, "8.5:b220") == ["Inside a wall"]
    assert broken_by(context, "8.5:b210") == []


def test_bombs_reset_the_hand_in_the_mask():
    context = placed("4:r101")
    assert not context.allowed(parse("6:r101")[0])
    context.add_bomb(parse("5:x10")[1][0])
    assert context.allowed(parse("6:r101")[0])
    assert not context.allowed(parse("6:r100")[0])


@pytest.mark.parametrize(
    ("difficulty", "beat", "is_open"),
    [
        (Difficulty.EASY, 5.0, False),
        (Difficulty.EASY, 5.25, True),
        (Difficulty.NORMAL, 5.25, True),
        (Difficulty.HARD, 8.0, False),
    ],
)
def test_easy_and_normal_may_reset_where_there_is_time(difficulty, beat, is_open):
    context = placed("4:r101", difficulty)  # 0.6 s is 1.2 beats at 120 BPM
    again = Note(beat, 1, 0, RED, DOWN)
    assert context.allowed(again) is is_open
    assert context.cost(RED, beat)[states.index_of(again)] > 0


@pytest.mark.parametrize("difficulty", list(Difficulty))
def test_crossed_hands_are_closed_on_the_easy_end_and_cost_above(difficulty):
    context, note = context_of(difficulty), Note(4.0, 3, 0, RED, DOWN)
    closed = difficulty in (Difficulty.EASY, Difficulty.NORMAL)
    assert context.allowed(note) is not closed
    assert closed or context.cost(RED, 4.0)[states.index_of(note)] > 0


def test_pair_mask_is_one_hand_after_the_other():
    context = placed("4:r101 4:b201 5:r100 5:b200")
    pairs = context.pair_mask(6.0)
    rng = np.random.default_rng(0)
    for i in np.flatnonzero(context.mask(RED, 6.0)):
        trial = context.copy()
        trial.place(states.state_note(i, RED, 6.0))
        blue = trial.mask(BLUE, 6.0)
        for j in rng.integers(0, states.STATES, 20):
            assert pairs[i, j] == blue[j]
    assert 0 < pairs.sum() < context.mask(RED, 6.0).sum() * context.mask(BLUE, 6.0).sum()


def test_copies_are_independent():
    context = placed("4:r101")
    before = context.mask(RED, 6.0).copy()
    twin = context.copy()
    twin.place(Note(5.0, 1, 0, RED, UP))
    twin.add_bomb(parse("5.5:x10")[1][0])
    np.testing.assert_array_equal(context.mask(RED, 6.0), before)
    assert (twin.mask(RED, 6.0) != before).any()


def test_reasons_name_what_several_notes_break_together():
    notes, _ = parse("4:r113 4:b212")
    assert context_of().reasons(notes) == ["Handclap"]
    assert context_of().reasons(notes[:1]) == []


def test_vision_windows_end_at_the_reaction_time():
    slow, fast = (Rules(Difficulty.EASY, 120.0, 10.0, offset) for offset in (1.0, -1.0))
    assert slow.vision_window_s == VISION_WINDOW_S[Difficulty.EASY]
    assert fast.vision_window_s[1] == fast.reaction_s == pytest.approx(0.5)


@pytest.mark.parametrize("difficulty", list(Difficulty))
def test_a_chart_drawn_under_the_mask_breaks_no_hard_rule(difficulty):
    bombs = "20:x10 21:x22 40.5:x11 60:x20 61:x12 100:x32"
    for seed in range(2):
        chart = drawn_chart(seed, difficulty, 400, bombs)
        found = check_chart(chart, BPM)
        resets = {"Parity error", "Double-directional"}
        allowed = resets if difficulty in (Difficulty.EASY, Difficulty.NORMAL) else set()
        assert {f.rule for f in found} & HARD_RULES <= allowed
        assert not any(f.severity == "error" for f in found if f.rule not in allowed)
