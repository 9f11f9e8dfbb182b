"""Makes the peers' environments, and runs workload scripts in them.

Must not know what is measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import venv
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
LIMIT = 300.0
"""Seconds after which a process is taken for stuck."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "HAMILTON_TELEMETRY_ENABLED": "false",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def install(peer: str, envs: Path) -> None:
    """Makes the peer's environment anew from its pinned requirements; raises CalledProcessError if pip fails."""
    venv.create(envs / peer, clear=True, with_pip=True)
    pip = [str(python_of(peer, envs)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS / f"{peer}.txt")], check=True)


def python_of(peer: str, envs: Path) -> Path:
    """Names the interpreter that the peer runs in: the plain one, without packages of its own, for our engine."""
    if peer == "night_batch":
        return Path(sys.executable)
    return envs / peer / ("Scripts" if os.name == "nt" else "bin") / "python"


def run(python: Path, arguments: list[str], folder: Path) -> tuple[int, dict[str, Any]]:
    """Runs a command from the repository root, with everything that it keeps in the folder, and ends all that it started.

    Returns:
        Its exit status, and the last line that is a JSON object; an empty dict if none is. An engine may have words of its own
        after it: Prefect's server sometimes has, when it is stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    homes = {name: str(folder) for name in ("HOME", "PREFECT_HOME", "DAGSTER_HOME", "TMPDIR")}
    # A file, not a pipe: what a killed process leaves running would hold a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [str(python), *arguments],
            cwd=ROOT,
            env={**os.environ, **QUIET, **homes},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # Not wait(LIMIT), which looks every 50 ms: a cold start would be one of a few round numbers.
        watchdog = threading.Timer(LIMIT, process.kill)
        watchdog.start()
        try:
            process.wait()
        finally:
            watchdog.cancel()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing was left
        output.seek(0)
        lines = output.read().splitlines()
    answer = next((found for line in reversed(lines) if (found := _object(line)) is not None), {})
    if process.returncode not in (0, -signal.SIGKILL):
        print(*lines[-5:], sep="\n", file=sys.stderr)
    return process.returncode, answer


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def timed_run(python: Path, arguments: list[str], folder: Path) -> float | None:
    """Returns the seconds that a whole process takes, or None if it fails."""
    start = perf_counter()
    status, _ = run(python, arguments, folder)
    return perf_counter() - start if status == 0 else None
