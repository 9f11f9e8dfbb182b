"""One task, many items: made from a list, each with a state of its own, streamed from one mapped task to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .. import AsyncFlow, Changes, Context, InvalidNameError, InvalidOptionError, SkipTask, Store, UnknownTaskError, WorkflowRun
from .attempts import until
from .conftest import STORE_KINDS, FakeClock, around_commits, make_store, outputs_of, returns, run, states_of


class Point(NamedTuple):
    x: int
    y: int


def lists(flow: AsyncFlow, value: Any, task_id: str = "files") -> None:
    flow.add_task_definition(task_id, returns(value))


def items_of(done: WorkflowRun, whole: str) -> dict[str, Any]:
    """The outputs of a mapped task's items, by their ids."""
    return {task_id: task.output_json for task_id, task in done.tasks.items() if task_id.startswith(f"{whole}[")}


# --- what there is of it ---


async def test_there_is_a_task_for_each_item_with_a_state_of_its_own(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    lists(flow, ["a", "b", "c"])
    flow.add_task_definition("parse", lambda ctx: (ctx.task_id, ctx.item, ctx.map_index), map_over="files")
    flow.add_task_definition("total", lambda ctx: ctx.pull("parse"), dependencies=["parse"])
    done = await run(flow)
    expected = [("parse[0]", "a", 0), ("parse[1]", "b", 1), ("parse[2]", "c", 2)]
    assert list(done.tasks) == ["files", "parse", "total", "parse[0]", "parse[1]", "parse[2]"]
    assert done.tasks["total"].output_json == expected
    assert done.tasks["parse"].output_json == expected
    assert done.tasks["parse"].input_json == 3
    assert states_of(store.load(done.id)) == dict.fromkeys(done.tasks, "success")
    assert outputs_of(store.load(done.id)) == outputs_of(done)
    assert [attempt.number for attempt in store.list_attempts(done.id, "parse[1]")] == [1]


async def test_items_are_called_by_their_keys_where_there_are_some(flow: AsyncFlow) -> None:
    lists(flow, [{"name": "orders.csv"}, {"name": "new orders/2.csv"}])
    flow.add_task_definition("parse", lambda ctx: ctx.idempotency_key, map_over="files", map_key=lambda item: item["name"])
    done = await flow.run_until_complete(flow.init_run(run_id="nightly"))
    assert items_of(done, "parse") == {
        "parse[orders.csv]": "nightly/parse[orders.csv]",
        "parse[new orders/2.csv]": "nightly/parse[new orders/2.csv]",
    }
    assert done.tasks["parse"].input_json == ["orders.csv", "new orders/2.csv"]


async def test_a_function_takes_the_item_as_a_parameter_and_so_do_coroutines(flow: AsyncFlow) -> None:
    lists(flow, (1, 2))
    lists(flow, 10, "base")

    async def add(ctx: Context, item: int, base: int) -> int:  # noqa: ARG001
        return item + base

    flow.add_task_definition("add", add, map_over="files", dependencies=["base"])
    assert (await run(flow)).tasks["add"].output_json == [11, 12]


async def test_an_item_is_a_copy_of_its_own_and_of_the_same_type(flow: AsyncFlow) -> None:
    lists(flow, [{"n": (1, 2)}, {"n": {3}}])

    def change(ctx: Context) -> Any:
        ctx.item["n"] = None
        return ctx.item

    flow.add_task_definition("change", change, map_over="files")
    flow.add_task_definition("after", lambda ctx: ctx.pull("files"), dependencies=["change"])
    done = await run(flow)
    assert done.tasks["change"].output_json == done.tasks["after"].output_json == [{"n": (1, 2)}, {"n": {3}}]


async def test_tasks_that_are_not_mapped_have_no_item(flow: AsyncFlow) -> None:
    flow.add_task_definition("plain", lambda ctx: (ctx.item, ctx.map_index))
    assert (await run(flow)).tasks["plain"].output_json == (None, None)


async def test_an_empty_list_succeeds_with_an_empty_list(flow: AsyncFlow) -> None:
    lists(flow, [])
    flow.add_task_definition("parse", lambda ctx: ctx.item, map_over="files")
    flow.add_task_definition("size", lambda ctx: ctx.item, map_over="parse")
    flow.add_task_definition("total", lambda ctx: ctx.pull("size"), dependencies=["size"])
    done = await run(flow)
    assert (done.state, done.tasks["parse"].output_json, done.tasks["total"].output_json) == ("success", [], [])


async def test_whoever_is_downstream_may_pull_one_item_too(flow: AsyncFlow) -> None:
    lists(flow, ["a", ""])
    flow.add_task_definition("parse", lambda ctx: ctx.item * 2, map_over="files")
    flow.add_task_definition("one", lambda ctx: ctx.pull("parse[0]"), dependencies=["parse"])
    flow.add_task_definition("none", lambda ctx: ctx.pull("parse[7]"), dependencies=["parse"])
    done = await run(flow)
    assert done.tasks["one"].output_json == "aa"
    assert "UnknownTaskError: Flow 'test_flow' has no task 'parse[7]'" in (done.tasks["none"].reason or "")


# --- what it cannot be mapped over ---


@pytest.mark.parametrize(
    ("value", "options", "problem"),
    [
        (None, {}, "the output of task 'files' is None, and no list"),
        ({"a": 1}, {}, "the output of task 'files' is of type dict, and no list"),
        ("text", {}, "the output of task 'files' is of type str, and no list"),
        (Point(1, 2), {}, "the output of task 'files' is of type Point, and no list"),
        ([1, 2, 3], {"max_map_size": 2}, "it has 3 items, more than max_map_size=2"),
        (["a", "b", "a"], {"map_key": str}, "items 0 and 2 have the same key 'a'"),
        ([""], {"map_key": str}, "it must not be empty"),
        (["a[0]"], {"map_key": str}, "it must not hold brackets"),
        ([1], {"map_key": lambda item: item}, "it must be a string, not int"),
        ([1], {"map_key": lambda item: item["name"]}, "map_key raised TypeError on item 0"),
    ],
)
async def test_what_cannot_be_mapped_fails_the_task_once_and_names_both(
    flow: AsyncFlow, value: Any, options: dict[str, Any], problem: str
) -> None:
    flow.store.register(Point)
    lists(flow, value)
    flow.add_task_definition("parse", lambda ctx: ctx.item, map_over="files", max_retries=5, retry_delay=60, **options)
    flow.add_task_definition("after", returns(1), dependencies=["parse"])
    done = await run(flow)
    assert states_of(done) == {"files": "success", "parse": "failed", "after": "skipped"}
    said = done.tasks["parse"].reason or ""
    assert "MapError: Task 'parse' cannot be mapped over 'files': " in said
    assert problem in said
    assert done.tasks["parse"].try_number == 0


def test_a_declaration_that_makes_no_sense_is_refused(flow: AsyncFlow) -> None:
    senseless: list[tuple[str, dict[str, Any], type[Exception]]] = [
        ("a", {"map_key": str}, InvalidOptionError),
        ("a", {"max_map_size": 7}, InvalidOptionError),
        ("a", {"map_over": "files", "max_map_size": 0}, InvalidOptionError),
        ("a", {"map_over": "files", "map_key": "name"}, InvalidOptionError),
        ("a", {"map_over": 7}, InvalidOptionError),
        ("a", {"map_over": "files", "branch": True}, InvalidOptionError),
        ("a[", {"map_over": "files"}, InvalidOptionError),
    ]
    for task_id, options, error in senseless:
        with pytest.raises(error):
            flow.add_task_definition(task_id, returns(1), **options)
    assert not flow.has_task("a")
    lists(flow, [])
    flow.add_task_definition("parse", returns(1), map_over="files")
    flow.add_task_definition("size", returns(1), map_over="parse", map_key=str)
    with pytest.raises(InvalidOptionError, match="'parse' is mapped itself"):
        flow.validate()
    flow.add_task_definition("size", returns(1), map_over="parse", replace=True)
    flow.add_task_definition("parse[0]", returns(1))
    with pytest.raises(InvalidNameError, match="so are the items of 'parse' called"):
        flow.validate()


# --- each is a task ---


async def test_items_have_attempts_retries_and_a_place_in_the_limit_of_their_own(flow: AsyncFlow, clock: FakeClock) -> None:
    lists(flow, [0, 1, 2, 3])
    running = most = 0

    async def parse(ctx: Context) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if ctx.item == 2 and ctx.attempt_number < 2:
            raise ValueError("not yet")
        return ctx.attempt_number

    flow.add_task_definition("parse", parse, map_over="files", max_retries=2, retry_delay=30)
    done = await run(flow, max_concurrency=2)
    assert (done.tasks["parse"].output_json, most) == ([0, 0, 2, 0], 2)
    assert clock.slept[-2:] == [30, 30]


async def test_items_that_fail_fail_the_whole_and_say_which(flow: AsyncFlow) -> None:
    lists(flow, [0, 1, 2, 3, 4])
    flow.add_task_definition("parse", lambda ctx: 1 / (ctx.item % 2), map_over="files")
    flow.add_task_definition("after", returns(1), dependencies=["parse"])
    done = await run(flow)
    assert done.tasks["parse"].state == "failed"
    assert (done.tasks["parse"].reason or "").startswith("3 of 5 items failed: parse[0]: ZeroDivisionError: ")
    assert (done.tasks["after"].state, done.tasks["after"].reason) == ("skipped", "upstream task 'parse' failed")
    assert items_of(done, "parse") == {"parse[0]": None, "parse[1]": 1.0, "parse[2]": None, "parse[3]": 1.0, "parse[4]": None}


async def test_an_item_may_be_skipped_and_leaves_none_in_its_place(flow: AsyncFlow) -> None:
    lists(flow, [0, 1, 2])

    def parse(ctx: Context) -> int:
        if ctx.item == 1:
            raise SkipTask("odd")
        return int(ctx.item)

    flow.add_task_definition("parse", parse, map_over="files")
    flow.add_task_definition("seldom", returns(1), map_over="files", run_if=lambda ctx: ctx.item > 5)
    done = await run(flow)
    assert (done.state, done.tasks["parse"].output_json) == ("success", [0, None, 2])
    assert (done.tasks["seldom"].state, done.tasks["seldom"].reason) == ("skipped", "all 3 items were skipped")


# --- streaming ---


async def test_an_item_of_the_second_starts_when_that_of_the_first_is_done(flow: AsyncFlow) -> None:
    lists(flow, [0, 1, 2])
    order: list[str] = []
    third = asyncio.Event()

    async def first(ctx: Context) -> int:
        if ctx.map_index == 0:
            await third.wait()  # it ends only after the second stage of another item has ended
        order.append(ctx.task_id)
        return int(ctx.item) * 10

    async def second(ctx: Context) -> int:
        order.append(ctx.task_id)
        if ctx.map_index == 2:
            third.set()
        return int(ctx.item) + 1

    flow.add_task_definition("first", first, map_over="files")
    flow.add_task_definition("second", second, map_over="first")
    done = await run(flow)
    assert done.tasks["second"].output_json == [1, 11, 21]
    assert order.index("second[2]") < order.index("first[0]")


async def test_what_streams_from_an_item_that_failed_is_skipped_unless_its_rule_says_otherwise(flow: AsyncFlow) -> None:
    lists(flow, [0, 1, 2])

    def first(ctx: Context) -> int:
        if ctx.item == 1:
            raise ValueError("no")
        if ctx.item == 2:
            raise SkipTask("two")
        return int(ctx.item)

    flow.add_task_definition("first", first, map_over="files")
    flow.add_task_definition("second", lambda ctx: ctx.item, map_over="first")
    flow.add_task_definition("third", lambda ctx: ctx.item, map_over="second")
    flow.add_task_definition("mend", lambda ctx: (ctx.map_index, ctx.item), map_over="first", trigger_rule="one_failed")
    done = await run(flow)
    states = states_of(done)
    assert [states[f"{whole}[{index}]"] for whole in ("first", "second", "third", "mend") for index in range(3)] == [
        *("success", "failed", "skipped"),
        *("success", "skipped", "skipped"),
        *("success", "skipped", "skipped"),
        *("skipped", "success", "skipped"),
    ]
    assert [states[whole] for whole in ("first", "second", "third", "mend")] == ["failed", "failed", "failed", "success"]
    assert done.tasks["second[1]"].reason == "upstream task 'first[1]' failed"
    assert done.tasks["mend"].output_json == [None, (1, None), None]


async def test_a_stream_waits_for_its_other_dependencies(flow: AsyncFlow) -> None:
    lists(flow, [1, 2])
    release = asyncio.Event()

    async def late(ctx: Context) -> str:  # noqa: ARG001
        await release.wait()
        return "late"

    async def first(ctx: Context) -> Any:
        if ctx.map_index == 1:
            release.set()
        return ctx.item

    flow.add_task_definition("late", late)
    flow.add_task_definition("first", first, map_over="files")
    flow.add_task_definition("second", lambda ctx: (ctx.item, ctx.pull("late")), map_over="first", dependencies=["late"])
    assert (await run(flow)).tasks["second"].output_json == [(1, "late"), (2, "late")]


# --- mapped subflows ---


async def test_a_subflow_is_mapped_with_a_run_for_each_item(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    child = AsyncFlow("child")
    names = ("item", "map_index", "by", "files")
    child.add_task_definition("inner", lambda ctx: [ctx.params.get(name) for name in names])
    lists(flow, ["a", "b"])
    flow.add_subflow_definition("each", child, map_over="files", params=lambda ctx: {"by": ctx.item * 2})
    flow.add_task_definition("after", lambda ctx: ctx.pull("each"), dependencies=["each"])
    done = await run(flow)
    assert done.tasks["after"].output_json == [["a", 0, "aa", None], ["b", 1, "bb", None]]
    assert done.tasks["each"].output == done.tasks["after"].output_json
    assert len(store.list_children(done.id)) == 2
    assert set(done.get_all_tasks_recursive(store)) == {
        *("files", "each", "after", "each[0]", "each[1]", "each[0].inner", "each[1].inner")
    }


async def test_a_task_inside_the_subflow_of_one_item_is_retried(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    ran: list[str] = []
    child = AsyncFlow("child")
    broken = True

    def inner(ctx: Context) -> Any:
        ran.append(ctx.params["item"])
        if broken and ctx.params["item"] == "b.x":
            raise ValueError("no")
        return ctx.params["item"]

    child.add_task_definition("inner", inner)
    lists(flow, ["a", "b.x"])
    flow.add_subflow_definition("each", child, map_over="files", map_key=str)
    flow.add_task_definition("after", lambda ctx: ctx.pull("each"), dependencies=["each"])
    failed = await run(flow)
    assert failed.state == "failed"
    assert "each[b.x].inner: ValueError: no" in (failed.tasks["each"].reason or "")
    broken = False
    done = await flow.retry(failed.id, "each[b.x].inner")
    assert (done.state, done.tasks["after"].output_json) == ("success", ["a", "b.x"])
    assert sorted(ran) == ["a", "b.x", "b.x"]


# --- going on ---


@pytest.mark.parametrize("kind", STORE_KINDS[:2])
async def test_after_a_stop_items_that_succeeded_are_not_run_again(kind: str, tmp_path: Path) -> None:
    ran: list[str] = []
    hold = asyncio.Event()

    def build(store: Store) -> AsyncFlow:
        flow = AsyncFlow("flow", store)
        lists(flow, [0, 1, 2, 3])

        async def first(ctx: Context) -> Any:
            ran.append(ctx.task_id)
            if ctx.map_index == 3:
                await hold.wait()
            return ctx.item * 10

        flow.add_task_definition("first", first, map_over="files", map_key=lambda item: f"k{item}")

        async def second(ctx: Context) -> int:
            ran.append(ctx.task_id)
            return int(ctx.item) + 1

        flow.add_task_definition("second", second, map_over="first")
        flow.add_task_definition("total", lambda ctx: sum(ctx.pull("second")), dependencies=["second"])
        return flow

    with make_store(kind, tmp_path) as store:
        flow = build(store)
        run_id = flow.init_run()
        driving = asyncio.create_task(flow.run_until_complete(run_id))
        await until(lambda: len(ran) == 7 and store.load(run_id).tasks["second[k2]"].state == "success")  # not the last of either
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
        stopped = states_of(store.load(run_id))
        assert (stopped["first"], stopped["second"], stopped["first[k3]"]) == ("scheduled", "scheduled", "scheduled")
    hold.set()
    with make_store(kind, tmp_path) as store:
        done = await build(store).run_until_complete(run_id)
        assert (done.state, done.tasks["total"].output_json) == ("success", 64)
        assert sorted(ran) == sorted(
            ["first[k0]", "first[k1]", "first[k2]", "first[k3]", "first[k3]", *(f"second[k{number}]" for number in range(4))]
        )
        assert done.tasks["first"].interruptions == 1
        assert store.check() == []


# --- retries by hand, and cancelling ---


class Mendable:
    """A flow of two streaming stages and a sum, whose items fail as long as they stand in `broken`."""

    def __init__(self, flow: AsyncFlow) -> None:
        self.flow = flow
        self.broken: set[int] = set()
        self.ran: list[str] = []
        lists(flow, [0, 1, 2])
        flow.add_task_definition("first", self.first, map_over="files")
        flow.add_task_definition("second", self.second, map_over="first")
        flow.add_task_definition("total", self.total, dependencies=["second"])

    async def first(self, ctx: Context) -> Any:
        self.ran.append(ctx.task_id)
        if ctx.map_index in self.broken:
            raise ValueError("broken")
        return ctx.item

    async def second(self, ctx: Context) -> Any:
        self.ran.append(ctx.task_id)
        return ctx.item

    async def total(self, ctx: Context) -> Any:
        self.ran.append(ctx.task_id)
        return ctx.pull("second")

    async def retry(self, task_id: str, downstream: bool = True) -> WorkflowRun:
        self.ran.clear()
        return await self.flow.retry(self.run_id, task_id, downstream)

    async def start(self, *broken: int) -> WorkflowRun:
        self.broken = set(broken)
        done = await run(self.flow)
        self.run_id = done.id
        self.broken.clear()
        return done


async def test_a_retry_of_one_item_runs_that_and_what_streams_from_it(flow: AsyncFlow) -> None:
    mendable = Mendable(flow)
    assert (await mendable.start(1, 2)).state == "failed"
    done = await mendable.retry("first[1]")
    assert mendable.ran == ["first[1]", "second[1]"]
    assert states_of(done)["first"] == states_of(done)["second"] == "failed"  # the other item is as it was
    assert done.tasks["total"].state == "skipped"
    done = await mendable.retry("first[2]")
    assert sorted(mendable.ran) == ["first[2]", "second[2]", "total"]
    assert (done.state, done.tasks["total"].output_json) == ("success", [0, 1, 2])


async def test_a_retry_of_the_whole_runs_all_items_that_failed(flow: AsyncFlow) -> None:
    mendable = Mendable(flow)
    await mendable.start(0, 2)
    done = await mendable.retry("first")
    assert sorted(mendable.ran) == ["first[0]", "first[2]", "second[0]", "second[2]", "total"]
    assert (done.state, done.tasks["total"].output_json) == ("success", [0, 1, 2])


async def test_a_retry_of_a_whole_that_succeeded_starts_it_afresh(flow: AsyncFlow) -> None:
    mendable = Mendable(flow)
    await mendable.start()
    done = await mendable.retry("first")
    assert sorted(mendable.ran) == sorted(
        [f"{whole}[{index}]" for whole in ("first", "second") for index in range(3)] + ["total"]
    )
    assert (done.state, done.tasks["total"].output_json) == ("success", [0, 1, 2])
    assert [attempt.number for attempt in flow.store.list_attempts(done.id, "first[0]")] == [1, 2]


async def test_a_retry_without_downstream_leaves_all_else(flow: AsyncFlow) -> None:
    mendable = Mendable(flow)
    await mendable.start(1)
    done = await mendable.retry("first[1]", downstream=False)
    assert mendable.ran == ["first[1]"]
    assert (states_of(done)["first"], states_of(done)["second[1]"], states_of(done)["total"]) == ("success", "skipped", "skipped")


async def test_after_a_retry_upstream_the_list_may_be_another(flow: AsyncFlow) -> None:
    listed = [["a", "b", "c"], ["c", "d"]]
    flow.add_task_definition("files", lambda ctx: listed.pop(0))
    flow.add_task_definition("parse", lambda ctx: ctx.item * 2, map_over="files", map_key=str)
    flow.add_task_definition("size", lambda ctx: len(ctx.item), map_over="parse")
    first = await run(flow)
    done = await flow.retry(first.id, "files")
    assert (done.tasks["parse"].output_json, done.tasks["size"].output_json) == (["cc", "dd"], [2, 2])
    states = states_of(done)
    assert (states["parse[a]"], states["parse[c]"], states["parse[d]"]) == ("skipped", "success", "success")
    assert done.tasks["size[b]"].reason == "the list that it was made from does not have it any more"
    assert (done.state, len(done.tasks)) == ("success", 3 + 2 * 4)


async def test_an_item_that_there_is_not_cannot_be_retried(flow: AsyncFlow) -> None:
    mendable = Mendable(flow)
    await mendable.start()
    with pytest.raises(UnknownTaskError, match=r"first\[9\]"):
        await mendable.retry("first[9]")


async def test_one_item_is_cancelled_while_the_others_go_on(flow: AsyncFlow) -> None:
    lists(flow, [0, 1, 2])
    begun = asyncio.Event()

    async def hang(ctx: Context) -> Any:
        if ctx.map_index == 1:
            begun.set()
            await asyncio.Event().wait()
        return ctx.item

    flow.add_task_definition("parse", hang, map_over="files")
    flow.add_task_definition("after", returns(1), dependencies=["parse"])
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await begun.wait()
    assert await asyncio.to_thread(flow.cancel_task, run_id, "parse[1]")
    done = await driving
    assert states_of(done) == {
        "files": "success",
        "parse": "failed",
        "after": "skipped",
        "parse[0]": "success",
        "parse[1]": "cancelled",
        "parse[2]": "success",
    }


async def test_a_whole_is_cancelled_with_the_items_that_have_not_ended(flow: AsyncFlow) -> None:
    lists(flow, [0, 1, 2])
    begun = asyncio.Event()

    async def hang(ctx: Context) -> Any:
        if ctx.map_index:
            begun.set()
            await asyncio.Event().wait()
        return ctx.item

    flow.add_task_definition("parse", hang, map_over="files")
    flow.add_task_definition("after", returns(1), dependencies=["parse"], trigger_rule="all_done")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await begun.wait()
    await until(lambda: flow.store.load(run_id).tasks["parse[0]"].state == "success")
    assert await asyncio.to_thread(flow.cancel_task, run_id, "parse")
    done = await driving
    assert states_of(done) == {
        "files": "success",
        "parse": "cancelled",
        "after": "success",
        "parse[0]": "success",
        "parse[1]": "cancelled",
        "parse[2]": "cancelled",
    }
    mended = await flow.retry(run_id, "parse[0]", reset_downstream=False)
    assert mended.tasks["parse[0]"].state == "success"


async def test_a_whole_is_cancelled_by_its_records_where_nobody_drives_the_run(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    mendable = Mendable(flow)
    await mendable.start(1)
    flow.manual_retry(mendable.run_id, "first[1]")
    assert flow.cancel_task(mendable.run_id, "first")
    states = states_of(store.load(mendable.run_id))
    assert (states["first"], states["first[0]"], states["first[1]"]) == ("cancelled", "success", "cancelled")


async def test_a_subflow_that_is_tried_again_asks_anew_what_went_by_a_rule_of_its_own(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    child, broken = AsyncFlow("child"), True

    def load(ctx: Context) -> str:
        if broken:
            raise ValueError("no")
        return "rows"

    child.add_task_definition("load", load)
    child.add_task_definition("seen", lambda ctx: [ctx.pull("load")] * 2, dependencies=["load"], trigger_rule="all_done")
    child.add_task_definition("each", lambda ctx: ctx.item, map_over="seen")
    child.add_task_definition("beside", returns("beside"))
    flow.add_subflow_definition("sub", child)
    failed = await run(flow)
    child_run_id = failed.tasks["sub"].child_run_id or ""
    assert store.load(child_run_id).tasks["each"].output_json == [None, None]
    broken = False
    done = await flow.retry(failed.id, "sub")
    inside = store.load(child_run_id)
    assert (done.state, inside.tasks["each"].output_json) == ("success", ["rows", "rows"])
    numbers = {task_id: len(store.list_attempts(child_run_id, task_id)) for task_id in ("load", "seen", "each[0]", "beside")}
    assert numbers == {"load": 2, "seen": 2, "each[0]": 2, "beside": 1}


async def test_a_default_keeps_what_a_function_was_made_with(flow: AsyncFlow) -> None:
    lists(flow, [1, 2])
    for by in (10, 20):
        flow.add_task_definition(f"by_{by}", lambda ctx, by=by: ctx.item * by, map_over="files")
    flow.add_task_definition("item", lambda ctx, by=3, item=0: item * by, map_over="files")
    done = await run(flow)
    assert [done.tasks[task_id].output_json for task_id in ("by_10", "by_20", "item")] == [[10, 20], [20, 40], [3, 6]]


# --- another graph ---


async def test_items_of_another_list_are_not_taken_for_those_of_this_one(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    hold = asyncio.Event()
    ran: list[Any] = []

    def build(over: str) -> AsyncFlow:
        built = AsyncFlow("flow", store)
        lists(built, ["a0", "a1"], "a")
        lists(built, ["b0", "b1", "b2"], "b")

        async def parse(ctx: Context) -> Any:
            ran.append(ctx.item)
            if ctx.item == "a1":
                await hold.wait()
            return ctx.item

        built.add_task_definition("parse", parse, map_over=over)
        built.add_task_definition("size", lambda ctx: ctx.item * 2, map_over="parse")
        return built

    first = build("a")
    run_id = first.init_run()
    driving = asyncio.create_task(first.run_until_complete(run_id))
    await until(lambda: "a1" in ran and states_of(store.load(run_id)).get("size[0]") == "success")
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    done = await build("b").run_until_complete(run_id, adopt_graph=True)
    assert (done.tasks["parse"].output_json, done.tasks["size"].output_json) == (["b0", "b1", "b2"], ["b0b0", "b1b1", "b2b2"])
    assert sorted(ran) == ["a0", "a1", "b0", "b1", "b2"]


async def test_a_task_that_is_mapped_no_more_leaves_no_item_waiting(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    begun = asyncio.Event()

    async def hang(ctx: Context) -> Any:
        if ctx.map_index == 1:
            begun.set()
            await asyncio.Event().wait()
        return ctx.map_index

    lists(flow, [1, 2])
    flow.add_task_definition("parse", hang, map_over="files")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await begun.wait()
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    plain = AsyncFlow(flow.flow_name, store)
    lists(plain, [1, 2])
    plain.add_task_definition("parse", lambda ctx: ctx.pull("files"), dependencies=["files"])
    done = await plain.run_until_complete(run_id, adopt_graph=True)
    assert (done.state, done.tasks["parse"].output_json, done.tasks["parse[1]"].state) == ("success", [1, 2], "skipped")
    again = AsyncFlow(flow.flow_name, store)
    lists(again, [1, 2])
    again.add_task_definition("parse", lambda ctx: ctx.item, map_over="files")
    assert again.get_execution_details(run_id)["state"] == "success"


# --- many ---


async def test_what_is_written_grows_with_the_number_of_items() -> None:
    """Each item of each stage is written when it is made, when it begins and when it ends; all else stays the same."""

    async def double(ctx: Context) -> int:
        return int(ctx.item) * 2

    async def written(number: int) -> int:
        flow = AsyncFlow("flow")
        lists(flow, list(range(number)))
        flow.add_task_definition("double", double, map_over="files")
        flow.add_task_definition("again", double, map_over="double")
        flow.add_task_definition("total", lambda ctx: sum(ctx.pull("again")), dependencies=["again"])
        rows = 0

        def count(commit: Callable[[], None], changes: Changes) -> None:
            nonlocal rows
            rows += len(changes.tasks)
            commit()

        run_id = flow.init_run()
        around_commits(flow.store, count)
        done = await flow.run_until_complete(run_id)
        assert done.tasks["total"].output_json == 4 * sum(range(number))
        assert len(done.tasks) == 4 + 2 * number
        return rows

    few, some, many = [await written(number) for number in (500, 1000, 3000)]
    assert (some - few, many - some) == (3 * 2 * 500, 3 * 2 * 2000)
