"""Bars found from made-up cues whose bars are known, and how sure the tracker is of its beats."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import click_track
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.beats import track_beats
from mgen.core.beats.confidence import posterior_confidence
from mgen.core.beats.features import FPS, RATE, SLOW_FPS, Features
from mgen.core.beats.meter import MeterSettings, halve_odd_bars, place_beats

Array = np.ndarray
BEAT_S = 0.5


def music(bars: list[int], seed: int = 0, noise: float = 0.5) -> tuple[Array, Features, Array]:
    """Beats, features, network's downbeats of bars of so many beats: a chord and a bass per bar."""
    rng = np.random.default_rng(seed)
    n = sum(bars)
    time_s = 0.25 + BEAT_S * np.arange(n)
    first_n = np.zeros(n, bool)
    first_n[np.cumsum([0, *bars[:-1]])] = True
    duration_s = time_s[-1] + BEAT_S
    onsets_TK = rng.random((round(duration_s * FPS), 3)).astype(np.float32) * 0.1
    at_n = np.round(time_s * FPS).astype(int)
    onsets_TK[at_n] += rng.random((n, 3)) * noise + np.where(first_n, 0.6, 0.2)[:, None]
    frames = round(duration_s * SLOW_FPS)
    bar_S = np.clip(
        np.searchsorted(time_s[first_n], np.arange(frames) / SLOW_FPS + 1e-6, "right") - 1, 0, None
    )
    chords, basses, tones = (rng.random((len(bars), k)) for k in (12, 12, 20))
    slow = [
        (table[bar_S] + rng.random((frames, table.shape[1])) * noise).astype(np.float32)
        for table in (chords, basses, tones)
    ]
    logit_n = np.where(first_n, 1.5, -2.0) + rng.normal(0.0, 2.0 * noise, n)
    return time_s, Features(onsets_TK, *slow, float(duration_s)), logit_n


def downbeats_of(bars: list[int]) -> Array:
    return np.cumsum([0, *bars[:-1]])


def agreement(bars: list[int], place_n: Array) -> float:
    """F-measure of downbeats, as indices of beats."""
    truth, found = set(downbeats_of(bars).tolist()), set(np.flatnonzero(place_n == 1).tolist())
    return 2 * len(truth & found) / (len(truth) + len(found))


class TestPlaces:
    @pytest.mark.parametrize("heard", [True, False])
    @pytest.mark.parametrize("meter", [3, 4, 5, 6, 7])
    def test_meters(self, meter: int, heard: bool) -> None:
        bars = [meter] * 16
        time_s, features, logit_n = music(bars, seed=meter)
        place_n = place_beats(time_s, features, None, logit_n if heard else None)
        assert agreement(bars, place_n) > 0.95
        assert place_n.max() == meter

    @pytest.mark.parametrize(("one", "other"), [(4, 3), (3, 4), (4, 5), (4, 7)])
    def test_a_change_of_meter_is_followed_within_three_bars(self, one: int, other: int) -> None:
        bars = [one] * 12 + [other] * 12 + [one] * 12
        time_s, features, logit_n = music(bars)
        place_n = place_beats(time_s, features, None, logit_n)
        edges = downbeats_of(bars)
        right = place_n[edges] == 1
        assert right[3:12].all()
        assert right[15:24].all()
        assert right[27:].all()
        assert agreement(bars, place_n) > 0.9

    @pytest.mark.parametrize("pickup", [1, 2, 3])
    def test_a_pickup_counts_towards_the_first_bar(self, pickup: int) -> None:
        time_s, features, logit_n = music([pickup] + [4] * 12, seed=2)
        logit_n[0] = -2.0  # it begins, but is no downbeat
        place_n = place_beats(time_s, features, None, logit_n)
        assert place_n[: pickup + 1].tolist() == [*range(5 - pickup, 5), 1]

    def test_what_says_nothing_is_four_four_from_the_first_beat(self) -> None:
        time_s = 0.25 + BEAT_S * np.arange(40)
        flat = Features(
            np.zeros((2100, 3), np.float32), *(np.ones((420, k), np.float32) for k in (12, 12, 20)),
            21.0,
        )  # fmt: skip
        assert place_beats(time_s, flat).tolist() == [1, 2, 3, 4] * 10

    @settings(max_examples=25, deadline=None)
    @given(
        bars=st.lists(st.integers(1, 8), min_size=1, max_size=20), seed=st.integers(0, 99),
        cost=st.floats(0.0, 10.0),
    )  # fmt: skip
    def test_places_count_up_or_begin_again(self, bars: list[int], seed: int, cost: float) -> None:
        time_s, features, logit_n = music(bars, seed, noise=2.0)
        settings = MeterSettings(new_meter_cost=cost, cut_bar_cost=cost)
        place_n = place_beats(time_s, features, settings, logit_n) if len(time_s) > 1 else []
        for before, after in itertools.pairwise(place_n):
            assert after in (1, before + 1)


class TestHalving:
    def quarters(self, meter: int, bars: int, *middle: float) -> tuple[Array, Array, Array]:
        """Beats, places, and downbeat logits at each bar's start and at beats further in it."""
        time_s = 0.4 + BEAT_S * np.arange(meter * bars)
        downbeat_T = np.full(round((time_s[-1] + 2) * FPS), -6.0)
        for bar in range(bars):
            for beat in (0.0, *middle):
                at = 0.4 + BEAT_S * (bar * meter + beat)
                downbeat_T[round(at * FPS)] = 2.0
        return time_s, np.tile(np.arange(1, meter + 1, dtype=np.int8), bars), downbeat_T

    @pytest.mark.parametrize("meter", [5, 7])
    def test_two_bars_of_eighths_in_one_of_quarters(self, meter: int) -> None:
        time_s, place_n, downbeat_T = self.quarters(meter, 6, meter / 2)
        halves_s, halves_n = halve_odd_bars(time_s, place_n, downbeat_T)
        assert np.allclose(np.diff(halves_s), BEAT_S / 2)
        assert set(time_s) <= set(halves_s)
        assert halves_n.tolist() == [*range(1, meter + 1)] * 11 + [*range(1, meter)]

    def test_the_pickup_and_the_last_bar_follow(self) -> None:
        time_s, place_n, downbeat_T = self.quarters(7, 6, 3.5)
        halves_s, halves_n = halve_odd_bars(time_s[5:-3], place_n[5:-3], downbeat_T)
        edges_s = 0.4 + BEAT_S * 3.5 * np.arange(2, 12)
        assert np.allclose(halves_s[halves_n == 1], edges_s[edges_s <= halves_s[-1]])

    @pytest.mark.parametrize(
        ("meter", "middle"),
        [(7, ()), (5, ()), (4, (2.0,)), (3, (1.5,)), (7, (0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5))],
    )
    def test_other_bars_are_left_alone(self, meter: int, middle: tuple[float, ...]) -> None:
        time_s, place_n, downbeat_T = self.quarters(meter, 8, *middle)
        same_s, same_n = halve_odd_bars(time_s, place_n, downbeat_T)
        assert np.array_equal(same_s, time_s)
        assert np.array_equal(same_n, place_n)

    def test_only_the_odd_part_changes(self) -> None:
        seven_s, seven_n, seven_T = self.quarters(7, 5, 3.5)
        four_s = seven_s[-1] + BEAT_S * np.arange(1, 21)
        downbeat_T = np.concatenate([seven_T, np.full(2000, -6.0)])
        time_s = np.concatenate([seven_s, four_s])
        place_n = np.concatenate([seven_n, np.tile(np.arange(1, 5, dtype=np.int8), 5)])
        halves_s, halves_n = halve_odd_bars(time_s, place_n, downbeat_T)
        assert len(halves_s) == 70 + 20
        assert halves_n[70:].tolist() == [1, 2, 3, 4] * 5
        assert halves_n[:70].tolist() == [*range(1, 8)] * 10

    @pytest.mark.parametrize("n", [0, 1, 2])
    def test_hardly_any_beats(self, n: int) -> None:
        time_s, place_n = np.arange(n) * 1.0, np.ones(n, np.int8)
        assert len(halve_odd_bars(time_s, place_n, np.zeros(500))[0]) == n


class TestConfidence:
    def heard(self, logit: float, rest: float = 0.02, beats: int = 40) -> Array:
        """Confidence where every beat has this logit, and onsets stand on beats over a rest."""
        frames_n = 50 * np.arange(1, beats + 1)
        beat_T, audible_T = np.full(50 * beats + 50, -8.0), np.full(50 * beats + 50, rest)
        beat_T[frames_n], audible_T[frames_n] = logit, 1.0
        return posterior_confidence(beat_T, audible_T, frames_n)

    def test_it_grows_with_what_the_network_hears(self) -> None:
        means = [self.heard(logit).mean() for logit in (-4.0, 0.0, 2.0, 4.0, 8.0)]
        assert (np.diff(means) >= 0).all()
        assert means[-1] > 0.85
        assert means[0] < means[-1] - 0.2

    def test_no_pulse_no_confidence(self) -> None:
        assert not self.heard(4.0, rest=1.0).any()
        assert not posterior_confidence(np.full(999, 4.0), np.zeros(999), np.arange(9) * 99).any()

    def test_few_beats_count_for_less(self) -> None:
        assert self.heard(8.0, beats=4).max() == pytest.approx(self.heard(8.0).max() / 2, rel=1e-3)

    def test_one_loud_beat_is_no_pulse(self) -> None:
        frames_n = 50 * np.arange(1, 41)
        beat_T, audible_T = np.full(2100, -3.0), np.full(2100, 0.02)
        beat_T[frames_n[20]], audible_T[frames_n] = 9.0, 1.0
        confidence_n = posterior_confidence(beat_T, audible_T, frames_n)
        assert confidence_n.max() - confidence_n.min() < 1e-6

    def test_a_steady_song_vouches_for_a_quiet_passage(self) -> None:
        frames_n = 50 * np.arange(1, 61)
        beat_T, audible_T = np.full(3100, -8.0), np.full(3100, 0.5)
        beat_T[frames_n] = 6.0
        audible_T[:2000] = 0.02
        audible_T[frames_n[:40]] = 1.0  # then a third in which nothing stands out
        alone_n = posterior_confidence(beat_T, audible_T, frames_n)
        steady_n = posterior_confidence(beat_T, audible_T, frames_n, steady=True)
        assert not alone_n[-8:].any()
        assert np.allclose(steady_n[-8:], alone_n[:20].max(), atol=0.02)
        audible_T[2000:] = 0.0  # silence is vouched for by nobody
        assert not posterior_confidence(beat_T, audible_T, frames_n, steady=True)[-8:].any()

    def test_clicks_are_sure_noise_is_not(self) -> None:
        noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
        assert track_beats(click_track(120, 20.0), RATE).confidence.mean() > 0.85
        assert track_beats(noise, RATE).confidence.mean() < 0.15
