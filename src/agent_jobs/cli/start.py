"""`agent-jobs run` and `agent-jobs start`: start a job."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from anyio import CancelScope

from agent_jobs.cli.approval import open_asker
from agent_jobs.cli.choice import refuse_both
from agent_jobs.cli.closed_output import require_stdout
from agent_jobs.cli.detach import describe_detached, format_resume_hint
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.answer_display import AnswerDisplay, run_display
from agent_jobs.cli.display.bell import bell_option, ring_bell
from agent_jobs.cli.out_file import NOT_SENT, OutPath, check_out_file, force_option, write_out_file
from agent_jobs.cli.prompt_command import PromptCommand
from agent_jobs.cli.read_mark import mark_read
from agent_jobs.cli.session import Session, find_exit, run_in_session
from agent_jobs.cli.start_options import add_start_options, allow_duplicate, read_request
from agent_jobs.cli.unwatched_jobs import NO_WATCHER
from agent_jobs.cli.unwritten_answer import report_unwritten
from agent_jobs.cli.watch import (
    ShownAnswer,
    announce_pending,
    format_result_hint,
    read_answer,
    watch_until_done,
    write_end_line,
)
from agent_jobs.cli.wording import describe_error, name_workers, word_answer
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.engine.engine import Started
from agent_jobs.errors import AgentJobsError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Estimate, WorkerInfo
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import Status
from agent_jobs.text import encode_text

if TYPE_CHECKING:  # imported when a job is started
    from agent_jobs.request.start_request import StartRequest

T = TypeVar("T")

#: Seconds to wait for the response id: a process that leaves before the provider names it loses the run.
RESPONSE_ID_WAIT_S = 900.0


@click.command("run", cls=PromptCommand)
@add_start_options
@click.option("--stream/--no-stream", default=True, help="Print the answer as it is written, or only at the end.")
@click.option("--out", type=OutPath(path_type=Path), metavar="FILE", help="Write the answer to this file instead.")
@force_option
@bell_option
def run_command(
    as_json: bool, stream: bool, out: Path | None, force: bool, no_bell: bool, dry_run: bool, **arguments: Any
) -> None:
    """Start a job, wait for it and print the answer.

    The answer is printed as it is written: as Markdown on a terminal, unchanged into a pipe or a file. Progress and
    the line with status, time, model, tokens and cost go to stderr.

    Piped input is appended to PROMPT. If PROMPT is -, stdin is the prompt.

    If an identical job is still running, finished in the last 10 minutes without being read, or has an unconfirmed
    start, that job is shown; --new starts another one. After Ctrl-C the job continues at the provider if the provider
    supports background mode.

    If the job asks for something, you are asked at a terminal. "always" allows further calls of the same tool by this
    job, as long as this command runs.

    Exit status: 0 completed, 1 no job was started, 3 failed or expired, 4 incomplete, 5 cancelled, 6 the job waits for
    an answer, 7 the answer is stored but could not be written.
    """
    check_out_file(out, may_overwrite=force, undone=NOT_SENT)
    request, roots = read_request(arguments, dry_run=dry_run)
    if request.options.get("dry_run"):
        return _estimate_start(request, what="run", roots=roots, as_json=as_json, dry_run=dry_run)
    started_ids: list[str] = []

    async def run(request: "StartRequest", may_ask: bool, session: Session) -> _Finished:
        request = await _complete_previous_id(session, request)
        began = session.engine.now()
        started = await _submit_job(session, request, may_ask=may_ask)
        started_ids.append(started.job.id)
        show = _open_display(session, started.job, writes_answer=not as_json and out is None, is_streaming=stream)
        with show as display:
            async with run_display(display):
                job = await _run_started(session, started, display, may_ask=not as_json)
                answer = await read_answer(session, display, job.id)
        return _Finished(answer, await session.engine.open_calls(answer.job), began)

    with report_unwritten(started_ids):
        finished = _run_start(run, request, what="run", roots=roots, as_json=as_json)
        _write_finished(finished, out, as_json=as_json, may_overwrite=force)
    mark_read(finished.job)
    if not as_json:
        write_end_line(finished.job)
    if not no_bell:
        ring_bell([finished.job], since=finished.began)
    raise SystemExit(find_exit(finished.job))


@click.command("start", cls=PromptCommand)
@add_start_options
@click.option("--wait", is_flag=True, help="Wait until the job finishes, so that this process collects the result.")
@click.option("--detach", is_flag=True, hidden=True, help="The default; kept for scripts.")
def start_command(as_json: bool, wait: bool, detach: bool, dry_run: bool, **arguments: Any) -> None:
    """Start a job and print its id.

    Piped input is appended to PROMPT. If PROMPT is -, stdin is the prompt.

    Returns when the provider has confirmed the job, and says which process collects the result. If the provider does
    not support background mode, it waits until the job finishes, and Ctrl-C ends the job.

    Exit status: 0 the job was started, 1 it was not, 7 it was started but its id could not be written. If the job has
    finished meanwhile, as for run.
    """
    refuse_both({"--wait": wait, "--detach": detach})
    request, roots = read_request(arguments, dry_run=dry_run)
    if request.options.get("dry_run"):
        return _estimate_start(request, what="start", roots=roots, as_json=as_json, dry_run=dry_run)
    started_ids: list[str] = []

    async def start(request: "StartRequest", may_ask: bool, session: Session) -> Job:
        request = await _complete_previous_id(session, request)
        started = await _submit_job(session, request, may_ask=may_ask)
        started_ids.append(started.job.id)
        return await _leave_or_wait(session, started, wait=wait, as_json=as_json)

    with report_unwritten(started_ids):
        started = _run_start(start, request, what="start", roots=roots, as_json=as_json)
    if not started.is_terminal:
        return None
    write_end_line(started)
    if started.output_bytes:
        click.echo(format_result_hint(started), err=True)
    raise SystemExit(find_exit(started))


class _Finished(NamedTuple):
    """A job that finished or waits for answers, with the calls that need one."""

    answer: ShownAnswer
    open_calls: list[Call]
    began: float

    @property
    def job(self) -> Job:
        """Return the job with its output."""
        return self.answer.job


class _UnconfirmedStart(Exception):
    """The start of an identical job is unconfirmed, and a user is there to be asked."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


async def _leave_or_wait(session: Session, started: Started, *, wait: bool, as_json: bool) -> Job:
    """Print the id of a job that was submitted; wait for its end if it must be waited for."""
    job, sent_here = started.job, not started.duplicate
    unwritten = _write_id(job, as_json=as_json)
    if sent_here:
        job = await _confirm_start(session, job)
    if unwritten is not None:
        raise unwritten
    workers = await session.engine.other_workers()
    if as_json:
        _write_start_as_json(started._replace(job=job), workers, session.engine.now())
    is_bound = sent_here and job.is_held_open
    if job.is_terminal:
        return job
    if not wait and not is_bound:
        click.echo(_describe_collector(job, workers), err=True)
        return job
    click.echo(_describe_wait(job, is_bound=is_bound), err=True)
    await announce_pending(session, job.id)
    with _open_display(session, job, writes_answer=False, is_streaming=False) as display:
        async with run_display(display):
            return await _watch_started(session, job, display, sent_here=sent_here, may_ask=not as_json)


def _write_id(job: Job, *, as_json: bool) -> OSError | None:
    """Print the id of a job; return why that failed, since the start has to be confirmed first."""
    try:
        require_stdout()
        click.echo(job.id, err=as_json)
    except OSError as error:
        return error
    return None


def _open_display(session: Session, job: Job, *, writes_answer: bool, is_streaming: bool) -> AnswerDisplay:
    """Return the display of a job that was submitted just now: no word of it is missed."""
    display = AnswerDisplay(
        session.engine.follow_text(job.id), job, writes_answer=writes_answer, is_streaming=is_streaming
    )
    session.hide = display.hide
    return display


async def _run_started(session: Session, started: Started, display: AnswerDisplay, *, may_ask: bool) -> Job:
    """Show a job until it finishes or asks for something that the user does not answer."""
    job, sent_here = started.job, not started.duplicate
    if sent_here:
        if view := await session.engine.find_view(f"/jobs/{job.id}"):
            click.echo(f"Watch it at {view}", err=True)
        click.echo(_describe_sending(job), err=True)
        job = await _confirm_start(session, job, display)
    await announce_pending(session, job.id)
    return await _watch_started(session, job, display, sent_here=sent_here, may_ask=may_ask)


async def _watch_started(
    session: Session, job: Job, display: AnswerDisplay, *, sent_here: bool, may_ask: bool = True
) -> Job:
    """Work on the job and show its progress on stderr until it finishes."""
    session.app.work()
    resume = format_resume_hint(job.id)
    session.detached = describe_detached([job], resume, sent_here=sent_here)
    asker = open_asker(display.hide, may_ask=may_ask)
    [watched] = await watch_until_done(session, [job.id], display, resume=resume, sent_here=sent_here, asker=asker)
    return watched


def _describe_sending(job: Job) -> str:
    """Return the line that names a job which is being sent, once it is stored."""
    return f"Sending {job.id}."


def _run_start(
    work: "Callable[[StartRequest, bool, Session], Awaitable[T]]",
    request: "StartRequest",
    *,
    what: str,
    roots: tuple[Path, ...],
    as_json: bool,
) -> T:
    """Run a command that starts a job. At a terminal, ask the user what to do about an unconfirmed identical job."""
    may_ask = sys.stdin.isatty() and not as_json
    try:
        return run_in_session(partial(work, request, may_ask), role="acts", what=what, roots=roots)
    except _UnconfirmedStart as found:
        job = found.job
    click.echo(f"The start of an identical job, {job.id}, is unconfirmed. {terminal.suggest_next_step(job)}", err=True)
    with raise_on_ctrl_c():  # the terminal has to be reset
        if click.confirm("Send the prompt again? You may pay twice.", err=True):
            request = allow_duplicate(request)
    return run_in_session(partial(work, request, False), role="acts", what=what, roots=roots)


async def _submit_job(session: Session, request: "StartRequest", *, may_ask: bool) -> Started:
    """Store the job and launch it, or return an identical job. From here on Ctrl-C waits for the confirmation.

    Raises:
        _UnconfirmedStart: The user must be asked first.
    """
    planned = await session.engine.plan(request)
    session.is_starting = True
    [started] = await session.engine.submit(planned)
    job = started.job
    if not started.duplicate:
        session.detached = describe_detached([job], format_resume_hint(job.id), sent_here=True)
        return started
    if may_ask and job.is_unconfirmed:
        raise _UnconfirmedStart(job)
    click.echo(_describe_duplicate(job), err=True)
    session.detached = describe_detached([job], format_resume_hint(job.id))
    session.finish_starting()
    return started


def _describe_duplicate(job: Job) -> str:
    """Return the sentences for an identical job that is shown in place of a new one."""
    if job.is_unconfirmed:
        state = "The start of an identical job is unconfirmed"
    elif job.is_terminal:
        state = "An identical job has already finished"
    else:
        state = "An identical job is already in progress"
    return f"{job.id}: {state}; showing that one. Use `--new` to start another."


async def _confirm_start(session: Session, job: Job, display: AnswerDisplay | None = None) -> Job:
    """Wait until the provider has returned an id or the start has failed; return the job then.

    Raises:
        Interrupted: Ctrl-C was pressed in the meantime.
    """
    deadline = session.engine.now() + RESPONSE_ID_WAIT_S
    try:
        while session.engine.now() < deadline and not job.is_terminal and job.turn.response_id is None:
            if display is not None:
                display.show([job], session.engine.now())
            job = await session.engine.wait_for_response_id(job, wait_s=1.0)
            if job.status is Status.PENDING and job.activity:
                if display is None:
                    click.echo(f"Not sent yet: {terminal.join_lines(job.activity)}.", err=True)
                break
        while session.engine.is_deciding(job.id):
            job = await session.engine.poll(job.id, wait_s=0.2)
    finally:
        # Read the row again: a user who leaves must learn whether the request was sent.
        with CancelScope(shield=True), suppress(AgentJobsError):
            job = await session.engine.wait_for_response_id(job, wait_s=0.0)
        session.detached = describe_detached([job], format_resume_hint(job.id), sent_here=True)
    session.finish_starting()
    return job


async def _complete_previous_id(session: Session, request: "StartRequest") -> "StartRequest":
    """Return the request with the full id of the job from which it continues."""
    if request.previous_job_id is None:
        return request
    return replace(request, previous_job_id=await session.engine.find_full_id(request.previous_job_id))


def _describe_collector(job: Job, workers: list[WorkerInfo]) -> str:
    """Return which process collects the result of a running job."""
    watch = f"agent-jobs watch {job.id}"
    if not workers:
        return NO_WATCHER.format(jobs="it", watch=watch)
    return f"Watched by {name_workers(workers)}. Watch it yourself with: {watch}"


def _describe_wait(job: Job, *, is_bound: bool) -> str:
    """Return why the command waits until the job finishes."""
    if is_bound:
        return "This endpoint does not support background mode, so the job runs in this process. Ctrl-C ends it."
    return f"Waiting until it finishes. Ctrl-C stops waiting. {format_resume_hint(job.id)}"


def _estimate_start(
    request: "StartRequest", *, what: str, roots: tuple[Path, ...], as_json: bool, dry_run: bool
) -> None:
    """Write what would be sent and what it may cost; into a pipe as JSON if only --option asked for it, as tools do."""
    from agent_jobs.cli.display.dry_run import describe_estimate
    from agent_jobs.rendering import answers

    async def find_estimate(session: Session) -> Estimate:
        return await session.engine.estimate(await _complete_previous_id(session, request))

    estimate = run_in_session(find_estimate, role="acts", what=what, roots=roots)
    if as_json or not (dry_run or sys.stdout.isatty()):
        unbounded = ""
        if estimate.unbounded is not None:
            unbounded = describe_error(estimate.unbounded)
        click.echo(answers.format_json_line(answers.render_estimate(estimate, unbounded)))
    else:
        click.echo(describe_estimate(estimate, request))


def _write_start_as_json(started: Started, workers: list[WorkerInfo], now: float) -> None:
    from agent_jobs.rendering import answers

    answer = answers.render_start(started.job, now, duplicate=started.duplicate)
    watched_by = [{"what": worker.what, "pid": worker.pid} for worker in workers]
    click.echo(answers.format_json_line(word_answer(answer, started.job) | {"watched_by": watched_by}))


def _write_finished(finished: _Finished, out: Path | None, *, as_json: bool, may_overwrite: bool) -> None:
    """Write the answer on stdout, or into a file."""
    if out is not None:
        return _write_answer_file(finished, out, as_json=as_json, may_overwrite=may_overwrite)
    if as_json or finished.job.output_bytes:
        require_stdout()
    if as_json:
        return click.echo(_render_end_as_json(finished))
    return finished.answer.write()


def _write_answer_file(finished: _Finished, out: Path, *, as_json: bool, may_overwrite: bool) -> None:
    from agent_jobs.rendering import answers

    text = answers.read_output_text(finished.job)
    if as_json:
        text = f"{_render_end_as_json(finished)}\n"
    if not text:
        return click.echo(f"There is no answer, so {out} was not written.", err=True)
    return write_out_file(out, encode_text(text), may_overwrite=may_overwrite)


def _render_end_as_json(finished: _Finished) -> str:
    from agent_jobs.rendering import answers
    from agent_jobs.rendering.questions import render_questions

    job = finished.job
    if not job.is_terminal:
        answer = render_questions(job, finished.open_calls, may_approve=True)
        answer["next"] = f"agent-jobs reply {job.id}"
    else:
        answer = word_answer(answers.render_finished_job(job), job)
        if job.output:
            answer["output"] = job.output.text  # the whole text, which `ended` cuts to a page
    return answers.format_json_line(answer)
