"""Flow matching: the path from sound to noise, noise synchronisation, and the way back.

Straight paths (Lipman et al., ICLR 2023; the convention of DiTo, Chen et al. 2025, section 3.2):
x_t = (1 - t) x + (sigma_min + t (1 - sigma_min)) eps, so t = 0 is the signal and t = 1 is noise;
the velocity is v = dx_t / dt = (1 - sigma_min) eps - x.

Shapes: B items; the rest of x is the model's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

MIN_T = 0.2
"""Where a network gives the signal, v = (x_t - x) / t, and so its error is weighed; below this t it
is divided by this: few steps never go there, and the weight would be all the loss."""

Solver = Literal["euler", "midpoint"]


def _spread(t_B: Tensor, like: Tensor) -> Tensor:
    return t_B.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))


def blend(x: Tensor, noise: Tensor, t_B: Tensor, sigma_min: float) -> Tensor:
    """x_t: signals moved along their paths to t_B (B,)."""
    t = _spread(t_B, x)
    return (1.0 - t) * x + (sigma_min + t * (1.0 - sigma_min)) * noise


def velocity(x: Tensor, noise: Tensor, sigma_min: float) -> Tensor:
    """The path's velocity; the same at every t."""
    return (1.0 - sigma_min) * noise - x


def velocity_from_x(x_t: Tensor, x0: Tensor, t_B: Tensor, min_t: float = MIN_T) -> Tensor:
    """Velocity at x_t of the path that ends in the estimate x0 (sigma_min taken as 0)."""
    return (x_t - x0) / _spread(t_B.clamp(min=min_t), x_t)


def x_from_velocity(x_t: Tensor, v: Tensor, t_B: Tensor) -> Tensor:
    """One-step estimate of the signal: x_t - t v."""
    return x_t - _spread(t_B, x_t) * v


def synchronise_noise(
    z: Tensor, t_B: Tensor, chosen_B: Tensor, tau_B: Tensor, share_B: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Noise some latents, and let their t begin where that noise is (DiTo, section 3.4).

    Parameters
    ----------
    z
        Latents (B, ...).
    t_B
        Times drawn for the items, U[0, 1].
    chosen_B
        Which items are noised (bool).
    tau_B
        How far, U[0, 1]: z becomes (1 - tau) z + tau noise.
    share_B
        U[0, 1]: t of a chosen item becomes tau + share (1 - tau), which is U[tau, 1].
    noise
        Like z.

    Returns
    -------
    tuple of Tensor
        Latents and times; those that are not chosen stay as they are.
    """
    t_noised_B = tau_B + share_B * (1.0 - tau_B)
    m_B = chosen_B.to(t_B.dtype)
    m, tau = _spread(m_B, z), _spread(tau_B, z)
    z_noised = (1.0 - tau) * z + tau * noise
    return m * z_noised + (1.0 - m) * z, m_B * t_noised_B + (1.0 - m_B) * t_B


def times(steps: int) -> list[float]:
    """Times of a sampler, from 1 to 0: even steps, steps + 1 of them."""
    return [1.0 - i / steps for i in range(steps + 1)]


def sample(
    velocity_at: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    steps: int,
    solver: Solver = "euler",
) -> Tensor:
    """Follow the flow from noise to a signal.

    Parameters
    ----------
    velocity_at
        (x_t, t_B) -> v.
    noise
        x at t = 1.
    steps
        Steps; `midpoint` asks for the velocity twice a step.
    solver
        Euler, or the explicit midpoint rule.
    """
    x, ladder = noise, times(steps)
    for now, later in itertools.pairwise(ladder):
        t_B = torch.full((len(x),), now, device=x.device)
        v = velocity_at(x, t_B)
        if solver == "midpoint":
            half = 0.5 * (later - now)
            v = velocity_at(x + half * v, t_B + half)
        x = x + (later - now) * v
    return x
