"""What the judge looks for beside mel bands: each figure on sounds whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.quality.features import RATE, WINDOW_SAMPLES
from mgen.core.quality.traces import N_TRACES, TRACES, traces

NAMES = [f"{group}.{name}" for group, names in TRACES.items() for name in names]
T = np.arange(WINDOW_SAMPLES) / RATE
SECONDS = WINDOW_SAMPLES / RATE


def of(sound: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, traces(sound).tolist(), strict=True))


def noise(seed: int = 0, level: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, WINDOW_SAMPLES)


def chord(warp: np.ndarray = T) -> np.ndarray:
    """Partials that are no multiples of one another, at `warp` seconds."""
    return sum(np.sin(2 * np.pi * hz * warp) for hz in (440.0, 623.0, 911.0, 1307.0, 1801.0))


def test_there_is_one_figure_for_each_name() -> None:
    assert len(NAMES) == len(set(NAMES)) == N_TRACES == len(traces(noise()))


def test_clipped_samples_are_counted() -> None:
    sound = np.clip(noise(), -1.0, 1.0)  # 31.7 % of a normal distribution lie beyond one sigma
    found = of(0.2 * sound)
    assert 10 ** found["peaks.share_over_99"] == pytest.approx(0.317 + 0.005, abs=0.01)
    assert found["peaks.crest_db"] == pytest.approx(-20 * np.log10(sound.std()), abs=0.05)
    assert found["peaks.crest_db"] + 6 < of(noise())["peaks.crest_db"]
    assert found["peaks.flat_blocks_mean"] > 10 * of(noise())["peaks.flat_blocks_mean"]
    lopsided = of(np.minimum(noise(), 0.5))  # one rail alone
    assert 10 ** lopsided["peaks.share_one_side"] == pytest.approx(0.31, abs=0.02)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_steps_are_counted(bits: int) -> None:
    levels = 2 ** (bits - 1)
    sound = np.round(np.clip(noise(level=0.3), -1, 1) * levels) / levels
    counted = len(np.unique(sound)) - 1
    assert 10 ** of(sound)["steps.distinct"] == pytest.approx(
        counted / (WINDOW_SAMPLES - 1) + 1e-5, rel=1e-3
    )
    assert of(noise())["steps.distinct"] > -1


def test_held_samples_mirror_the_spectrum() -> None:
    loudness = 1 + np.sin(2 * np.pi * 3 * T)  # something that happens in time
    moving = noise() * loudness + 3 * np.sin(2 * np.pi * (2000 + 1500 * np.sin(T)) * T)
    held = np.repeat(moving[::2], 2)
    assert of(held)["steps.mirror_4000"] > of(moving)["steps.mirror_4000"] + 0.4
    assert 10 ** of(held)["steps.repeated"] == pytest.approx(0.5, abs=0.01)


def test_the_noise_floor_is_found_between_loud_tones() -> None:
    def floor(snr_db: float) -> float:
        tones = chord()
        hiss = noise() * tones.std() * 10 ** (-snr_db / 20)
        return of(tones + hiss)["noise.floor_db_3500"]

    assert floor(20) - floor(40) == pytest.approx(20, abs=1.5)
    white = of(noise())  # 10 lg e^gamma = 2.51 dB: arithmetic over geometric mean of exponentials
    assert white["noise.flatness_1500"] == pytest.approx(2.51, abs=0.2)
    assert of(chord())["noise.flatness_700"] > 10


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_hum_is_told_from_a_low_note(hz: float) -> None:
    def comb(lowest: float) -> np.ndarray:
        return sum(np.sin(2 * np.pi * lowest * k * T) / k for k in range(1, 17))

    hum, note = of(noise(level=0.3) + comb(hz)), of(noise(level=0.3) + comb(55.0))
    assert hum["hum.mains_low"] > 15
    assert hum["hum.mains_low_more"] > note["hum.mains_low_more"] + 8
    assert hum["hum.lines"] > of(noise())["hum.lines"] + 10


@pytest.mark.parametrize("per_s", [2, 10])
def test_clicks_are_counted_and_drums_are_not(per_s: int) -> None:
    rng = np.random.default_rng(1)
    at = (np.arange(per_s * 5) + 0.5) / per_s * 5 / SECONDS * RATE
    clicks, drums = np.zeros(WINDOW_SAMPLES), np.zeros(WINDOW_SAMPLES)
    for start in at[at < WINDOW_SAMPLES - 2000].astype(int):
        clicks[start : start + 8] += 8 * rng.choice([-1, 1])
        drums[start : start + 1600] += 8 * rng.normal(0, 1, 1600) * np.exp(-np.arange(1600) / 500)
    music = chord() + noise(level=0.1)
    clicked = of(music + clicks)
    counted = 10 ** clicked["impulses.over_18_short"] - 0.1
    assert counted == pytest.approx(len(at) / SECONDS, rel=0.3)  # a click's end may count too
    assert 10 ** of(music)["impulses.over_18_short"] - 0.1 < 0.5
    assert 10 ** of(music + drums)["impulses.over_18_short"] - 0.1 < 0.5
    assert clicked["impulses.top_5_short"] > of(music)["impulses.top_5_short"] + 10


def test_gaps_are_counted() -> None:
    sound = noise()
    for start in (10_000, 30_000, 50_000):
        sound[start : start + 1000] = 0
    found = of(sound)
    # a fall and a rise may each be seen in two steps of 4 ms
    assert 3 / SECONDS - 0.01 <= 10 ** found["gaps.both"] - 0.1 <= 6 / SECONDS + 0.01
    assert of(noise())["gaps.both"] == pytest.approx(-1.0)


@pytest.mark.parametrize("depth", [0.004, 0.01])
def test_wow_is_measured_in_cents(depth: float) -> None:
    hz = 0.8
    wavering = chord(T + depth / (2 * np.pi * hz) * np.sin(2 * np.pi * hz * T))
    found = of(wavering)
    steepest = 1200 / np.log(2) * depth * 2 * np.pi * hz * 512 / RATE  # cents a frame
    expected = np.log10(steepest * np.sin(np.pi / 4) + 0.05)  # the median of a |cosine|
    assert found["wavering.common_q50"] == pytest.approx(expected, abs=0.06)
    steady = of(chord())
    assert steady["wavering.common_q90"] < np.log10(0.05 + 0.1)
    assert found["wavering.slow"] > steady["wavering.slow"] + 2


def test_rumble_is_measured_and_hides_nothing() -> None:
    music = chord() + noise(level=0.05)
    rumble = 20 * np.sin(2 * np.pi * 15 * T)
    plain, shaken = of(music), of(music + rumble)
    power = 10 * np.log10(200 / np.var(music))
    assert shaken["edges.rumble_db"] == pytest.approx(power, abs=0.2)
    assert plain["edges.rumble_db"] < -25
    for name in ("noise.floor_db_3500", "noise.flatness_700", "impulses.top_5_short"):
        assert shaken[name] == pytest.approx(plain[name], abs=1.0)


def test_a_cut_off_band_is_found() -> None:
    spectrum = np.fft.rfft(noise())
    spectrum[np.fft.rfftfreq(WINDOW_SAMPLES, 1 / RATE) > 3400] = 0
    found = of(np.fft.irfft(spectrum, WINDOW_SAMPLES))
    assert found["edges.drop_hz"] == pytest.approx(3400, abs=250)
    assert found["edges.reach_hz"] == pytest.approx(3400, abs=250)
    assert found["edges.drop_db"] > 40


@settings(max_examples=12, deadline=None)
@given(st.integers(2048, WINDOW_SAMPLES), st.sampled_from([1e-9, 1e-3, 1.0, 30.0]))
def test_figures_are_finite_for_any_length_and_level(length: int, level: float) -> None:
    assert np.isfinite(traces(level * noise(2)[:length])).all()


@pytest.mark.parametrize(
    "sound",
    [
        lambda: np.zeros(WINDOW_SAMPLES),
        lambda: np.ones(WINDOW_SAMPLES),
        lambda: np.eye(1, WINDOW_SAMPLES, 40_000)[0],
        lambda: np.eye(1, WINDOW_SAMPLES, WINDOW_SAMPLES - 1)[0] + noise(level=0.01),
        lambda: np.sign(np.sin(2 * np.pi * 100 * T)),
    ],
)
def test_odd_sounds_have_finite_figures(sound: Callable[[], np.ndarray]) -> None:
    assert np.isfinite(traces(sound())).all()


def test_the_level_does_not_matter() -> None:
    sound = chord() + noise(level=0.2)
    np.testing.assert_allclose(traces(0.05 * sound), traces(sound), rtol=2e-3, atol=0.02)
