"""What a FlowBuilder builds says the same of its tasks as decorators do, and all ways of declaring offer the same options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from .. import AsyncFlow, Context, DuplicateTaskError, FlowBuilder, RetryPolicy, UnknownPoolError
from .conftest import FakeClock, outputs_of, returns, run

# --- the same options everywhere ---


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """What may be said by name, with what holds if it is not. What the one calls `dependencies` is `depends_on` to the others."""
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return {("depends_on" if name == "dependencies" else name): default for name, default in options.items()}


@pytest.mark.parametrize("function", [AsyncFlow.task, FlowBuilder.add_task], ids=["decorator", "builder"])
def test_a_task_has_the_same_options_however_it_is_declared(function: Callable[..., Any]) -> None:
    assert options_of(function) == options_of(AsyncFlow.add_task_definition)


@pytest.mark.parametrize("function", [AsyncFlow.subflow, FlowBuilder.add_subflow], ids=["decorator", "builder"])
def test_a_subflow_has_the_same_options_however_it_is_declared(function: Callable[..., Any]) -> None:
    assert options_of(function) == options_of(AsyncFlow.add_subflow_definition)


def test_a_subflow_has_the_options_of_a_task_but_for_those_of_a_function_that_runs_somewhere() -> None:
    task, subflow = options_of(AsyncFlow.add_task_definition), options_of(AsyncFlow.add_subflow_definition)
    ours = {"timeout", "heartbeat_timeout", "executor", "pool", "pool_weight", "priority", "branch", "task_type"}
    assert {**{name: default for name, default in task.items() if name not in ours}, "params": None} == subflow


def test_a_builder_makes_a_flow_with_the_same_options_as_the_flow_itself() -> None:
    assert options_of(FlowBuilder.__init__) == options_of(AsyncFlow.__init__)
    assert options_of(FlowBuilder.include) == options_of(AsyncFlow.include)


def test_the_comparison_of_options_sees_names_and_defaults() -> None:
    def one(a: int, *, dependencies: None = None, b: int = 1) -> None: ...

    def other(*, b: int = 1, depends_on: None = None) -> None: ...

    def another_default(*, b: int = 2, depends_on: None = None) -> None: ...

    assert options_of(one) == options_of(other) == {"depends_on": None, "b": 1}
    assert options_of(one) != options_of(another_default)


def said_of(flow: AsyncFlow) -> Mapping[str, Any]:
    """All that a flow says of its tasks, but for what it makes of that, and the factories of decorated subflows."""
    tasks = flow.definition.tasks
    return {task_id: (replace(task, called=None, factory=None), type(task.called)) for task_id, task in tasks.items()}


def test_what_is_said_arrives_however_it_is_said() -> None:
    """Each option with a value that is not the usual one."""

    def answer(ctx: Context) -> bool:
        return True

    function, child, policy = returns(1), AsyncFlow("child"), RetryPolicy(2, backoff=2)
    mapped = {"retry": policy, "map_over": "first", "map_key": str, "max_map_size": 10}
    somewhere = {"timeout": 5, "heartbeat_timeout": 1, "executor": "inline", "pool": "builder", "pool_weight": 2}
    both = {
        "depends_on": ["first"],
        "max_interruptions": 3,
        "on_interrupt": "fail",
        "retry": None,
        "trigger_rule": "all_done",
        "run_if": answer,
        "name": "A name",
        "description": "What it does.",
    }
    said: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (
            {**both, "max_retries": 1, "retry_delay": 2, "task_type": "task", "branch": True, "priority": 7},
            {**both, "max_retries": 1, "retry_delay": 2, "params": {"a": 1}},
        ),
        ({**mapped, **somewhere}, mapped),
    ]
    told = {name for task, _ in said for name in task}
    assert told == set(options_of(AsyncFlow.add_task_definition)) - {"replace"}
    for task, subflow in said:
        by_name, decorated = AsyncFlow("f"), AsyncFlow("f")
        builder = FlowBuilder("f", pools={"builder": 2})
        for flow in (by_name, decorated):
            flow.add_task_definition("first", function)
        decorated.task("t", **task)(function)
        decorated.subflow("s", **subflow)(lambda _: child)
        built = builder.add_task("first", function).add_task("t", function, **task).add_subflow("s", child, **subflow).build()
        for options in (task, subflow):
            if "depends_on" in options:
                options["dependencies"] = options.pop("depends_on")
        by_name.add_task_definition("t", function, **task).add_subflow_definition("s", child, **subflow)
        assert said_of(decorated) == said_of(by_name) == said_of(built)


async def test_a_builder_may_give_a_task_another_definition() -> None:
    child = AsyncFlow("child").add_task_definition("inner", returns(3))
    builder = FlowBuilder("f").add_task("a", returns(1)).add_task("b", returns(1))
    with pytest.raises(DuplicateTaskError):
        builder.add_task("a", returns(2))
    builder.add_task("a", returns(2), replace=True).add_subflow("b", child, replace=True)
    done = await run(builder.build())
    assert (done.tasks["a"].output, done.tasks["b"].output) == (2, 3)


async def test_a_built_flow_has_the_clock_and_ids_that_its_builder_was_given(clock: FakeClock) -> None:
    built = FlowBuilder("f", clock=clock, make_id=lambda: "the only id").add_task("a", returns(1)).build()
    assert built.init_run() == "the only id"
    assert outputs_of(await built.run_until_complete("the only id")) == {"a": 1}
    assert built._clock is clock


# --- of the flow ---


def test_options_of_tasks_and_of_the_flow_reach_what_is_built() -> None:
    with ThreadPoolExecutor() as pool:
        given = {"executor": "inline", "executors": {"mine": pool}, "pools": {"builder": 2}, "max_threads": 3, "grace_period": 1}
        policy = RetryPolicy(max_retries=2, backoff=2)
        said = {"timeout": 5, "heartbeat_timeout": 1, "pool": "builder", "pool_weight": 2, "priority": 7, "retry": policy}
        built = FlowBuilder("f", **given).add_task("a", lambda ctx: 1, **said).build()  # type: ignore[arg-type]
        plain = AsyncFlow("f", **given).add_task_definition("a", lambda ctx: 1, **said)  # type: ignore[arg-type]
    assert built._capacities == plain._capacities
    assert (built.definition.executor, built.definition.executors) == ("inline", {"mine": pool})
    mine, theirs = built.definition.tasks["a"], plain.definition.tasks["a"]
    assert (mine.options, mine.retry) == (theirs.options, theirs.retry)
    details = built.get_execution_details(built.init_run())["tasks"]["a"]
    assert {key: details[key] for key in ("timeout", "heartbeat_timeout", "executor", "pool", "pool_weight", "priority")} == {
        "timeout": 5.0,
        "heartbeat_timeout": 1.0,
        "executor": None,
        "pool": "builder",
        "pool_weight": 2,
        "priority": 7,
    }
    assert details["retry"] == {
        "max_retries": 2,
        "delay": 0.0,
        "backoff": 2.0,
        "max_delay": None,
        "jitter": 0.0,
        "retry_on": None,
        "give_up_on": [],
    }


def test_what_is_built_is_checked_for_where_its_tasks_are_to_run() -> None:
    with pytest.raises(UnknownPoolError):
        FlowBuilder("f").add_task("a", lambda ctx: 1, pool="there is none").build()


async def test_a_built_flow_runs_where_it_was_told() -> None:
    with ThreadPoolExecutor(thread_name_prefix="brought") as pool:
        flow = FlowBuilder("f", executors={"mine": pool}).add_task("a", returns(1)).build()
        assert (await run(flow)).state == "success"
