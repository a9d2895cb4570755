"""Retrieve a job's response with a GET and apply the answer to the job."""

import logging
from dataclasses import replace
from typing import NamedTuple

from agent_jobs.clock import Clock
from agent_jobs.errors import AccountError, MissingError, UpstreamError
from agent_jobs.jobs.job import CANNOT_POLL, Job
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

#: The longest pause between GETs that upstream may ask for: a result could be deleted before a later one.
MAX_ASKED_WAIT_S = 120.0
#: Code of an answer that is no response object. It may be the page of a gateway that is out of order for a while.
NO_API_CODE = "not_a_responses_api"
NO_SUCH_PATH = (404, 405, 501)  # statuses of servers that do not serve GETs of responses


class RetrieveOutcome(NamedTuple):
    """A job after a GET of its response, with what else the GET showed."""

    job: Job | None  #: None if only another key can retrieve the response
    not_before_s: float = 0.0  #: upstream asks to wait this long before the next GET
    error: UpstreamError | None = None  #: why there is no response object


async def retrieve(client: ResponsesClient, clock: Clock, job: Job) -> RetrieveOutcome:
    """GET a job's response and apply the answer. A failed GET ends the job only if the response is gone."""
    asked_at = clock.now()
    try:
        retrieved = await client.retrieve(job.turn.get_response_id())
    except UpstreamError as error:
        return _apply_failed_get(client, job, error, asked_at)
    seen = _with_actual_mode(job.apply_response(retrieved.response, clock.now()))
    return RetrieveOutcome(seen, _limit_asked_wait(retrieved.poll_after_s))


def is_not_served(error: UpstreamError) -> bool:
    """Return True if upstream answers that it has no such response, or no such path."""
    if isinstance(error, MissingError) or error.code == NO_API_CODE:
        return True
    return error.status in NO_SUCH_PATH


def _apply_failed_get(client: ResponsesClient, job: Job, error: UpstreamError, now: float) -> RetrieveOutcome:
    """Return the job after a GET that brought no response object."""
    if isinstance(error, (MissingError, AccountError)):
        if job.turn.fingerprint not in ("", client.endpoint.fingerprint):
            return RetrieveOutcome(None, error=error)  # a process with the other key can retrieve it
        return RetrieveOutcome(_mark_failed_get(job, error, now), error=error)
    if error.code == NO_API_CODE:
        logger.warning("%s: %s", job.id, error)
    return RetrieveOutcome(_mark_failed_get(job, error, now), _limit_asked_wait(error.retry_after_s), error)


def _mark_failed_get(job: Job, error: UpstreamError, now: float) -> Job:
    is_lost = job.turn.mode == "foreground" and is_not_served(error) and not isinstance(error, AccountError)
    if isinstance(error, MissingError) or is_lost:
        return job.mark_not_found(now, is_doubtful=error.code == NO_API_CODE)
    return job.mark_unreachable(f"{CANNOT_POLL}{error}", now)


def _limit_asked_wait(asked_s: float | None) -> float:
    return min(asked_s or 0.0, MAX_ASKED_WAIT_S)


def _with_actual_mode(seen: Job) -> Job:
    """Return a job that a GET shows running: without a process on its connection, it runs in the background."""
    if not seen.is_held_open or seen.turn.has_open_calls:
        return seen
    return replace(seen, turn=replace(seen.turn, mode="background"))
