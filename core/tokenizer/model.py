"""`Tokenizer`: sound to latents and back, and the folder that it lives in.

Letters: B items, C channels, N samples, L tokens, D dims.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from mgen.core import flow
from mgen.core.checkpoint import rebuild, save_model
from mgen.core.errors import UsageError
from mgen.core.tokenizer.config import TokenizerConfig
from mgen.core.tokenizer.levels import BandLevels

KIND = "tokenizer"


class Architecture(Protocol):
    """What an encoder with its decoder gives; `condition` is whatever its latents determine."""

    config: TokenizerConfig

    def calibrate(self, samples_BCN: Tensor) -> None:
        """Take from data what training begins with."""

    def decoder_modules(self) -> list[nn.Module]:
        """What the flow alone needs: latents, and losses on them, do not depend on it. Empty where
        the decoder is how the latents are learned.
        """

    def encode(self, samples_BCN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Latents (B, L, D)."""

    def condition(self, z_BLD: Tensor, lengths_B: Tensor | None = None) -> Any:
        """Everything that depends on latents alone."""

    def flow_shape(self, n_samples: int) -> tuple[int, ...]:
        """Shape of one item in the space of the flow."""

    def to_flow(self, samples_BCN: Tensor, condition: Any) -> Tensor:
        """Sound in the space of the flow."""

    def from_flow(self, x: Tensor, condition: Any, n_samples: int) -> Tensor:
        """Sound (B, C, N) of what the flow made."""

    def finish(self, samples_BCN: Tensor, condition: Any) -> Tensor:
        """Sound that was sampled, after what the latents still know better of it."""

    def band_levels(self, condition: Any) -> list[BandLevels] | None:
        """Levels of bands of each item, where latents tell them without sampling."""

    def predict(self, x_t: Tensor, t_B: Tensor, condition: Any) -> Tensor:
        """Velocity or clean signal, as the config's `prediction` says."""

    def extra_losses(self, condition: Any, samples_BCN: Tensor) -> dict[str, Tensor]:
        """Losses of its own."""


def build(config: TokenizerConfig) -> nn.Module:
    """An untrained architecture of these sizes."""
    if config.arch == "spectral":
        from mgen.core.tokenizer.spectral import Spectral

        return Spectral(config)
    if config.arch == "dito-unet":
        from mgen.core.tokenizer.dito_unet import DitoUNet

        return DitoUNet(config)
    from mgen.core.tokenizer.perceiver import Perceiver

    return Perceiver(config)


class Tokenizer:
    """A trained tokenizer, ready to use.

    Attributes
    ----------
    config
        Its shape.
    id
        Hash of its config and weights; the same wherever the folder lies.
    latents_id
        Hash of what its latents depend on: two tokenizers that differ in their decoders alone
        share it, so a better decoder leaves stores, and what was learned from latents, as they are.
    network
        The architecture itself, in eval mode.
    """

    def __init__(self, network: nn.Module, model_id: str = "") -> None:
        self.network: Any = network.eval()
        self.config = cast(Architecture, network).config
        self.id = model_id

    @cached_property
    def latents_id(self) -> str:
        """See the class."""
        config = {k: v for k, v in self.config.to_json().items() if k != "steps"}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        decoder = {
            id(x)
            for module in self.network.decoder_modules()
            for x in module.state_dict(keep_vars=True).values()
        }
        for name, x in sorted(self.network.state_dict(keep_vars=True).items()):
            if id(x) not in decoder:
                digest.update(name.encode())
                digest.update(x.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def encode(self, samples_BCN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Latents (B, L, D) of items, float32.

        Raises
        ------
        ValueError
            If the samples do not fit the model.
        """
        self._check(samples_BCN)
        return self.network.encode(samples_BCN.to(self.device), lengths_B).float()

    @torch.inference_mode()
    def decode(
        self,
        z_BLD: Tensor,
        *,
        keys: Sequence[int],
        seed: int = 0,
        steps: int | None = None,
        n_samples: int | None = None,
        lengths_B: Tensor | None = None,
    ) -> Tensor:
        """Sound (B, C, N) of latents.

        Parameters
        ----------
        z_BLD
            Latents.
        keys
            A number per item: the noise of an item depends on its key and the seed alone, so an
            item sounds the same in whatever batch it is decoded.
        seed
            Of all noise.
        steps
            Sampler steps; the model's own by default.
        n_samples
            Of an item; by default what its tokens stand for.
        lengths_B
            Samples of each item, for models of bars without time-warp.

        Raises
        ------
        UsageError
            If keys and items do not match, or steps is below 1.
        """
        if len(keys) != len(z_BLD):
            raise UsageError(f"{len(z_BLD)} items need as many keys, not {len(keys)}")
        steps = self.config.steps if steps is None else steps
        if steps < 1:
            raise UsageError(f"{steps} steps decode nothing; take at least 1")
        n = n_samples or z_BLD.shape[1] * self.config.hop
        shape = self.network.flow_shape(n)
        noise = torch.stack([_noise(shape, seed, key) for key in keys]).to(self.device)
        condition = self.network.condition(z_BLD.to(self.device).float(), lengths_B)

        def velocity(x_t: Tensor, t_B: Tensor) -> Tensor:
            out: Tensor = self.network.predict(x_t, t_B, condition).float()
            if self.config.prediction == "v":
                return out
            return flow.velocity_from_x(x_t, out, t_B, min_t=0.5 / steps)

        x = flow.sample(velocity, noise, steps)
        return self.network.finish(self.network.from_flow(x, condition, n), condition)

    @torch.inference_mode()
    def band_levels(self, z_BLD: Tensor) -> list[BandLevels] | None:
        """What latents tell of the sound of each item without sampling.

        None where this architecture knows sound by sampling alone.
        """
        condition = self.network.condition(z_BLD.to(self.device).float())
        found: list[BandLevels] | None = self.network.band_levels(condition)
        return found

    def _check(self, samples_BCN: Tensor) -> None:
        if samples_BCN.ndim != 3 or samples_BCN.shape[1] != self.config.channels:
            raise ValueError(
                f"items are (batch, {self.config.channels}, samples), not"
                f" {tuple(samples_BCN.shape)}"
            )


def _noise(shape: tuple[int, ...], seed: int, key: int) -> Tensor:
    from numpy.random import Philox

    state = int(Philox(key=[seed, key]).random_raw() >> 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(state))


def save_tokenizer(network: nn.Module, folder: Path, about: dict[str, Any]) -> str:
    """Write a model's folder; gives its id.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    config = cast(Architecture, network).config
    return save_model(folder, network.state_dict(), {"tokenizer": config.to_json(), **about}, KIND)


def load_tokenizer(folder: Path, device: str = "cpu") -> Tokenizer:
    """Read a tokenizer from its folder. Raises as `mgen.core.checkpoint.rebuild`."""
    network, model_id = rebuild(folder, KIND, lambda c: build(TokenizerConfig.from_json(c)))
    return Tokenizer(network.to(device), model_id)
