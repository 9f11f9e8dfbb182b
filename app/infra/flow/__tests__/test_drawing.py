"""Flows and runs that show themselves: in code, in notebooks, and by the command `graph`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from .. import AsyncFlow, Context, JsonStore, MemoryStore, RunNotFoundError, SQLiteStore, Store, WorkflowRun
from ..tools.cli import main
from ..tools.pictures.flows import picture_of_flow, picture_of_run
from .test_picture_texts import SVG

PACKAGE = __name__.rsplit(".", 2)[0]
PROGRAM = f"""
from {PACKAGE} import AsyncFlow

flow = AsyncFlow("shop")

@flow.task
def orders(ctx): ...

@flow.task(depends_on=[orders])
def totals(ctx): ...
"""


def checks() -> AsyncFlow:
    flow = AsyncFlow("validation")

    @flow.task
    def no_blanks(_: Context) -> bool:
        return True

    @flow.task(depends_on=[no_blanks])
    def verdict(_: Context) -> None:
        raise ValueError("not clean")

    return flow


def shop(store: Store) -> AsyncFlow:
    flow = AsyncFlow("shop", store)

    @flow.task(name="All orders")
    def orders(_: Context) -> list[int]:
        """Fetch them."""
        return [1, 2, 3]

    @flow.task(map_over=orders)
    def parse(_: Context, item: int) -> int:
        if item == 2:
            raise ValueError("bad")
        return item

    flow.add_subflow_definition("checks", checks(), dependencies=[orders])
    flow.add_task_definition("load", lambda ctx: None, dependencies=[parse, "checks"])
    return flow


@pytest.fixture(params=["sqlite", "json", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made: dict[str, Store] = {
        "sqlite": SQLiteStore(tmp_path / "runs.db"),
        "json": JsonStore(tmp_path / "runs"),
        "memory": MemoryStore(),
    }
    return made[request.param]


def ran(flow: AsyncFlow, run_id: str = "monday") -> WorkflowRun:
    return flow.run(run_id=run_id)


def states(svg: str) -> dict[str, str | None]:
    groups = ET.fromstring(svg).iter(f"{SVG}g")
    return {str(group.get("data-task")): group.get("data-state") for group in groups if group.get("data-task")}


# --- in code ---


def test_a_flow_is_drawn_as_it_is_declared_with_its_nested_flows_opened() -> None:
    flow = shop(MemoryStore())
    assert states(flow.to_svg()) == dict.fromkeys(
        ["orders", "parse", "checks", "checks.no_blanks", "checks.verdict", "load"], None
    )
    assert flow.to_mermaid().startswith('flowchart LR\n    n0("All orders")\n')
    assert flow.to_mermaid(direction="TB").startswith("flowchart TB\n")
    assert "subgraph cluster_" in flow.to_dot()
    assert "rankdir=TB" in flow.to_dot(direction="TB")
    assert "Fetch them." in flow.to_svg()


def test_a_run_is_drawn_with_the_states_of_its_tasks_and_of_those_inside_nested_flows(store: Store) -> None:
    flow = shop(store)
    run = ran(flow)
    expected = {
        "orders": "success",
        "parse": "failed",
        "checks": "failed",
        "checks.no_blanks": "success",
        "checks.verdict": "failed",
        "load": "skipped",
    }
    assert states(flow.to_svg("monday")) == expected
    assert states(flow.to_svg(run)) == expected
    assert "3 items: 1 failed, 2 success" in flow.to_svg(run)
    assert "All orders" in flow.to_svg("monday")
    assert ":::state-skipped" in flow.to_mermaid("monday")
    assert "skipped" in flow.to_dot(run)


def test_a_run_keeps_the_graph_that_it_was_made_with() -> None:
    flow = AsyncFlow("shop")
    flow.add_task_definition("one", lambda ctx: 1)
    ran(flow)
    flow.add_task_definition("two", lambda ctx: 2, dependencies=["one"])
    assert states(flow.to_svg("monday")) == {"one": "success"}
    assert states(flow.to_svg()) == {"one": None, "two": None}


def test_a_nested_flow_that_has_no_run_yet_is_drawn_as_it_is_declared() -> None:
    flow = shop(MemoryStore())
    flow.init_run(run_id="monday")
    assert states(flow.to_svg("monday")) == {
        "orders": "scheduled",
        "parse": "scheduled",
        "checks": "scheduled",
        "checks.no_blanks": None,
        "checks.verdict": None,
        "load": "scheduled",
    }


def test_a_run_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(RunNotFoundError):
        shop(MemoryStore()).to_svg("tuesday")


def test_a_run_that_somebody_wrote_without_a_graph_is_drawn_with_that_of_its_flow_or_without_arrows() -> None:
    flow = shop(MemoryStore())
    run = ran(flow)
    bare = WorkflowRun("copy", "shop", state=run.state, tasks=run.tasks)
    assert len(picture_of_flow(flow, bare).arrows) == 4
    assert picture_of_run(bare).arrows == ()


def test_a_run_whose_nested_run_was_removed_is_drawn_all_the_same() -> None:
    flow = shop(MemoryStore())
    run = ran(flow)

    def gone(run_id: str) -> WorkflowRun:
        raise RunNotFoundError(run_id, "the store")

    picture = picture_of_run(run, gone, flow.graph)
    assert {box.key: box.state for box in picture.everything()}["checks.verdict"] is None


def test_mermaid_text_is_never_more_than_mermaid_takes() -> None:
    flow = AsyncFlow("dense")
    for layer in range(30):
        for place in range(9):
            before = [f"task_{layer - 1}_{other}" for other in range(9)] if layer else []
            flow.add_task_definition(f"task_{layer}_{place}", lambda ctx: None, dependencies=before)
    text = flow.to_mermaid()
    assert text.count("-->") <= 450
    assert len(text) <= 45_000
    assert "9 tasks" in text


# --- in a notebook ---


def test_a_flow_and_a_run_show_themselves_in_a_notebook_in_a_frame_of_bounded_size() -> None:
    flow = shop(MemoryStore())
    run = ran(flow)
    for shown in (flow, run):
        html = shown._repr_html_()
        assert html.startswith('<div class="nb-frame" style="max-width:100%;max-height:')
        assert "<svg " in html
        assert shown._repr_mimebundle_() == {"text/plain": repr(shown), "text/html": html}
        assert shown._repr_mimebundle_(include={"text/plain"}) == {"text/plain": repr(shown)}
        assert shown._repr_mimebundle_(exclude=["text/plain"]) == {"text/html": html}
    assert "monday" in run._repr_html_()


def test_a_flow_of_thousands_is_folded_in_a_notebook() -> None:
    flow = AsyncFlow("wide")
    for number in range(3000):
        flow.add_task_definition(f"t{number}", lambda ctx: None)
    assert len(flow._repr_html_()) < 20_000


def test_a_flow_that_is_not_sound_yet_shows_itself_all_the_same() -> None:
    flow = AsyncFlow("unsound")
    flow.add_task_definition("a", lambda ctx: None, dependencies=["b", "nowhere"])
    flow.add_task_definition("b", lambda ctx: None, dependencies=["a"])
    assert 'data-task="a"' in flow._repr_html_()


def test_nothing_of_it_is_loaded_before_something_is_to_be_shown() -> None:
    code = f"""
import sys
from {PACKAGE} import AsyncFlow
flow = AsyncFlow("shop")
flow.add_task_definition("a", lambda ctx: None)
flow.run()
assert not [name for name in sys.modules if ".tools" in name], "loaded too early"
flow.to_svg()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})


# --- on the command line ---


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "pipeline_to_draw.py"
    path.write_text(PROGRAM)
    return f"{path}:flow"


def test_the_command_draws_a_flow_as_text(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", program]) == 0
    assert capsys.readouterr().out == "shop\n● orders\n● totals\n"


@pytest.mark.parametrize(
    ("wanted", "beginning"),
    [("mermaid", "flowchart LR"), ("dot", 'digraph "shop" {'), ("svg", "<svg "), ("html", "<!DOCTYPE html>")],
)
def test_the_command_writes_every_format(
    program: str, wanted: str, beginning: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["graph", program, "--format", wanted]) == 0
    out = capsys.readouterr().out
    assert out.startswith(beginning)
    suffix = {"mermaid": "mmd"}.get(wanted, wanted)
    assert main(["graph", program, "-o", str(tmp_path / f"picture.{suffix}")]) == 0
    assert (tmp_path / f"picture.{suffix}").read_text(encoding="utf-8").rstrip("\n") == out.rstrip("\n")
    assert capsys.readouterr().out == ""


def test_the_command_draws_a_run_by_its_id_or_as_the_latest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = shop(SQLiteStore(tmp_path / "runs.db"))
    with flow.store:
        ran(flow)
    for run in ("monday", "latest", "mond"):
        assert main(["graph", run, "--store", str(tmp_path / "runs.db")]) == 0
        out = capsys.readouterr().out
        assert out.startswith("shop, run monday: failed\n✓ orders")
        assert "✗ verdict" in out


def test_the_command_says_what_it_cannot_find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SQLiteStore(tmp_path / "runs.db"):
        pass
    assert main(["graph", "monday", "--store", str(tmp_path / "runs.db")]) == 2
    assert "There is no run 'monday'" in capsys.readouterr().err
    assert main(["graph", str(tmp_path / "nowhere.py:flow")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said(program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", program, "-o", str(tmp_path / "no" / "such" / "folder.svg")]) == 2
    assert "folder.svg" in capsys.readouterr().err
