"""Wakes the tasks of this process that wait for a change of a job."""

from collections.abc import Iterable

import anyio


class ChangeSignals:
    """Events for the waiters of single jobs and for the waiters of any job."""

    def __init__(self) -> None:
        self._of_job: dict[str, anyio.Event] = {}
        self._of_any = anyio.Event()
        self.count = 0  #: changes that this process announced

    def event_of(self, job_id: str) -> anyio.Event:
        """Return the event that the next change of this job sets."""
        return self._of_job.setdefault(job_id, anyio.Event())

    def event_of_any(self) -> anyio.Event:
        """Return the event that the next change of any job sets."""
        return self._of_any

    def announce_changes(self, job_ids: Iterable[str]) -> None:
        """Wake the waiters of these jobs, and those of any job."""
        for job_id in job_ids:
            if event := self._of_job.pop(job_id, None):
                event.set()
        self.count += 1
        self._of_any.set()
        self._of_any = anyio.Event()
