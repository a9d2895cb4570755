"""The waits between retries double up to a limit, with a random share."""

import random

import pytest

from agent_jobs.backoff import calculate_backoff_s, with_jitter


@pytest.mark.parametrize(
    ("attempt", "first_s", "most_s", "wait_s"),
    [
        (1, 2.0, 60.0, 2.0),
        (2, 2.0, 60.0, 4.0),
        (3, 2.0, 60.0, 8.0),
        (5, 2.0, 60.0, 32.0),
        (6, 2.0, 60.0, 60.0),
        (7, 2.0, 60.0, 60.0),
        (10**9, 2.0, 60.0, 60.0),
        (1, 0.5, 8.0, 0.5),
        (3, 0.5, 8.0, 2.0),
        (1, 5.0, 3.0, 3.0),
        # No attempt has failed yet.
        (0, 2.0, 60.0, 2.0),
        (-1, 2.0, 60.0, 2.0),
        (4, 0.0, 60.0, 0.0),
    ],
)
def test_wait_doubles_from_the_first_up_to_the_most(attempt: int, first_s: float, most_s: float, wait_s: float) -> None:
    assert calculate_backoff_s(attempt, first_s=first_s, most_s=most_s) == wait_s


@pytest.mark.parametrize(
    ("wait_s", "share", "most_s"),
    [(10.0, 0.1, 11.0), (10.0, 0.5, 15.0), (10.0, 0.0, 10.0), (0.0, 0.1, 0.0), (120.0, 0.1, 132.0)],
)
def test_jitter_only_lengthens_a_wait(wait_s: float, share: float, most_s: float) -> None:
    random.seed(0)
    waits = [with_jitter(wait_s, share=share) for _ in range(200)]
    assert min(waits) >= wait_s
    assert max(waits) <= most_s
    assert len(set(waits)) == 1 if most_s == wait_s else len(set(waits)) > 100


def test_jitter_without_a_share_is_a_tenth_at_most() -> None:
    assert all(5.0 <= with_jitter(5.0) <= 5.5 for _ in range(200))
