"""One task, alone: what it returns, pushes, raises and leaves behind."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from datetime import timezone
from functools import partial

import pytest

from .. import (
    AsyncFlow,
    Context,
    DuplicateTaskError,
    ExecutionState,
    InvalidNameError,
    InvalidOptionError,
    MemoryStore,
    RunFailedError,
    Store,
    TaskFunctionError,
    TaskType,
)
from .conftest import fails, outputs_of, returns, run, states_of


async def test_a_coroutine_function_runs_and_its_return_value_is_the_output(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", returns({"a": 1}))
    done = await run(flow)
    assert done.state == "success"
    assert done.tasks["only"].state is ExecutionState.SUCCESS
    assert done.tasks["only"].output_json == {"a": 1}


async def test_a_plain_function_runs_in_another_thread(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", lambda ctx: threading.current_thread() is threading.main_thread())
    assert outputs_of(await run(flow)) == {"only": False}


async def test_the_decorator_returns_the_function_unchanged(flow: AsyncFlow) -> None:
    def only(ctx: Context) -> int:
        return 1

    assert flow.task("only")(only) is only


@pytest.mark.parametrize("bare", [True, False])
async def test_a_decorator_without_an_id_takes_the_functions_name(flow: AsyncFlow, bare: bool) -> None:
    async def load_rows(ctx: Context) -> int:
        return 3

    decorated = flow.task(load_rows) if bare else flow.task()(load_rows)
    assert decorated is load_rows
    assert flow.has_task("load_rows")
    assert outputs_of(await run(flow)) == {"load_rows": 3}


async def test_a_run_starts_as_scheduled_and_is_stored_before_anything_runs(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", returns(1))
    run_id = flow.init_run({"user": "alice"})
    stored = flow.store.load(run_id)
    assert (stored.state, stored.params, states_of(stored)) == ("scheduled", {"user": "alice"}, {"only": "scheduled"})
    assert stored.tasks["only"].start_date is None


async def test_what_is_returned_is_what_is_stored(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    flow.add_task_definition("only", returns([1, (2, 3)]))
    done = await run(flow, {"x": 1})
    assert store.load(done.id) == done


async def test_push_wins_over_the_return_value_and_the_last_push_wins(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> str:
        ctx.push_output("first")
        ctx.push("second")
        return "returned"

    assert outputs_of(await run(flow)) == {"only": "second"}


async def test_pushing_none_is_a_push(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> str:
        ctx.push_output(None)
        return "returned"

    assert outputs_of(await run(flow)) == {"only": None}


async def test_a_task_without_a_return_value_succeeds_with_none(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", lambda ctx: None)
    done = await run(flow)
    assert (done.state, done.tasks["only"].output_json) == ("success", None)


async def test_a_failing_task_fails_the_run_without_raising(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", fails("no such table"))
    done = await run(flow)
    task = done.tasks["only"]
    assert (done.state, task.state, task.reason) == ("failed", "failed", "RuntimeError: no such table")
    assert task.error is not None
    assert task.error.startswith("Traceback (most recent call last)")
    assert task.error.rstrip().endswith("RuntimeError: no such table")
    assert "executors.py" not in task.error, "a traceback begins in the user's code"


async def test_raise_for_failure_names_the_task_and_its_cause(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", fails("no such table"))
    done = await run(flow)
    with pytest.raises(RunFailedError, match="only: RuntimeError: no such table") as caught:
        done.raise_for_failure()
    assert caught.value.failures == {"only": "RuntimeError: no such table"}
    assert caught.value.run_id == done.id


async def test_raise_for_failure_returns_a_run_that_did_not_fail(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", returns(1))
    done = await run(flow)
    assert done.raise_for_failure() is done


async def test_dates_are_aware_utc_and_in_order(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", returns(1))
    done = await run(flow)
    task = done.tasks["only"]
    assert done.start_date and done.end_date and task.start_date and task.end_date
    assert task.start_date.tzinfo is timezone.utc
    assert done.start_date <= task.start_date <= task.end_date <= done.end_date


async def test_a_finished_run_is_returned_as_it_is(flow: AsyncFlow) -> None:
    calls: list[int] = []
    flow.add_task_definition("only", lambda ctx: calls.append(1))
    first = await run(flow)
    again = await flow.run_until_complete(first.id)
    assert again == first
    assert calls == [1]


async def test_an_empty_flow_succeeds(flow: AsyncFlow) -> None:
    done = await run(flow)
    assert (done.state, dict(done.tasks)) == ("success", {})


async def test_the_context_tells_where_it_is(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> dict[str, object]:
        assert ctx.run is not None
        assert "only" in repr(ctx)
        return {
            "task": ctx.task_id,
            "attempt": ctx.attempt_number,
            "flow": ctx.workflow_run.flow_name,
            "run": ctx.run.id,
            "state": ctx.task_instance.state.value,
        }

    done = await run(flow)
    assert done.tasks["only"].output_json == {
        "task": "only",
        "attempt": 0,
        "flow": "test_flow",
        "run": done.id,
        "state": "running",
    }


async def test_partials_methods_and_callable_objects_serve_as_tasks(flow: AsyncFlow) -> None:
    async def with_factor(ctx: Context, factor: int = 1) -> int:
        return factor

    class Job:
        def method(self, ctx: Context) -> str:
            return "method"

        async def __call__(self, ctx: Context) -> str:
            return "called"

    flow.add_task_definition("partial", partial(with_factor, factor=2))
    flow.add_task_definition("method", Job().method)
    flow.add_task_definition("object", Job())
    assert outputs_of(await run(flow)) == {"partial": 2, "method": "method", "object": "called"}


@pytest.mark.parametrize("task_id", ["", "  ", "a.b", "a/b", "a\x00b", "a\nb", "x" * 501, 7, None])
def test_an_unusable_task_id_is_refused(flow: AsyncFlow, task_id: object) -> None:
    with pytest.raises(InvalidNameError) as caught:
        flow.add_task_definition(task_id, returns(1))  # type: ignore[arg-type]
    assert caught.value.kind == "task id"
    assert len(flow.definition.tasks) == 0


@pytest.mark.parametrize("name", ["", "\t", "a\x1bb", 3])
def test_an_unusable_flow_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidNameError):
        AsyncFlow(name)  # type: ignore[arg-type]


def test_a_duplicate_id_is_refused_unless_it_is_meant(flow: AsyncFlow) -> None:
    first, second = returns(1), returns(2)
    flow.add_task_definition("only", first)
    with pytest.raises(DuplicateTaskError, match="replace=True"):
        flow.add_task_definition("only", second)
    assert flow.definition.get("only").function is first
    flow.add_task_definition("only", second, replace=True)
    assert flow.definition.get("only").function is second


def test_a_function_that_cannot_take_the_context_is_refused(flow: AsyncFlow) -> None:
    def no_context() -> None: ...

    with pytest.raises(TaskFunctionError, match=r"def task\(ctx\)"):
        flow.task("only")(no_context)
    assert not flow.has_task("only")


def test_a_subflow_is_not_declared_as_a_task_type(flow: AsyncFlow) -> None:
    flow.add_task_definition("plain", returns(1), task_type=TaskType.TASK)
    with pytest.raises(InvalidOptionError, match="add_subflow_definition"):
        flow.add_task_definition("only", returns(1), task_type="flow")


def test_a_flow_without_a_store_keeps_its_runs_in_memory() -> None:
    flow = AsyncFlow("plain")
    assert isinstance(flow.store, MemoryStore)
    assert flow.store is flow._store


def test_run_does_it_all_in_one_blocking_call(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", returns(5))
    done = flow.run({"user": "alice"}, run_id="mine", max_concurrency=1)
    assert (done.id, done.state, done.params) == ("mine", "success", {"user": "alice"})


async def test_a_task_sees_the_context_variables_of_the_caller(flow: AsyncFlow) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    tenant.set("acme")
    flow.add_task_definition("sync", lambda ctx: tenant.get())

    @flow.task("async")
    async def in_loop(ctx: Context) -> str:
        await asyncio.sleep(0)
        return tenant.get()

    assert outputs_of(await run(flow)) == {"sync": "acme", "async": "acme"}
