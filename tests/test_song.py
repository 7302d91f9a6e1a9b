"""The song inside a level: beat 0 is sample 0, the same song gives the same bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mgen.core.beatmap.cover import band_levels, draw_cover
from mgen.core.beatmap.formats.archive import vorbis_length
from mgen.core.beatmap.rhythm import Timing
from mgen.core.beatmap.song import (
    EXACT_S,
    HOT_START_S,
    Lead,
    downmixed,
    pack_song,
    plan_lead,
    target_rate,
    with_serial,
)
from mgen.core.errors import AudioError


def clicks(times_s: list[float], duration_s: float, rate: int) -> np.ndarray:
    sound = np.zeros(int(duration_s * rate), np.float32)
    for time in times_s:
        at = round(time * rate)
        length = min(int(0.004 * rate), len(sound) - at)
        sound[at : at + length] = 0.8 * np.hanning(2 * length)[length:]
    return sound


def decode(data: bytes) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.T, rate


# --- lead


@given(
    bpm=st.floats(30, 400), share=st.floats(0, 0.999), meter=st.integers(2, 7),
    opening=st.floats(0, 10),
)  # fmt: skip
def test_the_lead_is_whole_beats_and_leaves_time_to_see_the_first_note(bpm, share, meter, opening):
    offset_s = share * meter * 60 / bpm
    timing = Timing(bpm, offset_s, 1.0, meter)
    lead = plan_lead(timing, opening)
    assert lead.beats * 60 / bpm == pytest.approx(offset_s + lead.seconds, abs=EXACT_S)
    assert lead.seconds >= 0
    assert opening + lead.seconds >= HOT_START_S - 2e-6
    if lead.seconds > 4.0:  # then a bar would have been too much: not one beat more than needed
        assert lead.seconds <= HOT_START_S + meter * 60 / bpm + EXACT_S
    if lead.beats % meter:
        assert lead.seconds == 0 or (lead.seconds + meter * 60 / bpm) > 4.0


def test_a_song_on_the_grid_whose_opening_is_quiet_needs_no_padding():
    assert plan_lead(Timing(120.0, 0.0, 1.0), opening_s=2.5) == Lead(0, 0.0)
    assert plan_lead(Timing(120.0, 0.0004, 1.0), opening_s=2.5) == Lead(0, 0.0)
    # one beat in: the grid already holds, though the bars count from beat 1
    assert plan_lead(Timing(120.0, 0.5, 1.0), opening_s=2.5) == Lead(1, 0.0)


def test_music_from_the_first_sample_gets_a_bar_of_silence():
    assert plan_lead(Timing(120.0, 0.0, 1.0), opening_s=0.0) == Lead(4, 2.0)
    lead = plan_lead(Timing(120.0, 0.3, 1.0), opening_s=0.0)
    assert lead.beats == 8  # 5 would do for the grid; whole bars keep downbeats on the bar lines
    assert lead.seconds == pytest.approx(3.7)


# --- packing


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_clicks_land_on_the_beats_of_the_chart(tmp_path, rate, channels):
    offset_s, bpm = 0.217, 133.0
    times = [offset_s + k * 60 / bpm for k in range(20)]
    sound = clicks(times, 12.0, rate)
    soundfile.write(tmp_path / "s.wav", np.stack([sound] * channels, 1), rate)
    lead = plan_lead(Timing(bpm, offset_s, 1.0), opening_s=offset_s)
    packed = pack_song(tmp_path / "s.wav", lead)
    heard, out_rate = decode(packed.data)
    assert out_rate == packed.rate == target_rate(rate)
    assert heard.shape == (channels, packed.n_samples)
    assert vorbis_length(packed.data) == (packed.n_samples, packed.rate)
    assert packed.n_samples == pytest.approx((12.0 + lead.seconds) * out_rate, abs=2)
    assert np.abs(heard[:, : int(0.9 * lead.seconds * out_rate)]).max() < 0.01
    for k in range(20):  # the loudest sample around each beat is the click's first
        beat_s = (lead.beats + k) * 60 / bpm
        start = round((beat_s - 0.02) * out_rate)
        peak = start + int(np.abs(heard[0, start : start + round(0.04 * out_rate)]).argmax())
        assert peak / out_rate == pytest.approx(beat_s, abs=1e-3)


def test_the_same_song_gives_the_same_bytes_and_sounds_the_same(real_song):
    one = pack_song(real_song, Lead(4, 1.25))
    assert pack_song(real_song, Lead(4, 1.25)).data == one.data
    assert not one.own_bytes
    source, rate = soundfile.read(real_song, dtype="float32", always_2d=True)
    heard, heard_rate = decode(one.data)
    assert heard_rate == rate
    pad = round(1.25 * rate)
    assert heard.shape[1] == len(source) + pad
    error = heard[:, pad:] - source.T
    assert 10 * np.log10(np.mean(source**2) / np.mean(error**2)) > 15  # q6, measured: 20 dB


def test_own_vorbis_bytes_are_kept_where_nothing_is_padded(real_song):
    packed = pack_song(real_song, Lead(0, 0.0))
    assert packed.own_bytes
    assert packed.data == Path(real_song).read_bytes()
    assert packed.n_samples == soundfile.info(real_song).frames


def test_flac_is_encoded_even_without_padding(tmp_path):
    soundfile.write(tmp_path / "s.flac", clicks([1.0], 3.0, 44100), 44100)
    packed = pack_song(tmp_path / "s.flac", Lead(0, 0.0))
    assert not packed.own_bytes
    assert packed.data[:4] == b"OggS"
    assert packed.n_samples == 3 * 44100


def test_a_part_of_a_recording(tmp_path):
    soundfile.write(tmp_path / "s.wav", clicks([2.0, 5.0], 8.0, 44100), 44100)
    packed = pack_song(tmp_path / "s.wav", Lead(2, 1.0), start_s=4.0, duration_s=3.0)
    heard, rate = decode(packed.data)
    assert heard.shape[1] == 4 * rate
    assert np.abs(heard[0]).argmax() / rate == pytest.approx(2.0, abs=1e-3)


def test_a_long_song_is_encoded_in_blocks(tmp_path):
    # one write of 3 million samples and more can crash libsndfile's Vorbis encoder
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.2, 0.2, 3_500_000).astype(np.float32)
    soundfile.write(tmp_path / "s.wav", sound, 48000, subtype="FLOAT")
    packed = pack_song(tmp_path / "s.wav", Lead(4, 2.0))
    assert packed.n_samples == 3_500_000 + 96000
    assert soundfile.info(io.BytesIO(packed.data)).frames == packed.n_samples


def test_six_channels_become_two(tmp_path):
    rate = 48000
    sound = np.zeros((3 * rate, 6), np.float32)
    t = np.arange(3 * rate) / rate
    sound[:, 0] = 0.5 * np.sin(2 * np.pi * 440 * t)  # left
    sound[:, 3] = 0.5 * np.sin(2 * np.pi * 50 * t)  # low frequency effects: left out
    sound[:, 5] = 0.5 * np.sin(2 * np.pi * 660 * t)  # right surround
    soundfile.write(tmp_path / "s.wav", sound, rate)
    (left, right), _ = decode(pack_song(tmp_path / "s.wav", Lead(0, 0.0)).data)
    spectrum = np.abs(np.fft.rfft(np.stack([left, right]))) / len(left) * 2
    at = {hz: spectrum[:, round(hz * len(left) / rate)] for hz in (50, 440, 660)}
    assert at[440][0] == pytest.approx(0.5 / 2.42, rel=0.05)
    assert at[660][1] == pytest.approx(0.71 * 0.5 / 2.42, rel=0.05)
    assert at[440][1] < 0.01
    assert at[660][0] < 0.01
    assert at[50].max() < 0.01


@pytest.mark.parametrize("channels", range(1, 10))
def test_downmixing_never_clips(channels):
    assert np.abs(downmixed(np.ones((channels, 8), np.float32))).max() <= 1.0 + 1e-6
    assert len(downmixed(np.ones((channels, 8), np.float32))) == min(channels, 2)


def test_a_serial_number_keeps_the_stream_valid(real_song):
    data = Path(real_song).read_bytes()
    serial = int.from_bytes(data[14:18], "little")
    changed = with_serial(data, 77)
    assert changed != data
    assert with_serial(changed, serial) == data  # our checksums are the encoder's
    assert soundfile.info(io.BytesIO(changed)).frames == soundfile.info(real_song).frames


def test_vorbis_length_of_other_things():
    assert vorbis_length(b"") is None
    assert vorbis_length(b"OggS" * 20) is None
    assert vorbis_length(b"RIFF" + bytes(100)) is None


def test_a_broken_song_is_refused(tmp_path):
    (tmp_path / "s.ogg").write_bytes(b"OggS" + bytes(1000))
    with pytest.raises(AudioError):
        pack_song(tmp_path / "s.ogg", Lead(4, 2.0))


# --- cover


def _noise(seconds: float = 6.0) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.3, 0.3, int(16000 * seconds)).astype(np.float32)


@pytest.mark.parametrize(
    "title",
    [
        "Plain",
        "",
        "Ünïcödé Ørsted",
        "夜に駆ける",
        "🎵",
        "a\nb\x00c",
        "x" * 300,
        "العربية",
        "\u0301",
    ],
)
def test_every_title_gives_a_square_png(title):
    from PIL import Image

    data = draw_cover(_noise(), 16000, title=title, artist=title)
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert picture.size == (512, 512)
    assert len(data) < 300_000


def test_the_cover_depends_on_the_song_and_its_name_alone():
    one = draw_cover(_noise(), 16000, title="A", bar_edges_s=[1.0, 2.0])
    assert draw_cover(_noise(), 16000, title="A", bar_edges_s=[1.0, 2.0]) == one
    assert draw_cover(_noise(), 16000, title="B", bar_edges_s=[1.0, 2.0]) != one
    assert draw_cover(_noise() * np.linspace(0, 1, 96000), 16000, title="A") != one


def test_bands_light_up_where_a_tone_sounds():
    t = np.arange(16000 * 4) / 16000
    tone = np.where(t < 2, np.sin(2 * np.pi * 100 * t), np.sin(2 * np.pi * 5000 * t))
    level_RK = band_levels(tone.astype(np.float32), 16000, np.array([0.0, 1.9, 2.1, 4.0]))
    assert level_RK.min() >= 0
    assert level_RK.max() <= 1
    low, high = level_RK[0], level_RK[2]
    assert low[:5].max() > 0.9
    assert high[-5:].max() > 0.9
    assert low[2] > high[2]
    assert high[-2] > low[-2]


@pytest.mark.parametrize("samples", [np.zeros(16000, np.float32), np.zeros(10, np.float32)])
def test_silence_has_a_cover_too(samples):
    assert draw_cover(samples, 16000, title="Silence")[:4] == b"\x89PNG"
