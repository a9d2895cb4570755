"""Owners of a team server: each sees, changes and spends only their own."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from test_store import (
    COMPLETED,
    HERE,
    IN_PROGRESS,
    NOW,
    Database,
    a_job,
    add_finished_job,
    output_with_calls,
    read_job,
    require_job,
    with_status,
)
from test_store import database as database
from test_store import other as other
from test_store import postgres_url as postgres_url
from test_store import store as store

from agent_jobs.errors import BudgetError, BusyOwnerError, RequestError
from agent_jobs.jobs.event_feed import FeedFilter
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.owners import Owner, OwnerLimits
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import RUNNING, Status
from agent_jobs.store.base import Store
from agent_jobs.store.team_records import AuditEntry, NewSubscription, ShelvedFile, TokenRecord
from agent_jobs.store.values import NO_LIMIT, Budget, Upload

DAY = Budget(5.0, NOW - 1)
TOKEN = TokenRecord("tok_1", "digest", "alice", "laptop", NOW)
ENTRY = AuditEntry(NOW, "alice", "tok_1", "host", "start", "job_ended", 0.5, "10.0.0.1")
SUBSCRIPTION = NewSubscription("sub_alice", "tok_1", "finished", "", "", "https://alice.example/", "whsec_", NOW * 2)
CALL = Call(id="call_1", kind="function", name="f", arguments="{}", needs="output", state="open")

#: Calls every method of a store about a job.
WALK: dict[str, Callable[[Store, Job], Awaitable[object]]] = {
    "get": lambda store, job: store.get(job.id),
    "get_output": lambda store, job: store.get_output(job.id),
    "find": lambda store, job: store.find(JobFilter(job_ids=(job.id,)), 9),
    "list_jobs": lambda store, job: store.list_jobs(JobFilter(), 9, NOW - 1),
    "find_ids": lambda store, job: store.find_ids(job.id[:8], 9),
    "find_unobserved": lambda store, job: store.find_unobserved(JobFilter(), 9),
    "get_exchanges": lambda store, job: store.get_exchanges(job.id),
    "get_calls": lambda store, job: store.get_calls(job.id),
    "get_prompt": lambda store, job: store.get_prompt(job.id),
    "get_turns": lambda store, job: store.get_turns(job.id),
    "get_steps": lambda store, job: store.get_steps(job.id),
    "get_uploads": lambda store, job: store.get_uploads(job.id),
    "get_output_files": lambda store, job: store.get_output_files(job.id),
    "get_tombstone": lambda store, job: store.get_tombstone("job_gone"),
    "transition": lambda store, job: store.transition(job.id, lambda stored: replace(stored, activity="x")),
    "begin_sending": lambda store, job: store.begin_sending(job.mark_sending(NOW)),
    "record_response_id": lambda store, job: store.record_response_id(job.id, 1, "resp_x", NOW),
    "save": lambda store, job: store.save(replace(job, activity="x"), held=False),
    "save_progress": lambda store, job: store.save_progress([replace(job, activity="x")]),
    "save_call": lambda store, job: store.save_call(job, replace(CALL, state="done"), "open", ""),
    "wait_for_input": lambda store, job: store.wait_for_input(job, NOW, 9.0),
    "record_reply": lambda store, job: store.record_reply(job, [replace(CALL, state="done", output={})], NOW),
    "begin_next_turn": lambda store, job: store.begin_next_turn(job.with_next_turn({}, "r-2"), [DAY]),
    "rewrite_request": lambda store, job: store.rewrite_request(job),
    "reset_for_resend": lambda store, job: store.reset_for_resend(job, f"resp_{job.id}"),
    "request_cancel": lambda store, job: store.request_cancel(job.id, NOW),
    "record_upload": lambda store, job: store.record_upload(job.id, "u.txt", "file_x"),
    "mark_finalized": lambda store, job: store.mark_finalized(job.id, "/x"),
    "find_due": lambda store, job: store.find_due(NOW + 1e6, HERE),
    "next_due_at": lambda store, job: store.next_due_at(HERE),
    "schedule": lambda store, job: store.schedule(job.id, NOW, 1.0),
    "mark_watched": lambda store, job: store.mark_watched(job.id, NOW, NOW + 60),
    "release_claim": lambda store, job: store.release_claim(job.id, NOW),
    "claim_lost": lambda store, job: store.claim_lost("https://x/v1", sent_before=NOW + 9, created_before=NOW + 9),
    "wait_for_slot": lambda store, job: store.wait_for_slot(job.id, "x"),
    "claim_free_slots": lambda store, job: store.claim_free_slots(HERE, 99),
    "count_ahead": lambda store, job: store.count_ahead(replace(job, owner="bob", priority=-1)),
    "claim_cancel": lambda store, job: store.claim_cancel(job.id, NOW, 1.0),
    "clear_cancel_claim": lambda store, job: store.clear_cancel_claim(job.id),
    "wait_for_change": lambda store, job: store.wait_for_change(job.id, job.revision),
    "wait_for_status": lambda store, job: store.wait_for_status(job.id, job.status),
    "mark_delivered": lambda store, job: store.mark_delivered([job.id], NOW),
    "mark_read": lambda store, job: store.mark_read([job.id], NOW),
    "pending_notification": lambda store, job: store.pending_notification(
        0, settled_before=NOW * 2, asked_before=NOW * 2
    ),
    "claim_notification": lambda store, job: store.claim_notification(job.id, job.finished_at or NOW),
    "record_event": lambda store, job: store.record_event(job.id, NOW, "x"),
    "get_events": lambda store, job: store.get_events(job.id),
    "search": lambda store, job: store.search("secret", 9),
    "count_unindexed": lambda store, job: store.count_unindexed(),
    "get_first_request": lambda store, job: store.get_first_request(job.id),
    "sum_spending": lambda store, job: store.sum_spending(["model"], JobFilter()),
    "has_conversation": lambda store, job: store.has_conversation("conv_a"),
    "sum_day": lambda store, job: store.sum_day(NOW - 1, spent=False),
    "purge": lambda store, job: store.purge(NOW * 2, unread=True),
    "delete_jobs": lambda store, job: store.delete_jobs([job.id]),
    "count_unread": lambda store, job: store.count_unread(NOW * 2),
    "get_owner": lambda store, job: store.get_owner("alice"),
    "list_owners": lambda store, job: store.list_owners(NOW - 1),
    "set_owner": lambda store, job: store.set_owner(Owner("alice", OwnerLimits(99))),
    "add_token": lambda store, job: store.add_token(TOKEN._replace(id="tok_2", hash="stolen")),
    "list_tokens": lambda store, job: store.list_tokens(),
    "find_token": lambda store, job: store.find_token("digest"),
    "revoke_token": lambda store, job: store.revoke_token("tok_1", NOW),
    "save_made_file": lambda store, job: store.save_made_file(job.id, "x.txt", "made_x", "", b"x"),
    "find_made_file": lambda store, job: store.find_made_file("made_alice"),
    "find_shelved_file": lambda store, job: store.find_shelved_file("up_alice", 0.0),
    "read_audit": lambda store, job: store.read_audit(owner="alice"),
    "read_feed": lambda store, job: store.read_feed(FeedFilter("finished"), 0, 99, 9),
    "feed_bounds": lambda store, job: store.feed_bounds(),
    "find_number_at": lambda store, job: store.find_number_at(NOW * 2),
    "is_verified": lambda store, job: store.is_verified(SUBSCRIPTION.url, NOW),
    "save_subscription": lambda store, job: store.save_subscription(
        SUBSCRIPTION._replace(url="https://bob.example/"), NOW, limit=9, after=0
    ),
    "delete_subscription": lambda store, job: store.delete_subscription(SUBSCRIPTION.id),
    "mark_token_used": lambda store, job: store.mark_token_used("tok_1", NOW),
}
#: Methods without a job and an owner, with the reason why they are the same for all owners.
SHARED = {
    "for_owner": "it makes the stores of owners",
    "add": "see the tests of keys and of the same work",
    "store_info": "facts about the database",
    "server_info": "facts about the database, for the operator",
    "announce": "about this process",
    "renew_claims": "about this process",
    "read_clock": "the database's time",
    "release_claims": "about this process",
    "reclaim_from_dead": "about dead processes; only a worker calls it",
    "change_mark": "a number",
    "wait_for_any_change": "wakes waiters, who then read what is theirs",
    "add_audit": "the server names the owner of each entry",
    "add_shelved_file": "the file is the owner's",
    "forget_shelved_files": "old files of all owners; a worker's",
    "read_metrics": "the operator's",
    "claim_traces": "a worker's",
    "record_webhook": "from the provider, for any job; a worker's",
    "claim_unknown_webhooks": "a worker's",
    "schedule_webhook": "a worker's",
    "resolve_webhook": "a worker's",
    "expects_webhook": "a worker's",
    "last_webhook_at": "about an endpoint",
    "forget_webhooks": "a worker's",
    "find_callbacks": "a worker's",
    "add_callback": "a worker's",
    "claim_callbacks": "a worker's",
    "schedule_callback": "a worker's",
    "finish_callback": "a worker's",
    "publish_events": "a worker's, for the readers of every owner",
    "forget_events": "old events of all owners; a worker's",
    "forget_subscriptions": "those of all owners that ended; a worker's",
    "find_delivery": "a worker's",
    "learned_mode": "about an endpoint",
    "learn_mode": "about an endpoint",
    "refused_parameters": "about an endpoint",
    "learn_refused_parameter": "about an endpoint",
}


def members_of(protocol: type) -> set[str]:
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False) and base.__name__ != "Protocol"]
    return {name for base in bases for name in vars(base) if not name.startswith("_")}


def test_every_store_method_is_covered_by_the_walk() -> None:
    assert members_of(Store) == WALK.keys() | SHARED.keys()


async def jobs_of_alice(store: Store) -> list[Job]:
    """Add a finished, an asking, a waiting and a deleted job, with all their rows."""
    await store.set_owner(Owner("alice", OwnerLimits(7), "key_of_alice"))
    await store.add_token(TOKEN)
    await store.add_audit([ENTRY])
    alice = store.for_owner("alice")
    await alice.add_shelved_file(ShelvedFile("up_alice", "a.txt", b"secret"), NOW, since=0.0, room=99)
    await add_finished_job(alice, "job_gone", output="secret", cost_usd=1.0)
    await store.delete_jobs(["job_gone"])
    await add_finished_job(alice, "job_ended", prompt="secret", output="secret", cost_usd=0.5)
    asks = a_job("job_asks", prompt="secret", request_hash="asks", reserved_usd=1.0)
    await alice.add(asks, uploads=[Upload("u.txt", b"secret")])
    assert await store.begin_sending(asks.mark_sending(NOW))
    await store.record_response_id(asks.id, 1, "resp_asks", NOW)
    job = with_status(await read_job(store, asks.id), IN_PROGRESS, output=output_with_calls("call_1"))
    job = require_job(await store.save(replace(job, turn=replace(job.turn, has_open_calls=True))))
    [call] = await store.get_calls(job.id)
    assert await store.save_call(job, replace(call, needs="output"), "open")
    assert await store.wait_for_input(job, NOW, 600.0)
    waits = a_job("job_waits", prompt="secret", request_hash="waits")
    await alice.add(waits)
    await store.wait_for_slot(waits.id, "waits")
    await store.save_made_file("job_ended", "m.txt", "made_alice", "", b"secret")
    await store.publish_events(NOW)
    assert await alice.save_subscription(SUBSCRIPTION, NOW, limit=9) is not None
    return [await read_job(store, job_id) for job_id in ("job_ended", "job_asks", "job_waits")]


async def describe(store: Store, jobs: list[Job]) -> list[object]:
    """Return everything that the walk could have changed."""
    facts: list[object] = [await store.get_owner("alice"), await store.list_tokens()]
    facts += [await store.find_delivery(SUBSCRIPTION.id, NOW), await store.for_owner("alice").feed_bounds()]
    for job in jobs:
        facts += [await store.get(job.id), await store.get_events(job.id), await store.get_calls(job.id)]
        facts += [await store.get_uploads(job.id), await store.get_turns(job.id)]
    return facts


async def outcome_of(call: Awaitable[object]) -> object:
    with anyio.fail_after(60):
        try:
            return await call
        except Exception as error:  # as for an unknown job, whatever that is
            return type(error)


async def test_job_of_another_owner_is_an_unknown_job_for_every_method(store: Store):
    jobs = await jobs_of_alice(store)
    before = await describe(store, jobs)
    bob = store.for_owner("bob")
    for name, call in WALK.items():
        for job in jobs:
            unknown = replace(job, id="job_unknown")
            assert await outcome_of(call(bob, job)) == await outcome_of(call(bob, unknown)), name
    assert await describe(store, jobs) == before
    assert await bob.list_jobs(JobFilter(), 9, NOW - 1) == await store.for_owner("carol").list_jobs(
        JobFilter(), 9, NOW - 1
    )
    assert (await bob.list_tokens(), await bob.list_owners(NOW - 1), await bob.sum_day(NOW - 1, spent=False)) == (
        [],
        [],
        0.0,
    )
    assert [job.id for job in await store.for_owner("alice").find(JobFilter(), 9)] == [
        job.id for job in await store.find(JobFilter(), 9)
    ]


async def test_owner_sees_and_changes_only_their_own_jobs(store: Store):
    """Check that the walk does find the jobs of its own owner; else finding none of another proves nothing."""
    jobs = await jobs_of_alice(store)
    alice = store.for_owner("alice")
    for job in jobs:
        assert await alice.get(job.id) == job
        assert job.owner == "alice"
    output = await alice.get_output("job_ended")
    assert output is not None
    assert output.text == "secret"
    assert await alice.find_made_file("made_alice") is not None
    assert await alice.find_shelved_file("up_alice", 0.0) is not None
    finished = await alice.read_feed(FeedFilter("finished"), 0, 99, 9)
    assert {event.job_id for event in finished} == {"job_gone", "job_ended"}
    assert [event.job_id for event in await alice.read_feed(FeedFilter("needs_input"), 0, 99, 9)] == ["job_asks"]
    assert await alice.is_verified(SUBSCRIPTION.url, NOW)
    assert [hit.job.id for hit in await alice.search("secret", 9)] != []
    assert (await alice.list_jobs(JobFilter(), 9, NOW - 1)).today_usd == pytest.approx(1.0 + 0.5 + 1.0)
    assert await alice.get_tombstone("job_gone") is not None
    assert await alice.find_ids("job_", 9) == ["job_asks", "job_ended", "job_waits"]
    assert await alice.find_token("digest") == TOKEN
    assert await alice.claim_free_slots(HERE, 9) == ["job_waits"]
    assert await alice.request_cancel("job_waits", NOW) is not None
    assert list(await alice.delete_jobs(["job_ended"])) == ["job_ended"]


async def test_keys_and_the_same_work_are_each_owners_own(store: Store):
    alice, bob = store.for_owner("alice"), store.for_owner("bob")
    assert await alice.add(a_job("job_1", key="monday")) == [None]
    assert await bob.add(a_job("job_2", key="monday")) == [None]
    assert await alice.add(a_job("job_3", request_hash="same")) == [None]
    assert await bob.add(a_job("job_4", request_hash="same")) == [None]
    for owner, first, second in ((alice, "job_1", "job_3"), (bob, "job_2", "job_4")):
        existing = await owner.add(a_job("job_5", key="monday"), a_job("job_6", request_hash="same"))
        assert [require_job(job).id for job in existing] == [first, second]
    assert await store.add(a_job("job_7", key="monday"), a_job("job_8", request_hash="same")) == [None, None]


@pytest.mark.parametrize("spent", [False, True])
async def test_budget_of_an_owner_counts_only_the_owners_jobs_also_deleted_ones(store: Store, spent: bool):
    alice, bob = store.for_owner("alice"), store.for_owner("bob")
    await add_finished_job(alice, "job_1", cost_usd=4.0)
    await store.delete_jobs(["job_1"])
    await add_finished_job(bob, "job_2", cost_usd=1.0)
    ours, theirs = (Budget(4.0, NOW - 1, spent, owner=name) for name in ("alice", "bob"))
    new = a_job("job_3", request_hash="new", reserved_usd=1.0)
    with pytest.raises(BudgetError) as refusal:
        await alice.add(new, budgets=[ours])
    assert refusal.value.code == ("owner_budget_spent" if spent else "owner_budget_too_small")
    assert await bob.add(new, budgets=[theirs, Budget(6.0, NOW - 1, spent)]) == [None]
    with pytest.raises(BudgetError) as refusal:
        await bob.add(replace(new, id="job_4", request_hash="n"), budgets=[theirs, Budget(5.0, NOW - 1, spent)])
    assert refusal.value.code == ("budget_spent" if spent else "budget_too_small")


async def test_starts_in_a_minute_are_limited_for_each_owner_also_if_deleted(store: Store):
    alice, bob = store.for_owner("alice"), store.for_owner("bob")

    async def start(owner: Store, number: int, at_s: float) -> list[Job | None]:
        job = a_job(f"job_{number}", request_hash=f"h{number}", created_at=NOW + at_s)
        return await owner.add(job, starts_per_minute=2)

    await add_finished_job(alice, "job_0", created_at=NOW)
    await store.delete_jobs(["job_0"])
    assert await start(alice, 1, 10) == [None]
    with pytest.raises(BusyOwnerError) as refusal:
        await start(alice, 2, 20.5)
    assert (refusal.value.code, refusal.value.retry_after_s) == ("too_many_starts", 40)
    assert await store.get("job_2") is None
    assert [require_job(job).id for job in await start(alice, 1, 20)] == ["job_1"], "a job that exists is no start"
    assert await start(bob, 3, 20) == [None]
    assert await start(alice, 2, 60) == [None]
    several = [a_job(f"job_{n}", request_hash=f"h{n}", created_at=NOW + 500) for n in range(10, 13)]
    with pytest.raises(RequestError) as refused:
        await alice.add(*several, starts_per_minute=2)
    assert refused.value.code == "too_many_prompts"


async def run(store: Store, job: Job, **limits: int) -> bool:
    return await store.begin_sending(job.mark_sending(NOW), **limits)


async def test_free_slots_go_to_the_owner_with_the_fewest_jobs(store: Store, other: Store):
    """500 older jobs of one owner with a higher priority do not delay the only job of another owner."""
    alice, bob, carol = (store.for_owner(name) for name in ("alice", "bob", "carol"))
    running = a_job("job_running", request_hash="r")
    await alice.add(running)
    assert await run(store, running, limit=4)
    many = [a_job(f"job_a{n:03}", request_hash=f"a{n}", priority=1, created_at=NOW + n) for n in range(500)]
    await alice.add(*many)
    await bob.add(a_job("job_b", request_hash="b", created_at=NOW + 900))
    await carol.add(*(a_job(f"job_c{n}", request_hash=f"c{n}", created_at=NOW + 1000 + n) for n in range(2)))
    for job in await store.find(JobFilter(statuses=frozenset({Status.PENDING})), 999):
        await store.wait_for_slot(job.id, "waits")
    assert sorted(await other.claim_free_slots(HERE, 4)) == ["job_a000", "job_b", "job_c0"]
    assert await store.count_ahead(await read_job(store, "job_b")) == 0


@pytest.mark.parametrize(("default", "own", "most"), [(2, None, 2), (NO_LIMIT, 1, 1), (1, 3, 3)])
async def test_owner_runs_no_more_jobs_at_once_than_set(store: Store, default: int, own: int | None, most: int):
    await store.set_owner(Owner("alice", OwnerLimits(max_concurrent=own)))
    alice, bob = store.for_owner("alice"), store.for_owner("bob")
    jobs = [a_job(f"job_{n}", request_hash=f"h{n}", created_at=NOW + n) for n in range(5)]
    await alice.add(*jobs)
    assert [await run(store, job, owner_limit=default) for job in jobs[:-1]] == [True] * most + [False] * (4 - most)
    await bob.add(a_job("job_bob", request_hash="bob"))
    assert await run(store, replace(a_job("job_bob"), owner="bob"), owner_limit=default)
    for job in jobs[most:]:
        await store.wait_for_slot(job.id, "waits")
    assert await store.claim_free_slots(HERE, 99, default) == []
    await store.save(with_status(await read_job(store, "job_0"), Status.FAILED))
    assert await store.claim_free_slots(HERE, 99, default) == [f"job_{most}"]


class OwnerRivals:
    """Processes that start and end random jobs of two owners at the same time.

    Half of the starts of an owner have no key, so that each is a job of its own. These are more than the limit of
    starts, so that some are refused in whichever order the processes run.
    """

    SLOTS, DEFAULT, STARTS, USD = 4, 2, 9, 6.0
    PROCESSES, STARTS_OF_EACH = 4, 5
    LIMITS: ClassVar[dict[str, int]] = {"alice": 1, "bob": 2}

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.refusals: dict[str, set[str]] = {owner: set() for owner in self.LIMITS}

    def plan_starts(self, owner: str) -> list[list[Job]]:
        """Return the jobs that each process starts for an owner."""
        count = self.PROCESSES * self.STARTS_OF_EACH
        assert count // 2 > self.STARTS
        keys = [None, "k"] * (count // 2)
        self.random.shuffle(keys)
        jobs = [a_job(f"job_{owner}_{n}", key=key, reserved_usd=1.0, owner=owner) for n, key in enumerate(keys)]
        return [jobs[number :: self.PROCESSES] for number in range(self.PROCESSES)]

    async def work(self, process: Store, owner: str, jobs: list[Job]) -> None:
        for job in jobs:
            await self.start(process.for_owner(owner), job)
            for waiting in await process.claim_free_slots(HERE, self.SLOTS, self.DEFAULT):
                await self.step(process, waiting)
            await self.check(process)

    async def start(self, process: Store, job: Job) -> None:
        budgets = [Budget(self.USD, NOW - 1, owner=job.owner), Budget(10.0, NOW - 1)]
        try:
            [existing] = await process.add(job, budgets=budgets, starts_per_minute=self.STARTS)
        except (BudgetError, BusyOwnerError) as refusal:
            self.refusals[job.owner].add(refusal.code)
            return
        if existing is None:
            await self.step(process, job.id)

    async def step(self, process: Store, name: str) -> None:
        for _ in range(self.random.randrange(3)):
            await checkpoint()
        job = await read_job(process, name)
        if not await run(process, job, limit=self.SLOTS, owner_limit=self.DEFAULT):
            await process.wait_for_slot(name, "waits")
            return
        job = require_job(await process.record_response_id(name, 1, f"resp_{name}", NOW))
        if self.random.random() < 0.7:
            await process.save(with_status(job, COMPLETED, cost_usd=0.25))

    async def check(self, process: Store) -> None:
        for owner, most in self.LIMITS.items():
            page = await process.for_owner(owner).list_jobs(JobFilter(), 99, NOW - 1)
            assert sum(page.counts.get(status, 0) for status in RUNNING) <= most
            assert page.today_usd <= self.USD
            assert sum(page.counts.values()) <= self.STARTS
            assert len([job for job in page.jobs if job.key]) <= 1


@pytest.mark.parametrize("seed", range(3))
async def test_random_starts_and_ends_of_several_processes_keep_each_owner_s_limits(database: Database, seed: int):
    rivals = OwnerRivals(seed)
    async with database.open() as first, database.open() as second:
        await first.set_owner(Owner("alice", OwnerLimits(max_concurrent=1)))
        async with anyio.create_task_group() as tasks:
            for owner in rivals.LIMITS:
                for process, jobs in zip((first, second, first, second), rivals.plan_starts(owner), strict=True):
                    tasks.start_soon(rivals.work, process, owner, jobs)
        owners = {job.owner for job in await first.find(JobFilter(), 99)}
    assert owners == {"alice", "bob"}
    assert all(rivals.refusals.values())


async def test_owners_are_listed_with_their_use(store: Store):
    await store.set_owner(Owner("dave", OwnerLimits(daily_budget_usd=2.5), "key_of_dave"))
    await store.set_owner(Owner("dave", OwnerLimits(starts_per_minute=3)))
    await store.add_token(TOKEN)
    await add_finished_job(store.for_owner("bob"), "job_1", cost_usd=1.5)
    await store.for_owner("bob").add(a_job("job_2", request_hash="2"))
    uses = await store.list_owners(NOW - 1)
    assert [(use.owner.name, use.jobs, use.running, use.waiting, use.today_usd) for use in uses] == [
        ("alice", 0, 0, 0, 0.0),
        ("bob", 2, 0, 1, 1.5),
        ("dave", 0, 0, 0, 0.0),
    ]
    assert await store.get_owner("dave") == Owner("dave", OwnerLimits(starts_per_minute=3))
