"""A picture as SVG: for pages, notebooks and files. Readable without colours, by screen readers and on light and dark pages.

Everything that a user typed is escaped; nothing is loaded, and nothing in it is a script.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html import escape

from .colours import (
    ARROW,
    DARK_ARROW,
    DARK_FAINT,
    DARK_INK,
    DARK_PAPER,
    FAINT,
    INK,
    LOOKS,
    PAPER,
    class_of,
    look_of,
)
from .layout import (
    DETAIL_SIZE,
    HEADING,
    HEADING_SIZE,
    LABEL_SIZE,
    MARGIN,
    SIDE,
    Layout,
    Place,
    Point,
    Route,
    heading_of,
    layout_of,
)
from .lettering import fitted, shortened, text_width
from .model import STATES, Box, Picture, counts_text

LIGHT = f"--nb-ink:{INK};--nb-paper:{PAPER};--nb-arrow:{ARROW};--nb-faint:{FAINT};" + "".join(
    f"--nb-{state}:{look.line};--nb-{state}-fill:{look.fill};" for state, look in LOOKS.items()
)
"""The custom properties of a light page, for a rule of its style sheet."""
DARK = f"--nb-ink:{DARK_INK};--nb-paper:{DARK_PAPER};--nb-arrow:{DARK_ARROW};--nb-faint:{DARK_FAINT};" + "".join(
    f"--nb-{state}:{look.dark_line};--nb-{state}-fill:{look.dark_fill};" for state, look in LOOKS.items()
)
"""Those of a dark one."""
RULES = (
    ".nb-picture{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif}"
    ".nb-picture .paper{fill:var(--nb-paper)}"
    ".nb-picture text{fill:var(--nb-ink);stroke:none}"
    ".nb-picture .detail,.nb-picture .legend text{fill:var(--nb-faint)}"
    ".nb-picture .arrow{stroke:var(--nb-arrow)}.nb-picture .head{fill:var(--nb-arrow);stroke:none}"
    ".nb-picture .sign .mark{fill:none;stroke:var(--nb-paper)}"
    ".nb-picture .inside>rect{fill-opacity:.35;stroke-dasharray:5 3}"
    ".nb-picture .fold-back{fill-opacity:.6}"
    ".nb-picture a:focus{outline:none}.nb-picture a:focus rect,.nb-picture a:hover rect{stroke-width:3}"
) + "".join(
    f".nb-picture .state-{state}>rect{{stroke:var(--nb-{state});fill:var(--nb-{state}-fill)}}"
    f".nb-picture .state-{state}>.sign{{fill:var(--nb-{state})}}"
    for state in LOOKS
)
"""How the parts of a picture use these properties; see `svg_of(standalone=False)`."""
STYLE = f".nb-picture{{{LIGHT}}}@media (prefers-color-scheme:dark){{.nb-picture{{{DARK}}}}}{RULES}"
"""All that a picture needs, as one that stands alone has it."""

_NOT_IN_XML = re.compile(
    "[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)

Link = Callable[[str], "str | None"]


def svg_of(
    picture: Picture,
    *,
    standalone: bool = True,
    id_prefix: str = "",
    link: Link | None = None,
    direction: str | None = None,
    legend: bool = True,
) -> str:
    """A picture as an `<svg>` element.

    Args:
        picture: what is to be seen.
        standalone: with its own style, which follows the reader's preference for light or dark. Else the page brings `RULES`,
            and `LIGHT` or `DARK` on something around it.
        id_prefix: what the ids of boxes begin with, where they are to have some: `{id_prefix}box-0` and so on.
        link: gives the address behind a box by its key, or None.
        direction: `LR` or `TB`; by default what suits.
        legend: whether it says what the colours mean.
    """
    layout = layout_of(picture, direction)
    states = _states(picture)
    below = 26 if legend and states else 0
    above = 30 if standalone and picture.title else 0
    legend_parts, legend_width = _legend(states, layout.height + above) if below else ([], 0.0)
    title_width = text_width(picture.title, 15) + 2 * MARGIN if above else 0
    width, height = max(layout.width, legend_width, min(title_width, 600.0)), layout.height + above + below
    summary = _summary(picture)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nb-picture" role="{"img" if link is None else "group"}" '
        f'aria-label="{quoted(_title(picture))}" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'width="{_n(width)}" height="{_n(height)}">',
        f"<title>{quoted(_title(picture))}</title><desc>{quoted(summary)}</desc>",
    ]
    if standalone:
        out.append(f"<style>{STYLE}</style>")
    out.append(f'<rect class="paper" width="{_n(width)}" height="{_n(height)}" fill="{PAPER}"/>')
    if above:
        out.append(
            f'<text class="title" x="{_n(MARGIN)}" y="24" font-size="15" font-weight="600">'
            f"{quoted(fitted(picture.title, 15, width - 2 * MARGIN))}</text>"
        )
    _Writer(out, id_prefix, link).write(layout, 0.0, float(above))
    out += legend_parts
    out.append("</svg>")
    return "".join(out)


def quoted(text: str) -> str:
    """A user's text as it may stand in markup, between tags and in an attribute; what XML cannot hold becomes `\ufffd`."""
    return escape(_NOT_IN_XML.sub("\ufffd", text), quote=True)


class _Writer:
    def __init__(self, out: list[str], id_prefix: str, link: Link | None) -> None:
        self.out = out
        self.id_prefix = id_prefix
        self.link = link
        self.number = 0

    def write(self, layout: Layout, x: float, y: float) -> None:
        # Opened flows wait with their place in the text: a stack instead of recursion.
        steps: list[str | tuple[Layout, float, float]] = [(layout, x, y)]
        while steps:
            step = steps.pop()
            if isinstance(step, str):
                self.out.append(step)
                continue
            here, left, top = step
            self.out.append(f'<g transform="translate({_n(left)} {_n(top)})">' if left or top else "<g>")
            self.arrows(here)
            then: list[str | tuple[Layout, float, float]] = []
            for place in here.places:
                if place.inside is None:
                    then.append(self.box(place))
                else:
                    spare = (place.width - place.inside.width) / 2
                    then += [self.opened(place), (place.inside, place.x + spare, place.y + HEADING), "</g>"]
            then.append("</g>")
            steps += reversed(then)

    def arrows(self, layout: Layout) -> None:
        if not layout.routes:
            return
        self.out.append(f'<g class="arrows" fill="none" stroke="{ARROW}" stroke-width="1.3" aria-hidden="true">')
        flat = layout.direction == "LR"
        for route in layout.routes:
            self.out.append(
                f'<path class="arrow" data-from="{quoted(route.source)}" data-to="{quoted(route.target)}" '
                f'd="{_way(route, flat)}"{_DOTTED if route.mapped else ""}/>'
            )
        ends = dict.fromkeys(route.points[-1] for route in layout.routes)
        heads = "".join(f"M{_n(x)} {_n(y)}{'l-7 -4v8z' if flat else 'l-4 -7h8z'}" for x, y in ends)
        self.out.append(f'<path class="head" fill="{ARROW}" stroke="none" d="{heads}"/></g>')

    def begin(self, place: Place, name: str) -> str:
        box = place.box
        number, self.number = self.number, self.number + 1
        label = f' id="{quoted(self.id_prefix)}box-{number}"' if self.id_prefix else ""
        state = f' data-state="{quoted(box.state)}"' if box.state else ""
        return (
            f'<g class="{name} {class_of(box.state)}"{label} data-task="{quoted(box.key)}"{state}>'
            f"<title>{quoted(box.description)}</title>"
        )

    def box(self, place: Place) -> str:
        box = place.box
        look = look_of(box.state)
        paint = f'fill="{look.fill}" stroke="{look.line}"'
        x, y, width, height = place.x, place.y, place.width, place.height
        rect = f'width="{_n(width)}" height="{_n(height)}" rx="{_n(13 if box.branch else 6)}" {paint}'
        parts = [self.begin(place, f"box kind-{box.kind}")]
        if box.kind in ("map", "fold"):
            parts.append(f'<rect class="fold-back" x="{_n(x + 4)}" y="{_n(y + 4)}" {rect}/>')
        parts.append(f'<rect x="{_n(x)}" y="{_n(y)}" {rect} stroke-width="{"2" if box.state == "failed" else "1.3"}"/>')
        if box.kind == "flow":
            parts.append(
                f'<rect x="{_n(x + 3)}" y="{_n(y + 3)}" width="{_n(width - 6)}" height="{_n(height - 6)}" rx="4" {paint} '
                'stroke-width="1"/>'
            )
        parts.append(_words(box, x, y, width, height))
        parts.append("</g>")
        return _linked("".join(parts), self.link, box)

    def opened(self, place: Place) -> str:
        box = place.box
        look = look_of(box.state)
        room = place.width - 2 * SIDE - (20 if box.state in LOOKS else 0)
        heading = fitted(heading_of(box), HEADING_SIZE, room)
        start = place.x + SIDE
        parts = [
            self.begin(place, "box inside kind-flow"),
            f'<rect x="{_n(place.x)}" y="{_n(place.y)}" width="{_n(place.width)}" height="{_n(place.height)}" rx="8" '
            f'fill="{look.fill}" stroke="{look.line}"/>',
        ]
        head: list[str] = []
        if look.sign:
            parts.append(_sign(box.state, start + 7, place.y + HEADING / 2 + 2))
            start += 20
        head.append(
            f'<text x="{_n(start)}" y="{_n(place.y + HEADING / 2 + 6)}" font-size="{_n(HEADING_SIZE)}" font-weight="600">'
            f"{quoted(heading)}</text>"
        )
        return "".join(parts) + _linked("".join(head), self.link, box)


_DOTTED = ' stroke-dasharray="5 3"'


def _linked(content: str, link: Link | None, box: Box) -> str:
    address = link(box.key) if link is not None else None
    if address is None:
        return content
    state = f", {box.state}" if box.state else ""
    return f'<a href="{quoted(address)}" aria-label="{quoted(shortened(box.label) + state)}">{content}</a>'


def _sign(state: str | None, x: float, y: float) -> str:
    look = look_of(state)
    return (
        f'<g class="sign" transform="translate({_n(x)} {_n(y)})" fill="{look.line}" stroke="none"><circle r="7"/>'
        f'<path class="mark" d="{look.sign}" fill="none" stroke="{PAPER}" stroke-width="1.7" stroke-linecap="round" '
        'stroke-linejoin="round"/></g>'
    )


def _words(box: Box, x: float, y: float, width: float, height: float) -> str:
    has_sign = bool(look_of(box.state).sign)
    start = x + SIDE + (20 if has_sign else 0)
    room = width - 2 * SIDE - (20 if has_sign else 0)
    middle = y + (16 if box.detail else height / 2)
    parts = [_sign(box.state, x + SIDE + 6, middle)] if has_sign else []
    parts.append(
        f'<text x="{_n(start)}" y="{_n(middle + 4.5)}" font-size="{_n(LABEL_SIZE)}">'
        f"{quoted(fitted(box.label, LABEL_SIZE, room))}</text>"
    )
    if box.detail:
        parts.append(
            f'<text class="detail" x="{_n(x + SIDE)}" y="{_n(y + 35)}" font-size="{_n(DETAIL_SIZE)}" fill="{FAINT}">'
            f"{quoted(fitted(box.detail, DETAIL_SIZE, width - 2 * SIDE))}</text>"
        )
    return "".join(parts)


def _way(route: Route, flat: bool) -> str:
    """The path of an arrow: curves in the direction of the picture, straight where there is nothing to turn."""
    points = list(route.points)
    x, y = points[-1]
    points[-1] = (x - 5, y) if flat else (x, y - 5)  # the head covers the rest
    here = points[0]
    parts = [f"M{_n(here[0])} {_n(here[1])}"]
    for index, point in enumerate(points[1:]):
        turn = None if index % 2 or not route.turns else route.turns[index // 2]
        if index % 2:
            parts.append(_straight(here, point, flat))
        else:
            parts.append(_curve(here, point, flat) if turn is None else _along_a_rail(here, point, turn, flat))
        here = point
    return "".join(parts)


def _straight(_: Point, to: Point, flat: bool) -> str:
    return f"H{_n(to[0])}" if flat else f"V{_n(to[1])}"


def _curve(start: Point, to: Point, flat: bool) -> str:
    if flat:
        if abs(start[1] - to[1]) < 0.5:
            return f"L{_n(to[0])} {_n(to[1])}"
        middle = (start[0] + to[0]) / 2
        return f"C{_n(middle)} {_n(start[1])} {_n(middle)} {_n(to[1])} {_n(to[0])} {_n(to[1])}"
    if abs(start[0] - to[0]) < 0.5:
        return f"L{_n(to[0])} {_n(to[1])}"
    middle = (start[1] + to[1]) / 2
    return f"C{_n(start[0])} {_n(middle)} {_n(to[0])} {_n(middle)} {_n(to[0])} {_n(to[1])}"


def _along_a_rail(start: Point, to: Point, turn: float, flat: bool) -> str:
    """Straight to the rail, along it, and straight on, with round corners."""
    (x1, y1), (x2, y2) = (start, to) if flat else (start[::-1], to[::-1])
    if abs(y1 - y2) < 0.5:
        return f"L{_n(to[0])} {_n(to[1])}"
    radius = min(8.0, abs(y2 - y1) / 2, turn - x1, x2 - turn)
    sign = 1 if y2 > y1 else -1
    points = [(turn - radius, y1), (turn, y1), (turn, y1 + sign * radius), (turn, y2 - sign * radius), (turn, y2)]
    points.append((turn + radius, y2))
    into, corner, out, before, second, behind = (f"{_n(x)} {_n(y)}" if flat else f"{_n(y)} {_n(x)}" for x, y in points)
    return f"L{into}Q{corner} {out}L{before}Q{second} {behind}L{_n(to[0])} {_n(to[1])}"


def _states(picture: Picture) -> Counter[str]:
    """How many tasks that are seen, one by one or in a box of several, are in which state."""
    found: Counter[str] = Counter()
    for box in picture.everything():
        if box.kind == "fold":
            found.update(box.counts)
        elif box.state:
            found[box.state] += 1
    return found


def _legend(states: Counter[str], y: float) -> tuple[list[str], float]:
    x = MARGIN
    parts = ['<g class="legend" aria-hidden="true">']
    for state in [state for state in STATES if states[state]]:
        text = f"{state} {states[state]:,}"
        parts.append(f'<g class="{class_of(state)}">{_sign(state, x + 7, y + 4)}')
        parts.append(f'<text x="{_n(x + 19)}" y="{_n(y + 8)}" font-size="{_n(DETAIL_SIZE)}" fill="{FAINT}">{text}</text></g>')
        x += 19 + text_width(text, DETAIL_SIZE) + 18
    parts.append("</g>")
    return parts, x


def _title(picture: Picture) -> str:
    title = shortened(picture.title) or "A flow"
    return f"{title}: {picture.state}" if picture.state else title


def _summary(picture: Picture) -> str:
    """What a screen reader is told of the whole."""
    states = _states(picture)
    number = len(picture.boxes)
    told = [f"{picture.number:,} tasks" if picture.number != 1 else "1 task"]
    if number != picture.number:
        told[0] += f" in {number:,} boxes"
    if states:
        told.append(counts_text(states, "state").partition(": ")[2] or f"{states.total()} success")
    names = ", ".join(f"{shortened(box.label)} {box.state or ''}".strip() for box in picture.boxes[:50])
    return f"{'; '.join(told)}. {names}{' and more' if number > 50 else ''}."


def _n(value: float) -> str:
    """A number in as few characters as it takes."""
    return f"{value:.1f}".removesuffix(".0")
