"""Play the demo: a job outlives its killed server. Everything is real but the model."""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import anyio
import click
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from agent_jobs.cli.install import configuration
from agent_jobs.cli.interruption import Interrupted
from agent_jobs.cli.output import is_stdout_left
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.emulator.server import running
from agent_jobs.text import compact_json

LIMIT_S = 20.0  # the story takes half of it
#: The emulated model searches, thinks and writes for about eight seconds.
SCRIPT = {"duration_s": 8, "searches": 2, "reasoning": 2, "length": 700}
KILL_AFTER_S = 2.5  # long enough to show that the job is running
SHOWN_CHARS = 240  # of the answer, about three lines of a terminal
OPEN_LIMIT_S = 60.0  # the imports of a server on a very busy machine
LOCK_POLL_S = 0.05  # between two lists of the folder with the locks, which reports no changes


class DemoError(Exception):
    """The demo could not show what it promises."""


def run(question: str) -> int:
    """Show the demo; return 0 only if the job survived, completed and was paid for once."""
    click.echo("A job that outlives its server. It needs no key and no network; only the model is emulated.\n")
    failures: list[str] = []
    is_interrupted = False
    with raise_on_ctrl_c(), tempfile.TemporaryDirectory(prefix="agent-jobs-demo-") as folder, running() as upstream:
        demo = _Demo(Path(folder), upstream.base_url)
        try:
            demo.print_line("upstream", f"an emulated Responses API listens on {upstream.base_url}")
            anyio.run(demo.play, question)
            creates = upstream.emulator.counters()["creates"]
            demo.print_line("upstream", f"counted {creates} POST for this job")
            if creates != 1:
                raise DemoError("the job was started more than once")
        except* (DemoError, MCPError, OSError) as group:  # a task group raises its errors as a group
            failures = [str(error) or "it took too long" for error in _list_errors(group)]
        except* KeyboardInterrupt:
            is_interrupted = True
    if is_interrupted:
        raise Interrupted("")
    if failures:
        click.echo(f"\nThe demo failed: {'; '.join(failures)}.", err=True)
        return 1
    click.echo(f"\nThe same server in your host, with your key:\n\n{configuration()}")
    return 0


def _list_errors(error: BaseException) -> list[BaseException]:
    """Return the errors in a group and its groups."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [each for member in group.exceptions for each in _list_errors(member)]


def _shorten_output(output: str) -> str:
    if len(output) <= SHOWN_CHARS:
        return output.rstrip()
    return f"{output[:SHOWN_CHARS].rstrip()} ..."


class _Demo:
    """The story, and the time since its beginning."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self._folder = folder
        self._killed: set[int] = set()
        self._began = time.monotonic()
        # The user's settings are for the real server, not for the demo.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_JOBS_", "OPENAI_"))}
        environment = {
            "OPENAI_API_KEY": "emulated",
            "OPENAI_BASE_URL": base_url,
            "AGENT_JOBS_DATA_DIR": str(folder),
            "NO_PROXY": "127.0.0.1",
        }
        self._server = StdioServerParameters(
            command=sys.executable, args=["-m", "agent_jobs"], env={**kept, **environment}
        )

    def print_line(self, who: str, what: str) -> None:
        """Print a line of the timeline."""
        click.echo(f"{time.monotonic() - self._began:5.1f} s  {who:<9} {what}")
        if is_stdout_left():
            raise DemoError("the reader of its output is gone")

    async def play(self, question: str) -> None:
        """Start a job, kill the server under it, and collect the result from another one."""
        with anyio.fail_after(LIMIT_S):
            job_id = await self._start_and_kill(question)
            await self._collect_result(job_id)

    async def _start_and_kill(self, question: str) -> str:
        async with Client(self._server) as host:
            self.print_line("host", f"started the server (pid {await self._find_pid()}) and calls agent_start")
            options = {"metadata": {"emulate": json.dumps(SCRIPT)}}
            started = await self._call_tool(host, "agent_start", prompt=question, wait_s=0, options=options)
            job_id = started["job_id"]
            self.print_line("host", f"calls agent_poll job_id={job_id}, which waits on the server's side ...")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._kill_server)
                try:
                    await self._call_tool(host, "agent_poll", job_id=job_id)
                    raise DemoError("the server outlived its SIGKILL")
                except MCPError:
                    self.print_line("host", "its call failed: the server is gone, but upstream continues")
        return job_id

    async def _collect_result(self, job_id: str) -> None:
        async with Client(self._server) as host:
            self.print_line("host", f"started the server again (pid {await self._find_pid()}) and polls the same job")
            answer = await self._call_tool(host, "agent_poll", job_id=job_id)
        if answer.get("status") != "completed" or not answer.get("output"):
            raise DemoError(f"the job ended with status {answer.get('status')!r}")
        click.echo(f"\n{_shorten_output(answer['output'])}\n")

    async def _call_tool(self, host: Client, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await host.call_tool(tool, arguments)
        [content] = result.content
        assert isinstance(content, TextContent)
        answer: dict[str, Any] = json.loads(content.text)
        shown = {name: value for name, value in answer.items() if name != "output"}
        self.print_line("server", compact_json(shown))
        return answer

    async def _kill_server(self) -> None:
        await anyio.sleep(KILL_AFTER_S)
        pid = await self._find_pid()
        self.print_line("killer", f"SIGKILL to {pid}: no handler runs, nothing is saved on the way out")
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._killed.add(pid)

    async def _find_pid(self) -> int:
        """Return the id of the server's process, from the lock that it takes when it opens its jobs.

        Raises:
            DemoError: The server did not open its jobs in time.
        """
        with anyio.move_on_after(OPEN_LIMIT_S):
            while True:
                locks = (self._folder / "run").glob("*.lock")
                living = {int(lock.name.partition("-")[0]) for lock in locks} - self._killed
                if living:
                    return living.pop()
                await anyio.sleep(LOCK_POLL_S)
        raise DemoError("the server did not open its jobs")
