"""A process that dies at any write to its store, and the next one at any of its own: nothing told is lost, or done again.

Real processes (forks that end by `os._exit`) and real files. What the tasks do is noted in a file that everybody only appends to.
In the suite, a few shapes and one death each; `torture` tries all of them, and all pairs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import Context, Store, TaskEvent, TaskSucceeded, WorkflowRun
from .conftest import FakeClock, make_store
from .shapes import PARAMS, SHAPES, Drawing, Drawn, build, expected, outcome

KINDS = ("sqlite", "json")
KILLED = 9

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of this test are forks")


@dataclass(frozen=True)
class Death:
    """When a process dies: at which of its writes, and before or after it is done."""

    write: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} write {self.write}"


def deaths(writes: int) -> Iterator[Death]:
    """All the ways to die at one of so many writes."""
    for number in range(1, writes + 1):
        for after in (False, True):
            yield Death(number, after)


# --- one life -------------------------------------------------------------------------------------------------------------


class Notes:
    """The file outside the store: which attempts have begun, and which successes were told."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        os.write(self._descriptor, ("\t".join(map(str, words)) + "\n").encode())

    def began(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        self.write("began", f"{flow_name}: {task.id}", ctx._record.attempts)

    def ends(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        pass

    def heard(self, event: TaskEvent) -> None:
        self.write("told", f"{event.flow_name}: {event.task_id}", 0)


def count_writes(store: Store, at_each: Callable[[int, bool], None]) -> None:
    """Call `at_each` before and after each write of a store, with its number and whether it is done."""
    changed: Any = store
    made = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            at_each(made + 1, False)
            result = write(*arguments, **options)
            if result is not False:  # that is a commit which was not made at once, and comes again
                made += 1
                at_each(made, True)
            return result

        return instead

    for name in ("commit", "commit_at_once", "claim", "release"):
        setattr(changed, name, counted(getattr(changed, name)))


def live(kind: str, folder: Path, drawing: Drawing, death: Death | None) -> int:
    """In a forked child: drive the run, and die. The writes made, where it lives to tell."""
    notes = Notes(folder / "notes")
    writes = 0

    def at_each(number: int, done: bool) -> None:
        nonlocal writes
        writes = number
        if death is not None and (number, done) == (death.write, death.after):
            os._exit(KILLED)

    store = make_store(kind, folder)
    count_writes(store, at_each)
    flow = build(drawing, notes, store=store, clock=FakeClock())
    flow.events.subscribe(notes.heard, TaskSucceeded)
    flow.init_run(PARAMS, run_id="run")
    asyncio.run(flow.run_until_complete("run"))
    store.close()
    notes.write("writes", "made", writes)
    return 0


def fork(work: Callable[[], int], errors: Path) -> int:
    """Do the work in a child process; its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that earlier tests left waiting: nobody needs them there
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work()
        except BaseException:
            errors.write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED), errors.read_text(encoding="utf-8") if errors.exists() else f"it ended with {code}"
    return code


# --- lives in a row -------------------------------------------------------------------------------------------------------


def _names(run: WorkflowRun, store: Store) -> Iterator[str]:
    for task in run.tasks.values():
        if task.state == "success":
            yield f"{run.flow_name}: {task.task_id}"
        if task.child_run_id is not None:
            yield from _names(store.load(task.child_run_id), store)


def succeeded(kind: str, folder: Path) -> set[str]:
    """The tasks that have succeeded, as the store says when it is opened anew."""
    with make_store(kind, folder) as store:
        return set(_names(store.load("run"), store)) if store.exists("run") else set()


def upstream(drawing: Drawing, name: str = "flow") -> dict[str, set[str]]:
    """The names of the tasks that each task, inside subflows too, comes right after."""
    found: dict[str, set[str]] = {}
    for task in drawing:
        found[f"{name}: {task.id}"] = {f"{name}: {other}" for other in task.after}
        found.update(upstream(task.child, f"{name} {task.id}"))
    return found


class Lives:
    """Processes that drive one run, one after the other."""

    def __init__(self, kind: str, shape: str, folder: Path) -> None:
        self.kind, self.shape, self.folder = kind, shape, folder
        self.drawing = SHAPES[shape]
        self.story: list[str] = []
        self._upstream = upstream(self.drawing)
        self._begun: set[tuple[str, str]] = set()
        self._read = 0
        self.writes = 0
        """Of the last life, if it came to its end."""

    def __repr__(self) -> str:
        return f"{self.kind}, {self.shape}: {', then '.join(self.story)}"

    def one(self, death: Death | None) -> bool:
        """Live until death, and look at what is left; whether it came to its end before that."""
        self.story.append(str(death) if death is not None else "to the end")
        safe = succeeded(self.kind, self.folder)
        code = fork(lambda: live(self.kind, self.folder, self.drawing, death), self.folder / "errors")
        told = self._look_at_the_notes(set(safe))
        lost = (safe | told) - succeeded(self.kind, self.folder)
        assert not lost, f"G3: {lost} had succeeded, and is lost ({self!r})"
        return code == 0

    def _look_at_the_notes(self, safe: set[str]) -> set[str]:
        path = self.folder / "notes"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        finished = set(safe)
        for line in lines[self._read :]:
            what, name, number = line.split("\t")
            if what == "began":
                assert name not in safe, f"G1: {name} had succeeded, and began again ({self!r})"
                assert (name, number) not in self._begun, f"attempt {number} of {name} began twice ({self!r})"
                assert self._upstream[name] <= finished, f"G2: {name} began before {self._upstream[name] - finished} ({self!r})"
                self._begun.add((name, number))
            elif what == "told":
                finished.add(name)
            else:
                self.writes = int(number)
        self._read = len(lines)
        return finished

    def end(self) -> None:
        """Live to the end, whose outcome must be that of a run which nobody disturbed."""
        assert self.one(None)
        with make_store(self.kind, self.folder) as store:
            found, wanted = outcome(store, "run"), expected(self.drawing)
            assert found == wanted, f"{self!r} came to\n{found}\nand not to\n{wanted}"
            assert store.check() == []


def lives(kind: str, shape: str, scratch: Path, fates: Sequence[Death]) -> Lives:
    """One run that is driven by processes which die so, one after the other, and by one that does not."""
    folder = scratch / "lives"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = Lives(kind, shape, folder)
    for death in fates:
        if found.one(death):
            break
    found.end()
    return found


def writes_of(kind: str, shape: str, scratch: Path) -> int:
    """How many writes a life takes that nobody disturbs."""
    folder = scratch / "calm"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    calm = Lives(kind, shape, folder)
    calm.end()
    return calm.writes


def sweep(kind: str, shape: str, scratch: Path, pairs: bool = False) -> Counter[str]:
    """Die at every write; with pairs, in a second life at every write as well. What was tried, counted."""
    figures: Counter[str] = Counter()
    most = writes_of(kind, shape, scratch) + 4  # to continue takes a few more: claims, and what was cut off is put back
    for first in deaths(most):
        for second in deaths(most) if pairs else [None]:
            fates = [first] if second is None else [first, second]
            tried = lives(kind, shape, scratch, fates)
            figures["crash points tried"] += len(tried.story) - 1
            if len(tried.story) <= len(fates):  # it came to its end before the last death, and would again
                break
    return figures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["a diamond", "a subflow"])
def test_a_death_at_any_write_loses_nothing_and_repeats_nothing(kind: str, shape: str, tmp_path: Path) -> None:
    figures = sweep(kind, shape, tmp_path)
    assert figures["crash points tried"] > 20


@pytest.mark.parametrize("kind", KINDS)
def test_so_do_two_deaths_in_a_row(kind: str, tmp_path: Path) -> None:
    for first in (Death(3, True), Death(4, True)):
        for second in (Death(1, True), Death(2, False), Death(2, True), Death(3, True)):
            assert len(lives(kind, "subflows in subflows", tmp_path, [first, second]).story) == 3


def test_the_sweep_finds_a_success_that_is_not_stored(tmp_path: Path) -> None:
    """It can fail: here the notes tell of a success before there is one."""
    (tmp_path / "notes").write_text("told\tflow: a\t0\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="G3: {'flow: a'} had succeeded, and is lost"):
        Lives("sqlite", "one task", tmp_path).one(Death(1, False))
