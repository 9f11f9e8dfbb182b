"""How a line is measured and told: interleaved rounds, medians, and one verdict.

Must not know what is measured.

A ratio is the median of the rounds' own ratios, each taken from two measurements that follow one another at once: a machine
that gets slower or faster in the course of the rounds does so for both. The two figures beside it are medians of their own, so
that their quotient may differ from the ratio a little.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Options:
    """What the command line said."""

    quick: bool = False
    """Fewer tasks and rounds; a line then fails only beyond twice its budget."""
    rounds: int = 5
    growth_max: int = 1_000_000
    """The most tasks of a growth run."""


@dataclass(frozen=True)
class Line:
    """One line of the table: what is owed, and what was found."""

    name: str
    budget: str
    """What is owed, in words."""
    unit: str
    """Of both figures."""
    ours: float | None
    """None: it could not be measured, and `note` says why."""
    yardstick_name: str = ""
    yardstick: float | None = None
    ratio: float | None = None
    """Ours by the yardstick's."""
    limit: float | None = None
    """What the ratio, or ours where there is none, may come to; None for a figure that is only told."""
    note: str = ""
    spread: tuple[float, float] | None = None
    """Between which two ratios the middle half of the rounds lies: wide on a machine that has other things to do."""

    def holds(self, quick: bool) -> bool | None:
        """Whether the budget is kept; None if nothing is owed, or nothing was measured.

        Args:
            quick: whether up to twice the budget is let pass.
        """
        held_against_it = self.ours if self.ratio is None else self.ratio
        if self.limit is None or held_against_it is None:
            return None
        return held_against_it <= self.limit * (2 if quick else 1)


@dataclass(frozen=True)
class Group:
    """Lines that are measured together.

    Args:
        name: what `--only` calls all of them.
        lines: their names.
        run: measures those of them that were chosen.
    """

    name: str
    lines: Sequence[str]
    run: Callable[[Options, Set[str]], Iterator[Line]]


def interleaved(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each in turn, round by round; every second round goes the other way, so that none is always the first.

    One round comes before them that does not count: it warms what the first one would find cold.
    """
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        names = list(measures) if number % 2 else list(measures)[::-1]
        for name in names:
            took = measures[name]()
            if number:
                found[name].append(took)
    return found


def compared(
    name: str,
    budget: str,
    limit: float,
    ours: Sequence[float],
    yardstick_name: str,
    yardstick: Sequence[float],
    unit: str = "us/task",
    note: str = "",
) -> Line:
    """The line of a ratio, given what each round found."""
    ratios = [mine / theirs for mine, theirs in zip(ours, yardstick, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    beside = statistics.median(yardstick)
    return Line(name, budget, unit, statistics.median(ours), yardstick_name, beside, middle, limit, note, (low, high))


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """An empty folder on the disk, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="night-batch-benchmark-") as folder:
        yield Path(folder)


def in_fresh_folder(measure: Callable[[Path], float], scale: float = 1.0) -> Callable[[], float]:
    """The measurement, made in a new folder each time.

    Args:
        measure: takes the folder.
        scale: what the result is multiplied by.
    """

    def measured() -> float:
        with fresh_folder() as folder:
            return measure(folder) * scale

    return measured


def in_fresh_process(module: str, *arguments: object) -> dict[str, Any]:
    """What a module of this package prints as JSON, run as a process of its own.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    finished = python("-m", f"benchmarks.{module}", *map(str, arguments))
    if finished.returncode:
        raise RuntimeError(f"benchmarks.{module} {arguments} ended with {finished.returncode}:\n{finished.stderr}")
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this very Python, from the repository's root."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else the engine is compiled anew by each process, and the library is not
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
