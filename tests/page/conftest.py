"""One browser and one page for all tests of a module: both take seconds to start."""

from collections.abc import AsyncGenerator

import pytest
from browsers import PageServer, browsing, serving_page
from playwright.async_api import Browser

from agent_jobs.emulator.server import run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

#: Factor by which runs are faster. The page's own seconds cannot change, since the browser counts them.
SPEED = 10.0


@pytest.fixture(scope="module")
async def browser() -> AsyncGenerator[Browser]:
    async with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[PageServer]:
    with run_emulator(time_scale=SPEED) as upstream:
        settings = Settings(
            api_key=SecretStr("sk-secret"), base_url=upstream.base_url, data_dir=tmp_path_factory.mktemp("data")
        )
        async with serving_page(settings) as server:
            yield server
