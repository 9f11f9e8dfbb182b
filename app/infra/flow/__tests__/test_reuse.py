"""One flow nested twice under two ids: two runs that share nothing but the definition."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .. import AsyncFlow, Context, Store
from .conftest import STORE_KINDS, fails, make_store, run, states_of


class Work:
    """What the flow that is nested twice does, and what came of it: each task notes which of the two it belongs to."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.broken: set[str] = set()
        """Those whose second task fails."""
        self.holding: set[str] = set()
        """Those whose second task hangs."""
        self.held = asyncio.Event()
        """Whether one of them does."""

    def flow(self) -> AsyncFlow:
        child = AsyncFlow("child")

        @child.task
        async def first(ctx: Context) -> int:
            self.log.append(f"{ctx.params['which']}.first")
            ctx.params["changed"] = ctx.params["which"]
            return int(ctx.params["number"])

        @child.task(depends_on=[first])
        async def second(ctx: Context) -> list[Any]:
            which = ctx.params["which"]
            self.log.append(f"{which}.second")
            if which in self.broken:
                raise ValueError(which)
            if which in self.holding:
                self.held.set()
                await asyncio.Event().wait()
            return [ctx.params["changed"], ctx.pull("first") * 10]

        return child


def twice(work: Work, store: Store) -> AsyncFlow:
    """A flow in which it stands as `a` and as `b`, side by side, and an `end` that takes up both."""
    flow, child = AsyncFlow("twice", store), work.flow()
    flow.add_subflow_definition("a", child, params={"which": "a", "number": 1})
    flow.add_subflow_definition("b", child, params=lambda ctx: {"which": "b", "number": 2})
    flow.add_task_definition("end", lambda ctx: [ctx.pull("a"), ctx.pull("b")], dependencies=["a", "b"])
    return flow


A, B = ["a", 10], ["b", 20]


async def test_each_has_its_run_params_states_and_result(store: Store) -> None:
    work = Work()
    done = await run(twice(work, store), {"shared": True})
    assert done.tasks["end"].output == [A, B]
    assert sorted(work.log) == ["a.first", "a.second", "b.first", "b.second"]
    children = {task_id: store.load(str(done.tasks[task_id].child_run_id)) for task_id in "ab"}
    assert len({child.id for child in children.values()}) == 2
    for task_id, child in children.items():
        assert (child.flow_name, child.parent_task_id, child.state) == ("child", task_id, "success")
        assert (child.params["which"], child.params["changed"], child.params["shared"]) == (task_id, task_id, True)
    assert done.params == {"shared": True}
    assert {path for path in done.get_all_tasks_recursive(store) if "." in path} == {
        "a.first",
        "a.second",
        "b.first",
        "b.second",
    }


async def test_one_after_the_other_is_no_different(store: Store) -> None:
    work, flow = Work(), AsyncFlow("in_a_row", store)
    child = work.flow()
    flow.add_subflow_definition("a", child, params={"which": "a", "number": 1})
    flow.add_subflow_definition("b", child, dependencies=["a"], params={"which": "b", "number": 2})
    done = await run(flow, max_concurrency=1)
    assert (done.tasks["a"].output, done.tasks["b"].output) == (A, B)
    assert done.tasks["b"].input_json["a"] == A
    assert work.log == ["a.first", "a.second", "b.first", "b.second"]


async def test_what_fails_in_one_fails_nothing_in_the_other_and_is_retried_alone(store: Store) -> None:
    work = Work()
    work.broken = {"a"}
    flow = twice(work, store)
    done = await run(flow)
    assert states_of(done) == {"a": "failed", "b": "success", "end": "skipped"}
    assert (done.tasks["a"].reason or "").endswith("a.second: ValueError: a")
    other = done.tasks["b"].child_run_id
    work.broken = set()
    work.log.clear()
    mended = await flow.retry(done.id, "a.second")
    assert mended.tasks["end"].output == [A, B]
    assert work.log == ["a.second"]
    assert mended.tasks["b"].child_run_id == other
    attempts = {task_id: store.list_attempts(str(mended.tasks[task_id].child_run_id), "second") for task_id in "ab"}
    assert {task_id: len(each) for task_id, each in attempts.items()} == {"a": 2, "b": 1}


async def test_one_that_succeeded_runs_afresh_without_the_other(store: Store) -> None:
    work = Work()
    flow = twice(work, store)
    done = await run(flow)
    before = {task_id: done.tasks[task_id].child_run_id for task_id in "ab"}
    work.log.clear()
    again = await flow.retry(done.id, "b")
    assert work.log == ["b.first", "b.second"]
    assert again.tasks["end"].output == [A, B]
    assert again.tasks["a"].child_run_id == before["a"]
    assert again.tasks["b"].child_run_id != before["b"]


@pytest.mark.parametrize("path", ["a", "a.second"])
async def test_one_that_is_cancelled_leaves_the_other_alone(store: Store, path: str) -> None:
    work = Work()
    work.holding = {"a"}
    flow = twice(work, store)
    run_id = flow.init_run()
    driven = asyncio.ensure_future(flow.run_until_complete(run_id))
    await asyncio.wait_for(work.held.wait(), 10)
    await asyncio.to_thread(flow.cancel_task, run_id, path)
    done = await driven
    tasks = {path: task.state.value for path, task in done.get_all_tasks_recursive(store).items()}
    assert {task_id: state for task_id, state in tasks.items() if task_id.startswith("b")} == {
        "b": "success",
        "b.first": "success",
        "b.second": "success",
    }
    assert tasks["a.second"] == "cancelled"
    assert tasks["end"] == "skipped"
    work.holding = set()
    work.log.clear()
    assert (await flow.retry(run_id, "a")).tasks["end"].output == [A, B]
    assert [entry for entry in work.log if entry.startswith("b")] == []


@pytest.mark.parametrize("kind", STORE_KINDS)
async def test_one_that_was_cut_off_goes_on_without_the_other(kind: str, tmp_path: Any) -> None:
    work, store = Work(), make_store(kind, tmp_path)
    work.holding = {"b"}
    first = twice(work, store)
    run_id = first.init_run()
    call = asyncio.ensure_future(first.run_until_complete(run_id))
    await asyncio.wait_for(work.held.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    work.holding = set()
    if kind != "memory":
        store.close()
        store = make_store(kind, tmp_path)
    work.log.clear()
    assert (await twice(work, store).run_until_complete(run_id)).tasks["end"].output == [A, B]
    assert work.log.count("b.second") == 1
    assert "a.first" not in work.log
    assert "b.first" not in work.log
    store.close()


async def test_what_is_declared_in_it_later_is_in_both(flow: AsyncFlow) -> None:
    """They are held by reference: a flow is nested as it is when the run is made."""
    child = Work().flow()
    for which in "ab":
        flow.add_subflow_definition(which, child, params={"which": which, "number": 1})
    child.add_task_definition("third", fails("not there when it was nested"))
    states = {path: task.state.value for path, task in (await run(flow)).get_all_tasks_recursive(flow.store).items()}
    assert (states["a.third"], states["b.third"]) == ("failed", "failed")
