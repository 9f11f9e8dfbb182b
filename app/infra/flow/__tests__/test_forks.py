"""A process that forks after it opened a store: each side goes on by itself, and no lock, run or result is lost on the way."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path

import pytest

from .. import forks
from ..forks import watch
from .processes import PACKAGE, Programs, needs_posix, programs

__all__ = ["programs"]

pytestmark = needs_posix


class Watched:
    def __init__(self) -> None:
        self.forked_in: list[int] = []

    def after_fork(self) -> None:
        self.forked_in.append(os.getpid())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_who_is_watched_is_told_in_the_child_alone_and_kept_alive_by_nobody() -> None:
    watched, dropped = Watched(), Watched()
    watch(watched)
    watch(watched)
    watch(dropped)
    count = len(forks._watched)
    del dropped
    gc.collect()
    assert len(forks._watched) < count
    child = os.fork()
    if child == 0:
        os._exit(0 if watched.forked_in == [os.getpid()] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert watched.forked_in == []


# --- programs that fork; a child that says nothing has hung, and the test with it ---

CHILD_WORKS = """
import gc, multiprocessing

store = make_store()
flow = chain(store)
say("parent", flow.run(run_id="before").state)

def child():
    signal.alarm(10)
    say("child sees", store.load("before").state, flow.store.list_runs())
    say("child", flow.run(run_id="child's").state)
    say("child again", chain(make_store()).run(run_id="child's other").state)

how = OPTIONS["how"]
if how == "multiprocessing":
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    code = process.exitcode
else:
    pid = os.fork()
    if pid == 0:
        child()
        if how == "fork and close":
            store.close()
        if how == "fork and os._exit":
            os._exit(0)
        sys.exit(0)  # an end with all that an interpreter does at its end
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
say("child ended with", code)
gc.collect()
say("parent", flow.run(run_id="after").state)
say(sorted(store.list_runs()), store.check())
"""


@pytest.mark.parametrize("programs", ["json"], indirect=True)
@pytest.mark.parametrize("how", ["fork", "fork and close", "fork and os._exit", "multiprocessing"])
def test_parent_and_child_each_go_on_with_the_store(how: str, programs: Programs) -> None:
    program = programs.start(CHILD_WORKS, how=how)
    for line in (
        "parent success",
        "child sees success ['before']",
        "child success",
        "child again success",
        "child ended with 0",
        "parent success",
        "['after', 'before', \"child's\", \"child's other\"] []",
    ):
        program.expect(line)
    assert program.ended_with() == (0, "")
    with programs.store() as store:
        assert len(store.list_runs()) == 4
        assert store.check() == []


FORKS_IN_A_TASK = """
import contextvars
store = make_store()
flow = AsyncFlow("flow", store)

def child(run_id):
    signal.alarm(10)
    say("child sees", store.load(run_id).tasks["forks"].state)
    for call in (lambda: flow.run(run_id=run_id), lambda: contextvars.Context().run(flow.run, run_id=run_id)):
        try:
            say("child", call().state)
        except RunOwnedError as error:
            say("child is told that it is owned by", str(error).partition("owned by ")[2].split(" on ")[0])
        except FlowError as error:  # the task's variables say that it is a part of that run
            say("child is told", type(error).__name__)
    say("child", chain(store).run(run_id="child's").state)

def forks(ctx):
    pid = os.fork()
    if pid == 0:
        try:
            child(ctx.run.id)
        except BaseException as error:
            say(repr(error))
        os._exit(0)
    os.waitpid(pid, 0)
    return 1

flow.add_task_definition("forks", forks)
flow.add_task_definition("last", lambda ctx: ctx.pull("forks") + 1, dependencies=["forks"])
run = flow.run(run_id="parent's")
say("parent", run.state, run.tasks["last"].output_json, store.check())
"""


@pytest.mark.parametrize("programs", ["json"], indirect=True)
def test_a_task_that_forks_leaves_its_run_to_the_parent(programs: Programs) -> None:
    program = programs.start(FORKS_IN_A_TASK)
    program.expect("child sees running")
    program.expect("child is told RunActiveError")
    program.expect(f"child is told that it is owned by process {program.pid}")
    program.expect("child success")
    program.expect("parent success 2 []")
    assert program.ended_with() == (0, "")


CHILD_SLEEPS = """
import subprocess
store = make_store(lease=3600.0)
flow = chain(store)

def fork_and_sleep(ctx):
    pid = os.fork()
    if pid == 0:
        if OPTIONS["looks"]:
            try:
                store.list_runs()
            except StoreForkedError:  # SQLite's
                pass
        say("child sleeps")
        time.sleep(60)
        os._exit(0)
    say(pid)
    time.sleep(60)

flow.add_task_definition("t1", fork_and_sleep, dependencies=["t0"], replace=True)
flow.run(run_id="nightly")
"""


@pytest.mark.parametrize("looks", [False, True], ids=["sleeps", "looks into the store and sleeps"])
def test_a_child_that_sleeps_on_does_not_keep_its_killed_parents_runs(looks: bool, programs: Programs) -> None:
    program = programs.start(CHILD_SLEEPS, looks=looks)
    child = next(int(line) for line in (program.line(), program.line()) if line != "child sleeps")
    try:
        other = programs.worker()
        assert other.ask("drive nightly").startswith(f"owned Run 'nightly' is owned by process {program.pid}")
        killed = time.monotonic()
        program.kill()
        os.kill(child, 0)  # it lives
        assert other.ask("drive nightly") == "ended success"
        assert time.monotonic() - killed < 1
    finally:
        os.kill(child, signal.SIGKILL)


HOLDS_A_LOCK = """
store = make_store()
flow = chain(store)
flow.run(run_id="before")
stop = threading.Event()

def busy():
    number = 0
    while not stop.is_set():
        number += 1
        flow.init_run(run_id=f"busy{number}")

thread = threading.Thread(target=busy)
thread.start()
codes = []
for number in range(20):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # a lock that a thread of the parent held at the fork is held for ever here, unless it is made anew
        flow.run(run_id=f"child{number}")
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
thread.join()
say(set(codes))
say(store.check(), sum(run.state == "success" for run in store.get_all_runs()))
"""


@pytest.mark.parametrize("programs", ["json"], indirect=True)
def test_a_lock_that_another_thread_held_at_the_fork_is_not_held_for_ever_in_the_child(programs: Programs) -> None:
    program = programs.start(HOLDS_A_LOCK)
    program.expect("{0}")
    program.expect("[] 21")
    assert program.ended_with() == (0, "")


MEMORY = """
from {package} import MemoryStore
flow = chain(MemoryStore())
flow.init_run(run_id="nightly")
flow.store.claim("nightly")
flow.store._lock.acquire()  # as a thread in the midst of a commit
pid = os.fork()
if pid == 0:
    signal.alarm(10)
    say("child", flow.run(run_id="nightly").state)
    os._exit(0)
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("programs", ["sqlite"], indirect=True)
def test_a_store_in_memory_is_a_copy_of_its_own_in_a_child(programs: Programs) -> None:
    program = programs.start(MEMORY.replace("{package}", PACKAGE))
    program.expect("child success")
    program.expect("0")


CLOSES_LATER = """
store = make_store()
flow = chain(store)
flow.run(run_id="before")
pid = os.fork()
if pid == 0:
    say("child is there")
    hear()
    store.close()
    sys.exit(0)
say("parent", flow.run(run_id="during").state)
store.close()
say("closed")
os.waitpid(pid, 0)
again = make_store()
say(sorted(again.list_runs()), again.check())
"""


def test_a_child_that_ends_after_its_parent_closed_the_store_harms_nothing(programs: Programs) -> None:
    program = programs.start(CLOSES_LATER)
    assert sorted(program.line() for _ in range(2)) == ["child is there", "parent success"]
    program.expect("closed")
    with programs.store() as store:
        before = sorted(store.list_runs())
    program.tell("go")
    program.expect(f"{before} []")
    assert before == ["before", "during"]
    assert program.ended_with() == (0, "")


PARENT_CLOSES_FIRST = """
store = make_store()
flow = chain(store)
flow.run(run_id="before")
pid = os.fork()
if pid == 0:
    say("child", flow.run(run_id="child's first").state)
    while not (FOLDER / "go").exists():  # not told by the stream, which the parent reads
        time.sleep(0.002)
    say("child", flow.run(run_id="child's second").state)
    os.kill(os.getpid(), signal.SIGKILL)
say("parent closes when it is told to")
if OPTIONS["how"] == "closes":
    hear()
    store.close()
    say("closed")
    os.waitpid(pid, 0)
    say("child is dead")
else:
    hear()
"""


@pytest.mark.parametrize("programs", ["json"], indirect=True)
@pytest.mark.parametrize("how", ["closes", "ends"])
def test_what_a_child_commits_after_its_parent_has_closed_the_store_outlives_its_kill(
    how: str, programs: Programs, tmp_path: Path
) -> None:
    program = programs.start(PARENT_CLOSES_FIRST, how=how)
    assert sorted(program.line() for _ in range(2)) == ["child success", "parent closes when it is told to"]
    program.tell("go")
    if how == "closes":
        program.expect("closed")
    else:
        assert program.code() == 0
    (tmp_path / "go").touch()
    program.expect("child success")
    if how == "closes":
        program.expect("child is dead")
    else:
        program.expect_nothing_more()  # the stream ends with the last who has it: the child
    with programs.store() as store:
        assert sorted(store.list_runs()) == ["before", "child's first", "child's second"]
        assert store.check() == []


@pytest.mark.parametrize("programs", ["json"], indirect=True)
def test_what_is_left_beside_the_store_after_it_all_is_nothing(programs: Programs, tmp_path: Path) -> None:
    program = programs.start(CHILD_WORKS, how="fork and close")
    assert program.ended_with()[0] == 0
    with programs.store() as store:
        store.list_runs()
    assert programs.owner_files() == []


SQLITE_IN_A_CHILD = """
store, never_opened = make_store(), SQLiteStore(FOLDER / "never opened.db")
flow = chain(store)
flow.run(run_id="before")

def child():
    uses = (store.list_runs, lambda: flow.run(run_id="before"), lambda: flow.init_run(), make_store().open)
    for number, use in enumerate(uses):
        try:
            use()
        except StoreForkedError as error:
            say(number, "refused", "only after the fork" in str(error))
    say("child", chain(never_opened).run(run_id="child's").state)
    store.close()

pid = os.fork()
if pid == 0:
    child()
    sys.exit(0)
os.waitpid(pid, 0)
say("parent", flow.run(run_id="after").state, sorted(store.list_runs()), store.check())
store.close()
say(json.dumps(never_opened.list_runs()))
"""


@pytest.mark.parametrize("programs", ["sqlite"], indirect=True)
def test_a_child_cannot_use_a_database_that_its_parent_had_open_and_harms_nothing_by_trying(programs: Programs) -> None:
    """SQLite believes to hold locks there that a fork does not hand down: what the child wrote would be lost, or worse."""
    program = programs.start(SQLITE_IN_A_CHILD)
    for number in range(4):
        program.expect(f"{number} refused True")
    program.expect("child success")
    program.expect("parent success ['after', 'before'] []")
    program.expect('["child\'s"]')
    assert program.ended_with() == (0, "")
