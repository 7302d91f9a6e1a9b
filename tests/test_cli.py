"""The rules that all commands share: exit codes, one-line errors, where a STORE comes from."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgen.cli import app as app_module
from mgen.cli import options
from mgen.core.errors import InputNotFoundError, StoreError, UsageError


def test_version_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert app_module.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mgen ")


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert app_module.main(["compose"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "compose" in captured.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("no such bar"), 2, "no such bar"),
        (StoreError("damaged\nstore"), 1, "damaged store"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "/x/y: no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 1, "/x/y: permission denied"),
        (ImportError("Install s3fs to access S3"), 1, "pip install"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("odd"), 1, "MGEN_DEBUG=1"),
    ],
)
def test_errors_become_one_line(
    error: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(app_module, "app", fail)
    monkeypatch.delenv("MGEN_DEBUG", raising=False)
    assert app_module.main([]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise StoreError("x")

    monkeypatch.setattr(app_module, "app", fail)
    monkeypatch.setenv("MGEN_DEBUG", "1")
    with pytest.raises(StoreError):
        app_module.main([])


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGEN_STORE", raising=False)
    monkeypatch.setattr(options, "stdin_is_pipe", lambda: False)
    return tmp_path


def test_store_from_argument_leaves_stdin_alone(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "a.zarr").mkdir()
    monkeypatch.setattr(options, "stdin_is_pipe", lambda: True)
    stdin = io.StringIO("other.zarr\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert options.resolve_store("a.zarr") == Path("a.zarr")
    assert stdin.tell() == 0


def test_store_from_pipe_then_environment_then_here(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.zarr", "b.zarr", "mgen.zarr"):
        (empty_folder / name).mkdir()
    assert options.resolve_store(None) == Path("mgen.zarr")
    monkeypatch.setenv("MGEN_STORE", "b.zarr")
    assert options.resolve_store(None) == Path("b.zarr")
    monkeypatch.setattr(options, "stdin_is_pipe", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))  # an empty pipe falls through
    assert options.resolve_store(None) == Path("b.zarr")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a.zarr\n"))
    assert options.resolve_store(None) == Path("a.zarr")


def test_no_store_names_the_three_places(empty_folder: Path) -> None:
    with pytest.raises(UsageError, match=r"name one.*pipe.*MGEN_STORE.*mgen\.zarr"):
        options.resolve_store(None)


def test_a_store_that_is_not_there(empty_folder: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"gone\.zarr: not found"):
        options.resolve_store("gone.zarr")


def test_two_stores_where_one_is_wanted(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.zarr", "b.zarr"):
        (empty_folder / name).mkdir()
    monkeypatch.setattr(sys, "stdin", io.StringIO("a.zarr\nb.zarr\n"))
    assert options.resolve_stores("-") == [Path("a.zarr"), Path("b.zarr")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("a.zarr\nb.zarr\n"))
    with pytest.raises(UsageError, match="2 stores"):
        options.resolve_store("-")


@pytest.mark.parametrize("kind", ["file", "null", "closed", "pipe"])
def test_stdin_is_a_pipe_only_when_it_is_one(kind: str, tmp_path: Path) -> None:
    code = (
        "import sys; from mgen.cli.options import stdin_is_pipe; "
        "sys.stdout.write(str(stdin_is_pipe()))"
    )
    listing = tmp_path / "list"
    listing.write_text("a\n")
    shell = {"file": f"<'{listing}'", "null": "</dev/null", "closed": "<&-", "pipe": ""}[kind]
    run = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -c '{code}' {shell}"],
        input=b"", capture_output=True, check=True, env={**os.environ},
    )  # fmt: skip
    assert run.stdout.decode() == str(kind == "pipe")


def test_a_closed_reader_is_not_an_error() -> None:
    run = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m mgen --help | head -n 1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stderr == ""
