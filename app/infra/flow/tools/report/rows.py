"""The table of tasks: a row for each, and below it what is known of it: attempts, traceback, logs, values, neighbours.

Must not know stores. Of too many tasks it tells those that failed first, and says what it leaves out.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from ... import Attempt, LogEntry
from ..units import between, counted, masked, span_text, value_text
from .gathering import Line, ReportData
from .markup import (
    MOST_LINE,
    MOST_LOGS,
    MOST_NAME,
    MOST_TRACEBACK,
    MOST_VALUE,
    Budget,
    badge,
    class_of,
    esc,
    moment,
    sign,
)
from .timing import Timing

MOST_ROWS = 2000
"""So many tasks are told in full."""
_MOST_NEIGHBOURS = 20
_MOST_ATTEMPTS = 50
_KINDS = {"map": "map", "subflow": "subflow"}


@dataclass(slots=True)
class Rows:
    """What the table shows."""

    numbers: set[int]
    links: dict[int, str] = field(default_factory=dict)
    """Of each line that is shown, where its row is on the page."""
    bodies: dict[int, str] = field(default_factory=dict)


def rows_of(data: ReportData, timing: Timing, budget: Budget, *, values: bool) -> Rows:
    """What is known of each task that the table shows; those that matter most are told while there is room."""
    rows = Rows(timing.shown(data, MOST_ROWS))
    rows.links = {number: f"#d{number}" for number in rows.numbers}
    after: dict[int, list[Line]] = {}
    for line in data.lines:
        for need in line.needs:
            if line.number in rows.numbers and need.number in rows.numbers:
                after.setdefault(need.number, []).append(line)
    for line in sorted((data.lines[number] for number in rows.numbers), key=lambda line: (timing.rank(line), line.number)):
        rows.bodies[line.number] = _body(line, timing, rows, after.get(line.number, []), budget, values=values)
    return rows


def table(data: ReportData, timing: Timing, rows: Rows, budget: Budget) -> str:
    """The table with its filter."""
    if not data.lines:
        return ""
    left = len(data.lines) - len(rows.numbers)
    notes: list[str] = []
    if left:
        states = Counter(line.state for line in data.lines if line.number not in rows.numbers)
        told = ", ".join(f"{number:,} {state}" for state, number in states.most_common())
        notes.append(
            f"{counted(left, 'task')} of {len(data.lines):,} are left out here ({esc(told)}): "
            "those that failed, the critical path and the longest are shown."
        )
    if data.left_closed:
        notes.append(f"{counted(data.left_closed, 'subflow run')} more were not opened.")
    longest = max((timing.took(line) or 0.0 for line in data.lines), default=0.0) or 1.0
    body = "".join(_row(line, timing, rows, longest, budget) for line in data.lines if line.number in rows.numbers)
    head = "".join(
        f'<th scope="col" class="{name}" data-sort="{name}">{label}</th>'
        for name, label in (
            ("task", "Task"),
            ("state", "State"),
            ("began", "Began"),
            ("took", "Took"),
            ("waited", "Waited"),
            ("tries", "Attempts"),
            ("why", "Why"),
        )
    )
    told = "".join(f'<p class="soft">{note}</p>' for note in notes)
    return f"""{told}<div class="tools js-only"><label for="filter">Filter</label>
<input type="search" id="filter" placeholder="name, state or reason" autocomplete="off" spellcheck="false">
<button type="button" id="unfold">Unfold all</button><span id="found" role="status" aria-live="polite"></span></div>
<div class="scroll"><table class="tasks" id="rows"><caption class="unseen">The tasks of the run. \
Each name leads to what is known of the task.</caption>
<thead><tr>{head}</tr></thead>
{body}</table></div>"""


def _row(line: Line, timing: Timing, rows: Rows, longest: float, budget: Budget) -> str:
    task = line.task
    took, waited, start = timing.took(line), timing.waited(line), timing.start(line)
    up = line.parent.number if line.parent is not None else ""
    kind = f'<span class="kind">{_kind(line)}</span>' if line.kind in _KINDS or line.children else ""
    tries = len(line.attempts)
    reason = esc(budget.clean(task.reason), MOST_LINE) if task.reason else ""
    if task.next_attempt_at is not None:
        reason += f" (again at {moment(task.next_attempt_at, f'{task.next_attempt_at:%H:%M:%S}')})"
    marked = ' <span class="way" title="It is on the critical path: it determined when the run ended">◆</span>'
    least = max(0.001, 0.002 * timing.length)
    share = f' style="--w:{min((took or 0.0) / longest, 1.0):.2%}"' if took and not line.children else ""
    return (
        f'<tbody data-n="{line.number}" data-up="{up}" data-state="{esc(line.state)}">'
        f'<tr class="row s-{class_of(line.state)}"><th scope="row" class="task" style="--d:{min(line.depth, 12)}">'
        f'<a href="#d{line.number}" title="{esc(line.path, MOST_NAME)}">{esc(line.own, MOST_NAME)}</a>{kind}'
        f"{marked if line.number in timing.on_path else ''}</th>"
        f'<td class="state" data-v="{esc(line.state)}">{badge(line.state)}</td>'
        f'<td class="began num" data-v="{_number(start)}">{moment(line.start, _since(start))}</td>'
        f'<td class="took num" data-v="{_number(took)}"{share}>{span_text(took) if took is not None else "-"}</td>'
        f'<td class="waited num" data-v="{_number(waited)}">{span_text(waited) if (waited or 0.0) > least else "-"}</td>'
        f'<td class="tries num" data-v="{tries}">{tries or "-"}</td>'
        f'<td class="why">{reason}</td></tr>'
        f'<tr class="detail" id="d{line.number}"><td colspan="7">{rows.bodies[line.number]}</td></tr></tbody>\n'
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _since(seconds: float | None) -> str:
    return "-" if seconds is None else f"+{span_text(seconds)}"


def _kind(line: Line) -> str:
    if line.kind == "map" or (line.kind == "item" and not line.children):
        return counted(len(line.children), "item")
    if line.child is not None:
        return f"flow {esc(line.child.flow_name, 100)}"
    return esc(line.kind)


# --- what is known of one task ---


def _body(line: Line, timing: Timing, rows: Rows, after: list[Line], budget: Budget, *, values: bool) -> str:
    task = line.task
    parts = [f'<p class="path"><code>{esc(line.path)}</code></p>', _about(line, timing, rows, after)]
    if line.kind == "map" and line.children:
        parts.append(_states(line))
    if task.reason:
        parts.append(f'<p class="reason">{esc(budget.clean(task.reason))}</p>')
    if len(line.attempts) > 1:
        parts.append(_attempts(line.attempts, budget))
    latest_error = line.attempts[-1].error if line.attempts else None
    for attempt in line.attempts[-_MOST_ATTEMPTS:]:
        shown = attempt.error if attempt is not line.attempts[-1] else None
        if shown and shown != latest_error:
            parts.append(_text(f"Traceback of attempt {attempt.number}", shown, MOST_TRACEBACK, budget, folded=True))
    error = task.error or latest_error
    if error:
        parts.append(_text("Items that failed" if line.kind == "map" else "Traceback", error, MOST_TRACEBACK, budget))
    parts += [_logs(attempt, len(line.attempts), budget) for attempt in line.attempts[-5:] if attempt.logs]
    if values:
        if task.input_json is not None:
            shown = value_text(masked("", task.input_json), MOST_VALUE)
            parts.append(_text("Items" if line.kind == "map" else "Input", shown, MOST_VALUE, budget))
        if line.state == "success" and task.output is not None:
            parts.append(_text("Output", value_text(masked("", task.output), MOST_VALUE), MOST_VALUE, budget))
    return "".join(parts)


def _about(line: Line, timing: Timing, rows: Rows, after: list[Line]) -> str:
    facts: list[tuple[str, str]] = []
    if line.start is not None:
        facts.append(("Began", moment(line.start)))
    if line.end is not None:
        facts.append(("Ended", moment(line.end)))
    took = timing.took(line)
    if took is not None:
        facts.append(("Took" if line.end is not None else "So far", span_text(took)))
    if len(line.attempts) == 1 and line.attempts[0].worker and not line.children:
        facts.append(("Driven by", esc(line.attempts[0].worker, 200)))
    if line.task.next_attempt_at is not None:
        facts.append(("Next attempt", moment(line.task.next_attempt_at)))
    if line.needs:
        facts.append(("After", _neighbours(line.needs, rows)))
    if after:
        facts.append(("Before", _neighbours(after, rows)))
    node = line.node
    if node is not None and node.trigger_rule != "all_success":
        facts.append(("Runs when", f"<code>{esc(node.trigger_rule)}</code>"))
    if line.task.interruptions:
        facts.append(("Interrupted", counted(line.task.interruptions, "time")))
    if line.task.child_run_id is not None:
        gone = ' <span class="soft">(not in the store any more)</span>' if line.gone else ""
        facts.append(("Its run", f"<code>{esc(line.task.child_run_id)}</code>{gone}"))
    return f'<dl class="facts small">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)}</dl>'


def _neighbours(lines: list[Line], rows: Rows) -> str:
    shown = [
        f'<a class="s-{class_of(line.state)}" href="{rows.links[line.number]}">{_called(line)}</a>'
        if line.number in rows.links
        else f"<span>{_called(line)}</span>"
        for line in lines[:_MOST_NEIGHBOURS]
    ]
    more = len(lines) - len(shown)
    return " ".join(shown) + (f" and {more:,} more" if more else "")


def _called(line: Line) -> str:
    return f"{sign(line.state)} {esc(line.task.task_id, 100)}"


def _states(line: Line) -> str:
    counts = Counter(child.state for child in line.children)
    return f'<p class="states">{" ".join(badge(state, f"{number:,} {state}") for state, number in counts.most_common())}</p>'


def _attempts(attempts: list[Attempt], budget: Budget) -> str:
    shown = attempts[-_MOST_ATTEMPTS:]
    lines = "".join(
        f"<tr><td class=num>{attempt.number}</td><td>{badge(str(attempt.result))}</td><td>{moment(attempt.start_date)}</td>"
        f"<td class=num>{span_text(between(attempt.start_date, attempt.end_date))}</td>"
        f"<td>{esc(budget.clean(attempt.reason)) if attempt.reason else ''}</td>"
        f"<td>{esc(attempt.worker, 200) if attempt.worker else '-'}</td></tr>"
        for attempt in shown
    )
    left = (
        f'<p class="soft">{counted(len(attempts) - len(shown), "earlier attempt")} left out.</p>'
        if len(attempts) > len(shown)
        else ""
    )
    head = "<thead><tr><th>Attempt</th><th>Ended as</th><th>Began</th><th>Took</th><th>Why</th><th>Driven by</th></tr></thead>"
    return f'{left}<div class="scroll"><table class="plain">{head}<tbody>{lines}</tbody></table></div>'


def _logs(attempt: Attempt, attempts: int, budget: Budget) -> str:
    shown = attempt.logs[-MOST_LOGS:]
    of = f" of attempt {attempt.number}" if attempts > 1 else ""
    if budget.left <= 0:
        budget.short += 1
        return ""
    lines = "".join(_log_line(entry, budget) for entry in shown)
    left = len(attempt.logs) - len(shown)
    before = f'<p class="soft">{counted(left, "earlier line")} left out.</p>' if left else ""
    return f'<h4>Log{of}</h4>{before}<div class="log" tabindex="0" role="group" aria-label="Log{of}">{lines}</div>'


def _log_line(entry: LogEntry, budget: Budget) -> str:
    level = logging.getLevelName(entry.level).lower()
    text = esc(budget.clean(entry.message), MOST_LINE)
    budget.left -= len(text)
    loud = " loud" if entry.level >= logging.WARNING else ""
    at = moment(entry.at, f"{entry.at:%H:%M:%S.%f}"[:12])
    return f'<div class="line{loud}">{at} <b>{esc(level)}</b> <span>{text}</span></div>'


def _text(heading: str, text: str, most: int, budget: Budget, *, folded: bool = False) -> str:
    shown = budget.take(text, most)
    if shown is None:
        return f'<h4>{heading}</h4><p class="soft">Left out, so that the page stays small.</p>'
    content = f'<pre tabindex="0" aria-label="{heading}">{shown}</pre>'
    return f"<details><summary>{heading}</summary>{content}</details>" if folded else f"<h4>{heading}</h4>{content}"
