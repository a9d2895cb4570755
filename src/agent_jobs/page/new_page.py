"""Start a job from a form, with a live estimate of its cost."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, Argument, RequestError
from agent_jobs.jobs.stored_request import effort_of, model_of
from agent_jobs.page.formats import format_usd
from agent_jobs.page.forms import FormReader
from agent_jobs.page.templates import EngineSource, Renderer
from agent_jobs.page.views import build_budget_meter
from agent_jobs.page.wording import word_error
from agent_jobs.request.presets import EFFORTS
from agent_jobs.request.start_request import StartRequest

#: Names the page as the client that started a job.
CLIENT = "page"
#: Fields of the form, all of them text.
FIELDS = ("prompt", "preset", "model", "effort", "max_cost_usd", "previous_job_id")


class NewPage:
    """The form for a new job, or for one that continues or repeats another."""

    def __init__(self, engine: EngineSource, renderer: Renderer, forms: FormReader) -> None:
        self._engine = engine
        self._renderer = renderer
        self._forms = forms

    async def show_form(self, request: Request) -> Response:
        """Show the form; `?again=ID` fills in what another job was asked with."""
        engine = await self._engine(request)
        values: dict[str, str] = dict.fromkeys(FIELDS, "")
        if job_id := request.query_params.get("again"):
            values |= await _read_asked(engine, job_id)
        return await self._render_form(request, engine, values)

    async def start(self, request: Request) -> Response:
        """Start the job of a form and show it, or show the form again with its fault."""
        form = await self._forms.read(request)
        engine = await self._engine(request)
        try:
            [started] = await engine.start(_parse_form(form, allow_duplicate=True), id_wait_s=0.0)
        except AgentJobsError as error:
            values = {name: str(form.get(name, "")) for name in FIELDS}
            return await self._render_form(
                request, engine, values, problem=word_error(error, is_for_owner=bool(engine.owner))
            )
        return RedirectResponse(f"/jobs/{started.job.id}", 303)

    async def estimate(self, request: Request) -> Response:
        """Return one line with what the job of a form may cost."""
        form = await self._forms.read(request)
        if not str(form.get("prompt", "")).strip():
            return HTMLResponse("")
        engine = await self._engine(request)
        try:
            estimate = await engine.estimate(_parse_form(form, allow_duplicate=False))
        except AgentJobsError as error:
            problem = word_error(error, is_for_owner=bool(engine.owner))
            return HTMLResponse(self._renderer.render_part(request, "_estimate.html", {"problem": problem}))
        values = {
            "problem": "",
            "model": " ".join(filter(None, (estimate.model, estimate.effort))),
            "input_tokens": f"{estimate.input_tokens:,}",
            "expected": format_usd(estimate.expected_usd),
            "bound": format_usd(estimate.cost_bound_usd),
            "unbounded": estimate.unbounded and str(estimate.unbounded),
            "tools": ", ".join(estimate.tools),
            "existing": estimate.existing and estimate.existing.id,
        }
        return HTMLResponse(self._renderer.render_part(request, "_estimate.html", values))

    async def _render_form(
        self, request: Request, engine: Engine, values: Mapping[str, str], problem: str = ""
    ) -> Response:
        status = 200
        if problem:
            status = 400
        shown = {
            "values": values,
            "problem": problem,
            "presets": [(name, preset.description) for name, preset in engine.presets.items()],
            "efforts": EFFORTS,
            "budget": build_budget_meter(await engine.read_budget()),
        }
        return self._renderer.render_page(request, "new.html", shown, status)


async def _read_asked(engine: Engine, job_id: str) -> dict[str, str]:
    """Return the fields with which another job was started."""
    details = await engine.details(job_id)
    job = details.result.job
    preset = job.preset
    if preset not in engine.presets:
        preset = ""
    return {
        "prompt": details.prompt,
        "preset": preset,
        "model": job.model or model_of(details.request),
        "effort": job.effort or effort_of(details.request),
        "previous_job_id": job.previous_job_id or "",
    }


def _parse_form(form: FormData, *, allow_duplicate: bool) -> StartRequest:
    """Return the request of a form.

    Raises:
        RequestError: It has no prompt, or an amount that is no number.
    """
    fields = {name: str(form.get(name, "")).strip() or None for name in FIELDS}
    if fields["prompt"] is None:
        raise RequestError("{name} is empty.", "empty_prompt", name=Argument("prompt"))
    options: dict[str, Any] = {}
    if allow_duplicate:
        options["allow_duplicate"] = True
    if amount := fields["max_cost_usd"]:
        options["max_cost_usd"] = _parse_amount(amount)
    return StartRequest(
        prompts=[fields["prompt"]],
        preset=fields["preset"],
        model=fields["model"],
        effort=fields["effort"],
        web_search=bool(form.get("web_search")) or None,
        previous_job_id=fields["previous_job_id"],
        client=CLIENT,
        options=options,
    )


def _parse_amount(text: str) -> float:
    try:
        return float(text.removeprefix("$"))
    except ValueError:
        raise RequestError("{text!r} is not an amount in US dollars, such as 0.50.", "wrong_value", text=text) from None
