"""Secrets reach upstream, and none of our files and answers holds them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import SPEED, hosting, script_prompt
from processes import Server, serving
from test_divergent_servers import Divergent
from test_results import PARTS

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

KEY = "sk-seeded-4d1f0a77c2e9"
HEADER, AUTHORIZATION, DOMAIN = "seeded-header-93ab5e", "seeded-authorization-17fc", "seeded-domain-5b20e8"
SEEDED = {"TRACKER_TOKEN": HEADER, "MAIL_TOKEN": AUTHORIZATION, "DOMAIN_TOKEN": DOMAIN}
TRACKER: dict[str, Any] = {
    "type": "mcp",
    "server_label": "tracker",
    "server_url": "https://tracker.example.org/mcp",
    "headers": {"Authorization": "Bearer ${TRACKER_TOKEN}"},
    "require_approval": "never",
}
MAIL: dict[str, Any] = {
    "type": "mcp",
    "server_label": "mail",
    "connector_id": "connector_mail",
    "authorization": "${MAIL_TOKEN}",
    "require_approval": "never",
}
CODE: dict[str, Any] = {
    "type": "code_interpreter",
    "container": {
        "type": "auto",
        "network_policy": {
            "type": "allowlist",
            "allowed_domains": ["example.org"],
            "domain_secrets": [{"domain": "example.org", "name": "TOKEN", "value": "${DOMAIN_TOKEN}"}],
        },
    },
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, secrets={name: SecretStr(value) for name, value in SEEDED.items()})


def refuse_once(upstream: RunningServer, secret: str) -> None:
    """Have upstream refuse only the next create that carries this text."""
    upstream.queue_fault(match=secret, status=418, body={"error": {"code": "seen", "message": "It came."}})


def count_creates(upstream: RunningServer) -> int:
    return upstream.emulator.counters()["creates"]


@pytest.mark.parametrize(
    ("tool", "carried"), [(TRACKER, f"Bearer {HEADER}"), (MAIL, AUTHORIZATION), (CODE, DOMAIN)], ids=str
)
async def test_named_secret_reaches_upstream(
    settings: Settings, upstream: RunningServer, tool: dict[str, Any], carried: str
) -> None:
    refuse_once(upstream, carried)
    async with hosting(settings) as host:
        started = await host.start(options={"tools": [tool]})
        answer = await host.end(started["job_id"])
    assert answer["error"]["code"] == "seen"


@pytest.mark.parametrize(
    ("tool", "why"),
    [
        ({**TRACKER, "headers": {"Authorization": "Bearer sk-literal"}}, "by name only"),
        ({**MAIL, "authorization": "literal"}, "by name only"),
        ({**MAIL, "authorization": "${HOME}"}, "add HOME to AGENT_JOBS_SECRETS"),
        ({**TRACKER, "server_url": "https://user:literal@tracker.example.org"}, "by name only"),
    ],
    ids=["header", "authorization", "unlisted", "address"],
)
async def test_literal_and_unlisted_secrets_are_refused(
    settings: Settings, upstream: RunningServer, tool: dict[str, Any], why: str
) -> None:
    async with hosting(settings) as host:
        message = await host.refused("agent_start", prompt="x", options={"tools": [tool]})
        assert (await host.call("agent_list"))["jobs"] == []
    assert why in message
    assert "literal" not in message.replace(why, "")
    assert count_creates(upstream) == 0


async def test_job_whose_secret_was_removed_fails_with_the_next_step(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", status=503, body={"error": {"message": "busy"}}, times=-1)
    async with hosting(settings) as host:
        started = await host.start(options={"tools": [TRACKER]})
        assert started["status"] == "pending"
    before = count_creates(upstream)
    async with hosting(replace(settings, secrets={})) as host:
        answer = await host.end(started["job_id"])
    assert answer["status"] == "failed"
    assert answer["error"]["code"] == "missing_secret"
    assert "names ${TRACKER_TOKEN}, which may not be read here" in answer["error"]["message"]
    assert "list it in AGENT_JOBS_SECRETS" in answer["next"]
    assert count_creates(upstream) == before


async def test_secret_that_a_server_quotes_is_hidden(settings: Settings, upstream: RunningServer) -> None:
    settings = replace(settings, api_key=SecretStr(KEY))
    for on, status in (("create", 400), ("create", 401), ("create", 500)):
        words = f"Bad header 'Bearer {HEADER}' for key {KEY}"
        upstream.queue_fault(on=on, status=status, body={"error": {"message": words}})
        async with hosting(settings) as host:
            started = await host.start(options={"tools": [TRACKER]})
            answer = await host.end(started["job_id"])
        assert "Bad header" in answer["error"]["message"]
        assert "***" in answer["error"]["message"]
    assert seeds_in(settings.data_path()) == []


def echo_tools(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response of a server that echoes its tools in full."""
    return {**response, "tools": [{**TRACKER, "headers": {"Authorization": f"Bearer {HEADER}", "X-Key": KEY}}]}


@pytest.mark.parametrize("follow", [200, 0], ids=["stream", "looks"])
async def test_tools_that_a_server_echoes_are_not_stored(settings: Settings, tmp_path: Path, follow: int) -> None:
    emulator = Emulator(time_scale=SPEED)
    emulator.app.add_middleware(Divergent, shown=echo_tools)
    settings = replace(settings, api_key=SecretStr(KEY), follow=follow, result_dir=tmp_path / "results")
    with run_emulator(emulator=emulator) as upstream:
        async with hosting(replace(settings, base_url=upstream.base_url)) as host:
            started = await host.start(emulate={"duration_s": 2, "text": "whole"}, options={"tools": [TRACKER]})
            assert (await host.end(started["job_id"]))["output"] == "whole"
    assert seeds_in(tmp_path) == []


def seeds_in(folder: Path) -> list[str]:
    """Return the secrets in all files below a folder, with their files."""
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    seeds = {**SEEDED, "KEY": KEY}
    return [
        f"{name} in {file}" for file, data in files.items() for name, seed in seeds.items() if seed.encode() in data
    ]


def call_everything(server: Server, results: list[Any]) -> None:
    """Call every tool with every argument that could reveal a secret, and read all else that the protocol offers."""
    tools = [TRACKER, MAIL, CODE, {"type": "web_search"}, {"type": "image_generation"}]
    script = {
        "duration_s": 1, "text": "# Done\n", "searches": 2, "mcp_calls": 2, "images": 1,
        "container_files": [{"filename": "t.csv", "text": "a"}],
    }  # fmt: skip
    options: dict[str, Any] = {"tools": tools, "include": ["reasoning.encrypted_content"]}
    asked: dict[str, Any] = {"prompt": script_prompt("all", script), "options": options, "files": ["data.csv"]}
    results.append(server.call("agent_start", **asked, wait_s=0))
    job_id = results[-1]["job_id"]
    results.append(server.call("agent_start", **{**asked, "options": {**options, "dry_run": True}}))
    results.append(server.call("agent_poll", job_id=job_id))
    assert results[-1]["status"] == "completed", results[-1]
    results.extend(server.call("agent_result", job_id=job_id, part=part) for part in PARTS)
    follow_up = script_prompt("more", {"duration_s": 1, "end": "failed"})
    results.append(server.call("agent_start", prompt=follow_up, previous_job_id=job_id, wait_s=20))
    results.append(server.call("agent_start", prompt=script_prompt("x", {"end": "never"}), options=options, wait_s=0))
    results.append(server.call("agent_cancel", job_id=results[-1]["job_id"]))
    results.append(server.call("agent_start", prompt="x", options={"tools": [{**MAIL, "authorization": "${KEY}"}]}))
    results.append(server.call("agent_list"))
    results.append(server.request("resources/read", {"uri": f"job://{job_id}"}))
    results.append(server.request("resources/read", {"uri": f"job://{job_id}/result"}))
    results.append(server.request("prompts/list"))


def test_files_and_answers_hold_no_secret(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/data.csv").write_text("1,2\n")
    ours = {
        "OPENAI_API_KEY": KEY,
        "AGENT_JOBS_SECRETS": ",".join(SEEDED),
        "AGENT_JOBS_RESULT_DIR": str(tmp_path / "results"),
        "AGENT_JOBS_FILE_ROOTS": str(tmp_path / "root"),
        "AGENT_JOBS_LOG_LEVEL": "debug",
        **SEEDED,
    }
    results: list[Any] = []
    with run_emulator(time_scale=SPEED) as upstream, serving(tmp_path / "data", upstream.base_url, **ours) as server:
        upstream.queue_fault(on="retrieve", status=500, times=2)
        server.initialize()
        call_everything(server, results)
        assert [*tmp_path.rglob("jobs.db-wal")], "looked at while the log is there"
        assert seeds_in(tmp_path) == []
        assert server.end() == 0
        stderr = server.stderr()
        seen = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
    assert len(seen) == 3
    assert seeds_in(tmp_path) == []
    assert [*(tmp_path / "results").glob("*.md")]
    shown_text = json.dumps(results) + stderr
    assert not [seed for seed in (KEY, *SEEDED.values()) if seed in shown_text]
    assert "iVBOR" not in shown_text, "no picture"
    assert "gAAAA" not in shown_text, "nothing encrypted"
