"""Charts as tokens: nothing is lost on the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgen.core.beatmap.chart import Chart, Difficulty, Note
from mgen.core.beatmap.tokens import (
    Segment,
    bpm_level,
    decode,
    encode,
    nps_of_rating,
    nps_range,
    rating_of_nps,
    segment_beats,
)  # fmt: skip
from mgen.core.errors import MapError

notes = st.builds(
    lambda slot, column, row, colour, direction: Note(slot / 48, column, row, colour, direction),
    st.integers(0, 48 * 700), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1),
    st.integers(0, 8),
)  # fmt: skip


def key(note: Note) -> tuple[float, int, int, int, int]:
    return note.beat, note.colour, note.row, note.column, note.direction


@given(st.lists(notes, max_size=80), st.floats(20, 400), st.sampled_from(Difficulty))
def test_tokens_come_back_as_the_same_notes(
    made: list[Note], bpm: float, difficulty: Difficulty
) -> None:
    ordered = tuple(sorted(made, key=key))
    tokens = encode(Chart(difficulty=difficulty, njs=10, notes=ordered), bpm)
    assert decode(tokens) == ordered
    length = segment_beats(bpm)
    for i, segment in enumerate(tokens.segments):
        assert segment.start_beat == i * length
        assert segment.n_beats == length
        assert all(0 <= t.slot < 48 * length for t in segment.notes)


def test_known_tokens() -> None:
    chart = Chart(
        difficulty=Difficulty.HARD,
        njs=15,
        notes=(Note(0.5, 1, 0, 0, 1), Note(0.5, 2, 0, 1, 1), Note(20 + 1 / 3, 3, 2, 1, 5)),
    )
    tokens = encode(chart, 120.0)
    assert segment_beats(120.0) == 19  # 9.6 s at two beats a second
    assert [tuple(t) for t in tokens.segments[0].notes] == [(24, 0, 0, 1, 1), (24, 1, 0, 2, 1)]
    assert [tuple(t) for t in tokens.segments[1].notes] == [(64, 1, 2, 3, 5)]
    assert str(tokens.segments[0]).startswith("[2.6% 0 0 1 1]")
    assert str(tokens).splitlines()[0].startswith("Hard | BPM level 4 |")


def test_doubles_share_a_time_and_unsorted_segments_decode_in_order() -> None:
    chart = Chart(
        difficulty=Difficulty.EASY, njs=10, notes=(Note(4, 2, 0, 1, 1), Note(4, 1, 0, 0, 1))
    )
    first = encode(chart, 100).segments[0]
    shuffled = Segment(first.start_beat, first.n_beats, first.notes[::-1])
    assert [n.colour for n in decode([shuffled])] == [0, 1]


@pytest.mark.parametrize(
    "note", [Note(-1, 0, 0, 0, 0), Note(1, 4, 0, 0, 0), Note(1, 0, 3, 0, 0), Note(1, 0, 0, 0, 9)]
)
def test_notes_outside_the_grid_are_refused_by_name(note: Note) -> None:
    with pytest.raises(MapError, match="at beat"):
        encode(Chart(difficulty=Difficulty.EASY, njs=10, notes=(note,)), 120)


@given(st.sampled_from(Difficulty), st.floats(0, 10))
def test_rating_and_density_are_each_others_inverse(difficulty: Difficulty, rating: float) -> None:
    low, usual, high = nps_range(difficulty)
    nps = nps_of_rating(difficulty, rating)
    assert low <= nps <= high
    assert rating_of_nps(difficulty, nps) == pytest.approx(rating, abs=1e-6)
    assert nps_of_rating(difficulty, 5.0) == pytest.approx(usual)


def test_bpm_levels_rise() -> None:
    levels = [bpm_level(b) for b in range(40, 300, 5)]
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (0, 10)


def test_an_empty_chart_has_no_segments() -> None:
    tokens = encode(Chart(difficulty=Difficulty.EASY, njs=10), 120)
    assert tokens.segments == ()
    assert decode(tokens) == ()
