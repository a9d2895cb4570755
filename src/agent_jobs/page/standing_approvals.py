"""Approve further calls of tools that the user always allows in a job, while this process runs."""

import logging
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter, Reply

logger = logging.getLogger(__name__)

#: Seconds between two checks of a job that changes often.
CHECK_S = 0.5


class StandingApprovals:
    """Remembers which tools the user always allows in which job, and approves their calls.

    Args:
        tasks: Runs one task for each of these jobs, until it ends.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._allowed: dict[str, set[str]] = {}  #: by job: the names of its tools

    def allow(self, engine: Engine, job_id: str, tool: str) -> None:
        """Approve all further calls of a tool by this job."""
        is_new = job_id not in self._allowed
        self._allowed.setdefault(job_id, set()).add(tool)
        if is_new:
            self._tasks.start_soon(self._approve_calls, engine, job_id)

    def list_tools(self, job_id: str) -> list[str]:
        """Return the names of the tools that this job may always call."""
        return sorted(self._allowed.get(job_id, ()))

    async def _approve_calls(self, engine: Engine, job_id: str) -> None:
        """Approve a job's calls until it has ended, or was deleted."""
        try:
            while True:
                mark = await engine.change_mark()
                found = await engine.find_newest(JobFilter(job_ids=(job_id,)), 1)
                if not found or found[0].is_terminal:
                    return
                await self._approve_open_calls(engine, found[0])
                await anyio.sleep(CHECK_S)
                await engine.wait_for_any_change(mark)
        except AgentJobsError as error:  # the job then waits for its user
            logger.warning("calls of %s are not approved any more: %s", job_id, error)
        finally:
            self._allowed.pop(job_id, None)

    async def _approve_open_calls(self, engine: Engine, job: Job) -> None:
        allowed = self._allowed[job.id]
        calls = await engine.open_calls(job)
        approve = tuple(call.id for call in calls if call.needs == "approval" and call.name in allowed)
        if not approve:
            return
        with suppress(RequestError):  # another caller answered it in the meantime
            await engine.reply(job.id, Reply(approve=approve, turn=job.turn.number))
