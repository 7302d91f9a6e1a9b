"""Time an edit: python examples/measure_edit.py SONG [--bars 8-11] [--action 17].

Whole commands in fresh processes, cold (no store beside the song) and warm (another action of the
same song): seconds, seconds of processor (those say the same on a machine that others use) and peak
memory; then the stages of a cold one in this process. MGEN_CACHE keeps everything in a temporary
folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def command(song: Path, folder: Path, bars: str, action: int) -> tuple[float, float, float]:
    """Seconds, those of processor, and peak memory in MB, of one `mgen edit`."""
    words = [sys.executable, "-m", "mgen", "edit", str(song), "--bars", bars, "--action",
             str(action), "-o", str(folder / f"{action}.wav")]  # fmt: skip
    began, worked = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, env={**os.environ, "MGEN_CACHE": str(folder)}, check=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - worked.ru_utime - worked.ru_stime
    return seconds, processor, after.ru_maxrss / 1024


@contextmanager
def timed(name: str) -> Iterator[None]:
    began, worked = time.perf_counter(), time.process_time()
    yield
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    print(f"  {name:28} {seconds:6.2f} s, {processor:6.2f} s of processor")


def stages(song: Path, folder: Path, bars: str, action: int) -> None:
    with timed("imports"):
        from mgen.core.audio import sha256_file
        from mgen.core.editing import EditRequest, Target, edit_song, parse_action, parse_bars
        from mgen.core.editing.cache import add_song, open_cache, prepare
        from mgen.core.editing.writer import load_model_writer
    with timed("models"):
        writer = load_model_writer(None)
    os.environ["MGEN_CACHE"] = str(folder)
    with timed("read and judge the song"):
        store = open_cache(song, sha256_file(song))
        row = add_song(store, song, sha256_file(song))
    steps = prepare(store, row, writer.tokenizer)
    name = next(steps, None)
    while name is not None:
        with timed(name):
            name = next(steps, None)
    request = EditRequest(
        bars=parse_bars(bars, len(store.bars(row.index))), action=parse_action(str(action))
    )
    edit = edit_song(store, row, request, writer, Target(song=song, out=folder / "stages.wav"))
    next(edit)
    with timed("bars are written"):
        next(edit)
    with timed("fitted and put into the file"):
        (report,) = edit
    print(f"  of {row.duration_s:.0f} s, {report.seconds:.2f} s were edited")
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", type=Path)
    parser.add_argument("--bars", default="8-11")
    parser.add_argument("--action", type=int, default=17)
    options = parser.parse_args()
    song = options.song.absolute()
    with tempfile.TemporaryDirectory() as folder:
        for name, action in (("cold", options.action), ("warm", options.action + 1)):
            seconds, processor, memory = command(song, Path(folder), options.bars, action)
            print(
                f"{name}: {seconds:.2f} s, {processor:.2f} s of processor, {memory:.0f} MB",
                flush=True,
            )
    print("stages of a cold one:")
    with tempfile.TemporaryDirectory() as folder:
        stages(song, Path(folder), options.bars, options.action)


if __name__ == "__main__":
    main()
