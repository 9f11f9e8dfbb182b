"""Worker processes of our own: started by spawn, used again and again, killed with all that they started, never left behind.

One pool serves the whole process. Must not know what is run in them, a store, or the event loop.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, get_context, process
from typing import Any

from . import forks
from .travel import Line, Reply
from .worker_main import BEAT, LINE, REPLY, STARTED, main

IDLE_SECONDS = 60.0
"""So long an idle worker is kept for the next task."""
START_SECONDS = 300.0
"""So long a worker may take to import the program's main script: some load gigabytes."""
TERM_SECONDS = 1.0
"""So long a worker that is told to end by SIGTERM may take, before it is killed."""
_LOOK_SECONDS = 1.0
"""So often it is looked whether a worker still lives, should neither its pipe nor the system tell."""
_BURY_SECONDS = 5.0
"""So long the system may take to be done with a process that was killed."""


class WorkerGoneError(Exception):
    """A worker ended, or had to be ended, before it replied. `begun` says whether the task had been given to it."""

    def __init__(self, pid: int, exit_code: int | None, begun: bool, problem: str | None = None) -> None:
        super().__init__(pid, exit_code, begun, problem)
        self.pid, self.exit_code, self.begun, self.problem = pid, exit_code, begun, problem


class WorkerProcess:
    """One worker process, seen from its parent. One thread at a time runs attempts in it; any thread may end it.

    Raises:
        OSError: the machine gives no more processes, or no more open files.
        RuntimeError: this process is itself being started by multiprocessing, and imports its main script.
    """

    def __init__(self) -> None:
        spawn = get_context("spawn")
        self._end: list[int] = []
        self._pipe, theirs = spawn.Pipe()
        lifeline, self._lifeline = spawn.Pipe(duplex=False)
        forks.watch(self)
        try:
            self._process = spawn.Process(target=main, args=(theirs, lifeline), name="night-batch worker", daemon=False)
            _start(self._process)
        except BaseException:
            self.after_fork()
            raise
        finally:
            theirs.close()
            lifeline.close()
        # multiprocessing forgets it: it would wait for it at the interpreter's exit, and collect its exit code behind our back.
        getattr(process, "_children", set[Any]()).discard(self._process)
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._end = _end_of(self._process)
        self._lock = threading.Lock()
        self._ready = False
        self._gone = False
        self._killer: threading.Timer | None = None
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.pid}, {'gone' if self._gone else 'ready' if self._ready else 'starting'}>"

    def run(self, job: bytes, line: Callable[[Line], None], beat: Callable[[], None]) -> Reply:
        """Make an attempt in it.

        Args:
            job: the attempt, packed.
            line: takes each line of log.
            beat: is called at the task's heartbeats.

        Raises:
            WorkerGoneError: it ended meanwhile; nothing of it is left.
        """
        begun = False
        try:
            if not self._ready:
                self._next(START_SECONDS)  # it says READY
                self._ready = True
            self._pipe.send_bytes(job)
            while True:
                word, content = self._next()
                if word == REPLY:
                    return content  # type: ignore[no-any-return]
                if word == STARTED:
                    begun = True
                elif word == LINE:
                    line(content)
                elif word == BEAT:
                    beat()
        except (EOFError, OSError):
            raise WorkerGoneError(self.pid, self.bury(TERM_SECONDS), begun) from None
        except BaseException:  # so that nobody takes it for one that waits for work
            self.bury()
            raise

    def _next(self, seconds: float | None = None) -> tuple[int, Any]:
        """What it says next.

        Raises:
            EOFError: it will say nothing more.
            WorkerGoneError: it said nothing for so many seconds.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            # Not the pipe alone: what the worker started may hold the other end of it open when the worker is gone.
            if self._pipe in connection.wait([self._pipe, *self._end], _LOOK_SECONDS):
                return self._pipe.recv()  # type: ignore[no-any-return]
            if self._has_ended():
                if not self._pipe.poll():
                    raise EOFError
                return self._pipe.recv()  # type: ignore[no-any-return]  # its last words
            if deadline is not None and time.monotonic() > deadline:
                raise WorkerGoneError(self.pid, self.bury(), False, f"took more than {seconds:g} s to start and was killed")

    def _has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it ends within so many seconds. Where the system lets us, without collecting its exit code: see `bury`."""
        if self._end:
            return bool(connection.wait(self._end, seconds))
        deadline = time.monotonic() + seconds
        while self._process.exitcode is None and _exists(self.pid):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def terminate(self) -> None:
        """Tell it, and all that it started, to end; soon after, kill what is left. Does not wait."""
        with self._lock:
            if self._gone or self._killer is not None:
                return
            self._signal(getattr(signal, "SIGTERM", 15))
            killer = threading.Timer(TERM_SECONDS, self.kill)
            killer.daemon = True
            try:
                killer.start()
                self._killer = killer
            except RuntimeError:  # the machine gives no more threads
                self._signal(getattr(signal, "SIGKILL", 9))

    def kill(self) -> None:
        """Kill it, and all that it started. Does not wait."""
        with self._lock:
            if not self._gone:
                self._signal(getattr(signal, "SIGKILL", 9))

    def _signal(self, number: int) -> None:
        try:
            if sys.platform == "win32":
                self._process.kill()
                return
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it has not got as far as making its group
                os.kill(self.pid, number)
        except OSError:  # it has ended
            pass

    def bury(self, seconds: float = 0.0) -> int | None:
        """Wait so long for its end, kill it, and let go of all that it took here; its exit code, if anybody knows it."""
        self._has_ended(seconds)
        # Before its exit code is collected: as long as it is not, nobody else can have its number, or that of its group.
        self.kill()
        self._has_ended(_BURY_SECONDS)
        with self._lock:
            if not self._gone:
                self._gone = True
                self.after_fork()
            if self._killer is not None:
                self._killer.cancel()
            return self._process.exitcode

    def after_fork(self) -> None:
        """Close what is open here for it. In a forked child, since a worker hears of its parent's end when nobody holds these."""
        self._pipe.close()
        self._lifeline.close()
        if sys.platform != "win32":
            while self._end:
                os.close(self._end.pop())


def _start(worker: Any) -> None:
    if sys.platform == "win32":
        worker.start()
        return
    from multiprocessing import resource_tracker  # late: there is none on Windows

    resource_tracker.ensure_running()  # starting it would lift the block
    # A Ctrl-C at the terminal is for us, and must not cut off a worker's start with a traceback.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_of(worker: Any) -> list[int]:
    """What becomes ready when the process ends, whoever holds its pipes open; nothing where the system has no such thing."""
    if sys.platform == "win32":
        return [worker.sentinel]
    pidfd_open = getattr(os, "pidfd_open", None)  # Linux from 5.3 on
    if pidfd_open is not None:
        try:
            return [pidfd_open(worker.pid)]
        except OSError:
            pass
    return []


def _exists(pid: int) -> bool:
    """Whether there is such a process: where the program ignores SIGCHLD, the system keeps no exit code to be collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


class WorkerPool:
    """The worker processes of this process: those that wait for work, and a list of all, so that none outlives it.

    Args:
        idle_seconds: how long one is kept that has nothing to do.
    """

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        """See `forks.Forkable`: the workers are the parent's."""
        self._all: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._lock = threading.Lock()
        self._sweeper: threading.Timer | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<WorkerPool of {len(self._all)} workers, {len(self._idle)} of them idle>"

    def take(self, fresh: bool = False) -> WorkerProcess:
        """A worker, for the caller alone: one that is idle, or a new one.

        Args:
            fresh: whether it has to be a new one.

        Raises:
            OSError: see `WorkerProcess`.
            RuntimeError: likewise, or the interpreter is ending.
        """
        with self._lock:
            if self._idle and not fresh and not self._closed:
                return self._idle.pop()  # the one that was used last, so that those that are too many grow old
        worker = WorkerProcess()
        with self._lock:
            if not self._closed:
                self._all.add(worker)
                return worker
        worker.bury()
        raise RuntimeError("the interpreter is ending")

    def give_back(self, worker: WorkerProcess) -> None:
        """Keep a worker for who needs it next."""
        with self._lock:
            worker.idle_since = time.monotonic()
            self._idle.append(worker)
            if self._sweeper is None:
                self._sweep_in(self._idle_seconds)

    def end(self, worker: WorkerProcess) -> None:
        """Be rid of a worker that has ended, or must not be used again."""
        worker.bury()
        with self._lock:
            self._all.discard(worker)

    def _sweep_in(self, seconds: float) -> None:
        sweeper = threading.Timer(seconds, self._sweep)
        sweeper.daemon = True
        try:
            sweeper.start()
        except RuntimeError:  # the machine gives no more threads, or the interpreter is ending: they are kept a little longer
            return
        self._sweeper = sweeper

    def _sweep(self) -> None:
        """End those that were idle for too long."""
        with self._lock:
            now = time.monotonic()
            old = [worker for worker in self._idle if now - worker.idle_since >= self._idle_seconds]
            self._idle = [worker for worker in self._idle if worker not in old]
            self._sweeper = None
            if self._idle and not self._closed:
                self._sweep_in(self._idle[0].idle_since + self._idle_seconds - now)
        for worker in old:
            self.end(worker)

    def close(self) -> None:
        """Kill all workers, at the interpreter's exit."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.kill()


POOL = WorkerPool()
atexit.register(POOL.close)
