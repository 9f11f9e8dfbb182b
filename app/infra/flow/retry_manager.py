"""Decides, and does nothing: whether an attempt is followed by another and when, and what a manual retry resets.

Pure: no clock, no store, no sleeping. Times are seconds.
"""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from .errors import MAX_DELAY, InvalidOptionError, NonRetryableError
from .late_dataclass import dataclass
from .models import Failure, kind_name
from .options import seconds_of

if TYPE_CHECKING:
    from .graph import Graph

MAX_INTERRUPTIONS = 5
"""After so many deaths of its process a task counts as what kills it, unless its declaration says otherwise."""

OnInterrupt = Literal["retry", "fail"]

ExceptionKinds = type[BaseException] | str | tuple[type[BaseException] | str, ...]
"""Exceptions as a user names them: a class, the dotted name of one, or a tuple of these. Derived classes are meant too."""

_INTERRUPTED = "TaskInterrupted"
_NEVER = kind_name(NonRetryableError)
_LARGEST = 1.7976931348623157e308
"""The largest float: beyond any sensible factor, and not yet infinite."""
_SPAN = "a number of seconds or a timedelta, from 0 seconds to ten years"
_KINDS = (
    "an exception class, its dotted name as a traceback shows it ('package.module.Error', or 'ValueError' of Python's own), "
    "or a tuple of these"
)


@dataclass(frozen=True, slots=True, init=False)
class RetryPolicy:
    """How often and how soon a task is tried again, after a failure and after an interruption.

    `RetryPolicy(max_retries=5, delay=1, backoff=2, max_delay=60, jitter=1)` makes up to six attempts, the second at most one
    second after the first, then two, four, eight and sixteen. Interrupted attempts do not count among these.

    Args:
        max_retries: how many attempts may follow the first one.
        delay: seconds, or a timedelta, between the end of the first failed attempt and the start of the next.
        backoff: multiplies the delay for each further retry; 2 doubles it each time.
        max_delay: seconds, or a timedelta: however often it was multiplied, the delay is no longer. None is ten years.
        jitter: from 0 to 1: which part of the delay is left to chance, so that tasks that failed together do not all come back
            together. Each delay is drawn evenly from `(1 - jitter) * delay` to `delay`; 1 is the "full jitter" of "Exponential
            Backoff And Jitter" (AWS Architecture Blog).
        retry_on: what is tried again: an exception class or a tuple of them, those derived from it included; of classes that
            cannot be imported here, the dotted names, by the module that defines them. None is everything.
        give_up_on: what is not, said in the same way, even if `retry_on` names it. None is nothing.
        max_interruptions: after how many attempts in which the process died the task fails.
        on_interrupt: whether an attempt that was cut off is made again ("retry"), or fails the task at once ("fail").

    Raises:
        InvalidOptionError: one of these makes no sense.
    """

    max_retries: int
    delay: float
    """Seconds."""
    backoff: float
    max_delay: float | None
    """Seconds."""
    jitter: float
    retry_on: tuple[str, ...] | None
    """The qualified names of the classes."""
    give_up_on: tuple[str, ...]
    """The qualified names of the classes."""
    max_interruptions: int
    on_interrupt: OnInterrupt

    def __init__(
        self,
        max_retries: int = 0,
        delay: float | timedelta = 0.0,
        backoff: float = 1.0,
        max_delay: float | timedelta | None = None,
        jitter: float = 0.0,
        retry_on: ExceptionKinds | None = None,
        give_up_on: ExceptionKinds | None = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
    ) -> None:
        if type(max_retries) is not int or max_retries < 0:
            raise InvalidOptionError("max_retries", max_retries, "a whole number from 0 on")
        if type(max_interruptions) is not int or max_interruptions < 1:
            raise InvalidOptionError("max_interruptions", max_interruptions, "a whole number from 1 on")
        if not isinstance(on_interrupt, str) or on_interrupt not in ("retry", "fail"):
            raise InvalidOptionError("on_interrupt", on_interrupt, '"retry" or "fail"')
        fill: Any = object.__setattr__  # the class is frozen
        fill(self, "max_retries", max_retries)
        fill(self, "delay", seconds_of("delay", delay, _SPAN, most=MAX_DELAY))
        fill(self, "backoff", _number_of("backoff", backoff, 1.0, _LARGEST, "a number from 1 on"))
        fill(self, "max_delay", None if max_delay is None else seconds_of("max_delay", max_delay, _SPAN, most=MAX_DELAY))
        fill(self, "jitter", _number_of("jitter", jitter, 0.0, 1.0, "a number from 0 to 1"))
        fill(self, "retry_on", None if retry_on is None else _names_of("retry_on", retry_on))
        fill(self, "give_up_on", () if give_up_on is None else _names_of("give_up_on", give_up_on))
        fill(self, "max_interruptions", max_interruptions)
        fill(self, "on_interrupt", on_interrupt)


def _number_of(option: str, value: float, least: float, most: float, expected: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise InvalidOptionError(option, value, expected)


def _names_of(option: str, given: ExceptionKinds) -> tuple[str, ...]:
    kinds = given if isinstance(given, tuple) else (given,)
    names = [_name_of(kind) for kind in kinds]
    if None in names:
        raise InvalidOptionError(option, given, _KINDS)
    return tuple([name for name in names if name is not None])


def _name_of(kind: object) -> str | None:
    """How a class that a user gave or named is called among the kinds of a failure, or None where it cannot be an exception."""
    if not isinstance(kind, str):
        return kind_name(kind) if isinstance(kind, type) and issubclass(kind, BaseException) else None
    name = str.__str__(kind)
    module, _, last = name.rpartition(".")
    if module in ("", "builtins"):
        found: object = getattr(builtins, last, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            return kind_name(found)  # OSError, where it was called IOError
        if not module:  # a class of the user's: its module is missing. One of a later Python is let pass where it is named whole
            return None
    if not all(part.isidentifier() or part == "<locals>" for part in name.split(".")):
        return None
    return f"__main__{name[11:]}" if name.startswith("__mp_main__.") else name


NO_RETRY = RetryPolicy()


def retry_policy(
    max_retries: int = 0,
    retry_delay: float | timedelta | None = None,
    task_id: str | None = None,
    max_interruptions: int = MAX_INTERRUPTIONS,
    on_interrupt: OnInterrupt = "retry",
    retry: RetryPolicy | None = None,
) -> RetryPolicy:
    """Check what a user declared a task with, and make a policy of it.

    Args:
        max_retries: how many attempts may follow the first one.
        retry_delay: seconds, or a timedelta; None is no delay.
        task_id: named in an error.
        max_interruptions: after how many deaths of its process the task fails.
        on_interrupt: "retry" or "fail".
        retry: all of it at once; the short forms are left out then.

    Raises:
        InvalidOptionError: a negative or non-integral count, a delay that is no number of seconds from 0 on, a word that
            is neither of the two; `retry` is no RetryPolicy, or is given beside one of the short forms.
    """
    said = [
        (option, field, value)
        for option, field, value, default in (
            ("max_retries", "max_retries", max_retries, 0),
            ("retry_delay", "delay", retry_delay, None),
            ("max_interruptions", "max_interruptions", max_interruptions, MAX_INTERRUPTIONS),
            ("on_interrupt", "on_interrupt", on_interrupt, "retry"),
        )
        if type(value) is not type(default) or value != default
    ]
    if retry is not None:
        if not isinstance(retry, RetryPolicy):
            raise InvalidOptionError("retry", retry, "a RetryPolicy", task_id)
        for option, field, value in said:
            expected = f"left out beside retry=: give one or the other, and with retry= say RetryPolicy({field}=...)"
            raise InvalidOptionError(option, value, expected, task_id)
        return retry
    if not said:
        return NO_RETRY
    try:
        return RetryPolicy(
            max_retries,
            0.0 if retry_delay is None else retry_delay,
            max_interruptions=max_interruptions,
            on_interrupt=on_interrupt,
        )
    except InvalidOptionError as error:
        raise _in_short_form(error, task_id) from None


def with_retries(
    policy: RetryPolicy, max_retries: int, retry_delay: float | timedelta | None = None, task_id: str | None = None
) -> RetryPolicy:
    """The same policy with another number of retries and another delay.

    Args:
        policy: what the rest is taken from.
        max_retries: how many attempts may follow the first one.
        retry_delay: seconds, or a timedelta; None is no delay.
        task_id: named in an error.

    Raises:
        InvalidOptionError: a negative or non-integral count, or a delay that is no number of seconds from 0 on.
    """
    try:
        return RetryPolicy(
            max_retries,
            0.0 if retry_delay is None else retry_delay,
            policy.backoff,
            policy.max_delay,
            policy.jitter,
            policy.retry_on,
            policy.give_up_on,
            policy.max_interruptions,
            policy.on_interrupt,
        )
    except InvalidOptionError as error:
        raise _in_short_form(error, task_id) from None


def _in_short_form(error: InvalidOptionError, task_id: str | None) -> InvalidOptionError:
    """The same error in the words of those who declare a task without a RetryPolicy of their own."""
    option = "retry_delay" if error.option == "delay" else error.option
    return InvalidOptionError(option, error.value, error.expected, task_id)


def next_delay(policy: RetryPolicy, failures: int, failure: Failure, spread: float) -> float | None:
    """The seconds to wait before the next attempt, or None where there is to be none.

    Args:
        policy: the task's policy.
        failures: how many attempts have failed since the task was last reset, from 1 on. Interrupted ones do not count.
        failure: why the latest of them did.
        spread: from 0 to below 1: where in the range that jitter leaves the delay is to lie.
    """
    if failures > policy.max_retries or not _may_help(policy, failure):
        return None
    if failure.retry_after is not None:
        return failure.retry_after
    delay, most = policy.delay, MAX_DELAY if policy.max_delay is None else policy.max_delay
    if delay and policy.backoff > 1:
        try:
            delay *= policy.backoff ** max(0, failures - 1)
        except OverflowError:
            delay = most
    return min(delay, most) * (1 - policy.jitter * spread)


def _may_help(policy: RetryPolicy, failure: Failure) -> bool:
    """Whether another attempt is worth it after such a failure, by the names of its class and of the classes above that."""
    kinds = failure.kinds
    if _NEVER in kinds or any(name in kinds for name in policy.give_up_on):
        return False
    if policy.retry_on is None or failure.retry_after is not None:  # a task that says when is not to be asked whether
        return True
    return any(name in kinds for name in policy.retry_on)


def failure_by_interruption(policy: RetryPolicy, crashes: int, died: bool, is_whole: bool = False) -> Failure | None:
    """Why a task whose attempt was cut off has failed by that, or None where it runs again.

    Args:
        policy: the task's policy.
        crashes: in how many of its attempts since the last reset the process died, this one included if it did.
        died: whether the process died in this one; otherwise the run was stopped in an orderly way.
        is_whole: whether it is a mapped task that had no items yet: then nothing was begun that must not be done twice.
    """
    # The records look the same where the store failed under a process, or its run was taken over: it could write no more.
    what = "its process died or lost the run" if died else "its run was stopped"
    if policy.on_interrupt == "fail" and not is_whole:
        message = f'{what} while it ran, and on_interrupt="fail" forbids to run it again by itself'
        advice = "Find out how far it came and put that in order"
    elif died and crashes >= policy.max_interruptions:
        times = "once" if crashes == 1 else f"{crashes} times"
        message = f"{what} {times} while it ran (max_interruptions={policy.max_interruptions})"
        advice = (
            "Find out what kills the process while this task runs (memory, os._exit, native code, a kill from outside; "
            "it may be a task beside it) and fix it"
        )
    else:
        return None
    return Failure(_INTERRUPTED, message, f"{_INTERRUPTED}: {message}.\n{advice}; then run it again with flow.retry(...).\n")


def failed_by_interruption(reason: str | None) -> bool:
    """Whether a failed task's reason is one that `failure_by_interruption` gave."""
    return reason is not None and reason.startswith(f"{_INTERRUPTED}: ")


def tasks_to_reset(graph: Graph, task_id: str, downstream: bool) -> list[str]:
    """The tasks that a manual retry of `task_id` sets back, in the order of their definition."""
    reset = {task_id}
    if downstream:
        reset |= graph.descendants(reset)
    return [task_id for task_id in graph if task_id in reset] if len(reset) > 1 else [task_id]
