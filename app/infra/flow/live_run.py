"""A run in memory: its definition, its machine, and what its tasks may see of it.

Made from records, and gives records back; must not do I/O or know the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .clock import Clock
from .codec import ValueCodec, join, split
from .definitions import FlowDefinition, TaskDefinition, mapped_tasks, nested_flows
from .errors import (
    BranchError,
    NotUpstreamError,
    RunMismatchError,
    UnknownExecutorError,
    UnknownTaskError,
    closest,
    place_of,
)
from .machine import RunMachine
from .models import ExecutionState, Failure, WorkflowRun
from .options import named_params
from .outputs import WORTH, Outputs, ReadOutput
from .records import RunRecord, TaskRecord, copy_of
from .redaction import Redact, kept_failure, kept_reason, redacted
from .retry_manager import RetryPolicy
from .steps import Step
from .task_options import OWN, SubmitsWork
from .trigger_rules import RULES
from .views import TaskTable, workflow_run
from .waiting import chosen_by

if TYPE_CHECKING:
    from .listing import Listing
    from .snapshot import Snapshot


def encode_params(params: Mapping[str, Any] | None, codec: ValueCodec, task_id: str | None = None) -> dict[str, str]:
    """Each param as stored text.

    Raises:
        InvalidOptionError: params are no mapping from strings.
        UnstorableValueError: one of them cannot be stored; the error names its key.
    """
    if params is None:
        return {}
    return {key: codec.encode(value, place_of(key, "params"), task_id) for key, value in named_params(params, task_id).items()}


def new_run(
    step: Step,
    definition: FlowDefinition,
    run_id: str,
    params: Mapping[str, str],
    now: int,
    parent_run_id: str | None = None,
    parent_task_id: str | None = None,
) -> tuple[RunRecord, list[TaskRecord]]:
    """The records of a run that is to be made, added to the step."""
    run = RunRecord(
        id=run_id,
        flow_name=definition.name,
        params=join(params),
        graph=definition.graph_text(),
        created=now,
        parent_run_id=parent_run_id,
        parent_task_id=parent_task_id,
    )
    tasks = [TaskRecord(run_id, task.task_id, position, task.type) for position, task in enumerate(definition.tasks.values())]
    step.changes.new_runs.append(run)
    step.changes.tasks.extend(tasks)
    return run, tasks


def _without_output(record: TaskRecord) -> TaskRecord:
    copied = copy_of(record)
    copied.output = None
    return copied


class _Policies(Mapping[str, RetryPolicy]):
    """The retry policies of a run's tasks, looked up when they are needed: they may be changed while the run goes on."""

    def __init__(self, live: LiveRun) -> None:
        self._live = live

    def __getitem__(self, task_id: str) -> RetryPolicy:
        task = self._live.tasks[task_id]
        return self._live.definition.tasks.get(task.task_id, task).retry

    def __iter__(self) -> Iterator[str]:
        return iter(self._live.tasks)

    def __len__(self) -> int:
        return len(self._live.tasks)


class LiveRun:
    """One run of a tree while it is being driven, or made ready for it.

    Args:
        definition: the flow's tasks.
        run: the run's record.
        tasks: its task records, in order of position.
        codec: how its values are written and read.
        clock: for the times of log lines.
        parent: the live run that it is a subflow of, and the task there.
        read_output: reads one output again; without it all stay in memory.

    Raises:
        RunMismatchError: the run is one of another flow.
    """

    def __init__(
        self,
        definition: FlowDefinition,
        run: RunRecord,
        tasks: list[TaskRecord],
        codec: ValueCodec,
        clock: Clock,
        parent: tuple[LiveRun, TaskRecord] | None = None,
        read_output: ReadOutput | None = None,
    ) -> None:
        if run.flow_name != definition.name:
            raise RunMismatchError(run.id, run.flow_name, definition.name)
        self.definition = definition
        self.graph = definition.graph()
        self.tasks = definition.snapshot()
        """As they are now: a notebook that defines them anew while the run goes on changes later runs."""
        for record in tasks:
            task = self.tasks.get(record.task_id)
            if task is not None:
                record.task_id = task.task_id  # the same string: those of a million tasks that were read take 56 MB
        self.has_groups = definition.has_groups
        """Whether tasks of it were included from other flows, and may call others by other names than their ids."""
        self.rules = dict(definition.rules)
        """Of those tasks that say whether they run, or for which items."""
        self._items: dict[str, list[str] | None] = {}
        """The items that tasks are mapped over, as stored text, by the id of the mapped task."""
        self.machine = RunMachine(self.graph, run, tasks, _Policies(self), self._kept, self.rules)
        self._define_items()
        self.outputs = Outputs(read_output, self.machine.is_done_with)
        for record in tasks:
            if record.output is not None and len(record.output) >= WORTH:
                self.outputs.add(record)
        self.run = run
        self.parent = parent
        self.codec = codec
        self.params = split(run.params)
        self.identity = {"flow_name": run.flow_name, "run_id": run.id}
        self.logger = logging.getLogger(f"night_batch.{run.flow_name}")
        self._clock = clock

    def __repr__(self) -> str:
        return f"<LiveRun {self.machine!r}>"

    def _define_items(self) -> None:
        """Have the items that the run has already be defined as the tasks are that they are of."""
        for mapped in self.machine.maps or ():
            self._define(mapped.record.task_id, mapped.known)

    def _define(self, whole: str, item_ids: Iterable[str]) -> None:
        """Have tasks of items be defined as the whole is: the same definition, under one more name each."""
        if self.tasks is self.definition.tasks:
            self.tasks = dict(self.tasks)
        assert isinstance(self.tasks, dict)
        self.tasks.update(dict.fromkeys(item_ids, self.tasks[whole]))

    # --- what tasks see: the Scope of their contexts ---

    def now(self) -> int:
        """The time, in microseconds since 1970 UTC."""
        return self._clock.now()

    def redact(self, text: str) -> str:
        """See `Scope.redact`."""
        return redacted(text, self._hooks())

    def _hooks(self) -> Iterator[Redact]:
        """The flow's own hook, and those of the flows it is nested in: a secret of theirs may have come in with the params."""
        live: LiveRun | None = self
        while live is not None:
            if live.definition.redact is not None:
                yield live.definition.redact
            live = live.parent[0] if live.parent is not None else None

    def _kept(self, failure: Failure) -> Failure:
        return kept_failure(failure, self._hooks())

    def kept_reason(self, text: str) -> str:
        """What is stored and told of why a task was skipped, given what it said."""
        return kept_reason(text, self._hooks())

    def pull(self, task_id: str, wanted: str) -> Any:
        """See `Context.pull_output`."""
        whole = wanted if wanted in self.graph else self._whole_of(wanted)
        if whole is None:
            raise UnknownTaskError(f"Flow {self.definition.name!r}", wanted, closest(str(wanted), self._names(task_id)))
        own = self.tasks[task_id].task_id
        if not self.graph.is_upstream(whole, of=own):
            raise NotUpstreamError(task_id, wanted)
        if self.rules and (self._is_streamed(task_id, own, whole, wanted) or not self._is_seen(task_id, own, wanted)):
            return None
        text = self.output_text(wanted)
        return None if text is None else self.codec.decode(text)

    def id_of(self, task_id: str, name: str) -> str:
        """See `Scope.id_of`."""
        group = self.tasks[task_id].group
        return name if group is None else group.id_of(name)

    def task_of(self, task_id: str, function: Callable[..., Any]) -> str:
        """See `Scope.task_of`."""
        return self.definition.task_of(task_id, function, partial(self._meant, self.tasks[task_id]))

    def _meant(self, own: TaskDefinition, task_ids: Sequence[str]) -> Sequence[str]:
        """Of several tasks with one function, those that a task means by it: of its group, and as near upstream as can be."""
        if own.group is not None:
            task_ids = own.group.meant_by(task_ids)
        near = [task_id for task_id in task_ids if task_id in own.depends_on]
        return near or [task_id for task_id in task_ids if self.graph.is_upstream(task_id, of=own.task_id)] or task_ids

    def _names(self, task_id: str) -> Iterable[str]:
        """What a task may call others."""
        group = self.tasks[task_id].group
        return self.graph if group is None else (*group.ids, *self.graph)

    def _whole_of(self, item_id: object) -> str | None:
        """The mapped task that an item is of; None where it is none."""
        mapped = self.machine.maps.of_item(item_id) if self.machine.maps is not None and isinstance(item_id, str) else None
        return None if mapped is None else mapped.record.task_id

    def _is_seen(self, task_id: str, own: str, wanted: str) -> bool:
        """Whether a task had ended when another began, which may have begun early: what came later may not be committed yet."""
        rules = self.rules.get(own)
        if rules is None or rules.trigger_rule is None or not RULES[rules.trigger_rule].is_early:
            return True
        began, ended = self.machine.tasks[task_id].started, self.machine.tasks[wanted].ended
        return began is not None and ended is not None and ended <= began

    def _is_streamed(self, task_id: str, own: str, whole: str, wanted: str = "") -> bool:
        """Whether a task has its items from another, one by one, which may thus not have ended: seen, if at all, by the quicker.

        Its own item's is seen, and all of it where a task stands between the two.
        """
        mapped = None if self.machine.maps is None else self.machine.maps.whole(own)
        source = None if mapped is None else mapped.source
        while source is not None and source.record.task_id != whole:
            source = source.source
        if source is None or source.items is None:  # it succeeded before it was mapped: its output is the list
            return False
        if wanted in source.index and self._index_of(task_id) == source.index[wanted]:
            return False
        task = self.tasks[own]
        between = [other for other in task.depends_on if other != task.rules.map_over]
        return not any(other == whole or self.graph.is_upstream(whole, of=other) for other in between)

    def _index_of(self, task_id: str) -> int | None:
        mapped = None if self.machine.maps is None else self.machine.maps.of_item(task_id)
        return None if mapped is None else mapped.index.get(task_id)

    def item(self, task_id: str) -> tuple[str | None, int] | None:
        """See `Scope.item`."""
        mapped = self.machine.maps.of_item(task_id) if self.machine.maps is not None else None
        if mapped is None or task_id not in mapped.index:
            return None
        index, source = mapped.index[task_id], mapped.source
        if source is not None:
            assert source.items is not None
            return self.output_text(source.items[index].task_id), index
        texts = self._items[mapped.record.task_id]
        assert texts is not None
        return texts[index], index

    def run_model(self, params: dict[str, Any]) -> WorkflowRun:
        """See `Context.workflow_run`."""
        return workflow_run(self.run, TaskTable(self.machine.tasks, self.codec, self.outputs.whole), self.codec, params)

    def beat(self) -> float:
        """See `Scope.beat`."""
        return self._clock.monotonic()

    def snapshot(self, task_id: str) -> Snapshot:
        """See `Scope.snapshot`. From any thread."""
        from .calling import takes  # late: only for tasks that run in other processes
        from .snapshot import Snapshot  # late: only for tasks that run in other processes

        task, item = self.tasks[task_id], self.item(task_id)
        # Not with each item the list that it is from, unless a parameter asks for that.
        left_out = None if item is None else task.rules.map_over
        if left_out is not None and takes(task.called, left_out if task.group is None else task.group.name_of(left_out)):
            left_out = None
        sent = (task_id, *(other for other in task.depends_on if other != left_out))
        records = [self.outputs.whole(self.machine.tasks[sent_id]) for sent_id in sent]
        if item is not None and self._is_streamed(task_id, task.task_id, task.rules.map_over or ""):
            records = [_without_output(record) if record.task_id == task.rules.map_over else record for record in records]
        names = None if task.group is None else task.group.names_for(sent)
        functions = [(self.tasks[sent_id].handle, sent_id) for sent_id in sent[1:]]
        if task.group is not None:
            meant = task.group.meant_by
            functions = [(known, sent_id) for known, sent_id in functions if sent_id in meant(self.definition.tasks_of(known))]
        return Snapshot.of(self.run, self.params, records, self.codec, item, names, functions)

    def output_text(self, task_id: str) -> str | None:
        """The stored text of a task's output; None where it did not succeed."""
        record = self.machine.tasks[task_id]
        return self.outputs.text(record) if record.state is ExecutionState.SUCCESS else None

    # --- what the engine does with it ---

    def place(self, task: TaskDefinition) -> str | SubmitsWork | None:
        """Where a task's function runs: None is the event loop, else one of our own executors by name, or one brought along.

        Raises:
            UnknownExecutorError: neither this flow nor those it is nested in have an executor of that name.
        """
        choice = self.definition.choice_of(task)
        if choice is None:
            return None if task.is_async else "thread"
        if task.is_async and choice == "inline":
            return None
        if not isinstance(choice, str) or choice in OWN:
            return choice
        live: LiveRun | None = self
        while live is not None:
            named = live.definition.executors.get(choice)
            if named is not None:
                return named
            live = live.parent[0] if live.parent is not None else None
        raise UnknownExecutorError(self.definition.name, task.task_id, choice, None)

    def apply_params(self, step: Step, changed: Mapping[str, str | None]) -> None:
        """Take over the params that a task changed, key by key, so that tasks side by side do not undo each other's."""
        params = {**self.params, **changed}
        # A new dict in place of the old one, which tasks in threads may be reading at this moment.
        self.params = {key: text for key, text in params.items() if text is not None}
        self.run.params = join(self.params)
        step.changes.runs.append(self.run)

    def latest_end(self) -> int:
        """When the last of the attempts ended that there were."""
        return max((record.ended for record in self.machine.tasks.values() if record.ended is not None), default=0)

    def result_text(self) -> str:
        """The stored text of a subflow's result: the output of its single last task, or of all its last tasks by id."""
        outputs = {task_id: self.output_text(task_id) or "null" for task_id in self.graph.leaves()}
        return next(iter(outputs.values())) if len(outputs) == 1 else join(outputs)

    def subflow_params(self, record: TaskRecord, own: Mapping[str, str]) -> dict[str, str]:
        """The params of a subflow that is to start: the parent's, then its dependencies' outputs by id, then its own."""
        task, item = self.tasks[record.task_id], self.item(record.task_id)
        name_of = str if task.group is None else task.group.name_of
        outputs = {
            name_of(task_id): self.output_text(task_id) or "null"
            for task_id in task.depends_on
            if item is None or task_id != task.rules.map_over
        }
        if item is not None:
            outputs |= {"item": item[0] or "null", "map_index": str(item[1])}
        return {**self.params, **outputs, **own}

    def expand(self, step: Step, record: TaskRecord, listing: Listing, now: int) -> None:
        """A mapped task has its list: its items are there from now on."""
        self._items[record.task_id] = listing.texts
        self._define(record.task_id, listing.made)
        self.machine.expand(step, record, listing.keys, listing.made, now)

    def listing(self, record: TaskRecord) -> Listing:
        """What finds out what a mapped task's items are."""
        from .listing import Listing  # late: few tasks are mapped
        from .map_items import keys_of  # late: few tasks are mapped

        assert self.machine.maps is not None
        mapped, task = self.machine.maps.whole(record.task_id), self.tasks[record.task_id]
        assert mapped is not None
        streams = None if mapped.source is None or mapped.source.items is None else keys_of(mapped.source.record.input)
        return Listing(self.run.id, task.rules, task.type, self.codec, streams)

    def is_whole(self, record: TaskRecord) -> bool:
        """Whether a record is that of a mapped task, and not of one of its items."""
        return record.task_id in self.rules and self.rules[record.task_id].map_over is not None

    def wrong_choice(self, record: TaskRecord, output: str | None) -> BranchError | None:
        """What is wrong with what a branch chose, if it is one and anything is."""
        if not (record.task_id in self.rules and self.rules[record.task_id].branch):
            return None
        downstream = self.graph.downstream(record.task_id)
        try:
            if set(chosen_by(output, self.rules[record.task_id].group)) <= set(downstream):
                return None
        except ValueError:
            pass
        return BranchError(record.task_id, None if output is None else self.codec.decode(output, strict=False), downstream)

    def failures(self, runs: Mapping[str, LiveRun]) -> dict[str, str]:
        """Why each task failed or was cancelled, by its path from this run; of a subflow, the tasks inside it that did.

        Args:
            runs: the runs of the tree at hand, by id.
        """
        found: dict[str, str] = {}
        levels: list[tuple[str, LiveRun]] = [("", self)]
        for prefix, live in levels:  # grows while it is walked
            for task_id, record in live.machine.tasks.items():
                if record.state not in (ExecutionState.FAILED, ExecutionState.CANCELLED) or not live.machine.is_there(task_id):
                    continue
                if live.machine.has_items(record):  # they say it themselves
                    continue
                inside = runs.get(record.child_run_id) if record.child_run_id is not None else None
                if inside is not None and record.state is ExecutionState.FAILED:
                    levels.append((f"{prefix}{task_id}.", inside))
                else:
                    found[prefix + task_id] = record.reason or "no reason was recorded"
        return found

    def adopt_graph(self, step: Step, now: int) -> None:
        """Take up the definition's graph in place of the one that the run was made with."""
        position = max((record.position for record in self.machine.tasks.values()), default=-1)
        new = [
            TaskRecord(self.run.id, task.task_id, position + offset, task.type)
            for offset, task in enumerate(
                (task for task_id, task in self.definition.tasks.items() if task_id not in self.machine.tasks), start=1
            )
        ]
        before, mapped_before = nested_flows(self.run.graph), mapped_tasks(self.run.graph)
        for record in self.machine.tasks.values():
            # What failed may run again too, by a retry of the subflow that it stands in. A success stays what it was.
            if record.task_id in self.graph and record.state is not ExecutionState.SUCCESS:
                self._retype_adopted(record, before)
                if mapped_before.get(record.task_id) != self.tasks[record.task_id].rules.map_over:
                    record.child_run_id = record.input = None  # it is another list, or none
                step.changes.tasks.append(record)
        self.machine.adopt(step, self.definition.graph_text(), new, now)
        self._define_items()
        anew: set[str | None] = set()
        for mapped in self.machine.maps or ():
            whole = mapped.record.task_id
            if mapped.record.state is ExecutionState.SUCCESS:
                continue
            over = self.tasks[whole].rules.map_over
            if mapped_before.get(whole) != over or over in anew:
                # The items are those of another list, though they are called the same: what they came to is of no use here.
                anew.add(whole)
                if not ExecutionState.is_terminal(mapped.record.state):
                    self.machine.reset(step, mapped.known, now)
            for item in mapped.known.values():
                if item.state is not ExecutionState.SUCCESS:
                    self._retype_adopted(item, before)
                    step.changes.tasks.append(item)

    def _retype_adopted(self, record: TaskRecord, before: Mapping[str, str]) -> None:
        """Have a record be what its task is in the graph that is taken up; `before` are the flows that were nested."""
        self.retype(record)
        task = self.tasks[record.task_id]
        if task.child is not None and before.get(task.task_id, task.child.name) != task.child.name:
            record.child_run_id = record.input = None  # a run of another flow cannot be continued by this one

    def retype(self, record: TaskRecord) -> None:
        """Have a record that is to run again be what its task is now: a function may have become a subflow, or the reverse."""
        kind = self.tasks[record.task_id].type
        if record.type is not kind:
            record.type, record.child_run_id, record.input = kind, None, None

    def open_children(self) -> list[TaskRecord]:
        """The subflow tasks whose child run may have to go on.

        Those that have not ended; and inside a subflow those that failed or were cancelled, since a retry of the subflow goes on
        with them.
        """
        goes_on = {ExecutionState.SCHEDULED, ExecutionState.RUNNING}
        if self.parent is not None:
            goes_on |= {ExecutionState.FAILED, ExecutionState.CANCELLED}
        return [
            record
            for record in self.machine.tasks.values()
            if record.child_run_id is not None and record.state in goes_on and self.machine.is_there(record.task_id)
        ]
