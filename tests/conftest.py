"""Shared fixtures: songs that ship, and sound whose answer is known."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgen.core.errors import InputNotFoundError

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background of a shell, which has Ctrl-C ignored: tests send it, and so do
    # their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="session")
def real_song() -> Path:
    """Vibe Ace: a recorded jazz trio, 61 s, 44.1 kHz stereo Ogg Vorbis."""
    return EXAMPLES / "vibe_ace.ogg"


@pytest.fixture(scope="session")
def grid_song() -> Path:
    """Sodium: 28 bars of electronic music at exactly 140 BPM from sample 0, 44.1 kHz stereo."""
    return EXAMPLES / "sodium_excerpt.ogg"


def click_track(
    bpm: float, duration_s: float, rate: int = 16000, offset_s: float = 0.0, beats_per_bar: int = 4
) -> np.ndarray:
    """Clicks at known times, shape (n,): each bar's first is lower and louder, with a bass note."""
    n = int(duration_s * rate)
    sound = np.zeros(n, np.float32)
    rng = np.random.default_rng(0)
    beat = 0
    while (start := round((offset_s + beat * 60.0 / bpm) * rate)) < n:
        first = beat % beats_per_bar == 0
        t = np.arange(min(int(0.05 * rate), n - start)) / rate
        tone = np.sin(2 * np.pi * (110 if first else 880) * t) * (0.8 if first else 0.35)
        noise = rng.standard_normal(len(t)) * (0.2 if first else 0.1)
        sound[start : start + len(t)] += ((tone + noise) * np.exp(-t * 80)).astype(np.float32)
        beat += 1
    return sound


@pytest.fixture
def make_song(tmp_path: Path) -> Callable[..., Path]:
    """Writes a click track to a file: `make_song('a.wav', bpm=120, duration_s=20)`."""

    def make(name: str = "click.wav", rate: int = 16000, **settings: float) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {"bpm": 120.0, "duration_s": 20.0, **settings}
        soundfile.write(path, click_track(rate=rate, **settings), rate)  # type: ignore[arg-type]
        return path

    return make


@pytest.fixture
def no_model_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a package without a tokenizer, action or dynamics model."""

    def none(stage: str) -> Path:
        raise InputNotFoundError(stage)

    monkeypatch.setattr("mgen.core.store.current.shipped", none)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, with no store around and no pipe on stdin."""
    from mgen.cli import options

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("MGEN_STORE", raising=False)
    monkeypatch.setattr(options, "stdin_is_pipe", lambda: False)
    return tmp_path / "here"
