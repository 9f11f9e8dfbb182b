"""What a task is handed: logs, the run as it stands, and copies that are its own."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from .. import AsyncFlow, Context, Store, TaskInstance
from .conftest import FakeClock, outputs_of, returns, run


async def test_log_goes_to_the_flows_logger_with_the_facts_on_the_record(
    flow: AsyncFlow, caplog: pytest.LogCaptureFixture
) -> None:
    @flow.task(max_retries=1)
    async def only(ctx: Context) -> None:
        ctx.log("reading %d rows")
        ctx.log(42, logging.WARNING)
        if ctx.attempt_number == 0:
            raise ValueError

    with caplog.at_level(logging.INFO, logger="night_batch.test_flow"):
        done = await run(flow)
    record = caplog.records[0]
    assert (record.name, record.levelname, record.getMessage()) == ("night_batch.test_flow", "INFO", "reading %d rows")
    assert record.funcName == "only", "the record points at the line in the task"
    facts = [(r.flow_name, r.run_id, r.task_id, r.attempt_number) for r in caplog.records]  # type: ignore[attr-defined]
    assert [r.attempt for r in caplog.records] == [0, 0, 1, 1]  # type: ignore[attr-defined]
    assert facts == [("test_flow", done.id, "only", attempt) for attempt in (0, 0, 1, 1)]
    assert [r.levelno for r in caplog.records] == [20, 30, 20, 30]


async def test_logs_are_kept_with_the_attempt(flow: AsyncFlow, store: Store, clock: FakeClock) -> None:
    flow.store = store

    @flow.task
    def only(ctx: Context) -> None:
        ctx.log("one")
        clock.pass_time(2)
        ctx.log("two \udce9\x00", logging.ERROR)

    done = await run(flow)
    logs = store.load(done.id).tasks["only"].logs
    assert [(entry.level, entry.message) for entry in logs] == [(20, "one"), (40, "two \udce9\x00")]
    assert (logs[1].at - logs[0].at).total_seconds() == 2


async def test_logs_of_a_failed_task_are_kept(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> None:
        ctx.log("last words")
        raise ValueError

    assert [entry.message for entry in (await run(flow)).tasks["only"].logs] == ["last words"]


async def test_the_run_shows_the_tasks_as_they_stand(flow: AsyncFlow) -> None:
    flow.add_task_definition("before", returns([1]))

    @flow.task(depends_on=["before"])
    async def looks(ctx: Context) -> dict[str, str]:
        tasks = ctx.run.tasks
        assert len(tasks) == 3
        assert "tasks" in repr(tasks)
        return {task_id: task.state.value for task_id, task in tasks.items()}

    flow.add_task_definition("after", returns(2), dependencies=["looks"])
    done = await run(flow)
    assert done.tasks["looks"].output_json == {"before": "success", "looks": "running", "after": "scheduled"}


async def test_what_a_task_does_to_the_models_it_looks_at_changes_nothing(flow: AsyncFlow) -> None:
    flow.add_task_definition("before", returns([1]))

    @flow.task(depends_on=["before"])
    async def spoils(ctx: Context) -> Any:
        ctx.run.tasks["before"].output_json.append("spoiled")
        ctx.run.tasks["before"].state = "failed"  # type: ignore[assignment]
        ctx.task_instance.task_id = "nobody"
        ctx.workflow_run.id = "nothing"
        return ctx.pull("before")

    done = await run(flow)
    assert (done.state, outputs_of(done)) == ("success", {"before": [1], "spoils": [1]})


async def test_task_instance_is_the_tasks_own(flow: AsyncFlow) -> None:
    seen: list[TaskInstance] = []

    @flow.task(max_retries=1)
    async def only(ctx: Context) -> None:
        seen.append(ctx.task_instance)
        if ctx.attempt_number == 0:
            raise ValueError

    await run(flow)
    assert [(task.task_id, task.state.value, task.try_number) for task in seen] == [
        ("only", "running", 0),
        ("only", "running", 1),
    ]


async def test_pull_of_a_task_that_did_not_succeed_is_none(flow: AsyncFlow) -> None:
    """Possible when a task is reset without what is downstream, or under a lenient trigger rule."""
    flow.add_task_definition("a", returns(1))
    flow.add_task_definition("b", lambda ctx: ctx.pull("a"), dependencies=["a"])
    flow.add_task_definition("c", lambda ctx: ctx.pull("a"), dependencies=["b"])
    done = await run(flow)
    assert outputs_of(done) == {"a": 1, "b": 1, "c": 1}
    stored = flow.store.load(done.id).tasks["a"]
    stored.state = "skipped"  # type: ignore[assignment]
    flow.store.update_task(done.id, stored)
    flow.manual_retry(done.id, "c")
    assert outputs_of(await flow.run_until_complete(done.id))["c"] is None


async def test_a_callers_params_mapping_is_copied_at_init(flow: AsyncFlow) -> None:
    params = {"rows": [1]}
    flow.add_task_definition("only", lambda ctx: ctx.params["rows"])
    run_id = flow.init_run(params)
    params["rows"].append(2)
    assert outputs_of(await flow.run_until_complete(run_id)) == {"only": [1]}


async def test_a_param_name_must_stay_a_string(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> None:
        ctx.params[1] = 2  # type: ignore[index]

    task = (await run(flow)).tasks["only"]
    assert task.reason is not None
    assert "param names are strings" in task.reason
