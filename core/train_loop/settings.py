"""How to train, and what is reported on the way."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mgen.core.errors import UsageError

FREE = ("steps", "device", "compile", "accumulate", "checkpoint_minutes", "keep", "log_every",
        "samples_every")  # fmt: skip
"""Settings that may be others when a run goes on: they change it by rounding, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train.

    Attributes
    ----------
    steps
        Updates in all. May grow when a run goes on: with a constant rate the run is then what a
        longer one would have been; a cosine is from there on that of the new number.
    batch
        Items of an update, over all processes.
    lr, warmup, schedule
        Learning rate, the steps it rises over, and what it does then.
    optimiser
        adamw; or muon for the matrices of the blocks and AdamW for all else: a third more time a
        step on a CPU, and far fewer steps.
    weight_decay, betas
        Of AdamW (Muon takes the first); biases, norms and vectors do not decay.
    clip
        Largest norm of the gradient; 0 for any.
    ema
        Share of the average that an update keeps (it ramps up); 0 to save the model as it is.
    seed
        Of all draws.
    device
        auto, cpu, cuda, cuda:1.
    precision
        bf16 (autocast), f32, or auto: bf16 where the hardware computes in it.
    compile
        on, off, or auto: where the run is long enough for it to pay.
    accumulate
        Parts that a batch is computed in, one after the other, where memory is short.
    checkpoint_minutes, keep
        How often the state is written, and how many are kept.
    log_every, samples_every
        Steps between reports, and between samples (0: only at the end).
    """

    steps: int
    batch: int
    lr: float = 1e-4
    warmup: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    optimiser: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "bf16", "f32"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    accumulate: int = 1
    checkpoint_minutes: float = 10.0
    keep: int = 2
    log_every: int = 50
    samples_every: int = 1000

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("steps", "batch", "accumulate", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; take at least 1")
        for name in ("warmup", "weight_decay", "clip", "seed", "checkpoint_minutes",
                     "samples_every"):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; take 0 or more")
        if not self.lr > 0:
            raise UsageError(f"lr is {self.lr}; take a number above 0")
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema is {self.ema}; take 0 or more and less than 1")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} '{getattr(self, name)}' is unknown; choose {', '.join(known)}"
                )


_CHOICES = {
    "schedule": ("constant", "cosine"), "optimiser": ("adamw", "muon"),
    "precision": ("auto", "bf16", "f32"), "compile": ("auto", "on", "off"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What the last steps gave; the means are over the steps since the report before.

    Attributes
    ----------
    step, steps
        Updates done, and to do in all.
    losses
        Mean of each thing that the task's loss gave, `loss` first.
    figures
        What the task measured with its samples at this step, if it did.
    lr
        Rate of the last update.
    grad_norm
        Mean norm of the gradient before clipping.
    items_per_s
        Items trained on a second, samples and checkpoints not counted.
    data_wait
        Share of that time spent waiting for batches, 0 to 1.
    memory_gb
        Peak so far: of the GPU's memory that torch held, on a CPU of the process.
    eta_s
        Seconds to the end at this pace.
    seconds
        Spent training so far, over all sittings.
    """

    step: int
    steps: int
    losses: dict[str, float]
    figures: dict[str, float] = field(default_factory=dict)
    lr: float
    grad_norm: float
    items_per_s: float
    data_wait: float
    memory_gb: float
    eta_s: float
    seconds: float

    def line(self) -> dict[str, Any]:
        """As a line of metrics.jsonl: one flat object."""
        rest = {k: v for k, v in asdict(self).items() if k not in ("losses", "figures", "step")}
        return {"step": self.step, **self.losses, **self.figures, **rest}
