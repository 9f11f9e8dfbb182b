"""The timeline of a run: rows of bars on an axis whose long pauses are cut out, and which rows there is room for.

Pure: takes seconds and gives fractions of the width. Must not know runs, stores or pages.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST_PAUSES = 6
"""So many pauses are cut out, the longest of them."""
LEAST_PAUSE = 1.0
"""Seconds; a shorter time is no pause to people, however short the run is."""
PAUSE_WIDTH = 0.035
"""How much of the width a pause takes that is cut out."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that took a time."""

    kind: str
    """`attempt`, `delay` (between two attempts) or `wait` (ready, but not started)."""
    start: float
    end: float
    state: str = ""
    """Of an attempt, how it ended."""
    number: int = 0
    """Of an attempt, which one it was."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which nothing ran, cut out of the axis."""

    start: float
    end: float


class Axis:
    """Where a moment lies, from 0 to 1.

    Args:
        start: the moment on the left, in seconds.
        end: that on the right.
        busy: when something ran. A time without is cut out if it is longer than a quarter of all the others together.
    """

    def __init__(self, start: float, end: float, busy: Iterable[tuple[float, float]] = ()) -> None:
        self.start = start
        self.end = end if end > start else start + 1e-6
        self.pauses = list(_pauses(self.start, self.end, busy))
        shown = (self.end - self.start) - sum(pause.end - pause.start for pause in self.pauses)
        width = 1.0 - PAUSE_WIDTH * len(self.pauses)
        self.scale = width / shown if shown > 0 else 0.0
        self._moments: list[float] = [self.start]
        self._places: list[float] = [0.0]
        for pause in self.pauses:
            place = self._places[-1] + (pause.start - self._moments[-1]) * self.scale
            self._moments += [pause.start, pause.end]
            self._places += [place, place + PAUSE_WIDTH]
        self._moments.append(self.end)
        self._places.append(1.0)

    def place(self, moment: float) -> float:
        """Where a moment lies: 0 is the left end, 1 the right one."""
        moment = min(max(moment, self.start), self.end)
        index = min(max(bisect_right(self._moments, moment) - 1, 0), len(self._moments) - 2)
        left, right = self._moments[index], self._moments[index + 1]
        share = (moment - left) / (right - left) if right > left else 0.0
        return self._places[index] + share * (self._places[index + 1] - self._places[index])

    def ticks(self, about: int = 8) -> list[float]:
        """Moments to write at the axis, at most about so many: round numbers of seconds since the start, none in a pause."""
        step = nice_step(1.0 / (self.scale * about)) if self.scale else self.end - self.start
        found: list[float] = []
        lefts = [self.start, *(pause.end for pause in self.pauses)]
        rights = [*(pause.start for pause in self.pauses), self.end]
        for left, right in zip(lefts, rights):
            index = math.ceil((left - self.start) / step - 1e-9)
            while self.start + index * step <= right + 1e-9 and len(found) < 4 * about:
                found.append(self.start + index * step)
                index += 1
        return found


def nice_step(least: float) -> float:
    """The round length of time that is at least so long: below a second 1, 2 or 5 times a power of ten, else as clocks do."""
    if least <= 0:
        return 1.0
    if least > 10 * _STEPS[-1]:
        return 86400.0 * nice_round(least / 86400)
    if least > _STEPS[-1]:
        return math.ceil(least / _STEPS[-1]) * _STEPS[-1]
    if least > 0.5:
        return next(step for step in _STEPS if step >= least)
    return nice_round(least)


def nice_round(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same times without overlaps, in their order."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _pauses(start: float, end: float, busy: Iterable[tuple[float, float]]) -> list[Pause]:
    within = merged((max(left, start), min(right, end)) for left, right in busy if right >= start and left <= end)
    if not within:
        return []
    gaps = [Pause(left[1], right[0]) for left, right in pairwise(within)]
    if end > within[-1][1]:
        gaps.append(Pause(within[-1][1], end))
    if within[0][0] > start:
        gaps.insert(0, Pause(start, within[0][0]))
    longest = heapq.nlargest(MOST_PAUSES, gaps, key=lambda gap: gap.end - gap.start)
    taken: list[Pause] = []
    rest = end - start
    for gap in longest:
        length = gap.end - gap.start
        if length < LEAST_PAUSE or length <= 0.2 * rest:  # a fifth of all, which is a quarter of the others
            break
        taken.append(gap)
        rest -= length
    return sorted(taken, key=lambda gap: gap.start)


def bars_of(ready: float | None, attempts: Sequence[tuple[int, str, float, float]], due: float | None = None) -> list[Bar]:
    """The bars of one task.

    Args:
        ready: when it could have started; None if that is not known.
        attempts: of each its number, how it ended, its start and its end, the first first.
        due: when the next attempt is due, of a task that waits for one.
    """
    bars: list[Bar] = []
    before: tuple[int, str, float, float] | None = None
    for number, state, start, end in attempts:
        if before is None:
            if ready is not None and ready < start:
                bars.append(Bar("wait", ready, start))
        elif before[3] < start and before[1] in ("failed", "interrupted"):
            bars.append(Bar("delay", before[3], start, before[1]))
        bars.append(Bar("attempt", start, max(start, end), state, number))
        before = (number, state, start, end)
    if before is not None and due is not None and before[3] < due:
        bars.append(Bar("delay", before[3], due, before[1]))
    return bars


def density(spans: Iterable[tuple[float, float]], axis: Axis, buckets: int = 200) -> list[int]:
    """How many of many ran at once, at most, in each of so many equal parts of the axis."""
    rises = [0] * (buckets + 1)
    for start, end in spans:
        first = min(int(axis.place(start) * buckets), buckets - 1)
        last = min(int(axis.place(end) * buckets), buckets - 1)
        rises[first] += 1
        rises[last + 1] -= 1
    level, found = 0, list[int]()
    for rise in rises[:buckets]:
        level += rise
        found.append(level)
    return found


def chosen(weights: Sequence[tuple[int, float]], parents: Sequence[int | None], most: int) -> set[int]:
    """Which rows are shown where there are too many: those of the greatest weight, with all that they stand below.

    Args:
        weights: of each row how it ranks (the smaller number first) and how long it took.
        parents: of each row the row that it stands below.
        most: so many rows.
    """
    if len(weights) <= most:
        return set(range(len(weights)))
    taken: set[int] = set()
    for number in sorted(range(len(weights)), key=lambda row: (weights[row][0], -weights[row][1], row)):
        way: list[int] = []
        at: int | None = number
        while at is not None and at not in taken:
            way.append(at)
            at = parents[at]
        if len(taken) + len(way) > most:
            if len(taken) >= most:
                break
            continue
        taken.update(way)
    return taken
