"""The command `watch`: follows a run that another process drives, to its end, by what the store says of it.

Reads a store; changes nothing. On a terminal it shows the view that the driving process would show, else a line for each change.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TextIO

from .. import AsyncFlow, ExecutionState, RunProgress, StateChange, Store, StoreBusyError, TaskProgress
from .estimate import Estimate
from .failures import DONE, FAILED, note, say
from .live_view import frame, last_line
from .opening import find_run, open_store, outermost_run, path_of
from .program import to_type
from .progress_lines import line_of
from .screen import Screen
from .terminal import Style, columns_of, cut, rows_of, safe, takes_escapes
from .units import between

TIMES = 10
"""A pause is at least so many times as long as the look before it took: reading a large run takes a while."""
MOST_INSIDE = 200
"""So many runs of subflows are followed, line by line."""


def watch_command(options: argparse.Namespace, sleep: Callable[[float], None] = time.sleep) -> int:
    """See `night-batch watch --help`."""
    with open_store(options) as store:
        run_id = find_run(store, options.run_id)
        style = Style(sys.stdout)
        if style.is_terminal and takes_escapes(sys.stdout):
            state = _view(store, run_id, style, sys.stdout, options.interval, sleep)
        else:
            state = _lines(store, run_id, style, options.interval, sleep)
    return DONE if state == ExecutionState.SUCCESS else FAILED


def _paused(interval: float, sleep: Callable[[float], None], look: Callable[[], bool]) -> None:
    """Look again and again, with pauses, until there is nothing more to see."""
    while True:
        began = time.monotonic()
        try:
            if look():
                return
        except StoreBusyError:  # whoever writes has it just now
            pass
        sleep(max(interval, TIMES * (time.monotonic() - began)))


def _is_left_alone(store: Store, run_id: str, state: ExecutionState) -> bool:
    """Whether a run has not ended and nobody drives it."""
    if ExecutionState.is_terminal(state) or store.owner_of(outermost_run(store, run_id)) is not None:
        return False
    return not ExecutionState.is_terminal(store.read_run(run_id).state)  # it may have ended, and been given up, in between


def _advice(store: Store, run_id: str) -> str:
    return f"Nobody drives this run now. To go on with it: {to_type('resume', run_id, store=path_of(store))}"


# --- on a terminal ---


def _view(
    store: Store, run_id: str, style: Style, stream: TextIO, interval: float, sleep: Callable[[float], None]
) -> ExecutionState:
    flow = AsyncFlow(store.read_run(run_id).flow_name, store)
    estimate: Estimate | None = None
    told: set[tuple[str, datetime | None]] = set()
    seen: list[RunProgress] = []
    screen = Screen(stream)

    def look() -> bool:
        nonlocal estimate
        progress = flow.progress_of(run_id)
        seen[:] = [progress]
        for task in progress.failures:
            if (task.path, task.end_date) not in told:
                told.add((task.path, task.end_date))
                screen.above(_failure(progress, task, style) + "\n")
        if ExecutionState.is_terminal(progress.state):
            return True
        estimate = estimate or Estimate(store, progress)
        columns, rows = columns_of(stream), rows_of(stream)
        alone = _is_left_alone(store, run_id, progress.state)
        remaining = None if alone else estimate.remaining(progress)
        lines = frame(progress, columns, rows - alone, style, progress.at, remaining)
        if alone:
            advice = cut(safe(_advice(store, run_id)), columns - 3, style.fitting("…", "..."))
            lines.append(f"  {style.paint(advice, 'yellow')}")
        screen.draw(lines)
        return False

    screen.open()
    last = ""
    try:
        _paused(interval, sleep, look)
        progress = seen[0]
        last = last_line(progress, columns_of(stream), style, between(progress.start_date, progress.end_date)) + "\n"
    finally:
        screen.close(last)
    return progress.state


def _failure(progress: RunProgress, task: TaskProgress, style: Style) -> str:
    again = f" (attempt {task.attempt_number + 1})" if task.attempt_number else ""
    reason = safe(task.reason or "")
    return line_of(task.end_date or progress.at, progress.run_id, task.path, "failed", "failed", reason + again, style)


# --- in a pipe ---


def _lines(store: Store, run_id: str, style: Style, interval: float, sleep: Callable[[float], None]) -> ExecutionState:
    followed = {run_id: _Changes(store, run_id)}
    alone = False
    state = ExecutionState.SCHEDULED

    def look() -> bool:
        nonlocal alone, state
        # The state first: what is read after it has all that led there.
        state = store.read_run(run_id).state
        for inner in _inside(store, run_id):
            followed.setdefault(inner, _Changes(store, inner))
        news = [(change, of) for of in followed.values() for change in of.news()]
        news.sort(key=lambda found: found[0].at)
        say(of.line(change, run_id, style) for change, of in news)
        was, alone = alone, _is_left_alone(store, run_id, state)
        if alone and not was:
            note(_advice(store, run_id))
        return ExecutionState.is_terminal(state)

    _paused(interval, sleep, look)
    return state


def _inside(store: Store, run_id: str) -> Iterator[str]:
    """The runs of its subflows, and of theirs."""
    waiting = [run_id]
    for _ in range(MOST_INSIDE):
        if not waiting:
            return
        for child in store.list_children(waiting.pop(0)):
            yield child
            waiting.append(child)


class _Changes:
    """What became of one run, told piece by piece.

    Args:
        store: where it is.
        run_id: the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._flow_name = store.read_run(run_id).flow_name
        self._told: Counter[tuple[object, ...]] = Counter()
        self._ended = False

    def news(self) -> list[StateChange]:
        """What is new since the last time."""
        run = self._store.read_run(self._run_id)
        ended = ExecutionState.is_terminal(run.state)
        if ended and self._ended:
            return []
        self._ended = ended
        found: list[StateChange] = []
        seen: Counter[tuple[object, ...]] = Counter()
        for change in self._store.history(self._run_id):
            key = (change.at, change.task_id, change.from_state, change.to_state, change.attempt)
            seen[key] += 1
            if seen[key] > self._told[key]:
                self._told[key] += 1
                found.append(change)
        return found

    def line(self, change: StateChange, watched: str, style: Style) -> str:
        """The line of one change."""
        state = change.to_state
        path = change.task_id or ""
        if self._run_id != watched or not path:
            path = f"{self._flow_name}.{path}" if path else self._flow_name
        again = "set back" if change.from_state != "running" else "retry" if change.reason else "interrupted"
        word = "started" if state == "running" else again if state == "scheduled" else state.value
        if change.task_id is None:
            made = change.from_state == "none"
            again = "interrupted" if change.from_state == "running" else "set back"
            word = "run made" if made else f"run {again if state == 'scheduled' else word}"
        parts = [safe(change.reason)] if change.reason else []
        if change.attempt is not None and change.attempt > 1 and state != "skipped":
            parts.append(f"(attempt {change.attempt})")
        return line_of(change.at, watched, path, word, state, " ".join(parts), style)
