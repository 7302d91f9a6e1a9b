"""Reading and writing recordings: every format, every broken file, flat memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import stat
import struct
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.audio import (
    Audio,
    find_audio,
    probe,
    read_audio,
    read_mono,
    read_tags,
    require_usable,
    sha256_file,
    stream_audio,
    stream_mono,
    write_audio,
)
from mgen.core.errors import AudioError, InputNotFoundError, MissingDependencyError, UsageError

# what a lossy codec may leave between a 440 Hz tone and its copy, as a share of the tone's power
FORMATS = {
    "a.wav": ("WAV", "PCM_16", 1e-8),
    "a.flac": ("FLAC", "PCM_24", 1e-12),
    "a.aiff": ("AIFF", "PCM_16", 1e-8),
    "a.ogg": ("OGG", "VORBIS", 1e-2),
    "a.mp3": ("MP3", "MPEG_LAYER_III", 1e-2),
    "a.opus": ("OGG", "OPUS", 1e-2),
}


def tone(seconds: float, rate: int = 44100, channels: int = 2) -> Audio:
    time_s = np.arange(round(seconds * rate)) / rate
    one = 0.5 * np.sin(2 * np.pi * 440 * time_s)
    return Audio(np.stack([one * (1 - 0.2 * c) for c in range(channels)]).astype("float32"), rate)


def one_line(error: pytest.ExceptionInfo[Exception], path: Path) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert ";" in message, f"no cure: {message}"
    return message


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_comes_back(name: str, tmp_path: Path) -> None:
    kind, subtype, loss = FORMATS[name]
    path, audio = tmp_path / name, tone(2.0, 48000)
    write_audio(path, audio, subtype=subtype)
    info = probe(path)
    assert (info.path, info.format, info.subtype) == (path, kind, subtype)
    assert (info.rate, info.channels, info.n_samples) == (48000, 2, 96000)
    assert info.duration_s == 2.0
    back = read_audio(path)
    assert (back.rate, back.samples_CN.shape, back.samples_CN.dtype) == (48000, (2, 96000), "f4")
    assert back.duration_s == 2.0
    error = np.mean((back.samples_CN - audio.samples_CN)[:, 2000:-2000] ** 2)
    assert error < loss * np.mean(audio.samples_CN**2)


def test_a_part_is_the_same_as_the_whole_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    write_audio(path, tone(3.0))
    whole = read_audio(path).samples_CN
    part = read_audio(path, start_s=1.0, duration_s=0.5).samples_CN
    assert np.array_equal(part, whole[:, 44100:66150])
    assert read_audio(path, start_s=2.5, duration_s=9.0).samples_CN.shape == (2, 22050)
    assert read_audio(path, start_s=7.0).samples_CN.shape == (2, 0)
    assert read_audio(path, duration_s=0.0).samples_CN.shape == (2, 0)
    with pytest.raises(UsageError):
        read_audio(path, start_s=-1.0)


def test_mono_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    six = tone(0.5, 96000, 6)
    assert np.allclose(six.mono(), six.samples_CN.astype("f8").mean(axis=0), atol=1e-7)
    write_audio(tmp_path / "six.wav", six, subtype="FLOAT")
    assert len(read_mono(tmp_path / "six.wav")) == 8000


def test_eight_bits_at_8_khz(tmp_path: Path) -> None:
    path = tmp_path / "phone.wav"
    write_audio(path, tone(1.0, 8000, 1), subtype="PCM_U8")
    assert (probe(path).rate, probe(path).subtype) == (8000, "PCM_U8")
    back = read_audio(path).samples_CN
    assert np.abs(back - tone(1.0, 8000, 1).samples_CN).max() < 1 / 120
    assert len(read_mono(path, 16000)) == 16000


def test_a_format_is_known_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "song.egg"  # the game's name for Ogg Vorbis
    write_audio(path, tone(0.5))
    assert probe(path).subtype == "VORBIS"
    mp3 = tmp_path / "really-mp3.wav"
    write_audio(mp3, tone(0.5), format="MP3")
    assert probe(mp3).format == "MP3"


# ---------------------------------------------------------------- streams and resampling


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 30000),
    source=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000]),
    rate=st.sampled_from([16000, 22050, 24000]),
    block_s=st.floats(0.003, 1.0),
)
def test_streaming_equals_resampling_in_one_go(
    n: int, source: int, rate: int, block_s: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("stream") / "noise.wav"
    samples = np.random.default_rng(n).uniform(-0.5, 0.5, (1, n)).astype("f4")
    write_audio(path, Audio(samples, source), subtype="FLOAT")
    streamed = np.concatenate([np.zeros(0, "f4"), *stream_mono(path, rate, block_s)])
    assert streamed.dtype == np.float32
    assert len(streamed) == round(n * rate / source)
    truth = samples[0] if source == rate else soxr.resample(samples[0].astype("f8"), source, rate)
    common = min(len(truth), len(streamed))
    assert abs(len(truth) - len(streamed)) <= 1
    assert np.abs(streamed[:common] - truth[:common]).max(initial=0.0) < 1e-4


def test_a_stream_of_blocks_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, tone(1.0))
    blocks = list(stream_audio(path, 0.3))
    assert [b.shape[1] for b in blocks] == [13230, 13230, 13230, 4410]
    assert np.array_equal(np.concatenate(blocks, axis=1), read_audio(path).samples_CN)


def test_three_hours_do_not_lie_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    write_audio(path, Audio(np.zeros((1, 1), "f4"), 8000))
    seconds = 3 * 3600
    header = bytearray(path.read_bytes()[:-2])
    header[-4:] = struct.pack("<I", seconds * 8000 * 2)
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(len(header) + seconds * 8000 * 2)  # a hole: silence that takes no disk
    tracemalloc.start()
    total = sum(len(block) for block in stream_mono(path, 4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == seconds * 4000
    assert peak < 10e6  # the whole would be 170 MB and more


# ---------------------------------------------------------------- broken files


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no such Füße.wav"
    for read in (read_audio, probe, read_tags):
        with pytest.raises(InputNotFoundError) as error:
            read(path)
        one_line(error, path)


def test_files_that_are_no_audio(tmp_path: Path) -> None:
    empty, text, folder = tmp_path / "empty.mp3", tmp_path / "text.wav", tmp_path / "folder.wav"
    empty.touch()
    text.write_text("just words " * 100)
    folder.mkdir()
    for path, word in ((empty, "0 bytes"), (text, "cannot be read"), (folder, "not a regular")):
        for read in (read_audio, read_mono, probe):
            with pytest.raises(AudioError) as error:
                read(path)
            assert word in one_line(error, path)


def test_a_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    write_audio(path, Audio(np.zeros((1, 0), "f4"), 44100))
    for read in (read_audio, read_mono):
        with pytest.raises(AudioError) as error:
            read(path)
        assert "without any samples" in one_line(error, path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.mp3"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_cut_short_is_refused(name: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 44100 * 4)).astype("f4")
    write_audio(path, Audio(noise, 44100))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(AudioError) as error:
        read_mono(path)
    assert "cut short" in one_line(error, path)


def test_a_header_that_is_slightly_wrong_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, tone(10.0))
    data = path.read_bytes()
    path.write_bytes(data[:-4000])
    assert abs(read_audio(path).duration_s - 10.0) < 0.05


def test_a_size_that_the_writer_could_not_know_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    write_audio(path, tone(1.0))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert read_audio(path).samples_CN.shape == (2, 44100)


def test_a_damaged_stretch_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 44100 * 4)).astype("f4")
    write_audio(path, Audio(noise, 44100))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = bytes(20000)
    path.write_bytes(data)
    with pytest.raises(AudioError) as error:
        list(stream_mono(path, block_s=0.5))
    one_line(error, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    samples = tone(2.0).samples_CN.copy()
    samples[1, 50000] = value
    soundfile.write(path, samples.T, 44100, "FLOAT")
    with pytest.raises(AudioError) as error:
        read_mono(path)
    assert "NaN or infinite" in one_line(error, path)


def test_no_channels(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    write_audio(path, tone(0.5))
    data = bytearray(path.read_bytes())
    data[22:24] = b"\0\0"
    path.write_bytes(data)
    with pytest.raises(AudioError) as error:
        read_audio(path)
    one_line(error, path)


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=400),
    name=st.sampled_from(["a.wav", "a.mp3", "a.ogg", "a.flac"]),
)
def test_any_bytes_are_refused_or_read(
    data: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(data)
    with contextlib.suppress(AudioError):
        assert read_mono(path).ndim == 1


def test_decoders_do_not_write_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mp3"
    write_audio(path, tone(3.0))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(2000, len(data) - 2000, 40):
        data[at : at + 60] = rng.bytes(60)
    path.write_bytes(data)
    with contextlib.suppress(AudioError):
        read_mono(path)
    print("still here", file=sys.stderr, flush=True)
    assert capfd.readouterr().err == "still here\n"


def test_what_is_usable() -> None:
    require_usable("a.wav", duration_s=2.0, peak=0.1)
    with pytest.raises(AudioError, match=r"a\.wav: too short \(6\.25e-05 s\); "):
        require_usable("a.wav", duration_s=1 / 16000, peak=0.5)
    with pytest.raises(AudioError, match=r"a\.wav: silent \(all samples are zero\); "):
        require_usable("a.wav", duration_s=60.0, peak=0.0)
    with pytest.raises(AudioError, match=r"peak -80 dBFS"):
        require_usable("a.wav", duration_s=60.0, peak=1e-4)


def test_one_sample_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "one.wav"
    write_audio(path, Audio(np.full((1, 1), 0.25, "f4"), 44100))
    assert read_audio(path).samples_CN.tolist() == [[0.25]]
    assert len(read_mono(path)) == 0  # a third of a sample at 16 kHz


# ---------------------------------------------------------------- finding, hashing, tags


def test_folders_are_searched_and_names_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b/2.MP3", "b/1.wav", "a.ogg", ".hid.wav", ".git/x.wav", "b/._1.wav", "c.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    found = find_audio([tmp_path / "c.txt", tmp_path, tmp_path / "a.ogg", str(tmp_path / "b")])
    names = [p.relative_to(tmp_path).as_posix() for p in found]
    assert names == ["c.txt", "a.ogg", "b/1.wav", "b/2.MP3"]
    with pytest.raises(InputNotFoundError, match="nowhere: not found; check the path"):
        find_audio([tmp_path, "nowhere"])
    assert find_audio([tmp_path / "b" / "up" / "c.txt"]) == [tmp_path / "b" / "up" / "c.txt"]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 9999)
    assert sha256_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["t.ogg", "t.flac", "t.wav", "t.mp3"])
def test_tags(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with soundfile.SoundFile(path, "w", 44100, 1) as file:
        file.title, file.artist, file.album = "Ça va", "The Band", "One"
        file.date, file.genre = "1999-05-01", "Jazz"
        file.write(np.zeros(44100, "f4"))
    tags = read_tags(path)
    assert (tags.title, tags.artist, tags.album) == ("Ça va", "The Band", "One")
    assert (tags.year, tags.genre) == ("1999", "Jazz")


def test_without_tags_the_title_is_the_stem(tmp_path: Path) -> None:
    path = tmp_path / "My Song.v2.wav"
    write_audio(path, tone(0.1))
    assert read_tags(path).title == "My Song.v2"
    assert read_tags(path).artist == ""


# ---------------------------------------------------------------- writing


def test_long_vorbis_does_not_crash(tmp_path: Path) -> None:
    path = tmp_path / "long.ogg"
    n = 3_500_000
    write_audio(path, Audio(np.zeros((1, n), "f4"), 44100))
    assert probe(path).n_samples == n


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keep me.wav"
    write_audio(path, tone(0.1))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(OSError, match="No space"):
        write_audio(path, tone(1.0))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["keep me.wav"]


def test_a_disk_that_takes_no_more_is_an_os_error(tmp_path: Path) -> None:
    path = tmp_path / "big.wav"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match=r"big\.wav"):
            write_audio(path, tone(5.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no format to write"):
        write_audio(tmp_path / "a.xyz", tone(0.1))
    with pytest.raises(UsageError, match="cannot hold VORBIS"):
        write_audio(tmp_path / "a.wav", tone(0.1), subtype="VORBIS")
    with pytest.raises(UsageError, match="cannot hold 1 channels at 44100"):
        write_audio(tmp_path / "a.opus", tone(0.1, channels=1))
    with pytest.raises(AudioError, match="NaN"):
        write_audio(tmp_path / "a.wav", Audio(np.full((1, 9), np.nan, "f4"), 44100))
    with pytest.raises(FileNotFoundError):
        write_audio(tmp_path / "none" / "a.wav", tone(0.1))
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.wav", tmp_path / "plain"
    write_audio(path, tone(0.1))
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


# ---------------------------------------------------------------- the ffmpeg program

FAKE_FFMPEG = """\
    #!{python}
    # stands in for ffmpeg: knows the options that mgen uses, "decodes" a made-up container
    import struct, sys
    words = sys.argv[1:]
    path = words[words.index("-i") + 1].removeprefix("file:")
    data = open(path, "rb").read()
    if data[:4] != b"FAKE":
        sys.exit("Invalid data found when processing input")
    rate, channels, frames = struct.unpack("<3I", data[4:16])
    sys.stderr.write("  Duration: 00:00:%05.2f, start: 0\\n  Stream #0:0: Audio: aac (LC)\\n"
                     % (frames / rate))
    if "ffmetadata" in words:
        sys.stdout.write(";FFMETADATA1\\ntitle=A \\\\= B\\nartist=Somebody\\ndate=2001\\n")
        sys.exit(0)
    start = round(float(words[words.index("-ss") + 1]) * rate) if "-ss" in words else 0
    stop = min(frames, start + round(0.1 * rate)) if "-t" in words else frames
    stop = stop // 4 if data[16:] == b"CUT" else stop
    out = sys.stdout.buffer
    out.write(b".snd" + struct.pack(">5I", 32, 0xFFFFFFFF, 6, rate, channels) + b"Lavf\\0\\0\\0\\0")
    for i in range(start, stop):
        out.write(struct.pack(">%df" % channels, *[i / frames * (c + 1) / channels
                                                    for c in range(channels)]))
    if data[16:] == b"BROKEN":
        sys.exit(1)
"""


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(textwrap.dedent(FAKE_FFMPEG).format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return tmp_path


def m4a(path: Path, tail: bytes = b"") -> Path:
    path.write_bytes(b"FAKE" + struct.pack("<3I", 8000, 2, 4000) + tail)
    return path


def test_m4a_needs_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError) as error:
        read_audio(m4a(tmp_path / "a.m4a"))
    assert "install ffmpeg" in one_line(error, tmp_path / "a.m4a")


def test_m4a_through_ffmpeg(fake_ffmpeg: Path) -> None:
    path = m4a(fake_ffmpeg / "-odd name.m4a")
    info = probe(path)
    assert (info.format, info.subtype, info.rate, info.channels) == ("M4A", "AAC", 8000, 2)
    assert (info.n_samples, info.duration_s) == (4000, 0.5)
    truth = np.arange(4000) / 4000 * np.array([[0.5], [1.0]])
    assert np.allclose(read_audio(path).samples_CN, truth, atol=1e-6)
    part = read_audio(path, start_s=0.25, duration_s=0.125).samples_CN
    assert np.allclose(part, truth[:, 2000:3000], atol=1e-6)
    assert len(read_mono(path)) == 8000
    assert [b.shape for b in stream_audio(path, 0.2)] == [(2, 1600), (2, 1600), (2, 800)]
    next(stream_audio(path, 0.1)).sum()  # a reader that stops early leaves nothing running
    assert (read_tags(path).title, read_tags(path).artist) == ("A = B", "Somebody")


def test_what_ffmpeg_refuses(fake_ffmpeg: Path) -> None:
    text = fake_ffmpeg / "text.m4a"
    text.write_text("no music")
    broken = m4a(fake_ffmpeg / "broken.m4a", b"BROKEN")
    cut = m4a(fake_ffmpeg / "cut.m4a", b"CUT")
    words = ("cannot be read", "stopped early", "cut short: 0.1 s")
    for path, word in zip((text, broken, cut), words, strict=True):
        with pytest.raises(AudioError) as error:
            read_mono(path)
        assert word in one_line(error, path)
