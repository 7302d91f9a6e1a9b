"""Kernels: every fast path against its slow reference, and against numbers made elsewhere."""

from __future__ import annotations

import dataclasses

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.kernels import compile_policy
from mgen.kernels.framing import frame, frame_count, frame_reference
from mgen.kernels.log_mel import (
    BEAT_THIS,
    ONSETS,
    LogMelSpec,
    log_mel,
    log_mel_reference,
    mel_filterbank,
)
from mgen.kernels.onset_strength import (
    bands_below,
    onset_lag,
    onset_strength,
    onset_strength_bands,
    onset_strength_bands_reference,
    onset_strength_reference,
)

DECIBEL = LogMelSpec(
    rate=22050, n_fft=2048, hop=512, n_mels=40, f_max=8000.0, power=2.0, normalized=False,
    area=True, log="db",
)  # fmt: skip


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).uniform(-0.9, 0.9, shape)
    return torch.from_numpy(values.astype(np.float32))


class TestFraming:
    @given(
        n=st.integers(0, 60), length=st.integers(1, 20), hop=st.integers(1, 25),
        batch=st.integers(1, 3),
    )  # fmt: skip
    def test_view_equals_gather(self, n: int, length: int, hop: int, batch: int) -> None:
        x_BN = noise(batch, n)
        fast, slow = frame(x_BN, length, hop), frame_reference(x_BN, length, hop)
        assert fast.shape == slow.shape == (batch, frame_count(n, length, hop), length)
        assert torch.equal(fast, slow)

    def test_view_copies_nothing(self) -> None:
        x_BN = noise(1, 1000)
        assert frame(x_BN, 100, 10).data_ptr() == x_BN.data_ptr()

    @pytest.mark.parametrize("call", [frame, frame_reference])
    def test_refuses_what_makes_no_sense(self, call) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match="batch, samples"):
            call(noise(10), 4, 2)
        with pytest.raises(ValueError, match="at least 1"):
            call(noise(1, 10), 4, 0)


class TestLogMel:
    @pytest.mark.parametrize("spec", [BEAT_THIS, ONSETS, DECIBEL])
    @pytest.mark.parametrize("n", [1, 2, 300, 700, 4001])
    def test_fast_equals_reference(self, spec: LogMelSpec, n: int) -> None:
        x_BN = noise(2, n)
        fast, slow = log_mel(x_BN, spec), log_mel_reference(x_BN, spec)
        assert fast.shape == slow.shape == (2, spec.frames(n), spec.n_mels)
        # float32 rounding, times 1000 before the logarithm
        assert torch.allclose(fast.double(), slow, atol=1e-3)

    @pytest.mark.parametrize("spec", [BEAT_THIS, ONSETS])
    def test_no_samples_give_no_frames(self, spec: LogMelSpec) -> None:
        assert log_mel(noise(2, 0), spec).shape == (2, 0, spec.n_mels)
        assert log_mel_reference(noise(2, 0), spec).shape == (2, 0, spec.n_mels)

    @pytest.mark.parametrize("spec", [BEAT_THIS, ONSETS, DECIBEL])
    def test_filters_are_librosas(self, spec: LogMelSpec) -> None:
        theirs = librosa.filters.mel(
            sr=spec.rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.f_min, fmax=spec.f_max,
            norm="slaney" if spec.area else None, dtype=np.float64,
        )  # fmt: skip
        assert np.allclose(mel_filterbank(spec).numpy(), theirs, atol=1e-12)

    @pytest.mark.parametrize("spec", [BEAT_THIS, DECIBEL])
    def test_spectrogram_is_librosas(self, spec: LogMelSpec) -> None:
        x = noise(1, 9000)
        theirs = librosa.feature.melspectrogram(
            y=x[0].numpy(), sr=spec.rate, n_fft=spec.n_fft, hop_length=spec.hop,
            n_mels=spec.n_mels, fmin=spec.f_min, fmax=spec.f_max, power=spec.power,
            norm="slaney" if spec.area else None, center=True, pad_mode="reflect",
        ).T  # fmt: skip
        if spec.log == "db":
            expected = librosa.power_to_db(theirs, top_db=None)
        else:
            # torchaudio's `frame_length` divides the magnitude by the root of the window's length
            expected = np.log1p(1000.0 * theirs / np.sqrt(spec.n_fft))
        assert np.allclose(log_mel(x, spec)[0].numpy(), expected, atol=1e-3)

    def test_beat_this_is_fifty_frames_a_second(self) -> None:
        assert BEAT_THIS.frames_per_second == 50.0
        assert (BEAT_THIS.n_mels, BEAT_THIS.f_min, BEAT_THIS.f_max) == (128, 30.0, 11000.0)

    @pytest.mark.parametrize("spec", [BEAT_THIS, ONSETS, DECIBEL])
    def test_silence_has_its_value(self, spec: LogMelSpec) -> None:
        assert torch.all(log_mel(torch.zeros(1, 5000), spec) == spec.silence)

    def test_a_tone_lies_in_its_band(self) -> None:
        t = torch.arange(16000) / 16000
        mel_TM = log_mel(torch.sin(2 * torch.pi * 440 * t)[None], ONSETS)[0]
        filters = mel_filterbank(ONSETS)
        loudest = int(mel_TM[50].argmax())
        assert filters[loudest, round(440 / 16000 * ONSETS.n_fft)] > 0.3

    def test_keeps_double_precision(self) -> None:
        x = noise(1, 2000).double()
        assert torch.allclose(log_mel(x, ONSETS), log_mel_reference(x, ONSETS), atol=1e-10)

    def test_refuses_what_makes_no_sense(self) -> None:
        with pytest.raises(ValueError, match="floating-point"):
            log_mel(torch.zeros(1, 100, dtype=torch.int16), ONSETS)
        with pytest.raises(ValueError, match="do not fit"):
            dataclasses.replace(ONSETS, f_max=9000.0)
        with pytest.raises(ValueError, match="even"):
            dataclasses.replace(ONSETS, n_fft=511)


def click_at(sample: int, n: int, rate: int, kind: str) -> torch.Tensor:
    x = np.zeros(n)
    k = np.arange(n - sample)
    if kind == "impulse":
        x[sample] = 0.5
    elif kind == "tick":
        x[sample:] = 0.5 * np.exp(-k / (0.01 * rate)) * np.sin(2 * np.pi * 1500 * k / rate)
    else:
        x[sample:] = 0.5 * np.exp(-k / (0.1 * rate)) * np.sin(2 * np.pi * 80 * k / rate)
    return torch.from_numpy(x.astype(np.float32))[None]


class TestOnsetStrength:
    @settings(max_examples=25)
    @given(
        frames=st.integers(0, 12), bands=st.integers(1, 9), lag=st.integers(1, 4),
        width=st.sampled_from([1, 3, 5]), seed=st.integers(0, 99),
    )  # fmt: skip
    def test_fast_equals_reference(
        self, frames: int, bands: int, lag: int, width: int, seed: int
    ) -> None:
        mel_BTM = noise(2, frames, bands, seed=seed)
        fast = onset_strength(mel_BTM, lag, width, -0.2)
        slow = onset_strength_reference(mel_BTM, lag, width, -0.2)
        assert fast.shape == (2, frames)
        assert torch.allclose(fast.double(), slow, atol=1e-6)

    def test_bands_equal_reference_and_average_to_the_whole(self) -> None:
        mel_BTM, edges = noise(2, 20, 10), (0, 3, 7, 10)
        fast = onset_strength_bands(mel_BTM, edges, lag=2)
        assert torch.allclose(
            fast.double(), onset_strength_bands_reference(mel_BTM, edges, lag=2), atol=1e-6
        )
        whole = (fast * torch.tensor([3.0, 4.0, 3.0]) / 10.0).sum(-1)
        assert torch.allclose(whole, onset_strength(mel_BTM, lag=2), atol=1e-6)

    @pytest.mark.parametrize("level", [1.0, 0.01])
    @pytest.mark.parametrize("kind", ["impulse", "tick"])
    def test_a_click_peaks_at_its_own_frame(self, kind: str, level: float) -> None:
        rng = np.random.default_rng(1)
        late_ms = []
        for sample in rng.integers(2000, 14000, 40):
            x = level * click_at(int(sample), 16000, ONSETS.rate, kind)
            envelope = onset_strength(log_mel(x, ONSETS), onset_lag(ONSETS))[0]
            late_ms.append((int(envelope.argmax()) * ONSETS.hop - sample) / ONSETS.rate * 1000)
        # half a frame is 5 ms: the nearest frame, but for a tie
        assert np.abs(late_ms).max() < (5.8 if kind == "impulse" else 11.0)
        assert abs(np.mean(late_ms)) < 5.0

    def test_a_click_at_the_start_is_heard(self) -> None:
        envelope = onset_strength(log_mel(click_at(0, 8000, 16000, "tick"), ONSETS))[0]
        assert int(envelope.argmax()) <= 1

    def test_silence_and_steady_sound_have_no_onsets(self) -> None:
        t = torch.arange(16000) / 16000
        tone = torch.sin(2 * torch.pi * 1000 * t)[None]
        envelope = onset_strength(log_mel(tone, ONSETS))[0]
        assert envelope[10:-10].max() < 0.01 < 0.1 < envelope[:5].max()
        assert onset_strength(log_mel(torch.zeros(1, 8000), ONSETS)).max() == 0.0

    def test_kick_is_low_and_tick_is_high(self) -> None:
        edges = bands_below(ONSETS, 200.0, 2000.0)
        for kind, band in (("kick", 0), ("tick", 1)):
            mel = log_mel(click_at(8000, 16000, 16000, kind), ONSETS)
            peak_K = onset_strength_bands(mel, edges, onset_lag(ONSETS))[0].amax(0)
            assert int(peak_K.argmax()) == band

    def test_refuses_what_makes_no_sense(self) -> None:
        mel = noise(1, 5, 4)
        with pytest.raises(ValueError, match="odd"):
            onset_strength(mel, max_width=2)
        with pytest.raises(ValueError, match="frames, bands"):
            onset_strength(mel[0])
        with pytest.raises(ValueError, match="must rise"):
            onset_strength_bands(mel, (0, 3, 3))


class TestCompilePolicy:
    @pytest.fixture
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        seen: list[object] = []

        def stand_in(fn: object, **_: object) -> object:
            seen.append(fn)
            return fn

        monkeypatch.setattr(torch, "compile", stand_in)
        return seen

    def test_auto_never_compiles_one_short_job_on_a_cpu(self, compiled: list[object]) -> None:
        assert compile_policy.maybe_compile(abs, "auto", device="cpu", items=1) is abs
        assert not compiled

    def test_auto_compiles_long_jobs(self, compiled: list[object]) -> None:
        compile_policy.maybe_compile(abs, "auto", device="cpu", items=100_000)
        compile_policy.maybe_compile(abs, "auto", device="cuda", items=1000)
        assert len(compiled) == 2

    @pytest.mark.parametrize(("mode", "times"), [("on", 1), ("off", 0)])
    def test_on_and_off_decide(self, compiled: list[object], mode: str, times: int) -> None:
        compile_policy.maybe_compile(abs, mode, device="cpu", items=1 if mode == "on" else 10**9)
        assert len(compiled) == times

    def test_unknown_mode(self) -> None:
        with pytest.raises(ValueError, match="choose auto, on or off"):
            compile_policy.maybe_compile(abs, "maybe", device="cpu", items=1)
