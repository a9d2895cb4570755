"""The command line. Each command lives in a module of its own that is imported when it runs."""

import json
import os
import shutil
from importlib import metadata
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click

from agent_jobs import __version__
from agent_jobs.errors import ConfigError

ABOUT = """\
agent-jobs is an MCP server: a host such as Claude Desktop, Claude Code, Cursor, VS Code or Codex starts it and
talks to it over stdin and stdout. It hands long work to OpenAI background responses and brings the results back.

See it work, without a key:   agent-jobs demo
Put it into your host:

"""


def configuration() -> str:
    """The entry for hosts that take `mcpServers`, as it works on this machine."""
    # A host that was started from a desktop does not have the shell's PATH.
    entry = {
        "command": shutil.which("uvx") or "uvx",
        "args": [*_source(), "agent-jobs"],
        "env": {"OPENAI_API_KEY": "sk-..."},
    }
    return json.dumps({"mcpServers": {"agent-jobs": entry}}, indent=2)


def _source() -> list[str]:
    """Where uvx finds this program, if it was not installed from the package index."""
    try:
        origin = json.loads(metadata.distribution("agent-jobs").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return []
    url = urlsplit(str(origin.get("url", "")))
    return ["--from", url2pathname(url.path)] if url.scheme == "file" else []


@click.group(invoke_without_command=True)
@click.version_option(__version__, prog_name="agent-jobs")
@click.option("--env-file", metavar="PATH", help="A file of NAME=VALUE lines; what the environment sets stays.")
@click.pass_context
def cli(context: click.Context, env_file: str | None) -> None:
    """Run long work as OpenAI background responses, for hosts that speak MCP.

    Without a command and with a host on stdin this is the MCP server.
    """
    if env_file is not None:
        from agent_jobs.settings import with_env_file

        try:
            os.environ.update(with_env_file(os.environ, env_file))
        except ConfigError as error:
            raise click.ClickException(str(error)) from None
    if context.invoked_subcommand is None:
        click.echo(ABOUT + configuration())


@cli.command("emulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8787, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--time-scale", default=1.0, show_default=True, help="Emulated seconds that pass in a second.")
def run_emulator(host: str, port: int, time_scale: float) -> None:
    """Serve a look-alike of the Responses API, for trying things without a key."""
    from agent_jobs.cli.emulator import run

    run(host, port, time_scale)


@cli.command("demo")
@click.argument("question", default="What makes a background job trustworthy?")
def run_demo(question: str) -> None:
    """Watch a job outlive its killed server: no key, no network, 20 seconds."""
    from agent_jobs.cli.demo import run

    raise SystemExit(run(question))
