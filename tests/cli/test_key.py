"""A key is stored once for hosts and terminal, shown by its end only, and sent to its own endpoint alone."""

import json
import re
import stat
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hosts import SPEED, Host
from mcp import Client
from terminals import HIDDEN_QUESTION, Terminal

from agent_jobs.app import open_app
from agent_jobs.cli.main import cli
from agent_jobs.clock import create_fast_clock
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.errors import ConfigError
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.config_folder import find_key_folder
from agent_jobs.settings.configuration import load_settings, load_usable_settings
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.stored_keys import find_stored_key, list_endpoints, store_key

KEY = "sk-proj-stored-0123456789abcdef"
OTHER = "sk-proj-other-0123456789uvwxyz"
OPENAI = "https://api.openai.com/v1"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user without a key and without settings."""
    names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENT_JOBS_CONFIG", "XDG_CONFIG_HOME", "AGENT_JOBS_API_KEY_FILE")
    return {**dict.fromkeys(names, ""), "HOME": str(tmp_path), "AGENT_JOBS_DATA_DIR": str(tmp_path / "data")}


def key(environ: dict[str, str], *arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(cli, ["key", *arguments], input=stdin, env=environ)


def show_key(environ: dict[str, str], *arguments: str) -> dict[str, Any]:
    return json.loads(key(environ, "show", "--json", *arguments).stdout)


@asynccontextmanager
async def running_server(environ: dict[str, str]) -> AsyncGenerator[Host]:
    """Start a server as a host does. It reads the settings again while it has no key."""

    def reload() -> Settings | ConfigError:
        try:
            return load_settings(environ)
        except ConfigError as error:
            return error

    async with (
        open_app(reload(), create_fast_clock(SPEED), reload=reload) as app,
        Client(build_server(app.engine)) as client,
    ):
        yield Host(app, client)


def test_stored_key_is_in_a_file_that_only_its_owner_can_read(environ: dict[str, str], tmp_path: Path):
    result = key(environ, "set", stdin=f"{KEY}\n")
    path = tmp_path / ".config/agent-jobs/keys/api.openai.com"
    assert (result.exit_code, path.read_text()) == (0, f"{KEY}\n")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    assert str(path) in result.stdout
    assert "...cdef" in result.stdout
    assert KEY not in result.output
    assert "earlier key" not in result.stdout + key(environ, "set", stdin=KEY).stdout
    assert "Running hosts use the earlier key until the provider refuses it" in key(environ, "set", stdin=OTHER).stdout
    assert key(environ, "set", stdin=KEY).exit_code == 0
    assert load_settings(environ).api_key is not None
    assert show_key(environ) == {
        "endpoint": "api.openai.com", "key": "...cdef", "from": "file", "where": str(path), "other_endpoints": [],
    }  # fmt: skip
    assert key(environ, "delete").exit_code == 0
    assert load_settings(environ).api_key is None
    assert key(environ, "delete").stdout == "No key is stored for api.openai.com.\n"
    assert key(environ, "show").exit_code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"  {KEY}\r\n", None),
        (f"\ufeff{KEY}", None),
        (f'"{KEY}"', "quotes"),
        (f"'{KEY}'\n", "quotes"),
        (f"`{KEY}`", "quotes"),
        (f"“{KEY}”", "quotes"),
        (f"Bearer {KEY}", "'Bearer'"),
        (f"bearer: {KEY}", "'Bearer'"),
        (f"Authorization: Bearer {KEY}", "header"),
        (f"OPENAI_API_KEY={KEY}", "name before it"),
        (f"export OPENAI_API_KEY='{KEY}'", "name before it"),
        (f'$env:OPENAI_API_KEY = "{KEY}"', "name before it"),
        (f'"OPENAI_API_KEY": "{KEY}",', None),
        (f"{KEY},", "comma"),
        (f"{KEY[:8]}\u200b{KEY[8:]}", "invisible"),
    ],
)
def test_text_copied_along_with_a_key_is_removed_or_refused(environ: dict[str, str], text: str, words: str | None):
    result = key(environ, "set", stdin=text.encode())
    stored = find_stored_key(find_key_folder(environ), OPENAI)
    if result.exit_code:
        assert stored is None
    else:
        assert stored is not None
        assert stored.secret is not None
        assert stored.secret.get_secret_value() == KEY
        assert (words or "") in result.stdout
        assert ("Left out" in result.stdout) is (words is not None)
    assert result.exit_code == 0 or '":' in text
    assert KEY not in result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No key was given."),
        (" \n", "No key was given."),
        ("sk-proj-0123 456789", "a space or a line break"),
        ("sk-proj-0123\n456789", "a space or a line break"),
        ("$OPENAI_API_KEY", "a reference to a variable"),
        ("${OPENAI_API_KEY}", "a reference to a variable"),
        ("OPENAI_API_KEY=$KEY", "a reference to a variable"),
        ("sk-...", "a placeholder"),
        ("<your-key>", "a placeholder"),
        ("sk-proj-abc…xyz", "shortened"),
        ("~/key.txt", "agent-jobs key set < FILE"),
        ("https://platform.openai.com", "an address"),
        ("{", "another file"),
        ("sk–proj–secret", "a dash"),
        ("sk-caf\u00e9", "no header can carry"),
        (b"\xff\xfe\x00", "not text"),
        ("a" * 9000, "longer than any key"),
    ],
)
def test_text_that_is_no_key_is_refused_and_the_stored_key_stays(
    environ: dict[str, str], text: str | bytes, words: str
):
    store_key(find_key_folder(environ), OPENAI, OTHER, use_keyring=False)
    result = key(environ, "set", "--stdin", stdin=text if isinstance(text, bytes) else text.encode())
    assert result.exit_code == 1
    assert words in result.stderr
    assert show_key(environ)["key"] == "...wxyz"
    secret = text.decode(errors="replace").strip() if isinstance(text, bytes) else text.strip()
    assert len(secret) < 6 or secret in ("$OPENAI_API_KEY",) or secret not in result.output


@pytest.mark.parametrize("arguments", [["set", KEY], [KEY], ["set", "--file", KEY], ["delete", KEY], ["show", KEY]])
def test_key_on_the_command_line_is_not_repeated(environ: dict[str, str], arguments: list[str]):
    result = key(environ, *arguments)
    assert result.exit_code == 2
    assert KEY not in result.output
    assert not list_endpoints(find_key_folder(environ))


ENDPOINTS = [
    "https://api.openai.com/v1", "http://api.openai.com/v1", "https://api.openai.com:8443/v1",
    "https://eu.api.openai.com/v1", "https://api.openai.com.example/v1", "https://openai.com/v1",
    "https://api_openai.com/v1", "http://127.0.0.1:8787/v1", "http://127.0.0.1:8788/v1", "https://127.0.0.1:8787/v1",
    "http://localhost:8787/v1", "http://[::1]:8787/v1", "https://one.openai.azure.com/openai/v1",
    "https://two.openai.azure.com/openai/v1", "https://http_127.0.0.1_8787/v1", "https://api.openai.com%2f.example/v1",
]  # fmt: skip


@pytest.mark.parametrize("url", ENDPOINTS)
def test_key_of_one_endpoint_is_found_for_no_other(environ: dict[str, str], url: str):
    folder = find_key_folder(environ)
    stored = store_key(folder, url, KEY, use_keyring=False)
    found = [each for each in ENDPOINTS if find_stored_key(folder, each) is not None]
    assert found == [url]
    assert list_endpoints(folder) == [stored.endpoint]
    assert load_settings({**environ, "OPENAI_BASE_URL": url}).api_key == stored.secret


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OPENAI, "https://API.OpenAI.com:443/v1/"),
        (OPENAI, "https://api.openai.com."),
        ("http://127.0.0.1:80/v1", "http://127.0.0.1/other?api-version=preview"),
    ],
)
def test_key_belongs_to_an_endpoint_however_its_address_is_written(environ: dict[str, str], one: str, other: str):
    stored = store_key(find_key_folder(environ), one, KEY, use_keyring=False)
    assert find_stored_key(find_key_folder(environ), other) == stored


async def test_stored_key_is_never_sent_to_another_endpoint(environ: dict[str, str], upstream: RunningServer):
    """Another endpoint gets no request, and the error names the command that stores its key."""
    with run_emulator(time_scale=SPEED) as other:
        store_key(find_key_folder(environ), upstream.base_url, KEY, use_keyring=False)
        async with running_server({**environ, "OPENAI_BASE_URL": other.base_url}) as host:
            refusal = await host.refused("agent_start", prompt="x")
        assert refusal.startswith(f"No API key is set for {other.url}. Ask the user to run ")
        assert f"`agent-jobs key set --endpoint {other.base_url}`" in refusal
        assert other.emulator.log() == []
    async with running_server({**environ, "OPENAI_BASE_URL": upstream.base_url}) as host:
        assert (await host.end((await host.start())["job_id"]))["status"] == "completed"


async def test_server_without_a_key_uses_one_that_is_set_later(environ: dict[str, str], upstream: RunningServer):
    environ["OPENAI_BASE_URL"] = upstream.base_url
    async with running_server(environ) as host:
        refusal = await host.refused("agent_start", prompt="x")
        assert f"Ask the user to run `agent-jobs key set --endpoint {upstream.base_url}`" in refusal
        assert (await host.call("agent_list"))["jobs"] == []
        assert key(environ, "set", stdin="$KEY").exit_code == 1
        assert await host.refused("agent_start", prompt="x") == refusal
        assert key(environ, "set", stdin=KEY).exit_code == 0
        started = await host.start()
        assert (await host.end(started["job_id"]))["status"] == "completed"
        assert key(environ, "delete").exit_code == 0
        assert (await host.start())["job_id"] != started["job_id"]
    assert upstream.emulator.counters()["creates"] == 2


FAULTS = {
    "nothing": (b"", "is empty"),
    "another file": (b"[section]\nkey=1", "has no key"),
    "bytes": (b"\xff\xff", "cannot be read"),
    "a key in quotes": (f'"{KEY}"'.encode(), "has no key: it has quotes around it"),
}


@pytest.mark.parametrize(("content", "words"), FAULTS.values(), ids=FAULTS)
async def test_server_with_a_broken_key_file_names_the_fix_and_works_once_it_is_fixed(
    environ: dict[str, str], upstream: RunningServer, content: bytes, words: str
):
    environ["OPENAI_BASE_URL"] = upstream.base_url
    path = store_key(find_key_folder(environ), upstream.base_url, KEY, use_keyring=False).path
    path.write_bytes(content)
    async with running_server(environ) as host:
        refusal = await host.refused("agent_start", prompt="x")
        assert words in refusal
        assert f"Ask the user to run `agent-jobs key set --endpoint {upstream.url}`." in refusal
        assert KEY not in refusal
        assert key(environ, "set", stdin=KEY).exit_code == 0
        await host.start()
    assert KEY not in str(load_usable_settings(environ))


def test_environment_takes_precedence_over_the_env_file_and_that_over_the_stored_key(
    environ: dict[str, str], tmp_path: Path
):
    assert key(environ, "set", stdin=KEY).exit_code == 0
    env_file = tmp_path / "job.env"
    env_file.write_text("OPENAI_API_KEY=sk-proj-env-file-0123456789\n")

    def show(**more: str) -> tuple[str, str, str | None]:
        command = ["--env-file", str(env_file), "key", "show", "--json"]
        answer = json.loads(CliRunner().invoke(cli, command, env=environ | more).stdout)
        return answer["key"], answer["from"], answer.get("not_used", {}).get("key")

    assert show() == ("...6789", "env file", "...cdef")
    assert show(OPENAI_API_KEY=OTHER) == ("...wxyz", "environment", "...cdef")
    assert show(OPENAI_API_KEY=KEY) == ("...cdef", "environment", None)
    key_file = tmp_path / "key"
    key_file.write_text("sk-proj-key-file-0123456789zz99")
    assert show(AGENT_JOBS_API_KEY_FILE=str(key_file)) == ("...zz99", "key file", "...cdef")
    output = key(environ | {"OPENAI_API_KEY": OTHER}, "set", stdin=KEY).stdout
    assert "This terminal uses another key, ...wxyz: OPENAI_API_KEY in the environment takes precedence." in output
    assert "takes precedence" not in key(environ | {"OPENAI_API_KEY": KEY}, "set", stdin=KEY).stdout


def test_sentences_call_a_key_short_whose_end_is_not_shown(environ: dict[str, str]):
    short = environ | {"OPENAI_API_KEY": "sk-short"}
    output = key(short, "set", stdin=KEY).stdout
    assert "This terminal uses another key: OPENAI_API_KEY in the environment takes precedence." in output
    assert re.search(r"^key +a short key$", key(short, "show").stdout, re.M)
    assert "This terminal still uses a short key, from OPENAI_API_KEY" in key(short, "delete").stdout
    assert json.loads(key(short, "show", "--json").stdout)["key"] == "(set)"


class Keyring(ModuleType):
    """A stand-in for the optional package keyring, with the calls that its documentation describes."""

    def __init__(self, *, priority: float = 5, is_locked: bool = False) -> None:
        super().__init__("keyring")
        self.kept: dict[tuple[str, str], str] = {}
        self.priority, self.is_locked = priority, is_locked

    def get_keyring(self) -> "Keyring":
        return self

    def set_password(self, service: str, name: str, password: str) -> None:
        self._check_locked()
        self.kept[service, name] = password

    def get_password(self, service: str, name: str) -> str | None:
        self._check_locked()
        return self.kept.get((service, name))

    def delete_password(self, service: str, name: str) -> None:
        del self.kept[service, name]

    def _check_locked(self) -> None:
        if self.is_locked:
            raise RuntimeError("locked")


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyring]:
    module = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", module)
    yield module


async def test_keyring_has_the_key_where_there_is_one(
    environ: dict[str, str], keyring: Keyring, upstream: RunningServer
):
    environ["OPENAI_BASE_URL"] = upstream.base_url
    output = key(environ, "set", stdin=KEY).stdout
    assert "in the system's keyring" in output
    assert keyring.kept == {("agent-jobs", upstream.url): KEY}
    stored = find_stored_key(find_key_folder(environ), upstream.base_url)
    assert stored is not None
    assert stored.path.read_text() == "keyring:agent-jobs\n"
    assert (show_key(environ)["key"], show_key(environ)["from"]) == ("...cdef", "keyring")
    async with running_server(environ) as host:
        await host.start()
    keyring.is_locked = True
    async with running_server(environ) as host:
        refusal = await host.refused("agent_start", prompt="x")
        assert "keyring, which cannot be read from here. Ask the user to unlock it" in refusal
        assert f"`agent-jobs key set --file --endpoint {upstream.url}`" in refusal
        keyring.is_locked = False
        assert key(environ, "set", "--file", stdin=OTHER).exit_code == 0
        await host.start()
    assert keyring.kept == {}
    assert show_key(environ)["from"] == "file"


@pytest.mark.parametrize("fault", [{"priority": 0}, {"priority": 0.5}, {"is_locked": True}])
def test_missing_keyring_leaves_the_key_in_a_file(environ: dict[str, str], keyring: Keyring, fault: dict[str, Any]):
    vars(keyring).update(fault)
    assert key(environ, "set", stdin=KEY).exit_code == 0
    assert (keyring.kept, show_key(environ)["from"]) == ({}, "file")


def test_terminal_hides_the_key_and_ctrl_c_stores_nothing(tmp_path: Path):
    terminal = Terminal(OPENAI, tmp_path / "data")
    command = ["key", "set", "--endpoint", OPENAI]
    asked = terminal.show(*command, stop=lambda seen: HIDDEN_QUESTION in seen, OPENAI_API_KEY="")
    assert asked.returncode == 130
    assert "Interrupted." in asked.text
    assert not list_endpoints(str(tmp_path / ".config/agent-jobs/keys"))
    pasted = terminal.show(
        *command, stop=lambda seen: HIDDEN_QUESTION in seen, keys=f"{KEY}\n", columns=60, OPENAI_API_KEY=""
    )
    assert pasted.returncode == 0
    assert KEY not in pasted.raw
    assert "Hosts and this terminal use it from the next call on." in pasted.text
    assert list_endpoints(str(tmp_path / ".config/agent-jobs/keys")) == ["api.openai.com"]


#: The emulator refuses this key.
REFUSED = "invalid"


@pytest.fixture
def replaceable(environ: dict[str, str], upstream: RunningServer, tmp_path: Path) -> dict[str, str]:
    """Return an environment at the emulator whose key, in a file of the user, is refused."""
    (tmp_path / "key").write_text(REFUSED)
    return {**environ, "OPENAI_BASE_URL": upstream.base_url}


def put_key(environ: dict[str, str], tmp_path: Path, place: str, text: str) -> None:
    """Replace the key in the key file, or among the stored keys."""
    if place == "key file":
        (tmp_path / "key").write_text(text)
    else:
        store_key(find_key_folder(environ), environ["OPENAI_BASE_URL"], text, use_keyring=False)


@pytest.mark.parametrize("place", ["stored", "key file"])
async def test_running_server_uses_the_key_that_replaced_a_refused_one(
    replaceable: dict[str, str], upstream: RunningServer, tmp_path: Path, place: str
):
    if place == "key file":
        replaceable["AGENT_JOBS_API_KEY_FILE"] = str(tmp_path / "key")
    put_key(replaceable, tmp_path, place, REFUSED)
    async with running_server(replaceable) as host:
        first = await host.call("agent_start", prompt="One")
        failed = await host.call("agent_poll", job_id=first["job_id"], wait_s=10)
        assert failed["error"]["code"] == "invalid_api_key"
        assert "refuses this key" in await host.refused("agent_start", prompt="Two")
        put_key(replaceable, tmp_path, place, OTHER)
        second = await host.call("agent_start", prompt="Two")
        assert (await host.call("agent_poll", job_id=second["job_id"], wait_s=20))["status"] == "completed"
    assert upstream.emulator.counters()["accepted"] == 1


@pytest.mark.parametrize("place", ["stored", "key file"])
async def test_job_is_sent_with_a_key_that_was_replaced_before(
    replaceable: dict[str, str], upstream: RunningServer, tmp_path: Path, place: str
):
    if place == "key file":
        replaceable["AGENT_JOBS_API_KEY_FILE"] = str(tmp_path / "key")
    put_key(replaceable, tmp_path, place, REFUSED)
    async with running_server(replaceable) as host:
        await host.app.engine()
        put_key(replaceable, tmp_path, place, OTHER)
        started = [await host.call("agent_start", prompt=f"Task {number}") for number in range(3)]
        for job in started:
            answer = await host.call("agent_poll", job_id=job["job_id"], wait_s=20)
            assert answer["status"] == "completed"
            sent = await (await host.app.engine()).poll(job["job_id"])
            assert sent.turn.fingerprint == blake2b(OTHER.encode(), digest_size=8, salt=b"agent-jobs").hexdigest()
    assert upstream.emulator.counters()["accepted"] == 3


async def test_key_of_the_environment_is_never_replaced_by_a_stored_one(
    replaceable: dict[str, str], upstream: RunningServer, tmp_path: Path
):
    replaceable["OPENAI_API_KEY"] = REFUSED
    async with running_server(replaceable) as host:
        put_key(replaceable, tmp_path, "stored", OTHER)
        job = await host.call("agent_start", prompt="One")
        failed = await host.call("agent_poll", job_id=job["job_id"], wait_s=10)
        assert failed["error"]["code"] == "invalid_api_key"
        assert OTHER not in str(failed)
    assert upstream.emulator.counters()["accepted"] == 0
