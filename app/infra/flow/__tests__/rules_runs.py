"""Runs of sketches on the engine, calm, disturbed again and again, and mended by hand; compared with the reference."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .. import AsyncFlow, Changes, MemoryStore, Store
from .conftest import FakeClock, around_commits, make_store
from .reference import Ended, Sketch, evaluate
from .sketches import PARAMS, Witness, build, check_pulls, check_reasons, mend, outcome, random_sketch, runs_of, wanted

RUN = "run"


class Crash(BaseException):
    """The process is gone: nothing after it happens."""


@dataclass(frozen=True)
class Storm:
    """What disturbs a run at one of its commits, before or after it is made: a "crash" of the process, a "cancel" of the call."""

    how: str
    commit: int
    after: bool

    def __str__(self) -> str:
        return f"{self.how} {'after' if self.after else 'before'} commit {self.commit}"


def random_storms(rng: Random, at_most: int = 4) -> list[Storm]:
    """Some, one for each life of the process."""
    return [
        Storm(rng.choice(["crash", "cancel"]), rng.choice([1, 2, 3, 4, 5, 7, 9, 12]), rng.random() < 0.5)
        for _ in range(rng.randint(0, at_most))
    ]


class Shelf:
    """Where the store of a run lies; each life of the process opens it anew, but for one in memory."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind, self._folder = kind, folder
        self._in_memory = MemoryStore() if kind == "memory" else None

    @contextmanager
    def open(self) -> Iterator[Store]:
        """The store, for one life."""
        if self._in_memory is not None:
            yield self._in_memory
            return
        with make_store(self._kind, self._folder) as store:
            yield store


class Story:
    """One run of a sketch through all lives of its process."""

    def __init__(self, sketch: Sketch, shelf: Shelf, limit: int = 0) -> None:
        self.sketch, self.shelf, self.limit = sketch, shelf, limit
        self.clock = FakeClock()
        self.witnesses: list[Witness] = []
        self.mended = False
        self.set_back = False
        """Whether something was, by hand."""

    def live(self, storm: Storm | None = None) -> bool:
        """Drive the run until it ends, or the storm comes; whether it ended."""
        witness = Witness(mended=self.mended)  # one for each life: threads of an earlier one may still be talking
        self.witnesses.append(witness)
        with self.shelf.open() as store:
            if store.exists(RUN):
                witness.remember_successes(store, RUN)
            try:
                asyncio.run(self._drive(store, witness, storm))
            except (Crash, asyncio.CancelledError):
                return False
            return True

    async def _drive(self, store: Store, witness: Witness, storm: Storm | None) -> None:
        driver = asyncio.current_task()
        assert driver is not None
        commits = 0

        def stormy(commit: Callable[[], None], changes: Changes) -> None:
            nonlocal commits
            commits += 1
            now = storm is not None and commits == storm.commit
            if now and storm is not None and not storm.after:
                strike(storm)
            commit()
            if now and storm is not None and storm.after:
                strike(storm)

        def strike(storm: Storm) -> None:
            if storm.how == "crash":
                raise Crash
            driver.cancel()

        undo = around_commits(store, stormy)
        try:
            await self.drive(store, witness)
        finally:
            undo()

    async def drive(self, store: Store, witness: Witness) -> None:
        """Make the run, or take it up, and drive it."""
        flow = self.flow(store, witness)
        flow.init_run(PARAMS, run_id=RUN)
        await flow.run_until_complete(RUN, self.limit)

    def flow(self, store: Store, witness: Witness | None = None) -> AsyncFlow:
        """The flow of the sketch, as a new process would make it."""
        return build(self.sketch, witness or Witness(), store=store, clock=self.clock)

    def through(self, storms: Sequence[Storm]) -> None:
        """Live through all storms, and then to the end."""
        if not any(self.live(storm) for storm in storms):
            assert self.live()

    def check(self) -> None:
        """Hold what the run came to against the reference."""
        ended = evaluate(mend(self.sketch) if self.mended else self.sketch, PARAMS)
        with self.shelf.open() as store:
            found = outcome(store, RUN)
            if self.set_back:
                drop_leftovers(found, wanted(ended))
            assert found == wanted(ended), differences(found, wanted(ended))
            declared = [task.id for task in self.sketch]
            assert list(found["tasks"])[: len(declared)] == declared, "the items stand after the tasks that were declared"
            runs = runs_of(store, RUN, self.sketch, ended)
            check_reasons(runs)
            assert store.check() == []
            if not self.set_back:
                for run_id in runs:
                    successes = [attempt.task_id for attempt in store.list_attempts(run_id) if attempt.result == "success"]
                    assert len(successes) == len(set(successes)), f"{successes} were not each done once"
        for witness in self.witnesses:
            assert witness.complaints == []
            check_pulls(witness, runs)
        self.witnesses.clear()

    def mend(self, rng: Random) -> int:
        """Have all functions succeed from now on, and set back each task that failed of itself; how many were.

        Of a mapped task now and then the whole, which sets back all its items that failed.
        """
        ended = evaluate(self.sketch, PARAMS)
        self.mended = self.set_back = True
        retried = 0
        with self.shelf.open() as store:
            flow = self.flow(store)
            for path in failed_of_themselves(self.sketch, ended):
                task = find(store, RUN, path)
                if task != "failed":  # it is downstream of one that was set back
                    continue
                whole = path.rpartition("[")[0] if path.endswith("]") else ""
                flow.manual_retry(RUN, whole if whole and rng.random() < 0.3 else path, reset_downstream=True)
                assert find(store, RUN, path) in ("scheduled", None), f"{path} was not set back"
                retried += 1
        return retried

    def again(self, rng: Random) -> list[str]:
        """Set back a few tasks or items, however they ended, with all that is downstream, or one alone; which."""
        paths = all_paths(self.sketch, evaluate(self.sketch, PARAMS))
        chosen = [rng.choice(paths) for _ in range(rng.randint(1, 3))]
        self.set_back_all(chosen, alone=len(chosen) == 1 and rng.random() < 0.5)
        return chosen

    def set_back_all(self, paths: Sequence[str], alone: bool = False) -> None:
        """Set back the tasks at these paths, with all that is downstream unless alone."""
        self.set_back = True
        with self.shelf.open() as store:
            flow = self.flow(store)
            for path in paths:
                if find(store, RUN, path) not in (None, "scheduled"):
                    flow.manual_retry(RUN, path, reset_downstream=not alone)


def drop_leftovers(found: dict[str, Any], right: dict[str, Any]) -> None:
    """Forget skipped items that are not there any more, since what they belong to was set back and came to fewer, or to none."""
    for path, task in list(found["tasks"].items()):
        if path.endswith("]") and path not in right["tasks"] and task[0] == "skipped":
            del found["tasks"][path]
        elif len(task) == len(right["tasks"].get(path, ())) == 3:
            drop_leftovers(task[2], right["tasks"][path][2])


def differences(found: Any, right: Any, path: str = "run") -> str:
    """What is not as it should be, line by line."""
    if found == right:
        return ""
    if isinstance(found, dict) and isinstance(right, dict):
        there: dict[str, Any] = found
        keys = dict.fromkeys([*there, *right])
        return "".join(differences(there.get(key, "nothing"), right.get(key, "nothing"), f"{path} {key}") for key in keys)
    if isinstance(found, tuple) and len(found) == len(right) == 3:
        return differences(found[:2], right[:2], path) + differences(found[2], right[2], path)
    return f"\n{path}: {found!r}, and not {right!r}"


def all_paths(sketch: Sketch, ended: Ended, before: str = "") -> list[str]:
    """The dotted paths of all tasks and items."""
    found: list[str] = []
    for task in sketch:
        end = ended.tasks[task.id]
        for path, one in [(task.id, end), *((f"{task.id}[{key}]", item) for key, item in (end.items or {}).items())]:
            found.append(before + path)
            if one.inside is not None:
                found.extend(all_paths(task.child, one.inside, f"{before}{path}."))
    return found


def find(store: Store, run_id: str, path: str) -> str | None:
    """The state of the task at a dotted path; none if there is no such task, or not any more."""
    run = store.load(run_id)
    steps = re.findall(r"[^.\[]+(?:\[.*?\])?", path)  # a dot in brackets belongs to the key
    for task_id in steps[:-1]:
        child = run.tasks[task_id].child_run_id if task_id in run.tasks else None
        if child is None:
            return None
        run = store.load(child)
    return run.tasks[steps[-1]].state.value if steps[-1] in run.tasks else None


def failed_of_themselves(sketch: Sketch, ended: Ended, before: str = "") -> list[str]:
    """The dotted paths of the tasks and items whose attempts failed, upstreams first."""
    found: list[str] = []
    for task in sketch:
        end = ended.tasks[task.id]
        for path, one in [(task.id, end), *((f"{task.id}[{key}]", item) for key, item in (end.items or {}).items())]:
            if one.why == "attempts":
                found.append(before + path)
            elif one.inside is not None:
                found.extend(failed_of_themselves(task.child, one.inside, f"{before}{path}."))
    return found


# --- ways to go about it --------------------------------------------------------------------------------------------------

Tell = Callable[[str], object]
"""Is told what is good to know of a story that goes wrong."""


def drawn(rng: Random, kind: str, folder: Path, tell: Tell) -> Story:
    """A run of a random sketch, of which a random number of attempts may be under way at once."""
    sketch = random_sketch(rng)
    tell("\n".join(map(repr, sketch)))
    return Story(sketch, Shelf(kind, folder), rng.choice([0, 0, 1, 2]))


def calm(rng: Random, kind: str, folder: Path, tell: Tell) -> None:
    """A run that nobody disturbs."""
    story = drawn(rng, kind, folder, tell)
    story.through([])
    story.check()


def stormy(rng: Random, kind: str, folder: Path, tell: Tell) -> None:
    """A run whose process is killed, or whose call is cancelled, again and again."""
    story = drawn(rng, kind, folder, tell)
    storms = random_storms(rng)
    tell(", then ".join(map(str, storms)) or "calm")
    story.through(storms)
    story.check()


def mended(rng: Random, kind: str, folder: Path, tell: Tell) -> None:
    """A run whose failures are mended, and set back by hand with all that is downstream; and that is disturbed as well."""
    story = drawn(rng, kind, folder, tell)
    story.through(random_storms(rng, 1))
    story.check()
    if story.mend(rng):
        story.through(random_storms(rng, 2))
        story.check()


def again(rng: Random, kind: str, folder: Path, tell: Tell) -> None:
    """A run of which some tasks are set back by hand, however they ended; it comes to the same again."""
    story = drawn(rng, kind, folder, tell)
    story.through([])
    story.check()
    tell(f"set back: {story.again(rng)}")
    story.through(random_storms(rng, 2))
    story.check()


WAYS = {"calm": calm, "stormy": stormy, "mended": mended, "again": again}
