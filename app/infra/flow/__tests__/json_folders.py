"""What the tests of JsonStore share: its folder looked at from outside, copied in the middle of a write, and made to fail."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import JsonStore
from ..file_system import FileSystem, Identity, StrPath
from ..testing.store_contract import snapshot
from .power_cuts import Trace

Hook = Callable[..., None]


class HookedFiles(FileSystem):
    """The real files. What is set for an operation's name is called before it, with the same arguments, and may raise."""

    def __init__(self) -> None:
        self.hooks: dict[str, Hook] = {}
        self.names: dict[int, str] = {}
        """The files that were opened last under each descriptor."""

    @contextmanager
    def before(self, **hooks: Hook) -> Iterator[None]:
        """Call these before the operations of their names, for the length of a block."""
        self.hooks = hooks
        try:
            yield
        finally:
            self.hooks = {}

    def _call(self, name: str, *arguments: Any) -> None:
        hook = self.hooks.get(name)
        if hook is not None:
            hook(*arguments)

    def open(self, path: StrPath, flags: int = os.O_RDWR) -> int:
        self._call("open", Path(path), flags)
        descriptor = super().open(path, flags)
        self.names[descriptor] = Path(path).name
        return descriptor

    def read(self, path: StrPath, lines: int | None = None) -> bytes | None:
        self._call("read", Path(path), lines)
        return super().read(path, lines)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        self._call("write", descriptor, data, offset)
        super().write(descriptor, data, offset)

    def truncate(self, descriptor: int, length: int) -> None:
        self._call("truncate", descriptor, length)
        super().truncate(descriptor, length)

    def status(self, descriptor: int) -> Identity:
        self._call("status", descriptor)
        return super().status(descriptor)

    def sync(self, descriptor: int) -> None:
        self._call("sync", descriptor)

    def sync_folder(self, folder: StrPath) -> None:
        self._call("sync_folder", Path(folder))

    def replace(self, source: StrPath, target: StrPath) -> None:
        self._call("replace", Path(source), Path(target))
        super().replace(source, target)

    def unlink(self, path: StrPath) -> bool:
        self._call("unlink", Path(path))
        return super().unlink(path)


class UnsyncedFiles(FileSystem):
    """Files that are never waited for: the disk is ours."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, folder: StrPath) -> None:
        pass


class Recorder:
    """The trace of all that is done in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace: Trace = []
        self.start = {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}
        self.names = {name: -number for number, name in enumerate(sorted(self.start), 1)}
        self.open: dict[int, int] = {}
        self.made = 0


class RecordingFiles(UnsyncedFiles):
    """Does what it is told, and notes it down."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def open(self, path: StrPath, flags: int = os.O_RDWR) -> int:
        descriptor = super().open(path, flags)
        recorder, name = self.recorder, Path(path).name
        if name not in recorder.names:
            recorder.made += 1
            recorder.names[name] = recorder.made
            recorder.trace.append(("create", name, recorder.made))
        recorder.open[descriptor] = recorder.names[name]
        return descriptor

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        self.recorder.trace.append(("write", self.recorder.open[descriptor], offset, data))
        super().write(descriptor, data, offset)

    def truncate(self, descriptor: int, length: int) -> None:
        self.recorder.trace.append(("truncate", self.recorder.open[descriptor], length))
        super().truncate(descriptor, length)

    def sync(self, descriptor: int) -> None:
        self.recorder.trace.append(("fsync", self.recorder.open[descriptor]))

    def sync_folder(self, folder: StrPath) -> None:
        if Path(folder) == self.recorder.folder:
            self.recorder.trace.append(("fsync folder",))

    def replace(self, source: StrPath, target: StrPath) -> None:
        super().replace(source, target)
        old, new = Path(source).name, Path(target).name
        self.recorder.trace.append(("rename", old, new))
        self.recorder.names[new] = self.recorder.names.pop(old)

    def unlink(self, path: StrPath) -> bool:
        there = super().unlink(path)
        if there:
            name = Path(path).name
            self.recorder.trace.append(("unlink", name))
            del self.recorder.names[name]
        return there


def fail(*arguments: Any) -> None:
    """A hook: the disk is broken."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def full_disk(after: int) -> Hook:
    """A hook for `write`: there is room for so many writes, and for half of the next one."""
    count = 0

    def write(descriptor: int, data: bytes, offset: int) -> None:
        nonlocal count
        count += 1
        if count == after + 1:
            os.lseek(descriptor, offset, os.SEEK_SET)
            os.write(descriptor, data[: len(data) // 2])
        if count > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return write


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of runs, and any others that are not hidden."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def found_in(folder: Path) -> dict[str, Any]:
    """What a new process finds in the folder."""
    with JsonStore(folder) as store:
        return snapshot(store)


def damaged(data: bytes, at: int) -> bytes:
    """The data with one byte changed."""
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def kill(store: JsonStore) -> None:
    """Leave a store as a kill of its process does: nothing is flushed or folded, and its locks are free."""
    store._writer.after_fork()
    store._flusher.close()
    store._folder_lock.close()
    store._ownership.close()
    store._detach()
    store._opened, store._closed = False, True


class Copies:
    """Copies of a folder, each as a kill at that instant would leave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Path] = []

    def take(self, *arguments: Any) -> None:
        """Take one; may be a hook."""
        self.made.append(self.folder.with_name(f"copy{len(self.made)}"))
        shutil.copytree(self.folder, self.made[-1], ignore=shutil.ignore_patterns(".*"))
