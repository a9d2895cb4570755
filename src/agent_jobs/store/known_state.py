"""The state in which a waiter last saw a job; the waiter wakes when it differs."""

from typing import NamedTuple

from agent_jobs.jobs.status import Status


class KnownState(NamedTuple):
    """The revision or the status of a job as a waiter read it."""

    job_id: str
    revision: int | None = None
    status: Status | None = None  #: instead of the revision: then the progress of a run wakes no waiter

    @property
    def sees_progress(self) -> bool:
        """Return True if progress of the run wakes the waiter, too."""
        return self.status is None

    def differs_from(self, revision: int, status: str) -> bool:
        """Return True if the job has another revision or status than the waiter knows."""
        if self.status is None:
            return revision != self.revision
        return status != self.status
