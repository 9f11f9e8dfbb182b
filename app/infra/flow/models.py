"""The data people hold in their hands: states, task instances, attempts, runs.

Plain values only. Must not know asyncio, a clock, a store or how values are written down.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import field
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, cast

from .errors import RunFailedError
from .late_dataclass import dataclass


class StringEnum(str, Enum):
    """Members equal, format and print as their own strings (`enum.StrEnum` starts with Python 3.11)."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(str(self.value), spec)


class ExecutionState(StringEnum):
    """Where a task or a run stands. Members compare equal to their lower-case strings: `state == "success"`."""

    NONE = "none"
    """Defined, but there is no run (only seen in the details of a subflow that has not started)."""
    SCHEDULED = "scheduled"
    """Waiting: for upstream tasks, for a free slot, for the next attempt, or for somebody to continue the run."""
    RUNNING = "running"
    """An attempt is under way; of a subflow, its own run; of a mapped task, items of it."""
    SUCCESS = "success"
    FAILED = "failed"
    """No attempt is left; of a mapped task, items of it failed. It fails the run."""
    SKIPPED = "skipped"
    """Not run: its trigger rule was not met, a branch did not choose it, or it said so itself. `TaskInstance.reason` says why.

    For what is downstream it counts as failed where a failure further up is the cause, else as skipped; see `TriggerRule`.
    """
    CANCELLED = "cancelled"
    """Somebody cancelled it, or the whole run. What is downstream takes it for a failure, and it fails the run."""

    @staticmethod
    def is_terminal(state: ExecutionState | str) -> bool:
        """Whether `state` is one that only a manual retry leaves. Takes a member or its string."""
        return state in TERMINAL_STATES


TERMINAL_STATES: frozenset[ExecutionState] = frozenset(
    {ExecutionState.SUCCESS, ExecutionState.FAILED, ExecutionState.SKIPPED, ExecutionState.CANCELLED}
)

State = ExecutionState


class TaskType(StringEnum):
    """What a task is: a function, or a whole flow nested in this one."""

    TASK = "task"
    FLOW = "flow"


class AttemptResult(StringEnum):
    """How one attempt of a task ended. `running` is an attempt that has not."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """It was cut off, by the death of its process or since the run was stopped. Uses up no retry, but see `max_interruptions`."""
    CANCELLED = "cancelled"
    """Somebody cancelled the task, or the whole run."""
    SKIPPED = "skipped"
    """The task raised `SkipTask`, or its `run_if` said no; of a mapped task, all its items were skipped."""


class NoteKind(StringEnum):
    """What a note of a run tells; see `NoteRecord`."""

    DRIVE = "drive"
    """Somebody began to drive the run, or to drive it on."""
    INTERRUPT = "interrupt"
    """The run was stopped in an orderly way, to be continued some time."""
    RESET = "reset"
    """Tasks of it were set back: by a manual retry, or since the subflow that it is the inside of is tried again."""
    CANCEL = "cancel"
    """It, or a task of it, was cancelled while nobody drove it."""


def kind_name(kind: type) -> str:
    """How a class is called wherever it is compared by name: `package.module.Class`, `builtins.ValueError`.

    The module that a program was started with is `__main__` in a process started by it too, where Python calls it `__mp_main__`.
    """
    # Past whatever its own class makes of these attributes; the module is the only one that may be something else than a text.
    try:
        module: object = type.__dict__["__module__"].__get__(kind)
    except AttributeError:  # it was deleted
        module = None
    where = str.__str__(module) if isinstance(module, str) else "?"
    name = str.__str__(type.__dict__["__qualname__"].__get__(kind))
    return f"{'__main__' if where == '__mp_main__' else where}.{name}"


def kinds_of(kind: type) -> tuple[str, ...]:
    """The names of an exception's class and of all its bases, in the order in which Python looks through them."""
    return tuple([kind_name(base) for base in type.__dict__["__mro__"].__get__(kind) if base is not object])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, as a value: the exception's type, its message, and the full traceback text."""

    type_name: str
    message: str
    traceback: str
    kinds: tuple[str, ...] = ()
    """The exception's class and all its bases, as `kinds_of` names them: what a retry policy is matched with."""
    retry_after: float | None = None
    """In how many seconds it asked to be tried again (`RetryAfter`), where it did."""

    @property
    def summary(self) -> str:
        """`ValueError: bad row`, in one line and of bounded length, as reasons and reports show it."""
        first_line = self.message.strip().split("\n", 1)[0]
        text = f"{self.type_name}: {first_line}" if first_line else self.type_name
        return text if len(text) <= 500 else text[:497] + "..."


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that a task wrote with `ctx.log`."""

    at: datetime
    level: int
    """A level of the standard `logging` module."""
    message: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a task, as kept in the history of its run."""

    task_id: str
    number: int
    """Counts all attempts of the task in this run from 1 on, across interruptions and manual retries."""
    try_number: int
    """The 0-based index since the task was last reset, as `ctx.attempt_number` showed it."""
    result: AttemptResult
    start_date: datetime | None = None
    end_date: datetime | None = None
    error: str | None = None
    reason: str | None = None
    logs: tuple[LogEntry, ...] = ()
    worker: str | None = None
    """The process that drove the run when the attempt began: `process 123 on host`. For an attempt in a worker process or on
    somebody else's executor too it is the driving one. None where that was not noted, as by older versions."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change of the state of a run, or of a task of it, as `store.history` tells them."""

    at: datetime
    run_id: str
    task_id: str | None
    """The task whose state changed; None is the run itself."""
    from_state: ExecutionState
    """Of a run that was made just then: NONE."""
    to_state: ExecutionState
    attempt: int | None = None
    """The number of the task's attempt that began or ended with it, or of its latest one; None where there was none yet."""
    reason: str | None = None
    """Why, in one line, where there is more to say than the states do."""
    worker: str | None = None
    """The process that made the change: `process 123 on host`. None where that was not noted."""


@dataclass(frozen=True, slots=True)
class GraphNode:
    """What a graph says of one task: of a flow as it is declared (`flow.graph`), or as a run was made with it (`run.graph`)."""

    task_id: str
    type: TaskType = TaskType.TASK
    depends_on: tuple[str, ...] = ()
    """Its direct dependencies, that which it is mapped over included."""
    map_over: str | None = None
    """The task that it is mapped over."""
    trigger_rule: str = "all_success"
    branch: bool = False
    flow_name: str | None = None
    """Of a subflow: the flow that it nests."""
    name: str | None = None
    """Its name for people, where it was given one. A stored graph does not have it, nor what follows."""
    description: str | None = None
    inside: Mapping[str, GraphNode] | None = None
    """Of a subflow: the graph of the flow that it nests. Of a run's, see the run of the subflow."""


class LazyNodes(Mapping[str, GraphNode]):
    """A graph that is made out when somebody first looks at it.

    Args:
        make: gives the nodes, by task id.
    """

    __slots__ = ("_make", "_nodes")

    def __init__(self, make: Callable[[], Mapping[str, GraphNode]]) -> None:
        self._make = make
        self._nodes: Mapping[str, GraphNode] | None = None

    def __repr__(self) -> str:
        return repr(dict(self))

    def _known(self) -> Mapping[str, GraphNode]:
        if self._nodes is None:
            self._nodes = self._make()
        return self._nodes

    def __getitem__(self, task_id: str) -> GraphNode:
        return self._known()[task_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


@dataclass(slots=True)
class TaskInstance:
    """One task of one run, or one item of a mapped one. Dates are aware UTC datetimes, values Python values and not JSON text."""

    task_id: str
    """Of an item: `parse[0]`, or `parse[key]` where there are keys."""
    type: TaskType = TaskType.TASK
    """Of an item of a mapped subflow, too: FLOW."""
    state: ExecutionState = ExecutionState.SCHEDULED
    try_number: int = 0
    """The 0-based index of the latest attempt."""
    input_json: Any = None
    """What a subflow got as its params. Of a mapped task, once it has its list: the number of its items, or their keys. Of any
    other task None; the item itself is not stored here either."""
    output_json: Any = None
    """The task's result; None where it did not succeed. Of a subflow, once it has a run: `{"child_run_id": ..., "result": ...}`.
    Of a mapped task: the list of its items' results, with None for those that were skipped. Of a branch: what it chose."""
    error: str | None = None
    """The full traceback text of the latest attempt, where it failed. Of a mapped task: which items failed, one to a line."""
    start_date: datetime | None = None
    """When the latest attempt began; None where none did, as of a task that was skipped by its trigger rule."""
    end_date: datetime | None = None
    """When the latest attempt ended, or the task was skipped or cancelled without one."""
    reason: str | None = None
    """Why it failed, was skipped, was cancelled or waits for another attempt, in one line."""
    next_attempt_at: datetime | None = None
    """When the next attempt is due, while the task waits for one."""
    interruptions: int = 0
    """How many attempts, since the task was last reset, were cut off: by a cancellation or the death of their process."""
    logs: list[LogEntry] = field(default_factory=list)
    """What the latest attempt wrote with `ctx.log`."""
    crashes: int = 0
    """How many of these interruptions were deaths of the process: they count against `max_interruptions`."""

    @property
    def child_run_id(self) -> str | None:
        """The id of a subflow's own run, once it has one. A mapped subflow has none; its items have one each."""
        child = self._of_subflow("child_run_id", None)
        return child if isinstance(child, str) else None

    @property
    def output(self) -> Any:
        """What `ctx.pull_output` gives for this task: `output_json`, and of a subflow its `result`."""
        return self._of_subflow("result", self.output_json)

    def _of_subflow(self, key: str, otherwise: Any) -> Any:
        if self.type is TaskType.FLOW and isinstance(self.output_json, dict):
            content = cast("dict[str, Any]", self.output_json)
            return content.get(key)
        return otherwise


class RunLoader(Protocol):
    """What `WorkflowRun.get_all_tasks_recursive` needs of a store."""

    def load(self, run_id: str) -> WorkflowRun:
        """The run of that id."""
        ...


@dataclass(slots=True, repr=False)
class WorkflowRun:
    """One run of a flow, with all its task instances."""

    id: str
    flow_name: str
    params: dict[str, Any] = field(default_factory=dict)
    state: ExecutionState = ExecutionState.SCHEDULED
    start_date: datetime | None = None
    end_date: datetime | None = None
    tasks: Mapping[str, TaskInstance] = field(default_factory=dict)
    """The task instances by id, in the order of their definition; behind them the items of mapped tasks, as `parse[0]`."""
    parent_run_id: str | None = None
    """Of a subflow's run: the run that it is part of ..."""
    parent_task_id: str | None = None
    """... and the task in it that it is the inside of."""
    graph: Mapping[str, GraphNode] = field(default_factory=dict, compare=False)
    """The graph that the run was made with, by task id, items of mapped tasks apart. Empty where nobody said: of runs that people
    wrote by `save`. It is for looking at, and `save` does not write it."""

    def __repr__(self) -> str:
        # Short: asyncio.run makes the text of its result's task (by way of the signal module), for nobody to see.
        return f"<WorkflowRun {self.id!r} of flow {self.flow_name!r}, {self.state}, {len(self.tasks)} tasks>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the graph with the states of its tasks."""
        from .around import around  # late: few programs look at runs in a notebook

        return str(around("pictures.flows", "html_of_run")(self))

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None, **_: Any
    ) -> dict[str, str]:
        """What a notebook shows, by kind; see IPython's rich display."""
        from .around import bundle  # late: few programs look at runs in a notebook

        return bundle(repr(self), self._repr_html_, include, exclude)

    def raise_for_failure(self) -> WorkflowRun:
        """Raise `RunFailedError`, naming each task that failed or was cancelled with its cause, if the run did or was.

        Of a mapped task both the whole and those of its items are named.

        Of a run that was cancelled as a whole, those that were cancelled with it are left out.

        Returns the run itself otherwise, so that calls chain.
        """
        if self.state not in (ExecutionState.FAILED, ExecutionState.CANCELLED):
            return self
        causes = {ExecutionState.FAILED, *([] if self.state is ExecutionState.CANCELLED else [ExecutionState.CANCELLED])}
        failures = {
            task_id: task.reason or "no reason was recorded" for task_id, task in self.tasks.items() if task.state in causes
        }
        raise RunFailedError(self.id, self.flow_name, self.state.value, failures)

    def get_all_tasks_recursive(self, store: RunLoader) -> dict[str, TaskInstance]:
        """Every task of this run and of the subflow runs below it, by dotted path: `{"sub.task": ..., "each[0].task": ...}`.

        A subflow's own task instance is in it too, under its own path, before the tasks inside it.
        """
        found: dict[str, TaskInstance] = {}
        # A stack of open levels instead of recursion: flows may nest deeper than Python's own stack.
        levels: list[tuple[str, Iterable[TaskInstance]]] = [("", iter(self.tasks.values()))]
        while levels:
            prefix, remaining = levels[-1]
            for task in remaining:
                path = prefix + task.task_id
                found[path] = task
                if task.child_run_id is not None:
                    inside = store.load(task.child_run_id).tasks.values()
                    levels.append((path + ".", iter(inside)))
                    break
            else:
                levels.pop()
        return found
