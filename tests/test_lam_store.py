"""Actions in a store: the layer, labelling song by song, staleness, what check finds, the data."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from labelled_store import BARS, MADE, TOKENIZER, TOKENS, bar_of, bar_table, kinds, make_store
from scipy.linalg import inv, sqrtm
from test_lam_model import TINY

from mgen.core.errors import InputError, StaleError, StoreError
from mgen.core.lam.config import BottleneckName, LamConfig, make_config
from mgen.core.lam.data import (
    Bars,
    TrainingBars,
    bar_mel,
    current_latents,
    mel_spec,
    read_bars,
    runs_of,
)
from mgen.core.lam.folder import LatentActionModel
from mgen.core.lam.model import ActionNetwork
from mgen.core.lam.palette import load_palette, save_palette
from mgen.core.lam.passes import actions_id, current_palette, label_song, label_songs
from mgen.core.lam.survey import find_palette, health, row_facts, survey
from mgen.core.store import (
    Provenance,
    Store,
    StoredActions,
    actions_layer,
    append_actions,
    check,
    latents_layer,
    read_actions,
)
from mgen.kernels.log_mel import log_mel_reference

LAM = "fedcba987654"


def config_of(name: BottleneckName = "vq", **changed: Any) -> LamConfig:
    axes = {"actions": 8, "top_k": 2} if name == "style" else {}
    config = make_config(name, tokens=TOKENS, dims=16, tokenizer=TOKENIZER,
                         **axes)  # type: ignore[arg-type]  # fmt: skip
    return replace(config, sizes=TINY, **changed)


def lam_of(name: BottleneckName = "vq", **changed: Any) -> LatentActionModel:
    torch.manual_seed(0)
    return LatentActionModel(ActionNetwork(config_of(name, **changed)), LAM + 52 * "1")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lam") / "s.zarr"
    make_store(path)
    return path


@pytest.fixture
def filled(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "s.zarr")


def spec(bottleneck: str = "style", **changed: Any) -> Any:
    facts = {"actions": 9, "numbers": 2, "bars_per_action": 1, "input": "latents",
             "tokenizer": TOKENIZER, **changed}  # fmt: skip
    return actions_layer(LAM, bottleneck=bottleneck, **facts)


def some(song: int) -> StoredActions:
    n = 2 * BARS[song]
    weight = np.random.default_rng(song).uniform(0.1, 1.0, (n, 2)).astype(np.float32)
    index = np.random.default_rng(song).integers(0, 9, (n, 2))
    return StoredActions(index.astype(np.int32), weight / weight.sum(1, keepdims=True))


BY = Provenance(command="mgen actions", model=LAM + 52 * "1")


class TestLayer:
    @pytest.mark.parametrize("bottleneck", ["style", "residual-fsq"])
    def test_what_goes_in_comes_out(self, filled: Path, bottleneck: str) -> None:
        with Store.open(filled, "a") as store:
            store.begin(spec(bottleneck), BY)
            for song in range(len(BARS)):
                append_actions(store, LAM, some(song), BY)
        with Store.open(filled) as store:
            assert store.family("actions") == [LAM]
            for song in range(len(BARS)):
                found = read_actions(store, LAM, song)
                assert np.array_equal(found.index, some(song).index)
                expected = some(song).weight if bottleneck == "style" else 1.0
                assert (found.weight == expected).all()
            assert len(read_actions(store, LAM).index) == len(store.bars(jittered=True))
            assert set(store.need(f"actions/{LAM}").state.parents) == {
                "bars", f"latents/{TOKENIZER}"}  # fmt: skip
            assert check(store, deep=True) == []
        root = zarr.open_group(filled, mode="r")
        name = "index" if bottleneck == "style" else "codes"
        array: Any = root[f"actions/{LAM}/{name}"]
        last = "choice" if bottleneck == "style" else "quantizer"
        assert array.metadata.dimension_names == ("bars", last)
        about: Any = root[f"actions/{LAM}"].attrs["mgen"]
        assert (about["bottleneck"], about["actions"], about["model"]) == (bottleneck, 9, BY.model)

    def test_rows_that_do_not_fit_publish_nothing(self, filled: Path) -> None:
        with Store.open(filled, "a") as store:
            store.begin(spec(numbers=3), BY)
            with pytest.raises(ValueError, match="are not bars of 3"):
                append_actions(store, LAM, some(0), BY)
            assert store.need(f"actions/{LAM}").length() == 0
            with pytest.raises(ValueError, match="no latent action model's id"):
                actions_layer("../x", bottleneck="vq", actions=4, numbers=1, bars_per_action=1,
                              input="latents", tokenizer="")  # fmt: skip
            with pytest.raises(StoreError, match="mgen actions"):
                read_actions(store, "0" * 12)

    @pytest.mark.parametrize(
        ("name", "value", "deep", "words"),
        [("index", 99, False, "outside 0 to 8"), ("weight", 0.9, False, "do not sum to 1"),
         ("index", 8, True, "digest"), ("song_offset", 1, False, "more or fewer bars")],
    )  # fmt: skip
    def test_check_finds(self, filled: Path, name: str, value: Any, deep: bool, words: str) -> None:
        with Store.open(filled, "a") as store:
            store.begin(spec(), BY)
            for song in range(len(BARS)):
                append_actions(store, LAM, some(song), BY)
        array: Any = zarr.open_array(filled / "actions" / LAM / name, mode="r+")
        array[1] = value
        with Store.open(filled) as store:
            assert any(words in str(finding) for finding in check(store, deep=deep))


class TestLabelling:
    @pytest.mark.parametrize("name", ["vq", "residual-fsq", "style"])
    def test_every_bar_of_every_song(self, filled: Path, name: BottleneckName) -> None:
        lam = lam_of(name)
        with Store.open(filled, "a") as store:
            reports = list(label_songs(store, lam, command="mgen actions"))
            assert [r.items for r in reports] == [2 * n for n in BARS]
            assert [r.status for r in reports] == ["done", "skipped", "done", "done"]
            again = list(label_songs(store, lam))
            assert [r.status for r in again] == ["known", "skipped", "known", "known"]
            assert check(store, deep=True) == []
            z = store.latents(TOKENIZER, 0)
            found = read_actions(store, actions_id(lam), 0)
            for rows in (slice(0, 12), slice(12, 24)):  # the real bars, and the copy, apart
                direct = lam.label(torch.from_numpy(z[rows]))
                assert np.array_equal(found.index[rows], direct.index.numpy())
                assert np.allclose(found.weight[rows], direct.weight.numpy())

    def test_going_on_gives_what_one_go_gives(
        self, filled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lam, whole = lam_of(), filled.with_name("whole.zarr")
        shutil.copytree(filled, whole)
        with Store.open(whole, "a") as store:
            list(label_songs(store, lam))
        with Store.open(filled, "a") as store:
            next(r for r in label_songs(store, lam) if r.status == "done")
        with Store.open(filled, "a") as store:
            assert store.need(f"actions/{LAM}").length() == 1
            statuses = [r.status for r in label_songs(store, lam)]
        assert statuses == ["known", "skipped", "done", "done"]
        first, second = (
            {p.relative_to(root): p.read_bytes() for p in (root / "actions").rglob("*")
             if p.is_file()}
            for root in (filled, whole)
        )  # fmt: skip
        assert first == second

    def test_from_the_sound_it_needs_no_latents(self, tmp_path: Path) -> None:
        make_store(tmp_path / "s.zarr", latents=False)
        lam = lam_of("style", input="mel")
        with Store.open(tmp_path / "s.zarr", "a") as store:
            list(label_songs(store, lam))
            assert set(store.need(f"actions/{LAM}").state.parents) == {"bars"}
            mel_XLM = torch.from_numpy(bar_mel(store.bar_pcm(slice(0, 12)), TOKENS))
            direct = lam.label(mel_XLM)
            assert np.array_equal(label_song(store, 0, lam).index[:12], direct.index.numpy())

    def test_what_is_stale_or_missing_is_said(self, filled: Path, tmp_path: Path) -> None:
        make_store(tmp_path / "bare.zarr", latents=False)
        with (
            Store.open(tmp_path / "bare.zarr", "a") as store,
            pytest.raises(StoreError, match="mgen tokenize"),
        ):
            list(label_songs(store, lam_of()))
        with Store.open(filled, "a") as store:
            list(label_songs(store, lam_of()))
            store.begin("bars", MADE, anew=True)
            for song, n in enumerate(BARS):
                store.append_bars(bar_table(song), [np.ones((2 * n, 32768), np.int16)], MADE)
            with pytest.raises(StaleError, match="mgen tokenize --force"):
                list(label_songs(store, lam_of()))
            assert any("stale" in str(finding) for finding in check(store))


class TestPaletteOfACorpus:
    @pytest.mark.parametrize("name", ["vq", "residual-fsq", "style"])
    def test_uses_exemplars_and_figures(
        self, filled: Path, name: BottleneckName, tmp_path: Path
    ) -> None:
        lam = lam_of(name)
        with Store.open(filled, "a") as store:
            list(label_songs(store, lam))
            found = survey([store], lam)
            palette = find_palette(lam, found)
            assert row_facts(lam, palette, found) == list(palette.rows)
            labels, real = read_actions(store, LAM), store.bars().row
        assert len(found) == sum(BARS)
        assert np.array_equal(found.labels.index.numpy(), labels.index[real])
        first = palette.rows[0]
        has = (labels.index[real] == int(palette.payload.index[0, 0])).any(axis=1)
        if name != "residual-fsq":
            assert first.uses == int(has.sum())
        for row in palette.rows:
            assert len(row.exemplars) == min(3, row.uses)
            for e in row.exemplars:
                song = int(e.song.removeprefix("id"))
                assert 1 <= e.bar <= BARS[song]
        figures = health(lam, found)
        assert 1.0 <= figures["perplexity"] <= lam.config.actions
        assert 0.0 < figures["utilisation"] <= 1.0
        save_palette(palette, tmp_path / "p")
        assert current_palette(lam, tmp_path, tmp_path / "p").id == palette.id
        with pytest.raises(InputError, match="a palette of the model"):
            current_palette(LatentActionModel(lam.network, 64 * "2"), tmp_path, tmp_path / "p")
        assert load_palette(tmp_path / "p").rows == palette.rows

    def test_names_are_what_was_put_into_the_sound(self, filled: Path) -> None:
        """Label each bar by its kind: the four actions are named by what the kinds differ in."""
        lam = lam_of("style")
        with Store.open(filled, "a") as store:
            store.begin(actions_layer(
                LAM, bottleneck="style", actions=8, numbers=2, bars_per_action=1,
                input="latents", tokenizer=TOKENIZER), BY)  # fmt: skip
            for song in range(len(BARS)):
                which = np.tile(kinds(song), 2).astype(np.int32)
                index = np.stack([which, np.full_like(which, 7)], axis=1)
                weight = np.tile(np.array([[1.0, 0.0]], np.float32), (len(index), 1))
                append_actions(store, LAM, StoredActions(index, weight), BY)
            palette = find_palette(lam, survey([store], lam))
        sizes = [row.effect_size for row in palette.rows]
        assert [s["loudness_db"] > 0.3 for s in sizes[:4]] == [False, True, False, True]
        assert [s["loudness_db"] < -0.3 for s in sizes[:4]] == [True, False, True, False]
        assert [s["brightness_oct"] > 0.3 for s in sizes[:4]] == [False, False, True, True]
        assert [s["bass_db"] > 0.3 for s in sizes[:4]] == [True, True, False, False]
        assert all(abs(s["onsets_per_beat"]) < 0.3 for s in sizes[:4])
        assert palette.rows[4].uses == 0
        assert palette.rows[4].name == "no clear effect"
        assert sum(row.share for row in palette.rows) == pytest.approx(1.0, abs=1e-4)


class TestTrainingData:
    def test_runs_break_where_songs_copies_and_bad_bars_do(self) -> None:
        table = bar_table(0)
        table.valid[5] = False
        table.index[20:] += 1
        assert runs_of(table) == [(0, 5), (6, 12), (12, 20), (20, 24)]
        assert runs_of(table.where(np.zeros(24, bool))) == []

    def test_sequences_are_of_one_song_and_songs_are_held_out_whole(self, filled: Path) -> None:
        config = config_of(bars=4)
        with Store.open(filled) as store:
            bars = read_bars([store], config)
        data = TrainingBars(bars, config, seed=1, held_out=0.34)
        owner = np.empty(len(bars.z_XLD), int)
        for (a, b), name in zip(bars.runs, bars.owners, strict=True):
            owner[a:b] = int(name, 16)
        groups = [{int(o) for f in firsts for o in owner[f : f + 4]}
                  for firsts in (data.train, data.held_out)]  # fmt: skip
        assert groups[0].isdisjoint(groups[1])
        assert groups[0] | groups[1] == {0, 2, 3}
        assert len(groups[1]) == data.about["songs_held_out"] == 1
        for first in data.train:
            assert any(a <= first and first + 4 <= b for a, b in bars.runs)
        assert (np.diff(np.sort(data.held_out)) >= 4).all()

    def test_batches_are_functions_of_seed_and_step(self, filled: Path) -> None:
        config = config_of(bars=4)
        with Store.open(filled) as store:
            one, two, other = (TrainingBars(read_bars([store], config), config, seed=s)
                               for s in (0, 0, 1))  # fmt: skip
        batches = [one.batch(step, 6)["z_SBLD"] for step in (3, 4, 3)]
        assert batches[0].shape == (6, 4, TOKENS, 16)
        assert torch.equal(batches[0], batches[2])
        assert torch.equal(batches[0], two.batch(3, 6)["z_SBLD"])
        assert not torch.equal(batches[0], batches[1])
        assert not torch.equal(batches[0], other.batch(3, 6)["z_SBLD"])
        count = len(one.train)
        whole = torch.cat([one.batch(s, 1)["z_SBLD"] for s in range(count)])
        assert len(whole.flatten(1).unique(dim=0)) == count  # each once in a round

    def test_mel_is_read_beside_latents(self, filled: Path) -> None:
        config = config_of("style", input="mel")
        with Store.open(filled) as store:
            bars = read_bars([store], config)
            pcm = store.bar_pcm(slice(0, 2))
        assert bars.mel_XLM is not None
        assert bars.mel_XLM.shape == (2 * sum(BARS), TOKENS, 80)
        spec = mel_spec(TOKENS)
        slow = log_mel_reference(torch.from_numpy(pcm[:, 256:] / 32768.0), spec)[:, :TOKENS]
        assert torch.allclose(torch.from_numpy(bars.mel_XLM[:2]).double(), slow, atol=0.1)
        batch = TrainingBars(bars, config).batch(0, 2)
        assert batch["read_SBLF"].shape == (2, 8, TOKENS, 80)
        assert batch["z_SBLD"].shape == (2, 8, TOKENS, 16)

    def test_relative_styles_are_of_what_is_left_of_each_copy(self, filled: Path) -> None:
        config = config_of("style", bars=4)
        assert config.relative
        with Store.open(filled) as store:
            bars, table = read_bars([store, store], config), store.bars(jittered=True)
        data = TrainingBars(bars, config)
        for first in data.train[:: max(1, len(data.train) // 9)]:
            row = int(first) % len(table)
            mine = (table.song == table.song[row]) & (table.jitter == table.jitter[row])
            x_XLD = bars.z_XLD[: len(table)][mine].astype(np.float64)
            left_XLD = x_XLD - x_XLD.mean(0)
            flat_ND = left_XLD.reshape(-1, 16)
            whiten = np.real(sqrtm(inv(flat_ND.T @ flat_ND / len(flat_ND) + 0.02 * np.eye(16))))
            at = row - int(np.flatnonzero(mine)[0])
            found = data.sequences(np.array([first]))
            assert np.allclose(found["z_SBLD"][0], left_XLD[at : at + 4] @ whiten, atol=5e-3)
            assert torch.equal(found["read_SBLF"], found["z_SBLD"])

    def test_what_is_read_is_another_copy_of_what_is_written(self) -> None:
        rng = np.random.default_rng(0)
        z = rng.standard_normal((28, TOKENS, 16)).astype(np.float16)
        bars = Bars(
            z_XLD=z, mel_XLM=None, runs=((0, 6), (6, 12), (12, 18), (18, 23), (23, 28)),
            owners=("a", "a", "b", "b", "c"), copies=np.repeat(np.arange(5), [6, 6, 6, 5, 5]),
            songs=("a", "a", "b", "b", "c"),
        )  # fmt: skip
        data = TrainingBars(bars, config_of("vq", bars=4), held_out=0.0)
        firsts = np.array([1, 8, 13, 19, 24])
        same = data.sequences(firsts)
        assert torch.equal(same["z_SBLD"], same["read_SBLF"])
        found = data.sequences(firsts, rng)
        assert torch.equal(found["z_SBLD"], same["z_SBLD"])
        where = [7, 2, 13, 19, 24]  # b's copies have other bars, c has one
        wanted = np.stack([z[at : at + 4] for at in where]).astype(np.float32)
        assert np.array_equal(found["read_SBLF"].numpy(), wanted)
        one, again, other = (data.batch(step, 3)["read_SBLF"] for step in (3, 3, 4))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    def test_a_mel_frame_hears_its_own_token(self) -> None:
        pcm = np.zeros((1, 32768), np.int16)
        pcm[0, 10 * 512 : 11 * 512] = bar_of(3, 0)[:512] * 4
        level = bar_mel(pcm, TOKENS)[0].max(axis=1)
        assert int(level.argmax()) == 10

    def test_too_short_and_missing_are_said(self, filled: Path, tmp_path: Path) -> None:
        with Store.open(filled) as store:
            assert current_latents([store, store]) == (TOKENIZER, TOKENS, 16)
            config = config_of(bars=16)
            bars = read_bars([store], config)
            with pytest.raises(StoreError, match="no song has 16 bars on end"):
                TrainingBars(bars, config)
        make_store(tmp_path / "bare.zarr", latents=False)
        with (
            Store.open(tmp_path / "bare.zarr") as store,
            pytest.raises(StoreError, match="mgen tokenize"),
        ):
            current_latents([store])

    def test_latents_of_seconds_are_refused(self, filled: Path) -> None:
        other = "1" * 12
        with Store.open(filled, "a") as store:
            layer = latents_layer(other, unit="second", tokens=TOKENS, dims=16, samples=16384,
                                  rate=16000, channels=1)  # fmt: skip
            store.begin(layer, replace(BY, model=other))
            with pytest.raises(StoreError, match="actions are of bars"):
                read_bars([store], replace(config_of(), tokenizer=other))


def test_pairs_of_kinds_are_all_there() -> None:
    """The known answers above need every kind, and steps between them."""
    seen = [int(k) for song in range(len(BARS)) for k in kinds(song)]
    assert set(seen) == {0, 1, 2, 3}
    assert len(set(itertools.pairwise(seen))) > 6
