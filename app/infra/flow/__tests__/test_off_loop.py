"""Work in a thread of one's own: its order, what becomes of its callers, and a run that is cancelled at any turn of the loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from .. import AsyncFlow, Changes, Context, MemoryStore, RunFinished, SQLiteStore, Store, TaskSucceeded, off_loop
from ..off_loop import Worker
from .conftest import events_of, outputs_of
from .processes import needs_posix


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Worker:
    return Worker(f"the worker of {request.node.name}")


def threads_of(worker: Worker) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == worker._name]


async def test_it_works_in_another_thread_and_gives_back_what_came_of_it(worker: Worker) -> None:
    assert await worker.do(lambda: threading.current_thread().name) == worker._name
    with pytest.raises(ZeroDivisionError):
        await worker.do(lambda: 1 // 0)
    assert await worker.do(lambda: "more") == "more", "it works on after an error"


async def test_work_is_done_in_the_order_in_which_it_was_asked_for(worker: Worker) -> None:
    done: list[int] = []
    await asyncio.gather(*(worker.do(partial(done.append, number)) for number in range(200)))
    assert done == list(range(200))


def test_any_number_of_loops_share_it(worker: Worker) -> None:
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.0005)
        inside -= 1

    async def calls() -> None:
        for _ in range(20):
            await worker.do(work)

    threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive()
    assert most == 1


async def test_it_needs_no_thread_when_there_is_nothing_to_do(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_loop, "IDLE", 0.01)
    assert threads_of(worker) == []
    for _ in range(3):
        await worker.do(lambda: None)
        assert len(threads_of(worker)) == 1
        while threads_of(worker):  # noqa: ASYNC110 - no event tells of the end of a thread
            await asyncio.sleep(0.005)


async def test_where_there_are_no_more_threads_it_is_done_all_the_same(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        assert await worker.do(threading.get_ident) == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await worker.do(lambda: 1 // 0)
    assert await worker.do(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_caller_waits_until_the_work_is_done(worker: Worker, times: int) -> None:
    began, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert go_on.wait(15)
        done.set()

    caller = asyncio.create_task(worker.do(work))
    await asyncio.to_thread(began.wait, 15)
    for _ in range(times):
        caller.cancel()
        await asyncio.sleep(0.01)
    assert not caller.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()


async def test_a_caller_that_is_cancelled_before_the_work_began_has_it_done_too(worker: Worker) -> None:
    """In its place in the order: what comes after it may build on it."""
    go_on, done = threading.Event(), list[str]()
    first = asyncio.create_task(worker.do(lambda: go_on.wait(15)))
    caller = asyncio.create_task(worker.do(lambda: done.append("second")))
    await asyncio.sleep(0)
    caller.cancel()
    third = asyncio.create_task(worker.do(lambda: done.append("third")))
    await asyncio.sleep(0.01)
    assert not caller.done()
    go_on.set()
    await asyncio.wait([first, caller, third])
    assert caller.cancelled()
    assert done == ["second", "third"]


async def test_the_works_own_error_wins_over_a_cancellation(worker: Worker) -> None:
    go_on = threading.Event()

    def work() -> None:
        assert go_on.wait(15)
        raise ZeroDivisionError

    caller = asyncio.create_task(worker.do(work))
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(ZeroDivisionError):
        await caller


def test_it_outlives_a_loop_that_was_closed_over_its_work(worker: Worker) -> None:
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        assert go_on.wait(15)
        done.set()

    loop = asyncio.new_event_loop()
    caller = loop.create_task(worker.do(work))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    go_on.set()
    assert done.wait(15)
    assert asyncio.run(worker.do(lambda: "still there")) == "still there"
    caller.get_coro().close()  # as the drives do: nobody can await it any more
    caller._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_an_idle_thread_keeps_nothing_alive(worker: Worker) -> None:
    class Large:
        """Such as the records of a commit."""

    async def use() -> weakref.ref[Large]:
        large = Large()
        reference = weakref.ref(large)
        await worker.do(lambda: repr(large))
        return reference

    reference = await use()
    await asyncio.sleep(0.02)
    gc.collect()
    assert reference() is None


@needs_posix
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_child_has_a_thread_of_its_own(worker: Worker) -> None:
    await worker.do(lambda: None)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            threading.Timer(10, os._exit, [1]).start()
            os.write(write, asyncio.new_event_loop().run_until_complete(worker.do(lambda: b"done")))
        finally:
            os._exit(0)
    os.close(write)
    assert await asyncio.to_thread(os.read, read, 10) == b"done"
    os.close(read)
    os.waitpid(child, 0)  # noqa: ASYNC222 - it has ended
    assert await worker.do(lambda: "the parent's") == "the parent's"


# --- a run that is cancelled at every turn of the loop ---


class ThreadStore(MemoryStore):
    """Makes every commit in a thread, so that the run has to await it; and counts those it began and those it ended."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self._pause = pause
        self.under_way = 0

    def commit_at_once(self, changes: Changes) -> bool:
        return False

    def commit(self, changes: Changes) -> None:
        self.under_way += 1
        try:
            time.sleep(self._pause)
            super().commit(changes)
        finally:
            self.under_way -= 1


def a_flow(store: Store) -> AsyncFlow:
    """A coroutine, a function in a thread, a fan-out and a subflow: all that a run can be waiting for."""

    async def adds(ctx: Context) -> int:
        await asyncio.sleep(0)
        upstream: list[int] = [ctx.pull(other) for other in ("first", "thread") if ctx.task_id == "last"]
        return 1 + sum(upstream)

    child = AsyncFlow("child").add_task_definition("leaf", adds)
    flow = AsyncFlow("flow", store)
    flow.add_task_definition("first", adds)
    flow.add_task_definition("thread", lambda ctx: 10, dependencies=["first"])
    flow.add_subflow_definition("sub", child, dependencies=["first"])
    flow.add_task_definition("last", adds, dependencies=["thread", "sub"])
    return flow


def growing() -> Iterator[int]:
    """0, 1, 2 ... and then, where the loop only turns because a thread takes its time, in larger steps."""
    turns = 0
    while True:
        yield turns
        turns += 1 + turns // 8


OUTPUTS = {"first": 1, "thread": 10, "last": 12}


def stores_by_name(folder: Path) -> dict[str, Callable[[], Store]]:
    return {
        "memory": MemoryStore,
        "memory, in a thread": lambda: ThreadStore(0.0002),
        "sqlite": lambda: SQLiteStore(folder / "runs.db"),
        "sqlite, every commit in a thread": lambda: SQLiteStore(folder / "runs.db", sync_interval=0),
    }


@pytest.mark.parametrize("kind", list(stores_by_name(Path())))
@pytest.mark.parametrize("times", [1, 2])
async def test_a_run_that_is_cancelled_after_any_turn_of_the_loop_is_saved_told_and_given_up(
    kind: str, times: int, tmp_path: Path
) -> None:
    store = stores_by_name(tmp_path)[kind]()
    flow = a_flow(store)
    cancelled = 0
    with store:
        for turns in growing():
            told = events_of(flow)
            run_id = flow.init_run()
            call = asyncio.create_task(flow.run_until_complete(run_id))
            for _ in range(turns):
                await asyncio.sleep(0)
            for _ in range(times):
                call.cancel()
                await asyncio.sleep(0)
            ended, _ = await asyncio.wait([call], timeout=10)
            assert ended, f"it hangs when it is cancelled after {turns} turns"
            if isinstance(store, ThreadStore):
                assert store.under_way == 0, "a commit outlived its caller"
            stored = store.load(run_id)
            tasks = stored.get_all_tasks_recursive(store)
            assert {stored.state.value, *(task.state.value for task in tasks.values())} <= {"scheduled", "success"}
            succeeded = sorted(path.rpartition(".")[2] for path, task in tasks.items() if task.state == "success")
            assert sorted(event.task_id for event in told if isinstance(event, TaskSucceeded)) == succeeded, (
                "what is saved is told"
            )
            store.release(store.claim(run_id))  # nobody owns it any more
            done = await flow.run_until_complete(run_id)
            assert {task_id: output for task_id, output in outputs_of(done).items() if task_id != "sub"} == OUTPUTS
            assert sum(isinstance(event, RunFinished) and event.run_id == run_id for event in told) == 1
            cancelled += call.cancelled()
            if not call.cancelled():
                assert call.result().state == "success"
                break
        assert cancelled > 10
        assert store.check() == []


@pytest.mark.parametrize("kind", list(stores_by_name(Path())))
def test_a_run_whose_loop_ends_after_any_turn_can_be_continued(kind: str, tmp_path: Path) -> None:
    """asyncio.run cancels all that is left over, in whatever order: the run's own asyncio task too, not only its caller's."""
    store = stores_by_name(tmp_path)[kind]()
    flow = a_flow(store)

    async def main(run_id: str, turns: int) -> bool:
        call = asyncio.create_task(flow.run_until_complete(run_id))
        for _ in range(turns):
            await asyncio.sleep(0)
        return call.done()

    turns = 0
    with store:
        for turns in growing():
            run_id = flow.init_run()
            done = asyncio.run(main(run_id, turns))
            assert store.load(run_id).state in ("scheduled", "success")
            assert asyncio.run(flow.run_until_complete(run_id)).state == "success"
            if done:
                break
        assert turns > 10


@pytest.mark.parametrize("kind", list(stores_by_name(Path())))
def test_a_run_whose_loop_is_closed_under_it_after_any_turn_can_be_continued(kind: str, tmp_path: Path) -> None:
    store = stores_by_name(tmp_path)[kind]()
    flow = a_flow(store)

    async def some(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    turns = 0
    with store:
        for turns in growing():
            run_id = flow.init_run()
            loop = asyncio.new_event_loop()
            call = loop.create_task(flow.run_until_complete(run_id))
            loop.run_until_complete(some(turns))
            done = call.done()
            left_over = [] if done else list(asyncio.all_tasks(loop))
            loop.close()
            for task in left_over:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
                    task.get_coro().close()  # else Python says, whenever it is collected, that nobody awaited it
            assert asyncio.run(flow.run_until_complete(run_id)).state == "success", f"closed after {turns} turns"
            if done:
                break
        assert turns > 10
    gc.collect()  # what is said of coroutines that never began is said here
