"""The pages of the docs do what they say: programs are run, commands typed, links followed, options known to the parser."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from . import pages
from .pages import Reader, blocks_of, commands_of, looks_like

ROOT = pages.ROOT
DOCS = ROOT / "docs"

if not (DOCS / "index.md").is_file():
    pytest.skip("this folder was copied into another tree, without the docs", allow_module_level=True)

WRITTEN = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
ELSEWHERE = {
    "graphs.md",
    "scaling.md",
    "writing-a-store.md",
    "architecture.md",
    "guarantees.md",
    "performance.md",
    "changelog.md",
}
"""Pages whose blocks test_docs.py and test_stores.py hold, or which have none to run."""
TOLD = [page for page in WRITTEN if page.name not in ELSEWHERE]


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", TOLD, ids=name_of)
def test_a_reader_who_does_what_a_page_says_sees_what_it_says(page: Path, tmp_path: Path) -> None:
    wrong = [*Reader(tmp_path).read(page.read_text(encoding="utf-8"))]
    assert not wrong, "\n\n".join(wrong)


def test_a_reader_notices_what_is_not_as_the_page_says(tmp_path: Path) -> None:
    page = (
        "```python\n# one.py\nprint(1)\n```\n```console\n$ python3 one.py\n2\n$ echo $?\n0\n```\n"
        "```python\nprint(3)\n```\n```text\n4\n```\n```python\nraise SystemExit(5)\n```\n"
    )
    wrong = [*Reader(tmp_path).read(page)]
    assert [text.partition(":")[0] for text in wrong] == ["line 5", "line 14", "line 17"]


def test_what_is_seen_may_differ_where_the_page_has_dots() -> None:
    assert looks_like(["a ... d", "...", "f"], "a b c d\ne\n\nf\n")
    assert not looks_like(["a ... d"], "a b c")
    assert not looks_like([], "a traceback")


def test_commands_over_several_lines_are_one() -> None:
    (first, second) = commands_of("$ one \\\n    two\nseen\n$ three\n")
    assert (first.text, first.seen, second.text, second.seen) == ("one two", ["seen"], "three", [])


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^(`{3,}).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for link, heading in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
        if "://" in link:
            continue
        target = page.parent / link if link else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", target.read_text(), flags=re.S | re.M), re.M)
            anchors = {re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-") for words in headings}
            assert heading[1:] in anchors, f"{link}{heading}"


def test_every_page_is_in_the_menu() -> None:
    listed: set[Path] = set()
    for page in WRITTEN:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.language == "{toctree}":
                names = [line for line in block.text.splitlines() if line and not line.startswith(":")]
                listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    assert sorted(map(name_of, listed | {DOCS / "index.md"})) == sorted(map(name_of, WRITTEN))


def test_the_reference_has_every_public_name_once() -> None:
    face = ast.parse((ROOT / "app" / "infra" / "flow" / "__init__.py").read_text())
    (public,) = [
        ast.literal_eval(node.value)
        for node in face.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    told = re.findall(r"^\.\. auto(?:class|function|data|exception):: (\w+)$", (DOCS / "reference.md").read_text(), re.M)
    assert sorted(told) == sorted(set(public) - {"__version__"})


def typed_commands() -> list[tuple[str, str]]:
    """Every use of our command line in any page: the page, and what is typed."""
    found: list[tuple[str, str]] = []
    for page in [ROOT / "README.md", *WRITTEN]:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.language != "console":
                continue
            typed = [command.text for command in commands_of(block.text)] or block.text.splitlines()
            for line in typed:
                ours = re.search(r"(?:python3? -m app\.infra\.flow|\bnight-batch)(?= |$)([^|;&>]*)", line)
                if ours:
                    found.append((page.name, ours[1].strip()))
    return found


def test_every_command_of_ours_in_any_page_is_one_that_the_parser_knows() -> None:
    """In one process: the parser alone is asked, and nothing is done."""
    typed = typed_commands()
    assert len(typed) > 1
    program = (
        "import sys, json, contextlib, io\n"
        "from app.infra.flow.tools import cli\n"
        "for page, arguments in json.load(sys.stdin):\n"
        "    said = io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):\n"
        "            cli.make_parser().parse_args(arguments)\n"
        "    except SystemExit as end:\n"
        "        if end.code:\n"
        "            print(page, arguments, said.getvalue())\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([(page, shlex.split(text)) for page, text in typed]),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (asked.stdout, asked.stderr) == ("", "")


def test_the_command_reference_is_what_the_parser_says() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "docs.draw_commands", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, f"run: python -m docs.draw_commands\n{ran.stderr}"
