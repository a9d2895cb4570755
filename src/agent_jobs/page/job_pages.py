"""Show one job, as a page, as JSON and as files."""

import json
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

import anyio
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobDetails, JobFilter
from agent_jobs.jobs.status import Status
from agent_jobs.page import views
from agent_jobs.page.formats import format_tokens
from agent_jobs.page.safe_html import escape_reordering, link_citations, render_markdown
from agent_jobs.page.templates import EngineSource, Renderer
from agent_jobs.rendering import answers
from agent_jobs.rendering import markdown as markdown_file
from agent_jobs.rendering.questions import escape_invisible, list_always_allowed
from agent_jobs.rendering.redaction import hide_blobs, redact_request
from agent_jobs.text import human_size

#: Characters of a response that its page shows; all of it is in the database.
RESPONSE_CHARS = 200_000
#: Answers whose HTML is cached: rendering a long one costs tens of milliseconds, and it is read more than once.
KEPT_ANSWERS = 16
#: Earlier and later jobs of a conversation that a page names.
MAX_RELATED_JOBS = 20


class JobPages:
    """The pages and downloads of one job."""

    def __init__(self, engine: EngineSource, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def show(self, request: Request) -> Response:
        """Show one job; its result counts as read by that."""
        engine = await self._engine(request)
        details = await engine.details(request.path_params["job_id"])
        job = details.result.job
        values = await build_job_values(engine, details)
        values |= {
            "prompt": escape_reordering(details.prompt),
            "facts": _list_job_facts(details),
            "lineage": await _find_lineage(engine, job),
            "request_json": escape_reordering(
                json.dumps(redact_request(details.request), ensure_ascii=False, indent=2)
            ),
            "response_json": _render_response(details),
        }
        response = self._renderer.render_page(request, "job.html", values)
        await engine.mark_read(job)
        return response

    async def show_as_json(self, request: Request) -> Response:
        """Return one job as JSON."""
        engine = await self._engine(request)
        details = await engine.details(request.path_params["job_id"])
        job = details.result.job
        answer = answers.render_job(job, engine.now())
        steps = [step._asdict() for step in details.steps]
        return JSONResponse(
            {**answer, "output": answers.read_output_text(job), "prompt": details.prompt, "steps": steps}
        )

    async def download_markdown(self, request: Request) -> Response:
        """Return the answer as a Markdown file."""
        engine = await self._engine(request)
        job = (await engine.result(request.path_params["job_id"])).job
        name = {"Content-Disposition": f'attachment; filename="{job.id}.md"'}
        return PlainTextResponse(markdown_file.render_markdown(job), media_type="text/markdown", headers=name)

    async def download_file(self, request: Request) -> Response:
        """Return a file that the job made, as a download: no browser shows it as one of our pages."""
        engine = await self._engine(request)
        made = (await engine.result(request.path_params["job_id"])).made
        number: int = request.path_params["number"]
        if number >= len(made):
            raise HTTPException(404, "This job made no such file.")
        file = made[number]
        stored = await engine.files.read_made(file.path)
        if stored is not None:
            name = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(stored.name, safe='')}"}
            return Response(stored.data, media_type="application/octet-stream", headers=name)
        if not await anyio.Path(file.path).is_file():
            raise HTTPException(404, f"{file.name} was moved or deleted. It was written to {file.path}.")
        return FileResponse(file.path, media_type="application/octet-stream", filename=file.name)


async def build_job_values(engine: Engine, details: JobDetails) -> dict[str, Any]:
    """Return the values of the part of a job's page that changes."""
    job, now = details.result.job, engine.now()
    text, sources = job.turn.partial, list[views.CitedSource]()
    if job.output:
        text, sources = views.cite_answer(job)
    # In a thread: a long answer needs a moment.
    answer = await anyio.to_thread.run_sync(partial(_render_answer, text, len(sources)))
    return {
        "row": views.build_row(job, now),
        "meter": views.build_cost_meter(job),
        "tokens": format_tokens(job.usage),
        "can_ask": job.status in (Status.COMPLETED, Status.INCOMPLETE),
        "questions": [views.build_question(call) for call in await engine.open_calls(job)],
        "always": list_always_allowed(job),
        "answer": Markup(answer),  # it was cleaned
        "sources": sources,
        "files": [(escape_invisible(file.name), human_size(file.bytes)) for file in details.result.made],
        "timeline": views.build_timeline_rows(details, now),
    }


@lru_cache(KEPT_ANSWERS)
def _render_answer(text: str, sources: int) -> str:
    """Return safe HTML of an answer, with links to its sources."""
    return link_citations(render_markdown(text), sources)


def _render_response(details: JobDetails) -> str:
    """Return the response as JSON, without secrets and without what no person can read; empty if there is none."""
    response = answers.read_response(details.result.job)
    if not response:
        return ""
    return escape_reordering(json.dumps(hide_blobs(response), ensure_ascii=False, indent=2)[:RESPONSE_CHARS])


async def _find_lineage(engine: Engine, job: Job) -> list[views.JobRow]:
    """Return the jobs of a conversation up to this one, and those that continue it; empty if it stands alone."""
    before: list[Job] = []
    previous = job.previous_job_id
    while previous and len(before) < MAX_RELATED_JOBS:
        found = await engine.find_newest(JobFilter(job_ids=(previous,)), 1)
        if not found:  # it was deleted
            break
        before.insert(0, found[0])
        previous = found[0].previous_job_id
    after = await engine.find_newest(JobFilter(previous_job_id=job.id), MAX_RELATED_JOBS)
    if not before and not after:
        return []
    now = engine.now()
    return views.arrange_threads(views.build_row(each, now) for each in [*reversed(after), job, *reversed(before)])


def _list_job_facts(details: JobDetails) -> list[tuple[str, str]]:
    job: Job = details.result.job
    facts = {
        "Id": job.id,
        "Owner": job.owner,
        "Started by": job.client,
        "Model": " ".join(filter(None, (job.model, job.effort))),
        "Preset": job.preset,
        "Batch": job.batch,
        "Response": job.turn.response_id or "",
        "Endpoint": job.turn.base_url,
    }
    return [(name, value) for name, value in facts.items() if value]
