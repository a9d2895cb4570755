"""Ring the bell of a terminal when a long job has finished."""

import os
import sys
from collections.abc import Sequence

import click

from agent_jobs.cli.display import terminal
from agent_jobs.jobs.job import Job

#: Seconds of run time from which a job rings the bell: a user stays at the screen for shorter ones.
LONG_JOB_S = 60.0
TITLE_CHARS = 60
BELL = "\a"
#: A notice of the desktop, by terminals that know it (OSC 9). Others ignore it.
NOTICE = "\x1b]9;{text}\a"

bell_option = click.option("--no-bell", is_flag=True, help="No bell after a job that took more than a minute.")


def ring_bell(jobs: Sequence[Job], *, since: float) -> None:
    """Ring for jobs that took long and finished after `since`, if a person looks at this terminal.

    With NO_COLOR, in a pipe and on a terminal that knows no control characters, nothing is written.
    """
    finished = [job for job in jobs if _is_worth_a_bell(job, since)]
    if not finished or not terminal.has_colours(sys.stderr):
        return
    sys.stderr.write(BELL)
    if os.environ.get("TERM") != "linux":  # the console of Linux prints unknown sequences
        sys.stderr.write(NOTICE.format(text=_describe_finished(finished)))
    sys.stderr.flush()


def _is_worth_a_bell(job: Job, since: float) -> bool:
    if job.finished_at is None or job.finished_at < since:
        return False
    return job.finished_at - job.created_at >= LONG_JOB_S


def _describe_finished(jobs: Sequence[Job]) -> str:
    match jobs:
        case [job]:
            return f"agent-jobs: {job.status}: {terminal.join_lines(job.title)[:TITLE_CHARS]}"
        case _:
            return f"agent-jobs: {len(jobs)} jobs have finished"
