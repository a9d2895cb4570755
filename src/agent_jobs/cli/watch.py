"""`agent-jobs watch`: show jobs until they finish or the user leaves."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import click

from agent_jobs.cli.approval import Asker, open_asker
from agent_jobs.cli.choice import refuse_both
from agent_jobs.cli.closed_output import is_stdout_abandoned, require_stdout
from agent_jobs.cli.detach import describe_detached, format_resume_hint
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.answer_display import AnswerDisplay, run_display
from agent_jobs.cli.display.bell import bell_option, ring_bell
from agent_jobs.cli.display.job_line import format_run_time
from agent_jobs.cli.display.progress import Display, JsonLines, open_display
from agent_jobs.cli.read_mark import mark_read
from agent_jobs.cli.session import JobId, Session, find_exit, json_option, run_in_session
from agent_jobs.cli.unwritten_answer import report_unwritten
from agent_jobs.cli.wording import describe_failure
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import GATHERED_MAX, JobFilter
from agent_jobs.jobs.status import Status
from agent_jobs.jobs.stored_request import model_of

#: Seconds between refreshes: elapsed times are shown to the second.
REFRESH_S = 1.0
#: From this many jobs on, refreshes are rarer.
MANY_JOBS = 20
#: Seconds between refreshes of many jobs: each refresh writes a row of the database for each job.
REFRESH_MANY_S = 5.0


@click.command("watch")
@click.argument("job_ids", metavar="[ID]...", type=JobId(), nargs=-1)
@click.option("--all", "all_jobs", is_flag=True, help="Watch all active jobs, as without IDs.")
@click.option("--stream/--no-stream", default=False, help="Print the answer of a single job as it is written.")
@bell_option
@json_option
def watch_command(job_ids: tuple[str, ...], all_jobs: bool, stream: bool, no_bell: bool, as_json: bool) -> None:
    """Watch jobs until they finish. Ctrl-C stops watching.

    Shows what each job does and for how long; of a single job also what it writes. The jobs continue when you stop.

    If a job asks for something, you are asked at a terminal. "always" allows further calls of the same tool by the
    same job, as long as this command runs.

    This process also works on jobs that no other process works on.

    Exit status: 0 completed, 3 failed or expired, 4 incomplete, 5 cancelled, 6 a job waits for an answer, 130 stopped
    by Ctrl-C. Of several jobs the worst counts. The command stops when no program reads its output; then 6 means that
    a job is still running. 7: the answer is stored but could not be written.
    """
    refuse_both({"IDs": job_ids, "--all": all_jobs})
    refuse_both({"--stream": stream, "--json": as_json})
    shown_ids: list[str] = []

    async def watch(session: Session) -> _Watched:
        ids = await _find_watched_ids(session, job_ids)
        if stream and len(ids) == 1:
            shown_ids.extend(ids)
            return await _watch_answer(session, ids[0])
        resume = format_resume_hint(*job_ids and ids)
        return await _watch_progress(session, ids, resume, as_json=as_json)

    with report_unwritten(shown_ids):
        watched = run_in_session(watch, role="acts", what="watch")
        _write_watched(watched, as_json=as_json)
    if not no_bell:
        ring_bell(watched.jobs, since=watched.began)
    raise SystemExit(find_exit(*watched.jobs))


class ShownAnswer(NamedTuple):
    """The display of a finished job, and the rest that is still to be printed."""

    display: AnswerDisplay
    job: Job
    output: object  #: of its response

    def write(self) -> None:
        """Print the rest of the answer."""
        self.display.finish(self.job, self.output)


class _Watched(NamedTuple):
    """Jobs that were watched, since when, and the answer that is being printed."""

    jobs: list[Job]
    began: float = 0.0
    answer: ShownAnswer | None = None


async def _watch_progress(session: Session, ids: Sequence[str], resume: str, *, as_json: bool) -> _Watched:
    """Watch jobs without their answers."""
    if not ids:
        return _Watched([])
    await announce_pending(session)
    session.app.work()
    began = session.engine.now()
    shown = JsonLines() if as_json else open_display(sys.stdout, is_single=len(ids) == 1)
    with shown as display:
        session.hide = display.hide
        asker = open_asker(display.hide, may_ask=not as_json)
        jobs = await watch_until_done(session, ids, display, resume=resume, asker=asker, has_reader=has_reader)
    return _Watched(jobs, began)


async def _watch_answer(session: Session, job_id: str) -> _Watched:
    """Watch a job, and print its answer as it is written."""
    engine = session.engine
    await announce_pending(session)
    began = engine.now()
    job = await engine.poll(job_id)
    with AnswerDisplay(engine.follow_text(job_id), job, writes_answer=True, is_streaming=True) as display:
        session.hide = display.hide
        async with run_display(display):
            session.app.work()
            asker = open_asker(display.hide)
            await watch_until_done(session, [job_id], display, resume=format_resume_hint(job_id), asker=asker)
            answer = await read_answer(session, display, job_id)
    return _Watched([answer.job], began, answer)


async def read_answer(session: Session, display: AnswerDisplay, job_id: str) -> ShownAnswer:
    """Return a job with its answer."""
    from agent_jobs.rendering import answers

    job = (await session.engine.result(job_id)).job
    return ShownAnswer(display, job, answers.read_response(job).get("output"))


async def _find_watched_ids(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Return the full ids of these jobs, or the ids of all active jobs."""
    engine = session.engine
    if job_ids:
        return [await engine.find_full_id(job_id) for job_id in job_ids]
    active = await engine.find(JobFilter(active=True, since=engine.now()), GATHERED_MAX)
    return [job.id for job in active.jobs]


def _write_watched(watched: _Watched, *, as_json: bool) -> None:
    """Write the rest of an answer, and what the user can do next."""
    if watched.answer is not None:
        require_stdout()
        watched.answer.write()
        mark_read(watched.answer.job)
        write_end_line(watched.answer.job)
    elif not as_json:
        _write_summary(watched.jobs)


def _write_summary(jobs: Sequence[Job]) -> None:
    """Write what the user can do next."""
    match jobs:
        case []:
            click.echo("No jobs are running. `agent-jobs list` shows finished ones.")
        case [job]:
            _write_next_step(job)
        case _:
            pass  # the user has seen how each of them ended


def _write_next_step(job: Job) -> None:
    advice = terminal.suggest_next_step(job)
    terminal.write_notes(advice)
    if job.output_bytes or not advice:
        click.echo(format_result_hint(job), err=True)


def format_result_hint(job: Job) -> str:
    """Return the sentence with the command that prints a job's result."""
    return f"Print the result with: agent-jobs result {job.id}"


def write_end_line(job: Job) -> None:
    """Write on stderr how a job finished, with its error and the next step."""
    if job.output and sys.stdout.isatty() and sys.stderr.isatty():
        click.echo(err=True)  # apart from the answer above
    model = terminal.join_lines(model_of(job.turn.request))
    run_time = ""
    if job.finished_at:
        run_time = format_run_time(job, job.created_at)
    facts = [job.id, job.status, run_time, model, terminal.describe_tokens(job), terminal.format_usd(job.cost_usd)]
    click.echo("  ".join(filter(None, facts)), err=True)
    if job.error is not None:
        click.echo(f"{job.error.code}: {terminal.join_lines(describe_failure(job.error))}", err=True)
    terminal.write_notes(terminal.suggest_next_step(job))


def has_reader() -> bool:
    """Return False once a write to stdout failed because its reader is gone."""
    return not is_stdout_abandoned()


async def announce_pending(session: Session, *but: str) -> None:
    """Name the jobs that an earlier command left unsent, before this process sends them."""
    engine = session.engine
    if engine.base_url is None or await engine.other_workers():
        return  # this process sends nothing, or another process sends them
    pending = JobFilter(statuses=frozenset({Status.PENDING}))
    for job in (await engine.find(pending, GATHERED_MAX)).jobs:
        if job.turn.base_url == engine.base_url and job.id not in but:
            title = terminal.join_lines(job.title)
            cancel = f"Stop it with: agent-jobs cancel {job.id}"
            session.hide()
            click.echo(f"Sending {job.id}, which an earlier command did not send: {title}. {cancel}", err=True)


async def watch_until_done(
    session: Session,
    job_ids: Sequence[str],
    display: Display,
    *,
    resume: str,
    sent_here: bool = False,
    asker: Asker | None = None,
    has_reader: Callable[[], bool] = lambda: True,
) -> list[Job]:
    """Show the jobs until each has finished or waits for the user, or nothing reads the display; return them.

    During this, `session.detached` describes what happens to the jobs if the user stops the command. An `asker` asks
    the user for the answers that a job waits for.
    """
    engine, group = session.engine, JobFilter(job_ids=tuple(job_ids))
    while True:
        found = await engine.find(group, len(job_ids))
        jobs = sorted(found.jobs, key=lambda job: (job.created_at, job.id))
        session.detached = describe_detached(jobs, resume, sent_here=sent_here)
        display.show(jobs, engine.now())
        if asker is not None and await asker.answer_questions(session, jobs):
            continue
        running = tuple(job.id for job in jobs if _is_running(job))
        if not running:
            return jobs
        if not has_reader():
            display.hide()
            click.echo(session.detached, err=True)
            return jobs
        refresh_s = REFRESH_S if len(running) < MANY_JOBS else REFRESH_MANY_S
        await engine.wait_for_any(JobFilter(job_ids=running), wait_s=refresh_s)


def _is_running(job: Job) -> bool:
    """Return True if a job continues without an answer of the user."""
    return not job.is_terminal and job.status is not Status.INPUT_REQUIRED
