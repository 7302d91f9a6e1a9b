"""How a tokenizer is trained from beginning to end: in one run, or its latents before its decoder.

Where a guide tells the levels of bands from the latents, they are learned from that alone: a plain
regression, which takes a tenth of the time that the decoder's flow would. The decoder then learns
on latents that stay as they are. Architectures without a guide learn their latents through the
decoder, all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mgen.core.errors import UsageError
from mgen.core.tokenizer.config import TokenizerConfig
from mgen.core.tokenizer.data import TrainingSound
from mgen.core.tokenizer.training import LossWeights, TokenizerTask
from mgen.core.train_loop import RunFolder, TrainSettings
from mgen.core.train_loop.ranks import joined

LATENTS = "latents"
"""Where in the folder of the run that of the latents lies."""

_GUIDE_ALONE = LossWeights(flow=0.0, mel=0.0, stft=0.0)
_DECODER = LossWeights(flow=1.0, mel=0.3, stft=0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One run: what is learned, how, and where."""

    title: str
    task: TokenizerTask
    settings: TrainSettings
    folder: Path


def stages(
    config: TokenizerConfig, sound: TrainingSound, settings: TrainSettings, folder: Path,
    *, latent_steps: int | None = None,
) -> Iterator[Stage]:  # fmt: skip
    """The runs of a tokenizer, in order; each has to be trained to its end before the next is
    asked for.

    Parameters
    ----------
    config, sound
        Of the model, and what it learns from.
    settings
        Of the last run, and but for the steps of those before it.
    folder
        Of the last run.
    latent_steps
        Of the run of the latents; by default those that it was begun with, else as many as those of
        `settings`.

    Raises
    ------
    UsageError
        If latents are to be trained longer on which a decoder has begun to learn.
    """
    latents = None
    with joined(settings.device):  # processes that train together stay together in between
        if config.arch == "spectral":
            run = RunFolder(folder / LATENTS)
            begun = run.steps()
            steps = latent_steps or begun or settings.steps
            if begun and steps != begun and RunFolder(folder).steps():
                raise UsageError(
                    f"{folder}: the decoder has begun to learn on latents of {begun} steps; they"
                    " stay as they are: leave --latent-steps out, or name another folder"
                )
            how = replace(settings, steps=steps, warmup=min(settings.warmup, steps // 10))
            task = TokenizerTask(config, sound, batch=settings.batch, weights=_GUIDE_ALONE)
            yield Stage(title=LATENTS, task=task, settings=how, folder=run.path)
            latents = run.model
        task = TokenizerTask(
            config, sound, batch=settings.batch, weights=_DECODER, start=latents,
            fixed_latents=latents is not None,
        )  # fmt: skip
        yield Stage(
            title="decoder" if latents else "tokenizer", task=task, settings=settings,
            folder=folder,
        )  # fmt: skip
