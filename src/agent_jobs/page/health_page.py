"""Show whether jobs can run: the endpoint, the database, and the processes that work on jobs."""

from typing import NamedTuple

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.page.templates import EngineSource, Renderer
from agent_jobs.page.views import STATUS_WORDS
from agent_jobs.page.wording import word_error
from agent_jobs.text import human_size

#: Seconds for which the page waits for the endpoint.
ENDPOINT_S = 5.0


class Check(NamedTuple):
    """One line of the page."""

    name: str
    is_good: bool
    text: str


class HealthPage:
    """The page that says what works, and how to fix what does not."""

    def __init__(self, engine: EngineSource, renderer: Renderer, *, hides_machine: bool) -> None:
        self._hides_machine = hides_machine
        self._engine = engine
        self._renderer = renderer

    async def show(self, request: Request) -> Response:
        """Show all checks."""
        values = {"checks": await self._run_checks(request), "hides_machine": self._hides_machine}
        return self._renderer.render_page(request, "health.html", values)

    async def show_as_json(self, request: Request) -> Response:
        """Return all checks as JSON."""
        return JSONResponse([check._asdict() for check in await self._run_checks(request)])

    async def _run_checks(self, request: Request) -> list[Check]:
        engine = await self._engine(request)
        if self._hides_machine:
            return [await _check_owner_jobs(engine)]
        return await _check_machine(engine)


async def _check_owner_jobs(engine: Engine) -> Check:
    """Count the jobs of an owner, which needs the database."""
    page = await engine.find(JobFilter(), 1)
    counts = ", ".join(f"{count} {STATUS_WORDS[status]}" for status, count in page.counts.items())
    return Check("Jobs", True, counts or "none yet")


async def _check_machine(engine: Engine) -> list[Check]:
    store = await engine.store_info()
    page = await engine.find(JobFilter(), 1)
    workers = ", ".join(f"{worker.what} (process {worker.pid})" for worker in store.watchers)
    return [
        await _check_endpoint(engine),
        Check("Database", True, f"{store.path}, {human_size(store.bytes)}, schema {store.schema}"),
        await _check_owner_jobs(engine),
        Check("Workers", True, workers or "only this page"),
        *(Check("Settings", False, word_error(warning)) for warning in page.warnings),
    ]


async def _check_endpoint(engine: Engine) -> Check:
    """Ask the endpoint for its models, which needs the key and costs nothing."""
    try:
        with anyio.fail_after(ENDPOINT_S):
            models = await engine.list_models()
    except AgentJobsError as error:
        return Check("Endpoint", False, word_error(error))
    except TimeoutError:
        return Check("Endpoint", False, f"{engine.base_url} did not answer within {ENDPOINT_S:g} seconds.")
    return Check("Endpoint", True, f"{engine.base_url} answers, accepts the key and lists {len(models)} models")
