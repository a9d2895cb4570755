"""Authenticate callers by the team tokens that the operator created."""

from collections.abc import Awaitable, Callable

from agent_jobs.engine.engine import Engine
from agent_jobs.team_server.caller import Caller
from agent_jobs.team_server.sign_in import RefusedTokenError
from agent_jobs.token_format import TOKEN_PREFIX


class TeamTokens:
    """The team tokens in the store of an engine."""

    def __init__(self, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._engine = engine

    def can_verify(self, token: str) -> bool:
        """Return True if a token looks like one of these."""
        return token.startswith(TOKEN_PREFIX)

    async def verify(self, token: str) -> Caller:
        """Return the caller with this token.

        Raises:
            RefusedTokenError: It is unknown, revoked or expired.
        """
        owners = (await self._engine()).owners
        record, fault = await owners.find_token(token)
        if record is None:
            raise RefusedTokenError(fault)
        if fault:
            raise RefusedTokenError(fault, owner=record.owner, token_id=record.id)
        await owners.mark_token_used(record)
        return Caller(record.owner, record.id)
