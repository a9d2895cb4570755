"""Handle the forms about one job: each is a POST, and calls the same method of the engine as the tools."""

from contextlib import suppress

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agent_jobs.errors import RequestError
from agent_jobs.jobs.queries import JobFilter, Reply
from agent_jobs.page.forms import FormReader
from agent_jobs.page.new_page import CLIENT
from agent_jobs.page.templates import EngineSource
from agent_jobs.request.start_request import StartRequest


class JobActions:
    """The forms about a job, on its page and in the list."""

    def __init__(self, engine: EngineSource, forms: FormReader) -> None:
        self._engine = engine
        self._forms = forms

    async def cancel(self, request: Request) -> Response:
        """Cancel a job here and at the provider."""
        form = await self._forms.read(request)
        engine = await self._engine(request)
        job_id = request.path_params["job_id"]
        await engine.cancel(JobFilter(job_ids=(job_id,)))
        return _go_back(form, job_id)

    async def reply(self, request: Request) -> Response:
        """Answer a call that a job waits for."""
        form = await self._forms.read(request)
        engine = await self._engine(request)
        job_id = request.path_params["job_id"]
        await engine.reply(job_id, _parse_answer(form))
        return _go_back(form, job_id)

    async def ask_again(self, request: Request) -> Response:
        """Take back that a tool is always allowed in a job."""
        form = await self._forms.read(request)
        engine = await self._engine(request)
        job_id = request.path_params["job_id"]
        with suppress(RequestError):  # another tab took it back
            await engine.ask_again(job_id, str(form.get("tool", "")))
        return _go_back(form, job_id)

    async def follow_up(self, request: Request) -> Response:
        """Ask another question in the conversation of a job, and show the job that answers it."""
        form = await self._forms.read(request)
        engine = await self._engine(request)
        prompt = str(form.get("prompt", "")).strip()
        if not prompt:
            raise HTTPException(400, "There is no question. Write what you want to know.")
        asked = StartRequest(prompts=[prompt], previous_job_id=request.path_params["job_id"], client=CLIENT)
        [started] = await engine.start(asked, id_wait_s=0.0)
        return _show_job(started.job.id)

    async def delete(self, request: Request) -> Response:
        """Delete a finished job here."""
        await self._forms.read(request)
        engine = await self._engine(request)
        job_id = request.path_params["job_id"]
        deleted = await engine.delete([job_id])
        if not deleted.deleted:
            await engine.find_progress(job_id)  # which raises JobNotFoundError
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
        case "always":
            return Reply(always=(call_id,), turn=number)
        case "deny":
            return Reply(deny=(call_id,), turn=number)
        case "output":
            return Reply(outputs={call_id: str(form.get("output", ""))}, turn=number)
        case _:
            raise HTTPException(400, "Choose an answer.")


def _go_back(form: FormData, job_id: str) -> Response:
    """Return to the page from which a form was sent: the list, or the page of the job."""
    if form.get("from") == "list":
        return RedirectResponse("/", 303)
    return _show_job(job_id)


def _show_job(job_id: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", 303)
