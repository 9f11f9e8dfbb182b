"""What is asked of runs that others drive: a small file for each beside the store, and who is told when something was added.

A file says what was asked and what was heeded, a line each, and is only ever added to, so that none who writes can undo another's
line; it is removed when its run has ended. Knows files and one thread; must not know stores, or what becomes of an ask.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from .file_system import FileSystem, StrPath
from .forks import watch as watch_forks
from .records import Ask

LOOK = 1.0
"""Seconds between two looks at the files of the runs that are driven here."""

_PLAIN = re.compile(r"[a-z0-9_-]{1,64}")
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)  # or a pipe of that name would make us wait
_TRIES = 100
_logger = logging.getLogger("night_batch.asks")

Tell = Callable[[], object]
"""Is told that something was asked; called in any thread, so it must not take long."""


class Handle(Protocol):
    """What `Later` answers with."""

    def cancel(self) -> object:
        """Do not call."""
        ...


class Later(Protocol):
    """Calls a function after so many seconds, such as an event loop's `call_later`."""

    def __call__(self, delay: float, callback: Callable[[], object], /) -> Handle:
        """Call `callback` then, unless the handle is cancelled before."""
        ...


def tell_all(callbacks: Iterable[Tell]) -> None:
    """Call each; one that raises harms none of the others."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            _logger.exception("%r, which was to be told that something is asked of a run, has failed", callback)


class _Watch:
    """One who is told, and as of which state of the file."""

    __slots__ = ("callback", "handle", "path", "place", "seen")

    def __init__(self, place: tuple[str, str], callback: Tell) -> None:
        self.place = place
        self.callback = callback
        self.handle: Handle | None = None
        self.path: str | None = None
        self.seen: tuple[int, int, int] | None = None


class Lookout:
    """Everybody in this process who is told what is asked of a run, and one thread that looks at the files of these runs.

    There is a thread only while somebody is told; it ends by itself some looks after the last of them has gone.

    Args:
        look: seconds between two looks.
        idle: how many looks for nobody end the thread.
    """

    def __init__(self, look: float = LOOK, idle: int = 5) -> None:
        self._look = look
        self._idle = idle
        self._lock = threading.Lock()
        self._watches: dict[tuple[str, str], list[_Watch]] = {}
        self._thread: threading.Thread | None = None
        watch_forks(self)

    def __repr__(self) -> str:
        thread = "a thread" if self._thread is not None else "no thread"
        return f"<Lookout for {len(self._watches)} runs, with {thread}>"

    def is_looking(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def watch(self, place: tuple[str, str], callback: Tell, later: Later | None) -> Callable[[], None]:
        """Have somebody told of one run, until the function that is returned is called; see `Asks.watch`."""
        found = _Watch(place, callback)
        with self._lock:
            self._watches.setdefault(place, []).append(found)
            if self._thread is None and later is None:
                self._start()
        if self._thread is None and later is not None:
            found.handle = later(self._look, self._start_late)

        def unwatch() -> None:
            handle, found.handle = found.handle, None
            if handle is not None:
                handle.cancel()
            with self._lock:
                watches = self._watches.get(place)
                if watches is not None and found in watches:  # not so after a fork, or when called twice
                    watches.remove(found)
                    if not watches:
                        del self._watches[place]

        return unwatch

    def tell(self, place: tuple[str, str]) -> None:
        """Tell those of one run at once: it was this process that asked."""
        with self._lock:
            callbacks = [found.callback for found in self._watches.get(place, ())]
        tell_all(callbacks)

    def _start_late(self) -> None:
        with self._lock:
            if self._watches:
                self._start()

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._thread = thread = threading.Thread(target=self._keep_looking, name="night-batch asks", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine gives no more threads: whoever watches next tries again
            self._thread = None

    def _keep_looking(self) -> None:
        idle = 0
        while True:
            self.look()
            time.sleep(self._look)
            with self._lock:
                idle = 0 if self._watches else idle + 1
                if idle > self._idle or self._thread is not threading.current_thread():
                    self._thread = None
                    return

    def look(self) -> None:
        """Look at the files once, and tell those whose file is another than it was."""
        with self._lock:
            watches = [found for watches in self._watches.values() for found in watches]
        told: list[Tell] = []
        for found in watches:
            if found.path is None:
                found.path = str(_path(*found.place))
            seen = _state(found.path)
            if seen != found.seen:
                found.seen = seen
                if seen is not None:
                    told.append(found.callback)
        tell_all(told)

    def after_fork(self) -> None:
        """In a forked child: nothing is driven here, so nobody is to be told."""
        self._lock = threading.Lock()
        self._watches, self._thread = {}, None


_LOOKOUT = Lookout()


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _path(prefix: str, run_id: str) -> str:
    """The file for a run. A plain lower-case id stands in its name as it is, any other as a digest: none leads elsewhere."""
    if _PLAIN.fullmatch(run_id):
        return prefix + run_id
    from hashlib import sha256  # late: it takes long to load, and ids are seldom like that

    return f"{prefix}~{sha256(run_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _read_line(line: str) -> tuple[Ask, bool] | None:
    """What was asked, and whether the line says that it was heeded; None for a line that is torn, or not ours."""
    try:
        said = json.loads(line)
        run_id, task_id, heeded = said["run"], said["task"], said["heeded"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if type(run_id) is not str or not (task_id is None or type(task_id) is str) or type(heeded) is not bool:
        return None
    return Ask(run_id, task_id), heeded


class Asks:
    """What is asked of the runs of one store.

    Args:
        prefix: the path that the files' names begin with.
        files: how files are read and written.
        lookout: who is told; that of this process.
    """

    def __init__(self, prefix: StrPath, files: FileSystem | None = None, lookout: Lookout = _LOOKOUT) -> None:
        self._prefix = os.fspath(prefix)
        self._files = FileSystem() if files is None else files
        self._lookout = lookout

    def __repr__(self) -> str:
        return f"<Asks {self._prefix!r}>"

    def put(self, root_run_id: str, ask: Ask) -> None:
        """Ask for something; it is on the disk when this returns, and those who watch here have been told.

        Raises:
            OSError: it could not be written.
        """
        self._add(root_run_id, [ask], heeded=False)
        self._lookout.tell((self._prefix, root_run_id))

    def _add(self, root_run_id: str, asks: Iterable[Ask], heeded: bool) -> None:
        path = _path(self._prefix, root_run_id)
        lines = (json.dumps({"run": ask.run_id, "task": ask.task_id, "heeded": heeded}) for ask in asks)
        # A line before it may be torn, so that it begins with a new one.
        data = "".join(f"\n{line}\n" for line in lines).encode()
        for _ in range(_TRIES):
            is_new = self._files.identity(path) is None
            descriptor = self._files.open(path, _APPEND)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file", path)
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOSPC, "there is no space for what is asked", path)
                self._files.sync(descriptor)
                if is_new:
                    self._files.sync_folder(os.path.dirname(path) or os.curdir)
                there = self._files.identity(path)  # before ours is closed, or another could get its number
                if there is not None and there[0] == self._files.status(descriptor)[0]:
                    return
                # It was removed under us, since the run has ended just then: what we wrote is in no file any more.
            finally:
                self._files.close(descriptor)

    def read(self, root_run_id: str) -> list[Ask]:
        """What is asked of a run and of those inside it, and was not heeded yet, in order."""
        path = _path(self._prefix, root_run_id)
        try:
            data = self._files.read(path)
        except OSError as error:
            _logger.warning("%s cannot be read, so what it asks for is not done: %s", path, error)
            return []
        if data is None:
            return []
        open_asks: dict[Ask, None] = {}
        foreign = False
        for line in data.decode("utf-8", "replace").split("\n"):
            if line:
                said = _read_line(line)
                if said is None:
                    foreign = True
                elif said[1]:
                    open_asks.pop(said[0], None)
                else:
                    open_asks[said[0]] = None
        if foreign:
            _logger.warning("%s has lines that say nothing; they are passed over", path)
        return list(open_asks)

    def forget(self, root_run_id: str, asks: Iterable[Ask] | None = None) -> None:
        """Forget what was asked of a run: these, which were done, and not what was added meanwhile; or all: it has ended.

        Where that cannot be written, it is logged: a run that has done what was asked need not fail for it.
        """
        path = _path(self._prefix, root_run_id)
        try:
            if self._files.identity(path) is None:  # nearly always: nothing is written for that
                return
            if asks is None:
                self._files.unlink(path)
            else:
                self._add(root_run_id, asks, heeded=True)
        except OSError as error:
            _logger.warning("%s cannot be written, so what it asks for may be done once more: %s", path, error)

    def watch(self, root_run_id: str, callback: Tell, later: Later | None = None) -> Callable[[], None]:
        """Have somebody told when something is asked of a run: at once if it is in this process, else within some `LOOK`.

        What was asked before is told of too, at the first look.

        Args:
            root_run_id: the run.
            callback: is told, in any thread; what it raises is logged.
            later: calls a function later. With it the thread that looks, where there is none, is not started before a run has
                lasted a while: most runs never need one.

        Returns:
            What ends it. With `later`, to be called where its functions are.
        """
        return self._lookout.watch((self._prefix, root_run_id), callback, later)
