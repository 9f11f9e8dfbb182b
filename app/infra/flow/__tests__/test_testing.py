"""The helpers for tests of one's own flows: fakes, time that takes none, one task alone, assertions that show the run."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest

from .. import (
    AsyncFlow,
    Context,
    InvalidOptionError,
    MemoryStore,
    NotUpstreamError,
    RetryAfter,
    RunFailedError,
    RunTimeoutError,
    SkipTask,
    SQLiteStore,
    TaskFunctionError,
    UnknownTaskError,
    ValueCodec,
    current_context,
)
from .. import testing as helpers
from ..testing import (
    VirtualClock,
    assert_attempts,
    assert_cancelled,
    assert_failed,
    assert_not_run,
    assert_output,
    assert_ran,
    assert_skipped,
    assert_succeeded,
    fails,
    hangs,
    raises,
    returns,
    run_flow,
    run_flow_async,
    run_task,
    run_task_async,
    run_tree,
)

HOUR = 3600


@dataclass
class Money:
    """A value that a store has to be told of."""

    cents: int


def orders(store: SQLiteStore | None = None) -> AsyncFlow:
    """A flow of three tasks: a plain function, one with retries and a parameter, a coroutine with a time-out."""
    flow = AsyncFlow("orders", store)

    @flow.task
    def extract(ctx: Context) -> list[int]:
        raise ConnectionError("no test should ask the real thing")

    @flow.task(depends_on=[extract], max_retries=3, retry_delay=HOUR)
    def transform(ctx: Context, extract: list[int]) -> list[int]:
        if not extract:
            raise ValueError("no rows")
        return [row * ctx.params.get("factor", 10) for row in extract]

    @flow.task(depends_on=[transform], timeout=60)
    async def load(ctx: Context, transform: list[int]) -> int:
        await asyncio.sleep(30)
        return sum(transform)

    return flow


# --- fakes ---


def test_a_flow_runs_with_a_value_a_function_or_a_mock_in_the_place_of_a_task() -> None:
    flow = orders()
    assert run_flow(flow, fakes={"extract": [1, 2]}).output("load") == 30
    assert run_flow(flow, {"factor": 2}, fakes={"extract": lambda ctx: [ctx.params["factor"]]}).output("load") == 4
    mock = Mock(return_value=[5])
    assert run_flow(flow, fakes={"extract": mock}).output("load") == 50
    assert [type(call.args[0]) for call in mock.call_args_list] == [Context]
    assert run_flow(flow, fakes={"extract": [1], "load": AsyncMock(return_value="stored")}).output("load") == "stored"


def test_the_flow_itself_stays_as_it_was(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = orders(store)
        told: list[object] = []
        flow.subscribe(told.append)
        before = dict(flow.definition.tasks)
        run_flow(flow, fakes={"extract": [1]})
        run_task(flow, "transform", upstream={"extract": [1]})
        assert (store.list_runs(), told, dict(flow.definition.tasks)) == ([], [], before)
        assert flow.store is store


def test_a_fake_takes_what_the_tasks_own_function_might() -> None:
    def doubled(ctx: Context, extract: list[int]) -> list[int]:
        return extract * 2

    assert_output(run_flow(orders(), fakes={"extract": [7], "transform": doubled}), "transform", [7, 7])
    with pytest.raises(TaskFunctionError, match="nobody fills it"):
        run_flow(orders(), fakes={"transform": lambda ctx, extrcat: 1})


def test_others_pull_the_output_of_a_fake_by_the_function_that_was_decorated() -> None:
    flow = AsyncFlow("handles")

    @flow.task
    def first(ctx: Context) -> int:
        return 1

    @flow.task(depends_on=[first])
    def second(ctx: Context) -> int:
        return ctx.pull_output(first) + 1

    result = run_flow(flow, fakes={first: returns(41)})
    assert result.output(second) == 42
    assert_output(result, second, 42)


def test_a_fake_that_fails_some_times_is_retried_and_the_delays_take_no_time() -> None:
    began = time.monotonic()
    result = run_flow(orders(), fakes={"extract": [1], "transform": fails(3, then=[4])})
    assert_succeeded(result)
    assert_output(result, "load", 4)
    assert_attempts(result, "transform", 4)
    assert result.clock.elapsed == 3 * HOUR + 30
    assert time.monotonic() - began < 5


def test_what_a_fake_raises_fails_or_skips_its_task() -> None:
    result = run_flow(orders(), fakes={"extract": raises(RuntimeError("the disk is full"))})
    assert_failed(result, "extract", match="disk is full")
    assert_skipped(result, "load", match="extract")
    assert_skipped(run_flow(orders(), fakes={"extract": raises(SkipTask("no orders"))}), "extract", match="no orders")
    assert_failed(run_flow(orders(), fakes={"extract": raises(KeyError)}), "extract", match="KeyError")
    later = run_flow(orders(), fakes={"extract": [1], "transform": fails(1, then=lambda ctx: [9], error=RetryAfter(5))})
    assert (later.output("transform"), later.clock.elapsed) == ([9], 35)


def test_a_fake_that_hangs_meets_its_time_out_in_no_time() -> None:
    result = run_flow(orders(), fakes={"extract": [1], "load": hangs()})
    assert_failed(result, "load", match="did not end within 60 seconds")
    assert result.clock.elapsed == 60


def test_a_fake_knows_how_often_it_was_called() -> None:
    for fake, calls in ((fails(2, then=[1]), 3), (returns([1]), 1), (raises(ValueError), 4)):
        run_flow(orders(), fakes={"extract": [1], "transform": fake})
        assert fake.calls == calls
    for wrong in (-1, True, 1.5):
        with pytest.raises(ValueError, match="whole number"):
            fails(wrong)  # type: ignore[arg-type]


def test_a_fake_for_no_task_is_refused_with_a_near_name() -> None:
    with pytest.raises(UnknownTaskError, match="Did you mean 'extract'"):
        run_flow(orders(), fakes={"extrakt": 1})
    with pytest.raises(InvalidOptionError, match="'extract' is a task"):
        run_flow(orders(), fakes={"extract.inner": 1})


def nested() -> AsyncFlow:
    flow = AsyncFlow("outer")
    flow.add_subflow_definition(subflow_id="first", child_flow=orders())
    flow.add_subflow_definition(subflow_id="second", child_flow=orders(), dependencies=["first"])
    return flow


def test_a_fake_deep_in_a_subflow_is_reached_by_its_path_and_only_there() -> None:
    child = orders()
    flow = AsyncFlow("outer")
    flow.add_subflow_definition(subflow_id="one", child_flow=child)
    flow.add_subflow_definition(subflow_id="two", child_flow=child)
    result = run_flow(flow, fakes={"one.extract": [1], "two.extract": [2], "two.load": "faked"})
    assert (result.output("one.load"), result.output("two.load")) == (10, "faked")
    assert child.definition.tasks["extract"].called is child.definition.tasks["extract"].function
    with pytest.raises(UnknownTaskError, match="Flow 'orders'"):
        run_flow(flow, fakes={"one.nothing": 1})


def test_a_whole_subflow_may_be_faked_and_then_nothing_inside_it() -> None:
    result = run_flow(nested(), fakes={"first": {"load": 3}, "second.extract": [1]})
    assert (result.output("first"), result.output("second.load")) == ({"load": 3}, 10)
    with pytest.raises(InvalidOptionError, match="'first' has a fake itself"):
        run_flow(nested(), fakes={"first": 3, "first.extract": [1]})


def test_conditions_branches_and_maps_hold_for_fakes_too() -> None:
    flow = AsyncFlow("rules")

    @flow.task(branch=True)
    def decide(ctx: Context) -> str:
        return "left"

    @flow.task(depends_on=[decide])
    def left(ctx: Context) -> str:
        return "left"

    async def wanted(ctx: Context) -> bool:
        return bool(ctx.params.get("wanted"))

    @flow.task(depends_on=[decide], run_if=wanted)
    async def right(ctx: Context) -> list[str]:
        return ["right"]

    @flow.task(map_over=right, map_key=str)
    def each(ctx: Context, word: str) -> str:
        return word

    chosen = {"decide": returns("right"), "right": returns(["a", "b"])}
    result = run_flow(flow, {"wanted": True}, fakes={**chosen, each: lambda ctx, item: item.upper()})
    assert (result.output("each"), result.output("each[b]")) == (["A", "B"], "B")
    assert_ran(result, [decide, "right", "each"], only=True)
    assert_not_run(result, ["left"])
    assert_skipped(run_flow(flow, fakes=chosen), right, match="wanted")


def test_an_included_flow_is_faked_under_its_ids_of_now() -> None:
    flow = AsyncFlow("report")
    flow.include(orders(), prefix="north")
    assert run_flow(flow, fakes={"north_extract": [1, 2]}).output("north_load") == 30


def test_values_of_registered_types_pass_as_in_the_flows_own_store() -> None:
    codec = ValueCodec()
    codec.register(Money)
    flow = AsyncFlow("money", MemoryStore(codec=codec))
    flow.add_task_definition("price", lambda ctx: Money(5))
    flow.add_task_definition("double", lambda ctx, price: Money(price.cents * 2), dependencies=["price"])
    assert run_flow(flow).output("double").cents == 10
    assert run_task(flow, "double", upstream={"price": Money(4)}).cents == 8


# --- time ---


def test_tasks_that_sleep_side_by_side_wake_up_in_the_order_of_their_moments() -> None:
    flow, order = AsyncFlow("sleepers"), list[str]()
    for name, seconds in (("slow", 300.0), ("quick", 0.5), ("middle", 60.0)):

        async def sleep(ctx: Context, seconds: float = seconds) -> None:
            await asyncio.sleep(seconds)
            order.append(ctx.task_id)

        flow.add_task_definition(name, sleep)
    result = run_flow(flow)
    assert order == ["quick", "middle", "slow"]
    assert result.clock.elapsed == 300
    run = result.run
    assert run.start_date is not None and run.end_date is not None
    assert (run.end_date - run.start_date).total_seconds() == 300


def test_the_clock_on_the_wall_may_be_set_and_moved_on() -> None:
    clock = VirtualClock(datetime(2026, 2, 28, 23, 59, tzinfo=timezone.utc))
    flow = AsyncFlow("midnight")
    flow.add_task_definition("pass", lambda ctx: clock.forward(120))
    result = run_flow(flow, clock=clock)
    assert result.run.end_date == clock.at == datetime(2026, 3, 1, 0, 1, tzinfo=timezone.utc)
    clock.set(datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert (clock.at.year, clock.elapsed, clock.monotonic()) == (2020, 120, 120)
    with pytest.raises(ValueError, match="no time zone"):
        clock.set(datetime(2020, 1, 1))
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="does not go back"):
            clock.forward(wrong)


def test_a_function_that_sleeps_may_move_the_clock_on_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    monkeypatch.setattr(time, "sleep", clock.forward)
    flow = AsyncFlow("sleepy")
    flow.add_task_definition("sleep", lambda ctx: time.sleep(HOUR))
    assert run_flow(flow, clock=clock).clock.elapsed == HOUR


def test_a_run_that_takes_too_long_by_the_clock_is_given_up() -> None:
    with pytest.raises(RunTimeoutError):
        run_flow(orders(), fakes={"extract": [1]}, timeout=29.5)
    assert_succeeded(run_flow(orders(), fakes={"extract": [1]}, timeout=30.5))


async def test_in_a_running_loop_the_same_holds_and_its_own_time_goes_on_from_there() -> None:
    loop = asyncio.get_running_loop()
    before, selector = loop.time(), vars(loop)["_selector"]
    result = await run_flow_async(orders(), fakes={"extract": [1], "transform": fails(1, then=[2])})
    assert result.clock.elapsed == HOUR + 30
    assert HOUR + 30 <= loop.time() - before < HOUR + 60
    assert vars(loop)["_selector"] is selector
    assert await run_task_async(orders(), "load", upstream={"transform": [1, 2]}) == 3
    began = time.monotonic()
    await asyncio.sleep(0.02)  # real again
    assert time.monotonic() - began >= 0.019


async def test_a_running_loop_is_told_from_none_with_what_to_write_instead() -> None:
    for call, instead in ((lambda: run_flow(orders()), "run_flow_async"), (lambda: run_task(orders(), "load"), "run_task_async")):
        with pytest.raises(RuntimeError, match=f"await {instead}"):
            call()


async def test_a_clock_says_so_where_the_loop_does_not_go_by_it() -> None:
    clock = VirtualClock()
    with pytest.raises(RuntimeError, match="does not go by"):
        await clock.sleep(1)
    flow = AsyncFlow("own", clock=clock)
    flow.add_task_definition("flaky", fails(1, then="done"), max_retries=1, retry_delay=HOUR)
    with clock.rules(), clock.rules():
        run = await flow.run_until_complete(flow.init_run())
    assert (run.tasks["flaky"].output, clock.elapsed >= HOUR) == ("done", True)


def test_a_loop_of_somebody_elses_is_refused() -> None:
    with pytest.raises(TypeError, match="Mock"), VirtualClock().rules(Mock()):
        pass


def test_while_something_real_is_going_on_time_is_real() -> None:
    """A function in a thread of the loop's, and what comes through a socket, are waited for though a time-out is near."""
    flow = AsyncFlow("real")

    def late() -> str:
        time.sleep(0.05)
        return "from a thread"

    async def threads(ctx: Context) -> str:
        return await asyncio.to_thread(late)

    async def sockets(ctx: Context) -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        timer = threading.Timer(0.05, theirs.sendall, [b"word"])
        timer.start()
        try:
            return await reader.readexactly(4)
        finally:
            writer.close()
            theirs.close()

    for task in (threads, sockets):
        flow.add_task_definition(task.__name__, task, timeout=20)
    result = run_flow(flow)
    assert (result.output("threads"), result.output("sockets")) == ("from a thread", b"word")
    assert 0.04 < result.clock.elapsed < 15


# --- where functions run ---


def test_functions_run_in_the_thread_of_the_test_and_may_have_a_loop_of_their_own() -> None:
    flow, threads = AsyncFlow("places"), set[int]()

    async def inner() -> str:
        await asyncio.sleep(0)
        return current_context().task_id

    def work(ctx: Context) -> str:
        threads.add(threading.get_ident())
        return asyncio.run(inner())

    flow.add_task_definition("in_a_thread", work)
    flow.add_task_definition("inline", work, executor="inline")
    flow.add_task_definition("items", lambda ctx: [1, 2])
    flow.add_task_definition("mapped", work, map_over="items")
    result = run_flow(flow)
    assert_succeeded(result)
    assert (threads, result.output("in_a_thread")) == ({threading.get_ident()}, "in_a_thread")


def test_with_real_executors_functions_run_in_threads_and_may_wait_for_one_another() -> None:
    flow, both = AsyncFlow("together"), threading.Barrier(2, timeout=10)
    for name in ("left", "right"):
        flow.add_task_definition(name, lambda ctx: both.wait() >= 0, timeout=30)
    flow.add_task_definition("faked", lambda ctx: 1, executor="process")
    result = run_flow(flow, real_executors=True, fakes={"faked": lambda ctx: threading.current_thread().name})
    assert_succeeded(result)
    assert result.output("faked").startswith("night-batch-")
    assert result.clock.elapsed < 20


def test_with_real_executors_a_function_that_hangs_is_cut_off_after_real_time() -> None:
    flow, never = AsyncFlow("hung"), threading.Event()
    flow.add_task_definition("hangs", lambda ctx: never.wait(10), timeout=0.1, max_retries=1, retry_delay=HOUR)
    result = run_flow(flow, real_executors=True)
    never.set()
    assert_failed(result, "hangs", match="did not end within")
    assert HOUR + 0.2 <= result.clock.elapsed < HOUR + 5


# --- results ---


def test_a_result_says_what_started_in_which_order_and_what_was_told() -> None:
    result = run_flow(orders(), fakes={"extract": [1]}, run_id="monday", max_concurrency=1)
    assert (result.run.id, result.state, result.started) == ("monday", "success", ["extract", "transform", "load"])
    assert [type(event).__name__ for event in result.events][:3] == ["RunStarted", "TaskStarted", "TaskSucceeded"]
    assert result.store.load("monday") == result.run
    assert "succeeded" in result.explain("load")
    with pytest.raises(UnknownTaskError, match="Did you mean 'load'"):
        result.output("laod")


def test_a_rerun_after_a_fix_repeats_nothing_that_was_done() -> None:
    first, second = returns([1]), fails(9, error=ValueError("a bug"))
    result = run_flow(orders(), fakes={"extract": first, "transform": second})
    assert_failed(result, "transform", match="a bug")
    mended = result.retry("transform")
    assert_succeeded(mended)
    assert (first.calls, mended.output("load"), mended.started) == (1, 10, ["transform", "load"])
    assert_failed(result, "transform")  # what was given out stays what it was


# --- one task ---


def test_one_task_runs_alone_with_the_outputs_that_it_is_given() -> None:
    flow = orders()
    assert run_task(flow, "transform", {"factor": 3}, upstream={"extract": [1, 2]}) == [3, 6]
    clock = VirtualClock()
    assert run_task(flow, "load", upstream={"transform": [1, 2]}, clock=clock) == 3
    assert clock.elapsed == 30


def test_what_the_task_raises_comes_out_as_itself_at_the_first_attempt() -> None:
    clock = VirtualClock()
    with pytest.raises(ValueError, match="no rows") as caught:
        run_task(orders(), "transform", upstream={"extract": []}, clock=clock)
    assert caught.traceback[-1].name == "transform"
    assert clock.elapsed == 0
    with pytest.raises(ConnectionError):
        run_task(orders(), "extract")


def test_a_task_that_pulls_what_it_was_not_given_says_what_to_give() -> None:
    with pytest.raises(LookupError, match=r"upstream=\{'extract': \.\.\.\}"):
        run_task(orders(), "transform")
    with pytest.raises(InvalidOptionError, match="upstream of 'transform'"):
        run_task(orders(), "transform", upstream={"load": 1})
    with pytest.raises(UnknownTaskError, match="Did you mean 'extract'"):
        run_task(orders(), "transform", upstream={"extrac": 1})
    flow = orders()
    flow.add_task_definition("pulls", lambda ctx: ctx.pull_output("load"), dependencies=["extract"])
    with pytest.raises(NotUpstreamError):
        run_task(flow, "pulls", upstream={"extract": []})


def test_an_item_is_run_by_itself() -> None:
    flow = AsyncFlow("items")

    @flow.task
    def pages(ctx: Context) -> list[str]:
        raise AssertionError("it is not to be asked")

    @flow.task(map_over=pages, map_key=str)
    def fetch(ctx: Context, page: str) -> tuple[str, str, int | None]:
        if page == "west":
            raise TimeoutError(page)
        return page, ctx.task_id, ctx.map_index

    @flow.task(map_over=fetch)
    def parse(ctx: Context, fetched: str) -> int:
        return len(fetched)

    assert run_task(flow, fetch, item="north") == ("north", "fetch[north]", 0)
    assert run_task(flow, parse, item="four") == 4
    with pytest.raises(TimeoutError):
        run_task(flow, fetch, item="west")
    with pytest.raises(InvalidOptionError, match="it must be given"):
        run_task(flow, fetch)
    with pytest.raises(InvalidOptionError, match="left out"):
        run_task(flow, pages, item=1)
    with pytest.raises(InvalidOptionError, match="item= stands for that"):
        run_task(flow, fetch, item=1, upstream={"pages": [1]})


def test_a_task_alone_keeps_its_condition_and_forgets_its_rule_and_its_branches() -> None:
    flow = AsyncFlow("rules")
    flow.add_task_definition("first", lambda ctx: 1)
    flow.add_task_definition("choose", lambda ctx, first: "left" if first else None, dependencies=["first"], branch=True)
    flow.add_task_definition("left", lambda ctx: 1, dependencies=["choose"], run_if=lambda ctx: ctx.params["wanted"])
    flow.add_task_definition("clean_up", lambda ctx: "clean", dependencies=["left"], trigger_rule="all_failed")
    assert run_task(flow, "choose", upstream={"first": 1}) == "left"
    assert run_task(flow, "clean_up") == "clean"
    assert run_task(flow, "left", {"wanted": True}) == 1
    with pytest.raises(SkipTask, match="run_if"):
        run_task(flow, "left", {"wanted": False})


def test_a_task_of_a_subflow_is_run_by_its_path_and_a_subflow_as_a_whole() -> None:
    assert run_task(nested(), "first.transform", upstream={"extract": [4]}) == [40]
    with pytest.raises(RunFailedError, match="real thing"):
        run_task(nested(), "first")
    with pytest.raises(InvalidOptionError, match="'load' is a task"):
        run_task(orders(), "load.more")


def test_a_task_sees_which_attempt_it_is_said_to_be_and_its_time_may_be_over() -> None:
    flow = orders()
    flow.add_task_definition("which", lambda ctx: ctx.attempt_number)
    flow.add_task_definition("hangs", hangs(), timeout=5)
    assert run_task(flow, "which", attempt_number=2) == 2
    with pytest.raises(RunFailedError, match="did not end within 5 seconds"):
        run_task(flow, "hangs")
    flow.add_task_definition("unstorable", lambda ctx: object())
    with pytest.raises(RunFailedError, match="cannot be stored"):
        run_task(flow, "unstorable")


# --- assertions ---


def tried() -> helpers.FlowResult:
    """One task succeeded, one failed, one was skipped."""
    return run_flow(orders(), fakes={"extract": [1], "transform": raises(ValueError("bad\x1b[2J row"))})


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda run: assert_succeeded(run), "the run is failed, not success"),
        (lambda run: assert_succeeded(run, "extract", "load"), "'load' is skipped, not success"),
        (lambda run: assert_failed(run, "extract"), "'extract' is success, not failed"),
        (lambda run: assert_failed(run, "transform", match="worse"), "'transform' is failed, but 'worse' is not found"),
        (lambda run: assert_failed(run, match="worse"), "the run is failed, but 'worse' is not found"),
        (lambda run: assert_skipped(run, "transform"), "'transform' is failed, not skipped"),
        (lambda run: assert_skipped(run, "load", match="x{9}"), "'load' is skipped, but"),
        (lambda run: assert_cancelled(run), "the run is failed, not cancelled"),
        (lambda run: assert_ran(run, ["extract", "load"]), "'load' did not run"),
        (lambda run: assert_ran(run, ["extract"], only=True), "'transform' ran, too"),
        (lambda run: assert_not_run(run, "extract"), "'extract' ran"),
        (lambda run: assert_output(run, "extract", [2]), "the output of 'extract' is [1], not [2]"),
        (lambda run: assert_output(run, "load", None), "'load' is skipped, not success"),
        (lambda run: assert_succeeded(run, "extrac"), "no task 'extrac'; did you mean 'extract'?"),
    ],
)
def test_an_assertion_that_does_not_hold_says_what_is_and_shows_the_run(check: object, says: str) -> None:
    result = tried()
    for run in (result, result.run):
        with pytest.raises(AssertionError) as caught:
            check(run)  # type: ignore[operator]
        sentence, _, tree = str(caught.value).partition("\n\n")
        assert says in sentence
        assert "orders" in tree and all(name in tree for name in ("extract", "transform", "load"))
        assert "\x1b" not in str(caught.value)


def test_assertions_that_hold_say_nothing() -> None:
    result = tried()
    for run in (result, result.run):
        assert_succeeded(run, "extract")
        assert_failed(run)
        assert_failed(run, match="row")
        assert_failed(run, "transform", match="^ValueError")
        assert_skipped(run, "load")
        assert_ran(run, ["extract", "transform"], only=True)
        assert_not_run(run, ["load"])
        assert_output(run, "extract", [1])
    assert_attempts(result, "transform", 4)
    with pytest.raises(AssertionError, match="'extract' had 1 attempt, not 2"):
        assert_attempts(result, "extract", 2)
    with pytest.raises(TypeError, match="store="):
        assert_attempts(result.run, "extract", 1)


def test_assertions_look_into_subflows_and_take_runs_of_any_store(tmp_path: Path) -> None:
    result = run_flow(nested(), fakes={"first.extract": [1], "second.load": raises(ValueError("inside"))})
    assert_output(result, "first.load", 10)
    assert_failed(result, "second", match="real thing")
    assert_attempts(result, "second.extract", 1)
    assert "first" in run_tree(result)
    with pytest.raises(AssertionError, match="the store is needed"):
        assert_succeeded(result.run, "first.load")
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = AsyncFlow("kept", store)

        @flow.task
        def only(ctx: Context) -> int:
            return 1

        run = flow.run()
        assert_output(run, only, 1)
        assert_attempts(run, only, 1, store=store)


def test_a_cancelled_run_is_told_from_a_failed_one() -> None:
    flow = AsyncFlow("cancelled")
    flow.add_task_definition("wait", lambda ctx: 1)
    run_id = flow.init_run()
    flow.cancel(run_id)
    run = flow.store.load(run_id)
    assert_cancelled(run)
    assert_cancelled(run, "wait")
    with pytest.raises(AssertionError, match="the run is cancelled, not failed"):
        assert_failed(run)


def test_a_chain_of_a_thousand_tasks_and_a_deep_nest_take_no_recursion() -> None:
    flow = AsyncFlow("chain")
    for number in range(1000):
        flow.add_task_definition(f"t{number}", lambda ctx: 1, dependencies=[f"t{number - 1}"] if number else None)
    assert_succeeded(run_flow(flow, fakes={"t500": 2}))
    deep = AsyncFlow("level0")
    deep.add_task_definition("task", lambda ctx: "own")
    for level in range(1, 200):
        around = AsyncFlow(f"level{level}")
        around.add_subflow_definition(subflow_id="in", child_flow=deep)
        deep = around
    path = ".".join(["in"] * 199 + ["task"])
    assert run_flow(deep, fakes={path: "faked"}).output(path) == "faked"


def test_every_helper_is_listed_and_has_a_docstring() -> None:
    for name in helpers.__all__:
        assert getattr(helpers, name).__doc__, name
