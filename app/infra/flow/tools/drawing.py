"""The command `graph`: draws a flow, or a run with the states of its tasks. Must not know how pictures are made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .failures import DONE, note, safe_text, say
from .opening import find_run, open_store
from .pictures.ascii import ascii_of
from .pictures.dot import dot_of
from .pictures.flows import bounded_mermaid, picture_of_flow, picture_of_run
from .pictures.model import MOST_BOXES, Picture
from .pictures.page import page_of
from .pictures.svg import svg_of
from .targets import is_target, load_target
from .terminal import Style, columns_of

SUFFIXES = {
    ".svg": "svg",
    ".html": "html",
    ".htm": "html",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
}


def graph_command(options: argparse.Namespace) -> int:
    """`graph TARGET|RUN`: draw a flow as it is declared, or a run, as text, Mermaid, DOT, SVG or HTML."""
    output = None if options.output in (None, "-") else Path(options.output)
    wanted = options.format or (SUFFIXES.get(output.suffix.lower(), "ascii") if output is not None else "ascii")
    if is_target(options.what):
        flow = load_target(options.what)
        return _write(lambda most: picture_of_flow(flow, most=most), wanted, output)
    with open_store(options) as store:
        run = store.load(find_run(store, options.what))
        return _write(lambda most: picture_of_run(run, store.load, most=most), wanted, output)


def _write(picture: Callable[[int], Picture], wanted: str, output: Path | None) -> int:
    if output is not None:
        with output.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(_drawn(picture, wanted, Style(file, {}), 120))
        note(f"Wrote {output}.")
        return DONE
    style = Style(sys.stdout)
    text = _drawn(picture, wanted, style, columns_of(sys.stdout))
    if wanted != "ascii" and style.is_terminal:
        text = safe_text(text)
    say(text.rstrip("\n").split("\n"))
    return DONE


def _drawn(picture: Callable[[int], Picture], wanted: str, style: Style, columns: int) -> str:
    if wanted == "mermaid":
        return bounded_mermaid(picture)
    found = picture(MOST_BOXES)
    if wanted == "ascii":
        return ascii_of(found, style, columns=columns)
    return {"dot": dot_of, "svg": svg_of, "html": page_of}[wanted](found)
