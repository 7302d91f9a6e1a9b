"""`mgen train-dynamics`: latents and actions of stores -> a dynamics model."""

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
    LamOption,
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
    from mgen.core.dynamics import DynamicsConfig
    from mgen.core.dynamics.data import TrainingBars
    from mgen.core.lam.folder import LatentActionModel
    from mgen.core.store import Store
    from mgen.core.tokenizer import Tokenizer


class Condition(StrEnum):
    """How tempo and actions enter the network."""

    adaln = "adaln"
    cross_attention = "cross-attention"
    concatenation = "concatenation"


def train_dynamics(
    out: OutOption,
    store: StoreArgument = None,
    lam: LamOption = None,
    condition: Annotated[
        Condition, typer.Option(help="How tempo and actions enter: modulating every block is best.")
    ] = Condition.adaln,
    size: SizeOption = Size.small,
    bars: Annotated[
        int, typer.Option(help="Bars of the longest window: 8, 16, ... and so many.", min=1)
    ] = 16,
    steps: StepsOption = 50_000,
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
    """Train a model that writes bars: from actions, tempo, and the bars around them.

    The stores hold latents (`mgen tokenize`) and actions (`mgen train-lam`); songs that lack
    actions get them first. MODEL/run holds the run: metrics.jsonl, checkpoints, and every 1000
    steps the same held-out bars with their middle written anew. The same command goes on where it
    was stopped or killed. At the end the model becomes the store's current dynamics model.
    What to watch is `valid/action_gap`: how much worse it does when told wrong actions.

    [bold]Examples[/bold]

      mgen train-dynamics jazz.zarr -o my-dynamics

      mgen train-lam jazz.zarr -o lam | mgen train-dynamics -o dyn --bars 24

      torchrun --nproc-per-node 8 -m mgen train-dynamics jazz.zarr -o dyn --size large
    """
    from mgen.core.dynamics import make_dynamics_config
    from mgen.core.dynamics.data import TrainingBars, WindowSettings
    from mgen.core.dynamics.model import KIND
    from mgen.core.dynamics.reading import STAGE, read_rows
    from mgen.core.dynamics.training import DynamicsTask
    from mgen.core.store import Store
    from mgen.core.train_loop.model_folder import RUN, claim_model, finish_model

    settings = settings_of(
        steps=steps, batch=batch, optimiser=optimiser, lr=lr, seed=seed, device=device,
        precision=precision, compile=compile,
    )  # fmt: skip
    stores, leads = resolve_stores(store), os.environ.get("RANK", "0") == "0"
    out = out.expanduser()
    if leads:
        claim_model(out, KIND, resume=resume, force=force)
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    actions = _actions(stores, lam, alone=alone)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Store.open(path)) for path in stores]
        windows = TrainingBars(read_rows(opened, actions), WindowSettings(bars=bars, seed=seed))
        tokenizer = _tokenizer(opened[0], actions) if leads else None
    config = make_dynamics_config(
        size.value, condition.value, tokens=actions.config.tokens, dims=actions.config.dims,
        action=actions.width, bars=windows.lengths[-1], tokenizer=actions.config.tokenizer,
        lam=actions.id,
    )  # fmt: skip
    if leads:
        output.say(_about(config, windows))
    task = DynamicsTask(config, windows, batch=batch, tokenizer=tokenizer)
    last = run(task, settings, out / RUN, title="train-dynamics", items="windows")
    if not leads:
        return
    model_id = finish_model(out, KIND)
    link(stores, STAGE, model_id, out)
    output.say(f"{out}: {model_id[:12]}, the current dynamics model of {len(stores)} stores")
    figures: dict[str, Any] = {
        "model": str(out), "id": model_id, "lam": actions.id, "steps": steps,
        "songs": windows.about["songs"], "bars": windows.about["bars_used"],
        **(last.line() if last else {}),
    }  # fmt: skip
    output.result(stores, figures, as_json)


def _actions(stores: Sequence[Path | str], given: Path | None, *, alone: bool) -> LatentActionModel:
    """The latent action model; songs that lack its actions get them. Of several processes none
    does that: they must be there.
    """
    from mgen.core.lam.passes import current_lam, label_songs
    from mgen.core.store import Store

    with Store.open(stores[0]) as first:
        lam, _ = current_lam(first, given)
    for path in stores if alone else ():
        with (
            Store.open(path, "a") as store,
            output.progress(len(store.songs()), "actions", "song") as bar,
        ):
            for _ in label_songs(store, lam, command=output.command_line()):
                bar.update()
    return lam


def _tokenizer(store: Store, lam: LatentActionModel) -> Tokenizer | None:
    """What makes sound of the samples: the store's current tokenizer, if it made the latents."""
    from mgen.core.errors import MgenError
    from mgen.core.tokenizer.passes import current_tokenizer, latents_id

    try:
        tokenizer, _ = current_tokenizer(store)
    except MgenError as error:
        output.warn(f"samples are measured, but not written as sound ({error})")
        return None
    if latents_id(tokenizer) != lam.config.tokenizer:
        output.warn(
            "samples are measured, but not written as sound (the current tokenizer is"
            f" {latents_id(tokenizer)}, the actions were learned from {lam.config.tokenizer})"
        )
        return None
    return tokenizer


def _about(config: DynamicsConfig, bars: TrainingBars) -> str:
    about = bars.about
    return (
        f"{config.condition}, {config.depth} blocks of {config.width}, windows of"
        f" {', '.join(map(str, bars.lengths))} bars of {config.tokens} x {config.dims};"
        f" {about['bars_used']} bars of {about['songs']} songs, {about['songs_held_out']} of them"
        " held out"
    )
