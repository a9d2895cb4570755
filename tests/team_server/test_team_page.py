"""The page of a team server: each owner signs in with a team token and sees only their own jobs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import anyio
import httpx2
import pytest
from team_servers import Team, serving_team

from agent_jobs.page import live
from agent_jobs.settings.settings import Settings

HTML = {"Accept": "text/html"}


@asynccontextmanager
async def browser(team: Team, token: str = "") -> AsyncGenerator[httpx2.AsyncClient]:
    """Open a browser, signed in if there is a token."""
    async with httpx2.AsyncClient(base_url=team.url, headers={**HTML, "Origin": team.url}, timeout=60) as client:
        if token:
            assert (await sign_in(client, token)).status_code == 200
        yield client


async def sign_in(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.post("/sign-in", data={"token": token})


def read_form_token(html: str) -> str:
    return html.partition('name="form_token" value="')[2].partition('"')[0]


async def test_two_owners_see_and_change_only_their_own_jobs(team: Team):
    tokens = {owner: await team.add_token(owner) for owner in ("anna", "ben")}
    ids: dict[str, str] = {}
    for owner, token in tokens.items():
        async with team.host(token) as host:
            ids[owner] = (await host.start(f"secret of {owner}", emulate={"duration_s": 600}))["job_id"]
    async with browser(team, tokens["anna"]) as anna, browser(team, tokens["ben"]) as ben:
        for client, owner, other in ((anna, "anna", "ben"), (ben, "ben", "anna")):
            for path in ("/", "/jobs.json", "/?words=secret", f"/jobs/{ids[owner]}", f"/jobs/{ids[owner]}.json"):
                answer = await client.get(path)
                assert (answer.status_code, f"secret of {owner}" in answer.text) == (200, True), path
                assert f"secret of {other}" not in answer.text, path
            for path in ("", ".json", ".md", "/files/0"):
                answer = await client.get(f"/jobs/{ids[other]}{path}")
                assert (answer.status_code, f"secret of {other}" in answer.text) == (404, False), path
            assert (await client.get(f"/live/jobs/{ids[other]}")).status_code == 404
            assert f"<bdi>{owner}</bdi>" in (await client.get("/spend")).text
        token = read_form_token((await anna.get("/new")).text)
        for action in ("cancel", "reply", "ask", "delete"):
            fields = {"form_token": token, "prompt": "x", "answer": "approve", "call": "x"}
            answer = await anna.post(f"/jobs/{ids['ben']}/{action}", data=fields)
            assert answer.status_code == 404, action
        assert (await ben.post(f"/jobs/{ids['ben']}/cancel", data={"form_token": token})).status_code == 403
        started = await anna.post("/new", data={"form_token": token, "prompt": "by the page of anna"})
        assert started.status_code == 303
        assert "by the page" in (await anna.get("/")).text and "by the page" not in (await ben.get("/")).text
        async with team.host(tokens["ben"]) as host:
            assert (await host.call("agent_poll", job_id=ids["ben"], wait_s=0))["status"] != "cancelled"
        await anna.post(f"/jobs/{ids['anna']}/cancel", data={"form_token": token})
        log = [entry for _, entry in await team.server.engine.owners.read_log(owner="anna")]
        assert {("page", "cancel", ids["anna"])} <= {(entry.client, entry.action, entry.job_id) for entry in log}


async def test_owner_downloads_files_of_a_run(team: Team):
    tokens = {owner: await team.add_token(owner) for owner in ("erin", "finn")}
    async with team.host(tokens["erin"]) as host:
        emulate = {"duration_s": 0.2, "container_files": [{"filename": "a.html", "text": "<script>1</script>"}]}
        tool = {"type": "code_interpreter", "container": {"type": "auto"}}
        job_id = (await host.start(emulate=emulate, options={"tools": [tool]}))["job_id"]
        await host.end(job_id)
    async with browser(team, tokens["erin"]) as erin, browser(team, tokens["finn"]) as finn:
        answer = await erin.get(f"/jobs/{job_id}/files/0")
        assert (answer.text, answer.headers["content-type"]) == ("<script>1</script>", "application/octet-stream")
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a.html"
        assert (await finn.get(f"/jobs/{job_id}/files/0")).status_code == 404


async def test_session_ends_with_its_token(team: Team):
    text, record = await team.server.engine.owners.add_token("carl")
    async with browser(team, text) as client:
        assert (await client.get("/")).status_code == 200
        await team.server.engine.owners.revoke_token(record.id)
        gone = await client.get("/")
        assert (gone.status_code, gone.headers["location"]) == (303, "/sign-in")
        assert (await client.get("/jobs.json", headers={"Accept": "application/json"})).status_code == 401
        assert (await sign_in(client, text)).status_code == 401


@pytest.mark.parametrize("path", ["/live/jobs", "/live/jobs/{finished}", "/live/jobs/{running}"])
async def test_stream_of_an_open_page_ends_with_its_token(team: Team, monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(live, "REFRESH_S", 0.2)
    monkeypatch.setattr(live, "UPDATE_S", 0.1)
    text, record = await team.server.engine.owners.add_token("gina")
    async with team.host(text) as host:
        running = await host.start("a secret", emulate={"duration_s": 600})
        finished = await host.start(emulate={"duration_s": 0.2})
        await host.end(finished["job_id"])
        path = path.format(running=running["job_id"], finished=finished["job_id"])
        async with browser(team, text) as client, client.stream("GET", path) as answer:
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith(("id:", "data:"))
            await team.server.engine.owners.revoke_token(record.id)
            with anyio.fail_after(60):
                async for _ in lines:
                    pass
            assert (await client.get(path)).status_code in (303, 401)


async def test_visitor_signs_out(team: Team):
    async with browser(team, await team.add_token("dora")) as client:
        token = read_form_token((await client.get("/")).text)
        assert (await client.post("/sign-out", data={"form_token": token})).headers["location"] == "/sign-in"
        assert (await client.get("/")).status_code == 303
        await client.post("/sign-out", data={"form_token": token})  # no browser is signed in any more
    log = [entry for _, entry in await team.server.engine.owners.read_log(owner="dora")]
    assert [(entry.client, entry.action, entry.job_id) for entry in log] == [
        ("page", "signed in", ""),
        ("page", "signed out", ""),
    ]
    assert all(entry.token_id.startswith("tok_") and entry.address == "127.0.0.1" for entry in log)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("/jobs/job_x", "/jobs/job_x"),
        ("/jobs/job_x?part=sources&turn=2", "/jobs/job_x?part=sources&amp;turn=2"),
        ('/?q="><script>', "/?q=%22%3E%3Cscript%3E"),
        ("/spend", "/spend"),
    ],
)
async def test_sign_in_leads_to_the_page_that_was_asked_for(team: Team, asked: str, shown: str):
    token = await team.add_token("fred")
    async with browser(team) as client:
        refused = await client.get(asked)
        assert refused.status_code == 303
        form = (await client.get(refused.headers["location"])).text
        path = unescape(form.partition('name="next" value="')[2].partition('"')[0])
        assert (await client.post("/sign-in", data={"token": "wrong", "next": path})).text.count(escape(path)) == 1
        signed_in = await client.post("/sign-in", data={"token": token, "next": path})
        assert f'<a href="{shown}">' in signed_in.text
        assert f"0;url={shown}" in signed_in.text


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/a\n/b",
        "/\t/x",
        "",
        "/" + "a" * 9000,
    ],
)
async def test_sign_in_leads_to_no_other_server(team: Team, path: str):
    token = await team.add_token("gus")
    async with browser(team) as client:
        assert 'name="next" value="/"' in (await client.get("/sign-in", params={"next": path})).text
        signed_in = await client.post("/sign-in", data={"token": token, "next": path})
        assert '<a href="/">' in signed_in.text


async def test_link_of_another_page_is_followed_from_here_so_that_the_cookie_is_sent(team: Team):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    async with browser(team) as client:
        hop = await client.get("/jobs/job_x", headers=headers)
        assert (hop.status_code, '<a href="/jobs/job_x">' in hop.text) == (200, True)
        again = await client.get("/jobs/job_x", headers=headers | {"Sec-Fetch-Site": "same-origin"})
        assert again.headers["location"] == "/sign-in?next=%2Fjobs%2Fjob_x"
        part = await client.get("/live/jobs", headers={"Sec-Fetch-Dest": "empty"})
        assert part.headers["location"] == "/sign-in"


async def test_sign_in_with_a_wrong_token_or_from_another_page_is_refused(team: Team):
    token = await team.add_token("emil")
    async with browser(team) as client:
        assert "Team token" in (await client.get("/sign-in")).text
        for wrong in ("", "ajt_x", token[:-1], "sk-secret", "é" * 9000):
            answer = await sign_in(client, wrong)
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False), wrong
            assert not wrong or wrong not in answer.text
            assert "Unknown or expired token." in answer.text
            assert "Ask the operator of this server for one." in answer.text
        foreign = await client.post("/sign-in", data={"token": token}, headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403 and "set-cookie" not in foreign.headers
        assert (await client.get("/sign-in?token=" + token)).headers.get("set-cookie") is None
        assert (await client.get("/", headers={"Host": "evil.example"})).status_code in (400, 403, 421)
        cookie = (await sign_in(client, f" {token}\n")).headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and token not in cookie
    logged = [entry.action for _, entry in await team.server.engine.owners.read_log()]
    assert "refused: unknown token (page)" in logged


async def test_streams_of_open_pages_end_when_the_server_drains(team_settings: Settings, tmp_path: Path):
    async with (
        serving_team(replace(team_settings, data_dir=tmp_path)) as team,
        browser(team, await team.add_token("fred")) as client,
        client.stream("GET", "/live/jobs") as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(("id:", "data:"))
        with anyio.fail_after(60):
            await team.server.drain()
            async for _ in lines:
                pass
