"""The FastAPI example as its reader would run it: a real server, killed in the middle and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .attempts import until

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install -r requirements-extras.txt")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -r requirements-extras.txt")

ROOT = Path(__file__).resolve().parents[4]

if not (ROOT / "examples" / "fastapi_app.py").is_file():
    pytest.skip("this folder was copied into another tree, without the examples", allow_module_level=True)

Message = tuple[str, dict[str, Any]]


class Service:
    """The example, served on a port of this machine."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._log = (folder / "service.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-m", "examples.fastapi_app"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(self.port), "IMPORT_DB": str(folder / "runs.db")},
            stdout=self._log,
            stderr=self._log,
        )
        asyncio.run(until(self._answers))

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            self.get("/openapi.json")
        except urllib.error.URLError:
            return False
        return True

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def start(self, **headers: str) -> str:
        body = json.dumps({"pages": 4, "pause": 0.2}).encode()
        request = urllib.request.Request(self.address + "/runs", body, {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 202
            run_id: str = json.load(answer)["run_id"]
            return run_id

    def events(self, run_id: str) -> Generator[Message, None, None]:
        with urllib.request.urlopen(f"{self.address}/runs/{run_id}/events", timeout=60) as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            kind = ""
            for line in stream:
                name, _, rest = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = rest
                elif name == "data":
                    yield kind, json.loads(rest)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._log.close()
        return code


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    serving = Service(folder)
    try:
        yield serving
    finally:
        if serving.process.poll() is None:
            serving.end(signal.SIGKILL)


def test_a_run_is_started_by_a_request_and_followed_to_its_end(tmp_path: Path) -> None:
    with service(tmp_path) as serving:
        run_id = serving.start(**{"Idempotency-Key": "monday"})
        assert run_id == "monday" == serving.start(**{"Idempotency-Key": "monday"})
        told = list(serving.events(run_id))
        kinds = [kind for kind, _ in told]
        assert (kinds[0], kinds[-2], kinds[-1]) == ("stands", "RunFinished", "ended")
        succeeded = [data["task"] for kind, data in told if kind == "TaskSucceeded"]
        assert succeeded[0] == "pages" and succeeded[-1] == "total"
        assert told[-1][1]["state"] == "success"
        assert serving.get("/runs/monday")["tasks"]["total"]["state"] == "success"
        late = list(serving.events(run_id))  # of a run that has ended
        assert [kind for kind, _ in late] == ["stands", "ended"]
        with pytest.raises(urllib.error.HTTPError, match="422"):
            serving.start(**{"Idempotency-Key": "k" * 501})
        for path in ("/runs/nothing", "/runs/nothing/events"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                serving.get(path)


def test_a_client_that_goes_away_in_the_middle_takes_neither_the_run_nor_another_client_along(tmp_path: Path) -> None:
    with service(tmp_path) as serving:
        run_id = serving.start()
        leaving, staying = serving.events(run_id), serving.events(run_id)
        assert next(leaving)[0] == next(staying)[0] == "stands"
        next(data for kind, data in leaving if kind == "TaskStarted" and data["task"].startswith("fetch["))
        leaving.close()
        told = list(staying)
        assert told[-1] == ("ended", {**told[-1][1], "state": "success"})
        assert sum(kind == "RunStarted" for kind, _ in told) == 1
        assert all(len(task["attempts"]) == 1 for task in serving.get(f"/runs/{run_id}")["tasks"].values())
        assert serving.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert "Traceback" not in (tmp_path / "service.log").read_text()


def test_a_service_that_is_killed_goes_on_with_its_runs_when_it_is_started_again(tmp_path: Path) -> None:
    with service(tmp_path) as first:
        run_id = first.start()
        done: str = next(
            data["task"] for kind, data in first.events(run_id) if kind == "TaskSucceeded" and data["task"].startswith("fetch[")
        )
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
    with service(tmp_path) as second:
        told = list(second.events(run_id))
        assert told[-1][0] == "ended" and told[-1][1]["state"] == "success"
        tasks = second.get(f"/runs/{run_id}")["tasks"]
        assert len(tasks[done]["attempts"]) == 1
        assert any(len(task["attempts"]) == 2 for name, task in tasks.items() if name.startswith("fetch["))


def test_a_service_that_is_stopped_leaves_a_run_that_the_next_one_continues(tmp_path: Path) -> None:
    with service(tmp_path) as first:
        run_id = first.start()
        next(message for message in first.events(run_id) if message[0] == "TaskSucceeded")
        first.end(signal.SIGTERM)
    assert "Traceback" not in (tmp_path / "service.log").read_text()
    with service(tmp_path) as second:
        assert list(second.events(run_id))[-1][1]["state"] == "success"
