"""Processes that die, at any moment and in any way, and others that work on the same store meanwhile: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from .processes import PATIENCE, Program, Programs, bodies, check_never_twice_at_once, needs_posix, programs

__all__ = ["programs"]

pytestmark = needs_posix


# --- one death ---


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGHUP, signal.SIGABRT, signal.SIGQUIT], ids=lambda number: number.name
)
def test_a_run_goes_on_after_whatever_killed_its_process(number: signal.Signals, programs: Programs) -> None:
    first = programs.worker(hold=["t1"])
    assert first.ask("drive nightly") == "in t1"
    first.signal(number)
    assert first.code() == -number
    second = programs.worker()
    assert second.ask("drive nightly") == "ended success"
    times = {task_id: len(found) for (_, task_id), found in bodies(programs.folder).items()}
    assert times == {"t0": 1, "t1": 2, "t2": 1}
    with programs.store() as store:
        assert store.load("nightly").tasks["t2"].output_json == 3
        assert store.check() == []


EXITS = """
flow = chain(make_store())

def exits(ctx):
    if not (FOLDER / "again").exists():
        (FOLDER / "again").touch()
        os._exit(0)
    return body(ctx)

flow.add_task_definition("t1", exits, dependencies=["t0"], replace=True)
say("ended", flow.run(run_id="nightly").state)
"""


def test_a_task_that_ends_its_process_by_itself_runs_again(programs: Programs) -> None:
    """With exit code 0, even: `os._exit` asks nobody."""
    assert programs.start(EXITS).code() == 0
    again = programs.start(EXITS)
    again.expect("ended success")
    assert again.code() == 0
    with programs.store() as store:
        assert [attempt.result.value for attempt in store.list_attempts("nightly", "t1")] == ["interrupted", "success"]


POISON = """
store = make_store()
flow = AsyncFlow("poison", store)

def body_of(ctx):
    note("begin", ctx.run.id, "only", os.getpid(), time.monotonic_ns())
    if ctx.run.id == "run1":
        os.kill(os.getpid(), signal.SIGKILL)
    note("end", ctx.run.id, "only", os.getpid(), time.monotonic_ns())
    return ctx.run.id

flow.add_task_definition("only", body_of)
for number in range(4):
    flow.init_run(run_id=f"run{number}")
# As a service does when it starts: whatever has not ended goes on, the oldest first.
for run_id in reversed(store.list_runs()):
    if run_id != OPTIONS.get("without"):
        say(run_id, flow.run(run_id=run_id).state)
"""


def test_a_run_that_kills_its_process_each_time_keeps_no_other_from_being_recovered(programs: Programs) -> None:
    """It fails when its budget is used up, those behind it come to their turn, and meanwhile nobody has to wait for that."""
    first = programs.start(POISON)
    first.expect("run0 success")
    assert first.code() == -signal.SIGKILL
    beside = programs.start(POISON, without="run1")
    for line in ("run0 success", "run2 success"):
        beside.expect(line)
    assert beside.line() == "run3 success"
    lives = 1
    while (life := programs.start(POISON)).line() == "run0 success" and life.code() == -signal.SIGKILL:
        lives += 1
        assert lives <= 5
    assert lives == 5
    for line in ("run1 failed", "run2 success", "run3 success"):
        life.expect(line)
    assert life.code() == 0
    assert {run_id: len(times) for (run_id, _), times in bodies(programs.folder).items()} == {
        "run0": 1,
        "run1": 5,
        "run2": 1,
        "run3": 1,
    }


# --- deaths at every commit, and again during the recovery ---

DEATHS = """
import faulthandler

def die_at(store, number, after):
    # Die at the write of that number, counted over claims and commits: before it, or when it is done.
    count = 0
    def counted(write):
        def instead(*arguments, **options):
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = write(*arguments, **options)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        return instead
    store.claim, store.commit = counted(store.claim), counted(store.commit)
    store.commit_at_once = lambda changes: store.commit(changes) or True

def a_flow(store):
    def leaf(ctx):
        note("begin", ctx.run.parent_run_id, "leaf", os.getpid(), time.monotonic_ns())
        return (ctx.params["first"], 1)
    def task(ctx):
        note("begin", ctx.run.id, ctx.task_id, os.getpid(), time.monotonic_ns())
        ctx.params["seen"] = ctx.params.get("seen", 0) + 1
        return {"first": {1}, "second": 2.5, "last": 0}[ctx.task_id] or (ctx.pull("sub"), ctx.pull("second"))
    child = AsyncFlow("child").add_task_definition("leaf", leaf)
    flow = AsyncFlow("flow", store).add_task_definition("first", task)
    flow.add_subflow_definition("sub", child, dependencies=["first"])
    flow.add_task_definition("second", task, dependencies=["first"])
    return flow.add_task_definition("last", task, dependencies=["sub", "second"])

def life(run_id, number=0, after=False):
    pid = os.fork()  # quicker than a new interpreter; nothing was opened before
    if pid == 0:
        faulthandler.dump_traceback_later(10, exit=True)
        store = make_store()
        if number:
            die_at(store, number, after)
        run = a_flow(store).run(run_id=run_id)
        os._exit(0 if run.state == "success" else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code == 0

def finished(run_id):
    store = make_store()
    try:
        tasks = store.load(run_id).get_all_tasks_recursive(store)
        return {path.rpartition(".")[2] for path, task in tasks.items() if task.state == "success"}
    except RunNotFoundError:
        return set()
    finally:
        store.close()

def began(run_id):
    log = FOLDER / "effects.log"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [words[2] for words in lines if words[1] == run_id]

def case(run_id, *deaths):
    lives = 0
    for number, after in deaths:
        ended = life(run_id, number, after)
        lives += not ended
        done, before = finished(run_id), len(began(run_id))
        if ended:
            break
    assert life(run_id)
    assert not done & set(began(run_id)[before:]), (run_id, done, began(run_id))
    store = make_store()
    run = store.load(run_id)
    assert run.tasks["last"].output_json == (({1}, 1), 2.5), run
    assert run.tasks["last"].crashes + run.tasks["first"].crashes <= lives
    store.close()
    return lives == len(deaths)

count = 0
for after in (False, True):
    number = 1
    while case(f"{number}-{after}", (number, after)):
        count += 1
        if OPTIONS["pairs"]:  # each, or each second one ...
            again = 1 + number % OPTIONS["pairs"]
            while case(f"{number}-{after}-{again}", (number, after), (again, not after)):
                count += 1
                again += OPTIONS["pairs"]
        number += 1
store = make_store()
say(count, store.check(), {run.state.value for run in store.get_all_runs()})
"""


def test_a_kill_at_any_write_and_another_one_in_the_recovery_lose_nothing(programs: Programs) -> None:
    program = programs.start(DEATHS, pairs=3 if programs.kind == "sqlite" else 0)
    count, found, states = program.line(PATIENCE * 1.2).split(" ", 2)
    assert (found, states) == ("[]", "{'success'}")
    assert int(count) >= (25 if programs.kind == "sqlite" else 10)


ONE_RUN = """
say("ended", chain(make_store()).run(run_id="nightly").state)
"""
WRITES = "pwrite64,write,writev,rename,link,unlink,ftruncate"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_kill_at_a_write_of_the_operating_system_loses_nothing(programs: Programs) -> None:
    """Not all of them here: each takes two processes. What lies between two commits is a handful of writes."""
    killed = 0
    for number in (1, 2, 4, 6) if programs.kind == "json" else (1, 4, 16, 33):
        for path in list(programs.folder.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        inject = f"inject={WRITES}:signal=KILL:when={number}"
        life = programs.start(ONE_RUN, under=["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={WRITES}", "-e", inject])
        code, errors = life.ended_with()
        if "not permitted" in errors:
            pytest.skip("strace may not trace here")
        assert code in (0, -signal.SIGKILL), errors
        killed += code != 0
        finished: set[str] = set()
        with programs.store() as store:
            if store.exists("nightly"):
                finished = {name for name, task in store.load("nightly").tasks.items() if task.state == "success"}
            assert store.check() == []
        before = {task_id: len(times) for (_, task_id), times in bodies(programs.folder).items()}
        again = programs.start(ONE_RUN)
        again.expect("ended success")
        assert again.code() == 0
        after = {task_id: len(times) for (_, task_id), times in bodies(programs.folder).items()}
        assert {task_id: after[task_id] - before[task_id] for task_id in finished} == dict.fromkeys(finished, 0)
        with programs.store() as store:
            assert [task.output_json for task in store.load("nightly").tasks.values()] == [1, 2, 3]
            assert store.check() == []
    assert killed >= 3


# --- many processes on one store, flat out ---

FLAT_OUT = """
store = make_store()
flow = chain(store)
ended = 0
for number in range(OPTIONS["runs"]):
    ended += flow.run(run_id=f"{OPTIONS['name']}-{number}").state == "success"
say(ended)
"""


def flat_out(kind: str, folder: Path, processes: int, runs: int, kills: int, tasks: int = 4, seed: int = 1) -> None:
    """Have processes work through runs of their own on one store as fast as they can; kill some of them, and start them again.

    For a long run: `python -m app.infra.flow.__tests__.test_processes`.
    """
    chance = random.Random(seed)
    programs = Programs(kind, folder)

    def start(name: int) -> Program:
        return programs.start(FLAT_OUT, name=name, runs=runs, tasks=tasks)

    try:
        working = {name: start(name) for name in range(processes)}
        killed = 0
        while killed < kills:
            time.sleep(chance.uniform(0.1, 0.4))
            name = chance.choice(list(working))
            working[name].kill()
            killed += 1
            working[name] = start(name)
        for program in working.values():
            said = program.line(PATIENCE * max(1, processes * runs // 100))
            assert said == str(runs), said
            assert program.ended_with() == (0, "")
        with programs.store() as store:
            found = store.get_all_runs()
            assert sorted(run.id for run in found) == sorted(
                f"{name}-{number}" for name in range(processes) for number in range(runs)
            )
            for run in found:
                assert [task.output_json for task in run.tasks.values()] == list(range(1, tasks + 1)), run.id
            assert store.check() == []
        check_never_twice_at_once(folder)
        assert sum(len(times) - 1 for times in bodies(folder).values()) <= kills, (
            "each kill costs the one task that was under way"
        )
        # Whoever was killed when all its runs had ended left a file behind, and found nothing to own when it was started again.
        # The next owner removes it.
        with programs.store() as store:
            store.claim(found[0].id)
        assert programs.owner_files() == []
    finally:
        programs.clean_up()


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_many_processes_work_flat_out_on_one_store_while_some_are_killed(kind: str, tmp_path: Path) -> None:
    flat_out(kind, tmp_path, processes=5, runs=8, kills=4)


if __name__ == "__main__":
    for kind_of_store in sys.argv[1:] or ["sqlite", "json"]:
        with tempfile.TemporaryDirectory() as place:
            began = time.monotonic()
            flat_out(kind_of_store, Path(place), processes=8, runs=50, kills=20)
            seconds = time.monotonic() - began
            size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
            print(json.dumps({"store": kind_of_store, "seconds": round(seconds, 1), "bytes": size, "cores": os.cpu_count()}))
