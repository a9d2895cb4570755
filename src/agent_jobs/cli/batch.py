"""`agent-jobs batch`: run a job for each line of a file."""

import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import anyio
import anyio.lowlevel
import click

from agent_jobs.cli.batch_files import RESULTS_NAME, BatchTask, Results, find_retry, open_results, read_tasks
from agent_jobs.cli.display import terminal
from agent_jobs.cli.out_file import OutFolder
from agent_jobs.cli.session import CLIENT, Exit, Session, json_option, read_settings, run_in_session
from agent_jobs.errors import RequestError, ungroup
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings

#: Seconds that one poll of the engine waits.
POLL_WAIT_S = 60.0
#: Characters of a batch's name that the engine accepts.
BATCH_NAME_CHARS = 60
DETACHED = "Jobs continue at the provider. Run the same command to resume."
DETACHED_HELD = (
    "Background jobs continue at the provider. Run the same command to resume. Jobs in the foreground stop with this "
    "process: the same command records them as failed, and --retry starts them again."
)
LIMIT_VARIABLE = "AGENT_JOBS_MAX_CONCURRENT"
#: Exit statuses of results, the worst first.
EXITS = {
    Status.FAILED: Exit.FAILED,
    Status.EXPIRED: Exit.FAILED,
    Status.INCOMPLETE: Exit.INCOMPLETE,
    Status.CANCELLED: Exit.CANCELLED,
}


@click.command("batch")
@click.argument("tasks", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--out", type=OutFolder(path_type=Path, file_okay=False), required=True, help="Folder for the results.")
@click.option("--name", help="Name of the batch.  [default: the file's name]")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=10, show_default=True, help="Jobs at once.")
@click.option("--retry", is_flag=True, help="Start jobs again whose results are failures.")
@json_option
def batch_command(tasks: Path, out: Path, name: str | None, concurrency: int, retry: bool, as_json: bool) -> None:
    """Run a job for each line of a file.

    Appends a JSON line for each result to OUT/results.jsonl.

    A line is a JSON object with a prompt (and preset, model, effort, web_search, files, options), or a JSON string.

    After any interruption run the same command again. Finished lines are not run again, and running jobs are waited
    for. A line is identified by the batch's name and its content, so you can add and move lines.

    AGENT_JOBS_MAX_CONCURRENT limits the running jobs if it is set, --concurrency otherwise.

    Exit status: 0 all completed, otherwise that of the worst result: 3 failed or expired, 4 incomplete, 5 cancelled.
    """
    name = name or tasks.stem
    wanted = list(read_tasks(tasks, name))
    with open_results(out) as results:
        if retry:
            wanted = [find_retry(task, results.done) for task in wanted]
        left: list[BatchTask] = []
        for task in wanted:
            if task.key in results.done:
                results.count(results.done[task.key])
            else:
                left.append(task)

        async def work(session: Session) -> None:
            await _check_tasks(session, name, left)
            if view := await session.engine.find_view(f"/?{urlencode({'batch': name[:BATCH_NAME_CHARS]})}"):
                click.echo(f"Watch it at {view}", err=True)
            if hint:
                click.echo(hint, err=True)
            session.detached = DETACHED
            with _open_progress_bar(len(wanted), len(wanted) - len(left), as_json=as_json) as advance:
                await _run_tasks(session, name, left, concurrency, results, advance)

        if left:
            settings, hint = _limit_concurrency(min(concurrency, len(left)))
            run_in_session(work, role="works", what="batch", roots=_find_roots(tasks, left), settings=settings)
    _write_totals(results, name, tasks, out / RESULTS_NAME, as_json=as_json)
    raise SystemExit(_find_worst_exit(results))


def _limit_concurrency(wanted: int) -> tuple[Settings, str]:
    """Return the settings with enough concurrent runs for the batch, and a hint if the user set fewer."""
    settings = read_settings()
    limit = settings.max_concurrent
    if wanted <= limit:
        return settings, ""
    if not os.environ.get(LIMIT_VARIABLE, "").strip():
        return replace(settings, max_concurrent=wanted), ""
    hint = (
        f"{LIMIT_VARIABLE}={limit} limits this batch to {limit} jobs at once. "
        f"Set {LIMIT_VARIABLE}={wanted}, or unset it."
    )
    return settings, hint


def _find_roots(path: Path, tasks: list[BatchTask]) -> tuple[Path, ...]:
    """Return the folders from which files may be attached, if a task attaches one."""
    if not any(task.fields.get("files") for task in tasks):
        return ()
    return tuple({path.resolve().parent, Path.cwd()})


def _write_totals(results: Results, name: str, tasks: Path, path: Path, *, as_json: bool) -> None:
    """Print how many jobs finished with which status, and what they cost."""
    if as_json:
        totals = {
            "batch": name,
            "results": str(path),
            "counts": results.statuses,
            "cost_usd": round(results.usd, 6),
        }
        return click.echo(json.dumps(totals))
    counts = ", ".join(f"{count} {status}" for status, count in results.statuses.items())
    line = f"{path}: {counts}" if counts else f"{path}: {tasks} has no lines"
    if results.usd:
        line += f"; {terminal.format_usd(results.usd)}"
    return click.echo(line)


def _find_worst_exit(results: Results) -> Exit:
    """Return the exit status of the worst result."""
    exits = [EXITS.get(Status(status), Exit.CANCELLED) for status in results.statuses if status != Status.COMPLETED]
    return min(exits, default=Exit.DONE)


async def _check_tasks(session: Session, name: str, left: list[BatchTask]) -> None:
    """Raise RequestError for the first task that would be refused at its start. Nothing is stored or sent."""
    seen: set[str] = set()
    for task in left:
        request = _make_request(name, task)
        shared = json.dumps({**task.fields, "prompt": None}, sort_keys=True)
        if shared in seen:  # the files of equal lines are read once
            request = replace(request, files=())
        seen.add(shared)
        with _name_line(task):
            await session.engine.plan(request)
        await anyio.lowlevel.checkpoint()  # Ctrl-C ends the check of a long file


async def _run_tasks(
    session: Session,
    name: str,
    left: list[BatchTask],
    concurrency: int,
    results: Results,
    advance: Callable[[Results], None],
) -> None:
    """Run the tasks, `concurrency` of them at once. A refused task ends the batch."""
    tasks = iter(left)

    async def run_each() -> None:
        for task in tasks:  # shared by the workers, each of which runs the next one
            with _name_line(task):
                job = await _run_task(session, name, task)
            results.add(task, job)
            await session.engine.mark_delivered(job)
            advance(results)

    with ungroup():
        async with anyio.create_task_group() as group:
            for _ in range(min(concurrency, len(left))):
                group.start_soon(run_each)


@contextmanager
def _name_line(task: BatchTask) -> Generator[None]:
    """Begin the sentence of a refusal with the number of the task's line."""
    try:
        yield
    except RequestError as error:
        # In a file, arguments have the names that tools give them.
        error.data = {**error.data, "problem": f"Line {task.line}: {error}"}
        error.problem = "{problem}"
        raise


def _make_request(name: str, task: BatchTask) -> StartRequest:
    """Return the request of a task's job."""
    fields = {field: value for field, value in task.fields.items() if value is not None}
    prompts = [fields.pop("prompt")]
    options = {**fields.pop("options", {}), "key": task.key}
    return StartRequest(prompts=prompts, batch=name[:BATCH_NAME_CHARS], client=CLIENT, options=options, **fields)


async def _run_task(session: Session, name: str, task: BatchTask) -> Job:
    """Start the task's job, or find the one that exists; return it when it has finished."""
    [started] = await session.engine.start(_make_request(name, task))
    job = started.job
    while not job.is_terminal:
        if job.is_held_open and not started.duplicate:
            session.detached = DETACHED_HELD
        job = await session.engine.poll(job.id, wait_s=POLL_WAIT_S)
        if job.status is Status.INPUT_REQUIRED:
            # A batch has no user who could answer.
            [job] = await session.engine.cancel(JobFilter(job_ids=(job.id,)))
    return await session.engine.poll(job.id)


def _ignore_results(results: Results) -> None:
    pass


def _open_progress_bar(
    total: int, done: int, *, as_json: bool
) -> AbstractContextManager[Callable[[Results], None]]:  # fmt: skip
    """Return a progress bar on a terminal that can be written over, a bar that shows nothing elsewhere."""
    if as_json or not terminal.can_overwrite(sys.stderr):
        return nullcontext(_ignore_results)
    return _show_progress_bar(total, done)


@contextmanager
def _show_progress_bar(total: int, done: int) -> Generator[Callable[[Results], None]]:
    """Show a bar on stderr; yield the function to call after each result."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    class StateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            times = _describe_times(task.elapsed or 0, task.time_remaining, is_finished=task.finished)
            parts = (f"{task.completed:.0f}/{total}", task.description, times)
            return Text(", ".join(filter(None, parts)))

    console = Console(stderr=True, highlight=False)
    with Progress(BarColumn(bar_width=None), StateColumn(), console=console, expand=True) as progress:
        task = progress.add_task("", total=total, completed=done)

        def advance(results: Results) -> None:
            progress.update(task, advance=1, description=_describe_results(results))

        yield advance


def _describe_times(elapsed_s: float, left_s: float | None, *, is_finished: bool) -> str:
    """Return how long a batch took, or takes so far and how much longer it may take."""
    elapsed = terminal.format_duration(elapsed_s)
    if is_finished or left_s is None:
        return elapsed
    return f"{elapsed}, about {terminal.format_duration(left_s)} left"


def _describe_results(results: Results) -> str:
    """Return how many jobs did not complete, by their statuses, and the cost until now."""
    counts = [(results.statuses[status], status) for status in Status if status is not Status.COMPLETED]
    parts = [f"{count} {status}" for count, status in counts if count]
    if results.usd:
        parts.append(terminal.format_usd(results.usd))
    return ", ".join(parts)
