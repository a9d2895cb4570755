"""Write the rows of a job inside a transaction."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from agent_jobs.jobs.job import Job, Output, Turn
from agent_jobs.jobs.response import Call, calls_of, items_of
from agent_jobs.store.database import Transaction
from agent_jobs.store.rows import (
    compact_json,
    diff_job,
    diff_turn,
    is_visible_change,
    turn_columns,
    turn_spending,
)
from agent_jobs.text import encode_text

#: Columns of a job whose change also changes those of its current turn.
_SPENDING_COLUMNS = frozenset({"usage", "cost_usd"})


@lru_cache
def write_insert(table: str, columns: tuple[str, ...]) -> str:
    """Return the statement that inserts a row."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"


@lru_cache
def insert_job_unless(columns: tuple[str, ...], same: str) -> str:
    """Return the statement that inserts a job, unless an identical one exists."""
    return f"""INSERT INTO job ({", ".join(columns)}) SELECT {", ".join(f":{name}" for name in columns)}
               WHERE NOT EXISTS (SELECT 1 FROM job WHERE {same}) RETURNING id"""


async def write_change(transaction: Transaction, old: Job, new: Job) -> None:
    """Write what differs between two states of a job."""
    output = _new_output(old, new)
    job_columns_now = diff_job(old, new)
    turn_columns_now = _diff_current_turn(old, new, job_columns_now)
    if is_visible_change(job_columns_now) or turn_columns_now or output is not None:
        job_columns_now["revision"] = max(new.revision, old.revision + 1)
    await _update_job_row(transaction, new.id, job_columns_now)
    if new.turn.number != old.turn.number:
        await insert_turn(transaction, new)
    else:
        await _update_turn_row(transaction, old, new, turn_columns_now)
    if old.is_terminal and (output is not None or not new.is_terminal):
        await transaction.remove_from_search(new.id)
    if output is not None:
        await _write_output(transaction, new, output)
    await write_steps(transaction, new)


def _diff_current_turn(old: Job, new: Job, job_columns_now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the current turn that differ; none if the change begins another turn."""
    if new.turn.number != old.turn.number:
        return {}
    columns = diff_turn(old.turn, new.turn)
    if job_columns_now.keys().isdisjoint(_SPENDING_COLUMNS):
        return columns
    return columns | turn_spending(new)


async def write_steps(transaction: Transaction, *jobs: Job) -> None:
    """Store what was seen of the current turns' steps; the time at which a step was first seen stays."""
    steps = [{"job_id": job.id, **step._asdict()} for job in jobs for step in job.turn.steps]
    if not steps:
        return
    await transaction.execute_each(
        """INSERT INTO step (job_id, turn, position, kind, name, detail, error, seen_at, finished_at)
           VALUES (:job_id, :turn, :position, :kind, :name, :detail, :error, :seen_at, :finished_at)
           ON CONFLICT (job_id, turn, position) DO UPDATE
           SET kind = excluded.kind, name = excluded.name, detail = excluded.detail, error = excluded.error,
               finished_at = COALESCE(step.finished_at, excluded.finished_at)""",
        steps,
    )


def _new_output(old: Job, new: Job) -> Output | None:
    """Return the output that a change adds with its response, or None."""
    if new.output is old.output or new.output is None or new.output.response is None:
        return None
    return new.output


async def _update_job_row(transaction: Transaction, job_id: str, columns: dict[str, Any]) -> None:
    if columns:
        await transaction.execute(f"UPDATE job SET {_set_clause(columns)} WHERE id = :id", id=job_id, **columns)


async def _update_turn_row(transaction: Transaction, old: Job, new: Job, columns: dict[str, Any]) -> None:
    """Write these columns of the current turn, and its request if it is another one."""
    if columns:
        await transaction.execute(
            f"UPDATE turn SET {_set_clause(columns)} WHERE job_id = :id AND number = :turn_number",
            id=new.id,
            turn_number=new.turn.number,
            **columns,
        )
    if new.turn.request is not old.turn.request:
        await transaction.execute(
            "UPDATE request SET body = :body WHERE job_id = :id AND turn = :number",
            id=new.id,
            number=new.turn.number,
            body=compact_json(new.turn.request),
        )


def _set_clause(columns: dict[str, Any]) -> str:
    return ", ".join(f"{name} = :{name}" for name in columns)


async def insert_turn(transaction: Transaction, job: Job) -> None:
    """Insert the job's current turn with its request."""
    columns = turn_columns(job.turn) | {"job_id": job.id}
    await transaction.execute(write_insert("turn", tuple(columns)), **columns)
    await transaction.execute(
        "INSERT INTO request (job_id, turn, body) VALUES (:job_id, :turn, :body)",
        job_id=job.id,
        turn=job.turn.number,
        body=compact_json(job.turn.request),
    )


async def _write_output(transaction: Transaction, job: Job, output: Output) -> None:
    """Write the output of a turn, and the calls that it asks for."""
    await transaction.execute(
        """INSERT INTO output (job_id, turn, text, bytes, response) VALUES (:id, :turn, :text, :bytes, :response)
           ON CONFLICT (job_id, turn) DO UPDATE
           SET text = excluded.text, bytes = excluded.bytes, response = excluded.response""",
        id=job.id,
        turn=job.turn.number,
        text=output.text,
        bytes=len(encode_text(output.text)),
        response=compact_json(output.response),
    )
    if not job.turn.has_open_calls:
        return
    asked = calls_of(items_of((output.response or {}).get("output")))
    await transaction.execute_each(
        """INSERT INTO call (job_id, turn, id, kind, name, arguments, needs, state, position)
           VALUES (:job_id, :turn, :id, :kind, :name, :arguments, :needs, :state, :position)
           ON CONFLICT (job_id, turn, id) DO NOTHING""",
        [
            {
                "job_id": job.id,
                "turn": job.turn.number,
                "id": call.id,
                "kind": call.kind,
                "name": call.name,
                "arguments": call.arguments,
                "needs": call.needs,
                "state": call.state,
                "position": position,
            }
            for position, call in enumerate(asked)
        ],
    )


async def has_open_questions(transaction: Transaction, job_id: str, number: int) -> bool:
    """Return True if a call of this turn waits for the user or the caller."""
    return bool(
        await transaction.execute(
            """SELECT 1 FROM call WHERE job_id = :id AND turn = :number AND state = 'open'
               AND needs IN ('approval', 'output') LIMIT 1""",
            id=job_id,
            number=number,
        )
    )


async def are_all_open(transaction: Transaction, job: Job, calls: Sequence[Call]) -> bool:
    """Return True if none of these calls was answered yet."""
    rows = await transaction.execute(
        "SELECT id FROM call WHERE job_id = :id AND turn = :number AND state = 'open'",
        id=job.id,
        number=job.turn.number,
    )
    return {call.id for call in calls} <= {row["id"] for row in rows}


async def has_uploads(transaction: Transaction, job_id: str) -> bool:
    """Return True if the job has uploaded files, which have to be removed here and at the provider."""
    return bool(await transaction.execute("SELECT 1 FROM upload WHERE job_id = :id LIMIT 1", id=job_id))


def call_values(job: Job, call: Call) -> dict[str, Any]:
    """Return the values of a call's row that change."""
    return {
        "job_id": job.id,
        "turn": job.turn.number,
        "id": call.id,
        "state": call.state,
        "output": None if call.output is None else compact_json(call.output),
    }


def progress_values(turn: Turn) -> dict[str, Any]:
    """Return the values of a turn's row that a stream changes."""
    return {
        "number": turn.number,
        "partial": turn.partial,
        "reasoning": turn.reasoning,
        "stream_failures": turn.stream_failures,
        "sequence_number": turn.sequence_number,
    }
