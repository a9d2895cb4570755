"""Decide which stored job answers a start, so that the same work is not paid for twice. Pure."""

from agent_jobs.jobs.job import Job
from agent_jobs.store.rows import ACTIVE_SQL

#: A completed job answers an identical request for this time, unless a reader received its result.
DUPLICATE_S = 600.0
#: A caller's own key names one job for good. Without a key these answer a start of the same work: an active job, an
#: undelivered result, or a start that may be running unknown to us. The endpoint belongs to the work: a prompt that
#: went to a wrong address is sent again once the address is right.
_SAME_KEY = "job.owner = :owner AND job.key = :key"
_SAME_WORK = f"""job.request_hash = :request_hash AND job.owner = :owner AND (
                     job.status IN {ACTIVE_SQL}
                     OR job.status = 'completed' AND job.delivered_at IS NULL
                        AND job.finished_at > :created_at - {DUPLICATE_S}
                     OR job.error_code = 'start_unconfirmed')
                 AND EXISTS (SELECT 1 FROM turn WHERE turn.job_id = job.id AND turn.number = job.turn
                             AND turn.base_url = :base_url)"""


def write_duplicate_condition(job: Job, *, allow_duplicate: bool) -> str:
    """Return the SQL condition of the jobs that answer this start.

    They are those with its key; without a key, those of the same work, unless `allow_duplicate`.
    """
    if job.key is not None:
        return _SAME_KEY
    if job.request_hash and not allow_duplicate:
        return _SAME_WORK
    return "FALSE"
