"""Time-outs: of an attempt, of its heartbeat, of a run. The clock stands still until a test says otherwise; threads are real."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    InvalidOptionError,
    RetryPolicy,
    RunTimeoutError,
    SQLiteStore,
    TaskTimeoutError,
    WorkflowRun,
)
from .attempts import until
from .conftest import returns, run, states_of
from .held_clock import HeldClock, settle


@pytest.fixture
def held() -> HeldClock:
    return HeldClock()


@pytest.fixture
def flow(held: HeldClock) -> AsyncFlow:
    return AsyncFlow("timed", clock=held, grace_period=5)


async def driving(flow: AsyncFlow, **options: Any) -> asyncio.Task[WorkflowRun]:
    """Have the run "r" of the flow driven beside the test; it has begun."""
    flow.init_run(run_id="r")
    drive = asyncio.create_task(flow.run_until_complete("r", **options))
    await until(lambda: drive.done() or flow.store.load("r").state != "scheduled")
    return drive


# --- coroutines ---


async def test_a_coroutine_that_takes_too_long_is_cancelled_and_has_failed(flow: AsyncFlow, held: HeldClock) -> None:
    tidied = False

    @flow.task("slow", timeout=timedelta(seconds=10))
    async def slow(ctx: Context) -> None:
        nonlocal tidied
        try:
            await asyncio.Event().wait()
        finally:
            tidied = ctx.cancelled

    flow.add_task_definition("after", returns(1), dependencies=["slow"])
    flow.add_task_definition("beside", returns(2))
    drive = await driving(flow)
    await held.forward(9.9)
    assert states_of(flow.store.load("r")) == {"slow": "running", "after": "scheduled", "beside": "success"}
    await held.forward(0.2)
    await until(drive.done)  # and not for ever: with a fault it would hang
    ended = flow.store.load("r")
    assert states_of(ended) == {"slow": "failed", "after": "skipped", "beside": "success"}
    assert tidied
    task = ended.tasks["slow"]
    assert task.reason is not None and "TaskTimeoutError: Attempt 0 of task 'slow' did not end within 10 seconds" in task.reason
    assert task.end_date is not None and task.start_date is not None
    assert (task.end_date - task.start_date).total_seconds() == pytest.approx(10)


async def test_each_attempt_has_its_own_time_and_a_retry_follows(flow: AsyncFlow, held: HeldClock) -> None:
    tries: list[float] = []

    @flow.task("slow", timeout=3, retry=RetryPolicy(max_retries=2, delay=1, retry_on=TimeoutError))
    async def slow(ctx: Context) -> str:
        tries.append(held.seconds)
        if ctx.attempt_number < 2:
            await asyncio.Event().wait()
        return "at last"

    drive = await driving(flow)
    await held.forward(20)
    await until(drive.done)
    assert tries == pytest.approx([0, 4, 8])
    assert flow.store.load("r").tasks["slow"].output == "at last"
    assert [attempt.result.value for attempt in flow.store.list_attempts("r")] == ["failed", "failed", "success"]


async def test_who_ends_at_the_very_moment_has_ended_in_time(flow: AsyncFlow, held: HeldClock) -> None:
    @flow.task("close", timeout=3)
    async def close(ctx: Context) -> str:
        await held.sleep(3)
        return "just so"

    drive = await driving(flow)
    await held.forward(10)
    await until(drive.done)
    assert flow.store.load("r").tasks["close"].output == "just so"


async def test_a_coroutine_that_will_not_be_cancelled_is_left_behind_after_the_grace_period(
    flow: AsyncFlow, held: HeldClock
) -> None:
    released = asyncio.Event()

    @flow.task("deaf", timeout=3)
    async def deaf(ctx: Context) -> str:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass
        return "late"

    drive = await driving(flow)
    await held.forward(7.9)
    assert states_of(flow.store.load("r")) == {"deaf": "running"}
    await held.forward(0.2)
    await until(drive.done)
    released.set()
    await settle()
    assert states_of(flow.store.load("r")) == {"deaf": "failed"}


async def test_what_comes_after_the_time_is_over_does_not_count(flow: AsyncFlow, held: HeldClock) -> None:
    @flow.task("stubborn", timeout=3)
    async def stubborn(ctx: Context) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "anyway"
        raise AssertionError

    drive = await driving(flow)
    await held.forward(4)
    await until(drive.done)
    task = flow.store.load("r").tasks["stubborn"]
    assert (task.state, task.output) == ("failed", None)


async def test_a_hundred_thousand_seconds_of_time_out_leave_no_alarm_behind(flow: AsyncFlow) -> None:
    for number in range(300):
        flow.add_task_definition(f"t{number}", returns(number), timeout=100_000 + number)
    assert (await run(flow)).state == "success"
    await settle()
    assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}  # type: ignore[union-attr]


async def test_a_task_that_is_cancelled_while_its_time_is_over_is_not_tried_again(flow: AsyncFlow, held: HeldClock) -> None:
    released = asyncio.Event()

    @flow.task("deaf", timeout=3, max_retries=5)
    async def deaf(ctx: Context) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass

    drive = await driving(flow)
    await held.forward(4)
    assert flow.cancel_task("r", "deaf")
    await held.forward(5)
    await until(drive.done)
    released.set()
    assert states_of(drive.result()) == {"deaf": "cancelled"}


# --- threads ---


async def test_a_thread_that_takes_too_long_is_given_up_at_once_and_its_late_result_thrown_away(
    held: HeldClock, tmp_path: Path
) -> None:
    flow = AsyncFlow("timed", SQLiteStore(tmp_path / "runs.db"), clock=held, max_threads=1)
    begun, released, came_back = threading.Event(), threading.Event(), threading.Event()

    @flow.task("hangs", timeout=3)
    def hangs(ctx: Context) -> str:
        begun.set()
        released.wait(30)
        came_back.set()
        return "late"

    flow.add_task_definition("next", lambda ctx: "runs in another thread", dependencies=[])
    drive = await driving(flow)
    await until(begun.is_set)
    await held.forward(3.1)
    await until(drive.done)
    assert states_of(flow.store.load("r")) == {"hangs": "failed", "next": "success"}
    released.set()
    assert await asyncio.to_thread(came_back.wait, 10)
    await asyncio.sleep(0.05)
    assert flow.store.load("r").tasks["hangs"].output is None
    flow.store.close()


async def test_a_function_can_look_whether_it_is_to_end(flow: AsyncFlow, held: HeldClock) -> None:
    begun, noticed = threading.Event(), threading.Event()

    @flow.task("polite", timeout=3)
    def polite(ctx: Context) -> None:
        begun.set()
        while not ctx.cancelled:
            noticed.wait(0.001)
        noticed.set()

    drive = await driving(flow)
    await until(begun.is_set)
    await held.forward(3.1)
    await until(drive.done)
    assert await asyncio.to_thread(noticed.wait, 10)


def test_a_thread_that_hangs_does_not_hold_up_the_end_of_the_program(tmp_path: Path) -> None:
    package = AsyncFlow.__module__.rpartition(".")[0]
    script = tmp_path / "script.py"
    script.write_text(
        f"import threading\nfrom {package} import AsyncFlow\n"
        "flow = AsyncFlow('f')\n"
        "@flow.task('hangs', timeout=0.05)\ndef hangs(ctx): threading.Event().wait()\n"
        "print(flow.run().tasks['hangs'].reason)\n"
    )
    root = Path(__file__).resolve().parents[len(package.split(".")) + 1]
    done = subprocess.run([sys.executable, str(script)], cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, timeout=50)
    assert b"TaskTimeoutError" in done.stdout, done


async def test_a_thread_that_was_given_up_is_tried_again_after_its_delay(flow: AsyncFlow, held: HeldClock) -> None:
    """Nothing else happens in the turn in which it is given up: the wait must be noted down all the same."""
    released = threading.Event()

    @flow.task("hangs", timeout=3, max_retries=1, retry_delay=2)
    def hangs(ctx: Context) -> str:
        if ctx.attempt_number == 0:
            released.wait(30)
        return "at last"

    drive = await driving(flow)
    await until(lambda: flow.store.load("r").tasks["hangs"].state == "running")
    await held.forward(3.1)
    assert states_of(flow.store.load("r")) == {"hangs": "scheduled"}
    await held.forward(2)
    await until(drive.done)
    released.set()
    assert flow.store.load("r").tasks["hangs"].output == "at last"


async def test_a_subflow_ends_with_the_thread_that_was_given_up_in_it(held: HeldClock) -> None:
    """Nothing else happens in the turn in which its last task is given up: its own task must hear of it all the same."""
    released = threading.Event()
    inner = AsyncFlow("inner").add_task_definition("hangs", lambda ctx: bool(released.wait(30)), timeout=3)
    flow = AsyncFlow("timed", clock=held).add_subflow_definition("in", inner).add_task_definition("beside", returns(1))
    drive = await driving(flow)
    await until(
        lambda: (
            "in.hangs" in (found := flow.store.load("r").get_all_tasks_recursive(flow.store))
            and found["in.hangs"].state == "running"
        )
    )
    await held.forward(3.1)
    await until(drive.done)
    released.set()
    assert states_of(flow.store.load("r")) == {"in": "failed", "beside": "success"}


async def test_the_time_of_an_attempt_counts_from_its_beginning_and_not_while_its_start_is_being_stored(
    flow: AsyncFlow, held: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the store for longer than the time-out: the task has not been late."""
    commit = flow.store.commit

    def slow(changes: Changes) -> None:
        held.pass_time(60)
        commit(changes)

    monkeypatch.setattr(flow.store, "commit_at_once", lambda changes: False)

    @flow.task(timeout=3, heartbeat_timeout=2)
    async def quick(ctx: Context) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    flow.init_run(run_id="r")
    monkeypatch.setattr(flow.store, "commit", slow)
    ended = await flow.run_until_complete("r")
    assert states_of(ended) == {"quick": "success"}


# --- heartbeats ---


async def test_a_task_that_is_alive_but_stuck_is_caught_by_its_silence(flow: AsyncFlow, held: HeldClock) -> None:
    beat = asyncio.Event()

    @flow.task("works", heartbeat_timeout=2)
    async def works(ctx: Context) -> None:
        while True:
            await beat.wait()
            beat.clear()
            ctx.heartbeat()

    drive = await driving(flow)
    for _ in range(5):
        await held.forward(1.5)
        beat.set()
        await settle()
    assert states_of(flow.store.load("r")) == {"works": "running"}
    await held.forward(2.1)
    await until(drive.done)
    reason = flow.store.load("r").tasks["works"].reason
    assert reason is not None and "gave no sign of life for 2 seconds (heartbeat_timeout=" in reason


async def test_a_time_out_counts_although_the_heart_beats(flow: AsyncFlow, held: HeldClock) -> None:
    @flow.task("lively", timeout=5, heartbeat_timeout=2)
    async def lively(ctx: Context) -> None:
        while True:
            ctx.heartbeat()
            await held.sleep(1)

    drive = await driving(flow)
    await held.forward(5.5)
    await until(drive.done)
    reason = flow.store.load("r").tasks["lively"].reason
    assert reason is not None and "did not end within 5 seconds" in reason


# --- runs ---


async def test_a_run_that_takes_too_long_is_stopped_and_can_be_continued(flow: AsyncFlow, held: HeldClock) -> None:
    patient = False

    @flow.task("slow")
    async def slow(ctx: Context) -> str:
        if not patient:
            await asyncio.Event().wait()
        return "done"

    flow.add_task_definition("quick", returns(1))
    call = await driving(flow, timeout=timedelta(minutes=1))
    await held.forward(61)
    with pytest.raises(RunTimeoutError) as caught:
        await call
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.run_id, caught.value.seconds) == ("r", 60.0)
    stopped = flow.store.load("r")
    assert (stopped.state, states_of(stopped)) == ("scheduled", {"slow": "scheduled", "quick": "success"})
    patient = True
    assert (await flow.run_until_complete("r", timeout=60)).state == "success"


async def test_of_two_who_wait_for_a_run_the_patient_one_gets_it(flow: AsyncFlow, held: HeldClock) -> None:
    go_on = asyncio.Event()

    @flow.task("slow")
    async def slow(ctx: Context) -> str:
        await go_on.wait()
        return "done"

    hasty = await driving(flow, timeout=1)
    patient = asyncio.create_task(flow.run_until_complete("r", timeout=100))
    await held.forward(2)
    with pytest.raises(RunTimeoutError):
        await hasty
    go_on.set()
    assert (await patient).state == "success"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon", True])
async def test_a_time_out_that_makes_no_sense_is_refused_and_nothing_is_driven(flow: AsyncFlow, timeout: float) -> None:
    flow.add_task_definition("a", returns(1))
    run_id = flow.init_run()
    with pytest.raises(InvalidOptionError, match="timeout"):
        await flow.run_until_complete(run_id, timeout=timeout)
    assert flow.store.load(run_id).state == "scheduled"


def test_the_error_says_which_attempt_of_which_task_and_how_long() -> None:
    error = TaskTimeoutError("load", 2.5, 3)
    assert isinstance(error, TimeoutError)
    assert (error.task_id, error.seconds, error.attempt_number, error.silent) == ("load", 2.5, 3, False)
    assert str(error) == "Attempt 3 of task 'load' did not end within 2.5 seconds (timeout=)."
