"""The shell's own corners: races for a run id, the system's clock, windows to look through."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    FlowBuilder,
    InvalidNameError,
    InvalidOptionError,
    MemoryStore,
    RunExistsError,
    SystemClock,
)
from ..executors import CoroutineExecutor, ThreadExecutor
from ..flow import _DRIVES
from ..inbox import Inbox
from .conftest import fails, returns, run


class RacedStore(MemoryStore):
    """Another process makes the run between the look and the commit."""

    def __init__(self, flow_name: str) -> None:
        super().__init__()
        self.rival: str | None = flow_name

    def commit(self, changes: Changes) -> None:
        if self.rival and changes.new_runs:
            rival, self.rival = self.rival, None
            AsyncFlow(rival, self).add_task_definition("only", returns("theirs")).init_run(
                {"by": "rival"}, run_id=changes.new_runs[0].id
            )
        super().commit(changes)


def test_who_loses_the_race_for_a_run_id_gets_the_run_that_won() -> None:
    flow = AsyncFlow("flow", RacedStore("flow")).add_task_definition("only", returns("mine"))
    assert flow.init_run({"by": "me"}, run_id="nightly") == "nightly"
    assert flow.store.load("nightly").params == {"by": "rival"}


def test_who_loses_it_to_another_flow_is_told() -> None:
    flow = AsyncFlow("flow", RacedStore("other")).add_task_definition("only", returns("mine"))
    with pytest.raises(RunExistsError, match="belongs to flow 'other'"):
        flow.init_run(run_id="nightly")


@pytest.mark.parametrize("store", ["workflows.db", MemoryStore, 3, {}])
def test_what_is_no_store_is_refused_at_once(store: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r'SQLiteStore\("workflows.db"\)'):
        AsyncFlow("flow", store)
    with pytest.raises(InvalidOptionError):
        FlowBuilder("flow", store)
    flow = AsyncFlow("flow")
    kept = flow.store
    with pytest.raises(InvalidOptionError):
        flow.store = store
    assert flow.store is kept


def test_a_store_may_come_in_a_wrapper() -> None:
    class Wrapper:
        def __init__(self, store: MemoryStore) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    wrapped: Any = Wrapper(MemoryStore())
    assert AsyncFlow("flow", wrapped).add_task_definition("only", returns(1)).run().state == "success"


def test_ids_that_the_flow_makes_are_never_shared() -> None:
    flow = AsyncFlow("flow", make_id=lambda: "always the same")
    flow.init_run()
    with pytest.raises(RunExistsError):
        flow.init_run()


def test_a_run_can_be_shown_under_another() -> None:
    flow = AsyncFlow("flow")
    outer = flow.init_run()
    inner = flow.init_run(None, outer, "by_hand")
    assert flow.store.list_children(outer) == [inner]
    assert (flow.store.load(inner).parent_run_id, flow.store.load(inner).parent_task_id) == (outer, "by_hand")


async def test_the_system_clock_tells_the_time_and_sleeps() -> None:
    clock = SystemClock()
    assert abs(clock.now() / 1e6 - time.time()) < 60
    before = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.009


async def test_real_time_retries_work_too() -> None:
    flow = AsyncFlow("flow").add_task_definition("only", fails(), max_retries=2, retry_delay=0.01)
    began = time.monotonic()
    assert (await asyncio.wait_for(run(flow), 30)).tasks["only"].try_number == 2
    assert time.monotonic() - began >= 0.02


async def test_the_loop_stays_alive_while_many_tasks_become_ready_at_once(flow: AsyncFlow) -> None:
    """1,000 tasks are not started in one go: other coroutines get their turn in between."""
    turns = 0
    turns_when_done: list[int] = []

    async def ticks() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def task(ctx: Context) -> None:
        turns_when_done.append(turns)

    for number in range(1000):
        flow.add_task_definition(f"t{number}", task)
    ticker = asyncio.create_task(ticks())
    await run(flow)
    ticker.cancel()
    assert len(set(turns_when_done)) >= 4


async def test_every_part_shows_itself() -> None:
    seen: dict[str, str] = {}
    flow = AsyncFlow("flow")

    @flow.task
    async def only(ctx: Context) -> None:
        drive = _DRIVES._drives[flow._key(ctx.run.id)]
        seen["drive"] = repr(drive)
        seen["names"] = ",".join(sorted(task.get_name() for task in asyncio.all_tasks()))

    done = await run(flow)
    assert seen["drive"] == f"<Drive of run {done.id!r}, 1 waiting, under way>"
    assert f"night-batch run {done.id}" in seen["names"]
    assert "flow.only" in seen["names"]
    assert repr(flow) == "<AsyncFlow 'flow', 1 tasks, MemoryStore(<1 runs>)>"
    assert repr(FlowBuilder("flow")).startswith("<FlowBuilder of <AsyncFlow 'flow', 0 tasks")
    assert repr(CoroutineExecutor(print)) == "<CoroutineExecutor, 0 under way>"
    assert repr(ThreadExecutor(print)) == "<ThreadExecutor, 0 under way in 0 threads>"


async def test_the_inbox_makes_one_turn_of_a_burst() -> None:
    turns: list[list[Any]] = []
    inbox = Inbox(lambda: turns.append(list(inbox.take())))
    outcomes: list[Any] = [object(), object(), object()]

    def deliver() -> None:
        for outcome in outcomes:
            inbox.deliver(outcome)

    thread = threading.Thread(target=deliver)
    thread.start()
    thread.join()  # the loop stands still meanwhile, so the whole burst is there when it turns
    await asyncio.sleep(0)
    deliver()
    assert turns == [outcomes]  # never at once: always by way of the loop
    await asyncio.sleep(0)
    assert turns == [outcomes, outcomes]


def test_an_outcome_that_comes_after_the_loop_closed_is_dropped() -> None:
    async def make() -> Inbox:
        return Inbox(lambda: None)

    inbox = asyncio.run(make())
    other: Any = object()
    thread = threading.Thread(target=inbox.deliver, args=(other,))
    thread.start()
    thread.join(10)
    assert list(inbox.take()) == []


async def test_where_the_machine_gives_no_more_threads_those_that_there_are_do_the_work(
    flow: AsyncFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, given = threading.Thread.start, 0

    def scarce(thread: threading.Thread) -> None:
        nonlocal given
        if thread.name.startswith("night-batch"):
            given += 1
            if given > 2:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    for number in range(10):
        flow.add_task_definition(f"t{number}", lambda ctx: 1)
    assert (await asyncio.wait_for(run(flow), 30)).state == "success"


async def test_where_it_gives_none_at_all_the_task_fails(flow: AsyncFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    flow.add_task_definition("only", lambda ctx: 1)
    done = await asyncio.wait_for(run(flow), 30)
    assert done.tasks["only"].reason == "RuntimeError: can't start new thread"


@pytest.mark.parametrize("paths", [5, None, {"only"}, [["only"]]])
async def test_several_are_given_as_a_list_or_tuple_of_paths(flow: AsyncFlow, paths: Any) -> None:
    flow.add_task_definition("only", returns(1))
    done = await run(flow)
    with pytest.raises(InvalidNameError):
        flow.manual_retry(done.id, paths)
    assert flow.store.load(done.id).state == "success"


@pytest.mark.parametrize("path", [5, None, ["a"]])
async def test_a_retry_of_what_is_no_path_is_refused_by_name(flow: AsyncFlow, path: Any) -> None:
    flow.add_task_definition("only", returns(1))
    done = await run(flow)
    with pytest.raises(InvalidNameError):
        await flow.retry(done.id, path)
    with pytest.raises(InvalidNameError):  # a list of paths is welcome here, of what are none is not
        flow.manual_retry(done.id, [path])
    with pytest.raises(InvalidNameError):
        await flow.run_until_complete(path)
    assert flow.store.load(done.id).state == "success"
    assert flow.has_task(path) is False
