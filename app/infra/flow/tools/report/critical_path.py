"""Which chain of tasks determined when a run ended: from the last that ended back over the dependency that ended last.

Pure: takes spans with the names of what they depended on, and must not know runs, stores or pages. After
J. E. Kelley, "Critical-Path Planning and Scheduling: Mathematical Basis", 1961, on times that were measured. Never recursive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def critical_path(spans: Mapping[int, Span], roots: Iterable[int], began: float, ends: float) -> list[Step]:
    """The chain that determined the end, the first link first. Waits and lengths together reach from `began` to its last end.

    Args:
        spans: all of them, by number.
        roots: those on the outermost level.
        began: when the run began, in seconds.
        ends: what counts as the end of a span that has begun and not ended: now.
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
        start = max(start, reached)
        end = max(end, start)
        steps.append(Step(number, start - reached, end - start))
        reached = end
    return steps
