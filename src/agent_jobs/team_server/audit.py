"""Write what callers do into the audit log."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

import anyio

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError
from agent_jobs.team_server.caller import Caller

logger = logging.getLogger(__name__)

#: Refused tokens that are logged in a minute; beyond that an attacker could fill the database.
MAX_REFUSED_A_MINUTE = 20
MINUTE_S = 60.0
#: Seconds for which an answer waits for its row.
WRITE_S = 10.0


class AuditWriter:
    """Writes the audit log of a server.

    A failed write is only logged: a running job must not look as if it failed.
    """

    def __init__(self, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._engine = engine
        self._minute = 0
        self._refused = 0

    def create_recorder(self, caller: Caller) -> Callable[[str, Mapping[str, float | None]], Awaitable[None]]:
        """Return a recorder of one request's actions. It records each job once, with its first action."""
        recorded: set[str] = set()

        async def record(action: str, costs_usd: Mapping[str, float | None]) -> None:
            new = {job_id: cost_usd for job_id, cost_usd in costs_usd.items() if job_id not in recorded}
            recorded.update(new)
            if new:
                await self._write_entries(caller, action, new)

        return record

    async def record_visit(self, caller: Caller, action: str) -> None:
        """Record an action that is about no job."""
        await self._write_entries(caller, action, {})

    async def record_refused(self, caller: Caller, reason: str) -> None:
        """Record a refused token, unless there were very many in this minute."""
        minute = int(monotonic() / MINUTE_S)
        if minute != self._minute:
            self._minute, self._refused = minute, 0
        self._refused += 1
        if self._refused <= MAX_REFUSED_A_MINUTE:
            await self._write_entries(caller, f"refused: {reason}", {})
        elif self._refused == MAX_REFUSED_A_MINUTE + 1:
            logger.warning("more than %s tokens were refused in a minute: the others are not logged", self._refused - 1)

    async def _write_entries(self, caller: Caller, action: str, costs_usd: Mapping[str, float | None]) -> None:
        actor = (caller.owner, caller.token_id, caller.client, caller.address)
        try:
            with anyio.move_on_after(WRITE_S, shield=True) as writing:
                await (await self._engine()).owners.log_action(actor, action, costs_usd)
            if not writing.cancelled_caught:
                return
            logger.error("the audit log cannot be written in time")
        except AgentJobsError as error:
            logger.error("the audit log cannot be written: %s", error)
