"""Edits from beginning to end: what is outside the bars, what is inside, takes, interruptions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from edit_songs import (
    BAR_S,
    OFFSET_S,
    NoiseWriter,
    cached,
    edit,
    edit_in,
    fill_store,
    native,
    span,
    write_song,
)

from mgen.core.audio import sha256_file
from mgen.core.editing.cache import add_song, cache_path, open_cache
from mgen.core.editing.files import Target
from mgen.core.editing.loudness import loudness
from mgen.core.editing.source import SourceFile
from mgen.core.editing.spans import Share
from mgen.core.errors import InputError, OutputExistsError, StoreError, UsageError
from mgen.core.store import Store, check

FORMATS = [
    # format, subtype, rate, channels, what samples are compared as, ending, ending of the edit
    ("WAV", "PCM_16", 44100, 2, "int16", ".wav", ".wav"),
    ("WAV", "PCM_24", 48000, 1, "int32", ".wav", ".wav"),
    ("WAV", "PCM_32", 22050, 2, "int32", ".wav", ".wav"),
    ("WAV", "PCM_U8", 16000, 1, "int16", ".wav", ".wav"),
    ("WAV", "FLOAT", 96000, 1, "float32", ".wav", ".wav"),
    ("WAV", "DOUBLE", 8000, 2, "float64", ".wav", ".wav"),
    ("WAV", "PCM_16", 11025, 6, "int16", ".wav", ".wav"),
    ("WAVEX", "PCM_24", 48000, 6, "int32", ".wav", ".wav"),
    ("RF64", "PCM_16", 32000, 1, "int16", ".wav", ".wav"),
    ("FLAC", "PCM_16", 44100, 1, "int16", ".flac", ".flac"),
    ("FLAC", "PCM_24", 48000, 2, "int32", ".flac", ".flac"),
    ("AIFF", "PCM_16", 44100, 2, "int16", ".aif", ".aif"),
    ("AIFF", "FLOAT", 24000, 1, "float32", ".aiff", ".aiff"),
    ("MP3", "MPEG_LAYER_III", 44100, 2, "float32", ".mp3", ".wav"),
    ("OGG", "VORBIS", 44100, 2, "float32", ".ogg", ".wav"),
    ("OGG", "OPUS", 48000, 1, "float32", ".opus", ".wav"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("format", "subtype", "rate", "channels", "dtype", "suffix", "made_suffix"), FORMATS
)
def test_every_sample_outside_is_the_source(
    tmp_path: Path, format: str, subtype: str, rate: int, channels: int, dtype: str, suffix: str,
    made_suffix: str,
) -> None:  # fmt: skip
    song = write_song(tmp_path / f"s{suffix}", 4.6, rate, channels, format=format, subtype=subtype)
    before = song.read_bytes()
    (report,) = edit(song, "2")
    assert song.read_bytes() == before
    assert report.path == tmp_path / f"s.edit-1{made_suffix}"
    old, new = native(song, dtype), native(report.path, dtype)
    assert new.shape == old.shape
    inside = span(2, rate)
    assert np.array_equal(new[: inside.start], old[: inside.start])
    assert np.array_equal(new[inside.stop :], old[inside.stop :])
    assert report.outside == 0.0
    differs = int((new != old).any(axis=1).sum())
    assert report.changed == differs
    assert differs > 0.9 * (inside.stop - inside.start) or subtype == "PCM_U8"
    made = soundfile.info(report.path)
    lossless = made_suffix == suffix
    assert made.subtype == (subtype if lossless else "FLOAT")
    assert made.format == (format if lossless else "WAV")
    # the seam: within 1 LU of what was there, and no louder jump from sample to sample
    for step in report.seams_LU[0]:
        assert step is not None
        assert abs(step) < 1.0
    jump_old = np.abs(np.diff(old[inside].astype(float), axis=0)).max()
    for edge in (inside.start, inside.stop):
        jump = np.abs(np.diff(new[edge - 3 : edge + 3].astype(float), axis=0)).max()
        assert jump <= 1.01 * jump_old


def test_first_last_and_all_bars(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.wav", rate=22050, channels=2, subtype="PCM_16")
    old = native(song, "int16")
    for bars, inside in (
        ("1", span(1, 22050)), ("3", span(3, 22050)), ("1-3", span(1, 22050, 3)), ("1,3", None)
    ):  # fmt: skip
        (report,) = edit(song, bars)
        new = native(report.path, "int16")
        changed = (new != old).any(axis=1)
        if inside is None:
            middle = span(2, 22050)
            assert not changed[middle].any()
            assert changed[span(1, 22050)].any()
            assert changed[span(3, 22050)].any()
        else:
            assert not changed[: inside.start].any()
            assert not changed[inside.stop :].any()
            assert changed[inside].mean() > 0.9


def test_a_bar_at_the_very_beginning_and_end(tmp_path: Path) -> None:
    song = tmp_path / "s.wav"
    whole = write_song(tmp_path / "longer.wav", 4.25, 44100, 2)
    sound, rate = soundfile.read(whole, dtype="int16")
    soundfile.write(song, sound[round(OFFSET_S * rate) :], rate)  # bars from sample 0 to the end
    with Store.create(cache_path(song, sha256_file(song))) as store:
        from mgen.core.corpus import Segmentation, filter_songs, segment_songs

        list(filter_songs(store, [song]))
        list(segment_songs(store, Segmentation(bpm=120)))
        assert len(store.bars(0)) == 2
    (report,) = edit(song, "1-2")
    assert report.seams_LU == ((None, None),)
    assert report.samples == len(native(song, "int16")) == len(native(report.path, "int16"))


def test_neighbours_are_one_span_without_the_source_between(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.wav", 6.6, 44100)
    (report,) = edit(song, "1-2")
    assert len(report.spans_s) == 1
    (single,) = edit(song, "1")
    joint = span(1, 44100).stop
    old, both, one = (native(p, "float64")[:, 0] for p in (song, report.path, single.path))
    near = slice(joint - 441, joint)
    alone = np.corrcoef(old[near], one[near])[0, 1]  # here the crossfade leads back to the source
    joined = np.corrcoef(old[near], both[near])[0, 1]
    assert alone > 0.5
    assert abs(joined) < 0.3


def test_strength_0_is_the_source_and_asks_nobody(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.ogg", 4.6, 44100, 2, format="OGG", subtype="VORBIS")
    writer = NoiseWriter()
    (report,) = edit(song, "1-2", writer=writer, strength=0.0)
    assert writer.asked == []
    assert report.changed == 0
    assert np.array_equal(native(report.path, "float32"), native(song, "float32"))


def test_the_song_goes_on_past_its_end(tmp_path: Path) -> None:
    rate = 22050
    song = write_song(tmp_path / "s.wav", 4.6, rate, 2)
    old = native(song, "int16")
    with cached(song) as store:
        end = round(float(store.bars(0).end_s[-1]) * rate)
        count = len(store.bars(0))
    (report,) = edit(song, "", append=2)
    new = native(report.path, "int16")
    bar = round(float(BAR_S) * rate)
    assert abs(len(new) - (end + 2 * bar)) <= 2
    assert np.array_equal(new[:end], old[:end])
    assert np.abs(new[end + bar // 2 : end + bar].astype(float)).max() > 300
    assert not new[-1].any()
    (more,) = edit(song, str(count + 2), on=report.number, seed=5)
    longer = native(more.path, "int16")
    assert len(longer) == len(new)
    assert np.array_equal(longer[: end + bar - 2], new[: end + bar - 2])
    assert not np.array_equal(longer, new)


def test_loudness_follows_the_source_and_the_action(tmp_path: Path) -> None:
    rate = 22050
    song = write_song(tmp_path / "s.wav", 8.6, rate, 2, subtype="FLOAT")
    whole = span(2, rate, 3)
    old = native(song, "float64")[whole]
    levels = []
    for change in (0.0, 4.0):
        (report,) = edit(song, "2-3", writer=NoiseWriter(change), seed=int(change))
        new = native(report.path, "float64")[whole]
        middle = slice(rate, -rate)
        levels.append(loudness(new[middle], rate) - loudness(old[middle], rate))
        assert all(step is not None and abs(step) < 1.0 for step in report.seams_LU[0])
    assert abs(levels[0]) < 1.0
    assert levels[1] - levels[0] == pytest.approx(4.0, abs=0.8)


# where things go, and what is in the way


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.wav", 4.6)
    mine = tmp_path / "s.edit-1.wav"
    mine.write_text("mine")
    (report,) = edit(song, "1")
    assert (report.number, report.path.name) == (2, "s.edit-2.wav")
    assert mine.read_text() == "mine"
    report.path.write_text("mine too")
    with pytest.raises(OutputExistsError, match="is not what take 2 holds"):
        edit(song, "1")
    out = tmp_path / "out.wav"
    out.write_text("mine as well")
    writer = NoiseWriter()
    with pytest.raises(OutputExistsError, match=r"out\.wav: exists"):
        edit(song, "2", writer=writer, out=out)
    assert writer.asked == []
    (forced,) = edit(song, "2", out=out, force=True)
    assert forced.path == out
    assert forced.samples == len(native(out, "int16"))
    with pytest.raises(UsageError, match="is the source"):
        edit(song, "2", out=song, force=True)
    inside = cache_path(song, "0" * 64) / "x.wav"
    with pytest.raises(UsageError, match="lies in a store"):
        edit(song, "2", out=inside)


def test_other_containers_and_lossy_ones(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.wav", 4.6, 44100, 2, subtype="FLOAT")
    for name in ("x.mp3", "x.ogg", "x.flac"):
        with pytest.raises(UsageError, match="--lossy"):
            edit(song, "1", out=tmp_path / name)
    (report,) = edit(song, "1", out=tmp_path / "x.mp3", lossy=True)
    assert report.outside is None
    assert soundfile.info(report.path).format == "MP3"
    with pytest.raises(UsageError, match="no format to write"):
        edit(song, "1", out=tmp_path / "x.doc")
    flac = write_song(tmp_path / "f.flac", 4.6, 44100, 2, subtype="PCM_24")
    (made,) = edit(flac, "1", out=tmp_path / "y.wav")
    assert soundfile.info(made.path).subtype == "PCM_24"
    old, new = native(flac, "int32"), native(made.path, "int32")
    assert np.array_equal(new[span(1, 44100).stop :], old[span(1, 44100).stop :])
    folder = tmp_path / "takes"  # without an ending it is a folder, and made
    names = [r.path.name for r in edit(flac, "1", out=folder, takes=2)]
    assert names == ["f.edit-1.flac", "f.edit-2.flac"]
    with pytest.raises(UsageError, match="name a folder"):
        edit(flac, "1", out=tmp_path / "z.wav", takes=2)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_what_only_ffmpeg_reads_becomes_float_wav(tmp_path: Path) -> None:
    song, wav = tmp_path / "s.m4a", write_song(tmp_path / "s0.wav", 4.6, 44100, 2)
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(wav), "-c:a", "aac", str(song)], check=True)
    with SourceFile(song) as source:
        old = np.concatenate(list(source.blocks()))
    (report,) = edit(song, "2")
    new = native(report.path, "float32")
    assert soundfile.info(report.path).subtype == "FLOAT"
    inside = span(2, 44100)
    assert new.shape == old.shape
    assert np.array_equal(new[: inside.start], old[: inside.start])
    assert np.array_equal(new[inside.stop :], old[inside.stop :])


def test_a_folder_that_is_read_only_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    song, writer = write_song(tmp_path / "s.wav", 4.6), NoiseWriter()
    cached(song).close()
    with Store.open(tmp_path / "s.mgen.zarr", "a") as store:
        monkeypatch.setattr("mgen.core.editing.files.os.access", lambda *_: False)
        with pytest.raises(PermissionError):
            edit_in(store, store.song(0), "1", Target(song=song), writer)
    assert writer.asked == []


def test_a_wav_beyond_4_gb_becomes_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = write_song(tmp_path / "s.wav", 4.6, 16000)
    aiff = write_song(tmp_path / "a.aiff", 4.6, 16000, seed=1)
    monkeypatch.setattr("mgen.core.editing.writing._LARGEST", 100_000)
    (report,) = edit(song, "1")
    assert report.path.read_bytes()[:4] == b"RF64"
    inside = span(1, 16000)
    assert np.array_equal(
        native(report.path, "int16")[inside.stop :], native(song, "int16")[inside.stop :]
    )
    with pytest.raises(UsageError, match="ends at 4 GB"):
        edit(aiff, "1")


def test_a_source_that_changed_or_went(tmp_path: Path) -> None:
    song = write_song(tmp_path / "songs" / "s.wav", 4.6)
    with Store.create(tmp_path / "s.zarr") as store:
        fill_store(store, song)
        row, target = store.song(0), Target(song=song)
        moved = song.rename(tmp_path / "moved.wav")
        with pytest.raises(InputError, match=r"s\.wav: gone .*--source FILE"):
            edit_in(store, row, "1", target)
        write_song(song, 4.6, seed=2)
        with pytest.raises(InputError, match=r"s\.wav: not the file .*--source FILE"):
            edit_in(store, row, "1", target)
        (report,) = edit_in(store, row, "1", target, source=moved)
        inside = span(1, 16000)
        old, new = native(moved, "int16"), native(report.path, "int16")
        assert np.array_equal(new[inside.stop :], old[inside.stop :])
        with pytest.raises(InputError, match="give the file that 's' was made from"):
            edit_in(store, row, "2", target, source=song)


def test_a_cut_of_a_longer_file(tmp_path: Path) -> None:
    """`filter --keep clips` stores stretches; bars are in seconds of the whole file."""
    from dataclasses import replace

    from mgen.core.beats import fixed_beats
    from mgen.core.corpus import Segmentation, segment_songs
    from mgen.core.store import Provenance

    song = write_song(tmp_path / "s.wav", 9.0, 44100, 2)
    with Store.create(tmp_path / "whole.zarr") as whole, Store.create(tmp_path / "s.zarr") as store:
        fill_store(whole, song)
        row, start = whole.song(0), 2.0
        pcm = whole.song_pcm(0)[round(start * 16000) :]
        store.append_song(replace(row, id=f"{row.id}-1", start_s=start), [pcm], Provenance())
        assert fixed_beats(7.0, 120, 0.25).time_s[0] == 0.25
        list(segment_songs(store, Segmentation(bpm=120, offset_s=0.25)))
        assert store.bars(0).start_s[0] == 2.25
        (report,) = edit_in(store, store.song(0), "1", Target(song=song))
    old, new = native(song, "int16"), native(report.path, "int16")
    inside = span(2, 44100)
    assert np.array_equal(new[: inside.start], old[: inside.start])
    assert np.array_equal(new[inside.stop :], old[inside.stop :])
    assert (new[inside] != old[inside]).any(axis=1).mean() > 0.9


def test_the_cache_goes_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = tmp_path / "s.wav"
    monkeypatch.delenv("MGEN_CACHE", raising=False)
    assert cache_path(song, "ab" * 32) == tmp_path / "s.mgen.zarr"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "access", lambda *_: False)
    wanted = tmp_path / "cache" / "mgen" / "s-abababababab.mgen.zarr"
    assert cache_path(song, "ab" * 32) == wanted
    monkeypatch.setenv("MGEN_CACHE", str(tmp_path / "mine"))
    assert cache_path(song, "ab" * 32) == tmp_path / "mine" / "s-abababababab.mgen.zarr"


def test_bars_that_are_not_there_or_not_fit(tmp_path: Path) -> None:
    song = write_song(tmp_path / "s.wav", 7.0)
    with cached(song) as store:
        bars = store.bars(0)
        count = len(bars)
        odd = [int(i) + 1 for i in np.flatnonzero(~bars.valid)]
    with pytest.raises(UsageError, match=f"the song has bars 1-{count}"):
        edit(song, str(count + 1))
    with pytest.raises(UsageError, match="outside the palette; it has 0-63"):
        edit(song, "1", action=(Share(64, 1.0),))
    assert odd
    with pytest.raises(UsageError, match=f"bar {odd[0]}: .*--force"):
        edit(song, str(odd[0]))
    (report,) = edit(song, str(odd[0]), force=True)
    assert report.changed > 0


def test_a_song_is_segmented_and_tokenized_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgen.core.editing.cache import prepare, require
    from mgen.core.tokenizer import Tokenizer, build, make_config
    from mgen.core.tokenizer import config as tokenizer_config
    from mgen.core.tokenizer.passes import latents_id

    tiny = {"encoder": 8, "encoder_depth": 1, "guide": 8, "guide_depth": 1, "decoder": 8,
            "decoder_depth": 1, "condition": 8}  # fmt: skip
    monkeypatch.setattr(tokenizer_config, "_SIZES", {("spectral", "small"): tiny})
    tokenizer = Tokenizer(build(make_config()), "ab" * 32)
    song = write_song(tmp_path / "s.wav", 6.6)
    sha256 = sha256_file(song)
    with open_cache(song, sha256) as store:
        row = add_song(store, song, sha256)
        with pytest.raises(StoreError, match="run `mgen segment-bars` first"):
            require(store, row, tokenizer)
        assert list(prepare(store, row, None)) == ["beats and bars"]
        with pytest.raises(StoreError, match="run `mgen tokenize` first"):
            require(store, row, tokenizer)
        assert list(prepare(store, row, tokenizer)) == ["latents"]
        require(store, row, tokenizer)
        assert len(store.latents(latents_id(tokenizer), row.index)) == len(store.bars(row.index))
        again = write_song(tmp_path / "s.flac", 4.6, seed=4)  # shares the store of its stem
        other = add_song(store, again, sha256_file(again))
        assert other.index == 1
        assert list(prepare(store, other, tokenizer)) == ["beats and bars", "latents"]
        assert list(prepare(store, row, tokenizer)) == []
        assert check(store, deep=True) == []
