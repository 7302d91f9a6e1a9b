"""The rules of the house: the direction of imports, the list of packages, a light `--help`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("kernels", "core", "cli")  # each may import itself and what stands left of it

# core's stages, left to right; the shelf knows no stage, pictures draws them all
SHELF = {
    "errors", "parallel", "devices", "locks", "weights", "layers", "flow", "checkpoint",
    "train_loop", "quantizers",
}  # fmt: skip
STAGES = (
    "audio", "quality", "beats", "bars", "store", "corpus", "tokenizer", "lam", "dynamics",
    "editing",
)  # fmt: skip
BEATMAP_MAY_IMPORT = {"audio", "beats", "bars"}
LAST = {"pictures"}

HEAVY = {"torch", "zarr", "numpy", "librosa", "sklearn", "scipy", "matplotlib", "soundfile", "PIL"}


def sources(layer: str) -> list[Path]:
    return [p for p in sorted((ROOT / layer).rglob("*.py")) if "__pycache__" not in p.parts]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports break under the package map"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def core_part(dotted: str) -> str:
    return dotted.split(".")[2] if dotted.startswith("mgen.core.") else ""


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_from_cli_to_core_to_kernels(layer: str) -> None:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for path in sources(layer):
        for name in imported(path):
            assert not name.startswith(("cli.", "core.", "kernels.")), f"{path}: bare {name}"
            for other in above:
                assert not name.startswith(f"mgen.{other}"), f"{path} imports {name}"


def test_kernels_import_nothing_of_ours_but_kernels() -> None:
    for path in sources("kernels"):
        ours = {n for n in imported(path) if n.startswith("mgen.")}
        assert all(n.startswith("mgen.kernels") for n in ours), (path, ours)


def test_stages_stand_in_a_line() -> None:
    for path in sources("core"):
        relative = path.relative_to(ROOT / "core")
        here = relative.parts[0].removesuffix(".py")
        theirs = {core_part(n) for n in imported(path)} - {"", here} - SHELF
        if here in SHELF:
            assert not theirs, f"the shelf knows no stage: {path} imports {theirs}"
        elif here in STAGES:
            assert theirs <= set(STAGES[: STAGES.index(here)]), f"{path} imports {theirs}"
        elif here == "beatmap":
            assert theirs <= BEATMAP_MAY_IMPORT, f"{path} imports {theirs}"
        else:
            assert here in LAST | {"__init__"}, f"core/{relative} has no place in the line"


def test_core_prints_nothing_and_exits_never() -> None:
    for path in sources("core") + sources("kernels"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "exit", "quit"}, f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("sys", "exit"), f"{path}:{node.lineno}"


def test_every_package_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {"mgen"}
    for layer in LAYERS:
        for init in (ROOT / layer).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if parts != ("cli", "mgen"):
                found.add(".".join(("mgen", *parts)))
    assert listed == found


def test_every_data_file_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]
    for layer in ("core", "cli", "kernels"):
        for path in (ROOT / layer).rglob("*"):
            if path.is_dir() or path.suffix in {".py", ".pyc"}:
                continue
            package = path.parent
            while not (package / "__init__.py").exists():
                package = package.parent
            parts = package.relative_to(ROOT).parts
            name = "mgen" if parts == ("cli", "mgen") else ".".join(("mgen", *parts))
            inside = path.relative_to(package)
            assert any(inside.match(p) for p in patterns.get(name, ())), f"{path} is not packaged"


def test_the_root_holds_only_what_the_house_allows() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        return  # an sdist has no git
    top = {name.split("/")[0] for name in tracked.stdout.split("\0") if name}
    allowed = {"pyproject.toml", "cli", "core", "kernels", "tests", "examples", "README.md"}
    allowed |= {"Makefile", "LICENSE", "CHANGELOG.md"}
    assert {n for n in top if not n.startswith(".")} <= allowed


def commands() -> list[str]:
    from mgen.cli.app import app

    return [c.name for c in app.registered_commands if c.name]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, json, io, contextlib\n"
        "from mgen.cli.app import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    with contextlib.redirect_stdout(io.StringIO()): code = main(words)\n"
        "    assert code == 0, (words, code)\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))\n"
    )
    words = [["--help"], ["--version"], *([c, "--help"] for c in commands())]
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(json.loads(run.stdout.splitlines()[-1]))


def test_every_command_shows_examples() -> None:
    from mgen.cli.app import app

    for command in app.registered_commands:
        assert command.callback is not None
        text = command.callback.__doc__ or ""
        assert f"mgen {command.name}" in text, f"{command.name} --help shows no example"
