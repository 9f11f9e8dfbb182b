"""Going on where a run stood: after a crash at every commit, a kill, a cancellation, a changed graph."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    GraphChangedError,
    RunActiveError,
    RunInterrupted,
    SQLiteStore,
    Store,
    TaskInterrupted,
    UnknownTaskError,
    WorkflowRun,
)
from .conftest import (
    STORE_KINDS,
    Effects,
    FakeClock,
    around_commits,
    events_of,
    fails,
    flaky,
    make_store,
    outputs_of,
    returns,
    run,
    states_of,
)

PACKAGE = __package__.rpartition(".")[0] if __package__ else ""
ROOT = Path(__file__).parents[PACKAGE.count(".") + 2]


class Crash(BaseException):
    """The process is gone: nothing after it happens."""


def crash_at(store: Store, number: int, before: bool) -> Callable[[], None]:
    """Have the commit of that number (from 1) crash, before or after it was done; every later one too. Returns what undoes it."""
    count = 0

    def crashing(commit: Callable[[], None], changes: Changes) -> None:
        nonlocal count
        count += 1
        if count > number or (count == number and before):
            raise Crash
        commit()
        if count == number:
            raise Crash

    return around_commits(store, crashing)


async def crash(flow: AsyncFlow, run_id: str, number: int, **options: Any) -> None:
    """Drive a run until the process is gone after the commit of that number; the store is well again afterwards."""
    undo = crash_at(flow.store, number, before=False)
    with pytest.raises(Crash):
        await flow.run_until_complete(run_id, **options)
    undo()


def pipeline(store: Store, effects: Effects) -> AsyncFlow:
    """All that a run is made of: a fan-out, a retry, changed params, a subflow, and typed values."""
    flow = AsyncFlow("pipeline", store, clock=FakeClock())
    flow.add_task_definition("extract", effects.of("extract", (1, {2})))

    @flow.task(depends_on=["extract"])
    async def left(ctx: Context) -> Any:
        effects.log.append("left")
        ctx.params["left"] = (ctx.pull("extract"),)
        return ctx.params["left"]

    async def leaf(ctx: Context) -> Any:
        effects.log.append("leaf")
        return [ctx.params["extract"], ctx.params["user"]]

    child = AsyncFlow("child")
    child.add_task_definition("leaf", leaf)

    @child.task(depends_on=["leaf"])
    def last(ctx: Context) -> Any:
        effects.log.append("last")
        return (ctx.pull("leaf"),)

    flow.add_subflow_definition("sub", child, dependencies=["extract"])

    @flow.task(depends_on=["extract"], max_retries=1, retry_delay=30)
    async def shaky(ctx: Context) -> int:
        effects.log.append("shaky")
        if ctx.attempt_number == 0:
            raise ValueError
        return 7

    @flow.task(depends_on=["left", "sub", "shaky"])
    async def load(ctx: Context) -> Any:
        effects.log.append("load")
        return {"sub": ctx.pull("sub"), "left": ctx.params["left"], "shaky": ctx.pull("shaky")}

    return flow


@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("kind", STORE_KINDS)
async def test_a_crash_at_any_commit_loses_nothing_and_repeats_nothing_that_was_finished(
    kind: str, before: bool, tmp_path: Path
) -> None:
    (tmp_path / "calm").mkdir()
    calm = make_store(kind, tmp_path / "calm")
    undisturbed = await run(pipeline(calm, Effects()), {"user": "alice"})
    assert undisturbed.state == "success"
    calm.close()
    crashes = 0
    for number in range(2, 50):
        folder = tmp_path / str(number)
        folder.mkdir()
        store, effects = make_store(kind, folder), Effects()
        undo = crash_at(store, number, before)
        flow = pipeline(store, effects)
        run_id = flow.init_run({"user": "alice"})
        try:
            await flow.run_until_complete(run_id)
        except Crash:
            crashes += 1
        else:
            store.close()
            break
        if kind == "memory":
            undo()
        else:
            store.close()
            store = make_store(kind, folder)
        finished = [path for path, task in store.load(run_id).get_all_tasks_recursive(store).items() if task.state == "success"]
        effects.log.clear()
        done = await pipeline(store, effects).run_until_complete(run_id)
        assert done.state == "success"
        assert {**outputs_of(done), "sub": done.tasks["sub"].output} == {
            **outputs_of(undisturbed),
            "sub": undisturbed.tasks["sub"].output,
        }
        assert done.params == undisturbed.params
        for path in finished:
            if path != "sub":
                assert path.rpartition(".")[2] not in effects.log, f"{path} was finished before crash {number}"
        assert all(task.state == "success" for task in done.get_all_tasks_recursive(store).values())
        store.close()
        # Whatever was not finished did run again: the check above looks at names that do turn up.
        unfinished = {"extract", "left", "leaf", "last", "shaky", "load"} - {path.rpartition(".")[2] for path in finished}
        assert set(effects.log) == unfinished
    assert crashes >= 6


async def test_what_was_interrupted_runs_again_and_uses_up_no_retry(store: Store) -> None:
    flow = AsyncFlow("flow", store)
    flow.add_task_definition("only", flaky(1, "done"), max_retries=1)
    run_id = flow.init_run()
    await crash(flow, run_id, 1)
    assert store.load(run_id).tasks["only"].state == "running"
    told = events_of(flow)
    done = await flow.run_until_complete(run_id)
    task = done.tasks["only"]
    assert (done.state, task.try_number, task.interruptions) == ("success", 2, 1)
    assert [attempt.result.value for attempt in store.list_attempts(run_id)] == ["interrupted", "failed", "success"]
    assert sum(isinstance(event, TaskInterrupted) for event in told) == 1


async def test_a_restart_neither_shortens_nor_repeats_the_wait_for_a_retry(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("only", flaky(1), max_retries=1, retry_delay=100)
    run_id = flow.init_run()
    await crash(flow, run_id, 2)  # the failed attempt is stored; the process dies while it waits
    clock.pass_time(40)
    clock.slept.clear()
    assert (await flow.run_until_complete(run_id)).state == "success"
    assert clock.slept == [60]


async def test_a_wall_clock_that_was_set_back_does_not_stretch_the_wait(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("only", flaky(1), max_retries=1, retry_delay=10)
    run_id = flow.init_run()
    await crash(flow, run_id, 2)
    clock.wall -= 3_600_000_000
    clock.slept.clear()
    assert (await flow.run_until_complete(run_id)).state == "success"
    assert clock.slept == [10]


# --- cancelling ---


async def started(flow: AsyncFlow, began: asyncio.Event, **options: Any) -> tuple[str, asyncio.Task[Any]]:
    """A run whose task has begun."""
    run_id = flow.init_run()
    task = asyncio.create_task(flow.run_until_complete(run_id, **options))
    await asyncio.wait_for(began.wait(), 30)
    return run_id, task


async def test_cancelling_leaves_a_run_that_can_be_continued(store: Store, effects: Effects) -> None:
    flow, began, blocked = AsyncFlow("flow", store), asyncio.Event(), True
    flow.add_task_definition("first", effects.of("first", 1))

    @flow.task(depends_on=["first"])
    async def slow(ctx: Context) -> int:
        effects.log.append("slow")
        began.set()
        if blocked:
            await asyncio.Event().wait()
        return 2

    flow.add_task_definition("last", effects.of("last", 3), dependencies=["slow"])
    told = events_of(flow)
    run_id, running = await started(flow, began)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stopped = store.load(run_id)
    assert (stopped.state, states_of(stopped)) == ("scheduled", {"first": "success", "slow": "scheduled", "last": "scheduled"})
    assert any(isinstance(event, RunInterrupted) for event in told)
    blocked = False
    done = await flow.run_until_complete(run_id)
    assert (done.state, effects.log) == ("success", ["first", "slow", "slow", "last"])
    assert [attempt.result.value for attempt in store.list_attempts(run_id, "slow")] == ["interrupted", "success"]


async def test_a_task_that_still_ends_well_when_cancelled_counts(store: Store) -> None:
    flow, began = AsyncFlow("flow", store), asyncio.Event()

    @flow.task
    async def stubborn(ctx: Context) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "finished all the same"
        raise AssertionError

    flow.add_task_definition("after", returns(1), dependencies=["stubborn"])
    run_id, running = await started(flow, began)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert states_of(store.load(run_id)) == {"stubborn": "success", "after": "scheduled"}


async def test_a_task_that_fails_while_it_is_cancelled_was_interrupted(flow: AsyncFlow) -> None:
    began = asyncio.Event()

    @flow.task
    async def clumsy(ctx: Context) -> None:
        ctx.log("half way")
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("cleaning up failed")

    run_id, running = await started(flow, began)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert states_of(flow.store.load(run_id)) == {"clumsy": "scheduled"}
    (attempt,) = flow.store.list_attempts(run_id)
    assert (attempt.result, [entry.message for entry in attempt.logs]) == ("interrupted", ["half way"])


async def test_a_second_cancellation_does_not_wait_for_a_task_that_will_not_end(store: Store) -> None:
    flow, began, swallowed = AsyncFlow("flow", store), asyncio.Event(), asyncio.Event()
    release = asyncio.Event()

    @flow.task
    async def deaf(ctx: Context) -> None:
        began.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                swallowed.set()

    run_id, running = await started(flow, began)
    running.cancel()
    await asyncio.wait_for(swallowed.wait(), 30)
    running.cancel()
    ended, _ = await asyncio.wait([running], timeout=4)
    release.set()
    assert ended
    assert running.cancelled()
    assert states_of(store.load(run_id)) == {"deaf": "scheduled"}


async def test_cancelling_stops_the_whole_tree(store: Store) -> None:
    began = asyncio.Event()

    async def slow(ctx: Context) -> None:
        began.set()
        await asyncio.Event().wait()

    child = AsyncFlow("child").add_task_definition("slow", slow)
    flow = AsyncFlow("flow", store).add_subflow_definition("sub", child)
    run_id, running = await started(flow, began)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stopped = store.load(run_id)
    assert {path: task.state.value for path, task in stopped.get_all_tasks_recursive(store).items()} == {
        "sub": "scheduled",
        "sub.slow": "scheduled",
    }
    (child_run_id,) = store.list_children(run_id)
    assert store.load(child_run_id).state == "scheduled"


async def test_two_calls_join_and_only_the_last_one_cancelled_stops_the_run(flow: AsyncFlow, effects: Effects) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    @flow.task
    async def only(ctx: Context) -> int:
        effects.log.append("only")
        began.set()
        await go_on.wait()
        return 1

    run_id, first = await started(flow, began)
    second = asyncio.create_task(flow.run_until_complete(run_id))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert (await second).state == "success"
    assert effects.log == ["only"]


SHUT_DOWN = """
import asyncio, sys
from {package} import AsyncFlow, SQLiteStore

hang = sys.argv[2] == "hang"
flow = AsyncFlow("script", SQLiteStore(sys.argv[1]))
begun = 0

async def slow(ctx):
    global begun
    begun += 1
    try:
        if hang:
            await asyncio.Event().wait()
    finally:
        for _ in range(3):
            await asyncio.sleep(0)
        print("cleaned up")
    return 1

for number in range(6):
    flow.add_task_definition(f"slow{{number}}", slow)
flow.add_task_definition("after", slow, dependencies=[f"slow{{number}}" for number in range(6)])

async def main():
    run_id = flow.init_run(run_id="nightly")
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    if hang:
        while begun < 6:
            await asyncio.sleep(0)
    else:
        print((await driving).state)

asyncio.run(main())
"""


def test_a_loop_that_shuts_down_interrupts_the_run_in_its_background(tmp_path: Path) -> None:
    """asyncio.run then cancels every task in an order of its own, the attempts' among them."""

    def go(mode: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", SHUT_DOWN.format(package=PACKAGE), str(tmp_path / "state"), mode],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    cleaned = go("hang").count("cleaned up")
    if sys.version_info >= (3, 11):  # before that, a task cannot tell that it was asked to end, and is asked again
        assert cleaned == 6
    with SQLiteStore(tmp_path / "state") as store:
        assert set(states_of(store.load("nightly")).values()) == {"scheduled"}
        assert {attempt.result.value for attempt in store.list_attempts("nightly")} == {"interrupted"}
    assert go("go").endswith("success\n")


async def test_a_call_in_another_thread_joins(store: Store) -> None:
    flow, began, go_on, joined = AsyncFlow("flow", store), asyncio.Event(), asyncio.Event(), threading.Event()
    runs = 0

    @flow.task
    async def only(ctx: Context) -> str:
        nonlocal runs
        runs += 1
        began.set()
        await go_on.wait()
        return "done"

    run_id, running = await started(flow, began)

    async def join() -> WorkflowRun:
        asyncio.get_running_loop().call_later(0.01, joined.set)
        return await flow.run_until_complete(run_id)

    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(join())))
    await asyncio.to_thread(joined.wait, 30)
    go_on.set()
    assert outputs_of(await other) == outputs_of(await running) == {"only": "done"}
    assert runs == 1


async def test_when_the_thread_that_drives_is_cancelled_the_one_that_joined_goes_on(store: Store) -> None:
    flow, began, joined = AsyncFlow("flow", store), asyncio.Event(), threading.Event()
    begun = threading.Event()

    @flow.task
    async def only(ctx: Context) -> str:
        if not begun.is_set():
            begun.set()
            began.set()
            await asyncio.Event().wait()
        return "done"

    run_id, running = await started(flow, began)

    async def join() -> WorkflowRun:
        asyncio.get_running_loop().call_later(0.01, joined.set)
        return await flow.run_until_complete(run_id)

    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(join())))
    await asyncio.to_thread(joined.wait, 30)
    drive = next(task for task in asyncio.all_tasks() if task.get_name() == f"night-batch run {run_id}")
    drive.cancel()  # as a loop that shuts down does
    with pytest.raises(asyncio.CancelledError):
        await running
    assert outputs_of(await other) == {"only": "done"}


async def test_a_call_in_another_thread_that_is_the_last_to_be_cancelled_stops_the_run(store: Store) -> None:
    flow, began = AsyncFlow("flow", store), asyncio.Event()

    @flow.task
    async def only(ctx: Context) -> None:
        began.set()
        await asyncio.Event().wait()

    run_id, running = await started(flow, began)

    async def join() -> None:
        joined = asyncio.ensure_future(flow.run_until_complete(run_id))
        await asyncio.sleep(0.05)
        asyncio.run_coroutine_threadsafe(stop_the_first(), loop).result(30)
        joined.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joined

    async def stop_the_first() -> None:
        running.cancel()
        await asyncio.wait([running])

    loop = asyncio.get_running_loop()
    await asyncio.wait_for(asyncio.to_thread(lambda: asyncio.run(join())), 30)
    assert store.load(run_id).state == "scheduled"
    assert states_of(store.load(run_id)) == {"only": "scheduled"}


async def test_a_thread_that_comes_back_after_the_run_was_given_up_changes_nothing(store: Store) -> None:
    flow, began, release, left = AsyncFlow("flow", store), asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @flow.task
    def slow(ctx: Context) -> str:
        loop.call_soon_threadsafe(began.set)
        release.wait(30)
        left.set()
        return "late"

    run_id, running = await started(flow, began)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 4)
    release.set()
    await asyncio.to_thread(left.wait, 30)
    await asyncio.sleep(0)
    stopped = store.load(run_id)
    assert (states_of(stopped), outputs_of(stopped)) == ({"slow": "scheduled"}, {"slow": None})


# --- a graph that changed ---


def versions(store: Store, *task_ids: str) -> AsyncFlow:
    """A chain of the given tasks, of which `broken` fails."""
    flow = AsyncFlow("flow", store)
    for before, task_id in zip((None, *task_ids), task_ids):
        flow.add_task_definition(task_id, returns(task_id), dependencies=[before] if before else None)
    return flow


async def interrupted_run(store: Store) -> str:
    """A run of a -> b -> c that was stopped after a."""
    run_id = versions(store, "a", "b", "c").init_run()
    await crash(versions(store, "a", "b", "c"), run_id, 2)
    return run_id


async def test_a_changed_graph_is_refused_with_the_difference(store: Store) -> None:
    run_id = await interrupted_run(store)
    before = store.load(run_id)
    with pytest.raises(GraphChangedError) as caught:
        await versions(store, "a", "b", "x").run_until_complete(run_id)
    assert (caught.value.added, caught.value.removed, caught.value.changed) == (("x",), ("c",), ())
    with pytest.raises(GraphChangedError) as caught:
        await versions(store, "a", "c", "b").run_until_complete(run_id)
    assert caught.value.changed == ("c", "b")
    with pytest.raises(GraphChangedError, match="adopt_graph=True"):
        versions(store, "a", "c", "b").manual_retry(run_id, "a")
    assert store.load(run_id) == before


async def test_another_order_of_definition_is_no_change(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("a", returns(1)).add_task_definition("b", returns(2))
    run_id = flow.init_run()
    again = AsyncFlow("flow", store).add_task_definition("b", returns(2)).add_task_definition("a", returns(1))
    assert (await again.run_until_complete(run_id)).state == "success"


async def test_a_changed_graph_can_be_adopted(store: Store) -> None:
    run_id = await interrupted_run(store)
    done = await versions(store, "new", "a", "x").run_until_complete(run_id, adopt_graph=True)
    assert states_of(done) == {"a": "success", "b": "skipped", "c": "skipped", "new": "success", "x": "success"}
    assert done.tasks["b"].reason == "the flow's graph no longer has it"
    assert done.state == "success"
    assert (await versions(store, "new", "a", "x").retry(run_id, "x")).state == "success", "the new graph is the run's own now"


async def test_a_finished_run_is_returned_whatever_the_graph_has_become(store: Store) -> None:
    done = await run(versions(store, "a"))
    assert await versions(store, "a", "b").run_until_complete(done.id) == done


async def test_a_changed_graph_of_a_subflow_is_refused_before_anything_runs(store: Store, effects: Effects) -> None:
    def flow(*inner: str) -> AsyncFlow:
        child = AsyncFlow("child")
        for task_id in inner:
            child.add_task_definition(task_id, effects.of(task_id))
        return AsyncFlow("flow", store).add_subflow_definition("sub", child)

    run_id = flow("a").init_run()
    await crash(flow("a"), run_id, 1)
    with pytest.raises(GraphChangedError, match="'child'"):
        await flow("a", "b").run_until_complete(run_id)
    assert effects.log == []
    done = await flow("a", "b").run_until_complete(run_id, adopt_graph=True)
    assert (done.state, sorted(effects.log)) == ("success", ["a", "b"])


# --- real processes, real signals ---

SCRIPT = """
import asyncio, sys, time
from {package} import AsyncFlow, SQLiteStore, JsonStore

kind, path, mode = sys.argv[1:4]
store = SQLiteStore(path) if kind == "sqlite" else JsonStore(path)
flow = AsyncFlow("script", store)

def note(text):
    with open(path + ".effects", "a") as file:
        file.write(text + "\\n")

@flow.task
def extract(ctx):
    note("extract")
    return (1, 2)

@flow.task(depends_on=["extract"])
async def slow(ctx):
    note("slow")
    if mode == "hang":
        print("begun", flush=True)
        await asyncio.Event().wait()
    return ctx.pull("extract") + (3,)

@flow.task(depends_on=["slow"])
def load(ctx):
    note("load")
    return ctx.pull("slow")

run = flow.run(run_id="nightly")
print(run.state, run.tasks["load"].output_json)
"""


def script(tmp_path: Path, kind: str, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(package=PACKAGE), kind, str(tmp_path / "state"), mode],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("kind", ["sqlite", "json"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_process_that_is_stopped_is_continued_by_the_next(kind: str, number: int, code: int, tmp_path: Path) -> None:
    with script(tmp_path, kind, "hang") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "begun\n"
        first.send_signal(number)
        _, errors = first.communicate(timeout=30)
    assert first.returncode == code, errors
    with script(tmp_path, kind, "go") as second:
        output, errors = second.communicate(timeout=30)
    assert (second.returncode, output) == (0, "success (1, 2, 3)\n"), errors
    assert (tmp_path / "state.effects").read_text().split() == ["extract", "slow", "slow", "load"]


INTERRUPTED = """
import asyncio, sys
from {package} import AsyncFlow, SQLiteStore

flow = AsyncFlow("script", SQLiteStore(sys.argv[1]))

@flow.task(max_retries=5)
async def only(ctx):
    raise KeyboardInterrupt

asyncio.run(flow.run_until_complete(flow.init_run(run_id="nightly")))
"""


def test_ctrl_c_inside_a_coroutine_stops_the_program_and_leaves_the_run_to_be_continued(tmp_path: Path) -> None:
    """Under a plain asyncio.run of Python 3.10, that is where Ctrl-C strikes."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(package=PACKAGE), str(tmp_path / "state")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
    with SQLiteStore(tmp_path / "state") as store:
        assert store.load("nightly").state == "scheduled"
        assert [attempt.result.value for attempt in store.list_attempts("nightly")] == ["interrupted"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_after_a_signal_the_run_is_saved_as_scheduled(tmp_path: Path) -> None:
    with script(tmp_path, "sqlite", "hang") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    with SQLiteStore(tmp_path / "state") as store:
        stopped = store.load("nightly")
        assert states_of(stopped) == {"extract": "success", "slow": "scheduled", "load": "scheduled"}
        assert stopped.state == "scheduled"
    assert not (tmp_path / "state-wal").exists(), "one file of state"


def test_dates_survive_a_restart(tmp_path: Path) -> None:
    """Microseconds and the time zone come back as they were."""
    moment = datetime(2026, 11, 22, 23, 59, 59, 999999, tzinfo=timezone.utc)
    clock = FakeClock((moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1))
    make: Callable[[], Store] = lambda: make_store("json", tmp_path)  # noqa: E731
    with make() as store:
        done = AsyncFlow("flow", store, clock=clock).add_task_definition("a", returns(1)).run()
    with make() as store:
        assert store.load(done.id).tasks["a"].start_date == moment


async def test_a_call_that_comes_while_the_run_is_being_saved_starts_it_anew(flow: AsyncFlow) -> None:
    began, go_on = asyncio.Event(), False

    @flow.task
    async def only(ctx: Context) -> str:
        began.set()
        if go_on:
            return "done"
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):  # takes a while to clean up
                await asyncio.sleep(0)
        raise AssertionError

    run_id, first = await started(flow, began)
    first.cancel()
    await asyncio.sleep(0)
    go_on = True
    second = asyncio.create_task(flow.run_until_complete(run_id))
    with pytest.raises(asyncio.CancelledError):
        await first
    assert outputs_of(await second) == {"only": "done"}


async def test_a_task_that_waits_for_its_own_run_is_told_so(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> None:
        await flow.run_until_complete(ctx.run.id)

    done = await asyncio.wait_for(run(flow), 30)
    assert "RunActiveError" in (done.tasks["only"].reason or "")


async def test_a_task_may_run_another_run_of_the_same_flow(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> Any:
        if ctx.params["depth"] == 0:
            return ["end"]
        inner = await run(flow, {"depth": ctx.params["depth"] - 1}, max_concurrency=1)
        return [ctx.params["depth"], *inner.tasks["only"].output_json]

    assert outputs_of(await run(flow, {"depth": 3}, max_concurrency=1)) == {"only": [3, 2, 1, "end"]}


def test_a_run_whose_loop_was_closed_under_it_can_be_continued(flow: AsyncFlow) -> None:
    begun = False

    @flow.task
    async def only(ctx: Context) -> str:
        nonlocal begun
        if not begun:
            begun = True
            await asyncio.Event().wait()
        return "done"

    run_id = flow.init_run()
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(flow.run_until_complete(run_id))
    while not begun:
        loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    assert outputs_of(asyncio.run(flow.run_until_complete(run_id))) == {"only": "done"}
    del abandoned


def test_two_threads_that_continue_one_run_do_not_run_it_twice(store: Store) -> None:
    ran: list[str] = []
    flow = AsyncFlow("flow", store).add_task_definition("only", lambda ctx: ran.append(ctx.task_id))
    for number in range(20):
        run_id = flow.init_run(run_id=f"run{number}")
        barrier = threading.Barrier(2, timeout=30)
        ends: list[str] = []

        def drive(run_id: str = run_id, barrier: threading.Barrier = barrier, ends: list[str] = ends) -> None:
            barrier.wait()
            try:
                ends.append(asyncio.run(flow.run_until_complete(run_id)).state.value)
            except RunActiveError:
                ends.append("told")

        threads = [threading.Thread(target=drive) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(ends) in (["success", "told"], ["success", "success"])
        assert len(ran) == number + 1


async def test_an_adopting_retry_takes_up_the_graphs_of_subflows_too(store: Store) -> None:
    def flow(*inner: str) -> AsyncFlow:
        child = AsyncFlow("child").add_task_definition("a", flaky(1))
        for task_id in inner:
            child.add_task_definition(task_id, returns(task_id))
        return AsyncFlow("flow", store).add_subflow_definition("sub", child)

    failed = await run(flow())
    assert failed.state == "failed"
    done = await flow("b").retry(failed.id, "sub", adopt_graph=True)
    states = {path: task.state.value for path, task in done.get_all_tasks_recursive(store).items()}
    assert states == {"sub": "failed", "sub.a": "failed", "sub.b": "success"}


async def test_a_subflow_that_became_another_flow_starts_afresh(store: Store) -> None:
    def flow(name: str) -> AsyncFlow:
        child = AsyncFlow(name).add_task_definition("a", returns(name))
        return AsyncFlow("flow", store).add_subflow_definition("sub", child)

    run_id = flow("old").init_run()
    await crash(flow("old"), run_id, 1)
    with pytest.raises(GraphChangedError):
        await flow("new").run_until_complete(run_id)
    done = await flow("new").run_until_complete(run_id, adopt_graph=True)
    assert done.tasks["sub"].output == "new"


@pytest.mark.parametrize("to_subflow", [True, False])
async def test_a_task_that_changed_its_kind_runs_as_what_it_is_now(store: Store, to_subflow: bool) -> None:
    def flow(nested: bool) -> AsyncFlow:
        made = AsyncFlow("flow", store)
        if nested:
            return made.add_subflow_definition("x", AsyncFlow("child").add_task_definition("a", returns("from the child")))
        return made.add_task_definition("x", returns("from the function"))

    done = await run(flow(not to_subflow))
    again = await flow(to_subflow).retry(done.id, "x", adopt_graph=True)
    assert again.tasks["x"].output == ("from the child" if to_subflow else "from the function")
    assert again.tasks["x"].type == ("flow" if to_subflow else "task")


async def test_a_task_that_comes_back_into_the_graph_runs(store: Store) -> None:
    run_id = await interrupted_run(store)
    await crash(versions(store, "a", "c"), run_id, 2, adopt_graph=True)
    assert store.load(run_id).tasks["b"].state == "skipped"
    done = await versions(store, "a", "b", "c").run_until_complete(run_id, adopt_graph=True)
    assert states_of(done) == {"a": "success", "b": "success", "c": "success"}


async def test_a_run_saved_from_outside_takes_the_graph_of_the_flow(store: Store) -> None:
    store.save(WorkflowRun("by hand", "flow", {"user": "alice"}))
    done = await versions(store, "a", "b").run_until_complete("by hand")
    assert (done.state, states_of(done), done.params) == ("success", {"a": "success", "b": "success"}, {"user": "alice"})


async def test_tasks_that_are_defined_anew_while_a_run_goes_on_change_later_runs(flow: AsyncFlow) -> None:
    @flow.task
    async def first(ctx: Context) -> None:
        flow.add_subflow_definition("second", AsyncFlow("child"), dependencies=["first"], replace=True)

    flow.add_task_definition("second", returns("as it was"), dependencies=["first"])
    assert outputs_of(await run(flow))["second"] == "as it was"


@pytest.mark.parametrize("change", ["renamed", "function"])
async def test_a_failed_subflow_inside_another_may_become_something_else(store: Store, change: str) -> None:
    def flow(inner_is: str) -> AsyncFlow:
        middle = AsyncFlow("middle")
        if inner_is == "function":
            middle.add_task_definition("inner", returns("mended"))
        else:
            leaf = fails() if inner_is == "failing" else returns("mended")
            middle.add_subflow_definition("inner", AsyncFlow(inner_is).add_task_definition("leaf", leaf))
        return AsyncFlow("flow", store).add_subflow_definition("sub", middle)

    failed = await run(flow("failing"))
    assert failed.state == "failed"
    done = await flow(change).retry(failed.id, "sub", adopt_graph=True)
    assert (done.state, done.tasks["sub"].output) == ("success", "mended")


async def test_a_path_into_what_is_no_subflow_any_more_is_refused_by_name(store: Store) -> None:
    child = AsyncFlow("child").add_task_definition("a", returns(1))
    done = await run(AsyncFlow("flow", store).add_subflow_definition("x", child))
    changed = AsyncFlow("flow", store).add_task_definition("x", returns(2))
    with pytest.raises(UnknownTaskError, match="is no subflow"):
        changed.manual_retry(done.id, "x.a", adopt_graph=True)
    assert store.load(done.id) == done
