"""The same kind of flow without decorators: plain functions, put together by calls that chain."""

import asyncio

from app.infra.flow import Context, FlowBuilder, SQLiteStore


def extract(ctx: Context) -> list[str]:
    if ctx.attempt_number == 0:
        print("extract: no connection")
        raise ConnectionError("the source is not awake yet")
    print("extract: connected")
    return ["ada", "grace", "barbara"]


def transform(ctx: Context) -> list[str]:
    return [name.title() for name in ctx.pull_output("extract")]


def load(ctx: Context) -> int:
    names = ctx.pull_output("transform")
    print("load:", ", ".join(names))
    return len(names)


flow = (
    FlowBuilder("builder", SQLiteStore("workflows.db"))
    .add_task("extract", extract)
    .add_task("transform", transform, depends_on=["extract"])
    .add_task("load", load, depends_on=["transform"])
    .with_retry("extract", max_retries=3)
    .build()
)


if __name__ == "__main__":
    run_id = flow.init_run()
    run = asyncio.run(flow.run_until_complete(run_id))

    print(f"run: {run.state}, {run.tasks['load'].output_json} names loaded")
    print(f"attempts of extract: {run.tasks['extract'].try_number + 1}")
