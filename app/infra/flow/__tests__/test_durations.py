"""What earlier runs tell of durations: the numbers, and how long a run has still to go."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from .. import AsyncFlow, Context, ExecutionState, MemoryStore, Store, StoreDamagedError, TaskRecord, WorkflowRun
from ..tools.durations import (
    Expectation,
    Sample,
    expectation,
    expected_durations,
    flow_statistics,
    percentile,
    samples_of,
    statistics_of_flow,
    task_name,
    task_statistics,
)
from .conftest import FakeClock

BEGAN = datetime(2026, 3, 1, tzinfo=timezone.utc)


def record(task_id: str, start: float | None, end: float | None, state: str = "success", attempts: int = 1) -> TaskRecord:
    """A task by when it began and ended, in seconds since the beginning of its run."""
    return TaskRecord(
        "run",
        task_id,
        0,
        state=ExecutionState(state),
        attempts=attempts,
        started=None if start is None else round(start * 1e6),
        ended=None if end is None else round(end * 1e6),
    )


def finished(seconds: float, state: str = "success") -> WorkflowRun:
    """A run that took so long."""
    return WorkflowRun("run", "shop", state=ExecutionState(state), start_date=BEGAN, end_date=BEGAN + timedelta(seconds=seconds))


# --- numbers ---


def test_a_percentile_lies_between_the_values_around_it() -> None:
    """The lowest at 0, the highest at 1, between two by how near it is to each; of nothing there is none."""
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.95) == 7.0
    assert [percentile([0.0, 10.0, 20.0, 30.0], share) for share in (0, 0.5, 0.95, 1)] == [0.0, 15.0, pytest.approx(28.5), 30.0]


def test_items_count_for_the_whole_s_name() -> None:
    """But not a task that is only called like one, which the graph tells."""
    assert [task_name(name) for name in ("parse[0]", "parse[a.b]", "parse", "[0]", "a[0]b")] == [
        "parse[]",
        "parse[]",
        "parse",
        "[0]",
        "a[0]b",
    ]
    tasks = [record("m[x]", 0, 1), record("m[0]", 0, 1)]
    assert [sample.task for sample in samples_of(tasks, frozenset({"m", "m[x]"}))] == ["m[x]", "m[]"]


def test_each_task_has_its_numbers() -> None:
    """Durations are those of successes; attempts and states are counted of all."""
    tasks = [
        record("a", 0, 1, attempts=3),
        record("a", 0, 3),
        record("a", 0, 100, "failed", attempts=2),
        record("a", None, None, "skipped", attempts=0),
        record("a", 0, None, "running"),
        record("b", None, 5, "cancelled", attempts=0),
    ]
    found = task_statistics(samples_of(tasks))
    a, b = found["a"], found["b"]
    assert list(found) == ["a", "b"]
    assert (a.count, a.success, a.failed, a.cancelled, a.skipped, a.unfinished) == (5, 2, 1, 0, 1, 1)
    assert (a.attempts, a.retries) == (7, 3)
    assert (a.mean, a.p50, a.longest, a.total) == (2.0, 2.0, 3.0, 4.0)
    assert a.success_rate == pytest.approx(2 / 3)
    assert (b.mean, b.p95, b.success_rate) == (None, None, 0.0)
    assert task_statistics([Sample("c", ExecutionState.SKIPPED, None, 0)])["c"].success_rate is None


def test_a_flow_has_its_numbers() -> None:
    """Durations of the runs that succeeded; those that go on are told apart."""
    runs = [finished(10), finished(20), finished(999, "failed"), finished(1, "cancelled"), finished(1, "running")]
    flow = flow_statistics("shop", runs)
    assert (flow.runs, flow.success, flow.failed, flow.cancelled, flow.unfinished) == (5, 2, 1, 1, 1)
    assert (flow.mean, flow.longest, flow.success_rate) == (15.0, 20.0, 0.5)
    assert flow_statistics("shop", []).success_rate is None


# --- how long it has still to go ---


def chain_and_aside() -> Expectation:
    """By a run of 20 s: a, then b, 10 s each; beside them aside, for 4 s."""
    return expectation([(finished(20), [record("a", 0, 10), record("b", 10, 20), record("aside", 0, 4)])])


def test_without_earlier_runs_nothing_is_expected() -> None:
    """Nor where none of them tells how long it took."""
    assert Expectation().remaining(1, 2, 10.0) is None
    assert expectation([]).total is None
    assert expectation([(WorkflowRun("run", "shop"), [])]).total is None


def test_a_run_that_goes_as_the_earlier_one_did_ends_as_that_one_did() -> None:
    """At each moment the rest is what it was then."""
    expected = chain_and_aside()
    assert expected.total == 20
    assert expected.remaining(0, 3, 0.0) == 20
    assert expected.remaining(0, 3, 3.0, {"a": 3.0, "aside": 3.0}) == pytest.approx(17)
    assert expected.remaining(1, 3, 6.0, {"a": 6.0}) == pytest.approx(14)
    assert expected.remaining(2, 3, 15.0, {"b": 5.0}) == pytest.approx(5)
    assert expected.remaining(3, 3, 20.0) == 0


def test_a_run_that_is_slower_is_expected_to_stay_so() -> None:
    """Twice as slow up to here: twice the rest; but for what has hardly begun nothing is foretold."""
    expected = chain_and_aside()
    assert expected.remaining(2, 3, 20.0) == pytest.approx(20)
    assert expected.remaining(2, 3, 5.0) == pytest.approx(5)
    assert expected.remaining(2, 3, 1e9) == pytest.approx(40)
    assert expected.remaining(0, 3, 1e9) == pytest.approx(20)


def test_a_task_that_has_only_begun_is_waited_for() -> None:
    """Though all others have ended, such as after a retry."""
    expected = Expectation(20.0, {"slow": 15.0}, {"slow": 0.0}, (18.0, 19.0, 20.0))
    assert expected.remaining(2, 3) == pytest.approx(1)
    assert expected.remaining(2, 3, None, {"slow": 1.0}) == pytest.approx(14)
    assert expected.remaining(2, 3, None, {"slow": 100.0, "unknown": 0.0}) == pytest.approx(1)


def test_the_list_of_a_map_is_expected_to_be_as_long_as_before() -> None:
    """So that a run is not taken to be half done once it has the list."""
    items = [record(f"parse[{number}]", 1 + number, 2 + number) for number in range(100)]
    expected = expectation([(finished(101), [record("list", 0, 1), record("parse", 1, 101), *items])])
    assert expected.by_task == {"list": 1.0, "parse": 100.0, "parse[]": 1.0}
    assert len(expected.ends) == 101
    assert expected.remaining(1, 2, 1.0) == pytest.approx(100)
    assert expected.remaining(51, 101, 51.0, {"parse": 50.0, "parse[50]": 0.0}) == pytest.approx(50)


def test_of_several_runs_the_middle_one_counts_and_tasks_on_average() -> None:
    """One that took for ever once does not spoil it; the timeline of the latest is stretched to that length."""
    runs = [(finished(10), [record("a", 0, 10)]), (finished(12), [record("a", 0, 12)]), (finished(500), [record("a", 0, 14)])]
    expected = expectation(runs)
    assert (expected.total, expected.by_task, expected.ends) == (12, {"a": 12.0}, (12.0,))


# --- of a store ---


def shop(store: Store, clock: FakeClock) -> AsyncFlow:
    """Each run takes longer than the one before; its param says whether it fails."""
    flow = AsyncFlow("shop", store, clock=clock)
    times = iter(range(1, 1000))

    @flow.task
    def rows(ctx: Context) -> list[int]:
        clock.pass_time(next(times))
        return [1, 2]

    @flow.task(map_over=rows)
    def parse(ctx: Context, item: int) -> None:
        clock.pass_time(2)

    @flow.task(depends_on=[parse])
    def load(ctx: Context) -> None:
        if ctx.params.get("fails"):
            raise ValueError("no")

    return flow


async def runs_of(flow: AsyncFlow, *ids: str, **params: Any) -> None:
    for run_id in ids:
        flow.init_run(params, run_id=run_id)
        await flow.run_until_complete(run_id, max_concurrency=1)


async def test_the_latest_runs_that_succeeded_are_asked(store: Store, clock: FakeClock) -> None:
    """Those of this flow, and so many at most; what failed tells nothing."""
    await runs_of(shop(store, clock), *"abcdef")
    await runs_of(shop(store, clock), "failed", fails=True)
    found = expected_durations(store, "shop", runs=3)
    assert found.by_task["rows"] == 5.0
    assert found.by_task["parse[]"] == 2.0
    assert found.total == pytest.approx(5 + 4, abs=0.01)
    assert expected_durations(store, "other") == Expectation()


async def test_a_run_is_expected_to_be_as_those_before_it(store: Store, clock: FakeClock) -> None:
    """Neither itself nor what was made after it counts; a run that is not made yet has all before it."""
    await runs_of(shop(store, clock), *"abcdef")
    assert expected_durations(store, "shop", before="c").by_task["rows"] == 1.5
    assert expected_durations(store, "shop", before="a").total is None
    assert expected_durations(store, "shop", before="new", runs=10).by_task["rows"] == 3.5


async def test_no_more_is_read_than_is_needed(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five runs, and fewer where they are large; what cannot be read is no failure."""
    store = MemoryStore()
    await runs_of(shop(store, clock), *"abcdefgh")
    read: list[str] = []

    def counted(run_id: str) -> list[TaskRecord]:
        read.append(run_id)
        return [record("a", 0, 1)] * rows

    monkeypatch.setattr(store, "read_tasks", counted)
    rows = 1
    expected_durations(store, "shop")
    assert read == ["h", "g", "f", "e", "d"]
    read.clear()
    rows = 15_000
    expected_durations(store, "shop")
    assert read == ["h", "g"]

    def damaged(run_id: str) -> list[TaskRecord]:
        raise StoreDamagedError("runs.db", re.escape(run_id))

    monkeypatch.setattr(store, "read_tasks", damaged)
    assert expected_durations(store, "shop") == Expectation()


async def test_the_statistics_of_a_flow_are_those_of_its_latest_runs(store: Store, clock: FakeClock) -> None:
    """Items stand behind the task that they are of, in the order of the flow."""
    await runs_of(shop(store, clock), *"abc")
    await runs_of(shop(store, clock), "failed", fails=True)
    found = statistics_of_flow(store, "shop", 3)
    assert (found.runs, found.success, found.failed, found.read) == (3, 2, 1, 3)
    assert [(task.task, task.count, task.success) for task in found.tasks] == [
        ("rows", 3, 3),
        ("parse", 3, 3),
        ("parse[]", 6, 6),
        ("load", 3, 2),
    ]
