"""FlowBuilder: the same flow as with decorators, put together by calls that chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from .clock import Clock
from .definitions import Dependencies, Dependency, RunIf, SubflowParams, TaskFunction
from .errors import ParallelError
from .flow import AsyncFlow
from .models import TaskType
from .redaction import Redact
from .retry_manager import MAX_INTERRUPTIONS, OnInterrupt, RetryPolicy
from .store import Store
from .task_options import GRACE_PERIOD, MAX_THREADS, ExecutorChoice, SubmitsWork
from .task_rules import MAX_MAP_SIZE, MapKey

if TYPE_CHECKING:
    from .trigger_rules import TriggerRule


class FlowBuilder:
    """Collects the tasks of a flow; `build` checks the whole and hands it out.

    Args:
        flow_name: the flow's name.
        store: where its runs live; a `MemoryStore` if none is given.
        clock, make_id, redact, executor, executors, pools, max_threads, max_processes, grace_period: as for `AsyncFlow`.
    """

    def __init__(
        self,
        flow_name: str,
        store: Store | None = None,
        *,
        clock: Clock | None = None,
        make_id: Callable[[], str] | None = None,
        redact: Redact | None = None,
        executor: ExecutorChoice = None,
        executors: Mapping[str, SubmitsWork] | None = None,
        pools: Mapping[str, int] | None = None,
        max_threads: int = MAX_THREADS,
        max_processes: int | None = None,
        grace_period: float | timedelta = GRACE_PERIOD,
    ) -> None:
        def make(store: Store | None) -> AsyncFlow:
            return AsyncFlow(
                flow_name,
                store,
                clock=clock,
                make_id=make_id,
                redact=redact,
                executor=executor,
                executors=executors,
                pools=pools,
                max_threads=max_threads,
                max_processes=max_processes,
                grace_period=grace_period,
            )

        self._make = make
        self._flow = make(store)
        self._parallel: list[tuple[str, ...]] = []

    def __repr__(self) -> str:
        return f"<FlowBuilder of {self._flow!r}>"

    def add_task(
        self,
        task_id: str,
        task_function: TaskFunction,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: float | timedelta | None = None,
        task_type: TaskType | str | None = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        heartbeat_timeout: float | timedelta | None = None,
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
    ) -> FlowBuilder:
        """Add a task; see `AsyncFlow.add_task_definition`."""
        self._flow.add_task_definition(
            task_id,
            task_function,
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
        return self

    def add_subflow(
        self,
        subflow_id: str,
        child_flow: AsyncFlow,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: float | timedelta | None = None,
        params: SubflowParams = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        retry: RetryPolicy | None = None,
        trigger_rule: TriggerRule | str = "all_success",
        run_if: RunIf | None = None,
        map_over: Dependency | None = None,
        map_key: MapKey | None = None,
        max_map_size: int = MAX_MAP_SIZE,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> FlowBuilder:
        """Add a nested flow; see `AsyncFlow.add_subflow_definition`."""
        self._flow.add_subflow_definition(
            subflow_id,
            child_flow,
            dependencies=depends_on,
            max_retries=max_retries,
            retry_delay=retry_delay,
            params=params,
            max_interruptions=max_interruptions,
            on_interrupt=on_interrupt,
            retry=retry,
            trigger_rule=trigger_rule,
            run_if=run_if,
            map_over=map_over,
            map_key=map_key,
            max_map_size=max_map_size,
            name=name,
            description=description,
            replace=replace,
        )
        return self

    def include(
        self, other: AsyncFlow, prefix: str | None = None, *, depends_on: Dependencies = None, replace: bool = False
    ) -> FlowBuilder:
        """Take in all tasks of another flow; see `AsyncFlow.include`."""
        self._flow.include(other, prefix, depends_on=depends_on, replace=replace)
        return self

    def add_parallel(self, task_ids: Sequence[str]) -> FlowBuilder:
        """Declare that these tasks are meant to run side by side.

        Tasks do so anyway unless one depends on another; `build` checks that none does.
        """
        self._parallel.append((task_ids,) if isinstance(task_ids, str) else tuple(task_ids))
        return self

    def with_retry(self, task_id: str, max_retries: int, delay: float | timedelta | None = None) -> FlowBuilder:
        """Give a task that was added a retry policy.

        Raises:
            UnknownTaskError: no such task was added.
        """
        self._flow.update_task_retry_policy(task_id, max_retries, delay)
        return self

    def build(self) -> AsyncFlow:
        """Check the whole and return the flow. What is added to the builder afterwards is not in it.

        Raises:
            UnknownDependencyError, CycleError: the graph is not sound.
            UnknownTaskError, ParallelError: tasks declared parallel do not exist, or depend on one another.
        """
        self._flow.validate()
        graph = self._flow.definition.graph()
        for task_ids in self._parallel:
            for task_id in task_ids:
                self._flow.definition.get(task_id)
            for upstream in task_ids:
                for downstream in task_ids:
                    if upstream != downstream and graph.is_upstream(upstream, of=downstream):
                        raise ParallelError(self._flow.flow_name, upstream, downstream)
        built = self._make(self._flow.store)
        built.definition.copy_from(self._flow.definition)
        return built
