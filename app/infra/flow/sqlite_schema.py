"""What an SQLite file of ours looks like: its tables, what leads from each version to the next, and the checksums of its rows.

Knows one connection at a time; must not know files, locks or records.
"""

from __future__ import annotations

import sqlite3
from binascii import crc32
from typing import Any

from .errors import StoreDamagedError, StoreFormatError, StoreVersionError

APPLICATION_ID = 0x4E426174  # "NBat", in the file's header: tells our files from other programs'

POSITIONS = 1 << 32
"""A task's key is its run's number times this, plus its position."""

WEIGHT = 1 << 32
"""Added to each row's checksum in the sum that seals a run, so that the sum counts the rows as well."""

MIGRATIONS: tuple[str, ...] = (
    """
    -- Graphs are shared by the runs that were made with them: a nightly flow stores its graph once.
    CREATE TABLE graphs (
        no     INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        graph  TEXT NOT NULL
    );
    CREATE TABLE runs (
        no             INTEGER PRIMARY KEY,
        id             TEXT NOT NULL UNIQUE,
        flow_name      TEXT NOT NULL,
        state          TEXT NOT NULL,
        params         TEXT NOT NULL,
        graph_no       INTEGER NOT NULL REFERENCES graphs (no),
        created        INTEGER NOT NULL,
        started        INTEGER,
        ended          INTEGER,
        parent_run_id  TEXT,
        parent_task_id TEXT
    );
    CREATE INDEX runs_by_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
    CREATE INDEX runs_by_creation ON runs (created);
    -- key = run no * 2^32 + position: the tasks of a run lie side by side, and a row is found by one integer.
    CREATE TABLE tasks (
        key           INTEGER PRIMARY KEY,
        task_id       TEXT NOT NULL,
        type          TEXT NOT NULL,
        state         TEXT NOT NULL,
        attempts      INTEGER NOT NULL,
        try_number    INTEGER NOT NULL,
        interruptions INTEGER NOT NULL,
        started       INTEGER,
        ended         INTEGER,
        due           INTEGER,
        input         TEXT,
        output        TEXT,
        error         TEXT,
        reason        TEXT,
        logs          TEXT,
        child_run_id  TEXT
    );
    CREATE TABLE attempts (
        task_key   INTEGER NOT NULL,
        number     INTEGER NOT NULL,
        task_id    TEXT NOT NULL,
        try_number INTEGER NOT NULL,
        result     TEXT NOT NULL,
        started    INTEGER,
        ended      INTEGER,
        error      TEXT,
        reason     TEXT,
        logs       TEXT,
        PRIMARY KEY (task_key, number)
    );
    """,
    """
    -- Numbers are never used again (AUTOINCREMENT), so that what another process remembers of a removed run fits no other.
    CREATE TABLE new_graphs (
        no     INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE,
        graph  TEXT NOT NULL
    );
    INSERT INTO new_graphs SELECT * FROM graphs;
    DROP TABLE graphs;
    ALTER TABLE new_graphs RENAME TO graphs;
    CREATE TABLE new_runs (
        no             INTEGER PRIMARY KEY AUTOINCREMENT,
        id             TEXT NOT NULL UNIQUE,
        flow_name      TEXT NOT NULL,
        state          TEXT NOT NULL,
        params         TEXT NOT NULL,
        graph_no       INTEGER NOT NULL,
        created        INTEGER NOT NULL,
        started        INTEGER,
        ended          INTEGER,
        parent_run_id  TEXT,
        parent_task_id TEXT,
        owner          TEXT,
        epoch          INTEGER NOT NULL DEFAULT 0,
        since          INTEGER,
        crc            INTEGER NOT NULL DEFAULT 0,
        commits        INTEGER,
        total          INTEGER,
        seal           INTEGER
    );
    INSERT INTO new_runs (no, id, flow_name, state, params, graph_no, created, started, ended, parent_run_id, parent_task_id)
        SELECT * FROM runs;
    DROP TABLE runs;
    ALTER TABLE new_runs RENAME TO runs;
    CREATE INDEX runs_by_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
    CREATE INDEX runs_by_creation ON runs (created);
    CREATE INDEX runs_by_graph ON runs (graph_no);
    -- crc is the checksum of a row's other columns, as far as the three named next.
    -- Each commit seals the runs that it writes, in one of the rows that it writes anyway: how many commits there were, and what
    -- the checksums of all rows of the run come to. So a row that is gone, or is one of yesterday, is found though its own is
    -- right.
    ALTER TABLE tasks ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN commits INTEGER;
    ALTER TABLE tasks ADD COLUMN total INTEGER;
    ALTER TABLE tasks ADD COLUMN seal INTEGER;
    ALTER TABLE attempts ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;
    UPDATE tasks SET crc = row_crc(key, task_id, type, state, attempts, try_number, interruptions, started, ended, due, input,
        output, error, reason, logs, child_run_id, crashes);
    UPDATE attempts SET crc = row_crc(task_key, number, task_id, try_number, result, started, ended, error, reason, logs);
    UPDATE runs SET crc = row_crc(id, flow_name, state, params, graph_no, created, started, ended, parent_run_id, parent_task_id,
        owner, epoch, since);
    UPDATE runs SET commits = 1, total = crc
        + (SELECT coalesce(sum(crc + 4294967296), 0) FROM tasks WHERE key BETWEEN no * 4294967296 AND no * 4294967296 +
        4294967295) + (SELECT coalesce(sum(crc + 4294967296), 0) FROM attempts
            WHERE task_key BETWEEN no * 4294967296 AND no * 4294967296 + 4294967295);
    UPDATE runs SET seal = row_crc(id, crc, commits, total);
    """,
    """
    -- What no other row tells: who drove a run and from when on, when it was stopped, what people set back. key = run no * 2^32 +
    -- a number that grows. crc is the checksum of the other columns, and counts in the total that seals the run.
    CREATE TABLE run_notes (
        key     INTEGER PRIMARY KEY,
        kind    TEXT NOT NULL,
        at      INTEGER NOT NULL,
        by      TEXT,
        task_id TEXT,
        tasks   INTEGER NOT NULL,
        state   TEXT,
        ended   INTEGER,
        detail  TEXT,
        crc     INTEGER NOT NULL
    );
    """,
)
"""What leads from each version of the schema (`PRAGMA user_version`) to the next, from an empty file on."""


_FIRST_WITH_NOTES = 3

_TEXTS = tuple("\x1f".join(["%s"] * number) for number in range(20))
_TASK_TEXT = _TEXTS[17]


def row_crc(*columns: Any) -> int:
    """The checksum of a row: CRC-32 of its columns as text. It finds flipped bits, not forgers."""
    return crc32((_TEXTS[len(columns)] % columns).encode("utf-8", "surrogatepass"))


def task_crc(columns: tuple[Any, ...]) -> int:
    """The checksum of a task's row, as `row_crc` makes it of the 17 columns before it."""
    # One operation for all columns takes half the time of str() and join().
    return crc32((_TASK_TEXT % columns).encode("utf-8", "surrogatepass"))


_PLAIN_TEXT = "\x1f".join(["%s"] * 9 + ["None"] * 2 + ["%s"] + ["None"] * 4 + ["0"])


def plain_task_crc(columns: tuple[Any, ...]) -> int:
    """The same, of the ten columns of a row whose others are at their defaults."""
    return crc32((_PLAIN_TEXT % columns).encode("utf-8", "surrogatepass"))


def check_ours(connection: sqlite3.Connection, store: str) -> int:
    """Refuse a database that another program made, or a newer version of this one; the version of its schema."""
    # In one select, that is of one moment: another process may be making the file right now.
    application, version, tables, notes = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master),"
        " (SELECT count(*) FROM sqlite_master WHERE name = 'run_notes')"
        " FROM pragma_application_id(), pragma_user_version()"
    ).fetchone()
    if application == APPLICATION_ID:
        if version < 1:
            raise StoreDamagedError(store, f"it has schema version {version}, which there never was; restore a backup")
        if version > len(MIGRATIONS):
            raise StoreVersionError(
                store,
                f"it has schema version {version}, this library knows up to {len(MIGRATIONS)}; use the version that wrote it",
            )
        if bool(notes) != (version >= _FIRST_WITH_NOTES):  # one flipped bit is between 2 and 3
            raise StoreDamagedError(
                store, f"it has schema version {version}, and the tables of another; it is left untouched; restore a backup"
            )
    elif application or version or tables:
        raise StoreFormatError(store, "the file is a database of another program; name another path")
    return int(version)


def migrate(writer: sqlite3.Connection, store: str) -> None:
    """Bring the schema up to date: each version in a transaction of its own, so a kill leaves one version or the next."""
    writer.create_function("row_crc", -1, row_crc, deterministic=True)
    while True:
        writer.execute("BEGIN IMMEDIATE")
        try:
            version = check_ours(writer, store)  # another process may have come first
            if version == len(MIGRATIONS):
                writer.execute("ROLLBACK")
                return
            for statement in MIGRATIONS[version].split(";"):
                if statement.strip():
                    writer.execute(statement)
            writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            writer.execute(f"PRAGMA user_version = {version + 1}")
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise
