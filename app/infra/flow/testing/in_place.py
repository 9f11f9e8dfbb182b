"""A flow that is run without threads and processes: functions one after another, in the thread of the test.

Knows the rooms that drive runs, and puts others in their place; must not know fakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, TypeVar

from ..definitions import FlowDefinition
from ..event_manager import RunAudience
from ..executors import Call, Deliver, InlineExecutor
from ..flow import _FOLLOWERS, AsyncFlow
from ..lanes import Lane, Lanes
from ..memory_store import MemoryStore
from ..off_loop import Worker
from ..runner import Runner
from ..runs import Runs
from ..task_options import Capacities, SubmitsWork
from .clock import VirtualClock

T = TypeVar("T")


class _Calls(InlineExecutor):
    """Calls functions on the event loop, which they cannot see: as in a thread, they may run one of their own."""

    def _run(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        try:
            super()._run(call)
        finally:
            asyncio._set_running_loop(loop)
            asyncio.set_event_loop(loop)  # a loop of its own took that with it


class _InPlace(Lanes):
    """Has functions run in the thread of the test, wherever they say that they run."""

    def __init__(self, deliver: Deliver, capacities: Capacities) -> None:
        super().__init__(deliver, capacities)
        self.threads = Lane(_Calls(deliver))

    def find(self, choice: str | SubmitsWork) -> Lane:  # noqa: ARG002
        """The one lane of functions."""
        return self.threads


class _InPlaceRunner(Runner):
    lanes = _InPlace


class _InPlaceRuns(Runs):
    runner = _InPlaceRunner


class _Counted(Lanes):
    """The usual executors, of which a clock can ask whether something is under way there."""

    made: list[_Counted] | None = None

    def __init__(self, deliver: Deliver, capacities: Capacities) -> None:
        super().__init__(deliver, capacities)
        if self.made is not None:
            self.made.append(self)

    def is_busy(self) -> bool:
        return any(lane.busy for lane in self if lane is not self.loop)


class _AtOnce(Worker):
    """Does at once what may block elsewhere: a store in memory does not."""

    async def do(self, work: Callable[[], T]) -> T:
        return work()


class FlowInMemory(AsyncFlow):
    """A copy of a flow that is run for a test.

    Args:
        flow: the flow; stays as it is.
        definition: its definition, or a changed copy of that.
        clock: the time.
        real_executors: whether functions run where they say, and not in the thread of the test.
        store: where the runs are; a new one in memory if left out.
    """

    def __init__(
        self,
        flow: AsyncFlow,
        definition: FlowDefinition,
        clock: VirtualClock,
        real_executors: bool = False,
        store: MemoryStore | None = None,
    ) -> None:
        numbers = count(1)
        name = definition.name
        if store is None:
            store = MemoryStore(codec=flow.store.codec)
        super().__init__(name, store, clock=clock, make_id=lambda: f"test-{next(numbers)}")
        self._definition = definition
        self._capacities = flow._capacities
        self._test_clock = clock
        self._lanes: list[_Counted] = []
        if real_executors:
            lanes = type("_Lanes", (_Counted,), {"made": self._lanes})
            runner = type("_Runner", (Runner,), {"lanes": lanes})
            self._kind: type[Runs] = type("_Runs", (Runs,), {"runner": runner})
        else:
            self._kind = _InPlaceRuns
        self._worker = _AtOnce(f"store of {name}, in a test")

    def _runs(self, run_id: str | None) -> Runs:
        told: Any = self.events if run_id is None else RunAudience(self.events, _FOLLOWERS, self._key(run_id))
        return self._kind(self._definition, self._store, self._clock, self._make_id, self._worker, told, self._capacities)

    @contextmanager
    def in_virtual_time(self, run_id: str) -> Iterator[None]:
        """Have the running loop go by the clock; what runs in threads or processes is real, and so is time meanwhile."""
        with self._test_clock._rules(why=partial(self._why_it_hangs, run_id)), self._test_clock._heeding(self._is_busy):
            yield

    def _why_it_hangs(self, run_id: str) -> str:
        paths = ", ".join(repr(task.path) for task in self.progress_of(run_id).running)
        if not paths:
            return f"run {run_id!r} hangs, though none of its tasks is under way"
        return f"run {run_id!r} hangs in {paths}, which a time-out (timeout=) would cut off"

    def _is_busy(self) -> bool:
        return any(lanes.is_busy() for lanes in self._lanes)
