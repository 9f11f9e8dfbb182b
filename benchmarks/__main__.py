"""Measures the lines of the budget and says of each whether it holds; ends with 1 if one does not.

With `--quick` it is a guard for machines that have other things to do: of less, only beyond twice a budget, and what seems to be
beyond that is measured again before it is said.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import sqlite3
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from . import against_peers, concurrency, define, growth, live_progress, loop_lag, overhead, resume, startup, storage
from .measure import Group, Line, Options
from .profiling import WORKLOADS, profile

GROUPS: tuple[Group, ...] = (
    overhead.GROUP,
    define.GROUP,
    concurrency.GROUP,
    loop_lag.GROUP,
    live_progress.GROUP,
    startup.GROUP,
    storage.GROUP,
    resume.GROUP,
    growth.GROUP,
    against_peers.GROUP,
)
HEADER = f"{'line':<26} {'budget':<36} {'yardstick':>12} {'ours':>12} {'unit':<9} {'ratio':>7} {'half of the rounds':<18} holds"


TRIES = 3
"""How often `--quick` measures a line that seems to be beyond twice its budget: what is really slower is so each time."""


def chosen_lines(wanted: list[str] | None, quick: bool = False) -> set[str]:
    """The names of the lines that `--only` means: names of lines or groups, or patterns of them (`threads-*`).

    Without it, all lines; but nothing that only shows where others stand if it is to be quick.

    Raises:
        SystemExit: a name means nothing.
    """
    if wanted is None:
        left_out = set(overhead.CONTEXT_LINES) if quick else set[str]()
        return {name for group in GROUPS for name in group.lines} - left_out
    found: set[str] = set()
    for pattern in wanted:
        matching = {
            name
            for group in GROUPS
            for name in group.lines
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(group.name, pattern)
        }
        if not matching:
            sys.exit(f"There is no line {pattern!r}; see --list.")
        found |= matching
    return found


def machine() -> dict[str, str | int | None]:
    """Where this was measured, as far as it matters to the figures."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def figure(value: float | None) -> str:
    """A number for the table, with as many digits as mean something."""
    if value is None:
        return ""
    return f"{value:,.{1 if value >= 10 else 2 if value >= 0.1 else 3}f}"


def verdict(line: Line, quick: bool) -> str:
    """The last column."""
    holds = line.holds(quick)
    if holds is None:
        return "" if line.limit is None else "not measured"
    return "yes" if holds else "NO"


def told(line: Line, quick: bool) -> str:
    """A line of the table as text."""
    figures = f"{figure(line.yardstick):>12} {figure(line.ours):>12} {line.unit:<9} {figure(line.ratio):>7}"
    spread = "{:.2f} to {:.2f}".format(*line.spread) if line.spread else ""
    note = f"\n{'':<26} {line.note}" if line.note else ""
    return f"{line.name:<26} {line.budget:<36} {figures} {spread:<18} {verdict(line, quick)}{note}"


def measured(options: Options, chosen: set[str]) -> list[Line]:
    """Measure the chosen lines, and print each as it comes."""
    print(HEADER)
    lines: list[Line] = []
    for group in GROUPS:
        if chosen.isdisjoint(group.lines):
            continue
        for line in group.run(options, chosen):
            lines.append(confirmed(line, group, options) if options.quick else line)
            print(told(lines[-1], options.quick), flush=True)
    return lines


def confirmed(line: Line, group: Group, options: Options) -> Line:
    """The line, or, if it seems to be broken, what it comes to when it is measured again."""
    for tries in range(2, TRIES + 1):
        if line.holds(options.quick) is not False:
            break
        again = next(iter(group.run(options, {line.name})))
        line = replace(again, note="; ".join(filter(None, [again.note, f"measured {tries} times"])))
    return line


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 1 if a line does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything; fails only beyond twice a budget")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these lines or groups only; patterns such as 'threads-*' too")
    parser.add_argument("--list", action="store_true", help="name the lines, by group")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (default 5)")
    parser.add_argument("--growth-max", type=int, default=1_000_000, metavar="N", help="the most tasks of a growth run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there as well")
    parser.add_argument(
        "--profile", nargs="?", const="chain", choices=sorted(WORKLOADS), help="where one workload spends its time"
    )
    given = parser.parse_args(arguments)
    if given.list:
        for group in GROUPS:
            print(f"{group.name}: {' '.join(group.lines)}")
        return 0
    if given.profile:
        print(profile(given.profile))
        return 0
    options = Options(given.quick, max(1, given.rounds), given.growth_max)
    chosen = chosen_lines(given.only, given.quick)
    begin = time.perf_counter()
    print(", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    if options.quick:
        print(
            f"--quick: less of everything; a line holds up to twice its budget, and is measured {TRIES} times before it does not"
        )
    lines = measured(options, chosen)
    broken = [line.name for line in lines if line.holds(options.quick) is False]
    told_budget = "twice its budget" if options.quick else "its budget"
    print(f"{time.perf_counter() - begin:.0f} s; beyond {told_budget}: {', '.join(broken) or 'none'}")
    if given.json:
        report = {
            "machine": machine(),
            "options": asdict(options),
            "lines": [{**asdict(line), "holds": line.holds(options.quick)} for line in lines],
        }
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
