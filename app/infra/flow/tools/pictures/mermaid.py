"""A picture as Mermaid text (https://mermaid.js.org), for Markdown files, issues and wikis that draw it."""

from __future__ import annotations

from .colours import LOOKS, class_of
from .model import Box, Picture

MOST_ARROWS = 450
"""Mermaid refuses more than 500 unless the page says otherwise."""
MOST_TEXT = 45_000
"""And texts of more than 50,000 characters."""


def mermaid_of(picture: Picture, *, direction: str = "LR") -> str:
    """A picture as a Mermaid flow chart.

    Args:
        picture: what is to be seen.
        direction: `LR`, `TB`, `RL` or `BT`.
    """
    names = {box.key: f"n{number}" for number, box in enumerate(picture.everything())}
    lines = [f"flowchart {direction}"]
    used: dict[str, None] = {}
    steps: list[tuple[str, Picture | str]] = [("    ", picture)]
    while steps:
        indent, step = steps.pop()
        if isinstance(step, str):
            lines.append(indent + step)
            continue
        then: list[tuple[str, Picture | str]] = []
        for box in step.boxes:
            if box.state:
                used[class_of(box.state)] = None
            name = names[box.key]
            if box.inside is None:
                then.append((indent, f"{name}{_shape(box)}{f':::{class_of(box.state)}' if box.state else ''}"))
            else:
                then.append((indent, f'subgraph {name}["{mermaid_text(_label(box))}"]'))
                then += [(indent + "    ", box.inside), (indent, "end")]
                if box.state:
                    then.append((indent, f"class {name} {class_of(box.state)}"))
        for arrow in step.arrows:
            then.append((indent, f"{names[arrow.source]} {'-.->' if arrow.mapped else '-->'} {names[arrow.target]}"))
        steps += reversed(then)
    for state, look in LOOKS.items():
        if class_of(state) in used:
            lines.append(f"    classDef {class_of(state)} fill:{look.fill},stroke:{look.line},color:#1c2024")
    return "\n".join(lines) + "\n"


def mermaid_text(text: str) -> str:
    """A text as it may stand between quotes: all that could mean something there is spelled by its number."""
    return "".join(
        character if character.isalnum() or character in " _.,-…·" else "" if character in "\r" else f"#{ord(character)};"
        for character in text.replace("\n", " ")
    )


def _label(box: Box) -> str:
    words = box.label if not box.detail else f"{box.label} · {box.detail}"
    state = f" · {box.state}" if box.state and box.state != "success" and not box.counts else ""
    return words + state


def _shape(box: Box) -> str:
    text = mermaid_text(_label(box)) or " "
    if box.kind == "flow":
        return f'[["{text}"]]'
    if box.branch:
        return f'{{{{"{text}"}}}}'
    return f'("{text}")' if box.kind == "task" else f'[/"{text}"/]' if box.kind == "map" else f'["{text}"]'
