"""What a worker process does: take attempts from the pipe one after the other, and end when the other end of it is gone.

Runs in the worker. Must not know a store, a run, or who is at the other end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from . import forks
from .travel import Line, Reply, run_there, unpack

READY, STARTED, LINE, BEAT, REPLY = range(5)
"""What a worker says: each message is one of these, and its content."""


class _Voice:
    """The worker's end of the pipe, for the threads of a task; none is heard when the attempt that it belongs to is over."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._attempt = 0
        forks.watch(self)

    def after_fork(self) -> None:
        """A process that a task forks must not speak into the pipe, nor hold it open."""
        self._attempt = -1
        self._lock = threading.Lock()
        self._connection.close()

    def say(self, word: int, content: Any = None) -> None:
        with self._lock:
            self._connection.send((word, content))

    def attempt(self) -> _AttemptVoice:
        self._attempt += 1
        return _AttemptVoice(self, self._attempt)

    def say_of(self, attempt: int, word: int, content: Any) -> None:
        with self._lock:
            if attempt == self._attempt:
                self._connection.send((word, content))

    def end(self, reply: Reply) -> None:
        with self._lock:
            self._attempt += 1
            self._connection.send((REPLY, reply))


class _AttemptVoice:
    def __init__(self, voice: _Voice, attempt: int) -> None:
        self._voice = voice
        self._attempt = attempt

    def line(self, line: Line) -> None:
        self._voice.say_of(self._attempt, LINE, line)

    def beat(self) -> None:
        self._voice.say_of(self._attempt, BEAT, None)


def main(connection: Connection[Any, Any], lifeline: Connection[Any, Any]) -> None:
    """Run attempts until the process is killed.

    Args:
        connection: attempts come in by it, and what becomes of them goes out.
        lifeline: nothing comes by it; it ends with the process that started this one.
    """
    _prepare(lifeline)
    jobs: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, jobs), name="night-batch pipe", daemon=True).start()
    voice = _Voice(connection)
    voice.say(READY)
    while True:
        job = jobs.get()
        try:
            function, snapshot = unpack(job)
        except BaseException as error:
            from .executors import failure_of  # late: asyncio comes with it, and most attempts succeed

            reply = Reply(failure=failure_of(error))
        else:
            voice.say(STARTED)
            of_attempt = voice.attempt()
            reply = run_there(function, snapshot, of_attempt.line, of_attempt.beat)
            del function, snapshot
        voice.end(reply)
        del job, reply


def _prepare(lifeline: Connection[Any, Any]) -> None:
    """Make the process one that goes when its parent goes, with all that it started."""
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    # Ctrl-C is the parent's business, and what the main script does with signals is not meant for here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # it was blocked so that a start is not cut off half-way
    if sys.platform == "linux":
        import fcntl  # late: there is none on Windows

        # The kernel itself kills the group when the other end is gone (fcntl(2), "Managing signals"): the thread that reads the
        # pipe could not, while native code holds the interpreter's lock.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _read(connection: Connection[Any, Any], jobs: SimpleQueue[bytes]) -> None:
    try:
        while True:
            jobs.put(connection.recv_bytes())
    except BaseException:  # the other end is gone, or a task closed what is not its own
        if sys.platform != "win32":
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
