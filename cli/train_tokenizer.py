"""`mgen train-tokenizer`: bars or plain sound of stores -> a tokenizer."""

from __future__ import annotations

import contextlib
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgen.cli import output
from mgen.cli.options import (
    Compile,
    CompileOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ResumeOption,
    SeedOption,
    StoreArgument,
    resolve_stores,
)
from mgen.cli.training import (
    BatchOption,
    LrOption,
    Optimiser,
    OptimiserOption,
    OutOption,
    Size,
    SizeOption,
    StepsOption,
    link,
    run,
    settings_of,
)

if TYPE_CHECKING:
    from mgen.core.tokenizer import TokenizerConfig
    from mgen.core.tokenizer.data import TrainingSound
    from mgen.core.train_loop import StepReport, TrainSettings


class Preset(StrEnum):
    """What an item is, and how many numbers it becomes."""

    bar = "bar"
    s50x128 = "50x128"
    s8x256 = "8x256"
    s32x16 = "32x16"


class Arch(StrEnum):
    """Which encoder and decoder."""

    spectral = "spectral"
    dito_unet = "dito-unet"
    perceiver = "perceiver"


def train_tokenizer(
    out: OutOption,
    store: StoreArgument = None,
    preset: Annotated[
        Preset, typer.Option(help="bar: 64 x 16 a bar; others: tokens a second x numbers.")
    ] = Preset.bar,
    arch: Annotated[
        Arch, typer.Option(help="Encoder and decoder; perceiver: bars at their own lengths.")
    ] = Arch.spectral,
    size: SizeOption = Size.small,
    rate: Annotated[
        int, typer.Option(help="Hz; above 16000 the songs' own files are read.", min=4000)
    ] = 16000,
    channels: Annotated[int, typer.Option(help="Channels of the sound.", min=1, max=8)] = 1,
    steps: StepsOption = 100_000,
    latent_steps: Annotated[
        int | None,
        typer.Option(
            help="Of these latents, before the decoder learns (spectral). [as --steps]",
            min=1,
            show_default=False,
        ),
    ] = None,
    batch: BatchOption = 32,
    optimiser: OptimiserOption = Optimiser.muon,
    lr: LrOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
    compile: CompileOption = Compile.auto,
    resume: ResumeOption = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a tokenizer on the bars (or the plain sound) of one store or several.

    A spectral tokenizer learns twice: first its latents, from which the levels of bands have to
    be told (MODEL/run/latents), which is quick; then its decoder, on latents that stay as they
    are. Others learn all at once.

    MODEL/run holds the run: metrics.jsonl, the same few bars before and after every 1000 steps,
    checkpoints. The same command goes on where it was stopped or killed. At the end the model is
    written to MODEL and becomes the store's current tokenizer; before that, MODEL/run/model is it
    as of the last checkpoint. Some songs are held out and measured: `valid` in the metrics.
    torchrun works as usual.

    [bold]Examples[/bold]

      mgen train-tokenizer jazz.zarr -o my-tokenizer

      mgen train-tokenizer jazz.zarr -o tok --preset 32x16 --steps 20000 --batch 16

      mgen segment-bars jazz.zarr --jitter 4 | mgen train-tokenizer -o tok --size base

      torchrun --nproc-per-node 8 -m mgen train-tokenizer jazz.zarr -o tok --size large
    """
    from mgen.core.store import Store
    from mgen.core.tokenizer import make_config
    from mgen.core.tokenizer.data import DataSettings, TrainingSound, check_sound
    from mgen.core.tokenizer.passes import STAGE
    from mgen.core.tokenizer.training import RUN, claim_model, finish_model

    config = make_config(preset.value, arch.value, size.value, rate=rate, channels=channels)
    check_sound(config)
    settings = settings_of(
        steps=steps, batch=batch, optimiser=optimiser, lr=lr, seed=seed, device=device,
        precision=precision, compile=compile,
    )  # fmt: skip
    stores, leads = resolve_stores(store), os.environ.get("RANK", "0") == "0"
    out = out.expanduser()
    if leads:
        claim_model(out, resume=resume, force=force)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Store.open(path)) for path in stores]
        sound = TrainingSound(
            opened, config, DataSettings(seed=seed), steps=steps, folder=out if leads else None
        )
    if leads:
        output.say(_about(config, sound))
    last = _train(config, sound, settings, latent_steps, out / RUN)
    if not leads:
        return
    model_id = finish_model(out)
    link(stores, STAGE, model_id, out)
    output.say(f"{out}: {model_id[:12]}, the current tokenizer of {len(stores)} stores")
    figures: dict[str, Any] = {
        "model": str(out), "id": model_id, "steps": steps, "songs": sound.about["songs"],
        "pieces": sound.about["pieces"], **(last.line() if last else {}),
    }  # fmt: skip
    output.result(stores, figures, as_json)


def _about(config: TokenizerConfig, sound: TrainingSound) -> str:
    from mgen.core.tokenizer.passes import model_facts

    facts = ", ".join(f"{name} {value}" for name, value in model_facts(config).items())
    about = sound.about
    return (
        f"{facts}; {sound.seconds / 3600:.2f} h of {about['songs']} songs,"
        f" {about['songs_held_out']} of them held out"
    )


def _train(
    config: TokenizerConfig, sound: TrainingSound, settings: TrainSettings,
    latent_steps: int | None, folder: Path,
) -> StepReport | None:  # fmt: skip
    from mgen.core.tokenizer.stages import stages

    unit, last = "bars" if config.unit == "bar" else "cuts", None
    for stage in stages(config, sound, settings, folder, latent_steps=latent_steps):
        last = run(stage.task, stage.settings, stage.folder, title=stage.title, items=unit)
    return last
