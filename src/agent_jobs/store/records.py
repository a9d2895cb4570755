"""The store on SQLite: what `Store` promises, as statements."""

import json
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agent_jobs.errors import BudgetError
from agent_jobs.jobs.job import Job, Mode
from agent_jobs.jobs.response import JSON, Call, calls_of, items_of
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import NO_LIMIT, Budget, OutputFile, Place, Upload
from agent_jobs.store.database import LostRace, Statement, open_database
from agent_jobs.store.questions import JOB, PAID, REFUSED, SPENT, Questions
from agent_jobs.store.queue import Queue
from agent_jobs.store.rows import ADDED_TO_JOB, OPEN, RUNNING, before, dumps, job_columns, turn_columns, usage_json

PURGED_AT_ONCE = 50
#: Under a caller's own key there is one job, for ever. Without one, these answer for a start of the same work: a job
#: that goes on, a result that nobody was handed yet, or a start that may be running unknown to us. The endpoint belongs
#: to the work: a prompt that went to a wrong address is sent again once the address is right.
_SAME_KEY = "job.key = :key"
_SAME_WORK = f"""job.request_hash = :request_hash AND (
                     job.status IN {OPEN}
                     OR job.status = 'completed' AND job.delivered_at IS NULL AND job.finished_at > :created_at - 600
                     OR job.error_code = 'start_unconfirmed')
                 AND EXISTS (SELECT 1 FROM turn WHERE turn.job_id = job.id AND turn.number = job.turn
                             AND turn.base_url = :base_url)"""
#: Where nothing runs upstream, so that a cancel ends the job.
_IDLE = "('pending', 'input_required')"
#: A cursor never falls.
_CURSOR = """sequence_number = MAX(COALESCE(sequence_number, :sequence_number),
                                   COALESCE(:sequence_number, sequence_number))"""
#: Somebody has to answer before the job's turn can go on.
_ASKING = """EXISTS (SELECT 1 FROM call WHERE call.job_id = job.id AND call.turn = job.turn
                     AND call.state = 'open' AND call.needs IN ('approval', 'output'))"""
#: Files go with it, which are to be removed: here, and those that are there already at the provider.
_UPLOADED = "EXISTS (SELECT 1 FROM upload WHERE job_id = job.id)"


@asynccontextmanager
async def open_sqlite(folder: Path, busy_timeout_s: float) -> AsyncGenerator["SQLiteStore"]:
    """Open the store in this folder; see `open_store`."""
    async with open_database(folder, busy_timeout_s) as database:
        yield SQLiteStore(database, folder)


class SQLiteStore(Questions, Queue):
    """See `Store` for what each method promises; here is what changes a job."""

    async def add(
        self, *jobs: Job, allow_duplicate: bool = False, budget: Budget | None = None, uploads: Sequence[Upload] = ()
    ) -> list[Job | None]:
        existing: list[Job | None] = []
        async with self._db.changing(spending=True):
            existing += [await self._add(job, allow_duplicate, uploads) for job in jobs]
            if budget is not None and None in existing:
                await self._keep_within(budget)
        return existing

    async def _keep_within(self, budget: Budget) -> None:
        """Inside a change: refuse it where more may be spent with it than the budget allows."""
        if budget.spent:
            spent = (await self._db.execute(PAID, since=budget.since))[0]["usd"] or 0.0
            if spent >= budget.usd:
                raise BudgetError(
                    f"The day's budget of {budget.usd:g} USD is spent ({spent:.2f} USD): wait until midnight UTC, or "
                    "ask the user to raise AGENT_JOBS_DAILY_BUDGET_USD."
                )
            return
        spent = (await self._db.execute(SPENT, since=budget.since))[0]["usd"] or 0.0
        if spent > budget.usd:
            parts = f" A job's bound: {budget.parts}." if budget.parts else ""
            raise BudgetError(
                f"The day's budget of {budget.usd:g} USD does not allow it: with this, up to {spent:.2f} USD would be "
                "spent. Bound it lower with options.max_output_tokens, or ask the user to raise "
                f"AGENT_JOBS_DAILY_BUDGET_USD.{parts}"
            )

    async def _add(self, job: Job, allow_duplicate: bool, uploads: Sequence[Upload]) -> Job | None:
        """Inside a change: write a job down, or read the one that answers for it."""
        columns = {name: getattr(job, name) for name in ADDED_TO_JOB}
        same = _SAME_KEY if job.key is not None else _SAME_WORK if job.request_hash and not allow_duplicate else "FALSE"
        added = await self._db.execute(
            f"""INSERT INTO job (turn, holder, toolbox, {", ".join(columns)})
                SELECT :turn, :me, :toolbox, {", ".join(f":{name}" for name in columns)}
                WHERE NOT EXISTS (SELECT 1 FROM job WHERE {same}) RETURNING id""",
            **columns,
            toolbox=dumps(list(job.toolbox)),
            turn=job.turn.number,
            me=self._db.holder.name,
            base_url=job.turn.base_url,
        )
        if not added:
            rows = await self._db.execute(
                f"{JOB} WHERE {same} ORDER BY job.created_at DESC LIMIT 1",
                **{name: columns[name] for name in ("key", "request_hash", "created_at")},
                base_url=job.turn.base_url,
            )
            return self._job(rows[0])
        await self._add_turn(job)
        for upload in uploads:
            await self._db.execute(
                "INSERT INTO upload (job_id, name, data) VALUES (:id, :name, :data)",
                id=job.id,
                name=upload.name,
                data=upload.data,
            )
        return None

    async def _add_turn(self, job: Job) -> None:
        await self._db.execute(
            """INSERT INTO turn (job_id, number, request_id, base_url, fingerprint, mode, rebuilt)
               VALUES (:job_id, :number, :request_id, :base_url, :fingerprint, :mode, :rebuilt)""",
            job_id=job.id,
            number=job.turn.number,
            request_id=job.turn.request_id,
            base_url=job.turn.base_url,
            fingerprint=job.turn.fingerprint,
            mode=job.turn.mode,
            rebuilt=job.turn.rebuilt,
        )
        await self._db.execute(
            "INSERT INTO request (job_id, turn, body) VALUES (:job_id, :turn, :body)",
            job_id=job.id,
            turn=job.turn.number,
            body=dumps(job.turn.request),
        )

    async def record_upload(self, job_id: str, name: str, file_id: str) -> None:
        async with self._db.changing(job_id):
            await self._db.execute(
                """INSERT INTO upload (job_id, name, data, file_id) SELECT id, :name, x'', :file_id FROM job
                   WHERE id = :id ON CONFLICT DO UPDATE SET file_id = excluded.file_id, data = excluded.data""",
                id=job_id,
                name=name,
                file_id=file_id,
            )
            await self._db.execute(
                f"""UPDATE job SET unsettled = 1, next_at = finished_at, revision = revision + 1
                    WHERE id = :id AND status NOT IN {OPEN}""",
                id=job_id,
            )

    async def rewrite_request(self, job: Job) -> bool:
        async with self._db.changing(job.id):
            won = await self._db.execute(
                """UPDATE job SET context = :context, revision = revision + 1
                   WHERE id = :id AND (status = 'pending' OR turn > 1) AND holder = :me RETURNING id""",
                id=job.id,
                context=job.context,
                me=self._db.holder.name,
            )
            await self._db.execute(
                "UPDATE turn SET rebuilt = :rebuilt WHERE job_id = :id AND number = :number",
                id=job.id,
                number=job.turn.number,
                rebuilt=job.turn.rebuilt,
            )
            await self._db.execute(
                "UPDATE request SET body = :body WHERE job_id = :id AND turn = :number",
                id=job.id,
                number=job.turn.number,
                body=dumps(job.turn.request),
            )
            if not won:
                raise LostRace
        return bool(won)

    async def reset_for_resend(self, job: Job, failed_id: str) -> bool:
        async with self._db.changing(job.id):
            won = await self._db.execute(
                f"""UPDATE job SET status = :status, context = :context, activity = '', observed_by = '',
                           usage = :usage, usage_before = :usage_before, cost_usd = :cost_usd,
                           cost_before_usd = :cost_before_usd, reserved_usd = :reserved_usd, revision = revision + 1
                    WHERE id = :id AND turn = :number AND status IN {RUNNING} AND holder = :me
                      AND cancel_requested_at IS NULL RETURNING id""",
                id=job.id,
                number=job.turn.number,
                status=job.status,
                context=job.context,
                usage=usage_json(job.usage),
                usage_before=usage_json(job.usage_before),
                cost_usd=job.cost_usd,
                cost_before_usd=job.cost_before_usd,
                reserved_usd=job.reserved_usd,
                me=self._db.holder.name,
            )
            forgotten = await self._db.execute(
                """DELETE FROM turn WHERE job_id = :id AND number = :number AND response_id = :failed_id
                   RETURNING number""",
                id=job.id,
                number=job.turn.number,
                failed_id=failed_id,
            )
            if not (won and forgotten):
                raise LostRace
            await self._db.execute(
                "DELETE FROM request WHERE job_id = :id AND turn = :number", id=job.id, number=job.turn.number
            )
            await self._add_turn(job)
            return True
        return False

    async def begin_sending(self, job: Job, limit: int = NO_LIMIT) -> bool:
        named = {"id": job.id, "number": job.turn.number}
        # A job in a later turn has its slot already, and shows in_progress.
        taking_slot = Statement(
            f"""UPDATE job SET status = CASE turn WHEN 1 THEN 'starting' ELSE status END, activity = '',
                              running_since = :running_since, revision = revision + 1
               WHERE id = :id AND turn = :number AND holder = :me AND cancel_requested_at IS NULL
                 AND (turn > 1 AND status = 'in_progress'
                      OR status = 'pending' AND (SELECT COUNT(*) FROM job
                             WHERE status IN {RUNNING}) < :limit)
               RETURNING id""",
            {**named, "running_since": job.running_since, "me": self._db.holder.name, "limit": limit},
            is_needed=True,
        )
        sending = Statement(
            """UPDATE turn SET attempt = :attempt, sent_at = :sent_at, mode = :mode, fingerprint = :fingerprint
               WHERE job_id = :id AND number = :number AND response_id IS NULL AND (number = 1 OR sent_at IS NULL)
               RETURNING number""",
            named | {name: getattr(job.turn, name) for name in ("attempt", "sent_at", "mode", "fingerprint")},
            is_needed=True,
        )
        return await self._db.change(job.id, taking_slot, sending, spending=True)

    async def record_response_id(
        self, job_id: str, number: int, response_id: str, now: float, *, mode: Mode | None = None
    ) -> Job | None:
        naming = Statement(
            """UPDATE turn SET response_id = :response_id, mode = coalesce(:mode, mode)
               WHERE job_id = :id AND number = :number AND response_id IS NULL""",
            {"id": job_id, "number": number, "response_id": response_id, "mode": mode},
        )
        queueing = Statement(
            """UPDATE job SET status = 'queued', activity = '', error_code = NULL, error_message = NULL,
                              finished_at = NULL, unsettled = 0, delivered_at = NULL,
                              revision = revision + 1,
                              next_at = CASE WHEN holder IS NULL THEN :now ELSE next_at END
               WHERE id = :id AND (status IN ('pending', 'starting') OR (
                   status = 'failed' AND error_code IN ('start_unconfirmed', 'endpoint_lost')))""",
            {"id": job_id, "now": now},
        )
        await self._db.change(job_id, naming, queueing)
        return await self.get(job_id)

    async def save(self, job: Job, *, held: bool = True) -> Job | None:
        statements = [
            Statement(
                f"""UPDATE job SET status = :status, finished_at = :finished_at, activity = :activity,
                           observed_by = :observed_by, usage = :usage,
                           error_code = :error_code, error_message = :error_message,
                           cost_usd = :cost_usd, unsettled = :unsettled,
                           holder = CASE WHEN :ended THEN NULL ELSE holder END,
                           next_at = CASE WHEN :ended AND :unsettled THEN :finished_at
                                          WHEN :ended THEN NULL ELSE next_at END,
                           revision = revision + 1
                    WHERE id = :id AND status IN {before(job.status)} AND (holder = :me OR NOT :held)
                      AND (:status <> 'input_required' OR :asked_at IS NULL OR {_ASKING})
                    RETURNING id""",
                job_columns(job)
                | {"asked_at": job.turn.asked_at, "ended": job.is_terminal, "me": self._db.holder.name, "held": held},
                is_needed=True,
            ),
            Statement(
                f"""UPDATE turn SET looks = :looks, looked_at = :looked_at, missing = :missing,
                          missing_since = :missing_since, hollow = :hollow, detached = :detached, partial = :partial,
                          reasoning = :reasoning, timed_out_at = :timed_out_at, mode = :mode, sent_at = :sent_at,
                          acting = :acting, asked_at = :asked_at, {_CURSOR}
                   WHERE job_id = :id AND number = :number""",
                turn_columns(job),
            ),
        ]
        if job.output is not None and job.output.response is not None:
            statements.append(_keeping_output(job, job.output.text, job.output.response))
            if job.turn.has_open_calls:
                statements += _asking_for(job, calls_of(items_of(job.output.response.get("output"))))
        return await self.get(job.id) if await self._db.change(job.id, *statements) else None

    async def save_progress(self, jobs: Sequence[Job]) -> dict[str, float | None]:
        # Every second for up to 200 jobs: one change for all of them, which touches no index and reads nothing back.
        ours: dict[str, float | None] = {}
        async with self._db.changing(*(job.id for job in jobs)):
            rows = await self._db.execute(
                f"""SELECT id, cancel_requested_at FROM job WHERE id IN (SELECT value FROM json_each(:ids))
                    AND status IN {RUNNING} AND holder = :me""",
                ids=dumps([job.id for job in jobs]),
                me=self._db.holder.name,
            )
            ours = {row["id"]: row["cancel_requested_at"] for row in rows}
            running = [job for job in jobs if job.id in ours]
            await self._db.execute_each(
                """UPDATE job SET activity = :activity, observed_by = :observed_by, revision = revision + 1
                   WHERE id = :id""",
                [job_columns(job) for job in running],
            )
            await self._db.execute_each(
                f"""UPDATE turn SET partial = :partial, reasoning = :reasoning, detached = :detached, {_CURSOR}
                    WHERE job_id = :id AND number = :number""",
                [turn_columns(job) for job in running],
            )
        return ours

    async def save_call(self, job: Job, call: Call, *before: str) -> bool:
        won: list[sqlite3.Row] = []
        async with self._db.changing(job.id):
            won = await self._db.execute(
                """UPDATE call SET needs = :needs, state = :state, output = :output
                   WHERE job_id = :job_id AND turn = :turn AND id = :id
                     AND state IN (SELECT value FROM json_each(:before))
                     AND EXISTS (SELECT 1 FROM job WHERE id = :job_id AND holder = :me) RETURNING id""",
                job_id=job.id,
                turn=job.turn.number,
                id=call.id,
                needs=call.needs,
                state=call.state,
                output=None if call.output is None else dumps(call.output),
                before=json.dumps(before),
                me=self._db.holder.name,
            )
            await self._db.execute("UPDATE job SET revision = revision + 1 WHERE id = :id", id=job.id)
        return bool(won)

    async def wait_for_input(self, job: Job, now: float, timeout_s: float) -> bool:
        async with self._db.changing(job.id):
            await self._db.execute(
                """UPDATE turn SET asked_at = :now WHERE job_id = :id AND number = :number
                   AND (SELECT status FROM job WHERE id = :id) <> 'input_required'""",
                id=job.id,
                number=job.turn.number,
                now=now,
            )
            waits = await self._db.execute(
                f"""UPDATE job SET revision = revision + (status <> 'input_required'), status = 'input_required',
                           activity = '', not_before = 0,
                           next_at = :timeout_s + (SELECT asked_at FROM turn WHERE job_id = :id AND number = job.turn)
                    WHERE id = :id AND turn = :number AND status IN {before(Status.INPUT_REQUIRED)} AND holder = :me
                      AND cancel_requested_at IS NULL AND {_ASKING} RETURNING id""",
                id=job.id,
                number=job.turn.number,
                me=self._db.holder.name,
                timeout_s=timeout_s,
            )
            if not waits:
                raise LostRace
            return True
        return False

    async def record_reply(self, job: Job, calls: Sequence[Call], now: float) -> bool:
        async with self._db.changing(job.id):
            for call in calls:
                answered = await self._db.execute(
                    """UPDATE call SET state = :state, output = :output
                       WHERE job_id = :job_id AND turn = :turn AND id = :id AND state = 'open'
                         AND EXISTS (SELECT 1 FROM job WHERE id = :job_id AND status = 'input_required')
                       RETURNING id""",
                    job_id=job.id,
                    turn=job.turn.number,
                    id=call.id,
                    state=call.state,
                    output=None if call.output is None else dumps(call.output),
                )
                if not answered:
                    raise LostRace
            # A step that is under way, which has no due time, sees the answers at its end; another one beside it
            # would take the calls that it runs for those of a dead process.
            await self._db.execute(
                f"""UPDATE job SET status = CASE WHEN {_ASKING} THEN status ELSE 'in_progress' END,
                           running_since = CASE WHEN {_ASKING} THEN running_since ELSE running_since + :now - (
                               SELECT asked_at FROM turn WHERE job_id = job.id AND number = job.turn) END,
                           next_at = CASE WHEN next_at IS NOT NULL THEN :now END, not_before = 0,
                           revision = revision + 1
                    WHERE id = :id""",
                id=job.id,
                now=now,
            )
            return True
        return False

    async def begin_next_turn(self, job: Job, budget: Budget | None = None) -> bool:
        async with self._db.changing(job.id):
            won = await self._db.execute(
                """UPDATE job SET turn = :number, status = 'in_progress', usage_before = :usage_before,
                           cost_before_usd = :cost_before_usd, reserved_usd = :reserved_usd, activity = '',
                           revision = revision + 1
                   WHERE id = :id AND turn = :number - 1 AND status IN ('in_progress', 'input_required')
                     AND holder = :me AND cancel_requested_at IS NULL RETURNING id""",
                id=job.id,
                number=job.turn.number,
                usage_before=usage_json(job.usage_before),
                cost_before_usd=job.cost_before_usd,
                reserved_usd=job.reserved_usd,
                me=self._db.holder.name,
            )
            if not won:
                raise LostRace
            if budget is not None:
                await self._keep_within(budget)
            await self._add_turn(job)
            return True
        return False

    async def request_cancel(self, job_id: str, now: float) -> Job | None:
        async with self._db.changing(job_id):
            await self._db.execute(
                f"""UPDATE job SET cancel_requested_at = COALESCE(cancel_requested_at, :now),
                           finished_at = CASE WHEN status IN {_IDLE} THEN :now ELSE finished_at END,
                           cost_usd = CASE WHEN status = 'pending' AND usage_before IS NULL THEN 0 ELSE cost_usd END,
                           unsettled = status IN {_IDLE} AND {_UPLOADED},
                           next_at = CASE WHEN status NOT IN {_IDLE} THEN next_at WHEN {_UPLOADED} THEN :now END,
                           holder = CASE WHEN status IN {_IDLE} THEN NULL ELSE holder END,
                           status = CASE WHEN status IN {_IDLE} THEN 'cancelled' ELSE status END,
                           activity = CASE WHEN status IN {_IDLE} THEN '' ELSE activity END,
                           revision = revision + 1
                    WHERE id = :id AND status IN {OPEN}""",
                id=job_id,
                now=now,
            )
        return await self.get(job_id)

    async def learn_mode(self, base_url: str, model: str, mode: Mode, now: float, answer: str) -> None:
        await self._learn(base_url, model, mode, now, answer)

    async def learn_refused_parameter(self, base_url: str, parameter: str, now: float, answer: str) -> None:
        await self._learn(base_url, f"{REFUSED}{parameter}", "refused", now, answer)

    async def _learn(self, base_url: str, model: str, mode: str, now: float, answer: str) -> None:
        async with self._db.changing():
            await self._db.execute(
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

    async def purge(self, before: float, *, unread: bool = False) -> dict[str, list[Place]]:
        old = f"finished_at < :before AND status NOT IN {OPEN}"
        if not unread:
            old += " AND delivered_at IS NOT NULL"
        rows = await self._db.fetch(f"SELECT id FROM job WHERE {old} LIMIT {PURGED_AT_ONCE}", before=before)
        purged: dict[str, list[Place]] = {}
        for row in rows:
            async with self._db.changing(row["id"]):
                places = await self._db.execute(
                    """SELECT base_url, response_id FROM turn WHERE job_id = :id AND response_id IS NOT NULL
                       ORDER BY number""",
                    id=row["id"],
                )
                await self._db.execute(
                    f"""INSERT INTO tombstone (job_id, status, finished_at)
                        SELECT id, status, finished_at FROM job WHERE id = :id AND {old} ON CONFLICT DO NOTHING""",
                    id=row["id"],
                    before=before,
                )
                if await self._db.execute(
                    f"DELETE FROM job WHERE id = :id AND {old} RETURNING id", **row, before=before
                ):
                    purged[row["id"]] = [Place(**place) for place in places]
        return purged

    async def mark_delivered(self, job_ids: Sequence[str], now: float) -> None:
        async with self._db.changing():
            await self._db.execute(
                f"""UPDATE job SET delivered_at = :now
                    WHERE id IN (SELECT value FROM json_each(:ids)) AND delivered_at IS NULL
                      AND status NOT IN {OPEN}""",
                ids=json.dumps(list(job_ids)),
                now=now,
            )

    async def mark_finalized(self, job_id: str, result_path: str = "", made: Sequence[OutputFile] = ()) -> None:
        async with self._db.changing(job_id):
            await self._db.execute(
                f"""UPDATE job SET unsettled = 0, result_path = :result_path, holder = NULL, next_at = NULL,
                           revision = revision + 1
                    WHERE id = :id AND status NOT IN {OPEN}""",
                id=job_id,
                result_path=result_path,
            )
            await self._db.execute("DELETE FROM upload WHERE job_id = :id", id=job_id)
            for file in made:
                await self._db.execute(
                    "INSERT OR REPLACE INTO made (job_id, name, path, bytes) VALUES (:id, :name, :path, :bytes)",
                    id=job_id,
                    name=file.name,
                    path=file.path,
                    bytes=file.bytes,
                )

    async def record_event(self, job_id: str, at: float, kind: str, text: str = "") -> None:
        async with self._db.changing():
            await self._db.execute(
                "INSERT INTO event (job_id, at, kind, text) VALUES (:id, :at, :kind, :text)",
                id=job_id,
                at=at,
                kind=kind,
                text=text,
            )


def _keeping_output(job: Job, text: str, response: JSON) -> Statement:
    """Return what writes a turn's output down."""
    return Statement(
        """INSERT INTO output (job_id, turn, text, bytes, response) VALUES (:id, :turn, :text, :bytes, :response)
           ON CONFLICT DO UPDATE SET text = excluded.text, bytes = excluded.bytes, response = excluded.response""",
        {
            "id": job.id,
            "turn": job.turn.number,
            "text": text,
            "bytes": len(text.encode("utf-8", "replace")),
            "response": dumps(response),
        },
    )


def _asking_for(job: Job, calls: Sequence[Call]) -> list[Statement]:
    """Return what writes down the calls that a turn asks for."""
    return [
        Statement(
            """INSERT INTO call (job_id, turn, id, kind, name, arguments, needs, state, position)
               VALUES (:job_id, :turn, :id, :kind, :name, :arguments, :needs, :state, :position)
               ON CONFLICT DO NOTHING""",
            {
                "job_id": job.id,
                "turn": job.turn.number,
                "position": position,
                **{name: getattr(call, name) for name in ("id", "kind", "name", "arguments", "needs", "state")},
            },
        )
        for position, call in enumerate(calls)
    ]
