"""Pictures: PNGs that show what they should, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgen.cli.app import main
from mgen.core.bars import bars_from_beats
from mgen.core.beatmap.chart import RED, BeatMap, Chart, Difficulty, Note
from mgen.core.beats import fixed_beats
from mgen.core.errors import UsageError
from mgen.core.pictures import draw_bars, draw_map, envelope

RATE = 8000


def noise(seconds: float) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(int(seconds * RATE)) * 0.1).astype(np.float32)


def pixels_of(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert(mode), int)


def redness(path: Path) -> int:
    pixels = pixels_of(path, "RGB")
    return int(((pixels[..., 0] > 180) & (pixels[..., 1] < 80) & (pixels[..., 2] < 90)).sum())


def test_envelope_holds_every_sample() -> None:
    samples = noise(2.0)
    low, high = envelope(samples, 37)
    assert low.min() == samples.min()
    assert high.max() == samples.max()
    assert (low <= high).all()


def test_bars_are_drawn_where_they_are(tmp_path: Path) -> None:
    few = bars_from_beats(fixed_beats(12.0, 60.0), 12.0)
    many = bars_from_beats(fixed_beats(12.0, 240.0), 12.0)
    silence = np.zeros(12 * RATE, np.float32)
    white = []
    for grid in (few, many):
        path = draw_bars(tmp_path / "bars.png", silence, RATE, grid)
        white.append(int((pixels_of(path, "L")[40:300, 100:-40] > 180).sum()))
    assert white[1] > 2 * white[0] > 0


def test_notes_are_drawn_in_their_colour(tmp_path: Path) -> None:
    def drawn(notes: tuple[Note, ...]) -> int:
        chart = Chart(difficulty=Difficulty.HARD, njs=15, notes=notes)
        level = BeatMap(title="t", bpm=120, charts=(chart,), preview_start_s=0.0)
        return redness(draw_map(tmp_path / "map.png", noise(8.0), RATE, level))

    assert drawn(()) == 0
    one = drawn((Note(4.0, 1, 0, RED, 1),))
    assert drawn((Note(4.0, 1, 0, RED, 1), Note(8.0, 2, 1, RED, 8))) > one > 20
    assert drawn((Note(400.0, 1, 0, RED, 1),)) == 0  # after the stretch that is drawn


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no difficulty"):
        draw_map(tmp_path / "x.png", noise(1.0), RATE, BeatMap(title="t", bpm=120))
    grid = bars_from_beats(fixed_beats(4.0, 120.0), 4.0)
    with pytest.raises(UsageError, match="nothing to draw"):
        draw_bars(tmp_path / "x.png", noise(4.0), RATE, grid, start_s=9.0)
    assert list(tmp_path.iterdir()) == []


def test_info_draws_a_song_and_keeps_what_is_there(
    grid_song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "bars.png"
    assert main(["info", str(grid_song), "--plot", str(plot)]) == 0
    assert pixels_of(plot, "L").shape[1] > 800
    assert "drew" in capsys.readouterr().err
    before = plot.read_bytes()
    assert main(["info", str(grid_song), "--plot", str(plot)]) == 1
    assert "--force" in capsys.readouterr().err
    assert plot.read_bytes() == before
    assert main(["info", str(grid_song), "--plot", str(tmp_path / "bars.jpg")]) == 2
