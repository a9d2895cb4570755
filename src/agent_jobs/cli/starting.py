"""The commands that start jobs: run and start."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from stat import S_ISFIFO, S_ISREG, S_ISSOCK
from threading import Thread
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from agent_jobs.cli import terminal
from agent_jobs.cli.jobs import write
from agent_jobs.cli.session import JobId, Session, call, exit_of, json_option
from agent_jobs.cli.watch import display, follow, left
from agent_jobs.engine import Started
from agent_jobs.errors import ConfigError
from agent_jobs.group import Estimate, Watcher
from agent_jobs.job import Job, Status
from agent_jobs.settings import Settings

if TYPE_CHECKING:  # imported once a job is asked for
    from agent_jobs.request import Order

#: A POST is waited for so long before a process leaves: until upstream names the id, the run would be lost with it.
BIRTH_S = 900.0
#: Seconds until a pipe on stdin that brings nothing counts as inherited: hosts and ssh leave one open.
PIPE_WAIT_S = 3.0


class PresetName(click.ParamType[str]):
    """A preset's name, completed from ours and the user's own."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, with what each is for."""
        from agent_jobs.request import load_presets

        try:
            presets = load_presets(Settings.forgiving(os.environ)[0].presets)
        except ConfigError:
            presets = load_presets(None)
        return [
            CompletionItem(name, help=preset.description)
            for name, preset in presets.items()
            if name.startswith(incomplete)
        ]


def order_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What can be asked for, as `agent_start` takes it."""
    for option in reversed(
        (
            click.argument("prompt"),
            click.option("--preset", type=PresetName(), help="deep_research, think, review, quick, or one of yours."),
            click.option("--model", help="Instead of the preset's and AGENT_JOBS_MODEL."),
            click.option("--effort", help="How hard it thinks, from none or minimal to high or max."),
            click.option("--web-search/--no-web-search", default=None, help="Let it search."),
            click.option("--file", "files", multiple=True, metavar="PATH", help="A file, folder or glob; repeatable."),
            click.option("--previous", metavar="ID", type=JobId(), help="Go on from this ended job."),
            click.option("--batch", default="", help="A name to find jobs together by."),
            click.option("--high", is_flag=True, help="Goes before others that wait for a slot."),
            click.option(
                "--option",
                "options",
                multiple=True,
                metavar="NAME=JSON",
                help="Any other of docs/requests.md, such as max_output_tokens=2000; repeatable.",
            ),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command("run")
@order_options
def run_command(as_json: bool, **asked: Any) -> None:
    """Start a job, wait for its end and print the answer.

    What is piped in is appended to PROMPT; PROMPT - is stdin alone.

    The same work is not started twice: a job that does it already is waited for. Ctrl-C leaves the job running,
    where upstream has background runs.
    Exit status: 0 completed, 1 nothing was started, 3 failed or expired, 4 incomplete, 5 cancelled.
    """
    asked_for, roots = _order(asked)

    async def run(session: Session) -> "Estimate | Job":
        order = await _meant(session, asked_for)
        if order.options.get("dry_run"):
            return await session.engine.estimate(order)
        [started] = await session.engine.start(order)
        session.detached = left([started.job], _back(started.job), ours=not started.duplicate)
        with display(sys.stderr, one=True) as shown:
            await follow(session, [started.job.id], shown, back=_back(started.job), ours=not started.duplicate)
        job = await session.engine.poll(started.job.id)
        await session.engine.deliver(job)
        return job

    ended = call(run, role="works", what="run", roots=roots)
    _tell_estimate(ended) if isinstance(ended, Estimate) else _tell_end(ended, as_json=as_json)


@click.command("start")
@order_options
@click.option("--detach", is_flag=True, help="Leave as soon as upstream named the response, whoever watches.")
def start_command(as_json: bool, detach: bool, **asked: Any) -> None:
    """Start a job and print its id.

    What is piped in is appended to PROMPT; PROMPT - is stdin alone.

    Where no other process works on the jobs, it stays until the end, so that the result is collected; Ctrl-C leaves
    the job running. Where upstream has no background runs it stays too, and Ctrl-C ends the job.
    Exit status: 0 it was started, 1 nothing was; where it ended meanwhile, that of run.
    """
    asked_for, roots = _order(asked)

    async def start(session: Session) -> "Estimate | Job":
        order = await _meant(session, asked_for)
        if order.options.get("dry_run"):
            return await session.engine.estimate(order)
        [started] = await session.engine.start(order)
        job, ours = started.job, not started.duplicate
        session.detached = left([job], _back(job), ours=ours)
        watchers = await session.engine.watched()
        _tell_start(started, watchers, session.engine.now(), as_json=as_json)
        if detach or watchers or job.terminal:
            job = await _born(session, job, ours=ours)
            if not (ours and job.held_open):
                return _tell_watchers(job, [] if as_json else watchers)
        click.echo(_staying(job, ours=ours), err=True)
        session.app.work()
        with display(sys.stderr, one=True) as shown:
            [ended] = await follow(session, [job.id], shown, back=_back(job), ours=ours)
        return ended

    started = call(start, role="acts", what="start", roots=roots)
    if isinstance(started, Estimate):
        _tell_estimate(started)
    elif started.terminal:
        _tell_how(started)
        if started.output_bytes:
            click.echo(f"agent-jobs result {started.id[:10]} shows what it brought.", err=True)
        raise SystemExit(exit_of(started))


def _order(asked: dict[str, Any]) -> "tuple[Order, tuple[Path, ...]]":
    """What the command line asks for, and the folders that it opens by naming files."""
    from agent_jobs.request import Order

    prompt = _stdin() if asked["prompt"] == "-" else asked["prompt"]
    if asked["prompt"] != "-" and (piped := _piped()).strip():
        prompt = f"{prompt}\n\n{piped}"
    files = [_named(each) for each in asked["files"]]
    order = Order(
        prompts=[prompt],
        preset=asked["preset"],
        model=asked["model"],
        effort=asked["effort"],
        web_search=asked["web_search"],
        files=[str(file) for file in files],
        previous_job_id=asked["previous"],
        batch=asked["batch"],
        priority=int(asked["high"]),
        options=dict(_option(each) for each in asked["options"]),
    )
    return order, tuple(dict.fromkeys(_standing(file) for file in files))


def _stdin() -> str:
    """Return all of stdin as text."""
    return _decoded(sys.stdin.buffer.read())


def _piped() -> str:
    """Return what was piped or redirected into stdin; an empty text for a terminal, a device or a closed stdin.

    A pipe that only was inherited may never bring anything: it is waited on for `PIPE_WAIT_S`.
    """
    try:
        kind = os.fstat(0).st_mode
    except OSError:  # it is closed
        return ""
    if not (S_ISREG(kind) or S_ISFIFO(kind) or S_ISSOCK(kind)):
        return ""
    first: list[bytes] = []

    def read_first() -> None:
        with suppress(OSError):
            first.append(os.read(0, 65_536))

    reader = Thread(target=read_first, daemon=True)
    reader.start()
    reader.join(PIPE_WAIT_S)
    if reader.is_alive():
        told = f"Nothing came from stdin within {PIPE_WAIT_S:g} s, so it is not part of the prompt."
        click.echo(f"{told} Write - as the prompt to wait for it, or </dev/null.", err=True)
        return ""
    return _decoded(b"".join(first) + sys.stdin.buffer.read()) if any(first) else ""


def _decoded(read: bytes) -> str:
    """Return bytes of stdin as text; never as the locale would have it, which may put other characters there."""
    try:
        return read.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"stdin is not UTF-8 (byte {error.start + 1}): save it as text in UTF-8.") from None


async def _meant(session: Session, order: "Order") -> "Order":
    """The order with the whole id of the job that it goes on from."""
    if order.previous_job_id is None:
        return order
    return replace(order, previous_job_id=await session.engine.identify(order.previous_job_id))


def _option(written: str) -> tuple[str, Any]:
    name, equals, value = written.partition("=")
    if not equals:
        raise click.BadParameter(f"{written!r} is not NAME=JSON, such as max_output_tokens=2000.")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value  # a word needs no quotes


def _named(written: str) -> Path:
    """The path that is meant from here: `..` at its beginning is this folder's parent, elsewhere it may be a link's."""
    if not written:
        raise click.BadParameter("--file takes a path, and this one is empty.")
    try:
        folder, path = Path.cwd(), Path(written).expanduser()
    except RuntimeError:
        raise click.BadParameter(f"--file {written}: there is no such home folder; write the path out.") from None
    while path.parts[:1] == ("..",):
        folder, path = folder.parent, path.relative_to("..")
    return folder / path


def _standing(file: Path) -> Path:
    """The nearest folder above a file or pattern that is there."""
    return next(folder for folder in (*file.parents, file) if folder.is_dir() and not set("*?[{") & set(str(folder)))


def _tell_start(started: Started, watchers: list[Watcher], now: float, *, as_json: bool) -> None:
    from agent_jobs import render

    job = started.job
    if as_json:
        told = render.started(job, now, duplicate=started.duplicate)
        return click.echo(render.dumps(told | {"watched_by": [{"what": w.what, "pid": w.pid} for w in watchers]}))
    click.echo(job.id)
    if started.duplicate:
        click.echo(f"It does this work already: it is {job.status}.", err=True)
    return None


def _tell_watchers(job: Job, watchers: list[Watcher]) -> Job:
    """Who works on a job that is left; returns the job."""
    if watchers and not job.terminal:
        who = ", ".join(f"agent-jobs {one.what} (pid {one.pid})" for one in watchers)
        click.echo(f"Watched by {who}. {_back(job)}", err=True)
    return job


def _staying(job: Job, *, ours: bool) -> str:
    """Why a job is not left before its end."""
    if ours and job.held_open:
        return "This upstream has no background runs: the job would end with this process, which stays. Ctrl-C ends it."
    return f"No other process works on it: staying until its end. Ctrl-C leaves it. {_back(job)}"


async def _born(session: Session, job: Job, *, ours: bool) -> Job:
    """Stay until the job's POST is over, one way or the other; returns the job as it stands then."""
    deadline = session.engine.now() + BIRTH_S
    while session.engine.now() < deadline and not job.terminal and job.turn.response_id is None:
        if job.status is Status.PENDING and job.activity:
            click.echo(f"Not sent yet: {terminal.line(job.activity)}.", err=True)
            break
        job = await session.engine.poll(job.id, wait_s=1.0)
        session.detached = left([job], _back(job), ours=ours)
    return job


def _tell_estimate(estimate: Estimate) -> None:
    from agent_jobs import render

    click.echo(render.dumps(render.estimated(estimate)))


def _tell_end(ended: Job, *, as_json: bool) -> None:
    """The answer, or why there is none; leaves with the exit status that tells."""
    if as_json:
        from agent_jobs import render

        text = {"output": ended.output.text} if ended.output else {}
        click.echo(render.dumps(render.ended(ended) | text))
        raise SystemExit(exit_of(ended))
    if ended.output:
        write(ended.output.text)
    _tell_how(ended)
    raise SystemExit(exit_of(ended))


def _tell_how(ended: Job) -> None:
    """How a job ended, beside its answer."""
    count = terminal.tokens(ended)
    told = [ended.id, str(ended.status), terminal.usd(ended.cost_usd), f"{count} tokens" if count else ""]
    click.echo("  ".join(filter(None, told)), err=True)
    if ended.error is not None:
        click.echo(f"{ended.error.code}: {terminal.line(ended.error.message)}", err=True)
    if advice := terminal.advice(ended):
        click.echo(advice, err=True)


def _back(job: Job) -> str:
    return f"agent-jobs watch {job.id[:10]} comes back to it."
