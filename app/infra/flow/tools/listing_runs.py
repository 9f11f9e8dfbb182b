"""The command `list`: which runs a store has, newest first. Must not know what is in a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from .. import ExecutionState, RunNotFoundError, Store, StoreError, WorkflowRun
from .failures import note, say
from .json_text import json_text
from .opening import open_store, outermost_run
from .terminal import Style, columns_of, cut, padded, safe, width_of
from .units import between, masked, moment_text, span_text

PIPED_COLUMNS = 1000
"""How wide a line may be where no terminal breaks it."""


@dataclass(frozen=True)
class Listed:
    """A run as the list shows it."""

    run: WorkflowRun
    created: datetime
    owner: str | None
    """Who drives it."""

    @property
    def state(self) -> str:
        """Its state; `interrupted` where it seems to run and nobody drives it."""
        return state_of(self.run, self.owner)


def list_command(options: argparse.Namespace) -> int:
    """See `night-batch list --help`."""
    with open_store(options) as store:
        now = datetime.now(timezone.utc)
        found = chosen_runs(
            store,
            options.flow_name,
            [ExecutionState(state) for state in options.state or ()],
            None if options.newer_than is None else moment_ago(now, options.newer_than),
            None if options.older_than is None else moment_ago(now, options.older_than),
            options.limit or None,
            options.all,
        )
        if options.json:
            say([json_text([run_data(one.run, one.created, one.owner) for one in found])])
            return 0
        if not found:
            asked = any((options.flow_name, options.state, options.newer_than, options.older_than))
            note(f"There are no {'such ' if asked else ''}runs in {store!r}.")
            return 0
        say(run_lines(found, Style(sys.stdout), columns_of(sys.stdout, PIPED_COLUMNS), now))
        if options.limit and len(found) == options.limit and sys.stdout.isatty():
            note(f"These are the newest {options.limit:,}. All: --limit 0")
    return 0


def chosen_runs(
    store: Store,
    flow_name: str | None = None,
    states: Sequence[ExecutionState] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = 20,
    subflows_too: bool = False,
) -> list[Listed]:
    """Runs, newest first.

    Args:
        store: where they are.
        flow_name: those of this flow alone.
        states: those in one of these states alone.
        since: those made at this moment or later.
        until: those made before this moment.
        limit: so many at most; None is all.
        subflows_too: the runs of subflows, too.
    """
    state = states[0] if len(states) == 1 else None
    fetched = None if limit is None else 4 * limit
    while True:  # a store tells them by flow and state alone; of a large one not all are read to show twenty
        runs = store.get_all_runs(include_tasks=False, state=state, flow_name=flow_name, limit=fetched)
        found = list(_fitting(store, runs, states, since, until, limit, subflows_too))
        if fetched is None or len(runs) < fetched or (limit is not None and len(found) >= limit):
            return found
        if since is not None and runs and (created := created_at(store, runs[-1].id)) is not None and created < since:
            return found
        fetched *= 5


def _fitting(
    store: Store,
    runs: Sequence[WorkflowRun],
    states: Sequence[ExecutionState],
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    subflows_too: bool,
) -> Iterator[Listed]:
    number = 0
    for run in runs:
        if (states and run.state not in states) or (run.parent_run_id is not None and not subflows_too):
            continue
        created = created_at(store, run.id)
        if created is None or (until is not None and created >= until):
            continue
        if since is not None and created < since:
            return
        yield Listed(run, created, owner_of(store, run))
        number += 1
        if number == limit:
            return


def moment_ago(now: datetime, seconds: float) -> datetime:
    """The moment so many seconds ago; the beginning of time if that is longer ago than there are dates."""
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return datetime.min.replace(tzinfo=timezone.utc)


def created_at(store: Store, run_id: str) -> datetime | None:
    """When a run was made; None where it is gone meanwhile."""
    try:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=store.read_run(run_id).created)
    except RunNotFoundError:
        return None


def owner_of(store: Store, run: WorkflowRun) -> str | None:
    """Who drives a run that has not ended; None where nobody does."""
    if ExecutionState.is_terminal(run.state):
        return None
    ask = getattr(store, "owner_of", None)  # a store of somebody's own may not know
    try:
        owner = None if ask is None else ask(outermost_run(store, run.id) if run.parent_run_id is not None else run.id)
    except (StoreError, RunNotFoundError):
        return None
    return owner if isinstance(owner, str) else None


def state_of(run: WorkflowRun, owner: str | None) -> str:
    """A run's state, as people are told it."""
    is_begun = run.start_date is not None or run.state is ExecutionState.RUNNING
    return "interrupted" if owner is None and is_begun and not ExecutionState.is_terminal(run.state) else run.state.value


def run_data(run: WorkflowRun, created: datetime | None, owner: str | None) -> dict[str, Any]:
    """A run without its tasks as data for JSON; what looks like a secret among its params is masked."""
    return {
        "run_id": run.id,
        "flow_name": run.flow_name,
        "state": run.state.value,
        "interrupted": state_of(run, owner) == "interrupted",
        "driven_by": owner,
        "params": {name: masked(name, value) for name, value in run.params.items()},
        "created_at": created,
        "start_date": run.start_date,
        "end_date": run.end_date,
        "seconds": between(run.start_date, run.end_date) if ExecutionState.is_terminal(run.state) else None,
        "parent_run_id": run.parent_run_id,
        "parent_task_id": run.parent_task_id,
    }


def run_lines(found: Sequence[Listed], style: Style, columns: int, now: datetime) -> list[str]:
    """The runs as a table; ids stand in it as a whole, so that they can be taken from it."""
    rows = [_cells(one, now) for one in found]
    titles = ("run", "flow", "state", "made", "", "took")
    widths = [max(width_of(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    shown = [0, 1, 2, 3, 4, 5]
    if 2 + sum(widths) + 2 * 5 > columns:
        shown.remove(3)  # how long ago it was says enough
        titles = ("run", "flow", "state", "", "made", "took")
        widths[4] = max(widths[4], 4)
        over = 2 + sum(widths[cell] for cell in shown) + 2 * 4 - columns
        widths[1] = max(8, widths[1] - max(0, over))
    told = [style.paint("  " + "  ".join(_cell(titles[cell], cell, widths) for cell in shown).rstrip(), "dim")]
    mark = style.fitting("…", "...")
    for one, row in zip(found, rows, strict=True):
        cells = [_cell(row[cell], cell, widths, mark) for cell in shown]
        cells[0] = style.paint(cells[0], "bold")
        cells[2] = style.state(one.state, cells[2])
        told.append(f"{style.sign(one.state)} {'  '.join(cells).rstrip()}")
    return told


def _cells(one: Listed, now: datetime) -> tuple[str, ...]:
    run = one.run
    ended = run.end_date if ExecutionState.is_terminal(run.state) else now if one.owner is not None else None
    took = span_text(between(run.start_date, ended)) if run.start_date and ended else ""
    ago = max(0.0, (now - one.created).total_seconds())
    return safe(run.id), safe(run.flow_name), one.state, moment_text(one.created), f"{rough(ago)} ago", took


def rough(seconds: float) -> str:
    """A length of time by its largest unit: `40 s`, `5 min`, `3 h`, `12 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * (2 if unit == "d" else 1):
            return f"{int(seconds // size):,} {unit}"
    return f"{int(seconds)} s"


def _cell(text: str, cell: int, widths: Sequence[int], mark: str = "") -> str:
    if cell in (4, 5):
        return " " * (widths[cell] - width_of(text)) + text
    return padded(cut(text, widths[cell], mark) if cell == 1 else text, widths[cell])
