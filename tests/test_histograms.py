"""Distributions of a chart; each corruption of a human-like chart must move its own measure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chart_samples import BPM, chart_of, drawn_chart
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.beatmap.chart import RED, Chart, Difficulty, Note
from mgen.core.beatmap.findings import check_chart
from mgen.core.beatmap.histograms import (
    METRICS,
    divergence,
    figures,
    gap_class,
    grid_of,
    histograms,
    human_histogram,
    human_limit,
    inside_human_range,
    jensen_shannon,
    onsets,
)

SHARES = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(sum)


@pytest.fixture(scope="module")
def human_like() -> Chart:
    return drawn_chart(3, Difficulty.HARD, 800)


def jsd(chart: Chart, metric: str) -> float:
    return inside_human_range(chart)[metric].jsd


def with_notes(chart: Chart, notes) -> Chart:
    return replace(chart, notes=tuple(notes))


@settings(deadline=None)
@given(SHARES, SHARES)
def test_jensen_shannon_is_a_symmetric_divergence_in_bits(p, q):
    bits = jensen_shannon(p, q)
    assert 0.0 <= bits <= 1.0 + 1e-12
    assert bits == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert jensen_shannon(p, np.multiply(p, 7.5)) == pytest.approx(0.0, abs=1e-12)


def test_jensen_shannon_of_known_histograms():
    assert jensen_shannon([1, 0], [0, 1]) == 1.0
    # half of (log2(4/3) + 1/2 log2(2/3) + 1/2 log2(2))
    expected = 0.5 * np.log2(4 / 3) + 0.25 * np.log2(2 / 3) + 0.25
    assert jensen_shannon([1, 0], [1, 1]) == pytest.approx(expected)
    assert divergence({"a": 1.0}, {"a": 1.0, "b": 1.0}) == pytest.approx(expected)
    assert jensen_shannon([0, 0], [1, 1]) == 1.0
    assert jensen_shannon([0, 0], [0, 0]) == 0.0


@pytest.mark.parametrize("difficulty", list(Difficulty))
def test_the_reference_is_whole(difficulty):
    for metric in METRICS:
        assert sum(human_histogram(difficulty, metric).values()) == pytest.approx(1.0, abs=1e-3)
        assert 0.0 < human_limit(difficulty, metric) < 0.2
    names = {
        gap_class(b) for b in (0.125, 1 / 6, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1, 1.5, 2, 3, 4, 9)
    }
    assert set(human_histogram(difficulty, "gap_beats")) <= names
    assert human_limit(Difficulty.EASY, "gap_beats") == 0.15


@pytest.mark.parametrize(
    ("beats", "name"),
    [(0.5, "0.5"), (0.333, "0.3333333333333333"), (0.17, "0.16666666666666666"), (1.0, "1"),
     (2.4, "2"), (4.2, "4"), (4.21, ">4"), (0.01, "0.125")],
)  # fmt: skip
def test_gaps_go_to_the_nearest_class(beats, name):
    assert gap_class(beats) == name


@pytest.mark.parametrize(
    ("beat", "grid"),
    [(7.0, "1/1"), (7.5, "1/2"), (7.25, "1/4"), (7.6667, "1/3"), (7.8333, "1/6"), (7.875, "1/8"),
     (7.0625, "other"), (7.1, "other")],
)  # fmt: skip
def test_an_onset_counts_on_its_coarsest_grid(beat, grid):
    assert grid_of(beat) == grid


def test_histograms_of_a_chart_by_hand():
    chart = chart_of("4:r101 4.01:b201 5:r100 6.5:b212 8.5:r028")
    assert [len(group) for group in onsets(chart.notes)] == [2, 1, 1, 1]
    counted = histograms(chart.notes)
    assert counted["direction"] == {"0": 0.2, "1": 0.4, "2": 0.2, "8": 0.2}
    assert counted["row"] == {"0": 0.6, "1": 0.2, "2": 0.2}
    assert counted["colour_column"] == {"00": 0.2, "01": 0.4, "12": 0.4}
    assert counted["gap_beats"] == pytest.approx({"1": 1 / 3, "1.5": 1 / 3, "2": 1 / 3})


def test_figures_of_a_chart_by_hand():
    chart = chart_of("4:r101 4:b201 5:r100 5:b200 6:r101 7:b201 7.05:b211 8:r101")
    plain = figures(chart, BPM)
    assert plain.notes == 8
    assert plain.nps == pytest.approx(8 / 2.0)  # beats 4 to 8 at 120 BPM
    assert plain.sps == pytest.approx(7 / 2.0)  # two blue notes in one swing
    assert plain.doubles == pytest.approx(2 / 6)  # onsets at 4, 5, 6, 7, 7.05, 8
    assert plain.grid["1/1"] == pytest.approx(5 / 6)
    assert plain.distinct_states == 5
    assert plain.unique_sequences == 1.0
    assert plain.red == 0.5
    assert figures(chart, 2 * BPM).nps == pytest.approx(2 * plain.nps)


def test_figures_of_no_notes():
    plain = figures(chart_of(""), BPM)
    assert (plain.nps, plain.doubles, plain.unique_sequences, plain.red) == (0, 0, 0, 0)
    assert not any(check.inside for check in inside_human_range(chart_of("")).values())


def test_figures_of_a_modded_chart():
    wild = tuple(Note(8.0 + i / 50, 1000, -7, RED, 1000 + i) for i in range(3))
    assert figures(chart_of("", notes=wild), BPM).sps == 0


def test_a_chart_drawn_from_human_shares_is_inside(human_like):
    assert {m: c.inside for m, c in inside_human_range(human_like).items()} == dict.fromkeys(
        METRICS, True
    )


def test_probe_a_late_chart_leaves_the_grid(human_like):
    late = with_notes(
        human_like, (replace(n, beat=n.beat + 0.05 * BPM / 60) for n in human_like.notes)
    )
    before, after = figures(human_like, BPM).grid, figures(late, BPM).grid
    assert after["1/1"] + after["1/2"] < 0.1 < before["1/1"] + before["1/2"]
    count = [
        sum(f.rule == "Off-beat precision" for f in check_chart(c, BPM)) for c in (human_like, late)
    ]
    assert count[1] > count[0]


def test_probe_shuffled_positions(human_like):
    rng = np.random.default_rng(0)
    places = [(n.column, n.row) for n in human_like.notes]
    shuffled = with_notes(human_like, (
        replace(n, column=places[i][0], row=places[i][1])
        for n, i in zip(human_like.notes, rng.permutation(len(places)), strict=True)
    ))  # fmt: skip
    check = inside_human_range(shuffled)["colour_column"]
    assert check.jsd > 5 * jsd(human_like, "colour_column")
    assert not check.inside
    clashes = {"Handclap", "Hitbox path", "Stacked note", "Vision block", "Parallel notes"}
    hits = [sum(f.rule in clashes for f in check_chart(c, BPM)) for c in (human_like, shuffled)]
    assert hits[1] > hits[0]


def test_probe_one_hand_mirrored(human_like):
    mirrored = human_like.mirrored()
    red_crossed = with_notes(human_like, sorted(
        [n for n in human_like.notes if n.colour != RED]
        + [replace(n, colour=RED) for n in mirrored.notes if n.colour != RED]
    ))  # fmt: skip
    check = inside_human_range(red_crossed)["colour_column"]
    assert check.jsd > 5 * jsd(human_like, "colour_column")
    assert not check.inside


def test_probe_a_fifth_of_the_notes_dropped(human_like):
    rng = np.random.default_rng(1)
    kept = [n for n in human_like.notes if rng.random() > 0.2]
    thinned = with_notes(human_like, kept)
    assert jsd(thinned, "gap_beats") > jsd(human_like, "gap_beats")
    assert figures(thinned, BPM).nps == pytest.approx(0.8 * figures(human_like, BPM).nps, rel=0.06)
    errors = [
        sum(f.rule == "Parity error" for f in check_chart(c, BPM)) for c in (human_like, thinned)
    ]
    assert errors[0] == 0 < errors[1]


def test_probe_one_direction_only(human_like):
    flat = with_notes(human_like, (replace(n, direction=1) for n in human_like.notes))
    assert not inside_human_range(flat)["direction"].inside
    top = with_notes(human_like, (replace(n, row=2) for n in human_like.notes))
    assert not inside_human_range(top)["row"].inside


def test_order_and_mirroring_do_not_matter():
    notes = [Note(4.0 + i / 2, i % 4, i % 3, i % 2, i % 9) for i in range(40)]
    chart = chart_of("", notes=tuple(notes))
    assert histograms(notes[::-1]) == histograms(notes)
    assert figures(replace(chart, notes=chart.notes[::-1]), BPM) == figures(chart, BPM)
    assert histograms(chart.mirrored().notes)["row"] == histograms(notes)["row"]
