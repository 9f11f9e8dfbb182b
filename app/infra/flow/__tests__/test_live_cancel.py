"""Cancelling what is being driven: from the same loop, from a thread, from another process; whole runs, tasks, subflows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from .. import (
    Ask,
    AsyncFlow,
    Changes,
    Context,
    RunFailedError,
    RunFinished,
    SQLiteStore,
    Store,
    StoreError,
    TaskCancelled,
    UnknownTaskError,
    WorkflowRun,
)
from .attempts import until
from .conftest import events_of, make_store, returns, states_of
from .held_clock import HeldClock, settle


async def never(ctx: Context) -> None:
    """A task that waits for ever."""
    await asyncio.Event().wait()


def script(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has all public names."""
    package = AsyncFlow.__module__.rpartition(".")[0]
    root = Path(__file__).resolve().parents[len(package.split(".")) + 1]
    source = f"from {package} import *\n{text}"
    return subprocess.run([sys.executable, "-c", source], cwd=root, capture_output=True, text=True, timeout=50)


async def driving(flow: AsyncFlow, *tasks: str, **options: Any) -> asyncio.Task[WorkflowRun]:
    """Have the run "r" driven beside the test; so far that these tasks (or all that wait for nothing) are running."""
    drive = asyncio.create_task(flow.run_until_complete(flow.init_run(run_id="r"), **options))

    def begun() -> bool:
        if drive.done():
            return True
        found = flow.store.load("r").get_all_tasks_recursive(flow.store)
        wanted = tasks or [task_id for task_id, task in flow.definition.tasks.items() if not task.depends_on]
        return all(task_id in found and found[task_id].state != "scheduled" for task_id in wanted)

    await until(begun)
    await settle()
    return drive


class Deaf:
    """A coroutine that does not end when it is cancelled, but when it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def task(self, ctx: Context) -> None:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                pass


# --- whole runs ---


async def test_a_run_that_is_driven_here_ends_cancelled(store: Store) -> None:
    flow = AsyncFlow("f", store)
    flow.add_task_definition("done", returns(1))
    flow.add_task_definition("never", never, dependencies=["done"])
    flow.add_task_definition("after", returns(2), dependencies=["never"])
    told = events_of(flow)
    drive = await driving(flow, "done", "never")
    assert flow.cancel("r") is True
    ended = await asyncio.wait_for(drive, 10)
    assert ended.state == "cancelled"
    assert states_of(ended) == {"done": "success", "never": "cancelled", "after": "cancelled"}
    assert ended == store.load("r")
    with pytest.raises(RunFailedError, match="cancelled"):
        ended.raise_for_failure()
    assert [event.state for event in told if isinstance(event, RunFinished)] == ["cancelled"]
    assert [event.task_id for event in told if isinstance(event, TaskCancelled)] == ["never", "after"]
    assert [attempt.result.value for attempt in store.list_attempts("r", "never")] == ["cancelled"]
    assert flow.cancel("r") is False
    assert store.check() == []


async def test_everybody_who_waits_gets_the_cancelled_run() -> None:
    flow = AsyncFlow("f").add_task_definition("never", never)
    drive = await driving(flow)
    other = asyncio.create_task(flow.run_until_complete("r"))
    await settle()
    flow.cancel("r")
    assert [(await call).state for call in (drive, other)] == ["cancelled", "cancelled"]


async def test_a_cancelled_run_is_brought_back_by_hand() -> None:
    flow = AsyncFlow("f")
    wait = True

    @flow.task
    async def slow(ctx: Context) -> str:
        if wait:
            await asyncio.Event().wait()
        return "done"

    flow.add_task_definition("after", returns(2), dependencies=["slow"])
    drive = await driving(flow)
    flow.cancel("r")
    await drive
    wait = False
    ended = await flow.retry("r", "slow")
    assert (ended.state, states_of(ended)) == ("success", {"slow": "success", "after": "success"})
    assert [attempt.result.value for attempt in flow.store.list_attempts("r", "slow")] == ["cancelled", "success"]


async def test_what_ended_well_before_it_heard_of_the_cancellation_counts() -> None:
    flow = AsyncFlow("f")

    @flow.task
    async def stubborn(ctx: Context) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "all the same"
        raise AssertionError

    flow.add_task_definition("after", returns(2), dependencies=["stubborn"])
    drive = await driving(flow)
    flow.cancel("r")
    ended = await drive
    assert (ended.state, states_of(ended)) == ("cancelled", {"stubborn": "success", "after": "cancelled"})


async def test_a_coroutine_that_swallows_its_cancellation_does_not_hang_the_run() -> None:
    flow = AsyncFlow("f", grace_period=0.05)
    deaf = Deaf()
    flow.add_task_definition("deaf", deaf.task)
    drive = await driving(flow)
    flow.cancel("r")
    assert (await asyncio.wait_for(drive, 10)).state == "cancelled"
    deaf.released.set()
    await settle()
    assert flow.store.load("r").tasks["deaf"].state == "cancelled"


async def test_a_function_in_a_thread_is_left_to_itself_and_can_see_that_it_should_end() -> None:
    flow, begun, seen = AsyncFlow("f"), threading.Event(), threading.Event()

    @flow.task
    def works(ctx: Context) -> str:
        begun.set()
        while not ctx.cancelled:
            seen.wait(0.001)
        seen.set()
        return "late"

    drive = await driving(flow)
    await until(begun.is_set)
    flow.cancel("r")
    assert (await asyncio.wait_for(drive, 10)).state == "cancelled"
    assert await asyncio.to_thread(seen.wait, 10)
    assert flow.store.load("r").tasks["works"].output is None


async def test_a_run_is_cancelled_from_a_thread(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = AsyncFlow("f", store).add_task_definition("never", never)
        drive = await driving(flow)
        assert await asyncio.to_thread(flow.cancel, "r") is True
        assert (await asyncio.wait_for(drive, 10)).state == "cancelled"


@pytest.mark.parametrize("kind", ["sqlite", "json"])
async def test_a_run_is_cancelled_from_another_process(kind: str, tmp_path: Path) -> None:
    with make_store(kind, tmp_path) as store:
        flow = AsyncFlow("f", store).add_task_definition("never", never).add_task_definition("other", never)
        drive = await driving(flow)
        opened = f"SQLiteStore({str(tmp_path / 'runs.db')!r})" if kind == "sqlite" else f"JsonStore({str(tmp_path / 'runs')!r})"
        done = await asyncio.to_thread(script, f"print(AsyncFlow('f', {opened}).cancel('r'))")
        assert done.stdout.strip() == "True", done
        ended = await asyncio.wait_for(drive, 20)
        assert (ended.state, states_of(ended)) == ("cancelled", {"never": "cancelled", "other": "cancelled"})
        assert store.asked("r") == []


def test_a_cancellation_that_its_owner_did_not_live_to_see_is_done_when_the_run_is_next_driven(tmp_path: Path) -> None:
    """The ask is on the disk; the process that drove dies before it looks."""
    done = script(f"""
import os
store = SQLiteStore({str(tmp_path / "runs.db")!r})
flow = AsyncFlow("f", store)

@flow.task
async def dies(ctx):
    store._files_of_asks()._lookout.tell = lambda place: None  # nor does it hear of it in any other way
    store.ask("r", Ask("r", None))
    os._exit(9)

flow.run(run_id="r")
""")
    assert done.returncode == 9, done
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = AsyncFlow("f", store).add_task_definition("dies", returns("never again"))
        assert flow.run(run_id="r").state == "cancelled"
        assert store.load("r").tasks["dies"].state == "cancelled"


async def test_subflows_are_cancelled_with_the_run() -> None:
    inner = AsyncFlow("inner").add_task_definition("never", never)
    middle = AsyncFlow("middle").add_subflow_definition("in", inner).add_task_definition("wait", never)
    flow = AsyncFlow("outer").add_subflow_definition("mid", middle)
    drive = await driving(flow, "mid.in.never", "mid.wait")
    flow.cancel("r")
    ended = await drive
    assert ended.state == "cancelled"
    found = ended.get_all_tasks_recursive(flow.store)
    assert {path: task.state.value for path, task in found.items()} == dict.fromkeys(found, "cancelled")
    assert {run.state.value for run in flow.store.get_all_runs()} == {"cancelled"}


async def test_a_delayed_retry_is_cancelled_too() -> None:
    flow = AsyncFlow("f")

    @flow.task(max_retries=1, retry_delay=3600)
    async def fails(ctx: Context) -> None:
        raise ValueError("later")

    drive = asyncio.create_task(flow.run_until_complete(flow.init_run(run_id="r")))
    await until(lambda: flow.store.load("r").tasks["fails"].next_attempt_at is not None)
    flow.cancel("r")
    ended = await asyncio.wait_for(drive, 10)
    assert (ended.state, states_of(ended)) == ("cancelled", {"fails": "cancelled"})
    assert [attempt.result.value for attempt in flow.store.list_attempts("r")] == ["failed"]


# --- single tasks ---


async def test_one_hung_task_is_cancelled_and_the_run_goes_on(store: Store) -> None:
    flow = AsyncFlow("f", store)
    flow.add_task_definition("hung", never)
    flow.add_task_definition("after", returns(1), dependencies=["hung"])
    go_on = asyncio.Event()

    @flow.task
    async def beside(ctx: Context) -> str:
        await go_on.wait()
        return "done"

    drive = await driving(flow)
    assert flow.cancel_task("r", "hung") is True
    await until(lambda: store.load("r").tasks["after"].state == "skipped")
    assert states_of(store.load("r")) == {"hung": "cancelled", "after": "skipped", "beside": "running"}
    go_on.set()
    ended = await drive
    assert (ended.state, states_of(ended)) == ("failed", {"hung": "cancelled", "after": "skipped", "beside": "success"})
    assert ended.tasks["after"].reason == "upstream task 'hung' was cancelled"
    with pytest.raises(RunFailedError, match="hung: it was cancelled"):
        ended.raise_for_failure()
    assert store.asked("r") == []
    assert store.check() == []


async def test_a_hung_thread_is_given_up_at_once() -> None:
    flow, released = AsyncFlow("f", max_threads=1), threading.Event()
    flow.add_task_definition("hung", lambda ctx: bool(released.wait(30)))
    flow.add_task_definition("next", lambda ctx: "in the thread that takes its place")
    drive = await driving(flow, "hung")
    assert flow.cancel_task("r", "hung") is True
    ended = await asyncio.wait_for(drive, 10)
    assert states_of(ended) == {"hung": "cancelled", "next": "success"}
    released.set()


async def test_a_task_that_has_not_begun_is_cancelled_before_it_does() -> None:
    flow, go_on = AsyncFlow("f"), asyncio.Event()

    @flow.task
    async def first(ctx: Context) -> None:
        await go_on.wait()

    flow.add_task_definition("second", returns(1), dependencies=["first"])
    flow.add_task_definition("ready", returns(1))
    drive = await driving(flow, "first", max_concurrency=1)
    assert [flow.cancel_task("r", task_id) for task_id in ("second", "ready", "ready")] == [True, True, True]
    await until(lambda: flow.store.load("r").tasks["ready"].state == "cancelled")
    go_on.set()
    ended = await drive
    assert states_of(ended) == {"first": "success", "second": "cancelled", "ready": "cancelled"}
    assert flow.store.list_attempts("r", "ready") == []


async def test_a_task_inside_a_subflow_is_cancelled_by_its_path() -> None:
    inner = AsyncFlow("inner").add_task_definition("hung", never).add_task_definition("ok", returns(1))
    flow = AsyncFlow("outer").add_subflow_definition("in", inner).add_task_definition("beside", returns(2))
    drive = await driving(flow, "in.hung", "in.ok")
    flow.cancel_task("r", "in.hung")
    ended = await asyncio.wait_for(drive, 10)
    assert {path: task.state.value for path, task in ended.get_all_tasks_recursive(flow.store).items() if "." not in path} == {
        "in": "failed",
        "beside": "success",
    }
    assert ended.tasks["in"].reason is not None and "in.hung: it was cancelled" in ended.tasks["in"].reason


async def test_a_subflow_is_cancelled_with_all_that_is_in_it() -> None:
    innermost = AsyncFlow("innermost").add_task_definition("hung", never)
    inner = AsyncFlow("inner").add_subflow_definition("deep", innermost).add_task_definition("hung", never)
    flow = AsyncFlow("outer").add_subflow_definition("in", inner).add_task_definition("beside", returns(2))
    flow.add_task_definition("after", returns(3), dependencies=["in"])
    drive = await driving(flow, "in.deep.hung", "in.hung")
    (child,) = flow.store.list_children("r")
    assert flow.cancel(child) is True  # the same as cancel_task("r", "in")
    ended = await asyncio.wait_for(drive, 10)
    assert (ended.state, states_of(ended)) == ("failed", {"in": "cancelled", "beside": "success", "after": "skipped"})
    assert {run.flow_name: run.state.value for run in flow.store.get_all_runs()} == {
        "outer": "failed",
        "inner": "cancelled",
        "innermost": "cancelled",
    }


async def test_a_task_that_there_is_not_is_an_error_and_changes_nothing() -> None:
    flow = AsyncFlow("f").add_task_definition("never", never)
    drive = await driving(flow)
    with pytest.raises(UnknownTaskError):
        flow.cancel_task("r", "nevr")
    assert flow.store.load("r").state == "running"
    flow.cancel("r")
    await drive


async def test_a_task_of_the_run_may_cancel_it() -> None:
    flow = AsyncFlow("f")

    @flow.task
    async def gives_up(ctx: Context) -> None:
        flow.cancel(ctx.run.id)
        await asyncio.Event().wait()

    ended = await asyncio.wait_for(flow.run_until_complete(flow.init_run()), 10)
    assert ended.state == "cancelled"


async def test_who_is_cancelled_while_the_run_is_gets_a_cancellation() -> None:
    flow = AsyncFlow("f", grace_period=30)
    deaf = Deaf()
    flow.add_task_definition("deaf", deaf.task)
    drive = await driving(flow)
    flow.cancel("r")
    await settle()
    drive.cancel()
    await settle()
    drive.cancel()  # a second one: do not wait for the deaf
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(drive, 10)
    assert flow.store.load("r").state == "cancelled"
    deaf.released.set()


# --- asks that must not be lost ---


async def test_a_cancelled_task_that_has_not_ended_when_its_drive_is_stopped_stays_cancelled() -> None:
    """It was told to end, and takes long; then the drive is stopped: who continues the run does not begin it again."""
    flow, released, begun = AsyncFlow("f", grace_period=0.05), asyncio.Event(), list[int]()

    @flow.task
    async def deaf(ctx: Context) -> None:
        begun.append(ctx.attempt_number)
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass

    flow.add_task_definition("after", returns(1), dependencies=["deaf"])
    drive = await driving(flow)
    assert flow.cancel_task("r", "deaf") is True
    await settle()
    drive.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(drive, 10)
    released.set()
    ended = await flow.run_until_complete("r")
    assert (states_of(ended), begun) == ({"deaf": "cancelled", "after": "skipped"}, [0])


async def test_what_was_asked_is_not_forgotten_where_it_could_not_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, gone = AsyncFlow("f"), asyncio.Event()

    @flow.task
    async def hung(ctx: Context) -> None:
        assert not gone.is_set(), "it begins although it was cancelled"
        await asyncio.Event().wait()

    flow.add_task_definition("beside", never)
    drive = await driving(flow, "hung", "beside")
    with monkeypatch.context() as broken:

        def fail(changes: Changes) -> bool:
            raise StoreError("the disk", "it is full")

        broken.setattr(flow.store, "commit_at_once", fail)
        assert flow.cancel_task("r", "hung") is True
        with pytest.raises(StoreError):
            await asyncio.wait_for(drive, 10)
    gone.set()
    flow.cancel_task("r", "beside")
    assert states_of(await flow.run_until_complete("r")) == {"hung": "cancelled", "beside": "cancelled"}
    assert flow.store.asked("r") == []


async def test_a_task_whose_time_is_over_is_not_tried_again_when_it_is_cancelled_while_it_ends() -> None:
    clock, released, tries = HeldClock(), asyncio.Event(), list[int]()
    flow = AsyncFlow("f", clock=clock)

    @flow.task(timeout=3, max_retries=5)
    async def slow(ctx: Context) -> None:
        tries.append(ctx.attempt_number)
        try:
            await asyncio.Event().wait()
        finally:
            await released.wait()

    drive = await driving(flow)
    await clock.forward(3.1)
    assert flow.cancel_task("r", "slow") is True
    await settle()
    released.set()
    ended = await asyncio.wait_for(drive, 10)
    assert (states_of(ended), tries) == ({"slow": "cancelled"}, [0])


async def test_what_was_cancelled_inside_stays_so_when_a_subflow_around_it_is_tried_again_by_itself() -> None:
    begun = list[str]()
    innermost = AsyncFlow("innermost")

    @innermost.task
    async def hung(ctx: Context) -> str:
        begun.append(ctx.task_id)
        if len(begun) == 1:
            await asyncio.Event().wait()
        return "by hand"

    inner = AsyncFlow("inner").add_subflow_definition("deep", innermost)
    flow = AsyncFlow("outer").add_subflow_definition("in", inner, max_retries=2)
    drive = await driving(flow, "in.deep.hung")
    flow.cancel_task("r", "in.deep.hung")
    ended = await asyncio.wait_for(drive, 10)
    assert (states_of(ended), begun) == ({"in": "failed"}, ["hung"])
    assert states_of(await flow.retry("r", "in")) == {"in": "success"}
    assert begun == ["hung", "hung"]


async def test_a_store_that_fails_while_the_caller_is_cancelled_is_not_written_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory then is not what is stored: to put the tasks back would be to write down what never was."""
    flow = AsyncFlow("f")
    flow.add_task_definition("quick", returns(1))
    flow.add_task_definition("after", never, dependencies=["quick"])
    run_id, calls = flow.init_run(), list[asyncio.Task[WorkflowRun]]()
    commits = 0
    commit = flow.store.commit

    def fail(changes: Changes) -> bool:
        nonlocal commits
        commits += 1
        if commits == 2:
            calls[0].cancel()
            raise StoreError("the disk", "it is full")
        commit(changes)
        return True

    monkeypatch.setattr(flow.store, "commit_at_once", fail)
    calls.append(asyncio.create_task(flow.run_until_complete(run_id)))
    with pytest.raises(StoreError):
        await calls[0]
    assert commits == 2
    assert states_of(flow.store.load(run_id)) == {"quick": "running", "after": "scheduled"}


async def test_what_is_asked_while_a_drive_is_being_stopped_is_done_with_it() -> None:
    """It waits for a task that takes its time; what comes in meanwhile must not be left to whoever continues the run."""
    clock = HeldClock()
    flow, released = AsyncFlow("f", clock=clock, grace_period=30), asyncio.Event()

    @flow.task(max_retries=1)
    async def slow(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await released.wait()

    flow.add_task_definition("beside", never)
    drive = await driving(flow)
    drive.cancel()
    await settle()
    assert flow.cancel_task("r", "beside") is True
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(drive, 10)
    assert states_of(flow.store.load("r")) == {"slow": "scheduled", "beside": "cancelled"}
    assert flow.store.asked("r") == []


async def test_a_store_that_fails_while_the_caller_is_cancelled_leaves_no_attempt_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit that was decided in the same turn of the loop as the cancellation fails."""
    flow, ended = AsyncFlow("f"), asyncio.Event()

    @flow.task
    async def runs(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    flow.add_task_definition("hung", never)
    drive = await driving(flow)

    def wait(changes: Changes) -> bool:
        drive.cancel()
        return False

    def fail(changes: Changes) -> None:
        raise StoreError("the disk", "it is full")

    monkeypatch.setattr(flow.store, "commit_at_once", wait)
    monkeypatch.setattr(flow.store, "commit", fail)
    flow.store.ask("r", Ask("r", "hung"))
    with pytest.raises(StoreError):
        await asyncio.wait_for(drive, 10)
    assert ended.is_set()


async def test_a_run_is_cancelled_whose_subflow_is_driven_alone() -> None:
    """Whoever drives the subflow's run ends what it drives, and then cancels the rest, for which nobody else may come."""
    inner, flow = AsyncFlow("inner").add_task_definition("hung", never), AsyncFlow("outer")
    flow.add_subflow_definition("in", inner).add_task_definition("beside", never)
    inner.store = flow.store
    drive = await driving(flow, "in.hung", "beside")
    drive.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drive
    (child,) = flow.store.list_children("r")
    alone = asyncio.create_task(inner.run_until_complete(child))
    await until(lambda: flow.store.load(child).tasks["hung"].state == "running")
    told = events_of(inner)
    assert flow.cancel("r") is True
    assert (await asyncio.wait_for(alone, 10)).state == "cancelled"
    whole = flow.store.load("r")
    assert (whole.state, states_of(whole)) == ("cancelled", {"in": "cancelled", "beside": "cancelled"})
    assert [event.run_id for event in told if isinstance(event, RunFinished)] == [child, "r"]
    assert flow.store.asked("r") == []
