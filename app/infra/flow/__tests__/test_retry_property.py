"""Delays under policies and failures that nobody thought of, made by Hypothesis; skipped where that is not installed."""

from __future__ import annotations

from statistics import mean

import pytest

pytest.importorskip("hypothesis", reason="property tests need Hypothesis: pip install -r requirements-dev.txt")

from hypothesis import given, settings  # noqa: E402 - only once it is known to be there
from hypothesis import strategies as st  # noqa: E402

from .. import RetryPolicy, TaskRecord  # noqa: E402
from ..errors import MAX_DELAY  # noqa: E402
from ..machine import _spread  # noqa: E402
from ..models import Failure  # noqa: E402
from ..retry_manager import next_delay  # noqa: E402

PLAIN = Failure("ValueError", "boom", "")
spans = st.floats(0, MAX_DELAY)
spreads = st.floats(0, 1, exclude_max=True)
any_text = st.text(st.characters(exclude_categories=()))
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 10**6),
    delay=spans,
    backoff=st.floats(1, 1e308),
    max_delay=st.none() | spans,
    jitter=st.floats(0, 1),
)


def spread_of(run_id: str, task_id: str, attempt: int) -> float:
    return _spread(TaskRecord(run_id, task_id, 0, attempts=attempt))


@given(policies, st.integers(1, 10**6), spreads)
def test_a_delay_lies_between_what_jitter_leaves_of_it_and_the_whole(policy: RetryPolicy, failures: int, spread: float) -> None:
    delay = next_delay(policy, failures, PLAIN, spread)
    assert (delay is None) is (failures > policy.max_retries)
    if delay is not None:
        whole = next_delay(policy, failures, PLAIN, 0.0)
        assert whole is not None
        assert 0 <= whole * (1 - policy.jitter) <= delay <= whole <= (MAX_DELAY if policy.max_delay is None else policy.max_delay)


@given(policies, st.integers(1, 1000), spreads)
def test_no_delay_is_shorter_than_the_one_before_it_but_for_jitter(policy: RetryPolicy, failures: int, spread: float) -> None:
    first, second = (next_delay(policy, count, PLAIN, spread) for count in (failures, failures + 1))
    assert first is None or second is None or first <= second


@given(any_text, any_text, st.integers(0, 10**6))
def test_what_jitter_goes_by_is_a_fraction_and_the_same_each_time(run_id: str, task_id: str, attempt: int) -> None:
    drawn = spread_of(run_id, task_id, attempt)
    assert 0 <= drawn < 1
    assert drawn == spread_of(run_id, task_id, attempt)


@settings(max_examples=25)
@given(st.uuids(), st.text("abcdefgh_-", max_size=20), st.integers(1, 5))
def test_tasks_that_failed_together_are_spread_evenly(run: object, name: str, attempt: int) -> None:
    drawn = [spread_of(str(run), f"{name}{number}", attempt) for number in range(2000)]
    assert mean(drawn) == pytest.approx(0.5, abs=0.05)
    tenths = [sum(part <= 10 * fraction < part + 1 for fraction in drawn) for part in range(10)]
    assert min(tenths) > 100
    assert max(tenths) < 300


@settings(max_examples=25)
@given(st.uuids(), st.integers(1, 5))
def test_tasks_that_met_once_do_not_meet_each_time(run: object, attempt: int) -> None:
    first, second = ([spread_of(str(run), f"task-{number:04}", attempt + more) for number in range(2000)] for more in (0, 1))
    together = [number for number, fraction in enumerate(first) if fraction < 0.05]
    again = [second[number] for number in together]
    assert len(together) > 50
    assert max(again) - min(again) > 0.5
    assert sum(abs(fraction - again[0]) < 0.05 for fraction in again) < len(again) / 2


@settings(max_examples=25)
@given(st.lists(st.uuids(), min_size=200, max_size=200, unique=True))
def test_the_same_task_of_many_runs_is_spread_too(runs: list[object]) -> None:
    drawn = [spread_of(str(run), "load", 1) for run in runs]
    assert len(set(drawn)) > 190
    assert max(drawn) - min(drawn) > 0.8
