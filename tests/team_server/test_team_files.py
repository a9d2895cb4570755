"""Files over HTTP: uploads for jobs, files that runs made, and no file of another owner."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from hosts import SPEED, script_prompt
from postgres_server import new_database
from starlette.routing import Route
from team_apps import client_of, serving_routes

from agent_jobs.app import open_app
from agent_jobs.clock import Clock, create_fast_clock, create_steady_clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine import owner_files
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Result
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.team_server import files
from agent_jobs.team_server.files import FILE_BYTES, build_file_routes, describe_download, find_safe_name

PYTHON: dict[str, Any] = {"type": "code_interpreter", "container": {"type": "auto"}}


@dataclass(frozen=True)
class Team:
    """Two owners on one server, and their clients."""

    ada: Engine
    bob: Engine
    http_of_ada: httpx2.AsyncClient
    http_of_bob: httpx2.AsyncClient


@asynccontextmanager
async def team(settings: Settings, clock: Clock | None = None) -> AsyncGenerator[Team]:
    async with open_app(settings, clock or create_fast_clock(SPEED)) as app:
        unbound = await app.engine()
        ada, bob = unbound.for_owner("ada"), unbound.for_owner("bob")
        async with (
            serving_routes(build_routes(ada)) as url_of_ada,
            serving_routes(build_routes(bob)) as url_of_bob,
            client_of(url_of_ada) as http_of_ada,
            client_of(url_of_bob) as http_of_bob,
        ):
            yield Team(ada, bob, http_of_ada, http_of_bob)


def build_routes(engine: Engine) -> list[Route]:
    async def bound() -> Engine:
        return engine

    return build_file_routes(bound)


@pytest.fixture(params=["sqlite", "postgres"])
def on_both(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield settings
        return
    with new_database(request.getfixturevalue("postgres_server_url")) as url:
        yield replace(settings, database_url=SecretStr(url))


async def run(engine: Engine, prompt: str, emulate: dict[str, Any], **more: Any) -> Result:
    request = StartRequest(prompts=[script_prompt(prompt, {"duration_s": 0.2, **emulate})], **more)
    [started] = await engine.start(request)
    job: Job = await engine.poll(started.job.id, wait_s=30)
    assert job.status == "completed", job
    return await engine.result(job.id)


async def test_upload_is_attached_and_files_of_a_run_are_returned(on_both: Settings, upstream: RunningServer) -> None:
    async with team(on_both) as server:
        put = await server.http_of_ada.put("/files/Größe.csv", content=b"a,b\n1,2\n")
        assert put.status_code == 201
        uploaded = put.json()
        assert (uploaded["name"], uploaded["bytes"]) == ("Größe.csv", 8)
        assert uploaded["file"].startswith("upload:up_")
        emulate = {"container_files": [{"filename": "plot.txt", "text": "made here"}]}
        result = await run(server.ada, "sum it", emulate, files=[uploaded["file"]], options={"tools": [PYTHON]})
        [made] = result.made
        assert (made.name, made.bytes) == ("plot.txt", 9)
        back = await server.http_of_ada.get(made.path)
        assert back.content == b"made here"
        assert back.headers["content-disposition"] == "attachment; filename=\"plot.txt\"; filename*=UTF-8''plot.txt"
        assert back.headers["content-type"] == "application/octet-stream"
        assert (back.headers["x-content-type-options"], back.headers["cache-control"]) == ("nosniff", "no-store")
        own = await server.http_of_ada.get("/files/" + uploaded["file"].removeprefix("upload:"))
        assert own.content == b"a,b\n1,2\n"
        # For another owner none of these files exists.
        for path in (made.path, "/files/" + uploaded["file"].removeprefix("upload:")):
            assert (await server.http_of_bob.get(path)).status_code == 404
        with pytest.raises(RequestError) as refused:
            await server.bob.start(StartRequest(prompts=["x"], files=[uploaded["file"]]))
        assert refused.value.code == "no_upload"
    assert upstream.emulator.counters()["uploads"] == 1, "the file went to the code interpreter"
    assert not (on_both.data_path() / "made").exists(), "replicas share no disk"


async def test_paths_of_the_server_are_not_attached(settings: Settings) -> None:
    """Not even files in a folder that AGENT_JOBS_FILE_ROOTS releases are attached."""
    folder = settings.data_path().parent
    (folder / "secret.txt").write_text("of the operator")
    async with team(replace(settings, file_roots=(folder,))) as server:
        for word in (
            "secret.txt",
            str(folder / "secret.txt"),
            "*",
            "upload:",
            "upload:../secret.txt",
            "upload:up_" + "0" * 32,
        ):
            with pytest.raises(RequestError) as refused:
                await server.ada.start(StartRequest(prompts=["x"], files=[word]))
            assert refused.value.code == "no_upload"


async def test_upload_is_deleted_after_a_day_and_frees_its_space(
    on_both: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_files, "OWNER_BYTES", 10)
    ahead_s = [0.0]

    wall = create_steady_clock()
    async with team(on_both, Clock(now=lambda: wall() + ahead_s[0])) as server:
        first = await server.http_of_ada.put("/files/a.txt", content=b"12345678")
        path = "/files/" + first.json()["file"].removeprefix("upload:")
        assert (await server.http_of_ada.put("/files/b.txt", content=b"123")).status_code == 507
        assert (await server.http_of_bob.put("/files/b.txt", content=b"123")).status_code == 201
        ahead_s[0] = owner_files.KEPT_S + 1
        assert (await server.http_of_ada.get(path)).status_code == 404
        assert (await server.http_of_ada.put("/files/b.txt", content=b"123")).status_code == 201


ODD_PATHS = [
    "..", "../x", "..%2fx", "%2e%2e", "%2e%2e%2fetc%2fpasswd", "a/b", "a%2fb", "a%5cb", "%5c%5chost%5cshare", "c:x",
    "%00", "a%00.txt", "a%0d%0ab", "CON", "con.txt", "nul.", "COM1", "lpt9.csv", "a" * 151, "%C3%A9" * 76,
    "%E2%80%AEgpj.exe", "a%E2%80%8Bb", "%EF%BF%BE", "%ff", "%2e", "%20", "a%20", ".hidden.", "%3Cscript%3E", "a%22b",
]  # fmt: skip


async def test_odd_names_and_ids_are_refused_and_large_files_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FILE_BYTES", 1000)
    async with team(settings) as server:
        http = server.http_of_ada
        base = str(http.base_url).rstrip("/")
        for path in ODD_PATHS:
            answer = await http.put(httpx2.URL(f"{base}/files/{path}"), content=b"x")
            assert answer.status_code in (400, 404, 405), (path, answer.status_code, answer.text)
        for path in [*ODD_PATHS, "up_" + "0" * 32, "made_" + "0" * 32, "up_%25", "made_%27%20OR%201=1"]:
            assert (await http.get(httpx2.URL(f"{base}/files/{path}"))).status_code == 404, path
        assert (await http.put("/files/a.txt", content=b"x" * 1001)).status_code == 413
        assert (await http.put("/files/a.txt", content=b"x" * 1000)).status_code == 201
        assert (await http.put("/files/empty.txt", content=b"")).status_code == 201
        assert (await http.delete("/files/a.txt")).status_code == 405
    assert FILE_BYTES == 32 * 2**20


@pytest.mark.parametrize("name", ["a.csv", "Größe 1.pdf", "東京.txt", "e\u0301.txt", "a'b (1).txt", "%41.txt"])
def test_download_has_the_name_of_the_upload(name: str) -> None:
    safe = find_safe_name(name)
    assert safe
    header = describe_download(safe)
    assert header.isascii()
    assert header.count('"') == 2
    assert unquote(header.partition("UTF-8''")[2]) == safe
