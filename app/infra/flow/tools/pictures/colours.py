"""How states look in a picture: a colour for a light and a dark page each, and a sign, so that colour is never all there is."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """How a state looks: its line and sign, its fill and the text on it; on a light page, and on a dark one."""

    line: str
    fill: str
    dark_line: str
    dark_fill: str
    sign: str


LOOKS: dict[str, Look] = {
    "success": Look("#2e7d32", "#e6f4e7", "#66bb6a", "#14301a", "M-4 0.5 L-1.2 3.2 L4 -3"),
    "failed": Look("#c62828", "#fdeaea", "#ff8a80", "#3f1717", "M-3.2 -3.2 L3.2 3.2 M3.2 -3.2 L-3.2 3.2"),
    "skipped": Look("#8a5a00", "#fdf3dc", "#ffca5f", "#372a0e", "M-4 -3 L-0.5 0 L-4 3 M0.5 -3 L4 0 L0.5 3"),
    "cancelled": Look("#7b1fa2", "#f5e9fa", "#d29cf0", "#301a3d", "M-3.5 0 H3.5"),
    "running": Look("#1565c0", "#e3effb", "#74b5ff", "#132a44", "M-2.5 -3.6 L3.6 0 L-2.5 3.6 Z"),
    "scheduled": Look("#5f6773", "#f1f3f5", "#a3acb8", "#23282e", "M-3.4 0 H-3.3 M0 0 H0.1 M3.4 0 H3.5"),
    "none": Look("#4a5a6a", "#ffffff", "#93a1b0", "#1d2127", ""),
}
"""By state; `none` is a box of which no state is known. The sign is an SVG path around (0, 0)."""
INK, PAPER, ARROW, FAINT = "#1c2024", "#ffffff", "#7d8794", "#59616b"
DARK_INK, DARK_PAPER, DARK_ARROW, DARK_FAINT = "#e8eaed", "#16191d", "#8b96a3", "#aab3bd"


def look_of(state: str | None) -> Look:
    """How a state looks; of none, and of one that is not known here, as none."""
    return LOOKS.get(state or "none", LOOKS["none"])


def class_of(state: str | None) -> str:
    """The CSS class of a state: `state-failed`."""
    return f"state-{state if state in LOOKS else 'none'}"
