"""Repair the answers of tool servers before the SDK reads them.

The SDK withholds a whole list for one tool that breaks the protocol, and the whole answer of a call for one wrong part,
although the tool already ran. Readable parts are kept here, and a note replaces each other part.
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

URI_CHARS = 200  # of a resource's address in a note
KIND_CHARS = 40  # of an unknown type in a note
#: The names that servers give to the schema of a tool's arguments.
_SCHEMA_KEYS = ("inputSchema", "input_schema", "parameters")


@asynccontextmanager
async def repair_transport(transport: Transport, skip: Callable[[str], None]) -> AsyncGenerator[Any]:
    """Repair the answers that come over a transport.

    Args:
        transport: The connection to the server.
        skip: Called with a note about tools that are left out of a list.
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
    """Records the methods of the requests, by their ids."""

    def __init__(self, stream: Any, methods: dict[Any, str]) -> None:
        super().__init__(stream)
        self._methods = methods

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message."""
        if isinstance(item.message, JSONRPCRequest) and item.message.method in _REPAIRS:
            self._methods[item.message.id] = item.message.method
        await self._stream.send(item)


class _Incoming(_Stream):
    """Repairs the answers to recorded requests."""

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
    """Return a list of tools without unused fields, and without tools that have no name."""
    if not isinstance(result.get("tools"), list):
        return result
    tools = cast("list[Any]", result["tools"])
    kept = [repaired for tool in tools if (repaired := _repair_tool(tool)) is not None]
    if not kept and tools:
        return result  # not a list of tools, for which the SDK has the best words
    _report_nameless(len(tools) - len(kept), skip)
    rest = dict(result)
    if not isinstance(rest.get("nextCursor", ""), str):
        del rest["nextCursor"]
    return {**rest, "tools": kept}


def _report_nameless(nameless: int, skip: Callable[[str], None]) -> None:
    if nameless == 1:
        skip("1 of its tools is not offered, because it has no name")
    elif nameless:
        skip(f"{nameless} of its tools are not offered, because they have no name")


def _repair_tool(written: Any) -> Members | None:
    """Return the used fields of a tool, None if it has no name."""
    if not isinstance(written, dict):
        return None
    tool = cast("Members", written)
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        return None
    kept = {key: tool[key] for key in ("title", "description") if isinstance(tool.get(key), str)}
    schema = next((tool[key] for key in _SCHEMA_KEYS if key in tool), None)
    # No reader here needs an output schema. Without annotations a call waits for a person, which is always safe.
    return {**kept, "name": name, "inputSchema": _repair_schema(schema), **_repair_annotations(tool.get("annotations"))}


def _repair_schema(written: Any) -> Members:
    """Return the schema of an object, which the protocol requires."""
    if not isinstance(written, dict):
        return {"type": "object"}
    schema = dict(cast("Members", written))
    if "properties" in schema:
        _repair_properties(schema)
    if schema.get("required") is not None:
        names: Any = schema["required"]
        if not isinstance(names, list):
            names = []
        schema["required"] = [name for name in cast("list[Any]", names) if isinstance(name, str)]
    if not isinstance(schema.get("$schema", ""), str):
        del schema["$schema"]
    return {**schema, "type": "object"}


def _repair_properties(schema: Members) -> None:
    """Replace a property that is no schema with one that allows anything; delete properties that are no object."""
    properties = schema.pop("properties")
    if not isinstance(properties, dict):
        return
    schema["properties"] = dict(cast("Members", properties))
    for name, each in schema["properties"].items():
        if not isinstance(each, dict):
            schema["properties"][name] = {}


def _repair_annotations(written: Any) -> Members:
    try:
        ToolAnnotations.model_validate(written, by_name=False, strict=True)
    except ValueError:
        return {}
    return {"annotations": written}


def repair_answer(result: Members, _skip: Callable[[str], None]) -> Members:
    """Return the answer of a call with the protocol's parts, and with notes in the place of other parts."""
    if result.get("resultType") == "input_required" or "task" in result:
        return result
    content = result.get("content")
    if isinstance(content, str):
        return result  # not an answer, for which the SDK has the best words
    repaired: Members = {"content": _repair_content(content)}
    if "resultType" in result:
        repaired["resultType"] = "complete"
    repaired["isError"] = result.get("isError", result.get("is_error")) in (True, "true", "True")
    structured = _find_structured(result)
    if structured is not None:
        repaired["structuredContent"] = structured
    return repaired


def _repair_content(content: Any) -> list[Members]:
    if content is None:
        return []
    parts: list[Any] = [content]
    if isinstance(content, list):
        parts = cast("list[Any]", content)
    return [block for part in parts for block in _repair_block(part)]


def _find_structured(result: Members) -> Members | None:
    structured = result.get("structuredContent")
    if structured is None and result.get("content") is None:
        structured = result.get("toolResult")  # its name in the first protocol
    if structured is None:
        return None
    if isinstance(structured, dict):
        return cast("Members", structured)
    return {"result": structured}  # until 2026-07-28 it had to be an object


def _repair_block(written: Any) -> Iterator[Members]:
    """Yield a part of an answer as parts of the protocol."""
    if written is None:
        return
    if not isinstance(written, dict):
        yield _build_text_block(written)
        return
    block = cast("Members", written)
    kind = _find_kind(block)
    known = None
    if kind in _READERS:
        known = _READERS[kind](block)
    if known is not None:
        yield known
    else:
        yield from _repair_unknown(kind, block)


def _repair_text(block: Members) -> Members | None:
    return _build_text_block(block.get("text", ""))


def _repair_media(block: Members) -> Members | None:
    data, mime = _find_data(block)
    if data is None:
        return None
    return {"type": _find_kind(block), "data": data, "mimeType": mime}


def _repair_link(block: Members) -> Members | None:
    if not isinstance(block.get("uri"), str):
        return None
    link = {"type": "resource_link", "name": _find_first([block], "name", "title") or "", "uri": block["uri"]}
    description = _find_first([block], "description")
    if description is not None:
        link["description"] = description
    return link


def _repair_embedded(block: Members) -> Members | None:
    if not isinstance(block.get("resource"), dict):
        return None
    return _repair_resource(cast("Members", block["resource"]))


#: Parts of the protocol by their type. A reader returns None for a part that lacks its content.
_READERS: Mapping[str, Callable[[Members], Members | None]] = {
    "text": _repair_text,
    "image": _repair_media,
    "audio": _repair_media,
    "resource_link": _repair_link,
    "resource": _repair_embedded,
}


def _find_kind(block: Mapping[str, Any]) -> str:
    """Return the type of a part, or the type that its fields show."""
    kind = block.get("type")
    if isinstance(kind, str):
        return kind
    return next((name for key, name in _KINDS.items() if key in block), "")


#: The type of a part without a type, by a field that it has.
_KINDS = {"text": "text", "resource": "resource", "data": "image", "uri": "resource_link"}


def _find_data(block: Members) -> tuple[str | None, str]:
    """Return the data of a part and its media type, also in the forms of model APIs."""
    places = [block, *(block[key] for key in ("source", "image_url", "file") if isinstance(block.get(key), dict))]
    data = _find_first(places, "data", "blob", "image_url", "url")
    return data, _find_first(places, "mimeType", "mime_type", "mediaType", "media_type") or ""


def _find_first(places: Sequence[Members], *keys: str) -> str | None:
    """Return the first string under one of the keys."""
    return next((place[key] for place in places for key in keys if isinstance(place.get(key), str)), None)


def _repair_unknown(kind: str, block: Members) -> Iterator[Members]:
    """Yield the readable content of a part of an unknown type, else a note that it is left out."""
    embedded = _repair_embedded(block)
    if embedded is not None:
        yield embedded
        return
    text = block.get("text")
    if isinstance(text, str):
        yield _build_text_block(text)
    data, mime = _find_data(block)
    if data is not None:
        yield {"type": "resource", "resource": {"uri": "", "blob": data, "mimeType": mime or kind}}
    elif not isinstance(text, str):
        yield _build_text_block(_describe_unknown(kind))


def _describe_unknown(kind: str) -> str:
    if not kind:
        return describe_left_out("content without a type", "nothing here reads it")
    return describe_left_out(f"content of the type {kind[:KIND_CHARS]!r}", "nothing here reads it")


def _repair_resource(written: Members) -> Members:
    """Return the content of a resource as an embedded resource."""
    about: Members = {"uri": ""}
    if isinstance(written.get("uri"), str):
        about["uri"] = written["uri"]
    mime = _find_first([written], "mimeType", "mime_type")
    if mime:
        about["mimeType"] = mime
    if isinstance(written.get("blob"), str) and not isinstance(written.get("text"), str):
        return {"type": "resource", "resource": {**about, "blob": written["blob"]}}
    if "text" not in written:
        where = f"the resource {about['uri'][:URI_CHARS]}"
        return _build_text_block(describe_left_out(where, "the tool did not send its contents"))
    return {"type": "resource", "resource": {**about, "text": _build_text_block(written["text"])["text"]}}


def _build_text_block(value: Any) -> Members:
    if value is None:
        value = ""
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return {"type": "text", "text": value}


#: Requests whose answers are repaired, and the function that does it.
_REPAIRS: Mapping[str, _Repair] = {"tools/list": repair_list, "tools/call": repair_answer}
