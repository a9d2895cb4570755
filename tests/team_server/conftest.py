"""A team server for all tests of a module."""

from collections.abc import AsyncGenerator, Iterator

import pytest
from hosts import SPEED
from team_servers import Team, serving_team

from agent_jobs.emulator.server import run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

PRICES = '[models."gpt-6.1-sol"]\ninput = 2.0\noutput = 10.0\n'


@pytest.fixture(scope="module")
def team_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with run_emulator(time_scale=SPEED) as upstream:
        folder = tmp_path_factory.mktemp("team")
        prices = folder / "prices.toml"
        prices.write_text(PRICES)
        yield Settings(
            api_key=SecretStr("sk-secret"), base_url=upstream.base_url, data_dir=folder, prices=prices, max_wait_s=900
        )


@pytest.fixture(scope="module")
async def team(team_settings: Settings, anyio_backend: str) -> AsyncGenerator[Team]:
    async with serving_team(team_settings) as team:
        yield team
