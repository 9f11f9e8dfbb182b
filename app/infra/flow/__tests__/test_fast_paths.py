"""The fast paths: what is kept, left out or done late for speed must not show in what anybody gets."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sqlite3
import threading
import time
import tracemalloc
from contextlib import closing
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from .. import (
    AsyncFlow,
    Changes,
    ExecutionState,
    FlowError,
    GraphChangedError,
    MemoryStore,
    RunOwnedError,
    RunRecord,
    SQLiteStore,
    TaskRecord,
    TaskReset,
    UnknownTaskError,
    UnstorableValueError,
    ValueCodec,
)


def _run(run_id: str = "r", state: ExecutionState = ExecutionState.SCHEDULED) -> RunRecord:
    return RunRecord(run_id, "f", "{}", "", 1, state)


def _large(store: SQLiteStore) -> None:
    tasks = [TaskRecord("r", f"t{i}", i, output='"' + "x" * 5000 + '"') for i in range(4000)]
    store.commit(Changes(new_runs=[_run(state=ExecutionState.SUCCESS)], tasks=tasks))


def test_a_task_that_stands_twice_in_a_commit_is_written_as_it_stands_there_last(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    rare = TaskRecord("r", "t0", 0, state=ExecutionState.FAILED, error="boom")
    plain = TaskRecord("r", "t0", 0, state=ExecutionState.SUCCESS, output="1")
    store.commit(Changes(new_runs=[_run()], tasks=[rare, plain, TaskRecord("r", "t1", 1)]))
    store.close()
    assert [task.state for task in store.__class__(tmp_path / "a.db").read_tasks("r")] == ["success", "scheduled"]


def test_the_first_read_of_a_new_run_is_like_any_other(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    tasks = [TaskRecord("r", f"t{i}", i) for i in range(3)]
    store.commit(Changes(new_runs=[_run()], tasks=[tasks[2], tasks[0], tasks[0], tasks[1]]))
    assert store.read_tasks("r") == store.read_tasks("r") == tasks


def test_reading_waits_for_no_writer(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db", busy_timeout=5)
    flow = AsyncFlow("f", store)
    flow.add_task_definition("a", lambda ctx: 1)
    run_id = flow.init_run()
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = threading.Thread(target=lambda: store.commit(Changes(tasks=[TaskRecord(run_id, "a", 0)])))
        writing.start()
        while store._file._writing.acquire(blocking=False):  # until the other thread is in the middle of its commit
            store._file._writing.release()
            time.sleep(0.001)
        store.load(run_id)
        assert writing.is_alive(), "the read did not wait for the commit"
        other.execute("ROLLBACK")
        writing.join()


async def test_who_waits_for_a_run_does_not_get_the_error_of_a_retry() -> None:
    flow = AsyncFlow("f", MemoryStore())
    flow.add_task_definition("a", lambda ctx: 1)
    run_id = flow.init_run()
    await flow.run_until_complete(run_id)
    retry = asyncio.create_task(flow.retry(run_id, "nope"))
    await asyncio.sleep(0)
    assert (await flow.run_until_complete(run_id)).state == "success"
    with pytest.raises(UnknownTaskError):
        await retry


async def test_what_a_retry_set_back_is_told_though_the_run_cannot_go_on() -> None:
    store = MemoryStore()

    def make(changed: bool) -> AsyncFlow:
        child = AsyncFlow("c", store)

        async def slow(ctx: object) -> None:
            await asyncio.sleep(100)

        child.add_task_definition("slow", slow)
        if changed:
            child.add_task_definition("new", slow)
        flow = AsyncFlow("f", store)
        flow.add_task_definition("a", lambda ctx: 1)
        return flow.add_subflow_definition("sub", child)

    flow = make(False)
    run_id = flow.init_run()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(flow.run_until_complete(run_id), 0.3)
    flow = make(True)
    told: list[TaskReset] = []
    flow.events.subscribe(told.append, TaskReset)
    with pytest.raises(GraphChangedError):
        await flow.retry(run_id, "a")
    assert store.load(run_id).tasks["a"].state == "scheduled"
    assert [event.task_id for event in told] == ["a"]


async def test_who_waited_in_another_thread_can_retry_at_once() -> None:
    flow, found = AsyncFlow("f", MemoryStore()), []

    async def a(ctx: object) -> None:
        await asyncio.sleep(0.002)

    flow.add_task_definition("a", a)

    async def elsewhere(run_id: str) -> None:
        await flow.run_until_complete(run_id)
        try:
            await flow.retry(run_id, "a")
        except FlowError as error:
            found.append(error)

    for _ in range(30):
        run_id = flow.init_run()
        driving = asyncio.create_task(flow.run_until_complete(run_id))
        await asyncio.sleep(0)
        thread = threading.Thread(target=lambda run_id=run_id: asyncio.run(elsewhere(run_id)))
        thread.start()
        await driving
        await asyncio.to_thread(thread.join)
    assert not found


@pytest.mark.parametrize("what", ["a refused claim", "prune"])
def test_nobody_reads_a_run_in_vain(tmp_path: Path, what: str) -> None:
    owner, store = SQLiteStore(tmp_path / "a.db"), SQLiteStore(tmp_path / "a.db")
    _large(owner)
    if what == "a refused claim":
        owner.claim("r")
    store.open()
    tracemalloc.start()
    try:
        if what == "prune":
            assert store.prune() == ["r"]
        else:
            with pytest.raises(RunOwnedError):
                store.claim("r")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_refused_claim_leaves_what_is_known_of_other_runs(tmp_path: Path) -> None:
    store, other = SQLiteStore(tmp_path / "a.db"), SQLiteStore(tmp_path / "a.db")
    store.commit(Changes(new_runs=[_run("mine")], tasks=[TaskRecord("mine", "t", 0)]))
    store.commit(Changes(new_runs=[_run("theirs")]))
    other.claim("theirs")
    store.claim("mine")
    known = store._known["mine"]
    with pytest.raises(RunOwnedError):
        store.claim("theirs")
    store.commit(Changes(tasks=[TaskRecord("mine", "t", 0)]))
    assert store._known["mine"] is known


@pytest.mark.parametrize("what", ["long", "far apart"])
def test_the_wal_file_is_folded_in_time_whatever_is_written(tmp_path: Path, what: str) -> None:
    store = SQLiteStore(tmp_path / "a.db", sync_interval=None)
    store.commit(Changes(new_runs=[_run()], tasks=[TaskRecord("r", f"t{i}", i) for i in range(20_000)]))
    largest = 0
    for turn in range(120):
        if what == "long":
            tasks = [TaskRecord("r", f"t{turn}", turn, logs="x" * 500_000)]
        else:
            tasks = [TaskRecord("r", f"t{i}", i, output=str(turn)) for i in range(turn, 20_000, 100)]
        store.commit(Changes(tasks=tasks))
        largest = max(largest, (tmp_path / "a.db-wal").stat().st_size)
    assert largest < 25_000_000


def test_a_codec_can_be_copied_and_pickled() -> None:
    codec = pickle.loads(pickle.dumps(copy.deepcopy(ValueCodec())))
    assert codec.decode(codec.encode({"a": (1, 2)}, "output")) == {"a": (1, 2)}


def test_a_zone_of_the_users_own_is_asked_nothing() -> None:
    class Zone(tzinfo):
        def utcoffset(self, dt: datetime | None) -> timedelta:
            return timedelta(0)

        def dst(self, dt: datetime | None) -> timedelta:
            return timedelta(0)

        def tzname(self, dt: datetime | None) -> str:
            return "here"

        @property
        def key(self) -> str:
            raise RuntimeError

    with pytest.raises(UnstorableValueError):
        ValueCodec().encode(datetime(2020, 1, 1, tzinfo=Zone()), "output")


def test_a_name_that_no_flow_can_have_is_found_nowhere(tmp_path: Path) -> None:
    assert SQLiteStore(tmp_path / "a.db").list_runs(flow_name="\ud800") == []


def test_a_file_that_was_put_back_from_a_backup_is_not_taken_for_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore(path)
    flow = AsyncFlow("f", store)
    flow.add_task_definition("a", lambda ctx: 1)
    run_id = flow.init_run()
    store.backup(tmp_path / "b.db")
    flow.run(run_id=run_id)
    store.close()
    (tmp_path / "b.db").replace(path)
    store.open()
    store.commit(Changes(flush=True))
    assert SQLiteStore(path).list_runs() == [run_id]
