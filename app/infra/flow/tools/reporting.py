"""Writes the report of a run: from code (`write_report`), and as a command. What stands on the page is `report`'s business."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from .. import AsyncFlow, Store
from .failures import DONE, Refusal, note, say
from .opening import find_run, open_store, path_of
from .program import to_type
from .report.gathering import gather
from .report.markup import Budget
from .report.page import MOST_TEXT, page

Redact = Callable[[str], str]


def report_html(
    store: Store,
    run_id: str,
    *,
    redact: Redact | None = None,
    values: bool = True,
    title: str | None = None,
    now: datetime | None = None,
) -> str:
    """The report of a run as one HTML page, which needs nothing else: no network, and no script either.

    Whatever a user typed is shown as text. Params and outputs whose names look like those of secrets are masked.

    Args:
        store: where the run is.
        run_id: the run; it may be going on.
        redact: takes secrets out of a text; called with each reason, traceback, log line and value that is shown, not with ids.
        values: whether params, inputs and outputs are shown.
        title: what the page is called; by default the flow's name.
        now: the moment that it is told at; the system's clock by default.

    Raises:
        RunNotFoundError: there is no such run.
    """
    data = gather(store, run_id, now=now)
    resume = to_type("resume", run_id, store=path_of(store))
    return page(data, budget=Budget(MOST_TEXT, redact), values=values, title=title, resume=resume)


def write_report(
    store: Store,
    run_id: str,
    path: str | os.PathLike[str],
    *,
    redact: Redact | None = None,
    values: bool = True,
    title: str | None = None,
) -> Path:
    """Write the report of a run to a file, whole or not at all; what was there is replaced. The file is for its owner alone.

    Args:
        store: where the run is.
        run_id: the run; it may be going on.
        path: the file.
        redact: takes secrets out of a text; see `report_html`.
        values: whether params, inputs and outputs are shown.
        title: what the page is called; by default the flow's name.

    Returns:
        The file's path.

    Raises:
        RunNotFoundError: there is no such run.
        OSError: the file cannot be written.
    """
    target = Path(path)
    content = report_html(store, run_id, redact=redact, values=values, title=title)
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        Path(beside).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(beside).unlink()
        raise
    return target


def report_command(options: argparse.Namespace) -> int:
    """`report RUN -o FILE`."""
    flow: AsyncFlow | None = None
    if options.flow is not None:
        from .targets import load_target  # late: few reports need the flow's code

        flow = load_target(options.flow)
    store = open_store(options, flow)
    try:
        run_id = find_run(store, options.run_id)
        target = Path(options.output or file_name(run_id))
        if target.is_dir() or not target.absolute().parent.is_dir():
            problem = "is a folder" if target.is_dir() else "cannot be written: its folder does not exist"
            raise Refusal(f"{target} {problem}. Name another file with -o FILE.")
        write_report(store, run_id, target, redact=None if flow is None else flow.redact, values=options.values)
    finally:
        store.close()
    say([str(target)])
    if options.open:
        import webbrowser  # late: few reports are opened at once

        if not webbrowser.open(target.resolve().as_uri()):
            note("No browser could be opened.")
    return DONE


def file_name(run_id: str) -> str:
    """What a run's report is called: by its id, with what a file's name should not have left out."""
    found = re.sub(r"[^\w.+=@ -]+", "-", run_id).strip(". -")[:120]
    return f"{found or 'report'}.html"
