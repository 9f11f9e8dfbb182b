"""Runs the attacks in turn until the time is up; ends at the first broken promise, and says how to see it again."""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ATTACKS = ("simulation", "state_machine", "crash_pairs", "power_cuts_json", "power_cuts_sqlite", "processes", "fuzz")
PATIENCE = 300
"""Seconds after which one round of an attack counts as a hang. They take one or two, on an idle machine."""

Attack = Callable[[int, Path], Counter[str]]


class HangError(Exception):
    """An attack that does not end."""


def load(names: tuple[str, ...]) -> dict[str, Attack]:
    """The attacks, but for those whose tools are not installed: that is said, and they are left out."""
    found: dict[str, Attack] = {}
    for name in names:
        try:
            found[name] = importlib.import_module(f"torture.{name}").attack
        except (ImportError, pytest.skip.Exception) as problem:
            print(f"{name} is left out: {problem}")
    return found


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise `HangError` in a block that takes longer."""

    def ring(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise HangError(f"it has not ended after {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before: Any = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Report:
    """What was done, as a table."""

    def __init__(self) -> None:
        self.rounds: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.figures: dict[str, Counter[str]] = {}
        self.broken: dict[str, str] = {}

    def add(self, name: str, seconds: float, figures: Counter[str]) -> None:
        """One more round."""
        self.rounds[name] += 1
        self.seconds[name] += round(seconds * 1000)
        self.figures[name] = self.figures.get(name, Counter()) + figures

    def __str__(self) -> str:
        lines = ["| attack | rounds | seconds | figures | broken promises |", "|---|---:|---:|---|---|"]
        for name, rounds in self.rounds.items():
            told = ", ".join(f"{count:,} {what}" for what, count in self.figures[name].most_common())
            lines.append(f"| {name} | {rounds} | {self.seconds[name] / 1000:.0f} | {told} | {self.broken.get(name, 'none')} |")
        total = sum(self.figures.values(), Counter[str]())
        sums = ("seeds", "crash points tried", "simulated power cuts", "lives of real processes", "fuzz inputs")
        lines.append("")
        lines.append(", ".join([*(f"{total[what]:,} {what}" for what in sums), *self._verdict()]))
        return "\n".join(lines)

    def _verdict(self) -> Iterator[str]:
        # An attack ends at the first of these, so there is never more than one.
        said = " ".join(self.broken.values())
        yield f"{int('lost' in said or 'G3' in said)} acknowledged results lost"
        yield f"{int('G1' in said or 'twice' in said)} finished tasks run again"
        yield f"{int('hang' in said or 'has not ended' in said)} hangs"


def torture(attacks: dict[str, Attack], minutes: float, first: int, rounds: int | None, scratch: Path | None) -> Report:
    """Run the attacks in turn until the time is up, or so many rounds of each, or the first that breaks a promise."""
    report = Report()
    end = time.monotonic() + minutes * 60
    seed = first
    while time.monotonic() < end and (rounds is None or seed < first + rounds):
        for name, attack in attacks.items():
            began = time.monotonic()
            figures: Counter[str] = Counter()
            try:
                with tempfile.TemporaryDirectory(dir=scratch) as folder, at_most(PATIENCE):
                    figures = attack(seed, Path(folder))
            except Exception as error:
                traceback.print_exc()
                report.broken[name] = str(error).splitlines()[0].replace("|", "/") if str(error) else type(error).__name__
                print(f"\n{name}, seed {seed}: see it again with\n    python -m torture --only {name} --seed {seed} --rounds 1\n")
                return report
            finally:
                report.add(name, time.monotonic() - began, figures)
            if time.monotonic() >= end:
                break
        seed += 1
    return report


def main() -> int:
    """Read the command line; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument(
        "--seed", type=int, help="the first seed; one from the clock if left out, so that each torture is a new one"
    )
    parser.add_argument("--rounds", type=int, help="at the most so many of each attack")
    parser.add_argument(
        "--only", action="append", choices=ATTACKS, metavar="NAME", help=f"one of {', '.join(ATTACKS)}; repeatable"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="add the table to this Markdown file")
    options = parser.parse_args()
    logging.getLogger("night_batch").setLevel(logging.CRITICAL)
    seed = int(time.time()) if options.seed is None else options.seed
    memory = Path("/dev/shm")  # where there is one: the attacks that count on a disk simulate it
    report = torture(
        load(tuple(options.only or ATTACKS)), options.minutes, seed, options.rounds, memory if memory.is_dir() else None
    )
    table = f"Seeds from {seed} on, {options.minutes:g} minutes, Python {sys.version.split()[0]}:\n\n{report}\n"
    print(table)
    if options.report is not None:
        with options.report.open("a", encoding="utf-8") as file:
            file.write(f"\n{table}")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
