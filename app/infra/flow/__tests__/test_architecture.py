"""Who may know whom, read from the code's own imports: the rules of the design, each shown to be able to fail."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent
FACE = "__init__"
DOOR = "__main__"
WAY_OUT = "around"
"""The one room of the engine that leads to the tools."""
TARGETS = "tools/targets"
"""Loads the program that somebody names on the command line."""
SHOWING_TEXT = ("tools/trees", "tools/terminal")
"""What the helpers for tests show a run with, where an assertion does not hold."""
PURE = frozenset(
    {
        "agenda",
        "errors",
        "events",
        "graph",
        "groups",
        "history",
        "looking",
        "machine",
        "map_items",
        "maps",
        "models",
        "notes",
        "ready",
        "records",
        "retry_manager",
        "steps",
        "task_handles",
        "task_options",
        "task_rules",
        "tools/report/critical_path",
        "tools/report/gantt",
        "trigger_rules",
        "waiting",
    }
)
STORES = frozenset({"store", "sqlite_store", "json_store", "memory_store"})
CLOCKS = frozenset({"clock", "time"})
# The layout that people rely on: these rooms keep their names and their jobs.
FIXED = PURE | STORES | {FACE, "flow", "executors", "event_manager", "workflow_builders"}


@dataclass(frozen=True)
class Import:
    """One name that one room imports, of this folder (`room`) or from outside (`module`)."""

    line: int
    room: str | None
    module: str | None
    name: str
    in_function: bool

    @property
    def target(self) -> str:
        return self.room or self.module or ""


class Tree:
    """The rooms of a folder: their sources by path, such as `tools/cli`, and what each imports."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.rooms = {path.removesuffix(".py"): ast.parse(source) for path, source in sources.items()}
        self.lines = {path.removesuffix(".py"): source.split("\n") for path, source in sources.items()}
        self.imports = {room: list(self._read(room, code)) for room, code in self.rooms.items()}

    def _read(self, room: str, code: ast.Module) -> Iterator[Import]:
        inner = {
            id(node)
            for outer in ast.walk(code)
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
            for node in ast.walk(outer)
        }
        for node in ast.walk(code):
            in_function = id(node) in inner
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, None, alias.name, alias.name, in_function)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if node.level == 0:
                        yield Import(node.lineno, None, node.module or "", alias.name, in_function)
                    else:
                        target = self._resolve(room, node.level, node.module, alias.name)
                        yield Import(node.lineno, target, None, alias.name, in_function)

    def _resolve(self, room: str, level: int, module: str | None, name: str) -> str:
        """The room that a relative import means: a module of that name, or else the face of the package it names."""
        parents = room.split("/")[:-1]
        if level - 1 > len(parents):
            return "outside the folder"
        path = [*parents[: len(parents) - (level - 1)], *(module.split(".") if module else ())]
        for candidate in ("/".join([*path, name]), "/".join(path)):
            if candidate in self.rooms:
                return candidate
        return "/".join([*path, FACE])

    def engine(self) -> list[str]:
        """The rooms of the engine itself: all but its face, its door, and the folders that stand around it."""
        return [room for room in self.rooms if "/" not in room and room not in (FACE, DOOR)]

    def reached(self, room: str) -> dict[str, str]:
        """What a room knows of, directly or by way of others: each with the way that leads there."""
        ways: dict[str, str] = {}
        waiting = [(room, room)]
        while waiting:
            here, way = waiting.pop()
            for found in self.imports.get(here, []):
                # `os.path` is known to who imports it, and so is `os`
                for target in {found.target, found.target.partition(".")[0]}:
                    if target not in ways:
                        ways[target] = f"{way} -> {target}"
                        waiting.append((target, ways[target]))
        return ways


def pure_rooms_know_no_world(tree: Tree) -> Iterator[str]:
    for room in PURE & tree.rooms.keys():
        for target, way in tree.reached(room).items():
            if target in {"asyncio", "sqlite3", "logging", "threading", "os"} | CLOCKS | STORES:
                yield way


def pure_rooms_never_ask_the_time(tree: Tree) -> Iterator[str]:
    for room in PURE & tree.rooms.keys():
        for node in ast.walk(tree.rooms[room]):
            if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today", "monotonic", "time_ns"):
                yield f"{room}:{node.lineno} {node.attr}"


def stores_know_no_engine(tree: Tree) -> Iterator[str]:
    for room in STORES & tree.rooms.keys():
        for target, way in tree.reached(room).items():
            if target in ("flow", "machine", "executors", "runner"):
                yield way


def executors_know_no_flow_and_no_store(tree: Tree) -> Iterator[str]:
    for room in ("executors", "remote_executors", "travel", "worker_main"):
        for target, way in tree.reached(room).items():
            if target in STORES | {"flow", "machine", "runner"}:
                yield way


def nobody_imports_the_face(tree: Tree) -> Iterator[str]:
    """But for the tools, which stand on it."""
    for room, imports in tree.imports.items():
        if not room.startswith(("tools/", "__tests__/")):
            yield from (f"{room}:{found.line} imports __init__" for found in imports if found.room == FACE)


def tools_stand_on_the_public_api_alone(tree: Tree) -> Iterator[str]:
    public = public_names(tree.rooms[FACE]) if FACE in tree.rooms else set[str]()
    for room, imports in tree.imports.items():
        if room.startswith("tools/"):
            for found in imports:
                if found.room == FACE and found.name not in public:
                    yield f"{room}:{found.line} imports {found.name}, which is not in __all__"
                elif found.room is not None and found.room != FACE and not found.room.startswith("tools/"):
                    yield f"{room}:{found.line} imports {found.room}"


def helpers_for_tests_know_of_the_tools_how_a_run_is_shown_alone(tree: Tree) -> Iterator[str]:
    for room, imports in tree.imports.items():
        if room.startswith("testing/"):
            for found in imports:
                if found.room is not None and found.room.startswith("tools/") and found.room not in SHOWING_TEXT:
                    yield f"{room}:{found.line} imports {found.room}"


def the_engine_knows_nothing_that_stands_around_it(tree: Tree) -> Iterator[str]:
    for room in [*tree.engine(), *({FACE} & tree.rooms.keys())]:
        for found in tree.imports[room]:
            if found.room is not None and found.room.startswith(("tools", "testing", "__tests__", DOOR)):
                yield f"{room}:{found.line} imports {found.room}"


def there_are_no_import_circles(tree: Tree) -> Iterator[str]:
    sorter = TopologicalSorter({room: {found.room for found in imports if found.room} for room, imports in tree.imports.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = error.args[1][:0:-1]  # told from the imported to the importer, its first one again at the end
        first = circle.index(min(circle))
        yield " -> ".join([*circle[first:], *circle[: first + 1]])


def imports_stand_at_the_top(tree: Tree) -> Iterator[str]:
    """But for what takes long to load and few need: there the line says `# late:` and why. It counts in a circle all the same."""
    for room, imports in tree.imports.items():
        for found in imports:
            is_late = re.search("  # late: [a-z ]{10}", tree.lines[room][found.line - 1])
            if found.in_function and not is_late and not room.startswith("__tests__/"):
                yield f"{room}:{found.line} imports {found.target} in a function"


def no_import_is_hidden_in_a_call(tree: Tree) -> Iterator[str]:
    """But for the face, which fetches a name from its room when asked for it: test_exports.py holds that to its imports.

    And but for the door from the engine to the tools, which are loaded with the first flow that is to show itself, and for the
    room that loads what somebody names on the command line.
    """
    for room, code in tree.rooms.items():
        if not room.startswith("__tests__/"):
            for node in ast.walk(code):
                if isinstance(node, (ast.Name, ast.Attribute)):
                    name = node.id if isinstance(node, ast.Name) else node.attr
                    if name == "__import__" or (name == "import_module" and room not in (FACE, WAY_OUT, TARGETS)):
                        yield f"{room}:{node.lineno} {name}"


def imports_inside_the_folder_are_relative_and_stay_inside(tree: Tree) -> Iterator[str]:
    for room, imports in tree.imports.items():
        for found in imports:
            if found.target.partition(".")[0] in ("app", "night_batch", "outside the folder"):
                yield f"{room}:{found.line} imports {found.target}"


def the_standard_library_is_all_there_is(tree: Tree) -> Iterator[str]:
    """The contract suite for stores may use pytest, which whoever runs it has."""
    for room, imports in tree.imports.items():
        known = sys.stdlib_module_names | ({"pytest"} if room.startswith("testing/") else set())
        if not room.startswith("__tests__/"):
            for found in imports:
                if found.module is not None and found.module.partition(".")[0] not in known:
                    yield f"{room}:{found.line} imports {found.module}"


def dataclasses_are_made_late(tree: Tree) -> Iterator[str]:
    """The standard decorator compiles each class's methods when it is imported, which made a third of the package's import."""
    for room in tree.engine():
        for found in tree.imports[room]:
            if (found.module, found.name) == ("dataclasses", "dataclass") and room != "late_dataclass":
                yield f"{room}:{found.line} imports dataclass"


def nobody_waits_with_wait_for(tree: Tree) -> Iterator[str]:
    """Up to Python 3.11 it can lose a cancellation: https://github.com/python/cpython/issues/86296."""
    for room, code in tree.rooms.items():
        if not room.startswith("__tests__/"):
            yield from (f"{room}:{found.line} imports wait_for" for found in tree.imports[room] if found.name == "wait_for")
            for node in ast.walk(code):
                if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncio.wait_for":
                    yield f"{room}:{node.lineno} asyncio.wait_for"


def nothing_of_a_file_is_executed(tree: Tree) -> Iterator[str]:
    """But for `travel`, which pickles what it sends to processes of ours; no store, nor the run in memory, reaches that."""
    for room in (STORES | {"live_run"}) & tree.rooms.keys():
        yield from (way for target, way in tree.reached(room).items() if target in ("travel", "pickle"))
    for room, code in tree.rooms.items():
        if not room.startswith("__tests__/"):
            for found in tree.imports[room]:
                forbidden = {"pickle", "marshal", "shelve", "dill"} - ({"pickle"} if room == "travel" else set())
                if found.target.partition(".")[0] in forbidden:
                    yield f"{room}:{found.line} imports {found.target}"
            for node in ast.walk(code):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "compile"):
                    yield f"{room}:{node.lineno} {node.func.id}"


Rule = Callable[[Tree], Iterator[str]]
RULES: list[Rule] = [
    pure_rooms_know_no_world,
    pure_rooms_never_ask_the_time,
    stores_know_no_engine,
    executors_know_no_flow_and_no_store,
    nobody_imports_the_face,
    tools_stand_on_the_public_api_alone,
    helpers_for_tests_know_of_the_tools_how_a_run_is_shown_alone,
    the_engine_knows_nothing_that_stands_around_it,
    there_are_no_import_circles,
    imports_stand_at_the_top,
    no_import_is_hidden_in_a_call,
    imports_inside_the_folder_are_relative_and_stay_inside,
    the_standard_library_is_all_there_is,
    dataclasses_are_made_late,
    nobody_waits_with_wait_for,
    nothing_of_a_file_is_executed,
]


def public_names(face: ast.Module) -> set[str]:
    """What `__all__` lists."""
    for node in face.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.fixture(scope="module")
def ours() -> Tree:
    """The folder as it is."""
    return Tree({path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.py"))})


def test_the_rooms_that_people_rely_on_are_there(ours: Tree) -> None:
    assert set(ours.rooms) >= FIXED


def test_every_room_says_in_its_first_line_what_it_is_for(ours: Tree) -> None:
    assert [
        room for room, code in ours.rooms.items() if not (ast.get_docstring(code) or "").split("\n")[0].endswith((".", ":"))
    ] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(ours: Tree, rule: Rule) -> None:
    assert sorted(rule(ours)) == []


# A small folder that keeps every rule; each case below changes one room of it.
SOUND = {
    "__init__.py": "import importlib\nfrom .flow import AsyncFlow\n__all__ = ['AsyncFlow']\nimportlib.import_module('x')",
    "__main__.py": "from .tools.cli import main",
    "flow.py": "import asyncio\nfrom .executors import run\nfrom .machine import Step\nfrom .sqlite_store import SQLiteStore",
    "machine.py": "from . import events\nfrom .models import State",
    "late_dataclass.py": "from dataclasses import dataclass",
    "models.py": "from dataclasses import field\nfrom .errors import FlowError\nfrom .late_dataclass import dataclass",
    "errors.py": "from __future__ import annotations\ndef closest():\n    import difflib  # late: for mistaken names alone",
    "events.py": "from datetime import datetime",
    "views.py": "from .models import State",
    "clock.py": "import time",
    "store.py": "from .views import run",
    "sqlite_store.py": "import sqlite3, time\nfrom .store import Store",
    "executors.py": "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor\nfrom .models import Failure",
    "travel.py": "import pickle",
    "tools/__init__.py": "",
    "tools/cli.py": "import argparse\nfrom .. import AsyncFlow\nfrom . import page\nfrom .page import show",
    "tools/page.py": "import html",
    "testing/__init__.py": "from .contract import Suite",
    "testing/contract.py": "import pytest\nfrom ..store import Store",
    "__tests__/test_flow.py": "import hypothesis\nfrom .. import AsyncFlow\nfrom ..machine import Step\ndef test(): import mine",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_folder_breaks_no_rule(rule: Rule) -> None:
    assert list(rule(Tree(SOUND))) == []


BROKEN: list[tuple[Rule, str, str, str]] = [
    (pure_rooms_know_no_world, "machine.py", "import asyncio", "machine -> asyncio"),
    (pure_rooms_know_no_world, "models.py", "from logging.handlers import X", "models -> logging"),
    (pure_rooms_know_no_world, "errors.py", "import sqlite3", "errors -> sqlite3"),
    (pure_rooms_know_no_world, "retry_manager.py", "from time import time", "retry_manager -> time"),
    (pure_rooms_know_no_world, "graph.py", "from .clock import SystemClock", "graph -> clock"),
    (pure_rooms_know_no_world, "machine.py", "from .store import Store", "machine -> store"),
    (pure_rooms_know_no_world, "errors.py", "from .helpers import x", "errors -> helpers -> asyncio"),
    (pure_rooms_never_ask_the_time, "events.py", "from datetime import datetime\nAT = datetime.now()", "events:2 now"),
    (stores_know_no_engine, "store.py", "from .flow import AsyncFlow", "store -> flow"),
    (stores_know_no_engine, "sqlite_store.py", "from . import executors", "sqlite_store -> executors"),
    (stores_know_no_engine, "views.py", "from .machine import Step", "store -> views -> machine"),
    (executors_know_no_flow_and_no_store, "executors.py", "from .sqlite_store import SQLiteStore", "executors -> sqlite_store"),
    (executors_know_no_flow_and_no_store, "models.py", "from .flow import AsyncFlow", "executors -> models -> flow"),
    (nobody_imports_the_face, "flow.py", "from . import AsyncFlow", "flow:1 imports __init__"),
    (nobody_imports_the_face, "testing/contract.py", "from .. import AsyncFlow", "testing/contract:1 imports __init__"),
    (tools_stand_on_the_public_api_alone, "tools/cli.py", "from ..machine import Step", "tools/cli:1 imports machine"),
    (tools_stand_on_the_public_api_alone, "tools/cli.py", "from .. import machine", "tools/cli:1 imports machine"),
    (
        tools_stand_on_the_public_api_alone,
        "tools/cli.py",
        "from .. import _hidden",
        "tools/cli:1 imports _hidden, which is not in __all__",
    ),
    (
        helpers_for_tests_know_of_the_tools_how_a_run_is_shown_alone,
        "testing/contract.py",
        "from ..tools.page import show",
        "testing/contract:1 imports tools/page",
    ),
    (the_engine_knows_nothing_that_stands_around_it, "flow.py", "from .tools.page import show", "flow:1 imports tools/page"),
    (
        the_engine_knows_nothing_that_stands_around_it,
        "store.py",
        "from .testing import Suite",
        "store:1 imports testing/__init__",
    ),
    (the_engine_knows_nothing_that_stands_around_it, "__init__.py", "from .tools import cli", "__init__:1 imports tools/cli"),
    (there_are_no_import_circles, "errors.py", "from .models import State", "errors -> models -> errors"),
    (there_are_no_import_circles, "errors.py", "from .machine import Step", "errors -> machine -> models -> errors"),
    (
        there_are_no_import_circles,
        "errors.py",
        "def late():\n  from .models import State  # late: it takes long",
        "errors -> models -> errors",
    ),
    (there_are_no_import_circles, "tools/page.py", "from .cli import main", "tools/cli -> tools/page -> tools/cli"),
    (imports_stand_at_the_top, "flow.py", "def run():\n    import json", "flow:2 imports json in a function"),
    (
        imports_stand_at_the_top,
        "flow.py",
        "class A:\n  async def run(self):\n    from .store import x",
        "flow:3 imports store in a function",
    ),
    (imports_stand_at_the_top, "flow.py", "def run():\n    import json  # late", "flow:2 imports json in a function"),
    (no_import_is_hidden_in_a_call, "__init__.py", "flow = __import__('flow')", "__init__:1 __import__"),
    (no_import_is_hidden_in_a_call, "flow.py", "import importlib\nray = importlib.import_module('ray')", "flow:2 import_module"),
    (no_import_is_hidden_in_a_call, "tools/page.py", "rich = __import__('rich')", "tools/page:1 __import__"),
    (
        imports_inside_the_folder_are_relative_and_stay_inside,
        "flow.py",
        "from app.infra.flow.store import Store",
        "flow:1 imports app.infra.flow.store",
    ),
    (
        imports_inside_the_folder_are_relative_and_stay_inside,
        "__tests__/test_flow.py",
        "import night_batch",
        "__tests__/test_flow:1 imports night_batch",
    ),
    (
        imports_inside_the_folder_are_relative_and_stay_inside,
        "flow.py",
        "from ..elsewhere import x",
        "flow:1 imports outside the folder",
    ),
    (the_standard_library_is_all_there_is, "executors.py", "import dask.distributed", "executors:1 imports dask.distributed"),
    (
        the_standard_library_is_all_there_is,
        "tools/page.py",
        "try:\n  import rich\nexcept ImportError: ...",
        "tools/page:2 imports rich",
    ),
    (the_standard_library_is_all_there_is, "store.py", "import pytest", "store:1 imports pytest"),
    (dataclasses_are_made_late, "flow.py", "import os\nfrom dataclasses import dataclass, field", "flow:2 imports dataclass"),
    (nobody_waits_with_wait_for, "flow.py", "import asyncio\nwait = asyncio.wait_for", "flow:2 asyncio.wait_for"),
    (nobody_waits_with_wait_for, "executors.py", "from asyncio import wait_for as w\nw()", "executors:1 imports wait_for"),
    (nothing_of_a_file_is_executed, "store.py", "from pickle import loads", "store:1 imports pickle"),
    (nothing_of_a_file_is_executed, "views.py", "from . import travel", "store -> views -> travel"),
    (nothing_of_a_file_is_executed, "testing/contract.py", "import shelve", "testing/contract:1 imports shelve"),
    (nothing_of_a_file_is_executed, "views.py", "import re\nre.compile('a')\neval('1')", "views:3 eval"),
]


@pytest.mark.parametrize(
    ("rule", "room", "source", "found"), BROKEN, ids=[f"{rule.__name__}-{found}" for rule, _, _, found in BROKEN]
)
def test_a_folder_that_breaks_the_rule_is_found_out_with_the_place(rule: Rule, room: str, source: str, found: str) -> None:
    assert found in list(rule(Tree({**SOUND, "helpers.py": "import asyncio", room: source})))


def test_no_rule_is_without_a_case_that_breaks_it() -> None:
    assert {rule.__name__ for rule in RULES} == {rule.__name__ for rule, _, _, _ in BROKEN}
