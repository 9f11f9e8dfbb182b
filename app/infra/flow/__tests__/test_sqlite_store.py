"""What SQLiteStore promises beyond the contract of stores: its file, other processes, versions, and trouble of the medium."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from .. import (
    AsyncFlow,
    Changes,
    InvalidOptionError,
    RunNotFoundError,
    SQLiteStore,
    Store,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreVersionError,
    sqlite_file,
    sqlite_schema,
)
from ..testing.store_contract import a_run, a_task, all_at_once, an_attempt, snapshot

PACKAGE = AsyncFlow.__module__.rpartition(".")[0]
ROOT = Path(__file__).resolve().parents[PACKAGE.count(".") + 2]
NEXT = "CREATE TABLE notes (note TEXT); INSERT INTO notes SELECT id FROM runs; CREATE INDEX notes_by_note ON notes (note)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(path, busy_timeout=0.01) as store:
        yield store


def make_file(path: Path) -> None:
    """Have a store make its file, or bring it up, and no more."""
    with SQLiteStore(path):
        pass


def ask(path: Path, question: str) -> object:
    """The first value that a connection of its own finds in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchone()[0]


def versions_become(monkeypatch: pytest.MonkeyPatch, versions: tuple[str, ...]) -> None:
    """Have the library know other versions of the schema."""
    for room in (sqlite_schema, sqlite_file):
        monkeypatch.setattr(room, "MIGRATIONS", versions)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection holds the lock for writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def in_another_process(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in which `store` is a store on that file, and `flow` is the package."""
    head = (
        f"import os, sys, {PACKAGE} as flow, {PACKAGE}.testing.store_contract as words\nstore = flow.SQLiteStore(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", head + program, str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- the file ---


def test_the_file_says_what_it_is(store: SQLiteStore, path: Path) -> None:
    """The file is in WAL mode and carries our application id and the number of its schema."""
    assert ask(path, "PRAGMA journal_mode") == "wal"
    assert ask(path, "PRAGMA application_id") == sqlite_schema.APPLICATION_ID == int.from_bytes(b"NBat", "big")
    assert ask(path, "PRAGMA user_version") == len(sqlite_schema.MIGRATIONS)


def test_closing_leaves_one_file(store: SQLiteStore, path: Path) -> None:
    """After the last close there is no -wal and no -shm beside the file: it can be copied as it is."""
    store.commit(Changes(new_runs=[a_run()]))
    second = SQLiteStore(path)
    second.commit(Changes(new_runs=[a_run("second")]))
    store.close()
    assert second.list_runs() == ["second", "run"]
    second.close()
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]
    assert ask(path, "SELECT count(*) FROM runs") == 2


def test_a_forgotten_store_closes_itself(path: Path) -> None:
    """A store that nobody closed gives its file back when it is collected."""
    store = SQLiteStore(path)
    store.commit(Changes(new_runs=[a_run()]))
    del store
    gc.collect()
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]


def test_runs_share_one_stored_graph(store: SQLiteStore, path: Path) -> None:
    """A graph is stored once however many runs were made with it, by however many stores."""
    for number in range(3):
        store.commit(Changes(new_runs=[a_run(f"run{number}", graph='{"a":[]}')]))
    with SQLiteStore(path) as second:
        second.commit(Changes(new_runs=[a_run("run3", graph='{"a":[]}'), a_run("run4", graph='{"b":[]}')]))
    assert ask(path, "SELECT count(*) FROM graphs") == 2
    assert [store.read_run(f"run{number}").graph for number in range(5)] == ['{"a":[]}'] * 4 + ['{"b":[]}']


def test_only_a_flush_waits_for_the_disk(path: Path) -> None:
    """A commit that is flushed is made with `synchronous = FULL`, every other one with NORMAL, in any order."""
    store = SQLiteStore(path, sync_interval=None)
    store.open()
    writer = store._file._writer
    assert writer is not None
    modes: list[str] = []
    writer.set_trace_callback(lambda sql: modes.append(sql) if "synchronous" in sql else None)
    for number, flush in enumerate((False, True, True, False)):
        store.commit(Changes(new_runs=[a_run(f"run{number}")], flush=flush))
        assert writer.execute("PRAGMA synchronous").fetchone()[0] == (2 if flush else 1)
    assert modes.count("PRAGMA synchronous = FULL") == 1
    assert modes.count("PRAGMA synchronous = NORMAL") == 2
    store.close()


def test_reading_leaves_no_transaction_open(store: SQLiteStore) -> None:
    """After each read, a refused one too, the reader lets go: an open SELECT would keep the -wal file growing."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    reader = store._file._reader
    assert reader is not None
    store.read_tasks("run")
    assert not reader.in_transaction
    with pytest.raises(RunNotFoundError):
        store.read_tasks("unknown")
    assert not reader.in_transaction


# --- versions ---


def test_an_older_file_is_brought_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the first version gets each later step once, and keeps all that was in it."""
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run("old")], tasks=[a_task(0, "old")]))
        before = snapshot(store)
    versions_become(monkeypatch, (*sqlite_schema.MIGRATIONS, NEXT))
    for _ in range(2):
        with SQLiteStore(path) as store:
            assert snapshot(store) == before
        assert ask(path, "PRAGMA user_version") == len(sqlite_schema.MIGRATIONS)
        assert ask(path, "SELECT group_concat(note) FROM notes") == "old"


def test_a_new_file_gets_every_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is new ends with the same schema as one that was brought up."""
    other = path.with_name("brought_up.db")
    make_file(other)
    versions_become(monkeypatch, (*sqlite_schema.MIGRATIONS, NEXT))
    for each in (path, other):
        make_file(each)
    schema = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_master ORDER BY name)"
    assert ask(path, schema) == ask(other, schema)
    assert "notes_by_note" in str(ask(path, schema))


def test_a_step_that_fails_leaves_the_version_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is one transaction: if it fails in the middle, the file is wholly of the version before, and usable as such."""
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run("old")]))
        before = snapshot(store)
    versions = sqlite_schema.MIGRATIONS
    versions_become(monkeypatch, (*versions, "CREATE TABLE notes (note TEXT); CREATE NONSENSE"))
    with pytest.raises(StoreError, match="NONSENSE"):
        SQLiteStore(path).open()
    assert ask(path, "PRAGMA user_version") == len(versions)
    assert ask(path, "SELECT count(*) FROM sqlite_master WHERE name = 'notes'") == 0
    versions_become(monkeypatch, versions)
    with SQLiteStore(path) as store:
        assert snapshot(store) == before


@pytest.mark.parametrize("old", [True, False], ids=["old file", "new file"])
def test_a_kill_in_the_middle_of_a_step(path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    """A process killed within the next step leaves a file of the version before, or none; the next open brings it up."""
    if old:
        with SQLiteStore(path) as store:
            store.commit(Changes(new_runs=[a_run("old")]))
    killed = in_another_process(
        f"""
class Killing(str):
    def split(self, separator):
        for statement in str.split(self, separator)[:2]:
            yield statement
        os._exit(9)

from {PACKAGE} import sqlite_file, sqlite_schema
sqlite_file.MIGRATIONS = sqlite_schema.MIGRATIONS = (*sqlite_schema.MIGRATIONS, Killing({NEXT!r}))
store.open()
""",
        path,
    )
    assert killed.returncode == 9, killed.stderr
    assert path.exists() == old
    if old:
        assert ask(path, "PRAGMA user_version") == len(sqlite_schema.MIGRATIONS)
        assert ask(path, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'notes%'") == 0
    versions_become(monkeypatch, (*sqlite_schema.MIGRATIONS, NEXT))
    with SQLiteStore(path) as store:
        assert store.list_runs() == (["old"] if old else [])
    assert ask(path, "PRAGMA user_version") == len(sqlite_schema.MIGRATIONS)
    assert ask(path, "SELECT count(*) FROM notes") == old
    kept = f"runs.db.v{len(sqlite_schema.MIGRATIONS) - 1}"
    assert files_in(path.parent).keys() == {"runs.db", *([f"{kept}.bak", f"{kept}-2.bak"] if old else [])}


# --- what is not ours ---


def make_foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")


def make_foreign_database_in_wal_mode(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE customers (name TEXT)")


def make_database_with_another_id(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")


def make_database_with_a_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")


def make_text_file(path: Path) -> None:
    path.write_text("dear diary, " * 100)


def make_short_text_file(path: Path) -> None:
    path.write_text("x")  # SQLite would take this for a new database


@pytest.mark.parametrize(
    "make",
    [
        make_foreign_database,
        make_foreign_database_in_wal_mode,
        make_database_with_another_id,
        make_database_with_a_version,
        make_text_file,
        make_short_text_file,
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(path: Path, make: Callable[[Path], None]) -> None:
    """What another program made is refused by name, by any method, and not a byte of it changes."""
    make(path)
    before = files_in(path.parent)
    store = SQLiteStore(path)
    for use in (store.open, store.list_runs, lambda: store.commit(Changes(new_runs=[a_run()]))):
        with pytest.raises(StoreFormatError, match=r"runs\.db"):
            use()
    store.close()
    assert files_in(path.parent) == before


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    """A file of a newer version is refused, with both versions named, and not a byte of it changes."""
    make_file(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = files_in(path.parent)
    with pytest.raises(StoreVersionError, match=rf"runs\.db.*999.*up to {len(sqlite_schema.MIGRATIONS)}"):
        SQLiteStore(path).open()
    assert files_in(path.parent) == before


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """A directory is refused by name, with a hint at the store that takes one."""
    with pytest.raises(StoreFormatError, match=rf"{tmp_path.name}.*directory.*JsonStore"):
        SQLiteStore(tmp_path).open()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_a_store_error(tmp_path: Path) -> None:
    """A file in a folder that does not exist cannot be made: a `StoreError` that names the file, and no folder is made."""
    with pytest.raises(StoreError, match=r"missing.*runs\.db"):
        SQLiteStore(tmp_path / "missing" / "runs.db").open()
    assert list(tmp_path.iterdir()) == []


def test_memory_is_refused() -> None:
    """`:memory:` would be two unconnected databases, one to write and one to read: the error names the store that is meant."""
    with pytest.raises(InvalidOptionError, match="MemoryStore"):
        SQLiteStore(":memory:")


# --- other processes ---


def test_a_second_process_sees_what_is_committed(store: SQLiteStore, path: Path) -> None:
    """While this process has the file open, another one reads what was committed here, and what it commits is seen here."""
    store.commit(Changes(new_runs=[a_run("ours", flow_name="here")], tasks=[a_task(0, "ours")]))
    program = """
print(store.list_runs(), store.read_run("ours").flow_name, len(store.read_tasks("ours")))
store.commit(flow.Changes(new_runs=[words.a_run("theirs", flow_name="there")]))
"""
    other = in_another_process(program, path)
    assert (other.stdout, other.stderr) == ("['ours'] here 1\n", "")
    assert store.read_run("theirs").flow_name == "there"


def test_a_killed_process_loses_no_commit(path: Path) -> None:
    """A process that dies without closing leaves every commit it had made, flushed or not, and nothing of one under way."""
    killed = in_another_process(
        """
for number in range(20):
    store.commit(flow.Changes(new_runs=[words.a_run(f"run{number}")], tasks=[words.a_task(0, f"run{number}")]))
class Killing(list):
    def __iter__(self):
        yield words.a_task(1, "run0")
        os._exit(9)
store.commit(flow.Changes(new_runs=[words.a_run("half")], tasks=Killing([None])))
""",
        path,
    )
    assert killed.returncode == 9, killed.stderr
    with SQLiteStore(path) as store:
        assert store.list_runs() == [f"run{number}" for number in reversed(range(20))]
        assert store.read_tasks("run0") == [a_task(0, "run0")]


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Stores that open, and so make, the same file at the same moment all succeed: none takes it for somebody else's."""
    for number in range(10):
        path = tmp_path / f"runs{number}.db"

        def use(store: Store, run_id: str) -> None:
            with store:
                store.commit(Changes(new_runs=[a_run(run_id)]))

        stores = [SQLiteStore(path) for _ in range(6)]
        assert all_at_once([partial(use, store, f"run{index}") for index, store in enumerate(stores)]) == [None] * len(stores)
        with SQLiteStore(path) as store:
            assert sorted(store.list_runs()) == [f"run{index}" for index in range(6)]


def test_opening_waits_for_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program holds the file, opening waits until that lets go."""
    make_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", lambda seconds: other.execute("ROLLBACK"))
        with SQLiteStore(path, busy_timeout=10) as store:
            assert not other.in_transaction
            store.commit(Changes(new_runs=[a_run()]))
    assert ask(path, "PRAGMA journal_mode") == "wal"


def test_a_lock_held_too_long_is_an_error(store: SQLiteStore, path: Path) -> None:
    """Past `busy_timeout` a commit raises `StoreBusyError` instead of hanging; reads go on; afterwards the store works."""
    store.commit(Changes(new_runs=[a_run()]))
    with locked(path):
        with pytest.raises(StoreBusyError, match="locked"):
            store.commit(Changes(new_runs=[a_run("refused")]))
        assert store.list_runs() == ["run"]
    assert not store.exists("refused")
    store.commit(Changes(new_runs=[a_run("later")]))
    assert store.list_runs() == ["later", "run"]


def test_a_lock_held_while_opening_is_an_error(path: Path) -> None:
    """Past `busy_timeout`, opening a file that another program holds raises `StoreBusyError`, and works afterwards."""
    make_file(path)
    store = SQLiteStore(path, busy_timeout=0.01)
    with locked(path), pytest.raises(StoreBusyError, match="locked"):
        store.open()
    store.commit(Changes(new_runs=[a_run()]))
    assert store.list_runs() == ["run"]
    store.close()


# --- trouble of the medium ---


def test_a_commit_that_fails_leaves_nothing(store: SQLiteStore) -> None:
    """When the disk is full in mid-commit, nothing of it is there, the new run is unknown, and later commits succeed."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    before = snapshot(store)
    big = Changes(
        new_runs=[a_run("new", graph='{"new":[]}')],
        tasks=[a_task(0, reason="changed"), *(a_task(position, "new", output="x" * 1000) for position in range(500))],
        attempts=[an_attempt(1)],
    )
    writer = store._file._writer
    assert writer is not None
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(StoreFullError, match="full"):
        store.commit(big)
    assert snapshot(store) == before
    with pytest.raises(RunNotFoundError):
        store.commit(Changes(tasks=[a_task(0, "new")]))
    writer.execute(f"PRAGMA max_page_count = {1 << 30}")
    store.commit(big)
    assert len(store.read_tasks("new")) == 500
    assert store.read_run("new").graph == '{"new":[]}'


def test_numbers_and_texts_that_no_column_holds(store: SQLiteStore) -> None:
    """A number beyond 64 bits, or bytes that are no Unicode, is a `StoreError`, and nothing beside it is written."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    before = snapshot(store)
    for odd in (a_task(1, attempts=1 << 64), a_task(1, error="half \udc80")):
        with pytest.raises(StoreError, match="does not fit"):
            store.commit(Changes(tasks=[a_task(0, reason="changed"), odd]))
        assert snapshot(store) == before


def test_damage_is_a_named_error(path: Path) -> None:
    """Whatever is overwritten or cut off, what leaves the store is a `StoreError` and never an error of sqlite3."""
    with SQLiteStore(path) as store:
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task(number, output="x" * 500) for number in range(100)]))
    whole = path.read_bytes()
    page = 4096
    damages = {
        "the first page's tables": whole[:100] + b"\xff" * 400 + whole[500:],
        "all but the first page": whole[:page] + b"\xa5" * (len(whole) - page),
        "cut in the middle": whole[: len(whole) // 2 // page * page],
        "cut within the header": whole[:50],
    }
    for damaged in damages.values():
        path.write_bytes(damaged)
        store = SQLiteStore(path)
        with pytest.raises(StoreError, match=r"runs\.db"):
            store.read_tasks("run")
        store.close()


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("UPDATE runs SET state = 'paused'", "read_run"),
        ("UPDATE tasks SET state = 'paused'", "read_tasks"),
        ("UPDATE tasks SET type = 'paused'", "read_tasks"),
        ("UPDATE attempts SET result = 'paused'", "read_attempts"),
    ],
)
def test_a_row_with_an_unknown_word(store: SQLiteStore, path: Path, statement: str, read: str) -> None:
    """A word that somebody else put into a row, one that the library does not even know, is damage; check() says the same."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()], attempts=[an_attempt(1)]))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(statement)
    with pytest.raises(StoreDamagedError, match=r"runs\.db.*'run' is damaged.*not what was written"):
        getattr(store, read)("run")
    assert "'run' is damaged" in store.check()[0]


def test_tables_that_disappear(store: SQLiteStore, path: Path) -> None:
    """Tables dropped behind our back are a `StoreError` at the next read and the next commit."""
    store.commit(Changes(new_runs=[a_run()]))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DROP TABLE tasks")
    for use in (lambda: store.read_tasks("run"), lambda: store.commit(Changes(tasks=[a_task()]))):
        with pytest.raises(StoreError, match="no such table"):
            use()
