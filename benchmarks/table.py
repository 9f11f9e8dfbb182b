"""Turns reports of `python -m benchmarks --json` into the tables of docs/performance.md: `python -m benchmarks.table FILE...`.

Must not measure anything, nor know what the lines mean.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SHAPES = ("chain", "fan", "layers")


def figure(value: float | None) -> str:
    """A number as people read it."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def budgets(reports: list[dict[str, Any]]) -> str:
    """A row for each line that something is owed for: its figures in the first report, and what it came to in each of them."""
    runs = [{line["name"]: line for line in report["lines"]} for report in reports]
    rows = [
        f"| line | budget | yardstick | ours | {' | '.join(f'run {number}' for number in range(1, len(runs) + 1))} | holds |",
        f"|---|---|---|---|{'---|' * len(runs)}---|",
    ]
    for name, line in runs[0].items():
        if line["limit"] is None or name.startswith("peers-"):  # what was read from the peers' report has a table of its own
            continue
        found = [run[name] for run in runs if name in run]
        values = [figure(each["ours"] if each["ratio"] is None else each["ratio"]) for each in found]
        values += [""] * (len(runs) - len(found))
        kept = [each["holds"] for each in found]
        told = "not measured" if None in kept else "yes" if all(kept) else f"{kept.count(True)} of {len(kept)}"
        beside = f"{line['yardstick_name']} {figure(line['yardstick'])}".strip() if line["yardstick"] is not None else ""
        ours = f"{figure(line['ours'])} {line['unit']}"
        rows.append(f"| `{name}` | {line['budget']} | {beside} | {ours} | {' | '.join(values)} | {told} |")
    return "\n".join(rows)


def peers(results: dict[str, Any]) -> str:
    """A row for each engine: microseconds per task, and in brackets how many times ours that is; then what that comes to."""
    rows = [
        "| engine | durable | settings | chain | fan-out | layers | import ms | cold start ms | RSS MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for engine in results["engines"]:
        times = engine.get("times_ours") or {}
        shapes = [
            figure(engine["us_per_task"].get(shape)) + (f" ({figure(times[shape])})" if shape in times else "")
            for shape in SHAPES
        ]
        durable = "yes" if engine["durable"] else "no"
        rest = [figure(engine.get(key)) for key in ("import_ms", "cold_start_ms", "rss_mb")]
        name = f"{engine['name']} {engine.get('version', '')}".strip()
        rows.append(f"| {name} | {durable} | {engine.get('settings', '')} | {' | '.join(shapes + rest)} |")
    rows.append("")
    rows += [
        f"- {shape}: {told['text']}; {'holds' if told['holds'] else 'does not hold'}"
        for shape, told in results["verdict"].items()
    ]
    return "\n".join(rows)


def main(files: list[str]) -> None:
    """The command."""
    read = [json.loads(Path(file).read_text()) for file in files]
    if reports := [content for content in read if "lines" in content]:
        print(budgets(reports))
    for content in read:
        if "engines" in content:
            print(peers(content))


if __name__ == "__main__":
    main(sys.argv[1:])
