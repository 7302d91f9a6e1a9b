"""What `mgen beatmap` says of a map that it has made: a table for people, figures for --json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgen.cli import output

if TYPE_CHECKING:
    from mgen.core.beatmap.findings import Finding
    from mgen.core.beatmap.mapping import Mapped

UNSURE = 0.5
"""Confidence below which a person should listen before anything else."""


def report(path: Path, mapped: Mapped, song: str) -> dict[str, Any]:
    """Print the table of a map on stderr, and give the same figures for --json."""
    from mgen.core.beatmap.findings import check_map
    from mgen.core.beatmap.speed import half_jump_beats

    level, timing = mapped.beat_map, mapped.timing
    findings = check_map(level)
    rows = []
    for chart in level.charts:
        clock = chart.time_map(level.bpm)
        times = [clock.to_seconds(n.beat) for n in chart.notes]
        span_s = max(times) - min(times) if len(times) > 1 else 0.0
        name = chart.difficulty.value
        if chart.characteristic != "Standard":
            name += f" {chart.characteristic}"
        reaction = half_jump_beats(level.bpm, chart.njs, chart.njs_offset) * 60.0 / level.bpm
        rows.append(
            {
                "difficulty": name, "notes": len(chart.notes),
                "nps": round(len(chart.notes) / span_s, 2) if span_s else 0.0,
                "njs": chart.njs, "njs_offset": chart.njs_offset,
                "reaction_ms": round(1000 * reaction), "bombs": len(chart.bombs),
                "walls": len(chart.walls), "lights": len(chart.lights),
                "findings": _counted([f for f in findings if f.difficulty == name]),
            }
        )  # fmt: skip
    figures = {
        "song": song, "path": str(path), "title": level.title, "artist": level.artist,
        "bpm": timing.bpm, "offset_s": round(timing.offset_s, 6),
        "confidence": round(timing.confidence, 3), "tempo_changes": len(timing.changes),
        "lead_s": round(mapped.lead.seconds, 6), "lead_beats": mapped.lead.beats,
        "own_audio": mapped.own_bytes, "preview_s": level.preview_start_s,
        "findings": _counted([f for f in findings if not f.difficulty]), "difficulties": rows,
    }  # fmt: skip
    _print_table(figures)
    if timing.confidence < UNSURE and not timing.given:
        output.warn(
            f"{song}: the tempo is a guess; listen to the map, and if it is off give --bpm and"
            " --offset"
        )
    return figures


def _counted(findings: list[Finding]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity] = counts.get(finding.severity, 0) + 1
    return counts


def _print_table(figures: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    changes = f", {figures['tempo_changes']} tempo changes" if figures["tempo_changes"] else ""
    lead = f"{figures['lead_s']:.3f} s of silence before it" if figures["lead_s"] else "no padding"
    console = output.console()
    console.print(
        f"[bold]{escape(figures['title'])}[/bold]  {figures['bpm']:.3f} BPM{changes}"
        f" (confidence {figures['confidence']:.2f}), first downbeat at {figures['offset_s']:.3f} s,"
        f" {lead}"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("difficulty")
    for name in ("notes", "NPS", "NJS", "reaction", "bombs", "walls", "lights"):
        table.add_column(name, justify="right")
    table.add_column("findings")
    for row in figures["difficulties"]:
        found = ", ".join(f"{n} {kind}" for kind, n in row["findings"].items()) or "none"
        table.add_row(
            row["difficulty"], str(row["notes"]), f"{row['nps']:.2f}", f"{row['njs']:g}",
            f"{row['reaction_ms']} ms", str(row["bombs"]), str(row["walls"]), str(row["lights"]),
            found,
        )  # fmt: skip
    console.print(table)
