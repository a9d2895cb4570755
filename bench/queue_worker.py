"""A worker process that records its steps: `python -m bench.queue_worker ENGINE RECORD`, until it is killed."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import TextIO

import anyio

import agent_jobs.engine.worker
from agent_jobs.app import open_app
from agent_jobs.engine.step_result import Done, RunAgain, WaitForSlot
from agent_jobs.engine.worker import Worker
from agent_jobs.settings.settings import Settings


class Record:
    """The lines `begin`, `end` or `due`, the job, and the time; each is there even if the process is killed."""

    file: TextIO

    def note(self, what: str, job_id: str, at: float | None = None) -> None:
        self.file.write(f"{what} {job_id} {time.time() if at is None else at:.4f}\n")


record = Record()


class RecordingWorker(Worker):
    """The worker of agent-jobs."""

    async def _run_step(self, job_id: str) -> None:
        record.note("begin", job_id)
        await super()._run_step(job_id)
        record.note("end", job_id)

    async def _schedule_next(self, job_id: str, outcome: Done | RunAgain | WaitForSlot) -> None:
        if isinstance(outcome, RunAgain):
            record.note("due", job_id, time.time() + max(outcome.after_s, outcome.not_before_s))
        await super()._schedule_next(job_id, outcome)


async def main(engine: str) -> None:
    worker: type[Worker] = RecordingWorker
    if engine == "pgqueuer":
        from bench.queue_pgqueuer import PgqueuerWorker

        worker = PgqueuerWorker
    agent_jobs.engine.worker.Worker = worker
    async with open_app(Settings.from_env(os.environ), role="acts", what="bench") as app:
        await app.engine()
        app.work()
        await anyio.sleep_forever()


if __name__ == "__main__":
    import bench.queue_worker as module  # pgqueuer's worker imports it, too: there must be one record

    logging.basicConfig(level="ERROR")
    with Path(sys.argv[2]).open("w", buffering=1) as module.record.file:
        anyio.run(module.main, sys.argv[1])
