"""Show which processes are alive: each writes the database's time into its row every second."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from agent_jobs.errors import StoreError
from agent_jobs.jobs.queries import ReplicaInfo
from agent_jobs.store.database import Row
from agent_jobs.store.postgres_address import APPLICATION

logger = logging.getLogger(__name__)

#: Seconds between two beats of a process.
BEAT_S = 1.0
#: A silent process is dead after this, even with open connections: a cut link leaves them open for hours.
DEAD_AFTER_S = 10.0
#: A silent process without a session is dead after this. It is longer than one beat plus a new connection.
DEAD_WITHOUT_SESSION_AFTER_S = 2.0
#: Rows of processes that died without a trace are deleted after this.
FORGET_AFTER_S = 86_400.0

#: The advisory lock of the session of the process in a row.
SESSION_LOCK = "hashtextextended('agent-jobs ' || name, 0)"
# A restart silences all processes: the time before it does not count against them.
_SILENT_FOR = "clock_timestamp() - GREATEST(beat_at, pg_postmaster_start_time())"
_IS_DEAD = f"""(beat_at IS NULL OR {_SILENT_FOR} > make_interval(secs => :dead_after_s)
                OR {_SILENT_FOR} > make_interval(secs => :dead_without_session_after_s)
                   AND pg_try_advisory_xact_lock({SESSION_LOCK}))"""
_BEAT = """INSERT INTO replica (name, announced) VALUES (:me, :announced)
           ON CONFLICT (name) DO UPDATE SET announced = excluded.announced, beat_at = clock_timestamp(),
               steady_since = CASE WHEN clock_timestamp() - replica.beat_at < make_interval(secs => :steady_s)
                                   THEN replica.steady_since ELSE clock_timestamp() END"""
# A process that was silent itself may be the one whose link was cut: it judges the others later.
_MAY_JUDGE = """EXISTS (SELECT 1 FROM replica AS mine WHERE mine.name = :me
                AND mine.steady_since < clock_timestamp() - make_interval(secs => :dead_after_s))"""
_DEAD = f"""SELECT name FROM (SELECT unnest(:names) AS name) AS claimed LEFT JOIN replica USING (name)
            WHERE {_IS_DEAD} AND {_MAY_JUDGE}"""
# The limit of idle sessions does not end one that PostgreSQL has prepared a statement for: it counts as active.
_END_CHANGES = f"""SELECT pg_terminate_backend(pid) FROM replica
                   JOIN pg_stat_activity ON application_name = '{APPLICATION} ' || name
                   WHERE datname = current_database() AND usename = current_user AND xact_start IS NOT NULL
                       AND name <> :me AND {_IS_DEAD} AND {_MAY_JUDGE}"""
_OTHERS = f"SELECT name, announced FROM replica WHERE name <> :me AND announced <> '' AND NOT {_IS_DEAD} ORDER BY name"
_ALL_OTHERS = f"""SELECT name, announced, {_IS_DEAD} AS is_dead,
                         extract(epoch FROM clock_timestamp() - beat_at)::float8 AS silent_s
                  FROM replica WHERE name <> :me ORDER BY name"""
_LIMITS = {"dead_after_s": DEAD_AFTER_S, "dead_without_session_after_s": DEAD_WITHOUT_SESSION_AFTER_S}

_Write = Callable[..., Awaitable[Sequence[Row]]]


class Heartbeat:
    """The row of this process among those that have the database open.

    Args:
        name: The name by which this process claims jobs.
        write: Runs one statement.
    """

    def __init__(self, name: str, write: _Write) -> None:
        self.name = name
        self._write = write
        self._announced = ""

    async def beat(self) -> None:
        """Write the time into our row; create it if necessary."""
        await self._write(_BEAT, me=self.name, announced=self._announced, steady_s=DEAD_AFTER_S / 2)

    async def keep_beating(self) -> None:
        """Write the time into our row every second until cancelled, and end the changes of dead processes."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self.beat()
                await self._end_changes_of_dead()
            except StoreError as error:
                logger.warning("cannot tell the database that this process lives: %s", error)

    async def announce(self, announced: Mapping[str, Any]) -> None:
        """Let the other processes read what this one does."""
        self._announced = json.dumps(announced)
        await self.beat()

    async def find_dead(self, names: Iterable[str]) -> set[str]:
        """Return those of these processes that are dead."""
        listed = [name for name in names if name != self.name]
        if not listed:
            return set()
        return {row["name"] for row in await self._write(_DEAD, names=listed, me=self.name, **_LIMITS)}

    async def find_others(self) -> dict[str, Mapping[str, Any]]:
        """Return what the other living processes announced, by their names."""
        rows = await self._write(_OTHERS, me=self.name, **_LIMITS)
        return {row["name"]: cast("Mapping[str, Any]", json.loads(row["announced"])) for row in rows}

    async def list_others(self) -> tuple[ReplicaInfo, ...]:
        """Return all other processes that have the database open, or died with it open."""
        rows = await self._write(_ALL_OTHERS, me=self.name, **_LIMITS)
        return tuple(
            ReplicaInfo(
                row["name"], str(json.loads(row["announced"] or "{}").get("what", "")), row["silent_s"], row["is_dead"]
            )
            for row in rows
        )

    async def forget_old(self) -> None:
        """Delete the rows of processes that died long ago."""
        await self._write(
            "DELETE FROM replica WHERE beat_at < clock_timestamp() - make_interval(secs => :after_s)",
            after_s=FORGET_AFTER_S,
        )

    async def _end_changes_of_dead(self) -> None:
        """End sessions in which dead processes hold locks: others would wait for these until the link is closed."""
        await self._write(_END_CHANGES, me=self.name, **_LIMITS)

    async def leave(self) -> None:
        """Delete our row: this process counts as dead at once."""
        await self._write("DELETE FROM replica WHERE name = :me", me=self.name)
