"""The report's page: what stands on it and in which order. One file that works offline, and without its script too.

Must not know stores: it makes text of what `gathering` read.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ... import __version__
from ..pictures.svg import DARK, LIGHT, RULES
from ..units import counted, masked, span_text, value_text
from .chart import timeline
from .critical_path import Part
from .drawn import graph_of
from .failures import failures
from .gathering import ReportData
from .markup import MOST_VALUE, Budget, badge, class_of, esc, moment, sign
from .rows import rows_of, table
from .timing import Timing

MOST_TEXT = 1_800_000
"""Characters of users' texts in all: what keeps the page small enough for a mail."""
_HERE = Path(__file__).parent
_WORDS = {"success": "succeeded", "failed": "failed", "cancelled": "cancelled", "skipped": "skipped"}


def page(data: ReportData, *, budget: Budget, values: bool = True, title: str | None = None, resume: str | None = None) -> str:
    """The whole page.

    Args:
        data: the run.
        budget: how much text it may hold, and who takes secrets out of it.
        values: whether params and outputs are shown.
        title: what the page is called; by default by the flow and the run.
        resume: what to type to go on with the run, or to run again what failed.
    """
    timing = Timing(data)
    rows = rows_of(data, timing, budget, values=values)
    failed = failures(data, rows, budget, resume)
    sections = [
        ("failures", "What failed", failed),
        ("time", "What took the time", _time(data, timing, rows.links)),
        ("graph", "Graph", graph_of(data, rows.links, budget)),
        ("timeline", "Timeline", timeline(data, timing, rows.links)),
        ("tasks", "Tasks", table(data, timing, rows, budget)),
        ("run", "The run", _run(data, budget, values=values)),
    ]
    shown = [(name, heading, body) for name, heading, body in sections if body]
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    style = (_HERE / "report.css").read_text(encoding="utf-8").replace("/* light */", LIGHT).replace("/* dark */", DARK) + RULES
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    called = esc(title if title is not None else f"{data.run.flow_name} · {data.run.id}")
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in shown)
    body = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{heading}</h2>{text}</section>'
        for name, heading, text in shown
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Night Batch {esc(__version__)}">
<title>{sign(str(data.run.state))} {called}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
{_head(data, timing, title, budget, resume)}
<nav aria-label="Sections">{links}</nav>
<main id="content">
{body}
</main>
<footer><p>Made by Night Batch {esc(__version__)} at {moment(data.now)}. All times are UTC.</p>
<p class="keys js-only"><kbd>/</kbd> filter <kbd>j</kbd> <kbd>k</kbd> next, previous task <kbd>Enter</kbd> open it
<kbd>e</kbd> open all failed <kbd>s</kbd> sort by time <kbd>t</kbd> light or dark <kbd>Esc</kbd> clear
<kbd>+</kbd> <kbd>-</kbd> <kbd>0</kbd> <kbd>1</kbd> in a graph: closer, farther, fit to the width, full size</p></footer>
<script>{script}</script>
</body>
</html>
"""


# --- the top ---


def _head(data: ReportData, timing: Timing, title: str | None, budget: Budget, resume: str | None) -> str:
    run = data.run
    state = str(run.state)
    facts = [("Began", moment(data.start) if data.leaves else moment(data.created))]
    if run.end_date is not None:
        facts.append(("Ended", moment(run.end_date)))
    facts.append(("Took" if run.end_date is not None else "So far", f"<strong>{span_text(timing.length)}</strong>"))
    if timing.paused:
        facts.append(("Of that, nothing ran for", span_text(timing.paused)))
    if not data.left_closed:  # what the subflows did that were not opened is not known
        facts.append(("Work done", f"{span_text(timing.busy)}{_side_by_side(timing)}"))
    facts.append(("Attempts", _attempts(data)))
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    flow = esc(run.flow_name if title is None else title)
    under = f'<p class="runid">run <code>{esc(run.id)}</code>{_part_of(data)}</p>'
    return f"""<header class="top">
<p class="brand"><span>Night Batch</span><span class="what">report of a run</span>\
<button type="button" id="theme" class="quiet js-only" aria-label="Change between light and dark">◐</button></p>
<div class="title"><div><h1>{flow}</h1>{under}</div>{badge(state)}</div>
<p class="verdict v-{class_of(state)}">{_verdict(data, budget, resume)}</p>
<dl class="facts">{listed}</dl>
{_counts(data)}
</header>"""


def _part_of(data: ReportData) -> str:
    run = data.run
    if run.parent_run_id is None or not data.parent_known:
        return ""
    return f", the inside of <code>{esc(run.parent_task_id)}</code> of run <code>{esc(run.parent_run_id)}</code>"


def _side_by_side(timing: Timing) -> str:
    running = timing.length - timing.paused
    return f'<span class="soft">, {timing.busy / running:.1f} at once</span>' if running > 0 and timing.busy else ""


def _attempts(data: ReportData) -> str:
    attempts = [attempt for line in data.leaves for attempt in line.attempts]
    again = len(attempts) - sum(1 for line in data.leaves if line.attempts)
    return f"{len(attempts):,}" + (f'<span class="soft">, {counted(again, "retry", "retries")}</span>' if again else "")


def _verdict(data: ReportData, budget: Budget, resume: str | None) -> str:
    """One sentence: did it work?"""
    counts, state = data.counts(), str(data.run.state)
    whole = sum(counts.values())
    if not whole:
        return "The flow has no tasks." if state == "success" else "No task is known of this run."
    failed = [line for line in data.leaves if line.state == "failed"]
    parts = [f"{counts[name]:,} {_WORDS[name]}" for name in ("success", "skipped", "cancelled", "failed") if counts.get(name)]
    if state == "success":
        return "All tasks succeeded." if counts.get("success") == whole else f"Done: {', '.join(parts)}."
    if state == "failed" and len(failed) == 1:
        line = failed[0]
        why = f": {esc(budget.clean(line.task.reason))}" if line.task.reason else ""
        return f"<b>{esc(line.path, 300)}</b> failed{why}"
    if state in ("failed", "cancelled"):
        return f"{counted(whole, 'task')}: {', '.join(parts)}."
    ended = sum(counts.get(name, 0) for name in _WORDS)
    going = f"{ended:,} of {counted(whole, 'task')} {'has' if ended == 1 else 'have'} ended"
    if data.owner is not None:
        return f"Under way, driven by {esc(data.owner)}: {going}."
    goes_on = f" It goes on with <code>{esc(resume)}</code>" if resume is not None and data.run.parent_run_id is None else ""
    begun = "It waits to be continued" if data.run.start_date else "It was made, and not begun"
    return f"{begun}; nobody drives it: {going}.{goes_on}"


def _counts(data: ReportData) -> str:
    counts = data.counts()
    whole = sum(counts.values())
    if not whole:
        return ""
    order = ("success", "skipped", "scheduled", "running", "cancelled", "failed")
    known = [*[name for name in order if name in counts], *[name for name in counts if name not in order]]
    parts = "".join(f'<i class="s-{class_of(name)}" style="flex-grow:{counts[name] / whole:.5f}"></i>' for name in known)
    chips = "".join(
        f'<li><button type="button" class="chip s-{class_of(name)}" data-state="{esc(name)}" aria-pressed="false">'
        f'<span class="sign" aria-hidden="true">{sign(name)}</span><b>{number:,}</b> {esc(name)}</button></li>'
        for name, number in counts.items()
    )
    return f'<div class="counts"><div class="share" aria-hidden="true">{parts}</div><ul class="chips">{chips}</ul></div>'


# --- what took the time ---

_MOST_STEPS = 10
_MOST_FOLDED = 400


def _time(data: ReportData, timing: Timing, links: dict[int, str]) -> str:
    steps = timing.path
    if not steps:
        return ""
    parts = timing.division.parts
    pieces = _pieces(data, timing) if len(steps) <= _MOST_FOLDED else ""
    longest = sorted(parts, key=lambda part: (-part.share, part.step.number))
    kept = {part.step.number for part in longest[:_MOST_STEPS]}
    lines = "".join(_step(data, timing, part, links) for part in parts if part.step.number in kept)
    ended = data.run.end_date is not None
    told = "determined the end" if ended else "took the time so far"
    told = f"{counted(len(steps), 'task')}{' in a row' if len(steps) > 1 else ''} {told}: {_sums(timing)}."
    advice = " Whoever wants it to be quicker begins here." if ended else ""
    more = f"<p class='soft'>The {_MOST_STEPS} longest of them:</p>" if len(steps) > _MOST_STEPS else ""
    strip = f'<div class="strip" aria-hidden="true">{pieces}</div>' if pieces else ""
    return f'<p class="lead">{told}{advice}</p>{strip}{more}<ol class="path">{lines}</ol>{_all_steps(data, timing, links)}'


def _sums(timing: Timing) -> str:
    """What the time went into; all of them together are the run's."""
    division = timing.division
    least = 0.01 * (timing.length - division.still)
    sums = (
        (sum(part.worked for part in division.parts), "of work"),
        (sum(part.between for part in division.parts), "between attempts"),
        (sum(part.waited for part in division.parts), "of waiting"),
        (division.rest, "after the last of them"),
        (division.still, "in which nothing was under way"),
    )
    told = [f"{span_text(seconds)} {what}" for index, (seconds, what) in enumerate(sums) if index == 0 or seconds > least]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _all_steps(data: ReportData, timing: Timing, links: dict[int, str]) -> str:
    steps = timing.path
    if len(steps) <= _MOST_STEPS:
        return ""
    lines = "".join(_step(data, timing, part, links) for part in timing.division.parts[:_MOST_FOLDED])
    left = f"<p class='soft'>{counted(len(steps) - _MOST_FOLDED, 'more step')}.</p>" if len(steps) > _MOST_FOLDED else ""
    return f'<details><summary>All {len(steps):,} in their order</summary><ol class="path">{lines}</ol>{left}</details>'


def _pieces(data: ReportData, timing: Timing) -> str:
    """The chain as a strip of the time in which the run went on."""
    division = timing.division
    went_on = (timing.length - division.still) or 1.0
    pieces: list[str] = []
    for part in division.parts:
        line = data.lines[part.step.number]
        wait = part.waited / went_on
        if wait > 0.001:
            pieces.append(f'<i class="wait" style="flex-grow:{wait:.5f}"></i>')
        named = esc(line.path, 60) if part.share > 0.08 else ""
        pieces.append(f'<i class="s-{class_of(line.state)}" style="flex-grow:{part.share:.5f}">{named}</i>')
    if division.rest / went_on > 0.001:
        pieces.append(f'<i class="wait" style="flex-grow:{division.rest / went_on:.5f}"></i>')
    return "".join(pieces)


def _step(data: ReportData, timing: Timing, part: Part, links: dict[int, str]) -> str:
    line, number = data.lines[part.step.number], part.step.number
    least = 0.02 * (timing.length - timing.division.still)
    name = esc(line.path, 300)
    linked = f'<a href="{links[number]}">{name}</a>' if number in links else name
    waited = f'<span class="soft">after a wait of {span_text(part.waited)}</span>' if part.waited > least else ""
    between = f", {span_text(part.between)} between them" if part.between > least else ""
    again = f'<span class="soft">{len(line.series)} attempts{between}</span>' if len(line.series) > 1 else ""
    return (
        f'<li><span class="sign s-{class_of(line.state)}" title="{esc(line.state)}">{sign(line.state)}</span>'
        f'<span class="who">{linked} {again} {waited}</span><span class="num">{span_text(part.worked + part.between)}</span>'
        f'<span class="num share-of">{part.share:.0%}</span><span class="meter" aria-hidden="true">'
        f'<i class="s-{class_of(line.state)}" style="width:{part.share:.2%}"></i></span></li>'
    )


# --- the run ---


def _run(data: ReportData, budget: Budget, *, values: bool) -> str:
    run = data.run
    facts = [
        ("Flow", esc(run.flow_name)),
        ("Run", f"<code>{esc(run.id)}</code>"),
        ("State", badge(str(run.state))),
        ("Made", moment(data.created)),
        ("Began", moment(run.start_date)),
        ("Ended", moment(run.end_date)),
    ]
    if data.owner is not None:
        facts.append(("Driven by", esc(data.owner)))
    if run.parent_run_id is not None:
        facts.append(("Part of", f"<code>{esc(run.parent_task_id)}</code> of <code>{esc(run.parent_run_id)}</code>"))
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{listed}</dl>{_params(data, budget) if values else ""}{_happenings(data)}'


def _params(data: ReportData, budget: Budget) -> str:
    if not data.run.params:
        return '<h3>Params</h3><p class="soft">It has none.</p>'
    rows: list[str] = []
    for name, value in list(data.run.params.items())[:200]:
        shown = budget.take(value_text(masked(str(name), value), MOST_VALUE), MOST_VALUE) or "…"
        rows.append(f'<tr><th scope="row"><code>{esc(name, 200)}</code></th><td><pre>{shown}</pre></td></tr>')
    more = len(data.run.params) - len(rows)
    left = f'<p class="soft">{counted(more, "more param")} left out.</p>' if more > 0 else ""
    return f'<h3>Params</h3><div class="scroll"><table class="plain"><tbody>{"".join(rows)}</tbody></table></div>{left}'


def _of_tasks(number: int) -> str:
    return f", {counted(number, 'task')}" if number else ""


def _happenings(data: ReportData) -> str:
    if not data.happenings:
        return ""
    shown = data.happenings[-100:]
    rows = "".join(
        f"<tr><td>{moment(it.at)}</td><td>{esc(it.kind)}"
        f"{f' <code>{esc(it.task_id)}</code>' if it.task_id else ''}{_of_tasks(it.tasks)}"
        f"</td><td>{esc(it.by) if it.by else '-'}</td></tr>"
        for it in shown
    )
    head = "<thead><tr><th>When</th><th>What</th><th>By</th></tr></thead>"
    return f'<h3>What was done to it</h3><div class="scroll"><table class="plain">{head}<tbody>{rows}</tbody></table></div>'
