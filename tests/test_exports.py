"""Beats as files: read by other programs, heard in the right place, and taken back unchanged."""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.cli.app import main
from mgen.core.beats import Beats, read_beats
from mgen.core.beats.exports import beats_text, labels_text, mix_clicks
from mgen.core.corpus import (
    Segmentation,
    beats_files,
    export_songs,
    exports_folder,
    file_stems,
    plan_exports,
    segment_songs,
)
from mgen.core.errors import InputError, OutputExistsError, StaleError, StoreError, UsageError
from mgen.core.store import RATE, Provenance, SongRow, Store

NOTHING = Provenance()


def beats_of(time_s: list[float], places: list[int]) -> Beats:
    return Beats(np.array(time_s), np.array(places, np.int8), np.ones(len(time_s), np.float32))


def same(one: Beats, other: Beats) -> bool:
    """Bit for bit, but for the confidence: a person's beats are sure."""
    return (
        one.time_s.tobytes() == other.time_s.tobytes()
        and one.beat_in_bar.tobytes() == other.beat_in_bar.tobytes()
    )


def read_back(text: str) -> Beats:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.txt"
        path.write_text(text, encoding="utf-8")
        return read_beats(path, least=1)


@st.composite
def some_beats(draw: st.DrawFn, most_s: float = 1e4) -> Beats:
    time_s = draw(st.lists(st.floats(0.0, most_s), max_size=40, unique=True).map(sorted))
    places = draw(st.lists(st.integers(0, 12), min_size=len(time_s), max_size=len(time_s)))
    return beats_of(time_s, places)  # fmt: skip


# text


@given(some_beats())
@settings(max_examples=200, deadline=None)
def test_text_comes_back_bit_for_bit(beats: Beats) -> None:
    assert same(read_back(beats_text(beats)), beats)
    assert same(read_back(labels_text(beats)), beats)


def test_beats_as_other_programs_read_them(tmp_path: Path) -> None:
    beats = beats_of([0.25, 1 / 3, 1e-5 + 0.5, 7000.123456789], [3, 1, 2, 0])
    path = tmp_path / "a.beats"
    path.write_text(beats_text(beats))
    times, places = mir_eval.io.load_labeled_events(str(path))
    assert times.tobytes() == beats.time_s.tobytes()
    assert places == ["3", "1", "2", "0"]
    table = np.loadtxt(path)
    assert table[:, 0].tobytes() == beats.time_s.tobytes()
    assert path.read_text().splitlines()[0] == "0.250000\t3"
    assert "e" not in beats_text(beats_of([1e-9, 2.0], [1, 2]))


def test_labels_as_audacity_reads_them(tmp_path: Path) -> None:
    beats = beats_of([0.1, 0.6, 1.1, 1.6, 2.1, 2.6], [3, 1, 2, 3, 1, 0])
    path = tmp_path / "a.txt"
    path.write_text(labels_text(beats))
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert [row[2] for row in rows] == ["0.3", "1.1", "1.2", "1.3", "2.1", "?"]
    assert all(row[0] == row[1] for row in rows)
    starts, _, _ = mir_eval.io.load_delimited(str(path), [float, float, str], delimiter="\t")
    assert starts == beats.time_s.tolist()


def test_labels_that_audacity_has_saved_and_a_person_edited() -> None:
    """Six decimals, a label moved, one added with a place alone, one without a word."""
    edited = (
        "0.600000\t0.600000\t1.1\n1.100001\t1.100001\t1.2\n1.300000\t1.300000\t\n"
        "1.700000\t1.700000\t1\n2.100000\t2.400000\t77.12\n\\\t100.0\t200.0\n"
    )
    beats = read_back(edited)
    assert beats.time_s.tolist() == [0.6, 1.100001, 1.3, 1.7, 2.1]
    assert beats.beat_in_bar.tolist() == [1, 2, 0, 1, 12]


def test_no_beats_and_one(tmp_path: Path) -> None:
    none, one = beats_of([], []), beats_of([0.5], [1])
    for write in (beats_text, labels_text):
        assert len(read_back(write(none))) == 0
        assert same(read_back(write(one)), one)
    assert len(read_back("0.000000\t0.000000\tno beats\n")) == 0
    (tmp_path / "one.beats").write_text(beats_text(one))
    with pytest.raises(InputError, match="at least two"):  # who types one beat has slipped
        read_beats(tmp_path / "one.beats")


# clicks


def clicked(
    pcm: np.ndarray, beats: Beats, rate: int = RATE, gain: float = 0.5, block: int = 4096
) -> np.ndarray:
    blocks = (pcm[i : i + block] for i in range(0, len(pcm), block))
    return np.concatenate([*mix_clicks(blocks, beats, rate, gain=gain), np.empty(0, np.int16)])


def onsets(x: np.ndarray, rate: int) -> np.ndarray:
    """Where sound starts after 5 ms of silence, in seconds."""
    loud = np.flatnonzero(np.abs(x.astype(float)) > 1000)
    return loud[np.diff(loud, prepend=-rate) > 0.005 * rate] / rate


def pitch(x: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 16))
    return float(np.argmax(spectrum) * rate / (1 << 16))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("block", [100, 4096, 1 << 20])
def test_clicks_stand_on_the_beats(rate: int, block: int) -> None:
    time_s = 0.2 + np.cumsum(np.random.default_rng(1).uniform(0.1, 0.7, 30))
    beats = beats_of(time_s.tolist(), [1, 2, 3] * 10)
    x = clicked(np.zeros(int(14 * rate), np.int16), beats, rate, block=block)
    found = onsets(x, rate)
    inside = time_s[time_s < 14]
    assert len(found) == len(inside)
    assert np.abs(found - inside).max() < 0.001


def test_downbeats_are_higher_and_louder() -> None:
    x = clicked(np.zeros(RATE * 3, np.int16), beats_of([0.5, 1.0, 1.5, 2.0], [1, 2, 0, 1]))
    parts = [x[int(t * RATE) : int((t + 0.03) * RATE)] for t in (0.5, 1.0, 1.5, 2.0)]
    heights = [pitch(part, RATE) for part in parts]
    assert heights[0] == heights[3] > 1.5 * heights[1] > 1.5 * heights[2]
    assert np.abs(parts[0]).max() > np.abs(parts[1]).max()
    assert not x[: int(0.5 * RATE)].any()


@given(some_beats(most_s=1.2), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_clicks_never_clip_and_blocks_do_not_matter(beats: Beats, seed: int) -> None:
    pcm = np.random.default_rng(seed).choice(np.array([-32768, 32767], np.int16), RATE)
    whole = clicked(pcm, beats, block=RATE)
    assert len(whole) == RATE
    assert np.abs(whole.astype(int)).max() < 32000
    assert np.array_equal(clicked(pcm, beats, block=777), whole)


def test_beats_past_the_end_make_no_sound() -> None:
    assert not clicked(np.zeros(RATE, np.int16), beats_of([1.0, 3.0], [1, 2])).any()


# names


def row(index: int, name: str) -> SongRow:
    return SongRow(id=f"id{index}", name=name, source="", sha256="", index=index)


def test_no_two_songs_share_a_file() -> None:
    names = ["a", "A", "b", "a-id0", "../x/y", "ein lied: ü 音", "n\nl", "", ".hidden", "l" * 400,
             "l" * 300, "caf\u00e9", "cafe\u0301"]  # fmt: skip
    stems = file_stems(row(i, name) for i, name in enumerate(names))
    assert len({s.casefold() for s in stems.values()}) == len(names)
    assert (stems[2], stems[5], stems[8]) == ("b", "ein lied: ü 音", "hidden")
    for stem in stems.values():
        assert stem
        assert not set(stem) & set("/\\\n")
        assert len(f".{stem}.click.12345678.part.wav".encode()) <= 255


def test_folders_stand_beside_the_store() -> None:
    assert exports_folder(Path("x/jazz.zarr")) == Path("x/jazz-beats")
    assert exports_folder(Path("/x/corpus")) == Path("/x/corpus-beats")
    assert exports_folder("s3://bucket/jazz.zarr/") == Path("jazz-beats")


# a store


def add_song(store: Store, name: str, seconds: float = 4.0, start_s: float = 0.0) -> None:
    number = len(store.songs())
    song = SongRow(
        id=f"{number:012d}", name=name, source="", sha256=f"{number:064d}", start_s=start_s
    )
    noise = np.random.default_rng(number).normal(0, 3000, int(seconds * RATE)).astype(np.int16)
    store.append_song(song, [noise], NOTHING)


def add(store: Store, name: str, beats: Beats, start_s: float = 0.0) -> None:
    add_song(store, name, start_s=start_s)
    store.append_beats(beats, NOTHING)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "s.zarr")


def test_exports_are_taken_back(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    starts = [0.0, 0.1, 17.3, 123.456]
    for name, start in zip(["x", "ein Lied, ü", "x", "four"], starts, strict=True):
        time_s = start + np.sort(rng.uniform(0, 4, 9))
        add(store, name, beats_of(time_s.tolist(), [4, 1, 2, 3, 4, 1, 2, 3, 4]), start_s=start)
    add(store, "none", beats_of([], []))
    add(store, "one", beats_of([0.7], [0]))
    before = [store.beats(i) for i in range(6)]
    for kind in ("beats", "audacity"):
        folder = tmp_path / kind
        reports = list(export_songs(store, [kind], folder))
        assert [r.song for r in reports] == list(range(6))
        assert len(list(folder.iterdir())) == 6
        done = list(segment_songs(store, Segmentation(beats_path=folder), force=True))
        assert [r.beats for r in done] == [9, 9, 9, 9, 0, 1]
        assert all(same(store.beats(i), before[i]) for i in range(6))


@given(
    st.lists(st.floats(0.0, 60.0), unique=True, min_size=1, max_size=30).map(sorted),
    st.floats(0.0, 20000.0),
)
@settings(max_examples=150, deadline=None)
def test_a_clips_beats_come_back_whatever_its_start(times: list[float], start_s: float) -> None:
    """The store keeps seconds of the source, the file seconds of the clip."""
    from mgen.core.corpus.exports import _beats_in_song

    stored = np.unique(np.array(times) + start_s)
    song = replace(row(0, "a"), start_s=start_s, n_samples=60 * RATE)
    clip = _beats_in_song(beats_of(stored.tolist(), [1] * len(stored)), song)
    assert (clip.time_s + start_s).tobytes() == stored.tobytes()
    assert clip.time_s.min() >= 0.0
    assert clip.time_s.max() <= 60.0


def test_clicks_over_a_song_of_the_store(store: Store, tmp_path: Path) -> None:
    add(store, "a", beats_of([10.5, 11.25, 12.0], [1, 2, 1]), start_s=10.0)
    (report,) = export_songs(store, ["click"], tmp_path)
    x, rate = soundfile.read(report.path, dtype="int16")
    info = soundfile.info(report.path)
    assert (rate, info.channels, info.subtype, len(x)) == (RATE, 1, "PCM_16", 4 * RATE)
    song = store.song_pcm(0)[:].astype(float)
    gain = x[: RATE // 2] @ song[: RATE // 2] / (song[: RATE // 2] @ song[: RATE // 2])
    rest = x - gain * song
    loud = np.flatnonzero(np.abs(rest) > 2000) / RATE
    firsts = loud[np.diff(loud, prepend=-1) > 0.2]
    assert np.abs(firsts - [0.5, 1.25, 2.0]).max() < 0.001
    assert gain * np.abs(song).max() == pytest.approx(0.5 * 32767, rel=1e-3)
    assert np.abs(x.astype(int)).max() < 32700


def test_a_long_song_is_never_whole_in_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgen.core.store import SongPcm

    block = np.zeros(1 << 20, np.int16)
    song = SongRow(id="1" * 12, name="long", source="", sha256="1" * 64)
    store.append_song(song, itertools.repeat(block, 12), NOTHING)
    store.append_beats(beats_of([1.0, 700.0], [1, 2]), NOTHING)
    longest = []
    read = SongPcm.__getitem__

    def watched(self: SongPcm, key: slice) -> np.ndarray:
        data = read(self, key)
        longest.append(len(data))
        return data

    monkeypatch.setattr(SongPcm, "__getitem__", watched)
    (report,) = export_songs(store, ["click"], tmp_path)
    assert max(longest) <= 1 << 20
    assert soundfile.info(report.path).frames == 12 << 20


def test_nothing_is_written_over(store: Store, tmp_path: Path) -> None:
    add(store, "a", beats_of([0.5, 1.0], [1, 2]))
    add(store, "b", beats_of([0.5, 1.0], [1, 2]))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "b.txt").write_text("lyrics")
    with pytest.raises(OutputExistsError, match=r"b\.txt: exists; --force"):
        list(export_songs(store, ["beats", "audacity", "click"], folder))
    assert [p.name for p in folder.iterdir()] == ["b.txt"]
    list(export_songs(store, ["audacity"], folder, force=True))
    assert "1.1" in (folder / "b.txt").read_text()
    with pytest.raises(OutputExistsError, match="and 1 files more: exist"):
        plan_exports(store, ["audacity"], folder)
    for place in (tmp_path / "s.zarr", tmp_path / "s.zarr" / "new", folder / "b.txt"):
        with pytest.raises(UsageError, match="--export-dir"):
            plan_exports(store, ["beats"], place)


def test_a_broken_write_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgen.core.corpus import exports

    add(store, "a", beats_of([0.5, 1.0], [1, 2]))

    def broken(*_: object, **__: object) -> object:
        yield np.zeros(10, np.int16)
        raise KeyboardInterrupt

    monkeypatch.setattr(exports, "mix_clicks", broken)
    with pytest.raises(KeyboardInterrupt):
        list(export_songs(store, ["click"], tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_songs_without_beats_are_not_exported(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no beats yet"):
        list(export_songs(store, ["beats"], tmp_path / "out"))
    add(store, "a", beats_of([0.5, 1.0], [1, 2]))
    add_song(store, "b")
    with pytest.raises(StoreError, match="only 1 of 2 songs have beats"):
        list(export_songs(store, ["beats"], tmp_path / "out"))
    store.begin("songs", NOTHING, anew=True)
    add_song(store, "b", seconds=2.0)
    with pytest.raises(StaleError, match="stale"):
        list(export_songs(store, ["beats"], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_correction_is_never_passed_over(tmp_path: Path) -> None:
    songs = [row(0, "a")]
    beats = beats_of([0.123456789, 1.0], [1, 2])
    (tmp_path / "a.beats").write_text(beats_text(beats))
    (tmp_path / "a.txt").write_text("0.123457\t0.123457\t1.1\n1.000000\t1.000000\t1.2\n")
    assert beats_files(tmp_path, songs)[0].name == "a.beats"
    (tmp_path / "a.txt").write_text("0.123457\t0.123457\t1.1\n1.010000\t1.010000\t1.2\n")
    with pytest.raises(UsageError, match=r"a\.beats and a\.txt hold different beats"):
        beats_files(tmp_path, songs)
    (tmp_path / "a.beats").unlink()
    assert beats_files(tmp_path, songs)[0].name == "a.txt"
    (tmp_path / "a.txt").write_text("0.5\t0.5\t1.1\n0.4\t0.4\t1.2\n")
    with pytest.raises(InputError, match="not after"):
        beats_files(tmp_path, songs)


def test_bad_beats_cost_the_store_nothing(store: Store, tmp_path: Path) -> None:
    add(store, "a", beats_of([0.5, 1.0, 1.5], [1, 2, 3]))
    (tmp_path / "a.beats").write_text("0.5\t1\n0.4\t2\n")
    for path in (tmp_path, tmp_path / "a.beats"):
        with pytest.raises(InputError, match="not after"):
            list(segment_songs(store, Segmentation(beats_path=path), force=True))
    assert store.beats(0).time_s.tolist() == [0.5, 1.0, 1.5]


# the command


@pytest.fixture
def segmented(here: Path) -> Path:
    with Store.create("s.zarr") as store:
        for name in ("ein söng", "ein söng"):
            add_song(store, name, 6.0)
        list(segment_songs(store, Segmentation(bpm=125.0, offset_s=0.1)))
    return Path("s.zarr")


KINDS = ["--export", "beats", "--export", "audacity", "--export", "click"]


def stored_beats() -> list[Beats]:
    with Store.open("s.zarr") as store:
        return [store.beats(i) for i in range(2)]


def test_export_takes_the_beats_that_are_there(
    segmented: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored_beats()
    assert main(["segment-bars", "s.zarr", *KINDS]) == 0
    captured = capsys.readouterr()
    assert captured.out == "s.zarr\n"
    wrote = [line for line in captured.err.splitlines() if line.startswith("wrote ")]
    assert len(wrote) == len(set(wrote)) == 6
    assert all(Path(line.removeprefix("wrote ")).is_file() for line in wrote)
    assert len(list(Path("s-beats").iterdir())) == 6
    assert all(same(*pair) for pair in zip(before, stored_beats(), strict=True))
    assert main(["segment-bars", "s.zarr", *KINDS]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "and 5 files more: exist; --force" in captured.err
    # replacing files says nothing of the beats in the store
    assert main(["segment-bars", "s.zarr", *KINDS, "--force", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["known"], result["done"]) == (2, 0)
    assert len({e["path"] for e in result["exports"]}) == 6
    assert all(same(*pair) for pair in zip(before, stored_beats(), strict=True))


def test_export_edit_and_take_back(segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stored_beats()
    words = ["segment-bars", "s.zarr", "--export", "audacity", "--export-dir", "m y/döir"]
    assert main(words) == 0
    back = ["segment-bars", "s.zarr", "--beats", "m y/döir", "--force", "-j", "1"]
    assert main(back) == 0
    assert all(same(*pair) for pair in zip(before, stored_beats(), strict=True))
    file = sorted(Path("m y/döir").iterdir())[0]
    rows = file.read_text("utf-8").splitlines()
    moved = "0.6125\t0.6125\t1"
    file.write_text("\n".join([rows[0], moved, *rows[3:]]), encoding="utf-8")
    assert main(back) == 0
    changed = [b for b, a in zip(stored_beats(), before, strict=True) if not same(b, a)]
    assert len(changed) == 1
    assert changed[0].beat_in_bar[changed[0].time_s == 0.6125].tolist() == [1]


def test_export_after_segmenting(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.create("s.zarr") as store:
        add_song(store, "a", 5.0)
    words = ["segment-bars", "s.zarr", "--bpm", "120", "--export", "beats", "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["paths"], result["done"]) == (["s.zarr"], 1)
    assert [Path(e["path"]) for e in result["exports"]] == [Path("s-beats/a.beats")]
    assert read_beats("s-beats/a.beats").time_s.tolist() == (np.arange(10) * 0.5).tolist()
    # told how to make them, the command makes them or says why not
    other = ["segment-bars", "s.zarr", "--bpm", "90", "--export", "beats", "--export-dir", "o"]
    assert main(other) == 1
    assert "other settings" in capsys.readouterr().err
    assert not Path("o").exists()
    assert main([*other, "--force"]) == 0
    assert read_beats("o/a.beats").time_s[1] == pytest.approx(60 / 90)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--export-dir", "x"], "--export"),
        (["--export", "midi"], "midi"),
        (["--export", "beats", "--export-dir", "s.zarr/beats"], "lies in a store"),
        (["--export", "beats", "--export-dir", "file"], "not a folder"),
    ],
)
def test_what_cannot_be_meant(
    segmented: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    assert main(["segment-bars", "s.zarr", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err
