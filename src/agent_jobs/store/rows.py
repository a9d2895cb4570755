"""A job as rows of the database, and back."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from agent_jobs.jobs.job import Job, Output, Turn
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.response import Call, Failure, Usage
from agent_jobs.jobs.status import TERMINAL, TRANSITIONS, Status


def _listed(statuses: Iterable[Status]) -> str:
    """Statuses as an SQL list."""
    return "({})".format(", ".join(f"'{status}'" for status in statuses))


#: The statuses in which something may still happen, as an SQL list.
OPEN = _listed(TRANSITIONS)
#: What takes a slot: it runs upstream, or may.
RUNNING = "('starting', 'queued', 'in_progress')"
#: The ids of the open jobs, and of those that ended since then and were not delivered. The index is named because
#: SQLite would otherwise take the one of all ended jobs, and read every job that ended since then.
_ACTIVE = f"""SELECT id FROM job WHERE status IN {OPEN}
              UNION ALL
              SELECT id FROM job INDEXED BY job_untold WHERE delivered_at IS NULL AND finished_at >= :since"""
#: What `apply` and `observe` own of a turn, and so what `save` writes.
_SAVED_OF_TURN = (
    "polls",
    "polled_at",
    "not_found_count",
    "not_found_since",
    "empty_completions",
    "stream_failures",
    "partial",
    "reasoning",
    "timed_out_at",
    "mode",
    "sent_at",
    "has_open_calls",
    "asked_at",
    "sequence_number",
)
_READ_OF_TURN = (
    *(name for name in _SAVED_OF_TURN if name != "has_open_calls"),
    "request_id",
    "base_url",
    "fingerprint",
    "attempt",
    "response_id",
)
#: Fields of a turn whose columns have other names.
_COLUMN_OF = {
    "polls": "looks",
    "polled_at": "looked_at",
    "not_found_count": "missing",
    "not_found_since": "missing_since",
    "empty_completions": "hollow",
    "stream_failures": "detached",
    "has_open_calls": "acting",
}
#: What a job is started with.
ADDED_TO_JOB = (
    "id",
    "title",
    "status",
    "created_at",
    "request_hash",
    "key",
    "priority",
    "batch",
    "previous_job_id",
    "context",
    "timeout_s",
    "reserved_usd",
    "max_cost_usd",
)
_READ_OF_JOB = (
    *(name for name in ADDED_TO_JOB if name != "status"),
    "finished_at",
    "activity",
    "observed_by",
    "cost_usd",
    "cost_before_usd",
    "delivered_at",
    "result_path",
    "cancel_requested_at",
    "running_since",
    "watched_until",
    "revision",
)


#: Read beside them, in the form in which they are stored.
_STORED_OF_JOB = ("status", "error_code", "error_message", "usage", "usage_before", "toolbox", "unsettled")
_STORED_OF_TURN = ("number", "acting", "rebuilt")
_TURN_FROM = len(_READ_OF_JOB)
_STORED_FROM = _TURN_FROM + len(_READ_OF_TURN)
#: The columns of a job and its turn as `job_of` takes them; request, text and size in bytes come after them.
COLUMNS = ", ".join(
    [
        *(f"job.{name}" for name in _READ_OF_JOB),
        *(f"turn.{_COLUMN_OF.get(name, name)}" for name in _READ_OF_TURN),
        *(f"job.{name}" for name in _STORED_OF_JOB),
        *(f"turn.{name}" for name in _STORED_OF_TURN),
    ]
)


def job_of(row: sqlite3.Row) -> Job:
    """Return the job in a row of `COLUMNS`, request, text and size."""
    # By place: a Row finds a name by comparing it with its columns one by one, which takes longer than the query.
    status, error_code, error_message, usage, usage_before, toolbox, unsettled, *of_turn = row[_STORED_FROM:]
    number, acting, rebuilt, request, text, size = of_turn
    turn = Turn(
        number=number,
        request=json.loads(request) if request is not None else {},
        has_open_calls=bool(acting),
        rebuilt=bool(rebuilt),
        **dict(zip(_READ_OF_TURN, row[_TURN_FROM:_STORED_FROM], strict=True)),
    )
    return Job(
        status=Status(status),
        error=Failure(error_code, error_message) if error_code is not None else None,
        usage=_usage(usage),
        usage_before=_usage(usage_before),
        toolbox=tuple(json.loads(toolbox)),
        output=Output(text) if text is not None else None,
        output_bytes=size or 0,
        needs_finalizing=bool(unsettled),
        turn=turn,
        **dict(zip(_READ_OF_JOB, row[:_TURN_FROM], strict=True)),
    )


def call_of(row: sqlite3.Row) -> Call:
    """What a turn asks for, in a row of call."""
    return Call(
        id=row["id"],
        kind=row["kind"],
        name=row["name"],
        arguments=row["arguments"],
        needs=row["needs"],
        state=row["state"],
        output=None if row["output"] is None else json.loads(row["output"]),
    )


def _usage(text: str | None) -> Usage | None:
    return None if text is None else Usage(**json.loads(text))


def usage_json(usage: Usage | None) -> str | None:
    """A usage as it is stored."""
    return None if usage is None else dumps({name: getattr(usage, name) for name in Usage.__slots__})


def where(group: JobFilter) -> tuple[str, dict[str, Any]]:
    """The WHERE that picks a group, and its values; built of what was asked, so that an index can serve it."""
    clauses = {
        "job.id IN (SELECT value FROM json_each(:ids))": group.job_ids,
        # The second half lets the index of those that have a batch serve it.
        "job.batch = :batch AND job.batch <> ''": group.batch,
        f"job.status IN {_listed(group.statuses)}": group.statuses,
        "job.title LIKE :words ESCAPE '\\'": group.words,
        "job.created_at >= :since": group.since and not group.active,
        f"job.id IN ({_ACTIVE})": group.active,
    }
    escaped = group.words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    values = {
        "ids": json.dumps(group.job_ids),
        "batch": group.batch,
        "words": f"%{escaped}%",
        "since": group.since,
    }
    return " AND ".join(clause for clause, asked in clauses.items() if asked) or "TRUE", values


def job_columns(job: Job) -> dict[str, Any]:
    """What `save` writes of a job."""
    return {
        "id": job.id,
        "status": job.status,
        "finished_at": job.finished_at,
        "activity": job.activity,
        "observed_by": job.observed_by,
        "error_code": job.error.code if job.error else None,
        "error_message": job.error.message if job.error else None,
        "cost_usd": job.cost_usd,
        "unsettled": job.needs_finalizing,
        "usage": usage_json(job.usage),
    }


def turn_columns(job: Job) -> dict[str, Any]:
    """What `save` writes of a turn."""
    return {"id": job.id, "number": job.turn.number} | {
        _COLUMN_OF.get(name, name): getattr(job.turn, name) for name in _SAVED_OF_TURN
    }


def dumps(value: Any) -> str:
    """Compact JSON that SQLite takes."""
    # Half a surrogate pair stays what it was in JSON: an escape.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()


def before(status: Status) -> str:
    """The statuses from which this one may be written, as an SQL list; the end of a job is written once."""
    earlier_ones = [earlier for earlier, later in TRANSITIONS.items() if status in later]
    return _listed(earlier_ones if status in TERMINAL else [*earlier_ones, status])
