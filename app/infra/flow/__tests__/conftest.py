"""The words that the tests speak: a clock that takes no time, tasks that fail on purpose, what a run came to."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite(f"{__name__.rpartition('.__tests__')[0]}.testing.store_contract")

from .. import (  # noqa: E402 - the rewrite has to be registered before the first import
    AsyncFlow,
    Changes,
    Context,
    Event,
    JsonStore,
    MemoryStore,
    SQLiteStore,
    Store,
    WorkflowRun,
)

BENCH = frozenset(
    [
        "test_crash_sweep",
        "test_fuzz",
        "test_json_damage",
        "test_loop_alive",
        "test_ownership",
        "test_power_cuts_json",
        "test_power_cuts_sqlite",
        "test_processes",
        "test_sqlite_damage",
        "test_sqlite_disk",
        "test_sqlite_upkeep",
        "test_state_machine",
    ]
)
"""The attacks that take long: with real processes, thousands of cuts and flips, or the clock on the wall."""


# Whoever starts the tests in the background of a shell without job control has these ignored, and all that they start as well.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (getattr(signal, "SIGQUIT", None), signal.SIG_DFL)):
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, so that `-m "not bench"` leaves them out."""
    for item in items:
        if item.path.stem in BENCH:
            item.add_marker(pytest.mark.bench)


STORE_KINDS = ("sqlite", "json", "memory")


class FakeClock:
    """Time that passes only when somebody sleeps. `slept` holds the seconds of each sleep."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self.wall = now
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_time(seconds)
        await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += round(seconds * 1e6)


def make_store(kind: str, folder: Path) -> Store:
    """A store of the given kind; two of the same folder share their runs, unless they are in memory."""
    if kind == "sqlite":
        return SQLiteStore(folder / "runs.db")
    return JsonStore(folder / "runs") if kind == "json" else MemoryStore()


def around_commits(store: Store, around: Callable[[Callable[[], None], Changes], None]) -> Callable[[], None]:
    """Have every commit of a store made by `around(commit, changes)`, on the event loop; what is returned puts it right again."""
    commit = store.commit

    def instead(changes: Changes) -> bool:
        around(lambda: commit(changes), changes)
        return True

    changed: Any = store
    changed.commit = changed.commit_at_once = instead

    def undo() -> None:
        del changed.commit, changed.commit_at_once

    return undo


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=STORE_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each of the three stores in turn."""
    made = make_store(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def flow(clock: FakeClock) -> AsyncFlow:
    """An empty flow in memory, whose clock takes no time."""
    return AsyncFlow("test_flow", clock=clock)


def flaky(times: int, result: Any = "done") -> Callable[[Context], Awaitable[Any]]:
    """A task that fails so many times and then returns `result`."""
    calls = 0

    async def task(ctx: Context) -> Any:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise ValueError(f"failure {calls}")
        return result

    return task


def returns(value: Any) -> Callable[[Context], Awaitable[Any]]:
    """A task that returns `value`."""

    async def task(ctx: Context) -> Any:
        return value

    return task


def fails(message: str = "boom") -> Callable[[Context], Awaitable[Any]]:
    """A task that raises `RuntimeError(message)`."""

    async def task(ctx: Context) -> Any:
        raise RuntimeError(message)

    return task


class Effects:
    """What tasks did outside the store, in order: `effects.of("load", 7)` is a task that notes itself and returns 7."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def of(self, task_id: str, result: Any = None) -> Callable[[Context], Awaitable[Any]]:
        async def task(ctx: Context) -> Any:
            self.log.append(task_id)
            return result

        return task


@pytest.fixture
def effects() -> Effects:
    return Effects()


async def run(flow: AsyncFlow, params: dict[str, Any] | None = None, **options: Any) -> WorkflowRun:
    """Make a run of the flow and drive it to its end."""
    return await flow.run_until_complete(flow.init_run(params), **options)


def states_of(run: WorkflowRun) -> dict[str, str]:
    """The state of each task, as plain strings."""
    return {task_id: task.state.value for task_id, task in run.tasks.items()}


def outputs_of(run: WorkflowRun) -> dict[str, Any]:
    """The output of each task."""
    return {task_id: task.output_json for task_id, task in run.tasks.items()}


def events_of(flow: AsyncFlow) -> list[Event]:
    """A list that fills with what the flow tells from now on."""
    told: list[Event] = []
    flow.events.subscribe(told.append)
    return told
