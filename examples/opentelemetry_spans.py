"""Runs as OpenTelemetry traces: a span for each run, each task in it and each attempt, by a subscriber in this one file.

    pip install opentelemetry-sdk
    python -m examples.opentelemetry_spans

Copy the class `Spans` into your program. All drives of a run, those after a crash too, are in the trace that its id stands for.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags, Tracer

from app.infra.flow import (
    AsyncFlow,
    Context,
    Event,
    RunFinished,
    RunInterrupted,
    SkipTask,
    Store,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskInterrupted,
    TaskReset,
    TaskRetryScheduled,
    TaskSkipped,
    TaskStarted,
)

Place = tuple[str, str]
"""A run and a task of it."""


class Spans:
    """Makes spans of a flow's events: `flow.subscribe(Spans(flow.store))`.

    Spans under the attempts, by whatever libraries make them, need the attempt as their parent: `with spans.within(ctx):`.

    Args:
        store: the flow's; it is asked which run a subflow's run is in.
        tracer: makes the spans; that of the program by default.
    """

    def __init__(self, store: Store, tracer: Tracer | None = None) -> None:
        self._store = store
        self._tracer = tracer or trace.get_tracer("night_batch")
        self._runs: dict[str, Span] = {}
        self._tasks: dict[Place, Span] = {}
        self._attempts: dict[Place, Span] = {}

    def __call__(self, event: Event) -> None:
        """Take an event. It is told after its commit, so a span never says what is not so."""
        run = self._runs.get(event.run_id) or self._begin_run(event)
        if isinstance(event, TaskEvent):
            self._take(event, run)
        elif isinstance(event, (RunFinished, RunInterrupted)):
            self._end_run(event)

    @contextmanager
    def within(self, ctx: Context) -> Iterator[None]:
        """Have spans that are made meanwhile be children of the attempt that the context belongs to."""
        span = self._attempts.get((ctx.run.id, ctx.task_id))
        if span is None:
            yield
        else:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield

    # --- runs ---

    def _begin_run(self, event: Event) -> Span:
        record = self._store.read_run(event.run_id)
        above = self._attempts.get((record.parent_run_id or "", record.parent_task_id or ""))
        caller = trace.get_current_span().get_span_context()
        span = self._runs[event.run_id] = self._tracer.start_span(
            f"run {event.flow_name}",
            trace.set_span_in_context(above or _origin(event.run_id), TraceContext()),
            links=[Link(caller)] if caller.is_valid else [],  # it may be long gone when the run ends, so it is no parent
            attributes={"night_batch.flow": event.flow_name, "night_batch.run_id": event.run_id},
            start_time=_nanoseconds(event),
        )
        return span

    def _end_run(self, event: RunFinished | RunInterrupted) -> None:
        state = str(event.state) if isinstance(event, RunFinished) else "interrupted"
        for spans in (self._attempts, self._tasks):
            for place in [place for place in spans if place[0] == event.run_id]:
                _end(spans.pop(place), event, state)
        _end(self._runs.pop(event.run_id), event, state)

    # --- tasks ---

    def _take(self, event: TaskEvent, run: Span) -> None:
        place = event.run_id, event.task_id
        reason = getattr(event, "reason", None)
        if isinstance(event, TaskStarted):
            self._begin_attempt(event, run)
        elif isinstance(event, TaskReset):
            run.add_event("task reset", {"night_batch.task_id": event.task_id}, _nanoseconds(event))
        elif isinstance(event, TaskInterrupted) and place not in self._attempts:
            # The attempt was made by a process that has died, and its span with it.
            about: dict[str, str | int] = {"night_batch.task_id": event.task_id, "night_batch.attempt": event.attempt_number}
            run.add_event("task interrupted", about, _nanoseconds(event))
        else:
            state = _STATES.get(type(event), "success")
            if place in self._attempts:
                _end(self._attempts.pop(place), event, state, reason)
            if not isinstance(event, (TaskRetryScheduled, TaskInterrupted)):  # then the task goes on
                _end(self._tasks.get(place) or self._begin_task(event, run), event, state, reason)
                del self._tasks[place]

    def _begin_attempt(self, event: TaskStarted, run: Span) -> None:
        place = event.run_id, event.task_id
        task = self._tasks.get(place) or self._begin_task(event, run)
        self._attempts[place] = self._tracer.start_span(
            f"attempt {event.task_id}",
            trace.set_span_in_context(task, TraceContext()),
            attributes={"night_batch.attempt": event.attempt_number},
            start_time=_nanoseconds(event),
        )

    def _begin_task(self, event: TaskEvent, run: Span) -> Span:
        whole = event.run_id, event.task_id.partition("[")[0]  # of an item, the task that is mapped
        span = self._tasks[event.run_id, event.task_id] = self._tracer.start_span(
            f"task {event.task_id}",
            trace.set_span_in_context(self._tasks.get(whole, run), TraceContext()),
            attributes={"night_batch.run_id": event.run_id, "night_batch.task_id": event.task_id},
            start_time=_nanoseconds(event),
        )
        return span


_STATES: dict[type[Event], str] = {
    TaskFailed: "failed",
    TaskRetryScheduled: "failed",
    TaskSkipped: "skipped",
    TaskInterrupted: "interrupted",
    TaskCancelled: "cancelled",
}


def _end(span: Span, event: Event, state: str, reason: str | None = None) -> None:
    span.set_attribute("night_batch.state", state)
    if reason is not None:
        span.set_attribute("night_batch.reason", reason)
    if isinstance(event, TaskRetryScheduled):
        span.add_event("retry scheduled", {"night_batch.delay": event.delay}, _nanoseconds(event))
    if state == "failed":
        span.set_status(Status(StatusCode.ERROR, reason))
    elif state == "success":
        span.set_status(Status(StatusCode.OK))
    span.end(_nanoseconds(event))


def _nanoseconds(event: Event) -> int:
    return event.moment * 1000


def _origin(run_id: str) -> NonRecordingSpan:
    """What the run's spans stand under: the same in each process that drives it, so that they are in one trace."""
    digest = hashlib.sha256(run_id.encode()).digest()
    numbers = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
    return NonRecordingSpan(SpanContext(*numbers, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))


# --- seen at work ---


def main() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(
        SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"{span.name}: {span.status.status_code.name}\n"))
    )
    flow = AsyncFlow("traced")
    spans = Spans(flow.store, provider.get_tracer("night_batch"))
    flow.subscribe(spans)

    @flow.task(max_retries=1)
    def fetch(ctx: Context) -> int:
        with spans.within(ctx), provider.get_tracer("mine").start_as_current_span("asking the site"):
            if ctx.attempt_number == 0:
                raise ConnectionError("the site is down")
            return 3

    @flow.task(depends_on=[fetch])
    def load(ctx: Context, fetch: int) -> None:
        raise SkipTask("nothing new")

    print(flow.run().state)
    provider.shutdown()


if __name__ == "__main__":
    main()
