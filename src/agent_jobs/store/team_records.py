"""The protocols for what a team server keeps beside jobs: owners, tokens, audit, webhooks, callbacks, feeds, files."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from agent_jobs.jobs.event_feed import FeedEvent, FeedFilter
from agent_jobs.jobs.owners import Owner, OwnerUse

#: Seconds between two notes of a token's use: a note at every request would be a write at every poll.
USE_NOTED_S = 60.0


class OwnerRecords(Protocol):
    """Stores the settings of the owners of a team server."""

    async def get_owner(self, name: str) -> Owner | None:
        """Return what was set for an owner; None if nothing was."""
        ...

    async def list_owners(self, since: float) -> list[OwnerUse]:
        """Return all owners that have a setting, a token or a job, by name, with the spending since this time."""
        ...

    async def set_owner(self, owner: Owner) -> None:
        """Store what an operator set for an owner."""
        ...


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
        """Return the reason why the token is refused; empty if it is valid."""
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
        """Revoke a token; return False if there is no such valid token."""
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
    address: str = ""  #: the address of the sender


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
    """Stores the provider's webhooks, and makes their jobs due."""

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
        """Record the job of a webhook's response; an empty id means that no job here has it."""
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


class PendingCallback(NamedTuple):
    """An event of a job whose caller is to be called back."""

    job_id: str
    status: str
    batch: str
    key: str | None  #: the caller's own
    error_code: str | None
    kind: str  #: job.finished or job.needs_input
    at: float


class CallbackMessage(NamedTuple):
    """A message to a caller, claimed for one attempt to send it."""

    id: str  #: the same in each attempt
    job_id: str
    body: str
    created_at: float
    attempts: int  #: with this one
    url: str  #: empty for one of a subscription, which has the address
    subscription_id: str | None = None
    number: int | None = None  #: of the event in the feed, for a subscription

    @property
    def public_id(self) -> str:
        """Return the id that the receiver sees: that of the event, the same for all its subscriptions."""
        return self.id.partition(".")[0]


class CallbackRecords(Protocol):
    """Keeps the messages to the callers of jobs until they are accepted."""

    async def find_callbacks(self, since: float) -> list[PendingCallback]:
        """Return events after `since` whose caller named an address, and that no process has claimed."""
        ...

    async def add_callback(self, pending: PendingCallback, message_id: str, body: str, now: float) -> bool:
        """Claim an event for good, and store its message, due now; False if another process was first."""
        ...

    async def claim_callbacks(self, now: float, again_at: float, limit: int) -> list[CallbackMessage]:
        """Claim some due messages for one attempt each; other callers get them after `again_at`."""
        ...

    async def schedule_callback(self, message_id: str, at: float) -> None:
        """Have a message sent again at this time."""
        ...

    async def finish_callback(self, message_id: str) -> None:
        """Delete a message that was accepted, or is given up."""
        ...


class NewSubscription(NamedTuple):
    """A wish to have events of a feed sent."""

    id: str  #: derived from the owner, the event, the filter and the address
    token_id: str  #: of the caller
    kind: str
    job_id: str  #: empty for all jobs
    batch: str  #: empty for all jobs
    url: str
    secret: str  #: of the receiver
    expires_at: float  #: at the latest


class GrantedSubscription(NamedTuple):
    """The answer to a new or refreshed subscription."""

    expires_at: float
    number: int  #: all events up to this one were delivered or abandoned
    is_truncated: bool  #: some past events were skipped


class Delivery(NamedTuple):
    """The address and the secrets of the messages of a subscription."""

    url: str
    secrets: Sequence[str]  #: the first one is the current one
    oldest: int | None  #: number of the oldest event whose message is neither delivered nor abandoned


class FeedRecords(Protocol):
    """Stores the events and the subscriptions of owners."""

    async def publish_events(self, now: float) -> None:
        """Number the events that have no number yet, and store their messages for subscriptions."""
        ...

    async def read_feed(self, wanted: FeedFilter, after: int, up_to: int, limit: int) -> list[FeedEvent]:
        """Return the first events of this store's owner with a number above `after` and at most `up_to`."""
        ...

    async def feed_bounds(self) -> tuple[int, int]:
        """Return the numbers of the owner's oldest and newest event that are kept; 1 and 0 without one."""
        ...

    async def find_number_at(self, at: float) -> int:
        """Return the number of the owner's last event before this time; 0 if none is kept."""
        ...

    async def forget_events(self, before: float) -> None:
        """Delete the events before this time, but for the newest of each owner."""
        ...

    async def is_verified(self, url: str, now: float) -> bool:
        """Return True if a subscription of this store's owner sends to this address now."""
        ...

    async def save_subscription(
        self, new: NewSubscription, now: float, *, limit: int, after: int | None = None
    ) -> GrantedSubscription | None:
        """Store a subscription of this store's owner, or refresh the one with this id.

        A new one is sent the past events with a number above `after`. Returns None if the owner has `limit` others.
        """
        ...

    async def delete_subscription(self, subscription_id: str) -> bool:
        """Delete a subscription with its messages; return False if this store's owner has none with this id."""
        ...

    async def forget_subscriptions(self, now: float) -> None:
        """Delete the subscriptions that expired, or whose token expired or was revoked, with their messages."""
        ...

    async def find_delivery(self, subscription_id: str, now: float) -> Delivery | None:
        """Return how a message of a subscription is sent; None if it may not be sent any more."""
        ...


class ShelvedFile(NamedTuple):
    """A file that an owner uploads, to attach it to jobs."""

    id: str
    name: str
    data: bytes


class StoredFile(NamedTuple):
    """The content of a file, with its name."""

    name: str
    data: bytes


class FileRecords(Protocol):
    """Stores files in the database: uploads of owners, and files that their runs made."""

    async def add_shelved_file(self, file: ShelvedFile, now: float, *, since: float, room: int) -> bool:
        """Store a file of this store's owner, and delete the files that are older than `since`.

        Returns False if the owner's files would have more than `room` bytes; then nothing was stored.
        """
        ...

    async def find_shelved_file(self, file_id: str, since: float) -> StoredFile | None:
        """Return a file that was uploaded after `since`; None if it is gone, or another owner's."""
        ...

    async def forget_shelved_files(self, before: float) -> None:
        """Delete the files that were uploaded before this time."""
        ...

    async def save_made_file(self, job_id: str, name: str, file_id: str, path: str, data: bytes) -> None:
        """Store a file that a run made; one of the same name that is stored before stays."""
        ...

    async def find_made_file(self, file_id: str) -> StoredFile | None:
        """Return a file that a run made; None if there is none, or it is another owner's."""
        ...


class OwnerMetrics(NamedTuple):
    """The metrics of single owners."""

    active: Sequence[tuple[str, str, int]]  #: owner, status, number of jobs
    costs: Sequence[tuple[str, float]]  #: owner, USD that the jobs of the day cost so far


class StoreMetrics(NamedTuple):
    """The metrics of a database."""

    owners: OwnerMetrics
    jobs: Mapping[str, int]  #: number of jobs by status
    next_due_at: float | None  #: when the first step is or was due
    last_webhook_at: float | None
    connections: tuple[int, int]  #: of this process, and how many of these are in use


class MetricsRecords(Protocol):
    """Counts the metrics for an operator."""

    async def read_metrics(self, base_url: str, since: float) -> StoreMetrics:
        """Return the metrics of this endpoint, with the costs of the day from `since` on."""
        ...


class TraceRecords(Protocol):
    """Records the traced jobs."""

    async def claim_traces(self, since: float, limit: int) -> list[str]:
        """Claim some jobs that finished after `since` for good, and return their ids. Each end is claimed once."""
        ...
