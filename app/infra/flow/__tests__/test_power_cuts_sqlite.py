"""Thousands of power cuts, simulated: whatever the disk has kept, an SQLite store finds commits up to one, and all it promised.

For a long run: `python -m app.infra.flow.__tests__.test_power_cuts_sqlite 100000`
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

pytest.importorskip("apsw", reason="the disk is simulated below an SQLite of apsw's")

from .. import Changes, SQLiteStore, State, sqlite_file, witness  # noqa: E402, witness
from ..records import AttemptRecord, Lease, NoteRecord, RunRecord, TaskRecord  # noqa: E402
from ..testing.store_contract import a_note, a_run, a_task, an_attempt  # noqa: E402
from .power_cuts import Trace, cut, lay_out  # noqa: E402
from .power_cuts_sqlite import Recorder, watched  # noqa: E402

Image = tuple[RunRecord, dict[int, TaskRecord], dict[int, AttemptRecord], list[NoteRecord]]
"""A run with its tasks by position, the attempts of its first task by number, and its notes."""

Images = dict[str, Image]

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder where syncing takes no time: the disk is ours."""


def images_in(store: SQLiteStore) -> Images:
    """All that the store holds."""
    return {
        run_id: (
            store.read_run(run_id),
            {task.position: task for task in store.read_tasks(run_id)},
            {attempt.number: attempt for attempt in store.read_attempts(run_id)},
            store.read_notes(run_id),
        )
        for run_id in store.list_runs()
    }


class Life:
    """Two stores of one file, as of two processes, from one power cut to the next; and what was there after each commit."""

    def __init__(self, folder: Path, rng: Random, images: Images, name: str) -> None:
        self.folder, self.rng, self.name = folder, rng, name
        self.recorder = Recorder(folder)
        self.interval = rng.choice((0, None, 3600.0))
        self.after: list[Images] = [images]
        """What was there after each commit."""
        self.leases: dict[str, tuple[int, Lease]] = {}
        self.ids = 0
        self.stores = [self.a_store(), self.a_store()]

    def a_store(self) -> SQLiteStore:
        return SQLiteStore(self.folder / "runs.db", sync_interval=self.interval)

    @property
    def trace(self) -> Trace:
        return self.recorder.trace

    @property
    def images(self) -> Images:
        return self.after[-1]

    @contextmanager
    def commit(self, which: int, images: Images) -> Iterator[None]:
        """Note a commit and what it makes: begun; and if the store says so, on the disk."""
        self.after.append(images)
        self.trace.append(("ack", "begun", len(self.after) - 1))
        yield
        self.note_promises(which)

    def note_promises(self, which: int) -> None:
        # Both write to the same -wal file, so what one flushes is flushed for both.
        if not self.stores[which]._file._flusher.pending:
            self.trace.append(("ack", "durable", len(self.after) - 1))

    def write(self, run_ids: list[str], new: tuple[str, ...] = (), end: tuple[str, ...] = (), flush: bool = False) -> None:
        """One commit that changes each of these runs."""
        rng, changes = self.rng, Changes(flush=flush)
        images = dict(self.images)
        for run_id in run_ids:
            if run_id in new:
                run = a_run(
                    run_id,
                    created=len(self.after),
                    parent_run_id=run_id.rpartition(".")[0] or None,
                    graph=f'{{"{rng.randrange(3)}":[]}}',
                )
                tasks: dict[int, TaskRecord] = {}
                attempts: dict[int, AttemptRecord] = {}
                notes: list[NoteRecord] = []
            else:
                run, tasks, attempts, notes = images[run_id]
            tasks, attempts, notes = dict(tasks), dict(attempts), list(notes)
            if run_id in new or run_id in end or rng.random() < 0.5:
                run = replace(run, state=State.SUCCESS if run_id in end else State.RUNNING, params=f'{{"n":{len(self.after)}}}')
                (changes.new_runs if run_id in new else changes.runs).append(run)
            for position in {0, rng.randrange(6)}:
                output = '"' + "x" * rng.choice((0, 30, 700, 6000)) + f'{len(self.after)}"'
                tasks[position] = a_task(position, run_id, output=output)
                changes.tasks.append(tasks[position])
            if rng.random() < 0.3:
                number = len(attempts) + 1
                attempts[number] = an_attempt(number, 0, run_id, error="x" * rng.randrange(600))
                changes.attempts.append(attempts[number])
            if rng.random() < 0.3:
                notes.append(a_note(run_id=run_id, at=len(self.after), detail="x" * rng.randrange(600)))
                changes.note(notes[-1])
            images[run_id] = (run, tasks, attempts, notes)
        root = run_ids[-1].split(".")[0]
        which = rng.randrange(2)
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
        self.ids += 1
        name = f"{self.name}{self.ids}"
        self.write([name], new=(name,), flush=self.rng.random() < 0.2)

    def new_child(self) -> None:
        root = self.a_root(self.is_open)
        if root:
            self.ids += 1
            parent = self.rng.choice(self.tree_of(root))
            child = f"{parent}.{self.name}{self.ids}"
            self.write([child, parent], new=(child,))

    def write_some(self) -> None:
        root = self.a_root(self.is_open)
        if root:
            tree = self.tree_of(root)
            chosen = sorted({self.rng.choice(tree) for _ in range(self.rng.randrange(1, 4))}, key=len, reverse=True)
            self.write(chosen, flush=self.rng.random() < 0.2)

    def claim(self) -> None:
        root = self.a_root(lambda root: root not in self.leases)
        if root:
            which = self.rng.randrange(2)
            with self.commit(which, self.images):
                self.leases[root] = which, self.stores[which].claim(root)

    def release(self) -> None:
        root = self.a_root(lambda root: root in self.leases)
        if root:
            which, lease = self.leases.pop(root)
            with self.commit(which, self.images):
                self.stores[which].release(lease)

    def end(self) -> None:
        root = self.a_root(lambda root: root in self.leases)
        if root:
            order = sorted(self.tree_of(root), key=len, reverse=True)
            self.write(order, end=tuple(order), flush=True)

    def prune(self) -> None:
        root = self.a_root(lambda root: root not in self.leases)
        if root and all(State.is_terminal(self.images[run_id][0].state) for run_id in self.tree_of(root)):
            which = self.rng.randrange(2)
            store, tree = self.stores[which], sorted(self.tree_of(root), key=len)
            lease = store.claim(root)
            with self.commit(which, {run_id: image for run_id, image in self.images.items() if run_id not in tree}):
                store._remove(tree, lease)
            if self.rng.random() < 0.5:
                store._shrink()
                self.note_promises(which)

    def timer(self) -> None:
        which = self.rng.randrange(2)
        file = self.stores[which]._file
        if file._flusher.pending and self.interval is not None:
            # What the timer does, in its thread, when its time has come.
            file._flusher._pending = False
            file._flush_wal()
            self.note_promises(which)

    def reopen(self) -> None:
        which = self.rng.randrange(2)
        promises = self.stores[which]._file._flusher.pending  # else its last commit was flushed long ago
        self.stores[which].close()
        if promises:
            self.trace.append(("ack", "durable", len(self.after) - 1))
        self.leases = {root: held for root, held in self.leases.items() if held[0] != which}
        self.stores[which] = self.a_store()

    def tree_of(self, root: str) -> list[str]:
        return [run_id for run_id in self.images if run_id.split(".")[0] == root]

    def a_root(self, wanted: Callable[[str], bool]) -> str | None:
        found = [root for root in self.images if "." not in root and wanted(root)]
        return self.rng.choice(found) if found else None

    def is_open(self, root: str) -> bool:
        return root in self.leases or not State.is_terminal(self.images[root][0].state)

    def go_on(self, steps: int) -> None:
        often: list[tuple[Callable[[], None], int]] = [
            (self.new_tree, 2), (self.new_child, 3), (self.write_some, 12), (self.claim, 3), (self.release, 1), (self.end, 2),
            (self.prune, 1), (self.timer, 2), (self.reopen, 1),
        ]  # fmt: skip
        self.new_tree()
        for step in self.rng.choices([step for step, _ in often], [weight for _, weight in often], k=steps):
            step()


def live(folder: Path, rng: Random, images: Images, name: str, steps: int) -> Life:
    """A life until the power goes; its trace ends where it was cut."""
    life = Life(folder, rng, images, name)
    pages = rng.choice((4, 10, 40, 1000))
    with (
        patch.object(sqlite_file, "CHECKPOINT_PAGES", pages),
        patch.object(sqlite_file, "PINNED_PAGES", rng.choice((pages, 4 * pages))),
        watched(life.recorder, f"start of {name}"),
    ):
        life.go_on(steps)
        length = len(life.trace)
        for store in life.stores:
            store.close()
        if rng.random() < 0.5:
            del life.trace[length:]
        else:  # the end is part of it
            life.trace.append(("ack", "durable", len(life.after) - 1))
    return life


# --- what must be found ----------------------------------------------------------------------------------------------------


def look(folder: Path, life: Life, trace: Trace, start: str) -> Images:
    """Open what a cut has left with the true store, and compare it with what was promised. What is there."""
    begun = max([op[2] for op in trace if op[:2] == ("ack", "begun")], default=0)
    durable = max([op[2] for op in trace if op[:2] == ("ack", "durable")], default=0)
    with patch.object(witness, "boot_id", lambda: start), SQLiteStore(folder / "runs.db") as store:
        assert store.check() == []
        found = images_in(store)
        possible = [number for number in range(begun + 1) if life.after[number] == found]
        assert possible, f"none of the first {begun} commits left this"
        assert possible[-1] >= durable, f"what was there after commit {possible[-1]} is found, and {durable} was promised"
        # And it can be written on.
        roots = [run_id for run_id in found if "." not in run_id]
        for root in roots[:2]:
            lease = store.claim(root, force=True)
            run, tasks, attempts, notes = found[root]
            task = a_task(9, root, reason=start)
            store.commit(Changes(tasks=[task], lease=lease, release=True, flush=True))
            found[root] = (run, {**tasks, 9: task}, attempts, notes)
        assert images_in(store) == found
    return found


def bench(seed: int, folder: Path, cuts: int, steps: int = 40) -> Counter[str]:
    """One life of a store, cut at random moments; some of what is left lives on, and is cut again. What happened, counted."""
    rng = Random(seed)
    counts: Counter[str] = Counter()
    (folder / "first").mkdir()
    cut_at = folder / "cut"
    with SQLiteStore(folder / "first" / "runs.db"):
        pass
    first = live(folder / "first", rng, {}, "a", steps)
    for number in range(cuts):
        life = first
        for depth in range(3):
            moment = rng.randrange(len(life.trace) + 1)
            files, lost = cut(life.trace, moment, rng, life.recorder.start)
            if rng.random() < 0.3:
                files.pop("runs.db-lock", None)
            counts.update(lost)
            counts["cuts"] += 1
            lay_out(files, cut_at)
            found = look(cut_at, life, life.trace[:moment], f"start {number}.{depth}")
            counts["runs"] += len(found)
            assert [path.name for path in cut_at.iterdir()] == ["runs.db"]
            if depth == 2 or rng.random() < 0.7:
                break
            life = live(cut_at, rng, found, f"{'bc'[depth]}{number}-", rng.randrange(8))
    return counts


@pytest.mark.parametrize("seed", range(8))
def test_power_cuts(seed: int) -> None:
    """After each of some hundred cuts the store opens, with all commits up to one; none that was promised is lost."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        counts = bench(seed, Path(folder), 20)
    assert counts["cuts"] >= 20
    assert counts["torn contents"]


def main(cuts: int) -> None:
    """Cut so often, with other seeds than the tests have; a failing one is printed."""
    counts: Counter[str] = Counter()
    seed = time.time_ns() // 1_000_000
    while counts["cuts"] < cuts:
        seed += 1
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            try:
                counts.update(bench(seed, Path(folder), 50))
            except BaseException:
                print("seed", seed, dict(counts))
                raise
    print(dict(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]))
