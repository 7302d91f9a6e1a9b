"""Time whole commands on one song: seconds, processor seconds and peak memory of each.

    python examples/measure.py SONG [--runs 3]

Start-up is part of every figure; the median of the runs is printed. Peak memory is the largest
single process of the command (Linux).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path


def run(words: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall seconds, processor seconds (children included), peak MB of one command."""
    begin = time.perf_counter()
    child = os.posix_spawn(
        sys.executable, [sys.executable, "-m", "mgen", *words], {**os.environ},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.fspath(folder / "stderr"), os.O_WRONLY | os.O_CREAT, 0o644),
        ],
    )  # fmt: skip
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"mgen {' '.join(words)}: {(folder / 'stderr').read_text()}")
    wall = time.perf_counter() - begin
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    import soundfile

    seconds = soundfile.info(given.song).duration
    print(f"{given.song.name}: {seconds:.0f} s of music, {os.cpu_count()} cores")
    print(f"{'command':58} {'wall s':>7} {'cpu s':>7} {'peak MB':>8} {'x real time':>12}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song, store = folder / f"song{given.song.suffix}", folder / "s.zarr"
        shutil.copy(given.song, song)
        commands = [
            ["--help"],
            ["filter", str(song), "-o", str(store), "--no-resume", "--jobs", "1"],
            ["segment-bars", str(store), "--no-resume", "--jobs", "1"],
            ["info", str(store)],
            ["check", str(store), "--deep"],
            ["beatmap", str(song), "--difficulty", "expert-plus", "--force"],
            ["beatmap", str(song), "--difficulty", "all", "--force"],
        ]
        for words in commands:
            figures = [run(words, folder) for _ in range(given.runs)]
            wall, cpu, peak = (statistics.median(column) for column in zip(*figures, strict=True))
            shown = " ".join(w.replace(name + "/", "") for w in words)
            speed = "" if words == ["--help"] else f"{seconds / wall:12.0f}"
            print(f"mgen {shown:53} {wall:7.2f} {cpu:7.2f} {peak:8.0f} {speed}")


if __name__ == "__main__":
    main()
