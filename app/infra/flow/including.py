"""Takes the tasks of one flow into another, as tasks of its own: all of them, or, where something is in the way, none.

Loaded with the first flow that includes another. Knows definitions; must not know runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from .definitions import Dependencies, FlowDefinition, TaskDefinition, check_task_id
from .errors import DuplicateTaskError, InvalidNameError, InvalidOptionError, NestedFlowError, UnknownTaskError, closest
from .graph import Graph
from .groups import regrouping
from .late_dataclass import dataclass
from .redaction import combined
from .task_options import SubmitsWork


@dataclass(frozen=True, slots=True)
class Included:
    """The tasks that a flow took in from another, by the ids that they have now.

    `included["load"]` is the id here of what is `load` there. Given to `depends_on=`, it means its last tasks: iterating over
    it gives those.
    """

    flow_name: str
    """The flow that they come from."""
    ids: Mapping[str, str]
    """The ids here, by those there, in the order of declaration."""
    roots: tuple[str, ...]
    """The ids here of those that depend on no other task there."""
    leaves: tuple[str, ...]
    """The ids here of those on which no other task there depends."""

    def __getitem__(self, task_id: str) -> str:
        """The id here.

        Raises:
            UnknownTaskError: the other flow has no such task.
        """
        found = self.ids.get(task_id)
        if found is None:
            raise UnknownTaskError(f"Flow {self.flow_name!r}", task_id, closest(str(task_id), self.ids))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)


def include(
    flow: FlowDefinition, other: FlowDefinition, prefix: str | None, depends_on: Dependencies, replace_tasks: bool
) -> Included:
    """Take the tasks of `other` into `flow`; see `AsyncFlow.include`."""
    if other is flow:
        raise InvalidOptionError("other", flow.name, "another flow: this one has its tasks already")
    graph = other.graph()  # sound in itself: what it lacks now it cannot be given here
    start = _start(prefix)
    ids = {task_id: check_task_id(start + task_id) if start else task_id for task_id in other.tasks}
    for now in ids.values():
        if now in flow.tasks and not replace_tasks:
            raise DuplicateTaskError(flow.name, now)
    path = other.path_to(flow)
    if path is not None:
        raise NestedFlowError(flow.name, (ids[path[0]], *path[1:]))
    roots = tuple(ids[task_id] for task_id in graph if not graph.upstream(task_id))
    upstream = flow._resolve(roots[0] if roots else start, depends_on)
    tasks = _taken(flow, other, ids, upstream)
    if upstream:
        _check_circles(flow, tasks)
    executors = _executors(flow, other)
    # From here on nothing is refused any more.
    flow.take(tasks, {function: [ids[task_id] for task_id in task_ids] for function, task_ids in other._ids_of.items()})
    flow.says_where = flow.says_where or other.says_where
    flow.executors, flow.redact = executors, combined(other.redact, flow.redact)
    return Included(other.name, ids, roots, tuple(ids[task_id] for task_id in graph.leaves()))


def _start(prefix: str | None) -> str:
    """What the ids begin with: a prefix that ends in a letter or digit gets an underscore, so that ids serve as parameters."""
    if prefix is None or prefix == "":
        return ""
    check_task_id(prefix, "prefix")
    if "[" in prefix or "]" in prefix:
        raise InvalidNameError("prefix", prefix, "it must not hold brackets, in which the keys of mapped tasks' items stand")
    return prefix + "_" if prefix[-1].isalnum() else prefix


def _taken(
    flow: FlowDefinition, other: FlowDefinition, ids: Mapping[str, str], upstream: tuple[str, ...]
) -> dict[str, TaskDefinition]:
    """The definitions of the other flow's tasks as they are here."""
    group = regrouping(ids)
    is_renamed = any(task_id != now for task_id, now in ids.items())
    tasks: dict[str, TaskDefinition] = {}
    for task_id, task in other.tasks.items():
        options, rules = task.options, task.rules
        choice = other.choice_of(task)
        if choice is not None and options.executor is None and choice is not flow.executor:
            options = replace(options, executor=choice)  # what that flow says of all its tasks, this one need not
        now = group(task.group) if is_renamed else task.group
        if rules.map_over is not None:
            rules = replace(rules, map_over=ids[rules.map_over])
        if rules.branch:
            rules = replace(rules, group=now)
        tasks[ids[task_id]] = replace(
            task,
            task_id=ids[task_id],
            depends_on=tuple(ids[above] for above in task.depends_on) or upstream,
            options=options,
            rules=rules,
            group=now,
        )
    return tasks


def _check_circles(flow: FlowDefinition, tasks: Mapping[str, TaskDefinition]) -> None:
    """Tasks that were declared before may depend on those that come now. What is declared later is not looked for here."""
    both = {**flow.tasks, **tasks}
    Graph({task_id: [above for above in task.depends_on if above in both] for task_id, task in both.items()}, flow.name)


def _executors(flow: FlowDefinition, other: FlowDefinition) -> Mapping[str, SubmitsWork]:
    """The named executors of both: tasks that are taken in ask for theirs by name, and so do flows nested in that one."""
    for name, executor in other.executors.items():
        if flow.executors.get(name, executor) is not executor:
            expected = f"the name of one executor, but {other.name!r} and {flow.name!r}, which includes it, have one each"
            raise InvalidOptionError("executors", name, expected)
    return {**other.executors, **flow.executors}
