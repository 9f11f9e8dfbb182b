"""Which flow a target names, what is said of one that names none, and what is remembered of a run."""

from __future__ import annotations

import json
import os
import random
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..tools.failures import Refusal
from ..tools.targets import MOST, Remembered, absolute, is_target, load_target, recall, recall_run, remember, state_file
from .command_line import PACKAGE, CommandLine, command_line

__all__ = ["command_line"]

FLOW = f"from {PACKAGE} import AsyncFlow, FlowBuilder\nflow = AsyncFlow('nightly')\n"


def entry(run_id: str = "monday", store: str = "sqlite /a.db", target: str = "x:flow", folder: str = "/") -> Remembered:
    return Remembered(store, "/a.db", run_id, "nightly", target, folder)


# --- loading ---


def test_a_file_s_flow_is_found_by_its_name(command_line: CommandLine) -> None:
    command_line.write("jobs/nightly_job.py", FLOW)
    assert load_target("jobs/nightly_job.py:flow").flow_name == "nightly"
    assert load_target("jobs/nightly_job.py").flow_name == "nightly", "the only one need not be named"


def test_a_file_s_module_has_the_name_by_which_worker_processes_import_it(command_line: CommandLine) -> None:
    command_line.write("jobs/nightly_job.py", FLOW)
    load_target("jobs/nightly_job.py:flow")
    assert "nightly_job" in sys.modules
    assert str(command_line.folder / "jobs") in sys.path


def test_a_module_is_looked_for_in_the_working_directory(command_line: CommandLine) -> None:
    command_line.write("shop_jobs/__init__.py", "")
    command_line.write("shop_jobs/nightly.py", FLOW)
    assert load_target("shop_jobs.nightly:flow").flow_name == "nightly"


def test_a_file_in_a_package_may_import_relatively(command_line: CommandLine) -> None:
    command_line.write("shop_files/__init__.py", "")
    command_line.write("shop_files/names.py", "NAME = 'from beside'\n")
    command_line.write(
        "shop_files/nightly.py", f"from {PACKAGE} import AsyncFlow\nfrom .names import NAME\nflow = AsyncFlow(NAME)\n"
    )
    assert load_target("shop_files/nightly.py:flow").flow_name == "from beside"


def test_a_file_that_is_called_like_another_module_is_loaded_all_the_same(command_line: CommandLine) -> None:
    command_line.write("random.py", FLOW)
    assert load_target("random.py:flow").flow_name == "nightly"
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    "made",
    ["def make():\n    return flow\n", "make = FlowBuilder('nightly').add_task('a', print)\n", "class box:\n    inside = flow\n"],
    ids=["a function", "a builder", "an attribute"],
)
def test_what_leads_to_a_flow_will_do(made: str, command_line: CommandLine) -> None:
    command_line.write("making.py", FLOW + made)
    name = "box.inside" if "box" in made else "make"
    assert load_target(f"making.py:{name}").flow_name == "nightly"


def test_a_flow_is_loaded_once(command_line: CommandLine) -> None:
    command_line.write("making.py", FLOW + "def make():\n    return AsyncFlow('nightly')\n")
    assert load_target("making.py:make") is load_target("making.py:make")


def test_what_a_module_prints_while_it_is_imported_is_kept_from_stdout(
    command_line: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    command_line.write("chatty.py", FLOW + "print('hello')\n")
    load_target("chatty.py:flow")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "hello\n")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("absent.py:flow", "The file absent.py does not exist."),
        ("folder/:flow", "The file folder/ is a folder."),
        ("absent_module:flow", "There is no module 'absent_module'"),
        ("no module:flow", "'no module' names no flow."),
        (":flow", "names no flow"),
        ("two.py:flwo", "The flows there: flow, other, circle. Did you mean two.py:flow?"),
        ("two.py", "Name the flow: two.py:flow. The flows there: flow, other, circle."),
        ("two.py:number", "two.py:number is no flow but a int."),
        ("two.py:circle", "two.py:circle cannot be built: The tasks of flow 'c' depend on each other in a circle"),
        ("none.py:flow", "There is no flow at the top level of none.py."),
        ("needy.py:flow", "Importing needy.py failed in needy.py:2: ModuleNotFoundError: No module named 'absent_library'"),
        ("needy:flow", "Importing needy failed in needy.py:2: ModuleNotFoundError: No module named 'absent_library'"),
        ("broken.py:flow", "Importing broken.py failed in broken.py:2: SyntaxError"),
        ("leaving.py:flow", "Importing leaving.py failed in leaving.py:3: SystemExit: 7"),
        ("wordy.py:flow", "Importing wordy.py failed in wordy.py:1: ValueError: one"),
        ("two.py:failing", "Importing two.py:failing() failed in two.py:"),
    ],
)
def test_a_target_that_is_none_is_refused_with_what_to_do(target: str, said: str, command_line: CommandLine) -> None:
    circle = "circle = FlowBuilder('c').add_task('a', print, depends_on=['a'])\n"
    more = "other = AsyncFlow('other')\nnumber = 7\ndef failing():\n    raise OSError('no disk')\n"
    command_line.write("two.py", FLOW + more + circle)
    command_line.write("none.py", "")
    command_line.write("needy.py", "import os\nimport absent_library\n")
    command_line.write("broken.py", "import os\nflow = = 3\n")
    command_line.write("leaving.py", "import sys\nif True:\n    sys.exit(7)\n")
    command_line.write("wordy.py", "raise ValueError('one\\ntwo\\nthree')\n")
    command_line.write("folder/nothing.txt", "")
    with pytest.raises(Refusal) as refused:
        load_target(target)
    assert said in str(refused.value)
    assert refused.value.code == 2
    assert len(str(refused.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("word", "is_one"), [("a:flow", True), ("a.py", True), ("C:\\flows\\a.py", True), ("monday", False), ("a/b.py:flow", True)]
)
def test_a_target_is_told_from_the_id_of_a_run(word: str, is_one: bool) -> None:
    assert is_target(word) is is_one


def test_a_file_is_remembered_with_its_whole_path(command_line: CommandLine) -> None:
    assert absolute("jobs/a.py:flow") == f"{command_line.folder}/jobs/a.py:flow"
    assert absolute("jobs.a:flow") == "jobs.a:flow"


# --- remembering ---


def test_a_run_is_remembered_with_its_own_target_before_the_latest_of_its_flow(command_line: CommandLine) -> None:
    remember(entry("monday", target="old:flow"))
    remember(entry("tuesday", target="new:flow"))
    assert [getattr(recall("sqlite /a.db", run, "nightly"), "target", None) for run in ("monday", "friday")] == [
        "old:flow",
        "new:flow",
    ]


def test_another_store_or_flow_remembers_nothing(command_line: CommandLine) -> None:
    remember(entry())
    assert recall("sqlite /b.db", "monday", "nightly") is None
    assert recall("sqlite /a.db", "monday", "other") is None


def test_a_run_is_remembered_once(command_line: CommandLine) -> None:
    for target in ("one:flow", "two:flow"):
        remember(entry(target=target))
    known = json.loads((command_line.folder.parent / "state" / "targets.json").read_text())["runs"]
    assert [each["target"] for each in known] == ["two:flow"]


def test_the_latest_runs_are_kept_and_the_oldest_forgotten(command_line: CommandLine) -> None:
    remember(entry("first"))
    file = command_line.folder.parent / "state" / "targets.json"
    first = json.loads(file.read_text())["runs"][0]
    file.write_text(json.dumps({"version": 1, "runs": [{**first, "run_id": str(number)} for number in range(MOST)]}))
    remember(entry("last"))
    kept = json.loads(file.read_text())["runs"]
    assert (len(kept), kept[0]["run_id"], kept[-1]["run_id"]) == (MOST, "1", "last")


def test_a_run_is_found_again_by_its_id_in_the_folder_where_it_was_started(command_line: CommandLine) -> None:
    remember(entry("monday", folder="/here"))
    remember(entry("tuesday", folder="/elsewhere"))
    here = Path("/here")
    assert [getattr(recall_run(text, here), "run_id", None) for text in ("monday", "mond", "latest", "mon", "tuesday")] == [
        "monday",
        "monday",
        "monday",
        None,
        None,
    ]


def test_what_is_remembered_is_for_its_owner_alone(command_line: CommandLine) -> None:
    remember(entry())
    file = command_line.folder.parent / "state" / "targets.json"
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    assert sorted(path.name for path in file.parent.iterdir()) == ["targets.json", "targets.lock"]


@pytest.mark.parametrize("where", ["targets.json", "."])
def test_what_others_could_have_written_is_not_believed(where: str, command_line: CommandLine) -> None:
    remember(entry())
    found = command_line.folder.parent / "state" / where
    found.chmod(found.stat().st_mode | 0o022)
    assert recall("sqlite /a.db", "monday", "nightly") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs": 3}', '{"runs": [3]}', '{"runs": [{"store": 1}]}', "[" * 100_000])
def test_a_damaged_file_is_no_error(text: str, command_line: CommandLine) -> None:
    remember(entry())
    (command_line.folder.parent / "state" / "targets.json").write_text(text)
    assert recall("sqlite /a.db", "monday", "nightly") is None
    remember(entry())
    assert recall("sqlite /a.db", "monday", "nightly") is not None


def test_where_it_cannot_be_written_a_run_is_not_remembered_and_that_is_all(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line.write("file", "")
    monkeypatch.setenv("NIGHT_BATCH_STATE", str(command_line.folder / "file" / "inside"))
    remember(entry())
    assert recall("sqlite /a.db", "monday", "nightly") is None


def test_runs_that_start_side_by_side_are_all_remembered(command_line: CommandLine) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(remember, [entry(f"run {number}") for number in range(40)]))
    known = json.loads((command_line.folder.parent / "state" / "targets.json").read_text())["runs"]
    assert {each["run_id"] for each in known} == {f"run {number}" for number in range(40)}


def test_the_file_lies_where_the_platform_keeps_such_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NIGHT_BATCH_STATE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert state_file("linux") == tmp_path / ".local" / "state" / "night-batch" / "targets.json"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/which/the/standard/ignores")
    assert state_file("linux") == tmp_path / ".local" / "state" / "night-batch" / "targets.json"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_file("linux") == tmp_path / "state" / "night-batch" / "targets.json"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert state_file("win32") == tmp_path / "local" / "night-batch" / "targets.json"
    assert os.environ["XDG_STATE_HOME"]
