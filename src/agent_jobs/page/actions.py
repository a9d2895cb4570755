"""Do what a form about one job asks: each is a POST, and calls the verb of the engine that the tools call."""

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agent_jobs.jobs.queries import JobFilter, Reply
from agent_jobs.page.forms import FormReader
from agent_jobs.page.new_page import CLIENT
from agent_jobs.page.templates import EngineSource
from agent_jobs.request.start_request import StartRequest


class Actions:
    """The forms on the page of a job."""

    def __init__(self, engine: EngineSource, forms: FormReader) -> None:
        self._engine = engine
        self._forms = forms

    async def cancel(self, request: Request) -> Response:
        """Cancel a job here and at the provider."""
        await self._forms.read(request)
        engine = await self._engine()
        job_id = request.path_params["job_id"]
        await engine.cancel(JobFilter(job_ids=(job_id,)))
        return _show_job(job_id)

    async def reply(self, request: Request) -> Response:
        """Answer a call that a job waits for."""
        form = await self._forms.read(request)
        engine = await self._engine()
        job_id = request.path_params["job_id"]
        await engine.reply(job_id, _parse_answer(form))
        return _show_job(job_id)

    async def follow_up(self, request: Request) -> Response:
        """Ask another question in the conversation of a job, and show the job that answers it."""
        form = await self._forms.read(request)
        engine = await self._engine()
        prompt = str(form.get("prompt", "")).strip()
        if not prompt:
            raise HTTPException(400, "There is no question. Write what you want to know.")
        asked = StartRequest(prompts=[prompt], previous_job_id=request.path_params["job_id"], client=CLIENT)
        [started] = await engine.start(asked, id_wait_s=0.0)
        return _show_job(started.job.id)

    async def delete(self, request: Request) -> Response:
        """Delete a finished job here."""
        await self._forms.read(request)
        engine = await self._engine()
        deleted = await engine.delete([request.path_params["job_id"]])
        if not deleted.deleted:
            raise HTTPException(409, "This job has not finished. Cancel it first.")
        return RedirectResponse("/", 303)


def _parse_answer(form: FormData) -> Reply:
    """Return the answer that a form gives to one call."""
    call_id, turn = str(form.get("call", "")), str(form.get("turn", ""))
    number: int | None = None
    if turn.isdecimal():
        number = int(turn)
    match form.get("answer"):
        case "approve":
            return Reply(approve=(call_id,), turn=number)
        case "deny":
            return Reply(deny=(call_id,), turn=number)
        case "output":
            return Reply(outputs={call_id: str(form.get("output", ""))}, turn=number)
        case _:
            raise HTTPException(400, "Choose an answer.")


def _show_job(job_id: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", 303)
