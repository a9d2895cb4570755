"""The server as a host runs it: its process, its pipes, its signals and its death."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_jobs.emulator import running
from agent_jobs.emulator.serve import RunningServer
from agent_jobs.render import dumps
from agent_jobs.settings import Settings
from hosts import eventually, hosting, scripted
from processes import MODERN, Server, serving

VERSIONS = ["2025-06-18", "2025-11-25", MODERN]


def start(server: Server, emulate: dict[str, Any], **more: Any) -> dict[str, Any]:
    return server.call("agent_start", prompt=scripted("hello", emulate), **{"wait_s": 0, **more})


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_the_protocol_drives_a_job_to_its_end(
    tmp_path: Path, upstream: RunningServer, version: str
) -> None:
    with serving(tmp_path, upstream.base_url) as server:
        opened = server.initialize(version)
        assert version in (opened.get("protocolVersion"), *opened.get("supportedVersions", ()))
        assert opened["instructions"]
        tools = server.request("tools/list")["tools"]
        assert len(dumps(tools).encode()) <= 4200
        started = start(server, {"duration_s": 2, "text": "over stdio"})
        answer = server.call("agent_poll", job_id=started["job_id"])
        assert answer["output"] == "over stdio"
        cancelled = server.call("agent_cancel", job_id=start(server, {"end": "never"})["job_id"])
        assert cancelled["status"] == "cancelled"
        assert server.end() == 0
        assert server.stderr() == ""


ENDS: dict[str, Callable[[Server], int]] = {
    "end of stdin": lambda server: server.end(),
    "SIGTERM": lambda server: signalled(server, signal.SIGTERM),
    "SIGINT": lambda server: signalled(server, signal.SIGINT),
}


def signalled(server: Server, number: signal.Signals) -> int:
    server.process.send_signal(number)
    return server.process.wait(10)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_server_ends_cleanly_with_a_poll_under_way(
    tmp_path: Path, upstream: RunningServer, end: Callable[[Server], int]
) -> None:
    with serving(tmp_path, upstream.base_url) as server:
        server.initialize()
        started = start(server, {"end": "never"})
        server.send("tools/call", {"name": "agent_poll", "arguments": {"job_id": started["job_id"]}})
        assert end(server) == 0
        assert server.stderr() == ""
    assert not list((tmp_path / "run").glob("*.lock")), "the store was closed"


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_an_id_that_is_on_its_way_when_the_server_ends_is_kept(
    tmp_path: Path, settings: Settings, upstream: RunningServer, end: Callable[[Server], int]
) -> None:
    upstream.queue_fault(on="create", delay_s=1.0 * 10)  # a second, at the emulator's pace
    assert settings.data_dir is not None
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        request = {"prompt": scripted("hello", {"duration_s": 1, "text": "not lost"})}
        server.send("tools/call", {"name": "agent_start", "arguments": request})
        await eventually(lambda: upstream.emulator.counters()["creates"] == 1)
        assert end(server) == 0
    async with hosting(settings) as host:
        job_id = (await host.refused("agent_poll", job_id="unknown")).partition("The newest are ")[2].split()[0]
        assert (await host.end(job_id))["output"] == "not lost"
    assert upstream.emulator.counters()["creates"] == 1


async def test_a_server_killed_in_mid_job_loses_nothing(settings: Settings, upstream: RunningServer) -> None:
    assert settings.data_dir is not None
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        started = start(server, {"duration_s": 20, "text": "survived"})
        server.process.kill()
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        assert server.call("agent_poll", job_id=started["job_id"])["output"] == "survived"
        assert server.end() == 0
    assert upstream.emulator.counters()["creates"] == 1


async def test_a_server_killed_before_the_first_byte_of_the_post_costs_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    base_url = f"http://127.0.0.1:{port}/v1"
    with serving(tmp_path, base_url) as server:
        server.initialize()
        started = start(server, {"duration_s": 1, "text": "run after all"})
        assert started["status"] == "pending"
        server.process.kill()
    with running(port=port, time_scale=10) as upstream, serving(tmp_path, base_url) as server:
        server.initialize()
        assert server.call("agent_poll", job_id=started["job_id"])["output"] == "run after all"
        assert upstream.emulator.counters()["creates"] == 1


async def test_a_server_killed_before_the_id_came_leaves_a_job_that_says_so_and_can_be_adopted(
    settings: Settings, upstream: RunningServer
) -> None:
    assert settings.data_dir is not None
    upstream.queue_fault(on="create", hang=True, after_accept=True)
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        started = start(server, {"duration_s": 1, "text": "found again"}, wait_s=0)
        assert started["status"] == "starting"
        server.process.kill()
    async with hosting(settings) as host:
        answer = await host.end(started["job_id"])
        assert answer["error"]["code"] == "start_unconfirmed"
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        engine = await host.app.engine()
        await engine.adopt(started["job_id"], run["id"])
        assert (await host.end(started["job_id"]))["output"] == "found again"
    assert upstream.emulator.counters()["creates"] == 1


async def test_a_living_server_takes_over_from_a_killed_one(settings: Settings, upstream: RunningServer) -> None:
    assert settings.data_dir is not None
    async with hosting(settings, speed=1) as host:
        with serving(settings.data_dir, upstream.base_url) as server:
            server.initialize()
            started = start(server, {"duration_s": 15, "text": "taken over"})
            server.process.kill()
        assert (await host.end(started["job_id"]))["output"] == "taken over"


def test_neither_key_nor_prompt_nor_output_is_logged(tmp_path: Path, upstream: RunningServer) -> None:
    with serving(tmp_path, upstream.base_url, AGENT_JOBS_LOG_LEVEL="debug") as server:
        server.initialize()
        prompt = 'PROMPT-7 [emulate {"duration_s": 1, "text": "OUTPUT-7"}]'
        started = server.call("agent_start", prompt=prompt, wait_s=0)
        assert server.call("agent_poll", job_id=started["job_id"])["output"] == "OUTPUT-7"
        server.call("agent_start", prompt="PROMPT-7", effort="KEY-7")
        assert server.end() == 0
        logged = server.stderr()
    logged += (tmp_path / "agent-jobs.log").read_text()
    assert started["job_id"] in logged, "the log is of use"
    assert not any(secret in logged for secret in ("PROMPT-7", "OUTPUT-7", "KEY-7", "sk-secret"))


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "not an address"}, "OPENAI_BASE_URL"),
        ({"AGENT_JOBS_MAX_WAIT_S": "soon"}, "AGENT_JOBS_MAX_WAIT_S"),
        ({"AGENT_JOBS_DATA_DIR": "/dev/null/jobs"}, "AGENT_JOBS_DATA_DIR"),
    ],
    ids=["no key", "bad address", "bad number", "no folder"],
)
def test_whatever_is_set_wrong_the_server_stays_up_and_its_tools_say_what_to_set(
    tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    base_url = environment.pop("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    data_dir = Path(environment.pop("AGENT_JOBS_DATA_DIR", str(tmp_path)))
    with serving(data_dir, base_url, **environment) as server:
        server.initialize()
        assert server.request("tools/list")["tools"]
        refused = server.request("tools/call", {"name": "agent_start", "arguments": {"prompt": "hello"}})
        assert refused["isError"]
        assert told in refused["structuredContent"]["error"]["message"]
        assert server.end() == 0
