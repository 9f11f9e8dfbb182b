"""Text as markup: escaped, unable to steer a page, of bounded length. Whatever a user typed goes through here.

Must not know runs, nor what a page looks like.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from datetime import datetime

from ..terminal import STATE_SIGNS, safe, safe_lines
from ..units import moment_text

Redact = Callable[[str], str]

MOST_VALUE = 2000
"""Characters of a param, an input or an output that are shown."""
MOST_TRACEBACK = 20_000
MOST_LOGS = 200
"""Lines of a task's log that are shown."""
MOST_LINE = 1000
"""Characters of a line of a log, or of a reason."""
MOST_NAME = 300


def esc(text: object, most: int = MOST_LINE) -> str:
    """A user's text in one line; what could steer the page or turn the direction of its text is spelled out."""
    found = safe(text)
    return html.escape(found if len(found) <= most else f"{found[: most - 1]}…", quote=True)


def esc_lines(text: str, most: int) -> str:
    """A user's text of many lines. Of one that is too long the end is kept, where a traceback says what went wrong."""
    if len(text) > most:
        text = f"… {len(text) - most:,} characters left out …\n{text[-most:]}"
    return html.escape("\n".join(safe_lines(text)), quote=True)


def attributes(**given: object) -> str:
    """` class="x"`; of None nothing, of True the bare name. Underscores become dashes, one at the end is dropped."""
    found: list[str] = []
    for name, value in given.items():
        called = name.rstrip("_").replace("_", "-")
        if value is True:
            found.append(f" {called}")
        elif value is not None and value is not False:
            found.append(f' {called}="{esc(value)}"')
    return "".join(found)


def moment(at: datetime | None, text: str | None = None) -> str:
    """A moment, for people and for programs."""
    if at is None:
        return "-"
    return f'<time datetime="{at.isoformat()}" title="{moment_text(at)}">{moment_text(at) if text is None else text}</time>'


def badge(state: str, text: str | None = None) -> str:
    """A state with its sign."""
    shown = esc(state if text is None else text)
    return f'<span class="badge s-{class_of(state)}"><span class="sign" aria-hidden="true">{sign(state)}</span>{shown}</span>'


def sign(state: str) -> str:
    """The sign of a state, as terminals have it too."""
    return STATE_SIGNS.get(state, ("?", "?"))[0]


def class_of(state: str) -> str:
    """A state as it may stand in the name of a class: one of ours, or `none`."""
    return state if state in STATE_SIGNS else "none"


class Budget:
    """How many characters of users' texts a page may still hold.

    Args:
        left: so many.
        redact: takes secrets out of a text.
    """

    def __init__(self, left: int, redact: Redact | None = None) -> None:
        self.left = left
        self.redact = redact
        self.short = 0
        """How many texts there was no room for."""

    def clean(self, text: str) -> str:
        """A text without its secrets."""
        if self.redact is None:
            return text
        try:
            return str(self.redact(text))
        except Exception:  # the hook is the user's; what it could not look through is not shown
            return "(redaction failed)"

    def take(self, text: str, most: int) -> str | None:
        """A text of many lines as markup, if there is still room for it."""
        if self.left <= 0:
            self.short += 1
            return None
        found = esc_lines(self.clean(text), min(most, max(self.left, 200)))
        self.left -= len(found)
        return found
