"""Start agent-jobs over stdio, as a host does, and offer its tools as one function. All examples use this.

They use the real API if OPENAI_API_KEY is set, and otherwise an emulated one, whose answers mean nothing.
"""

import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import TextContent

from agent_jobs.emulator.server import run_emulator

Answer = dict[str, Any]
#: Takes a tool's name and its arguments; an error of the tool ends the example.
Call = Callable[..., Awaitable[Answer]]


@asynccontextmanager
async def open_tools(**environment: str) -> AsyncGenerator[Call]:
    """Start a server with these settings and those of this process, and yield its tools."""
    with ExitStack() as stack:
        if not os.environ.get("OPENAI_API_KEY"):
            environment |= {
                "OPENAI_API_KEY": "emulated",
                "OPENAI_BASE_URL": stack.enter_context(run_emulator(time_scale=5)).base_url,
                "AGENT_JOBS_DATA_DIR": stack.enter_context(tempfile.TemporaryDirectory()),
                "NO_PROXY": "127.0.0.1",
            }
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "agent_jobs"], env={**os.environ, **environment}
        )
        async with Client(server) as host:

            async def call(tool: str, **arguments: Any) -> Answer:
                result = await host.call_tool(tool, arguments)
                [content] = result.content
                assert isinstance(content, TextContent)
                answer: Answer = json.loads(content.text)
                assert not result.is_error, answer["error"]["message"]
                return answer

            yield call
