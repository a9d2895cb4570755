"""Repair the answers of tool servers before the SDK reads them.

The SDK withholds a whole list for one tool that breaks the protocol, and the whole answer of a call for one wrong part,
although the tool already ran. Readable parts are kept here, and a note replaces each other part.
"""

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from types import TracebackType
from typing import Any, cast

from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, ToolAnnotations

from agent_jobs.toolbox.jsonc import read_members
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
        match item:
            case SessionMessage(message=JSONRPCError(id=request_id)):
                self._methods.pop(request_id, None)
            case SessionMessage(message=JSONRPCResponse(id=request_id) as answer) if request_id in self._methods:
                answer.result = _REPAIRS[self._methods.pop(request_id)](answer.result, self._skip)
            case _:
                pass
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
    match nameless:
        case 0:
            pass
        case 1:
            skip("1 of its tools is not offered, because it has no name")
        case _:
            skip(f"{nameless} of its tools are not offered, because they have no name")


def _repair_tool(written: Any) -> Members | None:
    """Return the used fields of a tool, None if it has no name."""
    match written:
        case {"name": str(name)} if name:
            tool = cast("Members", written)
        case _:
            return None
    kept = {key: tool[key] for key in ("title", "description") if isinstance(tool.get(key), str)}
    schema = next((tool[key] for key in _SCHEMA_KEYS if key in tool), None)
    # No reader here needs an output schema. Without annotations a call waits for a person, which is always safe.
    return {**kept, "name": name, "inputSchema": _repair_schema(schema), **_repair_annotations(tool.get("annotations"))}


def _repair_schema(written: Any) -> Members:
    """Return the schema of an object, which the protocol requires."""
    schema = dict(read_members(written))
    _repair_properties(schema)
    match schema.get("required"):
        case None:
            pass
        case [*names]:
            schema["required"] = [name for name in names if isinstance(name, str)]
        case _:
            schema["required"] = []
    if not isinstance(schema.get("$schema", ""), str):
        del schema["$schema"]
    return {**schema, "type": "object"}


def _repair_properties(schema: Members) -> None:
    """Replace a property that is no schema with one that allows anything; delete properties that are no object."""
    match schema.pop("properties", None):
        case {**properties}:
            schema["properties"] = {name: read_members(each) for name, each in properties.items()}
        case _:
            pass


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
    match content:
        case list():
            return [*chain.from_iterable(map(_repair_block, cast("list[Any]", content)))]
        case _:
            return [*_repair_block(content)]


def _find_structured(result: Members) -> Members | None:
    structured = result.get("structuredContent")
    if structured is None and result.get("content") is None:
        structured = result.get("toolResult")  # its name in the first protocol
    match structured:
        case None:
            return None
        case dict():
            return cast("Members", structured)
        case _:
            return {"result": structured}  # until 2026-07-28 it had to be an object


def _repair_block(written: Any) -> Iterator[Members]:
    """Yield a part of an answer as parts of the protocol."""
    match written:
        case None:
            pass
        case dict():
            yield from _repair_part(cast("Members", written))
        case _:
            yield _build_text_block(written)


def _repair_part(block: Members) -> Iterable[Members]:
    """Return the parts of the protocol that a part of an answer becomes."""
    kind = _find_kind(block)
    known = _READERS.get(kind, _repair_embedded)(block) or _repair_embedded(block)
    if known is None:
        return _repair_unknown(kind, block)
    return [known]


def _repair_text(block: Members) -> Members | None:
    return _build_text_block(block.get("text", ""))


def _repair_media(block: Members) -> Members | None:
    data, mime = _find_data(block)
    if data is None:
        return None
    return {"type": _find_kind(block), "data": data, "mimeType": mime}


def _repair_link(block: Members) -> Members | None:
    uri = _find_first([block], "uri")
    if uri is None:
        return None
    link = {"type": "resource_link", "name": _find_first([block], "name", "title") or "", "uri": uri}
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
    """Yield the text and data of a part of an unknown type, else a note that it is left out."""
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
    about: Members = {"uri": _find_first([written], "uri") or ""}
    mime = _find_first([written], "mimeType", "mime_type")
    if mime:
        about["mimeType"] = mime
    match written:
        case {"text": str(text)}:
            return {"type": "resource", "resource": {**about, "text": text}}
        case {"blob": str(blob)}:
            return {"type": "resource", "resource": {**about, "blob": blob}}
        case {"text": value}:
            return {"type": "resource", "resource": {**about, "text": _build_text_block(value)["text"]}}
        case _:
            where = f"the resource {about['uri'][:URI_CHARS]}"
            return _build_text_block(describe_left_out(where, "the tool did not send its contents"))


def _build_text_block(value: Any) -> Members:
    match value:
        case str():
            text = value
        case None:
            text = ""
        case _:
            text = json.dumps(value, ensure_ascii=False)
    return {"type": "text", "text": text}


#: Requests whose answers are repaired, and the function that does it.
_REPAIRS: Mapping[str, _Repair] = {"tools/list": repair_list, "tools/call": repair_answer}
