"""Cancels runs that nobody drives, or tasks of them, by their stored records; and asks it of those who drive them.

Needs no flow: a run can be cancelled whose graph has changed since. Calls the store and may block. Must not know the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .clock import Clock
from .definitions import mapped_tasks
from .errors import InvalidNameError, RunMismatchError, RunNotFoundError, RunOwnedError, UnknownTaskError, closest
from .events import Event
from .map_items import by_whole, split_path
from .models import TERMINAL_STATES, ExecutionState, NoteKind, TaskType
from .records import Ask, Lease, NoteRecord, RunRecord, TaskRecord
from .steps import Step, cancel_run, cancel_task
from .store import Store, outermost
from .who import this_process

if TYPE_CHECKING:
    from .live_run import LiveRun


def cancel(store: Store, clock: Clock, flow_name: str, run_id: str, path: str | None) -> tuple[bool, list[Event]]:
    """Cancel a run, or a task of it: here if nobody drives it, else by asking whoever does.

    Args:
        store: where it is.
        clock: the time.
        flow_name: whose runs may be cancelled; a subflow's may by its own flow, too.
        run_id: the run; that of a subflow is cancelled together with the task that it is the inside of.
        path: the task, by ids joined by dots; None is the whole run.

    Returns:
        Whether anything was cancelled or asked for: not so where it had ended already. And what is to be told.

    Raises:
        RunNotFoundError, RunMismatchError: there is no such run, or it is one of another flow.
        InvalidNameError, UnknownTaskError: the path is none, or leads to no task, or into a subflow that has not begun.
    """
    root = outermost(store, run_id)
    names = [store.read_run(known).flow_name for known in dict.fromkeys((run_id, root))]
    if flow_name not in names:
        raise RunMismatchError(run_id, names[0], flow_name)
    ask = Ask(run_id, path)
    if _Records(store, root).has_ended(ask):
        return False, []
    try:
        return _cancel_here(store, clock, root, ask)
    except RunOwnedError:
        store.ask(root, ask)
    # Its owner may have gone before it could see that.
    try:
        done, told = _cancel_here(store, clock, root, ask)
    except RunOwnedError:
        return True, []
    return done or _Records(store, root).state(ask) is ExecutionState.CANCELLED, told


def _cancel_here(store: Store, clock: Clock, root: str, ask: Ask) -> tuple[bool, list[Event]]:
    lease = store.claim(root)
    try:
        return _heed(store, clock, lease, ask, release=True)
    finally:
        store.release(lease)


def heed(store: Store, clock: Clock, lease: Lease) -> list[Event]:
    """Do what was asked of a run whose owner did not live to do it, before the run is read to be driven on, or set back.

    Args:
        store: where it is.
        clock: the time.
        lease: the right to write it.

    Returns:
        What is to be told.
    """
    return _heed(store, clock, lease, None)[1]


def _heed(store: Store, clock: Clock, lease: Lease, own: Ask | None, release: bool = False) -> tuple[bool, list[Event]]:
    """Do what is asked by those before and by this caller; whether the latter changed anything."""
    asked = store.asked(lease.run_id)
    records, step = _Records(store, lease.run_id), Step()
    done = False
    for ask in asked if own is None or own in asked else [*asked, own]:
        now = clock.now()
        try:
            changed = records.cancel(step, ask, now)
        except (RunNotFoundError, UnknownTaskError):
            if ask == own:
                raise
            continue  # what it was meant for is no more
        if changed:
            by = this_process() if ask == own else None
            step.changes.note(NoteRecord(ask.run_id, NoteKind.CANCEL, now, by, ask.task_id))
        done = done or (changed and ask == own)
    if step:
        step.changes.lease = lease
        step.changes.flush, step.changes.release = True, release
        store.commit(step.changes)
    if records.run(lease.run_id).state in TERMINAL_STATES:
        store.forget_asks(lease.run_id)
    elif asked:
        store.forget_asks(lease.run_id, asked)
    return done, step.events


def meant_by(ask: Ask, runs: Mapping[str, LiveRun]) -> tuple[LiveRun, TaskRecord | None] | None:
    """What is asked for, among runs that are being driven.

    Args:
        ask: what was asked.
        runs: the runs of the tree at hand, by id.

    Returns:
        The run in which a task is meant, and the task; no task where the whole tree is meant. None where it is not at hand:
        it has ended, has not begun, or stands outside the part of the tree that is driven.
    """
    live = runs.get(ask.run_id)
    if live is None:
        return None
    if ask.task_id is None:
        return live.parent or (live, None)
    *names, task_id = split_path(ask.task_id)
    for name in names:
        outer = live.machine.tasks.get(name)
        live = None if outer is None or outer.child_run_id is None else runs.get(outer.child_run_id)
        if live is None:
            return None
    record = live.machine.tasks.get(task_id)
    return None if record is None else (live, record)


class _Records:
    """The stored records of a tree of runs, each read when it is first looked at, and once.

    Args:
        store: where they are.
        root: the outermost run.
    """

    def __init__(self, store: Store, root: str) -> None:
        self._store = store
        self._root = root
        self._runs: dict[str, RunRecord] = {}
        self._tasks: dict[str, dict[str, TaskRecord]] = {}

    def run(self, run_id: str) -> RunRecord:
        found = self._runs.get(run_id)
        if found is None:
            found = self._runs[run_id] = self._store.read_run(run_id)
        return found

    def tasks(self, run_id: str) -> dict[str, TaskRecord]:
        found = self._tasks.get(run_id)
        if found is None:
            found = self._tasks[run_id] = {task.task_id: task for task in self._store.read_tasks(run_id)}
        return found

    def _target(self, ask: Ask) -> TaskRecord | None:
        """The task that is meant; None is the whole tree."""
        run_id = ask.run_id
        if ask.task_id is None:
            if run_id == self._root:
                return None
            run = self.run(run_id)  # a subflow's: its task ends with it
            return self._task(run.parent_run_id or "", run.parent_task_id or "")
        if not isinstance(ask.task_id, str):
            raise InvalidNameError("task id", ask.task_id, f"it must be a string, not {type(ask.task_id).__name__}")
        *names, task_id = split_path(ask.task_id)
        for name in names:
            record = self._task(run_id, name)
            if record.type is not TaskType.FLOW or record.child_run_id is None:
                why = "has not begun" if record.type is TaskType.FLOW else "is no subflow"
                raise UnknownTaskError(f"Task {name!r} of run {run_id!r} {why}, so it", ask.task_id)
            run_id = record.child_run_id
        return self._task(run_id, task_id)

    def _task(self, run_id: str, task_id: str) -> TaskRecord:
        tasks = self.tasks(run_id)
        if task_id not in tasks:
            raise UnknownTaskError(f"Run {run_id!r}", task_id, closest(task_id, tasks))
        return tasks[task_id]

    def state(self, ask: Ask) -> ExecutionState:
        """Where that which is meant stands."""
        target = self._target(ask)
        return self.run(self._root).state if target is None else target.state

    def has_ended(self, ask: Ask) -> bool:
        return self.state(ask) in TERMINAL_STATES

    def cancel(self, step: Step, ask: Ask, now: int) -> bool:
        """Cancel what is meant, with all that is inside it; whether there was anything to cancel."""
        if self.has_ended(ask):
            return False
        target = self._target(ask)
        if target is None:
            self._cancel_run(step, self._root, now)
        else:
            for record in (*self._open_items(target), target):
                if record.child_run_id is not None:
                    self._cancel_run(step, record.child_run_id, now)
                cancel_task(step, self.run(record.run_id), record, now)
        return True

    def _open_items(self, whole: TaskRecord) -> list[TaskRecord]:
        """The items of a mapped task that have not ended."""
        items = by_whole(self.tasks(whole.run_id), [whole.task_id])[whole.task_id]
        found = [item for item in items.values() if item.state not in TERMINAL_STATES]
        # Those of a task that is mapped no more, and others that are called so, are tasks like any other.
        return found if found and whole.task_id in mapped_tasks(self.run(whole.run_id).graph) else []

    def _cancel_run(self, step: Step, run_id: str, now: int) -> None:
        waiting = [run_id]
        for each in waiting:  # grows while it is walked
            try:
                run, tasks = self.run(each), self.tasks(each).values()
            except RunNotFoundError:  # a task of a run that was saved from outside may name one that is not there
                continue
            # Not only below tasks that wait: one may have been skipped when its child's run was begun already.
            waiting.extend(
                task.child_run_id for task in tasks if task.child_run_id is not None and task.state is not ExecutionState.SUCCESS
            )
            if run.state not in TERMINAL_STATES:
                cancel_run(step, run, tasks, now)
