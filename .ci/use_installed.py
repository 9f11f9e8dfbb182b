"""Uses the engine under the import name given, from a folder that is not its checkout: a run, a subflow, a resume."""

import importlib
import importlib.resources
import sys
import tempfile
from pathlib import Path

name = sys.argv[1]
sys.path.insert(0, str(Path.cwd()))  # as for a script of one's own in this folder
engine = importlib.import_module(name)
assert Path(str(engine.__file__)).resolve().is_relative_to(Path.cwd().resolve()), engine.__file__
assert "app" not in sys.modules, "it reached into the checkout"
assert (importlib.resources.files(name) / "py.typed").is_file()

with tempfile.TemporaryDirectory() as folder:
    for store in (engine.SQLiteStore(Path(folder) / "runs.db"), engine.JsonStore(Path(folder) / "runs"), engine.MemoryStore()):
        service = {"broken": True}
        child = engine.AsyncFlow("child").add_task_definition("double", lambda ctx: ctx.params["extract"] * 2)
        flow = engine.AsyncFlow("flow", store)

        @flow.task
        async def extract(ctx):
            return (1, 2)

        flow.add_subflow_definition("sub", child, dependencies=[extract])

        @flow.task(depends_on=["sub"])
        def load(ctx, service=service):
            if service["broken"]:
                raise RuntimeError("not yet")
            return ctx.pull_output("sub")

        first = flow.run(run_id="nightly")
        assert first.state == "failed", first
        service["broken"] = False
        flow.manual_retry("nightly", "load")
        done = flow.run(run_id="nightly")
        assert done.raise_for_failure().tasks["load"].output_json == (1, 2, 1, 2), done
        store.close()
print(f"{name} {engine.__version__} works from {Path.cwd().name}")
