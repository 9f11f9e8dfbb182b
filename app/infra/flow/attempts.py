"""The attempts under way: which executor has each, what it holds beside, when its time is over, and what its end will count as.

Knows executors and moments; must not know runs or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .agenda import Agenda, Entry
from .errors import TaskTimeoutError
from .executors import Call, Outcome, failure_of
from .lanes import Lane
from .models import Failure
from .pools import Pool
from .records import TaskRecord
from .task_options import DEFAULT, TaskOptions

Due = TaskRecord | Call
"""What the agenda of a drive holds: tasks that may begin, and attempts whose time is over."""


class _Held:
    """What an attempt has that most have not: slots of a pool, a time-out, or a verdict."""

    __slots__ = ("began", "cancelled", "entry", "failure", "options", "pool")

    def __init__(self, options: TaskOptions, pool: Pool | None, began: float) -> None:
        self.options = options
        self.pool = pool
        self.began = began
        self.entry: Entry[Due] | None = None
        self.failure: Failure | None = None
        """Why it has failed, whatever becomes of it."""
        self.cancelled: str | None = None
        """Why it was cancelled; it counts unless the attempt succeeds all the same."""


Ended = tuple[Outcome, float, "str | None"]
"""An attempt that is over: its outcome, when it began, and why it counts as cancelled if it does."""


class Attempts:
    """The attempts that one drive has under way.

    Args:
        agenda: where their deadlines stand.
        grace_period: seconds that one which was told to end gets to do so.
    """

    def __init__(self, agenda: Agenda[Due], grace_period: float) -> None:
        self._agenda = agenda
        self._grace = grace_period
        self._calls: dict[Call, tuple[Lane, float]] = {}
        self._held: dict[Call, _Held] = {}

    def __repr__(self) -> str:
        return f"<Attempts: {len(self)} under way>"

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls))

    def add(self, call: Call, lane: Lane, monotonic: float, options: TaskOptions, pool: Pool | None) -> None:
        """An attempt is about to begin."""
        lane.busy += 1
        self._calls[call] = lane, monotonic
        if options is not DEFAULT and (pool is not None or options.timeout is not None or options.heartbeat_timeout is not None):
            self._held[call] = _Held(options, pool, monotonic)

    def _watch(self, call: Call, held: _Held, last_sign: float) -> None:
        """Note down when to look at it next."""
        spans = ((held.began, held.options.timeout), (last_sign, held.options.heartbeat_timeout))
        moments = [since + span for since, span in spans if span is not None]
        if moments:
            held.entry = self._agenda.put(min(moments), call)

    def start(self, call: Call, monotonic: Callable[[], float]) -> None:
        """Begin an attempt that was added, now that its start is committed: its time counts from here."""
        held = self._held.get(call) if self._held else None
        if held is not None:
            held.began = monotonic()
            self._watch(call, held, held.began)
        self._calls[call][0].executor.start(call)

    def end(self, outcome: Outcome) -> Ended | None:
        """An attempt is over; None where it was given up before."""
        call = outcome.call
        known = self._calls.pop(call, None)
        if known is None:
            return None
        lane, started = known
        lane.busy -= 1
        held = self._held.pop(call, None) if self._held else None
        if held is None:
            return outcome, started, None
        if held.entry is not None:
            self._agenda.strike(held.entry)
        if held.pool is not None:
            held.pool.give(held.options.pool_weight)
        succeeded = outcome.output is not None and not outcome.interrupted and held.failure is None
        if held.cancelled is not None and not succeeded:
            return outcome, started, held.cancelled
        if held.failure is not None:
            return (
                replace(outcome, output=None, failure=held.failure, skipped=None, interrupted=False, cancelled=False),
                started,
                None,
            )
        return outcome, started, None

    def time_is_over(self, call: Call, now: float) -> Outcome | None:
        """What is to be done about an attempt whose moment in the agenda has come.

        Returns:
            An outcome if it is to be given up, else None: it goes on, or was told to end and gets some time for that.
        """
        held = self._held.get(call)
        if held is None:
            return None
        held.entry = None
        if held.failure is not None or held.cancelled is not None:  # it was told to end, and has not
            return Outcome(call, interrupted=True)
        sign = max(held.began, call.context._last_beat or held.began)
        timeout, heartbeat_timeout = held.options.timeout, held.options.heartbeat_timeout
        if timeout is not None and now >= held.began + timeout:
            seconds, silent = timeout, False
        elif heartbeat_timeout is not None and now >= sign + heartbeat_timeout:
            seconds, silent = heartbeat_timeout, True
        else:
            self._watch(call, held, sign)
            return None
        held.failure = failure_of(TaskTimeoutError(call.context.task_id, seconds, call.context.attempt_number, silent))
        return self._tell(call, held, now)

    def cancel(self, call: Call, reason: str, now: float) -> Outcome | None:
        """Have one attempt end, and count as cancelled if it does.

        Returns:
            As `time_is_over`.
        """
        held = self._held.setdefault(call, _Held(DEFAULT, None, now))
        if held.cancelled is not None:
            return None
        held.cancelled = reason
        if held.failure is not None:  # its time was over: it was told to end, and if it may be tried again, it is not now
            return None
        if held.entry is not None:
            self._agenda.strike(held.entry)
        return self._tell(call, held, now)

    def _tell(self, call: Call, held: _Held, now: float) -> Outcome | None:
        if self._calls[call][0].executor.stop(call):
            held.entry = self._agenda.put(now + self._grace, call)
            return None
        return Outcome(call, interrupted=True)

    def told_to_end(self) -> list[Outcome]:
        """Outcomes for those that were told to end, and have not: what they count as is known."""
        return [
            Outcome(call, interrupted=True)
            for call, held in self._held.items()
            if held.failure is not None or held.cancelled is not None
        ]

    def forget(self) -> None:
        """Give back what all of them hold: nobody waits for them any more."""
        for held in self._held.values():
            if held.pool is not None:
                held.pool.give(held.options.pool_weight)
        self._held.clear()
        self._calls.clear()
