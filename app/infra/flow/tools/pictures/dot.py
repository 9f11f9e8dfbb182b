"""A picture as DOT text for Graphviz (https://graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

import re

from .colours import ARROW, FAINT, INK, look_of
from .model import Box, Picture

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def dot_of(picture: Picture, *, direction: str = "LR") -> str:
    """A picture as a DOT digraph; the keys of the boxes are the names of the nodes."""
    lines = [
        f"digraph {dot_text(picture.title or 'flow')} {{",
        f"    rankdir={direction}; compound=true;",
        f'    graph [fontname="sans-serif", fontcolor="{INK}"];',
        f'    node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=12, fontcolor="{INK}"];',
        f'    edge [color="{ARROW}", arrowsize=0.7];',
    ]
    steps: list[tuple[str, Picture | str]] = [("    ", picture)]
    opened = {box.key: number for number, box in enumerate(picture.everything()) if box.inside is not None}
    first, last = _end_inside(picture, 0), _end_inside(picture, -1)
    while steps:
        indent, step = steps.pop()
        if isinstance(step, str):
            lines.append(indent + step)
            continue
        then: list[tuple[str, Picture | str]] = []
        for box in step.boxes:
            if box.inside is None:
                then.append((indent, _node(box)))
            else:
                look = look_of(box.state)
                then.append((indent, f"subgraph cluster_{opened[box.key]} {{"))
                then.append((indent, f"    label={dot_text(_label(box, ' · '))}; tooltip={dot_text(box.description)};"))
                then.append((indent, f'    style=rounded; color="{look.line}"; fontcolor="{FAINT}";'))
                then += [(indent + "    ", box.inside), (indent, "}")]
        for arrow in step.arrows:
            source, target = last[arrow.source], first[arrow.target]
            options = ["style=dashed"] if arrow.mapped else []
            # Graphviz draws arrows between nodes only: one of those inside stands for an opened flow.
            options += [f"ltail=cluster_{opened[arrow.source]}"] if arrow.source in opened else []
            options += [f"lhead=cluster_{opened[arrow.target]}"] if arrow.target in opened else []
            suffix = f" [{', '.join(options)}]" if options else ""
            then.append((indent, f"{dot_text(source)} -> {dot_text(target)}{suffix};"))
        steps += reversed(then)
    lines.append("}")
    return "\n".join(lines) + "\n"


def dot_text(text: str) -> str:
    """A text between quotes, with nothing in it that DOT would read as more than text."""
    clean = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r\n", "\n")
    return '"' + "\\n".join(_CONTROL.sub("\ufffd", line) for line in clean.split("\n")) + '"'


def _label(box: Box, between: str) -> str:
    state = box.state if box.state and box.state != "success" and not box.counts else None
    return between.join(text for text in (box.label, " · ".join(text for text in (box.detail, state) if text)) if text)


def _node(box: Box) -> str:
    look = look_of(box.state)
    options = [f"label={dot_text(_label(box, chr(10)))}", f'fillcolor="{look.fill}"', f'color="{look.line}"']
    options.append(f"tooltip={dot_text(box.description)}")
    if box.kind == "flow":
        options.append("peripheries=2")
    if box.kind in ("map", "fold"):
        options.append("shape=box3d")
    if box.branch:
        options.append("shape=hexagon")
    return f"{dot_text(box.key)} [{', '.join(options)}];"


def _end_inside(picture: Picture, index: int) -> dict[str, str]:
    """For each box the node that its arrows can lead to or from: itself, or of an opened flow the first or last one inside."""
    found: dict[str, str] = {}
    for box in reversed(picture.everything()):  # the innermost first
        found[box.key] = box.key if box.inside is None else found[box.inside.boxes[index].key]
    return found
