"""No token, key or prompt is in a log, an error or the audit log of the team server."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from authorization_server import running_issuer
from team_servers import serving_team
from test_team_http import ACCEPT, LIST_TOOLS

from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

KEY = "sk-very-secret-key"
PROMPT = "the secret of the user"


async def test_secrets_are_in_no_log_and_no_error(
    team_settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    answers: list[str] = []
    with running_issuer() as issuer:
        settings = replace(team_settings, data_dir=tmp_path, api_key=SecretStr(KEY), oauth_issuer=issuer.url)
        async with serving_team(settings) as team:
            good, revoked = await team.add_token("alice"), await team.add_token("bob")
            owners = team.server.engine.owners
            record, _ = await owners.find_token(revoked)
            assert record is not None
            await owners.revoke_token(record.id)
            signed = issuer.make_token(aud=f"{team.url}/mcp")
            tokens = [good, revoked, f"{good}x", signed, f"{signed}x", issuer.make_token(aud="https://other.example")]
            for token in tokens:
                async with team.http(token) as http:
                    answers.append((await http.post("/mcp", json=LIST_TOOLS, headers=ACCEPT)).text)
                    answers.append((await http.post(f"/{token}", content=token)).text)
            async with team.host(good) as host:
                started = await host.start(PROMPT, emulate={"duration_s": 1})
                await host.end(started["job_id"])
                answers.append(await host.refused("agent_poll", job_id="job_0000000000000000"))
            logged = str(await owners.read_log())
    # The wire of the SDK and of the HTTP client is logged at DEBUG, which no setting switches on for them.
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("agent_jobs", "uvicorn"))
    )
    assert PROMPT not in f"{ours}{logged}"
    for text in (ours, logged, *answers):
        assert not [secret for secret in (*tokens, KEY) if secret in text]
