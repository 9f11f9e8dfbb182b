"""A picture as a page of its own: opens in any browser, needs nothing else, and loads nothing."""

from __future__ import annotations

from .model import Picture
from .svg import DARK, LIGHT, quoted, svg_of


def page_of(picture: Picture) -> str:
    """A whole HTML page around the picture."""
    title = quoted(picture.title or "A flow")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    style = (
        f":root{{color-scheme:light dark;{LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}"
        "body{margin:0;background:var(--nb-paper)}main{overflow:auto}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n<body><main>{svg_of(picture)}</main></body></html>\n"
    )
