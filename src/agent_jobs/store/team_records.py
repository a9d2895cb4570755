"""The protocols of a store for a team server: the provider's webhooks."""

from typing import NamedTuple, Protocol


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
