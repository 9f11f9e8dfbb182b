"""Tasks that ask to be skipped: wherever they run, whatever else is going on, and what becomes of them later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Context, SkipTask, Store, TaskSkipped, WorkflowRun
from ..errors import skip_reason
from ..redaction import MAX_REASON, kept_reason
from . import worker_tasks
from .attempts import until
from .conftest import STORE_KINDS, Effects, FakeClock, events_of, flaky, make_store, outputs_of, returns, run, states_of
from .held_clock import HeldClock
from .test_calling import place as place
from .test_resume import Crash, crash_at


def skipping(reason: str = "nothing new") -> Callable[[Context], Any]:
    """A task that asks to be skipped."""

    async def task(ctx: Context) -> None:
        raise SkipTask(reason)

    return task


async def test_a_task_is_skipped_wherever_it_runs_with_its_reason_and_its_log(place: Any, store: Store) -> None:
    function = worker_tasks.skips if place is not None else worker_tasks.skips_later
    flow = AsyncFlow("flow", store, redact=lambda text: text.replace("hunter2", "***"))
    flow.add_task_definition("skips", function, executor=place, max_retries=3)
    flow.add_task_definition("after", worker_tasks.one, dependencies=["skips"])
    flow.add_task_definition("beside", worker_tasks.one)
    told = events_of(flow)
    ended = await run(flow)
    task = ended.tasks["skips"]
    assert (ended.state, states_of(ended)) == ("success", {"skips": "skipped", "after": "skipped", "beside": "success"})
    assert (task.reason, task.error, task.output) == ("no new files for ***", None, None)
    assert (task.start_date is not None, task.end_date is not None, task.next_attempt_at) == (True, True, None)
    assert [entry.message for entry in task.logs] == ["looked"]
    assert ended.params == {}, "what a task changes in the params is kept with its success"
    (skipped,) = [attempt for attempt in store.list_attempts(ended.id) if attempt.task_id == "skips"]
    assert (skipped.result, skipped.number, skipped.try_number, skipped.error) == ("skipped", 1, 0, None)
    assert (skipped.reason, [entry.message for entry in skipped.logs]) == ("no new files for ***", ["looked"])
    reasons = {event.task_id: event.reason for event in told if isinstance(event, TaskSkipped)}
    assert reasons["skips"] == "no new files for ***"
    assert "hunter2" not in str(store.load(ended.id).tasks) + str(store.list_attempts(ended.id)) + str(told)
    assert flow.get_execution_details(ended.id)["tasks"]["skips"]["attempts"][0]["result"] == "skipped"


async def test_the_hooks_of_the_flows_around_a_nested_one_see_the_reason_too() -> None:
    child = AsyncFlow("child", redact=lambda text: text.replace("blue", "***")).add_task_definition("in", skipping("blue red"))
    flow = AsyncFlow("flow", redact=lambda text: text.replace("red", "***")).add_subflow_definition("sub", child)
    ended = await run(flow)
    assert ended.get_all_tasks_recursive(flow.store)["sub.in"].reason == "*** ***"
    assert (ended.state, ended.tasks["sub"].state, ended.tasks["sub"].output) == ("success", "success", None)


async def test_what_makes_the_params_of_a_nested_flow_may_skip_it(flow: AsyncFlow) -> None:
    def params(ctx: Context) -> dict[str, Any]:
        raise SkipTask("nobody asked")

    child = AsyncFlow("child").add_task_definition("only", worker_tasks.one)
    flow.add_subflow_definition("sub", child, params=params, max_retries=3)
    ended = await run(flow)
    task = ended.tasks["sub"]
    assert (ended.state, task.state, task.reason, task.child_run_id) == ("success", "skipped", "nobody asked", None)
    assert flow.store.list_runs() == [ended.id]


# --- what was raised ---


class Speechless(SkipTask):
    def __init__(self) -> None: ...


class Stubborn(SkipTask):
    def __str__(self) -> str:
        raise SystemExit


class Wordy(SkipTask):
    def __str__(self) -> str:
        return Text(f"{self.reason}!")


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (SkipTask, "the task had nothing to do"),
        (SkipTask(), "the task had nothing to do"),
        (SkipTask("no rows"), "no rows"),
        (SkipTask("two\n  lines\n"), "two lines"),
        (SkipTask("x" * 600), "x" * 497 + "..."),
        (SkipTask("caf\udce9 \x1b[31m"), "caf\\udce9 \\x1b[31m"),
        (SkipTask(7), "7"),  # type: ignore[arg-type]
        (Wordy("no rows"), "no rows!"),
        (Speechless(), "(its reason could not be made: AttributeError)"),
        (Stubborn("no rows"), "(its reason could not be made: SystemExit)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_is_raised_of_that_class_skips_the_task_with_one_line(flow: AsyncFlow, raised: Any, reason: str) -> None:
    @flow.task
    async def only(ctx: Context) -> None:
        raise raised

    task = (await run(flow)).tasks["only"]
    assert (task.state, task.reason) == ("skipped", reason)


async def test_what_is_raised_from_it_or_together_with_others_is_a_failure(flow: AsyncFlow) -> None:
    @flow.task
    async def chained(ctx: Context) -> None:
        try:
            raise SkipTask("no rows")
        except SkipTask as skip:
            raise ValueError("worse") from skip

    @flow.task
    def lying(ctx: Context) -> None:
        raise Pretender

    assert states_of(await run(flow)) == {"chained": "failed", "lying": "failed"}
    assert skip_reason(ValueError()) is None


class Pretender(Exception):
    __class__: Any = property(lambda self: SkipTask)


def test_a_reason_is_redacted_before_it_is_cut() -> None:
    """Else the cut might run through a secret, which the hook would not know then."""
    assert kept_reason("x" * (MAX_REASON - 5) + "hunter2", [lambda text: text.replace("hunter2", "")]) == "x" * (MAX_REASON - 5)


# --- what else is going on ---


async def test_a_task_that_is_cancelled_and_then_asks_to_be_skipped_was_cancelled(flow: AsyncFlow) -> None:
    begun = asyncio.Event()

    @flow.task
    async def only(ctx: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise SkipTask("never mind") from None

    driving = asyncio.create_task(flow.run_until_complete(run_id := flow.init_run()))
    await begun.wait()
    flow.cancel_task(run_id, "only")
    ended = await driving
    assert (ended.state, states_of(ended)) == ("failed", {"only": "cancelled"})
    assert [attempt.result for attempt in flow.store.list_attempts(run_id)] == ["cancelled"]


async def test_a_task_that_asks_to_be_skipped_when_its_time_is_over_has_failed() -> None:
    held, begun = HeldClock(), asyncio.Event()
    flow = AsyncFlow("flow", clock=held)

    @flow.task(timeout=10)
    async def only(ctx: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise SkipTask("too late") from None

    driving = asyncio.create_task(run(flow))
    await begun.wait()
    await held.forward(10)
    await until(driving.done)
    task = driving.result().tasks["only"]
    assert (task.state, "did not end within 10 seconds" in str(task.reason)) == ("failed", True)


async def test_a_task_that_asks_to_be_skipped_while_the_drive_is_stopped_stays_skipped(store: Store) -> None:
    """As one that returns then has succeeded: what ends by its own word counts."""
    flow, begun = AsyncFlow("flow", store), asyncio.Event()

    @flow.task
    async def only(ctx: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise SkipTask("never mind") from None

    flow.add_task_definition("beside", worker_tasks.one, dependencies=["only"])
    driving = asyncio.create_task(flow.run_until_complete(run_id := flow.init_run()))
    await begun.wait()
    driving.cancel()
    await asyncio.wait([driving])
    assert driving.cancelled()
    ended = await flow.run_until_complete(run_id)
    assert (ended.state, states_of(ended)) == ("success", {"only": "skipped", "beside": "skipped"})
    assert [attempt.result for attempt in store.list_attempts(run_id)] == ["skipped"]


async def test_a_run_that_is_cancelled_keeps_what_was_skipped(flow: AsyncFlow) -> None:
    begun = asyncio.Event()
    flow.add_task_definition("skips", skipping())

    @flow.task
    async def hangs(ctx: Context) -> None:
        begun.set()
        await asyncio.Event().wait()

    driving = asyncio.create_task(flow.run_until_complete(run_id := flow.init_run()))
    await begun.wait()
    await until(lambda: flow.store.load(run_id).tasks["skips"].state == "skipped")
    flow.cancel(run_id)
    assert states_of(await driving) == {"skips": "skipped", "hangs": "cancelled"}


async def test_an_executor_that_asks_to_be_skipped_when_it_is_given_a_task_does_not_hang_the_run(flow: AsyncFlow) -> None:
    class Refusing:
        def submit(self, *args: Any) -> Future[Any]:
            raise SkipTask("closed today")

    flow.add_task_definition("only", worker_tasks.one, executor=Refusing())
    task = (await run(flow)).tasks["only"]
    assert (task.state, task.reason) == ("skipped", "closed today")


async def test_a_thread_that_was_given_up_and_then_asks_to_be_skipped_finds_nobody(flow: AsyncFlow) -> None:
    begun, may_go = threading.Event(), threading.Event()

    @flow.task
    def only(ctx: Context) -> None:
        begun.set()
        may_go.wait(30)
        raise SkipTask("late")

    driving = asyncio.create_task(flow.run_until_complete(run_id := flow.init_run()))
    await until(begun.is_set)
    flow.cancel_task(run_id, "only")
    assert states_of(await driving) == {"only": "cancelled"}
    may_go.set()


# --- later ---


class Stock:
    """Whether there is something to do."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.asked = 0


def depending_on(stock: Stock, store: Store) -> AsyncFlow:
    flow = AsyncFlow("flow", store, clock=FakeClock())

    @flow.task(max_retries=2)
    async def rows(ctx: Context) -> list[int]:
        stock.asked += 1
        if not stock.rows:
            raise SkipTask("no rows")
        return stock.rows

    @flow.task(depends_on=rows)
    async def count(ctx: Context, rows: list[int]) -> int:
        return len(rows)

    return flow


async def test_a_task_that_was_skipped_runs_again_when_it_is_retried_by_hand(store: Store) -> None:
    stock = Stock()
    flow = depending_on(stock, store)
    ended = await run(flow)
    assert states_of(ended) == {"rows": "skipped", "count": "skipped"}
    assert (await flow.run_until_complete(ended.id), stock.asked) == (ended, 1)
    assert states_of(await flow.retry(ended.id, "rows")) == {"rows": "skipped", "count": "skipped"}
    stock.rows = [1, 2]
    again = await flow.retry(ended.id, "rows")
    assert (again.state, outputs_of(again), stock.asked) == ("success", {"rows": [1, 2], "count": 2}, 3)
    assert again.tasks["rows"].reason is None
    history = [(attempt.task_id, attempt.number, attempt.result, attempt.reason) for attempt in store.list_attempts(ended.id)]
    assert history == [
        ("rows", 1, "skipped", "no rows"),
        ("rows", 2, "skipped", "no rows"),
        ("rows", 3, "success", None),
        ("count", 1, "success", None),
    ]


async def test_a_task_that_succeeded_may_be_skipped_when_it_is_retried(store: Store) -> None:
    stock = Stock()
    stock.rows = [1]
    flow = depending_on(stock, store)
    ended = await run(flow)
    stock.rows = []
    again = await flow.retry(ended.id, "rows")
    assert (again.state, states_of(again), outputs_of(again)) == (
        "success",
        {"rows": "skipped", "count": "skipped"},
        {"rows": None, "count": None},
    )


async def test_a_task_may_be_skipped_by_the_attempt_that_follows_a_failed_one(store: Store, effects: Effects) -> None:
    flow = AsyncFlow("flow", store, clock=FakeClock())

    @flow.task(max_retries=5, retry_delay=3)
    async def only(ctx: Context) -> None:
        effects.log.append(f"attempt {ctx.attempt_number}")
        ctx.log(f"line {ctx.attempt_number}")
        raise ValueError("first") if ctx.attempt_number == 0 else SkipTask("second")

    ended = await run(flow)
    task = ended.tasks["only"]
    assert (effects.log, task.try_number, task.error) == (["attempt 0", "attempt 1"], 1, None)
    history = [(attempt.result, attempt.reason, attempt.logs[0].message) for attempt in store.list_attempts(ended.id)]
    assert history == [("failed", "ValueError: first", "line 0"), ("skipped", "second", "line 1")]


@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("kind", STORE_KINDS)
async def test_a_crash_at_any_commit_leaves_skipped_what_was(kind: str, before: bool, tmp_path: Path) -> None:
    crashes = 0
    for number in range(2, 30):
        folder = tmp_path / str(number)
        folder.mkdir()
        store, stock = make_store(kind, folder), Stock()
        flow = depending_on(stock, store)
        flow.add_task_definition("beside", returns(1))
        child = AsyncFlow("child").add_task_definition("in", worker_tasks.one)
        flow.add_subflow_definition("sub", child, dependencies=["beside"], run_if=lambda ctx: False)
        undo = crash_at(store, number, before)
        run_id = flow.init_run()
        ended: WorkflowRun | None = None
        try:
            ended = await flow.run_until_complete(run_id)
        except Crash:
            crashes += 1
        undo()
        asked, skipped = stock.asked, store.load(run_id).tasks["rows"].state == "skipped"
        if ended is None:
            ended = await flow.run_until_complete(run_id)
            assert stock.asked - asked == (0 if skipped else 1)
        assert ended.state == "success"
        assert states_of(ended) == {"rows": "skipped", "count": "skipped", "beside": "success", "sub": "skipped"}
        assert (ended.tasks["rows"].reason, ended.tasks["sub"].child_run_id) == ("no rows", None)
        results = [attempt.result for attempt in store.list_attempts(run_id) if attempt.task_id == "rows"]
        assert results[-1] == "skipped"
        assert results[:-1] == ["interrupted"] * (len(results) - 1)
        store.close()
        if crashes < number - 1:  # this one was beyond the last commit
            break
    assert crashes >= 3


# --- what depends on it, by other rules; and items ---


async def test_what_depends_on_a_task_that_was_skipped_goes_by_its_rule_and_not_as_if_that_had_failed(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("skips", skipping())
    flow.add_task_definition("usual", returns(1), dependencies=["skips"])
    flow.add_task_definition("tolerant", returns(2), dependencies=["usual"], trigger_rule="none_failed")
    flow.add_task_definition("strict", returns(3), dependencies=["usual"], trigger_rule="one_failed")
    ended = await run(flow)
    assert (ended.state, states_of(ended)) == (
        "success",
        {"skips": "skipped", "usual": "skipped", "tolerant": "success", "strict": "skipped"},
    )


async def test_a_task_that_was_skipped_counts_as_that_when_the_run_is_continued_by_another(store: Store) -> None:
    def build() -> AsyncFlow:
        flow = AsyncFlow("flow", store).add_task_definition("skips", skipping())
        flow.add_task_definition("beside", waits)
        flow.add_task_definition("joint", returns(2), dependencies=["skips", "beside"], trigger_rule="none_failed")
        return flow

    may_go = asyncio.Event()

    async def waits(ctx: Context) -> int:
        await may_go.wait()
        return 1

    flow = build()
    driving = asyncio.create_task(flow.run_until_complete(run_id := flow.init_run()))
    await until(lambda: store.load(run_id).tasks["skips"].state == "skipped")
    driving.cancel()
    await asyncio.wait([driving])
    may_go.set()
    ended = await build().run_until_complete(run_id)
    assert states_of(ended) == {"skips": "skipped", "beside": "success", "joint": "success"}


async def test_a_subflow_that_is_tried_again_decides_anew_why_its_tasks_are_skipped(flow: AsyncFlow) -> None:
    """What was skipped by its own word the first time, and by a failure the second, counts as what it is now."""
    calls: list[str] = []
    child = AsyncFlow("child")

    @child.task
    async def first(ctx: Context) -> None:
        calls.append("first")
        raise SkipTask("nothing yet") if len(calls) == 1 else ValueError("broken")

    child.add_task_definition("behind", returns(1), dependencies=["first"])
    child.add_task_definition("shaky", flaky(1))
    child.add_task_definition("last", returns(1), dependencies=["behind", "shaky"], trigger_rule="none_failed")
    flow.add_subflow_definition("sub", child, max_retries=1)
    inside = (await run(flow)).get_all_tasks_recursive(flow.store)
    assert {path: task.state.value for path, task in inside.items()} == {
        "sub": "failed",
        "sub.first": "failed",
        "sub.behind": "skipped",
        "sub.shaky": "success",
        "sub.last": "skipped",
    }


async def test_items_may_ask_to_be_skipped_and_the_whole_goes_by_them(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("numbers", returns([1, 2, 3]))

    @flow.task(map_over="numbers")
    async def odd(ctx: Context, number: int) -> int:
        if number % 2 == 0:
            raise SkipTask(f"{number} is even")
        return number

    @flow.task(map_over="numbers")
    async def none(ctx: Context, number: int) -> int:
        raise SkipTask("not today")

    ended = await run(flow)
    assert (ended.state, ended.tasks["odd"].output, ended.tasks["odd[1]"].reason) == ("success", [1, None, 3], "2 is even")
    assert (ended.tasks["none"].state, ended.tasks["none"].reason) == ("skipped", "all 3 items were skipped")
    results = {attempt.task_id: attempt.result.value for attempt in store.list_attempts(ended.id)}
    assert (results["odd[1]"], results["odd"], results["none[0]"], results["none"]) == (
        "skipped",
        "success",
        "skipped",
        "skipped",
    )
    again = await flow.retry(ended.id, "odd[1]")
    assert (again.tasks["odd"].output, again.tasks["odd[1]"].state) == ([1, None, 3], "skipped")
