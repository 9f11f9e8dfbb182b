"""Declaring a flow: its tasks and nested flows, by decorators and by calls, each checked as it comes.

Knows what a flow is made of; must not know runs, stores or how anything is driven.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .definitions import Dependencies, Dependency, FlowDefinition, RunIf, SubflowParams, TaskFunction
from .errors import InvalidOptionError, TaskFunctionError
from .functions import function_name
from .models import TaskType
from .retry_manager import MAX_INTERRUPTIONS, OnInterrupt, RetryPolicy, retry_policy, with_retries
from .task_options import ExecutorChoice, task_options
from .task_rules import MAX_MAP_SIZE, MapKey, task_rules

if TYPE_CHECKING:
    from .including import Included
    from .models import GraphNode
    from .task_handles import TaskDecorator
    from .trigger_rules import TriggerRule

F = TypeVar("F", bound=Callable[..., Any])
D = TypeVar("D", bound="Declared")
RetryDelay = float | timedelta | None
Seconds = float | timedelta | None


class Declared:
    """A flow as it is declared; `AsyncFlow` is one that can be run.

    Args:
        definition: takes what is declared.
    """

    def __init__(self, definition: FlowDefinition) -> None:
        self._definition = definition

    @property
    def flow_name(self) -> str:
        """The flow's name."""
        return self._definition.name

    @property
    def definition(self) -> FlowDefinition:
        """The tasks as they were declared."""
        return self._definition

    @property
    def graph(self) -> Mapping[str, GraphNode]:
        """The flow's graph as it is declared now, by task id: to look at. It may not be sound yet; see `validate`."""
        from .graph_nodes import declared_nodes  # late: only who looks at flows needs it

        return declared_nodes(self._definition)

    @overload
    def task(self, task_id: F) -> F: ...

    @overload
    def task(
        self,
        task_id: str | None = None,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        timeout: Seconds = None,
        heartbeat_timeout: Seconds = None,
        executor: ExecutorChoice = None,
        pool: str | None = None,
        pool_weight: int = 1,
        priority: int = 0,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        branch: bool = False,
        map_over: None = None,
        task_type: TaskType | str | None = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> TaskDecorator[Any]: ...

    @overload
    def task(
        self,
        task_id: str | None = None,
        *,
        map_over: Dependency,
        map_key: MapKey | None = None,
        max_map_size: int = MAX_MAP_SIZE,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        timeout: Seconds = None,
        heartbeat_timeout: Seconds = None,
        executor: ExecutorChoice = None,
        pool: str | None = None,
        pool_weight: int = 1,
        priority: int = 0,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        task_type: TaskType | str | None = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> TaskDecorator[Dependency]: ...

    def task(
        self,
        task_id: str | Callable[..., Any] | None = None,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        timeout: Seconds = None,
        heartbeat_timeout: Seconds = None,
        executor: ExecutorChoice = None,
        pool: str | None = None,
        pool_weight: int = 1,
        priority: int = 0,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        branch: bool = False,
        map_over: Dependency | None = None,
        map_key: MapKey | None = None,
        max_map_size: int = MAX_MAP_SIZE,
        task_type: TaskType | str | None = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> Any:
        """Decorate a function or coroutine function as a task; it is returned unchanged.

        Written bare (`@flow.task`) or without an id, the function's name is the id. The arguments are those of
        `add_task_definition`, where `depends_on` is called `dependencies`.
        """

        def decorate(function: F) -> F:
            self.add_task_definition(
                task_id if isinstance(task_id, str) else getattr(function, "__name__", repr(function)),
                function,
                task_type=task_type,
                dependencies=depends_on,
                max_retries=max_retries,
                retry_delay=retry_delay,
                max_interruptions=max_interruptions,
                on_interrupt=on_interrupt,
                retry=retry,
                timeout=timeout,
                heartbeat_timeout=heartbeat_timeout,
                executor=executor,
                pool=pool,
                pool_weight=pool_weight,
                priority=priority,
                trigger_rule=trigger_rule,
                run_if=run_if,
                branch=branch,
                map_over=map_over,
                map_key=map_key,
                max_map_size=max_map_size,
                name=name,
                description=description,
                replace=replace,
            )
            return function

        return decorate if task_id is None or isinstance(task_id, str) else decorate(task_id)

    @overload
    def subflow(
        self,
        subflow_id: str,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        params: SubflowParams = None,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        map_over: None = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> TaskDecorator[Any]: ...

    @overload
    def subflow(
        self,
        subflow_id: str,
        *,
        map_over: Dependency,
        map_key: MapKey | None = None,
        max_map_size: int = MAX_MAP_SIZE,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        params: SubflowParams = None,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> TaskDecorator[Dependency]: ...

    def subflow(
        self,
        subflow_id: str,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        params: SubflowParams = None,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        map_over: Dependency | None = None,
        map_key: MapKey | None = None,
        max_map_size: int = MAX_MAP_SIZE,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> Any:
        """Decorate a function that makes the nested flow: it is called once, at once, with None, and returns an `AsyncFlow`.

        The other arguments are those of `add_subflow_definition`, where `depends_on` is called `dependencies`.

        Raises:
            TaskFunctionError: the function returns something else.
        """

        def decorate(factory: F) -> F:
            child = factory(None)
            if not isinstance(child, Declared):
                problem = f"it returned {type(child).__name__}, and must return the nested AsyncFlow"
                raise TaskFunctionError(subflow_id, function_name(factory), problem)
            self._definition.add_subflow(
                subflow_id,
                child._definition,
                depends_on=depends_on,
                retry=retry_policy(max_retries, retry_delay, subflow_id, max_interruptions, on_interrupt, retry),
                params=params,
                rules=task_rules(subflow_id, trigger_rule, run_if, False, map_over, map_key, max_map_size),
                name=name,
                description=description,
                replace_task=replace,
                factory=factory,
            )
            return factory

        return decorate

    def add_task_definition(
        self: D,
        task_id: str,
        task_function: TaskFunction,
        *,
        task_type: TaskType | str | None = None,
        dependencies: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        timeout: Seconds = None,
        heartbeat_timeout: Seconds = None,
        executor: ExecutorChoice = None,
        pool: str | None = None,
        pool_weight: int = 1,
        priority: int = 0,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        branch: bool = False,
        map_over: Dependency | None = None,
        map_key: MapKey | None = None,
        max_map_size: int = MAX_MAP_SIZE,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> D:
        """Declare a task.

        Args:
            task_id: a non-empty string without `.`, `/` and control characters.
            task_function: takes the context, and behind it what has the name of a dependency, whose output it gets; of a mapped
                task also the item, as the first of the others. A coroutine function runs on the event loop, any other one
                in a thread.
            task_type: "task" or left out.
            dependencies: ids of tasks, or the decorated functions themselves; they may be declared later.
            max_retries: how many attempts may follow a failed one.
            retry_delay: seconds (or a timedelta) before each of them.
            max_interruptions: after how many attempts in which the process died (or lost the run) the task fails, instead of
                running again when the run is continued. All that ran when it died count it: which one killed it nobody knows.
            on_interrupt: "retry", or "fail" for a task that must not run twice unless a person says so: an attempt that is cut
                off, by the death of the process or by a cancellation, then fails the task at once, whatever its `max_retries`.
            retry: a `RetryPolicy`, in place of the four arguments above.
            timeout: seconds (or a timedelta) that one attempt may take; then it fails with `TaskTimeoutError`. A coroutine is
                cancelled and a worker process killed. A thread cannot be ended: it is left to itself, and its late result is
                thrown away; use `executor="process"` for functions that may hang.
            heartbeat_timeout: seconds that an attempt may go without a call of `ctx.heartbeat()`; then it fails likewise.
            executor: where the function runs: "thread" (unless the flow says otherwise), "inline" (on the event loop: for what
                takes microseconds), "process" (a worker process that can be killed), a name from `AsyncFlow(..., executors=)`,
                or any `concurrent.futures.Executor`. To run in another process, it must stand at the top level of a module.
            pool: one of `AsyncFlow(..., pools=)`: an attempt starts when the pool has room.
            pool_weight: how many of the pool's slots it takes.
            priority: of the tasks that are ready, those with the highest number start first.
            trigger_rule: what it asks of how its dependencies end before it starts: a `TriggerRule` or its string.
            run_if: a function of the context, with parameters as the task's own, asked at each attempt where the task would run;
                if it says no, the task is skipped. A coroutine function only where the task is one.
            branch: the task returns the ids of those of its downstream tasks that go on (one, a list of them, or None); the
                others that depend on it directly are skipped, unless they stand downstream of one that goes on.
            map_over: a task (it need not stand among the dependencies) that returns a list: of this task there is an instance for
                each item then, `parse[0]`, `parse[1]` ..., with attempts of its own, for which all that is said here holds one by
                one; its output is the list of theirs. The trigger rule goes by the other dependencies. Over a task that is
                mapped itself, each item starts, by the rule, as soon as that of the other has ended.
            map_key: a function of an item that gives its key, a string, so that the instances are called `parse[key]`.
            max_map_size: how many items there may be; a longer list fails the task.
            name: what people call it.
            description: what it does; the function's docstring if left out.
            replace: take the place of a task of the same id, as when a notebook cell runs again.

        Returns:
            The flow itself, so that calls chain.

        Raises:
            DefinitionError: one of its kinds says what is wrong; the flow stays as it was.
        """
        self._definition.add_task(
            task_id,
            task_function,
            depends_on=dependencies,
            retry=retry_policy(max_retries, retry_delay, task_id, max_interruptions, on_interrupt, retry),
            options=task_options(task_id, timeout, heartbeat_timeout, executor, pool, pool_weight, priority),
            rules=task_rules(task_id, trigger_rule, run_if, branch, map_over, map_key, max_map_size),
            task_type=task_type,
            name=name,
            description=description,
            replace_task=replace,
        )
        return self

    def add_subflow_definition(
        self: D,
        subflow_id: str,
        child_flow: Declared,
        *,
        dependencies: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        params: SubflowParams = None,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        map_over: Dependency | None = None,
        map_key: MapKey | None = None,
        max_map_size: int = MAX_MAP_SIZE,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> D:
        """Declare a task that is a whole flow, with a run of its own in this flow's store.

        Args:
            subflow_id: the id of the task.
            child_flow: the nested flow.
            dependencies: ids of tasks, or the decorated functions themselves.
            max_retries: how often what failed inside is tried again as a whole.
            retry_delay: seconds (or a timedelta) before each of these.
            max_interruptions: as for a task, of the function that makes the params. While the child runs, the tasks in it have
                theirs.
            on_interrupt: likewise.
            retry: a `RetryPolicy`, in place of the four arguments above.
            params: the child's own params, beside the parent's and the outputs of the dependencies by id; a mapping, or a
                function that makes one from the parent's context, with parameters as a task's.
            trigger_rule: as for a task.
            run_if: likewise; asked before the nested flow's run is made.
            map_over: as for a task: a nested run for each item, which finds it among its params as `item`, and its place in the
                list as `map_index`.
            map_key: as for a task.
            max_map_size: likewise.
            name: what people call it.
            description: what it does.
            replace: take the place of a task of the same id.

        Returns:
            The flow itself, so that calls chain.

        Raises:
            NestedFlowError: the nested flow contains this one.
            DefinitionError: another of its kinds says what is wrong; the flow stays as it was.
        """
        if not isinstance(child_flow, Declared):
            raise InvalidOptionError("child_flow", child_flow, "an AsyncFlow", subflow_id)
        self._definition.add_subflow(
            subflow_id,
            child_flow._definition,
            depends_on=dependencies,
            retry=retry_policy(max_retries, retry_delay, subflow_id, max_interruptions, on_interrupt, retry),
            params=params,
            rules=task_rules(subflow_id, trigger_rule, run_if, False, map_over, map_key, max_map_size),
            name=name,
            description=description,
            replace_task=replace,
        )
        return self

    def include(
        self, other: Declared, prefix: str | None = None, *, depends_on: Dependencies = None, replace: bool = False
    ) -> Included:
        """Take in all tasks of another flow as tasks of this one, in the same runs; the other flow stays as it is.

        With `prefix="x"`, what is `load` there is `x_load` here, and all that the tasks say of one another goes along:
        dependencies, maps, branches. Their code goes on to use the names that it was written with: in `x_transform`,
        `ctx.pull_output("load")` is the output of `x_load`, whatever else is called `load` here. `ctx.task_id` is the id here.

        What holds for a whole flow goes along as far as tasks need it: named executors, the executor of functions that name none,
        and the redaction hook, which from now on sees the texts of all tasks here. Store, events and limits are this flow's own.
        What is declared in the other flow later is not taken in; flows nested in it are the same ones in both.

        Args:
            other: the flow, sound in itself.
            prefix: what the ids begin with here. It is joined to them by an underscore, unless it ends in another character
                than a letter or digit: `"x"` and `"x_"` make `x_load`, `"x:"` makes `x:load`. Left out, the ids stay.
            depends_on: tasks of this flow that those of the other one wait for which depend on nothing there.
            replace: take the place of tasks of the same ids, as when a notebook cell runs again.

        Returns:
            The tasks as they are called here: `included["load"]` is an id, and `depends_on=included` means the last ones.

        Raises:
            DuplicateTaskError: a task of such an id is here already; another prefix helps.
            NestedFlowError: this flow is nested in the other one.
            CycleError: a task here depends on one of those that come, and they (`depends_on=`) on it.
            DefinitionError: another of its kinds says what is wrong. In any case the flow stays as it was.
        """
        if not isinstance(other, Declared):
            raise InvalidOptionError("other", other, "an AsyncFlow (a FlowBuilder makes one: build())")
        from .including import include  # late: few flows include others

        return include(self._definition, other._definition, prefix, depends_on, replace)

    def has_task(self, task_id: str) -> bool:
        """Whether the flow has a task, or subflow, of that id."""
        return isinstance(task_id, str) and task_id in self._definition.tasks

    def update_task_retry_policy(self, task_id: str, max_retries: int, retry_delay: RetryDelay = None) -> None:
        """Give a task another number of retries and delay (in seconds); they hold from the next failure on.

        Of a mapped task they hold for each item.

        Raises:
            UnknownTaskError: the flow has no such task.
            InvalidOptionError: the policy makes no sense.
        """
        known = self._definition.get(task_id).retry
        self._definition.set_retry(task_id, with_retries(known, max_retries, retry_delay, task_id))

    def validate(self) -> None:
        """Check the graph of this flow and of all flows nested in it, as `init_run` does.

        Raises:
            UnknownDependencyError, CycleError: what is wrong with it.
        """
        if self._definition.validate():
            from .places import check_places  # late: most flows leave it to the engine where their tasks run

            check_places(self._definition)
