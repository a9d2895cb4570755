"""A host on the tools: a real MCP client in this process, and the app behind it."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import anyio
from mcp import Client
from mcp_types import CallToolResult, TextContent

from agent_jobs.app import App, open_app
from agent_jobs.clock import Clock, create_fast_clock
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import Settings

#: Ours and the emulator's seconds that pass in a real one.
SPEED = 10.0
#: The same work is not started twice unasked.
WORK = count(1)


@dataclass(frozen=True)
class Host:
    """A host's model: calls tools and reads what it gets."""

    app: App
    client: Client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool, which must not refuse, and return its answer."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result
        return read(result)

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Call a tool, which must refuse, and return its sentence."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result
        return read(result)["error"]["message"]

    async def start(
        self, prompt: str | None = None, *, emulate: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Start a job whose upstream run is scripted."""
        return await self.call(
            "agent_start", prompt=script_prompt(prompt or f"work {next(WORK)}", emulate), **{"wait_s": 0, **more}
        )

    async def end(self, job_id: str, **more: Any) -> dict[str, Any]:
        """Poll as the answers say until the job ended; the limit is for hangs, on a machine however busy."""
        with anyio.fail_after(100):
            while True:
                answer = await self.call("agent_poll", job_id=job_id, **more)
                if "next_poll_ms" not in answer:
                    return answer


def read(result: CallToolResult) -> dict[str, Any]:
    """Return an answer, which is in the text alone: some hosts would show a structure as a second copy."""
    [content] = result.content
    assert isinstance(content, TextContent)
    assert result.structured_content is None
    return json.loads(content.text)


def script_prompt(prompt: str, emulate: dict[str, Any] | None) -> str:
    return prompt if emulate is None else f"{prompt} [emulate {json.dumps(emulate)}]"


@asynccontextmanager
async def hosting(
    settings: Settings, *, speed: float = SPEED, clock: Clock | None = None, **client: Any
) -> AsyncGenerator[Host]:
    """Run a process of ours, and yield it as its host sees it."""
    async with (
        open_app(settings, clock or create_fast_clock(speed)) as app,
        Client(
            build_server(
                app.engine,
                max_wait_s=settings.max_wait_s,
                may_approve=settings.approvals == "model",
                has_tasks=settings.tasks == "auto",
                is_structured=settings.structured,
            ),
            **client,
        ) as mcp,
    ):
        yield Host(app, mcp)


async def eventually(fact: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait for a fact of another thread or process; the limit is for hangs, on a machine however busy."""
    with anyio.fail_after(limit_s):
        while not fact():  # noqa: ASYNC110  # another thread or process sets no event of ours
            await anyio.sleep(0.01)
