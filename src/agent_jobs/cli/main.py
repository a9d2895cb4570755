"""The command line. The module of a command is imported when the command runs."""

import os
from importlib import import_module
from typing import Any

import click

from agent_jobs import __version__
from agent_jobs.cli.choice import ask_if_meant
from agent_jobs.cli.interruption import report_interruption
from agent_jobs.cli.output import outlive_readers
from agent_jobs.errors import ConfigError

ABOUT = """\
agent-jobs is an MCP server: a host such as Claude Desktop, Claude Code, Cursor, VS Code or Codex starts it and
talks to it over stdin and stdout. It hands long work to OpenAI background responses and brings the results back.

See it work, without a key:   agent-jobs demo
Put it into your host:        agent-jobs install claude-desktop     (or another: agent-jobs install --help)
By hand, in hosts that read "mcpServers":

"""

#: The module of each command, in the order of the help.
COMMANDS = {
    "run": "start",
    "start": "start",
    "ask": "follow_up",
    "retry": "follow_up",
    "watch": "watch",
    "list": "job_list",
    "show": "show",
    "logs": "logs",
    "result": "result",
    "search": "search",
    "stats": "stats",
    "export": "export",
    "reply": "reply",
    "cancel": "jobs",
    "batch": "batch",
    "adopt": "jobs",
    "delete": "delete",
    "prune": "jobs",
    "config": "config",
    "doctor": "doctor",
    "emulator": "emulator",
    "demo": "demo",
    "install": "install",
    "uninstall": "install",
    "serve": "serve",
    "completion": "completion",
}


class Commands(click.Group):
    """A group that imports a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of that name."""
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f"agent_jobs.cli.{COMMANDS[cmd_name]}"), f"{cmd_name}_command")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; refuse another name with the nearest one."""
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}.{ask_if_meant(name, names)}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run the command line. A reader of the output that leaves does not make it fail."""
        outlive_readers()
        return super().main(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn an error of the operating system, such as a full disk, into a sentence."""
        try:
            with report_interruption():
                return super().invoke(ctx)
        except OSError as error:
            place = error.filename or "The output"
            reason = error.strerror or error
            raise click.ClickException(f"{place} cannot be read or written ({reason}). Name another file.") from None


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(__version__, prog_name="agent-jobs")
@click.option("--env-file", metavar="PATH", help="A file of NAME=VALUE lines; variables that are already set win.")
@click.pass_context
def cli(context: click.Context, env_file: str | None) -> None:
    """Run long jobs as OpenAI background responses, from the terminal and from MCP hosts.

    Without a command, and started by a host, this is the MCP server.
    """
    if env_file is not None:
        from agent_jobs.env_file import with_env_file

        try:
            os.environ.update(with_env_file(os.environ, env_file))
        except ConfigError as error:
            from agent_jobs.cli.wording import reword

            raise click.ClickException(reword(str(error))) from None
    if context.invoked_subcommand is None:
        from agent_jobs.cli.install import configuration

        click.echo(ABOUT + configuration())
