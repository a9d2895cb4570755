"""Show the list of jobs: what needs the user, what runs, and all others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter, JobPage
from agent_jobs.jobs.status import ACTIVE, TERMINAL, Status
from agent_jobs.page import views
from agent_jobs.page.formats import format_usd
from agent_jobs.page.templates import EngineSource, Renderer
from agent_jobs.page.wording import word_error
from agent_jobs.rendering import batches

#: Jobs in one list, and how many more a visitor can ask for at once.
LISTED_JOBS = 100
#: A list is no longer than this.
MAX_LISTED_JOBS = 300
#: Digits of a number of jobs in an address: a longer number is no smaller, and Python refuses to read a huge one.
MAX_LIMIT_DIGITS = 9
#: Characters of a search: a database refuses a very long one.
MAX_SEARCH_CHARS = 500
#: Failures that are shown among what needs the user.
SHOWN_FAILURES = 5
#: Jobs that wait for answers and whose questions the list shows.
SHOWN_QUESTIONS = 10
#: Fields of jobs by which the URL can select, too.
FIELDS = ("model", "preset", "client", "batch")
ASKING = frozenset({Status.INPUT_REQUIRED})
FAILED = frozenset({Status.FAILED, Status.EXPIRED, Status.INCOMPLETE})
#: Filters of the list, by their names in the URL.
FILTERS = {
    "": ("All", JobFilter()),
    "needs-you": ("Needs you", JobFilter(statuses=ASKING)),
    "running": ("Running", JobFilter(statuses=ACTIVE - ASKING)),
    "unread": ("Unread", JobFilter(unread=True)),
    "failed": ("Failed", JobFilter(statuses=FAILED)),
}


class Group(NamedTuple):
    """Some rows of the list, under a heading."""

    key: str
    title: str
    rows: Sequence[views.JobRow]
    shown: str = ""  #: the number of its jobs, for the heading


class Overview:
    """The page with all jobs."""

    def __init__(self, engine: EngineSource, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def show(self, request: Request) -> Response:
        """Show the list, or the jobs that a search finds."""
        engine = await self._engine(request)
        words = request.query_params.get("words", "").strip()[:MAX_SEARCH_CHARS]
        if words:
            hits = await engine.search(words, LISTED_JOBS)
            rows = [views.build_hit(hit, engine.now()) for hit in hits]
            values = {"words": words, "groups": [Group("found", "", rows)], "found": len(rows), "is_live": False}
            return self._renderer.render_page(request, "jobs.html", values)
        values = await read_overview(engine, request)
        return self._renderer.render_page(request, "jobs.html", {**values, "is_live": True})

    async def show_as_json(self, request: Request) -> Response:
        """Return the list as JSON."""
        engine = await self._engine(request)
        page = await engine.find(_choose_filter(request)[1], _choose_limit(request))
        return JSONResponse(batches.render_list(page, engine.now(), word_error))


async def read_overview(engine: Engine, request: Request) -> dict[str, Any]:
    """Return the values of the list that a request asks for."""
    name, group = _choose_filter(request)
    limit = _choose_limit(request)
    is_whole = group == JobFilter()
    groups: list[Group] = []
    if is_whole:
        page, groups = await _read_groups(engine, limit)
        total = _count_finished(page.counts)
    else:
        page = await engine.find(group, limit)
        groups = [Group("all", "", await _build_rows(engine, page.jobs))]
        total = sum(page.counts.values())
    shown = [each for each in groups if each.rows]
    budget = await engine.read_budget()
    return {
        "groups": shown,
        "words": "",
        "is_empty": not shown and is_whole,
        "title_mark": await _count_asking(engine),
        "budget": views.build_budget_meter(budget),
        "today": format_usd(page.today_usd or None),
        "filters": [(title, _link_filter(request, each), each == name) for each, (title, _) in FILTERS.items()],
        "fields": _read_field_filters(request),
        "unfiltered": _link(name),
        "query": _link_filter(request, name).removeprefix("/"),
        "more": _link_more(request, name, limit, total),
        "left": max(0, total - limit),
    }


async def _count_asking(engine: Engine) -> str:
    """Return the number of jobs that wait for the user, in the form of a title of a page; empty if there are none."""
    asking = await engine.find_newest(JobFilter(statuses=ASKING), MAX_LISTED_JOBS)
    if not asking:
        return ""
    return f"({len(asking)}) "


async def _read_groups(engine: Engine, limit: int) -> tuple[JobPage, list[Group]]:
    """Return the newest jobs: those that need the user, those that run, and up to `limit` that have finished."""
    active = await engine.find_newest(JobFilter(statuses=ACTIVE), MAX_LISTED_JOBS)
    failed = await engine.find_newest(JobFilter(statuses=FAILED, unread=True), SHOWN_FAILURES)
    # Not the finished jobs alone: to sort those the database would read all of them.
    page = await engine.find(JobFilter(), limit + len(active) + len(failed))
    urgent = [*(job for job in active if job.status in ASKING), *failed]
    above = {job.id for job in urgent}
    finished = [job for job in page.jobs if job.is_terminal and job.id not in above]
    groups = [
        Group("needs-you", "Needs you", await _build_rows(engine, urgent)),
        Group("running", "Running", await _build_rows(engine, [job for job in active if job.status not in ASKING])),
        Group("finished", "Finished", await _build_rows(engine, finished[:limit])),
    ]
    return page, [group._replace(shown=_count_rows(group, page.counts)) for group in groups]


def _count_rows(group: Group, counts: Mapping[Status, int]) -> str:
    """Return how many jobs a group shows, and of how many if it does not show all of them."""
    shown = len(group.rows)
    finished = _count_finished(counts)
    if group.key == "finished" and LISTED_JOBS <= shown < finished:
        return f"{shown} of {finished:,}"
    return str(shown)


def _count_finished(counts: Mapping[Status, int]) -> int:
    return sum(count for status, count in counts.items() if status in TERMINAL)


async def _build_rows(engine: Engine, jobs: Sequence[Job]) -> list[views.JobRow]:
    now = engine.now()
    rows = views.arrange_threads(views.build_row(job, now) for job in jobs)
    by_id = {job.id: job for job in jobs}
    asking = [row.id for row in rows if row.status in ASKING][:SHOWN_QUESTIONS]
    calls = {job_id: await engine.open_calls(by_id[job_id]) for job_id in asking}
    return [row._replace(questions=list(map(views.build_question, calls.get(row.id, ())))) for row in rows]


def _choose_filter(request: Request) -> tuple[str, JobFilter]:
    """Return the name and the filter that the URL asks for; an unknown name means all jobs."""
    name = request.query_params.get("show", "")
    if name not in FILTERS:
        name = ""
    return name, replace(FILTERS[name][1], **_read_field_filters(request))


def _choose_limit(request: Request) -> int:
    """Return how many jobs the URL asks for."""
    asked = request.query_params.get("limit", "")
    if not asked.isdecimal():
        return LISTED_JOBS
    if len(asked) > MAX_LIMIT_DIGITS:
        return MAX_LISTED_JOBS
    return min(max(int(asked), 1), MAX_LISTED_JOBS)


def _read_field_filters(request: Request) -> dict[str, str]:
    """Return the fields of jobs that the URL selects by."""
    return {field: request.query_params[field] for field in FIELDS if request.query_params.get(field)}


def _link_filter(request: Request, name: str) -> str:
    """Return the address of the list with another filter, and the same fields."""
    return _link(name, **_read_field_filters(request))


def _link_more(request: Request, name: str, limit: int, total: int) -> str:
    """Return the address of a longer list; empty if this one has all jobs."""
    if total <= limit or limit >= MAX_LISTED_JOBS:
        return ""
    return _link(name, **_read_field_filters(request), limit=str(limit + LISTED_JOBS))


def _link(name: str, **values: str) -> str:
    if name:
        values["show"] = name
    if not values:
        return "/"
    return f"/?{urlencode(values)}"
