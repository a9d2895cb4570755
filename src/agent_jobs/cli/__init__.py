"""The command line. What a command needs is imported when it runs."""

import json
from importlib import import_module

import click

from agent_jobs import __version__

ABOUT = """\
agent-jobs is an MCP server: a host such as Claude Desktop, Claude Code, Cursor, VS Code or Codex starts it and
talks to it over stdin and stdout. It hands long work to OpenAI background responses and brings the results back.

See it work, without a key:   agent-jobs demo
Put it into your host:

"""


def configuration() -> str:
    """The entry for hosts that take `mcpServers`, as it works on this machine."""
    import shutil

    # A host that was started from a desktop does not have the shell's PATH.
    entry = {
        "command": shutil.which("uvx") or "uvx",
        "args": [*_source(), "agent-jobs"],
        "env": {"OPENAI_API_KEY": "sk-..."},
    }
    return json.dumps({"mcpServers": {"agent-jobs": entry}}, indent=2)


def _source() -> list[str]:
    """Where uvx finds this program, if it was not installed from the package index."""
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin = json.loads(metadata.distribution("agent-jobs").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return []
    url = urlsplit(str(origin.get("url", "")))
    return ["--from", url2pathname(url.path)] if url.scheme == "file" else []


#: A shell sets it when it asks what may follow.
COMPLETING = "_AGENT_JOBS_COMPLETE"
#: The commands that live in modules of their own, in the order of the help.
COMMANDS = {
    "run": "starting",
    "start": "starting",
    "watch": "watch",
    "list": "jobs",
    "show": "jobs",
    "result": "jobs",
    "cancel": "jobs",
    "batch": "batch",
    "adopt": "jobs",
    "prune": "jobs",
    "config": "config",
    "doctor": "doctor",
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names: those of COMMANDS, then those that were added here."""
        return [*COMMANDS, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        return getattr(import_module(f"agent_jobs.cli.{COMMANDS[cmd_name]}"), f"{cmd_name}_command")


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(__version__, prog_name="agent-jobs")
@click.pass_context
def cli(context: click.Context) -> None:
    """Run long work as OpenAI background responses, for hosts that speak MCP.

    Without a command and with a host on stdin this is the MCP server.
    """
    if context.invoked_subcommand is None:
        click.echo(ABOUT + configuration())


@cli.command("emulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8787, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--time-scale", default=1.0, show_default=True, help="Emulated seconds that pass in a second.")
def run_emulator(host: str, port: int, time_scale: float) -> None:
    """Serve a look-alike of the Responses API.

    For trying things without a key.
    """
    from agent_jobs.cli.emulator import run

    run(host, port, time_scale)


@cli.command("demo")
@click.argument("question", default="What makes a background job trustworthy?")
def run_demo(question: str) -> None:
    """Watch a job outlive its killed server.

    No key, no network, 20 seconds.
    """
    from agent_jobs.cli.demo import run

    raise SystemExit(run(question))


@cli.command("serve")
def run_serve() -> None:
    """Serve MCP on stdin and stdout.

    As a host has it, which gives no command.
    """
    from agent_jobs.stdio import serve

    serve()


@cli.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def run_completion(shell: str) -> None:
    """Print what a shell needs to complete job ids.

    \b
    bash:  eval "$(agent-jobs completion bash)"                        in ~/.bashrc
    zsh:   eval "$(agent-jobs completion zsh)"                         in ~/.zshrc
    fish:  agent-jobs completion fish > ~/.config/fish/completions/agent-jobs.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(cli, {}, "agent-jobs", COMPLETING).source())
