"""Write jobs: each change reads the stored job, calls a pure function, and writes the columns that it changed."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from agent_jobs.jobs import transitions
from agent_jobs.jobs.job import Job, Mode
from agent_jobs.jobs.queries import OutputFile
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import Status
from agent_jobs.store.database import SpendingLock, Transaction
from agent_jobs.store.duplicate_starts import write_duplicate_condition
from agent_jobs.store.event_feeds import add_event
from agent_jobs.store.records import JOB, ONE_JOB, ONE_JOB_WITHOUT_TEXTS, Records
from agent_jobs.store.row_writes import (
    are_all_open,
    call_values,
    has_open_questions,
    has_uploads,
    insert_job_unless,
    insert_turn,
    progress_values,
    write_change,
    write_steps,
)
from agent_jobs.store.rows import (
    RUNNING_SQL,
    job_columns,
)
from agent_jobs.store.spending_limits import check_budgets, check_start_rate, has_ample_slots, has_slot
from agent_jobs.store.values import NO_LIMIT, Budget, Upload

#: Jobs whose progress one change writes where changes lock rows: all other changes of these jobs wait for it.
PROGRESS_AT_ONCE = 20
#: A cursor never goes back.
_CURSOR = """sequence_number = CASE WHEN sequence_number > :sequence_number THEN sequence_number
                                  ELSE COALESCE(:sequence_number, sequence_number) END"""

#: A change that also reads other tables than the job's own.
_Change = Callable[[Transaction, Job], Awaitable[Job | None]]


class JobWrites(Records):
    """`JobTransitions` on any database."""

    async def add(
        self,
        *jobs: Job,
        allow_duplicate: bool = False,
        budgets: Sequence[Budget] = (),
        starts_per_minute: int | None = None,
        uploads: Sequence[Upload] = (),
    ) -> list[Job | None]:
        if self._scope.owner is not None:
            jobs = tuple(replace(job, owner=self._scope.owner) for job in jobs)

        async def add_jobs(transaction: Transaction) -> list[Job | None]:
            existing = [await self._add_or_find_same(transaction, job, allow_duplicate, uploads) for job in jobs]
            added = [job for job, other in zip(jobs, existing, strict=True) if other is None]
            if added:
                await check_start_rate(transaction, added, starts_per_minute)
                await check_budgets(transaction, budgets)
            return existing

        is_global = any(budget.owner is None for budget in budgets)
        owners = tuple(job.owner for job in jobs)
        return await self._db.change(add_jobs, spending=SpendingLock(owners, is_global))

    async def transition(
        self, job_id: str, change: Callable[[Job], Job | None], *, is_claimed: bool = False
    ) -> Job | None:
        checked = self._if_claimed(change) if is_claimed else _in_any_case(change)
        return await self._change_and_get(job_id, checked, ONE_JOB)

    async def begin_sending(self, job: Job, limit: int = NO_LIMIT, owner_limit: int = NO_LIMIT) -> bool:
        spending = SpendingLock((job.owner,), is_global=limit < NO_LIMIT)

        def begin_with(can_run: Callable[[Transaction, str, int, int], Awaitable[bool]]) -> _Change:
            async def begin(transaction: Transaction, stored: Job) -> Job | None:
                if not self._has_claim(stored, job):
                    return None
                if stored.status is Status.PENDING and not await can_run(transaction, stored.owner, limit, owner_limit):
                    return None
                return transitions.begin_sending(stored, job)

            return begin

        if self._db.is_shared:
            # Else all starts of all processes would wait for each other.
            shared = spending._replace(is_shared=True)
            if await self._has_changed_job(job.id, begin_with(has_ample_slots), shared):
                return True
        return await self._has_changed_job(job.id, begin_with(has_slot), spending)

    async def record_response_id(
        self,
        job_id: str,
        number: int,
        response_id: str,
        now: float,
        *,
        mode: Mode | None = None,
        fingerprint: str = "",
    ) -> Job | None:
        record = _in_any_case(
            lambda stored: transitions.record_response_id(stored, number, response_id, now, mode, fingerprint)
        )
        return await self._change_and_get(job_id, record)

    async def save(self, job: Job, *, held: bool = True) -> Job | None:
        async def save_observation(transaction: Transaction, stored: Job) -> Job | None:
            if held and not self._has_claim(stored, job):
                return None
            is_waiting = job.status is Status.INPUT_REQUIRED and job.turn.asked_at is not None
            if is_waiting and not await has_open_questions(transaction, job.id, job.turn.number):
                return None
            return transitions.with_observation(stored, job)

        return await self._change_and_get(job.id, save_observation)

    async def save_progress(self, jobs: Sequence[Job]) -> dict[str, float | None]:
        at_once = max(1, len(jobs))
        if self._db.is_shared:
            at_once = PROGRESS_AT_ONCE
        written: dict[str, float | None] = {}
        for begin in range(0, len(jobs), at_once):
            written |= await self._save_progress_together(jobs[begin : begin + at_once])
        return written

    async def _save_progress_together(self, jobs: Sequence[Job]) -> dict[str, float | None]:
        # Every second for up to 200 jobs: one change for many of them, which touches no index and reads nothing back.
        me = self._db.worker

        async def save_all(transaction: Transaction) -> dict[str, float | None]:
            rows = await transaction.execute(
                f"""SELECT id, lost_claims, cancel_requested_at FROM job
                    WHERE id IN (:*ids) AND status IN {RUNNING_SQL} AND holder = :me AND {self._scope.job}""",
                ids=[job.id for job in jobs],
                me=me,
                **self._scope.values,
            )
            taken = {job.id: job.lost_claims for job in jobs}
            written = {row["id"]: row["cancel_requested_at"] for row in rows if row["lost_claims"] == taken[row["id"]]}
            running = [job for job in jobs if job.id in written]
            await transaction.execute_each(
                """UPDATE job SET activity = :activity, observed_by = :observed_by, revision = revision + 1
                   WHERE id = :id""",
                [{"id": job.id, "activity": job.activity, "observed_by": job.observed_by} for job in running],
            )
            await transaction.execute_each(
                f"""UPDATE turn SET partial = :partial, reasoning = :reasoning, detached = :stream_failures, {_CURSOR}
                    WHERE job_id = :id AND number = :number""",
                [{"id": job.id, **progress_values(job.turn)} for job in running],
            )
            # The rows of all these jobs are locked: one round trip for each job would delay their other changes.
            await write_steps(transaction, *running)
            return written

        return await self._db.change(save_all, *(job.id for job in jobs), is_progress=True)

    async def save_call(self, job: Job, call: Call, *before: str) -> bool:
        async def save_if_unchanged(transaction: Transaction) -> bool:
            saved = await transaction.execute(
                f"""UPDATE call SET needs = :needs, state = :state, output = :output, started_at = :started_at,
                                   finished_at = :finished_at
                   WHERE job_id = :job_id AND turn = :turn AND id = :id
                     AND state IN (:*before)
                     AND EXISTS (SELECT 1 FROM job WHERE id = :job_id AND holder = :me
                                 AND lost_claims = :lost_claims AND {self._scope.job})
                   RETURNING id""",
                **call_values(job, call),
                **self._scope.values,
                needs=call.needs,
                started_at=call.started_at,
                finished_at=call.finished_at,
                before=before,
                me=self._db.worker,
                lost_claims=job.lost_claims,
            )
            await transaction.execute(
                f"UPDATE job SET revision = revision + 1 WHERE id = :id AND {self._scope.job}",
                id=job.id,
                **self._scope.values,
            )
            return bool(saved)

        return await self._db.change(save_if_unchanged, job.id)

    async def wait_for_input(self, job: Job, now: float, timeout_s: float) -> bool:
        async def wait(transaction: Transaction, stored: Job) -> Job | None:
            if not (
                self._has_claim(stored, job) and await has_open_questions(transaction, stored.id, stored.turn.number)
            ):
                return None
            return transitions.wait_for_input(stored, job.turn.number, now, timeout_s)

        return await self._has_changed_job(job.id, wait)

    async def record_reply(self, job: Job, calls: Sequence[Call], now: float, always: Collection[str] = ()) -> bool:
        async def reply(transaction: Transaction, stored: Job) -> Job | None:
            if stored.status is not Status.INPUT_REQUIRED or not await are_all_open(transaction, job, calls):
                return None
            await transaction.execute_each(
                """UPDATE call SET state = :state, output = :output
                   WHERE job_id = :job_id AND turn = :turn AND id = :id""",
                [call_values(job, call) for call in calls],
            )
            is_answered = not await has_open_questions(transaction, stored.id, stored.turn.number)
            return transitions.record_reply(stored, now, is_answered=is_answered, always=always)

        return await self._has_changed_job(job.id, reply)

    async def begin_next_turn(self, job: Job, budgets: Sequence[Budget] = ()) -> bool:
        begin_turn = self._if_claimed(lambda stored: transitions.begin_next_turn(stored, job), job)

        async def begin(transaction: Transaction) -> bool:
            is_begun = await self._change_inside(transaction, job.id, begin_turn)
            if is_begun:
                await check_budgets(transaction, budgets)
            return is_begun

        spending: SpendingLock | None = None
        if budgets:
            spending = SpendingLock((job.owner,), any(budget.owner is None for budget in budgets))
        return await self._db.change(begin, job.id, spending=spending)

    async def rewrite_request(self, job: Job) -> bool:
        rewrite = self._if_claimed(lambda stored: transitions.rewrite_request(stored, job), job)
        return await self._has_changed_job(job.id, rewrite)

    async def reset_for_resend(self, job: Job, failed_id: str) -> bool:
        reset = self._if_claimed(lambda stored: transitions.reset_for_resend(stored, job, failed_id), job)
        return await self._has_changed_job(job.id, reset)

    async def request_cancel(self, job_id: str, now: float) -> Job | None:
        async def cancel(transaction: Transaction, stored: Job) -> Job:
            job = transitions.request_cancel(stored, now, has_uploads=await has_uploads(transaction, job_id))
            if job.due_at is None and not job.is_terminal:
                # A step is under way, and may have read the job before: at its end, the job is due at once.
                await transaction.execute("UPDATE job SET hinted = TRUE WHERE id = :id", id=job_id)
            return job

        return await self._change_and_get(job_id, cancel)

    async def mark_finalized(self, job_id: str, result_path: str = "", made: Sequence[OutputFile] = ()) -> None:
        finalize_job = _in_any_case(lambda stored: transitions.mark_finalized(stored, result_path))

        async def finalize(transaction: Transaction) -> None:
            if not await self._change_inside(transaction, job_id, finalize_job):
                return
            await transaction.execute("DELETE FROM upload WHERE job_id = :id", id=job_id)
            await transaction.execute_each(
                """INSERT INTO made (job_id, name, path, bytes) VALUES (:id, :name, :path, :bytes)
                   ON CONFLICT (job_id, name) DO UPDATE SET path = excluded.path, bytes = excluded.bytes""",
                [{"id": job_id, **file._asdict()} for file in made],
            )

        await self._db.change(finalize, job_id)

    async def record_upload(self, job_id: str, name: str, file_id: str) -> None:
        async def record(transaction: Transaction) -> None:
            await transaction.execute(
                f"""INSERT INTO upload (job_id, name, data, file_id) SELECT id, :name, :data, :file_id FROM job
                   WHERE id = :id AND {self._scope.job}
                   ON CONFLICT (job_id, name) DO UPDATE SET file_id = excluded.file_id, data = excluded.data""",
                id=job_id,
                name=name,
                data=b"",
                file_id=file_id,
                **self._scope.values,
            )
            await self._change_inside(transaction, job_id, _in_any_case(transitions.mark_needs_finalizing))

        await self._db.change(record, job_id)

    async def wait_for_slot(self, job_id: str, activity: str) -> None:
        await self.transition(job_id, lambda stored: transitions.wait_for_slot(stored, activity), is_claimed=True)

    async def _change_and_get(self, job_id: str, change: _Change, one_job: str = ONE_JOB_WITHOUT_TEXTS) -> Job | None:
        """Change a job and read it after that: a large request must not be read while no process can write."""
        if await self._has_changed_job(job_id, change, one_job=one_job):
            return await self.get(job_id)
        return None

    async def _has_changed_job(
        self,
        job_id: str,
        change: _Change,
        spending: SpendingLock | None = None,
        one_job: str = ONE_JOB_WITHOUT_TEXTS,
    ) -> bool:
        return await self._db.change(
            lambda transaction: self._change_inside(transaction, job_id, change, one_job), job_id, spending=spending
        )

    async def _change_inside(
        self, transaction: Transaction, job_id: str, change: _Change, one_job: str = ONE_JOB_WITHOUT_TEXTS
    ) -> bool:
        """Change a job inside a transaction; return False if it does not exist or may not change so."""
        rows = await transaction.execute(f"{one_job} AND {self._scope.job}", id=job_id, **self._scope.values)
        if not rows:
            return False
        stored = self._read_row(rows[0])
        new = await change(transaction, stored)
        if new is None or not transitions.can_become(stored, new):
            return False
        if new is not stored:
            await write_change(transaction, stored, new)
        if stored.owner:
            await add_event(transaction, stored, new)
        return True

    def _if_claimed(self, change: Callable[[Job], Job | None], seen: Job | None = None) -> _Change:
        """Return the change, refused unless this process has claimed the job, without a break since it was `seen`."""

        async def change_claimed(_: Transaction, stored: Job) -> Job | None:
            if not self._has_claim(stored, seen or stored):
                return None
            return change(stored)

        return change_claimed

    def _has_claim(self, stored: Job, seen: Job) -> bool:
        """Return True if this process has claimed the job.

        A process that was paused may have lost its claim and taken a new one: then what it saw before does not count.
        """
        return stored.claimed_by == self._db.worker and stored.lost_claims == seen.lost_claims

    async def _add_or_find_same(
        self, transaction: Transaction, job: Job, allow_duplicate: bool, uploads: Sequence[Upload]
    ) -> Job | None:
        """Insert a job, or return the job of the same owner that is identical."""
        same = write_duplicate_condition(job, allow_duplicate=allow_duplicate)
        columns = job_columns(job) | {"holder": self._db.worker}
        values = {**columns, "base_url": job.turn.base_url}
        # Another process may end the job that answers between the two statements: then it is no longer identical.
        while not await transaction.execute(insert_job_unless(tuple(columns), same), **values):
            rows = await transaction.execute(f"{JOB} WHERE {same} ORDER BY job.created_at DESC LIMIT 1", **values)
            if rows:
                return self._read_row(rows[0])
        await insert_turn(transaction, job)
        await transaction.execute("INSERT INTO prompt (job_id, text) VALUES (:id, :text)", id=job.id, text=job.prompt)
        await transaction.execute_each(
            "INSERT INTO upload (job_id, name, data) VALUES (:id, :name, :data)",
            [{"id": job.id, "name": upload.name, "data": upload.data} for upload in uploads],
        )
        return None


def _in_any_case(change: Callable[[Job], Job | None]) -> _Change:
    """Return a pure change as one that may read other tables."""

    async def change_stored(_: Transaction, stored: Job) -> Job | None:
        return change(stored)

    return change_stored
