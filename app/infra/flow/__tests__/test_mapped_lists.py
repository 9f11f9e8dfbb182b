"""The lists that tasks are mapped over, and what a mapped task sees of others: the same, whatever the clock says."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Context, Store
from .attempts import until
from .conftest import FakeClock, make_store, returns, run, states_of
from .test_mapping import lists


class Kind(str, Enum):
    A = "a"
    B = "b"


class Disguised(str):
    """A string that shows itself as another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "disguised"

    def __format__(self, spec: str) -> str:
        return "disguised"


@pytest.mark.parametrize("keys", [[Kind.A, Kind.B], [Disguised("a"), Disguised("b")]])
async def test_keys_of_a_string_class_count_as_their_bare_text(flow: AsyncFlow, keys: list[str], tmp_path: Path) -> None:
    broken = True

    def second(ctx: Context) -> Any:
        if broken:
            raise ValueError("broken")
        return ctx.task_id

    lists(flow, [0, 1])
    flow.add_task_definition("first", lambda ctx: ctx.task_id, map_over="files", map_key=lambda item: keys[item])
    flow.add_task_definition("second", second, map_over="first")
    with make_store("sqlite", tmp_path) as flow.store:
        failed = await run(flow)
        assert failed.tasks["first"].output_json == ["first[a]", "first[b]"]
        broken = False
        done = await flow.retry(failed.id, "second")
        assert done.tasks["second"].output_json == ["second[a]", "second[b]"]
        assert len(done.tasks) == 3 + 4


class Mute(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def raising(error: BaseException) -> Callable[[Any], str]:
    def key(item: Any) -> str:  # noqa: ARG001
        raise error

    return key


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Mute(), "map_key raised Mute on item 0: (its message could not be made: ZeroDivisionError)"),
        (SystemExit(3), "map_key raised SystemExit on item 0: 3"),
        (ValueError("x" * 1_000_000), "map_key raised ValueError on item 0: xxx"),
    ],
)
async def test_whatever_map_key_raises_fails_the_task_once(flow: AsyncFlow, error: BaseException, said: str) -> None:
    lists(flow, [0])
    flow.add_task_definition("parse", returns(1), map_over="files", map_key=raising(error), max_retries=3)
    failed = (await run(flow)).tasks["parse"]
    assert said in (failed.reason or "")
    assert (failed.try_number, len(failed.reason or "") <= 500) == (0, True)


async def test_what_map_key_raises_is_redacted(clock: FakeClock) -> None:
    flow = AsyncFlow("flow", clock=clock, redact=lambda text: text.replace("hunter2", "***"))
    lists(flow, ["hunter2[", "b"])
    flow.add_task_definition("bad", returns(1), map_over="files", map_key=str)
    flow.add_task_definition("raises", returns(1), map_over="files", map_key=raising(ValueError("hunter2 is no key")))
    flow.add_task_definition("decide", lambda ctx: ctx.pull("files"), branch=True, dependencies=["files"])
    done = await run(flow)
    for task_id in ("bad", "raises", "decide"):
        assert done.tasks[task_id].state == "failed"
        assert "***" in (done.tasks[task_id].reason or "")
        assert "hunter2" not in f"{done.tasks[task_id].reason}{done.tasks[task_id].error}"


async def test_a_list_is_found_and_outputs_are_seen_though_the_clock_was_set_back(flow: AsyncFlow, clock: FakeClock) -> None:
    async def set_back(ctx: Context) -> list[int]:  # noqa: ARG001
        clock.seconds += 10
        clock.wall -= 3_000_000
        return [1, 2]

    flow.add_task_definition("files", set_back)
    flow.add_task_definition("other", returns(5))
    flow.add_task_definition("parse", lambda ctx: ctx.item, map_over="files", dependencies=["other"], trigger_rule="one_success")
    flow.add_task_definition("early", lambda ctx: ctx.pull("files"), dependencies=["files"], trigger_rule="one_success")
    done = await run(flow)
    assert (done.tasks["parse"].output_json, done.tasks["early"].output_json) == ([1, 2], [1, 2])


async def test_outputs_are_seen_though_the_clock_was_set_back_before_the_run_was_continued(
    flow: AsyncFlow, clock: FakeClock
) -> None:
    hold = asyncio.Event()

    async def early(ctx: Context) -> Any:
        await hold.wait()
        return ctx.pull("files")

    lists(flow, [1, 2])
    flow.add_task_definition("early", early, dependencies=["files"], trigger_rule="one_success")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: flow.store.load(run_id).tasks["early"].state == "running")
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    clock.wall -= 3_600_000_000
    hold.set()
    assert (await flow.run_until_complete(run_id)).tasks["early"].output_json == [1, 2]


async def test_a_task_that_may_not_be_interrupted_is_mapped_again_if_it_had_no_items_yet(flow: AsyncFlow) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def key(item: int) -> str:
        begun.set()
        go_on.wait(30)
        return str(item)

    lists(flow, [0, 1])
    flow.add_task_definition("parse", lambda ctx: ctx.item, map_over="files", map_key=key, on_interrupt="fail")
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await until(begun.is_set)
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    go_on.set()
    done = await flow.run_until_complete(run_id)
    assert (done.state, done.tasks["parse"].output_json) == ("success", [0, 1])


async def test_a_map_key_in_which_the_process_dies_again_and_again_fails_its_task(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def build(store: Store) -> AsyncFlow:
        def key(item: int) -> str:
            begun.set()
            go_on.wait(30)
            return str(item)

        flow = AsyncFlow("flow", store)
        lists(flow, [0, 1])
        flow.add_task_definition("parse", returns(1), map_over="files", map_key=key, on_interrupt="fail", max_interruptions=2)
        return flow

    async def copied_in_the_midst(folder: Path, copy: Path) -> None:
        """What is in the store while the list is looked at: what a process that died then leaves."""
        begun.clear()
        with make_store("sqlite", folder) as store:
            flow = build(store)
            if store.exists("nightly"):
                flow.take_over("nightly")  # its owner, this process, lives
            driving = asyncio.create_task(flow.run_until_complete(flow.init_run(run_id="nightly")))
            await until(begun.is_set)
            shutil.copytree(folder, copy)
            driving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await driving

    (tmp_path / "first").mkdir()
    await copied_in_the_midst(tmp_path / "first", tmp_path / "second")
    await copied_in_the_midst(tmp_path / "second", tmp_path / "third")
    go_on.set()
    with make_store("sqlite", tmp_path / "third") as store:
        flow = build(store)
        flow.take_over("nightly")
        planned = flow.plan("nightly")
        explained = flow.explain("nightly", "parse")
        failed = await flow.run_until_complete("nightly")
        assert "its process died or lost the run 2 times" in (failed.tasks["parse"].reason or "")
        assert planned.run == ()
        assert "fail when the run goes on" in str(explained)
        assert (await flow.retry("nightly", "parse")).state == "success"


async def test_what_a_stream_comes_from_is_seen_item_by_item_whoever_was_quicker(flow: AsyncFlow) -> None:
    lists(flow, ["x", "y"])
    flow.add_task_definition("first", lambda ctx: ctx.item, map_over="files")

    def second(ctx: Context, item: str, first: Any) -> Any:
        return item, first, ctx.pull("first[0]"), ctx.pull("first[1]"), ctx.pull("files")

    flow.add_task_definition("second", second, map_over="first")
    flow.add_task_definition("third", lambda ctx: (ctx.pull("second"), ctx.pull("first")), map_over="second")
    flow.add_task_definition("between", returns(1), dependencies=["first"])
    flow.add_task_definition(
        "late", lambda ctx: (ctx.pull("first"), ctx.pull("first[0]")), map_over="first", dependencies=["between"]
    )
    done = await run(flow)
    assert done.tasks["second"].output_json == [("x", None, "x", None, ["x", "y"]), ("y", None, None, "y", ["x", "y"])]
    assert done.tasks["third"].output_json == [(None, None), (None, None)]
    assert done.tasks["late"].output_json == [(["x", "y"], "x"), (["x", "y"], "x")]
    assert set(states_of(done).values()) == {"success"}
