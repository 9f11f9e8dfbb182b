"""Locks between processes, and who owns runs: what is free, whose it is, who is dead, and that no name leads astray."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import file_lock, owners
from ..file_lock import FileLock
from ..owners import Owner, Owners, boot_id
from .processes import PACKAGE, ROOT, needs_posix

HOUR = 3600.0


def until(condition: Any, seconds: float = 10.0) -> bool:
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def a_program(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A program that says something once it has done what it is for, and then waits to be killed."""
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code.replace("PACKAGE", PACKAGE) + "\nprint('ready', flush=True); time.sleep(60)",
            *map(str, arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    return program


def ended(program: subprocess.Popen[bytes]) -> None:
    program.kill()
    program.wait(10)
    assert program.stdout is not None
    program.stdout.close()


# --- the lock ---


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[FileLock, FileLock]]:
    """Two who want the same lock."""
    locks = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    yield locks
    for lock in locks:
        lock.close()


def test_one_has_the_lock_and_the_other_gets_it_afterwards(two: tuple[FileLock, FileLock]) -> None:
    one, other = two
    assert one.try_acquire()
    assert not other.try_acquire()
    assert (one.held, other.held) == (True, False)
    assert "held" in repr(one)
    assert "free" in repr(other)
    one.release()
    assert other.try_acquire()
    assert not one.try_acquire()
    one.release()  # who does not hold it takes it from nobody
    assert not one.try_acquire()


def test_waiting_for_the_lock_is_bounded(two: tuple[FileLock, FileLock]) -> None:
    one, other = two
    assert one.try_acquire()
    began = time.monotonic()
    assert not other.acquire(0.05)
    assert 0.05 <= time.monotonic() - began < 5
    threading.Timer(0.02, one.release).start()
    assert other.acquire(10)


def test_closing_another_descriptor_of_the_file_does_not_free_the_lock(two: tuple[FileLock, FileLock]) -> None:
    one, other = two
    assert one.try_acquire()
    Path(one.path).read_bytes()
    other.try_acquire()
    other.close()
    assert not other.try_acquire(), "a POSIX record lock would be gone now"


def test_a_lock_that_is_removed_is_not_shared_with_who_had_opened_it(two: tuple[FileLock, FileLock], tmp_path: Path) -> None:
    one, late = two
    assert one.try_acquire()
    assert not late.try_acquire()  # has the file open from now on
    one.remove()
    assert not one.held
    assert not (tmp_path / "lock").exists()
    newcomer = FileLock(tmp_path / "lock")
    assert newcomer.try_acquire()
    assert not late.try_acquire(), "it would hold a lock that nobody looks at any more"
    newcomer.release()
    assert late.try_acquire()
    assert os.path.samestat(os.fstat(late.descriptor), (tmp_path / "lock").stat())
    newcomer.close()


def test_removing_a_lock_whose_file_somebody_removed_by_hand_is_no_error(two: tuple[FileLock, FileLock]) -> None:
    one, other = two
    assert one.try_acquire()
    Path(one.path).unlink()
    one.remove()
    assert other.try_acquire()


def test_without_permission_to_make_one_a_missing_file_is_an_error(two: tuple[FileLock, FileLock], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        two[0].try_acquire(create=False)
    assert list(tmp_path.iterdir()) == []


@needs_posix
def test_the_file_is_for_nobody_elses_eyes_and_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    before = os.umask(0)
    try:
        assert lock.try_acquire()
    finally:
        os.umask(before)
    assert Path(lock.path).stat().st_mode & 0o777 == 0o600
    lock.close()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        FileLock(tmp_path / "link").try_acquire()
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("removing", [False, True], ids=["released", "removed each time"])
def test_however_many_want_it_only_one_has_it(removing: bool, tmp_path: Path) -> None:
    inside = most = turns = 0
    start = threading.Barrier(6)

    def go() -> None:
        nonlocal inside, most, turns
        lock = FileLock(tmp_path / "lock")
        start.wait()
        for number in range(60):
            assert lock.acquire(10)
            inside += 1
            most = max(most, inside)
            turns += 1
            time.sleep(0)
            inside -= 1
            if removing and number % 2:
                lock.remove()
            else:
                lock.release()
        lock.close()

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert (most, turns) == (1, 360)


HOLDER = """
import sys, time
from pathlib import Path
from PACKAGE.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.try_acquire()
"""


@needs_posix
def test_a_killed_holder_frees_the_lock_at_once(tmp_path: Path) -> None:
    program = a_program(HOLDER, tmp_path / "lock")
    lock = FileLock(tmp_path / "lock")
    assert not lock.try_acquire()
    ended(program)
    assert lock.acquire(0.5)
    lock.close()


@needs_posix
def test_a_program_that_was_started_meanwhile_does_not_keep_the_lock(two: tuple[FileLock, FileLock]) -> None:
    one, other = two
    assert one.try_acquire()
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    one.close()
    held = not other.acquire(1)  # not at once: the kernel closes what a program must not inherit a moment after it was started
    program.kill()
    program.wait(10)
    assert not held


# --- owners ---


class Monotonic:
    """A monotonic clock that tests set."""

    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def made() -> Iterator[list[Owners]]:
    """Owners to be closed at the end."""
    all_of_them: list[Owners] = []
    yield all_of_them
    for each in all_of_them:
        each.close()


@pytest.fixture
def pair(tmp_path: Path, made: list[Owners]) -> tuple[Owners, Owners, Monotonic]:
    """Two owners of runs in one store, by one clock, whose hearts do not beat before 20 minutes are over."""
    clock = Monotonic()
    made.extend(Owners(tmp_path / "runs.db-owner-", HOUR, clock) for _ in range(2))
    return made[0], made[1], clock


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_who_owns_nothing_has_no_file(pair: tuple[Owners, Owners, Monotonic], tmp_path: Path) -> None:
    one, other, _ = pair
    other.sweep()
    assert "not one of them" in repr(one)
    assert files_in(tmp_path) == []
    assert re.fullmatch("[0-9a-f]{16}", one.token)
    assert one.token == one.token
    assert files_in(tmp_path) == [f"runs.db-owner-{one.token}"]
    assert one.token in repr(one)


def test_others_see_that_an_owner_lives_and_who_it_is(pair: tuple[Owners, Owners, Monotonic]) -> None:
    one, other, _ = pair
    assert one.token != other.token
    assert other.is_alive(one.token)
    assert one.is_alive(one.token)
    owner = other.owner(one.token)
    assert owner is not None
    assert (owner.pid, owner.lease, owner.boot) == (os.getpid(), HOUR, boot_id())
    assert str(owner) == f"process {os.getpid()} on {owner.host}"


def test_who_has_closed_is_no_owner_any_more_and_comes_back_as_another(
    pair: tuple[Owners, Owners, Monotonic], tmp_path: Path
) -> None:
    one, other, _ = pair
    token = one.token
    one.close()
    one.close()
    assert not other.is_alive(token)
    assert other.owner(token) is None
    assert files_in(tmp_path) == []
    assert one.token != token
    assert other.is_alive(one.token)


def test_a_lease_is_over_when_its_time_is_and_not_before(pair: tuple[Owners, Owners, Monotonic]) -> None:
    one, other, clock = pair
    token = one.token
    clock.now += int(HOUR * 1e9)
    assert other.is_alive(token)
    clock.now += 1
    assert not other.is_alive(token)
    assert one.is_alive(token), "the owner itself finds out when it writes: that is what the fence is for"
    assert other.owner(token) is not None, "it is not dead, so who it is stays known"


def test_each_owners_lease_is_as_long_as_it_said_itself(tmp_path: Path, made: list[Owners]) -> None:
    clock = Monotonic()
    made.extend(Owners(tmp_path / "runs-", lease, clock) for lease in (HOUR, 60 * HOUR))
    short, long = made
    tokens = short.token, long.token
    clock.now += int(10 * HOUR * 1e9)
    assert (long.is_alive(tokens[0]), short.is_alive(tokens[1])) == (False, True)


def test_the_heart_beats_and_stops_beating(tmp_path: Path, made: list[Owners]) -> None:
    clock = Monotonic()
    made.extend((Owners(tmp_path / "runs-", 0.03, clock), Owners(tmp_path / "runs-", HOUR, clock)))
    one, other = made
    token = one.token
    clock.now += 10**9
    assert until(lambda: other.is_alive(token)), "it gives a sign of life by itself"
    before = {thread.name for thread in threading.enumerate()}
    assert f"night-batch owner {token}" in before
    one.close()
    assert until(lambda: f"night-batch owner {token}" not in {thread.name for thread in threading.enumerate()})


def test_a_heart_that_misses_a_beat_beats_on(tmp_path: Path, made: list[Owners], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Monotonic()
    made.extend((Owners(tmp_path / "runs-", 0.03, clock), Owners(tmp_path / "runs-", HOUR, clock)))
    one, other = made
    token = one.token
    missed = 0
    write = os.write

    def fails(*arguments: Any) -> int:
        nonlocal missed
        if missed < 3 and threading.current_thread().name.startswith("night-batch owner"):
            missed += 1
            raise OSError(28, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(os, "write", fails)
    assert until(lambda: missed == 3)
    clock.now += 10**9
    assert until(lambda: other.is_alive(token))


def write_file(folder: Path, token: str, pid: int, boot: str, beat: int = 10**12) -> Path:
    """The file of an owner, as its process would have left it: not locked."""
    owner = {"pid": pid, "host": "somewhere", "boot": boot, "lease": HOUR}
    path = folder / f"runs.db-owner-{token}"
    path.write_bytes(b"%020d" % beat + json.dumps(owner).encode())
    return path


@pytest.mark.parametrize(
    "boot", [boot_id(), "another-start-of-the-machine", ""], ids=["this boot", "another boot", "unknown boot"]
)
@pytest.mark.parametrize("pid", [os.getpid(), os.getppid(), 1, 2**22 + 1])
def test_a_file_that_nobody_holds_is_a_dead_owners_whatever_it_says(
    boot: str, pid: int, pair: tuple[Owners, Owners, Monotonic], tmp_path: Path
) -> None:
    """A process id is used again, a machine starts anew: neither makes the dead look alive."""
    path = write_file(tmp_path, "0" * 16, pid, boot)
    assert not pair[0].is_alive("0" * 16)
    assert not path.exists()


def test_a_file_that_is_held_under_another_boot_is_not_judged_by_its_time(
    pair: tuple[Owners, Owners, Monotonic], tmp_path: Path
) -> None:
    """Another machine's, on a shared disk: the clocks have nothing in common, but the lock says that it lives."""
    path = write_file(tmp_path, "0" * 16, 1, "another-start-of-the-machine", beat=1)
    lock = FileLock(path)
    assert lock.try_acquire()
    assert pair[0].is_alive("0" * 16)
    lock.close()
    assert not pair[0].is_alive("0" * 16)


@pytest.mark.parametrize(
    "content", [b"", b"0000000000", b"%020d" % 1, b"%020d{" % 1, b"%020d[]" % 1, b'%020d{"pid": 1}' % 1, b"\0" * 99]
)
def test_an_owner_that_dies_before_its_first_sign_of_life_is_dead_and_one_that_is_writing_it_lives(
    content: bytes, pair: tuple[Owners, Owners, Monotonic], tmp_path: Path
) -> None:
    path = tmp_path / f"runs.db-owner-{'0' * 16}"
    path.write_bytes(content)
    lock = FileLock(path)
    assert lock.try_acquire()
    assert pair[0].is_alive("0" * 16)
    assert pair[0].owner("0" * 16) is None
    lock.close()
    assert not pair[0].is_alive("0" * 16)
    assert not path.exists()


def test_an_owner_whose_file_was_removed_first_is_dead(pair: tuple[Owners, Owners, Monotonic]) -> None:
    assert not pair[0].is_alive("0" * 16)
    assert pair[0].owner("0" * 16) is None


@pytest.mark.parametrize(
    "token",
    [
        "../../x",
        "../precious",
        "/etc/passwd",
        "",
        ".",
        "..",
        "A" * 16,
        "0" * 15,
        "0" * 17,
        "0" * 16 + "\n",
        "0" * 16 + "/..",
        "0" * 8 + "\0" + "0" * 7,
        "０" * 16,
    ],
)
def test_a_name_that_is_none_leads_to_no_file(
    token: str, pair: tuple[Owners, Owners, Monotonic], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").write_text("mine")
    before = files_in(tmp_path)

    def refuse(*arguments: Any) -> Any:
        raise AssertionError(f"it opened {arguments}")

    monkeypatch.setattr(owners, "FileLock", refuse)
    monkeypatch.setattr(owners, "_read", refuse)
    assert not pair[0].is_alive(token)
    assert pair[0].owner(token) is None
    monkeypatch.undo()
    assert files_in(tmp_path) == before


def test_the_dead_are_swept_away_and_nothing_else(pair: tuple[Owners, Owners, Monotonic], tmp_path: Path) -> None:
    one, other, _ = pair
    dead = [write_file(tmp_path, f"{number:016x}", os.getpid(), boot_id()) for number in range(3)]
    kept = [
        tmp_path / name
        for name in ("runs.db", "runs.db-lock", "runs.db-owner-notes.txt", "runs.db-owner-", f"other.db-owner-{'0' * 16}")
    ]
    for path in kept:
        path.write_text("mine")
    one.token  # noqa: B018 - who becomes an owner sweeps first
    assert not any(path.exists() for path in dead)
    assert all(path.read_text() == "mine" for path in kept)
    assert other.is_alive(one.token)


def test_what_only_has_the_name_of_an_owners_file_is_in_nobodys_way(
    pair: tuple[Owners, Owners, Monotonic], tmp_path: Path
) -> None:
    (tmp_path / f"runs.db-owner-{'0' * 16}").mkdir()
    (tmp_path / "precious").write_text("mine")
    if sys.platform != "win32":
        (tmp_path / f"runs.db-owner-{'1' * 16}").symlink_to(tmp_path / "precious")
    one, other, _ = pair
    assert other.is_alive(one.token)
    assert (tmp_path / "precious").read_text() == "mine"


def test_two_who_find_the_same_owner_dead_agree(pair: tuple[Owners, Owners, Monotonic], tmp_path: Path) -> None:
    for number in range(50):
        token = f"{number:016x}"
        write_file(tmp_path, token, os.getpid(), boot_id())
        start = threading.Barrier(2)
        said: list[bool] = []

        def look(who: Owners, token: str, start: threading.Barrier, said: list[bool]) -> None:
            start.wait()
            said.append(who.is_alive(token))

        threads = [threading.Thread(target=look, args=(who, token, start, said)) for who in pair[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert False in said, "stores ask under their own lock, so one at a time; but never do both take the dead for alive"
        assert not (tmp_path / f"runs.db-owner-{token}").exists()


def test_sweeping_takes_no_file_from_who_is_just_becoming_an_owner(tmp_path: Path, made: list[Owners]) -> None:
    stop = threading.Event()
    sweeper = Owners(tmp_path / "runs-", HOUR)

    def sweep() -> None:
        while not stop.is_set():
            sweeper.sweep()

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for _ in range(60):
            made.append(Owners(tmp_path / "runs-", HOUR))
            path = tmp_path / f"runs-{made[-1].token}"
            lock = made[-1]._lock
            assert lock is not None
            assert os.path.samestat(os.fstat(lock.descriptor), path.stat()), "what it has locked is the file of its name"
    finally:
        stop.set()
        thread.join(10)
    assert all(sweeper.is_alive(each.token) for each in made)


def test_an_owner_that_nobody_knows_any_more_gives_up_its_file_and_its_thread(tmp_path: Path) -> None:
    """Its store was dropped without being closed, as notebooks and web servers do: that must not add up."""
    for _ in range(3):
        token = Owners(tmp_path / "runs-", HOUR).token
        gc.collect()
        assert until(lambda name=f"night-batch owner {token}": name not in {thread.name for thread in threading.enumerate()})
        assert files_in(tmp_path) == []


OWNER = """
import sys, time
from pathlib import Path
from PACKAGE.owners import Owners
owners = Owners(Path(sys.argv[1]), float(sys.argv[2]))
owners.token
"""


@needs_posix
def test_a_killed_process_is_a_dead_owner_at_once(tmp_path: Path, made: list[Owners]) -> None:
    program = a_program(OWNER, tmp_path / "runs-", HOUR)
    made.append(Owners(tmp_path / "runs-", HOUR))
    (name,) = files_in(tmp_path)
    token = name.removeprefix("runs-")
    owner = made[0].owner(token)
    assert owner is not None
    assert owner.pid == program.pid
    assert made[0].is_alive(token)
    ended(program)
    assert until(lambda: not made[0].is_alive(token), 0.5)
    assert files_in(tmp_path) == []


@needs_posix
def test_a_program_that_ends_without_closing_anything_leaves_no_file(tmp_path: Path) -> None:
    code = (OWNER + "\nassert len(list(Path(sys.argv[1]).parent.iterdir())) == 1").replace("PACKAGE", PACKAGE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "runs-"), "30"], env=environment, check=True, timeout=15)
    assert files_in(tmp_path) == []


def test_where_the_platform_does_not_tell_one_boot_from_another_it_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(owners, "_BOOT_ID", tmp_path / "missing")
    assert boot_id() == ""


def test_an_owner_shows_all_that_its_file_says() -> None:
    assert str(Owner(12, "night", "boot", 30.0)) == "process 12 on night"
    assert file_lock._LONGEST_WAIT <= 0.005, "who waits for a lock looks often"
