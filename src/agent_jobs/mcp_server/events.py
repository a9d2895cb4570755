"""Notify hosts of finished jobs and open questions by MCP Events (`io.modelcontextprotocol/events`, SEP-3415).

A host polls with a cursor, or subscribes an address to which events are sent. The store has the events and the
subscriptions, so any replica can answer. Only team servers offer events.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, RequestParams
from pydantic import BaseModel, ConfigDict, Field

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError
from agent_jobs.jobs.event_feed import (
    DEFAULT_LIFETIME_S,
    KINDS,
    MAX_LIFETIME_S,
    FeedError,
    FeedFilter,
    Subscription,
    iso_time,
    render_event,
)
from agent_jobs.mcp_server.tool_adapter import describe_error

EVENTS = "io.modelcontextprotocol/events"
PREFIX = "job."
#: The kinds of events by the names that hosts know.
KIND_OF_EVENT = {f"{PREFIX}{kind}": kind for kind in KINDS}
NEXT_POLL_MS = 5_000  # an event is published within a second, and no model waits for it
DEFAULT_EVENTS = 50
MAX_EVENTS = 100
MAX_URL_CHARS = 2_000
MAX_NAME_CHARS = 200  # of a job's id or a batch's name
#: The protocol's code and name for each reason of a `FeedError`.
CODES: Mapping[str, tuple[int, str]] = {
    "invalid": (INVALID_PARAMS, "InvalidParams"),
    "not_found": (-32023, "NotFound"),
    "exhausted": (-32025, "ResourceExhausted"),
    "unsupported": (-32026, "Unsupported"),
    "unverified": (-32027, "CallbackEndpointError"),
}
DESCRIPTIONS = {
    "finished": "A job finished: it completed, failed, was cancelled or expired. Call agent_poll with its job_id.",
    "needs_input": "A job waits for an answer. Call agent_poll with its job_id, and do what `next` says.",
}
_INPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "job_id": {"type": "string", "description": "Only this job; without it all jobs"},
        "batch": {"type": "string", "description": "Only the jobs of this batch"},
    },
    "additionalProperties": False,
}
_PAYLOAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "job_id": {"type": "string"},
        "status": {"type": "string", "description": "As agent_poll has it"},
        "batch": {"type": "string"},
        "key": {"type": "string", "description": "The caller's own for the job"},
        "error": {"type": "string", "description": "Code of the error of a failed job"},
    },
    "required": ["job_id", "status"],
}
_Milliseconds = Annotated[int, Field(ge=0)]


class EventParams(RequestParams):
    """Parameters of all requests about one kind of event."""

    model_config = ConfigDict(defer_build=True)

    name: str
    arguments: dict[str, Any] | None = None


class ListParams(RequestParams):
    """Parameters of `events/list`."""

    model_config = ConfigDict(defer_build=True)

    cursor: str | None = None


class PollParams(EventParams):
    """Parameters of `events/poll`."""

    cursor: str | None = None
    max_age_ms: _Milliseconds | None = Field(default=None, alias="maxAgeMs")
    max_events: Annotated[int, Field(ge=1)] | None = Field(default=None, alias="maxEvents")


class DeliveryParams(BaseModel):
    """The receiver of a subscription."""

    model_config = ConfigDict(defer_build=True)

    mode: str = "webhook"
    url: Annotated[str, Field(max_length=MAX_URL_CHARS)]
    secret: str = ""


class SubscribeParams(EventParams):
    """Parameters of `events/subscribe`."""

    delivery: DeliveryParams
    cursor: str | None = None
    max_age_ms: _Milliseconds | None = Field(default=None, alias="maxAgeMs")
    ttl_ms: _Milliseconds | None = Field(default=int(DEFAULT_LIFETIME_S * 1000), alias="ttlMs")


class UnsubscribeParams(EventParams):
    """Parameters of `events/unsubscribe`."""

    delivery: DeliveryParams


class EventsExtension(Extension):
    """Serves `events/list`, `events/poll`, `events/subscribe` and `events/unsubscribe`.

    Args:
        engine: Returns the engine of the caller.
        find_token: Returns the id of the caller's token, on which a subscription depends.
        report: Gets what the caller did, for the audit log.
    """

    identifier = EVENTS

    def __init__(
        self,
        engine: Callable[[], Awaitable[Engine]],
        find_token: Callable[[], str],
        report: Callable[[str], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._find_token = find_token
        self._report = report

    def methods(self) -> Sequence[MethodBinding]:
        """Return the methods, which hosts of both eras of the protocol use."""
        return [
            MethodBinding("events/list", ListParams, self._describe_events),
            MethodBinding("events/poll", PollParams, self._poll_events),
            MethodBinding("events/subscribe", SubscribeParams, self._add_subscription),
            MethodBinding("events/unsubscribe", UnsubscribeParams, self._end_subscription),
        ]

    async def advertise(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Also declare the capability at the top level, where hosts expect it; the SDK's models do not know it."""
        result = await call_next(ctx)
        if ctx.method in ("server/discover", "initialize") and isinstance(result, dict):
            result["capabilities"] = {**result.get("capabilities", {}), "events": {}}
        return result

    async def _describe_events(self, ctx: ServerRequestContext[Any, Any], params: ListParams) -> HandlerResult:
        with _as_event_error():
            if params.cursor:
                raise FeedError("invalid", "There is one page of events, without a cursor.")
            modes = ["poll"]
            if (await self._engine()).feed.can_send:
                modes.append("webhook")
            return {"events": [_describe_event(kind, modes) for kind in KINDS]}

    async def _poll_events(self, ctx: ServerRequestContext[Any, Any], params: PollParams) -> HandlerResult:
        with _as_event_error():
            page = await (await self._engine()).feed.poll(
                _read_filter(params),
                params.cursor,
                max_age_s=_read_seconds(params.max_age_ms),
                limit=min(params.max_events or DEFAULT_EVENTS, MAX_EVENTS),
            )
            return {
                "events": list(map(render_event, page.events)),
                "cursor": page.cursor,
                "truncated": page.is_truncated,
                "hasMore": page.has_more,
                "nextPollMs": NEXT_POLL_MS,
            }

    async def _add_subscription(self, ctx: ServerRequestContext[Any, Any], params: SubscribeParams) -> HandlerResult:
        with _as_event_error():
            wanted = _read_filter(params)
            if params.delivery.mode != "webhook":
                raise FeedError(
                    "unsupported",
                    "Events are sent by webhook.",
                    feature="deliveryMode",
                    value=params.delivery.mode[:20],
                )
            asked = Subscription(
                wanted,
                params.delivery.url,
                params.delivery.secret,
                MAX_LIFETIME_S if params.ttl_ms is None else params.ttl_ms / 1000,
                params.cursor,
                _read_seconds(params.max_age_ms),
            )
            made = await (await self._engine()).feed.subscribe(asked, self._find_token())
            await self._report(f"subscribe {PREFIX}{wanted.kind}")
            return {
                "id": made.id,
                "refreshBefore": iso_time(made.expires_at),
                "cursor": made.cursor,
                "truncated": made.is_truncated,
            }

    async def _end_subscription(self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeParams) -> HandlerResult:
        with _as_event_error():
            wanted = _read_filter(params)
            await (await self._engine()).feed.unsubscribe(wanted, params.delivery.url)
            await self._report(f"unsubscribe {PREFIX}{wanted.kind}")
            return {}


def _read_filter(params: EventParams) -> FeedFilter:
    """Return the filter that a request describes.

    Raises:
        FeedError: There is no such event, or it has no such argument.
    """
    kind = KIND_OF_EVENT.get(params.name)
    if kind is None:
        raise FeedError("not_found", f"The events are {', '.join(KIND_OF_EVENT)}.", kind="event")
    arguments = params.arguments or {}
    if not all(map(_is_argument, arguments, arguments.values())):
        raise FeedError("invalid", f"The arguments are job_id and batch, of up to {MAX_NAME_CHARS} characters each.")
    return FeedFilter(kind, **arguments)


def _is_argument(name: str, value: object) -> bool:
    """Return True if events have this argument, and its value can be a name."""
    return name in _INPUT_SCHEMA["properties"] and isinstance(value, str) and len(value) <= MAX_NAME_CHARS


def _describe_event(kind: str, modes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": f"{PREFIX}{kind}",
        "description": DESCRIPTIONS[kind],
        "delivery": modes,
        "inputSchema": _INPUT_SCHEMA,
        "payloadSchema": _PAYLOAD_SCHEMA,
    }


def _read_seconds(milliseconds: int | None) -> float | None:
    if milliseconds is None:
        return None
    return milliseconds / 1000


@contextmanager
def _as_event_error() -> Generator[None]:
    """Convert our errors to errors of the protocol."""
    try:
        yield
    except FeedError as error:
        code, name = CODES[error.reason]
        raise MCPError(code, f"{name}: {error}", dict(error.data) or None) from None
    except AgentJobsError as error:
        raise MCPError(INTERNAL_ERROR, describe_error(error)) from None
