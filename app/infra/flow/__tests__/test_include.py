"""Flows taken into flows: their tasks are tasks like all others, whose code goes on to use the names it was written with."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AmbiguousDependencyError,
    AsyncFlow,
    BranchError,
    Context,
    CycleError,
    DuplicateTaskError,
    FlowBuilder,
    FlowError,
    GraphChangedError,
    Included,
    InvalidNameError,
    InvalidOptionError,
    NestedFlowError,
    NotUpstreamError,
    RetryPolicy,
    Store,
    UnknownDependencyError,
    UnknownExecutorError,
    UnknownTaskError,
)
from ..travel import ContextThere
from .conftest import Effects, fails, make_store, outputs_of, returns, run, states_of
from .worker_tasks import one, pulls_function, pulls_one_by_name


def add(number: int, *names: str) -> Callable[[Context], Any]:
    """A task that adds to what the named tasks gave."""

    async def task(ctx: Context) -> Any:
        return number + sum(ctx.pull(name) for name in names)

    return task


def part(name: str = "part", load: int = 1) -> AsyncFlow:
    """`load` -> `double`, which pulls it by that name."""
    flow = AsyncFlow(name)
    flow.add_task_definition("load", returns(load))
    flow.add_task_definition("double", lambda ctx: ctx.pull("load") * 2, dependencies=["load"])
    return flow


def upstream_of(flow: AsyncFlow) -> dict[str, tuple[str, ...]]:
    return {task_id: task.depends_on for task_id, task in flow.definition.tasks.items()}


# --- what is taken in ---


async def test_a_flow_s_tasks_become_tasks_of_this_one_in_the_same_run(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    flow.add_task_definition("start", returns(0))
    taken = flow.include(part(), prefix="x")
    flow.add_task_definition("end", add(0, "x_double"), dependencies=["x_double"])
    assert upstream_of(flow) == {"start": (), "x_load": (), "x_double": ("x_load",), "end": ("x_double",)}
    assert (taken.flow_name, taken["double"], taken.roots, taken.leaves) == ("part", "x_double", ("x_load",), ("x_double",))
    done = await run(flow)
    assert outputs_of(done) == {"start": 0, "x_load": 1, "x_double": 2, "end": 2}
    assert store.list_runs() == [done.id]


async def test_included_twice_each_time_has_its_own_names_and_this_flow_has_the_same_ones(flow: AsyncFlow) -> None:
    flow.add_task_definition("load", returns(100))
    flow.add_task_definition("double", add(0, "load"), dependencies=["load"])
    flow.include(part(), prefix="x")
    flow.include(part("other", load=7), prefix="y", depends_on="load")
    done = await run(flow)
    assert outputs_of(done) == {"load": 100, "double": 100, "x_load": 1, "x_double": 2, "y_load": 7, "y_double": 14}


async def test_without_a_prefix_the_ids_stay(flow: AsyncFlow) -> None:
    flow.add_task_definition("start", returns(5))
    taken = flow.include(part(), depends_on=["start"])
    assert dict(taken.ids) == {"load": "load", "double": "double"}
    assert upstream_of(flow) == {"start": (), "load": ("start",), "double": ("load",)}
    assert outputs_of(await run(flow)) == {"start": 5, "load": 1, "double": 2}


@pytest.mark.parametrize(
    ("prefix", "task_id"),
    [(None, "load"), ("", "load"), ("x", "x_load"), ("x1", "x1_load"), ("x_", "x_load"), ("x:", "x:load"), ("x-", "x-load")],
)
def test_a_prefix_is_joined_by_an_underscore_unless_it_brings_a_joint(flow: AsyncFlow, prefix: str | None, task_id: str) -> None:
    assert flow.include(part(), prefix)["load"] == task_id
    assert flow.has_task(task_id)


@pytest.mark.parametrize("prefix", ["a.b", "x.", "/", "x[", "x]", "\n", " ", 5, "x" * 499])
def test_a_prefix_that_can_begin_no_id_is_refused(flow: AsyncFlow, prefix: Any) -> None:
    with pytest.raises(InvalidNameError):
        flow.include(part(), prefix)
    assert not flow.definition.tasks


def test_what_it_gives_back_serves_as_dependencies(flow: AsyncFlow) -> None:
    other = part()
    other.add_task_definition("report", returns(1), dependencies=["load"])
    x = flow.include(other, "x")
    flow.include(part(), "y", depends_on=x)
    flow.add_task_definition("one", returns(1), dependencies=x["load"])
    flow.add_task_definition("all", returns(1), dependencies=[*x, "one"])
    flow.add_task_definition("whole", returns(1), dependencies=x)
    assert upstream_of(flow) == {
        "x_load": (),
        "x_double": ("x_load",),
        "x_report": ("x_load",),
        "y_load": ("x_double", "x_report"),
        "y_double": ("y_load",),
        "one": ("x_load",),
        "all": ("x_double", "x_report", "one"),
        "whole": ("x_double", "x_report"),
    }
    with pytest.raises(UnknownTaskError, match=r"Flow 'part' has no task 'laod'.*'load'"):
        x["laod"]


def test_a_flow_without_tasks_brings_nothing(flow: AsyncFlow) -> None:
    taken = flow.include(AsyncFlow("empty"), "x", depends_on=[])
    assert taken == Included("empty", {}, (), ())
    assert not flow.definition.tasks


def test_a_decorated_function_names_its_task_unless_it_came_in_twice(flow: AsyncFlow) -> None:
    other = AsyncFlow("other")

    @other.task
    def load(ctx: Context) -> int:
        return 1

    @other.subflow("sub")
    def inner(_: None) -> AsyncFlow:
        return part("inner")

    flow.include(other, "x")
    flow.add_task_definition("end", returns(1), dependencies=[load, inner])
    assert upstream_of(flow)["end"] == ("x_load", "x_sub")
    flow.include(other, "y")
    with pytest.raises(AmbiguousDependencyError, match="x_load, y_load"):
        flow.add_task_definition("more", returns(1), dependencies=[load])


async def test_what_is_declared_later_in_the_one_is_not_in_the_other(flow: AsyncFlow) -> None:
    other = part()
    before = dict(other.definition.tasks)
    flow.include(other, "x", depends_on=[])
    assert other.definition.tasks == before
    other.add_task_definition("more", returns(1), dependencies=["double"])
    other.update_task_retry_policy("load", 5)
    flow.update_task_retry_policy("x_double", 3)
    assert list(flow.definition.tasks) == ["x_load", "x_double"]
    assert flow.definition.get("x_load").retry.max_retries == 0
    assert other.definition.get("double").retry.max_retries == 0
    assert outputs_of(await run(other)) == {"load": 1, "double": 2, "more": 1}


def test_all_that_a_task_says_of_itself_goes_along(flow: AsyncFlow) -> None:
    other = AsyncFlow("other", pools={"include": 2})
    said = {"timeout": 5, "pool": "include", "pool_weight": 2, "priority": 7, "name": "Loads", "description": "What it does."}
    other.add_task_definition("load", returns(1), retry=RetryPolicy(2, backoff=2), **said)  # type: ignore[arg-type]
    other.add_task_definition(
        "parse", returns(1), map_over="load", map_key=str, max_map_size=7, trigger_rule="all_done", run_if=returns(True)
    )
    other.add_task_definition("decide", returns("end"), dependencies=["parse"], branch=True)
    flow.include(other, "x")
    for task_id, task in other.definition.tasks.items():
        mine = flow.definition.get(f"x_{task_id}")
        assert (mine.options, mine.retry, mine.name, mine.description) == (task.options, task.retry, task.name, task.description)
    parse, rules = flow.definition.get("x_parse"), flow.definition.rules
    assert (parse.depends_on, parse.rules.map_over) == (("x_load",), "x_load")
    for option in ("map_key", "max_map_size", "trigger_rule", "run_if"):
        assert getattr(parse.rules, option) == getattr(other.definition.get("parse").rules, option)
    assert {task_id: said.branch for task_id, said in rules.items()} == {"x_parse": False, "x_decide": True}
    flow.validate()


# --- names ---


async def test_a_flow_that_includes_one_can_be_included_itself(flow: AsyncFlow) -> None:
    middle = AsyncFlow("middle")
    middle.add_task_definition("load", returns(10))
    middle.include(part(), "a", depends_on="load")
    middle.add_task_definition("sum", add(0, "load", "a_load", "a_double"), dependencies=["a_double"])
    assert outputs_of(await run(middle)) == {"load": 10, "a_load": 1, "a_double": 2, "sum": 13}
    flow.add_task_definition("load", returns(100))
    flow.include(middle, "x", depends_on="load")
    flow.include(middle, "y")
    flow.add_task_definition("all", add(0, "load", "x_sum", "y_a_load"), dependencies=["load", "x_sum", "y_sum"])
    outputs = outputs_of(await run(flow))
    assert (outputs.pop("load"), outputs.pop("all")) == (100, 114)
    each = {"load": 10, "a_load": 1, "a_double": 2, "sum": 13}
    assert outputs == {f"{prefix}_{task_id}": output for prefix in "xy" for task_id, output in each.items()}


async def test_code_may_name_tasks_of_the_flow_that_took_it_in_and_ids_as_they_are_there(flow: AsyncFlow) -> None:
    other = AsyncFlow("other")
    other.add_task_definition("load", returns(1))
    other.add_task_definition("sum", add(0, "load", "x_load", "start"), dependencies=["load"])
    flow.add_task_definition("start", returns(10))
    flow.include(other, "x", depends_on="start")
    assert (await run(flow)).tasks["x_sum"].output == 12


async def test_a_function_means_the_task_at_hand_that_it_serves_and_what_it_needs_comes_as_parameters(flow: AsyncFlow) -> None:
    other = AsyncFlow("other")

    @other.task
    def load(ctx: Context) -> int:
        return 1

    @other.task(depends_on=load)
    def double(ctx: Context, load: int) -> int:
        return load * 2

    @other.task("far", depends_on=double)
    def far_away(ctx: Context, double: int) -> list[int]:
        return [ctx.pull(load), double, ctx.pull("load")]

    flow.add_task_definition("load", load)
    x = flow.include(other, "x", depends_on="load")
    flow.include(other, "y", depends_on=x)

    @flow.task(depends_on=[x["double"], load_id := x["load"]])
    def end(ctx: Context, x_double: int, x_load: int) -> list[int]:
        return [x_double, x_load, ctx.pull(load), ctx.pull(load_id)]

    outputs = outputs_of(await run(flow))
    assert outputs["x_far"] == outputs["y_far"] == [1, 2, 1]
    assert outputs["end"] == [2, 1, 1, 1]


async def test_a_task_of_the_group_may_be_called_as_another_one_is_here(flow: AsyncFlow) -> None:
    """`x_load` is a name in the group, and an id of another task of it here."""
    other = AsyncFlow("other")

    @other.task
    async def load(ctx: Context) -> int:
        return 1

    other.add_task_definition("x_load", returns(2))
    other.add_task_definition("pulls", lambda ctx: [ctx.pull(load), ctx.pull("x_load")], dependencies=["load", "x_load"])
    flow.include(other, "x")
    assert outputs_of(await run(flow)) == {"x_load": 1, "x_x_load": 2, "x_pulls": [1, 2]}


async def test_a_task_knows_itself_by_its_id_here(flow: AsyncFlow) -> None:
    other = AsyncFlow("other")
    other.add_task_definition(
        "load", lambda ctx: [ctx.task_id, ctx.task_instance.task_id, ctx.idempotency_key, list(ctx.workflow_run.tasks)]
    )
    flow.include(other, "x")
    done = await run(flow)
    assert done.tasks["x_load"].output == ["x_load", "x_load", f"{done.id}/x_load", ["x_load"]]


async def test_a_pull_that_cannot_be_is_refused_with_a_name_from_the_group(flow: AsyncFlow) -> None:
    other = part()
    other.add_task_definition("wrong", lambda ctx: ctx.pull("duoble"), dependencies=["double"])
    other.add_task_definition("aside", lambda ctx: ctx.pull("load"))
    flow.add_task_definition("load", returns(100))
    flow.include(other, "with_a_long_prefix", depends_on="load")
    done = await run(flow)
    reasons = {task_id: task.reason for task_id, task in done.tasks.items() if task.reason}
    assert list(reasons) == ["with_a_long_prefix_wrong", "with_a_long_prefix_aside"]
    wrong, aside = reasons.values()
    assert wrong is not None
    assert aside is not None
    assert UnknownTaskError.__name__ in wrong
    assert "mean 'double'" in wrong
    # The group's own, though it cannot be pulled here and the other one could: what a name means does not depend on that.
    assert NotUpstreamError.__name__ in aside
    assert "with_a_long_prefix_load" in aside


async def test_a_subflow_that_came_along_gets_its_params_by_the_names_it_knows(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    child = AsyncFlow("child")
    child.add_task_definition("look", lambda ctx: {key: ctx.params[key] for key in sorted(ctx.params)})
    other = AsyncFlow("other")
    other.add_task_definition("load", returns(1))
    other.add_subflow_definition("sub", child, dependencies=["load"], params=lambda ctx: {"own": ctx.pull("load") + 1})
    other.add_subflow_definition("root", child)
    middle = AsyncFlow("middle")
    middle.add_task_definition("load", returns(10))
    middle.include(other, "a", depends_on="load")
    flow.add_task_definition("start", returns(0))
    flow.include(middle, "x", depends_on="start")
    done = await run(flow, {"user": "alice"})
    assert done.tasks["x_a_sub"].output == {"load": 1, "own": 2, "user": "alice"}
    assert done.tasks["x_a_root"].output == {"load": 10, "user": "alice"}  # as when `middle` itself runs
    assert (await run(middle, {"user": "alice"})).tasks["a_root"].output == {"load": 10, "user": "alice"}
    again = await flow.retry(done.id, "x_a_sub.look")
    assert (again.state, again.tasks["x_a_sub"].output["own"]) == ("success", 2)


# --- maps and branches ---


async def test_a_branch_chooses_by_the_names_it_knows(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    other = AsyncFlow("other")
    other.add_task_definition("decide", lambda ctx: ctx.params["choice"], branch=True)
    for name in ("yes", "no"):
        other.add_task_definition(name, returns(name), dependencies=["decide"])
    middle = AsyncFlow("middle")
    middle.include(other, "a")
    flow.include(other, "x")
    flow.include(middle, "y")
    flow.add_task_definition("more", returns(1), dependencies=["x_decide"])
    done = await run(flow, {"choice": "yes"})
    ended = states_of(done)
    assert ended == {
        **dict.fromkeys(("x_decide", "x_yes", "y_a_decide", "y_a_yes"), "success"),
        **dict.fromkeys(("x_no", "y_a_no", "more"), "skipped"),
    }
    assert done.tasks["x_no"].reason == "branch 'x_decide' did not choose it"
    assert done.tasks["x_decide"].output == "yes"
    assert states_of(await flow.retry(done.id, "x_yes")) == ended  # what it chose is read again from the store
    here = await run(flow, {"choice": ["no", "more", "x_no"]})
    assert (states_of(here)["more"], states_of(here)["x_no"], states_of(here)["x_yes"]) == ("success", "success", "skipped")
    assert BranchError.__name__ in (here.tasks["y_a_decide"].error or "")


async def test_items_of_an_included_map_go_by_its_id_here_and_are_called_by_its_name(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    child = AsyncFlow("child").add_task_definition("inner", lambda ctx: dict(ctx.params))
    other = AsyncFlow("other")
    other.add_task_definition("list", lambda ctx: ["a", "b"])
    other.add_task_definition("factor", returns(3))
    other.add_task_definition("each", lambda ctx: ctx.item * ctx.pull("factor"), map_over="list", dependencies=["factor"])
    other.add_task_definition("stream", lambda ctx: ctx.item + ctx.pull("list")[ctx.map_index], map_over="each")
    other.add_subflow_definition("sub", child, map_over="list", map_key=str, dependencies=["factor"])
    other.add_task_definition("end", lambda ctx: [ctx.pull("each[1]"), ctx.pull("sub[b]")], dependencies=["stream", "sub"])
    flow.add_task_definition("list", returns(None))
    flow.add_task_definition("factor", returns(100))
    flow.include(other, "x", depends_on=["list", "factor"])
    # These are called as others are by their ids here.
    other.add_task_definition("x_list", returns(["wrong"]))
    other.add_task_definition("x_factor", returns(1000))
    flow.include(other, "x", depends_on=["list", "factor"], replace=True)
    done = await run(flow)
    done.raise_for_failure()
    outputs = outputs_of(done)
    assert (outputs["x_each"], outputs["x_stream"]) == (["aaa", "bbb"], ["aaaa", "bbbb"])
    assert done.tasks["x_end"].output == ["bbb", {"factor": 3, "item": "b", "map_index": 1}]
    assert done.tasks["x_sub[a]"].state == "success"
    assert (await flow.retry(done.id, "x_each[0]")).state == "success"


# --- other processes ---


@pytest.mark.parametrize("pulls", [pulls_one_by_name, pulls_function], ids=["by name", "by function"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "there"])
async def test_names_are_the_same_in_another_process(flow: AsyncFlow, pulls: Callable[[Context], Any], elsewhere: bool) -> None:
    other = AsyncFlow("other", executor="process" if elsewhere else None)
    other.add_task_definition("one", one)
    other.add_task_definition("pulls", pulls, dependencies=["one"])
    flow.add_task_definition("one", returns(100))
    flow.include(other, "x", depends_on="one")
    flow.include(other, "y", depends_on="one")
    done = await run(flow)
    assert (done.tasks["x_pulls"].output, done.tasks["y_pulls"].output) == (1, 1)


async def test_what_is_sent_to_another_process_is_found_by_every_name_that_means_it_here(flow: AsyncFlow) -> None:
    asked: list[Any] = []

    async def asks(ctx: Context) -> None:
        there = ContextThere(pickle.loads(pickle.dumps(ctx._scope.snapshot(ctx.task_id))))
        for context in (ctx, there):
            answers: list[Any] = []
            for name in ("load", "x_load", "start", "use", "x_use", "elsewhere"):
                try:
                    answers.append(context.pull(name))
                except FlowError as error:
                    answers.append((type(error).__name__, name in str(error)))
            asked.append(answers)

    other = AsyncFlow("other")
    other.add_task_definition("load", returns(1))
    other.add_task_definition("use", asks, dependencies=["load"])
    flow.add_task_definition("start", returns(10))
    flow.include(other, "x", depends_on="start")
    (await run(flow)).raise_for_failure()
    here, there = asked
    itself = [("NotUpstreamError", True)] * 2
    assert here == [1, 1, 10, *itself, ("UnknownTaskError", True)]
    assert there == [1, 1, ("NotSentError", True), *itself, ("NotSentError", True)]


# --- what holds for a whole flow ---


async def test_texts_go_through_the_hooks_of_both_flows(flow: AsyncFlow) -> None:
    def without(secret: str) -> Callable[[str], str]:
        return lambda text: text.replace(secret, "***")

    mine, theirs = without("mine"), without("theirs")
    other = AsyncFlow("other", redact=theirs)
    other.add_task_definition("fails", fails("mine and theirs"))
    host = AsyncFlow("host", redact=mine)
    host.include(other, "x")
    host.include(other, "y")
    assert (await run(host)).tasks["y_fails"].reason == "RuntimeError: *** and ***"
    assert host.definition.redact.hooks == (theirs, mine)  # type: ignore[union-attr]
    flow.include(other)
    assert flow.definition.redact is theirs
    assert (await run(flow)).tasks["fails"].reason == "RuntimeError: mine and ***"
    built = FlowBuilder("built", redact=mine).include(other, "x").build()
    assert (await run(built)).tasks["x_fails"].reason == "RuntimeError: *** and ***"


async def test_a_hook_that_fails_leaves_nothing_of_a_text_whatever_the_other_does() -> None:
    other = AsyncFlow("other", redact=lambda text: None)  # type: ignore[arg-type, return-value]
    other.add_task_definition("fails", fails("secret"))
    host = AsyncFlow("host", redact=str)
    host.include(other)
    assert "secret" not in ((await run(host)).tasks["fails"].error or "")


def thread_name(ctx: Context) -> str:
    return threading.current_thread().name.partition("_")[0]


def where(ctx: Context) -> bool:
    return threading.current_thread() is threading.main_thread()


async def test_functions_run_where_their_own_flow_said_else_where_this_one_says() -> None:
    inline, silent = AsyncFlow("inline", executor="inline"), AsyncFlow("silent")
    for other in (inline, silent):
        other.add_task_definition("f", where)
        other.add_task_definition("thread", where, executor="thread", timeout=50)
    host = AsyncFlow("host")
    host.include(inline, "i")
    host.include(silent, "s")
    assert outputs_of(await run(host)) == {"i_f": True, "i_thread": False, "s_f": False, "s_thread": False}
    hosting_inline = AsyncFlow("host", executor="inline")
    hosting_inline.include(inline, "i")
    hosting_inline.include(silent, "s")
    assert outputs_of(await run(hosting_inline)) == {"i_f": True, "i_thread": False, "s_f": True, "s_thread": False}
    assert hosting_inline.definition.get("i_f").options.executor is None


async def test_named_executors_come_along_for_tasks_and_for_flows_nested_there() -> None:
    with ThreadPoolExecutor(thread_name_prefix="brought") as pool, ThreadPoolExecutor() as another:
        nested = AsyncFlow("nested").add_task_definition("g", thread_name, executor="mine")
        other = AsyncFlow("other", executors={"mine": pool}).add_task_definition("f", thread_name, executor="mine")
        other.add_subflow_definition("sub", nested)
        host = AsyncFlow("host", executors={"host": another})
        host.include(other, "x")
        host.include(other, "y")
        built = FlowBuilder("built").include(other, "x").build()
        for each in (host, built):
            done = await run(each)
            assert (done.tasks["x_f"].output, done.tasks["x_sub"].output) == ("brought", "brought")
        assert set(host.definition.executors) == {"mine", "host"}
        clashing = AsyncFlow("clashing", executors={"mine": another})
        with pytest.raises(InvalidOptionError, match="mine.*'other' and 'clashing'"):
            clashing.include(other, "x")
        assert not clashing.definition.tasks


def test_an_executor_that_neither_flow_has_is_refused_before_a_run() -> None:
    other = AsyncFlow("other").add_task_definition("f", where, executor="mine")
    host = AsyncFlow("host")
    host.include(other, "x")
    with pytest.raises(UnknownExecutorError):
        host.init_run()


# --- refused ---


def circular() -> AsyncFlow:
    flow = AsyncFlow("circular")
    flow.add_task_definition("a", returns(1), dependencies=["b"])
    return flow.add_task_definition("b", returns(1), dependencies=["a"])


def incomplete() -> AsyncFlow:
    return AsyncFlow("incomplete").add_task_definition("a", returns(1), dependencies=["b"])


def nesting(flow: AsyncFlow) -> AsyncFlow:
    return AsyncFlow("nesting").add_subflow_definition("sub", AsyncFlow("between").add_subflow_definition("deep", flow))


@pytest.mark.parametrize(
    ("refused", "error", "said"),
    [
        (lambda flow: flow.include(part(), "x"), DuplicateTaskError, "x_double"),
        (lambda flow: flow.include(circular(), "y"), CycleError, "circular"),
        (lambda flow: flow.include(incomplete(), "y"), UnknownDependencyError, "incomplete"),
        (lambda flow: flow.include(part(), "y", depends_on=["after"]), CycleError, "y_load"),
        (lambda flow: flow.include(part(), "y", depends_on=["y_double"]), CycleError, "y_load"),
        (lambda flow: flow.include(part(), "y", depends_on=lambda ctx: 1), UnknownDependencyError, "y_load"),
        (lambda flow: flow.include(part(), "y", depends_on=5), InvalidOptionError, "depends_on"),
        (lambda flow: flow.include(nesting(flow), "y"), NestedFlowError, "y_sub.deep"),
        (lambda flow: flow.include(flow, "y"), InvalidOptionError, "another flow"),
        (lambda flow: flow.include(FlowBuilder("part"), "y"), InvalidOptionError, "build"),
        (lambda flow: flow.include(None, "y"), InvalidOptionError, "AsyncFlow"),
        (lambda flow: flow.include(part(), "y."), InvalidNameError, "prefix"),
    ],
)
def test_a_refused_include_leaves_the_flow_as_it_was(refused: Callable[[Any], object], error: type[Exception], said: str) -> None:
    flow = AsyncFlow("flow", redact=str)
    flow.add_task_definition("x_double", returns(1))
    flow.add_task_definition("after", returns(1), dependencies=["y_double"])
    definition = flow.definition

    def whole() -> list[Any]:
        functions = {function: list(task_ids) for function, task_ids in definition._ids_of.items()}
        rest = [definition.redact, definition.says_where]
        return [dict(definition.tasks), dict(definition.rules), functions, dict(definition.executors), *rest]

    before = whole()
    with pytest.raises(error, match=said):
        refused(flow)
    assert whole() == before
    flow.include(part(), "y", depends_on=["x_double"])
    flow.validate()


def test_a_dependency_may_be_declared_after_the_include_that_names_it(flow: AsyncFlow) -> None:
    flow.include(part(), "x", depends_on="later")
    with pytest.raises(UnknownDependencyError):
        flow.validate()
    flow.add_task_definition("later", returns(1))
    flow.validate()


# --- replaced, resumed, retried ---


async def test_the_same_include_again_with_replace_takes_the_place_of_the_first(flow: AsyncFlow) -> None:
    flow.include(part(), "x")
    flow.add_task_definition("end", add(0, "x_double"), dependencies=["x_double"])
    flow.include(part(load=5), "x", replace=True)
    assert list(flow.definition.tasks) == ["x_load", "x_double", "end"]
    assert (await run(flow)).tasks["end"].output == 10


def test_a_replaced_task_s_function_names_it_no_more(flow: AsyncFlow) -> None:
    def old(ctx: Context) -> None: ...

    flow.add_task_definition("x_load", old, trigger_rule="all_done")
    flow.add_task_definition("kept", old)
    flow.include(part(), "x", replace=True)
    flow.add_task_definition("end", returns(1), dependencies=[old])
    assert upstream_of(flow)["end"] == ("kept",)
    assert not flow.definition.rules


async def test_a_task_that_takes_an_included_one_s_place_goes_by_this_flow_s_names(flow: AsyncFlow) -> None:
    flow.add_task_definition("load", returns(100))
    flow.include(part(), "x", depends_on="load")
    flow.add_task_definition("x_double", add(0, "load"), dependencies=["x_load", "load"], replace=True)
    assert (await run(flow)).tasks["x_double"].output == 100


@pytest.mark.parametrize("kind", ["sqlite", "json"])
async def test_an_interrupted_run_with_included_tasks_goes_on_in_another_flow_object(
    kind: str, tmp_path: Path, effects: Effects
) -> None:
    hangs = asyncio.Event()

    def made(is_first: bool) -> AsyncFlow:
        async def then(ctx: Context) -> Any:
            if is_first and ctx.task_id == "y_then":
                hangs.set()
                await asyncio.Event().wait()
            return ctx.pull("load") + 1

        other = AsyncFlow("other").add_task_definition("load", effects.of("load", 1))
        other.add_task_definition("then", then, dependencies=["load"])
        host = AsyncFlow("host", make_store(kind, tmp_path))
        host.include(other, "y", depends_on=host.include(other, "x"))
        return host

    first = made(is_first=True)
    run_id = first.init_run()
    call = asyncio.ensure_future(first.run_until_complete(run_id))
    await asyncio.wait_for(hangs.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    first.store.close()
    second = made(is_first=False)
    done = await second.run_until_complete(run_id)
    assert outputs_of(done) == {"x_load": 1, "x_then": 2, "y_load": 1, "y_then": 2}
    assert effects.log == ["load", "load"]
    again = await second.retry(run_id, "y_load")
    assert (again.state, effects.log) == ("success", ["load"] * 3)
    second.store.close()


async def test_a_run_made_before_an_include_has_another_graph(flow: AsyncFlow) -> None:
    flow.add_task_definition("load", returns(1))
    run_id = flow.init_run()
    flow.include(part(), "x")
    with pytest.raises(GraphChangedError) as caught:
        await flow.run_until_complete(run_id)
    assert list(caught.value.added) == ["x_load", "x_double"]
    done = await flow.run_until_complete(run_id, adopt_graph=True)
    assert outputs_of(done) == {"load": 1, "x_load": 1, "x_double": 2}


async def test_a_flow_that_is_being_driven_may_include_another_for_its_next_runs(flow: AsyncFlow) -> None:
    async def includes(ctx: Context) -> None:
        flow.include(part(), "x")

    flow.add_task_definition("includes", includes)
    assert states_of(await run(flow)) == {"includes": "success"}
    assert list(flow.definition.tasks) == ["includes", "x_load", "x_double"]


# --- the builder ---


async def test_a_builder_includes_as_a_flow_does() -> None:
    builder = (
        FlowBuilder("built")
        .add_task("load", returns(100))
        .include(part(), "x")
        .include(part(), prefix="y", depends_on=["x_double", "load"])
        .include(part(load=4), "y", depends_on=["x_double", "load"], replace=True)
        .add_parallel(["load", "x_load"])
        .with_retry("x_load", 3)
        .add_task("end", add(0, "load", "y_double"), depends_on=["y_double"])
    )
    built = builder.build()
    assert built.definition.get("x_load").retry.max_retries == 3
    assert outputs_of(await run(built)) == {"load": 100, "x_load": 1, "x_double": 2, "y_load": 4, "y_double": 8, "end": 108}
    builder.include(part(), "z")
    assert not built.has_task("z_load")
    with pytest.raises(DuplicateTaskError, match="z_load"):
        builder.include(part(), "z")
