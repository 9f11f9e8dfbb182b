"""Builds the site: `python -m docs` writes it to docs/_build/html, and fails on whatever is wrong with it.

Sphinx and two packages are needed for that (requirements-extras.txt); the pages can be read without any. A warning is an error,
and afterwards each link of the finished pages is looked at: those to pages of ours must lead to a place that is there. Those to
elsewhere are listed by `--external`, and never fetched.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).parent
NEEDED = ("sphinx", "myst_parser", "furo")


class Page(HTMLParser):
    """What a finished page links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            if value and ((tag, name) == ("a", "href") or name == "src" or (tag, name) == ("link", "href")):
                self.links.append(value)


def broken_links(site: Path) -> tuple[list[str], list[str]]:
    """Look at each link of each page of a built site.

    Args:
        site: the folder that holds its index.html.

    Returns:
        What is wrong, one line each; and what leads elsewhere, each address once.
    """
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    wrong: list[str] = []
    elsewhere: set[str] = set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                elsewhere.add(link)
                continue
            target = path.parent.joinpath(unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                wrong.append(f"{path.relative_to(site.resolve())}: {link}: there is no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                wrong.append(f"{path.relative_to(site.resolve())}: {link}: there is no such place in the page")
    return wrong, sorted(elsewhere)


def main(argv: Sequence[str] | None = None) -> int:
    """Build the site.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        0 if the site is there and sound, 1 if something is wrong with the pages, 2 if what builds it is not installed.
    """
    parser = argparse.ArgumentParser(prog="python -m docs", description="Build the site of the documentation.")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "_build" / "html", metavar="FOLDER", help="where to put it")
    parser.add_argument("--external", action="store_true", help="list the links that lead elsewhere; they are not fetched")
    options = parser.parse_args(argv)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}. Run: pip install -r requirements-extras.txt", file=sys.stderr)
        return 2
    began = time.perf_counter()
    site: Path = options.output
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-E"]
    doctrees = site.with_name(f"{site.name}.doctrees")
    try:
        built = subprocess.run([*command, "-d", str(doctrees), str(HERE), str(site)], cwd=HERE.parent, check=False)
    finally:
        shutil.rmtree(doctrees, ignore_errors=True)
    if built.returncode:
        return 1
    wrong, elsewhere = broken_links(site)
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    if options.external:
        print(*elsewhere, sep="\n")
    pages, seconds = len(list(site.rglob("*.html"))), time.perf_counter() - began
    print(f"{site / 'index.html'}: {pages} pages in {seconds:.0f} s; links: {len(wrong)} broken, {len(elsewhere)} to elsewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
