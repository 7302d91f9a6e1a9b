"""The tracker's network: bounded reach, streaming, overfit of one batch, safe loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mgen.core.beats import model as module
from mgen.core.beats.model import BeatNet, BeatNetConfig, LogitStream, load_beat_net, save_beat_net
from mgen.core.errors import InputError, InputNotFoundError
from mgen.core.weights import shipped

SMALL = BeatNetConfig(mels=16, front=(4, 4), width=8, depth=3)


def net(seed: int = 0, config: BeatNetConfig = SMALL) -> BeatNet:
    torch.manual_seed(seed)
    return BeatNet(config).eval()


@pytest.mark.parametrize("frames", [1, 2, 7, 100])
def test_two_mel_frames_make_one_output(frames: int) -> None:
    assert net()(torch.zeros(2, frames, 16)).shape == (2, (frames + 1) // 2, 2)


def test_an_output_depends_on_its_reach_and_no_more() -> None:
    model, at = net(), 60
    mel = torch.randn(1, 240, 16, requires_grad=True)
    model(mel)[0, at].sum().backward()
    assert mel.grad is not None
    touched = torch.nonzero(mel.grad[0].abs().sum(-1)).ravel()
    reach = 2 * SMALL.reach_u
    assert touched.min() >= 2 * at - reach
    assert touched.max() <= 2 * at + reach
    assert touched.max() - touched.min() > reach  # and not on a single frame


@pytest.mark.parametrize("piece", [1, 37, 64, 1000])
def test_a_stream_gives_what_one_pass_gives(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_U", 40)
    mel = np.random.default_rng(0).standard_normal((451, 16)).astype(np.float32)
    stream = LogitStream(net())
    for start in range(0, len(mel), piece):
        stream.push(mel[start : start + piece])
        assert len(stream.held_TM) <= 2 * 40 + 4 * SMALL.reach_u + piece
    with torch.inference_mode():
        whole = net()(torch.from_numpy(mel)[None])[0].numpy()
    np.testing.assert_allclose(stream.finish(), whole, atol=1e-5)


def test_an_empty_stream_has_no_frames() -> None:
    assert LogitStream(net()).finish().shape == (0, 2)


def test_one_batch_can_be_learnt() -> None:
    torch.manual_seed(0)
    model = BeatNet(BeatNetConfig(mels=16, front=(4, 4), width=16, depth=4, dropout=0.0))
    mel, target = torch.randn(2, 200, 16), torch.zeros(2, 100, 2)
    target[:, ::13, 0] = 1
    target[:, ::52, 1] = 1
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    first = 0.0
    for _ in range(150):
        loss = F.binary_cross_entropy_with_logits(model(mel), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first = first or loss.item()
    assert loss.item() < 0.05 * first


def test_a_model_folder_rebuilds_itself(tmp_path: Path) -> None:
    save_beat_net(net(3), tmp_path / "a", {"steps": 1})
    shutil.move(tmp_path / "a", tmp_path / "moved")
    again = load_beat_net(tmp_path / "moved")
    assert again.config == SMALL
    mel = torch.randn(1, 80, 16)
    with torch.inference_mode():
        np.testing.assert_allclose(again(mel), net(3)(mel), atol=0.02)  # half precision on disk


def test_broken_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        save_beat_net(net(), tmp_path / name, {})
        return tmp_path / name

    with pytest.raises(InputNotFoundError, match=r"no config\.json"):
        load_beat_net(tmp_path / "none")
    cut = broken("cut") / "model-00001-of-00001.safetensors"
    cut.write_bytes(cut.read_bytes()[:500])
    other = broken("other") / "config.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "kind": "judge"}))
    newer = broken("newer") / "config.json"
    newer.write_text(json.dumps({**json.loads(newer.read_text()), "format": 99}))
    wider = broken("wider") / "config.json"
    sizes = json.loads(wider.read_text())
    sizes["beat-tracker"]["width"] = 9
    wider.write_text(json.dumps(sizes))
    (broken("text") / "config.json").write_text("{")
    for name, words in {
        "cut": "damaged", "other": "holds a 'judge'", "newer": "newer", "text": "damaged",
        "wider": "not those that were written",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=words) as caught:
            load_beat_net(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_the_shipped_model_is_small_and_finds_the_beat(grid_song: Path) -> None:
    from mgen.core.audio import read_mono
    from mgen.core.beats import track_beats

    folder = shipped("tracker")
    assert sum(f.stat().st_size for f in folder.iterdir()) < 3_000_000
    beats = track_beats(read_mono(grid_song, 16000), 16000)
    truth = np.arange(0.0, 48.0, 60.0 / 140.0)
    near = np.abs(beats.time_s[:, None] - truth[None, :]).min(axis=0)
    assert (near < 0.07).mean() > 0.95
    assert beats.bpm == pytest.approx(140.0, rel=0.002)
