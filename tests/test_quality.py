"""The quality judge: its features, trees, verdicts, files; defects; filter and train-filter."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgen.cli.app import main
from mgen.core.audio import read_mono
from mgen.core.corpus import filter_songs
from mgen.core.errors import InputError, InputNotFoundError, OutputExistsError, UsageError
from mgen.core.quality import (
    DEGRADATIONS,
    FEATURE_SPEC,
    N_FEATURES,
    Forest,
    QualityMeter,
    Screening,
    Verdict,
    WeighedWindows,
    degrade,
    load_judge,
    save_judge,
    shipped_judge,
    smooth_curve,
    stretches,
    weigh,
    window_features,
)
from mgen.core.quality.features import RATE, STATISTICS, WINDOW_S, WINDOW_SAMPLES, WINDOW_STEP
from mgen.core.quality.judge import CONFIG, WEIGHTS
from mgen.core.quality.traces import N_TRACES
from mgen.core.quality.training import (
    cross_validate,
    fit,
    gather,
    hear,
    hear_labels,
    lean,
    read_labels,
    roc_auc,
)
from mgen.core.quality.verdict import clip_curve, decide
from mgen.core.store import Store, check
from mgen.kernels.log_mel import LogMelSpec, log_mel_reference

MakeSong = Callable[..., Path]


def tone(hz: float, seconds: float = 3.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype("f4")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def band_power(sound: np.ndarray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return float(spectrum[(hz >= low) & (hz < high)].sum())


@pytest.fixture(scope="session")
def music(real_song: Path) -> np.ndarray:
    return read_mono(real_song, RATE)[: 30 * RATE]


@pytest.fixture(scope="session")
def forest() -> Forest:
    """One tree, one leaf: everything is good with .7."""
    return Forest(
        np.array([0], np.int32), np.array([-1], np.int16), np.array([0.7], np.float32),
        np.array([0], np.uint16),
    )  # fmt: skip


@pytest.fixture
def judge_folder(tmp_path: Path, forest: Forest) -> Path:
    save_judge(tmp_path / "judge", forest)
    return tmp_path / "judge"


# features


def test_features_are_those_of_a_plain_float64_reference() -> None:
    from scipy import stats

    sound = noise(1.5, 3) * np.linspace(0.1, 1, 24000, dtype=np.float32) + tone(440, 1.5)
    spec = LogMelSpec(
        rate=16000, n_fft=2048, hop=512, n_mels=39, f_min=20, f_max=8000, power=2,
        normalized=True, log="none", centre=False,
    )  # fmt: skip
    power = log_mel_reference(torch.from_numpy(sound)[None], spec)[0].numpy()
    assert power.shape == (43, 39)
    db = np.maximum(10 * np.log10(power / power.mean()), -80)
    rows = [(db[:, m], 10 * np.log10(power[:, m].mean() / power.mean())) for m in range(39)]
    rows.append((db.ravel(), 0.0))
    expected = [
        [x.min(), x.max(), x.mean(), np.median(x), x.var(), energy, stats.skew(x),
         stats.kurtosis(x)]
        for x, energy in rows
    ]  # fmt: skip
    found = window_features(sound[None])[0, :320].reshape(40, 8)
    assert N_FEATURES == 320 + N_TRACES
    assert len(STATISTICS) == 8
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=5e-3)


def test_features_ignore_the_level() -> None:
    sound = noise(5.1)[:WINDOW_SAMPLES][None]
    np.testing.assert_allclose(
        window_features(sound), window_features(0.1 * sound), rtol=1e-3, atol=2e-3
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=6))
def test_blocks_of_any_size_give_the_same_windows(sizes: list[int]) -> None:
    sound = noise(20, 1)
    whole, parts = QualityMeter(), QualityMeter()
    whole.push(sound)
    at = 0
    for size in sizes:
        parts.push(sound[at : at + size])
        at += size
    parts.push(sound[at:])
    expected, loud = whole.finish()
    found, also = parts.finish()
    assert len(expected) == 4
    assert loud.tolist() == also.tolist()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("seconds", "windows"), [(1.0, 1), (4.0, 1), (5.06, 1), (7.0, 1), (7.6, 2), (60.0, 12)]
)
def test_how_many_windows_a_song_has(seconds: float, windows: int) -> None:
    meter = QualityMeter()
    meter.push(noise(seconds))
    features, loud = meter.finish()
    assert features.shape == (windows, N_FEATURES)
    assert np.isfinite(features).all()
    assert loud.all()


def test_silence_has_finite_features_and_says_nothing() -> None:
    meter = QualityMeter()
    meter.push(np.zeros(6 * RATE, np.float32))
    features, loud = meter.finish()
    assert np.isfinite(features).all()
    assert not loud.any()


# trees


def test_our_trees_are_scikit_learns() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    from mgen.core.quality.forest import from_sklearn

    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, N_FEATURES)).astype(np.float32)
    features[:, 3] = np.round(features[:, 3])  # ties: exactly on a threshold
    labels = (features[:, 3] + features[:, 7] + rng.normal(0, 0.5, 600) > 0).astype(int)
    model = ensemble.RandomForestClassifier(
        30, max_depth=12, class_weight="balanced_subsample", random_state=0
    ).fit(features[:400], labels[:400])
    ours = from_sklearn(model)
    assert ours.fault(N_FEATURES) == ""
    np.testing.assert_allclose(
        ours.predict(features), model.predict_proba(features)[:, 1], atol=1e-6
    )
    assert ours.predict(features[:0]).shape == (0,)


def test_leaning_multiplies_the_odds(forest: Forest) -> None:
    p = lean(forest, 3.0).predict(np.zeros((1, N_FEATURES), np.float32))[0]
    assert p / (1 - p) == pytest.approx(3 * 0.7 / 0.3, rel=1e-5)


def test_the_shipped_judge_is_small_and_sound() -> None:
    folder = shipped_judge()
    judge = load_judge(folder)
    assert judge.forest.fault(N_FEATURES) == ""
    assert len(judge.forest.root_T) == 100
    assert sum(p.stat().st_size for p in folder.iterdir()) < 3e6
    assert {p.name for p in folder.iterdir()} == {CONFIG, WEIGHTS, "README.md"}
    assert judge.id.removeprefix("judge-") in (folder / "README.md").read_text("utf-8")


# verdicts


def test_smoothing_is_a_gaussian_of_two_windows() -> None:
    from scipy.ndimage import gaussian_filter1d

    spike = np.zeros(41)
    spike[20] = 1.0
    smooth = smooth_curve(spike, np.ones(41, np.bool_))
    np.testing.assert_allclose(smooth, gaussian_filter1d(spike, 2.0, truncate=4.0), atol=1e-12)
    constant = smooth_curve(np.full(5, 0.4), np.ones(5, np.bool_))
    np.testing.assert_allclose(constant, 0.4)


def test_silent_windows_take_their_neighbours_value() -> None:
    loud = np.array([True] * 5 + [False] * 5 + [True] * 5)
    smooth = smooth_curve(np.where(loud, 0.9, 0.1), loud)
    assert smooth.min() > 0.89
    alone = smooth_curve(np.full(3, 0.2), np.zeros(3, np.bool_))
    np.testing.assert_allclose(alone, 0.2)


@given(st.lists(st.sampled_from([0.2, 0.55, 0.8]), max_size=30))
def test_stretches_are_the_good_windows_and_no_more(curve: list[float]) -> None:
    found = stretches(np.array(curve), 0.55)
    inside = {w for first, stop in found for w in range(first, stop)}
    assert inside == {w for w, value in enumerate(curve) if value >= 0.55}
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


def verdict(curve: list[float], seconds: float, **how: Any) -> Verdict:
    windows = WeighedWindows(np.array(curve), float(np.mean(curve)))
    return decide(windows, round(seconds * RATE), Screening(model=Path("x"), **how))


def test_songs_pass_by_their_mean() -> None:
    good = verdict([0.3, 0.8, 0.56], 15)
    assert good.clips == ((0, 15 * RATE),)
    assert good.reason == ""
    bad = verdict([0.3, 0.8, 0.5], 15)
    assert bad.clips == ()
    assert bad.reason == "quality 0.533 is below 0.55"
    assert verdict([0.0], 5, threshold=0.0).clips


def test_clips_are_good_stretches_of_at_least_so_long() -> None:
    curve = [0.9] * 3 + [0.1] * 2 + [0.9] * 7 + [0.1] + [0.9] * 6
    found = verdict(curve, 95.0, keep="clips", min_clip_s=29.0)
    assert found.clips == (
        (5 * WINDOW_STEP, 12 * WINDOW_STEP),
        (13 * WINDOW_STEP, 95 * RATE),  # the last one goes to the song's end
    )
    assert clip_curve(found, found.clips[0]).tolist() == pytest.approx([0.9] * 7)
    assert len(clip_curve(found, found.clips[1])) == 6
    none = verdict(curve, 95.0, keep="clips", min_clip_s=40.0)
    assert none.clips == ()
    assert none.reason == "no stretch of 40 s reaches a quality of 0.55"


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.5}, {"threshold": float("nan")}, {"min_clip_s": 0.0}]
)
def test_senseless_screenings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Screening(model=Path("x"), **wrong)  # type: ignore[arg-type]


# judges on disk


def test_a_judge_comes_back_as_it_was(judge_folder: Path, forest: Forest) -> None:
    judge = load_judge(judge_folder)
    assert judge.probabilities(np.zeros((3, N_FEATURES), np.float32)).tolist() == pytest.approx(
        [0.7] * 3
    )
    again = save_judge(judge_folder.with_name("two"), forest)
    assert again.id == judge.id
    assert (judge_folder / WEIGHTS).read_bytes() == (
        judge_folder.with_name("two") / WEIGHTS
    ).read_bytes()
    with pytest.raises(OutputExistsError, match="--force"):
        save_judge(judge_folder, forest)
    (judge_folder / "README.md").write_text("card")
    save_judge(judge_folder, forest, force=True)
    assert (judge_folder / "README.md").read_text() == "card"
    music = judge_folder.with_name("music")
    music.mkdir()
    (music / "a.wav").touch()
    with pytest.raises(OutputExistsError, match="no judge"):
        save_judge(music, forest, force=True)


def test_another_feature_specification_is_refused(judge_folder: Path) -> None:
    config = json.loads((judge_folder / CONFIG).read_text())
    config["features"]["bands"] = 35  # the seed's filter computed 280 of its 320 features
    (judge_folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"bands 35, here 39.*train-filter") as caught:
        load_judge(judge_folder)
    assert "\n" not in str(caught.value)


def test_a_judge_of_the_first_specification_is_refused(judge_folder: Path) -> None:
    config = json.loads((judge_folder / CONFIG).read_text())
    for name in ("version", "traces", "traces_version", "traces_hz"):
        del config["features"][name]
    (judge_folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"version null, here 2.*train-filter"):
        load_judge(judge_folder)


def spoil_config(**changes: Any) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | changes))

    return spoil


def spoil_array(name: str, value: np.ndarray) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        save_file({**load_file(folder / WEIGHTS), name: value}, folder / WEIGHTS)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / CONFIG).write_text("{"), "JSON"),
        (lambda f: (f / CONFIG).write_text("[" * 100000), "JSON"),
        (lambda f: (f / CONFIG).write_text("[]"), "not a quality judge"),
        (spoil_config(kind="tracker"), "describes tracker"),
        (spoil_config(format=2), "format 2"),
        (spoil_config(features=None), "none are stated"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "damaged"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n."), "damaged"),
        (lambda f: (f / WEIGHTS).write_bytes(b""), "damaged"),
        (spoil_array("more", np.zeros(1, np.float32)), "does not hold"),
        (spoil_array("feature_K", np.array([5], np.int16)), "lead nowhere"),
        (spoil_array("feature_K", np.array([N_FEATURES], np.int16)), "beyond"),
        (spoil_array("feature_K", np.array([-1, -1], np.int16)), "differ in length"),
        (spoil_array("value_K", np.array([np.nan], np.float32)), "no numbers"),
        (spoil_array("value_K", np.array([1.5], np.float32)), "between 0 and 1"),
        (spoil_array("root_T", np.array([3], np.int32)), "overlap"),
    ],
)  # fmt: skip
def test_a_strangers_broken_judge_is_one_line(
    spoil: Callable[[Path], object], words: str, judge_folder: Path
) -> None:
    spoil(judge_folder)
    with pytest.raises(InputError, match=words) as caught:
        load_judge(judge_folder)
    assert "\n" not in str(caught.value)
    assert str(judge_folder) in str(caught.value)


def test_a_judge_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="a judge is a folder with"):
        load_judge(tmp_path / "gone")


# degradations


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_defects_are_deterministic_and_grow(kind: str, music: np.ndarray) -> None:
    sound = music[: 5 * RATE]
    results = [degrade(sound, kind, s, seed=3) for s in (0.0, 1.0)]
    for worse in results:
        assert worse.shape == sound.shape
        assert worse.dtype == np.float32
        assert np.abs(worse).max() <= 1.0
    assert np.array_equal(results[1], degrade(sound, kind, 1.0, seed=3))
    spectra = [window_features(x[None])[0] for x in (sound, *results)]
    changes = [np.abs(x - spectra[0]).mean() for x in spectra[1:]]
    assert changes[1] > changes[0] > 0
    with pytest.raises(UsageError, match="strength"):
        degrade(sound, kind, 1.1, seed=0)


def test_there_is_no_such_defect() -> None:
    with pytest.raises(UsageError, match="crackle, clicks"):
        degrade(noise(1), "smell", 0.5, seed=0)


@pytest.mark.parametrize(("kind", "mild", "awful"), [("hiss", 25, 3), ("crackle", 22, 4)])
def test_noise_is_as_loud_as_it_says(kind: str, mild: float, awful: float) -> None:
    clean = tone(300, 8)
    for strength, snr_db in ((0.0, mild), (1.0, awful)):
        worse = degrade(clean, kind, strength, seed=1).astype(np.float64)
        gain = float(worse @ clean) / float(clean @ clean)  # what full scale took away
        rest = worse - gain * clean
        measured = 10 * np.log10(gain**2 * (clean**2).mean() / (rest**2).mean())
        assert measured == pytest.approx(snr_db, abs=0.8)


def test_a_limited_band_has_no_bass_and_no_treble() -> None:
    worse = degrade(noise(5), "band-limit", 1.0, seed=0)
    middle = band_power(worse, 700, 1400) / 700
    assert band_power(worse, 20, 120) / 100 < 0.01 * middle
    assert band_power(worse, 4000, 8000) / 4000 < 0.01 * middle


def test_clipping_flattens_the_tops() -> None:
    clean = noise(2)
    worse = degrade(clean, "clipping", 0.5, seed=0)
    assert (np.abs(worse) >= 0.999 * np.abs(worse).max()).mean() > 0.3
    assert (np.abs(clean) >= 0.999 * np.abs(clean).max()).mean() < 0.001


def test_hum_stands_on_the_mains_harmonics() -> None:
    worse = degrade(noise(8), "hum", 1.0, seed=5)
    beside = band_power(worse, 70, 80)
    assert max(band_power(worse, 45, 55), band_power(worse, 55, 65)) > 20 * beside


def test_a_wavering_tone_is_spread_over_its_neighbours() -> None:
    clean, worse = tone(1000, 8), degrade(tone(1000, 8), "wow-flutter", 1.0, seed=0)
    near = band_power(worse, 900, 1100)
    assert band_power(clean, 999, 1001) > 0.99 * band_power(clean, 900, 1100)
    assert band_power(worse, 999, 1001) < 0.5 * near
    assert near > 0.98 * band_power(worse, 20, 8000)


def test_few_bits_are_few_levels() -> None:
    worse = degrade(noise(2), "few-bits", 1.0, seed=0)
    assert len(np.unique(worse)) <= 2**4


def test_dropouts_are_gaps() -> None:
    worse = degrade(tone(500, 10), "dropouts", 1.0, seed=0)
    frames = np.abs(worse[: len(worse) // 160 * 160].reshape(-1, 160)).max(axis=1)
    assert 0.02 < (frames < 0.02).mean() < 0.9
    assert (frames > 0.29).any()


def test_clicks_are_loud_and_rare() -> None:
    worse = degrade(tone(200, 10, 0.05), "clicks", 1.0, seed=0)
    high = np.abs(worse) > 0.12
    assert 0 < high.mean() < 0.05


def test_a_low_bitrate_loses_the_treble() -> None:
    clean = noise(4)
    worse = degrade(clean, "low-bitrate", 1.0, seed=0)
    assert band_power(worse, 6000, 8000) < 0.1 * band_power(clean, 6000, 8000)


# songs through the filter


@pytest.fixture
def bad_song(real_song: Path, tmp_path: Path) -> Path:
    """The same recording as `real_song`, as a worn shellac disc."""
    worn = degrade(read_mono(real_song, RATE), "old-record", 0.9, seed=0)
    soundfile.write(tmp_path / "worn.flac", worn, RATE)
    return tmp_path / "worn.flac"


def test_the_shipped_judge_keeps_music_and_refuses_a_worn_copy(
    real_song: Path, grid_song: Path, bad_song: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    store, page = str(tmp_path / "s.zarr"), tmp_path / "page <b>.html"
    songs = [str(real_song), str(bad_song), str(grid_song)]
    assert main(["filter", *songs, "-o", store, "--json", "-j", "1", "--report", str(page)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["added"], result["poor"], result["failed"], result["kept"]) == (2, 1, 0, 2)
    (refused,) = result["refused"]
    assert refused["path"] == str(bad_song)
    assert "is below 0.55" in refused["reason"]
    assert captured.err.count(str(bad_song)) == 1
    with Store.open(store) as opened:
        good, bad, other = opened.songs()
        assert good.quality > 0.6
        assert other.quality > 0.55
        assert (bad.kept, bad.n_samples) == (False, 0)
        assert bad.quality < 0.4
        assert f"quality {bad.quality:.3f}" in bad.reason
        curve = opened.quality_curve(0)
        assert len(curve) == round(good.duration_s / WINDOW_S)
        assert curve.mean() == pytest.approx(good.quality, abs=1e-6)
        assert len(opened.quality_curve(1)) == len(curve)
        provenance = opened.need("songs").state.provenance
        assert provenance.model == load_judge(shipped_judge()).id
        assert provenance.settings == {"rate": RATE, "threshold": 0.55, "keep": "songs"}
        assert check(opened, deep=True) == []
    text = page.read_text("utf-8")
    assert text.count("data:image/png;base64,") == text.count("<polyline") == 3
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text
    assert text.index("<h2>vibe_ace") < text.index("<h2>worn")
    # the same command does nothing twice; another threshold is other work
    assert main(["filter", *songs, "-o", store, "-j", "1"]) == 0
    assert "0 songs added, 2 known, 1 not good enough" in capsys.readouterr().err
    assert main(["filter", *songs, "-o", store, "-j", "1", "--threshold", "0.1"]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["filter", *songs, "-o", store, "--report", str(page)]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind",
    ["crackle", "clicks", "hiss", "hum", "band-limit", "clipping", "low-bitrate", "few-bits"],
)
def test_the_shipped_judge_finds_each_defect(kind: str, music: np.ndarray) -> None:
    judge = load_judge(shipped_judge())

    def quality(sound: np.ndarray) -> float:
        meter = QualityMeter()
        meter.push(sound)
        return weigh(judge, *meter.finish()).quality

    good, bad = quality(music), quality(degrade(music, kind, 0.7, seed=1))
    assert good > 0.6
    assert bad < 0.45


def test_threshold_0_keeps_all_and_still_judges(bad_song: Path, tmp_path: Path) -> None:
    with Store.create(tmp_path / "s.zarr") as store:
        (report,) = filter_songs(store, [bad_song], how=Screening(threshold=0.0))
        assert (report.status, report.clips) == ("added", 1)
        assert report.quality == pytest.approx(store.song(0).quality)
        assert report.quality < 0.4
        assert len(store.quality_curve(0)) == 12


def test_nothing_good_enough_is_said(
    bad_song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", str(bad_song), "-o", str(tmp_path / "s.zarr")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--threshold 0 keeps all" in captured.err.splitlines()[-1]


@pytest.fixture
def mixed_song(real_song: Path, tmp_path: Path) -> Path:
    """A minute of music, a minute of a worn disc, a minute of music."""
    music = read_mono(real_song, RATE)
    worn = degrade(music, "old-record", 1.0, seed=0)
    soundfile.write(tmp_path / "mixed.flac", np.concatenate([music, worn, music]), RATE)
    return tmp_path / "mixed.flac"


def test_clips_are_rows_with_their_place(
    mixed_song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "s.zarr")
    words = [
        "filter",
        str(mixed_song),
        "-o",
        store,
        "--keep",
        "clips",
        "--min-clip",
        "30",
        "--json",
    ]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kept"] == 2
    assert result["songs"][0]["clips"] == 2
    pcm = np.rint(read_mono(mixed_song, RATE) * 32768).astype(np.int16)
    with Store.open(store) as opened:
        first, second = opened.songs()
        assert first.sha256 == second.sha256
        assert (first.id, second.id) == (f"{first.sha256[:12]}-1", f"{first.sha256[:12]}-2")
        assert first.start_s == 0
        assert second.start_s > 100
        assert second.start_s + second.duration_s == pytest.approx(len(pcm) / RATE)
        for row in (first, second):
            start = round(row.start_s * RATE)
            sound = opened.song_pcm(row.index)[:]
            assert np.array_equal(sound, pcm[start : start + len(sound)])
            assert len(opened.quality_curve(row.index)) == round(row.duration_s / WINDOW_S)
            assert opened.quality_curve(row.index).min() >= 0.55
        assert check(opened, deep=True) == []
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["added"], again["known"], again["kept"]) == (0, 1, 2)
    assert main(["segment-bars", store, "--bpm", "130", "-j", "1"]) == 0
    with Store.open(store) as opened:
        assert opened.bars(1).start_s.min() >= opened.song(1).start_s
        assert check(opened, deep=True) == []


def test_clips_of_one_song_appear_together(
    mixed_song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgen.core.store.layer import Layer

    append, calls = Layer.append_blocks, []

    def die(self: Layer, *args: Any) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return append(self, *args)

    how = Screening(keep="clips")
    with Store.create(tmp_path / "s.zarr") as store:
        with monkeypatch.context() as patch:
            patch.setattr(Layer, "append_blocks", die)
            with pytest.raises(KeyboardInterrupt):
                list(filter_songs(store, [mixed_song], how=how))
        assert store.songs() == []
        (report,) = filter_songs(store, [mixed_song], how=how)
        assert (report.status, report.clips) == ("added", 2)
        assert check(store, deep=True) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--threshold", "2"], 2, "threshold of 2"),
        (["--min-clip", "0"], 2, "--min-clip"),
        (["--keep", "bars"], 2, "bars"),
        (["--model", "gone"], 1, "gone"),
        (["--report", "no/such/r.html"], 1, "no such folder"),
    ],
)
def test_filter_refuses(
    words: list[str], code: int, message: str, make_song: MakeSong, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["filter", str(make_song()), *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert message in captured.err


# training


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Six tones and six noises, called good and bad."""
    (tmp_path / "audio").mkdir()
    lines = ["path,label,start_s"]
    for i in range(6):
        soundfile.write(tmp_path / f"audio/g{i}.wav", tone(200 + 90 * i, 6), RATE)
        soundfile.write(tmp_path / f"audio/b{i}.wav", noise(6, i), RATE)
        lines += [f"audio/g{i}.wav,good,", f"audio/b{i}.wav,{'0' if i % 2 else 'bad'},0.5"]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "labels.csv"


def test_train_filter_makes_a_judge_that_filter_uses(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "mine"
    assert main(["train-filter", str(labelled), "-o", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["paths"] == [str(out)]
    assert (result["labels"], result["recordings"], result["held_out_accuracy"]) == (12, 12, 1.0)
    assert result["held_out_auc"] == 1.0
    assert "held out" in captured.err
    first = (out / WEIGHTS).read_bytes()
    assert main(["train-filter", str(labelled), "-o", str(out)]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["train-filter", str(labelled), "-o", str(out), "--force"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert (out / WEIGHTS).read_bytes() == first
    folder, store = labelled.parent / "audio", str(tmp_path / "s.zarr")
    assert main(["filter", str(folder), "-o", store, "--model", str(out), "-j", "1"]) == 0
    with Store.open(store) as opened:
        assert {s.name for s in opened.songs() if s.kept} == {f"g{i}" for i in range(6)}
        assert opened.need("songs").state.provenance.model == result["id"]


def test_train_filter_goes_on_without_what_it_cannot_read(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "audio/b3.wav").write_text("words")
    (tmp_path / "audio/g3.wav").unlink()
    assert main(["train-filter", str(labelled), "-o", str(tmp_path / "m"), "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["recordings"] == 10
    assert "line 9" in captured.err
    assert (tmp_path / "m" / CONFIG).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns"),
        ("a.wav,good\nb.wav,bad\n", "must name the columns"),
        ("path,label\na.wav,fine\n", "line 2: label 'fine'"),
        ("path,label\n,good\n", "line 2: no path"),
        ("path,label,start_s\na.wav,good,soon\n", "line 2: start_s 'soon'"),
        ("path,label\na.wav,good\nb.wav,good\n", "0 recordings are labelled bad"),
        ("path,label\na,1\na,1\nb,0\nc,0\n", "1 recordings are labelled good"),
        ("path,label\na,1\nb,1\nc,0\nd,0\n", "too few recordings could be read"),
    ],
)
def test_labels_that_cannot_be_used(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "l.csv").write_text(text)
    assert main(["train-filter", str(tmp_path / "l.csv"), "-o", str(tmp_path / "m")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]
    assert not (tmp_path / "m").exists()


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        read_labels(tmp_path / "gone.csv")
    (tmp_path / "b.csv").write_bytes(b"path,label\n\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_labels(tmp_path / "b.csv")


def test_five_seconds_are_those_that_were_labelled(tmp_path: Path) -> None:
    sound = np.concatenate([noise(7), tone(400, 6), noise(20, 1)])
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    found = hear(tmp_path / "a.wav", 7.0)
    part = sound[7 * RATE : 7 * RATE + WINDOW_SAMPLES]
    np.testing.assert_allclose(found, window_features(part[None]), rtol=1e-4, atol=1e-3)
    assert len(hear(tmp_path / "a.wav")) == round(33 / WINDOW_S)


def test_equal_recordings_are_never_split(labelled: Path) -> None:
    pytest.importorskip("sklearn")
    shutil.copy(labelled.parent / "audio/g0.wav", labelled.parent / "audio/g1.wav")
    examples = gather(list(hear_labels(read_labels(labelled))))
    assert len(np.unique(examples.song_W)) == 11
    held = cross_validate(examples)
    assert (held.folds, held.recordings) == (5, 11)
    assert fit(examples).fault(N_FEATURES) == ""


def test_roc_auc_counts_pairs() -> None:
    score = np.array([0.1, 0.4, 0.4, 0.8, 0.9])
    good = np.array([False, False, True, False, True])
    pairs = [(g > b) + 0.5 * (g == b) for g in score[good] for b in score[~good]]
    assert roc_auc(score, good) == pytest.approx(np.mean(pairs))


def test_the_specification_says_what_is_computed() -> None:
    assert (FEATURE_SPEC["bands"] + 1) * len(STATISTICS) + N_TRACES == N_FEATURES
    assert sum(map(len, FEATURE_SPEC["traces"].values())) == N_TRACES
    assert json.loads(json.dumps(FEATURE_SPEC)) == FEATURE_SPEC
    assert FEATURE_SPEC["frames"] * FEATURE_SPEC["hop"] == WINDOW_STEP
