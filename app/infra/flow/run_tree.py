"""Loads stored runs, with the subflow runs inside them, and prepares them to be driven on or to have a task reset.

Knows definitions and stores; must not know the loop. Nothing is written before everything was checked.
"""

from __future__ import annotations

from collections.abc import Iterable

from .clock import Clock
from .definitions import FlowDefinition
from .errors import InvalidNameError, UnknownTaskError, closest
from .events import Event
from .live_run import LiveRun
from .models import ExecutionState, TaskType
from .records import Lease, TaskRecord
from .retry_manager import tasks_to_reset
from .steps import Step, cancel_run
from .store import Store
from .who import this_process


class RunTree:
    """A run and its subflow runs, as far as they matter to what is to be done.

    Args:
        store: where the runs are.
        definition: the flow of the outermost run.
        clock: the time.
        lease: the right to write them.
        adopt_graph: take up the flows' graphs where they are not the ones that the runs were made with.
    """

    def __init__(self, store: Store, definition: FlowDefinition, clock: Clock, lease: Lease, adopt_graph: bool = False) -> None:
        self._store = store
        self._lease = lease
        self._definition = definition
        self._clock = clock
        self._adopt_graph = adopt_graph
        self._adopted = Step()
        self._met: dict[str, LiveRun] = {}
        """The subflow runs on the ways to the tasks that are set back, by id: two ways may lead through one."""

    def root(self, run_id: str) -> LiveRun:
        """The outermost run.

        Raises:
            RunNotFoundError, RunMismatchError, GraphChangedError: it cannot be continued by this flow.
        """
        return self._take(self._definition, run_id, None)

    def _take(self, definition: FlowDefinition, run_id: str, parent: tuple[LiveRun, TaskRecord] | None) -> LiveRun:
        run = self._store.read_run(run_id)
        tasks, read_output = self._store.read_tasks(run_id), getattr(self._store, "read_output", None)
        live = LiveRun(definition, run, tasks, self._store.codec, self._clock, parent, read_output)
        if run.graph == definition.graph_text():
            run.graph = definition.graph_text()  # the same string: that of a million tasks is long
        elif run.graph and not self._adopt_graph:
            definition.check_graph(run_id, run.graph)
        else:  # one that was saved from outside, without a graph, takes this one
            live.adopt_graph(self._adopted, self._clock.now())
        return live

    def _child(self, live: LiveRun, record: TaskRecord) -> LiveRun:
        definition = live.tasks[record.task_id].child
        assert definition is not None
        assert record.child_run_id is not None
        return self._take(definition, record.child_run_id, (live, record))

    def unfinished(self, root: LiveRun) -> list[LiveRun]:
        """The subflow runs, at any depth, that were begun and whose tasks have not ended. Commits what was adopted."""
        found: list[LiveRun] = []
        waiting = [root]
        while waiting:
            live = waiting.pop()
            children = [self._child(live, record) for record in live.open_children()]
            found.extend(children)
            waiting.extend(children)
        if self._adopted:
            self._adopted.changes.lease = self._lease
            self._store.commit(self._adopted.changes)
        return found

    def reset(self, root: LiveRun, paths: Iterable[str], downstream: bool, release: bool) -> list[Event]:
        """Set back the tasks that dotted paths lead to, one after the other, with all that must follow, in one commit.

        In each run on the way down, the subflow's task is set back as well, but goes on with the run it has, to carry the new
        result up.

        Args:
            root: the outermost run.
            paths: each is ids joined by dots.
            downstream: whether all that depends on the tasks is set back, too.
            release: whether to give up the lease.

        Returns:
            What is to be told.

        Raises:
            InvalidNameError: a path is no string.
            UnknownTaskError: a path leads to no task, or into a subflow that has not begun, or begins anew by one before.
        """
        step = self._adopted
        for path in paths:
            self._reset_one(step, root, path, downstream)
        step.changes.lease = self._lease
        step.changes.flush, step.changes.release = True, release
        self._store.commit(step.changes)
        self._adopted = Step()
        self._met = {}
        return step.events

    def _reset_one(self, step: Step, root: LiveRun, path: str, downstream: bool) -> None:
        if not isinstance(path, str):
            raise InvalidNameError("task id", path, f"it must be a string, not {type(path).__name__}")
        from .map_items import split_path  # late: few runs are set back

        *names, task_id = split_path(path)
        live = root
        way: list[tuple[LiveRun, TaskRecord]] = []
        for name in names:
            record = self._record(live, name)
            nested = live.tasks[name].child is not None and record.type is TaskType.FLOW
            if not nested or record.child_run_id is None:
                why = "has not begun" if nested else "is no subflow"
                raise UnknownTaskError(f"Task {name!r} of run {live.run.id!r} {why}, so it", ".".join([*names, task_id]))
            way.append((live, record))
            met = self._met.get(record.child_run_id)
            if met is None:
                met = self._met[record.child_run_id] = self._child(live, record)
            live = met
        target = self._record(live, task_id)
        # A subflow that succeeded starts afresh; one that did not goes on with what failed inside.
        goes_on = target.state not in (ExecutionState.SUCCESS, ExecutionState.SKIPPED)
        self._reset(step, live, task_id, downstream, goes_on)
        for outer, record in reversed(way):
            self._reset(step, outer, record.task_id, downstream, goes_on=True)

    def _reset(self, step: Step, live: LiveRun, task_id: str, downstream: bool, goes_on: bool) -> None:
        maps = live.machine.maps
        if maps is None:
            affected, kept = tasks_to_reset(live.graph, task_id, downstream), {task_id} if goes_on else set[str]()
        else:
            affected, kept = maps.to_reset(live.graph, task_id, downstream, goes_on)
        for other in affected:
            if other not in kept:
                self._abandon(step, live.machine.tasks[other])
        from .notes import reset_note  # late: few runs are set back

        now, records = self._clock.now(), map(live.machine.tasks.__getitem__, affected)
        step.changes.note(reset_note(live.run, records, now, task_id, this_process()))
        live.machine.reset(step, affected, now, kept)
        for other in affected:
            live.retype(live.machine.tasks[other])

    def _abandon(self, step: Step, record: TaskRecord) -> None:
        """Cancel the run, and those inside it, that a subflow's task leaves behind unfinished."""
        waiting = [record]
        for task in waiting:  # grows while it is walked
            if task.child_run_id is not None and self._store.exists(task.child_run_id):
                met = self._met.get(task.child_run_id)  # as it stands by now, which the store does not know yet
                if met is not None:
                    run, tasks = met.run, list(met.machine.tasks.values())
                else:
                    run, tasks = self._store.read_run(task.child_run_id), self._store.read_tasks(task.child_run_id)
                if not ExecutionState.is_terminal(run.state):
                    cancel_run(step, run, tasks, self._clock.now(), "its subflow was begun anew")
                waiting.extend(tasks)

    @staticmethod
    def _record(live: LiveRun, task_id: str) -> TaskRecord:
        if not live.machine.is_there(task_id):
            raise UnknownTaskError(f"Flow {live.definition.name!r}", task_id, closest(task_id, live.machine.tasks))
        return live.machine.tasks[task_id]
