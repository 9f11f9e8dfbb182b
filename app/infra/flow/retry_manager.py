"""Decides, and does nothing: whether an attempt is followed by another and when, and what a manual retry resets.

Pure: no clock, no store, no sleeping. Times are seconds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from .errors import InvalidOptionError
from .graph import Graph
from .late_dataclass import dataclass
from .models import Failure
from .options import seconds_of

MAX_DELAY = 10 * 365 * 24 * 3600.0
"""Seconds; a delay beyond ten years is a mistake, and would overflow dates further down."""

MAX_INTERRUPTIONS = 5
"""After so many deaths of its process a task counts as what kills it, unless its declaration says otherwise."""

OnInterrupt = Literal["retry", "fail"]

_INTERRUPTED = "TaskInterrupted"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a task is tried again, after a failure and after an interruption.

    `max_retries=2` makes up to three attempts, `delay` seconds apart; interrupted ones do not count among these.
    """

    max_retries: int = 0
    delay: float = 0.0
    """Seconds between the end of a failed attempt and the start of the next."""
    max_interruptions: int = MAX_INTERRUPTIONS
    """After how many attempts in which the process died the task fails."""
    on_interrupt: OnInterrupt = "retry"
    """Whether an attempt that was cut off is made again, or fails the task at once."""


NO_RETRY = RetryPolicy()


def retry_policy(
    max_retries: int = 0,
    retry_delay: float | timedelta | None = None,
    task_id: str | None = None,
    max_interruptions: int = MAX_INTERRUPTIONS,
    on_interrupt: OnInterrupt = "retry",
) -> RetryPolicy:
    """Check what a user gave and make a policy of it.

    Args:
        max_retries: how many attempts may follow the first one.
        retry_delay: seconds, or a timedelta; None is no delay.
        task_id: named in an error.
        max_interruptions: after how many deaths of its process the task fails.
        on_interrupt: "retry" or "fail".

    Raises:
        InvalidOptionError: a negative or non-integral count, a delay that is no number of seconds from 0 on, a word that
            is neither of the two.
    """
    if type(max_interruptions) is not int or max_interruptions < 1:
        raise InvalidOptionError("max_interruptions", max_interruptions, "a whole number from 1 on", task_id)
    if not isinstance(on_interrupt, str) or on_interrupt not in ("retry", "fail"):
        raise InvalidOptionError("on_interrupt", on_interrupt, '"retry" or "fail"', task_id)
    if type(max_retries) is not int or max_retries < 0:
        raise InvalidOptionError("max_retries", max_retries, "a whole number from 0 on", task_id)
    if max_retries == 0 and retry_delay is None and max_interruptions == MAX_INTERRUPTIONS and on_interrupt == "retry":
        return NO_RETRY
    seconds = 0.0
    if retry_delay is not None:
        expected = "a number of seconds or a timedelta, from 0 seconds to ten years"
        seconds = seconds_of("retry_delay", retry_delay, expected, most=MAX_DELAY, task_id=task_id)
    return RetryPolicy(max_retries, float(seconds), max_interruptions, on_interrupt)


def next_delay(policy: RetryPolicy, failures: int) -> float | None:
    """The seconds to wait before the next attempt, or None where there is to be none.

    Args:
        policy: the task's policy.
        failures: how many attempts have failed since the task was last reset, from 1 on. Interrupted ones do not count.
    """
    return policy.delay if failures <= policy.max_retries else None


def failure_by_interruption(policy: RetryPolicy, crashes: int, died: bool) -> Failure | None:
    """Why a task whose attempt was cut off has failed by that, or None where it runs again.

    Args:
        policy: the task's policy.
        crashes: in how many of its attempts since the last reset the process died, this one included if it did.
        died: whether the process died in this one; otherwise the run was stopped in an orderly way.
    """
    # The records look the same where the store failed under a process, or its run was taken over: it could write no more.
    what = "its process died or lost the run" if died else "its run was stopped"
    if policy.on_interrupt == "fail":
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
