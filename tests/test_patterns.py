"""Where notes go: playable by construction, as humans do it, the same for the same bar."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from heard_songs import made_up_song

from mgen.core.beatmap.chart import BLUE, DOT, RED, Difficulty, Note, TimeMap
from mgen.core.beatmap.decoder import Decoder, Tally
from mgen.core.beatmap.density import STYLES
from mgen.core.beatmap.generate import ChartRequest, generate_charts
from mgen.core.beatmap.hands import BOTH_HANDS, Bars, Strike, assign_hands
from mgen.core.beatmap.histograms import inside_human_range
from mgen.core.beatmap.parity import judge_hand
from mgen.core.beatmap.patterns import MIRROR_S, table_of
from mgen.core.beatmap.placement import Candidates, Onsets
from mgen.core.beatmap.playability import PlacementContext
from mgen.core.beatmap.rules import Rules
from mgen.core.beatmap.states import index_of

MIRROR = (0, 1, 3, 2, 5, 4, 7, 6, 8)


def onsets_at(slots: list[int], bpm: float = 120.0, doubles: tuple[int, ...] = ()) -> Onsets:
    slot_N = np.array(slots, np.int64)
    flat = np.full(len(slots), 0.5)
    at = Candidates(slot_N, slot_N / 48 * 60 / bpm, flat, flat, flat, flat, flat > 0)
    return Onsets(at, np.isin(np.arange(len(slots)), doubles))


def hands_of(
    slots: list[int], difficulty: Difficulty = Difficulty.HARD, **options: object
) -> list[Strike]:
    bars = options.pop("bars", Bars(0, 192, ()))
    return assign_hands(
        onsets_at(slots, **options), STYLES[difficulty], bars, np.random.default_rng(0), False
    )  # type: ignore[arg-type]


def decoded(strikes: list[Strike], difficulty: Difficulty, seed: int = 0) -> tuple[Note, ...]:
    context = PlacementContext(Rules(difficulty, 120, 15), TimeMap(120).to_seconds)
    return Decoder(difficulty, context, np.random.default_rng(seed)).decode(strikes).notes


def test_streams_alternate_hands() -> None:
    hands = [s.hands for s in hands_of([96 + 12 * k for k in range(64)])]
    assert all(a != b for a, b in pairwise(hands))


def test_doubles_take_both_hands_and_leave_them_time() -> None:
    strikes = hands_of([48 * k for k in range(1, 40)], doubles=(4, 9, 20))
    assert [i for i, s in enumerate(strikes) if s.hands == BOTH_HANDS] == [4, 9, 20]


def test_a_hand_without_time_is_never_asked() -> None:
    slots = np.cumsum(np.random.default_rng(5).choice([24, 48, 72], 300)).tolist()
    for difficulty in Difficulty:
        style = STYLES[difficulty]
        strikes = hands_of(slots, difficulty, doubles=tuple(range(0, 300, 3)))
        for colour in (RED, BLUE):
            own = [s.time_s for s in strikes if s.has(colour)]
            assert min(np.diff(own)) >= style.hand_gap_s - 1e-6


def test_a_bar_that_repeats_another_repeats_its_hands_and_sides() -> None:
    rhythm = [0, 24, 48, 96, 120, 144, 156]
    bars = Bars(0, 192, (-1, -1, -1, 0, 1, 2, 0, 1, 2))
    strikes = hands_of([192 * b + r for b in range(9) for r in rhythm], bars=bars)
    copies = [s for s in strikes if s.model >= 0]
    assert len(copies) > 0.8 * 6 * len(rhythm)
    swap = (0, 2, 1, 3)
    for strike in copies:
        model = strikes[strike.model]
        assert (strike.slot - model.slot) % 192 == 0
        assert strike.hands == (swap[model.hands] if strike.mirrored else model.hands)
    notes = decoded(strikes, Difficulty.HARD)
    by_slot: dict[int, list[Note]] = {}
    for note in notes:
        by_slot.setdefault(round(note.beat * 48), []).append(note)
    same = total = 0
    for strike in copies:
        for note in by_slot[strike.slot]:
            colour = 1 - note.colour if strike.mirrored else note.colour
            state = int(MIRROR_S[index_of(note)]) if strike.mirrored else index_of(note)
            models = by_slot[strikes[strike.model].slot]
            same += any(index_of(m) == state for m in models if m.colour == colour)
            total += 1
    assert same / total > 0.5


@pytest.mark.parametrize("difficulty", Difficulty)
def test_the_first_cut_of_each_hand_goes_down(difficulty: Difficulty) -> None:
    for seed in range(8):
        notes = decoded(hands_of([96 + 24 * k for k in range(12)], difficulty), difficulty, seed)
        for colour in (RED, BLUE):
            first = next(n for n in notes if n.colour == colour)
            assert first.direction in (1, 6, 7)


@pytest.mark.parametrize("difficulty", Difficulty)
def test_no_wrist_is_broken_at_any_density(difficulty: Difficulty) -> None:
    rng = np.random.default_rng(8)
    for gaps in ([12, 24], [24, 48], [6, 12, 24, 36]):
        slots = np.cumsum(rng.choice(gaps, 250)).tolist()
        doubles = tuple(rng.choice(250, 60, replace=False).tolist())
        strikes = hands_of(slots, difficulty, doubles=doubles)
        notes = decoded(strikes, difficulty)
        assert len(notes) >= 0.98 * sum(s.hands.bit_count() for s in strikes)
        for colour in (RED, BLUE):
            judged = judge_hand(colour, notes, [], TimeMap(120).to_seconds)
            assert Counter(v.parity for _, v in judged).keys() <= {"none"}


def test_histograms_come_back_from_a_bad_start() -> None:
    tally = Tally(Difficulty.HARD)
    for _ in range(40):
        tally.add(RED, index_of(Note(0, 0, 2, RED, 0)))
    feedback = tally.feedback(RED, 1.0)
    assert feedback[index_of(Note(0, 1, 0, RED, 1))] > 1.0
    assert feedback[index_of(Note(0, 0, 2, RED, 0))] < -1.0


def test_unique_sequences_are_counted_as_the_figures_count_them() -> None:
    rng = np.random.default_rng(2)
    tally, seen, total = Tally(Difficulty.EASY), set(), 0
    states = rng.integers(0, 4, 300).tolist()
    for state in states:
        tally.add(RED, state)
    for i in range(len(states) - 3):
        seen.add(tuple(states[i : i + 4]))
        total += 1
    assert tally.unique == pytest.approx(len(seen) / total)


def test_hands_are_each_others_mirror_image() -> None:
    red, blue = table_of(Difficulty.EXPERT, RED), table_of(Difficulty.EXPERT, BLUE)
    assert np.array_equal(red.state_2S[:, MIRROR_S], blue.state_2S)
    assert np.array_equal(np.sort(MIRROR_S), np.arange(108))
    down_left, down_right = 6, 7
    assert np.array_equal(red.turn_2DS[0, down_left][MIRROR_S], blue.turn_2DS[0, down_right])


def test_a_mirrored_chart_is_as_human() -> None:
    heard, timing = made_up_song()
    request = ChartRequest(difficulty=Difficulty.EXPERT)
    (chart,) = generate_charts(heard, timing, [request], lead_beats=8, duration_s=110)
    for metric, check in inside_human_range(chart.mirrored()).items():
        assert check.inside, metric
    assert 0.45 < np.mean([n.colour for n in chart.notes]) < 0.55
    assert sum(n.direction == DOT for n in chart.notes) > 0
