"""What a commit waits for: on the event loop for nobody, and for the disk neither longer nor less than was promised."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import Changes, JsonStore, SQLiteStore
from ..file_lock import FileLock
from ..testing.store_contract import a_run, a_task


def a_store(kind: str, folder: Path) -> SQLiteStore | JsonStore:
    """One that flushes only when it is asked to, with a run in it."""
    sqlite = kind == "sqlite"
    store = SQLiteStore(folder / "runs.db", sync_interval=None) if sqlite else JsonStore(folder, sync_interval=None)
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    assert store.commit_at_once(Changes(tasks=[a_task(output="1")]))
    return store


@pytest.fixture(params=["sqlite", "json"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SQLiteStore | JsonStore, FileLock]]:
    """A store, and the lock that all its writers take, in the hands of somebody else."""
    store = a_store(request.param, tmp_path)
    lock = FileLock(tmp_path / ("runs.db-lock" if request.param == "sqlite" else ".lock"))
    assert lock.try_acquire()
    yield store, lock
    lock.close()
    store.close()


def test_a_commit_on_the_loop_waits_for_nobody(held: tuple[SQLiteStore | JsonStore, FileLock]) -> None:
    """While another process writes, it is not made there; and can be a moment later."""
    store, lock = held
    began = time.monotonic()
    assert not store.commit_at_once(Changes(tasks=[a_task(output="2")]))
    assert time.monotonic() - began < 1.0
    assert store.read_tasks("run")[0].output == "1"
    lock.release()
    assert store.commit_at_once(Changes(tasks=[a_task(output="2")]))


def test_what_is_committed_within_the_interval_is_synced_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the operating system's own call, on the -wal file."""
    synced = threading.Event()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if os.fstat(descriptor).st_ino == wal.stat().st_ino:
            synced.set()

    wal = tmp_path / "runs.db-wal"
    with SQLiteStore(tmp_path / "runs.db", sync_interval=0.05) as store:
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))  # flushed by SQLite: it is the first
        monkeypatch.setattr(os, "fsync", fsync)
        assert store.commit_at_once(Changes(tasks=[a_task(output="1")]))
        assert synced.wait(5.0)
