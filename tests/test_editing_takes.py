"""Takes: the same request, candidates, stacking, undo, damage, and edits that are killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edit_songs import NoiseWriter, cached, edit, native, span, write_song

from mgen.core.editing.files import EditReport, Target, rewrite_take, undo
from mgen.core.errors import StoreError, UsageError
from mgen.core.store import Provenance, Store, StoredTake, Takes, check


def test_the_same_edit_is_the_same_file(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a" / "s.wav", 4.6, subtype="FLOAT")
    other = tmp_path / "b" / "s.wav"
    other.parent.mkdir()
    other.write_bytes(song.read_bytes())
    writer = NoiseWriter()
    (first,) = edit(song, "2", writer=writer, seed=3)
    (again,) = edit(song, "2", writer=writer, seed=3)
    assert (again.number, again.known, again.written, len(writer.asked)) == (1, True, False, 1)
    (elsewhere,) = edit(other, "2", seed=3)
    assert elsewhere.path.read_bytes() == first.path.read_bytes()
    first.path.unlink()
    (restored,) = edit(song, "2", writer=writer, seed=3)
    assert (restored.known, restored.written, len(writer.asked)) == (True, True, 1)
    assert elsewhere.path.read_bytes() == first.path.read_bytes()
    (seeded,) = edit(song, "2", seed=4)
    assert seeded.number == 2
    assert seeded.path.read_bytes() != first.path.read_bytes()


def test_take_k_is_the_same_however_many_there_are(tmp_path: Path) -> None:
    songs = [write_song(tmp_path / name / "s.wav", 4.6) for name in "ab"]
    three = edit(songs[0], "1", takes=3)
    one = edit(songs[1], "1", takes=1)
    assert [r.number for r in three] == [1, 2, 3]
    assert three[0].path.read_bytes() == one[0].path.read_bytes()
    assert len({r.path.read_bytes() for r in three}) == 3
    two = edit(songs[1], "1", takes=2)
    assert [r.known for r in two] == [True, False]
    assert two[1].path.read_bytes() == three[1].path.read_bytes()


def test_edits_stack_and_are_undone(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.wav", 6.6, 22050)
    edit(song, "1")
    writer = NoiseWriter()
    (second,) = edit(song, "3", writer=writer, on=1)
    assert (second.number, second.parent) == (2, 1)
    assert set(writer.asked[0].written) == {0}
    old, first, both = (
        native(p, "int16") for p in (song, song.with_name("s.edit-1.wav"), second.path)
    )
    assert np.array_equal(both[: span(3, 22050).start], first[: span(3, 22050).start])
    assert not np.array_equal(both[span(1, 22050)], old[span(1, 22050)])
    (third,) = edit(song, "1", on=2, seed=9)  # over a bar that was edited
    assert np.array_equal(native(third.path, "int16")[span(3, 22050)], both[span(3, 22050)])
    with cached(song) as store:
        takes, row, target = Takes(store), store.song(0), Target(song=song)
        assert takes.head(row) == 3
        third.path.unlink()
        second.path.unlink()
        back = undo(store, row, target)
        assert isinstance(back, EditReport)
        assert (back.path, back.written, takes.head(row)) == (second.path, True, 2)
        assert np.array_equal(native(second.path, "int16"), both)
        undo(store, row, target)
        assert undo(store, row, target) == song
        assert takes.head(row) == 0
        with pytest.raises(UsageError, match="nothing to undo"):
            undo(store, row, target)
        again = rewrite_take(store, row, 3, target)
        assert (again.path, takes.head(row)) == (third.path, 3)
        with pytest.raises(UsageError, match="there is no take 7 of 's'; it has 1, 2, 3"):
            rewrite_take(store, row, 7, target)
        assert check(store, deep=True) == []


def a_take(store: Store, **fields: object) -> StoredTake:
    song = store.song(0)
    pcm = np.arange(20, dtype=np.int16).reshape(10, 2)
    return StoredTake(
        **{
            "song": song.id, "song_sha256": song.sha256, "rate": 44100, "channels": 2,
            "subtype": "PCM_16", "spans": ((3, 9), (20, 24)), "crossfade": 1, "bars": (0, 2),
            "action": ((17, 0.6), (42, 0.4)), "settings": {"depth": None, "x": [1, 2.5]},
            "palette": "p", "strength": 0.5, "seed": 7, "candidate": 2, "models": {"lam": "l"},
            "request": "r", "z": np.full((2, 64, 16), 1.5, np.float16), "pcm": pcm, **fields,
        }
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_a_take_comes_back_as_it_was_kept(tmp_path: Path, dtype: str) -> None:
    song = write_song(tmp_path / "s.wav", 2.6)
    with cached(song) as store:
        takes, row = Takes(store), store.song(0)
        wanted = a_take(store, pcm=np.arange(20).reshape(10, 2).astype(dtype))
        assert takes.add(wanted, Provenance(command="mgen edit")).number == 1
        none = a_take(store, z=np.zeros((2, 0, 0), np.float16), parent=1, request="other")
        assert takes.add(none, Provenance()).number == 2
        found = takes.read(1, row)
        for name in StoredTake.__dataclass_fields__:
            if name not in ("z", "pcm", "number"):
                assert getattr(found, name) == getattr(wanted, name), name
        assert found.pcm.dtype == dtype
        assert np.array_equal(found.pcm, wanted.pcm)
        assert np.array_equal(found.z, wanted.z)
        pieces = [(first, len(piece)) for first, piece in found.pieces()]
        assert pieces == [(3, 6), (20, 4)]
        assert [take.number for take in takes.line(2, row)] == [1, 2]
        assert takes.line(0, row) == []
        known = takes.with_request("other", row)
        assert known is not None
        assert known.number == 2
        assert takes.with_request("third", row) is None
        with pytest.raises(ValueError, match="there already"):
            takes.add(replace(wanted, number=2), Provenance())
    with Store.open(song.with_name("s.mgen.zarr")) as store:
        with pytest.raises(StoreError, match="opened for reading"):
            Takes(store).add(a_take(store), Provenance())
        with pytest.raises(StoreError, match="opened for reading"):
            Takes(store).move_head(store.song(0), 1)


def test_what_is_wrong_with_takes_is_found(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.wav", 2.6)
    with cached(song) as store:
        takes = Takes(store)
        for fields in ({}, {"parent": 9}, {"song": "waltz"}, {"song_sha256": "0" * 64}, {}):
            takes.add(a_take(store, **fields), Provenance())
        number = takes.add(a_take(store, parent=6), Provenance()).number
        with pytest.raises(StoreError, match="made on itself"):
            takes.line(number, store.song(0))
    folder = song.with_name("s.mgen.zarr")
    part = folder / "takes" / "1" / "pcm" / "c" / "0" / "0"
    part.write_bytes(part.read_bytes()[::-1])
    (folder / "takes" / "5" / "zarr.json").write_text("{")
    with Store.open(folder) as store:
        found = [str(f) for f in check(store, deep=True)]
    assert any("takes/5" in text or "takes: damaged" in text for text in found)
    shutil.rmtree(folder / "takes" / "5")
    with Store.open(folder) as store:
        found = [str(f).removeprefix("takes: ") for f in check(store, deep=True)]
    assert found[0].startswith("damaged at takes/1")
    assert found[1:] == [
        "2 was made on take 9, which is not there",
        "3 is of song waltz, which the store does not hold",
        f"4 is stale: song {store.song(0).id} is another one now",
    ]


# interruptions

_KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import edit_songs
    from mgen.core.editing import files, pipeline, writing
    from mgen.core.store import takes

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def second(function):
        calls = []
        def wrapped(*words):
            calls.append(1)
            return die() if len(calls) == 2 else function(*words)
        return wrapped

    moment = {moment!r}
    if moment == "writer":
        edit_songs.NoiseWriter.write = die
    elif moment == "half a file":
        writing._write = lambda part, *_: (part.write_bytes(b"RIFF half"), die())
    elif moment == "half a take":
        takes._write_array = second(takes._write_array)
    elif moment == "before the name":
        writing.Staged.publish = die
    edit_songs.edit(Path({song!r}), "2")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["writer", "half a file", "half a take", "before the name"])
def test_a_killed_edit_leaves_nothing_half_written(tmp_path: Path, moment: str) -> None:
    song = write_song(tmp_path / "k" / "s.wav", 4.6)
    other = tmp_path / "other.wav"
    other.write_bytes(song.read_bytes())
    (whole,) = edit(other, "2")
    cached(song).close()
    there = {"s.wav", "s.mgen.zarr"}
    code = textwrap.dedent(_KILLED).format(
        tests=str(Path(__file__).parent), song=str(song), moment=moment
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    left = {p.name for p in song.parent.iterdir()}
    assert left - {".s.mgen.zarr.spool"} == there
    with Store.open(song.with_name("s.mgen.zarr")) as store:
        assert check(store, deep=True) == []
        assert Takes(store).numbers() == ([1] if moment == "before the name" else [])
    (report,) = edit(song, "2")
    assert report.known == (moment == "before the name")
    assert (report.number, report.written) == (1, True)
    assert report.path.read_bytes() == whole.path.read_bytes()
    assert {p.name for p in song.parent.iterdir()} == {*there, "s.edit-1.wav"}
