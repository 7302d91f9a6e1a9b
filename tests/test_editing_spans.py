"""Bars and actions in a person's words."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgen.core.editing.spans import (
    describe_bars,
    every_bar,
    parse_action,
    parse_bars,
    parse_like,
    runs,
)
from mgen.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3", (2,)),
        ("8-12", (7, 8, 9, 10, 11)),
        ("1-4,9", (0, 1, 2, 3, 8)),
        (" 9 , 1 - 2,2", (0, 1, 8)),
        ("1-87", tuple(range(87))),
        ("87", (86,)),
    ],
)
def test_bars_count_from_1_and_hold_both_ends(text: str, wanted: tuple[int, ...]) -> None:
    assert parse_bars(text, 87) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "bars count from 1"),
        ("0-3", "bars count from 1"),
        ("88", "there is no bar 88; the song has bars 1-87"),
        ("80-90", "there is no bar 90; the song has bars 1-87"),
        ("12-8", "runs backwards; write 8-12"),
        ("", "is no bar"),
        ("3,", "is no bar"),
        ("3-", "is no bar"),
        ("-3", "is no bar"),
        ("1.5", "is no bar"),
        ("two", "is no bar"),
        ("1-999999999999", "is no bar"),
        ("1-2-3", "is no bar"),
    ],
)
def test_bars_that_are_none_say_what_there_is(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_bars(text, 87)
    assert "\n" not in str(caught.value)


def test_a_song_of_one_bar_and_one_of_none() -> None:
    with pytest.raises(UsageError, match="the song has bar 1 only"):
        parse_bars("2", 1)
    for parse in (lambda: parse_bars("1", 0), lambda: every_bar(1, 1, 0)):
        with pytest.raises(UsageError, match="the song has no bars"):
            parse()


@given(st.sets(st.integers(0, 200), min_size=1))
def test_bars_come_back_as_they_were_written(bars: set[int]) -> None:
    ordered = tuple(sorted(bars))
    assert parse_bars(describe_bars(bars), 201) == ordered
    parts = runs(ordered)
    assert tuple(bar for run in parts for bar in run) == ordered
    for one, other in itertools.pairwise(parts):
        assert other[0] > one[-1] + 1


def test_every_so_many_bars() -> None:
    assert every_bar(4, 3, 12) == (2, 6, 10)
    assert every_bar(1, 1, 3) == (0, 1, 2)
    assert every_bar(99, 12, 12) == (11,)
    with pytest.raises(UsageError, match="--every 0"):
        every_bar(0, 1, 12)
    for first in (0, 13):
        with pytest.raises(UsageError, match=f"--first {first}: .* bars 1-12"):
            every_bar(4, first, 12)


def test_an_action_and_mixes() -> None:
    def mix(text: str) -> list[tuple[int, float]]:
        return [(share.action, pytest.approx(share.weight)) for share in parse_action(text)]

    assert mix("17") == [(17, 1.0)]
    assert mix("17:1") == [(17, 1.0)]
    assert mix("42:0.4,17:0.6") == [(17, 0.6), (42, 0.4)]
    assert mix("17:3, 42:2") == [(17, 0.6), (42, 0.4)]
    assert mix("0,1,2,3") == [(i, 0.25) for i in range(4)]


@given(st.dictionaries(st.integers(0, 63), st.floats(1e-3, 1e3), min_size=2, max_size=6))
def test_shares_of_a_mix_add_up_to_1(weights: dict[int, float]) -> None:
    shares = parse_action(",".join(f"{a}:{w!r}" for a, w in weights.items()))
    assert sum(share.weight for share in shares) == pytest.approx(1.0)
    assert [share.action for share in shares] == sorted(weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no action"),
        ("loud", "is no action"),
        ("-1", "is no action"),
        ("17:", "is no action"),
        ("17:0,4:1", "is no weight"),
        ("17:-1,4:1", "is no weight"),
        ("17:1e999,4:1", "is no weight"),
        ("17:0.5", "--strength 0.5"),
        ("17,17", "names 17 twice"),
        ("17:0.6,42", "every action of the mix a weight, or none"),
    ],
)
def test_actions_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_action(text)
    assert "\n" not in str(caught.value)


def test_a_clip_whose_action_is_wanted() -> None:
    path, bars = parse_like("a song: live.wav:5-8")
    assert (path.name, bars) == ("a song: live.wav", "5-8")
    for text in ("other.wav", ":5", "other.wav:"):
        with pytest.raises(UsageError, match="name a file and its bars"):
            parse_like(text)
