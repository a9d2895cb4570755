"""Take pictures of the page at three widths, light and dark, while real jobs run on the emulated API."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from browsers import PageServer, browsing, serving_page
from playwright.async_api import Browser
from small_png import shrink_png

from agent_jobs.emulator.server import run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

FOLDER = Path(__file__).parents[2] / "docs/pictures"
WIDTHS = (360, 900, 1600)
SCHEMES = ("light", "dark")
HEIGHT = 760
NEW = "/new"
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
REVIEW = """I read the migration and the code that writes during it. **Two writes can be lost.**

The first is the counter of unread messages. It is read before the copy begins and written after it ends. """
#: What the jobs were asked, how the emulated model behaves, and their other options.
STORIES: Sequence[tuple[str, dict[str, Any], dict[str, Any]]] = (
    ("Summarise the changes in HTTP/3 for our proxy team", {"duration_s": 1}, {"usage": (21_400, 3_100)}),
    (
        "List all customers who asked for invoices in Polish",
        {"end": "failed", "error_code": "server_error", "error_message": "The server had an error."},
        {},
    ),
    (
        "Compare heat pumps for houses built before 1980",
        {"duration_s": 30, "text": ANSWER},
        {
            "usage": (412_300, 9_800),
            "tools": [{"type": "web_search"}],
            "max_cost_usd": 8,
            "max_output_tokens": 20_000,
            "max_tool_calls": 1,
        },
    ),
    (
        "Close the issues that release 2.3 has fixed",
        {"duration_s": 1, "mcp_approval": CLOSING},
        {"usage": (8_200, 640), "tools": [TRACKER]},
    ),
    (
        "Review the migration to PostgreSQL for lost writes, and say for each of them which statement loses it, under "
        "which interleaving, and how a test could show it",
        {"duration_s": 5, "end": "never", "text": REVIEW},
        {},
    ),
)
FOLLOW_UP = "And which of them fits a house without underfloor heating?"
PRICES = """[models."gpt-6.2-sol"]
input = 2.0
output = 10.0
context_tokens = 1_050_000
cached = 0.2
cache_write = 2.5

[tools.web_search]
per_1000 = 10.0
"""


async def take_pictures(folder: Path, *, is_full: bool) -> None:
    """Take all pictures, of whole pages or of what a window shows of them."""
    with tempfile.TemporaryDirectory() as home, run_emulator(time_scale=10) as upstream:
        prices = anyio.Path(home, "prices.toml")
        await prices.write_text(PRICES)
        settings = Settings(
            api_key=SecretStr("sk-demo"),
            base_url=upstream.base_url,
            data_dir=Path(home, "data"),
            prices=Path(prices),
            daily_budget_usd=20.0,
            budget_mode="spent",
        )
        async with serving_page(settings) as server, browsing() as browser:
            job_id = await start_jobs(server)
            for scheme in SCHEMES:
                await take_scheme(browser, server, scheme, job_id, folder, is_full=is_full)
        empty = replace(settings, data_dir=Path(home, "empty"))
        async with serving_page(empty) as server, browsing() as browser:
            await take_scheme(browser, server, "light", "", folder, "empty-", is_full=is_full)


async def start_jobs(server: PageServer) -> str:
    """Start the jobs, wait for those that end, and return the id of the one whose page is shown."""
    ids: list[str] = []
    for prompt, script, more in STORIES:
        options = {**more}
        if usage := options.pop("usage", None):
            script = {**script, "usage": {"input_tokens": usage[0], "output_tokens": usage[1]}}
        ids.append(await start_job(server, prompt, script, options=options))
    for job_id in ids[:3]:
        await server.host.end(job_id)
    await server.host.call("agent_poll", job_id=ids[3], wait_s=20)
    last = await start_job(
        server,
        FOLLOW_UP,
        {"duration_s": 1, "usage": {"input_tokens": 430_000, "output_tokens": 2_100}},
        previous_job_id=ids[2],
    )
    await server.host.end(last)
    await anyio.sleep(2)  # the running job shows its first sentences
    return ids[2]


async def start_job(server: PageServer, prompt: str, script: dict[str, Any], **more: Any) -> str:
    """Start a job whose upstream run is scripted."""
    options = {**more.pop("options", {}), "metadata": {"emulate": json.dumps(script)}}
    started = await server.host.call(
        "agent_start", prompt=prompt, model="gpt-6.2-sol", wait_s=0, options=options, **more
    )
    return started["job_id"]


async def take_scheme(
    browser: Browser, server: PageServer, scheme: Any, job_id: str, folder: Path, prefix: str = "", *, is_full: bool
) -> None:
    """Take the pictures of one colour scheme."""
    context = await browser.new_context(color_scheme=scheme)
    tab, blank = await context.new_page(), await context.new_page()
    await tab.goto(server.link)
    await tab.wait_for_url(f"{server.url}/")
    paths = {"jobs": "/", "job": f"/jobs/{job_id}", "new": NEW, "spend": "/spend", "health": "/health"}
    if not job_id:
        paths = {"jobs": "/", "spend": "/spend"}
    for page, path in paths.items():
        for width in WIDTHS:
            name = f"{prefix}{page}-{width}-{scheme}"
            await tab.set_viewport_size({"width": width, "height": HEIGHT})
            await tab.goto(server.url + path)
            if page == "new":
                await tab.get_by_label("What should the model do?").fill("Compare three tariffs for a small bakery.")
                await tab.locator("#estimate dl").wait_for()
            png = await shrink_png(blank, await tab.screenshot(full_page=is_full))
            await anyio.Path(folder / f"page-{name}.png").write_bytes(png)
    await context.close()


def main() -> None:
    """Take the pictures of the documentation, or all into the folder that is named."""
    folder = FOLDER
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
    anyio.run(partial(take_pictures, folder, is_full=folder != FOLDER))


if __name__ == "__main__":
    main()
