"""The runs that are driven in this process: who joins whom, who stops what, and that nobody waits for ever or for nothing."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from .. import RunActiveError, WorkflowRun, drives
from ..drives import Drive, Drives
from ..errors import RunMismatchError

KEY = ("a store", "nightly")


class Work:
    """Stands for a run that is driven: notes its beginnings, its ends and its interruptions."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.began = threading.Event()
        self.go_on = threading.Event()

    @property
    def begun(self) -> int:
        return self.log.count("begun")

    @property
    def interrupted(self) -> int:
        return self.log.count("interrupted")

    async def __call__(self) -> WorkflowRun:
        self.log.append("begun")
        self.began.set()
        try:
            while not self.go_on.is_set():  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # it is saved
            self.log.append("interrupted")
            raise
        self.log.append("ended")
        return WorkflowRun("nightly", "flow")


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def driven() -> Drives:
    return Drives()


class Thread:
    """A thread with an event loop of its own that turns until the test is over."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start something there."""
        made: list[asyncio.Task[Any]] = []
        ready = threading.Event()

        def go() -> None:
            made.append(self.loop.create_task(work))
            ready.set()

        self.loop.call_soon_threadsafe(go)
        assert ready.wait(15)
        return made[0]

    def cancel(self, task: asyncio.Task[Any]) -> None:
        self.loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(15)
            assert not self._thread.is_alive()
            self.loop.close()


@pytest.fixture
def threads() -> Iterator[list[Thread]]:
    made = [Thread(), Thread()]
    yield made
    for thread in made:
        thread.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.0005)


def said(task: asyncio.Task[Any]) -> str:
    """How a call in another thread ended."""
    until(task.done)
    return "cancelled" if task.cancelled() else type(task.exception() or task.result()).__name__


# --- in one loop ---


async def test_calls_for_the_same_run_share_one_drive(driven: Drives, work: Work) -> None:
    calls = [asyncio.create_task(driven.run(KEY, "flow", work)) for _ in range(3)]
    await asyncio.sleep(0.005)
    assert KEY in driven
    assert ("a store", "another") not in driven
    work.go_on.set()
    assert len({id(await call) for call in calls}) == 1
    assert work.log == ["begun", "ended"]
    assert KEY not in driven, "it is forgotten when it ends"


async def test_a_drive_shows_who_waits_for_it(work: Work) -> None:
    drive = Drive(KEY, "flow", work)
    call = asyncio.create_task(drive.wait())
    await asyncio.sleep(0.005)
    assert repr(drive) == "<Drive of run 'nightly', 1 waiting, under way>"
    work.go_on.set()
    await call
    assert repr(drive) == "<Drive of run 'nightly', 0 waiting, done>"


async def test_what_goes_wrong_is_told_to_all(driven: Drives) -> None:
    async def fails() -> WorkflowRun:
        await asyncio.sleep(0.002)
        raise ZeroDivisionError

    calls = [driven.run(KEY, "flow", fails) for _ in range(3)]
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [ZeroDivisionError] * 3


async def test_a_run_is_not_driven_as_that_of_another_flow(driven: Drives, work: Work) -> None:
    call = asyncio.create_task(driven.run(KEY, "flow", work))
    await asyncio.sleep(0)
    with pytest.raises(RunMismatchError):
        await driven.run(KEY, "other flow", work)
    work.go_on.set()
    await call
    assert work.begun == 1


async def test_a_task_cannot_wait_for_the_run_that_it_is_part_of(driven: Drives, work: Work) -> None:
    async def waits_for_itself() -> WorkflowRun:
        return await asyncio.create_task(driven.run(KEY, "flow", work))  # a task of the task's own, too

    with pytest.raises(RunActiveError):
        await driven.run(KEY, "flow", waits_for_itself)


async def test_the_last_caller_that_is_cancelled_takes_the_run_along_and_waits_until_it_is_saved(
    driven: Drives, work: Work
) -> None:
    calls = [asyncio.create_task(driven.run(KEY, "flow", work)) for _ in range(3)]
    await asyncio.sleep(0.005)
    for call in calls[:2]:
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert work.interrupted == 0
    calls[2].cancel()
    await asyncio.wait([calls[2]])
    assert (calls[2].cancelled(), work.interrupted) == (True, 1)
    assert KEY not in driven


async def test_callers_cancelled_in_one_turn_stop_it_once(driven: Drives, work: Work) -> None:
    calls = [asyncio.create_task(driven.run(KEY, "flow", work)) for _ in range(5)]
    await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    assert (work.begun, work.interrupted) == (1, 1)


async def test_who_calls_while_it_is_being_stopped_starts_it_anew_when_that_is_done(driven: Drives, work: Work) -> None:
    first = asyncio.create_task(driven.run(KEY, "flow", work))
    await asyncio.sleep(0.005)
    first.cancel()
    await asyncio.sleep(0.002)
    assert not first.done()
    second = asyncio.create_task(driven.run(KEY, "flow", work))
    await asyncio.wait([first])
    work.go_on.set()
    await second
    assert work.log == ["begun", "interrupted", "begun", "ended"]


async def test_a_second_cancellation_is_passed_on(driven: Drives) -> None:
    asked = 0

    async def slow_to_save() -> WorkflowRun:
        nonlocal asked
        while asked < 2:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                asked += 1
        raise asyncio.CancelledError

    call = asyncio.create_task(driven.run(KEY, "flow", slow_to_save))
    for _ in range(2):
        await asyncio.sleep(0.005)
        call.cancel()
    await asyncio.wait([call], timeout=10)
    assert call.cancelled()
    assert asked == 2


async def test_what_keeps_a_run_from_being_saved_is_told_instead_of_the_cancellation(driven: Drives) -> None:
    async def cannot_be_saved() -> WorkflowRun:
        try:
            await asyncio.sleep(30)
        finally:
            raise ZeroDivisionError

    call = asyncio.create_task(driven.run(KEY, "flow", cannot_be_saved))
    await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(ZeroDivisionError):
        await call


async def test_a_drive_that_says_of_itself_that_it_was_cancelled_does_not_begin_for_ever(driven: Drives) -> None:
    begun = 0

    async def cancelled() -> WorkflowRun:
        nonlocal begun
        begun += 1
        raise asyncio.CancelledError

    call = asyncio.create_task(driven.run(KEY, "flow", cancelled))
    await asyncio.wait([call], timeout=5)
    assert call.cancelled()
    assert begun == 1


def test_a_drive_that_was_cancelled_before_it_began_leaves_nothing_behind(driven: Drives, work: Work) -> None:
    """asyncio.run does that to all that is left over. A coroutine that nobody awaits would be a warning here, so an error."""

    async def main() -> None:
        call = asyncio.create_task(driven.run(KEY, "flow", work))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait([call])

    asyncio.run(main())
    assert work.begun == 0
    assert KEY not in driven


# --- from several threads ---


def test_threads_wait_for_the_run_of_another_ones_loop(driven: Drives, work: Work, threads: list[Thread]) -> None:
    calls = [thread.begin(driven.run(KEY, "flow", work)) for thread in threads for _ in range(2)]
    assert work.began.wait(15)
    work.go_on.set()
    assert [said(call) for call in calls] == ["WorkflowRun"] * 4
    assert work.begun == 1


def test_what_goes_wrong_in_another_thread_is_told_here(driven: Drives, threads: list[Thread]) -> None:
    began, go_on = threading.Event(), threading.Event()

    async def fails() -> WorkflowRun:
        began.set()
        while not go_on.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.001)
        raise ZeroDivisionError

    first = threads[0].begin(driven.run(KEY, "flow", fails))
    assert began.wait(15)
    second = threads[1].begin(driven.run(KEY, "flow", fails))
    go_on.set()
    assert {said(first), said(second)} == {"ZeroDivisionError"}


@pytest.mark.parametrize("first_to_go", [0, 1], ids=["the owner of the loop", "the other"])
def test_the_last_of_two_threads_callers_stops_it(
    first_to_go: int, driven: Drives, work: Work, threads: list[Thread], caplog: pytest.LogCaptureFixture
) -> None:
    calls = [threads[0].begin(driven.run(KEY, "flow", work))]
    assert work.began.wait(15)
    calls.append(threads[1].begin(driven.run(KEY, "flow", work)))
    time.sleep(0.01)
    threads[first_to_go].cancel(calls[first_to_go])
    assert said(calls[first_to_go]) == "cancelled"
    assert work.interrupted == 0, "somebody still wants its end"
    last = 1 - first_to_go
    threads[last].cancel(calls[last])
    assert said(calls[last]) == "cancelled"
    assert (work.begun, work.interrupted) == (1, 1), "it was saved before the last caller went"
    assert KEY not in driven
    time.sleep(0.02)
    assert caplog.records == [], "and nobody is told of it who does not wait any more"


def test_who_went_before_the_end_is_not_told_of_it(
    driven: Drives, work: Work, threads: list[Thread], caplog: pytest.LogCaptureFixture
) -> None:
    """Its loop may be closed by then."""
    first = threads[0].begin(driven.run(KEY, "flow", work))
    assert work.began.wait(15)
    gone = threads[1].begin(driven.run(KEY, "flow", work))
    time.sleep(0.01)
    threads[1].cancel(gone)
    assert said(gone) == "cancelled"
    threads[1].close()
    work.go_on.set()
    assert said(first) == "WorkflowRun"
    assert caplog.records == []


def test_of_two_threads_callers_that_are_cancelled_at_once_one_stops_it(
    driven: Drives, work: Work, threads: list[Thread]
) -> None:
    calls = [threads[0].begin(driven.run(KEY, "flow", work))]
    assert work.began.wait(15)
    calls.append(threads[1].begin(driven.run(KEY, "flow", work)))
    time.sleep(0.01)
    with driven._drives[KEY]._lock:  # so that each has seen that it was cancelled before the other has gone
        for thread, call in zip(threads, calls):
            thread.cancel(call)
        time.sleep(0.02)
    assert [said(call) for call in calls] == ["cancelled"] * 2
    until(lambda: work.interrupted)
    until(lambda: KEY not in driven)
    assert work.log == ["begun", "interrupted"]


def test_who_joins_in_the_moment_in_which_another_thread_stops_it_is_not_cancelled(
    driven: Drives, work: Work, threads: list[Thread]
) -> None:
    """Nobody cancelled that call: it drives the run itself, once it was saved."""
    first = threads[0].begin(driven.run(KEY, "flow", work))
    assert work.began.wait(15)
    other = threads[1].begin(driven.run(KEY, "flow", work))
    time.sleep(0.01)
    threads[0].cancel(first)
    assert said(first) == "cancelled"
    asked = threading.Event()
    loop: Any = threads[0].loop
    call_soon_threadsafe = loop.call_soon_threadsafe

    def watched(*arguments: Any, **options: Any) -> Any:
        handle = call_soon_threadsafe(*arguments, **options)
        asked.set()
        return handle

    async def joins() -> WorkflowRun:
        loop.call_soon_threadsafe = watched
        threads[1].cancel(other)
        assert asked.wait(15)  # this loop stands still: the request to stop waits in its queue
        loop.call_soon_threadsafe = call_soon_threadsafe
        return await driven.run(KEY, "flow", work)

    joined = threads[0].begin(joins())
    assert said(other) == "cancelled"
    work.go_on.set()
    assert said(joined) == "WorkflowRun"
    assert (work.interrupted, work.begun) == (1, 2)


def test_who_waits_for_a_loop_that_was_closed_drives_the_run_itself(
    driven: Drives, work: Work, threads: list[Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drives, "LOOK", 0.01)
    dead = asyncio.new_event_loop()
    first = dead.create_task(driven.run(KEY, "flow", work))
    dead.run_until_complete(asyncio.sleep(0.005))
    second = threads[0].begin(driven.run(KEY, "flow", work))
    time.sleep(0.02)
    assert work.begun == 1
    left_over = asyncio.all_tasks(dead)
    dead.close()
    work.go_on.set()
    assert said(second) == "WorkflowRun"
    assert work.begun == 2
    third = threads[1].begin(driven.run(KEY, "flow", work))
    assert said(third) == "WorkflowRun"
    first.get_coro().close()
    for task in left_over:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_nothing_is_driven_in_a_forked_child(driven: Drives, work: Work) -> None:
    call = asyncio.create_task(driven.run(KEY, "flow", work))
    await asyncio.sleep(0.005)
    driven._lock.acquire()  # as a thread might have at that moment
    child = os.fork()
    if child == 0:
        driven.after_fork()
        os._exit(KEY in driven or not driven._lock.acquire(blocking=False))
    driven._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222 - it ends at once
    assert KEY in driven
    work.go_on.set()
    await call
