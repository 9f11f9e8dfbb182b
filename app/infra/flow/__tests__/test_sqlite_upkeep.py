"""A database over the years: copies of it while it is at work, who may read it, files of the first version, old runs removed."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    RunNotFoundError,
    RunOwnedError,
    SQLiteStore,
    State,
    StoreDamagedError,
    StoreError,
    sqlite_schema,
)
from ..testing.store_contract import a_run, a_task, all_at_once, an_attempt, snapshot
from ..who import this_process
from ..witness import Witness
from .histories import check_history, told
from .test_sqlite_store import PACKAGE, ROOT, ask, files_in, in_another_process, versions_become

SAMPLE, SAMPLE_2 = (Path(__file__).parent / "samples" / version / "runs.sqlite3" for version in ("version_1", "version_2"))
posix_only = pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def start_another_process(program: str, path: Path, *arguments: str) -> subprocess.Popen[str]:
    """As `in_another_process`, but it goes on beside us; it is there when it has said "here"."""
    head = (
        f"import os, sys, {PACKAGE} as flow, {PACKAGE}.testing.store_contract as words\nstore = flow.SQLiteStore(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", head + program, str(path), *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def end_of(process: subprocess.Popen[str]) -> str:
    """Let it end; what it said. Its standard input ends with this, which it may wait for."""
    said, errors = process.communicate(timeout=15)
    assert (process.returncode, errors) == (0, ""), errors
    return said


# --- copies ----------------------------------------------------------------------------------------------------------------


COMMITTING = """
import threading
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
store.commit(flow.Changes(new_runs=[words.a_run("theirs")], tasks=[words.a_task(0, "theirs")]))
print("here", flush=True)
count = 0
while not ended.is_set():
    count += 1
    store.commit(flow.Changes(tasks=[words.a_task(position, "theirs", reason=str(count)) for position in range(3)]))
store.close()
"""


def test_a_copy_made_while_commits_go_on(path: Path) -> None:
    """By other threads and by another process: each copy is one moment of the store, sound, and a store of its own."""
    copies = [path.with_name(f"copy{number}.db") for number in range(8)]
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run("ours")], tasks=[a_task(0, "ours")]))
        process = start_another_process(COMMITTING, path)
        ended = threading.Event()
        made = 0

        def commit() -> None:
            nonlocal made
            while not ended.is_set():
                made += 1
                both = [a_task(position, "ours", reason=str(made)) for position in (0, 1)]
                store.commit(Changes(tasks=both, new_runs=[a_run(f"run{made}", created=made)]))

        thread = threading.Thread(target=commit)
        thread.start()
        try:
            for copy in copies:
                store.backup(copy)
        finally:
            ended.set()
            thread.join()
            end_of(process)
        counts: list[int] = []
        for copy in copies:
            with SQLiteStore(copy) as copied:
                assert copied.check() == []
                reasons = {task.reason for task in copied.read_tasks("ours")}
                assert len(reasons) == 1
                assert len({task.reason for task in copied.read_tasks("theirs")}) == 1
                counts.append(int(reasons.pop() or 0))
                assert len(copied.list_runs()) == counts[-1] + 2
                copied.commit(Changes(new_runs=[a_run("more")]))
        assert counts == sorted(counts)
        assert 0 < counts[-1] <= made
    assert {file.name for file in path.parent.iterdir()} == {"runs.db", *(copy.name for copy in copies)}


def test_a_copy_is_complete_in_one_file(path: Path) -> None:
    """What is in the -wal file still is in the copy, which can be taken elsewhere by itself."""
    with SQLiteStore(path, sync_interval=None) as store:
        for number in range(20):
            store.commit(Changes(new_runs=[a_run(f"run{number}", created=number)], tasks=[a_task(0, f"run{number}")]))
        elsewhere = path.with_name("elsewhere")
        elsewhere.mkdir()
        store.backup(elsewhere / "copy.db")
        assert list(files_in(elsewhere)) == ["copy.db"]
        with SQLiteStore(elsewhere / "copy.db") as copied:
            assert snapshot(copied) == snapshot(store)


@pytest.mark.parametrize("what", ["a file", "a folder", "a dangling link", "the store itself", "its -wal file"])
def test_a_copy_over_something_is_refused(path: Path, what: str) -> None:
    """Whatever it is stays as it is, and nothing is left of the copy."""
    place = path.with_name("copy.db")
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()]))
        if what == "a file":
            place.write_text("dear diary")
        elif what == "a folder":
            place.mkdir()
        elif what == "a dangling link":
            place.symlink_to(path.with_name("nowhere"))
        else:
            place = path if what == "the store itself" else path.with_name("runs.db-wal")
        before = sorted(file.name for file in path.parent.iterdir())
        with pytest.raises(StoreError, match=rf"runs\.db.*{place.name}.*exists already"):
            store.backup(place)
        assert sorted(file.name for file in path.parent.iterdir()) == before
        assert store.list_runs() == ["run"]
    if what == "a file":
        assert place.read_text() == "dear diary"


def test_a_copy_that_cannot_be_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it: where the folder is missing, and where the disk is full when all but the name is done."""
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()]))
        with pytest.raises(StoreError, match=r"runs\.db.*missing"):
            store.backup(path.with_name("missing") / "copy.db")
        before = sorted(file.name for file in path.parent.iterdir())

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match="No space left"):
                store.backup(path.with_name("copy.db"))
        assert sorted(file.name for file in path.parent.iterdir()) == before


# --- for nobody else's eyes ------------------------------------------------------------------------------------------------


@posix_only
def test_files_are_for_nobody_elses_eyes(path: Path) -> None:
    """Whatever the umask: the database, what lies beside it, and copies."""
    umask = os.umask(0)
    try:
        with SQLiteStore(path) as store:
            store.commit(Changes(new_runs=[a_run()]))
            store.claim("run")
            store.backup(path.with_name("copy.db"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            owner = next(name for name in modes if "-owner-" in name)
            assert modes == dict.fromkeys(("runs.db", "runs.db-wal", "runs.db-shm", "runs.db-lock", "copy.db", owner), 0o600)
    finally:
        os.umask(umask)


@posix_only
@pytest.mark.parametrize("name", ["runs.db-lock", "runs.db-wal"])
def test_a_link_in_the_place_of_our_files_is_refused(path: Path, name: str) -> None:
    """Whoever could put it there would have us write into a file of theirs choosing."""
    victim = path.with_name("victim")
    victim.write_text("dear diary, " * 1000)
    before = victim.read_bytes()
    for made in (False, True):
        if made:
            path.with_name(name).unlink()
            with SQLiteStore(path) as store:
                store.commit(Changes(new_runs=[a_run()]))
        path.with_name(name).symlink_to(victim)
        store = SQLiteStore(path)
        for use in (store.open, lambda store=store: store.commit(Changes(new_runs=[a_run("more")]))):
            with pytest.raises(StoreError, match=r"runs\.db"):
                use()
        store.close()
        assert victim.read_bytes() == before


def test_a_separator_behind_the_name_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    with SQLiteStore(f"{tmp_path / 'runs.db'}{os.sep}") as store:
        store.commit(Changes(new_runs=[a_run()]))
        store.backup(f"{tmp_path / 'copy.db'}{os.sep}")
        assert store.path == tmp_path / "runs.db"
    assert sorted(files_in(tmp_path)) == ["copy.db", "runs.db"]


def test_a_file_that_may_only_be_read_is_left_alone_and_what_to_do_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()]))
    before = files_in(path.parent)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the user of these tests may be one who may do anything
    with pytest.raises(StoreError, match="may not be written by this user; let it be, or look at a copy"):
        SQLiteStore(path).open()
    assert files_in(path.parent) == before


@posix_only
def test_temporary_names_that_are_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that somebody foresaw is not written through: for the new file and for a copy."""
    victim = path.with_name("victim")
    victim.write_text("dear diary")
    monkeypatch.setattr(os, "urandom", lambda count: b"\7" * count)
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()]))
        link = path.with_name("copy.db.new-" + "07" * 8)
        link.symlink_to(victim)
        with pytest.raises(StoreError, match="exists"):
            store.backup(path.with_name("copy.db"))
    assert victim.read_text() == "dear diary"
    assert not path.with_name("copy.db").exists()


@posix_only
def test_a_link_to_the_database_is_the_database(path: Path) -> None:
    """All names of a file share one lock, and one identity."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    with SQLiteStore(link) as store, SQLiteStore(path) as direct:
        store.commit(Changes(new_runs=[a_run()]))
        assert direct.list_runs() == ["run"]
        assert store.identity == direct.identity
        assert {file.name for file in path.parent.iterdir()} == {
            "link.db",
            "runs.db",
            "runs.db-lock",
            "runs.db-shm",
            "runs.db-wal",
        }
    assert link.is_symlink()


def test_only_our_own_leftovers_are_swept(path: Path) -> None:
    """What somebody left who was killed at making the file goes; what merely begins alike is somebody else's."""
    ours = [path.with_name(f"runs.db.new-{'0f' * 8}{suffix}") for suffix in ("", "-journal", "-wal")]
    theirs = [
        path.with_name(name) for name in ("runs.db.new-", "runs.db.new-2024", f"runs.db.new-{'0f' * 8}.bak", "my-runs.db.new-1")
    ]
    for file in (*ours, *theirs):
        file.write_text("x")
    with SQLiteStore(path):
        pass
    assert {file.name for file in path.parent.iterdir()} == {"runs.db", *(file.name for file in theirs)}


def test_a_forgotten_store_leaks_nothing(path: Path) -> None:
    """No descriptor stays open when it is collected."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("descriptors cannot be counted here")
    gc.collect()
    before = len(list(descriptors.iterdir()))
    for number in range(3):
        store = SQLiteStore(path, sync_interval=0)
        store.commit(Changes(new_runs=[a_run(f"run{number}")]))
        del store
    gc.collect()
    assert len(list(descriptors.iterdir())) == before


# --- files of the first version --------------------------------------------------------------------------------------------


@pytest.fixture
def version_1(path: Path) -> Path:
    """A file that the first version of this library wrote."""
    shutil.copy(SAMPLE, path)
    return path


def content_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def the_sample_flow(store: SQLiteStore, done: list[str]) -> AsyncFlow:
    """The flow that the sample's runs were made with."""
    made = AsyncFlow("sample", store)
    inner = AsyncFlow("inner")

    def task(task_id: str) -> Callable[[Context], Any]:
        def work(ctx: Context) -> Any:
            done.append(task_id)
            return ctx.pull("shaky") if task_id == "last" else task_id

        return work

    inner.add_task_definition("leaf", task("leaf"))
    made.add_task_definition("extract", task("extract"))
    made.add_subflow_definition("sub", inner, dependencies=["extract"])
    made.add_task_definition("shaky", task("shaky"), dependencies=["sub"], max_retries=1)
    made.add_task_definition("last", task("last"), dependencies=["shaky"])
    made.add_task_definition("end", task("end"), dependencies=["last"])
    return made


RESULT = ([1, 2, 3], {1, 2})


def check_sample(store: SQLiteStore) -> None:
    """All that is in the sample, by value and type."""
    assert store.check() == []
    runs = {run.id: run for run in store.get_all_runs()}
    states = {run_id: run.state for run_id, run in runs.items() if run.parent_run_id is None}
    assert states == {"finished": State.SUCCESS, "failed": State.FAILED, "unfinished": State.RUNNING}
    finished = runs["finished"]
    assert finished.params == {"user": "alice", "seen": ("é", 1)}
    assert finished.tasks["extract"].output_json == [1, 2, 3]
    assert finished.tasks["shaky"].output_json == finished.tasks["last"].output_json == RESULT
    assert finished.tasks["sub"].output_json == {"child_run_id": store.list_children("finished")[0], "result": RESULT}
    assert [(attempt.number, attempt.result) for attempt in store.list_attempts("finished", "shaky")] == [
        (1, "failed"),
        (2, "success"),
    ]
    assert runs["failed"].tasks["end"].state == State.SKIPPED
    error = runs["failed"].tasks["last"].error
    assert error is not None
    assert error.startswith("Traceback (most recent call last):")
    assert runs["unfinished"].tasks["last"].state == State.RUNNING


def test_a_file_of_the_first_version_is_brought_up(version_1: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy of it is kept, as it was, and its name is told; all values are there; a second opening changes nothing more."""
    before = content_of(version_1)
    with SQLiteStore(version_1) as store:
        check_sample(store)
    assert "runs.db.v1.bak" in caplog.text
    kept = version_1.with_name("runs.db.v1.bak")
    assert content_of(kept) == before
    assert (ask(kept, "PRAGMA user_version"), ask(version_1, "PRAGMA user_version")) == (1, len(sqlite_schema.MIGRATIONS))
    if os.name != "nt":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with SQLiteStore(version_1) as store:
        check_sample(store)
    assert sorted(file.name for file in version_1.parent.iterdir()) == ["runs.db", "runs.db.v1.bak"]


def test_its_unfinished_run_goes_on(version_1: Path) -> None:
    """What had succeeded is not done again; what had been interrupted is."""
    done: list[str] = []
    with SQLiteStore(version_1) as store:
        run = asyncio.run(the_sample_flow(store, done).run_until_complete("unfinished"))
        assert (run.state, done) == (State.SUCCESS, ["last", "end"])
        assert run.tasks["last"].output_json == RESULT
        assert store.check() == []


def test_its_runs_can_be_removed(version_1: Path) -> None:
    """And the space comes back, which such a file could not give before."""
    size = version_1.stat().st_size
    with SQLiteStore(version_1) as store:
        store.commit(Changes(tasks=[a_task(0, "finished", output='"' + "x" * 500_000 + '"')]))
        assert sorted(store.prune()) == sorted(["finished", "failed", *children_of_the_sample()])
        assert store.check() == []
        assert store.load("unfinished").tasks["shaky"].output_json == RESULT
    assert version_1.stat().st_size <= 2 * size


def children_of_the_sample() -> list[str]:
    return ["d713995d6bcf251f3750a34a5903cba6", "26c44d000f1ab834f1ad2c9fb7787e5a"]


def test_a_kill_at_each_statement_of_the_step(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the process dies, the file is of the first version still, as it was; the next opening brings it up."""
    before = content_of(version_1)
    left: list[dict[str, bytes]] = []

    class Step(str):
        """Its statements; before each, and after the last, what lies in the folder is what a kill would leave."""

        def split(self, sep: str | None = None, maxsplit: Any = -1) -> Any:
            for statement in (*str.split(self, sep), ""):
                left.append({name: data for name, data in files_in(version_1.parent).items() if not name.endswith("-shm")})
                yield statement

    with monkeypatch.context() as watching:
        versions_become(watching, (sqlite_schema.MIGRATIONS[0], Step(sqlite_schema.MIGRATIONS[1])))
        SQLiteStore(version_1).open()
    assert len(left) == sqlite_schema.MIGRATIONS[1].count(";") + 2
    folder = version_1.with_name("left")
    folder.mkdir()
    for files in left:
        for file in folder.iterdir():
            file.unlink()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        assert content_of(folder / "runs.db") == before
        with SQLiteStore(folder / "runs.db") as store:
            check_sample(store)
        assert sorted(files_in(folder)) == ["runs.db", "runs.db.v1-2.bak", "runs.db.v1.bak"]
        assert content_of(folder / "runs.db.v1.bak") == before


OPENING = """
print("here", flush=True)
sys.stdin.read()
store.open()
print(store.check(), len(store.list_runs()))
store.close()
"""


def test_two_processes_bring_it_up_at_once(version_1: Path) -> None:
    """One does it, the other finds it done; one copy is kept."""
    processes = [start_another_process(OPENING, version_1) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.read() == "[] 6\n"
        assert process.wait(15) == 0
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    assert sorted(files_in(version_1.parent)) == ["runs.db", "runs.db.v1.bak"]


def test_a_damaged_file_of_the_first_version(version_1: Path) -> None:
    """One that cannot be brought up is refused by name, and is of the first version still."""
    data = bytearray(version_1.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = b"\xa5" * 200
    version_1.write_bytes(bytes(data))
    store = SQLiteStore(version_1)
    with pytest.raises(StoreDamagedError, match=r"runs\.db"):
        store.open()
    assert ask(version_1, "PRAGMA user_version") == 1


# --- old runs --------------------------------------------------------------------------------------------------------------


def a_tree(store: SQLiteStore, root: str, ended: int | None, child: State = State.SUCCESS) -> list[str]:
    """A run with a child and a grandchild, each with tasks and an attempt. All ids."""
    ids = [root, f"{root}.child", f"{root}.child.leaf"]
    state = State.SUCCESS if ended is not None else State.RUNNING
    runs = [a_run(root, created=len(store.list_runs()), state=state, ended=ended, graph=f'{{"{root}":[]}}')]
    runs += [a_run(run_id, parent_run_id=run_id.rpartition(".")[0], state=child, ended=ended, created=1) for run_id in ids[1:]]
    tasks = [a_task(position, run_id, output='"' + "x" * 2000 + '"') for run_id in ids for position in range(20)]
    attempts = [an_attempt(1, 0, run_id, error="y" * 500) for run_id in ids]
    store.commit(Changes(new_runs=runs, tasks=tasks, attempts=attempts))
    return ids


def test_whole_trees_go_and_the_file_shrinks(path: Path) -> None:
    """Runs with their subflows' runs, tasks, attempts and graphs; one that has not ended stays, with all of its own."""
    with SQLiteStore(path) as store:
        gone = [run_id for number in range(10) for run_id in a_tree(store, f"old{number}", 1000)]
        kept = [*a_tree(store, "running", None), *a_tree(store, "child runs", 1000, State.RUNNING)]
        before = {run_id: (store.read_run(run_id), store.read_tasks(run_id)) for run_id in kept}
        store.close()
        size = path.stat().st_size
        store.open()
        assert sorted(store.prune()) == sorted(gone)
        assert path.stat().st_size < size / 2
        assert path.with_name("runs.db-wal").stat().st_size == 0
        assert {run_id: (store.read_run(run_id), store.read_tasks(run_id)) for run_id in kept} == before
        assert sorted(store.list_runs()) == sorted(kept)
        assert store.check() == []
        assert store.prune() == []
        for table in ("tasks", "attempts"):
            assert ask(path, f"SELECT count(*) FROM {table}") == len(kept) * (20 if table == "tasks" else 1)
        assert ask(path, "SELECT count(*) FROM graphs") == 3
    assert path.stat().st_size < size / 2


def test_others_are_not_confused_by_what_is_gone(path: Path) -> None:
    """A store that remembers a run which another process removed finds it gone, and never another run in its place."""
    with SQLiteStore(path) as store:
        ids = a_tree(store, "old", 1000)
        for run_id in ids:
            store.commit(Changes(tasks=[a_task(0, run_id)]))  # by now it knows their numbers by heart
        removed = in_another_process(
            """
print(sorted(store.prune()))
store.commit(flow.Changes(new_runs=[words.a_run("new", graph='{"new":[]}')], tasks=[words.a_task(n, "new") for n in range(3)]))
store.commit(flow.Changes(new_runs=[words.a_run("old", flow_name="another")], tasks=[words.a_task(0, "old", reason="theirs")]))
store.close()
""",
            path,
        )
        assert (removed.stdout, removed.stderr) == (f"{ids}\n", "")
        with pytest.raises(RunNotFoundError):
            store.commit(Changes(tasks=[a_task(1, ids[1], reason="mine")]))
        with pytest.raises(RunNotFoundError):
            store.claim(ids[2])
        store.commit(Changes(tasks=[a_task(1, "old", reason="mine")]))
        assert [task.reason for task in store.read_tasks("old")] == ["theirs", "mine"]
        assert store.read_run("old").flow_name == "another"
        # The graph that it remembers a number of went with its last run.
        store.commit(Changes(new_runs=[a_run("newer", graph='{"old":[]}')]))
        assert store.read_run("newer").graph == '{"old":[]}'
        assert store.read_run("new").graph == '{"new":[]}'
        assert store.check() == []


def test_a_run_that_somebody_owns_stays(path: Path) -> None:
    """It has ended, but somebody may be about to retry it."""
    with SQLiteStore(path) as store, SQLiteStore(path) as other:
        ids = a_tree(store, "old", 1000)
        lease = other.claim("old")
        assert store.prune() == []
        with pytest.raises(RunOwnedError):
            store.claim("old")
        other.release(lease)
        assert sorted(store.prune()) == ids


PRUNING = """
print("here", flush=True)
sys.stdin.read()
print(*store.prune(), sep=",")
store.close()
"""


def test_two_processes_remove_at_once(path: Path) -> None:
    """Each run is removed by one of them; neither fails, and the file is sound."""
    with SQLiteStore(path) as store:
        ids = [run_id for number in range(12) for run_id in a_tree(store, f"old{number}", 1000)]
        kept = a_tree(store, "running", None)
    processes = [start_another_process(PRUNING, path) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    removed = [run_id for process in processes for run_id in end_of(process).strip().split(",") if run_id]
    assert sorted(removed) == sorted(ids)
    with SQLiteStore(path) as store:
        assert (sorted(store.list_runs()), store.check()) == (sorted(kept), [])


def test_removing_while_commits_go_on(path: Path) -> None:
    """Neither waits for the other for long, and neither takes anything from the other."""
    with SQLiteStore(path) as store, SQLiteStore(path) as other:
        ids = [run_id for number in range(8) for run_id in a_tree(store, f"old{number}", 1000)]
        store.commit(Changes(new_runs=[a_run()]))

        def commit() -> None:
            for number in range(200):
                other.commit(Changes(tasks=[a_task(number % 9, reason=str(number))]))

        removed: list[str] = []
        assert all_at_once([commit, lambda: removed.extend(store.prune())]) == [None, None]
        assert sorted(removed) == sorted(ids)
        assert sorted(task.reason or "" for task in store.read_tasks("run")) == sorted(str(number) for number in range(191, 200))
        assert store.check() == []


# --- who has written meanwhile ---------------------------------------------------------------------------------------------


def test_two_stores_take_turns_at_a_tree(path: Path) -> None:
    """A lease is that of the outermost run: what another owner did to the runs below is seen when the tree comes back."""
    with SQLiteStore(path) as store, SQLiteStore(path) as other:
        a_tree(store, "run", None)
        for number in range(6):
            turn = (store, other)[number % 2]
            lease = turn.claim("run")
            turn.commit(Changes(tasks=[a_task(number, "run.child", reason=str(number))], lease=lease))
            turn.commit(Changes(tasks=[a_task(number + 30, "run.child.leaf")], lease=lease, release=number % 3 == 0))
            turn.release(lease)
        assert [task.reason for task in store.read_tasks("run.child")[:6]] == [str(number) for number in range(6)]
        assert store.check() == []


def test_a_kill_between_a_commit_and_its_note(path: Path) -> None:
    """Whoever dies there has left no note of the commit; the others see all the same that somebody wrote."""
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        killed = in_another_process(
            f"""
from {Witness.__module__} import Witness
Witness.note = lambda *arguments: os._exit(9)
store.commit(flow.Changes(tasks=[words.a_task(1)]))
""",
            path,
        )
        assert killed.returncode == 9, killed.stderr
        store.commit(Changes(tasks=[a_task(2)]))
        assert [task.position for task in store.read_tasks("run")] == [0, 1, 2]


# --- files of the second version -------------------------------------------------------------------------------------------


@pytest.fixture
def version_2(path: Path) -> Path:
    """A file that the second version wrote: it kept no notes. `retried` was set back, `continued` was cut off."""
    shutil.copy(SAMPLE_2, path)
    return path


def rows_of(path: Path) -> dict[str, list[Any]]:
    """All rows of the tables that the second version had."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("graphs", "runs", "tasks", "attempts")
        }


def check_sample_2(store: SQLiteStore) -> None:
    """What it tells of runs whose workers it did not note."""
    assert store.check() == []
    states = {run.id: run.state for run in store.get_all_runs() if run.parent_run_id is None}
    assert states == {
        **dict.fromkeys(("finished", "retried", "continued"), State.SUCCESS),
        "failed": State.FAILED,
        "unfinished": State.RUNNING,
    }
    for run_id in store.list_runs():
        assert store.read_notes(run_id) == []
        check_history(store, run_id)
        assert {attempt.worker for attempt in store.list_attempts(run_id)} == {None}
    assert told(store, "retried", "last") == [
        "last scheduled>running 1",
        "last running>failed 1",
        "last failed>scheduled 1",
        "last scheduled>running 2",
        "last running>success 2",
    ]
    assert told(store, "continued", "last") == [
        "last scheduled>running 1",
        "last running>scheduled 1",
        "last scheduled>running 2",
        "last running>success 2",
    ]


def test_a_file_of_the_second_version_is_brought_up(version_2: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not a row of it changes; a copy is kept, as it was; a second opening changes nothing more."""
    before, rows = content_of(version_2), rows_of(version_2)
    for _ in range(2):
        with SQLiteStore(version_2) as store:
            check_sample_2(store)
    assert "runs.db.v2.bak" in caplog.text
    assert rows_of(version_2) == rows
    assert content_of(version_2.with_name("runs.db.v2.bak")) == before
    assert ask(version_2, "PRAGMA user_version") == 3
    assert sorted(file.name for file in version_2.parent.iterdir()) == ["runs.db", "runs.db.v2.bak"]


def test_its_unfinished_run_goes_on_and_has_a_history(version_2: Path) -> None:
    """Who began it is not known; who went on with it is."""
    done: list[str] = []
    with SQLiteStore(version_2) as store:
        run = asyncio.run(the_sample_flow(store, done).run_until_complete("unfinished"))
        assert (run.state, done) == (State.SUCCESS, ["last", "end"])
        assert [attempt.worker for attempt in store.list_attempts("unfinished", "last")] == [None, this_process()]
        changes = [change for change in check_history(store, "unfinished") if change.task_id is None]
        assert [(change.to_state, change.worker) for change in changes] == [
            ("scheduled", None),
            ("running", None),
            ("scheduled", this_process()),
            ("running", this_process()),
            ("success", this_process()),
        ]
        assert store.check() == []


def test_a_kill_at_each_statement_of_the_second_step(version_2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the process dies, the file is of the second version still; the next opening brings it up."""
    before = content_of(version_2)
    left: list[dict[str, bytes]] = []

    class Step(str):
        """Its statements; before each, and after the last, what lies in the folder is what a kill would leave."""

        def split(self, sep: str | None = None, maxsplit: Any = -1) -> Any:
            for statement in (*str.split(self, sep), ""):
                left.append({name: data for name, data in files_in(version_2.parent).items() if not name.endswith("-shm")})
                yield statement

    with monkeypatch.context() as watching:
        versions_become(watching, (*sqlite_schema.MIGRATIONS[:2], Step(sqlite_schema.MIGRATIONS[2])))
        SQLiteStore(version_2).open()
    assert len(left) == 3
    folder = version_2.with_name("left")
    for number, files in enumerate(left):
        place = folder / str(number)
        place.mkdir(parents=True)
        for name, data in files.items():
            (place / name).write_bytes(data)
        assert content_of(place / "runs.db") == before
        with SQLiteStore(place / "runs.db") as store:
            check_sample_2(store)


@pytest.mark.parametrize(("written", "said"), [(3, 2), (3, 1), (2, 3)])
def test_a_version_that_the_tables_are_not_of_is_damage(path: Path, written: int, said: int) -> None:
    """One flipped bit makes a 3 a 2: the file is refused and left alone, and not brought up once more."""
    if written == 2:
        shutil.copy(SAMPLE_2, path)
    else:
        SQLiteStore(path).open()
        gc.collect()
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {said}")
    before = content_of(path)
    with pytest.raises(StoreDamagedError, match=f"schema version {said}, and the tables of another"):
        SQLiteStore(path).open()
    assert content_of(path) == before
    assert [name for name in files_in(path.parent) if name.endswith(".bak")] == []
