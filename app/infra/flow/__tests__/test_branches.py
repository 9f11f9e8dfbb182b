"""Branches choose which of their downstreams go on, and rules let tasks run though not all went well, as users write them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .. import AsyncFlow, Context, InvalidOptionError, Store, TriggerRule
from .attempts import until
from .conftest import fails, returns, run, states_of


def approval(flow: AsyncFlow, chosen: Any) -> None:
    """`decide`, two ways behind it, and where they come together again."""
    flow.add_task_definition("decide", returns(chosen), branch=True)
    for way in ("approve", "reject"):
        flow.add_task_definition(way, returns(way), dependencies=["decide"])
    flow.add_task_definition("after", lambda ctx: ctx.pull("approve"), dependencies=["approve"])
    flow.add_task_definition(
        "end",
        lambda ctx: [ctx.pull("approve"), ctx.pull("reject")],
        dependencies=["approve", "reject"],
        trigger_rule="none_failed_min_one_success",
    )


@pytest.mark.parametrize(
    ("chosen", "came_to"),
    [
        ("approve", ["approve", None]),
        (["reject"], [None, "reject"]),
        (("approve", "reject"), ["approve", "reject"]),
        (None, None),
        ([], None),
    ],
)
async def test_a_branch_goes_the_ways_that_it_names(flow: AsyncFlow, store: Store, chosen: Any, came_to: Any) -> None:
    flow.store = store
    approval(flow, list(chosen) if isinstance(chosen, tuple) else chosen)
    done = await run(flow)
    assert (done.state, done.tasks["end"].output_json) == ("success", came_to)
    for way in ("approve", "reject"):
        if came_to is None or way not in came_to:
            task = store.load(done.id).tasks[way]
            assert (task.state, task.reason, task.try_number) == ("skipped", "branch 'decide' did not choose it", 0)
    if came_to is None:
        assert done.tasks["end"].state == "skipped"


async def test_what_stands_behind_a_way_that_was_chosen_is_not_left_out(flow: AsyncFlow) -> None:
    flow.add_task_definition("decide", returns("long"), branch=True)
    flow.add_task_definition("long", returns(1), dependencies=["decide"])
    flow.add_task_definition("end", returns(2), dependencies=["decide", "long"])
    assert states_of(await run(flow)) == {"decide": "success", "long": "success", "end": "success"}


@pytest.mark.parametrize("chosen", ["aprove", 7, {"approve": True}, ["approve", "after"], ["approve", None]])
async def test_a_choice_that_is_none_fails_the_branch_once_and_changes_nothing(flow: AsyncFlow, chosen: Any) -> None:
    def decide(ctx: Context) -> Any:
        ctx.params["seen"] = True
        return chosen

    flow.add_task_definition("decide", decide, branch=True, max_retries=3, retry_delay=60)
    flow.add_task_definition("approve", returns(1), dependencies=["decide"])
    flow.add_task_definition("after", returns(1), dependencies=["approve"])
    done = await run(flow)
    assert states_of(done) == {"decide": "failed", "approve": "skipped", "after": "skipped"}
    assert "BranchError: Branch 'decide' chose " in (done.tasks["decide"].reason or "")
    assert "'approve'" in (done.tasks["decide"].error or "")
    assert (done.tasks["decide"].try_number, done.params) == (0, {})


async def test_a_task_behind_a_branch_waits_for_it_whatever_its_rule(flow: AsyncFlow) -> None:
    ended = asyncio.Event()

    async def decide(ctx: Context) -> None:  # noqa: ARG001
        await ended.wait()

    flow.add_task_definition("quick", returns(1))
    flow.add_task_definition("decide", decide, branch=True)
    flow.add_task_definition("always", returns(1), dependencies=["decide"], trigger_rule="always")
    flow.add_task_definition("early", returns(1), dependencies=["decide", "quick"], trigger_rule="one_success")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: flow.store.load(run_id).tasks["quick"].state == "success")
    assert {flow.store.load(run_id).tasks[task_id].state for task_id in ("always", "early")} == {"scheduled"}
    ended.set()
    assert states_of(await driving) == {"quick": "success", "decide": "success", "always": "skipped", "early": "skipped"}


async def test_a_branch_that_is_retried_chooses_anew_and_otherwise_keeps_to_its_choice(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    chosen = ["approve", "reject"]
    flow.add_task_definition("decide", lambda ctx: chosen.pop(0), branch=True)
    for way in ("approve", "reject"):
        flow.add_task_definition(way, returns(way), dependencies=["decide"])
    first = await run(flow)
    assert (await flow.retry(first.id, "reject")).tasks["reject"].reason == "branch 'decide' did not choose it"
    done = await flow.retry(first.id, "decide")
    assert states_of(done) == {"decide": "success", "approve": "skipped", "reject": "success"}


async def test_a_task_that_cleans_up_runs_and_hides_no_failure(flow: AsyncFlow) -> None:
    flow.add_task_definition("good", returns("good"))
    flow.add_task_definition("bad", fails())
    flow.add_task_definition(
        "clean", lambda ctx: [ctx.pull("good"), ctx.pull("bad")], dependencies=["good", "bad"], trigger_rule=TriggerRule.ALL_DONE
    )
    done = await run(flow)
    assert (done.state, done.tasks["clean"].state, done.tasks["clean"].output_json) == ("failed", "success", ["good", None])


async def test_a_rule_that_fires_early_does_not_wait_and_sees_only_what_had_ended() -> None:
    flow = AsyncFlow("flow")  # by a clock that moves: what had ended is told by the times
    release = asyncio.Event()

    async def slow(ctx: Context) -> str:  # noqa: ARG001
        await release.wait()
        return "slow"

    async def alarm(ctx: Context) -> Any:
        release.set()
        await until(lambda: ctx.workflow_run.tasks["slow"].state == "success")
        return ctx.pull("slow")

    flow.add_task_definition("slow", slow)
    flow.add_task_definition("bad", fails())
    flow.add_task_definition("alarm", alarm, dependencies=["slow", "bad"], trigger_rule="one_failed")
    done = await run(flow)
    assert (done.state, done.tasks["alarm"].state, done.tasks["alarm"].output_json) == ("failed", "success", None)


def test_a_rule_that_there_is_not_is_refused(flow: AsyncFlow) -> None:
    with pytest.raises(InvalidOptionError, match="one of 'all_success', 'all_failed'") as caught:
        flow.add_task_definition("only", returns(1), trigger_rule="all_sucess")
    assert (caught.value.option, caught.value.task_id) == ("trigger_rule", "only")
