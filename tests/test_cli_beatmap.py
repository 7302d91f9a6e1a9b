"""`mgen beatmap`: what it prints, writes and refuses."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgen.cli import app, options
from mgen.core.beatmap import mapping
from mgen.core.beatmap.chart import BeatMap, Chart, Difficulty, Note
from mgen.core.beatmap.findings import check_map
from mgen.core.beatmap.formats import archive, read_map
from mgen.core.beatmap.mapping import choose_preview
from mgen.core.beatmap.rhythm import Timing
from mgen.core.beatmap.song import Lead, PackedSong

HARD = ["--difficulty", "hard"]


@pytest.fixture(autouse=True)
def _no_store_around(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGEN_STORE", raising=False)
    monkeypatch.setattr(options, "stdin_is_pipe", lambda: False)


@pytest.fixture
def run(capfd) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = app.main(["beatmap", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def _noise(path: Path, seconds: float, level: float = 0.3) -> Path:
    samples = np.random.default_rng(0).uniform(-level, level, int(16000 * seconds))
    soundfile.write(path, samples, 16000)
    return path


def test_a_song_becomes_a_zip_beside_it(make_song, run):
    song = make_song("Ein Lied – 夜.wav", bpm=125.0, duration_s=24.0, offset_s=0.2)
    code, out, err = run(song, *HARD)
    assert code == 0
    assert out == f"{song.with_suffix('.zip')}\n"
    assert "BPM" in err
    assert "confidence" in err
    assert "BeatSaver" in err  # the honest tag
    level = read_map(song.with_suffix(".zip"))
    assert level.title == "Ein Lied – 夜"
    assert "mgen" in level.mapper
    assert [c.difficulty for c in level.charts] == [Difficulty.HARD]
    assert (level.preview_start_s, level.preview_duration_s) != (12, 10)
    assert [f for f in check_map(level) if f.severity == "error"] == []
    assert len(level.charts[0].lights) > 10


def test_notes_stand_where_the_song_clicks(make_song, run):
    song = make_song(bpm=125.0, duration_s=24.0, offset_s=0.2)
    run(song, *HARD)
    level = read_map(song.with_suffix(".zip"))
    samples, rate = soundfile.read(io.BytesIO(level.song), dtype="float32")
    assert (len(samples), rate) == (level.song_samples, level.song_rate)
    clock = level.charts[0].time_map(level.bpm)
    times = np.array([clock.to_seconds(n.beat) for n in level.charts[0].notes])
    assert len(times) > 20
    loud = np.flatnonzero(np.abs(samples) > 0.2) / rate
    starts = loud[np.diff(loud, prepend=-1.0) > 0.2]  # the clicks, as the player hears them
    distance = np.abs(times[:, None] - starts[None, :]).min(axis=1)
    on_beat = np.isclose(distance, 0, atol=0.012)
    assert np.mean(on_beat) > 0.5  # the others stand on quarters of a beat between them
    assert np.abs(distance - np.round(distance / 0.12) * 0.12).max() < 0.02


def test_all_difficulties_and_json(make_song, run):
    song = make_song(bpm=120.0, duration_s=24.0)
    code, out, _ = run(song, "--json", "--bpm", 120, "--offset", 0)
    assert code == 0
    report = json.loads(out)
    assert report["paths"] == [str(song.with_suffix(".zip"))]
    (made,) = report["maps"]
    assert made["bpm"] == 120
    assert made["lead_beats"] == 4
    rows = {r["difficulty"]: r for r in made["difficulties"]}
    assert list(rows) == ["Easy", "Normal", "Hard", "Expert", "ExpertPlus"]
    assert rows["Easy"]["notes"] < rows["ExpertPlus"]["notes"]
    assert all(r["notes"] and r["njs"] and r["lights"] for r in rows.values())
    assert report["failed"] == []


def test_the_same_command_gives_the_same_bytes(make_song, run, tmp_path):
    song = make_song(duration_s=20.0)
    for name in ("a", "b"):
        assert run(song, *HARD, "-o", tmp_path / f"{name}.zip")[0] == 0
    one = (tmp_path / "a.zip").read_bytes()
    assert (tmp_path / "b.zip").read_bytes() == one
    run(song, *HARD, "--seed", 5, "-o", tmp_path / "c.zip")
    assert (tmp_path / "c.zip").read_bytes() != one


def test_v2(make_song, run):
    song = make_song(duration_s=20.0)
    assert run(song, *HARD, "--format", "v2")[0] == 0
    with zipfile.ZipFile(song.with_suffix(".zip")) as z:
        assert json.loads(z.read("HardStandard.dat"))["_version"] == "2.6.0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--difficulty", "hardest"], "choose from easy, normal, hard, expert, expert-plus or all"),
        (["--bpm", "0"], "between 10 and 1000"),
        (["--bpm", "nan"], "between 10 and 1000"),
        (["--format", "v4"], "v3 or v2"),
        (["--rating", "11"], "rating"),
        (["--from", "0:10"], "--keep"),
        (["--keep", "x.zip"], "--from and --to"),
        (["--keep", "x.zip", "--from", "1:2:3:4", "--to", "2"], "no time"),
        (["--keep", "x.zip", "--from", "1", "--to", "2", "--bpm", "99"], "leave --bpm"),
    ],
)
def test_requests_that_make_no_sense(make_song, run, arguments, words):
    song = make_song(duration_s=12.0)
    code, out, err = run(song, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
    assert not song.with_suffix(".zip").exists()


def test_songs_that_cannot_be_mapped(run, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000 * 20), 16000)
    _noise(tmp_path / "short.wav", 2.0)
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("silence.wav", "silent"), ("short.wav", "too short"), ("text.wav", "cannot be read"),
        ("missing.wav", "not found"), ("empty", "no audio"),
    ):  # fmt: skip
        code, out, err = run(tmp_path / name)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert words in err
        assert name in err
    assert list(tmp_path.glob("**/*.zip")) == []


def test_a_taken_name_is_refused_before_any_work(make_song, run, monkeypatch):
    song = make_song()
    taken = song.with_suffix(".zip")
    taken.write_text("mine")

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    with monkeypatch.context() as patched:
        patched.setattr(mapping, "map_song", work)
        code, _, err = run(song)
    assert code == 1
    assert "--force" in err
    assert taken.read_text() == "mine"
    assert run(song, *HARD, "--force")[0] == 0
    assert read_map(taken).charts


def test_a_full_disk_leaves_nothing_behind(make_song, run, monkeypatch, tmp_path):
    song = make_song(duration_s=20.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(archive.os, "fsync", full)
    code, out, err = run(song, *HARD)
    assert (code, out) == (1, "")
    assert "no space left" in err
    assert [p.name for p in tmp_path.iterdir()] == [song.name]


def test_a_folder_that_may_not_be_written(make_song, run, monkeypatch, tmp_path):
    song = make_song()
    if os.geteuid() == 0:  # root may write everywhere: let the system say no
        monkeypatch.setattr(archive.os, "access", lambda *_: False)
    tmp_path.chmod(0o555)
    code, out, err = run(song, *HARD)
    tmp_path.chmod(0o755)
    assert (code, out) == (1, "")
    assert "permission denied" in err
    assert "-o" in err


def test_several_songs_go_into_a_folder_and_one_failure_does_not_stop_the_rest(
    make_song, run, tmp_path
):
    one = make_song("a/one.wav", duration_s=16.0)
    two = make_song("b/two.wav", duration_s=16.0, bpm=150.0)
    bad = _noise(tmp_path / "bad.wav", 1.5)
    code, out, err = run(one, bad, two, *HARD, "-o", tmp_path / "maps")
    assert code == 1
    assert out.splitlines() == [str(tmp_path / "maps" / f"{n}.zip") for n in ("one", "two")]
    assert "bad.wav" in err
    code, out, err = run(one, two, "-o", tmp_path / "x.zip")
    assert (code, out) == (2, "")
    assert "name a folder" in err
    twin = make_song("c/one.wav", duration_s=16.0)
    code, _, err = run(one, twin, "-o", tmp_path / "maps2")
    assert code == 2
    assert "would both become" in err


def test_a_store_through_the_pipe(make_song, run, tmp_path, capfd):
    from mgen.core.store import Store

    make_song("songs/one.wav", duration_s=16.0)
    store = tmp_path / "s.zarr"
    assert app.main(["filter", "--threshold", "0", str(tmp_path / "songs"), "-o", str(store)]) == 0
    assert app.main(["segment-bars", str(store)]) == 0
    code, out, _ = run(store, *HARD, "--seed", 3)
    assert code == 0
    zip_path = tmp_path / "songs" / "one.zip"
    assert out == f"{zip_path}\n"
    (chart,) = read_map(zip_path).charts
    with Store.open(store) as opened:
        (number,) = opened.maps()
        kept = opened.map(number)
    assert (kept.difficulty, kept.seed) == ("Hard", 3)
    assert len(kept.notes) == len(chart.notes)
    (tmp_path / "songs" / "one.wav").write_bytes(b"changed")
    code, _, err = run(store, *HARD, "--force")
    assert code == 1
    assert "changed since" in err


def test_nothing_named_is_a_usage_error_that_names_the_three_ways(run):
    code, _, err = run()
    assert code == 2
    assert "MGEN_STORE" in err


def test_a_part_is_mapped_again_and_the_rest_stays(make_song, run, tmp_path):
    song = make_song(duration_s=40.0)
    first = tmp_path / "first.zip"
    assert run(song, *HARD, "-d", "easy", "--bpm", 120, "--offset", 0, "-o", first)[0] == 0
    second = tmp_path / "second.zip"
    code, out, _ = run(
        "--keep", first, "--from", "0:12", "--to", "0:20", "--seed", 9, "-o", second
    )  # fmt: skip
    assert code == 0
    assert out == f"{second}\n"
    before, after = read_map(first), read_map(second)
    assert after.song == before.song
    assert after.cover == before.cover
    for old, new in zip(before.charts, after.charts, strict=True):
        outside = [n for n in old.notes if not 24 <= n.beat < 40]
        assert [n for n in new.notes if not 24 <= n.beat < 40] == outside
        assert (new.njs, new.njs_offset) == (old.njs, old.njs_offset)
    assert any(o.notes != n.notes for o, n in zip(before.charts, after.charts, strict=True))
    assert [f for f in check_map(after) if f.severity == "error"] == []
    code, _, err = run(
        "--keep", first, "--from", 1, "--to", 2, "-d", "expert", "-o", tmp_path / "x"
    )
    assert code == 2
    assert "no expert" in err
    code, _, err = run("--keep", first, "--from", 30, "--to", 300, "-o", tmp_path / "x")
    assert code == 2
    assert "no part of" in err


def test_the_preview_is_where_most_happens():
    notes = tuple(Note(b / 4, 1, 0, 0, 8) for b in range(0, 400, 4)) + tuple(
        Note(60 + b / 8, 2, 0, 1, 8) for b in range(200)
    )
    chart = Chart(difficulty=Difficulty.HARD, njs=14, notes=notes)
    packed = PackedSong(b"", 44100, 44100 * 60, Lead(4, 2.0), False)
    start_s, length_s = choose_preview([chart], Timing(120.0, 0.0, 1.0), packed)
    assert (start_s, length_s) == (30.0, 12.0)
    # of a song too short for any choice: all of it
    packed = PackedSong(b"", 44100, 44100 * 8, Lead(4, 2.0), False)
    start_s, length_s = choose_preview([chart], Timing(120.0, 0.0, 1.0), packed)
    assert start_s >= 0
    assert start_s + length_s <= 8.0 + 2.0


def test_tags_become_names_that_beatsaver_takes(make_song, run):
    song = make_song(duration_s=16.0)
    flac = song.with_suffix(".flac")
    samples, rate = soundfile.read(song)
    with soundfile.SoundFile(flac, "w", rate, 1) as file:
        file.title, file.artist = "T" * 200, "Künstler"
        file.write(samples)
    assert run(flac, *HARD)[0] == 0
    level: BeatMap = read_map(flac.with_suffix(".zip"))
    assert level.artist == "Künstler"
    assert level.title.startswith("TTT")
    assert len(level.title) + len(level.mapper) <= 100
