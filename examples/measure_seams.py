"""Measure where edits meet what stays: python examples/measure_seams.py WORK [--songs 16].

WORK/dev.zarr is as examples/evaluate_actions.py leaves it; it is only read. In each of its songs
(spread over them) four bars in the middle are written anew by an action, twice: by any of the
palette, and by one of the six softest of those that are called sparser or quieter. The
sound is that of `mgen edit`. At both ends of the bars, and at every bar line of the song as it was:

step      loudness of the 400 ms after the line minus that of the 400 ms before, in LU
moved     how far an edit's step is from the step that was there, in LU
click     largest second difference within 25 ms of the line (the crossfade lies there) over the
          root mean square of those within 200 ms, in dB
spectrum  mean difference of 40 mel bands over 400 ms, after and before, levels set equal, in dB

Absolute values; medians and 90th percentiles. `beyond` is the share of the seams where the figure
is larger than at 95 % of the song's own bar lines: 5 % if seams were bar lines like others.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mgen.core.audio import read_audio
from mgen.core.bars import bar_samples
from mgen.core.editing.loudness import SEAM_S, loudness
from mgen.core.editing.pipeline import preview
from mgen.core.editing.request import EditRequest
from mgen.core.editing.spans import Share
from mgen.core.editing.writer import ModelWriter, load_model_writer
from mgen.core.store import BarTable, SongRow, Store
from mgen.kernels.log_mel import LogMelSpec, log_mel

BARS, AROUND_S = 4, 2.0
FIGURES = ("step, LU", "moved, LU", "click, dB", "spectrum, dB")
_HEARD_LUFS = -50.0
"""Softer than this on either side, a line has no step that anybody hears."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Figures at a line, signed."""

    step_LU: float
    click_dB: float
    spectrum_dB: float


def line_at(samples_NC: npt.NDArray[np.float32], at: int, rate: int) -> Line | None:
    """The figures at a sample; None where there is not enough sound on both sides."""
    side = round(SEAM_S * rate)
    if at < side or at + side > len(samples_NC):
        return None
    before_NC, after_NC = samples_NC[at - side : at], samples_NC[at : at + side]
    before, after = (loudness(x_NC, rate) for x_NC in (before_NC, after_NC))
    if min(before, after) < _HEARD_LUFS:
        return None
    bend_NC = np.abs(np.diff(samples_NC.astype(np.float64), 2, axis=0))
    near, around = round(0.025 * rate), round(0.2 * rate)
    highest = bend_NC[at - near : at + near].max()
    usual = np.sqrt(np.square(bend_NC[at - around : at + around]).mean())
    bands_2M = np.stack([bands(x_NC, rate) for x_NC in (before_NC, after_NC)])
    bands_2M -= bands_2M.mean(1, keepdims=True)
    return Line(
        step_LU=after - before, click_dB=20.0 * float(np.log10((highest + 1e-9) / (usual + 1e-9))),
        spectrum_dB=float(np.abs(bands_2M[1] - bands_2M[0]).mean()),
    )  # fmt: skip


def bands(samples_NC: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
    """Mean power of mel bands in dB (M,), at most 80 dB below the loudest."""
    spec = LogMelSpec(rate=rate, n_fft=2048, hop=512, n_mels=40, f_max=8000.0, power=2.0, log="db")
    mono_1N = torch.from_numpy(np.ascontiguousarray(samples_NC.mean(1)))[None]
    power_M = (10.0 ** (log_mel(mono_1N, spec)[0].double() / 10.0)).mean(0)
    level_M: npt.NDArray[np.float64] = (10.0 * power_M.clamp(min=1e-12).log10()).numpy()
    return np.maximum(level_M, level_M.max() - 80.0)


def sparse_of(writer: ModelWriter) -> list[int]:
    """Actions by which bars become empty: the softest of those that are called so, or of all."""
    rows = writer.palette.rows
    named = [i for i, row in enumerate(rows) if "sparser" in row.name or "quieter" in row.name]
    order = sorted(named or range(len(rows)), key=lambda i: rows[i].effect.get("loudness_db", 0.0))
    return order[:6]


def middle_of(table: BarTable) -> int | None:
    """The first of four bars in the middle of a song that can be edited."""
    able = [
        i for i in range(2, len(table) - BARS - 2)
        if table.valid[i : i + BARS].all() and (np.diff(table.index[i : i + BARS]) == 1).all()
    ]  # fmt: skip
    return able[len(able) // 2] if able else None


def seams_of(
    store: Store, song: SongRow, writer: ModelWriter, action: int, first: int
) -> list[tuple[str, Line | None, Line | None]]:
    """Both seams of an edit: which, as edited, and as it was."""
    request = EditRequest(bars=tuple(range(first, first + BARS)), action=(Share(action, 1.0),))
    made = preview(store, song, request, writer, around_s=AROUND_S)
    edited_NC, rate = made.samples_CN.T, made.rate
    table = store.bars(song.index)
    begin, _ = bar_samples(float(table.start_s[first]), float(table.end_s[first]), rate)
    last = first + BARS - 1
    _, end = bar_samples(float(table.start_s[last]), float(table.end_s[last]), rate)
    was_NC = read_audio(song.source).samples_CN.T
    offset = begin - round(AROUND_S * rate)  # of the preview in the file
    return [
        (name, line_at(edited_NC, at - offset, rate), line_at(was_NC, at, rate))
        for name, at in (("in", begin), ("out", end))
    ]


def lines_of(song: SongRow, table: BarTable) -> list[Line]:
    """The figures at every bar line of a song."""
    sound = read_audio(song.source)
    found = [
        line_at(sound.samples_CN.T, bar_samples(float(a), float(b), sound.rate)[0], sound.rate)
        for a, b in zip(table.start_s[1:], table.end_s[1:], strict=True)
    ]
    return [line for line in found if line is not None]


def figures_of(line: Line) -> npt.NDArray[np.float64]:
    return np.array([abs(line.step_LU), np.nan, line.click_dB, line.spectrum_dB])


def table_line(
    name: str, rows_XE: npt.NDArray[np.float64], beyond_XE: npt.NDArray[np.float64]
) -> str:
    cells = []
    for e in range(len(FIGURES)):
        if not np.isfinite(rows_XE[:, e]).any():
            cells.append("")
            continue
        middle, high = np.nanpercentile(rows_XE[:, e], [50, 90])
        beyond = f", {np.nanmean(beyond_XE[:, e]):.0%} beyond" if len(beyond_XE) and e != 1 else ""
        cells.append(f"{middle:.1f} ({high:.1f}{beyond})")
    return f"| {name} ({len(rows_XE)}) | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--songs", type=int, default=16)
    options = parser.parse_args()
    writer, rng = load_model_writer(None), np.random.default_rng(0)
    sparse = sparse_of(writer)
    print("sparse actions:", ", ".join(f"{i} ({writer.palette.rows[i].name})" for i in sparse))
    own: list[npt.NDArray[np.float64]] = []
    seams: dict[str, list[npt.NDArray[np.float64]]] = {}
    beyond: dict[str, list[npt.NDArray[np.float64]]] = {}
    with Store.open(options.work / "dev.zarr") as store:
        able = [
            (song, middle) for song in store.songs() if song.kept and song.start_s == 0
            for middle in [middle_of(store.bars(song.index))] if middle is not None
        ]  # fmt: skip
        spread = np.linspace(0, len(able) - 1, min(options.songs, len(able))).round().astype(int)
        for song, first in [able[i] for i in np.unique(spread)]:
            lines_XE = np.array(
                [figures_of(line) for line in lines_of(song, store.bars(song.index))]
            )
            if len(lines_XE) < 8:
                continue
            own.extend(lines_XE)
            limit_E = np.percentile(lines_XE, 95, axis=0)
            for kind, action in (
                ("any", int(rng.integers(writer.actions))), ("sparse", int(rng.choice(sparse)))
            ):  # fmt: skip
                for side, edited, was in seams_of(store, song, writer, action, first):
                    if edited is None:
                        print(f"{song.name}: action {action}, {side}: all but silent")
                        continue
                    row_E = figures_of(edited)
                    row_E[1] = np.nan if was is None else abs(edited.step_LU - was.step_LU)
                    seams.setdefault(f"{kind}, {side}", []).append(row_E)
                    beyond.setdefault(f"{kind}, {side}", []).append(
                        np.where(np.isfinite(row_E), row_E > limit_E, np.nan)
                    )
                    print(f"{song.name}: action {action}, {side}: {np.round(row_E, 1)}", flush=True)
    print("| | " + " | ".join(FIGURES) + " |\n|---|---|---|---|---|")
    print(table_line("bar lines as they were", np.array(own), np.array([])))
    for name in sorted(seams):
        print(table_line(name, np.array(seams[name]), np.array(beyond[name])))


if __name__ == "__main__":
    main()
