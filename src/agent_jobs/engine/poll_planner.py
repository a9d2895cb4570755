"""Plan when a running job is polled next: soon, or seldom while the provider's webhooks say when it ended."""

from agent_jobs.backoff import with_jitter
from agent_jobs.clock import Clock
from agent_jobs.engine.run_limits import RunLimits
from agent_jobs.engine.step_result import RunAgain
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import next_far_retrieve_s, next_retrieve_s
from agent_jobs.store.base import Store

WEBHOOKS_LIVE_S = 3600.0  # an endpoint that sent a webhook within the hour will send the next one


class PollPlanner:
    """Plans the next poll of each job."""

    def __init__(self, store: Store, clock: Clock, limits: RunLimits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits

    async def plan(self, job: Job, not_before_s: float = 0.0) -> RunAgain:
        """Return when to poll a job; upstream asked for no poll before `not_before_s`.

        If a webhook will report its end, waiting callers do not have it polled earlier either.
        """
        now = self._clock.now()
        if await self._is_webhook_coming(job, now):
            left_s = -job.overdue_s(now, self._limits.job_timeout_s)
            far_s = max(not_before_s, min(next_far_retrieve_s(job), max(1.0, left_s)))
            return RunAgain(far_s, far_s)
        return RunAgain(with_jitter(next_retrieve_s(job, now)), not_before_s)

    async def _is_webhook_coming(self, job: Job, now: float) -> bool:
        """Return True if webhooks of the job's endpoint arrive, and none has arrived for its response yet."""
        if not self._limits.expects_webhooks or not job.can_be_retrieved or job.is_stopping:
            return False
        return await self._store.expects_webhook(job.turn.base_url, job.turn.get_response_id(), now - WEBHOOKS_LIVE_S)
