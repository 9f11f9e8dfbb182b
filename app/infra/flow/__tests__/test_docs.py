"""What the README and the docs say is run, or held against the code."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from .. import AsyncFlow, SQLiteStore, TriggerRule

ROOT = Path(__file__).parents[4]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="the engine's folder was copied without its README")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in the given language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M) if page.is_file() else []


def python(*arguments: str, cwd: Path, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *path])), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PRINTS = [
    "success 6",
    "3",
    "2 people, 7 orders",
    "success {'north': 14, 'south': 14}",
    "success checked by somebody clean\nbranch 'decide' did not choose it\nrun_if (is_month_end) said no",
    "7",
    "Run 'orders-monday' of flow 'orders' failed.\n  send: ConnectionError: the service is down\nsuccess",
    "The cause: 'fetch' failed (ConnectionError: the service is down), so 'load' was skipped.\n('fetch', 'load')\n"
    "scheduled -> running\nrunning -> failed\nfailed -> scheduled",
    "332833500",
    "monday.html",
    "success 3 1200.0",
]


@pytest.mark.parametrize(("block", "prints"), [*zip(blocks(README, "python"), PRINTS)])
def test_each_python_block_of_the_readme_runs_and_prints_what_it_says(block: str, prints: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(block)
    ran = python(script.name, cwd=tmp_path)
    assert (ran.stdout.strip(), ran.returncode) == (prints, 0), ran.stderr


def test_no_block_of_the_readme_is_left_out() -> None:
    assert len(blocks(README, "python")) == len(PRINTS)


GRAPHS = ROOT / "docs" / "graphs.md"


@pytest.mark.parametrize(("block", "prints"), [*zip(blocks(GRAPHS, "python"), blocks(GRAPHS, "text"))])
def test_each_python_block_of_the_page_about_graphs_prints_what_stands_below_it(block: str, prints: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(block)
    ran = python("script.py", cwd=tmp_path)
    assert (ran.stdout, ran.returncode) == (prints, 0), ran.stderr


def test_each_python_block_of_the_page_about_graphs_says_what_it_prints() -> None:
    assert re.findall(r"^```(python|text)\n", GRAPHS.read_text(), re.M) == ["python", "text"] * len(blocks(GRAPHS, "python"))


@pytest.mark.parametrize("page", [README, GRAPHS], ids=lambda page: page.name)
def test_the_tables_of_trigger_rules_have_each_of_them_once(page: Path) -> None:
    table = re.search(r"^\| (?:trigger )?rule \|.*?\n\n", page.read_text(), re.S | re.M)
    assert table is not None
    named = [name for row in table[0].strip().splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(rule.value for rule in TriggerRule)


SCALING = ROOT / "docs" / "scaling.md"


@pytest.mark.parametrize("block", blocks(SCALING, "python"), ids=lambda block: block.split()[1])
def test_each_python_block_of_the_scaling_page_runs(block: str, tmp_path: Path) -> None:
    """Beside the page's tasks.py; what needs a package or a cluster that is not there is read by the compiler alone."""
    name, needs = re.fullmatch(r"# (\w+\.py)(?: \(needs (.*)\))?", block.partition("\n")[0]).groups()  # type: ignore[union-attr]
    compile(block, name, "exec")
    if name == "tasks.py" or needs and ("cluster" in needs or find_spec(needs) is None):
        return
    (tmp_path / "tasks.py").write_text(blocks(SCALING, "python")[0])
    (tmp_path / name).write_text(block)
    ran = python(name, cwd=tmp_path, path=[tmp_path])
    assert (ran.stdout.strip(), ran.returncode) == ("success 2666466670000", 0), ran.stderr


def test_the_state_diagrams_are_those_of_the_edge_tables() -> None:
    ran = python("-m", "docs.draw_states", "--check", cwd=ROOT)
    assert ran.returncode == 0, "run: python -m docs.draw_states"


@pytest.mark.parametrize(
    "page", [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_to_a_file_of_ours_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def anchors(page: Path) -> set[str]:
    """By what its headings are linked to, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_to_a_heading_of_ours_leads_to_one(page: Path) -> None:
    for file, heading in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text()):
        assert heading in anchors(page.parent / file if file else page), f"{file}#{heading}"


def test_the_query_of_the_architecture_page_shows_the_tasks_of_a_run(tmp_path: Path) -> None:
    (query,) = blocks(ROOT / "docs" / "architecture.md", "sql")
    with SQLiteStore(tmp_path / "runs.db") as store:
        AsyncFlow("flow", store).add_task_definition("only", lambda ctx: 1).run(run_id="nightly")
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        ((run_id, task_id, state, started),) = connection.execute(query).fetchall()
    assert (run_id, task_id, state) == ("nightly", "only", "success")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", started)


def test_every_room_stands_in_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.name for path in (ROOT / "app" / "infra" / "flow").glob("*.py")} - {"__init__.py", "__main__.py", "version.py"}
    assert sorted(room for room in rooms if f"`{room}`" not in page) == []


def test_the_requirements_say_that_the_runtime_needs_nothing() -> None:
    assert "needs nothing but Python" in (ROOT / "requirements.txt").read_text()
    assert re.search(r"^dependencies = \[\]$", (ROOT / "pyproject.toml").read_text(), re.M)


def test_every_test_that_the_guarantees_name_exists() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    folder = ROOT / "app" / "infra" / "flow"
    named = set(re.findall(r"((?:testing/)?(?:test_\w+|store_contract)\.py)(?:::(?:Test\w+::)?(\w+))?", page))
    assert len(named) > 100
    for file, test in sorted(named):
        path = folder / file if file.startswith("testing/") else folder / "__tests__" / file
        assert path.exists(), file
        source = "".join(
            path.read_text() for path in (path, folder / "testing" / "store_contract.py")
        )  # which the stores' tests are
        assert not test or re.search(rf"^( *(async )?def |class |){test}\b", source, re.MULTILINE), f"{file}::{test}"
