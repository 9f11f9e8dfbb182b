"""Tasks one after another: order, what flows between them, and what a run shares."""

from __future__ import annotations

from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    CycleError,
    FlowBuilder,
    InvalidOptionError,
    NotUpstreamError,
    RunExistsError,
    RunMismatchError,
    RunningLoopError,
    RunNotFoundError,
    Store,
    UnknownDependencyError,
    UnknownTaskError,
    UnstorableValueError,
)
from .conftest import Effects, outputs_of, returns, run, states_of


def chain(flow: AsyncFlow, effects: Effects, *task_ids: str) -> AsyncFlow:
    """Tasks that note themselves, each depending on the one before."""
    for before, task_id in zip((None, *task_ids), task_ids):
        flow.add_task_definition(task_id, effects.of(task_id, task_id), dependencies=[before] if before else None)
    return flow


async def test_tasks_run_in_the_order_of_their_dependencies(flow: AsyncFlow, effects: Effects) -> None:
    flow.add_task_definition("load", effects.of("load"), dependencies=["transform"])
    flow.add_task_definition("transform", effects.of("transform"), dependencies=["extract"])
    flow.add_task_definition("extract", effects.of("extract"))
    assert (await run(flow)).state == "success"
    assert effects.log == ["extract", "transform", "load"]


async def test_an_output_is_pulled_downstream(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    flow.add_task_definition("extract", returns([1, 2, 3]))

    @flow.task("transform", depends_on=["extract"])
    async def transform(ctx: Context) -> list[int]:
        return [number * 2 for number in ctx.pull_output("extract")]

    @flow.task("load", depends_on=["transform"])
    def load(ctx: Context) -> int:
        return sum(ctx.pull("transform"))

    assert outputs_of(await run(flow)) == {"extract": [1, 2, 3], "transform": [2, 4, 6], "load": 12}


async def test_dependencies_may_be_the_decorated_functions(flow: AsyncFlow, effects: Effects) -> None:
    @flow.task
    async def extract(ctx: Context) -> int:
        return 1

    @flow.task(depends_on=[extract])
    async def transform(ctx: Context) -> Any:
        return ctx.pull("extract")

    @flow.task(depends_on=transform)
    async def load(ctx: Context) -> Any:
        return ctx.pull("transform")

    assert flow.definition.get("load").depends_on == ("transform",)
    assert outputs_of(await run(flow))["load"] == 1


async def test_any_ancestor_may_be_pulled(flow: AsyncFlow, effects: Effects) -> None:
    chain(flow, effects, "a", "b", "c")
    flow.add_task_definition("d", lambda ctx: ctx.pull("a"), dependencies=["c"])
    assert outputs_of(await run(flow))["d"] == "a"


async def test_pulling_what_is_not_upstream_fails_the_task_and_says_so(flow: AsyncFlow) -> None:
    flow.add_task_definition("beside", returns(1))
    flow.add_task_definition("only", lambda ctx: ctx.pull("beside"))
    task = (await run(flow)).tasks["only"]
    assert task.reason is not None
    assert NotUpstreamError.__name__ in task.reason
    assert "Add 'beside' to its depends_on" in task.reason


async def test_pulling_an_unknown_id_fails_the_task_with_a_suggestion(flow: AsyncFlow) -> None:
    flow.add_task_definition("extract", returns(1))
    flow.add_task_definition("load", lambda ctx: ctx.pull("extrakt"), dependencies=["extract"])
    task = (await run(flow)).tasks["load"]
    assert task.reason is not None
    assert UnknownTaskError.__name__ in task.reason
    assert "Did you mean 'extract'?" in task.reason


async def test_what_is_pulled_is_the_pullers_own(flow: AsyncFlow) -> None:
    flow.add_task_definition("rows", returns([[1]]))

    @flow.task(depends_on=["rows"])
    async def spoils(ctx: Context) -> None:
        ctx.pull("rows")[0].append("spoiled")

    @flow.task(depends_on=["rows", "spoils"])
    async def reads(ctx: Context) -> Any:
        return ctx.pull("rows")

    done = await run(flow)
    assert outputs_of(done) == {"rows": [[1]], "spoils": None, "reads": [[1]]}


async def test_an_output_is_taken_when_it_is_returned(flow: AsyncFlow) -> None:
    kept: list[int] = [1]
    flow.add_task_definition("gives", lambda ctx: kept)

    @flow.task(depends_on=["gives"])
    async def reads(ctx: Context) -> Any:
        kept.append(2)
        return ctx.pull("gives")

    assert outputs_of(await run(flow)) == {"gives": [1], "reads": [1]}


async def test_a_change_of_params_is_seen_by_later_tasks_and_saved(flow: AsyncFlow, store: Store) -> None:
    flow.store = store

    @flow.task
    async def writes(ctx: Context) -> None:
        ctx.params["seen"] = ["a"]
        ctx.params["seen"].append("b")
        del ctx.params["old"]
        assert ctx.run.params is ctx.params

    @flow.task(depends_on=[writes])
    def reads(ctx: Context) -> Any:
        return dict(ctx.params)

    done = await run(flow, {"user": "alice", "old": 1})
    assert done.tasks["reads"].output_json == {"user": "alice", "seen": ["a", "b"]}
    assert done.params == store.load(done.id).params == {"user": "alice", "seen": ["a", "b"]}


async def test_params_changed_side_by_side_do_not_undo_each_other(flow: AsyncFlow) -> None:
    def sets(name: str) -> Any:
        async def task(ctx: Context) -> None:
            ctx.params[name] = True

        return task

    for name in ("a", "b", "c"):
        flow.add_task_definition(name, sets(name))
    assert (await run(flow, {"x": 0})).params == {"x": 0, "a": True, "b": True, "c": True}


async def test_the_callers_params_are_not_touched(flow: AsyncFlow) -> None:
    mine = {"rows": [1]}

    @flow.task
    async def only(ctx: Context) -> None:
        ctx.params["rows"].append(2)

    done = await run(flow, mine)
    assert (mine, done.params) == ({"rows": [1]}, {"rows": [1, 2]})


@pytest.mark.parametrize("params", [[1], "x", {1: 2}])
def test_params_that_are_no_mapping_from_names_are_refused(flow: AsyncFlow, params: Any) -> None:
    with pytest.raises(InvalidOptionError, match="params"):
        flow.init_run(params)
    assert flow.store.list_runs() == []


def test_a_param_that_cannot_be_stored_is_named(flow: AsyncFlow) -> None:
    with pytest.raises(UnstorableValueError, match=r'params\["connection"\]'):
        flow.init_run({"ok": 1, "connection": object()})
    assert flow.store.list_runs() == []


async def test_a_param_that_a_task_makes_unstorable_fails_that_task(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> None:
        ctx.params["handle"] = object()

    done = await run(flow, {"x": 1})
    assert done.params == {"x": 1}
    assert done.tasks["only"].reason is not None
    assert 'params["handle"]' in done.tasks["only"].reason


def test_an_unknown_dependency_is_refused_before_a_run_exists(flow: AsyncFlow) -> None:
    flow.add_task_definition("extract", returns(1))
    flow.add_task_definition("load", returns(1), dependencies=["extarct"])
    with pytest.raises(UnknownDependencyError, match="Did you mean 'extract'?") as caught:
        flow.init_run()
    assert (caught.value.task_id, caught.value.dependency, caught.value.suggestion) == ("load", "extarct", "extract")
    assert flow.store.list_runs() == []


def test_a_cycle_is_refused_with_its_path(flow: AsyncFlow) -> None:
    for task_id, dependency in (("a", "b"), ("b", "c"), ("c", "a")):
        flow.add_task_definition(task_id, returns(1), dependencies=[dependency])
    with pytest.raises(CycleError, match="a -> b -> c -> a"):
        flow.init_run()


def test_the_builder_makes_the_same_flow(effects: Effects) -> None:
    flow = (
        FlowBuilder("built")
        .add_task("extract", effects.of("extract", 1))
        .add_task("transform", effects.of("transform", 2), depends_on=["extract"])
        .with_retry("extract", max_retries=3, delay=0.5)
        .build()
    )
    assert flow.definition.get("extract").retry.max_retries == 3
    assert flow.definition.get("extract").retry.delay == 0.5
    assert states_of(flow.run()) == {"extract": "success", "transform": "success"}
    assert effects.log == ["extract", "transform"]


def test_the_same_run_id_again_is_the_same_run(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    flow.add_task_definition("only", returns(1))
    assert flow.init_run({"day": 1}, run_id="nightly") == "nightly"
    assert flow.init_run({"day": 2}, run_id="nightly") == "nightly"
    assert store.load("nightly").params == {"day": 1}
    assert store.list_runs() == ["nightly"]


async def test_a_run_id_of_another_flow_is_refused(flow: AsyncFlow) -> None:
    other = AsyncFlow("other", flow.store)
    other.init_run(run_id="nightly")
    with pytest.raises(RunExistsError, match="belongs to flow 'other'"):
        flow.init_run(run_id="nightly")
    with pytest.raises(RunMismatchError, match="'other'"):
        await flow.run_until_complete("nightly")


async def test_an_unknown_run_is_a_key_error_that_says_so(flow: AsyncFlow) -> None:
    with pytest.raises(RunNotFoundError, match="no run 'nope'") as caught:
        await flow.run_until_complete("nope")
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("limit", [-1, 1.5, "2", True])
async def test_a_concurrency_limit_that_makes_no_sense_is_refused(flow: AsyncFlow, limit: Any) -> None:
    with pytest.raises(InvalidOptionError, match="max_concurrency"):
        await flow.run_until_complete(flow.init_run(), limit)


async def test_the_blocking_call_is_refused_inside_a_running_loop(flow: AsyncFlow) -> None:
    with pytest.raises(RunningLoopError, match="await flow.run_until_complete"):
        flow.run()
    assert flow.store.list_runs() == []


async def test_a_chain_of_five_hundred_runs_through(flow: AsyncFlow, effects: Effects) -> None:
    ids = [f"t{number}" for number in range(500)]
    done = await run(chain(flow, effects, *ids))
    assert done.state == "success"
    assert effects.log == ids
