"""Cancelling a run at every moment there is: at each await, during a commit, and with thousands of tasks under way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, MemoryStore, Store, TaskSucceeded
from ..runner import Runner
from .conftest import STORE_KINDS, Effects, FakeClock, events_of, make_store, outputs_of, returns, run, states_of


class Counted:
    """A coroutine that says so each time it comes to an await at which it has to wait."""

    def __init__(self, work: Coroutine[Any, Any, Any], waits: Callable[[], None]) -> None:
        self._work = work
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, Any]:
        given: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = self._work.send(given) if error is None else self._work.throw(error)
            except StopIteration as ended:
                return ended.value
            self._waits()
            given = error = None
            try:
                given = yield awaited
            except BaseException as raised:
                error = raised


class CancelAt:
    """Cancels a task at the await of that number, counted over everything that runs on the loop from now on.

    The runner's turns, which are no tasks, count as well: before each, and after it.
    """

    def __init__(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left = number
        turn = Runner._turn

        def counted(runner: Runner) -> None:
            self._waits()
            turn(runner)
            self._waits()

        monkeypatch.setattr(Runner, "_turn", counted)
        self.target: asyncio.Task[Any] | None = None
        asyncio.get_running_loop().set_task_factory(self._make)

    def _make(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        async def counted() -> Any:
            return await Counted(work, self._waits)

        return asyncio.Task(counted(), loop=loop, **options)

    def _waits(self) -> None:
        self._left -= 1
        if self._left == 0 and self.target is not None:
            self.target.cancel()


def pipeline(store: Store, effects: Effects) -> AsyncFlow:
    """Tasks that come to an await, one after another and side by side, a retry with a delay, and a subflow."""

    def waits(task_id: str, result: int) -> Any:
        async def task(ctx: Context) -> int:
            effects.log.append(f"{task_id} begins")
            await asyncio.sleep(0)
            effects.log.append(f"{task_id} ends")
            upstream: list[int] = [ctx.pull(other) for other in ("a", "b") if task_id == "last"]
            return result + sum(upstream)

        return task

    async def shaky(ctx: Context) -> int:
        if ctx.attempt_number == ctx.task_instance.interruptions:
            raise ValueError
        return 5

    child = AsyncFlow("child").add_task_definition("leaf", waits("leaf", 3))
    flow = AsyncFlow("flow", store, clock=FakeClock())
    flow.add_task_definition("a", waits("a", 1))
    flow.add_task_definition("b", waits("b", 2))
    flow.add_task_definition("shaky", shaky, max_retries=1, retry_delay=5, dependencies=["a"])
    flow.add_subflow_definition("sub", child, dependencies=["b"])
    flow.add_task_definition("last", waits("last", 4), dependencies=["a", "b", "shaky", "sub"])
    return flow


class ThreadStore(MemoryStore):
    """Makes every commit in a thread, so that the run has to await it."""

    def commit_at_once(self, changes: Changes) -> bool:
        return False


@pytest.mark.parametrize("kind", [*STORE_KINDS, "a thread's"])
async def test_a_run_cancelled_at_any_await_is_saved_and_goes_on_to_the_same_end(
    kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = 0
    for number in range(1, 500):
        folder = tmp_path / str(number)
        folder.mkdir()
        effects = Effects()
        with make_store(kind, folder) if kind in STORE_KINDS else ThreadStore() as store:
            flow = pipeline(store, effects)
            run_id = flow.init_run()
            cancel = CancelAt(number, monkeypatch)
            running = asyncio.create_task(flow.run_until_complete(run_id))
            cancel.target = running
            await asyncio.wait([running], timeout=30)
            asyncio.get_running_loop().set_task_factory(None)
            monkeypatch.undo()
            assert running.done()
            stored = store.load(run_id)
            tasks = stored.get_all_tasks_recursive(store)
            assert not {"running"} & {stored.state.value, *(task.state.value for task in tasks.values())}
            finished = {path.rpartition(".")[2] for path, task in tasks.items() if task.state == "success"}
            before = len(effects.log)
            done = await flow.run_until_complete(run_id)
            assert (done.state, done.tasks["last"].output, done.tasks["sub"].output, done.tasks["shaky"].output) == (
                "success",
                7,
                3,
                5,
            )
            assert not [line for line in effects.log[before:] if line.split()[0] in finished], "what is finished is not repeated"
            if not running.cancelled():
                break
            cancelled += 1
    assert cancelled >= 10


class SlowStore(ThreadStore):
    """Holds up the commit that says that `task_id` succeeded, until `go_on` is set."""

    def __init__(self, task_id: str) -> None:
        super().__init__()
        self._task_id = task_id
        self.began, self.go_on = threading.Event(), threading.Event()
        self.held_up = 0

    def commit(self, changes: Changes) -> None:
        if any(task.task_id == self._task_id and task.state == "success" for task in changes.tasks):
            self.held_up += 1
            self.began.set()
            assert self.go_on.wait(30)
        super().commit(changes)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancellation_during_a_commit_waits_for_that_same_commit(effects: Effects, times: int) -> None:
    store = SlowStore("first")
    flow = AsyncFlow("flow", store)
    flow.add_task_definition("first", effects.of("first", 1))
    flow.add_task_definition("second", effects.of("second", 2), dependencies=["first"])
    told = events_of(flow)
    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await asyncio.to_thread(store.began.wait, 30)
    for _ in range(times):
        running.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
    assert not running.done(), "what is being written cannot be called back"
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert states_of(store.load(run_id)) == {"first": "success", "second": "scheduled"}
    assert store.held_up == 1
    assert [event.task_id for event in told if isinstance(event, TaskSucceeded)] == ["first"]
    assert outputs_of(await flow.run_until_complete(run_id)) == {"first": 1, "second": 2}
    assert effects.log.count("first") == 1


async def test_thousands_of_tasks_under_way_are_cancelled_without_a_deep_stack(flow: AsyncFlow) -> None:
    begun, all_begun, blocked = 0, asyncio.Event(), True

    async def task(ctx: Context) -> int:
        nonlocal begun
        begun += 1
        if begun == 5_000:
            all_begun.set()
        if blocked:
            await asyncio.Event().wait()
        return 1

    for number in range(5_000):
        flow.add_task_definition(f"t{number}", task)
    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await asyncio.wait_for(all_begun.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(states_of(flow.store.load(run_id)).values()) == {"scheduled"}
    blocked = False
    assert (await flow.run_until_complete(run_id)).state == "success"


async def test_no_asyncio_task_waits_for_another_one_however_long_the_chain(flow: AsyncFlow) -> None:
    before, most = len(asyncio.all_tasks()), 0

    async def looks(ctx: Context) -> None:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()) - before)

    for number in range(300):
        flow.add_task_definition(f"t{number}", looks, dependencies=[f"t{number - 1}"] if number else None)
    await run(flow)
    assert most <= 3, "the run, its caller, and the one task under way"


def test_a_store_outlives_the_event_loops_that_used_it(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("only", returns(1))
    for _ in range(2):
        done = asyncio.run(run(flow))
        assert store.load(done.id).state == "success"
    store.close()
