"""Palettes: numbers that never change, mixes, choosing; names by measurement of known sound."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_store import bar_of
from test_lam_model import tiny

from mgen.core.errors import InputError, InputNotFoundError, OutputExistsError, UsageError
from mgen.core.lam.effects import (
    FIGURES,
    NO_EFFECT,
    PITCHES,
    Effect,
    bar_figures,
    differences,
    effects_of,
    shared_information,
)
from mgen.core.lam.folder import LatentActionModel
from mgen.core.lam.palette import (
    Exemplar,
    Palette,
    PaletteRow,
    candidates_of,
    choose,
    curate,
    exemplars_of,
    load_palette,
    make_palette,
    save_palette,
)
from mgen.core.quantizers import Payload
from mgen.core.store import BarTable


def row(number: int) -> PaletteRow:
    return PaletteRow(
        name=f"louder {number}", uses=number, share=number / 10, effect={"loudness_db": 1.5},
        effect_size={"loudness_db": 0.5}, exemplars=(Exemplar(song="id1", bar=number + 1),),
    )  # fmt: skip


def lam_of(name: str) -> LatentActionModel:
    return LatentActionModel(tiny(name), 64 * "a")  # type: ignore[arg-type]


@pytest.fixture
def palette() -> Palette:
    payload = Payload(torch.arange(6)[:, None], torch.ones(6, 1))
    return make_palette(lam_of("vq"), payload, [row(i) for i in range(6)])


class TestPalette:
    def test_comes_back_with_its_id(self, palette: Palette, tmp_path: Path) -> None:
        assert save_palette(palette, tmp_path / "p") == palette.id
        again = load_palette(tmp_path / "p")
        assert (again.id, again.lam, again.rows) == (palette.id, palette.lam, palette.rows)
        assert torch.equal(again.embedding_RA, palette.embedding_RA)
        assert torch.equal(again.payload.index, palette.payload.index)

    def test_id_is_of_all_that_is_in_it(self, palette: Palette) -> None:
        lam, payload, rows = lam_of("vq"), palette.payload, palette.rows
        assert make_palette(lam, payload, rows).id == palette.id
        renamed = [replace(rows[0], name="other"), *rows[1:]]
        moved = Payload(payload.index.flip(0), payload.weight)
        other = LatentActionModel(lam.network, 64 * "b")
        others = [make_palette(lam, payload, renamed), make_palette(lam, moved, rows),
                  make_palette(other, payload, rows)]  # fmt: skip
        assert len({palette.id, *(p.id for p in others)}) == 4

    def test_an_action_is_its_row_and_a_mix_the_weighted_sum(self, palette: Palette) -> None:
        lam = lam_of("vq")
        assert torch.allclose(palette.embed({4: 1.0}), lam.embed(palette.payload_of(4)), atol=1e-6)
        mix = palette.embed({1: 0.6, 5: 0.4})
        expected = 0.6 * palette.embedding_RA[1] + 0.4 * palette.embedding_RA[5]
        assert torch.allclose(mix, expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("mix", "message"),
        [({6: 1.0}, "no action 6; the palette has 0 to 5"), ({-1: 1.0}, "no action -1"),
         ({}, "no actions"), ({1: math.nan}, "counts nan")],
    )  # fmt: skip
    def test_what_is_not_there(self, palette: Palette, mix: dict[int, float], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            palette.embed(mix)

    def test_curating_makes_another(self, palette: Palette, tmp_path: Path) -> None:
        fewer = curate(palette, [4, 0])
        assert [r.uses for r in fewer.rows] == [4, 0]
        assert fewer.parent == palette.id != fewer.id
        assert torch.equal(fewer.embed({0: 1.0}), palette.embed({4: 1.0}))
        assert save_palette(fewer, tmp_path / "q") == fewer.id == load_palette(tmp_path / "q").id
        for wanted in ([], [1, 1], [6]):
            with pytest.raises(UsageError):
                curate(palette, wanted)

    def test_nothing_is_replaced_unasked(self, palette: Palette, tmp_path: Path) -> None:
        save_palette(palette, tmp_path / "p")
        with pytest.raises(OutputExistsError, match="--force"):
            save_palette(palette, tmp_path / "p")
        save_palette(curate(palette, [1]), tmp_path / "p", force=True)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "a.txt").write_text("a", "utf-8")
        with pytest.raises(OutputExistsError, match="is no palette"):
            save_palette(palette, tmp_path / "mine", force=True)

    def test_damage_is_one_line(self, palette: Palette, tmp_path: Path) -> None:
        with pytest.raises(InputNotFoundError):
            load_palette(tmp_path)
        save_palette(palette, tmp_path / "p")
        path = tmp_path / "p" / "config.json"
        about = json.loads(path.read_text("utf-8"))
        about["rows"][2]["name"] = "a lie"
        path.write_text(json.dumps(about), "utf-8")
        with pytest.raises(InputError, match="not those that were written"):
            load_palette(tmp_path / "p")


class TestChoosing:
    def test_few_are_all_taken_in_their_order(self) -> None:
        assert choose(torch.randn(5, 3), [0, 9, 1, 0, 2], 64) == [0, 1, 2, 3, 4]

    def test_used_and_diverse(self) -> None:
        place = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.0, 5.0], [9.0, 9.0]])
        assert choose(place, [100, 99, 10, 10, 0], 3) == [0, 2, 3]

    @settings(deadline=None, max_examples=20)
    @given(uses=st.lists(st.integers(0, 20), min_size=8, max_size=12), seed=st.integers(0, 9))
    def test_never_twice_and_never_unused(self, uses: list[int], seed: int) -> None:
        place = torch.randn(len(uses), 3, generator=torch.Generator().manual_seed(seed))
        chosen = choose(place, uses, 5)
        assert len(set(chosen)) == len(chosen) <= 5
        assert all(uses[c] for c in chosen)
        assert len(chosen) == min(5, sum(u > 0 for u in uses))

    def test_styles_are_carried_by_bars_that_have_them_among_others(self) -> None:
        labels = Payload(torch.tensor([[3, 1], [1, 0]]), torch.tensor([[0.9, 0.1], [1.0, 0.0]]))
        payload, carriers = candidates_of(lam_of("style"), labels)
        assert payload.index[:, 0].tolist() == list(range(8))
        assert payload.weight[:, 0].tolist() == [1.0] * 8
        assert [rows.tolist() for rows in carriers[:4]] == [[], [0, 1], [], [0]]

    def test_residual_codes_are_carried_at_each_depth(self) -> None:
        labels = Payload(torch.tensor([[3, 1, 2], [3, 1, 5], [4, 1, 2]]), torch.ones(3, 3))
        payload, carriers = candidates_of(lam_of("residual-fsq"), labels)
        found = {
            tuple(i[w > 0]): rows.tolist()
            for i, w, rows in zip(
                payload.index.numpy(), payload.weight.numpy(), carriers, strict=True
            )
        }
        assert found == {(3,): [0, 1], (4,): [2], (3, 1): [0, 1], (4, 1): [2], (3, 1, 2): [0],
                         (3, 1, 5): [1], (4, 1, 2): [2]}  # fmt: skip

    def test_exemplars_are_of_several_songs(self) -> None:
        weight = np.array([0.9, 0.8, 0.7, 0.2])
        songs = np.array(["a", "a", "a", "b"])
        assert exemplars_of(np.arange(4), weight, songs) == [0, 3, 1]
        assert exemplars_of(np.array([2]), weight, songs) == [2]


def figures(*pcm: np.ndarray, beats: int = 4) -> list[dict[str, float]]:
    found = bar_figures(np.stack(pcm), np.full(len(pcm), beats, np.int8))
    return [dict(zip(FIGURES, row.tolist(), strict=True)) for row in found]


def tone(hz: float, amplitude: float = 0.1) -> np.ndarray:
    t = np.arange(32768) / 16000
    return np.round(32767 * amplitude * np.sin(2 * np.pi * hz * t)).astype(np.int16)


class TestFigures:
    def test_known_answers(self) -> None:
        low, high, loud = figures(tone(1000), tone(2000), tone(1000, 0.2))
        assert low["loudness_db"] == pytest.approx(20 * math.log10(0.1 / math.sqrt(2)), abs=0.01)
        assert loud["loudness_db"] - low["loudness_db"] == pytest.approx(6.02, abs=0.01)
        assert high["brightness_oct"] - low["brightness_oct"] == pytest.approx(1.0, abs=0.01)
        assert low["brightness_oct"] == pytest.approx(math.log2(1000), abs=0.01)

    def test_bass_noise_and_silence(self) -> None:
        rng = np.random.default_rng(0)
        noise = np.round(3000 * rng.standard_normal(32768)).astype(np.int16)
        bass, mid, white, silence = figures(tone(60), tone(1000), noise, np.zeros(32768, np.int16))
        assert bass["bass_db"] == pytest.approx(0.0, abs=0.1)
        assert mid["bass_db"] < -40
        assert white["noise_db"] > -1.0 > mid["noise_db"] + 20
        assert silence["loudness_db"] == pytest.approx(-90.0)
        assert all(math.isfinite(value) for value in silence.values())
        assert silence["onsets_per_beat"] == 0.0

    @pytest.mark.parametrize("kind", [1, 3])
    def test_onsets_are_counted(self, kind: int) -> None:
        four = bar_of(kind, 0)
        two = four.copy()
        two[8192:16384] = two[24576:] = 0
        found = figures(four, two)
        assert [f["onsets_per_beat"] for f in found] == [1.0, 0.5]
        assert figures(four, beats=2)[0]["onsets_per_beat"] == 2.0

    def test_a_bar_that_grows_builds_up(self) -> None:
        swell = tone(1000)
        swell[:16384] //= 2
        assert figures(swell)[0]["build_db"] == pytest.approx(6.0, abs=0.1)
        assert figures(swell[::-1].copy())[0]["build_db"] == pytest.approx(-6.0, abs=0.1)

    def test_off_the_beat_is_between_the_beats(self) -> None:
        on, off = np.zeros(32768, np.int16), np.zeros(32768, np.int16)
        click = tone(3000, 0.5)[:800]
        for beat in range(4):
            on[beat * 8192 + 100 : beat * 8192 + 900] = click
            off[beat * 8192 + 4096 : beat * 8192 + 4896] = click
        first, second = figures(on, off)
        assert first["offbeat_db"] < -3.0 < 0.0 < second["offbeat_db"]

    @pytest.mark.parametrize(("hz", "pitch"), [(440.0, "A"), (261.63, "C"), (369.99, "F#")])
    def test_pitch_classes_are_those_of_the_notes(self, hz: float, pitch: str) -> None:
        (found,) = figures(tone(hz))
        shares = {name: found[f"pitch_{name}_db"] for name in PITCHES}
        assert max(shares, key=shares.__getitem__) == pitch
        (octave,) = figures(tone(2 * hz))
        assert octave[f"pitch_{pitch}_db"] == pytest.approx(shares[pitch], abs=1.0)


def table(song: list[int], index: list[int]) -> BarTable:
    n = len(song)
    zeros = np.zeros(n)
    return BarTable(
        song=np.array(song, np.int32), index=np.array(index, np.int32), start_s=zeros,
        end_s=zeros + 1, beats=np.full(n, 4, np.int8), bpm=zeros.astype(np.float32),
        stretch=zeros.astype(np.float32), jitter=zeros.astype(np.int8), valid=np.ones(n, bool),
        confidence=zeros.astype(np.float32),
    )  # fmt: skip


class TestEffects:
    def test_a_step_is_compared_with_the_bar_before(self) -> None:
        values = np.arange(6.0)[:, None] ** 2 * np.ones(len(FIGURES))
        found = differences(values, table([0, 0, 0, 0, 1, 1], [0, 1, 3, 4, 0, 1]), steps=True)
        assert np.array_equal(found[:, 0], [np.nan, 1, np.nan, 5, np.nan, 9], equal_nan=True)

    def test_a_style_is_compared_with_the_songs_other_bars(self) -> None:
        values = np.array([1.0, 2.0, 6.0, 5.0, 7.0])[:, None] * np.ones(len(FIGURES))
        found = differences(values, table([0, 0, 0, 1, 2], [0, 1, 2, 0, 0]), steps=False)
        assert np.array_equal(found[:, 0], [-3, -1.5, 4.5, np.nan, np.nan], equal_nan=True)

    def test_sizes_are_in_standard_deviations(self) -> None:
        rng = np.random.default_rng(0)
        spread = rng.standard_normal((400, len(FIGURES)))
        spread[:, 0] *= 3.0
        spread[:50, 0] += 6.0
        spread[399] = np.nan
        loud, none, few = effects_of(spread, [np.arange(50), np.arange(60, 399), np.array([1, 2])])
        assert loud.mean["loudness_db"] == pytest.approx(6.0, abs=1.0)
        expected = loud.mean["loudness_db"] / np.nanstd(spread[:, 0])
        assert loud.size["loudness_db"] == pytest.approx(expected, abs=1e-3)
        assert loud.name == "louder"
        assert none.name == few.name == NO_EFFECT
        assert set(few.size.values()) == {0.0}

    def test_names_are_what_differs_most(self) -> None:
        size = {"loudness_db": -0.9, "brightness_oct": 0.4, "onsets_per_beat": 1.2,
                "bass_db": 0.1, "noise_db": -2.0}  # fmt: skip
        assert Effect(mean=size, size=size).name == "purer, denser"
        assert Effect(mean=size, size=size, least=1.5).name == "purer"

    def test_shared_information(self) -> None:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 4, 4000)
        assert shared_information(labels, (labels + 1) % 4) == pytest.approx(1.0)
        assert shared_information(labels, rng.integers(0, 4, 4000)) < 0.01
        assert shared_information(labels, np.zeros(4000)) == 0.0
        half = np.where(rng.random(4000) < 0.5, labels, rng.integers(0, 4, 4000))
        assert 0.1 < shared_information(labels, half) < 0.5
