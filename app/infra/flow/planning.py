"""Says what continuing a stored run would do: which results stand, which tasks would run, come new or go.

Reads definitions and a store; changes nothing, and takes no lease. Must not know how runs are driven.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from .definitions import FlowDefinition, TaskDefinition
from .errors import RunFailedError, RunMismatchError, moment_text, printable
from .explaining import STATES, names, owner_of
from .late_dataclass import dataclass
from .looking import ANY, Node, StoredRun, both, nodes_of, possible_verdicts
from .map_items import split_path
from .models import TERMINAL_STATES, ExecutionState, Failure, kinds_of
from .records import Ask, RunRecord, TaskRecord
from .redaction import Redact, redacted
from .retry_manager import RetryPolicy, failure_by_interruption, next_delay
from .steps import GONE
from .store import Store, outermost
from .trigger_rules import FAILED, SKIPPED, SUCCEEDED, TriggerRule, Verdict

MOST_LINES = 20
"""Tasks of one kind that the text of a plan lists; of more it says how many."""


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """What `run_until_complete` would do with a run. Tasks are named by their dotted paths, each in one of the tuples.

    A task that has ended is not looked into: the tasks of a subflow, and the items of a map, are listed where it goes on.
    """

    run_id: str
    flow_name: str
    state: ExecutionState
    """The run's. One that has ended is returned as it is: nothing would run."""
    owner: str | None = None
    """Who drives the run now, and lives: until that ends, the call joins it, or in another process is refused."""
    changed: tuple[str, ...] = ()
    """Tasks that were added to the flow's graph, removed or changed since the run was made: where there are any, the call takes
    `adopt_graph=True`."""
    reuse: tuple[str, ...] = ()
    """Succeeded, and do not run again."""
    run: tuple[str, ...] = ()
    """Would run; or may, where a condition, a trigger rule or the end of another task is yet to decide."""
    add: tuple[str, ...] = ()
    """Would run or may, and are new: the flow has them, and the run has not."""
    end: tuple[str, ...] = ()
    """Would end without running: skipped, failed since they were interrupted too often, or cancelled since somebody asked."""
    keep: tuple[str, ...] = ()
    """Have ended without success, or are no longer in the flow, and stay as they are: a manual retry runs them again."""
    drop: tuple[str, ...] = ()
    """Have not ended, and would be skipped, since the flow no longer has them."""
    why: Mapping[str, str] = field(default_factory=dict[str, str])
    """What there is to say of a task, by its path, in a few words."""

    @property
    def graph_changed(self) -> bool:
        """Whether the flow's graph is not the one that the run was made with."""
        return bool(self.changed)

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended."""
        return self.state in TERMINAL_STATES

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield printable(f"Run {self.run_id!r} of flow {self.flow_name!r} {STATES[self.state]}.")
        if self.has_ended:
            yield printable(f"It has ended: run_until_complete({self.run_id!r}) returns it as it is.")
        elif self.owner is not None:
            yield printable(f"It is driven by {self.owner}. If that ended now:")
        if self.changed and not self.has_ended:
            yield printable(f"The flow's graph has changed since ({names(self.changed)}), so it takes adopt_graph=True:")
        for kind in ("reuse", "run", "add", "end", "keep", "drop"):
            paths: tuple[str, ...] = getattr(self, kind)
            if paths:
                yield f"{kind} ({len(paths):,})"
                for path in paths[:MOST_LINES]:
                    yield printable(f"  {path}: {self.why[path]}" if path in self.why else f"  {path}")
                if len(paths) > MOST_LINES:
                    yield f"  and {len(paths) - MOST_LINES:,} more"
        if self.keep:
            yield printable(
                f"flow.retry({self.run_id!r}, task) runs one of those again that it keeps, with everything downstream."
            )

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, kind))} to {kind}" for kind in ("reuse", "run", "add", "end", "keep", "drop"))
        return f"<Plan of run {self.run_id!r}, {self.state}: {counts}>"


def plan(definition: FlowDefinition, store: Store, run_id: str) -> Plan:
    """See `AsyncFlow.plan`."""
    run = store.read_run(run_id)
    if run.flow_name != definition.name:
        raise RunMismatchError(run_id, run.flow_name, definition.name)
    planner = _Planner(store, outermost(store, run_id))
    planner.look(definition, run)
    return Plan(
        run_id,
        definition.name,
        run.state,
        owner_of(store, run_id),
        tuple(planner.changed),
        why=planner.why,
        **{kind: tuple(paths) for kind, paths in planner.sorted().items()},
    )


Counts = tuple[int, int]
"""The try number of a task and its interruptions."""
_NOT_BY_HAND = (1, 0)
"""Of a subflow that is tried again because one around it is."""


@dataclass(frozen=True, slots=True)
class _Level:
    """A run of the tree, or one that is yet to be made."""

    flow: FlowDefinition
    run_id: str | None
    prefix: str = ""
    place: tuple[int, ...] = ()
    hooks: tuple[Redact, ...] = ()
    again: bool = False
    """Whether a subflow around it would be tried again by itself, should this run fail."""
    around: tuple[Counts, ...] = ()
    """Of each subflow task around it, the innermost first, once it has been started."""


class _Planner:
    """Works out what becomes of each task.

    Args:
        store: where the runs are.
        root: the outermost run of the tree, at which things are asked.
    """

    def __init__(self, store: Store, root: str) -> None:
        self._store = store
        self._root = root
        self.changed: list[str] = []
        self.why: dict[str, str] = {}
        self._found: list[tuple[tuple[int, ...], str, str]] = []
        self._waiting: list[_Level] = []
        asked = getattr(store, "asked", None)  # a store of somebody's own may not know of asks
        asks: list[Ask] = [] if asked is None else asked(root)
        self._cancelled = {self._meant(ask) for ask in asks}

    def __repr__(self) -> str:
        return f"<_Planner of {self._root!r}, {len(self._found)} tasks>"

    def _meant(self, ask: Ask) -> tuple[str, str | None]:
        """The run, and the task in it, that somebody asked to cancel."""
        run_id = ask.run_id
        if ask.task_id is None:
            run = self._store.read_run(run_id)
            if run_id == self._root or run.parent_run_id is None:
                return run_id, None
            return run.parent_run_id, run.parent_task_id
        *outer, task_id = split_path(ask.task_id)
        for name in outer:
            child = next((task.child_run_id for task in self._store.read_tasks(run_id) if task.task_id == name), None)
            if child is None:
                return run_id, name + "."  # it leads nowhere
            run_id = child
        return run_id, task_id

    def sorted(self) -> dict[str, list[str]]:
        """The paths by what becomes of them, each task before what is in it."""
        found: dict[str, list[str]] = {kind: [] for kind in ("reuse", "run", "add", "end", "keep", "drop")}
        for _, kind, path in sorted(self._found):
            found[kind].append(path)
        return found

    def look(self, flow: FlowDefinition, run: RunRecord) -> None:
        """Look at a run, and at those inside it that would go on."""
        if run.state in TERMINAL_STATES:
            self._ended(flow, run)
            return
        self._waiting.append(_Level(flow, run.id, hooks=_hooks(flow)))
        while self._waiting:  # not recursion: flows nest deep
            level = self._waiting.pop()
            if level.run_id is None:
                for position, task in enumerate(level.flow.tasks.values()):
                    self.note(level, "run", task.task_id, (position,))
                    self.go_in(level, task, task.task_id, (position,), None, (0, 0))
            else:
                _Look(self, self._store, level, level.run_id).go()

    def _ended(self, flow: FlowDefinition, run: RunRecord) -> None:
        level = _Level(flow, run.id, hooks=_hooks(flow))
        added, removed, changed = flow.changes_since(run.graph)
        self.changed += [*added, *removed, *changed]
        nodes = nodes_of(run.graph or flow.graph_text())
        for record in self._store.read_tasks(run.id):
            if record.task_id in nodes:
                is_good = record.state is ExecutionState.SUCCESS
                why = None if is_good else _end_of(record, level.hooks)
                self.note(level, "reuse" if is_good else "keep", record.task_id, (record.position,), why)

    def is_cancelled(self, run_id: str, task_id: str | None) -> bool:
        """Whether somebody asked for that, of an owner who did not live to do it."""
        return (run_id, task_id) in self._cancelled

    def note(self, level: _Level, kind: str, task_id: str, place: tuple[int, ...], why: str | None = None) -> None:
        """Say what becomes of a task.

        Args:
            level: where it stands.
            kind: which of the plan's tuples it belongs to.
            task_id: its id.
            place: its place there; of an item, that of its task, and its own among the items.
            why: what there is to say of it.
        """
        self._found.append(((*level.place, *place), kind, level.prefix + task_id))
        if why is not None:
            self.why[level.prefix + task_id] = why

    def go_in(
        self, level: _Level, task: TaskDefinition, task_id: str, place: tuple[int, ...], child_run_id: str | None, counts: Counts
    ) -> None:
        """A subflow's task, or an item that is a subflow, would run: look at what is in it, later.

        Args:
            level: where it stands.
            task: how it is declared.
            task_id: its id.
            place: its place there.
            child_run_id: its own run, if it has one to go on with.
            counts: what it will count once it has been started.
        """
        child = task.child
        if child is None or (task.rules.map_over is not None and len(place) == 1):
            return
        tries, interruptions = counts
        again = level.again or _tried_again(task.retry, tries + 1 - interruptions)
        prefix, run_id = f"{level.prefix}{task_id}.", child_run_id
        hooks, around = (*_hooks(child), *level.hooks), (counts, *level.around)
        inner = _Level(child, run_id, prefix, (*level.place, *place), hooks, again, around)
        if run_id is not None and self._store.read_run(run_id).state is ExecutionState.SUCCESS:
            self.why[level.prefix + task_id] = "takes up the result of its own run, which has succeeded"
        else:
            self._waiting.append(inner)


def _hooks(flow: FlowDefinition) -> tuple[Redact, ...]:
    return () if flow.redact is None else (flow.redact,)


def _once_started(record: TaskRecord) -> Counts:
    """What a task that has not ended will count when it has been started, or started again."""
    return record.try_number + (record.started is not None), record.interruptions + (record.state is ExecutionState.RUNNING)


def _tried_again(policy: RetryPolicy, failures: int) -> bool:
    failure = Failure("SubflowFailed", "", "", kinds_of(RunFailedError))
    return next_delay(policy, failures, failure, 0.0) is not None


def _end_of(record: TaskRecord, hooks: tuple[Redact, ...]) -> str:
    """How a task ended without success, in one line."""
    reason = "" if record.reason is None else redacted(" ".join(record.reason.split()), hooks)
    return f"{record.state}: {reason}" if reason else record.state.value


class _Look:
    """What becomes of the tasks of one run.

    Args:
        planner: is told.
        store: where the run is.
        level: where it stands in the tree.
        run_id: the run.
    """

    def __init__(self, planner: _Planner, store: Store, level: _Level, run_id: str) -> None:
        self._planner = planner
        self._level = level
        self._flow = level.flow
        run = store.read_run(run_id)
        added, removed, changed = self._flow.changes_since(run.graph)
        planner.changed += [level.prefix + task_id for task_id in (*added, *removed, *changed)]
        self._adopts = bool(added or removed or changed) or not run.graph
        before = nodes_of(run.graph)
        tasks = store.read_tasks(run_id)
        self._run = StoredRun(run, tasks, store.read_attempts(run_id), nodes_of(self._flow.graph_text()))
        self._known: dict[str, int] = {}
        self._may: dict[str, frozenset[int]] = {}
        self._why: dict[str, str] = {}
        """Of tasks that were ended by what a resume does first."""
        self._was = {record.task_id: record.state for record in tasks}
        self._stood = {record.task_id: _once_started(record) for record in tasks}
        self._prepare(before)

    # --- what is done to the records before anything runs ---

    def _prepare(self, before: Mapping[str, Node]) -> None:
        run, planner = self._run, self._planner
        ended = run.run.state in TERMINAL_STATES  # a subflow's run that failed, and is tried again
        by_hand = self._is_retried_by_hand()
        all_cancelled = planner.is_cancelled(run.run.id, None)
        for record in run.tasks.values():
            if record.state not in TERMINAL_STATES and (all_cancelled or planner.is_cancelled(run.run.id, record.task_id)):
                record.state = ExecutionState.CANCELLED
                self._why[record.task_id] = "cancelled, as somebody asked for"
        there = [record for record in run.tasks.values() if run.node_of(record.task_id) is not None]
        if self._adopts:
            for record in there:
                self._adopt(record, before)
        if ended:
            self._set_back(there, by_hand)
        for record in there:
            if record.state is ExecutionState.RUNNING:
                self._cut_off(record)

    def _set_back(self, there: list[TaskRecord], cancelled: bool) -> None:
        """As a subflow that failed sets back what did not succeed in it, when it is tried again."""
        run = self._run
        stay = {ExecutionState.SUCCESS, ExecutionState.SCHEDULED} | (set() if cancelled else {ExecutionState.CANCELLED})
        mended: list[TaskRecord] = []
        for record in there:
            whole = run.whole_of(record.task_id)
            state = record.state if whole is None else run.tasks[whole].state
            # A mapped task that was skipped begins afresh; of one that failed, items stay that succeeded, or need not run.
            afresh = whole is not None and state is ExecutionState.SKIPPED
            said_so = whole is not None and record.state is ExecutionState.SKIPPED and record.started is not None
            if afresh or (state not in stay and record.state not in stay and not said_so):
                mended.append(record)
        for record in mended:
            if record.state not in (ExecutionState.FAILED, ExecutionState.CANCELLED):
                record.child_run_id = record.input = None
            record.state = ExecutionState.SCHEDULED
            record.try_number = record.interruptions = record.crashes = 0
            record.started = record.due = record.reason = None
            self._stood[record.task_id] = 0, 0

    def _is_retried_by_hand(self) -> bool:
        if not self._level.around:
            return False
        (tries, _), *around = self._level.around
        return tries == 0 and all(number == interruptions for number, interruptions in around)

    def _definition(self, task_id: str) -> TaskDefinition:
        return self._flow.tasks[self._run.whole_of(task_id) or task_id]

    def _adopt(self, record: TaskRecord, before: Mapping[str, Node]) -> None:
        task_id = record.task_id
        if record.state is not ExecutionState.SUCCESS and task_id in self._run.nodes:
            task, now, then = self._definition(task_id), self._run.nodes[task_id], before.get(task_id, Node())
            is_other = task.child is not None and then.flow_name not in (None, task.child.name)
            if record.type is not task.type or is_other or then.map_over != now.map_over:
                record.type, record.child_run_id, record.input = task.type, None, None
        if record.state is ExecutionState.SKIPPED and record.reason == GONE:
            record.state = ExecutionState.SCHEDULED

    def _cut_off(self, record: TaskRecord) -> None:
        """What its interruption makes of a task that was under way."""
        failure, task_id = None, record.task_id
        is_whole = self._run.is_whole(task_id)
        if record.child_run_id is None and not (is_whole and self._run.items(task_id) is not None):
            failure = failure_by_interruption(self._definition(task_id).retry, record.crashes + 1, died=True, is_whole=is_whole)
        record.state = ExecutionState.SCHEDULED if failure is None else ExecutionState.FAILED
        if failure is not None:
            self._why[task_id] = f"fails: {failure.message}"

    # --- what follows for each ---

    def go(self) -> None:
        """Tell of each task of the run."""
        run = self._run
        for task_id in run.graph.order():
            self._task(task_id)
        for record in run.tasks.values():
            if run.node_of(record.task_id) is None:
                is_over = record.state in TERMINAL_STATES
                why = f"{_end_of(record, self._level.hooks)}; the flow no longer has it" if is_over else None
                if record.task_id in self._why:
                    why = self._why[record.task_id]
                kind = ("end" if record.task_id in self._why else "keep") if is_over else "drop"
                self._planner.note(self._level, kind, record.task_id, (record.position,), why)

    def _place(self, task_id: str) -> tuple[int, ...]:
        record = self._run.tasks.get(task_id)
        return (len(self._run.tasks) + self._run.graph.position(task_id) if record is None else record.position,)

    def _task(self, task_id: str) -> None:
        run, node = self._run, self._run.nodes[task_id]
        record = run.tasks.get(task_id)
        if record is not None and record.state in TERMINAL_STATES:
            self._may[task_id] = self._is_over(record, self._place(task_id))
        else:
            branch = run.unchosen_by(task_id) if record is None or record.started is None else None
            verdicts = {Verdict.SKIP} if branch is not None else self._verdicts(node)
            self._may[task_id] = self._decided(task_id, self._place(task_id), record, verdicts, node, branch)
            if Verdict.RUN in verdicts and record is not None and node.map_over is not None:
                self._items(task_id)
        if len(self._may[task_id]) == 1:
            (self._known[task_id],) = self._may[task_id]

    def _is_over(self, record: TaskRecord, place: tuple[int, ...]) -> frozenset[int]:
        """A task has ended, or does so before anything runs; as what it may count."""
        planner, level, task_id = self._planner, self._level, record.task_id
        if record.state is ExecutionState.SUCCESS:
            planner.note(level, "reuse", task_id, place)
        elif level.again and record.state is not ExecutionState.CANCELLED:
            planner.note(level, "run", task_id, place, "should the subflow around it be tried again")
            goes_on = record.child_run_id if record.state is ExecutionState.FAILED else None
            planner.go_in(level, self._definition(task_id), task_id, place, goes_on, _NOT_BY_HAND)
            return ANY
        elif task_id in self._why:
            planner.note(level, "end", task_id, place, self._why[task_id])
        else:
            planner.note(level, "keep", task_id, place, _end_of(record, level.hooks))
        return frozenset((self._run.outcome_of(record, self._known),))

    def _verdicts(self, node: Node) -> set[Verdict]:
        """What a task's upstreams may decide for it."""
        run = self._run
        found = possible_verdicts(node.rule, [self._may[other] for other in node.asked])
        if node.map_over is not None:
            found = {both(rule, gate) for rule in found for gate in self._gates(node.map_over)}
        for other in node.upstream:
            if run.nodes[other].branch and SUCCEEDED in self._may[other] and run.chosen(other) is None:
                found.add(Verdict.SKIP)
        return found

    def _gates(self, over: str) -> set[Verdict]:
        if self._run.nodes[over].map_over is not None and self._run.items(over) is not None:
            return {Verdict.RUN}
        gates = {SUCCEEDED: Verdict.RUN, FAILED: Verdict.SKIP_FAILED, SKIPPED: Verdict.SKIP}
        return {gates[outcome] for outcome in self._may[over]}

    def _decided(
        self,
        task_id: str,
        place: tuple[int, ...],
        record: TaskRecord | None,
        verdicts: set[Verdict],
        node: Node,
        branch: str | None = None,
    ) -> frozenset[int]:
        """What comes of a task that has not ended, given what its upstreams may decide for it; as what it may count."""
        planner, level = self._planner, self._level
        if Verdict.RUN not in verdicts:
            why = f"skipped: branch {branch!r} did not choose it" if branch is not None else self._why_skipped(task_id, node)
            planner.note(level, "end", task_id, place, why)
            return frozenset(FAILED if verdict is Verdict.SKIP_FAILED else SKIPPED for verdict in verdicts)
        planner.note(level, "add" if record is None else "run", task_id, place, self._why_run(task_id, record, node))
        child_run_id = None if record is None else record.child_run_id
        planner.go_in(level, self._definition(task_id), task_id, place, child_run_id, self._stood.get(task_id, (0, 0)))
        return ANY

    def _why_skipped(self, task_id: str, node: Node) -> str:
        """The upstreams without success that are known of."""
        run = self._run
        asked = (*run.asked(task_id), *([node.map_over] if node.map_over is not None and task_id in run.nodes else []))
        ended = [other for other in asked if (state := self._state(other)) is not None and state is not ExecutionState.SUCCESS]
        rule = "" if node.rule is TriggerRule.ALL_SUCCESS else f"trigger rule {node.rule}; "
        told = "; ".join(f"{other} {self._state(other)}" for other in ended[:3])
        return f"skipped: {rule}upstream {told or 'has ended otherwise'}"

    def _state(self, task_id: str) -> ExecutionState | None:
        """How a task has ended, or would without running; None where it has not, and may run."""
        record = self._run.tasks.get(task_id)
        if record is not None and record.state in TERMINAL_STATES:
            return record.state
        may = self._may.get(task_id)
        return ExecutionState.SKIPPED if may is not None and SUCCEEDED not in may else None

    def _why_run(self, task_id: str, record: TaskRecord | None, node: Node) -> str | None:
        said: list[str] = []
        if record is not None and self._was[task_id] is ExecutionState.RUNNING:
            said.append("is running, or was cut off")
        elif record is not None and record.due is not None:
            said.append(f"its next attempt is due at {moment_text(record.due)}")
        if node.rule is not TriggerRule.ALL_SUCCESS and node.asked:
            said.append(f"if its trigger rule {node.rule} lets it")
        if self._definition(task_id).rules.run_if is not None:
            said.append("if its run_if says so")
        return "; ".join(said) or None

    # --- items ---

    def _items(self, whole: str) -> None:
        """The items that a mapped task has from an earlier drive: those that have ended stay."""
        run = self._run
        node = run.nodes[whole]
        for index, item in enumerate(run.items(whole) or ()):
            record = run.tasks[item]
            source = run.source_of(item)
            place = (*self._place(whole), index)
            if record.state in TERMINAL_STATES:
                self._may[item] = self._is_over(record, place)
            else:
                upstreams = [] if source is None else [self._may_of_item(source)]
                verdicts = possible_verdicts(node.rule, upstreams)
                self._may[item] = self._decided(item, place, record, verdicts, node)
            if len(self._may[item]) == 1:
                (self._known[item],) = self._may[item]

    def _may_of_item(self, item: str) -> frozenset[int]:
        found = self._may.get(item)
        if found is None:
            outcome = self._run.outcome(item)
            found = ANY if outcome is None else frozenset((outcome,))
        return found
