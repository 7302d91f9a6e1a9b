"""Where a model is trained: MODEL/run is the run, MODEL itself what came of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from mgen.core.checkpoint import load_model, save_model
from mgen.core.errors import OutputExistsError
from mgen.core.train_loop.run_folder import RunFolder

RUN = "run"
"""Where in a model's folder its training lives."""


def claim_model(folder: Path, kind: str, *, resume: bool = True, force: bool = False) -> Path:
    """Make sure that a model may be trained in a folder; gives the folder of its run.

    A run that is there goes on; with `force` and without `resume` it is dropped.

    Parameters
    ----------
    folder
        Made if it is missing.
    kind
        Of the model, as `save_model` takes it.
    resume, force
        Whether a run that is there goes on; whether what is there may be replaced.

    Raises
    ------
    OutputExistsError
        If something is there that would be lost.
    InputError
        If a model of another kind is there.
    """
    run = folder / RUN
    begun = any(RunFolder(part).config.is_file() for part in (run, *run.glob("*/")))
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder}: a file; name a folder for the {kind}")
    if begun and not resume:
        if not force:
            raise OutputExistsError(
                f"{folder}: holds a training run; --force drops it, without --no-resume it goes on"
            )
        shutil.rmtree(run)
    elif not begun and folder.exists() and {p.name for p in folder.iterdir()} - {RUN}:
        if not (folder / "config.json").is_file():
            raise OutputExistsError(f"{folder}: exists and is no {kind}; choose another name")
        if not force:
            raise OutputExistsError(f"{folder}: exists; give --force to replace it")
        load_model(folder, kind)  # refused where it is a model of another kind
    folder.mkdir(parents=True, exist_ok=True)
    return run


def finish_model(folder: Path, kind: str) -> str:
    """Write the model of the finished run in a folder to the folder itself; gives its id."""
    config, state = load_model(RunFolder(folder / RUN).model, kind)
    return save_model(folder, state, config, kind)
