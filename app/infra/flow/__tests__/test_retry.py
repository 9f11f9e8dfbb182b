"""Retries: automatic ones with their delay, and manual ones with what they set back."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    AttemptResult,
    Context,
    InvalidOptionError,
    NonRetryableError,
    RetryAfter,
    RetryPolicy,
    RunActiveError,
    RunFailedError,
    RunNotFoundError,
    Store,
    TaskReset,
    TaskRetryScheduled,
    UnknownTaskError,
)
from .conftest import Effects, FakeClock, events_of, fails, flaky, outputs_of, returns, run, states_of


@pytest.mark.parametrize(
    ("failures", "max_retries", "state", "tries"), [(0, 2, "success", 0), (2, 2, "success", 2), (3, 2, "failed", 2)]
)
async def test_max_retries_of_two_is_three_attempts(
    flow: AsyncFlow, failures: int, max_retries: int, state: str, tries: int
) -> None:
    flow.add_task_definition("only", flaky(failures), max_retries=max_retries)
    task = (await run(flow)).tasks["only"]
    assert (task.state, task.try_number) == (state, tries)


async def test_the_attempt_number_counts_from_zero(flow: AsyncFlow) -> None:
    seen: list[int] = []

    @flow.task(max_retries=2)
    async def only(ctx: Context) -> None:
        seen.append(ctx.attempt_number)
        raise ValueError

    await run(flow)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("delay", [1.5, timedelta(seconds=1.5)])
async def test_the_delay_is_waited_between_attempts(flow: AsyncFlow, clock: FakeClock, delay: Any) -> None:
    flow.add_task_definition("only", flaky(2), max_retries=2, retry_delay=delay)
    assert (await run(flow)).state == "success"
    assert clock.slept == [1.5, 1.5]


async def test_the_moment_of_the_next_attempt_is_stored_while_it_is_waited_for(flow: AsyncFlow, clock: FakeClock) -> None:
    seen: list[Any] = []
    flow.add_task_definition("only", flaky(1), max_retries=1, retry_delay=60)

    def look(event: TaskRetryScheduled) -> None:
        task = flow.store.load(event.run_id).tasks["only"]
        seen.append((task.state.value, task.next_attempt_at, task.reason, event.delay))

    flow.events.subscribe(look, TaskRetryScheduled)
    started = datetime.fromtimestamp(clock.wall / 1e6, timezone.utc)
    done = await run(flow)
    assert seen == [("scheduled", started + timedelta(seconds=60), "ValueError: failure 1", 60.0)]
    assert done.tasks["only"].next_attempt_at is None


async def test_the_shortest_wait_is_served_first(flow: AsyncFlow, clock: FakeClock) -> None:
    order: list[str] = []

    def once(name: str) -> Any:
        async def task(ctx: Context) -> None:
            if ctx.attempt_number == 0:
                raise ValueError
            order.append(name)

        return task

    for name, delay in (("slow", 9), ("quick", 1), ("middle", 5)):
        flow.add_task_definition(name, once(name), max_retries=1, retry_delay=delay)
    await run(flow)
    assert order == ["quick", "middle", "slow"]
    assert sum(clock.slept) == pytest.approx(9)


async def test_a_task_that_waits_for_a_retry_holds_no_slot(flow: AsyncFlow) -> None:
    order: list[str] = []

    @flow.task(max_retries=1, retry_delay=10)
    async def waits(ctx: Context) -> None:
        order.append(f"waits {ctx.attempt_number}")
        if ctx.attempt_number == 0:
            raise ValueError

    @flow.task
    async def other(ctx: Context) -> None:
        order.append("other")

    await run(flow, max_concurrency=1)
    assert order == ["waits 0", "other", "waits 1"]


async def test_pushes_and_params_of_a_failed_attempt_are_dropped(flow: AsyncFlow) -> None:
    @flow.task(max_retries=1)
    async def only(ctx: Context) -> Any:
        seen = dict(ctx.params)
        if ctx.attempt_number == 0:
            ctx.push("wrong")
            ctx.params["left"] = "behind"
            raise ValueError
        return seen

    done = await run(flow, {"x": 1})
    assert (done.tasks["only"].output_json, done.params) == ({"x": 1}, {"x": 1})


async def test_each_attempt_stays_in_the_history_with_its_error_and_logs(flow: AsyncFlow, store: Store) -> None:
    flow.store = store

    @flow.task(max_retries=1)
    async def only(ctx: Context) -> None:
        ctx.log(f"trying {ctx.attempt_number}")
        if ctx.attempt_number == 0:
            raise ValueError("first")

    done = await run(flow)
    first, second = store.list_attempts(done.id, "only")
    assert (first.number, first.try_number, first.result, first.reason) == (1, 0, AttemptResult.FAILED, "ValueError: first")
    assert first.error is not None
    assert first.error.rstrip().endswith("ValueError: first")
    assert [entry.message for entry in first.logs] == ["trying 0"]
    assert (second.number, second.try_number, second.result) == (2, 1, "success")
    assert [entry.message for entry in second.logs] == ["trying 1"]
    assert first.end_date and second.start_date and first.end_date <= second.start_date


async def test_a_policy_may_be_changed_after_the_definition(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", flaky(1))
    flow.update_task_retry_policy("only", 1, timedelta(seconds=0))
    assert (await run(flow)).state == "success"
    with pytest.raises(UnknownTaskError, match="Did you mean 'only'?"):
        flow.update_task_retry_policy("onlyy", 1)


@pytest.mark.parametrize(
    ("max_retries", "delay"),
    [(-1, None), (1.0, None), (True, None), ("1", None), (1, -1), (1, float("nan")), (1, "5"), (1, 1e12)],
)
def test_a_policy_that_makes_no_sense_is_refused(flow: AsyncFlow, max_retries: Any, delay: Any) -> None:
    with pytest.raises(InvalidOptionError):
        flow.add_task_definition("only", returns(1), max_retries=max_retries, retry_delay=delay)
    assert not flow.has_task("only")


# --- by a policy ---


def with_policy(flow: AsyncFlow, **options: Any) -> None:
    """Give every task of a flow such a policy."""
    for task_id in list(flow.definition.tasks):
        flow.definition.set_retry(task_id, RetryPolicy(**options))


def raises(*errors: Exception) -> Any:
    """A task that raises one of these after the other, and then returns "done"."""
    left = list(errors)

    async def task(ctx: Context) -> str:
        if left:
            raise left.pop(0)
        return "done"

    return task


async def test_the_delays_of_a_run_grow_to_their_cap(flow: AsyncFlow, clock: FakeClock) -> None:
    flow.add_task_definition("only", flaky(5))
    with_policy(flow, max_retries=5, delay=1, backoff=3, max_delay=timedelta(seconds=20))
    assert (await run(flow)).state == "success"
    assert clock.slept == [1, 3, 9, 20, 20]


async def test_tasks_that_fail_together_come_back_apart_and_in_the_same_way_each_time() -> None:
    async def waits_of(run_id: str) -> dict[tuple[str, int], float]:
        flow = AsyncFlow("flow", clock=FakeClock())
        for number in range(20):
            flow.add_task_definition(f"task-{number}", flaky(2))
        with_policy(flow, max_retries=2, delay=100, jitter=0.5)
        told = events_of(flow)
        assert (await flow.run_until_complete(flow.init_run(run_id=run_id))).state == "success"
        return {(event.task_id, event.attempt_number): event.delay for event in told if isinstance(event, TaskRetryScheduled)}

    first, again, other = await waits_of("one"), await waits_of("one"), await waits_of("other")
    assert first == again
    assert len({*first.values(), *other.values()}) == 80
    assert 50 <= min(first.values()) < 60
    assert 90 < max(first.values()) <= 100


async def test_only_what_the_policy_names_is_tried_again(flow: AsyncFlow) -> None:
    for task_id, error in (("lost", ConnectionResetError()), ("late", TimeoutError()), ("wrong", ValueError())):
        flow.add_task_definition(task_id, raises(error))
    with_policy(flow, max_retries=1, retry_on=OSError, give_up_on="TimeoutError")
    done = await run(flow)
    assert states_of(done) == {"lost": "success", "late": "failed", "wrong": "failed"}
    assert [task.try_number for task in done.tasks.values()] == [1, 0, 0]


async def test_a_sync_function_is_matched_like_a_coroutine(flow: AsyncFlow) -> None:
    def only(ctx: Context) -> None:
        raise KeyError(ctx.attempt_number)

    flow.add_task_definition("only", only)
    with_policy(flow, max_retries=3, retry_on=LookupError)
    assert (await run(flow)).tasks["only"].try_number == 3


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"retry_on": RunFailedError}, "success"),
        ({"retry_on": Exception}, "success"),
        ({"retry_on": ValueError}, "failed"),
        ({"give_up_on": RunFailedError}, "failed"),
        ({}, "success"),
    ],
)
async def test_a_subflow_fails_as_its_run_does_whatever_was_raised_inside(
    flow: AsyncFlow, options: dict[str, Any], state: str
) -> None:
    child = AsyncFlow("child").add_task_definition("leaf", raises(ValueError("inside")))
    flow.add_subflow_definition("sub", child)
    with_policy(flow, max_retries=1, **options)
    assert states_of(await run(flow)) == {"sub": state}


async def test_a_task_says_itself_when_it_is_tried_again(flow: AsyncFlow, clock: FakeClock) -> None:
    flow.add_task_definition("only", raises(RetryAfter(30, "overloaded"), ValueError(), RetryAfter(timedelta(minutes=1))))
    with_policy(flow, max_retries=3, delay=5, max_delay=10, jitter=0)
    told = events_of(flow)
    done = await run(flow)
    assert (done.state, clock.slept) == ("success", [30, 5, 60])
    first = next(event for event in told if isinstance(event, TaskRetryScheduled))
    assert (first.delay, "overloaded (to be tried again after 30 s)" in first.reason) == (30.0, True)


async def test_a_task_that_asks_for_another_attempt_has_failed_when_none_is_left(flow: AsyncFlow, clock: FakeClock) -> None:
    flow.add_task_definition("only", raises(RetryAfter(7), RetryAfter(7)), max_retries=1)
    task = (await run(flow)).tasks["only"]
    assert (task.state, task.try_number, clock.slept) == ("failed", 1, [7])


async def test_what_another_attempt_cannot_help_fails_at_once_and_can_be_retried_by_hand(
    flow: AsyncFlow, clock: FakeClock
) -> None:
    calls: list[int] = []

    @flow.task(max_retries=9, retry_delay=5)
    async def only(ctx: Context) -> str:
        calls.append(ctx.attempt_number)
        if len(calls) > 1:
            return "done"
        try:
            raise ConnectionError
        except ConnectionError as error:
            raise NonRetryableError("no such account") from error

    failed = await run(flow)
    assert (failed.state, calls, clock.slept) == ("failed", [0], [])
    assert failed.tasks["only"].error is not None
    assert "ConnectionError" in failed.tasks["only"].error
    assert outputs_of(await flow.retry(failed.id, "only")) == {"only": "done"}


async def stopped_while_waiting(flow: AsyncFlow, clock: FakeClock) -> str:
    """A run that is stopped as soon as one of its tasks waits for another attempt."""
    waiting = asyncio.Event()
    flow.events.subscribe(lambda _: waiting.set(), TaskRetryScheduled)

    async def sleep(seconds: float) -> None:
        await asyncio.Event().wait()

    clock.sleep = sleep  # type: ignore[method-assign]
    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await waiting.wait()
    running.cancel()
    await asyncio.wait([running])
    del clock.sleep
    return run_id


@pytest.mark.parametrize(
    ("passed", "slept"),
    [(0, [100.0]), (30, [70.0]), (200, []), (-1_000_000, [100.0])],
    ids=["at once", "within the wait", "after it", "by a clock that was set back"],
)
async def test_a_restart_keeps_to_the_wait_that_a_task_asked_for(
    store: Store, clock: FakeClock, passed: float, slept: list[float]
) -> None:
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("only", raises(RetryAfter(100)), max_retries=1, retry_delay=2)
    run_id = await stopped_while_waiting(flow, clock)
    assert store.load(run_id).tasks["only"].next_attempt_at == datetime.fromtimestamp(clock.wall / 1e6 + 100, timezone.utc)
    clock.pass_time(passed)
    assert (await flow.run_until_complete(run_id)).state == "success"
    assert clock.slept == slept


async def test_a_restart_keeps_to_the_delay_that_a_policy_had_grown_to(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("only", flaky(3))
    with_policy(flow, max_retries=3, delay=10, backoff=2)
    told = events_of(flow)
    run_id = await stopped_while_waiting(flow, clock)
    clock.pass_time(4)
    assert (await flow.run_until_complete(run_id)).state == "success"
    assert clock.slept == [6, 20, 40]
    assert [event.delay for event in told if isinstance(event, TaskRetryScheduled)] == [10, 20, 40]


async def test_new_retries_leave_what_a_policy_says_beside_them(flow: AsyncFlow, clock: FakeClock) -> None:
    flow.add_task_definition("only", raises(OSError(), OSError(), ValueError()))
    with_policy(flow, max_retries=1, backoff=2, retry_on=OSError)
    flow.update_task_retry_policy("only", 9, 3)
    assert (await run(flow)).tasks["only"].try_number == 2
    assert clock.slept == [3, 6]


# --- by hand ---


class Mendable:
    """A task that fails until it is mended."""

    def __init__(self, effects: Effects, name: str) -> None:
        self.effects, self.name, self.broken = effects, name, True

    async def __call__(self, ctx: Context) -> str:
        self.effects.log.append(self.name)
        if self.broken:
            raise RuntimeError("broken")
        return f"{self.name} of attempt {ctx.attempt_number}"


def diamond(flow: AsyncFlow, effects: Effects) -> Mendable:
    """A -> (b, c) -> d, where b is broken; e stands alone."""
    b = Mendable(effects, "b")
    flow.add_task_definition("a", effects.of("a", 1))
    flow.add_task_definition("b", b, dependencies=["a"], max_retries=1)
    flow.add_task_definition("c", effects.of("c", 3), dependencies=["a"])
    flow.add_task_definition("d", effects.of("d", 4), dependencies=["b", "c"])
    flow.add_task_definition("e", effects.of("e", 5))
    return b


async def test_retry_runs_the_task_and_what_is_downstream_and_nothing_else(
    flow: AsyncFlow, store: Store, effects: Effects
) -> None:
    flow.store = store
    b = diamond(flow, effects)
    failed = await run(flow)
    assert states_of(failed) == {"a": "success", "b": "failed", "c": "success", "d": "skipped", "e": "success"}
    b.broken = False
    effects.log.clear()
    done = await flow.retry(failed.id, "b")
    assert done.state == "success"
    assert effects.log == ["b", "d"]
    assert done.tasks["b"].output_json == "b of attempt 0", "try_number starts again"
    assert done.tasks["b"].try_number == 0
    history = [(attempt.number, attempt.try_number, attempt.result.value) for attempt in store.list_attempts(done.id, "b")]
    assert history == [(1, 0, "failed"), (2, 1, "failed"), (3, 0, "success")]


async def test_a_reset_task_has_its_retries_again(flow: AsyncFlow, effects: Effects) -> None:
    diamond(flow, effects)
    failed = await run(flow)
    effects.log.clear()
    again = await flow.retry(failed.id, "b")
    assert (again.state, effects.log, again.tasks["b"].try_number) == ("failed", ["b", "b"], 1)


async def test_manual_retry_only_resets(flow: AsyncFlow, store: Store, effects: Effects) -> None:
    flow.store = store
    b = diamond(flow, effects)
    failed = await run(flow)
    effects.log.clear()
    b.broken = False
    flow.manual_retry(failed.id, "b")
    reset = store.load(failed.id)
    assert effects.log == []
    assert (reset.state, reset.end_date, reset.tasks["b"].state, reset.tasks["b"].error) == ("scheduled", None, "scheduled", None)
    assert reset.tasks["d"].state == "skipped"
    done = await flow.run_until_complete(failed.id)
    assert (done.state, effects.log, done.tasks["d"].state) == ("success", ["b"], "skipped")


async def test_a_finished_task_runs_again_only_by_manual_retry(flow: AsyncFlow, effects: Effects) -> None:
    flow.add_task_definition("a", effects.of("a", 1))
    flow.add_task_definition("b", effects.of("b", 2), dependencies=["a"])
    done = await run(flow)
    told = events_of(flow)
    again = await flow.retry(done.id, "a")
    assert (again.state, effects.log) == ("success", ["a", "b", "a", "b"])
    assert [event.task_id for event in told if isinstance(event, TaskReset)] == ["a", "b"]


async def test_retry_of_one_of_two_failures_leaves_the_run_failed(flow: AsyncFlow, effects: Effects) -> None:
    b = diamond(flow, effects)
    flow.add_task_definition("other", fails())
    failed = await run(flow)
    b.broken = False
    again = await flow.retry(failed.id, "b")
    assert (again.state, states_of(again)["d"], states_of(again)["other"]) == ("failed", "success", "failed")


async def test_retrying_what_was_skipped_skips_it_again_while_its_upstream_is_failed(flow: AsyncFlow, effects: Effects) -> None:
    diamond(flow, effects)
    failed = await run(flow)
    effects.log.clear()
    again = await flow.retry(failed.id, "d")
    assert (again.state, states_of(again)["d"], effects.log) == ("failed", "skipped", [])


async def test_retry_of_an_unknown_task_changes_nothing(flow: AsyncFlow, effects: Effects) -> None:
    diamond(flow, effects)
    failed = await run(flow)
    for path in ("bb", "a.inner", "d.x.y", ""):
        with pytest.raises(UnknownTaskError):
            flow.manual_retry(failed.id, path)
    with pytest.raises(RunNotFoundError):
        flow.manual_retry("nope", "a")
    assert flow.store.load(failed.id) == failed


async def test_a_run_that_is_being_driven_cannot_be_retried(flow: AsyncFlow) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    @flow.task
    async def only(ctx: Context) -> None:
        began.set()
        await go_on.wait()

    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await began.wait()
    with pytest.raises(RunActiveError, match="while it is being run"):
        flow.manual_retry(run_id, "only")
    go_on.set()
    assert outputs_of(await running) == {"only": None}


async def test_a_subflows_run_that_is_left_behind_unfinished_is_cancelled(store: Store) -> None:
    began = asyncio.Event()

    async def waits(ctx: Context) -> str:
        if not began.is_set():
            began.set()
            await asyncio.Event().wait()
        return "done"

    inner = AsyncFlow("inner").add_task_definition("waits", waits)
    child = AsyncFlow("child").add_subflow_definition("inner", inner)
    flow = AsyncFlow("flow", store).add_task_definition("before", returns(1))
    flow.add_subflow_definition("sub", child, dependencies=["before"])
    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await began.wait()
    running.cancel()
    await asyncio.wait([running])
    (left,) = store.list_children(run_id)
    (left_inside,) = store.list_children(left)
    assert (await flow.retry(run_id, "before")).state == "success"
    assert len(store.list_children(run_id)) == 2
    for abandoned in (left, left_inside):
        loaded = store.load(abandoned)
        assert (loaded.state, {task.state for task in loaded.tasks.values()}) == ("cancelled", {"cancelled"})
    assert store.check() == []
    assert len(store.prune()) == 5
    assert store.list_runs() == []
