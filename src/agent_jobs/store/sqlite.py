"""The store on SQLite: one file, one connection, many processes.

House rules, each learnt the hard way: every access takes the one lock, since a statement that lands inside another
task's BEGIN...COMMIT shares its fate; rows are always fetched to the end, since an open cursor keeps the database
locked; what must go together is shielded, since a task cancelled between BEGIN and COMMIT leaves the connection in
a transaction; the worker thread is no daemon, so it is closed on every path.
"""

import json
import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import anyio

from agent_jobs.errors import BudgetError, StoreError
from agent_jobs.group import Database, Group, Watcher
from agent_jobs.job import JSON, NEXT, TERMINAL, Failure, Job, Mode, Output, Status, Turn, Usage
from agent_jobs.store import NO_LIMIT, Budget, Event, Made, Mark, Tombstone, Upload
from agent_jobs.store.holder import Holder, alone
from agent_jobs.store.moved import carry_over, check_database, identity
from agent_jobs.store.schema import migrate, write_ahead

logger = logging.getLogger(__name__)

#: How often a waiter looks whether another process wrote.
OTHERS_S = 0.2
PURGED_AT_ONCE = 50
#: A job that nobody holds is never due later than this from now, as clocks go that agree.
FREE_AHEAD_S = 120.0
#: How often to try to go on in another file.
SETTLE_AGAIN_S = 1.0

_JOB = """SELECT job.*, turn.*, output.text, output.bytes FROM job
          JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
          LEFT JOIN output ON output.job_id = job.id AND output.turn = job.turn"""
#: The same without what may be large; of two columns of a name the first counts.
_HEAD = _JOB.replace("job.*, turn.*, output.text", "'{}' AS request, NULL AS text, job.*, turn.*", 1)
#: Another process may hold a job, and a job at another endpoint can only be looked at by a process that talks to it.
_MINE = """(holder IS NULL OR holder = :me) AND turn.job_id = job.id AND turn.number = job.turn
           AND turn.base_url = :base_url"""
#: A job of another key is left to a process that has that key for so long.
_WHEN = "next_at + CASE WHEN turn.fingerprint IN ('', :fingerprint) THEN 0 ELSE 30 END"
#: The job that answers for a start of the same work: one that goes on, a result that nobody was handed yet, or a
#: start that may be running unknown to us. A caller's own key decides alone, and for ever.
_SAME = """CASE WHEN :key IS NOT NULL THEN job.key = :key
                ELSE NOT :allow_duplicate AND :request_hash <> '' AND job.request_hash = :request_hash AND (
                    job.status NOT IN ('completed', 'incomplete', 'failed', 'cancelled', 'expired')
                    OR job.status = 'completed' AND job.delivered_at IS NULL AND job.finished_at > :created_at - 600
                    OR job.error_code = 'start_unconfirmed') END"""
#: Something lies at the provider that is to be removed.
_UPLOADED = "EXISTS (SELECT 1 FROM upload WHERE job_id = job.id AND file_id IS NOT NULL)"
_OPEN = "({})".format(", ".join(f"'{status}'" for status in NEXT))


@asynccontextmanager
async def open_sqlite(folder: Path, busy_timeout_s: float) -> AsyncGenerator["SQLiteStore"]:
    """Open `jobs.db` in this folder, bring its schema up to date, and hold a lock as this process."""
    with _told(folder):
        _make(folder / "jobs.db")
        holder = Holder(folder / "run")
    try:
        with _told(folder):
            store = SQLiteStore(await _connect(folder / "jobs.db", busy_timeout_s), holder, folder, busy_timeout_s)
        try:
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()
    finally:
        holder.close()


async def _connect(path: Path, busy_timeout_s: float) -> aiosqlite.Connection:
    """A connection to this file, which is made if need be and has the schema of this version then."""
    _make(path)
    db = aiosqlite.connect(path, isolation_level=None, timeout=busy_timeout_s)
    try:
        # A connect that is cancelled leaves its thread behind, and a migration a transaction.
        with anyio.CancelScope(shield=True):
            await db
            await migrate(db, path)
        db.row_factory = sqlite3.Row
        await write_ahead(db, busy_timeout_s)
        await db.execute_fetchall("PRAGMA synchronous = FULL")
        await db.execute_fetchall("PRAGMA foreign_keys = ON")
        await db.execute_fetchall("SELECT 1 FROM job LIMIT 1")  # now its log stands beside it
    except BaseException:
        with anyio.CancelScope(shield=True):
            await db.close()
        raise
    return db


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(path.parent) as ours:
        if ours and not path.exists():
            # What is left of a database that was removed, perhaps while another server has it open, must not be taken
            # for ours: SQLite would empty the one's log and write it into the other.
            for beside in _beside(path):
                beside.unlink(missing_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _beside(path: Path) -> list[Path]:
    """The log of a database and the index of its log."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


class SQLiteStore:
    """See `Store` for what each method promises."""

    def __init__(self, db: aiosqlite.Connection, holder: Holder, folder: Path, busy_timeout_s: float) -> None:
        self._db = db
        self._holder = holder
        self._folder = folder
        self._path = folder / "jobs.db"
        self._busy_timeout_s = busy_timeout_s
        self._file, *self._log = self._identities()
        #: Why our file is not where it was, and no other can take its jobs; and when to try that again.
        self._adrift: StoreError | None = None
        self._settle_at = 0.0
        self._log_left = False
        self._lock = anyio.Lock()
        self._stirred: dict[str, anyio.Event] = {}
        self._any_stirred = anyio.Event()
        self._changes = 0  #: committed by this process

    async def add(
        self, *jobs: Job, allow_duplicate: bool = False, budget: Budget | None = None, uploads: Sequence[Upload] = ()
    ) -> list[Job | None]:
        existing: list[Job | None] = []
        async with self._changing(spending=True):
            existing += [await self._add(job, allow_duplicate, uploads) for job in jobs]
            if budget is not None and None in existing:
                spent = await self._spent(budget.since)
                if spent > budget.usd:
                    raise BudgetError(
                        f"The day's budget of {budget.usd:g} USD does not allow it: with this, up to {spent:.2f} USD "
                        "would be spent. Bound it lower with options.max_output_tokens, or ask the user to raise "
                        "AGENT_JOBS_DAILY_BUDGET_USD."
                    )
        return existing

    async def _add(self, job: Job, allow_duplicate: bool, uploads: Sequence[Upload]) -> Job | None:
        """Inside a change: write a job down, or read the one that answers for it."""
        columns = {name: getattr(job, name) for name in _ADDED_TO_JOB}
        added = await self._execute(
            f"""INSERT INTO job (turn, holder, {", ".join(columns)})
                SELECT :turn, :me, {", ".join(f":{name}" for name in columns)}
                WHERE NOT EXISTS (SELECT 1 FROM job WHERE {_SAME}) RETURNING id""",
            **columns,
            allow_duplicate=allow_duplicate,
            turn=job.turn.number,
            me=self._holder.name,
        )
        if not added:
            rows = await self._execute(
                f"{_JOB} WHERE {_SAME} ORDER BY job.created_at DESC LIMIT 1",
                **{name: columns[name] for name in ("key", "request_hash", "created_at")},
                allow_duplicate=allow_duplicate,
            )
            return self._job(rows[0])
        await self._execute(
            """INSERT INTO turn (job_id, number, request, request_id, base_url, fingerprint)
               VALUES (:job_id, :number, :request, :request_id, :base_url, :fingerprint)""",
            job_id=job.id,
            number=job.turn.number,
            request=_dumps(job.turn.request),
            request_id=job.turn.request_id,
            base_url=job.turn.base_url,
            fingerprint=job.turn.fingerprint,
        )
        for upload in uploads:
            await self._execute(
                "INSERT INTO upload (job_id, name, data) VALUES (:id, :name, :data)",
                id=job.id,
                name=upload.name,
                data=upload.data,
            )
        return None

    async def get(self, job_id: str) -> Job | None:
        rows = await self._fetch(f"{_JOB} WHERE job.id = :id", id=job_id)
        return self._job(rows[0]) if rows else None

    async def output(self, job_id: str) -> Output | None:
        rows = await self._fetch(
            "SELECT text, response FROM output WHERE job_id = :id ORDER BY turn DESC LIMIT 1", id=job_id
        )
        return Output(rows[0]["text"], json.loads(rows[0]["response"])) if rows else None

    async def find(self, group: Group, limit: int) -> list[Job]:
        where, values = _of_group(group)
        rows = await self._fetch(
            f"{_HEAD} WHERE {where} ORDER BY job.created_at DESC, job.id LIMIT :limit", **values, limit=limit
        )
        return [self._job(row) for row in rows]

    async def ids(self, prefix: str, limit: int) -> list[str]:
        rows = await self._fetch(
            "SELECT id FROM job WHERE id >= :prefix AND id < :prefix || char(1114111) ORDER BY id LIMIT :limit",
            prefix=prefix,
            limit=limit,
        )
        return [row["id"] for row in rows]

    async def counts(self, group: Group) -> dict[Status, int]:
        where, values = _of_group(group)
        rows = await self._fetch(f"SELECT status, COUNT(*) AS n FROM job WHERE {where} GROUP BY status", **values)
        return {Status(row["status"]): row["n"] for row in rows}

    async def spent(self, since: float) -> float:
        with _told(self._folder):
            async with self._lock:
                return await self._spent(since)

    async def thread(self, job_id: str) -> list[tuple[JSON, JSON]]:
        rows = await self._fetch(
            """WITH RECURSIVE thread (id, previous, depth) AS (
                   SELECT id, CASE context WHEN 'rebuilt' THEN NULL ELSE previous_job_id END, 0
                   FROM job WHERE id = :id
                   UNION ALL
                   SELECT thread.previous, CASE context WHEN 'rebuilt' THEN NULL ELSE previous_job_id END, depth + 1
                   FROM thread LEFT JOIN job ON job.id = thread.previous WHERE thread.previous IS NOT NULL)
               SELECT turn.request, output.response FROM thread LEFT JOIN turn ON turn.job_id = thread.id
               LEFT JOIN output ON output.job_id = thread.id AND output.turn = turn.number
               ORDER BY depth DESC, turn.number""",
            id=job_id,
        )
        if any(row["request"] is None or row["response"] is None for row in rows):
            return []
        return [(json.loads(row["request"]), json.loads(row["response"])) for row in rows]

    async def uploads(self, job_id: str) -> list[Upload]:
        rows = await self._fetch("SELECT name, data, file_id FROM upload WHERE job_id = :id ORDER BY name", id=job_id)
        return [Upload(**row) for row in rows]

    async def uploaded(self, job_id: str, name: str, file_id: str) -> None:
        async with self._changing():
            await self._execute(
                "UPDATE upload SET file_id = :file_id, data = x'' WHERE job_id = :id AND name = :name",
                id=job_id,
                name=name,
                file_id=file_id,
            )

    async def rewrite(self, job: Job) -> bool:
        async with self._changing(job.id):
            won = await self._execute(
                """UPDATE job SET context = :context, revision = revision + 1
                   WHERE id = :id AND status = 'pending' AND holder = :me RETURNING id""",
                id=job.id,
                context=job.context,
                me=self._holder.name,
            )
            await self._execute(
                "UPDATE turn SET request = :request WHERE job_id = :id AND number = :number",
                id=job.id,
                number=job.turn.number,
                request=_dumps(job.turn.request),
            )
            if not won:
                raise _SomeoneWasFirst
        return bool(won)

    async def begin(self, job: Job, limit: int = NO_LIMIT) -> bool:
        async with self._changing(job.id, spending=True):
            won = await self._execute(
                """UPDATE job SET status = 'starting', activity = '', revision = revision + 1
                   WHERE id = :id AND status = 'pending' AND holder = :me AND cancel_requested_at IS NULL
                     AND (SELECT COUNT(*) FROM job WHERE status IN ('starting', 'queued', 'in_progress')) < :limit
                   RETURNING id""",
                id=job.id,
                me=self._holder.name,
                limit=limit,
            )
            await self._execute(
                """UPDATE turn SET attempt = :attempt, sent_at = :sent_at, mode = :mode
                   WHERE job_id = :id AND number = :number""",
                id=job.id,
                number=job.turn.number,
                attempt=job.turn.attempt,
                mode=job.turn.mode,
                sent_at=job.turn.sent_at,
            )
            if not won:
                raise _SomeoneWasFirst
        return bool(won)

    async def attach(self, job_id: str, number: int, response_id: str, now: float) -> Job | None:
        async with self._changing(job_id):
            await self._execute(
                """UPDATE turn SET response_id = :response_id
                   WHERE job_id = :id AND number = :number AND response_id IS NULL""",
                id=job_id,
                number=number,
                response_id=response_id,
            )
            await self._execute(
                """UPDATE job SET status = 'queued', activity = '', error_code = NULL, error_message = NULL,
                                  finished_at = NULL, unsettled = 0, delivered_at = NULL,
                                  revision = revision + 1,
                                  next_at = CASE WHEN holder IS NULL THEN :now ELSE next_at END
                   WHERE id = :id AND (status IN ('pending', 'starting') OR (
                       status = 'failed' AND error_code IN ('start_unconfirmed', 'endpoint_lost')))""",
                id=job_id,
                now=now,
            )
        return await self.get(job_id)

    async def save(self, job: Job, *, held: bool = True) -> Job | None:
        saved = False
        async with self._changing(job.id):
            saved = bool(
                await self._execute(
                    f"""UPDATE job SET status = :status, finished_at = :finished_at, activity = :activity,
                               observed_by = :observed_by, usage = :usage,
                               error_code = :error_code, error_message = :error_message,
                               cost_usd = COALESCE(:cost_usd, cost_usd), unsettled = :unsettled,
                               holder = CASE WHEN :ended THEN NULL ELSE holder END,
                               next_at = CASE WHEN :ended AND :unsettled THEN :finished_at
                                              WHEN :ended THEN NULL ELSE next_at END,
                               revision = revision + 1
                        WHERE id = :id AND status IN {_before(job.status)} AND (holder = :me OR NOT :held)
                        RETURNING id""",
                    **_job_columns(job),
                    ended=job.terminal,
                    me=self._holder.name,
                    held=held,
                )
            )
            if not saved:
                raise _SomeoneWasFirst
            await self._execute(
                """UPDATE turn SET looks = :looks, looked_at = :looked_at, missing = :missing,
                          missing_since = :missing_since, hollow = :hollow, detached = :detached, partial = :partial,
                          timed_out_at = :timed_out_at, mode = :mode,
                          sequence_number = MAX(COALESCE(sequence_number, :sequence_number),
                                                COALESCE(:sequence_number, sequence_number))
                   WHERE job_id = :id AND number = :number""",
                **_turn_columns(job),
            )
            if job.output is not None and job.output.response is not None:
                await self._execute(
                    """INSERT INTO output (job_id, turn, text, bytes, response)
                       VALUES (:id, :turn, :text, :bytes, :response)
                       ON CONFLICT DO UPDATE SET text = excluded.text, bytes = excluded.bytes,
                                                 response = excluded.response""",
                    id=job.id,
                    turn=job.turn.number,
                    text=job.output.text,
                    bytes=len(job.output.text.encode("utf-8", "replace")),
                    response=_dumps(job.output.response),
                )
        return await self.get(job.id) if saved else None

    async def request_cancel(self, job_id: str, now: float) -> Job | None:
        async with self._changing(job_id):
            await self._execute(
                f"""UPDATE job SET cancel_requested_at = COALESCE(cancel_requested_at, :now),
                           finished_at = CASE status WHEN 'pending' THEN :now ELSE finished_at END,
                           cost_usd = CASE status WHEN 'pending' THEN 0 ELSE cost_usd END,
                           unsettled = status = 'pending' AND {_UPLOADED},
                           next_at = CASE WHEN status <> 'pending' THEN next_at WHEN {_UPLOADED} THEN :now END,
                           holder = CASE status WHEN 'pending' THEN NULL ELSE holder END,
                           status = CASE status WHEN 'pending' THEN 'cancelled' ELSE status END,
                           activity = CASE status WHEN 'pending' THEN '' ELSE activity END,
                           revision = revision + 1
                    WHERE id = :id AND status IN {_OPEN}""",
                id=job_id,
                now=now,
            )
        return await self.get(job_id)

    async def claim_cancel(self, job_id: str, now: float, again_after_s: float) -> bool:
        async with self._changing(job_id):
            won = await self._execute(
                """UPDATE job SET cancel_sent_at = :now
                   WHERE id = :id AND (cancel_sent_at IS NULL OR cancel_sent_at <= :before) RETURNING id""",
                id=job_id,
                now=now,
                before=now - again_after_s,
            )
        return bool(won)

    async def forget_cancel(self, job_id: str) -> None:
        async with self._changing(job_id):
            await self._execute("UPDATE job SET cancel_sent_at = NULL WHERE id = :id", id=job_id)

    async def watch(self, job_id: str, now: float, until: float) -> None:
        async with self._changing(job_id):
            await self._execute(
                f"""UPDATE job SET watched_until = MAX(watched_until, :until),
                           next_at = MIN(next_at, MAX(:now, not_before, 1 + COALESCE(
                               (SELECT COALESCE(looked_at, sent_at) FROM turn
                                WHERE job_id = job.id AND number = job.turn), 0)))
                    WHERE id = :id AND status IN {_OPEN}""",
                id=job_id,
                now=now,
                until=until,
            )

    async def schedule(self, job_id: str, now: float, after_s: float, not_before_s: float = 0.0) -> None:
        async with self._changing(job_id):
            await self._execute(
                f"""UPDATE job SET not_before = :not_before, next_at = MAX(:not_before,
                           CASE WHEN watched_until > :now THEN MIN(:at, :now + 5) ELSE :at END)
                    WHERE id = :id AND holder = :me AND (status IN {_OPEN} OR unsettled)""",
                id=job_id,
                me=self._holder.name,
                now=now,
                at=now + after_s,
                not_before=now + not_before_s,
            )

    async def let_go(self, job_id: str, at: float) -> None:
        async with self._changing(job_id):
            await self._execute(
                f"""UPDATE job SET holder = NULL, next_at = :at, not_before = :at
                    WHERE id = :id AND holder = :me AND status IN {_OPEN}""",
                id=job_id,
                me=self._holder.name,
                at=at,
            )

    async def due(self, now: float, base_url: str, fingerprint: str = "") -> list[str]:
        async with self._changing():
            rows = await self._execute(
                f"""UPDATE job SET holder = :me, next_at = NULL
                    WHERE next_at <= :now AND EXISTS (SELECT 1 FROM turn WHERE {_MINE} AND {_WHEN} <= :now)
                    RETURNING id""",
                now=now,
                me=self._holder.name,
                base_url=base_url,
                fingerprint=fingerprint,
            )
        return [row["id"] for row in rows]

    async def mode(self, base_url: str, model: str, since: float) -> Mode | None:
        rows = await self._fetch(
            "SELECT mode FROM mode WHERE base_url = :base_url AND model = :model AND learned_at > :since",
            base_url=base_url,
            model=model,
            since=since,
        )
        return rows[0]["mode"] if rows else None

    async def learn(self, base_url: str, model: str, mode: Mode, now: float, answer: str) -> None:
        async with self._changing():
            await self._execute(
                """INSERT INTO mode (base_url, model, mode, learned_at, answer)
                   VALUES (:base_url, :model, :mode, :now, :answer)
                   ON CONFLICT DO UPDATE SET mode = excluded.mode, learned_at = excluded.learned_at,
                                             answer = excluded.answer""",
                base_url=base_url,
                model=model,
                mode=mode,
                now=now,
                answer=answer,
            )

    async def purge(self, before: float) -> list[Job]:
        old = f"job.finished_at < :before AND job.status NOT IN {_OPEN}"
        rows = await self._fetch(f"{_JOB} WHERE {old} LIMIT {PURGED_AT_ONCE}", before=before)
        for row in rows:
            async with self._changing(row["id"]):
                await self._execute(
                    f"""INSERT INTO tombstone (job_id, status, finished_at)
                        SELECT id, status, finished_at FROM job WHERE id = :id AND {old} ON CONFLICT DO NOTHING""",
                    id=row["id"],
                    before=before,
                )
                await self._execute(f"DELETE FROM job WHERE id = :id AND {old}", id=row["id"], before=before)
        return [self._job(row) for row in rows]

    async def claim_lost(self, base_url: str, *, sent_before: float, created_before: float) -> list[str]:
        async with self._changing():
            rows = await self._execute(
                f"""UPDATE job SET holder = :me, next_at = NULL
                    WHERE holder IS NULL AND status IN {_OPEN} AND EXISTS (
                        SELECT 1 FROM turn WHERE turn.job_id = job.id AND turn.number = job.turn
                        AND turn.base_url <> :base_url
                        AND (sent_at < :sent_before OR sent_at IS NULL AND created_at < :created_before))
                    RETURNING id""",
                me=self._holder.name,
                base_url=base_url,
                sent_before=sent_before,
                created_before=created_before,
            )
        return [row["id"] for row in rows]

    async def tombstone(self, job_id: str) -> Tombstone | None:
        rows = await self._fetch("SELECT status, finished_at FROM tombstone WHERE job_id = :id", id=job_id)
        return Tombstone(rows[0]["status"], rows[0]["finished_at"]) if rows else None

    async def park(self, job_id: str, activity: str) -> None:
        async with self._changing(job_id):
            await self._execute(
                """UPDATE job SET holder = NULL, next_at = NULL, activity = :activity, revision = revision + 1
                   WHERE id = :id AND status = 'pending' AND holder = :me""",
                id=job_id,
                me=self._holder.name,
                activity=activity,
            )

    async def unpark(self, base_url: str, limit: int) -> list[str]:
        async with self._changing():
            rows = await self._execute(
                """UPDATE job SET holder = :me WHERE id IN (
                       SELECT id FROM job
                       WHERE status = 'pending' AND next_at IS NULL AND holder IS NULL
                         AND EXISTS (SELECT 1 FROM turn WHERE job_id = job.id AND base_url = :base_url)
                       ORDER BY priority DESC, created_at
                       LIMIT MAX(0, :limit - (SELECT COUNT(*) FROM job
                                              WHERE status IN ('starting', 'queued', 'in_progress'))))
                   RETURNING id""",
                me=self._holder.name,
                base_url=base_url,
                limit=limit,
            )
        return [row["id"] for row in rows]

    async def ahead(self, job: Job) -> int:
        rows = await self._fetch(
            """SELECT COUNT(*) AS n FROM job WHERE status = 'pending'
               AND (priority > :priority OR priority = :priority AND created_at < :created_at)""",
            priority=job.priority,
            created_at=job.created_at,
        )
        return rows[0]["n"]

    async def deliver(self, job_ids: Sequence[str], now: float) -> None:
        async with self._changing():
            await self._execute(
                f"""UPDATE job SET delivered_at = :now
                    WHERE id IN (SELECT value FROM json_each(:ids)) AND delivered_at IS NULL
                      AND status NOT IN {_OPEN}""",
                ids=json.dumps(list(job_ids)),
                now=now,
            )

    async def settle(self, job_id: str, result_path: str = "", made: Sequence[Made] = ()) -> None:
        async with self._changing(job_id):
            await self._execute(
                f"""UPDATE job SET unsettled = 0, result_path = :result_path, holder = NULL, next_at = NULL,
                           revision = revision + 1
                    WHERE id = :id AND status NOT IN {_OPEN}""",
                id=job_id,
                result_path=result_path,
            )
            await self._execute("DELETE FROM upload WHERE job_id = :id", id=job_id)
            for file in made:
                await self._execute(
                    "INSERT OR REPLACE INTO made (job_id, name, path, bytes) VALUES (:id, :name, :path, :bytes)",
                    id=job_id,
                    name=file.name,
                    path=file.path,
                    bytes=file.bytes,
                )

    async def made(self, job_id: str) -> list[Made]:
        rows = await self._fetch("SELECT name, path, bytes FROM made WHERE job_id = :id ORDER BY name", id=job_id)
        return [Made(**row) for row in rows]

    async def next_at(self, base_url: str, fingerprint: str = "") -> float | None:
        rows = await self._fetch(
            f"SELECT MIN({_WHEN}) AS at FROM job, turn WHERE next_at IS NOT NULL AND {_MINE}",
            me=self._holder.name,
            base_url=base_url,
            fingerprint=fingerprint,
        )
        return rows[0]["at"]

    async def take_over(self, now: float) -> int:
        # The process that freed a job may have had another time.
        await self._fetch(
            "UPDATE job SET next_at = :now WHERE holder IS NULL AND next_at > :now + :ahead_s RETURNING id",
            now=now,
            ahead_s=FREE_AHEAD_S,
        )
        others = await self._fetch(
            "SELECT DISTINCT holder FROM job WHERE holder IS NOT NULL AND holder <> :me", me=self._holder.name
        )
        return sum([await self._free(row["holder"], now) for row in others if self._holder.dead(row["holder"])])

    async def release(self, now: float) -> None:
        await self._free(self._holder.name, now)

    async def announce(self, what: str, base_url: str) -> None:
        with _told(self._folder):
            self._holder.tell({"what": what, "base_url": base_url})

    async def about(self) -> Database:
        schema = (await self._fetch("PRAGMA user_version"))[0][0]
        journal = (await self._fetch("PRAGMA journal_mode"))[0][0]
        with _told(self._folder):
            size = sum(path.stat().st_size for path in (self._path, *_beside(self._path)) if path.exists())
            others = self._holder.others().items()
        watchers = tuple(
            Watcher(int(name.partition("-")[0]), str(said.get("what")), str(said.get("base_url")))
            for name, said in others
        )
        return Database(str(self._path), schema, journal, size, watchers)

    async def record(self, job_id: str, at: float, kind: str, text: str = "") -> None:
        async with self._changing():
            await self._execute(
                "INSERT INTO event (job_id, at, kind, text) VALUES (:id, :at, :kind, :text)",
                id=job_id,
                at=at,
                kind=kind,
                text=text,
            )

    async def events(self, job_id: str) -> list[Event]:
        rows = await self._fetch("SELECT at, kind, text FROM event WHERE job_id = :id ORDER BY at", id=job_id)
        return [Event(row["at"], row["kind"], row["text"]) for row in rows]

    async def changed(self, job_id: str, revision: int) -> None:
        while True:
            stirred = self._stirred.setdefault(job_id, anyio.Event())
            version = await self._data_version()
            rows = await self._fetch("SELECT revision FROM job WHERE id = :id", id=job_id)
            if not rows or rows[0]["revision"] != revision:
                return
            while not stirred.is_set() and version == await self._data_version():
                with anyio.move_on_after(OTHERS_S):
                    await stirred.wait()

    async def mark(self) -> Mark:
        return self._changes, await self._data_version()

    async def moved(self, mark: Mark) -> None:
        while mark == await self.mark():
            with anyio.move_on_after(OTHERS_S):
                await self._any_stirred.wait()

    async def _spent(self, since: float) -> float:
        rows = await self._execute(
            "SELECT SUM(COALESCE(cost_usd, reserved_usd, 0.0)) AS usd FROM job WHERE created_at >= :since", since=since
        )
        return rows[0]["usd"] or 0.0

    def _job(self, row: sqlite3.Row) -> Job:
        try:
            return _job(row)
        except (ValueError, TypeError) as error:  # SQLite checks the shape of a page, not what stands in it
            raise StoreError(f"{_damaged(self._folder)} ({error})") from error

    async def _free(self, holder: str, now: float) -> int:
        async with self._changing():
            rows = await self._execute(
                f"""UPDATE job SET holder = NULL, next_at = :now
                    WHERE holder = :holder AND (status IN {_OPEN} OR unsettled) RETURNING id""",
                holder=holder,
                now=now,
            )
        return len(rows)

    async def close(self) -> None:
        """Close the database; nothing else may be called then."""
        await self._db.close()

    async def _settle(self) -> None:
        """Where our file was removed or replaced, go on in the one that stands there now, with all our jobs."""
        there = identity(self._path)
        if there is not None and there == self._file:
            if not self._log_left:  # else it came back without its log: closing it puts the two together
                self._adrift = None
            return
        if anyio.current_time() < self._settle_at:
            return
        self._settle_at = anyio.current_time() + SETTLE_AGAIN_S
        try:
            with _told(self._folder):
                check_database(self._path)
                self._leave_log()
                self._holder.stay()
                await self._move()
        except StoreError as error:
            known = self._adrift is not None
            self._adrift = StoreError(
                f"{self._path} was removed or replaced; jobs that run go on, new ones wait: {error}"
            )
            if not known:
                logger.error("%s", self._adrift)

    async def _move(self) -> None:
        db = await _connect(self._path, self._busy_timeout_s)
        try:
            await carry_over(self._db, self._path, self._holder.name)
        except BaseException:
            await db.close()
            raise
        left, self._db = self._db, db
        self._file, *self._log = self._identities()
        self._adrift, self._log_left = None, False
        await left.close()
        logger.warning("%s was removed or replaced; its jobs were written into the file that is there now", self._path)

    def _leave_log(self) -> None:
        """Take our log away from the place where it would be taken for that of another file; we have it open."""
        for path, ours in zip(_beside(self._path), self._log, strict=True):
            if ours is not None and identity(path) == ours:
                path.unlink()
                self._log_left = True

    def _identities(self) -> list[tuple[int, int] | None]:
        return [identity(path) for path in (self._path, *_beside(self._path))]

    async def _data_version(self) -> int:
        """A number that moves when another connection commits; this connection's own writes do not move it."""
        return (await self._fetch("PRAGMA data_version"))[0][0]

    async def _fetch(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        with _told(self._folder):
            async with self._lock:
                return await self._execute(sql, **values)

    async def _execute(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        # SQLite takes only whole characters, and upstream may cut one in half.
        whole = {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in values.items()}
        return list(await self._db.execute_fetchall(sql, whole))

    def _stir(self, job_id: str) -> None:
        """Wake who waits for this job, and who waits for any."""
        if stirred := self._stirred.pop(job_id, None):
            stirred.set()
        self._changes += 1
        self._any_stirred.set()
        self._any_stirred = anyio.Event()

    @asynccontextmanager
    async def _changing(self, job_id: str | None = None, *, spending: bool = False) -> AsyncGenerator[None]:
        """All statements inside are written or none; waiters for the job wake after the commit."""
        with _told(self._folder), anyio.CancelScope(shield=True):
            async with self._lock:
                await self._settle()
                if spending and self._adrift is not None:
                    raise self._adrift  # what is written here now goes when this process goes
                await self._execute("BEGIN IMMEDIATE")
                try:
                    yield
                    await self._execute("COMMIT")
                except BaseException as error:
                    # A failed COMMIT may have rolled back by itself.
                    if self._db.in_transaction:
                        await self._execute("ROLLBACK")
                    if not isinstance(error, _SomeoneWasFirst):
                        raise
        if job_id is not None:
            self._stir(job_id)


class _SomeoneWasFirst(Exception):
    """Leaves a change unmade; zero rows is a normal answer."""


@contextmanager
def _told(folder: Path) -> Generator[None]:
    """Turn what SQLite and the file system raise into one sentence that says what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a defect of ours: no folder is to blame
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{_advice(error, folder)} ({error})") from error


def _advice(error: Exception, folder: Path) -> str:
    words = str(error)
    if "locked" in words or "busy" in words:
        return f"The database in {folder} is locked by another program: close it, then try again"
    if "full" in words or "No space" in words:
        return f"The disk of {folder} is full: free some space, then try again; no job is lost"
    if "malformed" in words or "not a database" in words:
        return _damaged(folder)
    return f"The database in {folder} cannot be used: make the folder writable or set AGENT_JOBS_DATA_DIR to another"


def _damaged(folder: Path) -> str:
    return f"{folder / 'jobs.db'} is damaged: move it away, or set AGENT_JOBS_DATA_DIR to another folder"


def _before(status: Status) -> str:
    """The statuses from which this one may be written, as an SQL list; the end of a job is written once."""
    before = [earlier for earlier, later in NEXT.items() if status in later]
    return "({})".format(", ".join(f"'{s}'" for s in (before if status in TERMINAL else [*before, status])))


#: What `apply` and `observe` own of a turn, and so what `save` writes.
_SAVED_OF_TURN = (
    "looks",
    "looked_at",
    "missing",
    "missing_since",
    "hollow",
    "detached",
    "partial",
    "timed_out_at",
    "mode",
    "sequence_number",
)
_READ_OF_TURN = (*_SAVED_OF_TURN, "request_id", "base_url", "fingerprint", "attempt", "sent_at", "response_id")
#: What a job is started with.
_ADDED_TO_JOB = (
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
)
_READ_OF_JOB = (
    *(name for name in _ADDED_TO_JOB if name != "status"),
    "finished_at",
    "activity",
    "observed_by",
    "cost_usd",
    "delivered_at",
    "result_path",
    "cancel_requested_at",
    "watched_until",
    "revision",
)


def _job(row: sqlite3.Row) -> Job:
    return Job(
        status=Status(row["status"]),
        error=Failure(row["error_code"], row["error_message"]) if row["error_code"] is not None else None,
        usage=Usage(**json.loads(row["usage"])) if row["usage"] is not None else None,
        output=Output(row["text"]) if row["text"] is not None else None,
        output_bytes=row["bytes"] or 0,
        unsettled=bool(row["unsettled"]),
        **{name: row[name] for name in _READ_OF_JOB},
        turn=Turn(
            number=row["number"],
            request=json.loads(row["request"]),
            **{name: row[name] for name in _READ_OF_TURN},
        ),
    )


def _of_group(group: Group) -> tuple[str, dict[str, Any]]:
    """The WHERE that picks a group, and its values; built of what was asked, so that an index can serve it."""
    clauses = {
        "job.id IN (SELECT value FROM json_each(:ids))": group.job_ids,
        "job.batch = :batch": group.batch,
        "job.status IN (SELECT value FROM json_each(:statuses))": group.statuses,
        "job.title LIKE :words ESCAPE '\\'": group.words,
        "job.created_at >= :since": group.since and not group.active,
        f"(job.status IN {_OPEN} OR job.delivered_at IS NULL AND job.finished_at >= :since)": group.active,
    }
    escaped = group.words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    values = {
        "ids": json.dumps(group.job_ids),
        "batch": group.batch,
        "statuses": json.dumps(sorted(group.statuses)),
        "words": f"%{escaped}%",
        "since": group.since,
    }
    return " AND ".join(clause for clause, asked in clauses.items() if asked) or "TRUE", values


def _job_columns(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "finished_at": job.finished_at,
        "activity": job.activity,
        "observed_by": job.observed_by,
        "error_code": job.error.code if job.error else None,
        "error_message": job.error.message if job.error else None,
        "cost_usd": job.cost_usd,
        "unsettled": job.unsettled,
        "usage": _dumps({name: getattr(job.usage, name) for name in Usage.__slots__}) if job.usage else None,
    }


def _turn_columns(job: Job) -> dict[str, Any]:
    return {"id": job.id, "number": job.turn.number} | {name: getattr(job.turn, name) for name in _SAVED_OF_TURN}


def _dumps(value: Any) -> str:
    # Half a surrogate pair stays what it was in JSON: an escape.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()
