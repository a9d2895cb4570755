"""`agent-jobs ask` and `agent-jobs retry`: continue a job, or start it again."""

import sys
from typing import Any

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.session import JobId, Session, create_refusal, run_in_session
from agent_jobs.cli.start import run_command
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter

#: Options of `run` that name the job to continue.
_LINKS = frozenset({"previous", "continues"})
#: The parts of the earlier job that `retry` reuses.
_REPEATED = _LINKS | {
    "prompt", "preset", "model", "effort", "web_search", "files", "batch", "new", "high", "options", "dry_run",
}  # fmt: skip


def _ask_follow_up(job_id: str, **arguments: Any) -> None:
    click.get_current_context().invoke(run_command, previous=job_id, **arguments)


def _retry_job(job_id: str, new: bool, **arguments: Any) -> None:
    job, prompt = _read_job(job_id)
    if not new:
        _confirm_repeat(job, as_json=arguments["as_json"])
    click.echo(f"Repeating {job.id}: {terminal.join_lines(job.title)}", err=True)
    click.get_current_context().invoke(run_command, prompt=prompt, repeats=job.id, **arguments)


def _read_job(job_id: str) -> tuple[Job, str]:
    """Return the job and its prompt."""

    async def read(session: Session) -> tuple[Job, str]:
        full_id = await session.engine.find_full_id(job_id)
        page = await session.engine.find(JobFilter(job_ids=(full_id,)), 1)
        return page.jobs[0], (await session.engine.details(full_id)).prompt

    return run_in_session(read)


def _confirm_repeat(job: Job, *, as_json: bool) -> None:
    """Refuse to repeat a job that still runs; ask the user about one that may be running."""
    if not job.is_terminal:
        raise create_refusal(
            RequestError(
                f"{job.id} has not finished: it is {job.status}. Watch it with `agent-jobs watch {job.id}`, or add "
                "--new to start the same request beside it."
            )
        )
    if job.is_unconfirmed:
        _confirm_unconfirmed(job, as_json=as_json)


def _confirm_unconfirmed(job: Job, *, as_json: bool) -> None:
    """Say what may be paid twice, and ask the user; leave the command unless the answer is yes."""
    bound = ""
    if job.reserved_usd:
        bound = f", up to {terminal.format_usd(job.reserved_usd)}"
    risk = f"The provider may already be running {job.id}{bound}: its start was not confirmed."
    if as_json or not sys.stdin.isatty():
        raise create_refusal(
            RequestError(
                f"{risk} Find it in the provider's dashboard by metadata job_id={job.id} and run `agent-jobs adopt "
                f"{job.id} RESPONSE_ID`, or add --new to send the request again and maybe pay twice."
            )
        )
    click.echo(f"{risk} {terminal.suggest_next_step(job)}", err=True)
    with raise_on_ctrl_c():  # the terminal has to be reset
        click.confirm("Send the request again? You may pay twice.", abort=True, err=True)


def _create_ask_command() -> click.Command:
    """Return `ask`, which has the options of `run`."""
    identity = click.Argument(["job_id"], metavar="ID", type=JobId())
    options = [param for param in run_command.params if param.name not in _LINKS]
    return type(run_command)("ask", params=[identity, *options], callback=_ask_follow_up, help=_ASK_HELP)


def _create_retry_command() -> click.Command:
    """Return `retry`, which has those options of `run` that do not change the request."""
    identity = click.Argument(["job_id"], metavar="ID", type=JobId())
    new = click.Option(["--new"], is_flag=True, help="Also if the job still runs, or may be running.")
    options = [param for param in run_command.params if param.name not in _REPEATED]
    return click.Command("retry", params=[identity, new, *options], callback=_retry_job, help=_RETRY_HELP)


_ASK_HELP = """Ask a follow-up question about a finished job, wait and print the answer.

The new job knows the conversation so far. It takes over the tools, the instructions and the effort. Otherwise ask is
like run: agent-jobs run --previous ID PROMPT.

Exit status: as for run.
"""

_RETRY_HELP = """Start a job again: with the same prompt, files, options and model. Wait and print the answer.

A new job is made; the earlier one stays. A job that still runs is refused, unless you give --new. If it is not known
whether an earlier start reached the provider, you are asked first, since you may pay twice.

To change something, start a new job: agent-jobs run.

Exit status: as for run.
"""

ask_command = _create_ask_command()
retry_command = _create_retry_command()
