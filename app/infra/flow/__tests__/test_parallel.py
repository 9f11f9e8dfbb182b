"""Tasks side by side: they overlap, a limit holds them back, and the store is written once per step."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, FlowBuilder, MemoryStore, ParallelError, UnknownTaskError
from ..task_options import MAX_THREADS
from .conftest import Effects, fails, outputs_of, returns, run


class CountingStore(MemoryStore):
    """Counts what is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[int] = []

    def commit(self, changes: Changes) -> None:
        self.commits.append(len(changes.tasks))
        super().commit(changes)


class Gauge:
    """How many tasks are inside at once, now and at the most."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0

    async def task(self, ctx: Context) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(3):
            await asyncio.sleep(0)
        self.inside -= 1


async def test_coroutines_overlap(flow: AsyncFlow) -> None:
    arrived: list[str] = []
    all_here = asyncio.Event()

    async def meet(ctx: Context) -> None:
        arrived.append(ctx.task_id)
        if len(arrived) == 3:
            all_here.set()
        await all_here.wait()  # nobody leaves before all have come

    for task_id in ("a", "b", "c"):
        flow.add_task_definition(task_id, meet)
    assert (await run(flow)).state == "success"


async def test_plain_functions_overlap(flow: AsyncFlow) -> None:
    barrier = threading.Barrier(8, timeout=30)
    for number in range(8):
        flow.add_task_definition(f"t{number}", lambda ctx: barrier.wait() >= 0)
    assert (await run(flow)).state == "success"


async def test_functions_and_coroutines_overlap_with_each_other(flow: AsyncFlow) -> None:
    from_thread, from_loop = threading.Event(), threading.Event()

    @flow.task
    def in_thread(ctx: Context) -> bool:
        from_thread.set()
        return from_loop.wait(30)

    @flow.task
    async def in_loop(ctx: Context) -> bool:
        while not from_thread.is_set():  # noqa: ASYNC110 - the event is a thread's
            await asyncio.sleep(0)
        from_loop.set()
        return True

    assert outputs_of(await run(flow)) == {"in_thread": True, "in_loop": True}


async def test_an_aggregate_pulls_all_branches(flow: AsyncFlow) -> None:
    for number in range(3):
        flow.add_task_definition(f"part{number}", returns(number))

    @flow.task(depends_on=["part0", "part1", "part2"])
    async def total(ctx: Context) -> int:
        return sum(ctx.pull(f"part{number}") for number in range(3))

    assert outputs_of(await run(flow))["total"] == 3


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_a_limit_holds(flow: AsyncFlow, limit: int) -> None:
    gauge = Gauge()
    for number in range(20):
        flow.add_task_definition(f"t{number}", gauge.task)
    assert (await run(flow, max_concurrency=limit)).state == "success"
    assert gauge.most == limit


async def test_without_a_limit_all_start_at_once(flow: AsyncFlow) -> None:
    gauge = Gauge()
    for number in range(300):
        flow.add_task_definition(f"t{number}", gauge.task)
    await run(flow)
    assert gauge.most == 300


async def test_more_functions_than_threads_wait_their_turn(flow: AsyncFlow) -> None:
    lock, inside, most = threading.Lock(), 0, 0
    full = threading.Barrier(MAX_THREADS, timeout=30)

    def task(ctx: Context) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        full.wait()  # nobody leaves before the house is full
        with lock:
            inside -= 1

    for number in range(MAX_THREADS * 3):
        flow.add_task_definition(f"t{number}", task)
    assert (await run(flow)).state == "success"
    assert most == MAX_THREADS


async def test_functions_that_wait_for_a_thread_do_not_hold_up_coroutines(flow: AsyncFlow) -> None:
    released = threading.Event()
    for number in range(MAX_THREADS + 10):
        flow.add_task_definition(f"blocked{number}", lambda ctx: bool(released.wait(30)) or 1 / 0)

    @flow.task
    async def releases(ctx: Context) -> None:
        released.set()

    assert (await run(flow)).state == "success"


async def test_functions_run_though_other_code_has_filled_the_loops_own_threads(flow: AsyncFlow) -> None:
    loop, released = asyncio.get_running_loop(), threading.Event()
    others = [loop.run_in_executor(None, released.wait, 30) for _ in range(100)]
    flow.add_task_definition("only", lambda ctx: "done")
    try:
        assert outputs_of(await asyncio.wait_for(run(flow), 20)) == {"only": "done"}
    finally:
        released.set()
        await asyncio.gather(*others)


async def test_no_thread_outlives_the_run(flow: AsyncFlow) -> None:
    before = {thread.name for thread in threading.enumerate() if thread.name.startswith("night-batch")}
    flow.add_task_definition("only", lambda ctx: None)
    await run(flow)
    deadline = threading.Event()
    for _ in range(200):
        if {thread.name for thread in threading.enumerate() if thread.name.startswith("night-batch")} <= before:
            return
        deadline.wait(0.01)
    raise AssertionError("a worker thread is still there")


async def test_one_commit_takes_all_that_became_ready_at_once(effects: Effects) -> None:
    store = CountingStore()
    flow = AsyncFlow("batched", store)
    for number in range(100):
        flow.add_task_definition(f"t{number}", returns(number))
    flow.add_task_definition("last", returns(0), dependencies=[f"t{number}" for number in range(100)])
    await run(flow)
    made, started, ended, *rest = store.commits
    assert (made, started) == (101, 100)
    assert ended == 101, "the end of all hundred and the start of the last are one commit"
    assert rest == [1]


class FlushStore(MemoryStore):
    """Notes which commits had to reach the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes: list[bool] = []

    def commit(self, changes: Changes) -> None:
        self.flushes.append(changes.flush)
        super().commit(changes)


@pytest.mark.parametrize("last", [returns(1), fails()], ids=["success", "failure"])
async def test_the_commit_that_ends_a_run_reaches_the_disk_and_no_other_waits_for_it(last: Any) -> None:
    child = AsyncFlow("child").add_task_definition("leaf", returns(1))
    store = FlushStore()
    flow = AsyncFlow("flow", store).add_subflow_definition("sub", child)
    flow.add_task_definition("last", last, dependencies=["sub"])
    await run(flow)
    assert store.flushes[-1]
    assert not any(store.flushes[:-1])


async def test_a_manual_retry_and_an_interruption_reach_the_disk() -> None:
    store = FlushStore()
    began = asyncio.Event()

    async def waits(ctx: Context) -> None:
        began.set()
        await asyncio.Event().wait()

    flow = AsyncFlow("flow", store).add_task_definition("waits", waits)
    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    flow.manual_retry(run_id, "waits")
    assert store.flushes == [False, False, True, True]


async def test_a_chain_writes_one_commit_per_task() -> None:
    store = CountingStore()
    flow = AsyncFlow("chained", store)
    for number in range(50):
        flow.add_task_definition(f"t{number}", returns(number), dependencies=[f"t{number - 1}"] if number else None)
    await run(flow)
    assert store.commits == [50, 1, *[2] * 49, 1]


def test_the_builder_refuses_parallel_tasks_that_depend_on_one_another() -> None:
    builder = FlowBuilder("flow").add_task("a", returns(1)).add_task("b", returns(1), depends_on=["a"])
    builder.add_task("c", returns(1)).add_task("d", returns(1), depends_on=["b"])
    with pytest.raises(ParallelError) as caught:
        builder.add_parallel(["a", "c", "d"]).build()
    assert (caught.value.upstream, caught.value.downstream) == ("a", "d")


def test_the_builder_refuses_parallel_tasks_that_do_not_exist() -> None:
    with pytest.raises(UnknownTaskError, match="Did you mean 'alpha'?"):
        FlowBuilder("flow").add_task("alpha", returns(1)).add_parallel(["alpah"]).build()


def test_what_a_builder_built_does_not_change_when_the_builder_goes_on() -> None:
    builder = FlowBuilder("flow").add_task("a", returns(1))
    first = builder.add_parallel("a").build()
    second = builder.add_task("b", returns(2)).with_retry("a", 5).build()
    assert (first.has_task("b"), second.has_task("b")) == (False, True)
    assert first.definition.get("a").retry.max_retries == 0


async def test_many_runs_of_one_flow_go_on_side_by_side(flow: AsyncFlow) -> None:
    @flow.task
    async def first(ctx: Context) -> Any:
        await asyncio.sleep(0)
        return ctx.params["number"]

    flow.add_task_definition("second", lambda ctx: ctx.pull("first") * 10, dependencies=["first"])
    runs = await asyncio.gather(*(run(flow, {"number": number}) for number in range(10)))
    assert [done.tasks["second"].output_json for done in runs] == [number * 10 for number in range(10)]
