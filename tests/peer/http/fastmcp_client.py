# pyright: basic, reportMissingImports=false
"""FastMCP's client on a team server."""

import asyncio
import json
import os
import time

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport


async def main() -> None:
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with Client(StreamableHttpTransport(os.environ["MCP_URL"], headers=headers)) as client:
        prompt = f'fastmcp {time.time()} [emulate {{"duration_s": 60}}]'
        started = await client.call_tool("agent_start", {"prompt": prompt, "wait_s": 0})
        job_id = json.loads(started.content[0].text)["job_id"]
        print("started", flush=True)  # noqa: T201
        polled = await client.call_tool("agent_poll", {"job_id": job_id, "wait_s": 40})
        print(json.loads(polled.content[0].text)["status"])  # noqa: T201


asyncio.run(main())
