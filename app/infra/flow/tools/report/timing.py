"""How long things took: a run's lines as seconds since it began, its axis and its critical path.

Pure: made from what `gathering` read. Must not know pages.
"""

from __future__ import annotations

from datetime import datetime

from .critical_path import Division, Span, Step, critical_path, divided
from .gantt import Axis, Bar, bars_of, chosen
from .gathering import Line, ReportData


class Timing:
    """The times of one run.

    Args:
        data: the run.
    """

    def __init__(self, data: ReportData) -> None:
        self._zero = data.start
        self.length = max(0.0, (data.end - data.start).total_seconds())
        self._attempts: dict[int, list[tuple[int, str, float, float]]] = {}
        spans: dict[int, Span] = {}
        for line in data.lines:
            self._attempts[line.number] = [
                (attempt.number, str(attempt.result), start, max(start, self._end(attempt.end_date)))
                for attempt in line.attempts
                if attempt.start_date is not None
                for start in (self.at(attempt.start_date),)
            ]
            start, end = line.start, line.end
            spans[line.number] = Span(
                None if start is None else self.at(start),
                None if end is None else self.at(end),
                [need.number for need in line.needs],
                [child.number for child in line.children],
                None if line.parent is None else line.parent.number,
            )
        self._spans = spans
        self.path: list[Step] = critical_path(spans, [line.number for line in data.roots], 0.0, self.length)
        self.on_path: set[int] = set()
        for step in self.path:
            at: Line | None = data.lines[step.number]
            while at is not None and at.number not in self.on_path:
                self.on_path.add(at.number)
                at = at.parent
        busy = [(start, end) for line in data.leaves for _, _, start, end in self._attempts[line.number]]
        self.busy = sum(end - start for start, end in busy)
        """Seconds of work in all attempts together."""
        self.axis = Axis(0.0, self.length, busy)
        self.paused = sum(pause.end - pause.start for pause in self.axis.pauses)
        """Seconds in which nothing ran, of those pauses that are long."""
        self.division: Division = divided(
            self.path,
            lambda number: [] if data.lines[number].children else self._series(data.lines[number]),
            [(pause.start, pause.end) for pause in self.axis.pauses],
            self.length,
        )
        """What each link of the critical path is of the run's time."""

    def at(self, moment: datetime) -> float:
        """Seconds since the run began."""
        return (moment - self._zero).total_seconds()

    def _series(self, line: Line) -> list[tuple[str, float, float]]:
        """How each attempt since the task was last set back ended, its start and its end."""
        return [(state, start, end) for _, state, start, end in self._attempts[line.number]][-len(line.series) :]

    def _end(self, moment: datetime | None) -> float:
        return self.length if moment is None else self.at(moment)

    def start(self, line: Line) -> float | None:
        """When a line began."""
        return self._spans[line.number].start

    def took(self, line: Line) -> float | None:
        """Seconds from its first attempt since it was set back to its end, or until now; None if it never began."""
        span = self._spans[line.number]
        if span.start is None:
            return None
        return max(0.0, (self.length if span.end is None else span.end) - span.start)

    def waited(self, line: Line) -> float | None:
        """Seconds that it could have run and did not yet."""
        start, ready = line.start, line.ready
        return None if start is None or ready is None else max(0.0, (start - ready).total_seconds())

    def spans(self, line: Line) -> list[tuple[int, str, float, float]]:
        """Its attempts: number, result, start and end."""
        return self._attempts[line.number]

    def bars(self, line: Line) -> list[Bar]:
        """Its bars in the timeline."""
        ready, due = line.ready, line.task.next_attempt_at
        return bars_of(
            None if ready is None else self.at(ready),
            self.spans(line),
            min(self.at(due), self.length) if due is not None else None,
        )

    def shown(self, data: ReportData, most: int) -> set[int]:
        """Which lines are told in full where there is room for so many."""
        weights = [(self.rank(line), self.took(line) or 0.0) for line in data.lines]
        parents = [None if line.parent is None else line.parent.number for line in data.lines]
        return chosen(weights, parents, most)

    def rank(self, line: Line) -> int:
        """What people ask for first: what failed, what is going on, what determined the end, what is made of others."""
        if line.state == "failed":
            return 0
        if line.state in ("cancelled", "running"):
            return 1
        if line.number in self.on_path:
            return 2
        if line.children or len(line.attempts) > 1:
            return 3
        return 5 if line.state == "skipped" else 4
