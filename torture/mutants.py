"""Tests of the tests: the engine is broken on purpose, in one place at a time, and a test that is named must notice.

Each mutant is tried in a copy of this checkout, never in place. It fails if one survives, or cannot be made since the code
has moved on.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINE = "app/infra/flow"
LEFT_OUT = (".git", "__pycache__", ".*_cache", ".hypothesis", ".venv", "build", "dist", "*.egg-info", ".coverage")
PATIENCE = 240
"""Seconds for the tests of one mutant. One that makes them hang is caught."""


FAILED = re.compile(r"^FAILED (.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One way to break the engine."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """The test files, or `file -k words`, that must notice: one test in them is enough."""


POWER_SQLITE, POWER_JSON = ("test_power_cuts_sqlite.py",), ("test_power_cuts_json.py", "test_json_flush.py")
SIMULATED = ("test_simulation.py",)
LIMITED = ("test_simulation_limits.py",)
RULED = ("test_rules_runs.py",)

MUTANTS: tuple[Mutant, ...] = (
    # --- what has reached the disk ---
    Mutant(
        "sqlite: never FULL",
        "commits that are to be flushed are not",
        "sqlite_file.py",
        """f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}\"""",
        '"PRAGMA synchronous = NORMAL"',
        POWER_SQLITE,
    ),
    Mutant(
        "sqlite: the timer syncs nothing",
        "what was committed within the interval is never flushed",
        "sqlite_file.py",
        "    def _sync(descriptor: int) -> None:\n        os.fsync(descriptor)",
        "    def _sync(descriptor: int) -> None:\n        pass",
        ("test_waiting.py",),
    ),
    Mutant(
        "json: journals are not synced",
        "commits that are to be flushed are not",
        "json_writer.py",
        "        try:\n            self._files.sync(descriptor)",
        "        try:\n            pass",
        POWER_JSON,
    ),
    Mutant(
        "json: names are not synced",
        "a new journal, or a fold, is not in its folder after a power cut",
        "json_writer.py",
        "                self._files.sync_folder(self._reader.folder)",
        "                pass",
        POWER_JSON,
    ),
    Mutant(
        "json: a fold is not synced",
        "the readable file takes the journal's place before it is on the disk",
        "json_writer.py",
        "self._files.create(temporary, data, sync=True)",
        "self._files.create(temporary, data, sync=False)",
        POWER_JSON,
    ),
    Mutant(
        "json: sync does nothing",
        "the file system's own sync",
        "file_system.py",
        "                    raise\n        os.fsync(descriptor)",
        "                    raise",
        ("test_json_flush.py", "test_json_store.py", "test_json_commits.py"),
    ),
    Mutant(
        "nothing is ever due",
        "sync_interval is not kept",
        "flusher.py",
        "return asked or (self.interval is not None and self._monotonic() - self._last >= self.interval)",
        "return asked",
        ("test_flusher.py",),
    ),
    Mutant(
        "sqlite: a failed commit is carried on from",
        "after a COMMIT that raised, the connection is used as if nothing were",
        "sqlite_file.py",
        "            self._roll_back(writer)\n            self._abandon()\n            raise\n        return done",
        "            self._roll_back(writer)\n            raise\n        return done",
        ("test_sqlite_disk.py", "test_sqlite_store.py"),
    ),
    Mutant(
        "sqlite: a failed flush is not told",
        "the timer's fsync failed, and nobody hears of it",
        "sqlite_file.py",
        "            if self._failure is not None:\n                self._tell_failure(self._failure, wait)",
        "            if False:\n                self._tell_failure(self._failure, wait)",
        ("test_sqlite_disk.py",),
    ),
    Mutant(
        "json: a failed flush is not suspect",
        "after an fsync that failed, the next one is believed",
        "json_writer.py",
        "            self._files.sync(descriptor)\n        except OSError:\n            self.suspect = True\n            raise",
        "            self._files.sync(descriptor)\n        except OSError:\n            raise",
        ("test_json_flush.py", "test_json_store.py", "test_json_commits.py"),
    ),
    # --- persist, then tell, then act ---
    Mutant(
        "told before it is committed",
        "events come before the commit",
        "runner.py",
        "            step.changes.lease = self._lease\n",
        "            step.changes.lease = self._lease\n"
        "            self._events.emit(step.events)\n            step.events.clear()\n",
        SIMULATED,
    ),
    Mutant(
        "tasks start before the commit",
        "an attempt begins that is not stored",
        "runner.py",
        "            calls = [] if self._cancelling else self._advance(step)\n",
        "            calls = [] if self._cancelling else self._advance(step)\n"
        "            self._begin(calls)\n            calls = []\n",
        SIMULATED,
    ),
    Mutant(
        "a task does not wait for all upstreams",
        "it starts when all but one have ended",
        "machine.py",
        "                    if not pending[position]:\n",
        "                    if pending[position] < 2:\n",
        SIMULATED,
    ),
    Mutant(
        "a transaction split in two",
        "a kill in the middle of a commit leaves half of it",
        "sqlite_store.py",
        "        writing.write_tasks(writer)\n        # By now",
        '        writer.execute("COMMIT")\n        writer.execute("BEGIN IMMEDIATE")\n'
        "        writing.write_tasks(writer)\n        # By now",
        (*POWER_SQLITE, "test_sqlite_store.py"),
    ),
    Mutant(
        "json: the commit point comes first",
        "of a commit over several runs, the entry that makes it count is written before the others",
        "json_store.py",
        "for run_id in innermost_first(entries, parents)}",
        "for run_id in reversed(innermost_first(entries, parents))}",
        ("test_json_commits.py", *POWER_JSON),
    ),
    # --- who may write ---
    Mutant(
        "sqlite: no fence",
        "who has lost a run may write to it",
        "sqlite_store.py",
        "if known.epoch != lease.epoch or known.owner is None:  # taken",
        "if False:  # taken",
        ("test_stores.py -k SQLite", "test_ownership.py"),
    ),
    Mutant(
        "json: no fence",
        "who has lost a run may write to it",
        "json_store.py",
        "        self._ownership.check(changes.lease)\n        # What",
        "        # What",
        ("test_stores.py -k Json", "test_ownership.py"),
    ),
    Mutant(
        "memory: no fence",
        "who has lost a run may write to it",
        "memory_store.py",
        "            self.check_lease(changes)\n            for run in changes.new_runs:",
        "            for run in changes.new_runs:",
        (*SIMULATED, "test_stores.py -k Memory"),
    ),
    Mutant(
        "sqlite: claims without looking",
        "a living owner's run is taken",
        "sqlite_store.py",
        "            if owner is not None and self._owners.is_alive(owner):",
        "            if False:",
        ("test_ownership.py",),
    ),
    Mutant(
        "json: claims without looking",
        "a living owner's run is taken",
        "json_leases.py",
        "            if run_id in self._held if mine else self._owners.is_alive(owner.token):",
        "            if mine and run_id in self._held:",
        ("test_ownership.py",),
    ),
    Mutant(
        "every owner is dead",
        "a living owner's run is taken, and its file removed",
        "owners.py",
        "        path = self._path(token)\n        lock = FileLock(path)",
        "        return False\n        path = self._path(token)\n        lock = FileLock(path)",
        ("test_owners.py", "test_ownership.py"),
    ),
    Mutant(
        "every owner lives",
        "a dead owner's run is never free",
        "owners.py",
        "        path = self._path(token)\n        lock = FileLock(path)",
        "        return True\n        path = self._path(token)\n        lock = FileLock(path)",
        ("test_owners.py", "test_crash_sweep.py"),
    ),
    Mutant(
        "no sign of life",
        "a lease is not renewed",
        "owners.py",
        "                    os.write(self._lock.descriptor, _beat_of(self._monotonic))\n",
        "                    pass\n",
        ("test_owners.py", "test_ownership.py"),
    ),
    Mutant(
        "sqlite: the lease is kept at the end",
        "a run that has ended is not given up",
        "sqlite_store.py",
        "        if changes.release:\n            known.owner = known.since = None\n",
        "        if changes.release:\n",
        ("test_stores.py -k SQLite", "test_state_machine.py -k SQLite"),
    ),
    Mutant(
        "json: the lease is kept at the end",
        "a run that has ended is not given up",
        "json_store.py",
        "        if changes.release and changes.lease is not None:\n            self._entry(entries",
        "        if False and changes.lease is not None:\n            self._entry(entries",
        ("test_stores.py -k Json", "test_state_machine.py -k Json"),
    ),
    Mutant(
        "joins do not join",
        "a second call in the process drives the run, too",
        "drives.py",
        "                drive = self._drives.get(key)\n                if drive is not None and drive.loop",
        "                drive = None\n                if drive is not None and drive.loop",
        SIMULATED,
    ),
    Mutant(
        "no fork hook",
        "a forked child takes its parent's connections and locks for its own",
        "forks.py",
        "os.register_at_fork(after_in_child=_tell)",
        "pass",
        ("test_forks.py", "test_sqlite_store.py", "test_json_store.py"),
    ),
    # --- locks and waiting ---
    Mutant(
        "sqlite: the write lock is not taken",
        "processes write and checkpoint at the same instant",
        "sqlite_file.py",
        "if not (lock.acquire(self._busy_timeout) if wait else lock.try_acquire()):",
        "if False:",
        ("test_waiting.py", "test_loop_alive.py -k sqlite"),
    ),
    Mutant(
        "json: the folder's lock is not taken",
        "processes write into each other's lines",
        "json_store.py",
        "                if self._take_folder():\n                    try:\n                        self._recover()",
        "                if True:\n                    try:\n                        self._recover()",
        ("test_json_owners.py", "test_ownership.py", "test_processes.py"),
    ),
    Mutant(
        "no deadline",
        "a lock that somebody holds is waited for without end",
        "file_lock.py",
        "            if time.monotonic() >= deadline:",
        "            if False:",
        ("test_loop_alive.py -k sqlite",),
    ),
    Mutant(
        "a commit on the loop waits for the lock",
        "the event loop stands still while another process writes",
        "sqlite_file.py",
        "(lock.acquire(self._busy_timeout) if wait else lock.try_acquire())",
        "lock.acquire(self._busy_timeout)",
        ("test_waiting.py",),
    ),
    Mutant(
        "a commit that is cancelled is not waited for",
        "the caller goes on while it is still being made",
        "off_loop.py",
        "            except asyncio.CancelledError as error:\n                cancelled = error",
        "            except asyncio.CancelledError as error:\n                raise error",
        ("test_off_loop.py", *SIMULATED),
    ),
    # --- continuing ---
    Mutant(
        "what succeeded runs again",
        "a resume sets successes back",
        "machine.py",
        "            if record.state is RUNNING:\n                self._cut_off(step, record, now, died=True)",
        "            if record.state is SUCCESS:\n                self._move(step, record, SCHEDULED)\n"
        "            if record.state is RUNNING:\n                self._cut_off(step, record, now, died=True)",
        SIMULATED,
    ),
    Mutant(
        "what was cut off stays so",
        "a resume leaves RUNNING what nobody runs",
        "machine.py",
        "            if record.state is RUNNING:\n                self._cut_off(step, record, now, died=True)",
        "            if record.state is RUNNING:\n                pass",
        SIMULATED,
    ),
    Mutant(
        "an interruption uses up a retry",
        "a kill makes a task fail",
        "records.py",
        "return self.try_number + 1 - self.interruptions",
        "return self.try_number + 1",
        SIMULATED,
    ),
    Mutant(
        "no budget of interruptions",
        "a task that kills its process does so for ever",
        "retry_manager.py",
        "elif died and crashes >= policy.max_interruptions:",
        "elif died and crashes >= 1_000_000:",
        ("test_interruptions.py",),
    ),
    Mutant(
        "the delay is not stored",
        "a restart tries again at once",
        "machine.py",
        "            record.due = now + round(delay * 1e6)",
        "            record.due = None",
        SIMULATED,
    ),
    Mutant(
        "a wait grows with the clock",
        "a wall clock that was set back stretches it",
        "machine.py",
        "min(record.due - now, record.due - ended)",
        "(record.due - now)",
        ("test_resume.py -k clock",),
    ),
    Mutant(
        "a wait is cut to the policy's first delay",
        "a restart shortens what backoff or RetryAfter made of it",
        "machine.py",
        "min(record.due - now, record.due - ended)",
        "min(record.due - now, round(self._policies[record.task_id].delay * 1e6))",
        ("test_retry.py -k restart",),
    ),
    Mutant(
        "jitter by the bare checksum",
        "tasks that were tried again together once are so each time",
        "machine.py",
        "(drawn * 2654435761 & 0xFFFFFFFF)",
        "drawn",
        ("test_retry_property.py",),
    ),
    # --- limits, and what people cancel ---
    Mutant(
        "a time-out is not kept",
        "an attempt may take as long as it likes",
        "attempts.py",
        "        if timeout is not None and now >= held.began + timeout:",
        "        if False:",
        ("test_timeouts.py", *LIMITED),
    ),
    Mutant(
        "a silence is not noticed",
        "an attempt may be stuck for as long as it likes",
        "attempts.py",
        "        elif heartbeat_timeout is not None and now >= sign + heartbeat_timeout:",
        "        elif False:",
        ("test_timeouts.py", *LIMITED),
    ),
    Mutant(
        "the time of an attempt counts from its decision",
        "a store that is busy for long makes attempts fail that have not begun",
        "attempts.py",
        "            held.began = monotonic()\n",
        "",
        ("test_timeouts.py",),
    ),
    Mutant(
        "who was told to end has all the time there is",
        "a task that does not listen hangs its run",
        "attempts.py",
        "            held.entry = self._agenda.put(now + self._grace, call)\n",
        "",
        (*LIMITED, "test_timeouts.py"),
    ),
    Mutant(
        "a pool lets one too many in",
        "more attempts use a thing at once than it has slots",
        "pools.py",
        "self._used + weight <= self.size",
        "self._used + weight <= self.size + 1",
        ("test_pools.py", *LIMITED),
    ),
    Mutant(
        "slots are not given back by those that end",
        "a pool runs dry",
        "attempts.py",
        "        if held.pool is not None:\n            held.pool.give(held.options.pool_weight)\n        succeeded",
        "        succeeded",
        LIMITED,
    ),
    Mutant(
        "slots are not given back by a drive that is stopped",
        "a pool runs dry",
        "attempts.py",
        "            if held.pool is not None:\n                held.pool.give(held.options.pool_weight)\n"
        "        self._held.clear()",
        "            pass\n        self._held.clear()",
        LIMITED,
    ),
    Mutant(
        "nobody is told of free slots",
        "a run that waits for a pool hangs",
        "pools.py",
        "            waiting, self._waiting = self._waiting, {}\n        for tell in waiting.values():",
        "            waiting, self._waiting = self._waiting, {}\n        for tell in ():",
        ("test_pools.py", *LIMITED),
    ),
    Mutant(
        "an attempt that is given up leads to nothing",
        "the wait for its retry, or the end of its subflow, is not noted down, and the run hangs",
        "runner.py",
        "        if step.joined:\n            self._absorb_joined(step)\n        while step.finished:",
        "        if self._agenda.entries and not step.ready:\n            step.delayed.clear()\n"
        "        if step.joined:\n            self._absorb_joined(step)\n        while step.finished:",
        ("test_timeouts.py", *LIMITED),
    ),
    Mutant(
        "an ask is not heeded",
        "what is cancelled while it is driven runs on",
        "heeding.py",
        "        if live.machine.is_there(record.task_id) and not ExecutionState.is_terminal(record.state):",
        "        if False:",
        ("test_live_cancel.py", *LIMITED),
    ),
    Mutant(
        "an ask is forgotten before it is stored",
        "a store that fails loses it",
        "runner.py",
        "                self._heard.append(ask)\n",
        "                self._heard.append(ask)\n                self.heeded.append(ask)\n",
        ("test_live_cancel.py",),
    ),
    Mutant(
        "what is asked of a drive that is being stopped is left",
        "a retry may come in between before it is done",
        "runner.py",
        "        if self._asked and not self._cancelling:  # while we waited",
        "        if False:",
        ("test_live_cancel.py", *LIMITED),
    ),
    Mutant(
        "a cancelled task starts",
        "one that was cancelled while it waited begins when there is room",
        "admission.py",
        "            if record.state is _SCHEDULED:\n                live =",
        "            if True:\n                live =",
        ("test_live_cancel.py", *LIMITED),
    ),
    Mutant(
        "a cancelled task is tried again",
        "the failure of one that was told to end counts as any other",
        "attempts.py",
        "        if held.cancelled is not None and not succeeded:",
        "        if False:",
        ("test_live_cancel.py", *LIMITED),
    ),
    Mutant(
        "a retry by itself brings back what was cancelled",
        "a task that somebody cancelled inside a subflow runs again",
        "runner.py",
        "cancelled=self._is_retried_by_hand(live, record))",
        "cancelled=True)",
        ("test_live_cancel.py", *LIMITED),
    ),
    Mutant(
        "a cancelled run is put back",
        "a run that is cancelled while it is driven waits to be continued",
        "runner.py",
        "            if not self._cancelling:\n                live.machine.interrupt(step, now)",
        "            if True:\n                live.machine.interrupt(step, now)",
        ("test_live_cancel.py", *LIMITED),
    ),
    # --- rules and maps ---
    Mutant(
        "rules: a branch is not waited for",
        "whether a task runs depends on whether its branch or another upstream ends first",
        "waiting.py",
        "        if self.branches:\n            return WAIT\n",
        "",
        ("test_reference.py",),
    ),
    Mutant(
        "rules: what a branch did not choose goes on",
        "all ways are gone",
        "machine.py",
        "            news += self._leave_out(",
        "            self._left_out_by(self.graph.position(record.task_id)) or self._leave_out(",
        RULED,
    ),
    Mutant(
        "rules: what is behind what was chosen is skipped",
        "a branch skips the task in which its ways meet",
        "machine.py",
        "        goes_on = {*chosen, *self.graph.descendants(chosen)}",
        "        goes_on = {*chosen}",
        RULED,
    ),
    Mutant(
        "rules: a skip counts as a failure",
        "what runs if nothing failed does not",
        "machine.py",
        "        return AS_SKIPPED if record.state is SKIPPED and position in self._soft else AS_FAILED",
        "        return AS_FAILED",
        RULED,
    ),
    Mutant(
        "rules: a restart forgets which skips are no failures",
        "the same run comes to something else if it is killed",
        "machine.py",
        "not self._failed_upstream(position):\n                    self._soft.add(position)",
        "not self._failed_upstream(position):\n                    pass",
        RULED,
    ),
    Mutant(
        "rules: what ended in an earlier drive does not count",
        "a failure of an earlier drive is forgotten where something else is skipped",
        "machine.py",
        "        if blocked:  # all that ended",
        "        if False:  # all that ended",
        RULED,
    ),
    Mutant(
        "maps: a whole does not mind items that were skipped by a failure",
        "a map over what failed succeeds",
        "maps.py",
        "                mapped.classes[index] = AS_FAILED if verdict is SKIP_FAILED else AS_SKIPPED\n",
        "                mapped.classes[index] = AS_SKIPPED\n",
        RULED,
    ),
    Mutant(
        "maps: a restart forgets which items were skipped by a failure",
        "the same run comes to something else if it is killed",
        "maps.py",
        "        return AS_FAILED if by_failure else AS_SKIPPED",
        "        return AS_SKIPPED",
        RULED,
    ),
    Mutant(
        "maps: the output of a whole is looked for after its run has ended",
        "a nested flow that ends with a map stops the drive",
        "runner.py",
        "        if step.joined:\n            self._absorb_joined(step)\n        while step.finished:",
        "        while step.finished:",
        RULED,
    ),
    Mutant(
        "maps: what streams from an item is not set back with it",
        "a retry mends an item, and not what follows from it",
        "maps.py",
        "            parts[task_id] = [index for index in parts[source] if index < len(mapped.items)]",
        "            parts[task_id] = []",
        RULED,
    ),
    Mutant(
        "maps: a retry of a whole goes on with the items of before",
        "what is set back with all that is upstream of it keeps outputs that nothing stands for any more",
        "maps.py",
        "                affected += [other, *(found.known if found is not None else ())]",
        "                affected += [other]",
        ("test_mapping.py", *RULED),
    ),
    Mutant(
        "maps: an interrupted whole begins afresh",
        "items that succeeded run again",
        "maps.py",
        "        fresh = [item for item in made.values() if item.task_id not in known] if known else list(made.values())",
        "        known.clear()\n        fresh = list(made.values())",
        RULED,
    ),
    Mutant(
        "maps: what is not on the list any more waits for ever",
        "a run has ended, and items of it have not",
        "maps.py",
        "                if item.state not in TERMINAL_STATES:",
        "                if False:",
        ("test_mapping.py", *RULED),
    ),
    Mutant(
        "maps: what streams from a whole that is cancelled is not told",
        "a run hangs: its items wait for others that will never end",
        "maps.py",
        "        self._told(step, [(stream, index) for index in indexes for stream in mapped.streams], now)",
        "",
        ("test_mapped_cancels.py",),
    ),
    Mutant(
        "maps: a whole settles before its list was looked at again",
        "it ends twice when its last open item is cancelled meanwhile",
        "maps.py",
        "        if index is None or not mapped.listed or mapped.record.state is not _RUNNING:",
        "        if index is None or mapped.record.state is not _RUNNING:",
        ("test_mapped_cancels.py",),
    ),
    Mutant(
        "maps: outputs of items are let go when their whole has failed",
        "the list has None in their place after the subflow around it was tried again",
        "maps.py",
        " or mapped.record.state is _FAILED:",
        ":",
        ("test_mapped_retries.py",),
    ),
    Mutant(
        "maps: an item is set back without its whole",
        "it waits for ever in a run that has ended",
        "maps.py",
        "        unlisted = item_of is not None and task_id not in item_of.index",
        "        unlisted = False",
        ("test_mapped_retries.py",),
    ),
    # --- damage ---
    Mutant(
        "json: a torn tail is an error",
        "a kill in the middle of a line makes the run unreadable",
        "json_journal.py",
        '    elif not any(journal.version == 1 or entry.get("synced", 0) > start for entry in behind):\n        return\n',
        '    elif not any(journal.version == 1 or entry.get("synced", 0) > start for entry in behind):\n        pass\n',
        ("test_json_damage.py",),
    ),
    Mutant(
        "json: a torn tail stays in the file",
        "the next line is written behind half of another",
        "json_writer.py",
        "            if length > known.length:\n                self._cut_open(descriptor, known.length)",
        "            pass",
        ("test_json_damage.py", *POWER_JSON),
    ),
    Mutant(
        "json: lines are not checked",
        "a changed value in a journal is believed",
        "json_journal.py",
        'if data[end : end + 1] != b"\\n" or zlib.crc32(text, checksum_before) != checksum:',
        'if data[end : end + 1] != b"\\n":',
        ("test_json_damage.py", "test_fuzz.py"),
    ),
    Mutant(
        "sqlite: rows are not checked",
        "a changed value in a row is believed",
        "sqlite_rows.py",
        "if task_crc(row[:17]) != row[17]:",
        "if False:",
        ("test_sqlite_damage.py",),
    ),
    Mutant(
        "sqlite: seals are not checked",
        "a row that is missing, or is yesterday's, is not missed",
        "sqlite_rows.py",
        "        if total != sealed_total:",
        "        if False:",
        ("test_sqlite_damage.py",),
    ),
    Mutant(
        "sqlite: the witness is not heard",
        "commits that vanished with a damaged -wal file are not missed",
        "witness.py",
        "if found is None or found < count:",
        "if False:",
        ("test_sqlite_damage.py",),
    ),
    # --- the history ---
    Mutant(
        "nobody notes who drives",
        "the worker of an attempt is not known",
        "session.py",
        "        self.step.changes.note(NoteRecord(run.id, NoteKind.DRIVE, now, this_process(), state=run.state))\n",
        "",
        ("test_history.py",),
    ),
    Mutant(
        "a stop is not noted",
        "a run was interrupted when it was continued",
        "runner.py",
        "            step.changes.note(NoteRecord(self._root.run.id, NoteKind.INTERRUPT, now))\n",
        "            pass\n",
        ("test_history.py",),
    ),
    Mutant(
        "a reset is not noted",
        "when and by whom a task was set back is lost, and how the run had ended",
        "run_tree.py",
        "        step.changes.note(reset_note(live.run, records, now, task_id, this_process()))\n",
        "",
        ("test_history.py",),
    ),
    Mutant(
        "a reset is noted too late",
        "the note says where tasks stand after it",
        "run_tree.py",
        "map(live.machine.tasks.__getitem__, affected)",
        "()",
        ("test_history.py",),
    ),
    Mutant(
        "sqlite: pruning leaves notes",
        "rows of a run that is gone stay for ever",
        "sqlite_rows.py",
        """        writer.execute("DELETE FROM run_notes WHERE key BETWEEN ? AND ?", keys_of(number))\n""",
        "",
        ("test_stores.py",),
    ),
    Mutant(
        "sqlite: check does not look at notes",
        "a changed note is found only by who reads it",
        "sqlite_rows.py",
        "                self.notes(reader, run.id)\n",
        "",
        ("test_sqlite_damage.py",),
    ),
    Mutant(
        "sqlite: notes are numbered from 0 by each store",
        "a run's second owner cannot note anything",
        "sqlite_rows.py",
        "            beside, known.notes = self._beside_tasks(connection, number)\n",
        "            beside, _ = self._beside_tasks(connection, number)\n",
        ("test_stores.py", "test_history.py"),
    ),
    Mutant(
        "json: notes count for no checksum",
        "a note that was taken out of a readable file is not missed",
        "json_format.py",
        """if tree["version"] > 2 else""",
        """if tree["version"] > 3 else""",
        ("test_json_damage.py", "test_json_folded.py"),
    ),
    Mutant(
        "a wide reset is the first that there was",
        "a task that was set back twice was set back at the wrong time",
        "history.py",
        "next((note for note in found if note.at > ended), found[-1])",
        "found[0]",
        ("test_history.py",),
    ),
    # --- housekeeping ---
    Mutant(
        "prune takes what is young",
        "older_than= is not kept",
        "housekeeping.py",
        " <= now - policy.older_than:",
        " <= now:",
        ("test_stores.py",),
    ),
    Mutant(
        "prune takes the newest",
        "keep= is not kept",
        "housekeeping.py",
        "        if kept[root.flow_name] <= policy.keep:\n            continue\n",
        "",
        ("test_stores.py",),
    ),
    # --- what people see ---
    Mutant(
        "history: a reset that no task had noticed is taken for a later one",
        "a second attempt comes before the reset that made room for it",
        "history.py",
        "        if index and not is_told and attempt.try_number",
        "        if index and attempt.try_number",
        ("test_history.py",),
    ),
    Mutant(
        "command line: a failed run is done",
        "cron and CI do not hear that a run failed",
        "tools/running.py",
        "    return DONE if run.state == ExecutionState.SUCCESS else FAILED",
        "    return DONE",
        ("test_running.py", "test_walk.py"),
    ),
    Mutant(
        "terminal: escapes pass",
        "a task's id, or an error, steers the terminal",
        "tools/terminal.py",
        "    return _STEERING.sub(",
        "    return str(text) or _STEERING.sub(",
        ("test_trees.py", "test_looking_commands.py"),
    ),
    Mutant(
        "terminal: the cursor stays hidden",
        "whoever interrupts a run has to reset the terminal",
        "tools/screen.py",
        r'HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"',
        r'HIDE, SHOW = "\x1b[?25l", ""',
        ("test_screen.py", "test_show_progress.py"),
    ),
    Mutant(
        "secrets: nothing is masked",
        "a password among the params stands in reports and on terminals",
        "tools/units.py",
        "        if item is not None and not isinstance(item, bool) and is_sensitive(called, item):",
        "        if False:",
        ("test_masking.py",),
    ),
    Mutant(
        "report: markup passes",
        "a task's id or error is markup in the page",
        "tools/report/markup.py",
        """    return html.escape(found if len(found) <= most else f"{found[: most - 1]}…", quote=True)""",
        """    return found if len(found) <= most else f"{found[: most - 1]}…" """,
        ("test_report.py", "test_report_parts.py"),
    ),
    Mutant(
        "report: markup passes in tracebacks",
        "an error is markup in the page",
        "tools/report/markup.py",
        """    return html.escape("\\n".join(safe_lines(text)), quote=True)""",
        """    return "\\n".join(safe_lines(text))""",
        ("test_report.py", "test_report_parts.py"),
    ),
    Mutant(
        "pictures: markup passes",
        "a task's name is markup in the picture",
        "tools/pictures/svg.py",
        """    return escape(_NOT_IN_XML.sub("\\ufffd", text), quote=True)""",
        """    return _NOT_IN_XML.sub("\\ufffd", text)""",
        ("test_picture_texts.py", "test_pictures.py"),
    ),
    Mutant(
        "progress: what runs is forgotten",
        "the live view shows nothing under way",
        "tools/live_view.py",
        "    return [*lines, *_tasks(progress.running, width, room - len(lines), style, now)][:room]",
        "    return [*lines][:room]",
        ("test_live_view.py",),
    ),
)


# --- trying them ----------------------------------------------------------------------------------------------------------


def mutated(mutant: Mutant, root: Path) -> str:
    """The file's text with the change made.

    Raises:
        LookupError: the place is not there, or not only once.
    """
    source = (root / ENGINE / mutant.file).read_text(encoding="utf-8")
    found = source.count(mutant.old)
    if found != 1:
        raise LookupError(f"{mutant.name}: the text to change stands {found} times in {mutant.file}")
    return source.replace(mutant.old, mutant.new)


class Bench:
    """A copy of the checkout, in which the tests are run.

    Args:
        copy: where it is.
    """

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        self._unsound: dict[str, list[str]] = {}
        """Of tests as they are named by mutants: those that fail anyway."""

    @property
    def unsound(self) -> list[str]:
        """The tests that fail although nothing is broken; they prove nothing."""
        return sorted({name for names in self._unsound.values() for name in names})

    def _run(self, tests: str, *options: str) -> tuple[int | None, str]:
        """Run some tests: pytest's exit code, or None where they do not end; and what was said."""
        names, _, words = (tests, "", "") if "::" in tests else tests.partition(" -k ")
        command = [sys.executable, "-m", "pytest", "-q", "-rf", "--no-cov", "-p", "no:cacheprovider", "--tb=no", *options]
        command.append(f"{ENGINE}/__tests__/{names}")
        command.extend(["-k", words] if words else [])
        if importlib.util.find_spec("pytest_timeout"):
            command.extend(["--timeout", "60", "--timeout-method", "thread"])  # which ends a hang wherever it is
        try:
            ended = subprocess.run(command, cwd=self._copy, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return None, ""
        return ended.returncode, ended.stdout + ended.stderr

    def _failing_anyway(self, tests: str) -> list[str]:
        known = self._unsound.get(tests)
        if known is None:
            code, said = self._run(tests)
            if code not in (0, 1):
                raise RuntimeError(f"{tests} cannot be run (pytest ended with {code}):\n{said[-3000:]}")
            known = self._unsound[tests] = FAILED.findall(said)
        return known

    def try_one(self, mutant: Mutant) -> str | None:
        """The first test that notices; None where none does.

        Raises:
            RuntimeError: the tests could not be run.
        """
        tests = [named for named in mutant.tests if (self._copy / ENGINE / "__tests__" / re.split(" |::", named)[0]).exists()]
        for named in tests:
            self._failing_anyway(named)
        path = self._copy / ENGINE / mutant.file
        sound = path.read_text(encoding="utf-8")
        broken = mutated(mutant, self._copy)
        try:
            for named in tests:
                path.write_text(broken, encoding="utf-8")
                failed = self._first_to_fail(mutant, named)
                while failed is not None and "::" in failed:
                    # A test that fails now and then, on a machine with much else to do, has noticed nothing.
                    again = self._run_one(failed)
                    path.write_text(sound, encoding="utf-8")
                    if again and not self._run_one(failed):
                        return failed
                    self._unsound[named].append(f"{ENGINE}/__tests__/{failed}")
                    path.write_text(broken, encoding="utf-8")
                    failed = self._first_to_fail(mutant, named)
                if failed is not None:
                    return failed
        finally:
            path.write_text(sound, encoding="utf-8")
        return None

    def _first_to_fail(self, mutant: Mutant, tests: str) -> str | None:
        code, said = self._run(tests, "-x", *(f"--deselect={test}" for test in self._unsound[tests]))
        if code is None:
            return f"{tests} (it did not end)"
        if code in (0, 5):  # 5: all of them were left out
            return None
        if code == 1:
            failed = FAILED.search(said)
            return failed[1].rpartition("/__tests__/")[2] if failed else f"{tests} (it was stopped)"
        raise RuntimeError(f"{mutant.name}: {tests} could not be run (pytest ended with {code}):\n{said[-3000:]}")

    def _run_one(self, test: str) -> bool:
        """Whether a test fails."""
        return self._run(test)[0] != 0


def try_all(mutants: Sequence[Mutant]) -> int:
    """Try each, and print the table; how many survive, and how many tests are not sound."""
    survivors: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        bench = Bench(copy)
        print("| mutant | what is broken | caught by | seconds |\n|---|---|---|---:|", flush=True)
        for mutant in mutants:
            began = time.monotonic()
            caught = bench.try_one(mutant)
            if caught is None:
                survivors.append(mutant.name)
            seconds = time.monotonic() - began
            print(f"| {mutant.name} | {mutant.breaks} | {caught or '**nothing: it survives**'} | {seconds:.0f} |", flush=True)
    if bench.unsound:
        print("\nNot asked, since they fail although nothing is broken:", *bench.unsound, sep="\n    ")
    caught_ones = len(mutants) - len(survivors)
    print(f"\n{caught_ones} of {len(mutants)} mutants were caught{'; not: ' if survivors else ''}{', '.join(survivors)}")
    return len(survivors) + len(bench.unsound)


def main() -> int:
    """Read the command line; 1 if a mutant survives, or the list does not fit the code any more."""
    parser = argparse.ArgumentParser(prog="python -m torture.mutants", description=__doc__)
    parser.add_argument("--only", metavar="WORDS", help="those whose names hold these")
    parser.add_argument("--check", action="store_true", help="only look whether all of them can still be made")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if options.only is None or options.only in mutant.name]
    lost: list[str] = []
    for mutant in mutants:
        try:
            mutated(mutant, ROOT)
        except LookupError as problem:
            lost.append(str(problem))
    print("\n".join(lost) or f"all {len(mutants)} mutants can be made")
    if lost or options.check:
        return bool(lost)
    return min(1, try_all(mutants))


if __name__ == "__main__":
    sys.exit(main())
