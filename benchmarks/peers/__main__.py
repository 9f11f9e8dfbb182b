"""`python -m benchmarks.peers`: makes the peers' environments, runs the workloads in them beside ours, shows what came out.

Must not know any engine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sqlite3
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from . import environments
from .measuring import KILLED_AT
from .rows import OURS, PEERS, ROWS, Row
from .shapes import SHAPES
from .verdict import BUDGET, verdict

BUSY = 2.5
"""The load average from which on somebody else's work disturbs."""
KILLS = 3
STARTS = 3
"""In how many rounds imports and cold starts are measured: no budget is judged on them, and Prefect's take long."""
COLUMNS = [*SHAPES, "rss_mb", "import_ms", "cold_start_ms"]
IMPORT = """
import json, time
start = time.perf_counter()
{}
print(json.dumps({{"import_ms": (time.perf_counter() - start) * 1000}}))
"""
VERSION = "import json, importlib.metadata as m; print(json.dumps({{'version': m.version({!r})}}))"
OUR_VERSION = "import json, app.infra.flow as flow; print(json.dumps({'version': flow.__version__}))"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="The same workloads on other engines.")
    parser.add_argument("command", choices=["install", "run"])
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"of {', '.join(PEERS)}; all if none is named")
    parser.add_argument("--envs", type=Path, default=environments.ROOT / ".peers", help="where the environments are")
    parser.add_argument("--tasks", type=int, default=1000, help="tasks in a run; some peers take at most 100")
    parser.add_argument("--rounds", type=int, default=5, help="at least one")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if options.rounds < 1:
        parser.error("at least one round")
    peers = options.peers or PEERS
    if options.command == "install":
        for peer in peers:
            print(f"installing {peer}", flush=True)
            environments.install(peer, options.envs)
        return
    rows = [row for row in ROWS if row is OURS or row.peer in peers]
    missing = [row.peer for row in rows if not environments.python_of(row.peer, options.envs).exists()]
    if missing:
        parser.error(f"not installed: {', '.join(dict.fromkeys(missing))}; run: python -m benchmarks.peers install")
    results: dict[str, Any] = {}
    for results in measure(rows, options.envs, options.tasks, options.rounds):
        # After each round, so that a run that is cut short leaves the rounds that it made.
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n")
    show(results)


def measure(rows: list[Row], envs: Path, tasks: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Runs all rows once in each round, so that a slow minute of the machine hits all of them; yields the medians after each."""
    load = load_average()
    facts = {row.name: known_beforehand(row, envs, tasks) for row in rows}
    found: dict[str, dict[str, list[float]]] = {row.name: defaultdict(list) for row in rows}
    for number in range(1, rounds + 1):
        for row in rows:
            print(f"round {number} of {rounds}: {row.name}", file=sys.stderr, flush=True)
            for column, value in one_round(row, envs, min(tasks, row.most_tasks), starts=number <= STARTS).items():
                found[row.name][column].append(value)
        engines = [{**facts[row.name], **medians(found[row.name])} for row in rows]
        yield summary(engines, number, load)


def summary(engines: list[dict[str, Any]], rounds: int, load: float | None) -> dict[str, Any]:
    """Puts the results together: what was measured where, who is how many times as slow as we, and what that comes to."""
    ours = next(each for each in engines if each["name"] == OURS.name)["us_per_task"]
    for each in engines:
        each["times_ours"] = {shape: ratio(each["us_per_task"][shape], ours[shape]) for shape in SHAPES}
    found = {shape: verdict(engines, shape) for shape in SHAPES}
    return {
        "date": dt.date.today().isoformat(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "rounds": rounds,
        "load": {"before": load, "after_the_last_round": load_average(), "busy_before": load is not None and load > BUSY},
        "budget": BUDGET,
        "verdict": {shape: {"holds": each.holds, "text": str(each)} for shape, each in found.items() if each},
        "engines": engines,
    }


def load_average() -> float | None:
    """Returns how many processes wanted to run in the last minute, where that is known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def known_beforehand(row: Row, envs: Path, tasks: int) -> dict[str, Any]:
    """Returns what needs no rounds: the row's settings, its version, and what a kill loses."""
    print(f"killing {row.name}", file=sys.stderr, flush=True)
    lost = lost_by_kill(row, envs)
    return {
        "name": row.name,
        "version": version(row, envs),
        "durable": lost == 0,
        "finished_tasks_lost_by_kill": lost,
        "settings": row.settings,
        "details": row.details,
        "tasks": min(tasks, row.most_tasks),
    }


def medians(found: dict[str, list[float]]) -> dict[str, Any]:
    """Sums the rounds of a row up, each column for itself."""
    middle = {column: round(median(found[column]), 1) if found[column] else None for column in COLUMNS}
    return {
        "us_per_task": {shape: middle.pop(shape) for shape in SHAPES},
        **middle,
        "rounds_that_counted": min(len(found[shape]) for shape in SHAPES),
    }


def one_round(row: Row, envs: Path, tasks: int, *, starts: bool) -> dict[str, float]:
    """Runs a row's workloads and, if asked for, its import and its cold start, each in a fresh process and a fresh folder."""
    python = environments.python_of(row.peer, envs)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _, answer = environments.run(python, workload(row, "time", Path(folder), tasks), Path(folder))
    if not starts:
        return answer
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _, imports = environments.run(python, ["-c", IMPORT.format(row.imports)], Path(folder))
        answer.update(imports)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        seconds = environments.timed_run(python, workload(row, "one", Path(folder), 1), Path(folder))
        if seconds is not None:
            answer["cold_start_ms"] = seconds * 1000
    return answer


def workload(row: Row, mode: str, folder: Path, tasks: int) -> list[str]:
    """Returns the arguments that start a row's workload script."""
    script = f"benchmarks.peers.{row.peer}_workload"
    arguments = ["-m", script, "--mode", mode, "--variant", row.variant, "--folder", str(folder / "state"), "--tasks", str(tasks)]
    return [*arguments, "--by-hand"] if row.by_hand else arguments


def lost_by_kill(row: Row, envs: Path) -> int | None:
    """Kills a chain of 100 tasks in its 51st and runs it again; returns how many of the 50 finished tasks ran twice.

    The most of three tries, since an engine that writes behind loses something only now and then; None if a try gave no answer.
    """
    python = environments.python_of(row.peer, envs)
    worst = 0
    for _ in range(KILLS):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            environments.run(python, workload(row, "kill", Path(folder), 0), Path(folder))
            _, answer = environments.run(python, workload(row, "resume", Path(folder), 0), Path(folder))
        if "bodies" not in answer:
            return None
        worst = max(worst, answer["bodies"] - (KILLED_AT - 1))
    return worst


def version(row: Row, envs: Path) -> str:
    """Asks the environment which version is installed."""
    ask = OUR_VERSION if row is OURS else VERSION.format(row.distribution or row.peer)
    with tempfile.TemporaryDirectory() as folder:
        _, answer = environments.run(environments.python_of(row.peer, envs), ["-c", ask], Path(folder))
    return str(answer.get("version", "unknown"))


def ratio(theirs: float | None, ours: float | None) -> float | None:
    """Returns how many times ours theirs is, if both were measured."""
    return round(theirs / ours, 2) if theirs and ours else None


def show(results: dict[str, Any]) -> None:
    """Prints the table, in microseconds per task."""
    print(f"{'':30} {'version':>9} {'durable':>8} {'tasks':>6}", *(f"{name:>9} {'x ours':>6}" for name in SHAPES), end=" ")
    print(*(f"{name:>9}" for name in ("import ms", "cold ms", "RSS MB")))
    for each in results["engines"]:
        durable = "yes" if each["durable"] else "no" if each["finished_tasks_lost_by_kill"] is not None else "untold"
        print(f"{each['name']:30} {each['version']:>9} {durable:>8} {each['tasks']:>6}", end=" ")
        print(*(f"{text(each['us_per_task'][shape]):>9} {text(each['times_ours'][shape]):>6}" for shape in SHAPES), end=" ")
        print(*(f"{text(each[column]):>9}" for column in ("import_ms", "cold_start_ms", "rss_mb")))
    for shape, found in results["verdict"].items():
        print(f"{shape}: {found['text']}; {BUDGET}: {'holds' if found['holds'] else 'does not hold'}")
    load = results["load"]
    if load["busy_before"]:
        print(f"The machine was busy before: load {load['before']}.")


def text(value: float | None) -> str:
    """Writes a figure, or a dash for what was not measured."""
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
