"""Find the job that a new one continues: its request, history and tools."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent_jobs.engine.context_check import MOST_TOKEN_CHARS
from agent_jobs.engine.read_again import read_stored_response
from agent_jobs.errors import RequestError
from agent_jobs.jobs import history
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import JSON, count_exact_tokens, find_upstream_call_id, items_of
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.upstream.endpoint import Endpoint

#: Fields that a follow-up copies from the previous request, because upstream carries none of them over.
INHERITED = ("instructions", "reasoning", "text", "tools", "include")


@dataclass(frozen=True, slots=True)
class PreviousJob:
    """The job that a new one continues; empty if there is none."""

    request: JSON = field(default_factory=dict[str, Any])
    link: JSON = field(default_factory=dict[str, Any])  #: the parameter by which upstream finds the history
    exchanges: Sequence[tuple[JSON, JSON]] = ()  #: the whole history, if upstream does not have it
    closing: Sequence[JSON] = ()  #: answers to the calls that it left open
    tokens: int | None = None  #: read and written for it
    toolbox: Sequence[str] = ()
    least_tokens: int = 0  #: of its history that the next job certainly reads

    def list_tools(self, *, of_toolbox: bool) -> list[JSON]:
        """Return the functions of the user's own tool servers in its request, or all its other tools."""
        from agent_jobs.toolbox.functions import is_function_of  # a first start need not load this module

        tools = items_of(self.request.get("tools"))
        return [tool for tool in tools if is_function_of(str(tool.get("name")), self.toolbox) is of_toolbox]

    def list_inherited_fields(self, web_search: bool | None) -> JSON:
        """Return the fields that the next request copies, without the functions of its toolbox."""
        kept = {name: self.request[name] for name in INHERITED if name in self.request}
        if "tools" in kept:
            tools = self.list_tools(of_toolbox=False)
            if web_search is False:
                tools = [tool for tool in tools if not str(tool["type"]).startswith("web_search")]
            kept["tools"] = tools
        return kept


class PreviousFinder:
    """Finds previous jobs for follow-ups at one endpoint."""

    def __init__(self, store: Store, endpoint: Endpoint) -> None:
        self._store = store
        self._endpoint = endpoint

    async def find(self, job_id: str | None, conversation: bool | str | None) -> PreviousJob:
        """Return the previous job with its cheapest continuation that upstream still supports.

        Raises:
            RequestError: The job has not finished, or nothing of it is left to continue.
        """
        if job_id is None:
            return PreviousJob()
        job = await self._get_finished_job(job_id)
        link = self._find_link(job, conversation)
        if link and job.status is Status.COMPLETED:
            return await self._continue_by_link(job, link, ())
        return await self._continue_unfinished(job, link)

    async def _continue_unfinished(self, job: Job, link: JSON) -> PreviousJob:
        """Return a previous job that upstream did not complete, or whose history it does not have."""
        number, response = await self._find_last_turn(job)
        calls = await self._store.get_calls(job.id, number)
        closing = history.build_closing_answers(response, calls, _explain_open_calls(job))
        if link and not any(map(_has_made_id, closing)):
            return await self._continue_by_link(job, link, closing)
        has_progress = job.status is Status.INCOMPLETE or number > 1 or any(call.state == "done" for call in calls)
        if not history.has_repeatable_output(response, closing if has_progress else ()):
            problem = "{job_id} ended {status} without an output to continue."
            if closing:
                problem = "{job_id} ended {status} without an output to continue, only with calls that were not made."
            raise RequestError(problem, "nothing_to_continue", job_id=job.id, status=job.status)
        return await self._continue_by_history(job, number, closing)

    async def _continue_by_link(self, job: Job, link: JSON, closing: Sequence[JSON]) -> PreviousJob:
        """Return the previous job with the parameter by which upstream finds its history."""
        return PreviousJob(
            job.turn.request,
            link=link,
            closing=closing,
            tokens=count_exact_tokens(job.usage),
            toolbox=job.toolbox,
            least_tokens=await self._count_history_tokens(job),
        )

    async def _continue_by_history(self, job: Job, number: int, closing: Sequence[JSON]) -> PreviousJob:
        """Return the previous job with its whole history up to a turn."""
        exchanges = await self._store.get_exchanges(job.id, before_turn=number + 1)
        if not exchanges:
            raise RequestError(
                "{job_id} continues a job that was purged, so its history is incomplete.",
                "history_purged",
                job_id=job.id,
            )
        least = history.count_exchange_chars(exchanges) // MOST_TOKEN_CHARS
        previous = PreviousJob(job.turn.request, closing=closing, toolbox=job.toolbox)
        return replace(previous, exchanges=exchanges, least_tokens=least)

    async def _get_finished_job(self, job_id: str) -> Job:
        """Return the job, or raise RequestError if it was deleted or has not finished."""
        job = await self._store.get(job_id)
        if job is None:
            problem = "{job_id} was deleted, so no job can continue it."
            raise RequestError(problem, "history_purged", job_id=job_id)
        if job.status is Status.INPUT_REQUIRED:
            raise RequestError("{job_id} waits for answers.", "job_asks", job_id=job_id)
        if not job.is_terminal:
            raise RequestError("{job_id} is still running.", "job_running", job_id=job_id)
        return job

    async def _find_last_turn(self, job: Job) -> tuple[int, JSON]:
        """Return the number of the last turn that brought anything, and its response."""
        response: JSON = {}
        if job.output is not None:
            response = await read_stored_response(self._store, job.id)
        if history.has_output_or_calls(response) or job.turn.number == 1:
            return job.turn.number, response
        # A turn that failed is repeated from the calls of the one before it.
        before = await self._store.get_exchanges(job.id, before_turn=job.turn.number)
        return job.turn.number - 1, before[-1][1] if before else {}

    async def _count_history_tokens(self, job: Job) -> int:
        """Return the tokens that a follow-up reads at least of the history up to a job's end."""
        usage, tools = job.usage, items_of(job.turn.request.get("tools"))
        if usage is not None and not usage.partial and not tools:  # with tools its input was counted several times
            return usage.input_tokens + max(0, usage.output_tokens - usage.reasoning_tokens)
        return history.count_exchange_chars(await self._store.get_exchanges(job.id)) // MOST_TOKEN_CHARS

    def _find_link(self, job: Job, conversation: bool | str | None) -> JSON:
        """Return the parameter by which upstream finds the history up to a job's end; empty if it cannot."""
        if not self._is_stored_here(job):
            return {}
        link, ends = {"previous_response_id": job.turn.response_id}, {Status.COMPLETED, Status.INCOMPLETE}
        own = job.turn.request.get("conversation")
        if own is not None:
            # Upstream adds only completed responses to a conversation.
            link, ends = {"conversation": own}, {Status.COMPLETED}
        if conversation not in (None, own) or job.status not in ends or job.turn.response_id is None:
            return {}
        return link

    def _is_stored_here(self, job: Job) -> bool:
        """Return True if the endpoint stores the job's responses for this key."""
        if job.turn.base_url != self._endpoint.base_url or job.turn.mode == "foreground":
            return False
        return job.turn.fingerprint in ("", self._endpoint.fingerprint)


def _explain_open_calls(job: Job) -> str:
    if job.status is Status.INCOMPLETE:
        return "the response was cut before it ended"
    return f"the job ended {job.status} before that"


def _has_made_id(answer: JSON) -> bool:
    """Return True if an answer names a call by an id that is not upstream's."""
    call_id = str(history.find_answered_id(answer))
    return find_upstream_call_id(call_id) != call_id
