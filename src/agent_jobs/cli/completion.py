"""`agent-jobs completion`: print the script for completions in a shell."""

import click

from agent_jobs.cli.choice import NamedChoice

#: The variable that a shell sets when it asks for completions.
COMPLETION_VARIABLE = "_AGENT_JOBS_COMPLETE"


@click.command("completion")
@click.argument("shell", type=NamedChoice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options, hosts, presets and jobs.

    \b
    bash:  eval "$(agent-jobs completion bash)"    in ~/.bashrc
    zsh:   eval "$(agent-jobs completion zsh)"     in ~/.zshrc, after compinit
    fish:  agent-jobs completion fish > ~/.config/fish/completions/agent-jobs.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(context.find_root().command, {}, "agent-jobs", COMPLETION_VARIABLE).source())
