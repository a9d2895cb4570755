"""Ask the user at the terminal for what a job waits for: the approval of a call, or the output of a function."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio
import click

from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.session import Session
from agent_jobs.cli.wording import describe_error
from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Reply
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import Status

#: Characters of the arguments in a question; `?` shows all of them.
SHOWN_ARGUMENT_CHARS = 200
NAME_CHARS = 80
#: Bytes that are read from the terminal at once: it gives a line at a time.
READ_BYTES = 65_536
APPROVE_HELP = (
    "y allows this call, n refuses it, always allows all calls of {name} until this job ends, ? shows the arguments."
)
OUTPUT_HELP = "Type the output of {name} in one line. An empty line leaves the job waiting."


class _Answered(NamedTuple):
    """The answers to the questions of a job."""

    outputs: dict[str, str]
    approve: list[str]
    always: list[str]
    deny: list[str]
    always_allowed: set[str]  #: the names of the calls in `always`


class Asker:
    """Asks at this terminal."""

    def __init__(self, hide: Callable[[], None] = lambda: None) -> None:
        self._hide = hide
        self._left_open: set[tuple[str, int]] = set()  #: turns of jobs whose questions the user did not answer

    def can_ask(self, job: Job) -> bool:
        """Return True if the job waits for an answer that the user has not put off."""
        return job.status is Status.INPUT_REQUIRED and (job.id, job.turn.number) not in self._left_open

    async def answer_questions(self, session: Session, jobs: Sequence[Job]) -> bool:
        """Ask what these jobs wait for and answer them; return True if one of them continues.

        Ctrl-C at a question leaves the job waiting, and the message then says how to answer it.
        """
        has_answered = False
        for job in filter(self.can_ask, jobs):
            self._hide()
            detached = session.detached
            session.detached = f"{job.id} waits for your answer. Answer it with: agent-jobs reply {job.id}"
            has_answered |= await self._answer_job(session, job)
            session.detached = detached
        return has_answered

    async def _answer_job(self, session: Session, job: Job) -> bool:
        answered = _Answered({}, [], [], [], set())
        calls = await session.engine.open_calls(job)
        for call in calls:
            if not await _ask_for_answer(call, answered):
                self._left_open.add((job.id, job.turn.number))
                click.echo(f"{job.id} stays waiting. Answer it with: agent-jobs reply {job.id}", err=True)
                break
        if not any(answered):
            return False
        reply = Reply(
            outputs=answered.outputs,
            approve=tuple(answered.approve),
            always=tuple(answered.always),
            deny=tuple(answered.deny),
            turn=job.turn.number,
        )
        try:
            await session.engine.reply(job.id, reply)
        except RequestError as error:  # a host answered it in the meantime
            click.echo(describe_error(error), err=True)
            return True
        for call in calls:
            if call.id in answered.always:
                print_sentences(_describe_standing_approval(job, call), err=True)
        return True


def open_asker(hide: Callable[[], None] = lambda: None, *, may_ask: bool = True) -> Asker | None:
    """Return the asker of the user; None if no person reads this terminal and can type into it.

    `hide` removes lines that are overwritten on the terminal, so that the question stays.
    """
    if sys.platform == "win32":
        return None  # its event loop cannot wait for a terminal
    if may_ask and sys.stdin.isatty() and sys.stderr.isatty():
        return Asker(hide)
    return None


async def _ask_for_answer(call: Call, answered: _Answered) -> bool:
    """Ask for one call; return False if the user leaves it open."""
    if call.needs == "output":
        output = await _ask_for_output(call)
        if output:
            answered.outputs[call.id] = output
        return bool(output)
    if call.name in answered.always_allowed:
        click.echo(f"Allowed {_describe_call(call)}.", err=True)
        return True
    return await _ask_for_approval(call, answered)


async def _ask_for_approval(call: Call, answered: _Answered) -> bool:
    """Ask whether to allow a call; return False if the user leaves it open."""
    while True:
        answer = await _read_typed_line(f"Allow {_describe_call(call)}? [y/N/always] ")
        if not answer:
            return False
        match answer.strip().casefold():
            case "y" | "yes":
                answered.approve.append(call.id)
                return True
            case "" | "n" | "no":
                answered.deny.append(call.id)
                return True
            case "a" | "always":
                answered.always.append(call.id)
                answered.always_allowed.add(call.name)
                return True
            case "?":
                _show_arguments(call)
            case _:
                click.echo(APPROVE_HELP.format(name=_escape_name(call)), err=True)


async def _ask_for_output(call: Call) -> str:
    """Return the output of a function; empty if the user leaves it open."""
    while True:
        typed = await _read_typed_line(f"Output of {_describe_call(call)} (empty: later, ?: all arguments): ")
        output = typed.strip()
        if output != "?":
            return output
        _show_arguments(call)
        click.echo(OUTPUT_HELP.format(name=_escape_name(call)), err=True)


async def _read_typed_line(question: str) -> str:
    """Return the line that the user types, with its end; empty at the end of the input. Jobs continue meanwhile."""
    click.echo(question, err=True, nl=False)
    sys.stderr.flush()
    typed = b""
    try:
        while not typed.endswith(b"\n"):
            await anyio.wait_readable(0)
            read = os.read(0, READ_BYTES)
            if not read:
                click.echo(err=True)
                return ""
            typed += read
    except BaseException:
        click.echo(err=True)  # what follows begins on a line of its own
        raise
    return typed.decode("utf-8", "replace")


def _describe_standing_approval(job: Job, call: Call) -> str:
    """Return what is allowed from now on, and the command that takes it back."""
    name = _escape_name(call)
    return (
        f"{name} is allowed until this job ends. Take that back with: "
        f"agent-jobs reply {job.id} --ask-again {shlex.quote(name)}"
    )


def _describe_call(call: Call) -> str:
    """Return a call in one line, without characters that could disguise it, and with its arguments cut."""
    from agent_jobs.rendering.questions import escape_invisible

    arguments = escape_invisible(call.arguments)
    if len(arguments) > SHOWN_ARGUMENT_CHARS:
        missing = len(arguments) - SHOWN_ARGUMENT_CHARS
        arguments = f"{arguments[:SHOWN_ARGUMENT_CHARS]}... [{missing} more characters: ?]"
    return f"{_escape_name(call)} {arguments}".strip()


def _escape_name(call: Call) -> str:
    """Return a call's name; for a tool of the user's servers, `server/tool`."""
    from agent_jobs.rendering.questions import escape_invisible, name_tool

    name = call.name
    if call.needs == "approval":
        name = name_tool(name)
    return escape_invisible(name)[:NAME_CHARS]


def _show_arguments(call: Call) -> None:
    """Show all arguments, those of an object one by one."""
    import json

    from agent_jobs.rendering.questions import escape_invisible

    try:
        lines = json.dumps(json.loads(call.arguments), ensure_ascii=False, indent=2).splitlines()
    except ValueError:
        lines = [call.arguments]
    click.echo("\n".join(map(escape_invisible, lines)), err=True)
