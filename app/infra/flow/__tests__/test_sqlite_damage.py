"""Files that were damaged, cut, replaced or edited behind the store's back: nothing wrong is ever read as if it were right.

For a long run: `python -m app.infra.flow.__tests__.test_sqlite_damage 100000`
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from .. import (
    Changes,
    RunNotFoundError,
    SQLiteStore,
    State,
    StoreDamagedError,
    StoreError,
    StoreFormatError,
    StoreVersionError,
    sqlite_file,
    witness,
)
from ..sqlite_schema import MIGRATIONS, row_crc
from ..testing.store_contract import a_note, a_run, a_task, an_attempt, snapshot
from .test_sqlite_store import ask

PAGE = 4096
RUNS = [f"run{number}" for number in range(6)]


def fill(store: SQLiteStore) -> None:
    """Some runs with all that belongs to one; with `sync_interval=None`, the last commits are not flushed."""
    for number, run_id in enumerate(RUNS):
        parent = RUNS[0] if number in (2, 3) else None
        run = a_run(run_id, created=1000 + number, graph=f'{{"graph":{number % 2}}}', parent_run_id=parent, params='{"rows":3}')
        store.commit(Changes(new_runs=[run], tasks=[a_task(position, run_id) for position in range(4)]))
    for run_id in RUNS:
        run = store.read_run(run_id)
        run.state = State.RUNNING
        tasks = [a_task(position, run_id, state=State.SUCCESS, output=f"[{position}{', 0' * 20}]") for position in range(3)]
        attempts = [an_attempt(1, 0, run_id, error="ValueError: " + "x" * 300)]
        notes = [a_note(run_id=run_id, at=number, by="process 1 on host", detail="x" * 50) for number in range(3)]
        store.commit(Changes(runs=[run], tasks=tasks, attempts=attempts, flush=run_id == RUNS[3], notes=notes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def files_in(folder: Path) -> dict[str, bytes]:
    """What lies in a folder; but not SQLite's index of the -wal file, which is made anew whenever it is needed."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if not file.name.endswith("-shm")}


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    """Have just these files in a folder."""
    for file in folder.iterdir():
        file.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def killed(store: SQLiteStore) -> dict[str, bytes]:
    """The files that stay behind if the store's process is killed now."""
    store.open()
    return {name: (store.path.parent / name).read_bytes() for name in ("runs.db", "runs.db-wal", "runs.db-lock")}


def flipped(data: bytes, bit: int) -> bytes:
    copy = bytearray(data)
    copy[bit // 8] ^= 1 << bit % 8
    return bytes(copy)


def bits_of(data: bytes, rng: Random, count: int) -> list[int]:
    """Some bits of a file: anywhere, but mostly where there is something; many of the head."""
    used = [place for place, byte in enumerate(data) if byte]
    places = [*(rng.randrange(100) for _ in range(count // 5)), *(rng.randrange(len(data)) for _ in range(count // 10))]
    places += [rng.choice(used) for _ in range(count - len(places))]
    return [place * 8 + rng.randrange(8) for place in places]


class Warnings(logging.Handler):
    """What the store warned of."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@contextmanager
def warnings() -> Iterator[list[str]]:
    handler = Warnings()
    logger = logging.getLogger("night_batch")
    logger.addHandler(handler)
    try:
        yield handler.told
    finally:
        logger.removeHandler(handler)


def compare(path: Path, truth: dict[str, Any]) -> str:
    """Read everything, in every way, and compare it with what was written. How it went: harmless, refused, reported.

    Whatever is read must be true. What cannot be read must be a StoreError; and what is not there must be reported by `check()`.
    """
    refused = absent = 0
    with warnings() as warned:
        store = SQLiteStore(path, busy_timeout=1.0)
        try:
            store.open()
        except StoreError:
            return "refused"
        try:
            try:
                listed = [run.id for run in store.read_runs()]
                assert len(warned) >= len(RUNS) - len(listed) or store.check()
                if listed != truth["order"]:
                    absent += 1
                    assert store.check(), f"listed {listed}"
            except StoreError:
                refused += 1
            try:
                if (children := store.list_children(RUNS[0])) != [RUNS[3], RUNS[2]]:
                    absent += 1
                    assert store.check(), f"children {children}"
            except StoreError:
                refused += 1
            for run_id in RUNS:
                reads = (store.read_run, store.read_tasks, store.read_attempts, store.read_notes)
                for read, true in zip(reads, (*truth[run_id], truth["notes"][run_id])):
                    try:
                        found: Any = read(run_id)
                        assert found == true, f"{found} and not {true}"
                    except StoreError:
                        refused += 1
                    except RunNotFoundError:
                        absent += 1
            if absent or refused:
                assert store.check(), "nothing is found by check()"
        except StoreError:  # of check() itself
            refused += 1
        finally:
            try:
                store.close()
            except StoreError:
                refused += 1
    return "absent" if absent else "damaged" if refused else "harmless"


def flip_database(folder: Path, rng: Random, count: int) -> Counter[str]:
    """Flip bits of a closed database, one at a time."""
    path = folder / "runs.db"
    with SQLiteStore(path) as store:
        fill(store)
        truth = snapshot(store)
    whole = path.read_bytes()
    came_to: Counter[str] = Counter()
    for bit in bits_of(whole, rng, count):
        lay_out(folder, {"runs.db": flipped(whole, bit)})
        try:
            outcome = compare(path, truth)
        except BaseException as error:
            raise AssertionError(f"bit {bit} of the database, that is byte {bit // 8:#x}: {error}") from error
        if outcome == "refused":
            assert files_in(folder) == {"runs.db": flipped(whole, bit)}
        came_to[outcome] += 1
    return came_to


def flip_wal(folder: Path, rng: Random, count: int, pages: int) -> Counter[str]:
    """Flip bits of the -wal file that a killed process left, which folded it in every so many pages; 0: at the end."""
    path = folder / "runs.db"
    before = sqlite_file.CHECKPOINT_PAGES
    sqlite_file.CHECKPOINT_PAGES = pages or 1000
    try:
        with SQLiteStore(path, sync_interval=None) as store:
            fill(store)
            truth = snapshot(store)
            if pages == 0:
                assert store._file._writer is not None
                store._file._checkpoint(store._file._writer)
            left = killed(store)
    finally:
        sqlite_file.CHECKPOINT_PAGES = before
    came_to: Counter[str] = Counter()
    for bit in bits_of(left["runs.db-wal"], rng, count):
        damaged = {**left, "runs.db-wal": flipped(left["runs.db-wal"], bit)}
        lay_out(folder, damaged)
        try:
            outcome = compare(path, truth)
        except BaseException as error:
            raise AssertionError(f"bit {bit} of the -wal file, that is byte {bit // 8:#x}: {error}") from error
        if outcome == "refused":
            assert files_in(folder) == damaged
        came_to[outcome] += 1
    return came_to


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_the_database(tmp_path: Path, seed: int) -> None:
    """Whichever bit: what is read is true, or the store says that something is wrong; a file that is refused stays as it is."""
    came_to = flip_database(tmp_path, Random(seed), 150)
    assert came_to["damaged"] > 20, came_to
    assert came_to["refused"], came_to


@pytest.mark.parametrize("pages", [1000, 20, 10], ids=lambda pages: f"folded every {pages} pages")
def test_a_flipped_bit_in_what_a_kill_left(tmp_path: Path, pages: int) -> None:
    """SQLite drops all commits behind it, and finds nothing wrong; the store does."""
    came_to = flip_wal(tmp_path, Random(pages), 150, pages)
    assert came_to["refused"] > 20, came_to


# --- what a kill left, and then somebody touched ---------------------------------------------------------------------------


@pytest.fixture
def truth_and_left(tmp_path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What was written, and what a kill has left of it: the last flush was some commits ago."""
    folder = tmp_path / "first"
    folder.mkdir()
    with SQLiteStore(folder / "runs.db", sync_interval=None) as store:
        fill(store)
        return snapshot(store), killed(store)


def after_another_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has started anew."""
    monkeypatch.setattr(witness, "boot_id", lambda: "00000000-1111-2222-3333-444444444444")


def refused(path: Path, error: type[StoreError], match: str) -> None:
    """The file cannot be used, by any method, and stays as it is."""
    before = files_in(path.parent)
    for use in (
        SQLiteStore.open,
        SQLiteStore.list_runs,
        SQLiteStore.check,
        lambda store: store.commit(Changes(new_runs=[a_run()])),
    ):
        store = SQLiteStore(path, busy_timeout=0.1)
        with pytest.raises(error, match=match):
            use(store)
        store.close()
    assert files_in(path.parent) == before


def test_a_killed_process_has_lost_nothing(path: Path, truth_and_left: tuple[dict[str, Any], dict[str, bytes]]) -> None:
    """The store opens, all is there, and afterwards nothing lies beside the file."""
    truth, left = truth_and_left
    lay_out(path.parent / "first", left)
    with SQLiteStore(path.parent / "first" / "runs.db") as store:
        assert (snapshot(store), store.check()) == (truth, [])
    assert list(files_in(path.parent / "first")) == ["runs.db"]


def test_a_wal_file_removed_after_a_kill(tmp_path: Path, truth_and_left: tuple[dict[str, Any], dict[str, bytes]]) -> None:
    """With it went commits: the error says so, and what to do; whoever does it gets what there is."""
    _, left = truth_and_left
    folder = tmp_path / "second"
    folder.mkdir()
    lay_out(folder, {name: data for name, data in left.items() if name != "runs.db-wal"})
    refused(folder / "runs.db", StoreDamagedError, r"runs\.db.*commits are missing.*-wal file.*remove runs\.db-lock")
    (folder / "runs.db-lock").unlink()
    with SQLiteStore(folder / "runs.db") as store:
        assert (store.list_runs(), store.check()) == ([], [])


def test_a_wal_file_removed_and_another_start(
    tmp_path: Path, truth_and_left: tuple[dict[str, Any], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the machine has started anew, still what had been flushed must be there."""
    _, left = truth_and_left
    folder = tmp_path / "second"
    folder.mkdir()
    lay_out(folder, {name: data for name, data in left.items() if name != "runs.db-wal"})
    after_another_start(monkeypatch)
    refused(folder / "runs.db", StoreDamagedError, "commits are missing")


def commits_of(wal: bytes) -> list[int]:
    """Where each commit in a -wal file ends (https://www.sqlite.org/fileformat2.html#walformat)."""
    frame = 24 + PAGE
    starts = range(32, len(wal) - frame + 1, frame)
    return [start + frame for start in starts if int.from_bytes(wal[start + 4 : start + 8], "big")]


@pytest.mark.parametrize("started_anew", [False, True], ids=["same start", "another start"])
def test_commits_that_vanish(
    tmp_path: Path, truth_and_left: tuple[dict[str, Any], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, started_anew: bool
) -> None:
    """A kill loses no commit, so each that is missing is told of; a power cut may take those that were not flushed alone."""
    truth, left = truth_and_left
    folder = tmp_path / "second"
    folder.mkdir()
    if started_anew:
        after_another_start(monkeypatch)
    ends = commits_of(left["runs.db-wal"])
    assert len(ends) == 2 * len(RUNS)
    for commits in range(len(ends) + 1):
        cut = {**left, "runs.db-wal": left["runs.db-wal"][: ends[commits - 1] if commits else 32]}
        lay_out(folder, cut)
        promised = len(RUNS) + RUNS.index(RUNS[3]) + 1 if started_anew else len(ends)
        if commits < promised:
            with pytest.raises(StoreDamagedError, match="commits are missing"):
                SQLiteStore(folder / "runs.db").open()
            assert files_in(folder) == cut
            continue
        with SQLiteStore(folder / "runs.db") as store:
            assert store.check() == []
            done = [run_id for run_id in RUNS if store.read_run(run_id) == truth[run_id][0]]
            assert done == RUNS[: commits - len(RUNS)]


def test_an_older_copy_after_a_kill(tmp_path: Path) -> None:
    """A database that was put back while the lock file of a killed process lay there is older than what was promised."""
    path = tmp_path / "runs.db"
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    older = path.read_bytes()
    store = SQLiteStore(path)
    for number in range(3):
        store.commit(Changes(tasks=[a_task(0, reason=str(number))]))
    left = killed(store)
    store.close()
    lay_out(tmp_path, {"runs.db": older, "runs.db-lock": left["runs.db-lock"]})
    refused(path, StoreDamagedError, r"run no\. 1: 1 of 4 or more.*replaced by an older copy")


def test_a_damaged_lock_file_asks_for_nothing(tmp_path: Path, truth_and_left: tuple[dict[str, Any], dict[str, bytes]]) -> None:
    """It is only a witness: whatever is in it, a sound database opens."""
    truth, left = truth_and_left
    folder = tmp_path / "second"
    folder.mkdir()
    rng = Random(1)
    notes = [flipped(left["runs.db-lock"], rng.randrange(len(left["runs.db-lock"]) * 8)) for _ in range(40)]
    for note in (*notes, b"", b"\0" * 500, b"\xff" * 500, left["runs.db-lock"][:100], left["runs.db-lock"] * 3):
        lay_out(folder, {**left, "runs.db-lock": note})
        with SQLiteStore(folder / "runs.db") as store:
            assert snapshot(store) == truth


# --- files that are cut, empty, or something else --------------------------------------------------------------------------


def test_a_file_cut_anywhere(path: Path) -> None:
    """At every page and in odd places: refused by name and left alone; not one run of it is read as if it were whole."""
    with SQLiteStore(path) as store:
        fill(store)
    whole = path.read_bytes()
    for length in (*range(PAGE, len(whole), PAGE), 1, 16, 100, 511, 512, 1000, PAGE + 1, len(whole) - 1):
        lay_out(path.parent, {"runs.db": whole[:length]})
        refused(path, StoreError, r"runs\.db")


def test_a_file_of_no_bytes(path: Path) -> None:
    """SQLite would take it for a new database, and so hide that somebody lost all runs."""
    path.touch()
    refused(path, StoreFormatError, "is empty")


def test_zeros_and_noise(path: Path) -> None:
    """Neither a file of zeros nor one of noise is a database, nor one behind a true first page."""
    with SQLiteStore(path) as store:
        fill(store)
    first, length = path.read_bytes()[:PAGE], path.stat().st_size
    noise = Random(7).randbytes(length)
    for content in (b"\0" * length, noise, first + noise[PAGE:], first + b"\0" * (length - PAGE)):
        lay_out(path.parent, {"runs.db": content})
        before = files_in(path.parent)
        store = SQLiteStore(path)
        with pytest.raises(StoreError, match=r"runs\.db"):
            store.list_runs()
        store.close()
        if not content.startswith(b"SQLite format 3"):
            assert files_in(path.parent) == before


def test_a_foreign_database_that_was_killed(path: Path) -> None:
    """It is refused without folding its -wal file into it: that is its program's business."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE customers (name TEXT)")
        left = {name: (path.parent / name).read_bytes() for name in ("runs.db", "runs.db-wal")}
    lay_out(path.parent, left)
    assert len(left["runs.db-wal"]) > PAGE
    refused(path, StoreFormatError, "another program")


@pytest.mark.parametrize("version", [-1, 0, len(MIGRATIONS) + 1, -(1 << 31), (1 << 31) - 1])
def test_a_version_that_there_never_was(path: Path, version: int) -> None:
    """Lower than the first it is damage, higher than ours a newer library's; either is refused and left alone."""
    with SQLiteStore(path) as store:
        fill(store)
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {version}")
    refused(path, StoreVersionError if version > 0 else StoreDamagedError, str(version))


# --- rows that somebody edited ---------------------------------------------------------------------------------------------


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.create_function("row_crc", -1, row_crc)
        for statement in statements:
            other.execute(statement)


TASK = "WHERE task_id = 'task1' AND key >> 32 = 2"
EDITS = {
    "a task removed": [f"DELETE FROM tasks {TASK}"],
    "the last task removed": ["DELETE FROM tasks WHERE key = (2 << 32) + 3"],
    "all tasks removed": ["DELETE FROM tasks WHERE key >> 32 = 2"],
    "a task added": [
        f"CREATE TABLE more AS SELECT * FROM tasks {TASK}",
        "UPDATE more SET key = key + 7",
        "INSERT INTO tasks SELECT * FROM more",
    ],
    "a state changed": [f"UPDATE tasks SET state = 'scheduled' {TASK}"],
    "an output changed": [f"UPDATE tasks SET output = '[2]' {TASK}"],
    "a number made a text": [f"UPDATE tasks SET crc = 'seven' {TASK}"],
    "a checksum made bytes": ["UPDATE tasks SET crc = x'00' WHERE key >> 32 = 2"],
    "a seal made a text": ["UPDATE tasks SET commits = 'seven' WHERE commits IS NOT NULL AND key >> 32 = 2"],
    "seals removed": ["UPDATE tasks SET commits = NULL, total = NULL, seal = NULL WHERE key >> 32 = 2"],
    "two tasks swapped": [
        f"UPDATE tasks SET key = -1 {TASK}",
        "UPDATE tasks SET key = (2 << 32) + 1 WHERE key = (2 << 32) + 2",
        "UPDATE tasks SET key = (2 << 32) + 2 WHERE key = -1",
    ],
    "a task moved far": [f"UPDATE tasks SET key = key + 4000000000 {TASK}"],
    "an attempt removed": ["DELETE FROM attempts WHERE task_key >> 32 = 2"],
    "an attempt changed": ["UPDATE attempts SET error = NULL WHERE task_key >> 32 = 2"],
    "an attempt added": [
        "CREATE TABLE more AS SELECT * FROM attempts WHERE task_key >> 32 = 2",
        "UPDATE more SET number = 2",
        "INSERT INTO attempts SELECT * FROM more",
    ],
    "a note removed": ["DELETE FROM run_notes WHERE key = (2 << 32) + 1"],
    "the last note removed": ["DELETE FROM run_notes WHERE key = (2 << 32) + 2"],
    "all notes removed": ["DELETE FROM run_notes WHERE key >> 32 = 2"],
    "a note changed": ["UPDATE run_notes SET by = 'process 2 on host' WHERE key = (2 << 32) + 1"],
    "a note of an unknown kind": [
        "UPDATE run_notes SET kind = 'party' WHERE key = (2 << 32) + 1",
        "UPDATE run_notes SET crc = row_crc(key, kind, at, by, task_id, tasks, state, ended, detail) WHERE key = (2 << 32) + 1",
    ],
    "a note added": [
        "CREATE TABLE more AS SELECT * FROM run_notes WHERE key >> 32 = 2",
        "UPDATE more SET key = key + 7",
        "INSERT INTO run_notes SELECT * FROM more",
    ],
    "bytes that are no text": ["UPDATE tasks SET output = CAST(x'2261ff62' AS TEXT) WHERE key >> 32 = 2"],
    "tasks of another run": [
        "UPDATE tasks SET key = key + (997 << 32) WHERE key >> 32 = 2",
        "UPDATE tasks SET key = key - (1 << 32) WHERE key >> 32 = 3",
    ],
}
"""What may be done to a run, and is found when its tasks, attempts or notes are read."""


@pytest.mark.parametrize("statements", EDITS.values(), ids=EDITS)
def test_a_run_whose_rows_were_edited(path: Path, statements: list[str]) -> None:
    """It is damaged, and named; all other runs, unless they lost rows as well, are as they were."""
    with SQLiteStore(path) as store:
        fill(store)
        truth = snapshot(store)
        edit(path, *statements)  # while it is open, and has all checksums in mind
        with pytest.raises(StoreDamagedError, match=r"runs\.db.*('run1'|UTF-8)"):
            store.read_tasks("run1")
            store.read_attempts("run1")
            store.read_notes("run1")
        assert any("run1" in problem for problem in store.check())
        found = {run_id: store.load(run_id) for run_id in RUNS if run_id not in ("run1", "run2")}
        assert len(found) == len(RUNS) - 2
        assert [store.read_tasks(run_id) for run_id in found] == [truth[run_id][1] for run_id in found]


@pytest.mark.parametrize("position", [0, 2])
def test_an_older_version_of_a_row(path: Path, position: int) -> None:
    """A row whose own checksum is right, but which is that of yesterday, is found: the seal counts all of them."""
    with SQLiteStore(path) as store:
        fill(store)
        edit(path, "CREATE TABLE yesterday AS SELECT * FROM tasks")
        store.commit(Changes(tasks=[a_task(2, "run1", output="[2]"), a_task(0, "run1", output="[0]")]))
        columns = "state, output, crc, commits, total, seal"
        yesterday = f"SELECT {columns} FROM yesterday WHERE yesterday.key = tasks.key"
        edit(path, f"UPDATE tasks SET ({columns}) = ({yesterday}) WHERE key = (2 << 32) + {position}")
        with pytest.raises(StoreDamagedError, match="'run1'.*older than the run"):
            store.read_tasks("run1")


def test_a_run_whose_own_row_was_edited(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out of the list, with a warning, and hides no other; asked for by its id, it is damage."""
    with SQLiteStore(path) as store:
        fill(store)
        for column, value in (
            ("params", "'{}'"),
            ("state", "'success'"),
            ("ended", 7),
            ("flow_name", "CAST(x'ff' AS TEXT)"),
            ("created", "'x'"),
        ):
            edit(path, "DROP TABLE IF EXISTS kept", "CREATE TABLE kept AS SELECT * FROM runs WHERE id = 'run4'")
            edit(path, f"UPDATE runs SET {column} = {value} WHERE id = 'run4'")
            caplog.clear()
            with caplog.at_level(logging.WARNING, "night_batch"):
                assert sorted(store.list_runs()) == [run_id for run_id in RUNS if run_id != "run4"]
            assert any("left out of the list of runs" in record.getMessage() for record in caplog.records)
            with pytest.raises(StoreDamagedError, match=r"runs\.db"):
                store.read_run("run4")
            assert len(store.check()) >= 1
            edit(path, f"UPDATE runs SET {column} = (SELECT {column} FROM kept) WHERE id = 'run4'")
            assert (len(store.list_runs()), store.check()) == (len(RUNS), [])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE graphs SET graph = '{}' WHERE no = 1",
        "DELETE FROM graphs WHERE no = 1",
        "UPDATE graphs SET digest = x'00' WHERE no = 1",
    ],
)
def test_a_damaged_graph(path: Path, statement: str) -> None:
    """The runs that were made with it are damaged, and the others are not."""
    with SQLiteStore(path) as store:
        fill(store)
    edit(path, statement)
    with SQLiteStore(path) as store:
        assert store.list_runs() == ["run5", "run3", "run1"]
        for run_id in ("run0", "run2", "run4"):
            with pytest.raises(StoreDamagedError, match=f"{run_id}.*graph"):
                store.read_run(run_id)
        assert len(store.check()) == 3


def test_an_index_that_leads_astray(path: Path) -> None:
    """Where the index of ids names another run's row, nothing of that run is taken for this one's."""
    with SQLiteStore(path) as store:
        fill(store)
    root = ask(path, "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_runs_1'")
    assert isinstance(root, int)
    data = bytearray(path.read_bytes())
    start = (root - 1) * PAGE
    place = data.index(b"run4", start, start + PAGE) + 4
    assert data[place] == 5
    data[place] = 4
    path.write_bytes(bytes(data))
    with SQLiteStore(path) as store:
        for read in (store.read_run, store.read_tasks, store.read_attempts, store.read_notes, store.claim):
            with pytest.raises(StoreDamagedError, match="'run4'.*another run's row"):
                read("run4")
        assert store.check()


def test_rows_of_no_run(path: Path) -> None:
    """Tasks, attempts and notes whose run is gone are told of."""
    with SQLiteStore(path) as store:
        fill(store)
        edit(path, "DELETE FROM runs WHERE id = 'run5'")
        assert store.check() == [
            "there are tasks of run no. 6, and there is no such run",
            "there are attempts of run no. 6, and there is no such run",
            "there are run_notes of run no. 6, and there is no such run",
        ]
        assert not store.exists("run5")


def main(count: int) -> None:
    """Flip so many bits, with other seeds than the tests have; a failing one is printed."""
    came_to: Counter[str] = Counter()
    seed = time.time_ns() // 1_000_000
    while sum(came_to.values()) < count:
        seed += 1
        rng = Random(seed)
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            try:
                came_to.update(flip_database(Path(folder), rng, 100))
                shutil.rmtree(folder)
                Path(folder).mkdir()
                came_to.update(flip_wal(Path(folder), rng, 100, rng.choice((1000, 30, 20, 10, 7, 5, 0, 0))))
            except BaseException:
                print("seed", seed, dict(came_to))
                raise
    print(dict(came_to))


if __name__ == "__main__":
    main(int(sys.argv[1]))


def test_frames_of_a_wal_file_that_was_folded_never_stand_for_newer_pages(tmp_path: Path) -> None:
    """A checkpoint leaves no frames behind that a flipped bit, after a kill, could bring back to life."""
    path = tmp_path / "runs.db"
    long = "x" * 900
    with SQLiteStore(path) as store:
        for run_id in "AB":
            store.commit(Changes(new_runs=[a_run(run_id)], tasks=[a_task(i, run_id, output=long) for i in range(40)]))
    store = SQLiteStore(path, sync_interval=None)
    store.open()
    store.commit(Changes(tasks=[a_task(5, "A", state=State.RUNNING, output=long)]))
    length = path.with_name("runs.db-wal").stat().st_size
    store.commit(Changes(tasks=[a_task(5, "A", state=State.SUCCESS, output=long)]))
    store.commit(Changes(tasks=[a_task(5, "B", state=State.SUCCESS, output=long)]))
    assert store._file._writer is not None
    store._file._checkpoint(store._file._writer)
    left = killed(store)
    wal = left["runs.db-wal"]
    if len(wal) > length + 100:
        left["runs.db-wal"] = flipped(wal, (length + 100) * 8)
    (tmp_path / "after").mkdir()
    lay_out(tmp_path / "after", left)
    with SQLiteStore(tmp_path / "after" / "runs.db") as again:
        assert again.read_tasks("A")[5].state == "success"
    store.close()
