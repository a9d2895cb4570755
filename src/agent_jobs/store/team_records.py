"""The protocols for what a team server keeps beside jobs: owners, tokens, an audit log and the provider's webhooks."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from agent_jobs.jobs.owners import Owner, OwnerUse, Token


class OwnerRecords(Protocol):
    """Keeps what an operator set for the owners of a team server, and their tokens."""

    async def get_owner(self, name: str) -> Owner | None:
        """Return what was set for an owner; None if nothing was."""
        ...

    async def list_owners(self, since: float) -> list[OwnerUse]:
        """Return all owners that have a setting, a token or a job, by name, with the spending since this time."""
        ...

    async def set_owner(self, owner: Owner) -> None:
        """Store what an operator set for an owner."""
        ...

    async def add_token(self, token: Token, digest: str) -> None:
        """Store a new token with the SHA-256 of its text, in hexadecimal."""
        ...

    async def list_tokens(self) -> list[Token]:
        """Return all tokens, by owner and age."""
        ...

    async def find_token(self, digest: str) -> Token | None:
        """Return the token whose text has this SHA-256, also one that is not accepted any more."""
        ...

    async def revoke_token(self, token_id: str, now: float) -> bool:
        """Have a token refused from now on; return False if there is none with this id."""
        ...

    async def mark_token_used(self, token: Token, now: float) -> None:
        """Note that a token is used now; at most once a minute this is a write."""
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


class Webhook(NamedTuple):
    """A webhook of the provider."""

    id: str  #: of the message: the same if it is sent again
    base_url: str  #: the endpoint that sent it
    response_id: str
    kind: str


class UnknownWebhook(NamedTuple):
    """A webhook whose job is not known, claimed for one attempt to find it."""

    id: str
    response_id: str
    attempts: int  #: with this one


class WebhookRecords(Protocol):
    """Keeps the provider's webhooks, and has the jobs that they name retrieved."""

    async def record_webhook(self, webhook: Webhook, now: float) -> str | None:
        """Store a webhook once, and have the job whose current turn has its response retrieved now.

        Returns the job's id; empty if the webhook is kept until its job is known; None if it was received before, which
        changes nothing.
        """
        ...

    async def claim_unknown_webhooks(self, base_url: str, now: float, again_at: float) -> list[UnknownWebhook]:
        """Claim some webhooks of this endpoint whose job is not known; other callers get them after `again_at`.

        Those whose job is known by now are matched first, and their jobs are due now.
        """
        ...

    async def schedule_webhook(self, webhook_id: str, at: float) -> None:
        """Have a webhook whose job is not known claimed again at this time."""
        ...

    async def resolve_webhook(self, webhook_id: str, job_id: str) -> None:
        """Note whose response a webhook names; an empty id means that it is of no job here."""
        ...

    async def expects_webhook(self, base_url: str, response_id: str, since: float) -> bool:
        """Return True if this endpoint sent a webhook after `since`, and none for this response yet."""
        ...

    async def last_webhook_at(self, base_url: str) -> float | None:
        """Return when the last webhook of this endpoint was received."""
        ...

    async def forget_webhooks(self, before: float) -> None:
        """Delete the webhooks that were received before this time."""
        ...
