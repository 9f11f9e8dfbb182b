"""Awaiting with a time-out: what is cut off is cancelled, waited for, and answered for by the right error. No real time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ..cancellation import within

LATE = TimeoutError("too late")


def alarm() -> tuple[Callable[[float], Awaitable[None]], asyncio.Event]:
    """A sleep that is over when the event is set."""
    bell = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await bell.wait()

    return sleep, bell


async def test_work_that_ends_in_time_gives_its_result_and_leaves_no_alarm_behind() -> None:
    sleep, _ = alarm()

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await within(1, sleep, work(), LATE) == "done"
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_work_that_takes_too_long_is_cancelled_and_waited_for() -> None:
    sleep, bell = alarm()
    tidied = False

    async def work() -> None:
        nonlocal tidied
        try:
            bell.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied = True

    with pytest.raises(TimeoutError, match="too late"):
        await within(1, sleep, work(), LATE)
    assert tidied


async def test_work_that_fails_while_it_is_stopped_says_so() -> None:
    sleep, bell = alarm()

    async def work() -> None:
        try:
            bell.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("the disk is full") from None

    with pytest.raises(OSError, match="disk"):
        await within(1, sleep, work(), LATE)


async def test_a_caller_who_is_cancelled_gets_a_cancellation_once_the_work_has_ended() -> None:
    sleep, _ = alarm()
    begun, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    caller = asyncio.create_task(within(1, sleep, work(), LATE))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended


async def test_a_second_cancellation_reaches_work_that_is_slow_to_end() -> None:
    sleep, _ = alarm()
    begun, stopping, asked = asyncio.Event(), asyncio.Event(), 0

    async def work() -> None:
        nonlocal asked
        begun.set()
        while asked < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked += 1
                stopping.set()

    caller = asyncio.create_task(within(1, sleep, work(), LATE))
    await begun.wait()
    caller.cancel()
    await stopping.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert asked == 2


async def test_what_keeps_work_from_ending_well_is_told_to_a_caller_who_is_cancelled() -> None:
    sleep, _ = alarm()
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the disk is full")

    caller = asyncio.create_task(within(1, sleep, work(), LATE))
    await begun.wait()
    caller.cancel()
    with pytest.raises(OSError, match="disk"):
        await caller


def test_a_loop_that_is_closed_under_it_is_no_second_trouble() -> None:
    sleep, _ = alarm()

    async def work() -> None:
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    waiting = within(1, sleep, work(), LATE)
    task = loop.create_task(waiting)
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    waiting.close()
    assert not task.done()
    for left in asyncio.all_tasks(loop):  # nobody need be told that they never ended
        vars_of: Any = left
        vars_of._log_destroy_pending = False
        vars_of.get_coro().close()
