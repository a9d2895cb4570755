"""Map a job to the rows of the database, and back. A new field of a job is added here and to both schemas."""

import json
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from agent_jobs.jobs.job import Job, Output, Turn
from agent_jobs.jobs.queries import JobFilter, SortKey, TurnRecord
from agent_jobs.jobs.response import Call, Failure, Usage
from agent_jobs.jobs.status import ACTIVE, RUNNING, Status
from agent_jobs.store.database import Row


def format_statuses(statuses: Iterable[Status]) -> str:
    """Return statuses as an SQL list, in the order of their declaration."""
    members = frozenset(statuses)
    return "({})".format(", ".join(f"'{status}'" for status in Status if status in members))


#: The statuses in which something may still happen, as an SQL list.
ACTIVE_SQL = format_statuses(ACTIVE)
#: The statuses that use a slot, as an SQL list.
RUNNING_SQL = format_statuses(RUNNING)
#: The ids of the active jobs, and of those that ended since then and were not delivered. The index is named because
#: SQLite would otherwise use the index of all ended jobs, and read every job that ended since then.
_ACTIVE_IDS = f"""SELECT id FROM job WHERE status IN {ACTIVE_SQL}
                  UNION ALL
                  SELECT id FROM job INDEXED BY job_untold WHERE delivered_at IS NULL AND finished_at >= :since"""

#: The ids of the finished jobs whose results no reader received.
_UNREAD_IDS = "SELECT id FROM job WHERE delivered_at IS NULL AND finished_at IS NOT NULL"
#: The order of the statuses in a list: first what waits for the user, then what runs, then failures, then the rest.
_STATUS_RANKS = (
    Status.INPUT_REQUIRED,
    Status.IN_PROGRESS,
    Status.QUEUED,
    Status.STARTING,
    Status.PENDING,
    Status.FAILED,
    Status.EXPIRED,
    Status.INCOMPLETE,
    Status.CANCELLED,
    Status.COMPLETED,
)
_STATUS_RANK = "CASE job.status {} END".format(
    " ".join(f"WHEN '{each}' THEN {n}" for n, each in enumerate(_STATUS_RANKS))
)
#: What each order sorts by, before the time of creation.
_SORTED_BY: Mapping[SortKey, str] = {
    "created": "",
    "cost": "COALESCE(job.cost_usd, -1) DESC, ",
    "duration": "COALESCE(job.finished_at, :now) - job.created_at DESC, ",
    "status": f"{_STATUS_RANK}, ",
}

#: Fields of a job that are stored unchanged. First those that are written only for a new job.
_FIELDS_OF_NEW_JOB = (
    "id",
    "owner",
    "title",
    "created_at",
    "request_hash",
    "key",
    "priority",
    "batch",
    "previous_job_id",
    "timeout_s",
    "max_cost_usd",
    "model",
    "effort",
    "preset",
    "client",
    "callback_url",
    "trace_parent",
)
#: Then those that change. `delivered_at`, `watched_until` and the claim are also written by statements of their own.
_FIELDS_OF_JOB = (
    "context",
    "reserved_usd",
    "finished_at",
    "activity",
    "observed_by",
    "cost_usd",
    "cost_before_usd",
    "delivered_at",
    "read_at",
    "result_path",
    "cancel_requested_at",
    "running_since",
    "watched_until",
    "revision",
    "claimed_by",
    "due_at",
    "not_before",
)
#: Read with each job, but written only by the statement that reclaims jobs.
_FIELDS_OF_CLAIM = ("lost_claims",)
#: Columns of a job in another form than its fields.
_CODED_OF_JOB = (
    "status",
    "error_code",
    "error_message",
    "usage",
    "usage_before",
    "toolbox",
    "always_allowed",
    "unsettled",
)
#: Fields of a turn that stand in their columns as they are.
_FIELDS_OF_TURN = (
    "request_id",
    "base_url",
    "fingerprint",
    "mode",
    "attempt",
    "sent_at",
    "response_id",
    "sequence_number",
    "polls",
    "polled_at",
    "not_found_count",
    "not_found_since",
    "empty_completions",
    "stream_failures",
    "timed_out_at",
    "asked_at",
    "partial",
    "reasoning",
)
#: Columns of a turn in another form than its fields: numbers for True and False.
_CODED_OF_TURN = ("number", "acting", "rebuilt")
#: Columns that have another name than their field.
_COLUMN_OF = {
    "claimed_by": "holder",
    "due_at": "next_at",
    "polls": "looks",
    "polled_at": "looked_at",
    "not_found_count": "missing",
    "not_found_since": "missing_since",
    "empty_completions": "hollow",
    "stream_failures": "detached",
}
#: The columns of the fields that change, and functions that read these fields: each change compares them all.
_COLUMNS_OF_JOB = tuple(_COLUMN_OF.get(name, name) for name in _FIELDS_OF_JOB)
_COLUMNS_OF_TURN = tuple(_COLUMN_OF.get(name, name) for name in _FIELDS_OF_TURN)
_read_job_fields = attrgetter(*_FIELDS_OF_JOB)
_read_turn_fields = attrgetter(*_FIELDS_OF_TURN)
_READ_OF_JOB = _FIELDS_OF_NEW_JOB + _FIELDS_OF_JOB + _FIELDS_OF_CLAIM
#: Changes of these are no change that a reader sees: they say which process works on the job, and when.
_CLAIM_COLUMNS = frozenset({"holder", "next_at", "not_before", "watched_until", "delivered_at", "read_at"})

#: Where the columns of the turn begin in a row, and those in another form.
_TURN_FROM = len(_READ_OF_JOB)
_CODED_FROM = _TURN_FROM + len(_FIELDS_OF_TURN)
#: The columns of a job and its turn as `job_of` takes them. Request, text and size in bytes come after them.
COLUMNS = ", ".join(
    [
        *(f"job.{_COLUMN_OF.get(name, name)}" for name in _READ_OF_JOB),
        *(f"turn.{_COLUMN_OF.get(name, name)}" for name in _FIELDS_OF_TURN),
        *(f"job.{name}" for name in _CODED_OF_JOB),
        *(f"turn.{name}" for name in _CODED_OF_TURN),
    ]
)


def job_of(row: Row) -> Job:
    """Return the job in a row of `COLUMNS`, request, text and size."""
    # By place: SQLite's Row finds a name by comparing it with each column, which takes longer than the query.
    status, error_code, error_message, usage, usage_before, toolbox, allowed, unsettled, *of_turn = row[_CODED_FROM:]
    number, acting, rebuilt, request, text, size = of_turn
    turn = Turn(
        number=number,
        request=json.loads(request) if request is not None else {},
        has_open_calls=bool(acting),
        rebuilt=bool(rebuilt),
        **dict(zip(_FIELDS_OF_TURN, row[_TURN_FROM:_CODED_FROM], strict=True)),
    )
    return Job(
        status=Status(status),
        error=Failure(error_code, error_message) if error_code is not None else None,
        usage=_parse_usage(usage),
        usage_before=_parse_usage(usage_before),
        toolbox=tuple(json.loads(toolbox)),
        always_allowed=tuple(json.loads(allowed)),
        output=Output(text) if text is not None else None,
        output_bytes=size or 0,
        needs_finalizing=bool(unsettled),
        turn=turn,
        **dict(zip(_READ_OF_JOB, row[:_TURN_FROM], strict=True)),
    )


def call_of(row: Row) -> Call:
    """Return the call in a row of its table."""
    return Call(
        id=row["id"],
        kind=row["kind"],
        name=row["name"],
        arguments=row["arguments"],
        needs=row["needs"],
        state=row["state"],
        output=None if row["output"] is None else json.loads(row["output"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _parse_usage(text: str | None) -> Usage | None:
    if text is None:
        return None
    return Usage(**json.loads(text))


def turn_record_of(row: Row) -> TurnRecord:
    """Return the turn in a row of its table."""
    return TurnRecord(
        number=row["number"],
        mode=row["mode"],
        sent_at=row["sent_at"],
        response_id=row["response_id"],
        usage=_parse_usage(row["usage"]),
        cost_usd=row["cost_usd"],
    )


def _usage_json(usage: Usage | None) -> str | None:
    if usage is None:
        return None
    return compact_json({name: getattr(usage, name) for name in Usage.__slots__})


def job_columns(job: Job) -> dict[str, Any]:
    """Return the columns of a new job."""
    columns = {_COLUMN_OF.get(name, name): getattr(job, name) for name in _READ_OF_JOB}
    return columns | {
        "status": job.status,
        "toolbox": compact_json(list(job.toolbox)),
        "usage_before": _usage_json(job.usage_before),
        "turn": job.turn.number,
    }


def turn_columns(turn: Turn) -> dict[str, Any]:
    """Return the columns of a new turn."""
    columns = {_COLUMN_OF.get(name, name): getattr(turn, name) for name in _FIELDS_OF_TURN}
    return columns | {"number": turn.number, "acting": turn.has_open_calls, "rebuilt": turn.rebuilt}


def diff_job(old: Job, new: Job) -> dict[str, Any]:
    """Return the columns of a job that differ, with their new values."""
    pairs = zip(_COLUMNS_OF_JOB, _read_job_fields(old), _read_job_fields(new), strict=True)
    columns = {column: new_value for column, old_value, new_value in pairs if new_value != old_value}
    return columns | _diff_coded_columns(old, new)


def _diff_coded_columns(old: Job, new: Job) -> dict[str, Any]:
    """Return the same for the columns that have another form than their fields."""
    columns: dict[str, Any] = {}
    if new.status is not old.status:
        columns["status"] = new.status
    if new.error != old.error:
        columns |= _error_columns(new.error)
    if _has_usage_changed(new.usage, old.usage):
        columns["usage"] = _usage_json(new.usage)
    if _has_usage_changed(new.usage_before, old.usage_before):
        columns["usage_before"] = _usage_json(new.usage_before)
    if new.always_allowed != old.always_allowed:
        columns["always_allowed"] = compact_json(list(new.always_allowed))
    if new.needs_finalizing != old.needs_finalizing:
        columns["unsettled"] = new.needs_finalizing
    if new.turn.number != old.turn.number:
        columns["turn"] = new.turn.number
    return columns


def _error_columns(error: Failure | None) -> dict[str, Any]:
    if error is None:
        return {"error_code": None, "error_message": None}
    return {"error_code": error.code, "error_message": error.message}


def diff_turn(old: Turn, new: Turn) -> dict[str, Any]:
    """Return the columns of a turn that differ, with their new values."""
    pairs = zip(_COLUMNS_OF_TURN, _read_turn_fields(old), _read_turn_fields(new), strict=True)
    columns = {column: new_value for column, old_value, new_value in pairs if new_value != old_value}
    if new.has_open_calls != old.has_open_calls:
        columns["acting"] = new.has_open_calls
    if new.rebuilt != old.rebuilt:
        columns["rebuilt"] = new.rebuilt
    return columns


def turn_spending(job: Job) -> dict[str, Any]:
    """Return the columns with the tokens and the cost of a job's current turn."""
    return {"usage": _usage_json(job.turn_usage), "cost_usd": job.turn_cost_usd}


def is_visible_change(columns: Mapping[str, Any]) -> bool:
    """Return True if one of these changed columns of a job is more than its claim."""
    return not columns.keys() <= _CLAIM_COLUMNS


def _has_usage_changed(new: Usage | None, old: Usage | None) -> bool:
    """Return True if a usage changed; whether it is partial does not count when usages are compared."""
    return new != old or (new is not None and old is not None and new.partial != old.partial)


def build_where(group: JobFilter) -> tuple[str, dict[str, Any]]:
    """Return the WHERE of a filter, and its values; it has only the set conditions, so that an index can serve it."""
    clauses = {
        "job.id IN (:*ids)": group.job_ids,
        # The second half lets the index of those that have a batch serve it.
        "job.batch = :batch AND job.batch <> ''": group.batch,
        f"job.status IN {format_statuses(group.statuses)}": group.statuses,
        "lower(job.title) LIKE lower(:words) ESCAPE '\\'": group.words,
        "job.created_at >= :since": group.since and not group.active,
        f"job.id IN ({_ACTIVE_IDS})": group.active,
        f"job.id IN ({_UNREAD_IDS})": group.unread,
        "LOWER(job.model) LIKE :model ESCAPE '\\'": group.model,
        "job.preset = :preset": group.preset,
        "LOWER(job.client) LIKE :client ESCAPE '\\'": group.client,
        "job.owner = :owner AND job.owner <> ''": group.owner,
        "job.owner = ''": group.owner == "",
        "job.previous_job_id = :previous_job_id": group.previous_job_id,
    }
    values = {
        "ids": group.job_ids,
        "batch": group.batch,
        "words": f"%{escape_like(group.words)}%",
        "since": group.since,
        "model": f"{escape_like(group.model.lower())}%",
        "preset": group.preset,
        "client": f"{escape_like(group.client.lower())}%",
        "owner": group.owner,
        "previous_job_id": group.previous_job_id,
    }
    return " AND ".join(clause for clause, asked in clauses.items() if asked) or "TRUE", values


def build_order_by(key: SortKey) -> str:
    """Return the ORDER BY of a list of jobs; in it, `:now` is the end of an active job."""
    return f"ORDER BY {_SORTED_BY[key]}job.created_at DESC, job.id"


def escape_like(text: str) -> str:
    """Return the text as part of a LIKE pattern whose escape character is a backslash."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def compact_json(value: Any) -> str:
    """Return compact JSON that a database accepts."""
    # Half a surrogate pair stays an escape, as in JSON.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()
