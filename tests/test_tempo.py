"""The whole-song grid, on music whose beats are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rhythm import RATE, band, even, off

from mgen.core.beats import features, track_beats
from mgen.core.beats.attacks import listen
from mgen.core.beats.pulse import PER_BEAT, find_pulse
from mgen.core.beats.tempo import Grid, HeardBeats, drifts, fit_grid, smoothed

FIRST_S, BPM = 0.4, 123.0


@pytest.fixture(scope="module")
def pulse():
    return find_pulse(listen(band(even(BPM, FIRST_S, 50.0)), RATE))


def heard_at(times_s, meter=4):
    downbeats = (np.arange(len(times_s)) % meter == 0).astype(float)
    return HeardBeats(
        times_s, np.ones(len(times_s)), downbeats, 60 / float(np.median(np.diff(times_s)))
    )


def test_a_steady_song_gives_one_grid(pulse):
    grid = fit_grid(pulse)
    assert grid.bpm == pytest.approx(BPM, rel=2e-4)
    assert grid.beats_per_bar == 4
    assert off(GridLike(grid), FIRST_S, 4) < 0.01
    assert grid.confidence > 0.9
    assert grid.place_S.argmax() == 0
    times_s, odds_n = grid.beats(50.0)
    truth = even(BPM, FIRST_S, 50.0)
    assert np.abs(times_s[:, None] - truth).min(axis=0).max() < 0.012
    downbeats = times_s[odds_n == odds_n.max()]
    assert np.abs(downbeats[:, None] - truth[::4]).min(axis=0).max() < 0.012


class GridLike:  # what `off` of test_rhythm looks at
    def __init__(self, grid):
        self.bpm, self.offset_s = grid.bpm, grid.downbeat_s


@pytest.mark.parametrize("shift", [0.5, 1 / 3])
def test_a_tracker_on_the_off_beat_does_not_move_the_grid(pulse, shift):
    wrong = heard_at(even(BPM, FIRST_S, 49.0) + shift * 60 / BPM)
    assert off(GridLike(fit_grid(pulse, wrong)), FIRST_S) < 0.01


def test_the_tracker_settles_what_the_attacks_leave_open():
    # bare ticks: nothing tells one beat from the next
    ticks = np.zeros(40 * RATE, np.float32)
    times_s = even(100.0, 0.3, 39.0)
    for t in times_s:
        ticks[round(t * RATE) : round(t * RATE) + 400] += np.hanning(400).astype(np.float32)
    pulse = find_pulse(listen(ticks, RATE))
    for start in range(4):
        grid = fit_grid(pulse, heard_at(times_s[start:]))
        assert grid.bpm == pytest.approx(100.0, rel=1e-3)
        if grid.beats_per_bar == 4:
            assert off(GridLike(grid), times_s[start], 4) < 0.015


@pytest.mark.parametrize("bpm", [90.0, 105.0, 120.0])
def test_even_eighths_do_not_double_what_a_tracker_hears(bpm):
    """A riff of eighths, all alike but for soft drums on the beats, as rock has them."""
    times_s = even(bpm, 0.3, 39.0)
    sound = 0.05 * band(times_s)
    sound = np.pad(sound, (0, max(0, 40 * RATE - len(sound))))
    rng = np.random.default_rng(0)
    for t in even(2 * bpm, 0.3, 39.0):
        at, length = round(t * RATE), round(0.08 * RATE)
        sound[at : at + length] += rng.standard_normal(length) * np.linspace(0.5, 0, length)
    pulse = find_pulse(listen(sound.astype(np.float32), RATE))
    grid = fit_grid(pulse, heard_at(times_s))
    assert grid.bpm == pytest.approx(bpm, rel=1e-3)
    assert off(GridLike(grid), times_s[0]) < 0.015


def test_a_tempo_that_is_given_is_kept(pulse):
    assert fit_grid(pulse, bpm=61.5).bpm == 61.5


@pytest.mark.parametrize("length", [0, 1, 700, 5 * RATE])
def test_silence_has_no_grid(length):
    assert fit_grid(find_pulse(listen(np.zeros(length, np.float32), RATE))) is None


def test_a_change_of_tempo_is_a_drift_and_jitter_is_not(pulse):
    steady = even(BPM, FIRST_S, 49.0)
    jitter = np.random.default_rng(0).uniform(-0.02, 0.02, len(steady))
    assert not drifts(pulse, smoothed(steady + jitter), BPM)
    assert not drifts(pulse, smoothed(steady[::2]), BPM)
    changing = np.concatenate([even(100.0, 0.5, 25.0), 25.1 + 60 / 112 * np.arange(50)])
    other = find_pulse(listen(band(changing), RATE))
    assert drifts(other, smoothed(changing), fit_grid(other).bpm)


def test_the_tracker_keeps_to_the_grid_and_leaves_it():
    truth = even(BPM, FIRST_S, 40.0)
    found = track_beats(band(truth), RATE)
    assert np.abs(found.time_s[:, None] - truth[4:-1]).min(axis=0).max() < 0.012
    slowing = 0.5 + np.cumsum(np.linspace(0.45, 0.62, 70))
    found = track_beats(band(slowing), RATE)
    near = np.abs(found.time_s[:, None] - slowing[4:-2]).min(axis=0)
    assert (near < 0.03).mean() > 0.9


@given(
    bpm=st.floats(40, 250), place=st.floats(0, 0.999), meter=st.sampled_from([3, 4]),
    duration=st.floats(0, 100),
)  # fmt: skip
def test_beats_cover_the_song(bpm, place, meter, duration):
    bar_s = meter * 60 / bpm
    grid = Grid(bpm, place * bar_s, meter, np.eye(1, meter * PER_BEAT)[0], 1.0)
    times_s, odds_n = grid.beats(duration)
    assert len(times_s) == len(odds_n) == pytest.approx(duration * bpm / 60, abs=1.16)
    assert (times_s >= 0).all()
    assert (times_s < duration).all()
    if len(times_s) and times_s[0] == 0:  # up to 35 ms before the song, where it begins
        assert (np.abs(60 / bpm - np.diff(times_s)[:1] - 0.0175) <= 0.0176).all()
        times_s, odds_n = times_s[1:], odds_n[1:]
    assert np.allclose(np.diff(times_s), 60 / bpm, atol=1e-6)
    bars = (times_s[odds_n > 0.5] - grid.downbeat_s) / bar_s
    assert np.allclose(bars, np.round(bars), atol=1e-6)


def test_a_first_beat_a_hair_before_the_song_is_its_first():
    grid = Grid(120.0, 1.999, 4, np.eye(1, 4 * PER_BEAT)[0], 1.0)
    times_s, odds_n = grid.beats(3.0)
    assert times_s[0] == 0.0
    assert odds_n[0] > 0.5
    assert np.allclose(times_s[1:], [0.499, 0.999, 1.499, 1.999, 2.499, 2.999])


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    samples = np.round(band(even(110.0, 0.2, 9.0))[: 9 * RATE] * 20000).astype(np.int16)
    whole = listen(samples, 16000)
    np.save(tmp_path / "x.npy", samples)
    monkeypatch.setattr(features, "BLOCK_S", 1.5)
    pieces = listen(np.load(tmp_path / "x.npy", mmap_mode="r"), 16000)
    assert np.allclose(whole.flux_TK, pieces.flux_TK, atol=1e-4)
    assert np.allclose(whole.pitch_PQ, pieces.pitch_PQ, atol=1e-4)
    assert np.allclose(whole.level_T, pieces.level_T, atol=0.05)
