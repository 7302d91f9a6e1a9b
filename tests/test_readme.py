"""What the README shows is what happens: its commands, its Python, its links."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def as_printed(tmp_path: Path) -> Path:
    """A folder with the example songs, as a reader of the README has them."""
    (tmp_path / "examples").mkdir()
    for song in (ROOT / "examples").glob("*.ogg"):
        shutil.copy(song, tmp_path / "examples")
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", blocks("console"), ids=lambda b: b.split("\n")[0][:30])
def test_commands_run_as_printed(block: str, as_printed: Path) -> None:
    command, *shown = block.strip().splitlines()
    assert command.startswith("$ mgen ")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["sh", "-c", command[2:]], cwd=as_printed, env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    printed = [" ".join(line.split()) for line in (run.stdout + run.stderr).splitlines()]
    # words, not figures: another processor may round another way
    words = [re.sub(r"[\d.]+", "#", line) for line in printed]
    for line in shown:
        assert re.sub(r"[\d.]+", "#", " ".join(line.split())) in words


def test_python_runs_as_printed(as_printed: Path) -> None:
    (code,) = blocks("python")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=as_printed, capture_output=True, text=True, check=True
    )
    edges = [[float(x) for x in line.split()[:2]] for line in run.stdout.splitlines()]
    assert len(edges) > 20
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))


def test_the_library_example_makes_a_map(as_printed: Path) -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples/library.py", "examples/sodium_excerpt.ogg", "out.zip"],
        cwd=as_printed, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "140.00 BPM" in run.stdout
    assert (as_printed / "out.zip").stat().st_size > 100_000


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
