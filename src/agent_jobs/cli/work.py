"""`agent-jobs work`: collect jobs without a terminal or a host."""

import logging
from collections.abc import Sequence

import anyio
import click

from agent_jobs.cli.detach import describe_detached
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.job_line import format_run_time
from agent_jobs.cli.interruption import Interrupted
from agent_jobs.cli.session import Session, read_settings, run_in_session
from agent_jobs.cli.wording import name_workers
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import StoreError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import GATHERED_MAX, JobFilter
from agent_jobs.jobs.status import ACTIVE, Status

logger = logging.getLogger(__name__)

#: Seconds between two reads of the jobs: a log needs no finer times.
REFRESH_S = 1.0

#: Seconds from the creation of a job until it is stored, on a machine however busy.
STORED_WITHIN_S = 10.0


@click.command("work")
@click.option("--until-idle", is_flag=True, help="Stop once no job runs or waits for a slot.")
def work_command(until_idle: bool) -> None:
    """Collect jobs until you stop the command.

    Sends jobs that wait for a slot, runs tools, stores results and sends notices, as a host's server does. Several
    such processes share the work. `agent-jobs service install` runs this command at every login.

    Logs a line on stderr for each change of a job: its id, status, time and cost, but no prompt and no output.

    Exit status: 0 stopped by a signal, or no job is left; 1 it cannot work, for example without a key.
    """
    settings = read_settings()
    log_format = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=settings.log_level.upper(), format=log_format, datefmt="%Y-%m-%d %H:%M:%S")
    logger.setLevel(logging.INFO)

    async def work(session: Session) -> None:
        await collect_jobs(session, until_idle=until_idle)

    try:
        run_in_session(work, role="acts", what="work", settings=settings)
    except Interrupted as interruption:
        logger.info("%s", interruption.message or "Stopped.")


async def collect_jobs(session: Session, *, until_idle: bool) -> None:
    """Work on all jobs of this endpoint, and log each change; with `until_idle`, until none of them runs.

    Raises:
        ConfigError: This process can send nothing.
        StoreError: The database cannot be read, and `until_idle` is set.
    """
    engine = session.engine
    others = await engine.other_workers()  # refuses a process without a key
    session.app.work()
    logger.info("Working on the jobs of %s in %s.", engine.base_url, (await engine.store_info()).path)
    if others:
        logger.info("Also working on them: %s.", name_workers(others))
    changes = ChangeLog(engine)
    while True:
        try:
            open_jobs = await changes.read()
        except StoreError as error:
            if until_idle:
                raise
            logger.warning("Cannot read the jobs: %s", error)  # a full disk or a lock may pass
        else:
            session.detached = _describe_jobs_left(open_jobs)
            if until_idle and {job.status for job in open_jobs} <= {Status.INPUT_REQUIRED}:
                logger.info("No job is running.")
                return
        await anyio.sleep(REFRESH_S)


class ChangeLog:
    """Logs the changes of this endpoint's jobs since it was made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._began = engine.now()
        self._since = self._began
        self._shown: dict[str, Status] = {}  # of the jobs that the next read may find

    async def read(self) -> list[Job]:
        """Log what changed since the last read; return the jobs that are not done, oldest first."""
        jobs = await self._find_changed_jobs()
        for job in jobs.values():
            if self._shown.get(job.id) is not job.status:
                logger.info("%s", describe_change(job))
        # A finished job may still have files to write.
        left = [job for job in jobs.values() if not job.is_terminal or job.needs_finalizing]
        # The next read may find a new job again, even if it is done.
        new = [job for job in jobs.values() if job.created_at >= self._find_since()]
        self._shown = {job.id: job.status for job in (*left, *new)}
        return left

    async def _find_changed_jobs(self) -> dict[str, Job]:
        """Return the active jobs, those that were active at the last read, and new ones that finished at once."""
        since, self._since = self._find_since(), self._engine.now()
        groups = [JobFilter(statuses=ACTIVE), JobFilter(since=since)]
        if self._shown:
            groups.append(JobFilter(job_ids=tuple(self._shown)))
        found = [job for group in groups for job in (await self._engine.find(group, GATHERED_MAX)).jobs]
        here = [job for job in found if job.turn.base_url == self._engine.base_url]
        # A later query has the later state of a job.
        return {job.id: job for job in sorted(here, key=lambda job: job.created_at)}

    def _find_since(self) -> float:
        """Return since when new jobs are read: one is stored a moment after the time of its creation."""
        return max(self._began, self._since - STORED_WITHIN_S)


def describe_change(job: Job) -> str:
    """Return a line of the log about a job, without anything that its caller or its model wrote."""
    if not job.is_terminal:
        return f"{job.id}: {job.status}"
    took = format_run_time(job, job.created_at)
    facts = [f"{job.id}: {job.status} after {took}", terminal.format_usd(job.cost_usd), job.error_code]
    return ", ".join(filter(None, facts))


def _describe_jobs_left(jobs: Sequence[Job]) -> str:
    """Return what becomes of the jobs when this process stops."""
    if not jobs:
        return "Stopped."
    return describe_detached(jobs, "The next host, `agent-jobs work` or `agent-jobs watch` collects what is left.")
