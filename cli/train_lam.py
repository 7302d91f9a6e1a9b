"""`mgen train-lam`: latents of bars -> a latent action model and its palette of actions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
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
    TokenizerOption,
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
    run,
    settings_of,
)

if TYPE_CHECKING:
    from mgen.core.lam.config import LamConfig
    from mgen.core.lam.data import TrainingBars


class Bottleneck(StrEnum):
    """What an action is made of."""

    vq = "vq"
    fsq = "fsq"
    residual_fsq = "residual-fsq"
    style = "style"


class Preset(StrEnum):
    """Styles: actions, bars that share one, how many count at once."""

    s64_1_3 = "64-1-3"
    s256_1_5 = "256-1-5"
    s1024_2_10 = "1024-2-10"
    s128_1_10 = "128-1-10"


class Input(StrEnum):
    """What the encoder reads of a bar."""

    latents = "latents"
    mel = "mel"


def train_lam(
    out: OutOption,
    store: StoreArgument = None,
    bottleneck: Annotated[
        Bottleneck, typer.Option(help="Codes of the step from bar to bar, or styles of a bar.")
    ] = Bottleneck.style,
    preset: Annotated[
        Preset | None,
        typer.Option(help="Styles: actions, bars an action, top-k. [64-1-3]", show_default=False),
    ] = None,
    actions: Annotated[
        int | None,
        typer.Option(help="How many; FSQ 64, 256 or 1000. [64; styles: the preset's]", min=2),
    ] = None,
    bars_per_action: Annotated[
        int | None, typer.Option(help="Bars that share an action. [1, or the preset's]", min=1)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Styles that count at once. [the preset's]", min=1)
    ] = None,
    input: Annotated[
        Input, typer.Option(help="Read latents, or the log-mel of the bars.")
    ] = Input.latents,
    relative: Annotated[
        bool | None,
        typer.Option(
            "--relative/--absolute",
            show_default=False,
            help="Styles: of what sets a bar apart from its song, or of all it is. [relative]",
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    mapping: Annotated[
        bool, typer.Option("--mapping", help="Map the actions to more informative ones (A to B').")
    ] = False,
    bars: Annotated[int, typer.Option(help="Of a sequence.", min=4)] = 8,
    size: SizeOption = Size.small,
    steps: StepsOption = 20_000,
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
    """Find the actions hidden in the bars of one store or several, without a label.

    A bar has to be written again from noise by someone who knows its action only (codes: and the
    first bar of the sequence), so the actions become what tells bars apart; relative styles see and
    write what is left of a bar without what is usual in its song. Copies of bars (`segment-bars
    --jitter`) make them steadier: one is read, another written. MODEL/run holds the run; the same
    command goes on where it was stopped. At the end the model is written to MODEL and its palette
    of up to 64 actions to MODEL/palette, the bars of the stores are labelled, and it becomes their
    current latent action model. torchrun works as usual.

    [bold]Examples[/bold]

      mgen train-lam jazz.zarr -o my-lam

      mgen train-lam jazz.zarr -o lam --bottleneck residual-fsq --steps 5000

      mgen train-lam jazz.zarr -o lam --preset 1024-2-10 --input mel

      mgen tokenize jazz.zarr | mgen train-lam -o lam --actions 128 --top-k 5
    """
    from mgen.core.lam.config import make_config
    from mgen.core.lam.data import TrainingBars, current_latents, read_bars
    from mgen.core.lam.folder import KIND
    from mgen.core.lam.training import LamTask, as_begun
    from mgen.core.store import Store
    from mgen.core.train_loop.model_folder import RUN, claim_model, finish_model

    settings = settings_of(
        steps=steps, batch=batch, optimiser=optimiser, lr=lr, seed=seed, device=device,
        precision=precision, compile=compile,
    )  # fmt: skip
    stores, leads = resolve_stores(store), os.environ.get("RANK", "0") == "0"
    out = out.expanduser()
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Store.open(path)) for path in stores]
        spoken, tokens, dims = current_latents(opened, tokenizer)
        config = make_config(
            bottleneck.value, tokens=tokens, dims=dims, tokenizer=spoken, size=size.value,
            preset=preset.value if preset else None, actions=actions, top_k=top_k, bars=bars,
            bars_per_action=bars_per_action, input=input.value, relative=relative, mapping=mapping,
            run_steps=steps,
        )  # fmt: skip
        if resume:
            config = as_begun(config, out / RUN)
        data = TrainingBars(read_bars(opened, config), config, seed=seed)
    if leads:
        claim_model(out, KIND, resume=resume, force=force)
        output.say(_about(config, data))
    task = LamTask(config, data, batch=batch)
    last = run(task, settings, out / RUN, title="train-lam", items="sequences")
    if not leads:
        return
    model_id = finish_model(out, KIND)
    figures = _label(stores, out, device.value)
    output.say(f"{out}: {model_id[:12]}, the current latent action model of {len(stores)} stores")
    output.result(
        stores,
        {
            "model": str(out), "id": model_id, "steps": steps, "songs": data.about["songs"],
            "sequences": data.about["sequences"], **figures, **(last.line() if last else {}),
        },
        as_json,
    )  # fmt: skip


def _about(config: LamConfig, data: TrainingBars) -> str:
    about, kind = data.about, "steps" if config.steps else "styles"
    shape = f"{config.actions} {kind}"
    if config.numbers > 1:
        shape += f", {config.numbers} {'quantizers' if config.steps else 'at once'}"
    return (
        f"{config.bottleneck}: {shape}, {config.bars_per_action} bars an action, from"
        f" {config.input}; {about['sequences']} sequences of {config.bars} bars of"
        f" {about['songs']} songs, {about['songs_held_out']} of them held out"
    )


def _label(stores: Sequence[Path | str], out: Path, device: str) -> dict[str, Any]:
    """Label the stores' bars, make the palette, and link the model; gives the palette's figures."""
    from mgen.core.devices import choose_device
    from mgen.core.lam.folder import load_lam
    from mgen.core.lam.palette import save_palette
    from mgen.core.lam.passes import PALETTE, STAGE, label_songs
    from mgen.core.lam.survey import find_palette, health, survey
    from mgen.core.store import Store

    lam = load_lam(out, str(choose_device(device)))
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Store.open(path, "a")) for path in stores]
        for store in opened:
            with output.progress(len(store.songs()), "actions", "song") as bar:
                for _ in label_songs(store, lam, command=output.command_line()):
                    bar.update()
        found = survey(opened, lam)
        palette = find_palette(lam, found)
        save_palette(palette, out / PALETTE, force=True)
        for store in opened:
            store.link_model(STAGE, lam.id, out)
    figures = health(lam, found)
    output.say(
        f"{out / PALETTE}: {len(palette)} actions; utilisation {figures['utilisation']:.2f},"
        f" perplexity {figures['perplexity']:.1f}, song information"
        f" {figures['song_information']:.2f}"
    )
    return {"palette": palette.id, "actions": len(palette), **figures}
