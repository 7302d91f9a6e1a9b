"""What `mgen edit` says of takes: the files that were written, the list, the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgen.cli import output

if TYPE_CHECKING:
    from mgen.cli.edit_session import Session
    from mgen.core.editing.files import EditReport


def line(report: EditReport) -> str:
    """A take in one line for stderr."""
    how = "is there already" if report.known and not report.written else "written"
    same = ", every other sample as it was" if report.outside == 0 else ""
    changed = f", {report.changed} of {report.samples} samples changed{same}" if same else ""
    return f"take {report.number}: bars {report.bars}, {report.seconds:.2f} s, {how}{changed}"


def print_reports(session: Session, reports: Sequence[EditReport], as_json: bool) -> None:
    """Print the files, or with --json their figures too."""
    figures = {
        "store": session.store.where, "song": session.row.name,
        "takes": [
            {
                "take": r.number, "path": str(r.path), "on": r.parent, "bars": r.bars,
                "known": r.known, "written": r.written, "seconds": round(r.seconds, 6),
                "spans_s": [[round(a, 6), round(b, 6)] for a, b in r.spans_s],
                "samples": r.samples, "changed": r.changed, "outside": r.outside,
                "seams_LU": [[None if x is None else round(x, 3) for x in s] for s in r.seams_LU],
            }
            for r in reports
        ],
    }  # fmt: skip
    output.result([r.path for r in reports], figures, as_json)


def print_list(session: Session, as_json: bool) -> None:
    """The takes are the result: a line each on stdout."""
    from mgen.core.editing.spans import describe_bars
    from mgen.core.store import Takes

    takes = Takes(session.store)
    head = takes.head(session.row)
    rows = []
    for number in takes.numbers(session.row):
        take = takes.read(number, session.row, sound=False)
        mix = ",".join(f"{a}:{w:g}" if len(take.action) > 1 else f"{a}" for a, w in take.action)
        rows.append({
            "take": number, "current": number == head, "on": take.parent,
            "bars": describe_bars(take.bars), "action": mix or ("like" if "like" in take.settings
            else ""), "strength": take.strength, "seed": take.seed, "candidate": take.candidate,
            "palette": take.palette,
        })  # fmt: skip
    if as_json:
        figures = {"song": session.row.name, "head": head, "takes": rows}
        output.result([session.store.where], figures, as_json)
        return
    for row in rows:
        mark = "*" if row["current"] else " "
        words = f"bars {row['bars']}, action {row['action'] or '-'}, strength {row['strength']:g}"
        on = f", on {row['on']}" if row["on"] else ""
        print(f"{mark} {row['take']}: {words}, seed {row['seed']}.{row['candidate']}{on}")
    if not rows:
        output.say(f"{session.store.where}: '{session.row.name}' has no takes yet")


def draw(plot: Path, session: Session, report: EditReport) -> None:
    """Draw a take and what it replaces, with two bars around it."""
    from mgen.core.audio import read_audio
    from mgen.core.editing.source import find_source
    from mgen.core.pictures import draw_edit

    table = session.store.bars(session.row.index)
    bar_s = float(table.end_s[0] - table.start_s[0])
    start_s = max(0.0, report.spans_s[0][0] - 2 * bar_s)
    length_s = report.spans_s[-1][1] + 2 * bar_s - start_s
    before, after = (
        read_audio(path, start_s=start_s, duration_s=length_s)
        for path in (find_source(session.store, session.row, session.source), report.path)
    )
    draw_edit(
        plot,
        before.mono(),
        after.mono(),
        before.rate,
        report.spans_s,
        start_s=start_s,
        title=f"{session.row.name}, bars {report.bars}",
    )
    output.say(f"drew {plot}")
