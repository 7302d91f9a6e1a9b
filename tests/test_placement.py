"""Which sounds become notes: on what is heard, as dense as asked, in time for both hands."""

from __future__ import annotations

import numpy as np
import pytest
from heard_songs import made_up_song
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from mgen.core.beatmap.chart import Difficulty, TimeMap
from mgen.core.beatmap.density import (
    GAP_BINS,
    STYLES,
    choose_target,
    gap_bin_of_slots,
    human_gaps,
)  # fmt: skip
from mgen.core.beatmap.hearing import Heard
from mgen.core.beatmap.histograms import (
    gap_class,
    human_histogram,
    human_limit,
)  # fmt: skip
from mgen.core.beatmap.placement import (
    Candidates,
    Onsets,
    choose_onsets,
    find_candidates,
    notes_per_second,
)  # fmt: skip
from mgen.core.beatmap.tokens import nps_range


def candidates_of(heard: Heard, bpm: float = 128.0, lead: int = 8) -> Candidates:
    duration_s = heard.duration_s + lead * 60.0 / bpm
    return find_candidates(heard, TimeMap(bpm), 4, lead, duration_s)


def onsets_of(candidates: Candidates, difficulty: Difficulty, bpm: float = 128.0) -> Onsets:
    target = choose_target(difficulty, bpm, nps_range(difficulty)[1], False)
    return choose_onsets(candidates, target, np.random.default_rng(3))


def test_candidates_keep_clear_of_the_ends_and_of_silence() -> None:
    heard, _ = made_up_song(silent_bars=range(20, 28))
    found = candidates_of(heard)
    assert found.time_N[0] >= 2.0
    assert found.time_N[-1] <= heard.duration_s + 8 * 60 / 128 - 2.0
    beats = found.slot_N / 48 - 8
    assert not ((beats >= 80) & (beats < 112)).any()
    assert (np.diff(found.slot_N) > 0).all()


def test_what_is_heard_is_rated_over_what_is_filled_in() -> None:
    heard, _ = made_up_song(share=0.2)
    found = candidates_of(heard)
    assert found.salience_N[found.heard_N].min() > found.salience_N[~found.heard_N].max()
    downbeats = found.heard_N & (found.slot_N % (4 * 48) == 0)
    rest = found.heard_N & ~downbeats
    assert found.salience_N[downbeats].mean() > found.salience_N[rest].mean() + 0.2


@pytest.mark.parametrize("difficulty", Difficulty)
def test_onsets_stand_on_what_is_heard_with_gaps_as_humans_leave_them(
    difficulty: Difficulty,
) -> None:
    heard, _ = made_up_song()
    onsets = onsets_of(candidates_of(heard), difficulty)
    assert onsets.at.heard_N.mean() > 0.85
    style = STYLES[difficulty]
    assert np.diff(onsets.at.time_N).min() >= style.min_gap_s - 1e-6
    assert np.diff(onsets.at.slot_N).min() >= 48 * style.min_gap_beats
    gaps = [gap_class(float(g)) for g in np.diff(onsets.at.slot_N) / 48]
    human = human_histogram(difficulty, "gap_beats")
    classes = sorted({*gaps, *human})
    ours = [gaps.count(c) for c in classes]
    distance = jensenshannon(ours, [human.get(c, 0.0) for c in classes], base=2) ** 2
    assert distance <= human_limit(difficulty, "gap_beats")
    low, _, high = nps_range(difficulty)
    assert low <= notes_per_second(onsets) <= high
    share = float(np.mean(onsets.at.slot_N % 24 == 0))
    assert share >= style.main_share - 0.01


def test_doubles_fall_on_accents_with_time_on_either_side() -> None:
    heard, _ = made_up_song()
    onsets = onsets_of(candidates_of(heard), Difficulty.EXPERT)
    double = onsets.double_O
    assert 0.12 <= double.mean() <= 0.35
    assert onsets.at.accent_N[double].mean() > onsets.at.accent_N[~double].mean() + 0.1
    gaps = np.diff(onsets.at.time_N)
    for i in np.flatnonzero(double):
        assert i == 0 or gaps[i - 1] >= STYLES[Difficulty.EXPERT].hand_gap_s - 1e-6
        assert i == len(gaps) or gaps[i] >= STYLES[Difficulty.EXPERT].hand_gap_s - 1e-6


def test_easier_charts_use_the_onsets_of_harder_ones() -> None:
    heard, _ = made_up_song()
    candidates = candidates_of(heard)
    slots: set[int] | None = None
    for difficulty in reversed(Difficulty):
        onsets = onsets_of(candidates, difficulty)
        own = set(onsets.at.slot_N.tolist())
        assert slots is None or own <= slots
        slots, candidates = own, onsets.at


@settings(max_examples=15, deadline=None)
@given(st.floats(55, 230), st.sampled_from(Difficulty))
def test_targets_stay_in_the_difficulty_s_range_at_any_tempo(
    bpm: float, difficulty: Difficulty
) -> None:
    low, usual, high = nps_range(difficulty)
    target = choose_target(difficulty, bpm, usual, False)
    assert target.gaps.sum() == pytest.approx(1.0)
    assert low <= target.nps <= high
    assert target.nps == pytest.approx(
        (1 + target.doubles) * bpm / 60 / float(target.gaps @ np.array(GAP_BINS))
    )


def test_a_named_density_goes_before_the_histogram() -> None:
    usual = choose_target(Difficulty.HARD, 128, 5.0, False)
    asked = choose_target(Difficulty.HARD, 128, 5.0, True)
    assert asked.nps == pytest.approx(5.0, rel=0.05)
    human = human_gaps(Difficulty.HARD)
    assert np.abs(asked.gaps - human).sum() > np.abs(usual.gaps - human).sum()


def test_gap_bins_are_those_of_the_histograms() -> None:
    bins = gap_bin_of_slots()
    for slots in range(4, 202):
        name = gap_class(slots / 48)
        value = GAP_BINS[bins[slots]]
        assert float(name) == pytest.approx(value)


def test_the_same_seed_chooses_the_same_onsets_and_silence_none() -> None:
    heard, _ = made_up_song(bars=16)
    first, second = (onsets_of(candidates_of(heard), Difficulty.NORMAL) for _ in range(2))
    assert first.at.slot_N.tolist() == second.at.slot_N.tolist()
    nothing = candidates_of(heard).take(np.zeros(0, np.int64))
    assert len(onsets_of(nothing, Difficulty.NORMAL)) == 0
