"""`agent-jobs batch`: a job for each line of a file, as often as it takes and each line once."""

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import anyio
import click

from agent_jobs import file_lock
from agent_jobs.cli import terminal
from agent_jobs.cli.session import Exit, Session, call, json_option, read_settings, refusal
from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status
from agent_jobs.rendering import answers
from agent_jobs.request.body import StartRequest
from agent_jobs.settings import Settings
from agent_jobs.text_file import decode_text, marked_encoding, read_text

#: What a line may say beside its prompt, the fields of an order that may differ from line to line, and what they take.
FIELDS: Mapping[str, tuple[type, str]] = {
    "preset": (str, "a text"),
    "model": (str, "a text"),
    "effort": (str, "a text"),
    "web_search": (bool, "true or false"),
    "files": (list, "a list of paths"),
    "options": (dict, "an object"),
}
WAIT_S = 60.0
RESULTS, LOCK = "results.jsonl", ".lock"
#: Options that a line cannot take, and why.
NOT_HERE: Mapping[str, str] = {
    "dry_run": "which runs its lines: agent-jobs run --option dry_run=true tells what one would cost",
    "key": "which gives each line its own",
}
LEFT = "What was started goes on; the same command comes back to it."
LEFT_HELD = (
    "Left: what upstream runs in the background goes on, and the same command comes back to it. What this process held "
    "open ends with it: the same command writes that down as failed, and once more with --retry starts it anew."
)
LIMIT = "AGENT_JOBS_MAX_CONCURRENT"
#: Ends that another try may mend.
MENDABLE = (Status.FAILED, Status.INCOMPLETE, Status.CANCELLED, Status.EXPIRED)


@dataclass(frozen=True)
class Task:
    """One line of the file."""

    line: int
    key: str  #: under which its job exists once
    asked: Mapping[str, Any]


@dataclass
class Results:
    """The file of results, a line for each task that is over; appended to, whoever was killed before."""

    file: IO[str]
    done: dict[str, dict[str, Any]]
    statuses: Counter[str] = field(default_factory=Counter[str])
    usd: float = 0.0

    def add(self, task: Task, job: Job) -> None:
        """Write a result down."""
        row: dict[str, Any] = {"line": task.line, "key": task.key, "job_id": job.id, "status": str(job.status)}
        row |= {"output": job.output.text} if job.output else {}
        row |= {"error": {"code": job.error.code, "message": job.error.message}} if job.error else {}
        row |= {"cost_usd": job.cost_usd} if job.cost_usd is not None else {}
        self.file.write(answers.json_line(row, compact=False) + "\n")
        self.file.flush()
        self.count(row)

    def count(self, row: Mapping[str, Any]) -> None:
        """Take a result into the sums."""
        self.statuses[row["status"]] += 1
        self.usd += row.get("cost_usd") or 0.0


@click.command("batch")
@click.argument("tasks", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the results.")
@click.option("--name", help="The batch's name.  [default: the file's]")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=10, show_default=True, help="Jobs at once.")
@click.option("--retry", is_flag=True, help="Start lines anew whose results are failures.")
@json_option
def batch_command(tasks: Path, out: Path, name: str | None, concurrency: int, retry: bool, as_json: bool) -> None:
    """Run a job for each line of a file.

    A JSON line for each result is written into OUT/results.jsonl.

    A line is a JSON object with a prompt (and preset, model, effort, web_search, files, options), or a JSON string.
    Run the same command again after anything that stopped it: what is done is not done again, what runs is waited
    for. A line is known by the batch's name and what stands in it, so lines may be added and moved.

    AGENT_JOBS_MAX_CONCURRENT limits the runs upstream as well where it is set; else --concurrency does.

    Exit status: 0 all completed, otherwise that of the worst result: 3 failed or expired, 4 incomplete, 5 cancelled.
    """
    name = name or tasks.stem
    wanted = list(read_tasks(tasks, name))
    path = out / RESULTS
    with _results(out) as results:
        if retry:
            wanted = [_again(task, results.done) for task in wanted]
        left = [task for task in wanted if task.key not in results.done]
        for task in wanted:
            if task.key in results.done:
                results.count(results.done[task.key])

        async def work(session: Session) -> None:
            session.detached = LEFT
            with _bar(len(wanted), len(wanted) - len(left), as_json=as_json) as advance:
                await _work(session, name, left, concurrency, results, advance)

        roots = tuple({tasks.resolve().parent, Path.cwd()}) if any(task.asked.get("files") for task in left) else ()
        if left:
            call(work, role="works", what="batch", roots=roots, settings=_settings(min(concurrency, len(left))))
    told = {"batch": name, "results": str(path), "counts": results.statuses, "cost_usd": round(results.usd, 6)}
    counted = ", ".join(f"{count} {status}" for status, count in results.statuses.items()) or f"{tasks} has no lines"
    click.echo(
        json.dumps(told)
        if as_json
        else f"{path}: {counted}" + (f"; {terminal.usd(results.usd)}" if results.usd else "")
    )
    worst = {Status.FAILED: Exit.FAILED, Status.EXPIRED: Exit.FAILED, Status.INCOMPLETE: Exit.INCOMPLETE}
    ends = [worst.get(Status(each), Exit.CANCELLED) for each in results.statuses if each != Status.COMPLETED]
    raise SystemExit(min(ends, default=Exit.DONE))


def _settings(wanted: int) -> Settings:
    """Return what is set, with as many runs at once as are wanted; say so where the user has set fewer."""
    settings = read_settings()
    if wanted <= settings.max_concurrent:
        return settings
    if not os.environ.get(LIMIT, "").strip():
        return replace(settings, max_concurrent=wanted)
    click.echo(
        f"{LIMIT}={settings.max_concurrent} limits this batch to {settings.max_concurrent} at once: "
        f"set {LIMIT}={wanted}, or unset it.",
        err=True,
    )
    return settings


def read_tasks(path: Path, name: str) -> Iterator[Task]:
    """The tasks of a file.

    Raises:
        click.ClickException: A line is none; the message gives its number.
    """
    seen = Counter[str]()
    try:
        lines = read_text(path).split("\n")
    except UnicodeDecodeError:
        raise refusal(
            RequestError(f"{path} is not UTF-8: save it as text in UTF-8, a JSON object in each line.")
        ) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        asked = _asked(line, number)
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]
        seen[digest] += 1
        # The same line twice is two jobs.
        yield Task(number, f"{name[:100]}/{digest}/{seen[digest]}", asked)


def _asked(line: str, number: int) -> Mapping[str, Any]:
    try:
        asked: Any = json.loads(line)
    except (ValueError, RecursionError):
        asked = None
    asked = {"prompt": asked} if isinstance(asked, str) else asked
    told = cast("dict[str, Any]", asked if isinstance(asked, dict) else {})
    if not isinstance(told.get("prompt"), str):
        raise _refused(number, 'this is no JSON object with a prompt, such as {"prompt": "..."}.')
    for name, value in told.items():
        if name != "prompt" and name not in FIELDS:
            raise _refused(number, f"{name!r} is none of prompt, {', '.join(FIELDS)}.")
        if name != "prompt" and value is not None and not _fits(value, FIELDS[name][0]):
            raise _refused(number, f"{name} takes {FIELDS[name][1]}.")
    for option, why in NOT_HERE.items():
        if option in (told.get("options") or {}):
            raise _refused(number, f"options.{option} has no place in a batch, {why}.")
    return told


def _fits(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and (kind is not list or all(isinstance(each, str) for each in value))


def _refused(number: int, why: str) -> click.ClickException:
    return refusal(RequestError(f"Line {number}: {why}"))


@contextmanager
def _results(out: Path) -> Generator[Results]:
    """The results in a folder that no other batch writes into: each would take lines away from the other."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a") as guard:
        try:
            file_lock.take(guard.fileno())
        except (BlockingIOError, PermissionError):
            why = f"Another batch writes into {out}: let it end, or name another --out."
            raise refusal(RequestError(why)) from None
        except OSError:
            pass  # some file systems lock nothing
        done = _done(out / RESULTS)
        with (out / RESULTS).open("a", encoding="utf-8", newline="\n") as file:
            yield Results(file, done)


def _done(path: Path) -> dict[str, dict[str, Any]]:
    """The results that stand there, by key; what a kill cut off is taken away, and what is not known yet."""
    # Not splitlines: it takes more for line ends than JSON does.
    raw = path.read_bytes() if path.exists() else b""
    *lines, cut_off = decode_text(raw, "replace").split("\n")
    read = [(line, _row(line, path, number)) for number, line in enumerate(lines, 1)]
    # An unconfirmed start may have been adopted since; its job is asked again.
    kept = [(line, row) for line, row in read if row.get("error", {}).get("code") != "start_unconfirmed"]
    if cut_off or len(kept) < len(lines) or marked_encoding(raw):
        part = path.with_name(f".{path.name}.part")
        part.write_text("".join(f"{line}\n" for line, _ in kept), "utf-8", newline="\n")
        part.replace(path)
    return {row["key"]: {"status": row["status"], "cost_usd": row.get("cost_usd")} for _, row in kept}


def _row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row: Any = json.loads(line)
        _ = row["key"], Status(row["status"])
    except (ValueError, TypeError, KeyError):
        why = f"Line {number} of {path} is no result of a batch: move the file away, or name another --out."
        raise refusal(RequestError(why)) from None
    return row


def _again(task: Task, done: Mapping[str, dict[str, Any]]) -> Task:
    """The task under a new key, as long as its result is one that another try may mend."""
    while (row := done.get(task.key)) and row["status"] in MENDABLE:
        task = Task(task.line, f"{task.key}+", task.asked)
    return task


async def _work(
    session: Session, name: str, left: list[Task], concurrency: int, results: Results, advance: Any
) -> None:
    """Work off the tasks, so many at once; what refuses one of them ends all of it."""
    tasks = iter(left)

    async def worker() -> None:
        for task in tasks:  # shared: each takes the next
            try:
                job = await _job(session, name, task)
            except RequestError as error:
                error.args = (f"Line {task.line}: {error}",)  # some classes take more than a sentence to be made
                raise
            results.add(task, job)
            await session.engine.mark_delivered(job)
            advance(results)

    refusals: list[Exception] = []

    async def guarded(scope: anyio.CancelScope) -> None:
        try:
            await worker()
        except Exception as error:  # would leave the group as a group
            refusals.append(error)
            scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(min(concurrency, len(left))):
            group.start_soon(guarded, group.cancel_scope)
    if refusals:
        raise refusals[0]


async def _job(session: Session, name: str, task: Task) -> Job:
    """The task's job, at its end: a new one or the one that exists."""
    asked = {each: task.asked[each] for each in FIELDS if task.asked.get(each) is not None}
    options = {**asked.pop("options", {}), "key": task.key}
    order = StartRequest(prompts=[task.asked["prompt"]], batch=name[:60], options=options, **asked)
    [started] = await session.engine.start(order)
    job = started.job
    while not job.is_terminal:
        if job.is_held_open and not started.duplicate:
            session.detached = LEFT_HELD
        job = await session.engine.poll(job.id, wait_s=WAIT_S)
        if job.status is Status.INPUT_REQUIRED:
            [job] = await session.engine.cancel(JobFilter(job_ids=(job.id,)))  # nobody is there to answer
    return await session.engine.poll(job.id)


def _nothing(results: Results) -> None:
    pass


def _bar(total: int, done: int, *, as_json: bool) -> AbstractContextManager[Any]:
    """A progress bar on a terminal, where it is written over; elsewhere nothing is."""
    if as_json or not terminal.live(sys.stderr):
        return nullcontext(_nothing)
    from agent_jobs.cli.bar import bar

    return bar(total, done)
