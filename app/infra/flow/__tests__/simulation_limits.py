"""The small world of `simulation` with more in it: time-outs, pools, priorities, policies, and people who cancel runs and tasks.

All that is new is drawn from a chance of its own. What a story came to is looked at twice: it must be consistent, whoever
meddled; and when all that was cancelled was brought back by hand, it must be what was drawn. For one seed, or many:

    python -m app.infra.flow.__tests__.simulation_limits SEED [HOW MANY]
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from .. import (
    Changes,
    Context,
    MemoryStore,
    NonRetryableError,
    OwnershipLostError,
    RetryAfter,
    RetryPolicy,
    RunMismatchError,
    RunOwnedError,
    RunTimeoutError,
    StoreError,
    UnknownTaskError,
    WorkflowRun,
)
from .. import lanes as lanes_room
from .. import pools as pools_room
from ..executors import Call, CoroutineExecutor, Deliver, Outcome, ThreadExecutor
from ..models import TERMINAL_STATES
from ..pools import Pool
from ..store import outermost
from .shapes import SHAPES, Drawing, Drawn, expected, outcome, paths
from .simulation import Dead, Ledger, Process, World
from .stepped_loop import LoopClock, TurnThreads

GRACE = 1.0
"""Seconds of grace for what was told to end."""
LATE = 2.0
"""Seconds after which a function ends that hangs: long after its time-out."""
LAST_TIMEOUT = 8
"""Callers of so many processes are impatient; the others are not, so that the story ends."""

Key = tuple[str, str]
"""A run and a task of it."""


# --- what is drawn --------------------------------------------------------------------------------------------------------


def limited(drawing: Drawing, rng: Random, sizes: Mapping[str, int]) -> Drawing:
    """The same tasks with time-outs, heartbeats, pools, priorities and policies, so that it is still known what they come to."""
    return tuple(
        replace(task, child=limited(task.child, rng, sizes)) if task.child else _limited(task, rng, sizes) for task in drawing
    )


def _limited(task: Drawn, rng: Random, sizes: Mapping[str, int]) -> Drawn:
    options: dict[str, Any] = {}
    changes: dict[str, Any] = {"error": rng.choice([task.error, task.error, RetryAfter, NonRetryableError])}
    if rng.random() < 0.5:
        pool = rng.choice(list(sizes))
        options.update(pool=pool, pool_weight=rng.choice([1, 1, sizes[pool]]))
    if rng.random() < 0.3:
        options["priority"] = rng.choice([-1, 1, 2])
    if rng.random() < 0.5:
        delay, jitter = rng.choice([0.0, 0.2, 1.0]), rng.choice([0.0, 0.5])
        options["retry"] = RetryPolicy(
            task.max_retries, delay, backoff=2, max_delay=5, jitter=jitter, max_interruptions=1_000_000
        )
        changes["retry_delay"] = delay * (1 - jitter)
    hangs = rng.choice([0, 0, 0, 1, 2, 99])
    if not task.is_async:
        if hangs or rng.random() < 0.3:
            options["timeout"] = 0.8  # a thread begins and ends within 0.6
    else:
        changes["deaf"] = rng.choice([0.0, 0.0, 0.0, 0.2, 3.0])
        limit = rng.choice([None, None, 0.1, 0.5])
        kind = rng.choice(["timeout", "timeout", "heartbeat_timeout"])
        changes["beats"] = rng.random() < 0.3
        if hangs:
            options[kind] = limit or 0.5
        elif limit is not None:
            options[kind] = limit
        if limit == 0.1 and task.pause == 0.3 and not (kind == "heartbeat_timeout" and changes["beats"]):
            hangs = 99
    changes["hangs"] = hangs
    if hangs:
        changes["stubborn"] = False  # or it would come to something that was not drawn
    return replace(task, options=options, **changes)


# --- what was promised ----------------------------------------------------------------------------------------------------


class LimitsLedger(Ledger):
    """Watches in addition that what was cancelled stays so, that asks are heeded, and that nobody takes more than there is.

    Args:
        disk: where everything is stored.
        clock: the time.
        world: who is at work.
    """

    def __init__(self, disk: MemoryStore, clock: LoopClock, world: LimitsWorld) -> None:
        super().__init__(disk, clock)
        self._world = world
        self._cancelled: set[Key] = set()
        self._cancelled_runs: set[str] = set()
        self._asked: dict[Key, float] = {}
        """What somebody was told would be cancelled, and when; of a whole run, with an empty task."""

    def write(self, changes: Changes, commit: Callable[[], None]) -> None:
        """See `Ledger.write`."""
        super().write(changes, commit)
        for run in changes.runs:
            if run.state == "cancelled":
                self._cancelled_runs.add(run.id)
            elif run.id in self._cancelled_runs:
                if not self.resetting:
                    self.broke(f"run {run.id} had been cancelled, and became {run.state}")
                self._cancelled_runs.discard(run.id)
        for task in changes.tasks:
            key = task.run_id, task.task_id
            if task.state in ("success", "failed"):  # it has ended by itself, before it could be cancelled
                self._asked.pop(key, None)
            if task.state == "cancelled":
                self._cancelled.add(key)
            elif key in self._cancelled:
                if not self.resetting:
                    self.broke(f"{key} had been cancelled, and became {task.state}")
                self._cancelled.discard(key)

    def asked(self, run_id: str, path: str | None) -> None:
        """Somebody was told that a run, or a task of it, is cancelled, or will be."""
        key = run_id, ""
        if path is not None:
            *names, task_id = path.split(".")
            for name in names:
                run_id = next(task.child_run_id for task in self._tasks(run_id) if task.task_id == name) or ""
            key = run_id, task_id
        elif run_id != "run":
            record = self.disk._runs[run_id].record
            key = record.parent_run_id or "", record.parent_task_id or ""
        self._asked.setdefault(key, self.clock.monotonic())

    def _tasks(self, run_id: str) -> list[Any]:
        stored = self.disk._runs.get(run_id)
        return [] if stored is None else list(stored.tasks.values())

    def bring_back(self, path: str) -> None:
        """Somebody retries a task by hand: with it comes back what was cancelled inside it."""
        self._asked.clear()
        run_id: str | None = "run"
        for name in path.split("."):
            found = [task.child_run_id for task in self._tasks(run_id or "") if task.task_id == name]
            run_id = found[0] if found else None
        waiting = [run_id]
        for each in waiting:
            if each is not None:
                self._cancelled_runs.discard(each)
                for task in self._tasks(each):
                    self._cancelled.discard((each, task.task_id))
                    waiting.append(task.child_run_id)

    def begins(self, ctx: Context, task: Drawn, in_office: bool) -> None:
        """See `Ledger.begins`."""
        super().begins(ctx, task, in_office)
        now = self.clock.monotonic()
        key: Key | None = (ctx._record.run_id, task.id)
        while key is not None and in_office:
            if now > min(self._asked.get(key, now), self._asked.get((key[0], ""), now)) + 1e-3:
                self.broke(f"{task.id} began although {key} was to be cancelled long ago")
            run = self.disk._runs[key[0]].record
            key = None if run.parent_run_id is None else (run.parent_run_id, run.parent_task_id or "")
        self._world.count_what_is_used()


class LimitsProcess(Process):
    """A program whose callers may be impatient."""

    world: LimitsWorld

    def call(self) -> Coroutine[Any, Any, WorkflowRun]:
        timeout = self.world.chance.choice([None, None, 0.2, 2.0]) if self.world._lives < LAST_TIMEOUT else None
        return self.flow.run_until_complete("run", self.world.limit, timeout=timeout)

    def _retry(self, path: str) -> None:
        self.world.ledger.bring_back(path)
        super()._retry(path)

    def _judge(self, error: BaseException) -> None:
        if isinstance(error, RunTimeoutError):
            self.world.ledger.figures["callers who lost patience"] += 1
        else:
            super()._judge(error)


class Passerby(LimitsProcess):
    """A program that only says a word: nothing befalls it."""

    def meets_its_fate(self, write: Callable[[], None], may_fail: bool = False) -> None:
        write()


# --- where attempts run ---------------------------------------------------------------------------------------------------


class LimitedThreads(TurnThreads):
    """Functions in later turns of the loop, some of which hang; of those that were given up, what has not begun never does."""

    def __init__(self, world: LimitsWorld, deliver: Deliver, max_threads: int = 64) -> None:
        super().__init__(world.chance, deliver, max_threads)
        self._world = world
        self._tasks: dict[Call, None] = {}

    def start(self, call: Call) -> None:
        loop, rng, variables = asyncio.get_running_loop(), self._rng, contextvars.copy_context()
        self._tasks[call] = None
        drawn = self._world.drawn.get(call.name)
        failed = call.context.attempt_number - call.context.task_instance.interruptions
        takes = LATE if drawn is not None and failed < drawn.hangs else rng.choice([0.0, 0.0, 0.01, 0.3])

        def work() -> None:
            if call.context._cancelled and call in self._tasks:
                end(Outcome(call, interrupted=True))
            elif call in self._tasks:
                result = variables.run(ThreadExecutor._run, call)
                loop.call_later(takes, end, result)

        def end(result: Any) -> None:
            self._tasks.pop(call, None)
            self._deliver(result)

        loop.call_later(rng.choice([0.0, 0.0, 0.01, 0.3]), work)

    def stop(self, call: Call) -> bool:
        call.context._cancelled = True
        self._tasks.pop(call, None)
        return False

    def cancel(self) -> None:
        for call in self._tasks:
            call.context._cancelled = True

    def close(self) -> None:
        self._tasks.clear()


class LimitsWorld(World):
    """One seed's story of a run with limits, and of those who cancel.

    Args:
        seed: decides everything.
        drawing: what flow; a random one by default.
        calm: nothing befalls anybody, and nobody cancels.
    """

    room = "simulation_limits"
    ledger: LimitsLedger

    def __init__(self, seed: int, drawing: Drawing | None = None, calm: bool = False) -> None:
        self.chance = chance = Random(f"limits {seed}")
        self.sizes = {"narrow": chance.choice([1, 1, 2]), "wide": 3}
        self.flow_options = {"pools": self.sizes, "grace_period": GRACE}
        super().__init__(seed, drawing, calm)
        self.drawing = limited(self.drawing, chance, self.sizes)
        self.drawn = dict(_by_name(self.drawing, "flow"))
        self._executors: list[Any] = []
        self._pools: dict[str, Pool] = {}
        self._cancels: dict[int, tuple[str, str | None]] = {}
        self._meddled = False
        if not calm:
            known, turns = paths(self.drawing), 20 + 10 * len(paths(self.drawing))
            for _ in range(chance.choice([0, 1, 1, 2, 4])):
                kind = chance.choice(["run", "task", "task", "task", "child"])
                self._cancels[chance.randint(1, turns)] = kind, chance.choice(known)
            self._retries += [chance.choice(known) for _ in range(chance.choice([0, 1, 2]))]

    def _make_ledger(self) -> LimitsLedger:
        return LimitsLedger(self.disk, self.clock, self)

    def _make_process(self) -> Process:
        return LimitsProcess(self)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        module: Any = lanes_room
        room: Any = pools_room
        kept = module.ThreadExecutor, module.CoroutineExecutor, room._pools
        module.ThreadExecutor = self._kept_in_sight(partial(LimitedThreads, self))
        module.CoroutineExecutor = self._kept_in_sight(CoroutineExecutor)
        room._pools = self._pools
        try:
            yield
        finally:
            module.ThreadExecutor, module.CoroutineExecutor, room._pools = kept

    def _kept_in_sight(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            self._executors.append(make(*arguments))
            return self._executors[-1]

        return made

    # --- what happens ---

    def _turn(self, number: int) -> None:
        super()._turn(number)
        cancel = self._cancels.get(number)
        if cancel is not None and self.disk.exists("run"):
            self._cancel(*cancel)

    def _cancel(self, kind: str, path: str | None) -> None:
        """Somebody cancels something: one who drives the run, or one who comes by."""
        process: Process = Passerby(self)
        if self._living and self.chance.random() < 0.5:
            process = self.chance.choice(self._living)
        run_id = "run"
        if kind != "task":
            path = None
        if kind == "child":
            inside = sorted(run_id for run_id in self.disk._runs if run_id != "run")
            run_id = self.chance.choice(inside) if inside else run_id
        self._meddled = True
        try:
            done = process.flow.cancel(run_id) if path is None else process.flow.cancel_task(run_id, path)
        except UnknownTaskError:  # into a subflow that has not begun
            return
        except Dead:
            return
        except RunMismatchError:  # one that its subflow left behind stands for itself
            if outermost(self.disk, run_id) == "run":
                raise
            return
        except StoreError:
            if not process.store_failed:
                raise
            return
        except (OwnershipLostError, RunOwnedError):  # it was robbed in the middle of it
            if not self.thieves:
                raise
            return
        if done:
            self.ledger.figures[f"{'runs' if path is None else 'tasks'} cancelled"] += 1
            self.ledger.asked(run_id, path)

    def count_what_is_used(self) -> None:
        """Look whether more attempts are under way than there is room for; those that were told to end do not count."""
        used: Counter[str] = Counter()
        for executor in self._executors:
            for call in executor._tasks:
                drawn = self.drawn.get(call.name)
                if drawn is not None and "pool" in drawn.options and not call.context._cancelled:
                    used[drawn.options["pool"]] += drawn.options["pool_weight"]
        for pool, slots in used.items():
            if slots > self.sizes[pool]:
                self.ledger.broke(f"{slots} slots of pool {pool} are in use, and it has {self.sizes[pool]}")
        for loop, threads in zip(self._executors[::2], self._executors[1::2]):  # those of one drive
            busy = sum(not call.context._cancelled for executor in (loop, threads) for call in executor._tasks)
            if self.limit and busy > self.limit:
                self.ledger.broke(f"{busy} attempts are under way, with max_concurrency={self.limit}")

    # --- the story ---

    async def _tell(self) -> None:
        await super()._tell()
        if self.ledger.broken is None:
            self._look_whether_it_is_consistent()
        self._cancels.clear()
        self._turns.clear()
        self._fates.clear()
        if self.ledger.broken is None and self._meddled:
            await self._mend()
        await asyncio.sleep(60)  # for the deaf
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left and self.ledger.broken is None:
            self.ledger.broke(f"when all was over, there were still {left}")
        for pool in self._pools.values():
            if (pool._used or pool._waiting) and self.ledger.broken is None:
                self.ledger.broke(f"when all was over, there was still {pool!r}")

    async def _mend(self) -> None:
        """Somebody retries by hand all that did not succeed, and then it must come to what was drawn."""
        process = Passerby(self)
        for path in paths(self.drawing):  # inside a subflow that succeeded, too: something may have stayed skipped there
            found = self.disk.load("run").get_all_tasks_recursive(self.disk)
            if path in found and found[path].state != "success":
                self.ledger.bring_back(path)
                self.ledger.resetting = True
                process.flow.manual_retry("run", path)
                self.ledger.resetting = False
        self.ledger.figures["mended"] += 1
        self._living.append(process)
        await process.flow.run_until_complete("run", self.limit)
        self._living.remove(process)

    def _look_whether_it_is_consistent(self) -> None:
        found = outcome(self.disk, "run")
        if self._meddled:
            problem = _inconsistency(self.drawing, found, bool(self.ledger.figures["retries by hand"]))
            if problem is not None:
                self.ledger.broke(f"{problem} in\n{found}")
        else:
            self._look_at_the_end()

    def _look_at_the_end(self) -> None:
        found, wanted = outcome(self.disk, "run"), expected(self.drawing)
        if _without_reasons(found) != _without_reasons(wanted):
            self.ledger.broke(f"G3: it came to\n{found}\nand not to\n{wanted}")
        if not self.ledger.is_at_rest():
            self.ledger.broke("something is left that says it is at work")


def _by_name(drawing: Drawing, flow_name: str) -> Iterator[tuple[str, Drawn]]:
    for task in drawing:
        if task.child:
            yield from _by_name(task.child, f"{flow_name} {task.id}")
        else:
            yield f"{flow_name}.{task.id}", task


def _without_reasons(found: Mapping[str, Any]) -> dict[str, Any]:
    """Why a task failed names the attempt, and how many of these there were depends on what befell it."""
    tasks = {
        task_id: (state, _without_reasons(output) if isinstance(output, dict) and "tasks" in output else output)
        for task_id, (state, _, output) in found["tasks"].items()
    }
    return {**found, "tasks": tasks}


def _inconsistency(drawing: Drawing, found: Mapping[str, Any], retried: bool) -> str | None:
    """What is wrong with an outcome in which people meddled."""
    tasks = found["tasks"]
    values = {
        task_id: output["result"] if isinstance(output, dict) and "tasks" in output else output
        for task_id, (_, _, output) in tasks.items()
    }
    states = {task_id: state for task_id, (state, _, _) in tasks.items()}
    if found["state"] not in TERMINAL_STATES or not all(state in TERMINAL_STATES for state in states.values()):
        return "something has not ended"
    if found["state"] != "cancelled":
        failed = any(state in ("failed", "cancelled") for state in states.values())
        if found["state"] != ("failed" if failed else "success"):
            return f"the run is {found['state']}"
    for task in drawing:
        state, output = states[task.id], tasks[task.id][2]
        complete = all(states[other] == "success" for other in task.after)
        if state == "skipped" and complete and not retried:
            return f"{task.id} was skipped for no reason"
        if state in ("success", "failed") and not complete and not retried:
            return f"{task.id} ran though not all upstream of it succeeded"
        if task.child:
            if isinstance(output, dict) and "tasks" in output:
                problem = _inconsistency(task.child, output, retried)
                if problem is not None and state in ("success", "failed", "cancelled"):
                    return f"{task.id}: {problem}"
                if state in ("success", "failed") and output["state"] != state:
                    return f"{task.id} is {state}, and its run {output['state']}"
            continue
        if state in ("success", "failed") and (state == "failed") != task.fails:
            return f"{task.id} is {state}, and was drawn otherwise"
        if state == "success" and complete and output != [task.id, tuple(values[other] for other in task.after)]:
            return f"{task.id} has a wrong output"
    return None


def simulate_limits(seed: int, shape: str | None = None, calm: bool = False) -> Counter[str]:
    """Let one seed's story happen, of one of the shapes or of a random flow."""
    return LimitsWorld(seed, SHAPES[shape] if shape is not None else None, calm).run()


def main(first: int, many: int = 1) -> Counter[str]:
    """Simulate so many seeds, one after the other."""
    figures: Counter[str] = Counter()
    for seed in range(first, first + many):
        figures += simulate_limits(seed)
    return figures


if __name__ == "__main__":
    began = time.perf_counter()
    told = main(*map(int, sys.argv[1:]))
    print(dict(told), f"in {time.perf_counter() - began:.1f} s")
