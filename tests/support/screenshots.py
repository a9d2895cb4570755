"""Take pictures of the page at three widths, light and dark, while real jobs run on the emulated API."""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from browsers import PageServer, browsing, serving_page
from playwright.async_api import Browser

from agent_jobs.emulator.server import running
from agent_jobs.setting_values import SecretStr
from agent_jobs.settings import Settings

FOLDER = Path(__file__).parents[2] / "docs/pictures"
WIDTHS = (360, 900, 1600)
SCHEMES = ("light", "dark")
HEIGHT = 760
#: Pictures that the documentation shows.
KEPT = {"jobs-900-light", "jobs-900-dark", "job-900-light", "job-900-dark", "jobs-360-light"}
ANSWER = """## In short

A **heat pump** moves heat instead of making it, so one unit of electricity gives three to four units of warmth.

| house | seasonal figure | cost a year |
|---|---:|---:|
| built after 2000 | 4.1 | $780 |
| built before 1980 | 3.0 | $1,240 |

Old houses need larger radiators first. A tariff by the hour lowers the cost by about a fifth.
"""
TRACKER = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example/mcp"}
CLOSING = {"server_label": "tracker", "name": "close_issue", "arguments": {"id": 42, "comment": "Fixed in 2.3"}}
#: What the jobs were asked, how the emulated model behaves, and their tools.
STORIES: Sequence[tuple[str, dict[str, Any], list[dict[str, Any]]]] = (
    ("Summarise the changes in HTTP/3 for our proxy team", {"duration_s": 1}, []),
    ("List all customers who asked for invoices in Polish", {"end": "failed", "error_code": "server_error"}, []),
    ("Compare heat pumps for houses built before 1980", {"duration_s": 1, "text": ANSWER}, [{"type": "web_search"}]),
    ("Close the issues that release 2.3 has fixed", {"duration_s": 1, "mcp_approval": CLOSING}, [TRACKER]),
    ("Review the migration to PostgreSQL for lost writes", {"duration_s": 90_000, "searches": 0, "reasoning": 2}, []),
)


async def take_pictures(folder: Path, kept: set[str]) -> None:
    """Take the pictures with these names; all of them if there are no names."""
    with tempfile.TemporaryDirectory() as home, running(time_scale=10) as upstream:
        settings = Settings(api_key=SecretStr("sk-demo"), base_url=upstream.base_url, data_dir=Path(home))
        async with serving_page(settings) as server, browsing() as browser:
            job_id = await start_jobs(server)
            for scheme in SCHEMES:
                await take_scheme(browser, server, scheme, job_id, folder, kept)


async def start_jobs(server: PageServer) -> str:
    """Start the jobs, wait for those that end, and return the id of the one whose page is shown."""
    ids: list[str] = []
    for prompt, script, tools in STORIES:
        options = {"metadata": {"emulate": json.dumps(script)}, **({"tools": tools} if tools else {})}
        started = await server.host.call("agent_start", prompt=prompt, model="gpt-6.2-sol", wait_s=0, options=options)
        ids.append(started["job_id"])
    for job_id in ids[:4]:
        await server.host.call("agent_poll", job_id=job_id, wait_s=20)
    return ids[2]


async def take_scheme(
    browser: Browser, server: PageServer, scheme: Any, job_id: str, folder: Path, kept: set[str]
) -> None:
    """Take the pictures of one colour scheme."""
    context = await browser.new_context(color_scheme=scheme)
    tab = await context.new_page()
    await tab.goto(server.link)
    await tab.wait_for_url(f"{server.url}/")
    paths = {"jobs": "/", "job": f"/jobs/{job_id}", "new": "/new", "spend": "/spend", "health": "/health"}
    for page, path in paths.items():
        for width in WIDTHS:
            name = f"{page}-{width}-{scheme}"
            if kept and name not in kept:
                continue
            await tab.set_viewport_size({"width": width, "height": HEIGHT})
            await tab.goto(server.url + path)
            await tab.screenshot(path=folder / f"page-{name}.png", full_page=not kept)
    await context.close()


def main() -> None:
    """Take the pictures of the documentation, or all into the folder that is named."""
    if len(sys.argv) > 1:
        anyio.run(take_pictures, Path(sys.argv[1]), set[str]())
    else:
        anyio.run(take_pictures, FOLDER, KEPT)


if __name__ == "__main__":
    main()
