"""Retry policies and what a manual retry resets: questions and answers, no run needed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from .. import InvalidOptionError, RetryPolicy
from ..graph import Graph
from ..retry_manager import (
    MAX_DELAY,
    NO_RETRY,
    failed_by_interruption,
    failure_by_interruption,
    next_delay,
    retry_policy,
    tasks_to_reset,
)


@pytest.mark.parametrize(
    ("max_retries", "retry_delay", "policy"),
    [
        (0, None, RetryPolicy(0, 0.0)),
        (3, None, RetryPolicy(3, 0.0)),
        (2, 5, RetryPolicy(2, 5.0)),
        (2, 0.25, RetryPolicy(2, 0.25)),
        (1, timedelta(minutes=2), RetryPolicy(1, 120.0)),
        (1, timedelta(microseconds=1), RetryPolicy(1, 1e-06)),
        (0, 7, RetryPolicy(0, 7.0)),
        (1, MAX_DELAY, RetryPolicy(1, MAX_DELAY)),
    ],
)
def test_a_policy_is_made_of_seconds_or_a_timedelta(
    max_retries: int, retry_delay: float | timedelta | None, policy: RetryPolicy
) -> None:
    made = retry_policy(max_retries, retry_delay)
    assert made == policy
    assert type(made.delay) is float


@pytest.mark.parametrize("max_retries", [-1, 1.5, True, False, "2", None, pytest.param(-(10**5000), id="huge")])
def test_a_count_of_retries_that_makes_no_sense_is_refused_by_name(max_retries: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"^Task 'load': max_retries=.* must be a whole number from 0 on\.$") as caught:
        retry_policy(max_retries, 1, "load")
    assert (caught.value.option, caught.value.value, caught.value.task_id) == ("max_retries", max_retries, "load")


@pytest.mark.parametrize(
    "retry_delay",
    [
        -1,
        -0.001,
        timedelta(seconds=-1),
        float("nan"),
        float("inf"),
        MAX_DELAY + 1,
        timedelta.max,
        10**400,
        10**5000,
        True,
        "5",
        [1],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_delay_that_makes_no_sense_is_refused_by_name(retry_delay: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"^Task 'load': retry_delay=.* is not usable; it must be ") as caught:
        retry_policy(1, retry_delay, "load")
    assert caught.value.value is retry_delay


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "5", None])
def test_a_budget_of_interruptions_that_makes_no_sense_is_refused_by_name(count: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"^Task 'load': max_interruptions=.* must be a whole number from 1 on\.$"):
        retry_policy(0, None, "load", count)


@pytest.mark.parametrize("word", ["ignore", "", None, True, ["fail"], "FAIL"])
def test_what_an_interruption_does_is_one_of_two_words(word: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"""^Task 'load': on_interrupt=.* must be "retry" or "fail"\.$"""):
        retry_policy(0, None, "load", on_interrupt=word)


def test_what_an_interruption_does_is_part_of_the_policy() -> None:
    assert retry_policy(max_interruptions=1) == RetryPolicy(max_interruptions=1)
    assert retry_policy(2, 5, "load", 7, "fail") == RetryPolicy(2, 5.0, 7, "fail")
    assert retry_policy() is NO_RETRY


@pytest.mark.parametrize(
    ("policy", "crashes", "died", "fails"),
    [
        (NO_RETRY, 4, True, False),
        (NO_RETRY, 5, True, True),
        (NO_RETRY, 6, True, True),  # the budget was lowered meanwhile
        (NO_RETRY, 5, False, False),
        (RetryPolicy(max_interruptions=1), 1, True, True),
        (RetryPolicy(max_retries=9), 5, True, True),
        (RetryPolicy(on_interrupt="fail"), 1, True, True),
        (RetryPolicy(on_interrupt="fail"), 0, False, True),
    ],
)
def test_an_interruption_fails_the_task_when_the_budget_is_used_up_or_nothing_may_run_twice(
    policy: RetryPolicy, crashes: int, died: bool, fails: bool
) -> None:
    failure = failure_by_interruption(policy, crashes, died)
    assert (failure is not None) is fails
    if failure is not None:
        assert failed_by_interruption(failure.summary)
        assert failure.traceback.startswith(failure.summary)
        assert "flow.retry(" in failure.traceback


@pytest.mark.parametrize("reason", [None, "ValueError: boom", "TaskInterruptedError: boom", "mine.TaskInterrupted: boom"])
def test_another_failure_does_not_pass_for_one_by_interruption(reason: str | None) -> None:
    assert not failed_by_interruption(reason)


def test_a_refusal_outside_any_task_names_none() -> None:
    with pytest.raises(InvalidOptionError, match=r"^max_retries=-1 "):
        retry_policy(-1)


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (NO_RETRY, [None, None]),
        (RetryPolicy(1, 3.0), [3.0, None, None]),
        (RetryPolicy(2), [0.0, 0.0, None]),
    ],
)
def test_max_retries_of_n_gives_n_more_attempts_each_after_the_delay(policy: RetryPolicy, delays: list[float | None]) -> None:
    assert [next_delay(policy, failures) for failures in range(1, len(delays) + 1)] == delays


@pytest.mark.parametrize(
    ("task_id", "downstream", "reset"),
    [
        ("a", False, ["a"]),
        ("a", True, ["c", "a", "b"]),
        ("b", True, ["c", "b"]),
        ("c", True, ["c"]),
        ("other", True, ["other"]),
    ],
)
def test_a_manual_retry_resets_the_task_and_on_demand_what_is_downstream_in_the_order_of_definition(
    task_id: str, downstream: bool, reset: list[str]
) -> None:
    graph = Graph({"c": ("b",), "a": (), "b": ("a",), "other": ()})
    assert tasks_to_reset(graph, task_id, downstream) == reset
