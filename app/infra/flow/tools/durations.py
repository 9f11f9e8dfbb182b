"""What earlier runs tell of how long tasks take, how often they succeed, and how long a run that goes on has still to go.

Takes the records of runs and gives numbers; `expected_durations` and `statistics_of_flow` ask a store for them, and no more.
Must not know how any of it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from .. import ExecutionState, Store, StoreError, TaskRecord, WorkflowRun
from .units import between

ITEM = "[]"
"""What stands behind the name of a mapped task where all its items are meant: `parse[]`."""
MOST_ROWS = 20_000
"""Tasks that are read for an expectation."""
MOST_ROWS_FOR_STATISTICS = 500_000
LEAST_PACE, MOST_PACE = 0.5, 4.0
"""How much faster, or slower, than before a run is taken to be."""


@dataclass(frozen=True)
class Sample:
    """One task of one run."""

    task: str
    """Its id; of an item `parse[]`."""
    state: ExecutionState
    seconds: float | None
    """How long its latest attempt took, if that is known."""
    attempts: int


@dataclass(frozen=True)
class TaskStatistics:
    """One task, or all items of one mapped task, over many runs."""

    task: str
    count: int
    """How often there was one: once in each run, or once for each item."""
    success: int
    failed: int
    cancelled: int
    skipped: int
    unfinished: int
    attempts: int
    """All together."""
    retries: int
    """How many of these were not the first ones."""
    mean: float | None
    """Seconds; as all that follow, of the latest attempts of those that succeeded. None if none did."""
    p50: float | None
    p95: float | None
    longest: float | None
    total: float
    """Seconds of all of them together."""

    @property
    def success_rate(self) -> float | None:
        """How many of those that were tried succeeded, from 0 to 1. None if none was tried to its end."""
        ended = self.success + self.failed + self.cancelled
        return self.success / ended if ended else None


@dataclass(frozen=True)
class FlowStatistics:
    """A flow over many runs."""

    flow_name: str
    runs: int
    success: int
    failed: int
    cancelled: int
    unfinished: int
    mean: float | None
    """Seconds, from the beginning of a run to its end; as all that follow, of those runs that succeeded."""
    p50: float | None
    p95: float | None
    longest: float | None
    tasks: tuple[TaskStatistics, ...] = ()
    """In the order of the latest run."""
    read: int = 0
    """So many of the runs were looked into for their tasks."""

    @property
    def success_rate(self) -> float | None:
        """How many of the runs that ended succeeded, from 0 to 1. None if none ended."""
        ended = self.success + self.failed + self.cancelled
        return self.success / ended if ended else None


@dataclass(frozen=True)
class Expectation:
    """What a run of a flow may be expected to take, by earlier ones that succeeded."""

    total: float | None = None
    """Seconds of a whole run, the middle one of the earlier; None where there is none."""
    by_task: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each task's successful attempt, on average; those of items as `parse[]`."""
    starts: Mapping[str, float] = field(default_factory=dict)
    """When each task began, in seconds since the beginning of a run; not those of items."""
    ends: Sequence[float] = ()
    """When one task after the other had ended, in seconds since the beginning; items each for itself, and not their wholes."""

    def remaining(
        self, done: int, of: int, elapsed: float | None = None, running: Mapping[str, float] | None = None
    ) -> float | None:
        """How many seconds a run has still to go; None where there is nothing to tell it by.

        It looks up at which moment of the earlier run as many tasks had ended, and what was still to come then. Tasks that run
        longer than that one has left are waited for. If the run is slower, or faster, than the earlier one was up to there, so it
        is taken to go on.

        Args:
            done: how many tasks have ended; items of maps each for itself.
            of: how many tasks there are; the items of a map that does not have its list yet are taken from the earlier run.
            elapsed: for how many seconds the run has been going on.
            running: the tasks under way, and for how many seconds each has been.
        """
        if self.total is None:
            return None
        if done >= of > 0:
            return 0.0
        under_way = running or {}
        reached = self._reached(done / max(of, len(self.ends), 1), under_way)
        pace = 1.0
        if elapsed is not None and reached > self.total / 20:
            pace = min(MOST_PACE, max(LEAST_PACE, elapsed / reached))
        left = (self.total - reached) * pace
        for task, seconds in under_way.items():
            expected = self.by_task.get(task_name(task))
            if expected is not None:
                left = max(left, expected - seconds)
        return max(0.0, left)

    def _reached(self, fraction: float, running: Mapping[str, float]) -> float:
        """At which moment of the earlier run it was as far."""
        ended = min(int(fraction * len(self.ends) + 1e-9), len(self.ends))
        here = self.ends[ended - 1] if ended else 0.0
        following = self.ends[ended] if ended < len(self.ends) else self.total or here
        for task, seconds in running.items():
            start = self.starts.get(task)
            if start is not None:
                here = max(here, min(following, start + min(seconds, self.by_task.get(task, seconds))))
        return here


def task_name(task_id: str) -> str:
    """Under which name a task's durations are kept: `parse[]` for `parse[3]`."""
    whole, bracket, _ = task_id.partition("[")
    return whole + ITEM if bracket and whole and task_id.endswith("]") else task_id


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which such a share of the values lies; between two of them by how near it is to each.

    Args:
        ordered: the values, in order.
        share: from 0 to 1.
    """
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def samples_of(tasks: Iterable[TaskRecord], declared: frozenset[str] | None = None) -> list[Sample]:
    """What a run's tasks tell.

    Args:
        tasks: their records.
        declared: the tasks of the run's graph. What is among them is no item, whatever it is called.
    """
    return [
        Sample(
            task.task_id if declared is not None and task.task_id in declared else task_name(task.task_id),
            task.state,
            None if task.started is None or task.ended is None else max(0.0, (task.ended - task.started) / 1e6),
            task.attempts,
        )
        for task in tasks
    ]


def task_statistics(samples: Iterable[Sample]) -> dict[str, TaskStatistics]:
    """Each task's numbers, in the order in which the tasks are first seen."""
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    return {task: _of_task(task, found) for task, found in by_task.items()}


def _of_task(task: str, samples: Sequence[Sample]) -> TaskStatistics:
    states = [sample.state for sample in samples]
    success, failed, cancelled, skipped = (
        states.count(state) for state in (_SUCCESS, ExecutionState.FAILED, ExecutionState.CANCELLED, ExecutionState.SKIPPED)
    )
    times = sorted(sample.seconds for sample in samples if sample.state is _SUCCESS and sample.seconds is not None)
    return TaskStatistics(
        task,
        len(samples),
        success,
        failed,
        cancelled,
        skipped,
        unfinished=len(samples) - success - failed - cancelled - skipped,
        attempts=sum(sample.attempts for sample in samples),
        retries=sum(max(0, sample.attempts - 1) for sample in samples),
        mean=sum(times) / len(times) if times else None,
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        longest=times[-1] if times else None,
        total=sum(times),
    )


_SUCCESS = ExecutionState.SUCCESS


def flow_statistics(
    flow_name: str, runs: Sequence[WorkflowRun], tasks: Iterable[TaskStatistics] = (), read: int = 0
) -> FlowStatistics:
    """A flow's numbers, by its runs without their tasks."""
    states = [run.state for run in runs]
    success, failed, cancelled = (states.count(state) for state in (_SUCCESS, ExecutionState.FAILED, ExecutionState.CANCELLED))
    times = sorted(seconds for run in runs if run.state is _SUCCESS and (seconds := _seconds(run)) is not None)
    return FlowStatistics(
        flow_name,
        len(runs),
        success,
        failed,
        cancelled,
        unfinished=len(runs) - success - failed - cancelled,
        mean=sum(times) / len(times) if times else None,
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        longest=times[-1] if times else None,
        tasks=tuple(tasks),
        read=read,
    )


def _seconds(run: WorkflowRun) -> float | None:
    seconds = between(run.start_date, run.end_date)
    return None if seconds is None else max(0.0, seconds)


def expectation(runs: Sequence[tuple[WorkflowRun, Sequence[TaskRecord]]]) -> Expectation:
    """What is to be expected by earlier runs, the latest first, each with its tasks."""
    timed = [(run, tasks, seconds) for run, tasks in runs if (seconds := _seconds(run)) is not None]
    if not timed:
        return Expectation()
    total = median(seconds for _, _, seconds in timed)
    samples = [sample for run, tasks, _ in timed for sample in samples_of(tasks, frozenset(run.graph))]
    by_task = {task: found.mean for task, found in task_statistics(samples).items() if found.mean is not None}
    latest, tasks, seconds = timed[0]
    starts, ends = _timeline(latest, tasks, total / seconds if seconds else 1.0)
    return Expectation(total, by_task, starts, ends)


def _timeline(run: WorkflowRun, tasks: Sequence[TaskRecord], scale: float) -> tuple[dict[str, float], tuple[float, ...]]:
    """When tasks began and ended in a run, as if it had taken so many times as long."""
    declared = frozenset(run.graph)
    items = [task_name(task.task_id) for task in tasks if task.task_id not in declared]
    wholes = {name.removesuffix(ITEM) for name in items if name.endswith(ITEM)}
    began = min((task.started for task in tasks if task.started is not None), default=None)
    if began is None:
        return {}, ()
    starts = {
        task.task_id: (task.started - began) / 1e6 * scale
        for task in tasks
        if task.started is not None and (task.task_id in declared or not task.task_id.endswith("]"))
    }
    ends = sorted(
        max(0.0, (task.ended - began) / 1e6 * scale) for task in tasks if task.ended is not None and task.task_id not in wholes
    )
    return starts, tuple(ends)


# --- what a store tells ---


def expected_durations(store: Store, flow_name: str, *, before: str | None = None, runs: int = 5) -> Expectation:
    """What a run of a flow may be expected to take, by the latest ones that succeeded.

    It reads at most `runs` runs, and no further one once it has read 20,000 tasks. What cannot be read tells nothing.

    Args:
        store: where the runs are.
        flow_name: the flow.
        before: a run that is not to be among them, nor any that was made after it: that which the expectation is for.
        runs: so many at most.
    """
    found: list[tuple[WorkflowRun, Sequence[TaskRecord]]] = []
    try:
        made = store.read_run(before).created if before is not None and store.exists(before) else None
        chosen = store.get_all_runs(
            include_tasks=False, state=_SUCCESS, flow_name=flow_name, limit=runs if made is None else 10 * runs
        )
        if made is not None:
            chosen = [run for run in chosen if run.id != before and store.read_run(run.id).created <= made]
        rows = 0
        for run in chosen[:runs]:
            if rows >= MOST_ROWS:
                break
            tasks = store.read_tasks(run.id)
            rows += len(tasks)
            found.append((run, tasks))
    except StoreError:
        pass  # an estimate is no reason to fail
    return expectation(found)


def statistics_of_flow(store: Store, flow_name: str, runs: int) -> FlowStatistics:
    """A flow over its latest runs. Of very large ones fewer are looked into; `read` says how many.

    Args:
        store: where the runs are.
        flow_name: the flow.
        runs: so many of its runs.
    """
    chosen = store.get_all_runs(include_tasks=False, flow_name=flow_name, limit=runs)
    samples: list[Sample] = []
    read = 0
    for run in chosen:
        if len(samples) >= MOST_ROWS_FOR_STATISTICS:
            break
        samples += samples_of(store.read_tasks(run.id), frozenset(run.graph))
        read += 1
    return flow_statistics(flow_name, chosen, _items_behind(task_statistics(samples)), read)


def _items_behind(tasks: Mapping[str, TaskStatistics]) -> list[TaskStatistics]:
    """The items of each mapped task right behind it."""
    told: list[TaskStatistics] = []
    for name, task in tasks.items():
        items = tasks.get(name + ITEM)
        if not (name.endswith(ITEM) and name.removesuffix(ITEM) in tasks):
            told += [task] if items is None else [task, items]
    return told
