"""Decides which runs may be removed from a store. Pure: the time is an argument."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from .errors import InvalidOptionError
from .late_dataclass import dataclass
from .models import TERMINAL_STATES, ExecutionState
from .options import seconds_of
from .records import RunRecord


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """Which runs are to be removed; see `Store.prune`."""

    older_than: int
    """Microseconds since the run's end."""
    keep: int
    states: frozenset[ExecutionState]
    flow_name: str | None


def prune_policy(
    older_than: timedelta | float | None,
    keep: int,
    states: Iterable[ExecutionState | str] | None,
    flow_name: str | None,
) -> PrunePolicy:
    """Check what a user gave and make a policy of it.

    Raises:
        InvalidOptionError: an age or number below 0, or a state in which no run ends.
    """
    seconds = 0.0
    if older_than is not None:
        seconds = seconds_of("older_than", older_than, "a timedelta, or a number of seconds from 0 on", most=1e11)
    if type(keep) is not int or keep < 0:
        raise InvalidOptionError("keep", keep, "a whole number from 0 on")
    wanted = TERMINAL_STATES if states is None else _states(states)
    return PrunePolicy(round(seconds * 1e6), keep, wanted, flow_name)


def _states(states: Iterable[ExecutionState | str]) -> frozenset[ExecutionState]:
    names = [states] if isinstance(states, str) else list(states)
    found: set[ExecutionState] = set()
    for name in names:
        if name not in TERMINAL_STATES:
            ends = ", ".join(sorted(repr(state.value) for state in TERMINAL_STATES))
            raise InvalidOptionError("states", name, f"among the states in which a run ends: {ends}")
        found.add(ExecutionState(name))
    return frozenset(found)


def trees_to_prune(runs: Sequence[RunRecord], policy: PrunePolicy, now: int) -> Iterator[list[str]]:
    """The trees of runs that may go, oldest first: of each, the outermost run's id and then those of all runs under it.

    Args:
        runs: all runs, newest first.
        policy: which are meant.
        now: the time, in microseconds since 1970 UTC.
    """
    known = {run.id for run in runs}
    children: dict[str, list[RunRecord]] = defaultdict(list)
    outermost: list[RunRecord] = []
    for run in runs:
        if run.parent_run_id in known and run.parent_run_id is not None and run.parent_run_id != run.id:
            children[run.parent_run_id].append(run)
        else:
            outermost.append(run)
    kept: dict[str, int] = defaultdict(int)
    chosen: list[list[str]] = []
    for root in outermost:
        if root.state not in policy.states or policy.flow_name not in (None, root.flow_name):
            continue
        kept[root.flow_name] += 1
        if kept[root.flow_name] <= policy.keep:
            continue
        tree = [root]
        for run in tree:  # grows while it is walked
            tree.extend(children.get(run.id, ()))
        ended = [run.ended for run in tree if run.state in TERMINAL_STATES]
        if len(ended) == len(tree) and max(moment or 0 for moment in ended) <= now - policy.older_than:
            chosen.append([run.id for run in tree])
    return reversed(chosen)
