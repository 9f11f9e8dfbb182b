"""A stored run beside the graph that it goes by, for those who only look: how its tasks ended, and what that decides.

Pure: works on records that somebody read, and asks no definition. Must not know stores, the machine, or what is done with a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from .graph import Graph
from .late_dataclass import dataclass
from .map_items import ids_of, keys_of, whole_of
from .models import TERMINAL_STATES, AttemptResult, ExecutionState, GraphNode, TaskType
from .records import AttemptRecord, RunRecord, TaskRecord
from .steps import GONE, NOT_CHOSEN
from .trigger_rules import FAILED, RULES, SKIPPED, SUCCEEDED, TriggerRule, Verdict, decide
from .waiting import Waiting, chosen_by

ANY = frozenset((SUCCEEDED, FAILED, SKIPPED))
"""As what a task may count that is yet to run."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a run's graph says of one task."""

    upstream: tuple[str, ...] = ()
    """All direct dependencies, that which it is mapped over included."""
    rule: TriggerRule = TriggerRule.ALL_SUCCESS
    map_over: str | None = None
    branch: bool = False
    flow_name: str | None = None
    """Of a subflow: the flow that it nests."""
    names: tuple[tuple[str, str], ...] = ()
    """Of a branch that was included from another flow: what it calls tasks that it may choose, and their ids."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The upstreams that its trigger rule asks."""
        return self.upstream if self.map_over is None else tuple(one for one in self.upstream if one != self.map_over)


def nodes_of(graph_text: str) -> dict[str, Node]:
    """A stored graph, as `FlowDefinition.graph_text` writes it."""
    rows: dict[str, list[Any]] = json.loads(graph_text) if graph_text else {}
    return {task_id: _node(row) for task_id, row in rows.items()}


def _node(row: list[Any]) -> Node:
    if not row or not isinstance(row[-1], dict):
        return Node(tuple(row))
    beyond: dict[str, Any] = row[-1]
    rule = TriggerRule(beyond.get("trigger_rule", TriggerRule.ALL_SUCCESS))
    branch: bool | dict[str, str] = beyond.get("branch", False)
    names = tuple(branch.items()) if isinstance(branch, dict) else ()
    return Node(tuple(row[:-1]), rule, beyond.get("map_over"), bool(branch), beyond.get("flow"), names)


def stored_nodes(graph_text: str) -> dict[str, GraphNode]:
    """The graph that a run was made with, as `FlowDefinition.graph_text` wrote it. What flows nest is not in it."""
    return {task_id: _stored(task_id, node) for task_id, node in nodes_of(graph_text).items()}


def _stored(task_id: str, node: Node) -> GraphNode:
    kind = TaskType.TASK if node.flow_name is None else TaskType.FLOW
    return GraphNode(task_id, kind, node.upstream, node.map_over, node.rule.value, node.branch, node.flow_name)


def possible_verdicts(rule: TriggerRule, upstreams: Iterable[frozenset[int]]) -> set[Verdict]:
    """What a rule may say in the end, given as what each upstream may count."""
    # The rules ask whether any upstream ended in some way, never how many: so it is enough to know which ways may occur together.
    together = {0}
    some = False
    for may in upstreams:
        some = True
        together = {ways | 1 << outcome for ways in together for outcome in may}
        if len(together) == 7:  # every combination of at least one
            break
    if not some:
        return {Verdict.RUN}
    return {decide(rule, [ways >> outcome & 1 for outcome in range(3)], 0) for ways in together}


class StoredRun:
    """A run as its records have it.

    Args:
        run: its record.
        tasks: the records of its tasks, in order of position.
        archived: those of its earlier attempts.
        nodes: the graph to go by: the run's own, or one that it is to take up.
    """

    def __init__(
        self, run: RunRecord, tasks: Iterable[TaskRecord], archived: Iterable[AttemptRecord], nodes: Mapping[str, Node]
    ) -> None:
        self.run = run
        self.tasks = {record.task_id: record for record in tasks}
        self.nodes = nodes
        self.archived: dict[str, list[AttemptRecord]] = {}
        for attempt in archived:
            self.archived.setdefault(attempt.task_id, []).append(attempt)

    def __repr__(self) -> str:
        return f"<StoredRun {self.run.id!r} {self.run.state}, {len(self.tasks)} tasks>"

    @cached_property
    def graph(self) -> Graph:
        """The graph of its tasks, items apart."""
        return Graph({task_id: node.upstream for task_id, node in self.nodes.items()}, self.run.flow_name)

    # --- items ---

    def whole_of(self, task_id: str) -> str | None:
        """The mapped task that an item belongs to; None of what is no item."""
        whole = whole_of(task_id) if task_id not in self.nodes else None
        return whole if whole is not None and self.is_whole(whole) else None

    def is_whole(self, task_id: str) -> bool:
        """Whether a task is mapped, and not one of the items."""
        return task_id in self.nodes and self.nodes[task_id].map_over is not None

    def node_of(self, task_id: str) -> Node | None:
        """What the graph says of a task, or of that which an item belongs to; None where it does not have it."""
        return self.nodes.get(self.whole_of(task_id) or task_id)

    def items(self, whole: str) -> list[str] | None:
        """The ids of the items that a mapped task has now, in order; None where its list is not known yet."""
        found = None
        above: str | None = whole
        while above is not None and self.is_whole(above):  # those that it streams from must have theirs as well
            record = self.tasks.get(above)
            keys = keys_of(record.input) if record is not None else None
            ids = None if keys is None else ids_of(above, keys)  # items of an earlier list may be there, too
            if ids is None or not all(item in self.tasks for item in ids):
                return None
            found = ids if found is None else found
            above = self.nodes[above].map_over
        return found

    # --- what decides ---

    def source_of(self, item: str) -> str | None:
        """The item that an item of a task which maps over a mapped task waits for."""
        whole = self.whole_of(item)
        over = None if whole is None else self.nodes[whole].map_over
        if whole is None or over is None or over not in self.nodes or self.nodes[over].map_over is None:
            return None
        return f"{over}{item[len(whole) :]}"

    def asked(self, task_id: str) -> tuple[str, ...]:
        """The tasks that the trigger rule of a task asks."""
        if self.whole_of(task_id) is not None:
            source = self.source_of(task_id)
            return () if source is None else (source,)
        node = self.nodes.get(task_id)
        return () if node is None else node.asked

    def skipped_itself(self, record: TaskRecord) -> bool:
        """Whether a skipped task said so itself, in its latest attempt."""
        if record.state is not ExecutionState.SKIPPED or record.started is None:
            return False
        # Not so where its latest attempt ended otherwise, and it was skipped while it waited for the next one.
        others = (AttemptResult.FAILED, AttemptResult.INTERRUPTED)
        return not any(
            attempt.number == record.attempts and attempt.result in others for attempt in self.archived.get(record.task_id, ())
        )

    def chosen(self, branch: str) -> frozenset[str] | None:
        """Which of the tasks behind a branch go on; None where it has not decided."""
        record = self.tasks.get(branch)
        if record is None or record.state is not ExecutionState.SUCCESS:
            return None
        try:
            ids = dict(self.nodes[branch].names) if branch in self.nodes else {}
            known = [task_id for name in chosen_by(record.output) if (task_id := ids.get(name, name)) in self.nodes]
        except ValueError:  # it was no branch when it ran
            known = []
        return frozenset(known) | self.graph.descendants(known)

    def unchosen_by(self, task_id: str) -> str | None:
        """The branch that has decided against a task, if one has."""
        node = self.nodes.get(task_id)
        for other in node.upstream if node is not None else ():
            if self._is_branch(other):
                chosen = self._choices.get(other)
                if chosen is None and (found := self.chosen(other)) is not None:
                    chosen = self._choices[other] = found
                if chosen is not None and task_id not in chosen:
                    return other
        return None

    @cached_property
    def _choices(self) -> dict[str, frozenset[str]]:
        return {}

    def branch_that_skipped(self, record: TaskRecord) -> str | None:
        """The branch that did not choose a task, where that is why it was skipped."""
        node = self.nodes.get(record.task_id)
        if node is None or record.state is not ExecutionState.SKIPPED or record.reason is None:
            return None
        # Not by the reason alone: a task may be skipped for the reason of one upstream of it.
        return next((other for other in node.upstream if record.reason == NOT_CHOSEN.format(other)), None)

    # --- how tasks ended ---

    @cached_property
    def _outcomes(self) -> dict[str, int]:
        """As what each task of the graph that has ended counts; items are asked one by one."""
        found: dict[str, int] = {}
        for task_id in self.graph.order():
            record = self.tasks.get(task_id)
            if record is not None and record.state in TERMINAL_STATES:
                found[task_id] = self.outcome_of(record, found)
        return found

    def outcome(self, task_id: str) -> int | None:
        """As what a task, or an item, counts for those that wait for it; None while it has not ended."""
        if task_id in self.nodes:
            return self._outcomes.get(task_id)
        return self._item_outcome(task_id)

    def _item_outcome(self, item: str) -> int | None:
        # An item waits for one item at the most, which may wait for one again.
        chain = [item]
        while (source := self.source_of(chain[-1])) is not None:
            chain.append(source)
        found: dict[str, int] = {}
        for task_id in reversed(chain):
            record = self.tasks.get(task_id)
            if record is not None and record.state in TERMINAL_STATES:
                found[task_id] = self.outcome_of(record, found)
        return found.get(item)

    def outcome_of(self, record: TaskRecord, known: Mapping[str, int]) -> int:
        """As what a task that has ended counts.

        Args:
            record: the task.
            known: the same of the tasks upstream of it that have ended.
        """
        if record.state is ExecutionState.SUCCESS:
            return SUCCEEDED
        if record.state is not ExecutionState.SKIPPED:
            return FAILED
        if record.started is not None or self.unchosen_by(record.task_id) is not None:  # it said so itself; or a branch did
            return SKIPPED
        return FAILED if self.verdict(record.task_id, known) is Verdict.SKIP_FAILED else SKIPPED

    def verdict(self, task_id: str, known: Mapping[str, int] | None = None) -> Verdict:
        """What the upstreams of a task, as they stand, decide for it: by its rule, and of a mapped task by its gate as well."""
        node = self.node_of(task_id)
        if node is None:
            return Verdict.RUN
        is_item = self.whole_of(task_id) is not None
        upstreams = self.asked(task_id) if is_item else node.upstream
        gate = -1 if is_item or node.map_over is None else node.upstream.index(node.map_over)
        waiting = Waiting(node.rule, gate)
        waiting.pending = len(upstreams) - (gate >= 0)
        waiting.branches = frozenset(place for place, other in enumerate(upstreams) if self._is_branch(other))
        for place, other in enumerate(upstreams):
            outcome = self.outcome(other) if known is None else known.get(other)
            if place == gate and self._has_listed(other):
                outcome = SUCCEEDED
            if outcome is not None:
                waiting.told(place, outcome)
        return waiting.verdict()

    def _is_branch(self, task_id: str) -> bool:
        return task_id in self.nodes and self.nodes[task_id].branch

    def _has_listed(self, over: str) -> bool:
        """Whether a mapped task has its items, so that those which map over it may have theirs."""
        goes_on = self.tasks[over].state is not ExecutionState.SCHEDULED if over in self.tasks else False
        return goes_on and self.is_whole(over) and self.items(over) is not None

    def _gate(self, over: str) -> int | None:
        """As what the task counts that another is mapped over; None while it has given no list."""
        return SUCCEEDED if self._has_listed(over) else self.outcome(over)

    def pending(self, task_id: str) -> list[str]:
        """The upstreams of a task that have not ended, and the one that it is mapped over while that has no list for it."""
        node = self.node_of(task_id)
        waits = [other for other in self.asked(task_id) if self.outcome(other) is None]
        over = node.map_over if node is not None and self.whole_of(task_id) is None else None
        if over is not None and self._gate(over) is None:
            waits.append(over)
        return waits

    def frontier(self, task_id: str, most: int) -> list[str]:
        """Of the tasks upstream that have not ended, near or far, those that wait for none themselves."""
        found: list[str] = []
        seen = {task_id}
        waiting = self.pending(task_id)
        for other in waiting:  # grows while it is walked
            if other in seen:
                continue
            seen.add(other)
            behind = self.pending(other)
            if behind:
                waiting.extend(behind)
            else:
                found.append(other)
                if len(found) >= most:
                    break
        return found

    # --- causes ---

    def causes(self, task_id: str) -> Iterator[str]:
        """The way from a task that was skipped up to the one that is the cause: each was skipped because of the next."""
        seen: set[str] = set()
        here: str | None = task_id
        while here is not None and here not in seen:
            seen.add(here)
            yield here
            here = self._blocker(here)

    def _blocker(self, task_id: str) -> str | None:
        """The upstream whose end is why a task was skipped, where that can be said of one."""
        record = self.tasks.get(task_id)
        if record is None or record.state is not ExecutionState.SKIPPED:
            return None
        if record.reason == GONE or self.skipped_itself(record) or self.branch_that_skipped(record) is not None:
            return None
        node = self.node_of(task_id)
        if node is None:
            return None
        over = [node.map_over] if node.map_over is not None and self.whole_of(task_id) is None else []
        if over and self._gate(over[0]) in (FAILED, SKIPPED):
            wanted: Sequence[str] = over
        else:
            decisive = deciding(node.rule, [self.outcome(other) for other in self.asked(task_id)])
            wanted = [other for other in self.asked(task_id) if self.outcome(other) == decisive]
        # Of several, one that failed itself is what a reader needs, before one that was skipped because of another.
        return min(wanted, key=self._distance, default=None)

    def _distance(self, task_id: str) -> int:
        record = self.tasks.get(task_id)
        return 0 if record is not None and record.state in (ExecutionState.FAILED, ExecutionState.CANCELLED) else 1


def both(first: Verdict, second: Verdict) -> Verdict:
    """What two verdicts that must both be RUN come to, as `all_success` over the two."""
    verdicts = (first, second)
    if Verdict.SKIP_FAILED in verdicts:
        return Verdict.SKIP_FAILED
    if Verdict.WAIT in verdicts:
        return Verdict.WAIT
    return Verdict.SKIP if Verdict.SKIP in verdicts else Verdict.RUN


def deciding(rule: TriggerRule, outcomes: Sequence[int | None]) -> int | None:
    """As what those upstreams count because of which a rule skips a task; None where it is rather what none of them is."""
    said = RULES[rule]
    for outcome, verdict in (*said.at_once, *(() if None in outcomes else said.at_end)):
        if outcome in outcomes:
            return outcome if verdict in (Verdict.SKIP, Verdict.SKIP_FAILED) else None
    # Nothing that it asks for was there: then what was there instead, failures before skips.
    return next((outcome for outcome in (FAILED, SKIPPED, SUCCEEDED) if outcome in outcomes), None)
