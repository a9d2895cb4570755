"""Only the user's own browser sees and changes anything on the page."""

import stat
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import pytest
from browsers import PageServer, serving_page
from starlette.requests import Request

from agent_jobs.engine.engine import Engine
from agent_jobs.page.access import LINK_S, SECRET_BYTES, SECRET_FILE, LinkAccess, read_secret
from agent_jobs.page.app import PageServer as PageParts
from agent_jobs.page.app import build_page
from agent_jobs.page.guard import COOKIE
from agent_jobs.settings.settings import Settings

PAGES = ("/", "/jobs.json", "/jobs/job_1", "/jobs/job_1.json", "/new", "/spend", "/spend.json", "/health", "/live/jobs")
FORMS = (
    "/new",
    "/new/estimate",
    "/jobs/job_1/cancel",
    "/jobs/job_1/reply",
    "/jobs/job_1/ask",
    "/jobs/job_1/ask-again",
    "/jobs/job_1/delete",
)


@asynccontextmanager
async def visiting(server: PageServer, *, signed_in: bool = True) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as client:
        if signed_in:
            assert (await client.get(server.link)).status_code == 200
        yield client


async def test_browser_without_the_cookie_sees_and_changes_nothing(settings: Settings) -> None:
    async with serving_page(settings) as server, visiting(server, signed_in=False) as client:
        started = await server.host.start("a secret title", emulate={"duration_s": 1})
        for path in PAGES:
            answer = await client.get(path)
            assert (answer.status_code, "secret" in answer.text) == (401, False), path
            assert "agent-jobs ui" in answer.text
        for path in FORMS:
            answer = await client.post(path, headers={"Origin": server.url})
            assert answer.status_code == 401, path
        assert (await client.get("/static/style.css")).status_code == 200
        assert (await client.get(f"/jobs/{started['job_id']}.json")).status_code == 401


async def test_link_signs_in_once(settings: Settings) -> None:
    async with serving_page(settings) as server, visiting(server, signed_in=False) as client:
        link = server.link
        first = await client.get(link)
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert (await client.get("/")).status_code == 200
        async with visiting(server, signed_in=False) as other:
            again = await other.get(link)
            assert again.status_code == 401
            assert "used before" in again.text
            assert (await other.get("/")).status_code == 401


def test_secret_is_created_with_its_folder_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    secret = read_secret(folder)
    assert (len(secret), read_secret(folder)) == (SECRET_BYTES, secret)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / SECRET_FILE)] == [0o700, 0o600]
    (folder / SECRET_FILE).write_bytes(secret[:5])  # a process that crashed may leave such a file
    assert len(read_secret(folder)) == SECRET_BYTES


async def test_link_and_session_expire() -> None:
    now = 1000.0
    access = LinkAccess(b"s" * 32, lambda: now)
    link = access.create_link_token()
    session = await access.sign_in(access.create_link_token())
    assert session is not None and await access.find_session(session) is not None
    now += LINK_S + 1
    assert await access.sign_in(link) is None
    now += 31 * 86_400
    assert await access.find_session(session) is None


@pytest.mark.parametrize("change", ["", "x", "cut", "as_link", "nothing", "é", "."])
async def test_token_that_was_not_signed_here_is_refused(change: str) -> None:
    access = LinkAccess(b"s" * 32, lambda: 1000.0)
    session = (await access.sign_in(access.create_link_token())) or ""
    other = await LinkAccess(b"t" * 32, lambda: 1000.0).sign_in(access.create_link_token())
    wrong = {
        "": "",
        "x": session + "x",
        "cut": session[:-1],
        "as_link": access.create_link_token(),
        "nothing": "..",
        "é": f"é{session}",
        ".": session.replace(".", ".9", 1),
    }[change]
    assert other is None
    assert await access.find_session(wrong) is None
    assert await access.sign_in(session) is None, "a session cannot be used as a link"


async def test_another_host_name_gets_nothing(settings: Settings) -> None:
    async with serving_page(settings) as server, visiting(server) as client:
        port = server.url.rpartition(":")[2]
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}", ""):
            answer = await client.get("/", headers={"Host": host})
            assert answer.status_code in (400, 421), host
        assert (await client.get("/", headers={"Host": f"localhost:{port}"})).status_code == 200


async def test_form_of_another_page_changes_nothing(settings: Settings) -> None:
    async with serving_page(settings) as server, visiting(server) as client:
        started = await server.host.start(emulate={"duration_s": 600})
        path = f"/jobs/{started['job_id']}/cancel"
        page = (await client.get(f"/jobs/{started['job_id']}")).text
        token = page.partition('name="form_token" value="')[2].partition('"')[0]
        own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        hostile: list[tuple[dict[str, str], str]] = [
            ({}, token),
            ({"Origin": "https://evil.example"}, token),
            ({"Origin": "null"}, token),
            ({**own, "Sec-Fetch-Site": "cross-site"}, token),
            (own, ""),
            (own, "wrong"),
        ]
        for headers, form_token in hostile:
            answer = await client.post(path, data={"form_token": form_token}, headers=headers)
            assert answer.status_code == 403, (headers, form_token)
        assert (await server.host.call("agent_poll", job_id=started["job_id"], wait_s=0))["status"] != "cancelled"
        answer = await client.post(path, data={"form_token": token}, headers=own)
        assert answer.status_code == 303
        assert (await server.host.call("agent_poll", job_id=started["job_id"]))["status"] == "cancelled"


async def test_every_answer_forbids_unneeded_browser_features(settings: Settings) -> None:
    async with serving_page(settings) as server, visiting(server) as client:
        for path in ("/", "/jobs.json", "/nothing", "/static/htmx.min.js", "/static/nothing", "/jobs/job_unknown"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"


async def test_cookies_of_other_programs_on_this_machine_hide_no_session(settings: Settings) -> None:
    async with serving_page(settings) as server, visiting(server) as client:
        [(name, session)] = client.cookies.items()
        assert name == f"{COOKIE}_{server.url.rpartition(':')[2]}"
        client.cookies.clear()
        own, others = (
            f"{name}={session}",
            ("foo[bar]=1", 'a="open', '{"json":1}=2', "=", "", f"{COOKIE}=stale.1.0", "a b"),
        )
        for cookie in [f"{other}; {own}" for other in others] + [f"{own}; {other}" for other in others]:
            assert (await client.get("/jobs.json", headers={"Cookie": cookie.strip()})).status_code == 200, cookie
        for cookie in (*others, f"{COOKIE}_1={session}", f"x{own}", f"{name}=stale; {COOKIE}="):
            assert (await client.get("/jobs.json", headers={"Cookie": cookie})).status_code == 401, cookie


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=" + "9" * 5000, 200),
        ("limit=-1", 200),
        ("words=" + "a" * 60_000, 200),
        ("words=%00", 200),
        ("show=x", 200),
    ],
)
async def test_odd_queries_are_answered_with_pages(settings: Settings, query: str, status: int) -> None:
    async with serving_page(settings) as server, visiting(server) as client:
        for path in ("/", "/jobs.json", "/live/jobs"):
            async with client.stream("GET", f"{path}?{query}") as answer:
                assert answer.status_code == status, path


async def test_internal_error_is_a_page_that_hides_its_cause() -> None:
    access = LinkAccess(b"k" * 32, time.time)

    async def fail_to_open(_: Request) -> Engine:
        raise RuntimeError("secret cause")

    async with anyio.create_task_group() as tasks:
        app = build_page(fail_to_open, access, PageParts({"page.test"}.__contains__, tasks, anyio.Event()))
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://page.test") as client:
            client.cookies.set(COOKIE, await access.sign_in(access.create_link_token()) or "")
            page, data = await client.get("/"), await client.get("/jobs.json")
            assert (page.status_code, data.status_code) == (500, 500)
            assert "Its log says why." in page.text and "Its log says why." in data.json()["error"]
            assert "secret cause" not in page.text + data.text
            assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "//etc/passwd"])
async def test_path_tricks_reach_no_other_file(settings: Settings, path: str) -> None:
    async with serving_page(settings) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        # A bare socket is used because an HTTP client would normalize the path.
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            answer = await stream.receive()
        assert answer.split(b" ")[1] in (b"404", b"401", b"400")
