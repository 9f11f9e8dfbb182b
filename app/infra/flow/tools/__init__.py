"""The rooms that people use around the engine: command line, live progress, reports. They stand on its public API alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .progress import show_progress
    from .progress_lines import ProgressLines
    from .reporting import report_html, write_report

__all__ = ["ProgressLines", "report_html", "show_progress", "write_report"]

_ROOMS = {
    "ProgressLines": "progress_lines",
    "report_html": "reporting",
    "show_progress": "progress",
    "write_report": "reporting",
}


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is not None:  # each when somebody asks for it: most commands need none
        return getattr(import_module(f".{room}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
