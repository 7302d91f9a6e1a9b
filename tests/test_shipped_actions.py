"""The action and dynamics models that ship: budgets, palette, and an edit of a song never heard."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mgen.cli.app import main
from mgen.core.dynamics.model import load_dynamics
from mgen.core.errors import StoreError
from mgen.core.lam.config import make_config
from mgen.core.lam.folder import load_lam
from mgen.core.lam.palette import load_palette
from mgen.core.lam.passes import PALETTE, current_lam, current_palette
from mgen.core.quantizers import Payload
from mgen.core.store import Store, Takes
from mgen.core.tokenizer import load_tokenizer
from mgen.core.tokenizer.passes import latents_id
from mgen.core.weights import shipped

SONG = Path(__file__).parents[1] / "examples" / "vibe_ace.ogg"  # of the split `dev`
BARS, ACTION = slice(7, 9), 39


@pytest.mark.parametrize(("stage", "most"), [("lam", 8_100_000), ("dynamics", 18_100_000)])
def test_weights_fit_their_budget(stage: str, most: int) -> None:
    files = list(shipped(stage).glob("*.safetensors"))
    assert sum(f.stat().st_size for f in files) <= most
    assert max(f.stat().st_size for f in files) <= 16_000_000


def test_models_belong_together() -> None:
    tokenizer, lam = load_tokenizer(shipped("tokenizer")), load_lam(shipped("lam"))
    dynamics = load_dynamics(shipped("dynamics"))
    assert lam.config.tokenizer == dynamics.config.tokenizer == latents_id(tokenizer)
    assert lam.id.startswith(dynamics.config.lam)
    palette = current_palette(lam, shipped("lam"))
    assert len(palette) == 64
    assert len({row.name for row in palette.rows}) > 32  # they do different things
    assert load_palette(shipped("lam") / PALETTE).id == palette.id


def test_a_model_of_an_earlier_mgen_gives_way_to_the_one_that_ships(tmp_path: Path) -> None:
    with Store.open_or_create(tmp_path / "s.zarr") as store:
        store.link_model("lam", "0" * 64)
        assert current_lam(store)[0].id == load_lam(shipped("lam")).id
        store.link_model("lam", "0" * 64, shipped("lam"))
        with pytest.raises(StoreError, match="its latent action model is 000000000000, but"):
            current_lam(store)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copy(SONG, folder / "song.ogg")
    words = ["edit", str(folder / "song.ogg"), "--bars", "8-9", "--action", str(ACTION)]
    assert main([*words, "-o", str(folder / "out.wav")]) == 0
    return folder


def test_an_edit_has_the_action_that_was_asked_for(edited: Path) -> None:
    """What was written is decoded, tokenized and labelled again; chance is 3 of 64 a bar."""
    lam, tokenizer = load_lam(shipped("lam")), load_tokenizer(shipped("tokenizer"))
    palette = current_palette(lam, shipped("lam"))
    with Store.open(edited / "song.mgen.zarr") as store:
        (row,) = store.songs()
        z_XLD = torch.from_numpy(store.latents(latents_id(tokenizer), 0)).float()
        take = Takes(store).read(1, row)
    before = lam.label(z_XLD)
    sound_BCN = tokenizer.decode(torch.from_numpy(take.z).float(), keys=range(2))
    z_XLD[BARS] = tokenizer.encode(sound_BCN)
    after = lam.label(z_XLD)
    wanted = int(palette.payload_of(ACTION).index[0])
    assert not has(before, wanted)[BARS].any()
    assert has(after, wanted)[BARS].all()


def has(labels: Payload, action: int) -> np.ndarray:
    found: np.ndarray = ((labels.index == action) & (labels.weight > 0)).any(1).numpy()
    return found


def test_everything_else_is_as_it_was(edited: Path) -> None:
    before_NC, rate = soundfile.read(edited / "song.ogg", dtype="float32")
    after_NC, same_rate = soundfile.read(edited / "out.wav", dtype="float32")
    assert (rate, before_NC.shape) == (same_rate, after_NC.shape)
    changed = np.flatnonzero((before_NC != after_NC).any(1))
    with Store.open(edited / "song.mgen.zarr") as store:
        table = store.bars(0)
        (first, last) = float(table.start_s[7]), float(table.end_s[8])
    assert first * rate - 2 <= changed[0] < changed[-1] <= last * rate + 2
    level = [np.sqrt(np.square(x[changed[0] : changed[-1]]).mean()) for x in (before_NC, after_NC)]
    assert 0.1 < level[1] / level[0] < 10.0


def test_the_sheet_is_made_from_the_song_alone(
    edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited / "sheet"
    few = edited / "few"
    words = ["actions", str(edited / "song.ogg"), "--curate", "3,17", "-o", str(few), "--json",
             "--audition", str(folder), "--contexts", "1"]  # fmt: skip
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["stores"][0]["audition"] == str(folder / "index.html")
    assert len(list((folder / "sounds").iterdir())) == 3


def test_train_lam_makes_what_ships_unless_it_is_told_otherwise() -> None:
    shipped_config = load_lam(shipped("lam")).config
    made = make_config(
        "style", tokens=shipped_config.tokens, dims=shipped_config.dims,
        tokenizer=shipped_config.tokenizer, run_steps=500,
    )  # fmt: skip
    assert made == shipped_config
