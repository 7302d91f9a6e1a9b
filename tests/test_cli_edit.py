"""`mgen edit`: from the words that are typed to files, takes and pictures; and refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edit_songs import NoiseWriter, cached, fill_store, native, write_song

from mgen.cli import edit as command
from mgen.cli.app import main
from mgen.core.store import Store, Takes, check

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a song of three bars, its store, and one with two songs."""
    folder = tmp_path_factory.mktemp("edit")
    song = write_song(folder / "song.flac", 6.6, 22050, 2, subtype="PCM_16")
    cached(song).close()
    other = write_song(folder / "other.wav", 4.6, seed=1)
    with Store.create(folder / "two.zarr") as store:
        fill_store(store, song, other)
    return folder


@pytest.fixture
def made(
    original: Path, here: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[NoiseWriter]:  # fmt: skip
    """The same here, and the writers that were made."""
    shutil.copytree(original, here, dirs_exist_ok=True)
    writers: list[NoiseWriter] = []

    def load(store: Store | None, models: object) -> NoiseWriter:
        writers.append(NoiseWriter())
        return writers[-1]

    monkeypatch.delenv("MGEN_CACHE", raising=False)
    monkeypatch.setattr(command, "load_writer", load)
    capsys.readouterr()
    return writers


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def run_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_edit_prints_its_file(
    made: list[NoiseWriter], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["edit", "song.flac", "--bars", "2", "--action", "17:0.6,42:0.4", "--strength", "0.5"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out == "song.edit-1.flac\n"
    assert "take 1: bars 2, 2.00 s, written" in captured.err
    asked = made[0].asked[0]
    assert [(s.action, s.weight) for s in asked.action] == [(17, 0.6), (42, 0.4)]
    assert (asked.strength, asked.seed, asked.edited.tolist()) == (0.5, 0, [1])
    old, new = native(Path("song.flac"), "int16"), native(Path("song.edit-1.flac"), "int16")
    inside = slice(round(2.25 * 22050), round(4.25 * 22050))
    changed = (new != old).any(axis=1)
    assert not changed[: inside.start].any()
    assert not changed[inside.stop :].any()
    figures = run_json(words, capsys)
    assert figures["paths"] == ["song.edit-1.flac"]
    (take,) = figures["takes"]
    assert (take["take"], take["known"], take["written"], take["bars"]) == (1, True, False, "2")
    assert len(made[1].asked) == 0
    fresh = run_json([*words, "--seed", "1"], capsys)["takes"][0]
    assert (fresh["outside"], fresh["samples"]) == (0, len(old))
    assert fresh["spans_s"] == [pytest.approx([2.25, 4.25], abs=1e-4)]
    assert fresh["changed"] == pytest.approx(changed.sum(), rel=0.02)


def test_takes_are_listed_written_again_and_undone(
    made: list[NoiseWriter], capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["edit", "song.flac"]
    assert main([*base, "--list"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*base, "--bars", "1", "--action", "3", "--takes", "2"]) == 0
    assert lines(capsys.readouterr().out) == ["song.edit-1.flac", "song.edit-2.flac"]
    assert main([*base, "--bars", "3", "--action", "4", "--on", "head"]) == 0
    assert lines(capsys.readouterr().out) == ["song.edit-3.flac"]
    assert main([*base, "--list"]) == 0
    listed = lines(capsys.readouterr().out)
    assert [line.split(":")[0].strip() for line in listed] == ["1", "2", "* 3"]
    assert "bars 3, action 4, strength 1, seed 0.1, on 2" in listed[2]
    rows = run_json([*base, "--list"], capsys)
    assert (rows["head"], [r["candidate"] for r in rows["takes"]]) == (3, [1, 2, 1])
    Path("song.edit-2.flac").unlink()
    assert main([*base, "--undo"]) == 0
    assert capsys.readouterr().out == "song.edit-2.flac\n"
    assert Path("song.edit-2.flac").exists()
    assert main([*base, "--take", "1", "-o", "again.wav"]) == 0
    assert capsys.readouterr().out == "again.wav\n"
    same = (native(Path(p), "int16") for p in ("again.wav", "song.edit-1.flac"))
    assert np.array_equal(*same)
    assert main([*base, "--undo"]) == 0
    assert capsys.readouterr().out == "song.flac\n"
    assert main([*base, "--undo"]) == 2
    assert "nothing to undo" in capsys.readouterr().err
    assert main(["check", "song.mgen.zarr", "--deep"]) == 0


def test_takes_are_listed_and_undone_without_torch(made: list[NoiseWriter]) -> None:
    """Which takes two seconds to import."""
    assert main(["edit", "song.flac", "--bars", "1", "--action", "3"]) == 0
    code = (
        "import sys; from mgen.cli.app import main; code = main(sys.argv[1:])\n"
        "print(code, 'torch' in sys.modules)"
    )
    for word in ("--list", "--take=1", "--undo"):
        words = [sys.executable, "-c", code, "edit", "song.flac", word, "--force"]
        run = subprocess.run(words, capture_output=True, text=True, check=True)
        assert run.stdout.splitlines()[-1] == "0 False"


def test_every_so_many_bars_append_and_like(
    made: list[NoiseWriter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["edit", "song.flac", "--every", "2", "--first", "1", "--action", "5"]) == 0
    assert made[-1].asked[0].edited.tolist() == [0, 2]
    cached(Path("other.wav")).close()
    words = ["edit", "song.flac", "--append", "1", "--like", "other.wav:1-2", "--guidance", "2"]
    assert main([*words, "--depth", "2"]) == 0
    asked = made[-1].asked[0]
    assert asked.like is not None
    assert asked.like.song.name == "other"
    assert asked.like.bars.index.tolist() == [0, 1]
    assert (asked.guidance, asked.depth, asked.action) == (2.0, 2, ())
    assert asked.bars.row[asked.edited].tolist() == [-1]
    assert main(["edit", "song.flac", "--bars", "2", "--like", "song.flac:3"]) == 0
    clip = made[-1].asked[0].like
    assert clip is not None
    assert clip.song.name == "song"


def test_a_store_and_the_environment(
    made: list[NoiseWriter], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--bars", "1", "--action", "17"]
    assert main(["edit", "two.zarr", *words]) == 2
    assert "holds 2 songs (song, other); say which with --song" in capsys.readouterr().err
    assert main(["edit", "two.zarr", "--song", "other", *words, "-o", "x.wav"]) == 0
    assert capsys.readouterr().out == "x.wav\n"
    monkeypatch.setenv("MGEN_STORE", "two.zarr")
    assert main(["edit", "--song", "song", *words, "-o", "y.flac"]) == 0
    assert native(Path("y.flac"), "int16").shape == native(Path("song.flac"), "int16").shape
    with Store.open("two.zarr") as store:
        takes = Takes(store)
        assert [takes.numbers(store.song(i)) for i in range(2)] == [[2], [1]]
        assert check(store, deep=True) == []
    shutil.rmtree("two.zarr/bars")
    assert main(["edit", "--song", "song", *words]) == 1
    assert "run `mgen segment-bars` first" in capsys.readouterr().err


@pytest.mark.usefixtures("no_model_ships")
def test_strength_0_needs_no_models(
    original: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(original, here, dirs_exist_ok=True)
    assert main(["edit", "song.flac", "--bars", "1-3", "--strength", "0"]) == 0
    same = (native(Path(p), "int16") for p in ("song.flac", "song.edit-1.flac"))
    assert np.array_equal(*same)
    before = sorted(p.name for p in here.iterdir())
    capsys.readouterr()
    for song in ("song.flac", "other.wav"):
        assert main(["edit", song, "--bars", "1", "--action", "17"]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (said,) = lines(captured.err)
        assert "no dynamics model ships with this mgen; make one with `mgen train-dynamics`" in said
    assert sorted(p.name for p in here.iterdir()) == before  # nothing was made for nothing


def test_a_song_that_has_no_store_gets_one(
    made: list[NoiseWriter], capsys: pytest.CaptureFixture[str]
) -> None:
    write_song(Path("new.wav"), 9.0, 16000)
    assert main(["edit", "new.wav", "--bars", "2", "--action", "1", "--force"]) == 0
    assert capsys.readouterr().out == "new.edit-1.wav\n"
    with Store.open("new.mgen.zarr") as store:
        assert len(store.bars(0)) >= 3
        assert Takes(store).numbers() == [1]


def test_a_picture_of_before_and_after(
    made: list[NoiseWriter], capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    words = ["edit", "song.flac", "--bars", "2", "--action", "17"]
    assert main([*words, "--plot", "edit.png"]) == 0
    with Image.open("edit.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[0] > 300
    assert pixels.std() > 20
    assert main([*words, "--plot", "edit.png"]) == 1
    assert "edit.png: exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["song.flac"], 2, "which bars? give --bars, --every or --append"),
        (["song.flac", "--bars", "1"], 2, "give --action 17, or --like other.wav:5-8"),
        (["song.flac", "--bars", "9", "--action", "1"], 2, "the song has bars 1-3"),
        (["song.flac", "--bars", "x", "--action", "1"], 2, "'x' is no bar"),
        (["song.flac", "--bars", "1", "--every", "2", "--action", "1"], 2, "exclude each other"),
        (["song.flac", "--bars", "1", "--first", "2", "--action", "1"], 2, "--every"),
        (["song.flac", "--bars", "1", "--action", "64"], 2, "it has 0-63"),
        (["song.flac", "--bars", "1", "--action", "loud"], 2, "is no action"),
        (["song.flac", "--bars", "1", "--action", "1", "--strength", "2"], 2, "give 0 to 1"),
        (["song.flac", "--bars", "1", "--action", "1", "--takes", "0"], 2, "--takes 0"),
        (["song.flac", "--bars", "1", "--action", "1", "--like", "o.wav:1"], 2, "exclude"),
        (["song.flac", "--bars", "1", "--like", "o.wav:1"], 1, "o.wav: not found"),
        (["song.flac", "--bars", "1", "--like", "o.wav"], 2, "name a file and its bars"),
        (["song.flac", "--bars", "1", "--action", "1", "--on", "5"], 2, "no take 5"),
        (["song.flac", "--bars", "1", "--action", "1", "--on", "x"], 2, "or head"),
        (["song.flac", "--bars", "1", "--action", "1", "-o", "x.mp3"], 2, "--lossy"),
        (["song.flac", "--bars", "1", "--action", "1", "-o", "song.flac"], 2, "the source"),
        (["song.flac", "--bars", "1", "--action", "1", "--plot", "x.jpg"], 2, "PNG"),
        (["song.flac", "--take", "3"], 2, "no take 3"),
        (["song.flac", "--take", "3", "--undo"], 2, "exclude each other"),
        (["song.flac", "--list", "--bars", "1"], 2, "make no edit"),
        (["song.flac", "--song", "a", "--bars", "1", "--action", "1"], 2, "are for stores"),
        (["other.wav", "--list"], 2, "has no takes yet"),
        (["gone.wav", "--bars", "1", "--action", "1"], 1, "gone.wav: not found"),
        (["two.zarr", "--song", "waltz", "--bars", "1", "--action", "1"], 1, "no song is called"),
    ],
)
def test_refusals_are_one_line(
    made: list[NoiseWriter], words: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["edit", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(lines(captured.err)) == 1
    assert message in captured.err
    assert not list(Path().glob("*.edit-*"))
