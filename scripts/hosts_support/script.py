"""What the scripted model does: start one job, wait for it, and report its answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOOLS = ("agent_start", "agent_poll", "agent_result", "agent_list", "agent_reply", "agent_cancel")
SEARCH = "tool_search"
MAX_TURNS = 60  # a host that cuts every call still ends
#: Some hosts show a tool's text inside another text, with its quotes escaped.
JOB_ID = re.compile(r'job_id\\*"\s*:\s*\\*"([\w-]+)')


@dataclass(frozen=True)
class Task:
    """The user's request to a host in one run, and the job that the model starts for it."""

    user_prompt: str
    job_prompt: str
    answer: str


@dataclass(frozen=True)
class Tool:
    """A tool as a host offers it: most put the server's name before ours, Codex puts it into a namespace."""

    name: str
    namespace: str | None = None


@dataclass(frozen=True)
class Conversation:
    """One request of a host, whichever API it came by."""

    text: str
    tools: tuple[Tool, ...]
    tool_answers: tuple[str, ...]  #: what the calls so far brought, as the model reads it

    def find_tool(self, name: str) -> Tool | None:
        """Return the offered tool of this name, with whatever the host put before it."""
        return next((tool for tool in self.tools if re.search(rf"(^|[_./-]){name}$", tool.name)), None)

    @property
    def missing_tools(self) -> list[str]:
        """Return those of our tools that the host did not offer."""
        return [name for name in TOOLS if self.find_tool(name) is None]


@dataclass(frozen=True)
class ToolCall:
    """A call that the model makes."""

    tool: Tool
    arguments: Mapping[str, Any]


Move = ToolCall | str


def next_move(task: Task, conversation: Conversation, turn: int) -> Move:
    """Return what a model that follows our tool descriptions does in this turn."""
    answers = conversation.tool_answers
    if answers and task.answer in answers[-1]:
        return f"The job is done. {task.answer}"
    if turn > MAX_TURNS:
        return f"The job did not end within {MAX_TURNS} turns."
    job_ids = [found for answer in answers for found in JOB_ID.findall(answer)]
    name, arguments = (
        ("agent_poll", {"job_id": job_ids[0]}) if job_ids else ("agent_start", {"prompt": task.job_prompt})
    )
    if tool := conversation.find_tool(name):
        return ToolCall(tool, arguments)
    if search := conversation.find_tool(SEARCH):
        return ToolCall(search, {"query": name})
    return f"There is no tool {name}."
