"""The store: round trips, refusals, checks, and that no death of a writer ever damages it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore, WrapperStore

from mgen.core.bars import BAR_SAMPLES
from mgen.core.beats import Beats
from mgen.core.errors import InputNotFoundError, OutputExistsError, StaleError, StoreError
from mgen.core.store import (
    FORMAT_VERSION,
    LAYERS,
    RATE,
    BarTable,
    Provenance,
    SongRow,
    Store,
    check,
)

MADE = Provenance(command="mgen test", settings={"a": 1})


def sound(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9999, 9999, n).astype(np.int16)


def song_row(i: int, **changes: Any) -> SongRow:
    fields = {"id": f"id{i}", "name": f"söng {i}", "source": f"/x/{i}.wav", "sha256": f"{i:064x}"}
    return SongRow(**{**fields, **changes})


def some_beats(i: int, n: int = 8) -> Beats:
    return Beats(np.arange(n) * 0.003, np.arange(n) % 4 + 1, np.full(n, 0.5))


def bar_table(song: int, n: int) -> BarTable:
    start = np.arange(n) * 0.1
    return BarTable(
        song=np.full(n, song, np.int32), index=np.arange(n, dtype=np.int32), start_s=start,
        end_s=start + 0.1, beats=np.full(n, 4, np.int8), bpm=np.full(n, 120, np.float32),
        stretch=np.ones(n, np.float32), jitter=(np.arange(n) % 2).astype(np.int8),
        valid=np.ones(n, bool), confidence=np.ones(n, np.float32),
    )  # fmt: skip


def fill(store: Store, songs: int = 3, n: int = 16000) -> None:
    """Go on to `songs` songs with beats and bars, from wherever the store is."""
    layer = store.begin("songs", MADE)
    for i in range(layer.length(), songs):
        if i == 1:
            store.append_song(song_row(i, kept=False, reason="silent"), [], MADE)
        else:
            pcm = sound(i, n)
            store.append_song(song_row(i), [pcm[: n // 3], pcm[n // 3 :]], MADE)
    for i in range(store.begin("beats", MADE).length(), songs):
        store.append_beats(some_beats(i, 0 if i == 1 else 8), MADE)
    for i in range(store.begin("bars", MADE).length(), songs):
        rows = 0 if i == 1 else 2
        pcm = sound(100 + i, rows * BAR_SAMPLES).reshape(-1, BAR_SAMPLES)
        store.append_bars(bar_table(i, rows), [pcm], MADE)


def assert_filled(store: Store, songs: int, n: int = 16000) -> None:
    """What `fill` wrote is there, as far as it is published; nothing else is."""
    for song in store.songs():
        want = sound(song.index, n) if song.index != 1 else sound(0, 0)
        assert np.array_equal(store.song_pcm(song.index)[:], want)
    for name in ("beats", "bars"):
        layer = store.layer(name)
        for i in range(layer.length() if layer else 0):
            if name == "beats":
                assert np.array_equal(store.beats(i).time_s, some_beats(i, 8 * (i != 1)).time_s)
            elif i != 1:
                table = store.bars(i, jittered=True)
                pcm = store.bar_pcm(slice(int(table.row[0]), int(table.row[-1]) + 1))
                assert np.array_equal(pcm.ravel(), sound(100 + i, 2 * BAR_SAMPLES))
    assert len(store.songs()) <= songs
    assert check(store, deep=True) == []


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "s.zarr"
    with Store.create(path) as store:
        fill(store)
    return path


@pytest.fixture
def filled(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "s.zarr")


def test_what_goes_in_comes_out(filled: Path) -> None:
    with Store.open(filled) as store:
        assert [s.name for s in store.songs()] == ["söng 0", "söng 1", "söng 2"]
        assert [s.kept for s in store.songs()] == [True, False, True]
        assert store.songs()[1].reason == "silent"
        assert store.songs()[2].duration_s == 1.0
        assert_filled(store, 3)
        assert len(store.bars()) == 2  # jittered copies only where they are asked for
        assert store.bars(2, jittered=True).row.tolist() == [2, 3]
        pcm = store.song_pcm(2)
        assert (len(pcm), pcm.shape) == (16000, (16000,))
        assert np.array_equal(pcm[100:200], sound(2, 16000)[100:200])
        assert np.allclose(pcm.floats() * 32768, sound(2, 16000))


@settings(max_examples=5, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40000), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 39999), max_size=3),
)
def test_blocks_of_any_size_give_the_same_songs(lengths: list[int], cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, Store.create(Path(folder, "s.zarr")) as store:
        for i, n in enumerate(lengths):
            blocks = np.split(sound(i, n), sorted({c for c in cuts if c < n}))
            store.append_song(song_row(i), blocks, MADE)
        for i, n in enumerate(lengths):
            assert np.array_equal(store.song_pcm(i)[:], sound(i, n))
        assert check(store, deep=True) == []


def test_a_song_longer_than_a_shard(tmp_path: Path) -> None:
    shard = LAYERS["audio"].array("pcm").write_rows
    pcm = np.tile(sound(0, 1 << 20), 20)[: 2 * shard + 12345]
    with Store.create(tmp_path / "s.zarr") as store:
        store.append_song(song_row(0), [sound(1, 1000)], MADE)
        store.append_song(song_row(1), np.array_split(pcm, 7), MADE)
        assert np.array_equal(store.song_pcm(1)[:], pcm)
        assert sum(len(b) for b in store.song_pcm(1).blocks()) == len(pcm)
        assert check(store, deep=True) == []


def test_plain_zarr_opens_it(filled: Path) -> None:
    root = zarr.open_group(filled, mode="r")
    assert dict(root.attrs)["mgen"] == {"format": FORMAT_VERSION, "kind": "store", "models": {}}
    offset: Any = root["songs/offset"]
    pcm: Any = root["audio/pcm"]
    assert offset[:].tolist() == [0, 16000, 16000, 32000]
    assert pcm.dtype == np.int16
    assert pcm.shape == (32000,)
    assert np.array_equal(pcm[16000:], sound(2, 16000))
    assert pcm.metadata.dimension_names == ("samples",)
    for name, layer in LAYERS.items():
        for array in layer.arrays:
            part: Any = root[f"{name}/{array.name}"]
            assert part.dtype == array.numpy_dtype
            assert part.shape[1:] == array.tail


def test_a_layer_says_how_it_was_made(filled: Path) -> None:
    about = json.loads((filled / "bars" / "zarr.json").read_text("utf-8"))["attributes"]["mgen"]
    assert about["command"] == "mgen test"
    assert about["settings"] == {"a": 1}
    assert about["length"] == {"songs": 3, "bars": 4}
    with Store.open(filled) as store:
        assert about["parents"]["beats"] == {"length": 3, "hash": store.need("beats").state.hash}


def test_the_same_work_gives_the_same_bytes(filled: Path, tmp_path: Path) -> None:
    with Store.create(tmp_path / "t.zarr") as store:
        fill(store, 1)
    with Store.open(tmp_path / "t.zarr", "a") as store:
        fill(store, 3)
    first, second = (
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()}
        for r in (filled, tmp_path / "t.zarr")
    )
    assert first == second


def test_songs_by_id_name_and_row(filled: Path) -> None:
    with Store.open(filled) as store:
        assert store.song("id2").index == 2
        assert store.song("söng 2").index == 2
        assert store.song(0).id == "id0"
        with pytest.raises(StoreError, match="is 3 songs"):
            store.song("söng")
        with pytest.raises(StoreError, match="no song is called"):
            store.song("waltz")
        with pytest.raises(StoreError, match="no song 7"):
            store.song(7)
        with pytest.raises(StoreError, match="no bar 99"):
            store.bar_pcm(99)


def test_maps_and_models(filled: Path) -> None:
    notes = np.arange(15, dtype=np.float32).reshape(3, 5)
    with Store.open(filled, "a") as store:
        assert store.add_map(2, "Expert", 7, "rules", notes) == 0
        assert store.add_map(0, "Easy", 7, "rules", np.empty((0, 5))) == 1
        store.link_model("tokenizer", "abc")
        store.link_model("lam", "def")
    with Store.open(filled) as store:
        assert store.maps() == [0, 1]
        assert np.array_equal(store.map(0).notes, notes)
        assert (store.map(0).song, store.map(0).difficulty, store.map(0).seed) == (2, "Expert", 7)
        assert store.map(1).notes.shape == (0, 5)
        assert store.models == {"tokenizer": "abc", "lam": "def"}
        assert check(store, deep=True) == []
        with pytest.raises(StoreError, match="no map 5"):
            store.map(5)


# what is refused


def test_what_is_there_is_never_replaced(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(b"x")
    for path in (filled, tmp_path / "music"):
        with pytest.raises(OutputExistsError):
            Store.create(path)
    with pytest.raises(StoreError, match="not a store"):
        Store.open_or_create(tmp_path / "music")
    assert [p.name for p in (tmp_path / "music").iterdir()] == ["a.wav"]


def _edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")


def _newer(root: Path) -> None:
    _edit_json(root / "zarr.json", lambda d: d["attributes"]["mgen"].update(format=99))


def _other_kind(root: Path) -> None:
    _edit_json(root / "zarr.json", lambda d: d["attributes"]["mgen"].update(kind="model"))


def _foreign(root: Path) -> None:
    _edit_json(root / "zarr.json", lambda d: d.update(attributes={}))


def _odd_about(root: Path) -> None:
    _edit_json(root / "zarr.json", lambda d: d.update(attributes={"mgen": 7}))


def _bad_root(root: Path) -> None:
    (root / "zarr.json").write_text('{"zarr_format": 3, "node', "utf-8")


def _no_root(root: Path) -> None:
    (root / "zarr.json").unlink()


def _bad_layer(root: Path) -> None:
    (root / "songs" / "zarr.json").write_text("[]", "utf-8")


def _bad_length(root: Path) -> None:
    _edit_json(
        root / "songs" / "zarr.json",
        lambda d: d["attributes"]["mgen"]["length"].update(songs="three"),
    )


def _no_array(root: Path) -> None:
    (root / "songs" / "offset" / "zarr.json").unlink()


def _short_array(root: Path) -> None:
    _edit_json(root / "audio" / "pcm" / "zarr.json", lambda d: d.update(shape=[100]))


def _other_type(root: Path) -> None:
    _edit_json(root / "songs" / "kept" / "zarr.json", lambda d: d.update(data_type="int8"))


def _half_chunk(root: Path) -> None:
    chunk = root / "audio" / "pcm" / "c" / "0"
    chunk.write_bytes(chunk.read_bytes()[:1000])


def _flipped_bit(root: Path) -> None:
    chunk = root / "songs" / "sha256" / "c" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(bytes(data))


def _read_all(path: Path) -> None:
    with Store.open(path) as store:
        for song in store.songs():
            store.song_pcm(song.index)[:]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (_newer, "newer than this mgen reads"),
        (_other_kind, "holds a 'model'"),
        (_foreign, "not one of mgen's"),
        (_odd_about, "damaged at zarr.json"),
        (_bad_root, "damaged at zarr.json"),
        (_no_root, "not a store"),
        (_bad_layer, "damaged at songs/zarr.json"),
        (_bad_length, "damaged at songs/zarr.json"),
        (_no_array, "damaged at songs/offset"),
        (_short_array, "damaged at audio/pcm"),
        (_other_type, "damaged at songs/kept"),
        (_half_chunk, "damaged at audio/pcm"),
        (_flipped_bit, "damaged at songs/sha256"),
    ],
)
def test_damage_is_one_line(filled: Path, break_it: Callable[[Path], None], words: str) -> None:
    break_it(filled)
    with pytest.raises(StoreError, match=words) as caught:
        _read_all(filled)
    assert "\n" not in str(caught.value)
    assert str(filled) in str(caught.value)


@pytest.mark.parametrize("break_it", [_bad_layer, _no_array, _short_array, _half_chunk])
def test_damage_is_a_finding(filled: Path, break_it: Callable[[Path], None]) -> None:
    break_it(filled)
    with Store.open(filled) as store:
        found = check(store, deep=True)
    assert found
    assert "damaged" in str(found[0]) or "missing" in str(found[0])


def test_a_lost_layer_is_not_made_anew(filled: Path) -> None:
    (filled / "songs" / "zarr.json").unlink()
    with Store.open(filled) as store:
        assert any("its metadata" in str(f) for f in check(store))
    with Store.open(filled, "a") as store, pytest.raises(StoreError, match="metadata is not"):
        store.append_song(song_row(9), [sound(9, 100)], MADE)
    assert (filled / "audio" / "pcm" / "c" / "0").stat().st_size > 30000


def test_places_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="not found"):
        Store.open(tmp_path / "gone.zarr")
    with pytest.raises(StoreError, match="not a store"):
        Store.open(tmp_path)
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(StoreError, match="a file"):
        Store.open(tmp_path / "file.zarr")
    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="int8")
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path / "array.zarr")


def test_a_reader_does_not_write(filled: Path) -> None:
    with Store.open(filled) as store, pytest.raises(StoreError, match="opened for reading"):
        store.append_song(song_row(9), [sound(9, 100)], MADE)


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s.zarr") as store:
        assert store.songs() == []
        with pytest.raises(StoreError, match="mgen filter"):
            store.need("songs")
        with pytest.raises(StoreError, match="mgen segment-bars"):
            store.bars()


# what check finds


def _rewrite(root: Path, path: str, at: int, value: Any) -> None:
    """Change a value as a valid zarr write would: checksums hold, the content does not."""
    array: Any = zarr.open_array(root / path, mode="r+")
    array[at] = value


@pytest.mark.parametrize(
    ("path", "at", "value", "deep", "words"),
    [
        ("songs/offset", 1, 99999, False, "offset"),
        ("songs/n_samples", 0, 7, False, "n_samples"),
        ("songs/id", 0, "id2", False, "used twice"),
        ("songs/kept", 1, True, False, "kept"),
        ("songs/digest", 0, 0, False, "hash"),
        ("beats/time_s", 3, -1.0, False, "times"),
        ("beats/song_offset", 1, 4, True, "digest"),
        ("bars/song", 0, 2, False, "song"),
        ("bars/end_s", 0, -1.0, False, "end"),
        ("bars/bpm", 0, 1.0, True, "digest"),
        ("bars/pcm", 0, 1, True, "digest"),
        ("audio/pcm", 77, 1, True, "digest"),
    ],
)
def test_check_finds(filled: Path, path: str, at: int, value: Any, deep: bool, words: str) -> None:
    _rewrite(filled, path, at, value)
    with Store.open(filled) as store:
        assert bool(check(store)) is not deep or words == "digest"
        assert any(words in str(finding) for finding in check(store, deep=deep))


@pytest.mark.parametrize("chunk", ["audio/pcm/c/0", "bars/jitter/c/0", "beats/time_s/c/0"])
def test_check_finds_chunks_that_are_gone(filled: Path, chunk: str) -> None:
    (filled / chunk).unlink()
    with Store.open(filled) as store:
        assert any("missing" in str(finding) for finding in check(store))


# stale layers


def test_a_grown_parent_is_not_stale_and_a_changed_one_is(filled: Path) -> None:
    with Store.open(filled, "a") as store:
        store.append_song(song_row(3), [sound(3, 500)], MADE)
        assert store.stale("beats") == ""
        store.begin("songs", MADE, anew=True)
        for i in range(3):
            store.append_song(song_row(i), [sound(50 + i, 16000)], MADE)
        assert "have changed" in store.stale("beats")
        assert "stale" in store.stale("bars") or "changed" in store.stale("bars")
        with pytest.raises(StaleError, match="--force"):
            store.begin("beats", MADE)
        assert any("stale" in str(finding) for finding in check(store))
        store.begin("bars", MADE, anew=True)
        store.begin("beats", MADE, anew=True)
        assert check(store) == []


def test_other_settings_are_refused_until_forced(filled: Path) -> None:
    other = Provenance(command="mgen other", settings={"a": 2})
    with Store.open(filled, "a") as store:
        with pytest.raises(StoreError, match=r"other settings.*mgen test.*--force"):
            store.begin("beats", other)
        assert store.begin("beats", other, anew=True).length() == 0
        assert store.need("beats").state.provenance.settings == {"a": 2}


# one writer, any death


def test_one_writer_at_a_time(filled: Path) -> None:
    with Store.open(filled, "a"):
        with pytest.raises(StoreError, match="another process is writing"):
            Store.open(filled, "a")
        with Store.open(filled) as reader:
            assert len(reader.songs()) == 3
    with Store.open(filled, "a"):
        pass


def test_a_reader_sees_what_was_published_when_it_opened(filled: Path) -> None:
    with Store.open(filled) as reader:
        assert len(reader.songs()) == 3
        with Store.open(filled, "a") as writer:
            writer.append_song(song_row(3), [sound(3, 16000)], MADE)
        assert len(reader.songs()) == 3
        assert np.array_equal(reader.song_pcm(2)[:], sound(2, 16000))


def test_a_failing_source_publishes_nothing(filled: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield sound(3, 5000)
        raise OSError(errno.EIO, "Input/output error")

    with Store.open(filled, "a") as store:
        with pytest.raises(OSError, match="Input/output"):
            store.append_song(song_row(3), broken(), MADE)
        store.append_song(song_row(4), [sound(3, 16000)], MADE)
        assert [s.id for s in store.songs()] == ["id0", "id1", "id2", "id4"]
        assert np.array_equal(store.song_pcm(3)[:], sound(3, 16000))
        assert check(store, deep=True) == []


class FullDisk(WrapperStore[MemoryStore]):
    """Refuses every write after the first `room`."""

    room = 10**9

    async def set(self, key: str, value: Any) -> None:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device", key)
        self.room -= 1
        await super().set(key, value)


def test_a_full_disk_at_any_write_loses_nothing() -> None:
    whole = FullDisk(MemoryStore())
    with Store.create(whole) as store:
        fill(store, n=500)
    writes = 10**9 - whole.room
    assert writes > 100
    published = 0
    for room in range(1, writes, 23):
        disk = FullDisk(MemoryStore())
        disk.room = room
        with pytest.raises(OSError, match="No space left"), Store.create(disk) as store:
            fill(store, n=500)
        disk.room = 10**9
        with Store.open(disk) as store:
            assert_filled(store, 3, n=500)
            assert len(store.songs()) >= published  # more room never keeps less
            published = len(store.songs())
        with Store.open(disk, "a") as store:
            fill(store, n=500)
            assert_filled(store, 3, n=500)
            assert len(store.songs()) == 3
    assert published == 3


KILLER = """
import os, random, signal, sys, time
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from pathlib import Path
from test_store import Store, assert_filled, fill

path, kills, songs = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
chance, alive, seen = random.Random(int(sys.argv[5])), 0, 0

def child(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)

def write():
    with Store.open_or_create(path) as store:
        fill(store, songs)

def verify():
    if (path / "zarr.json").exists():
        with Store.open(path) as store:
            assert_filled(store, songs)

for _ in range(kills):
    pid = child(write)
    time.sleep(chance.uniform(0.0, 0.25))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pid = child(verify)
    assert os.waitpid(pid, 0)[1] == 0, "damaged"
pid = child(write)
assert os.waitpid(pid, 0)[1] == 0
with Store.open(path) as store:
    assert_filled(store, songs)
    assert len(store.songs()) == songs
    print("strays", sum(1 for p in path.rglob("*.partial")))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment_leaves_a_valid_store(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), __file__, str(tmp_path / "s.zarr"),
         "12", "12", "0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split()[-2:] == ["strays", "0"]


def test_the_rate_is_that_of_the_bars() -> None:
    assert RATE * 2.048 == BAR_SAMPLES
