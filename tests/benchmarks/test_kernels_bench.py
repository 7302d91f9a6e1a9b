"""Time the kernels: pytest tests/benchmarks --benchmark-enable. By default each runs once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mgen.kernels.framing import frame, frame_reference
from mgen.kernels.log_mel import BEAT_THIS, ONSETS, LogMelSpec, log_mel, log_mel_reference
from mgen.kernels.onset_strength import onset_strength, onset_strength_reference


def two_seconds(rate: int) -> torch.Tensor:
    return torch.sin(torch.arange(2 * rate) * 0.1)[None]


@pytest.mark.parametrize("call", [frame, frame_reference])
def test_framing(benchmark: Any, call: Any) -> None:
    frames = benchmark(call, two_seconds(16000), 512, 160)
    assert frames.shape == (1, 197, 512)


@pytest.mark.parametrize("spec", [BEAT_THIS, ONSETS], ids=["beat-this", "onsets"])
@pytest.mark.parametrize("call", [log_mel, log_mel_reference])
def test_log_mel(benchmark: Any, call: Any, spec: LogMelSpec) -> None:
    mel = benchmark(call, two_seconds(spec.rate), spec)
    assert mel.shape == (1, spec.frames(2 * spec.rate), spec.n_mels)


@pytest.mark.parametrize("call", [onset_strength, onset_strength_reference])
def test_onset_strength(benchmark: Any, call: Any) -> None:
    mel = log_mel(two_seconds(16000), ONSETS)[:, :100]
    envelope = benchmark(call, mel)
    assert envelope.shape == (1, 100)
