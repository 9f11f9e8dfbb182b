"""Which chain of tasks determined when a run ended: from the last that ended back over the dependency that ended last.

Pure: takes spans with the names of what they depended on, and must not know runs, stores or pages. After
J. E. Kelley, "Critical-Path Planning and Scheduling: Mathematical Basis", 1961, on times that were measured. Never recursive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """When something ran."""

    start: float | None
    """Seconds; None if it never began, as of what was skipped."""
    end: float | None
    """None if it has not ended."""
    needs: Sequence[int] = ()
    """What it depended on."""
    inside: Sequence[int] = ()
    """Of what is made of others: those. The chain goes through them."""
    parent: int | None = None
    """What it is a part of."""


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain."""

    number: int
    """Which span it is."""
    waited: float
    """Seconds from the end of the link before to its start; of the first, from the start of the run."""
    took: float
    """Seconds from its start to its end, retries and what lay between them included."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a link is of the time of its run. All links and the rest at the end are the run's time, each second once."""

    step: Step
    worked: float
    """Seconds in attempts."""
    between: float
    """Seconds from attempt to attempt: the delays before retries."""
    waited: float
    """Seconds before it, in which the run went on."""
    share: float
    """How much of the time in which the run went on it took, from 0 to 1: its work and what lay between."""


@dataclass(frozen=True, slots=True)
class Division:
    """The time of a run, divided among the links of its chain."""

    parts: Sequence[Part]
    rest: float
    """Seconds after the last link."""
    still: float
    """Seconds in which the run stood still, as between two tries of a person: they are no part's."""


def divided(
    steps: Sequence[Step],
    attempts: Callable[[int], Sequence[tuple[str, float, float]]],
    pauses: Sequence[tuple[float, float]],
    length: float,
) -> Division:
    """Divide the time of a run among the links of its chain, so that no second is counted twice.

    Args:
        steps: the chain.
        attempts: of a link, how each of its attempts ended, and its start and end, the first first.
        pauses: the long times in which nothing ran, in their order; no share has them, but for delays before retries.
        length: seconds from the run's beginning to its end.
    """
    found: list[tuple[Step, float, float, float]] = []
    still = reached = 0.0
    for step in steps:
        start, end = reached + step.waited, reached + step.waited + step.took
        waited = max(0.0, step.waited - _shared(pauses, reached, start))
        covered, gone = start, 0.0
        tries = attempts(step.number)
        worked = 0.0 if tries else end - start
        before = ""
        for state, left, right in tries:
            left = min(max(left, covered), end)
            right = min(max(right, left), end)
            if before == "interrupted":
                gone += _shared(pauses, covered, left)
            worked += right - left
            covered, before = right, state
        still += step.waited - waited + gone
        found.append((step, worked, max(0.0, step.took - worked - gone), waited))
        reached = end
    rest = max(0.0, length - reached)
    idle = _shared(pauses, reached, length)
    still += idle
    went_on = length - still
    parts = [
        Part(step, worked, between, waited, min((worked + between) / went_on, 1.0) if went_on > 0 else 0.0)
        for step, worked, between, waited in found
    ]
    return Division(parts, max(0.0, rest - idle), still)


def _shared(pauses: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """How many seconds of the pauses lie between two moments."""
    return sum(max(0.0, min(right, end) - max(left, start)) for left, right in pauses)


def critical_path(spans: Mapping[int, Span], roots: Iterable[int], began: float, ends: float) -> list[Step]:
    """The chain that determined the end, the first link first. Waits and lengths together reach from `began` to its last end.

    Args:
        spans: all of them, by number.
        roots: those on the outermost level.
        began: when the run began, in seconds.
        ends: when the run ended; what has begun and not ended is taken as if it did so then.
    """

    def end_of(number: int) -> float | None:
        span = spans[number]
        return span.end if span.end is not None else ends if span.start is not None else None

    def last(numbers: Iterable[int], before: float) -> int | None:
        """Of those that ended by then, the one that did so last; of several, what ran longest."""
        best: tuple[float, float, int] | None = None
        for number in numbers:
            end = end_of(number)
            if end is not None and end <= before:
                start = spans[number].start
                key = (end, end - (end if start is None else start), -number)
                best = key if best is None or key > best else best
        return None if best is None else -best[2]

    chain: list[int] = []
    seen: set[int] = set()
    at = last((number for number in roots if spans[number].start is not None), float("inf"))
    before = float("inf")
    while at is not None and at not in seen:
        seen.add(at)
        span = spans[at]
        within = last((number for number in span.inside if spans[number].start is not None), before)
        if within is not None and within not in seen:
            at = within
            continue
        if span.start is not None:
            chain.append(at)
            before = min(before, max(span.start, began))
        here: int | None = at
        following: int | None = None
        while here is not None and following is None:
            following = last((number for number in spans[here].needs if number not in seen), before)
            here = spans[here].parent
        at = following
    steps: list[Step] = []
    reached = began
    for number in reversed(chain):
        start, end = spans[number].start, end_of(number)
        if start is None or end is None:
            continue
        start = min(max(start, reached), max(ends, reached))  # a clock that was set back may tell of an end before the start
        end = min(max(end, start), max(ends, start))
        steps.append(Step(number, start - reached, end - start))
        reached = end
    return steps
