"""How wide a text will be about in a picture, and what of it fits: nobody asks a font. Pure."""

from __future__ import annotations

import unicodedata

_NARROW = frozenset("iljtfrI.,:;'|!()[]{}`/\\ -")
_WIDE = frozenset("mwMW@%&QOGD")


def text_width(text: str, size: float) -> float:
    """The width in pixels that a sans-serif font of that size takes at most for a text, but for odd fonts."""
    total = 0.0
    for character in text:
        if character in _NARROW:
            total += 0.38
        elif character in _WIDE:
            total += 0.9
        elif character.isascii():
            total += 0.7 if character.isupper() else 0.6
        elif unicodedata.combining(character):
            continue
        else:
            total += 1.05 if unicodedata.east_asian_width(character) in "WF" else 0.72
    return total * size


def fitted(text: str, size: float, width: float) -> str:
    """A text, cut so that it is no wider. The beginning and the end stay: ids often differ in either."""
    if text_width(text, size) <= width:
        return text
    head, tail = 0, 0
    room = width - text_width("…", size)
    while head + tail < len(text):
        at_front = head <= 2 * tail
        room -= text_width(text[head] if at_front else text[-1 - tail], size)
        if room < 0:
            break
        head, tail = (head + 1, tail) if at_front else (head, tail + 1)
    return f"{text[:head]}…{text[len(text) - tail :]}"


def shortened(text: str, most: int = 200) -> str:
    """A text of at most so many characters, where it is not drawn but told."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
