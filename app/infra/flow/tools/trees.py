"""A run as a tree of lines: its tasks, the items of its maps and what is inside its subflows, as a person reads them.

Pure: takes a run and ways to the others, gives lines. Must not know stores, flows, streams or the time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from .. import (
    Attempt,
    AttemptResult,
    ExecutionState,
    GraphNode,
    LogEntry,
    RunNotFoundError,
    StoreError,
    TaskInstance,
    WorkflowRun,
)
from .terminal import Style, cut, padded, safe, safe_lines, width_of
from .units import between, counted, masked, moment_text, span_text, value_text

Loader = Callable[[str], WorkflowRun]
"""Gives a run by its id: `store.load`."""
AttemptsOf = Callable[[str], list[Attempt]]
"""Gives all attempts of a run by its id: `store.list_attempts`."""

NOT_THERE = (StoreError, RunNotFoundError)
"""Why a run cannot be shown: it was removed, or is damaged."""

MOST_SUCCEEDED = 3
"""Items of a folded map that succeeded, where none of them did anything else."""
MOST_TASKS = 200
"""Tasks of one run that are shown, where items are folded too; of more, those that went wrong or are under way."""
FEW_TASKS = 20
"""So many are shown then even if nothing went wrong."""
MOST_ROWS = 2_000
"""Beyond so many lines subflows that succeeded are no longer opened."""
MOST_INDENTS = 12
"""Levels that are told apart by how far they are indented; deeper ones by a number."""
MOST_LOG_LINES = 200
MOST_ATTEMPTS = 10
MOST_FAILURES = 10
MOST_TRACEBACKS = 10
MOST_LINES = 3
"""Lines that one value, or one line of a log, takes under its task."""
WIDEST_NAME = 40

BELOW = 6
"""Columns before what stands under a row, and behind its stem: the margin, and what attempts are set in by."""

_ORDER = ("success", "failed", "cancelled", "interrupted", "running", "scheduled", "skipped", "none")
"""In which order counts are told."""
_WEIGHT = {"failed": 0, "interrupted": 1, "running": 2, "cancelled": 3, "scheduled": 4, "skipped": 5, "success": 6}
"""Which are shown first where not all are."""


@dataclass
class _Row:
    """One line of the tree, before the widths of its columns are known."""

    stem: str
    state: str
    name: str
    span: str = ""
    remark: str = ""
    below: list[str] = field(default_factory=list)
    """Lines that belong to it, ready to print but for their stem."""
    stem_below: str = ""


@dataclass
class _Entry:
    """A task that is to be shown with what is below it, or words about those that are not."""

    task: TaskInstance | None
    words: str = ""
    node: GraphNode | None = None
    items: list[TaskInstance] = field(default_factory=list)
    """Of a mapped task."""
    waits_for: tuple[str, ...] = ()


@dataclass
class _Level:
    """Entries of one run, or the items of one mapped task; those that are not shown yet."""

    entries: list[_Entry]
    stem: str
    indents: int
    depth: int
    """In how many subflows it is."""
    run_id: str
    opens: bool = True
    """Whether it is a level of its own run, not of items."""
    at: int = 0


def tree_lines(
    run: WorkflowRun,
    load: Loader,
    style: Style,
    *,
    columns: int = 100,
    attempts: AttemptsOf | None = None,
    items: int | None = 10,
    depth: int | None = None,
    logs: bool = False,
    values: bool = False,
    tracebacks: int = 0,
    now: datetime | None = None,
    driven: bool = True,
    hint: str = "",
) -> list[str]:
    """A run and everything below it, a line each; the first is that of the run itself.

    Of each task: a sign, its id, its state where that is not success, how long its latest attempt took, how many attempts it had,
    and why it failed, was skipped or waits. What users typed is in it so that it cannot steer a terminal.

    Args:
        run: the run.
        load: gives the runs of subflows; one that is not there is said to be missing.
        style: how to write: colours, and signs that the stream can take.
        columns: how wide a line may be.
        attempts: gives the attempts of a run; without it their number is what the task itself knows.
        items: so many of each mapped task, failed ones first, and a few hundred tasks of each run; None is all of all.
        depth: so many levels of subflows are opened; None is all.
        logs: with what the tasks wrote, and with their attempts one by one where there were several.
        values: with what the tasks returned; what looks like a secret is masked.
        tracebacks: so many last lines of each failed task's traceback; -1 is all.
        now: the time, for what is under way.
        driven: False if nobody drives the run: what seems to run was cut off then.
        hint: how to see what is folded.
    """
    return _Tree(load, style, columns, attempts, items, depth, logs, values, tracebacks, now, driven, hint).lines(run)


def run_summary(run: WorkflowRun, style: Style, columns: int = 100, *, load: Loader | None = None) -> list[str]:
    """What came of a run in a few lines: its state, how many tasks stand where, and why those failed that did.

    Args:
        run: the run.
        style: how to write.
        columns: how wide a line may be.
        load: gives the runs of subflows, so that the failures inside them are told rather than that of the whole.
    """
    wholes, plain = _sorted_out(run)
    told = [_head(run, style, None, True), *_counts_lines(plain, wholes, style, True, columns)]
    failures = _failures(run, load)
    for path, task in failures[:MOST_FAILURES]:
        state = task.state.value
        words = f"{style.fitting('—', '-')} {_reason(task) or 'no reason was recorded'}"
        told.append(_cut_line(f"  {style.sign(state)} ", safe(path), words, columns, style, state))
    if len(failures) > MOST_FAILURES:
        told.append(style.paint(f"  {style.fitting('…', '...')} {len(failures) - MOST_FAILURES:,} more did not succeed", "dim"))
    return told


def counts_text(states: Iterable[str], style: Style) -> str:
    """`10 success, 1 failed`: how many of what, in a fixed order, in colours."""
    counts = Counter(states)
    return ", ".join(style.state(state, f"{counts[state]:,} {state}") for state in _ORDER if counts[state])


def item_of(task_id: str, graph: Mapping[str, GraphNode], tasks: Mapping[str, object]) -> str | None:
    """The mapped task that a task of a run is an item of; None where it is none.

    Args:
        task_id: the task.
        graph: the run's graph; where nobody said what that is, only its tasks' names can tell.
        tasks: the run's tasks.
    """
    if not task_id.endswith("]") or task_id in graph:
        return None
    whole, bracket, _ = task_id.partition("[")
    if not bracket or whole not in tasks:
        return None
    node = graph.get(whole)
    return whole if node is None or node.map_over is not None else None


def _sorted_out(run: WorkflowRun) -> tuple[dict[str, list[TaskInstance]], dict[str, TaskInstance]]:
    """The items of each mapped task, and all other tasks."""
    graph, wholes = dict(run.graph), dict[str, list[TaskInstance]]()
    plain: dict[str, TaskInstance] = {}
    for task_id, task in run.tasks.items():
        whole = item_of(task_id, graph, run.tasks)
        if whole is None:
            plain[task_id] = task
        else:
            wholes.setdefault(whole, []).append(task)
    return wholes, plain


def _counts_lines(
    plain: Mapping[str, TaskInstance], wholes: Mapping[str, list[TaskInstance]], style: Style, driven: bool, columns: int
) -> list[str]:
    """How many tasks and items stand where: in one line if there is room."""
    items = [item for listed in wholes.values() for item in listed]
    told = [
        f"{counted(len(tasks), what)}: {counts_text((_state(task, driven) for task in tasks), style)}"
        for what, tasks in (("task", list(plain.values())), ("item", items))
        if tasks
    ]
    line = f"  {'; '.join(told) or 'no tasks'}"
    return [line] if _width_painted(line) <= columns or not items else [f"  {part}" for part in told]


def _state(task: TaskInstance | WorkflowRun, driven: bool) -> str:
    """What a state is called: what seems to run was cut off, where nobody drives it, and so was a run that has begun."""
    is_begun = task.state is ExecutionState.SCHEDULED and isinstance(task, WorkflowRun) and task.start_date is not None
    return "interrupted" if not driven and (is_begun or task.state is ExecutionState.RUNNING) else task.state.value


def _head(run: WorkflowRun, style: Style, now: datetime | None, driven: bool) -> str:
    """The line of a run: where it stands, what it is called, how long it took and when it began."""
    state = _state(run, driven)
    parts = [f"{style.sign(state)} {style.paint(safe(run.flow_name), 'bold')}  {safe(run.id)}", style.state(state)]
    ended = run.end_date if ExecutionState.is_terminal(run.state) else now
    if run.start_date is not None:
        seconds = between(run.start_date, ended) if driven or run.end_date else None
        parts += [span_text(seconds)] * (seconds is not None)
        parts.append(style.paint(f"began {moment_text(run.start_date)}", "dim"))
    return "  ".join(parts)


def _failures(run: WorkflowRun, load: Loader | None) -> list[tuple[str, TaskInstance]]:
    """What failed or was cancelled, by dotted path: of maps the items, of subflows what is inside, rather than the whole."""
    found: list[tuple[str, TaskInstance]] = []
    waiting = [("", run)]
    seen = {run.id}
    while waiting:
        prefix, inside = waiting.pop()
        wholes, plain = _sorted_out(inside)
        bad = {task_id: task for task_id, task in plain.items() if _is_bad(task)}
        for whole, listed in wholes.items():
            failed = [item for item in listed if _is_bad(item)]
            if failed:
                bad.pop(whole, None)
                bad.update((item.task_id, item) for item in failed)
        deeper: list[tuple[str, WorkflowRun]] = []
        for task_id, task in bad.items():
            child = task.child_run_id
            if load is not None and child is not None and child not in seen and len(seen) <= MOST_FAILURES:
                seen.add(child)
                try:
                    below = load(child)
                except NOT_THERE:
                    below = None
                if below is not None and any(_is_bad(one) for one in below.tasks.values()):
                    deeper.append((f"{prefix}{task_id}.", below))
                    continue
            found.append((prefix + task_id, task))
        waiting.extend(reversed(deeper))
    return found


def _is_bad(task: TaskInstance) -> bool:
    return task.state in (ExecutionState.FAILED, ExecutionState.CANCELLED)


def _reason(task: TaskInstance) -> str:
    return safe(" ".join((task.reason or "").split()))


def _cut_line(start: str, name: str, words: str, columns: int, style: Style, state: str) -> str:
    """A line of a name and words, each cut to what is there; the start is painted already and takes four columns."""
    mark = style.fitting("…", "...")
    name = cut(name, max(10, columns * 6 // 10), mark)
    room = columns - 4 - width_of(name) - 1
    return f"{start}{style.paint(name, 'bold')} {style.state(state, cut(words, room, mark)) if room > 3 else ''}".rstrip()


class _Tree:
    """What is known while a tree is written. See `tree_lines`."""

    def __init__(
        self,
        load: Loader,
        style: Style,
        columns: int,
        attempts: AttemptsOf | None,
        items: int | None,
        depth: int | None,
        logs: bool,
        values: bool,
        tracebacks: int,
        now: datetime | None,
        driven: bool,
        hint: str,
    ) -> None:
        self._load = load
        self._style = style
        self._columns = columns
        self._attempts_of = attempts
        self._items = items
        self._depth = depth
        self._logs = logs
        self._values = values
        self._tracebacks = tracebacks
        self._now = now
        self._driven = driven
        self._hint = style.paint(f"  {hint}", "dim") if hint else ""
        self._rows: list[_Row] = []
        self._attempts: dict[str, dict[str, list[Attempt]]] = {}
        self._shown_frames: set[str] = set()
        fit = style.fitting
        self._dots = fit("…", "...")
        self._fork, self._last, self._bar = fit("├─ ", "|- "), fit("└─ ", "`- "), fit("│  ", "|  ")

    def __repr__(self) -> str:
        return f"<_Tree of {len(self._rows)} rows>"

    def lines(self, run: WorkflowRun) -> list[str]:
        """All of it."""
        wholes, plain = _sorted_out(run)
        counts = _counts_lines(plain, wholes, self._style, self._driven, self._columns)
        head = [_head(run, self._style, self._now, self._driven), *counts]
        # A list of open levels instead of recursion: flows may nest deeper than Python's own stack.
        levels = [self._level(run, "", 0, 0)]
        open_runs = {run.id}
        while levels:
            level = levels[-1]
            if level.at == len(level.entries):
                levels.pop()
                if level.opens:
                    open_runs.discard(level.run_id)
                continue
            entry = level.entries[level.at]
            level.at += 1
            below = self._show(entry, level, open_runs)
            if below is not None:
                levels.append(below)
        return [*head, *self._written()]

    # --- what is below what ---

    def _level(self, run: WorkflowRun, stem: str, indents: int, depth: int) -> _Level:
        wholes, plain = _sorted_out(run)
        graph = run.graph
        entries: list[_Entry] = []
        shown, hidden = self._chosen(list(plain.values()), self._most_of(plain))
        keep = {task.task_id for task in shown} if hidden else plain.keys()
        for task_id, task in plain.items():
            if task_id in keep:
                entries.append(_Entry(task, "", graph.get(task_id), wholes.get(task_id, []), _waits_for(task, graph, plain)))
        if hidden:
            entries.append(self._folded(hidden, "task"))
        return _Level(entries, stem, indents, depth, run.id)

    def _most_of(self, tasks: Mapping[str, TaskInstance]) -> int | None:
        """How many tasks of one run are shown: all, or else what went wrong or is under way, and a few more."""
        if self._items is None or len(tasks) <= max(MOST_TASKS, self._items):
            return None
        matter = sum(_WEIGHT.get(self._state(task), 9) <= _WEIGHT["cancelled"] for task in tasks.values())
        return max(self._items, FEW_TASKS, min(matter, MOST_TASKS))

    def _item_level(self, entry: _Entry, level: _Level, stem: str) -> _Level:
        most = self._items
        if most is not None and len(entry.items) > most:  # of many that succeeded, a few are as good as ten
            others = sum(item.state is not ExecutionState.SUCCESS for item in entry.items)
            most = min(most, max(others, MOST_SUCCEEDED))
        shown, hidden = self._chosen(entry.items, most)
        entries = [_Entry(item, "", entry.node) for item in shown]
        if hidden:
            entries.append(self._folded(hidden, "item"))
        return _Level(entries, stem, level.indents + 1, level.depth, level.run_id, opens=False)

    def _chosen(self, tasks: list[TaskInstance], most: int | None) -> tuple[list[TaskInstance], list[TaskInstance]]:
        """Those to be shown, and those that are not: if there are too many, failed ones go first."""
        if most is None or len(tasks) <= most:
            return tasks, []
        weighed = sorted(tasks, key=lambda task: _WEIGHT.get(self._state(task), 9))
        return weighed[:most], weighed[most:]

    def _folded(self, tasks: list[TaskInstance], what: str) -> _Entry:
        counts = counts_text(map(self._state, tasks), self._style)
        return _Entry(None, f"{self._dots} {len(tasks):,} more {what if len(tasks) == 1 else what + 's'}: {counts}{self._hint}")

    def _show(self, entry: _Entry, level: _Level, open_runs: set[str]) -> _Level | None:
        """Write one entry; gives the level below it, if there is one to open."""
        is_last = level.at == len(level.entries)
        stem = level.stem + (self._last if is_last else self._fork)
        stem_below = level.stem + ("   " if is_last else self._bar)
        indents = level.indents + 1
        if indents > min(MOST_INDENTS, self._columns // 8):
            stem, stem_below = f"{level.stem}{indents}{self._dots} ", level.stem
        task = entry.task
        if task is None:
            self._rows.append(_Row(stem, "", "", remark=entry.words))
            return None
        row = _Row(stem, self._state(task), safe(task.task_id), stem_below=stem_below)
        self._rows.append(row)
        inside, why_not = (None, "") if entry.items else self._inside(task, level, stem_below, indents, open_runs)
        below = self._item_level(entry, level, stem_below) if entry.items else inside
        row.span = self._span(task)
        remarks = [*self._remarks(entry, task, level.run_id), why_not]
        if task.reason and task.state is not ExecutionState.SUCCESS and not self._is_told_below(task, below):
            remarks.append(self._style.state(row.state, _reason(task)))
        row.remark = ", ".join(filter(None, remarks))
        row.stem_below += self._bar if below is not None else "   "
        row.below = self._details(task, row, level.run_id, below is not None)
        return below

    def _inside(
        self, task: TaskInstance, level: _Level, stem: str, indents: int, open_runs: set[str]
    ) -> tuple[_Level | None, str]:
        child = task.child_run_id
        if child is None:
            return None, ""
        if self._depth is not None and level.depth >= self._depth:
            return None, f"subflow, run {safe(child)}"
        if child in open_runs:
            return None, "the run that it is itself inside of"
        if len(self._rows) > MOST_ROWS and self._items is not None and task.state is ExecutionState.SUCCESS:
            return None, f"subflow, run {safe(child)}"
        try:
            run = self._load(child)
        except NOT_THERE as error:
            return None, f"its run cannot be shown: {safe(' '.join(str(error).split()))}"
        open_runs.add(child)
        return self._level(run, stem, indents, level.depth + 1), ""

    # --- what is told of one ---

    def _state(self, task: TaskInstance) -> str:
        return _state(task, self._driven)

    def _span(self, task: TaskInstance) -> str:
        if task.state is ExecutionState.RUNNING:
            return span_text(between(task.start_date, self._now)) if self._driven and self._now and task.start_date else ""
        if task.state is ExecutionState.SCHEDULED or task.start_date is None or task.end_date is None:
            return ""
        return span_text(between(task.start_date, task.end_date))

    def _attempts_in(self, run_id: str) -> dict[str, list[Attempt]]:
        known = self._attempts.get(run_id)
        if known is None:
            known = self._attempts[run_id] = {}
            for attempt in self._attempts_of(run_id) if self._attempts_of is not None else ():
                known.setdefault(attempt.task_id, []).append(attempt)
        return known

    def _remarks(self, entry: _Entry, task: TaskInstance, run_id: str) -> list[str]:
        told: list[str] = []
        if entry.items:
            counts = counts_text(map(self._state, entry.items), self._style)
            told.append(f"{counted(len(entry.items), 'item')}: {counts}")
        elif entry.node is not None and entry.node.map_over is not None and task.input_json in (0, []):
            told.append("no items")
        number = len(self._attempts_in(run_id).get(task.task_id, ())) or task.try_number + 1
        if number > 1 and not entry.items:
            told.append(counted(number, "attempt"))
        if task.interruptions and not entry.items and "interrupted" not in (task.reason or ""):
            died = task.crashes == task.interruptions
            what = "its process died" if died else "interrupted"
            told.append(what if task.interruptions == 1 else f"{what} {task.interruptions:,} times")
        if task.state is ExecutionState.SCHEDULED:
            told += self._waiting(entry, task)
        return told

    def _waiting(self, entry: _Entry, task: TaskInstance) -> list[str]:
        if task.next_attempt_at is not None:
            left = between(self._now, task.next_attempt_at)
            is_ahead = left is not None and left > 0
            return [f"again in {span_text(left)}" if is_ahead else f"again at {task.next_attempt_at:%H:%M:%S} UTC"]
        if entry.waits_for:
            names = ", ".join(safe(name) for name in entry.waits_for[:3])
            more = len(entry.waits_for) - 3
            return [self._style.paint(f"waits for {names}{f' and {more:,} more' if more > 0 else ''}", "dim")]
        return []

    def _is_told_below(self, task: TaskInstance, below: _Level | None) -> bool:
        """Whether what it failed by is to be seen in the lines under it."""
        shown = [] if below is None or not _is_bad(task) else below.entries
        return any(entry.task is not None and _is_bad(entry.task) for entry in shown)

    # --- what stands under a line ---

    def _details(self, task: TaskInstance, row: _Row, run_id: str, is_opened: bool) -> list[str]:
        below: list[str] = []
        if self._values and task.state is ExecutionState.SUCCESS and task.output is not None:
            text = safe(value_text(masked(task.task_id, task.output), max(300, 3 * self._columns)))
            below += self._broken(f"returned {text}", row)
        if self._logs:
            below += self._log_lines(task, row, run_id)
        if self._tracebacks and task.state is ExecutionState.FAILED and task.error and not is_opened:
            below += self._traceback(task.error, row)
        return below

    def _broken(self, text: str, row: _Row, *names: str, most: int = MOST_LINES) -> list[str]:
        """A text in lines as wide as there is room under a row, and no more than a few."""
        room = max(30, self._columns - width_of(row.stem_below) - BELOW)
        lines: list[str] = []
        while width_of(text) > room and len(lines) < most - 1:
            line = cut(text, room, "")
            space = line.rfind(" ", len(line) * 2 // 3)
            line = line[: space + 1] if space > 0 and most > 1 else line
            lines.append(line.rstrip())
            text = text[len(line) :]
        return [self._style.paint(line, *names) for line in [*lines, cut(text, room, self._dots)]]

    def _traceback(self, error: str, row: _Row) -> list[str]:
        listed = safe_lines(error)
        if self._tracebacks < 0:
            return [self._style.paint(line, "red") for line in listed]
        # That of a hundred items is told once: what is different in them is their messages, which are in their lines.
        frames = "\n".join(line for line in listed if line.startswith("  ")) or error
        if frames in self._shown_frames or len(self._shown_frames) == MOST_TRACEBACKS:
            return []
        self._shown_frames.add(frames)
        *above, last = listed[-self._tracebacks :] or [""]
        left_out = len(listed) - len(above) - 1
        words = f"{self._dots} {counted(left_out, 'line')} of the traceback above"
        told = [self._style.paint(words, "dim")] if left_out else []
        told += [line for code in above for line in self._broken(code, row, "red", most=1)]
        return told + self._broken(last, row, "red")

    def _log_lines(self, task: TaskInstance, row: _Row, run_id: str) -> list[str]:
        tried = self._attempts_in(run_id).get(task.task_id, [])
        if len(tried) < 2:
            return self._entries(task.logs or [entry for attempt in tried for entry in attempt.logs], row)
        style, told = self._style, list[str]()
        if len(tried) > MOST_ATTEMPTS:
            told.append(style.paint(f"{self._dots} {len(tried) - MOST_ATTEMPTS:,} earlier attempts", "dim"))
        for attempt in tried[-MOST_ATTEMPTS:]:
            is_cut_off = attempt.result is AttemptResult.RUNNING and not self._driven
            result = "interrupted" if is_cut_off else attempt.result.value
            seconds = between(attempt.start_date, attempt.end_date)
            parts = [f"attempt {attempt.number:,}", result, *([span_text(seconds)] * (seconds is not None))]
            if attempt.reason and result != "success":
                parts.append(safe(" ".join(attempt.reason.split())))
            first, *more = self._broken("  ".join(parts), row, most=2)
            told += [f"{style.sign(result)} {first}", *(f"  {line}" for line in more)]
            told += [f"  {line}" for line in self._entries(attempt.logs, row)]
        return told

    def _entries(self, logs: Iterable[LogEntry], row: _Row) -> list[str]:
        listed = list(logs)
        told: list[str] = []
        if len(listed) > MOST_LOG_LINES:
            told.append(self._style.paint(f"{self._dots} {len(listed) - MOST_LOG_LINES:,} earlier lines", "dim"))
        for entry in listed[-MOST_LOG_LINES:]:
            colour = ("red",) if entry.level >= logging.ERROR else ("yellow",) if entry.level >= logging.WARNING else ()
            name = logging.getLevelName(entry.level).lower()
            told += self._broken(f"{entry.at:%H:%M:%S} {name} {safe(entry.message)}", row, *colour)
        return told

    # --- as text ---

    def _written(self) -> list[str]:
        named = [width_of(row.stem) + width_of(row.name) for row in self._rows if row.name]
        widest = min(max(named, default=0), max(WIDEST_NAME, min(100, self._columns) * 4 // 10))
        states = max((width_of(row.state) for row in self._rows if row.name and row.state != "success"), default=0)
        spans = max((width_of(row.span) for row in self._rows), default=0)
        told: list[str] = []
        for row in self._rows:
            told.append(_fitted(self._line(row, widest, states, spans), self._columns, self._dots))
            told += [f"  {self._style.paint(row.stem_below, 'dim')}  {line}" for line in row.below]
        return told

    def _line(self, row: _Row, widest: int, states: int, spans: int) -> str:
        style = self._style
        stem = style.paint(row.stem, "dim")
        if not row.name:
            return f"  {stem}{row.remark}"
        name = cut(row.name, max(8, self._columns - width_of(row.stem) - 4), self._dots)
        room = widest - width_of(row.stem)
        bold = ("bold",) if row.state in ("failed", "running", "interrupted", "cancelled") else ()
        parts = [f"  {stem}{style.sign(row.state)} {style.paint(name, *bold)}{' ' * (room - width_of(name))}"]
        if states:
            parts.append(style.state(row.state, padded("" if row.state == "success" else row.state, states)))
        if spans:
            parts.append(" " * (spans - width_of(row.span)) + row.span)
        parts.append(row.remark)
        return "  ".join(parts).rstrip()


def _waits_for(task: TaskInstance, graph: Mapping[str, GraphNode], plain: Mapping[str, TaskInstance]) -> tuple[str, ...]:
    """Which of its upstreams have not ended."""
    if task.state is not ExecutionState.SCHEDULED:
        return ()
    node = graph.get(task.task_id)
    return tuple(
        name for name in (node.depends_on if node else ()) if name in plain and not ExecutionState.is_terminal(plain[name].state)
    )


def _width_painted(line: str) -> int:
    first, *painted = line.split("\x1b")
    return width_of(first) + sum(width_of(piece.partition("m")[2]) for piece in painted)


def _fitted(line: str, columns: int, mark: str) -> str:
    """A line, with colours in it or without, cut to a width."""
    if "\x1b" not in line:
        return cut(line, columns, mark)
    first, *painted = line.split("\x1b")
    pieces = [("", first)]
    for piece in painted:
        code, _, text = piece.partition("m")
        pieces.append((f"\x1b{code}m", text))
    if _width_painted(line) <= columns:
        return line
    taken: list[str] = []
    room = columns - width_of(mark)
    for code, text in pieces:
        short = cut(text, room, "")
        taken.append(code + short)
        room -= width_of(short)
        if len(short) < len(text):
            break
    return "".join(taken) + mark + "\x1b[0m"
