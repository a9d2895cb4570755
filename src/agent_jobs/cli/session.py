"""How a command comes to an engine, and how it leaves: exit statuses, signals, refusals."""

import logging
import os
import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click
from click.shell_completion import CompletionItem

from agent_jobs.app import App, Role, leave_on_signal, open_app
from agent_jobs.cli import terminal
from agent_jobs.cli.interruption import Interrupted
from agent_jobs.ctrl_c import INTERRUPTED_STATUS, delay_ctrl_c, describe_interruption
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status
from agent_jobs.settings import Settings

T = TypeVar("T")


class Exit(IntEnum):
    """What the exit status of a command tells."""

    DONE = 0
    REFUSED = 1  #: nothing was done; the sentence on stderr says what to change
    USAGE = 2  #: click's
    FAILED = 3  #: the job failed or expired
    INCOMPLETE = 4
    CANCELLED = 5
    RUNNING = 6  #: the job goes on
    INTERRUPTED = INTERRUPTED_STATUS  #: Ctrl-C; the job goes on


_EXITS = {
    Status.COMPLETED: Exit.DONE,
    Status.INCOMPLETE: Exit.INCOMPLETE,
    Status.FAILED: Exit.FAILED,
    Status.EXPIRED: Exit.FAILED,
    Status.CANCELLED: Exit.CANCELLED,
}


def exit_of(*jobs: Job) -> Exit:
    """The exit status for jobs: of the worst one, where going on is worse than any end."""
    return max((_EXITS.get(job.status, Exit.RUNNING) for job in jobs), default=Exit.DONE)


@dataclass
class Session:
    """A command's time with an engine. Mutable: what to say when it is interrupted becomes known on the way."""

    app: App
    engine: Engine
    detached: str = ""
    is_starting: bool = False  #: a job is written down and upstream has not named its response
    is_interrupted: bool = False  #: Ctrl-C was pressed meanwhile

    def interrupt(self) -> bool:
        """Return True if Ctrl-C ends the command at once, False if the command ends once the start is confirmed."""
        if not self.is_starting or self.is_interrupted:
            return True
        self.is_interrupted = True
        click.echo(
            "Interrupted: waiting until upstream names the response, since the run may already cost. "
            "Ctrl-C again leaves at once.",
            err=True,
        )
        return False

    def finish_starting(self) -> None:
        """Have Ctrl-C end the command at once from now on.

        Raises:
            Interrupted: It was pressed meanwhile.
        """
        self.is_starting = False
        if self.is_interrupted:
            raise Interrupted(self.detached)


def read_settings() -> Settings:
    """The settings of this environment; what in them is not as it was meant is told on stderr."""
    with refusals():
        settings = Settings.from_env(os.environ)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return settings


def call(
    work: Callable[[Session], Awaitable[T]],
    *,
    role: Role = "reads",
    what: str = "",
    settings: Settings | None = None,
    roots: tuple[Path, ...] = (),
) -> T:
    """Open the engine, run a command's work with it, and close in order; Ctrl-C ends the work and not its jobs.

    Args:
        work: The command.
        role: What this process does meanwhile.
        what: How others are told of it while it works on jobs.
        settings: Already read.
        roots: Folders that the command line itself named.

    Raises:
        click.ClickException: It was refused, or interrupted.
    """
    settings = settings or read_settings()
    settings = replace(settings, file_roots=(*settings.file_roots, *roots))
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    with refusals(), ExitStack() as closing:
        return anyio.run(_called, work, settings, role, what, closing)


@contextmanager
def refusals() -> Generator[None]:
    """What is refused in here leaves the command as a refusal of it."""
    try:
        yield
    except AgentJobsError as error:
        raise refusal(error) from None


def refusal(error: AgentJobsError) -> "Refusal":
    """An error of ours as the command line tells it."""
    context = click.get_current_context(silent=True)
    return Refusal(error, as_json=bool(context and context.params.get("as_json")))


#: The engine's sentences name the tools of a model; here they are these commands.
COMMANDS = {
    "agent_start": "agent-jobs run",
    "agent_poll": "agent-jobs watch",
    "agent_list": "agent-jobs list",
}


class Refusal(click.ClickException):
    """An error of ours, told in its sentence or as JSON."""

    def __init__(self, error: AgentJobsError, *, as_json: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self._as_json = as_json

    def format_message(self) -> str:
        """The sentence for a person at a terminal."""
        return re.sub("|".join(COMMANDS), lambda found: COMMANDS[found[0]], self.message)

    def show(self, file: Any = None) -> None:
        """Tell it as the command was asked to."""
        if not self._as_json:
            return super().show(file)
        from agent_jobs.rendering import answers

        return click.echo(answers.json_line(answers.refused(self.error)))


async def _called(
    work: Callable[[Session], Awaitable[T]], settings: Settings, role: Role, what: str, closing: ExitStack
) -> T:
    answers: list[T] = []
    failure: Exception = Interrupted("")
    # The app is entered outside of what a signal cancels: its last writes need the loop.
    async with open_app(settings, role=role, what=what) as app:
        try:
            session = Session(app, await app.engine())
            describe_interruption(lambda: session.detached)
            try:
                async with anyio.create_task_group() as tasks:
                    await tasks.start(leave_on_signal, tasks.cancel_scope, session.interrupt)
                    try:
                        answers.append(await work(session))
                        closing.enter_context(delay_ctrl_c())  # what is done is shown
                    except Exception as error:  # would leave the groups as a group
                        failure = error
                    tasks.cancel_scope.cancel()
            finally:
                if isinstance(failure, Interrupted):
                    failure = Interrupted(session.detached)
                elif session.detached and not answers:  # something broke; what was started goes on
                    click.echo(session.detached, err=True)
        except AgentJobsError as error:
            failure = error
    if not answers:
        raise failure
    describe_interruption(str)
    return answers[0]


class JobId(click.ParamType[str]):
    """A job's id or the beginning of one, completed from the newest jobs."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The newest jobs whose ids begin so, with their titles."""

        async def newest(session: Session) -> list[Job]:
            return (await session.engine.find(JobFilter(), 50)).jobs

        # What is written meanwhile would stand in the line that is being typed.
        quiet = replace(Settings.forgiving(os.environ)[0], log_level="error")
        try:
            jobs = call(newest, settings=quiet)
        except click.ClickException:
            return []
        wanted = (incomplete, f"job_{incomplete}")
        return [CompletionItem(job.id, help=terminal.line(job.title)) for job in jobs if job.id.startswith(wanted)]


json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
