"""Attempts that are made in another process: what is sent there, how it is run there, and what comes back.

A function goes by its name, values go as the codec's text, and text comes back. The one room that pickles, and never anything
that a store holds. Must not know a store, a run, or what process it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from types import FunctionType
from typing import Any, cast

from .context import MAX_LOG_LINES, Context, _current
from .errors import CannotTravelError, shown, skip_reason
from .late_dataclass import dataclass
from .models import Failure
from .snapshot import Snapshot

Line = tuple[int, int, str]
"""A line of log: its moment, its level, its text."""

MAX_TEXT = 16 * 2**20
"""Characters of log that one attempt sends back with its reply; those of the lines after that are left out."""
LEAST_BEAT = 0.02
"""Seconds between two heartbeats that are sent."""


@dataclass(slots=True)
class Reply:
    """How an attempt ended elsewhere: the parts of an `Outcome`, as text."""

    output: str | None = None
    params: Mapping[str, str | None] | None = None
    failure: Failure | None = None
    skipped: str | None = None
    cancelled: bool = False
    lines: list[Line] | None = None
    """What was logged and has not been sent before."""
    left_out: int = 0
    """How many lines were too many to send."""


class ContextThere(Context):
    """The context of an attempt in another process: what it logs goes back, and is redacted and kept where the run is.

    Args:
        say: sends a line at once; without it they are kept for the reply.
        beat: sends a sign of life; without it there is nobody to hear it.
    """

    __slots__ = ("_beat", "_left_out", "_lines", "_room", "_say")

    def __init__(
        self, snapshot: Snapshot, say: Callable[[Line], None] | None = None, beat: Callable[[], None] | None = None
    ) -> None:
        super().__init__(snapshot, snapshot.tasks[snapshot.task_id])
        self._say = say
        self._beat = beat
        self._lines: list[Line] = []
        self._room = MAX_TEXT
        self._left_out = 0

    def heartbeat(self) -> None:
        """See `Context.heartbeat`."""
        before = self._last_beat
        now = self._scope.beat()
        if self._beat is not None and (before is None or now - before >= LEAST_BEAT):
            self._last_beat = now
            self._beat()

    def _take_line(self, moment: int, level: int, line: str, stack_level: int = 1) -> None:  # noqa: ARG002
        # Whole: a secret that only the hook knows may run through the place where it would be cut.
        if self._say is not None:
            self._say((moment, level, line))
        elif self._left_out or len(self._lines) >= MAX_LOG_LINES or len(line) > self._room:
            self._left_out += 1
        else:
            self._lines.append((moment, level, line))
            self._room -= len(line)


def run_there(
    function: Callable[[Context], Any],
    snapshot: Snapshot,
    say: Callable[[Line], None] | None = None,
    beat: Callable[[], None] | None = None,
) -> Reply:
    """Make an attempt, in whatever process this is, and answer with how it ended: nothing that the task raises comes out.

    Args:
        function: the task's function; what a coroutine function returns is run to its end in a loop of its own.
        snapshot: what the task may see of its run.
        say: takes each line of log as it is written; without it they come with the reply.
        beat: takes the task's heartbeats.
    """
    context = ContextThere(snapshot, say, beat)
    reply = copy_context().run(_run, function, context)
    reply.lines, reply.left_out = context._lines or None, context._left_out
    return reply


def _run(function: Callable[[Context], Any], context: Context) -> Reply:
    _current.set(context)
    try:
        value = function(context)
        if hasattr(type(value), "__await__"):  # it could not be stored, so it is meant to be awaited
            import asyncio  # late: not everybody has coroutine functions

            value, error = asyncio.run(_awaited(value))
            if error is not None:
                raise error
        return Reply(context._output_text(value), context._changed_params())
    except BaseException as error:
        reason = skip_reason(error)
        if reason is not None:
            return Reply(skipped=reason)
        from asyncio import CancelledError  # late: most attempts succeed

        from .executors import failure_of  # late: most attempts succeed, and asyncio comes with it

        return Reply(failure=failure_of(error), cancelled=isinstance(error, CancelledError))


async def _awaited(value: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What it gives, or raises: caught here, where asyncio does not yet add frames of its own, or stop the loop for it."""
    try:
        return await value, None
    except BaseException as error:
        return None, error


# --- what can be sent ---


def check_travels(task_id: str, function: object) -> None:
    """Refuse a function that another process could not import by its name.

    Raises:
        CannotTravelError: it is a lambda, stands inside another function, or in a main script that is no file.
    """
    _check(task_id, f"the function {_name_of(function)}", function)


def check_types(task_id: str, snapshot: Snapshot) -> None:
    """Refuse types registered with the codec that another process could not import by their names.

    Raises:
        CannotTravelError: it names the type.
    """
    for kind in snapshot.codec._types.values():
        _check(task_id, f"the registered type {_name_of(kind)}", kind)


def pack(task_id: str, function: object, snapshot: Snapshot) -> bytes:
    """An attempt as bytes for a process of ours.

    Raises:
        CannotTravelError: the function, or a registered type, has no name that the other process could import it by.
    """
    import pickle  # late: only for tasks that run in other processes

    _check(task_id, f"the function {_name_of(function)}", function)
    try:
        sent = pickle.dumps(snapshot, pickle.HIGHEST_PROTOCOL)
    except Exception:
        check_types(task_id, snapshot)
        raise
    # In two parts, so that the other side can say which of them it could not read.
    return pickle.dumps((task_id, pickle.dumps(function, pickle.HIGHEST_PROTOCOL), _name_of(function), sent))


def unpack(job: bytes) -> tuple[Callable[[Context], Any], Snapshot]:
    """What was packed, in the other process.

    Raises:
        CannotTravelError: something cannot be imported here.
    """
    import pickle  # late: only for tasks that run in other processes

    task_id, function, name, snapshot = pickle.loads(job)
    try:
        found = pickle.loads(function)
    except BaseException as error:
        raise CannotTravelError(task_id, f"the function {name}", f"there, {type(error).__name__}: {error}") from error
    try:
        return found, pickle.loads(snapshot)
    except BaseException as error:
        problem = f"there, {type(error).__name__}: {error}"
        raise CannotTravelError(task_id, "one of the registered types", problem) from error


def _name_of(thing: object) -> str:
    while (inner := getattr(thing, "func", None)) is not None:  # of a partial
        thing = inner
    name = getattr(thing, "__qualname__", None)
    return f"{getattr(thing, '__module__', None)}.{name}" if name else shown(thing)


def _check(task_id: str, what: str, thing: object) -> None:
    """Try it, and look whether it leans on a main script that nobody can import."""
    if _is_found_by_name(thing):  # as nearly all are: no need to try
        return
    import io  # late: only for tasks that run in other processes
    import pickle  # late: only for tasks that run in other processes

    leans_on_main = False

    class Looking(pickle.Pickler):
        def persistent_id(self, obj: Any) -> None:
            nonlocal leans_on_main
            if callable(obj) and getattr(obj, "__module__", None) == "__main__":
                leans_on_main = True

    try:
        Looking(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(thing)
    except Exception as error:  # whatever a class of the user's raises when it is pickled
        name = getattr(thing, "__qualname__", "")
        if name.endswith("<lambda>"):
            problem = "it is a lambda, which has no name"
        elif "<locals>" in name:
            problem = "it is defined inside a function"
        else:
            problem = f"{type(error).__name__}: {error}"
        raise CannotTravelError(task_id, what, problem) from error
    if leans_on_main and not _main_can_be_imported():
        problem = "it is defined in an interactive session or a script that is no file, which cannot be imported"
        raise CannotTravelError(task_id, what, problem)


def _is_found_by_name(thing: object) -> bool:
    """Whether it is a function, or a class, at the top level of a module that is not the main script."""
    if type(thing) is not FunctionType and type(thing) is not type:
        return False
    module: object = thing.__module__  # whatever somebody set it to
    return type(module) is str and module != "__main__" and vars(sys.modules.get(module, object)).get(thing.__qualname__) is thing


def _main_can_be_imported() -> bool:
    """Whether a process started by multiprocessing imports our main script too. See `multiprocessing.spawn`."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    name = cast("str | None", getattr(spec, "name", None))
    if name is not None:
        return name.rpartition(".")[2] != "__main__"
    path = cast("str | None", getattr(main, "__file__", None))
    return path is not None and os.path.isfile(path)  # noqa: PTH113 - pathlib is not needed for one question
