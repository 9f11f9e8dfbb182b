"""The wheel: the engine's folder under the name night_batch, without its tests, and of use from outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file(), reason="the engine's folder was copied without its project"
)
pytest.importorskip("setuptools", minversion="77", reason="building the wheel needs setuptools >= 77: see requirements-dev.txt")


def python(source: str, cwd: Path, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", source],
        cwd=cwd,
        env={**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    python("from setuptools.build_meta import build_wheel; build_wheel('dist')", cwd=folder)
    (built,) = (folder / "dist").glob("night_batch-*-py3-none-any.whl")
    return built


def test_it_holds_the_whole_engine_and_none_of_its_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    engine = ROOT / "app" / "infra" / "flow"
    expected = {
        f"night_batch/{path.relative_to(engine).as_posix()}" for path in engine.rglob("*.py") if "__tests__" not in path.parts
    }
    assert {name for name in names if name.endswith(".py")} == expected
    assert "night_batch/py.typed" in names
    beside = {path.relative_to(engine).as_posix() for path in (engine / "tools").rglob("*") if path.suffix in (".css", ".js")}
    assert beside
    assert {f"night_batch/{path}" for path in beside} <= names


def test_it_depends_on_nothing_and_brings_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    texts = {name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert "Requires-Dist" not in texts["METADATA"]
    assert "Requires-Python: >=3.10" in texts["METADATA"]
    assert "night-batch = night_batch.__main__:main" in texts["entry_points.txt"]


def test_it_is_of_use_from_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    source = (
        "import night_batch, sys\n"
        "flow = night_batch.AsyncFlow('flow', night_batch.SQLiteStore('runs.db'))\n"
        "flow.add_task_definition('only', lambda ctx: (1, 2))\n"
        "print(flow.run().tasks['only'].output_json, 'app' in sys.modules)\n"
    )
    assert python(source, cwd=tmp_path, PYTHONPATH=str(wheel)) == "(1, 2) False\n"
