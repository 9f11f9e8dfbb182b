"""Virtual time where it is asked much of: tasks that would hang for ever, runs side by side in one loop, loops that live long."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from .. import AsyncFlow, Context
from ..testing import VirtualClock, assert_succeeded, hangs, run_flow, run_flow_async, run_task
from ..testing import clock as clock_room
from .conftest import returns


def waiting(seconds: float) -> AsyncFlow:
    """A flow whose one task waits so long."""
    flow = AsyncFlow("waiting")

    async def wait(ctx: Context) -> float:
        await asyncio.sleep(seconds)
        return seconds

    flow.add_task_definition("wait", wait)
    return flow


async def never(ctx: Context) -> None:
    """Wait for what nobody does, whoever asks to stop the first time."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is told at once, and not when the patience with threads of strangers is over."""
    monkeypatch.setattr(clock_room, "PATIENCE", 0.05)


@pytest.mark.usefixtures("_impatient")
def test_a_flow_that_would_hang_for_ever_ends_and_the_message_names_the_task() -> None:
    flow = AsyncFlow("stuck")
    flow.add_task_definition("first", returns(1))
    flow.add_task_definition("second", never, dependencies=["first"])
    with pytest.raises(TimeoutError, match=r"run 'test' hangs in 'second'.*time-out"):
        run_flow(flow)
    with pytest.raises(TimeoutError, match="'first'"):
        run_flow(flow, fakes={"first": hangs()})
    with pytest.raises(TimeoutError, match="'second'"):
        run_task(flow, "second")


@pytest.mark.usefixtures("_impatient")
async def test_so_it_does_in_a_running_loop_which_goes_on_as_before() -> None:
    with pytest.raises(TimeoutError, match="hangs in 'wait'"):
        await asyncio.wait_for(run_flow_async(waiting(1), fakes={"wait": hangs()}), None)
    task = asyncio.current_task()
    assert task is not None
    assert getattr(task, "cancelling", int)() == 0  # what was asked of it has been answered
    assert (await run_flow_async(waiting(3))).clock.elapsed == 3


@pytest.mark.usefixtures("_impatient")
async def test_a_test_of_its_own_that_goes_by_a_clock_does_not_hang_either() -> None:
    with pytest.raises(TimeoutError, match="never comes"), VirtualClock().rules():
        await asyncio.Event().wait()


def test_a_thread_that_nobody_knows_of_gets_its_time_to_wake_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(ctx: Context) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        tell = asyncio.get_running_loop().call_soon_threadsafe

        def work() -> None:
            if not is_mute:
                tell(answer.set_result, "told")
            else:
                release.wait(30)

        threading.Thread(target=work).start()
        return await answer

    flow = AsyncFlow("asking")
    flow.add_task_definition("ask", ask)
    is_mute, release = False, threading.Event()
    assert run_flow(flow).output("ask") == "told"
    is_mute = True
    monkeypatch.setattr(clock_room, "PATIENCE", 0.01)
    with pytest.raises(TimeoutError, match="'ask'"):
        run_flow(flow)
    release.set()


async def test_runs_side_by_side_in_one_loop_share_its_time() -> None:
    loop = asyncio.get_running_loop()
    selector, began = vars(loop)["_selector"], time.monotonic()
    long, short = await asyncio.gather(run_flow_async(waiting(3600)), run_flow_async(waiting(60)))
    assert_succeeded(long)
    assert_succeeded(short)
    assert long.clock is short.clock
    assert (long.clock.elapsed, time.monotonic() - began < 10) == (3600, True)
    assert vars(loop)["_selector"] is selector
    with VirtualClock().rules(), pytest.raises(RuntimeError, match="another VirtualClock"):
        await run_flow_async(waiting(1), clock=VirtualClock())


async def test_a_loop_that_lives_long_goes_by_any_number_of_clocks() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(1500):
        with VirtualClock().rules():
            await asyncio.sleep(1)
    began = loop.time()
    assert began - time.monotonic() > 1400
    await asyncio.sleep(0)
    assert loop.time() >= began


@pytest.mark.parametrize("stdout", [None, subprocess.PIPE], ids=["alone", "piped"])
def test_a_child_process_is_real_until_it_has_ended(stdout: int | None) -> None:
    async def ask(ctx: Context) -> int:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(input())", stdin=subprocess.PIPE, stdout=stdout)
        await asyncio.wait_for(child.communicate(b"five"), 3600)
        return await asyncio.wait_for(child.wait(), 3600)

    flow = AsyncFlow("children")
    flow.add_task_definition("ask", ask)
    result = run_flow(flow)
    assert (result.output("ask"), result.clock.elapsed < 600) == (0, True)


def test_what_is_real_is_added_to_the_clock_where_no_timer_runs() -> None:
    flow = AsyncFlow("threads")
    flow.add_task_definition("sleep", lambda ctx: time.sleep(0.05))
    assert run_flow(flow, real_executors=True).clock.elapsed >= 0.04
