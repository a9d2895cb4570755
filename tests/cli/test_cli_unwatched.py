"""Commands that read jobs retrieve those that no process observes, or show the age of what is stored."""

import json
import re
import shlex
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result
from hosts import WORK, eventually, hosting, script_prompt
from test_notify import Ear

from agent_jobs.app import App, open_app
from agent_jobs.cli import unwatched_jobs
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store

MODEL = "emulated-priced"
PRICES = f'[models."{MODEL}"]\ninput = 10\ncache_write = 10\noutput = 1\n'
QUICK: dict[str, Any] = {"duration_s": 1, "queued_s": 0.1}
LONG: dict[str, Any] = {"duration_s": 600, "queued_s": 0}


@pytest.fixture(autouse=True)
def time_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow late answers of a busy machine. Other tests check the limit itself, with answers that never arrive."""
    monkeypatch.setattr(unwatched_jobs, "RETRIEVE_S", 20.0)


@dataclass(frozen=True)
class Desk:
    """A terminal whose database has jobs that earlier commands started."""

    settings: Settings
    upstream: RunningServer

    def leave(self, script: dict[str, Any], **more: Any) -> str:
        """Start a job in a process that exits once the provider has named the response."""

        async def start() -> str:
            async with starting(self.settings) as app:
                return await begin(app, script, **more)

        return anyio.run(start)

    def type(self, *words: str, **environment: str | None) -> Result:
        """Run a command, and return its result. It must not crash."""
        settings = {
            "OPENAI_API_KEY": "sk-secret",
            "OPENAI_BASE_URL": self.upstream.base_url,
            "AGENT_JOBS_DATA_DIR": str(self.settings.data_dir),
            "AGENT_JOBS_PRICES": str(self.settings.prices),
        }
        result = CliRunner().invoke(cli, list(words), env={**settings, **environment})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    def read(self, *words: str, **environment: str | None) -> dict[str, Any]:
        """Run a command and return its JSON."""
        return json.loads(self.type(*words, "--json", **environment).stdout)

    def requests(self) -> list[str]:
        """Return the requests to the provider, without the creates."""
        asked = [entry["operation"] for entry in self.upstream.emulator.log() if entry["entry"] == "request"]
        return [operation for operation in asked if operation != "create"]

    def response_of(self, job_id: str) -> dict[str, Any]:
        """Return the provider's response of a job."""
        log = self.upstream.emulator.log()
        [run] = [each for each in log if each["entry"] == "response" and each["metadata"]["job_id"] == job_id]
        return run

    def wait_for_run(self, job_id: str) -> None:
        """Wait until the job's run has finished at the provider."""
        wait_for(lambda: self.response_of(job_id)["ended"])

    def write(self, sql: str) -> None:
        """Change the stored jobs with a statement of SQL."""
        with closing(sqlite3.connect(f"{self.settings.data_dir}/jobs.db")) as db, db:
            db.execute(sql)


@pytest.fixture
def desk(settings: Settings, upstream: RunningServer, tmp_path: Path) -> Desk:
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    # Without a stream, only a GET can retrieve the response.
    return Desk(replace(settings, prices=prices, mode="background"), upstream)


def wait_for(fact: Callable[[], bool], limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.01)


@asynccontextmanager
async def starting(settings: Settings) -> AsyncGenerator[App]:
    """Run a process that starts jobs and polls none."""
    async with open_app(settings, role="acts") as app:
        yield app


async def begin(app: App, script: dict[str, Any], **more: Any) -> str:
    engine = await app.engine()
    [started] = await engine.start(
        StartRequest(prompts=[script_prompt(f"work {next(WORK)}", script)], model=MODEL, **more)
    )
    return started.job.id


@contextmanager
def living(settings: Settings, script: dict[str, Any]) -> Generator[str]:
    """Run a process that started a job and never polls it."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(starting(settings)) as app:
        yield portal.call(begin, app, script)


@asynccontextmanager
async def announced_server(settings: Settings) -> AsyncGenerator[None]:
    async with open_store(settings.data_path()) as store:
        await store.announce("server", settings.base_url)
        yield


@contextmanager
def announcing(settings: Settings) -> Generator[None]:
    """Run a process that claims to work on the jobs of this endpoint, but never does."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(announced_server(settings)):
        yield


#: For each final status: how the run ends, and the exit status of `result`.
ENDS = {
    "completed": ({"text": "Take the second.", "usage": {"input_tokens": 100_000, "output_tokens": 0}}, 0),
    "failed": ({"end": "failed"}, 3),
    "incomplete": ({"end": "incomplete", "text": "Take the"}, 4),
    "cancelled": (LONG, 5),
}


@pytest.mark.parametrize("first", ["list", "show", "result"])
@pytest.mark.parametrize("end", ENDS)
def test_unwatched_finished_job_is_collected_by_the_command_that_shows_it(desk: Desk, end: str, first: str):
    script, status = ENDS[end]
    job_id = desk.leave({**QUICK, **script})
    if end == "cancelled":
        address = f"{desk.upstream.base_url}/responses/{desk.response_of(job_id)['id']}/cancel"
        httpx2.post(address, headers={"Authorization": "Bearer sk-secret"}).raise_for_status()
    desk.wait_for_run(job_id)
    asked = len(desk.requests())
    read = desk.read("list")["jobs"][0] if first == "list" else desk.read(first, job_id)
    assert read.get("status", end) == end
    assert desk.requests()[asked:] == ["retrieve"]
    result = desk.type("result", job_id)
    assert result.exit_code == status
    assert result.stdout == {"completed": "Take the second.\n"}.get(end, result.stdout)
    [row] = desk.read("list")["jobs"]
    assert row["status"] == end
    assert "watched_by" not in row
    assert "last_seen_s" not in row
    shown = desk.read("show", job_id)
    assert shown["finished_at"] >= shown["created_at"]
    if end == "completed":
        assert (shown["usage"]["input_tokens"], shown["usage"]["cost_usd"]) == (100_000, 1.0)
        assert (row["tokens"], row["cost_usd"]) == (100_000, 1.0)
    assert desk.requests()[asked:] == ["retrieve"], "a finished job is not retrieved again"


def test_filter_uses_the_current_status_of_jobs(desk: Desk):
    job_id = desk.leave(QUICK, batch="night")
    desk.wait_for_run(job_id)
    assert desk.read("list", "--batch", "other")["jobs"] == []
    assert desk.requests() == []
    [row] = desk.read("list", "--status", "completed", "--batch", "night")["jobs"]
    assert row["job_id"] == job_id
    assert desk.read("list", "--status", "open")["jobs"] == []


def test_running_job_was_seen_just_now(desk: Desk):
    job_id = desk.leave(LONG)
    desk.write("UPDATE turn SET sent_at = sent_at - 4000")
    listed = desk.type("list").stdout
    assert "1 in_progress" in listed
    assert "not being watched" not in listed
    [row] = desk.read("list")["jobs"]
    assert (row["watched_by"], row["last_seen_s"]) == ([], 0)
    shown = desk.read("show", job_id)
    assert (shown["watched_by"], shown["last_seen_s"]) == ([], 0)
    result = desk.type("result", job_id, "--json")
    assert result.exit_code == 6
    expected: dict[str, Any] = {"job_id": job_id, "status": "in_progress", "watched_by": [], "last_seen_s": 0}
    assert json.loads(result.stdout) == expected
    assert set(desk.requests()) == {"retrieve"}


#: Faults because of which the provider does not report the status of a job.
FAULTS: dict[str, dict[str, Any]] = {
    "no answer": {"hang": True},
    "late answer": {"delay_s": 6000},
    "broken connection": {"drop": "before_headers"},
    "500": {"status": 500},
    "503": {"status": 503, "headers": {"Retry-After": "60"}},
    "429": {"status": 429},
    "401": {"status": 401},
    "403": {"status": 403},
    "web page": {"status": 200, "body": "<html>Welcome</html>", "content_type": "text/html"},
    "no JSON": {"status": 200, "body": "{", "content_type": "application/json"},
}


@pytest.mark.parametrize("why", FAULTS)
def test_job_keeps_its_age_if_upstream_does_not_report_its_status(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, why: str
):
    if why in ("no answer", "late answer"):
        monkeypatch.setattr(unwatched_jobs, "RETRIEVE_S", 0.4)
    job_id = desk.leave({**QUICK, "text": "At last."})
    desk.wait_for_run(job_id)
    desk.write("UPDATE turn SET sent_at = sent_at - 3700, looked_at = sent_at - 130")
    desk.upstream.emulator.queue_faults([{"on": "retrieve", "times": 4, **FAULTS[why]}])
    listed = desk.type("list")
    assert listed.exit_code == 0
    assert f"{job_id}: not being watched; last seen 2 min ago." in listed.stdout
    result = desk.type("result", job_id)
    assert (result.exit_code, result.stdout) == (6, "")
    assert "not being watched; last seen 2 min ago" in result.stderr
    assert "not being watched; last seen 2 min ago" in desk.type("show", job_id).stdout
    row = desk.read("show", job_id)
    assert (row["status"], row["watched_by"]) == ("queued", [])
    assert 130 <= row["last_seen_s"] < 180
    monkeypatch.setattr(unwatched_jobs, "RETRIEVE_S", 20.0)
    httpx2.delete(f"{desk.upstream.url}/_emulator/faults").raise_for_status()
    result = desk.type("result", job_id)
    assert (result.exit_code, result.stdout) == (0, "At last.\n")


def test_retrieval_without_an_answer_does_not_delay_the_others(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unwatched_jobs, "RETRIEVE_S", 2.0)
    ids = [desk.leave(QUICK) for _ in range(4)]
    silent = ids[-1]  # the newest comes first
    for job_id in ids:
        desk.wait_for_run(job_id)
    desk.upstream.emulator.queue_faults([{"on": "retrieve", "match": desk.response_of(silent)["id"], "hang": True}])
    desk.type("list")
    with closing(sqlite3.connect(f"{desk.settings.data_dir}/jobs.db")) as db:
        stored: dict[str, str] = dict(db.execute("SELECT id, status FROM job"))
    assert stored == {job_id: "queued" if job_id == silent else "completed" for job_id in ids}


def test_missing_response_is_reported_and_expires_as_with_a_watcher(desk: Desk):
    job_id = desk.leave(QUICK)
    forgotten = {"response_id": desk.response_of(job_id)["id"]}
    httpx2.post(f"{desk.upstream.url}/_emulator/forget", json=forgotten).raise_for_status()
    assert "not being watched; the provider has not found it for 0 s" in desk.type("list").stdout
    [row] = desk.read("list")["jobs"]
    assert row["status"] == "queued"
    desk.write("UPDATE turn SET missing = 3, missing_since = missing_since - 61")
    result = desk.type("result", job_id)
    assert result.exit_code == 3
    assert "expired" in result.stderr


def store_another_key(desk: Desk) -> dict[str, str | None]:
    desk.write("UPDATE turn SET fingerprint = 'another'")
    desk.upstream.emulator.queue_faults([{"on": "retrieve", "status": 404}])
    return {}


#: Environments of a terminal that cannot retrieve the job: it sends no GET, or the GET finds nothing.
UNREACHABLE_FROM_HERE: dict[str, Callable[[Desk], dict[str, str | None]]] = {
    "no key": lambda desk: {"OPENAI_API_KEY": None},
    "another host": lambda desk: {"OPENAI_BASE_URL": "http://elsewhere.invalid/v1"},
    "another path": lambda desk: {"OPENAI_BASE_URL": f"{desk.upstream.url}/v2"},
    "another port": lambda desk: {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"},
    "bad prices": lambda desk: {"AGENT_JOBS_PRICES": "/nowhere/prices.toml"},
    "a bad proxy": lambda desk: {"HTTP_PROXY": "http://[", "http_proxy": "http://["},
    "another key": store_another_key,
}


@pytest.mark.parametrize("why", UNREACHABLE_FROM_HERE)
def test_job_that_cannot_be_retrieved_from_this_terminal_is_shown_with_its_age(desk: Desk, why: str):
    job_id = desk.leave(QUICK)
    desk.wait_for_run(job_id)
    desk.write("UPDATE turn SET sent_at = sent_at - 20000")
    environment = UNREACHABLE_FROM_HERE[why](desk)
    assert f"{job_id}: not being watched; last seen 5 h ago." in desk.type("list", **environment).stdout
    assert desk.requests() == (["retrieve"] if why == "another key" else [])
    assert desk.type("result", job_id, **environment).exit_code == (0 if why == "another key" else 6)


def test_several_unwatched_jobs_are_reported_together(desk: Desk):
    for age_s in (10, 400, 9000):
        desk.leave(LONG)
        desk.write(f"UPDATE turn SET looked_at = sent_at - {age_s} WHERE looked_at IS NULL")
    for _ in range(2):
        desk.leave(LONG)
        desk.write("UPDATE job SET status = 'pending' WHERE id IN (SELECT job_id FROM turn WHERE looked_at IS NULL)")
    listed = desk.type("list", OPENAI_API_KEY=None).stdout
    assert "2 jobs: not being watched; not sent yet. Send them with: agent-jobs watch" in listed
    assert re.search(
        r"^3 jobs: not being watched; last seen 1\d s to 2 h ago\. Collect them with: agent-jobs watch$", listed, re.M
    )


def test_job_that_a_living_process_observes_is_left_to_it(desk: Desk):
    with living(desk.settings, QUICK) as held:
        desk.wait_for_run(held)
        for words in (("list",), ("show", held), ("result", held)):
            result = desk.type(*words)
            assert "not being watched" not in result.stdout + result.stderr
        [row] = desk.read("list")["jobs"]
        assert row["status"] == "queued"
        assert "watched_by" not in row
        assert desk.requests() == []
    assert desk.type("result", held).exit_code == 0
    assert desk.requests() == ["retrieve"]


def test_job_that_a_living_process_will_claim_is_left_to_it(desk: Desk):
    job_id = desk.leave(QUICK)
    desk.wait_for_run(job_id)
    with announcing(replace(desk.settings, base_url="http://elsewhere.invalid/v1")), announcing(desk.settings):
        assert "not being watched" not in desk.type("list").stdout
        assert desk.requests() == []
    with announcing(replace(desk.settings, base_url="http://elsewhere.invalid/v1")):
        assert desk.type("result", job_id).exit_code == 0
    assert desk.requests() == ["retrieve"]


def test_job_whose_process_was_killed_is_retrieved(desk: Desk):
    job_id = desk.leave(QUICK)
    desk.wait_for_run(job_id)
    desk.write("UPDATE job SET holder = '1-deadbeef', next_at = NULL")
    assert desk.type("result", job_id).exit_code == 0


#: Jobs that cannot be retrieved: the statement that makes one, and the words by which a command reports it.
NOT_RETRIEVED = {
    "pending": ("UPDATE job SET status = 'pending'", "not sent yet"),
    "starting": ("UPDATE turn SET response_id = NULL", "last seen"),
    "foreground": ("UPDATE turn SET mode = 'foreground'", "last seen"),
    "acting": ("UPDATE turn SET acting = 1", "last seen"),
    "input_required": ("UPDATE job SET status = 'input_required'", ""),
}


@pytest.mark.parametrize("what", NOT_RETRIEVED)
def test_job_that_has_nothing_to_retrieve_is_not_retrieved(desk: Desk, what: str):
    sql, reason = NOT_RETRIEVED[what]
    job_id = desk.leave(LONG)
    desk.write(sql)
    for words in (("list",), ("show", job_id), ("result", job_id)):
        result = desk.type(*words)
        assert (f"not being watched; {reason}" in result.stdout + result.stderr) == bool(reason)
    assert ("last_seen_s" in desk.read("show", job_id)) == (reason == "last seen")
    assert desk.requests() == []


SHOP: dict[str, Any] = {"type": "function", "name": "shop", "parameters": {"type": "object", "properties": {}}}
SERVER: dict[str, Any] = {"type": "mcp", "server_label": "s", "server_url": "https://s.example"}
#: The calls of a turn, and the tool that the request needs for them.
CALLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "function": ({"function_calls": [{"name": "shop", "arguments": {}}]}, SHOP),
    "approval": ({"mcp_approval": True}, {**SERVER, "require_approval": "always"}),
}


@pytest.mark.parametrize("what", CALLS)
def test_job_that_asks_for_calls_is_left_to_the_next_process(desk: Desk, what: str):
    calls, tool = CALLS[what]
    options = {"tools": [tool]}
    job_id = desk.leave({**QUICK, "turns": [calls, {"text": "Done."}]}, options=options)
    desk.wait_for_run(job_id)
    assert desk.read("list")["jobs"][0]["status"] == "in_progress"
    asked = desk.read("list")["jobs"][0]
    assert (asked["status"], asked["watched_by"]) == ("in_progress", [])
    assert desk.type("result", job_id).exit_code == 6
    assert desk.requests() == ["retrieve"]
    assert desk.upstream.emulator.counters()["creates"] == 1

    async def work() -> dict[str, Any]:
        async with hosting(desk.settings) as host:
            with anyio.fail_after(60):
                while "needs" not in (answer := await host.call("agent_poll", job_id=job_id, wait_s=20)):
                    pass
            return answer

    assert anyio.run(work)["status"] == "input_required"


def test_finished_job_is_reported_once_to_the_users_command(desk: Desk, tmp_path: Path):
    (tmp_path / "ear").mkdir()
    ear = Ear(tmp_path / "ear")
    command = {"AGENT_JOBS_ON_FINISH": shlex.join(ear.words)}
    job_id = desk.leave({**QUICK, "text": "Heard."})
    desk.wait_for_run(job_id)
    desk.type("list", **command)
    wait_for(lambda: bool(ear.list_reports()))
    desk.type("list", **command)
    desk.type("result", job_id, **command)

    async def work() -> None:
        async with hosting(replace(desk.settings, on_finish=ear.words)) as host:
            await host.call("agent_poll", job_id=job_id)

    anyio.run(work)
    [report] = ear.list_reports()
    assert (report["job_id"], report["status"], report["output"]) == (job_id, "completed", "Heard.")


def test_files_of_a_run_are_written_and_uploads_are_left_to_the_next_process(desk: Desk, tmp_path: Path):
    (tmp_path / "sums.csv").write_text("a,b\n1,2\n")
    settings = replace(desk.settings, file_roots=(tmp_path,))
    code = {"type": "code_interpreter", "container": {"type": "auto"}}
    script = {**QUICK, "text": "Done.", "container_files": [{"filename": "a.csv", "text": "a,b\n"}]}
    made = Desk(settings, desk.upstream).leave(script, options={"tools": [code]})
    desk.wait_for_run(made)
    results = str(tmp_path / "results")
    files = desk.read("result", made, "--part", "files", AGENT_JOBS_RESULT_DIR=results)["files"]
    assert [Path(file["path"]).read_text() for file in files] == ["a,b\n"]
    assert Path(desk.read("show", made)["result_path"]).read_text().count("\nDone.") == 1
    given = Desk(settings, desk.upstream).leave(
        {**QUICK, "text": "Read."}, files=["sums.csv"], options={"tools": [code]}
    )
    desk.wait_for_run(given)
    uploads = desk.upstream.emulator.counters()["uploads"]
    assert desk.type("result", given).stdout == "Read.\n"
    assert desk.upstream.emulator.counters()["file_deletes"] == 0
    assert uploads == desk.upstream.emulator.counters()["files_left"] == 1

    async def work() -> None:
        async with hosting(settings):
            await eventually(lambda: not desk.upstream.emulator.counters()["files_left"])

    anyio.run(work)
