"""Reads an OpenAI response object: its usage, failure, calls, text and activity. Pure."""

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

#: Failures that time does not cure, whatever upstream says beside them. A start that is unconfirmed may be running:
#: starting it again could be paid twice.
NOT_RETRYABLE = frozenset(
    {"start_unconfirmed", "invalid_api_key", "account_refused", "insufficient_quota", "missing_secret"}
)
#: What upstream says of a failure that time alone cures.
_AGAIN = re.compile(r"\b(?:try(?:ing)? again|retry)\b.{0,30}?(?:\bin \d|\bafter \d|\blater\b|\bshortly\b)", re.I)
#: Ends as some servers write them.
_SPELLINGS = {"error": "failed", "errored": "failed", "canceled": "cancelled"}
#: Id of the message that holds what a stream brought of a text, where no response object has it.
PARTIAL_ID = "msg_from_stream"

#: What asks to be answered, and the field of it that the answer names.
_ID_OF_CALL = {"function_call": "call_id", "mcp_approval_request": "id"}
#: How an id ends that is ours, because upstream gave a call none, or one of another call.
_MADE_ID = re.compile(r"~\d+$")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job did not complete: upstream's code and words, or one of ours."""

    code: str
    message: str

    @property
    def is_retryable(self) -> bool:
        """Whether starting the same work again is sensible."""
        if self.code in NOT_RETRYABLE:
            return False
        return self.code in RETRYABLE or _AGAIN.search(self.message) is not None


#: The counts of a usage in the Responses API, and in chat completions.
INPUT_NAMES = ("input_tokens", "prompt_tokens")
OUTPUT_NAMES = ("output_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a turn as upstream counted them; at least so many where it is partial."""

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
            partial=read is None or written is None,
        )

    @property
    def exact_tokens(self) -> int | None:
        """Input and output together; None where a part of them is not known."""
        return None if self.partial else self.input_tokens + self.output_tokens

    def plus(self, other: "Usage | None") -> "Usage":
        """Both together."""
        if other is None:
            return self
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            partial=self.partial or other.partial,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Something that a turn asks for before the job can go on."""

    id: str  #: `call_id` of a function call, or the id of an approval request
    kind: Literal["function", "approval"]  #: the second: of a call that upstream itself makes to an MCP server
    name: str
    arguments: str  #: JSON as the model wrote it
    needs: Literal["", "run", "approval", "output"] = ""  #: what it waits for, once that was found out
    state: Literal["open", "approved", "running", "done"] = "open"
    output: object = None  #: what goes upstream as its answer


def calls_of(items: list[JSON]) -> list[Call]:
    """What a response asks for: function calls without an output in it, and approvals of MCP calls."""
    answered = {str(item.get("call_id")) for item in items if str(item.get("type")).endswith("_call_output")}
    calls: list[Call] = []
    for item in with_call_ids(items):
        kind = str(item.get("type"))
        if kind not in _ID_OF_CALL:
            continue
        call_id = item[_ID_OF_CALL[kind]]
        if call_id not in answered:
            name, arguments = str(item.get("name") or ""), item.get("arguments")
            of_function = kind == "function_call"
            server = "" if of_function else f"{item.get('server_label') or 'mcp'}/"
            calls.append(
                Call(
                    id=call_id,
                    kind="function" if of_function else "approval",
                    name=f"{server}{name}",
                    arguments=arguments_text(arguments),
                    needs="" if of_function else "approval",
                )
            )
    return calls


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
            if call_id != item.get(field_name):
                item = {**item, field_name: call_id}
        identified.append(item)
    return identified


def _free_call_id(item: JSON, field_name: str, taken: Collection[str]) -> str:
    given = item.get(field_name)
    if isinstance(given, str) and given and given not in taken and not _MADE_ID.search(given):
        return given
    base = next((each for each in (given, item.get("id")) if isinstance(each, str) and each), "call")
    number = 2 if base in taken else 1
    while (call_id := f"{base}~{number}") in taken:
        number += 1
    return call_id


def upstream_call_id(call_id: str) -> str:
    """Return the id by which upstream knows a call, as far as it gave the call one."""
    return _MADE_ID.sub("", call_id)


def arguments_text(arguments: object) -> str:
    """Return a call's arguments as JSON text; null and lists stay what they are."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)


def text_of(items: list[JSON]) -> str:
    """The text to show of a response's output: the final answer where phases are marked, refusals included."""
    messages = [item for item in items if item.get("type") == "message"]
    final = [message for message in messages if message.get("phase") == "final_answer"]
    texts = ["".join(_part_text(part) for part in items_of(message.get("content"))) for message in final or messages]
    return "\n\n".join(text for text in texts if text)


def has_answer(items: list[JSON]) -> bool:
    """Return True if the output holds text or asks for calls."""
    return bool(text_of(items) or calls_of(items))


def with_text(response: JSON, text: str) -> JSON:
    """Return the response with text that only its stream brought, as a message marked as incomplete."""
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
    """The object that upstream should have sent here; empty for anything else."""
    return cast(JSON, value) if isinstance(value, dict) else {}


def items_of(value: object) -> list[JSON]:
    """The objects in a list that upstream should have sent here; what is something else is left out."""
    return (
        [cast(JSON, item) for item in cast("list[object]", value) if isinstance(item, dict)]
        if isinstance(value, list)
        else []
    )


#: How the items of a running response are told in a few words, in this order.
_WORDS = {
    "web_search_call": "searches",
    "file_search_call": "file searches",
    "code_interpreter_call": "code runs",
    "image_generation_call": "images",
    "mcp_call": "tool calls",
    "function_call": "function calls",
}


def activity_of(items: list[JSON]) -> str:
    """What a running response has done so far, like `3 searches; reasoning`; empty when nothing is known."""
    kinds = [item.get("type") for item in items]
    counted = [(kinds.count(kind), word) for kind, word in _WORDS.items()]
    words = [f"{n} {word if n > 1 else _singular_word(word)}" for n, word in counted if n]
    last = {"reasoning": "reasoning", "message": "writing"}.get(str(kinds[-1])) if kinds else None
    return "; ".join([*words, last] if last else words)


def _singular_word(word: str) -> str:
    return word.removesuffix("es") if word.endswith("ches") else word.removesuffix("s")


def failure_of_end(response: JSON, end: str) -> Failure | None:
    """The reason of an end that is not `completed`, from wherever upstream wrote it."""
    details = mapping_of(response.get("incomplete_details"))
    if end == "failed":
        return failure_in(response) or Failure("failed", "Upstream gave no reason.")
    if end == "incomplete":
        return Failure(str(details.get("reason") or "incomplete"), "The output was cut short.")
    return None


def failure_in(response: JSON) -> Failure | None:
    """Return the error that a response names: an object, a text, or one or several of them in a list."""
    for name in ("error", "errors", "last_error", "detail", "message"):
        value = response.get(name)
        errors = cast("list[object]", value) if isinstance(value, list) else [value]
        found = [mapping_of(each) or {"message": each} for each in errors if each]
        codes = [each.get("code") or each.get("type") for each in found]
        words = [each.get("message") or each.get("msg") or each.get("detail") for each in found]
        if any(codes) or any(words):
            message = "; ".join(str(each) for each in words if each) or "Upstream gave no reason."
            return Failure(str(next(filter(None, codes), "failed")), message)
    return None


def response_status(response: JSON) -> object:
    """Return the status in upstream's own spelling; an error without a status that is known is a failure."""
    status = response.get("status")
    if isinstance(status, str) and status in _SPELLINGS:
        return _SPELLINGS[status]
    return "failed" if status is None and response.get("error") else status


def has_ended(response: JSON) -> bool:
    """Return True if the response says that it ended."""
    return response_status(response) in ("completed", "incomplete", "failed", "cancelled")


def _part_text(part: JSON) -> str:
    texts = [text for text in (part.get("text"), part.get("refusal")) if isinstance(text, str)]
    return texts[0] if texts else ""


def _read_count(counts: JSON, *names: str) -> int | None:
    """Return the count under any of these names; gateways fill the name that they do not use with 0."""
    return max((count for name in names if (count := whole_number(counts.get(name))) is not None), default=None)


def _read_count_detail(counts: JSON, names: Sequence[str], detail: str) -> int:
    return max(whole_number(mapping_of(counts.get(f"{name}_details")).get(detail)) or 0 for name in names)


def whole_number(value: object) -> int | None:
    """A whole number that fits a column, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
