"""How a command ends that could not do what it was asked: its exit code, and one or two lines that say what to do.

Knows the engine's errors; must not know the commands.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .terminal import safe

DONE = 0
FAILED = 1
"""The run failed, or was cancelled."""
USAGE = 2
"""What was asked for makes no sense, or is not there."""
STORE = 3
"""The store could not be used, or the run is somebody else's."""
INTERRUPTED = 130
ENDED = 143
UNREAD = 141
"""Whoever read the output has gone, as `head` does; what SIGPIPE would make of it."""


class Refusal(Exception):  # noqa: N818 - it is no error, but the answer
    """A command cannot be carried out. The message is for people: a line, or two.

    Args:
        message: what is wrong, and what to do.
        code: the exit code.
    """

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


class Terminated(SystemExit):
    """SIGTERM came."""

    def __init__(self) -> None:
        super().__init__(ENDED)


def guarded(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Call a command; what it raises becomes a line or two on stderr, and an exit code. `--traceback` shows all of it."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding does not have is spelled out, as it is on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_sigterm():
            code = command(options)
            sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout.fileno())
        return UNREAD
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if options.traceback:
            import traceback  # late: most commands do not fail

            print(safe_text("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        for line in told(error):
            print(line, file=sys.stderr)
        return code_of(error)
    return code


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the program as Ctrl-C does, with what is begun put in order, and a second one at once.

    While a run is driven, that has a handler of its own.
    """

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def have_streams() -> None:
    """Put the null device where this process was given no stdin, stdout or stderr: else the next file opened would be that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                nowhere = os.open(os.devnull, os.O_RDWR)
                if nowhere != number:
                    os.dup2(nowhere, number)
                    os.close(nowhere)
                os.set_inheritable(number, True)
            setattr(sys, name, Path(os.devnull).open("w" if number else "r"))  # noqa: SIM115 - until the process ends


def silence(descriptor: int) -> None:
    """Have what is still to be written there go nowhere: nobody reads it, and Python would complain when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def say(lines: Iterable[str]) -> None:
    """Print lines to stdout. If nobody reads them any more, that is no failure of what has been done."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout.fileno())
    except OSError as error:  # the disk is full, say
        silence(sys.stdout.fileno())
        raise Refusal(f"The output could not be written: {error.strerror}. What was to be done is done.") from error


def note(text: str) -> None:
    """Print a line to stderr: what people should know, and pipes should not get."""
    print(safe(text), file=sys.stderr, flush=True)


def safe_text(text: str) -> str:
    """Text of many lines that cannot steer a terminal."""
    return "".join(f"{safe(line)}\n" for line in text.splitlines())


def code_of(error: Exception) -> int:
    """The exit code that an error makes."""
    if isinstance(error, Refusal):
        return error.code
    from .. import (  # late: most commands do not fail
        FlowError,
        OwnershipLostError,
        RunActiveError,
        RunOwnedError,
        StoredValueError,
        StoreError,
        UnregisteredTypeError,
    )

    if isinstance(
        error, (StoreError, RunOwnedError, OwnershipLostError, RunActiveError, StoredValueError, UnregisteredTypeError)
    ):
        return STORE
    return USAGE if isinstance(error, (FlowError, OSError)) else FAILED


def told(error: Exception) -> list[str]:
    """An error in one or two lines."""
    from .. import FlowError, RunOwnedError  # late: most commands do not fail

    if isinstance(error, Refusal):
        return [safe(line) for line in str(error).splitlines()]
    if isinstance(error, RunOwnedError):
        owner = error.owner or "another process"
        advice = "Wait for it to end, or end that process: a dead one's run is free."
        return [safe(f"Run {error.run_id!r} is being driven by {owner}. {advice}")]
    if isinstance(error, FlowError):
        lines = str(error).replace("pass adopt_graph=True", "pass --adopt-graph").splitlines()
        return [safe(line) for line in (lines if len(lines) <= 2 else [lines[0], f"{lines[1].strip()} ..."])]
    if isinstance(error, OSError):
        return [safe(str(error))]
    return [
        f"This should not have happened: {safe(f'{type(error).__name__}: {error}')[:500]}",
        "Call it with --traceback to see where; it is a fault of the program, and worth a report.",
    ]
