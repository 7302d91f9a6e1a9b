"""The tokenizer that ships: it fits its budget, and a song that it never heard comes back."""

from __future__ import annotations

import json
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from mgen.core.audio import read_mono
from mgen.core.bars import BAR_RATE, BAR_SAMPLES
from mgen.core.tokenizer import Tokenizer, load_tokenizer
from mgen.core.tokenizer.losses import mel_l1_db
from mgen.core.weights import shipped

SONG = Path(__file__).parents[1] / "examples" / "vibe_ace.ogg"  # of the split `dev`


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(shipped("tokenizer"))


@pytest.fixture(scope="module")
def bars_BCN() -> torch.Tensor:
    """Plain cuts, as long as warped bars."""
    song_N = read_mono(SONG, BAR_RATE)
    starts = np.linspace(BAR_RATE * 4, len(song_N) - BAR_SAMPLES - 1, 8).astype(int)
    return torch.from_numpy(np.stack([song_N[s : s + BAR_SAMPLES] for s in starts]))[:, None]


def test_weights_fit_their_budget() -> None:
    files = list(shipped("tokenizer").glob("*.safetensors"))
    assert sum(f.stat().st_size for f in files) <= 24_100_000
    assert max(f.stat().st_size for f in files) <= 16_000_000
    about = json.loads((shipped("tokenizer") / "config.json").read_text("utf-8"))
    assert about["tokenizer"]["tokens"] == 64
    assert about["tokenizer"]["dims"] == 16


def test_a_song_comes_back(tokenizer: Tokenizer, bars_BCN: torch.Tensor) -> None:
    z_BLD = tokenizer.encode(bars_BCN).half()  # as a store keeps them
    back_BCN = tokenizer.decode(z_BLD, keys=range(len(z_BLD)))
    assert torch.isfinite(back_BCN).all()
    pairs = list(zip(bars_BCN[:, 0].numpy(), back_BCN[:, 0].numpy(), strict=True))
    assert np.mean([mel_l1_db(a, b, BAR_RATE) for a, b in pairs]) < 4.2  # measured: see the card
    chroma = [
        [librosa.feature.chroma_stft(y=y, sr=BAR_RATE, norm=None, tuning=0.0) for y in pair]
        for pair in pairs
    ]
    cosines = [
        (a * b).sum(0) / np.linalg.norm(a, axis=0).clip(1e-9) / np.linalg.norm(b, axis=0).clip(1e-9)
        for a, b in chroma
    ]
    assert np.mean([c.mean() for c in cosines]) > 0.85


def test_another_bar_is_not_as_near(tokenizer: Tokenizer, bars_BCN: torch.Tensor) -> None:
    """The measure above tells one bar of a song from the next."""
    back_BCN = tokenizer.decode(tokenizer.encode(bars_BCN), keys=range(len(bars_BCN)))
    own = [mel_l1_db(a[0], b[0], BAR_RATE) for a, b in zip(bars_BCN, back_BCN, strict=True)]
    others = [
        mel_l1_db(a[0], b[0], BAR_RATE) for a, b in zip(bars_BCN, back_BCN.roll(1, 0), strict=True)
    ]
    assert (np.array(own) < np.array(others)).all()
