"""A nightly audit of a tree of Python sources: one task per file, then a ranking, checks and a Markdown report.

Run it as `python -m examples.source_audit`; by default it audits the standard library of the interpreter that runs it. Stop it
with Ctrl-C or kill -9 whenever you like: the same command goes on where it stood, reads no finished file again, and ends
with the same report, byte for byte.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import hashlib
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from app.infra.flow import (
    AsyncFlow,
    Context,
    DefinitionError,
    Event,
    FlowError,
    GraphChangedError,
    RunFailedError,
    RunStarted,
    SQLiteStore,
    TaskSucceeded,
)

TOP_LEVEL = "."
"""Counted as a package: the modules that stand beside the packages. No folder can have this name."""

SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages"})
ANOTHER_RUN = "Start afresh with another --run-id."
FIGURES = ("files", "bytes", "lines", "functions", "findings")


@dataclass(frozen=True)
class Function:
    """Where a function stands, and how long it is."""

    name: str
    file: str
    line: int
    length: int

    def longest_first(self) -> tuple[int, str, int]:
        """Sorts by length; between equals the place decides."""
        return -self.length, self.file, self.line


@dataclass(frozen=True)
class Finding:
    """A file that could not be read as Python, and why."""

    file: str
    line: int | None
    problem: str


@dataclass
class File:
    """What one file comes to."""

    name: str
    bytes: int = 0
    lines: int = 0
    functions: int = 0
    longest: Function | None = None
    finding: Finding | None = None


@dataclass
class Package:
    """What the files of one package come to."""

    name: str
    figures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0))
    longest: Function | None = None
    findings: list[Finding] = field(default_factory=list[Finding])


@dataclass
class Audit:
    """What the whole tree comes to."""

    packages: list[Package]
    totals: dict[str, int]


# --- reading source ------------------------------------------------------------------------------------------------------------


def list_files(root: Path) -> Iterator[str]:
    """The Python files under `root`, package by package: in the modules beside the packages first, then in each folder."""
    folders = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink() and is_audited(entry.name)]
    for package in sorted([TOP_LEVEL, *folders]):
        for path in source_files(root, package):
            yield path.relative_to(root).as_posix()


def source_files(root: Path, package: str) -> Iterator[Path]:
    """The Python files of a package, in an order that does not depend on the file system."""
    for folder, folders, files in os.walk(root / package):
        folders[:] = sorted(name for name in folders if is_audited(name)) if package != TOP_LEVEL else []
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def is_audited(folder: str) -> bool:
    """Whether a folder of this name is looked into."""
    return folder not in SKIPPED_FOLDERS and not folder.startswith(".")


def package_of(file: str) -> str:
    """The package that a file belongs to: the first folder on its path."""
    return file.partition("/")[0] if "/" in file else TOP_LEVEL


def audit_file(root: Path, name: str) -> File:
    """Read and parse one file. What cannot be read or parsed is a finding; nothing is imported or run."""
    file = File(name)
    try:
        source = read_source(root / name)
        file.bytes, file.lines = len(source), len(source.splitlines())
        functions = functions_of(source, name)
    except SyntaxError as error:
        file.finding = Finding(name, error.lineno, error.msg)
    except OSError as error:
        file.finding = Finding(name, None, error.strerror or str(error))
    except (ValueError, RecursionError, MemoryError) as error:  # what else the parser raises for odd input
        file.finding = Finding(name, None, str(error) or type(error).__name__)
    else:
        file.functions = len(functions)
        file.longest = min(functions, key=Function.longest_first, default=None)
    return file


def summarize(files: Iterable[File]) -> list[Package]:
    """The packages that the files belong to."""
    packages: dict[str, Package] = {}
    for file in files:
        name = package_of(file.name)
        package = packages.setdefault(name, Package(name))
        found = (1, file.bytes, file.lines, file.functions, int(file.finding is not None))
        package.figures = {key: package.figures[key] + more for key, more in zip(FIGURES, found)}
        longest = [function for function in (package.longest, file.longest) if function]
        package.longest = min(longest, key=Function.longest_first, default=None)
        package.findings += [file.finding] if file.finding else []
    return list(packages.values())


def read_source(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a device might never end."""
    if not path.is_file():
        raise OSError("not a regular file")
    return path.read_bytes()


def functions_of(source: bytes, file: str) -> list[Function]:
    """The functions, methods included, that a file defines."""
    return [
        Function(node.name, file, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


# --- the report ----------------------------------------------------------------------------------------------------------------


def render(audit: Audit, ranking: Sequence[str], root: str, python: str) -> str:
    """The report, as Markdown: the same text for the same sources."""
    packages = {package.name: package for package in audit.packages}
    rows = [[title(name), *packages[name].figures.values()] for name in ranking]
    longest = sorted((package.longest for package in audit.packages if package.longest), key=Function.longest_first)
    findings = [finding for package in audit.packages for finding in package.findings]
    lines = [
        "# Source audit",
        "",
        f"{code(root)}, parsed by Python {python}.",
        "",
        "## Packages, largest first",
        "",
        *table(["package", *FIGURES], [*rows, ["total", *audit.totals.values()]]),
        "",
        "## The longest function of each package",
        "",
        *table(["lines", "function", "place"], [[f.length, code(f.name), place(f.file, f.line)] for f in longest]),
        "",
        "## Findings",
        "",
        *([f"- {place(finding.file, finding.line)}: {code(finding.problem)}" for finding in findings] or ["None."]),
        "",
    ]
    return "\n".join(lines)


def title(package: str) -> str:
    """A package as the report calls it."""
    return "top-level modules" if package == TOP_LEVEL else code(package)


def place(file: str, line: int | None) -> str:
    """A file, or a line in it, as code."""
    return code(f"{file}:{line}" if line else file)


def code(text: str) -> str:
    """Text as a Markdown code span that no file name or error message can break out of."""
    shown = printable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence}{shown}{fence}" if len(fence) == 1 else f"{fence} {shown} {fence}"


def printable(text: str) -> str:
    """Text in one line, with control characters and the like as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
    escaped = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return [f"| {' | '.join(row)} |" for row in escaped]


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: whoever looks finds the old text or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# --- the flow ------------------------------------------------------------------------------------------------------------------


def build_flow(store: SQLiteStore) -> AsyncFlow:
    """The audit. Which files there are is found out when it runs; each has a task of its own then, `parse[asyncio/tasks.py]`."""
    store.register(Function, Finding, File, Package, Audit)
    flow = AsyncFlow("source_audit", store)

    @flow.task
    def discover(ctx: Context) -> list[str]:
        return list(list_files(Path(ctx.params["root"])))

    @flow.task(map_over=discover, map_key=key_of)
    def parse(ctx: Context, file: str) -> File:
        return audit_file(Path(ctx.params["root"]), file)

    @flow.task(depends_on=[parse])
    def merge(ctx: Context, parse: list[File]) -> Audit:
        packages = summarize(parse)
        return Audit(packages, {key: sum(package.figures[key] for package in packages) for key in FIGURES})

    @flow.task(depends_on=[merge])
    def rank(ctx: Context, merge: Audit) -> list[str]:
        return [package.name for package in sorted(merge.packages, key=lambda package: (-package.figures["lines"], package.name))]

    @flow.task(depends_on=[merge, rank])
    def report(ctx: Context, merge: Audit, rank: list[str]) -> str:
        return render(merge, rank, ctx.params["root"], ctx.params["python"])

    flow.add_subflow_definition("validate", validation(), dependencies=[discover, merge, rank, report])

    @flow.task(depends_on=["validate", report])
    def write(ctx: Context, report: str) -> str:
        write_atomically(Path(ctx.params["report"]), report)
        return str(ctx.params["report"])

    return flow


def key_of(file: str) -> str:
    """What a file's task is called by: its path, without what keys may not hold, such as brackets, and not too long."""
    key = re.sub(r"[^\w./ -]", lambda char: f"%{ord(char[0]):x};", file)
    return key if len(key) <= 250 else f"{key[:200]}%{hashlib.sha256(os.fsencode(file)).hexdigest()}"


def validation() -> AsyncFlow:
    """Checks of the result, each by another way than the one it was made by; a wrong report is never written."""
    flow = AsyncFlow("source_audit validation")

    @flow.task
    def every_file_is_in_it(ctx: Context) -> None:
        audit: Audit = ctx.params["merge"]
        discovered = Counter(package_of(file) for file in ctx.params["discover"])
        if {package.name: package.figures["files"] for package in audit.packages} != discovered:
            raise ValueError("the audit does not hold the files that were discovered, each once")
        if sorted(ctx.params["rank"]) != sorted(discovered):
            raise ValueError("the ranking does not hold the packages that were discovered, each once")

    @flow.task
    def findings_are_counted(ctx: Context) -> None:
        audit: Audit = ctx.params["merge"]
        for package in audit.packages:
            if len(package.findings) != package.figures["findings"] or len(package.findings) > package.figures["files"]:
                raise ValueError(f"the findings in {package.name} are not as many as its figures say")

    @flow.task
    def totals_of_the_report_add_up(ctx: Context) -> None:
        table_rows = re.findall(r"^\| .*? \| ([\d |]+) \|$", ctx.params["report"], re.MULTILINE)
        *rows, totals = [[int(cell) for cell in row.split(" | ")] for row in table_rows]
        if len(rows) != len(ctx.params["rank"]) or [sum(column) for column in zip(*rows)] != totals:
            raise ValueError("the rows of the report do not add up to its totals")

    return flow


# --- the command ---------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit. Returns the exit code: 0 done, 1 failed, 130 or 143 interrupted; wrong arguments exit with 2."""
    parser = arguments()
    options = parser.parse_args(argv)
    root: Path = options.root.resolve()
    report: Path = (options.report or options.db.with_name("source_audit.md")).resolve()
    run_id: str = options.run_id
    params = {"root": str(root), "report": str(report), "python": platform.python_version()}
    try:
        found = any(list_files(root))
    except OSError as error:
        parser.error(f"cannot look into {root}: {error.strerror}")
    if not found:
        parser.error(f"there are no Python files under {root}")
    try:
        with SQLiteStore(options.db) as store, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser has opinions on other people's escape sequences
            flow = build_flow(store)
            begun = store.load(run_id) if store.exists(run_id) else None
            if begun and (other := differences(begun.params, params)):
                return complain(f"run {run_id!r} was begun with {other}.", ANOTHER_RUN)
            show_progress(flow, run_id)
            run = flow.run(params, run_id=run_id, max_concurrency=options.max_concurrency).raise_for_failure()
            if not report.exists():  # the run ended earlier, and its report was deleted since: all it takes is in the store
                run = asyncio.run(flow.retry(run_id, "write")).raise_for_failure()
            audit: Audit = run.tasks["merge"].output
            figures = ", ".join(f"{audit.totals[key]} {key}" for key in FIGURES)
            print(f"{report}: {len(audit.packages)} packages, {figures}")
            return 0
    except GraphChangedError:
        return complain(f"run {run_id!r} was begun by another version of this program.", ANOTHER_RUN)
    except DefinitionError as error:
        parser.error(str(error))
    except RunFailedError as error:
        return complain(str(error), ANOTHER_RUN)
    except FlowError as error:
        return complain(str(error), "What was finished is kept; once that is mended, the same command goes on from there.")
    except (KeyboardInterrupt, SystemExit) as stop:  # the latter is what flow.run makes of SIGTERM
        print(f"Interrupted. The same command with --run-id {run_id} goes on from here.", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="source_audit", description="Audit a tree of Python sources.")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    parser.add_argument("--root", type=Path, default=stdlib, help="the folder to audit (default: the standard library)")
    parser.add_argument("--db", type=Path, default=Path("source_audit.db"), help="where the runs are kept (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="the report to write (default: source_audit.md beside the db)")
    parser.add_argument("--run-id", default=f"audit-{date.today()}", help="the run to begin or continue (default: %(default)s)")
    parser.add_argument("--max-concurrency", type=int, default=4, help="files read at once; 0 is all (default: %(default)s)")
    return parser


def differences(begun: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What a run was begun with that is not what is wanted now."""
    names = [name for name in wanted if begun.get(name, wanted[name]) != wanted[name]]
    return " and ".join(f"{name} {begun[name]} (now {wanted[name]})" for name in names)


def show_progress(flow: AsyncFlow, run_id: str) -> None:
    """Tell on stderr what was finished, as it happens: each package, when its last file is parsed, and the tasks after that."""
    packages: dict[str, str] = {}  # by the task of each file that is not parsed yet
    left: Counter[str] = Counter()
    total = 0

    def look() -> str:
        nonlocal total
        tasks = flow.store.load(run_id).tasks
        files = {f"parse[{key_of(file)}]": package_of(file) for file in tasks["discover"].output or []}
        packages.clear()
        packages.update((task, package) for task, package in files.items() if task not in tasks or tasks[task].state != "success")
        left.clear()
        left.update(packages.values())
        total = len(set(files.values()))
        return f"{len(files) - len(packages)} of {len(files)} files are parsed" if files else "no file is parsed yet"

    def tell(event: Event) -> None:
        if event.run_id != run_id:  # a step of the validation
            return
        if isinstance(event, RunStarted):
            print(f"Run {run_id}: {look()}.", file=sys.stderr, flush=True)
        elif isinstance(event, TaskSucceeded) and event.task_id in packages:
            package = packages.pop(event.task_id)
            left[package] -= 1
            if not left[package]:
                del left[package]
                name = "top-level modules" if package == TOP_LEVEL else printable(package)
                print(f"[{total - len(left)}/{total}] {name}", file=sys.stderr, flush=True)
        elif isinstance(event, TaskSucceeded):
            print(f"[{event.task_id}] {look() if event.task_id == 'discover' else 'done'}", file=sys.stderr, flush=True)

    flow.events.subscribe(tell, RunStarted, TaskSucceeded)


def complain(problem: str, remedy: str) -> int:
    """Say what is wrong and what helps, in a line each; the exit code of a failed audit."""
    print(f"source_audit: {printable(' '.join(problem.split()))}\n{remedy}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
