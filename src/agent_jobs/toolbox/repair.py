"""Answers of tool servers, repaired before the SDK reads them.

The SDK withholds a whole list for one tool that is not as the protocol has it, and the whole answer of a call for one
part of it, when the tool already ran. What can be understood is kept; what cannot is said in its place.
"""

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, cast

from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, ToolAnnotations

from agent_jobs.toolbox.output import describe_left_out

Members = dict[str, Any]
_Repair = Callable[[Members, Callable[[str], None]], Members]

#: How much of a resource's address is repeated where it has no contents.
URI_CHARS = 200


@asynccontextmanager
async def repair_transport(transport: Transport, skip: Callable[[str], None]) -> AsyncGenerator[Any]:
    """Repair the answers that come over a transport.

    Args:
        transport: The way to the server.
        skip: Called with what is left out of a list of tools.
    """
    methods: dict[Any, str] = {}
    async with transport as (incoming, outgoing):
        yield _Incoming(incoming, methods, skip), _Outgoing(outgoing, methods)


class _Stream:
    """A stream that wraps another one and closes it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Any:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)


class _Outgoing(_Stream):
    """Remembers what was asked under which id."""

    def __init__(self, stream: Any, methods: dict[Any, str]) -> None:
        super().__init__(stream)
        self._methods = methods

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message."""
        if isinstance(item.message, JSONRPCRequest) and item.message.method in _REPAIRS:
            self._methods[item.message.id] = item.message.method
        await self._stream.send(item)


class _Incoming(_Stream):
    """Repairs what answers a request that was remembered."""

    def __init__(self, stream: Any, methods: dict[Any, str], skip: Callable[[str], None]) -> None:
        super().__init__(stream)
        self._methods = methods
        self._skip = skip

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)  # the SDK asks for `last_context`, which not all streams have

    def __aiter__(self) -> "_Incoming":
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._repair_message(await self._stream.__anext__())

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message."""
        return self._repair_message(await self._stream.receive())

    def _repair_message(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCResponse | JSONRPCError):
            method = self._methods.pop(item.message.id, None)
            if method is not None and isinstance(item.message, JSONRPCResponse):
                item.message.result = _REPAIRS[method](item.message.result, self._skip)
        return item


def repair_list(result: Members, skip: Callable[[str], None]) -> Members:
    """Return a list of tools without what no one needs in them, and without those that have no name."""
    tools = result.get("tools")
    if not isinstance(tools, list):
        return result
    kept = [tool for each in cast("list[Any]", tools) if (tool := _repair_tool(each)) is not None]
    if not kept and tools:
        return result  # no list of tools at all, which the SDK says best
    if nameless := len(cast("list[Any]", tools)) - len(kept):
        skip(f"{nameless} of its tools {'is' if nameless == 1 else 'are'} not offered, without a name to call it by")
    rest = {key: each for key, each in result.items() if not (key == "nextCursor" and not isinstance(each, str))}
    return {**rest, "tools": kept}


def _repair_tool(written: Any) -> Members | None:
    """Return a tool with what is used of it; None for one that has no name."""
    tool = cast("Members", written) if isinstance(written, dict) else {}
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        return None
    schema = next((tool[key] for key in ("inputSchema", "input_schema", "parameters") if key in tool), None)
    kept = {key: tool[key] for key in ("title", "description") if isinstance(tool.get(key), str)}
    # An output schema has no reader here. Without annotations a call waits for a person, which is never wrong.
    return {**kept, "name": name, "inputSchema": _repair_schema(schema), **_repair_annotations(tool.get("annotations"))}


def _repair_schema(written: Any) -> Members:
    """Return the schema of an object, as the protocol asks for."""
    schema = dict(cast("Members", written)) if isinstance(written, dict) else {}
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        schema.pop("properties", None)
    else:
        given = cast("Members", properties)
        schema["properties"] = {key: each if isinstance(each, dict) else {} for key, each in given.items()}
    required = schema.get("required")
    if required is not None:
        names = cast("list[Any]", required) if isinstance(required, list) else []
        schema["required"] = [each for each in names if isinstance(each, str)]
    if not isinstance(schema.get("$schema", ""), str):
        del schema["$schema"]
    return {**schema, "type": "object"}


def _repair_annotations(written: Any) -> Members:
    try:
        ToolAnnotations.model_validate(written, by_name=False, strict=True)
    except ValueError:
        return {}
    return {"annotations": written}


def repair_answer(result: Members, _skip: Callable[[str], None]) -> Members:
    """Return the answer of a call with parts that the protocol knows, and notes in the place of the others."""
    if result.get("resultType") == "input_required" or "task" in result:
        return result
    content = result.get("content")
    blocks: list[Any] = cast("list[Any]", content) if isinstance(content, list) else [content]
    structured = result.get("structuredContent")
    if content is None:
        blocks = []
        structured = result.get("toolResult") if structured is None else structured  # as the first protocol had it
    elif isinstance(content, str):
        return result  # no answer at all, which the SDK says best
    repaired: Members = {"resultType": "complete"} if "resultType" in result else {}
    repaired["content"] = [block for each in blocks for block in _repair_block(each)]
    repaired["isError"] = result.get("isError", result.get("is_error")) in (True, "true", "True")
    if structured is not None:
        # Until 2026-07-28 it had to be an object.
        repaired["structuredContent"] = structured if isinstance(structured, dict) else {"result": structured}
    return repaired


def _repair_block(written: Any) -> Iterator[Members]:
    """Return a part of an answer as parts of the protocol."""
    if not isinstance(written, dict):
        if written is not None:
            yield _build_text_block(written)
        return
    block = cast("Members", written)
    kind = _find_kind(block)
    data, mime = _find_data(block)
    resource = block.get("resource")
    if kind == "text":
        yield _build_text_block(block.get("text", ""))
    elif kind in ("image", "audio") and data is not None:
        yield {"type": kind, "data": data, "mimeType": mime}
    elif kind == "resource_link" and isinstance(block.get("uri"), str):
        description = _find_first([block], "description")
        words = {} if description is None else {"description": description}
        yield {"type": kind, "name": _find_first([block], "name", "title") or "", "uri": block["uri"], **words}
    elif kind == "resource" and isinstance(resource, dict):
        yield _repair_resource(cast("Members", resource))
    else:
        yield from _repair_unknown(kind, block)


def _find_kind(block: Mapping[str, Any]) -> str:
    """Return the type of a part, or what it must be where it does not say."""
    kind = block.get("type")
    if isinstance(kind, str):
        return kind
    return next((name for key, name in _KINDS.items() if key in block), "")


#: What a part without a type is, by what it has.
_KINDS = {"text": "text", "resource": "resource", "data": "image", "uri": "resource_link"}


def _find_data(block: Members) -> tuple[str | None, str]:
    """Return the data of a part and its type, also as the APIs of models have them."""
    places = [block, *(block[key] for key in ("source", "image_url", "file") if isinstance(block.get(key), dict))]
    data = _find_first(places, "data", "blob", "image_url", "url")
    return data, _find_first(places, "mimeType", "mime_type", "mediaType", "media_type") or ""


def _find_first(places: Sequence[Members], *keys: str) -> str | None:
    """Return the first text that is under one of the keys."""
    return next((place[key] for place in places for key in keys if isinstance(place.get(key), str)), None)


def _repair_unknown(kind: str, block: Members) -> Iterator[Members]:
    """Return what a part of an unknown type has that can be read, and else that it is left out."""
    if isinstance(block.get("resource"), dict):
        yield _repair_resource(cast("Members", block["resource"]))
        return
    text = block.get("text")
    if isinstance(text, str):
        yield _build_text_block(text)
    data, mime = _find_data(block)
    if data is not None:
        yield {"type": "resource", "resource": {"uri": "", "blob": data, "mimeType": mime or kind}}
    elif not isinstance(text, str):
        what = f"content of the type {kind[:40]!r}" if kind else "content without a type"
        yield _build_text_block(describe_left_out(what, "nothing here reads it"))


def _repair_resource(written: Members) -> Members:
    """Return the contents of a resource as an embedded one."""
    mime = next((written[key] for key in ("mimeType", "mime_type") if isinstance(written.get(key), str)), None)
    uri = written.get("uri")
    about = {"uri": uri if isinstance(uri, str) else "", **({"mimeType": mime} if mime else {})}
    if isinstance(written.get("blob"), str) and not isinstance(written.get("text"), str):
        return {"type": "resource", "resource": {**about, "blob": written["blob"]}}
    if "text" not in written:
        return _build_text_block(
            describe_left_out(f"the resource {about['uri'][:URI_CHARS]}", "the tool did not send its contents")
        )
    return {"type": "resource", "resource": {**about, "text": _build_text_block(written["text"])["text"]}}


def _build_text_block(value: Any) -> Members:
    if value is None:
        value = ""
    return {"type": "text", "text": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}


#: Requests whose answers are repaired, and by what.
_REPAIRS: Mapping[str, _Repair] = {"tools/list": repair_list, "tools/call": repair_answer}
