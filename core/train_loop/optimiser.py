"""What a step of training does to a model: the learning rate, AdamW, clipping, the average.

AdamW: Loshchilov and Hutter, ICLR 2019.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def learning_rate(step: int, *, lr: float, warmup: int, steps: int, schedule: str) -> float:
    """The rate of update `step` (from 0): a straight line up to `lr`, then constant or a cosine.

    The cosine falls from `lr` at step `warmup` to 0 at step `steps`.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    return lr * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def decay_groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Trainable parameters by name: those that weight decay shrinks, and those it leaves alone.

    Left alone are biases, whatever belongs to a norm, and all that has fewer than two axes.
    """
    norms = {
        name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()
    }
    shrunk: dict[str, nn.Parameter] = {}
    left: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner, _, last = name.rpartition(".")
        alone = parameter.ndim < 2 or last == "bias" or owner in norms
        (left if alone else shrunk)[name] = parameter
    return shrunk, left


class Optimiser:
    """AdamW over a model's parameters, whose gradients lie in one flat tensor.

    Every parameter always has a gradient (zero where the loss does not reach it), so that what a
    process does depends on no other; one sum over processes, one norm and one multiplication
    serve all parameters.

    Attributes
    ----------
    names
        Of the trainable parameters, in the order of the model.
    gradient
        All gradients, float32 (n,).

    Raises
    ------
    ValueError
        If nothing is trainable, or a parameter is not float32.
    """

    def __init__(
        self, model: nn.Module, *, weight_decay: float, betas: tuple[float, float]
    ) -> None:
        shrunk, left = decay_groups(model)
        mine = {k: p for k, p in model.named_parameters() if p.requires_grad}
        if not mine:
            raise ValueError("the model has no trainable parameters")
        for name, p in mine.items():
            if p.dtype != torch.float32:
                raise ValueError(f"parameter '{name}' is {p.dtype}; masters are float32")
        self.names = tuple(mine)
        self.parameters = list(mine.values())
        self.gradient = torch.zeros(
            sum(p.numel() for p in self.parameters), device=self.parameters[0].device
        )
        pieces = self.gradient.split([p.numel() for p in self.parameters])
        for p, piece in zip(self.parameters, pieces, strict=True):
            p.grad = piece.view_as(p)
        groups = [
            {"params": list(shrunk.values()), "weight_decay": weight_decay},
            {"params": list(left.values()), "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=0.0, betas=betas, fused=True
        )

    def clear(self) -> None:
        """Set all gradients to zero."""
        self.gradient.zero_()

    def clip(self, limit: float) -> Tensor:
        """Scale the gradient to a norm of at most `limit` (0: leave it); gives the norm before."""
        norm = torch.linalg.vector_norm(self.gradient)
        if limit:
            self.gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def step(self, lr: float) -> None:
        """Update the parameters."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()

    def state(self) -> dict[str, Tensor]:
        """Moments by `parameter/what`; empty before the first step."""
        found = {}
        for name, p in zip(self.names, self.parameters, strict=True):
            for what, x in self.adamw.state.get(p, {}).items():
                found[f"{name}/{what}"] = x
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the moments that `state` gave.

        Raises
        ------
        KeyError
            If some are missing.
        """
        if not state:
            return
        for name, p in zip(self.names, self.parameters, strict=True):
            self.adamw.state[p] = {
                what: state[f"{name}/{what}"].to(p.device, copy=True)
                for what in ("step", "exp_avg", "exp_avg_sq")
            }


class Average:
    """An exponential moving average of a model, float32: what is listened to and saved.

    `model` is a copy in eval mode. The share that is kept of it ramps up as
    min(keep, (1 + n) / (10 + n)) after n updates, so that the random start is soon forgotten.
    Buffers are copied.
    """

    def __init__(self, model: nn.Module, keep: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.keep = keep
        self.mine: list[Tensor] = list(self.model.parameters())
        self.theirs: list[Tensor] = list(model.parameters())
        self.buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def follow(self, updates: int) -> None:
        """Move towards the model, which has had this many updates before the last one."""
        keep = min(self.keep, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self.mine, self.theirs, 1.0 - keep)
        for mine, theirs in self.buffers:
            mine.copy_(theirs)
