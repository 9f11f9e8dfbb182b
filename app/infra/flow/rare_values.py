"""Values of standard types that few programs store: decimals, UUIDs, paths, named time zones. What each is called and made from.

Loaded when the first of them is written or read, since their modules take as long to load as half of the engine. Must not know
how a value is tagged.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

ZONE = ZoneInfo

# A concrete path reads back as this machine's kind of path; a pure one as what it was.
TAGS: dict[type, str] = {
    Decimal: "Decimal",
    UUID: "UUID",
    type(Path()): "Path",
    PurePosixPath: "PurePosixPath",
    PureWindowsPath: "PureWindowsPath",
}
"""The tag of each type; its content is the value's own text."""

READERS: dict[str, Callable[[str], Any]] = {
    "Decimal": Decimal,
    "UUID": UUID,
    "Path": Path,
    "PurePosixPath": PurePosixPath,
    "PureWindowsPath": PureWindowsPath,
}
