"""A small world in which everything may happen, decided by a seed: processes die, stop, lose their run, and time is an invention.

A disk that outlives the processes, and a ledger that watches what is written, told and run, and says which promise was broken.
For one seed, or many:

    python -m app.infra.flow.__tests__.simulation SEED [HOW MANY]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from random import Random
from typing import Any

from .. import (
    AsyncFlow,
    Changes,
    Context,
    Event,
    Lease,
    MemoryStore,
    OwnershipLostError,
    RunFinished,
    RunOwnedError,
    StoreError,
    TaskRecord,
    TaskSucceeded,
    UnknownTaskError,
    WorkflowRun,
)
from ..models import TERMINAL_STATES
from .histories import check_history
from .shapes import PARAMS, SHAPES, Drawing, Drawn, build, expected, outcome, paths, random_drawing, unruly
from .stepped_loop import Hang, LoopClock, SteppedLoop, TurnWorker, turns_for_threads

MOST_LIVES = 60
_doors = count()


class Broken(AssertionError):
    """A promise was broken; says how to see it happen again."""


class Dead(BaseException):
    """The simulated process is gone: nothing after it happens."""


# --- what was promised ----------------------------------------------------------------------------------------------------


class Ledger:
    """Watches the disk from outside, and the tasks as they run.

    Args:
        disk: where everything is stored.
        clock: the time.
    """

    def __init__(self, disk: MemoryStore, clock: LoopClock) -> None:
        self.disk = disk
        self.clock = clock
        self.figures: Counter[str] = Counter()
        self.broken: str | None = None
        self.resetting = False
        """Whether somebody retries a task by hand at this moment: then alone may one that succeeded run again."""
        self._succeeded: dict[tuple[str, str], str | None] = {}
        self._begun: set[tuple[str, str, int]] = set()

    def broke(self, what: str) -> None:
        """A promise was broken. The first time counts: all else may follow from it."""
        self.broken = self.broken or what

    # --- writes ---

    def write(self, changes: Changes, commit: Callable[[], None]) -> None:
        """Make a commit, and look whether it was a proper one."""
        lease = changes.lease
        fenced = lease is not None and self.disk._leases.get(lease.run_id) != lease
        try:
            commit()
        except OwnershipLostError:
            self.figures["writes refused to those who had lost their run"] += 1
            if not fenced:
                self.broke("G4: the owner's write was refused")
            raise
        if fenced:
            self.broke("G4: somebody who had lost the run wrote to it")
        if lease is None and (changes.runs or {task.run_id for task in changes.tasks} - {run.id for run in changes.new_runs}):
            self.broke("G4: a run was written without the right to do so")
        for task in {(task.run_id, task.task_id): task for task in changes.tasks}.values():
            self._written(task)

    def _written(self, task: TaskRecord) -> None:
        key = task.run_id, task.task_id
        if key in self._succeeded and (task.state, task.output) != ("success", self._succeeded[key]):
            if not self.resetting:
                self.broke(f"G1: {key} had succeeded, and became {task.state}")
            del self._succeeded[key]
        elif task.state == "success":
            self._succeeded[key] = task.output

    # --- events ---

    def heard(self, event: Event) -> None:
        """Something was told: it must be so in the store."""
        if isinstance(event, TaskSucceeded):
            if (event.run_id, event.task_id) not in self._succeeded:
                self.broke(f"the success of {event.task_id} was told, and not stored")
        elif isinstance(event, RunFinished):
            run = self.disk.read_run(event.run_id)
            # A subflow's run that failed may be tried again in the very same step.
            if run.state != event.state and run.parent_run_id is None:
                self.broke(f"the end of run {event.run_id} was told, and not stored")

    # --- tasks ---

    def begins(self, ctx: Context, task: Drawn, in_office: bool) -> None:
        """An attempt begins, by a process that owns the run (or only thinks so)."""
        run_id, number = ctx.idempotency_key.rpartition("/")[0], ctx._record.attempts
        self.figures["attempts"] += 1
        if (run_id, task.id, number) in self._begun:
            self.broke(f"G1: attempt {number} of {task.id} was made twice")
        self._begun.add((run_id, task.id, number))
        stored = {record.task_id: record for record in self.disk._runs[run_id].tasks.values()}  # as they are, in no time
        own = stored[task.id]
        if own.attempts < number:
            self.broke(f"attempt {number} of {task.id} began before that was stored")
        elif own.state == "success" and own.attempts == number:
            self.broke(f"G1: attempt {number} of {task.id} began after it had succeeded")
        elif in_office and own.attempts == number and own.state != "running":
            self.broke(f"attempt {number} of {task.id} began while the store said {own.state}")
        # A thread of a process that was robbed may come to its attempt late: when others have made the next, or set back what is
        # upstream. Its result is refused.
        overtaken = not in_office and own.attempts > number
        for other in task.after:
            if stored[other].state != "success" and not overtaken:
                self.broke(f"G2: {task.id} began while {other}, upstream of it, was {stored[other].state}")
        if task.retry_delay and not self.clock.jumped:
            before = self.disk._runs[run_id].attempts.get((own.position, number - 1))
            # Of a task that was reset since, the number of the try begins anew.
            if before is not None and before.result == "failed" and ctx.attempt_number > before.try_number:
                assert before.ended is not None
                if self.clock.now() < before.ended + task.retry_delay * 1e6 - 10:
                    self.broke(f"{task.id} was tried again too early")

    # --- afterwards ---

    def is_at_rest(self) -> bool:
        """Whether nothing stored says that somebody is at work."""
        stored = self.disk._runs.values()
        states = [state for run in stored for state in (run.record.state, *(task.state for task in run.tasks.values()))]
        return not self.disk._leases and "running" not in states


# --- processes ------------------------------------------------------------------------------------------------------------


class Door:
    """The disk as one process sees it: through it everything goes, until the process dies."""

    def __init__(self, process: Process, ledger: Ledger) -> None:
        self._process = process
        self._ledger = ledger
        self.identity = f"door {next(_doors)}"
        self.leases: list[Lease] = []

    def __getattr__(self, name: str) -> Any:
        self._process.check()
        return getattr(self._ledger.disk, name)

    def commit(self, changes: Changes) -> None:
        self._process.meets_its_fate(
            lambda: self._ledger.write(changes, partial(self._ledger.disk.commit, changes)), may_fail=True
        )

    def commit_at_once(self, changes: Changes) -> bool:
        self._process.check()
        if self._process.world.rng.random() < 0.3:
            return False
        self.commit(changes)
        return True

    def claim(self, run_id: str, *, force: bool = False) -> Lease:
        self._process.meets_its_fate(lambda: self.leases.append(self._ledger.disk.claim(run_id, force=force)))
        return self.leases[-1]

    def release(self, lease: Lease) -> None:
        self._process.meets_its_fate(lambda: self._ledger.disk.release(lease))


class Process:
    """A program that drives the run. It may die, be stopped, or lose the run to another."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = self.stopped = self.store_failed = False
        self.door = Door(self, world.ledger)
        store: Any = self.door
        options: dict[str, Any] = {"store": store, "clock": world.clock, "make_id": world.make_id, **world.flow_options}
        self.flow: AsyncFlow = build(world.drawing, self, **options)
        self.flow._worker = TurnWorker("store")
        self.flow.events.subscribe(self._heard)
        self.calls: list[asyncio.Task[WorkflowRun]] = []
        self.task: asyncio.Task[None] | None = None

    def check(self) -> None:
        if self.dead:
            raise Dead

    @property
    def owns_the_run(self) -> bool:
        leases = self.door.leases
        return not self.dead and bool(leases) and self.world.disk._leases.get("run") == leases[-1]

    def began(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        self.check()
        self.world.ledger.begins(ctx, task, self.owns_the_run)

    def ends(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        self.check()

    def _heard(self, event: Event) -> None:
        if not self.dead:
            self.world.ledger.heard(event)

    # --- its life ---

    async def live(self, retry: str | None) -> None:
        """Drive the run to its end, by one call or two at a time; or before that, retry a task of one that has ended."""
        world, rng = self.world, self.world.rng
        orderly = world.ledger.is_at_rest()  # and not what somebody's death has left
        try:
            self.flow.init_run(PARAMS, run_id="run")
            if retry is not None:
                self._retry(retry)
        except BaseException as problem:
            self._judge(problem)
            return
        self.calls = [world.loop.create_task(self.call()) for _ in range(rng.choice([1, 1, 2]))]
        await asyncio.wait(self.calls)
        errors = [_error_of(call) for call in self.calls]
        for call, error in zip(self.calls, errors):
            if error is not None:
                self._judge(error)
            elif not self.dead and not world.thieves and call.result() != world.disk.load("run"):
                world.ledger.broke("what a call returned is not what is stored")
        if orderly and not (self.dead or self.store_failed or world.thieves or world.ledger.is_at_rest()):
            world.ledger.broke(
                f"it was left in disorder, though all that happened was {[type(error).__name__ for error in errors]}"
            )

    def call(self) -> Coroutine[Any, Any, WorkflowRun]:
        """What its callers await."""
        return self.flow.run_until_complete("run", self.world.limit)

    def _retry(self, path: str) -> None:
        ledger = self.world.ledger
        ledger.figures["retries by hand"] += 1
        ledger.resetting = True
        try:
            self.flow.manual_retry("run", path, reset_downstream=self.world.rng.random() < 0.5)
        except UnknownTaskError:
            if "." not in path:
                raise  # else it leads into a subflow that was skipped
        finally:
            ledger.resetting = False

    def _judge(self, error: BaseException) -> None:
        """Whether there was a reason for an error."""
        expected_here = (
            self.dead
            or (self.stopped and isinstance(error, asyncio.CancelledError))
            or (self.store_failed and isinstance(error, StoreError))
            or (self.world.thieves > 0 and isinstance(error, (OwnershipLostError, RunOwnedError)))
        )
        if not expected_here:
            self.world.ledger.broke(f"it raised {error!r}")

    # --- what befalls it ---

    def meets_its_fate(self, write: Callable[[], None], may_fail: bool = False) -> None:
        """Write, with what is to happen just before or after."""
        self.check()
        fate = self.world.next_fate()
        if fate == "dies before a write":
            self.die()
        elif fate == "is told of failure, and nothing was written" and may_fail:
            self._fail(fate)
        elif fate == "is robbed":
            self.world.steal()
        elif fate == "is stopped":
            self.world.stop()
        elif fate == "sees the clock jump":
            self.world.jump()
        self.check()
        write()
        if fate == "dies after a write":
            self.die()
        elif fate == "is told of failure, though it was written" and may_fail:
            self._fail(fate)
        self.check()

    def _fail(self, what: str) -> None:
        self.world.ledger.figures[what] += 1
        self.store_failed = True
        raise StoreError("the disk", what)

    def die(self) -> None:
        """It is gone, and so is what it held in memory: its leases."""
        if self.dead:
            return
        self.world.ledger.figures["deaths"] += 1
        self.dead = True
        leases = self.world.disk._leases
        for lease in self.door.leases:
            if leases.get(lease.run_id) == lease:
                del leases[lease.run_id]
        for call in self.calls:
            call.cancel()
        self.world.bury(self)


def _error_of(call: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if call.cancelled() else call.exception()


# --- the world ------------------------------------------------------------------------------------------------------------

FATES = (
    "dies before a write",
    "dies after a write",
    "dies before a write",
    "dies after a write",
    "is told of failure, and nothing was written",
    "is told of failure, though it was written",
    "is robbed",
    "is stopped",
    "sees the clock jump",
)
TURNS = ("dies", "is robbed", "is stopped", "is stopped", "sees the clock jump")


class World:
    """One seed's story of one run.

    Args:
        seed: decides everything.
        drawing: what flow; a random one by default.
        calm: nothing befalls anybody; the turns are shuffled all the same.
    """

    room = "simulation"
    """The module that tells such a story again."""
    flow_options: Mapping[str, Any] = {}
    """For the flow of every process."""

    def __init__(self, seed: int, drawing: Drawing | None = None, calm: bool = False) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.drawing = unruly(random_drawing(rng) if drawing is None else drawing, rng)
        self.limit = rng.choice([0, 0, 1, 2])
        shuffle = rng.shuffle if rng.random() < 0.8 else lambda ready: None
        self.loop = SteppedLoop(shuffle, self._turn)
        self.loop.set_exception_handler(self._unhandled)
        self.clock = LoopClock(self.loop)
        self.disk = MemoryStore()
        self.ledger = self._make_ledger()
        self.thieves = 0
        self._news = asyncio.Event()
        self._made = count()
        self._writes = 0
        self._lives = 0
        self._living: list[Process] = []
        self._buried: list[Process] = []
        many = len(paths(self.drawing))
        self._fates = {} if calm else {rng.randint(1, 4 + 2 * many): rng.choice(FATES) for _ in range(rng.randint(0, 4))}
        self._turns = {} if calm else {rng.randint(1, 20 + 8 * many): rng.choice(TURNS) for _ in range(rng.randint(0, 3))}
        self._retries = [] if calm else [rng.choice(paths(self.drawing)) for _ in range(rng.choice([0, 0, 0, 1, 2]))]

    # --- what other kinds of worlds do in their own way ---

    def _make_ledger(self) -> Ledger:
        return Ledger(self.disk, self.clock)

    def _make_process(self) -> Process:
        return Process(self)

    def _threads(self) -> AbstractContextManager[None]:
        return turns_for_threads(self.rng)

    def make_id(self) -> str:
        """The id of a subflow's run."""
        return f"made {next(self._made)}"

    # --- what happens ---

    def next_fate(self) -> str | None:
        """What is to happen at this write."""
        self._writes += 1
        return self._fates.get(self._writes)

    def _turn(self, number: int) -> None:
        what = self._turns.get(number)
        if what == "dies" and self._living:
            self.rng.choice(self._living).die()
        elif what == "is robbed":
            self.steal()
        elif what == "is stopped":
            self.stop()
        elif what == "sees the clock jump":
            self.jump()

    def jump(self) -> None:
        """Set the clock on the wall, back or forth."""
        self.ledger.figures["clock jumps"] += 1
        self.clock.jump(self.rng.choice([-1, 1]) * self.rng.choice([0.4, 60, 3600]))

    def stop(self) -> None:
        """Cancel a process's calls in an orderly way: all, or one; perhaps once more, while it is at it."""
        driving = [process for process in self._living if process.calls]
        if driving:
            process = self.rng.choice(driving)
            calls = process.calls if self.rng.random() < 0.7 else [self.rng.choice(process.calls)]
            process.stopped = True
            self.ledger.figures["cancellations"] += 1
            for call in calls:
                call.cancel()
                if self.rng.random() < 0.2:
                    self.loop.call_later(self.rng.choice([0.0, 0.1]), call.cancel)

    def steal(self) -> None:
        """Another process takes the run over, while its owner lives."""
        if self.disk.exists("run") and len(self._living) == 1:
            self.ledger.figures["take-overs"] += 1
            self.thieves += 1
            thief = self._make_process()
            self._living.append(thief)
            try:
                thief.flow.take_over("run")
            except Dead:
                return
            self._start(thief)

    def bury(self, process: Process) -> None:
        """A process has died; if it was the last, another one goes on."""
        self._living.remove(process)
        self._buried.append(process)
        self._news.set()

    # --- the story ---

    def _start(self, process: Process, retry: str | None = None) -> None:
        self._lives += 1
        process.task = self.loop.create_task(process.live(retry))
        process.task.add_done_callback(lambda _: self._news.set())

    async def _tell(self) -> None:
        while self.ledger.broken is None:
            for process in self._living:
                if process.task is not None and process.task.done():
                    self._living.remove(process)
                    process.task.result()
                    break
            else:
                if self._living:
                    await self._news.wait()
                    self._news.clear()
                    continue
                ended = self.disk.exists("run") and self.disk.read_run("run").state in TERMINAL_STATES
                if ended and not self._retries:
                    break
                if self._lives > MOST_LIVES:
                    raise Hang("it does not end, though nothing befalls it any more")
                self._living.append(self._make_process())
                self._start(self._living[-1], self._retries.pop() if ended else None)
        # What is left of the dead must come to an end too.
        for process in self._buried:
            if process.task is not None:
                await asyncio.wait([process.task])

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Dead):
            self.ledger.broke(f"the loop says: {context['message']} {error!r}")

    def run(self) -> Counter[str]:
        """Let it happen; what there was, counted.

        Raises:
            Broken: a promise was.
        """
        ledger = self.ledger
        try:
            with self._threads():
                self.loop.run_until_complete(self._tell())
            if ledger.broken is None:
                self._look_at_the_end()
        except Hang as hang:
            ledger.broke(str(hang))
        finally:
            self.loop.close()
        if ledger.broken is not None:
            raise Broken(f"seed {self.seed}: {ledger.broken}\nsee it again: python -m {__package__}.{self.room} {self.seed}")
        ledger.figures["turns"] += self.loop.turns
        ledger.figures["seeds"] += 1
        return ledger.figures

    def _look_at_the_end(self) -> None:
        found, wanted = outcome(self.disk, "run"), expected(self.drawing)
        if found != wanted:
            self.ledger.broke(f"G3: it came to\n{found}\nand not to\n{wanted}")
        if not self.ledger.is_at_rest():
            self.ledger.broke("something is left that says it is at work")
        for run_id in self.disk.list_runs():
            try:
                check_history(self.disk, run_id)
            except AssertionError as error:
                self.ledger.broke(f"the history of {run_id!r}: {error}")


def simulate(seed: int, shape: str | None = None, calm: bool = False) -> Counter[str]:
    """Let one seed's story happen, of one of the shapes or of a random flow."""
    return World(seed, SHAPES[shape] if shape is not None else None, calm).run()


def main(first: int, many: int = 1) -> Counter[str]:
    """Simulate so many seeds, one after the other."""
    figures: Counter[str] = Counter()
    for seed in range(first, first + many):
        figures += simulate(seed)
    return figures


if __name__ == "__main__":
    began = time.perf_counter()
    told = main(*map(int, sys.argv[1:]))
    print(dict(told), f"in {time.perf_counter() - began:.1f} s")
