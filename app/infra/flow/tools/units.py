"""How lengths of time, moments, numbers and values are told to people. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any

MASK = "***"
"""What stands in place of a value that is nobody's business."""

_SECRET = re.compile(
    r"pass(?:wor[dt]|phrase|wd)|secret|credential|authori[sz]ation|bearer|api_?key|private_?key|key_?file|service_?account|cookie"
)
_SECRET_WORDS = re.compile(r"(?:token|key|auth|pwd|pw|pin|otp|pat|jwt|salt)$")
_SECRET_MANY = re.compile(r"(?:token|key|pin|otp)s$")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W_A-Za-z]+")
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/\s:@]*):[^/\s]*@")

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


def is_sensitive(name: str, value: Any = None) -> bool:
    """Whether something of this name looks like a secret: a password, a token, a key. `max_tokens=4096` is none: it counts."""
    if _SECRET.search(name.lower()):
        return True
    words = [word.lower() for word in _WORDS.findall(name)]
    if any(_SECRET_WORDS.fullmatch(word) for word in words):
        return True
    return not isinstance(value, (int, float)) and any(_SECRET_MANY.fullmatch(word) for word in words)


def masked(name: str, value: Any) -> Any:
    """A value as it may be shown: `***` where its name looks like that of a secret, and so with what is inside it by name.

    What is no value at all (None, a bool) is shown, and passwords in URLs are not. The value itself is left as it is; tuples
    in it become lists.

    Args:
        name: what the value is called, a param say; `""` where it has no name.
        value: the value.
    """
    root: list[Any] = [None]
    # A list, not recursion: values may be as deep as they like.
    waiting: list[tuple[Any, Any, str, Any]] = [(root, 0, name, value)]
    while waiting:
        where, place, called, item = waiting.pop()
        if item is not None and not isinstance(item, bool) and is_sensitive(called, item):
            where[place] = MASK
        elif type(item) is dict:
            inside: dict[Any, Any] = dict.fromkeys(item)
            where[place] = inside
            waiting.extend((inside, key, key if isinstance(key, str) else "", one) for key, one in item.items())
        elif type(item) is list or type(item) is tuple:
            listed: list[Any] = [None] * len(item)
            where[place] = listed
            waiting.extend((listed, index, "", one) for index, one in enumerate(item))
        else:
            where[place] = _PASSWORD_IN_URL.sub(rf"\1:{MASK}@", item) if isinstance(item, str) else item
    return root[0]
