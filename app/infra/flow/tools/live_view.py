"""How far a run is, as some lines for a terminal: a bar, counts, what is under way. Pure.

Must not know flows, stores, the terminal or the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from .. import ExecutionState, RunProgress, TaskProgress
from .terminal import Style, cut, padded, safe, width_of
from .units import between, counted, span_text

MOST_ROWS = 14
"""So many lines at most, however high the terminal is: it is to stay compact."""
_GAP = "  "
_BAR_COLUMNS = (8, 32)
_ORDER = (
    (ExecutionState.FAILED, "failed"),
    (ExecutionState.CANCELLED, "cancelled"),
    (ExecutionState.RUNNING, "running"),
    (ExecutionState.SCHEDULED, "waiting"),
    (ExecutionState.SKIPPED, "skipped"),
    (ExecutionState.SUCCESS, "done"),
)


def frame(
    progress: RunProgress,
    columns: int,
    rows: int,
    style: Style,
    now: datetime,
    remaining: float | None = None,
    since: datetime | None = None,
) -> list[str]:
    """The lines that show a run now.

    Args:
        progress: how far it is.
        columns: how wide the terminal is; no line takes more than one less.
        rows: how high it is; there are fewer lines.
        style: how to write.
        now: the moment that spans are counted to.
        remaining: about how many seconds it will still take, where that is known.
        since: when it began or was continued; when the run began, if left out.
    """
    width = max(1, columns - 1)
    room = max(1, min(rows - 1, MOST_ROWS))
    seconds = between(since or progress.start_date, now)
    lines = [_headline(progress, width, style, seconds, remaining), _counts(progress, width, style)]
    return [*lines, *_tasks(progress.running, width, room - len(lines), style, now)][:room]


def last_line(progress: RunProgress, columns: int, style: Style, seconds: float | None) -> str:
    """What remains when a run is over: how it ended, in one line."""
    parts = [
        f"{_text(progress.flow_name, style)} {_text(progress.run_id, style)}",
        f"{_word(progress)} after {span_text(seconds)}",
        f"{counted(progress.total, 'task')}: {_numbers(progress)}",
    ]
    sign = style.sign("interrupted" if progress.state == "scheduled" else progress.state)
    return f"{sign} {cut(_GAP.join(parts), max(0, columns - 3), style.fitting('…', '...'))}"


def _text(text: str, style: Style) -> str:
    """What a user typed, as the terminal can show it."""
    return style.encodable(safe(text))


def _word(progress: RunProgress) -> str:
    return "interrupted" if progress.state == "scheduled" else progress.state


def _numbers(progress: RunProgress) -> str:
    parts: list[str] = []
    for state, word in _ORDER:
        number = progress.counts.get(state, 0)
        if state == "scheduled" and progress.retrying:
            parts.append(f"{progress.retrying:,} to be tried again")
            number -= progress.retrying
        if number > 0:
            parts.append(f"{number:,} {word}")
    return ", ".join(parts)


def _headline(progress: RunProgress, width: int, style: Style, seconds: float | None, remaining: float | None) -> str:
    share = progress.fraction
    after = [f"{progress.done:,}/{progress.total:,}", f"{int(share * 100)} %", ticking_span(seconds)]
    if remaining is not None and remaining >= 0.5 and progress.state == "running":  # less is said of a run that is overdue, too
        after.append(f"about {rounded_span(remaining)} left")
    mark = style.fitting("…", "...")
    name = _text(progress.flow_name, style)
    run_id = _text(progress.run_id, style)
    text = _GAP.join(after)
    least = _BAR_COLUMNS[0] + 2 * len(_GAP)
    # The numbers come first; what they leave is shared by names and bar.
    names = cut(f"{name} {run_id}", min(40, max(0, width - width_of(text) - least)), mark)
    left = width - width_of(text) - width_of(names) - 2 * len(_GAP)
    if left < _BAR_COLUMNS[0] or not names:
        return style.paint(cut(_GAP.join([part for part in (names, text) if part]), width, mark), "bold")
    return _GAP.join([style.paint(names, "bold"), _bar(share, min(left, _BAR_COLUMNS[1]), style, progress), text])


def _bar(share: float, width: int, style: Style, progress: RunProgress) -> str:
    full, rest = style.fitting("█", "#"), style.fitting("░", "-")
    if full == "#" or rest == "-":
        full, rest = "#", "-"
    filled = int(share * width)
    state = ExecutionState.FAILED if progress.counts.get(ExecutionState.FAILED) else ExecutionState.SUCCESS
    return style.state(state, full * filled) + style.paint(rest * (width - filled), "dim")


def _counts(progress: RunProgress, width: int, style: Style) -> str:
    text = cut(f"  {_numbers(progress)}", width, style.fitting("…", "..."))
    failed = progress.counts.get(ExecutionState.FAILED, 0)
    begin = f"  {failed:,} failed"
    return style.paint("  ", "dim") + style.paint(begin[2:], "red") + text[len(begin) :] if text.startswith(begin) else text


def ticking_span(seconds: float | None) -> str:
    """A length of time that grows before one's eyes: tenths of seconds up to ten, then whole seconds."""
    if seconds is None:
        return span_text(None)
    return _whole(seconds) if seconds >= 9.95 else f"{max(0.0, seconds):.1f} s"


def _whole(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 59.5 else span_text(round(seconds))


def rounded_span(seconds: float) -> str:
    """A length of time that is only guessed: in whole seconds, ten of them from two minutes on, minutes from ten on."""
    step = 1 if seconds < 120 else 10 if seconds < 600 else 60
    return _whole(max(1, round(seconds / step) * step))


# --- what is under way ---


def _tasks(running: Sequence[TaskProgress], width: int, room: int, style: Style, now: datetime) -> list[str]:
    chosen = _chosen(running, room)
    left_out = sum(1 for task in _folded(running) if task.path not in chosen)
    if left_out and room:
        chosen = _chosen(running, room - 1)
        left_out = sum(1 for task in _folded(running) if task.path not in chosen)
    shown = list(_as_tree(running, chosen))
    named = [("  " * (depth + 1), task) for depth, task in shown]
    most = max(8, width * 2 // 5)
    mark = style.fitting("…", "...")
    names = [cut(_text(_own_name(task, chosen), style), max(4, most - len(indent)), mark) for indent, task in named]
    longest = max((len(indent) + width_of(name) for (indent, _), name in zip(named, names)), default=0)
    lines: list[str] = []
    for (indent, task), name in zip(named, names):
        start = padded(indent + "  " + name, longest + 2)
        text = cut(_GAP.join([start, *_facts(task, now)]), width, mark)
        # Painted after the cut: colours take no columns.
        sign_at = len(indent)
        lines.append(text[:sign_at] + style.sign("running") + text[sign_at + 1 :] if len(text) > sign_at + 1 else text)
    if left_out and room > 0:
        lines.append(cut(f"  {mark} {left_out:,} more", width, mark))
    return lines


def _facts(task: TaskProgress, now: datetime) -> Iterator[str]:
    yield f"{ticking_span(between(task.start_date, now) or 0.0):>8}"
    if task.counts:
        ended = sum(number for state, number in task.counts.items() if ExecutionState.is_terminal(state))
        yield f"{ended:,}/{sum(task.counts.values()):,}"
        failed = task.counts.get(ExecutionState.FAILED, 0)
        if failed:
            yield f"{failed:,} failed"
        under_way = task.counts.get(ExecutionState.RUNNING, 0)
        if under_way > 1:
            yield f"{under_way:,} running"
    if task.attempt_number:
        yield f"attempt {task.attempt_number + 1}"


def _own_name(task: TaskProgress, chosen: Mapping[str, TaskProgress]) -> str:
    """The last part of a path that stands under its subflow; else the whole path."""
    if task.inside is not None and task.inside in chosen and task.path.startswith(task.inside + "."):
        return task.path[len(task.inside) + 1 :]
    return task.path


def _folded(running: Sequence[TaskProgress]) -> Iterator[TaskProgress]:
    """All but the items of maps, which their whole counts, and what is inside of those."""
    by_path = {task.path: task for task in running}
    hidden: set[str] = set()
    for task in running:
        around = None if task.inside is None else by_path.get(task.inside)
        is_item = around is not None and task.path.startswith(around.path + "[")
        if is_item or (task.inside is not None and task.inside in hidden):
            hidden.add(task.path)
        else:
            yield task


def _chosen(running: Sequence[TaskProgress], room: int) -> dict[str, TaskProgress]:
    """Those that there is room for: of the outermost level first, then what is inside, then one item of each map."""
    if room <= 0:
        return {}
    folded = list(_folded(running))
    outer = [task for task in folded if task.inside is None]
    inner = [task for task in folded if task.inside is not None]
    chosen = {task.path: task for task in [*outer, *inner][:room]}
    seen: set[str] = set()
    for task in running:
        if len(chosen) >= room:
            break
        if task.path not in chosen and task.inside in chosen and task.inside not in seen and "[" in task.path:
            seen.add(task.inside)
            chosen[task.path] = task
    return chosen


def _as_tree(running: Sequence[TaskProgress], chosen: Mapping[str, TaskProgress]) -> Iterator[tuple[int, TaskProgress]]:
    """Each with how deep it stands, what is inside of one right after it."""
    below: dict[str | None, list[TaskProgress]] = {}
    for task in running:
        if task.path in chosen:
            below.setdefault(task.inside if task.inside in chosen else None, []).append(task)
    waiting = [(0, task) for task in reversed(below.get(None, ()))]
    while waiting:
        depth, task = waiting.pop()
        yield depth, task
        waiting.extend((depth + 1, inner) for inner in reversed(below.get(task.path, ())))
