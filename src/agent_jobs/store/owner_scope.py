"""Limit statements to the jobs of one owner."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from agent_jobs.jobs.queries import JobFilter


class OwnerScope:
    """The jobs that a store may show and change: those of one owner, or all jobs.

    Every statement about jobs has one of its conditions with its `values`, so this decides who may see a job.
    """

    def __init__(self, owner: str | None = None) -> None:
        self.owner = owner
        self.values: dict[str, Any] = {}
        #: True of a row of `job` in the scope, and of a row whose `job_id` is that of such a job.
        self.job, self.part = "TRUE", "TRUE"
        if owner is not None:
            self.values = {"owner": owner}
            self.job = self.condition("job")
            self.part = f"EXISTS (SELECT 1 FROM job WHERE job.id = job_id AND {self.job})"

    def condition(self, table: str, column: str = "owner") -> str:
        """Return the condition on a row of a table that has a column with an owner's name."""
        if self.owner is None:
            return "TRUE"
        if self.owner == "":
            return f"{table}.{column} = :owner"
        # The second half lets an index of owners serve it.
        return f"{table}.{column} = :owner AND {table}.{column} <> ''"

    def restrict(self, group: JobFilter) -> JobFilter:
        """Return the part of a group that lies in the scope."""
        if self.owner is None:
            return group
        return replace(group, owner=self.owner)


@lru_cache
def _select_state(condition: str) -> str:
    return f"SELECT revision, status FROM job WHERE id = :id AND {condition}"


def select_state(scope: OwnerScope) -> str:
    """Return the statement that reads what a waiter compares of a job: the same text each time, whose hash is known."""
    return _select_state(scope.job)


#: All jobs.
ALL_OWNERS = OwnerScope()
