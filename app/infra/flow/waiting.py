"""What a task waits for: how its upstreams have ended so far, by which its trigger rule decides; and what a branch chose.

Pure: told of ends, asked for verdicts. Must not know records, runs or who is told what follows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .trigger_rules import RUN, SKIP, SKIP_FAILED, WAIT, TriggerRule, Verdict, decide

if TYPE_CHECKING:
    from .groups import Group

_GATES = (RUN, SKIP_FAILED, SKIP)
"""What the end of the task that is mapped over says, by what it counts as."""


class Waiting:
    """A task that waits by a rule of its own, or has met an upstream that was skipped.

    Args:
        rule: its trigger rule.
        gate_position: where the task stands that it maps over, which the rule does not count; -1 is none.
    """

    __slots__ = ("branches", "counts", "decided", "gate", "gate_position", "pending", "rule")

    def __init__(self, rule: TriggerRule, gate_position: int = -1) -> None:
        self.rule = rule
        self.counts = [0, 0, 0]
        """How many upstreams succeeded, failed, and were skipped."""
        self.pending = 0
        """How many have not ended."""
        self.gate_position = gate_position
        self.gate = RUN if gate_position < 0 else WAIT
        self.branches: frozenset[int] = frozenset()
        """The branches among its upstreams that have not ended. They come first, or all would depend on who is first."""
        self.decided = False
        """Whether it may run: what ends after that makes no difference."""

    def __repr__(self) -> str:
        return f"<Waiting by {self.rule}: {self.counts} ended, {self.pending} pending, gate {self.gate.name}>"

    def told(self, position: int, outcome: int) -> None:
        """An upstream has ended, and counts as that."""
        if self.branches:
            self.branches -= {position}
        if position != self.gate_position:
            self.pending -= 1
            self.counts[outcome] += 1
        elif self.gate is WAIT:
            self.gate = _GATES[outcome]

    def verdict(self) -> Verdict:
        """What they decide, as far as they have ended: the rule, and that there is a list to map over, must both say yes."""
        if self.branches:
            return WAIT
        said = decide(self.rule, self.counts, self.pending)
        if self.gate is RUN or said is SKIP_FAILED:
            return said
        if self.gate is SKIP_FAILED:
            return SKIP_FAILED
        # A gate that is closed by a skip: whether the whole is skipped by a failure, the rule may yet say.
        return WAIT if WAIT in (said, self.gate) else SKIP


def chosen_by(output: str | None, group: Group | None = None) -> list[str]:
    """The ids that a branch chose, by its stored output.

    Args:
        output: an id, a list of ids or nothing.
        group: by whose names it says so, if it was included from another flow.

    Raises:
        ValueError: it is neither of these.
    """
    chosen: Any = None if output is None else json.loads(output)
    if chosen is None:
        return []
    if isinstance(chosen, str):
        chosen = [chosen]
    if isinstance(chosen, list) and all(isinstance(task_id, str) for task_id in chosen):
        return chosen if group is None else [group.id_of(name) for name in chosen]
    raise ValueError("no ids")
