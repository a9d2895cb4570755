"""`agent-jobs reply`: answer what a job asks for."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click

from agent_jobs.cli.approval import open_asker
from agent_jobs.cli.choice import refuse_both
from agent_jobs.cli.display import terminal
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
    always: tuple[str, ...]
    deny: tuple[str, ...]
    message: str

    @property
    def is_empty(self) -> bool:
        """Return True if the command line answers nothing."""
        return not any(self)


class _RepliedJob(NamedTuple):
    """A job after the reply."""

    job: Job
    open_calls: list[Call]
    is_watched: bool


@click.command("reply")
@click.argument("job_id", metavar="JOB", type=JobId())
@click.option("--approve", multiple=True, metavar="ID", help="Allow this call; repeatable.")
@click.option("--approve-all", is_flag=True, help="Allow all calls that wait for approval.")
@click.option(
    "--always",
    multiple=True,
    metavar="ID",
    help="Allow this call and, until the job ends, all others of the same tool; repeatable.",
)
@click.option("--ask-again", multiple=True, metavar="TOOL", help="Take back that this tool is always allowed.")
@click.option("--deny", multiple=True, metavar="ID", help="Refuse this call; repeatable.")
@click.option("--output", "outputs", multiple=True, metavar="ID=TEXT", help="Output of this function; repeatable.")
@click.option("--message", default="", help="Message to the job, in place of the answers that are missing.")
@json_option
def reply_command(
    job_id: str,
    approve: tuple[str, ...],
    approve_all: bool,
    always: tuple[str, ...],
    ask_again: tuple[str, ...],
    deny: tuple[str, ...],
    outputs: tuple[str, ...],
    message: str,
    as_json: bool,
) -> None:
    """Answer what a job asks for. Without answers you are asked at a terminal; elsewhere the questions are shown.

    The job continues when all its questions are answered.

    Exit status: 0 the job asks for nothing more, 6 it still waits for an answer.
    """
    refuse_both({"--approve": approve, "--approve-all": approve_all})
    given = _Answers(_parse_outputs(outputs), approve, approve_all, always, deny, message)
    asker = open_asker(may_ask=not as_json)

    async def reply(session: Session) -> _RepliedJob:
        job = await session.engine.poll(await session.engine.find_full_id(job_id))
        for tool in ask_again:
            job = await session.engine.ask_again(job.id, tool)
        if not given.is_empty:
            job = await session.engine.reply(job.id, await _build_reply(session, job, given))
        elif asker is not None and not ask_again and await asker.answer_questions(session, [job]):
            job = await session.engine.poll(job.id)
        return await _read_state(session, job)

    state = run_in_session(reply)
    if as_json:
        _write_state_as_json(state)
    else:
        _write_state(state, was_asked=asker is not None)
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
        approve = tuple(call_id for call_id in waiting if call_id not in (*given.deny, *given.always))
    return Reply(
        outputs=given.outputs,
        approve=approve,
        always=given.always,
        deny=given.deny,
        message=given.message,
        turn=job.turn.number,
    )


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


def _write_state(state: _RepliedJob, *, was_asked: bool) -> None:
    """Write what the job waits for on stdout, and on stderr how to answer it, unless the user was just asked."""
    from agent_jobs.rendering.questions import escape_invisible

    job = state.job
    click.echo(f"{job.id}  {job.status}")
    for each in state.open_calls:
        click.echo(f"{each.id}  {each.needs}  {escape_invisible(f'{each.name} {each.arguments}')}")
    if not (was_asked and state.open_calls):
        click.echo("\n".join(_describe_state(state)), err=True)


def _describe_state(state: _RepliedJob) -> Iterator[str]:
    """Yield what the job asks for and how to answer it, or what happens next."""
    job = state.job
    for each in state.open_calls:
        yield _describe_needed_call(job, each)
    if state.open_calls:
        return
    if job.is_terminal:
        yield f"It asks for nothing: {job.id} is {job.status}. See it with: agent-jobs result {job.id}"
    elif not state.is_watched:
        yield f"No process is watching it. Continue it with: agent-jobs watch {job.id}"
    else:
        yield f"It asks for nothing now. See what it does with: agent-jobs watch {job.id}"


def _describe_needed_call(job: Job, needed: Call) -> str:
    """Return what a call needs, and the option that gives it."""
    command = f"agent-jobs reply {job.id}"
    name = terminal.join_lines(needed.name)
    if needed.needs == "approval":
        allow, refuse = f"{command} --approve {needed.id}", f"{command} --deny {needed.id}"
        return f"It asks whether it may call {name}. Allow it with:\n  {allow}\nRefuse it with:\n  {refuse}"
    return f"It needs the output of {name}. Give it with:\n  {command} --output {needed.id}=TEXT"
