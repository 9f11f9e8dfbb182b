"""Makes the README's pictures by the project's own commands: the live view from a pseudo-terminal, the report from Chromium.

`python3 -m docs.make_pictures` writes `docs/_static/live-view.svg` and `docs/_static/report.png`. It takes what
`requirements-extras.txt` installs (pyte and Playwright) and a `chromium` on the PATH.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyte  # pyright: ignore[reportMissingImports]
from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

from app.infra.flow.__tests__.browsers import ARGUMENTS, CHROMIUM
from app.infra.flow.__tests__.terminals import sent_to_terminal

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "_static"
COLUMNS, ROWS = 112, 16
MENDED = ("float(text)", 'float(text.replace(",", "."))')

COLOURS = {
    "default": "#d7dce2",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "yellow": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
}


def main() -> int:
    """Make both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = folder / "orders.py"
        broken = (ROOT / "examples" / "orders.py").read_text()
        target.write_text(broken.replace(*MENDED))
        command = ["python3", "-m", "app.infra.flow"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NIGHT_BATCH_STORE": str(folder / "runs.db"),
            "NIGHT_BATCH_STATE": str(folder / "state"),
            "TERM": "xterm-256color",
        }
        for _ in range(2):  # an earlier run tells how long it will take
            subprocess.run([*command, "run", f"{target}:flow", "--quiet"], env=environment, stdout=subprocess.DEVNULL, check=True)
        target.write_text(broken)
        screen = screen_at([*command, "run", f"{target}:flow", "--run-id", "monday"], environment, "takings[berlin]")
        (FOLDER / "live-view.svg").write_text(drawn(screen), encoding="utf-8")
        page = folder / "report.html"
        subprocess.run([*command, "report", "monday", "-o", str(page)], env=environment, check=True, stdout=subprocess.DEVNULL)
        # Not the name of a folder that was made up for this.
        page.write_text(page.read_text(encoding="utf-8").replace(str(folder), "/home/you/shop"), encoding="utf-8")
        photograph(page, FOLDER / "report.png")
    return 0


def screen_at(command: list[str], environment: dict[str, str], text: str) -> Any:
    """Run a command in a pseudo-terminal to its end; the screen as it first showed a failure and the bar."""
    screen = pyte.Screen(COLUMNS, ROWS)
    kept: list[dict[int, Any]] | None = None
    stream = pyte.ByteStream(screen)

    def take(data: bytes) -> None:
        nonlocal kept
        stream.feed(re.sub(rb"\x1b\[(\d;)*2m", b"\x1b[90m", data))  # pyte knows no dim
        shown = "\n".join(screen.display)
        if kept is None and f"{text} " in shown and re.search(r"monday .* \d+ %", shown):
            kept = [dict(screen.buffer[row]) for row in range(ROWS)]

    sent_to_terminal(command, environment, ROOT, COLUMNS, ROWS, take)
    assert kept is not None, screen.display
    return kept


def drawn(rows: list[dict[int, Any]]) -> str:
    """A screen as SVG."""
    used = max(number for number, row in enumerate(rows) if any(cell.data.strip() for cell in row.values())) + 1
    wide, high, left, top = 8.4, 19, 18, 52
    lines = [
        f'<text x="{left + start * wide:.1f}" y="{top + number * high}"{style} textLength="{len(text) * wide:.1f}">'
        f"{html.escape(text)}</text>"
        for number, row in enumerate(rows[:used])
        for start, text, style in pieces(row)
    ]
    width, height = left * 2 + COLUMNS * wide, top + used * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="The live view of a run on a terminal: a bar, counts, what is running, and a failure as it happens">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#161b22"/>\n'
        '<circle cx="20" cy="18" r="6" fill="#ff5f57"/><circle cx="40" cy="18" r="6" fill="#febc2e"/>'
        '<circle cx="60" cy="18" r="6" fill="#28c840"/>\n'
        f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" fill="{COLOURS["default"]}">\n'
        + "\n".join(lines)
        + "\n</g>\n</svg>\n"
    )


def pieces(row: dict[int, Any]) -> Iterator[tuple[int, str, str]]:
    """What stands together in one style: where it begins, its text, the attributes."""
    start, text, style = 0, "", ""
    for column in range(COLUMNS):
        cell = row.get(column)
        data = " " if cell is None else cell.data
        here = "" if cell is None else attributes(cell)
        if here != style:
            yield from trimmed(start, text, style)
            start, text, style = column, "", here
        text += data
    yield from trimmed(start, text, style)


def trimmed(start: int, text: str, style: str) -> Iterator[tuple[int, str, str]]:
    """The words of a piece; those with one space between them together."""
    for words in re.finditer(r"\S+(?: \S+)*", text):
        yield start + words.start(), words.group(), style


def attributes(cell: Any) -> str:
    """How a cell is written."""
    colour = "#7d8590" if cell.fg in ("brightblack", "90") else COLOURS.get(cell.fg, COLOURS["default"])
    bold = ' font-weight="bold"' if cell.bold else ""
    return f' fill="{colour}"{bold}' if colour != COLOURS["default"] or bold else ""


def photograph(page: Path, to: Path) -> None:
    """The top of a page, as a browser shows it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        view = browser.new_page(viewport={"width": 1180, "height": 1330}, color_scheme="light")
        view.goto(page.as_uri())
        view.screenshot(path=str(to))
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main())
