"""What items are changed by: speed, tone, gain, each against a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgen.core.tokenizer.augment import Augmentation, at_speed, bend_tone, gain_of

RATE = 16000


def tone(hz: float, samples: int = 8192) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(samples) / RATE)[None].astype(np.float32)


def peak_hz(sound_CN: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(sound_CN[0] * np.hanning(sound_CN.shape[1])))
    return float(power.argmax()) * RATE / sound_CN.shape[1]


@given(ratio=st.floats(0.7, 1.4), start=st.integers(0, 9999), length=st.integers(512, 9000))
def test_any_speed_gives_the_length_that_was_asked_for(
    ratio: float, start: int, length: int
) -> None:
    out = at_speed(tone(440), ratio, start, length)
    assert out.shape == (1, length)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_speed_moves_the_key(ratio: float) -> None:
    out = at_speed(tone(1000, 16000), ratio, 0, 8192)
    assert peak_hz(out) == pytest.approx(1000 * ratio, abs=4)
    assert np.abs(out[:, 200:-200]).max() == pytest.approx(1.0, abs=0.02)


def test_nothing_folds_back() -> None:
    out = at_speed(tone(7000, 16000), 1.3, 0, 8192)  # would be 9100 Hz
    assert np.abs(out[:, 500:-500]).max() < 0.02


def test_a_curve_bends_levels_where_it_says() -> None:
    points = np.array([-6.0, -6.0, -6.0, -6.0, 6.0, 6.0, 6.0, 6.0])
    for hz, db in ((125.0, -6.0), (4000.0, 6.0)):  # whole waves, so that nothing leaks
        bent = bend_tone(tone(hz), RATE, points)
        assert 20 * np.log10(bent.std() / tone(hz).std()) == pytest.approx(db, abs=0.05)
    flat = bend_tone(tone(440), RATE, np.zeros(8))
    np.testing.assert_allclose(flat, tone(440), atol=1e-5)


@given(level=st.floats(0.0, 3.0), seed=st.integers(0, 999))
def test_gain_never_clips(level: float, seed: int) -> None:
    sound = tone(440) * np.float32(level)
    rng = np.random.default_rng(seed)
    gain = gain_of(sound, Augmentation(gain_db=40.0), rng)
    assert np.abs(sound * gain).max() <= 1.0 + 1e-6
    assert 10 ** (-40.001 / 20) <= abs(gain) * max(1.0, level) <= 10 ** (40.001 / 20) * 3


def test_no_augmentation_is_none() -> None:
    rng = np.random.default_rng(0)
    assert {gain_of(tone(440) * 0.5, Augmentation.none(), rng) for _ in range(20)} == {1.0}
