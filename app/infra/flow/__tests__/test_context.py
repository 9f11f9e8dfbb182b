"""What a task is handed: logs, the run as it stands, and copies that are its own."""

from __future__ import annotations

import logging
from enum import IntEnum
from typing import Any

import pytest

from .. import AsyncFlow, Context, MemoryStore, Store, TaskInstance, ValueCodec
from ..context import MAX_LOG_LINE, MAX_LOG_LINES, MAX_LOG_SIZE
from .conftest import FakeClock, flaky, outputs_of, returns, run


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


async def test_lines_beyond_what_an_attempt_keeps_go_to_the_logger_and_are_counted(
    flow: AsyncFlow, caplog: pytest.LogCaptureFixture
) -> None:
    @flow.task
    def talks(ctx: Context) -> None:
        for number in range(MAX_LOG_LINES + 3):
            ctx.log(number)

    with caplog.at_level(logging.INFO, logger="night_batch.test_flow"):
        done = await run(flow)
    assert len(caplog.records) == MAX_LOG_LINES + 3
    *kept, last = done.tasks["talks"].logs
    assert [entry.message for entry in kept] == [str(number) for number in range(MAX_LOG_LINES)]
    assert last.message == "... 3 more lines were left out here; the logger got them all"
    assert last.level == logging.WARNING


async def test_a_long_line_keeps_its_ends_and_long_lines_together_are_bounded_too(flow: AsyncFlow) -> None:
    @flow.task
    async def talks(ctx: Context) -> None:
        ctx.log("first " + "x" * 2**21 + " last")
        for _ in range(20):
            ctx.log("y" * MAX_LOG_LINE)
        ctx.log("short")

    *kept, last = (await run(flow)).tasks["talks"].logs
    assert kept[0].message.startswith("first x")
    assert kept[0].message.endswith("x last")
    assert "characters left out" in kept[0].message
    assert len(kept) == MAX_LOG_SIZE // MAX_LOG_LINE - 1
    assert sum(len(entry.message) for entry in kept) <= MAX_LOG_SIZE
    assert last.message.startswith("... 7 more lines were left out"), "a gap is told once, at its place"


async def test_logs_are_kept_however_small_the_limit_of_values_is() -> None:
    flow = AsyncFlow("flow", MemoryStore(codec=ValueCodec(max_size=10)))

    @flow.task
    async def talks(ctx: Context) -> str:
        ctx.log("more than ten characters")
        return "more than ten characters"

    task = (await run(flow)).tasks["talks"]
    assert task.reason is not None
    assert "the limit is 10" in task.reason
    assert [entry.message for entry in task.logs] == ["more than ten characters"]


class Level(IntEnum):
    LOUD = 35


class Text(str):
    __slots__ = ()


class Speaks:
    def __str__(self) -> str:
        return Text("spoken")


async def test_a_line_is_kept_as_bare_text_and_number_whatever_it_was_made_of(flow: AsyncFlow) -> None:
    @flow.task
    async def talks(ctx: Context) -> None:
        ctx.log(Text("one"), Level.LOUD)
        ctx.log(Speaks())

    done = await run(flow)
    assert done.state == "success"
    assert [(entry.level, entry.message) for entry in done.tasks["talks"].logs] == [(35, "one"), (20, "spoken")]


@pytest.mark.parametrize("level", ["INFO", None, 1.5, object()], ids=lambda level: type(level).__name__)
async def test_a_level_that_is_none_fails_the_task_and_says_what_one_is(flow: AsyncFlow, level: Any) -> None:
    flow.add_task_definition("talks", lambda ctx: ctx.log("x", level))
    reason = (await run(flow)).tasks["talks"].reason
    assert reason is not None
    assert "Task 'talks': level=" in reason
    assert "logging.INFO" in reason


async def test_the_logger_gets_no_escape_sequences_and_the_store_the_text_as_it_is(
    flow: AsyncFlow, caplog: pytest.LogCaptureFixture
) -> None:
    line = "50%\r100%\x1b[2J\u202e txt.exe \udce9\n\tnext"
    flow.add_task_definition("talks", lambda ctx: ctx.log(line))
    with caplog.at_level(logging.INFO, logger="night_batch.test_flow"):
        done = await run(flow)
    assert caplog.records[0].getMessage() == "50%\\r100%\\x1b[2J\\u202e txt.exe \\udce9\n\tnext"
    assert [entry.message for entry in done.tasks["talks"].logs] == [line]


# --- the idempotency key ---


async def test_the_idempotency_key_is_the_same_at_every_attempt_of_a_task_in_a_run(flow: AsyncFlow, store: Store) -> None:
    flow.store = store
    keys: list[str] = []
    fails = flaky(1)

    async def charge(ctx: Context) -> Any:
        keys.append(ctx.idempotency_key)
        return await fails(ctx)

    flow.add_task_definition("charge", charge, max_retries=1)
    flow.add_task_definition("other", lambda ctx: ctx.idempotency_key)
    done = await flow.run_until_complete(flow.init_run(run_id="2026-11-23"))
    again = AsyncFlow("test_flow", store)
    again.add_task_definition("charge", charge)
    again.add_task_definition("other", lambda ctx: ctx.idempotency_key)
    await again.retry(done.id, "charge")
    assert keys == ["2026-11-23/charge"] * 3
    assert outputs_of(done)["other"] == "2026-11-23/other"


async def test_no_two_tasks_or_runs_share_an_idempotency_key() -> None:
    """A task id holds no slash, so the last one parts the two, whatever the run id holds."""
    keys: list[str] = []
    child = AsyncFlow("child").add_task_definition("b", lambda ctx: keys.append(ctx.idempotency_key))
    flow = AsyncFlow("flow").add_subflow_definition("a", child).add_task_definition("b", child.definition.get("b").function)  # type: ignore[arg-type]
    for run_id in ("a", "a/a"):
        await flow.run_until_complete(flow.init_run(run_id=run_id))
    assert len(set(keys)) == 4


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
