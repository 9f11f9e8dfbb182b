"""Thousands of power cuts, simulated: whatever the disk has kept, a JSON store finds whole commits, and all that it had promised.

For a long run: `python -m app.infra.flow.__tests__.test_power_cuts_json 100000`
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from .. import AsyncFlow, Changes, Context, JsonStore, State, WorkflowRun
from ..json_format import file_stem
from ..records import AttemptRecord, Lease, NoteRecord, RunRecord, TaskRecord
from ..testing.store_contract import a_note, a_run, a_task, an_attempt
from .json_folders import Recorder, RecordingFiles, UnsyncedFiles, kill
from .power_cuts import Trace, cut, lay_out

# --- what the runs are supposed to be --------------------------------------------------------------------------------------


GRAPH = '{"load":["' + "x" * 300 + '"]}'

Image = tuple[RunRecord, dict[int, TaskRecord], dict[int, AttemptRecord], list[NoteRecord]]
"""A run with its tasks, the attempts of its first task, and its notes. That task's reason is the number of the latest commit."""


def image_in(store: JsonStore, run_id: str) -> Image:
    return (
        store.read_run(run_id),
        {task.position: task for task in store.read_tasks(run_id)},
        {attempt.number: attempt for attempt in store.read_attempts(run_id)},
        store.read_notes(run_id),
    )


class Life:
    """Two processes and their runs from one power cut to the next: what was committed, by whom, and what of it is promised."""

    def __init__(self, folder: Path, rng: Random, images: dict[str, Image] | None = None, first: int = 1) -> None:
        self.folder, self.rng = folder, rng
        self.recorder = Recorder(folder)
        self.interval = rng.choice((0, None, 3600))
        self.images: dict[str, Image] = dict(images or {})
        self.commits: dict[int, dict[str, Image | None]] = {0: dict(self.images)}
        """What each commit made of each run that it touched; None where it removed it."""
        self.number = first
        self.leases: dict[str, tuple[int, Lease]] = {}
        self.made_by: list[set[int]] = [set(), set()]
        self.stores = [self.a_store(), self.a_store()]
        self.recorder.trace.append(("ack", "durable", {0}))

    def a_store(self) -> JsonStore:
        store = JsonStore(self.folder, sync_interval=self.interval, files=RecordingFiles(self.recorder))
        store._flusher._waiting = True  # so no timer is started: what happens must depend on the seed alone
        return store

    @property
    def trace(self) -> Trace:
        return self.recorder.trace

    def tree_of(self, root: str) -> list[str]:
        return [run_id for run_id in self.images if run_id.split(".")[0] == root]

    @contextmanager
    def commit(self, which: int, images: dict[str, Image | None]) -> Iterator[None]:
        """Note a commit: begun, and if the store says so, on the disk."""
        number = self.number
        self.number += 1
        self.commits[number] = images
        self.trace.append(("ack", "begun", number))
        yield
        self.made_by[which].add(number)
        for run_id, image in images.items():
            if image is None:
                del self.images[run_id]
            else:
                self.images[run_id] = image
        self.note_promises(which)

    def note_promises(self, which: int) -> None:
        if not self.stores[which]._flusher.pending:
            self.trace.append(("ack", "durable", set(self.made_by[which])))

    def write(
        self, which: int, run_ids: list[str], new: tuple[str, ...] = (), end: tuple[str, ...] = (), flush: bool = False
    ) -> None:
        """One commit that changes each of these runs."""
        rng, changes = self.rng, Changes(flush=flush)
        images: dict[str, Image | None] = {}
        for run_id in run_ids:
            if run_id in new:
                known: Image = a_run(run_id, parent_run_id=run_id.rpartition(".")[0] or None, graph=GRAPH), {}, {}, []
            else:
                known = self.images[run_id]
            run, tasks, attempts, notes = known[0], dict(known[1]), dict(known[2]), list(known[3])
            run = replace(run, state=State.SUCCESS if run_id in end else State.RUNNING, params=f'{{"n":{self.number}}}')
            (changes.new_runs if run_id in new else changes.runs).append(run)
            for position in sorted({0, rng.randrange(4)}):
                reason = str(self.number) + "." * rng.choice((0, 30, 700, 3000))
                tasks[position] = a_task(position, run_id, reason=reason)
                changes.tasks.append(tasks[position])
            if rng.random() < 0.3:
                attempt = attempts[self.number] = an_attempt(self.number, 0, run_id, reason="x" * rng.randrange(600))
                changes.attempts.append(attempt)
            if rng.random() < 0.3:
                notes.append(a_note(run_id=run_id, at=self.number, detail="x" * rng.randrange(600)))
                changes.note(notes[-1])
            images[run_id] = (run, tasks, attempts, notes)
        root = run_ids[-1].split(".")[0]
        if root in self.leases and root not in new:
            which, changes.lease = self.leases[root]
            changes.release = root in end
        with self.commit(which, images):
            store = self.stores[which]
            if not (rng.random() < 0.5 and store.commit_at_once(changes)):
                store.commit(changes)
        if changes.release:
            del self.leases[root]

    # --- what may happen ---

    def new_tree(self) -> None:
        self.write(self.rng.randrange(2), [f"run{self.number}"], new=(f"run{self.number}",))

    def several_new_trees(self) -> None:
        names = [f"run{self.number}{letter}" for letter in "abc"]
        self.write(self.rng.randrange(2), names, new=tuple(names))

    def claim(self) -> None:
        root = self.a_root(lambda root: root not in self.leases)
        if root:
            which = self.rng.randrange(2)
            self.leases[root] = which, self.stores[which].claim(root)

    def release(self) -> None:
        root = self.a_root(lambda root: root in self.leases)
        if root:
            which, lease = self.leases.pop(root)
            self.stores[which].release(lease)
            self.note_promises(which)

    def write_one(self) -> None:
        root = self.a_root(self.is_open)
        if root:
            self.write(self.rng.randrange(2), [self.rng.choice(self.tree_of(root))], flush=self.rng.random() < 0.2)

    def write_several(self) -> None:
        root = self.a_root(self.is_open)
        if root:
            tree = self.tree_of(root)
            order = inside_out({self.rng.choice(tree) for _ in range(3)})
            end = tuple(run_id for run_id in order if run_id != root and self.rng.random() < 0.3)
            self.write(self.rng.randrange(2), order, end=end, flush=self.rng.random() < 0.2)

    def new_child(self) -> None:
        root = self.a_root(self.is_open)
        if root:
            parent = self.rng.choice(self.tree_of(root))
            child = f"{parent}.{self.number}"
            above = {parent, root} if self.rng.random() < 0.3 else {parent}
            self.write(self.rng.randrange(2), [child, *inside_out(above)], new=(child,))

    def two_trees(self) -> None:
        free = [root for root in self.roots() if root not in self.leases]
        if len(free) > 1:
            runs = [self.rng.choice(self.tree_of(root)) for root in self.rng.sample(free, 2)]
            self.write(self.rng.randrange(2), runs, end=tuple(runs[: self.rng.randrange(3)]), flush=self.rng.random() < 0.3)

    def end(self) -> None:
        root = self.a_root(lambda root: root in self.leases)
        if root:
            tree = [root, *(run_id for run_id in self.tree_of(root) if run_id != root and self.rng.random() < 0.9)]
            order = inside_out(tree)
            self.write(0, order, end=tuple(order), flush=True)

    def prune(self) -> None:
        root = self.a_root(lambda root: root not in self.leases)
        if root and all(State.is_terminal(self.images[run_id][0].state) for run_id in self.tree_of(root)):
            which = self.rng.randrange(2)
            store = self.stores[which]
            tree = inside_out(self.tree_of(root))[::-1]
            lease = store.claim(root)
            with self.commit(which, dict.fromkeys(tree)):
                store._remove(tree, lease)
                if self.rng.random() < 0.5:
                    store._shrink()
            self.trace.append(("ack", "removed"))

    def timer(self) -> None:
        which = self.rng.randrange(2)
        store = self.stores[which]
        if store._opened:
            store._flush_in_time()
            self.trace.append(("ack", "durable", set(self.made_by[which])))

    def close(self) -> None:
        which = self.rng.randrange(2)
        self.stores[which].close()
        self.trace.append(("ack", "durable", set(self.made_by[which])))
        self.begin_again(which)

    def kill(self) -> None:
        which = self.rng.randrange(2)
        kill(self.stores[which])
        self.begin_again(which)

    def begin_again(self, which: int) -> None:
        self.made_by[which] = set()
        self.leases = {root: held for root, held in self.leases.items() if held[0] != which}
        self.stores[which] = self.a_store()

    def roots(self) -> list[str]:
        return [run_id for run_id in self.images if "." not in run_id]

    def a_root(self, wanted: Callable[[str], bool]) -> str | None:
        found = [root for root in self.roots() if wanted(root)]
        return self.rng.choice(found) if found else None

    def is_open(self, root: str) -> bool:
        return root in self.leases or not State.is_terminal(self.images[root][0].state)

    def go_on(self, steps: int) -> None:
        often: list[tuple[Callable[[], None], int]] = [
            (self.new_tree, 2), (self.several_new_trees, 1), (self.claim, 4), (self.release, 1), (self.write_one, 8),
            (self.write_several, 8), (self.new_child, 5), (self.two_trees, 2), (self.end, 4), (self.prune, 4), (self.timer, 1),
            (self.close, 1), (self.kill, 1),
        ]  # fmt: skip
        self.new_tree()
        for step in self.rng.choices([step for step, _ in often], [weight for _, weight in often], k=steps):
            step()

    def stop(self) -> None:
        for store in self.stores:
            kill(store)


def inside_out(run_ids: Collection[str]) -> list[str]:
    """The innermost runs first; the same order each time, so that a seed means something."""
    return sorted(run_ids, key=lambda run_id: (run_id.count("."), run_id), reverse=True)


# --- what must be found ----------------------------------------------------------------------------------------------------


def look(folder: Path, life: Life, trace: Trace) -> dict[str, Image]:
    """Open what a cut has left, and compare it with what was promised. What is there, by run."""
    begun = {op[2] for op in trace if op[:2] == ("ack", "begun")} | {0}
    durable: set[int] = set().union(*(op[2] for op in trace if op[:2] == ("ack", "durable")))
    with JsonStore(folder, files=UnsyncedFiles()) as store:
        found = {run_id: image_in(store, run_id) for run_id in store.list_runs()}
        removing = {run_id for number in begun for run_id, image in life.commits[number].items() if image is None}
        assert [problem for problem in store.check() if "which is not there" not in problem or not removing] == []
    marks = {run_id: int(image[1][0].reason.strip(".") if image[1][0].reason else 0) for run_id, image in found.items()}
    for run_id, image in found.items():
        by_mark = [life.commits[number].get(run_id) for number in sorted(begun) if number <= marks[run_id]]
        versions = [version for version in by_mark if version is not None]
        assert versions, f"{run_id} was never made"
        assert image == versions[-1], f"{run_id} is not as commit {marks[run_id]} left it"
    for number in sorted(begun):
        touched = [run_id for run_id in life.commits[number] if run_id not in removing]
        there = {run_id: marks.get(run_id, -1) >= number for run_id in touched}
        if number:
            assert len(set(there.values())) < 2, f"commit {number} is there in part: {there}"
        if number in durable:
            assert number == 0 or all(there.values()), f"commit {number} was promised, and is not there: {there}"
            assert not [run_id for run_id, image in life.commits[number].items() if image is None and run_id in found]
    for run_id in found:
        parent = run_id.rpartition(".")[0]
        assert not parent or parent in found, f"{run_id} was left without its parent"
    return found


def use(folder: Path, found: dict[str, Image]) -> None:
    """All that was found can be claimed and written."""
    with JsonStore(folder, files=UnsyncedFiles(), sync_interval=None) as store:
        for root in [run_id for run_id in found if "." not in run_id]:
            lease = store.claim(root)
            tree = [run_id for run_id in found if run_id.split(".")[0] == root]
            changes = Changes(tasks=[a_task(9, run_id, reason="after") for run_id in tree], lease=lease)
            store.commit(changes)
            runs = [replace(found[run_id][0], state=State.FAILED) for run_id in tree]
            store.commit(Changes(runs=runs, lease=lease, release=True, flush=True))
    with JsonStore(folder, files=UnsyncedFiles()) as store:
        for run_id, (run, tasks, attempts, notes) in found.items():
            after = {**tasks, 9: a_task(9, run_id, reason="after")}
            assert image_in(store, run_id) == (replace(run, state=State.FAILED), after, attempts, notes)
        assert sorted(store.list_runs()) == sorted(found)
    left = {path.name.rpartition(".")[0] for path in folder.iterdir() if path.name.endswith((".journal", ".tmp"))}
    assert not left & {file_stem(run_id) for run_id in found}


def bench(seed: int, folder: Path, cuts: int, steps: int = 40) -> Counter[str]:
    """One life of a store, cut at random moments; some of what is left lives on, and is cut again. What happened, counted."""
    folder.mkdir(exist_ok=True)
    rng = Random(seed)
    counts: Counter[str] = Counter()
    first = Life(folder / "first", rng)
    first.go_on(steps)
    first.stop()
    cut_at = folder / "cut"
    for _ in range(cuts):
        life = first
        for depth in range(3):
            moment = rng.randrange(len(life.trace) + 1)
            files, lost = cut(life.trace, moment, rng, life.recorder.start)
            counts.update(lost)
            counts["cuts"] += 1
            lay_out(files, cut_at)
            found = look(cut_at, life, life.trace[:moment])
            counts["runs"] += len(found)
            if depth == 2 or rng.random() < 0.6:
                use(cut_at, found)
                break
            life = Life(cut_at, rng, found, life.number)
            life.go_on(rng.randrange(8))
            life.stop()
    return counts


@pytest.mark.parametrize("first", [0, 4, 8])
def test_power_cuts(tmp_path: Path, first: int) -> None:
    """After each of some hundred cuts the store opens, all runs are as some commit left them, and no promised one is lost."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + 4):
        counts.update(bench(seed, tmp_path / str(seed), 16))
    assert counts["cuts"] > 60
    assert min(counts[what] for what in ("contents", "torn contents", "names")) > 4


# --- flows -----------------------------------------------------------------------------------------------------------------


class PromisingStore(JsonStore):
    """Notes which tasks' successes it has promised to keep."""

    recorder: Recorder

    def commit(self, changes: Changes) -> None:
        super().commit(changes)
        if not self._flusher.pending:
            self.recorder.trace.append(("ack", {task.task_id for task in changes.tasks if task.state is State.SUCCESS}))


def a_flow(store: JsonStore, effects: list[str]) -> AsyncFlow:
    """Two tasks around a subflow of two, of which one fails the first time; what they do is noted."""

    def task(task_id: str, *upstream: str, fails: int = 0) -> Callable[[Context], object]:
        def work(ctx: Context) -> object:
            effects.append(task_id)
            if ctx.attempt_number < fails:
                raise ValueError("not yet")
            return [task_id, *(ctx.pull_output(each) for each in upstream)]

        return work

    inner = AsyncFlow("inner")
    inner.add_task_definition("first", task("first", fails=1), max_retries=1)
    inner.add_task_definition("second", task("second", "first"), dependencies=["first"])
    flow = AsyncFlow("outer", store)
    flow.add_task_definition("before", task("before"))
    flow.add_subflow_definition("sub", inner, dependencies=["before"])
    flow.add_task_definition("after", task("after", "sub"), dependencies=["sub"])
    return flow


def outcome_of(run: WorkflowRun) -> tuple[State, dict[str, object]]:
    outputs = {task_id: task.output_json for task_id, task in run.tasks.items()}
    outputs["sub"] = run.tasks["sub"].output_json["result"]
    return run.state, outputs


@pytest.mark.parametrize("interval", [0, None])
def test_flows_go_on_after_power_cuts(tmp_path: Path, interval: float | None) -> None:
    """After any power cut a flow's run ends as an undisturbed one, and repeats nothing that was promised to be kept."""
    folder, rng = tmp_path / "runs", Random(1)
    recorder = Recorder(folder)
    with PromisingStore(folder, sync_interval=interval, files=RecordingFiles(recorder)) as store:
        store.recorder = recorder
        expected = outcome_of(a_flow(store, []).run(run_id="run"))
    trace, promised = recorder.trace, 0
    for moment in range(0, len(trace) + 1, 2):
        files, _ = cut(trace, moment, rng)
        lay_out(files, tmp_path / "cut")
        done: set[str] = set().union(*(op[1] for op in trace[:moment] if op[0] == "ack"))
        effects: list[str] = []
        with JsonStore(tmp_path / "cut", files=UnsyncedFiles()) as store:
            assert outcome_of(a_flow(store, effects).run(run_id="run")) == expected
            assert len(store.list_runs()) == 2
            assert store.check() == []
        assert not done.intersection(effects)
        promised += len(done)
    assert promised


def main(cuts: int) -> None:
    """Cut so often, with other seeds than the tests have; a failing one is printed."""
    counts: Counter[str] = Counter()
    memory = Path("/dev/shm")
    seed = time.time_ns() // 1_000_000
    while counts["cuts"] < cuts:
        seed += 1
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            try:
                counts.update(bench(seed, Path(folder), 50))
            except BaseException:
                print("seed", seed, dict(counts))
                raise
    print(dict(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]))
