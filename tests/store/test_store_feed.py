"""The feeds of owners on both stores: the order of their events, and the messages of subscriptions."""

import json
from functools import partial

import anyio
import pytest
from test_store import NOW, Database, a_job, add_finished_job
from test_store import database as database
from test_store import other as other
from test_store import postgres_url as postgres_url
from test_store import store as store

from agent_jobs.jobs.event_feed import FeedFilter
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.store.event_feeds import OAUTH_LIFETIME_S, OLD_SECRET_S, REPLAYED_MAX
from agent_jobs.store.team_records import CallbackMessage, Delivery, NewSubscription, TokenRecord

FINISHED = FeedFilter("finished")
TOKEN = TokenRecord("tok_1", "digest", "alice", "", NOW, expires_at=NOW + 500)
WISH = NewSubscription("sub_1", "tok_1", "finished", "", "", "https://alice.example/x", "whsec_one", NOW + 900)


async def cancelled(store: Store, *job_ids: str, batch: str = "") -> None:
    """Store jobs that ended in this order."""
    for number, job_id in enumerate(job_ids):
        await store.add(a_job(job_id, request_hash=job_id, batch=batch))
        await store.request_cancel(job_id, NOW + number)


async def ids_of(store: Store, after: int, wanted: FeedFilter = FINISHED) -> list[str]:
    return [event.job_id for event in await store.read_feed(wanted, after, 999, 99)]


async def messages_of(store: Store, now: float = NOW + 50) -> list[CallbackMessage]:
    return sorted(await store.claim_callbacks(now, now + 60, 99), key=lambda message: message.number or 0)


async def test_events_of_each_owner_are_numbered_in_their_order(store: Store):
    alice, bob = store.for_owner("alice"), store.for_owner("bob")
    await cancelled(alice, "job_1", "job_2")
    await cancelled(bob, "job_3")
    await add_finished_job(store, "job_single")  # of no owner
    assert await alice.feed_bounds() == (1, 0), "no reader sees an event before its publication"
    await store.publish_events(NOW)
    assert (await alice.feed_bounds(), await bob.feed_bounds(), await store.for_owner("").feed_bounds()) == (
        (1, 2), (1, 1), (1, 0),
    )  # fmt: skip
    assert await ids_of(alice, 0) == ["job_1", "job_2"]
    await cancelled(alice, "job_4", batch="night")
    await store.publish_events(NOW)
    assert (await ids_of(alice, 2), await ids_of(alice, 0, FeedFilter("finished", batch="night"))) == (["job_4"],) * 2
    assert await ids_of(alice, 0, FeedFilter("finished", job_id="job_3")) == []
    assert await alice.find_number_at(NOW + 0.5) == 3
    [first, *_] = await alice.read_feed(FINISHED, 0, 1, 9)
    assert (first.status, first.number, first.at) == (Status.CANCELLED, 1, NOW)


async def test_two_processes_publish_each_event_once_and_a_reader_misses_none(store: Store, other: Store):
    alice, seen, cursor = store.for_owner("alice"), list[str](), 0
    async with anyio.create_task_group() as tasks:
        for number in range(12):
            await cancelled(alice, f"job_{number}")
            for process in (store, other):
                tasks.start_soon(partial(process.publish_events, NOW))
            events = await alice.read_feed(FINISHED, cursor, 999, 99)
            seen += [event.job_id for event in events]
            cursor = max([cursor, *(event.number for event in events)])
    seen += await ids_of(alice, cursor)
    assert sorted(seen) == sorted(f"job_{number}" for number in range(12))
    assert await alice.feed_bounds() == (1, 12)


async def test_old_events_are_forgotten_and_no_number_is_given_twice(store: Store):
    alice = store.for_owner("alice")
    await cancelled(alice, "job_1", "job_2", "job_3")
    await store.publish_events(NOW)
    await store.forget_events(NOW + 99)
    assert await alice.feed_bounds() == (3, 3)
    await cancelled(alice, "job_4")
    await store.publish_events(NOW)
    assert await alice.feed_bounds() == (3, 4)


async def test_subscription_gets_a_message_for_each_of_its_events(store: Store, other: Store):
    alice = store.for_owner("alice")
    await store.add_token(TOKEN)
    await cancelled(alice, "job_0")
    await store.publish_events(NOW)
    granted = await alice.save_subscription(WISH, NOW, limit=9)
    assert granted == (NOW + 500, 1, False), "it ends with its token"
    for sub, more in (
        ("sub_2", {"job_id": "job_2"}),
        ("sub_3", {"batch": "night"}),
        ("sub_4", {"kind": "needs_input"}),
    ):
        assert await alice.save_subscription(WISH._replace(id=sub, **more), NOW, limit=9)
    assert await store.for_owner("bob").save_subscription(WISH._replace(id="sub_5"), NOW, limit=9)
    await cancelled(alice, "job_1", "job_2")
    for process in (store, other, store):
        await process.publish_events(NOW)
    messages = await messages_of(other)
    assert [(m.subscription_id, m.job_id, m.number) for m in messages if m.subscription_id == "sub_1"] == [
        ("sub_1", "job_1", 2), ("sub_1", "job_2", 3),
    ]  # fmt: skip
    assert [m.job_id for m in messages if m.subscription_id != "sub_1"] == ["job_2"]
    assert json.loads(messages[0].body)["eventId"] == messages[0].public_id
    assert await store.find_delivery("sub_1", NOW) == Delivery(WISH.url, (WISH.secret,), 2)
    await store.finish_callback(messages[0].id)
    assert await store.find_delivery("sub_1", NOW) == Delivery(WISH.url, (WISH.secret,), 3)
    assert await alice.save_subscription(WISH, NOW, limit=9, after=0) == (NOW + 500, 2, False), "it was live"
    assert await alice.delete_subscription("sub_1")
    assert (await alice.delete_subscription("sub_1"), await store.find_delivery("sub_1", NOW)) == (False, None)
    assert [message.subscription_id for message in await messages_of(other, NOW + 200)] == ["sub_2"]


async def test_new_subscription_is_sent_what_came_after_its_cursor(store: Store):
    alice = store.for_owner("alice")
    await store.add_token(TOKEN)
    await cancelled(alice, *(f"job_{number}" for number in range(REPLAYED_MAX + 3)))
    await store.publish_events(NOW)
    assert await alice.save_subscription(WISH, NOW, limit=9, after=100) == (NOW + 500, 100, False)
    assert [message.number for message in await messages_of(store, NOW + 1)] == [101, 102, 103]
    again = WISH._replace(id="sub_2")
    assert await alice.save_subscription(again, NOW, limit=9, after=0) == (NOW + 500, 3, True)
    assert await store.delete_jobs(["job_50"])
    assert len(await messages_of(store, NOW + 2)) == REPLAYED_MAX - 1, "none of a job that was deleted"


@pytest.mark.parametrize("end", ["it expires", "its token expires", "its token is revoked"])
async def test_subscription_ends_with_its_messages(store: Store, end: str):
    alice, now = store.for_owner("alice"), NOW + 1
    await store.add_token(TOKEN)
    expires_at = NOW + 100 if end == "it expires" else NOW + 900
    assert await alice.save_subscription(WISH._replace(expires_at=expires_at), NOW, limit=9)
    await cancelled(alice, "job_1")
    await store.publish_events(NOW)
    await store.forget_subscriptions(now)
    assert await store.find_delivery("sub_1", now)
    if end == "its token is revoked":
        assert await store.revoke_token("tok_1", now)
    else:
        now = min(expires_at, NOW + 500)
    assert (await store.find_delivery("sub_1", now), await alice.is_verified(WISH.url, now)) == (None, False)
    await store.forget_subscriptions(now)
    assert await messages_of(store, NOW + 1000) == []


async def test_subscriptions_of_an_owner_are_limited(store: Store):
    alice = store.for_owner("alice")
    await store.add_token(TOKEN._replace(expires_at=None))
    for number in range(3):
        assert await alice.save_subscription(WISH._replace(id=f"sub_{number}"), NOW, limit=3)
    fourth = WISH._replace(id="sub_9")
    assert await alice.save_subscription(fourth, NOW, limit=3) is None
    assert await alice.save_subscription(WISH._replace(id="sub_0"), NOW, limit=3), "a refresh is none more"
    assert await alice.save_subscription(fourth, NOW + 900, limit=3), "those that expired do not count"


async def test_changed_secret_signs_beside_the_one_before_for_a_while(store: Store):
    alice = store.for_owner("alice")
    await store.add_token(TOKEN._replace(expires_at=None))
    await alice.save_subscription(WISH, NOW, limit=9)
    for _ in range(2):  # a refresh does not forget the old one
        await alice.save_subscription(WISH._replace(secret="whsec_two"), NOW, limit=9)
    delivery = await store.find_delivery("sub_1", NOW)
    assert delivery is not None
    assert delivery.secrets == ("whsec_two", "whsec_one")
    assert await store.find_delivery("sub_1", NOW + OLD_SECRET_S) == delivery._replace(secrets=("whsec_two",))


async def test_subscription_of_an_oauth_token_lasts_an_hour(store: Store):
    granted = await store.for_owner("alice").save_subscription(
        WISH._replace(token_id="https://issuer", expires_at=NOW + 9e9), NOW, limit=9
    )
    assert granted is not None
    assert granted.expires_at == NOW + OAUTH_LIFETIME_S


async def test_event_survives_a_restart(database: Database):
    async with database.open() as store:
        await cancelled(store.for_owner("alice"), "job_1")
    async with database.open() as store:
        await store.publish_events(NOW)
        assert await ids_of(store.for_owner("alice"), 0) == ["job_1"]
