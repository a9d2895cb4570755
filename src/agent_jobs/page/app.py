"""Build the page: a Starlette app over an engine, for one user in a browser."""

from collections.abc import Collection
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agent_jobs.errors import AgentJobsError
from agent_jobs.page.access import LinkAccess
from agent_jobs.page.actions import Actions
from agent_jobs.page.forms import FormReader
from agent_jobs.page.guard import Guard
from agent_jobs.page.health_page import HealthPage
from agent_jobs.page.job_pages import JobPages
from agent_jobs.page.live import LiveUpdates
from agent_jobs.page.new_page import NewPage
from agent_jobs.page.sign_in import SignIn
from agent_jobs.page.spend_page import SpendPage
from agent_jobs.page.templates import EngineSource, Renderer

STATIC_FOLDER = Path(__file__).with_name("static")


def build_page(engine: EngineSource, access: LinkAccess, hosts: Collection[str]) -> Starlette:
    """Return the page of these jobs.

    Args:
        engine: Returns the engine once it is open.
        access: Knows who is signed in.
        hosts: Values of the Host header that name this server.
    """
    renderer = Renderer(access)
    pages, live = JobPages(engine, renderer), LiveUpdates(engine, renderer)
    forms = FormReader(access)
    actions, sign_in, new = Actions(engine, forms), SignIn(access), NewPage(engine, renderer, forms)
    spend, health = SpendPage(engine, renderer), HealthPage(engine, renderer)

    async def show_error(request: Request, error: Exception) -> Response:
        return renderer.render_error(request, error)

    return Starlette(
        routes=[
            Route("/", pages.show_jobs),
            Route("/jobs.json", pages.list_as_json),
            Route("/jobs/{job_id}.json", pages.show_job_as_json),
            Route("/jobs/{job_id}.md", pages.download_markdown),
            Route("/jobs/{job_id}", pages.show_job),
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
            Route("/live/jobs", live.stream_jobs),
            Route("/live/jobs/{job_id}", live.stream_job),
            Route("/sign-in", sign_in.redeem),
            Route("/favicon.ico", _send_icon),
            Mount("/static", StaticFiles(directory=STATIC_FOLDER)),
        ],
        middleware=[Middleware(Guard, access=access, hosts=hosts)],
        exception_handlers={AgentJobsError: show_error, HTTPException: show_error},
    )


async def _send_icon(_: Request) -> Response:
    return FileResponse(STATIC_FOLDER / "icon.svg")
