"""Written levels in the sound of the recording: what is chosen, how it is laid, how it fits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from edit_songs import BAR_S, OFFSET_S, edit, native, span, write_song
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.core.bars import BAR_SAMPLES
from mgen.core.editing.loudness import loudness
from mgen.core.editing.mosaic import JUMP, Piece, compose, features, lay, pieces, select
from mgen.core.editing.request import WriteRequest, WrittenBars
from mgen.core.tokenizer import build, make_config
from mgen.core.tokenizer.bands import averaged
from mgen.core.tokenizer.levels import BandLevels, joined

RATE, HOP = 16000, 256


@pytest.fixture(scope="module")
def bands() -> BandLevels:
    """The bands of the shipped architecture, with no levels yet."""
    network = build(make_config())
    empty = torch.zeros(0)
    return BandLevels(mel=network.mel, pitch=network.pitch, mel_TM=empty, pitch_TM=empty)


def chord(seconds: float, *hertz: float, rate: int = RATE, level: float = 0.1) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return sum(level * np.sin(2 * np.pi * f * t) for f in hertz).astype(np.float32)


def peak_hz(samples_N: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples_N * np.hanning(len(samples_N))))
    return float(spectrum.argmax() * rate / len(samples_N))


# choosing


def cost_of(
    path: tuple[int, ...], distance: np.ndarray, before: int | None, after: int | None
) -> float:
    heard = [*path] if before is None else [before, *path]
    heard = heard if after is None else [*heard, after]
    jumps = sum(b != a + 1 for a, b in itertools.pairwise(heard))
    return float(sum(distance[t, s] for t, s in enumerate(path)) + JUMP * jumps)


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 4), st.none() | st.integers(0, 4),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_path_costs_less(
    count: int, frames: int, seed: int, before: int | None, after: int | None
) -> None:
    before, after = (x if x is None or x < frames else None for x in (before, after))
    distance = (3 * np.random.default_rng(seed).random((count, frames))).astype(np.float32)
    found = tuple(select(distance, before=before, after=after).tolist())
    every = itertools.product(range(frames), repeat=count)
    least = min(cost_of(path, distance, before, after) for path in every)
    assert cost_of(found, distance, before, after) == pytest.approx(least, abs=1e-4)


def test_frames_are_alike_in_shape_and_level() -> None:
    mel = np.random.default_rng(0).standard_normal((3, 80)).astype(np.float32)
    own, louder = features(mel), features(mel + 1.0)
    assert np.linalg.norm(own - louder, axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    other = features(mel[:, ::-1])
    wanted = np.sqrt(np.mean((mel - mel[:, ::-1]) ** 2, axis=1))
    assert np.linalg.norm(own - other, axis=1) == pytest.approx(wanted, rel=1e-4)


# laying


def test_a_path_that_goes_straight_on_is_the_recording() -> None:
    recording = np.random.default_rng(0).standard_normal((40 * HOP, 2)).astype(np.float32)
    found = pieces(np.arange(5, 25), HOP, recording[:, 0])
    assert found == [Piece(0, 20 * HOP, 5 * HOP)]
    assert np.array_equal(lay(found, recording, 1, 1), recording[5 * HOP : 25 * HOP])


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_pieces_are_the_same_places_at_any_rate(rate: int) -> None:
    long = np.stack([chord(3, 300, rate=rate), chord(3, 700, rate=rate)], axis=1)
    found = [Piece(0, 16000, 8000), Piece(16000, 24000, 4000)]
    out = lay(found, long, rate, RATE)
    assert len(out) == round(1.5 * rate)
    half = rate // 2
    assert np.array_equal(out[: rate - half // 2], long[half : half + rate - half // 2])
    assert peak_hz(out[:, 1], rate) == pytest.approx(700, abs=2)


def test_a_piece_goes_on_in_phase() -> None:
    recording = chord(2.0, 313.7)
    path = np.concatenate([np.arange(10, 40), np.arange(71, 90), np.arange(20, 50)])
    found = pieces(path, HOP, recording)
    assert [p.first for p in found] == [0, 30 * HOP, 49 * HOP]
    assert found[0].source == 10 * HOP
    assert found[2].source == 20 * HOP  # the last one stays, as what follows it does
    assert abs(found[1].source - 71 * HOP) <= 256
    out = lay(found, recording[:, None], 1, 1)[:, 0]
    joint = slice(29 * HOP, 31 * HOP)
    assert np.abs(np.diff(out[joint])).max() < 1.1 * 0.1 * 2 * np.pi * 313.7 / RATE
    level = np.sqrt(2 * np.mean(out[joint] ** 2))
    assert level == pytest.approx(0.1, rel=0.05)  # neither dip nor swell


def test_what_the_recording_does_not_reach_is_silent() -> None:
    recording = np.ones((4 * HOP, 1), np.float32)
    out = lay([Piece(0, 6 * HOP, HOP)], recording, 1, 1)
    assert out[:, 0].tolist() == [1.0] * 3 * HOP + [0.0] * 3 * HOP


# levels


def test_levels_between_frames_and_beyond_the_ends(bands: BandLevels) -> None:
    sound = np.random.default_rng(0).standard_normal(20 * HOP).astype(np.float32)
    own = bands.of(sound)
    assert len(own) == 20
    same = own.at(np.arange(20.0))
    assert torch.equal(same.mel_TM, own.mel_TM)
    between = own.at(np.array([-3.0, 4.25, 99.0]))
    wanted = torch.stack(
        [own.mel_TM[0], 0.75 * own.mel_TM[4] + 0.25 * own.mel_TM[5], own.mel_TM[19]]
    )
    assert torch.allclose(between.mel_TM, wanted, atol=1e-5)
    assert torch.equal(joined([own.part(0, 8), own.part(8, 20)]).pitch_TM, own.pitch_TM)
    louder = bands.of(np.float32(10**0.25) * sound)  # 5 dB
    assert torch.allclose(louder.mel_TM, own.moved(0.5).mel_TM, atol=1e-3)


def test_mean_amplitudes_are_brought_and_attacks_stay(bands: BandLevels) -> None:
    rng = np.random.default_rng(1)
    beat = np.tile(np.exp(-np.arange(4096) / 600), 16)  # an attack every quarter of a second
    sound = (0.1 * beat * rng.standard_normal(len(beat))).astype(np.float32)
    wanted = bands.of((0.05 * rng.standard_normal(len(beat))).astype(np.float32))  # no attacks
    exact, averages = wanted.bring(sound, 3), wanted.bring(sound, 3, 33)

    def swing(samples: np.ndarray) -> float:
        level = np.log10(np.square(samples).reshape(-1, HOP).mean(axis=1))
        return float(level.std())

    assert swing(exact) < 0.3 * swing(sound)
    assert swing(averages) > 0.7 * swing(sound)
    found = bands.of(averages).mel_TM
    both = [averaged(x[None, None], 33)[0, 0, 40:-40] for x in (found, wanted.mel_TM)]
    assert (both[0] - both[1]).abs().mean() < 0.1  # 1 dB
    constant = torch.full((1, 1, 50, 3), -2.5)
    assert torch.allclose(averaged(constant, 33), constant, atol=1e-5)


# composing


def test_what_is_wanted_where_it_is_comes_back(bands: BandLevels) -> None:
    """Levels of a stretch of the recording itself, in place: one piece, all but unchanged."""
    rng = np.random.default_rng(0)
    recording = (0.1 * rng.standard_normal(300 * HOP)).astype(np.float32)
    first = 100 * HOP + 77
    own = bands.of(recording[77 : 77 + 299 * HOP]).part(100, 150)
    made, mosaic = compose(own, recording, first)
    assert len(made) == 50 * HOP
    error = made - recording[first : first + 50 * HOP]
    assert np.sqrt(np.mean(error**2)) < 0.02 * 0.1
    assert [p.source - p.first for p in mosaic.pieces] == [first - mosaic.begin]


def test_the_notes_that_were_written_are_found_elsewhere(bands: BandLevels) -> None:
    recording = np.concatenate([chord(2, 262, 330), chord(2, 440, 554), chord(2, 262, 330)])
    wanted = bands.of(chord(1.024, 440, 554))
    first = round(0.5 * RATE)
    made, mosaic = compose(wanted, recording, first)
    assert peak_hz(made) in (pytest.approx(440, abs=2), pytest.approx(554, abs=2))
    taken = [p for p in mosaic.pieces if p.first >= mosaic.begin]
    assert all(2 * RATE - 512 <= p.source <= 4 * RATE for p in taken[:-1])


def test_a_long_sound_is_made_as_a_short_one_is(
    bands: BandLevels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some frames at a time: every part goes on from the one before, and none is heard to."""
    rng = np.random.default_rng(3)
    tones = [chord(0.512, *rng.choice([262, 330, 392, 523, 659], 2)) for _ in range(24)]
    recording = np.concatenate(tones)
    wanted = bands.of(np.concatenate([tones[i] for i in (7, 3, 12, 12, 20, 5)]))
    whole, by_one = compose(wanted, recording, 64 * HOP)
    monkeypatch.setattr("mgen.core.editing.mosaic._AT_ONCE", 70)
    parts, by_some = compose(wanted, recording, 64 * HOP)
    assert len(by_some.pieces) <= len(by_one.pieces) + 2  # a jump may be seen too late
    assert np.abs(np.diff(parts)).max() <= 1.05 * np.abs(np.diff(whole)).max()
    off = (bands.of(parts).mel_TM - bands.of(whole).mel_TM).abs().mean()
    assert off < 0.3  # 3 dB, where other pieces were taken


def test_past_the_end_it_goes_on(bands: BandLevels) -> None:
    recording = chord(2, 262, 330)
    made, _ = compose(bands.of(chord(1.024, 262, 330)), recording, len(recording))
    assert len(made) == 64 * HOP
    assert np.sqrt(np.mean(made**2)) == pytest.approx(0.1, rel=0.1)
    with pytest.raises(ValueError, match="nothing to choose from"):
        compose(bands.of(chord(1.024, 262)), np.zeros(10, np.float32), 0)


# in an edit


class LevelWriter:
    """Writes the levels of a bar of the song for every bar."""

    model_ids = {"dynamics": "levels", "palette": "none"}  # noqa: RUF012
    tokenizer = None
    actions = 64

    def __init__(self, bands: BandLevels, like: int) -> None:
        self.bands, self.like = bands, like

    def write(self, request: WriteRequest) -> WrittenBars:
        count = len(request.edited)
        pcm = request.store.bar_pcm(int(request.bars.row[self.like]))
        levels = self.bands.of(pcm.astype(np.float32) / np.float32(32768))
        z = np.full((count, 64, 16), request.take, np.float32)
        return WrittenBars(z_BLD=z, change_LU=np.zeros(count), levels=[levels] * count)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_channels_and_highs_come_with_the_pieces(
    tmp_path: Path, bands: BandLevels, rate: int
) -> None:
    """Bars 1, 2 and 4 play a chord on the left, bar 3 another on the right with a tone above
    8 kHz; bar 2 is told to be like bar 3.
    """
    left = chord(BAR_S, 262, 330, rate=rate)
    right = chord(BAR_S, 440, 554, rate=rate)
    if rate > 16000:
        right += chord(BAR_S, 11000, rate=rate, level=0.05)
    quiet = 0.001 * np.random.default_rng(0).standard_normal((2, round(9 * rate)))
    sound = np.zeros((round(9 * rate), 2), np.float32)
    for bar, (channel, tone) in enumerate([(0, left), (0, left), (1, right), (0, left)]):
        at = round((OFFSET_S + bar * BAR_S) * rate)
        sound[at : at + len(tone), channel] = tone
    sound += quiet.T.astype(np.float32)
    path = tmp_path / "song.wav"
    soundfile.write(path, sound, rate, subtype="FLOAT")
    (report,) = edit(path, "2", writer=LevelWriter(bands, 2))
    out, old = native(report.path, "float32"), native(path, "float32")
    edited = span(2, rate)
    assert np.array_equal(out[: edited.start], old[: edited.start])
    assert np.array_equal(out[edited.stop :], old[edited.stop :])
    middle = out[edited][rate // 2 : -rate // 2]
    power = np.square(middle).mean(axis=0)
    assert power[1] > 10 * power[0]
    assert peak_hz(middle[:, 1], rate) in (pytest.approx(440, abs=3), pytest.approx(554, abs=3))
    if rate > 16000:
        spectrum = np.abs(np.fft.rfft(middle[:, 1] * np.hanning(len(middle))))
        hertz = np.arange(len(spectrum)) * rate / len(middle)
        above = spectrum[(hertz > 10900) & (hertz < 11100)].max()
        assert above > 0.1 * spectrum.max()


@pytest.mark.parametrize(
    ("bars", "append", "rate", "channels"),
    [("1", 0, 44100, 2), ("3", 0, 44100, 1), ("1-3", 0, 8000, 2), ("2", 0, 96000, 6),
     ("", 2, 44100, 2), ("1,3", 1, 22050, 1)],
)  # fmt: skip
def test_first_last_all_and_appended_bars_are_as_loud_as_the_song(
    tmp_path: Path, bands: BandLevels, bars: str, append: int, rate: int, channels: int
) -> None:
    path = write_song(tmp_path / "song.wav", rate=rate, channels=channels)
    (report,) = edit(path, bars, writer=LevelWriter(bands, 1), append=append)
    out, old = native(report.path, "float64"), native(path, "float64")
    changed = np.zeros(len(out), bool)
    for bar in [*([1, 2, 3] if bars == "1-3" else [int(b) for b in bars.split(",") if b]),
                *range(4, 4 + append)]:  # fmt: skip
        part = span(bar, rate)
        changed[part] = True
        heard = loudness(out[part], rate) - loudness(old[span(min(bar, 3), rate)], rate)
        assert abs(heard) < 1.5
    same = np.flatnonzero(~changed[: len(old)])
    assert np.array_equal(out[same], old[same])
    assert len(out) == (span(3 + append, rate).stop if append else len(old))


class FallingSilent(LevelWriter):
    """Bars of which all but the first quarter is silent, 12 LU softer than those they replace."""

    def write(self, request: WriteRequest) -> WrittenBars:
        written = super().write(request)
        assert written.levels is not None
        (levels, *_), count = written.levels, len(written.levels)
        fall = np.zeros(len(levels))
        fall[len(levels) // 4 :] = -5.0
        return replace(
            written, levels=[levels.moved(fall)] * count, change_LU=np.full(count, -12.0)
        )


@pytest.mark.parametrize("loud", [1.0, 3.0])
def test_bars_that_fall_silent_meet_what_stays(
    tmp_path: Path, bands: BandLevels, loud: float
) -> None:
    """Also where the song is so loud that what is raised to meet it meets the limiter first."""
    path = write_song(tmp_path / "song.wav", rate=22050, channels=2, subtype="FLOAT")
    sound, rate = soundfile.read(path)
    soundfile.write(path, np.clip(loud * sound, -1, 1), rate, subtype="FLOAT")
    (report,) = edit(path, "2", writer=FallingSilent(bands, 1))
    for step in report.seams_LU[0]:
        assert step is not None
        assert abs(step) < 1.0
    part = span(2, rate)
    out, old = native(report.path, "float64")[part], native(path, "float64")[part]
    middle = slice(len(out) // 4, -len(out) // 4)
    assert loudness(out[middle], rate) - loudness(old[middle], rate) == pytest.approx(-12, abs=3)


def test_a_writer_keeps_its_word(bands: BandLevels) -> None:
    levels = bands.of(np.zeros(BAR_SAMPLES, np.float32))
    z, change = np.zeros((2, 64, 16), np.float32), np.zeros(2)
    WrittenBars(z_BLD=z, change_LU=change, levels=[levels] * 2).check(2)
    for wrong in (
        WrittenBars(z_BLD=z, change_LU=change, levels=[levels]),
        WrittenBars(z_BLD=z, change_LU=change, levels=[levels.part(0, 9)] * 2),
        WrittenBars(z_BLD=z, change_LU=change, levels=[levels.moved(float("nan"))] * 2),
        WrittenBars(z_BLD=z, change_LU=change),
    ):
        with pytest.raises(ValueError, match=r"levels|sound|NaN"):
            wrong.check(2)
