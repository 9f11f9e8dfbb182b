"""Who is told what: subscribers in their order, each by the classes it asked for, and none can harm a run."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Event,
    EventManager,
    ExecutionState,
    InvalidOptionError,
    RunFinished,
    RunStarted,
    TaskEvent,
    TaskFailed,
    TaskRetryScheduled,
    TaskSkipped,
    TaskStarted,
    TaskSucceeded,
    events,
)
from .conftest import events_of, fails, flaky, returns, run

STARTED = RunStarted("nightly", "run-1", 1_700_000_000_000_001)
TASK = TaskStarted("nightly", "run-1", 1_700_000_000_000_002, "load", 0)
FAILED = TaskFailed("nightly", "run-1", 1_700_000_000_000_003, "load", 0, "ValueError: bad row")
FINISHED = RunFinished("nightly", "run-1", 1_700_000_000_000_004, ExecutionState.FAILED)
ALL = [STARTED, TASK, FAILED, FINISHED]
EVENT_CLASSES = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]


@pytest.fixture
def manager() -> EventManager:
    return EventManager()


# --- events ---


@pytest.mark.parametrize("kind", EVENT_CLASSES)
def test_every_event_is_frozen_and_says_when_it_is_told(kind: type[Event]) -> None:
    assert kind.__doc__
    values = dict.fromkeys((field.name for field in dataclasses.fields(kind)), 0)
    event = kind(**values)  # type: ignore[arg-type]
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        event.run_id = "other"  # type: ignore[misc]


def test_an_event_tells_its_moment_to_the_microsecond_in_utc() -> None:
    assert STARTED.at == datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=timezone.utc)
    assert Event("nightly", "run-1", -1).at == datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)


# --- subscribing ---


@pytest.mark.parametrize(
    ("event_types", "told"),
    [
        ((), ALL),
        ((Event,), ALL),
        ((TaskFailed,), [FAILED]),
        ((TaskEvent,), [TASK, FAILED]),
        ((RunStarted, RunFinished), [STARTED, FINISHED]),
        ((TaskSkipped,), []),
        ((TaskEvent, TaskFailed), [TASK, FAILED]),
    ],
    ids=str,
)
def test_a_subscriber_is_told_the_classes_it_asked_for_once_each_and_in_order(
    manager: EventManager, event_types: tuple[type[Event], ...], told: list[Event]
) -> None:
    heard: list[Event] = []
    manager.subscribe(heard.append, *event_types)
    manager.emit(ALL)
    assert heard == told


def test_subscribers_are_told_in_the_order_in_which_they_subscribed_event_by_event(manager: EventManager) -> None:
    heard: list[tuple[str, Event]] = []
    for name in ("first", "second"):
        manager.subscribe(lambda event, name=name: heard.append((name, event)))  # type: ignore[misc]
    manager.emit([STARTED, TASK])
    assert heard == [("first", STARTED), ("second", STARTED), ("first", TASK), ("second", TASK)]


def test_a_subscription_ends_when_its_own_function_is_called_and_no_other(manager: EventManager) -> None:
    heard: list[Event] = []
    unsubscribe = manager.subscribe(heard.append)
    manager.subscribe(heard.append)
    manager.emit([STARTED])
    unsubscribe()
    unsubscribe()
    manager.emit([TASK])
    assert heard == [STARTED, STARTED, TASK]


def test_without_subscribers_telling_does_nothing(manager: EventManager) -> None:
    manager.emit(ALL)
    assert repr(manager) == "<EventManager, 0 subscribed>"
    manager.subscribe(print)
    assert repr(manager) == "<EventManager, 1 subscribed>"


def test_a_subscriber_may_subscribe_and_unsubscribe_while_it_is_told(manager: EventManager) -> None:
    heard: list[Event] = []

    def once(event: Event) -> None:
        unsubscribe()
        manager.subscribe(heard.append)

    unsubscribe = manager.subscribe(once)
    manager.emit([STARTED])
    manager.emit([TASK])
    assert heard == [TASK]


@pytest.mark.parametrize("handler", [None, "print", 5], ids=lambda value: type(value).__name__)
def test_what_cannot_be_called_is_refused(manager: EventManager, handler: Any) -> None:
    with pytest.raises(
        InvalidOptionError, match=r"^handler=.*a function, or a coroutine function, that takes an event"
    ) as caught:
        manager.subscribe(handler)
    assert caught.value.value is handler
    assert repr(manager) == "<EventManager, 0 subscribed>"


# --- a subscriber that misbehaves ---


class OwnBaseException(BaseException):
    pass


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message either")


MISBEHAVIOUR = [
    ValueError("bad"),
    SystemExit(3),
    OwnBaseException(),
    asyncio.CancelledError(),
    GeneratorExit(),
    StopIteration(),
    BrokenError(),
]


@pytest.mark.parametrize("error", MISBEHAVIOUR, ids=lambda error: type(error).__name__)
def test_what_a_subscriber_raises_is_logged_and_the_others_are_told_all_the_same(
    manager: EventManager, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def misbehave(event: Event) -> None:
        raise error

    heard: list[Event] = []
    manager.subscribe(heard.append)
    manager.subscribe(misbehave, TaskFailed)
    manager.subscribe(heard.append)
    manager.emit(ALL)
    assert heard == [event for event in ALL for _ in range(2)]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("night_batch.events", logging.ERROR)
    assert "TaskFailed" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_ctrl_c_inside_a_subscriber_still_stops_the_program(manager: EventManager) -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    manager.subscribe(interrupted)
    with pytest.raises(KeyboardInterrupt):
        manager.emit([STARTED])


@pytest.mark.parametrize("error", MISBEHAVIOUR, ids=lambda error: type(error).__name__)
async def test_a_run_ends_well_whatever_a_subscriber_raises_at_every_event(flow: AsyncFlow, error: BaseException) -> None:
    def misbehave(event: Event) -> None:
        raise error

    flow.events.subscribe(misbehave)
    flow.add_task_definition("a", returns(1)).add_task_definition("b", returns(2), dependencies="a")
    done = await run(flow)
    assert done.state == "success"
    assert done.tasks["b"].output == 2


# --- what a run tells ---


@pytest.mark.parametrize(
    ("function", "max_retries", "told"),
    [
        (lambda: returns(1), 0, [RunStarted, TaskStarted, TaskSucceeded, RunFinished]),
        (lambda: fails(), 0, [RunStarted, TaskStarted, TaskFailed, RunFinished]),
        (lambda: flaky(times=1), 1, [RunStarted, TaskStarted, TaskRetryScheduled, TaskStarted, TaskSucceeded, RunFinished]),
    ],
    ids=["success", "failure", "retry"],
)
async def test_a_run_tells_its_story_in_order(
    flow: AsyncFlow, function: Callable[[], Any], max_retries: int, told: list[type[Event]]
) -> None:
    flow.add_task_definition("a", function(), max_retries=max_retries)
    heard = events_of(flow)
    done = await run(flow)
    assert [type(event) for event in heard] == told
    assert {(event.flow_name, event.run_id) for event in heard} == {("test_flow", done.id)}


async def test_whoever_hears_of_a_step_finds_it_in_the_store(flow: AsyncFlow) -> None:
    seen: list[tuple[type[Event], str]] = []

    def look(event: Event) -> None:
        run = flow.store.load(event.run_id)
        seen.append((type(event), (run.tasks["a"] if isinstance(event, TaskEvent) else run).state.value))

    flow.events.subscribe(look, RunFinished, TaskSucceeded, TaskStarted)
    flow.add_task_definition("a", returns(1))
    await run(flow)
    assert seen == [(TaskStarted, "running"), (TaskSucceeded, "success"), (RunFinished, "success")]


# --- the stream ---


async def test_a_stream_gives_what_is_told_from_its_making_on_in_order(manager: EventManager) -> None:
    manager.emit([STARTED])
    stream = manager.stream(TaskEvent)
    manager.emit(ALL)
    assert [await stream.__anext__(), await stream.__anext__()] == [TASK, FAILED]


async def test_a_stream_waits_for_what_is_told_later(manager: EventManager) -> None:
    stream = manager.stream()
    waiting = asyncio.ensure_future(stream.__anext__())
    await asyncio.sleep(0)
    assert not waiting.done()
    manager.emit([STARTED])
    assert await waiting == STARTED


async def test_two_streams_give_each_event_to_both(manager: EventManager) -> None:
    streams = [manager.stream(), manager.stream()]
    manager.emit([STARTED])
    assert [await stream.__anext__() for stream in streams] == [STARTED, STARTED]


async def test_a_stream_that_is_closed_ends_its_subscription(manager: EventManager) -> None:
    stream = manager.stream()
    manager.emit([STARTED])
    async for _ in stream:
        break
    assert repr(manager) == "<EventManager, 1 subscribed>"
    stream.close()
    assert repr(manager) == "<EventManager, 0 subscribed>"


async def test_a_run_can_be_followed_by_its_stream(flow: AsyncFlow) -> None:
    flow.add_task_definition("a", returns(1))
    stream = flow.events.stream()

    async def follow() -> list[str]:
        heard: list[str] = []
        async for event in stream:
            heard.append(type(event).__name__)
            if isinstance(event, RunFinished):
                break
        return heard

    following = asyncio.ensure_future(follow())
    await run(flow)
    assert await following == ["RunStarted", "TaskStarted", "TaskSucceeded", "RunFinished"]


async def test_a_stream_that_nobody_uses_any_more_is_not_fed(manager: EventManager) -> None:
    stream = manager.stream()
    assert repr(manager) == "<EventManager, 1 subscribed>"
    del stream
    gc.collect()
    assert repr(manager) == "<EventManager, 0 subscribed>"


@pytest.mark.parametrize("wrong", ["TaskFailed", 5, None], ids=str)
async def test_what_is_no_class_of_events_is_refused_and_nobody_subscribed_by_it(flow: AsyncFlow, wrong: Any) -> None:
    told: list[Event] = []
    with pytest.raises(InvalidOptionError, match=r"^event_types=.*classes of events"):
        flow.subscribe(told.append, TaskStarted, wrong)
    flow.add_task_definition("only", lambda ctx: 1)
    assert (await run(flow)).state == "success"
    assert (told, flow.events.has_subscribers) == ([], False)
