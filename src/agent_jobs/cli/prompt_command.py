"""Explain a prompt that a shell has split into words, or that begins like an option."""

import re
import shlex
from typing import Any

import click

#: Several words, of which the first one begins like an option.
_DASHED_WORDS = re.compile(r"-\S*\s")


class PromptCommand(click.Command):
    """A command whose only argument is a prompt.

    A prompt without quotes is refused: a shell may have replaced a part of it, and a job costs money.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; refuse a prompt of several words with the command that was meant."""
        typed = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            dashed = _find_dashed_prompt(typed, error)
            if dashed is None:
                _refuse_missing_prompt(ctx, error)
                raise
            fixed = _join_command(ctx, [*_leave_out(typed, [dashed]), "--", dashed])
            hint = f"If this is the prompt, put -- before it: {fixed}"
            raise click.UsageError(f"{error.format_message().rstrip('.')}. {hint}", ctx) from None
        if ctx.resilient_parsing or not ctx.args:
            return rest
        words = [str(ctx.params["prompt"]), *ctx.args]
        options = _leave_out(typed, words)
        fixed = _join_command(ctx, [*options, " ".join(words)])
        raise click.UsageError(f"The prompt is not in quotes, so nothing was sent. Put it in quotes: {fixed}", ctx)


def _refuse_missing_prompt(ctx: click.Context, error: click.UsageError) -> None:
    """Refuse a command without a prompt, with what to give. Of one argument of `ask` the id may be missing instead."""
    if not isinstance(error, click.MissingParameter) or error.param is None or error.param.name != "prompt":
        return
    given = ctx.params.get("job_id")
    if given in (None, "last") or given.startswith("job_"):
        raise click.UsageError("Give a prompt, or - to read it from stdin.", ctx) from None
    fixed = _join_command(ctx, ["last", given])
    raise click.UsageError(f"Give the id of a job and a prompt. If this is the prompt: {fixed}", ctx) from None


def _find_dashed_prompt(typed: list[str], error: click.UsageError) -> str | None:
    """Return the argument that was taken for an option and looks like a prompt, if that may be the mistake."""
    if "--" in typed or not isinstance(error, click.NoSuchOption | click.MissingParameter | click.BadOptionUsage):
        return None
    for argument in typed:
        if _DASHED_WORDS.match(argument):
            return argument
        is_unknown = isinstance(error, click.NoSuchOption) and argument.startswith(error.option_name)
        if is_unknown and argument[1:2].isdigit():
            return argument
    return None


def _leave_out(typed: list[str], words: list[str]) -> list[str]:
    """Return the arguments without the words of the prompt."""
    left = list(typed)
    for word in words:
        if word in left:
            left.remove(word)
    return left


def _join_command(ctx: click.Context, arguments: list[str]) -> str:
    return f"{ctx.command_path} {shlex.join(arguments)}"
