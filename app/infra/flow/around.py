"""The one door from the engine to the rooms around it: fetches something of theirs when a flow or a run is asked to show itself.

Knows that they are there, and nothing of them; they stand on the package's face, as everybody's programs do.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from importlib import import_module
from typing import Any


def around(room: str, name: str) -> Any:
    """What a room around the engine calls by this name; its own package is loaded with the first of them."""
    return getattr(import_module(f".tools.{room}", __package__), name)


def bundle(text: str, html: Callable[[], str], include: Container[str] | None, exclude: Container[str] | None) -> dict[str, str]:
    """What a notebook is given to show something: its text and its HTML, those of them that are wanted."""
    wanted = [
        kind
        for kind in ("text/plain", "text/html")
        if (include is None or kind in include) and not (exclude is not None and kind in exclude)
    ]
    return {kind: text if kind == "text/plain" else html() for kind in wanted}
