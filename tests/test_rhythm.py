import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.beatmap.chart import BpmChange
from mgen.core.beatmap.rhythm import Timing, fit_timing
from mgen.core.beats import Beats
from mgen.core.beats.attacks import FPS, listen
from mgen.core.beats.pulse import find_pulse, refine_phase
from mgen.core.errors import AudioError, UsageError

RATE = 22050


def add(samples, time_s, sound):
    start = round(time_s * RATE)
    part = samples[max(start, 0) : start + len(sound)]
    part += sound[: len(part)]


def tone(hz, seconds, decay):
    t = np.arange(int(seconds * RATE)) / RATE
    return np.sin(2 * np.pi * hz * t) * np.exp(-decay * t)


def band(beat_s, beats_per_bar=4, seed=0, drums_from=0):
    """Kick on the downbeat (and beat 3), snare on the others, hats on eighths, a chord per bar.

    `beat_s` are the seconds of the beats, the first one a downbeat.
    """
    rng = np.random.default_rng(seed)
    samples = np.zeros(int((beat_s[-1] + 1.0) * RATE))
    kick = 0.8 * tone(60, 0.12, 25)
    snare = 0.3 * rng.standard_normal(int(0.1 * RATE)) * np.exp(-np.arange(int(0.1 * RATE)) / 500)
    hat = np.diff(0.1 * rng.standard_normal(600) * np.exp(-np.arange(600) / 120))
    roots = (220.0, 174.61, 261.63, 196.0)
    for k, t in enumerate(beat_s):
        place = k % beats_per_bar
        if place == 0:
            length = beats_per_bar * np.median(np.diff(beat_s))
            for ratio in (1.0, 1.25, 1.5):
                root = roots[k // beats_per_bar % 4]
                add(samples, t, 0.12 * tone(root * ratio, length, 0.8))
        if k < drums_from:
            continue
        half = 0.5 * (beat_s[k + 1] - t) if k + 1 < len(beat_s) else 0.25
        add(samples, t, kick if place in ((0, 2) if beats_per_bar == 4 else (0,)) else snare)
        add(samples, t, hat)
        add(samples, t + half, hat)
    return (samples + 1e-4 * rng.standard_normal(len(samples))).astype(np.float32)


def even(bpm, first_s, seconds):
    return np.arange(first_s, seconds, 60.0 / bpm)


def off(timing, first_s, beats=1):
    """Distance from the downbeat (or beat) to the nearest one of the grid, seconds."""
    period = beats * 60.0 / timing.bpm
    return abs((timing.offset_s - first_s + period / 2) % period - period / 2)


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_a_click_peaks_when_it_sounds(rate):
    samples = 1e-4 * np.random.default_rng(0).standard_normal(3 * rate)
    for t in (0.5, 1.2034, 2.5071):
        samples[round(t * rate)] = 1.0
    total = listen(samples, rate).flux_TK.sum(1)
    for t in (0.5, 1.2034, 2.5071):
        near = np.arange(round((t - 0.05) * FPS), round((t + 0.05) * FPS))
        assert near[total[near].argmax()] / FPS == pytest.approx(t, abs=0.004)


@pytest.mark.parametrize(
    ("bpm", "first_s"), [(128.0, 0.3), (93.71, 1.1), (174.0, 0.05), (140.5, 0.7), (118.337, 0.9)]
)
def test_tempo_phase_and_downbeat_of_a_band(bpm, first_s):
    timing = fit_timing(band(even(bpm, first_s, 60.0)), RATE)
    octave = 2 if timing.bpm > 1.5 * bpm else 1  # eighths of hats may be felt as beats
    assert timing.bpm == pytest.approx(octave * bpm, rel=2e-4)
    assert 85 <= timing.bpm <= 200
    assert off(timing, first_s, 4) < 0.01
    assert timing.beats_per_bar == 4
    assert not timing.changes
    assert 0.0 <= timing.offset_s < 4 * 60.0 / timing.bpm
    assert timing.confidence > 0.9


def test_three_beats_in_a_bar():
    timing = fit_timing(band(even(150.0, 0.4, 60.0), beats_per_bar=3), RATE)
    assert timing.bpm == pytest.approx(150.0, rel=2e-4)
    assert timing.beats_per_bar == 3
    assert off(timing, 0.4, 3) < 0.01


def test_an_intro_without_drums_does_not_move_the_grid():
    timing = fit_timing(band(even(124.0, 0.5, 70.0), drums_from=32), RATE)
    assert timing.bpm == pytest.approx(124.0, rel=2e-4)
    assert off(timing, 0.5, 4) < 0.01


def test_whole_tempi_win_near_ties_and_only_those():
    assert fit_timing(band(even(120.004, 0.5, 40.0)), RATE).bpm == 120.0
    assert fit_timing(band(even(120.4, 0.5, 60.0)), RATE).bpm == pytest.approx(120.4, rel=2e-4)


def test_loudness_and_sample_type_do_not_matter():
    samples = band(even(112.0, 0.25, 40.0))
    one = fit_timing(samples, RATE)
    quiet = fit_timing(samples * 1e-3, RATE)
    pcm = fit_timing((samples / np.abs(samples).max() * 32767).astype(np.int16), RATE)
    for other in (quiet, pcm):
        assert other.bpm == one.bpm
        assert other.offset_s == pytest.approx(one.offset_s, abs=0.003)


def test_a_given_tempo_is_kept_and_only_phase_is_fitted():
    samples = band(even(128.0, 0.3, 40.0))
    timing = fit_timing(samples, RATE, bpm=64.0)
    assert timing.bpm == 64.0
    assert timing.given
    assert off(timing, 0.3) < 0.01 or off(timing, 0.3 + 60 / 128) < 0.01
    both = fit_timing(samples, RATE, bpm=128.0, offset_s=0.3 + 4 * 60 / 128)
    assert both.offset_s == pytest.approx(0.3)
    assert both.confidence > 0.9


def test_wrong_grids_have_low_confidence():
    samples = band(even(128.0, 0.3, 60.0))
    assert fit_timing(samples, RATE, bpm=125.7).confidence < 0.2
    assert fit_timing(samples, RATE, bpm=128.0, offset_s=0.3 + 0.12 * 60 / 128).confidence < 0.2


@pytest.mark.parametrize("bpm", [0.0, -3.0, float("nan"), float("inf"), 9.9, 1001.0])
def test_a_senseless_tempo_is_a_usage_error(bpm):
    with pytest.raises(UsageError, match="between 10 and 1000"):
        fit_timing(np.zeros(RATE, np.float32), RATE, bpm=bpm)


def test_a_senseless_offset_is_a_usage_error():
    with pytest.raises(UsageError, match="offset"):
        fit_timing(np.zeros(RATE, np.float32), RATE, offset_s=float("nan"))


@pytest.mark.parametrize("length", [0, 1, 700, 2 * RATE, 30 * RATE])
def test_silence_gives_the_default(length):
    timing = fit_timing(np.zeros(length, np.float32), RATE)
    assert (timing.bpm, timing.offset_s, timing.confidence) == (120.0, 0.0, 0.0)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 20.0])
def test_noise_has_no_confidence(seconds):
    noise = 0.1 * np.random.default_rng(1).standard_normal(int(seconds * RATE))
    timing = fit_timing(noise, RATE)
    assert 50 <= timing.bpm <= 250
    assert timing.confidence < 0.25


def test_stereo_and_nan_are_refused():
    with pytest.raises(AudioError, match="one channel"):
        fit_timing(np.zeros((2, RATE), np.float32), RATE)
    with pytest.raises(AudioError, match="NaN"):
        fit_timing(np.full(RATE, np.nan, np.float32), RATE)


def beats_at(times, meter=4):
    return Beats(times, np.arange(len(times)) % meter + 1, np.full(len(times), 0.8))


def test_a_drifting_tempo_is_followed():
    tempo = 120.0 + 12.0 * np.sin(np.arange(140) / 15.0)
    times = 0.6 + np.concatenate([[0.0], np.cumsum(60.0 / tempo)])
    jitter = np.random.default_rng(2).uniform(-0.008, 0.008, len(times))
    timing = fit_timing(band(times), RATE, beats=beats_at(times + jitter))
    assert timing.changes
    assert timing.confidence < 0.7
    found = np.array([timing.seconds(round(timing.beat(t))) for t in times[:-4]])
    assert np.abs(found - times[:-4]).max() < 0.03
    assert round(timing.beat(times[0])) % 4 == 0


def test_a_given_offset_is_a_downbeat_of_a_drifting_song_too():
    tempo = 120.0 + 12.0 * np.sin(np.arange(140) / 15.0)
    times = 0.6 + np.concatenate([[0.0], np.cumsum(60.0 / tempo)])
    timing = fit_timing(band(times), RATE, beats=beats_at(times), offset_s=times[4])
    assert timing.changes
    assert timing.beat(times[4]) == pytest.approx(4 * round(timing.beat(times[4]) / 4), abs=0.01)


def test_one_change_of_tempo_needs_few_changes():
    times = np.concatenate([even(100.0, 0.5, 30.5), 30.5 + 60 / 130 * np.arange(0, 80)])
    timing = fit_timing(band(times), RATE, beats=beats_at(times))
    assert 1 <= len(timing.changes) <= 6
    assert timing.time_map().bpm_at(timing.beat(10.0)) == pytest.approx(100.0, rel=0.01)
    assert timing.time_map().bpm_at(timing.beat(50.0)) == pytest.approx(130.0, rel=0.01)


def test_a_steady_song_stays_steady_whatever_the_tracker_says():
    times = even(128.0, 0.3, 60.0)
    jitter = np.random.default_rng(3).uniform(-0.02, 0.02, len(times))
    for beats in (beats_at(times + jitter), beats_at(even(96.0, 0.2, 60.0)), beats_at(times[::2])):
        timing = fit_timing(band(times), RATE, beats=beats)
        assert timing.bpm == 128.0
        assert not timing.changes


def test_phase_refinement_finds_a_shifted_grid():
    pulse = find_pulse(listen(band(even(120.0, 0.4, 40.0)), RATE))
    assert refine_phase(pulse, 0.5, 0.42) == pytest.approx(0.4, abs=0.006)


changes = st.lists(
    st.tuples(st.floats(0, 400), st.floats(40, 300)), max_size=5, unique_by=lambda c: c[0]
)


@settings(deadline=None)
@given(st.floats(40, 300), st.floats(0, 2), changes, st.floats(-8, 900))
def test_seconds_and_beats_are_inverse(bpm, offset_s, points, beat):
    timing = Timing(bpm, offset_s, 1.0, 4, tuple(BpmChange(b, m) for b, m in sorted(points)))
    assert timing.beat(timing.seconds(beat)) == pytest.approx(beat, abs=1e-6)
    assert timing.seconds(0.0) == pytest.approx(offset_s)


def test_the_same_song_gives_the_same_timing():
    samples = band(even(133.0, 0.2, 25.0))
    assert fit_timing(samples, RATE) == fit_timing(samples, RATE)
