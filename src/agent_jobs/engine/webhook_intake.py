"""Take in the provider's webhooks. Each one is a hint: a GET decides what happened.

A webhook can name a response that no job here has: the create call has not answered yet, it never will, or the
response belongs to another program with the same key. The response's own metadata tell these apart.
"""

import logging
from collections.abc import Callable

from agent_jobs.backoff import calculate_backoff_s
from agent_jobs.clock import Clock
from agent_jobs.engine.failure_log import log_failures
from agent_jobs.errors import MissingError, UpstreamError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import mapping_of
from agent_jobs.store.base import Store
from agent_jobs.store.team_records import UnknownWebhook, Webhook
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

CHECK_S = 1.0  # between checks for webhooks whose job is not known
FIRST_RETRY_S = 2.0  # most creates that are under way are answered by then
MAX_RETRY_S = 60.0
MAX_ATTEMPTS = 20  # over a quarter of an hour, which is longer than a create call is waited for
LOOK_UP_LEASE_S = 60.0  # a GET is done by then; after that another process may try
KEPT_S = 4 * 86_400.0  # the provider repeats a webhook for up to three days
PURGE_EVERY_S = 3600.0


class WebhookIntake:
    """Stores the webhooks of one endpoint, and finds the jobs of those that name an unknown response.

    Args:
        store: The jobs.
        client: The endpoint that sends the webhooks.
        clock: The time.
        wake: Has the worker read the due times now.
    """

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, wake: Callable[[], None]) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._wake = wake
        self._purged_at = float("-inf")

    async def accept(self, message_id: str, response_id: str, kind: str) -> str | None:
        """Store a webhook and have its job retrieved.

        Returns the job's id; empty if it is not known yet; None if the webhook was received before.

        Raises:
            StoreError: It was not stored, so the provider has to send it again.
        """
        webhook = Webhook(message_id, self._client.endpoint.base_url, response_id, kind)
        job_id = await self._store.record_webhook(webhook, self._clock.now())
        if job_id:
            self._wake()
        return job_id

    async def run(self) -> None:
        """Find the jobs of unknown responses until cancelled."""
        while True:
            with log_failures(logger, "cannot read the webhooks: %s", "the look-up of webhooks failed; it continues"):
                await self._look_up_unknown()
                await self._purge_old()
            await self._clock.sleep(CHECK_S)

    async def _look_up_unknown(self) -> None:
        now = self._clock.now()
        base_url = self._client.endpoint.base_url
        for webhook in await self._store.claim_unknown_webhooks(base_url, now, now + LOOK_UP_LEASE_S):
            await self._look_up_response(webhook)

    async def _look_up_response(self, webhook: UnknownWebhook) -> None:
        """Find the job of a response by the metadata that it was created with."""
        try:
            retrieved = await self._client.retrieve(webhook.response_id)
        except MissingError:
            return await self._store.resolve_webhook(webhook.id, "")
        except UpstreamError as error:
            logger.info("cannot retrieve %s, which a webhook names: %s", webhook.response_id, error)
            return await self._retry_later(webhook)
        job_id = mapping_of(retrieved.response.get("metadata")).get("job_id")
        job = await self._find_job(job_id)
        if job is None:
            return await self._store.resolve_webhook(webhook.id, "")
        if not await self._adopt(job, webhook.response_id):
            return await self._retry_later(webhook)
        await self._store.resolve_webhook(webhook.id, job.id)
        return self._wake()

    async def _find_job(self, job_id: object) -> Job | None:
        """Return the job of this id, if its responses are at this endpoint."""
        if not isinstance(job_id, str):
            return None
        job = await self._store.get(job_id)
        if job is None or job.turn.base_url != self._client.endpoint.base_url:
            return None
        return job

    async def _adopt(self, job: Job, response_id: str) -> bool:
        """Give its response to a job whose start is unconfirmed; False while its create call may still answer."""
        if job.turn.response_id is not None or await self._was_replaced(job, response_id):
            return True
        if not job.can_be_reopened:
            return job.is_terminal
        now = self._clock.now()
        await self._store.record_response_id(job.id, job.turn.number, response_id, now)
        await self._store.record_event(job.id, now, "adopted", f"a webhook named its response {response_id}")
        logger.info("%s: has response %s, as a webhook says", job.id, response_id)
        return True

    async def _was_replaced(self, job: Job, response_id: str) -> bool:
        """Return True if this response failed before, and its turn was sent again."""
        events = await self._store.get_events(job.id)
        return any(event.text.startswith(f"{response_id}:") for event in events)

    async def _retry_later(self, webhook: UnknownWebhook) -> None:
        if webhook.attempts >= MAX_ATTEMPTS:
            return await self._store.resolve_webhook(webhook.id, "")
        wait_s = calculate_backoff_s(webhook.attempts, first_s=FIRST_RETRY_S, most_s=MAX_RETRY_S)
        return await self._store.schedule_webhook(webhook.id, self._clock.now() + wait_s)

    async def _purge_old(self) -> None:
        now = self._clock.now()
        if now - self._purged_at > PURGE_EVERY_S:
            self._purged_at = now
            await self._store.forget_webhooks(now - KEPT_S)
