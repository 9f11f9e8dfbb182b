"""Flows whose tasks run in worker processes: real processes, real signals, real stores."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, CannotTravelError, RetryPolicy, SQLiteStore, WorkerDiedError, WorkflowRun
from . import worker_tasks
from .attempts import until
from .conftest import states_of
from .processes import PACKAGE, ROOT, needs_posix
from .test_worker_processes import is_alive

pytestmark = needs_posix


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def made(**options: Any) -> AsyncFlow:
    """A flow whose functions run in processes."""
    return AsyncFlow("f", executor="process", max_processes=2, **options)


def noted(notes: Path) -> list[list[str]]:
    """The whole lines that tasks wrote."""
    return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


async def drive(flow: AsyncFlow, notes: Path) -> WorkflowRun:
    """Make the run "r" and drive it to its end."""
    return await asyncio.wait_for(flow.run_until_complete(flow.init_run({"notes": str(notes)}, run_id="r")), 50)


async def test_a_flow_comes_to_the_same_in_processes_as_in_threads(tmp_path: Path) -> None:
    def build(executor: str, store: SQLiteStore) -> AsyncFlow:
        inner = AsyncFlow("inner", executor=executor).add_task_definition("only", worker_tasks.one)
        flow = AsyncFlow("f", store, executor=executor)
        flow.add_task_definition("near", worker_tasks.one)
        flow.add_task_definition("sees", worker_tasks.sees, dependencies=["near"])
        flow.add_task_definition("later", worker_tasks.later, executor="process")
        flow.add_task_definition("fails", worker_tasks.fails, max_retries=1)
        return flow.add_subflow_definition("in", inner, dependencies=["near"])

    def told(flow: AsyncFlow) -> Any:
        ended = flow.run({"day": "Monday", "gone": 1}, run_id="r")
        return {
            path: (task.state, task.output, task.reason, [entry.message for entry in task.logs], task.try_number)
            for path, task in ended.get_all_tasks_recursive(flow.store).items()
            if task.child_run_id is None and path != "sees"
        }, ended.params

    results = []
    for executor in ("thread", "process"):
        with SQLiteStore(tmp_path / f"{executor}.db") as store:
            results.append(await asyncio.to_thread(told, build(executor, store)))
    assert results[0] == results[1]
    assert results[1][0]["fails"][3] == ["last words"]
    assert results[1][1] == {"day": "Monday", "seen": "Monday"}


async def test_what_is_in_the_way_of_travelling_is_refused_before_a_run_exists() -> None:
    flow = made().add_task_definition("a", lambda ctx: 1)
    with pytest.raises(CannotTravelError, match="it is a lambda") as caught:
        flow.init_run()
    assert caught.value.task_id == "a"
    assert flow.store.list_runs() == []


async def test_a_time_out_kills_the_worker_and_its_children_and_leaves_its_siblings_alone(notes: Path) -> None:
    flow = made()
    flow.add_task_definition("hangs", worker_tasks.sleeps_with_a_child, timeout=1.5)
    flow.add_task_definition("beside", worker_tasks.sleeps_a_little)
    ended = await drive(flow, notes)
    assert states_of(ended) == {"hangs": "failed", "beside": "success"}
    assert "TaskTimeoutError: Attempt 0 of task 'hangs' did not end within 1.5 seconds" in str(ended.tasks["hangs"].reason)
    (pids,) = noted(notes)
    await until(lambda: not any(is_alive(int(pid)) for pid in pids))


async def test_a_crash_is_a_failed_attempt_with_a_reason_and_a_retry_follows(notes: Path) -> None:
    flow = made()
    flow.add_task_definition("segfaults", worker_tasks.crashes, max_retries=1)
    flow.add_task_definition("exits", worker_tasks.exits, dependencies=[])
    ended = await drive(flow, notes)
    assert states_of(ended) == {"segfaults": "failed", "exits": "failed"}
    assert "killed by SIGSEGV" in str(ended.tasks["segfaults"].reason)
    assert "exit code 7" in str(ended.tasks["exits"].reason)
    assert [attempt.result.value for attempt in flow.store.list_attempts("r", "segfaults")] == ["failed", "failed"]
    assert [entry.message for entry in ended.tasks["segfaults"].logs] == ["about to crash"]


async def test_a_policy_may_tell_a_dead_worker_from_other_failures(notes: Path) -> None:
    flow = made()
    policy = RetryPolicy(max_retries=1, retry_on=WorkerDiedError)
    flow.add_task_definition("dies", worker_tasks.is_killed, retry=policy)
    flow.add_task_definition("fails", worker_tasks.fails, retry=policy)
    ended = await drive(flow, notes)
    assert {task_id: task.try_number for task_id, task in ended.tasks.items()} == {"dies": 1, "fails": 0}


async def test_one_hung_task_is_cancelled_and_its_process_killed_while_the_run_goes_on(notes: Path) -> None:
    flow = made()
    flow.add_task_definition("hung", worker_tasks.sleeps_and_ignores_sigterm)
    flow.add_task_definition("beside", worker_tasks.sleeps_a_little)
    call = asyncio.create_task(drive(flow, notes))
    await until(lambda: noted(notes) != [])
    assert flow.cancel_task("r", "hung")
    ended = await call
    assert states_of(ended) == {"hung": "cancelled", "beside": "success"}
    ((pid,),) = noted(notes)
    await until(lambda: not is_alive(int(pid)))


async def test_a_cancelled_run_leaves_no_process_at_work(notes: Path) -> None:
    flow = made()
    for number in range(4):
        flow.add_task_definition(f"t{number}", worker_tasks.sleeps)
    call = asyncio.create_task(drive(flow, notes))
    await until(lambda: len(noted(notes)) == 2)
    assert flow.cancel("r")
    assert (await call).state == "cancelled"
    await until(lambda: not any(is_alive(int(pid)) for (pid,) in noted(notes)))


async def test_signs_of_life_come_back_from_a_worker(notes: Path) -> None:
    flow = made()
    flow.add_task_definition("beats", worker_tasks.beats_for_a_while, heartbeat_timeout=2.5)
    flow.add_task_definition("silent", worker_tasks.sleeps, heartbeat_timeout=2.5)
    ended = await drive(flow, notes)
    assert states_of(ended) == {"beats": "success", "silent": "failed"}
    assert "no sign of life for 2.5 seconds" in str(ended.tasks["silent"].reason)


SCRIPT = """
import sys
from {package} import AsyncFlow, SQLiteStore
from {package}.__tests__ import worker_tasks

def main():
    flow = AsyncFlow("f", SQLiteStore({db!r}), executor="process", max_processes=2)
    flow.add_task_definition("quick", worker_tasks.one)
    flow.add_task_definition("slow", worker_tasks.sleeps_with_a_child, dependencies=["quick"])
    flow.run({{"notes": {notes!r}}}, run_id="r")

if __name__ == "__main__":
    main()
"""


def started(tmp_path: Path, notes: Path) -> subprocess.Popen[bytes]:
    """A program that drives the run "r", its second task under way in a worker."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(package=PACKAGE, db=str(tmp_path / "runs.db"), notes=str(notes))))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
)
async def test_a_program_that_is_stopped_or_killed_leaves_a_run_to_continue_and_no_process(
    tmp_path: Path, notes: Path, number: int, code: int
) -> None:
    program = await asyncio.to_thread(started, tmp_path, notes)
    try:
        await until(lambda: noted(notes) != [] or program.poll() is not None)
        program.send_signal(number)
        _, errors = await asyncio.to_thread(program.communicate, None, 30)
        assert program.returncode == code, errors
    finally:
        program.kill()
        await asyncio.to_thread(program.communicate)
    (pids,) = noted(notes)
    await until(lambda: not any(is_alive(int(pid)) for pid in pids))
    with SQLiteStore(tmp_path / "runs.db") as store:
        if number != signal.SIGKILL:
            assert (store.load("r").state, states_of(store.load("r"))) == ("scheduled", {"quick": "success", "slow": "scheduled"})
        flow = AsyncFlow("f", store).add_task_definition("quick", worker_tasks.exits)
        flow.add_task_definition("slow", worker_tasks.one, dependencies=["quick"])
        assert states_of(await flow.run_until_complete("r")) == {"quick": "success", "slow": "success"}
        assert store.load("r").tasks["quick"].output == 1
