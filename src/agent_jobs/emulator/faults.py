"""Define faults on the wire and in the API, and queue them for the requests they are meant for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast, get_args

__all__ = ["Fault", "FaultQueue", "combine_faults"]

Operation = Literal[
    "create",
    "retrieve",
    "stream",
    "cancel",
    "delete",
    "upload",
    "files",
    "delete_file",
    "containers",
    "download",
    "webhook",
    "any",
]
Drop = Literal["before_headers", "after_accept", "before_created", "after_events", "after_terminal_open"]

#: Faults of a create request that also apply to later requests for the same response.
_LASTING = (
    "not_found_for_s", "not_found_after_end_s", "id_changes", "completed_empty", "complete_after_cancel",
    "late_complete", "cancel_status", "cancel_clears_output", "failed_event_on_cancel", "poll_after_ms",
    "missing_fields", "unknown_status", "no_retrieve", "json_to_attach", "empty_terminal_event",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One way to misbehave; fields combine, times are in emulated seconds."""

    on: Operation = "create"
    match: str | None = None
    times: int = 1
    skip: int = 0
    # another answer
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content_type: str | None = None
    after_accept: bool = False
    error_body: Literal["detail", "text", "integer_code"] | None = None
    refuse_background: bool = False
    refuse_background_stream: bool = False
    json_instead_of_stream: bool = False
    # late or no answer
    delay_s: float = 0.0
    hang: bool = False
    drop: Drop | None = None
    after_events: int | None = None
    eof_without_terminal: bool = False
    # the shape of the stream
    no_event_lines: bool = False
    crlf: bool = False
    cr: bool = False
    bom: bool = False
    comments: bool = False
    done_marker: bool = False
    split_bytes: int | None = None
    no_sequence_numbers: bool = False
    duplicate_events: bool = False
    no_deltas: bool = False
    empty_terminal_event: bool = False
    # the run that is created
    delay_created_s: float = 0.0
    keepalives: int = 0
    sequence_gaps: bool = False
    unknown_events: bool = False
    error_event: Literal["nested", "flat"] | None = None
    stuck_queued: bool = False
    ignore_background: bool = False
    background_unsaid: bool = False  #: `background` is ignored, and no answer mentions it
    complete_at_once: bool = False
    ignore_previous: bool = False  #: `previous_response_id` counts as not given, and its context is missing
    fail_previous: bool | str = False  #: a request with `previous_response_id` fails, in these words
    # the later answers about it
    json_to_attach: bool = False
    not_found_for_s: float = 0.0
    not_found_after_end_s: float = 0.0
    id_changes: bool = False
    completed_empty: int = 0
    complete_after_cancel: bool = False
    late_complete: bool = False
    cancel_status: Literal[200, 400, 409] | None = None
    cancel_clears_output: bool = False
    failed_event_on_cancel: bool = False
    poll_after_ms: int | None = None
    missing_fields: bool = False
    unknown_status: str | None = None
    no_retrieve: bool = False  #: neither GET nor cancel of a response is served
    # webhooks: `delay_s` delays one
    webhook_lost: bool = False
    webhook_copies: int = 1

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "Fault":
        """Read a fault from JSON; ValueError names unknown fields."""
        values = dict(given)
        drop: Any = values.get("drop")
        if isinstance(drop, Mapping):
            values |= {"drop": "after_events", **cast("Mapping[str, Any]", drop)}
        unknown = sorted(values.keys() - {known.name for known in fields(cls)})
        if unknown:
            raise ValueError(f"unknown fault fields: {', '.join(unknown)}")
        fault = cls(**values)
        if fault.on not in get_args(Operation) or fault.drop not in (None, *get_args(Drop)):
            raise ValueError(f"on is one of {get_args(Operation)}, drop one of {get_args(Drop)}")
        return fault

    def list_changes(self) -> dict[str, Any]:
        """Return the fields that differ from a server without faults."""
        values = {known.name: getattr(self, known.name) for known in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(_NONE, name)}

    def is_refusal(self) -> bool:
        """Return True if the request gets an answer without being accepted."""
        if self.after_accept or self.status is None:
            return False
        return self.status >= 300 or self.body is not None  # a bare 202 only changes the status of the real answer

    def drops_after(self, event_count: int) -> bool:
        """Return True if the connection is cut after this number of events."""
        return self.drop == "after_events" and event_count == self.after_events

    def select_lasting(self) -> "Fault":
        """Return only the fields that outlive the request that created the response."""
        return Fault(**{name: value for name, value in self.list_changes().items() if name in _LASTING})


_NONE = Fault()


def combine_faults(*faults: Fault) -> Fault:
    """Join faults into one; if two set the same field, the later one wins."""
    result = _NONE
    for fault in faults:
        result = replace(result, **fault.list_changes())
    return result


class FaultQueue:
    """Faults that wait for the requests they are meant for."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._waiting: list[_QueuedFault] = []
        self.add(faults)

    def add(self, faults: Iterable[Fault]) -> None:
        """Queue faults behind those that wait."""
        self._waiting += [_QueuedFault(fault, times=fault.times, skip=fault.skip) for fault in faults]

    def clear(self) -> None:
        """Delete all queued faults."""
        self._waiting.clear()

    def take(self, operation: str, text: str) -> Fault:
        """Take the first fault meant for this request."""
        return next((waiting.fault for waiting in self._waiting if waiting.take_if_meant(operation, text)), _NONE)

    def take_all(self, operation: str, text: str) -> Fault:
        """Take every fault meant for this request, as one."""
        return combine_faults(*[waiting.fault for waiting in self._waiting if waiting.take_if_meant(operation, text)])


@dataclass
class _QueuedFault:
    fault: Fault
    times: int
    skip: int

    def take_if_meant(self, operation: str, text: str) -> bool:
        fault = self.fault
        is_meant = fault.on in ("any", operation) and (fault.match or "") in text
        if not is_meant or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1  # -1 never reaches zero: the fault stays until it is cleared
        return True
