"""Owners over HTTP: each sees only their own jobs, and the audit log has each action."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from team_servers import Team, serving_team

from agent_jobs.errors import SettingWarning
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

#: US dollars: 100,000 input tokens at 2.00 a million and 20,000 output tokens at 10.00.
USAGE, USD = {"input_tokens": 100_000, "output_tokens": 20_000}, 0.4


async def read_actions(team: Team, owner: str) -> Sequence[Any]:
    return [entry for _, entry in await team.server.engine.owners.read_log(owner=owner)]


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_owner_sees_no_job_of_another(team: Team, era: str):
    names = [f"{name}-{era}" for name in ("alice", "bob")]
    async with team.host(await team.add_token(names[0]), era) as alice:
        job_id = (await alice.start(emulate={"end": "never"}))["job_id"]
        async with team.host(await team.add_token(names[1]), era) as bob:
            for tool in ("agent_poll", "agent_result", "agent_cancel", "agent_reply"):
                arguments = {"message": "x"} if tool == "agent_reply" else {}
                assert "There is no job" in await bob.refused(tool, job_id=job_id, **arguments)
            assert (await bob.call("agent_list"))["jobs"] == []
        assert (await alice.call("agent_cancel", job_id=job_id))["status"] == "cancelled"


async def test_actions_are_logged_with_caller_and_cost(team: Team):
    token = await team.add_token("erin")
    async with team.host(token) as host:
        job_id = (await host.start("secret prompt", emulate={"duration_s": 1, "usage": USAGE}))["job_id"]
        finished = await host.end(job_id)
        await host.call("agent_result", job_id=job_id)
        other_id = (await host.start(emulate={"end": "never"}))["job_id"]
        await host.call("agent_cancel", job_id=other_id)
    entries = await read_actions(team, "erin")
    assert [(entry.action, entry.job_id) for entry in entries] == [
        ("start", job_id), ("result", job_id), ("result", job_id), ("start", other_id), ("cancel", other_id),
    ]  # fmt: skip
    record, _ = await team.server.engine.owners.find_token(token)
    assert record is not None
    assert record.last_used_at is not None
    assert {(entry.token_id, entry.client, entry.address) for entry in entries} == {(record.id, "mcp", "127.0.0.1")}
    assert entries[1].cost_usd == finished["cost_usd"] == pytest.approx(USD)
    assert "secret prompt" not in str(entries)
    assert token not in str(entries)


async def test_client_without_a_name_is_logged_by_its_library(team: Team):
    async with team.host(await team.add_token("frank"), "legacy") as host:
        job_id = (await host.start(emulate={"end": "never"}))["job_id"]
        await host.call("agent_cancel", job_id=job_id)
    assert {entry.client.partition("/")[0] for entry in await read_actions(team, "frank")} == {"python-httpx2"}


async def test_settings_of_the_operator_are_not_used_for_owners(
    team_settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "secret.txt").write_text("the operator's")
    toolbox = tmp_path / "tools.json"
    toolbox.write_text('{"mcpServers": {"one": {"command": "false"}}}')
    settings = replace(
        team_settings,
        data_dir=tmp_path / "data",
        file_roots=(tmp_path,),
        toolbox=toolbox,
        secrets={"SECRET": SecretStr("s")},
        warnings=(SettingWarning("AGENT_JOBS_X of the operator is odd."),),
    )
    with caplog.at_level("WARNING"):
        async with serving_team(settings) as team, team.host(await team.add_token()) as host:
            assert "There is no upload" in await host.refused(
                "agent_start", prompt="read", files=[str(tmp_path / "secret.txt")]
            )
            assert await host.refused("agent_start", prompt="use", options={"toolbox": ["one"]})
            assert "warnings" not in await host.call("agent_list")
            assert (await team.server.engine.find(JobFilter(), 1)).warnings == settings.warnings
            tools = [
                {"type": "mcp", "server_label": "x", "server_url": "https://x.example", "authorization": "${SECRET}"}
            ]
            assert await host.refused("agent_start", prompt="send", options={"tools": tools})
    warned = [record.getMessage() for record in caplog.records if "is not used over HTTP" in record.getMessage()]
    assert len(warned) == 3
