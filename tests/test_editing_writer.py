"""The writer of bars: models put together, on a song; what decides the result."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import click_track
from test_cli_dynamics import TOKENIZER_SIZES, make_lam

from mgen.cli.app import main
from mgen.core.corpus import Segmentation, filter_songs, segment_songs
from mgen.core.dynamics.config import DynamicsConfig
from mgen.core.dynamics.model import save_dynamics
from mgen.core.dynamics.network import DynamicsNetwork
from mgen.core.dynamics.sampling import Sampling
from mgen.core.editing.places import with_appended
from mgen.core.editing.request import Clip, WriteRequest, WrittenBars
from mgen.core.editing.spans import Share
from mgen.core.editing.writer import ModelWriter, load_model_writer, start_level
from mgen.core.errors import InputError, InputNotFoundError, UsageError
from mgen.core.lam.palette import PaletteRow, make_palette, save_palette
from mgen.core.quantizers import Payload
from mgen.core.store import Store
from mgen.core.tokenizer import TokenizerConfig, build, load_tokenizer, save_tokenizer
from mgen.core.tokenizer.passes import latents_id, tokenize_songs

LOUDNESS = 2.5


def woken(network: torch.nn.Module) -> torch.nn.Module:
    """Nothing at zero, so that everything has an effect."""
    for parameter in network.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs, their store with latents, and models that never learned anything."""
    folder = tmp_path_factory.mktemp("writer")
    torch.manual_seed(0)
    config = TokenizerConfig(
        arch="spectral", unit="bar", rate=16000, channels=1, samples=32768, tokens=64, dims=16,
        prediction="x", sizes=TOKENIZER_SIZES, steps=1,
    )  # fmt: skip
    save_tokenizer(woken(build(config)), folder / "tok", {})
    tokenizer = load_tokenizer(folder / "tok")
    for i, seconds in enumerate((13, 9)):
        soundfile.write(folder / f"{i}.wav", click_track(120, seconds, offset_s=0.25), 16000)
    with Store.create(folder / "s.zarr") as store:
        list(filter_songs(store, [folder / f"{i}.wav" for i in range(2)]))
        list(segment_songs(store, Segmentation(bpm=120, offset_s=0.25, jitter=1)))
        list(tokenize_songs(store, tokenizer))
    for kind in ("style", "residual-fsq"):
        lam = make_lam(folder / kind, kind, latents_id(tokenizer))
        index = torch.arange(4)[:, None].repeat(1, lam.config.numbers)
        weight = torch.ones(4, lam.config.numbers) / (3 if kind == "style" else 1)
        row = PaletteRow(name="louder", uses=1, share=0.25, effect={"loudness_db": LOUDNESS})
        palette = make_palette(lam, Payload(index, weight), [row] * 4)
        save_palette(palette, folder / kind / "palette")
        network = DynamicsNetwork(
            DynamicsConfig(
                condition="adaln",
                tokens=64,
                dims=16,
                action=lam.width,
                bars=4,
                tokenizer=latents_id(tokenizer),
                lam=lam.id,
                width=24,
                depth=1,
                heads=2,
                embedding=8,
                rank=2,
            )
        )
        save_dynamics(woken(network), folder / f"dyn-{kind}", {})
    return folder


def writer_of(folder: Path, kind: str = "style") -> ModelWriter:
    made = load_model_writer(
        None, tokenizer=folder / "tok", lam=folder / kind, dynamics=folder / f"dyn-{kind}"
    )
    return replace(made, sampling=Sampling(steps=2))


def ask(store: Store, edited: tuple[int, ...] = (1, 2), **changes: object) -> WriteRequest:
    given: dict[str, object] = {
        "store": store, "song": store.song(0), "bars": store.bars(0),
        "edited": np.array(edited, np.int64), "action": (Share(1, 1.0),),
    }  # fmt: skip
    return WriteRequest(**{**given, **changes})  # type: ignore[arg-type]


def same(one: WrittenBars, other: WrittenBars) -> bool:
    assert one.levels is not None
    assert other.levels is not None
    pairs = zip(one.levels, other.levels, strict=True)
    alike = all(torch.equal(a.mel_TM, b.mel_TM) for a, b in pairs)
    return alike and np.array_equal(one.z_BLD, other.z_BLD)


def test_it_keeps_its_word_and_repeats_itself(folder: Path) -> None:
    writer = writer_of(folder)
    with Store.open(folder / "s.zarr") as store:
        written = writer.write(ask(store))
        written.check(2)
        assert written.levels is not None  # of this architecture, so nothing is sampled
        assert written.pcm_BN is None
        assert written.change_LU == pytest.approx([LOUDNESS, LOUDNESS])
        z_BLD = written.z_BLD.astype(np.float64)  # tokens as a tokenizer gives them
        assert np.abs(z_BLD.mean(-1)).max() < 1e-2
        assert np.abs(z_BLD.std(-1) - 1).max() < 1e-2
        assert same(written, writer.write(ask(store)))
        for other in (
            ask(store, seed=1), ask(store, take=2), ask(store, action=(Share(2, 1.0),)),
            ask(store, action=(Share(1, 0.5), Share(2, 0.5))), ask(store, guidance=1.0),
            ask(store, strength=0.5),
        ):  # fmt: skip
            assert not same(written, writer.write(other))
    assert set(writer.model_ids) == {"tokenizer", "lam", "palette", "dynamics"}
    assert writer.actions == 4


def test_where_latents_tell_no_levels_sound_is_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `dito-unet`, which knows sound by sampling alone."""
    writer = writer_of(folder)
    monkeypatch.setattr(writer.tokenizer, "band_levels", lambda z_BLD: None)
    with Store.open(folder / "s.zarr") as store:
        written, again, other = (writer.write(ask(store, take=take)) for take in (1, 1, 2))
    written.check(2)
    assert written.levels is None
    assert written.pcm_BN is not None
    assert 0.0 < np.abs(written.pcm_BN).max() <= 1.0
    assert np.array_equal(written.pcm_BN, again.pcm_BN)
    assert not np.array_equal(written.pcm_BN, other.pcm_BN)


def test_the_less_strength_the_nearer_to_the_bar(folder: Path) -> None:
    writer = writer_of(folder)
    with Store.open(folder / "s.zarr") as store:
        row = store.bars(0, jittered=True).row[0]
        own = store.latents(latents_id(writer.tokenizer), 0)[store.bars(0).row[1] - row]
        far = [
            np.abs(writer.write(ask(store, (1,), strength=s)).z_BLD[0] - own).mean()
            for s in (0.01, 0.3, 1.0)
        ]
        assert far[0] < far[1] < far[2]
    assert [start_level(s) for s in (0.0, 1.0)] == [0.0, 1.0]


def test_bars_past_the_end_and_bars_that_takes_wrote(folder: Path) -> None:
    writer = writer_of(folder)
    with Store.open(folder / "s.zarr") as store:
        bars = with_appended(store.bars(0), 2)
        n = len(bars)
        added = writer.write(ask(store, (n - 2, n - 1), bars=bars))
        added.check(2)
        # what an earlier take wrote is what its neighbour is written beside
        beside = {2: -store.latents(latents_id(writer.tokenizer), 0)[2]}
        assert not same(
            writer.write(ask(store, (1,))), writer.write(ask(store, (1,), written=beside))
        )


def test_the_action_of_a_clip(folder: Path) -> None:
    writer = writer_of(folder)
    with Store.open(folder / "s.zarr") as store:
        bars = store.bars(1)
        clip = Clip(store=store, song=store.song(1), bars=bars.where(bars.index < 2))
        like = writer.write(ask(store, action=(), like=clip))
        like.check(2)
        assert (like.change_LU == 0).all()  # nothing is measured of a clip


def test_depth_is_for_residual_actions(folder: Path) -> None:
    with Store.open(folder / "s.zarr") as store:
        residual = writer_of(folder, "residual-fsq")
        whole, coarse = residual.write(ask(store)), residual.write(ask(store, depth=1))
        assert not same(whole, coarse)
        assert same(whole, residual.write(ask(store, depth=3)))
        with pytest.raises(UsageError, match="--depth is for residual actions"):
            writer_of(folder).write(ask(store, depth=1))


def test_models_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained on each other"):
        load_model_writer(
            None, tokenizer=folder / "tok", lam=folder / "style",
            dynamics=folder / "dyn-residual-fsq",
        )  # fmt: skip
    torch.manual_seed(5)
    config = load_tokenizer(folder / "tok").config
    save_tokenizer(build(config), tmp_path / "other", {})
    with pytest.raises(InputError, match="the tokenizer makes latents"):
        load_model_writer(
            None, tokenizer=tmp_path / "other", lam=folder / "style", dynamics=folder / "dyn-style"
        )
    with pytest.raises(InputNotFoundError):
        load_model_writer(None, dynamics=tmp_path / "none")


def test_a_song_is_edited_from_the_command_line(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = 22050
    rng = np.random.default_rng(0)
    stereo = np.stack([click_track(120, 13, offset_s=0.25, rate=rate)] * 2, axis=1) * 0.5
    stereo += 0.01 * rng.standard_normal(stereo.shape)
    soundfile.write("song.flac", stereo, rate, subtype="PCM_16")
    models = ["--tokenizer", str(folder / "tok"), "--lam", str(folder / "style"),
              "--dynamics", str(folder / "dyn-style")]  # fmt: skip
    assert main(["edit", "song.flac", "--bars", "2-3", "--action", "1", *models]) == 0
    assert capsys.readouterr().out == "song.edit-1.flac\n"
    (before, _), (after, _) = (
        soundfile.read(name, dtype="int16") for name in ("song.flac", "song.edit-1.flac")
    )
    assert before.shape == after.shape
    changed = np.flatnonzero((before != after).any(axis=1))
    assert 3.0 * rate < changed[-1] - changed[0] < 4.2 * rate  # two bars of 2 s, nothing else
    assert main(["edit", "song.flac", "--bars", "2", "--action", "9", *models]) == 2
    assert "outside the palette; it has 0-3" in capsys.readouterr().err


def test_an_edit_imports_no_compiler_and_no_filter_design(folder: Path, tmp_path: Path) -> None:
    """A second each on one core, and more than an edit of four bars has to spare."""
    soundfile.write(tmp_path / "song.wav", click_track(120, 13, offset_s=0.25), 16000)
    code = (
        "import sys; from mgen.cli.app import main; code = main(sys.argv[1:])\n"
        "print(code, [m for m in ('scipy.signal', 'scipy.stats', 'torch._dynamo', 'librosa',"
        " 'sklearn') if m in sys.modules])"
    )
    words = ["edit", str(tmp_path / "song.wav"), "--bars", "2", "--action", "1", "--tokenizer",
             str(folder / "tok"), "--lam", str(folder / "style"), "--dynamics",
             str(folder / "dyn-style")]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "0 []"
