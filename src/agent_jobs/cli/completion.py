"""`agent-jobs completion`: complete commands, options and job ids in a shell."""

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from agent_jobs.cli.choice import NamedChoice, NamedGroup
from agent_jobs.cli.display.wrapping import print_sentences

#: The variable that a shell sets when it asks for completions.
COMPLETION_VARIABLE = "_AGENT_JOBS_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
PROGRAM = "agent-jobs"
#: The end of the line that is added to a shell's start file.
MARK = "# agent-jobs completion"
#: zsh knows `compdef` only after this; it is not repeated if the user's own lines have done it.
ZSH_START = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"
SELECT_SHELL = f"Name the shell: agent-jobs completion install {'|'.join(SHELLS)}"


class CompletionGroup(NamedGroup):
    """The commands for completion; the name of a shell alone prints its script."""

    def list_names(self, ctx: click.Context) -> list[str]:
        """Return the names that a misspelt one may mean."""
        return [*super().list_names(ctx), *SHELLS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command; for the name of a shell, one that prints its script."""
        if cmd_name in SHELLS:
            return click.Command(cmd_name, callback=lambda: click.echo(render_script(cmd_name)), hidden=True)
        return super().get_command(ctx, cmd_name)


@click.group("completion", cls=CompletionGroup)
def completion_command() -> None:
    """Complete commands, options and job ids in your shell.

    It also completes hosts, presets, models, efforts and batches.
    """


@completion_command.command("install")
@click.argument("shell", type=NamedChoice(SHELLS), required=False, metavar="[SHELL]")
def install_command(shell: str | None) -> None:
    """Switch completion on in bash, zsh or fish.

    Without SHELL, this is the shell of your account ($SHELL). It writes a file with the script and, for bash and zsh, a
    line into the shell's start file that reads it. A second run has nothing to do.
    """
    shell = shell or _find_shell(os.environ)
    target = find_target(shell, os.environ)
    changes = [*_write_script(target, render_script(shell)), *_add_line(target)]
    if changes:
        click.echo("\n".join(changes))
        print_sentences(f"Next: Start a new {shell}, type `agent-jobs wa` and press Tab.")
    else:
        print_sentences(f"Nothing to do: completion for {shell} is installed in {target.script}.")
    print_sentences(f"To undo it: {target.undo_line}")
    if shutil.which(PROGRAM) is None:
        click.echo("agent-jobs is not on your PATH. Completion works once it is: uv tool install agent-jobs", err=True)


@completion_command.command("show")
@click.argument("shell", type=NamedChoice(SHELLS), metavar="SHELL")
def show_command(shell: str) -> None:
    """Print the completion script of bash, zsh or fish.

    \b
    To switch it on yourself:
      bash  eval "$(agent-jobs completion show bash)"
      zsh   eval "$(agent-jobs completion show zsh)"
      fish  agent-jobs completion show fish | source
    """  # noqa: D301
    click.echo(render_script(shell))


@dataclass(frozen=True)
class Target:
    """The files of a shell in which completion is switched on."""

    script: Path
    start_file: Path | None = None  #: the shell's start file that needs a line; None if it finds the script itself

    @property
    def line(self) -> str:
        """Return the line that reads the script."""
        path = shlex.quote(str(self.script))
        return f"[ -r {path} ] && . {path}  {MARK}"

    @property
    def undo_line(self) -> str:
        """Return what the user does to switch completion off."""
        delete = f"rm {shlex.quote(str(self.script))}"
        if self.start_file is None:
            return delete
        return f"{delete}, and delete the line with `{MARK}` from {self.start_file}."


def find_target(shell: str, environ: Mapping[str, str]) -> Target:
    """Return the files of a shell."""
    home = Path.home()
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    script = config / f"agent-jobs/completion.{shell}"
    match shell:
        case "fish":
            return Target(config / "fish/completions/agent-jobs.fish")
        case "zsh":
            return Target(script, Path(environ.get("ZDOTDIR") or home) / ".zshrc")
        case _:
            return Target(script, home / ".bashrc")


def render_script(shell: str) -> str:
    """Return the script that switches completion on in a shell."""
    from click.shell_completion import get_completion_class

    from agent_jobs.cli.main import cli

    complete = get_completion_class(shell)
    assert complete is not None
    script = complete(cli, {}, PROGRAM, COMPLETION_VARIABLE).source()
    if shell == "zsh":
        first, _, rest = script.partition("\n")  # `#compdef` has to be the first line
        return f"{first}\n{ZSH_START}{rest}"
    return script


def _find_shell(environ: Mapping[str, str]) -> str:
    """Return the shell of the user's account.

    Raises:
        click.UsageError: It is not supported, or unknown.
    """
    shell = Path(environ.get("SHELL", "")).name
    if shell in SHELLS:
        return shell
    known = "$SHELL is not set."
    if shell:
        known = f"Your shell ({shell}) is not supported."
    raise click.UsageError(f"{known} {SELECT_SHELL}")


def _write_script(target: Target, script: str) -> list[str]:
    """Write the script unless it exists; return a sentence about the change."""
    data = f"{script.rstrip()}\n".encode()
    if _read_existing(target.script) == data:
        return []
    target.script.parent.mkdir(parents=True, exist_ok=True)
    target.script.write_bytes(data)
    return [f"The script was written: {target.script}"]


def _read_existing(path: Path) -> bytes:
    """Return what a file holds; nothing if it does not exist."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _add_line(target: Target) -> list[str]:
    """Add the line that loads the script to the shell's start file unless it exists; return a sentence about it."""
    path = target.start_file
    if path is None:
        return []
    before = _read_existing(path)
    line = f"{target.line}\n".encode()
    if line.strip() in map(bytes.strip, before.splitlines()):
        return []
    if before and not before.endswith(b"\n"):
        line = b"\n" + line
    with path.open("ab") as file:  # never replaced: it may be a link into a folder of dotfiles
        file.write(line)
    return [f"A line that reads it was added: {path}"]
