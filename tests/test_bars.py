"""Bars: a grid that always tiles the song, and a warp that keeps pitch, onsets and edges."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mgen.core.audio import read_mono
from mgen.core.bars import (
    BAR_RATE,
    BAR_S,
    BAR_SAMPLES,
    STRETCHERS,
    BarGrid,
    bar_samples,
    bars_from_beats,
    jitter_grid,
    unwarp_bar,
    warp_bar,
    warp_song_bar,
)
from mgen.core.bars.magnitudes import restore_magnitudes
from mgen.core.beats import Beats, fixed_beats
from mgen.core.errors import AudioError, MissingDependencyError, UsageError

EXAMPLES = Path(__file__).parents[1] / "examples"


def beats_of(places: list[int], beat_s: float = 0.5, first_s: float = 0.25) -> Beats:
    n = len(places)
    return Beats(first_s + np.arange(n) * beat_s, np.array(places, np.int8), np.ones(n, np.float32))


def tiles(grid: BarGrid, duration_s: float) -> None:
    """What holds of every grid."""
    columns = (grid.end_s, grid.beats, grid.bpm, grid.stretch, grid.valid, grid.confidence)
    assert {len(c) for c in columns} == {len(grid)}
    dtypes = [c.dtype for c in (grid.start_s, *columns)]
    assert dtypes == ["f8", "f8", "i1", "f4", "f4", "?", "f4"]
    assert (grid.end_s > grid.start_s).all()
    assert np.array_equal(grid.start_s[1:], grid.end_s[:-1])
    if len(grid):
        assert grid.start_s[0] >= 0
        assert grid.end_s[-1] <= duration_s
    assert np.allclose(grid.stretch * (grid.end_s - grid.start_s), BAR_S, rtol=1e-5)
    assert (grid.beats >= 1).all()
    assert ((grid.confidence >= 0) & (grid.confidence <= 1)).all()
    assert ((grid.stretch[grid.valid] > 0.399) & (grid.stretch[grid.valid] < 2.501)).all()


# ---------------------------------------------------------------- the grid

FOUR, EIGHT = [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8]
SHAPES = {  # places of the beats -> beats of the bars, which of them are valid
    "plain": (FOUR * 4, [4] * 4, "1111"),
    "pickup and tail": ([3, 4, *FOUR * 3, 1, 2], [2, 4, 4, 4, 2], "01110"),
    "8/4 is folded": (EIGHT * 3, [4] * 6, "111111"),
    "waltz": ([1, 2, 3] * 5, [3] * 5, "11111"),
    "five": ([1, 2, 3, 4, 5] * 4, [5] * 4, "1111"),
    "six": ([1, 2, 3, 4, 5, 6] * 4, [6] * 4, "1111"),
    "seven": ([1, 2, 3, 4, 5, 6, 7] * 4, [7] * 4, "1111"),
    "twelve": (list(range(1, 13)) * 2, [4] * 6, "111111"),
    "no downbeats": ([0] * 10, [4, 4, 2], "110"),
    "a downbeat was missed": (FOUR * 3 + EIGHT + FOUR * 2, [4] * 7, "1111111"),
    "a downbeat too many": (FOUR * 3 + [1, 2, 1, 2] + FOUR * 3, [4] * 7, "1111111"),
    "a waltz with a missed downbeat": (
        [1, 2, 3] * 4 + [1, 2, 3, 4, 5, 6] + [1, 2, 3] * 2, [3] * 8, "11111111"),
    "one bar of 2/4": (FOUR * 3 + [1, 2] + FOUR * 3, [4, 4, 4, 2, 4, 4, 4], "1110111"),
    "the meter changes": (FOUR * 9 + [1, 2, 3] * 9, [4] * 9 + [3] * 9, None),
    "late first downbeat": ([0] * 9 + FOUR * 4, [1, 4, 4, 4, 4, 4, 4], "0111111"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_bars_hold_the_beats_that_a_musician_counts(name: str) -> None:
    places, counts, valid = SHAPES[name]
    duration_s = 0.25 + 0.5 * len(places) + 1.0
    grid = bars_from_beats(beats_of(places), duration_s)
    tiles(grid, duration_s)
    assert grid.beats.tolist() == counts
    if valid is not None:
        assert "".join(str(int(v)) for v in grid.valid) == valid
    else:
        assert grid.valid.mean() > 0.8
    assert np.allclose(grid.bpm, 120)
    assert grid.start_s[0] == 0.25
    # the last beat lasts as long as the others
    assert grid.end_s[-1] == pytest.approx(0.25 + 0.5 * len(places))
    assert np.allclose(grid.confidence, 0.3 if name == "no downbeats" else 1.0)


def test_the_last_beat_ends_with_the_song() -> None:
    whole = bars_from_beats(beats_of(FOUR * 2, first_s=0.0), 3.97)  # cut a hair short
    assert (whole.beats.tolist(), whole.end_s[-1]) == ([4, 4], 3.97)
    broken = bars_from_beats(beats_of(FOUR * 2, first_s=0.0), 3.7)
    assert broken.beats.tolist() == [4, 3]
    assert broken.valid.tolist() == [True, False]
    assert broken.end_s[-1] == 3.5


def test_tempo_changes_are_followed() -> None:
    time_s = np.concatenate([np.arange(32) * 0.5, 16 + np.arange(32) * 0.4])
    beats = Beats(time_s, np.tile(np.int8(FOUR), 16), np.ones(64, np.float32))
    grid = bars_from_beats(beats, 30.0)
    tiles(grid, 30.0)
    assert grid.bpm.tolist() == pytest.approx([120] * 8 + [150] * 8)
    assert grid.stretch.tolist() == pytest.approx([BAR_S / 2] * 8 + [BAR_S / 1.6] * 8)
    assert grid.valid.all()


def test_one_odd_bar_does_not_move_the_tempo() -> None:
    time_s = np.arange(40) * 0.5
    time_s[21:] += 0.1
    grid = bars_from_beats(Beats(time_s, np.tile(np.int8(FOUR), 10), np.ones(40, np.float32)), 25.0)
    assert np.allclose(grid.bpm, 120)
    assert grid.end_s[5] - grid.start_s[5] == pytest.approx(2.1)


def test_lost_beats_are_filled_in_at_no_confidence() -> None:
    whole = beats_of(FOUR * 6, first_s=0.0)
    kept = np.ones(24, bool)
    kept[[5, 13, 14, 15, 16, 17]] = False
    beats = Beats(whole.time_s[kept], whole.beat_in_bar[kept], whole.confidence[kept])
    grid = bars_from_beats(beats, 12.5)
    truth = bars_from_beats(whole, 12.5)
    assert np.allclose(grid.start_s, truth.start_s)
    assert grid.beats.tolist() == [4] * 6
    assert grid.confidence.tolist() == pytest.approx([1, 0.75, 1, 0.25, 0.5, 1])


def test_bars_too_short_or_long_to_warp_are_not_valid() -> None:
    for bpm, good in ((700, False), (260, True), (60, True), (40, False)):
        grid = bars_from_beats(fixed_beats(30.0, bpm), 30.0)
        assert grid.valid[:3].tolist() == [good] * 3, bpm


@pytest.mark.parametrize("n", [0, 1])
def test_without_beats_there_is_a_grid_of_no_confidence(n: int) -> None:
    grid = bars_from_beats(beats_of([1] * n), 10.0)
    tiles(grid, 10.0)
    assert (grid.start_s[0], grid.end_s[-1]) == (0.0, 10.0)
    assert grid.beats.tolist() == [4, 4, 4, 4, 4]
    assert grid.valid.tolist() == [True] * 4 + [False]
    assert grid.stretch[:4].tolist() == [1.0] * 4
    assert (grid.confidence == 0).all()


def test_no_song_has_no_bars() -> None:
    assert len(bars_from_beats(beats_of([]), 0.0)) == 0
    assert len(list(jitter_grid(bars_from_beats(beats_of([]), 0.0), 2, rng()))) == 2


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@settings(max_examples=200, deadline=None)
@given(
    gaps=st.lists(st.floats(1e-4, 5.0), max_size=60),
    places=st.lists(st.integers(0, 9), min_size=61, max_size=61),
    first_s=st.floats(-3.0, 3.0),
    cut=st.floats(0.0, 1.5),
    confidence=st.floats(0, 1),
)
def test_any_beats_make_a_tiling(
    gaps: list[float], places: list[int], first_s: float, cut: float, confidence: float
) -> None:
    time_s = np.unique(first_s + np.concatenate([[0.0], np.cumsum(gaps)]))
    n = len(time_s)
    beats = Beats(time_s, np.array(places[:n], np.int8), np.full(n, confidence, np.float32))
    duration_s = max(0.0, cut * float(time_s[-1]))
    grid = bars_from_beats(beats, duration_s)
    tiles(grid, duration_s)
    inside = time_s[(time_s >= 0) & (time_s <= duration_s)]
    inside = inside[np.append(True, np.diff(inside) >= 0.06)] if len(inside) else inside
    if len(inside) > 1:
        assert grid.start_s[0] == inside[0]
        assert grid.end_s[-1] >= inside[-1] - 1e-9
    for copy in jitter_grid(grid, 2, rng(n)):
        tiles(copy, duration_s)


@settings(max_examples=60, deadline=None)
@given(
    meter=st.sampled_from([3, 4, 5, 6, 7]),
    bars=st.integers(2, 20),
    bpm=st.floats(60.0, 200.0),
    noise=st.floats(0, 0.04),
    seed=st.integers(0, 9),
)
@example(meter=6, bars=20, bpm=60.0, noise=0.03125, seed=8)  # the last bar off by 2.02 noises
def test_a_steady_song_is_all_valid_bars(
    meter: int, bars: int, bpm: float, noise: float, seed: int
) -> None:
    n, beat_s = meter * bars, 60 / bpm
    time_s = 1.0 + (np.arange(n) + rng(seed).uniform(-noise, noise, n)) * beat_s
    beats = Beats(time_s, (np.arange(n) % meter + 1).astype(np.int8), np.ones(n, np.float32))
    grid = bars_from_beats(beats, 1.0 + (n + 1) * beat_s)
    assert grid.beats.tolist() == [meter] * bars
    inside = (grid.stretch >= 0.4) & (grid.stretch <= 2.5)
    assert np.array_equal(grid.valid, inside)
    assert np.allclose(grid.start_s, time_s[::meter])
    # both edges are off by the noise at most; the last one, extrapolated, by three times as much
    off = np.full(bars, 2 * noise / meter)
    off[-1] = 4 * noise / meter
    assert (np.abs(grid.bpm / bpm - 1.0) <= off / (1.0 - off) + 1e-6).all()


def test_jitter_moves_every_edge_a_little_and_the_same_for_the_same_seed() -> None:
    grid = bars_from_beats(beats_of(FOUR * 20), 50.0)
    copies = list(jitter_grid(grid, 3, rng()))
    again = list(jitter_grid(grid, 3, rng()))
    assert len(copies) == 3
    for copy, same in zip(copies, again, strict=True):
        tiles(copy, 50.0)
        assert np.array_equal(copy.start_s, same.start_s)
        moved = np.abs(copy.start_s - grid.start_s)
        assert moved.max() <= 0.125 * 0.5
        assert 0.3 * 0.0625 < moved.mean() < 0.7 * 0.0625
        assert copy.beats.tolist() == grid.beats.tolist()
        assert copy.valid.all()
    assert not np.array_equal(copies[0].start_s, copies[1].start_s)
    with pytest.raises(UsageError):
        list(jitter_grid(grid, 1, rng(), spread_beats=0.6))


# ---------------------------------------------------------------- the warp

LENGTHS = [14000, 27000, 32769, 40000, 80000]


def clicks(n: int, at: list[float]) -> np.ndarray:
    """Short decaying noise bursts at shares of n."""
    out = np.zeros(n + 400, "f4")
    burst = np.random.default_rng(0).standard_normal(400) * np.exp(-np.arange(400) / 60)
    for share in at:
        out[round(share * n) : round(share * n) + 400] += 0.5 * burst.astype("f4")
    return out[:n]


def onsets(samples: np.ndarray, at: list[float]) -> list[float]:
    """How far from where it should be the sound reaches half its level, in seconds."""
    envelope = np.sqrt(np.convolve(samples**2, np.ones(32) / 32, "same"))
    off = []
    for share in at:
        centre = round(share * len(samples))
        near = envelope[centre - 1200 : centre + 1200]
        off.append((int(np.argmax(near > 0.5 * near.max())) - 1200) / BAR_RATE)
    return off


@pytest.mark.parametrize("n", LENGTHS)
def test_onsets_stay_where_even_time_puts_them(n: int) -> None:
    at = [0.1, 0.33, 0.5, 0.8]
    warped = warp_bar(clicks(n, at))
    assert max(map(abs, onsets(warped, at))) < 0.008
    back = unwarp_bar(warped, n)
    assert max(map(abs, onsets(back, at))) < 0.008


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("hertz", [110.0, 440.0, 2500.0])
def test_pitch_and_level_stay(n: int, hertz: float) -> None:
    tone = (0.3 * np.sin(2 * np.pi * hertz * np.arange(n) / BAR_RATE)).astype("f4")
    warped = warp_bar(tone)
    for samples in (warped, unwarp_bar(warped, n)):
        power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
        heard = np.argmax(power) * BAR_RATE / len(samples)
        assert abs(heard - hertz) <= 1.5 * BAR_RATE / len(samples)
        assert np.std(samples) == pytest.approx(np.std(tone), rel=0.1)


@pytest.mark.parametrize("n", LENGTHS)
def test_edges_of_a_bar_inside_a_song_neither_fade_nor_click(n: int) -> None:
    time_s = np.arange(n + 32000) / BAR_RATE
    song = (0.3 * np.sin(2 * np.pi * 330 * time_s)).astype("f4")
    warped = warp_song_bar(song, 1.0, 1.0 + n / BAR_RATE)
    back = unwarp_bar(warped, n)
    for samples in (warped, back):
        level = np.sqrt(np.mean(samples[2000:-2000] ** 2))
        for edge in (samples[:320], samples[-320:]):
            assert np.sqrt(np.mean(edge**2)) == pytest.approx(level, rel=0.25)
            assert np.abs(np.diff(edge)).max() < 1.4 * 0.3 * 2 * np.pi * 330 / BAR_RATE


def test_context_is_heard_but_not_in_the_result() -> None:
    bar = clicks(30000, [0.3])
    loud = np.ones(8000, "f4") * 0.5
    silent = warp_bar(bar, before=np.zeros(8000, "f4"), after=np.zeros(8000, "f4"))
    assert np.array_equal(silent, warp_bar(bar, before=loud[:0], after=loud[:0]))
    near = warp_bar(bar, before=loud, after=loud)
    assert not np.array_equal(near, silent)
    middle = slice(5000, -5000)
    assert np.abs(near - silent)[middle].max() < 0.02


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60000), n_out=st.integers(1, 60000), loud=st.booleans())
def test_any_length_to_any_length(n: int, n_out: int, loud: bool) -> None:
    samples = np.random.default_rng(n).uniform(-0.5, 0.5, n).astype("f4") * loud
    warped = warp_bar(samples, n_out=n_out)
    assert (warped.shape, warped.dtype) == ((n_out,), np.float32)
    assert np.isfinite(warped).all()
    if not loud:
        assert np.abs(warped).max() < 1e-6


@pytest.mark.parametrize("n", [1, 2, 17, 700, 2049])
def test_the_smallest_bars_do_not_crash(n: int) -> None:
    samples = np.full(n, 0.1, "f4")
    assert unwarp_bar(warp_bar(samples), n).shape == (n,)


def test_the_same_length_is_the_same_bits() -> None:
    samples = np.random.default_rng(1).standard_normal(BAR_SAMPLES).astype("f4")
    warped = warp_bar(samples)
    assert np.array_equal(warped, samples)
    assert warped is not samples
    song = np.concatenate([samples, samples])
    assert np.array_equal(warp_song_bar(song, BAR_S, 2 * BAR_S), samples)


def test_the_same_bar_gives_the_same_bytes() -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 30000).astype("f4")
    assert warp_bar(samples).tobytes() == warp_bar(samples).tobytes()


def mel_l1_db(a: np.ndarray, b: np.ndarray, width: int) -> float:
    import librosa

    mels = [
        librosa.power_to_db(
            librosa.feature.melspectrogram(
                y=y, sr=BAR_RATE, n_fft=width, hop_length=width // 4, n_mels=width * 80 // 1024
            ),
            top_db=80,
        )
        for y in (a, b)
    ]
    return float(np.abs(mels[0] - mels[1]).mean())


@pytest.mark.parametrize("name", ["vibe_ace.ogg", "sodium_excerpt.ogg"])
def test_real_bars_come_back_and_restored_magnitudes_are_why(name: str) -> None:
    song = read_mono(EXAMPLES / name)
    error: dict[tuple[bool, int], list[float]] = {}
    for start, stretch in ((20000, 0.5), (80000, 0.81), (100000, 0.9), (50000, 1.24), (9999, 2.0)):
        n = round(BAR_SAMPLES / stretch)
        bar = song[start : start + n]
        around = {"before": song[:start], "after": song[start + n :]}
        for restore in (False, True):
            back = unwarp_bar(warp_bar(bar, restore=restore, **around), n, restore=restore)
            for width in (512, 1024, 2048):  # the passes use blocks of 256 and 768
                got = mel_l1_db(bar, back, width)
                error.setdefault((restore, width), []).append(got)
                if restore and width == 1024 and 0.8 <= stretch <= 1.25:
                    assert got < 1.0
    for width in (512, 1024, 2048):
        assert np.mean(error[True, width]) < 0.85 * np.mean(error[False, width])


def test_magnitudes_that_are_right_already_change_nothing() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 20000).astype("f4")
    assert np.abs(restore_magnitudes(samples, samples, BAR_RATE) - samples)[800:-800].max() < 1e-4


def test_bar_edges_in_samples_are_shared() -> None:
    grid = bars_from_beats(fixed_beats(20.0, 123.4, 0.1), 20.0)
    spans = [bar_samples(a, b) for a, b in zip(grid.start_s, grid.end_s, strict=True)]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("name", [n for n in STRETCHERS if n != "signalsmith"])
def test_other_stretchers_keep_length_and_onsets(name: str) -> None:
    pytest.importorskip("pedalboard")
    at = [0.2, 0.6]
    warped = warp_bar(clicks(40000, at), stretcher=name)
    back = unwarp_bar(warped, 40000, stretcher=name)
    assert (len(warped), len(back)) == (BAR_SAMPLES, 40000)
    assert max(map(abs, onsets(warped, at) + onsets(back, at))) < 0.02


def test_errors_say_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.zeros(20000, "f4")
    with pytest.raises(UsageError, match="no stretcher is called 'magic'; use signalsmith or"):
        warp_bar(samples, stretcher="magic")
    with pytest.raises(UsageError, match="to 0 samples"):
        warp_bar(samples, n_out=0)
    with pytest.raises(AudioError, match="without samples"):
        warp_song_bar(samples, 5.0, 6.0)
    monkeypatch.setitem(sys.modules, "pedalboard", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mgen\[rubberband\]'"):
        warp_bar(samples, stretcher="rubberband")
