"""How far a run is: the same in memory and in the store, in any thread, at no cost to whom nobody looks at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    Event,
    MemoryStore,
    RunMismatchError,
    RunNotFoundError,
    RunProgress,
    Store,
    TaskFailed,
    TaskSucceeded,
)
from ..progress import MOST, MOST_INSIDE
from .attempts import until
from .held_clock import HeldClock


class Gate:
    """Tasks that run until they are let go, and what could be seen meanwhile."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def wait(self, ctx: Context) -> str:
        await self.open.wait()
        return ctx.task_id


async def seen_while(flow: AsyncFlow, gate: Gate, enough: Callable[[RunProgress], bool]) -> tuple[RunProgress, RunProgress]:
    """How far a run is once enough can be seen: as it is told in memory, and by another flow object, from the store."""
    run_id = flow.init_run(run_id="run")
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: enough(flow.progress_of(run_id)))
    live = flow.progress_of(run_id)
    stored = in_store(flow.store, flow.flow_name).progress_of(run_id)
    gate.open.set()
    await running
    return live, stored


def in_store(store: Store, flow_name: str) -> AsyncFlow:
    """A flow of that name whose runs nobody drives here, as another process would have it."""
    elsewhere: Any = Elsewhere(store)
    return AsyncFlow(flow_name, elsewhere)


class Elsewhere:
    """A store under another name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.identity = "elsewhere"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def numbers(progress: RunProgress) -> dict[str, int]:
    return {str(state): number for state, number in progress.counts.items() if number}


async def test_a_run_under_way_is_told_alike_in_memory_and_by_the_store(store: Store) -> None:
    """Counts, tasks under way with what is in them, failures: both ways give the same, but for who says so."""
    gate, flow, inner = Gate(), AsyncFlow("outer", store), AsyncFlow("inner")
    inner.add_task_definition("first", lambda _: 1)
    inner.add_task_definition("second", gate.wait, dependencies=["first"])
    flow.add_subflow_definition("sub", inner)

    @flow.task
    def rows(_: Context) -> list[int]:
        return [0, 1, 2, 3]

    @flow.task(map_over=rows, max_retries=1, retry_delay=3600)
    async def each(ctx: Context, item: int) -> None:
        if item == 0:
            raise ValueError("no such row")
        if item > 1:
            await gate.open.wait()
        if item == 1:
            raise KeyError("gone")

    @flow.task
    def broken(_: Context) -> None:
        raise RuntimeError("out of order")

    flow.add_task_definition("later", lambda _: 1, dependencies=["sub"])

    run_id = flow.init_run(run_id="run")
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: flow.progress_of(run_id).retrying == 2 and len(flow.progress_of(run_id).running) == 5)
    live, stored = flow.progress_of(run_id), in_store(store, "outer").progress_of(run_id)
    running.cancel()
    await asyncio.wait([running])

    for found in (live, stored):
        assert found.state == "running"
        assert numbers(found) == {"success": 1, "failed": 1, "running": 3, "scheduled": 3}
        assert (found.total, found.done, found.retrying) == (8, 2, 2)
        under_way = {task.path: task for task in found.running}
        assert set(under_way) == {"sub", "sub.second", "each", "each[2]", "each[3]"}
        assert {path: task.inside for path, task in under_way.items()} == {
            "sub": None,
            "sub.second": "sub",
            "each": None,
            "each[2]": "each",
            "each[3]": "each",
        }
        assert under_way["sub"].counts == {"success": 1, "running": 1}
        assert under_way["each"].counts == {"running": 2, "scheduled": 2}
        assert [(task.path, task.reason) for task in found.failures] == [("broken", "RuntimeError: out of order")]
        assert found.fraction == pytest.approx((2 + 0.5) / 8)
    assert (live.live, stored.live) == (True, False)
    assert live.running == stored.running
    assert live.failures == stored.failures


async def test_what_runs_longest_comes_first_and_says_since_when() -> None:
    """The moments are the attempts' own, of a later attempt its own."""
    held, gate = HeldClock(), Gate()
    flow = AsyncFlow("flow", clock=held)
    tries: list[int] = []

    @flow.task(max_retries=1, retry_delay=10)
    async def again(ctx: Context) -> None:
        tries.append(ctx.attempt_number)
        if ctx.attempt_number == 0:
            raise ValueError("not yet")
        await gate.open.wait()

    flow.add_task_definition("long", gate.wait)
    run_id = flow.init_run()
    begun = held.now()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: len(flow.progress_of(run_id).running) == 1)
    await held.forward(5)
    assert flow.progress_of(run_id).retrying == 1
    await held.forward(15)
    found = flow.progress_of(run_id)
    gate.open.set()
    await running
    assert tries == [0, 1]
    assert [(task.path, task.attempt_number) for task in found.running] == [("long", 0), ("again", 1)]
    assert found.at - found.running[0].start_date == timedelta(seconds=20)  # type: ignore[operator]
    assert found.at - found.running[1].start_date == timedelta(seconds=10)  # type: ignore[operator]
    assert found.start_date is not None
    assert found.start_date.timestamp() * 1e6 == pytest.approx(begun, abs=1)


async def test_many_are_counted_and_the_first_are_told_one_by_one() -> None:
    """Of 200 that run and 200 that failed there are 50 each; the counts have all of them."""
    gate, flow = Gate(), AsyncFlow("flow")

    def fail(_: Context) -> None:
        raise ValueError("x" * 100)

    for number in range(200):
        flow.add_task_definition(f"fails{number}", fail, executor="inline")
        flow.add_task_definition(f"waits{number}", gate.wait)
    live, stored = await seen_while(flow, gate, lambda found: found.counts.get("failed") == 200 and len(found.running) == MOST)  # type: ignore[call-overload]
    for found in (live, stored):
        assert numbers(found) == {"failed": 200, "running": 200}
        assert (len(found.running), len(found.failures)) == (MOST, MOST)


async def test_subflows_may_be_nested_deeper_than_is_looked() -> None:
    """A flow in a flow, 400 times: the look ends somewhere, and says what it saw."""
    gate = Gate()
    flow = AsyncFlow("flow0")
    flow.add_task_definition("wait", gate.wait)
    for depth in range(1, 400):
        around = AsyncFlow(f"flow{depth}", flow.store)
        around.add_subflow_definition("sub", flow)
        flow = around
    live, stored = await seen_while(flow, gate, lambda found: len(found.running) == MOST)
    for found in (live, stored):
        assert max(task.path.count(".") for task in found.running) == MOST - 1 < MOST_INSIDE


async def test_what_failed_in_a_subflow_before_the_run_was_driven_here_is_told_with_its_inside(store: Store) -> None:
    gate, flow, inner = Gate(), AsyncFlow("outer", store), AsyncFlow("inner")

    @inner.task
    def bad(_: Context) -> None:
        raise ValueError("inside")

    flow.add_subflow_definition("sub", inner)
    flow.add_task_definition("other", gate.wait)
    gate.open.set()
    await flow.run_until_complete(flow.init_run(run_id="run"))
    gate.open.clear()
    flow.manual_retry("run", "other")
    live, stored = await seen_while(flow, gate, lambda progress: bool(progress.running))
    assert live.live
    assert [task.path for task in live.failures] == ["sub.bad", "sub"]
    assert live.failures == stored.failures


async def test_it_may_be_asked_in_any_thread_while_the_run_goes_on() -> None:
    """A thread that asks all the time finds numbers that add up, and never an error."""
    flow = AsyncFlow("flow")

    @flow.task
    def rows(_: Context) -> list[int]:
        return list(range(300))

    @flow.task(map_over=rows)
    async def each(ctx: Context) -> None:
        await asyncio.sleep(0)

    run_id = flow.init_run()
    found: list[RunProgress] = []
    problems: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                found.append(flow.progress_of(run_id))
            except BaseException as error:
                problems.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        await flow.run_until_complete(run_id, max_concurrency=3)
    finally:
        over.set()
        thread.join()
    assert problems == []
    assert any(progress.live for progress in found)
    assert {progress.total for progress in found} == {2, 301}
    done = [progress.done for progress in found if progress.total == 301]
    assert done == sorted(done)


def test_a_run_that_ended_is_read_from_the_store(store: Store) -> None:
    """Nothing of it is in memory any more; its end is told."""
    flow = AsyncFlow("flow", store)
    flow.add_task_definition("one", lambda _: 1)
    run = flow.run()
    found = flow.progress_of(run.id)
    assert (found.live, found.state, numbers(found), found.fraction) == (False, "success", {"success": 1}, 1.0)
    assert found.end_date == run.end_date
    assert found.running == found.failures == ()


def test_a_run_that_was_only_made_has_not_begun() -> None:
    """All of it waits."""
    flow = AsyncFlow("flow")
    flow.add_task_definition("one", lambda _: 1)
    found = flow.progress_of(flow.init_run())
    assert (found.state, numbers(found), found.fraction, found.start_date) == ("scheduled", {"scheduled": 1}, 0.0, None)


def test_a_flow_without_tasks_has_no_part_done() -> None:
    """Nothing of nothing is no error."""
    flow = AsyncFlow("flow")
    run_id = flow.init_run()
    assert (flow.progress_of(run_id).fraction, flow.progress_of(run_id).total) == (0.0, 0)


def test_runs_of_others_are_refused() -> None:
    """As everywhere: what is not there, and what another flow made."""
    store = MemoryStore()
    other = AsyncFlow("other", store)
    other.add_task_definition("one", lambda _: 1)
    run_id = other.init_run()
    flow = AsyncFlow("flow", store)
    with pytest.raises(RunMismatchError):
        flow.progress_of(run_id)
    with pytest.raises(RunNotFoundError):
        flow.progress_of("nowhere")


def test_reasons_go_through_the_flow_s_redact() -> None:
    """Also those that were stored before there was one."""
    store = MemoryStore()

    def fail(_: Context) -> None:
        raise ValueError("password hunter2")

    flow = AsyncFlow("flow", store)
    flow.add_task_definition("one", fail)
    run = flow.run()
    careful = AsyncFlow("flow", store, redact=lambda text: text.replace("hunter2", "***"))
    assert careful.progress_of(run.id).failures[0].reason == "ValueError: password ***"


@pytest.mark.parametrize(
    ("kinds", "each"), [((), True), ((Event,), True), ((TaskSucceeded,), True), ((TaskFailed,), False), ((object,), True)]
)
def test_who_follows_failures_alone_costs_the_other_tasks_nothing(kinds: tuple[type, ...], each: bool) -> None:
    """The events that come with every task are made only if somebody would be told of them."""
    flow = AsyncFlow("flow")
    end = flow.events.subscribe(lambda _: None, *kinds)
    assert flow.events.has_subscribers is each
    end()
    assert not flow.events.has_subscribers
