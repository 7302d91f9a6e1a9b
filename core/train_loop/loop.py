"""The loop itself: batches in, updates, reports and checkpoints out."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgen.core.checkpoint import RunState
from mgen.core.devices import peak_memory, use_bf16
from mgen.core.errors import MgenError, UsageError
from mgen.core.train_loop.draws import Draw, mixed_seed
from mgen.core.train_loop.feed import Feed
from mgen.core.train_loop.optimiser import Average, Optimiser, learning_rate
from mgen.core.train_loop.ranks import Ranks, joined
from mgen.core.train_loop.run_folder import RunFolder
from mgen.core.train_loop.settings import FREE, StepReport, TrainSettings
from mgen.core.train_loop.task import Batch, Task
from mgen.kernels.compile_policy import maybe_compile

_SETTLE = 16
"""Steps that a GPU may be ahead of the check that all is finite."""


class NotFiniteError(MgenError, ArithmeticError):
    """A loss or gradient was infinite or not a number."""


def train(task: Task, settings: TrainSettings, run: Path) -> Generator[StepReport]:
    """Train, or go on training, in the folder `run`.

    Ctrl-C and SIGTERM end it after the step that is being computed, with a checkpoint; a second one
    ends it at once. Closing the generator writes a checkpoint too.

    Raises
    ------
    UsageError
        If the device is not there, or the batch cannot be shared out.
    InputError
        If the folder holds a run of other settings, or something else.
    NotFiniteError
        If a loss or gradient is not finite; names the step. The last checkpoint stays.
    KeyboardInterrupt
        After a signal.
    """
    folder = RunFolder(run)
    with joined(settings.device) as ranks:
        if ranks.rank:
            for _ in _Trainer(task, settings, folder, ranks).steps():
                pass
        else:
            with folder.claimed():
                yield from _Trainer(task, settings, folder, ranks).steps()
        ranks.meet()  # what rank 0 has written is there for all


class _Trainer:
    """One sitting of a run."""

    def __init__(
        self, task: Task, settings: TrainSettings, folder: RunFolder, ranks: Ranks
    ) -> None:
        self.task, self.settings, self.folder, self.ranks = task, settings, folder, ranks
        self.device = ranks.device
        shares = ranks.world * settings.accumulate
        if settings.batch % shares:
            raise UsageError(
                f"a batch of {settings.batch} cannot be shared out to {ranks.world} processes"
                f" in {settings.accumulate} parts each; take a multiple of {shares}"
            )
        self.share = settings.batch // ranks.world
        self.bf16 = use_bf16(settings.precision, self.device)
        self.model = task.model.to(self.device).train()
        ranks.share(self.model.state_dict().values())
        self.average = Average(self.model, settings.ema)
        self.optimiser = Optimiser(
            self.model, weight_decay=settings.weight_decay, betas=settings.betas,
            muon=settings.optimiser == "muon",
        )  # fmt: skip
        self.sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        self.done, self.busy_s = 0, 0.0
        wanted = asdict(settings)
        self.free = {name: wanted.pop(name) for name in FREE}
        self.shape = {"settings": wanted, "task": task.about}
        self._resume()
        self.saved = self.done
        self.began = (self.done, 0.0, 0.0)
        """Step, busy and waited seconds at the last report."""
        self.waiting: list[tuple[int, tuple[str, ...], Tensor]] = []
        loss = task.loss
        self.loss: Callable[..., dict[str, Tensor]] = maybe_compile(
            loss, settings.compile, device=self.device, items=settings.steps - self.done,
            dynamic=False,
        )  # fmt: skip
        self.compiled = self.loss is not loss

    def _resume(self) -> None:
        state = self.folder.resume(self.shape, self.free)
        if state:
            self._load(state)
        self.ranks.meet()  # all have read what rank 0 is about to change
        if not self.ranks.rank:
            self.folder.begin(self.shape, self.free, self.done)

    def _load(self, state: RunState) -> None:
        parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, x in state.tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = x
        self.model.load_state_dict(parts["model"])
        self.average.model.load_state_dict(parts["average"])
        self.optimiser.load(parts["optimiser"])
        self.done, self.busy_s = state.step, float(state.rest["seconds"])
        for name, (total, count) in state.rest["sums"].items():
            self.sums[name] = [total, count]

    def steps(self) -> Generator[StepReport]:
        """Take the steps that are left; a report every so often."""
        s = self.settings
        if self.done >= s.steps:
            return
        saved_at = time.monotonic()
        before_s = self.busy_s
        feed = Feed(self._make_batch, self.done, s.steps)
        try:
            with _stoppable() as stop:
                while self.done < s.steps:
                    began = time.perf_counter()
                    agreed = self._step(feed.take(), bool(stop))
                    self.busy_s += time.perf_counter() - began
                    last, report = self.done == s.steps, None
                    if not self.ranks.rank and self._report_due():
                        report = self._report(feed.waited_s, self.busy_s - before_s)
                    stopping = agreed if self.ranks.world > 1 else bool(stop)
                    minutes = (time.monotonic() - saved_at) / 60
                    if last or stopping or minutes >= s.checkpoint_minutes:
                        self._save()
                        saved_at = time.monotonic()
                    if report:
                        try:
                            yield report
                        except GeneratorExit:
                            self._save()
                            raise
                    if stopping and not last:
                        raise KeyboardInterrupt
        finally:
            feed.close()

    def _report_due(self) -> bool:
        first_or_last = self.done in (1, self.settings.steps)
        return first_or_last or self.done % self.settings.log_every == 0 or self._samples_due()

    def _samples_due(self) -> bool:
        every = self.settings.samples_every
        return self.done == self.settings.steps or bool(every and self.done % every == 0)

    def _make_batch(self, step: int) -> Batch:
        """This process's items of a step."""
        batch = self.task.batch(step)
        first = self.ranks.rank * self.share
        for name, x in batch.items():
            if len(x) != self.settings.batch:
                raise ValueError(f"'{name}' has {len(x)} items, a batch {self.settings.batch}")
        mine = {name: x[first : first + self.share] for name, x in batch.items()}
        if self.device.type == "cuda":
            return {name: x.pin_memory() for name, x in mine.items()}
        return mine

    def _step(self, batch: Batch, stop: bool) -> bool:
        """One update; gives whether any process had been told to stop when it began."""
        s, step = self.settings, self.done
        self.optimiser.clear()
        size = self.share // s.accumulate
        logged = [
            self._backward({name: x[at : at + size] for name, x in batch.items()}, at, size)
            for at in range(0, self.share, size)
        ]
        names = tuple(logged[0])
        values = torch.stack(
            [torch.stack([part[name] for part in logged]).mean() for name in names]
        )
        if self.ranks.world > 1:
            told = torch.tensor([float(stop)], device=self.device)
            self.ranks.average(self.optimiser.gradient)
            self.ranks.average(values)
            self.ranks.average(told)
            stop = bool(told > 0)
        norm = self.optimiser.clip(s.clip)
        self.waiting.append((step, (*names, "grad_norm"), torch.cat([values, norm[None]])))
        if self.device.type == "cpu" or len(self.waiting) >= _SETTLE:
            self._settle()
        rate = learning_rate(step, lr=s.lr, warmup=s.warmup, steps=s.steps, schedule=s.schedule)
        self.optimiser.step(rate)
        self.average.follow(step)
        self.done += 1
        return stop

    def _backward(self, batch: Batch, first: int, items: int) -> dict[str, Tensor]:
        """Add the gradient of some items; gives what the task logged, detached."""
        s, step = self.settings, self.done
        first += self.ranks.rank * self.share
        draw = Draw(
            seed=s.seed, step=step, total=s.batch, first=first, items=items, device=self.device
        )
        on_device = {k: x.to(self.device, non_blocking=True) for k, x in batch.items()}
        # what a model draws by itself (dropout) is a function of the step too, and the caller's
        # generator is left as it was
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(mixed_seed(s.seed, step, first, 1))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                losses = self._compute_loss(on_device, draw)
            (losses["loss"].float() / s.accumulate).backward()
        return {name: x.detach().float() for name, x in losses.items()}

    def _compute_loss(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        if not self.compiled:
            return self.loss(self.model, batch, draw)
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            return self.loss(self.model, batch, draw)
        except (BackendCompilerFailed, InductorError) as error:
            cause = " ".join(str(error).split("\n\n")[0].split())[:120]
            raise MgenError(f"torch.compile failed ({cause}); take --compile off") from error

    def _settle(self) -> None:
        """Take the values of the last steps from the device; stop where one is not finite."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        for step, names, vector in waiting:
            for name, value in zip(names, vector.tolist(), strict=True):
                if not np.isfinite(value):
                    what = "the gradient's norm" if name == "grad_norm" else f"'{name}'"
                    raise NotFiniteError(
                        f"{self.folder.path}: step {step + 1}: {what} is {value}; start another"
                        f" run with a lower lr, or in f32 (the state of step {self.saved} is kept)"
                    )
                self.sums[name][0] += value
                self.sums[name][1] += 1

    def _report(self, waited_s: float, busy_s: float) -> StepReport:
        """Close the interval: its means, the samples if they are due, a line in the metrics."""
        self._settle()
        s = self.settings
        figures: dict[str, float] = {}
        if self._samples_due():
            with torch.no_grad():  # not inference_mode: what models cache must stay usable
                figures = self.task.samples(self.average.model, self.folder.samples, self.done)
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums.clear()
        at, busy_before, waited_before = self.began
        spent = max(busy_s - busy_before, 1e-9)
        pace = spent / max(1, self.done - at)
        self.began = (self.done, busy_s, waited_s)
        norm = means.pop("grad_norm")
        rate = learning_rate(
            self.done - 1, lr=s.lr, warmup=s.warmup, steps=s.steps, schedule=s.schedule
        )
        report = StepReport(
            step=self.done, steps=s.steps, losses=means, figures=figures, lr=rate, grad_norm=norm,
            items_per_s=s.batch / pace, data_wait=min(1.0, (waited_s - waited_before) / spent),
            memory_gb=peak_memory(self.device) / 1e9, eta_s=(s.steps - self.done) * pace,
            seconds=self.busy_s,
        )  # fmt: skip
        self.folder.log(report.line())
        return report

    def _save(self) -> None:
        """Write the averaged model and a checkpoint."""
        self._settle()
        if self.ranks.rank or self.saved == self.done:
            return
        self.task.save(self.average.model, self.folder.model, {"steps": self.done, **self.shape})
        tensors = {
            **{f"model/{k}": v for k, v in self.model.state_dict().items()},
            **{f"average/{k}": v for k, v in self.average.model.state_dict().items()},
            **{f"optimiser/{k}": v for k, v in self.optimiser.state().items()},
        }
        rest = {"seconds": self.busy_s, "sums": dict(self.sums)}
        self.folder.save(RunState(self.done, tensors, rest), self.settings.keep)
        self.saved = self.done


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """A list that SIGINT or SIGTERM put themselves into; the next one acts as ever. One that is
    ignored (under nohup) stays so.
    """
    got: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield got
        return

    def note(number: int, _: object) -> None:
        got.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
