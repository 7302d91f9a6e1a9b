"""The passes: recordings of every kind into a store, songs into bars, work shared and resumed."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mgen.core import corpus
from mgen.core.corpus import Segmentation, filter_songs, list_songs, segment_songs
from mgen.core.corpus import bars as bars_pass
from mgen.core.corpus.songs import to_int16
from mgen.core.errors import InputNotFoundError, StaleError, StoreError, UsageError
from mgen.core.parallel import SerialExecutor, in_order, make_executor
from mgen.core.store import RATE, Store, check

MakeSong = Callable[..., Path]
FIXED = Segmentation(bpm=120.0)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.create(tmp_path / "s.zarr") as opened:
        yield opened


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (int(seconds * rate), channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def statuses(store: Store, paths: list[Path], **options: Any) -> list[tuple[str, str]]:
    return [(Path(r.source).name, r.status) for r in filter_songs(store, paths, **options)]


# audio files -> songs


def test_16_khz_mono_pcm_arrives_bit_for_bit(store: Store, tmp_path: Path) -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32767, 40000, endpoint=True).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, RATE, subtype="PCM_16")
    (report,) = filter_songs(store, [tmp_path / "a.wav"], command="mgen filter a.wav")
    assert (report.status, report.song, report.duration_s) == ("added", 0, 2.5)
    assert np.array_equal(store.song_pcm(0)[:], pcm)
    row = store.song(0)
    content = (tmp_path / "a.wav").read_bytes()
    assert row.sha256 == hashlib.sha256(content).hexdigest()
    assert row.sha256.startswith(row.id)
    assert (row.name, row.source) == ("a", str(tmp_path / "a.wav"))
    assert (row.source_rate, row.source_channels, row.kept) == (RATE, 1, True)
    assert np.isnan(row.quality)
    assert store.need("songs").state.provenance.command == "mgen filter a.wav"


def test_int16_rounds_and_clips() -> None:
    floats = np.array([0.0, 0.4 / 32768, 0.6 / 32768, -1.0, 1.0, -3.0, 3.0], np.float32)
    assert to_int16(floats).tolist() == [0, 0, 1, -32768, 32767, -32768, 32767]


def test_a_folder_of_everything(store: Store, tmp_path: Path) -> None:
    """The zoo of the issue: what is music arrives, what is not says why, nothing stops the rest."""
    zoo = tmp_path / "zoo with späces"
    zoo.mkdir()
    soundfile.write(zoo / "0 good.flac", noise(2.0), RATE)
    (zoo / "1 empty.wav").touch()
    (zoo / "2 text.wav").write_text("this is no music\n" * 100)
    soundfile.write(zoo / "whole.mp3", noise(10.0, 44100), 44100)
    data = (zoo / "whole.mp3").read_bytes()
    (zoo / "3 cut.mp3").write_bytes(data[: len(data) // 3])
    (zoo / "whole.mp3").unlink()
    soundfile.write(zoo / "4 eight.wav", noise(2.0, 8000), 8000, subtype="PCM_U8")
    soundfile.write(zoo / "5 six.wav", noise(2.0, 96000, 6), 96000, subtype="PCM_24")
    soundfile.write(zoo / "6 one.wav", noise(1 / RATE), RATE)
    soundfile.write(zoo / "7 silent.wav", np.zeros(3 * RATE), RATE)
    soundfile.write(zoo / "8 last ♫.ogg", noise(2.0, 22050, 2), 22050)
    paths, failed = list_songs([zoo])
    assert failed == []
    reports = {Path(r.source).name: r for r in filter_songs(store, paths)}
    added = {name for name, r in reports.items() if r.status == "added"}
    assert added == {"0 good.flac", "4 eight.wav", "5 six.wav", "8 last ♫.ogg"}
    for name, word in {
        "1 empty.wav": "empty", "2 text.wav": "audio", "3 cut.mp3": "cut short",
        "6 one.wav": "too short", "7 silent.wav": "silent",
    }.items():  # fmt: skip
        report = reports[name]
        assert report.status == "rejected"
        assert word in report.reason
        assert "\n" not in report.reason
        row = store.song(name.removesuffix(Path(name).suffix))
        assert (row.kept, row.n_samples, row.reason) == (False, 0, report.reason)
    assert all(abs(r.duration_s - 2) < 0.01 for r in reports.values() if r.status == "added")
    assert check(store, deep=True) == []
    assert not list(store.spool.iterdir())


def test_inputs_that_stand_for_nothing(tmp_path: Path, make_song: MakeSong) -> None:
    song = make_song("music/a.wav")
    (tmp_path / "empty").mkdir()
    paths, failed = list_songs([tmp_path / "gone", tmp_path / "empty", song, tmp_path / "music"])
    assert paths == [song]
    assert [Path(r.source).name for r in failed] == ["gone", "empty"]
    assert "not found" in failed[0].reason
    assert "no audio" in failed[1].reason


def test_the_same_content_is_one_row(store: Store, make_song: MakeSong) -> None:
    a, other = make_song("a.wav"), make_song("other.wav", bpm=90)
    b = a.with_name("b.wav")
    b.write_bytes(a.read_bytes())
    assert statuses(store, [a, b, other]) == [
        ("a.wav", "added"), ("b.wav", "known"), ("other.wav", "added"),
    ]  # fmt: skip
    assert statuses(store, [b, other]) == [("b.wav", "known"), ("other.wav", "known")]
    assert len(store.songs()) == 2


def test_a_rejected_song_says_so_again(store: Store, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", np.zeros(3 * RATE), RATE)
    for words in ("silent", "earlier run"):
        (report,) = filter_songs(store, [tmp_path / "s.wav"])
        assert report.status == "rejected"
        assert words in report.reason
    assert len(store.songs()) == 1


def test_stopped_anywhere_it_goes_on(store: Store, make_song: MakeSong) -> None:
    songs = [make_song(f"{i}.wav", bpm=90 + i, duration_s=3) for i in range(4)]
    running = filter_songs(store, songs)
    next(running)
    next(running)
    running.close()
    with Store.open(store.location) as reader:
        assert len(reader.songs()) == 2
    assert [status for _, status in statuses(store, songs)] == ["known"] * 2 + ["added"] * 2
    assert check(store, deep=True) == []


def test_reading_anew_never_drops_songs_unasked(store: Store, make_song: MakeSong) -> None:
    a, b = make_song("a.wav", duration_s=3), make_song("b.wav", bpm=90, duration_s=3)
    list(filter_songs(store, [a, b]))
    with pytest.raises(StoreError, match=r"drop 1 songs.*b.*--force"):
        list(filter_songs(store, [a], resume=False))
    assert len(store.songs()) == 2
    assert statuses(store, [b, a], resume=False) == [("b.wav", "added"), ("a.wav", "added")]
    assert statuses(store, [a], force=True) == [("a.wav", "added")]
    assert [s.name for s in store.songs()] == ["a"]
    assert check(store, deep=True) == []


def test_a_long_song_is_never_in_memory_at_once(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_U8") as file:
        block = noise(60, 8000)
        for _ in range(60):
            file.write(block)
    tracemalloc.start()
    (report,) = filter_songs(store, [path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.duration_s == 3600
    whole = 2 * RATE * 3600  # bytes as int16
    assert peak < 0.8 * whole


def test_samples_that_are_no_numbers_are_rejected(store: Store, tmp_path: Path) -> None:
    bad = noise(2.0)
    bad[5000] = np.nan
    soundfile.write(tmp_path / "nan.wav", bad, RATE, subtype="FLOAT")
    (report,) = filter_songs(store, [tmp_path / "nan.wav"])
    assert report.status == "rejected"


# songs -> beats and bars


def test_a_fixed_grid_gives_known_bars(store: Store, make_song: MakeSong) -> None:
    list(filter_songs(store, [make_song(bpm=120, duration_s=12)]))
    how = Segmentation(bpm=117.1875)  # a bar is 2.048 s: the warp is the identity
    (report,) = segment_songs(store, how, command="mgen segment-bars")
    assert (report.status, report.bars, round(report.bpm, 3)) == ("done", report.bars, 117.188)
    bars = store.bars(0)
    whole = bars.where(bars.valid)
    assert len(whole) == 5
    assert np.allclose(whole.start_s, np.arange(5) * 2.048, atol=1e-9)
    assert np.allclose(whole.stretch, 1.0)
    assert (whole.beats == 4).all()
    assert whole.index.tolist() == list(range(5))
    pcm = store.song_pcm(0)
    for bar in range(5):
        assert np.array_equal(
            store.bar_pcm(int(whole.row[bar])), pcm[bar * 32768 : (bar + 1) * 32768]
        )
    assert np.allclose(np.diff(store.beats(0).time_s), 0.512)
    assert check(store, deep=True) == []


def test_a_click_track_is_tracked(store: Store, make_song: MakeSong) -> None:
    list(filter_songs(store, [make_song(bpm=120, duration_s=20, offset_s=0.25)]))
    (report,) = segment_songs(store, Segmentation())
    assert abs(report.bpm - 120) < 0.5
    phase = (store.bars(0).start_s[1:-1] - 0.25) % 0.5
    assert np.minimum(phase, 0.5 - phase).max() < 0.01
    assert store.need("beats").state.provenance.settings == {"tracker": "mgen"}


def test_a_persons_own_beats_are_taken_as_they_are(
    store: Store, make_song: MakeSong, tmp_path: Path
) -> None:
    list(filter_songs(store, [make_song("a.wav", duration_s=8)]))
    times = np.array([0.111, 0.777, 1.333, 2.222, 2.9, 3.6, 4.5])
    places = [1, 2, 3, 1, 2, 3, 1]
    file = tmp_path / "mine.tsv"
    file.write_text("".join(f"{t}\t{p}\n" for t, p in zip(times, places, strict=True)))
    list(segment_songs(store, Segmentation(beats_path=file)))
    assert np.array_equal(store.beats(0).time_s, times)
    assert store.bars(0).beats[:2].tolist() == [3, 3]
    list(filter_songs(store, [make_song("b.wav", bpm=90, duration_s=8)]))
    with pytest.raises(UsageError, match="one file of beats"):
        list(segment_songs(store, Segmentation(beats_path=file)))
    folder = tmp_path / "beats"
    folder.mkdir()
    (folder / "a.beats").write_text(file.read_text())
    with pytest.raises(UsageError, match="no beats for song 'b'"):
        list(segment_songs(store, Segmentation(beats_path=folder), force=True))
    (folder / "b.beats.csv").write_text("time_s,beat_in_bar\n0.5,1\n1.5,2\n2.5,1\n3.5,2\n")
    reports = list(segment_songs(store, Segmentation(beats_path=folder), force=True))
    assert [r.beats for r in reports] == [7, 4]


def test_the_files_that_beats_came_from_are_recorded(
    store: Store, make_song: MakeSong, tmp_path: Path
) -> None:
    list(filter_songs(store, [make_song("a.wav", duration_s=8)]))
    folder = tmp_path / "beats"
    folder.mkdir()
    (folder / "a.beats").write_text("0.5 1\n1.5 2\n2.5 1\n")
    how = Segmentation(beats_path=folder)

    def recorded() -> object:
        return store.need("beats").state.provenance.settings["beats"]

    def hash_of(*names: str) -> str:
        each = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
        return hashlib.sha256("".join(each).encode()).hexdigest()

    list(segment_songs(store, how))
    assert recorded() == hash_of("a.beats")
    # a song that came later is added to those that are there
    list(filter_songs(store, [make_song("b.wav", bpm=90, duration_s=8)]))
    (folder / "b.beats").write_text("0.25 1\n1.25 2\n2.25 1\n")
    assert [r.status for r in segment_songs(store, how)] == ["known", "done"]
    assert recorded() == hash_of("a.beats", "b.beats")
    # a corrected file is not passed over
    (folder / "a.beats").write_text("0.6 1\n1.6 2\n2.6 1\n")
    with pytest.raises(StoreError, match="--force"):
        list(segment_songs(store, how))
    assert store.beats(0).time_s[0] == 0.5
    list(segment_songs(store, how, force=True))
    assert recorded() == hash_of("a.beats", "b.beats")
    assert store.beats(0).time_s[0] == 0.6


def test_jitter_adds_copies_that_only_training_sees(store: Store, make_song: MakeSong) -> None:
    list(filter_songs(store, [make_song(duration_s=10)]))
    (plain,) = segment_songs(store, FIXED)
    how = Segmentation(bpm=120.0, jitter=2, seed=3)
    (report,) = segment_songs(store, how, force=True)
    assert report.bars == plain.bars == len(store.bars(0))
    table = store.bars(0, jittered=True)
    assert len(table) == 3 * report.bars
    real, copy = table.where(table.jitter == 0), table.where(table.jitter == 2)
    assert (real.index == copy.index).all()
    moved = np.abs(real.start_s - copy.start_s)
    assert 0 < moved.max() < 0.5
    before = store.need("bars").state.hash
    list(segment_songs(store, how, force=True))
    assert store.need("bars").state.hash == before


def test_rejected_songs_have_no_bars(store: Store, make_song: MakeSong, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").touch()
    list(
        filter_songs(store, [make_song("a.wav"), tmp_path / "bad.wav", make_song("c.wav", bpm=99)])
    )
    reports = list(segment_songs(store, FIXED))
    assert [r.status for r in reports] == ["done", "skipped", "done"]
    assert [len(store.bars(i)) > 0 for i in range(3)] == [True, False, True]
    assert check(store, deep=True) == []


def test_bars_resume_and_grow(store: Store, make_song: MakeSong) -> None:
    songs = [make_song(f"{i}.wav", bpm=90 + i, duration_s=4) for i in range(3)]
    list(filter_songs(store, songs[:2]))
    running = segment_songs(store, FIXED)
    next(running)
    running.close()
    assert [r.status for r in segment_songs(store, FIXED)] == ["known", "done"]
    list(filter_songs(store, songs))
    assert [r.status for r in segment_songs(store, FIXED)] == ["known", "known", "done"]
    again = list(segment_songs(store, FIXED, resume=False))
    assert [r.status for r in again] == ["done"] * 3


def test_beats_that_are_there_are_not_tracked_again(
    store: Store, make_song: MakeSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(filter_songs(store, [make_song(duration_s=6)]))

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append_bars", dies)
        with pytest.raises(KeyboardInterrupt):
            list(segment_songs(store, Segmentation()))
    assert store.need("beats").length() == 1
    monkeypatch.setattr(bars_pass, "track_beats", dies)
    (report,) = segment_songs(store, Segmentation())
    assert report.status == "done"


def test_changed_songs_make_bars_stale(store: Store, make_song: MakeSong) -> None:
    list(filter_songs(store, [make_song("a.wav", duration_s=4)]))
    list(segment_songs(store, FIXED))
    list(filter_songs(store, [make_song("b.wav", bpm=77, duration_s=4)], force=True))
    with pytest.raises(StaleError, match="--force"):
        list(segment_songs(store, FIXED))
    (report,) = segment_songs(store, FIXED, force=True)
    assert report.name == "b"
    assert check(store, deep=True) == []


def test_other_settings_need_force(store: Store, make_song: MakeSong) -> None:
    list(filter_songs(store, [make_song(duration_s=4)]))
    list(segment_songs(store, FIXED))
    with pytest.raises(StoreError, match="other settings"):
        list(segment_songs(store, Segmentation(bpm=60.0)))
    list(segment_songs(store, Segmentation(bpm=60.0), force=True))
    assert np.allclose(store.bars(0).bpm, 60)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bpm": 0.0}, "0 BPM"),
        ({"bpm": float("nan")}, "BPM"),
        ({"tracker": "ears"}, "no tracker"),
        ({"stretcher": "rack"}, "no stretcher"),
        ({"offset_s": 0.5}, "--bpm"),
        ({"bpm": 100.0, "beats_path": Path("x")}, "exclude"),
        ({"jitter": 500}, "127"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Segmentation(**settings).check()
    with pytest.raises(InputNotFoundError):
        Segmentation(beats_path=Path("gone.tsv")).check()


def test_a_song_that_cannot_be_tracked_does_not_stop_the_rest(
    store: Store, make_song: MakeSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgen.core.errors import AudioError

    songs = [make_song(f"{i}.wav", bpm=90 + i, duration_s=4) for i in range(2)]
    list(filter_songs(store, songs))
    track = bars_pass.track_beats
    calls: list[int] = []

    def once_broken(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise AudioError("holds NaN")
        return track(*args, **options)

    monkeypatch.setattr(bars_pass, "track_beats", once_broken)
    reports = list(segment_songs(store, Segmentation()))
    assert [(r.status, r.reason) for r in reports] == [("failed", "holds NaN"), ("done", "")]
    assert store.segment_reason(0) == "holds NaN"
    assert check(store, deep=True) == []


def test_a_file_gives_the_bars_of_its_store(store: Store, real_song: Path) -> None:
    list(filter_songs(store, [real_song]))
    list(segment_songs(store, Segmentation()))
    alone = corpus.segment_file(real_song)
    assert np.array_equal(alone.beats.time_s, store.beats(0).time_s)
    assert np.array_equal(alone.grid.start_s, store.bars(0).start_s)


# work shared


class Recorder(Executor):
    """Keeps what is submitted; runs each when its result is asked for."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_no_more_than_a_window_is_queued() -> None:
    executor = Recorder()
    drawn: list[int] = []

    def items() -> Any:
        for i in range(20):
            drawn.append(i)
            yield i

    results = []
    for item, future in in_order(executor, lambda i: i * i, items(), window=4):
        assert len(drawn) <= item + 4
        executor.waiting -= 1
        results.append((item, future.result()))
    assert results == [(i, i * i) for i in range(20)]
    assert executor.most == 4


def test_a_failing_item_is_its_own_affair() -> None:
    def halve(i: int) -> float:
        return 1 / i

    futures = [f for _, f in in_order(SerialExecutor(), halve, [2, 0, 4])]
    assert futures[0].result() == 0.5
    assert isinstance(futures[1].exception(), ZeroDivisionError)
    assert futures[2].result() == 0.25


def test_processes_give_what_one_process_gives(tmp_path: Path, make_song: MakeSong) -> None:
    songs = [make_song(f"{i}.wav", bpm=90 + 7 * i, duration_s=4, rate=22050) for i in range(3)]
    hashes = []
    for jobs in (1, 2):
        with Store.create(tmp_path / f"{jobs}.zarr") as store, make_executor(jobs) as executor:
            assert isinstance(executor, SerialExecutor) == (jobs == 1)
            list(filter_songs(store, songs, executor=executor))
            list(segment_songs(store, FIXED, executor=executor))
            hashes.append([store.need(n).state.hash for n in ("songs", "beats", "bars")])
            assert not list(store.spool.iterdir())
    assert hashes[0] == hashes[1]
