"""Serve the events of an owner's jobs to hosts: by polls with a cursor, or by webhooks to a verified address."""

from hashlib import sha256
from json import dumps
from typing import Protocol

from agent_jobs.callback_urls import RefusedUrlError
from agent_jobs.clock import Clock
from agent_jobs.engine.metrics import CHALLENGES_A_MINUTE, ChallengeLimit
from agent_jobs.jobs.event_feed import (
    MAX_LIFETIME_S,
    FeedError,
    FeedFilter,
    FeedPage,
    Subscribed,
    Subscription,
    read_cursor,
    write_cursor,
)
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.store.base import Store
from agent_jobs.store.team_records import NewSubscription

MAX_SUBSCRIPTIONS = 100  # per owner; a host makes one for each job or batch that its user watches
MIN_LIFETIME_S = 300.0  # shorter ones would be refreshed all the time
ID_CHARS = 32


class CallbackTarget(Protocol):
    """Checks and calls the addresses to which events are sent."""

    def check_url(self, url: str) -> None:
        """Raise RefusedUrlError for an address that may not be called."""
        ...

    def is_secret(self, text: str) -> bool:
        """Return True if a text is a secret that can sign messages."""
        ...

    async def challenge(self, url: str, subscription_id: str, secret: str) -> str:
        """Send a challenge to a receiver; return why the receiver is not verified, empty if it is.

        Raises:
            RefusedUrlError: Its host name resolves to an address that may not be called.
        """
        ...


class EventFeed:
    """Serves the events of one owner.

    Args:
        store: Bound to the owner.
        owner: The owner's name.
        clock: The time.
        target: Sends to addresses; None if the operator allows none.
        challenges: Limits the challenges that are sent for an owner.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        clock: Clock,
        target: CallbackTarget | None,
        challenges: ChallengeLimit,
    ) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._target = target
        self._challenges = challenges

    @property
    def can_send(self) -> bool:
        """Return True if events can be sent to addresses."""
        return self._target is not None

    async def poll(
        self, wanted: FeedFilter, cursor: str | None, *, max_age_s: float | None = None, limit: int
    ) -> FeedPage:
        """Return the events after a cursor; without a cursor, the current one and no events.

        Raises:
            FeedError: There is no such job or batch, or the cursor is not from this server.
        """
        await self._check_filter(wanted)
        await self._store.publish_events(self._clock.now())
        first, last = await self._store.feed_bounds()
        if cursor is None:
            return FeedPage([], write_cursor(last), is_truncated=False, has_more=False)
        after, is_truncated = await self._find_position(cursor, max_age_s, first, last)
        events = await self._store.read_feed(wanted, after, last, limit + 1)
        has_more = len(events) > limit
        if has_more:
            events = events[:limit]
            last = events[-1].number
        return FeedPage(events, write_cursor(last), is_truncated, has_more)

    async def subscribe(self, asked: Subscription, token_id: str) -> Subscribed:
        """Subscribe an address to events, or refresh its subscription.

        The receiver must answer a challenge first, unless another subscription of the owner has its address.

        Raises:
            FeedError: The operator allows no addresses or not this one, the receiver does not want events or cannot be
                reached, the owner has too many subscriptions or challenges, or as `poll`.
        """
        if self._target is None:
            raise FeedError(
                "unsupported", "This server sends no events. Poll them.", feature="deliveryMode", value="webhook"
            )
        if not self._target.is_secret(asked.secret):
            raise FeedError("invalid", "delivery.secret is whsec_ and the base64 of 24 to 64 bytes.")
        await self._check_filter(asked.wanted)
        subscription_id = self.name_subscription(asked.wanted, asked.url)
        await self._store.publish_events(self._clock.now())
        first, last = await self._store.feed_bounds()
        after, is_truncated = None, False
        if asked.cursor is not None:
            after, is_truncated = await self._find_position(asked.cursor, asked.max_age_s, first, last)
        await self._verify_receiver(self._target, asked, subscription_id)
        now = self._clock.now()
        expires_at = now + min(max(asked.lifetime_s, MIN_LIFETIME_S), MAX_LIFETIME_S)
        new = NewSubscription(subscription_id, token_id, *asked.wanted, asked.url, asked.secret, expires_at)
        granted = await self._store.save_subscription(new, now, limit=MAX_SUBSCRIPTIONS, after=after)
        if granted is None:
            raise _refuse_more("subscriptions", MAX_SUBSCRIPTIONS)
        return Subscribed(
            subscription_id,
            write_cursor(granted.number),
            granted.expires_at,
            is_truncated or granted.is_truncated,
        )

    async def unsubscribe(self, wanted: FeedFilter, url: str) -> None:
        """Delete a subscription.

        Raises:
            FeedError: There is no such subscription.
        """
        if not await self._store.delete_subscription(self.name_subscription(wanted, url)):
            raise _report_missing("subscription")

    def name_subscription(self, wanted: FeedFilter, url: str) -> str:
        """Return the id of a subscription of this owner, which does not reveal its address."""
        parts = [self._owner, url, *wanted]
        return f"sub_{sha256(dumps(parts).encode()).hexdigest()[:ID_CHARS]}"

    async def _check_filter(self, wanted: FeedFilter) -> None:
        for noun, name, group in (
            ("job", wanted.job_id, JobFilter(job_ids=(wanted.job_id,))),
            ("batch", wanted.batch, JobFilter(batch=wanted.batch)),
        ):
            if name and not await self._store.find(group, 1):
                raise _report_missing(noun)

    async def _find_position(self, cursor: str, max_age_s: float | None, first: int, last: int) -> tuple[int, bool]:
        """Return the number after which to read events, and True if events after the cursor are skipped."""
        after = read_cursor(cursor)
        if after is None:
            raise FeedError("invalid", "The cursor is not from this server. Begin without one.")
        if after > last:
            return last, True  # the cursor is from another database
        start = max(after, first - 1)
        if max_age_s is not None:
            start = max(start, await self._store.find_number_at(self._clock.now() - max_age_s))
        return start, start > after

    async def _verify_receiver(self, target: CallbackTarget, asked: Subscription, subscription_id: str) -> None:
        try:
            target.check_url(asked.url)
            if await self._store.is_verified(asked.url, self._clock.now()):
                return
            if not self._challenges.admit(self._owner, self._clock.now()):
                raise _refuse_more("challenges a minute", CHALLENGES_A_MINUTE)
            reason = await target.challenge(asked.url, subscription_id, asked.secret)
        except RefusedUrlError as refused:
            raise FeedError("invalid", f"delivery.url cannot be used: {refused}.") from None
        if reason:
            raise FeedError("unverified", f"The receiver at delivery.url is not verified ({reason}).", reason=reason)


def _report_missing(kind: str) -> FeedError:
    return FeedError("not_found", f"There is no such {kind}.", kind=kind)


def _refuse_more(limit: str, most: int) -> FeedError:
    return FeedError("exhausted", f"This owner has reached the limit of {most} {limit}.", limit=limit, max=most)
