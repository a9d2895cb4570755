"""Make a job that sends the first request of an earlier job again."""

from uuid import uuid4

from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.response import JSON, mapping_of
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.store.values import Upload
from agent_jobs.upstream.endpoint import Endpoint

#: Precedes the digest of uploaded files in the request hash of a job.
UPLOADS_MARK = "/"


async def read_repeated(store: Store, job: Job) -> tuple[JSON, list[Upload]]:
    """Return the first request of a job, and the files that were uploaded for it.

    Raises:
        RequestError: Its uploaded files are deleted, because it finished.
    """
    uploads = await store.get_uploads(job.id)
    if UPLOADS_MARK in job.request_hash and not uploads:
        raise RequestError(
            "{job_id} cannot be repeated, since its uploaded files were deleted when it finished.",
            "uploads_deleted",
            job_id=job.id,
        )
    # The provider deletes its copies with the earlier job.
    return await store.get_first_request(job.id), [upload._replace(file_id=None) for upload in uploads]


def repeat_job(
    job: Job, request: JSON, prompt: str, *, job_id: str, client: str, owner: str, endpoint: Endpoint, now: float
) -> Job:
    """Return a new job that sends the first request of an earlier one again, without its key.

    Args:
        job: The earlier job.
        request: Of its first turn.
        prompt: What its caller asked.
        job_id: The new job's id.
        client: Who repeats it.
        owner: Whose job the new one is.
        endpoint: Where it is sent.
        now: The time.
    """
    body = {**request, "metadata": {**mapping_of(request.get("metadata")), "job_id": job_id}}
    turn = Turn(
        number=1,
        request=body,
        request_id=str(uuid4()),
        base_url=endpoint.base_url,
        fingerprint=endpoint.fingerprint,
        rebuilt=job.context == "rebuilt",
    )
    return Job(
        id=job_id,
        title=job.title,
        prompt=prompt,
        model=job.model,
        effort=job.effort,
        preset=job.preset,
        client=client,
        owner=owner,
        status=Status.PENDING,
        created_at=now,
        request_hash=job.request_hash,
        priority=job.priority,
        batch=job.batch,
        previous_job_id=job.previous_job_id,
        context=job.context,
        timeout_s=job.timeout_s,
        max_cost_usd=job.max_cost_usd,
        toolbox=job.toolbox,
        turn=turn,
    )
