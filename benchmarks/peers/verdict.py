"""Whether we are as much faster than the durable peers as we owe: judged at documented settings; those set by hand are told.

Must not know how anything was measured; takes the entries of results.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OURS = "Night Batch"
TIMES = 15
BUDGET = f"at least {TIMES} x the fastest durable peer"
DOCUMENTED = "documented"
BY_HAND = "by hand"


@dataclass(frozen=True)
class Verdict:
    """What a shape's figures come to."""

    ours: float
    """Microseconds per task, as is `theirs`."""
    fastest: str
    """Of the durable peers at documented settings."""
    theirs: float
    rivals: int
    """How many of those there are."""
    by_hand: dict[str, float]
    """How many times as long as ours each durable row takes that was tuned beyond its documentation, fastest first."""

    @property
    def times(self) -> float:
        """How many times faster than the fastest we are."""
        return self.theirs / self.ours

    @property
    def holds(self) -> bool:
        """Whether that is enough."""
        return self.times >= TIMES

    def __str__(self) -> str:
        """The sentence that is shown."""
        told = f"{self.times:.1f} times faster than the fastest of {self.rivals}, {self.fastest}"
        by_hand = "; ".join(f"{name.removesuffix(f', {BY_HAND}')} {times:.1f} x" for name, times in self.by_hand.items())
        return f"{told}; tuned by hand: {by_hand or 'none measured'}"


def verdict(engines: Sequence[dict[str, Any]], shape: str) -> Verdict | None:
    """Judges a shape; None if ours, or every durable peer at documented settings, was not measured on it."""
    took = {
        (each["name"], each["settings"]): float(each["us_per_task"][shape])
        for each in engines
        if each["us_per_task"].get(shape) and (each["durable"] or each["name"] == OURS)
    }
    ours = took.pop((OURS, DOCUMENTED), None)
    documented = {name: theirs for (name, settings), theirs in took.items() if settings == DOCUMENTED}
    if ours is None or not documented:
        return None
    fastest = min(documented, key=documented.__getitem__)
    by_hand = sorted((theirs / ours, name) for (name, settings), theirs in took.items() if settings == BY_HAND)
    return Verdict(ours, fastest, documented[fastest], len(documented), {name: times for times, name in by_hand})
