"""Report that a job cannot be sent or polled at the moment, for how long, and what happens next."""

from agent_jobs.cli.display import terminal
from agent_jobs.jobs.job import CANNOT_POLL, TRYING_AGAIN, Job
from agent_jobs.jobs.status import Status


def find_outage(job: Job) -> str:
    """Return why a job cannot be sent or polled at the moment; empty if it can."""
    activity = terminal.join_lines(job.activity)
    if job.status is Status.PENDING and activity.endswith(TRYING_AGAIN):
        return activity.removesuffix(TRYING_AGAIN)
    if not job.is_terminal and activity.startswith(CANNOT_POLL):
        return activity.removeprefix(CANNOT_POLL)
    return ""


def describe_outage(job: Job) -> str:
    """Return the sentences for a person who waits for a job that cannot be sent or polled."""
    reason = find_outage(job)
    if job.status is Status.PENDING:
        return (
            f"Not sent yet: {reason}. The job is kept, and sent as soon as possible. Ctrl-C leaves it to the next "
            "`agent-jobs watch` or `agent-jobs work`, or to a host."
        )
    if job.is_held_open:
        return f"Cannot ask the provider: {reason}. It is asked again until it answers. Ctrl-C ends the job."
    return (
        f"Cannot ask the provider: {reason}. It is asked again until it answers. Ctrl-C leaves the job running at the "
        "provider."
    )


class OutageClock:
    """How long a job could not be sent or polled."""

    def __init__(self) -> None:
        self._began: float | None = None

    def update(self, job: Job, now: float) -> bool:
        """Note the state of the job; return True if an outage begins with it."""
        was_out = self._began is not None
        if not find_outage(job):
            self._began = None
            return False
        if not was_out:
            self._began = now
        return not was_out

    @property
    def is_running(self) -> bool:
        """Return True during an outage."""
        return self._began is not None

    def describe(self, job: Job, now: float) -> str:
        """Return for how long the job of the last `update` has been out of reach, and why; empty if it is not."""
        if self._began is None:
            return ""
        return f"retrying for {terminal.format_elapsed(now - self._began)}: {find_outage(job)}"
