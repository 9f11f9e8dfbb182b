"""Anything that people, machines and disks do to runs, in any order, against a contract of plain dicts: the same on every store.

Hypothesis makes up the stories, and makes them short where one goes wrong; skipped where it is not installed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="the state machine needs Hypothesis: pip install -r requirements-dev.txt")

from hypothesis import HealthCheck, settings  # noqa: E402 - only once it is known to be there
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule  # noqa: E402

from .. import (  # noqa: E402
    Ask,
    AsyncFlow,
    Context,
    GraphChangedError,
    OwnershipLostError,
    RunNotFoundError,
    RunOwnedError,
    Store,
    StoreError,
    TaskSucceeded,
    UnknownTaskError,
    WorkflowRun,
)
from ..cancelling import heed  # noqa: E402
from ..runs import Runs  # noqa: E402
from ..session import claimed  # noqa: E402
from .conftest import FakeClock, make_store  # noqa: E402
from .histories import check_history  # noqa: E402
from .shapes import MANY  # noqa: E402
from .stepped_loop import SteppedLoop, TurnWorker, turns_for_threads  # noqa: E402
from .test_crash_sweep import count_writes  # noqa: E402

NO_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
STOPS = ("dies", "fails", "is robbed", "is stopped")
ENDED = ("success", "failed", "cancelled")
INSIDE = {"a": (), "b": ("a",)}
"""The tasks of each subflow, and what each depends on."""

# --- the contract ---------------------------------------------------------------------------------------------------------

Tasks = dict[str, dict[str, Any]]


class Model:
    """What the flow and its runs must be, as plain dicts.

    A task is a dict: `state` is "waits", "success", "failed", "skipped" or "cancelled"; `value` is its output; `inside` are the
    tasks of a subflow's run, by id, or None where it has none, and `over` is whether that run has ended.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        """As declared: what each depends on (`after`), its `retries`, and whether it is a `subflow`."""
        self.doing: dict[str, tuple[str, int]] = {}
        """What each task, by its path, would do if it ran now: ("returns" | "pushes" | "fails", a number)."""
        self.runs: dict[str, dict[str, Any]] = {}
        """The state and the tasks of each run."""

    def make(self, run_id: str) -> None:
        self.runs[run_id] = {"state": "scheduled", "tasks": {task_id: self.new() for task_id in self.tasks}}

    @staticmethod
    def new() -> dict[str, Any]:
        return {"state": "waits", "value": None, "inside": None, "over": None}

    def adopt(self, run_id: str) -> None:
        """The run takes up the tasks that the flow has got since."""
        for task_id in self.tasks:
            self.runs[run_id]["tasks"].setdefault(task_id, self.new())

    def go_on(self, run_id: str) -> None:
        """What becomes of a run that is taken up again, before any of its tasks runs."""
        if self.runs[run_id]["state"] not in ENDED:
            self.adopt(run_id)

    def is_current(self, run_id: str) -> bool:
        return set(self.runs[run_id]["tasks"]) == set(self.tasks)

    # --- what a drive to the end makes of a run ---

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run after a drive that nothing disturbs."""
        run = self.runs[run_id]
        if run["state"] in ENDED:
            return run
        tasks = self._ended({key: self.tasks[key]["after"] for key in self.tasks}, run["tasks"], "")
        failed = any(task["state"] in ("failed", "cancelled") for task in tasks.values())
        return {"state": "failed" if failed else "success", "tasks": tasks}

    def _ended(self, graph: dict[str, Any], before: Tasks, path: str) -> Tasks:
        tasks: Tasks = {}
        for task_id, after in graph.items():
            task = before[task_id]
            if task["state"] != "waits":
                tasks[task_id] = task
            elif any(tasks[other]["state"] != "success" for other in after):
                tasks[task_id] = {**task, "state": "skipped"}
            elif not path and self.tasks[task_id]["subflow"]:
                tasks[task_id] = self._subflow(task_id, task)
            else:
                tasks[task_id] = self.runs_as(path + task_id, [tasks[other]["value"] for other in after])
        return tasks

    def _subflow(self, task_id: str, task: dict[str, Any]) -> dict[str, Any]:
        inside = task["inside"] or {inner: self.new() for inner in INSIDE}
        if task["over"]:  # it failed, or was cancelled: what did not succeed is tried again
            inside = {name: inner if inner["state"] == "success" else self.new() for name, inner in inside.items()}
        inside = self._ended(INSIDE, inside, f"{task_id}.")
        if inside["a"]["state"] == inside["b"]["state"] == "success":
            return {"state": "success", "value": inside["b"]["value"], "inside": inside, "over": True}
        return {"state": "failed", "value": None, "inside": inside, "over": True}

    def runs_as(self, path: str, pulled: list[Any]) -> dict[str, Any]:
        """A task that runs now."""
        verb, number = self.doing[path]
        if verb == "fails":
            return {**self.new(), "state": "failed"}
        return {**self.new(), "state": "success", "value": (path, verb, number, pulled)}

    # --- a retry by hand ---

    def reset(self, run_id: str, path: str, downstream: bool) -> None:
        """Set a task back. Raises KeyError where the path leads into a subflow that has not begun."""
        self.adopt(run_id)
        run = self.runs[run_id]
        task_id, _, inner = path.partition(".")
        task = run["tasks"][task_id]
        goes_on = bool(inner) or task["state"] not in ("success", "skipped")
        inside = task["inside"]
        if inner:
            if inside is None:
                raise KeyError(path)
            for name in [inner, *(["b"] if downstream and inner == "a" else [])]:
                inside[name] = self.new()
        for other in self._downstream(task_id) if downstream else [task_id]:
            run["tasks"][other] = self.new()
        if goes_on:
            run["tasks"][task_id].update(inside=inside, over=False if inner else task["over"])
        run["state"] = "scheduled"

    # --- a cancellation ---

    def cancel(self, run_id: str, path: str | None) -> bool:
        """Cancel a run, or a task of it, that nobody drives. Raises KeyError where the path leads to nothing."""
        run = self.runs[run_id]
        if path is None:
            if run["state"] in ENDED:
                return False
            run["state"] = "cancelled"
            for task in run["tasks"].values():
                self._cancel(task)
            return True
        task_id, _, inner = path.partition(".")
        task = run["tasks"][task_id]
        if inner:
            if task["inside"] is None:
                raise KeyError(path)
            task = task["inside"][inner]
        if task["state"] != "waits":
            return False
        self._cancel(task)
        return True

    def _cancel(self, task: dict[str, Any]) -> None:
        if task["inside"] is not None and not task["over"]:
            task["over"] = True
            for inner in task["inside"].values():
                self._cancel(inner)
        if task["state"] == "waits":
            task["state"] = "cancelled"

    def _downstream(self, task_id: str) -> set[str]:
        found = {task_id}
        for other, task in self.tasks.items():
            if found.intersection(task["after"]):
                found.add(other)
        return found


# --- the store ------------------------------------------------------------------------------------------------------------


def stored(store: Store, run: WorkflowRun) -> dict[str, Any]:
    """A run as the store has it, in the words of the model; a task under way waits."""
    tasks: Tasks = {}
    for task in run.tasks.values():
        child = stored(store, store.load(task.child_run_id)) if task.child_run_id is not None else None
        state = task.state.value if task.state not in ("scheduled", "running") else "waits"
        inside, over = (None, None) if child is None else (child["tasks"], child["state"] in ENDED)
        tasks[task.task_id] = {"state": state, "value": task.output, "inside": inside, "over": over}
    return {"state": run.state.value, "tasks": tasks}


def leaves(tasks: Tasks, path: str = "") -> dict[str, dict[str, Any]]:
    """All tasks by path, those inside subflows too."""
    found: dict[str, dict[str, Any]] = {}
    for task_id, task in tasks.items():
        found[path + task_id] = task
        found.update(leaves(task["inside"] or {}, f"{path}{task_id}."))
    return found


class Dead(BaseException):
    """The process is gone."""


# --- the machine ----------------------------------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Does to the engine what it says to the model, and compares."""

    kind = "memory"
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.clock = FakeClock()
        self.folder = Path(tempfile.mkdtemp(prefix="night-batch-"))
        self.store = make_store(self.kind, self.folder)
        self.numbers = count()
        self.executed: list[tuple[str, str]] = []
        self.told: set[tuple[str, str]] = set()

    def teardown(self) -> None:
        for run_id in self.store.list_runs():
            check_history(self.store, run_id)
        self.store.close()
        shutil.rmtree(self.folder)

    # --- flows as the model declares them ---

    def flow(self, store: Store | None = None) -> AsyncFlow:
        flow = AsyncFlow("flow", self.store if store is None else store, clock=self.clock)
        flow._worker = TurnWorker("store")
        flow.events.subscribe(lambda event: self.told.add((event.run_id, event.task_id)), TaskSucceeded)
        for task_id, task in self.model.tasks.items():
            if task["subflow"]:
                child = AsyncFlow(f"flow {task_id}")
                for inner, after in INSIDE.items():
                    child.add_task_definition(
                        inner, self._function(f"{task_id}.{inner}", after), dependencies=after, max_interruptions=MANY
                    )
                flow.add_subflow_definition(task_id, child, dependencies=task["after"], max_interruptions=MANY)
            else:
                flow.add_task_definition(
                    task_id,
                    self._function(task_id, task["after"]),
                    dependencies=task["after"],
                    max_retries=task["retries"],
                    retry_delay=5,
                    max_interruptions=MANY,
                )
        return flow

    def _function(self, path: str, after: Any) -> Any:
        def work(ctx: Context) -> Any:
            self.executed.append((ctx.idempotency_key.rpartition("/")[0], ctx.task_id))
            pulled = [ctx.pull(other) for other in after]
            verb, number = self.model.doing[path]
            if verb == "fails":
                raise ValueError(path)
            if verb == "pushes":
                ctx.push((path, verb, number, pulled))
                return None
            return (path, verb, number, pulled)

        async def work_on_the_loop(ctx: Context) -> Any:
            await asyncio.sleep(0)
            return work(ctx)

        return work if len(path) % 2 else work_on_the_loop

    # --- rules: declaring ---

    @initialize(kinds=st.lists(st.booleans(), min_size=1, max_size=4))
    def there_are_tasks(self, kinds: list[bool]) -> None:
        self._declare((), 0, False)
        for subflow in kinds:
            self._declare((next(reversed(self.model.tasks)),), 1, subflow)

    @initialize(target=runs)
    def there_is_a_run(self) -> str:
        return self._make_a_run(own_id=True)

    @precondition(lambda self: len(self.model.tasks) < 7)
    @rule(data=st.data(), retries=st.integers(0, 2), subflow=st.sampled_from([False, False, True]))
    def add_a_task(self, data: st.DataObject, retries: int, subflow: bool) -> None:
        others = st.lists(st.sampled_from(sorted(self.model.tasks)), max_size=2, unique=True)
        self._declare(tuple(data.draw(others)), retries, subflow)

    def _declare(self, after: tuple[str, ...], retries: int, subflow: bool) -> None:
        task_id = f"{'sub' if subflow else 'task'}{len(self.model.tasks)}"
        self.model.tasks[task_id] = {"after": after, "retries": retries, "subflow": subflow}
        for path in [f"{task_id}.{inner}" for inner in INSIDE] if subflow else [task_id]:
            self.model.doing[path] = ("returns", next(self.numbers))

    @rule(data=st.data(), verb=st.sampled_from(["returns", "pushes", "fails"]))
    def a_task_will_do_something_else(self, data: st.DataObject, verb: str) -> None:
        self.model.doing[data.draw(st.sampled_from(sorted(self.model.doing)))] = (verb, next(self.numbers))

    # --- rules: running ---

    @rule(target=runs, own_id=st.booleans())
    def start_a_run(self, own_id: bool) -> str:
        return self._make_a_run(own_id)

    def _make_a_run(self, own_id: bool) -> str:
        wanted = f"run {next(self.numbers)}" if own_id else None
        run_id = self.flow().init_run(run_id=wanted)
        self.model.make(run_id)
        if own_id:  # the same id again is the same run
            assert self.flow().init_run(run_id=wanted) == run_id
        return run_id

    @rule(run_id=runs, seed=st.integers(0, 1000))
    def drive_to_the_end(self, run_id: str, seed: int) -> None:
        self._drive(run_id, seed, lambda number, done, call: None)
        if run_id in self.model.runs:
            self.model.go_on(run_id)
            self.model.runs[run_id] = self.model.ended(run_id)

    @rule(run_id=runs, seed=st.integers(0, 1000), what=st.sampled_from(STOPS), write=st.integers(1, 9), done=st.booleans())
    def drive_until_something_happens(self, run_id: str, seed: int, what: str, write: int, done: bool) -> None:
        self._disturb(run_id, seed, what, write, done)

    def _disturb(self, run_id: str, seed: int, what: str, write: int, done: bool) -> None:
        happened = False
        thieves: list[Store] = []

        def at_each(number: int, is_done: bool, call: asyncio.Task[WorkflowRun] | None) -> None:
            nonlocal happened
            if happened and what == "dies":
                raise Dead
            if happened or (number, is_done) != (write, done):
                return
            happened = True
            if what == "dies":
                raise Dead
            if what == "fails":
                raise StoreError("the store", "it fails on purpose")
            if what == "is robbed":
                thief = self.store if self.kind == "memory" else make_store(self.kind, self.folder)
                thieves.append(thief)
                lease = type(thief).claim(thief, run_id, force=True)
                type(thief).release(thief, lease)
            elif call is not None:
                call.cancel()

        reasons: dict[str, tuple[type[BaseException], ...]] = {
            "dies": (Dead,),
            "fails": (StoreError,),
            "is robbed": (OwnershipLostError,),
            "is stopped": (asyncio.CancelledError,),
        }
        with suppress(*reasons[what]):
            self._drive(run_id, seed, at_each)
        for thief in thieves:
            if thief is not self.store:
                thief.close()
        if what in ("dies", "fails"):  # a store that failed may not know any more that it owns the run
            self.reopen()
        self._take_in(run_id)

    @rule(target=runs, seed=st.integers(0, 1000), what=st.sampled_from(STOPS), write=st.integers(2, 9), done=st.booleans())
    def something_happens_to_a_new_run(self, seed: int, what: str, write: int, done: bool) -> str:
        run_id = self._make_a_run(own_id=False)
        self._disturb(run_id, seed, what, write, done)
        return run_id

    def _drive(self, run_id: str, seed: int, at_each: Callable[[int, bool, Any], None]) -> None:
        """Drive a run on a loop of its own, with something that is called around each write."""
        rng = Random(seed)
        loop = SteppedLoop(rng.shuffle, lambda turn: None)
        call: asyncio.Task[WorkflowRun] | None = None
        self.told.clear()
        self.executed.clear()
        known = run_id in self.model.runs
        open_before = known and self.model.runs[run_id]["state"] not in ENDED
        finished = self._finished(run_id) if open_before else set[tuple[str, str]]()
        changed = known and not self.model.is_current(run_id) and open_before

        async def work() -> WorkflowRun:
            nonlocal call
            flow = self.flow()
            if changed:
                with pytest.raises(GraphChangedError):
                    await flow.run_until_complete(run_id)
            count_writes(self.store, lambda number, done: at_each(number, done, call))
            call = loop.create_task(flow.run_until_complete(run_id, rng.choice([0, 1, 2]), adopt_graph=changed))
            await asyncio.wait([call])
            return call.result()

        try:
            with turns_for_threads(rng):
                run = loop.run_until_complete(work())
            assert run == self.store.load(run_id)
            assert known
        except RunNotFoundError:
            assert not known
        finally:
            loop.close()
            for name in ("commit", "commit_at_once", "claim", "release"):
                vars(self.store).pop(name, None)
        again = finished.intersection(self.executed)
        assert not again, f"G1: {again} had succeeded, and ran again"

    def _finished(self, run_id: str) -> set[tuple[str, str]]:
        """The tasks that have succeeded, each with the id of the run it is in."""
        tasks = self.store.load(run_id).get_all_tasks_recursive(self.store)
        found: set[tuple[str, str]] = set()
        for path, task in tasks.items():
            outer = path.rpartition(".")[0]
            inside = tasks[outer].child_run_id if outer else run_id
            if task.state == "success" and inside is not None:
                found.add((inside, task.task_id))
        return found

    def _take_in(self, run_id: str) -> None:
        """After a drive that was cut short, what is stored lies between what was and what would have been; take it as it is."""
        if run_id not in self.model.runs:
            return
        self.model.go_on(run_id)
        before, end = self.model.runs[run_id], self.model.ended(run_id)
        now = stored(self.store, self.store.load(run_id))
        was, is_now, would_be = leaves(before["tasks"]), leaves(now["tasks"]), leaves(end["tasks"])
        for path, task in is_now.items():
            old, new = was.get(path, self.model.new()), would_be[path]
            facts = task["state"], task["value"]
            allowed = [(old["state"], old["value"]), (new["state"], new["value"])]
            if old["state"] in ("failed", "cancelled") and "." in path:  # of a subflow that is tried again
                allowed.append(("waits", None))
            assert facts in allowed, f"{path} is {facts}, and not one of {allowed}"
            if old["state"] == "skipped" and "." in path:
                allowed.append(("waits", None))
        inner = {task.child_run_id: path for path, task in self.store.load(run_id).tasks.items() if task.child_run_id is not None}
        for told_run, task_id in self.told:
            path = task_id if told_run == run_id else f"{inner[told_run]}.{task_id}"
            assert is_now[path]["state"] == "success", f"the success of {path} was told, and is lost"
        self.model.runs[run_id] = now

    # --- rules: around runs ---

    @rule(run_id=runs, data=st.data(), downstream=st.booleans())
    def retry_by_hand(self, run_id: str, data: st.DataObject, downstream: bool) -> None:
        path = data.draw(st.sampled_from(sorted({*self.model.tasks, *self.model.doing})))
        flow = self.flow()
        if run_id not in self.model.runs:
            with pytest.raises(RunNotFoundError):
                flow.manual_retry(run_id, path)
            return
        known = self.model.runs[run_id]["tasks"]
        task_id, _, inner = path.partition(".")
        if inner and known.get(task_id, self.model.new())["inside"] is None:
            with pytest.raises(UnknownTaskError):
                flow.manual_retry(run_id, path, adopt_graph=True)
            return
        flow.manual_retry(run_id, path, reset_downstream=downstream, adopt_graph=True)
        self.model.reset(run_id, path, downstream)

    @rule(run_id=runs, data=st.data(), whole=st.booleans())
    def cancel(self, run_id: str, data: st.DataObject, whole: bool) -> None:
        path = None if whole else data.draw(st.sampled_from(sorted({*self.model.tasks, *self.model.doing})))
        runs = self._runs_of(self.flow())
        if run_id not in self.model.runs:
            with pytest.raises(RunNotFoundError):
                runs.cancel(run_id, path)
            return
        try:
            expected = self.model.cancel(run_id, path)
        except KeyError:  # it was declared after the run was made, or stands in a subflow that has not begun
            with pytest.raises(UnknownTaskError):
                runs.cancel(run_id, path)
        else:
            assert runs.cancel(run_id, path) is expected

    @rule(run_id=runs, data=st.data(), whole=st.booleans())
    def ask_an_owner_who_dies(self, run_id: str, data: st.DataObject, whole: bool) -> None:
        """What was asked is done when the run is next taken."""
        path = None if whole else data.draw(st.sampled_from(sorted({*self.model.tasks, *self.model.doing})))
        if run_id not in self.model.runs:
            return
        lease = self.store.claim(run_id)
        self.store.ask(run_id, Ask(run_id, path))
        self.store.release(lease)
        self.reopen()
        with claimed(self.store, run_id) as lease:
            heed(self.store, self.clock, lease)
        with suppress(KeyError):
            self.model.cancel(run_id, path)
        assert self.store.asked(run_id) == []

    @staticmethod
    def _runs_of(flow: AsyncFlow) -> Runs:
        return Runs(flow.definition, flow.store, flow._clock, flow._make_id, flow._worker, flow.events)

    @rule()
    def reopen(self) -> None:
        """The process ends, and another one comes."""
        if self.kind == "memory":
            self.store._leases.clear()  # type: ignore[attr-defined]
        else:
            self.store.close()
            self.store = make_store(self.kind, self.folder)

    @rule(run_id=runs)
    def somebody_else_owns_it(self, run_id: str) -> None:
        if run_id not in self.model.runs:
            return
        other = self.store if self.kind == "memory" else make_store(self.kind, self.folder)
        lease = other.claim(run_id)
        state = self.model.runs[run_id]["state"]
        if state not in ENDED:
            with pytest.raises(RunOwnedError):
                self._drive(run_id, 0, lambda number, done, call: None)
        with pytest.raises(RunOwnedError):
            self.flow().manual_retry(run_id, next(iter(self.model.tasks)), adopt_graph=True)
        other.release(lease)
        if other is not self.store:
            other.close()

    @rule(seconds=st.sampled_from([-3600, -1, 1, 3600]))
    def set_the_clock(self, seconds: int) -> None:
        self.clock.wall += seconds * 1_000_000

    @rule()
    def prune(self) -> None:
        # An inner run that goes on keeps the whole tree; one that a retry by hand left behind is cancelled, and so has ended.
        gone = {run_id for run_id in self.model.runs if self._has_ended(run_id)}
        removed = set(self.store.prune())
        assert removed & self.model.runs.keys() == gone
        for run_id in gone:
            del self.model.runs[run_id]

    def _has_ended(self, run_id: str) -> bool:
        inside = self.store.list_children(run_id)
        return self.store.load(run_id).state in ENDED and all(map(self._has_ended, inside))

    # --- what always holds ---

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        roots = [run.id for run in self.store.get_all_runs(include_tasks=False) if run.parent_run_id is None]
        assert set(roots) == self.model.runs.keys()
        for run_id, run in self.model.runs.items():
            found = stored(self.store, self.store.load(run_id))
            assert found["tasks"] == run["tasks"]
            assert found["state"] == run["state"]

    @invariant()
    def nothing_is_found_wrong(self) -> None:
        assert self.store.check() == []


class JsonMachine(Machine):
    """The same on a folder of JSON files."""

    kind = "json"


class SQLiteMachine(Machine):
    """The same on an SQLite file."""

    kind = "sqlite"


MACHINES: tuple[type[Machine], ...] = (Machine, JsonMachine, SQLiteMachine)


def bounds(stories: int, rules: int, **more: Any) -> settings:
    """How many stories of how many rules."""
    return settings(
        max_examples=stories,
        stateful_step_count=rules,
        deadline=None,
        database=None,
        suppress_health_check=NO_CHECKS,
        **more,
    )


short = bounds(15, 20, derandomize=True)
TestInMemory = Machine.TestCase
TestInMemory.settings = bounds(60, 25, derandomize=True)
TestInJson = JsonMachine.TestCase
TestInJson.settings = short
TestInSQLite = SQLiteMachine.TestCase
TestInSQLite.settings = short
