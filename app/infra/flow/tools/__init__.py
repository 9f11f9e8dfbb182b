"""The rooms that people use around the engine, such as its command line and its reports. They stand on its public API alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reporting import report_html, write_report

__all__ = ["report_html", "write_report"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import reporting  # late: most commands write no report

        return getattr(reporting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
