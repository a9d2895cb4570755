"""Jobs that ask: the person in a dialog of the host, the host's model by agent_reply, and nobody at all."""

import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import ClientRequestContext
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult, InputRequiredResult

from agent_jobs.emulator.serve import RunningServer
from agent_jobs.render import ASKING_BYTES, START_BYTES
from agent_jobs.settings import Settings
from hosts import Host, eventually, hosting, read
from processes import serving
from test_tools import size

ERAS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["before 2026-07-28", "2026-07-28"])
LOOKUP = {"name": "lookup", "arguments": {"word": "one"}}
REMOTE = {"server_label": "shop", "name": "buy", "arguments": '{"what": "a boat"}'}
TWO = [LOOKUP, {"name": "lookup", "arguments": {"word": "two"}}]


@dataclass
class Person:
    """Who sits before the host, and does with each question what they mean to."""

    does: str = "accept"
    seen: list[str] = field(default_factory=list[str])
    began: anyio.Event = field(default_factory=anyio.Event)
    may_answer: anyio.Event | None = None

    async def asked(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.seen.append(params.message)
        self.began.set()
        if self.may_answer is not None:
            await self.may_answer.wait()
        return ElicitResult(action=self.does, content={} if self.does == "accept" else None)  # type: ignore[arg-type]


def sent(upstream: RunningServer) -> list[dict[str, Any]]:
    """The answers that upstream was given for calls."""
    return [item for entry in upstream.emulator.log() for item in entry.get("answers", ())]


async def asking(host: Host, *, wait_s: float = 20, **more: Any) -> dict[str, Any]:
    """A job that waits, as a host without dialogs is told of it."""
    started = await host.start(emulate={"duration_s": 0.2, **more}, options=options(more))
    return await host.call("agent_poll", job_id=started["job_id"], wait_s=wait_s)


def options(script: dict[str, Any]) -> dict[str, Any]:
    if "mcp_approval" in script:
        return {"tools": [{"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}]}
    return {"tools": [{"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}]}


async def test_functions_of_the_caller_are_answered_by_its_model_and_the_job_goes_on(settings: Settings) -> None:
    async with hosting(settings) as host:
        told = await asking(host, function_calls=TWO)
        assert [json.loads(call["arguments"])["word"] for call in told["needs"]] == ["one", "two"]
        assert told["next"] == f"agent_reply job_id={told['job_id']} outputs=[{{call_id,output}}]"
        outputs = [{"call_id": call["call_id"], "output": {"found": n}} for n, call in enumerate(told["needs"])]
        await host.call("agent_reply", job_id=told["job_id"], outputs=outputs)
        assert (await host.end(told["job_id"]))["status"] == "completed"


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
