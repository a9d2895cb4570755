"""Link a follow-up to what went before: by the id of a response, or by repeating the conversation. Pure."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import cast

from agent_jobs.jobs.response import (
    JSON,
    Call,
    calls_of,
    drop_fields,
    format_arguments,
    items_of,
    string_of,
    with_call_ids,
)

#: Parameters that link a request to what went before it; a request may have one of them.
LINKS = ("previous_response_id", "conversation")
#: Error codes of a link that upstream does not know, or not any more.
LOST_CONTEXT_CODES = frozenset({"previous_response_not_found", "conversation_not_found"})
#: The same in messages, also with another id than ours: gateways have ids of their own. A gateway that accepted the
#: link and did not follow it reports a call or an item as missing.
_LOST_CONTEXT = re.compile(
    r"previous[ _-]?response"
    r"|\b(?:no|unknown) (?:such )?(?:response|conversation) (?:found|exists|with|for|id)\b"
    r"|\b(?:no such|unknown) (?:response|conversation)\b"
    r"|\b(?:not|n't|failed to) find (?:the |a |any )?(?:response|conversation)\b"
    r"|\b(?:response|conversation)(?:[ _]id| with(?: the)? id| id)?[\s:='\"`(]+(?:\S*[\d_]\S*\s+)?"
    r"(?:was |is |has |could |can |does )?(?:not (?:be )?(?:found|exist|stored|retained)|doesn't exist|no longer"
    r"|expired|been (?:deleted|evicted|removed))"
    r"|\bno (?:tool|function) call found for\b"
    r"|\bitem with id\b.{0,100}\bnot found\b",
    re.IGNORECASE,
)
ENCRYPTED = "reasoning.encrypted_content"
#: Longest name of a function that the API accepts, also of one that a model made up.
NAME_CHARS = 64
#: Characters that the API refuses in such a name.
_REFUSED_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")


def continue_request(body: JSON, link: JSON, exchanges: Sequence[tuple[JSON, JSON]] = ()) -> JSON:
    """Return the body with what went before it: a link that upstream knows, or the whole conversation, oldest first.

    Args:
        body: A request.
        link: `previous_response_id` or `conversation`, instead of the body's.
        exchanges: Requests and the responses to them, if the link does not lead to them.
    """
    if not exchanges:
        return {**body, **link}
    requests = [*(request for request, _ in exchanges), body]
    answered_ids = set(map(find_answered_id, chain.from_iterable(map(_input_items, requests))))
    conversation: list[JSON] = []
    for request, response in exchanges:
        conversation += [*_input_items(request), *_output_as_input(response, answered_ids)]
    # Upstream may not know this conversation by the next time either, and then its reasoning is needed here.
    include = dict.fromkeys([*body.get("include", []), ENCRYPTED])
    kept = drop_fields(body, *LINKS)
    return {**kept, **link, "input": [*conversation, *_input_items(body)], "include": [*include]}


def build_answer_item(call: Call) -> JSON:
    """Return the input item that answers a call."""
    if call.kind == "approval":
        item = {"type": "mcp_approval_response", "approval_request_id": call.id, "approve": call.output is True}
        if call.output is True:
            return item
        return {**item, "reason": str(call.output)}
    return {"type": "function_call_output", "call_id": call.id, "output": call.output}


def count_exchange_chars(exchanges: Sequence[tuple[JSON, JSON]]) -> int:
    """Return the number of characters of text in exchanges, without pictures and files; runs of blanks count as one."""
    return _count_text_chars(continue_request({"input": []}, {}, exchanges)["input"])


def _count_text_chars(value: object) -> int:
    match value:
        case str():
            return len(" ".join(value.split()))
        case list():
            return sum(map(_count_text_chars, cast("list[object]", value)))
        case dict():
            facts = cast(JSON, value)
            return sum(map(_count_text_chars, map(facts.get, ("content", "text", "arguments", "output"))))
        case _:
            return 0


def without_reasoning(body: JSON) -> JSON:
    """Return the body without reasoning in its input."""
    return {**body, "input": [item for item in _input_items(body) if item.get("type") != "reasoning"]}


def has_repeatable_output(response: JSON, closing: Iterable[JSON] = ()) -> bool:
    """Return True if anything in a response can be repeated as input, given the answers to its calls."""
    repeatable = _output_as_input(response, set(map(find_answered_id, closing)))
    return next(iter(repeatable), None) is not None


def has_output_or_calls(response: JSON) -> bool:
    """Return True if a response has output that can be repeated, or asks for calls."""
    return has_repeatable_output(response) or bool(calls_of(items_of(response.get("output"))))


def build_closing_answers(response: JSON, calls: Iterable[Call], why: str) -> list[JSON]:
    """Return an answer to each call that a response asks for, so that another request can continue it.

    Args:
        response: The last response of a job that ended.
        calls: Those of its calls that were made.
        why: The reason why the others were not made, as the rest of a sentence.
    """
    known = {call.id: call for call in calls}
    asked = [known.get(call.id, call) for call in calls_of(items_of(response.get("output")))]
    return [build_answer_item(replace(call, output=_closing_output(call, why))) for call in asked]


def _closing_output(call: Call, why: str) -> object:
    if call.state == "running" or call.output is True:  # upstream may have acted on the approval since
        return f"The outcome of this call is unknown: {why}. Check whether it took effect before you repeat it."
    if call.state == "done":
        return call.output
    return f"This call was not made: {why}."


def with_answers(body: JSON, answers: Sequence[JSON]) -> JSON:
    """Return the body with answers to the calls of the response before it, ahead of its own input."""
    if not answers:
        return body
    return {**body, "input": [*answers, *_input_items(body)]}


def is_context_lost(body: JSON, code: str, param: str, words: str, *, named_in: str = "") -> bool:
    """Return True if an error means that upstream does not know what the request continues.

    Args:
        body: The request.
        code: The error's code.
        param: The parameter that it names.
        words: Its message, searched for the words of servers that do not have a response.
        named_in: Its message, searched for the link's own id alone.
    """
    links = [str(body[link]) for link in LINKS if link in body]
    if code == "conversation_locked":
        return False
    # A conversation that is gone is reported in the message only.
    named = any(link in f"{words}\n{named_in}" for link in links)
    return named or code in LOST_CONTEXT_CODES or param in LINKS or bool(links and _LOST_CONTEXT.search(words))


def is_reasoning_unreadable(code: str, param: str) -> bool:
    """Return True if a refusal means that the reasoning was encrypted for another organization or server."""
    return "encrypted_content" in code or "encrypted_content" in param


def _input_items(request: JSON) -> Iterable[JSON]:
    """Return a request's input as items."""
    given = request.get("input")
    if isinstance(given, list):
        return items_of(cast("object", given))
    return [{"role": "user", "content": given}]


def find_answered_id(item: JSON) -> object:
    """Return the id of the call or approval request that an item of an input answers; None for other items."""
    return item.get("call_id") or item.get("approval_request_id")


def _output_as_input(response: JSON, answers: Container[object] = ()) -> Iterable[JSON]:
    """Yield a response's output as input, without ids that upstream may not know any more.

    Calls stay if their answers follow: upstream refuses one without the other.
    """
    leading: list[JSON] = []  # reasoning, which upstream refuses without the item that follows it
    for item in with_call_ids(items_of(response.get("output"))):
        match _item_as_input(item, answers):
            case None:
                leading.clear()
            case {"type": "reasoning"} as reasoning:
                leading.append(reasoning)
            case {"type": "mcp_approval_request"} as request:
                # Upstream does not document whether reasoning may precede an approval request.
                leading.clear()
                yield request
            case repeated:
                yield from (*leading, repeated)
                leading.clear()


def _item_as_input(item: JSON, answers: Container[object]) -> JSON | None:
    """Return an item of an output as one of an input; None for a hosted tool's, whose result is in the next message."""
    match dict(item):
        case {"type": "message", "content": [_, *_] as content, **rest}:
            parts = list(map(_message_part_as_input, items_of(content)))
            phase = {"phase": rest["phase"]} if rest.get("phase") else {}
            return {"type": "message", "role": "assistant", "content": parts, **phase}
        case {"type": "reasoning", "encrypted_content": str() as encrypted, **rest} if encrypted:
            return {"type": "reasoning", "summary": rest.get("summary") or [], "encrypted_content": encrypted}
        case {"type": "mcp_approval_request", "id": str() as approval_id} as whole if approval_id in answers:
            return drop_fields(whole, "status")
        case {"type": "function_call", "call_id": call_id, **rest} if call_id in answers:
            kept = drop_fields(rest, "id", "status")
            name = _REFUSED_IN_NAME.sub("_", string_of(rest.get("name")) or "_")[:NAME_CHARS]
            arguments = format_arguments(rest.get("arguments"))
            return {"type": "function_call", "call_id": call_id, **kept, "name": name, "arguments": arguments}
        case {"type": "compaction" | "custom_tool_call" as kind} as whole if (
            kind == "compaction" or whole.get("call_id") in answers
        ):
            return drop_fields(whole, "id", "status")
        case _:
            return None


def _message_part_as_input(part: JSON) -> JSON:
    """Return a part of a message without its citations, which may name files that are gone."""
    if part.get("type") == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal")}
    return {"type": "output_text", "text": part.get("text") or "", "annotations": []}
