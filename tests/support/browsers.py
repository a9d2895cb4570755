"""A browser on the page: a real server over a real engine, and a real Chromium."""

import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from hosts import Host, hosting
from installed_browser import NO_BROWSER, find_browser
from playwright.async_api import Browser, Page, async_playwright

from agent_jobs.page.access import LinkAccess, read_secret
from agent_jobs.page.server import serve_page
from agent_jobs.settings.settings import Settings


@dataclass
class PageServer:
    """The page of a host's jobs."""

    host: Host
    url: str
    access: LinkAccess

    @property
    def link(self) -> str:
        """Return a link that signs in one browser."""
        return f"{self.url}/sign-in?token={self.access.create_link_token()}"


@asynccontextmanager
async def serving_page(settings: Settings) -> AsyncGenerator[PageServer]:
    """Serve the page over the engine of an MCP server, whose host starts the jobs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with hosting(settings) as host, anyio.create_task_group() as tasks:
            assert settings.data_dir is not None
            await host.app.engine()
            access = LinkAccess(read_secret(settings.data_dir), time.time)
            tasks.start_soon(serve_page, host.app.engine, access, listener)
            yield PageServer(host, url, access)
            tasks.cancel_scope.cancel()


@dataclass
class Tab:
    """A signed-in tab, with all that the browser complained about."""

    page: Page
    server: PageServer
    complaints: list[str] = field(default_factory=list[str])

    async def open(self, path: str) -> None:
        await self.page.goto(self.server.url + path)


@asynccontextmanager
async def browsing() -> AsyncGenerator[Browser]:
    """Run a Chromium of this machine."""
    path = find_browser()
    assert path is not None, NO_BROWSER
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def signed_in(browser: Browser, server: PageServer, **options: Any) -> AsyncGenerator[Tab]:
    """Open a tab of a fresh profile, signed in with a link; the options are those of the profile."""
    context = await browser.new_context(**options)
    tab = Tab(await context.new_page(), server)
    tab.page.on("console", lambda message: tab.complaints.append(message.text))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    await tab.page.goto(server.link)
    await tab.page.wait_for_url(f"{server.url}/")
    yield tab
    await context.close()
    assert tab.complaints == []
