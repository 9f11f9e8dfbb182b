"""Items, and mapped tasks with all their items, that somebody cancels: what streams from them ends, and nothing is left open."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from .. import AsyncFlow, Context, ExecutionState, Store, WorkflowRun
from .attempts import until
from .conftest import states_of
from .test_mapping import Mendable, lists


def state(flow: AsyncFlow, run_id: str, task_id: str) -> ExecutionState | None:
    """Where a task stands in the store, if it is there yet."""
    found = flow.store.load(run_id).tasks.get(task_id)
    return None if found is None else found.state


def still_open(run: WorkflowRun) -> list[str]:
    return [task_id for task_id, task in run.tasks.items() if not ExecutionState.is_terminal(task.state)]


class Hanging:
    """Tasks whose items hang if they are anything but zero."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    async def task(self, ctx: Context) -> Any:
        if ctx.item:
            self.begun.append(ctx.task_id)
            await asyncio.Event().wait()
        return ctx.item


async def test_what_streams_from_a_whole_that_is_cancelled_goes_by_its_rule_and_ends(flow: AsyncFlow) -> None:
    hanging = Hanging()
    lists(flow, [0, 1, 2])
    flow.add_task_definition("first", hanging.task, map_over="files")
    flow.add_task_definition("second", lambda ctx: ctx.item, map_over="first")
    flow.add_task_definition("third", lambda ctx: ctx.map_index, map_over="second", trigger_rule="all_done")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: len(hanging.begun) == 2 and state(flow, run_id, "third[0]") == "success")
    assert await asyncio.to_thread(flow.cancel_task, run_id, "first")
    done = await asyncio.wait_for(driving, 30)
    assert {task_id: found for task_id, found in states_of(done).items() if "[" in task_id} == {
        "first[0]": "success",
        "first[1]": "cancelled",
        "first[2]": "cancelled",
        "second[0]": "success",
        "second[1]": "skipped",
        "second[2]": "skipped",
        "third[0]": "success",
        "third[1]": "success",
        "third[2]": "success",
    }
    assert [done.tasks[whole].state for whole in ("first", "second", "third")] == ["cancelled", "failed", "success"]
    assert done.tasks["second[1]"].reason == "upstream task 'first[1]' was cancelled"


async def test_a_whole_that_waits_for_a_new_list_is_cancelled_with_its_items_by_its_records(
    flow: AsyncFlow, store: Store
) -> None:
    flow.store = store
    mendable = Mendable(flow)
    await mendable.start()
    flow.manual_retry(mendable.run_id, "files", reset_downstream=True)
    assert flow.cancel_task(mendable.run_id, "first")
    stored = states_of(store.load(mendable.run_id))
    assert [stored[f"first[{index}]"] for index in range(3)] == ["cancelled"] * 3
    done = await flow.run_until_complete(mendable.run_id)
    assert still_open(done) == []
    assert done.tasks["second[0]"].state == "skipped"


async def test_a_whole_is_cancelled_while_its_list_is_taken_apart(flow: AsyncFlow) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def key(item: int) -> str:
        begun.set()
        go_on.wait(30)
        return str(item)

    lists(flow, [0, 1])
    flow.add_task_definition("first", lambda ctx: ctx.item, map_over="files", map_key=key)
    flow.add_task_definition("second", lambda ctx: ctx.item, map_over="first")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await until(begun.is_set)
    assert await asyncio.to_thread(flow.cancel_task, run_id, "first")
    done = await asyncio.wait_for(driving, 30)
    go_on.set()
    assert states_of(done) == {"files": "success", "first": "cancelled", "second": "skipped"}


async def test_items_inside_the_subflows_of_items_are_cancelled_alone_or_together(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    hanging = Hanging()
    child = AsyncFlow("child")
    child.add_task_definition("list", lambda ctx: [0, ctx.params["item"]])
    child.add_task_definition("inner", hanging.task, map_over="list")
    child.add_task_definition("tail", lambda ctx: ctx.item, map_over="inner")
    lists(flow, [0, 1, 2])
    flow.add_subflow_definition("each", child, map_over="files")
    flow.add_task_definition("after", lambda ctx: ctx.item, map_over="each", trigger_rule="all_done")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: len(hanging.begun) == 2 and state(flow, run_id, "after[0]") == "success")
    assert await asyncio.to_thread(flow.cancel_task, run_id, "each[1].inner[1]")
    assert await asyncio.to_thread(flow.cancel_task, run_id, "each[2].inner")
    done = await asyncio.wait_for(driving, 30)
    assert [done.tasks[f"each[{index}]"].state for index in range(3)] == ["success", "failed", "failed"]
    assert done.tasks["after"].output_json == [[0, 0], None, None]
    assert still_open(done) == []
    assert [still_open(store.load(child_id)) for child_id in store.list_children(run_id)] == [[], [], []]


async def test_a_mapped_subflow_is_cancelled_whole_with_all_its_runs(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    hanging = Hanging()
    child = AsyncFlow("child")
    child.add_task_definition("list", lambda ctx: [ctx.params["item"]])
    child.add_task_definition("inner", hanging.task, map_over="list")
    lists(flow, [1, 2, 3])
    flow.add_subflow_definition("each", child, map_over="files")
    flow.add_task_definition("after", lambda ctx: ctx.map_index, map_over="each", trigger_rule="all_done")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id, max_concurrency=1))
    await until(lambda: hanging.begun)
    assert await asyncio.to_thread(flow.cancel_task, run_id, "each")
    done = await asyncio.wait_for(driving, 30)
    assert (done.tasks["each"].state, done.tasks["after"].output_json) == ("cancelled", [0, 1, 2])
    assert still_open(done) == []
    assert {store.load(child_id).state for child_id in store.list_children(run_id)} == {"cancelled"}
    assert len(hanging.begun) == 1
