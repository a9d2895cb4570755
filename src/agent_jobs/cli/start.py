"""The commands that start jobs: run and start."""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from stat import S_ISFIFO, S_ISREG, S_ISSOCK
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from anyio import CancelScope
from click.shell_completion import CompletionItem

from agent_jobs.cli import terminal
from agent_jobs.cli.jobs import write
from agent_jobs.cli.session import JobId, Session, call, exit_of, json_option
from agent_jobs.cli.watch import announce_pending, display, follow, left
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.engine.engine import Started
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Estimate, WorkerInfo
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import Status
from agent_jobs.settings import Settings
from agent_jobs.text_file import decode_text

if TYPE_CHECKING:  # imported once a job is asked for
    from agent_jobs.request.body import StartRequest

T = TypeVar("T")

#: A POST is waited for so long before a process leaves: until upstream names the id, the run would be lost with it.
BIRTH_S = 900.0
#: Seconds until a pipe on stdin that brings nothing counts as inherited: hosts and ssh leave one open.
PIPE_WAIT_S = 3.0


class PresetName(click.ParamType[str]):
    """A preset's name, completed from ours and the user's own."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, with what each is for."""
        from agent_jobs.request.body import load_presets

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
            click.option("--new", is_flag=True, help="Start another job, whatever identical ones there are."),
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

    The same work is not started twice: an identical job is waited for, unless --new is given. Ctrl-C leaves the job
    running, where upstream has background runs.
    Exit status: 0 completed, 1 nothing was started, 3 failed or expired, 4 incomplete, 5 cancelled.
    """
    asked_for, roots = _order(asked)

    async def run(order: "StartRequest", may_ask: bool, session: Session) -> "Estimate | _Finished":
        order = await _meant(session, order)
        if order.options.get("dry_run"):
            return await session.engine.estimate(order)
        started = await _submit(session, order, may_ask=may_ask)
        job = started.job
        if not started.duplicate:
            click.echo(f"Sending {job.id}.", err=True)
            job = await _confirm_start(session, job)
        await announce_pending(session, job.id)
        session.app.work()
        session.detached = left([job], _back(job), ours=not started.duplicate)
        with display(sys.stderr, one=True) as shown:
            await follow(session, [job.id], shown, back=_back(job), ours=not started.duplicate)
        job = await session.engine.poll(job.id)
        await session.engine.mark_delivered(job)
        return _Finished(job, await session.engine.open_calls(job))

    finished = _call_asking(run, asked_for, what="run", roots=roots, as_json=as_json)
    _tell_estimate(finished) if isinstance(finished, Estimate) else _tell_end(finished, as_json=as_json)


@click.command("start")
@order_options
@click.option("--wait", is_flag=True, help="Stay until it ends, so that the result is collected here.")
@click.option("--detach", is_flag=True, hidden=True, help="What it does anyway.")
def start_command(as_json: bool, wait: bool, detach: bool, **asked: Any) -> None:
    """Start a job and print its id.

    What is piped in is appended to PROMPT; PROMPT - is stdin alone.

    It leaves once upstream has named the response, and says which process collects the result. Where upstream has no
    background runs it stays until the end, and Ctrl-C ends the job.
    Exit status: 0 it was started, 1 nothing was; where it ended meanwhile, that of run.
    """
    if wait and detach:
        raise click.UsageError("Give --wait or --detach.")
    asked_for, roots = _order(asked)

    async def start(order: "StartRequest", may_ask: bool, session: Session) -> "Estimate | Job":
        order = await _meant(session, order)
        if order.options.get("dry_run"):
            return await session.engine.estimate(order)
        started = await _submit(session, order, may_ask=may_ask)
        job, ours = started.job, not started.duplicate
        click.echo(job.id, err=as_json)
        if ours:
            job = await _confirm_start(session, job)
        watchers = await session.engine.other_workers()
        if as_json:
            _show_start_as_json(started._replace(job=job), watchers, session.engine.now())
        held = ours and job.is_held_open
        if not (wait or held) or job.is_terminal:
            return _show_collector(job, [] if as_json else watchers)
        click.echo(_staying(job, ours=ours), err=True)
        await announce_pending(session, job.id)
        session.app.work()
        with display(sys.stderr, one=True) as shown:
            [ended] = await follow(session, [job.id], shown, back=_back(job), ours=ours)
        return ended

    started = _call_asking(start, asked_for, what="start", roots=roots, as_json=as_json)
    if isinstance(started, Estimate):
        _tell_estimate(started)
    elif started.is_terminal:
        _tell_how(started)
        if started.output_bytes:
            click.echo(f"agent-jobs result {started.id[:10]} shows what it brought.", err=True)
        raise SystemExit(exit_of(started))


class _Finished(NamedTuple):
    """A job that ended or asks for something, and the calls that wait for an answer."""

    job: Job
    open_calls: list[Call]


class _UnconfirmedStart(Exception):
    """An identical job's start is unconfirmed, and the user can be asked what to do."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


def _call_asking(
    work: "Callable[[StartRequest, bool, Session], Awaitable[T]]",
    order: "StartRequest",
    *,
    what: str,
    roots: tuple[Path, ...],
    as_json: bool,
) -> T:
    """Run a command that starts a job; ask a person at a terminal before an unconfirmed start answers for it."""
    may_ask = sys.stdin.isatty() and not as_json
    try:
        return call(partial(work, order, may_ask), role="acts", what=what, roots=roots)
    except _UnconfirmedStart as found:
        job = found.job
    click.echo(f"{job.id} asked for the same, and its start is unconfirmed. {terminal.advice(job)}", err=True)
    with raise_on_ctrl_c():  # the terminal has to be set back
        if click.confirm("Send the prompt again, which may be paid twice?", err=True):
            order = _allowing_duplicate(order)
    return call(partial(work, order, False), role="acts", what=what, roots=roots)


async def _submit(session: Session, order: "StartRequest", *, may_ask: bool) -> Started:
    """Write the job down and launch it, or return the identical one; Ctrl-C is held back from here on.

    Raises:
        _UnconfirmedStart: The user is to be asked first.
    """
    planned = await session.engine.plan(order)
    session.is_starting = True
    [started] = await session.engine.submit(planned)
    job = started.job
    if not started.duplicate:
        session.detached = left([job], _back(job), ours=True)
        return started
    if may_ask and job.is_unconfirmed:
        raise _UnconfirmedStart(job)
    state = "failed (start_unconfirmed)" if job.is_unconfirmed else str(job.status)
    click.echo(f"An identical job, {job.id}, is already {state}. --new starts another.", err=True)
    session.detached = left([job], _back(job))
    session.finish_starting()
    return started


def _allowing_duplicate(order: "StartRequest") -> "StartRequest":
    """Return the order of a job of its own, whatever identical jobs there are."""
    return replace(order, options={**order.options, "allow_duplicate": True})


async def _confirm_start(session: Session, job: Job) -> Job:
    """Wait until upstream named the response or the start is over; return the job as it stands then.

    Raises:
        Interrupted: Ctrl-C was pressed meanwhile.
    """
    deadline = session.engine.now() + BIRTH_S
    try:
        while session.engine.now() < deadline and not job.is_terminal and job.turn.response_id is None:
            job = await session.engine.wait_for_response_id(job, wait_s=1.0)
            if job.status is Status.PENDING and job.activity:
                click.echo(f"Not sent yet: {terminal.line(job.activity)}.", err=True)
                break
        while session.engine.is_deciding(job.id):
            job = await session.engine.poll(job.id, wait_s=0.2)
    finally:
        # The row is read again, since a user who leaves must hear whether the request was sent.
        with CancelScope(shield=True), suppress(AgentJobsError):
            job = await session.engine.wait_for_response_id(job, wait_s=0.0)
        session.detached = left([job], _back(job), ours=True)
    session.finish_starting()
    return job


def _order(asked: dict[str, Any]) -> "tuple[StartRequest, tuple[Path, ...]]":
    """What the command line asks for, and the folders that it opens by naming files."""
    from agent_jobs.request.body import StartRequest

    prompt = _stdin() if asked["prompt"] == "-" else asked["prompt"]
    if asked["prompt"] != "-" and (piped := _piped()).strip():
        prompt = f"{prompt}\n\n{piped}"
    files = [_named(each) for each in asked["files"]]
    order = StartRequest(
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
    if asked["new"]:
        order = _allowing_duplicate(order)
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
        return decode_text(read).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"stdin is not UTF-8 (byte {error.start + 1}): save it as text in UTF-8.") from None


async def _meant(session: Session, order: "StartRequest") -> "StartRequest":
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


def _show_start_as_json(started: Started, watchers: list[WorkerInfo], now: float) -> None:
    from agent_jobs.rendering import answers

    shown = answers.started(started.job, now, duplicate=started.duplicate)
    click.echo(answers.json_line(shown | {"watched_by": [{"what": w.what, "pid": w.pid} for w in watchers]}))


def _show_collector(job: Job, watchers: list[WorkerInfo]) -> Job:
    """Say which process collects the result of a job that goes on; returns the job."""
    if job.is_terminal:
        return job
    who = ", ".join(f"agent-jobs {one.what} (pid {one.pid})" for one in watchers)
    watched = f"Watched by {who}." if who else "No process watches it; the next host or `agent-jobs watch` collects it."
    click.echo(f"{watched} {_back(job)}", err=True)
    return job


def _staying(job: Job, *, ours: bool) -> str:
    """Why a job is not left before its end."""
    if ours and job.is_held_open:
        return "This upstream has no background runs: the job would end with this process, which stays. Ctrl-C ends it."
    return f"Staying until its end. Ctrl-C leaves it. {_back(job)}"


def _tell_estimate(estimate: Estimate) -> None:
    from agent_jobs.rendering import answers

    click.echo(answers.json_line(answers.estimated(estimate)))


def _tell_end(finished: _Finished, *, as_json: bool) -> None:
    """Write the answer, or why there is none; leaves with the exit status that tells."""
    job = finished.job
    if as_json:
        _write_end_as_json(finished)
        raise SystemExit(exit_of(job))
    if job.output:
        write(job.output.text)
    _tell_how(job)
    raise SystemExit(exit_of(job))


def _write_end_as_json(finished: _Finished) -> None:
    from agent_jobs.rendering import answers

    job = finished.job
    if job.is_terminal:
        text = {"output": job.output.text} if job.output else {}
        return click.echo(answers.json_line(answers.ended(job) | text))
    asked = answers.asking(job, finished.open_calls, may_approve=True)
    return click.echo(answers.json_line(asked | {"next": f"agent-jobs reply {job.id}"}))


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
