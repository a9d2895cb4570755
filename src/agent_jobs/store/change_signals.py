"""Wake the tasks of this process that wait for a change of a job."""

from collections.abc import Iterable

import anyio

from agent_jobs.store.known_state import KnownState


class ChangeSignals:
    """Events for the waiters of single jobs and for the waiters of any job."""

    def __init__(self) -> None:
        self._of_job: dict[tuple[str, bool], anyio.Event] = {}
        self._of_any = anyio.Event()
        self.count = 0  #: changes that this process announced

    def event_of(self, known: KnownState) -> anyio.Event:
        """Return the event that the next change of this job sets; progress sets it only if the waiter asked for it."""
        return self._of_job.setdefault((known.job_id, known.sees_progress), anyio.Event())

    def event_of_any(self) -> anyio.Event:
        """Return the event that the next change of any job sets."""
        return self._of_any

    def announce_changes(self, job_ids: Iterable[str], *, is_progress: bool = False) -> None:
        """Wake the waiters of these jobs, and those of any job."""
        for job_id in job_ids:
            self._wake_waiters(job_id, sees_progress=True)
            if not is_progress:
                self._wake_waiters(job_id, sees_progress=False)
        self.count += 1
        self._of_any.set()
        self._of_any = anyio.Event()

    def _wake_waiters(self, job_id: str, *, sees_progress: bool) -> None:
        if event := self._of_job.pop((job_id, sees_progress), None):
            event.set()
