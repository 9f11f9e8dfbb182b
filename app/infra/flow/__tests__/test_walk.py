"""The README's five minutes, walked as a newcomer would: the printed commands in a terminal, the pages in a browser."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from .. import SQLiteStore
from .browsers import ARGUMENTS, CHROMIUM
from .terminals import sent_to_terminal

ROOT = Path(__file__).resolve().parents[4]
README = ROOT / "README.md"

if not README.is_file():
    pytest.skip("the engine's folder was copied without its README", allow_module_level=True)
pytest.importorskip("pty", reason="there are no pseudo-terminals here")


@dataclass
class Step:
    """One block of commands, and what came of it."""

    expected: int
    script: str
    folder: Path = Path()
    code: int = -1
    seen: str = ""
    page: str = ""
    """The report as it was afterwards."""


def steps() -> list[Step]:
    """The blocks of the README that are to be typed one after the other; each says its exit code if that is not 0."""
    found = re.findall(r"<!-- walk(?:: exit (\d))? -->\n```console\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    return [Step(int(code or 0), script) for code, script in found]


def typed(script: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a script of the shell in a terminal of its own, 100 columns wide; its exit code, and all that the terminal was sent."""
    received: list[bytes] = []
    code = sent_to_terminal(["bash", "-eu", "-c", script], environment, folder, 100, 30, received.append)
    return code, b"".join(received).decode()


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """The whole walk, once: in a copy of the repository, by a Python that has nothing installed."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("clone")
    for name in ("app", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "__tests__"))
    programs = tmp_path_factory.mktemp("bin")
    (programs / "python3").symlink_to(Path(sys.executable).resolve())
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(programs),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    walk, exported, begun = steps(), "", time.monotonic()
    for step in walk:
        step.folder = folder
        step.code, step.seen = typed(exported + step.script, folder, environment)
        exported += "".join(f"{line}\n" for line in step.script.splitlines() if line.startswith("export "))
        page = folder / "monday.html"
        step.page = page.read_text(encoding="utf-8") if page.is_file() else ""
    assert time.monotonic() - begun < 300
    return walk


def plain(text: str) -> str:
    """Without colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_the_printed_commands_lead_from_a_failed_run_to_a_mended_one(walked: list[Step]) -> None:
    assert [(step.script, step.code) for step in walked] == [(step.script, step.expected) for step in walked]
    failed, looked, mended = walked
    # The live view was there, and the terminal is left as it was: no view on it, the cursor shown.
    assert re.search(r"orders monday.* 44 %|orders monday.* \d+ %", plain(failed.seen))
    assert "\x1b[?25l" in failed.seen or "\x1b[?7l" in failed.seen
    assert failed.seen.rfind("\x1b[?25h") >= failed.seen.rfind("\x1b[?25l")
    assert failed.seen.rfind("\x1b[?7h") >= failed.seen.rfind("\x1b[?7l")
    summary = plain(failed.seen)
    assert "takings[berlin] — ValueError: could not convert string to float: '19,90'" in summary
    assert "python3 -m app.infra.flow resume monday" in summary  # what the README says next, the program says, too
    assert "float(text) for text in SHOPS[shop]" in plain(looked.seen)
    assert "'publish' was skipped" in plain(looked.seen)
    # Only what failed, and what depends on it, ran again.
    again = plain(mended.seen)
    assert "Run 'monday' has failed: 'takings' and what depends on it runs again." in again
    assert "orders  monday  success" in again


def test_nothing_that_had_succeeded_ran_again(walked: list[Step]) -> None:
    with SQLiteStore(walked[-1].folder / "orders.db") as store:
        attempts = Counter(attempt.task_id for attempt in store.list_attempts("monday"))
    once = dict.fromkeys(["shops", *(f"takings[{shop}]" for shop in ("amsterdam", "chicago", "dublin", "eindhoven"))], 1)
    assert attempts == {**once, "rate": 2, "takings": 2, "takings[berlin]": 2, "total": 1, "publish": 1}


def test_the_pages_say_in_a_browser_what_failed_and_then_that_all_is_well(walked: list[Step], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="it takes Playwright: pip install -r requirements-extras.txt")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to look at pages with")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        texts: list[str] = []
        for number, step in enumerate(walked[1:]):
            (tmp_path / f"{number}.html").write_text(step.page, encoding="utf-8")
            page = browser.new_page()
            problems: list[str] = []
            page.on("console", lambda message, kept=problems: kept.append(message.text))
            page.on("pageerror", lambda error, kept=problems: kept.append(str(error)))
            page.goto((tmp_path / f"{number}.html").as_uri())
            texts.append(page.inner_text("body"))
            assert problems == []
        browser.close()
    assert "takings[berlin] failed: ValueError: could not convert string to float: '19,90'" in texts[0]
    assert "What failed" not in texts[1]
    assert "takings[berlin] failed" not in texts[1]
