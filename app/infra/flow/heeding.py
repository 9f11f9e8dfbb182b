"""Cancels tasks and subflows of a tree of runs that is being driven.

Knows runs in memory and the attempts under way; must not do I/O or know the loop.
"""

from __future__ import annotations

from collections.abc import Mapping

from .attempts import Attempts
from .cancelling import meant_by
from .executors import Outcome
from .live_run import LiveRun
from .models import ExecutionState
from .records import Ask, TaskRecord
from .steps import BY_ITSELF, BY_RUN, Step


class Heeding:
    """One look at what is asked of a tree.

    Args:
        runs: the runs of the tree, by id.
        attempts: what is under way in it.
        step: takes the changes.
        now: the time.
        monotonic: the same, in seconds of the monotonic clock.
    """

    def __init__(self, runs: Mapping[str, LiveRun], attempts: Attempts, step: Step, now: int, monotonic: float) -> None:
        self._runs = runs
        self._attempts = attempts
        self._step = step
        self._now = now
        self._monotonic = monotonic
        self.given_up: list[Outcome] = []
        """Outcomes of attempts that cannot be waited for."""

    def __repr__(self) -> str:
        return f"<Heeding in {len(self._runs)} runs>"

    def heed(self, ask: Ask) -> bool:
        """Cancel the task that is meant, with all that is inside it; whether it is in the tree, and not the whole of that."""
        meant = meant_by(ask, self._runs)
        if meant is None:
            return False
        live, record = meant
        if record is None:
            return False
        if live.machine.is_there(record.task_id) and not ExecutionState.is_terminal(record.state):
            self._cancel(live, record)
        return True

    def _cancel(self, live: LiveRun, record: TaskRecord) -> None:
        inside = self._runs.get(record.child_run_id) if record.child_run_id is not None else None
        if live.machine.has_items(record):
            self._cancel_items(live, record)
        elif inside is not None:
            self._cancel_inside(inside)
        else:
            for call in self._attempts:
                if call.key[1] is record:  # it is told to end, and is cancelled when it has
                    outcome = self._attempts.cancel(call, BY_ITSELF, self._monotonic)
                    if outcome is not None:
                        self.given_up.append(outcome)
                    return
        live.machine.cancelled(self._step, record, self._now)

    def _cancel_items(self, live: LiveRun, whole: TaskRecord) -> None:
        """Cancel what is under way of a mapped task's items, without waiting for attempts that are told to end."""
        mapped = live.machine.maps.whole(whole.task_id) if live.machine.maps is not None else None
        items = {} if mapped is None else mapped.known
        for call in self._attempts:
            if call.key[0] is live and (call.key[1] is whole or call.key[1].task_id in items):
                self._attempts.cancel(call, BY_ITSELF, self._monotonic)
                self._attempts.end(Outcome(call))
        for item in items.values():
            inside = self._runs.get(item.child_run_id) if item.child_run_id is not None else None
            if inside is not None:
                self._cancel_inside(inside)

    def _cancel_inside(self, outermost: LiveRun) -> None:
        """Cancel a subflow's run and all below it, without waiting for attempts that are told to end."""
        tree = {outermost}
        for live in self._runs.values():
            way = [live]
            while way[-1] not in tree and (parent := way[-1].parent) is not None:
                way.append(parent[0])
            if way[-1] in tree:
                tree.update(way)
        for call in self._attempts:
            if call.key[0] in tree:
                self._attempts.cancel(call, BY_RUN, self._monotonic)
                self._attempts.end(Outcome(call))
        for live in self._runs.values():
            if live in tree and not ExecutionState.is_terminal(live.run.state):
                live.machine.cancel(self._step, self._now)
