"""Open an engine for a command, and turn errors and signals into exit statuses."""

import logging
import os
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click
from click.shell_completion import CompletionItem

from agent_jobs.app import App, Role, open_app
from agent_jobs.cli.display import terminal
from agent_jobs.cli.interruption import Interrupted
from agent_jobs.cli.wording import describe_error
from agent_jobs.ctrl_c import INTERRUPTED_STATUS, delay_ctrl_c, describe_interruption
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status
from agent_jobs.settings.configuration import load_settings, load_usable_settings
from agent_jobs.settings.settings import Settings
from agent_jobs.wiring.end_signals import cancel_on_signal

T = TypeVar("T")

#: Names this face as the client that started a job.
CLIENT = "terminal"

#: Jobs that a shell offers for completion: more lines fit no screen.
COMPLETED_JOBS = 50
WAITING_FOR_ID = (
    "Waiting for the provider to confirm the job, because it may already cost money. Press Ctrl-C again to leave now."
)


class Exit(IntEnum):
    """Exit statuses of the commands, with the worst result last."""

    DONE = 0
    REFUSED = 1  #: nothing was done; stderr says what to change
    USAGE = 2  #: click's
    FAILED = 3  #: the job failed or expired
    INCOMPLETE = 4
    CANCELLED = 5
    RUNNING = 6  #: the job is still running, or waits for an answer
    UNWRITTEN = 7  #: the command did its work, but its output could not be written
    INTERRUPTED = INTERRUPTED_STATUS  #: Ctrl-C; stderr says what becomes of the job


_EXITS = {
    Status.COMPLETED: Exit.DONE,
    Status.INCOMPLETE: Exit.INCOMPLETE,
    Status.FAILED: Exit.FAILED,
    Status.EXPIRED: Exit.FAILED,
    Status.CANCELLED: Exit.CANCELLED,
}


def find_exit(*jobs: Job) -> Exit:
    """Return the exit status of the worst of these jobs; a running job is the worst."""
    return max((_EXITS.get(job.status, Exit.RUNNING) for job in jobs), default=Exit.DONE)


@dataclass
class Session:
    """A command with an open engine. Mutable: a command learns step by step what becomes of its jobs."""

    app: App
    engine: Engine
    detached: str = ""  #: what Ctrl-C says of the jobs
    is_starting: bool = False  #: the provider has not confirmed the job yet
    is_interrupted: bool = False  #: Ctrl-C was pressed in the meantime
    hide: Callable[[], None] = lambda: None  #: removes lines that are written over, so that a message can be written

    def interrupt(self) -> bool:
        """Return True if Ctrl-C ends the command now, False if it ends once the start is confirmed."""
        if not self.is_starting or self.is_interrupted:
            return True
        self.is_interrupted = True
        self.hide()
        click.echo(WAITING_FOR_ID, err=True)
        return False

    def finish_starting(self) -> None:
        """Let Ctrl-C end the command immediately from now on.

        Raises:
            Interrupted: It was pressed in the meantime.
        """
        self.is_starting = False
        if self.is_interrupted:
            raise Interrupted(self.detached)


def print_ids(jobs: Sequence[Job]) -> None:
    """Print the ids of jobs, for `xargs` and its like; nothing if there are none."""
    for job in jobs:
        click.echo(job.id)


def read_settings() -> Settings:
    """Read the settings from the environment; print their warnings on stderr."""
    with convert_errors():
        settings = load_settings(os.environ)
    for warning in settings.warnings:
        click.echo(f"Warning: {describe_error(warning)}", err=True)
    return settings


def run_in_session(
    work: Callable[[Session], Awaitable[T]],
    *,
    role: Role = "reads",
    what: str = "",
    settings: Settings | None = None,
    roots: tuple[Path, ...] = (),
) -> T:
    """Open the engine, run a command's work and close in order. Ctrl-C ends the work but not its jobs.

    Args:
        work: The command.
        role: The role of this process during the command.
        what: The name that other processes show while this one works on jobs.
        settings: Already read.
        roots: Folders that the command line itself named.

    Raises:
        click.ClickException: The work was refused or interrupted.
    """
    settings = settings or read_settings()
    settings = replace(settings, file_roots=(*settings.file_roots, *roots))
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    with convert_errors(), ExitStack() as closing:
        return anyio.run(_run_work, work, settings, role, what, closing)


@contextmanager
def convert_errors() -> Generator[None]:
    """Turn an AgentJobsError inside into a refusal of the command."""
    try:
        yield
    except AgentJobsError as error:
        raise create_refusal(error) from None


def create_refusal(error: AgentJobsError) -> "Refusal":
    """Return an AgentJobsError as the exception that the command line shows."""
    context = click.get_current_context(silent=True)
    return Refusal(error, as_json=bool(context and context.params.get("as_json")))


class Refusal(click.ClickException):
    """An AgentJobsError, shown as a sentence or as JSON."""

    def __init__(self, error: AgentJobsError, *, as_json: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self._as_json = as_json

    def format_message(self) -> str:
        """Return the sentences for a person."""
        return describe_error(self.error)

    def show(self, file: Any = None) -> None:
        """Print the error in the form that the command was asked for."""
        if not self._as_json:
            return super().show(file)
        from agent_jobs.rendering import answers

        return click.echo(answers.format_json_line(answers.render_error(self.error, self.format_message())))


def _hide_lines_for_logs(session: Session) -> None:
    """Remove lines that are written over before a line of the log is written among them."""

    def hide_lines(record: logging.LogRecord) -> bool:
        session.hide()
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(hide_lines)


async def _run_work(
    work: Callable[[Session], Awaitable[T]], settings: Settings, role: Role, what: str, closing: ExitStack
) -> T:
    """Run the work in an open app; raise why it did not return."""
    results: list[T] = []
    failure: Exception = Interrupted("")
    # The app is opened outside of the scope that a signal cancels, because its last writes need the loop.
    reload = reload_settings if role == "works" else None  # other commands end soon
    async with open_app(settings, role=role, what=what, reload=reload) as app:
        try:
            session = Session(app, await app.engine())
            _hide_lines_for_logs(session)
            describe_interruption(lambda: session.detached)
            try:
                async with anyio.create_task_group() as tasks:
                    await tasks.start(cancel_on_signal, tasks.cancel_scope, session.interrupt)
                    try:
                        results.append(await work(session))
                        closing.enter_context(delay_ctrl_c())  # the work is done, so its result must be shown
                    except Exception as error:  # leaving the group would wrap it in an ExceptionGroup
                        failure = error
                    tasks.cancel_scope.cancel()
            finally:
                failure = _describe_failure(failure, session, is_done=bool(results))
        except AgentJobsError as error:
            failure = error
    if not results:
        raise failure
    describe_interruption(str)
    return results[0]


def reload_settings() -> Settings | ConfigError:
    """Return the settings as they are now, for a command that runs for days."""
    try:
        return load_settings(os.environ)
    except ConfigError as error:
        return error


def _describe_failure(failure: Exception, session: Session, *, is_done: bool) -> Exception:
    """Say what becomes of the jobs; return the failure, with that in its message if it is an interruption."""
    if isinstance(failure, Interrupted):
        return Interrupted(session.detached)
    if session.detached and not is_done:
        click.echo(session.detached, err=True)
    return failure


def find_jobs_to_complete(limit: int) -> list[Job]:
    """Return the newest jobs for a shell that completes a word; none if they cannot be read."""

    async def find_newest(session: Session) -> list[Job]:
        return (await session.engine.find(JobFilter(), limit)).jobs

    # A log line would appear in the command that the user is typing.
    quiet = replace(load_usable_settings(os.environ)[0], log_level="error")
    try:
        return run_in_session(find_newest, settings=quiet)
    except click.ClickException:
        return []


class JobId(click.ParamType[str]):
    """A job's id, its beginning, or `last` for the newest job; completed from the newest jobs."""

    name = "id"

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """Return how a job can be named."""
        return "Give the id of a job or its beginning, or `last` for the newest one. `agent-jobs list` shows them."

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the newest jobs whose ids begin with the typed text, with their titles."""
        jobs, wanted = find_jobs_to_complete(COMPLETED_JOBS), (incomplete, f"job_{incomplete}")
        return [
            CompletionItem(job.id, help=terminal.join_lines(job.title)) for job in jobs if job.id.startswith(wanted)
        ]


quiet_option = click.option(
    "-q", "--quiet", "ids_only", is_flag=True, help="Print only the ids of the jobs, one a line."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
