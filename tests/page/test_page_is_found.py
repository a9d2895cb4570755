"""A start names the address of the job on the page that runs for the same database."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from hosts import hosting

from agent_jobs.rendering.paging import count_json_bytes
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store

PAGE = "http://127.0.0.1:4777"


@asynccontextmanager
async def announced_process(settings: Settings, what: str) -> AsyncGenerator[None]:
    """Announce another process with these words, as if it were running."""
    async with open_store(settings.data_path()) as store:
        await store.announce(what, settings.base_url)
        yield


@pytest.mark.parametrize("length", [9, 64, 300])
async def test_start_names_the_page_of_its_job_within_its_bytes(settings: Settings, length: int) -> None:
    async with announced_process(settings, f"ui {PAGE}"), hosting(settings) as host:
        started = await host.start("Find " + "x" * length, wait_s=5, emulate={"duration_s": 600})
        assert started["view"] == f"{PAGE}/jobs/{started['job_id']}"
        assert count_json_bytes(started) <= 240, json.dumps(started)
        assert "view" not in await host.call("agent_poll", job_id=started["job_id"], wait_s=0)


@pytest.mark.parametrize("number", [2, 20, 1])
@pytest.mark.parametrize("batch", [None, "ünï & co", "b" * 60])
async def test_start_of_several_jobs_names_their_page_within_its_bytes(
    settings: Settings, number: int, batch: str | None
) -> None:
    prompts = [f"task {index} " + '[emulate {"duration_s": 600}]' for index in range(number)]
    async with announced_process(settings, f"ui {PAGE}"), hosting(settings) as host:
        started = await host.call("agent_start", prompts=prompts, batch=batch)
    assert count_json_bytes(started) <= 400, json.dumps(started)
    pages = {None: "/", "ünï & co": "/?batch=%C3%BCn%C3%AF+%26+co", "b" * 60: f"/?batch={'b' * 60}"}
    path = pages[batch]
    if batch is None and "batch" in started:
        path = f"/?batch={started['batch']}"
    if number == 1:
        path = f"/jobs/{started['job_ids'][0]}"
    assert started["view"] == f"{PAGE}{path}"


@pytest.mark.parametrize("what", ["server", "watch", "ui", "work"])
async def test_start_names_no_page_that_does_not_run(settings: Settings, what: str) -> None:
    async with announced_process(settings, what), hosting(settings) as host:
        assert "view" not in await host.start(emulate={"duration_s": 600})
