"""Play the demo: a job outlives its killed server. Everything is real but the model."""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import click
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from agent_jobs.cli.closed_output import is_stdout_abandoned
from agent_jobs.cli.display.sections import style
from agent_jobs.cli.display.terminal import find_width, wrap_lines
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.interruption import Interrupted
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.emulator.server import run_emulator
from agent_jobs.errors import walk_leaves

LIMIT_S = 90.0  # the story lasts ten seconds; the first start after an installation compiles every module
QUESTION = "What makes a background job trustworthy?"
ANSWER = (
    "It is stored before it is sent, so a crash cannot lose it. It is sent once: if a start is unclear, the job says "
    "so and is not sent again. Its result is copied as soon as it exists. And when a server dies, the next one takes "
    "its jobs over."
)
#: What the emulated model answers to the demo's own question, and to any other.
ANSWERS = {QUESTION: ANSWER}
OTHER_ANSWER = (
    "The emulated model has no answer to that. A real one would have written it here, after the same restart."
)
#: The emulated model searches, thinks and writes for about six seconds.
SCRIPT: Mapping[str, object] = {"duration_s": 6, "searches": 2, "reasoning": 2}
KILL_AFTER_S = 2.0  # long enough to show that the job is running
ANSWER_INDENT = "         "  # below the words of the timeline
PIPE_COLUMNS = 88  # as wide as the picture in the README
#: Colours of the words that begin a line, by who acts.
COLOURS: Mapping[str, str] = {"api": "magenta", "host": "cyan", "kill": "red"}
OPEN_LIMIT_S = 60.0  # the imports of a server on a very busy machine
LOCK_POLL_S = 0.05  # between two lists of the folder with the locks, which reports no changes


class DemoError(Exception):
    """The demo could not show what it promises."""


def run_demo(question: str) -> int:
    """Show the demo; return 0 only if the job survived, completed and was paid for once."""
    print_sentences("A job that survives a killed server. No key, no network: only the model is emulated.\n")
    failures: list[str] = []
    is_interrupted = False
    with (
        raise_on_ctrl_c(),
        tempfile.TemporaryDirectory(prefix="agent-jobs-demo-") as folder,
        run_emulator() as upstream,
    ):
        demo = _Demo(Path(folder), upstream.base_url)
        try:
            demo.print_line("api", f"an emulated Responses API is listening on {upstream.base_url}")
            anyio.run(demo.play, question)
            creates = upstream.emulator.counters()["creates"]
            if creates != 1:
                raise DemoError("the job was started more than once")
            demo.print_line("api", "counted 1 POST for this job: nothing was paid twice")
        except* (DemoError, MCPError, OSError) as group:  # a task group raises its errors as a group
            failures = [str(error) or "it took too long" for error in walk_leaves(group)]
        except* KeyboardInterrupt:
            is_interrupted = True
    if is_interrupted:
        raise Interrupted("")
    if failures:
        click.echo(f"\nThe demo failed: {'; '.join(failures)}.", err=True)
        return 1
    print_sentences("\nNext: `agent-jobs install HOST` adds this server to claude-code, codex, cursor or another.")
    return 0


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
        elapsed = style(f"{time.monotonic() - self._began:5.1f} s", dim=True)
        actor = style(f"{who:<4}", bold=True, colour=COLOURS[who])
        click.echo(f"{elapsed}  {actor}  {what}")
        if is_stdout_abandoned():
            raise DemoError("the reader of its output is gone")

    async def play(self, question: str) -> None:
        """Start a job, kill the server under it, and collect the result from another one."""
        with anyio.fail_after(LIMIT_S):
            job_id = await self._start_and_kill(question)
            await self._collect_result(question, job_id)

    async def _start_and_kill(self, question: str) -> str:
        async with Client(self._server) as host:
            self.print_line("host", f"started the MCP server (process {await self._find_pid()})")
            script = {**SCRIPT, "text": ANSWERS.get(question, OTHER_ANSWER)}
            options = {"metadata": {"emulate": json.dumps(script)}}
            started = await self._call_tool(host, "agent_start", prompt=question, wait_s=0, options=options)
            job_id = started["job_id"]
            self.print_line("host", f"agent_start: {job_id} is {started['status']}")
            self.print_line("host", "agent_poll: waiting for the result ...")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._kill_server)
                try:
                    await self._call_tool(host, "agent_poll", job_id=job_id)
                    raise DemoError("the server outlived its SIGKILL")
                except MCPError:
                    self.print_line("host", "agent_poll: failed. The run continues at the API")
        return job_id

    async def _collect_result(self, question: str, job_id: str) -> None:
        async with Client(self._server) as host:
            self.print_line("host", f"started a new server (process {await self._find_pid()})")
            self.print_line("host", f"agent_poll: waiting for {job_id} again ...")
            answer = await self._call_tool(host, "agent_poll", job_id=job_id)
        if answer.get("status") != "completed" or not answer.get("output"):
            raise DemoError(f"the job ended with status {answer.get('status')!r}")
        self.print_line("host", f"agent_poll: {style('completed', bold=True, colour='green')}")
        width = find_width(piped=PIPE_COLUMNS) - len(ANSWER_INDENT)
        lines = [style(question, bold=True), *wrap_lines(answer["output"], width)]
        click.echo("\n" + "".join(f"{ANSWER_INDENT}{line}\n" for line in lines))

    async def _call_tool(self, host: Client, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await host.call_tool(tool, arguments)
        [content] = result.content
        assert isinstance(content, TextContent)
        answer: dict[str, Any] = json.loads(content.text)
        return answer

    async def _kill_server(self) -> None:
        await anyio.sleep(KILL_AFTER_S)
        pid = await self._find_pid()
        self.print_line("kill", f"kill -9 {pid}: the server is gone, without any clean-up")
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
