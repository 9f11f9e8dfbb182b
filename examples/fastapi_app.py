"""A FastAPI service whose requests start runs: they are followed by server-sent events, and a killed service goes on with them.

    pip install fastapi uvicorn
    python -m examples.fastapi_app
    curl -X POST localhost:8000/runs --json '{"pages": 5}'
    curl -N localhost:8000/runs/RUN_ID/events

Kill it in the middle and start it again: it continues what was unfinished, and the same address goes on telling of it.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.infra.flow import (
    AsyncFlow,
    Context,
    DefinitionError,
    FlowError,
    RunHandle,
    RunNotFoundError,
    SQLiteStore,
    TaskEvent,
    WorkflowRun,
)

flow = AsyncFlow("import", SQLiteStore(os.environ.get("IMPORT_DB", "workflows.db")), pools={"site": 2})


@flow.task
async def pages(ctx: Context) -> list[str]:
    return [f"page {number}" for number in range(ctx.params["pages"])]


@flow.task(map_over=pages, pool="site", max_retries=2, retry_delay=1)  # no more than two at once: be polite
async def fetch(ctx: Context, page: str) -> int:
    await asyncio.sleep(ctx.params["pause"])  # where a real one would ask the site
    return len(page)


@flow.task(depends_on=[fetch])
def total(ctx: Context, fetch: list[int]) -> int:
    return sum(fetch)


# --- the service ---

handles: dict[str, RunHandle] = {}
"""The runs that this process has under way."""


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Continue at the start what an earlier process left unfinished; stop at the end, so that the next one can continue."""
    resuming = asyncio.create_task(flow.resume_all())
    yield
    resuming.cancel()
    await asyncio.gather(resuming, *(handle.stop() for handle in handles.values()), return_exceptions=True)


app = FastAPI(lifespan=lifespan)


class NewRun(BaseModel):
    """What a run is about: its params."""

    pages: int = Field(10, ge=1, le=1000)
    pause: float = Field(1.0, ge=0, le=60)


@app.post("/runs", status_code=202)
async def start(new: NewRun, idempotency_key: str | None = Header(None)) -> dict[str, str]:
    """Start a run, and answer when it is in the store. The same key again means the same run."""
    try:
        handle = follow(idempotency_key, {"pages": new.pages, "pause": new.pause})
    except DefinitionError as error:  # a key that can be no run's id
        raise HTTPException(422, str(error)) from None
    return {"run_id": await handle.made()}


def follow(run_id: str | None, params: dict[str, Any] | None = None) -> RunHandle:
    """The handle of a run: of a new one, of one that is under way, or of one that is to be continued."""
    known = handles.get(run_id or "")
    if known is not None and not known.done():
        return known
    for ended in [key for key, handle in handles.items() if handle.done()]:
        del handles[ended]
    handle = flow.start(params, run_id=run_id)
    handles[handle.run_id] = handle
    return handle


@app.get("/runs/{run_id}")
async def details(run_id: str) -> dict[str, Any]:
    """All that is known of a run."""
    try:
        return await asyncio.to_thread(flow.get_execution_details, run_id)  # it reads a file
    except RunNotFoundError:
        raise HTTPException(404, "there is no such run") from None


@app.get("/runs/{run_id}/events")
async def events(run_id: str) -> StreamingResponse:
    """How a run stands, then what happens in it as it happens, then how it ended."""
    if not await asyncio.to_thread(flow.store.exists, run_id):
        raise HTTPException(404, "there is no such run")
    return StreamingResponse(messages(follow(run_id)), media_type="text/event-stream")


async def messages(handle: RunHandle) -> AsyncIterator[str]:
    """Server-sent events; a line of comment every 15 seconds keeps the connection open when there is no news."""
    told = handle.events()  # before it is asked how the run stands: so nothing is missed in between
    yield message("stands", state_of(await asyncio.to_thread(flow.store.load, handle.run_id)))
    news: asyncio.Future[Any] | None = None
    try:
        while True:
            news = asyncio.ensure_future(anext(told, None))
            while not (await asyncio.wait([news], timeout=15))[0]:
                yield ": still under way\n\n"
            event = news.result()
            if event is None:
                break
            task = {"task": event.task_id, "attempt": event.attempt_number} if isinstance(event, TaskEvent) else {}
            told_why = {"reason": reason} if (reason := getattr(event, "reason", None)) else {}
            yield message(type(event).__name__, {"run": event.run_id, "at": event.at.isoformat(), **task, **told_why})
        yield message("ended", state_of(await handle))
    except FlowError as error:  # another process drives it; or this one is being stopped, and the next will continue
        yield message("gone", {"why": str(error)})
    finally:
        if news is not None:
            news.cancel()


def state_of(run: WorkflowRun) -> dict[str, Any]:
    """A run in a few words."""
    return {"run": run.id, "state": run.state, "tasks": {task_id: task.state for task_id, task in run.tasks.items()}}


def message(kind: str, data: dict[str, Any]) -> str:
    """One server-sent event; JSON has no bare line breaks, so nothing in it can end the message early."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    import uvicorn

    # Open streams must not hold up a stop: after five seconds they are cut, and the runs put back to be continued.
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=5)
