"""What reaches the disk and when; and a disk that fails, fills up, or is taken away, at every moment of a run.

For every moment, and not some of them: `python -m app.infra.flow.__tests__.test_sqlite_disk`
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, SQLiteStore, State, StoreDamagedError, StoreError, flusher, sqlite_file
from ..flusher import Flusher
from ..sqlite_file import SQLiteFile, WouldWait
from ..testing.store_contract import a_run, a_task
from .test_sqlite_store import PACKAGE, ROOT, in_another_process

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="system calls are watched and made to fail by strace")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else, or mount"
)
posix_only = pytest.mark.skipif(os.name == "nt", reason="files of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


# --- when commits reach the disk -------------------------------------------------------------------------------------------


class Watched:
    """A store whose clock is set by hand and whose timer only runs when told to; and how each flush came about."""

    def __init__(self, path: Path, interval: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.synced: list[str] = []
        thread = SimpleNamespace(start=lambda: None)
        monkeypatch.setattr(flusher, "threading", SimpleNamespace(Thread=lambda **options: thread, Condition=threading.Condition))
        monkeypatch.setattr(SQLiteFile, "_sync", staticmethod(lambda descriptor: self.synced.append("timer")))
        self.store = SQLiteStore(path, sync_interval=interval)
        self.store._file._flusher = Flusher(interval, self.store._file._flush_wal, lambda: self.now)
        self.store.open()
        self.count = 0

    def commit(self, flush: bool = False) -> None:
        self.count += 1
        self.store.commit(Changes(new_runs=[a_run(f"run{self.count}")], flush=flush))
        writer = self.store._file._writer
        assert writer is not None
        # FULL: SQLite has synced the -wal file before COMMIT returned.
        self.synced.append({1: "-", 2: "at once"}[writer.execute("PRAGMA synchronous").fetchone()[0]])

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.store._file._flusher.poll()


@pytest.fixture
def watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float | None], Watched]]:
    made: list[Watched] = []

    def make(interval: float | None) -> Watched:
        made.append(Watched(path, interval, monkeypatch))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def test_at_0_every_commit_is_on_the_disk_before_it_returns(watched: Callable[[float | None], Watched]) -> None:
    """However fast they come."""
    disk = watched(0)
    for _ in range(5):
        disk.commit()
    assert disk.synced == ["at once"] * 5


def test_a_burst_shares_a_flush(watched: Callable[[float | None], Watched]) -> None:
    """The first commit is flushed at once, the timer does the rest, once."""
    disk = watched(0.05)
    for _ in range(5):
        disk.commit()
        disk.pass_time(0.001)
    disk.pass_time(0.05)
    disk.pass_time(0.05)
    assert disk.synced == ["at once", "-", "-", "-", "-", "timer"]


def test_of_a_trickle_each_is_flushed(watched: Callable[[float | None], Watched]) -> None:
    """Steps at a human pace are safe one by one."""
    disk = watched(0.05)
    for _ in range(4):
        disk.commit()
        disk.pass_time(0.06)
    assert disk.synced == ["at once"] * 4


def test_with_none_only_those_are_flushed_that_ask(watched: Callable[[float | None], Watched]) -> None:
    """The engine asks at the end of a run; and closing flushes what is left."""
    disk = watched(None)
    disk.commit()
    disk.pass_time(1e6)
    disk.commit(flush=True)
    disk.commit()
    assert disk.synced == ["-", "at once", "-"]
    disk.store.close()
    assert disk.synced == ["-", "at once", "-", "timer"]


def test_a_flush_that_fails_is_told(watched: Callable[[float | None], Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background too: at the next commit, once; that connects anew, reads what there is, and goes on."""
    disk = watched(0.05)
    disk.commit()
    disk.commit()

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(SQLiteFile, "_sync", staticmethod(fail))
        disk.pass_time(0.06)
    assert not disk.store.commit_at_once(Changes(new_runs=[a_run("waits")]))
    with pytest.raises(StoreError, match=r"runs\.db.*Input/output error"):
        disk.store.commit(Changes(new_runs=[a_run("refused")]))
    disk.commit()
    assert disk.store.list_runs() == ["run3", "run2", "run1"]


def test_a_checkpoint_that_fails_is_not_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It syncs the -wal file first; after a failure there the store connects anew, and makes sure of all it has."""
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()]))

        def fail(self: SQLiteFile, writer: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as broken:
            broken.setattr(SQLiteFile, "_checkpoint", fail)
            broken.setattr(sqlite_file, "CHECKPOINT_PAGES", 0)
            with pytest.raises(StoreError, match="disk I/O error"):
                store.commit(Changes(tasks=[a_task()]))
        suspect = [store._file._suspect]
        store.commit(Changes(tasks=[a_task(1)]))
        suspect.append(store._file._suspect)
        assert suspect == [True, False]
        assert len(store.read_tasks("run")) == 2


def test_the_event_loop_never_waits_for_a_flush(path: Path) -> None:
    """A commit that would sync is refused there: one that is due, and the first one of a -wal file, whose head SQLite syncs."""
    with SQLiteStore(path, sync_interval=None) as store:
        at_once: list[bool] = []
        for number in range(6):
            changes = Changes(new_runs=[a_run(f"run{number}")], flush=number == 2)
            at_once.append(store.commit_at_once(changes))
            if not at_once[-1]:
                store.commit(changes)
            if number == 3:
                assert store._file._writer is not None
                store._file._checkpoint(store._file._writer)
        assert at_once == [False, True, False, True, False, True]
        with pytest.raises(WouldWait):
            store._file.write(lambda writer: (None, None, 0), flush=True, wait=False)


COUNTED = """
store = flow.SQLiteStore(sys.argv[1], sync_interval=eval(sys.argv[2]))
def say(word):
    os.write(2, f"now: {word}\\n".encode())
say("opening")
store.commit(flow.Changes(new_runs=[words.a_run("first")], flush=True))
for number in range(10):
    say("committing")
    changes = flow.Changes(new_runs=[words.a_run(f"run{number}")])
    if not store.commit_at_once(changes):
        store.commit(changes)
say("flushing")
store.commit(flow.Changes(tasks=[words.a_task(0, "first")], flush=True))
say("leaving")
os._exit(0)
"""


def straced(folder: Path, program: str, *arguments: str, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program as `in_another_process` does, under strace; what that has to say is in the file `strace` in the folder."""
    assert STRACE is not None
    head = f"import os, sys, {PACKAGE} as flow, {PACKAGE}.testing.store_contract as words\n"
    command = [STRACE, "-f", "-qq", "-o", str(folder / "strace"), *options, sys.executable, "-c", head + program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


@needs_strace
@pytest.mark.parametrize(("interval", "at_each"), [("0", 1), ("None", 0), ("3600", 0)])
def test_the_system_calls(tmp_path: Path, interval: str, at_each: int) -> None:
    """What the kernel sees: one fdatasync for each commit at 0, none before the end otherwise."""
    done = straced(tmp_path, COUNTED, str(tmp_path / "runs.db"), interval, options=["-e", "trace=fdatasync,fsync,write"])
    assert done.returncode == 0, done.stderr
    synced: list[tuple[str, int]] = []
    for line in (tmp_path / "strace").read_text().splitlines():
        word = re.search(r"now: (\w+)", line)
        if word:
            synced.append((word[1], 0))
        elif re.search(r"\bf(data)?sync\(", line) and synced:
            synced[-1] = (synced[-1][0], synced[-1][1] + 1)
    assert [count for word, count in synced if word == "committing"] == [at_each] * 10
    assert ("flushing", 1) in synced


# --- a disk that fails -----------------------------------------------------------------------------------------------------


def a_flow(store: SQLiteStore, note: Callable[[str], None]) -> AsyncFlow:
    """Two branches that meet, a retry, a subflow; each task's work is noted, outside the store."""
    made = AsyncFlow("faulty", store)
    child = AsyncFlow("child")

    def work(of: AsyncFlow, task_id: str, *after: str, fails: int = 0) -> None:
        async def task(ctx: Context) -> Any:
            note(ctx.task_id)
            if ctx.attempt_number < fails:
                raise ValueError("not yet")
            return [ctx.task_id, *(ctx.pull(upstream) for upstream in after)]

        of.add_task_definition(task_id, task, dependencies=list(after), max_retries=fails)

    work(child, "inner")
    work(child, "leaf", "inner")
    work(made, "begin")
    work(made, "left", "begin", fails=1)
    made.add_subflow_definition("right", child, dependencies=["begin"])
    work(made, "end", "left", "right")
    return made


END = ["end", ["left", ["begin"]], ["leaf", ["inner"]]]

FAULTY = f"""
import asyncio, json
from {PACKAGE}.__tests__.test_sqlite_disk import a_flow
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(word):
    os.write(log, word.encode() + b"\\n")
store = flow.SQLiteStore(sys.argv[1], busy_timeout=2, sync_interval=float(sys.argv[3]))
faulty = a_flow(store, note)
@faulty.events.subscribe
def told(event):
    if type(event).__name__ == "TaskSucceeded":
        note("done " + event.task_id)
try:
    run_id = faulty.init_run(run_id="night")
    note("made")
    asyncio.run(faulty.run_until_complete(run_id))
    note("ended")
    store.close()
    note("closed")
except flow.StoreError as error:
    note("error " + type(error).__name__)
    os._exit(7)
"""


def lines_of(log: Path) -> list[str]:
    return log.read_text().split("\n")[:-1] if log.exists() else []


def faulty_life(folder: Path, *options: str, interval: str = "0.05") -> tuple[int, list[str]]:
    """A run in another process with a fault in its system calls, then its end here. The exit code and the notes of the first.

    What was acknowledged before the fault is there, and is not done again; in the end all is as if nothing had happened.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, log = folder / "runs.db", folder / "log"
    done = straced(folder, FAULTY, str(path), str(log), interval, options=options)
    told = lines_of(log)
    assert done.returncode in (0, 7, -9), (done.returncode, told, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    acknowledged = {line[5:] for line in told if line.startswith("done ")}
    again: list[str] = []
    with SQLiteStore(path) as store:
        assert store.check() == []
        if "made" in told:
            assert store.exists("night")
        before = store.load("night").get_all_tasks_recursive(store) if store.exists("night") else {}
        recorded = {task_id for task_id, task in before.items() if task.state == State.SUCCESS}
        names = {task_id.rpartition(".")[2] for task_id in recorded}
        assert acknowledged <= names, (acknowledged, names)
        if "ended" in told:
            assert store.load("night").state == State.SUCCESS
        resumed = a_flow(store, again.append)
        run = asyncio.run(resumed.run_until_complete(resumed.init_run(run_id="night")))
        assert run.state == State.SUCCESS
        assert run.tasks["end"].output_json == END
        assert store.check() == []
    assert not set(again) & names, f"{again} were done again, and {names} had succeeded"
    assert set(again) | {line for line in told if " " not in line} >= {"begin", "left", "inner", "leaf", "end"}
    left = {
        file.name for file in folder.iterdir() if "-owner-" not in file.name
    }  # those of the dead go when the next owner comes
    assert left == {"log", "runs.db", "strace"}
    return done.returncode, told


def moments(folder: Path) -> dict[str, int]:
    """How many system calls of each kind the busiest thread of an undisturbed run makes: strace counts for each by itself."""
    found: dict[str, int] = {}
    for kind, interval in KINDS.items():
        code, told = faulty_life(folder, "-e", f"trace={kind}", interval=interval)
        assert (code, told[-1]) == (0, "closed")
        found[kind] = max(Counter(re.findall(r"^(\d+) +\w+\(", (folder / "strace").read_text(), re.MULTILINE)).values())
    return found


def sweep(folder: Path, name: str, chosen: Sequence[int]) -> list[tuple[int, list[str]]]:
    """The same life again and again, each with a fault at another of the chosen moments."""
    calls, fault = SWEEPS[name]

    def live(moment: int) -> tuple[int, list[str]]:
        options = ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault.format(moment)}"]
        try:
            return faulty_life(folder / str(moment), *options, interval=KINDS[calls])
        except AssertionError as error:
            raise AssertionError(f"{name}, {fault.format(moment)}: {error}") from error

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(live, chosen))


KINDS = {"pwrite64": "0.05", "fdatasync,fsync": "0"}
"""System calls, and the sync interval at which they are looked at."""
SWEEPS = {
    "a kill at a write": ("pwrite64", "signal=KILL:when={}"),
    "a kill at a flush": ("fdatasync,fsync", "signal=KILL:when={}"),
    "a flush that fails": ("fdatasync,fsync", "error=EIO:when={}"),
    "flushes that fail for good": ("fdatasync,fsync", "error=EIO:when={}+"),
    "a write that fails": ("pwrite64", "error=EIO:when={}"),
    "a full disk": ("pwrite64", "error=ENOSPC:when={}+"),
    "a disk that is full for a moment": ("pwrite64", "error=ENOSPC:when={}"),
}


def check_sweep(name: str, ends: list[tuple[int, list[str]]]) -> None:
    """Which ends the lives of a sweep may come to."""
    codes = [code for code, _ in ends]
    errors = {line for _, told in ends for line in told if line.startswith("error ")}
    if name.startswith("a kill"):
        assert set(codes) <= {-9, 0}, codes
        assert codes.count(-9) >= len(codes) - 1
    else:
        assert set(codes) <= {0, 7}, codes
        assert 7 in codes
        assert errors <= {"error StoreError", "error StoreFullError"}, errors
    if name == "a full disk":
        assert "error StoreFullError" in errors


@pytest.fixture(scope="module")
def how_many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return moments(tmp_path_factory.mktemp("undisturbed") / "life")


@needs_strace
@pytest.mark.parametrize("name", SWEEPS)
def test_faults_in_the_middle_of_a_run(tmp_path: Path, how_many: dict[str, int], name: str) -> None:
    """A kill, or an error by name; the store opens, nothing acknowledged is lost or done twice, the run goes on to its end."""
    count = how_many[SWEEPS[name][0]]
    check_sweep(name, sweep(tmp_path, name, sorted({max(1, count * part // 4) for part in (1, 2, 3)})))


# --- a disk that fills up --------------------------------------------------------------------------------------------------


LIMITED = f"""
import asyncio, resource, signal
from {PACKAGE}.__tests__.test_sqlite_disk import a_flow, END
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
"""

FILLED = f"""
import asyncio, subprocess
from {PACKAGE}.__tests__.test_sqlite_disk import a_flow, END
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", os.path.dirname(sys.argv[1])], check=True)
filler = os.path.join(os.path.dirname(sys.argv[1]), "filler")
def limit(size):
    if size < 0:
        os.unlink(filler)
    else:
        with open(filler, "wb", 0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
"""

FULL = """
store = flow.SQLiteStore(sys.argv[1])
notes = []
full = a_flow(store, notes.append)
run_id = full.init_run(run_id="night")
store.commit(flow.Changes(new_runs=[words.a_run("other")], tasks=[words.a_task(0, "other", output='"kept"')], flush=True))
limit(os.path.getsize(sys.argv[1] + "-wal") + 5000)
errors = []
for number in range(100):
    try:
        store.commit(flow.Changes(tasks=[words.a_task(number, "other", output='"' + "x" * 3000 + '"')]))
    except flow.StoreError as error:
        errors.append(error)
        break
try:
    asyncio.run(full.run_until_complete(run_id))
except flow.StoreError as error:
    errors.append(error)
limit(-1)
run = asyncio.run(full.run_until_complete(run_id))
tasks = store.read_tasks("other")
true = run.tasks["end"].output_json == END and len(tasks) in (max(1, number), number + 1)
print([type(error).__name__ for error in errors], true, store.check())
store.close()
print(sorted(name for name in os.listdir(os.path.dirname(sys.argv[1])) if name != "filler"))
"""


def check_full(done: subprocess.CompletedProcess[str], error: str) -> None:
    """Both uses of the full disk ended in the named error; with space, the run went on, and all that was committed is there."""
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == f"['{error}', '{error}'] True []"
    assert second == "['runs.db']"


@posix_only
def test_a_limit_on_the_size_of_files(path: Path) -> None:
    """It shows as an I/O error, and ends in a `StoreError`; once the limit is lifted, the same store goes on."""
    check_full(in_another_process(LIMITED + FULL, path), "StoreError")


@needs_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a file system of its own, which nobody else sees")
def test_a_file_system_that_is_full(path: Path) -> None:
    """A `StoreFullError`; once somebody has made space, the same store goes on."""
    head = f"import os, sys, {PACKAGE} as flow, {PACKAGE}.testing.store_contract as words\n"
    command = ["unshare", "--mount", sys.executable, "-c", head + FILLED + FULL, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted here")
    check_full(done, "StoreFullError")


# --- files that are taken away, or cannot be written -----------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize("how", ["unlinked", "renamed", "replaced", "replaced by a folder"])
def test_a_file_that_is_taken_away(path: Path, how: str) -> None:
    """The next flush says so, and so does all that follows: no new file is made, and what stands there is left alone."""
    other, foreign = path.with_name("other.db"), path.with_name("foreign.db")
    with SQLiteStore(path, sync_interval=None) as store:
        store.commit(Changes(new_runs=[a_run()], flush=True))
        os.link(path, other)
        with closing(sqlite3.connect(foreign)) as connection:
            connection.execute("CREATE TABLE customers (name TEXT)")
        taken = foreign.read_bytes()
        if how == "replaced":
            foreign.replace(path)
        else:
            path.unlink()
        if how == "replaced by a folder":
            path.mkdir()
        for _ in range(2):
            with pytest.raises(StoreError, match=r"runs\.db"):
                store.commit(Changes(new_runs=[a_run("lost")], flush=True))
            with pytest.raises(StoreError, match=r"runs\.db"):
                store.read_run("run")
        if how == "replaced":
            assert path.read_bytes() == taken
            path.unlink()
        elif how == "replaced by a folder":
            path.rmdir()
        assert not path.exists()
        other.rename(path)
        assert (store.list_runs(), store.check()) == (["run"], [])
        store.commit(Changes(new_runs=[a_run("more")], flush=True))
    with SQLiteStore(path) as store:
        assert (store.list_runs(), store.check()) == (["more", "run"], [])


def test_a_removed_file_whose_wal_file_is_there(path: Path) -> None:
    """A new file would take up what is in it; so none is made. With that removed as well, or the store closed before, one is."""
    with SQLiteStore(path, sync_interval=None) as store:
        store.commit(Changes(new_runs=[a_run()]))
        left = path.with_name("runs.db-wal").read_bytes()
    path.unlink()
    path.with_name("runs.db-wal").write_bytes(left)
    with pytest.raises(StoreDamagedError, match=r"the file is gone.*put it back, or remove runs\.db-wal"):
        SQLiteStore(path).open()
    assert [file.name for file in path.parent.iterdir()] == ["runs.db-wal"]
    path.with_name("runs.db-wal").unlink()
    for _ in range(2):
        store.open()
        assert store.list_runs() == []
        store.close()
        path.unlink()


READ_ONLY = """
os.setgid(65534)
os.setuid(65534)
store = flow.SQLiteStore(sys.argv[1], busy_timeout=0.1)
for use in (store.open, store.list_runs, lambda: store.commit(flow.Changes(new_runs=[words.a_run("new")]))):
    try:
        use()
        print("done")
    except flow.StoreError as error:
        print(error)
"""


@needs_root
@posix_only
@pytest.mark.parametrize("what", ["the folder", "the file", "a new file's folder", "a folder that cannot be entered"])
def test_somebody_elses_files(what: str) -> None:
    """What may not be written is a `StoreError` that says so, and changes nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "runs.db"
        if what != "a new file's folder":
            with SQLiteStore(path) as store:
                store.commit(Changes(new_runs=[a_run()]))
            path.chmod(0o444 if what == "the file" else 0o666)
        folder.chmod(0o777 if what == "the file" else 0o700 if what == "a folder that cannot be entered" else 0o755)
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        done = in_another_process(READ_ONLY, path)
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 3
        for line in done.stdout.splitlines():
            assert re.search(r"runs\.db.*(ermission denied|may not be written|unable to open)", line), line
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# --- the -wal file ---------------------------------------------------------------------------------------------------------


READING = """
print("reading", flush=True)
store.list_runs()
while not os.path.exists(sys.argv[1] + ".stop"):
    store.read_tasks("run")
store.close()
"""


def wal_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


@pytest.fixture
def small_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(sqlite_file, "PINNED_PAGES", 200)
    monkeypatch.setattr(sqlite_file, "_READERS_GET", 20)


def commits(store: SQLiteStore, count: int) -> Iterator[None]:
    for number in range(count):
        changes = Changes(tasks=[a_task(number % 7, output='"' + "x" * (number % 900) + '"')])
        if not store.commit_at_once(changes):
            store.commit(changes)
        yield


@pytest.mark.usefixtures("small_wal")
def test_the_wal_file_stays_small_while_others_read_all_the_time(path: Path) -> None:
    """There is never a moment without a reader, and yet it starts over."""
    head = f"import os, sys, {PACKAGE} as flow\nstore = flow.SQLiteStore(sys.argv[1])\n"
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        readers = [
            subprocess.Popen([sys.executable, "-c", head + READING, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        try:
            for reader in readers:
                assert reader.stdout is not None
                assert reader.stdout.readline() == "reading\n"
            largest = max(wal_size(path) for _ in commits(store, 1500))
        finally:
            path.with_name("runs.db.stop").touch()
            codes = [reader.wait(10) for reader in readers]
            for reader in readers:
                assert reader.stdout is not None
                reader.stdout.close()
        assert codes == [0, 0]
        # What is checked is an estimate: a commit of one row writes two or three pages, and counts as one.
        assert 50 * 4096 < largest < 4 * 250 * 4096
        assert store.check() == []


@pytest.mark.usefixtures("small_wal")
def test_the_wal_file_shrinks_again_when_a_long_select_ends(path: Path) -> None:
    """As long as somebody stands in the middle of one it has to grow; afterwards it does not stay that large."""
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM tasks").fetchall()
            for _ in commits(store, 600):
                pass
            grown = wal_size(path)
            assert grown > 300 * 4096
            other.execute("COMMIT")
        for _ in commits(store, 120):
            pass
        assert wal_size(path) <= 200 * 4096 + 32
        assert len(store.read_tasks("run")) == 7


def main() -> None:
    """Every moment of every kind of fault."""
    with tempfile.TemporaryDirectory() as folder:
        many = moments(Path(folder) / "undisturbed")
        for name, (calls, _) in SWEEPS.items():
            ends = sweep(Path(folder), name, range(1, many[calls] + 1))
            check_sweep(name, ends)
            print(name, len(ends), dict(Counter(code for code, _ in ends)))


if __name__ == "__main__":
    main()
