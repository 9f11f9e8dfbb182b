"""Continues all unfinished runs of a flow that nobody drives. Loaded when somebody asks for it.

Knows stores, and that there is a way to drive a run; must not know which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial

from .errors import InvalidOptionError, RunActiveError, RunNotFoundError, RunOwnedError
from .models import ExecutionState, WorkflowRun
from .off_loop import Worker
from .store import Store, outermost


class ResumedRuns(Mapping[str, "WorkflowRun | Exception"]):
    """What became of the runs that `AsyncFlow.resume_all` found: by run id, oldest first, the run or what kept it from going on.

    Args:
        outcomes: each run that was to be continued.
        left_alone: those with a living owner.
    """

    def __init__(self, outcomes: Mapping[str, WorkflowRun | Exception], left_alone: Iterable[str] = ()) -> None:
        self._outcomes = dict(outcomes)
        self.left_alone = tuple(left_alone)
        """The ids of runs that have a living owner, in this process or another; they are not among the others."""

    def __getitem__(self, run_id: str) -> WorkflowRun | Exception:
        return self._outcomes[run_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)

    def __repr__(self) -> str:
        return f"<ResumedRuns: {len(self.runs)} ended, {len(self.errors)} could not go on, {len(self.left_alone)} left alone>"

    @property
    def runs(self) -> dict[str, WorkflowRun]:
        """Those that were driven to their end, well or not."""
        return {run_id: found for run_id, found in self._outcomes.items() if isinstance(found, WorkflowRun)}

    @property
    def errors(self) -> dict[str, Exception]:
        """Those that could not be continued, each with the reason: a changed graph, damage, a store that failed."""
        return {run_id: found for run_id, found in self._outcomes.items() if isinstance(found, Exception)}


async def resume_all(
    store: Store, flow_name: str, worker: Worker, drive: Callable[[str], Awaitable[WorkflowRun]], max_runs: int
) -> ResumedRuns:
    """See `AsyncFlow.resume_all`.

    Args:
        store: where the runs are.
        flow_name: whose runs.
        worker: where the store is asked.
        drive: drives a run to its end; it refuses one that has a living owner.
        max_runs: how many are driven at once.
    """
    if type(max_runs) is not int or max_runs < 1:
        raise InvalidOptionError("max_runs", max_runs, "a whole number from 1 on")
    found = await worker.do(partial(_unfinished, store, flow_name))
    outcomes: dict[str, WorkflowRun | Exception] = {}
    left_alone: list[str] = []
    waiting = iter(found)

    async def drive_some() -> None:
        for run_id in waiting:
            try:
                if await worker.do(partial(_is_waiting, store, run_id)):
                    outcomes[run_id] = await drive(run_id)
            except (RunOwnedError, RunActiveError):
                left_alone.append(run_id)
            except Exception as error:
                outcomes[run_id] = error

    drivers = [
        asyncio.get_running_loop().create_task(drive_some(), name=f"night-batch resuming of {flow_name} {number}")
        for number in range(min(max_runs, len(found)))
    ]
    # Not to raise the first: if we are cancelled, all of them save their runs before this ends.
    for problem in await asyncio.gather(*drivers, return_exceptions=True):
        if problem is not None:
            raise problem
    order = {run_id: number for number, run_id in enumerate(found)}
    return ResumedRuns(
        {run_id: outcomes[run_id] for run_id in sorted(outcomes, key=order.__getitem__)},
        sorted(left_alone, key=order.__getitem__),
    )


def _unfinished(store: Store, flow_name: str) -> list[str]:
    """The runs that have not ended, oldest first; subflows' among them."""
    # In this order: one that is interrupted between the two is in the second list; one that is begun has an owner.
    found = [
        run_id for state in (ExecutionState.RUNNING, ExecutionState.SCHEDULED) for run_id in store.list_runs(state, flow_name)
    ]
    return sorted(dict.fromkeys(reversed(found)), key=partial(_age, store))


def _age(store: Store, run_id: str) -> int:
    try:
        return store.read_run(run_id).created
    except Exception:  # whoever drives it says what is wrong with it
        return 0


def _is_waiting(store: Store, run_id: str) -> bool:
    """Whether a run is one to be driven: it has neither ended nor been removed meanwhile, and is not the inside of another."""
    try:
        run = store.read_run(run_id)
    except RunNotFoundError:
        return False
    return not ExecutionState.is_terminal(run.state) and outermost(store, run_id) == run_id
