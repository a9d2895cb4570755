"""What a follow-up goes on from, as upstream takes it: by its id, or said again item by item. Pure."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import cast

from agent_jobs.jobs.response import JSON, Call, arguments_text, calls_of, items_of, with_call_ids

#: How a request names what went before it; only one of them may stand there.
LINKS = ("previous_response_id", "conversation")
#: What upstream says of a link that it does not know (any more).
FORGOTTEN_CODES = frozenset({"previous_response_not_found", "conversation_not_found"})
#: What is said in words only, also with another id than ours: gateways know a response by an id of their own. The call
#: of an output, or an item, is missing where the link was accepted and not followed.
_LOST = re.compile(
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
#: What the API takes in the name of a function, also of one that a model made up.
NAME_CHARS = 64
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")


def continue_request(body: JSON, link: JSON, exchanges: Sequence[tuple[JSON, JSON]] = ()) -> JSON:
    """The body with what went before it: a link that upstream knows, or all that was said, oldest first.

    Args:
        body: A request.
        link: `previous_response_id` or `conversation`, in the place of the body's.
        exchanges: Requests and the responses to them, where the link does not lead to them.
    """
    if not exchanges:
        return {**body, **link}
    answers = {
        _answered_id(item)
        for request in (*(request for request, _ in exchanges), body)
        for item in _input_items(request)
    }
    said = [
        item
        for request, response in exchanges
        for item in (*_input_items(request), *_output_as_input(response, answers))
    ]
    kept = {name: value for name, value in body.items() if name not in LINKS}
    # Nothing of this thread may be known upstream by the next time either.
    include = [*(name for name in cast("list[str]", body.get("include", [])) if name != ENCRYPTED), ENCRYPTED]
    return {**kept, **link, "input": [*said, *_input_items(body)], "include": include}


def answer_item(call: Call) -> JSON:
    """Return what goes upstream for a call."""
    if call.kind == "approval":
        answer = {"type": "mcp_approval_response", "approval_request_id": call.id, "approve": call.output is True}
        return answer if call.output is True else {**answer, "reason": str(call.output)}
    return {"type": "function_call_output", "call_id": call.id, "output": call.output}


def count_exchange_chars(exchanges: Sequence[tuple[JSON, JSON]]) -> int:
    """Return how many characters of text were said in exchanges, runs of blanks as one; no pictures and files."""
    return _count_text_chars(continue_request({"input": []}, {}, exchanges)["input"]) if exchanges else 0


def _count_text_chars(value: object) -> int:
    if isinstance(value, str):
        return len(" ".join(value.split()))
    if isinstance(value, list):
        return sum(map(_count_text_chars, cast("list[object]", value)))
    if not isinstance(value, dict):
        return 0
    facts = cast(JSON, value)
    return sum(_count_text_chars(facts.get(name)) for name in ("content", "text", "arguments", "output"))


def without_reasoning(body: JSON) -> JSON:
    """The body without reasoning in its input."""
    return {**body, "input": [item for item in _input_items(body) if item.get("type") != "reasoning"]}


def has_repeatable_output(response: JSON, closing: Iterable[JSON] = ()) -> bool:
    """Return True if anything in a response can be told again, given the answers to its calls."""
    return any(True for _ in _output_as_input(response, {_answered_id(item) for item in closing}))


def has_output_or_calls(response: JSON) -> bool:
    """Return True if a response says anything or asks for calls."""
    return has_repeatable_output(response) or bool(calls_of(items_of(response.get("output"))))


def closing_answers(response: JSON, calls: Iterable[Call], why: str) -> list[JSON]:
    """Return an answer to each call that a response asks for, so that it can be gone on from.

    Args:
        response: The last response of a job that ended.
        calls: Its calls, as far as any were made.
        why: Why the others were not made, as the rest of a sentence.
    """
    known = {call.id: call for call in calls}
    asked = [known.get(call.id, call) for call in calls_of(items_of(response.get("output")))]
    return [answer_item(replace(call, output=_closing_output(call, why))) for call in asked]


def _closing_output(call: Call, why: str) -> object:
    if call.state == "running" or call.output is True:  # an approval of what upstream may have done since
        return f"The outcome of this call is unknown: {why}. Look whether it took effect before you repeat it."
    return call.output if call.state == "done" else f"This call was not made: {why}."


def with_answers(body: JSON, answers: Sequence[JSON]) -> JSON:
    """Return the body with answers to the calls of the response that it goes on from, before what it asks for."""
    return {**body, "input": [*answers, *_input_items(body)]} if answers else body


def is_context_lost(body: JSON, code: str, param: str, words: str, *, named_in: str = "") -> bool:
    """Return True if an error means that upstream does not know what the request goes on from.

    Args:
        body: The request.
        code: The error's code.
        param: The parameter that it names.
        words: Its message, read for what servers say of a response that they do not have.
        named_in: Its message, read for the link's own id alone.
    """
    links = [str(body[link]) for link in LINKS if link in body]
    if code == "conversation_locked":
        return False
    # A conversation that is gone is told of in words only.
    named = any(link in words or link in named_in for link in links)
    return named or code in FORGOTTEN_CODES or param in LINKS or bool(links and _LOST.search(words))


def is_reasoning_unreadable(code: str, param: str) -> bool:
    """Whether a refusal means that reasoning was encrypted for somebody else: another organization, another server."""
    return "encrypted_content" in code or "encrypted_content" in param


def _input_items(request: JSON) -> Iterable[JSON]:
    """A request's input as items."""
    given = request.get("input")
    if isinstance(given, list):
        return [cast(JSON, item) for item in cast("list[object]", given) if isinstance(item, dict)]
    return [{"role": "user", "content": given}]


def _answered_id(item: JSON) -> object:
    """What an item of an input answers: a call, a request for an approval, or nothing."""
    return item.get("call_id") or item.get("approval_request_id")


def _output_as_input(response: JSON, answers: Container[object] = ()) -> Iterable[JSON]:
    """A response's output as input: without the ids of what upstream may have forgotten, and what only they explain.

    Calls stay where their answers are told too: one without the other is refused.
    """
    leading: list[JSON] = []  # reasoning, which is refused without what it led to
    for item in with_call_ids(items_of(response.get("output"))):
        told = _item_as_input(item, answers)
        if told is None or told["type"] == "mcp_approval_request":  # if this is what it led to, nobody says
            leading.clear()
        if told is None:
            continue
        if told["type"] == "reasoning":
            leading.append(told)
        else:
            yield from (*leading, told)
            leading.clear()


def _item_as_input(item: JSON, answers: Container[object]) -> JSON | None:
    """An item of an output as one of an input; None for what a hosted tool did, which the next message tells."""
    match dict(item):
        case {"type": "message", "content": [_, *_] as content, **rest}:
            phase = {"phase": rest["phase"]} if rest.get("phase") else {}
            return {
                "type": "message",
                "role": "assistant",
                "content": [_message_part_as_input(part) for part in items_of(content)],
                **phase,
            }
        case {"type": "reasoning", "encrypted_content": str() as encrypted, **rest} if encrypted:
            return {"type": "reasoning", "summary": rest.get("summary") or [], "encrypted_content": encrypted}
        case {"type": "mcp_approval_request", "id": str() as approval_id} as whole if approval_id in answers:
            return {name: value for name, value in whole.items() if name != "status"}
        case {"type": "function_call" | "custom_tool_call", "call_id": call_id} if call_id not in answers:
            return None
        case {"type": "function_call", **rest}:
            kept = {name: value for name, value in rest.items() if name not in ("id", "status")}
            name = _NO_NAME.sub("_", str(rest.get("name") or "_"))[:NAME_CHARS]
            arguments = arguments_text(rest.get("arguments"))
            return {"type": "function_call", **kept, "name": name, "arguments": arguments}
        case {"type": "custom_tool_call" | "compaction"} as whole:
            return {name: value for name, value in whole.items() if name not in ("id", "status")}
        case _:
            return None


def _message_part_as_input(part: JSON) -> JSON:
    """A part of a message without its citations, which may name files that are gone."""
    if part.get("type") == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal")}
    return {"type": "output_text", "text": part.get("text") or "", "annotations": []}
