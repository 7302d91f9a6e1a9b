"""What one training step of a dynamics model is, for the one training loop.

Diffusion Forcing (Chen et al., NeurIPS 2024): every bar at its own noise level, the loss that of
the velocity. In a share of the windows only spans of bars are noised, as in an edit; conditions are
dropped in several ways, so that one model knows all, some or none of them.

Letters: S windows, B bars, L tokens of a bar, D dims of a token, A numbers of an action.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mgen.core import flow
from mgen.core.audio import Audio, write_audio
from mgen.core.dynamics.config import DynamicsConfig
from mgen.core.dynamics.data import TrainingBars
from mgen.core.dynamics.model import Dynamics, save_dynamics
from mgen.core.dynamics.network import Condition, DynamicsNetwork
from mgen.core.dynamics.sampling import Sampling, inpaint
from mgen.core.dynamics.schedules import shifted
from mgen.core.errors import UsageError
from mgen.core.tokenizer import Tokenizer
from mgen.core.train_loop import Draw

_LEVELS = (0.2, 0.5, 0.8, 0.95)
"""Noise levels at which held-out bars are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is noised and what is told.

    Attributes
    ----------
    nothing, everything, single
        Shares of the windows that are told nothing, everything, and of actions only the largest
        of their weights. In the rest each tempo and each bar's action is dropped by itself, half
        of them.
    causal
        Share of the windows in which no bar sees a later one.
    together
        Share of the windows with spans in which all written bars are at one level, as when an
        edit is written.
    shift
        How far levels are moved towards noise (`shifted`). Sixty-four tokens tell a bar's average
        through much noise, so that which action it is has to be learned near t = 1: at 1 a written
        bar had the action that was asked for in 7 of 100 cases, at 3 in 23 (64 actions, a small
        model of 600 steps, no guidance).
    kept_clean
        Share of the kept bars that are shown as they are; the others are noised up to `kept_t`.
    kept_t
        See above.
    """

    nothing: float = 0.1
    everything: float = 0.4
    single: float = 0.3
    causal: float = 0.25
    together: float = 0.5
    shift: float = 3.0
    kept_clean: float = 0.5
    no_song: float = 0.1
    kept_t: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0.0 <= self.nothing + self.everything + self.single <= 1.0:
            raise UsageError("shares of what is told must not exceed 1 together")
        if not self.shift > 0.0:
            raise UsageError(f"a shift of {self.shift} leaves no noise; take 1, or more for more")


class DynamicsTask:
    """A dynamics model in training: the `Task` of `mgen.core.train_loop`.

    Attributes
    ----------
    model
        The network, untrained; the seed of the data decides its first weights.
    about
        What shapes the run besides the loop's own settings, as plain JSON.
    """

    def __init__(
        self,
        config: DynamicsConfig,
        bars: TrainingBars,
        *,
        batch: int,
        recipe: Recipe | None = None,
        tokenizer: Tokenizer | None = None,
        valid_windows: int = 16,
        heard_windows: int = 2,
    ) -> None:
        """Build the network.

        Parameters
        ----------
        config
            Of the network.
        bars
            What it learns from.
        batch
            Windows of a step.
        recipe
            What is noised and told.
        tokenizer
            Makes sound of the samples; without it they are only measured.
        valid_windows, heard_windows
            Held-out windows that are measured, and the first of them that are written as sound.
        """
        self.config, self.bars, self.size = config, bars, batch
        self.recipe, self.tokenizer = recipe or Recipe(), tokenizer
        self.valid_windows, self.heard_windows = valid_windows, heard_windows
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bars.settings.seed)
            network = DynamicsNetwork(config)
        used = bars.training_rows()
        network.calibrate(
            torch.from_numpy(bars.rows.z_XLD[used]),
            torch.from_numpy(bars.rows.bpm_X[used]),
            torch.from_numpy(bars.rows.action_XA[used]),
        )
        self.model: nn.Module = network
        self.about: dict[str, Any] = {
            "config": config.to_json(), "data": bars.about, "recipe": asdict(self.recipe),
        }  # fmt: skip

    def batch(self, step: int) -> dict[str, Tensor]:
        """The windows of a step."""
        return self.bars.batch(step, self.size)

    def loss(self, model: nn.Module, batch: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """`loss`: mean squared error of the velocity of the bars that are written."""
        network, span_SB = cast(DynamicsNetwork, model), batch["span_SB"]
        t_SB = noise_levels(span_SB, self.recipe, draw)
        condition = told(batch, self.recipe, draw)
        no_song_S11 = draw.chance(self.recipe.no_song, 1)[..., None]
        usual_SLD = torch.where(no_song_S11, network.mean_D, batch["usual_SLD"])
        condition = condition._replace(usual_SLD=usual_SLD)
        causal_S = draw.chance(self.recipe.causal)
        noise_SBLD = draw.normal(*batch["z_SBLD"].shape[1:])
        error_SB = velocity_error(network, batch["z_SBLD"], noise_SBLD, t_SB, condition, causal_S)
        return {"loss": mean_of_spans(error_SB, span_SB)}

    def samples(self, model: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Measure held-out windows, and write the middle of some of them as sound.

        Figures, at fixed noise, all conditions told:

        - `valid/loss`, and at each level `valid/loss_t20`, ...: every bar noised alike;
        - `valid/action_gap`: how much worse with the actions of another window, and
          `valid/tempo_gap`, `valid/null_gap` with the tempi of another and with nothing told;
        - `valid/fill`, `valid/fill_gap`: the same of the middle half, noised to .95, the rest kept.

        Files: `NN.truth.wav` once, `NN.step-SSSSSS.wav`, the middle half written anew.
        """
        was_training = model.training
        model.eval()
        network = cast(DynamicsNetwork, model)
        items = self.bars.held_out_windows(self.valid_windows)
        try:
            with torch.no_grad():
                figures = measured(network, items)
                if self.tokenizer is not None:
                    self._write_sound(network, items, folder, step)
        finally:
            model.train(was_training)
        return figures

    def save(self, model: nn.Module, folder: Path, about: dict[str, Any]) -> None:
        """Write the model's folder."""
        save_dynamics(model, folder, about)

    def _write_sound(
        self, network: DynamicsNetwork, items: dict[str, Tensor], folder: Path, step: int
    ) -> None:
        assert self.tokenizer is not None
        folder.mkdir(parents=True, exist_ok=True)
        dynamics = Dynamics(network)
        for i, z_BLD in enumerate(items["z_SBLD"][: self.heard_windows]):
            mask_B = middle_half(len(z_BLD))
            found_BLD = inpaint(
                dynamics, z_BLD, mask_B, items["bpm_SB"][i], items["action_SBA"][i],
                usual_LD=items["usual_SLD"][i], sampling=Sampling(steps=8),
            )  # fmt: skip
            for name, bars_BLD in (("truth", z_BLD), (f"step-{step:06d}", found_BLD)):
                path = folder / f"{i:02d}.{name}.wav"
                if name == "truth" and path.exists():
                    continue
                sound_BCN = self.tokenizer.decode(bars_BLD, keys=range(len(bars_BLD)))
                sound_CN = sound_BCN.transpose(0, 1).flatten(1).float().cpu().clamp(-1.0, 1.0)
                write_audio(path, Audio(sound_CN.numpy(), self.tokenizer.config.rate))


# ---------------------------------------------------------------- parts of a step


def noise_levels(span_SB: Tensor, recipe: Recipe, draw: Draw) -> Tensor:
    """Noise level of each bar, sigmoid(N(0, 1)) shifted where it is written, small or 0 where kept.

    Parameters
    ----------
    span_SB
        Bars that are written.
    recipe
        Shares.
    draw
        What decides.
    """
    bars = span_SB.shape[1]
    t_SB = shifted(torch.sigmoid(draw.normal(bars)), recipe.shift)
    has_kept_S1 = ~span_SB.all(1, keepdim=True)
    alike_S1 = draw.chance(recipe.together, 1) & has_kept_S1
    t_SB = torch.where(alike_S1, t_SB[:, :1], t_SB)
    kept_SB = torch.where(draw.chance(recipe.kept_clean, bars), 0.0, draw.uniform(bars))
    return torch.where(span_SB, t_SB, recipe.kept_t * kept_SB)


def told(batch: dict[str, Tensor], recipe: Recipe, draw: Draw) -> Condition:
    """What the network is told of each window: tempo and actions, dropped by the recipe."""
    shape = batch["bpm_SB"].shape
    lot_S1 = draw.uniform(1)
    nothing_S1 = lot_S1 < recipe.nothing
    everything_S1 = ~nothing_S1 & (lot_S1 < recipe.nothing + recipe.everything)
    single_S1 = lot_S1 < recipe.nothing + recipe.everything + recipe.single
    single_S1 = single_S1 & ~nothing_S1 & ~everything_S1
    apart_S1 = ~(nothing_S1 | everything_S1 | single_S1)
    keeps_bpm_SB = draw.chance(0.5, 1).expand(shape)
    keeps_action_SB = draw.chance(0.5, shape[1])
    action_SBA = torch.where(single_S1[..., None], batch["single_SBA"], batch["action_SBA"])
    finite_SB = torch.isfinite(batch["bpm_SB"]) & (batch["bpm_SB"] > 0)
    return Condition(
        bpm_SB=batch["bpm_SB"], action_SBA=action_SBA,
        knows_bpm_SB=finite_SB & torch.where(apart_S1, keeps_bpm_SB, ~nothing_S1),
        knows_action_SB=torch.where(apart_S1, keeps_action_SB, (~nothing_S1).expand(shape)),
    )  # fmt: skip


def velocity_error(
    network: DynamicsNetwork, z_SBLD: Tensor, noise_SBLD: Tensor, t_SB: Tensor,
    condition: Condition, causal: bool | Tensor = False,
) -> Tensor:  # fmt: skip
    """Mean squared error of the velocity of each bar (S, B), whatever the network gives."""
    x_SBLD = network.to_flow(z_SBLD)
    t = t_SB[..., None, None]
    x_t = (1.0 - t) * x_SBLD + t * noise_SBLD
    out_SBLD: Tensor = network(x_t, t_SB, condition, causal).float()
    if network.config.prediction == "v":
        error = out_SBLD - (noise_SBLD - x_SBLD)
    else:  # the velocity that follows from the estimate, as in flow.velocity_from_x
        error = (out_SBLD - x_SBLD) / t.clamp(min=flow.MIN_T)
    return error.square().mean((2, 3))


def mean_of_spans(error_SB: Tensor, span_SB: Tensor) -> Tensor:
    """Mean over the windows of each one's mean over the bars that are written."""
    counts_SB = span_SB.to(error_SB)
    return ((error_SB * counts_SB).sum(1) / counts_SB.sum(1)).mean()


# ---------------------------------------------------------------- figures


def middle_half(bars: int) -> Tensor:
    """True at the middle half of so many bars, at one of them at least."""
    width = max(1, bars // 2)
    first = (bars - width) // 2
    index_B = torch.arange(bars)
    return (index_B >= first) & (index_B < first + width)


@torch.no_grad()
def measured(network: DynamicsNetwork, items: dict[str, Tensor]) -> dict[str, float]:
    """Figures of windows at fixed noise; see `DynamicsTask.samples`."""
    device = network.mean_D.device
    items = {name: x.to(device) for name, x in items.items()}
    z_SBLD, (count, bars) = items["z_SBLD"], items["bpm_SB"].shape
    draw = Draw(seed=0, step=0, total=count, first=0, items=count)
    noise_SBLD = draw.normal(*z_SBLD.shape[1:]).to(device)
    knows_SB = torch.isfinite(items["bpm_SB"]) & (items["bpm_SB"] > 0)
    right = Condition(
        items["bpm_SB"], items["action_SBA"], knows_SB, torch.ones_like(knows_SB),
        items["usual_SLD"],
    )  # fmt: skip
    wrong_action = right._replace(action_SBA=_of_another(right.action_SBA))
    wrong_tempo = right._replace(
        bpm_SB=_of_another(right.bpm_SB), knows_bpm_SB=_of_another(knows_SB)
    )

    def loss(t_SB: Tensor, condition: Condition, of_SB: Tensor) -> float:
        error_SB = velocity_error(network, z_SBLD, noise_SBLD, t_SB, condition)
        return float(mean_of_spans(error_SB, of_SB))

    every_SB = torch.ones_like(knows_SB)
    by_level = {
        name: [loss(torch.full_like(items["bpm_SB"], t), told, every_SB) for t in _LEVELS]
        for name, told in (
            ("loss", right), ("action", wrong_action), ("tempo", wrong_tempo),
            ("null", right.forgotten()),
        )
    }  # fmt: skip
    means = {name: sum(losses) / len(losses) for name, losses in by_level.items()}
    figures = {"valid/loss": means["loss"]}
    for t, value in zip(_LEVELS, by_level["loss"], strict=True):
        figures[f"valid/loss_t{round(100 * t)}"] = value
    for name in ("action", "tempo", "null"):
        figures[f"valid/{name}_gap"] = means[name] - means["loss"]
    middle_SB = middle_half(bars).to(device).expand(count, bars)
    t_SB = torch.where(middle_SB, _LEVELS[-1], 0.0)
    action_SBA = torch.where(middle_SB[..., None], wrong_action.action_SBA, right.action_SBA)
    figures["valid/fill"] = loss(t_SB, right, middle_SB)
    wrong = loss(t_SB, right._replace(action_SBA=action_SBA), middle_SB)
    figures["valid/fill_gap"] = wrong - figures["valid/fill"]
    return figures


def _of_another(x: Tensor) -> Tensor:
    """What belongs to another window, of another song where there are several; of other bars where
    there is one window.
    """
    return x.roll(len(x) // 2, 0) if len(x) > 1 else x.roll(max(1, x.shape[1] // 2), 1)
