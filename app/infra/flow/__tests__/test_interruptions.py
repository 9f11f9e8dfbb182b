"""Tasks that are cut off again and again: how many deaths of its process a task may cost, and what must not run twice at all."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, FlowBuilder, InvalidOptionError, MemoryStore, RetryPolicy, RunFailedError, Store
from .conftest import Effects, around_commits, outputs_of, returns, states_of

PACKAGE = __package__.rpartition(".")[0] if __package__ else ""
ROOT = Path(__file__).parents[PACKAGE.count(".") + 2]


class Dead(BaseException):
    """The process is gone: nothing after it happens."""


async def die_in(flow: AsyncFlow, run_id: str, task_id: str) -> None:
    """Drive a run until the process dies in that task, whose start is the last thing that reaches the store."""
    dead = False

    def until(commit: Callable[[], None], changes: Changes) -> None:
        nonlocal dead
        if not dead:
            commit()
            dead = any(task.task_id == task_id and task.state == "running" for task in changes.tasks)
        if dead:
            raise Dead

    undo = around_commits(flow.store, until)
    with pytest.raises(Dead):
        await flow.run_until_complete(run_id)
    undo()


# --- real processes ---

SCRIPT = """
import os, sys
from {package} import AsyncFlow, JsonStore, SQLiteStore

kind, path, mode = sys.argv[1:4]
flow = AsyncFlow("script", SQLiteStore(path) if kind == "sqlite" else JsonStore(path))

@flow.task
def before(ctx):
    return 1

@flow.task(depends_on=[before], max_interruptions=2, max_retries=3)
def poison(ctx):
    if mode == "die":
        os._exit(9)
    return ctx.pull("before") + 1

flow.add_task_definition("after", lambda ctx: ctx.pull("poison") + 1, dependencies=["poison"])

if mode == "heal":
    flow.run(run_id="nightly")
    flow.manual_retry("nightly", "poison", reset_downstream=True)
run = flow.run(run_id="nightly")
print(run.state, *(task.state for task in run.tasks.values()), run.tasks["poison"].reason)
"""


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_a_task_that_kills_its_process_every_time_fails_instead_of_doing_so_for_ever(kind: str, tmp_path: Path) -> None:
    def go(mode: str) -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(package=PACKAGE), kind, str(tmp_path / "state"), mode],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return ended.returncode, ended.stdout or ended.stderr

    assert [go("die") for _ in range(2)] == [(9, ""), (9, "")]
    code, output = go("die")
    assert (code, output) == (
        0,
        "failed success failed skipped TaskInterrupted: its process died or lost the run 2 times while it ran "
        "(max_interruptions=2)\n",
    )
    assert go("heal") == (0, "success success success success None\n")


# --- the same inside one ---


async def test_the_history_shows_every_death_and_the_failure_says_what_to_do(store: Store) -> None:
    flow = AsyncFlow("flow", store)
    flow.add_task_definition("poison", returns(1), max_interruptions=2)
    run_id = flow.init_run()
    for _ in range(2):
        await die_in(flow, run_id, "poison")
    done = await flow.run_until_complete(run_id)
    with pytest.raises(RunFailedError, match=r"poison: TaskInterrupted: its process died or lost the run 2 times"):
        done.raise_for_failure()
    stored = store.load(run_id)
    task = stored.tasks["poison"]
    assert (stored.state, task.state, task.crashes, task.interruptions) == ("failed", "failed", 2, 2)
    assert task.error is not None
    assert "fix it; then run it again with flow.retry(...)" in task.error
    assert [attempt.result.value for attempt in store.list_attempts(run_id)] == ["interrupted", "interrupted"]
    again = await flow.retry(run_id, "poison")
    assert (again.state, again.tasks["poison"].crashes) == ("success", 0)
    assert [attempt.result.value for attempt in store.list_attempts(run_id)] == ["interrupted", "interrupted", "success"]


async def test_a_task_inside_a_subflow_that_uses_up_its_budget_fails_the_whole_way_up(store: Store, effects: Effects) -> None:
    child = AsyncFlow("child").add_task_definition("poison", effects.of("poison"), max_interruptions=2)
    flow = AsyncFlow("flow", store).add_subflow_definition("sub", child, max_interruptions=1, on_interrupt="fail")
    flow.add_task_definition("after", effects.of("after"), dependencies=["sub"])
    run_id = flow.init_run()
    for _ in range(2):
        await die_in(flow, run_id, "poison")
    done = await asyncio.wait_for(flow.run_until_complete(run_id), 30)
    assert {path: task.state.value for path, task in done.get_all_tasks_recursive(store).items()} == {
        "sub": "failed",
        "sub.poison": "failed",
        "after": "skipped",
    }
    assert done.tasks["sub"].reason is not None
    assert "sub.poison: TaskInterrupted: its process died" in done.tasks["sub"].reason
    assert effects.log == [], "the process died before the function did anything"
    assert (await flow.retry(run_id, "sub.poison")).state == "success"
    assert effects.log == ["poison", "after"]


async def cancelled_in(flow: AsyncFlow, began: asyncio.Event) -> str:
    """A run that was cancelled while a task of it ran."""
    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await asyncio.wait_for(began.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return run_id


@pytest.mark.parametrize("nested", [False, True], ids=["in the run", "in a subflow"])
async def test_a_task_that_must_not_run_twice_fails_when_its_run_is_cancelled(
    store: Store, effects: Effects, nested: bool
) -> None:
    began, charge, beside = asyncio.Event(), True, AsyncFlow("inner" if nested else "flow", store)

    async def pay(ctx: Context) -> str:
        effects.log.append("pay")
        began.set()
        if charge:
            await asyncio.Event().wait()
        return "paid"

    beside.add_task_definition("pay", pay, on_interrupt="fail", max_retries=5)
    beside.add_task_definition("receipt", effects.of("receipt"), dependencies=["pay"])
    flow = AsyncFlow("flow", store).add_subflow_definition("sub", beside) if nested else beside
    flow.add_task_definition("other", effects.of("other"))
    run_id = await cancelled_in(flow, began)
    done = await asyncio.wait_for(flow.run_until_complete(run_id), 30)
    tasks = done.get_all_tasks_recursive(store)
    path = "sub.pay" if nested else "pay"
    assert (done.state, tasks[path].state, tasks["other"].state) == ("failed", "failed", "success")
    assert effects.log.count("pay") == 1
    assert tasks[path].reason == 'TaskInterrupted: its run was stopped while it ran, and on_interrupt="fail" forbids to run it again by itself'  # fmt: skip # noqa: E501
    charge = False
    assert (await flow.retry(run_id, path)).state == "success"
    assert effects.log.count("pay") == 2
    assert effects.log[-1] == "receipt"


async def test_a_task_that_must_not_run_twice_but_ends_well_when_it_is_cancelled_is_a_success(store: Store) -> None:
    flow, began = AsyncFlow("flow", store), asyncio.Event()

    @flow.task(on_interrupt="fail")
    async def stubborn(ctx: Context) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "finished all the same"
        raise AssertionError

    run_id = await cancelled_in(flow, began)
    assert outputs_of(await flow.run_until_complete(run_id)) == {"stubborn": "finished all the same"}


async def test_a_params_function_has_a_budget_of_its_own_kind(store: Store) -> None:
    calls: list[str] = []

    def params(ctx: Context) -> dict[str, Any]:
        calls.append("params")
        return {}

    child = AsyncFlow("child").add_task_definition("leaf", returns(1))
    flow = AsyncFlow("flow", store).add_subflow_definition("sub", child, params=params, max_interruptions=1)
    run_id = flow.init_run()
    await die_in(flow, run_id, "sub")
    assert states_of(await flow.run_until_complete(run_id)) == {"sub": "failed"}
    assert (calls, store.list_children(run_id)) == ([], [])


# --- declaring it ---


def test_every_way_to_declare_a_task_takes_the_options() -> None:
    policy = RetryPolicy(max_interruptions=7, on_interrupt="fail")
    options: dict[str, Any] = {"max_interruptions": 7, "on_interrupt": "fail"}
    child = AsyncFlow("child")
    flow = AsyncFlow("flow")
    flow.task("a", **options)(returns(1))
    flow.subflow("b", **options)(lambda _: child)
    flow.add_task_definition("c", returns(1), **options).add_subflow_definition("d", child, **options)
    built = FlowBuilder("flow").add_task("a", returns(1), **options).add_subflow("b", child, **options).build()
    for made in (flow, built):
        assert {task.retry for task in made.definition.tasks.values()} == {policy}


@pytest.mark.parametrize("options", [{"max_interruptions": 0}, {"on_interrupt": "explode"}])
def test_an_option_that_makes_no_sense_is_refused_and_leaves_the_flow_as_it_was(options: dict[str, Any]) -> None:
    flow = AsyncFlow("flow")
    with pytest.raises(InvalidOptionError, match=f"^Task 'a': {next(iter(options))}="):
        flow.add_task_definition("a", returns(1), **options)
    assert not flow.has_task("a")


def test_another_retry_policy_leaves_the_options_as_they_were() -> None:
    flow = AsyncFlow("flow").add_task_definition("a", returns(1), max_interruptions=7, on_interrupt="fail")
    flow.update_task_retry_policy("a", 3, 2)
    assert flow.definition.get("a").retry == RetryPolicy(3, 2.0, max_interruptions=7, on_interrupt="fail")


async def test_the_details_of_a_run_show_the_budget_and_what_was_used_of_it(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("a", returns(1), max_interruptions=7)
    run_id = flow.init_run()
    await die_in(flow, run_id, "a")
    await flow.run_until_complete(run_id)
    told = json.loads(json.dumps(flow.get_execution_details(run_id)))["tasks"]["a"]
    assert (told["max_interruptions"], told["on_interrupt"], told["crashes"], told["interruptions"]) == (7, "retry", 1, 1)


def test_ctrl_c_in_a_task_that_must_not_run_twice_fails_it_even_where_the_loop_goes_on() -> None:
    flow, calls = AsyncFlow("flow"), []

    @flow.task(on_interrupt="fail")
    async def only(ctx: Context) -> None:
        calls.append("only")
        raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it would tell of the interrupt once more
    running = loop.create_task(flow.run_until_complete(flow.init_run()))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(running)
    assert states_of(loop.run_until_complete(running)) == {"only": "failed"}
    loop.close()
    assert calls == ["only"]


async def test_a_task_that_must_not_run_twice_and_had_not_begun_when_the_run_was_stopped_runs_later() -> None:
    class Slow(MemoryStore):
        """Makes each commit in a thread, where it takes its time while the run is stopped."""

        def __init__(self) -> None:
            super().__init__()
            self.go_on = threading.Event()
            self.go_on.set()
            self.waiting = threading.Event()

        def commit_at_once(self, changes: Changes) -> bool:
            return False

        def commit(self, changes: Changes) -> None:
            if any(task.state == "running" for task in changes.tasks):
                self.waiting.set()
                self.go_on.wait(30)
            super().commit(changes)

    store, calls = Slow(), []
    flow = AsyncFlow("flow", store)

    @flow.task(on_interrupt="fail")
    async def only(ctx: Context) -> None:
        calls.append("only")

    run_id = flow.init_run()
    store.go_on.clear()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await asyncio.to_thread(store.waiting.wait, 30)
    running.cancel()
    await asyncio.sleep(0)
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (calls, states_of(store.load(run_id))) == ([], {"only": "scheduled"})
    assert states_of(await flow.run_until_complete(run_id)) == {"only": "success"}
    assert calls == ["only"]
