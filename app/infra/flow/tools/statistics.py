"""The command `stats`: how long tasks take and how often they succeed, over the latest runs.

What there is to count is counted by `durations`; this room shows it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from .. import Store
from .durations import FlowStatistics, TaskStatistics, statistics_of_flow
from .failures import note, say
from .json_text import json_text
from .listing_runs import PIPED_COLUMNS
from .opening import open_store
from .terminal import Style, columns_of, cut, padded, safe, width_of
from .units import counted, span_text

MOST_RUNS = 5_000
"""Among so many of the newest runs flows are looked for."""
MOST_ROWS = 100
"""Tasks that a terminal is shown of each flow."""
WIDEST_NAME = 48

_SORTS: dict[str, Callable[[TaskStatistics], float]] = {
    "mean": lambda task: -(task.mean or 0.0),
    "max": lambda task: -(task.longest or 0.0),
    "total": lambda task: -task.total,
    "failures": lambda task: -(task.failed + task.cancelled + task.retries / 1e9),
}


def stats_command(options: argparse.Namespace) -> int:
    """See `night-batch stats --help`."""
    with open_store(options) as store:
        names = flow_names(store) if options.flow_name is None else [options.flow_name]
        found = [statistics_of_flow(store, name, options.runs) for name in names]
        found = [flow for flow in found if flow.runs]
        if options.json:
            say([json_text([_data(flow, options.sort) for flow in found])])
            return 0
        if not found:
            what = "" if options.flow_name is None else f" of flow {options.flow_name!r}"
            note(f"There are no runs{what} in {store!r}.")
            return 0
        style = Style(sys.stdout)
        most = MOST_ROWS if style.is_terminal else None
        for number, flow in enumerate(found):
            say([*[""] * (number > 0), *flow_lines(flow, style, columns_of(sys.stdout, PIPED_COLUMNS), options.sort, most)])
    return 0


def flow_names(store: Store) -> list[str]:
    """The flows that have runs: those of runs that are no subflow's first, the latest first."""
    runs = store.get_all_runs(include_tasks=False, limit=MOST_RUNS)
    outer = [run.flow_name for run in runs if run.parent_run_id is None]
    return list(dict.fromkeys([*outer, *(run.flow_name for run in runs)]))


def flow_lines(flow: FlowStatistics, style: Style, columns: int, sort: str | None = None, most: int | None = None) -> list[str]:
    """A flow's numbers as lines: those of its runs, and a table of its tasks.

    Args:
        flow: the numbers.
        style: how to write.
        columns: how wide a line may be; names of tasks are cut where there is no other way.
        sort: by what: `mean`, `max`, `total` or `failures`, the largest first; else in the order of the flow.
        most: so many tasks at most.
    """
    parts = [style.paint(safe(flow.flow_name), "bold"), counted(flow.runs, "run")]
    states = {"success": flow.success, "failed": flow.failed, "cancelled": flow.cancelled, "unfinished": flow.unfinished}
    parts.append(", ".join(style.state(state, f"{number:,} {state}") for state, number in states.items() if number))
    if flow.success_rate is not None:
        parts.append(_share(flow.success_rate))
    told = ["  ".join(parts)]
    if flow.mean is not None:
        spans = {"mean": flow.mean, "median": flow.p50, "95 %": flow.p95, "longest": flow.longest}
        told.append(f"  {',  '.join(f'{name} {span_text(span)}' for name, span in spans.items())}")
    if flow.read < flow.runs:
        told.append(style.paint(f"  the tasks are those of the latest {counted(flow.read, 'run')}", "dim"))
    tasks = _sorted(flow.tasks, sort)
    told += _table(tasks[:most], style, columns)
    if most is not None and len(tasks) > most:
        told.append(style.paint(f"  {len(tasks) - most:,} more tasks; all of them: --json, or into a pipe", "dim"))
    return told


def _sorted(tasks: Sequence[TaskStatistics], sort: str | None) -> list[TaskStatistics]:
    return list(tasks) if sort is None else sorted(tasks, key=_SORTS[sort])


def _table(tasks: Sequence[TaskStatistics], style: Style, columns: int) -> list[str]:
    titles = ("task", "count", "success", "failed", "skipped", "retries", "mean", "median", "95 %", "longest", "total")
    rows = [_row(task) for task in tasks]
    if not rows:
        return []
    widths = [max(width_of(row[at]) for row in (titles, *rows)) for at in range(len(titles))]
    # What is nothing everywhere takes no column.
    empty = {at for at in (3, 4, 5) if all(not row[at] for row in rows)}
    for at in (10, 7, 8, 9):  # on a narrow terminal
        if 2 + min(widths[0], 16) + sum(2 + widths[column] for column in range(1, len(titles)) if column not in empty) > columns:
            empty.add(at)
    shown = [at for at in range(1, len(titles)) if at not in empty]
    widths[0] = min(widths[0], max(WIDEST_NAME, columns - 102), max(8, columns - 2 - sum(2 + widths[at] for at in shown)))
    told: list[str] = []
    for number, row in enumerate([titles, *rows]):
        name = padded(cut(row[0], widths[0], style.fitting("…", "...")), widths[0])
        cells = [" " * (widths[at] - width_of(row[at])) + row[at] for at in shown]
        if number:
            cells = [
                style.paint(cell, "red") if at == 3 and cell.strip() else cell for at, cell in zip(shown, cells, strict=True)
            ]
        line = f"  {name}  {'  '.join(cells)}".rstrip()
        told.append(line if number else style.paint(line, "dim"))
    return told


def _row(task: TaskStatistics) -> tuple[str, ...]:
    def number(value: int) -> str:
        return f"{value:,}" if value else ""

    return (
        safe(task.task),
        f"{task.count:,}",
        "-" if task.success_rate is None else _share(task.success_rate),
        number(task.failed + task.cancelled),
        number(task.skipped),
        number(task.retries),
        span_text(task.mean),
        span_text(task.p50),
        span_text(task.p95),
        span_text(task.longest),
        span_text(task.total) if task.mean is not None else "-",
    )


def _share(rate: float) -> str:
    """`94 %`, `99.97 %`: not 100 where one failed, nor 0 where one succeeded."""
    percent = 100 * rate
    for digits in range(6):
        text = f"{percent:.{digits}f}"
        if rate in (0, 1) or float(text) not in (0.0, 100.0):
            return f"{text} %"
    return f"{percent} %"


def _data(flow: FlowStatistics, sort: str | None) -> dict[str, object]:
    tasks = [{**asdict(task), "success_rate": task.success_rate} for task in _sorted(flow.tasks, sort)]
    return {**asdict(flow), "success_rate": flow.success_rate, "tasks": tasks}
