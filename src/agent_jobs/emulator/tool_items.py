"""Build the output items of tools: searches, code, images, calls to MCP servers and to functions. Pure."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from .item_events import TimedEvent, build_deltas, build_progress, cut_text, wrap_item
from .parameters import as_list, as_object, as_text, read_list
from .png import draw_png_base64

__all__ = [
    "Container",
    "Source",
    "build_approval",
    "build_code",
    "build_function_call",
    "build_image",
    "build_mcp_call",
    "build_mcp_tools",
    "build_unknown_item",
]

Json = dict[str, Any]

_MCP_TOOLS = ("lookup",)
_SUMMED = '{"rows": 3}\n'


@dataclass(frozen=True)
class Container:
    """A container that ran a response's code, and the (id, name) of each file that the code wrote."""

    id: str
    files: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Source:
    """A page that searches find and texts cite."""

    number: int

    @property
    def url(self) -> str:
        """Return the address of the page."""
        return f"https://example.com/emulated/{self.number + 1}"

    def citation(self, start: int, end: int) -> Json:
        """Cite the page from a span of the text, with the mark that OpenAI leaves in the address."""
        title = f"Emulated source {self.number + 1}"
        where = {"start_index": start, "end_index": end}
        return {"type": "url_citation", **where, "title": title, "url": f"{self.url}?utm_source=openai"}


def build_search(index: int, item_id: str, number: int, include: Collection[str]) -> list[TimedEvent]:
    """Search the web; each search finds a page of its own, and the page of the next search."""
    query = f"emulated query {number + 1}"
    action: Json = {"type": "search", "query": query, "queries": [query]}
    if "web_search_call.action.sources" in include:
        action["sources"] = [{"type": "url", "url": Source(found).url} for found in (number, number + 1)]
    opening: Json = {"id": item_id, "type": "web_search_call", "status": "in_progress", "action": action}
    inner = build_progress("web_search_call", _locate_item(index, item_id), "in_progress", "searching", "completed")
    return wrap_item(index, opening, inner, opening | {"status": "completed"})


def build_code(index: int, item_id: str, container: Container, include: Collection[str]) -> list[TimedEvent]:
    """Run code that writes the container's files."""
    names = [name for _, name in container.files]
    source = "".join(f"table.to_csv({f'/mnt/data/{name}'!r})\n" for name in names) + "print(summary)\n"
    logs = None
    if "code_interpreter_call.outputs" in include:
        logs = [{"type": "logs", "logs": _SUMMED}]
    opening: Json = {"id": item_id, "type": "code_interpreter_call", "status": "in_progress"}
    opening |= {"container_id": container.id, "code": "", "outputs": None}
    where, kind = _locate_item(index, item_id), "response.code_interpreter_call"
    inner = [
        TimedEvent({"type": f"{kind}.in_progress", **where}),
        *build_deltas(f"{kind}_code.delta", where, cut_text(source, count=3)),
        TimedEvent({"type": f"{kind}_code.done", **where, "code": source}),
        *build_progress("code_interpreter_call", where, "interpreting", "completed"),
    ]
    return wrap_item(index, opening, inner, opening | {"status": "completed", "code": source, "outputs": logs})


def build_image(index: int, item_id: str, side_px: int, partial: int, given: str | None = None) -> list[TimedEvent]:
    """Draw an image, and send it unfinished `partial` times before. A given image is sent without its format."""
    properties: Json = {"background": "opaque", "quality": "high", "size": "1024x1024"}
    picture = given
    if picture is None:
        picture = draw_png_base64(side_px, item_id)
        properties["output_format"] = "png"
    opening: Json = {"id": item_id, "type": "image_generation_call", "status": "in_progress", "result": None}
    where, kind = _locate_item(index, item_id), "response.image_generation_call"
    inner = [
        *build_progress("image_generation_call", where, "in_progress", "generating", weight=0),
        *[
            TimedEvent(
                {"type": f"{kind}.partial_image", **where, "partial_image_index": at, "partial_image_b64": picture}, 1
            )
            for at in range(partial)
        ],
        TimedEvent({"type": f"{kind}.completed", **where}, 2),
    ]
    drawn = {"status": "completed", "result": picture, "revised_prompt": "An emulated picture.", **properties}
    return wrap_item(index, opening, inner, opening | drawn)


def build_mcp_tools(index: int, item_id: str, tool: Json) -> list[TimedEvent]:
    """List the tools of a remote MCP server."""
    schema = {"type": "object", "properties": {"query": {"type": "string"}}}
    tools = [
        {"name": name, "description": "Emulated.", "input_schema": schema, "annotations": {"read_only": True}}
        for name in list_allowed_tools(tool)
    ]
    opening: Json = {"id": item_id, "type": "mcp_list_tools", "server_label": tool["server_label"], "tools": []}
    inner = build_progress("mcp_list_tools", _locate_item(index, item_id), "in_progress", "completed", weight=1)
    return wrap_item(index, opening, inner, opening | {"tools": tools, "error": None})


def build_mcp_call(index: int, item_id: str, tool: Json, name: str) -> list[TimedEvent]:
    """Call a tool of a remote MCP server."""
    arguments = json.dumps({"query": "emulated"})
    opening: Json = {"id": item_id, "type": "mcp_call", "status": "in_progress", "server_label": tool["server_label"]}
    opening |= {"name": name, "arguments": "", "output": None, "error": None, "approval_request_id": None}
    where = _locate_item(index, item_id)
    inner = [
        TimedEvent({"type": "response.mcp_call.in_progress", **where}),
        *build_deltas("response.mcp_call_arguments.delta", where, cut_text(arguments), weight=0),
        TimedEvent({"type": "response.mcp_call_arguments.done", **where, "arguments": arguments}),
        TimedEvent({"type": "response.mcp_call.completed", **where}, 2),
    ]
    done = {"status": "completed", "arguments": arguments, "output": f"The emulated output of {name}."}
    return wrap_item(index, opening, inner, opening | done)


def list_allowed_tools(tool: Json) -> Sequence[str]:
    """Return the names of a server's tools that the request allows."""
    return _list_tool_names(tool.get("allowed_tools")) or _MCP_TOOLS


def is_preapproved(tool: Json, name: str) -> bool:
    """Return True if a server's tool may be called without an approval."""
    given: Any = tool.get("require_approval")
    if isinstance(given, dict):
        return name in _list_tool_names(cast("Json", given).get("never"))
    return given == "never"


def build_approval(index: int, item_id: str, call: Json) -> list[TimedEvent]:
    """Ask whether a tool of an MCP server may be called."""
    asked = {"id": item_id, "type": "mcp_approval_request", **call}
    return wrap_item(index, asked, [], asked)


def build_function_call(index: int, item_id: str, call: Json) -> list[TimedEvent]:
    """Call a function of the client."""
    arguments = as_text(call.get("arguments", {}))
    done: Json = {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.get("call_id", item_id.replace("fc_", "call_")[:29]),
        "name": call.get("name", "emulated_function"),
        "arguments": call.get("raw_arguments", arguments),  # as written by a server that misreads the contract
    }
    if done["call_id"] is None:
        del done["call_id"]  # some servers leave it out
    where, kind = _locate_item(index, item_id), "response.function_call_arguments"
    inner = [
        *build_deltas(f"{kind}.delta", where, cut_text(arguments, count=3)),
        TimedEvent({"type": f"{kind}.done", **where, "name": done["name"], "arguments": arguments}),
    ]
    return wrap_item(index, done | {"status": "in_progress", "arguments": ""}, inner, done)


def build_unknown_item(index: int, item_id: str) -> list[TimedEvent]:
    """Build an item and events that no client knows yet."""
    done = {"id": item_id, "type": "hologram_call", "status": "completed", "shape": {"sides": 5}}
    inner = [TimedEvent({"type": "response.hologram_call.rendering", **_locate_item(index, item_id)}, 1)]
    return wrap_item(index, done | {"status": "in_progress"}, inner, done)


def _locate_item(index: int, item_id: str) -> Json:
    return {"item_id": item_id, "output_index": index}


def _list_tool_names(given: Any) -> Sequence[str]:
    """Return the names in a list of tools, or in a filter that has one."""
    return as_list(given) or read_list(as_object(given), "tool_names")
