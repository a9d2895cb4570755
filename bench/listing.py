"""Measures questions to a store with many jobs: a host lists them, waits for some or starts one more."""

import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import TRANSITIONS, Status
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.store.values import Budget
from bench.figures import Figure

HERE = "https://api.openai.com/v1"
DAY_S = 86_400.0
DAYS = 30  # how long jobs are kept
ACTIVE = 10  # jobs that run or wait
UNREAD = 10  # ended jobs that no reader received
#: The newest jobs have requests with files and outputs with many searches; the others have one line.
LONG = 200
LONG_CHARS = 400_000
#: Statuses of ended jobs, as often as they occur.
ENDS = ("completed",) * 17 + ("incomplete", "failed", "cancelled")

Question = Callable[[Store, float], Awaitable[object]]


def new_job(now: float, number: int) -> Job:
    turn = Turn(number=1, request={"input": "x"}, request_id=str(uuid4()), base_url=HERE)
    return Job(
        id=f"job_n{number}_{uuid4().hex[:6]}",
        title=f"one more {number}",
        status=Status.PENDING,
        created_at=now,
        request_hash=f"new{number}",
        reserved_usd=1e-6,
        turn=turn,
    )


async def _start_and_cancel(store: Store, now: float) -> None:
    job = new_job(now, random.randrange(10**9))
    await store.add(job, budgets=[Budget(1e9, now - now % DAY_S)])
    await store.request_cancel(job.id, now)


async def _start_under_known_key(store: Store, now: float) -> None:
    assert [each and each.id for each in await store.add(replace(new_job(now, 0), key="key 7"))] == ["job_7"]


async def _launch_without_slot(store: Store, now: float) -> None:
    job = replace(new_job(now, random.randrange(10**9)), reserved_usd=None)
    await store.add(job)
    assert not await store.begin_sending(job.mark_sending(now), limit=1)
    await store.request_cancel(job.id, now)


async def _list_jobs(store: Store, now: float, group: JobFilter) -> None:
    await store.list_jobs(group, 20, now - now % DAY_S)


QUESTIONS: dict[str, Question] = {
    "the newest": lambda store, now: store.find(JobFilter(), 20),
    "status=completed": lambda store, now: store.find(JobFilter(statuses=frozenset({Status.COMPLETED})), 20),
    "status=open": lambda store, now: store.find(JobFilter(statuses=frozenset(TRANSITIONS)), 20),
    "batch=": lambda store, now: store.find(JobFilter(batch="batch 40"), 20),
    "days=1": lambda store, now: store.find(JobFilter(since=now - DAY_S), 20),
    "query=, a common word": lambda store, now: store.find(JobFilter(words="report"), 20),
    "whole agent_list: with counts and costs": lambda store, now: _list_jobs(store, now, JobFilter()),
    "whole agent_list status=completed": lambda store, now: _list_jobs(
        store, now, JobFilter(statuses=frozenset({Status.COMPLETED}))
    ),
    "whole agent_list days=1": lambda store, now: _list_jobs(store, now, JobFilter(since=now - DAY_S)),
    "what no process observes": lambda store, now: store.find_unobserved(JobFilter(), 1000),
    "agent_poll of whatever runs": lambda store, now: store.find(JobFilter(active=True, since=now - 7 * DAY_S), 1000),
    "agent_poll batch=": lambda store, now: store.find(JobFilter(batch="batch 40"), 1000),
    "agent_poll of one job": lambda store, now: store.get("job_99"),
    "the loop: next_at": lambda store, now: store.next_due_at(HERE),
    "the loop: due": lambda store, now: store.find_due(now - DAYS * DAY_S, HERE),
    "the loop: take_over": lambda store, now: store.reclaim_from_dead(now),
    "the loop: unpark": lambda store, now: store.claim_free_slots(HERE, 0),
    "a start on a budget, and its cancel": _start_and_cancel,
    "a start under a key that exists": _start_under_known_key,
    "a launch without a free slot, start and cancel": _launch_without_slot,
    "how many wait before it": lambda store, now: store.count_ahead(new_job(now, 1)),
}
#: Questions without a target: a word is searched in every title, a change waits for the disk, and the whole list is
#: several queries.
UNBOUNDED = ("query=", "a start on", "a launch", "whole")


async def questions(jobs: int, rounds: int) -> list[Figure]:
    """Return the milliseconds of each question to a store with this many jobs."""
    with tempfile.TemporaryDirectory() as folder:
        now = time.time()
        async with open_store(Path(folder)):
            pass
        fill(Path(folder) / "jobs.db", jobs, now)
        async with open_store(Path(folder)) as store:
            return [await _measure_question(store, what, question, now, rounds) for what, question in QUESTIONS.items()]


async def _measure_question(store: Store, what: str, question: Question, now: float, rounds: int) -> Figure:
    bounded = not any(word in what for word in UNBOUNDED)
    figure = Figure(what, "<= 1 ms" if bounded else "", (lambda figure: figure.p50 <= 1) if bounded else None)
    for number in range(rounds + 2):
        began = time.perf_counter()
        await question(store, now)
        if number >= 2:
            figure.ours.append((time.perf_counter() - began) * 1e3)
    return figure


async def searches(jobs: int, rounds: int) -> list[Figure]:
    """Return the milliseconds of searches over this many jobs, once they are in the index, and of summing them up."""
    with tempfile.TemporaryDirectory() as folder:
        now = time.time()
        async with open_store(Path(folder)):
            pass
        fill(Path(folder) / "jobs.db", jobs, now, has_prompts=True)
        async with open_store(Path(folder)) as store:
            await store.search("report", 1)  # makes the index
            return [await _measure_search(store, what, ask, rounds) for what, ask in SEARCHES.items()]


SEARCHES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "search, a rare word": lambda store: store.search("number4711", 10),
    "search, a word of every fourth job": lambda store: store.search("report", 10),
    "search, a rare word and two of every job": lambda store: store.search("number47 about word", 10),
    "search, three words of every job": lambda store: store.search("about some words", 10),
    "search, the beginnings of these words": lambda store: store.search("abou som wor", 10),
    "search, a phrase of every job": lambda store: store.search('"words of an"', 10),
    "search, failed jobs alone": lambda store: store.search("review", 10, frozenset({Status.FAILED})),
    "stats by day": lambda store: store.sum_spending(["day"], JobFilter(since=1.0)),
}


async def _measure_search(store: Store, what: str, ask: Callable[[Store], Awaitable[object]], rounds: int) -> Figure:
    is_search = what.startswith("search")
    figure = Figure(what, "<= 50 ms" if is_search else "", (lambda figure: figure.p50 <= 50) if is_search else None)
    for _ in range(rounds):
        began = time.perf_counter()
        await ask(store)
        figure.ours.append((time.perf_counter() - began) * 1e3)
    return figure


def fill(path: Path, jobs: int, now: float, *, has_prompts: bool = False) -> None:
    """Write this many jobs, all but a few of which ended in the last thirty days."""
    pick = random.Random(1)
    with sqlite3.connect(path) as db:
        for number in range(jobs):
            age_s = (jobs - number) / jobs * DAYS * DAY_S
            is_active, unread = number >= jobs - ACTIVE, jobs - ACTIVE - UNREAD <= number < jobs - ACTIVE
            status = pick.choice(ENDS)
            if is_active:
                status = ("in_progress", "pending")[number % 2]
            job = {
                "id": f"job_{number}",
                "title": f"{pick.choice(('report', 'review', 'question', 'study'))} about number {number}, " * 2,
                "status": status,
                "created_at": now - age_s,
                "finished_at": None if is_active else now - age_s + 60,
                "delivered_at": None if is_active or unread else now - age_s + 70,
                "request_hash": uuid4().hex * 2,
                "key": f"key {number}" if number % 10 == 7 else None,
                "batch": f"batch {number // 10}" if number % 20 < 10 else "",
                "cost_usd": None if is_active else 0.1,
                "next_at": now + 60 if is_active and status != "pending" else None,
                "turn": 1,
                "usage": json.dumps({"input_tokens": 1, "output_tokens": 1}),
            }
            names = ", ".join(job)
            db.execute(f"INSERT INTO job ({names}) VALUES ({', '.join(':' + name for name in job)})", job)
            if has_prompts:
                topic = job["title"].split()[0]
                text = f"Write a {topic} about words, number{number}. " + "It has some more words. " * 10
                db.execute("INSERT INTO prompt (number, job_id, text) VALUES (?, ?, ?)", (number, job["id"], text))
            length = LONG_CHARS if number >= jobs - LONG and not has_prompts else 100
            db.execute(
                "INSERT INTO turn (job_id, number, request_id, base_url) VALUES (?, 1, ?, ?)",
                (job["id"], str(uuid4()), HERE),
            )
            db.execute(
                "INSERT INTO request (job_id, turn, body) VALUES (?, 1, ?)",
                (job["id"], json.dumps({"input": "x" * length})),
            )
            if not is_active:
                output = "words of an answer " * 100 if has_prompts else "y" * length
                db.execute(
                    "INSERT INTO output (job_id, turn, text, response, bytes) VALUES (?, 1, ?, ?, ?)",
                    (job["id"], output, output, len(output)),
                )
    db.close()
