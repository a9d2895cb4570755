"""Subscriptions and cursors of events hold on each replica and after a restart, on both stores."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import eventually
from postgres_server import new_database
from receiver import Receiver
from team_servers import serving_team
from test_events import NOT_FOUND, event_host
from test_events import receiver as receiver
from test_events import reset_receiver as reset_receiver

from agent_jobs.callback_urls import AllowedHost
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr


@pytest.fixture(params=["sqlite", "postgres"])
def on_both(
    request: pytest.FixtureRequest, team_settings: Settings, receiver: Receiver, tmp_path: Path
) -> Iterator[Settings]:
    port = int(receiver.url.rpartition(":")[2])
    settings = replace(team_settings, data_dir=tmp_path, callback_hosts=(AllowedHost("127.0.0.1", port),))
    if request.param == "sqlite":
        yield settings
        return
    with new_database(request.getfixturevalue("postgres_server_url")) as url:
        yield replace(settings, database_url=SecretStr(url))


async def test_replicas_share_subscriptions_and_cursors(on_both: Settings, receiver: Receiver):
    settings = on_both
    async with serving_team(settings) as one:
        token = await one.add_token()
        async with event_host(one, receiver, token=token) as host:
            made = await host.ask("subscribe", **host.build_params())
        async with serving_team(settings) as other:
            async with event_host(other, receiver, token=token) as host:
                job_id = await host.finish()
                await eventually(lambda: len(host.list_messages()) == 1)
                assert await host.ask("unsubscribe", **host.build_params()) is not None
            async with event_host(one, receiver, token=token) as host:
                [event] = (await host.poll(made["cursor"]))["events"]
                assert event["data"]["job_id"] == job_id
                assert (await host.ask_refused("unsubscribe", **host.build_params())).code == NOT_FOUND
    async with serving_team(settings) as restarted, event_host(restarted, receiver, token=token) as host:
        assert [each["eventId"] for each in (await host.poll(made["cursor"]))["events"]] == [event["eventId"]]
    assert len(host.list_messages()) == 1, "one of two processes sends each"
