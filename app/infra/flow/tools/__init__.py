"""The rooms that people use around the engine: command line, live progress, reports. They stand on its public API alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .progress import show_progress
    from .progress_lines import ProgressLines
    from .reporting import report_html, write_report

__all__ = ["ProgressLines", "report_html", "show_progress", "write_report"]


def __getattr__(name: str) -> Any:
    if name in ("report_html", "write_report"):
        from . import reporting  # late: most commands write no report

        return getattr(reporting, name)
    if name == "show_progress":
        from . import progress  # late: most commands follow no run

        return progress.show_progress
    if name == "ProgressLines":
        from . import progress_lines  # late: most commands follow no run

        return progress_lines.ProgressLines
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
