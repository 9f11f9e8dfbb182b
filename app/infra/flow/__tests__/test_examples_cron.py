"""The nightly job as cron and systemd call it: its exit codes, what it says, and that a next call goes on."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import Attempt, SQLiteStore
from .attempts import until

ROOT = Path(__file__).resolve().parents[4]
CRON = ROOT / "examples" / "cron"
DAY = "2026-03-01"

if not CRON.is_dir():
    pytest.skip("this folder was copied into another tree, without the examples", allow_module_level=True)


class Job:
    """The job, and the folder that it works in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "STATE_DIRECTORY": str(folder), "DAY": DAY}
        self.environment["NIGHT_BATCH_STATE"] = str(folder / "state")
        self.under_way: list[subprocess.Popen[str]] = []

    def orders(self, text: str, day: str = DAY) -> None:
        (self.folder / f"orders-{day}.json").write_text(text)

    def report(self, day: str = DAY) -> str:
        return (self.folder / f"report-{day}.txt").read_text()

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *(arguments or ("-m", "examples.cron.nightly"))]
        known = {**self.environment, **environment}
        return subprocess.run(command, env=known, capture_output=True, text=True, timeout=60, cwd=self.folder)

    def start(self) -> subprocess.Popen[str]:
        """The job, waiting for its orders."""
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.cron.nightly"],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        self.under_way.append(process)
        asyncio.run(until(self._is_waiting))
        return process

    def _is_waiting(self) -> bool:
        if not (self.folder / "nightly.db").exists():
            return False
        return any(attempt.result == "running" for attempt in self.attempts("wait_for_orders"))

    def attempts(self, task_id: str) -> list[Attempt]:
        with SQLiteStore(self.folder / "nightly.db") as store:
            return list(store.list_attempts(f"nightly-{DAY}", task_id)) if store.list_runs() else []


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    for process in job.under_way:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def test_a_night_that_goes_well_says_nothing_and_is_done_once(job: Job) -> None:
    job.orders("[3, 4]")
    for _ in range(2):
        done = job.call()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert job.report() == "2 orders, 7 in total\n"
    assert len(job.attempts("write_report")) == 1


def test_a_night_that_fails_ends_with_1_and_a_command_that_mends_it(job: Job) -> None:
    job.orders("not json")
    failed = job.call()
    assert failed.returncode == 1
    assert "add_up: json.decoder.JSONDecodeError" in failed.stderr
    command = re.search(r"python -m (app\.infra\.flow resume .*)", failed.stderr)
    assert command is not None
    job.orders("[5]")
    mended = job.call("-m", *shlex.split(command[1]))
    assert mended.returncode == 0, mended.stderr
    assert job.report() == "1 orders, 5 in total\n"
    assert len(job.attempts("wait_for_orders")) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_night_that_is_stopped_or_killed_is_finished_by_the_next_call(job: Job, number: int, code: int) -> None:
    process = job.start()
    process.send_signal(number)
    assert process.wait(30) == code
    job.orders("[1]")
    job.orders("[2]", "2026-03-02")
    following = job.call(DAY="2026-03-02")
    assert (following.returncode, following.stderr) == (0, "")
    assert (job.report(), job.report("2026-03-02")) == ("1 orders, 1 in total\n", "1 orders, 2 in total\n")
    assert len(job.attempts("wait_for_orders")) == 2


def test_a_second_one_at_the_same_time_ends_with_3_and_says_who_is_at_it(job: Job) -> None:
    first = job.start()
    second = job.call()
    assert second.returncode == 3
    assert str(first.pid) in second.stderr
    job.orders("[1]")
    assert first.wait(30) == 0


def test_a_file_that_is_no_store_ends_with_3(job: Job) -> None:
    (job.folder / "nightly.db").write_bytes(b"not a database" * 100)
    broken = job.call()
    assert broken.returncode == 3
    assert "nightly.db" in broken.stderr and "Traceback" not in broken.stderr


def test_the_crontab_lines_and_the_unit_name_the_job_that_there_is(job: Job) -> None:
    lines = [line for line in (CRON / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    (start,) = re.findall(r"^ExecStart=\S+ (.*)$", (CRON / "night-batch.service").read_text(), re.M)
    assert start == "-m examples.cron.nightly"
    assert [line.split("python3 ")[1] for line in lines if "python3" in line] == [start, start]
    assert all(re.match(r"(MAILTO=|@reboot\s|(\S+\s+){5}cd )", line) for line in lines)


def test_systemd_takes_the_unit_files_as_they_are(tmp_path: Path) -> None:
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("there is no systemd-analyze here")
    for name in ("night-batch.service", "night-batch.timer"):
        # What is started is somewhere else on each machine, and verify wants it to be there.
        unit = (CRON / name).read_text().replace("/usr/bin/python3", sys.executable).replace("/opt/night-batch", str(tmp_path))
        (tmp_path / name).write_text(unit)
    units = [str(tmp_path / name) for name in ("night-batch.service", "night-batch.timer")]
    verified = subprocess.run([verifier, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60)
    assert [line for line in verified.stderr.splitlines() if "night-batch" in line] == []
    calendar = re.findall(r"^OnCalendar=(.*)$", (CRON / "night-batch.timer").read_text(), re.M)
    assert subprocess.run([verifier, "calendar", *calendar], capture_output=True, timeout=60).returncode == 0
