"""The models that the package ships: a folder each, with weights, config.json and a model card."""

from __future__ import annotations

from pathlib import Path

from mgen.core.errors import InputNotFoundError


def shipped(name: str) -> Path:
    """The folder of a shipped model.

    Raises
    ------
    InputNotFoundError
        If this installation lacks it.
    """
    folder = Path(__file__).parent / name
    if not (folder / "config.json").is_file():
        raise InputNotFoundError(f"{folder}: not found; install mgen again")
    return folder
