"""Send the parts of a page again when jobs change, as server-sent events."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from hashlib import sha256
from typing import NamedTuple

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from agent_jobs.engine.engine import Engine
from agent_jobs.page.job_pages import read_job, read_overview
from agent_jobs.page.templates import EngineSource, Renderer

#: Seconds between two updates of one page: faster ones are joined.
UPDATE_S = 1.0
#: Seconds after which a page is rendered again without a change: elapsed times move on.
REFRESH_S = 10.0
#: Characters of the digest that names an update.
ID_CHARS = 16


class Part(NamedTuple):
    """The part of a page that changes."""

    html: str
    is_final: bool = False  #: it will not change any more


class LiveUpdates:
    """Streams of updates, one for each open page."""

    def __init__(self, engine: EngineSource, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def stream_jobs(self, request: Request) -> Response:
        """Stream the list of jobs."""
        engine = await self._engine()

        async def render() -> Part:
            return Part(self._renderer.render_part(request, "_overview.html", await read_overview(engine, request)))

        return EventSourceResponse(_send_updates(engine, request, render))

    async def stream_job(self, request: Request) -> Response:
        """Stream the part of a job's page that changes, until the job has finished."""
        engine = await self._engine()
        job_id = request.path_params["job_id"]
        await engine.details(job_id)

        async def render() -> Part:
            details = await engine.details(job_id)
            html = self._renderer.render_part(request, "_job.html", await read_job(engine, details))
            await engine.mark_read(details.result.job)
            return Part(html, details.result.job.is_terminal)

        return EventSourceResponse(_send_updates(engine, request, render))


async def _send_updates(
    engine: Engine, request: Request, render: Callable[[], Awaitable[Part]]
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the part whenever it differs from what the browser has, which its Last-Event-ID names."""
    shown = request.headers.get("last-event-id", "")
    while True:
        mark = await engine.change_mark()
        part = await render()
        digest = sha256(part.html.encode()).hexdigest()[:ID_CHARS]
        if digest != shown:
            yield ServerSentEvent(part.html, id=digest)
            shown = digest
        if part.is_final:
            await anyio.sleep_forever()  # a browser would open a stream again that ended
        await anyio.sleep(UPDATE_S)
        with anyio.move_on_after(REFRESH_S - UPDATE_S):
            await engine.wait_for_any_change(mark)
