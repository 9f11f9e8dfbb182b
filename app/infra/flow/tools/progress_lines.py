"""What happens in runs, one line for each event: for logs, pipes, and terminals that cannot do more.

Formats events; must not know stores or how far a run is.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TextIO

from .. import (
    Event,
    RunFinished,
    RunInterrupted,
    RunStarted,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskInterrupted,
    TaskReset,
    TaskRetryScheduled,
    TaskSkipped,
    TaskStarted,
    TaskSucceeded,
)
from .outlet import Outlet
from .terminal import Style, cut, padded, safe
from .units import span_text

_ID_COLUMNS = 24
_PATH_COLUMNS = 24
_WORDS: dict[type[Event], tuple[str, str]] = {
    TaskStarted: ("started", "running"),
    TaskSucceeded: ("success", "success"),
    TaskFailed: ("failed", "failed"),
    TaskRetryScheduled: ("retry", "interrupted"),
    TaskInterrupted: ("interrupted", "interrupted"),
    TaskSkipped: ("skipped", "skipped"),
    TaskCancelled: ("cancelled", "cancelled"),
    TaskReset: ("reset", "scheduled"),
}
"""Of each event of a task: the word for it, and the state in whose colour it is written."""


def line_of(at: datetime, run_id: str, path: str, word: str, state: str, more: str, style: Style) -> str:
    """One line, without its end.

    Args:
        at: when it happened.
        run_id: the run.
        path: the task, or the flow where it is about the run.
        word: what happened.
        state: in whose colour that is written.
        more: why; already safe.
        style: how to write.
    """
    run_id = safe(run_id)
    if len(run_id) * 2 > _ID_COLUMNS:  # else it fits, however wide its characters are
        run_id = cut(run_id, _ID_COLUMNS, style.fitting("…", "..."))
    start = f"{at.hour:02d}:{at.minute:02d}:{at.second:02d}.{at.microsecond // 1000:03d} {run_id}"
    line = f"{style.paint(start, 'dim')}  {padded(safe(path), _PATH_COLUMNS)}  {style.state(state, word)}"
    return style.encodable(f"{line}  {more}" if more else line)


class ProgressLines:
    """A subscriber that writes a line for each event: `flow.subscribe(ProgressLines(sys.stderr))`.

    A line has the time of day in UTC, the run, the task, what became of it and why:
    `12:04:05.123 monday  load  failed  ValueError: no such column (attempt 2)`. A task of a subflow has that one's flow before
    it, and stands under the run around it, as far as that is the only one. What users typed cannot steer a terminal. When the
    stream is closed or broken, nothing more is written. A reader that is slow, or stops, holds up no run: lines that it does not
    take wait in memory, up to 8 MiB of them, and the end of the program waits for them.

    Args:
        stream: where the lines go; `sys.stderr` if left out.
        run_id: the run that all events belong to, those of subflows' runs included; else it is found out.
        flow_name: the flow whose tasks are called by their ids alone; that of the first event if left out.
    """

    def __init__(self, stream: TextIO | None = None, *, run_id: str | None = None, flow_name: str | None = None) -> None:
        self._outlet = Outlet(sys.stderr if stream is None else stream)
        self._style = Style(sys.stderr if stream is None else stream)
        self._run_id = run_id
        self._under_way: set[str] = set()
        self._flow_name = flow_name

    def __repr__(self) -> str:
        return f"<ProgressLines, {self._outlet!r}>"

    def __call__(self, event: Event) -> None:
        """Write the event's line."""
        if not self._outlet.is_closed:
            self._outlet.write(self.text(event))

    def finish(self, patience: float | None = None) -> None:
        """Wait until the reader has taken all lines.

        Args:
            patience: seconds after which a reader that takes nothing is given up, and nothing more is written; None: never.
        """
        self._outlet.finish(patience)

    def text(self, event: Event) -> str:
        """The line of one event, without its end."""
        if self._flow_name is None:
            self._flow_name = event.flow_name
        inner = event.flow_name != self._flow_name
        run_id = self._run_of(event, inner)
        if not isinstance(event, TaskEvent):
            word, state = self._run(event)
            return line_of(event.at, run_id, event.flow_name, word, state, "", self._style)
        path = f"{event.flow_name}.{event.task_id}" if inner else event.task_id
        word, state = _WORDS.get(type(event), (type(event).__name__, ""))
        return line_of(event.at, run_id, path, word, state, self._why(event), self._style)

    def _run_of(self, event: Event, inner: bool) -> str:
        if self._run_id is not None:
            return self._run_id
        if inner:
            return next(iter(self._under_way)) if len(self._under_way) == 1 else event.run_id
        if isinstance(event, (RunFinished, RunInterrupted)):
            self._under_way.discard(event.run_id)
        else:
            self._under_way.add(event.run_id)
        return event.run_id

    @staticmethod
    def _run(event: Event) -> tuple[str, str]:
        if isinstance(event, RunFinished):
            return f"run {event.state}", event.state
        if isinstance(event, RunStarted):
            return "run started", "running"
        return ("run interrupted", "interrupted") if isinstance(event, RunInterrupted) else (type(event).__name__, "")

    @staticmethod
    def _why(event: TaskEvent) -> str:
        parts: list[str] = []
        if isinstance(event, TaskRetryScheduled):
            parts.append(f"in {span_text(event.delay)}: {safe(event.reason)}" if event.delay else safe(event.reason))
        elif isinstance(event, (TaskFailed, TaskSkipped, TaskCancelled)):
            parts.append(safe(event.reason))
        if event.attempt_number and not isinstance(event, (TaskSkipped, TaskReset)):
            parts.append(f"(attempt {event.attempt_number + 1})")
        return " ".join(parts)
