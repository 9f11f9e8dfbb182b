"""The workloads on Dagster: a job of ops in one process, its event log in SQLite, each output in a file.

Runs inside Dagster's own environment; knows nothing of the other engines.
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,misc"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import logging
from pathlib import Path

from dagster import (
    DagsterEventType,
    DagsterInstance,
    DependencyDefinition,
    FilesystemIOManager,
    GraphDefinition,
    In,
    JobDefinition,
    MultiDependencyDefinition,
    Nothing,
    OpDefinition,
    op,
)

from benchmarks.peers.measuring import Workload, body, main, timed
from benchmarks.peers.shapes import Shape


def op_of(name: str, upstreams: tuple[str, ...]) -> OpDefinition:
    """Makes one task, which waits for its upstreams and takes nothing of them."""

    @op(name=name, ins={"after": In(Nothing)} if upstreams else {})
    def run() -> int:
        return body()

    return run


def job_of(name: str, shape: Shape, folder: Path) -> JobDefinition:
    """Makes the job from its ops and the edges among them."""
    dependencies = {
        task: {"after": MultiDependencyDefinition([DependencyDefinition(upstream) for upstream in upstreams])}
        if upstreams
        else {}
        for task, upstreams in shape.items()
    }
    ops = [op_of(task, upstreams) for task, upstreams in shape.items()]
    graph = GraphDefinition(name=name, node_defs=ops, dependencies=dependencies)
    return graph.to_job(name=name, resource_defs={"io_manager": FilesystemIOManager(base_dir=str(folder))})


def instance_in(folder: Path) -> DagsterInstance:
    """Opens an instance whose runs, events and outputs are in the folder, and which tells nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\npython_logs:\n  python_log_level: CRITICAL\n")
    return DagsterInstance.from_config(str(folder))


def engine(work: Workload) -> float:
    """Times one execution of the job in this process."""
    logging.disable(logging.CRITICAL)
    job = job_of(work.run_id, work.shape, work.folder)
    with instance_in(work.folder) as instance:
        unfinished = left_to_do(work, instance) if work.resumed else None
        return timed(lambda: job.execute_in_process(instance=instance, op_selection=unfinished))


def left_to_do(work: Workload, instance: DagsterInstance) -> list[str]:
    """Asks the event log of the killed run which ops have not succeeded, as Dagster's re-execution from failure does."""
    logs = instance.all_logs(instance.get_runs()[0].run_id, of_type=DagsterEventType.STEP_SUCCESS)
    done = {entry.step_key for entry in logs}
    return [name for name in work.shape if name not in done]


if __name__ == "__main__":
    main(engine)
