"""The routes of the team server beside MCP, and the credentials that each needs."""

from dataclasses import replace
from pathlib import Path

from team_apps import SECRET, webhook_request
from team_servers import serving_team

from agent_jobs.settings.settings import Settings
from agent_jobs.team_server.request_body import MAX_BODY_BYTES


async def test_files_need_a_token_and_webhooks_a_signature(team_settings: Settings, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text(SECRET)
    settings = replace(team_settings, data_dir=tmp_path / "data", webhook_secret_file=secrets)
    async with serving_team(settings) as team, team.http() as http:
        assert (await http.post("/hooks/openai", content=b"{}")).status_code == 400
        assert (await http.post("/hooks/openai", **webhook_request("resp_1"))).status_code == 204
        assert (await http.post("/hooks/openai/x", **webhook_request("resp_1"))).status_code in (401, 404)
        assert (await http.put("/files/a.txt", content=b"x")).status_code == 401
        ada = {"Authorization": f"Bearer {await team.add_token('ada')}"}
        bob = {"Authorization": f"Bearer {await team.add_token('bob')}"}
        put = await http.put("/files/a.txt", content=b"x" * (MAX_BODY_BYTES + 1), headers=ada)
        assert put.status_code == 201, "files may be longer than messages"
        path = "/files/" + put.json()["file"].removeprefix("upload:")
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers=bob)).status_code == 404
        assert len((await http.get(path, headers=ada)).content) == MAX_BODY_BYTES + 1
        assert (await http.post("/mcp", content=b"x" * (MAX_BODY_BYTES + 1), headers=ada)).status_code == 413


async def test_webhooks_are_not_accepted_without_their_setting(team_settings: Settings, tmp_path: Path) -> None:
    async with serving_team(replace(team_settings, data_dir=tmp_path)) as team, team.http() as http:
        assert (await http.post("/hooks/openai", **webhook_request("resp_1"))).status_code == 401
