"""The command line. The module of a command is imported when the command runs."""

import os
import sys
from importlib import import_module
from typing import Any

import click

from agent_jobs import __version__
from agent_jobs.cli.choice import refuse_command
from agent_jobs.cli.closed_output import OutputError, replace_output_streams
from agent_jobs.cli.command_help import (
    DOCUMENTATION,
    MAX_COLUMNS,
    HelpContext,
    add_help,
    find_summary,
    list_groups,
)
from agent_jobs.cli.interruption import report_interruption
from agent_jobs.errors import ConfigError

ABOUT = """\
agent-jobs is an MCP server: a host such as Claude Desktop, Claude Code,
Cursor, VS Code or Codex starts it and talks to it over stdin and stdout. It
hands long work to OpenAI background responses and brings the results back.

See it work, without a key:   agent-jobs demo
Put it into your host:        agent-jobs install claude-desktop
Or into another host:         agent-jobs install --help
By hand, in hosts that read "mcpServers":
"""

#: The error after a command whose output could not be written.
UNWRITTEN = (
    "The output cannot be written ({reason}). Send it elsewhere or free space; what the command changed stays changed."
)
#: `Exit.UNWRITTEN`, without the import of a whole engine.
UNWRITTEN_STATUS = 7

#: The module of each command. Its group, its summary and its examples are in `command_help`.
COMMANDS = {
    "run": "start",
    "start": "start",
    "ask": "follow_up",
    "retry": "follow_up",
    "watch": "watch",
    "work": "work",
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
    "key": "key",
    "config": "config",
    "models": "models",
    "presets": "presets",
    "doctor": "doctor",
    "emulator": "emulator",
    "demo": "demo",
    "init": "init",
    "install": "install",
    "uninstall": "install",
    "notify": "notify",
    "serve": "serve",
    "owner": "owner",
    "token": "token",
    "audit": "audit",
    "service": "service",
    "db": "db",
    "import": "import_jobs",
    "ui": "ui",
    "completion": "completion",
}


class Commands(click.Group):
    """A group that imports a command when it is needed."""

    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"agent_jobs.cli.{COMMANDS[cmd_name]}"), f"{cmd_name}_command")
        return add_help(command, cmd_name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options of all of them."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by group, without importing those that have one."""
        width = max(map(len, COMMANDS))
        for heading, names in list_groups(self.list_commands(ctx)):
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<{width}}", self._summarize_command(ctx, name)) for name in names])

    def _summarize_command(self, ctx: click.Context, name: str) -> str:
        """Return what a command does in a sentence."""
        if (summary := find_summary(name)) is not None:
            return summary
        command = self.get_command(ctx, name)
        assert command is not None
        return command.get_short_help_str(MAX_COLUMNS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; refuse another name with the nearest one."""
        if args[0] not in COMMANDS:
            refuse_command(ctx, args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run the command line. A reader of the output that leaves does not make it fail."""
        replace_output_streams()
        try:
            return super().main(*args, **more)
        except OutputError as error:
            click.echo(f"Error: {UNWRITTEN.format(reason=error.strerror)}", err=True)
        sys.exit(UNWRITTEN_STATUS)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn an error of the operating system, such as a full disk, into a sentence."""
        try:
            with report_interruption():
                return super().invoke(ctx)
        except OutputError:
            raise
        except OSError as error:
            place = error.filename or "The output"
            reason = error.strerror or error
            raise click.ClickException(f"{place} cannot be read or written ({reason}). Name another file.") from None


EPILOG = f"""\
`agent-jobs COMMAND -h` describes a command, with examples.

\b
Exit status of a command that waits for a job:
  0 completed, 1 error, 2 usage, 3 failed or expired,
  4 incomplete, 5 cancelled, 6 still running or waits for
  an answer, 7 output not written, 130 ended by Ctrl-C

\b
Environment; `agent-jobs config --explain` describes all:
  OPENAI_API_KEY, OPENAI_BASE_URL, AGENT_JOBS_MODEL,
  AGENT_JOBS_DATA_DIR, NO_COLOR

\b
Documentation:
  {DOCUMENTATION}
"""


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_COLUMNS},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="agent-jobs")
@click.option("--env-file", metavar="PATH", help="A file of NAME=VALUE lines; variables that are already set win.")
@click.pass_context
def cli(context: click.Context, env_file: str | None) -> None:
    """Run long jobs as OpenAI background responses, from the terminal and from MCP hosts.

    Begin with `agent-jobs demo`, which needs no key, and `agent-jobs install`, which adds this to a host. Without a
    command, and started by a host, this is the MCP server.
    """
    if env_file is not None:
        from agent_jobs.settings.env_file import add_env_file

        try:
            os.environ.update(add_env_file(os.environ, env_file))
        except ConfigError as error:
            from agent_jobs.cli.wording import describe_error

            raise click.ClickException(describe_error(error)) from None
    if context.invoked_subcommand is None:
        from agent_jobs.cli.display.wrapping import print_sentences
        from agent_jobs.cli.install import render_entry

        print_sentences(ABOUT)
        click.echo(render_entry())
