"""Decides, and does nothing: whether an attempt is followed by another and when, and what a manual retry resets.

Pure: no clock, no store, no sleeping. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from .errors import InvalidOptionError
from .graph import Graph

MAX_DELAY = 10 * 365 * 24 * 3600.0
"""Seconds; a delay beyond ten years is a mistake, and would overflow dates further down."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed task is tried again.

    `max_retries=2` makes up to three attempts, `delay` seconds apart.
    """

    max_retries: int = 0
    delay: float = 0.0
    """Seconds between the end of a failed attempt and the start of the next."""


NO_RETRY = RetryPolicy()


def retry_policy(max_retries: int = 0, retry_delay: float | timedelta | None = None, task_id: str | None = None) -> RetryPolicy:
    """Check what a user gave and make a policy of it.

    Args:
        max_retries: how many attempts may follow the first one.
        retry_delay: seconds, or a timedelta; None is no delay.
        task_id: named in an error.

    Raises:
        InvalidOptionError: a negative or non-integral count, a delay that is no number of seconds from 0 on.
    """
    if max_retries == 0 and retry_delay is None and max_retries is not False:
        return NO_RETRY
    if type(max_retries) is not int or max_retries < 0:
        raise InvalidOptionError("max_retries", max_retries, "a whole number from 0 on", task_id)
    seconds = retry_delay.total_seconds() if isinstance(retry_delay, timedelta) else retry_delay
    if seconds is None:
        seconds = 0.0
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidOptionError("retry_delay", retry_delay, "a number of seconds or a timedelta", task_id)
    if not 0 <= seconds <= MAX_DELAY:  # NaN is refused here too: it compares with nothing
        raise InvalidOptionError("retry_delay", retry_delay, "from 0 seconds to ten years", task_id)
    return RetryPolicy(max_retries, float(seconds))


def next_delay(policy: RetryPolicy, failures: int) -> float | None:
    """The seconds to wait before the next attempt, or None where there is to be none.

    Args:
        policy: the task's policy.
        failures: how many attempts have failed since the task was last reset, from 1 on. Interrupted ones do not count.
    """
    return policy.delay if failures <= policy.max_retries else None


def tasks_to_reset(graph: Graph, task_id: str, downstream: bool) -> list[str]:
    """The tasks that a manual retry of `task_id` sets back, in the order of their definition."""
    reset = {task_id}
    if downstream:
        reset |= graph.descendants(reset)
    return [task_id for task_id in graph if task_id in reset] if len(reset) > 1 else [task_id]
