"""Report a job that finished or asks: to the user's command, and with notices.

No job depends on a report or waits for it. Each finished job and each question is claimed in the database before
it is reported, by one process: it is reported at most once. A claim is lost with a process that dies in the moment
between. A second report could pay twice, since the command may start another job.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import anyio
from anyio.from_thread import run_sync
from anyio.lowlevel import current_token

from agent_jobs.clock import Clock
from agent_jobs.engine.failure_log import log_failures
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import OutputFile
from agent_jobs.jobs.response import Call
from agent_jobs.rendering import answers
from agent_jobs.rendering.questions import render_questions
from agent_jobs.store.base import Store

logger = logging.getLogger(__name__)

CHECK_S = 1.0  # between checks for finished jobs
NEWS_S = 600.0  # a job that finished longer ago when this process starts is not reported any more
FINALIZE_WAIT_S = 3.0  # for the files of a finished job, so that the report can name them
ANSWER_WAIT_S = 10.0  # before a question is reported: the host's model may answer it
AT_ONCE = 4  # commands, and notices, that are under way at the same time
#: Fields of an answer that speak to models, not to people.
_FIELDS_FOR_MODELS = ("next", "user", "whole", "context")


class Reporter(Protocol):
    """Reports one job: the user's command, or the sender of notices."""

    @property
    def last_s(self) -> float:
        """Return the seconds that reports under way get at the end of this process."""
        ...

    @property
    def unfinished(self) -> str:
        """Return what becomes of the reports that are under way then, after their number."""
        ...

    def run(self, job_id: str, notice: Mapping[str, Any], /) -> None:
        """Report a job. Blocks until that is done; logs failures."""
        ...


class Notifier:
    """Reports every finished job and question on this database that no other process reports."""

    def __init__(self, store: Store, clock: Clock, reporters: Sequence[Reporter]) -> None:
        self._store = store
        self._clock = clock
        self._reporters = reporters
        self._since = clock.now() - NEWS_S
        self._running: dict[anyio.Event, Reporter] = {}

    async def run(self) -> None:
        """Check until cancelled, and once more at the end, for jobs that finished with this process."""
        try:
            while True:
                await self._notify_pending(FINALIZE_WAIT_S, ANSWER_WAIT_S)
                await self._clock.sleep(CHECK_S)
        finally:
            await self.finish()

    async def finish(self) -> None:
        """Report pending events without waiting for files or answers, and give the reports a moment to end."""
        with anyio.move_on_after(max(reporter.last_s for reporter in self._reporters), shield=True):
            await self._notify_pending(0.0, 0.0)
            for reporter in self._reporters:
                await self._wait_for_reports(reporter)
        for reporter in self._reporters:
            if left := [*self._running.values()].count(reporter):
                logger.warning("%d %s", left, reporter.unfinished)

    async def _wait_for_reports(self, reporter: Reporter) -> None:
        with anyio.move_on_after(reporter.last_s):
            for ended, running in list(self._running.items()):
                if running is reporter:
                    await ended.wait()

    async def _notify_pending(self, finalize_wait_s: float, answer_wait_s: float) -> None:
        """Start the reports of as many jobs as may be under way at once."""
        store_message = "cannot check for finished jobs: %s"
        with log_failures(logger, store_message, "cannot check for finished jobs"):
            while len(self._running) < AT_ONCE:
                now = self._clock.now()
                pending = await self._store.pending_notification(
                    self._since, settled_before=now - finalize_wait_s, asked_before=now - answer_wait_s
                )
                if pending is None:
                    return
                await self._notify_job(*pending)

    async def _notify_job(self, job_id: str, at: float) -> None:
        # Read everything before the claim: if this process dies after it, the notification is lost.
        notice = await self._try_to_describe(job_id)
        with anyio.CancelScope(shield=True):
            if await self._store.claim_notification(job_id, at) and notice is not None:
                for reporter in self._reporters:
                    self._start_report(reporter, job_id, notice)

    async def _try_to_describe(self, job_id: str) -> dict[str, Any] | None:
        """Return the notice of a job; None if it cannot be read, which must not delay the others."""
        try:
            job = await self._store.get(job_id)
            if job is None:
                return None  # purged just now
            calls: list[Call] = []
            if not job.is_terminal:
                calls = await self._store.get_calls(job_id, job.turn.number)
            return build_notice(job, calls, await self._store.get_output_files(job_id), self._clock.now())
        except Exception:
            logger.exception("%s: it cannot be reported", job_id)
            return None

    def _start_report(self, reporter: Reporter, job_id: str, notice: Mapping[str, Any]) -> None:
        ended, token = anyio.Event(), current_token()
        self._running[ended] = reporter

        def mark_ended() -> None:
            del self._running[ended]
            ended.set()

        def run_in_thread() -> None:
            try:
                reporter.run(job_id, notice)
            except Exception:
                logger.exception("%s: it cannot be reported", job_id)
            with suppress(RuntimeError):  # the event loop ended before the report
                run_sync(mark_ended, token=token)

        # A daemon thread: the process does not wait for it at its exit, as it would for threads of a pool.
        threading.Thread(target=run_in_thread, daemon=True).start()


def build_notice(job: Job, calls: Sequence[Call], made: Sequence[OutputFile], now: float) -> dict[str, Any]:
    """Return the command's input: how a job finished with the beginning of its output, or what it asks for."""
    notice: dict[str, Any] = {
        "job_id": job.id,
        "status": job.status,
        "title": job.title,
        "created_at": round(job.created_at),
        "elapsed_s": max(0, round((job.finished_at or now) - job.created_at)),
    }
    optional = {"model": job.turn.request.get("model"), "batch": job.batch, "files": [file.path for file in made]}
    notice |= {name: value for name, value in optional.items() if value}
    if job.is_terminal:
        shown = answers.render_finished_job(job)
    else:
        waiting = [call for call in calls if call.is_question]
        shown = render_questions(job, waiting, may_approve=True)
    return notice | {name: value for name, value in shown.items() if name not in _FIELDS_FOR_MODELS}
