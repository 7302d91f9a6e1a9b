"""What a step of training does to a model: the learning rate, AdamW or Muon, clipping, the average.

AdamW: Loshchilov and Hutter, ICLR 2019. Muon: Jordan et al. 2024, with the step sizes of Liu et al.
2025 (Moonlight), section 2.2, so that both take one learning rate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
}


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


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """What Muon is for: trainable matrices of linear layers in a list of blocks, by name."""
    found: dict[str, nn.Parameter] = {}
    for list_name, blocks in model.named_modules():
        if not isinstance(blocks, nn.ModuleList):
            continue
        for name, module in blocks.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(module, nn.Linear) and isinstance(weight, nn.Parameter):
                found[f"{list_name}.{name}.weight".removeprefix(".")] = weight
    return {name: weight for name, weight in found.items() if weight.requires_grad}


class Optimiser:
    """AdamW over a model's parameters, whose gradients lie in one flat tensor; Muon, if it is asked
    for, over its hidden matrices.

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
        self, model: nn.Module, *, weight_decay: float, betas: tuple[float, float],
        muon: bool = False,
    ) -> None:  # fmt: skip
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
        hidden = hidden_matrices(model) if muon else {}
        groups = [
            {"params": [p for k, p in group.items() if k not in hidden], "weight_decay": decay}
            for group, decay in ((shrunk, weight_decay), (left, 0.0))
        ]
        self._parts: list[torch.optim.Optimizer] = []
        if groups := [g for g in groups if g["params"]]:
            self._parts.append(torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True))
        if hidden:
            self._parts.append(
                torch.optim.Muon(
                    list(hidden.values()), lr=0.0, weight_decay=weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )  # fmt: skip

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
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def state(self) -> dict[str, Tensor]:
        """Moments by `parameter/what`; empty before the first step."""
        found = {}
        for name, _, part, p in self._owned():
            for what, x in part.state.get(p, {}).items():
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
        for name, moments, part, p in self._owned():
            part.state[p] = {
                what: state[f"{name}/{what}"].to(p.device, copy=True) for what in moments
            }

    def _owned(
        self,
    ) -> Iterator[tuple[str, tuple[str, ...], torch.optim.Optimizer, nn.Parameter]]:
        """Parameters with their names, what is kept of each, and who moves it."""
        names = {id(p): name for name, p in zip(self.names, self.parameters, strict=True)}
        for part in self._parts:
            moments = _MOMENTS[type(part)]
            for group in part.param_groups:
                for p in group["params"]:
                    yield names[id(p)], moments, part, p


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
