"""What one training step of a latent action model is, for the one training loop.

The actions of a sequence are inferred, and the decoder has to write every unit of it from noise,
knowing its action and the first bar. Times are drawn near noise more often than near the clean
bar, where the action has the least to say.

Letters: S sequences, B bars, L tokens, U units, T positions of a unit, P numbers of a position.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mgen.core import flow
from mgen.core.lam.config import LamConfig
from mgen.core.lam.data import TrainingBars
from mgen.core.lam.folder import save_lam
from mgen.core.lam.model import ActionNetwork
from mgen.core.quantizers import use_figures, use_of
from mgen.core.train_loop import Draw, RunFolder

SIGMA_MIN = 1e-5
_CALIBRATE = 256
"""Sequences that the features' mean and spread are taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """What counts beside the velocity's mean squared error.

    `balance` is how unevenly the actions are used (styles and FSQ).
    """

    balance: float = 0.1


def as_begun(config: LamConfig, run: Path) -> LamConfig:
    """The config with the schedule of the run that is in a folder, so that its steps may grow.

    Where there is none, or it is not one of a latent action model, the config as it is: the run
    folder refuses what is not the same run.
    """
    path = RunFolder(run).config
    if not path.is_file():
        return config
    try:
        begun = json.loads(path.read_text("utf-8"))["shape"]["task"]["lam"]
        return replace(
            config, warmup=int(begun["warmup"]), sparse_at=int(begun["sparse_at"]),
            reset_until=int(begun["reset_until"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return config


class LamTask:
    """A latent action model in training: the `Task` of `mgen.core.train_loop`.

    Attributes
    ----------
    model
        The network; the seed of the data decides its first weights.
    about
        What shapes the run besides the loop's own settings, as plain JSON.
    """

    def __init__(
        self,
        config: LamConfig,
        bars: TrainingBars,
        *,
        batch: int,
        weights: LossWeights | None = None,
        valid_items: int = 64,
    ) -> None:
        """Build the model.

        Parameters
        ----------
        config
            Of the model.
        bars
            What it learns from.
        batch
            Sequences of a step.
        weights
            Of the losses.
        valid_items
            Held-out sequences that are measured.
        """
        self.config, self.bars, self.size = config, bars, batch
        self.weights, self.valid_items = weights or LossWeights(), valid_items
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bars.seed)
            network = ActionNetwork(config)
        network.calibrate(bars.some(_CALIBRATE, held_out=False)["read_SBLF"])
        self.model: nn.Module = network
        self.about: dict[str, Any] = {
            "lam": config.to_json(), "data": bars.about, "weights": asdict(self.weights),
        }  # fmt: skip

    def batch(self, step: int) -> dict[str, Tensor]:
        """The sequences of a step."""
        return self.bars.batch(step, self.size)

    def loss(self, model: nn.Module, batch: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """`loss`, its parts under `loss/`, and how the actions of the batch are used."""
        network = cast(ActionNetwork, model)
        clean_SUTP = network.units(batch["z_SBLD"])
        found = network.infer(batch["read_SBLF"], draw)
        t_SU = draw.uniform(clean_SUTP.shape[1]).sqrt()
        noise_SUTP = draw.normal(*clean_SUTP.shape[1:])
        error_SUTP = self._error(network, clean_SUTP, noise_SUTP, t_SU, found.embedding)
        losses = {"flow": error_SUTP.mean()}
        total = losses["flow"]
        if found.balance is not None:
            losses["balance"] = found.balance
            total = total + self.weights.balance * found.balance
        parts = {f"loss/{name}": part for name, part in losses.items()}
        return {"loss": total, **parts, **found.figures}

    def samples(self, model: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Measure held-out sequences (or, where no song is held out, those it learned from).

        Figures: `valid/loss` at fixed times and noise; `valid/gain_db`, how much smaller the error
        is with the inferred actions than with those of other bars, from noise alone;
        `valid/perplexity` and `valid/utilisation` of the actions over all these bars.
        """
        network = cast(ActionNetwork, model)
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        held = len(self.bars.held_out) > 0
        batch = self.bars.some(self.valid_items, held_out=held)
        batch = {name: x.to(device) for name, x in batch.items()}
        count = len(batch["z_SBLD"])
        draw = Draw(seed=0, step=0, total=count, first=0, items=count, device=device)
        try:
            with torch.no_grad():
                clean_SUTP = network.units(batch["z_SBLD"])
                found = network.infer(batch["read_SBLF"])
                noise_SUTP = draw.normal(*clean_SUTP.shape[1:])
                t_SU = draw.uniform(clean_SUTP.shape[1]).sqrt()
                error = self._error(network, clean_SUTP, noise_SUTP, t_SU, found.embedding)
                gain_db = self._gain_db(network, clean_SUTP, noise_SUTP, found.embedding)
        finally:
            model.train(was_training)
        by_quantizer = network.bottleneck.by_quantizer
        use_QN = use_of(found.payload, self.config.actions, by_quantizer=by_quantizer)
        use = {f"valid/{name}": float(value) for name, value in use_figures(use_QN).items()}
        return {"valid/loss": float(error.mean()), "valid/gain_db": gain_db, **use}

    def save(self, model: nn.Module, folder: Path, about: dict[str, Any]) -> None:
        """Write the model's folder."""
        save_lam(cast(ActionNetwork, model), folder, about)

    def _error(
        self, network: ActionNetwork, clean_SUTP: Tensor, noise_SUTP: Tensor, t_SU: Tensor,
        embedding_SUA: Tensor,
    ) -> Tensor:  # fmt: skip
        """Squared error of the velocity (S, U, T, P)."""
        clean, noise = clean_SUTP.flatten(0, 1), noise_SUTP.flatten(0, 1)
        x_t = flow.blend(clean, noise, t_SU.flatten(), SIGMA_MIN).view_as(clean_SUTP)
        told_SUA = network.inform(embedding_SUA)
        out_SUTP = network.decoder(x_t, t_SU, told_SUA, clean_SUTP[:, 0]).float()
        return (out_SUTP - flow.velocity(clean_SUTP, noise_SUTP, SIGMA_MIN)).square()

    def _gain_db(
        self, network: ActionNetwork, clean_SUTP: Tensor, noise_SUTP: Tensor,
        embedding_SUA: Tensor,
    ) -> float:  # fmt: skip
        """What the actions are worth: 10 log10 of the error with others over that with these.

        From noise alone the velocity's error is that of the clean unit. What the others are: the
        actions of another sequence, half the batch away. Of steps, the first unit's is left out.
        """
        t_SU = torch.ones_like(clean_SUTP[..., 0, 0])
        other_SUA = embedding_SUA.roll(max(1, len(embedding_SUA) // 2), 0)
        if len(embedding_SUA) == 1:
            other_SUA = embedding_SUA.roll(1, 1)
        first = 1 if self.config.steps else 0
        errors = [
            self._error(network, clean_SUTP, noise_SUTP, t_SU, one)[:, first:].mean()
            for one in (other_SUA, embedding_SUA)
        ]
        return 10.0 * math.log10(float(errors[0]) / float(errors[1]))
