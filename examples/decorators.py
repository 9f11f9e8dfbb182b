"""Extract, transform, load: three decorated functions, and one file that remembers what they did."""

import asyncio

from app.infra.flow import AsyncFlow, Context, SQLiteStore

flow = AsyncFlow("decorators", SQLiteStore("workflows.db"))


@flow.task("extract")
async def extract(ctx: Context) -> list[int]:
    print(f"extracting the orders of {ctx.params['user']}")
    return [120, 80, 45]


@flow.task("transform", depends_on=["extract"])
async def transform(ctx: Context) -> dict[str, int]:
    orders = ctx.pull_output("extract")
    return {"orders": len(orders), "total": sum(orders)}


@flow.task("load", depends_on=["transform"])
async def load(ctx: Context) -> None:
    summary = ctx.pull_output("transform")
    print(f"loading {summary['orders']} orders, {summary['total']} in total")


async def main() -> None:
    run_id = flow.init_run({"user": "alice"})
    run = await flow.run_until_complete(run_id)

    print(f"run: {run.state}")
    for task in run.tasks.values():
        print(f"  {task.task_id}: {task.state}")


if __name__ == "__main__":
    asyncio.run(main())
