"""What an attempt calls: parameters that are filled, conditions that are asked first, and functions that are refused."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import lru_cache, partial, wraps
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from .. import (
    AsyncFlow,
    CannotTravelError,
    Context,
    FlowBuilder,
    InvalidOptionError,
    Store,
    TaskFunctionError,
    TaskSkipped,
    TaskSucceeded,
)
from ..calling import checked, subflow_call, task_call
from . import worker_tasks
from .conftest import events_of, outputs_of, returns, run, states_of

if TYPE_CHECKING:
    from elsewhere import Table  # type: ignore[import-not-found]

PLACES = ["thread", "inline", "process", "threads of others", "processes of others", "loop"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each place where tasks run: what is said as `executor=`, None for coroutines."""
    if request.param == "threads of others":
        with ThreadPoolExecutor(1) as executor:
            yield executor
    elif request.param == "processes of others":
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            yield executor
    else:
        yield None if request.param == "loop" else request.param


class Ctx:
    """As much of a context as parameters are filled from."""

    task_id = "task"
    params: dict[str, Any] = {"limit": 1}

    def __init__(self, item: object = None, **outputs: object) -> None:
        self.item = item
        self.outputs = outputs

    def pull_output(self, task_id: str) -> Any:
        return self.outputs[task_id]


def filled(function: Callable[..., Any], *, item: Any = None, **outputs: Any) -> Any:
    """What a function returns when it is called as the task that depends on what has these outputs."""
    ctx: Any = Ctx(item, **outputs)
    called, _ = task_call("task", function, tuple(outputs), mapped=item is not None)
    return called(ctx)


# --- parameters ---


async def test_a_task_takes_the_outputs_of_its_dependencies_by_its_parameters_wherever_it_runs(place: Any) -> None:
    function = worker_tasks.adds if place is not None else worker_tasks.adds_later
    flow = AsyncFlow("flow").add_task_definition("left", worker_tasks.left).add_task_definition("right", worker_tasks.right)
    flow.add_task_definition("adds", function, dependencies=["left", "right"], executor=place)
    ended = await run(flow)
    assert outputs_of(ended) == {"left": 2, "right": 3, "adds": 5}, ended.tasks["adds"].error


async def test_a_parameter_that_is_called_like_no_dependency_keeps_its_default(flow: AsyncFlow) -> None:
    flow.add_task_definition("left", worker_tasks.left).add_task_definition("right", worker_tasks.right)
    flow.add_task_definition("adds", worker_tasks.adds, dependencies=["left"])
    assert outputs_of(await run(flow))["adds"] == 2


async def test_each_attempt_gets_a_copy_of_its_own(flow: AsyncFlow) -> None:
    flow.add_task_definition("rows", returns([1]))

    @flow.task(depends_on="rows", max_retries=1)
    async def load(ctx: Context, rows: list[int]) -> list[int]:
        rows.append(2)
        if ctx.attempt_number == 0:
            raise ValueError
        return rows

    assert outputs_of(await run(flow))["load"] == [1, 2]


async def test_builders_and_nested_flows_fill_parameters_too() -> None:
    child = FlowBuilder("child").add_task("own", lambda ctx: ctx.params["n"]).build()
    flow = (
        FlowBuilder("flow")
        .add_task("left", worker_tasks.left)
        .add_task("adds", worker_tasks.adds, depends_on=["left"])
        .add_subflow("sub", child, depends_on=["adds"], params=lambda ctx, adds: {"n": adds * 10})
        .build()
    )
    ended = await run(flow)
    assert ended.tasks["sub"].output == 20


def with_default(ctx: Any, a: int, b: int = 10) -> list[int]:
    return [a, b]


def with_keywords(ctx: Any, *, b: int, a: int = 5) -> list[int]:
    return [a, b]


def with_stars(ctx: Any, *rest: Any, a: int, **more: Any) -> Any:
    return [a, rest, more]


def with_more(ctx: Any, a: int, **more: Any) -> Any:
    return [a, more]


def without_name(ctx: Any, a: int = 5, /, b: int = 0) -> list[int]:
    return [a, b]


def three(ctx: Any, a: int, b: int, c: int) -> list[int]:
    return [a, b, c]


def handing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def handed(*args: Any, **kwargs: Any) -> Any:
        return ["handed", function(*args, **kwargs)]

    return handed


def bringing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that fills a parameter itself."""

    @wraps(function)
    def brought(*args: Any, **kwargs: Any) -> Any:
        return function(*args, c=7, **kwargs)

    return brought


def narrowing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that takes less than the function inside."""

    @wraps(function)
    def narrow(ctx: Any, a: int) -> Any:
        return function(ctx, a, 8, 9)

    return narrow


class Worker:
    def method(self, ctx: Any, a: int) -> int:
        return a

    @handing_on
    def decorated(self, ctx: Any, a: int) -> int:
        return a

    def __call__(self, ctx: Any, b: int) -> int:
        return b


def with_foreign_annotation(ctx: Any, a: Table) -> Any:  # pyright: ignore[reportUnknownParameterType]
    return a


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (with_default, [1, 2]),
        (lambda ctx, b: b, 2),
        (with_keywords, [1, 2]),
        (with_stars, [1, (), {}]),
        (with_more, [1, {}]),
        (without_name, [5, 2]),
        (handing_on(with_default), ["handed", [1, 2]]),
        (handing_on(handing_on(with_keywords)), ["handed", ["handed", [1, 2]]]),
        (bringing(three), [1, 2, 7]),
        (narrowing(three), [1, 8, 9]),
        (partial(three, c=30), [1, 2, 30]),
        (partial(three, b=20, c=30), [1, 20, 30]),
        (partial(partial(three, b=20), c=30), [1, 20, 30]),
        (partial(lambda first, ctx, a: [first, a], "first"), ["first", 1]),
        (Worker().method, 1),
        (Worker().decorated, ["handed", 1]),
        (Worker(), 2),
        (lru_cache(lambda ctx, a: a), 1),
        (with_foreign_annotation, 1),
        (partial(with_foreign_annotation), 1),
    ],
)
def test_whatever_takes_parameters_gets_those_that_are_called_like_dependencies(
    function: Callable[..., Any], returned: object
) -> None:
    assert filled(function, a=1, b=2) == returned


def test_a_function_that_takes_the_context_alone_is_called_itself() -> None:
    def plain(ctx: Context) -> None: ...

    def starred(*args: Any, **kwargs: Any) -> None: ...

    for function in (plain, starred, worker_tasks.later, len, print):
        called, is_async = task_call("task", function, ("a", "b"))
        assert called is function
        assert is_async is inspect.iscoroutinefunction(function)


def test_a_definition_keeps_the_function_that_was_declared_beside_what_is_called(flow: AsyncFlow) -> None:
    @flow.task
    def left(ctx: Context) -> int:
        return 1

    @flow.task(depends_on=left)
    def adds(ctx: Context, left: int) -> int:
        """Adds."""
        return left + 1

    flow.add_task_definition("last", lambda ctx, adds: adds, dependencies=[adds])
    definition: Any = flow.definition.get("adds")
    assert (definition.function, flow.definition.get("left").called) == (adds, left)
    assert definition.called is not adds
    assert flow.definition.get("last").depends_on == ("adds",)
    assert flow.get_execution_details(flow.init_run())["tasks"]["adds"]["description"] == "Adds."


async def test_a_task_that_takes_the_place_of_another_is_called_as_itself(flow: AsyncFlow) -> None:
    flow.add_task_definition("left", worker_tasks.left)
    flow.add_task_definition("adds", worker_tasks.adds, dependencies=["left"])
    flow.update_task_retry_policy("adds", 3)
    assert outputs_of(await run(flow))["adds"] == 2
    flow.add_task_definition("adds", lambda ctx, left: -left, dependencies=["left"], replace=True)
    assert outputs_of(await run(flow))["adds"] == -2
    flow.add_task_definition("adds", lambda ctx: "plain", dependencies=["left"], replace=True)
    assert outputs_of(await run(flow))["adds"] == "plain"


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda ctx, extrct: 1, "extrct"),
        (lambda ctx, extract, rows: 1, "rows"),
        (handing_on(worker_tasks.adds), None),
        (partial(three, a=1, b=2), "c"),
        (lambda ctx, *, other: 1, "other"),
    ],
)
def test_a_parameter_that_nobody_fills_is_refused_by_its_name(function: Any, name: str | None) -> None:
    flow = AsyncFlow("flow")
    if name is None:  # what is inside may be filled by the decorator
        assert flow.add_task_definition("load", function, dependencies=["extract"]).has_task("load")
        return
    with pytest.raises(TaskFunctionError, match=f"its parameter '{name}' is called like none") as caught:
        flow.add_task_definition("load", function, dependencies=["extract", "transform"])
    assert ("Did you mean 'extract'?" in str(caught.value)) == (name == "extrct")
    assert "('extract', 'transform')" in str(caught.value)
    assert not flow.has_task("load")


def test_a_parameter_without_a_name_for_others_is_not_filled() -> None:
    def nameless(ctx: Any, extract: Any, /) -> None: ...

    with pytest.raises(TaskFunctionError, match="'extract'"):
        checked("load", nameless, ("extract",))


def test_a_task_without_dependencies_is_told_what_to_write() -> None:
    with pytest.raises(TaskFunctionError, match=r"depends on \(nothing\).*write `def task\(ctx\): \.\.\.`"):
        checked("load", worker_tasks.adds)


# --- the item of a mapped task ---


def item_first(ctx: Any, row: str, a: int) -> Any:
    return [row, a]


def item_last(ctx: Any, a: int, row: str) -> Any:
    return [row, a]


def item_by_keyword(ctx: Any, limit: int = 3, *, item: str) -> Any:
    return [item, limit]


def item_without_name(ctx: Any, row: str, /, a: int) -> Any:
    return [row, a]


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (item_first, ["it", 1]),
        (item_last, ["it", 1]),
        (item_by_keyword, ["it", 3]),
        (item_without_name, ["it", 1]),
        (handing_on(item_last), ["handed", ["it", 1]]),
        (partial(three, b=20, c=30), [1, 20, 30]),
        (partial(three, b=20), [1, 20, "it"]),
        (lambda ctx: "none", "none"),
        (lambda ctx, item=None: item, "it"),
        (lambda ctx, row, extra=5: [row, extra], ["it", 5]),
        (lambda ctx, a, item: [a, item], [1, "it"]),
    ],
)
def test_the_first_parameter_of_a_mapped_task_that_is_no_dependency_gets_the_item(
    function: Callable[..., Any], returned: object
) -> None:
    assert filled(function, item="it", a=1) == returned


def test_a_second_parameter_beside_the_item_is_refused() -> None:
    with pytest.raises(TaskFunctionError, match="its parameter 'second' is called like none"):
        task_call("task", lambda ctx, first, second: 1, ("rows",), mapped=True)


def test_the_condition_and_the_params_of_what_is_mapped_take_the_item_too() -> None:
    asks, _ = task_call("task", lambda ctx, row: row, (), mapped=True, run_if=lambda ctx, row: row == "it")
    ctx: Any = Ctx("it", a=1)
    assert asks(ctx) == "it"
    own = subflow_call("sub", lambda ctx, row, a: {"row": row, "a": a}, ("a",), True, None)
    assert own is not None
    assert own(ctx) == {"row": "it", "a": 1}


# --- what travels ---


@pytest.mark.parametrize(
    ("function", "run_if", "awaited"),
    [
        (worker_tasks.adds, None, False),
        (worker_tasks.adds, worker_tasks.is_large, False),
        (worker_tasks.adds_later, worker_tasks.is_large_later, True),
    ],
)
def test_what_is_called_travels_by_name(function: Any, run_if: Any, awaited: bool) -> None:
    called, is_async = task_call("task", function, ("left", "right"), run_if=run_if)
    ctx: Any = Ctx(left=2, right=3)
    there = pickle.loads(pickle.dumps(called))
    assert is_async is awaited
    assert (asyncio.run(there(ctx)) if awaited else there(ctx)) == 5
    assert repr(there) == repr(called)


def test_what_cannot_travel_is_refused_before_there_is_a_run() -> None:
    flow = AsyncFlow("flow", executor="process").add_task_definition("left", worker_tasks.left)
    flow.add_task_definition("adds", worker_tasks.adds, dependencies=["left"], run_if=lambda ctx: True)
    with pytest.raises(CannotTravelError, match="it is a lambda"):
        flow.init_run()
    flow.add_task_definition("adds", lambda ctx, left: left, dependencies=["left"], replace=True)
    with pytest.raises(CannotTravelError, match="it is a lambda"):
        flow.init_run()
    assert flow.store.list_runs() == []


# --- conditions ---


@pytest.mark.parametrize(("limit", "state"), [(1, "success"), (2, "skipped")])
async def test_a_condition_decides_where_the_task_would_run(place: Any, limit: int, state: str) -> None:
    flow = AsyncFlow("flow").add_task_definition("left", worker_tasks.left)
    function = worker_tasks.adds if place is not None else worker_tasks.adds_later
    flow.add_task_definition("adds", function, dependencies=["left"], executor=place, run_if=worker_tasks.is_large)
    task = (ended := await run(flow, {"limit": limit})).tasks["adds"]
    reason = None if state == "success" else "run_if (is_large) said no"
    assert (ended.state, task.state, task.reason) == ("success", state, reason), task.error


@pytest.mark.parametrize("executor", [None, "process"])
@pytest.mark.parametrize(("limit", "state"), [(1, "success"), (2, "skipped")])
async def test_a_coroutine_task_may_have_a_condition_that_is_awaited(executor: Any, limit: int, state: str) -> None:
    flow = AsyncFlow("flow").add_task_definition("left", worker_tasks.left)
    flow.add_task_definition(
        "adds", worker_tasks.adds_later, dependencies=["left"], run_if=worker_tasks.is_large_later, executor=executor
    )
    assert states_of(await run(flow, {"limit": limit})) == {"left": "success", "adds": state}


@pytest.mark.parametrize("answer", [False, None, 0, "", []])
async def test_whatever_counts_as_false_is_a_no_and_the_function_is_not_called(flow: AsyncFlow, answer: object) -> None:
    begun: list[str] = []
    told = events_of(flow)
    flow.add_task_definition("only", lambda ctx: begun.append("only"), run_if=lambda ctx: answer, max_retries=3)
    flow.add_task_definition("after", lambda ctx: begun.append("after"), dependencies=["only"])
    ended = await run(flow)
    assert (ended.state, states_of(ended), begun) == ("success", {"only": "skipped", "after": "skipped"}, [])
    assert [(event.task_id, event.attempt_number) for event in told if isinstance(event, TaskSkipped)] == [
        ("only", 0),
        ("after", 0),
    ]
    assert [attempt.result for attempt in flow.store.list_attempts(ended.id)] == ["skipped"]


async def test_a_condition_that_raises_is_a_failed_attempt_and_the_next_one_asks_again(flow: AsyncFlow) -> None:
    asked: list[int] = []

    def condition(ctx: Context) -> bool:
        asked.append(ctx.attempt_number)
        if ctx.attempt_number == 0:
            raise ValueError("not yet")
        return True

    flow.add_task_definition("only", returns(1), run_if=condition, max_retries=1)
    flow.add_task_definition("never", lambda ctx: 1, run_if=lambda ctx: ctx.params["there is none"])
    ended = await run(flow)
    assert (asked, states_of(ended)) == ([0, 1], {"only": "success", "never": "failed"})
    assert ended.tasks["never"].reason == "KeyError: 'there is none'"
    first, second = (attempt for attempt in flow.store.list_attempts(ended.id) if attempt.task_id == "only")
    assert (first.result, first.reason, second.result) == ("failed", "ValueError: not yet", "success")


class Undecided:
    def __bool__(self) -> NoReturn:
        raise TypeError("the truth of an array is ambiguous")


async def test_an_answer_that_is_neither_yes_nor_no_fails_the_attempt(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", lambda ctx: 1, run_if=lambda ctx: Undecided())
    task = (await run(flow)).tasks["only"]
    assert (task.state, task.reason) == ("failed", "TypeError: the truth of an array is ambiguous")


async def test_an_answer_that_would_have_to_be_awaited_is_no_yes(flow: AsyncFlow) -> None:
    """But of a coroutine task, whoever makes it is awaited."""

    async def no(ctx: Context) -> bool:
        return False

    flow.add_task_definition("plain", lambda ctx: 1, run_if=lambda ctx: no(ctx))
    flow.add_task_definition("coroutine", returns(1), run_if=lambda ctx: no(ctx))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ended = await run(flow)
    assert states_of(ended) == {"plain": "failed", "coroutine": "skipped"}
    assert "TaskFunctionError" in str(ended.tasks["plain"].reason)
    assert "has to be awaited" in str(ended.tasks["plain"].reason)


def test_a_condition_that_cannot_be_asked_is_refused_where_it_is_declared(flow: AsyncFlow) -> None:
    async def later(ctx: Context) -> bool:
        return True

    with pytest.raises(InvalidOptionError, match=r"run_if=.*a plain function"):
        flow.add_task_definition("only", lambda ctx: 1, run_if=later)
    with pytest.raises(InvalidOptionError, match=r"run_if=.*a plain function"):
        flow.add_subflow_definition("only", AsyncFlow("child"), run_if=later)
    with pytest.raises(TaskFunctionError, match="it is called with one argument"):
        flow.add_task_definition("only", lambda ctx: 1, run_if=lambda: True)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TaskFunctionError, match="its parameter 'left'"):
        flow.add_task_definition("only", lambda ctx: 1, run_if=worker_tasks.is_large)
    with pytest.raises(InvalidOptionError, match="run_if=True"):
        flow.add_task_definition("only", lambda ctx: 1, run_if=True)  # type: ignore[arg-type]
    assert not flow.has_task("only")


def test_the_reason_names_the_condition_inside_a_partial(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", lambda ctx: 1, run_if=partial(worker_tasks.is_large, left=1))
    assert flow.run({"limit": 1}).tasks["only"].reason == "run_if (is_large) said no"


# --- the conditions of nested flows ---


def doubled(ctx: Context, left: int) -> dict[str, Any]:
    return {"n": left * 2}


@pytest.mark.parametrize(("params", "seen"), [({"n": 7}, 7), (None, None), (doubled, 4), (lambda ctx: {"n": 1}, 1)])
@pytest.mark.parametrize("runs", [True, False])
async def test_a_nested_flow_is_asked_for_before_its_run_is_made(store: Store, params: Any, seen: int | None, runs: bool) -> None:
    child = AsyncFlow("child").add_task_definition("only", lambda ctx: ctx.params.get("n"))
    flow = AsyncFlow("flow", store).add_task_definition("left", worker_tasks.left)
    flow.add_subflow_definition(
        "sub", child, dependencies=["left"], params=params, run_if=lambda ctx, left: runs and left == 2, max_retries=2
    )
    told = events_of(flow)
    ended = await run(flow)
    task = ended.tasks["sub"]
    if runs:
        assert (task.state, task.output) == ("success", seen)
    else:
        assert (ended.state, task.state, task.child_run_id) == ("success", "skipped", None)
        assert str(task.reason).startswith("run_if (test_a_nested_flow")
        assert store.list_children(ended.id) == []
        assert [attempt.result for attempt in store.list_attempts(ended.id)] == ["success", "skipped"]
    assert len([event for event in told if isinstance(event, TaskSucceeded)]) == (3 if runs else 1)


async def test_the_condition_of_a_nested_flow_fails_its_task_and_is_asked_again(flow: AsyncFlow) -> None:
    asked: list[int] = []

    def condition(ctx: Context) -> bool:
        asked.append(ctx.attempt_number)
        if ctx.attempt_number == 0:
            raise ValueError("not yet")
        return True

    child = AsyncFlow("child").add_task_definition("only", lambda ctx: ctx.params)
    flow.add_subflow_definition("sub", child, params={"n": 1}, run_if=condition, max_retries=1)
    flow.add_subflow_definition("bad", child, params={1: "no name"}, run_if=lambda ctx: True)  # type: ignore[dict-item]
    ended = await run(flow)
    assert (asked, ended.tasks["sub"].output) == ([0, 1], {"n": 1})
    assert "a mapping from names" in str(ended.tasks["bad"].reason)


# --- items ---


def many(ctx: Context) -> list[int]:
    return [1, 20, 30]


def scaled(ctx: Context, factor: int, item: int) -> int:
    return item * factor


async def scaled_later(ctx: Context, factor: int, item: int) -> int:
    return item * factor


def share(ctx: Context, item: int, many: list[int]) -> float:
    return item / sum(many)


def is_round(ctx: Context, number: int) -> bool:
    return number % 10 == 0


async def test_each_item_is_asked_for_and_taken_wherever_it_runs(place: Any) -> None:
    flow = AsyncFlow("flow").add_task_definition("many", many).add_task_definition("factor", worker_tasks.left)
    function = scaled_later if place is None else scaled
    flow.add_task_definition("scaled", function, dependencies=["factor"], map_over="many", run_if=is_round, executor=place)
    ended = await run(flow)
    assert ended.tasks["scaled"].output == [None, 40, 60], ended.tasks["scaled"].error
    assert (ended.tasks["scaled[0]"].state, ended.tasks["scaled[0]"].reason) == ("skipped", "run_if (is_round) said no")
    assert ended.state == "success"


async def test_a_parameter_that_is_called_like_the_list_gets_the_whole_of_it_wherever_it_runs(place: Any) -> None:
    if place is None:
        return
    flow = AsyncFlow("flow").add_task_definition("many", many)
    flow.add_task_definition("share", share, map_over="many", executor=place)
    ended = await run(flow)
    assert [round(part, 2) for part in ended.tasks["share"].output] == [0.02, 0.39, 0.59]


async def test_tasks_that_were_included_take_by_their_parameters_what_they_call_so(place: Any) -> None:
    inner = AsyncFlow("inner").add_task_definition("many", many).add_task_definition("factor", worker_tasks.left)
    function = scaled_later if place is None else scaled
    inner.add_task_definition("scaled", function, dependencies=["factor"], map_over="many", run_if=is_round, executor=place)
    if place is not None:
        inner.add_task_definition("share", share, map_over="many", executor=place)
    child = AsyncFlow("child").add_task_definition("only", lambda ctx: ctx.params["n"])
    inner.add_subflow_definition("sub", child, dependencies=["factor"], params=lambda ctx, factor: {"n": factor})
    flow = AsyncFlow("flow")
    flow.include(inner, prefix="in")
    ended = await run(flow)
    assert ended.state == "success", {task.task_id: task.reason for task in ended.tasks.values()}
    assert ended.tasks["in_scaled"].output == [None, 40, 60]
    assert ended.tasks["in_sub"].output == 2
    assert place is None or len(ended.tasks["in_share"].output) == 3


async def test_a_nested_flow_for_each_item_is_asked_for_with_the_item(store: Store) -> None:
    child = AsyncFlow("child").add_task_definition("only", lambda ctx: ctx.params["n"])
    flow = AsyncFlow("flow", store).add_task_definition("many", many)
    flow.add_subflow_definition("sub", child, map_over="many", params=lambda ctx, item: {"n": -item}, run_if=is_round)
    ended = await run(flow)
    assert ended.tasks["sub"].output == [None, -20, -30]
    assert len(store.list_children(ended.id)) == 2
