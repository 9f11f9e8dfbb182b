"""When JsonStore's commits reach the disk, and what happens when the disk will not take them."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from .. import Changes, JsonStore, RunNotFoundError, State, StoreClosedError, StoreError, file_system
from ..errors import InvalidOptionError, StoreFullError
from ..file_system import FileSystem
from ..testing.store_contract import a_run, a_task, snapshot
from .json_folders import Hook, HookedFiles, fail, files_in, found_in, full_disk, kill
from .processes import PACKAGE, ROOT

ENDED = a_run(state=State.SUCCESS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def files() -> HookedFiles:
    return HookedFiles()


@pytest.fixture
def store(folder: Path, files: HookedFiles) -> Iterator[JsonStore]:
    """A store that flushes only what asks for it."""
    with JsonStore(folder, files=files, sync_interval=None) as store:
        yield store


def synced_in(files: HookedFiles) -> tuple[list[str], Any]:
    """A list of what is synced in a block: files by name, the folder as such."""
    names: list[str] = []
    return names, files.before(
        sync=lambda descriptor: names.append(files.names[descriptor]), sync_folder=lambda folder: names.append("the folder")
    )


# --- when ---


def test_only_a_flush_waits_for_the_disk(store: JsonStore, files: HookedFiles) -> None:
    """A flush syncs each journal written since the last one, and the folder if it has new names; other commits sync nothing."""
    synced, watching = synced_in(files)
    with watching:
        for run_id in ("first", "second"):
            store.commit(Changes(new_runs=[a_run(run_id)]))
        store.commit(Changes(tasks=[a_task(0, "first")]))
        assert synced == []
        store.commit(Changes(tasks=[a_task(1, "first")], flush=True))
        assert synced == ["first.journal", "second.journal", "the folder"]
        synced.clear()
        store.commit(Changes(tasks=[a_task(1, "second")], flush=True))
        assert synced == ["second.journal"]
        synced.clear()
        store.commit(Changes(runs=[a_run("first", state=State.FAILED)], flush=True))
        assert synced == ["first.json.tmp", "the folder"]
        synced.clear()
        store.commit(Changes(flush=True))
        assert synced == []


def test_what_makes_a_commit_count_is_written_last(store: JsonStore, files: HookedFiles) -> None:
    """Of a commit over several runs, all that the outermost run's line vouches for is on the disk before that line is written."""
    store.commit(Changes(new_runs=[a_run("root")], flush=True))
    done, watching = synced_in(files)
    with watching:
        files.hooks["write"] = lambda descriptor, data, offset: done.append("> " + files.names[descriptor])
        store.commit(
            Changes(
                new_runs=[a_run("child", parent_run_id="root"), a_run("inner", parent_run_id="child")], tasks=[a_task(0, "root")]
            )
        )
    assert done == [
        "> inner.journal", "inner.journal", "> child.journal", "child.journal", "the folder", "> root.journal"
    ]  # fmt: skip


def test_a_new_folder_is_on_the_disk(tmp_path: Path, files: HookedFiles) -> None:
    """Folders made for the store have their names on the disk, or a power cut could take them with all that is in them."""
    folders: list[Path] = []
    with files.before(sync_folder=folders.append):
        JsonStore(tmp_path / "deep" / "inside", files=files).open()
    assert folders == [tmp_path, tmp_path / "deep"]


def test_a_store_that_nobody_closed_is_flushed(folder: Path, files: HookedFiles) -> None:
    """A store thrown away without a `close` is flushed, and gives up its runs and files; so does one when the program ends."""
    synced, watching = synced_in(files)
    store = JsonStore(folder, files=files, sync_interval=None)
    with watching:
        store.commit(Changes(new_runs=[a_run()]))
        store.claim("run")
        assert store._finalizer is not None
        assert store._finalizer.atexit
        descriptors = [journal.descriptor for journal in store._writer._journals.values()]
        del store
        gc.collect()
    assert synced[-2:] == ["run.journal", "the folder"]
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    with JsonStore(folder) as other:
        other.claim("run")


def test_a_journal_that_was_folded_is_not_cut_off_where_it_is(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """A power cut could take its first line, which alone says that it was folded: what is left would pass for damage."""
    store.commit(Changes(new_runs=[a_run(state=State.SUCCESS)], tasks=[a_task(0)]))
    journal = folder / "run.journal"
    stale = journal.read_bytes()
    store.commit(Changes(tasks=[a_task(1)], runs=[a_run(state=State.SUCCESS)], flush=True))
    journal.write_bytes(stale)
    file = journal.stat().st_ino
    with journal.open("rb") as still_there, files.before(truncate=fail):
        store.commit(Changes(tasks=[a_task(2)]))
        assert still_there.read() == stale
    assert journal.stat().st_ino != file
    assert [task.position for task in store.read_tasks("run")] == [0, 1, 2]
    assert found_in(folder) == snapshot(store)


def test_what_a_kill_left_is_cut_off_on_the_disk_first(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """What was cut off must not come back among lines that are written in its place: the cut is on the disk before these are."""
    store.commit(Changes(new_runs=[a_run()]))
    kill(store)
    with (folder / "run.journal").open("ab") as journal:
        journal.write(b"000000")
    store.open()
    done: list[str] = []
    with files.before(
        truncate=lambda descriptor, length: done.append("cut"),
        sync=lambda descriptor: done.append("sync"),
        write=lambda descriptor, data, offset: done.append("write"),
    ):
        store.commit(Changes(tasks=[a_task()]))
    assert done == ["cut", "sync", "write"]
    with files.before(write=full_disk(0)), pytest.raises(StoreFullError):
        store.commit(Changes(tasks=[a_task(1)]))
    done.clear()
    with files.before(write=full_disk(0), truncate=lambda *_: done.append("cut"), sync=lambda *_: done.append("sync")):
        with pytest.raises(StoreFullError):
            store.commit(Changes(tasks=[a_task(1)]))
    assert done == ["cut", "sync"]


def test_a_flush_is_of_the_file_that_has_the_name(folder: Path, files: HookedFiles) -> None:
    """A journal that another process has folded and begun anew is synced there, not in the file that is gone."""
    synced: list[int] = []
    with JsonStore(folder, files=files, sync_interval=None) as first, JsonStore(folder, files=files, sync_interval=None) as other:
        first.commit(Changes(new_runs=[a_run("last"), a_run("run")]))
        other.commit(Changes(tasks=[a_task(0, "last")], flush=True))
        first.commit(Changes(runs=[a_run("last", state=State.SUCCESS)], flush=True))
        first.commit(Changes(tasks=[a_task(0, "run"), a_task(1, "last")]))
        other.commit(Changes(tasks=[a_task(1, "run")]))
        with files.before(sync=lambda descriptor: synced.append(os.fstat(descriptor).st_ino)):
            other.commit(Changes(flush=True))
    relied_on = json.loads((folder / "run.journal").read_bytes().splitlines()[1][18:])["with"][0]
    assert (folder / f"{relied_on}.journal").stat().st_ino in synced


def test_an_interval_of_0_flushes_each_commit(folder: Path, files: HookedFiles) -> None:
    """With `sync_interval=0` every commit is on the disk when it returns, so none is made on the event loop."""
    synced, watching = synced_in(files)
    with JsonStore(folder, files=files, sync_interval=0) as store, watching:
        store.commit(Changes(new_runs=[a_run()]))
        assert synced == ["run.journal", "the folder"]
        store.commit(Changes(tasks=[a_task()]))
        assert synced == ["run.journal", "the folder", "run.journal"]
        assert not store.commit_at_once(Changes(tasks=[a_task()]))


def test_a_commit_that_is_due_is_flushed(folder: Path, files: HookedFiles) -> None:
    """A commit is flushed at once when the last flush is as long ago as the interval says, and only then."""
    synced, watching = synced_in(files)
    with JsonStore(folder, files=files, sync_interval=timedelta(hours=1)) as store, watching:
        moment = 0.0
        store._flusher._monotonic = lambda: moment
        store.commit(Changes(new_runs=[a_run()]))
        assert synced == ["run.journal", "the folder"]
        moment += 3599
        assert store.commit_at_once(Changes(tasks=[a_task(0)]))
        store.commit(Changes(tasks=[a_task(1)]))
        assert len(synced) == 2
        moment += 1
        assert not store.commit_at_once(Changes(tasks=[a_task(2)]))
        store.commit(Changes(tasks=[a_task(2)]))
        assert synced[2:] == ["run.journal"]
        assert store._flusher._last == moment


def test_a_timer_flushes_the_others(folder: Path, files: HookedFiles) -> None:
    """Where no commit follows, a timer brings the last ones to the disk when the interval is over."""
    flushed = threading.Event()
    with JsonStore(folder, files=files, sync_interval=0.02) as store:
        store.commit(Changes(new_runs=[a_run()]))
        with files.before(sync=lambda descriptor: flushed.set()):
            assert store.commit_at_once(Changes(tasks=[a_task()]))
            assert flushed.wait(10)


def test_a_claim_is_flushed_with_the_others(store: JsonStore, files: HookedFiles) -> None:
    """A claim waits for no disk, and belongs to the next flush."""
    store.commit(Changes(new_runs=[a_run()], flush=True))
    synced, watching = synced_in(files)
    with watching:
        store.claim("run")
        assert synced == []
        store.commit(Changes(flush=True))
        assert synced == ["run.journal"]


def test_close_flushes(store: JsonStore, files: HookedFiles, folder: Path) -> None:
    """What is not on the disk yet is when the store is closed."""
    for run in (a_run(), a_run("ended", state=State.SUCCESS)):
        store.commit(Changes(new_runs=[run]))
    synced, watching = synced_in(files)
    with watching:
        store.close()
    assert set(synced) >= {"run.journal", "ended.json.tmp", "the folder"}
    assert sorted(files_in(folder)) == ["ended.json", "run.journal"]


@pytest.mark.parametrize("interval", [-1, True, "often", float("nan")])
def test_an_interval_that_makes_no_sense(folder: Path, interval: Any) -> None:
    """What is no number of seconds from 0 on is refused when the store is made."""
    with pytest.raises(InvalidOptionError, match="sync_interval"):
        JsonStore(folder, sync_interval=interval)


def test_other_options_that_make_no_sense(folder: Path) -> None:
    """So are a folder that is none, a negative patience and a lease without a length."""
    for options in ({"folder": 7}, {"busy_timeout": -1}, {"lease": 0}, {"lease": "long"}):
        with pytest.raises(InvalidOptionError, match=next(iter(options))):
            JsonStore(**{"folder": folder, **options})  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
def test_a_full_sync_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS a sync is F_FULLFSYNC, since fsync is none; where a file system has none of it, fsync; its errors are errors."""
    import fcntl

    calls: list[object] = []
    answers: list[OSError | None] = [None, OSError(errno.ENOTTY, "no"), OSError(errno.EIO, "broken")]

    def control(descriptor: int, command: int) -> None:
        calls.append(command)
        error = answers.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(file_system, "_full_sync", 51)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    files = FileSystem()
    files.create(tmp_path / "first", b"", sync=True)
    files.create(tmp_path / "second", b"", sync=True)
    with pytest.raises(OSError, match="broken"):
        files.create(tmp_path / "third", b"", sync=True)
    assert calls == [51, 51, "fsync", 51]


# --- a disk that fails ---


@pytest.mark.parametrize("operation", ["sync", "sync_folder"])
def test_after_a_failed_flush_nothing_is_taken_for_granted(
    store: JsonStore, folder: Path, files: HookedFiles, operation: str
) -> None:
    """What a failed sync leaves behind is unknown, so all that is unflushed is written to new files before anything else is."""
    store.commit(Changes(new_runs=[a_run("first"), a_run("second")]))
    store.commit(Changes(new_runs=[a_run("third")]))
    store.commit(Changes(tasks=[a_task(0, "first")]))
    failing: dict[str, Hook] = {operation: fail}
    with files.before(**failing), pytest.raises(StoreError, match="Input/output error"):
        store.commit(Changes(tasks=[a_task(1, "first")], flush=True))
    assert not store.commit_at_once(Changes(tasks=[a_task(2, "first")]))
    with files.before(**failing):
        for use in (lambda: store.commit(Changes(tasks=[a_task(2, "first")])), lambda: store.claim("third")):
            with pytest.raises(StoreError, match="Input/output error"):
                use()
    assert len(store.read_tasks("first")) == 2
    before = snapshot(store)
    replaced: list[str] = []
    with files.before(replace=lambda source, target: replaced.append(target.name)):
        store.commit(Changes(tasks=[a_task(2, "third")]))
    assert "first.json" in replaced
    assert sorted(name for name in files_in(folder) if "first" in name) == ["first.json"]
    before["third"][1].append(a_task(2, "third"))
    assert snapshot(store) == before == found_in(folder)
    assert store.commit_at_once(Changes(tasks=[a_task(3, "third")]))


def test_a_flush_of_the_timer_that_failed_is_mended(
    store: JsonStore, folder: Path, files: HookedFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the timer's flush fails, the next commit writes all of it to a new file first."""
    store.commit(Changes(new_runs=[a_run()]))
    with files.before(sync=fail):
        store._flush_in_time()
    assert "a flush has failed" in caplog.text
    store._flush_in_time()
    assert store._writer.suspect is True
    store.commit(Changes(tasks=[a_task()]))
    assert not store._flusher.pending or not store._writer.suspect
    assert sorted(files_in(folder)) == ["run.journal", "run.json"]
    assert found_in(folder)["run"] == (a_run(), [a_task()], [])


def test_a_partner_that_could_not_be_flushed(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """Where the sync in the middle of a commit over several runs fails, none of it counts, and the commit can be made again."""
    store.commit(Changes(new_runs=[a_run("root"), a_run("child", parent_run_id="root")]))
    before = snapshot(store)
    changes = Changes(tasks=[a_task(0, "child"), a_task(0, "root")])
    with files.before(sync=fail), pytest.raises(StoreError, match="Input/output error"):
        store.commit(changes)
    assert snapshot(store) == before == found_in(folder)
    store.commit(changes)
    assert found_in(folder)["child"][1] == [a_task(0, "child")]


def test_a_close_that_fails_still_closes(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """If the last flush fails, `close` says so, yet the store is closed; opened again, it first writes all to new files."""
    store.commit(Changes(new_runs=[a_run()]))
    with files.before(sync=fail), pytest.raises(StoreError, match="Input/output error"):
        store.close()
    assert not store._writer._journals
    with pytest.raises(StoreClosedError):
        store.list_runs()
    store.open()
    assert store.read_run("run") == a_run()
    store.commit(Changes(tasks=[a_task()]))
    assert "run.json" in files_in(folder)
    assert found_in(folder)["run"] == (a_run(), [a_task()], [])


def test_a_run_that_was_lost_in_a_failed_flush_keeps_no_other_back(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """If the disk did lose a journal's content, its run is damaged, and says so; the others go on."""
    for run_id in ("lost", "good"):
        store.commit(Changes(new_runs=[a_run(run_id)]))
    store.commit(Changes(tasks=[a_task(0, "lost")]))
    with files.before(sync=fail), pytest.raises(StoreError):
        store.commit(Changes(flush=True))
    journal = folder / "lost.journal"
    journal.write_bytes(journal.read_bytes().replace(b"nightly", b"?ightly"))
    store.commit(Changes(tasks=[a_task(0, "good")], flush=True))
    assert found_in(folder)["order"] == ["good"]
    with pytest.raises(StoreError, match="damaged"):
        store.commit(Changes(tasks=[a_task(1, "lost")]))


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_a_full_disk_has_a_name(store: JsonStore, folder: Path, files: HookedFiles, code: str) -> None:
    """No space, no quota and a file that may not grow are a `StoreFullError`; when there is space again, the run goes on."""

    def no_room(*arguments: Any) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    store.commit(Changes(new_runs=[a_run()]))
    before = snapshot(store)
    with files.before(write=no_room), pytest.raises(StoreFullError):
        store.commit(Changes(tasks=[a_task(0)]))
    assert snapshot(store) == before == found_in(folder)
    store.commit(Changes(tasks=[a_task(1)]))
    assert found_in(folder)["run"][1] == [a_task(1)]


def test_a_fold_that_fails_leaves_no_half_file(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """When the disk is full in the fold, no temporary file stays, the journal tells all and is flushed, and is folded later."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    synced, watching = synced_in(files)
    with watching, pytest.raises(StoreFullError, match="No space left"):
        files.hooks["write"] = full_disk(1)
        store.commit(Changes(runs=[ENDED], flush=True))
    assert "run.journal" in synced
    assert list(files_in(folder)) == ["run.journal"]
    assert store.read_run("run") == ENDED
    store.commit(Changes(flush=True))
    assert list(files_in(folder)) == ["run.json"]
    assert store.read_run("run") == ENDED


@pytest.mark.parametrize("operation", ["open", "read", "status", "write"])
def test_errors_of_the_system_are_translated(store: JsonStore, files: HookedFiles, operation: str) -> None:
    """An OSError from any corner leaves the store as a `StoreError` that names the store and the trouble; nothing is written."""
    store.commit(Changes(new_runs=[a_run()]))

    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    hooks: dict[str, Hook] = {operation: refuse}
    with files.before(**hooks), pytest.raises(StoreError, match=r"JsonStore\(.*Permission denied"):
        store.commit(Changes(new_runs=[a_run("new")], tasks=[a_task()]))
    assert store.list_runs() == ["run"]
    assert store.read_tasks("run") == []


def test_a_folder_that_may_only_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a read-only disk runs are listed, read and checked; whoever writes is told why it cannot be."""
    with JsonStore(folder) as store:
        store.commit(Changes(new_runs=[a_run(), a_run("ended", state=State.SUCCESS)], flush=True))
    (folder / "run.json.tmp").write_text("left behind")
    os_open = os.open

    def read_only(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return os_open(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    with JsonStore(folder) as store:
        assert sorted(store.list_runs()) == ["ended", "run"]
        assert store.load("ended").state is State.SUCCESS
        assert store.check() == []
        for use in (lambda: store.commit(Changes(tasks=[a_task()])), lambda: store.claim("run")):
            with pytest.raises(StoreError, match="Read-only"):
                use()


def test_a_folder_that_was_removed(store: JsonStore, folder: Path) -> None:
    """Files that are removed or renamed under an open store are missed at the next write; nothing is written into the void."""
    store.commit(Changes(new_runs=[a_run()]))
    (folder / "run.journal").rename(folder / "elsewhere")
    with pytest.raises(RunNotFoundError):
        store.commit(Changes(tasks=[a_task()]))
    (folder / "elsewhere").rename(folder / "run.journal")
    store.commit(Changes(tasks=[a_task()]))
    folder.rename(folder.with_name("moved"))
    with pytest.raises(RunNotFoundError):
        store.commit(Changes(tasks=[a_task(1)]))
    folder.with_name("moved").rename(folder)
    assert found_in(folder)["run"][1] == [a_task()]


LIMITED = """
import resource, sys
from {package} import Changes, FlowError, JsonStore
from {package}.errors import StoreFullError
from {package}.testing.store_contract import a_run, a_task
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
store = JsonStore(sys.argv[1])
store.commit(Changes(new_runs=[a_run()]))
number = 0
try:
    while True:
        store.commit(Changes(tasks=[a_task(number, reason="x" * 500)]))
        number += 1
except StoreFullError as error:
    print(number, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_limit_on_the_size_of_files(folder: Path) -> None:
    """Under RLIMIT_FSIZE, which the system tells as an error of its own, all commits before the limit stand."""
    program = LIMITED.format(package=PACKAGE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, env=environment, check=True
    )
    count = int(ended.stdout.split()[0])
    assert 20 < count < 40
    assert [task.position for task in found_in(folder)["run"][1]] == list(range(count))
