"""`agent-jobs watch`: how jobs go on, until they end or the watcher leaves."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Any, Protocol, Self

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.output import is_stdout_left
from agent_jobs.cli.session import JobId, Session, call, exit_of, json_option
from agent_jobs.engine.engine import GATHERED_MAX
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status

#: How often elapsed times move on; where many jobs are watched, each look at them is a write for each.
REFRESH_S, REFRESH_MANY_S, MANY = 1.0, 5.0, 20
#: Of what the model writes, or tells of its reasoning, while it does.
PARTIAL_LINES = 6


class Display(Protocol):
    """Shows how jobs stand, again and again."""

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Take the place of what was shown before, or add what is new."""
        ...


@click.command("watch")
@click.argument("job_ids", metavar="[ID]...", type=JobId(), nargs=-1)
@click.option("--all", "all_jobs", is_flag=True, help="All that go on; without IDs that is meant anyway.")
@json_option
def watch_command(job_ids: tuple[str, ...], all_jobs: bool, as_json: bool) -> None:
    """Watch jobs until they end; Ctrl-C leaves them.

    It shows what they do, for how long, and what one that is alone writes; they go on when you leave.

    While it runs this process also works on the jobs that no other process works on.
    Exit status: 0 completed, 3 failed or expired, 4 incomplete, 5 cancelled, 6 a job asks for something,
    130 left by Ctrl-C. Of several jobs the worst counts. It ends once nothing reads its output; then 6 says that a job
    goes on.
    """
    if job_ids and all_jobs:
        raise click.UsageError("Give IDs, or --all.")

    async def watch(session: Session) -> list[Job]:
        engine = session.engine
        ids = [await engine.identify(job_id) for job_id in job_ids]
        if not ids:
            ids = [job.id for job in (await engine.find(JobFilter(active=True, since=engine.now()), GATHERED_MAX)).jobs]
        if not ids:
            return []
        await announce_pending(session)
        session.app.work()
        back = f"agent-jobs watch {' '.join(one[:10] for one in ids)}" if job_ids else "agent-jobs watch --all"
        with Records() if as_json else display(sys.stdout, one=len(ids) == 1) as shown:
            return await follow(session, ids, shown, back=f"{back} comes back.", has_reader=has_reader)

    jobs = call(watch, role="acts", what="watch")
    if not jobs and not as_json:
        click.echo("Nothing goes on: agent-jobs list shows what there is.")
    elif len(jobs) == 1 and not as_json:
        if advice := terminal.advice(jobs[0]):
            click.echo(advice, err=True)
        if not advice or jobs[0].output_bytes:
            click.echo(f"agent-jobs result {jobs[0].id[:10]} shows what it brought.", err=True)
    raise SystemExit(exit_of(*jobs))


def has_reader() -> bool:
    """Return False once something could not be written to stdout."""
    return not is_stdout_left()


async def announce_pending(session: Session, *but: str) -> None:
    """Name the jobs that an earlier command left unsent, before this process sends them."""
    engine = session.engine
    if engine.base_url is None or await engine.other_workers():
        return  # nothing is sent from here, or another process has them
    pending = JobFilter(statuses=frozenset({Status.PENDING}))
    for job in (await engine.find(pending, GATHERED_MAX)).jobs:
        if job.turn.base_url == engine.base_url and job.id not in but:
            cancel = f"agent-jobs cancel {job.id[:10]} stops it."
            click.echo(f"Sending {job.id}, which was left unsent: {terminal.line(job.title)}. {cancel}", err=True)


async def follow(
    session: Session,
    job_ids: Sequence[str],
    shown: Display,
    *,
    back: str,
    ours: bool = False,
    has_reader: Callable[[], bool] = lambda: True,
) -> list[Job]:
    """Show the jobs until none of them goes on by itself, or nothing reads it; returns them as they stand then.

    Whoever leaves is told what becomes of them, and how to come `back`.
    """
    engine, group = session.engine, JobFilter(job_ids=tuple(job_ids))
    while True:
        jobs = sorted((await engine.find(group, len(job_ids))).jobs, key=lambda job: (job.created_at, job.id))
        session.detached = left(jobs, back, ours=ours)
        shown.show(jobs, engine.now())
        running = tuple(job.id for job in jobs if not job.is_terminal and job.status is not Status.INPUT_REQUIRED)
        if not running:
            return jobs
        if not has_reader():
            click.echo(session.detached, err=True)
            return jobs
        await engine.wait_for_any(
            JobFilter(job_ids=running), wait_s=REFRESH_S if len(running) < MANY else REFRESH_MANY_S
        )


def left(jobs: Sequence[Job], back: str, *, ours: bool = False) -> str:
    """What becomes of jobs when this process leaves, and how to come back to them; whether it sent them itself."""
    going = [job for job in jobs if not job.is_terminal] or jobs
    unsent, held = sum(job.status is Status.PENDING for job in going), sum(job.is_held_open for job in going)
    unconfirmed = sum(job.status is Status.STARTING and not job.is_held_open for job in going)
    one = len(going) == 1
    it, is_, goes, ends, them = ("it", "is", "goes", "ends", "it") if one else ("they", "are", "go", "end", "them")
    fates = {
        f"{goes} on upstream": len(going) - unsent - held - unconfirmed,
        "may be running and billed, as upstream has not named the response yet": unconfirmed,
        f"{ends} with {'this process' if ours else f'the process that sent {them}'}": held,
        f"{is_} not sent yet": unsent,
    }
    most, *others = [fate for fate, count in fates.items() if count] or ["are gone"]
    but = " and ".join(f"{fates[fate]} that {fate}" for fate in others)
    told = f"Left {going[0].id if one else f'{len(going)} jobs'}: {it} {most}{but and f', but for {but}'}."
    return told if ours and held else f"{told} {back}"


def display(stream: IO[Any], *, one: bool) -> AbstractContextManager[Display]:
    """What suits a stream: written over in place on a terminal, line by line elsewhere."""
    return Panel(stream, one=one) if terminal.live(stream) else Lines(stream)


class _Shown:
    """Something to be entered and left."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


class Lines(_Shown):
    """A line for each change of what a job does; nothing for the time that goes by."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream
        self._told: dict[str, str] = {}

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write a line for each job that changed."""
        for job in jobs:
            what = "  ".join(filter(None, (job.status, terminal.line(job.activity), _end(job))))
            if self._told.get(job.id) != what:
                self._told[job.id] = what
                since = terminal.elapsed((job.finished_at or now) - job.created_at)
                click.echo(f"{job.id}  {since:>7}  {what}", file=self._stream)
                self._stream.flush()


class Records(_Shown):
    """A JSON object in a line for each change of a job."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write an object for each job that changed."""
        from agent_jobs.rendering import answers

        for job in jobs:
            if self._told.get(job.id) != (what := (job.status, job.activity, job.output_bytes)):
                self._told[job.id] = what
                shown = answers.shown(job, now)
                click.echo(answers.json_line({key: shown[key] for key in shown if key not in ("output", "next")}))
                sys.stdout.flush()


class Panel:
    """A few lines on a terminal that are written over: each job, and what one that is alone writes."""

    def __init__(self, stream: IO[Any], *, one: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, auto_refresh=False, transient=stream is sys.stderr)
        self._one = one

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write over what stood there."""
        from rich.text import Text

        room = max(1, self._live.console.height - 2)
        # What goes on is never pushed out by what is over.
        first = sorted(jobs, key=lambda job: job.is_terminal)[:room]
        lines = [self._line(job, now) for job in jobs if job in first]
        if len(jobs) > len(first):
            lines.append(Text(f"and {len(jobs) - len(first)} more", style="dim"))
        if self._one and jobs and not jobs[0].is_terminal:
            lines += self._partial(jobs[0], room - 1)
        shown = Text("\n").join(lines)
        shown.no_wrap, shown.overflow = True, "ellipsis"
        self._live.update(shown, refresh=True)

    def _line(self, job: Job, now: float) -> Any:
        from rich.text import Text

        text = Text(f"{job.id}  ", no_wrap=True)
        text.append(f"{job.status:<12}", style=terminal.COLOURS.get(job.status, "cyan"))
        text.append(f"{terminal.elapsed((job.finished_at or now) - job.created_at):>7}  ")
        going = "working" if job.status is Status.IN_PROGRESS else "waiting for upstream"
        text.append(_end(job) if job.is_terminal else terminal.line(job.activity) or going, style="bold")
        text.append(f"  {terminal.line(job.title)}", style="dim")
        text.truncate(self._live.console.width, overflow="ellipsis")
        return text

    def _partial(self, job: Job, room: int) -> list[Any]:
        """The last lines of what it writes; before it writes, of what it tells of its reasoning."""
        from rich.text import Text

        tail = job.turn.partial or job.turn.reasoning
        style = "dim" if job.turn.partial else "dim italic"
        wrapped = Text(terminal.plain(tail).expandtabs(4), style).wrap(self._live.console, self._live.console.width)
        return list(wrapped[-min(PARTIAL_LINES, max(0, room)) :]) if room > 0 and tail else []


def _end(job: Job) -> str:
    """How a job ended, in figures or in its failure's words."""
    if not job.is_terminal:
        return ""
    figures = [terminal.size(job.output_bytes) if job.output_bytes else "", terminal.usd(job.cost_usd)]
    count = terminal.tokens(job)
    why = f"{job.error.code}: {terminal.line(job.error.message)}" if job.error else ""
    return ", ".join(filter(None, (why, *figures, f"{count} tokens" if count else "")))
