"""What failed and why, the first thing that people look for: alike failures together, each with its traceback.

Must not know stores.
"""

from __future__ import annotations

import re

from ..units import counted, span_text
from .gathering import Line, ReportData
from .markup import MOST_NAME, MOST_TRACEBACK, Budget, badge, class_of, esc, moment
from .rows import Rows

MOST_SHOWN = 25
_MOST_NAMED = 12


def failures(data: ReportData, rows: Rows, budget: Budget, resume: str | None) -> str:
    """The failed tasks, alike ones as one entry; empty where nothing failed."""
    found = groups(data)
    if not found:
        return ""
    shown = "".join(_entry(lines, rows, budget) for lines in found[:MOST_SHOWN])
    more = sum(len(lines) for lines in found[MOST_SHOWN:])
    left = f'<p class="soft">{counted(more, "more task")} failed; they stand among the tasks below.</p>' if more else ""
    skipped = sum(1 for line in data.leaves if line.state == "skipped")
    after = f"{counted(skipped, 'task')} {'was' if skipped == 1 else 'were'} skipped in this run. " if skipped else ""
    again = ""
    if resume is not None and str(data.run.state) in ("failed", "cancelled") and data.run.parent_run_id is None:
        to_do = f"After the fix, this runs again what failed and what depends on it: <code>{esc(resume)}</code>"
        again = f'<p class="soft">{after}{to_do}</p>'
    return f'<div class="cards">{shown}</div>{left}{again}'


def groups(data: ReportData) -> list[list[Line]]:
    """Lines that failed or were cancelled by themselves, alike ones together: the same reason from the same place."""
    found: dict[tuple[str, str, str], list[Line]] = {}
    whole_run = str(data.run.state) == "cancelled"
    for line in data.lines:
        if line.state == "failed" or (line.state == "cancelled" and not whole_run):
            if any(child.state in ("failed", "cancelled") for child in line.children):
                continue
            whole = line.path if line.kind != "item" or line.parent is None else line.parent.path
            place = place_of(line.task.error) or whole
            found.setdefault((line.state, place, line.task.reason or ""), []).append(line)
    return sorted(found.values(), key=lambda lines: (lines[0].state != "failed", -len(lines), lines[0].number))


def _entry(lines: list[Line], rows: Rows, budget: Budget) -> str:
    first = lines[0]
    task = first.task
    names = " ".join(_name(line, rows) for line in lines[:_MOST_NAMED])
    more = f' <span class="soft">and {len(lines) - _MOST_NAMED:,} more</span>' if len(lines) > _MOST_NAMED else ""
    facts = [moment(first.end)]
    if len(first.attempts) > 1:
        facts.append(f"{len(first.attempts)} attempts")
    if first.start is not None and first.end is not None:
        facts.append(f"after {span_text(first.end - first.start)}")
    place = place_of(task.error)
    if place:
        facts.append(f"in <code>{esc(budget.clean(place), 300)}</code>")
    error = budget.take(task.error, MOST_TRACEBACK) if task.error else None
    trace = f"<details><summary>Traceback</summary><pre tabindex=0>{error}</pre></details>" if error else ""
    log = _last_log(first, budget)
    how_many = f" ({len(lines):,} times)" if len(lines) > 1 else ""
    reason = esc(budget.clean(task.reason or "no reason was recorded"))
    state = badge(first.state) if first.state != "failed" else ""
    return f"""<article class="card s-{class_of(first.state)}"><h3>{names}{more}{state}</h3>
<p class="reason">{reason}{how_many}</p><p class="soft">{", ".join(facts)}</p>{log}{trace}</article>"""


def place_of(traceback: str | None) -> str | None:
    """Where an exception was raised, by the text of its traceback: `pipeline.py:12, in load`; of a chain, the last one."""
    frames = re.findall(r'^  File "([^"\n]+)", line (\d+), in (\S+)', traceback or "", re.MULTILINE)
    return f"{frames[-1][0]}:{frames[-1][1]}, in {frames[-1][2]}" if frames else None


def _name(line: Line, rows: Rows) -> str:
    name = esc(line.path, MOST_NAME)
    return f'<a href="{rows.links[line.number]}">{name}</a>' if line.number in rows.links else f"<span>{name}</span>"


def _last_log(line: Line, budget: Budget) -> str:
    """The last that it wrote: often what it was about."""
    if not line.task.logs:
        return ""
    last = line.task.logs[-1]
    return f'<p class="last">Its last line: <q>{esc(budget.clean(last.message), 300)}</q></p>'
