"""Coroutine functions as subscribers: every event, in order, one at a time; no run is held up, and none returns before them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    Event,
    EventManager,
    RunFinished,
    RunStarted,
    TaskEvent,
    TaskStarted,
    TaskSucceeded,
)
from .attempts import until
from .conftest import returns
from .test_events import ALL, FAILED, MISBEHAVIOUR, STARTED, TASK

heard: list[Event] = []


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    heard.clear()


@pytest.fixture
def manager() -> EventManager:
    return EventManager()


async def note(event: Event) -> None:
    await asyncio.sleep(0)
    heard.append(event)


class AsyncCallable:
    async def __call__(self, event: Event) -> None:
        heard.append(event)

    async def method(self, event: Event) -> None:
        heard.append(event)


def chain(flow: AsyncFlow, length: int = 5) -> AsyncFlow:
    for number in range(length):
        flow.add_task_definition(f"t{number}", returns(number), dependencies=[f"t{number - 1}"] if number else None)
    return flow


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


@contextmanager
def loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs elsewhere."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# --- telling ---


@pytest.mark.parametrize(
    "handler",
    [note, partial(note), AsyncCallable(), AsyncCallable().method],
    ids=["function", "partial", "object", "method"],
)
async def test_whatever_is_a_coroutine_function_is_told_of_each_event_in_order(manager: EventManager, handler: Any) -> None:
    manager.subscribe(handler)
    manager.emit(ALL)
    await manager.caught_up(5)
    assert heard == ALL


async def test_it_is_told_only_the_classes_that_it_asked_for(manager: EventManager) -> None:
    manager.subscribe(note, TaskEvent)
    manager.emit(ALL)
    await manager.caught_up(5)
    assert heard == [TASK, FAILED]


async def test_whoever_tells_does_not_wait_for_it(manager: EventManager) -> None:
    may_go = asyncio.Event()

    async def slow(event: Event) -> None:
        await may_go.wait()
        heard.append(event)

    manager.subscribe(slow)
    manager.emit(ALL)
    await asyncio.sleep(0.01)
    assert heard == []
    may_go.set()
    await manager.caught_up(5)
    assert heard == ALL


async def test_events_are_handled_one_at_a_time_and_each_subscriber_has_its_own_turn(manager: EventManager) -> None:
    at_once = {"first": 0, "second": 0}
    order: list[tuple[str, Event]] = []
    stuck = asyncio.Event()

    async def handle(name: str, event: Event) -> None:
        at_once[name] += 1
        assert at_once[name] == 1
        if name == "first":
            await stuck.wait()
        await asyncio.sleep(0)
        order.append((name, event))
        at_once[name] -= 1

    manager.subscribe(partial(handle, "first"))
    manager.subscribe(partial(handle, "second"))
    manager.emit(ALL[:2])
    manager.emit(ALL[2:])
    await until(lambda: len(order) == len(ALL))
    assert order == [("second", event) for event in ALL], "the first is stuck, and the second need not wait for it"
    stuck.set()
    await manager.caught_up(5)
    assert order[len(ALL) :] == [("first", event) for event in ALL]


async def test_when_its_subscription_ends_what_waits_is_dropped_and_what_is_handled_goes_on(manager: EventManager) -> None:
    may_go = asyncio.Event()

    async def slow(event: Event) -> None:
        await may_go.wait()
        heard.append(event)

    unsubscribe = manager.subscribe(slow)
    manager.emit(ALL)
    await asyncio.sleep(0)
    unsubscribe()
    unsubscribe()
    manager.emit(ALL)
    assert not manager.may_lag
    assert not manager.has_subscribers
    may_go.set()
    await until(lambda: heard)
    await asyncio.sleep(0)
    assert heard == [STARTED]


async def test_nobody_waits_for_one_whose_subscription_has_ended(manager: EventManager) -> None:
    async def stuck(event: Event) -> None:
        await asyncio.Event().wait()

    unsubscribe = manager.subscribe(stuck)
    manager.emit(ALL)
    waiting = asyncio.ensure_future(manager.caught_up(60))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    unsubscribe()
    await asyncio.wait([waiting], timeout=5)
    assert waiting.done()


# --- misbehaviour ---


@pytest.mark.parametrize("error", MISBEHAVIOUR, ids=lambda error: type(error).__name__)
async def test_what_it_raises_is_logged_and_the_next_event_is_handled(
    manager: EventManager, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    async def misbehave(event: Event) -> None:
        heard.append(event)
        raise error

    manager.subscribe(misbehave)
    manager.emit(ALL)
    for _ in ALL:  # Python 3.10 cannot tell one that raises CancelledError from one that was cancelled
        await manager.caught_up(0.05)
    assert heard == ALL
    told = [record for record in caplog.records if "has not handled its events" not in record.getMessage()]
    assert [record.name for record in told] == ["night_batch.events"] * len(ALL)
    assert all(kind in record.getMessage() for record, kind in zip(told, kinds(ALL)))
    assert all(record.levelno >= logging.WARNING for record in told)


async def test_one_with_the_wrong_parameters_is_logged_too(manager: EventManager, caplog: pytest.LogCaptureFixture) -> None:
    async def wrong() -> None: ...

    handler: Any = wrong
    manager.subscribe(handler)
    manager.emit([STARTED])
    await manager.caught_up(5)
    assert "a subscriber raised on RunStarted" in caplog.text


async def test_a_run_ends_well_though_it_raises_at_every_event(flow: AsyncFlow) -> None:
    async def misbehave(event: Event) -> None:
        raise ValueError("bad")

    flow.subscribe(misbehave)
    run = await chain(flow).run_until_complete(flow.init_run())
    assert run.state == "success"


# --- runs ---


async def test_when_a_run_is_awaited_all_its_events_were_handled(flow: AsyncFlow) -> None:
    flow.subscribe(note)
    await chain(flow).run_until_complete(flow.init_run())
    assert kinds(heard) == ["RunStarted", *["TaskStarted", "TaskSucceeded"] * 5, "RunFinished"]


def test_so_they_were_after_a_script_s_run_each_in_a_loop_of_its_own(flow: AsyncFlow) -> None:
    flow.subscribe(note, RunFinished)
    chain(flow)
    first, second = flow.run(), flow.run()
    assert [event.run_id for event in heard] == [first.id, second.id]


async def test_so_they_were_after_a_retry_and_after_a_handle(flow: AsyncFlow) -> None:
    chain(flow)
    run = await flow.run_until_complete(flow.init_run())
    flow.subscribe(note)
    await flow.retry(run.id, "t4")
    assert kinds(heard) == ["TaskReset", "RunStarted", "TaskStarted", "TaskSucceeded", "RunFinished"]
    heard.clear()
    await flow.start()
    assert kinds(heard)[-1] == "RunFinished"


async def test_so_they_were_when_the_call_was_cancelled(flow: AsyncFlow) -> None:
    begun = asyncio.Event()

    @flow.task("wait")
    async def wait(ctx: Context) -> None:
        begun.set()
        await asyncio.Event().wait()

    flow.subscribe(note)
    call = asyncio.ensure_future(flow.run_until_complete(flow.init_run()))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert kinds(heard) == ["RunStarted", "TaskStarted", "TaskInterrupted", "RunInterrupted"]


async def test_one_that_hangs_holds_up_the_call_for_the_grace_period_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    flow = chain(AsyncFlow("nightly", grace_period=0.05))

    async def hang(event: Event) -> None:
        await asyncio.Event().wait()

    flow.subscribe(hang)
    flow.subscribe(note)
    run = await flow.run_until_complete(flow.init_run())
    assert run.state == "success"
    assert len(heard) == 12
    (record,) = caplog.records
    assert "after 0.05 s this subscriber has not handled its events" in record.getMessage()
    assert "hang" in record.getMessage()
    assert "11 waiting" in record.getMessage()


async def test_it_may_await_the_run_that_it_is_told_of_or_retry_it(flow: AsyncFlow) -> None:
    chain(flow)
    runs: list[Any] = []

    async def on_end(event: Event) -> None:
        if not runs:
            runs.append(await flow.run_until_complete(event.run_id))
            runs.append(await flow.retry(event.run_id, "t4"))

    flow.subscribe(on_end, RunFinished)
    began = asyncio.get_running_loop().time()
    await flow.run_until_complete(flow.init_run())
    assert [run.state for run in runs] == ["success", "success"]
    assert asyncio.get_running_loop().time() - began < 3, "nobody waited for himself until the grace period was over"


async def test_it_may_start_a_run_while_one_is_driven_and_await_that(flow: AsyncFlow) -> None:
    chain(flow)
    ended: list[str] = []

    async def on_start(event: Event) -> None:
        if not ended:
            ended.append("")
            ended[0] = (await flow.run_until_complete(flow.init_run())).id

    flow.subscribe(on_start, RunStarted)
    run = await flow.run_until_complete(flow.init_run())
    assert ended[0] not in ("", run.id)


async def test_it_is_told_outside_the_context_of_the_run_but_in_that_of_the_subscriber(flow: AsyncFlow) -> None:
    name: ContextVar[str] = ContextVar("name", default="")
    seen: list[str] = []

    async def look(event: Event) -> None:
        seen.append(name.get())

    name.set("subscriber")
    flow.subscribe(look, RunFinished)
    name.set("driver")
    await chain(flow).run_until_complete(flow.init_run())
    assert seen == ["subscriber"]


async def test_of_two_runs_at_once_neither_waits_for_what_comes_after_its_end(flow: AsyncFlow) -> None:
    may_end = asyncio.Event()
    flow.add_task_definition("a", returns(1))

    @flow.task("b", depends_on=["a"])
    async def b(ctx: Context) -> None:
        if ctx.params:
            await may_end.wait()

    flow.subscribe(note)
    slow = asyncio.ensure_future(flow.run_until_complete(flow.init_run({"slow": True})))
    await asyncio.sleep(0.01)
    done = await flow.run_until_complete(flow.init_run())
    assert [event.run_id for event in heard][-1] == done.id
    may_end.set()
    await slow


# --- loops and threads ---


async def test_what_is_told_in_another_thread_is_handled_in_the_subscriber_s_loop(manager: EventManager) -> None:
    here = threading.get_ident()
    where: list[int] = []

    async def look(event: Event) -> None:
        where.append(threading.get_ident())
        heard.append(event)

    manager.subscribe(look)
    await asyncio.to_thread(manager.emit, ALL)
    await manager.caught_up(5)
    assert heard == ALL
    assert set(where) == {here}


async def test_a_run_that_is_driven_in_another_thread_is_told_to_the_subscriber_s_loop(flow: AsyncFlow) -> None:
    chain(flow)
    loops: set[asyncio.AbstractEventLoop] = set()

    async def look(event: Event) -> None:
        loops.add(asyncio.get_running_loop())
        heard.append(event)

    flow.subscribe(look)
    with loop_in_a_thread() as elsewhere:
        work = asyncio.run_coroutine_threadsafe(flow.run_until_complete(flow.init_run()), elsewhere)
        await asyncio.wrap_future(work)
    assert loops == {asyncio.get_running_loop()}
    assert kinds(heard)[-1] == "RunFinished"


def test_what_is_told_where_no_loop_runs_waits_for_one(flow: AsyncFlow) -> None:
    chain(flow)
    flow.subscribe(note)
    run_id = flow.init_run()
    assert flow.cancel(run_id)
    assert heard == []
    flow.run()
    assert [event.run_id for event in heard][0] == run_id
    assert kinds(heard)[-1] == "RunFinished"


def test_a_loop_that_was_closed_under_it_keeps_nobody_from_hearing_what_comes_later(manager: EventManager) -> None:
    async def hang_once(event: Event) -> None:
        heard.append(event)
        if event is STARTED:
            await asyncio.Event().wait()

    async def tell(*events: Event) -> None:
        manager.emit(events)
        await asyncio.sleep(0)

    manager.subscribe(hang_once)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(tell(STARTED, TASK))
    loop.close()
    assert heard == [STARTED]

    async def later() -> None:
        manager.emit([FAILED])
        await manager.caught_up(0.2)

    asyncio.run(later())
    assert heard == [STARTED, TASK, FAILED]


def test_when_asyncio_run_ends_in_the_midst_of_it_nothing_hangs(manager: EventManager, caplog: pytest.LogCaptureFixture) -> None:
    async def hang(event: Event) -> None:
        heard.append(event)
        await asyncio.Event().wait()

    async def tell() -> None:
        manager.subscribe(hang)
        manager.emit(ALL)
        await asyncio.sleep(0)

    asyncio.run(tell())
    assert heard == [STARTED]
    assert "was cancelled while it handled RunStarted" in caplog.text


async def test_no_asyncio_task_is_left_once_it_has_handled_everything(manager: EventManager) -> None:
    before = asyncio.all_tasks()
    manager.subscribe(note)
    manager.emit(ALL)
    await manager.caught_up(5)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_flow_subscribe_takes_functions_too_and_ends_when_its_function_is_called(flow: AsyncFlow) -> None:
    chain(flow)
    told: list[Event] = []
    unsubscribe: Callable[[], None] = flow.subscribe(told.append, TaskStarted, TaskSucceeded)
    await flow.run_until_complete(flow.init_run())
    assert kinds(told) == ["TaskStarted", "TaskSucceeded"] * 5
    unsubscribe()
    await flow.run_until_complete(flow.init_run())
    assert len(told) == 10
