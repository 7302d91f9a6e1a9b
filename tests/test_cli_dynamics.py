"""`mgen train-dynamics`: from a store's latents and actions to its dynamics model; refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import click_track

from mgen.cli.app import main
from mgen.core.corpus import Segmentation, filter_songs, segment_songs
from mgen.core.dynamics import config as dynamics_config
from mgen.core.dynamics import inpaint
from mgen.core.dynamics.reading import current_dynamics, read_rows, single_of, told_of
from mgen.core.errors import InputNotFoundError, StoreError
from mgen.core.lam.config import LamConfig, LamSizes
from mgen.core.lam.folder import LatentActionModel, load_lam, save_lam
from mgen.core.lam.model import ActionNetwork
from mgen.core.quantizers import Payload
from mgen.core.store import Store, check
from mgen.core.tokenizer import TokenizerConfig, build, save_tokenizer

pytestmark = pytest.mark.usefixtures("here", "tiny")

QUICK = ("--steps", "1", "--batch", "2", "--device", "cpu", "--compile", "off", "--bars", "3")
LAM_SIZES = LamSizes(
    width=12, heads=2, hidden=16, spatial=1, temporal=1, decoder=1, condition=8, embedding=6
)
TOKENIZER_SIZES = {
    "encoder": 8, "encoder_depth": 1, "guide": 8, "guide_depth": 1, "decoder": 8,
    "decoder_depth": 1, "condition": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        sizes = {"width": 16, "depth": 2, "heads": 2, "embedding": 8, "rank": 2}
        patch.setattr(dynamics_config, "_SIZES", {"small": sizes})
        yield


def make_lam(folder: Path, bottleneck: Any, tokenizer: str) -> LatentActionModel:
    how = {
        "style": {"actions": 8, "top_k": 3},
        "residual-fsq": {"actions": 64, "levels": (8, 8), "quantizers": 3},
    }[bottleneck]
    torch.manual_seed(0)
    config = LamConfig(
        bottleneck=bottleneck, bars=4, tokens=64, dims=16, tokenizer=tokenizer, mapping=True,
        sizes=LAM_SIZES, **how,
    )  # fmt: skip
    save_lam(ActionNetwork(config), folder, {})
    return load_lam(folder)


@pytest.fixture(scope="module")
def original(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two songs at 120 BPM, their store with latents, a tokenizer and two LAMs."""
    folder = tmp_path_factory.mktemp("dynamics")
    for i, seconds in enumerate((9, 13)):
        soundfile.write(folder / f"{i}.wav", click_track(120, seconds, offset_s=0.25), 16000)
    with Store.create(folder / "s.zarr") as store:
        list(filter_songs(store, [folder / f"{i}.wav" for i in range(2)]))
        list(segment_songs(store, Segmentation(bpm=120, offset_s=0.25, jitter=1)))
    config = TokenizerConfig(
        arch="spectral", unit="bar", rate=16000, channels=1, samples=32768, tokens=64, dims=16,
        prediction="x", sizes=TOKENIZER_SIZES, steps=1,
    )  # fmt: skip
    torch.manual_seed(0)
    save_tokenizer(build(config), folder / "tok", {})
    words = ["tokenize", str(folder / "s.zarr"), "--tokenizer", str(folder / "tok")]
    assert main(words) == 0
    with Store.open(folder / "s.zarr") as store:
        (latents,) = store.family("latents")
    make_lam(folder / "style", "style", latents)
    make_lam(folder / "codes", "residual-fsq", latents)
    return folder


@pytest.fixture
def made(original: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same here: `s.zarr`, `tok`, `style`, `codes`; the store's current LAM is `style`."""
    for name in ("s.zarr", "tok", "style", "codes"):
        shutil.copytree(original / name, here / name)
    with Store.open("s.zarr", "a") as store:
        store.link_model("lam", load_lam(Path("style")).id, Path("style"))
        store.link_model("tokenizer", store.models["tokenizer"], Path("tok"))
    capsys.readouterr()
    return here


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def test_from_a_store_to_its_dynamics_model(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train-dynamics", "s.zarr", "-o", "dyn", *QUICK]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert figures["paths"] == ["s.zarr"]
    assert figures["bars"] == len(_usable_training_rows())
    assert {"valid/loss", "valid/action_gap", "valid/fill_gap"} <= figures.keys()
    with Store.open("s.zarr") as store:
        assert check(store, deep=True) == []
        assert store.models["dynamics"] == figures["id"]
        dynamics, folder = current_dynamics(store)
        lam = load_lam(Path("style"))
        rows = read_rows([store], lam)
    assert (dynamics.id, folder) == (figures["id"], Path("dyn").absolute())
    config = dynamics.config
    assert (config.tokens, config.dims, config.action, config.bars) == (64, 16, 6, 3)
    assert (config.lam, config.tokenizer) == (lam.id, lam.config.tokenizer)
    heard = sorted(p.name for p in Path("dyn/run/samples").iterdir())
    assert heard[:2] == ["00.step-000001.wav", "00.truth.wav"]
    assert soundfile.info(f"dyn/run/samples/{heard[1]}").frames == 3 * 32768
    z_BLD = torch.from_numpy(rows.z_XLD[:3].astype(np.float32))
    mask_B = torch.tensor([False, True, False])
    out_BLD = inpaint(
        dynamics, z_BLD, mask_B, torch.from_numpy(rows.bpm_X[:3]),
        torch.from_numpy(rows.action_XA[:3]),
    )  # fmt: skip
    assert torch.equal(out_BLD[~mask_B], z_BLD[~mask_B])
    assert not torch.equal(out_BLD[mask_B], z_BLD[mask_B])


def _usable_training_rows() -> list[int]:
    """Rows of the song that is not held out, as the store has them."""
    from mgen.core.tokenizer.data import held_out_songs

    with Store.open("s.zarr") as store:
        table, songs = store.bars(jittered=True), store.songs()
        held = held_out_songs([song.sha256 for song in songs], 0, 0.05)
        mine = [i for i, song in enumerate(songs) if song.sha256 not in held]
        usable = table.valid & np.isin(table.song, mine)
        assert all(  # each copy of a song is one run here
            usable[(table.song == song) & (table.jitter == jitter)].sum() in (0, 4, 6)
            for song in mine for jitter in (0, 1)
        )  # fmt: skip
        return np.flatnonzero(usable).tolist()


@pytest.mark.parametrize("name", ["style", "codes"])
def test_what_is_told_of_actions(made: Path, name: str) -> None:
    lam = load_lam(Path(name))
    with Store.open("s.zarr") as store, pytest.raises(StoreError, match="run `mgen actions`"):
        read_rows([store], lam)
    assert main(["train-dynamics", "s.zarr", "-o", "dyn", *QUICK, "--lam", name]) == 0
    with Store.open("s.zarr") as store:
        rows = read_rows([store], lam)
        assert len(rows.z_XLD) == len(store.bars(jittered=True))
        first = [int(store.bars(jittered=True).song[a]) for a, _ in rows.runs]
        assert list(rows.owners) == [store.songs()[song].sha256 for song in first]
        twice = read_rows([store, store], lam)
    n = len(rows.z_XLD)
    assert np.array_equal(twice.action_XA, np.concatenate([rows.action_XA] * 2))
    assert list(twice.runs) == [*rows.runs, *((a + n, b + n) for a, b in rows.runs)]
    assert rows.action_XA.shape == rows.single_XA.shape == (n, 6)
    assert np.abs(rows.action_XA - rows.single_XA).max() > 1e-3


def test_the_single_action_is_the_largest_or_the_first(made: Path) -> None:
    payload = Payload(
        torch.tensor([[5, 2, 7], [1, 0, 3], [4, 4, 6]]),
        torch.tensor([[0.2, 0.7, 0.1], [1.0, 1.0, 1.0], [0.5, 0.5, 0.0]]),
    )
    single = single_of(payload)
    assert single.weight.tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    lam = load_lam(Path("style"))
    alone = Payload(torch.tensor([[2, 0, 0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(told_of(lam, single)[:1], lam.inform(lam.embed(alone)))
    assert told_of(lam, Payload(torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, 3))).shape == (
        0, 6,
    )  # fmt: skip


def test_training_goes_on_and_nothing_is_lost(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-dynamics", "s.zarr", "-o", "dyn", *QUICK]) == 0
    before = {p: p.read_bytes() for p in Path("dyn").glob("*.*")}
    capsys.readouterr()
    refused = [
        (["-o", "dyn", *QUICK, "--lr", "1"], "begun with other settings"),
        (["-o", "dyn", *QUICK, "--condition", "concatenation"], "begun with other settings"),
        (["-o", "dyn", *QUICK, "--no-resume"], "--force drops it"),
        (["-o", "s.zarr", *QUICK], "is no dynamics"),
        (["-o", "tok", *QUICK], "exists; give --force"),
        (["-o", "tok", *QUICK, "--force"], "holds a 'tokenizer', not a dynamics"),
    ]
    for words, message in refused:
        assert main(["train-dynamics", "s.zarr", *words]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in lines(captured.err)[-1]
    assert {p: p.read_bytes() for p in Path("dyn").glob("*.*")} == before
    assert main(["train-dynamics", "s.zarr", "-o", "dyn", *QUICK, "--steps", "2"]) == 0
    assert capsys.readouterr().out == "s.zarr\n"
    metrics = Path("dyn/run/metrics.jsonl").read_text("utf-8")
    assert [json.loads(line)["step"] for line in lines(metrics)] == [1, 2]


@pytest.mark.parametrize("how", ["cross-attention", "concatenation"])
def test_every_condition_trains(made: Path, how: str) -> None:
    assert main(["train-dynamics", "s.zarr", "-o", "dyn", *QUICK, "--condition", how]) == 0
    with Store.open("s.zarr") as store:
        assert current_dynamics(store)[0].config.condition == how


def test_a_model_that_moved_is_asked_for(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mgen.core.weights.__file__", str(made / "weights.py"))
    with Store.open("s.zarr") as store, pytest.raises(
        InputNotFoundError, match="make one with `mgen train-dynamics`"
    ):  # fmt: skip
        current_dynamics(store)
    assert main(["train-dynamics", "s.zarr", "-o", "dyn", *QUICK]) == 0
    Path("dyn").rename("renamed")
    with Store.open("s.zarr") as store:
        with pytest.raises(StoreError, match=r"no more at .*--dynamics MODEL"):
            current_dynamics(store)
        assert current_dynamics(store, Path("renamed"))[0].id == store.models["dynamics"]
    shutil.copytree("renamed", "dyn")
    with Store.open("s.zarr", "a") as store:
        store.link_model("dynamics", "0" * 64, Path("dyn"))
        with pytest.raises(StoreError, match=r"is 000000000000, but .*--dynamics MODEL"):
            current_dynamics(store)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gone.zarr", "-o", "t"], 1, "not found"),
        (["s.zarr"], 2, "--out"),
        (["s.zarr", "-o", "t", "--lam", "gone"], 1, "name the folder of a lam"),
        (["s.zarr", "-o", "t", "--lam", "tok"], 1, "not a lam"),
        (["s.zarr", "-o", "t", "--condition", "magic"], 2, "magic"),
        (["s.zarr", "-o", "t", "--batch", "0"], 2, "batch"),
        (["s.zarr", "-o", "t", "--bars", "7"], 1, "no song has 7 bars on end"),
    ],
)
def test_refusals_are_one_line(
    made: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-dynamics", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(lines(captured.err)) == 1
    assert message in captured.err
