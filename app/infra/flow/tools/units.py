"""How lengths of time, moments, numbers and values are told to people. Pure."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

_SPANS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def span_text(seconds: float | timedelta | None) -> str:
    """A length of time: `0.4 ms`, `20 ms`, `1.5 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`; of None a dash."""
    if seconds is None:
        return "-"
    value = max(0.0, seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    if value < 0.0995:
        return f"{value * 1000:.2g} ms" if value else "0 s"
    if value < 59.95:
        return f"{value:.3g} s" if value < 9.995 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from one moment to another; None where one is not known."""
    return None if start is None or end is None else (end - start).total_seconds()


def moment_text(moment: datetime | None) -> str:
    """A moment: `2026-03-01 04:15:09 UTC`; of None a dash. Times are told in UTC, as they are stored."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def seconds_meant(text: str) -> float:
    """How many seconds `90`, `90s`, `15m`, `6h`, `30d` or `2w` are.

    Raises:
        ValueError: it is none of these.
    """
    unit = _SPANS.get(text[-1:].lower())
    number = float(text[:-1] if unit is not None else text)
    if not 0 <= number < 1e12:
        raise ValueError(text)
    return number * (1.0 if unit is None else unit)


def counted(number: int, what: str, many: str | None = None) -> str:
    """`1 task`, `1,234 tasks`."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def value_text(value: Any, most: int = 2000) -> str:
    """A value as people read it: JSON where it is such a value, else its repr; cut to so many characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        try:
            text = repr(value)
        except Exception:  # a class whose __repr__ is broken
            text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 1]}…"
