"""Change the course of a job: answer it, cancel it, or give it a response."""

from __future__ import annotations

from agent_jobs.engine.inspection import Inspection
from agent_jobs.engine.job_waiter import has_question
from agent_jobs.engine.read_again import reread_job
from agent_jobs.engine.replies import answer_calls, list_always_allowed
from agent_jobs.errors import JobNotFoundError, RequestError
from agent_jobs.jobs import transitions
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import (
    MOVED,
    JobFilter,
    Reply,
)
from agent_jobs.jobs.response import Call
from agent_jobs.rendering.questions import escape_invisible, name_tool
from agent_jobs.text import truncate

DAY_S = 86_400.0
NEWEST_SHOWN = 3  # jobs that the refusal of an unknown id names
ID_CHARS = 40  # of an unknown id that are repeated in an error
TOOL_CHARS = 80  # of an unknown tool's name that are repeated in an error
TITLE_CHARS = 30  # of each title there
CANCEL_WAIT_S = 10.0  # for which a cancel waits for upstream to confirm it


class JobControl(Inspection):
    """Changes the course of jobs. A base of `Engine`."""

    async def cancel(self, group: JobFilter) -> list[Job]:
        """Ask upstream to stop the jobs of a group, and wait a moment for the confirmation.

        Returns the jobs as upstream left them. If one is not terminal, its cancel is delivered later.
        """
        await self._check_job_ids(group)
        jobs = await self._waiter.find_jobs(group)
        for job in jobs:
            await self._request_cancel(job)
        await self._report_action("cancel", *(job for job in jobs if not job.is_terminal))
        until = self._clock.now() + CANCEL_WAIT_S
        return [await self._wait_for_cancel(job, until - self._clock.now()) for job in jobs]

    async def open_calls(self, job: Job) -> list[Call]:
        """Return the open calls of a waiting job."""
        if not has_question(job):
            return []
        calls = await self._store.get_calls(job.id, job.turn.number)
        return [call for call in calls if call.is_question]

    async def reply(self, job_id: str, reply: Reply) -> Job:
        """Answer calls of a waiting job; it continues once all are answered.

        Raises:
            RequestError: The job does not wait, or an answer fits none of its calls; nothing was changed.
        """
        job = await self._get_job(job_id)
        open_calls = {call.id: call for call in await self.open_calls(job)}
        if not open_calls:
            raise RequestError(
                "{job_id} is {status} and needs no answer.", "nothing_to_answer", job_id=job_id, status=job.status
            )
        if reply.turn not in (None, job.turn.number):
            raise _answered_meanwhile(job_id)
        answered, always = answer_calls(open_calls, reply), list_always_allowed(open_calls, reply)
        if not await self._store.record_reply(job, answered, self._clock.now(), always):
            raise _answered_meanwhile(job_id)
        self._wake_worker()
        await self._report_action("reply", job)
        return await self._get_job(job_id)

    async def ask_again(self, job_id: str, tool: str) -> Job:
        """Ask again before calls of a tool that this job always allows; calls that were allowed continue.

        Raises:
            JobNotFoundError: There is no such job.
            RequestError: The tool is not always allowed there.
        """
        job = await self._get_job(job_id)
        names = [name for name in job.always_allowed if tool in (name, escape_invisible(name_tool(name)))]
        if not names:
            raise RequestError(
                "{job_id} does not always allow {tool!r}.", "not_always_allowed", job_id=job_id, tool=tool[:TOOL_CHARS]
            )
        await self._store.transition(job_id, lambda stored: transitions.ask_again(stored, names))
        await self._report_action("ask again", job)
        return await self._get_job(job_id)

    async def wait_until_answered(self, job_id: str, call_id: str, *, wait_s: float) -> None:
        """Return once the job does not ask for this call any more, or after `wait_s`.

        Raises:
            JobNotFoundError: There is no such job.
        """
        with self._clock.limit(wait_s):
            job = await self._get_job(job_id)
            while any(call.id == call_id for call in await self.open_calls(job)):
                await self._store.wait_for_change(job.id, job.revision)
                job = await self._get_job(job_id)

    async def adopt(self, job_id: str, response_id: str) -> Job:
        """Give a job the response id that the user found at the provider, so that its result is collected after all.

        Raises:
            JobNotFoundError: There is no such job.
            RequestError: It has another response, or upstream's response of this id is missing or another job's.
        """
        job = await self._get_job(job_id)
        if job.turn.response_id is None:
            from agent_jobs.engine.adopt_response import check_response  # only `agent-jobs adopt` asks

            must_name_job = self._owner is not None
            client = await self._require_upstream().clients.find(job.owner)
            await check_response(client, job, response_id, must_name_job=must_name_job)
        elif job.turn.response_id != response_id:
            raise RequestError(
                "{job_id} already has the response {response_id}.",
                "has_response",
                job_id=job_id,
                response_id=job.turn.response_id,
            )
        await self._store.record_response_id(job_id, job.turn.number, response_id, self._clock.now())
        self._require_upstream().worker.wake()
        return await self._get_job(job_id)

    async def _request_cancel(self, job: Job) -> None:
        if job.is_terminal:
            return
        upstream = self._require_upstream()
        job = await self._store.request_cancel(job.id, self._clock.now()) or job
        is_here = job.turn.base_url == upstream.client.endpoint.base_url
        if is_here and not job.is_terminal and job.turn.response_id is not None:
            upstream.worker.cancel(job)

    async def _wait_for_cancel(self, job: Job, wait_s: float) -> Job:
        job = await reread_job(self._store, job)
        if job.is_terminal:
            return job
        return await self._waiter.watch(job, wait_s)

    async def _check_job_ids(self, group: JobFilter) -> None:
        """Raise JobNotFoundError if a job that the group names does not exist."""
        for job_id in group.job_ids:
            await self._get_job(job_id)

    async def _get_job(self, job_id: str, *, has_request: bool = True) -> Job:
        """Return the job, or raise JobNotFoundError with the known facts about its id."""
        job = await self._store.get(job_id, has_request=has_request)
        if job is not None:
            return job
        purged = await self._store.get_tombstone(job_id)
        if purged is None:
            raise await self._explain_unknown_id(job_id)
        if purged.status == MOVED:
            raise JobNotFoundError("{job_id} was moved into a PostgreSQL database.", "job_moved", job_id=job_id)
        raise JobNotFoundError(
            "{job_id} finished ({status}, {when}) and was deleted here.",
            "job_purged",
            job_id=job_id,
            status=purged.status,
            when=_name_day(round((self._clock.now() - purged.finished_at) / DAY_S)),
        )

    async def _explain_unknown_id(self, job_id: str) -> JobNotFoundError:
        """Return the error for an id that no job has or had, with the newest jobs."""
        problem, given = "There is no job {given!r}.", job_id[:ID_CHARS]
        newest = await self._store.find(JobFilter(), NEWEST_SHOWN)
        if not newest:
            return JobNotFoundError(problem, "no_jobs", given=given)
        listed = ", ".join(f"{job.id} ({truncate(job.title, TITLE_CHARS)})" for job in newest)
        return JobNotFoundError(problem, "no_such_job", given=given, newest=listed)


def _name_day(days: int) -> str:
    """Return a day of the past in words."""
    return {0: "today", 1: "a day ago"}.get(days, f"{days} days ago")


def _answered_meanwhile(job_id: str) -> RequestError:
    return RequestError("Another caller answered {job_id} meanwhile.", "nothing_to_answer", job_id=job_id)
