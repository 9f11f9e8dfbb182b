"""The same flow on executors of others: pools of the standard library, Dask, loky, executorlib; their workers are real."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, CannotTravelError, InvalidOptionError, SQLiteStore, WorkflowRun
from . import clusters
from .cluster_tasks import begun, busy, dies_once, effects, everything, half_held, held, most_at_once, pulls_too_far, square
from .clusters import Cluster, Mending
from .conftest import outputs_of, run, states_of
from .processes import PACKAGE, ROOT, Program, needs_posix


def _param(kind: str) -> Any:
    """An executor, skipped where it is not there."""
    package = clusters.PACKAGES.get(kind)
    marks = [pytest.mark.clusters, pytest.mark.filterwarnings("ignore")] if package else []  # what others' code warns of
    if package is not None and find_spec(package) is None:
        marks.append(pytest.mark.skip(reason=f"{package} is not installed: see requirements-clusters.txt"))
    if kind == "interpreters" and sys.version_info < (3, 14):
        marks.append(pytest.mark.skip(reason="InterpreterPoolExecutor is there from Python 3.14 on"))
    return pytest.param(kind, marks=marks, id=kind.replace(" ", "-"))


@pytest.fixture(scope="module", params=[_param(kind) for kind in clusters.MAKERS])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Each of the executors in turn, with two workers; started once for all tests."""
    kind: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        # Workers that are not started by multiprocessing find our modules by this.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        with clusters.MAKERS[kind]() as made:
            yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """A store in a file: what came from a worker was committed."""
    with SQLiteStore(tmp_path / "runs.db") as made:
        yield made


def on(cluster: Cluster, store: SQLiteStore, **options: Any) -> AsyncFlow:
    """An empty flow whose functions run on the cluster."""
    return AsyncFlow("flow", store, executor="cluster", executors={"cluster": cluster.executor}, **options)


async def until(what: Callable[[], bool], patience: float = 20.0) -> None:
    """Wait for something that another process brings about."""
    end = asyncio.get_running_loop().time() + patience
    while not what():
        assert asyncio.get_running_loop().time() < end, "it did not come about"
        await asyncio.sleep(0.005)


def params(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "plus": 1}


def told(run: WorkflowRun, store: SQLiteStore) -> dict[str, list[str]]:
    """The lines of log of each task, of subflows too."""
    return {path: [entry.message for entry in task.logs] for path, task in run.get_all_tasks_recursive(store).items()}


# --- what comes out ---


async def test_the_flow_gives_on_a_cluster_what_it_gives_in_threads(cluster: Cluster, store: SQLiteStore, tmp_path: Path) -> None:
    flows = {
        "here": everything(store, "thread"),
        "there": everything(store, "cluster", {"cluster": cluster.executor}, far="cluster"),
    }
    ended = {}
    for name, flow in flows.items():
        (tmp_path / name).mkdir()
        ended[name] = await asyncio.wait_for(run(flow, params(tmp_path / name)), 60)
    in_threads, on_cluster = ended["here"], ended["there"]
    on_cluster.raise_for_failure()
    assert states_of(on_cluster) == states_of(in_threads)
    tasks = on_cluster.get_all_tasks_recursive(store)
    for path, task in in_threads.get_all_tasks_recursive(store).items():
        assert (tasks[path].output, tasks[path].try_number) == (task.output, task.try_number), path
    assert outputs_of(on_cluster)["total"] == {"total": 148}
    assert on_cluster.params["seen"] == (148, {1, 2})
    assert told(on_cluster, store) == told(in_threads, store)
    assert begun(tmp_path / "there") == begun(tmp_path / "here")
    pids = {pid for _, _, pid in effects(tmp_path / "there")}
    assert pids and (os.getpid() not in pids) == cluster.processes
    inside = on_cluster.tasks["inside"].child_run_id
    assert inside is not None
    first, second = store.list_attempts(inside, "unsteady")
    assert (first.result, second.result) == ("failed", "success")
    # The traceback is the one of the worker, without the engine's own frames.
    assert first.error is not None and "in unsteady\n" in first.error and "travel.py" not in first.error
    assert [entry.message for entry in first.logs] == ["attempt 0"]


async def test_no_more_than_max_concurrency_run_at_once(cluster: Cluster, store: SQLiteStore, tmp_path: Path) -> None:
    flow = on(cluster, store)
    for number in range(6):
        flow.add_task_definition(f"n{number}", busy)
    ended = await run(flow, params(tmp_path), max_concurrency=1)
    assert ended.state == "success"
    assert most_at_once(tmp_path) == 1


async def test_a_pool_is_kept_on_a_cluster_too(cluster: Cluster, store: SQLiteStore, tmp_path: Path) -> None:
    flow = on(cluster, store, pools={"the one licence": 1})
    for number in range(6):
        flow.add_task_definition(f"n{number}", busy, pool="the one licence")
    assert (await run(flow, params(tmp_path))).state == "success"
    assert most_at_once(tmp_path) == 1


async def test_a_cluster_keeps_nothing_of_a_run_that_has_ended(cluster: Cluster, store: SQLiteStore, tmp_path: Path) -> None:
    """What Dask keeps, it computes anew when the worker that has it dies: a finished task would run twice."""
    if cluster.client is None:
        pytest.skip("there is nothing that it could keep")
    flow = on(cluster, store)
    for number in range(20):
        flow.add_task_definition(f"n{number}", square)
    gc.collect()
    gc.disable()  # it must not take the garbage collector
    try:
        assert (await run(flow, params(tmp_path))).state == "success"
        await until(lambda: not cluster.client.futures)
    finally:
        gc.enable()


# --- what cannot be done there ---


async def test_a_function_that_cannot_travel_is_refused_before_anything_is_submitted(
    cluster: Cluster, store: SQLiteStore
) -> None:
    submitted: list[object] = []

    class Watched:
        def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
            submitted.append(args)
            return cluster.executor.submit(fn, *args)

    flow = AsyncFlow("flow", store, executor="cluster", executors={"cluster": Watched()})
    flow.add_task_definition("n1", square)
    flow.add_task_definition("small", lambda ctx: 1, dependencies=["n1"])
    with pytest.raises(CannotTravelError, match="'small'.*lambda"):
        flow.init_run()
    assert (submitted, store.list_runs()) == ([], [])


async def test_what_was_not_declared_was_not_sent(cluster: Cluster, store: SQLiteStore, tmp_path: Path) -> None:
    flow = on(cluster, store)
    flow.add_task_definition("n1", square)
    flow.add_task_definition("n2", square, dependencies=["n1"])
    flow.add_task_definition("far", pulls_too_far, dependencies=["n2"])
    ended = await run(flow, params(tmp_path))
    assert states_of(ended) == {"n1": "success", "n2": "success", "far": "failed"}
    assert ended.tasks["far"].reason is not None
    assert "NotSentError" in ended.tasks["far"].reason and "Add 'n1' to its depends_on" in ended.tasks["far"].reason


def test_heartbeats_would_not_arrive_and_are_refused(cluster: Cluster, store: SQLiteStore) -> None:
    flow = on(cluster, store).add_task_definition("n1", square, heartbeat_timeout=5)
    with pytest.raises(InvalidOptionError, match="heartbeat_timeout"):
        flow.init_run()


async def test_a_time_out_counts_and_what_comes_late_is_thrown_away(cluster: Cluster, store: SQLiteStore, tmp_path: Path) -> None:
    flow = on(cluster, store).add_task_definition("held", held, timeout=0.3).add_task_definition("n1", square)
    try:
        ended = await asyncio.wait_for(run(flow, params(tmp_path)), 20)
    finally:
        (tmp_path / "released").touch()
    assert states_of(ended) == {"held": "failed", "n1": "success"}
    assert "TaskTimeoutError" in str(ended.tasks["held"].reason)
    # It goes on there all the same, if it had begun: nobody can kill it from here.
    await until(
        lambda: begun(tmp_path)["held"] == [word for word, task_id, _ in effects(tmp_path) if task_id == "held"].count("end")
    )
    assert store.load(ended.id).tasks["held"].output is None


async def test_the_time_in_the_executors_queue_counts_too(cluster: Cluster, store: SQLiteStore, tmp_path: Path) -> None:
    flow = on(cluster, store).add_task_definition("n1", square, timeout=0.3)
    for number in range(clusters.WORKERS):
        flow.add_task_definition(f"held{number}", held, priority=1)
    flow.init_run(params(tmp_path), run_id="r")
    drive = asyncio.create_task(flow.run_until_complete("r"))
    try:
        await until(lambda: store.load("r").tasks["n1"].state == "failed")
        assert begun(tmp_path)["n1"] == 0
    finally:
        (tmp_path / "released").touch()
        ended = await asyncio.wait_for(drive, 30)
    assert states_of(ended) == {"n1": "failed", "held0": "success", "held1": "success"}
    assert "TaskTimeoutError" in str(ended.tasks["n1"].reason)


async def test_a_run_that_is_cancelled_ends_although_its_workers_do_not(
    cluster: Cluster, store: SQLiteStore, tmp_path: Path
) -> None:
    flow = on(cluster, store)
    for number in range(4 * clusters.WORKERS):
        flow.add_task_definition(f"held{number}", held)
    flow.init_run(params(tmp_path), run_id="r")
    drive = asyncio.create_task(flow.run_until_complete("r"))
    try:
        await until(lambda: len(begun(tmp_path)) == clusters.WORKERS)
        await asyncio.to_thread(flow.cancel, "r")
        ended = await asyncio.wait_for(drive, 20)
    finally:
        (tmp_path / "released").touch()
    assert (ended.state, {*states_of(ended).values()}) == ("cancelled", {"cancelled"})
    # The executor is still good for others. What waited in its queue was withdrawn, as far as it lets that be done.
    after = on(cluster, store).add_task_definition("n1", square)
    assert (await asyncio.wait_for(run(after, params(tmp_path)), 30)).state == "success"


# --- what goes wrong there ---


async def test_an_executor_that_was_shut_down_fails_attempts_and_says_why(
    cluster: Cluster, store: SQLiteStore, tmp_path: Path
) -> None:
    with cluster.another() as gone:
        gone.shutdown()
        flow = AsyncFlow("flow", store, executor="cluster", executors={"cluster": gone}).add_task_definition("n1", square)
        flow.add_task_definition("n2", square, dependencies=["n1"])
        ended = await asyncio.wait_for(run(flow, params(tmp_path)), 20)
    assert states_of(ended) == {"n1": "failed", "n2": "skipped"}
    assert "shutdown" in str(ended.tasks["n1"].reason)
    # What is set back runs on an executor that is there.
    again = on(cluster, store).add_task_definition("n1", square).add_task_definition("n2", square, dependencies=["n1"])
    assert states_of(await again.retry(ended.id, "n1")) == {"n1": "success", "n2": "success"}


async def test_an_executor_that_is_shut_down_in_mid_run_fails_what_it_has_not_begun_and_says_why(
    cluster: Cluster, store: SQLiteStore, tmp_path: Path
) -> None:
    """Some finish all that they were given; Dask's keeps no queue of its own."""
    if cluster.kind == "executorlib":
        pytest.skip("shut down while functions wait in its queue, it may wait for ever in threads of its own")
    with cluster.another() as executor:
        flow = AsyncFlow("flow", store, executor="cluster", executors={"cluster": executor})
        tasks = [f"held{number}" for number in range(4 * clusters.WORKERS)]
        for task_id in tasks:
            flow.add_task_definition(task_id, held)
        flow.init_run(params(tmp_path), run_id="r")
        drive = asyncio.create_task(flow.run_until_complete("r"))
        try:
            await until(lambda: len(begun(tmp_path)) == clusters.WORKERS)
            queue = "pool" in cluster.kind
            executor.shutdown(wait=False, **({"cancel_futures": True} if queue else {}))
        finally:
            (tmp_path / "released").touch()
        ended = await asyncio.wait_for(drive, 30)
    states = states_of(ended)
    assert {*states.values()} <= {"success", "failed"}
    if queue:
        assert 2 * clusters.WORKERS <= sum(state == "failed" for state in states.values()) < len(tasks)
    reasons = [str(task.reason) for task in ended.tasks.values() if task.state == "failed"]
    assert all("AttemptWithdrawnError" in reason and "it was shut down" in reason for reason in reasons), reasons


def dying(store: SQLiteStore, executor: Any) -> AsyncFlow:
    """A task whose worker is killed in its first attempt, one before it and one after it."""
    flow = AsyncFlow("dying", store, executor="cluster", executors={"cluster": executor})
    flow.add_task_definition("n1", square)
    flow.add_task_definition("dies", dies_once, dependencies=["n1"], max_retries=1)
    return flow.add_task_definition("n2", square, dependencies=["dies", "n1"])


@needs_posix
async def test_a_worker_that_is_killed_in_mid_task_leads_to_another_attempt(
    cluster: Cluster, store: SQLiteStore, tmp_path: Path
) -> None:
    """On an executor that mends itself, or one that is wrapped so that it does."""
    if not cluster.processes:
        pytest.skip("its workers are this process")
    with ExitStack() as stack:

        def make() -> Any:
            return stack.enter_context(cluster.another())

        executor = make() if cluster.mends else Mending(make)
        ended = await asyncio.wait_for(run(dying(store, executor), params(tmp_path)), 30)
    ended.raise_for_failure()
    assert outputs_of(ended) == {"n1": 2, "dies": "attempt 1", "n2": 5}
    assert begun(tmp_path) == {"n1": 1, "dies": 2, "n2": 1}
    first_attempt, _ = store.list_attempts(ended.id, "dies")
    assert first_attempt.result == "failed"
    assert any(word in str(first_attempt.reason) for word in ("BrokenProcessPool", "KilledWorker", "Terminated", "Socket"))


@needs_posix
async def test_a_pool_that_broke_fails_what_follows_by_name_and_the_run_goes_on_with_a_fresh_one(
    cluster: Cluster, store: SQLiteStore, tmp_path: Path
) -> None:
    if not cluster.processes or cluster.mends:
        pytest.skip("it goes on when a worker has died, or has none")
    with cluster.another() as breaks:
        ended = await asyncio.wait_for(run(dying(store, breaks), params(tmp_path)), 30)
        assert states_of(ended) == {"n1": "success", "dies": "failed", "n2": "skipped"}
        reasons = [attempt.reason for attempt in store.list_attempts(ended.id, "dies")]
        assert len(reasons) == 2 and all(reasons)
        assert begun(tmp_path)["dies"] == 1  # the second attempt found the pool broken, and says so
    with cluster.another() as fresh:
        mended = await asyncio.wait_for(dying(store, fresh).retry(ended.id, "dies"), 30)
    mended.raise_for_failure()
    assert outputs_of(mended) == {"n1": 2, "dies": "attempt 0", "n2": 5}
    assert begun(tmp_path) == {"n1": 1, "dies": 2, "n2": 1}


IN_A_SESSION = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"

COORDINATOR = f"""
from contextlib import ExitStack
from {PACKAGE}.__tests__ import cluster_tasks, clusters
with ExitStack() as stack:
    cluster = stack.enter_context(clusters.MAKERS[OPTIONS["cluster"]]())
    flow = cluster_tasks.half_held(make_store(), "cluster", {{"cluster": cluster.executor}})
    flow.run({{"folder": str(FOLDER), "plus": 1}}, run_id="r")
"""


@needs_posix
async def test_a_run_whose_coordinator_is_killed_goes_on_and_nothing_that_had_finished_runs_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    # In a session of its own, so that its workers can be found and ended: some kinds would wait for it for ever.
    coordinator = Program(COORDINATOR, "sqlite", tmp_path, under=[sys.executable, "-c", IN_A_SESSION], cluster=cluster.kind)
    try:
        await until(lambda: begun(tmp_path)["held"] == 1, 40)
    finally:
        coordinator.kill()
        with suppress(ProcessLookupError):
            os.killpg(coordinator.pid, signal.SIGKILL)
        coordinator.clean_up()
    (tmp_path / "released").touch()
    before = begun(tmp_path)
    with SQLiteStore(tmp_path / "runs.db") as store:
        assert {task_id for task_id, task in store.load("r").tasks.items() if task.state == "success"} == {"n1", "n2"}
        flow = half_held(store, "cluster", {"cluster": cluster.executor})
        ended = await asyncio.wait_for(flow.run_until_complete("r"), 60)
        ended.raise_for_failure()
        assert ended.tasks["held"].interruptions == 1
    assert outputs_of(ended) == {"n1": 2, "n2": 5, "held": "released", "n3": 10, "both": 15}
    assert before == {"n1": 1, "n2": 1, "held": 1}
    assert begun(tmp_path) == {"n1": 1, "n2": 1, "held": 2, "n3": 1, "both": 1}
