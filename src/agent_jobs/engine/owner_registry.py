"""The owners of a team server, their tokens, and the log of what they did."""

from collections.abc import Mapping, Sequence

from agent_jobs.clock import Clock
from agent_jobs.engine.owner_limits import find_owner
from agent_jobs.errors import RequestError
from agent_jobs.jobs.owners import Owner, OwnerUse
from agent_jobs.owner_name import NAME_RULE, is_owner_name
from agent_jobs.store.base import Store
from agent_jobs.store.team_records import AuditEntry, TokenRecord
from agent_jobs.token_format import create_token, hash_token

#: The caller of an action, as the audit log names it: owner, id of the token, client and address.
Actor = tuple[str, str, str, str]


class OwnerRegistry:
    """Keeps the limits, the tokens and the audit log of all owners."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def add_token(
        self, owner: str, *, note: str = "", lifetime_s: float | None = None
    ) -> tuple[str, TokenRecord]:
        """Store a new token of an owner; return its text, which is stored nowhere, and its record.

        Raises:
            RequestError: No owner can have this name.
        """
        _check_name(owner)
        token, now = create_token(), self._clock.now()
        expires_at = None
        if lifetime_s is not None:
            expires_at = now + lifetime_s
        record = TokenRecord(token.id, token.hash, owner, note, now, expires_at)
        await self._store.add_token(record)
        return token.text, record

    async def find_token(self, text: str) -> tuple[TokenRecord | None, str]:
        """Return the token with this text, and the reason why it is refused; empty if it is valid."""
        return await self.find_token_by_hash(hash_token(text))

    async def find_token_by_hash(self, token_hash: str) -> tuple[TokenRecord | None, str]:
        """Return the token with this hash, and the reason why it is refused; empty if it is valid."""
        record = await self._store.find_token(token_hash)
        if record is None:
            return None, "unknown"
        return record, record.find_fault(self._clock.now())

    async def mark_token_used(self, record: TokenRecord) -> None:
        """Note that a token was used, unless that was noted a moment ago."""
        if record.should_note_use(self._clock.now()):
            await self._store.mark_token_used(record.id, self._clock.now())

    async def list_tokens(self) -> Sequence[TokenRecord]:
        """Return all tokens, the oldest first."""
        return await self._store.list_tokens()

    async def revoke_token(self, token_id: str) -> bool:
        """Revoke a token; return False if there is no such valid token."""
        return await self._store.revoke_token(token_id, self._clock.now())

    async def has_good_token(self) -> bool:
        """Return True if there is a valid token."""
        now = self._clock.now()
        return any(not token.find_fault(now) for token in await self._store.list_tokens())

    async def list_owners(self, since: float) -> Sequence[OwnerUse]:
        """Return all owners that have a setting, a token or a job, by name, with the spending since this time."""
        return await self._store.list_owners(since)

    async def get_owner(self, name: str) -> Owner:
        """Return the settings of an owner."""
        return await find_owner(self._store, name)

    async def set_owner(self, owner: Owner) -> None:
        """Store what an owner may use.

        Raises:
            RequestError: No owner can have this name.
        """
        _check_name(owner.name)
        await self._store.set_owner(owner)

    async def log_action(self, actor: Actor, action: str, costs_usd: Mapping[str, float | None]) -> None:
        """Add an action of a caller to the audit log: a row for each job, or one row without a job.

        `costs_usd` has the jobs and their costs as far as they are known.
        """
        now = self._clock.now()
        entry = AuditEntry(now, *actor[:3], action, address=actor[3])
        entries = [entry._replace(job_id=job_id, cost_usd=cost_usd) for job_id, cost_usd in costs_usd.items()]
        await self._store.add_audit(entries or [entry])

    async def read_log(
        self, *, since: float = 0.0, owner: str | None = None, after: int = 0
    ) -> Sequence[tuple[int, AuditEntry]]:
        """Return the next entries of the audit log with a number above `after`; empty after the last one."""
        return await self._store.read_audit(since=since, owner=owner, after=after)


def _check_name(owner: str) -> None:
    """Refuse a name that no owner can have: also where a program, not a command, makes a token."""
    if not is_owner_name(owner):
        raise RequestError("{name!r} is not a valid owner name. {rule}", "owner_name", name=owner[:60], rule=NAME_RULE)
