"""What a flow is made of: task definitions, checked one by one as they come and as a whole before a run exists.

Pure: nothing here runs a task or knows a store. A refused definition leaves everything as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

from .errors import (
    AmbiguousDependencyError,
    DuplicateTaskError,
    GraphChangedError,
    InvalidNameError,
    InvalidOptionError,
    NestedFlowError,
    UnknownDependencyError,
    UnknownTaskError,
    closest,
)
from .functions import Called, function_name, plain_kind
from .late_dataclass import dataclass
from .models import TaskType
from .redaction import Redact
from .retry_manager import NO_RETRY, RetryPolicy
from .task_options import DEFAULT, OWN, ExecutorChoice, SubmitsWork, TaskOptions, check_executor
from .task_rules import PLAIN, TaskRules

if TYPE_CHECKING:
    from .graph import Graph
    from .groups import Group

TaskFunction = Callable[..., Any]
"""A function or coroutine function that takes the task's context, and outputs of its dependencies, and returns its output."""
SubflowParams = Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None
RunIf = Callable[..., Any]
"""Whether a task runs: a function with the same parameters; a coroutine function where the task is one, too."""
Dependency = str | Callable[..., Any]
Dependencies = Iterable[Dependency] | Dependency | None

_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
MAX_NAME_LENGTH = 500


def check_name(kind: str, name: object) -> str:
    """Refuse a flow name or run id that is no text, empty, over long, or holds control characters."""
    if not isinstance(name, str):
        raise InvalidNameError(kind, name, f"it must be a string, not {type(name).__name__}")
    if not name.strip():
        raise InvalidNameError(kind, name, "it must not be empty")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidNameError(kind, name[:50] + "...", f"it is longer than {MAX_NAME_LENGTH} characters")
    if not name.isprintable() and re.search(_CONTROL, name):
        raise InvalidNameError(kind, name, "it must not hold control characters or lone surrogates")
    return name


def check_task_id(task_id: object, kind: str = "task id") -> str:
    """Refuse what cannot be a task id, or begin one: besides what no name may hold, `.` and `/` have a meaning in paths."""
    # What everyone takes is printable, which is quick to see; the sentence is looked for when there is need of one.
    if isinstance(task_id, str) and task_id.strip() and len(task_id) <= MAX_NAME_LENGTH:
        is_clean = task_id.isprintable() or not re.search(_CONTROL, task_id)
        if is_clean and "." not in task_id and "/" not in task_id:
            return task_id
    check_name(kind, task_id)
    raise InvalidNameError(kind, task_id, "it must not hold '.' or '/' (a dot joins the path into a subflow)")


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """One task of a flow as it was declared."""

    task_id: str
    function: TaskFunction | None = None
    """What was decorated; None where the task is a subflow."""
    called: Called | None = None
    """What an attempt calls with the context: mostly the function itself. Of a subflow, what is asked before its run is made."""
    is_async: bool = False
    child: FlowDefinition | None = None
    """The nested flow; None where the task is a function."""
    params: SubflowParams = None
    """A subflow's own params, or a function of the parent's context that makes them."""
    depends_on: tuple[str, ...] = ()
    retry: RetryPolicy = NO_RETRY
    options: TaskOptions = DEFAULT
    rules: TaskRules = PLAIN
    name: str | None = None
    description: str | None = None
    factory: Callable[..., Any] | None = None
    """The function that was decorated to make the nested flow, if one was."""
    group: Group | None = None
    """The names that its code goes by, where it was included from another flow."""

    @property
    def handle(self) -> Callable[..., Any] | None:
        """The function that may be named in the id's place; None where there is none."""
        return self.factory if self.function is None else self.function

    @property
    def type(self) -> TaskType:
        """Whether this is a function or a nested flow."""
        return TaskType.TASK if self.child is None else TaskType.FLOW


@dataclass(slots=True, eq=False)
class FlowDefinition:
    """A flow's name and its tasks, in the order in which they were declared. Children are held by reference."""

    name: str
    tasks: dict[str, TaskDefinition] = field(default_factory=dict)
    redact: Redact | None = None
    """Takes the secrets out of texts that are kept; it holds for the flows nested in this one too."""
    executor: ExecutorChoice = None
    """Where functions run that do not say so themselves; None is "thread"."""
    executors: Mapping[str, SubmitsWork] = field(default_factory=dict[str, SubmitsWork])
    """Executors by name, for the tasks of this flow and of those nested in it."""
    says_where: bool = False
    """Whether it, or one of its tasks, says where or how attempts are to run: then that is to be looked at before a run."""
    rules: dict[str, TaskRules] = field(default_factory=dict[str, TaskRules])
    """Of those tasks that say whether they run, or for which items."""
    has_groups: bool = False
    """Whether some of its tasks were included from other flows, and may call others by other names than their ids."""
    _ids_of: dict[Any, list[str]] = field(default_factory=dict)
    _graph: Graph | None = None
    _snapped: bool = False
    """Whether a run may hold on to `tasks`: then they are copied before they change."""
    _graph_text: tuple[Graph, str] | None = None
    """Kept together with the graph that it is the text of."""

    def __post_init__(self) -> None:
        check_name("flow name", self.name)

    # --- declaring ---

    def add_task(
        self,
        task_id: str,
        function: TaskFunction,
        *,
        depends_on: Dependencies = None,
        retry: RetryPolicy = NO_RETRY,
        options: TaskOptions = DEFAULT,
        rules: TaskRules = PLAIN,
        task_type: TaskType | str | None = None,
        name: str | None = None,
        description: str | None = None,
        replace_task: bool = False,
    ) -> None:
        """Declare a task that calls `function`; see `AsyncFlow.add_task_definition`."""
        check_task_id(task_id)
        if task_type is not None and task_type != TaskType.TASK:
            expected = f'"task" or left out (a nested flow is declared with add_subflow_definition), not {task_type!r}'
            raise InvalidOptionError("task_type", task_type, expected, task_id)
        upstream = self._resolve(task_id, depends_on)
        if rules is not PLAIN:
            upstream, rules = self._resolve_rules(task_id, upstream, rules)
        called, is_async = function, plain_kind(function)
        if is_async is None or rules.run_if is not None:
            from .calling import task_call  # late: most functions take the context alone

            called, is_async = task_call(task_id, function, upstream, rules.map_over is not None, rules.run_if)
        self._add(
            TaskDefinition(
                task_id,
                function,
                called,
                is_async,
                depends_on=upstream,
                retry=retry,
                options=options,
                rules=rules,
                name=name,
                description=description,
            ),
            replace_task,
        )
        try:
            self._ids_of.setdefault(function, []).append(task_id)
        except TypeError:
            pass  # an unhashable callable serves as a task, it only cannot be named as a dependency by itself

    def add_subflow(
        self,
        task_id: str,
        child: FlowDefinition,
        *,
        depends_on: Dependencies = None,
        retry: RetryPolicy = NO_RETRY,
        params: SubflowParams = None,
        rules: TaskRules = PLAIN,
        name: str | None = None,
        description: str | None = None,
        replace_task: bool = False,
        factory: Callable[..., Any] | None = None,
    ) -> None:
        """Declare a task that is a whole flow; see `AsyncFlow.add_subflow_definition`."""
        check_task_id(task_id)
        path = child.path_to(self)
        if path is not None:
            raise NestedFlowError(self.name, (task_id, *path))
        upstream = self._resolve(task_id, depends_on)
        if rules is not PLAIN:
            upstream, rules = self._resolve_rules(task_id, upstream, rules)
        called = None
        if params is not None or rules.run_if is not None:
            from .calling import subflow_call  # late: few subflows have any

            called = subflow_call(task_id, params, upstream, rules.map_over is not None, rules.run_if)
        self._add(
            TaskDefinition(
                task_id,
                called=called,
                child=child,
                params=params,
                depends_on=upstream,
                retry=retry,
                rules=rules,
                name=name,
                description=description,
                factory=factory,
            ),
            replace_task,
        )
        if factory is not None:
            self._ids_of.setdefault(factory, []).append(task_id)

    def _add(self, definition: TaskDefinition, replace_task: bool) -> None:
        if definition.task_id in self.tasks:
            if not replace_task:
                raise DuplicateTaskError(self.name, definition.task_id)
            for task_ids in self._ids_of.values():
                if definition.task_id in task_ids:
                    task_ids.remove(definition.task_id)
        self._changeable()[definition.task_id] = definition
        self.says_where = self.says_where or definition.options is not DEFAULT
        if definition.rules is not PLAIN:
            self.rules[definition.task_id] = definition.rules
        elif self.rules:
            self.rules.pop(definition.task_id, None)
        self._graph = None

    def _resolve(self, task_id: str, depends_on: Dependencies) -> tuple[str, ...]:
        """Ids of the dependencies, which may be given as ids or as the functions that were decorated."""
        if depends_on is None:
            return ()
        if isinstance(depends_on, str) or callable(depends_on):
            depends_on = (depends_on,)
        elif not isinstance(depends_on, Iterable):
            raise InvalidOptionError("depends_on", depends_on, "ids of tasks, or the functions themselves", task_id)
        return tuple(
            self._own(dependency) if isinstance(dependency, str) else self.task_of(task_id, dependency)
            for dependency in depends_on
        )

    def _resolve_rules(self, task_id: str, upstream: tuple[str, ...], rules: TaskRules) -> tuple[tuple[str, ...], TaskRules]:
        """The rules with the id of the task that is mapped over, which is a dependency as well."""
        if rules.map_over is None:
            return upstream, rules
        given: Any = rules.map_over  # or the function that was decorated
        if not isinstance(given, str) and not callable(given):
            raise InvalidOptionError("map_over", given, "the id of a task, or the function itself", task_id)
        (map_over,) = self._resolve(task_id, given)
        return (upstream if map_over in upstream else (*upstream, map_over)), replace(rules, map_over=map_over)

    def _own(self, task_id: str) -> str:
        """The very string that the task was declared with, so that each id is in memory once."""
        task = self.tasks.get(task_id)
        return task_id if task is None else task.task_id

    def tasks_of(self, function: object) -> Sequence[str]:
        """The ids of the tasks that were declared with a function."""
        try:
            return self._ids_of.get(function, ())
        except TypeError:  # it is unhashable
            return ()

    def task_of(self, task_id: str, function: Dependency, meant: Callable[[Sequence[str]], Sequence[str]] | None = None) -> str:
        """The id of the task that a function was declared as, where the task `task_id` names it.

        Args:
            task_id: the task that names it.
            function: the function.
            meant: says which of several tasks that have the function it may mean.

        Raises:
            UnknownDependencyError: it is no task of this flow.
            AmbiguousDependencyError: it is several, and could mean more than one.
        """
        task_ids = self.tasks_of(function)
        if len(task_ids) > 1 and meant is not None:
            task_ids = meant(task_ids)
        label = function_name(function)
        if not task_ids:
            raise UnknownDependencyError(self.name, task_id, label)
        if len(task_ids) > 1:
            raise AmbiguousDependencyError(task_id, label, task_ids)
        return task_ids[0]

    def set_retry(self, task_id: str, retry: RetryPolicy) -> None:
        """Give a declared task another retry policy."""
        definition = replace(self.get(task_id), retry=retry)
        self._changeable()[task_id] = definition

    def copy_from(self, other: FlowDefinition) -> None:
        """Take over all tasks of another definition, which stays independent of this one, and what it says of them."""
        self.take(other.tasks, other._ids_of)
        self.says_where = self.says_where or other.says_where
        self.executors, self.redact = other.executors, other.redact

    def take(self, tasks: Mapping[str, TaskDefinition], ids_of: Mapping[Any, Sequence[str]]) -> None:
        """Take over definitions that were checked, in place of those of the same ids.

        Args:
            tasks: the definitions, by id.
            ids_of: the ids that each function of theirs serves.
        """
        if not self.tasks.keys().isdisjoint(tasks):
            for known in self._ids_of.values():
                known[:] = [task_id for task_id in known if task_id not in tasks]
        self._changeable().update(tasks)
        for task_id, task in tasks.items():
            self.says_where = self.says_where or task.options is not DEFAULT
            self.has_groups = self.has_groups or task.group is not None
            if task.rules is not PLAIN:
                self.rules[task_id] = task.rules
            else:
                self.rules.pop(task_id, None)
        for function, task_ids in ids_of.items():
            self._ids_of.setdefault(function, []).extend(task_ids)
        self._graph = None

    def _changeable(self) -> dict[str, TaskDefinition]:
        if self._snapped:
            self.tasks, self._snapped = dict(self.tasks), False
        return self.tasks

    # --- asking ---

    def snapshot(self) -> Mapping[str, TaskDefinition]:
        """The tasks as they are now, whatever is declared later. Costs nothing until then."""
        self._snapped = True
        return self.tasks

    def get(self, task_id: str) -> TaskDefinition:
        """The definition of that id.

        Raises:
            UnknownTaskError: there is none; the error suggests a near name.
        """
        definition = self.tasks.get(task_id)
        if definition is None:
            raise UnknownTaskError(f"Flow {self.name!r}", task_id, closest(str(task_id), self.tasks))
        return definition

    def choice_of(self, task: TaskDefinition) -> ExecutorChoice:
        """Where a task's function is to run, as the task says, or else the flow.

        None is the usual: the event loop for a coroutine function, which leaves that only if its task says so; a thread for any
        other, and for what makes a subflow's params, which is a function of ours and cannot travel.
        """
        if task.options.executor is not None:
            return task.options.executor
        return None if task.is_async or task.child is not None else self.executor

    def path_to(self, wanted: FlowDefinition) -> tuple[str, ...] | None:
        """The subflow ids that lead from this flow down to `wanted` (none at all to itself), or None."""
        seen: set[int] = set()
        waiting: list[tuple[FlowDefinition, tuple[str, ...]]] = [(self, ())]
        while waiting:
            flow, path = waiting.pop()
            if flow is wanted:
                return path
            if id(flow) not in seen:
                seen.add(id(flow))
                waiting.extend((task.child, (*path, task.task_id)) for task in flow.tasks.values() if task.child)
        return None

    def graph(self) -> Graph:
        """The checked graph of this flow's own tasks.

        Raises:
            UnknownDependencyError, CycleError: as `Graph` does.
        """
        if self._graph is None:
            from .graph import Graph  # late: a program may declare flows, and run none

            graph = Graph({task_id: task.depends_on for task_id, task in self.tasks.items()}, self.name)
            if self.rules:
                self._check_maps()
            self._graph = graph
        return self._graph

    def _check_maps(self) -> None:
        """Refuse keys for the items of a task that takes over those of another, and tasks that are called like items."""
        mapped = {task_id: rules.map_over for task_id, rules in self.rules.items() if rules.map_over is not None}
        for task_id, map_over in mapped.items():
            if map_over in mapped and self.rules[task_id].map_key is not None:
                expected = f"left out: {map_over!r} is mapped itself, and its items keep their keys"
                raise InvalidOptionError("map_key", self.rules[task_id].map_key, expected, task_id)
        if mapped:
            for task_id in self.tasks:
                if task_id.endswith("]") and task_id.partition("[")[0] in mapped:
                    whole = task_id.partition("[")[0]
                    raise InvalidNameError("task id", task_id, f"so are the items of {whole!r} called, which is mapped")

    def validate(self) -> bool:
        """Check the graphs of this flow and of all flows nested in it; whether one of them says where its tasks run."""
        seen: set[int] = set()
        says_where = False
        waiting: list[FlowDefinition] = [self]
        while waiting:
            flow = waiting.pop()
            if id(flow) in seen:
                continue
            seen.add(id(flow))
            flow.graph()
            says_where = says_where or flow.says_where
            waiting.extend(task.child for task in flow.tasks.values() if task.child is not None)
        return says_where

    # --- comparing with what a run was made with ---

    def graph_text(self) -> str:
        """The graph as text that is stored with a run: each task's dependencies, and the flow it nests if any."""
        graph = self.graph()
        if self._graph_text is None or self._graph_text[0] is not graph:  # it was changed since
            self._graph_text = graph, _text_of(self.tasks.values(), graph)
        return self._graph_text[1]

    def _graph_rows(self) -> dict[str, Sequence[Any]]:
        graph = self.graph()
        return {task_id: (*dict.fromkeys(task.depends_on), *_beyond_edges(task, graph)) for task_id, task in self.tasks.items()}

    def check_graph(self, run_id: str, stored: str) -> None:
        """Hold this flow's graph against the one that a run was made with (empty text: nobody said).

        Raises:
            GraphChangedError: they differ in a task, a dependency or a kind of task. (Another order is no difference.)
        """
        added, removed, changed = self.changes_since(stored)
        if added or removed or changed:
            raise GraphChangedError(run_id, self.name, added, removed, changed)

    def changes_since(self, stored: str) -> tuple[list[str], list[str], list[str]]:
        """Which tasks were added, removed, and changed since a run was made with a graph (empty text: nobody said)."""
        if not stored or stored == self.graph_text():
            return [], [], []
        then: dict[str, list[Any]] = {task_id: _comparable(row) for task_id, row in json.loads(stored).items()}
        now = {task_id: _comparable(row) for task_id, row in self._graph_rows().items()}
        return (
            [task_id for task_id in now if task_id not in then],
            [task_id for task_id in then if task_id not in now],
            [task_id for task_id in now if task_id in then and now[task_id] != then[task_id]],
        )


def _text_of(tasks: Iterable[TaskDefinition], graph: Graph) -> str:
    """What `json.dumps` makes of `{task_id: [*depends_on, what is beyond edges]}`, put together in a third of the time."""
    quoted = encode_basestring_ascii
    rows: list[str] = []
    for task in tasks:
        ids = task.depends_on if len(task.depends_on) < 2 else dict.fromkeys(task.depends_on)
        row = [quoted(task_id) for task_id in ids]
        if task.child is not None or task.rules is not PLAIN:
            row += [json.dumps(beyond, separators=(",", ":")) for beyond in _beyond_edges(task, graph)]
        rows.append(f"{quoted(task.task_id)}:[{','.join(row)}]")
    return f"{{{','.join(rows)}}}"


def _beyond_edges(task: TaskDefinition, graph: Graph) -> list[dict[str, Any]]:
    """What else a run goes by, if anything: the flow that a task nests, and by what it runs or not, and for which items.

    Of a branch that was included, also by which other names than their ids it may choose tasks: who reads the run later may not
    have the flow.
    """
    rules = task.rules
    found: dict[str, Any] = {}
    if task.child is not None:
        found["flow"] = task.child.name
    if rules.map_over is not None:
        found["map_over"] = rules.map_over
    if rules.branch:
        known = {} if rules.group is None else rules.group.names_for(graph.downstream(task.task_id))
        found["branch"] = {name: task_id for name, task_id in known.items() if name != task_id} or True
    if rules.trigger_rule is not None:
        found["trigger_rule"] = rules.trigger_rule.value
    return [found] if found else []


def nested_flows(graph_text: str) -> dict[str, str]:
    """The names of the flows that are nested in a graph, by task id, as `graph_text` wrote them."""
    rows: dict[str, list[Any]] = json.loads(graph_text) if graph_text else {}
    return {task_id: row[-1]["flow"] for task_id, row in rows.items() if row and isinstance(row[-1], dict) and "flow" in row[-1]}


def mapped_tasks(graph_text: str) -> dict[str, str]:
    """What tasks of a graph map over, by task id, as `graph_text` wrote them."""
    rows: dict[str, list[Any]] = json.loads(graph_text) if graph_text else {}
    return {
        task_id: row[-1]["map_over"]
        for task_id, row in rows.items()
        if row and isinstance(row[-1], dict) and "map_over" in row[-1]
    }


def _comparable(row: Sequence[Any]) -> list[Any]:
    return sorted(row, key=str)


def flow_definition(
    name: str, redact: Redact | None, executor: ExecutorChoice, executors: Mapping[str, SubmitsWork] | None
) -> FlowDefinition:
    """An empty definition of a flow, what it says of executors checked.

    Raises:
        InvalidNameError, InvalidOptionError: what makes no sense.
    """
    if executors is None:
        executors = {}
    if not isinstance(executors, Mapping) or not all(isinstance(key, str) and key and key not in OWN for key in executors):
        expected = f"a mapping from names, other than {', '.join(OWN)}, to executors"
        raise InvalidOptionError("executors", executors, expected)
    for given in executors.values():
        if given is None or isinstance(given, str):
            raise InvalidOptionError("executors", given, "an object with submit(), as a ProcessPoolExecutor")
        check_executor(given)
    definition = FlowDefinition(name, redact=redact, executor=check_executor(executor), executors=dict(executors))
    definition.says_where = executor is not None
    return definition
