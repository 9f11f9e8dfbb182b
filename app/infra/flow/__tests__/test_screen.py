"""The lines at the lower end of a terminal: what is written above them stays, and the terminal is left as it was found.

What the terminal shows is told by pyte where that is there; else these tests look at nothing but what was written.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ..tools.screen import HIDE, SHOW, Above, Screen

COLUMNS, ROWS = 30, 8


class Tty(io.StringIO):
    """A stream that says that it is a terminal, and keeps what was written."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Seconds:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(ROWS))


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def opened(seconds: Seconds) -> Iterator[tuple[Screen, Tty]]:
    stream = Tty()
    screen = Screen(stream, seconds)
    screen.open()
    yield screen, stream
    screen.close()


def shown(text: str, columns: int = COLUMNS, rows: int = ROWS) -> tuple[list[str], Any]:
    """What a terminal shows after a text was written to it, and the terminal."""
    pyte = pytest.importorskip("pyte", reason="what a terminal shows is told by pyte (requirements-extras.txt)")
    terminal = pyte.HistoryScreen(columns, rows, history=1000)
    pyte.Stream(terminal).feed(text.replace("\n", "\r\n"))
    past = ["".join(line[column].data for column in range(columns)).rstrip() for line in terminal.history.top]
    lines = [*past, *(line.rstrip() for line in terminal.display)]
    while lines and not lines[-1]:
        lines.pop()
    return lines, terminal


def test_new_lines_take_the_place_of_those_before(opened: tuple[Screen, Tty]) -> None:
    """More of them, fewer, shorter: nothing of the old ones is left."""
    screen, stream = opened
    screen.draw(["a long first line", "second"])
    screen.draw(["one", "two", "three"])
    screen.draw(["last"])
    lines, terminal = shown(stream.getvalue())
    assert lines == ["last"]
    assert terminal.cursor.hidden
    assert (terminal.cursor.y, terminal.cursor.x) == (0, 0)


def test_what_is_written_above_stays_and_scrolls_away(opened: tuple[Screen, Tty], seconds: Seconds) -> None:
    """In its order, between pictures that follow one another closely and far apart, also beyond the upper edge."""
    screen, stream = opened
    for number in range(20):
        screen.draw([f"view {number}", "-- lower --"])
        screen.above(f"line {number}\n")
        seconds.now += 0.06
    screen.draw(["view", "-- lower --"])
    lines, _ = shown(stream.getvalue())
    assert lines == [*(f"line {number}" for number in range(20)), "view", "-- lower --"]


def test_a_flood_of_lines_is_not_slowed_by_pictures(opened: tuple[Screen, Tty]) -> None:
    """The picture follows with the first line, and is left out of those right behind."""
    screen, stream = opened
    screen.draw(["the view"])
    before = len(stream.getvalue())
    for number in range(1000):
        screen.above(f"{number}\n")
    assert stream.getvalue().count("the view") <= 2
    assert len(stream.getvalue()) - before < 10 * 1000


def test_lines_wider_than_the_terminal_do_not_break_the_picture(opened: tuple[Screen, Tty], seconds: Seconds) -> None:
    """Text above is wrapped; the lines of the picture are cut by the terminal, if somebody made it narrower meanwhile."""
    screen, stream = opened
    screen.draw(["v" * (COLUMNS + 10), "w"])
    seconds.now += 1
    screen.above("t" * (COLUMNS + 5) + "\n")
    screen.draw(["v" * (COLUMNS + 10), "w"])
    lines, _ = shown(stream.getvalue())
    assert lines[:2] == ["t" * COLUMNS, "t" * 5]
    assert len(lines) == 4
    assert lines[3] == "w"


def test_what_others_write_past_us_is_not_erased(opened: tuple[Screen, Tty]) -> None:
    """A program that a task started writes to the terminal itself: whole lines of it stay above the next picture."""
    screen, stream = opened
    screen.draw(["view", "-- lower --"])
    stream.write("from a subprocess\nand more of it\n")
    screen.draw(["view", "-- lower --"])
    lines, _ = shown(stream.getvalue())
    assert lines == ["from a subprocess", "and more of it", "view", "-- lower --"]


@pytest.mark.parametrize("narrower", [10, 15, 20])
def test_a_terminal_that_became_narrower_gets_a_clean_picture(
    opened: tuple[Screen, Tty], monkeypatch: pytest.MonkeyPatch, narrower: int
) -> None:
    """From the beginning of the first line on all is erased before the next picture, whatever became of the old one."""
    screen, stream = opened
    screen.draw(["a" * 25, "b" * 25])
    monkeypatch.setenv("COLUMNS", str(narrower))
    mark = len(stream.getvalue())
    screen.draw(["c" * (narrower - 1)])
    assert stream.getvalue()[mark:].startswith("\r\x1b[J")


def test_closing_shows_the_cursor_and_leaves_what_is_to_remain(opened: tuple[Screen, Tty]) -> None:
    """The picture goes; what comes after it begins on a line of its own."""
    screen, stream = opened
    screen.draw(["one", "two", "three"])
    screen.close("the end\n")
    stream.write("prompt")
    lines, terminal = shown(stream.getvalue())
    assert lines == ["the end", "prompt"]
    assert not terminal.cursor.hidden


def test_it_may_be_closed_twice_and_does_nothing_after_that(opened: tuple[Screen, Tty]) -> None:
    """Nothing is drawn on a terminal that was given back; texts are written as they are."""
    screen, stream = opened
    screen.close()
    mark = len(stream.getvalue())
    screen.close()
    screen.draw(["late"])
    assert len(stream.getvalue()) == mark
    screen.above("text\n")
    assert stream.getvalue()[mark:] == "text\n"


def test_a_terminal_that_is_gone_is_no_trouble() -> None:
    """What writes to it meanwhile gets no error from the picture."""
    stream = Tty()
    screen = Screen(stream)
    screen.open()
    stream.close()
    screen.draw(["x"])
    screen.draw(["y"])
    screen.close("z\n")
    assert not screen.is_open


def outputs(monkeypatch: pytest.MonkeyPatch) -> tuple[Tty, Tty]:
    """Terminals in the place of this process's stdout and stderr. No fixture: pytest puts streams of its own there later."""
    terminal = Tty()
    other = Tty()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", other)
    monkeypatch.setattr(f"{Screen.__module__}._same_terminal", lambda one, two: one is two)
    return terminal, other


def test_what_is_printed_appears_above_in_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end waits for it, at the latest until the screen is closed. Other terminals are left alone."""
    terminal, other = outputs(monkeypatch)
    screen = Screen(terminal)
    screen.open()
    screen.draw(["view"])
    assert isinstance(sys.stdout, Above)
    assert cast("Any", sys.stderr) is other
    print("begun", end="", flush=True)
    sys.stdout.writelines([" and", " ended\nagain"])
    screen.draw(["view"])
    lines, _ = shown(terminal.getvalue())
    assert lines == ["begun and ended", "view"]
    screen.close()
    assert cast("Any", sys.stdout) is terminal
    lines, _ = shown(terminal.getvalue())
    assert lines == ["begun and ended", "again"]


def test_who_kept_the_stream_may_write_to_it_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that was made meanwhile has it for good."""
    terminal, _ = outputs(monkeypatch)
    screen = Screen(terminal)
    screen.open()
    kept = sys.stdout
    screen.close()
    print("later", file=kept, flush=True)
    assert terminal.getvalue().endswith("later\n")
    assert (kept.encoding, kept.isatty()) == ("utf-8", True)


def test_who_put_his_own_stream_there_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `redirect_stdout` brought meanwhile is not ours to take away."""
    terminal, _ = outputs(monkeypatch)
    screen = Screen(terminal)
    screen.open()
    theirs = io.StringIO()
    monkeypatch.setattr(sys, "stdout", theirs)
    screen.close()
    assert sys.stdout is theirs


def test_loggers_that_had_the_stream_already_write_above_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """And have it back in the end."""
    terminal, _ = outputs(monkeypatch)
    handler = logging.StreamHandler(terminal)
    logger = logging.getLogger("test_screen")
    logger.addHandler(handler)
    try:
        screen = Screen(terminal)
        screen.open()
        screen.draw(["view"])
        logger.warning("look")
        screen.draw(["view"])
        screen.close()
        assert cast("Any", handler.stream) is terminal
    finally:
        logger.removeHandler(handler)
    assert shown(terminal.getvalue())[0] == ["look"]


def test_many_threads_print_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one is lost, torn or drawn into."""
    terminal, _ = outputs(monkeypatch)
    screen = Screen(terminal)
    screen.open()

    def talk(name: int) -> None:
        for number in range(100):
            sys.stdout.write(f"{name}:{number}\n")
            screen.draw([f"view {number}"])

    threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    screen.close()
    lines, _ = shown(terminal.getvalue())
    assert sorted(lines) == sorted(f"{name}:{number}" for name in range(4) for number in range(100))


def test_a_forked_child_writes_to_the_terminal_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the stream, but neither the picture nor the thread that holds its lock."""
    terminal, _ = outputs(monkeypatch)
    screen = Screen(terminal)
    screen.open()
    monkeypatch.setattr(screen, "is_elsewhere", lambda: True)  # as it is there
    with screen._lock:
        print("from the child", flush=True)
        screen.close()
    assert terminal.getvalue() == HIDE + "from the child\n"
    monkeypatch.setattr(screen, "is_elsewhere", lambda: False)
    screen.close()


def test_who_prints_while_his_own_thread_is_drawing_does_not_wait_for_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer may run anywhere."""
    terminal, _ = outputs(monkeypatch)
    screen = Screen(terminal)
    screen.open()
    with screen._lock:
        print("from a finalizer")
    screen.close()
    assert shown(terminal.getvalue())[0] == ["from a finalizer"]


def test_a_signal_in_the_middle_of_a_write_still_gives_the_terminal_back(tmp_path: Path) -> None:
    """Python's buffered streams refuse a second write then: it goes past them."""

    class Busy(Tty):
        busy = False

        def write(self, text: str) -> int:
            if self.busy:
                raise RuntimeError("reentrant call inside <_io.BufferedWriter>")
            return super().write(text)

        def fileno(self) -> int:
            return file.fileno()

    with (tmp_path / "terminal").open("wb") as file:
        stream = Busy()
        screen = Screen(stream)
        screen.open()
        stream.busy = True
        screen.close()
    assert (tmp_path / "terminal").read_text() == SHOW


def test_a_picture_that_hangs_does_not_keep_the_terminal_from_being_given_back(opened: tuple[Screen, Tty]) -> None:
    """A signal that comes while the lock is held, by the very thread that it interrupts: the cursor is shown all the same."""
    screen, stream = opened
    with screen._lock:
        screen.close()
    assert stream.getvalue().endswith(SHOW)
