# pyright: basic, reportMissingImports=false
"""FastMCP's client, which waits for native tasks once `fastmcp_tasks.client` is imported: one call per argument."""

import asyncio
import json
import os
import sys

import fastmcp_tasks.client  # noqa: F401  # declares tasks
from fastmcp import Client
from fastmcp.client.transports import StdioTransport


async def main(python: str, *calls: str) -> None:
    async with Client(StdioTransport(python, ["-m", "agent_jobs"], env={**os.environ})) as client:
        for call in calls:
            tool, arguments = json.loads(call)
            result = await client.call_tool(tool, arguments)
            sys.stdout.write(f"{result.content[0].text}\n")


asyncio.run(main(*sys.argv[1:]))
