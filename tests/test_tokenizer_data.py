"""What tokenizers learn from, and what a step of their training is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from mgen.core import flow
from mgen.core.beats import Beats
from mgen.core.errors import AudioError, OutputExistsError, StaleError, StoreError, UsageError
from mgen.core.store import BarTable, Provenance, SongRow, Store
from mgen.core.tokenizer import load_tokenizer, training
from mgen.core.tokenizer.augment import Augmentation
from mgen.core.tokenizer.config import TokenizerConfig
from mgen.core.tokenizer.data import DataSettings, TrainingSound, song_blocks
from mgen.core.tokenizer.losses import Distances, mel_l1_db
from mgen.core.tokenizer.training import LossWeights, TokenizerTask, claim_model
from mgen.core.train_loop import Draw, TrainSettings, train

MADE = Provenance()
SONGS, BARS, BAR = 6, 4, 32768
LOUD = Augmentation(speed=0.0, tone_db=0.0, mix=0.0, gain_db=60.0)
PLAIN = DataSettings(augmentation=Augmentation.none())


def config(**changes: Any) -> TokenizerConfig:
    fields: dict[str, Any] = {
        "arch": "spectral", "unit": "bar", "rate": 16000, "channels": 1, "samples": BAR,
        "tokens": 64, "dims": 4, "prediction": "x", "steps": 2,
    }  # fmt: skip
    return TokenizerConfig(**{**fields, **changes})


def seconds(**changes: Any) -> TokenizerConfig:
    return config(unit="second", samples=6400, tokens=16, **changes)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Songs of sound that says which song and bar it is; each song's last bar is not valid, and
    its third a jittered copy.
    """
    folder = tmp_path_factory.mktemp("data")
    with Store.create(folder / "s.zarr") as store:
        for i in range(SONGS):
            n = 16000 + 8000 * i
            row = SongRow(id=f"id{i}", name=f"{i}", source=str(folder / f"{i}.wav"),
                          sha256=f"{i:064x}")  # fmt: skip
            store.append_song(row, [np.full(n, 100 * (i + 1), np.int16)], MADE)
            start_s = np.arange(BARS) * 0.2
            table = BarTable(
                song=np.full(BARS, i, np.int32), index=np.arange(BARS, dtype=np.int32),
                start_s=start_s, end_s=start_s + 0.1 + 0.1 * (np.arange(BARS) == 1),
                beats=np.full(BARS, 4, np.int8), bpm=np.full(BARS, 120, np.float32),
                stretch=np.ones(BARS, np.float32), jitter=np.array([0, 0, 1, 0], np.int8),
                valid=np.array([True, True, True, False]), confidence=np.ones(BARS, np.float32),
            )  # fmt: skip
            pcm = np.array([1000 * (i + 1) + j for j in range(BARS)], np.int16)
            store.append_beats(Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0)), MADE)
            store.append_bars(table, [np.repeat(pcm[:, None], BAR, axis=1)], MADE)
    return folder / "s.zarr"


def sound_of(
    path: Path, given: TokenizerConfig, how: DataSettings = PLAIN, steps: int = 100
) -> Any:
    with Store.open(path) as store:
        return TrainingSound([store], given, how, steps=steps)


def marks(batch: dict[str, Tensor]) -> list[int]:
    """First sample of each item as the integer that was stored."""
    return (batch["samples_BCN"][:, 0, 0] * 32768).round().int().tolist()


def test_every_valid_bar_comes_once_in_a_round(path: Path) -> None:
    sound = sound_of(path, config(), DataSettings(augmentation=Augmentation.none(), held_out=0.3))
    held = {int(m) // 1000 for m in marks(sound.held_out_items(99))}
    assert len(held) == 2
    wanted = {1000 * (s + 1) + j for s in range(SONGS) if s + 1 not in held for j in range(3)}
    assert len(sound.train) == len(wanted)
    rounds = [[m for k in range(3) for m in marks(sound.batch(3 * r + k, 4))] for r in range(3)]
    for one in rounds:
        assert sorted(one) == sorted(wanted)  # jittered copies too, the invalid bar never
    assert rounds[0] != rounds[1] != rounds[2]


def test_a_batch_is_a_function_of_seed_and_step(path: Path) -> None:
    for given in (config(), seconds()):
        first, again = (sound_of(path, given, DataSettings(seed=3)) for _ in range(2))
        late = again.batch(17, 5)["samples_BCN"]
        assert [first.batch(i, 5) for i in range(17)]
        assert torch.equal(first.batch(17, 5)["samples_BCN"], late)
        other = sound_of(path, given, DataSettings(seed=4)).batch(17, 5)["samples_BCN"]
        assert not torch.equal(other, late)


def test_a_song_is_held_out_as_a_whole_and_from_every_store(path: Path) -> None:
    with Store.open(path) as one, Store.open(path) as two:
        sound = TrainingSound([one, two], config(), PLAIN, steps=1)
    assert len(sound.held_out) == 2 * 3  # one song of six, in both stores
    assert len({m // 1000 for m in marks(sound.held_out_items(99))}) == 1
    seen = {m // 1000 for i in range(9) for m in marks(sound.batch(i, 8))}
    assert not seen & {m // 1000 for m in marks(sound.held_out_items(99))}


def test_augmentation_turns_and_scales_but_never_clips(path: Path) -> None:
    sound = sound_of(path, config(), DataSettings(augmentation=LOUD))
    batches = [sound.batch(i, 8)["samples_BCN"] for i in range(8)]
    levels = torch.stack([b[:, 0, 0] for b in batches]).flatten()
    assert (levels > 0).any()
    assert (levels < 0).any()
    assert levels.abs().max() <= 1.0
    assert levels.abs().max() / levels.abs().min() > 10


def test_augmentation_lays_another_item_over_some(path: Path) -> None:
    how = Augmentation(speed=0.0, tone_db=0.0, mix=0.5, gain_db=0.0, polarity=False)
    mixed = sound_of(path, config(), DataSettings(augmentation=how))
    plain = sound_of(path, config(), PLAIN)
    batches = [(mixed.batch(i, 8), plain.batch(i, 8)) for i in range(12)]
    added = torch.cat([m["samples_BCN"] - p["samples_BCN"] for m, p in batches])
    share = float((added.abs().amax((1, 2)) > 1e-6).float().mean())
    assert 0.3 < share < 0.7
    again = sound_of(path, config(), DataSettings(augmentation=how)).batch(3, 8)
    assert torch.equal(again["samples_BCN"], batches[3][0]["samples_BCN"])
    held = mixed.held_out_items(4)["samples_BCN"]
    assert torch.equal(held, plain.held_out_items(4)["samples_BCN"])  # never changed


def test_cuts_grow_and_short_songs_are_padded(path: Path) -> None:
    sound = sound_of(path, seconds(), steps=100)
    assert [sound.length(i) for i in (0, 49, 50, 74, 75, 99, 500)] == [
        1600, 1600, 3200, 3200, 6400, 6400, 6400
    ]  # fmt: skip
    assert sound.batch(60, 3)["samples_BCN"].shape == (3, 1, 3200)
    long = sound_of(path, config(unit="second", samples=64000, tokens=16), steps=1)
    batch = long.batch(1, 8)["samples_BCN"]
    for item, mark in zip(batch, marks({"samples_BCN": batch}), strict=True):
        assert int((item != 0).sum()) == min(64000, 16000 + 8000 * (mark // 100 - 1))


def test_every_sample_is_as_likely_as_any_other(path: Path) -> None:
    sound = sound_of(path, seconds(), DataSettings(augmentation=Augmentation.none(), held_out=0))
    found = np.bincount([m // 100 - 1 for i in range(60) for m in marks(sound.batch(i, 50))])
    lengths = 16000 + 8000 * np.arange(SONGS) - 1600
    assert np.abs(found / found.sum() - lengths / lengths.sum()).max() < 0.03


def test_bars_at_their_own_lengths(path: Path) -> None:
    sound = sound_of(path, config(arch="perceiver"))
    batch = sound.batch(0, 15)
    assert sorted(set(batch["lengths_B"].tolist())) == [1600, 3200]
    assert batch["samples_BCN"].shape == (15, 1, 8192)
    for item, n in zip(batch["samples_BCN"], batch["lengths_B"].tolist(), strict=True):
        assert (item[0, :n] != 0).all()
        assert (item[0, n:] == 0).all()


def test_other_rates_are_read_from_the_source(path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(SONGS):
        n = (16000 + 8000 * i) * 44100 // 16000
        soundfile.write(path.parent / f"{i}.wav", rng.uniform(-0.5, 0.5, (n, 2)), 44100)
    stereo = config(unit="second", rate=44100, channels=2, samples=64 * 256)
    sound = sound_of(path, stereo)
    assert sound.batch(0, 3)["samples_BCN"].shape == (3, 2, 16 * 256)
    assert abs(sound.seconds - sum(1 + 0.5 * i for i in range(SONGS))) < 3.6  # less one held out
    with Store.open(path) as store:
        (block,) = song_blocks(store, store.song(2), 44100, 2)
        truth = soundfile.read(path.parent / "2.wav", dtype="int16")[0]
        assert np.abs(block.astype(int) - truth).max() <= 1
        soundfile.write(path.parent / "2.wav", truth[:1000], 44100)
        with pytest.raises(AudioError, match="not as long"):
            list(song_blocks(store, store.song(2), 44100, 2))
    for i in range(SONGS):
        (path.parent / f"{i}.wav").unlink()


def test_what_cannot_be_learned_from(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="16000 Hz mono"):
        sound_of(path, config(rate=44100))
    with Store.create(tmp_path / "empty.zarr") as store:
        store.append_song(SongRow(id="a", name="a", source="a", sha256="0", kept=False), [], MADE)
        with pytest.raises(StoreError, match="mgen segment-bars"):
            TrainingSound([store], config(), PLAIN, steps=1)
        with pytest.raises(StoreError, match="no songs with sound"):
            TrainingSound([store], seconds(), PLAIN, steps=1)
        store.append_beats(Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0)), MADE)
        store.begin("bars", MADE)
        with pytest.raises(StoreError, match="no bars fit"):
            TrainingSound([store], config(), PLAIN, steps=1)


def test_stale_bars_are_refused(path: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(path, tmp_path / "s.zarr")
    with Store.open(copy, "a") as store:
        store.begin("songs", MADE, anew=True)
        store.append_song(SongRow(id="x", name="x", source="x", sha256="9"),
                          [np.ones(9999, np.int16)], MADE)  # fmt: skip
        with pytest.raises(StaleError, match="segment-bars --force"):
            TrainingSound([store], config(), PLAIN, steps=1)


# losses


def test_mel_l1_db_is_librosas() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(30001) / 16000
    one = (0.3 * np.sin(2 * np.pi * 440 * t * (1 + t)) * np.exp(-2 * t)).astype(np.float32)
    other = (one + 0.01 * rng.standard_normal(len(t))).astype(np.float32)
    shown = [
        librosa.power_to_db(
            librosa.feature.melspectrogram(y=y, sr=16000, n_fft=1024, hop_length=256, n_mels=80),
            top_db=80,
        )
        for y in (one, other)
    ]
    assert mel_l1_db(one, other, 16000) == pytest.approx(np.abs(shown[0] - shown[1]).mean(), 1e-3)
    assert mel_l1_db(one, one, 16000) == 0.0
    as_loss = Distances(16000).mel(*(torch.from_numpy(y)[None, None] for y in (one, other)))
    assert 10 * float(as_loss) == pytest.approx(mel_l1_db(one, other, 16000), 1e-2)


def test_perceptual_losses_count_what_is_heard() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 8192, generator=rng) * 0.1
    distances = Distances(16000)
    for loss in (distances.mel, distances.stft):
        assert loss(x, x) == 0
        assert float(loss(x, x * 10 ** (-6 / 20))) == pytest.approx(0.6, abs=0.01)
        assert float(loss(x, -x)) == pytest.approx(0, abs=1e-6)  # polarity is not heard
        assert loss(x, x + 1e-7) < 1e-3
        assert 0 < loss(x, torch.zeros_like(x)) <= 8.0  # nothing is further off than 80 dB
        found = x.clone().requires_grad_()
        loss(x * 0.5, found).backward()
        assert found.grad is not None
        assert torch.isfinite(found.grad).all()


# a step


class Stub(nn.Module):
    """An architecture that knows the answer: latents are sound itself, and `predict` is exact."""

    def __init__(self, given: TokenizerConfig) -> None:
        super().__init__()
        self.config = given
        self.gain = nn.Parameter(torch.ones(()))
        self.conditions: list[Tensor] = []

    def calibrate(self, samples_BCN: Tensor) -> None:
        self.seen = len(samples_BCN)

    def decoder_modules(self) -> list[nn.Module]:
        return []

    def finish(self, samples_BCN: Tensor, condition: Tensor) -> Tensor:
        return samples_BCN

    def encode(self, samples_BCN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        return samples_BCN.unflatten(2, (self.config.tokens, -1))[:, 0]

    def condition(self, z_BLD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        self.conditions.append(z_BLD)
        return z_BLD.flatten(1)[:, None] * self.gain

    def flow_shape(self, n_samples: int) -> tuple[int, ...]:
        return 1, n_samples

    def to_flow(self, samples_BCN: Tensor, condition: Tensor) -> Tensor:
        return samples_BCN

    def from_flow(self, x: Tensor, condition: Tensor, n_samples: int) -> Tensor:
        return x

    def predict(self, x_t: Tensor, t_B: Tensor, condition: Tensor) -> Tensor:
        if self.config.prediction == "x":
            return condition
        return (x_t - condition) / t_B[:, None, None]

    def extra_losses(self, condition: Tensor, samples_BCN: Tensor) -> dict[str, Tensor]:
        return {"extra": (condition - samples_BCN).abs().mean()}


@pytest.fixture
def stub_task(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(training, "build", Stub)

    def make(**changes: Any) -> TokenizerTask:
        given = config(dims=512, **{"noise_sync": 0.0, "sigma_min": 1e-5, **changes})
        return TokenizerTask(given, sound_of(path, given), batch=4, valid_items=3, heard_items=2)

    return make


def draw(items: int = 4) -> Draw:
    return Draw(seed=0, step=0, total=items, first=0, items=items, device="cpu")


@pytest.mark.parametrize("prediction", ["x", "v"])
def test_who_knows_the_answer_has_no_loss(stub_task: Any, prediction: str) -> None:
    task = stub_task(prediction=prediction)
    with torch.no_grad():
        losses = task.loss(task.model, task.batch(0), draw())
    assert set(losses) == {"loss", "loss/flow", "loss/mel", "loss/stft", "loss/extra"}
    assert float(losses["loss/flow"]) < 1e-3
    assert float(losses["loss/mel"]) < 1e-3
    assert float(losses["loss/extra"]) == 0.0


def test_the_loss_is_the_sum_of_its_weighted_parts(stub_task: Any) -> None:
    task = stub_task()
    task.model.gain.data.fill_(0.5)
    task.weights = LossWeights(flow=2.0, mel=0.25, stft=0.0)
    losses = task.loss(task.model, task.batch(0), draw())
    assert "loss/stft" not in losses
    wanted = 2 * losses["loss/flow"] + 0.25 * losses["loss/mel"] + losses["loss/extra"]
    assert torch.allclose(losses["loss"], wanted)
    losses["loss"].backward()
    assert task.model.gain.grad is not None


def test_latents_are_noised_together_with_t(
    stub_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = stub_task(noise_sync=1.0)
    seen: dict[str, Tensor] = {}
    blend = flow.blend

    def spy(x: Tensor, noise: Tensor, t_B: Tensor, sigma_min: float) -> Tensor:
        seen["t"] = t_B
        return blend(x, noise, t_B, sigma_min)

    monkeypatch.setattr(flow, "blend", spy)
    batch = task.batch(0)
    task.loss(task.model, batch, draw())
    clean, noised = task.model.conditions
    assert torch.equal(clean, task.model.encode(batch["samples_BCN"]))
    tau = (noised - clean).flatten(1).std(1)  # of (1 - tau) z + tau noise, z small
    assert (seen["t"] >= tau - 0.05).all()
    assert tau.max() > 0.1


def test_samples_are_written_and_measured(stub_task: Any, tmp_path: Path) -> None:
    task = stub_task()
    task.model.train()
    figures = task.samples(task.model, tmp_path, 7)
    assert task.model.training
    assert figures["valid/flow"] < 1e-3
    assert {p.name for p in tmp_path.iterdir()} == {
        "00.truth.wav", "00.step-000007.wav", "01.truth.wav", "01.step-000007.wav"
    }  # fmt: skip
    assert figures == task.samples(task.model, tmp_path, 7)
    truth, _ = soundfile.read(tmp_path / "00.truth.wav")
    assert len(truth) == BAR


def test_nothing_is_measured_on_what_was_learned(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(training, "build", Stub)
    given = config(dims=512)
    sound = sound_of(path, given, DataSettings(held_out=0))
    task = TokenizerTask(given, sound, batch=2, valid_items=2, heard_items=1)
    assert task.samples(task.model, tmp_path, 1) == {}
    assert len(list(tmp_path.iterdir())) == 2  # there is something to hear all the same


SMALL = {"encoder": 8, "encoder_depth": 1, "guide": 8, "guide_depth": 1, "decoder": 8,
         "decoder_depth": 1, "condition": 8}  # fmt: skip


def trained(path: Path, run: Path, **changes: Any) -> dict[str, Tensor]:
    """State of a spectral tokenizer after three steps."""
    given = config(sizes=SMALL)
    task = TokenizerTask(given, sound_of(path, given), batch=2, valid_items=2, **changes)
    settings = TrainSettings(
        steps=3, batch=2, lr=1e-2, ema=0.0, optimiser="muon", device="cpu", precision="f32"
    )
    assert list(train(task, settings, run))
    return {k: v.clone() for k, v in task.model.state_dict().items()}


def test_latents_are_learned_alone_and_then_left_alone(path: Path, tmp_path: Path) -> None:
    """The two halves of the shipped recipe: each trains its part and touches nothing else."""
    guide_alone = LossWeights(flow=0.0, mel=0.0, stft=0.0)
    first = trained(path, tmp_path / "a", weights=guide_alone)
    untrained = trained(path, tmp_path / "b", weights=guide_alone, start=tmp_path / "a" / "model")
    then = trained(path, tmp_path / "c", start=tmp_path / "a" / "model", fixed_latents=True)
    decoder = ("to_condition", "time", "noisy", "guided", "decoder", "modulate", "last", "clean")
    for name in first:
        in_decoder, plain = name.split(".")[0] in decoder, name.startswith("plain")
        assert torch.equal(untrained[name].half(), first[name].half()) is (in_decoder or plain), (
            name
        )
        if not in_decoder:  # as it was saved, in float16
            assert torch.equal(then[name], first[name].half().float()), name
    assert not torch.equal(then["clean.weight"], first["clean.weight"])
    one, other, third = (load_tokenizer(tmp_path / run / "model") for run in "abc")
    assert one.id != third.id
    assert one.latents_id == third.latents_id != other.latents_id
    with pytest.raises(UsageError, match="no decoder"):
        trained(path, tmp_path / "d", weights=guide_alone, fixed_latents=True)


def test_first_weights_follow_the_seed_and_nothing_else(path: Path) -> None:
    given = config(sizes=SMALL)
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))
        sound = sound_of(path, given, DataSettings(seed=seed))
        states.append(TokenizerTask(given, sound, batch=2).model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_a_place_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="no tokenizer"):
            claim_model(tmp_path / "mine", force=force)
    with pytest.raises(OutputExistsError, match="a file"):
        claim_model(tmp_path / "mine" / "letter.txt", force=True)
    assert claim_model(tmp_path / "new") == tmp_path / "new" / "run"
