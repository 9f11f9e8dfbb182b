"""Items and mapped tasks that run again, by hand or with the subflow around them: none is left waiting, and no output is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Context, Store
from .. import outputs as outputs_room
from .conftest import make_store, returns, run, states_of
from .test_mapped_cancels import still_open
from .test_mapping import Mendable, lists


@pytest.fixture
def letting_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A store whose runs hold next to no outputs in memory."""
    monkeypatch.setattr(outputs_room, "MOST", 3000)
    with make_store("sqlite", tmp_path) as store:
        yield store


async def test_items_whose_outputs_were_let_go_are_in_the_list_when_their_subflow_is_tried_again(
    flow: AsyncFlow, letting_go: Store
) -> None:
    child = AsyncFlow("child")
    tries: list[str] = []

    def parse(ctx: Context) -> str:
        tries.append(ctx.task_id)
        if ctx.map_index == 3 and tries.count("parse[3]") == 1:
            raise ValueError("not yet")
        return "x" * 2000

    lists(child, [0, 1, 2, 3])
    child.add_task_definition("parse", parse, map_over="files")
    child.add_task_definition("sizes", lambda ctx: [len(text or "") for text in ctx.pull("parse")], dependencies=["parse"])
    flow.store = letting_go
    flow.add_subflow_definition("sub", child, max_retries=1, retry_delay=1)
    assert (await run(flow)).tasks["sub"].output == [2000] * 4
    assert len(tries) == 5


async def test_what_a_branch_chose_counts_when_its_output_was_let_go(flow: AsyncFlow, letting_go: Store) -> None:
    child = AsyncFlow("child")
    tries: list[str] = []
    ids = [f"{'x' * 100}{number}" for number in range(20)]

    def chosen(ctx: Context) -> str:
        tries.append(ctx.task_id)
        if ctx.task_id == ids[3] and tries.count(ids[3]) == 1:
            raise ValueError("not yet")
        return "y" * 2000

    child.add_task_definition("decide", returns(ids), branch=True)
    for task_id in ids:
        child.add_task_definition(task_id, chosen, dependencies=["decide"])
    child.add_task_definition("join", returns("joined"), dependencies=ids)
    flow.store = letting_go
    flow.add_subflow_definition("sub", child, max_retries=1, retry_delay=1)
    assert (await run(flow)).tasks["sub"].output == "joined"


async def test_an_item_is_retried_while_what_it_streams_from_waits_to_run_again(flow: AsyncFlow) -> None:
    mendable = Mendable(flow)
    await mendable.start()
    mendable.ran.clear()
    flow.manual_retry(mendable.run_id, "first", reset_downstream=False)
    flow.manual_retry(mendable.run_id, "second[1]", reset_downstream=True)
    done = await flow.run_until_complete(mendable.run_id)
    assert sorted(mendable.ran) == ["first[0]", "first[1]", "first[2]", "second[1]", "total"]
    assert (done.state, still_open(done)) == ("success", [])


async def test_an_item_of_a_whole_that_came_to_no_list_is_retried_with_the_whole(flow: AsyncFlow) -> None:
    is_broken = False

    def gate(ctx: Context) -> None:  # noqa: ARG001
        if is_broken:
            raise ValueError("broken")

    lists(flow, ["a", "b"])
    flow.add_task_definition("gate", gate)
    flow.add_task_definition("parse", lambda ctx: ctx.item, map_over="files", dependencies=["gate"])
    flow.add_task_definition("after", lambda ctx: ctx.pull("parse"), dependencies=["parse"])
    run_id = (await run(flow)).id
    is_broken = True
    failed = await flow.retry(run_id, "gate")
    assert [failed.tasks[task_id].state for task_id in ("parse", "parse[0]", "parse[1]")] == ["skipped"] * 3
    is_broken = False
    flow.manual_retry(run_id, "gate")
    done = await flow.retry(run_id, "parse[1]")
    assert (done.state, still_open(done)) == ("success", [])
    assert done.tasks["after"].output_json == ["a", "b"]


async def test_an_item_runs_that_an_earlier_list_did_not_have(flow: AsyncFlow) -> None:
    listed = [["a", "b"], ["a"], ["a", "b"]]
    broken = {"a", "b"}

    def parse(ctx: Context) -> Any:
        if ctx.item in broken:
            raise ValueError("broken")
        return ctx.item

    flow.add_task_definition("files", lambda ctx: listed.pop(0))
    flow.add_task_definition("parse", parse, map_over="files", map_key=str)
    run_id = (await run(flow)).id
    failed = await flow.retry(run_id, "files")
    assert (failed.tasks["parse[a]"].state, failed.tasks["parse[b]"].state) == ("failed", "skipped")
    broken.clear()
    flow.manual_retry(run_id, "files")
    done = await flow.retry(run_id, "parse[a]")
    assert (done.state, done.tasks["parse"].output_json) == ("success", ["a", "b"])


async def test_a_task_that_had_succeeded_is_mapped_from_now_on_and_what_maps_over_it_takes_its_list(store: Store) -> None:
    def build(is_mapped: bool) -> AsyncFlow:
        flow = AsyncFlow("flow", store)
        lists(flow, [1, 2])
        if is_mapped:
            flow.add_task_definition("parse", lambda ctx: ctx.item, map_over="files")
            flow.add_task_definition("size", lambda ctx: (ctx.item, ctx.pull("parse")), map_over="parse")
        else:
            flow.add_task_definition("parse", returns(["plain"]), dependencies=["files"])
        flow.add_task_definition("last", returns(None), dependencies=["parse"])
        return flow

    run_id = (await run(build(is_mapped=False))).id
    flow = build(is_mapped=True)
    flow.manual_retry(run_id, "last", adopt_graph=True)
    done = await flow.run_until_complete(run_id)
    assert done.tasks["size"].output_json == [("plain", ["plain"])]
    again = await flow.retry(run_id, "size[0]")
    assert again.tasks["size"].output_json == [("plain", ["plain"])]
    afresh = await flow.retry(run_id, "parse")
    assert (afresh.state, afresh.tasks["size"].output_json) == ("success", [(1, None), (2, None)])


async def test_an_item_that_is_not_listed_any_more_is_skipped_again_when_it_is_retried(flow: AsyncFlow) -> None:
    listed = [["a", "b"], ["a"]]
    flow.add_task_definition("files", lambda ctx: listed.pop(0))
    flow.add_task_definition("parse", lambda ctx: ctx.item, map_over="files", map_key=str)
    flow.add_task_definition("after", lambda ctx: ctx.pull("parse"), dependencies=["parse"])
    run_id = (await run(flow)).id
    await flow.retry(run_id, "files")
    done = await flow.retry(run_id, "parse[b]")
    assert states_of(done) == {
        "files": "success",
        "parse": "success",
        "after": "success",
        "parse[a]": "success",
        "parse[b]": "skipped",
    }
    assert done.tasks["after"].output_json == ["a"]
