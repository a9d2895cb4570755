"""Read an OpenAI response object: its usage, failure, calls, text and activity. Pure."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

JSON = Mapping[str, Any]
#: Failures after which the same request may well succeed.
RETRYABLE = frozenset(
    {"server_error", "rate_limit_exceeded", "server_is_overloaded", "vector_store_timeout", "interrupted"}
)

#: Failures that no retry fixes, even if their message suggests one. An unconfirmed start may be running: another one
#: could be paid twice.
NOT_RETRYABLE = frozenset(
    {"start_unconfirmed", "invalid_api_key", "account_refused", "insufficient_quota", "missing_secret"}
)
#: Words of upstream for a failure that time alone cures.
_RETRY_LATER = re.compile(r"\b(?:try(?:ing)? again|retry)\b.{0,30}?(?:\bin \d|\bafter \d|\blater\b|\bshortly\b)", re.I)
#: Final statuses as some servers write them.
_STATUS_SPELLINGS = {"error": "failed", "errored": "failed", "canceled": "cancelled"}
#: Id of the message that holds the text of a stream if no response object has it.
PARTIAL_ID = "msg_from_stream"

#: Types of items that ask for an answer, and the field by which the answer names the item.
_ID_OF_CALL = {"function_call": "call_id", "mcp_approval_request": "id"}
#: End of an id that we made, because upstream gave a call none, or the id of another call.
_MADE_ID = re.compile(r"~\d+$")


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a job did not complete, with a code and message of upstream or of agent-jobs."""

    code: str
    message: str

    def __str__(self) -> str:
        """Return code and message on one line."""
        return f"{self.code}: {self.message}"

    @property
    def is_retryable(self) -> bool:
        """Return True if the same work may succeed when it is started again."""
        if self.code in NOT_RETRYABLE:
            return False
        return self.code in RETRYABLE or _RETRY_LATER.search(self.message) is not None


#: Names of the input count in the Responses API, and in chat completions.
INPUT_NAMES = ("input_tokens", "prompt_tokens")
#: The same of the output count.
OUTPUT_NAMES = ("output_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a turn as upstream counted them; a lower bound if it is partial."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    partial: bool = field(default=False, compare=False)  #: a count of input or output is missing from the sums

    @classmethod
    def of(cls, usage: object) -> Self | None:
        """Read `response.usage`, also by the names of chat completions; None while upstream has not counted."""
        counted = mapping_of(usage)
        if not counted:
            return None
        read, written = _read_count(counted, *INPUT_NAMES), _read_count(counted, *OUTPUT_NAMES)
        return cls(
            input_tokens=read or 0,
            cached_tokens=_read_count_detail(counted, INPUT_NAMES, "cached_tokens"),
            output_tokens=written or 0,
            reasoning_tokens=_read_count_detail(counted, OUTPUT_NAMES, "reasoning_tokens"),
            partial=None in (read, written),
        )

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum of two usages."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            partial=self.partial or other.partial,
        )

    def minus(self, other: "Usage") -> "Usage":
        """Return the difference of two usages, none of its counts below 0."""
        return Usage(
            input_tokens=max(0, self.input_tokens - other.input_tokens),
            cached_tokens=max(0, self.cached_tokens - other.cached_tokens),
            output_tokens=max(0, self.output_tokens - other.output_tokens),
            reasoning_tokens=max(0, self.reasoning_tokens - other.reasoning_tokens),
            partial=self.partial or other.partial,
        )


def count_exact_tokens(usage: Usage | None) -> int | None:
    """Return the sum of input and output; None if it is not known."""
    if usage is None or usage.partial:
        return None
    return usage.input_tokens + usage.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A question of a turn that must be answered before the job can continue."""

    id: str  #: `call_id` of a function call, or the id of an approval request
    kind: Literal["function", "approval"]  #: "approval": of a call that upstream makes to an MCP server
    name: str
    arguments: str  #: JSON as the model wrote it
    needs: Literal["", "run", "approval", "output"] = ""  #: the kind of answer that it needs, once that is known
    state: Literal["open", "approved", "running", "done"] = "open"
    output: object = None  #: its answer for upstream
    started_at: float | None = field(default=None, compare=False)  #: when this side began to run it
    finished_at: float | None = field(default=None, compare=False)

    @property
    def is_question(self) -> bool:
        """Return True if the user or the host has to answer the call."""
        return self.state == "open" and self.needs in ("approval", "output")


def calls_of(items: list[JSON]) -> list[Call]:
    """Return the calls that a response asks for: functions without an output in it, and approvals of MCP calls."""
    answered = {str(item.get("call_id")) for item in items if str(item.get("type")).endswith("_call_output")}
    asking = [item for item in with_call_ids(items) if str(item.get("type")) in _ID_OF_CALL]
    return [_call_of(item) for item in asking if item[_ID_OF_CALL[str(item["type"])]] not in answered]


def _call_of(item: JSON) -> Call:
    name, arguments = string_of(item.get("name")), format_arguments(item.get("arguments"))
    if item["type"] == "function_call":
        return Call(id=item["call_id"], kind="function", name=name, arguments=arguments)
    server = item.get("server_label") or "mcp"
    return Call(id=item["id"], kind="approval", name=f"{server}/{name}", arguments=arguments, needs="approval")


def with_call_ids(items: list[JSON]) -> list[JSON]:
    """Return the items with an id for each call: one that is missing or was used before is replaced.

    The same items always get the same ids.
    """
    seen: set[str] = set()
    identified: list[JSON] = []
    for item in items:
        field_name = _ID_OF_CALL.get(str(item.get("type")))
        if field_name is not None:
            call_id = _free_call_id(item, field_name, seen)
            seen.add(call_id)
            item = {**item, field_name: call_id}
        identified.append(item)
    return identified


def _free_call_id(item: JSON, field_name: str, taken: Collection[str]) -> str:
    """Return the item's own id, or one made of it that no other call has."""
    given = string_of(item.get(field_name))
    if given and given not in taken and not _MADE_ID.search(given):
        return given
    base = given or string_of(item.get("id")) or "call"
    number = 1
    if base in taken:
        number = 2
    while (call_id := f"{base}~{number}") in taken:
        number += 1
    return call_id


def find_upstream_call_id(call_id: str) -> str:
    """Return upstream's id of a call, if the call has one."""
    return _MADE_ID.sub("", call_id)


def format_arguments(arguments: object) -> str:
    """Return a call's arguments as JSON text; null and lists stay what they are."""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, default=str)


def text_of(items: list[JSON]) -> str:
    """Return the text of a response's output, refusals included; of marked phases only the final answer."""
    messages = [item for item in items if item.get("type") == "message"]
    final = [message for message in messages if message.get("phase") == "final_answer"]
    texts = ["".join(map(_part_text, items_of(message.get("content")))) for message in final or messages]
    return "\n\n".join(filter(None, texts))


def has_answer(items: list[JSON]) -> bool:
    """Return True if the output has text or calls."""
    return bool(text_of(items) or calls_of(items))


def with_text(response: JSON, text: str) -> JSON:
    """Return the response with text that only its stream brought, as an incomplete message."""
    part: JSON = {"type": "output_text", "text": text, "annotations": []}
    message: JSON = {
        "id": PARTIAL_ID,
        "type": "message",
        "role": "assistant",
        "status": "incomplete",
        "content": [part],
    }
    return {**response, "output": [*items_of(response.get("output")), message]}


def mapping_of(value: object) -> JSON:
    """Return the object that upstream should have sent here; empty for anything else."""
    if isinstance(value, dict):
        return cast(JSON, value)
    return {}


def items_of(value: object) -> list[JSON]:
    """Return the objects in a list that upstream should have sent here, without anything else in it."""
    if not isinstance(value, list):
        return []
    return [cast(JSON, item) for item in cast("list[object]", value) if isinstance(item, dict)]


def string_of(value: object) -> str:
    """Return the text that upstream should have sent here; empty for anything else."""
    if isinstance(value, str):
        return value
    return ""


def drop_fields(facts: JSON, *names: str) -> dict[str, Any]:
    """Return a copy of an object without the fields of these names."""
    return {name: value for name, value in facts.items() if name not in names}


#: Words for one and for several items of a running response, in the order in which they are shown.
_ACTIVITY_WORDS = {
    "web_search_call": ("search", "searches"),
    "file_search_call": ("file search", "file searches"),
    "code_interpreter_call": ("code run", "code runs"),
    "image_generation_call": ("image", "images"),
    "mcp_call": ("tool call", "tool calls"),
    "function_call": ("function call", "function calls"),
}
#: Words for the last item, which the model works on.
_LAST_ACTIVITY_WORDS = {"reasoning": "reasoning", "message": "writing"}


def activity_of(items: list[JSON]) -> str:
    """Return the steps of a running response so far, like `3 searches; reasoning`; empty if it is not known."""
    kinds = [str(item.get("type")) for item in items]
    words = [_count_words(kinds.count(kind), *_ACTIVITY_WORDS[kind]) for kind in _ACTIVITY_WORDS if kind in kinds]
    words += [_LAST_ACTIVITY_WORDS[kind] for kind in kinds[-1:] if kind in _LAST_ACTIVITY_WORDS]
    return "; ".join(words)


def _count_words(number: int, singular: str, plural: str) -> str:
    if number == 1:
        return f"1 {singular}"
    return f"{number} {plural}"


def read_end_failure(response: JSON, end: str) -> Failure | None:
    """Return the reason of an end other than `completed`, from wherever upstream wrote it."""
    match end:
        case "failed":
            return read_failure(response) or Failure("failed", "The provider gave no reason.")
        case "incomplete":
            details = mapping_of(response.get("incomplete_details"))
            return Failure(str(details.get("reason") or "incomplete"), "The output was cut short.")
        case _:
            return None


def read_failure(response: JSON) -> Failure | None:
    """Return the error that a response names: an object, a text, or one or several of them in a list."""
    names = ("error", "errors", "last_error", "detail", "message")
    failures = (_join_errors(_errors_of(response.get(name))) for name in names)
    return next(filter(None, failures), None)


def _join_errors(errors: list[JSON]) -> Failure | None:
    """Return the first code and all messages of these errors; None if they have neither."""
    codes = [str(code) for error in errors if (code := _find_filled(error, "code", "type"))]
    messages = [str(words) for error in errors if (words := _find_filled(error, "message", "msg", "detail"))]
    if not [*codes, *messages]:
        return None
    return Failure(next(iter(codes), "failed"), "; ".join(messages) or "The provider gave no reason.")


def _find_filled(error: JSON, *names: str) -> object:
    """Return the first field under these names that holds something."""
    return next(filter(None, map(error.get, names)), None)


def _errors_of(value: object) -> list[JSON]:
    """Return one error or a list of them as objects; a text becomes a message."""
    errors = cast("list[object]", value) if isinstance(value, list) else [value]
    return [mapping_of(error) or {"message": error} for error in errors if error]


def read_status(response: JSON) -> object:
    """Return the status in OpenAI's spelling; an error without a status is a failure."""
    status = response.get("status")
    if status is None and response.get("error"):
        return "failed"
    return _STATUS_SPELLINGS.get(str(status), status)


def has_ended(response: JSON) -> bool:
    """Return True if the response says that it ended."""
    return read_status(response) in ("completed", "incomplete", "failed", "cancelled")


def _part_text(part: JSON) -> str:
    return string_of(part.get("text")) or string_of(part.get("refusal"))


def _read_count(counts: JSON, *names: str) -> int | None:
    """Return the largest count under these names: gateways fill the name that they do not use with 0."""
    return max((count for name in names if (count := read_whole_number(counts.get(name))) is not None), default=None)


def _read_count_detail(counts: JSON, names: Sequence[str], detail: str) -> int:
    return max(read_whole_number(mapping_of(counts.get(f"{name}_details")).get(detail)) or 0 for name in names)


def read_whole_number(value: object) -> int | None:
    """Return a whole number that fits a column of the database; None for anything else."""
    if type(value) is int and 0 <= value < 2**63:
        return value
    return None
