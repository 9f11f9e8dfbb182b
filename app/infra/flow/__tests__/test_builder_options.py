"""What a FlowBuilder builds says the same of its tasks as decorators do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .. import AsyncFlow, FlowBuilder, RetryPolicy, UnknownPoolError
from .conftest import returns, run


def test_options_of_tasks_and_of_the_flow_reach_what_is_built() -> None:
    with ThreadPoolExecutor() as pool:
        given = {"executor": "inline", "executors": {"mine": pool}, "pools": {"builder": 2}, "max_threads": 3, "grace_period": 1}
        policy = RetryPolicy(max_retries=2, backoff=2)
        said = {"timeout": 5, "heartbeat_timeout": 1, "pool": "builder", "pool_weight": 2, "priority": 7, "retry": policy}
        built = FlowBuilder("f", **given).add_task("a", lambda ctx: 1, **said).build()  # type: ignore[arg-type]
        plain = AsyncFlow("f", **given).add_task_definition("a", lambda ctx: 1, **said)  # type: ignore[arg-type]
    assert built._capacities == plain._capacities
    assert (built.definition.executor, built.definition.executors) == ("inline", {"mine": pool})
    mine, theirs = built.definition.tasks["a"], plain.definition.tasks["a"]
    assert (mine.options, mine.retry) == (theirs.options, theirs.retry)
    details = built.get_execution_details(built.init_run())["tasks"]["a"]
    assert {key: details[key] for key in ("timeout", "heartbeat_timeout", "executor", "pool", "pool_weight", "priority")} == {
        "timeout": 5.0,
        "heartbeat_timeout": 1.0,
        "executor": None,
        "pool": "builder",
        "pool_weight": 2,
        "priority": 7,
    }
    assert details["retry"] == {
        "max_retries": 2,
        "delay": 0.0,
        "backoff": 2.0,
        "max_delay": None,
        "jitter": 0.0,
        "retry_on": None,
        "give_up_on": [],
    }


def test_what_is_built_is_checked_for_where_its_tasks_are_to_run() -> None:
    with pytest.raises(UnknownPoolError):
        FlowBuilder("f").add_task("a", lambda ctx: 1, pool="there is none").build()


async def test_a_built_flow_runs_where_it_was_told() -> None:
    with ThreadPoolExecutor(thread_name_prefix="brought") as pool:
        flow = FlowBuilder("f", executors={"mine": pool}).add_task("a", returns(1)).build()
        assert (await run(flow)).state == "success"
