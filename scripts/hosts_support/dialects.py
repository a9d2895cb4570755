"""The three APIs that hosts speak with their model: OpenAI's Responses and Chat Completions, Anthropic's Messages.

Each dialect reads a request as a `Conversation`, and writes a move as one JSON object or as the events of a stream.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from .script import SEARCH, Conversation, Move, Tool, ToolCall

Json = dict[str, Any]
#: The name of an event, None where the API names none, and its data.
Event = tuple[str | None, Json]

CREATED = 1_700_000_000


@dataclass(frozen=True)
class Dialect:
    """One API."""

    read: Callable[[Json], Conversation]
    write: Callable[[Move], Json]
    stream: Callable[[Json], Iterable[Event]]  #: the events that bring what `write` returned
    last_line: str = ""


def text_of(content: Any) -> str:
    """Return all text in the content of a message, however it is nested."""
    if isinstance(content, list):
        return "\n".join(map(text_of, cast("list[Any]", content)))
    if isinstance(content, dict):
        part = cast("Json", content)
        return text_of(part.get("text") or part.get("content") or part.get("output"))
    return content or ""


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


# OpenAI Responses


def _read_responses(body: Json) -> Conversation:
    given = body["input"]
    items = cast("list[Json]", given) if isinstance(given, list) else [{"content": given}]
    offered: list[Json] = [*body.get("tools", [])]
    for item in items:
        offered += item.get("tools", [])  # what a search has found
    tools: list[Tool] = []
    for tool in offered:
        if tool["type"] == "namespace":
            tools += [Tool(inner["name"], namespace=tool["name"]) for inner in tool["tools"]]
        else:
            tools.append(Tool(tool.get("name", tool["type"])))
    answers = tuple(text_of(item["output"]) for item in items if item.get("type") == "function_call_output")
    return Conversation(text_of(items), tuple(tools), answers)


def _write_responses(move: Move) -> Json:
    if isinstance(move, ToolCall) and move.tool.name == SEARCH:
        item: Json = {
            "type": "tool_search_call", "id": _new_id("tsc"), "call_id": _new_id("call"), "status": "completed",
            "execution": "client", "arguments": move.arguments,
        }  # fmt: skip
    elif isinstance(move, ToolCall):
        item = {
            "type": "function_call", "id": _new_id("fc"), "call_id": _new_id("call"), "status": "completed",
            "name": move.tool.name, "arguments": json.dumps(move.arguments),
        }  # fmt: skip
        if move.tool.namespace:
            item["namespace"] = move.tool.namespace
    else:
        text: Json = {"type": "output_text", "text": move, "annotations": []}
        item = {"type": "message", "id": _new_id("msg"), "status": "completed", "role": "assistant", "content": [text]}
    usage = {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "total_tokens": 20,
        "output_tokens": 10, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    return {
        "id": _new_id("resp"), "object": "response", "created_at": CREATED, "model": "scripted", "status": "completed",
        "output": [item], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def _stream_responses(response: Json) -> Iterable[Event]:
    [item] = response["output"]
    begun: Json = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    for number, event in enumerate(events):
        yield event["type"], {**event, "sequence_number": number}


# Anthropic Messages


def _read_messages(body: Json) -> Conversation:
    blocks: list[Json] = []
    for message in body["messages"]:
        if isinstance(message["content"], list):
            blocks += message["content"]
    answers = tuple(text_of(block.get("content")) for block in blocks if block["type"] == "tool_result")
    tools = tuple(Tool(tool["name"]) for tool in body.get("tools", []))
    return Conversation(text_of(body["messages"]), tools, answers)


def _write_messages(move: Move) -> Json:
    if isinstance(move, ToolCall):
        block: Json = {"type": "tool_use", "id": _new_id("toolu"), "name": move.tool.name, "input": move.arguments}
        reason = "tool_use"
    else:
        block, reason = {"type": "text", "text": move}, "end_turn"
    return {
        "id": _new_id("msg"), "type": "message", "role": "assistant", "model": "scripted", "content": [block],
        "stop_reason": reason, "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 10},
    }  # fmt: skip


def _stream_messages(message: Json) -> Iterable[Event]:
    [block] = message["content"]
    begun: Json
    if block["type"] == "tool_use":
        begun = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    else:
        begun = {**block, "text": ""}
        delta = {"type": "text_delta", "text": block["text"]}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events: list[Json] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": message["usage"]},
        {"type": "message_stop"},
    ]
    for event in events:
        yield event["type"], event


# OpenAI Chat Completions


def _read_chat(body: Json) -> Conversation:
    answers = tuple(text_of(message["content"]) for message in body["messages"] if message["role"] == "tool")
    offered: list[Json] = body.get("tools") or []
    tools = tuple(Tool(tool["function"]["name"]) for tool in offered)
    return Conversation(text_of(body["messages"]), tools, answers)


def _write_chat(move: Move) -> Json:
    message: Json = {"role": "assistant", "content": None}
    if isinstance(move, ToolCall):
        function = {"name": move.tool.name, "arguments": json.dumps(move.arguments)}
        message["tool_calls"] = [{"index": 0, "id": _new_id("call"), "type": "function", "function": function}]
        reason = "tool_calls"
    else:
        message["content"], reason = move, "stop"
    return {
        "id": _new_id("chatcmpl"), "object": "chat.completion", "created": CREATED, "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
    }  # fmt: skip


def _stream_chat(completion: Json) -> Iterable[Event]:
    [choice] = completion["choices"]
    chunk = {**completion, "object": "chat.completion.chunk", "usage": None}
    yield None, {**chunk, "choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]}
    yield None, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    yield None, {**chunk, "choices": [], "usage": completion["usage"]}


#: By the end of the path that is posted to.
DIALECTS = {
    "/responses": Dialect(_read_responses, _write_responses, _stream_responses),
    "/messages": Dialect(_read_messages, _write_messages, _stream_messages),
    "/chat/completions": Dialect(_read_chat, _write_chat, _stream_chat, last_line="data: [DONE]\n\n"),
}
