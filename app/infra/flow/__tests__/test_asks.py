"""What is asked of runs that others drive: the files, their torn and foreign lines, and who is told, here and elsewhere."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import Ask
from ..asks import Asks, Lookout
from .processes import PACKAGE, needs_posix
from .test_owners import a_program, ended, until

SOON = 0.02
"""Seconds between two looks, for tests that wait for the next."""


@pytest.fixture
def lookout() -> Iterator[Lookout]:
    """One that looks often, and whose thread ends with the test."""
    made = Lookout(SOON, idle=2)
    yield made
    assert until(lambda: not made.is_looking()), "its thread goes on for nobody"


@pytest.fixture
def asks(tmp_path: Path, lookout: Lookout) -> Asks:
    return Asks(tmp_path / "runs.db-asks-", lookout=lookout)


def elsewhere(tmp_path: Path) -> Asks:
    """The same files, as another process has them: whose asks nobody here is told of by itself."""
    return Asks(tmp_path / "runs.db-asks-", lookout=Lookout())


def the_file(tmp_path: Path) -> Path:
    (path,) = tmp_path.iterdir()
    return path


class Later:
    """Stands in for an event loop: what is to be called later is called by the test."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], object]]] = []
        self.cancelled = 0

    def __call__(self, delay: float, callback: Callable[[], object], /) -> Later:
        self.calls.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


# --- the files ---


def test_what_is_asked_stands_in_one_file_for_nobody_elses_eyes(asks: Asks, tmp_path: Path) -> None:
    asks.put("run", Ask("run", "a.b"))
    asks.put("run", Ask("run"))
    path = the_file(tmp_path)
    assert path.name == "runs.db-asks-run"
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert asks.read("run") == elsewhere(tmp_path).read("run") == [Ask("run", "a.b"), Ask("run")]
    asks.forget("run")
    assert (list(tmp_path.iterdir()), asks.read("run")) == ([], [])


def test_looking_and_forgetting_make_no_file(asks: Asks, tmp_path: Path) -> None:
    assert asks.read("run") == []
    asks.forget("run", [Ask("run")])
    asks.forget("run")
    asks.watch("run", lambda: None, Later())()
    assert list(tmp_path.iterdir()) == []


def test_what_was_done_is_forgotten_and_may_be_asked_anew(asks: Asks) -> None:
    first, second = Ask("run", "a"), Ask("run", "b")
    for ask in (first, second, first):
        asks.put("run", ask)
    asks.forget("run", [first])
    assert asks.read("run") == [second]
    asks.put("run", first)
    assert asks.read("run") == [second, first]


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_a_torn_line_is_passed_over_and_spoils_neither_neighbour(cut: int, asks: Asks, tmp_path: Path) -> None:
    asks.put("run", Ask("run", "before"))
    before = the_file(tmp_path).read_bytes()
    asks.put("run", Ask("run", "torn"))
    the_file(tmp_path).write_bytes(the_file(tmp_path).read_bytes()[:-cut])
    asks.put("run", Ask("run", "after"))
    found = asks.read("run")
    assert (found[0], found[-1]) == (Ask("run", "before"), Ask("run", "after"))
    assert len(found) == (3 if cut == 1 else 2)  # the line's end alone says nothing
    assert the_file(tmp_path).read_bytes().startswith(before)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"\x00\xff\xfe",
        b"[]",
        b"{}",
        b'{"run": 1, "task": null, "heeded": false}',
        b'{"run": "run", "task": 2, "heeded": false}',
        b'{"run": "run", "task": null, "heeded": 1}',
        b'{"run": "run", "task": null}',
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_a_foreign_line_is_passed_over_with_a_warning(
    line: bytes, asks: Asks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asks.put("run", Ask("run", "a"))
    with the_file(tmp_path).open("ab") as file:
        file.write(line)
    assert asks.read("run") == [Ask("run", "a")]
    assert "lines that say nothing" in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="link", marks=needs_posix),
        pytest.param(lambda path: os.mkfifo(path), id="pipe", marks=needs_posix),
    ],
)
def test_what_is_no_file_of_ours_is_a_warning_for_a_run_and_an_error_for_who_asks(
    make: Callable[[Path], Any], asks: Asks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "runs.db-asks-run")
    with caplog.at_level(logging.WARNING):
        assert asks.read("run") == []
    assert "cannot be read" in caplog.text
    with pytest.raises(OSError):
        asks.put("run", Ask("run"))
    asks.forget("run", [Ask("run")])
    assert "cannot be written" in caplog.text


def test_no_id_leads_out_of_the_folder_or_to_another_ids_file(asks: Asks, tmp_path: Path) -> None:
    ids = ["../evil", "..", "a/b", "a\\b", "CON", "Run", "run", "RUN", "\0", "\ud800", "x" * 10_000, "~" + "0" * 64, " run"]
    for run_id in ids:
        asks.put(run_id, Ask(run_id))
    assert [asks.read(run_id) for run_id in ids] == [[Ask(run_id)] for run_id in ids]
    names = [path.name for path in tmp_path.iterdir()]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(name.startswith("runs.db-asks-") and len(name) < 100 for name in names)
    assert not (tmp_path.parent / "evil").exists()


def test_an_ask_whose_file_is_removed_at_that_moment_is_written_again(asks: Asks, tmp_path: Path) -> None:
    from ..file_system import FileSystem

    class Removed(FileSystem):
        left = 2

        def sync(self, descriptor: int) -> None:
            super().sync(descriptor)
            if self.left and stat.S_ISREG(os.fstat(descriptor).st_mode):
                self.left -= 1
                the_file(tmp_path).unlink()
                if not self.left:  # and somebody else has made a new one
                    asks.put("run", Ask("run", "other"))

    Asks(tmp_path / "runs.db-asks-", Removed()).put("run", Ask("run", "a"))
    assert asks.read("run") == [Ask("run", "other"), Ask("run", "a")]


def test_many_ask_at_once_and_none_is_lost(asks: Asks) -> None:
    names = [f"t{number}" for number in range(40)]

    def put(part: list[str]) -> None:
        for name in part:
            asks.put("run", Ask("run", name))
            asks.forget("run", [Ask("run", name)] if name.endswith("3") else [])

    threads = [threading.Thread(target=put, args=(names[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {ask.task_id for ask in asks.read("run")} == {name for name in names if not name.endswith("3")}


# --- who is told ---


def test_who_asks_in_this_process_tells_at_once_and_only_those_of_that_run(asks: Asks, lookout: Lookout) -> None:
    told: list[str] = []
    later = Later()
    ends = [
        asks.watch("run", lambda: told.append("one"), later),
        asks.watch("run", lambda: told.append("two"), later),
        asks.watch("other", lambda: told.append("other"), later),
    ]
    asks.put("run", Ask("run"))
    assert told == ["one", "two"]
    ends[0]()
    asks.put("run", Ask("run"))
    assert told == ["one", "two", "two"]
    for end in (*ends, *ends):
        end()
    asks.put("run", Ask("run"))
    assert told == ["one", "two", "two"]
    assert "0 runs, with no thread" in repr(lookout)


def test_what_another_process_asks_is_found_at_the_next_look_and_told_once(asks: Asks, lookout: Lookout, tmp_path: Path) -> None:
    told: list[int] = []
    end = asks.watch("run", lambda: told.append(1), Later())
    lookout.look()
    assert told == []
    elsewhere(tmp_path).put("run", Ask("run", "a"))
    for _ in range(3):
        lookout.look()
    assert told == [1]
    elsewhere(tmp_path).put("run", Ask("run", "b"))
    lookout.look()
    assert told == [1, 1]
    asks.forget("run")
    lookout.look()
    assert told == [1, 1]
    elsewhere(tmp_path).put("run", Ask("run", "c"))
    lookout.look()
    assert told == [1, 1, 1]
    end()


def test_what_was_asked_before_anybody_watched_is_told_of(asks: Asks, lookout: Lookout) -> None:
    asks.put("run", Ask("run"))
    told: list[int] = []
    end = asks.watch("run", lambda: told.append(1), Later())
    lookout.look()
    assert told == [1]
    end()


def test_one_who_raises_keeps_the_others_from_nothing_and_the_thread_alive(
    asks: Asks, lookout: Lookout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def bad() -> None:
        raise RuntimeError("a bad one")

    told: list[int] = []
    ends = [asks.watch("run", bad), asks.watch("run", lambda: told.append(1))]
    for number in (1, 2):
        elsewhere(tmp_path).put("run", Ask("run", str(number)))
        assert until(lambda expected=number: len(told) >= expected)
    assert "a bad one" in caplog.text
    assert lookout.is_looking()
    for end in ends:
        end()


def test_a_run_that_is_over_soon_costs_no_thread(asks: Asks, lookout: Lookout) -> None:
    later = Later()
    asks.watch("run", lambda: None, later)()
    ((delay, start),) = later.calls
    assert (delay, later.cancelled, lookout.is_looking()) == (SOON, 1, False)
    start()  # it was on its way when it was cancelled
    assert not lookout.is_looking()
    end = asks.watch("run", lambda: None, later)
    later.calls[-1][1]()
    assert lookout.is_looking()
    asks.watch("other", lambda: None, later)()
    assert len(later.calls) == 2  # there is a thread
    end()


def test_the_thread_ends_when_nobody_is_left_and_comes_again(asks: Asks, lookout: Lookout, tmp_path: Path) -> None:
    told: list[int] = []
    for number, name in enumerate(("a", "b"), start=1):
        end = asks.watch("run", lambda: told.append(1))
        assert lookout.is_looking()
        elsewhere(tmp_path).put("run", Ask("run", name))
        assert until(lambda expected=number: len(told) >= expected)
        end()
        assert until(lambda: not lookout.is_looking())


def test_where_there_are_no_more_threads_runs_go_on_without(
    asks: Asks, lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    told: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        asks.watch("run", lambda: told.append(1))
    assert not lookout.is_looking()
    asks.put("run", Ask("run"))
    assert told == [1]
    asks.watch("run", lambda: told.append(2))()  # the next one tries again
    assert lookout.is_looking()
    lookout.after_fork()


def test_watching_is_cheap_once_there_is_a_thread(asks: Asks) -> None:
    """Less than 5 microseconds are meant; of some tries the best is taken, for others use the machine."""
    end = asks.watch("a", lambda: None)
    best = 1.0
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(1000):
            asks.watch("run", print)()
        best = min(best, (time.perf_counter() - started) / 1000)
    end()
    assert best < 20e-6


# --- other processes ---

WATCHES = """
import sys, threading, time
from pathlib import Path
from PACKAGE.asks import Asks
asks = Asks(Path(sys.argv[1]))
def told():
    for ask in asks.read("run"):
        print(ask.task_id, flush=True)
        asks.forget("run", [ask])
asks.watch("run", told)
"""

PUTS = """
import sys, time
from pathlib import Path
from PACKAGE import Ask
from PACKAGE.asks import Asks
Asks(Path(sys.argv[1])).put("run", Ask("run", sys.argv[2]))
"""


@needs_posix
def test_what_one_process_asks_another_hears_and_a_killed_one_leaves_what_it_asked(tmp_path: Path) -> None:
    prefix = tmp_path / "runs.db-asks-"
    watching = a_program(WATCHES, prefix)
    try:
        for task_id in ("first", "second"):
            asking = a_program(PUTS, prefix, task_id)
            ended(asking)  # by SIGKILL
            assert watching.stdout is not None
            assert watching.stdout.readline() == f"{task_id}\n".encode()
        assert until(lambda: Asks(prefix).read("run") == [])
    finally:
        ended(watching)


FORKS = """
import os, sys, threading, time
from pathlib import Path
from PACKAGE import Ask
from PACKAGE.asks import Asks, Lookout
prefix = Path(sys.argv[1])
lookout = Lookout(0.01, idle=2)
asks = Asks(prefix, lookout=lookout)
told = []
end = asks.watch("run", lambda: told.append(os.getpid()))
pid = os.fork()
if pid == 0:
    asks.put("run", Ask("run", "by the child"))
    end()
    if lookout.is_looking() or told:
        os._exit(1)
    asks.watch("run", lambda: os._exit(0))  # the child has a thread of its own
    time.sleep(10)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
deadline = time.monotonic() + 10
while not told and time.monotonic() < deadline:
    time.sleep(0.01)
assert told and set(told) == {os.getpid()}, told
"""


@needs_posix
def test_a_forked_child_is_told_nothing_of_its_parents_and_watches_by_itself(tmp_path: Path) -> None:
    ended(a_program("import warnings; warnings.simplefilter('ignore')\n" + FORKS, tmp_path / "runs.db-asks-"))


NEVER_DRIVES = """
import sys, threading
from pathlib import Path
from PACKAGE import AsyncFlow, SQLiteStore
flow = AsyncFlow("flow", SQLiteStore(Path(sys.argv[1])))
flow.add_task_definition("a", lambda ctx: 1)
flow.init_run()
flow.store.list_runs()
names = [thread.name for thread in threading.enumerate()]
assert "night-batch asks" not in names, names
assert "PACKAGE.asks" not in sys.modules
"""


def test_a_program_that_drives_no_run_loads_and_starts_nothing_for_asks(tmp_path: Path) -> None:
    assert PACKAGE
    ended(a_program(NEVER_DRIVES, tmp_path / "runs.db"))
