"""What a task may say of where, when and for how long its attempts run, and a flow of how much they may use.

Pure: checked here, heeded by the runner.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

from .errors import InvalidOptionError
from .late_dataclass import dataclass
from .options import seconds_of

LONGEST = 10 * 365 * 24 * 3600.0
"""Seconds; a time-out beyond ten years is a mistake."""

PRIORITIES = 2**31
"""Priorities are whole numbers nearer to 0 than this."""


class SubmitsWork(Protocol):
    """Any executor in the sense of `concurrent.futures`: of all it has, only `submit` is used."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Have `fn(*args)` called somewhere, some time; a future of what it returns."""
        ...


ExecutorChoice = str | SubmitsWork | None
"""Where a function runs: "thread", "inline", "process", a name among the flow's `executors=`, or such an executor itself."""

OWN = ("thread", "inline", "process")
"""The executors that the engine has itself, by name."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Where, when and for how long a task's attempts run."""

    timeout: float | None = None
    """Seconds that one attempt may take."""
    heartbeat_timeout: float | None = None
    """Seconds that one attempt may be silent: `ctx.heartbeat()` breaks the silence."""
    executor: ExecutorChoice = None
    """None is the flow's own choice."""
    pool: str | None = None
    pool_weight: int = 1
    """How many of the pool's slots an attempt takes."""
    priority: int = 0
    """Of the tasks that are ready, those with the highest start first."""


DEFAULT = TaskOptions()
"""Shared by all tasks that say nothing: of a million tasks each would take a hundred bytes."""


def check_executor(choice: object, task_id: str | None = None) -> ExecutorChoice:
    """Refuse what can be no executor.

    Raises:
        InvalidOptionError: it is neither a name nor has it `submit`.
    """
    if choice is None or (isinstance(choice, str) and choice):
        return choice
    if isinstance(choice, (str, type)) or not callable(getattr(choice, "submit", None)):
        expected = '"thread", "inline", "process", a name from executors=, or an object with submit(), as a ProcessPoolExecutor'
        raise InvalidOptionError("executor", choice, expected, task_id)
    return choice  # type: ignore[return-value]


def task_options(
    task_id: str,
    timeout: float | timedelta | None = None,
    heartbeat_timeout: float | timedelta | None = None,
    executor: ExecutorChoice = None,
    pool: str | None = None,
    pool_weight: int = 1,
    priority: int = 0,
) -> TaskOptions:
    """Check what a user gave.

    Raises:
        InvalidOptionError: names the option that makes no sense, and what it must be.
    """
    if (timeout, heartbeat_timeout, executor, pool, pool_weight, priority) == (None, None, None, None, 1, 0):
        return DEFAULT
    if pool is not None and not (isinstance(pool, str) and pool):
        raise InvalidOptionError("pool", pool, "the name of a pool, as it stands in AsyncFlow(..., pools={name: size})", task_id)
    if type(pool_weight) is not int or pool_weight < 1:
        raise InvalidOptionError("pool_weight", pool_weight, "a whole number from 1 on", task_id)
    if pool is None and pool_weight != 1:
        raise InvalidOptionError("pool_weight", pool_weight, "given together with pool=", task_id)
    if type(priority) is not int or abs(priority) >= PRIORITIES:
        raise InvalidOptionError("priority", priority, "a whole number; higher ones start first", task_id)
    return TaskOptions(
        span("timeout", timeout, task_id),
        span("heartbeat_timeout", heartbeat_timeout, task_id),
        check_executor(executor, task_id),
        pool,
        pool_weight,
        priority,
    )


def span(option: str, value: float | timedelta | None, task_id: str | None = None) -> float | None:
    """A time-out in seconds; None is none.

    Raises:
        InvalidOptionError: it is no number of seconds above 0, or above ten years.
    """
    if value is None:
        return None
    expected = "a number of seconds or a timedelta, above 0 seconds and up to ten years"
    return seconds_of(option, value, expected, least=1e-6, most=LONGEST, task_id=task_id)


MAX_THREADS = 64
"""Threads that wait cost little, and blocking calls mostly wait: so 32 of them overlap on a small machine, too."""

GRACE_PERIOD = 5.0


@dataclass(frozen=True, slots=True)
class Capacities:
    """How much of the machine one drive of a run may use."""

    max_threads: int = MAX_THREADS
    """Functions that run in threads at once."""
    max_processes: int | None = None
    """Functions that run in worker processes at once; None is the number of processors."""
    grace_period: float = GRACE_PERIOD
    """Seconds that attempts which were told to end get to do so."""


USUAL = Capacities()


def capacities(max_threads: int, max_processes: int | None, grace_period: float | timedelta) -> Capacities:
    """Check what a user gave.

    Raises:
        InvalidOptionError: a count below 1, or a grace period that is no number of seconds from 0 on.
    """
    if (max_threads, max_processes, grace_period) == (MAX_THREADS, None, GRACE_PERIOD):
        return USUAL
    counts = {"max_threads": max_threads}
    if max_processes is not None:
        counts["max_processes"] = max_processes
    for option, count in counts.items():
        if type(count) is not int or count < 1:
            raise InvalidOptionError(option, count, "a whole number from 1 on")
    expected = "a number of seconds or a timedelta, from 0 seconds on"
    return Capacities(max_threads, max_processes, seconds_of("grace_period", grace_period, expected, most=LONGEST))
