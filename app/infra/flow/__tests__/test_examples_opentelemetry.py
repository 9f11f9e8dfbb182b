"""The OpenTelemetry example, seen through the SDK's in-memory exporter: which spans there are, under which, and how they end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .. import AsyncFlow, Context, SkipTask, SQLiteStore

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed: pip install -r requirements-extras.txt")

ROOT = Path(__file__).resolve().parents[4]

if not (ROOT / "examples" / "opentelemetry_spans.py").is_file():
    pytest.skip("this folder was copied into another tree, without the examples", allow_module_level=True)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("examples.opentelemetry_spans")


class Traced:
    """What was exported, and a tracer for it."""

    def __init__(self) -> None:
        sdk, export = import_module("opentelemetry.sdk.trace"), import_module("opentelemetry.sdk.trace.export")
        memory = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
        self._exporter = memory.InMemorySpanExporter()
        provider = sdk.TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("tests")

    @property
    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())

    def lines(self) -> list[str]:
        """Each span with those that it is under, and how it ended, in the order in which they began."""
        by_id = {span.context.span_id: span for span in self.spans}
        told: list[tuple[int, int, str]] = []
        for order, span in enumerate(self.spans):
            names, above = [span.name], by_id.get(span.parent.span_id) if span.parent else None
            while above is not None:
                names.append(above.name)
                above = by_id.get(above.parent.span_id) if above.parent else None
            end = f"{span.attributes.get('night_batch.state')} {span.status.status_code.name}"
            told.append((len(names), order, f"{' < '.join(names)}: {end}"))
        return [line for _, _, line in sorted(told)]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def followed(example: Any, flow: AsyncFlow, traced: Traced) -> Any:
    """The subscriber, with which a flow's runs are told to `traced`."""
    spans = example.Spans(flow.store, traced.tracer)
    flow.subscribe(spans)
    return spans


def test_attempts_are_under_tasks_and_tasks_under_the_run(example: Any) -> None:
    flow, traced = AsyncFlow("night"), Traced()
    spans = followed(example, flow, traced)

    @flow.task(max_retries=1, retry_delay=0.01)
    def fetch(ctx: Context) -> int:
        if ctx.attempt_number == 0:
            raise ConnectionError("down")
        return 1

    @flow.task(depends_on=[fetch])
    def load(ctx: Context) -> None:
        raise ValueError("bad row")

    @flow.task(depends_on=[load])
    def tell(ctx: Context) -> None: ...

    @flow.task(depends_on=[fetch])
    def maybe(ctx: Context) -> None:
        raise SkipTask("nothing new")

    flow.run(run_id="monday")
    run = "run night"
    assert sorted(traced.lines()) == sorted(
        [
            f"{run}: failed ERROR",
            f"task fetch < {run}: success OK",
            f"task load < {run}: failed ERROR",
            f"task tell < {run}: skipped UNSET",
            f"task maybe < {run}: skipped UNSET",
            f"attempt fetch < task fetch < {run}: failed ERROR",
            f"attempt fetch < task fetch < {run}: success OK",
            f"attempt load < task load < {run}: failed ERROR",
            f"attempt maybe < task maybe < {run}: skipped UNSET",
        ]
    )
    failed, again = traced.named("attempt fetch")
    assert failed.attributes["night_batch.reason"] == failed.status.description == "ConnectionError: down"
    ((event),) = failed.events
    assert (event.name, event.attributes["night_batch.delay"]) == ("retry scheduled", 0.01)
    assert [span.attributes["night_batch.attempt"] for span in (failed, again)] == [0, 1]
    (task,) = traced.named("task fetch")
    assert task.start_time == failed.start_time and task.end_time == again.end_time
    stored = flow.store.list_attempts("monday", "fetch")
    assert stored[0].start_date is not None
    assert failed.start_time == round(stored[0].start_date.timestamp() * 1e6) * 1000
    assert (spans._runs, spans._tasks, spans._attempts) == ({}, {}, {})


def test_items_are_under_their_mapped_task_and_a_subflow_under_the_attempt_that_began_it(example: Any) -> None:
    inner, flow, traced = AsyncFlow("inner"), AsyncFlow("outer"), Traced()
    inner.add_task_definition("check", lambda ctx: 1)
    flow.add_task_definition("pages", lambda ctx: [1, 2])
    flow.add_task_definition("parse", lambda ctx, page: page, map_over="pages")
    flow.add_subflow_definition(subflow_id="sub", child_flow=inner)
    followed(example, flow, traced)
    flow.run()
    lines = traced.lines()
    assert "attempt parse[1] < task parse[1] < task parse < run outer: success OK" in lines
    assert "attempt check < task check < run inner < attempt sub < task sub < run outer: success OK" in lines
    assert len({span.context.trace_id for span in traced.spans}) == 1


def test_spans_of_others_are_under_the_attempt_and_the_run_links_to_its_caller(example: Any) -> None:
    flow, traced = AsyncFlow("inside"), Traced()
    spans = followed(example, flow, traced)

    @flow.task
    async def ask(ctx: Context) -> None:
        with spans.within(ctx), traced.tracer.start_as_current_span("request"):
            await asyncio.sleep(0)

    with traced.tracer.start_as_current_span("caller") as caller:
        flow.run()
    (request,), (attempt,), (run,) = traced.named("request"), traced.named("attempt ask"), traced.named("run inside")
    assert request.parent.span_id == attempt.context.span_id
    assert [link.context.span_id for link in run.links] == [caller.get_span_context().span_id]
    elsewhere: Any = SimpleNamespace(run=SimpleNamespace(id="none"), task_id="none")  # of a run that was not followed
    with spans.within(elsewhere), traced.tracer.start_as_current_span("alone"):
        pass
    assert traced.named("alone")[0].parent is None


DYING = """
import os, sys
from app.infra.flow import AsyncFlow, SQLiteStore
flow = AsyncFlow("night", SQLiteStore(sys.argv[1]))
flow.add_task_definition("first", lambda ctx: 1)
flow.add_task_definition("second", lambda ctx: os._exit(9), dependencies=["first"])
flow.run(run_id="monday")
"""


def test_a_run_that_goes_on_after_a_crash_is_in_the_trace_of_its_id_and_says_what_was_interrupted(
    example: Any, tmp_path: Path
) -> None:
    path = str(tmp_path / "runs.db")
    died = subprocess.run([sys.executable, "-c", DYING, path], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert died.returncode == 9
    with SQLiteStore(path) as store:
        flow, traced = AsyncFlow("night", store), Traced()
        flow.add_task_definition("first", lambda ctx: 1)
        flow.add_task_definition("second", lambda ctx: 2, dependencies=["first"])
        followed(example, flow, traced)
        flow.run(run_id="monday")
        flow.manual_retry("monday", "second")
        flow.run(run_id="monday")
    assert [span.name for span in traced.spans] == ["attempt second", "task second", "run night"] * 2
    first, second = traced.named("run night")
    assert [(event.name, event.attributes["night_batch.task_id"]) for event in first.events] == [("task interrupted", "second")]
    assert [event.name for event in second.events] == ["task reset"]
    origin = example._origin("monday").get_span_context()
    assert {span.context.trace_id for span in traced.spans} == {origin.trace_id}
    assert {run.parent.span_id for run in (first, second)} == {origin.span_id}


async def test_a_run_that_is_stopped_or_cancelled_ends_its_spans(example: Any) -> None:
    flow, traced = AsyncFlow("stopped"), Traced()
    spans = followed(example, flow, traced)
    begun = asyncio.Event()

    @flow.task
    async def wait(ctx: Context) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    handle = flow.start()
    await begun.wait()
    await handle.stop()
    assert traced.lines()[0] == "run stopped: interrupted UNSET"
    assert {line.rpartition(": ")[2] for line in traced.lines()} == {"interrupted UNSET"} and len(traced.lines()) == 3
    begun.clear()
    cancelled = flow.start()
    await begun.wait()
    await cancelled.cancel()
    await cancelled
    assert "run stopped: cancelled UNSET" in traced.lines()
    assert (spans._runs, spans._tasks, spans._attempts) == ({}, {}, {})
