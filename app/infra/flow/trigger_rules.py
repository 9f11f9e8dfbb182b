"""When a task starts, given how its upstreams ended: the trigger rules, as Airflow names them, and their verdicts.

Pure: counts in, a verdict out; must not know graphs, tasks or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from .models import StringEnum


class TriggerRule(StringEnum):
    """What a task asks of its upstreams. Members compare equal to their strings, which are those of Apache Airflow.

    An upstream *succeeded*; or it *failed*, which is said here of those that were cancelled, too, and of those that were skipped
    because something upstream of them failed; or it was *skipped*, because it said so itself, or a condition or branch did.
    A task without upstreams runs, whatever its rule.
    """

    ALL_SUCCESS = "all_success"
    """All succeeded."""
    ALL_FAILED = "all_failed"
    """All failed."""
    ALL_DONE = "all_done"
    """All have ended, however: for what cleans up. It does not hide the failure of the run."""
    ALL_SKIPPED = "all_skipped"
    """All were skipped."""
    ONE_SUCCESS = "one_success"
    """One succeeded; the others are not waited for."""
    ONE_FAILED = "one_failed"
    """One failed; the others are not waited for."""
    ONE_DONE = "one_done"
    """One succeeded or failed; the others are not waited for."""
    NONE_FAILED = "none_failed"
    """All have ended, and none failed."""
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    """All have ended, none failed, and one at least succeeded: for what brings branches together."""
    NONE_SKIPPED = "none_skipped"
    """All have ended, and none was skipped."""
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    """All have ended, and one at least succeeded."""
    ALWAYS = "always"
    """It waits for nothing."""


class Verdict(Enum):
    """What a waiting task's upstreams decide for it."""

    WAIT = auto()
    RUN = auto()
    SKIP = auto()
    """It counts as skipped for those that wait for it."""
    SKIP_FAILED = auto()
    """It is skipped because something upstream failed, and counts as failed for those that wait for it."""


WAIT, RUN, SKIP, SKIP_FAILED = Verdict

SUCCEEDED, FAILED, SKIPPED = range(3)
"""What an upstream counts as, once it has ended."""


class Rule:
    """One trigger rule, as data.

    What is certain as soon as one upstream has ended so stands in `at_once`; the rest is decided when all have. So the verdict
    is the same in whatever order they end.

    Args:
        at_once: the first of these decides of which at least one upstream has ended so.
        at_end: likewise, once all have ended ...
        otherwise: ... and this one where none of them decides.
        waits: whether it waits for anything at all.
    """

    __slots__ = ("at_end", "at_once", "otherwise", "waits")

    # By hand: every run needs the table, and a dataclass takes longer to make than all else here.
    def __init__(
        self,
        at_once: tuple[tuple[int, Verdict], ...],
        at_end: tuple[tuple[int, Verdict], ...],
        otherwise: Verdict,
        waits: bool = True,
    ) -> None:
        self.at_once = at_once
        self.at_end = at_end
        self.otherwise = otherwise
        self.waits = waits

    def __repr__(self) -> str:
        return f"<Rule: at once {self.at_once}, at the end {self.at_end}, otherwise {self.otherwise}>"

    @property
    def is_early(self) -> bool:
        """Whether a task may begin by it while upstreams have not ended."""
        return not self.waits or any(verdict is RUN for _, verdict in self.at_once)


RULES: dict[TriggerRule, Rule] = {
    TriggerRule.ALL_SUCCESS: Rule(((FAILED, SKIP_FAILED),), ((SKIPPED, SKIP),), RUN),
    TriggerRule.ALL_FAILED: Rule(((SUCCEEDED, SKIP), (SKIPPED, SKIP)), (), RUN),
    TriggerRule.ALL_DONE: Rule((), (), RUN),
    TriggerRule.ALL_SKIPPED: Rule(((SUCCEEDED, SKIP), (FAILED, SKIP)), (), RUN),
    TriggerRule.ONE_SUCCESS: Rule(((SUCCEEDED, RUN),), ((FAILED, SKIP_FAILED),), SKIP),
    TriggerRule.ONE_FAILED: Rule(((FAILED, RUN),), (), SKIP),
    TriggerRule.ONE_DONE: Rule(((SUCCEEDED, RUN), (FAILED, RUN)), (), SKIP),
    TriggerRule.NONE_FAILED: Rule(((FAILED, SKIP_FAILED),), (), RUN),
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: Rule(((FAILED, SKIP_FAILED),), ((SUCCEEDED, RUN),), SKIP),
    TriggerRule.NONE_SKIPPED: Rule(((SKIPPED, SKIP),), (), RUN),
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: Rule((), ((SUCCEEDED, RUN), (FAILED, SKIP_FAILED)), SKIP),
    TriggerRule.ALWAYS: Rule((), (), RUN, waits=False),
}


def decide(rule: TriggerRule, counts: Sequence[int], pending: int) -> Verdict:
    """What a rule says, asked anew each time an upstream ends. A task without upstreams runs, whatever its rule.

    Args:
        rule: the rule.
        counts: how many upstreams ended as `SUCCEEDED`, `FAILED` and `SKIPPED` so far.
        pending: how many have not ended.
    """
    said = RULES[rule]
    if not said.waits or not (pending or any(counts)):
        return RUN
    for outcome, verdict in said.at_once:
        if counts[outcome]:
            return verdict
    if pending:
        return WAIT
    for outcome, verdict in said.at_end:
        if counts[outcome]:
            return verdict
    return said.otherwise
