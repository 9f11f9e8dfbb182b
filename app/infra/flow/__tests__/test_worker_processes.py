"""Worker processes, real ones: used again, killed with all that they started, replaced when they die, and never left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import Context, worker_processes
from ..executors import Outcome
from ..remote_executors import ProcessExecutor
from ..worker_processes import WorkerPool, WorkerProcess
from . import worker_tasks
from .attempts import PATIENCE, Tray, call_of, live_run, until
from .processes import PACKAGE, ROOT, needs_posix

pytestmark = needs_posix


class Desk:
    """An executor with a pool of its own, and what it delivered."""

    def __init__(self, folder: Path, max_processes: int = 2, idle_seconds: float = 60.0) -> None:
        self.tray = Tray()
        self.pool = WorkerPool(idle_seconds)
        self.executor = ProcessExecutor(self.tray, max_processes, self.pool)
        self.notes = folder / "notes"

    def start(self, function: Callable[[Any], Any]) -> Any:
        """Begin an attempt, without waiting for it."""
        call = call_of(function, live_run(function, params={"notes": str(self.notes)}))
        self.executor.start(call)
        return call

    async def run(self, function: Callable[[Any], Any]) -> Outcome:
        """Make an attempt."""
        call = self.start(function)
        outcome = await self.tray.next()
        assert outcome.call is call
        return outcome

    async def noted(self) -> list[int]:
        """The process ids that the task noted when it had begun."""
        await until(lambda: self.notes.exists() and self.notes.read_text().endswith("\n"))
        return [int(word) for word in self.notes.read_text().split()]

    @property
    def idle(self) -> list[int]:
        """The process ids of idle workers."""
        return [worker.pid for worker in self.pool._idle]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.executor.close()
    made.pool.close()
    for worker in list(made.pool._all):
        made.pool.end(worker)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")


async def gone(*pids: int) -> None:
    """Wait until none of these processes is there."""
    await until(lambda: not any(is_alive(pid) for pid in pids))


def message(outcome: Outcome) -> str:
    """Why an attempt failed."""
    assert outcome.failure is not None, outcome
    return outcome.failure.message


# --- what they do ---


async def test_workers_are_processes_of_their_own_and_used_again(desk: Desk) -> None:
    """Two attempts one after the other run in one process, which is not ours and leads a group of its own."""
    first = await desk.run(worker_tasks.pid)
    second = await desk.run(worker_tasks.pid)
    assert first.output == second.output == str(desk.idle[0])
    assert desk.idle[0] != os.getpid()
    assert os.getpgid(desk.idle[0]) == desk.idle[0]
    assert repr(desk.pool) == "<WorkerPool of 1 workers, 1 of them idle>"
    assert repr(desk.pool._idle[0]) == f"<WorkerProcess {desk.idle[0]}, ready>"
    assert repr(desk.executor) == "<ProcessExecutor, 0 under way>"


async def test_a_hundred_tasks_through_two_workers(desk: Desk) -> None:
    """No more processes are started than may run at once, and each task has its outcome."""
    for _ in range(100):
        desk.start(worker_tasks.one)
    assert [(await desk.tray.next()).output for _ in range(100)] == ["1"] * 100
    assert len(desk.pool._all) <= 2


async def test_coroutine_functions_run_there_too(desk: Desk) -> None:
    assert (await desk.run(worker_tasks.later)).output == '"only"'


async def test_a_failure_comes_back_whole_and_the_worker_is_kept(desk: Desk) -> None:
    """Type, message, traceback and logs; SystemExit and what cannot be stored are failures as well."""
    outcome = await desk.run(worker_tasks.fails)
    assert outcome.failure is not None
    assert outcome.failure.summary == "ValueError: bad row"
    assert "in fails" in outcome.failure.traceback
    assert "last words" in (outcome.logs or "")
    assert message(await desk.run(worker_tasks.leaves)) == "3"
    assert "_thread.lock" in message(await desk.run(worker_tasks.gives_a_lock))
    assert len(desk.pool._all) == 1


async def test_heartbeats_and_lines_arrive_while_the_task_runs(desk: Desk) -> None:
    """The line is told before the task ends, and the sign of life is dated by the clock of the run."""
    call = desk.start(says_and_sleeps)
    await until(lambda: call.context._logs)
    await until(lambda: call.context._last_beat is not None)
    assert desk.tray.is_empty()
    assert desk.executor.stop(call)
    assert "I begin" in ((await desk.tray.next()).logs or "")


def says_and_sleeps(ctx: Context) -> None:
    ctx.log("I begin")
    ctx.heartbeat()
    time.sleep(600)


async def test_a_function_that_cannot_be_sent_fails_the_attempt(desk: Desk) -> None:
    assert "it is a lambda" in message(await desk.run(lambda ctx: 1))
    assert desk.pool._all == set()


async def test_what_a_task_leaves_behind_does_not_speak_into_the_next(desk: Desk) -> None:
    """A thread that logs on after its task has ended is not heard, and blocks nobody."""
    first = await desk.run(worker_tasks.logs_after_its_end)
    for _ in range(20):
        second = await desk.run(worker_tasks.pid)
        assert (second.output, second.logs) == (first.output, None)


async def test_what_a_task_forks_has_no_voice(desk: Desk) -> None:
    """Its lines are lost, rather than mixed up with those of the task."""
    outcome = await desk.run(worker_tasks.forks_a_child_that_logs)
    assert outcome.output == "11"
    assert "parent" in (outcome.logs or "")
    assert "child" not in (outcome.logs or "")


async def test_a_task_may_use_processes_itself(desk: Desk) -> None:
    assert (await desk.run(worker_tasks.uses_processes_itself)).output == "[1,4,9]"


# --- what becomes of them ---


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (worker_tasks.crashes, "was killed by SIGSEGV (a crash in native code)"),
        (worker_tasks.exits, "ended with exit code 7"),
        (worker_tasks.is_killed, "was killed by SIGKILL (by hand, or because the machine ran out of memory)"),
        (worker_tasks.is_killed_but_its_child_holds_all_open, "was killed by SIGKILL"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_worker_that_dies_fails_its_task_and_says_how(function: Any, says: str, desk: Desk) -> None:
    """Signal or exit code, task and process id; what it had logged is kept; the next task finds another worker."""
    await desk.run(worker_tasks.one)
    (pid,) = desk.idle
    outcome = await desk.run(function)
    assert outcome.failure is not None
    assert outcome.failure.type_name.endswith("WorkerDiedError")
    assert outcome.failure.message.startswith(f"Task 'only': its worker process (pid {pid}) {says}")
    assert ("about to crash" in (outcome.logs or "")) is (function is worker_tasks.crashes)
    assert not is_alive(pid)
    assert (await desk.run(worker_tasks.one)).output == "1"


async def test_an_idle_worker_that_died_is_replaced_unnoticed(desk: Desk) -> None:
    """It had not begun the task, so nothing was lost; and however many died, the second one taken is new."""
    for _ in range(2):
        desk.start(worker_tasks.sleeps_a_little)
    for _ in range(2):
        await desk.tray.next()
    idle = desk.idle
    assert len(idle) == 2
    for pid in idle:
        os.kill(pid, signal.SIGKILL)
    await gone(*idle)
    assert (await desk.run(worker_tasks.one)).output == "1"


async def test_death_is_seen_without_the_systems_help(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no descriptor that stands for a process, its exit code is looked at; also with its pipe held open."""
    monkeypatch.setattr(worker_processes, "_end_of", lambda worker: [])
    monkeypatch.setattr(worker_processes, "_LOOK_SECONDS", 0.05)
    assert "exit code 7" in message(await desk.run(worker_tasks.exits))
    assert "SIGKILL" in message(await desk.run(worker_tasks.is_killed_but_its_child_holds_all_open))
    call = desk.start(worker_tasks.sleeps)
    await desk.noted()
    assert desk.executor.stop(call)
    assert (await desk.tray.next()).interrupted


async def test_a_worker_that_takes_too_long_to_start_is_killed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "START_SECONDS", -1.0)
    monkeypatch.setattr(worker_processes, "_LOOK_SECONDS", 0.0)
    assert "took more than -1 s to start and was killed" in message(await desk.run(worker_tasks.one))
    assert desk.pool._all == set()


async def test_where_the_machine_gives_no_more_processes_the_attempt_fails(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(worker: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(worker_processes, "_start", refuse)
    assert "Resource temporarily unavailable" in message(await desk.run(worker_tasks.one))


# --- stop ---


async def test_stop_kills_the_worker_with_its_children_and_no_other(desk: Desk) -> None:
    """The attempt is interrupted, its process and the child of that are gone, and its sibling ends well."""
    sibling = desk.start(worker_tasks.sleeps_a_little)
    call = desk.start(worker_tasks.sleeps_with_a_child)
    pid, child = await desk.noted()
    began = time.monotonic()
    assert desk.executor.stop(call) is True
    outcomes = {outcome.call: outcome for outcome in [await desk.tray.next(), await desk.tray.next()]}
    assert time.monotonic() - began < PATIENCE
    assert (outcomes[call].interrupted, outcomes[call].failure, call.context.cancelled) == (True, None, True)
    assert outcomes[sibling].output == '"slept"'
    await gone(pid, child)
    await until(lambda: not desk.executor._attempts)
    assert desk.executor.stop(call) is False


async def test_a_worker_that_ignores_sigterm_is_killed_soon_after(desk: Desk) -> None:
    call = desk.start(worker_tasks.sleeps_and_ignores_sigterm)
    (pid,) = await desk.noted()
    assert desk.executor.stop(call)
    assert (await desk.tray.next()).interrupted
    await gone(pid)


async def test_a_task_can_clean_up_at_sigterm(desk: Desk) -> None:
    """What it does in its handler is done, and it is interrupted all the same."""
    call = desk.start(worker_tasks.cleans_up_at_sigterm)
    await desk.noted()
    assert desk.executor.stop(call)
    outcome = await desk.tray.next()
    assert (outcome.interrupted, outcome.call) == (True, call)
    assert "cleaned up" in desk.notes.read_text()
    assert desk.idle == []


async def test_a_worker_that_is_starting_can_be_stopped(desk: Desk) -> None:
    """An attempt that no worker has yet is interrupted too."""
    call = desk.start(worker_tasks.one)
    assert desk.executor.stop(call)
    assert (await desk.tray.next()).interrupted
    later = desk.start(worker_tasks.one)
    await until(lambda: desk.executor._attempts[later].worker is not None or not desk.tray.is_empty())
    if desk.executor.stop(later):
        outcome = await desk.tray.next()
        assert outcome.interrupted or outcome.output == "1"


async def test_cancel_and_wait_end_all_that_is_under_way(desk: Desk) -> None:
    """When `wait` returns, every outcome has been delivered."""
    calls = {desk.start(worker_tasks.sleeps_with_a_child) for _ in range(2)}
    await until(lambda: desk.notes.exists() and desk.notes.read_text().count("\n") == 2)
    pids = await desk.noted()
    await desk.executor.wait(0.01)
    assert desk.tray.is_empty()
    desk.executor.cancel()
    await desk.executor.wait(PATIENCE)
    assert not desk.tray.is_empty()
    assert {(await desk.tray.next()).call for _ in range(2)} == calls
    await gone(*pids)
    await desk.executor.wait(PATIENCE)


async def test_close_kills_what_is_busy_and_leaves_what_is_idle(desk: Desk) -> None:
    """Idle workers stay in the pool for the next run."""
    desk.start(worker_tasks.sleeps_a_little)
    desk.start(worker_tasks.sleeps)
    (pid,) = await desk.noted()
    await desk.tray.next()
    await until(lambda: desk.idle)
    desk.executor.close()
    await gone(pid)
    (idle,) = desk.idle
    assert is_alive(idle)
    again = ProcessExecutor(desk.tray, 1, desk.pool)
    await desk.tray.next()
    again.start(call_of(worker_tasks.pid))
    assert (await desk.tray.next()).output == str(idle)
    again.close()


async def test_idle_workers_end_after_a_while(tmp_path: Path) -> None:
    """And leave no zombie; who is idle for less long stays."""
    desk = Desk(tmp_path, idle_seconds=0.3)
    await desk.run(worker_tasks.one)
    (pid,) = desk.idle
    await until(lambda: not desk.pool._all)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    desk.pool._idle_seconds = 60
    await desk.run(worker_tasks.one)
    desk.pool._sweep()
    assert len(desk.idle) == 1
    desk.executor.close()
    desk.pool.close()
    for worker in list(desk.pool._all):
        desk.pool.end(worker)


async def test_a_closed_pool_starts_nothing(tmp_path: Path) -> None:
    """As at the interpreter's end: an attempt that begins then fails, and leaves no process."""
    desk = Desk(tmp_path)
    desk.pool.close()
    assert message(await desk.run(worker_tasks.one)) == "the interpreter is ending"
    assert desk.pool._all == set()
    desk.executor.close()


def test_where_there_are_no_more_threads_workers_end_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a timer, a worker that is told to end is killed at once, and an idle one is just kept."""
    pool = WorkerPool()
    worker = pool.take()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.give_back(worker)
        assert pool.take() is worker
        worker.terminate()
    pool.end(worker)
    assert repr(worker) == f"<WorkerProcess {worker.pid}, gone>"
    worker.terminate()
    worker.kill()
    assert worker.bury() in (-signal.SIGKILL, -signal.SIGTERM)


def test_nothing_stays_open_when_a_worker_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("/dev/fd")

    def fail(worker: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(worker_processes, "_start", fail)
    gc.collect()
    before = len(list(folder.iterdir()))
    for _ in range(5):
        with pytest.raises(OSError):
            WorkerProcess()
    gc.collect()
    assert len(list(folder.iterdir())) == before


# --- the program around them: scripts in processes of their own ---


SCRIPT = """
import asyncio, os, sys, time
sys.path.insert(0, {root!r})
NOTES = {notes!r}
def note(*words):
    with open(NOTES, "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")
def noted():
    return os.path.exists(NOTES) and open(NOTES).read().endswith("\\n")
def pid(ctx):
    return os.getpid()
def sleeps(ctx):
    note(os.getpid())
    time.sleep(600)
def sleeps_with_a_child(ctx):
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note(os.getpid(), child.pid)
    time.sleep(600)
def holds_the_lock(ctx):
    import ctypes
    note(os.getpid())
    ctypes.PyDLL(None).sleep(600)
async def desk():
    from {package}.__tests__.attempts import Tray, call_of, until
    from {package}.remote_executors import ProcessExecutor
    return Tray(), call_of, until
def executor(tray):
    from {package}.remote_executors import ProcessExecutor
    return ProcessExecutor(tray, 2)
{body}
"""


class Script:
    """A program that uses worker processes, as a file."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self._path = folder / "script.py"
        self._process: subprocess.Popen[str] | None = None

    def start(self, body: str, **options: Any) -> subprocess.Popen[str]:
        """Start it; the body is told what to do after its functions are there."""
        body = textwrap.dedent(body)
        self._path.write_text(SCRIPT.format(root=str(ROOT), package=PACKAGE, notes=str(self.notes), body=body))
        self._process = subprocess.Popen(
            [sys.executable, str(self._path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        return self._process

    def run(self, body: str) -> tuple[int, str, str]:
        """Run it to its end: exit code, and what it wrote."""
        process = self.start(body)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    async def noted(self, lines: int = 1) -> list[int]:
        """The process ids that it noted."""
        await until(lambda: self.notes.exists() and self.notes.read_text().count("\n") >= lines)
        return [int(word) for word in self.notes.read_text().split()]

    def clean_up(self) -> None:
        """Leave nothing of it behind."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    made = Script(tmp_path)
    yield made
    made.clean_up()


BUSY = """
async def work():
    tray, call_of, until = await desk()
    workers = executor(tray)
    workers.start(call_of({function}))
    await until(noted)
    {then}
if __name__ == "__main__":
    asyncio.run(work())
"""


@pytest.mark.parametrize("function", ["sleeps", "sleeps_with_a_child", "holds_the_lock"])
async def test_nothing_outlives_a_program_that_is_killed_in_the_middle_of_a_task(function: str, script: Script) -> None:
    """Kill -9 takes the workers along, and what they started; also while native code keeps the interpreter from running."""
    if function == "holds_the_lock" and sys.platform != "linux":
        pytest.skip("only Linux kills a process for its parent's end by itself")
    process = script.start(BUSY.format(function=function, then="await asyncio.sleep(600)"))
    pids = await script.noted()
    assert all(is_alive(pid) for pid in pids)
    process.kill()
    process.wait()
    await gone(*pids)


IDLE = """
async def work():
    tray, call_of, until = await desk()
    workers = executor(tray)
    workers.start(call_of(pid))
    note((await tray.next()).output)
    workers.close()
    {then}
if __name__ == "__main__":
    asyncio.run(work())
    print("end")
"""


async def test_an_idle_worker_ends_when_its_program_is_killed(script: Script) -> None:
    process = script.start(IDLE.format(then="await asyncio.sleep(600)"))
    pids = await script.noted()
    process.kill()
    process.wait()
    await gone(*pids)


@pytest.mark.parametrize("closes", [True, False])
async def test_the_interpreter_ends_at_once_with_busy_workers(closes: bool, script: Script) -> None:
    """Whether the executor was closed or not: nothing is waited for, nothing is left, nothing is said."""
    done = script.run(BUSY.format(function="sleeps_with_a_child", then="workers.close()" if closes else "pass"))
    assert done == (0, "", "")
    await gone(*await script.noted())


async def test_the_interpreter_ends_at_once_with_idle_workers(script: Script) -> None:
    assert script.run(IDLE.format(then="pass")) == (0, "end\n", "")
    await gone(*await script.noted())


async def test_the_interpreter_does_not_wait_for_threads_that_were_given_up(script: Script) -> None:
    """A function that hangs in a thread is abandoned, with the interpreter's exit too."""
    done = script.run(
        """
    async def work():
        tray, call_of, until = await desk()
        from PACKAGE.executors import ThreadExecutor
        threads = ThreadExecutor(tray)
        call = call_of(sleeps)
        threads.start(call)
        await until(noted)
        threads.stop(call)
    if __name__ == "__main__":
        asyncio.run(work())
    """.replace("PACKAGE", PACKAGE)
    )
    assert done == (0, "", "")


async def test_ctrl_c_at_the_terminal_is_not_for_the_workers(script: Script) -> None:
    """The signal goes to the whole group of the terminal; workers say nothing, and end with the program."""
    process = script.start(BUSY.format(function="sleeps", then="await asyncio.sleep(600)"))
    pids = await script.noted()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert err.count("Traceback") <= 2, err  # the program's own: asyncio's, and that of the KeyboardInterrupt
    assert "worker_main" not in err
    await gone(*pids)


async def test_a_script_without_a_guard_fails_with_advice(script: Script) -> None:
    """Its work is done on import, in each worker again, where it goes wrong: the failure says what is most often missing."""
    _, out, err = script.run("""
    if __name__ != "__main__":
        sys.exit(5)
    async def work():
        tray, call_of, until = await desk()
        workers = executor(tray)
        workers.start(call_of(pid))
        print((await tray.next()).failure.message)
    asyncio.run(work())
    """)
    assert "no worker process could take it" in out, err
    assert "ended with exit code 5 before it was ready" in out
    assert 'under `if __name__ == "__main__":`' in out


async def test_a_forked_child_has_no_workers_of_its_parent(script: Script) -> None:
    """It starts its own, ends without touching the parent's, and does not keep these alive when the parent is killed."""
    process = script.start("""
    async def once(workers, tray, call_of):
        workers.start(call_of(pid))
        return (await tray.next()).output
    async def work():
        tray, call_of, until = await desk()
        workers = executor(tray)
        first = await once(workers, tray, call_of)
        note(first)
        child = os.fork()
        if child == 0:
            return "child"
        os.waitpid(child, 0)
        note(await once(workers, tray, call_of))
        if os.fork() == 0:
            time.sleep(600)
        await asyncio.sleep(600)
    async def again():
        tray, call_of, until = await desk()
        note(await once(executor(tray), tray, call_of))
    if __name__ == "__main__":
        import warnings
        warnings.simplefilter("ignore")
        if asyncio.run(work()) == "child":
            asyncio.run(again())
    """)
    parents, childs, parents_again = await script.noted(3)
    assert parents == parents_again != childs
    await gone(childs)
    assert is_alive(parents)
    process.kill()
    process.wait()
    await gone(parents)
    os.killpg(process.pid, signal.SIGKILL)


async def test_a_worker_outlives_its_parents_signal_habits(script: Script) -> None:
    """A program that ignores SIGCHLD, so that the system keeps no exit codes, still learns that a worker died."""
    done = script.run("""
    def dies(ctx):
        os._exit(3)
    async def work():
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        tray, call_of, until = await desk()
        workers = executor(tray)
        workers.start(call_of(dies))
        print((await tray.next()).failure.summary.partition("(pid")[0])
    if __name__ == "__main__":
        asyncio.run(work())
    """)
    assert done[0] == 0, done
    assert "WorkerDiedError: Task 'only': its worker process" in done[1]


def test_a_program_without_worker_processes_loads_nothing_of_them() -> None:
    """The rooms for other processes are loaded with the first task that needs them, not with the package."""
    script = f"import sys, {PACKAGE}; from {PACKAGE} import AsyncFlow; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(
        {"multiprocessing", "pickle", *(f"{PACKAGE}.{room}" for room in ("travel", "snapshot", "remote_executors"))}
    )


def test_the_loop_is_never_held_up(tmp_path: Path) -> None:
    """Starting, stopping and closing return at once, whatever the processes do."""

    async def main() -> float:
        desk = Desk(tmp_path, max_processes=4)
        loop = asyncio.get_running_loop()
        began = loop.time()
        calls = [desk.start(worker_tasks.sleeps) for _ in range(4)]
        for call in calls:
            desk.executor.stop(call)
        desk.executor.close()
        took = loop.time() - began
        for _ in calls:
            await desk.tray.next()
        desk.pool.close()
        return took

    assert asyncio.run(main()) < 1
