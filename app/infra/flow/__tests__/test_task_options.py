"""What a task may say of where, when and for how long it runs: what makes no sense is refused by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from .. import AsyncFlow, Context, InvalidOptionError, UnknownExecutorError, UnknownPoolError
from ..task_options import DEFAULT, USUAL, capacities, task_options


def work(ctx: Context) -> None:
    """A task."""


async def wait(ctx: Context) -> None:
    """A coroutine."""


def test_a_task_that_says_nothing_shares_one_object_with_all_others() -> None:
    assert task_options("a") is DEFAULT
    assert capacities(64, None, 5.0) is USUAL


def test_spans_of_time_are_seconds_or_timedeltas() -> None:
    options = task_options("a", timeout=timedelta(minutes=1), heartbeat_timeout=2)
    assert (options.timeout, options.heartbeat_timeout) == (60.0, 2.0)


@pytest.mark.parametrize(
    "given",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "1"},
        {"timeout": True},
        {"heartbeat_timeout": 0},
        {"executor": ""},
        {"executor": 7},
        {"executor": ThreadPoolExecutor},
        {"pool": ""},
        {"pool": 3},
        {"pool": "db", "pool_weight": 0},
        {"pool": "db", "pool_weight": True},
        {"pool_weight": 2},
        {"priority": 1.5},
        {"priority": True},
        {"priority": 2**31},
    ],
)
def test_an_option_that_makes_no_sense_is_refused_and_named(given: dict[str, Any]) -> None:
    flow = AsyncFlow("f")
    with pytest.raises(InvalidOptionError) as caught:
        flow.add_task_definition("a", work, **given)
    assert caught.value.option in given
    assert caught.value.task_id == "a"
    assert not flow.has_task("a")


@pytest.mark.parametrize(
    "given",
    [
        {"max_threads": 0},
        {"max_threads": None},
        {"max_threads": True},
        {"max_processes": 0},
        {"max_processes": 1.5},
        {"grace_period": -1},
        {"grace_period": "soon"},
        {"executor": 7},
        {"executors": {"thread": ThreadPoolExecutor()}},
        {"executors": {"": ThreadPoolExecutor()}},
        {"executors": {"cluster": None}},
        {"executors": {"cluster": "process"}},
        {"executors": {"cluster": 7}},
        {"executors": ["cluster"]},
        {"pools": {"db": 0}},
    ],
)
def test_an_option_of_a_flow_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError):
        AsyncFlow("f", **given)


def test_an_executor_that_nobody_brought_is_refused_before_a_run_exists() -> None:
    flow = AsyncFlow("f", executors={"cluster": ThreadPoolExecutor()})
    flow.add_task_definition("a", work, executor="clutser")
    with pytest.raises(UnknownExecutorError) as caught:
        flow.init_run()
    assert (caught.value.executor, caught.value.suggestion) == ("clutser", "cluster")
    assert flow.store.list_runs() == []


def test_a_nested_flow_may_name_the_executors_of_the_flow_it_is_nested_in() -> None:
    inner = AsyncFlow("inner")
    inner.add_task_definition("a", work, executor="cluster")
    AsyncFlow("outer", executors={"cluster": ThreadPoolExecutor()}).add_subflow_definition("in", inner).validate()
    with pytest.raises(UnknownExecutorError, match="inner"):
        AsyncFlow("outer").add_subflow_definition("in", inner).validate()


def test_a_flow_that_is_nested_twice_needs_its_executor_in_both_places() -> None:
    inner = AsyncFlow("inner").add_task_definition("a", work, executor="cluster")
    for order in (["has", "lacks"], ["lacks", "has"]):
        outer = AsyncFlow("outer")
        for name in order:
            executors = {"cluster": ThreadPoolExecutor()} if name == "has" else None
            outer.add_subflow_definition(name, AsyncFlow(name, executors=executors).add_subflow_definition("in", inner))
        with pytest.raises(UnknownExecutorError):
            outer.validate()


def test_a_pool_that_no_flow_has_declared_is_refused() -> None:
    flow = AsyncFlow("f", pools={"the database": 2})
    flow.add_task_definition("a", work, pool="the databse")
    with pytest.raises(UnknownPoolError, match="Did you mean 'the database'"):
        flow.init_run()


def test_a_task_that_wants_more_of_a_pool_than_there_is_would_never_run_and_is_refused() -> None:
    flow = AsyncFlow("f", pools={"two": 2})
    flow.add_task_definition("a", work, pool="two", pool_weight=3)
    with pytest.raises(InvalidOptionError, match="at most 2"):
        flow.init_run()


def test_a_coroutine_is_not_run_in_a_thread() -> None:
    flow = AsyncFlow("f")
    flow.add_task_definition("a", wait, executor="thread")
    with pytest.raises(InvalidOptionError, match="coroutine"):
        flow.validate()


def test_heartbeats_that_would_not_arrive_are_refused() -> None:
    flow = AsyncFlow("f", executors={"cluster": ThreadPoolExecutor()})
    flow.add_task_definition("a", work, executor="cluster", heartbeat_timeout=1)
    with pytest.raises(InvalidOptionError, match="heartbeat_timeout"):
        flow.validate()
