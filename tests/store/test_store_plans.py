"""SQLite answers frequent queries without reading all jobs: checked by query plans, not by a clock."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import TRANSITIONS, Status
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.store.sqlite_database import SQLiteDatabase, SQLiteTransaction, encode_values, translate_statement
from agent_jobs.store.values import Budget

HERE = "http://here/v1"
#: Tables and expressions of few rows.
SHORT = {"SCAN tally", "SCAN CONSTANT ROW"}
#: Lists of values, and rows that the statement has just found.
LISTED = (
    "SCAN json_each",
    "SCAN thread",
    "SCAN due",
    "SCAN first",
    "SCAN next",
    "SCAN busy",
    "SCAN waiting",
    "SCAN free",
    "SCAN (sub",
)
#: Read from the end until the page is full.
NEWEST = "SCAN job USING INDEX job_newest"


def a_job(**more: Any) -> Job:
    turn = Turn(number=1, request={"input": "x"}, request_id="r", base_url=HERE)
    return replace(Job(id="job_1", title="t", status=Status.PENDING, created_at=1.0, turn=turn), **more)


def find_jobs(**asked: Any) -> Callable[[Store], Awaitable[object]]:
    return lambda store: store.find(JobFilter(**asked), 20)


def list_jobs(**asked: Any) -> Callable[[Store], Awaitable[object]]:
    return lambda store: store.list_jobs(JobFilter(**asked), 20, 5.0)


def record_statements(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """Record each statement that SQLite runs from now on, in its final form."""
    asked: list[tuple[str, Mapping[str, Any]]] = []
    execute, execute_each, read = SQLiteTransaction.execute, SQLiteTransaction.execute_each, SQLiteDatabase.read
    fetch, write = SQLiteDatabase.fetch, SQLiteDatabase.write

    def note(sql: str, values: Mapping[str, Any]) -> None:
        asked.append((translate_statement(sql), encode_values(values)))

    async def executed(self: SQLiteTransaction, sql: str, **values: Any) -> list[sqlite3.Row]:
        note(sql, values)
        return await execute(self, sql, **values)

    async def executed_each(self: SQLiteTransaction, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        given = list(rows)
        for row in given:
            note(sql, row)
        await execute_each(self, sql, given)

    async def was_read(self: SQLiteDatabase, sql: str, **values: Any) -> list[sqlite3.Row]:
        note(sql, values)
        return await read(self, sql, **values)

    async def fetched(self: SQLiteDatabase, sql: str, **values: Any) -> list[sqlite3.Row]:
        note(sql, values)
        return await fetch(self, sql, **values)

    async def written(self: SQLiteDatabase, sql: str, *job_ids: str, **values: Any) -> list[sqlite3.Row]:
        note(sql, values)
        return await write(self, sql, *job_ids, **values)

    monkeypatch.setattr(SQLiteTransaction, "execute", executed)
    monkeypatch.setattr(SQLiteTransaction, "execute_each", executed_each)
    monkeypatch.setattr(SQLiteDatabase, "read", was_read)
    monkeypatch.setattr(SQLiteDatabase, "fetch", fetched)
    monkeypatch.setattr(SQLiteDatabase, "write", written)
    return asked


OFTEN: dict[str, Callable[[Store], Awaitable[object]]] = {
    "the newest": list_jobs(),
    "those in a status": list_jobs(statuses=frozenset({Status.COMPLETED})),
    "active jobs": list_jobs(statuses=frozenset(TRANSITIONS)),
    "a batch": list_jobs(batch="b"),
    "some days": list_jobs(since=5.0),
    "some jobs": find_jobs(job_ids=("job_1", "job_2")),
    "active or undelivered jobs": find_jobs(active=True, since=5.0),
    "one job": lambda store: store.get("job_1"),
    "a start": lambda store: store.add(a_job(request_hash="h"), budgets=[Budget(5.0, 1.0)]),
    "a start under a key": lambda store: store.add(a_job(request_hash="h", key="k")),
    "a start of the same work": lambda store: store.add(a_job(id="job_3", request_hash="same")),
    "a start under the same key": lambda store: store.add(a_job(id="job_3", key="same")),
    "refused parameters": lambda store: store.refused_parameters(HERE, 5.0),
    "a response id": lambda store: store.record_response_id("job_0", 1, "resp_0", 2.0),
    "a save": lambda store: store.save(a_job(id="job_0", status=Status.FAILED, finished_at=5.0)),
    "a launch": lambda store: store.begin_sending(a_job(id="job_0").mark_sending(2.0), limit=5),
    "jobs ahead of it": lambda store: store.count_ahead(a_job()),
    "due jobs": lambda store: store.find_due(5.0, HERE),
    "next due time": lambda store: store.next_due_at(HERE),
    "jobs of dead processes": lambda store: store.reclaim_from_dead(5.0),
    "free slots": lambda store: store.claim_free_slots(HERE, 5),
    "pending notification": lambda store: store.pending_notification(5.0, settled_before=9.0, asked_before=9.0),
    "progress of streams": lambda store: store.save_progress([a_job(), a_job(id="job_0")]),
    "claimed notification": lambda store: store.claim_notification("job_1", 5.0),
    "delivered jobs": lambda store: store.mark_delivered(["job_1"], 5.0),
    "unobserved jobs": lambda store: store.find_unobserved(JobFilter(), 20),
    "one unobserved job": lambda store: store.find_unobserved(JobFilter(job_ids=("job_1",)), 20),
    "previous exchanges": lambda store: store.get_exchanges("job_0"),
}


@pytest.mark.parametrize("what", OFTEN)
async def test_frequent_query_uses_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    async with open_store(tmp_path) as store:
        await store.add(a_job(id="job_0", request_hash="same"))
        await store.add(a_job(id="job_00", key="same"))
        asked = record_statements(monkeypatch)
        await OFTEN[what](store)
        monkeypatch.undo()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
        read = [(sql, values) for sql, values in asked if sql.split()[0] in ("SELECT", "UPDATE", "INSERT", "WITH")]
        assert read
        steps = [row[3] for sql, values in read for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    # A search without a condition reads every row as well.
    scans = {step for step in steps if step.startswith("SCAN") or (step.startswith("SEARCH") and "(" not in step)}
    scans = {step for step in scans if not step.startswith(LISTED)}
    assert scans <= SHORT | ({NEWEST} if what == "the newest" else set())


@pytest.mark.parametrize("more", [{}, {"batch": "b"}], ids=str)
@pytest.mark.parametrize("question", [find_jobs, list_jobs])
async def test_active_jobs_are_found_without_reading_delivered_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: Callable[..., Any], more: dict[str, Any]
) -> None:
    """A week may have ten thousand delivered results, which the index skips."""
    async with open_store(tmp_path) as store:
        asked = record_statements(monkeypatch)
        await question(active=True, since=5.0, **more)(store)
        monkeypatch.undo()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
        active = [(sql, values) for sql, values in asked if "delivered_at IS NULL" in sql]
        plans = [[row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)] for sql, values in active]
    assert len(plans) == (1 if question is find_jobs else 2)
    for steps in plans:
        assert any("INDEX job_untold (finished_at>?)" in step for step in steps)
        assert not any("job_finished" in step for step in steps)


@pytest.mark.parametrize("more", [{}, {"batch": "b"}, {"job_ids": ("open", "read", "told")}, {"words": "t"}], ids=str)
async def test_active_filter_finds_open_and_undelivered_jobs(tmp_path: Path, more: dict[str, Any]) -> None:
    ended = {"status": Status.FAILED, "finished_at": 9.0}
    jobs = [
        a_job(id="open", batch="b", created_at=1.0),
        a_job(id="told", batch="b", created_at=2.0),
        a_job(id="read", batch="b", created_at=3.0),
        a_job(id="long ago", batch="b", created_at=4.0),
        a_job(id="apart", title="T", created_at=5.0),
    ]
    async with open_store(tmp_path) as store:
        await store.add(*jobs, allow_duplicate=True)
        await store.save(replace(jobs[1], **ended))
        await store.save(replace(jobs[2], **ended))
        await store.save(replace(jobs[3], **{**ended, "finished_at": 4.0}))
        await store.mark_delivered(["read"], 9.5)
        group = JobFilter(active=True, since=5.0, **more)
        there = [job.id for job in await store.find(group, 20)]
        assert there == (["apart"] if not more or "words" in more else []) + ["told", "open"]
        assert sum((await store.list_jobs(group, 20, 0.0)).counts.values()) == len(there)


async def test_lists_do_not_read_outputs_and_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of a row are chained: a column behind a report of megabytes is found by reading all of it."""
    async with open_store(tmp_path) as store:
        asked = record_statements(monkeypatch)
        await store.find(JobFilter(), 20)
        monkeypatch.undo()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
        [(sql, _)] = asked
        steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", {"limit": 20, "since": 0, "ids": "[]"})]
    assert "SEARCH output USING COVERING INDEX output_size (job_id=? AND turn=?)" in steps
    assert not any(step.startswith("SEARCH request") for step in steps)


async def test_counts_stay_right_through_every_change(tmp_path: Path) -> None:
    async def count_statuses(store: Store) -> dict[Status, int]:
        counts = (await store.list_jobs(JobFilter(), 1, 0.0)).counts
        assert counts == (await store.list_jobs(JobFilter(since=0.5), 1, 0.0)).counts, "counted one by one"
        return counts

    async with open_store(tmp_path) as store:
        assert await count_statuses(store) == {}
        jobs = [a_job(id=f"job_{number}") for number in range(4)]
        await store.add(*jobs, allow_duplicate=True)
        await store.begin_sending(jobs[0].mark_sending(2.0))
        await store.record_response_id("job_0", 1, "resp_0", 2.0)
        await store.request_cancel("job_1", 2.0)
        assert await count_statuses(store) == {Status.PENDING: 2, Status.QUEUED: 1, Status.CANCELLED: 1}
        running = await store.get("job_0")
        assert running is not None
        await store.save(replace(running, status=Status.IN_PROGRESS))
        await store.save(replace(running, status=Status.IN_PROGRESS))
        await store.purge(5.0, unread=True)
        assert await count_statuses(store) == {Status.PENDING: 2, Status.IN_PROGRESS: 1}
        assert (await store.list_jobs(JobFilter(statuses=frozenset({Status.PENDING})), 1, 0.0)).counts == {
            Status.PENDING: 2
        }
        assert (await store.list_jobs(JobFilter(statuses=frozenset({Status.FAILED})), 1, 0.0)).counts == {}


@pytest.mark.parametrize("words", ["about", "abo some wor", '"some words"', "some-wor", "ABOUT."])
async def test_search_of_common_words_asks_for_complete_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """FTS5 reads all jobs that have a word's beginning, but only the newest that have a complete word."""
    async with open_store(tmp_path) as store:
        await store.add(a_job(prompt="about some words, or some word"))
        await store.request_cancel("job_1", 2.0)
        await store.search("about", 1)
        asked = record_statements(monkeypatch)
        assert [hit.job.id for hit in await store.search(words, 5)] == ["job_1"]
        monkeypatch.undo()
    [searched] = [values["phrases"] for sql, values in asked if "MATCH" in sql]
    assert "*" not in searched
