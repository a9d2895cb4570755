"""One settings file serves hosts and terminal. Variables overrule it, and its mistakes are reported by name."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hosts import SPEED, read
from mcp import Client
from processes import serving
from terminals import Terminal

from agent_jobs.app import open_app
from agent_jobs.cli.main import cli
from agent_jobs.clock import create_fast_clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.errors import ConfigError
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.configuration import load_settings, load_usable_settings
from agent_jobs.settings.settings import VARIABLES, Settings
from agent_jobs.settings.settings_file import NAMES
from agent_jobs.settings.stored_keys import store_key

KEY = "sk-proj-stored-0123456789abcdef"
#: A value of each setting, as an argument of `config set`. It differs from the default.
VALUES = {
    "api_key_file": "~/key", "base_url": "http://127.0.0.1:1/v1", "org_id": "org-1", "project_id": "proj-1",
    "auth": "bearer", "mode": "background", "model": "gpt-x", "presets": "~/presets.toml", "file_roots": "/tmp",
    "secrets": "A,B", "data_dir": "~/jobs", "result_dir": "/tmp", "retention_days": "30", "delete_upstream": "yes",
    "max_wait_s": "45", "tasks": "never", "start_timeout_s": "60.5", "job_timeout_s": "100", "max_concurrent": "3",
    "follow": "never", "resubmit": "once", "toolbox": "~/tools.json", "tool_concurrency": "2", "approvals": "model",
    "input_timeout_s": "60", "notify": "desktop", "notify_events": "finished", "notify_min_s": "5",
    "notify_secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "on_finish": "sh -c true", "daily_budget_usd": "20", "budget_mode": "spent",
    "database_url": "postgresql://ada@db.example/jobs", "database_listen_url": "postgresql://ada@db.example/jobs",
    "database_password_file": "~/key", "pool": "7", "webhook_secret_file": "~/key", "metrics_token_file": "~/key",
    "callback_hosts": "hooks.example.com", "callback_secret_file": "~/key",
    "owner_max_concurrent": "3", "owner_starts_per_minute": "9", "owner_daily_budget_usd": "5",
    "owner_keys_dir": "/tmp", "toolbox_owners": "alice,bob",
    "host": "127.0.0.2", "port": "8001", "public_url": "https://jobs.example", "drain_s": "3",
    "oauth_issuer": "https://id.example", "oauth_jwks_url": "https://id.example/jwks",
    "oauth_introspection_url": "https://id.example/introspect", "owner_claim": "email",
    "prices": "~/prices.toml", "structured": "1", "log_level": "error",
}  # fmt: skip


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    names = [*VARIABLES, "XDG_CONFIG_HOME"]
    return {**os.environ, **dict.fromkeys(names, ""), "HOME": str(tmp_path)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / ".config/agent-jobs/config.toml"
    path.parent.mkdir(parents=True)
    return path


def config(environ: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["config", *arguments], env=environ)


def write_file(file: Path, text: str) -> None:
    file.write_bytes(text.encode(errors="surrogateescape"))


def show_config(environ: dict[str, str]) -> dict[str, Any]:
    return json.loads(config(environ, "--json").stdout)


def test_every_setting_but_the_key_can_be_in_the_file():
    assert {NAMES[name] for name in VALUES} == VARIABLES.keys() - {"OPENAI_API_KEY", "AGENT_JOBS_CONFIG"}


@pytest.mark.parametrize("name", VALUES)
def test_setting_in_the_file_has_the_effect_of_its_variable(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "presets.toml").write_text('[own]\ndescription = "mine"\nmodel = "gpt-x"\n')
    (tmp_path / "prices.toml").write_text("[models.gpt-x]\ninput = 1.0\noutput = 2.0\n")
    (tmp_path / "tools.json").write_text('{"mcpServers": {"own": {"command": "own"}}}')
    variable = VARIABLES[NAMES[name]]
    result = config(environ, "set", name, VALUES[name])
    assert result.exit_code == 0, result.output
    expected = Settings.from_env({**environ, variable.name: VALUES[name]})
    settings = load_settings(environ)
    assert getattr(settings, variable.field) == getattr(expected, variable.field) != getattr(Settings(), variable.field)
    assert show_config(environ)["settings"][variable.name]["from"] == "config file"
    assert "whsec_" not in result.stdout
    again = config(environ, "set", variable.name, config(environ, "get", name).stdout.removesuffix("\n"))
    # Settings that may hold secrets are shown without them.
    assert again.exit_code == 0 or name in (
        "secrets",
        "on_finish",
        "oauth_introspection_url",
        "notify_secret",
    )
    assert config(environ, "unset", name).exit_code == 0
    assert getattr(load_settings(environ), variable.field) == getattr(Settings(), variable.field)


def test_comments_order_and_other_lines_stay(environ: dict[str, str], file: Path):
    before = '# mine\nmodel = "gpt-x"  # the big one\n\n# waits\nmax_wait_s = 30\r\n[table]\nx = 1\n'
    file.write_bytes(before.encode())
    file.chmod(0o644)
    assert config(environ, "set", "max_wait_s", "45").exit_code == 0
    assert config(environ, "set", "tasks", "never").exit_code == 0
    after = file.read_text()
    assert after.startswith('# mine\nmodel = "gpt-x"  # the big one\n\n# waits\nmax_wait_s = 45\n')
    assert after.index("tasks") < after.index("[table]")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert config(environ, "unset", "table").exit_code == 0
    assert load_settings(environ).tasks == "never"
    assert load_settings(environ).warnings == ()


def test_link_to_the_file_stays_a_link(environ: dict[str, str], file: Path, tmp_path: Path):
    dotfiles = tmp_path / "dotfiles.toml"
    dotfiles.write_text("")
    file.symlink_to(dotfiles)
    assert config(environ, "set", "max_wait_s", "45").exit_code == 0
    assert file.is_symlink()
    assert "max_wait_s = 45" in dotfiles.read_text()


def test_environment_overrules_the_env_file_and_that_the_settings_file(environ: dict[str, str], tmp_path: Path):
    env_file = tmp_path / "job.env"
    env_file.write_text("AGENT_JOBS_MODEL=from-env-file\n")
    config(environ, "set", "model", "from-config")

    def get(*before: str, **more: str) -> tuple[str, str]:
        answer = CliRunner().invoke(cli, [*before, "config", "get", "model", "--json"], env={**environ, **more})
        row = json.loads(answer.stdout)
        return row["value"], row["from"]

    assert get() == ("from-config", "config file")
    assert get("--env-file", str(env_file)) == ("from-env-file", "env file")
    assert get("--env-file", str(env_file), AGENT_JOBS_MODEL="mine") == ("mine", "environment")
    output = config({**environ, "AGENT_JOBS_MODEL": "mine"}, "set", "model", "x").stdout
    assert "Here the environment sets AGENT_JOBS_MODEL, which takes precedence." in output


def test_another_file_can_be_named_and_one_that_does_not_exist_is_reported(environ: dict[str, str], tmp_path: Path):
    other = tmp_path / "work/mine.toml"
    environ["AGENT_JOBS_CONFIG"] = str(other)
    [warning] = map(str, load_settings(environ).warnings)
    assert warning.startswith(f"AGENT_JOBS_CONFIG names {other}, which does not exist.")
    assert config(environ, "set", "model", "x").exit_code == 0
    assert config(environ, "path").stdout == f"{other}\n"
    assert (load_settings(environ).model, load_settings(environ).warnings) == ("x", ())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["max_wait", "3"], "'max_wait' is not a setting. Did you mean max_wait_s?"),
        (["AGENT_JOBS_MODL", "x"], "Did you mean model?"),
        (["zzzz", "x"], "`agent-jobs config --explain` lists all."),
        *(([name, "sk-secret"], "Store it with: agent-jobs key set") for name in (
            "openai_api_key", "OPENAI_API_KEY", "api-key", "key", "token",
        )),
        (["config", "/tmp/x"], "Set AGENT_JOBS_CONFIG in the environment."),
        (["max_wait_s", "0"], "max_wait_s accepts seconds from 1 to 3600. Nothing was written."),
        (["max_wait_s", "-5"], "max_wait_s accepts seconds from 1 to 3600."),
        (["max_wait_s", "1", "2"], "and these are 2 values"),
        (["follow", "all"], "follow accepts auto, never, or how many streams"),
        (["base_url", "api.openai.com"], "base_url accepts a web address."),
        (["base_url", "https://me:pw@host/v1"], "base_url holds a name or password"),
        (["file_roots", "/no/such/folder"], "names /no/such/folder, which is not a folder"),
        (["daily_budget_usd", "20 USD"], "daily_budget_usd accepts an amount in USD above 0"),
        (["model"], "Missing argument 'VALUE...'"),
        *(([name, *texts], f"`agent-jobs config unset {name}` removes") for name, texts in (
            ("model", [""]), ("org_id", [" "]), ("file_roots", [":"]), ("secrets", [","]), ("secrets", ["", ""]),
            ("notify", [""]), ("notify_events", [""]), ("on_finish", [""]), ("presets", [""]), ("max_wait_s", [""]),
        )),
        (["model", "gpt 5"], "model accepts one word, such as gpt-6.1-sol. Nothing was written."),
        (["model", "-x"], "model accepts one word"),
        (["model", "a\nb"], "a line end or another control character"),
        (["model", "https://host/v1"], "agent-jobs config set base_url"),
        (["org_id", "a b"], "org_id accepts one word"),
        (["notify", "foo"], "a target begins with desktop, ntfy, slack, webhook. Correct it. Nothing was written."),
        (["notify", "desktop", "slack:x"], "an address that begins with https://. Correct it. Nothing was written."),
        (["notify_secret", "x"], "notify_secret accepts whsec_ and at least 24 bytes in base64."),
        (["on_finish", "no-such-program"], "not a program that can be found and run."),
        (["on_finish", "say 'x"], "because of its quotes"),
        *(([name, "/no/such/file"], f"{name} names /no/such/file, which does not exist. Write that file first.")
          for name in ("presets", "prices", "toolbox", "api_key_file", "database_password_file")),
        (["presets", "/tmp"], "presets names /tmp, which is a folder."),
        (["presets", __file__], "Nothing was written."),
        (["prices", __file__], "Nothing was written."),
        (["toolbox", __file__], "is not JSON"),
        (["data_dir", __file__], "which is a file. Name a folder"),
        (["result_dir", __file__], "Nothing was written."),
    ],
)  # fmt: skip
def test_unusable_setting_is_refused_and_nothing_is_written(
    environ: dict[str, str], tmp_path: Path, arguments: list[str], words: str
):
    result = config(environ, "set", *arguments)
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.stderr.split())
    assert "sk-secret" not in result.output
    assert not (tmp_path / ".config/agent-jobs/config.toml").exists()


#: The text of a file, the sentence that reports its mistake, and whether that is a refusal or a warning.
MISTAKES = {
    "an unknown name": ("max_wait = 3", "did you mean max_wait_s?", False),
    "a variable": ('AGENT_JOBS_MODEL = "x"', "did you mean model?", False),
    "another case": ('Model = "x"', "did you mean model?", False),
    "a table": ("[limits]\nmax_wait_s = 3", "is not a setting and has no effect", False),
    "the key": ('openai_api_key = "sk-secret"', "holds an API key, which is not used", False),
    "its own name": ('config = "/tmp/x"', "is not a setting and has no effect", False),
    "a value too large": ("max_wait_s = 9999", "max_wait_s in {file} accepts seconds from 1 to 3600", True),
    "a word for a number": ('max_wait_s = "soon"', "max_wait_s in {file} accepts seconds from 1 to 3600", True),
    "a list for one value": ('model = ["a", "b"]', "model in {file} accepts the name of a model", True),
    "a list of numbers": ("file_roots = [1]", "file_roots in {file} accepts absolute folders", True),
    "a table for a value": ("model = {a = 1}", "model in {file} accepts the name of a model", True),
    "a date": ("daily_budget_usd = 2026-01-01", "daily_budget_usd in {file} accepts an amount", True),
    "true for a number": ("max_concurrent = true", "max_concurrent in {file} accepts a whole number", True),
    "no TOML": ("model = gpt-x", "The settings file {file} is not valid TOML", True),
    "a NAME=value line": ("MODEL=gpt x", "The settings file {file} is not valid TOML", True),
    "bytes": ("model = '\udcff'", "The settings file {file} cannot be read", True),
}


@pytest.mark.parametrize(("text", "words", "is_refused"), MISTAKES.values(), ids=MISTAKES)
async def test_mistake_in_the_file_is_named_and_the_server_stays_up(
    environ: dict[str, str], file: Path, upstream: RunningServer, text: str, words: str, is_refused: bool
):
    """Once the user corrects the file, jobs start without a restart."""
    write_file(file, text)
    words = words.replace("{file}", str(file))
    environ |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
    environ["AGENT_JOBS_DATA_DIR"] = str(file.parent / "data")
    settings, refused = load_usable_settings(environ)
    [sentence] = refused if is_refused else map(str, settings.warnings)
    assert words in sentence
    assert "sk-secret" not in sentence

    def reload() -> Settings | ConfigError:
        try:
            return load_settings(environ)
        except ConfigError as error:
            return error

    async with (
        open_app(reload(), create_fast_clock(SPEED), reload=reload) as app,
        Client(build_server(app.engine)) as client,
    ):
        listed = read(await client.call_tool("agent_list", {}))
        assert sentence in json.dumps(listed, ensure_ascii=False).replace('\\"', '"')
        write_file(file, "max_wait_s = 1\n")
        started = await client.call_tool("agent_start", {"prompt": "x", "wait_s": 0})
        assert not started.is_error


def test_relative_path_of_the_file_begins_at_its_folder(environ: dict[str, str], file: Path):
    file.write_text('presets = "presets.toml"\ntoolbox = "~/tools.json"\n')
    settings = load_settings(environ)
    assert settings.presets == file.parent / "presets.toml"
    assert settings.toolbox == Path("~/tools.json").expanduser()


@pytest.mark.parametrize(
    ("more", "is_used"),
    [
        ({}, True),
        ({"OPENAI_BASE_URL": "https://one.example/v2"}, True),
        ({"OPENAI_BASE_URL": "https://other.example/v1"}, False),
        ({"OPENAI_BASE_URL": "http://one.example/v1"}, False),
        ({"OPENAI_API_KEY": "sk-of-the-environment"}, False),
    ],
)
def test_key_file_of_the_file_is_for_the_endpoint_of_the_file(
    environ: dict[str, str], file: Path, more: dict[str, str], is_used: bool
):
    (file.parent / "key").write_text(KEY)
    file.write_text(f'base_url = "https://one.example/v1"\napi_key_file = "{file.parent}/key"\n')
    settings = load_settings({**environ, **more})
    assert (settings.api_key_file is not None) is is_used
    assert (settings.api_key is not None and settings.api_key.get_secret_value() == KEY) is is_used


def test_address_that_cannot_be_read_sends_no_key_elsewhere(environ: dict[str, str], file: Path, tmp_path: Path):
    terminal = Terminal("", tmp_path / "data")
    file.write_text('base_url = "http://127.0.0.1:1/v1"\nmodel = \n')
    findings = json.loads(terminal.pipe("doctor", "--json", OPENAI_BASE_URL="").stdout)["findings"]
    assert not any(finding["what"] == "upstream" for finding in findings)
    assert any("is not valid TOML" in finding["text"] for finding in findings if finding["what"] == "settings")


def test_doctor_finds_files_that_others_can_change_or_read(
    environ: dict[str, str], file: Path, upstream: RunningServer
):
    file.write_text("max_wait_s = 45\n")
    file.chmod(0o666)
    stored = store_key(str(file.parent / "keys"), upstream.base_url, KEY, use_keyring=False)
    stored.path.chmod(0o644)
    terminal = Terminal(upstream.base_url, file.parents[2] / "data")
    findings = json.loads(terminal.pipe("doctor", "--json", OPENAI_API_KEY="").stdout)["findings"]
    texts = {finding["text"]: (finding["state"], finding.get("fix")) for finding in findings}
    assert texts[f"other users can change your settings: {file} has mode 666"] == ("problem", f"chmod go-w {file}")
    assert texts[f"other users can read the key in {stored.path} (mode 644)"] == ("warning", f"chmod 600 {stored.path}")
    assert f"a key is set, ...cdef, from {stored.path}" in texts
    assert any(f"Settings are valid, with those of {file}" in text for text in texts)
    differs = json.loads(terminal.pipe("doctor", "--json").stdout)["findings"]
    [warning] = [each for each in differs if "another key is stored, ...cdef" in each["text"]]
    assert warning["state"] == "warning"


def test_two_writers_lose_nothing(environ: dict[str, str], file: Path):
    code = (
        "import sys; from pathlib import Path; from agent_jobs.cli.config_edit import edit_settings\n"
        "for number in range(20):\n"
        "    edit_settings(Path(sys.argv[1]), lambda d: d.__setitem__(f'{sys.argv[2]}{number}', number))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(file), name]) for name in ("a", "b")]
    assert [writer.wait(100) for writer in writers] == [0, 0]
    assert len([line for line in file.read_text().splitlines() if " = " in line]) == 40


def test_host_without_variables_gets_the_presets_and_the_tasks_of_the_file(file: Path, upstream: RunningServer):
    """The front door leaves a request to the server if the file may change its answer."""
    (file.parent / "mine.toml").write_text('[notes]\ndescription = "Notes"\neffort = "low"\n')
    file.write_text('presets = "mine.toml"\ntasks = "never"\n')
    with serving(file.parents[2] / "data", upstream.base_url, HOME=str(file.parents[2])) as server:
        server.initialize()
        assert "notes" in [prompt["name"] for prompt in server.request("prompts/list")["prompts"]]
    with serving(file.parents[2] / "data", upstream.base_url, HOME=str(file.parents[2])) as server:
        capabilities = server.initialize("2026-07-28")["capabilities"]
        assert "io.modelcontextprotocol/tasks" not in capabilities.get("extensions", {})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AGENT_JOBS_JOB_TIMEOUT_S", "10800", "3 h"),
        ("AGENT_JOBS_JOB_TIMEOUT_S", "5400.5", "1 h 30 min 0.5 s"),
        ("AGENT_JOBS_INPUT_TIMEOUT_S", "90000", "1 day 1 h"),
        ("AGENT_JOBS_DRAIN_S", "0", "0 s"),
        ("AGENT_JOBS_RETENTION_DAYS", "30", "30 days"),
        ("AGENT_JOBS_DAILY_BUDGET_USD", "1250", "$1,250.00"),
        ("AGENT_JOBS_STRUCTURED", "1", "on"),
        ("AGENT_JOBS_TOOLBOX_OWNERS", "bob,alice", "alice, bob"),
        ("AGENT_JOBS_FOLLOW", "all", "200 (the value from environment is invalid)"),
    ],
)
def test_page_shows_a_value_with_its_unit(environ: dict[str, str], name: str, value: str, words: str) -> None:
    page = config({**environ, name: value}, "--all").stdout
    assert re.search(rf"^  {name} +(environment|default) +{re.escape(words)}$", page, re.M), page


def test_page_shows_changed_and_important_settings_first(tmp_path: Path) -> None:
    page = Terminal("http://127.0.0.1:1/v1", tmp_path / "data").show("config", AGENT_JOBS_POOL="7").text
    assert f"{len(VARIABLES) - 8} other settings have their defaults" in page
    assert re.findall(r"^  (\w+)  ", page, re.M) == [
        "OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENT_JOBS_MODEL", "AGENT_JOBS_FILE_ROOTS", "AGENT_JOBS_CONFIG",
        "AGENT_JOBS_DATA_DIR", "AGENT_JOBS_POOL", "AGENT_JOBS_DAILY_BUDGET_USD",
    ]  # fmt: skip
    assert "(not made yet)" in page


def test_page_of_all_settings_has_no_python_in_it(environ: dict[str, str]) -> None:
    for option in ("--all", "--explain"):
        page = config(environ, option).stdout
        assert re.findall(r"\(\)|\b(?:None|True|False|frozenset)\b|(?<![.\d])\d+\.0(?![.\d])", page) == []
        assert set(VARIABLES) <= set(page.split())
    assert set(show_config(environ)["settings"]) == set(VARIABLES)
