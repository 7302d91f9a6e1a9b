"""Previews and the audition sheet: what is heard is what an edit would write."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from edit_songs import ACTION, NoiseWriter, cached, edit, write_song

from mgen.core.editing.audition import (
    AROUND_S,
    PAGE,
    SOUNDS,
    Described,
    contexts_of,
    write_sheet,
)
from mgen.core.editing.pipeline import preview
from mgen.core.editing.request import EditRequest
from mgen.core.errors import OutputExistsError, UsageError
from mgen.core.store import Takes

ACTIONS = [Described(name="louder <b>"), Described(name="more C, less E", detail="12 uses")]


class Writer(NoiseWriter):
    actions = 2


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return write_song(tmp_path / "song.wav", 12.6, 22050, 2, subtype="PCM_16")


def test_a_preview_is_the_edit_with_the_song_around_it(song: Path) -> None:
    request = EditRequest(bars=(2, 3), action=ACTION)
    with cached(song) as store:
        (row,) = store.songs()
        heard = preview(store, row, request, NoiseWriter(), around_s=1.0)
        same = preview(store, row, EditRequest(bars=(2, 3), strength=0.0), NoiseWriter())
        assert not Takes(store).numbers(row)  # nothing is kept
    (report,) = edit(song, "3-4")
    whole_NC, rate = soundfile.read(report.path, dtype="float32")
    first = round((report.spans_s[0][0] - 1.0) * rate)
    expected_NC = whole_NC[first : first + heard.samples_CN.shape[1]]
    assert heard.rate == rate
    assert np.array_equal(heard.samples_CN.T, expected_NC)
    source_NC, _ = soundfile.read(song, dtype="float32")
    first = round((report.spans_s[0][0] - 2.0) * rate)
    assert np.array_equal(same.samples_CN.T, source_NC[first : first + same.samples_CN.shape[1]])


def test_contexts_are_spread(tmp_path: Path) -> None:
    long, short = (write_song(tmp_path / f"{s}.wav", s, 16000, 1) for s in (24.5, 3.0))
    with cached(long) as store:
        found = contexts_of(store, 3)
        assert [c.bars for c in found] == [(2, 3), (5, 6), (8, 9)]
        assert {c.song.name for c in found} == {"24.5"}
    with cached(short) as store, pytest.raises(UsageError, match="2 bars on end"):
        contexts_of(store, 2)


def test_the_sheet_has_every_action_on_every_context(song: Path, tmp_path: Path) -> None:
    folder, writer = tmp_path / "sheet", Writer()
    with cached(song) as store:
        contexts = contexts_of(store, 2)
        steps = write_sheet(store, writer, contexts, ACTIONS, folder)
        for _ in range(3):  # and then it is interrupted
            next(steps)
        steps.close()
        assert not (folder / PAGE).exists()
        begun = len(writer.asked)
        list(write_sheet(store, writer, contexts, ACTIONS, folder))
        assert (begun, len(writer.asked)) == (1, 4)  # 2 actions x 2 contexts, none of them twice
        list(write_sheet(store, writer, contexts, ACTIONS, folder))
        assert len(writer.asked) == 4
        list(write_sheet(store, writer, contexts[:1], ACTIONS[:1], folder))
    text = (folder / PAGE).read_text("utf-8")
    named = re.findall(rf'src="{SOUNDS}/([0-9a-f]+\.mp3)"', text)
    assert len(named) == len(set(named)) == 2
    assert {p.name for p in (folder / SOUNDS).iterdir()} == set(named)  # what is not on it is gone
    assert "louder &lt;b&gt;" in text
    assert text.count("data:image/png;base64,") == 2
    heard = soundfile.info(folder / SOUNDS / named[0])
    assert (heard.samplerate, heard.channels) == (22050, 2)
    assert heard.duration == pytest.approx(2 * 2.0 + 2 * AROUND_S, abs=0.1)


def test_another_page_is_not_replaced(song: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / PAGE).write_text("my page", "utf-8")
    with cached(song) as store:
        contexts = contexts_of(store, 1)
        with pytest.raises(OutputExistsError, match="no audition sheet"):
            list(write_sheet(store, Writer(), contexts, ACTIONS, folder))
        with pytest.raises(UsageError, match="lies in a store"):
            list(write_sheet(store, Writer(), contexts, ACTIONS, tmp_path / "song.mgen.zarr/x"))
        assert (folder / PAGE).read_text("utf-8") == "my page"
        list(write_sheet(store, Writer(), contexts, ACTIONS, folder, force=True))
    assert "my page" not in (folder / PAGE).read_text("utf-8")
