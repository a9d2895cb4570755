"""Read again what is stored of a job, which another process may have changed."""

from dataclasses import replace

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import JSON
from agent_jobs.store.base import Store


async def reread_job(store: Store, job: Job) -> Job:
    """Return the job as it is stored now; as it was known if its row is gone."""
    return await store.get(job.id) or job


async def with_stored_output(store: Store, job: Job) -> Job:
    """Return the job with its newest stored output, which has the response object, too."""
    return replace(job, output=await store.get_output(job.id) or job.output)


async def read_stored_response(store: Store, job_id: str) -> JSON:
    """Return the newest response object that is stored of a job; empty if there is none."""
    output = await store.get_output(job_id)
    if output is None:
        return {}
    return output.response or {}
