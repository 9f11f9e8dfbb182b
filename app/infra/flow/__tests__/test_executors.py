"""Executors by themselves: what they deliver, what `stop` means to each, and what a context is wherever its task runs."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from .. import Context, NoCurrentTaskError, current_context
from ..executors import Call, CoroutineExecutor, Executor, InlineExecutor, ThreadExecutor
from ..remote_executors import SubmitExecutor
from . import worker_tasks
from .attempts import Tray, call_of, live_run, until

color: contextvars.ContextVar[str] = contextvars.ContextVar("color")


@pytest.fixture
def tray() -> Tray:
    return Tray()


# --- what a task finds around it ---


def below() -> str:
    return current_context().task_id


async def below_later() -> str:
    await asyncio.sleep(0)
    return await asyncio.to_thread(below)


@pytest.mark.parametrize("kind", [CoroutineExecutor, ThreadExecutor, InlineExecutor])
async def test_the_context_and_the_callers_variables_are_known_anywhere_below_a_task(
    kind: Callable[[Tray], Executor], tray: Tray
) -> None:
    """Helpers that were handed nothing find the context; what the task sets in its variables, nobody else sees."""

    async def coroutine(ctx: Context) -> list[str]:
        assert current_context() is ctx
        return [await below_later(), color.get()]

    def plain(ctx: Context) -> list[str]:
        assert current_context() is ctx
        found = [below(), color.get()]
        color.set("red")
        return found

    color.set("blue")
    executor = kind(tray)
    executor.start(call_of(coroutine if kind is CoroutineExecutor else plain))
    outcome = await tray.next()
    assert outcome.output == '["only","blue"]', outcome.failure
    assert color.get() == "blue"
    with pytest.raises(NoCurrentTaskError):
        current_context()
    executor.close()


def test_outside_of_a_task_there_is_no_context() -> None:
    """The error is a LookupError too, as that of a ContextVar is."""
    with pytest.raises(LookupError, match="No task is running here"):
        current_context()


async def test_a_heartbeat_is_kept_by_the_clock_of_the_run(tray: Tray) -> None:
    """It is the run's monotonic clock that dates it, so that it can be compared."""
    call = call_of(lambda ctx: ctx.heartbeat())
    call.key[0]._clock.pass_time(42)
    assert repr(call.context._last_beat) == "None"
    executor = ThreadExecutor(tray)
    executor.start(call)
    assert (await tray.next()).failure is None
    assert call.context._last_beat == 42
    executor.close()


# --- coroutines ---


async def waits(ctx: Context) -> None:
    await asyncio.sleep(600)


@pytest.mark.parametrize("who", ["stop", "cancel", "a stranger"])
async def test_a_coroutine_that_is_cancelled_before_its_first_step_is_interrupted(who: str, tray: Tray) -> None:
    """Nothing of it runs, and its outcome is delivered all the same, whoever cancelled it."""
    executor = CoroutineExecutor(tray)
    call = call_of(waits)
    executor.start(call)
    if who == "stop":
        assert executor.stop(call)
    elif who == "cancel":
        executor.cancel()
    else:
        next(task for task in asyncio.all_tasks() if task.get_name() == "nightly.only").cancel()
    await executor.wait(30)
    outcome = await tray.next()
    assert (outcome.call, outcome.interrupted, outcome.failure) == (call, True, None)
    assert repr(executor) == "<CoroutineExecutor, 0 under way>"
    assert tray.is_empty()


async def test_a_coroutine_that_is_stopped_gets_a_cancelled_error(tray: Tray) -> None:
    """One of two is stopped; its outcome says so, and the other goes on."""
    executor = CoroutineExecutor(tray)
    first, second = call_of(waits), call_of(waits)
    executor.start(first)
    executor.start(second)
    await asyncio.sleep(0)
    assert executor.stop(first)
    outcome = await tray.next()
    assert (outcome.call, outcome.cancelled, first.context.cancelled) == (first, True, True)
    assert executor.stop(first) is False
    assert executor.stop(call_of(waits)) is False
    assert (repr(executor), second.context.cancelled) == ("<CoroutineExecutor, 1 under way>", False)
    executor.cancel()
    await executor.wait(30)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
@pytest.mark.parametrize("ends_at_once", [True, False])
async def test_a_coroutine_that_begins_eagerly_is_delivered_once(ends_at_once: bool, tray: Tray) -> None:
    """With the loop's eager task factory too, an attempt has one outcome."""

    async def task(ctx: Context) -> int:
        if not ends_at_once:
            await asyncio.sleep(0)
        return 1

    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - it starts with 3.12
    try:
        executor = CoroutineExecutor(tray)
        executor.start(call_of(task))
    finally:
        loop.set_task_factory(None)
    assert (await tray.next()).output == "1"
    for _ in range(3):
        await asyncio.sleep(0)
    assert tray.is_empty()


# --- inline ---


async def test_an_inline_function_is_called_by_the_loop_and_not_by_start(tray: Tray) -> None:
    """`start` returns before anything of the user's has run, and each function is a turn of the loop's own."""
    ran: list[int] = []
    executor = InlineExecutor(tray)
    for number in range(3):
        executor.start(call_of(partial(lambda number, ctx: ran.append(number), number)))
    assert (ran, repr(executor)) == ([], "<InlineExecutor, 3 under way>")
    await asyncio.sleep(0)
    assert ran == [0, 1, 2]
    assert [(await tray.next()).output for _ in range(3)] == ["null"] * 3


async def test_an_inline_function_that_fails_is_a_failed_attempt(tray: Tray) -> None:
    executor = InlineExecutor(tray)
    executor.start(call_of(lambda ctx: 1 / 0))
    outcome = await tray.next()
    assert outcome.failure is not None
    assert outcome.failure.type_name == "ZeroDivisionError"


def test_ctrl_c_in_an_inline_function_stops_the_program(tray: Tray) -> None:
    """It comes out of the loop, and the attempt is interrupted."""

    def pressed(ctx: Context) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        InlineExecutor(tray).start(call_of(pressed))
        await asyncio.sleep(600)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert asyncio.run(tray.next()).interrupted


@pytest.mark.parametrize("all_of_them", [True, False])
async def test_an_inline_function_that_has_not_begun_can_be_stopped(all_of_them: bool, tray: Tray) -> None:
    """It never runs, and is interrupted."""
    executor = InlineExecutor(tray)
    call = call_of(lambda ctx: 1)
    executor.start(call)
    if all_of_them:
        executor.cancel()
        await executor.wait(1)
    else:
        assert executor.stop(call)
    outcome = await tray.next()
    assert (outcome.interrupted, call.context.cancelled, executor.stop(call)) == (True, True, False)
    await asyncio.sleep(0)
    assert tray.is_empty()


async def test_an_inline_function_that_stops_itself_returns_when_it_returns(tray: Tray) -> None:
    """It can see that it was asked to end; its outcome is what it makes of that."""
    executor = InlineExecutor(tray)

    def stops(ctx: Context) -> list[bool]:
        return [ctx.cancelled, executor.stop(call), ctx.cancelled]

    call = call_of(stops)
    executor.start(call)
    assert (await tray.next()).output == "[false,true,true]"
    assert tray.is_empty()


async def test_a_closed_inline_executor_calls_nothing_more(tray: Tray) -> None:
    executor = InlineExecutor(tray)
    executor.start(call_of(lambda ctx: 1))
    executor.close()
    await asyncio.sleep(0)
    assert tray.is_empty()


# --- threads ---


class Door:
    """A task that waits until it is let go, and notes the thread it runs in."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self, ctx: Context) -> str:
        self.thread = threading.current_thread()
        self.entered.set()
        self.opened.wait(60)
        return "late"


async def test_a_thread_that_hangs_is_given_up_and_another_takes_its_place(tray: Tray) -> None:
    """`stop` gives its capacity back at once; when the function returns after all, nobody hears of it and its thread ends."""
    executor = ThreadExecutor(tray, 1)
    door = Door()
    hanging = call_of(door)
    executor.start(hanging)
    await until(door.entered.is_set)
    assert executor.stop(hanging) is False
    assert (hanging.context.cancelled, repr(executor)) == (True, "<ThreadExecutor, 0 under way in 0 threads>")
    assert executor.stop(hanging) is False

    executor.start(call_of(lambda ctx: "next"))
    assert (await tray.next()).output == '"next"'
    door.opened.set()
    assert door.thread is not None
    door.thread.join(30)
    assert not door.thread.is_alive()
    assert tray.is_empty()
    assert repr(executor) == "<ThreadExecutor, 0 under way in 1 threads>"
    executor.start(call_of(lambda ctx: "more"))
    assert (await tray.next()).output == '"more"'
    executor.close()


@pytest.mark.parametrize("closed", [False, True])
async def test_a_call_that_is_given_up_before_a_thread_takes_it_never_runs(closed: bool, tray: Tray) -> None:
    """The thread that would have run it goes on with others; or ends, if the executor was closed meanwhile."""
    executor = ThreadExecutor(tray, 1)
    door = Door()
    ran: list[str] = []
    executor.start(call_of(door))
    await until(door.entered.is_set)
    waiting = call_of(lambda ctx: ran.append("it ran"))
    executor.start(waiting)
    assert executor.stop(waiting) is False
    if closed:
        executor.close()
    else:
        executor.start(call_of(lambda ctx: "next"))
    door.opened.set()
    delivered = {(await tray.next()).output for _ in range(1 if closed else 2)}
    assert delivered == ({'"late"'} if closed else {'"late"', '"next"'})
    assert ran == []
    if closed:
        assert door.thread is not None
        door.thread.join(30)
        assert not door.thread.is_alive()
    executor.close()


async def test_a_function_that_is_told_to_end_before_a_thread_takes_it_is_not_begun(tray: Tray) -> None:
    executor, door, ran = ThreadExecutor(tray, 1), Door(), list[str]()
    executor.start(call_of(door))
    await until(door.entered.is_set)
    executor.start(call_of(lambda ctx: ran.append("it ran")))
    executor.cancel()
    door.opened.set()
    assert [(outcome.output, outcome.interrupted) for outcome in (await tray.next(), await tray.next())] == [
        ('"late"', False),
        (None, True),
    ]
    assert ran == []
    executor.close()


async def test_a_function_in_a_thread_can_see_that_all_are_asked_to_end(tray: Tray) -> None:
    """`cancel` cannot end it; it may look, and return early."""

    def looks(ctx: Context) -> str:
        entered.set()
        while not ctx.cancelled:
            pass
        return "early"

    entered = threading.Event()
    executor = ThreadExecutor(tray)
    executor.start(call_of(looks))
    await until(entered.is_set)
    executor.cancel()
    assert (await tray.next()).output == '"early"'
    executor.close()


# --- somebody else's executor ---


class Refusing:
    """An executor whose `submit` raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        raise self._error


class Keeping:
    """An executor that never runs anything by itself; has only what a future needs."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.work: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.work.append(lambda: fn(*args))
        self.futures.append(future)
        return future


async def test_an_attempt_runs_on_anybodys_executor(tray: Tray) -> None:
    """What the task returns, changes and logs comes back; the logs are redacted and kept here."""
    live = live_run(
        worker_tasks.sees,
        {"near": [1, 2], "far": 3},
        depends_on=["near"],
        params={"day": "monday", "gone": 1},
        redact=lambda text: text.replace("hunter2", "***"),
    )
    with ThreadPoolExecutor(1) as pool:
        executor = SubmitExecutor(tray, pool)
        executor.start(call_of(worker_tasks.sees, live))
        outcome = await tray.next()
    assert outcome.failure is None
    seen = live.codec.decode(outcome.output or "")
    assert seen["run"] == ("run-1", "nightly", "monday")
    assert (seen["tasks"], seen["near"], seen["current"]) == (["near", "only"], [1, 2], True)
    assert outcome.params == {"seen": '"monday"', "gone": None}
    assert [line[1:] for line in live.codec.decode(outcome.logs or "")] == [[20, "the key is ***"], [30, "careful"]]
    assert outcome.call.context._last_beat is None
    executor.close()
    assert repr(executor) == "<SubmitExecutor of ThreadPoolExecutor, 0 under way>"


@pytest.mark.parametrize("error", [RuntimeError("it was shut down"), KeyboardInterrupt(), BrokenExecutor("all dead")])
async def test_a_submit_that_raises_fails_the_attempt(error: BaseException, tray: Tray) -> None:
    """Whatever it raises, it does not come out of `start`."""
    executor = SubmitExecutor(tray, Refusing(error))
    executor.start(call_of(worker_tasks.one))
    outcome = await tray.next()
    assert outcome.failure is not None
    assert type(error).__name__ in outcome.failure.type_name
    assert "under way" in repr(executor)
    executor.close()


class KilledWorker(Exception):
    """As a cluster says it."""


@pytest.mark.parametrize("error", [BrokenExecutor("a worker died"), KilledWorker("attempted 4 times")])
async def test_an_attempt_that_is_lost_in_a_cluster_fails_with_the_clusters_reason(error: Exception, tray: Tray) -> None:
    """It is one failed attempt, as if the task had raised it."""
    keeping = Keeping()
    executor = SubmitExecutor(tray, keeping)
    executor.start(call_of(worker_tasks.one))
    await until(lambda: keeping.futures)
    keeping.futures[0].set_exception(error)
    outcome = await tray.next()
    assert outcome.failure is not None
    assert str(error) in outcome.failure.summary
    executor.close()


async def test_an_attempt_that_the_cluster_cancels_fails(tray: Tray) -> None:
    """Nobody here asked for that, so it is no interruption."""
    keeping = Keeping()
    executor = SubmitExecutor(tray, keeping)
    executor.start(call_of(worker_tasks.one))
    await until(lambda: keeping.futures)
    keeping.futures[0].cancel()
    outcome = await tray.next()
    assert outcome.failure is not None
    assert outcome.failure.type_name.endswith("AttemptWithdrawnError")
    assert "the Keeping cancelled it" in outcome.failure.message
    assert not outcome.cancelled
    executor.close()


@pytest.mark.parametrize("began", [True, False])
async def test_an_attempt_elsewhere_can_only_be_given_up(began: bool, tray: Tray) -> None:
    """`stop` cancels its future, and a result that comes all the same is dropped."""
    keeping = Keeping()
    executor = SubmitExecutor(tray, keeping)
    call = call_of(worker_tasks.one)
    executor.start(call)
    await until(lambda: executor._futures[call] is not None)
    if began:
        keeping.futures[0].set_running_or_notify_cancel()
    assert executor.stop(call) is False
    assert keeping.futures[0].cancelled() is not began
    if began:
        keeping.futures[0].set_result(keeping.work[0]())
    assert executor.stop(call) is False
    assert tray.is_empty()
    executor.close()


async def test_a_submit_that_hangs_keeps_nobody_waiting_once_it_is_given_up(tray: Tray) -> None:
    """It is made in a thread, never on the event loop; what it gives late is cancelled."""
    door = threading.Event()
    entered = threading.Event()
    futures: list[Future[Any]] = []

    class Hanging(Keeping):
        def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
            if not entered.is_set():
                entered.set()
                door.wait(60)
            future = super().submit(fn, *args)
            futures.append(future)
            return future

    executor = SubmitExecutor(tray, Hanging())
    hanging, next_one = call_of(worker_tasks.one), call_of(worker_tasks.one)
    executor.start(hanging)
    await until(entered.is_set)
    executor.start(next_one)
    executor.stop(hanging)
    executor.start(call_of(worker_tasks.one))
    await until(lambda: len(futures) == 2)
    door.set()
    await until(lambda: len(futures) == 3)
    await until(futures[2].cancelled)
    assert tray.is_empty()
    executor.close()
    assert all(future.cancelled() for future in futures)


async def test_what_cannot_be_pickled_is_named_where_the_executor_pickles(tray: Tray) -> None:
    """A pool of processes says no more than that pickling failed; the failure says what to do."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        executor = SubmitExecutor(tray, pool)
        executor.start(call_of(lambda ctx: 1))
        outcome = await tray.next()
        assert outcome.failure is not None
        assert "it is a lambda, which has no name" in outcome.failure.message
        executor.start(call_of(worker_tasks.later))
        assert (await tray.next()).output == '"only"'
        executor.close()


def test_who_is_asked_to_stop_what_it_does_not_know_does_nothing(tray: Tray) -> None:
    """Every executor answers False."""
    call: Call = call_of(worker_tasks.one)
    executors: list[Executor] = [
        CoroutineExecutor(tray),
        InlineExecutor(tray),
        ThreadExecutor(tray),
        SubmitExecutor(tray, Keeping()),
    ]
    assert [executor.stop(call) for executor in executors] == [False] * 4
    assert not call.context.cancelled
