"""What one training step of a tokenizer is, for the one training loop.

Flow matching on what the decoder writes (DiTo, Chen et al. 2025), with noise synchronisation, and
on the one-step estimate of the clean sound two perceptual terms, which bring a decoder of few steps
near the sound sooner than the flow alone does.

Letters: B items, C channels, N samples, L tokens, D dims.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mgen.core import flow
from mgen.core.audio import Audio, write_audio
from mgen.core.errors import UsageError
from mgen.core.tokenizer.config import TokenizerConfig
from mgen.core.tokenizer.data import TrainingSound
from mgen.core.tokenizer.losses import Distances, mel_l1_db
from mgen.core.tokenizer.model import (
    KIND,
    Architecture,
    Tokenizer,
    build,
    load_tokenizer,
    save_tokenizer,
)
from mgen.core.train_loop import Draw, model_folder

RUN = model_folder.RUN


_CALIBRATE = 256
"""Items that an untrained model takes its first bases from."""
_NOISE = 0.1
"""RMS of what stands in for a decoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """What each part of the loss counts; the extra losses of an architecture count as they are.

    `flow` is the mean squared error of the velocity, `mel` and `stft` the perceptual terms in
    units of 10 dB.
    """

    flow: float = 1.0
    mel: float = 0.1
    stft: float = 0.1

    @property
    def decodes(self) -> bool:
        """Whether the decoder learns at all; else the extra losses alone count."""
        return bool(self.flow or self.mel or self.stft)


class TokenizerTask:
    """A tokenizer in training: the `Task` of `mgen.core.train_loop`.

    Attributes
    ----------
    model
        The architecture, untrained; the seed of the data decides its first weights.
    about
        What shapes the run besides the loop's own settings, as plain JSON.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        sound: TrainingSound,
        *,
        batch: int,
        weights: LossWeights | None = None,
        start: Path | None = None,
        fixed_latents: bool = False,
        valid_items: int = 16,
        heard_items: int = 4,
    ) -> None:
        """Build the model.

        Parameters
        ----------
        config
            Of the model.
        sound
            What it learns from.
        batch
            Items of a step.
        weights
            Of the losses.
        start
            A tokenizer of the same sizes to begin with.
        fixed_latents
            Whether the decoder alone learns, so that latents stay those of `start`.
        valid_items, heard_items
            Held-out items that are measured, and the first of them that are written as sound.
        """
        self.config, self.sound, self.size = config, sound, batch
        self.weights = weights or LossWeights()
        self.valid_items, self.heard_items = valid_items, heard_items
        self._distances = Distances(config.rate)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sound.settings.seed)
            self.model = build(config)
        begun_id = ""
        if start is not None:
            begun = load_tokenizer(start)
            begun_id = begun.id
            if begun.config != config:
                raise UsageError(f"{start}: a tokenizer of other sizes; name them, or begin anew")
            self.model = begun.network.train()
        else:
            first = sound.batch(0, _CALIBRATE)["samples_BCN"]
            cast(Architecture, self.model).calibrate(first)
        self._fixed = fixed_latents
        self._freeze()
        self.about: dict[str, Any] = {
            "tokenizer": config.to_json(), "data": sound.about, "weights": asdict(self.weights),
            "start": begun_id, "fixed_latents": fixed_latents,
        }  # fmt: skip

    def _freeze(self) -> None:
        """What the loss does not reach, or must not change, costs no step."""
        decoder = cast(Architecture, self.model).decoder_modules()
        if self._fixed and not (decoder and self.weights.decodes):
            raise UsageError("there is no decoder to train by itself; let the latents be trained")
        if self._fixed:
            self.model.requires_grad_(False)
        for module in decoder:
            module.requires_grad_(self.weights.decodes)

    def batch(self, step: int) -> dict[str, Tensor]:
        """The items of a step: `samples_BCN`, and `lengths_B` where bars keep their lengths."""
        return self.sound.batch(step, self.size)

    def loss(self, model: nn.Module, batch: dict[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """`loss`, and its parts under `loss/`."""
        network = cast(Architecture, model)
        samples_BCN, lengths_B = batch["samples_BCN"], batch.get("lengths_B")
        z_BLD = network.encode(samples_BCN, lengths_B)
        clean = network.condition(z_BLD, lengths_B)
        if not self.weights.decodes:
            extra = network.extra_losses(clean, samples_BCN)
            total = torch.stack(list(extra.values())).sum()
            return {"loss": total, **{f"loss/{name}": part for name, part in extra.items()}}
        x = network.to_flow(samples_BCN, clean)
        z_noised_BLD, t_B = flow.synchronise_noise(
            z_BLD, draw.uniform(), draw.chance(self.config.noise_sync), draw.uniform(),
            draw.uniform(), draw.normal(*z_BLD.shape[1:]),
        )  # fmt: skip
        noise = draw.normal(*x.shape[1:])
        x_t = flow.blend(x, noise, t_B, self.config.sigma_min)
        out = network.predict(x_t, t_B, network.condition(z_noised_BLD, lengths_B)).float()
        if self.config.prediction == "v":
            error = (out - flow.velocity(x, noise, self.config.sigma_min)).square()
            x0 = flow.x_from_velocity(x_t, out, t_B)
        else:  # that of the velocity which follows from the estimate
            error, x0 = flow.velocity_from_x(x, out, t_B).square(), out
        if lengths_B is not None:  # what is padded counts for nothing
            real = (network.to_flow(torch.ones_like(samples_BCN), clean) != 0).to(error.dtype)
            error = (error * real).flatten(1).sum(1) / real.flatten(1).sum(1)
        losses = {"flow": error.mean()}
        with torch.autocast(samples_BCN.device.type, enabled=False):
            found_BCN = network.from_flow(x0.float(), clean, samples_BCN.shape[-1])
            if self.weights.mel:
                losses["mel"] = self._distances.mel(samples_BCN, found_BCN)
            if self.weights.stft:
                losses["stft"] = self._distances.stft(samples_BCN, found_BCN)
        if not self._fixed:
            losses |= network.extra_losses(clean, samples_BCN)
        total = torch.stack(
            [getattr(self.weights, name, 1.0) * part for name, part in losses.items()]
        ).sum()
        return {"loss": total, **{f"loss/{name}": part for name, part in losses.items()}}

    def samples(self, model: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Decode held-out items, write the first of them as sound, and measure all.

        Figures: `valid/loss` and its parts at fixed times and noise, `valid/mel_l1_db` after full
        sampling (while latents learn alone: of noise at the levels that they tell); none where no
        song is held out. Files: `NN.truth.wav` once, `NN.step-SSSSSS.wav`.
        """
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        items = self.sound.held_out_items(self.valid_items)
        try:
            with torch.no_grad():
                figures = self._held_out_losses(model, items, device)
                found_BCN = self._decoded(model, items)
        finally:
            model.train(was_training)
        truth_BCN = items["samples_BCN"]
        n_samples_B = items.get("lengths_B", torch.full((len(truth_BCN),), truth_BCN.shape[-1]))
        folder.mkdir(parents=True, exist_ok=True)
        distances = []
        for i, n in enumerate(n_samples_B.tolist()):
            truth, found = truth_BCN[i, :, :n], found_BCN[i, :, :n].clamp(-1.0, 1.0)
            distances += [
                mel_l1_db(one, other, self.config.rate)
                for one, other in zip(truth, found, strict=True)
            ]
            if i < self.heard_items:
                if not (first := folder / f"{i:02d}.truth.wav").exists():
                    write_audio(first, Audio(truth.numpy(), self.config.rate))
                later = folder / f"{i:02d}.step-{step:06d}.wav"
                write_audio(later, Audio(found.numpy(), self.config.rate))
        if not len(self.sound.held_out):
            return {}
        return {**figures, "valid/mel_l1_db": sum(distances) / len(distances)}

    def save(self, model: nn.Module, folder: Path, about: dict[str, Any]) -> None:
        """Write the model's folder."""
        save_tokenizer(model, folder, about)

    def _held_out_losses(
        self, model: nn.Module, items: dict[str, Tensor], device: torch.device
    ) -> dict[str, float]:
        count = len(items["samples_BCN"])
        draw = Draw(seed=0, step=0, total=count, first=0, items=count, device=str(device))
        losses = self.loss(model, {k: v.to(device) for k, v in items.items()}, draw)
        return {f"valid/{name.split('/')[-1]}": float(value) for name, value in losses.items()}

    def _decoded(self, model: nn.Module, items: dict[str, Tensor]) -> Tensor:
        tokenizer, lengths_B = Tokenizer(model), items.get("lengths_B")
        lengths_B = None if lengths_B is None else lengths_B.to(tokenizer.device)
        samples_BCN = items["samples_BCN"]
        z_BLD = tokenizer.encode(samples_BCN, lengths_B)
        if not self.weights.decodes:
            # the decoder is silent yet, and what is silent cannot be brought to levels
            generator = torch.Generator().manual_seed(0)
            noise_BCN = _NOISE * torch.randn(samples_BCN.shape, generator=generator)
            network = cast(Architecture, model)
            told = network.condition(z_BLD, lengths_B)
            return network.finish(noise_BCN.to(tokenizer.device), told).float().cpu()
        found_BCN = tokenizer.decode(
            z_BLD, keys=range(len(z_BLD)), n_samples=samples_BCN.shape[-1], lengths_B=lengths_B
        )
        return found_BCN.float().cpu()


def claim_model(folder: Path, *, resume: bool = True, force: bool = False) -> Path:
    """Make sure that a tokenizer may be trained in a folder; see `train_loop.model_folder`."""
    return model_folder.claim_model(folder, KIND, resume=resume, force=force)


def finish_model(folder: Path) -> str:
    """Write the model of the finished run in a folder to the folder itself; gives its id."""
    return model_folder.finish_model(folder, KIND)
