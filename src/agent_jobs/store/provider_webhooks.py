"""Store the provider's webhooks. Each one makes its job due, and the next GET shows its state."""

from agent_jobs.jobs.status import Status
from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.rows import format_statuses
from agent_jobs.store.team_records import UnknownWebhook, Webhook

#: Webhooks of unknown jobs that one call claims. Each of them costs a GET.
CLAIMED_AT_ONCE = 20
#: Seconds until a webhook of an unknown job is looked up: most creates are answered by then.
FIRST_ATTEMPT_S = 1.0
#: A response is awaited in these statuses.
_AWAITED_SQL = format_statuses({Status.QUEUED, Status.IN_PROGRESS})
#: The turn whose response a webhook names.
_ITS_TURN = "response_id = :response_id AND base_url = :base_url"
#: Makes a job due. During a step it has no due time: then the end of the step sees the hint.
_PULL = f"""UPDATE job SET hinted = TRUE, not_before = 0,
                   next_at = CASE WHEN next_at IS NULL OR next_at < :now THEN next_at ELSE :now END
            WHERE status IN {_AWAITED_SQL} AND id = :id AND EXISTS (
                SELECT 1 FROM turn WHERE job_id = job.id AND number = job.turn AND NOT acting
                AND {_ITS_TURN})"""
#: Notes whose response a webhook names.
_RESOLVE = "UPDATE webhook SET job_id = :job_id, next_at = NULL WHERE id = :id"


class ProviderWebhooks(StorePart):
    """`WebhookRecords` on any database."""

    async def record_webhook(self, webhook: Webhook, now: float) -> str | None:
        async def record(transaction: Transaction) -> str | None:
            inserted = await transaction.execute(
                """INSERT INTO webhook (id, base_url, response_id, kind, received_at, next_at)
                   VALUES (:id, :base_url, :response_id, :kind, :now, :next_at)
                   ON CONFLICT (id) DO NOTHING RETURNING id""",
                **webhook._asdict(),
                now=now,
                next_at=now + FIRST_ATTEMPT_S,
            )
            if not inserted:
                return None
            return await _match_webhook(transaction, webhook, now)

        return await self._db.change(record)

    async def claim_unknown_webhooks(self, base_url: str, now: float, again_at: float) -> list[UnknownWebhook]:
        due = await self._db.fetch(
            "SELECT id, response_id, kind FROM webhook WHERE next_at <= :now AND base_url = :base_url LIMIT :limit",
            now=now,
            base_url=base_url,
            limit=CLAIMED_AT_ONCE,
        )
        claimed = [await self._claim_or_match(Webhook(base_url=base_url, **row), now, again_at) for row in due]
        return [webhook for webhook in claimed if webhook is not None]

    async def schedule_webhook(self, webhook_id: str, at: float) -> None:
        await self._db.write("UPDATE webhook SET next_at = :at WHERE id = :id AND job_id IS NULL", id=webhook_id, at=at)

    async def resolve_webhook(self, webhook_id: str, job_id: str) -> None:
        await self._db.write(_RESOLVE, id=webhook_id, job_id=job_id)

    async def expects_webhook(self, base_url: str, response_id: str, since: float) -> bool:
        rows = await self._db.read(
            """SELECT 1 AS found WHERE EXISTS (
                   SELECT 1 FROM webhook WHERE base_url = :base_url AND received_at > :since)
               AND NOT EXISTS (SELECT 1 FROM webhook WHERE response_id = :response_id)""",
            base_url=base_url,
            response_id=response_id,
            since=since,
        )
        return bool(rows)

    async def last_webhook_at(self, base_url: str) -> float | None:
        rows = await self._db.read(
            "SELECT MAX(received_at) AS at FROM webhook WHERE base_url = :base_url", base_url=base_url
        )
        return rows[0]["at"]

    async def forget_webhooks(self, before: float) -> None:
        await self._db.write("DELETE FROM webhook WHERE received_at < :before", before=before)

    async def _claim_or_match(self, webhook: Webhook, now: float, again_at: float) -> UnknownWebhook | None:
        """Claim a webhook for one attempt; None if its job is known, or another process has claimed it."""

        async def claim(transaction: Transaction) -> UnknownWebhook | None:
            claimed = await transaction.execute(
                """UPDATE webhook SET attempts = attempts + 1, next_at = :again_at
                   WHERE id = :id AND next_at <= :now RETURNING attempts""",
                id=webhook.id,
                now=now,
                again_at=again_at,
            )
            if not claimed or await _match_webhook(transaction, webhook, now):
                return None
            return UnknownWebhook(webhook.id, webhook.response_id, claimed[0]["attempts"])

        return await self._db.change(claim)


async def _match_webhook(transaction: Transaction, webhook: Webhook, now: float) -> str:
    """Have the job that has the response retrieved now; return its id, empty if there is none."""
    named = {"response_id": webhook.response_id, "base_url": webhook.base_url}
    turns = await transaction.execute(f"SELECT job_id FROM turn WHERE {_ITS_TURN}", **named)
    for turn in turns:
        await transaction.execute(_PULL, id=turn["job_id"], now=now, **named)
        await transaction.execute(_RESOLVE, id=webhook.id, job_id=turn["job_id"])
        return turn["job_id"]
    return ""
