"""Model folders and states of runs: round trips, ids, every way in which a file can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mgen.core import checkpoint
from mgen.core.checkpoint import (
    RunState,
    content_id,
    fill,
    load_model,
    load_state,
    save_model,
    save_state,
)
from mgen.core.errors import InputError, InputNotFoundError

CONFIG = {"sizes": {"width": 8, "ratios": [4, 2]}, "trained": "for a while"}
KIND = "tokenizer"


def some_state(seed: int = 0, rows: int = 40) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "b.weight": torch.randn(rows, 30, generator=generator),
        "a.bias": torch.randn(7, generator=generator),
        "a.steps": torch.tensor(3),
        "a.empty": torch.zeros(0, 4),
    }


def test_a_model_comes_back_in_half_precision(tmp_path: Path) -> None:
    state = some_state()
    model_id = save_model(tmp_path / "m", state, CONFIG, KIND)
    config, back = load_model(tmp_path / "m", KIND)
    assert config == {**CONFIG, "id": model_id}
    assert back.keys() == state.keys()
    for name, x in state.items():
        assert torch.equal(back[name], x.half() if x.is_floating_point() else x)
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "config.json", "model-00001-of-00001.safetensors"
    }  # fmt: skip


def test_whoever_may_read_the_folder_may_read_the_model(tmp_path: Path) -> None:
    save_model(tmp_path / "m", some_state(), CONFIG, KIND)
    (plain := tmp_path / "plain").touch()
    modes = {file.stat().st_mode for file in (tmp_path / "m").iterdir()}
    assert modes == {plain.stat().st_mode}


def test_what_half_precision_cannot_hold_stays_as_it_is(tmp_path: Path) -> None:
    save_model(tmp_path, {"x": torch.tensor([1e6]), "y": torch.tensor([1.0])}, {}, KIND)
    _, back = load_model(tmp_path, KIND)
    assert (back["x"].dtype, back["y"].dtype) == (torch.float32, torch.float16)
    assert back["x"].item() == 1e6


def test_the_id_tells_content_and_nothing_else(tmp_path: Path) -> None:
    first = save_model(tmp_path / "a", some_state(), CONFIG, KIND)
    assert first == content_id(some_state(), CONFIG, KIND)
    again = save_model(tmp_path / "b", dict(reversed(some_state().items())), CONFIG, KIND,
                       shard_bytes=1500)  # fmt: skip
    assert again == first  # whatever the order and the shards
    shutil.move(tmp_path / "a", tmp_path / "moved")
    assert load_model(tmp_path / "moved", KIND)[0]["id"] == first
    others = {
        content_id(some_state(1), CONFIG, KIND),
        content_id(some_state(), {**CONFIG, "trained": "for long"}, KIND),
        content_id(some_state(), CONFIG, "lam"),
        content_id(some_state(), CONFIG, KIND, torch.float32),
    }
    assert len(others | {first}) == 5


def test_a_loaded_config_can_be_saved_again(tmp_path: Path) -> None:
    first = save_model(tmp_path / "a", some_state(), CONFIG, KIND)
    config, state = load_model(tmp_path / "a", KIND)
    assert save_model(tmp_path / "b", state, config, KIND) == first


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, some_state(), CONFIG, KIND, shard_bytes=2000)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@settings(deadline=None, max_examples=15)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=8),
    limit=st.integers(1200, 6000),
)
def test_shards_stay_below_their_limit(
    sizes: list[tuple[int, int]], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    state = {f"layer.{i}": torch.randn(*size).half() for i, size in enumerate(sizes)}
    save_model(folder, state, {}, KIND, shard_bytes=limit)
    assert all(p.stat().st_size <= limit for p in folder.glob("model-*"))
    _, back = load_model(folder, KIND)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], x) for name, x in state.items())


def test_a_row_too_large_for_a_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row of tensor 'x'"):
        save_model(tmp_path, {"x": torch.zeros(2, 5000)}, {}, KIND, shard_bytes=2000)


@pytest.mark.parametrize("name", ["x#1", "x"])
def test_what_could_not_come_back_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name):
        save_model(tmp_path / "m", {name: torch.tensor([float("nan")])}, {}, KIND)
    assert not (tmp_path / "m").exists()


def test_a_smaller_model_leaves_no_shards_of_the_larger(tmp_path: Path) -> None:
    save_model(tmp_path, some_state(rows=100), CONFIG, KIND, shard_bytes=2000)
    save_model(tmp_path, some_state(rows=2), CONFIG, KIND)
    assert load_model(tmp_path, KIND)[1]["b.weight"].shape == (2, 30)
    assert len(list(tmp_path.iterdir())) == 2


def edit_config(folder: Path, **changes: object) -> None:
    about = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**about, **changes}), "utf-8")


def rename_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = next(folder.glob("model-00001*"))
    tensors = load_file(path)
    tensors["other.name"] = tensors.pop(next(iter(tensors)))
    save_file(tensors, path)


def flip_a_bit(folder: Path) -> None:
    path = next(folder.glob("model-00001*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(folder: Path, name: str, to: int) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:to])


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
DAMAGES = {
    "no such folder": (shutil.rmtree, "no config.json in it; name the folder of a tokenizer"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json in it"),
    "a shard missing": (lambda f: (f / SECOND).unlink(), f"no {SECOND} in it"),
    "a shard truncated": (lambda f: truncate(f, SECOND, 700), "damaged"),
    "a shard empty": (lambda f: truncate(f, FIRST, 0), "damaged"),
    "config truncated": (lambda f: truncate(f, "config.json", 40), "damaged"),
    "another kind": (lambda f: edit_config(f, kind="lam"), "holds a 'lam', not a tokenizer"),
    "some other JSON": (lambda f: (f / "config.json").write_text("[1]"), "names no model"),
    "newer": (lambda f: edit_config(f, format=99), "format 99 is newer .* upgrade mgen"),
    "fewer shards": (lambda f: edit_config(f, shards=1), "no model-00001-of-00001.safetensors"),
    "no count of shards": (lambda f: edit_config(f, shards="many"), "damaged"),
    "shards of another": (
        lambda f: shutil.copy(f / FIRST, f / "model-00001-of-00003.safetensors"),
        "not one of its 2 shards",
    ),
    "another tensor name": (rename_tensor, "not those that were written"),
    "a bit flipped": (flip_a_bit, "not those that were written"),
    "a config edited": (lambda f: edit_config(f, trained="more"), "not those that were written"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_folder_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(25, 30), "b.weight": torch.zeros(25, 30)}
    save_model(tmp_path / "m", state, CONFIG, KIND, shard_bytes=2000)
    assert {p.name for p in (tmp_path / "m").glob("model-*")} == {FIRST, SECOND}
    assert load_model(tmp_path / "m", KIND)
    do, message = DAMAGES[damage]
    do(tmp_path / "m")  # type: ignore[operator]
    with pytest.raises((InputError, InputNotFoundError), match=message) as caught:  # type: ignore[call-overload]
        load_model(tmp_path / "m", KIND)
    assert str(caught.value).startswith(str(tmp_path / "m"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, r"'bias' is missing, should be \(3,\)"),
        ({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, r"'weight' is \(3, 4\)"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "c": torch.zeros(1)}, "unknown"),
    ],
)
def test_tensors_of_another_module_are_refused(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fill(nn.Linear(2, 3), change, "here")
    assert "\n" not in str(caught.value)


def test_a_module_is_filled() -> None:
    module = nn.Linear(2, 3)
    fill(module, {"weight": torch.ones(3, 2).half(), "bias": torch.ones(3).half()}, "here")
    assert module.weight.dtype == torch.float32
    assert (module.weight == 1).all()
    assert (module.bias == 1).all()


# ---------------------------------------------------------------- states of runs


def a_state(step: int) -> RunState:
    shared = torch.full((3, 2), float(step))
    return RunState(step, {"model/x": shared, "tied/x": shared}, {"seconds": 0.1 + step})


def test_a_state_comes_back_and_the_last_few_are_kept(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    for step in (3, 20, 100):
        save_state(tmp_path, a_state(step), keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "step-000000020.safetensors", "step-000000100.safetensors"
    ]  # fmt: skip
    back = load_state(tmp_path)
    assert back is not None
    assert (back.step, back.rest) == (100, {"seconds": 100.1})
    assert all(torch.equal(x, torch.full((3, 2), 100.0)) for x in back.tensors.values())


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_a_half_written_state_is_ignored(left: int, tmp_path: Path) -> None:
    save_state(tmp_path, a_state(1), keep=5)
    path = save_state(tmp_path, a_state(2), keep=5)
    (tmp_path / "step-000000003.safetensors.part").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:left])
    back = load_state(tmp_path)
    assert back is not None
    assert back.step == 1


def test_a_state_that_cannot_be_written_leaves_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, a_state(1), keep=1)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_state(tmp_path, a_state(2), keep=1)
    back = load_state(tmp_path)
    assert back is not None
    assert back.step == 1


def test_a_state_of_a_newer_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "FORMAT", 2)
        save_state(tmp_path, a_state(1), keep=1)
    with pytest.raises(InputError, match="newer mgen"):
        load_state(tmp_path)
