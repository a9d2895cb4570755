"""`agent-jobs reply`: answer what a job asks for."""

from collections.abc import Sequence
from typing import NamedTuple

import click

from agent_jobs.cli.approval import open_asker
from agent_jobs.cli.session import Exit, JobId, Session, json_option, run_in_session
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Reply
from agent_jobs.jobs.response import Call

#: Characters of a wrong argument that its refusal repeats.
SHOWN_ARGUMENT_CHARS = 60


class _Answers(NamedTuple):
    """The answers on the command line."""

    outputs: dict[str, str]
    approve: tuple[str, ...]
    approve_all: bool
    deny: tuple[str, ...]
    message: str

    @property
    def is_empty(self) -> bool:
        """Return True if the command line answers nothing."""
        return not (self.outputs or self.approve or self.approve_all or self.deny or self.message)


class _RepliedJob(NamedTuple):
    """A job after the reply."""

    job: Job
    open_calls: list[Call]
    is_watched: bool


@click.command("reply")
@click.argument("job_id", metavar="JOB", type=JobId())
@click.option("--approve", multiple=True, metavar="ID", help="Allow this call; repeatable.")
@click.option("--approve-all", is_flag=True, help="Allow all calls that wait for approval.")
@click.option("--deny", multiple=True, metavar="ID", help="Refuse this call; repeatable.")
@click.option("--output", "outputs", multiple=True, metavar="ID=TEXT", help="Output of this function; repeatable.")
@click.option("--message", default="", help="Message to the job, in place of the answers that are missing.")
@json_option
def reply_command(
    job_id: str,
    approve: tuple[str, ...],
    approve_all: bool,
    deny: tuple[str, ...],
    outputs: tuple[str, ...],
    message: str,
    as_json: bool,
) -> None:
    """Answer what a job asks for. Without answers you are asked at a terminal; elsewhere the questions are shown.

    The job continues when all its questions are answered.

    Exit status: 0 the job asks for nothing more, 6 it still waits for an answer.
    """
    if approve and approve_all:
        raise click.UsageError("Give --approve or --approve-all, not both.")
    given = _Answers(_parse_outputs(outputs), approve, approve_all, deny, message)
    asker = open_asker(may_ask=not as_json)

    async def reply(session: Session) -> _RepliedJob:
        job = await session.engine.poll(await session.engine.find_full_id(job_id))
        if not given.is_empty:
            job = await session.engine.reply(job.id, await _build_reply(session, job, given))
        elif asker is not None and await asker.answer_questions(session, [job]):
            job = await session.engine.poll(job.id)
        return await _read_state(session, job)

    state = run_in_session(reply)
    if as_json:
        _write_state_as_json(state)
    else:
        _write_state(state)
    raise SystemExit(Exit.RUNNING if state.open_calls else Exit.DONE)


def _parse_outputs(arguments: Sequence[str]) -> dict[str, str]:
    """Return ID=TEXT arguments as a mapping."""
    outputs: dict[str, str] = {}
    for argument in arguments:
        call_id, equals, output = argument.partition("=")
        if not (call_id and equals):
            raise click.UsageError(f"--output needs ID=TEXT, not {argument[:SHOWN_ARGUMENT_CHARS]!r}.")
        if call_id in outputs:
            raise click.UsageError(f"Give one --output for {call_id[:SHOWN_ARGUMENT_CHARS]}, not several.")
        outputs[call_id] = output
    return outputs


async def _build_reply(session: Session, job: Job, given: _Answers) -> Reply:
    """Return the answers for the calls that the job waits for now."""
    approve = given.approve
    if given.approve_all:
        open_calls = await session.engine.open_calls(job)
        waiting = (call.id for call in open_calls if call.needs == "approval")
        approve = tuple(call_id for call_id in waiting if call_id not in given.deny)
    return Reply(
        outputs=given.outputs, approve=approve, deny=given.deny, message=given.message, turn=job.turn.number
    )  # fmt: skip


async def _read_state(session: Session, job: Job) -> _RepliedJob:
    """Return what a job still asks for, and whether another process works on it."""
    engine = session.engine
    workers = (await engine.store_info()).watchers
    is_watched = any(worker.base_url == job.turn.base_url for worker in workers)
    return _RepliedJob(job, await engine.open_calls(job), is_watched)


def _write_state_as_json(state: _RepliedJob) -> None:
    from agent_jobs.rendering import answers

    needs = [
        {"call_id": each.id, "needs": each.needs, "name": each.name, "arguments": each.arguments}
        for each in state.open_calls
    ]
    click.echo(answers.format_json_line({"job_id": state.job.id, "status": state.job.status, "needs": needs}))


def _write_state(state: _RepliedJob) -> None:
    from agent_jobs.rendering.questions import escape_invisible

    job = state.job
    click.echo(f"{job.id}  {job.status}")
    for each in state.open_calls:
        click.echo(f"{each.id}  {each.needs}  {escape_invisible(f'{each.name} {each.arguments}')}")
    if not (state.open_calls or job.is_terminal or state.is_watched):
        click.echo(f"No process is working on it yet. Continue it with: agent-jobs watch {job.id}", err=True)
