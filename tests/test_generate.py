"""Whole charts: every acceptance number, determinism, remapping, what is asked for is obeyed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from heard_songs import made_up_song

from mgen.core.beatmap.chart import BLUE, RED, BpmChange, Chart, Difficulty, TimeMap
from mgen.core.beatmap.findings import check_chart
from mgen.core.beatmap.generate import ChartRequest, generate_charts
from mgen.core.beatmap.histograms import figures, inside_human_range
from mgen.core.beatmap.parity import judge_hand
from mgen.core.beatmap.speed import choose_speed, half_jump_beats
from mgen.core.beatmap.tokens import nps_range
from mgen.core.errors import UsageError

BPM, LEAD = 128.0, 8
HEARD, TIMING = made_up_song(bpm=BPM)
DURATION_S = HEARD.duration_s + LEAD * 60 / BPM


def charts_of(*requests: ChartRequest, **options: object) -> list[Chart]:
    given: dict = {"lead_beats": LEAD, "duration_s": DURATION_S, **options}
    return generate_charts(HEARD, TIMING, requests, **given)


@pytest.fixture(scope="module")
def all_five() -> dict[Difficulty, Chart]:
    charts = charts_of(*(ChartRequest(difficulty=d) for d in Difficulty))
    return {c.difficulty: c for c in charts}


ACCEPTED = {  # doubles up to, whole and half beats from, distinct states from
    Difficulty.EASY: (0.25, 0.99, 40),
    Difficulty.NORMAL: (0.25, 0.97, 50),
    Difficulty.HARD: (0.30, 0.94, 60),
    Difficulty.EXPERT: (0.35, 0.80, 70),
    Difficulty.EXPERT_PLUS: (0.40, 0.75, 70),
}


@pytest.mark.parametrize("difficulty", Difficulty)
def test_a_chart_is_like_a_human_one(
    all_five: dict[Difficulty, Chart], difficulty: Difficulty
) -> None:
    chart = all_five[difficulty]
    found = figures(chart, BPM)
    doubles, main, distinct = ACCEPTED[difficulty]
    low, _, high = nps_range(difficulty)
    assert low <= found.nps <= high
    assert 0.10 <= found.doubles <= doubles
    assert found.grid["1/1"] + found.grid["1/2"] >= main
    assert found.distinct_states >= distinct
    assert 0.75 <= found.unique_sequences <= 0.95
    for metric, check in inside_human_range(chart).items():
        assert check.inside, metric
    beats = [n.beat for n in chart.notes]
    clock = TimeMap(BPM)
    assert clock.to_seconds(beats[0]) >= 2.0
    assert clock.to_seconds(beats[-1]) <= DURATION_S - 2.0
    assert all((b * 48).is_integer() for b in beats)


@pytest.mark.parametrize("difficulty", Difficulty)
def test_a_chart_has_no_errors(all_five: dict[Difficulty, Chart], difficulty: Difficulty) -> None:
    rules = {f.rule for f in check_chart(all_five[difficulty], BPM, DURATION_S)
             if f.severity == "error"}  # fmt: skip
    assert rules == set()
    findings = [f.rule for f in check_chart(all_five[difficulty], BPM, DURATION_S)]
    per_note = 1000 / len(all_five[difficulty].notes)
    assert findings.count("Vision block") * per_note <= 17
    assert findings.count("Parity warning") == 0


def test_easier_charts_share_the_rhythm_of_harder_ones(all_five: dict[Difficulty, Chart]) -> None:
    beats = [{n.beat for n in all_five[d].notes} for d in Difficulty]
    for easier, harder in pairwise(beats):
        # the harder chart may have lost an onset for which no hand had time
        assert len(easier - harder) <= 0.01 * len(easier)
        assert len(easier) < len(harder)


def test_a_chart_does_not_depend_on_the_company(all_five: dict[Difficulty, Chart]) -> None:
    (alone,) = charts_of(ChartRequest(difficulty=Difficulty.NORMAL))
    assert alone == all_five[Difficulty.NORMAL]
    (other,) = charts_of(ChartRequest(difficulty=Difficulty.NORMAL, seed=1))
    assert other.notes != alone.notes


@pytest.mark.parametrize(("difficulty", "nps"), [(Difficulty.EASY, 1.2), (Difficulty.HARD, 2.4),
                                                 (Difficulty.EXPERT_PLUS, 6.0)])  # fmt: skip
def test_a_density_is_obeyed(difficulty: Difficulty, nps: float) -> None:
    (chart,) = charts_of(ChartRequest(difficulty=difficulty, nps=nps))
    assert figures(chart, BPM).nps == pytest.approx(nps, rel=0.15)


def test_a_higher_rating_is_denser() -> None:
    charts = [charts_of(ChartRequest(difficulty=Difficulty.HARD, rating=r))[0] for r in (1, 5, 9)]
    densities = [figures(c, BPM).nps for c in charts]
    assert densities == sorted(densities)
    assert densities[2] > 1.3 * densities[0]


def test_walls_stand_beside_the_player_and_clear_of_notes(
    all_five: dict[Difficulty, Chart],
) -> None:
    clock = TimeMap(BPM)
    chart = all_five[Difficulty.NORMAL]
    assert len(chart.walls) > 5
    for wall in chart.walls:
        assert wall.column in (0, 3)
        assert (wall.width, wall.row, wall.height) == (1, 0, 5)
        assert wall.duration >= 1.0
        start, end = clock.to_seconds(wall.beat), clock.to_seconds(wall.beat + wall.duration)
        near = [n for n in chart.notes if n.column == wall.column
                and start - 0.15 < clock.to_seconds(n.beat) < end + 0.15]  # fmt: skip
        assert near == []
    (bare,) = charts_of(ChartRequest(difficulty=Difficulty.NORMAL, walls=False))
    assert bare.walls == ()
    assert bare.notes == chart.notes


def test_bombs_come_only_where_asked_and_break_nothing() -> None:
    (chart,) = charts_of(ChartRequest(difficulty=Difficulty.EASY, bombs=True))
    assert len(chart.bombs) > 0
    rules = {f.rule for f in check_chart(chart, BPM, DURATION_S) if f.severity == "error"}
    assert rules == set()
    assert {"Hammer hit", "Stacked bomb"}.isdisjoint(rules)
    assert all(b.column in (0, 3) for b in chart.bombs)


@pytest.mark.parametrize("difficulty", [Difficulty.EASY, Difficulty.HARD, Difficulty.EXPERT_PLUS])
def test_a_remapped_span_joins_what_is_kept(
    all_five: dict[Difficulty, Chart], difficulty: Difficulty
) -> None:
    kept = all_five[difficulty]
    for seed, span in enumerate([(48.0, 80.0), (100.0, 116.5), (0.0, 40.0), (200.0, 400.0)]):
        (new,) = charts_of(
            ChartRequest(difficulty=difficulty, seed=seed + 7), keep={difficulty: kept},
            span_beats=span,
        )  # fmt: skip
        inside = [n for n in new.notes if span[0] <= n.beat < span[1]]
        outside = [n for n in new.notes if not span[0] <= n.beat < span[1]]
        assert outside == [n for n in kept.notes if not span[0] <= n.beat < span[1]]
        assert inside != [n for n in kept.notes if span[0] <= n.beat < span[1]]
        was = sum(span[0] <= n.beat < span[1] for n in kept.notes)
        assert len(inside) > 0.6 * was
        for colour in (RED, BLUE):
            judged = judge_hand(colour, new.notes, new.bombs, TimeMap(BPM).to_seconds)
            assert [s.beat for s, v in judged if v.parity == "error"] == []
        errors = [f for f in check_chart(new, BPM, DURATION_S) if f.severity == "error"]
        assert errors == []
        assert (new.njs, new.njs_offset) == (kept.njs, kept.njs_offset)


def test_remapping_is_repeatable(all_five: dict[Difficulty, Chart]) -> None:
    kept = all_five[Difficulty.HARD]
    made = [
        charts_of(ChartRequest(difficulty=Difficulty.HARD, seed=3),
                  keep={Difficulty.HARD: kept}, span_beats=(64, 96))
        for _ in range(2)
    ]  # fmt: skip
    assert made[0] == made[1]


@pytest.mark.parametrize("bpm", [60.0, 200.0])
def test_extreme_tempi_stay_playable(bpm: float) -> None:
    heard, timing = made_up_song(bpm=bpm, bars=40)
    charts = generate_charts(
        heard, timing, [ChartRequest(difficulty=d) for d in Difficulty], lead_beats=8,
        duration_s=heard.duration_s + 8 * 60 / bpm,
    )  # fmt: skip
    for chart in charts:
        low, _, high = nps_range(chart.difficulty)
        assert 0.9 * low <= figures(chart, bpm).nps <= high
        assert [f for f in check_chart(chart, bpm) if f.severity == "error"] == []
        for colour in (RED, BLUE):
            times = [n.beat * 60 / bpm for n in chart.notes if n.colour == colour]
            assert min(np.diff(times)) >= 0.12


def test_waltzes_and_tempo_changes() -> None:
    heard, timing = made_up_song(bpm=150, bars=60, beats_per_bar=3)
    timing = replace(timing, changes=(BpmChange(90.0, 120.0),))
    (chart,) = generate_charts(
        heard, timing, [ChartRequest(difficulty=Difficulty.EXPERT)], lead_beats=6,
        duration_s=100.0,
    )  # fmt: skip
    assert chart.bpm_changes == (BpmChange(96.0, 120.0),)
    clock = chart.time_map(150)
    assert clock.to_seconds(chart.notes[-1].beat) <= 98.0
    downbeats = sum((n.beat - 6) % 3 == 0 for n in chart.notes)
    others = sum((n.beat - 6) % 3 in (1, 2) for n in chart.notes) / 2
    assert downbeats > others


def test_what_makes_no_sense_is_refused_in_one_line() -> None:
    for request in (ChartRequest(difficulty=Difficulty.EASY, rating=11),
                    ChartRequest(difficulty=Difficulty.EASY, nps=0),
                    ChartRequest(difficulty=Difficulty.EASY, njs=99)):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            charts_of(request)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="stretch"):
        charts_of(ChartRequest(difficulty=Difficulty.EASY), span_beats=(9.0, 3.0))
    with pytest.raises(UsageError, match="nothing is heard"):
        charts_of(ChartRequest(difficulty=Difficulty.EASY), duration_s=3.0)


@pytest.mark.parametrize("difficulty", Difficulty)
@pytest.mark.parametrize("bpm", [60, 90, 128, 175, 230])
def test_notes_can_be_seen_in_time(difficulty: Difficulty, bpm: float) -> None:
    for nps in (2.0, 9.0):
        speed = choose_speed(difficulty, bpm, nps)
        assert speed.reaction_s >= 0.42 - 1e-3
        assert 18 <= speed.jump_m <= 36
        assert speed.jump_m <= 18 / 1.07**speed.njs + 18
        told = half_jump_beats(bpm, speed.njs, speed.offset_beats) * 60 / bpm
        assert told == pytest.approx(speed.reaction_s)
    assert choose_speed(difficulty, bpm, 2.0, njs=14).njs == 14


def test_half_jumps_are_the_games() -> None:
    assert half_jump_beats(120, 10) == 2.0  # 4 beats would be 20 m
    assert half_jump_beats(120, 18) == 1.0
    assert half_jump_beats(200, 10) == 4.0
    assert half_jump_beats(120, 10, -3) == 0.25
