"""Send a turn again with the whole conversation if upstream lacks what the turn continues from.

Some endpoints refuse the link, others accept it and fail the response. Either way nothing was answered, so the turn is
sent once more without the link.
"""

import logging
from dataclasses import replace
from math import inf
from uuid import uuid4

from agent_jobs.clock import Clock
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.errors import UpstreamError
from agent_jobs.jobs import history
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.response import JSON, Failure, Usage, has_answer, items_of, mapping_of, read_failure, string_of
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)


class Resender:
    """Rewrites turns that upstream cannot continue."""

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, finalizer: Finalizer) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._finalizer = finalizer

    async def save_or_resend(self, job: Job, *, held: bool = True) -> Job | None:
        """Store what upstream showed of a job; return None if another write won or its turn is sent again instead."""
        if held and await self.after_failure(job):
            return None
        return await self._finalizer.save_job(job, held=held)

    async def after_refusal(self, job: Job, error: UpstreamError) -> bool:
        """If upstream refused a turn because it lacks the history, rewrite the turn and return True."""
        rewritten = await self._rewrite_turn(job, error.code, error.param, str(error))
        if rewritten is None or await self._store.save(job.mark_not_sent("")) is None:
            return False
        await self._store.record_event(job.id, self._clock.now(), "rebuilt", str(error))
        return await self._store.rewrite_request(replace(job, context="rebuilt", turn=rewritten))

    async def after_failure(self, failed: Job) -> bool:
        """If a response failed because upstream lacks the history, have its turn sent again and return True."""
        again = await self.find_rewritten(failed)
        if again is None:
            return False
        response_id = failed.turn.get_response_id()
        if not await self._store.reset_for_resend(again, response_id):
            return False
        logger.info("%s: %s failed without its history; sent again", failed.id, response_id)
        await self._store.record_event(
            failed.id, self._clock.now(), "rebuilt", f"{response_id}: {failed.failure.message}"
        )
        return True

    async def find_rewritten(self, failed: Job) -> Job | None:
        """Return the job with its turn to be sent again; None for another failure, or for a second one."""
        if not _may_be_sent_again(failed):
            return None
        param = string_of(mapping_of(failed.response.get("error")).get("param"))
        answered = has_answer(items_of(failed.response.get("output")))
        rewritten = await self._rewrite_turn(
            failed, failed.failure.code, param, failed.failure.message, answered=answered
        )
        if rewritten is None:
            return None
        return await self._reset_turn(failed, replace(rewritten, rebuilt=True))

    async def after_stream_error(self, job: Job, event: JSON) -> bool:
        """Do the same for a stream that ended with an error event and without a response object."""
        reported = event.get("error") or event
        error = read_failure({"error": reported})
        param = string_of(mapping_of(reported).get("param"))
        if error is None or await self._rewrite_turn(job, error.code, param, error.message) is None:
            return False
        return await self.after_failure(await self._read_failure(job, error, param))

    async def _read_failure(self, job: Job, error: Failure, param: str) -> Job:
        """Return the job as a GET shows it, with the error of its stream; without a GET, as failed by that error."""
        now = self._clock.now()
        try:
            retrieved = await self._client.retrieve(job.turn.get_response_id())
        except UpstreamError:
            failed = job.mark_failed(error.code, error.message, now)
            return replace(failed, counted={"error": {"param": param}})
        seen = job.apply_response(retrieved.response, now)
        if seen.status is Status.FAILED:
            return replace(seen, error=error)
        return seen

    async def _rewrite_turn(
        self, job: Job, code: str, param: str, words: str, *, answered: bool = False
    ) -> Turn | None:
        """Return the turn with another request; None for another error, or if no other request is left.

        An answer that had begun shows that upstream knew the history, unless the error names the link.
        """
        body, turn = job.turn.request, job.turn
        if history.is_reasoning_unreadable(code, param):
            kept = history.without_reasoning(body)
            if kept == body:
                return None
            return replace(turn, request=kept)
        if turn.rebuilt or not history.is_context_lost(body, code, param, "" if answered else words, named_in=words):
            return None
        exchanges = await self._store.get_exchanges(job.id, before_turn=turn.number)
        if not exchanges:
            return None
        return replace(turn, request=history.continue_request(body, {}, exchanges), rebuilt=True)

    async def _reset_turn(self, failed: Job, rewritten: Turn) -> Job | None:
        """Return the job with its turn not yet sent; None if the failed response used up the job's cost limit."""
        turn = Turn(
            number=rewritten.number,
            request=rewritten.request,
            request_id=str(uuid4()),
            base_url=rewritten.base_url,
            fingerprint=rewritten.fingerprint,
            mode=rewritten.mode,
            rebuilt=rewritten.rebuilt,
        )
        again = replace(
            failed,
            turn=turn,
            status=Status.PENDING if turn.number == 1 else Status.IN_PROGRESS,
            context="rebuilt",
            usage=failed.usage_before,
            cost_usd=failed.cost_before_usd,
        )
        used = Usage.of(failed.response.get("usage"))
        if used is None or (used == Usage() and not used.partial):
            return again
        return await self._charge_failed_response(failed, again)

    async def _charge_failed_response(self, failed: Job, again: Job) -> Job | None:
        """Return the job with the cost of the failed response; None if that is unknown or over the cost limit."""
        priced = await self._finalizer.prepare_end(failed)
        turn_usd, limit_usd = priced.turn_cost_usd, failed.cost_limit_usd
        if turn_usd is None and limit_usd < inf:
            return None
        reserved_usd = failed.reserved_usd
        if reserved_usd is not None and turn_usd is not None:
            reserved_usd += turn_usd
            if reserved_usd > limit_usd:
                return None
        return replace(
            again,
            usage=failed.usage,
            usage_before=failed.usage,
            cost_usd=priced.cost_usd,
            cost_before_usd=priced.cost_usd,
            reserved_usd=reserved_usd,
        )


def _may_be_sent_again(failed: Job) -> bool:
    """Return True if the job failed upstream, has no cancel request, and was not sent again before."""
    if failed.turn.rebuilt:
        return False  # it may have been accepted twice already
    is_failed_response = failed.status is Status.FAILED and failed.turn.response_id is not None
    return is_failed_response and not failed.is_stopping
