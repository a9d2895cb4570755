"""Store the events and the subscriptions of owners.

A change of a job stores its event without a number. Later, one process at a time publishes the events: it numbers them
for each owner in one order. So a reader that has seen a number has also seen all lower ones.
"""

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from agent_jobs.jobs.event_feed import FeedEvent, FeedFilter, find_event, make_event, render_event
from agent_jobs.jobs.job import Job
from agent_jobs.store.database import Row, StorePart, Transaction
from agent_jobs.store.team_records import Delivery, GrantedSubscription, NewSubscription

#: Events that one publication numbers; the next one numbers the others.
PUBLISHED_AT_ONCE = 100
#: Past events that are sent to a new subscription. Older ones are skipped, and its answer says so.
REPLAYED_MAX = 100
#: Seconds after a change of the secret during which messages are also signed with the old one.
OLD_SECRET_S = 600.0
#: Seconds until a subscription of an OAuth token ends unless it is refreshed: its revocation cannot be seen here.
OAUTH_LIFETIME_S = 3600.0
_COLUMNS = "id, job_id, kind, status, error_code, batch, key, at, number"
#: Lets one process at a time publish or subscribe. SQLite has one writer anyway.
_LOCK_FEEDS = "SELECT 1 AS locked /*! FROM (SELECT pg_advisory_xact_lock(hashtextextended('feed', 0))) AS feed */"
#: An event that a reader asks for.
_MATCHES = """kind = :kind AND (:of_job = '' OR job_id = :of_job) AND (:of_batch = '' OR batch = :of_batch)"""
#: A subscription that may be sent events now: neither it nor its token has expired or was revoked.
_IS_GOOD = """subscription.expires_at > :now AND (subscription.token_id = '' OR EXISTS (
                  SELECT 1 FROM token WHERE token.id = subscription.token_id AND token.revoked_at IS NULL
                  AND (token.expires_at IS NULL OR token.expires_at > :now)))"""


class EventFeeds(StorePart):
    """`FeedRecords` on any database."""

    async def publish_events(self, now: float) -> None:
        while await self._db.fetch("SELECT 1 AS found FROM feed WHERE number IS NULL LIMIT 1"):
            await self._db.change(lambda transaction: _publish_some(transaction, now))

    async def read_feed(self, wanted: FeedFilter, after: int, up_to: int, limit: int) -> list[FeedEvent]:
        rows = await self._db.fetch(
            f"""SELECT {_COLUMNS} FROM feed WHERE {self._scope.condition("feed")} AND number > :after
                  AND number <= :up_to AND {_MATCHES} ORDER BY number LIMIT :limit""",
            after=after,
            up_to=up_to,
            limit=limit,
            **_filter_values(wanted),
            **self._scope.values,
        )
        return list(map(_read_event, rows))

    async def feed_bounds(self) -> tuple[int, int]:
        rows = await self._db.fetch(
            f"""SELECT MIN(number) AS first, MAX(number) AS last FROM feed
                WHERE {self._scope.condition("feed")} AND number IS NOT NULL""",
            **self._scope.values,
        )
        if rows[0]["last"] is None:
            return 1, 0
        return rows[0]["first"], rows[0]["last"]

    async def find_number_at(self, at: float) -> int:
        rows = await self._db.fetch(
            f"SELECT MAX(number) AS last FROM feed WHERE {self._scope.condition('feed')} AND at < :at",
            at=at,
            **self._scope.values,
        )
        return rows[0]["last"] or 0

    async def forget_events(self, before: float) -> None:
        # The newest event of an owner stays: its number must not be given again.
        await self._db.write(
            """DELETE FROM feed WHERE at < :before AND (number IS NULL OR number < (
                   SELECT MAX(number) FROM feed AS newer WHERE newer.owner = feed.owner))""",
            before=before,
        )

    async def is_verified(self, url: str, now: float) -> bool:
        return bool(
            await self._db.fetch(
                f"""SELECT 1 AS found FROM subscription
                    WHERE {self._scope.condition("subscription")} AND url = :url AND {_IS_GOOD} LIMIT 1""",
                url=url,
                now=now,
                **self._scope.values,
            )
        )

    async def save_subscription(
        self, new: NewSubscription, now: float, *, limit: int, after: int | None = None
    ) -> GrantedSubscription | None:
        owner = self._scope.owner or ""

        async def save(transaction: Transaction) -> GrantedSubscription | None:
            await transaction.execute(_LOCK_FEEDS)
            stored = await transaction.execute(
                f"""SELECT secret, old_secret, old_secret_until FROM subscription
                    WHERE id = :id AND owner = :owner AND {_IS_GOOD}""",
                id=new.id,
                owner=owner,
                now=now,
            )
            if not stored:
                if await _count_subscriptions(transaction, owner, now) >= limit:
                    return None
                await transaction.execute(
                    "DELETE FROM subscription WHERE id = :id AND owner = :owner", id=new.id, owner=owner
                )
            expires_at, token_id = await _grant_lifetime(transaction, owner, new, now)
            values = {**new._asdict(), "owner": owner, "expires_at": expires_at, "token_id": token_id}
            await _write_subscription(transaction, {**values, **_keep_old_secret(stored, new.secret, now)}, now)
            last = await _read_last_number(transaction, owner)
            is_truncated = False
            if not stored and after is not None:
                is_truncated = await _replay_events(transaction, owner, new, after, last, now)
            return GrantedSubscription(expires_at, await _read_position(transaction, new.id, last), is_truncated)

        return await self._db.change(save)

    async def delete_subscription(self, subscription_id: str) -> bool:
        deleted = await self._db.write(
            f"DELETE FROM subscription WHERE id = :id AND {self._scope.condition('subscription')} RETURNING id",
            id=subscription_id,
            **self._scope.values,
        )
        return bool(deleted)

    async def forget_subscriptions(self, now: float) -> None:
        bad = f"NOT ({_IS_GOOD})"
        if await self._db.fetch(f"SELECT 1 AS found FROM subscription WHERE {bad} LIMIT 1", now=now):
            await self._db.write(f"DELETE FROM subscription WHERE {bad}", now=now)

    async def find_delivery(self, subscription_id: str, now: float) -> Delivery | None:
        rows = await self._db.fetch(
            f"""SELECT url, secret, CASE WHEN old_secret_until > :now THEN old_secret ELSE '' END AS old_secret,
                       (SELECT MIN(number) FROM callback WHERE subscription_id = subscription.id) AS oldest
                FROM subscription WHERE id = :id AND {_IS_GOOD}""",
            id=subscription_id,
            now=now,
        )
        return next(map(_read_delivery, rows), None)


async def add_event(transaction: Transaction, old: Job, new: Job) -> None:
    """Store an event if this change of an owner's job is one."""
    found = find_event(old, new)
    if found is None:
        return
    event = make_event(f"evt_{uuid4().hex}", new, *found)
    await transaction.execute(
        """INSERT INTO feed (id, owner, job_id, kind, status, error_code, batch, key, at)
           VALUES (:id, :owner, :job_id, :kind, :status, :error_code, :batch, :key, :at)""",
        **{name: value for name, value in event._asdict().items() if name != "number"},
        owner=new.owner,
    )


async def _publish_some(transaction: Transaction, now: float) -> None:
    """Number some events, and store a message of each for every matching subscription."""
    await transaction.execute(_LOCK_FEEDS)
    rows = await transaction.execute(
        f"SELECT owner, {_COLUMNS} FROM feed WHERE number IS NULL ORDER BY at, id LIMIT {PUBLISHED_AT_ONCE}"
    )
    for row in rows:
        numbered = await transaction.execute(
            f"UPDATE feed SET number = :number WHERE id = :id RETURNING {_COLUMNS}",
            id=row["id"],
            number=await _read_last_number(transaction, row["owner"]) + 1,
        )
        await _add_messages(transaction, row["owner"], _read_event(numbered[0]), now)


async def _add_messages(
    transaction: Transaction, owner: str, event: FeedEvent, now: float, only: str | None = None
) -> None:
    """Store the messages of an event for all matching subscriptions, or for one; skip deleted jobs."""
    is_wanted = "TRUE" if only is None else "subscription.id = :only"
    await transaction.execute(
        f"""INSERT INTO callback (id, job_id, body, created_at, next_at, subscription_id, number)
            SELECT :event_id || '.' || subscription.id, :job_id, :body, :now, :now, subscription.id, :number
            FROM subscription
            WHERE owner = :owner AND kind = :kind AND (job_id = '' OR job_id = :job_id)
              AND (batch = '' OR batch = :batch) AND {_IS_GOOD} AND {is_wanted}
              AND EXISTS (SELECT 1 FROM job WHERE job.id = :job_id)
            ON CONFLICT (id) DO NOTHING""",
        event_id=event.id,
        job_id=event.job_id,
        body=json.dumps(render_event(event), separators=(",", ":")),
        now=now,
        number=event.number,
        owner=owner,
        kind=event.kind,
        batch=event.batch,
        only=only,
    )


async def _replay_events(
    transaction: Transaction, owner: str, new: NewSubscription, after: int, last: int, now: float
) -> bool:
    """Store messages of the events since a number for a new subscription; return True if some were left out."""
    rows = await transaction.execute(
        f"""SELECT {_COLUMNS} FROM feed WHERE owner = :owner AND number > :after AND number <= :last AND {_MATCHES}
            ORDER BY number DESC LIMIT {REPLAYED_MAX + 1}""",
        owner=owner,
        after=after,
        last=last,
        **_filter_values(FeedFilter(new.kind, new.job_id, new.batch)),
    )
    for row in rows[:REPLAYED_MAX]:
        await _add_messages(transaction, owner, _read_event(row), now, only=new.id)
    return len(rows) > REPLAYED_MAX


async def _count_subscriptions(transaction: Transaction, owner: str, now: float) -> int:
    rows = await transaction.execute(
        f"SELECT COUNT(*) AS n FROM subscription WHERE owner = :owner AND {_IS_GOOD}", owner=owner, now=now
    )
    return rows[0]["n"]


async def _grant_lifetime(transaction: Transaction, owner: str, new: NewSubscription, now: float) -> tuple[float, str]:
    """Return when a subscription ends, at the latest with its token, and the team token that it depends on."""
    tokens = await transaction.execute(
        "SELECT expires_at FROM token WHERE id = :id AND owner = :owner", id=new.token_id, owner=owner
    )
    if not tokens:
        return min(new.expires_at, now + OAUTH_LIFETIME_S), ""
    return min(new.expires_at, tokens[0]["expires_at"] or new.expires_at), new.token_id


def _keep_old_secret(stored: Sequence[Row], secret: str, now: float) -> dict[str, Any]:
    """Return the columns of the previous secret, which signs for a while after a change."""
    if not stored:
        return {"old_secret": "", "old_secret_until": 0.0}
    row = stored[0]
    if row["secret"] == secret:
        return {"old_secret": row["old_secret"], "old_secret_until": row["old_secret_until"]}
    return {"old_secret": row["secret"], "old_secret_until": now + OLD_SECRET_S}


async def _write_subscription(transaction: Transaction, values: dict[str, Any], now: float) -> None:
    await transaction.execute(
        """INSERT INTO subscription (id, owner, token_id, kind, job_id, batch, url, secret, old_secret,
                                     old_secret_until, created_at, expires_at)
           VALUES (:id, :owner, :token_id, :kind, :job_id, :batch, :url, :secret, :old_secret, :old_secret_until,
                   :now, :expires_at)
           ON CONFLICT (id) DO UPDATE SET token_id = excluded.token_id, secret = excluded.secret,
               old_secret = excluded.old_secret, old_secret_until = excluded.old_secret_until,
               expires_at = excluded.expires_at
           WHERE subscription.owner = excluded.owner""",
        **values,
        now=now,
    )


async def _read_last_number(transaction: Transaction, owner: str) -> int:
    rows = await transaction.execute("SELECT MAX(number) AS last FROM feed WHERE owner = :owner", owner=owner)
    return rows[0]["last"] or 0


async def _read_position(transaction: Transaction, subscription_id: str, last: int) -> int:
    """Return the number up to which all events of a subscription were delivered or abandoned."""
    rows = await transaction.execute(
        "SELECT MIN(number) AS oldest FROM callback WHERE subscription_id = :id", id=subscription_id
    )
    oldest = rows[0]["oldest"]
    if oldest is None:
        return last
    return oldest - 1


def _filter_values(wanted: FeedFilter) -> dict[str, Any]:
    return {"kind": wanted.kind, "of_job": wanted.job_id, "of_batch": wanted.batch}


def _read_event(row: Row) -> FeedEvent:
    return FeedEvent(*(row[name] for name in _COLUMNS.split(", ")))


def _read_delivery(row: Row) -> Delivery:
    secrets = tuple(secret for secret in (row["secret"], row["old_secret"]) if secret)
    return Delivery(row["url"], secrets, row["oldest"])
