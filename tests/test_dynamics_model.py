"""The dynamics network, tiny: shapes, causality by gradient, conditions, folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mgen.core.dynamics import (
    HOWS,
    Condition,
    Dynamics,
    DynamicsConfig,
    DynamicsNetwork,
    load_dynamics,
    make_dynamics_config,
    save_dynamics,
)
from mgen.core.dynamics.blocks import BarAttention, make_view
from mgen.core.dynamics.config import How
from mgen.core.errors import InputError, InputNotFoundError, UsageError

BARS, TOKENS, DIMS, ACTION = 5, 4, 3, 6


def tiny_config(how: How = "adaln", **changed: Any) -> DynamicsConfig:
    shape: dict[str, Any] = {
        "condition": how, "tokens": TOKENS, "dims": DIMS, "action": ACTION, "bars": BARS,
        "width": 24, "depth": 2, "heads": 2, "embedding": 16, "rank": 4,
    }  # fmt: skip
    return DynamicsConfig(**{**shape, **changed})


def tiny(how: How = "adaln", **changed: Any) -> DynamicsNetwork:
    """A network with the same weights every time, noise in place of all zeros."""
    torch.manual_seed(0)
    network = DynamicsNetwork(tiny_config(how, **changed))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3, generator=generator)
    return network


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def condition(sequences: int = 1, bars: int = BARS, seed: int = 5) -> Condition:
    return Condition(
        bpm_SB=100.0 + 10.0 * noise(sequences, bars, seed=seed),
        action_SBA=noise(sequences, bars, ACTION, seed=seed + 1),
        knows_bpm_SB=torch.ones(sequences, bars, dtype=torch.bool),
        knows_action_SB=torch.ones(sequences, bars, dtype=torch.bool),
        usual_SLD=noise(sequences, TOKENS, DIMS, seed=seed + 2),
    )


@pytest.mark.parametrize("how", HOWS)
class TestAll:
    @pytest.mark.parametrize("bars", [1, BARS, 9])
    def test_any_number_of_bars(self, how: How, bars: int) -> None:
        x_SBLD, t_SB = noise(2, bars, TOKENS, DIMS), torch.rand(2, bars)
        assert tiny(how)(x_SBLD, t_SB, condition(2, bars)).shape == x_SBLD.shape

    def test_says_nothing_at_the_start(self, how: How) -> None:
        network = DynamicsNetwork(tiny_config(how))
        x_SBLD = noise(1, BARS, TOKENS, DIMS)
        assert not network(x_SBLD, torch.rand(1, BARS), condition()).any()

    @pytest.mark.parametrize("causal", ["flag", "of each"])
    def test_no_bar_sees_a_later_one_where_it_is_causal(self, how: How, causal: str) -> None:
        network = tiny(how)
        x_SBLD = noise(1, BARS, TOKENS, DIMS).requires_grad_()
        t_SB, given = torch.full((1, BARS), 0.5).requires_grad_(), condition()
        action_SBA = given.action_SBA.requires_grad_()
        told = given._replace(action_SBA=action_SBA)
        out = network(x_SBLD, t_SB, told, True if causal == "flag" else torch.tensor([True]))
        for bar in range(BARS):
            grads = torch.autograd.grad(
                out[0, bar].square().sum(), (x_SBLD, t_SB, action_SBA), retain_graph=True
            )
            for grad in grads:
                reached_B = grad[0].reshape(BARS, -1).abs().sum(1)
                assert torch.equal(reached_B[bar + 1 :], torch.zeros(BARS - bar - 1))
                assert (reached_B[: bar + 1] > 0).all()

    def test_every_bar_sees_every_other_where_it_is_not(self, how: How) -> None:
        network = tiny(how)
        x_SBLD = noise(1, BARS, TOKENS, DIMS).requires_grad_()
        out = network(x_SBLD, torch.full((1, BARS), 0.5), condition())
        for bar in range(BARS):
            (grad,) = torch.autograd.grad(out[0, bar].square().sum(), x_SBLD, retain_graph=True)
            assert (grad[0].reshape(BARS, -1).abs().sum(1) > 0).all()

    def test_causal_is_said_of_each_sequence(self, how: How) -> None:
        network = tiny(how)
        x_SBLD, t_SB, given = noise(2, BARS, TOKENS, DIMS), torch.rand(2, BARS), condition(2)
        mixed = network(x_SBLD, t_SB, given, torch.tensor([True, False]))
        torch.testing.assert_close(mixed[0], network(x_SBLD, t_SB, given, True)[0])
        torch.testing.assert_close(mixed[1], network(x_SBLD, t_SB, given, False)[1])
        with torch.no_grad():  # block by block, without a mask
            fast = network(x_SBLD, t_SB, given, True)
        torch.testing.assert_close(fast[0], mixed[0], atol=1e-5, rtol=1e-4)

    def test_depends_on_all_that_it_is_told(self, how: How) -> None:
        network, given = tiny(how), condition()
        x_SBLD, t_SB = noise(1, BARS, TOKENS, DIMS), torch.full((1, BARS), 0.3)
        out = network(x_SBLD, t_SB, given)
        nothing_SB = torch.zeros(1, BARS, dtype=torch.bool)
        others = [
            network(x_SBLD, t_SB + 0.3, given),
            network(x_SBLD, t_SB, given._replace(bpm_SB=given.bpm_SB + 30.0)),
            network(x_SBLD, t_SB, given._replace(action_SBA=given.action_SBA + 0.5)),
            network(x_SBLD, t_SB, given._replace(knows_bpm_SB=nothing_SB)),
            network(x_SBLD, t_SB, given._replace(knows_action_SB=nothing_SB)),
        ]
        assert all((out - other).abs().max() > 1e-4 for other in others)

    def test_what_is_not_known_counts_for_nothing(self, how: How) -> None:
        network, given = tiny(how), condition().forgotten()
        x_SBLD, t_SB = noise(1, BARS, TOKENS, DIMS), torch.full((1, BARS), 0.3)
        other = given._replace(
            bpm_SB=torch.full((1, BARS), math.nan), action_SBA=noise(1, BARS, ACTION, seed=9)
        )
        out = network(x_SBLD, t_SB, given)
        assert torch.equal(out, network(x_SBLD, t_SB, other))
        assert out.isfinite().all()

    def test_a_song_that_is_not_known_is_like_all_music(self, how: How) -> None:
        network, x_SBLD = tiny(how), noise(2, BARS, TOKENS, DIMS)
        network.calibrate(noise(9, TOKENS, DIMS) + 2.0, torch.full((9,), 90.0), noise(9, ACTION))
        t_SB, told = torch.rand(2, BARS), condition(2)
        with torch.no_grad():
            unknown = network(x_SBLD, t_SB, told._replace(usual_SLD=None))
            mean_1LD = network.mean_D.expand(1, TOKENS, DIMS)
            same = network(x_SBLD, t_SB, told._replace(usual_SLD=mean_1LD))
            known = network(x_SBLD, t_SB, told)
        torch.testing.assert_close(same, unknown)
        assert ((known - unknown).abs().amax((2, 3)) > 1e-4).all()  # every bar is shown it
        both = told.and_then(condition(1, seed=9))
        assert [len(part) for part in both] == [3] * 5
        assert told._replace(usual_SLD=None).and_then(told).usual_SLD is None

    def test_gradient_reaches_everything(self, how: How) -> None:
        network, given = tiny(how), condition(2)
        half = given._replace(
            knows_bpm_SB=torch.arange(BARS).expand(2, -1) % 2 == 0,
            knows_action_SB=torch.arange(BARS).expand(2, -1) % 2 == 1,
            bpm_SB=torch.where(torch.arange(BARS) % 2 == 0, given.bpm_SB, math.nan),
        )
        out = network(noise(2, BARS, TOKENS, DIMS), torch.rand(2, BARS), half)
        out.square().sum().backward()
        without = [
            name
            for name, p in network.named_parameters()
            if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
        ]
        assert without == []

    def test_comes_back_from_its_folder(self, how: How, tmp_path: Path) -> None:
        network = tiny(how).half().float()  # what a file of float16 can hold
        network.calibrate(noise(7, TOKENS, DIMS) + 2.0, torch.full((7,), 90.0), noise(7, ACTION))
        network.half().float()
        model_id = save_dynamics(network, tmp_path / "dyn", {"steps": 3})
        found = load_dynamics(tmp_path / "dyn")
        assert found.id == model_id
        assert found.config == network.config
        x_SBLD, t_SB = noise(1, BARS, TOKENS, DIMS), torch.full((1, BARS), 0.3)
        with torch.no_grad():
            wanted = x_SBLD - t_SB[..., None, None] * network(x_SBLD, t_SB, condition())
        exact = Dynamics(found.network, bf16=False)
        assert torch.equal(exact.clean(x_SBLD, t_SB, condition()), wanted)
        torch.testing.assert_close(found.network.from_flow(found.network.to_flow(x_SBLD)), x_SBLD)

    def test_shipped_size_fits_the_budget(self, how: How) -> None:
        with torch.device("meta"):
            config = make_dynamics_config("small", how, tokens=64, dims=16, action=128)
            network = DynamicsNetwork(config).requires_grad_(False)
            given = Condition(
                torch.zeros(1, 16), torch.zeros(1, 16, 128),
                *(torch.zeros(1, 16, dtype=torch.bool) for _ in range(2)),
            )  # fmt: skip
            with FlopCounterMode(display=False) as counter:
                network(torch.zeros(1, 16, 64, 16), torch.zeros(1, 16), given)
        assert sum(p.numel() for p in network.parameters()) <= 9e6
        assert counter.get_total_flops() <= 12e9


def test_a_bar_is_the_same_wherever_the_window_begins() -> None:
    """Positions are told by their differences alone."""
    torch.manual_seed(0)
    attend = BarAttention(24, 2)
    x_STW = noise(1, 12, 24)
    view = make_view(3, 4, 12, causal=False, device=torch.device("cpu"))
    whole = make_view(6, 4, 12, causal=False, device=torch.device("cpu"))
    late = whole._replace(turns=tuple(t[12:] for t in whole.turns))  # type: ignore[arg-type]
    torch.testing.assert_close(attend(x_STW, view), attend(x_STW, late), atol=1e-5, rtol=1e-4)
    other = whole._replace(turns=tuple(t[1:13] for t in whole.turns))  # type: ignore[arg-type]
    assert (attend(x_STW, view) - attend(x_STW, other)).abs().max() > 1e-4


def test_calibration_gives_mean_0_and_variance_1() -> None:
    network = tiny()
    z_NLD = 3.0 * noise(50, TOKENS, DIMS) + torch.tensor([1.0, -2.0, 7.0])
    bpm_N = torch.tensor([60.0, 120.0, math.nan, 0.0])
    network.calibrate(z_NLD, bpm_N, noise(9, ACTION) * 4.0 + 1.0)
    x_NLD = network.to_flow(z_NLD)
    torch.testing.assert_close(x_NLD.mean((0, 1)), torch.zeros(DIMS), atol=1e-5, rtol=0)
    assert float(x_NLD.square().mean()) == pytest.approx(1.0, abs=1e-4)
    mean, scale = network.bpm_mean_scale.tolist()
    assert mean == pytest.approx(math.log(60.0 * 120.0) / 2)
    assert scale == pytest.approx(math.log(2.0) / 2, rel=1e-5)
    assert float(network.action_scale) == pytest.approx(4.0, rel=0.3)
    network.calibrate(torch.ones(2, TOKENS, DIMS), torch.full((2,), 80.0), torch.ones(2, ACTION))
    for name in ("scale", "action_scale"):  # all alike: nothing to divide by
        assert float(getattr(network, name)) == 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"condition": "magic"}, "no condition is called 'magic'"),
        ({"prediction": "y"}, "no prediction"),
        ({"patch": 3}, "do not divide into patches"),
        ({"heads": 5}, "heads"),
        ({"heads": 6}, "heads"),
        ({"depth": 0}, "at least 1"),
        ({"context_t": 1.0}, "context_t"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_config(**changed)


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="name the folder of a dynamics"):
        load_dynamics(tmp_path)
    save_dynamics(tiny(), tmp_path, {})
    about = json.loads((tmp_path / "config.json").read_text("utf-8"))
    about["dynamics"]["width"] = 25
    (tmp_path / "config.json").write_text(json.dumps(about), "utf-8")
    with pytest.raises(InputError, match="copy the model again") as caught:
        load_dynamics(tmp_path)
    assert "\n" not in str(caught.value)
