"""The main example at work: audits of small made-up trees and of real source, undisturbed, killed and continued."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .. import AsyncFlow, AttemptResult, SQLiteStore

ROOT = Path(__file__).resolve().parents[4]

if not (ROOT / "examples" / "source_audit.py").is_file():
    pytest.skip("this folder was copied into another tree, without the examples", allow_module_level=True)

from examples import source_audit  # noqa: E402 - there may be no such folder

posix_only = pytest.mark.skipif(os.name == "nt", reason="signals, pipes and file names of POSIX")

SOURCES = {
    "top.py": "def one():\n    return 1\n",
    "alpha/__init__.py": "",
    "alpha/words.py": "def short(): ...\n\n\nasync def longest_of_all():\n    await nothing\n    await nothing\n",
    "beta/inner/deep.py": "class Thing:\n    def method(self):\n        pass\n",
    "gate/gate.py": "x = 1\n",
    "odd.name-1/broken.py": "def (:\n",
    "zeta/a.py": "def a():\n    pass\n",
}
LEFT_OUT = {
    "site-packages/other.py": "x = 1\n",
    "alpha/__pycache__/words.py": "x = 1\n",
    ".hidden/x.py": "x = 1\n",
    "data/only.txt": "no Python here\n",
}
FILES = list(SOURCES)

GATED = """
import sys, threading
from examples import source_audit

read = source_audit.read_source

def read_but_for_the_gate(path):
    if path.name == "gate.py":
        threading.Event().wait()
    return read(path)

source_audit.read_source = read_but_for_the_gate
sys.exit(source_audit.main(sys.argv[1:]))
"""
"""The audit, but it never gets past gate.py: there is all the time in the world to kill it in the middle."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of sources, with all that is to be left out."""
    for name, text in {**SOURCES, **LEFT_OUT}.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path / "tree"


def options(tree: Path, folder: Path, *more: str) -> list[str]:
    """The arguments for an audit of `tree` whose db and report lie in `folder`."""
    folder.mkdir(exist_ok=True)
    return ["--root", str(tree), "--db", str(folder / "audit.db"), "--run-id", "tonight", "--max-concurrency", "1", *more]


def audited(root: Path) -> list[source_audit.Package]:
    """The packages of a tree, without a run."""
    return source_audit.summarize(source_audit.audit_file(root, name) for name in source_audit.list_files(root))


def report_of(folder: Path) -> str:
    return (folder / "source_audit.md").read_bytes().decode()


def audit(tree: Path, folder: Path, *more: str) -> str:
    """Audit `tree` in this process; the report."""
    assert source_audit.main(options(tree, folder, *more)) == 0
    return report_of(folder)


def attempts_in(folder: Path) -> dict[str, list[AttemptResult]]:
    """How each attempt of each task ended, as the store in `folder` has it."""
    found: dict[str, list[AttemptResult]] = {}
    with SQLiteStore(folder / "audit.db") as store:
        for attempt in store.list_attempts("tonight"):
            found.setdefault(attempt.task_id, []).append(attempt.result)
    return found


def two_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said on stderr, apart from the progress: a problem and a remedy, in a line each."""
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if not line.startswith(("[", "Run tonight:"))]
    assert len(lines) == 2
    return lines


# --- what it reports -----------------------------------------------------------------------------------------------------------


def test_the_report_of_a_small_tree_is_right_to_the_letter(tree: Path, tmp_path: Path) -> None:
    """Packages, figures, longest functions and findings are those of the sources, sorted; what is left out is left out."""
    problem = "invalid syntax" if sys.version_info < (3, 14) else audited(tree)[-2].findings[0].problem
    assert audit(tree, tmp_path / "out") == (
        "# Source audit\n"
        "\n"
        f"`{tree.resolve()}`, parsed by Python {platform.python_version()}.\n"
        "\n"
        "## Packages, largest first\n"
        "\n"
        "| package | files | bytes | lines | functions | findings |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| `alpha` | 2 | 83 | 6 | 2 | 0 |\n"
        "| `beta` | 1 | 48 | 3 | 1 | 0 |\n"
        "| top-level modules | 1 | 24 | 2 | 1 | 0 |\n"
        "| `zeta` | 1 | 18 | 2 | 1 | 0 |\n"
        "| `gate` | 1 | 6 | 1 | 0 | 0 |\n"
        "| `odd.name-1` | 1 | 7 | 1 | 0 | 1 |\n"
        "| total | 7 | 186 | 15 | 5 | 1 |\n"
        "\n"
        "## The longest function of each package\n"
        "\n"
        "| lines | function | place |\n"
        "| --- | --- | --- |\n"
        "| 3 | `longest_of_all` | `alpha/words.py:4` |\n"
        "| 2 | `method` | `beta/inner/deep.py:2` |\n"
        "| 2 | `one` | `top.py:1` |\n"
        "| 2 | `a` | `zeta/a.py:1` |\n"
        "\n"
        "## Findings\n"
        "\n"
        f"- `odd.name-1/broken.py:1`: `{problem}`\n"
    )


def test_the_report_does_not_depend_on_how_it_came_about(tree: Path, tmp_path: Path) -> None:
    """One file at a time or all at once, today or under another run id: the same bytes."""
    first = audit(tree, tmp_path / "one")
    assert audit(tree, tmp_path / "two", "--max-concurrency", "0", "--run-id", "another") == first


def test_the_files_are_discovered_in_order(tree: Path) -> None:
    """The top-level modules first, then package by package; what is hidden, installed or no Python is left out."""
    assert list(source_audit.list_files(tree)) == FILES


def test_each_file_has_a_task_that_is_called_by_its_path(tree: Path, tmp_path: Path) -> None:
    """Also if its name holds what may not stand in a key, or is too long for one."""
    (tree / "zeta" / "a[1].py").touch()
    (tree / "zeta" / "a%5b;1%5d;.py").touch()
    for letter in "ab":
        folder = tree / "zeta" / ("x" * 200) / ("y" * 200)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{letter}.py").touch()
    audit(tree, tmp_path / "out")
    items = [task_id for task_id in attempts_in(tmp_path / "out") if task_id.startswith("parse[")]
    assert len(items) == len(set(items)) == len(FILES) + 4
    assert {f"parse[{name}]" for name in FILES} <= set(items)
    assert "parse[zeta/a%5b;1%5d;.py]" in items


@pytest.mark.parametrize(
    "content",
    [
        b"def (:\n",
        b"x = 1\0\n",
        b"# coding: no-such-codec\n",
        b"\xff\xfe\x00x",
        b"x = '\xe9'\n",
        b"(" * 5_000,
        b"-" * 100_000 + b"1",
        b"  x = 1\n y = 2\n",
    ],
    ids=["syntax", "null byte", "codec", "utf-16", "latin-1", "brackets", "depth", "indentation"],
)
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_file_that_cannot_be_parsed_is_a_finding(content: bytes, tmp_path: Path) -> None:
    """Whatever is wrong with a file, it is counted, named and got past."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "bad.py").write_bytes(content)
    (tmp_path / "p" / "good.py").write_bytes(b"def f(): pass\n")
    (package,) = audited(tmp_path)
    assert [finding.file for finding in package.findings] == ["p/bad.py"]
    assert package.findings[0].problem
    assert package.figures["bytes"] == len(content) + 14
    assert (package.figures["files"], package.figures["functions"], package.figures["findings"]) == (2, 1, 1)


@posix_only
def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    """A pipe that would never end and a link that leads nowhere are named, not waited for."""
    (tmp_path / "p").mkdir()
    os.mkfifo(tmp_path / "p" / "pipe.py")
    (tmp_path / "p" / "lost.py").symlink_to(tmp_path / "nowhere")
    (package,) = audited(tmp_path)
    assert [(finding.file, finding.problem) for finding in package.findings] == [
        ("p/lost.py", "not a regular file"),
        ("p/pipe.py", "not a regular file"),
    ]


@posix_only
def test_names_cannot_break_out_of_the_report(tmp_path: Path) -> None:
    """Bars, backticks, line breaks and bytes that are no text, in names of folders and files, stay inside their code spans."""
    folder = tmp_path / "tree" / "a | 1 | 2 | 3 | 4 | 5"
    folder.mkdir(parents=True)
    (folder / "x`\n# Title.py").write_bytes(b"def (:\n")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py")).write_bytes(b"def f(): pass\n")
    report = audit(tmp_path / "tree", tmp_path / "out")
    assert "| `a \\| 1 \\| 2 \\| 3 \\| 4 \\| 5` | 2 | 21 | 2 | 1 | 1 |\n" in report
    assert "5/x`\\n# Title.py:1 ``: `" in report
    assert "\n# Title" not in report
    assert "5/\\udcff.py:1` |\n" in report


# --- what it says when something is wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [["--root", "no-such-folder"], ["--root", "."], ["--run-id", ""], ["--max-concurrency", "-1"], ["--max-concurrency", "few"]],
    ids=" ".join,
)
def test_arguments_that_make_no_sense_are_usage_errors(
    more: list[str], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They exit with 2, and no report is written."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(SystemExit) as stop:
        source_audit.main(options(tree, tmp_path / "out", *more))
    assert stop.value.code == 2
    assert not (tmp_path / "out" / "source_audit.md").exists()


@posix_only
def test_a_tree_that_changed_under_a_run_is_audited_as_it_was_found(tree: Path, tmp_path: Path) -> None:
    """Which files there are was found out once: one that came since is not read, and one that is gone by then is a finding."""
    folder = tmp_path / "out"
    with started("-c", GATED, *options(tree, folder)) as process:
        wait_for("[3/6] beta", process)
        process.kill()
    shutil.rmtree(tree / "zeta")
    (tree / "omega").mkdir()
    (tree / "omega" / "o.py").touch()
    report = audit(tree, folder)
    assert "`zeta/a.py`: `not a regular file`" in report
    assert "omega" not in report
    assert f"| total | {len(FILES)} | " in report


def test_a_run_of_another_version_is_refused(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose tasks were others is named in two lines, and stays as it was."""
    params = {"root": str(tree.resolve())}
    (tmp_path / "out").mkdir()
    with SQLiteStore(tmp_path / "out" / "audit.db") as store:
        flow = AsyncFlow("source_audit", store)
        flow.add_task_definition("audit everything", lambda ctx: None)
        flow.init_run(params, run_id="tonight")
    assert source_audit.main(options(tree, tmp_path / "out")) == 1
    problem, remedy = two_lines(capsys)
    assert "run 'tonight' was begun by another version of this program" in problem
    assert remedy == "Start afresh with another --run-id."
    assert attempts_in(tmp_path / "out") == {}


def test_a_run_is_not_mistaken_for_another(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run id that stands for an audit of another tree is refused in two lines, and the first report stays."""
    report = audit(tree, tmp_path / "out")
    capsys.readouterr()
    assert source_audit.main(options(tree / "alpha", tmp_path / "out")) == 1
    problem, remedy = two_lines(capsys)
    assert f"was begun with root {tree.resolve()} (now {(tree / 'alpha').resolve()})" in problem
    assert remedy == "Start afresh with another --run-id."
    assert report_of(tmp_path / "out") == report


def test_a_task_that_fails_is_named(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that cannot be written fails the audit: exit code 1, and two lines that name the task and the cause."""
    assert source_audit.main(options(tree, tmp_path / "out", "--report", str(tmp_path / "nowhere" / "report.md"))) == 1
    problem, _ = two_lines(capsys)
    assert "write: FileNotFoundError" in problem


def test_a_store_that_is_none_is_refused(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no database is named in two lines and left as it is."""
    (tmp_path / "notes.txt").write_text("dear diary, " * 100)
    assert source_audit.main(options(tree, tmp_path / "out", "--db", str(tmp_path / "notes.txt"))) == 1
    problem, _ = two_lines(capsys)
    assert "notes.txt" in problem
    assert (tmp_path / "notes.txt").read_text() == "dear diary, " * 100


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("totals", "totals_of_the_report_add_up"),
        ("a file is missing", "every_file_is_in_it"),
        ("a package is not ranked", "every_file_is_in_it"),
        ("a finding is missing", "findings_are_counted"),
    ],
)
def test_a_wrong_result_is_never_written(
    wrong: str, check: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each check of the validation finds what it is there for; the run fails before the report is written."""
    make_audit, summarize = source_audit.Audit, source_audit.summarize

    def wrong_audit(packages: list[source_audit.Package], totals: dict[str, int]) -> source_audit.Audit:
        totals["lines"] += 1
        return make_audit(packages, totals)

    def wrong_packages(files: list[source_audit.File]) -> list[source_audit.Package]:
        packages = summarize(files[1:] if wrong == "a file is missing" else files)
        if wrong == "a finding is missing":
            for package in packages:
                package.findings.clear()
        return packages

    with SQLiteStore(tmp_path / "audit.db") as store:
        flow = source_audit.build_flow(store)
        monkeypatch.setattr(source_audit, "summarize", wrong_packages)
        if wrong == "totals":
            monkeypatch.setattr(source_audit, "Audit", wrong_audit)
        if wrong == "a package is not ranked":
            flow.add_task_definition("rank", lambda ctx: ["alpha"], dependencies=["merge"], replace=True)
        report = tmp_path / "source_audit.md"
        run = flow.run({"root": str(tree), "report": str(report), "python": "3"}, max_concurrency=1)
        states = {path: task.state.value for path, task in run.get_all_tasks_recursive(store).items()}
    assert run.state == "failed"
    assert states[f"validate.{check}"] == "failed"
    assert states["write"] == "skipped"
    assert not report.exists()


# --- stopped in the middle -----------------------------------------------------------------------------------------------------


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own whose stderr is read line by line; killed at the end, and if nothing happens for long."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        with process:
            yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def wait_for(text: str, process: subprocess.Popen[str]) -> None:
    """Read the process's stderr until a line that holds `text`."""
    assert process.stderr is not None
    read: list[str] = []
    for line in process.stderr:
        read.append(line)
        if text in line:
            return
    pytest.fail(f"the process ended without saying {text!r}: {''.join(read)}")


@posix_only
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)] if os.name != "nt" else [],
    ids=["kill -9", "Ctrl-C", "SIGTERM"],
)
def test_stopped_in_the_middle_it_goes_on_and_ends_the_same(number: int, exit_code: int, tree: Path, tmp_path: Path) -> None:
    """However it is stopped, the same command continues the run: no finished file is read again, the report is the same."""
    undisturbed = audit(tree, tmp_path / "undisturbed")
    folder = tmp_path / "stopped"
    with started("-c", GATED, *options(tree, folder)) as process:
        wait_for("[3/6] beta", process)
        process.send_signal(number)
        assert process.wait() == exit_code
    with SQLiteStore(folder / "audit.db") as store:
        source_audit.build_flow(store)  # tells the store of the types
        finished = {task.task_id for task in store.load("tonight").tasks.values() if task.state == "success"}
    assert finished == {"discover", *(f"parse[{name}]" for name in FILES[:4])}
    assert not (folder / "source_audit.md").exists()

    assert audit(tree, folder) == undisturbed
    attempts = attempts_in(folder)
    assert attempts.pop("parse[gate/gate.py]") == ["interrupted", "success"]
    assert attempts.pop("parse")[-1] == "success"
    assert set(map(tuple, attempts.values())) == {("success",)}


@posix_only
def test_stopped_again_and_again_it_still_gets_there(tree: Path, tmp_path: Path) -> None:
    """Three kills at the same place cost the file that was being read three attempts, and nothing else."""
    folder = tmp_path / "stopped"
    for line in ("[3/6]", "Run tonight: 4 of 7 files", "Run tonight: 4 of 7 files"):
        with started("-c", GATED, *options(tree, folder)) as process:
            wait_for(line, process)
            process.kill()
    assert audit(tree, folder) == audit(tree, tmp_path / "undisturbed")
    attempts = attempts_in(folder)
    assert attempts.pop("parse[gate/gate.py]")[-1] == "success"
    assert attempts.pop("parse")[-1] == "success"
    assert set(map(tuple, attempts.values())) == {("success",)}


def test_a_run_that_ended_is_not_repeated(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again reads nothing, and says the same; a report that was deleted is written again from the store."""
    report = audit(tree, tmp_path / "out")
    said = capsys.readouterr().out
    (tree / "alpha" / "words.py").write_text("changed = True\n")
    assert audit(tree, tmp_path / "out") == report
    assert capsys.readouterr().out == said
    (tmp_path / "out" / "source_audit.md").unlink()
    assert audit(tree, tmp_path / "out") == report
    attempts = attempts_in(tmp_path / "out")
    assert attempts.pop("write") == ["success", "success"]
    assert set(map(tuple, attempts.values())) == {("success",)}


# --- real source ---------------------------------------------------------------------------------------------------------------

REAL = ("asyncio", "collections", "email", "http", "importlib", "json", "logging", "unittest", "urllib", "xml")


@pytest.fixture(scope="module")
def real_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the standard library, without what may be installed in it."""
    stdlib, root = Path(sysconfig.get_paths()["stdlib"]), tmp_path_factory.mktemp("real") / "lib"
    for name in REAL:
        shutil.copytree(stdlib / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@posix_only
def test_the_real_command_on_real_source_survives_kill_9(real_source: Path, tmp_path: Path) -> None:
    """The command as it is, on part of the standard library, killed after its first package: the same report as undisturbed."""
    command = ("-m", "examples.source_audit")
    with started(*command, *options(real_source, tmp_path / "undisturbed")) as process:
        wait_for("[write] done", process)
        assert process.wait() == 0

    folder = tmp_path / "killed"
    with started(*command, *options(real_source, folder)) as process:
        wait_for("[1/", process)
        process.kill()
    with SQLiteStore(folder / "audit.db") as store:
        source_audit.build_flow(store)
        finished = [task.task_id for task in store.load("tonight").tasks.values() if task.state == "success"]
    with started(*command, *options(real_source, folder)) as process:
        assert process.wait() == 0

    assert report_of(folder) == report_of(tmp_path / "undisturbed")
    assert "parse[asyncio/base_events.py]" in finished
    attempts = attempts_in(folder)
    assert all(attempts[task_id] == ["success"] for task_id in finished)
    files = len(list(real_source.rglob("*.py")))
    assert f"| total | {files} | " in report_of(folder)
