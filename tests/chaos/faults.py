"""List the faults of the emulated provider, by what becomes of the request. Times are in emulated seconds."""

from enum import Enum
from typing import Any

Json = dict[str, Any]

#: Seconds that a POST may take to its first event. The servers get the same limit in real seconds.
START_TIMEOUT_S = 60.0
HTML = "<html><body><h1>Bad gateway</h1></body></html>"
QUOTA: Json = {"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "No credit is left."}}


class Fate(Enum):
    """The fate of a POST."""

    NAMED = "accepted, and its answer names the response"
    LOST = "accepted or not: its answer names nothing"
    BUSY = "provably not accepted: to be sent again"
    REFUSED = "read and refused: to fail"


#: Without a 429 for a POST that was accepted all the same: no client can recognise that.
BUSY: tuple[Json, ...] = (
    {"status": 429},
    {"status": 429, "headers": {"retry-after": "1"}},
    {"status": 429, "headers": {"retry-after-ms": "300"}},
    {"status": 429, "error_body": "text"},
    {"status": 503},
    {"status": 503, "headers": {"retry-after": "2"}},
    {"status": 503, "error_body": "integer_code"},
)
REFUSED: tuple[Json, ...] = (
    {"status": 400},
    {"status": 400, "error_body": "detail"},
    {"status": 401},
    {"status": 403},
    {"status": 404},
    {"status": 422, "error_body": "text"},
    {"status": 302, "headers": {"location": "https://login.example"}},
    {"status": 429, "body": QUOTA},
    {"status": 429, "headers": {"x-should-retry": "false"}},
)
_MUTE: tuple[Json, ...] = (
    *({"status": status, "body": HTML} for status in (500, 502, 503, 504, 200)),
    {"status": 500},
    {"status": 408},
    {"status": 503, "error_body": "detail"},
    {"status": 503, "error_body": "text"},
    {"status": 503, "hang": True},
)
LOST: tuple[Json, ...] = (
    *_MUTE,
    {"drop": "before_headers"},
    *({**fault, "after_accept": True} for fault in _MUTE),
    {"hang": True},
    {"drop": "after_accept"},
    {"drop": "before_created"},
    {"delay_created_s": START_TIMEOUT_S * 1.5},
    {"keepalives": 3, "delay_created_s": 6.0, "drop": "after_events", "after_events": 2},
    {"keepalives": 2, "delay_created_s": 4.0, "drop": "after_events", "after_events": 1, "eof_without_terminal": True},
    {"json_instead_of_stream": True, "drop": "after_accept"},
)
#: Odd, but the stream continues to its end.
ODD: tuple[Json, ...] = (
    {"comments": True},
    {"crlf": True},
    {"cr": True},
    {"bom": True},
    {"no_event_lines": True, "done_marker": True},
    {"split_bytes": 7},
    {"duplicate_events": True},
    {"sequence_gaps": True, "unknown_events": True},
    {"missing_fields": True},
    {"delay_s": 10.0},
    {"delay_created_s": 20.0},
    {"keepalives": 3, "delay_created_s": 30.0},
    {"error_event": "nested"},
    {"error_event": "flat"},
    {"drop": "after_terminal_open"},
)
#: The POST is accepted, and then its stream becomes useless.
BROKEN: tuple[Json, ...] = (
    *({"drop": "after_events", "after_events": events} for events in (1, 2, 3, 9, 25, 40)),
    {"drop": "after_events", "after_events": 9, "eof_without_terminal": True},
    {"drop": "after_events", "after_events": 9, "no_sequence_numbers": True},
    {"no_sequence_numbers": True},
    {"eof_without_terminal": True},
    {"error_event": "flat", "eof_without_terminal": True},
)
#: Answers from which a client concludes something about the endpoint and the model, so a job with one of these has a
#: model of its own. A POST after the refusals is accepted.
MODE_ANSWERS: tuple[tuple[tuple[Fate, Json], ...], ...] = (
    ((Fate.NAMED, {"json_instead_of_stream": True}),),
    ((Fate.NAMED, {"json_instead_of_stream": True, "status": 202}),),
    ((Fate.NAMED, {"json_instead_of_stream": True, "complete_at_once": True}),),
    ((Fate.NAMED, {"ignore_background": True}),),
    ((Fate.REFUSED, {"refuse_background_stream": True}),),
    ((Fate.REFUSED, {"refuse_background": True}), (Fate.REFUSED, {"refuse_background": True})),
)
#: Set by the create call, effective in later requests about the response.
LASTING: tuple[Json, ...] = (
    {"not_found_for_s": 50.0},
    {"not_found_after_end_s": 30.0},
    {"id_changes": True},
    {"completed_empty": 1},
    {"completed_empty": 3},
    {"poll_after_ms": 1500},
    {"missing_fields": True},
    {"unknown_status": "validating"},
)
CANCELLING: tuple[Json, ...] = (
    {"complete_after_cancel": True},
    {"late_complete": True},
    {"cancel_status": 200},
    {"cancel_status": 409},
    {"cancel_clears_output": True},
    {"failed_event_on_cancel": True},
)
_AWAY: tuple[Json, ...] = (
    *({"status": status, "body": HTML} for status in (500, 502, 503)),
    {"status": 503, "headers": {"retry-after": "1"}},
    {"status": 429},
    {"status": 401},
    {"drop": "before_headers"},
    {"drop": "after_accept"},
    {"status": 200, "body": HTML},
    {"delay_s": 10.0},
)
LATER: dict[str, tuple[Json, ...]] = {
    "retrieve": (*_AWAY, {"status": 404}, {"status": 500, "body": HTML, "times": 4}),
    "stream": (
        *_AWAY,
        {"status": 400},
        {"status": 404},
        {"json_instead_of_stream": True},
        {"drop": "before_created"},
        {"drop": "after_events", "after_events": 1, "times": 3},
        {"drop": "after_events", "after_events": 5},
        {"eof_without_terminal": True},
        {"duplicate_events": True, "times": 2},
        {"bom": True, "crlf": True},
    ),
    "cancel": _AWAY,
}
