"""Send callbacks when a job finished or needs input: to the address of its caller, and to subscribed addresses.

Each event is claimed by one process and stored as a message before it is sent. A message is sent until the receiver
accepts it, for a day: if its sender dies, another process sends it again with the same id.
"""

import json
import logging
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

import anyio

from agent_jobs.backoff import calculate_backoff_s, with_jitter
from agent_jobs.clock import Clock
from agent_jobs.engine.failure_log import log_failures, log_store_errors
from agent_jobs.jobs.event_feed import write_cursor
from agent_jobs.rendering.answers import drop_missing
from agent_jobs.store.base import Store
from agent_jobs.store.team_records import CallbackMessage, Delivery, PendingCallback

logger = logging.getLogger(__name__)

CHECK_S = 1.0  # between checks for events and due messages
LEASE_S = 60.0  # an attempt lasts a quarter of this at most; then another process may send the message
FIRST_RETRY_S = 5.0  # a receiver that restarts is back soon
MAX_RETRY_S = 3600.0
GIVE_UP_S = 86_400.0  # for which messages are retried: later, the result hardly matters
AT_ONCE = 8  # messages that one process sends at the same time


class Attempt(Protocol):
    """The outcome of one attempt to send a message."""

    @property
    def problem(self) -> str:
        """Return why the receiver did not accept it; empty if it did."""
        ...

    @property
    def is_final(self) -> bool:
        """Return True if the message must not be sent again."""
        ...


class Send(Protocol):
    """POSTs a body with a message's id to an address, once.

    A message of a subscription has its id and secrets, which sign it in place of the server's own.
    """

    def __call__(
        self, address: str, message_id: str, body: bytes, subscription_id: str = "", secrets: Sequence[str] = (), /
    ) -> Awaitable[Attempt]:
        """Return the outcome."""
        ...


class CallbackRunner:
    """Sends all callbacks on this database that no other process sends."""

    def __init__(self, store: Store, clock: Clock, send: Send) -> None:
        self._store = store
        self._clock = clock
        self._send = send

    async def run(self) -> None:
        """Send callbacks until cancelled."""
        while True:
            with log_failures(logger, "cannot read the callbacks: %s", "callbacks failed; they continue"):
                await self._store_events()
                await self._send_due()
            await self._clock.sleep(CHECK_S)

    async def _store_events(self) -> None:
        """Store a message for each event that no process has claimed, and those of subscriptions."""
        now = self._clock.now()
        await self._store.forget_subscriptions(now)
        await self._store.publish_events(now)
        for pending in await self._store.find_callbacks(now - GIVE_UP_S):
            await self._store.add_callback(pending, f"msg_{uuid4().hex}", write_body(pending), now)

    async def _send_due(self) -> None:
        now = self._clock.now()
        due = await self._store.claim_callbacks(now, now + LEASE_S, AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for message in due:
                tasks.start_soon(partial(self._send_once, message))

    async def _send_once(self, message: CallbackMessage) -> None:
        # If the database fails here, the message is sent again once its lease has ended.
        with log_store_errors(logger, "%s: the outcome of its callback is not stored: %s", message.job_id):
            outcome = await self._attempt_delivery(message)
            if outcome is None:  # its subscription has ended
                return await self._store.finish_callback(message.id)
            await self._store_outcome(message, outcome)

    async def _attempt_delivery(self, message: CallbackMessage) -> Attempt | None:
        """Send a message to the job's own address, or as its subscription says; None if that has ended."""
        if message.subscription_id is None:
            return await self._send(message.url, message.id, message.body.encode())
        delivery = await self._store.find_delivery(message.subscription_id, self._clock.now())
        if delivery is None:
            return None
        body = write_event_body(message, delivery)
        return await self._send(
            delivery.url, message.public_id, body.encode(), message.subscription_id, delivery.secrets
        )

    async def _store_outcome(self, message: CallbackMessage, outcome: Attempt) -> None:
        now = self._clock.now()
        if not outcome.problem:
            logger.info("%s: its callback was accepted", message.job_id)
            return await self._store.finish_callback(message.id)
        if outcome.is_final or now - message.created_at > GIVE_UP_S:
            logger.warning("%s: its callback is given up: %s", message.job_id, outcome.problem)
            await self._store.record_event(message.job_id, now, "callback", outcome.problem)
            return await self._store.finish_callback(message.id)
        logger.info("%s: its callback was not accepted: %s", message.job_id, outcome.problem)
        wait_s = with_jitter(calculate_backoff_s(message.attempts, first_s=FIRST_RETRY_S, most_s=MAX_RETRY_S))
        return await self._store.schedule_callback(message.id, now + wait_s)


def write_event_body(message: CallbackMessage, delivery: Delivery) -> str:
    """Return the body of an event with the cursor up to which every message was delivered or abandoned.

    An event's own cursor is in its body only once no earlier event is on its way: a receiver that keeps it would lose
    those if it asked for all events after it.
    """
    number = message.number or 0
    if delivery.oldest is not None and delivery.oldest < number:
        number = delivery.oldest - 1
    return json.dumps({**json.loads(message.body), "cursor": write_cursor(number)}, separators=(",", ":"))


def write_body(pending: PendingCallback) -> str:
    """Return the body of a callback: ids and the status, without prompts and answers."""
    at = datetime.fromtimestamp(pending.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    data: dict[str, Any] = {"job_id": pending.job_id, "status": pending.status}
    data |= drop_missing({"batch": pending.batch, "key": pending.key, "error": pending.error_code})
    return json.dumps({"type": pending.kind, "timestamp": at, "data": data}, separators=(",", ":"))
