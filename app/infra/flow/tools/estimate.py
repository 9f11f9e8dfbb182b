"""How long a run will still take: by earlier runs of its flow, or else by how fast it has gone on before one's eyes.

Asks the store for earlier runs once, and not before the run has lasted so long that this costs it next to nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from .. import RunProgress, Store
from .units import between

if TYPE_CHECKING:
    from .durations import Expectation

RUNS = 5
MOST_ROWS = 20_000
"""So many tasks of earlier runs are read, about."""
ROW_SECONDS = 2e-5
"""What it takes to read a task of an earlier run."""
TIMES = 50
"""The run must have lasted so many times as long as reading the earlier ones will take."""
LEAST_TASKS = 20
LEAST_SHARE = 0.1
"""Of how many tasks, and of which share of them, the ends must have been seen before a pace is made of them."""


class Estimate:
    """What is to be said of one run's remaining time.

    Args:
        store: where earlier runs are.
        progress: the run, when it was first looked at.
        since: when it began or was continued; when the run began, if left out.
    """

    def __init__(self, store: Store, progress: RunProgress, since: datetime | None = None) -> None:
        self._store = store
        self._first = progress
        self._since = since or progress.start_date or progress.at
        self._expected: Expectation | None = None

    def __repr__(self) -> str:
        return f"<Estimate for {self._first.run_id!r}, {'by earlier runs' if self._expected else 'by its pace'}>"

    def remaining(self, progress: RunProgress) -> float | None:
        """About how many seconds it will still take; None where there is nothing to tell it by."""
        if self._expected is None:
            spent = between(self._since, progress.at) or 0.0
            if spent < TIMES * ROW_SECONDS * min(MOST_ROWS, RUNS * progress.total):
                return self._by_pace(progress)
            from .durations import expected_durations  # late: many runs end before that

            self._expected = expected_durations(self._store, progress.flow_name, before=progress.run_id, runs=RUNS)
        if self._expected.total is None:
            return self._by_pace(progress)
        running = {task.path: between(task.start_date, progress.at) or 0.0 for task in progress.running}
        # A run that was continued has stood still for a while, so that its age does not say how fast it is.
        elapsed = between(progress.start_date, progress.at) if self._since == progress.start_date else None
        return self._expected.remaining(progress.done, progress.total, elapsed, running)

    def _by_pace(self, progress: RunProgress) -> float | None:
        ended = progress.done - self._first.done
        seconds = between(self._first.at, progress.at) or 0.0
        if ended < max(LEAST_TASKS, LEAST_SHARE * progress.total) or not seconds:
            return None
        return seconds / ended * (progress.total - progress.done)
