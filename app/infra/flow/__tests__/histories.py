"""What a store tells of the past of a run: as short words for a test to read, and held against the records and the tables."""

from __future__ import annotations

from collections import defaultdict

from .. import ExecutionState, StateChange, Store
from ..steps import RUN_EDGES, TASK_EDGES

_TASK_MOVES = {(edge.source, edge.target) for edge in TASK_EDGES}
_RUN_MOVES = {(edge.source, edge.target) for edge in RUN_EDGES} | {(ExecutionState.NONE, ExecutionState.SCHEDULED)}


def told(store: Store, run_id: str, task_id: str | None = None) -> list[str]:
    """Each change in a few words: `load scheduled>running 1`; one of the run has no name, one before any attempt no number."""
    return [
        " ".join(
            [
                *([] if change.task_id is None else [change.task_id]),
                f"{change.from_state}>{change.to_state}",
                *([] if change.attempt is None else [str(change.attempt)]),
            ]
        )
        for change in store.history(run_id, task_id)
    ]


def check_history(store: Store, run_id: str) -> list[StateChange]:
    """The history of a run, once it was found to be one: without a gap, by legal moves, in order of time, up to what is now."""
    run, tasks, history = store.read_run(run_id), store.read_tasks(run_id), store.history(run_id)
    assert [change.at for change in history] == sorted(change.at for change in history)
    stands: dict[str | None, ExecutionState] = {None: ExecutionState.NONE}
    stands.update((task.task_id, ExecutionState.SCHEDULED) for task in tasks)
    begun: defaultdict[str | None, list[int | None]] = defaultdict(list)
    for change in history:
        assert change.run_id == run_id
        assert change.from_state is stands[change.task_id], f"{change} comes after {stands[change.task_id]}"
        moves = _RUN_MOVES if change.task_id is None else _TASK_MOVES
        assert (change.from_state, change.to_state) in moves, f"{change} is no legal move"
        stands[change.task_id] = change.to_state
        if change.to_state is ExecutionState.RUNNING and change.task_id is not None:
            begun[change.task_id].append(change.attempt)
    assert stands.pop(None) is run.state
    assert stands == {task.task_id: task.state for task in tasks}
    attempts = store.list_attempts(run_id)
    for task in tasks:
        assert begun[task.task_id] == [each.number for each in attempts if each.task_id == task.task_id]
        assert store.history(run_id, task.task_id) == [change for change in history if change.task_id == task.task_id]
    return history
