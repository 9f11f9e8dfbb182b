"""What a test says of a run; where it is not so, the message shows the run as a tree, with the reasons.

Takes what `run_flow` gives, or any run of a store. Must not know how it came about.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from ..errors import RunNotFoundError, closest
from ..models import ExecutionState, TaskInstance, WorkflowRun
from ..store import Store
from ..tools.terminal import Style, safe
from ..tools.trees import tree_lines
from .fakes import TaskName
from .flows import FlowResult

Run = FlowResult | WorkflowRun
"""What `run_flow` gave; or a run, as `flow.run()` and `store.load()` give it."""


def assert_succeeded(run: Run, *tasks: TaskName, store: Store | None = None) -> None:
    """The run succeeded; or, where tasks are named, these did, whatever became of the run.

    Args:
        run: the run.
        tasks: tasks by their ids or decorated functions; `"sub.task"` is one in a subflow, `"parse[3]"` an item.
        store: where subflows' runs are, if a bare run is given and a task in one of them is named; so for all others here.

    Raises:
        AssertionError: it is not so; the message shows the run.
    """
    __tracebackhide__ = True
    seen = _Seen(run, store)
    if not tasks:
        seen.check_state(None, ExecutionState.SUCCESS)
    for task in tasks:
        seen.check_state(task, ExecutionState.SUCCESS)


def assert_failed(run: Run, task: TaskName | None = None, *, match: str | None = None, store: Store | None = None) -> None:
    """The run failed; or, where a task is named, that one failed.

    Args:
        run: the run.
        task: a task, as for `assert_succeeded`.
        match: a regular expression that is to be found (`re.search`) in the reason or the traceback of the task; without a
            task, in that of one that failed.
        store: as for `assert_succeeded`.

    Raises:
        AssertionError: it is not so; the message shows the run.
    """
    __tracebackhide__ = True
    _Seen(run, store).check_state(task, ExecutionState.FAILED, match)


def assert_skipped(run: Run, task: TaskName, *, match: str | None = None, store: Store | None = None) -> None:
    """A task was skipped.

    Args:
        run: the run.
        task: a task, as for `assert_succeeded`.
        match: a regular expression that is to be found (`re.search`) in the reason.
        store: as for `assert_succeeded`.

    Raises:
        AssertionError: it is not so; the message shows the run.
    """
    __tracebackhide__ = True
    _Seen(run, store).check_state(task, ExecutionState.SKIPPED, match)


def assert_cancelled(run: Run, task: TaskName | None = None, *, match: str | None = None, store: Store | None = None) -> None:
    """The run was cancelled; or, where a task is named, that one was. The arguments are those of `assert_failed`.

    Raises:
        AssertionError: it is not so; the message shows the run.
    """
    __tracebackhide__ = True
    _Seen(run, store).check_state(task, ExecutionState.CANCELLED, match)


def assert_ran(run: Run, tasks: Iterable[TaskName], *, only: bool = False, store: Store | None = None) -> None:
    """Each of these tasks ran: an attempt of it was begun, however it ended.

    Args:
        run: the run.
        tasks: tasks, as for `assert_succeeded`.
        only: whether no other task of the run itself may have run. Items count as their mapped task; what is in a subflow is not
            looked at.
        store: as for `assert_succeeded`.

    Raises:
        AssertionError: it is not so; the message shows the run.
    """
    __tracebackhide__ = True
    seen = _Seen(run, store)
    wanted = seen.ids(tasks)
    idle = [path for path in wanted if not _began(seen.task(path))]
    if idle:
        seen.fail(f"{_listed(idle)} did not run")
    if only:
        top = {re.split(r"[.\[]", path, maxsplit=1)[0] for path in wanted} | set(wanted)
        others = [
            task_id
            for task_id, task in seen.run.tasks.items()
            if _began(task) and task_id not in top and task_id.partition("[")[0] not in top
        ]
        if others:
            seen.fail(f"{_listed(others)} ran, too")


def assert_not_run(run: Run, tasks: Iterable[TaskName], *, store: Store | None = None) -> None:
    """None of these tasks ran: no attempt of them was begun. The arguments are those of `assert_ran`.

    Raises:
        AssertionError: it is not so; the message shows the run.
    """
    __tracebackhide__ = True
    seen = _Seen(run, store)
    ran = [path for path in seen.ids(tasks) if _began(seen.task(path))]
    if ran:
        seen.fail(f"{_listed(ran)} ran")


def assert_output(run: Run, task: TaskName, expected: Any, *, store: Store | None = None) -> None:
    """A task succeeded with this output.

    Args:
        run: the run.
        task: a task, as for `assert_succeeded`.
        expected: what is to be equal (`==`) to what `ctx.pull_output` gives of it.
        store: as for `assert_succeeded`.

    Raises:
        AssertionError: it is not so; the message shows the run.
    """
    __tracebackhide__ = True
    seen = _Seen(run, store)
    seen.check_state(task, ExecutionState.SUCCESS)
    path = seen.id(task)
    output = seen.task(path).output
    if output != expected:
        seen.fail(f"the output of {path!r} is {_shown(output)}, not {_shown(expected)}")


def assert_attempts(run: Run, task: TaskName, number: int, *, store: Store | None = None) -> None:
    """A task had so many attempts, those of all its manual retries included.

    Args:
        run: the run.
        task: a task, as for `assert_succeeded`.
        number: how many.
        store: where the run is, if a bare run is given.

    Raises:
        AssertionError: it is not so; the message shows the run.
        TypeError: a bare run is given without its store.
    """
    __tracebackhide__ = True
    seen = _Seen(run, store)
    path = seen.id(task)
    seen.task(path)
    had = seen.attempts(path)
    if had != number:
        seen.fail(f"{path!r} had {had} attempt{'' if had == 1 else 's'}, not {number}")


def run_tree(run: Run, *, store: Store | None = None) -> str:
    """A run as the text that the messages show: `print(run_tree(result))`."""
    return _Seen(run, store).tree()


class _Seen:
    """A run that is looked at.

    Args:
        given: what `run_flow` gave, or a bare run.
        store: where its subflows' runs are, if that is said.
    """

    def __init__(self, given: Run, store: Store | None) -> None:
        self.run = given.run if isinstance(given, FlowResult) else given
        self._store = given.store if store is None and isinstance(given, FlowResult) else store
        self._definition = given._original.definition if isinstance(given, FlowResult) else None
        self._tasks: dict[str, TaskInstance] | None = None

    def id(self, task: TaskName) -> str:
        if isinstance(task, str):
            return task
        if self._definition is not None:
            return self._definition.task_of("(a test)", task)
        # A bare run knows no functions; nearly every task is called like its own.
        return str(getattr(task, "__name__", task))

    def ids(self, tasks: Iterable[TaskName]) -> list[str]:
        if isinstance(tasks, str) or callable(tasks):
            tasks = (tasks,)
        return [self.id(task) for task in tasks]

    def tasks(self) -> dict[str, TaskInstance]:
        if self._tasks is None:
            self._tasks = dict(self.run.tasks) if self._store is None else self.run.get_all_tasks_recursive(self._store)
        return self._tasks

    def task(self, path: str) -> TaskInstance:
        __tracebackhide__ = True
        found = self.run.tasks.get(path) or self.tasks().get(path)
        if found is None:
            if self._store is None and "." in path:
                self.fail(f"to look into the subflow of {path!r}, the store is needed: store=flow.store")
            near = closest(path, self.tasks())
            self.fail(f"the run has no task {path!r}{f'; did you mean {near!r}?' if near else ''}")
        return found

    def check_state(self, task: TaskName | None, state: ExecutionState, match: str | None = None) -> None:
        __tracebackhide__ = True
        if task is None:
            name, found = "the run", self.run.state
            texts = [text for one in self.tasks().values() if one.state is state for text in (one.reason, one.error) if text]
        else:
            path = self.id(task)
            instance = self.task(path)
            name, found = repr(path), instance.state
            texts = [text for text in (instance.reason, instance.error) if text]
        if found is not state:
            self.fail(f"{name} is {found}, not {state}")
        if match is not None and not any(re.search(match, text) for text in texts):
            self.fail(
                f"{name} is {state}, but {match!r} is not found in why: {safe(texts[0]) if texts else 'no reason is known'}"
            )

    def attempts(self, path: str) -> int:
        if self._store is None:
            raise TypeError("how many attempts a task had stands in the store: store=flow.store")
        run, *inside = self.run, *path.split(".")
        while len(inside) > 1:
            child = run.tasks[inside.pop(0)].child_run_id
            assert child is not None
            run = self._store.load(child)
        return len(self._store.list_attempts(run.id, inside[0]))

    def tree(self) -> str:
        # To no terminal, whatever the test runs in: signs, but no colours.
        style = Style(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), {"NO_COLOR": "1"})
        store = self._store
        if store is None:  # then there is no way into the subflows
            return "\n".join(tree_lines(self.run, _nowhere, style, columns=130, depth=0))
        return "\n".join(tree_lines(self.run, store.load, style, columns=130))

    def fail(self, sentence: str) -> NoReturn:
        """Raise the error of an assertion that does not hold."""
        __tracebackhide__ = True
        raise AssertionError(f"{sentence}\n\n{self.tree()}")


def _nowhere(run_id: str) -> WorkflowRun:
    raise RunNotFoundError(run_id, "no store")


def _began(task: TaskInstance) -> bool:
    return task.start_date is not None


def _listed(paths: Iterable[str]) -> str:
    return ", ".join(repr(path) for path in paths)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]}… ({len(text):,} characters)"
