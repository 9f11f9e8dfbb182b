"""Shows how runs of a flow go on, while they do: as a view that stays in place on a terminal, else a line for each event.

Knows threads and when to look; what the view looks like, and how it is kept in place, stands in `live_view` and `screen`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

from .. import (
    AsyncFlow,
    Event,
    ExecutionState,
    FlowError,
    RunFinished,
    RunInterrupted,
    RunProgress,
    RunStarted,
    TaskFailed,
    TaskRetryScheduled,
)
from .estimate import Estimate
from .live_view import frame, last_line
from .progress_lines import ProgressLines
from .screen import Screen
from .terminal import Style, columns_of, rows_of, takes_escapes
from .units import counted

FIRST = 0.25
"""Seconds to the first look. A run that is over before is not worth one; the line at its end says it all."""
OFTEN = 0.1
"""Seconds between two looks, at least."""
TIMES_AT_FIRST = 20
"""So many times as long at least after the first look, which has rooms to load, and where a failure is told: those are few."""
TIMES = 100
"""A pause is so many times as long as the look before it took: so looking takes under 1 % of the time, of large runs too."""
PATIENCE = 5.0
"""Seconds that the end waits for a picture that is being drawn, and an interruption for a reader that takes no line; the terminal
may have been stopped by Ctrl-S."""
MOST_FAILURES = 200
"""So many failures are told one by one; the counts have them all."""


def show_progress(
    flow: AsyncFlow,
    run_id: str | None = None,
    *,
    stream: TextIO | None = None,
    live: bool | None = None,
    last: bool = True,
) -> AbstractContextManager[None]:
    """Show how runs of a flow go on, while a `with` block drives them.

    On a terminal a few lines stay in place: a bar, counts, what runs and since when. Failures are written above them as they
    happen, and so is what the tasks print, in whole lines. A thread draws them; it looks at the run's state in memory, and the
    run itself does nothing for it. Elsewhere, one line is written for each event, as by `ProgressLines`.

    Args:
        flow: whose runs.
        run_id: the run; each that begins, if left out.
        stream: where to; `sys.stderr` if left out.
        live: whether as a view that stays in place; if left out, where the stream is a terminal that can do so.
        last: whether a line that says how the run ended remains of the view; False if you tell that yourself. A run that
            was interrupted leaves it anyway.
    """
    where = sys.stderr if stream is None else stream
    style = Style(where)
    if live is None:
        live = style.is_terminal and takes_escapes(where)
    return _View(flow, run_id, where, style, last) if live else _lines(flow, run_id, where)


@contextmanager
def _lines(flow: AsyncFlow, run_id: str | None, stream: TextIO) -> Iterator[None]:
    lines = ProgressLines(stream, run_id=run_id, flow_name=flow.flow_name)
    unsubscribe = flow.subscribe(lines)
    try:
        yield
    except BaseException:
        unsubscribe()
        lines.finish(PATIENCE)
        raise
    unsubscribe()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        lines.finish()
    # Else the loop must go on: the end of the program waits for them.


class _View(AbstractContextManager[None]):
    """The view of one run at a time.

    Args:
        flow: whose runs.
        run_id: the run; each that begins, if None.
        stream: the terminal.
        style: how to write there.
        last: whether a run that ends leaves a line.
    """

    def __init__(self, flow: AsyncFlow, run_id: str | None, stream: TextIO, style: Style, last: bool) -> None:
        self._flow = flow
        self._fixed = run_id
        self._stream = stream
        self._style = style
        self._leaves_line = last
        self._screen = Screen(stream)
        self._lines = ProgressLines(stream, run_id=run_id, flow_name=flow.flow_name)
        self._told: deque[Event] = deque()
        self._heard = 0
        """How many failures are told, or will be."""
        self._left_out = 0
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="night-batch progress", daemon=True)
        self._run_id: str | None = None
        self._began: RunStarted | None = None
        self._estimate: tuple[RunStarted, Estimate] | None = None
        self._last: RunProgress | None = None
        """The run as it was when it ended."""
        self._unsubscribe: Callable[[], None]

    def __repr__(self) -> str:
        return f"<progress of {self._flow.flow_name!r} {self._run_id!r}>"

    def __enter__(self) -> None:
        # Not the events that come with every task: those would cost the run something.
        kinds: tuple[Any, ...] = (RunStarted, RunFinished, RunInterrupted, TaskFailed, TaskRetryScheduled)
        self._unsubscribe = self._flow.subscribe(self._hear, *kinds)
        self._screen.open()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._unsubscribe()
        self._ending = True
        self._wake.set()
        self._thread.join(PATIENCE)
        rest = f"{counted(self._left_out, 'more failure')} not listed\n"
        self._screen.close(self._failures() + (rest if self._left_out else "") + self._ended())

    # --- in the thread that drives the run ---

    def _hear(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            if self._run_id is None and event.flow_name == self._flow.flow_name and self._fixed in (None, event.run_id):
                self._run_id, self._began, self._last = event.run_id, event, None
        elif isinstance(event, (RunFinished, RunInterrupted)):
            if event.run_id == self._run_id:
                self._last = self._flow.progress_of(event.run_id)  # now: it is still in memory
                if self._fixed is None:
                    self._run_id = None  # the next one that begins is shown
        elif self._heard < MOST_FAILURES:
            self._heard += 1
            self._told.append(event)
            self._wake.set()
        else:
            self._left_out += 1

    # --- in a thread of its own ---

    def _work(self) -> None:
        soon = due = time.monotonic() + FIRST
        times = TIMES_AT_FIRST
        while not self._ending:
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            told = bool(self._told)
            if told:
                self._screen.above(self._failures())
            now = time.monotonic()
            if (now >= due or (told and now >= soon)) and not self._ending:
                began = time.thread_time()
                self._look()
                took = time.thread_time() - began
                soon = now + max(OFTEN, TIMES_AT_FIRST * took)
                due = now + max(OFTEN, times * took)
                times = TIMES

    def _look(self) -> None:
        run_id, began = self._run_id, self._began
        if run_id is None or began is None:
            return
        try:
            progress = self._flow.progress_of(run_id)
        except FlowError:  # the store has trouble, which whoever drives the run is told
            return
        columns, rows = columns_of(self._stream), rows_of(self._stream)
        if self._estimate is None or self._estimate[0] is not began:
            self._estimate = began, Estimate(self._flow.store, progress, began.at)
        remaining = self._estimate[1].remaining(progress)
        self._screen.draw(frame(progress, columns, rows, self._style, progress.at, remaining, began.at))

    def _failures(self) -> str:
        lines: list[str] = []
        while self._told:
            lines.append(self._lines.text(self._told.popleft()))
        return "".join(f"{line}\n" for line in lines)

    def _ended(self) -> str:
        if self._last is None or self._began is None:
            return ""
        if not self._leaves_line and ExecutionState.is_terminal(self._last.state):
            return ""
        seconds = (self._last.at - self._began.at).total_seconds()
        return last_line(self._last, columns_of(self._stream), self._style, seconds) + "\n"
