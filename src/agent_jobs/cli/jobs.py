"""The commands about jobs that exist: list, show, result, cancel, adopt, prune."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any, get_args

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.choice import NamedChoice
from agent_jobs.cli.session import Exit, JobId, Session, call, exit_of, json_option, read_settings
from agent_jobs.cli.unwatched import Unwatched, retrieve_unwatched
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import SO_FAR, JobFilter, JobPage, Part, Pruned, Reply, Result
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.settings import Settings

DAY_S = 86_400.0
#: A part is never cut here: nobody pays for what a terminal reads.
WHOLE_BYTES = 2**40


class Days(click.FloatRange):
    """A number of days."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As a range does it, which lets `nan` pass."""
        days = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is not a number of days.", param, ctx) if isnan(days) else days


@click.command("list")
@click.option("--status", type=NamedChoice([*map(str, Status), "open"]), help="Only those in this status.")
@click.option("--batch", default="", help="Only those of this batch.")
@click.option("--query", default="", help="Only those with this in the title.")
@click.option("--days", type=Days(0, min_open=True), help="Only those started in so many days.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="So many.")
@json_option
def list_command(status: str | None, batch: str, query: str, days: float | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first.

    A follow-up stands below what it goes on from, if that is in the list too. Jobs that no process watches are asked
    about first, for a second at most.
    """
    statuses = ACTIVE if status == "open" else frozenset({Status(status)} if status else ())
    since = time.time() - days * DAY_S if days else 0.0
    group = JobFilter(batch=batch, statuses=statuses, words=query, since=since)

    async def find(session: Session) -> tuple[Unwatched, JobPage, float]:
        unwatched = await retrieve_unwatched(session, group)
        return unwatched, await session.engine.find(group, limit), session.engine.now()

    unwatched, found, now = call(find)
    if as_json:
        return click.echo(_json(found, unwatched, now))
    return click.echo("\n".join([_table(found, now), *unwatched.lines(found.jobs, now)]))


@click.command("show")
@click.argument("job_id", metavar="ID", type=JobId())
@json_option
def show_command(job_id: str, as_json: bool) -> None:
    """Show what is known of a job.

    How it stands, its ids, what it cost, what happened to it, and its request.
    """
    result, unwatched, now = _result(job_id)
    from agent_jobs.rendering import answers

    job = result.job
    known = {name: value for name, value in answers.shown(job, now).items() if name not in _NOT_SHOWN}
    known |= answers.part(result, "meta", 0, WHOLE_BYTES)["meta"]
    known |= {"usage": answers.part(result, "usage", 0, WHOLE_BYTES)["usage"]} if job.usage else {}
    if as_json:
        return click.echo(answers.json_line(known | unwatched.fields(job, now)))
    known |= {"note": note} if (note := unwatched.note(job, now)) else {}
    request, events = known.pop("request"), known.pop("events", [])
    known |= {name: _time(known[name]) for name in ("created_at", "finished_at") if name in known}
    rows = [(name, value if isinstance(value, str) else answers.dumps(value)) for name, value in known.items()]
    parts = [event.partition(" ") for event in events]
    if parts:
        rows += [("events", "\n".join(f"{_time(float(at))} {text}" for at, _, text in parts))]
    return click.echo(terminal.pairs([*rows, ("request", answers.dumps(request))]))


_NOT_SHOWN = ("output", "bytes", "next", "next_poll_ms")


@click.command("result")
@click.argument("job_id", metavar="ID", type=JobId())
@click.option("--part", type=NamedChoice(get_args(Part)), default="text", show_default=True, help="What of it.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it into this file.")
@json_option
def result_command(job_id: str, part: Part, out: Path | None, as_json: bool) -> None:
    """Print what a job brought: its text, or a part.

    Exit status: 0 completed, 3 failed or expired, 4 incomplete, 5 cancelled, 6 it goes on and there is no result yet.
    """
    result, unwatched, now = _result(job_id)
    job, note = result.job, unwatched.note(result.job, now)
    if not job.is_terminal and part not in SO_FAR:
        go_on = "reply" if job.status is Status.INPUT_REQUIRED else "watch"
        status = f"{job.status}, {note}" if note else job.status
        click.echo(f"{job.id} is {status}: agent-jobs {go_on} {job.id}", err=True)
        if as_json:
            told = {"job_id": job.id, "status": job.status, **unwatched.fields(job, now)}
            click.echo(json.dumps(told, separators=(",", ":")))
        raise SystemExit(Exit.RUNNING)
    from agent_jobs.rendering import answers

    answer = answers.part(result, part, 0, WHOLE_BYTES)
    shown = answer["output" if part == "text" else part]
    text = answers.json_line(answer) if as_json else shown if isinstance(shown, str) else answers.dumps(shown)
    if out is not None:
        out.write_bytes(text.encode("utf-8", "replace"))
        click.echo(f"{out}: {out.stat().st_size} bytes", err=True)
    else:
        write(text)
    if job.is_terminal and job.delivered_at is None and part not in _NO_RESULT:
        _mark_read(job)
    if job.error is not None:
        click.echo(f"{job.status}: {terminal.line(job.error.message)}", err=True)
    if note:
        click.echo(f"{job.id} is {job.status}, {note}.", err=True)
    if warning := answers.warning_of(job):
        click.echo(warning, err=True)
    if advice := terminal.advice(job):
        click.echo(advice, err=True)
    raise SystemExit(exit_of(job))


#: Parts that tell of a job without its result.
_NO_RESULT = ("outline", "usage", "meta")


def _mark_read(job: Job) -> None:
    """Note that the job's result was read, after it was written: a retention deletes what was read."""

    async def deliver(session: Session) -> None:
        await session.engine.mark_delivered(job)

    call(deliver, settings=replace(Settings.forgiving(os.environ)[0], warnings=()))


@click.command("reply")
@click.argument("job_id", metavar="JOB", type=JobId())
@click.option("--approve", multiple=True, metavar="ID", help="Allow this call; may be repeated.")
@click.option("--approve-all", is_flag=True, help="Allow all calls that wait for it.")
@click.option("--deny", multiple=True, metavar="ID", help="Refuse this call; may be repeated.")
@click.option("--output", "outputs", multiple=True, metavar="ID=TEXT", help="What this function gave; may be repeated.")
@click.option("--message", default="", help="For the job, in place of the answers that are not given.")
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
    """Answer what a job asks for; without answers, show it.

    The job goes on once all is answered. Exit status: 0 nothing is asked any more, 6 something still is.
    """
    if approve and approve_all:
        raise click.UsageError("Give --approve, or --approve-all.")
    given = dict(_output(text) for text in outputs)
    if len(given) < len(outputs):
        raise click.UsageError("One --output for each ID.")

    async def reply(session: Session) -> tuple[Job, list[Call], bool]:
        engine = session.engine
        job = await engine.poll(await engine.identify(job_id))
        if approve_all or approve or deny or given or message:
            allowed = approve
            if approve_all:
                waiting = [call.id for call in await engine.open_calls(job) if call.needs == "approval"]
                allowed = tuple(call_id for call_id in waiting if call_id not in deny)
            reply = Reply(outputs=given, approve=allowed, deny=deny, message=message, turn=job.turn.number)
            job = await engine.reply(job.id, reply)
        others = (await engine.store_info()).watchers
        return job, await engine.open_calls(job), any(other.base_url == job.turn.base_url for other in others)

    job, asked, watched = call(reply)
    from agent_jobs.rendering import answers

    if as_json:
        needs = [
            {"call_id": each.id, "needs": each.needs, "name": each.name, "arguments": each.arguments} for each in asked
        ]
        click.echo(answers.json_line({"job_id": job.id, "status": job.status, "needs": needs}))
    else:
        click.echo(f"{job.id}  {job.status}")
        for each in asked:
            click.echo(f"{each.id}  {each.needs}  {answers.visible(f'{each.name} {each.arguments}')}")
        if not (asked or job.is_terminal or watched):
            click.echo(f"Nobody goes on with it yet: agent-jobs watch {job.id}", err=True)
    raise SystemExit(Exit.RUNNING if asked else Exit.DONE)


def _output(text: str) -> tuple[str, str]:
    call_id, equals, output = text.partition("=")
    if not (call_id and equals):
        raise click.UsageError(f"--output takes ID=TEXT, not {text[:60]!r}.")
    return call_id, output


@click.command("cancel")
@click.argument("job_ids", metavar="[ID]...", type=JobId(), nargs=-1)
@click.option("--batch", default="", help="All that run of this batch.")
@json_option
def cancel_command(job_ids: tuple[str, ...], batch: str, as_json: bool) -> None:
    """Stop jobs, upstream too.

    Exit status: 0 all are over, 6 one is not confirmed yet; its cancel is delivered later.
    """
    if bool(job_ids) == bool(batch):
        raise click.UsageError("Say which: IDs, or --batch.")

    async def cancel(session: Session) -> list[Job]:
        ids = [await session.engine.identify(job_id) for job_id in job_ids]
        jobs = await session.engine.cancel(JobFilter(job_ids=tuple(ids), batch=batch))
        return sorted(jobs, key=lambda job: ids.index(job.id)) if ids else jobs

    jobs = call(cancel, role="acts")
    from agent_jobs.rendering import answers

    if as_json:
        click.echo(answers.json_line({job.id: job.status for job in jobs}))
    elif not jobs:
        click.echo(f"Nothing of batch {batch!r} goes on.", err=True)
    else:
        for job in jobs:
            click.echo(f"{job.id}  {job.status}" + ("" if job.is_terminal else "  (cancel requested)"))
    raise SystemExit(Exit.DONE if all(job.is_terminal for job in jobs) else Exit.RUNNING)


@click.command("adopt")
@click.argument("job_id", metavar="JOB", type=JobId())
@click.argument("response_id")
@json_option
def adopt_command(job_id: str, response_id: str, as_json: bool) -> None:
    """Give a job the response id found elsewhere.

    Such as in the provider's dashboard, for a job whose start is unconfirmed; its result is collected then.
    """

    async def adopt(session: Session) -> tuple[Job, bool]:
        job = await session.engine.adopt(await session.engine.identify(job_id), response_id)
        return job, bool(await session.engine.other_workers())

    job, watched = call(adopt, role="acts")
    if as_json:
        from agent_jobs.rendering import answers

        return click.echo(
            answers.json_line({"job_id": job.id, "status": job.status, "response_id": job.turn.response_id})
        )
    click.echo(f"{job.id}  {job.status}  {job.turn.response_id}")
    return None if watched else click.echo(f"Nobody collects it yet: agent-jobs watch {job.id}", err=True)


@click.command("prune")
@click.option("--days", type=Days(0), help="Ended this many days ago.  [default: AGENT_JOBS_RETENTION_DAYS]")
@click.option(
    "--upstream/--no-upstream", default=None, help="Delete at the provider, too.  [default: AGENT_JOBS_DELETE_UPSTREAM]"
)
@click.option("--unread", is_flag=True, help="Also delete results that nobody has read.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def prune_command(days: float | None, upstream: bool | None, unread: bool, yes: bool, as_json: bool) -> None:
    """Delete old jobs, except those whose results nobody has read.

    What the provider keeps of them stays there, unless --upstream is given.
    """
    settings = read_settings()
    days = settings.retention_days if days is None else days
    if days is None:
        raise click.UsageError("Give --days: AGENT_JOBS_RETENTION_DAYS is not set, so all jobs are kept.")
    older_than_s = days * DAY_S
    upstream = settings.delete_upstream == "yes" if upstream is None else upstream
    if not yes:
        which = "all jobs, read or not," if unread else "the jobs"
        where = ", here and at the provider" if upstream else ""
        with raise_on_ctrl_c():  # the terminal has to be set back
            click.confirm(f"Delete {which} that ended {days:g} days ago or earlier{where}?", abort=True, err=True)

    async def prune(session: Session) -> Pruned:
        return await session.engine.prune(older_than_s, upstream=upstream, unread=unread)

    pruned = call(prune, role="acts", settings=replace(settings, warnings=()))
    if as_json:
        told = {"forgotten": pruned.deleted, "kept_unread": pruned.unread, "deleted_upstream": pruned.deleted_upstream}
        return click.echo(json.dumps(told))
    return click.echo(" ".join(_pruned(pruned, upstream=upstream)))


def _pruned(pruned: Pruned, *, upstream: bool) -> Iterator[str]:
    """Yield a sentence each for what was deleted, for what was kept, and for the provider's copies."""
    yield f"{pruned.deleted} {'job was' if pruned.deleted == 1 else 'jobs were'} deleted."
    if pruned.unread == 1:
        yield "1 was kept because nobody has read its result (--unread deletes it)."
    elif pruned.unread:
        yield f"{pruned.unread} were kept because nobody has read their results (--unread deletes them)."
    if pruned.responses and not upstream:
        yield "The provider keeps its copies (--upstream deletes them too)."
    elif pruned.responses:
        yield f"{pruned.deleted_upstream} of {pruned.responses} responses were deleted at the provider."


def write(text: str) -> None:
    """A result on stdout: as it is into a pipe, without control characters on a terminal."""
    shown = terminal.plain(text) if sys.stdout.isatty() else text
    click.echo(shown.encode("utf-8", "replace"), nl=not shown.endswith("\n"))


def _result(job_id: str) -> tuple[Result, Unwatched, float]:
    async def read(session: Session) -> tuple[Result, Unwatched, float]:
        whole_id = await session.engine.identify(job_id)
        unwatched = await retrieve_unwatched(session, JobFilter(job_ids=(whole_id,)))
        return await session.engine.result(whole_id), unwatched, session.engine.now()

    return call(read)


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _json(found: JobPage, unwatched: Unwatched, now: float) -> str:
    from agent_jobs.rendering import answers

    answer = answers.listed(found, now)
    for row, job in zip(answer["jobs"], found.jobs, strict=True):
        tokens = job.usage and job.usage.exact_tokens
        more = {"tokens": tokens, "previous_job_id": job.previous_job_id, "title": job.title}
        row |= {name: value for name, value in more.items() if value is not None}
        row |= unwatched.fields(job, now)
    return answers.json_line(answer)


def _table(found: JobPage, now: float) -> str:
    if not found.jobs:
        return "There are no such jobs."
    tree = list(_tree(found.jobs))
    rows = [
        {
            "ID": job.id,
            "STATUS": str(job.status),
            "AGE": terminal.age(now - job.created_at),
            "TOKENS": terminal.tokens(job),
            "COST": terminal.usd(job.cost_usd),
        }
        for job, _ in tree
    ]
    # A column of nothing is room for the title.
    widths = {
        name: max(map(len, (name, *(row[name] for row in rows)))) for name in rows[0] if any(r[name] for r in rows)
    }
    room = max(12, (terminal.columns() or 10_000) - sum(widths.values()) - 2 * len(widths))
    colours = terminal.colourful(sys.stdout)
    lines = ["  ".join([*(_placed(name, name, width) for name, width in widths.items()), "TITLE"])]
    for (job, depth), row in zip(tree, rows, strict=True):
        cells = {name: _placed(name, row[name], width) for name, width in widths.items()}
        if colours:
            cells["STATUS"] = click.style(cells["STATUS"], fg=terminal.COLOURS.get(job.status, "cyan"))
        title = "  " * (depth - 1) + "└ " * bool(depth) + terminal.line(job.title)
        lines.append("  ".join([*cells.values(), terminal.fit(title, room).rstrip()]))
    return "\n".join([*lines, "", *_summary(found)])


def _placed(name: str, text: str, width: int) -> str:
    """Words on the left of their column, figures on its right."""
    return text.ljust(width) if name in ("ID", "STATUS") else text.rjust(width)


def _summary(found: JobPage) -> Iterator[str]:
    counted = ", ".join(f"{count} {status}" for status, count in found.counts.items())
    total = sum(found.counts.values())
    more = f"; {total - len(found.jobs)} more: -n {total}" if total > len(found.jobs) else ""
    today = f"; today {terminal.usd(found.today_usd)}" if found.today_usd else ""
    yield f"{counted}{today}{more}"


def _tree(jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
    """The jobs and how deep they stand: each below the one that it goes on from, if that is among them."""
    known = {job.id for job in jobs}
    below: dict[str | None, list[Job]] = {}
    for job in jobs:
        below.setdefault(job.previous_job_id if job.previous_job_id in known else None, []).append(job)
    stack = [(job, 0) for job in reversed(below.get(None, []))]
    while stack:
        job, depth = stack.pop()
        yield job, depth
        stack += [(child, depth + 1) for child in below.get(job.id, [])]
