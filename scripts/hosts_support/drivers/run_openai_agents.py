"""Run one prompt with the OpenAI Agents SDK, in whose environment this runs; stdin brings the entry of the server."""

import asyncio
import json
import sys

from agents import Agent, Runner
from agents.mcp import MCPServerStdio, MCPServerStdioParams


async def main() -> None:
    """Print what the agent says at its end."""
    entry = json.load(sys.stdin)["mcpServers"]["agent-jobs"]
    params = MCPServerStdioParams(command=entry["command"], args=entry["args"], env=entry["env"])
    async with MCPServerStdio(params) as server:
        agent = Agent(name="agent", model="scripted", mcp_servers=[server])
        print((await Runner.run(agent, sys.argv[1], max_turns=100)).final_output)


asyncio.run(main())
