"""`mgen train-tokenizer`, `tokenize`, `decode`: from songs to latents and back, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import click_track

from mgen.cli.app import main
from mgen.core.corpus import Segmentation, filter_songs, segment_songs
from mgen.core.store import Store, check
from mgen.core.tokenizer import Tokenizer, load_tokenizer
from mgen.core.tokenizer import config as tokenizer_config
from mgen.core.tokenizer.passes import latents_id

pytestmark = pytest.mark.usefixtures("here", "tiny")

TINY = {
    ("spectral", "small"): {
        "encoder": 8, "encoder_depth": 1, "guide": 8, "guide_depth": 1, "decoder": 8,
        "decoder_depth": 1, "condition": 8,
    },
    ("perceiver", "small"): {
        "patch": 128, "hidden": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1,
    },
}  # fmt: skip
QUICK = ("--steps", "1", "--batch", "2", "--device", "cpu", "--compile", "off")
LENGTHS_S = (5, 7)


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_config, "_SIZES", TINY)
        yield


@pytest.fixture(scope="module")
def original(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two songs at 120 BPM (a bar is 2 s), their store, and a tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for i, seconds in enumerate(LENGTHS_S):
        clicks = click_track(120, seconds, 44100, offset_s=0.25)
        soundfile.write(folder / f"{i}.wav", np.stack([clicks, 0.5 * clicks], axis=1), 44100)
    with Store.create(folder / "s.zarr") as store:
        list(filter_songs(store, [folder / f"{i}.wav" for i in range(2)]))
        list(segment_songs(store, Segmentation(bpm=120, offset_s=0.25, jitter=1)))
    assert main(["train-tokenizer", str(folder / "s.zarr"), "-o", str(folder / "tok"), *QUICK]) == 0
    return folder


@pytest.fixture
def made(original: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same here: `s.zarr` and `tok`."""
    shutil.copytree(original / "s.zarr", here / "s.zarr")
    shutil.copytree(original / "tok", here / "tok")
    capsys.readouterr()
    return here


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def run_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_from_songs_to_latents_and_back(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenize", "s.zarr"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "s.zarr\n"
    assert "2 songs tokenized, 0 known" in captured.err
    again = run_json(["tokenize", "s.zarr"], capsys)["stores"][0]
    assert (again["done"], again["known"]) == (0, 2)
    with Store.open("s.zarr") as store:
        (one,) = store.family("latents")
        rows = store.bars(jittered=True)
        assert store.latents(one).shape == (len(rows), 64, 16)
        assert len(rows) == again["items"] == 2 * len(store.bars())
        assert check(store, deep=True) == []
        edges = [(round(b.start_s[0] * 16000), round(b.end_s[-1] * 16000)) for b in
                 (store.bars(i) for i in range(2))]  # fmt: skip
        own = [store.song_pcm(i)[:] for i in range(2)]
    assert main(["decode", "s.zarr", "-o", "out"]) == 0
    assert capsys.readouterr().out == "out/0.wav\nout/1.wav\n"
    assert main(["decode", "s.zarr", "-o", "full", "--fill"]) == 0
    for i, (begin, end) in enumerate(edges):
        bars, rate = soundfile.read(f"out/{i}.wav", dtype="int16")
        full, _ = soundfile.read(f"full/{i}.wav", dtype="int16")
        assert (len(bars), rate) == (end - begin, 16000)
        assert len(full) == len(own[i]) == LENGTHS_S[i] * 16000
        assert np.array_equal(full[:begin], own[i][:begin])
        assert np.array_equal(full[end:], own[i][end:])
        assert np.array_equal(full[begin + 99 : end - 99], bars[99:-99])
    assert main(["info", "s.zarr"]) == 0
    out = capsys.readouterr().out
    assert f"latents/{one}" in out
    assert "unit bar, tokens 64, dims 16" in out


def test_a_bar_sounds_the_same_whatever_else_is_decoded(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenize", "s.zarr"]) == 0
    for out, words in (("a", []), ("b", ["--song", "1"]), ("c", ["--song", "1", "--seed", "1"]),
                       ("d", ["--song", "1", "--steps", "1"])):  # fmt: skip
        assert main(["decode", "s.zarr", "-o", out, *words]) == 0
    sounds = [Path(out, "1.wav").read_bytes() for out in "abcd"]
    assert sounds[0] == sounds[1]
    assert len({*sounds}) == 3
    assert not Path("b/0.wav").exists()


def test_what_is_there_is_not_replaced(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenize", "s.zarr"]) == 0
    Path("out").mkdir()
    Path("out/1.wav").write_text("mine")
    assert main(["decode", "s.zarr", "-o", "out"]) == 1
    assert "out/1.wav: exists; --force" in capsys.readouterr().err
    assert [p.read_text() for p in Path("out").iterdir()] == ["mine"]
    assert main(["decode", "s.zarr", "-o", "out", "--force"]) == 0
    assert main(["decode", "s.zarr", "-o", "s.zarr/out"]) == 2
    assert "lies in a store" in capsys.readouterr().err


def test_tokenize_goes_on_song_by_song(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shutil.copytree("s.zarr", "whole.zarr")
    assert main(["tokenize", str(whole), "--tokenizer", "tok"]) == 0
    encode, calls = Tokenizer.encode, []

    def interrupted(self: Tokenizer, *words: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:  # a song has one batch here
            raise KeyboardInterrupt
        return encode(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "encode", interrupted)
        assert main(["tokenize", "s.zarr", "--tokenizer", "tok"]) == 130
    with Store.open("s.zarr") as store:
        assert store.need(f"latents/{store.family('latents')[0]}").length() == 1
        assert check(store, deep=True) == []
    capsys.readouterr()
    assert main(["decode", "s.zarr", "-o", "out", "--tokenizer", "tok"]) == 1
    assert "only 1 of 2 songs have latents" in capsys.readouterr().err
    found = run_json(["tokenize", "s.zarr", "--tokenizer", "tok"], capsys)["stores"][0]
    assert (found["done"], found["known"]) == (1, 1)
    one, other = (
        {
            p.relative_to(r): p.read_bytes()
            for p in Path(r, "latents").rglob("c/**/*")
            if p.is_file()
        }
        for r in ("s.zarr", "whole.zarr")
    )
    assert one == other


def test_a_model_that_moved_is_asked_for(
    original: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tok").rename("renamed")
    with Store.open("s.zarr", "a") as store:
        store.link_model("tokenizer", store.models["tokenizer"], Path("tok"))
    for command in (["tokenize"], ["decode", "-o", "out"]):
        assert main([*command, "s.zarr"]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(lines(captured.err)) == 1
        assert "--tokenizer MODEL" in captured.err
    assert main(["tokenize", "s.zarr", "--tokenizer", "renamed"]) == 0
    shutil.rmtree("renamed")
    with Store.open("s.zarr") as store:  # latents need no model to be read
        assert store.latents(store.family("latents")[0]).any()


def test_another_model_in_its_place_is_noticed(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenize", "s.zarr", "--tokenizer", "tok"]) == 0
    assert main(["train-tokenizer", "s.zarr", "-o", "new", *QUICK, "--seed", "1"]) == 0
    shutil.rmtree("tok")
    Path("new").rename("tok")
    with Store.open("s.zarr", "a") as store:
        store.link_model("tokenizer", "0" * 64, Path("tok"))
    capsys.readouterr()
    assert main(["tokenize", "s.zarr"]) == 1
    assert "its tokenizer is 000000000000, but" in capsys.readouterr().err
    assert main(["decode", "s.zarr", "-o", "out", "--tokenizer", "tok"]) == 1
    assert "holds no latents by the tokenizer" in capsys.readouterr().err
    assert main(["tokenize", "s.zarr", "--tokenizer", "tok"]) == 0
    with Store.open("s.zarr") as store:
        assert len(store.family("latents")) == 2
    assert main(["check", "s.zarr", "--deep"]) == 0


def test_training_goes_on_and_nothing_is_lost(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in Path("tok").glob("*.*")}
    refused = [
        (["-o", "tok", *QUICK, "--lr", "1"], "begun with other settings"),
        (["-o", "tok", *QUICK, "--no-resume"], "--force drops it"),
        (["-o", "s.zarr", *QUICK], "is no tokenizer"),
        (["-o", "t", *QUICK, "--batch", "0"], "batch"),
        (["-o", "t", *QUICK, "--rate", "44100"], "preset of seconds"),
    ]
    for words, message in refused:
        assert main(["train-tokenizer", "s.zarr", *words]) in (1, 2)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in lines(captured.err)[-1]
    assert {p: p.read_bytes() for p in Path("tok").glob("*.*")} == before
    more = ["train-tokenizer", "s.zarr", "-o", "tok", *QUICK, "--steps", "2"]
    figures = run_json(more, capsys)
    assert (figures["paths"], figures["step"]) == (["s.zarr"], 2)
    assert figures["valid/mel_l1_db"] >= 0
    metrics = Path("tok/run/metrics.jsonl").read_text("utf-8")
    steps = [json.loads(line)["step"] for line in lines(metrics)]
    assert steps == [1, 2]
    latents = Path("tok/run/latents/metrics.jsonl").read_text("utf-8")  # learned once, before
    assert [json.loads(line)["step"] for line in lines(latents)] == [1]
    assert "loss/flow" not in latents
    assert latents_id(load_tokenizer(Path("tok"))) == latents_id(
        load_tokenizer(Path("tok/run/latents/model"))
    )
    capsys.readouterr()
    assert main([*more, "--latent-steps", "3"]) == 2
    assert "they stay as they are" in lines(capsys.readouterr().err)[-1]
    with Store.open("s.zarr") as store:
        assert store.models["tokenizer"] == figures["id"]
        assert store.model_path("tokenizer") == Path("tok").absolute()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["tokenize", "gone.zarr"], 1, "not found"),
        (["tokenize", "s.zarr", "--tokenizer", "gone"], 1, "gone"),
        (["tokenize", "s.zarr", "--tokenizer", "s.zarr"], 1, "s.zarr"),
        (["decode", "s.zarr"], 2, "--out"),
        (["decode", "s.zarr", "-o", "out", "--tokenizer", "tok"], 1, "run `mgen tokenize`"),
        (["decode", "s.zarr", "-o", "out", "--song", "waltz"], 1, "no song is called"),
        (["decode", "s.zarr", "-o", "out", "--steps", "0"], 2, "steps"),
        (["train-tokenizer", "s.zarr"], 2, "--out"),
        (["train-tokenizer", "s.zarr", "-o", "t", "--preset", "9x9"], 2, "9x9"),
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
    assert not Path("out").exists()
    assert not Path("t").exists()


def test_where_no_tokenizer_is_the_cure_is_to_make_one(
    here: Path, real_song: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", str(real_song), "-o", "new.zarr", "--threshold", "0"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("mgen.core.weights.__file__", str(here / "weights.py"))
    assert main(["tokenize", "new.zarr"]) == 1
    assert "`mgen train-tokenizer`" in capsys.readouterr().err


def test_a_store_without_bars(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("s.zarr/bars")
    assert main(["tokenize", "s.zarr", "--tokenizer", "tok"]) == 1
    assert "run `mgen segment-bars` first" in capsys.readouterr().err


def test_seconds_of_stereo_at_44100_hz(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = replace(tokenizer_config.PRESETS["32x16"], seconds=0.5)
    monkeypatch.setattr(tokenizer_config, "PRESETS", {"32x16": shorter})
    words = ["--preset", "32x16", "--rate", "44100", "--channels", "2"]
    assert main(["train-tokenizer", "s.zarr", "-o", "wide", *QUICK, *words]) == 0
    assert main(["tokenize", "s.zarr"]) == 0
    assert main(["decode", "s.zarr", "-o", "out"]) == 0
    for i, seconds in enumerate(LENGTHS_S):
        sound, rate = soundfile.read(f"out/{i}.wav")
        assert (sound.shape, rate) == ((seconds * 44100, 2), 44100)
    assert main(["check", "s.zarr", "--deep"]) == 0
    with Store.open("s.zarr") as store:
        facts = store.need(f"latents/{store.family('latents')[0]}").spec.facts
        assert (facts["unit"], facts["rate"], facts["channels"]) == ("second", 44100, 2)


def test_bars_without_time_warp(made: Path) -> None:
    assert main(["train-tokenizer", "s.zarr", "-o", "own", *QUICK, "--arch", "perceiver"]) == 0
    assert main(["tokenize", "s.zarr"]) == 0
    assert main(["decode", "s.zarr", "-o", "out"]) == 0
    assert not Path("own/run/latents").exists()  # learned through the decoder
    with Store.open("s.zarr") as store:
        for i in range(2):
            table = store.bars(i)
            n = round(table.end_s[-1] * 16000) - round(table.start_s[0] * 16000)
            assert soundfile.info(f"out/{i}.wav").frames == n
