"""Beats: grids, files, refinement and the three trackers, on sound whose beats are known."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import click_track
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.beats import Beats, fixed_beats, read_beats, refine_beats, track_beats
from mgen.core.beats import features as features_module
from mgen.core.beats.features import RATE, Framer, extract
from mgen.core.beats.meter import count_places, place_beats
from mgen.core.beats.refine import _log_ratio
from mgen.core.errors import (
    AudioError,
    InputError,
    InputNotFoundError,
    MissingDependencyError,
    UsageError,
)

Array = np.ndarray


def beats_at(time_s: Array) -> Beats:
    return Beats(time_s, np.zeros(len(time_s), np.int8), np.ones(len(time_s), np.float32))


def ticks(time_s: Array, rate: int, duration_s: float, accent: int = 0) -> Array:
    """A decaying tone at each time; every `accent`-th one has a bass note under it."""
    x = np.random.default_rng(0).normal(0.0, 0.001, int(duration_s * rate))
    k = np.arange(int(0.06 * rate)) / rate
    tick = 0.3 * np.exp(-k / 0.01) * np.sin(2 * np.pi * 1000 * k)
    bass = 0.5 * np.exp(-k / 0.03) * np.sin(2 * np.pi * 70 * k)
    for i, t in enumerate(time_s):
        sound = tick + bass if accent and i % accent == 0 else tick
        start = round(t * rate)
        part = sound[: len(x) - start]
        x[start : start + len(part)] += part
    return x.astype(np.float32)


def tempo_change() -> Array:
    return np.concatenate([0.25 + np.arange(24) * 0.6, 0.25 + 24 * 0.6 + np.arange(30) * 60 / 132])


class TestBeats:
    def test_columns_get_their_types(self) -> None:
        beats = Beats([0.0, 0.5], [1, 2], [0.5, 2.0])  # type: ignore[arg-type]
        assert (beats.time_s.dtype, beats.beat_in_bar.dtype) == (np.float64, np.int8)
        assert beats.confidence.tolist() == [0.5, 1.0]
        assert beats.bpm == pytest.approx(120.0)
        assert len(beats) == 2

    @pytest.mark.parametrize("times", [[1.0, 1.0], [1.0, 0.5], [0.0, np.nan], [0.0, 1.0, 2.0]])
    def test_refuses_disorder(self, times: list[float]) -> None:
        with pytest.raises(ValueError, match="beat"):
            Beats(np.array(times), np.zeros(2, np.int8), np.ones(2, np.float32))

    @given(
        bpm=st.floats(30, 300), offset=st.floats(-2, 20), per_bar=st.integers(1, 7),
        duration=st.floats(0, 60),
    )  # fmt: skip
    def test_fixed_beats(self, bpm: float, offset: float, per_bar: int, duration: float) -> None:
        beats = fixed_beats(duration, bpm, offset, per_bar)
        assert len(beats) == pytest.approx(duration * bpm / 60, abs=1.01)
        assert (beats.time_s >= 0).all()
        assert (beats.time_s < duration).all()
        assert np.allclose(np.diff(beats.time_s), 60 / bpm)
        downbeats = beats.time_s[beats.beat_in_bar == 1]
        bars = (downbeats - offset) * bpm / 60 / per_bar
        assert np.allclose(bars, np.round(bars), atol=1e-6)

    @pytest.mark.parametrize("bpm", [0, -1, np.nan, np.inf, 5000])
    def test_refuses_a_senseless_tempo(self, bpm: float) -> None:
        with pytest.raises(UsageError, match="BPM"):
            fixed_beats(10, bpm)


GOOD_FILES = {
    "a.beats": "0.5\t1\n1.0\t2\n1.5\t3\n",
    "a.tsv": "# made by hand\n0.5 1\n1.0 2\n\n1.5 3\n",
    "a.csv": "time_s,beat_in_bar\n0.5,1\n1.0,2\n1.5,3\n",
    "swapped.csv": "beat_in_bar;time_s;confidence\n1;0.5;1\n2;1.0;1\n3;1.5;0.9\n",
    "bom.csv": "\ufefftime_s,beat_in_bar,confidence\r\n0.5,1,.3\r\n1.0,2,.3\r\n1.5,3,.3\r\n",
    "labels.txt": "0.500000\t0.500000\t1\n1.000000\t1.000000\t2\n1.500000\t1.500000\t3\n",
    "pairs.json": "[[0.5, 1], [1.0, 2], [1.5, 3]]",
    "objects.json": '[{"time_s": 0.5, "beat_in_bar": 1}, {"time": 1, "beat": 2},'
    ' {"time": 1.5, "position": 3}]',
    "downbeats.json": '{"beats": [0.5, 1.0, 1.5], "downbeats": [0.51]}',
    "positions.json": '{"beats": [0.5, 1.0, 1.5], "beat_positions": [1, 2, 3]}',
}

BAD_FILES = {
    "empty": ("", "empty"),
    "blank": (" \n\n", "empty"),
    "comments": ("# nothing\n", "only comments"),
    "one": ("0.5\t1\n", "at least two"),
    "unsorted": ("0.5\t1\n0.4\t2\n", "not after"),
    "double": ("0.5\t1\n0.5\t2\n", "not after"),
    "negative": ("-0.5\t1\n0.4\t2\n", "start at 0"),
    "nan": ("nan\t1\n0.4\t2\n", "start at 0"),
    "infinite": ("0.1\t1\ninf\t2\n", "start at 0"),
    "words": ("lorem ipsum\ndolor sit\n", "neither a beat nor a header"),
    "word": ("0.1\t1\nlorem\t2\n", "line 2 has no time"),
    "place": ("0.1\t1\n0.2\t99\n", "beat in the bar"),
    "half a place": ("0.1\t1\n0.2\t1.5\n", "beat in the bar"),
    "json": ("[0.1, 0.2", "not valid JSON"),
    "deep json": ("[" * 100_000, "not valid JSON"),
    "json words": ('["a", "b"]', "beat 1 is"),
    "json object": ('{"bars": [1]}', "no list of beats"),
    "binary": ("0.1\0\t1\n", "not text"),
}


class TestFiles:
    @pytest.mark.parametrize("name", GOOD_FILES)
    def test_reads(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text(GOOD_FILES[name], encoding="utf-8")
        beats = read_beats(path)
        assert beats.time_s.tolist() == [0.5, 1.0, 1.5]
        assert beats.beat_in_bar.tolist() == [1, 2, 3]
        assert beats.confidence.tolist() == [1, 1, 1]

    @pytest.mark.parametrize("text", ["0.5\n1.0\n", "[0.5, 1.0]", "time\n0.5\n1.0\n"])
    def test_times_alone_have_unknown_places(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "times.txt"
        path.write_text(text)
        assert read_beats(path).beat_in_bar.tolist() == [0, 0]

    def test_labels_that_merely_count_are_not_places(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.txt"
        path.write_text("".join(f"{i * 0.5}\t{i * 0.5}\t{i + 1}\n" for i in range(20)))
        assert set(read_beats(path).beat_in_bar) == {0}

    @pytest.mark.parametrize("name", BAD_FILES)
    def test_refuses_in_one_line(self, tmp_path: Path, name: str) -> None:
        text, reason = BAD_FILES[name]
        path = tmp_path / "b.beats"
        path.write_text(text)
        with pytest.raises(InputError, match=reason) as caught:
            read_beats(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_refuses_what_is_no_text_file(self, tmp_path: Path) -> None:
        (tmp_path / "song.wav").write_bytes(b"RIFF\xff\xfe\x00\x80" * 10)
        with pytest.raises(InputError, match="not text"):
            read_beats(tmp_path / "song.wav")
        with pytest.raises(InputError, match="not a file"):
            read_beats(tmp_path)
        with pytest.raises(InputNotFoundError, match="not found"):
            read_beats(tmp_path / "none.beats")

    @given(st.lists(st.floats(0.01, 2.0), min_size=2, max_size=30))
    def test_round_trip_through_json(self, steps: list[float]) -> None:
        import tempfile

        times = np.cumsum(steps)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "b.json"
            path.write_text(json.dumps(times.tolist()))
            assert read_beats(path).time_s.tolist() == times.tolist()


class TestRefine:
    @pytest.mark.parametrize("rate", [16000, 22050, 44100])
    def test_finds_clicks_within_five_ms(self, rate: int) -> None:
        time_s = tempo_change()
        x = ticks(time_s, rate, time_s[-1] + 1)
        jitter = np.random.default_rng(0).uniform(-0.02, 0.02, len(time_s))
        refined = refine_beats(beats_at(time_s + jitter), x, rate)
        assert np.abs(refined.time_s - time_s).max() < 0.005
        assert abs(np.mean(refined.time_s - time_s)) < 0.001

    def test_int16_gives_the_same(self) -> None:
        time_s = 0.3 + np.arange(12) * 0.5
        x = ticks(time_s, RATE, 7.0)
        rough = beats_at(time_s + 0.012)
        whole = refine_beats(rough, np.round(x * 32767).astype(np.int16), RATE)
        assert np.allclose(whole.time_s, refine_beats(rough, x, RATE).time_s, atol=0.001)

    def test_an_attack_is_energy_after_over_energy_before(self) -> None:
        from scipy.ndimage import uniform_filter1d
        from scipy.signal import lfilter

        energy_T = np.random.default_rng(0).random(3000) ** 8
        decay = np.exp(-1.0 / 8.0)  # of 8 ms, a frame a millisecond
        before = lfilter([0.0, 1.0 - decay], [1.0, -decay], energy_T)
        after = lfilter([1.0 - decay], [1.0, -decay], energy_T[::-1])[::-1]
        floor = 0.02 * uniform_filter1d(energy_T, 1000, mode="nearest") + 1e-12 * (
            1.0 + energy_T.max()
        )
        assert _log_ratio(energy_T) == pytest.approx(
            np.log((after + floor) / (before + floor)), abs=1e-10
        )

    def test_without_evidence_nothing_moves_far(self) -> None:
        beats = fixed_beats(10.0, 120)
        still = refine_beats(beats, np.zeros(10 * RATE, np.int16), RATE)
        assert np.allclose(still.time_s, beats.time_s, atol=1e-6)

    def test_a_silent_beat_follows_its_neighbours(self) -> None:
        time_s = 0.3 + np.arange(16) * 0.5
        x = ticks(np.delete(time_s, 8), RATE, 9.0)
        refined = refine_beats(beats_at(time_s + 0.02), x, RATE)
        assert np.abs(refined.time_s - time_s).max() < 0.005

    @given(st.lists(st.floats(0.011, 0.5), min_size=2, max_size=40), st.integers(0, 9))
    def test_order_and_reach_hold_on_any_grid(self, steps: list[float], seed: int) -> None:
        beats = beats_at(np.cumsum(steps) - steps[0])
        x = np.random.default_rng(seed).normal(0, 0.2, 5 * RATE).astype(np.float32)
        refined = refine_beats(beats, x, RATE)  # Beats itself refuses disorder
        assert len(refined) == len(beats)
        assert np.abs(refined.time_s - beats.time_s).max() <= 0.03 + 1e-9
        assert refined.time_s[0] >= 0


def hits(truth_s: Array, found_s: Array, within_s: float) -> float:
    """Share of true beats, those at the edges left out, that a found one is close to."""
    inner = truth_s[2:-2]
    return float(np.mean(np.abs(inner[:, None] - found_s[None, :]).min(axis=1) < within_s))


class TestMgenTracker:
    @pytest.mark.parametrize(("bpm", "meter"), [(90, 4), (128, 4), (150, 4), (120, 3), (140, 5)])
    def test_click_track(self, bpm: float, meter: int) -> None:
        x = click_track(bpm, 30.0, offset_s=0.21, beats_per_bar=meter)
        beats = track_beats(x, RATE)
        truth = np.arange(0.21, 30.0, 60 / bpm)
        assert beats.bpm == pytest.approx(bpm, rel=0.005)
        assert hits(truth, beats.time_s, 0.01) == 1.0
        downbeats = beats.time_s[beats.beat_in_bar == 1]
        assert hits(truth[::meter], downbeats, 0.01) > 0.9
        assert beats.beat_in_bar.max() == meter
        assert beats.confidence.mean() > 0.7

    def test_follows_a_change_of_tempo(self) -> None:
        truth = tempo_change()
        beats = track_beats(ticks(truth, RATE, truth[-1] + 1, accent=4), RATE)
        assert hits(truth, beats.time_s, 0.015) > 0.9

    def test_follows_a_change_of_meter(self) -> None:
        truth = 0.2 + np.arange(72) * 0.5
        accents = np.concatenate([np.arange(0, 32, 4), np.arange(32, 72, 3)])
        x = ticks(truth, RATE, 37.0)
        x = x + ticks(truth[accents], RATE, 37.0, accent=1)
        place = place_beats(truth, extract(x, RATE))
        assert set(place[2:26]) == {1, 2, 3, 4}
        assert set(place[40:68]) == {1, 2, 3}
        assert np.isin(np.flatnonzero(place == 1)[1:-1], accents).mean() > 0.9

    def test_noise_is_given_little_confidence(self) -> None:
        noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
        short = track_beats(noise[: 2 * RATE], RATE)
        assert len(short) >= 2
        for beats in (short, track_beats(noise, RATE)):
            assert beats.confidence.mean() < 0.3
            assert 60 <= beats.bpm <= 200

    @pytest.mark.parametrize("seconds", [0.0, 0.00007, 0.1, 0.6, 2.0, 30.0])
    @pytest.mark.parametrize("tracker", ["mgen", "librosa"])
    def test_silence_gives_a_grid_without_confidence(self, seconds: float, tracker: str) -> None:
        beats = track_beats(np.zeros(int(seconds * RATE), np.int16), RATE, tracker=tracker)
        assert len(beats) == pytest.approx(seconds * 2, abs=1)
        assert not beats.confidence.any()
        if len(beats) > 1:
            assert beats.bpm == pytest.approx(120, rel=0.02)

    def test_drone_and_rubato_do_not_crash(self) -> None:
        t = np.arange(8 * RATE) / RATE
        drone = np.sin(2 * np.pi * 220 * t).astype(np.float32)
        assert track_beats(drone, RATE).confidence.mean() < 0.3
        steps = np.random.default_rng(1).uniform(0.3, 1.1, 30)
        rubato = track_beats(ticks(np.cumsum(steps), RATE, steps.sum() + 1), RATE)
        steady = track_beats(ticks(np.arange(1, 22) * 0.7, RATE, 16.0), RATE)
        assert len(rubato) > 10
        assert rubato.confidence.mean() < steady.confidence.mean() - 0.1

    @pytest.mark.parametrize("rate", [8000, 22050, 44100])
    def test_any_rate(self, rate: int) -> None:
        truth = np.arange(0.4, 12.0, 0.5)
        beats = track_beats(ticks(truth, rate, 12.5), rate)
        assert hits(truth, beats.time_s, 0.01) == 1.0

    def test_same_input_same_bytes(self) -> None:
        x = click_track(110, 12.0)
        first, second = track_beats(x, RATE), track_beats(x, RATE)
        assert first.time_s.tobytes() == second.time_s.tobytes()
        assert first.confidence.tobytes() == second.confidence.tobytes()

    def test_blocks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        x = np.round(click_track(110, 12.0) * 20000).astype(np.int16)
        whole = extract(x, RATE)
        np.save(tmp_path / "x.npy", x)
        monkeypatch.setattr(features_module, "BLOCK_S", 0.7)
        pieces = extract(np.load(tmp_path / "x.npy", mmap_mode="r"), RATE)
        assert np.allclose(whole.onsets_TK, pieces.onsets_TK, atol=1e-5)
        assert np.allclose(whole.chroma_SC, pieces.chroma_SC, atol=1e-4)
        assert np.allclose(whole.mel_SM, pieces.mel_SM, atol=1e-4)

    def test_never_asks_for_more_than_a_block(self) -> None:
        class Watched:
            shape, dtype, largest = (400 * RATE,), np.dtype(np.int16), 0

            def __getitem__(self, key: slice) -> Array:
                start, stop, _ = key.indices(self.shape[0])
                self.largest = max(self.largest, stop - start)
                return np.zeros(stop - start, np.int16)

        watched = Watched()
        extract(watched, RATE)
        refine_beats(fixed_beats(400.0, 120), watched, RATE)
        assert watched.largest <= 62 * RATE

    def test_refuses_what_it_cannot_use(self) -> None:
        with pytest.raises(UsageError, match="choose from mgen, beat-this, librosa"):
            track_beats(np.zeros(100, np.int16), RATE, tracker="madmom")
        with pytest.raises(AudioError, match="mono"):
            track_beats(np.zeros((100, 2), np.int16), RATE)
        with pytest.raises(AudioError, match="int16 or float"):
            track_beats(np.zeros(100, np.int64), RATE)
        with pytest.raises(AudioError, match="NaN"):
            track_beats(np.full(1000, np.nan), RATE)


class TestLibrosaTracker:
    def test_click_track(self) -> None:
        truth = np.arange(0.4, 20.0, 0.5)
        beats = track_beats(ticks(truth, RATE, 20.5, accent=4), RATE, tracker="librosa")
        assert hits(truth, beats.time_s, 0.02) == 1.0
        assert set(beats.beat_in_bar) == {1, 2, 3, 4}


class TestPlaces:
    def test_pickup_counts_to_the_bar(self) -> None:
        assert count_places(7, np.array([2, 6])).tolist() == [3, 4, 1, 2, 3, 4, 1]

    def test_eight_is_folded_to_four(self) -> None:
        assert count_places(17, np.array([0, 8, 16])).tolist() == [1, 2, 3, 4] * 4 + [1]

    def test_a_missed_downbeat_is_filled_and_an_odd_bar_kept(self) -> None:
        places = count_places(17, np.array([0, 3, 6, 12, 17 - 3]))
        assert places.tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 1, 2, 3]


SMALL = {"transformer_dim": 32, "n_layers": 1, "head_dim": 16, "stem_dim": 16, "ff_mult": 2}


def save_checkpoint(path: Path, **extra: object) -> Path:
    """A randomly initialised model in the format of the published files."""
    from beat_this.model.beat_tracker import BeatThis

    torch.manual_seed(0)
    model = BeatThis(**SMALL)  # type: ignore[arg-type]
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    hparams = {**SMALL, "lr": 0.0008, "dropout": {"frontend": 0.1, "transformer": 0.2}}
    torch.save({"state_dict": weights, "hyper_parameters": hparams, "epoch": 3, **extra}, path)
    return path


class Touch:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class TestBeatThis:
    def test_random_checkpoint_gives_beats(self, tmp_path: Path) -> None:
        path = save_checkpoint(tmp_path / "small.ckpt")
        x = click_track(120, 35.0, rate=22050)
        beats = track_beats(x, 22050, tracker="beat-this", beat_model=path)
        assert ((beats.confidence >= 0) & (beats.confidence <= 1)).all()
        assert beats.beat_in_bar.min() >= 1

    def test_chunks_are_joined_as_the_authors_join_them(self) -> None:
        from mgen.core.beats.beat_this import predict

        def model(mel_1TM: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"beat": mel_1TM[..., 0], "downbeat": -mel_1TM[..., 0]}

        for n in (1, 5, 1487, 1488, 1489, 1500, 3000, 4471):
            mel_TM = torch.arange(1.0, n + 1)[:, None]
            beat_T, downbeat_T = predict(model, mel_TM)
            assert torch.equal(beat_T, mel_TM[:, 0]), n
            assert torch.equal(downbeat_T, -mel_TM[:, 0]), n

    def test_log_mel_in_blocks_is_the_kernels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mgen.core.beats.beat_this import _log_mel
        from mgen.kernels.log_mel import BEAT_THIS, log_mel

        x = click_track(100, 5.0, rate=22050)
        monkeypatch.setattr(features_module, "BLOCK_S", 0.9)
        whole = log_mel(torch.from_numpy(x)[None], BEAT_THIS)[0]
        assert torch.allclose(_log_mel(x, 22050), whole, atol=1e-3)

    def test_probability_becomes_confidence_and_downbeats_places(self) -> None:
        from mgen.core.beats.beat_this import _to_beats

        beat_T, downbeat_T = torch.full((500,), -9.0), torch.full((500,), -9.0)
        beat_T[10::25] = 2.0
        downbeat_T[60::100] = 2.0
        beats = _to_beats(beat_T, downbeat_T, np.zeros(10 * RATE, np.int16), RATE)
        assert np.allclose(beats.time_s, 0.2 + 0.5 * np.arange(20))
        assert beats.beat_in_bar.tolist() == [3, 4, 1, 2] * 5
        assert np.allclose(beats.confidence, 1 / (1 + np.exp(-2.0)))

    def test_without_a_checkpoint_says_the_cure(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(MissingDependencyError, match="--beat-model PATH"):
            track_beats(np.zeros(RATE, np.int16), RATE, tracker="beat-this")
        with pytest.raises(InputNotFoundError, match="not found"):
            track_beats(
                np.zeros(RATE, np.int16), RATE, tracker="beat-this", beat_model=tmp_path / "no"
            )

    @pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
    def test_missing_cuda_says_the_cure(self, tmp_path: Path) -> None:
        path = save_checkpoint(tmp_path / "small.ckpt")
        with pytest.raises(UsageError, match="--device cpu"):
            track_beats(
                np.zeros(RATE, np.int16), RATE, tracker="beat-this", beat_model=path, device="cuda"
            )

    def test_the_cache_is_looked_at(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".cache/mgen").mkdir(parents=True)
        save_checkpoint(tmp_path / ".cache/mgen/beat_this.ckpt")
        assert len(track_beats(np.zeros(RATE, np.int16), RATE, tracker="beat-this")) >= 1

    def test_wrong_files_are_refused_in_one_line(self, tmp_path: Path) -> None:
        from mgen.core.beats.beat_this import load_model

        def write(name: str, data: object) -> Path:
            torch.save(data, tmp_path / name)
            return tmp_path / name

        good = torch.load(save_checkpoint(tmp_path / "good.ckpt"), weights_only=True)
        text, empty, cut = (tmp_path / n for n in ("text.ckpt", "empty.ckpt", "cut.ckpt"))
        text.write_text("not a checkpoint")
        empty.touch()
        cut.write_bytes((tmp_path / "good.ckpt").read_bytes()[:5000])
        wide = {**good["hyper_parameters"], "transformer_dim": 64}
        vast = {**good["hyper_parameters"], "transformer_dim": 10**9}
        wrong = [
            text, empty, cut,
            write("list.ckpt", [1, 2]),
            write("other.ckpt", {"weights": torch.zeros(2)}),
            write("wide.ckpt", {**good, "hyper_parameters": wide}),
            write("vast.ckpt", {**good, "hyper_parameters": vast}),
            write("bare.ckpt", {**good, "state_dict": {}}),
        ]  # fmt: skip
        for path in wrong:
            with pytest.raises(InputError) as caught:
                load_model(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_no_code_of_a_checkpoint_runs(self, tmp_path: Path) -> None:
        from mgen.core.beats.beat_this import load_model

        bait = tmp_path / "ran"
        save_checkpoint(tmp_path / "zip.ckpt", callbacks=Touch(bait))
        (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Touch(bait)))
        for name in ("zip.ckpt", "raw.ckpt"):
            with pytest.raises(InputError, match="not a Beat This! checkpoint"):
                load_model(tmp_path / name)
        assert not bait.exists()

    def test_imports_no_torchaudio(self, tmp_path: Path) -> None:
        import sys

        from mgen.core.beats.beat_this import load_model

        load_model(save_checkpoint(tmp_path / "small.ckpt"))
        unwanted = {"torchaudio", "beat_this.inference", "beat_this.preprocessing"}
        assert not unwanted & set(sys.modules)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=8), mirror=st.booleans(),
    hop=st.integers(1, 15),
)  # fmt: skip
def test_framer_gives_each_frame_once(sizes: list[int], mirror: bool, hop: int) -> None:
    n_fft = 32
    sizes[0] += n_fft  # mirroring needs half a window at once
    x = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    framer = Framer(n_fft, hop, mirror)
    pieces = [framer.push(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
    pieces.append(framer.flush())
    frames = [
        piece[start : start + n_fft]
        for piece in pieces
        for start in range(0, len(piece) - n_fft + 1, hop)
    ]
    whole = np.pad(x, n_fft // 2, mode="reflect" if mirror else "constant")
    expected = [whole[start : start + n_fft] for start in range(0, len(whole) - n_fft + 1, hop)]
    assert len(frames) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected, strict=True))


def test_no_warning_escapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        track_beats(click_track(100, 3.0), RATE)
