"""The contract of the `Store` protocol, tested with each kind of store."""

import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, get_args

import anyio
import pytest
from anyio.abc import Process
from anyio.lowlevel import checkpoint
from postgres_server import new_database, run_statements

from agent_jobs.clock import Clock
from agent_jobs.engine.job_waiter import JobWaiter, has_question
from agent_jobs.errors import BudgetError, StoreError
from agent_jobs.jobs.job import Job, Output, Turn
from agent_jobs.jobs.queries import (
    MATCH_BEGIN,
    MATCH_END,
    Event,
    JobFilter,
    JobOrder,
    SortKey,
    Spending,
    SpendingKey,
)
from agent_jobs.jobs.response import Call, Failure, Usage
from agent_jobs.jobs.response_steps import Step
from agent_jobs.jobs.status import TERMINAL, TRANSITIONS, Status
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.store.job_writes import PROGRESS_AT_ONCE
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.values import Budget, ResponseAddress

NOW = 1_800_000_000.0
HERE, ELSEWHERE = "https://here/v1", "https://elsewhere/v1"
PENDING, STARTING, QUEUED, IN_PROGRESS, INPUT_REQUIRED = TRANSITIONS
COMPLETED, FAILED, CANCELLED, EXPIRED = Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED


@dataclass(frozen=True)
class Database:
    """A database that any number of stores can open, in this process and in others."""

    open: Callable[[], AbstractAsyncContextManager[Store]]
    expression: str  #: opens the database in a program with the imports of PROGRAM
    nul: str  #: replaces NUL in a text
    place: str  #: the end of the path or address that the store shows
    kind: str  #: a pattern for the kind of database that the store shows
    notices_death_at_once: bool  #: by a lock; the alternative is a missed heartbeat


def sqlite_database(folder: Path) -> Database:
    expression = f"open_store(Path({str(folder)!r}))"
    return Database(lambda: open_store(folder, busy_timeout_s=30), expression, "\0", "jobs.db", "wal", True)


def postgres_database(url: str) -> Database:
    """Return a PostgreSQL database, which stores no NUL."""
    expression = f"open_store(Path(), PostgresAddress({url!r}))"
    return Database(
        lambda: open_store(Path(), PostgresAddress(url)),
        expression,
        "\ufffd",
        url.partition("@")[2].partition("/")[0],
        r"PostgreSQL \d.*",
        False,
    )


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield sqlite_database(tmp_path / "data")
        return
    url: str = request.getfixturevalue("postgres_url")
    yield postgres_database(url)
    tables = (
        "job",
        "mode",
        "tombstone",
        "replica",
        "owner",
        "token",
        "audit",
        "shelf",
        "webhook",
        "feed",
        "subscription",
    )
    run_statements(url, "; ".join(f"DELETE FROM {table}" for table in tables))


@pytest.fixture(scope="session")
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """Create one empty database: creating one for each test would take longer than the tests."""
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture
async def store(database: Database) -> AsyncGenerator[Store]:
    async with database.open() as store:
        yield store


@pytest.fixture
async def other(database: Database, store: Store) -> AsyncGenerator[Store]:
    """Open a second store on the same database, as another process would."""
    async with database.open() as other:
        yield other


PROGRAM = """
import sys
from pathlib import Path
import anyio
from agent_jobs.jobs.job import *
from agent_jobs.store import open_store
from agent_jobs.store.postgres_address import PostgresAddress

def a_job(job_id):
    turn = Turn(number=1, request={{}}, request_id="r", base_url={base_url!r})
    return Job(id=job_id, title="t", status=Status.PENDING, created_at={now}, turn=turn)

async def main():
    async with {expression} as store:
{body}

anyio.run(main)
"""


@asynccontextmanager
async def run_process(database: Database, *body: str) -> AsyncGenerator[Process]:
    """Run another process with the database open, from its first printed line until it is killed."""
    lines = "\n".join(f"        {line}" for line in body)
    program = PROGRAM.format(base_url=HERE, now=NOW, expression=database.expression, body=lines)
    async with await anyio.open_process([sys.executable, "-c", program], stderr=None) as process:
        assert process.stdout is not None
        try:
            with anyio.fail_after(60):
                await process.stdout.receive()
            yield process
        finally:
            if process.returncode is None:
                process.kill()


def a_job(job_id: str = "job_1", **changes: Any) -> Job:
    turn = Turn(number=1, request={"input": "hi"}, request_id=f"r-{job_id}", base_url=HERE)
    return replace(Job(id=job_id, title="t", status=PENDING, created_at=NOW, turn=turn), **changes)


def with_status(job: Job, status: Status, **changes: Any) -> Job:
    return replace(job, status=status, finished_at=NOW if status in TERMINAL else None, **changes)


def require_job(job: Job | None) -> Job:
    assert job is not None
    return job


async def read_job(store: Store, job_id: str = "job_1") -> Job:
    return require_job(await store.get(job_id))


async def add_job_in(store: Store, status: Status, *, job_id: str = "job_1", named: bool = True) -> Job:
    """Add a job, bring it to a status, and return it, with the response id resp_1 if it is `named`."""
    job = a_job(job_id)
    await store.add(job)
    if status is not PENDING:
        assert await store.begin_sending(job.mark_sending(NOW))
        if named and status is not STARTING:
            await store.record_response_id(job_id, 1, "resp_1", NOW)
        if status is not STARTING and (status is not QUEUED or not named):
            assert await store.save(with_status(await read_job(store, job_id), status))
    return await read_job(store, job_id)


async def add_unconfirmed_job(store: Store) -> Job:
    """Add a job whose POST was sent and whose response id never arrived."""
    job = await add_job_in(store, STARTING)
    assert await store.save(job.mark_failed("start_unconfirmed", "unknown", NOW))
    return await read_job(store)


async def test_lost_job_is_claimed_once_by_a_process_of_another_endpoint(database: Database, store: Store):
    long_ago, never = NOW + 1, 0.0
    async with database.open() as gone:
        await add_job_in(gone, IN_PROGRESS)
        await add_job_in(gone, PENDING, job_id="job_2")
        await add_job_in(gone, COMPLETED, job_id="job_3")
        assert await store.claim_lost(ELSEWHERE, sent_before=long_ago, created_before=long_ago) == [], "it is claimed"
        await gone.release_claims(NOW)
    assert await store.claim_lost(HERE, sent_before=long_ago, created_before=long_ago) == []
    assert await store.claim_lost(ELSEWHERE, sent_before=never, created_before=never) == []
    assert await store.claim_lost(ELSEWHERE, sent_before=long_ago, created_before=never) == ["job_1"]
    assert await store.claim_lost(ELSEWHERE, sent_before=long_ago, created_before=long_ago) == ["job_2"]
    assert await store.save((await read_job(store)).mark_failed("endpoint_lost", "no process came", NOW))


# Writing and reading jobs.


async def test_job_is_read_as_it_was_written(store: Store, other: Store):
    job = a_job(title="Überschrift 🎈", created_at=1_800_000_000.123)
    request = {"input": 'a "quoted"\nline', "tools": [{"type": "web_search"}], "n": 1.5, "none": None, "emoji": "👩‍🚀"}
    job = replace(job, turn=replace(job.turn, request=request))
    await store.add(job)
    assert replace(await read_job(store), revision=0) == job
    assert await read_job(other) == await read_job(store)
    assert await store.get_output(job.id) is None


async def test_ended_job_can_be_read_without_its_request(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    assert job.turn.request
    assert await store.save(with_status(job, COMPLETED, output=Output("out", {})))
    whole = await read_job(store)
    assert whole.output == Output("out")
    assert await store.get(job.id, has_request=False) == replace(whole, turn=replace(whole.turn, request={}))


async def test_missing_job_is_none_in_every_method(store: Store):
    unstored = a_job("job_unstored")
    assert await store.get("job_unstored") is None
    assert await store.get_output("job_unstored") is None
    assert await store.find(JobFilter(), 5) == []
    assert await store.begin_sending(unstored.mark_sending(NOW)) is False
    assert await store.record_response_id("job_unstored", 1, "resp_1", NOW) is None
    assert await store.save(unstored, held=False) is None
    assert await store.request_cancel("job_unstored", NOW) is None
    assert await store.claim_cancel("job_unstored", NOW, 30) is False
    await store.clear_cancel_claim("job_unstored")
    await store.mark_watched("job_unstored", NOW, NOW + 60)
    await store.schedule("job_unstored", NOW, 1)
    assert await store.next_due_at(HERE) is None
    with anyio.fail_after(60):
        await store.wait_for_change("job_unstored", 0)
    assert await store.find(JobFilter(), 5) == []


async def test_newest_jobs_come_first(store: Store, other: Store):
    for number in (2, 4, 1, 3):
        await store.add(a_job(f"job_{number}", created_at=NOW + number))
    assert [job.id for job in await other.find(JobFilter(), 3)] == ["job_4", "job_3", "job_2"]
    assert len(await store.find(JobFilter(), 9)) == 4


async def test_list_and_counts_are_read_in_one_transaction(store: Store, other: Store):
    jobs = [await add_job_in(store, IN_PROGRESS, job_id=f"job_{number}") for number in range(30)]
    async with anyio.create_task_group() as tasks:

        async def end_all() -> None:
            for job in jobs:
                assert await other.save(with_status(job, COMPLETED), held=False)
            tasks.cancel_scope.cancel()

        tasks.start_soon(end_all)
        while True:
            listed = await store.list_jobs(JobFilter(), 99, 0.0)
            assert Counter(job.status for job in listed.jobs) == listed.counts


async def test_job_that_no_process_observes_is_found_without_its_request(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    assert await other.find_unobserved(JobFilter(), 10) == [], "this process has claimed it"
    await store.release_claim("job_1", NOW)
    [found] = await other.find_unobserved(JobFilter(), 10)
    assert (found.id, found.turn.response_id, found.turn.request) == ("job_1", "resp_1", {})
    assert (await read_job(other)).turn.request == {"input": "hi"}


async def test_finished_job_is_traced_by_one_process(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS, job_id="job_running")
    unfinished = await add_job_in(store, IN_PROGRESS, job_id="job_with_files")
    await store.save(replace(with_status(unfinished, COMPLETED), needs_finalizing=True))
    ended = [(await add_job_in(store, COMPLETED, job_id=f"job_{n}")).id for n in range(12)]
    claimed: list[str] = []

    async def claim(by: Store) -> None:
        while ids := await by.claim_traces(NOW - 1, 3):
            claimed.extend(ids)

    async with anyio.create_task_group() as tasks:
        for by in (store, other, store, other):
            tasks.start_soon(claim, by)
    assert sorted(claimed) == sorted(ended)
    assert await store.claim_traces(NOW - 1, 3) == []


async def test_job_that_finishes_again_is_traced_again(store: Store):
    await add_unconfirmed_job(store)
    assert await store.claim_traces(NOW - 1, 3) == ["job_1"]
    found = require_job(await store.record_response_id("job_1", 1, "resp_1", NOW + 1))
    assert await store.claim_traces(NOW - 1, 3) == []
    assert await store.find_due(NOW + 1, HERE) == ["job_1"]
    assert await store.save(replace(with_status(found, COMPLETED), finished_at=NOW + 2))
    assert await store.claim_traces(NOW - 1, 3) == ["job_1"]


async def test_job_id_is_used_once(store: Store, other: Store):
    before = await add_job_in(store, IN_PROGRESS)
    with pytest.raises(StoreError):
        await other.add(a_job(title="another"))
    assert await read_job(store) == before


async def test_new_job_is_due_in_no_process_because_its_own_one_runs_it(store: Store, other: Store):
    await store.add(a_job())
    for process in (store, other):
        assert await process.next_due_at(HERE) is None
        assert await process.find_due(NOW + 1e6, HERE) == []


# The right to POST.


async def test_one_process_begins_a_pending_job(store: Store, other: Store):
    await store.add(a_job())
    won: list[Store] = []

    async def begin(process: Store) -> None:
        if await process.begin_sending(a_job().mark_sending(NOW + 7)):
            won.append(process)

    async with anyio.create_task_group() as tasks:
        for process in (other, store, other, store):
            tasks.start_soon(begin, process)
    assert won == [store]
    job = await read_job(store)
    assert (job.status, job.turn.attempt, job.turn.sent_at) == (STARTING, 1, NOW + 7)


async def test_refused_begin_changes_nothing(store: Store, other: Store):
    await store.add(a_job())
    before = await read_job(store)
    assert not await other.begin_sending(a_job().mark_sending(NOW))
    assert await read_job(store) == before


@pytest.mark.parametrize("status", [status for status in Status if status not in (PENDING, EXPIRED)])
async def test_job_that_is_not_pending_cannot_be_begun(store: Store, status: Status):
    before = await add_job_in(store, status, named=False)
    assert not await store.begin_sending(before.mark_sending(NOW + 9))
    assert await read_job(store) == before


async def test_cancelled_job_cannot_be_posted(store: Store, other: Store):
    await store.add(a_job())
    await other.request_cancel("job_1", NOW)
    assert not await store.begin_sending(a_job().mark_sending(NOW))
    assert (await read_job(store)).status is CANCELLED


async def test_post_that_was_not_accepted_can_be_begun_again(store: Store):
    job = await add_job_in(store, STARTING)
    back = require_job(await store.save(job.mark_not_sent("busy; trying again")))
    assert (back.status, back.activity, back.turn.attempt) == (PENDING, "busy; trying again", 1)
    assert await store.begin_sending(back.mark_sending(NOW + 9))
    again = await read_job(store)
    assert (again.status, again.turn.attempt, again.turn.sent_at, again.activity) == (STARTING, 2, NOW + 9, "")


# The response id.


@pytest.mark.parametrize("status", [status for status in Status if status is not EXPIRED])
async def test_response_id_is_stored_in_every_status(store: Store, other: Store, status: Status):
    before = await add_job_in(store, status, named=False)
    job = require_job(await other.record_response_id("job_1", 1, "resp_9", NOW + 9))
    assert job == await read_job(store)
    assert job.turn.response_id == "resp_9"
    assert job.status is (QUEUED if status in (PENDING, STARTING) else status)
    assert job.finished_at == before.finished_at


@pytest.mark.parametrize("status", [status for status in Status if status not in (PENDING, STARTING)])
async def test_first_response_id_is_kept(store: Store, other: Store, status: Status):
    before = await add_job_in(store, status)
    job = require_job(await other.record_response_id("job_1", 1, "resp_9", NOW + 9))
    assert (job.turn.response_id, job.status) == ("resp_1", before.status)


async def test_response_id_reopens_an_unconfirmed_start_for_the_first_process(store: Store, other: Store):
    await add_unconfirmed_job(store)
    job = require_job(await other.record_response_id("job_1", 1, "resp_9", NOW + 9))
    assert (job.status, job.error, job.finished_at, job.turn.response_id) == (QUEUED, None, None, "resp_9")
    assert await store.next_due_at(HERE) == NOW + 9
    assert await other.find_due(NOW + 9, HERE) == ["job_1"]


async def test_response_id_reopens_a_job_of_a_lost_endpoint(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    await store.save(job.mark_failed("endpoint_lost", "no process came", NOW))
    again = require_job(await other.record_response_id("job_1", 1, "resp_1", NOW + 9))
    assert (again.status, again.error, again.finished_at) == (QUEUED, None, None)
    assert await other.find_due(NOW + 9, HERE) == ["job_1"]


async def test_response_id_reopens_no_other_failure(store: Store):
    job = await add_job_in(store, STARTING)
    await store.save(job.mark_failed("upstream_rejected", "no", NOW))
    again = require_job(await store.record_response_id("job_1", 1, "resp_9", NOW + 9))
    assert (again.status, again.error) == (FAILED, Failure("upstream_rejected", "no"))


async def test_response_id_returns_a_cancel_requested_before_it(store: Store, other: Store):
    await add_job_in(store, STARTING)
    await other.request_cancel("job_1", NOW + 3)
    job = require_job(await store.record_response_id("job_1", 1, "resp_1", NOW + 9))
    assert job.cancel_requested_at == NOW + 3


# Changes by a poll or an event.


@pytest.mark.parametrize("before", Status)
async def test_status_is_written_only_if_the_table_allows_it(store: Store, before: Status):
    """Progress within an active status is written too; a final status is written once."""
    for after in Status:
        job = await add_job_in(store, before, job_id=f"job_{after}")
        saved = await store.save(with_status(job, after, activity="new"), held=False)
        if after in TRANSITIONS.get(before, ()) or (after is before and before not in TERMINAL):
            assert saved is not None, after
            assert saved == await read_job(store, job.id)
            assert (saved.status, saved.activity) == (after, "new")
        else:
            assert saved is None, after
            assert await read_job(store, job.id) == job


async def test_result_of_a_poll_is_written(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    seen = replace(
        job,
        activity="3 searches",
        observed_by="following",
        usage=Usage(input_tokens=1, cached_tokens=2, output_tokens=3, reasoning_tokens=4),
        turn=replace(
            job.turn,
            sequence_number=8,
            polls=5,
            polled_at=NOW + 5,
            not_found_count=2,
            not_found_since=NOW + 1,
            empty_completions=1,
            stream_failures=2,
            partial="so far",
        ),
    )
    saved = require_job(await store.save(seen))
    assert replace(saved, revision=job.revision) == seen
    assert await read_job(other) == saved


async def test_progress_stores_the_position_of_a_stream_and_returns_a_cancel(
    database: Database, store: Store, other: Store
):
    job = await add_job_in(store, IN_PROGRESS)
    await other.request_cancel(job.id, NOW + 3)
    second = await add_job_in(store, IN_PROGRESS, job_id="job_2")
    reported, more = (
        job.with_progress(8, "3 searches", "so\x00 far", "why"),
        second.with_progress(2, "writing", "\ud83d", ""),
    )
    assert await store.save_progress([reported, more]) == {job.id: NOW + 3, second.id: None}
    assert (await read_job(other, "job_2")).turn == replace(more.turn, partial="?")
    written = await read_job(other)
    expected = replace(reported.turn, partial=f"so{database.nul} far")
    assert (written.activity, written.observed_by, written.turn) == ("3 searches", "following", expected)
    assert (written.status, written.cancel_requested_at) == (IN_PROGRESS, NOW + 3)
    await store.save_progress([job.with_progress(5, "", "late", "")])
    assert (await read_job(other)).turn.sequence_number == 8, "a cursor never falls"


async def test_progress_of_more_jobs_than_one_change_writes_is_stored(store: Store, other: Store):
    jobs = [await add_job_in(store, IN_PROGRESS, job_id=f"job_{number}") for number in range(2 * PROGRESS_AT_ONCE + 1)]
    await other.request_cancel(jobs[-1].id, NOW + 3)
    reported = [job.with_progress(number, f"step {number}", "", "") for number, job in enumerate(jobs)]
    assert await store.save_progress(reported) == {job.id: None for job in jobs} | {jobs[-1].id: NOW + 3}
    activities = [(await read_job(other, job.id)).activity for job in jobs]
    assert activities == [job.activity for job in reported]
    assert await store.save_progress([]) == {}


@pytest.mark.parametrize("status", [PENDING, INPUT_REQUIRED, *TERMINAL])
async def test_progress_is_saved_only_by_the_claiming_process_of_a_running_job(
    store: Store, other: Store, status: Status
):
    running = await add_job_in(store, IN_PROGRESS, job_id="job_2")
    reported = running.with_progress(8, "writing", "so far", "")
    assert await other.save_progress([reported]) == {}
    assert await read_job(store, "job_2") == running
    job = await add_job_in(store, status)
    assert await store.save_progress([replace(job, activity="writing"), reported]) == {"job_2": None}
    assert await read_job(store) == job
    assert (await read_job(store, "job_2")).turn == reported.turn


async def test_unclaimed_job_is_saved_only_without_the_check_of_the_claim(store: Store, other: Store):
    job = await add_job_in(store, QUEUED)
    assert await other.save(with_status(job, IN_PROGRESS)) is None
    assert await read_job(store) == job
    saved = require_job(await other.save(with_status(job, IN_PROGRESS), held=False))
    assert saved.status is IN_PROGRESS
    assert await store.save(with_status(saved, COMPLETED)) is not None, "the first process still has the claim"


async def test_saving_a_stale_job_overwrites_no_newer_change(store: Store, other: Store):
    stale = await add_job_in(store, STARTING)
    await other.record_response_id("job_1", 1, "resp_1", NOW)
    await other.request_cancel("job_1", NOW + 3)
    await other.mark_watched("job_1", NOW, NOW + 60)
    saved = require_job(await store.save(with_status(stale, IN_PROGRESS, activity="writing")))
    assert (saved.status, saved.activity) == (IN_PROGRESS, "writing")
    assert (saved.cancel_requested_at, saved.watched_until) == (NOW + 3, NOW + 60)
    assert (saved.turn.response_id, saved.turn.attempt, saved.turn.sent_at) == ("resp_1", 1, NOW)


@pytest.mark.parametrize(
    ("there", "saved", "kept"), [(None, None, None), (None, 4, 4), (4, None, 4), (4, 3, 4), (4, 9, 9)]
)
async def test_sequence_number_never_falls(store: Store, there: int | None, saved: int | None, kept: int | None):
    job = await add_job_in(store, IN_PROGRESS)
    for number in (there, saved):
        await store.save(replace(job, turn=replace(job.turn, sequence_number=number)))
    assert (await read_job(store)).turn.sequence_number == kept


async def test_huge_sequence_number_does_not_lose_its_event(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    response = {"id": "resp_1", "status": "completed", "output": [{"type": "message", "content": [{"text": "done"}]}]}
    saved = require_job(await store.save(job.apply_event({"sequence_number": 2**80, "response": response}, NOW)))
    assert saved.status is COMPLETED


@pytest.mark.parametrize("first", TERMINAL)
async def test_finished_job_is_written_once_with_its_output(store: Store, first: Status):
    job = await add_job_in(store, QUEUED)
    end = with_status(
        job, first, error=Failure("code", "why"), usage=Usage(output_tokens=3), output=Output("out", {"a": 1})
    )
    assert await store.save(end)
    written = await read_job(store)
    assert (written.status, written.error, written.usage) == (first, Failure("code", "why"), Usage(output_tokens=3))
    for second in Status:
        late = with_status(job, second, error=Failure("late", ""), output=Output("late", {}))
        assert await store.save(late, held=False) is None
        assert await store.save(late) is None
    assert await read_job(store) == written
    assert await store.get_output("job_1") == Output("out", {"a": 1})


async def test_one_of_several_simultaneous_ends_is_written_in_full(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    won: list[str] = []

    async def end(process: Store, name: str, status: Status) -> None:
        last = with_status(job, status, error=Failure(name, ""), output=Output(name, {}))
        if await process.save(last, held=False):
            won.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end, store, "first", COMPLETED)
        tasks.start_soon(end, other, "second", CANCELLED)
        tasks.start_soon(end, store, "third", FAILED)
    [name] = won
    assert (await read_job(store)).error == Failure(name, "")
    assert await other.get_output("job_1") == Output(name, {})


async def test_finished_job_is_not_claimed_and_never_due(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    await store.schedule("job_1", NOW, 5)
    await store.save(with_status(job, COMPLETED))
    await store.schedule("job_1", NOW, 1)
    await store.mark_watched("job_1", NOW, NOW + 60)
    await store.release_claims(NOW)
    for process in (store, other):
        assert await process.next_due_at(HERE) is None
        assert await process.find_due(NOW + 1e6, HERE) == []


async def test_refused_save_writes_no_output(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    assert await other.save(with_status(job, COMPLETED, output=Output("x", {}))) is None
    assert await store.get_output("job_1") is None


OUTPUTS = {
    "nothing": "",
    "5 MB": "0123456789abcdef" * 327_680,
    "5 MB of emoji": "👩‍🚀" * 480_000,
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85\u2028\u2029\ufeff\ufffe\x00",
    "right to left": "שלום \u202eعالم\u202c",
    "quotes": "'\"\\`;-- DROP TABLE job" * 50,
}


@pytest.mark.parametrize("text", OUTPUTS.values(), ids=OUTPUTS)
async def test_output_is_read_as_it_was_written(database: Database, store: Store, other: Store, text: str):
    job = await add_job_in(store, IN_PROGRESS)
    output = Output(text, {"output": [{"text": text, "n": 1.25, "none": None, "deep": [[{"": []}]]}]})
    assert await store.save(with_status(job, COMPLETED, output=output))
    assert await other.get_output("job_1") == replace(output, text=text.replace("\0", database.nul))


HALF = "cut \ud83d emoji"  # valid in JSON, where a server cut a text by UTF-16 units


async def test_half_a_surrogate_pair_does_not_lose_a_result(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    output = Output(HALF, {"output": [{"text": HALF}]})
    require_job(await store.save(with_status(job, COMPLETED, output=output, activity=HALF, error=Failure(HALF, HALF))))
    kept = await store.get_output("job_1")
    assert kept is not None
    assert kept.text.startswith("cut ")
    assert kept.text.encode().endswith(b" emoji")


async def test_half_a_surrogate_pair_in_a_prompt_is_no_crash(store: Store):
    job = a_job(title=HALF)
    await store.add(replace(job, turn=replace(job.turn, request={"input": HALF})))
    assert (await read_job(store)).title.encode().endswith(b" emoji")


# Calls of a turn.


def output_with_calls(*calls: str) -> Output:
    """Return the output of a turn that ended with these calls."""
    items = [{"type": "function_call", "call_id": each, "name": f"box__{each}", "arguments": "{}"} for each in calls]
    return Output("", {"status": "completed", "output": items})


async def add_job_with_calls(store: Store, *calls: str) -> Job:
    """Add a job whose turn ended with calls."""
    job = await add_job_in(store, IN_PROGRESS)
    return require_job(
        await store.save(replace(job, turn=replace(job.turn, has_open_calls=True), output=output_with_calls(*calls)))
    )


async def add_waiting_job(store: Store, *calls: str) -> Job:
    """Add a job that waits for the outputs of its calls."""
    job = await add_job_with_calls(store, *calls)
    for call in await store.get_calls(job.id):
        assert await store.save_call(job, replace(call, needs="output"), "open")
    assert await store.wait_for_input(job, NOW, 600.0)
    return await read_job(store)


async def read_call_states(store: Store) -> list[str]:
    return [call.state for call in await store.get_calls("job_1")]


async def test_calls_of_a_turn_are_stored_and_read_in_order(store: Store, other: Store):
    job = await add_job_with_calls(store, "b", "a")
    asked = [Call(id=name, kind="function", name=f"box__{name}", arguments="{}") for name in ("b", "a")]
    assert await other.get_calls(job.id) == await other.get_calls(job.id, 1) == asked
    assert await other.get_calls(job.id, 2) == await other.get_calls("job_unstored") == []


async def test_turn_saved_twice_does_not_reopen_its_calls(store: Store):
    job = await add_job_with_calls(store, "a")
    [call] = await store.get_calls(job.id)
    assert await store.save_call(job, replace(call, state="done", output={"ö": [1, None]}), "open")
    assert await store.save(replace(job, output=output_with_calls("a")))
    assert [(call.state, call.output) for call in await store.get_calls(job.id)] == [("done", {"ö": [1, None]})]


async def test_call_is_changed_by_one_caller_that_knows_its_state(store: Store):
    job = await add_job_with_calls(store, "a")
    [call] = await store.get_calls(job.id)
    won: list[int] = []

    async def take(number: int) -> None:
        if await store.save_call(job, replace(call, state="running"), "open", "approved"):
            won.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(take, number)
    assert len(won) == 1
    assert not await store.save_call(job, replace(call, state="done"), "open", "approved")
    assert await read_call_states(store) == ["running"]


async def test_process_without_the_claim_changes_no_call_and_begins_no_turn(store: Store, other: Store):
    job = await add_job_with_calls(store, "a")
    [call] = await store.get_calls(job.id)
    assert not await other.save_call(job, replace(call, state="running"), "open")
    assert not await other.begin_next_turn(job.with_next_turn({}, "r-2"))
    assert (await read_call_states(store), (await read_job(store)).turn.number) == (["open"], 1)


async def test_reply_is_stored_in_full_and_continues_the_job_after_the_last_answer(store: Store, other: Store):
    job = await add_waiting_job(store, "a", "b")
    a, b = [replace(call, state="done", output="1") for call in await store.get_calls(job.id)]
    assert await other.record_reply(job, [a], NOW + 1)
    assert ((await read_job(store)).status, await store.next_due_at(HERE)) == (INPUT_REQUIRED, NOW + 1)
    assert not await other.record_reply(job, [b, a], NOW + 2)
    assert await read_call_states(store) == ["done", "open"]
    assert await other.record_reply(job, [b], NOW + 3)
    assert ((await read_job(store)).status, await store.next_due_at(HERE)) == (IN_PROGRESS, NOW + 3)
    assert not await other.record_reply(job, [b], NOW + 4)


async def test_job_answered_in_the_meantime_does_not_wait(store: Store, other: Store):
    job = await add_waiting_job(store, "a")
    [call] = await store.get_calls(job.id)
    assert await other.record_reply(job, [replace(call, state="done", output="1")], NOW + 1)
    assert not await store.wait_for_input(job, NOW + 2, 600.0)
    assert (await read_job(store)).status is IN_PROGRESS


async def test_reply_to_a_cancelled_job_changes_nothing(store: Store, other: Store):
    job = await add_waiting_job(store, "a")
    [call] = await store.get_calls(job.id)
    assert require_job(await other.request_cancel(job.id, NOW)).status is CANCELLED
    assert not await other.record_reply(job, [replace(call, state="done")], NOW + 1)
    assert await read_call_states(store) == ["open"]


async def test_next_turn_is_begun_once_and_adds_up_the_previous_ones(store: Store, other: Store):
    job = replace(await add_job_with_calls(store, "a"), usage=Usage(input_tokens=5), cost_usd=0.25)
    going_on = job.with_next_turn({"input": "outputs"}, "r-2", rebuilt=True)
    assert await store.begin_next_turn(going_on)
    assert not await store.begin_next_turn(going_on)
    seen = await read_job(other)
    assert (seen.turn.number, seen.turn.request, seen.turn.request_id) == (2, {"input": "outputs"}, "r-2")
    assert (seen.turn.rebuilt, seen.turn.has_open_calls, seen.turn.response_id, seen.has_unsent_turn) == (
        True,
        False,
        None,
        True,
    )
    assert (seen.usage_before, seen.cost_before_usd) == (Usage(input_tokens=5), 0.25)
    assert await store.begin_sending(seen.mark_sending(NOW + 9))
    assert ((await read_job(other)).status, (await read_job(other)).turn.sent_at) == (IN_PROGRESS, NOW + 9)


async def test_run_time_counts_from_the_first_post_without_the_time_spent_waiting(store: Store, other: Store):
    job = await add_waiting_job(store, "a", "b")
    a, b = [replace(call, state="done", output="1") for call in await store.get_calls(job.id)]
    assert [job.overdue_s(NOW + later_s, 60.0) for later_s in (0.0, 900.0)] == [-60.0, -60.0]
    assert await other.record_reply(job, [a], NOW + 500.0)
    assert await store.wait_for_input(await read_job(store), NOW + 501.0, 600.0)
    assert await other.record_reply(job, [b], NOW + 900.0)
    assert (await read_job(store)).overdue_s(NOW + 950.0, 60.0) == -10.0
    assert await store.begin_next_turn((await read_job(store)).with_next_turn({}, "r-2"))
    assert await store.begin_sending((await read_job(store)).mark_sending(NOW + 950.0))
    assert (await read_job(other)).overdue_s(NOW + 970.0, 60.0) == 10.0


async def test_turn_over_the_budget_is_not_begun(store: Store, other: Store):
    await store.add(a_job("job_2", reserved_usd=1.0))
    job = replace(await add_job_with_calls(store, "a"), cost_usd=0.5)
    going_on = replace(job.with_next_turn({}, "r-2"), reserved_usd=1.5)
    with pytest.raises(BudgetError, match=r"up to 2\.50 USD"):
        await store.begin_next_turn(going_on, [Budget(2.4, NOW - 1)])
    assert (await read_job(other)).turn.number == 1
    assert (await store.list_jobs(JobFilter(), 1, NOW - 1)).today_usd == 1.0
    assert await store.begin_next_turn(going_on, [Budget(2.5, NOW - 1)])
    assert (await read_job(other)).turn.number == 2
    assert (await store.list_jobs(JobFilter(), 1, NOW - 1)).today_usd == 2.5


async def delete_one(store: Store) -> object:
    return await store.delete_jobs(["job_1"])


async def purge_one(store: Store) -> object:
    return await store.purge(NOW + 1, unread=True)


@pytest.mark.parametrize(
    ("cost", "counted"),
    [
        ({"cost_usd": 0.5, "reserved_usd": 4.0, "cost_before_usd": 0.25}, 0.5),
        ({"reserved_usd": 4.0, "cost_before_usd": 0.25}, 4.0),
        ({"cost_before_usd": 0.25}, 0.25),
        ({}, 0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("delete", [delete_one, purge_one])
async def test_deleted_job_counts_toward_the_budget_of_its_day(
    store: Store,
    other: Store,
    delete: Callable[[Store], Awaitable[object]],
    cost: dict[str, float | None],
    counted: float,
):
    day = 86_400.0
    none: dict[str, float | None] = {"cost_usd": None, "reserved_usd": None, "cost_before_usd": None}
    await store.add(a_job())
    await store.transition("job_1", lambda job: replace(with_status(job, FAILED), **{**none, **cost}))
    await store.add(a_job("job_2", request_hash="2", reserved_usd=1.0))

    async def sums(since: float) -> list[float]:
        page = await other.list_jobs(JobFilter(), 1, since)
        return [page.today_usd, await other.sum_day(since, spent=False), await other.sum_day(since, spent=True)]

    before = await sums(NOW)
    assert before == [counted + 1.0, counted + 1.0, counted]
    assert await delete(store)
    assert await store.get("job_1") is None
    assert await sums(NOW) == before
    assert await sums(NOW - day) == await sums(NOW + day) == [0.0, 0.0, 0.0]
    start = a_job("job_3", request_hash="3", reserved_usd=1.0)
    with pytest.raises(BudgetError, match=f"up to {counted + 2:.2f} USD"):
        await other.add(start, budgets=[Budget(counted + 1.9, NOW)])
    with pytest.raises(BudgetError, match=rf"is spent \({counted:.2f} USD\)"):
        await other.add(start, budgets=[Budget(counted, NOW, spent=True)])
    assert await other.add(start, budgets=[Budget(counted + 2.0, NOW)]) == [None]


async def test_cancelled_job_begins_no_further_turn(store: Store, other: Store):
    job = await add_job_with_calls(store, "a")
    await other.request_cancel(job.id, NOW)
    assert not await store.begin_next_turn(job.with_next_turn({}, "r-2"))
    assert (await read_job(store)).turn.number == 1


# Events, for people.


async def test_events_of_a_job_are_read_in_order_of_time(store: Store, other: Store):
    await add_job_in(store, STARTING)
    await add_job_in(store, STARTING, job_id="job_2")
    await store.record_event("job_1", NOW + 2, "looked", "HTTP 502")
    await other.record_event("job_1", NOW + 1, "sent")
    await store.record_event("job_2", NOW, "sent", "🎈")
    assert await store.get_events("job_1") == [Event(NOW + 1, "sent", ""), Event(NOW + 2, "looked", "HTTP 502")]
    assert await other.get_events("job_2") == [Event(NOW, "sent", "🎈")]
    assert await store.get_events("job_3") == []


# Cancels.


@pytest.mark.parametrize("status", Status)
async def test_cancel_ends_an_idle_job_marks_a_running_one_and_ignores_a_finished_one(
    store: Store, other: Store, status: Status
):
    before = await add_job_in(store, status)
    job = require_job(await other.request_cancel("job_1", NOW + 3))
    assert job == await read_job(store)
    if status in (PENDING, INPUT_REQUIRED):  # nothing runs upstream
        assert (job.status, job.finished_at, job.error) == (CANCELLED, NOW + 3, None)
        assert await store.next_due_at(HERE) is None
        assert await store.find_due(NOW + 1e6, HERE) == []
    elif status in TERMINAL:
        assert job == before
    else:
        assert (job.status, job.cancel_requested_at, job.finished_at) == (status, NOW + 3, None)
        again = require_job(await store.request_cancel("job_1", NOW + 9))
        assert again.cancel_requested_at == NOW + 3


@pytest.mark.parametrize("observed_by", ["following", "polling", ""])
async def test_running_job_is_due_soon_after_its_cancel_was_requested(store: Store, other: Store, observed_by: Any):
    """The process that was to send it may have died since."""
    job = await add_job_in(store, IN_PROGRESS)
    await store.save(replace(job, observed_by=observed_by))
    await store.schedule("job_1", NOW, 300, 300)
    await other.request_cancel("job_1", NOW + 10)
    assert await store.next_due_at(HERE) == NOW + 15
    assert await store.find_due(NOW + 15, HERE) == ["job_1"]


async def test_cancel_that_comes_during_a_step_is_seen_at_its_end(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.schedule("job_1", NOW, 0)
    assert await store.find_due(NOW, HERE) == ["job_1"]
    await other.request_cancel("job_1", NOW + 1)
    await store.schedule("job_1", NOW + 2, 300, 300)
    assert await store.find_due(NOW + 2, HERE) == ["job_1"]
    await store.schedule("job_1", NOW + 3, 20, 20)
    assert await store.find_due(NOW + 22, HERE) == [], "the step after it knows when to ask again"


async def test_cancel_is_sent_by_one_caller_at_a_time(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    won: list[Store] = []

    async def claim(process: Store) -> None:
        if await process.claim_cancel("job_1", NOW, 30):
            won.append(process)

    async with anyio.create_task_group() as tasks:
        for process in (store, other, store, other):
            tasks.start_soon(claim, process)
    assert len(won) == 1
    assert not await store.claim_cancel("job_1", NOW + 29, 30)
    assert await other.claim_cancel("job_1", NOW + 30, 30)
    assert not await store.claim_cancel("job_1", NOW + 31, 30)


async def test_failed_cancel_can_be_sent_by_the_next_caller(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    assert await store.claim_cancel("job_1", NOW, 30)
    await store.clear_cancel_claim("job_1")
    assert await other.claim_cancel("job_1", NOW + 1, 30)


# Notifications.


async def take_notification(
    store: Store, *, since: float = NOW - 600, settled_before: float = NOW, asked_before: float = NOW + 9
) -> str | None:
    """Claim the next pending notification; return its job's id, or None."""
    found = await store.pending_notification(since, settled_before=settled_before, asked_before=asked_before)
    return found[0] if found is not None and await store.claim_notification(*found) else None


@pytest.mark.parametrize("end", sorted(TERMINAL))
async def test_finished_job_is_notified_to_one_caller(store: Store, other: Store, end: Status):
    running = await add_job_in(store, IN_PROGRESS)
    assert await take_notification(store) is None
    assert await store.save(with_status(running, end))
    reported: list[str | None] = []

    async def ask(process: Store) -> None:
        reported.append(await take_notification(process))

    async with anyio.create_task_group() as tasks:
        for process in (store, other, store, other):
            tasks.start_soon(ask, process)
    assert sorted(reported, key=str) == [None, None, None, "job_1"]


async def test_outdated_notification_cannot_be_claimed(store: Store):
    lost = replace(with_status(await add_job_in(store, STARTING), FAILED), error=Failure("start_unconfirmed", "x"))
    assert await store.save(lost)
    found = await store.pending_notification(NOW - 600, settled_before=NOW, asked_before=NOW)
    assert found == ("job_1", NOW)
    await store.record_response_id("job_1", 1, "resp_1", NOW + 1)
    assert not await store.claim_notification("job_1", NOW)
    assert not await store.claim_notification("job_unstored", NOW)


async def test_cancel_without_a_request_is_notified(store: Store, other: Store):
    await store.add(a_job())
    await other.request_cancel("job_1", NOW)
    assert [await take_notification(store), await take_notification(other)] == ["job_1", None]


async def test_finished_job_is_not_notified_if_it_is_old_or_still_to_be_finalized(store: Store):
    running = await add_job_in(store, IN_PROGRESS)
    await store.save(replace(with_status(running, COMPLETED), needs_finalizing=True))
    assert await take_notification(store) is None
    assert await take_notification(store, since=NOW, settled_before=NOW + 1) is None
    assert await take_notification(store, settled_before=NOW + 1) == "job_1"


async def test_finalized_jobs_are_notified_at_once_oldest_first(store: Store):
    for job_id, finished_at in (("job_1", NOW), ("job_2", NOW - 5)):
        job = await add_job_in(store, IN_PROGRESS, job_id=job_id)
        await store.save(replace(with_status(job, COMPLETED), finished_at=finished_at, needs_finalizing=True))
        await store.mark_finalized(job_id)
    assert [await take_notification(store), await take_notification(store), await take_notification(store)] == [
        "job_2",
        "job_1",
        None,
    ]


async def test_open_question_and_the_end_after_it_are_notified_once_each(store: Store):
    job = await add_waiting_job(store, "a")
    assert await take_notification(store, asked_before=NOW) is None
    assert [await take_notification(store), await take_notification(store)] == ["job_1", None]
    [call] = await store.get_calls(job.id)
    assert await store.record_reply(job, [replace(call, state="done", output="1")], NOW + 1)
    assert await store.begin_next_turn(job.with_next_turn({}, "r-2"))
    assert await store.begin_sending((await read_job(store)).mark_sending(NOW + 2))
    await store.record_response_id(job.id, 2, "resp_2", NOW + 2)
    assert await take_notification(store) is None
    assert await store.save(replace(with_status(await read_job(store), COMPLETED), finished_at=NOW + 3))
    assert [await take_notification(store), await take_notification(store)] == ["job_1", None]


async def test_reopened_job_is_notified_when_it_finishes_again(store: Store):
    lost = replace(with_status(await add_job_in(store, STARTING), FAILED), error=Failure("start_unconfirmed", "x"))
    assert await store.save(lost)
    assert await take_notification(store) == "job_1"
    found = require_job(await store.record_response_id("job_1", 1, "resp_1", NOW + 1))
    assert await take_notification(store) is None
    [due] = await store.find_due(NOW + 1, HERE)
    assert due == found.id
    assert await store.save(replace(with_status(found, FAILED), finished_at=NOW + 2))
    assert [await take_notification(store), await take_notification(store)] == ["job_1", None]


# Due times and claims.


@pytest.mark.parametrize(
    ("after_s", "not_before_s", "watched", "due_s"),
    [
        (0, 0, False, 0),
        (30, 0, False, 30),
        (30, 0, True, 5),
        (3, 0, True, 3),
        (30, 20, False, 30),
        (30, 20, True, 20),
        (3, 20, False, 20),
        (3, 20, True, 20),
    ],
)
async def test_job_is_due_as_scheduled_or_sooner_if_watched_but_not_before_upstream_allows(
    store: Store, after_s: float, not_before_s: float, watched: bool, due_s: float
):
    await add_job_in(store, IN_PROGRESS)
    await store.mark_watched("job_1", NOW, NOW + 60 if watched else NOW)
    await store.schedule("job_1", NOW, after_s, not_before_s)
    assert await store.next_due_at(HERE) == NOW + due_s
    if due_s:
        assert await store.find_due(NOW + due_s - 0.001, HERE) == []
    assert await store.find_due(NOW + due_s, HERE) == ["job_1"]


async def test_new_schedule_replaces_the_wait_that_upstream_asked_for(store: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.schedule("job_1", NOW, 3, 500)
    await store.schedule("job_1", NOW, 3)
    assert await store.next_due_at(HERE) == NOW + 3


@pytest.mark.parametrize(
    ("looked_s", "not_before_s", "at_s", "due_s"),
    [
        (-60, 0, 10, 10),  # the last poll was long ago: due now
        (9.5, 0, 10, 10.5),  # one second between polls
        (-60, 25, 10, 25),  # upstream asked for more time
        (29.9, 0, 29.95, 30),  # never later than scheduled
        (-60, 0, 40, 30),  # it was due already
    ],
)
async def test_watcher_brings_the_next_poll_forward(
    store: Store, other: Store, looked_s: float, not_before_s: float, at_s: float, due_s: float
):
    job = await add_job_in(store, IN_PROGRESS)
    await store.save(replace(job, turn=replace(job.turn, polled_at=NOW + looked_s)))
    await store.schedule("job_1", NOW, 30, not_before_s)
    await other.mark_watched("job_1", NOW + at_s, NOW + at_s + 60)
    assert await store.next_due_at(HERE) == NOW + due_s


async def test_watcher_does_not_make_a_claimed_job_due(store: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.mark_watched("job_1", NOW, NOW + 60)
    assert await store.next_due_at(HERE) is None
    assert (await read_job(store)).watched_until == NOW + 60


async def test_longest_watch_counts(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.mark_watched("job_1", NOW, NOW + 60)
    await other.mark_watched("job_1", NOW, NOW + 10)
    assert (await read_job(store)).watched_until == NOW + 60


async def test_due_job_is_claimed_once_until_it_is_scheduled_again(store: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.schedule("job_1", NOW, 1)
    assert await store.find_due(NOW + 1, HERE) == ["job_1"]
    assert await store.find_due(NOW + 1e6, HERE) == []
    assert await store.next_due_at(HERE) is None


async def test_finished_job_is_finalized_once_even_if_its_last_step_schedules_late(store: Store):
    running = await add_job_in(store, IN_PROGRESS)
    await store.save(replace(with_status(running, COMPLETED), needs_finalizing=True))
    assert await store.find_due(NOW + 1, HERE) == ["job_1"]
    await store.schedule("job_1", NOW + 1, 0)  # by the step that ended it, while another finalizes it
    assert await store.find_due(NOW + 1, HERE) == []
    await store.schedule("job_1", NOW + 1, 60)  # a failed finalization is repeated
    assert await store.find_due(NOW + 61, HERE) == ["job_1"]


async def test_job_claimed_by_another_process_is_not_due(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.schedule("job_1", NOW, 1)
    assert await other.next_due_at(HERE) is None
    assert await other.find_due(NOW + 1e6, HERE) == []
    assert await store.next_due_at(HERE) == NOW + 1


async def test_process_without_the_claim_cannot_schedule_a_job(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    await other.schedule("job_1", NOW, 1)
    assert await store.next_due_at(HERE) is None


async def test_job_of_another_endpoint_is_not_due(store: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.schedule("job_1", NOW, 1)
    assert await store.next_due_at(ELSEWHERE) is None
    assert await store.find_due(NOW + 1, ELSEWHERE) == []
    assert await store.find_due(NOW + 1, HERE) == ["job_1"]


async def test_earliest_due_job_sets_the_next_due_time(store: Store):
    for number in (3, 1, 2):
        await add_job_in(store, IN_PROGRESS, job_id=f"job_{number}")
        await store.schedule(f"job_{number}", NOW, number)
    assert await store.next_due_at(HERE) == NOW + 1
    assert sorted(await store.find_due(NOW + 2, HERE)) == ["job_1", "job_2"]
    assert await store.next_due_at(HERE) == NOW + 3


async def test_released_jobs_are_due_at_once_and_go_to_one_other_process(database: Database, store: Store):
    for number in range(8):
        await add_job_in(store, IN_PROGRESS, job_id=f"job_{number}")
        await store.schedule(f"job_{number}", NOW, 30, 30)
    claimed: list[str] = []

    async def claim(process: Store) -> None:
        claimed.extend(await process.find_due(NOW, HERE))

    async with database.open() as second, database.open() as third:
        await add_job_in(second, IN_PROGRESS, job_id="job_of_second")
        await store.release_claims(NOW)
        async with anyio.create_task_group() as tasks:
            for process in (second, third, store):
                tasks.start_soon(claim, process)
        assert sorted(claimed) == [f"job_{number}" for number in range(8)]


async def test_forgotten_claim_is_due_again_only_in_its_own_process(store: Store, other: Store):
    for number in (1, 2):
        await add_job_in(store, IN_PROGRESS, job_id=f"job_{number}")
    await add_job_in(other, IN_PROGRESS, job_id="job_3")
    await store.renew_claims(["job_1"], NOW)
    assert await other.find_due(NOW, HERE) == []
    assert await store.find_due(NOW, HERE) == ["job_2"]
    await store.schedule("job_1", NOW, 60.0)
    await store.renew_claims([], NOW)
    assert await store.find_due(NOW, HERE) == ["job_2"], "the other one has a time"


async def test_released_job_is_saved_only_by_the_process_that_claims_it(store: Store, other: Store):
    job = await add_job_in(store, QUEUED)
    await store.release_claims(NOW)
    assert await store.save(with_status(job, IN_PROGRESS)) is None
    assert await other.find_due(NOW, HERE) == ["job_1"]
    assert await other.save(with_status(job, IN_PROGRESS)) is not None


@pytest.mark.parametrize(
    ("after_s", "not_before_s", "is_soon"), [(5.0, 0.0, True), (5.0, 900.0, False), (900.0, 0.0, False)]
)
async def test_job_is_released_between_steps_where_a_death_is_noticed_late(
    database: Database, store: Store, other: Store, after_s: float, not_before_s: float, is_soon: bool
):
    """A job that is due far ahead stays claimed: without a claim, its due time would be taken for a wrong clock's."""
    job = await add_job_in(store, IN_PROGRESS)
    await store.schedule(job.id, NOW, after_s, not_before_s, releases=True)
    is_released = is_soon and not database.notices_death_at_once
    later = NOW + max(after_s, not_before_s)
    assert await other.find_due(later, HERE) == [job.id] * is_released
    assert (await store.save(job) is None) is is_released


# The death of a process.


async def reclaim_after_death(database: Database, store: Store, now: float) -> int:
    """Reclaim the jobs of dead processes; return how many."""
    if database.notices_death_at_once:
        return await store.reclaim_from_dead(now)
    return await reclaim_after_silence(store, now)


async def reclaim_after_silence(store: Store, now: float) -> int:
    """Reclaim the jobs of a process that missed its heartbeat; return how many."""
    with anyio.fail_after(60):
        while not (freed := await store.reclaim_from_dead(now)):  # noqa: ASYNC110
            await anyio.sleep(0.1)
    return freed


async def test_job_is_reclaimed_only_after_its_process_died(database: Database, store: Store):
    body = [
        'await store.add(a_job("job_pending"))',
        'await store.add(a_job("job_over"))',
        'await store.request_cancel("job_over", 1.0)',
        'await store.add(a_job("job_sent"))',
        f'assert await store.begin_sending(a_job("job_sent").mark_sending({NOW}))',
        'await store.add(a_job("job_running"))',
        f'assert await store.begin_sending(a_job("job_running").mark_sending({NOW}))',
        f'await store.record_response_id("job_running", 1, "resp_7", {NOW})',
        f'await store.schedule("job_running", {NOW}, 3600.0)',
        'print("written", flush=True)',
        "await anyio.sleep_forever()",
    ]
    async with run_process(database, *body) as victim:
        assert await store.reclaim_from_dead(NOW) == 0
        assert await store.find_due(NOW + 1e6, HERE) == []
        victim.kill()
        await victim.wait()
    assert await reclaim_after_death(database, store, NOW + 5) == 3
    assert await store.reclaim_from_dead(NOW + 5) == 0
    assert await store.next_due_at(HERE) == NOW + 5
    assert sorted(await store.find_due(NOW + 5, HERE)) == ["job_pending", "job_running", "job_sent"]
    running = await read_job(store, "job_running")
    assert (running.status, running.turn.response_id) == (QUEUED, "resp_7")
    assert (await read_job(store, "job_sent")).status is STARTING
    assert (await read_job(store, "job_over")).status is CANCELLED
    assert await store.begin_sending((await read_job(store, "job_pending")).mark_sending(NOW + 5)), (
        "a pending job may still be sent"
    )


async def test_jobs_of_a_living_store_in_the_same_process_are_not_reclaimed(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)
    assert await other.reclaim_from_dead(NOW) == 0
    assert await store.reclaim_from_dead(NOW) == 0
    assert await other.find_due(NOW + 1e6, HERE) == []


async def test_job_released_by_a_clock_an_hour_ahead_is_due_at_once(database: Database, store: Store):
    async with database.open() as gone:
        await add_job_in(gone, IN_PROGRESS)
        await gone.release_claims(NOW + 3600)
    assert await store.reclaim_from_dead(NOW) == 0, "no process is dead"
    assert await store.next_due_at(HERE) == NOW


async def test_job_released_for_a_minute_stays_released(store: Store):
    await add_job_in(store, IN_PROGRESS)
    await store.release_claim("job_1", NOW + 60)
    await store.reclaim_from_dead(NOW)
    assert await store.next_due_at(HERE) == NOW + 60


async def test_store_closed_without_a_release_counts_as_dead(database: Database, store: Store):
    async with database.open() as gone:
        await add_job_in(gone, IN_PROGRESS)
    assert await store.reclaim_from_dead(NOW) == 1
    assert await store.find_due(NOW, HERE) == ["job_1"]


async def test_jobs_of_a_dead_process_are_reclaimed_by_one_living_process(
    database: Database, store: Store, other: Store
):
    async with database.open() as gone:
        for number in range(5):
            await add_job_in(gone, IN_PROGRESS, job_id=f"job_{number}")
    freed: list[int] = []

    async def take_over(process: Store) -> None:
        freed.append(await process.reclaim_from_dead(NOW))

    async with anyio.create_task_group() as tasks:
        for process in (store, other, store, other):
            tasks.start_soon(take_over, process)
    assert sum(freed) == 5


# Waiting for a change.


@asynccontextmanager
async def expect_wake(store: Store, job: Job) -> AsyncGenerator[anyio.Event]:
    """Wait for a change in the background; fail if it has not been noticed by the end of the block."""
    returned = anyio.Event()

    async def wait() -> None:
        await store.wait_for_change(job.id, job.revision)
        returned.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for _ in range(10):
                await store.get(job.id)  # queries run in order, so the waiter's own one has run by now
            assert not returned.is_set()
            yield returned


OWN: dict[str, Callable[[Store, Job], Awaitable[object]]] = {
    "save": lambda store, job: store.save(replace(job, activity="new")),
    "attach": lambda store, job: store.record_response_id(job.id, 1, "resp_1", NOW),
    "request_cancel": lambda store, job: store.request_cancel(job.id, NOW),
}


@pytest.mark.parametrize("write", OWN)
async def test_waiter_wakes_for_a_write_of_its_own_store(store: Store, write: str):
    job = await add_job_in(store, STARTING)
    async with expect_wake(store, job):
        await OWN[write](store, job)


async def test_waiter_wakes_when_its_own_store_begins_the_job(store: Store):
    await store.add(a_job())
    job = await read_job(store)
    async with expect_wake(store, job):
        assert await store.begin_sending(job.mark_sending(NOW))


FREEING: dict[str, Callable[[Store], Awaitable[object]]] = {
    "release": lambda store: store.release_claims(NOW),
    "take_over": lambda store: store.reclaim_from_dead(NOW),
}


@pytest.mark.parametrize("freeing", FREEING)
async def test_waiter_wakes_after_its_job_was_released(database: Database, store: Store, freeing: str):
    """A release changes nothing visible, so a store may keep the revision; then the next save wakes the waiter."""
    async with database.open() as gone:
        job = await add_job_in(store if freeing == "release" else gone, IN_PROGRESS)
    async with expect_wake(store, job):
        await FREEING[freeing](store)
        if (await read_job(store)).revision == job.revision:
            await store.save(job, held=False)


async def test_waiter_wakes_for_a_write_of_another_connection(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    async with expect_wake(store, job):
        await other.request_cancel(job.id, NOW)


async def test_waiter_wakes_for_a_write_of_another_process(database: Database, store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    body = ['print("ready", flush=True)', "sys.stdin.readline()", f'await store.request_cancel("job_1", {NOW})']
    async with run_process(database, *body) as neighbour, expect_wake(store, job):
        assert neighbour.stdin is not None
        await neighbour.stdin.send(b"now\n")
    assert (await read_job(store)).cancel_requested_at == NOW


async def test_every_waiter_wakes(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    async with expect_wake(store, job), expect_wake(store, job), expect_wake(other, job):
        await store.save(replace(job, activity="new"))


async def test_waiter_sleeps_while_other_jobs_change(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    async with expect_wake(store, job) as returned:
        for process, name in ((store, "job_2"), (other, "job_3")):
            await process.add(a_job(name))
            await process.request_cancel(name, NOW)
        for _ in range(50):
            await store.get("job_1")
        assert not returned.is_set()
        await store.save(replace(job, activity="new"))


@pytest.mark.parametrize(("limit", "owner_limit"), [(3, 20), (20, 20), (12, 4), (20, 3)])
async def test_slots_are_given_once_when_processes_begin_many_jobs_at_once(
    store: Store, other: Store, limit: int, owner_limit: int
):
    begun: list[str] = []

    async def begin(process: Store, job: Job) -> None:
        if await process.begin_sending(job.mark_sending(NOW), limit, owner_limit):
            begun.append(job.owner)

    jobs = [a_job(f"job_{number}", owner=("alice", "bob")[number % 2], request_hash="") for number in range(20)]
    async with anyio.create_task_group() as tasks:
        for number, job in enumerate(jobs):
            process = (store, other)[number // 2 % 2]
            await process.add(job)
            tasks.start_soon(begin, process, job)
    assert len(begun) == min(limit, 2 * owner_limit)
    assert max(begun.count("alice"), begun.count("bob")) <= owner_limit


async def test_progress_wakes_no_waiter_of_the_status(store: Store, other: Store):
    job, returned = await add_job_in(store, IN_PROGRESS), anyio.Event()

    async def wait() -> None:
        await other.wait_for_status("job_1", IN_PROGRESS)
        returned.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            mark = await other.change_mark()
            assert await store.save_progress([replace(job, activity="thinking")])
            await other.wait_for_any_change(mark)
            await anyio.wait_all_tasks_blocked()
            assert not returned.is_set()
            await store.save(replace(job, status=CANCELLED, finished_at=NOW), held=False)


@pytest.mark.parametrize("new_only", [False, True])
async def test_progress_wakes_no_poll_of_a_running_job(store: Store, monkeypatch: pytest.MonkeyPatch, new_only: bool):
    job, reads, polled = await add_job_in(store, IN_PROGRESS), list[str](), list[Job]()
    waiter, get = JobWaiter(store, Clock(), lambda: None), store.get

    async def note_read(job_id: str) -> Job | None:
        reads.append(job_id)
        return await get(job_id)

    async def poll() -> None:
        asks = waiter.has_new_question if new_only else has_question
        polled.append(await waiter.watch(job, 600, asks))

    monkeypatch.setattr(store, "get", note_read)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            await anyio.wait_all_tasks_blocked()
            for words in ("thinking", "searching", "writing"):
                assert await store.save_progress([replace(job, activity=words)])
                await anyio.wait_all_tasks_blocked()
            assert reads == []
            await store.save(replace(job, status=CANCELLED, finished_at=NOW), held=False)
    assert [each.status for each in polled] == [CANCELLED]


async def test_waiter_for_the_status_of_another_owners_job_returns_at_once(store: Store):
    await add_job_in(store, IN_PROGRESS)
    with anyio.fail_after(60):
        await store.for_owner("mallory").wait_for_status("job_1", IN_PROGRESS)


async def test_waiter_with_an_old_revision_returns_at_once(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    assert await store.save(replace(job, activity="new"))
    with anyio.fail_after(60):
        await store.wait_for_change(job.id, job.revision)


async def test_every_visible_change_has_its_own_revision(store: Store, other: Store):
    job = a_job().mark_sending(NOW)
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: store.begin_sending(job),
        lambda: store.record_response_id("job_1", 1, "resp_1", NOW),
        lambda: store.save(with_status(job, IN_PROGRESS)),
        lambda: store.save(with_status(job, IN_PROGRESS, activity="writing")),
        lambda: store.save_progress([with_status(job, IN_PROGRESS, activity="thinking")]),
        lambda: other.request_cancel("job_1", NOW),
        lambda: other.save(with_status(job, CANCELLED), held=False),
    ]
    await store.add(a_job())
    revisions = [(await read_job(store)).revision]
    for change in changes:
        assert await change()
        revisions.append((await read_job(store)).revision)
    assert revisions == sorted(set(revisions))


# Many at once.


async def test_many_writers_on_several_stores_only_wait_for_each_other(database: Database):
    async def work(process: Store, name: str) -> None:
        job = await add_job_in(process, IN_PROGRESS, job_id=name)
        for number in range(10):
            saved = await process.save(replace(job, turn=replace(job.turn, sequence_number=number)))
            assert saved is not None
            assert saved.turn.sequence_number == number
        assert await process.save(with_status(job, COMPLETED, output=Output(name, {})))

    names = [f"job_{number}" for number in range(12)]
    async with database.open() as first, database.open() as second, database.open() as third:
        async with anyio.create_task_group() as tasks:
            for name, process in zip(names, [first, second, third] * 4, strict=True):
                tasks.start_soon(work, process, name)
        assert {job.id for job in await first.find(JobFilter(), 99) if job.status is COMPLETED} == set(names)
        assert [output.text for name in names if (output := await third.get_output(name))] == names


@pytest.mark.parametrize("seed", range(4))
async def test_cancelled_writers_leave_no_lock_and_lose_no_acknowledged_change(
    database: Database, store: Store, seed: int
):
    """Several tasks share a store and are cancelled after a random number of event loop iterations."""
    random = Random(seed)
    acknowledged: dict[str, Job] = {}

    async def work(name: str, turns: int) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel, scope, turns)
                await write(name)
                scope.cancel()

    async def cancel(scope: anyio.CancelScope, turns: int) -> None:
        for _ in range(turns):
            await checkpoint()
        scope.cancel()

    async def write(name: str) -> None:
        job = acknowledged[name] = a_job(name)
        await store.add(job)
        acknowledged[name] = job = job.mark_sending(NOW)
        assert await store.begin_sending(job)
        job = await store.record_response_id(name, 1, "resp_" + name, NOW) or job
        acknowledged[name] = job
        for number in range(40):
            seen = with_status(job, IN_PROGRESS, turn=replace(job.turn, sequence_number=number))
            acknowledged[name] = job = await store.save(seen) or job
            await store.schedule(name, NOW, 5)
            await store.mark_watched(name, NOW, NOW + 60)
            await store.find_due(NOW + 9, HERE)
        end = with_status(job, COMPLETED, output=Output(name, {}))
        acknowledged[name] = await store.save(end) or job

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(work, f"job_{number}", random.choice([3, 30, 300, 3_000, 30_000]))
        async with database.open() as witness:
            assert await witness.request_cancel("job_of_nobody", NOW) is None, "no lock was left"
            for name, known in acknowledged.items():
                found = await witness.get(name)
                if found is None:
                    assert known == a_job(name), "it was cancelled before it was written"
                    continue
                assert found.revision >= known.revision
                assert found.turn.response_id or not known.turn.response_id
                assert (found.turn.sequence_number or 0) >= (known.turn.sequence_number or 0)
                assert not known.is_terminal or known.status is found.status
                assert (await witness.get_output(name) is None) == (not found.is_terminal)
        await store.add(a_job("job_after"))


async def test_ids_are_found_by_prefix_in_order(store: Store, other: Store):
    await store.add(*(a_job(name) for name in ("job_b2", "job_b1", "job_c", "job_%")))
    assert await other.find_ids("job_b", 10) == ["job_b1", "job_b2"]
    assert await other.find_ids("job_b", 2) == ["job_b1", "job_b2"]
    assert await other.find_ids("job_c", 10) == ["job_c"]
    assert await other.find_ids("job_%", 10) == ["job_%"]
    assert await other.find_ids("job_d", 10) == []
    assert len(await other.find_ids("", 10)) == 4


async def test_working_process_is_shown_to_others_while_it_lives(database: Database, store: Store):
    assert (await store.store_info()).watchers == ()
    async with run_process(
        database, f"await store.announce('server', {HERE!r})", "print(1, flush=True)", "await anyio.sleep_forever()"
    ) as victim:
        [watcher] = (await store.store_info()).watchers
        assert (watcher.pid, watcher.what, watcher.base_url) == (victim.pid, "server", HERE)
        victim.kill()
        await victim.wait()
        if not database.notices_death_at_once:
            with anyio.fail_after(60):
                while (await store.store_info()).watchers:  # noqa: ASYNC110
                    await anyio.sleep(0.1)
        assert (await store.store_info()).watchers == ()


async def test_reading_process_and_the_own_process_are_not_shown_as_workers(store: Store, other: Store):
    await store.announce("watch", HERE)
    assert (await store.store_info()).watchers == ()
    [watcher] = (await other.store_info()).watchers
    assert watcher.what == "watch"


async def test_store_shows_its_path_and_size(database: Database, store: Store):
    about = await store.store_info()
    assert about.path.endswith(database.place)
    assert about.bytes > 0
    assert re.fullmatch(database.kind, about.journal)
    assert about.schema > 0


async def test_refused_parameters_are_stored_by_endpoint_and_apart_from_the_mode(store: Store):
    await store.learn_mode(HERE, "gpt", "foreground", NOW, "no background here")
    await store.learn_refused_parameter(HERE, "include", NOW, "Unknown parameter: 'include'.")
    await store.learn_refused_parameter(HERE, "store", NOW - 60, "Store must be set to false")
    assert await store.refused_parameters(HERE, NOW - 1) == {"include"}
    assert await store.refused_parameters(HERE, NOW - 90) == {"include", "store"}
    assert await store.refused_parameters("http://elsewhere/v1", NOW - 90) == set()
    assert await store.learned_mode(HERE, "gpt", NOW - 1) == "foreground"


# The one writer of a job's status.


async def test_transition_writes_the_returned_job_and_returns_the_stored_one(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)
    changed = require_job(
        await other.transition("job_1", lambda stored: replace(stored, activity="new", result_path="/r"))
    )
    assert (changed.activity, changed.result_path) == ("new", "/r")
    assert changed.revision > job.revision
    assert await read_job(store) == changed


async def test_transition_of_a_claim_alone_is_no_visible_change(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    changed = require_job(await store.transition("job_1", lambda stored: replace(stored, due_at=NOW + 5)))
    assert (changed.due_at, changed.revision) == (NOW + 5, job.revision)
    assert await store.next_due_at(HERE) == NOW + 5


@pytest.mark.parametrize("before", Status)
async def test_transition_obeys_the_table_of_statuses(store: Store, before: Status):
    for after in Status:
        job = await add_job_in(store, before, job_id=f"job_{after}")
        changed = await store.transition(job.id, lambda stored, after=after: replace(stored, status=after))
        is_allowed = after is before or after in TRANSITIONS.get(before, ())
        assert (changed is not None) is is_allowed, after
        assert (await read_job(store, job.id)).status is (after if is_allowed else before)


async def test_refused_failed_or_empty_transition_changes_nothing(store: Store, other: Store):
    job = await add_job_in(store, IN_PROGRESS)

    def fail(_: Job) -> Job:
        raise ZeroDivisionError

    assert await store.transition("job_1", lambda _: None) is None
    assert await store.transition("job_1", lambda stored: stored) == job
    assert await store.transition("job_unstored", lambda stored: stored) is None
    assert await other.transition("job_1", lambda stored: replace(stored, activity="x"), is_claimed=True) is None
    with pytest.raises(ZeroDivisionError):
        await store.transition("job_1", fail)
    assert await read_job(store) == job
    assert await store.transition("job_1", lambda stored: replace(stored, activity="x"), is_claimed=True)


async def test_simultaneous_transitions_lose_no_change(store: Store, other: Store):
    await add_job_in(store, IN_PROGRESS)

    async def count(process: Store) -> None:
        for _ in range(20):
            await process.transition("job_1", lambda stored: replace(stored, activity=stored.activity + "x"))

    async with anyio.create_task_group() as tasks:
        for process in (store, other, store):
            tasks.start_soon(count, process)
    assert (await read_job(store)).activity == "x" * 60


async def test_late_observation_of_an_earlier_turn_is_not_written_into_the_next(store: Store):
    job = await add_job_with_calls(store, "a")
    assert await store.begin_next_turn(job.with_next_turn({"input": "outputs"}, "r-2"))
    before = await read_job(store)
    assert await store.save(replace(job, usage=Usage(input_tokens=9), activity="late")) is None
    assert await read_job(store) == before


class Rivals:
    """Processes that start, cancel and end random jobs at the same time."""

    SLOTS, BUDGET = 3, Budget(10.0, NOW - 1)

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.posted: Counter[str] = Counter()

    async def work(self, process: Store, names: list[str]) -> None:
        for name in names:
            await self.start(process, name)
            await process.request_cancel(self.random.choice(names), NOW)
            for waiting in await process.claim_free_slots(HERE, self.SLOTS):
                await self.run(process, waiting)
            page = await process.list_jobs(JobFilter(), 99, NOW - 1)
            assert sum(page.counts.get(status, 0) for status in (STARTING, QUEUED, IN_PROGRESS)) <= self.SLOTS
            assert page.today_usd <= self.BUDGET.usd

    async def start(self, process: Store, name: str) -> None:
        key = self.random.choice([None, "k1", "k2"])
        job = a_job(name, key=key, request_hash=f"h{self.random.randrange(4)}", reserved_usd=1.0)
        try:
            [existing] = await process.add(job, allow_duplicate=self.random.random() < 0.5, budgets=[self.BUDGET])
        except BudgetError:
            return
        if existing is None:
            await self.run(process, name)

    async def run(self, process: Store, name: str) -> None:
        for _ in range(self.random.randrange(3)):
            await checkpoint()
        job = await process.get(name)
        if job is None or not await process.begin_sending(job.mark_sending(NOW), self.SLOTS):
            await process.wait_for_slot(name, "waits")
            return
        self.posted[name] += 1
        job = require_job(await process.record_response_id(name, 1, f"resp_{name}", NOW))
        if self.random.random() < 0.6:
            await process.save(with_status(job, self.random.choice([COMPLETED, FAILED]), cost_usd=0.5))


@pytest.mark.parametrize("seed", range(3))
async def test_random_starts_cancels_and_ends_of_several_processes_keep_all_limits(database: Database, seed: int):
    """Two processes compete for slots, keys, duplicates, the budget and the right to POST."""
    rivals = Rivals(seed)
    async with database.open() as first, database.open() as second:
        async with anyio.create_task_group() as tasks:
            for number, process in enumerate((first, second, first, second)):
                tasks.start_soon(rivals.work, process, [f"job_{number}_{each}" for each in range(6)])
        jobs = await first.find(JobFilter(), 99)
    assert set(rivals.posted.values()) <= {1}
    assert set(Counter(job.key for job in jobs if job.key is not None).values()) <= {1}
    assert {job.id for job in jobs if job.turn.attempt} == rivals.posted.keys()


# For people: prompts, turns, steps, searches, and read marks.


async def add_finished_job(store: Store, job_id: str, *, output: str = "", **facts: Any) -> Job:
    """Add a completed job with this output."""
    spent = {name: facts.pop(name) for name in ("usage", "cost_usd") if name in facts}
    job = a_job(job_id, request_hash=job_id, **facts)
    await store.add(job)
    assert await store.begin_sending(job.mark_sending(NOW))
    await store.record_response_id(job_id, 1, f"resp_{job_id}", NOW)
    assert await store.save(with_status(await read_job(store, job_id), COMPLETED, output=Output(output, {}), **spent))
    return await read_job(store, job_id)


async def test_job_keeps_its_prompt_and_who_started_it_with_what(store: Store):
    job = await add_finished_job(
        store, "job_1", prompt="Why is\nthe sky blue? \N{SNOWMAN}", model="m", effort="high", preset="p", client="host"
    )
    assert (job.model, job.effort, job.preset, job.client) == ("m", "high", "p", "host")
    assert await store.get_prompt("job_1") == "Why is\nthe sky blue? \N{SNOWMAN}"
    assert await store.get_prompt("job_2") == ""


async def test_step_keeps_the_time_at_which_it_was_first_seen_and_finished(store: Store):
    await add_job_in(store, IN_PROGRESS)
    begun = Step(1, 0, "web_search", "", "solar", "", seen_at=NOW + 1, finished_at=None)
    finished = begun._replace(detail="solar 2026", seen_at=NOW + 5, finished_at=NOW + 5)
    later = finished._replace(seen_at=NOW + 9, finished_at=NOW + 9)
    for step in (begun, finished, later):
        job = await read_job(store)
        assert await store.save_progress([replace(job, turn=replace(job.turn, steps=(step,)))])
    assert await store.get_steps("job_1") == [finished._replace(seen_at=NOW + 1)]


async def test_finished_job_has_the_steps_that_no_stream_showed(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    items = [
        {"type": "reasoning"},
        {
            "type": "mcp_call",
            "server_label": "tracker",
            "name": "find",
            "arguments": '{"id": 4}',
            "error": "no such id",
        },
        {"type": "message", "content": [{"type": "output_text", "text": "x"}]},
    ]
    response = {"id": "resp_1", "status": "completed", "output": items}
    assert await store.save(job.apply_response(response, NOW + 3))
    assert await store.get_steps("job_1") == [
        Step(1, 0, "reasoning", "", "", "", NOW + 3, NOW + 3),
        Step(1, 1, "mcp", "tracker/find", '{"id": 4}', "no such id", NOW + 3, NOW + 3),
        Step(1, 2, "message", "", "", "", NOW + 3, NOW + 3),
    ]


async def test_each_turn_has_its_own_tokens_and_cost(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    first = replace(job, usage=Usage(input_tokens=10, output_tokens=5), cost_usd=0.5)
    assert await store.save(first)
    following = first.with_next_turn({}, "r-2")
    assert await store.begin_next_turn(following)
    second = replace(await read_job(store), usage=Usage(input_tokens=17, output_tokens=6), cost_usd=0.75)
    assert await store.save(second)
    turns = await store.get_turns("job_1")
    assert [(turn.number, turn.usage, turn.cost_usd) for turn in turns] == [
        (1, Usage(input_tokens=10, output_tokens=5), 0.5),
        (2, Usage(input_tokens=7, output_tokens=1), 0.25),
    ]


async def search_ids(store: Store, words: str, limit: int = 9) -> list[str]:
    return [hit.job.id for hit in await store.search(words, limit)]


async def test_search_finds_the_words_of_titles_prompts_and_outputs(store: Store):
    await add_finished_job(
        store, "job_1", title="Energy", prompt="Compare solar panels", output="Perovskite cells reach 34 %."
    )
    await add_finished_job(store, "job_2", prompt="Compare wind turbines", output="Größere Rotoren bringen mehr.")
    await store.add(a_job("job_3", created_at=NOW + 1, prompt="Compare 100% hydrogen_tanks"))
    assert await search_ids(store, "compare") == ["job_3", "job_1", "job_2"]
    assert await search_ids(store, "energy solar perov") == ["job_1"], "across title, prompt and output"
    assert await search_ids(store, "grossere") == [], "ß is a letter of its own"
    assert await search_ids(store, "größere ROTOREN") == await search_ids(store, "grö rotoren") == ["job_2"]
    assert await search_ids(store, '"solar panels"') == ["job_1"]
    assert await search_ids(store, '"panels solar"') == []
    assert await search_ids(store, "100% hydrogen_") == ["job_3"]
    assert await search_ids(store, "hydrogen%tanks") == []
    assert await search_ids(store, "compare", limit=1) == ["job_3"]


FILTERS: dict[str, Any] = {
    "job_ids": ("job_1", "job_3"),
    "batch": "b",
    "statuses": frozenset({COMPLETED}),
    "words": "TITLE%1",
    "since": NOW,
    "active": True,
    "model": "M",
    "preset": "p",
    "client": "HO",
    "unread": True,
}


@pytest.mark.parametrize("field", FILTERS)
async def test_each_filter_selects_counts_sorts_and_sums_up_the_same_jobs(store: Store, field: str):
    usage = Usage(input_tokens=5, output_tokens=7)
    await store.add(a_job("job_0", title="other", created_at=NOW - 90_000))
    await store.request_cancel("job_0", NOW - 90_000)
    await store.mark_read(["job_0"], NOW)
    job = a_job("job_1", title="title%1", batch="b", model="m1", preset="p", client="host", max_cost_usd=2.0)
    await store.add(job)
    assert await store.begin_sending(job.mark_sending(NOW))
    await store.record_response_id("job_1", 1, "resp_1", NOW)
    end = with_status(await read_job(store), COMPLETED, usage=usage, cost_usd=0.5, output=Output("", {}))
    assert await store.save(end)
    group = JobFilter(**{field: FILTERS[field]})
    for key in get_args(SortKey):
        page = await store.list_jobs(group, 9, NOW, JobOrder(key, NOW + 9))
        assert ([found.id for found in page.jobs], page.counts) == (["job_1"], {COMPLETED: 1}), key
    assert [found.id for found in await store.find(group, 9)] == ["job_1"]
    names: dict[SpendingKey, str] = {"day": "2027-01-15", "model": "m1", "preset": "p", "client": "host", "owner": ""}
    assert await store.sum_spending(get_args(SpendingKey), group) == {
        key: [Spending(name, 1, 0, 5, 7, 0, 0.5, 0)] for key, name in names.items()
    }
    assert await store.sum_day(NOW, spent=True) == 0.5


async def test_deleted_jobs_are_named_with_their_responses_and_active_ones_stay(store: Store):
    await add_job_in(store, COMPLETED)
    await store.add(a_job("job_2"))
    assert await store.delete_jobs(["job_1", "job_2", "job_3"]) == {"job_1": [ResponseAddress(HERE, "resp_1")]}
    assert await store.get("job_1") is None
    tombstone = await store.get_tombstone("job_1")
    assert tombstone is not None
    assert tombstone.status == "completed"
    assert await store.get_first_request("job_2") == {"input": "hi"}
    assert await store.get_first_request("job_1") == {}


@pytest.mark.parametrize("words", ["", "  ", '"', '""', "*", "AND", "NOT solar", "a OR", "title:", "^", "(", "-", "\0"])
async def test_search_reads_punctuation_as_text_and_never_as_query_syntax(store: Store, words: str):
    await add_finished_job(store, "job_1", prompt="solar")
    assert await search_ids(store, words) == []


async def test_search_shows_the_match_in_its_passage(store: Store):
    await add_finished_job(store, "job_1", output=f"{'word ' * 100}needle {'word ' * 100}")
    [hit] = await store.search("needle", 5)
    assert f"{MATCH_BEGIN}needle{MATCH_END}" in hit.passage
    assert len(hit.passage) < 200
    assert (hit.passage[0], hit.passage[-1]) == ("…", "…")
    await add_finished_job(store, "job_2", output="needless")
    [hit] = await store.search("needless", 5)
    assert not hit.passage.endswith("…"), "nothing follows"


@pytest.mark.parametrize("words_in_each_job", [1, 60], ids=["few completions", "many completions"])
async def test_beginning_of_a_word_finds_the_newest_jobs_with_any_word_that_begins_so(
    store: Store, words_in_each_job: int
):
    for number in range(3):
        words = " ".join(f"term{each}x{number}" for each in range(words_in_each_job))
        await add_finished_job(store, f"job_{number}", prompt=f"Naïve end of {words}, z", created_at=NOW + number)
    await add_finished_job(store, "job_other", prompt="endless naïf terrain", created_at=NOW + 9)
    every = ["job_2", "job_1", "job_0"]
    assert await search_ids(store, "term") == await search_ids(store, "TERM naïve") == every
    assert await search_ids(store, "term", limit=2) == every[:2]
    assert await search_ids(store, "term0x1") == await search_ids(store, "naï end term0x1") == ["job_1"]
    assert await search_ids(store, '"end of TER"') == await search_ids(store, "en of term0 naïv") == every
    assert await search_ids(store, "ter naï") == ["job_other", *every]
    assert await search_ids(store, "termite") == await search_ids(store, '"of end ter"') == []
    [hit] = await store.search("term0x1 naïv", 1)
    assert f"{MATCH_BEGIN}term0x1{MATCH_END}" in hit.passage


async def test_search_finds_the_current_text_of_a_job_and_no_deleted_one(store: Store):
    await store.add(a_job("job_1", prompt="question"))
    job = await read_job(store)
    assert await store.begin_sending(job.mark_sending(NOW))
    failed = (await read_job(store)).mark_failed("start_unconfirmed", "unknown", NOW)
    assert await store.save(failed)
    assert await search_ids(store, "question") == ["job_1"]
    assert await store.record_response_id("job_1", 1, "resp_1", NOW + 1)
    assert await search_ids(store, "question") == ["job_1"], "it runs again"
    assert await store.save(with_status(await read_job(store), COMPLETED, output=Output("answer", {})), held=False)
    assert await search_ids(store, "question answer") == ["job_1"]
    await store.mark_delivered(["job_1"], NOW)
    assert await store.purge(NOW + 1)
    assert await search_ids(store, "question") == await search_ids(store, "answer") == []
    await add_finished_job(store, "job_2", prompt="other")
    assert await search_ids(store, "question") == []


async def test_two_processes_search_the_same_index(store: Store, other: Store):
    for number in range(20):
        await add_finished_job(store, f"job_{number}", prompt="solar")
    found: list[list[str]] = []

    async def search(here: Store) -> None:
        found.append(await search_ids(here, "solar", limit=100))

    async with anyio.create_task_group() as tasks:
        for here in (store, other, store, other):
            tasks.start_soon(search, here)
    assert [len(set(each)) for each in found] == [20] * 4


async def test_read_job_counts_as_delivered_and_a_delivered_job_stays_unread(store: Store):
    await add_finished_job(store, "job_1")
    await add_finished_job(store, "job_2")
    await store.add(a_job("job_3"))
    await store.mark_delivered(["job_1"], NOW + 1)
    await store.mark_read(["job_2", "job_3"], NOW + 2)
    await store.mark_read(["job_2"], NOW + 3)
    seen = [(job.delivered_at, job.read_at) for job in [await read_job(store, f"job_{number}") for number in (1, 2, 3)]]
    assert seen == [(NOW + 1, None), (NOW + 2, NOW + 2), (None, None)]


async def test_jobs_are_selected_by_model_preset_client_and_unread_results(store: Store):
    await add_finished_job(store, "job_1", model="GPT-6.1-sol", preset="think", client="terminal")
    await add_finished_job(store, "job_2", model="gpt-6.1-sol-mini", client="Claude Desktop")
    await store.add(a_job("job_3", model="o9%", client="terminal", created_at=NOW + 1))
    await store.mark_delivered(["job_1"], NOW)

    async def find_ids(**asked: Any) -> list[str]:
        group = JobFilter(**asked)
        page = await store.list_jobs(group, 9, 0.0)
        assert sum(page.counts.values()) == len(page.jobs)
        assert [job.id for job in await store.find(group, 9)] == [job.id for job in page.jobs]
        return [job.id for job in page.jobs]

    assert await find_ids(model="gpt-6.1") == ["job_1", "job_2"]
    assert await find_ids(model="gpt-6.1-SOL-m") == ["job_2"]
    assert await find_ids(model="%") == await find_ids(model="o9%%") == await find_ids(model="6.1") == []
    assert await find_ids(model="O9%") == ["job_3"]
    assert await find_ids(preset="think") == ["job_1"]
    assert await find_ids(preset="thin") == []
    assert await find_ids(client="claude") == ["job_2"]
    assert await find_ids(client="terminal") == ["job_3", "job_1"]
    assert await find_ids(unread=True) == ["job_2"]
    assert await find_ids(unread=True, client="terminal") == []


@pytest.mark.parametrize(
    ("key", "ids"),
    [
        ("created", ["job_4", "job_3", "job_2", "job_1"]),
        ("cost", ["job_1", "job_2", "job_4", "job_3"]),
        ("duration", ["job_3", "job_4", "job_1", "job_2"]),
        ("status", ["job_4", "job_3", "job_2", "job_1"]),
    ],
)
async def test_list_is_sorted_by_the_requested_key(store: Store, key: SortKey, ids: list[str]):
    await add_finished_job(store, "job_1", created_at=NOW - 20, cost_usd=2.0)
    await add_finished_job(store, "job_2", created_at=NOW - 10, cost_usd=0.5)
    await store.add(a_job("job_3", created_at=NOW - 5), a_job("job_4", created_at=NOW - 4))
    order = JobOrder(key, NOW + 100)
    assert [job.id for job in (await store.list_jobs(JobFilter(), 9, 0.0, order)).jobs] == ids
    assert [job.id for job in (await store.list_jobs(JobFilter(), 2, 0.0, order)).jobs] == ids[:2]


async def test_search_is_limited_to_the_given_statuses(store: Store):
    await add_finished_job(store, "job_1", prompt="solar")
    await store.add(a_job("job_2", prompt="solar", created_at=NOW + 1))

    async def find_ids(*statuses: Status) -> list[str]:
        return [hit.job.id for hit in await store.search("solar", 9, frozenset(statuses))]

    assert await find_ids() == ["job_2", "job_1"]
    assert await find_ids(COMPLETED) == await find_ids(COMPLETED, FAILED) == ["job_1"]
    assert await find_ids(PENDING, CANCELLED) == ["job_2"]
    assert await find_ids(FAILED) == []


async def test_jobs_not_yet_indexed_are_counted(store: Store):
    await add_finished_job(store, "job_1", prompt="solar")
    await store.add(a_job("job_2", prompt="solar"))
    assert await store.count_unindexed() == 1
    await store.search("solar", 1)
    assert await store.count_unindexed() == 0


async def test_first_request_is_kept_after_later_turns(store: Store):
    job = await add_job_in(store, IN_PROGRESS)
    assert await store.begin_next_turn(job.with_next_turn({"input": "more"}, "r-2"))
    assert await store.get_first_request("job_1") == {"input": "hi"}
    assert await store.get_first_request("job_none") == {}


async def test_spending_is_summed_up_and_unknown_costs_are_counted(store: Store):
    day = 86_400.0
    counted: dict[str, Any] = {"usage": Usage(input_tokens=100, output_tokens=10), "cost_usd": 0.5}
    await add_finished_job(store, "job_1", model="a", preset="think", created_at=NOW - day, **counted)
    await add_finished_job(store, "job_2", model="a", client="terminal", usage=Usage(input_tokens=7, partial=True))
    await add_finished_job(store, "job_3", model="b", **counted)
    await store.add(a_job("job_4", model="b"))
    await store.add(a_job("job_5", model="c", request_hash="5"))
    await store.request_cancel("job_5", NOW)

    async def sums(key: SpendingKey, **asked: Any) -> list[Spending]:
        return (await store.sum_spending([key], JobFilter(**asked)))[key]

    assert await sums("model") == [
        Spending("a", 2, 0, 107, 10, 1, 0.5, 1),
        Spending("b", 2, 1, 100, 10, 0, 0.5, 0),
        Spending("c", 1, 0, 0, 0, 0, 0.0, 0),
    ]
    assert [(each.name, each.jobs, each.cost_usd) for each in await sums("day")] == [
        ("2027-01-15", 4, 0.5),
        ("2027-01-14", 1, 0.5),
    ]
    assert {each.name: each.jobs for each in await sums("preset")} == {"think": 1, "": 4}
    assert {each.name: each.jobs for each in await sums("client")} == {"terminal": 1, "": 4}
    assert [each.name for each in await sums("day", since=NOW - 1)] == ["2027-01-15"]
    assert await sums("day", model="none") == []
    assert await store.sum_day(NOW, spent=True) == await store.sum_day(NOW, spent=False) == 0.5
    keys: tuple[SpendingKey, ...] = get_args(SpendingKey)
    before = {key: await sums(key) for key in keys}
    assert await store.sum_spending(keys, JobFilter()) == before
    assert await store.delete_jobs(["job_1", "job_3"])
    assert {key: await sums(key) for key in keys} == before, "a deleted job was paid, too"


async def test_single_jobs_are_deleted_read_or_not_but_never_while_they_run(store: Store):
    await add_finished_job(store, "job_1", prompt="solar")
    await add_finished_job(store, "job_2", prompt="solar")
    running = await add_job_in(store, IN_PROGRESS, job_id="job_3")
    assert await search_ids(store, "solar") == ["job_1", "job_2"]
    deleted = await store.delete_jobs(["job_1", "job_3", "job_none"])
    assert list(deleted) == ["job_1"]
    assert await store.get("job_1") is None
    tombstone = await store.get_tombstone("job_1")
    assert tombstone is not None
    assert tombstone.status == COMPLETED
    assert await store.get_prompt("job_1") == ""
    assert await search_ids(store, "solar") == ["job_2"]
    assert await read_job(store, "job_3") == running
    assert await store.delete_jobs(["job_1"]) == {}


async def test_times_without_an_observer_are_recorded(database: Database, store: Store):
    async with database.open() as first:
        await add_job_in(first, IN_PROGRESS)
        await add_job_in(first, PENDING, job_id="job_2")
        await first.release_claims(NOW + 10)
    assert await store.get_events("job_1") == [Event(NOW + 10, "unwatched", "")]
    assert await store.get_events("job_2") == [], "nothing runs that could be observed"
    assert await store.find_due(NOW + 50, HERE) == ["job_1", "job_2"]
    await store.schedule("job_1", NOW + 50, 1)
    assert await store.find_due(NOW + 60, HERE) == ["job_1"]
    assert await store.get_events("job_1") == [Event(NOW + 10, "unwatched", ""), Event(NOW + 50, "watched", "")]


async def test_job_of_a_dead_process_was_observed_until_its_last_sign_of_life(database: Database, store: Store):
    async with run_process(
        database,
        "job = a_job('job_1')",
        "await store.add(job)",
        f"await store.begin_sending(job.mark_sending({NOW}))",
        f"await store.record_response_id('job_1', 1, 'resp_1', {NOW})",
        f"await store.record_event('job_1', {NOW + 3}, 'following')",
        "print('ready', flush=True)",
        "await anyio.sleep(60)",
    ):
        pass
    assert await reclaim_after_death(database, store, NOW + 90) == 1
    assert await store.find_due(NOW + 90, HERE) == ["job_1"]
    seen = [(event.at, event.kind) for event in await store.get_events("job_1")]
    assert seen == [(NOW + 3, "following"), (NOW + 3, "unwatched"), (NOW + 90, "watched")]
