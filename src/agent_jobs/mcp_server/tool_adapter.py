"""Adapt a method to the SDK's form of a tool: compact JSON answers, errors in sentences, a short schema."""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, cast

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.rendering.answers import Answer, render_error
from agent_jobs.request.arguments import read_arguments
from agent_jobs.text import compact_json

logger = logging.getLogger(__name__)

#: True while a request of a team server is answered: its caller is not the user of this machine.
is_for_team: ContextVar[bool] = ContextVar("is_for_team", default=False)


class JobTool(Tool):
    """A tool that answers with a mapping as compact JSON, and refuses in sentences."""

    is_structured: bool = False  #: repeats its answers as structured content, for programs

    @classmethod
    def from_method(
        cls,
        fn: Callable[..., Awaitable[Answer | CallToolResult | InputRequiredResult]],
        annotations: ToolAnnotations,
        *,
        is_structured: bool = False,
    ) -> "JobTool":
        """Return the tool that runs a method, whose docstring is the description that a model reads."""
        description = " ".join((fn.__doc__ or "").split())
        tool = cls.from_function(fn, description=description, annotations=annotations, structured_output=False)
        tool.parameters = _shorten_schema(tool.parameters)
        job_tool = cast(JobTool, tool)
        job_tool.is_structured = is_structured
        return job_tool

    async def run(
        self, arguments: dict[str, Any], context: Any, convert_result: bool = False
    ) -> CallToolResult | InputRequiredResult:
        """Check the arguments, run the method, and return its answer or its error; a question goes out unchanged."""
        try:
            given = read_arguments(self.name, arguments, self.parameters)
            # Not the SDK's validate_arguments: it parses a prompt that happens to be JSON.
            values = self.fn_metadata.arg_model.model_validate(given).model_dump_one_level()
            if self.context_kwarg is not None:
                values[self.context_kwarg] = context
            answer: Answer | CallToolResult | InputRequiredResult = await self.fn(**values)
        except ValidationError as error:
            return self._create_error_result(RequestError(_describe_mistakes(error), "wrong_value"))
        except AgentJobsError as error:
            return self._create_error_result(error)
        except Exception:
            logger.exception("%s failed", self.name)
            return self._create_error_result(
                AgentJobsError("agent-jobs failed, and its log has the cause.", "internal")
            )
        if isinstance(answer, dict):
            return create_result(answer, is_structured=self.is_structured)
        return answer

    def _create_error_result(self, error: AgentJobsError) -> CallToolResult:
        result = create_result(render_error(error, describe_error(error)), is_structured=self.is_structured)
        result.is_error = True
        return result


def describe_error(error: AgentJobsError) -> str:
    """Return the problem and its fix for a model."""
    from agent_jobs.mcp_server.wording import MODEL, OWNER_MODEL  # not needed to start

    if is_for_team.get():
        from agent_jobs.rendering.remote_errors import hide_machine_details

        shown = hide_machine_details(error)
        if shown is not error:
            logger.warning("an answer hides the cause of an error: %s", error)
        return OWNER_MODEL.describe(shown)
    return MODEL.describe(error)


def create_result(answer: Answer, *, is_structured: bool) -> CallToolResult:
    """Return an answer in the form in which every tool gives it."""
    result = CallToolResult(content=[TextContent(type="text", text=compact_json(answer))])
    # Some hosts show their model both forms: every answer would cost twice, and a page would be cut in its middle.
    if is_structured:
        result.structured_content = answer
    return result


def _describe_mistakes(error: ValidationError) -> str:
    """Return Pydantic's findings without its links and without the rejected values, which are the user's."""
    findings = [f"{'.'.join(map(str, found['loc']))}: {found['msg'].lower()}" for found in error.errors()]
    return f"{'; '.join(findings)}."


def _shorten_schema(schema: Any) -> Any:
    """Return a JSON schema without the parts that no model needs: titles, null alternatives and null defaults."""
    match schema:
        case list():
            return [_shorten_schema(item) for item in cast("list[Any]", schema)]
        case dict():
            return _shorten_object(cast("dict[str, Any]", schema))
        case _:
            return schema


def _shorten_object(schema: dict[str, Any]) -> dict[str, Any]:
    short: dict[str, Any] = {}
    for name, value in schema.items():
        match name, value:
            case ("title", _) | ("default", None) | ("additionalProperties", True):
                continue
            case "properties", _:
                short[name] = {key: _shorten_schema(each) for key, each in value.items()}
            case "anyOf", _:
                short |= _shorten_alternatives(value)
            case _:
                short[name] = _shorten_schema(value)
    return short


def _shorten_alternatives(alternatives: list[Any]) -> dict[str, Any]:
    kept = [_shorten_schema(each) for each in alternatives if each != {"type": "null"}]
    if len(kept) == 1:
        return kept[0]
    return {"anyOf": kept}
