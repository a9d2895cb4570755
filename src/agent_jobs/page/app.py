"""Build the page: a Starlette app over an engine, for browsers that are signed in."""

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError
from agent_jobs.page.access import Access
from agent_jobs.page.actions import Actions
from agent_jobs.page.forms import FormReader
from agent_jobs.page.guard import Guard
from agent_jobs.page.health_page import HealthPage
from agent_jobs.page.job_pages import JobPages
from agent_jobs.page.live import LiveUpdates
from agent_jobs.page.new_page import NewPage
from agent_jobs.page.overview import Overview
from agent_jobs.page.sign_in import SignIn
from agent_jobs.page.spend_page import SpendPage
from agent_jobs.page.standing_approvals import StandingApprovals
from agent_jobs.page.templates import EngineSource, Renderer

STATIC_FOLDER = Path(__file__).with_name("static")

#: Returns the engine with the jobs of an owner once it is open; the owner is empty for the only user of a machine.
EngineOf = Callable[[str], Awaitable[Engine]]


def build_page(
    engine_of: EngineOf, access: Access, hosts: Collection[str], tasks: TaskGroup, *, is_secure: bool = False
) -> Starlette:
    """Return the page of these jobs. It can be mounted at the root of another app, behind that app's own routes.

    Args:
        engine_of: Returns the engine with the jobs of an owner.
        access: Signs browsers in.
        hosts: Values of the Host header that name this server.
        tasks: Runs what outlives a request, until the server ends.
        is_secure: Whether browsers reach it over HTTPS only, so that they send the cookie nowhere else.
    """
    renderer = Renderer(access)

    async def find_engine(request: Request) -> Engine:
        return await engine_of(request.scope["page_session"].owner)

    async def show_error(request: Request, error: Exception) -> Response:
        return renderer.render_error(request, error)

    return Starlette(
        routes=_list_routes(find_engine, renderer, access, tasks, is_secure=is_secure),
        middleware=[Middleware(Guard, access=access, hosts=hosts)],
        exception_handlers={AgentJobsError: show_error, HTTPException: show_error},
    )


def _list_routes(
    engine: EngineSource, renderer: Renderer, access: Access, tasks: TaskGroup, *, is_secure: bool
) -> list[BaseRoute]:
    forms, approvals = FormReader(access), StandingApprovals(tasks)
    overview, pages = Overview(engine, renderer), JobPages(engine, renderer, approvals)
    live = LiveUpdates(engine, renderer, approvals)
    actions, new = Actions(engine, forms, approvals), NewPage(engine, renderer, forms)
    spend, health = SpendPage(engine, renderer), HealthPage(engine, renderer)
    sign_in = SignIn(access, renderer, forms, is_secure=is_secure)
    return [
        Route("/", overview.show),
        Route("/jobs.json", overview.show_as_json),
        Route("/jobs/{job_id}.json", pages.show_as_json),
        Route("/jobs/{job_id}.md", pages.download_markdown),
        Route("/jobs/{job_id}/files/{number:int}", pages.download_file),
        Route("/jobs/{job_id}", pages.show),
        Route("/jobs/{job_id}/cancel", actions.cancel, methods=["POST"]),
        Route("/jobs/{job_id}/reply", actions.reply, methods=["POST"]),
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
