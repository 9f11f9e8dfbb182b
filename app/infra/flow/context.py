"""Context: what a task is handed, and the only thing it sees of the engine.

What it needs of its run comes through the `Scope` protocol, so the same context serves wherever an attempt runs. Must not know a
store, the loop or an executor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from .codec import ValueCodec
from .errors import InvalidOptionError, NoCurrentTaskError, UnstorableValueError, abridged, place_of, printable
from .models import TaskInstance, WorkflowRun
from .records import TaskRecord
from .views import encode_logs

if TYPE_CHECKING:
    from .snapshot import Snapshot
    from .task_handles import MappedTask, NestedFlow

T = TypeVar("T")


class Scope(Protocol):
    """What a context asks of the run that its task belongs to. Called from whatever thread the task runs in."""

    @property
    def codec(self) -> ValueCodec:
        """How values of this run are written and read."""
        ...

    @property
    def logger(self) -> logging.Logger:
        """The logger of the flow."""
        ...

    @property
    def params(self) -> Mapping[str, str]:
        """The run's params as they stand, each as stored text."""
        ...

    @property
    def identity(self) -> dict[str, str]:
        """What a log record says of the run: `flow_name` and `run_id`."""
        ...

    def now(self) -> int:
        """The time, in microseconds since 1970 UTC."""
        ...

    def redact(self, text: str) -> str:
        """A text of a user's without its secrets, so that it can be kept and shown."""
        ...

    @property
    def has_groups(self) -> bool:
        """Whether tasks may call others by other names than their ids, having been included from another flow."""
        ...

    def id_of(self, task_id: str, name: str) -> str:
        """The id of the task that the task `task_id` means by a name."""
        ...

    def task_of(self, task_id: str, function: Callable[..., Any]) -> str:
        """The id of the task that the task `task_id` means by a decorated function."""
        ...

    def pull(self, task_id: str, wanted: str) -> Any:
        """A fresh copy of the output of the task `wanted`, for the task `task_id`."""
        ...

    def run_model(self, params: dict[str, Any]) -> WorkflowRun:
        """The run as it stands."""
        ...

    def item(self, task_id: str) -> tuple[str | None, int] | None:
        """The stored text of a mapped task's item, and its place in the list; None for a task that is not mapped."""
        ...

    def beat(self) -> float:
        """The time of a sign of life, in seconds of the clock by which the run measures durations."""
        ...

    def snapshot(self, task_id: str) -> Snapshot:
        """What a task may see of the run, as a value that can be sent to another process. May read a store."""
        ...


MAX_LOG_LINES = 10_000
"""Lines of log that one attempt keeps in the store."""
MAX_LOG_LINE = 64 * 1024
"""Characters of one of them."""
MAX_LOG_SIZE = 2**20
"""Characters of all of them together."""


class Context:
    """Handed to each task as its one argument: one context per attempt."""

    __slots__ = (
        "_cancelled",
        "_last_beat",
        "_log_lines_left_out",
        "_log_size",
        "_logs",
        "_params",
        "_pushed",
        "_record",
        "_run",
        "_scope",
        "attempt_number",
        "task_id",
    )

    task_id: str
    """The id of the task; in a mapped one, that of the item: `parse[3]`."""
    attempt_number: int
    """The 0-based index of this attempt: above 0, it is not the first."""

    def __init__(self, scope: Scope, record: TaskRecord) -> None:
        self._scope = scope
        self._record = record
        self.task_id = record.task_id
        self.attempt_number = record.try_number
        self._params: tuple[dict[str, Any], Mapping[str, str]] | None = None
        self._pushed: str | None = None
        self._logs: list[tuple[int, int, str]] = []
        self._log_size = 0
        self._log_lines_left_out = 0
        self._run: WorkflowRun | None = None
        self._last_beat: float | None = None
        self._cancelled = False

    def __repr__(self) -> str:
        identity = self._scope.identity
        return f"<Context of task {self.task_id!r}, attempt {self.attempt_number}, run {identity['run_id']!r}>"

    @property
    def idempotency_key(self) -> str:
        """`<run id>/<task id>`: the same at every attempt of this task in this run, restarts and manual retries included.

        A task whose process dies between its work and its commit runs again. Where the work is an effect on somebody else, give
        them the key, so that they take the second request for the first one come again:

            requests.post(url, json=order, headers={"Idempotency-Key": ctx.idempotency_key})

        It leaves the attempt apart on purpose; that is `attempt_number`.
        """
        return f"{self._scope.identity['run_id']}/{self.task_id}"

    @property
    def params(self) -> dict[str, Any]:
        """The run's params, shared by its tasks.

        A task gets them as they stand when it first looks. What it changes in them (key by key) is saved with its success,
        and seen by the tasks that look after that; changes of an attempt that fails are dropped.
        """
        if self._params is None:
            texts = dict(self._scope.params)
            decode = self._scope.codec.decode
            self._params = ({key: decode(text) for key, text in texts.items()}, texts)
        return self._params[0]

    @property
    def workflow_run(self) -> WorkflowRun:
        """The run as it stands; its `tasks` are looked up live. For reading: changes to it, but for `params`, go nowhere."""
        if self._run is None:
            self._run = self._scope.run_model(self.params)
        return self._run

    run = workflow_run

    @property
    def task_instance(self) -> TaskInstance:
        """This task's own instance as it stands. For reading: changes to it go nowhere."""
        return self.workflow_run.tasks[self.task_id]

    # In the order in which a type checker is to try them: what is mapped, and what makes a subflow, is a function as well.
    @overload
    def pull_output(self, task_id: str) -> Any: ...

    @overload
    def pull_output(self, task_id: MappedTask[..., NestedFlow]) -> list[Any]: ...

    @overload
    def pull_output(self, task_id: MappedTask[..., Coroutine[Any, Any, T]]) -> list[T]: ...

    @overload
    def pull_output(self, task_id: MappedTask[..., T]) -> list[T]: ...

    @overload
    def pull_output(self, task_id: Callable[..., NestedFlow]) -> Any: ...

    @overload
    def pull_output(self, task_id: Callable[..., Coroutine[Any, Any, T]]) -> T: ...

    @overload
    def pull_output(self, task_id: Callable[..., T]) -> T: ...

    def pull_output(self, task_id: str | Callable[..., Any]) -> Any:
        """The output of an upstream task, near or far; None if that task did not succeed. Each call makes a copy of its own.

        None, too, of the task that a mapped one has its items from one by one, whether that has ended or not; its own item's,
        `ctx.item`, is there.

        Args:
            task_id: the id of the task (`"parse[3]"` is one item of a mapped one), or the decorated function itself: then a type
                checker knows what comes out, which is what the function returns (awaited), a list of that if it is mapped, and
                anything if it makes a subflow. It trusts that the task succeeded, and that it pushed nothing of another type. A
                function that serves several tasks stands for the one that this task depends on.

        Raises:
            UnknownTaskError: the flow has no such task.
            NotUpstreamError: the task is not upstream of this one, so it may not have run.
            UnknownDependencyError: the function is no task of the flow.
            AmbiguousDependencyError: the function serves several tasks that could be meant.
            NotSentError: this runs in another process, and the output was not sent along, since the task is no direct dependency
                (or an item of one).
            CannotTravelError: likewise, and the function is known by no name there: pull it by its id.
        """
        scope, wanted = self._scope, task_id
        if callable(wanted):
            wanted = scope.task_of(self.task_id, wanted)
        elif scope.has_groups:
            wanted = scope.id_of(self.task_id, wanted)
        return scope.pull(self.task_id, wanted)

    pull = pull_output

    @property
    def item(self) -> Any:
        """In a mapped task, the item that this instance is for: a copy of its own each time. None in any other task.

        Of a task that maps over a mapped one, it is the output of that item's instance; None if that did not succeed.
        """
        found = self._scope.item(self.task_id)
        return None if found is None or found[0] is None else self._scope.codec.decode(found[0])

    @property
    def map_index(self) -> int | None:
        """In a mapped task, the place of its item in the list, from 0 on. None in any other task."""
        found = self._scope.item(self.task_id)
        return None if found is None else found[1]

    def push_output(self, value: Any) -> None:
        """Set this task's output, as it is now; wins over what the function returns, and the last call wins.

        Raises:
            UnstorableValueError: the value holds something that cannot be stored; says what and where.
        """
        self._pushed = self._scope.codec.encode(value, "output", self.task_id)

    push = push_output

    @property
    def cancelled(self) -> bool:
        """Whether this attempt was asked to end: its run is cancelled or stopped, or its time is up.

        For plain functions, which nobody can interrupt: one that works for long looks at it now and then, and returns or raises.
        A coroutine gets a CancelledError instead; a worker process is ended.
        """
        return self._cancelled

    def heartbeat(self) -> None:
        """Say that the task is alive and getting on. May be called as often as one likes, from any thread."""
        self._last_beat = self._scope.beat()

    def log(self, message: object, level: int = logging.INFO) -> None:
        """Write a line to the flow's logger (`night_batch.<flow name>`) and keep it with this attempt in the store.

        The log record carries `flow_name`, `run_id`, `task_id` and `attempt_number` (`attempt` for short). The line is
        kept and written without what the flow's `redact` takes out of it; in the logger, characters that could steer a terminal
        are escaped. The store keeps 10,000 lines and 1 MiB of an attempt, and says how many lines it left out.

        Args:
            message: the line; anything else than a string is converted.
            level: a level of the standard `logging` module.

        Raises:
            InvalidOptionError: the level is no whole number.
        """
        if not isinstance(level, int):
            raise InvalidOptionError("level", level, "a level of the logging module, such as logging.INFO", self.task_id)
        level = int(level)  # the bare number, of an enum's member too: what is kept has to be storable
        self._take_line(self._scope.now(), level, str.__str__(str(message)), 3)

    def _take_line(self, moment: int, level: int, line: str, stack_level: int = 1) -> None:
        """Keep a line of log, and give it to the logger, which looks for its writer so many frames up."""
        text = self._scope.redact(line)
        kept = abridged(text, MAX_LOG_LINE)
        full = len(self._logs) >= MAX_LOG_LINES or self._log_size + len(kept) > MAX_LOG_SIZE
        if full or self._log_lines_left_out:  # once there is a gap, all that follows is in it
            self._log_lines_left_out += 1
        else:
            self._logs.append((moment, level, kept))
            self._log_size += len(kept)
        logger = self._scope.logger
        if logger.isEnabledFor(level):
            attempt = self.attempt_number
            # Under both names: the context's own, and the shorter one that people guess when they write a format string.
            extra = {**self._scope.identity, "task_id": self.task_id, "attempt_number": attempt, "attempt": attempt}
            logger.log(level, "%s", printable(text), extra=extra, stacklevel=stack_level)

    # --- for whoever runs the attempt ---

    def _output_text(self, returned: Any) -> str:
        """The stored text of the attempt's output, given what its function returned."""
        if self._pushed is not None:
            return self._pushed
        return self._scope.codec.encode(returned, "output", self.task_id)

    def _changed_params(self) -> dict[str, str | None] | None:
        """The params that the attempt changed, as stored text; None for one that it deleted. None if it never looked at them."""
        if self._params is None:
            return None
        params, before = self._params
        changed: dict[str, str | None] = {key: None for key in before if key not in params}
        for key, value in params.items():
            if type(key) is not str:
                raise UnstorableValueError(place_of(key, "params"), type(key).__name__, "param names are strings", self.task_id)
            text = self._scope.codec.encode(value, place_of(key, "params"), self.task_id)
            if text != before.get(key):
                changed[key] = text
        return changed

    def _logs_text(self) -> str | None:
        """The stored text of what the attempt logged."""
        logs = self._logs
        if not logs:
            return None
        if self._log_lines_left_out:
            last = f"... {self._log_lines_left_out:,} more lines were left out here; the logger got them all"
            logs = [*logs, (logs[-1][0], logging.WARNING, last)]
        return encode_logs(logs, self._scope.codec)


_current: ContextVar[Context] = ContextVar("night_batch_context")
"""The context of the attempt that the running code belongs to. Who runs it sets this, in a copy of the caller's variables."""


def current_context() -> Context:
    """The context of the task that is running, for code below it that was not handed one: helpers, loggers, libraries.

    It is known in coroutines, in threads that carry on the context variables (`asyncio.to_thread` does), and wherever an executor
    ran the task.

    Raises:
        NoCurrentTaskError: no task is running here.
    """
    context = _current.get(None)
    if context is None:
        raise NoCurrentTaskError
    return context
