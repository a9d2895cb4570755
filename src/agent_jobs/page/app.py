"""Build the page: a Starlette app over an engine, for browsers that are signed in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from agent_jobs.errors import AgentJobsError
from agent_jobs.page.access import Access
from agent_jobs.page.forms import FormReader
from agent_jobs.page.guard import SAFETY_HEADERS, Guard
from agent_jobs.page.health_page import HealthPage
from agent_jobs.page.job_actions import JobActions
from agent_jobs.page.job_pages import JobPages
from agent_jobs.page.live import LiveUpdates
from agent_jobs.page.new_page import NewPage
from agent_jobs.page.overview import Overview
from agent_jobs.page.sign_in import SignInPages
from agent_jobs.page.spend_page import SpendPage
from agent_jobs.page.templates import EngineSource, Renderer

#: Sentence for an error of ours.
FAULT = "The server failed to show this page. Its log says why. Your jobs are not affected."
STATIC_FOLDER = Path(__file__).with_name("static")

#: The first parts of the paths of all pages.
PATHS = frozenset(
    {"", "favicon.ico", "health", "health.json", "jobs", "jobs.json", "live", "new", "sign-in", "sign-out", "spend",
     "spend.json", "static"}
)  # fmt: skip


class PageServer(NamedTuple):
    """What serves the page."""

    is_known_host: Callable[[str], bool]  #: by the value of the Host header
    tasks: TaskGroup  #: runs what outlives a request, until the server ends
    ending: anyio.Event  #: the server is about to end, and so are the streams of open pages
    is_secure: bool = False  #: browsers reach it over HTTPS only, and send the cookie nowhere else
    middleware: Sequence[Middleware] = ()  #: is passed by the requests that the Guard lets in


def build_page(engine: EngineSource, access: Access, server: PageServer) -> Starlette:
    """Return the page of these jobs. It can be mounted at the root of another app, for the paths in PATHS.

    Args:
        engine: Returns the engine with the jobs that the user of a request may see. The session of the request is
            `request.scope["page_session"]`.
        access: Signs browsers in.
        server: What serves the page.
    """
    renderer = Renderer(access)

    async def show_error(request: Request, error: Exception) -> Response:
        return renderer.render_error(request, error)

    async def show_fault(request: Request, _: Exception) -> Response:
        """Show an error of ours, which the Guard does not see; the server logs it."""
        response = renderer.render_error(request, HTTPException(500, FAULT))
        response.headers.update(SAFETY_HEADERS)
        return response

    return Starlette(
        routes=_list_routes(engine, renderer, access, server),
        middleware=[Middleware(Guard, access=access, is_known_host=server.is_known_host), *server.middleware],
        exception_handlers={AgentJobsError: show_error, HTTPException: show_error, Exception: show_fault},
    )


def _list_routes(engine: EngineSource, renderer: Renderer, access: Access, server: PageServer) -> list[BaseRoute]:
    forms = FormReader(access)
    overview, pages = Overview(engine, renderer), JobPages(engine, renderer)
    live = LiveUpdates(engine, renderer, access, server.ending)
    actions, new = JobActions(engine, forms), NewPage(engine, renderer, forms)
    spend, health = SpendPage(engine, renderer), HealthPage(engine, renderer, hides_machine=access.hides_machine)
    sign_in = SignInPages(access, renderer, forms, is_secure=server.is_secure)
    return [
        Route("/", overview.show),
        Route("/jobs.json", overview.show_as_json),
        Route("/jobs/{job_id}.json", pages.show_as_json),
        Route("/jobs/{job_id}.md", pages.download_markdown),
        Route("/jobs/{job_id}/files/{number:int}", pages.download_file),
        Route("/jobs/{job_id}", pages.show),
        Route("/jobs/{job_id}/cancel", actions.cancel, methods=["POST"]),
        Route("/jobs/{job_id}/reply", actions.reply, methods=["POST"]),
        Route("/jobs/{job_id}/ask-again", actions.ask_again, methods=["POST"]),
        Route("/jobs/{job_id}/ask", actions.follow_up, methods=["POST"]),
        Route("/jobs/{job_id}/delete", actions.delete, methods=["POST"]),
        Route("/new", new.show_form),
        Route("/new", new.start, methods=["POST"]),
        Route("/new/estimate", new.estimate, methods=["POST"]),
        Route("/spend", spend.show),
        Route("/spend.json", spend.show_as_json),
        Route("/health", health.show),
        Route("/health.json", health.show_as_json),
        Route("/live/jobs", live.stream_overview),
        Route("/live/jobs/{job_id}", live.stream_job),
        Route("/sign-in", sign_in.show),
        Route("/sign-in", sign_in.redeem, methods=["POST"]),
        Route("/sign-out", sign_in.leave, methods=["POST"]),
        Route("/favicon.ico", _send_icon),
        Mount("/static", StaticFiles(directory=STATIC_FOLDER)),
    ]


async def _send_icon(_: Request) -> Response:
    return FileResponse(STATIC_FOLDER / "icon.svg")
