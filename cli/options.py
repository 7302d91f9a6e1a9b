"""Options that several commands share, and where a STORE comes from."""

from __future__ import annotations

import os
import stat
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mgen.core.errors import InputNotFoundError, UsageError


class Device(StrEnum):
    """Where tensors are computed."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Compile(StrEnum):
    """Whether kernels go through torch.compile."""

    auto = "auto"
    on = "on"
    off = "off"


class Precision(StrEnum):
    """What training computes in."""

    auto = "auto"
    bf16 = "bf16"
    f32 = "f32"


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object: paths and the figures of the run.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random; recorded.", min=0)]
JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", help="Processes to use; 0 takes one per core.", min=0)
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume/--no-resume", help="Skip work that the store already holds."),
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
CompileOption = Annotated[
    Compile, typer.Option("--compile", help="torch.compile; auto: only where it pays.")
]
PrecisionOption = Annotated[
    Precision, typer.Option(help="auto: bf16 where the processor or GPU has it.")
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        help="A tokenizer's folder. [the store's current one, else the one that ships]",
        metavar="MODEL", show_default=False,
    ),
]  # fmt: skip
LamOption = Annotated[
    Path | None,
    typer.Option(
        help="A latent action model's folder. [the store's current one, else the one that ships]",
        metavar="MODEL", show_default=False,
    ),
]  # fmt: skip
DynamicsOption = Annotated[
    Path | None,
    typer.Option(
        help="A dynamics model's folder. [the store's current one, else the one that ships]",
        metavar="MODEL", show_default=False,
    ),
]  # fmt: skip
StoreArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STORE]",
        help="A .zarr store; `-` reads stdin. Else: a piped stdin, MGEN_STORE, ./mgen.zarr.",
        show_default=False,
    ),
]

DEFAULT_STORE = Path("mgen.zarr")


def paths_from_stdin() -> list[str]:
    """The paths that a pipe brought, one per line; blank lines are skipped."""
    return [line.strip() for line in sys.stdin if line.strip()]


def stdin_is_pipe() -> bool:
    """Whether stdin is a pipe: not a terminal, a file, /dev/null, or closed."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return False


def place(text: str) -> Path | str:
    """Where a store lies: a local path, or a URL that zarr opens through fsspec, as it is."""
    text = text.removeprefix("file://")
    return text if "://" in text else Path(text).expanduser()


def resolve_stores(given: str | None) -> list[Path | str]:
    """The stores that a command works on.

    An argument wins and leaves stdin untouched; `-` or a piped stdin gives one path per line; then
    MGEN_STORE; then ./mgen.zarr.

    Raises
    ------
    UsageError
        If none of them names a store.
    InputNotFoundError
        If the one that was named does not exist.
    """
    if given is not None and given != "-":
        return [_existing(given, "the argument")]
    if given == "-" or stdin_is_pipe():
        piped = paths_from_stdin()
        if piped:
            return [_existing(p, "stdin") for p in piped]
        if given == "-":
            raise UsageError(
                "stdin gave no path; pipe a store's path in, or name it: mgen X s.zarr"
            )
    named = os.environ.get("MGEN_STORE")
    if named:
        return [_existing(named, "MGEN_STORE")]
    if DEFAULT_STORE.exists():
        return [DEFAULT_STORE]
    raise UsageError(
        "no store given: name one, pipe its path in, or set MGEN_STORE (./mgen.zarr is not here)"
    )


def resolve_store(given: str | None) -> Path | str:
    """Like `resolve_stores`, for a command that takes exactly one."""
    stores = resolve_stores(given)
    if len(stores) > 1:
        raise UsageError(f"stdin named {len(stores)} stores; this command takes one at a time")
    return stores[0]


def _existing(text: str, origin: str) -> Path | str:
    path = place(text)
    if isinstance(path, Path) and not path.exists():  # a URL: for the store to say
        raise InputNotFoundError(f"{text}: not found (named by {origin}); check the path")
    return path
