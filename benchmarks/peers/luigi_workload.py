"""The workloads on Luigi: a file per task, its local scheduler, one worker.

Runs inside Luigi's own environment; knows nothing of the other engines.
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,misc"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import logging
from pathlib import Path

import luigi
from luigi.configuration import get_config

from benchmarks.peers.measuring import Workload, body, main, timed
from benchmarks.peers.shapes import Shape, ends

shape: Shape = {}
folder = Path()


class Step(luigi.Task):
    """One task: its result is a file, whose presence says that it is done."""

    name = luigi.Parameter()
    run_id = luigi.Parameter()

    def requires(self) -> list[Step]:
        """The tasks that it comes after."""
        return [Step(name=name, run_id=self.run_id) for name in shape[self.name]]

    def output(self) -> luigi.LocalTarget:
        """The file."""
        return luigi.LocalTarget(str(folder / self.name))

    def run(self) -> None:
        """Does the work and writes the file."""
        with self.output().open("w") as file:
            file.write(str(body()))


def engine(work: Workload) -> float:
    """Times one build of the tasks that nothing comes after, which brings all others with them."""
    global shape, folder
    work.folder.mkdir(parents=True, exist_ok=True)
    shape, folder = work.shape, work.folder
    logging.disable(logging.CRITICAL)
    get_config().set("core", "no_configure_logging", "true")
    # Spares a second look at each file. The other such setting, cache_task_completion, starts a server process and saved nothing.
    get_config().set("worker", "check_unfulfilled_deps", "false")
    last = [Step(name=name, run_id=work.run_id) for name in ends(shape)]
    return timed(lambda: luigi.build(last, workers=1, local_scheduler=True, no_lock=True))


if __name__ == "__main__":
    main(engine)
