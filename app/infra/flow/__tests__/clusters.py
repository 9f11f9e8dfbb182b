"""Executors of the standard library and of others, made the way their users make them: two workers each.

Must not know the engine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

WORKERS = 2

Made = AbstractContextManager[Any]


@dataclass
class Cluster:
    """An executor, and what is to be known of its kind."""

    kind: str
    executor: Any
    another: Callable[[], Made]
    """Makes a further one of the kind, on the same cluster where there is such a thing."""
    processes: bool = True
    """Whether its workers are other processes."""
    mends: bool = False
    """Whether it goes on when a worker has died."""
    client: Any = None


@contextmanager
def process_pool() -> Iterator[Cluster]:
    """The standard library's pool of processes."""

    def another() -> Made:
        return ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))

    with another() as executor:
        yield Cluster("process pool", executor, another)


@contextmanager
def thread_pool() -> Iterator[Cluster]:
    """The standard library's pool of threads."""

    def another() -> Made:
        return ThreadPoolExecutor(WORKERS)

    with another() as executor:
        yield Cluster("thread pool", executor, another, processes=False)


@contextmanager
def interpreters() -> Iterator[Cluster]:
    """The standard library's pool of interpreters in one process, from Python 3.14 on."""
    make: Any = getattr(importlib.import_module("concurrent.futures"), "InterpreterPoolExecutor", None)

    def another() -> Made:
        return make(WORKERS)  # type: ignore[no-any-return]

    with another() as executor:
        yield Cluster("interpreters", executor, another, processes=False)


@contextmanager
def dask() -> Iterator[Cluster]:
    """A Dask cluster on this machine: a scheduler, and a process for each worker."""
    distributed: Any = importlib.import_module("distributed")
    config: Any = importlib.import_module("dask").config
    # The death of a worker is a failed attempt of ours; else Dask itself would try the function three more times.
    with (
        config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):

        def another() -> Made:
            # No two attempts are the same: Dask need not look whether it has computed this one before.
            return client.get_executor(pure=False)  # type: ignore[no-any-return]

        yield Cluster("dask", another(), another, mends=True, client=client)


@contextmanager
def loky() -> Iterator[Cluster]:
    """Loky's pool of processes, which joblib stands on."""
    make: Any = importlib.import_module("loky").ProcessPoolExecutor

    @contextmanager
    def another() -> Iterator[Any]:
        executor = make(max_workers=WORKERS)
        try:
            yield executor
        finally:
            executor.shutdown(kill_workers=True)

    with another() as executor:
        yield Cluster("loky", executor, another)


@contextmanager
def executorlib() -> Iterator[Cluster]:
    """Executorlib on this machine: what it does on Slurm and Flux, without them.

    The shared one keeps its workers (`block_allocation`), and tries a function that killed one again by itself; a further one
    has a new process for each function, as for long ones on a Slurm cluster.
    """
    make: Any = importlib.import_module("executorlib").SingleNodeExecutor

    def another() -> Made:
        return make(max_workers=WORKERS)  # type: ignore[no-any-return]

    with make(max_workers=WORKERS, block_allocation=True) as executor:
        yield Cluster("executorlib", executor, another, mends=True)


MAKERS: dict[str, Callable[[], AbstractContextManager[Cluster]]] = {
    "process pool": process_pool,
    "thread pool": thread_pool,
    "interpreters": interpreters,
    "dask": dask,
    "loky": loky,
    "executorlib": executorlib,
}
PACKAGES = {"dask": "distributed", "loky": "loky", "executorlib": "executorlib"}
"""What has to be installed: see requirements-clusters.txt."""


class Mending:
    """An executor that makes itself a new pool when the last one has lost a worker: `docs/scaling.md` shows it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.pool = make()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """See `concurrent.futures.Executor`."""
        try:
            return self.pool.submit(fn, *args)
        except RuntimeError:  # it is broken: BrokenExecutor is one
            self.pool = self._make()
            return self.pool.submit(fn, *args)
