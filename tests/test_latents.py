"""The layer of latents: round trips, several side by side, staleness, damage, what check finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from mgen.core.beats import Beats
from mgen.core.errors import StaleError, StoreError
from mgen.core.store import BarTable, Provenance, SongRow, Store, check, latents_layer

MADE = Provenance(command="mgen test", settings={"a": 1})
ONE, OTHER = "0123456789ab", "ba9876543210"
BARS = (3, 0, 2)  # of each song; the second is rejected
SONG = 40000  # samples


def by(tokenizer: str) -> Provenance:
    return Provenance(command="mgen tokenize", model=tokenizer + 52 * "0")


def spec(tokenizer: str = ONE, unit: str = "bar", tokens: int = 8, dims: int = 4) -> Any:
    return latents_layer(
        tokenizer, unit=unit, tokens=tokens, dims=dims, samples=16384, rate=16000, channels=1
    )


def latents(song: int, items: int, tokens: int = 8, dims: int = 4) -> np.ndarray:
    rng = np.random.default_rng(song)
    return rng.standard_normal((items, tokens, dims)).astype(np.float16)


def bar_table(song: int, n: int) -> BarTable:
    start = np.arange(n) * 0.1
    return BarTable(
        song=np.full(n, song, np.int32), index=np.arange(n, dtype=np.int32), start_s=start,
        end_s=start + 0.1, beats=np.full(n, 4, np.int8), bpm=np.full(n, 120, np.float32),
        stretch=np.ones(n, np.float32), jitter=np.zeros(n, np.int8), valid=np.ones(n, bool),
        confidence=np.ones(n, np.float32),
    )  # fmt: skip


def add_song(store: Store, i: int, bars: int) -> None:
    row = SongRow(id=f"id{i}", name=f"song {i}", source=f"/x/{i}.wav", sha256=f"{i:064x}",
                  kept=bars > 0, reason="" if bars else "silent")  # fmt: skip
    pcm = np.random.default_rng(i).integers(-999, 999, SONG if bars else 0).astype(np.int16)
    store.append_song(row, [pcm], MADE)
    store.append_beats(Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0)), MADE)
    store.append_bars(bar_table(i, bars), [np.full((bars, 32768), i, np.int16)], MADE)


def add_latents(store: Store, tokenizer: str = ONE, unit: str = "bar", songs: int = 3) -> None:
    layer = store.begin(spec(tokenizer, unit), by(tokenizer))
    for i in range(layer.length(), songs):
        n_samples = SONG if BARS[i] else 0
        items = BARS[i] if unit == "bar" else -(-n_samples // 16384)
        store.append_latents(tokenizer, latents(i, items), n_samples, by(tokenizer))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latents") / "s.zarr"
    with Store.create(path) as store:
        for i, bars in enumerate(BARS):
            add_song(store, i, bars)
        add_latents(store)
    return path


@pytest.fixture
def filled(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "s.zarr")


def test_what_goes_in_comes_out(filled: Path) -> None:
    with Store.open(filled) as store:
        assert store.family("latents") == [ONE]
        for song, items in enumerate(BARS):
            assert np.array_equal(store.latents(ONE, song), latents(song, items))
        assert len(store.latents(ONE)) == sum(BARS) == len(store.bars())
        facts = store.need(f"latents/{ONE}").spec.facts
        assert facts == {"unit": "bar", "tokens": 8, "dims": 4, "samples": 16384, "rate": 16000,
                         "channels": 1}  # fmt: skip
        assert check(store, deep=True) == []


def test_plain_zarr_reads_latents_and_what_they_are(filled: Path) -> None:
    root = zarr.open_group(filled, mode="r")
    z: Any = root[f"latents/{ONE}/z"]
    assert (z.dtype, z.shape) == (np.float16, (5, 8, 4))
    assert z.metadata.dimension_names == ("items", "token", "dim")
    assert np.array_equal(z[3:], latents(2, 2))
    about: Any = root[f"latents/{ONE}"].attrs["mgen"]
    assert (about["unit"], about["tokens"], about["dims"]) == ("bar", 8, 4)
    assert about["model"].startswith(ONE)
    assert about["length"] == {"items": 5, "songs": 3}
    assert set(about["parents"]) == {"bars"}


def test_several_tokenizers_side_by_side(filled: Path) -> None:
    with Store.open(filled, "a") as store:
        add_latents(store, OTHER, "second")
    with Store.open(filled) as store:
        assert store.family("latents") == [ONE, OTHER]
        assert store.latents(OTHER, 0).shape == (3, 8, 4)
        assert np.array_equal(store.latents(ONE, 2), latents(2, 2))
        assert set(store.need(f"latents/{OTHER}").state.parents) == {"songs"}
        assert check(store, deep=True) == []


def test_going_on_gives_the_same_bytes(filled: Path, tmp_path: Path) -> None:
    for name, cuts in (("a", [3]), ("b", [1, 2, 3])):
        shutil.copytree(filled, tmp_path / name)
        for songs in cuts:
            with Store.open(tmp_path / name, "a") as store:
                add_latents(store, OTHER, songs=songs)
    first, second = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*")
         if p.is_file()}
        for n in "ab"
    )  # fmt: skip
    assert first == second


def test_a_song_more_and_a_song_changed(filled: Path) -> None:
    with Store.open(filled, "a") as store:
        add_song(store, 3, 1)
        assert store.stale(f"latents/{ONE}") == ""
        assert check(store) == []
        store.begin("bars", MADE, anew=True)
        for i, bars in enumerate((3, 0, 1, 1)):
            store.append_bars(bar_table(i, bars), [np.ones((bars, 32768), np.int16)], MADE)
        assert "bars have changed" in store.stale(f"latents/{ONE}")
        assert any("stale" in str(finding) for finding in check(store))
        with pytest.raises(StaleError, match=r"latents/0123.*--force"):
            store.begin(spec(), by(ONE))
        assert store.begin(spec(), by(ONE), anew=True).length() == 0


def test_models_are_linked_with_their_place(filled: Path, tmp_path: Path) -> None:
    with Store.open(filled, "a") as store:
        store.link_model("tokenizer", ONE, tmp_path / "tok")
        store.link_model("lam", "abc")
    with Store.open(filled) as store:
        assert store.models == {"tokenizer": ONE, "lam": "abc"}
        assert store.model_path("tokenizer") == tmp_path / "tok"
        assert store.model_path("lam") is None
        with pytest.raises(StoreError, match="opened for reading"):
            store.link_model("tokenizer", OTHER)
    with Store.open(filled, "a") as store:
        store.link_model("tokenizer", OTHER)  # one that ships: the place of the other is forgotten
    with Store.open(filled) as store:
        assert store.model_path("tokenizer") is None


def test_what_is_not_there(filled: Path) -> None:
    with Store.open(filled, "a") as store:
        with pytest.raises(StoreError, match="mgen tokenize"):
            store.latents(OTHER)
        with pytest.raises(StoreError, match="3 songs, not song 7"):
            store.latents(ONE, 7)
        with pytest.raises(ValueError, match="no tokenizer's id"):
            spec("../../x")
        with pytest.raises(StoreError, match="damaged"):
            store.begin(spec(tokens=16), by(ONE))


def _edit(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text("utf-8"))
    document["attributes"]["mgen"].update(changes)
    path.write_text(json.dumps(document), "utf-8")


@pytest.mark.parametrize(
    "changes", [{"tokens": 9}, {"dims": "4"}, {"unit": "hour"}, {"rate": None}]
)
def test_metadata_that_does_not_fit_is_damage(filled: Path, changes: dict[str, Any]) -> None:
    _edit(filled / "latents" / ONE / "zarr.json", **changes)
    with Store.open(filled) as store:
        with pytest.raises(StoreError, match="damaged at latents"):
            store.latents(ONE)
        (finding,) = check(store)
        assert finding.layer == f"latents/{ONE}"


def _rewrite(root: Path, path: str, at: int, value: Any) -> None:
    array: Any = zarr.open_array(root / path, mode="r+")
    array[at] = value


@pytest.mark.parametrize(
    ("name", "at", "value", "deep", "words"),
    [
        ("z", 1, 0.5, True, "digest"),
        ("z", 1, np.nan, False, "NaN"),
        ("n_samples", 0, 7, True, "digest"),
        ("song_offset", 1, 2, False, "more or fewer items"),
        ("song_offset", 3, 4, False, "song_offset"),
        ("digest", 0, 0, False, "hash"),
    ],
)
def test_check_finds(filled: Path, name: str, at: int, value: Any, deep: bool, words: str) -> None:
    _rewrite(filled, f"latents/{ONE}/{name}", at, value)
    with Store.open(filled) as store:
        assert any(words in str(finding) for finding in check(store, deep=deep))
        assert not deep or check(store) == []


def test_check_finds_what_is_gone(filled: Path) -> None:
    (filled / "latents" / ONE / "z" / "c" / "0" / "0" / "0").unlink()
    with Store.open(filled) as store:
        assert any("missing" in str(finding) for finding in check(store))


def test_lost_metadata_is_not_a_free_place(filled: Path) -> None:
    (filled / "latents" / ONE / "zarr.json").unlink()
    with Store.open(filled) as store:
        assert any("metadata" in str(finding) for finding in check(store))
    with Store.open(filled, "a") as store, pytest.raises(StoreError, match="metadata is not"):
        store.begin(spec(), by(ONE))


def test_an_append_that_fails_publishes_nothing(filled: Path) -> None:
    with Store.open(filled, "a") as store:
        store.begin(spec(OTHER), by(OTHER))
        with pytest.raises(ValueError, match="are not items of"):
            store.append_latents(OTHER, np.zeros((2, 8, 5)), SONG, by(OTHER))
        add_latents(store, OTHER)
        assert np.array_equal(store.latents(OTHER, 0), latents(0, 3))
        assert check(store, deep=True) == []
