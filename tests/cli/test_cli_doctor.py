"""`doctor` finds every problem and names its fix; `config` and the tools name it in the same words."""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from click.testing import CliRunner
from hosts import read, script_prompt
from mcp import Client
from processes import serving
from rich.cells import cell_len
from terminals import KEY, Terminal

from agent_jobs.app import open_app
from agent_jobs.cli.checks import selftest
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.errors import ConfigError
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import VARIABLES, Settings


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def doctor(terminal: Terminal, **environment: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Run doctor, and return its exit status and its findings by their subjects."""
    shown = terminal.pipe("doctor", "--json", **environment)
    findings: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(shown.stdout)["findings"]:
        findings.setdefault(finding["what"], []).append(finding)
    return shown.returncode, findings


def config(terminal: Terminal, **environment: str) -> tuple[int, dict[str, Any]]:
    shown = terminal.pipe("config", "--json", **environment)
    return shown.returncode, json.loads(shown.stdout)


def test_sound_machine_has_no_problems(terminal: Terminal, upstream: RunningServer):
    status, findings = doctor(terminal)
    assert status == 0
    states = {what: {finding["state"] for finding in found} for what, found in findings.items() if what != "uvx"}
    assert states == {
        what: {"ok"}
        for what in (
            "version",
            "python",
            "settings",
            "key",
            "host",
            "upstream",
            "model",
            "database",
            "jobs",
            "self-test",
        )
    }
    assert [f"protocol {version}" in finding["text"] for version, finding in zip(
        ("2025-11-25", "2026-07-28"), findings["self-test"], strict=True)] == [True, True]  # fmt: skip
    assert findings["key"][0]["text"] == "a key is set, ...6789, from OPENAI_API_KEY in the environment"
    assert KEY not in json.dumps(findings)
    counters = upstream.emulator.counters()
    assert counters["creates"] + counters["retrieves"] == 0


@pytest.mark.parametrize("columns", [80, 160])
def test_doctor_fits_the_terminal(terminal: Terminal, columns: int):
    shown = terminal.show("doctor", columns=columns, PATH="/nowhere")
    # A path is not wrapped, so that it can be copied.
    assert all(cell_len(line) <= columns or len(line[15:].split()) == 1 for line in shown.text.splitlines())
    assert shown.colours
    assert "uvx is not on the PATH" in shown.text
    assert not terminal.show("doctor", NO_COLOR="1").colours


@pytest.mark.parametrize("is_needed", [True, False])
def test_uvx_that_only_a_shell_finds_is_a_warning_if_a_host_starts_it(
    terminal: Terminal, tmp_path: Path, is_needed: bool
) -> None:
    uvx = tmp_path / "uvx"
    uvx.write_text("#!/bin/sh\n")
    uvx.chmod(0o755)
    if is_needed:
        (tmp_path / ".cursor").mkdir()
        (tmp_path / ".cursor/mcp.json").write_text('{"mcpServers": {"agent-jobs": {"command": "uvx"}}}')
    [finding] = doctor(terminal, PATH=str(tmp_path))[1]["uvx"]
    assert (finding["state"], str(uvx) in finding.get("fix", "")) == (("warning", True) if is_needed else ("ok", False))
    assert str(uvx) in finding["text"]


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    ("environment", "end"),
    [
        ({}, "No problems."),
        ({"AGENT_JOBS_MODEL": "gpt-none"}, "1 problem. Begin with this: set AGENT_JOBS_MODEL to a model that"),
        ({"AGENT_JOBS_FOLOW": "1"}, "1 warning. Begin with this: AGENT_JOBS_FOLOW is not a setting"),
        (
            {"AGENT_JOBS_FOLLOW": "x", "AGENT_JOBS_FOLOW": "1"},
            "1 problem, 1 warning. Begin with this: AGENT_JOBS_FOLLOW accepts",
        ),
    ],
)
def test_doctor_ends_with_the_step_to_begin_with(
    terminal: Terminal, columns: int, environment: dict[str, str], end: str
) -> None:
    shown = terminal.show("doctor", columns=columns, **{"PATH": "/nowhere", **environment})  # pyright: ignore[reportArgumentType]
    assert end in " ".join(shown.text.rstrip().split("\n\n")[-1].split()), shown.text
    assert all(len(line) <= columns or len(line[15:].split()) == 1 for line in shown.text.splitlines())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sleep 600", "did not answer within 0.2 s"),
        ("head -n 1 >/dev/null; sleep 600", "did not answer within 0.2 s"),
        ("echo no such file >&2; exit 1", "did not answer correctly (no such file)"),
        ("read -r line", "did not answer correctly (it ended)"),
    ],
)
def test_server_that_is_late_is_not_reported_as_one_that_ended(
    monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(selftest, "LIMIT_S", 0.2 if "0.2" in reason else 60.0)
    with pytest.raises(selftest.SelfTestError, match=re.escape(reason)):
        selftest.start_server(["sh", "-c", program], os.environ)


#: Mistakes that the stdio server must also report. Each file has its own case; WRONG has all other variables.
MISTAKES = {
    "a value of the wrong type": ({"AGENT_JOBS_MAX_CONCURRENT": "many"}, "AGENT_JOBS_MAX_CONCURRENT accepts"),
    "a missing price table": ({"AGENT_JOBS_PRICES": "/nowhere/prices.toml"}, "AGENT_JOBS_PRICES"),
    "a folder that cannot be written": ({"AGENT_JOBS_DATA_DIR": "/dev/null/jobs"}, "/dev/null/jobs"),
    "a missing file of presets": ({"AGENT_JOBS_PRESETS": "/nowhere/presets.toml"}, "AGENT_JOBS_PRESETS"),
    "a missing toolbox": ({"AGENT_JOBS_TOOLBOX": "/nowhere/tools.json"}, "AGENT_JOBS_TOOLBOX"),
}


@pytest.mark.parametrize(("environment", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_named_by_doctor_config_and_the_tools_in_the_same_words(
    terminal: Terminal, upstream: RunningServer, environment: dict[str, str], words: str
):
    _, findings = doctor(terminal, **environment)
    [by_doctor] = {f["text"] for found in findings.values() for f in found if words in f["text"]}
    problem = by_doctor.partition(". ")[0].rstrip(".")  # the fix follows, which differs for each reader
    status, shown = config(terminal, **environment)
    assert status == 1
    assert [mistake for mistake in shown["mistakes"] if mistake.startswith(problem)]
    where = "database" if "AGENT_JOBS_DATA_DIR" in environment else "settings"
    assert by_doctor in [finding["text"] for finding in findings[where]]
    with serving(terminal.folder, upstream.base_url, **environment) as server:
        server.initialize()
        answers = json.dumps([server.call("agent_list"), server.call("agent_start", prompt="x")])
        assert json.dumps(problem)[1:-1] in answers


def test_unused_parts_of_the_toolbox_are_the_same_warning_everywhere(terminal: Terminal, tmp_path: Path):
    path = tmp_path / "tools.json"
    odd = {"old": {"type": "sse", "url": "https://x/sse"}, "git": {"command": "uvx", "timeout": 60, "env": {"A": 1}}}
    path.write_text(f"// as a host keeps it\n{json.dumps({'mcpServers': odd})}")
    status, findings = doctor(terminal, AGENT_JOBS_TOOLBOX=str(path))
    assert (status, {finding["state"] for finding in findings["settings"]}) == (0, {"warning"})
    sentences = [finding["text"] for finding in findings["settings"]]
    assert [sentence.partition(":")[0] for sentence in sentences] == ["AGENT_JOBS_TOOLBOX"] * 2
    assert "old: type sse is not supported" in sentences[0]
    assert sentences[1].endswith("git: timeout is not used, since hosts disagree on its unit: write timeout_s.")
    environment = {"AGENT_JOBS_TOOLBOX": str(path), "AGENT_JOBS_DATA_DIR": str(tmp_path / "jobs")}
    shown = CliRunner().invoke(cli, ["config", "--json"], env=environment)
    assert (shown.exit_code, json.loads(shown.stdout)["mistakes"]) == (1, sentences)


#: Unusable values of each variable that does not accept every value.
WRONG: Mapping[str, tuple[str, ...]] = {
    "OPENAI_API_KEY": ("sk-caf\u00e9", "${OPENAI_API_KEY}", "sk-1\x7f"),
    "AGENT_JOBS_API_KEY_FILE": ("/nowhere/key", "key", "/dev/null"),
    "OPENAI_BASE_URL": ("api.openai.com/v1", "https://host:0/v1", "https://name:password@host/v1"),
    "OPENAI_ORG_ID": ("org-\u00e9",),
    "OPENAI_PROJECT_ID": ("proj-\u00e9",),
    "AGENT_JOBS_AUTH": ("basic",),
    "AGENT_JOBS_PRESETS": ("~nobody-of-this-name/presets.toml",),
    "AGENT_JOBS_SECRETS": ("A=b", "CAFE", ","),
    "AGENT_JOBS_CONFIG": ("~nobody-of-this-name/config.toml", "config.toml"),
    "AGENT_JOBS_DATA_DIR": ("~nobody-of-this-name/jobs",),
    "AGENT_JOBS_DATABASE_URL": ("mysql://db.example/jobs", "postgresql://ada:p@ss@db.example/jobs"),
    "AGENT_JOBS_DATABASE_LISTEN_URL": ("db.example/jobs",),
    "AGENT_JOBS_DATABASE_PASSWORD_FILE": ("password", "~nobody-of-this-name/password"),
    "AGENT_JOBS_POOL": ("0", "many"),
    "AGENT_JOBS_FILE_ROOTS": ("src", "/no/such/folder", "~nobody-of-this-name"),
    "AGENT_JOBS_RESULT_DIR": ("/dev/null/out", "~nobody-of-this-name/out"),
    "AGENT_JOBS_MAX_WAIT_S": ("0", "soon"),
    "AGENT_JOBS_START_TIMEOUT_S": ("901",),
    "AGENT_JOBS_FOLLOW": ("all", "-1"),
    "AGENT_JOBS_MAX_CONCURRENT": ("many", "0"),
    "AGENT_JOBS_JOB_TIMEOUT_S": ("never",),
    "AGENT_JOBS_MODE": ("fast",),
    "AGENT_JOBS_RESUBMIT": ("twice",),
    "AGENT_JOBS_RETENTION_DAYS": ("0", "nan", "ever"),
    "AGENT_JOBS_DELETE_UPSTREAM": ("perhaps",),
    "AGENT_JOBS_BUDGET_MODE": ("guess",),
    "AGENT_JOBS_TOOLBOX": ("~nobody-of-this-name/tools.json",),
    "AGENT_JOBS_TOOL_CONCURRENCY": ("0",),
    "AGENT_JOBS_APPROVALS": ("yes",),
    "AGENT_JOBS_INPUT_TIMEOUT_S": ("1",),
    "AGENT_JOBS_ON_FINISH": ("say 'it", "/no/such/command x", "./notify"),
    "AGENT_JOBS_NOTIFY": ("email:me", "slack:http://example.com", "ntfy:"),
    "AGENT_JOBS_NOTIFY_EVENTS": ("started",),
    "AGENT_JOBS_NOTIFY_MIN_S": ("-1", "soon"),
    "AGENT_JOBS_NOTIFY_SECRET": ("whsec_short",),
    "AGENT_JOBS_PRICES": ("~nobody-of-this-name/prices.toml",),
    "AGENT_JOBS_DAILY_BUDGET_USD": ("0", "$20"),
    "AGENT_JOBS_STRUCTURED": ("both",),
    "AGENT_JOBS_TASKS": ("always",),
    "AGENT_JOBS_OWNER_MAX_CONCURRENT": ("0", "many"),
    "AGENT_JOBS_OWNER_DAILY_BUDGET_USD": ("0", "$20"),
    "AGENT_JOBS_OWNER_STARTS_PER_MINUTE": ("0", "1.5"),
    "AGENT_JOBS_OWNER_KEYS_DIR": ("~nobody-of-this-name/keys", "/nowhere/keys", "/dev/null"),
    "AGENT_JOBS_HOST": ("http://localhost", "two words"),
    "AGENT_JOBS_PORT": ("65536", "http"),
    "AGENT_JOBS_PUBLIC_URL": ("jobs.example.com", "https://jobs.example.com/team"),
    "AGENT_JOBS_DRAIN_S": ("-1", "601"),
    "AGENT_JOBS_OAUTH_ISSUER": ("http://login.example.com", "login"),
    "AGENT_JOBS_OAUTH_JWKS_URL": ("http://login.example.com/jwks",),
    "AGENT_JOBS_OAUTH_INTROSPECTION_URL": ("login.example.com/introspect",),
    "AGENT_JOBS_OWNER_CLAIM": ("caf\u00e9",),
    "AGENT_JOBS_TOOLBOX_OWNERS": ("al\x07ice", ","),
    "AGENT_JOBS_WEBHOOK_SECRET_FILE": ("~nobody-of-this-name/secret",),
    "AGENT_JOBS_METRICS_TOKEN_FILE": ("~nobody-of-this-name/token",),
    "AGENT_JOBS_CALLBACK_HOSTS": ("https://hooks.example.com/x", "a:99999", "a:0"),
    "AGENT_JOBS_CALLBACK_SECRET_FILE": ("~nobody-of-this-name/secret",),
    "AGENT_JOBS_LOG_LEVEL": ("loud",),
    "AGENT_JOBS_LOGLEVEL": ("debug",),
    "AGENT_JOBS_": ("1",),
}
#: A secret that no header can carry, for the variables that name a secret.
CAFE = {"CAFE": "caf\u00e9"}


async def read_tool_errors(environ: Mapping[str, str]) -> str:
    """Return the tools' error in this environment, as the stdio server reports it."""
    settings: Settings | ConfigError
    try:
        settings = Settings.from_env(environ)
    except ConfigError as error:
        settings = error
    async with open_app(settings) as app, Client(build_server(app.engine)) as client:
        answers = [await client.call_tool("agent_list"), await client.call_tool("agent_start", {"prompt": "x"})]
    return json.dumps([read(answer) for answer in answers])


def test_only_free_text_settings_accept_every_value():
    assert VARIABLES.keys() - WRONG.keys() == {"AGENT_JOBS_MODEL"}


@pytest.mark.timeout(180)  # runs doctor, config, and the tools once for each mistake
@pytest.mark.parametrize("number", range(max(map(len, WRONG.values()))))
async def test_each_way_to_set_each_variable_wrongly_is_named_in_the_same_words(terminal: Terminal, number: int):
    wrong = {name: values[number] for name, values in WRONG.items() if number < len(values)}
    _, findings = await to_thread.run_sync(lambda: doctor(terminal, **wrong, **CAFE))
    by_doctor = {finding["text"] for finding in findings["settings"]}
    status, shown = await to_thread.run_sync(lambda: config(terminal, **wrong, **CAFE))
    assert status == 1
    assert by_doctor <= set(shown["mistakes"])
    sound = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": terminal.base_url, "AGENT_JOBS_DATA_DIR": str(terminal.folder)}
    for name, value in wrong.items():
        named = "CAFE" if value == "CAFE" else name
        [sentence] = [each for each in by_doctor if each.startswith(f"{named} ")]
        # Only the problem is compared: the fix differs for each reader.
        assert json.dumps(re.split(r"[.?] ", sentence)[0].rstrip("."))[1:-1] in await read_tool_errors(
            {**sound, name: value, **CAFE}
        )


def test_every_mistake_is_named_at_once_and_the_rest_stays_in_force(terminal: Terminal):
    status, shown = config(
        terminal, AGENT_JOBS_FOLLOW="all", AGENT_JOBS_MODE="fast", AGENT_JOBS_TYPO="1", AGENT_JOBS_MODEL="gpt-x",
        AGENT_JOBS_SECRETS="TOKEN", TOKEN="caf\u00e9",
    )  # fmt: skip
    assert status == 1
    named = [sentence.split()[0] for sentence in shown["mistakes"]]
    assert sorted(named) == ["AGENT_JOBS_FOLLOW", "AGENT_JOBS_MODE", "AGENT_JOBS_TYPO", "TOKEN"]
    assert shown["settings"]["AGENT_JOBS_MODEL"] == {"value": "gpt-x", "from": "environment"}
    assert shown["settings"]["AGENT_JOBS_MODE"]["value"] == "auto"


def test_config_shows_every_setting_and_no_secret(terminal: Terminal):
    environment = {
        "OPENAI_BASE_URL": "https://api.example.com/v1?api-key=password",
        "AGENT_JOBS_SECRETS": "TOKEN,SHORT,GONE",
        "TOKEN": "t" * 20 + "abcd",
        "SHORT": "hunter2",
    }
    shown = terminal.pipe("config", **environment).stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(VARIABLES)
    for secret in (KEY, "password", "tttt", "hunter2"):
        assert secret not in shown
    assert "TOKEN ...abcd, SHORT (set), GONE (empty)" in shown
    assert config(terminal)[0] == 0


def test_config_says_where_a_setting_comes_from(terminal: Terminal, tmp_path: Path):
    env, key = tmp_path / "env", tmp_path / "key"
    env.write_text("AGENT_JOBS_MODEL=gpt-x\nAGENT_JOBS_FOLLOW=never\n")
    key.write_text("sk-from-a-file-wxyz\n")
    more = {"AGENT_JOBS_FOLLOW": "7", "AGENT_JOBS_API_KEY_FILE": str(key)}
    settings = json.loads(terminal.pipe("--env-file", str(env), "config", "--json", **more).stdout)["settings"]
    assert settings["AGENT_JOBS_MODEL"] == {"value": "gpt-x", "from": "env file"}
    assert settings["AGENT_JOBS_FOLLOW"] == {"value": 7, "from": "environment"}
    assert settings["OPENAI_API_KEY"] == {"value": "...wxyz", "from": "key file"}
    assert settings["AGENT_JOBS_AUTH"] == {"value": "auto", "from": "default"}


def test_upstream_that_does_not_answer_is_distinguished_from_a_refused_key(terminal: Terminal, closed_port: int):
    status, findings = doctor(terminal, OPENAI_BASE_URL=f"http://127.0.0.1:{closed_port}/v1")
    assert status == 1
    assert "OPENAI_BASE_URL" in findings["upstream"][0]["fix"]
    assert "connection refused, cannot connect to 127.0.0.1" in findings["upstream"][0]["text"]
    status, findings = doctor(terminal, OPENAI_API_KEY="invalid")
    assert status == 1
    assert "refuses the key" in findings["upstream"][0]["text"]


def test_key_is_sent_nowhere_while_its_address_cannot_be_used(terminal: Terminal):
    status, findings = doctor(terminal, OPENAI_BASE_URL="gateway.corp/v1")
    assert status == 1
    assert "OPENAI_BASE_URL" in findings["settings"][0]["text"]
    assert "upstream" not in findings
    assert findings["database"][0]["state"] == "ok"


def test_address_without_its_path_is_not_reported_as_a_missing_model(terminal: Terminal, upstream: RunningServer):
    _, findings = doctor(terminal, OPENAI_BASE_URL=f"{upstream.url}/elsewhere")
    [finding] = findings["upstream"]
    assert finding["state"] == "warning"
    assert "check OPENAI_BASE_URL, which usually ends in /v1" in finding["fix"]
    assert "model" not in findings


def test_missing_models_and_those_that_will_be_shut_down_are_reported(terminal: Terminal):
    status, findings = doctor(terminal, AGENT_JOBS_MODEL="gpt-nowhere")
    assert status == 1
    assert findings["upstream"][0]["state"] == "ok"
    assert findings["model"][0]["state"] == "problem"
    [finding] = doctor(terminal, AGENT_JOBS_MODEL="gpt-5")[1]["model"]
    assert "2026-12-11" in finding["text"]
    assert finding["state"] == "warning"


def test_model_that_only_the_list_names_is_available(terminal: Terminal, upstream: RunningServer):
    """test_model_list.py tests the forms of the list, and the messages if there is none."""
    upstream.queue_fault(on="any", match="gpt-6-sol", status=404, body={"detail": "Not Found"}, times=-1)
    status, findings = doctor(terminal, AGENT_JOBS_MODEL="gpt-6-sol")
    assert (status, findings["model"][0]["text"]) == (0, "gpt-6-sol is available")
    assert findings["upstream"][0]["state"] == "ok"


def test_doctor_reports_jobs_without_a_process_but_not_those_of_a_living_server(
    terminal: Terminal, upstream: RunningServer
):
    job_id = terminal.pipe("start", "--detach", script_prompt("Long", {"duration_s": 3000})).stdout.strip()
    [finding] = doctor(terminal)[1]["jobs"]
    assert job_id in finding["text"]
    assert "agent-jobs watch --all" in finding["fix"]
    with serving(terminal.folder, upstream.base_url) as server:
        server.initialize()
        server.call("agent_list")
        _, findings = doctor(terminal)
    assert [finding["state"] for finding in findings["jobs"]] == ["ok"]
    assert f"agent-jobs server (pid {server.process.pid})" in findings["database"][0]["text"]


def test_jobs_of_several_addresses_are_reported_each_with_its_own(terminal: Terminal, upstream: RunningServer):
    here = terminal.pipe("start", "--detach", script_prompt("Here", {"duration_s": 3000})).stdout.strip()
    with run_emulator() as elsewhere:
        there = terminal.pipe(
            "start", "--detach", script_prompt("There", {"duration_s": 3000}), OPENAI_BASE_URL=elsewhere.base_url
        )
    findings = doctor(terminal)[1]["jobs"]
    fixes = {finding["text"].removeprefix("no process is watching "): finding["fix"] for finding in findings}
    assert fixes[here].endswith(f"OPENAI_BASE_URL={upstream.base_url}")
    assert fixes[there.stdout.strip()].endswith(f"OPENAI_BASE_URL={elsewhere.base_url}")


def test_doctor_reports_an_unconfirmed_start(terminal: Terminal):
    script = {"faults": [{"on": "create", "status": 500, "after_accept": True}]}
    terminal.pipe("run", script_prompt("Lost", script))
    [finding] = doctor(terminal)[1]["jobs"]
    assert "agent-jobs adopt" in finding["fix"]


def test_missing_key_is_reported_like_in_the_tools_and_other_checks_run(terminal: Terminal):
    status, findings = doctor(terminal, OPENAI_API_KEY="")
    assert status == 1
    command = f"agent-jobs key set --endpoint {terminal.base_url}"
    assert findings["key"][0]["text"].startswith("No API key is set for ")
    assert findings["key"][0]["fix"] == f"set it with: {command}"
    assert "upstream" not in findings
    assert findings["database"][0]["state"] == "ok"
    findings = doctor(terminal, OPENAI_API_KEY="", AGENT_JOBS_PRESETS="/nowhere/presets.toml")[1]
    assert "AGENT_JOBS_PRESETS" in findings["settings"][0]["text"]


def test_database_of_a_newer_version_is_left_alone(terminal: Terminal):
    import sqlite3

    terminal.pipe("list")
    with sqlite3.connect(terminal.folder / "jobs.db") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    status, findings = doctor(terminal)
    assert status == 1
    assert "newer" in findings["database"][0]["text"]


def test_doctor_warns_of_its_own_key_files_that_others_can_read(terminal: Terminal, tmp_path: Path):
    key, env = tmp_path / "key", tmp_path / "env"
    key.write_text(KEY)
    env.write_text(f"OPENAI_API_KEY={KEY}\n")
    key.chmod(0o644)
    env.chmod(0o644)
    more = {"AGENT_JOBS_API_KEY_FILE": str(key)}
    shown = json.loads(terminal.pipe("--env-file", str(env), "doctor", "--json", **more).stdout)["findings"]
    warned = [finding["fix"] for finding in shown if finding["what"] == "key" and finding["state"] == "warning"]
    assert warned == [f"chmod 600 {key}", f"chmod 600 {env}"]
