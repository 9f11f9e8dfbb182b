"""Two stages over a list that is only known at run time: each page is parsed as soon as it has come, whatever the others do.

The last page does not come before the other two were parsed, so if parsing waited for all of them, this would never end.
"""

import asyncio

from app.infra.flow import AsyncFlow, Context, SQLiteStore

flow = AsyncFlow("streaming", SQLiteStore("workflows.db"))
both_parsed = asyncio.Semaphore(0)


@flow.task
async def list_pages(ctx: Context) -> list[str]:
    return ["north.html", "south.html", "west.html"]


@flow.task(map_over=list_pages, map_key=lambda page: page.removesuffix(".html"))
async def fetch(ctx: Context, page: str) -> str:
    if page == "west.html":
        for _ in range(2):
            await both_parsed.acquire()
    return f"<h1>{page}</h1>"


@flow.task(map_over=fetch)  # fetch is mapped itself: parse[south] waits for fetch[south] alone
async def parse(ctx: Context, html: str) -> int:
    both_parsed.release()
    return len(html)


@flow.task(depends_on=[list_pages, parse])
async def index(ctx: Context, list_pages: list[str], parse: list[int]) -> dict[str, int]:
    return dict(zip(list_pages, parse))


async def main() -> None:
    run = await flow.run_until_complete(flow.init_run())
    print("index:", run.tasks["index"].output)
    for task in run.tasks.values():
        print(f"  {task.task_id}: {task.state}")


if __name__ == "__main__":
    asyncio.run(main())
