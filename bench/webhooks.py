"""GETs of a job with and without the provider's webhooks, and how late its end is seen, while webhooks are lost."""

import base64
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import anyio
import uvicorn
from starlette.applications import Starlette

from agent_jobs.app import App, open_app
from agent_jobs.clock import create_fast_clock
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server.provider_webhooks import WEBHOOK_PATH, build_webhook_routes
from bench.figures import Figure, settings

SPEED = 4  # of the clocks: a job of 40 s takes ten
JOB_S = 40
LOST = 0.22  # of the webhooks
SECRET = "whsec_" + base64.b64encode(b"a secret of this benchmark alone").decode()


async def gets(quick: bool) -> list[Figure]:
    jobs = 8 if quick else 40
    rows: list[Figure] = []
    for name, share in (("no webhooks", None), ("webhooks", 0.0), (f"{LOST:.0%} of them lost", LOST)):
        asked, lateness = await _run_jobs(jobs, share)
        gets = Figure(f"GETs of a job of {JOB_S} s, {name}", "", None, asked, unit="")
        if share is not None:
            gets.target, gets.limit = "<= 2", lambda figure: figure.p50 <= 2
        rows.append(gets)
        rows.append(Figure("  its end -> stored, p50", "", None, lateness, unit="s"))
        rows.append(Figure("  its end -> stored, the latest", "", None, [max(lateness)], unit="s"))
    return rows


async def _run_jobs(count: int, lost: float | None) -> tuple[list[float], list[float]]:
    """The mean of the GETs, and the seconds by which the ends were seen late."""
    with tempfile.TemporaryDirectory() as folder, run_emulator(time_scale=SPEED) as upstream:
        secrets = anyio.Path(folder, "secrets")
        await secrets.write_text(SECRET)
        base = Settings.from_env(settings(folder, upstream.base_url))
        ours = replace(
            base, follow=0, max_concurrent=count, webhook_secret_file=None if lost is None else Path(secrets)
        )
        async with open_app(ours, create_fast_clock(SPEED)) as app, _taking_webhooks(app, ours) as address:
            if lost is not None:
                upstream.emulator.send_webhooks(address, SECRET)
                await _run(app, 1, 1)  # the endpoint is known to send webhooks after the first
            before = upstream.emulator.counters()["retrieves"]
            _lose_webhooks(upstream, count, lost or 0.0)
            lateness = await _run(app, count, JOB_S)
            asked = (upstream.emulator.counters()["retrieves"] - before) / count
    return [asked], lateness


def _lose_webhooks(upstream: RunningServer, count: int, share: float) -> None:
    for number in Random(7).sample(range(count), round(count * share)):
        upstream.queue_fault(on="webhook", match="", webhook_lost=True, skip=number)


async def _run(app: App, count: int, duration_s: int) -> list[float]:
    engine = await app.engine()
    prompts = [f'{n} of {count} [emulate {{"duration_s": {duration_s}, "queued_s": 0}}]' for n in range(count)]
    for first in range(0, count, 20):
        await engine.start(StartRequest(prompts=prompts[first : first + 20]))
    with anyio.fail_after(300):
        mark = await engine.change_mark()
        while (page := await engine.find(JobFilter(), count)).counts.keys() != {"completed"}:
            await engine.wait_for_any_change(mark)
            mark = await engine.change_mark()
    return [(job.finished_at or 0) - (job.running_since or 0) - duration_s for job in page.jobs]


@asynccontextmanager
async def _taking_webhooks(app: App, ours: Settings) -> AsyncGenerator[str]:
    if ours.webhook_secret_file is None:
        yield ""
        return
    routes = build_webhook_routes(app.engine, ours.webhook_secret_file)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, lifespan="off", log_config=None))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server._serve)
        while not server.started:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}{WEBHOOK_PATH}"
        server.should_exit = server.force_exit = True
