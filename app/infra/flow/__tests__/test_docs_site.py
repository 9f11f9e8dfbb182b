"""The site is built by its one command, without a warning, with every link of the finished pages leading somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

if not (ROOT / "docs" / "__main__.py").is_file():
    pytest.skip("this folder was copied into another tree, without the docs", allow_module_level=True)

from docs.__main__ import broken_links  # noqa: E402 - which is not there in a copied tree

WHY = "requirements-extras.txt has what builds the site"


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "docs", "-o", str(folder / "site"), "--external"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_the_site_is_built_without_a_warning_and_without_a_broken_link(tmp_path: Path) -> None:
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason=WHY)
    built = build(tmp_path)
    assert (built.returncode, built.stderr) == (0, "")
    assert "links: 0 broken" in built.stdout
    site = tmp_path / "site"
    reference = (site / "reference.html").read_text(encoding="utf-8")
    assert 'id="app.infra.flow.AsyncFlow.run_until_complete"' in reference
    assert "run_until_complete" in (site / "searchindex.js").read_text(encoding="utf-8")
    # Docstrings read as they were written: no sentence is taken apart at its colon, examples are code, names inside stay inside.
    assert ">Type<" not in reference
    assert "The flow's graph as it is declared now, by task id: to look at." in reference
    assert "<p>raise SkipTask" not in reference
    assert "&lt;run id&gt;/&lt;task id&gt;" in re.sub(r"<[^>]+>", "", reference)
    assert "factory&gt;" not in reference
    assert "Drawn" not in reference  # a room that a public class is made from
    # It works offline: pages load nothing from elsewhere.
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text
        assert 'rel="stylesheet" type="text/css" href="http' not in text


def test_a_link_to_a_place_that_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="two.html#here">1</a><a href="two.html#there">2</a><a href="#top">3</a><a href="three.html">4</a>'
        '<a href="https://example.org/">5</a><img src="no.png"><p id="top"></p>'
    )
    (tmp_path / "two.html").write_text('<p id="here"></p>')
    wrong, elsewhere = broken_links(tmp_path)
    assert [line.split(": ")[1] for line in wrong] == ["two.html#there", "three.html", "no.png"]
    assert elsewhere == ["https://example.org/"]


def test_who_lacks_what_builds_the_site_is_told_what_to_install() -> None:
    program = "import sys; from docs import __main__ as it; it.find_spec = lambda name: None; sys.exit(it.main([]))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pip install -r requirements-extras.txt" in ran.stderr
