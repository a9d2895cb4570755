"""Read the tasks of a batch from its file, and append its results to another."""

import hashlib
import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import click

from agent_jobs.cli.session import create_refusal
from agent_jobs.errors import RequestError
from agent_jobs.files import file_lock
from agent_jobs.files.atomic_file import replace_file
from agent_jobs.files.text_file import decode_text, find_marked_encoding, read_text
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status
from agent_jobs.rendering import answers
from agent_jobs.validation import FLAG, Kind

TEXT: Kind[str] = Kind("a string", lambda value: isinstance(value, str))
PATHS: Kind[list[str]] = Kind(
    "a list of paths", lambda value: isinstance(value, list) and all(map(TEXT.fits, cast("list[Any]", value)))
)
OBJECT: Kind[dict[str, Any]] = Kind("an object", lambda value: isinstance(value, dict))
#: Fields that a line may have.
FIELDS: Mapping[str, Kind[Any]] = {
    "prompt": TEXT,
    "preset": TEXT,
    "model": TEXT,
    "effort": TEXT,
    "web_search": FLAG,
    "files": PATHS,
    "options": OBJECT,
}
#: Options that a line cannot have, with the reason.
REFUSED_OPTIONS: Mapping[str, str] = {
    "dry_run": "because a batch runs its lines. `agent-jobs run --option dry_run=true` shows what one would cost.",
    "key": "because a batch gives each line its own key.",
}
RESULTS_NAME = "results.jsonl"
LOCK_NAME = ".lock"
#: Characters of a batch's name in a key.
KEY_NAME_CHARS = 100
#: Hexadecimal digits of a line's hash in a key: 96 bits have no collisions.
DIGEST_CHARS = 24
#: Results that `--retry` starts again.
RETRIED = (Status.FAILED, Status.INCOMPLETE, Status.CANCELLED, Status.EXPIRED)


@dataclass(frozen=True)
class BatchTask:
    """One line of the file."""

    line: int
    key: str  #: at most one job exists with it
    fields: Mapping[str, Any]


@dataclass
class Results:
    """The file of results, with a line for each finished task. Lines are only appended, so a kill loses none."""

    file: IO[str]
    done: dict[str, dict[str, Any]]
    statuses: Counter[str] = field(default_factory=Counter[str])
    usd: float = 0.0

    def add(self, task: BatchTask, job: Job) -> None:
        """Append the result of a task."""
        facts = {
            "line": task.line,
            "key": task.key,
            "job_id": job.id,
            "status": str(job.status),
            "output": job.output and job.output.text,
            "error": job.error and {"code": job.error.code, "message": job.error.message},
            "cost_usd": job.cost_usd,
        }
        row = {name: value for name, value in facts.items() if value is not None}
        self.file.write(answers.format_json_line(row, compact=False) + "\n")
        self.file.flush()
        self.count(row)

    def count(self, row: Mapping[str, Any]) -> None:
        """Add a result to the totals."""
        self.statuses[row["status"]] += 1
        self.usd += row.get("cost_usd") or 0.0


def read_tasks(path: Path, name: str) -> Iterator[BatchTask]:
    """Yield the tasks of a file.

    Raises:
        click.ClickException: A line is no task; the message has its number.
    """
    seen = Counter[str]()
    for number, line in enumerate(_read_task_lines(path), 1):
        if not line.strip():
            continue
        fields = _parse_line(line, number)
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:DIGEST_CHARS]
        seen[digest] += 1
        # The count makes two jobs of two equal lines.
        yield BatchTask(number, f"{name[:KEY_NAME_CHARS]}/{digest}/{seen[digest]}", fields)


def find_retry(task: BatchTask, done: Mapping[str, dict[str, Any]]) -> BatchTask:
    """Return the task under its first key without a failure."""
    while done.get(task.key, {}).get("status") in RETRIED:
        task = BatchTask(task.line, f"{task.key}+", task.fields)
    return task


@contextmanager
def open_results(out: Path) -> Generator[Results]:
    """Open the results in a folder. No other batch may write there, because each would remove lines of the other."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK_NAME).open("a") as guard:
        try:
            file_lock.take(guard.fileno())
        except (BlockingIOError, PermissionError):
            reason = f"Another batch writes to {out}. Wait until it finishes, or name another --out."
            raise create_refusal(RequestError(reason)) from None
        except OSError:
            pass  # some file systems cannot lock
        done = _load_results(out / RESULTS_NAME)
        with (out / RESULTS_NAME).open("a", encoding="utf-8", newline="\n") as file:
            yield Results(file, done)


def _read_task_lines(path: Path) -> list[str]:
    try:
        return read_text(path).split("\n")
    except UnicodeDecodeError:
        raise create_refusal(
            RequestError(f"{path} is not UTF-8. Save it as UTF-8 text with one JSON object a line.")
        ) from None


def _parse_line(line: str, number: int) -> Mapping[str, Any]:
    """Return the fields of a line; refuse a line that is no task."""
    fields = _decode_line(line)
    if not isinstance(fields.get("prompt"), str):
        raise _refuse_line(number, 'this is not a JSON object with a prompt, such as {"prompt": "..."}.')
    if not fields["prompt"].strip():
        raise _refuse_line(number, "prompt is empty.")
    for name, value in fields.items():
        _check_field(number, name, value)
    for option, reason in REFUSED_OPTIONS.items():
        if option in (fields.get("options") or {}):
            raise _refuse_line(number, f"the option {option} is not allowed in a batch, {reason}")
    return fields


def _decode_line(line: str) -> dict[str, Any]:
    """Return a line as an object; an empty one if it is neither an object nor a string."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    match value:
        case str():
            return {"prompt": value}
        case dict():
            return cast("dict[str, Any]", value)
        case _:
            return {}


def _check_field(number: int, name: str, value: Any) -> None:
    if name not in FIELDS:
        raise _refuse_line(number, f"{name!r} is none of {', '.join(FIELDS)}.")
    if value is not None and not FIELDS[name].fits(value):
        raise _refuse_line(number, f"{name} accepts {FIELDS[name].accepts}.")


def _refuse_line(number: int, reason: str) -> click.ClickException:
    return create_refusal(RequestError(f"Line {number}: {reason}"))


def _load_results(path: Path) -> dict[str, dict[str, Any]]:
    """Return the results of earlier runs by their keys; remove a line that a kill cut off, and unconfirmed starts."""
    if not path.exists():
        return {}
    raw = path.read_bytes()
    # splitlines() would also split at characters that JSON allows within a string.
    *lines, cut_off = decode_text(raw, "replace").split("\n")
    kept: list[str] = []
    done: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        row = _parse_result(line, path, number)
        # The job of an unconfirmed start may have been adopted since, so it is polled again.
        if row.get("error", {}).get("code") != "start_unconfirmed":
            kept.append(line)
            done[row["key"]] = {"status": row["status"], "cost_usd": row.get("cost_usd")}
    if cut_off or kept != lines or find_marked_encoding(raw):
        replace_file(path, "\n".join([*kept, ""]).encode())
    return done


def _parse_result(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row: Any = json.loads(line)
        _ = row["key"], Status(row["status"])
    except (ValueError, TypeError, KeyError):
        reason = f"Line {number} of {path} is not a result of a batch. Move the file away, or name another --out."
        raise create_refusal(RequestError(reason)) from None
    return row
