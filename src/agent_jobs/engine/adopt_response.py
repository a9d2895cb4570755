"""Check that a response may be attached to a job that has none, because that cannot be undone."""

import logging
from typing import TYPE_CHECKING

from agent_jobs.errors import MissingError, RequestError, UpstreamError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import JSON, mapping_of

if TYPE_CHECKING:  # a terminal that only reads jobs should not load the HTTP client
    from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

RESPONSE_ID_CHARS = 80  # of a wrong id that are repeated in an error: upstream's have up to 70
JOB_ID_CHARS = 40  # of another job's id; ids of agent-jobs have 16


async def check_response(client: "ResponsesClient", job: Job, response_id: str, *, must_name_job: bool = False) -> None:
    """Raise RequestError if upstream says that this is not the job's response.

    With `must_name_job` also if upstream does not say that it is: with a shared key it could be another owner's.
    """
    if not response_id:
        raise _describe_unknown_response(response_id)
    is_here = client.endpoint.base_url == job.turn.base_url
    retrieved: JSON = {}
    if is_here:
        retrieved = await _read_response(client, response_id)
    named = mapping_of(retrieved.get("metadata")).get("job_id")  # not all servers keep metadata
    if must_name_job and named != job.id:
        raise _describe_unknown_response(response_id)
    _check_owner(job, response_id, named or job.id)


async def _read_response(client: "ResponsesClient", response_id: str) -> JSON:
    """Return the response of this id; empty if upstream cannot be asked."""
    try:
        return (await client.retrieve(response_id)).response
    except MissingError:
        raise _describe_unknown_response(response_id) from None
    except UpstreamError as error:
        logger.info("cannot retrieve %s: %s", response_id, error)
        return {}


def _check_owner(job: Job, response_id: str, owner: object) -> None:
    if owner != job.id:
        raise RequestError(
            "{response!r} is the response of {owner!r}.",
            "response_of_another",
            response=response_id[:RESPONSE_ID_CHARS],
            owner=str(owner)[:JOB_ID_CHARS],
        )


def _describe_unknown_response(response_id: str) -> RequestError:
    shown = response_id[:RESPONSE_ID_CHARS]
    return RequestError("The provider knows no response {response!r}.", "unknown_response", response=shown)
