"""The `mgen` program: registers the commands; the only place where an error becomes a message."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import warnings
from typing import Annotated

import typer

from mgen.cli.actions import actions
from mgen.cli.beatmap import beatmap
from mgen.cli.check import check
from mgen.cli.decode import decode
from mgen.cli.edit import edit
from mgen.cli.filter import filter_songs
from mgen.cli.info import info
from mgen.cli.segment_bars import segment_bars
from mgen.cli.tokenize import tokenize
from mgen.cli.train_dynamics import train_dynamics
from mgen.cli.train_filter import train_filter
from mgen.cli.train_lam import train_lam
from mgen.cli.train_tokenizer import train_tokenizer
from mgen.core.errors import MgenError

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="mgen",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mgen import __version__

        print(f"mgen {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Find the actions hidden in music, and use them.

    Every command reads and writes one Zarr store on disk, so commands chain:
    [bold]mgen filter ~/music -o s.zarr | mgen segment-bars | mgen info[/bold]
    """


app.command("filter")(filter_songs)
app.command("segment-bars")(segment_bars)
app.command("tokenize")(tokenize)
app.command("decode")(decode)
app.command("actions")(actions)
app.command("edit")(edit)
app.command("beatmap")(beatmap)
app.command("info")(info)
app.command("check")(check)
app.command("train-filter")(train_filter)
app.command("train-tokenizer")(train_tokenizer)
app.command("train-lam")(train_lam)
app.command("train-dynamics")(train_dynamics)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    try:
        code = app(args=arguments, prog_name="mgen", standalone_mode=False)
        sys.stdout.flush()
        if code == EXIT_INTERRUPTED:  # Typer caught the KeyboardInterrupt and says nothing
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where this one stopped",
                     EXIT_INTERRUPTED)  # fmt: skip
    except BrokenPipeError:
        # the reader went away (`| head`): that is its right. Python must not flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if os.environ.get("MGEN_DEBUG") == "1":
            raise
        return _fail(*_describe(error))


def _describe(error: Exception) -> tuple[str, int]:
    if isinstance(error, MgenError):
        return str(error), error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # Typer's own
        if type(error).__name__ == "NoArgsIsHelpError":
            return "", int(error.exit_code)
        return f"{error.format_message()} (see mgen --help)", int(error.exit_code)
    if type(error).__name__ == "Abort":
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        cure = {
            errno.ENOSPC: "; free some space and run the same command again",
            errno.EACCES: "; choose another place with -o, or change its permissions",
            errno.EROFS: "; choose another place with -o",
        }.get(error.errno or 0, "")
        return f"{where}{(error.strerror or str(error)).lower()}{cure}", 1
    if isinstance(error, ImportError):
        return f"{str(error).rstrip('.')} (a package is missing: pip install it)", 1
    if isinstance(error, MemoryError):
        return "out of memory; use fewer --jobs or close other programs", 1
    what = str(error).strip().splitlines()
    return (
        f"unexpected {type(error).__name__}: {what[0] if what else 'no message'}"
        " (MGEN_DEBUG=1 shows the traceback)"
    ), 1


def _fail(message: str, code: int) -> int:
    if message:
        print(f"mgen: {' '.join(message.split())}", file=sys.stderr)
    return code


def run() -> None:
    """Entry point of the `mgen` script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`): Python then has none
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if hasattr(signal, "SIGTERM"):  # a cluster's polite kill ends like Ctrl-C
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    code = main()
    if code == EXIT_INTERRUPTED:
        # what zarr and the workers were in the middle of dies at exit, and would say so
        warnings.simplefilter("ignore")
        logging.disable()
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


if __name__ == "__main__":
    run()
