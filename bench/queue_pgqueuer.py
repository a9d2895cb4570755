"""The steps of jobs on pgqueuer, which `bench queue` compares with our own worker. Just enough for that.

Its row is the only due time: a trigger moves each `next_at` of a job into its row, in the same transaction. A step that
begins to stream ends for pgqueuer, and the stream is read beside it. Our claim is a fence, set as the step begins.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from types import MethodType
from typing import Any

import anyio
import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.domain import models
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from agent_jobs.engine.step_result import Done, RunAgain, WaitForSlot
from agent_jobs.engine.worker import CRASH_RETRY_S, STORE_RETRY_S, Worker
from agent_jobs.errors import StoreError
from bench.queue_worker import record

logger = logging.getLogger(__name__)

ENTRYPOINT = "step"
DEQUEUE_TIMEOUT = timedelta(seconds=1)
#: A step whose row has no heartbeat for this long is taken over: less than the figure to reach.
HEARTBEAT_TIMEOUT = timedelta(seconds=3)
BATCH = 20
RECLAIM_S = 0.8

SCHEMA = """
CREATE FUNCTION move_due_time() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO pgqueuer (priority, entrypoint, status, dedupe_key, payload, execute_after)
        VALUES (NEW.priority, 'step', 'queued', 'job:' || NEW.id, convert_to(NEW.id, 'UTF8'), clock_timestamp());
    ELSIF NEW.next_at IS NOT NULL THEN
        UPDATE pgqueuer SET execute_after = GREATEST(to_timestamp(NEW.next_at), clock_timestamp())
        WHERE dedupe_key = 'job:' || NEW.id AND status IN ('queued', 'picked');
    END IF;
    NEW.next_at := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER move_due_time BEFORE INSERT OR UPDATE OF next_at ON job FOR EACH ROW EXECUTE FUNCTION move_due_time();
"""
# A row that was pulled nearer during its step is due then, whatever the step asks for.
_PULLED = "execute_after > updated"
_REQUEUE = f"""UPDATE pgqueuer SET status = 'queued', queue_manager_id = NULL,
                   execute_after = CASE WHEN {_PULLED} THEN execute_after ELSE now() + $2 END
               WHERE id = $1 AND queue_manager_id = $3"""
_DELETE = f"DELETE FROM pgqueuer WHERE id = ANY($1) AND queue_manager_id = $2 AND NOT {_PULLED}"
_REQUEUE_PULLED = """UPDATE pgqueuer SET status = 'queued', queue_manager_id = NULL
                     WHERE id = ANY($1) AND queue_manager_id = $2"""


async def install(url: str) -> None:
    connection = await asyncpg.connect(url)
    await Queries.from_asyncpg_connection(connection).install()
    await connection.execute(SCHEMA)
    await connection.close()


class FencedQueries(Queries):
    """pgqueuer's statements; those that end a step change only a row that is still ours, and write no log."""

    async def retry_job(
        self, job: models.Job, delay: timedelta, traceback_record: models.TracebackRecord | None
    ) -> None:
        await self.driver.execute(_REQUEUE, job.id, delay, job.queue_manager_id)

    async def log_jobs(self, job_status: list[tuple[models.Job, Any, models.TracebackRecord | None]]) -> None:
        ids = [job.id for job, _, _ in job_status]
        for statement in (_DELETE, _REQUEUE_PULLED):
            await self.driver.execute(statement, ids, job_status[0][0].queue_manager_id)


class PgqueuerWorker(Worker):
    """The worker's port on pgqueuer."""

    async def run(self, what: str) -> None:
        store: Any = self._store
        self._db = store._db
        self._streams: dict[str, asyncio.Future[float]] = {}
        store.schedule = MethodType(self._begin_stream, store)
        with suppress(StoreError):
            await store.announce(what, self._identity[0])
        manager = QueueManager(FencedQueries(AsyncpgPoolDriver(self._db._pool)))
        manager.entrypoint(ENTRYPOINT)(self._execute)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._reclaim)
            await manager.run(
                dequeue_timeout=DEQUEUE_TIMEOUT,
                batch_size=BATCH,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                log_aggregation_interval=timedelta(0),
            )

    async def _reclaim(self) -> None:
        while True:
            with suppress(StoreError):
                await self._store.reclaim_from_dead(self._clock.now())
            await anyio.sleep(RECLAIM_S)

    async def _begin_stream(
        self, store: object, job_id: str, now: float, after_s: float, not_before_s: float = 0.0, **claim: int | None
    ) -> None:
        """End the step for pgqueuer: its row is due at the far poll, and what follows is a stream."""
        waiting = self._streams.get(job_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(after_s)

    async def _execute(self, row: models.Job) -> None:
        job_id = (row.payload or b"").decode()
        record.note("begin", job_id)
        await self._db.write("UPDATE job SET holder = :me WHERE id = :id", me=self._db.worker, id=job_id)
        streams = self._streams[job_id] = asyncio.get_running_loop().create_future()
        step = asyncio.create_task(self._step(job_id))
        done, _ = await asyncio.wait([step, streams], return_when=asyncio.FIRST_COMPLETED)
        if step in done:
            outcome = step.result()
            record.note("end", job_id)
            if isinstance(outcome, RunAgain):
                wait_s = max(outcome.after_s, outcome.not_before_s)
                record.note("due", job_id, self._clock.now() + wait_s)
                raise RetryRequested(timedelta(seconds=wait_s))
            if isinstance(outcome, WaitForSlot):  # or another worker has picked the row, too
                raise RetryRequested(DEQUEUE_TIMEOUT)
            return
        step.add_done_callback(lambda _: self._tasks.start_soon(self._after_stream, job_id, step))
        raise RetryRequested(timedelta(seconds=streams.result()))

    async def _after_stream(self, job_id: str, step: "asyncio.Task[Any]") -> None:
        record.note("end", job_id)
        outcome = step.result()
        if isinstance(outcome, RunAgain):
            record.note("due", job_id, self._clock.now() + outcome.after_s)
            await self._db.write(
                """UPDATE pgqueuer SET execute_after = now() + make_interval(secs => :after_s)
                   WHERE dedupe_key = :key""",
                key=f"job:{job_id}",
                after_s=outcome.after_s,
            )

    async def _step(self, job_id: str) -> Done | RunAgain | WaitForSlot:
        try:
            return await self._stepper.run_step(job_id)
        except StoreError:
            return RunAgain(STORE_RETRY_S)
        except Exception:
            logger.exception("%s: a step failed", job_id)
            return RunAgain(CRASH_RETRY_S)
