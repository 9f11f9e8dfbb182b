"""Attempts without an engine around them: a run in memory, calls of its tasks, and a tray for the outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from ..codec import ValueCodec
from ..context import Context
from ..definitions import FlowDefinition
from ..executors import Call, Outcome
from ..live_run import LiveRun, encode_params, new_run
from ..models import ExecutionState
from ..redaction import Redact
from ..steps import Step
from .conftest import FakeClock

PATIENCE = 30.0
"""Seconds that anything may take on a machine that is busy with other things."""


def live_run(
    function: Callable[[Any], Any],
    outputs: Mapping[str, Any] | None = None,
    *,
    depends_on: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    redact: Redact | None = None,
    codec: ValueCodec | None = None,
) -> LiveRun:
    """A run of the flow `nightly`, whose task `only` calls the function; before it were tasks with the given outputs.

    Those that it does not depend on directly are upstream of the first that it does.
    """
    codec = codec or ValueCodec()
    definition = FlowDefinition("nightly", redact=redact)
    outputs = outputs or {}
    far = [task_id for task_id in outputs if task_id not in depends_on]
    for task_id in [*far, *depends_on]:
        definition.add_task(task_id, lambda ctx: None, depends_on=far if depends_on and task_id == depends_on[0] else None)
    definition.add_task("only", function, depends_on=list(depends_on))
    run, tasks = new_run(Step(), definition, "run-1", encode_params(params, codec), 0)
    for task in tasks:
        if task.task_id in outputs:
            task.state, task.output = ExecutionState.SUCCESS, codec.encode(outputs[task.task_id])
    return LiveRun(definition, run, tasks, codec, FakeClock())


def call_of(function: Callable[[Any], Any], live: LiveRun | None = None) -> Call:
    """An attempt of the task `only`."""
    live = live or live_run(function)
    record = live.machine.tasks["only"]
    return Call((live, record), function, Context(live, record), "nightly.only")


class Tray:
    """Where an executor delivers; what is waited for comes within PATIENCE."""

    def __init__(self) -> None:
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()

    def __call__(self, outcome: Outcome) -> None:
        self._outcomes.put(outcome)

    async def next(self) -> Outcome:
        """The next outcome; the loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while loop.time() < deadline:
            try:
                return self._outcomes.get_nowait()
            except Empty:
                await asyncio.sleep(0.001)
        raise AssertionError("no outcome was delivered")

    def is_empty(self) -> bool:
        """Whether nothing was delivered that was not taken."""
        return self._outcomes.empty()


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not condition():
        assert loop.time() < deadline, "it never came to be"
        await asyncio.sleep(0.005)
