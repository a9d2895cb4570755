"""The steps of a job are stored with their times, whether they were streamed or polled."""

from dataclasses import replace

from hosts import hosting

from agent_jobs.jobs.response_steps import Step
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store

SEARCHED = {"duration_s": 20, "searches": 3, "text": "Found."}


async def run_searches(settings: Settings) -> list[Step]:
    """Return the stored steps of a finished job that searched three times."""
    async with hosting(settings) as host:
        started = await host.start(emulate=SEARCHED, options={"tools": [{"type": "web_search"}]})
        await host.end(started["job_id"])
    assert settings.data_dir is not None
    async with open_store(settings.data_dir) as store:
        return await store.get_steps(started["job_id"])


def count_kinds(steps: list[Step]) -> dict[str, int]:
    return {kind: sum(step.kind == kind for step in steps) for kind in ("web_search", "message")}


async def test_streamed_job_has_the_time_of_each_step(settings: Settings) -> None:
    steps = await run_searches(settings)
    assert count_kinds(steps) == {"web_search": 3, "message": 1}
    assert [step.position for step in steps] == list(range(len(steps)))
    searches = [step for step in steps if step.kind == "web_search"]
    assert all(step.detail for step in searches)
    assert searches[0].seen_at < searches[2].seen_at, "each was seen when it began"
    assert all(step.finished_at is not None and step.seen_at <= step.finished_at for step in steps)


async def test_finished_polled_job_has_all_its_steps(settings: Settings) -> None:
    steps = await run_searches(replace(settings, follow=0))
    assert count_kinds(steps) == {"web_search": 3, "message": 1}
    assert all(step.finished_at is not None for step in steps)
