"""Loads the flow that somebody names, and remembers, outside of any store, with which one a run was started.

A store may come from anybody, so nothing is ever imported by a name that stands in one. What is remembered lies in a file of the
user's own, and is not believed where others could have written it. Must not know what is done with a flow.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from .. import AsyncFlow, FlowBuilder, FlowError
from .failures import Refusal, Terminated
from .program import path_meant

STATE_VARIABLE = "NIGHT_BATCH_STATE"
MOST = 1000
"""How many runs are remembered."""

_loaded: dict[tuple[str, str], AsyncFlow] = {}


# --- loading ---


def load_target(text: str, folder: Path | None = None) -> AsyncFlow:
    """The flow that `module:flow` or `path/to/file.py:flow` names; loaded once.

    What stands behind the colon may also be a function without arguments that makes the flow. It may be left out where there is
    but one flow. What the module prints while it is imported goes to stderr.

    Args:
        text: the target.
        folder: where modules are looked for, and what a relative path is meant from; the working directory if left out.

    Raises:
        Refusal: there is no such target, or importing it failed.
    """
    base = Path.cwd() if folder is None else folder
    key = text, str(base)
    if key not in _loaded:
        place, attribute = _parts(text)
        with redirect_stdout(sys.stderr):
            module = _module_of_file(base / path_meant(place), place) if _is_file(place) else _module(place, base)
            _loaded[key] = _flow_in(module, place, attribute)
    return _loaded[key]


def is_target(text: str) -> bool:
    """Whether a word that may name a run is meant to name a flow: `module:flow`, `file.py`."""
    place, attribute = _parts(text)
    return bool(attribute) or place.endswith(".py")


def absolute(text: str) -> str:
    """A target as it is remembered: a file with its whole path, so that it is found from anywhere."""
    place, attribute = _parts(text)
    if not _is_file(place):
        return text
    whole = str(path_meant(place).absolute())
    return f"{whole}:{attribute}" if attribute else whole


def _parts(text: str) -> tuple[str, str]:
    place, colon, attribute = text.rpartition(":")
    if not colon or text.endswith(".py") or "/" in attribute or "\\" in attribute:  # C:\flows.py
        return text, ""
    return place, attribute


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or os.sep in place


def _module(name: str, folder: Path) -> ModuleType:
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise Refusal(f"{name!r} names no flow. Write module:flow, or path/to/file.py:flow.")
    _look_in(folder)
    try:
        with _importing(name, folder):
            return import_module(name)
    except ModuleNotFoundError as error:
        advice = "Write module:flow, or path/to/file.py:flow."
        raise Refusal(f"There is no module {name!r} in {folder} or among what is installed. {advice}") from error


def _module_of_file(path: Path, place: str) -> ModuleType:
    """A file as the module that other files, and worker processes, would import it as; else under a name of its own."""
    path = path.absolute()
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise Refusal(f"The file {place} {kind}. Write path/to/file.py:flow.")
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    _look_in(folder)
    with _importing(place, folder):
        name = ".".join(names)
        if "." not in path.stem:
            known = sys.modules.get(name)
            if known is not None and _is_same(getattr(known, "__file__", None), path):
                return known
            spec = None if known is not None else importlib.util.find_spec(name)
            if spec is not None and _is_same(spec.origin, path):
                return import_module(name)
        return _executed(path)


def _executed(path: Path) -> ModuleType:
    """A file whose name is no module's, or that of another one."""
    name = "night_batch_target_" + "".join(letter if letter.isalnum() else "_" for letter in path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Refusal(f"{path} is no Python file. Write path/to/file.py:flow.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _look_in(folder: Path) -> None:
    """Have Python import from a folder, as it does from that of a script."""
    if str(folder) not in sys.path and not (folder == Path.cwd() and "" in sys.path):
        sys.path.insert(0, str(folder))


def _is_same(file: str | None, path: Path) -> bool:
    try:
        return file is not None and os.path.samefile(file, path)  # noqa: PTH121 - it may be no path at all
    except OSError:
        return False


@contextmanager
def _importing(what: str, folder: Path) -> Iterator[None]:
    """Say in a line where an import went wrong."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and (what == error.name or what.startswith(f"{error.name}.")):
            raise
        raise _import_failed(what, folder, error) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, (Refusal, Terminated)):
            raise
        raise _import_failed(what, folder, error) from error


def _import_failed(what: str, folder: Path, error: BaseException) -> Refusal:
    last = next(iter(traceback.format_exception_only(error)[-1].strip().splitlines()), type(error).__name__)
    return Refusal(
        f"Importing {what} failed{_place_of(error, folder)}: {last[:500]}\nMend that, or see all of it with --traceback."
    )


def _place_of(error: BaseException, folder: Path) -> str:
    """Where it was raised: in the program's own code if that was on the way, else where the traceback ends."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {_from_here(error.filename)}:{error.lineno}"
    places = list(_places(error.__traceback__))
    own = [place for place in places if place[0].startswith(f"{folder}{os.sep}") and "site-packages" not in place[0]]
    file, line = (own or places or [("", 0)])[-1]
    return f" in {_from_here(file)}:{line}" if file else ""


def _places(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    for frame, line in traceback.walk_tb(trace):
        file = frame.f_code.co_filename
        if not file.startswith("<frozen importlib") and file != __file__ and f"importlib{os.sep}__init__" not in file:
            yield file, line


def _from_here(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def _flow_in(module: ModuleType, place: str, attribute: str) -> AsyncFlow:
    flows = {name: value for name, value in vars(module).items() if isinstance(value, (AsyncFlow, FlowBuilder))}
    if not attribute:
        different = {id(value): name for name, value in reversed(flows.items())}
        if len(different) != 1:
            raise Refusal(f"Name the flow: {place}:flow. {_listed(place, flows)}")
        attribute = next(iter(different.values()))
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = get_close_matches(attribute, flows, 1)
            meant = f" Did you mean {place}:{near[0]}?" if near else ""
            raise Refusal(f"{place} has no {attribute!r}. {_listed(place, flows)}{meant}") from None
    return _as_flow(found, place, attribute, flows)


def _as_flow(found: Any, place: str, attribute: str, flows: Mapping[str, object]) -> AsyncFlow:
    if callable(found) and not isinstance(found, (type, AsyncFlow, FlowBuilder)):
        with _importing(f"{place}:{attribute}()", Path.cwd()):
            found = found()
    if isinstance(found, FlowBuilder):
        try:
            found = found.build()
        except FlowError as error:
            raise Refusal(f"{place}:{attribute} cannot be built: {error}") from error
    if not isinstance(found, AsyncFlow):
        raise Refusal(f"{place}:{attribute} is no flow but a {type(found).__name__}. {_listed(place, flows)}")
    return found


def _listed(place: str, flows: Mapping[str, object]) -> str:
    if not flows:
        return f"There is no flow at the top level of {place}."
    names = list(flows)
    return f"The flows there: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}."


# --- remembering ---


@dataclass(frozen=True)
class Remembered:
    """With what a run was started."""

    store: str
    """The store's identity."""
    path: str
    """Where the store is."""
    run_id: str
    flow_name: str
    target: str
    folder: str
    """The working directory then."""
    at: float = 0.0
    """When, in seconds since 1970 UTC."""

    def load(self) -> AsyncFlow:
        """The flow; see `load_target`."""
        return load_target(self.target, Path(self.folder))


def remember(entry: Remembered) -> None:
    """Remember a run. Where that cannot be written it is not remembered, and nothing fails by it."""
    file = state_file()
    if file is None:
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(file):
            kept = [known for known in _entries(file) if (known.store, known.run_id) != (entry.store, entry.run_id)]
            kept.append(entry if entry.at else replace(entry, at=time.time()))
            _write(file, [asdict(known) for known in kept[-MOST:]])
    except OSError:
        pass


def recall(store: str, run_id: str, flow_name: str) -> Remembered | None:
    """With what a run of a store was started; else the latest run of the same flow there."""
    known = [entry for entry in _entries(state_file()) if entry.store == store and entry.flow_name == flow_name]
    exact = [entry for entry in known if entry.run_id == run_id]
    return next(reversed(exact or known), None)


def recall_run(text: str, folder: Path) -> Remembered | None:
    """The latest run of that id, or whose id begins so, that was started in a folder; of `latest` the latest of them all."""
    known = [entry for entry in _entries(state_file()) if entry.folder == str(folder)]
    if text != "latest":
        known = [entry for entry in known if entry.run_id == text] or [
            entry for entry in known if entry.run_id.startswith(text) and len(text) >= 4
        ]
    return known[-1] if known else None


def state_file(platform: str = sys.platform) -> Path | None:
    """The file in which it is remembered; None where there is no place for it."""
    if named := os.environ.get(STATE_VARIABLE):
        return Path(named) / "targets.json"
    base = os.environ.get("LOCALAPPDATA" if platform == "win32" else "XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117 - it may be empty
        try:
            base = str(Path.home() / ".local" / "state")
        except RuntimeError:  # nobody's home
            return None
    return Path(base) / "night-batch" / "targets.json"


def _entries(file: Path | None) -> list[Remembered]:
    """What is remembered, oldest first: nothing where the file is damaged, or others could have written it."""
    try:
        if file is None or not _is_ours(file):
            return []
        known = json.loads(file.read_text("utf-8"))
        names = {field.name: float if field.name == "at" else str for field in fields(Remembered)}
        return [
            Remembered(**entry)
            for entry in known["runs"]
            if entry.keys() == names.keys() and all(type(entry[name]) is kind for name, kind in names.items())
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _is_ours(file: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True
    return all(found.st_uid == os.getuid() and not found.st_mode & 0o022 for found in (file.stat(), file.parent.stat()))


def _write(file: Path, known: list[dict[str, Any]]) -> None:
    temporary = file.with_name(f"{file.name}.{os.urandom(6).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as out:
            json.dump({"version": 1, "runs": known}, out)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Keep other programs that remember something just now waiting, so that none forgets what another has written."""
    try:
        import fcntl  # late: not on windows, where one of two may be forgotten
    except ImportError:
        yield
        return
    with open(file.with_suffix(".lock"), "a", opener=_private) as lock:
        for _ in range(100):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
        else:
            raise TimeoutError("somebody holds the lock, and has been stopped perhaps")
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
