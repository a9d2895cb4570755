"""Send the parts of a page again when jobs change, as server-sent events."""

import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from hashlib import sha256
from typing import NamedTuple

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import StoreError
from agent_jobs.page.access import Access
from agent_jobs.page.job_pages import build_job_values
from agent_jobs.page.overview import read_overview
from agent_jobs.page.templates import EngineSource, Renderer

logger = logging.getLogger(__name__)

#: What the engine calls a mark of changes.
Mark = tuple[int, int]
#: Seconds between two updates of one page: faster ones are joined.
UPDATE_S = 1.0
#: Seconds after which a page is rendered again without a change: elapsed times move on.
REFRESH_S = 10.0
#: Characters of the digest that names an update.
ID_CHARS = 16
#: Cached parts of pages, for other tabs.
KEPT_PARTS = 200


class Part(NamedTuple):
    """The part of a page that changes, for all sessions that see the same jobs."""

    html: str
    digest: str  #: names this content
    mark: Mark  #: the changes up to this one are in it
    revision: int = -1  #: of the job that it shows
    is_final: bool = False  #: it will not change any more


class KeptPart:
    """A part that several tabs show: it is rendered once for all of them."""

    def __init__(self) -> None:
        self.part = Part("", "", (0, 0))
        self.rendered_at = -math.inf
        self.lock = anyio.Lock()

    async def read(self, engine: Engine, render: Callable[[Mark, Part | None], Awaitable[Part]]) -> Part:
        """Return the part, at most UPDATE_S old if jobs have changed, and at most REFRESH_S otherwise."""
        async with self.lock:
            age_s = time.monotonic() - self.rendered_at
            if age_s < UPDATE_S:
                return self.part
            mark = await engine.change_mark()
            if age_s < REFRESH_S and self.part.mark == mark:
                return self.part
            old: Part | None = self.part
            if age_s >= REFRESH_S:
                old = None
            self.part = await render(mark, old)
            if old is None or self.part.html is not old.html:
                self.rendered_at = time.monotonic()
            return self.part


class LiveUpdates:
    """Streams of updates, one for each open page."""

    def __init__(self, engine: EngineSource, renderer: Renderer, access: Access, ending: anyio.Event) -> None:
        self._access = access
        self._ending = ending
        self._engine = engine
        self._renderer = renderer
        self._kept: dict[tuple[str, str], KeptPart] = {}

    async def stream_overview(self, request: Request) -> Response:
        """Stream the list of jobs."""
        engine = await self._engine(request)

        async def render(mark: Mark, _: Part | None) -> Part:
            html = self._renderer.render_shared_part("_overview.html", await read_overview(engine, request))
            return Part(html, _name_content(html), mark)

        kept = self._find_shared_part(request, str(request.query_params))
        return EventSourceResponse(self._send_updates(engine, request, kept, render))

    async def stream_job(self, request: Request) -> Response:
        """Stream the part of a job's page that changes, until the job has finished."""
        engine = await self._engine(request)
        job_id = request.path_params["job_id"]
        await engine.progress(job_id)

        async def render(mark: Mark, old: Part | None) -> Part:
            return await self._render_progress(engine, job_id, mark, old)

        kept = self._find_shared_part(request, request.url.path)
        return EventSourceResponse(self._send_updates(engine, request, kept, render))

    async def _render_progress(self, engine: Engine, job_id: str, mark: Mark, old: Part | None) -> Part:
        """Return the part of a job's page, or the old one if another job has changed."""
        job = await engine.find_progress(job_id)
        if old is not None and old.revision == job.revision:
            return old._replace(mark=mark)
        if job.is_terminal:
            details = await engine.details(job_id)  # with its output
            await engine.mark_read(details.result.job)
        else:
            details = await engine.progress(job_id)
        html = self._renderer.render_shared_part("_job.html", await build_job_values(engine, details))
        return Part(html, _name_content(html), mark, details.result.job.revision, details.result.job.is_terminal)

    def _find_shared_part(self, request: Request, name: str) -> KeptPart:
        """Return the part that all tabs of an owner on this page share."""
        key = (request.scope["page_session"].owner, name)
        kept = self._kept.pop(key, None) or KeptPart()
        self._kept[key] = kept  # as the newest
        while len(self._kept) > KEPT_PARTS:
            del self._kept[next(iter(self._kept))]
        return kept

    async def _send_updates(
        self, engine: Engine, request: Request, kept: KeptPart, render: Callable[[Mark, Part | None], Awaitable[Part]]
    ) -> AsyncGenerator[ServerSentEvent]:
        """Yield the part whenever it differs from what the browser has, which its Last-Event-ID names.

        The stream ends with the session. While the database cannot be read, nothing is sent.
        """
        shown = request.headers.get("last-event-id", "")
        part: Part | None = None
        while not self._ending.is_set():
            try:
                if await self._access.find_session(request.scope["page_session"].token) is None:
                    return
                if part is None or not part.is_final:
                    part = await kept.read(engine, render)
            except StoreError as error:
                logger.warning("cannot update an open page: %s", error)
                await self._pause_until_end(REFRESH_S)
                continue
            if part.digest != shown:
                yield ServerSentEvent(self._renderer.finish_part(request, part.html), id=part.digest)
                shown = part.digest
            if part.is_final:
                await self._pause_until_end(REFRESH_S)  # a browser would open a stream again that ended
            else:
                await self._wait_for_update(engine, part.mark)

    async def _pause_until_end(self, seconds: float) -> None:
        """Return once the server ends, at the latest after these seconds."""
        with anyio.move_on_after(seconds):
            await self._ending.wait()

    async def _wait_for_update(self, engine: Engine, mark: Mark) -> None:
        """Return once a job has changed since this mark, but not at once; or when the server ends."""
        await self._pause_until_end(UPDATE_S)
        with anyio.move_on_after(REFRESH_S - UPDATE_S):
            async with anyio.create_task_group() as tasks:

                async def wait_for_end() -> None:
                    await self._ending.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(wait_for_end)
                if not self._ending.is_set():
                    await engine.wait_for_any_change(mark)
                tasks.cancel_scope.cancel()


def _name_content(html: str) -> str:
    return sha256(html.encode()).hexdigest()[:ID_CHARS]
