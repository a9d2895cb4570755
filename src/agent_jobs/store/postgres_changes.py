"""Wait for changes on PostgreSQL: a connection that listens, and a check every second in case a message is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from agent_jobs.errors import StoreError
from agent_jobs.store.change_signals import ChangeSignals
from agent_jobs.store.database import Row
from agent_jobs.store.known_state import KnownState
from agent_jobs.store.owner_scope import OwnerScope, select_state
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.postgres_errors import ANY_ERROR, PASSING, name_cause
from agent_jobs.store.postgres_heartbeat import SESSION_LOCK
from agent_jobs.store.values import Mark

logger = logging.getLogger(__name__)

CHANNEL = "agent_jobs"
#: Seconds between two checks of all waiters, which limits the cost of a lost message.
LOOK_S = 1.0
#: Least seconds between two messages: a burst of changes becomes one.
NOTIFY_EVERY_S = 0.02
#: Bytes of a message; PostgreSQL refuses 8000.
NOTIFY_BYTES = 7500
#: Seconds between two attempts to listen again.
RECONNECT_S = 0.5
#: Seconds for a new connection, and for a sign of life of the one that listens.
ANSWER_LIMIT_S = 5.0
#: Seconds for a message of a process to itself, which usually needs milliseconds.
ECHO_LIMIT_S = 2.0
#: The sender of such a message.
_ECHO = "echo"
#: Stands in place of the ids of jobs with progress alone.
_PROGRESS = "progress"
#: Of a job that does not exist.
_NO_STATE = (-1, "")
#: Counts transactions that wrote: it moves with every change by anybody.
_LAST_CHANGE = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS last"

_Fetch = Callable[..., Awaitable[Sequence[Row]]]


class PostgresChanges:
    """Wakes the waiters of this process, and notifies the other processes of changes.

    Args:
        me: The name of this process.
        address: Of the database.
        fetch: Runs one statement, over a connection of the pool.
    """

    def __init__(self, me: str, address: PostgresAddress, fetch: _Fetch) -> None:
        self._me = me
        self._address = address
        self._fetch = fetch
        self._signals = ChangeSignals()
        self._waits: Counter[KnownState] = Counter()
        self._outbox: dict[str, None] = {}
        self._has_outgoing = asyncio.Event()
        self._has_echo = asyncio.Event()
        self._listening: asyncpg.Connection[asyncpg.Record] | None = None

    def announce(self, job_ids: Iterable[str], *, is_progress: bool = False) -> None:
        """Wake the waiters of these jobs, here at once and in other processes soon.

        In other processes, progress wakes the waiters of any job alone; those of one job see it within a second.
        """
        listed = list(job_ids)
        self._signals.announce_changes(listed, is_progress=is_progress)
        if is_progress:
            listed = [_PROGRESS]
        self._outbox.update(dict.fromkeys(listed))
        self._has_outgoing.set()

    async def wait_for_change(self, known: KnownState, scope: OwnerScope) -> None:
        """Return once the job differs from the state that a waiter knows. The wait holds no connection."""
        self._waits[known] += 1
        try:
            while True:
                event = self._signals.event_of(known)
                if await self._has_changed(known, scope):
                    return
                await event.wait()
        finally:
            self._waits[known] -= 1
            if not self._waits[known]:
                del self._waits[known]

    async def _has_changed(self, known: KnownState, scope: OwnerScope) -> bool:
        """Return True if the job differs from the state that a waiter knows; while PostgreSQL restarts, wait for it."""
        while True:
            try:
                rows = await self._fetch(select_state(scope), id=known.job_id, **scope.values)
            except StoreError as error:
                if error.code not in PASSING:
                    raise
                await asyncio.sleep(RECONNECT_S)
            else:
                return not rows or known.differs_from(rows[0]["revision"], rows[0]["status"])

    def mark(self) -> Mark:
        """Return the number of changes that this process knows of."""
        return self._signals.count, 0

    async def wait_for_any_change(self, mark: Mark) -> None:
        """Return once any job changed since this mark."""
        while mark == self.mark():
            await self._signals.event_of_any().wait()

    async def keep_notifying(self) -> None:
        """Send changes to the other processes until cancelled."""
        while True:
            await self._has_outgoing.wait()
            await asyncio.sleep(NOTIFY_EVERY_S)
            with suppress(StoreError):  # the other processes look by themselves
                await self.send_outgoing()

    async def send_outgoing(self) -> None:
        """Send what changed up to now."""
        self._has_outgoing.clear()
        ids, self._outbox = list(self._outbox), {}
        for message in _pack_ids(self._me, ids):
            await self._fetch("SELECT pg_notify(:channel, :message)", channel=CHANNEL, message=message)

    async def keep_listening(self) -> None:
        """Listen to the other processes until cancelled; connect again when the connection is lost."""
        while True:
            try:
                await self._listen_until_lost()
            except ANY_ERROR as error:
                logger.warning("cannot listen to PostgreSQL; changes are seen within a second: %s", name_cause(error))
            await asyncio.sleep(RECONNECT_S)

    async def keep_looking(self) -> None:
        """Compare all waiters with the database every second, until cancelled."""
        last_change = ""
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(StoreError):
                await self._look_at_waited()
                if self._listening is None:
                    last_change = await self._look_at_any(last_change)

    async def listen(self) -> None:
        """Connect, listen, and take the lock that shows that this session lives."""
        connection = await asyncpg.connect(**self._address.listen_arguments, timeout=ANSWER_LIMIT_S)
        try:
            await connection.execute(
                f"SELECT pg_advisory_lock_shared({SESSION_LOCK}) FROM (SELECT $1::text AS name) AS me", self._me
            )
            await connection.add_listener(CHANNEL, self._receive_message)
        except BaseException:
            connection.terminate()
            raise
        self._listening = connection
        self._signals.announce_changes(self._list_waited_ids())  # what changed before this was announced to no listener

    async def measure_message_s(self) -> float | None:
        """Return the seconds that a message takes from a process to its listener; None if none arrives."""
        self._has_echo.clear()
        began = asyncio.get_running_loop().time()
        await self._fetch("SELECT pg_notify(:channel, :message)", channel=CHANNEL, message=f"{_ECHO} {self._me}")
        try:
            async with asyncio.timeout(ECHO_LIMIT_S):
                await self._has_echo.wait()
        except TimeoutError:
            return None
        return asyncio.get_running_loop().time() - began

    async def close(self) -> None:
        """Send the remaining changes, and stop listening."""
        with suppress(StoreError):
            await self.send_outgoing()
        if self._listening is not None:
            self._listening.terminate()

    async def _listen_until_lost(self) -> None:
        if self._listening is None:
            await self.listen()
        connection = self._listening
        assert connection is not None
        try:
            while not connection.is_closed():
                await asyncio.sleep(LOOK_S)
                # A cut link causes no event.
                await connection.execute("SELECT 1", timeout=ANSWER_LIMIT_S)
        finally:
            self._listening = None
            connection.terminate()

    def _receive_message(self, connection: Any, process: int, channel: str, message: object) -> None:
        sender, *ids = str(message).split(" ")
        if sender == _ECHO:
            if ids == [self._me]:
                self._has_echo.set()
        elif sender != self._me:
            self._signals.announce_changes(ids)

    async def _look_at_waited(self) -> None:
        """Wake the waiters whose jobs are no more as they know them."""
        waits = list(self._waits)
        if not waits:
            return
        rows = await self._fetch(
            "SELECT id, revision, status FROM job WHERE id IN (:*ids)", ids=self._list_waited_ids()
        )
        states: dict[str, tuple[int, str]] = {row["id"]: (row["revision"], row["status"]) for row in rows}
        changed = {known.job_id for known in waits if known.differs_from(*states.get(known.job_id, _NO_STATE))}
        if changed:
            self._signals.announce_changes(changed)

    async def _look_at_any(self, last_change: str) -> str:
        """Wake those who wait for any change if one was made since this one; return the last one."""
        last: str = (await self._fetch(_LAST_CHANGE))[0]["last"]
        if last != last_change:
            self._signals.announce_changes(())
        return last

    def _list_waited_ids(self) -> list[str]:
        return list({known.job_id for known in self._waits})


def _pack_ids(sender: str, ids: Sequence[str]) -> Iterator[str]:
    """Yield messages with these ids, as few as their limit allows."""
    message = sender
    for job_id in ids:
        if len(message.encode()) + len(job_id.encode()) + 1 > NOTIFY_BYTES:
            yield message
            message = sender
        message += f" {job_id}"
    if message != sender:
        yield message
