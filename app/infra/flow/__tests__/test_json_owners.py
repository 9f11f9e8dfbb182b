"""Several threads and processes on one JsonStore folder: who may write when, who owns which run, and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .. import Changes, JsonStore, RunNotFoundError, State, StoreClosedError, StoreError
from ..errors import OwnershipLostError, RunOwnedError, StoreBusyError
from ..file_lock import FileLock
from ..records import Lease
from ..testing.store_contract import a_run, a_task, snapshot
from .json_folders import HookedFiles, files_in, found_in, full_disk, kill
from .processes import PACKAGE, ROOT, needs_posix

ENDED = a_run(state=State.SUCCESS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., JsonStore]]:
    """Makes stores of one folder, each as in a process of its own, that flush only what asks for it."""
    made: list[JsonStore] = []

    def make(busy_timeout: float = 30.0, lease: float = 30.0) -> JsonStore:
        made.append(JsonStore(folder, sync_interval=None, files=HookedFiles(), busy_timeout=busy_timeout, lease=lease))
        made[-1].open()
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[..., JsonStore]) -> JsonStore:
    return make()


@contextmanager
def held_in(folder: Path) -> Iterator[FileLock]:
    """The folder's lock, in the hands of another process for the length of a block, or until it is closed."""
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / ".lock")
    assert lock.try_acquire()
    try:
        yield lock
    finally:
        lock.close()


# --- one writer at a time ---


def test_a_folder_that_is_held_too_long(make: Callable[..., JsonStore], folder: Path) -> None:
    """Whoever waits for the folder in vain gets a `StoreBusyError` that says how long, and nothing is written."""
    store = make(busy_timeout=0.03)
    with held_in(folder):
        for use in (
            lambda: store.commit(Changes(new_runs=[a_run()])),
            lambda: store.claim("run"),
            lambda: store.backup(folder.with_name("backup")),
        ):
            with pytest.raises(StoreBusyError) as told:
                use()
            assert told.value.waited == 0.03
    assert not folder.with_name("backup").exists()
    assert store.list_runs() == []
    store.commit(Changes(new_runs=[a_run()]))
    assert store.list_runs() == ["run"]


def test_waiting_for_the_folder_keeps_no_reader_out(make: Callable[..., JsonStore], folder: Path) -> None:
    """While a commit waits for another process, other threads read; when that one is done, the commit is made."""
    store = make()
    store.commit(Changes(new_runs=[a_run()]))
    waiting = threading.Thread(target=lambda: store.commit(Changes(tasks=[a_task()])))
    with held_in(folder):
        waiting.start()
        for _ in range(20):
            assert store.read_tasks("run") == []
        assert waiting.is_alive()
    waiting.join()
    assert store.read_tasks("run") == [a_task()]


def test_a_commit_at_once_waits_for_nothing(make: Callable[..., JsonStore], folder: Path) -> None:
    """On the event loop a commit is made if it is small, of one run that is in use, and nothing is waited for; else it is not."""
    store = make()
    small = Changes(tasks=[a_task()])
    store.commit(Changes(new_runs=[a_run(), a_run("other")]))
    lease = store.claim("run")
    before = snapshot(store)
    with held_in(folder):
        assert not store.commit_at_once(small)
    inside = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            inside[0].set()
            inside[1].wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside[0].wait(10)
    assert not store.commit_at_once(small)
    inside[1].set()
    holder.join()
    for changes in (
        Changes(tasks=[a_task()], flush=True),
        Changes(new_runs=[a_run("new")]),
        Changes(tasks=[a_task(), a_task(0, "other")]),
        Changes(tasks=[a_task(0, "other")], lease=lease, release=True),
        Changes(tasks=[a_task(number) for number in range(513)]),
        Changes(tasks=[a_task(output="x" * 262_145)]),
        Changes(runs=[a_run(params="x" * 262_145)]),
        Changes(tasks=[a_task(0, "unknown")]),
    ):
        assert not store.commit_at_once(changes)
    closed = JsonStore(folder)
    assert not closed.commit_at_once(small)
    assert snapshot(store) == before
    assert store.commit_at_once(Changes(tasks=[a_task(number) for number in range(512)], lease=lease))
    assert store.commit_at_once(Changes(tasks=[a_task(output="x" * 200_000)], lease=lease))
    assert store.commit_at_once(Changes())
    make().commit(Changes(tasks=[a_task(9)]))
    assert not store.commit_at_once(small)
    store.commit(small)
    assert store.commit_at_once(Changes(tasks=[a_task(1)], lease=lease, release=True))
    assert store.read_tasks("run")[0] == a_task()
    store.close()
    assert not store.commit_at_once(small)
    with pytest.raises(StoreClosedError):
        store.commit(small)


WRITER = """
import sys
from {package} import Changes, JsonStore
from {package}.testing.store_contract import a_task
store = JsonStore(sys.argv[1])
number = int(sys.argv[2])
for turn in range(60):
    position = 10 + turn * 3 + number
    changes = Changes(tasks=[a_task(position)], flush=turn % 20 == 19)
    if turn % 7 == 0:
        changes.tasks.append(a_task(position, "child"))
    if not store.commit_at_once(changes):
        store.commit(changes)
    if turn % 11 == 0:
        assert len(store.read_tasks("run")) > turn
"""


def test_processes_that_write_at_once(folder: Path, store: JsonStore) -> None:
    """Of three processes that write to the same runs at once, one by one and over both of them, nothing is lost or mixed up."""
    store.commit(Changes(new_runs=[a_run(), a_run("child", parent_run_id="run")]))
    program = [sys.executable, "-c", WRITER.format(package=PACKAGE), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([*program, str(number)], env=environment) for number in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert [task.position for task in store.read_tasks("run")] == list(range(10, 190))
    assert len(store.read_tasks("child")) == 27
    assert store.check() == []


# --- ownership ---


def test_a_run_has_one_owner(make: Callable[..., JsonStore]) -> None:
    """Who claims a run that another store, or this very one, has claimed is told who has it, and since when."""
    first, second = make(), make()
    first.commit(Changes(new_runs=[a_run()]))
    began = time.time_ns() // 1000
    lease = first.claim("run")
    for store in (first, second):
        with pytest.raises(RunOwnedError, match=rf"owned by process {os.getpid()} on .* since 20") as told:
            store.claim("run")
        assert told.value.since is not None
        assert began <= told.value.since <= time.time_ns() // 1000
    first.release(lease)
    again = second.claim("run")
    assert again.epoch == lease.epoch + 1
    with pytest.raises(OwnershipLostError):
        first.commit(Changes(tasks=[a_task()], lease=lease))


def test_a_run_that_is_not_there_cannot_be_owned(store: JsonStore) -> None:
    """A claim of an unknown run is a KeyError, and leaves no file."""
    with pytest.raises(RunNotFoundError):
        store.claim("unknown")
    assert files_in(store.folder) == {}


def test_who_lost_a_run_writes_nothing(make: Callable[..., JsonStore], folder: Path) -> None:
    """After a run was taken by force, every write under the old lease is refused, to subflow runs too, and nothing is written."""
    first, second = make(), make()
    first.commit(Changes(new_runs=[a_run(), a_run("child", parent_run_id="run")]))
    lease = first.claim("run")
    first.commit(Changes(tasks=[a_task(0), a_task(0, "child")], lease=lease))
    taken = second.claim("run", force=True)
    assert taken.epoch > lease.epoch
    before = snapshot(second)
    for changes in (
        Changes(tasks=[a_task(1)], lease=lease),
        Changes(tasks=[a_task(1, "child")], lease=lease),
        Changes(new_runs=[a_run("new", parent_run_id="run")], lease=lease),
        Changes(runs=[ENDED], lease=lease, release=True, flush=True),
        Changes(lease=lease),
    ):
        assert not first.commit_at_once(changes) or not changes
        with pytest.raises(OwnershipLostError):
            first.commit(changes)
    first.release(lease)
    assert snapshot(second) == before == found_in(folder)
    second.commit(Changes(tasks=[a_task(1)], lease=taken))
    assert len(first.read_tasks("run")) == 2


def test_the_first_refusal_names_the_owner(make: Callable[..., JsonStore]) -> None:
    """The error says who has taken the run."""
    first, second = make(), make()
    first.commit(Changes(new_runs=[a_run()]))
    lease = first.claim("run")
    second.claim("run", force=True)
    with pytest.raises(OwnershipLostError, match=rf"process {os.getpid()} on ") as told:
        first.commit(Changes(tasks=[a_task()], lease=lease))
    assert told.value.run_id == "run"


def test_a_dead_owners_run_is_free_at_once(make: Callable[..., JsonStore]) -> None:
    """A run whose owner was killed, or was closed, can be claimed without waiting for anything."""
    first, second, third = make(), make(), make()
    first.commit(Changes(new_runs=[a_run()]))
    first.claim("run")
    kill(first)
    lease = second.claim("run")
    second.close()
    assert third.claim("run").epoch == lease.epoch + 1


def test_a_store_that_is_closed_owns_nothing(store: JsonStore) -> None:
    """A lease from before `close` is no good afterwards, though the run may be claimed again."""
    store.commit(Changes(new_runs=[a_run()]))
    lease = store.claim("run")
    store.close()
    store.release(lease)
    store.open()
    with pytest.raises(OwnershipLostError):
        store.commit(Changes(tasks=[a_task()], lease=lease))
    store.commit(Changes(tasks=[a_task()], lease=store.claim("run")))


def test_an_owner_that_stands_still_loses_its_runs(make: Callable[..., JsonStore]) -> None:
    """An owner that gives no sign of life for longer than its lease may be replaced; when it wakes, it writes nothing."""
    first, second = make(lease=20), make(lease=20)
    first.commit(Changes(new_runs=[a_run()]))
    lease = first.claim("run")
    second._owners._monotonic = lambda: time.monotonic_ns() + 19 * 10**9
    with pytest.raises(RunOwnedError):
        second.claim("run")
    second._owners._monotonic = lambda: time.monotonic_ns() + 21 * 10**9
    second.claim("run")
    with pytest.raises(OwnershipLostError):
        first.commit(Changes(tasks=[a_task()], lease=lease))


def test_a_claim_that_failed_can_be_made_again(store: JsonStore) -> None:
    """Where a claim is not written, or nobody heard of it, it can be made again at once."""
    files = store._files
    assert isinstance(files, HookedFiles)
    store.commit(Changes(new_runs=[a_run()]))
    with files.before(write=full_disk(0)), pytest.raises(StoreError):
        store.claim("run")
    first = store.claim("run")
    store._ownership._held.clear()
    assert store.claim("run").epoch == first.epoch + 1


def test_a_run_that_could_not_be_given_up(make: Callable[..., JsonStore], folder: Path) -> None:
    """Where the release cannot be written, the store that gave the run up may take it again, and others when it has ended."""
    store, other = make(busy_timeout=0.01), make()
    store.commit(Changes(new_runs=[a_run()]))
    lease = store.claim("run")
    with held_in(folder):
        with pytest.raises(StoreBusyError):
            store.release(lease)
    with pytest.raises(OwnershipLostError):
        store.commit(Changes(tasks=[a_task()], lease=lease))
    with pytest.raises(RunOwnedError):
        other.claim("run")
    again = store.claim("run")
    store.commit(Changes(tasks=[a_task()], lease=again))
    store.close()
    other.claim("run")


def test_the_epoch_only_grows(make: Callable[..., JsonStore], folder: Path) -> None:
    """However often a run changes hands, is folded and goes on, no epoch comes twice."""
    epochs: list[int] = []
    store = make()
    store.commit(Changes(new_runs=[a_run()]))
    for turn in range(12):
        lease = store.claim("run", force=turn % 3 == 0)
        epochs.append(lease.epoch)
        if turn % 2:
            store.commit(Changes(runs=[ENDED], lease=lease, flush=True))
            assert list(files_in(folder)) == ["run.json"]
        if turn % 3 == 0:
            store.release(lease)
        elif turn % 3 == 1:
            kill(store)
            store = make()
    assert epochs == sorted(set(epochs))
    assert len(epochs) == 12


def test_a_run_that_was_folded_under_its_owner(make: Callable[..., JsonStore], folder: Path) -> None:
    """A journal that somebody else has folded, or written to, does not cost the owner its run, as long as nobody claimed it."""
    first, second = make(), make()
    first.commit(Changes(new_runs=[a_run(), a_run("child", parent_run_id="run")]))
    lease = first.claim("run")
    second.commit(Changes(runs=[ENDED], flush=True))
    assert "run.journal" not in files_in(folder)
    first.commit(Changes(tasks=[a_task(0, "child")], lease=lease))
    first.commit(Changes(tasks=[a_task(0)], lease=lease))
    second.commit(Changes(tasks=[a_task(1)]))
    first.commit(Changes(tasks=[a_task(2)], lease=lease))
    assert len(second.read_tasks("run")) == 3
    with pytest.raises(RunOwnedError):
        second.claim("run")


def test_a_run_is_given_up_with_its_last_commit(make: Callable[..., JsonStore], folder: Path) -> None:
    """`changes.release` gives the run up in the same commit: the readable file names no owner, and another one can go on."""
    first, second = make(), make()
    first.commit(Changes(new_runs=[a_run(), a_run("child", parent_run_id="run")]))
    lease = first.claim("run")
    first.commit(Changes(tasks=[a_task(0, "child")], lease=lease, release=True))
    with pytest.raises(OwnershipLostError):
        first.commit(Changes(tasks=[a_task()], lease=lease))
    lease = second.claim("run")
    second.commit(Changes(runs=[ENDED], lease=lease, release=True, flush=True))
    assert sorted(files_in(folder)) == ["child.journal", "run.json"]
    second.release(lease)
    assert first.claim("run").epoch == lease.epoch + 1


def test_looking_after_an_ended_run_leaves_no_journal(store: JsonStore, folder: Path) -> None:
    """A claim of an ended run writes a journal; it is folded away again after the release."""
    store.commit(Changes(new_runs=[ENDED], flush=True))
    store.release(store.claim("run"))
    store.commit(Changes(new_runs=[a_run("other")], flush=True))
    assert sorted(files_in(folder)) == ["other.journal", "run.json"]
    store.release(store.claim("run"))
    store.close()
    assert sorted(files_in(folder)) == ["other.journal", "run.json"]


def test_two_stores_of_one_folder_share_their_identity(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of one folder have the same identity, whatever it is called, and others have not; a relative one stays in place."""
    folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    relative = JsonStore("runs")
    identities = {store.identity for store in (JsonStore(folder), JsonStore(link), relative, JsonStore("link/../runs"))}
    assert len(identities) == 1
    assert JsonStore(tmp_path / "other").identity not in identities
    monkeypatch.chdir("/")
    assert relative.identity in identities
    relative.commit(Changes(new_runs=[a_run()]))
    relative.close()
    assert list(files_in(folder)) == ["run.journal"]


# --- forks ---


def in_a_child(work: Callable[[], None]) -> int:
    """The exit code of a forked child that does this: 0 if it raised nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what we are here for
        pid = os.fork()
    if pid == 0:
        code = 1
        signal.alarm(30)  # one that is stuck is killed
        try:
            work()
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_posix
def test_a_forked_child_opens_the_store_anew(make: Callable[..., JsonStore], folder: Path) -> None:
    """A child finds the store as it is, owns none of its parent's runs, and both go on writing, with descriptors of their own."""
    store = make()
    store.commit(Changes(new_runs=[a_run(), a_run("child", parent_run_id="run")]))
    store.commit(Changes(tasks=[a_task(0), a_task(0, "child")]))
    lease = store.claim("run")
    descriptors = [journal.descriptor for journal in store._writer._journals.values()]

    def work() -> None:
        for descriptor in descriptors:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
        assert not store.commit_at_once(Changes(tasks=[a_task(1)]))
        with pytest.raises(OwnershipLostError):
            store.commit(Changes(tasks=[a_task(1)], lease=lease))
        with pytest.raises(RunOwnedError):
            store.claim("run")
        store.commit(Changes(new_runs=[a_run("other"), a_run("its child", parent_run_id="other")]))
        own = store.claim("other")
        store.commit(Changes(tasks=[a_task(0, "other"), a_task(0, "its child")], lease=own, flush=True))
        store.close()

    assert in_a_child(work) == 0
    assert store.commit_at_once(Changes(tasks=[a_task(1)], lease=lease))
    store.commit(Changes(tasks=[a_task(2), a_task(2, "child")], lease=lease))
    store.claim("other")
    assert len(found_in(folder)["order"]) == 4
    assert len(found_in(folder)["run"][1]) == 3
    assert store.check() == []


@needs_posix
def test_a_fork_in_the_middle_of_a_commit(make: Callable[..., JsonStore]) -> None:
    """A child that is forked while a thread holds all locks is not stuck, and waits for its parent like any other process."""
    store = make()
    store.commit(Changes(new_runs=[a_run()]))

    def work() -> None:
        store._busy_timeout = 0.05
        assert store.read_run("run") == a_run()
        with pytest.raises(StoreBusyError):
            store.commit(Changes(tasks=[a_task()]))

    inside, outside = threading.Event(), threading.Event()

    def hold() -> None:
        with store._writing():
            inside.set()
            outside.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30)
    assert in_a_child(work) == 0
    outside.set()
    holder.join()
    store.commit(Changes(tasks=[a_task()]))
    assert in_a_child(lambda: store.commit(Changes(tasks=[a_task(1)]))) == 0
    assert len(store.read_tasks("run")) == 2


@needs_posix
def test_a_childs_copies_keep_nobodys_lock(make: Callable[..., JsonStore], folder: Path) -> None:
    """A child that outlives its parent does not keep the parent's runs owned, or the folder locked."""
    reader, writer = os.pipe()
    program = f"""
import os, sys, time
from {PACKAGE} import Changes, JsonStore
from {PACKAGE}.testing.store_contract import a_run
store = JsonStore(sys.argv[1])
store.commit(Changes(new_runs=[a_run()]))
store.claim("run")
if os.fork():
    os._exit(0)
os.read(0, 1)
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(folder)],
        stdin=reader,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(reader)
    try:
        assert process.wait(30) == 0
        store = make(busy_timeout=0.0)
        assert isinstance(store.claim("run"), Lease)
    finally:
        os.close(writer)
