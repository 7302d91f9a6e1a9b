"""Measure beat maps: density, patterns, findings, and distance from human charts.

    python examples/evaluate_maps.py MAP... [--json] [--characteristic Standard]

A map is a zip or a folder. Per difficulty: notes and swings per second, share of doubles, onsets
by grid, findings per 1000 notes by rule, the Jensen-Shannon divergence of four histograms from
modern human charts (in bits, `*` where outside the human range), distinct note states, the share
of different runs of four notes, and the share of red notes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from mgen.core.beatmap.chart import BeatMap, Chart
from mgen.core.beatmap.findings import check_chart, check_map
from mgen.core.beatmap.formats import read_map
from mgen.core.beatmap.histograms import figures, inside_human_range
from mgen.core.errors import MgenError


def measure_chart(chart: Chart, bpm: float, duration_s: float | None) -> dict[str, Any]:
    """All figures of one difficulty."""
    found = check_chart(chart, bpm, duration_s)
    per_1000 = 1000.0 / max(len(chart.notes), 1)
    rules = Counter((f.severity, f.rule) for f in found)
    return {
        "difficulty": chart.difficulty.value,
        **asdict(figures(chart, bpm)),
        "errors": sum(f.severity == "error" for f in found),
        "errors_but_parity": sum(f.severity == "error" and f.rule != "Parity error" for f in found),
        "findings_per_1000": {
            f"{severity}: {rule}": round(count * per_1000, 2)
            for (severity, rule), count in sorted(rules.items())
        },
        "human_range": {m: asdict(c) for m, c in inside_human_range(chart).items()},
    }


def measure_map(path: str, level: BeatMap, characteristic: str) -> dict[str, Any]:
    """All figures of one map."""
    seconds = level.song_samples / level.song_rate if level.song_samples else None
    charts = [c for c in level.charts if c.characteristic == characteristic]
    return {
        "path": path,
        "bpm": level.bpm,
        "level_findings": [
            f"{f.severity}: {f.rule}: {f.message}" for f in check_map(level) if not f.difficulty
        ],
        "charts": [measure_chart(chart, level.bpm, seconds) for chart in charts],
    }


def show(measured: dict[str, Any]) -> None:
    """Print one map for people."""
    print(f"{measured['path']}  {measured['bpm']:g} BPM")
    for line in measured["level_findings"]:
        print(f"  {line}")
    for c in measured["charts"]:
        grid = " ".join(f"{k} {100 * v:.1f}" for k, v in c["grid"].items() if v >= 0.0005)
        jsd = "  ".join(
            f"{m} {r['jsd']:.3f}{'' if r['inside'] else '*'}" for m, r in c["human_range"].items()
        )
        print(
            f"  {c['difficulty']:11} {c['notes']:5} notes  NPS {c['nps']:.2f}  SPS {c['sps']:.2f}"
            f"  doubles {c['doubles']:.2f}  states {c['distinct_states']}"
            f"  4-grams {c['unique_sequences']:.2f}  red {c['red']:.3f}"
            f"  errors {c['errors']} ({c['errors_but_parity']} but parity)"
        )
        print(f"              grid %: {grid}")
        print(f"              JSD bits: {jsd}")
        listed = "  ".join(f"{rule} {n:g}" for rule, n in c["findings_per_1000"].items())
        print(f"              per 1000 notes: {listed or 'nothing found'}")


def summary(maps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per difficulty over all maps: medians, and how many histograms are inside."""
    rows = []
    for name in ("Easy", "Normal", "Hard", "Expert", "ExpertPlus"):
        charts = [c for m in maps for c in m["charts"] if c["difficulty"] == name]
        if not charts:
            continue
        cells = [r["inside"] for c in charts for r in c["human_range"].values()]
        notes = sum(c["notes"] for c in charts)
        totals: Counter[str] = Counter()
        for c in charts:
            for rule, share in c["findings_per_1000"].items():
                totals[rule] += share * c["notes"] / max(notes, 1)
        rows.append({
            "difficulty": name,
            "charts": len(charts),
            "notes": notes,
            **{k: statistics.median(c[k] for c in charts)
               for k in ("nps", "sps", "doubles", "distinct_states", "unique_sequences", "red")},
            "charts_without_errors": sum(c["errors"] == 0 for c in charts),
            "charts_without_errors_but_parity": sum(c["errors_but_parity"] == 0 for c in charts),
            "histograms_inside": sum(cells),
            "histograms": len(cells),
            "findings_per_1000": {r: round(n, 2) for r, n in sorted(totals.items())},
        })  # fmt: skip
    return rows


def main() -> int:
    """Measure the maps named on the command line."""
    parser = argparse.ArgumentParser(description="Measure beat maps.")
    parser.add_argument("maps", nargs="+", help="zips or folders")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--characteristic", default="Standard")
    given = parser.parse_args()
    maps, failed = [], 0
    for path in given.maps:
        try:
            maps.append(measure_map(path, read_map(path), given.characteristic))
        except (MgenError, OSError) as error:
            print(f"evaluate_maps: {error}", file=sys.stderr)
            failed = 1
            continue
        if not given.json:
            show(maps[-1])
    rows = summary(maps)
    if given.json:
        print(json.dumps({"maps": maps, "summary": rows}, ensure_ascii=False, allow_nan=False))
        return failed
    for r in rows:
        print(
            f"{r['difficulty']:11} {r['charts']} charts {r['notes']} notes, medians: "
            f"NPS {r['nps']:.2f} SPS {r['sps']:.2f} doubles {r['doubles']:.2f} "
            f"states {r['distinct_states']:g} 4-grams {r['unique_sequences']:.2f}; "
            f"without errors {r['charts_without_errors']} "
            f"(but parity {r['charts_without_errors_but_parity']}), "
            f"histograms inside {r['histograms_inside']}/{r['histograms']}"
        )
        listed = "  ".join(f"{rule} {n:g}" for rule, n in r["findings_per_1000"].items())
        print(f"            pooled per 1000 notes: {listed or 'nothing found'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
