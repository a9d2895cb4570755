"""Distances between retries, which double up to a limit and differ a little between processes."""

import random

MAX_DOUBLINGS = 64  # more overflow a float, and every limit is reached long before
JITTER_SHARE = 0.1  # enough to spread retries of many jobs, and too little for a person to notice


def calculate_backoff_s(attempt: int, *, first_s: float, most_s: float) -> float:
    """Return the seconds to wait after a failed attempt: `first_s` after attempt 1, then doubling to `most_s`."""
    doublings = min(max(attempt - 1, 0), MAX_DOUBLINGS)
    return min(most_s, first_s * 2.0**doublings)


def with_jitter(wait_s: float, *, share: float = JITTER_SHARE) -> float:
    """Return a wait that is longer by a random part of `share`, never shorter."""
    return wait_s * random.uniform(1.0, 1.0 + share)
