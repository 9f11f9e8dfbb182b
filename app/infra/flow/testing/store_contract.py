"""The contract of stores, as tests: every store passes these very same ones, those of other people too.

Derive a class whose name your test runner collects, and say how your store is made:

    class TestMyStore(StoreContract):
        def make_store(self, folder: Path) -> Store:
            return MyStore(folder / "runs.mine")

The methods are written for pytest (`tmp_path` is its fixture), and need nothing but the standard library. Must not know any
particular store.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from ..codec import UnregisteredValue
from ..errors import (
    InvalidOptionError,
    OwnershipLostError,
    RunExistsError,
    RunNotFoundError,
    RunOwnedError,
    StoreClosedError,
    StoreError,
    UnknownTaskError,
    UnstorableValueError,
)
from ..models import AttemptResult, ExecutionState, LogEntry, NoteKind, StateChange, TaskInstance, TaskType, WorkflowRun
from ..records import Ask, AttemptRecord, Changes, Lease, NoteRecord, RunRecord, TaskRecord
from ..store import Store

E = TypeVar("E", bound=BaseException)

NOON = 1_700_000_000_000_000
"""Some moment, in microseconds since 1970."""

ODD_TEXTS = (
    "",
    " ",
    "NUL \0 inside",
    "two\nlines\r\nand\ta tab",
    "\"double\", 'single' and `back` quotes",
    "back\\slash \\u0041 \\n",
    "Grüße, 世界, नमस्ते, 🌍, e\u0301",
    "separators \u2028 \u2029 \x85 \x1b[31m \u202e",
    "; DROP TABLE runs; --",
    "%s {0} ${HOME} ?",
    '{"$": "tuple", "v": [1]}',
    "null",
    "x" * 100_000,
)

ODD_IDS = (
    "plain",
    "Plain",
    "PLAIN",
    "../../evil",
    "..\\..\\evil",
    "/etc/evil",
    "C:evil",
    "a/b",
    "a\\b",
    ".",
    "..",
    ".hidden",
    "trailing.",
    "trailing",
    "trailing ",
    " trailing",
    "CON",
    "con",
    "con.json",
    "nul",
    "a.json",
    "a.journal",
    "a",
    "A",
    "Aa",
    "aA",
    "aa",
    "-rf",
    "~",
    "%41",
    "*?<>|",
    'it\'s "quoted"',
    "a;b--",
    "NUL \0 byte",
    "line\nbreak",
    "\u00e9",
    "e\u0301",
    "E\u0301",
    "ß",
    "ss",
    "SS",
    "İ",
    "\u0131",
    "\u202eevil",
    "🌍",
    "7",
    "07",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "x" * 255,
    "x" * 256,
    "x" * 5_000,
    "x" * 4_999 + "y",
)


@dataclass
class Money:
    """A dataclass that a user would register."""

    amount: int
    currency: str


class Colour(Enum):
    """An enum that a user would register."""

    RED = "red"


class Point(NamedTuple):
    """A named tuple that a user would register."""

    x: int
    y: int


class Raises(Generic[E]):
    """`with Raises(KeyError) as told:` - the block raises that, and `told.error` is it."""

    error: E

    def __init__(self, kind: type[E]) -> None:
        self._kind = kind

    def __enter__(self) -> Raises[E]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        assert error is not None, f"{self._kind.__name__} was not raised"
        if not isinstance(error, self._kind):
            return False
        self.error = error
        return True


def a_run(run_id: str = "run", **columns: Any) -> RunRecord:
    """The record of a run, with the given columns."""
    given: dict[str, Any] = {"id": run_id, "flow_name": "nightly", "params": "{}", "graph": "{}", "created": NOON}
    return RunRecord(**{**given, **columns})


def a_task(position: int = 0, run_id: str = "run", **columns: Any) -> TaskRecord:
    """The record of a run's task at that position, with the given columns."""
    given: dict[str, Any] = {"run_id": run_id, "task_id": f"task{position}", "position": position}
    return TaskRecord(**{**given, **columns})


def an_attempt(number: int, position: int = 0, run_id: str = "run", **columns: Any) -> AttemptRecord:
    """The record of a task's attempt of that number, with the given columns."""
    given: dict[str, Any] = dict.fromkeys(column.name for column in fields(AttemptRecord))
    given.update(run_id=run_id, task_id=f"task{position}", position=position, number=number, try_number=number - 1)
    given.update(result=AttemptResult.FAILED)
    return AttemptRecord(**{**given, **columns})


def a_note(kind: NoteKind = NoteKind.DRIVE, run_id: str = "run", **columns: Any) -> NoteRecord:
    """The record of a note, with the given columns."""
    given: dict[str, Any] = {"run_id": run_id, "kind": kind, "at": NOON}
    return NoteRecord(**{**given, **columns})


def full(store: Store, run_id: str, state: ExecutionState) -> Changes:
    """A run, a task, an attempt and a note, with a value of its own in every column."""
    encode = store.codec.encode
    run = RunRecord(
        id=run_id,
        flow_name="flow of " + run_id,
        params=encode({"rows": 3}),
        graph=encode({"load": [], "clean": ["load"]}),
        created=NOON + 1,
        state=state,
        started=NOON + 2,
        ended=NOON + 3,
        parent_run_id="parent of " + run_id,
        parent_task_id="sub",
    )
    task = TaskRecord(
        run_id=run_id,
        task_id="load",
        position=0,
        type=TaskType.FLOW,
        state=state,
        attempts=7,
        try_number=5,
        interruptions=4,
        started=NOON + 4,
        ended=NOON + 5,
        due=NOON + 1_000_000,
        input=encode([1, "in"]),
        output=encode(None),
        error="the error",
        reason="the reason",
        logs=encode([[NOON, 20, "a line"]]),
        child_run_id="child of " + run_id,
    )
    attempt = AttemptRecord(
        run_id=run_id,
        task_id="load",
        position=0,
        number=6,
        try_number=8,
        result=AttemptResult.INTERRUPTED,
        started=NOON + 6,
        ended=NOON + 7,
        error="its error",
        reason="its reason",
        logs=encode([[NOON + 8, 30, "its line"]]),
    )
    note = NoteRecord(
        run_id=run_id,
        kind=NoteKind.RESET,
        at=NOON + 9,
        by="process 7 on host",
        task_id="sub.load",
        tasks=11,
        state=state,
        ended=NOON + 10,
        detail='[["load","failed",2,null,"größe"]]',
    )
    return Changes(new_runs=[run], tasks=[task], attempts=[attempt], notes=[note])


def snapshot(store: Store) -> dict[str, Any]:
    """All that the store holds, as records: two of them are equal exactly if nothing was written in between."""
    order = [run.id for run in store.read_runs()]
    # Copies of our own: a store that handed out its very records would change ours with its own.
    runs = {
        run_id: (
            replace(store.read_run(run_id)),
            [replace(task) for task in store.read_tasks(run_id)],
            [replace(attempt) for attempt in store.read_attempts(run_id)],
        )
        for run_id in order
    }
    notes = {run_id: found for run_id in order if (found := [replace(note) for note in store.read_notes(run_id)])}
    return {"order": order, **runs, **({"notes": notes} if notes else {})}


def all_at_once(work: Sequence[Callable[[], Any]]) -> list[BaseException | None]:
    """Do each piece of work in a thread of its own, all from the same moment on; return what each raised."""
    start = threading.Barrier(len(work))

    def go(piece: Callable[[], Any]) -> None:
        start.wait()
        piece()

    with ThreadPoolExecutor(len(work)) as pool:
        return [future.exception() for future in [pool.submit(go, piece) for piece in work]]


class StoreContract(ABC):
    """What every store must keep, one promise a test. Complete `make_store`; see the module's docstring."""

    persistent: bool = True
    """Whether a store's runs outlive the object. If not, what is asked of a second object is asked of the same one again."""

    @abstractmethod
    def make_store(self, folder: Path) -> Store:
        """A store that nobody has opened yet and that keeps all it keeps within `folder`.

        Called again with the same folder, it makes another store of the same data.
        """

    def place(self, folder: Path) -> Path | None:
        """The file or folder in which a store of that folder keeps its runs: a backup that lies there is a store again.

        By default what a store has as its `path` or `folder`; None where it has neither.
        """
        store = self.make_store(folder)
        place = getattr(store, "path", getattr(store, "folder", None))
        return Path(place) if isinstance(place, (str, Path)) else None

    def _beside(self, store: Store, folder: Path) -> Store:
        """Another store of the same data, as a second process would have it, while the first is still open."""
        return self.make_store(folder) if self.persistent else store

    def _reopened(self, store: Store, folder: Path) -> Store:
        """The store after a restart of the program."""
        store.close()
        again = self._beside(store, folder)
        again.open()
        return again

    # --- opening and closing ---

    def test_it_has_every_method_of_the_protocol(self, tmp_path: Path) -> None:
        """A store is a `Store`: no method is missing."""
        assert isinstance(self.make_store(tmp_path), Store)

    def test_making_a_store_does_no_work(self, tmp_path: Path) -> None:
        """A store that is made and never used leaves no file behind, so importing a script writes nothing."""
        self.make_store(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_the_first_read_opens_it(self, tmp_path: Path) -> None:
        """Nobody has to call `open`: a read does, and a fresh store is empty."""
        store = self.make_store(tmp_path)
        assert store.read_runs() == []
        store.close()

    def test_the_first_commit_opens_it(self, tmp_path: Path) -> None:
        """Nobody has to call `open`: a commit does."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()]))
        assert store.read_run("run") == a_run()
        store.close()

    def test_open_and_close_may_be_repeated(self, tmp_path: Path) -> None:
        """A second `open` of an open store and a second `close` of a closed one change nothing."""
        store = self.make_store(tmp_path)
        store.open()
        store.commit(Changes(new_runs=[a_run()]))
        store.open()
        assert store.exists("run")
        store.close()
        store.close()

    def test_a_store_that_was_never_opened_can_be_closed(self, tmp_path: Path) -> None:
        """`close` before any use raises nothing, and closes the store."""
        store = self.make_store(tmp_path)
        store.close()
        with Raises(StoreClosedError):
            store.read_runs()

    def test_a_closed_store_refuses_everything(self, tmp_path: Path) -> None:
        """After `close`, every method raises `StoreClosedError` instead of opening the store again behind one's back."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        model = store.load("run")
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.commit(Changes(new_runs=[a_run("other")])),
            lambda: store.read_run("run"),
            lambda: store.read_tasks("run"),
            lambda: store.read_attempts("run"),
            lambda: store.read_notes("run"),
            lambda: store.read_runs(),
            lambda: store.save(model),
            lambda: store.load("run"),
            lambda: store.exists("run"),
            lambda: store.update_task("run", model.tasks["task0"]),
            lambda: store.list_runs(),
            lambda: store.list_children("run"),
            lambda: store.get_all_runs(),
            lambda: store.list_attempts("run"),
            lambda: store.history("run"),
            lambda: store.claim("run"),
            lambda: store.owner_of("run"),
            lambda: store.ask("run", Ask("run")),
            lambda: store.check(),
            lambda: store.prune(),
        ]
        for call in calls:
            with Raises(StoreClosedError):
                call()
        store.open()
        assert store.list_runs() == ["run"]
        store.close()

    def test_a_closed_store_can_be_opened_again(self, tmp_path: Path) -> None:
        """`open` after `close` makes the same object usable, with all that was committed, and it takes new commits."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        store.close()
        store.open()
        store.commit(Changes(tasks=[a_task(1)]))
        assert [task.position for task in store.read_tasks("run")] == [0, 1]
        store.close()

    def test_it_is_a_context_manager(self, tmp_path: Path) -> None:
        """`with` gives the store itself, closes it at the end, and lets an error in its block through."""
        store = self.make_store(tmp_path)
        with Raises(ZeroDivisionError), store as opened:
            assert opened is store
            store.commit(Changes(new_runs=[a_run()]))
            raise ZeroDivisionError
        with Raises(StoreClosedError):
            store.exists("run")

    # --- one commit ---

    def test_a_run_reads_back_as_it_was_written(self, tmp_path: Path) -> None:
        """Every column of run, task, attempt and note comes back, in every state, from this object and from another beside it."""
        store = self.make_store(tmp_path)
        for state in ExecutionState:
            changes = full(store, f"run-{state}", state)
            store.commit(changes)
            beside = self._beside(store, tmp_path)
            for reader in (store, beside):
                assert reader.read_run(f"run-{state}") == changes.new_runs[0]
                assert reader.read_tasks(f"run-{state}") == changes.tasks
                assert reader.read_attempts(f"run-{state}") == changes.attempts
                assert reader.read_notes(f"run-{state}") == changes.notes
            if beside is not store:
                beside.close()
        store.close()

    def test_a_reopened_store_is_equal(self, tmp_path: Path) -> None:
        """After a restart, every column of every record is what it was, whether or not its commit was flushed."""
        store = self.make_store(tmp_path)
        for flush in (False, True):
            for state in ExecutionState:
                changes = full(store, f"run-{state}-{flush}", state)
                changes.flush = flush
                store.commit(changes)
        before = snapshot(store)
        assert len(before["order"]) == 2 * len(ExecutionState)
        again = self._reopened(store, tmp_path)
        assert snapshot(again) == before
        again.close()

    def test_empty_columns_stay_empty(self, tmp_path: Path) -> None:
        """What is None reads back as None, an empty text as an empty text, and 0 as 0, after a restart too."""
        store = self.make_store(tmp_path)
        run = a_run(graph="", created=0, state=ExecutionState.SUCCESS, started=0)
        tasks = [a_task(0), a_task(1, error="", reason="", started=0, ended=-1)]
        attempts = [an_attempt(1), an_attempt(2, error="", reason="")]
        notes = [a_note(), a_note(NoteKind.CANCEL, at=-1, by="", task_id="", ended=0, detail="")]
        store.commit(Changes(new_runs=[run], tasks=tasks, attempts=attempts, flush=True, notes=notes))
        again = self._reopened(store, tmp_path)
        assert again.read_notes("run") == notes
        assert (again.read_run("run"), again.read_tasks("run"), again.read_attempts("run")) == (run, tasks, attempts)
        again.close()

    def test_a_run_without_tasks(self, tmp_path: Path) -> None:
        """An empty flow's run has no tasks and no attempts; asking for them is no error."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()]))
        assert (store.read_tasks("run"), store.read_attempts("run"), store.read_notes("run")) == ([], [], [])
        store.close()

    def test_an_empty_commit_changes_nothing(self, tmp_path: Path) -> None:
        """A commit of nothing, flushed or not, is allowed, as the first one as well."""
        store = self.make_store(tmp_path)
        store.commit(Changes())
        store.commit(Changes(flush=True))
        assert store.read_runs() == []
        store.close()

    def test_an_existing_run_is_not_made_again(self, tmp_path: Path) -> None:
        """A new run whose id is taken is a `RunExistsError` that names the flow that has it."""
        store = self.make_store(tmp_path)
        for state in (ExecutionState.RUNNING, ExecutionState.SUCCESS):
            run_id = f"run-{state}"
            store.commit(Changes(new_runs=[a_run(run_id, flow_name="first", state=state)], flush=True))
            with Raises(RunExistsError) as told:
                store.commit(Changes(new_runs=[a_run(run_id, flow_name="second")]))
            assert (told.error.run_id, told.error.flow_name, told.error.wanted_by) == (run_id, "first", "second")
            assert store.read_run(run_id).flow_name == "first"
        store.close()

    def test_a_commit_with_an_existing_run_writes_nothing(self, tmp_path: Path) -> None:
        """All or nothing: beside a new run whose id is taken, no other run, task or attempt of the commit is written."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run("old"), a_run("taken")], tasks=[a_task(0, "old")]))
        before = snapshot(store)
        with Raises(RunExistsError):
            store.commit(
                Changes(
                    new_runs=[a_run("new"), a_run("taken")],
                    runs=[a_run("old", state=ExecutionState.RUNNING)],
                    tasks=[
                        a_task(0, "new"),
                        a_task(0, "taken"),
                        a_task(0, "old", state=ExecutionState.RUNNING),
                        a_task(1, "old"),
                    ],
                    attempts=[an_attempt(1, run_id="old")],
                    notes=[a_note(run_id="old")],
                )
            )
        assert snapshot(store) == before
        again = self._reopened(store, tmp_path)
        assert snapshot(again) == before
        again.close()

    def test_a_commit_with_an_unknown_run_writes_nothing(self, tmp_path: Path) -> None:
        """All or nothing: where the run of a record exists nowhere, `RunNotFoundError`, and no other record is written."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run("old")], tasks=[a_task(0, "old")]))
        before = snapshot(store)
        for unknown in (
            Changes(runs=[a_run("unknown")]),
            Changes(tasks=[a_task(0, "unknown")]),
            Changes(attempts=[an_attempt(1, run_id="unknown")]),
            Changes(notes=[a_note(run_id="unknown")]),
        ):
            unknown.new_runs.append(a_run("new"))
            unknown.runs.append(a_run("old", state=ExecutionState.SUCCESS))
            unknown.tasks.append(a_task(0, "old", state=ExecutionState.SUCCESS))
            unknown.tasks.append(a_task(0, "new"))
            unknown.attempts.append(an_attempt(1, run_id="old"))
            unknown.note(a_note(run_id="old"))
            with Raises(RunNotFoundError) as told:
                store.commit(unknown)
            assert told.error.run_id == "unknown"
            assert snapshot(store) == before
        again = self._reopened(store, tmp_path)
        assert snapshot(again) == before
        again.close()

    def test_a_refused_run_is_not_half_known(self, tmp_path: Path) -> None:
        """A new run whose commit was refused does not exist: tasks for it are refused, and it can still be made."""
        store = self.make_store(tmp_path)
        with Raises(RunNotFoundError):
            store.commit(Changes(new_runs=[a_run("new")], tasks=[a_task(0, "unknown")]))
        with Raises(RunNotFoundError):
            store.commit(Changes(tasks=[a_task(0, "new")]))
        assert not store.exists("new")
        store.commit(Changes(new_runs=[a_run("new")], tasks=[a_task(0, "new")]))
        assert store.read_tasks("new") == [a_task(0, "new")]
        store.close()

    def test_one_commit_over_several_runs(self, tmp_path: Path) -> None:
        """A parent, its child and its grandchild are made and later changed by one commit each, in whatever order they stand."""
        store = self.make_store(tmp_path)
        parents = {"root": None, "child": "root", "grandchild": "child"}
        for order in (list(parents), list(reversed(parents))):
            prefix = order[0] + "-"
            runs = [
                a_run(prefix + name, parent_run_id=parent and prefix + parent)
                for name, parent in sorted(parents.items(), key=lambda item: order.index(item[0]))
            ]
            tasks = [a_task(position, run.id) for run in runs for position in (1, 0)]
            store.commit(Changes(new_runs=runs, tasks=tasks))
            for run in runs:
                run.state = ExecutionState.SUCCESS
            for task in tasks:
                task.state = ExecutionState.SUCCESS
            attempts = [an_attempt(1, run_id=run.id) for run in runs]
            store.commit(Changes(runs=runs, tasks=tasks, attempts=attempts, flush=True))
            for run, attempt in zip(runs, attempts):
                assert store.read_run(run.id) == run
                assert [(task.position, task.state) for task in store.read_tasks(run.id)] == [(0, "success"), (1, "success")]
                assert store.read_attempts(run.id) == [attempt]
        before = snapshot(store)
        again = self._reopened(store, tmp_path)
        assert snapshot(again) == before
        again.close()

    def test_a_commit_over_many_runs(self, tmp_path: Path) -> None:
        """One commit may touch more runs than a store may want to have open at a time."""
        store = self.make_store(tmp_path)
        runs = [a_run(f"run{number}", created=NOON + number) for number in range(150)]
        store.commit(Changes(new_runs=runs, tasks=[a_task(0, run.id) for run in runs]))
        store.commit(Changes(tasks=[a_task(0, run.id, reason=run.id) for run in runs]))
        assert [store.read_tasks(run.id)[0].reason for run in runs] == [run.id for run in runs]
        with Raises(RunExistsError):
            store.commit(Changes(new_runs=[*(a_run(f"more{number}") for number in range(150)), a_run("run7")]))
        assert store.list_runs() == [run.id for run in reversed(runs)]
        store.close()

    def test_a_record_may_stand_in_a_commit_twice(self, tmp_path: Path) -> None:
        """The same record twice in a list is written once, as it is at the time of the commit."""
        store = self.make_store(tmp_path)
        run, task, attempt = a_run(), a_task(), an_attempt(1)
        changes = Changes(new_runs=[run, run], runs=[run, run], tasks=[task, task], attempts=[attempt, attempt])
        run.state = task.state = ExecutionState.RUNNING
        attempt.reason = "changed last"
        store.commit(changes)
        assert (store.read_run("run"), store.read_tasks("run"), store.read_attempts("run")) == (run, [task], [attempt])
        assert store.list_runs() == ["run"]
        store.close()

    def test_a_large_commit(self, tmp_path: Path) -> None:
        """10,000 tasks are made and later replaced by one commit each, and all come back in order after a restart."""
        store = self.make_store(tmp_path)
        tasks = [a_task(position) for position in range(10_000)]
        store.commit(Changes(new_runs=[a_run()], tasks=tasks))
        for task in tasks:
            task.state, task.output = ExecutionState.SUCCESS, str(task.position)
        store.commit(Changes(runs=[a_run(state=ExecutionState.SUCCESS)], tasks=tasks, flush=True))
        again = self._reopened(store, tmp_path)
        assert again.read_tasks("run") == tasks
        again.close()

    # --- rows ---

    def test_tasks_come_in_order_of_position(self, tmp_path: Path) -> None:
        """Tasks come by position as a number, whatever the order of their commits and names; gaps are allowed."""
        store = self.make_store(tmp_path)
        positions = [10, 2, 9, 0, 100, 1]
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task(position, task_id=f"z{-position}") for position in positions]))
        store.commit(Changes(tasks=[a_task(11, task_id="a"), a_task(3, task_id="b")]))
        assert [task.position for task in store.read_tasks("run")] == [0, 1, 2, 3, 9, 10, 11, 100]
        assert list(store.load("run").tasks) == ["z0", "z-1", "z-2", "b", "z-9", "z-10", "a", "z-100"]
        store.close()

    def test_a_task_is_replaced_whole(self, tmp_path: Path) -> None:
        """A task that is written again is replaced in every column, back to None too; its neighbours stay."""
        store = self.make_store(tmp_path)
        first = full(store, "run", ExecutionState.FAILED)
        store.commit(first)
        store.commit(Changes(tasks=[a_task(1)]))
        bare = a_task(0, task_id="load")
        store.commit(Changes(tasks=[bare]))
        assert store.read_tasks("run") == [bare, a_task(1)]
        again = self._reopened(store, tmp_path)
        assert again.read_tasks("run") == [bare, a_task(1)]
        again.close()

    def test_a_run_is_replaced_whole(self, tmp_path: Path) -> None:
        """A run that is written again is replaced in every column, back to None too; its tasks and attempts stay."""
        store = self.make_store(tmp_path)
        first = full(store, "run", ExecutionState.FAILED)
        store.commit(first)
        bare = a_run(flow_name="other", graph='{"other":[]}', created=NOON - 1)
        store.commit(Changes(runs=[bare], flush=True))
        assert (store.read_run("run"), store.read_tasks("run"), store.read_attempts("run")) == (bare, first.tasks, first.attempts)
        assert store.read_runs() == [bare]
        assert store.list_children("parent of run") == []
        store.close()

    def test_a_finished_run_goes_on(self, tmp_path: Path) -> None:
        """A run that ended, flushed, takes further commits (a manual retry), across restarts and until it ends again."""
        store = self.make_store(tmp_path)
        run, task = a_run(state=ExecutionState.FAILED), a_task(state=ExecutionState.FAILED, attempts=1)
        store.commit(Changes(new_runs=[run], tasks=[task], flush=True))
        added: list[TaskRecord] = []
        for number in (2, 3):
            store = self._reopened(store, tmp_path)
            run.state = task.state = ExecutionState.RUNNING
            task.attempts = number
            store.commit(Changes(runs=[run], tasks=[task], attempts=[an_attempt(number - 1)]))
            assert (store.read_run("run"), store.read_tasks("run")) == (run, [task, *added])
            run.state = task.state = ExecutionState.FAILED
            added.append(a_task(number))
            store.commit(Changes(runs=[run], tasks=[task, added[-1]], flush=True))
        store = self._reopened(store, tmp_path)
        assert (store.read_run("run"), store.read_tasks("run")) == (run, [task, *added])
        assert store.read_attempts("run") == [an_attempt(1), an_attempt(2)]
        store.close()

    def test_two_stores_take_turns_at_one_run(self, tmp_path: Path) -> None:
        """What one process writes after another has ended the run is not lost: both stay open, and both see it all."""
        first = self.make_store(tmp_path)
        first.commit(Changes(new_runs=[a_run()], tasks=[a_task(0)]))
        second = self._beside(first, tmp_path)
        second.commit(Changes(runs=[a_run(state=ExecutionState.FAILED)], tasks=[a_task(1)], flush=True))
        first.commit(Changes(runs=[a_run(state=ExecutionState.RUNNING)], tasks=[a_task(2)]))
        second.commit(Changes(runs=[a_run(state=ExecutionState.SUCCESS)], tasks=[a_task(3)], flush=True))
        first.commit(Changes(tasks=[a_task(4)], flush=True))
        for store in (first, second):
            assert store.read_run("run").state is ExecutionState.SUCCESS
            assert store.read_tasks("run") == [a_task(position) for position in range(5)]
        second.close()
        again = self._reopened(first, tmp_path)
        assert [task.position for task in again.read_tasks("run")] == [0, 1, 2, 3, 4]
        again.close()

    def test_attempts_come_in_order_and_are_replaced(self, tmp_path: Path) -> None:
        """Attempts come by position and number, both as numbers; one of the same run, position and number is replaced."""
        store = self.make_store(tmp_path)
        attempts = [an_attempt(number, position) for position in (10, 9, 0) for number in (10, 9, 1)]
        store.commit(Changes(new_runs=[a_run()], attempts=attempts))
        replaced = an_attempt(9, 9, result=AttemptResult.INTERRUPTED, reason="replaced")
        store.commit(Changes(attempts=[replaced, an_attempt(2, 0)]))
        found = store.read_attempts("run")
        assert [(attempt.position, attempt.number) for attempt in found] == [
            *((0, number) for number in (1, 2, 9, 10)),
            *((9, number) for number in (1, 9, 10)),
            *((10, number) for number in (1, 9, 10)),
        ]
        assert found[5] == replaced
        store.close()

    def test_notes_come_in_the_order_in_which_they_were_added(self, tmp_path: Path) -> None:
        """Whatever their times; none is replaced, not even by its like; alone in a commit or not; after a restart too."""
        store = self.make_store(tmp_path)
        first, second = a_note(at=NOON + 5), a_note(NoteKind.RESET, at=NOON, task_id="task0", tasks=2)
        store.commit(Changes(new_runs=[a_run()], notes=[first, second]))
        store.commit(Changes(notes=[second]))
        ended = a_run(state=ExecutionState.SUCCESS)
        store.commit(Changes(runs=[ended], tasks=[a_task()], notes=[first], flush=True))
        for _ in range(3):
            lease = store.claim("run")
            store.commit(Changes(notes=[first, first], lease=lease, release=True))
        expected = [first, second, second, *[first] * 7]
        assert store.read_notes("run") == expected
        again = self._reopened(store, tmp_path)
        again.commit(Changes(notes=[second], flush=True))
        assert again.read_notes("run") == [*expected, second]
        assert again.read_run("run") == ended
        assert again.check() == []
        again.close()

    def test_notes_of_several_runs_are_one_commit(self, tmp_path: Path) -> None:
        """Each belongs to its own run; a commit at once adds them, or nothing."""
        store = self.make_store(tmp_path)
        names = ["root", "child"]
        store.commit(Changes(new_runs=[a_run("root"), a_run("child", parent_run_id="root")]))
        lease = store.claim("root")
        added = 0
        for number in range(6):
            notes = [a_note(run_id=name, at=number) for name in names[: 1 + number % 2]]
            changes = Changes(tasks=[a_task(0, "root")], notes=notes, lease=lease)
            before = [len(store.read_notes(name)) for name in names]
            if not store.commit_at_once(changes):
                assert [len(store.read_notes(name)) for name in names] == before
                store.commit(changes)
            added += len(notes)
        store.release(lease)
        again = self._reopened(store, tmp_path)
        assert [note.at for note in again.read_notes("root")] == list(range(6))
        assert [note.at for note in again.read_notes("child")] == [1, 3, 5]
        assert added == 9
        again.close()

    def test_runs_do_not_mix(self, tmp_path: Path) -> None:
        """Tasks and attempts of the same position and id belong to their own run alone."""
        store = self.make_store(tmp_path)
        for name in ("first", "second"):
            task, attempt = a_task(0, name, reason=name), an_attempt(1, 0, name, reason=name)
            store.commit(Changes(new_runs=[a_run(name)], tasks=[task], attempts=[attempt]))
        store.commit(Changes(tasks=[a_task(0, "first", reason="changed")]))
        assert [task.reason for task in store.read_tasks("second")] == ["second"]
        assert [attempt.reason for attempt in store.read_attempts("second")] == ["second"]
        assert [task.reason for task in store.read_tasks("first")] == ["changed"]
        store.close()

    def test_an_unknown_run_is_a_key_error(self, tmp_path: Path) -> None:
        """Every method that takes a run id raises `RunNotFoundError`, a KeyError, for one that is not there, however odd."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()]))
        lone_surrogate = "\ud800"
        for run_id in ("unknown", "", lone_surrogate, "../run", "RUN", "run ", "run\0"):
            reads: tuple[Callable[[str], object], ...] = (
                store.read_run,
                store.read_tasks,
                store.read_attempts,
                store.read_notes,
                store.load,
                store.list_attempts,
                store.history,
            )
            for read in reads:
                with Raises(RunNotFoundError) as told:
                    read(run_id)
                assert told.error.run_id == run_id
                assert isinstance(told.error, KeyError)
            assert not store.exists(run_id)
        store.close()

    # --- lists ---

    def test_runs_come_newest_first(self, tmp_path: Path) -> None:
        """By the moment in `created`, not by the order of commits, states or ids; the same after a restart."""
        store = self.make_store(tmp_path)
        for run_id, created, state in (
            ("b", 30, ExecutionState.SUCCESS),
            ("c", 10, ExecutionState.RUNNING),
            ("a", 20, ExecutionState.FAILED),
            ("d", 9, ExecutionState.SCHEDULED),
        ):
            store.commit(Changes(new_runs=[a_run(run_id, created=NOON + created, state=state)], flush=True))
        assert [run.id for run in store.read_runs()] == ["b", "a", "c", "d"]
        again = self._reopened(store, tmp_path)
        assert again.list_runs() == ["b", "a", "c", "d"]
        again.close()

    def test_of_one_moment_the_last_committed_comes_first(self, tmp_path: Path) -> None:
        """Runs of the same microsecond come in reverse order of their first commit; later commits do not move them."""
        store = self.make_store(tmp_path)
        order = ["m", "z", "a", "k"]
        for run_id in order:
            store.commit(Changes(new_runs=[a_run(run_id, parent_run_id="parent")]))
        for run_id in ("a", "m"):
            ended = a_run(run_id, parent_run_id="parent", state=ExecutionState.SUCCESS)
            store.commit(Changes(runs=[ended], tasks=[a_task(0, run_id)], flush=True))
        expected = order[::-1]
        assert (store.list_runs(), store.list_children("parent")) == (expected, expected)
        store = self._reopened(store, tmp_path)
        store.commit(Changes(new_runs=[a_run("last", parent_run_id="parent")]))
        expected = ["last", *expected]
        assert (store.list_runs(), store.list_children("parent")) == (expected, expected)
        store.close()

    def test_the_children_of_a_run(self, tmp_path: Path) -> None:
        """Only the runs of that very parent, newest first; none for a run without subflows or one that is not there."""
        store = self.make_store(tmp_path)
        parents = {"root": None, "one": "root", "two": "root", "inner": "one", "other": None, "three": "Root"}
        for number, (run_id, parent) in enumerate(parents.items()):
            run = a_run(run_id, created=NOON + number, parent_run_id=parent, parent_task_id=parent and "sub")
            store.commit(Changes(new_runs=[run]))
        assert store.list_children("root") == ["two", "one"]
        assert store.list_children("one") == ["inner"]
        assert store.list_children("inner") == store.list_children("unknown") == store.list_children("") == []
        assert [run.parent_task_id for run in store.read_runs("root")] == ["sub", "sub"]
        assert store.list_runs() == list(reversed(parents))
        store.close()

    def test_runs_are_listed_by_state_flow_and_number(self, tmp_path: Path) -> None:
        """Those that are asked for and no others, newest first; the same with their tasks; a mistake is refused by name."""
        store = self.make_store(tmp_path)
        ended = (ExecutionState.FAILED, ExecutionState.SUCCESS)
        for number in range(6):
            run = a_run(
                f"run{number}", created=NOON + number, state=ended[number % 2], flow_name="early" if number < 3 else "late"
            )
            store.commit(Changes(new_runs=[run], tasks=[a_task(0, run.id)]))
        assert store.list_runs("failed") == store.list_runs(ExecutionState.FAILED) == ["run4", "run2", "run0"]
        assert store.list_runs(state="failed", limit=2) == ["run4", "run2"]
        assert store.list_runs(flow_name="early") == ["run2", "run1", "run0"]
        assert store.list_runs("success", "late", 1) == ["run5"]
        assert store.list_runs("cancelled") == store.list_runs(flow_name="never") == []
        assert store.list_runs(limit=100) == store.list_runs()
        (model,) = store.get_all_runs(state="failed", flow_name="late")
        assert (model.id, len(model.tasks)) == ("run4", 1)
        assert [len(run.tasks) for run in store.get_all_runs(include_tasks=False, limit=2)] == [0, 0]
        for option, value in (("state", "broken"), ("state", 1), ("limit", 0), ("limit", "2"), ("limit", True)):
            with Raises(InvalidOptionError) as told:
                store.list_runs(**{option: value})  # type: ignore[arg-type]
            assert (told.error.option, told.error.value) == (option, value)
        store.close()

    # --- whose records they are ---

    def test_what_is_read_is_the_callers_own(self, tmp_path: Path) -> None:
        """Changing a record, a list or a model that was read changes nothing in the store."""
        store = self.make_store(tmp_path)
        changes = full(store, "run", ExecutionState.FAILED)
        changes.tasks[0].output = store.codec.encode({"rows": [1]})
        store.commit(changes)
        before = snapshot(store)
        store.read_run("run").state = ExecutionState.SUCCESS
        store.read_runs()[0].flow_name = "changed"
        tasks, attempts = store.read_tasks("run"), store.read_attempts("run")
        tasks[0].reason = attempts[0].reason = "changed"
        tasks.clear()
        attempts.clear()
        model = store.load("run")
        model.params["rows"] = "changed"
        model.tasks["load"].output_json["result"]["rows"].append("changed")
        assert snapshot(store) == before
        assert store.load("run").tasks["load"].output == {"rows": [1]}
        store.close()

    def test_what_was_committed_may_be_changed_afterwards(self, tmp_path: Path) -> None:
        """The engine goes on with its records: a store that keeps any of them keeps a copy."""
        store = self.make_store(tmp_path)
        changes = full(store, "run", ExecutionState.RUNNING)
        run, task, attempt = changes.new_runs[0], changes.tasks[0], changes.attempts[0]
        before = replace(run), replace(task), replace(attempt)
        store.commit(changes)
        run.flow_name = task.reason = attempt.reason = "changed after the commit"
        changes.tasks.append(a_task(1))
        store.commit(Changes(flush=True))
        assert (store.read_run("run"), *store.read_tasks("run"), *store.read_attempts("run")) == before
        store.close()

    # --- texts and ids ---

    def test_texts_come_back_unchanged(self, tmp_path: Path) -> None:
        """NUL, quotes, line ends, all of Unicode and what looks like code: every text column keeps it, after a restart too."""
        store = self.make_store(tmp_path)
        for number, text in enumerate(ODD_TEXTS):
            run_id, task_id = f"run{number}", f"task {text[:200]}"
            value = store.codec.encode({"key " + text: [text]})
            logs = store.codec.encode([[NOON, 20, text]])
            columns = {"task_id": task_id, "error": text, "reason": text, "logs": logs}
            run = a_run(
                run_id, flow_name=text, params=value, graph=value, parent_task_id=text, state=list(ExecutionState)[number % 7]
            )
            task = a_task(0, run_id, input=value, output=value, **columns)
            attempt = an_attempt(1, 0, run_id, **columns)
            store.commit(Changes(new_runs=[run], tasks=[task], attempts=[attempt], flush=True))
            assert (store.read_run(run_id), store.read_tasks(run_id), store.read_attempts(run_id)) == (run, [task], [attempt])
        before = snapshot(store)
        again = self._reopened(store, tmp_path)
        assert snapshot(again) == before
        assert again.load("run7").params == {"key " + ODD_TEXTS[7]: [ODD_TEXTS[7]]}
        again.close()

    def test_lone_surrogates_in_values(self, tmp_path: Path) -> None:
        """Half a surrogate pair, which has no bytes in UTF-8, survives in params and outputs: the codec escapes it."""
        store = self.make_store(tmp_path)
        for state in (ExecutionState.RUNNING, ExecutionState.SUCCESS):
            value = {"broken \udcff": ["\ud800", "whole 🌍 and half \udfff"]}
            run_id = f"run-{state}"
            text = store.codec.encode(value)
            run = a_run(run_id, params=text, state=state)
            store.commit(Changes(new_runs=[run], tasks=[a_task(0, run_id, output=text)], flush=True))
        before = snapshot(store)
        again = self._reopened(store, tmp_path)
        assert snapshot(again) == before
        for state in (ExecutionState.RUNNING, ExecutionState.SUCCESS):
            model = again.load(f"run-{state}")
            assert (model.params, model.tasks["task0"].output_json) == (value, value)
        again.close()

    def test_text_that_does_not_fit_is_refused_whole(self, tmp_path: Path) -> None:
        """A bare text with a lone surrogate is either kept, or refused with a `StoreError` and nothing else written."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        before = snapshot(store)
        odd = a_task(1, error="half \ud800")
        try:
            store.commit(Changes(tasks=[a_task(0, reason="changed"), odd], flush=True))
        except StoreError:
            assert snapshot(store) == before
        else:
            assert store.read_tasks("run") == [a_task(0, reason="changed"), odd]
        store.commit(Changes(tasks=[a_task(2)]))
        assert store.read_tasks("run")[-1] == a_task(2)
        store.close()

    def test_odd_ids_stay_apart_and_inside_the_folder(self, tmp_path: Path) -> None:
        """No run id reaches out of the store's folder, and no two ids are taken for one, whatever file systems make of them."""
        folder = tmp_path / "deep" / "inside"
        folder.mkdir(parents=True)
        store = self.make_store(folder)
        for number, run_id in enumerate(ODD_IDS):
            state = ExecutionState.SUCCESS if number % 2 else ExecutionState.RUNNING
            run = a_run(run_id, created=NOON + number, params=f'{{"number":{number}}}', state=state)
            store.commit(Changes(new_runs=[run], tasks=[a_task(0, run_id, reason=str(number))], flush=not number % 3))
        for reader in (store, self._reopened(store, folder)):
            reader.open()
            assert reader.list_runs() == list(reversed(ODD_IDS))
            for number, run_id in enumerate(ODD_IDS):
                assert reader.read_run(run_id).params == f'{{"number":{number}}}'
                assert [task.reason for task in reader.read_tasks(run_id)] == [str(number)]
            reader.close()
        assert [path for path in tmp_path.rglob("*") if folder not in (path, *path.parents)] == [folder.parent]

    # --- threads ---

    def test_many_threads_write_their_own_runs(self, tmp_path: Path) -> None:
        """Eight threads that commit and read at once lose nothing and disturb nobody, from the very first, opening call on."""
        store = self.make_store(tmp_path)

        def work(name: str) -> Callable[[], None]:
            def go() -> None:
                store.commit(Changes(new_runs=[a_run(name)], tasks=[a_task(0, name)]))
                for number in range(1, 11):
                    changes = Changes(tasks=[a_task(0, name, attempts=number)], attempts=[an_attempt(number, 0, name)])
                    changes.flush = number == 5
                    store.commit(changes)
                    assert store.read_tasks(name)[0].attempts == number
                    store.read_runs()

            return go

        names = [f"run{number}" for number in range(8)]
        assert all_at_once([work(name) for name in names]) == [None] * 8
        again = self._reopened(store, tmp_path)
        assert sorted(again.list_runs()) == names
        for name in names:
            assert again.read_tasks(name)[0].attempts == 10
            assert [attempt.number for attempt in again.read_attempts(name)] == list(range(1, 11))
        again.close()

    def test_a_refused_commit_of_one_thread_takes_nothing_from_another(self, tmp_path: Path) -> None:
        """While one thread's commits are refused and rolled back, those of another one stand."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run("taken")]))

        def refused() -> None:
            for _ in range(30):
                with Raises(RunExistsError):
                    store.commit(Changes(runs=[a_run("taken", flow_name="never")], new_runs=[a_run("never"), a_run("taken")]))

        def written() -> None:
            for number in range(30):
                store.commit(Changes(new_runs=[a_run(f"run{number}", created=NOON + number)]))

        assert all_at_once([refused, written, refused]) == [None] * 3
        assert store.list_runs() == [*(f"run{number}" for number in range(29, 0, -1)), "run0", "taken"]
        assert store.read_run("taken").flow_name == "nightly"
        store.close()

    def test_one_of_many_makes_the_run(self, tmp_path: Path) -> None:
        """Of threads that make a run of the same id at once, one succeeds, and the others get `RunExistsError`."""
        store = self.make_store(tmp_path)

        def make(number: int) -> Callable[[], None]:
            return lambda: store.commit(Changes(new_runs=[a_run(flow_name=f"flow{number}")], tasks=[a_task(number)]))

        raised = all_at_once([make(number) for number in range(6)])
        assert [type(error) for error in raised].count(RunExistsError) == 5
        winner = raised.index(None)
        assert store.read_run("run").flow_name == f"flow{winner}"
        assert store.read_tasks("run") == [a_task(winner)]
        store.close()

    def test_no_reader_sees_half_a_commit(self, tmp_path: Path) -> None:
        """While a thread changes three tasks in each commit, readers, also of another object, find them always equal."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task(position) for position in range(3)]))
        beside = self._beside(store, tmp_path)
        ended = threading.Event()

        def write() -> None:
            try:
                for number in range(1, 41):
                    store.commit(Changes(tasks=[a_task(position, attempts=number) for position in range(3)], flush=number == 20))
            finally:
                ended.set()

        def read(reader: Store) -> Callable[[], None]:
            def go() -> None:
                last = False
                while not last:
                    last = ended.is_set()
                    assert len({task.attempts for task in reader.read_tasks("run")}) == 1

            return go

        assert all_at_once([write, read(store), read(beside)]) == [None] * 3
        assert [task.attempts for task in beside.read_tasks("run")] == [40, 40, 40]
        beside.close()
        store.close()

    # --- owning ---

    def test_a_run_has_one_owner_at_a_time(self, tmp_path: Path) -> None:
        """Who claims a run that is owned is told which it is; once given up, it can be claimed anew, under a higher epoch."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run(), a_run("other")]))
        first = store.claim("run")
        assert first.run_id == "run"
        with Raises(RunOwnedError) as told:
            store.claim("run")
        assert told.error.run_id == "run"
        store.release(store.claim("other"))
        store.release(first)
        second = store.claim("run")
        assert second.epoch > first.epoch
        store.release(second)
        store.close()

    def test_an_unknown_run_has_no_owner(self, tmp_path: Path) -> None:
        """Claiming a run that is not there is a `RunNotFoundError`, also by force, and makes no run; releasing it is nothing."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()]))
        for force in (False, True):
            with Raises(RunNotFoundError):
                store.claim("unknown", force=force)
        store.release(Lease("unknown", 1))
        assert store.list_runs() == ["run"]
        store.close()

    def test_who_owns_a_run_can_be_asked_without_taking_it(self, tmp_path: Path) -> None:
        """`owner_of` says something of a run that is owned and None of one that is not, also by force; it changes no lease."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run(), a_run("other")]))
        assert store.owner_of("run") is None
        lease = store.claim("run")
        assert store.owner_of("run")
        assert store.owner_of("other") is None
        store.commit(Changes(tasks=[a_task()], lease=lease))
        store.release(lease)
        assert store.owner_of("run") is None
        again = store.claim("run", force=True)
        assert again.epoch == lease.epoch + 1, "nobody had it in between"
        store.commit(Changes(tasks=[a_task()], lease=again, release=True))
        assert store.owner_of("run") is None
        with Raises(RunNotFoundError):
            store.owner_of("unknown")
        store.close()

    def test_a_run_that_is_owned_can_be_read_by_all(self, tmp_path: Path) -> None:
        """Owning changes no record of a run: what is read is the same before, during and after, here and elsewhere."""
        store = self.make_store(tmp_path)
        store.commit(full(store, "run", ExecutionState.RUNNING))
        before = snapshot(store)
        lease = store.claim("run")
        beside = self._beside(store, tmp_path)
        assert snapshot(store) == snapshot(beside) == before
        store.release(lease)
        assert snapshot(store) == snapshot(beside) == before
        if beside is not store:
            beside.close()
        again = self._reopened(store, tmp_path)
        assert snapshot(again) == before
        again.close()

    def test_a_run_that_is_taken_by_force_is_lost_to_its_owner(self, tmp_path: Path) -> None:
        """The first owner's commits are refused from then on, whole and however often; the second one's are made."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run(), a_run("other")], tasks=[a_task()]))
        first = store.claim("run")
        store.commit(Changes(tasks=[a_task(reason="first")], lease=first))
        second = store.claim("run", force=True)
        assert second.epoch > first.epoch
        before = snapshot(store)
        for _ in range(2):
            with Raises(OwnershipLostError) as told:
                store.commit(
                    Changes(
                        new_runs=[a_run("new")],
                        runs=[a_run(state=ExecutionState.SUCCESS), a_run("other", state=ExecutionState.SUCCESS)],
                        tasks=[a_task(reason="late"), a_task(1), a_task(0, "new")],
                        attempts=[an_attempt(1)],
                        lease=first,
                        flush=True,
                        release=True,
                    )
                )
            assert told.error.run_id == "run"
            assert snapshot(store) == before
        store.release(first)  # nothing of it is left to give up
        with Raises(RunOwnedError):
            store.claim("run")
        store.commit(Changes(tasks=[a_task(reason="second")], lease=second))
        assert store.read_tasks("run") == [a_task(reason="second")]
        store.release(second)
        again = self._reopened(store, tmp_path)
        assert again.read_tasks("run") == [a_task(reason="second")]
        assert again.list_runs() == ["other", "run"]
        again.close()

    def test_a_commit_may_give_the_run_up(self, tmp_path: Path) -> None:
        """With `release`, what it writes is written and the run is free, in one; a refused one gives up nothing."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        for number, flush in enumerate((False, True)):
            lease = store.claim("run")
            with Raises(RunNotFoundError):
                store.commit(Changes(tasks=[a_task(0, "unknown")], lease=lease, release=True, flush=flush))
            with Raises(RunOwnedError):
                store.claim("run")
            store.commit(Changes(tasks=[a_task(attempts=number)], lease=lease, release=True, flush=flush))
            assert store.read_tasks("run") == [a_task(attempts=number)]
        store.release(store.claim("run"))
        lease = store.claim("run")
        store.commit(Changes(lease=lease, release=True, flush=True))  # nothing else to write
        store.release(store.claim("run"))
        store.close()

    def test_a_lease_that_was_given_up_writes_nothing(self, tmp_path: Path) -> None:
        """It is not the run's present one, though nobody else has the run: whoever is late must claim anew."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        lease = store.claim("run")
        store.release(lease)
        store.release(lease)
        with Raises(OwnershipLostError):
            store.commit(Changes(tasks=[a_task(reason="late")], lease=lease))
        lease = store.claim("run")
        store.commit(Changes(tasks=[a_task(reason="in time")], lease=lease, release=True))
        with Raises(OwnershipLostError):
            store.commit(Changes(tasks=[a_task(reason="late")], lease=lease))
        assert store.read_tasks("run") == [a_task(reason="in time")]
        store.close()

    def test_a_lease_covers_the_runs_of_subflows(self, tmp_path: Path) -> None:
        """By the right of the outermost run's lease, runs inside it are made and written, by the same commit or another."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        lease = store.claim("run")
        child = a_run("child", parent_run_id="run", parent_task_id="task0")
        store.commit(Changes(new_runs=[child], tasks=[a_task(0, "child"), a_task(child_run_id="child")], lease=lease))
        store.commit(Changes(tasks=[a_task(0, "child", reason="written")], attempts=[an_attempt(1, 0, "child")], lease=lease))
        assert store.read_tasks("child") == [a_task(0, "child", reason="written")]
        store.claim("run", force=True)
        with Raises(OwnershipLostError):
            store.commit(Changes(tasks=[a_task(0, "child", reason="late")], lease=lease))
        assert store.read_tasks("child") == [a_task(0, "child", reason="written")]
        store.close()

    def test_of_many_threads_one_becomes_the_owner(self, tmp_path: Path) -> None:
        """All others get `RunOwnedError`, each time."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()]))
        for _ in range(3):
            leases: list[Lease] = []

            def claim(leases: list[Lease] = leases) -> None:
                leases.append(store.claim("run"))

            raised = all_at_once([claim] * 6)
            assert len(leases) == 1
            assert [type(error) for error in raised].count(RunOwnedError) == 5
            store.release(leases[0])
        store.close()

    def test_a_restart_ends_what_was_owned(self, tmp_path: Path) -> None:
        """A program that closed its store, or ended, owns nothing any more: the next one claims the run at once."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        if not self.persistent:
            store.close()
            return
        first = store.claim("run")
        again = self._reopened(store, tmp_path)
        second = again.claim("run")
        again.commit(Changes(tasks=[a_task(reason="second")], lease=second))
        assert again.read_tasks("run") == [a_task(reason="second")]
        assert second.run_id == first.run_id
        again.release(second)
        again.close()

    # --- asking ---

    def test_what_is_asked_comes_in_order_and_once_until_it_is_forgotten(self, tmp_path: Path) -> None:
        """Asks of one run are none of another's, the same again is the same, and forgetting some leaves those that came since."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run(), a_run("other")]))
        assert store.asked("run") == []
        first, second, third = Ask("run", "a"), Ask("child", "sub.b"), Ask("run")
        for ask in (first, second, first):
            store.ask("run", ask)
        store.ask("other", Ask("other", "x"))
        assert store.asked("run") == [first, second]
        store.ask("run", third)
        store.forget_asks("run", [first, second])
        assert store.asked("run") == [third]
        store.ask("run", first)
        assert store.asked("run") == [third, first]
        store.forget_asks("run", [])
        store.forget_asks("run")
        store.forget_asks("run")
        assert (store.asked("run"), store.asked("other")) == ([], [Ask("other", "x")])
        assert (sorted(store.list_runs()), store.check()) == (["other", "run"], [])
        store.close()

    def test_nothing_is_asked_of_a_run_that_is_not_there(self, tmp_path: Path) -> None:
        """Asking something of an unknown run is a `RunNotFoundError`, and nothing is kept of it."""
        store = self.make_store(tmp_path)
        with Raises(RunNotFoundError):
            store.ask("unknown", Ask("unknown"))
        assert store.asked("unknown") == []
        store.close()

    def test_stores_of_one_identity_share_what_is_asked(self, tmp_path: Path) -> None:
        """What one of them was asked, the others are told at once in the same process, see, and see after a restart."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()]))
        other = self._beside(store, tmp_path)
        if other.identity != store.identity:  # asks of such a store are kept in memory: it has its runs to itself
            other = store
        told: list[str] = []
        ends = [store.watch_asks("run", lambda: told.append("one")), other.watch_asks("run", lambda: told.append("other"))]
        other.watch_asks("another", lambda: told.append("wrong"))()
        other.ask("run", Ask("run", "a"))
        assert sorted(set(told)) == ["one", "other"]
        assert store.asked("run") == other.asked("run") == [Ask("run", "a")]
        for end in ends:
            end()
            end()
        told.clear()
        other.ask("run", Ask("run"))
        assert told == []
        if other is not store:
            other.close()
            store = self._reopened(store, tmp_path)
        assert store.asked("run") == [Ask("run", "a"), Ask("run")]
        store.close()

    def test_one_who_is_told_and_raises_harms_nobody(self, tmp_path: Path) -> None:
        """What a callback raises goes to the log; the others are told, and the ask is kept."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()]))
        told: list[str] = []

        def bad() -> None:
            raise RuntimeError("bad")

        ends = [store.watch_asks("run", bad), store.watch_asks("run", lambda: told.append("good"))]
        store.ask("run", Ask("run"))
        assert "good" in told
        assert store.asked("run") == [Ask("run")]
        for end in ends:
            end()
        store.close()

    def test_any_id_can_be_asked_for(self, tmp_path: Path) -> None:
        """Ids that are no file names, and ids that differ in little, are told apart, and none leaves the folder."""
        store = self.make_store(tmp_path)
        ids = ["../../evil", "/etc/passwd", "CON", "Aa", "aa", "a\nb", "x" * 5000, "x" * 4999, "ä", "a~b", "a"]
        store.commit(Changes(new_runs=[a_run(run_id) for run_id in ids]))
        outside = {path.name for path in tmp_path.parent.iterdir()}
        for run_id in ids:
            store.ask(run_id, Ask(run_id, f"task.of {run_id}"))
        for run_id in ids:
            assert store.asked(run_id) == [Ask(run_id, f"task.of {run_id}")]
        assert {path.name for path in tmp_path.parent.iterdir()} == outside
        assert sorted(store.list_runs()) == sorted(ids)
        store.close()

    def test_what_was_asked_of_a_run_goes_with_it(self, tmp_path: Path) -> None:
        """A run that is pruned leaves neither asks nor notes behind for one that is made with its id later."""
        store = self.make_store(tmp_path)
        ended = a_run("done", state=ExecutionState.SUCCESS, started=NOON, ended=NOON)
        store.commit(Changes(new_runs=[ended, a_run()], notes=[a_note(run_id="done")]))
        store.ask("done", Ask("done"))
        store.ask("run", Ask("run"))
        try:
            assert store.prune() == ["done"]
        except StoreError:  # this kind of store removes none
            store.close()
            return
        assert (store.asked("done"), store.asked("run")) == ([], [Ask("run")])
        assert store.check() == []
        store.commit(Changes(new_runs=[ended]))
        assert store.read_notes("done") == []
        store.close()

    # --- committing at once ---

    def test_a_commit_at_once_is_a_commit_or_nothing(self, tmp_path: Path) -> None:
        """What it says it did is done, as by `commit`; where it did not, nothing is written, and `commit` does it."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        lease = store.claim("run")
        for number in range(1, 20):
            changes = Changes(tasks=[a_task(attempts=number)], attempts=[an_attempt(number)], lease=lease, flush=number % 5 == 0)
            if store.commit_at_once(changes):
                assert store.read_tasks("run") == [a_task(attempts=number)]
            else:
                assert store.read_tasks("run") == [a_task(attempts=number - 1)]
                store.commit(changes)
            beside = self._beside(store, tmp_path)
            assert beside.read_tasks("run") == [a_task(attempts=number)]
            if beside is not store:
                beside.close()
        store.release(lease)
        again = self._reopened(store, tmp_path)
        assert again.read_tasks("run") == [a_task(attempts=19)]
        assert [attempt.number for attempt in again.read_attempts("run")] == list(range(1, 20))
        again.close()

    def test_a_commit_at_once_is_refused_for_the_same_reasons(self, tmp_path: Path) -> None:
        """An existing run, an unknown run, a lost lease: the same error, or False; and nothing is written."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
        lost = store.claim("run")
        lease = store.claim("run", force=True)
        before = snapshot(store)
        for changes, kind in (
            (Changes(new_runs=[a_run()], tasks=[a_task(1)]), RunExistsError),
            (Changes(runs=[a_run(state=ExecutionState.FAILED)], tasks=[a_task(0, "unknown")], lease=lease), RunNotFoundError),
            (Changes(tasks=[a_task(reason="late")], lease=lost), OwnershipLostError),
        ):
            try:
                assert not store.commit_at_once(changes)
            except kind:
                pass
            assert snapshot(store) == before
        store.close()
        try:
            assert not store.commit_at_once(Changes(tasks=[a_task(reason="closed")]))
        except StoreClosedError:
            pass
        store.open()
        assert snapshot(store) == before
        store.close()

    # --- housekeeping ---

    def test_a_sound_store_has_nothing_to_tell(self, tmp_path: Path) -> None:
        """`check` finds nothing, in an empty store, in a filled one, while a run is owned, and after a restart."""
        store = self.make_store(tmp_path)
        assert store.check() == []
        for state in ExecutionState:
            changes = full(store, f"run-{state}", state)
            changes.new_runs[0].parent_run_id = changes.tasks[0].child_run_id = None
            store.commit(changes)
        lease = store.claim("run-running")
        store.commit(Changes(tasks=[a_task(0, "run-running", task_id="load")], lease=lease))
        assert store.check() == []
        store.release(lease)
        again = self._reopened(store, tmp_path)
        assert again.check() == []
        again.close()

    def test_a_run_under_a_parent_that_is_not_there_is_no_damage(self, tmp_path: Path) -> None:
        """People may put a run under whatever parent they like; it is recorded, and not looked for."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run(parent_run_id="a run of another program")]))
        assert store.check() == []
        assert store.read_run("run").parent_run_id == "a run of another program"
        store.close()

    def test_a_backup_is_a_store_as_it_was_at_that_moment(self, tmp_path: Path) -> None:
        """All runs are in it, nothing that was committed later, and nobody owns them; nothing is written over for it."""
        home, away = tmp_path / "home", tmp_path / "away"
        home.mkdir()
        away.mkdir()
        store = self.make_store(home)
        for number, state in enumerate(ExecutionState):
            changes = full(store, f"run{number}", state)
            changes.new_runs[0].parent_run_id = changes.tasks[0].child_run_id = None
            store.commit(changes)
        store.claim("run1")
        before = snapshot(store)
        place = self.place(away) or away / "backup"
        try:
            store.backup(place)
        except StoreError:  # this kind of store makes none
            assert list(away.iterdir()) == []
            store.close()
            return
        store.commit(Changes(new_runs=[a_run("later")]))
        with Raises(StoreError):
            store.backup(place)
        store.close()
        copy = self.make_store(away)
        assert snapshot(copy) == before
        assert copy.check() == []
        lease = copy.claim("run1")
        copy.commit(Changes(tasks=[a_task(7, "run1")], lease=lease, release=True))
        assert len(copy.read_tasks("run1")) == 2
        copy.close()

    def test_whole_trees_are_pruned_and_nothing_else(self, tmp_path: Path) -> None:
        """What has ended goes, with its subflows' runs and attempts; what has not, or of whose subflows one has not, stays."""
        store = self.make_store(tmp_path)
        ended, open_ = ExecutionState.SUCCESS, ExecutionState.RUNNING
        states = {
            "done": (ended, None),
            "done child": (ExecutionState.FAILED, "done"),
            "done grandchild": (ended, "done child"),
            "open": (open_, None),
            "open child": (ended, "open"),
            "half": (ended, None),
            "half child": (open_, "half"),
            "orphan": (ended, "nobody knows"),
            "owned": (ended, None),
        }
        for number, (run_id, (state, parent)) in enumerate(states.items()):
            run = a_run(
                run_id,
                created=NOON + number,
                state=state,
                parent_run_id=parent,
                started=NOON,
                ended=NOON if state is ended else None,
            )
            store.commit(Changes(new_runs=[run], tasks=[a_task(0, run_id)], attempts=[an_attempt(1, 0, run_id)]))
        lease = store.claim("owned")
        before = snapshot(store)
        try:
            removed = store.prune()
        except StoreError:  # this kind of store removes none
            assert snapshot(store) == before
            store.close()
            return
        gone = {"done", "done child", "done grandchild", "orphan"}
        assert sorted(removed) == sorted(gone)
        left = [run_id for run_id in reversed(states) if run_id not in gone]
        assert snapshot(store) == {"order": left, **{run_id: before[run_id] for run_id in left}}
        assert store.prune() == []
        store.release(lease)
        for run_id in gone:
            with Raises(RunNotFoundError):
                store.read_attempts(run_id)
        assert store.check() == []
        again = self._reopened(store, tmp_path)
        assert again.list_runs() == left
        again.commit(Changes(new_runs=[a_run("done")]))  # its id is free
        assert (again.read_tasks("done"), again.read_attempts("done")) == ([], [])
        assert again.prune() == ["owned"]
        assert again.check() == []
        again.close()

    def test_what_is_pruned_can_be_chosen(self, tmp_path: Path) -> None:
        """By how long ago it ended, by state, by flow; and of each flow, the newest can be kept."""
        store = self.make_store(tmp_path)
        now = time.time_ns() // 1000
        rows = [
            ("a", 5, ExecutionState.SUCCESS),
            ("a", 4, ExecutionState.FAILED),
            ("b", 3, ExecutionState.SUCCESS),
            ("a", 0, ExecutionState.SUCCESS),
        ]
        for flow_name, days, state in rows:
            moment = now - days * 86_400_000_000 - 60_000_000
            run = a_run(f"{flow_name}{days}", flow_name=flow_name, created=moment, state=state, started=moment, ended=moment)
            store.commit(Changes(new_runs=[run]))
        try:
            assert store.prune(older_than=timedelta(days=10)) == []
            assert store.prune(older_than=86_400, flow_name="b", keep=1) == []
            assert store.prune(older_than=86_400, states=["failed"]) == ["a4"]
        except StoreError:  # this kind of store removes none
            store.close()
            return
        assert store.prune(keep=2) == []
        assert store.prune(keep=1, flow_name="a") == ["a5"]
        assert store.prune(older_than=timedelta(days=1)) == ["b3"]
        assert store.list_runs() == ["a0"]
        store.close()

    # --- for people ---

    def test_a_saved_run_loads_equal(self, tmp_path: Path) -> None:
        """`save` and `load` give back the same model: values and their types, moments, logs, and the order of tasks."""
        store = self.make_store(tmp_path)
        noon = datetime(2024, 2, 29, 12, 0, 0, 123_456, tzinfo=timezone.utc)
        tasks = {
            "write": TaskInstance(
                "write",
                state=ExecutionState.FAILED,
                try_number=2,
                output_json=(1, 2.5, {"when": noon}, b"\0"),
                error="Traceback ...",
                start_date=noon,
                end_date=noon + timedelta(microseconds=1),
                reason="no room",
                next_attempt_at=noon + timedelta(hours=1),
                interruptions=1,
                logs=[LogEntry(noon, 30, "careful")],
            ),
            "sub": TaskInstance("sub", TaskType.FLOW, input_json={"a": 1}, output_json={"child_run_id": "child", "result": [1]}),
            "later": TaskInstance("later"),
        }
        run = WorkflowRun("run", "nightly", {"rows": {1, 2}}, ExecutionState.FAILED, noon, noon, tasks, "parent", "task")
        store.save(run)
        assert store.load("run") == run
        again = self._reopened(store, tmp_path)
        loaded = again.load("run")
        assert loaded == run
        assert list(loaded.tasks) == ["write", "sub", "later"]
        assert type(loaded.tasks["write"].output_json) is tuple
        assert loaded.start_date is not None
        assert loaded.start_date.utcoffset() == timedelta(0)
        again.close()

    def test_saving_again_replaces(self, tmp_path: Path) -> None:
        """A second `save` replaces run and tasks, adds new ones at the end, and keeps what a model does not carry."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run("run", graph='{"task0":[]}', created=NOON - 1)]))
        store.commit(Changes(new_runs=[a_run("newer", created=NOON)]))
        store.commit(Changes(tasks=[a_task(0, attempts=4), a_task(5)], attempts=[an_attempt(3)]))
        model = store.load("run")
        model.state, model.params = ExecutionState.SUCCESS, {"changed": True}
        changed = {"added": TaskInstance("added"), "task0": TaskInstance("task0", output_json=1)}
        model.tasks = {**changed, "task5": model.tasks["task5"]}
        store.save(model)
        record = store.read_run("run")
        assert (record.state, record.params) == (ExecutionState.SUCCESS, '{"changed":true}')
        assert (record.graph, record.created) == ('{"task0":[]}', NOON - 1)
        assert store.list_runs() == ["newer", "run"]
        rows = [(task.task_id, task.position, task.attempts, task.output) for task in store.read_tasks("run")]
        assert rows == [("task0", 0, 4, "1"), ("task5", 5, 0, None), ("added", 6, 0, None)]
        assert store.read_attempts("run") == [an_attempt(3)]
        store.close()

    def test_exists(self, tmp_path: Path) -> None:
        """`exists` is true from the commit that made the run on, for its exact id alone, after a restart too."""
        store = self.make_store(tmp_path)
        assert not store.exists("run")
        store.save(WorkflowRun("run", "nightly"))
        assert store.exists("run")
        assert not store.exists("Run")
        again = self._reopened(store, tmp_path)
        assert again.exists("run")
        again.close()

    def test_update_task(self, tmp_path: Path) -> None:
        """`update_task` replaces that task alone, in its place, and keeps the count of its attempts."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0), a_task(1, attempts=3), a_task(2)]))
        store.update_task("run", TaskInstance("task1", state=ExecutionState.SUCCESS, output_json=[1]))
        changed = a_task(1, attempts=3, state=ExecutionState.SUCCESS, output="[1]")
        assert store.read_tasks("run") == [a_task(0), changed, a_task(2)]
        assert store.load("run").tasks["task1"].output_json == [1]
        store.close()

    def test_update_task_names_what_is_missing(self, tmp_path: Path) -> None:
        """An unknown run or task is a KeyError, with the name that was probably meant, and nothing is written."""
        store = self.make_store(tmp_path)
        store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0, task_id="load_rows")]))
        with Raises(RunNotFoundError):
            store.update_task("unknown", TaskInstance("load_rows"))
        with Raises(UnknownTaskError) as told:
            store.update_task("run", TaskInstance("load_row"))
        assert isinstance(told.error, KeyError)
        assert told.error.suggestion == "load_rows"
        assert store.read_tasks("run") == [a_task(0, task_id="load_rows")]
        assert store.list_runs() == ["run"]
        store.close()

    def test_get_all_runs(self, tmp_path: Path) -> None:
        """All runs as models, subflows' too, newest first, with their tasks or without."""
        store = self.make_store(tmp_path)
        assert store.get_all_runs() == []
        for number, run_id in enumerate(("first", "second", "third")):
            run = a_run(run_id, created=NOON + number, parent_run_id="first" if number else None)
            store.commit(Changes(new_runs=[run], tasks=[a_task(position, run_id) for position in range(number)]))
        assert store.get_all_runs() == [store.load(run_id) for run_id in ("third", "second", "first")]
        assert [len(run.tasks) for run in store.get_all_runs()] == [2, 1, 0]
        assert [(run.id, len(run.tasks)) for run in store.get_all_runs(include_tasks=False)] == [
            ("third", 0),
            ("second", 0),
            ("first", 0),
        ]
        store.close()

    def test_list_attempts(self, tmp_path: Path) -> None:
        """The history, and at its end the attempt that the task itself holds: of all tasks in order, or of one."""
        store = self.make_store(tmp_path)
        store.commit(
            Changes(
                new_runs=[a_run()],
                tasks=[a_task(0, state=ExecutionState.SUCCESS, attempts=3, try_number=1), a_task(1), a_task(2, attempts=1)],
                attempts=[
                    an_attempt(2, try_number=0, started=NOON, reason="again"),
                    an_attempt(1, result=AttemptResult.INTERRUPTED, error="gone"),
                    an_attempt(1, 2, logs=store.codec.encode([[NOON, 20, "a line"]])),
                ],
            )
        )
        history = [(each.task_id, each.number, each.try_number, each.result.value) for each in store.list_attempts("run")]
        assert history == [
            ("task0", 1, 0, "interrupted"),
            ("task0", 2, 0, "failed"),
            ("task0", 3, 1, "success"),
            ("task2", 1, 0, "failed"),
        ]
        one = store.list_attempts("run", "task0")
        assert [attempt.number for attempt in one] == [1, 2, 3]
        assert (one[0].error, one[1].reason) == ("gone", "again")
        assert one[1].start_date == datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)
        assert [entry.message for entry in store.list_attempts("run", "task2")[0].logs] == ["a line"]
        assert store.list_attempts("run", "task1") == []
        with Raises(UnknownTaskError):
            store.list_attempts("run", "task9")
        store.close()

    def test_history(self, tmp_path: Path) -> None:
        """What became of a run, from its records: begun, failed, set back, done, each with its time and who did it."""
        store = self.make_store(tmp_path)
        state, one, two = ExecutionState, "process 1 on host", "process 2 on host"
        detail = f'[["task0","failed",1,{NOON + 3},null],["task1","skipped",0,{NOON + 3},"why"]]'
        store.commit(
            Changes(
                new_runs=[a_run(state=state.SUCCESS, started=NOON + 1, ended=NOON + 9)],
                tasks=[
                    a_task(0, state=state.SUCCESS, attempts=2, started=NOON + 6, ended=NOON + 7),
                    a_task(1, state=state.SUCCESS, attempts=1, started=NOON + 8, ended=NOON + 9),
                ],
                attempts=[an_attempt(1, started=NOON + 2, ended=NOON + 3, reason="ValueError: x")],
                notes=[
                    a_note(at=NOON + 1, by=one, state=state.SCHEDULED),
                    a_note(
                        NoteKind.RESET,
                        at=NOON + 4,
                        by=two,
                        task_id="task0",
                        tasks=2,
                        state=state.FAILED,
                        ended=NOON + 3,
                        detail=detail,
                    ),
                    a_note(at=NOON + 5, by=two, state=state.SCHEDULED),
                ],
            )
        )
        start = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)
        retry = "manual retry of 'task0'"

        def change(
            after: int,
            task_id: str | None,
            states: str,
            attempt: int | None = None,
            reason: str | None = None,
            worker: str | None = None,
        ) -> StateChange:
            source, target = map(ExecutionState, states.split())
            at = start + timedelta(microseconds=after)
            return StateChange(at, "run", task_id, source, target, attempt, reason, worker)

        expected = [
            change(0, None, "none scheduled"),
            change(1, None, "scheduled running", worker=one),
            change(2, "task0", "scheduled running", 1, worker=one),
            change(3, "task0", "running failed", 1, "ValueError: x", one),
            change(3, "task1", "scheduled skipped", None, "why", one),
            change(3, None, "running failed", worker=one),
            change(4, None, "failed scheduled", reason=retry, worker=two),
            change(4, "task0", "failed scheduled", 1, retry, two),
            change(4, "task1", "skipped scheduled", None, retry, two),
            change(5, None, "scheduled running", worker=two),
            change(6, "task0", "scheduled running", 2, worker=two),
            change(7, "task0", "running success", 2, worker=two),
            change(8, "task1", "scheduled running", 1, worker=two),
            change(9, "task1", "running success", 1, worker=two),
            change(9, None, "running success", worker=two),
        ]
        again = self._reopened(store, tmp_path)
        assert again.history("run") == expected
        assert again.history("run", "task1") == [each for each in expected if each.task_id == "task1"]
        assert [attempt.worker for attempt in again.list_attempts("run", "task0")] == [one, two]
        with Raises(UnknownTaskError) as told:
            again.history("run", "task2")
        assert "task1" in str(told.error) or "task0" in str(told.error)
        again.close()

    def test_registered_types(self, tmp_path: Path) -> None:
        """Dataclasses, enums and named tuples come back as themselves once registered; before that, as stand-ins."""
        store = self.make_store(tmp_path)
        value = [Money(3, "EUR"), Colour.RED, Point(1, 2)]
        run = WorkflowRun("run", "nightly", {"value": value}, tasks={"task": TaskInstance("task", output_json=value)})
        with Raises(UnstorableValueError):
            store.save(run)
        assert store.list_runs() == []
        store.register(Money, Colour, Point)
        store.save(run)
        loaded = store.load("run")
        assert (loaded.params["value"], loaded.tasks["task"].output_json) == (value, value)
        assert [type(item) for item in loaded.params["value"]] == [Money, Colour, Point]
        store.close()
        if self.persistent:
            store = self.make_store(tmp_path)
            looked_at = store.load("run").params["value"]
            assert [type(item) for item in looked_at] == [UnregisteredValue] * 3
            store.save(store.load("run"))
            store.register(Money, Colour, Point)
            assert store.load("run") == run
            store.close()
