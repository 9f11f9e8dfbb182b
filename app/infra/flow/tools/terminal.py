"""What a terminal takes: text that cannot steer it, in colours where it has them, cut to its width.

Must not know runs. Colours are on where the stream is a terminal, and follow `NO_COLOR`, `FORCE_COLOR` and `TERM=dumb`
(https://no-color.org, https://force-color.org).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any, TextIO

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36"}

STATE_COLOURS = {
    "success": "green",
    "failed": "red",
    "cancelled": "magenta",
    "skipped": "yellow",
    "running": "cyan",
    "scheduled": "dim",
    "interrupted": "yellow",
}
"""How states and results of attempts are coloured, wherever a terminal shows them."""
STATE_SIGNS = {
    "success": ("✓", "+"),
    "failed": ("✗", "x"),
    "cancelled": ("⊘", "!"),
    "skipped": ("↷", "-"),
    "running": ("▶", ">"),
    "scheduled": ("·", "."),
    "interrupted": ("⏸", "="),
}
"""The sign of each state, and what stands for it where the stream's encoding does not have it."""


def safe(text: object) -> str:
    """A user's text in one line that cannot steer a terminal: control characters, escapes and bidi marks are spelled out."""
    return _STEERING.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode("ascii"), str(text))


def safe_lines(text: object) -> list[str]:
    """A user's text of many lines, a traceback say; tabs become spaces."""
    return [safe(line) for line in str(text).expandtabs(4).splitlines()]


def width_of(text: str) -> int:
    """How many columns a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def cut(text: str, columns: int, mark: str = "…") -> str:
    """A text that takes at most so many columns; `mark` at its end says that something is left out. No colours in it."""
    if width_of(text) <= columns:
        return text
    mark = mark[: max(0, columns)]
    room = columns - width_of(mark)
    taken: list[str] = []
    for character in text:
        room -= width_of(character)
        if room < 0:
            break
        taken.append(character)
    return "".join(taken) + mark if columns > 0 else ""


def padded(text: str, columns: int) -> str:
    """A text filled up with spaces to so many columns."""
    return text + " " * max(0, columns - width_of(text))


def columns_of(stream: TextIO, otherwise: int = 100) -> int:
    """How wide a stream's terminal is; of what is no terminal, `COLUMNS` or `otherwise`."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size((otherwise, 24)).columns


def rows_of(stream: TextIO, otherwise: int = 24) -> int:
    """How high a stream's terminal is; of what is no terminal, `LINES` or `otherwise`."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or otherwise
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size((80, otherwise)).lines


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads it as it comes."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # closed, or no real stream
        return False


class Style:
    """How to write on one stream.

    Args:
        stream: where the text goes.
        environment: the process's by default.
    """

    def __init__(self, stream: TextIO, environment: Mapping[str, str] | None = None) -> None:
        known = os.environ if environment is None else environment
        dumb = known.get("TERM") == "dumb"
        self.is_terminal = is_terminal(stream) and not dumb
        wanted = bool(known.get("FORCE_COLOR")) or self.is_terminal
        self.colours = wanted and not known.get("NO_COLOR") and (not is_terminal(stream) or takes_escapes(stream))
        self._encoding = getattr(stream, "encoding", None) or "ascii"

    def __repr__(self) -> str:
        return f"<Style {'with' if self.colours else 'without'} colours>"

    def paint(self, text: str, *names: str) -> str:
        """A text in colours (`bold`, `dim`, `red` ...), where there are any."""
        codes = [_CODES[name] for name in names if name in _CODES]
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colours and codes and text else text

    def state(self, state: str, text: str | None = None) -> str:
        """A state, or another text, in the state's colour."""
        return self.paint(state if text is None else text, STATE_COLOURS.get(state, ""))

    def sign(self, state: str) -> str:
        """A state's sign, in its colour."""
        fine, plain = STATE_SIGNS.get(state, ("?", "?"))
        return self.state(state, self.fitting(fine, plain))

    def encodable(self, text: str) -> str:
        """A text with what the stream's encoding does not have spelled out."""
        try:
            return text.encode(self._encoding, "backslashreplace").decode(self._encoding)
        except LookupError:
            return text.encode("ascii", "backslashreplace").decode("ascii")

    def fitting(self, fine: str, plain: str) -> str:
        """The first text if the stream's encoding has all of it, else the second."""
        try:
            fine.encode(self._encoding)
        except (UnicodeEncodeError, LookupError):
            return plain
        return fine


def takes_escapes(stream: TextIO, platform: str = sys.platform) -> bool:
    """Whether a terminal understands escape sequences; a Windows console is told to.

    See https://learn.microsoft.com/windows/console/console-virtual-terminal-sequences.
    """
    if platform != "win32":
        return True
    import ctypes  # late: for windows alone
    import msvcrt  # late: for windows alone

    windows: Any = ctypes
    console: Any = msvcrt
    kernel = windows.windll.kernel32
    mode = ctypes.c_ulong()
    try:
        handle = console.get_osfhandle(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
        return bool(os.environ.get("TERM"))  # a terminal of its own, as mintty
    return bool(kernel.SetConsoleMode(handle, mode.value | 0x0004))  # ENABLE_VIRTUAL_TERMINAL_PROCESSING
