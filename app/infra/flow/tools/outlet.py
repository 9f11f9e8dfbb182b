"""Writes lines to a stream whose reader may be slow, or stop: nobody is held up by it. What is not taken waits, in order.

Knows streams and threads; must not know what the lines say.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import threading
import time
from collections import deque
from typing import Any, TextIO

MOST_WAITING = 8 * 1024 * 1024
"""So many bytes wait at most; of what comes beyond, it is told how many lines were left out."""
AT_ONCE = getattr(select, "PIPE_BUF", 512)
"""A pipe that takes anything takes so many bytes."""
LOOK = 0.5
"""Seconds after which whoever waits for a reader looks whether it is still worth it."""


class Outlet:
    """A stream for whole lines, from any thread.

    A line is written at once where the stream takes it. Else it waits for a thread that writes it later, and the end of the
    program waits for that. When the stream is closed or broken, nothing more is written.

    Args:
        stream: where the lines go; None is nowhere. One that is not known to be a file of this process's is just written to.
        most_waiting: bytes that may wait.
    """

    def __init__(self, stream: TextIO | None, most_waiting: int = MOST_WAITING) -> None:
        self._stream = stream
        self._most = most_waiting
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._left_out = 0
        self._moved = 0.0
        """When the reader took something at last."""
        self._thread: threading.Thread | None = None
        self._poll: Any = _poll_of(stream)
        self._process = os.getpid()
        self.is_closed = stream is None

    def __repr__(self) -> str:
        return f"<Outlet to {getattr(self._stream, 'name', self._stream)!r}>"

    def write(self, line: str) -> None:
        """Write a line, whose end is added; without waiting for the reader, as far as that can be."""
        with self._lock:
            if self.is_closed or self._stream is None:
                return
            try:
                if self._poll is None:
                    self._stream.write(line + "\n")
                    self._stream.flush()
                else:
                    self._write(line, self._stream)
            except (OSError, ValueError):  # nobody reads it any more
                self._close()

    def _write(self, line: str, stream: TextIO) -> None:
        data = self._encoded(line)
        if not self._waiting:
            if self._poll.poll(0):
                stream.flush()  # what others have begun to write
            data = self._put(data, 0)
            if not data:
                return
        elif self._size + len(data) > self._most:
            self._left_out += 1
            return
        elif self._left_out:
            self._tell_left_out()
        self._wait(data)

    def _encoded(self, line: str) -> bytes:
        return f"{line}\n".encode(getattr(self._stream, "encoding", None) or "utf-8", "backslashreplace")

    def _put(self, data: bytes, patience: float) -> bytes:
        """Write as much as the stream takes now; what is left over."""
        assert self._stream is not None
        descriptor = self._stream.fileno()  # asked each time: once it is closed, its number may be somebody else's
        while data and self._poll.poll(patience * 1000):
            data = data[os.write(descriptor, data[:AT_ONCE]) :]
            patience = 0
        return data

    def _wait(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._thread is None:
            self._moved = time.monotonic()
            self._thread = threading.Thread(target=self._work, name="night-batch lines", daemon=True)
            self._thread.start()
            atexit.register(self.finish)

    def _tell_left_out(self) -> None:
        lines, self._left_out = self._left_out, 0
        told = self._encoded(f"... {lines:,} lines are left out here: they were not read in time")
        self._waiting.append(told)
        self._size += len(told)

    def _close(self) -> None:
        self.is_closed = True
        self._waiting.clear()
        self._size = 0

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting and self._left_out:
                    self._tell_left_out()
                if not self._waiting:
                    self._thread = None
                    atexit.unregister(self.finish)
                    return
                data = self._waiting[0]
            # Not under the lock: where several write to one pipe, it may be full again by now.
            try:
                rest = self._put(data, LOOK)
            except (OSError, ValueError):
                with self._lock:
                    self._left_out = 0
                    self._close()
                continue
            with self._lock:
                if len(rest) < len(data):
                    self._moved = time.monotonic()
                if self._waiting:
                    self._size -= len(data) - len(rest)
                    self._waiting[0] = rest
                    if not rest:
                        self._waiting.popleft()

    def finish(self, patience: float | None = None) -> None:
        """Wait until all is written.

        Args:
            patience: seconds after which a reader that takes nothing is given up, and nothing more is written; None: never.
        """
        if os.getpid() != self._process:
            return
        began = time.monotonic()
        while (thread := self._thread) is not None:
            thread.join(LOOK / 10)
            if patience is not None and time.monotonic() - max(began, self._moved) > patience:
                with self._lock:
                    self._left_out = 0
                    self._close()
                return


def _poll_of(stream: TextIO | None) -> Any:
    """What tells whether a stream takes anything now; None where that cannot be told, or something stands before it."""
    if type(stream) is not io.TextIOWrapper or not hasattr(select, "poll"):
        return None
    try:
        found = select.poll()
        found.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):
        return None
    return found
