"""Retry policies and what a manual retry resets: questions and answers, no run needed."""

from __future__ import annotations

import pickle
from copy import copy
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest

from .. import InvalidOptionError, NonRetryableError, RetryAfter, RetryPolicy
from ..errors import MAX_DELAY
from ..executors import failure_of
from ..graph import Graph
from ..models import Failure, kinds_of
from ..retry_manager import (
    NO_RETRY,
    failed_by_interruption,
    failure_by_interruption,
    next_delay,
    retry_policy,
    tasks_to_reset,
    with_retries,
)

PLAIN = Failure("ValueError", "boom", "")


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
    assert retry_policy(2, 5, "load", 7, "fail") == RetryPolicy(2, 5.0, max_interruptions=7, on_interrupt="fail")
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
    assert [next_delay(policy, failures, PLAIN, 0.0) for failures in range(1, len(delays) + 1)] == delays


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


# --- a policy, as it is made ---


def test_a_policy_keeps_seconds_and_names_whatever_it_was_given() -> None:
    policy = RetryPolicy(
        5, timedelta(seconds=2), 2, timedelta(minutes=1), 1, retry_on=(OSError, "TimeoutError"), give_up_on="mine.errors.Gone"
    )
    kept = (policy.delay, policy.backoff, policy.max_delay, policy.jitter)
    assert kept == (2.0, 2.0, 60.0, 1.0)
    assert {type(number) for number in kept} == {float}
    assert (policy.retry_on, policy.give_up_on) == (("builtins.OSError", "builtins.TimeoutError"), ("mine.errors.Gone",))


def test_a_policy_that_says_nothing_retries_nothing_after_no_delay() -> None:
    policy = RetryPolicy()
    assert policy == NO_RETRY == RetryPolicy(0, 0.0, 1.0, None, 0.0, None, None, 5, "retry")
    assert (policy.max_retries, policy.retry_on, policy.give_up_on) == (0, None, ())


def test_a_policy_is_frozen_and_comes_through_copies_pickles_and_replace_the_same() -> None:
    policy = RetryPolicy(3, 1, 2, retry_on=(KeyError, "a.B"), give_up_on=OSError, on_interrupt="fail")
    assert hash(policy) == hash(replace(policy))
    for back in (copy(policy), pickle.loads(pickle.dumps(policy)), replace(policy)):
        assert back == policy
    assert replace(policy, max_retries=9) == RetryPolicy(
        9, 1, 2, retry_on=(KeyError, "a.B"), give_up_on=OSError, on_interrupt="fail"
    )
    with pytest.raises(FrozenInstanceError):
        policy.max_retries = 4  # type: ignore[misc]
    assert "retry_on=('builtins.KeyError', 'a.B')" in repr(policy)


NO_SPANS: list[Any] = [-1, timedelta(seconds=-1), float("nan"), float("inf"), MAX_DELAY + 1, 10**400, True, "5"]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("max_retries", [-1, 1.5, True, "2", None]),
        ("delay", [*NO_SPANS, None]),
        ("backoff", [0.99, 0, -2, float("nan"), float("inf"), 10**400, True, "2", None]),
        ("max_delay", NO_SPANS),
        ("jitter", [-0.1, 1.1, float("nan"), True, "1", None]),
        ("retry_on", [1, int, object, ValueError("one"), "", "NoSuchError", "a b.C", "a..b", ".C", "int", [ValueError], (1,)]),
        ("give_up_on", [1, int, "NoSuchError", (ValueError, int), ("KeyError", None), ((ValueError,),)]),
        ("max_interruptions", [0, -1, 1.0, True, None]),
        ("on_interrupt", ["ignore", "", None, True]),
    ],
)
def test_an_option_of_a_policy_that_makes_no_sense_is_refused_by_name(option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidOptionError, match=f"^{option}=.* is not usable; it must be ") as caught:
            RetryPolicy(**{option: value})
        assert (caught.value.option, caught.value.value) == (option, value) or value != value


def test_a_policy_can_be_given_whole_in_the_place_of_the_short_forms() -> None:
    policy = RetryPolicy(3, backoff=2)
    assert retry_policy(retry=policy) is policy
    assert retry_policy(task_id="load", retry=policy) is policy


@pytest.mark.parametrize(
    ("short", "advice"),
    [
        ({"max_retries": 1}, "RetryPolicy(max_retries=...)"),
        ({"retry_delay": 0}, "RetryPolicy(delay=...)"),
        ({"max_interruptions": 4}, "RetryPolicy(max_interruptions=...)"),
        ({"on_interrupt": "fail"}, "RetryPolicy(on_interrupt=...)"),
        ({"max_retries": False}, "give one or the other"),
    ],
)
def test_a_policy_and_a_short_form_together_are_refused(short: dict[str, Any], advice: str) -> None:
    ((option, value),) = short.items()
    with pytest.raises(
        InvalidOptionError, match=rf"^Task 'load': {option}={value!r} is not usable; .* one or the other"
    ) as caught:
        retry_policy(task_id="load", retry=RetryPolicy(1), **short)
    assert advice in str(caught.value)


@pytest.mark.parametrize("retry", [3, "RetryPolicy", RetryPolicy, {"max_retries": 1}])
def test_what_is_no_policy_is_refused_by_name(retry: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"^Task 'load': retry=.* must be a RetryPolicy\.$"):
        retry_policy(task_id="load", retry=retry)


def test_other_retries_leave_the_rest_of_a_policy_as_it_was() -> None:
    policy = RetryPolicy(1, 2, 3, 4, 0.5, KeyError, OSError, 7, "fail")
    assert with_retries(policy, 9, timedelta(seconds=8)) == replace(policy, max_retries=9, delay=8.0)
    assert with_retries(policy, 9) == replace(policy, max_retries=9, delay=0.0)
    with pytest.raises(InvalidOptionError, match=r"^Task 'load': retry_delay=-1 "):
        with_retries(policy, 9, -1, "load")
    with pytest.raises(InvalidOptionError, match=r"^Task 'load': max_retries=-1 "):
        with_retries(policy, -1, None, "load")


# --- how long ---


def delays_of(policy: RetryPolicy, count: int, spread: float = 0.0) -> list[float | None]:
    return [next_delay(policy, failures, PLAIN, spread) for failures in range(1, count + 1)]


@pytest.mark.parametrize(
    ("policy", "spread", "delays"),
    [
        (RetryPolicy(4, 1, 2), 0.0, [1.0, 2.0, 4.0, 8.0, None]),
        (RetryPolicy(4, 1, 2, max_delay=3), 0.0, [1.0, 2.0, 3.0, 3.0, None]),
        (RetryPolicy(3, 10, max_delay=3), 0.0, [3.0, 3.0, 3.0, None]),
        (RetryPolicy(3, 10, 3, max_delay=0), 0.0, [0.0, 0.0, 0.0, None]),
        (RetryPolicy(3, 0.5, 1.5), 0.0, [0.5, 0.75, 1.125, None]),
        (RetryPolicy(2, 0, 2), 0.5, [0.0, 0.0, None]),
        (RetryPolicy(2, 8, 2, jitter=1), 0.75, [2.0, 4.0, None]),
        (RetryPolicy(2, 8, jitter=0.5), 0.5, [6.0, 6.0, None]),
        (RetryPolicy(2, 8, jitter=0.5), 0.0, [8.0, 8.0, None]),
        (RetryPolicy(3, 8, 4, max_delay=16, jitter=0.5), 0.5, [6.0, 12.0, 12.0, None]),  # the cap first, then the jitter
    ],
)
def test_the_delay_grows_to_its_cap_and_loses_what_jitter_takes(
    policy: RetryPolicy, spread: float, delays: list[float | None]
) -> None:
    assert delays_of(policy, len(delays), spread) == delays


@pytest.mark.parametrize("failures", [1025, 5000, 10**9, 10**400])
@pytest.mark.parametrize(
    ("policy", "delay"),
    [
        (RetryPolicy(10**500, 1, 2), MAX_DELAY),
        (RetryPolicy(10**500, 1e-9, 1e308), MAX_DELAY),
        (RetryPolicy(10**500, 1, 2, max_delay=60), 60.0),
        (RetryPolicy(10**500, 0, 2), 0.0),
        (RetryPolicy(10**500, 5), 5.0),
    ],
    ids=["grows", "leaps", "is capped", "is none", "stays"],
)
def test_however_often_a_task_failed_its_delay_is_a_number_of_seconds_within_bounds(
    policy: RetryPolicy, delay: float, failures: int
) -> None:
    assert next_delay(policy, failures, PLAIN, 0.0) == delay


# --- after what ---


class Overloaded(RetryAfter):
    """A user's own."""


class Refused(NonRetryableError, KeyError):
    """A user's own."""


HERE = __name__


@pytest.mark.parametrize(
    ("error", "kinds", "matches"),
    [
        (ValueError(), ValueError, True),
        (ValueError(), "ValueError", True),
        (ValueError(), "builtins.ValueError", True),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), ValueError, True),
        (ValueError(), UnicodeDecodeError, False),
        (ConnectionResetError(), (KeyError, OSError), True),
        (ConnectionResetError(), ("KeyError", "ConnectionError"), True),
        (ConnectionResetError(), "IOError", True),
        (ConnectionResetError(), (), False),
        (KeyError(), "mine.KeyError", False),
        (Overloaded(1), f"{HERE}.Overloaded", True),
        (Overloaded(1), RetryAfter, True),
        (SystemExit(), Exception, False),
        (SystemExit(), BaseException, True),
    ],
    ids=str,
)
def test_a_failure_is_matched_by_its_class_its_bases_or_their_names(error: BaseException, kinds: Any, matches: bool) -> None:
    failure = replace(failure_of(error), retry_after=None)
    assert (next_delay(RetryPolicy(1, retry_on=kinds), 1, failure, 0.0) is not None) is matches
    assert (next_delay(RetryPolicy(1, give_up_on=kinds), 1, failure, 0.0) is None) is matches
    assert next_delay(RetryPolicy(1, retry_on=kinds, give_up_on=kinds), 1, failure, 0.0) is None, "giving up wins"


def test_a_failure_without_a_class_is_retried_by_a_policy_that_asks_for_none() -> None:
    assert next_delay(RetryPolicy(1), 1, PLAIN, 0.0) == 0.0
    assert next_delay(RetryPolicy(1, retry_on=BaseException), 1, PLAIN, 0.0) is None


def test_a_class_of_the_main_program_is_the_same_in_a_process_that_it_started() -> None:
    here = type("Mine", (ValueError,), {"__module__": "__main__"})
    there = type("Mine", (ValueError,), {"__module__": "__mp_main__"})
    assert kinds_of(here) == kinds_of(there)
    assert kinds_of(here)[:2] == ("__main__.Mine", "builtins.ValueError")
    for kinds in (here, there, "__main__.Mine", "__mp_main__.Mine"):
        for raised in (here, there):
            assert next_delay(RetryPolicy(1, retry_on=kinds), 1, failure_of(raised()), 0.0) == 0.0


def test_a_class_inside_a_function_can_be_named() -> None:
    class Local(Exception):
        pass

    name = f"{HERE}.{Local.__qualname__}"
    assert "<locals>" in name
    assert next_delay(RetryPolicy(1, retry_on=name), 1, failure_of(Local()), 0.0) == 0.0


class Liar(type):
    """A class of classes that hides what they are."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("module", [None, 7, "no module"])
def test_the_kinds_of_an_odd_class_are_found_all_the_same(module: Any) -> None:
    odd = Liar("Odd", (OSError,), {"__module__": module})
    failure = failure_of(odd())
    assert failure.kinds[0].endswith(".Odd")
    assert failure.kinds[1:] == ("builtins.OSError", "builtins.Exception", "builtins.BaseException")
    assert next_delay(RetryPolicy(1, retry_on=OSError), 1, failure, 0.0) == 0.0


def test_a_class_without_a_module_has_kinds_too() -> None:
    made: dict[str, Any] = {}
    exec("Odd = type('Odd', (OSError,), {})", made)
    assert failure_of(made["Odd"]()).kinds[:2] == ("?.Odd", "builtins.OSError")


# --- what a task itself says ---


def test_a_task_that_says_when_is_tried_again_then_while_a_retry_is_left() -> None:
    failure = failure_of(Overloaded(timedelta(minutes=2), "busy"))
    assert failure.retry_after == 120.0
    policy = RetryPolicy(2, 1, 2, max_delay=5, jitter=1, retry_on=KeyError)
    assert [next_delay(policy, failures, failure, 0.9) for failures in (1, 2, 3)] == [120.0, 120.0, None]
    assert next_delay(NO_RETRY, 1, failure, 0.0) is None
    assert next_delay(RetryPolicy(2, give_up_on=Overloaded), 1, failure, 0.0) is None


@pytest.mark.parametrize("seconds", [*NO_SPANS, None, timedelta.max], ids=lambda value: type(value).__name__)
def test_a_wait_that_a_task_asks_for_makes_sense_or_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"^seconds=.* must be a number of seconds or a timedelta") as caught:
        RetryAfter(seconds)
    assert caught.value.value is seconds


@pytest.mark.parametrize("seconds", ["missing", -1, float("nan"), MAX_DELAY * 2, "5", True, None])
def test_a_derived_class_that_lost_its_seconds_is_retried_by_the_policy(seconds: Any) -> None:
    class Broken(RetryAfter):
        def __init__(self) -> None:
            if seconds != "missing":
                self.seconds = seconds

    failure = failure_of(Broken())
    assert failure.retry_after is None
    assert next_delay(RetryPolicy(1, 3), 1, failure, 0.0) == 3.0


@pytest.mark.parametrize("error", [NonRetryableError("no"), NonRetryableError(), Refused("no")], ids=repr)
def test_what_no_attempt_can_help_is_never_tried_again(error: Exception) -> None:
    for policy in (RetryPolicy(99), RetryPolicy(99, retry_on=(NonRetryableError, KeyError, Exception))):
        assert next_delay(policy, 1, failure_of(error), 0.0) is None


def test_only_the_class_that_is_raised_says_that_nothing_helps() -> None:
    def failure(raised: Exception, cause: Exception) -> Failure:
        raised.__cause__ = cause
        return failure_of(raised)

    assert next_delay(RetryPolicy(1), 1, failure(NonRetryableError("no"), OSError()), 0.0) is None
    assert next_delay(RetryPolicy(1), 1, failure(OSError(), NonRetryableError("no")), 0.0) == 0.0


def test_what_is_both_final_and_to_be_tried_later_is_final() -> None:
    class Both(RetryAfter, NonRetryableError):
        def __init__(self) -> None:
            self.seconds, self.message = 1.0, "later, or never"

    failure = failure_of(Both())
    assert failure.retry_after == 1.0
    assert next_delay(RetryPolicy(1), 1, failure, 0.0) is None
