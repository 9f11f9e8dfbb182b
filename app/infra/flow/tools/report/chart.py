"""The timeline as markup: rows of bars as SVG, items and subflows folded under their own, on an axis with its pauses cut out.

Must not know stores. Where the bars stand is `gantt`'s business.
"""

from __future__ import annotations

from datetime import timedelta

from ..units import counted, span_text
from .gantt import Axis, Bar, density
from .gathering import Line, ReportData
from .markup import MOST_NAME, attributes, class_of, esc, sign
from .timing import Timing

MOST_LINES = 300
_BUCKETS = 240
_BY_CLOCK = 600
"""Seconds from which on a run with pauses is told by the clock; below, people count from its beginning."""
_WORDS = {"wait": "waited for its turn", "delay": "until the next attempt"}


def timeline(data: ReportData, timing: Timing, links: dict[int, str]) -> str:
    """The whole timeline; empty where nothing ran."""
    if not any(timing.spans(line) for line in data.lines):
        return ""
    shown = timing.shown(data, MOST_LINES)
    left = len(data.lines) - len(shown)
    told = (
        f'<p class="soft">{counted(left, "task")} of {len(data.lines):,} are left out here: '
        "those that failed, the critical path and the longest are shown.</p>"
        if left
        else ""
    )
    rows = _rows(data, timing, shown, links)
    names = (_width(data.lines[number]) for number in shown)
    width = min(max(14, *names), 36)
    axis = _axis(data, timing.axis)
    pauses = (
        f'<span class="key"><svg width="22" height="12" aria-hidden="true"><rect class="pause" width="22" height="12"/></svg>'
        f"nothing ran for {', '.join(span_text(pause.end - pause.start) for pause in timing.axis.pauses)}, cut out</span>"
        if timing.axis.pauses
        else ""
    )
    key = "".join(
        f'<span class="key"><svg width="22" height="12" aria-hidden="true">'
        f'<rect class="{css}" y="{top}" width="22" height="{high}"/></svg>{text}</span>'
        for css, top, high, text in (
            ("bar s-success", 1, 10, "an attempt, coloured by how it ended"),
            ("wait", 3, 6, "ready, waiting for its turn"),
            ("delay", 3, 6, "between two attempts"),
            ("crit", 9, 3, "on the critical path"),
        )
    )
    return f"""{told}<svg class="defs" aria-hidden="true" width="0" height="0"><defs>
<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<rect width="6" height="6" class="hatch-ground"/><rect width="2" height="6" class="hatch-line"/></pattern></defs></svg>
<p class="legend">{key}{pauses}</p>
<div class="gantt" tabindex="0" role="group" aria-label="Timeline" style="--name:minmax(0,{width * 0.49:.1f}rem)">
{axis}<div class="g-body">{_grid(timing.axis)}{rows}</div></div>"""


def _width(line: Line) -> int:
    """About how many characters the name of a row takes, with what stands before and behind it."""
    return len(line.own) + 2 * line.depth + (22 if line.kind == "map" else 6 if line.children else 4)


def _axis(data: ReportData, axis: Axis) -> str:
    labels: list[str] = []
    reached = -1.0
    clock = bool(axis.pauses) and axis.end - axis.start >= _BY_CLOCK
    for tick in axis.ticks():
        place = axis.place(tick)
        if place - reached < (0.1 if clock and reached == 0 else 0.07) or place > 0.985:
            continue
        reached = place
        text = f"{data.start + timedelta(seconds=tick):%H:%M:%S}" if clock else span_text(tick) if tick else "0"
        labels.append(f'<span style="left:{place:.3%}">{text}</span>')
    return f'<div class="g-axis" aria-hidden="true"><div class="g-ticks">{"".join(labels)}</div></div>'


def _grid(axis: Axis) -> str:
    lines = "".join(f'<line x1="{axis.place(tick):.3%}" x2="{axis.place(tick):.3%}" y1="0" y2="100%"/>' for tick in axis.ticks())
    cuts = "".join(
        f'<rect class="pause" x="{axis.place(pause.start):.3%}" width="{axis.place(pause.end) - axis.place(pause.start):.3%}" '
        f'height="100%"/>'
        for pause in axis.pauses
    )
    return f'<div class="g-grid" aria-hidden="true"><svg width="100%" height="100%">{lines}{cuts}</svg></div>'


def _rows(data: ReportData, timing: Timing, shown: set[int], links: dict[int, str]) -> str:
    """All rows; those below another one stand in its fold. A list of open folds in place of recursion."""
    parts: list[str] = []
    open_folds: list[Line] = []
    for line in data.lines:
        if line.number not in shown:
            continue
        while open_folds and line.parent is not open_folds[-1]:
            open_folds.pop()
            parts.append("</details>")
        row = _row(line, timing, links)
        if any(child.number in shown for child in line.children):
            is_open = len(line.children) <= 12 and line.depth < 2
            css = "g-row crit" if line.number in timing.on_path else "g-row"
            parts.append(f'<details class="g-fold"{" open" if is_open else ""}><summary class="{css}">{row}</summary>')
            open_folds.append(line)
        else:
            parts.append(f'<div class="g-row{" crit" if line.number in timing.on_path else ""}">{row}</div>')
    parts.append("</details>" * len(open_folds))
    return "".join(parts)


def _row(line: Line, timing: Timing, links: dict[int, str]) -> str:
    name = esc(line.own, MOST_NAME)
    linked = f'<a href="{links[line.number]}" title="{esc(line.path, MOST_NAME)}">{name}</a>' if line.number in links else name
    many = f'<span class="kind">{counted(len(line.children), "item")}</span>' if line.kind == "map" else ""
    took = timing.took(line)
    told = span_text(took) if took is not None else "-"
    if len(line.children) > 12:
        drawn, words = _many(line, timing), f"{counted(len(line.children), 'item')}, how many ran at once"
    else:
        drawn, words = _bars(timing.bars(line), timing.axis), _told(line, timing)
    crit = _mark(line, timing)
    label = f"{line.path}: {line.state}, {words}"
    return (
        f'<span class="g-name" style="--d:{min(line.depth, 12)}"><span class="sign s-{class_of(line.state)}" aria-hidden="true">'
        f"{sign(line.state)}</span>{linked}{many}</span>"
        f'<svg class="g-lane" role="img"{attributes(aria_label=label)}>{drawn}{crit}</svg>'
        f'<span class="g-took num">{told}</span>'
    )


def _told(line: Line, timing: Timing) -> str:
    took = timing.took(line)
    again = len(line.attempts)
    return f"{span_text(took)}{f', {again} attempts' if again > 1 else ''}" if took is not None else "it did not run"


def _bars(bars: list[Bar], axis: Axis) -> str:
    found: list[str] = []
    for bar in bars:
        left = axis.place(bar.start)
        width = max(axis.place(bar.end) - left, 0.0)
        length = span_text(bar.end - bar.start)
        if bar.kind == "attempt":
            title = f"attempt {bar.number}: {bar.state}, {length}"
            found.append(
                f'<rect class="bar s-{class_of(bar.state)}" x="{left:.3%}" y="4" width="{max(width, 0.0018):.3%}" height="14" '
                f'rx="2"><title>{esc(title)}</title></rect>'
            )
        elif width > 0.0008:
            title = f"{length} {_WORDS[bar.kind]}"
            found.append(
                f'<rect class="{bar.kind}" x="{left:.3%}" y="8" width="{width:.3%}" height="6"><title>{esc(title)}</title></rect>'
            )
    return "".join(found)


def _many(line: Line, timing: Timing) -> str:
    """How many of the items ran at once, and where those stand that failed."""
    spans = [(start, end) for child in line.children for _, _, start, end in timing.spans(child)]
    failed = [(start, end) for child in line.children for _, state, start, end in timing.spans(child) if state == "failed"]
    levels = density(spans, timing.axis, _BUCKETS)
    most = max(levels, default=0) or 1
    css = "success" if any(child.state == "success" for child in line.children) else class_of(line.state)
    area = _area(levels, most, f"{css} many")
    red = _area(density(failed, timing.axis, _BUCKETS), most, "failed", 3.0) if failed else ""
    return (
        f'<svg x="0" y="2" width="100%" height="18" viewBox="0 0 {_BUCKETS} 18" preserveAspectRatio="none">{area}{red}'
        f"<title>at most {most:,} at once</title></svg>"
    )


def _area(levels: list[int], most: int, css: str, least: float = 1.5) -> str:
    steps: list[str] = []
    before = 0
    for index, level in enumerate(levels):
        if level != before:
            height = max(level / most * 18, least) if level else 0.0
            steps.append(f"H{index}V{18 - height:.1f}")
            before = level
    return f'<path class="area s-{css}" d="M0 18{"".join(steps)}H{len(levels)}V18Z"/>' if steps else ""


def _mark(line: Line, timing: Timing) -> str:
    """The line under the bars of what is on the critical path."""
    start, took = timing.start(line), timing.took(line)
    if line.number not in timing.on_path or start is None or took is None:
        return ""
    left = timing.axis.place(start)
    width = max(timing.axis.place(start + took) - left, 0.0018)
    return f'<rect class="crit" x="{left:.3%}" y="19" width="{width:.3%}" height="3"/>'
