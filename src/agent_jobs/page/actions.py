"""Do what a form of the page asks: each is a POST with the token of the session."""

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agent_jobs.jobs.queries import JobFilter, Reply
from agent_jobs.page.access import LinkAccess
from agent_jobs.page.templates import EngineSource


class Actions:
    """The forms of the page; each one calls the verb of the engine that the tools call."""

    def __init__(self, engine: EngineSource, access: LinkAccess) -> None:
        self._engine = engine
        self._access = access

    async def cancel(self, request: Request) -> Response:
        """Cancel a job here and at the provider."""
        await self._read_form(request)
        engine = await self._engine()
        job_id = request.path_params["job_id"]
        await engine.cancel(JobFilter(job_ids=(job_id,)))
        return _return_to_job(job_id)

    async def reply(self, request: Request) -> Response:
        """Answer a call that a job waits for."""
        form = await self._read_form(request)
        engine = await self._engine()
        job_id = request.path_params["job_id"]
        await engine.reply(job_id, _read_reply(form))
        return _return_to_job(job_id)

    async def _read_form(self, request: Request) -> FormData:
        """Return the fields of a form of this session.

        Raises:
            HTTPException: Another page sent it.
        """
        form = await request.form(max_files=0)
        if not self._access.is_form_token(request.scope["session_token"], str(form.get("form_token", ""))):
            raise HTTPException(403, "This form is out of date. Load the page again.")
        return form


def _read_reply(form: FormData) -> Reply:
    """Return the answer that a form gives to one call."""
    call_id, turn = str(form.get("call", "")), str(form.get("turn", ""))
    number = int(turn) if turn.isdecimal() else None
    match form.get("answer"):
        case "approve":
            return Reply(approve=(call_id,), turn=number)
        case "deny":
            return Reply(deny=(call_id,), turn=number)
        case "output":
            return Reply(outputs={call_id: str(form.get("output", ""))}, turn=number)
        case _:
            raise HTTPException(400, "Choose an answer.")


def _return_to_job(job_id: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", 303)
