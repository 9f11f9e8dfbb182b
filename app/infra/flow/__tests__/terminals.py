"""Programs in a real pseudo-terminal: what they write there, what is typed, how they end. POSIX alone."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PACKAGE = __name__.rsplit(".", 2)[0]
PATIENCE = 30.0
"""Seconds that a program gets for what a test waits for; hardly any of them pass."""

_TAKE = "import os, sys, runpy; os.close(os.open(os.ttyname(0), os.O_RDWR)); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
"""Has a new session take its terminal for its own, and then runs the script."""


def sent_to_terminal(
    command: list[str], environment: dict[str, str], folder: Path, columns: int, rows: int, take: Callable[[bytes], object]
) -> int:
    """Run a command in a terminal of its own to its end; its exit code.

    Args:
        command: the command.
        environment: all of its environment.
        folder: where it runs.
        columns: how wide the terminal is.
        rows: how high.
        take: is given what the terminal is sent, piece by piece.
    """
    import fcntl  # late: windows has none of these
    import pty
    import termios

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # its other end was closed
            break
        if not data:
            break
        take(data)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Terminal:
    """A program with a terminal of its own.

    Args:
        folder: where it runs.
        source: the program.
        columns: how wide the terminal is.
        rows: how high.
        arguments: the program's.
    """

    def __init__(self, folder: Path, source: str, columns: int = 80, rows: int = 24, arguments: tuple[str, ...] = ()) -> None:
        import pty  # late: windows has none

        script = folder / "program.py"
        script.write_text(source.replace("PACKAGE", PACKAGE), encoding="utf-8")
        self._ours, theirs = pty.openpty()
        self.written = b""
        self.resize(columns, rows)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "TERM": "xterm-256color"}
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _TAKE, str(script), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={**environment, "PYTHONIOENCODING": "utf-8", "PYTHON_COLORS": "0"},  # of tracebacks, from 3.13 on
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def resize(self, columns: int, rows: int) -> None:
        """Make it wider or narrower."""
        import fcntl  # late: windows has none
        import termios  # late: windows has none

        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys; a character 3 is Ctrl-C."""
        os.write(self._ours, text.encode())

    def read_until(self, enough: Callable[[bytes], bool]) -> bytes:
        """What was written so far, once that is enough.

        Raises:
            AssertionError: that took too long, or the program ended without it.
        """
        import select  # late: it is for descriptors on POSIX alone

        deadline = time.monotonic() + PATIENCE
        while not enough(self.written):
            assert time.monotonic() < deadline, self.written.decode(errors="replace")
            if select.select([self._ours], [], [], 0.05)[0]:
                try:
                    read = os.read(self._ours, 65536)
                except OSError:  # nobody has it open any more
                    read = b""
                assert read or enough(self.written), self.written.decode(errors="replace")
                self.written += read
        return self.written

    def read_to_end(self) -> tuple[int, bytes]:
        """The exit code (negative: the signal), and all that was written."""
        import select  # late: it is for descriptors on POSIX alone

        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not select.select([self._ours], [], [], 0.05)[0]:
                continue
            try:
                read = os.read(self._ours, 65536)
            except OSError:
                read = b""
            if not read:
                return self.process.wait(PATIENCE), self.written
            self.written += read
        raise AssertionError(self.written.decode(errors="replace"))

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        self.process.send_signal(number)
