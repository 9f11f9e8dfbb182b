"""Flows inside flows: params in, results out, failures, retries, limits, any depth."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    CycleError,
    FlowBuilder,
    InvalidOptionError,
    NestedFlowError,
    RunFailedError,
    Store,
    TaskFunctionError,
    TaskType,
)
from .conftest import Effects, FakeClock, fails, flaky, outputs_of, returns, run, states_of


def child_of(**tasks: Any) -> AsyncFlow:
    """A flow of independent tasks, given as id=function."""
    child = AsyncFlow("child")
    for task_id, function in tasks.items():
        child.add_task_definition(task_id, function)
    return child


async def test_the_result_is_the_output_of_the_single_last_task(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    child = child_of(first=returns(1))
    child.add_task_definition("last", lambda ctx: ctx.pull("first") + 1, dependencies=["first"])
    flow.add_subflow_definition(subflow_id="sub", child_flow=child)
    flow.add_task_definition("after", lambda ctx: ctx.pull_output("sub"), dependencies=["sub"])
    done = await run(flow)
    task = store.load(done.id).tasks["sub"]
    assert task.type is TaskType.FLOW
    assert task.output_json == {"child_run_id": task.child_run_id, "result": 2}
    assert (task.output, done.tasks["after"].output_json) == (2, 2)
    assert store.list_children(done.id) == [task.child_run_id]
    assert task.child_run_id is not None
    inner = store.load(task.child_run_id)
    assert (inner.flow_name, inner.parent_run_id, inner.parent_task_id, inner.state) == ("child", done.id, "sub", "success")


async def test_the_result_of_several_last_tasks_is_a_dict_by_id(flow: AsyncFlow) -> None:
    flow.add_subflow_definition("sub", child_of(a=returns(1), b=returns((2,))))
    flow.add_subflow_definition("empty", AsyncFlow("empty_child"))
    done = await run(flow)
    assert done.tasks["sub"].output == {"a": 1, "b": (2,)}
    assert (done.tasks["empty"].state, done.tasks["empty"].output) == ("success", {})


async def test_params_come_from_the_parent_then_the_dependencies_then_its_own(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    flow.add_task_definition("extract", returns([1]))
    flow.add_task_definition("none", returns(None))
    flow.add_task_definition("elsewhere", returns("not passed"))
    child = child_of(look=lambda ctx: dict(ctx.params))
    flow.add_subflow_definition("sub", child, dependencies=["extract", "none"], params={"limit": 3, "mode": "own"})
    flow.add_subflow_definition("made", child, dependencies=["extract"], params=lambda ctx: {"n": len(ctx.pull("extract"))})
    done = await run(flow, {"user": "alice", "mode": "parent", "extract": "hidden"})
    expected = {"user": "alice", "mode": "own", "extract": [1], "none": None, "limit": 3}
    assert done.tasks["sub"].output == expected
    assert done.tasks["sub"].input_json == expected
    assert done.tasks["made"].output == {"user": "alice", "mode": "parent", "extract": [1], "n": 1}


async def test_a_childs_changes_to_params_stay_in_the_child(flow: AsyncFlow) -> None:
    async def changes(ctx: Context) -> None:
        ctx.params["user"] = "bob"

    flow.add_subflow_definition("sub", child_of(changes=changes))
    assert (await run(flow, {"user": "alice"})).params == {"user": "alice"}


@pytest.mark.parametrize("params", [lambda ctx: 1 / 0, lambda ctx: [1], lambda ctx: {"x": object()}, {"x": object()}])
async def test_params_that_cannot_be_made_fail_the_subflow(flow: AsyncFlow, params: Any) -> None:
    flow.add_subflow_definition("sub", child_of(only=returns(1)), params=params)
    done = await run(flow)
    assert states_of(done) == {"sub": "failed"}
    assert done.tasks["sub"].error
    assert flow.store.list_children(done.id) == []


async def test_a_failure_inside_fails_the_subflow_and_names_the_cause(flow: AsyncFlow) -> None:
    child = child_of(bad=fails("inner trouble"), fine=returns(1))
    flow.add_subflow_definition("sub", child)
    flow.add_task_definition("after", returns(1), dependencies=["sub"])
    done = await run(flow)
    assert states_of(done) == {"sub": "failed", "after": "skipped"}
    reason = done.tasks["sub"].reason
    assert reason is not None
    assert reason == "SubflowFailed: sub.bad: RuntimeError: inner trouble"


async def test_every_failure_inside_is_named_by_the_path_that_a_retry_takes(store: Store) -> None:
    inner = child_of(leaf=fails("deep"), fine=returns(1))
    middle = child_of(a=fails("one"), b=fails("two")).add_subflow_definition("inner", inner)
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", middle)
    done = await run(flow)
    with pytest.raises(RunFailedError) as caught:
        done.raise_for_failure()
    for path, cause in (("sub.a", "one"), ("sub.b", "two"), ("sub.inner.leaf", "deep")):
        assert f"{path}: RuntimeError: {cause}" in str(caught.value)
        assert f"{path}: RuntimeError: {cause}" in (done.tasks["sub"].error or "")


async def test_the_decorator_takes_a_factory(flow: AsyncFlow) -> None:
    handed: list[Any] = []

    @flow.subflow("sub", params={"x": 1})
    def make(nothing: None) -> AsyncFlow:
        handed.append(nothing)
        return child_of(only=lambda ctx: ctx.params["x"])

    @flow.task(depends_on=[make])
    async def after(ctx: Context) -> Any:
        return ctx.pull("sub")

    assert handed == [None]
    assert outputs_of(await run(flow))["after"] == 1


def test_a_factory_that_returns_no_flow_is_refused(flow: AsyncFlow) -> None:
    with pytest.raises(TaskFunctionError, match="must return the nested AsyncFlow"):
        flow.subflow("sub")(lambda ctx: 1)
    with pytest.raises(InvalidOptionError, match="child_flow"):
        flow.add_subflow_definition("sub", "child")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="params"):
        flow.add_subflow_definition("sub", AsyncFlow("c"), params=3)  # type: ignore[arg-type]
    assert not flow.has_task("sub")


def test_a_flow_nested_in_itself_is_refused(flow: AsyncFlow) -> None:
    inner, outer = AsyncFlow("inner"), AsyncFlow("outer")
    with pytest.raises(NestedFlowError):
        inner.add_subflow_definition("me", inner)
    outer.add_subflow_definition("in", inner)
    with pytest.raises(NestedFlowError) as caught:
        inner.add_subflow_definition("back", outer)
    assert caught.value.path == ("back", "in")
    assert not inner.has_task("back")


def test_a_childs_unsound_graph_is_refused_before_a_run_exists(flow: AsyncFlow) -> None:
    child = AsyncFlow("child")
    child.add_task_definition("a", returns(1), dependencies=["b"])
    child.add_task_definition("b", returns(1), dependencies=["a"])
    flow.add_subflow_definition("sub", child)
    with pytest.raises(CycleError, match="'child'"):
        flow.init_run()
    assert flow.store.list_runs() == []


def nested(depth: int, leaf: Any) -> AsyncFlow:
    """A flow `level0` with a subflow `sub` with a subflow `sub` ... and the task `leaf` in the innermost."""
    flow = AsyncFlow(f"level{depth}")
    flow.add_task_definition("leaf", leaf)
    for level in range(depth - 1, -1, -1):
        outer = AsyncFlow(f"level{level}")
        outer.add_subflow_definition("sub", flow)
        flow = outer
    return flow


@pytest.mark.parametrize("depth", [3, 60])
async def test_subflows_nest_deep_even_with_one_slot(store: Store, depth: int) -> None:
    flow = nested(depth, lambda ctx: ctx.params["user"])
    flow.store = store
    done = await asyncio.wait_for(run(flow, {"user": "alice"}, max_concurrency=1), 60)
    assert (done.state, done.tasks["sub"].output) == ("success", "alice")
    everything = done.get_all_tasks_recursive(store)
    assert list(everything)[:2] == ["sub", "sub.sub"]
    assert len(everything) == depth + 1
    assert everything["sub." * depth + "leaf"].output_json == "alice"


async def test_one_limit_governs_the_whole_tree(flow: AsyncFlow) -> None:
    inside = most = 0

    async def task(ctx: Context) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(3):
            await asyncio.sleep(0)
        inside -= 1

    for number in range(4):
        flow.add_subflow_definition(f"sub{number}", child_of(a=task, b=task, c=task))
        flow.add_task_definition(f"task{number}", task)
    assert (await run(flow, max_concurrency=2)).state == "success"
    assert most == 2


async def test_one_flow_serves_as_two_independent_subflows(flow: AsyncFlow) -> None:
    child = child_of(only=lambda ctx: ctx.params["n"])
    flow.add_subflow_definition("one", child, params={"n": 1})
    flow.add_subflow_definition("two", child, params={"n": 2})
    done = await run(flow)
    assert (done.tasks["one"].output, done.tasks["two"].output) == (1, 2)
    assert done.tasks["one"].child_run_id != done.tasks["two"].child_run_id


async def test_a_subflows_automatic_retry_goes_on_with_what_failed_inside(
    flow: AsyncFlow, clock: FakeClock, effects: Effects
) -> None:
    child = child_of(fine=effects.of("fine", 1), shaky=flaky(2, "mended"))
    flow.add_subflow_definition("sub", child, max_retries=2, retry_delay=5)
    done = await run(flow)
    assert (done.tasks["sub"].state, done.tasks["sub"].try_number) == ("success", 2)
    assert done.tasks["sub"].output == {"fine": 1, "shaky": "mended"}
    assert (effects.log, clock.slept) == (["fine"], [5, 5])
    assert len(flow.store.list_children(done.id)) == 1


async def test_a_dotted_path_retries_inside_and_carries_the_result_up(store: Store, effects: Effects) -> None:
    broken = True

    async def leaf(ctx: Context) -> str:
        effects.log.append("leaf")
        if broken:
            raise RuntimeError("broken")
        return "mended"

    inner = child_of(leaf=leaf, beside=effects.of("beside", 1))
    inner.add_task_definition("last", lambda ctx: ctx.pull("leaf"), dependencies=["leaf", "beside"])
    middle = AsyncFlow("middle").add_subflow_definition("inner", inner)
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", middle)
    flow.add_task_definition("after", lambda ctx: ctx.pull("sub"), dependencies=["sub"])
    failed = await run(flow)
    assert failed.state == "failed"
    child_run_id = failed.tasks["sub"].child_run_id
    broken = False
    effects.log.clear()
    done = await flow.retry(failed.id, "sub.inner.leaf")
    assert (done.state, done.tasks["after"].output_json, effects.log) == ("success", "mended", ["leaf"])
    assert done.tasks["sub"].child_run_id == child_run_id
    assert {path: task.state.value for path, task in done.get_all_tasks_recursive(store).items()} == dict.fromkeys(
        ("sub", "sub.inner", "sub.inner.leaf", "sub.inner.beside", "sub.inner.last", "after"), "success"
    )


async def test_a_dotted_path_into_a_success_runs_only_that_again(store: Store, effects: Effects) -> None:
    child = child_of(a=effects.of("a", 1), b=effects.of("b", 2))
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", child)
    flow.add_task_definition("after", effects.of("after"), dependencies=["sub"])
    done = await run(flow)
    effects.log.clear()
    again = await flow.retry(done.id, "sub.a")
    assert (again.state, effects.log) == ("success", ["a", "after"])
    assert again.tasks["sub"].child_run_id == done.tasks["sub"].child_run_id


async def test_retrying_a_failed_subflow_goes_on_with_what_failed_inside(store: Store, effects: Effects) -> None:
    child = child_of(fine=effects.of("fine", 1), shaky=flaky(1, 2))
    child.add_task_definition("last", effects.of("last", 3), dependencies=["fine", "shaky"])
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", child)
    failed = await run(flow)
    assert failed.state == "failed"
    done = await flow.retry(failed.id, "sub")
    assert (done.state, effects.log) == ("success", ["fine", "last"])
    assert len(store.list_children(done.id)) == 1


async def test_a_child_that_was_mended_on_its_own_only_gives_its_result(store: Store, effects: Effects) -> None:
    child = child_of(shaky=flaky(1, "mended"))
    child.store = store
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", child)
    flow.add_task_definition("after", lambda ctx: ctx.pull("sub"), dependencies=["sub"])
    failed = await run(flow)
    child_run_id = failed.tasks["sub"].child_run_id
    assert child_run_id is not None
    assert (await child.retry(child_run_id, "shaky")).state == "success"
    assert store.load(failed.id).state == "failed", "the parent takes it up when it is retried, not before"
    attempts = len(store.list_attempts(child_run_id))
    done = await flow.retry(failed.id, "sub")
    assert (done.state, done.tasks["after"].output_json) == ("success", "mended")
    assert len(store.list_attempts(child_run_id)) == attempts


async def test_retrying_a_subflow_that_succeeded_starts_it_afresh(store: Store, effects: Effects) -> None:
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", child_of(a=effects.of("a", 1)))
    done = await run(flow)
    again = await flow.retry(done.id, "sub")
    assert (again.state, effects.log) == ("success", ["a", "a"])
    assert again.tasks["sub"].child_run_id != done.tasks["sub"].child_run_id
    assert len(store.list_children(done.id)) == 2


async def test_a_subflow_downstream_of_a_retried_task_starts_afresh_with_new_params(store: Store) -> None:
    number = 0

    async def source(ctx: Context) -> int:
        nonlocal number
        number += 1
        return number

    flow = AsyncFlow("outer", store).add_task_definition("source", source)
    flow.add_subflow_definition("sub", child_of(a=lambda ctx: ctx.params["source"]), dependencies=["source"])
    done = await run(flow)
    again = await flow.retry(done.id, "source")
    assert (done.tasks["sub"].output, again.tasks["sub"].output) == (1, 2)
    assert again.tasks["sub"].input_json == {"source": 2}


async def test_details_hold_markup_of_users_as_the_plain_data_it_is(store: Store) -> None:
    """It is JSON, not a page: whoever makes one of it has the text as it was, to escape as the page needs."""
    evil = "<script>alert(1)</script>&\"'"
    flow = AsyncFlow(evil, store)

    @flow.task("<b>1<b>", description=evil)
    def fails(ctx: Context) -> None:
        ctx.log(evil)
        raise ValueError(evil)

    done = await run(flow, {evil: evil})
    details = json.loads(json.dumps(flow.get_execution_details(done.id)))
    task = details["tasks"]["<b>1<b>"]
    assert (details["flow_name"], details["params"], task["description"]) == (evil, {evil: evil}, evil)
    assert (task["reason"], task["attempts"][0]["logs"][0]["message"]) == (f"ValueError: {evil}", evil)


async def test_details_nest_subflows_and_are_json(store: Store) -> None:
    flow = AsyncFlow("outer", store)

    @flow.task(max_retries=1, retry_delay=2, description="said")
    def extract(ctx: Context) -> Any:
        """Not used, since a description was given."""
        return {1: {2}}

    @flow.task(depends_on=[extract])
    def bad(ctx: Context) -> None:
        """First line.

        Second line.
        """
        ctx.log("about to fail")
        raise ValueError("x")

    flow.add_subflow_definition("sub", child_of(a=returns(1)), dependencies=["extract"], name="The sub")
    flow.add_subflow_definition("never", child_of(a=returns(1)), dependencies=["bad"])
    done = await run(flow)
    details = json.loads(json.dumps(flow.get_execution_details(done.id)))
    assert (details["run_id"], details["state"], details["params"]) == (done.id, "failed", {})
    extracted, failed, sub, never = (details["tasks"][name] for name in ("extract", "bad", "sub", "never"))
    assert (extracted["max_retries"], extracted["retry_delay"], extracted["description"]) == (1, 2.0, "said")
    assert extracted["depends_on"] == []
    assert (failed["description"], failed["reason"], failed["attempts"][0]["result"]) == (
        "First line.",
        "ValueError: x",
        "failed",
    )
    assert failed["attempts"][0]["logs"][0]["message"] == "about to fail"
    assert (sub["name"], sub["type"], sub["child_run_id"]) == ("The sub", "flow", done.tasks["sub"].child_run_id)
    assert sub["subflow"]["tasks"]["a"]["output"] == 1
    assert (never["state"], never["subflow"]["state"], never["subflow"]["run_id"]) == ("skipped", "none", None)
    assert never["subflow"]["tasks"]["a"]["state"] == "none"


async def test_the_builder_adds_subflows(effects: Effects) -> None:
    flow = (
        FlowBuilder("outer")
        .add_task("first", effects.of("first", 1))
        .add_subflow("sub", child_of(a=lambda ctx: ctx.params["first"]), depends_on=["first"], max_retries=1, params={"x": 1})
        .build()
    )
    assert (await run(flow)).tasks["sub"].output == 1


async def test_what_failed_in_a_subflow_of_a_subflow_is_tried_again_from_the_outside(store: Store, effects: Effects) -> None:
    inner = child_of(shaky=flaky(1, "mended"), fine=effects.of("fine", 1))
    middle = AsyncFlow("middle").add_subflow_definition("inner", inner)
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", middle)
    failed = await run(flow)
    assert failed.state == "failed"
    again = AsyncFlow("outer", store).add_subflow_definition("sub", middle)
    done = await again.retry(failed.id, "sub")
    assert (done.state, done.tasks["sub"].output, effects.log) == ("success", {"shaky": "mended", "fine": 1}, ["fine"])


async def test_a_params_function_runs_where_a_function_would_and_may_do_what_a_task_may(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    flow.add_task_definition("first", returns(1))

    def make(ctx: Context) -> dict[str, Any]:
        ctx.params["noted"] = True
        return {"first": ctx.pull("first") + 1, "in_loop": threading.current_thread() is threading.main_thread()}

    flow.add_subflow_definition("sub", child_of(look=lambda ctx: dict(ctx.params)), dependencies=["first"], params=make)
    done = await run(flow, max_concurrency=1)
    assert done.tasks["sub"].output == {"noted": True, "first": 2, "in_loop": False}
    assert done.params == {"noted": True}


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), GeneratorExit(), StopIteration()])
async def test_whatever_a_params_function_raises_fails_the_subflow_alone(flow: AsyncFlow, error: BaseException) -> None:
    def make(ctx: Context) -> dict[str, Any]:
        raise error

    flow.add_task_definition("first", returns(1))
    flow.add_subflow_definition("sub", child_of(a=returns(1)), dependencies=["first"], params=make)
    assert states_of(await asyncio.wait_for(run(flow), 30)) == {"first": "success", "sub": "failed"}


def test_a_coroutine_function_cannot_make_params(flow: AsyncFlow) -> None:
    async def make(ctx: Context) -> dict[str, Any]:
        return {}

    with pytest.raises(InvalidOptionError, match="plain function"):
        flow.add_subflow_definition("sub", child_of(a=returns(1)), params=make)  # type: ignore[arg-type]


async def test_a_nested_flow_that_is_made_unsound_while_the_run_goes_on_fails_its_subflow(flow: AsyncFlow) -> None:
    child = child_of(a=returns(1))

    @flow.task
    async def spoils(ctx: Context) -> None:
        child.add_task_definition("b", returns(1), dependencies=["missing"])

    flow.add_subflow_definition("sub", child, dependencies=["spoils"])
    done = await run(flow)
    assert states_of(done) == {"spoils": "success", "sub": "failed"}
    assert "'missing'" in (done.tasks["sub"].reason or "")
