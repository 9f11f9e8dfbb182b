"""A flow inside a flow: `validation` is a step of the pipeline, with steps and a run of its own."""

import asyncio

from app.infra.flow import AsyncFlow, Context, SQLiteStore

validation = AsyncFlow("validation")


@validation.task
def no_duplicates(ctx: Context) -> bool:
    rows = ctx.params["extract"]  # what the subflow depends on is handed in with its params
    return len(set(rows)) == len(rows)


@validation.task
def no_blanks(ctx: Context) -> bool:
    return all(row.strip() for row in ctx.params["extract"])


@validation.task(depends_on=[no_duplicates, no_blanks])
def verdict(ctx: Context) -> str:
    return "clean" if ctx.pull_output("no_duplicates") and ctx.pull_output("no_blanks") else "dirty"


pipeline = AsyncFlow("pipeline", SQLiteStore("workflows.db"))


@pipeline.task
def extract(ctx: Context) -> list[str]:
    return ["ada", "grace", "barbara"]


pipeline.add_subflow_definition(subflow_id="validation", child_flow=validation, dependencies=["extract"])


@pipeline.task(depends_on=["validation"])
def load(ctx: Context) -> str:
    rows = ctx.pull_output("extract")  # any ancestor may be pulled
    return f"{len(rows)} {ctx.pull_output('validation')} rows"


async def main() -> None:
    run = await pipeline.run_until_complete(pipeline.init_run())

    print("loaded:", run.tasks["load"].output_json)
    for path, task in run.get_all_tasks_recursive(pipeline.store).items():
        print(f"  {path}: {task.state}")


if __name__ == "__main__":
    asyncio.run(main())
