"""The notebook of the examples, cell by cell in a kernel of its own."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -r requirements-extras.txt")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install -r requirements-extras.txt")

ROOT = Path(__file__).resolve().parents[4]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"

if not NOTEBOOK.is_file():
    pytest.skip("this folder was copied into another tree, without the examples", allow_module_level=True)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each code cell gave out, by its first line: run beside a link to the package, so that no file is left here."""
    folder = tmp_path_factory.mktemp("clone") / "examples"
    folder.mkdir()
    (folder.parent / "app").symlink_to(ROOT / "app", target_is_directory=True)
    shutil.copy(NOTEBOOK, folder)
    nbformat, nbclient = import_module("nbformat"), import_module("nbclient")
    kernels = import_module("jupyter_client.kernelspec")
    manager = kernels.KernelSpecManager()
    manager.ensure_native_kernel = True
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    assert (folder / "notebook.db").is_file()
    return {cell.source.split("\n")[0]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def shown(outputs: list[Any]) -> dict[str, Any]:
    """The value of a cell's last line, by the kinds in which it shows itself."""
    data: dict[str, Any] = next(output.data for output in outputs if output.output_type == "execute_result")
    return data


def told(outputs: list[Any]) -> str:
    """What a cell printed."""
    return "".join(output.text for output in outputs if output.output_type == "stream")


def find(cells: dict[str, list[Any]], beginning: str) -> list[Any]:
    return next(outputs for first, outputs in cells.items() if first.startswith(beginning))


def test_a_flow_and_its_runs_show_themselves_as_pictures(cells: dict[str, list[Any]]) -> None:
    for beginning, word in (("flow", "cities"), ("run = await flow.run_until_complete", "failed")):
        data = shown(find(cells, beginning))
        page = data.get("text/html") or data.get("image/svg+xml") or ""
        assert "<svg" in page and word in page


def test_runs_are_awaited_at_the_top_level_and_mended(cells: dict[str, list[Any]]) -> None:
    assert "Porto does not answer" in told(find(cells, "print(flow.explain"))
    assert shown(find(cells, 'run.tasks["largest"]'))["text/plain"] == "'Reykjavik'"


def test_a_run_in_the_background_is_followed_by_its_events(cells: dict[str, list[Any]]) -> None:
    outputs = find(cells, "handle = flow.start")
    lines = told(outputs).splitlines()
    assert (lines[0].strip(), lines[-1].strip()) == ("RunStarted", "RunFinished")
    assert "TaskSucceeded population[Porto]" in lines
    assert "SUCCESS" in shown(outputs)["text/plain"]


def test_the_notebook_is_kept_without_what_it_gave_out() -> None:
    kept = json.loads(NOTEBOOK.read_text())
    assert [cell["outputs"] for cell in kept["cells"] if cell["cell_type"] == "code" and cell["outputs"]] == []
    assert sys.executable not in NOTEBOOK.read_text()
