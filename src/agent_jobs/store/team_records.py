"""The protocols for what a team server keeps beside jobs: its tokens, and who did what."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

#: Seconds between two notes of a token's use: a note at every request would be a write at every poll.
USE_NOTED_S = 60.0


class TokenRecord(NamedTuple):
    """A token as it is stored."""

    id: str
    hash: str  #: SHA-256, in hexadecimal
    owner: str
    note: str
    created_at: float
    expires_at: float | None = None  #: None means never
    revoked_at: float | None = None
    last_used_at: float | None = None

    def find_fault(self, now: float) -> str:
        """Return why the token lets nobody in; empty if it is good."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return ""

    def should_note_use(self, now: float) -> bool:
        """Return True if the last noted use is a while ago."""
        return self.last_used_at is None or self.last_used_at < now - USE_NOTED_S


class TokenRecords(Protocol):
    """Keeps tokens. Each method is one change or one query."""

    async def add_token(self, token: TokenRecord) -> None:
        """Store a new token."""
        ...

    async def find_token(self, token_hash: str) -> TokenRecord | None:
        """Return the token with this hash."""
        ...

    async def list_tokens(self) -> Sequence[TokenRecord]:
        """Return all tokens, the oldest first."""
        ...

    async def revoke_token(self, token_id: str, now: float) -> bool:
        """Have a token let nobody in from now on; return False if there is no such good token."""
        ...

    async def mark_token_used(self, token_id: str, now: float) -> None:
        """Note that a token was used."""
        ...


class AuditEntry(NamedTuple):
    """An action of a caller."""

    at: float
    owner: str
    token_id: str  #: or the issuer of an OAuth token
    client: str
    action: str
    job_id: str = ""
    cost_usd: float | None = None
    address: str = ""  #: where the request came from


class AuditRecords(Protocol):
    """Keeps the audit log. Each method is one change or one query."""

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Store actions, all or none."""
        ...

    async def read_audit(
        self, *, since: float = 0.0, owner: str | None = None, after: int = 0, limit: int = 1000
    ) -> Sequence[tuple[int, AuditEntry]]:
        """Return the first actions with a number above `after`, with their numbers, oldest first."""
        ...
