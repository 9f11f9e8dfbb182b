"""Random damage to the files of stores, and what may be read of them then: what was written, or a named error, and nothing else.

For many: `python -m app.infra.flow.__tests__.damage SEED HOW_MANY`. (Flipped bits in SQLite files have a test of their own.)
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from .. import Changes, JsonStore, RunNotFoundError, SQLiteStore, Store, StoreError
from ..models import ExecutionState
from ..testing.store_contract import a_note, a_run, a_task, an_attempt
from .power_cuts import lay_out

Image = tuple[Any, Any, Any, Any]
Files = dict[str, bytes]
GRAPH = '{"load":["' + "x" * 700 + '"]}'


def image(store: Store, run_id: str) -> Image:
    """All that is stored of a run."""
    return store.read_run(run_id), store.read_tasks(run_id), store.read_attempts(run_id), store.read_notes(run_id)


class Sample:
    """The files of a store whose runs have seen some commits, and what each run was after each of them."""

    def __init__(self, kind: str, rng: Random, scratch: Path) -> None:
        self.kind = kind
        self.folder = scratch / "sample"
        lay_out({}, self.folder)
        self.history: dict[str, list[Image]] = {"parent": [], "child": [], "alone": []}
        store = self.open()
        store.commit(Changes(new_runs=[a_run("parent", graph=GRAPH), a_run("alone")], tasks=[a_task(run_id="parent")]))
        store.commit(Changes(new_runs=[a_run("child", parent_run_id="parent")], tasks=[a_task(0, "child"), a_task(1, "child")]))
        self._note(store)
        for number in range(rng.randint(1, 6)):
            store.commit(self._some_changes(rng, number))
            self._note(store)
        if rng.random() < 0.5:  # the readable file, or the database without its -wal
            self._end(store, rng)
            self._note(store)
        if rng.random() < 0.5:
            store.close()
        self.files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir()) if path.is_file()}
        store.close()

    def open(self) -> Store:
        """A store on what is there."""
        return JsonStore(self.folder) if self.kind == "json" else SQLiteStore(self.folder / "runs.db")

    @staticmethod
    def _some_changes(rng: Random, number: int) -> Changes:
        both = rng.random() < 0.3  # a commit over two runs
        run_ids = ["child", "parent"] if both else [rng.choice(["parent", "child", "alone"])]
        text = f'"{number}' + "v" * rng.choice([1, 40, 600, 1500]) + '"'
        changes = Changes(tasks=[a_task(rng.randint(0, 2), run_id, output=text) for run_id in run_ids])
        if rng.random() < 0.4:
            changes.attempts.append(an_attempt(number + 1, run_id=run_ids[0], error=text))
        if rng.random() < 0.4:
            changes.note(a_note(run_id=run_ids[-1], at=number, detail=text))
        return changes

    @staticmethod
    def _end(store: Store, rng: Random) -> None:
        for run_id in rng.sample(["child", "parent", "alone"], rng.randint(1, 3)):
            run = store.read_run(run_id)
            run.state = ExecutionState.SUCCESS
            store.commit(Changes(runs=[run], flush=True))

    def _note(self, store: Store) -> None:
        for run_id, images in self.history.items():
            images.append(image(store, run_id))


# --- damage ---------------------------------------------------------------------------------------------------------------


def flip(data: bytearray, rng: Random) -> None:
    """A bit."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def change(data: bytearray, rng: Random) -> None:
    """A few bytes side by side."""
    place = rng.randrange(len(data))
    for offset in range(min(rng.randint(1, 8), len(data) - place)):
        data[place + offset] = rng.choice([0, 10, 32, 48, 255, data[place + offset] ^ 1, rng.randrange(256)])


def insert(data: bytearray, rng: Random) -> None:
    """A few bytes that were not there."""
    place = rng.randrange(len(data))
    data[place:place] = rng.randbytes(rng.randint(1, 20))


def take_out(data: bytearray, rng: Random) -> None:
    """A few bytes, not at the end."""
    place = rng.randrange(len(data))
    del data[place : min(place + rng.randint(1, 600), len(data) - 1)]


def repeat(data: bytearray, rng: Random) -> None:
    """Some bytes come twice."""
    place = rng.randrange(len(data))
    data[place:place] = data[place : place + rng.randint(1, 600)]


def repeat_a_line(data: bytearray, rng: Random) -> None:
    """A line comes twice."""
    lines = bytes(data).splitlines(keepends=True)
    number = rng.randrange(len(lines))
    data[:] = b"".join([*lines[: number + 1], *lines[number:]])


def swap_lines(data: bytearray, rng: Random) -> None:
    """Two lines change places."""
    lines = bytes(data).splitlines(keepends=True)
    if len(lines) > 1:
        one = rng.randrange(len(lines) - 1)
        lines[one], lines[one + 1] = lines[one + 1], lines[one]
    data[:] = b"".join(lines)


def drop_a_line(data: bytearray, rng: Random) -> None:
    """A line is gone, and not the last."""
    lines = bytes(data).splitlines(keepends=True)
    if len(lines) > 1:
        del lines[rng.randrange(len(lines) - 1)]
    data[:] = b"".join(lines)


def truncate(data: bytearray, rng: Random) -> None:
    """The end is gone."""
    del data[rng.randrange(len(data)) :]


def wipe(data: bytearray, rng: Random) -> None:
    """Sectors hold nothing."""
    start = rng.randrange(len(data)) // 512 * 512
    end = min(len(data), start + 512 * rng.randint(1, 3))
    data[start:end] = bytes(end - start)


CHANGES: tuple[Callable[[bytearray, Random], None], ...] = (
    flip,
    change,
    insert,
    take_out,
    repeat,
    repeat_a_line,
    swap_lines,
    drop_a_line,
)
LOSSES: tuple[Callable[[bytearray, Random], None], ...] = (truncate, wipe)
"""What a power cut may do as well: then an earlier state of a journal is a right answer."""


def damaged(sample: Sample, rng: Random) -> tuple[str, str, Files]:
    """What was done, to which file, and the files that come of it."""
    if sample.kind == "json":
        name = rng.choice([name for name in sample.files if name.endswith((".journal", ".json"))])
        kind = rng.choice([*CHANGES, *LOSSES])
    else:
        name = rng.choice([name for name, data in sample.files.items() if name in ("runs.db", "runs.db-wal") and data])
        kind = truncate
    data = bytearray(sample.files[name])
    kind(data, rng)
    return kind.__name__, name, {**sample.files, name: bytes(data)}


# --- what may be read -----------------------------------------------------------------------------------------------------


def look(sample: Sample, what: str, name: str, figures: Counter[str]) -> None:
    """Read all runs of the damaged store: each must be as it was written, or be refused by name."""
    an_earlier_state_will_do = what in (kind.__name__ for kind in LOSSES) and name.endswith(".journal")
    store = sample.open()
    try:
        for run_id, images in sample.history.items():
            try:
                found = image(store, run_id)
            except RunNotFoundError:
                assert an_earlier_state_will_do, f"{run_id!r} is said not to exist"
                figures["runs of which nothing was left"] += 1
            except StoreError as error:
                assert str(error)
                figures["damaged runs refused by name"] += 1
            else:
                right = images if an_earlier_state_will_do else images[-1:]
                assert found in right, f"{run_id!r} reads as it never was: {found}"
                figures["runs read as they were written"] += 1
        for anything in (store.check, store.list_runs):
            try:
                assert isinstance(anything(), list)
            except StoreError:
                pass
    finally:
        try:
            store.close()
        except StoreError:
            pass


def fuzz(kind: str, seed: int, scratch: Path, inputs: int = 20) -> Counter[str]:
    """Damage a store's files so many times, each time from the beginning.

    Raises:
        AssertionError: something was read that was never written, or an error came out that is none of ours.
    """
    rng = Random(seed)
    sample = Sample(kind, rng, scratch)
    figures: Counter[str] = Counter()
    for _ in range(inputs):
        what, name, files = damaged(sample, rng)
        lay_out(files, sample.folder)
        figures["fuzz inputs"] += 1
        try:
            look(sample, what, name, figures)
        except StoreError:  # by the whole store
            figures["damaged stores refused by name"] += 1
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}: {what} in {name}: {type(error).__name__}: {error}") from error
    return figures


if __name__ == "__main__":
    first, many = map(int, sys.argv[1:])
    told: Counter[str] = Counter()
    for number in range(first, first + many):
        for each in ("json", "sqlite"):
            with tempfile.TemporaryDirectory() as place:
                told += fuzz(each, number, Path(place))
    print(dict(told))
