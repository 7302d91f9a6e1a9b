"""`mgen train-lam` and `actions`: from latents to a palette, and refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labelled_store import BARS, TOKENIZER, make_store

from mgen.cli.app import main
from mgen.core.lam import config as lam_config
from mgen.core.lam.config import LamSizes
from mgen.core.lam.folder import LatentActionModel, load_lam
from mgen.core.lam.palette import load_palette
from mgen.core.store import Store, check, read_actions

pytestmark = pytest.mark.usefixtures("here", "tiny")

TINY = {"small": LamSizes(width=16, heads=2, hidden=16, spatial=1, temporal=1, decoder=1,
                          condition=16, embedding=16, patch=8)}  # fmt: skip
QUICK = ("--steps", "2", "--batch", "2", "--device", "cpu", "--compile", "off")
STYLES = ("--actions", "8", "--top-k", "2")


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lam_config, "SIZES", TINY)
        yield


@pytest.fixture(scope="module")
def original(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a model trained on it for two steps, and the store as it was."""
    folder = tmp_path_factory.mktemp("lam")
    make_store(folder / "s.zarr")
    shutil.copytree(folder / "s.zarr", folder / "bare.zarr")
    words = ["train-lam", str(folder / "s.zarr"), "-o", str(folder / "lam"), *QUICK, *STYLES]
    assert main(words) == 0
    return folder


@pytest.fixture
def made(original: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same here: `s.zarr`, `bare.zarr` and `lam`."""
    for name in ("s.zarr", "bare.zarr", "lam"):
        shutil.copytree(original / name, here / name)
    with Store.open(here / "s.zarr", "a") as store:
        store.link_model("lam", store.models["lam"], here / "lam")
    capsys.readouterr()
    return here


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def run_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_training_leaves_a_labelled_store_and_a_palette(made: Path) -> None:
    lam, palette = load_lam(Path("lam")), load_palette(Path("lam/palette"))
    assert palette.lam == lam.id
    assert len(palette) == 8
    assert lam.config.tokenizer == TOKENIZER
    with Store.open("s.zarr") as store:
        assert store.models["lam"] == lam.id
        assert store.family("actions") == [lam.id[:12]]
        assert len(read_actions(store, lam.id[:12]).index) == 2 * sum(BARS)
        assert check(store, deep=True) == []
    metrics = [json.loads(line) for line in lines(Path("lam/run/metrics.jsonl").read_text("utf-8"))]
    assert [m["step"] for m in metrics] == [1, 2]
    assert {"loss/flow", "perplexity", "valid/gain_db", "valid/utilisation"} <= set(metrics[-1])


@pytest.mark.parametrize(
    ("words", "numbers", "bottleneck"),
    [
        (["--bottleneck", "vq", "--input", "mel", "--mapping"], 1, "vq"),
        (["--bottleneck", "fsq", "--actions", "256"], 1, "fsq"),
        (["--bottleneck", "residual-fsq", "--bars-per-action", "2"], 3, "residual-fsq"),
        (["--preset", "1024-2-10"], 10, "style"),
    ],
)
def test_every_bottleneck(
    made: Path, words: list[str], numbers: int, bottleneck: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["train-lam", "bare.zarr", "-o", "m", *QUICK, *words]) == 0
    captured = capsys.readouterr()
    assert captured.out == "bare.zarr\n"
    assert "step 2/2" in captured.err
    with Store.open("bare.zarr") as store:
        layer = store.need(f"actions/{store.models['lam'][:12]}")
        assert (layer.spec.facts["numbers"], layer.spec.facts["bottleneck"]) == (
            numbers, bottleneck)  # fmt: skip
        assert check(store, deep=True) == []
    assert 1 <= len(load_palette(Path("m/palette"))) <= 64
    assert main(["actions", "bare.zarr"]) == 0
    assert main(["info", "bare.zarr"]) == 0
    assert bottleneck in capsys.readouterr().out


def test_actions_lists_the_palette(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["actions", "s.zarr"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "s.zarr\n"
    assert "0 songs labelled" in captured.err
    assert re.search(r"song 0:[0-9]+", captured.err)  # names of songs, not their ids
    figures = run_json(["actions", "s.zarr"], capsys)["stores"][0]
    assert figures["bars"] == sum(BARS)
    assert [row["action"] for row in figures["actions"]] == list(range(8))
    palette = load_palette(Path("lam/palette"))
    assert [row["name"] for row in figures["actions"]] == [row.name for row in palette.rows]
    assert [row["uses"] for row in figures["actions"]] == [row.uses for row in palette.rows]


def test_a_store_that_is_not_labelled_is(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_json(["actions", "bare.zarr", "--lam", "lam"], capsys)["stores"][0]
    assert figures["done"] == 3
    with Store.open("bare.zarr") as store, Store.open("s.zarr") as other:
        assert store.models["lam"] == figures["lam"]
        one, two = (read_actions(s, figures["lam"][:12]).index for s in (store, other))
        assert (one == two).all()
    again = run_json(["actions", "bare.zarr"], capsys)["stores"][0]
    assert (again["done"], again["palette"]) == (0, figures["palette"])


def test_labelling_goes_on_where_it_was_stopped(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    label, calls = LatentActionModel.label, []

    def interrupted(self: LatentActionModel, *words: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:  # a song has two copies here
            raise KeyboardInterrupt
        return label(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(LatentActionModel, "label", interrupted)
        assert main(["actions", "bare.zarr", "--lam", "lam"]) == 130
    with Store.open("bare.zarr") as store:
        assert store.need(f"actions/{store.family('actions')[0]}").length() == 2
        assert check(store, deep=True) == []
    capsys.readouterr()
    assert run_json(["actions", "bare.zarr", "--lam", "lam"], capsys)["stores"][0]["done"] == 2


def test_curating(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in Path("lam/palette").iterdir()}
    assert main(["actions", "s.zarr", "--curate", "5,1-2", "-o", "mine"]) == 0
    whole, mine = load_palette(Path("lam/palette")), load_palette(Path("mine"))
    assert mine.parent == whole.id != mine.id
    assert [whole.rows[i].uses for i in (5, 1, 2)] == [row.uses for row in mine.rows]
    assert {p: p.read_bytes() for p in Path("lam/palette").iterdir()} == before
    capsys.readouterr()
    figures = run_json(["actions", "s.zarr", "--palette", "mine"], capsys)["stores"][0]
    assert figures["palette"] == mine.id
    assert len(figures["actions"]) == 3
    assert main(["actions", "s.zarr", "--count", "2", "-o", "two"]) == 0
    assert len(load_palette(Path("two"))) == 2


def test_training_goes_on_and_nothing_is_lost(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in Path("lam").rglob("*.safetensors")}
    refused = [
        (["-o", "lam", *QUICK, *STYLES, "--lr", "1"], "begun with other settings"),
        (["-o", "lam", *QUICK, *STYLES, "--no-resume"], "--force drops it"),
        (["-o", "s.zarr", *QUICK], "is no lam"),
        (["-o", "t", *QUICK, "--bottleneck", "fsq", "--actions", "65"], "no levels for 65"),
        (["-o", "t", *QUICK, "--bottleneck", "vq", "--top-k", "2"], "are for styles"),
        (["-o", "t", *QUICK, "--bars", "16"], "bars on end"),
    ]
    for words, message in refused:
        assert main(["train-lam", "s.zarr", *words]) in (1, 2), words
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in lines(captured.err)[-1]
    assert {p: p.read_bytes() for p in Path("lam").rglob("*.safetensors")} == before
    assert not Path("t").exists()
    more = ["train-lam", "s.zarr", "-o", "lam", *QUICK, *STYLES, "--steps", "3"]
    figures = run_json(more, capsys)
    assert (figures["paths"], figures["step"]) == (["s.zarr"], 3)
    with Store.open("s.zarr") as store:
        assert store.models["lam"] == figures["id"]
        assert store.model_path("lam") == Path("lam").absolute()
        assert len(store.family("actions")) == 2
    assert main(more) == 0  # done already


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["actions", "gone.zarr"], 1, "not found"),
        (["actions", "bare.zarr"], 1, "mgen tokenize"),  # what ships knows other latents
        (["actions", "s.zarr", "--lam", "gone"], 1, "gone"),
        (["actions", "s.zarr", "--palette", "gone"], 1, "gone"),
        (["actions", "s.zarr", "--palette", "lam"], 1, "not a palette"),
        (["actions", "s.zarr", "--curate", "3"], 2, "-o PALETTE"),
        (["actions", "s.zarr", "-o", "p"], 2, "-o PALETTE"),
        (["actions", "s.zarr", "--curate", "3", "--count", "2", "-o", "p"], 2, "one of them"),
        (["actions", "s.zarr", "--curate", "8", "-o", "p"], 2, "no action 8"),
        (["actions", "s.zarr", "--curate", "a", "-o", "p"], 2, "no number"),
        (["actions", "s.zarr", "--curate", "1", "-o", "lam"], 1, "exists"),
        (["train-lam", "s.zarr"], 2, "--out"),
        (["train-lam", "s.zarr", "-o", "t", "--preset", "9"], 2, "9"),
    ],
)
def test_refusals_are_one_line(
    made: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(lines(captured.err)) == 1
    assert message in captured.err
    assert not Path("p").exists()
    assert not Path("t").exists()


@pytest.mark.usefixtures("no_model_ships")
def test_where_no_model_ships_one_is_asked_for(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["actions", "bare.zarr"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(lines(captured.err)) == 1
    assert "mgen train-lam" in captured.err


def test_a_model_that_moved_is_asked_for(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lam").rename("renamed")
    assert main(["actions", "s.zarr"]) == 1
    assert "--lam MODEL" in capsys.readouterr().err
    assert main(["actions", "s.zarr", "--lam", "renamed"]) == 0


def test_info_and_check_know_models(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = run_json(["info", "lam"], capsys)
    lam, palette = load_lam(Path("lam")), load_palette(Path("lam/palette"))
    assert (about["kind"], about["model"], about["id"]) == ("model", "lam", lam.id)
    assert about["weights"] == sum(x.numel() for x in lam.network.state_dict().values())
    assert (about["palette"], about["actions"]) == (palette.id, 8)
    assert [row["name"] for row in about["rows"]] == [row.name for row in palette.rows]
    assert main(["info", "lam", "--limit", "2"]) == 0
    assert "bottleneck: style" in capsys.readouterr().out
    assert main(["info", "lam/palette"]) == 0
    assert main(["info", "lam", "--plot", "x.png"]) == 2
    assert main(["check", "lam"]) == 0
    (file,) = Path("lam/palette").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    capsys.readouterr()
    assert main(["check", "lam"]) == 1
    assert "damaged" in capsys.readouterr().out
    Path("plain").mkdir()
    assert main(["info", "plain"]) == 1
    (Path("plain") / "config.json").write_text("{}", "utf-8")
    assert main(["info", "plain"]) == 1
    assert "no model of mgen" in capsys.readouterr().err
