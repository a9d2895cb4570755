"""Send the parts of a page again when jobs change, as server-sent events."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from hashlib import sha256

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from agent_jobs.page.job_pages import read_job, read_overview
from agent_jobs.page.templates import EngineSource, Renderer

#: Seconds between two updates of one page: faster ones are joined.
UPDATE_S = 1.0
#: Seconds after which a page is rendered again without a change: elapsed times move on.
REFRESH_S = 10.0
#: Characters of the digest that names an update.
ID_CHARS = 16

Part = Callable[[], Awaitable[str]]


class LiveUpdates:
    """Streams of updates, one for each open page."""

    def __init__(self, engine: EngineSource, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def stream_jobs(self, request: Request) -> Response:
        """Stream the list of jobs."""
        engine = await self._engine()

        async def render() -> str:
            return self._renderer.render_part(request, "_overview.html", await read_overview(engine, request))

        return EventSourceResponse(self._send_updates(request, render))

    async def stream_job(self, request: Request) -> Response:
        """Stream the part of a job's page that changes."""
        engine = await self._engine()
        job_id = request.path_params["job_id"]
        await engine.details(job_id)

        async def render() -> str:
            values = await read_job(engine, await engine.details(job_id))
            return self._renderer.render_part(request, "_job.html", values)

        return EventSourceResponse(self._send_updates(request, render))

    async def _send_updates(self, request: Request, render: Part) -> AsyncGenerator[ServerSentEvent]:
        """Yield the part whenever it differs from what the browser has, which its Last-Event-ID names."""
        engine = await self._engine()
        shown = request.headers.get("last-event-id", "")
        while True:
            mark = await engine.change_mark()
            html = await render()
            digest = sha256(html.encode()).hexdigest()[:ID_CHARS]
            if digest != shown:
                yield ServerSentEvent(html, id=digest)
                shown = digest
            await anyio.sleep(UPDATE_S)
            with anyio.move_on_after(REFRESH_S - UPDATE_S):
                await engine.wait_for_any_change(mark)
