"""Run one prompt with an agent of LlamaIndex, in whose environment this runs; stdin brings the entry of the server."""

import asyncio
import json
import sys

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec


async def main() -> None:
    """Print what the agent says at its end."""
    entry = json.load(sys.stdin)["mcpServers"]["agent-jobs"]
    client = BasicMCPClient(entry["command"], args=entry["args"], env=entry["env"])
    tools = await McpToolSpec(client).to_tool_list_async()
    model = OpenAI(model="gpt-4o")  # it takes only names that it knows; the scripted model takes any
    print(await FunctionAgent(tools=tools, llm=model, timeout=None).run(sys.argv[1], max_iterations=100))


asyncio.run(main())
