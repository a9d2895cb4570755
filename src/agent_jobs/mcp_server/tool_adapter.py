"""A tool of ours: answers with a mapping, refuses in sentences, and costs few tokens in the list of tools."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.rendering import answers
from agent_jobs.rendering.paging import dumps
from agent_jobs.request.body import read_arguments

logger = logging.getLogger(__name__)

Answer = dict[str, Any]


class JobTool(Tool):
    """A tool that answers with a mapping as compact JSON, and refuses in sentences."""

    is_structured: bool = False  #: repeats its answers as structured content, for programs

    @classmethod
    def of(
        cls,
        fn: Callable[..., Awaitable[Answer | CallToolResult | InputRequiredResult]],
        annotations: ToolAnnotations,
        *,
        is_structured: bool = False,
    ) -> "JobTool":
        """The tool around a function, whose docstring is the prompt that tells a model how to use it."""
        description = " ".join((fn.__doc__ or "").split())
        tool = cls.from_function(fn, description=description, annotations=annotations, structured_output=False)
        tool.parameters = _lean(tool.parameters)
        ours = cast(JobTool, tool)
        ours.is_structured = is_structured
        return ours

    async def run(
        self, arguments: dict[str, Any], context: Any, convert_result: bool = False
    ) -> CallToolResult | InputRequiredResult:
        """Check the arguments, run the tool, and put its answer or its refusal into words; a question goes as it is."""
        try:
            given = read_arguments(self.name, arguments, self.parameters)
            # Not the SDK's validate_arguments: it parses a prompt that happens to be JSON.
            values = self.fn_metadata.arg_model.model_validate(given).model_dump_one_level()
            if self.context_kwarg is not None:
                values[self.context_kwarg] = context
            answer: Answer | CallToolResult | InputRequiredResult = await self.fn(**values)
            return self._result(answer) if isinstance(answer, dict) else answer
        except ValidationError as error:
            return self._refused(RequestError(_sentence(error)))
        except AgentJobsError as error:
            return self._refused(error)
        except Exception:
            logger.exception("%s failed", self.name)
            return self._refused(
                AgentJobsError("agent-jobs failed; its log says why. Jobs go on: agent_poll finds them.")
            )

    def _result(self, answer: Answer) -> CallToolResult:
        return as_result(answer, is_structured=self.is_structured)

    def _refused(self, error: AgentJobsError) -> CallToolResult:
        result = self._result(answers.render_error(error))
        result.is_error = True
        return result


def as_result(answer: Answer, *, is_structured: bool) -> CallToolResult:
    """Return an answer in the form in which every tool gives it."""
    # Some hosts show their model both forms, so that every answer costs twice and a page is cut in its middle.
    structured = answer if is_structured else None
    return CallToolResult(content=[TextContent(type="text", text=dumps(answer))], structured_content=structured)


def _sentence(error: ValidationError) -> str:
    """Pydantic's findings without its links and without the rejected values, which are the user's."""
    findings = [f"{'.'.join(map(str, found['loc']))}: {found['msg'].lower()}" for found in error.errors()]
    return f"Change the arguments and call again: {'; '.join(findings)}."


def _lean(schema: Any) -> Any:
    """A JSON schema without what no model needs: titles, null alternatives and null defaults."""
    if isinstance(schema, list):
        return [_lean(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    lean: dict[str, Any] = {}
    for name, value in cast("dict[str, Any]", schema).items():
        if name == "properties":
            lean[name] = {key: _lean(each) for key, each in value.items()}
        elif name == "anyOf":
            kept = [_lean(each) for each in value if each != {"type": "null"}]
            lean |= kept[0] if len(kept) == 1 else {name: kept}
        elif name != "title" and not (name == "default" and value is None):
            lean[name] = _lean(value)
    if lean.get("additionalProperties") is True:
        del lean["additionalProperties"]
    return lean
