"""How much runs at once, and what goes first: priorities, pools, threads; and what a task sees of its caller's variables."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from .. import AsyncFlow, Context, NoCurrentTaskError, RetryPolicy, current_context
from .. import pools as pools_room
from .attempts import until
from .conftest import FakeClock, fails, flaky, returns, run, states_of
from .held_clock import HeldClock, settle


@pytest.fixture(autouse=True)
def no_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with none."""
    monkeypatch.setattr(pools_room, "_pools", {})
    yield


class Gauge:
    """Tasks that notice how many of them are running at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.began: list[str] = []

    async def task(self, ctx: Context) -> None:
        self.began.append(ctx.task_id)
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        self.now -= 1


@pytest.fixture
def gauge() -> Gauge:
    return Gauge()


# --- priorities ---


async def test_what_is_ready_starts_by_priority_and_then_in_its_order(gauge: Gauge) -> None:
    flow = AsyncFlow("f")
    for task_id, priority in (("a", 0), ("low", -5), ("b", 0), ("high", 5), ("higher", 7), ("high2", 5)):
        flow.add_task_definition(task_id, gauge.task, priority=priority)
    await run(flow, max_concurrency=1)
    assert gauge.began == ["higher", "high", "high2", "a", "b", "low"]


async def test_a_task_of_high_priority_that_becomes_ready_goes_before_those_that_wait_for_a_thread() -> None:
    flow, began = AsyncFlow("f", max_threads=1), list[str]()
    for number in range(3):
        flow.add_task_definition(f"low{number}", lambda ctx: began.append(ctx.task_id))
    flow.add_task_definition("urgent", lambda ctx: began.append(ctx.task_id), dependencies=["low0"], priority=1)
    await run(flow)
    assert began == ["low0", "urgent", "low1", "low2"]


async def test_priorities_count_over_all_runs_of_a_tree(gauge: Gauge) -> None:
    inner = AsyncFlow("inner").add_task_definition("urgent", gauge.task, priority=1)
    flow = AsyncFlow("outer")
    flow.add_task_definition("a", gauge.task)
    flow.add_task_definition("b", gauge.task)
    flow.add_subflow_definition("in", inner)
    await run(flow, max_concurrency=1)
    assert gauge.began == ["urgent", "a", "b"]


# --- pools ---


async def test_no_more_run_at_once_than_the_pool_has_slots(gauge: Gauge) -> None:
    flow = AsyncFlow("f", pools={"db": 2})
    for number in range(10):
        flow.add_task_definition(f"t{number}", gauge.task, pool="db")
    assert (await run(flow)).state == "success"
    assert gauge.most == 2
    assert gauge.began == [f"t{number}" for number in range(10)]


async def test_a_heavy_task_takes_more_slots_and_is_not_starved_by_light_ones() -> None:
    flow, used, most = AsyncFlow("f", pools={"db": 4}), 0, 0
    began: list[str] = []

    async def task(ctx: Context) -> None:
        nonlocal used, most
        weight = 3 if ctx.task_id.startswith("heavy") else 1
        began.append(ctx.task_id)
        used += weight
        most = max(most, used)
        for _ in range(5):
            await asyncio.sleep(0)
        used -= weight

    for number in range(4):
        flow.add_task_definition(f"light{number}", task, pool="db")
        flow.add_task_definition(f"heavy{number}", task, pool="db", pool_weight=3)
    assert (await run(flow)).state == "success"
    assert most == 4
    assert began.index("heavy0") < began.index("light2")


async def test_a_pool_is_shared_by_the_runs_and_flows_of_the_process(gauge: Gauge) -> None:
    def made() -> AsyncFlow:
        flow = AsyncFlow("f", pools={"db": 2})
        for number in range(4):
            flow.add_task_definition(f"t{number}", gauge.task, pool="db")
        return flow

    one, other = made(), made()
    ended = await asyncio.gather(*(flow.run_until_complete(flow.init_run()) for flow in (one, one, other)))
    assert {done.state.value for done in ended} == {"success"}
    assert gauge.most == 2


def test_a_pool_is_shared_by_runs_in_several_threads() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def task(ctx: Context) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.002)
        with lock:
            now -= 1

    def drive() -> None:
        flow = AsyncFlow("f", pools={"db": 2})
        for number in range(20):
            flow.add_task_definition(f"t{number}", task, pool="db")
        states.append(flow.run().state.value)

    states: list[str] = []
    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert states == ["success"] * 4
    assert most == 2


async def test_who_waits_for_a_pool_holds_up_nobody_else(gauge: Gauge) -> None:
    flow, go_on = AsyncFlow("f", pools={"db": 1}), asyncio.Event()

    @flow.task(pool="db")
    async def holds(ctx: Context) -> None:
        await go_on.wait()

    flow.add_task_definition("waits", returns(1), pool="db", priority=9)

    @flow.task
    async def beside(ctx: Context) -> None:
        go_on.set()

    ended = await asyncio.wait_for(run(flow, max_concurrency=2), 10)
    assert states_of(ended) == {"holds": "success", "waits": "success", "beside": "success"}


async def test_a_delayed_retry_holds_no_slot(gauge: Gauge) -> None:
    held = HeldClock()
    flow = AsyncFlow("f", pools={"db": 1}, clock=held)
    flow.add_task_definition("flaky", flaky(1), pool="db", retry=RetryPolicy(max_retries=1, delay=3600))
    flow.add_task_definition("other", returns(1), pool="db", dependencies=[])
    drive = asyncio.create_task(flow.run_until_complete(flow.init_run(run_id="r"), max_concurrency=1))
    for _ in range(2000):
        if flow.store.load("r").tasks["other"].state == "success":
            break
        await asyncio.sleep(0.005)
    assert states_of(flow.store.load("r")) == {"flaky": "scheduled", "other": "success"}
    await settle()
    await held.forward(3601)
    assert (await drive).state == "success"


async def test_slots_are_given_back_by_failures_time_outs_cancellations_and_stopped_runs() -> None:
    held = HeldClock()
    flow = AsyncFlow("f", pools={"db": 1}, clock=held, grace_period=1)

    async def never(ctx: Context) -> None:
        await asyncio.Event().wait()

    flow.add_task_definition("fails", fails(), pool="db")
    flow.add_task_definition("slow", never, pool="db", timeout=5)
    flow.add_task_definition("hung", never, pool="db")
    flow.add_task_definition("last", never, pool="db")

    async def reaches(task_id: str, state: str) -> None:
        for _ in range(2000):
            if flow.store.load("r").tasks[task_id].state == state:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(states_of(flow.store.load("r")))

    drive = asyncio.create_task(flow.run_until_complete(flow.init_run(run_id="r")))
    await reaches("slow", "running")
    await settle()
    await held.forward(6)
    await reaches("hung", "running")
    flow.cancel_task("r", "hung")
    await reaches("last", "running")
    drive.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drive
    pool = pools_room.find("db")
    assert pool is not None
    assert pool.take(1, "me", lambda: None)


async def test_a_task_that_was_cancelled_while_it_waited_for_a_pool_keeps_nobody_behind_it_waiting() -> None:
    """It wanted more slots than are free, and the one behind it does not."""
    flow, begun, go_on = AsyncFlow("f", pools={"db": 3}), asyncio.Event(), asyncio.Event()

    @flow.task(pool="db", pool_weight=2)
    async def first(ctx: Context) -> None:
        begun.set()
        await go_on.wait()

    flow.add_task_definition("heavy", returns(1), pool="db", pool_weight=3)
    flow.add_task_definition("light", returns(2), pool="db")
    run_id = flow.init_run()
    drive = asyncio.create_task(flow.run_until_complete(run_id))
    await until(lambda: flow.store.load(run_id).tasks["first"].state == "running")
    await settle()
    assert states_of(flow.store.load(run_id)) == {"first": "running", "heavy": "scheduled", "light": "scheduled"}
    flow.cancel_task(run_id, "heavy")
    await until(lambda: flow.store.load(run_id).tasks["light"].state == "success")
    assert states_of(flow.store.load(run_id)) == {"first": "running", "heavy": "cancelled", "light": "success"}
    go_on.set()
    await drive


async def test_a_run_that_is_stopped_while_it_waits_for_a_pool_lets_others_have_their_turn() -> None:
    flow, begun, go_on = AsyncFlow("f", pools={"db": 1}), asyncio.Event(), asyncio.Event()

    @flow.task(pool="db")
    async def holds(ctx: Context) -> None:
        begun.set()
        await go_on.wait()

    first = asyncio.create_task(flow.run_until_complete(flow.init_run()))
    await begun.wait()
    waiting = AsyncFlow("w").add_task_definition("a", returns(1), pool="db")
    runs = [waiting.init_run() for _ in range(2)]
    stopped, patient = (asyncio.create_task(waiting.run_until_complete(run_id)) for run_id in runs)
    await until(lambda: all(waiting.store.load(run_id).state == "running" for run_id in runs))
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    go_on.set()
    assert [(await call).state for call in (first, patient)] == ["success", "success"]


# --- threads ---


async def test_functions_run_in_no_more_threads_than_were_asked_for() -> None:
    flow, names = AsyncFlow("f", max_threads=2), set[str]()
    full = threading.Barrier(2, timeout=30)

    def task(ctx: Context) -> None:
        names.add(threading.current_thread().name)
        full.wait()

    for number in range(6):
        flow.add_task_definition(f"t{number}", task)
    assert (await run(flow)).state == "success"
    assert len(names) == 2


async def test_thirty_two_blocking_calls_overlap() -> None:
    flow, all_there = AsyncFlow("f"), threading.Barrier(32, timeout=30)
    for number in range(32):
        flow.add_task_definition(f"t{number}", lambda ctx: all_there.wait() >= 0)
    assert (await run(flow)).state == "success"


# --- what is around a task ---

caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


@pytest.mark.parametrize("executor", [None, "inline", "thread"])
async def test_variables_of_the_caller_are_seen_in_tasks_and_changes_stay_there(executor: str | None) -> None:
    flow = AsyncFlow("f")

    def looks(ctx: Context) -> str:
        seen = caller.get()
        caller.set("a task")
        return seen

    flow.add_task_definition("a", looks, executor=executor)
    flow.add_task_definition("b", looks, executor=executor, dependencies=["a"])
    caller.set("the caller")
    ended = await run(flow)
    assert [task.output for task in ended.tasks.values()] == ["the caller", "the caller"]
    assert caller.get() == "the caller"


def somewhere_below() -> str:
    """Deep inside somebody's library."""
    return f"{current_context().task_id} {current_context().attempt_number}"


@pytest.mark.parametrize("executor", [None, "inline", "thread", "loop"])
async def test_the_context_of_the_running_task_is_found_anywhere_below_it(executor: str | None, clock: FakeClock) -> None:
    flow = AsyncFlow("f", clock=clock)

    def plain(ctx: Context) -> str:
        if not ctx.attempt_number:
            raise ValueError
        return somewhere_below()

    async def coroutine(ctx: Context) -> str:
        if not ctx.attempt_number:
            raise ValueError
        return await asyncio.to_thread(somewhere_below)

    on_loop = executor == "loop"
    task: Any = coroutine if on_loop else plain
    flow.add_task_definition("a", task, executor=None if on_loop else executor, max_retries=1)
    ended = await run(flow)
    assert ended.tasks["a"].output == "a 1"
    with pytest.raises(NoCurrentTaskError):
        current_context()


async def test_an_inline_function_runs_on_the_loop() -> None:
    flow = AsyncFlow("f", executor="inline")
    flow.add_task_definition("plain", lambda ctx: threading.get_ident())

    @flow.task
    async def coroutine(ctx: Context) -> int:
        return threading.get_ident()

    ended = await run(flow)
    assert [task.output for task in ended.tasks.values()] == [threading.get_ident()] * 2
