"""Some lines that stay in place at the lower end of a terminal, while all else is written above them.

Knows the terminal, this process's own output streams and the signals that end or stop it. Must not know runs.

The cursor waits, hidden, at the beginning of the first of these lines: from there a terminal can be told to forget all that is
below, however it has wrapped it since, and what others write (a program that a task started) stands above the next picture.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import FrameType
from typing import Any, TextIO

from .terminal import columns_of

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
TO_END_OF_LINE, TO_END = "\x1b[K", "\x1b[J"

OFTEN = 0.1
"""Seconds between two pictures, if what is written above asks for new ones."""
PATIENCE = 0.5
"""Seconds that a signal waits for a picture that is being drawn; the terminal may have been stopped by Ctrl-S."""


class Screen:
    """The lines at the lower end of one terminal.

    Args:
        stream: the terminal.
        monotonic: seconds that only grow.
    """

    def __init__(self, stream: TextIO, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic
        # A finalizer that prints, or a signal, may come while this very thread is drawing.
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._lines: Sequence[str] = ()
        self._drawn = 0
        """How many of them the terminal shows."""
        self._columns = 0
        """How wide it was then."""
        self._latest = float("-inf")
        self.is_open = False
        self._undo: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Screen, {'open' if self.is_open else 'closed'}, {self._drawn} lines>"

    # --- what is shown ---

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in the place of those before."""
        with self._lock:
            if self.is_open:
                self._lines = lines
                self._put("", always=True)

    def above(self, text: str) -> None:
        """Write whole lines above. The picture below follows at once, unless there was one just now: then with the next."""
        with self._lock:
            if self.is_open:
                self._put(text, always=False)
            else:
                self._write(text)

    def _put(self, text: str, always: bool) -> None:
        shown = self._lines if self._in_foreground() else ()
        now = self._monotonic()
        if text and not always and now - self._latest < OFTEN:
            shown = ()
        columns = columns_of(self._stream)
        parts = ["\r"]
        if self._drawn and (text or columns != self._columns or not shown):
            parts.append(TO_END)
        parts.append(text)
        if shown:
            self._latest, self._columns = now, columns
            parts.append(NO_WRAP)
            parts.append("\n".join(line + TO_END_OF_LINE for line in shown))
            parts.append(TO_END)
            parts.append("\r" + (f"\x1b[{len(shown) - 1}A" if len(shown) > 1 else ""))
            parts.append(WRAP)
        if shown or text or self._drawn:
            self._write("".join(parts))
        self._drawn = len(shown)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone
            self.is_open = False
        except RuntimeError:  # a signal came in the middle of a write of this thread's, and Python's buffers take no second one
            os.write(self._stream.fileno(), text.encode("utf-8", "replace"))

    def _in_foreground(self) -> bool:
        """Whether the terminal is ours just now; a job in the background leaves it to the shell."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except (OSError, ValueError, AttributeError):  # Windows has none, and a terminal of somebody else's no say in it
            return True

    # --- while it is open ---

    def open(self) -> None:
        """Take the lower end of the terminal."""
        self.is_open = True
        self._write(HIDE)
        for name in ("stdout", "stderr"):
            self._take(name)
        atexit.register(self.close)
        self._undo.append(lambda: atexit.unregister(self.close))
        if threading.current_thread() is threading.main_thread():
            self._heed_signals()

    def close(self, last: str = "") -> None:
        """Give the terminal back: the lines go, the cursor is shown again.

        Args:
            last: whole lines to write in the place of the picture.
        """
        if self.is_elsewhere():
            return
        waited = self._lock.acquire(timeout=PATIENCE)
        try:
            if self.is_open:
                self._lines = ()
                self._put(last, always=True)
                self._write(SHOW)
                self.is_open = False
        finally:
            if waited:
                self._lock.release()
        while self._undo:
            self._undo.pop()()

    def is_elsewhere(self) -> bool:
        """Whether this is a forked child of the process that opened it, and has nothing to do with it."""
        return os.getpid() != self._process

    def _take(self, name: str) -> None:
        """Have what this process writes to the same terminal written above."""
        found: Any = getattr(sys, name)
        if found is None or not _same_terminal(found, self._stream):
            return
        taken: Any = Above(found, self)
        setattr(sys, name, taken)
        handlers = [handler for handler in _handlers() if handler.stream is found]
        for handler in handlers:
            handler.setStream(taken)

        def give_back() -> None:
            if getattr(sys, name) is taken:  # else somebody put his own there, and will put ours back
                setattr(sys, name, found)
            for handler in handlers:
                if handler.stream is taken:
                    handler.setStream(found)
            taken.end()

        self._undo.append(give_back)

    def _heed_signals(self) -> None:
        """Leave the terminal clean where a signal is about to end or stop the process, and nobody else has a say in it."""
        for number, handler in (
            (_number("SIGTERM"), self._end),
            (_number("SIGHUP"), self._end),
            (_number("SIGTSTP"), self._stop),
        ):
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, handler)
                self._undo.append(partial(_restore, number, handler))

    def _end(self, number: int, _: FrameType | None) -> None:
        self.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop(self, number: int, _: FrameType | None) -> None:
        waited = self._lock.acquire(timeout=PATIENCE)
        try:
            lines, self._lines = self._lines, ()
            self._put("", always=True)
            self._write(SHOW)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # until somebody says `fg` or `bg`
            signal.signal(number, self._stop)
            self._write(HIDE)
            self._lines = lines
        finally:
            if waited:
                self._lock.release()


def _restore(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    if signal.getsignal(number) == handler:
        signal.signal(number, signal.SIG_DFL)


def _number(name: str) -> signal.Signals | None:
    return getattr(signal, name, None)  # Windows does not have them all


def _handlers() -> Iterable[Any]:
    """The handlers of all loggers that write to a stream."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    found = {id(handler): handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    return [handler for handler in found.values() if type(handler) is logging.StreamHandler]


def _same_terminal(one: Any, other: Any) -> bool:
    try:
        if not (one.isatty() and other.isatty()):
            return False
        left, right = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return (left.st_dev, left.st_ino, left.st_rdev) == (right.st_dev, right.st_ino, right.st_rdev)


class Above:
    """An output stream whose whole lines are written above the lines of a screen; a line without an end waits for it.

    Args:
        stream: the stream that it stands for.
        screen: the screen.
    """

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen
        self._lock = threading.RLock()
        self._begun = ""

    def __repr__(self) -> str:
        return f"<Above, for {self._stream!r}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write whole lines; what is left over waits."""
        if not self._screen.is_open or self._screen.is_elsewhere():
            return self._stream.write(text)
        with self._lock:
            lines, end, begun = text.rpartition("\n")
            if not end:
                self._begun += text
                return len(text)
            whole, self._begun = self._begun + lines + end, begun
        self._screen.above(whole)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Whole lines are flushed already, and others wait for their end."""
        if not self._screen.is_open or self._screen.is_elsewhere():
            self._stream.flush()

    def end(self) -> None:
        """Write what was left over: the screen is closed."""
        with self._lock:
            begun, self._begun = self._begun, ""
        if begun:
            self._stream.write(begun)
            self._stream.flush()
