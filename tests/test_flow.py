"""Flow matching: the path, noise synchronisation, the samplers, against known answers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgen.core import flow


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_path_runs_from_the_signal_to_noise() -> None:
    x, noise = draw(3, 2, 5), draw(3, 2, 5, seed=1)
    at = flow.blend(x, noise, torch.tensor([0.0, 0.5, 1.0]), sigma_min=0.0)
    torch.testing.assert_close(at[0], x[0])
    torch.testing.assert_close(at[1], (x[1] + noise[1]) / 2)
    torch.testing.assert_close(at[2], noise[2])


@pytest.mark.parametrize("sigma_min", [0.0, 1e-5, 0.1])
def test_velocity_is_the_derivative_of_the_path(sigma_min: float) -> None:
    x, noise, t_B = draw(4, 6).double(), draw(4, 6, seed=1).double(), torch.rand(4).double()
    ahead, behind = (flow.blend(x, noise, t_B + d, sigma_min) for d in (1e-4, -1e-4))
    torch.testing.assert_close((ahead - behind) / 2e-4, flow.velocity(x, noise, sigma_min))


def test_the_one_step_estimate_of_the_true_velocity_is_the_signal() -> None:
    x, noise, t_B = draw(4, 6), draw(4, 6, seed=1), torch.tensor([0.2, 0.4, 0.9, 1.0])
    x_t = flow.blend(x, noise, t_B, 0.0)
    v = flow.velocity(x, noise, 0.0)
    torch.testing.assert_close(flow.x_from_velocity(x_t, v, t_B), x)
    torch.testing.assert_close(flow.velocity_from_x(x_t, x, t_B), v)


def test_the_velocity_of_an_estimate_stays_finite_at_the_end() -> None:
    v = flow.velocity_from_x(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1))
    torch.testing.assert_close(v, torch.full((1, 2), 1.0 / flow.MIN_T))


@given(st.integers(0, 2**31), st.integers(1, 7))
def test_noise_synchronisation_by_its_formula(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, noise = torch.randn(2, n, 3, 2, generator=generator)
    t_B, tau_B, share_B = torch.rand(3, n, generator=generator)
    chosen_B = torch.rand(n, generator=generator) < 0.5
    z_out, t_out = flow.synchronise_noise(z, t_B, chosen_B, tau_B, share_B, noise)
    for i in range(n):
        if chosen_B[i]:
            tau = float(tau_B[i])
            torch.testing.assert_close(z_out[i], (1 - tau) * z[i] + tau * noise[i])
            assert tau <= float(t_out[i]) + 1e-6
            assert float(t_out[i]) == pytest.approx(tau + float(share_B[i]) * (1 - tau), abs=1e-6)
        else:
            assert torch.equal(z_out[i], z[i])
            assert t_out[i] == t_B[i]


def test_the_times_of_noised_items_are_even_above_their_noise() -> None:
    n = 20000
    share_B = torch.rand(n, generator=torch.Generator().manual_seed(3))
    tau_B = torch.full((n,), 0.6)
    _, t_B = flow.synchronise_noise(
        torch.zeros(n, 1), torch.zeros(n), torch.ones(n, dtype=torch.bool), tau_B, share_B,
        torch.zeros(n, 1),
    )  # fmt: skip
    quarters = torch.histc(t_B, 4, 0.6, 1.0) / n
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.02, rtol=0)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_samplers_follow_straight_paths_exactly(solver: flow.Solver, steps: int) -> None:
    x, noise = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    v = flow.velocity(x, noise, 0.0)
    torch.testing.assert_close(flow.sample(lambda x_t, t: v, noise, steps, solver), x)


def test_midpoint_errs_with_the_square_of_the_step() -> None:
    # dx/dt = x: going from t = 1 to 0 divides by e
    def error(solver: flow.Solver, steps: int) -> float:
        start = torch.ones(1, 1, dtype=torch.float64)
        end = flow.sample(lambda x_t, t: x_t, start, steps, solver)
        return abs(float(end) - 1.0 / math.e)

    assert error("euler", 8) / error("euler", 16) == pytest.approx(2.0, rel=0.1)
    assert error("midpoint", 8) / error("midpoint", 16) == pytest.approx(4.0, rel=0.1)


def test_samplers_tell_every_item_its_time() -> None:
    seen: list[float] = []

    def watch(x_t: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        assert t_B.shape == (3,)
        seen.append(float(t_B[0]))
        return torch.zeros_like(x_t)

    flow.sample(watch, torch.zeros(3, 2), 4)
    assert seen == [1.0, 0.75, 0.5, 0.25]
