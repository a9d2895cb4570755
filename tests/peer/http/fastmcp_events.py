# pyright: basic, reportMissingImports=false
"""FastMCP's client polls events. Its release has no calls for them, so the requests are written here."""

import asyncio
import json
import os
import time
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from mcp_types import Request, RequestParams, Result
from pydantic import ConfigDict


class AnyParams(RequestParams):
    model_config = ConfigDict(extra="allow")


class AnyResult(Result):
    model_config = ConfigDict(extra="allow")


async def ask(client: Client, method: str, **params: Any) -> dict[str, Any]:
    request = Request[AnyParams, str](method=method, params=AnyParams.model_validate(params))
    return (await client.session.send_request(request, AnyResult)).model_dump(by_alias=True)


async def main() -> None:
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with Client(StreamableHttpTransport(os.environ["MCP_URL"], headers=headers)) as client:
        listed = await ask(client, "events/list")
        assert [event["name"] for event in listed["events"]] == ["job.finished", "job.needs_input"]
        cursor = (await ask(client, "events/poll", name="job.finished"))["cursor"]
        prompt = f'fastmcp {time.time()} [emulate {{"duration_s": 5}}]'
        started = await client.call_tool("agent_start", {"prompt": prompt, "wait_s": 0})
        arguments = {"job_id": json.loads(started.content[0].text)["job_id"]}
        while True:
            page = await ask(client, "events/poll", name="job.finished", arguments=arguments, cursor=cursor)
            if page["events"]:
                print(page["events"][0]["data"]["status"])  # noqa: T201
                return
            await asyncio.sleep(0.2)


asyncio.run(main())
