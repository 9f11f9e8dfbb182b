"""The commands that run things: run, resume, retry, cancel, what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Context, ExecutionState, GraphNode, SQLiteStore, TaskInstance, TaskRecord, TaskType, WorkflowRun
from ..tools.failures import Refusal
from ..tools.running import first_to_repeat, given_params, set_back
from .attempts import until
from .command_line import PACKAGE, PIPELINE, SLEEPER, CommandLine, called, command_line, started

__all__ = ["command_line"]

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def stored(path: str = "own.db", run_id: str = "monday") -> WorkflowRun:
    with SQLiteStore(path) as store:
        return store.load(run_id)


@contextmanager
def asleep(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that drives a run of `SLEEPER`, in which a task is under way; killed in the end, if it lives."""
    (folder / "sleeper.py").write_text(SLEEPER)
    with started("run", "sleeper.py:flow", "--run-id", "monday", "--no-progress", *words, folder=folder) as process:
        try:
            asyncio.run(until((folder / "asleep").exists))
            yield process
        finally:
            process.kill()


# --- run ---


def test_a_run_that_succeeds_ends_with_0_and_says_how_to_look_at_it(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    ended = command_line("run", "pipeline.py:flow", "--run-id", "monday", "--param", "rows=[1, 3]", "--no-progress")
    assert ended.code == 0
    assert "night-batch show monday --store own.db" in ended.out
    assert "night-batch report monday -o monday.html --store own.db" in ended.out
    assert "resume" not in ended.out
    assert stored().tasks["load"].output == 4


def test_a_run_that_fails_ends_with_1_and_says_why_and_how_to_go_on(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    ended = command_line("run", "pipeline.py:flow", "--run-id", "monday", "--no-progress")
    assert ended.code == 1
    assert "ValueError: a bad row" in ended.out
    assert "night-batch resume monday --store own.db" in ended.out


def test_the_store_on_the_command_line_takes_the_place_of_the_flow_s_own(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    ended = command_line("run", "pipeline.py:flow", "--run-id", "monday", "--store", "other store.db", "--no-progress")
    assert "night-batch show monday --store 'other store.db'" in ended.out
    assert not Path("own.db").exists()
    assert stored("other store.db").state == "failed"


def test_what_the_environment_names_need_not_be_typed_again(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHT_BATCH_STORE", "other.db")
    command_line.write("pipeline.py", PIPELINE)
    ended = command_line("run", "pipeline.py:flow", "--run-id", "monday", "--no-progress")
    assert "night-batch show monday\n" in ended.out
    assert stored("other.db").state == "failed"


def test_a_new_folder_is_named_by_a_slash(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line("run", "pipeline.py:flow", "--run-id", "monday", "--store", "runs/", "--quiet")
    assert Path("runs/monday.json").is_file()


def test_types_that_the_flow_s_store_knows_are_known_to_the_one_that_is_named(command_line: CommandLine) -> None:
    text = f"""
from dataclasses import dataclass
from {PACKAGE} import AsyncFlow

flow = AsyncFlow("orders")

@dataclass
class Order:
    number: int

flow.store.register(Order)

@flow.task
def order(ctx):
    return Order(7)

@flow.task(depends_on=[order])
def number(ctx, order):
    return order.number
"""
    command_line.write("orders.py", text)
    assert command_line("run", "orders.py:flow", "--run-id", "monday", "--store", "a.db", "--quiet").code == 0
    assert stored("a.db").tasks["number"].output == 7


def test_a_flow_in_memory_says_that_nothing_is_kept(command_line: CommandLine) -> None:
    command_line.write("memory.py", f"from {PACKAGE} import AsyncFlow\nflow = AsyncFlow('f')\nflow.task('a')(lambda ctx: 1)\n")
    ended = command_line("run", "memory.py:flow", "--no-progress")
    assert ended.code == 0
    assert "Nothing of this run is kept" in ended.err
    assert "--store PATH" in ended.err
    assert "night-batch show" not in ended.out
    assert command_line("run", "memory.py:flow", "--quiet").err == ""


def test_json_is_all_that_stands_on_stdout_whatever_tasks_print(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", "print('said while importing')\n" + PIPELINE)
    ended = called("run", "pipeline.py:flow", "--run-id", "monday", "--json", "--no-progress", folder=command_line.folder)
    assert ended.code == 1
    details: dict[str, Any] = json.loads(ended.out)
    assert (details["run_id"], details["state"], details["tasks"]["parse"]["state"]) == ("monday", "failed", "failed")
    for said in ("said while importing", "said by a task", "said by a program"):
        assert said in ended.err


def test_quiet_says_nothing_but_failures(command_line: CommandLine) -> None:
    command_line.write(
        "pipeline.py", PIPELINE.replace('print("said by a task")', "").replace('os.system("echo said by a program")', "")
    )
    failed = command_line("run", "pipeline.py:flow", "--run-id", "monday", "--quiet")
    assert failed.out == ""
    assert "Run 'monday' of flow 'pipeline' failed." in failed.err
    assert "parse[1]: ValueError: a bad row" in failed.err
    assert command_line("run", "pipeline.py:flow", "--param", "rows=[]", "--quiet") == (0, "", "")


@pytest.mark.parametrize("name", ["crunching.py", "crunch-by-night.py"])
def test_tasks_of_a_file_run_in_worker_processes_and_what_those_print_keeps_off_stdout(
    name: str, command_line: CommandLine
) -> None:
    text = f"""
from {PACKAGE} import AsyncFlow

flow = AsyncFlow("crunching")

@flow.task(executor="process")
def crunch(ctx):
    print("said in another process")
    return 7
"""
    command_line.write(f"jobs/{name}", text)
    ended = called("run", f"jobs/{name}:flow", "--store", "a.db", "--json", "--no-progress", folder=command_line.folder)
    assert ended.code == 0
    assert json.loads(ended.out)["tasks"]["crunch"]["output"] == 7
    assert "said in another process" in ended.err


def test_an_id_whose_run_has_ended_gives_its_result_again(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    for again in (False, True):
        ended = command_line("run", "pipeline.py:flow", "--run-id", "monday", "--no-progress")
        assert ended.code == 1
        assert ("has failed already" in ended.err) is again
    assert len(stored().tasks) == 5


def test_params_of_a_run_that_is_there_are_not_exchanged_and_that_is_said(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line("run", "pipeline.py:flow", "--run-id", "monday", "--param", "rows=[5]", "--quiet")
    said = "The params given now are not used"
    assert said in command_line("run", "pipeline.py:flow", "--run-id", "monday", "--param", "rows=[6]", "--quiet").err
    assert said not in command_line("run", "pipeline.py:flow", "--run-id", "monday", "--param", "rows=[5]", "--quiet").err
    assert stored().tasks["load"].output == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "absent.py:flow"), "does not exist"),
        (("run", "pipeline.py:flow", "--param", "rows"), "write --param name=value"),
        (("run", "pipeline.py:flow", "--params-file", "absent.json"), "cannot be read"),
        (("run", "pipeline.py:flow", "--run-id", ""), "run id"),
        (("run", "pipeline.py:flow", "--max-concurrency", "-1"), "whole number"),
        (("resume", "friday", "--store", "other.db"), "There is no store at other.db"),
        (("resume",), "--flow TARGET"),
        (("resume", "monday", "--store", "made.db"), "not remembered"),
        (("retry", "monday", "lod", "--store", "made.db", "--flow", "pipeline.py:flow"), "Did you mean 'load'?"),
        (("retry", "friday", "load", "--store", "made.db", "--flow", "pipeline.py:flow"), "There is no run 'friday'"),
        (("cancel", "monday", "lod", "--store", "made.db"), "Did you mean 'load'?"),
        (("resume", "monday", "--store", "made.db", "--flow", "other.py:flow"), "Run 'monday' is a run of flow 'pipeline'"),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_says_what_to_do(
    words: tuple[str, ...], said: str, command_line: CommandLine
) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line.write("other.py", f"from {PACKAGE} import AsyncFlow\nflow = AsyncFlow('other')\n")
    command_line("run", "pipeline.py:flow", "--store", "made.db", "--run-id", "monday", "--quiet")
    shutil.rmtree(command_line.folder.parent / "state")
    ended = command_line(*words)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) <= 2


# --- params ---


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=1", 1),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=null", None),
        ('a=["x", 2]', ["x", 2]),
        ('a="1"', "1"),
        ("a=north", "north"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("a=NaN", "NaN"),
        ("a=2026-03-01", "2026-03-01"),
        ("a=[1, 2", "[1, 2"),
        ("a=" + "[" * 100_000, "[" * 100_000),
    ],
    ids=range(13),
)
def test_a_param_is_json_where_it_is_json_and_else_text(word: str, value: object) -> None:
    assert given_params([word], None) == {"a": value}


def test_params_on_the_command_line_go_before_those_of_the_file(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line.write("params.json", '{"a": 1, "b": {"c": 2}}')
    assert given_params(["a=3"], "params.json") == {"a": 3, "b": {"c": 2}}
    assert given_params([], None) is None


@pytest.mark.parametrize(("text", "said"), [("[1]", "must hold a JSON object"), ("{", "is not JSON"), ("", "is not JSON")])
def test_a_file_that_holds_no_params_is_refused(text: str, said: str, command_line: CommandLine) -> None:
    command_line.write("params.json", text)
    with pytest.raises(Refusal, match=said):
        given_params([], "params.json")


# --- resume and retry ---


def test_a_failed_run_goes_on_with_what_failed_once_that_is_mended(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line("run", "pipeline.py:flow", "--run-id", "monday", "--quiet")
    command_line.write("mended", "")
    ended = command_line("resume", "monday", "--no-progress")
    assert ended.code == 0
    assert f"The flow of run 'monday' is {command_line.folder}/pipeline.py:flow." in ended.err
    assert "'parse' and what depends on it runs again" in ended.err
    with SQLiteStore("own.db") as store:
        assert [len(store.list_attempts("monday", task)) for task in ("extract", "parse[0]", "parse[1]", "load")] == [1, 1, 2, 1]


def test_the_target_is_found_again_from_another_folder(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    command_line.write("jobs/pipeline.py", PIPELINE)
    command_line("run", "jobs/pipeline.py:flow", "--run-id", "monday", "--quiet")
    command_line.write("elsewhere/mended", "")
    monkeypatch.chdir("elsewhere")
    assert command_line("resume", "monday", "--store", "../own.db", "--quiet").code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["loads.log", "mended"]


def test_a_module_is_found_again_from_another_folder(command_line: CommandLine) -> None:
    command_line.write("pipe_module.py", PIPELINE)
    elsewhere = command_line.folder / "elsewhere"
    elsewhere.mkdir()
    called("run", "pipe_module:flow", "--run-id", "monday", "--quiet", folder=command_line.folder)
    (elsewhere / "mended").touch()
    state = {"NIGHT_BATCH_STATE": str(command_line.folder.parent / "state")}
    assert called("resume", "monday", "--store", "../own.db", "--quiet", folder=elsewhere, more=state).code == 0


def test_a_run_that_has_succeeded_needs_nothing(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line("run", "pipeline.py:flow", "--run-id", "monday", "--param", "rows=[1]", "--quiet")
    ended = command_line("resume", "monday")
    assert (ended.code, ended.out) == (0, "")
    assert "there is nothing to do" in ended.err
    assert json.loads(command_line("resume", "monday", "--json").out)["state"] == "success"


def test_a_cancelled_run_goes_on_with_what_had_not_ended(command_line: CommandLine) -> None:
    with asleep(command_line.folder) as process:
        cancelled = command_line("cancel", "monday", "--store", "own.db")
        assert cancelled.code == 0
        assert "was asked to cancel it" in cancelled.out
        assert f"process {process.pid} on" in cancelled.out
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled" in out
    command_line.write("awake", "")
    assert command_line("resume", "monday", "--quiet").code == 0
    assert stored().tasks["last"].output == "done"
    assert Path("firsts.log").read_text() == "x", "what had succeeded inside the subflow did not run again"


def test_a_single_task_is_run_again_with_what_depends_on_it(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line("run", "pipeline.py:flow", "--run-id", "monday", "--param", "rows=[1, 3]", "--quiet")
    assert command_line("retry", "monday", "parse[0]", "--quiet").code == 0
    assert Path("loads.log").read_text() == "xx"
    assert command_line("retry", "mond", "extract", "--no-downstream", "--quiet").code == 0
    assert Path("loads.log").read_text() == "xx"
    with SQLiteStore("own.db") as store:
        assert [len(store.list_attempts("monday", task)) for task in ("extract", "parse[0]", "parse[1]", "load")] == [2, 2, 1, 2]


def test_a_subflow_s_run_goes_on_as_part_of_the_whole(command_line: CommandLine) -> None:
    command_line.write("sleeper.py", SLEEPER)
    command_line.write("awake", "")
    command_line("run", "sleeper.py:flow", "--run-id", "monday", "--quiet")
    child = stored().tasks["sub"].child_run_id
    assert child is not None
    ended = command_line("resume", child, "--store", "own.db")
    assert ended.code == 0
    assert "is the inside of a task of run 'monday', which goes on as a whole" in ended.err


def test_all_unfinished_runs_of_a_flow_go_on(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line("run", "pipeline.py:flow", "--run-id", "done", "--param", "rows=[]", "--quiet")
    text = PIPELINE + "flow.init_run({'rows': [3]}, run_id='good')\nflow.init_run(run_id='bad')\n"
    command_line.write("making.py", text)
    ended = command_line("resume", "--flow", "making.py:flow", "--no-progress")
    assert ended.code == 1
    assert [line.split() for line in ended.out.splitlines() if "said by" not in line] == [
        ["✓", "good", "success"],
        ["✗", "bad", "failed"],
    ]
    again = command_line("resume", "--flow", "pipeline.py:flow", "--no-progress")
    assert again.code == 0
    assert "There are no unfinished runs of flow 'pipeline'" in again.err
    assert json.loads(command_line("resume", "--flow", "pipeline.py:flow", "--json", "--quiet").out) == {
        "runs": {},
        "errors": {},
        "left_alone": [],
    }


def test_a_changed_graph_is_refused_and_taken_up_when_asked(command_line: CommandLine) -> None:
    command_line.write("pipeline.py", PIPELINE)
    command_line("run", "pipeline.py:flow", "--run-id", "monday", "--quiet")
    command_line.write("mended", "")
    command_line.write("changed.py", PIPELINE + "\n@flow.task(depends_on=[load])\ndef tell(ctx):\n    return 'told'\n")
    words = ("resume", "monday", "--flow", "changed.py:flow", "--quiet")
    refused = command_line(*words)
    assert refused.code == 2
    assert "--adopt-graph" in refused.err
    assert command_line(*words, "--adopt-graph").code == 0
    assert stored().tasks["tell"].output == "told"


def tasks(states: dict[str, str]) -> dict[str, TaskInstance]:
    return {task: TaskInstance(task, TaskType.TASK, state=ExecutionState(state)) for task, state in states.items()}


def test_of_what_failed_only_the_first_is_set_back_since_the_rest_follows() -> None:
    graph = {
        "a": GraphNode("a"),
        "b": GraphNode("b", depends_on=("a",)),
        "c": GraphNode("c", depends_on=("b",)),
        "d": GraphNode("d", depends_on=("c",)),
        "e": GraphNode("e"),
    }
    states = {"a": "success", "b": "failed", "c": "skipped", "d": "failed", "e": "cancelled", "old": "failed"}
    assert first_to_repeat(WorkflowRun("r", "f", tasks=tasks(states)), graph) == ["b", "e"]


def test_a_chain_of_10_000_cancelled_tasks_is_set_back_by_its_first() -> None:
    graph = {f"t{number}": GraphNode(f"t{number}", depends_on=(f"t{number - 1}",) if number else ()) for number in range(10_000)}
    run = WorkflowRun("r", "f", tasks=tasks(dict.fromkeys(graph, "cancelled")))
    assert first_to_repeat(run, graph) == ["t0"]


def test_many_tasks_that_failed_are_set_back_as_one_by_one_but_the_run_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide run of which all failed must not cost the square of its width."""
    flow = AsyncFlow("wide")
    mended = False

    def task(ctx: Context) -> int:
        if not mended:
            raise ValueError("no")
        return 1

    for number in range(50):
        flow.add_task_definition(f"t{number}", task)
    flow.add_task_definition("join", lambda ctx: "joined", dependencies=[f"t{number}" for number in range(50)])
    flow.run(run_id="monday")
    reads: list[str] = []
    read_tasks = flow.store.read_tasks

    def counted(run_id: str) -> list[TaskRecord]:
        reads.append(run_id)
        return read_tasks(run_id)

    monkeypatch.setattr(flow.store, "read_tasks", counted)
    assert set_back(flow, "monday") == [f"t{number}" for number in range(50)]
    assert len(reads) <= 4
    assert len([note for note in flow.store.read_notes("monday") if note.kind == "reset"]) == 50
    mended = True
    assert flow.run(run_id="monday").state == "success"
    with pytest.raises(Refusal, match="no task failed or was cancelled"):
        set_back(flow, "monday")


# --- cancel ---


def test_a_run_that_nobody_drives_is_cancelled_without_its_flow(command_line: CommandLine) -> None:
    with SQLiteStore("runs.db") as store:
        AsyncFlow("gone", store).init_run(run_id="monday")
    assert command_line("cancel", "monday", "--store", "runs.db") == (0, "Run 'monday' is cancelled.\n", "")
    assert stored("runs.db").state == "cancelled"
    again = command_line("cancel", "monday", "--store", "runs.db")
    assert (again.code, again.out) == (0, "Run 'monday' has ended already; there is nothing to cancel.\n")


def test_one_task_of_a_run_that_another_process_drives_is_cancelled(command_line: CommandLine) -> None:
    with asleep(command_line.folder) as process:
        assert "was asked to cancel it" in command_line("cancel", "monday", "sub.wait", "--store", "own.db").out
        process.communicate(timeout=60)
    assert process.returncode == 1
    run = stored()
    assert (run.state, run.tasks["sub"].state, run.tasks["last"].state) == ("failed", "failed", "skipped")


# --- other processes, and signals ---


def test_a_run_of_another_process_ends_with_3_and_names_it(command_line: CommandLine) -> None:
    with asleep(command_line.folder) as process:
        for words in (
            ("resume", "monday", "--store", "own.db"),
            ("retry", "monday", "last", "--store", "own.db"),
            ("run", "sleeper.py:flow", "--run-id", "monday"),
        ):
            ended = command_line(*words, "--quiet")
            assert ended.code == 3
            assert f"Run 'monday' is being driven by process {process.pid} on" in ended.err
        assert "was left alone" in command_line("resume", "--flow", "sleeper.py:flow", "--no-progress").err


@needs_signals
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_code_and_the_same_command_goes_on(number: int, code: int, command_line: CommandLine) -> None:
    with asleep(command_line.folder) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert (
        f"Interrupted. Run 'monday' is saved as it stands; go on with: {sys.executable} -m {PACKAGE} resume monday --store own.db"
        in err
    )
    assert "Traceback" not in err
    command_line.write("awake", "")
    again = command_line("run", "sleeper.py:flow", "--run-id", "monday", "--no-progress")
    assert again.code == 0
    assert "Run 'monday' is not finished; it goes on where it stood." in again.err
    assert Path("firsts.log").read_text() == "x"


@needs_signals
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_resuming_of_all_runs_too(number: int, code: int, command_line: CommandLine) -> None:
    with asleep(command_line.folder) as process:
        process.kill()
    command_line.folder.joinpath("asleep").unlink()
    with started("resume", "--flow", "sleeper.py:flow", "--no-progress", folder=command_line.folder) as process:
        asyncio.run(until((command_line.folder / "asleep").exists))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "The runs are saved as they stand" in err
    assert "Traceback" not in err
    command_line.write("awake", "")
    assert command_line("resume", "monday", "--quiet").code == 0


def test_a_killed_run_goes_on_where_it_stood(command_line: CommandLine) -> None:
    with asleep(command_line.folder) as process:
        process.kill()
    command_line.write("awake", "")
    assert command_line("resume", "latest", "--quiet").code == 0
    assert Path("firsts.log").read_text() == "x"
