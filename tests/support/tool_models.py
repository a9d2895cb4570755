"""Reads the signatures of our tools and resources once in a process.

The SDK makes Pydantic models and JSON schemas of them whenever a server is built, which takes 30 ms of CPU. The
tests build more than a thousand servers. The models depend on the function alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mcp.server.mcpserver.resources import templates
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata, func_metadata
from mcp_types import ToolAnnotations

from agent_jobs.mcp_server.tool_adapter import JobTool

_tools: dict[tuple[Any, ...], JobTool] = {}
_signatures: dict[tuple[Any, ...], FuncMetadata] = {}


def keep_tool_models() -> None:
    """Have each server that is built in this process use the models of the first one."""
    setattr(JobTool, "from_method", _remember_tools(JobTool.from_method))  # noqa: B010  # Pyright would complain
    setattr(templates, "func_metadata", _read_signature)  # noqa: B010  # it is not exported


def _remember_tools(create: Callable[..., JobTool]) -> Callable[..., JobTool]:
    def from_method(fn: Callable[..., Any], annotations: ToolAnnotations, *, is_structured: bool = False) -> JobTool:
        key = (_function_of(fn), annotations.model_dump_json(), is_structured)
        if key not in _tools:
            _tools[key] = create(fn, annotations, is_structured=is_structured)
        return _tools[key].model_copy(update={"fn": fn})

    return from_method


def _read_signature(
    func: Callable[..., Any], skip_names: Sequence[str] = (), structured_output: bool | None = None
) -> FuncMetadata:
    key = (_function_of(func), tuple(skip_names), structured_output)
    if key not in _signatures:
        _signatures[key] = func_metadata(func, skip_names, structured_output)
    return _signatures[key]


def _function_of(method: Callable[..., Any]) -> Any:
    return getattr(method, "__func__", method)
