"""Show the list of jobs and single jobs, as pages and as JSON."""

import json
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

import anyio
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobDetails, JobFilter
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.page import views
from agent_jobs.page.safe_html import render_markdown
from agent_jobs.page.templates import EngineSource, Renderer
from agent_jobs.rendering import answers
from agent_jobs.rendering import markdown as markdown_file
from agent_jobs.rendering.redaction import hide_blobs, redact_request

#: Jobs in one list.
LISTED_JOBS = 100
#: Characters of a response that its page shows; all of it is in the database.
RESPONSE_CHARS = 200_000
#: Fields of jobs by which the URL can select, too.
FIELDS = ("model", "preset", "client")
#: Filters of the list, by their names in the URL.
FILTERS = {
    "": ("All", JobFilter()),
    "running": ("Running", JobFilter(statuses=ACTIVE)),
    "unread": ("Unread", JobFilter(unread=True)),
    "failed": ("Failed", JobFilter(statuses=frozenset({Status.FAILED, Status.EXPIRED, Status.INCOMPLETE}))),
}


class JobPages:
    """The pages about jobs."""

    def __init__(self, engine: EngineSource, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def show_jobs(self, request: Request) -> Response:
        """Show the list, or the jobs that a search finds."""
        engine = await self._engine()
        words = request.query_params.get("words", "")
        if words:
            hits = await engine.search(words, LISTED_JOBS)
            rows = [views.build_hit(hit, engine.now()) for hit in hits]
            return self._renderer.render_page(request, "jobs.html", {"words": words, "rows": rows})
        values = await read_overview(engine, request)
        return self._renderer.render_page(request, "jobs.html", {**values, "is_live": True})

    async def list_as_json(self, request: Request) -> Response:
        """Return the list as JSON."""
        engine = await self._engine()
        page = await engine.find(_choose_filter(request)[1], LISTED_JOBS)
        return JSONResponse(answers.render_list(page, engine.now()))

    async def show_job(self, request: Request) -> Response:
        """Show one job; its result counts as read by that."""
        engine = await self._engine()
        details = await engine.details(request.path_params["job_id"])
        values = await read_job(engine, details)
        request_json = json.dumps(redact_request(details.request), ensure_ascii=False, indent=2)
        values |= {
            "prompt": details.prompt,
            "facts": _list_job_facts(details),
            "previous": details.result.job.previous_job_id or "",
            "request_json": request_json,
            "response_json": _render_response(details),
        }
        response = self._renderer.render_page(request, "job.html", values)
        await engine.mark_read(details.result.job)
        return response

    async def show_job_as_json(self, request: Request) -> Response:
        """Return one job as JSON."""
        engine = await self._engine()
        details = await engine.details(request.path_params["job_id"])
        job = details.result.job
        answer = answers.render_job(job, engine.now())
        steps = [step._asdict() for step in details.steps]
        return JSONResponse({**answer, "output": answers.output_text(job), "prompt": details.prompt, "steps": steps})

    async def download_markdown(self, request: Request) -> Response:
        """Return the answer as a Markdown file."""
        engine = await self._engine()
        job = (await engine.result(request.path_params["job_id"])).job
        name = {"Content-Disposition": f'attachment; filename="{job.id}.md"'}
        return PlainTextResponse(markdown_file.render_markdown(job), media_type="text/markdown", headers=name)


async def read_overview(engine: Engine, request: Request) -> dict[str, Any]:
    """Return the values of the list that a request asks for."""
    now = engine.now()
    chosen, group = _choose_filter(request)
    page = await engine.find(group, LISTED_JOBS)
    asking = await engine.find(JobFilter(statuses=frozenset({Status.INPUT_REQUIRED})), LISTED_JOBS)
    return {
        "rows": [views.build_row(job, now) for job in page.jobs],
        "asking": [views.build_row(job, now) for job in asking.jobs],
        "counts": [(views.STATUS_WORDS[status], count) for status, count in page.counts.items()],
        "today": views.format_usd(page.today_usd or None),
        "filters": [(title, _link_filter(request, name), name == chosen) for name, (title, _) in FILTERS.items()],
        "query": _link_filter(request, chosen).removeprefix("/"),
    }


async def read_job(engine: Engine, details: JobDetails) -> dict[str, Any]:
    """Return the values of the part of a job's page that changes."""
    job, now = details.result.job, engine.now()
    text, sources = job.turn.partial, list[views.Source]()
    if job.output:
        text, sources = views.cite_answer(job)
    # In a thread: a long answer takes a moment.
    answer = await anyio.to_thread.run_sync(partial(render_markdown, text))
    return {
        "row": views.build_row(job, now),
        "tokens": views.format_tokens(job.usage),
        "turn": job.turn.number,
        "can_ask": job.status in (Status.COMPLETED, Status.INCOMPLETE),
        "questions": [views.build_question(call) for call in await engine.open_calls(job)],
        "answer": Markup(answer),  # it was cleaned
        "sources": sources,
        "gaps": views.find_gaps(details, now),
        "steps": views.build_steps(details.steps, now),
    }


def _render_response(details: JobDetails) -> str:
    """Return the response as JSON, without secrets and without what no person can read; empty if there is none."""
    output = details.result.job.output
    if output is None or output.response is None:
        return ""
    return json.dumps(hide_blobs(output.response), ensure_ascii=False, indent=2)[:RESPONSE_CHARS]


def _choose_filter(request: Request) -> tuple[str, JobFilter]:
    """Return the name and the filter that the URL asks for; an unknown name means all jobs."""
    name = request.query_params.get("show", "")
    if name not in FILTERS:
        name = ""
    return name, replace(FILTERS[name][1], **_read_field_filters(request))


def _read_field_filters(request: Request) -> dict[str, str]:
    """Return the fields of jobs that the URL selects by."""
    return {field: request.query_params[field] for field in FIELDS if request.query_params.get(field)}


def _link_filter(request: Request, name: str) -> str:
    """Return the address of the list with another filter, and the same fields."""
    values = _read_field_filters(request)
    if name:
        values["show"] = name
    if not values:
        return "/"
    return f"/?{urlencode(values)}"


def _list_job_facts(details: JobDetails) -> list[tuple[str, str]]:
    job: Job = details.result.job
    facts = {
        "Id": job.id,
        "Started by": job.client,
        "Model": " ".join(filter(None, (job.model, job.effort))),
        "Preset": job.preset,
        "Batch": job.batch,
        "Response": job.turn.response_id or "",
        "Endpoint": job.turn.base_url,
    }
    return [(name, value) for name, value in facts.items() if value]
