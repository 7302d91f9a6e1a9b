"""`mgen filter`, `segment-bars`, `info`, `check`: what they print, refuse, and never lose."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mgen.cli import options
from mgen.cli.app import main
from mgen.core.beatmap.chart import BeatMap, Chart, Difficulty, Note
from mgen.core.beatmap.formats import write_map
from mgen.core.errors import StoreError
from mgen.core.store import Store, check
from mgen.core.store.layer import Layer

MakeSong = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("here")

ALL = ("--threshold", "0")  # clicks and noise are no music


@pytest.fixture
def song(make_song: MakeSong) -> Path:
    return make_song("a söng.wav", duration_s=6)


@pytest.fixture
def segmented(song: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["filter", *ALL, str(song)]) == 0
    assert main(["segment-bars", "--bpm", "120", "-j", "1"]) == 0
    capsys.readouterr()
    return Path("mgen.zarr")


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


# filter


def test_filter_prints_the_store_and_nothing_else(
    song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", *ALL, str(song)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "mgen.zarr\n"
    assert "1 songs added" in captured.err
    assert main(["filter", *ALL, str(song), "-o", "späce d.zarr", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["paths"] == ["späce d.zarr"]
    assert (result["added"], result["kept"], result["refused"]) == (1, 1, [])
    assert result["songs"][0]["seconds"] == 6.0


def test_filter_does_the_rest_and_exits_1(
    song: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.wav").write_text("words")
    assert main(["filter", *ALL, "text.wav", "gone.wav", str(song), "--json", "-j", "1"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["added"] == 1
    assert {r["path"] for r in result["refused"]} == {"text.wav", "gone.wav"}
    for name in ("text.wav", "gone.wav"):
        assert sum(line.startswith(f"mgen: warning: {name}: ") for line in lines(captured.err)) == 1


@pytest.mark.parametrize("what", ["missing", "folder", "silence"])
def test_filter_with_nothing_to_keep(
    what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    soundfile.write("silence", np.zeros(40000), 16000, format="WAV")
    assert main(["filter", *ALL, what]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert lines(captured.err)[-1].startswith("mgen: ")
    assert Path("mgen.zarr").exists() == (what == "silence")


def test_two_seconds_of_noise(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write("noise.wav", np.random.default_rng(0).uniform(-1, 1, 32000), 16000)
    assert main(["filter", *ALL, "noise.wav"]) == 0
    assert main(["segment-bars"]) == 0
    assert main(["check", "--deep"]) == 0


@pytest.mark.parametrize("kind", ["folder", "file", "newer", "damaged"])
def test_filter_never_writes_over_what_is_no_store(
    kind: str, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path("out.zarr")
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        about = {"attributes": {"mgen": {"format": 99, "kind": "store"}}, "zarr_format": 3,
                 "node_type": "group"}  # fmt: skip
        text = {"folder": "mine", "newer": json.dumps(about), "damaged": "{"}[kind]
        (out / ("mine.txt" if kind == "folder" else "zarr.json")).write_text(text)
    before = {p: p.read_bytes() for p in [out, *out.rglob("*")] if p.is_file()}
    for force in ([], ["--force"]):
        assert main(["filter", *ALL, str(song), "-o", "out.zarr", *force]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(lines(captured.err)) == 1
        assert "out.zarr" in captured.err
    assert {p: p.read_bytes() for p in [out, *out.rglob("*")] if p.is_file()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_filter_into_a_read_only_folder(
    song: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("locked").mkdir(mode=0o500)
    assert main(["filter", *ALL, str(song), "-o", "locked/s.zarr"]) == 1
    assert "permission denied" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written_is_one_line(
    song: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["filter", *ALL, str(song), "-o", "x/s.zarr"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert lines(captured.err) == [
        "mgen: x/s.zarr: permission denied; choose another place with -o, or change its permissions"
    ]


def test_a_full_disk_keeps_what_is_published(
    make_song: MakeSong, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [str(make_song(f"{i}.wav", bpm=90 + i, duration_s=3)) for i in range(3)]
    append, calls = Layer.append_blocks, []

    def full(self: Layer, *args: Any) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Layer, "append_blocks", full)
        assert main(["filter", *ALL, *songs, "-j", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert lines(captured.err)[-1] == (
        "mgen: mgen.zarr: no space left on device; free some space and run the same command again"
    )
    with Store.open("mgen.zarr") as store:
        assert [s.name for s in store.songs()] == ["0"]
        assert check(store, deep=True) == []
    assert main(["filter", *ALL, *songs, "-j", "1"]) == 0
    assert "2 songs added, 1 known" in capsys.readouterr().err


def test_a_limit_on_file_size_is_one_line_too(
    make_song: MakeSong, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    song = make_song("long.wav", duration_s=60)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        code = main(["filter", *ALL, str(song)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "")
    assert "file too large" in lines(captured.err)[-1]
    assert not list(here.glob(".*spool*"))
    assert main(["filter", *ALL, str(song)]) == 0


# segment-bars


def test_segment_bars_takes_the_store_from_a_pipe(
    song: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", *ALL, str(song), "-o", "s.zarr"]) == 0
    monkeypatch.setattr(options, "stdin_is_pipe", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(capsys.readouterr().out))
    assert main(["segment-bars", "--bpm", "120"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "s.zarr\n"
    assert "1 songs segmented" in captured.err


def test_segment_bars_json(segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment-bars", str(segmented), "--bpm", "120", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["done"], result["known"], result["failed"]) == (0, 1, [])
    assert result["songs"][0]["bpm"] == 120.0
    assert result["bars"] == result["songs"][0]["bars"] == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--bpm", "0"], 2, "0 BPM"),
        (["--bpm", "90"], 1, "--force"),
        (["--offset", "1"], 2, "--bpm"),
        (["--tracker", "ears"], 2, "ears"),
        (["--beats", "gone.tsv"], 1, "gone.tsv: not found"),
        (["--jitter", "-1"], 2, "jitter"),
    ],
)
def test_segment_bars_refuses(
    segmented: Path, words: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["segment-bars", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(lines(captured.err)) == 1
    assert message in captured.err
    assert main(["check", "--deep"]) == 0


def test_a_second_writer_waits_its_turn(
    segmented: Path, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(segmented, "a"):
        assert main(["segment-bars", "--bpm", "120"]) == 1
        assert "another process is writing" in capsys.readouterr().err
        assert main(["info"]) == 0


# info and check


def test_info_of_a_store(segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mgen.zarr: store; format 1, songs 1, kept 1, minutes 0.1\n")
    assert "a söng" in out
    assert "120" in out
    assert "\x1b" not in out
    assert main(["info", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["kind"], about["songs"]) == ("store", 1)
    assert about["layers"]["beats"]["settings"] == {"bpm": 120.0, "offset_s": 0.0}
    assert about["layers"]["bars"]["stale"] == ""
    assert about["rows"][0]["bars"] == 3
    assert 0 <= about["rows"][0]["quality"] <= 1


def test_info_lists_as_many_songs_as_asked(
    make_song: MakeSong, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(make_song(f"{i}.wav", bpm=90 + i, duration_s=2)) for i in range(3)]
    assert main(["filter", *ALL, *names, "-j", "1"]) == 0
    capsys.readouterr()
    assert main(["info", "--limit", "2"]) == 0
    assert "and 1 songs more" in capsys.readouterr().out


def test_info_of_a_song(make_song: MakeSong, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(make_song("x.flac", bpm=120, duration_s=12)), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["kind"], about["rate"], about["seconds"]) == ("song", 16000, 12.0)
    assert abs(about["bpm"] - 120) < 1
    assert about["rows"][0]["bar"] == 1


def test_info_and_check_of_a_map(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tuple(
        Note(beat=8.0 + i, column=1 + i % 2, row=0, colour=i % 2, direction=(1, 1, 0, 0)[i % 4])
        for i in range(16)
    )
    chart = Chart(difficulty=Difficulty.HARD, njs=14.0, notes=notes)
    level = BeatMap(title="A söng", bpm=120.0, charts=(chart,))
    write_map(Path("map.zip"), level)
    assert main(["info", "map.zip", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["kind"], about["title"], about["bpm"]) == ("map", "A söng", 120.0)
    (row,) = about["rows"]
    assert (row["difficulty"], row["notes"], row["njs"]) == ("Hard", 16, 14.0)
    assert row["nps"] == round(16 / 7.5, 2)
    assert main(["check", "map.zip", "--json"]) == 1  # no song, no cover
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert any(f["severity"] == "error" for f in findings)


@pytest.mark.parametrize("command", ["info", "check"])
def test_what_is_neither_store_nor_map(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("x")
    Path("folder").mkdir()
    for name in ("notes.txt", "folder", "gone.zarr"):
        assert main([command, name]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"mgen: {name}: ")
        assert len(lines(captured.err)) == 1


def test_check_lists_what_is_wrong(segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(segmented), "--deep"]) == 0
    assert capsys.readouterr().out == ""
    (segmented / "bars" / "pcm" / "c" / "0" / "0").unlink()
    assert main(["check", str(segmented)]) == 1
    assert "mgen.zarr: bars: pcm" in capsys.readouterr().out
    assert main(["check", str(segmented), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["layer"] == "bars"


def test_a_corrupt_store_is_one_line(segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (segmented / "songs" / "zarr.json").write_text("{")
    for command in ("info", "segment-bars"):
        assert main([command, str(segmented)]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(lines(captured.err)) == 1
        assert "damaged at songs/zarr.json" in captured.err


# the shell


def mgen(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'mgen() {{ "{sys.executable}" -m mgen "$@"; }}; set -o pipefail; {script}'],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_while_loop_keeps_its_list_and_stdin_may_be_closed(
    make_song: MakeSong, here: Path
) -> None:
    names = [str(make_song(f"sóng {i}.wav", bpm=90 + i, duration_s=2)) for i in range(2)]
    (here / "list").write_text("\n".join(names) + "\n")
    run = mgen(
        'while read f; do mgen filter --threshold 0 "$f" -o s.zarr; done < list;'
        " mgen segment-bars s.zarr --bpm 120 -j 1 <&- | mgen info --json",
        here,
    )
    assert run.returncode == 0, run.stderr
    out = lines(run.stdout)
    assert out[:2] == ["s.zarr", "s.zarr"]
    about = json.loads(out[2])
    assert about["songs"] == 2
    assert all(row["bars"] for row in about["rows"])


def test_ctrl_c_is_130_and_the_same_command_goes_on(make_song: MakeSong, here: Path) -> None:
    names = [str(make_song(f"{i}.wav", bpm=70 + i, duration_s=30)) for i in range(30)]
    command = [sys.executable, "-m", "mgen", "filter", *ALL, *names, "-o", "s.zarr", "-j", "1"]
    run = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and run.poll() is None:
        try:
            with Store.open(here / "s.zarr") as store:
                if store.songs():
                    break
        except (StoreError, FileNotFoundError):
            pass
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    if run.returncode == 0:
        pytest.skip("the machine was too fast to be interrupted")
    assert (run.returncode, out) == (130, b"")
    assert err.decode().strip() == (
        "mgen: interrupted; the same command goes on where this one stopped"
    )
    assert not list(here.glob(".*"))
    with Store.open(here / "s.zarr") as store:
        assert 1 <= len(store.songs()) < 30
        assert check(store, deep=True) == []
    assert main(["filter", *ALL, *names, "-o", "s.zarr", "-j", "1"]) == 0
    with Store.open(here / "s.zarr") as store:
        assert len(store.songs()) == 30
