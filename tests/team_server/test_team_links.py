"""Links that a team server answers with lead to its public address."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from postgres_server import new_database
from team_servers import serving_team

from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr


@pytest.fixture(params=["sqlite", "postgres"])
def on_both(request: pytest.FixtureRequest, team_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    settings = replace(team_settings, data_dir=tmp_path)
    if request.param == "sqlite":
        yield settings
        return
    with new_database(request.getfixturevalue("postgres_server_url")) as url:
        yield replace(settings, database_url=SecretStr(url))


@pytest.mark.parametrize("public", ["https://jobs.example.com:8443", "http://jobs.example.com", None])
async def test_starts_name_the_page_at_the_public_address(on_both: Settings, public: str | None):
    async with serving_team(replace(on_both, public_url=public)) as team:
        token = await team.add_token("anna")
        async with team.host(token) as host:
            one = await host.start(emulate={"duration_s": 600})
            several = await host.call("agent_start", prompts=["a", "b"], batch="two")
        if public is None:
            assert "view" not in one | several
            return
        async with team.http(Accept="text/html") as browser:
            for view, path in ((one["view"], f"/jobs/{one['job_id']}"), (several["view"], "/?batch=two")):
                assert view == f"{public}{path}"
                answer = await browser.get(path)
                sign_in = f"/sign-in?{urlencode({'next': path})}"
                assert (answer.status_code, answer.headers["location"]) == (303, sign_in), "a link of the page itself"
