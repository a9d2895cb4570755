"""Compute the time of a host's next poll, and of a worker's next retrieve. Pure."""

from agent_jobs.jobs.job import Job

#: A poll is worthwhile after a tenth of the job's age, but not more often than this: each costs tokens.
POLL_MIN_MS = 2_000
#: Nor later than this: a host should not learn of a finished job much later.
POLL_MAX_MS = 30_000
#: Longest distance between two retrieves while a caller waits for the job.
WATCHED_RETRIEVE_MAX_S = 5.0
#: Longest distance between two retrieves of a job that no caller waits for.
RETRIEVE_MAX_S = 30.0
#: The same for an old job, which runs for hours.
OLD_RETRIEVE_MAX_S = 60.0
#: The first retrieve of a job whose end a webhook will report, in case the webhook is lost. Most jobs end before it.
FAR_RETRIEVE_FIRST_S = 60.0
#: Longest distance between two of these retrieves.
FAR_RETRIEVE_MAX_S = 300.0
#: A job is old from this age on.
OLD_S = 1_800.0
#: Distances double up to this power of two, which is beyond every limit.
_MAX_DOUBLINGS = 10


def next_poll_ms(job: Job, now: float) -> int:
    """Return after how many milliseconds a poll that does not wait is worthwhile: a tenth of the job's age."""
    return min(POLL_MAX_MS, max(POLL_MIN_MS, round((now - job.created_at) / 10) * 1000))


def next_retrieve_s(job: Job, now: float) -> float:
    """Return the seconds until the next retrieve: 1 to 5 while a caller waits, else doubling up to 30 or 60."""
    if job.watched_until > now:
        return min(WATCHED_RETRIEVE_MAX_S, job.turn.polls + 1.0)
    limit_s = OLD_RETRIEVE_MAX_S if now - job.created_at > OLD_S else RETRIEVE_MAX_S
    return min(limit_s, 2.0 ** min(job.turn.polls, _MAX_DOUBLINGS))


def next_far_retrieve_s(job: Job) -> float:
    """Return the seconds until the next retrieve of a job whose end a webhook will report, doubling from 60 to 300."""
    return min(FAR_RETRIEVE_MAX_S, FAR_RETRIEVE_FIRST_S * 2.0 ** min(job.turn.polls, _MAX_DOUBLINGS))
