"""The command line. What a command needs is imported when it runs."""

import json
import os
from importlib import import_module
from typing import Any, Literal

import click

from agent_jobs import __version__
from agent_jobs.cli.choice import NamedChoice, ask_if_meant
from agent_jobs.cli.interruption import report_interruption
from agent_jobs.cli.output import outlive_readers
from agent_jobs.errors import ConfigError

ABOUT = """\
agent-jobs is an MCP server: a host such as Claude Desktop, Claude Code, Cursor, VS Code or Codex starts it and
talks to it over stdin and stdout. It hands long work to OpenAI background responses and brings the results back.

See it work, without a key:   agent-jobs demo
Put it into your host:        agent-jobs install claude-desktop     (or another: agent-jobs install --help)
By hand, in hosts that take "mcpServers":

"""

#: The names of `agent_jobs.install.hosts.HOSTS`, which is imported only when one is asked for.
WRITTEN = (
    "claude-desktop", "claude-code", "cursor", "vscode", "codex", "opencode", "kilo", "qwen", "copilot-cli",
)  # fmt: skip
PRINTED = ("gemini", "antigravity", "windsurf", "devin", "zed", "goose", "cline", "roo", "continue", "lm-studio")


def configuration() -> str:
    """The entry for hosts that take `mcpServers`, as it works on this machine."""
    from agent_jobs.cli.install import here
    from agent_jobs.install.command import launch

    start = launch(here())
    entry = {"command": start.command, "args": list(start.args), "env": {"OPENAI_API_KEY": "sk-..."}}
    return json.dumps({"mcpServers": {"agent-jobs": entry}}, indent=2)


#: A shell sets it when it asks what may follow.
COMPLETING = "_AGENT_JOBS_COMPLETE"
#: The commands that live in modules of their own, in the order of the help.
COMMANDS = {
    "run": "start",
    "start": "start",
    "watch": "watch",
    "list": "jobs",
    "show": "jobs",
    "result": "jobs",
    "reply": "jobs",
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; refuse another name with the nearest one."""
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}.{ask_if_meant(name, names)}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run the command line; that its output is read no further is no failure of it."""
        outlive_readers()
        return super().main(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a file that cannot be used, or a full disk, is told in a sentence."""
        try:
            with report_interruption():
                return super().invoke(ctx)
        except OSError as error:
            what = error.filename or "The output"
            raise click.ClickException(
                f"{what} cannot be written or read ({error.strerror or error}): name another."
            ) from None


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(__version__, prog_name="agent-jobs")
@click.option("--env-file", metavar="PATH", help="A file of NAME=VALUE lines; what the environment sets stays.")
@click.pass_context
def cli(context: click.Context, env_file: str | None) -> None:
    """Run long work as OpenAI background responses, for hosts that speak MCP.

    Without a command and with a host on stdin this is the MCP server.
    """
    if env_file is not None:
        from agent_jobs.env_file import with_env_file

        try:
            os.environ.update(with_env_file(os.environ, env_file))
        except ConfigError as error:
            raise click.ClickException(str(error)) from None
    if context.invoked_subcommand is None:
        click.echo(ABOUT + configuration())


@cli.command("emulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8787, show_default=True, help="Port to listen on; 0 is a free one."
)
@click.option(
    "--time-scale", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Emulated seconds that pass in a second.",
)  # fmt: skip
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

    No key, no network, about ten seconds.
    """
    from agent_jobs.cli.demo import run

    raise SystemExit(run(question))


scope_option = click.option(
    "--scope", type=NamedChoice(["user", "project"]), default="user", show_default=True,
    help="Your own file, or that of the project in this folder.",
)  # fmt: skip


@cli.command("install")
@click.argument("host", type=NamedChoice(WRITTEN + PRINTED), metavar="HOST")
@click.option("--print", "print_only", is_flag=True, help="Only print the entry; for every host.")
@click.option("--dry-run", is_flag=True, help="Show what would change, secrets masked, and change nothing.")
@click.option("--uvx", is_flag=True, help="Let the host start uvx, which is slower, and install nothing.")
@click.option("--approve", is_flag=True, help="Let the model call agent_start unasked; for codex.")
@click.option(
    "--no-check", "checks", is_flag=True, flag_value=False, default=True, help="Do not start the written command once."
)
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the server; may be repeated.")
@scope_option
@click.option("--json", "as_json", is_flag=True, help="Answer as one JSON object.")
def run_install(host: str, print_only: bool, env: tuple[str, ...], **how: Any) -> None:
    """Put this server into the configuration of HOST.

    Written are claude-desktop, claude-code, cursor, vscode, codex, opencode, kilo, qwen and copilot-cli. With --print
    also gemini, antigravity, windsurf, devin, zed, goose, cline, roo, continue and lm-studio.

    The entry starts a permanent program by its absolute path: the one that runs this command or, if that is temporary,
    one that uv tool install or pipx install makes of this version.

    The file is backed up beside itself; everything else in it stays as it is. The OpenAI key is left to what the host
    has for secrets. Exit status: 0 done, or nothing to do; 1 refused, and nothing was written; 2 wrong arguments.
    """
    from agent_jobs.cli import install
    from agent_jobs.install.hosts import HOSTS

    variables = install.variables(env)
    if print_only:
        shown = {name: how[name] for name in ("uvx", "approve", "as_json")}
        install.show(HOSTS[host], install.here(), variables, **shown)
    else:
        install.install(HOSTS[host], install.here(), variables, **how)


@cli.command("uninstall")
@click.argument("host", type=NamedChoice(WRITTEN), metavar="HOST")
@click.option("--dry-run", is_flag=True, help="Show what would change, secrets masked, and change nothing.")
@scope_option
@click.option("--json", "as_json", is_flag=True, help="Answer as one JSON object.")
def run_uninstall(host: str, dry_run: bool, scope: Literal["user", "project"], as_json: bool) -> None:
    """Take this server out of the configuration of HOST, one of those that install writes.

    A program that install installed goes too, unless another host's entry starts it. Jobs, database and key stay. Exit
    status: 0 done, or nothing to do; 1 refused, and nothing was written; 2 wrong arguments.
    """
    from agent_jobs.cli import install
    from agent_jobs.install.hosts import HOSTS

    install.uninstall(HOSTS[host], install.here(), scope, dry_run=dry_run, as_json=as_json)


@cli.command("serve")
def run_serve() -> None:
    """Serve MCP on stdin and stdout.

    As a host has it, which gives no command.
    """
    from agent_jobs.mcp_server.front_door import open_front_door

    door = open_front_door()
    from agent_jobs.mcp_server.stdio import serve

    serve(door)


@cli.command("completion")
@click.argument("shell", type=NamedChoice(["bash", "zsh", "fish"]))
def run_completion(shell: str) -> None:
    """Print what a shell needs to complete names.

    Those of commands, options, hosts, presets and jobs.

    \b
    bash:  eval "$(agent-jobs completion bash)"    in ~/.bashrc
    zsh:   eval "$(agent-jobs completion zsh)"     in ~/.zshrc, after compinit
    fish:  agent-jobs completion fish > ~/.config/fish/completions/agent-jobs.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(cli, {}, "agent-jobs", COMPLETING).source())
