"""The values that a variable of the environment may have, and the refusals of unusable ones."""

import os
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, get_args

import pytest
from hosts import hosting
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs.cli.wording import describe_error
from agent_jobs.emulator.server import RunningServer
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.job import Mode
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.settings.env_file import add_env_file
from agent_jobs.settings.settings import AUTH_STYLES, DEFAULT_BASE_URL, LOG_LEVELS, SendingMode, Settings
from agent_jobs.settings.values import SecretStr

SECRET = "sk-proj-very-secret"


def test_sending_mode_is_auto_or_a_mode_of_jobs():
    assert get_args(SendingMode) == ("auto", *get_args(Mode))


def test_empty_environment_is_enough():
    assert Settings.from_env({}) == Settings()
    assert Settings().base_url == DEFAULT_BASE_URL
    assert Settings().api_key is None


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("OPENAI_BASE_URL", "http://localhost:8080/v1/", "base_url", "http://localhost:8080/v1/"),
        ("OPENAI_BASE_URL", "https://[::1]:8443/v1", "base_url", "https://[::1]:8443/v1"),
        ("OPENAI_BASE_URL", "HTTPS://Example.com", "base_url", "HTTPS://Example.com"),
        ("OPENAI_BASE_URL", "https://r.openai.azure.com/openai/v1?api-version=preview", "base_url",
         "https://r.openai.azure.com/openai/v1?api-version=preview"),
        ("OPENAI_ORG_ID", "org-1", "organization", "org-1"),
        ("OPENAI_PROJECT_ID", "proj_1", "project", "proj_1"),
        ("AGENT_JOBS_AUTH", "api-key", "auth", "api-key"),
        ("AGENT_JOBS_AUTH", "Bearer", "auth", "bearer"),
        ("AGENT_JOBS_MODEL", "gpt-x", "model", "gpt-x"),
        ("AGENT_JOBS_PRESETS", "~/presets.toml", "presets", Path.home() / "presets.toml"),
        ("AGENT_JOBS_SECRETS", "GONE, _2,", "secrets", {"GONE": SecretStr(""), "_2": SecretStr("")}),
        ("AGENT_JOBS_DATA_DIR", "/tmp/jobs", "data_dir", Path("/tmp/jobs")),
        ("AGENT_JOBS_DATA_DIR", "~/jobs", "data_dir", Path.home() / "jobs"),
        ("AGENT_JOBS_FILE_ROOTS", "/", "file_roots", (Path("/"),)),
        ("AGENT_JOBS_FILE_ROOTS", f"~{os.pathsep} / {os.pathsep}{os.pathsep}/", "file_roots", (Path.home(), Path("/"))),
        ("AGENT_JOBS_MAX_WAIT_S", "1", "max_wait_s", 1.0),
        ("AGENT_JOBS_MAX_WAIT_S", "3600", "max_wait_s", 3600.0),
        ("AGENT_JOBS_MAX_WAIT_S", "55.5", "max_wait_s", 55.5),
        ("AGENT_JOBS_START_TIMEOUT_S", "900", "start_timeout_s", 900.0),
        *(("AGENT_JOBS_STRUCTURED", text, "structured", True) for text in ("1", "yes", "On", "TRUE")),
        *(("AGENT_JOBS_STRUCTURED", text, "structured", False) for text in ("0", "no", "Off", "FALSE")),
        ("AGENT_JOBS_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("AGENT_JOBS_FOLLOW", "never", "follow", 0),
        ("AGENT_JOBS_FOLLOW", "Auto", "follow", Settings().follow),
        ("AGENT_JOBS_FOLLOW", "0", "follow", 0),
        ("AGENT_JOBS_FOLLOW", "12", "follow", 12),
        ("AGENT_JOBS_TOOLBOX", "~/tools.json", "toolbox", Path.home() / "tools.json"),
        ("AGENT_JOBS_TOOL_CONCURRENCY", "1", "tool_concurrency", 1),
        ("AGENT_JOBS_ON_FINISH", "sh -c 'echo \"a b\"' x", "on_finish", ("sh", "-c", 'echo "a b"', "x")),
        ("AGENT_JOBS_PRICES", "~/prices.toml", "prices", Path.home() / "prices.toml"),
        ("AGENT_JOBS_DAILY_BUDGET_USD", "20", "daily_budget_usd", 20.0),
        ("AGENT_JOBS_DAILY_BUDGET_USD", "0.5", "daily_budget_usd", 0.5),
    ],
)  # fmt: skip
def test_each_variable_sets_one_thing(name: str, text: str, field: str, value: Any):
    for written in (text, f"  {text}\n"):
        settings = Settings.from_env({name: written, "UNRELATED": "x"})
        assert getattr(settings, field) == value
        others = [other for other in Settings.__slots__ if other != field]
        assert [getattr(settings, other) for other in others] == [getattr(Settings(), other) for other in others]


NAMES = [
    "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "AGENT_JOBS_AUTH", "AGENT_JOBS_MODEL",
    "AGENT_JOBS_DATA_DIR", "AGENT_JOBS_MAX_WAIT_S", "AGENT_JOBS_START_TIMEOUT_S", "AGENT_JOBS_LOG_LEVEL",
    "AGENT_JOBS_FOLLOW", "AGENT_JOBS_PRICES", "AGENT_JOBS_DAILY_BUDGET_USD", "AGENT_JOBS_PRESETS", "AGENT_JOBS_SECRETS",
    "AGENT_JOBS_FILE_ROOTS", "AGENT_JOBS_TOOLBOX", "AGENT_JOBS_TOOL_CONCURRENCY", "AGENT_JOBS_API_KEY_FILE",
    "AGENT_JOBS_ON_FINISH",
]  # fmt: skip


@pytest.mark.parametrize("empty", ["", "   ", "\t\n"])
def test_variable_that_is_set_to_nothing_counts_as_not_set(empty: str):
    assert Settings.from_env(dict.fromkeys(NAMES, empty)) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        *(("OPENAI_BASE_URL", url, DEFAULT_BASE_URL) for url in (
            "api.openai.com/v1", "ftp://api.openai.com", "https://", "https://:443/v1", "https:///v1", "/v1", "v1",
            "https://host:99999/v1", "https://host:0/v1", "https://host:port/v1", "https://[::1/v1", "mailto:a@b.c",
        )),
        *(("AGENT_JOBS_AUTH", text, ", ".join(AUTH_STYLES)) for text in ("basic", "api_key", "none")),
        *(("AGENT_JOBS_LOG_LEVEL", text, ", ".join(LOG_LEVELS)) for text in ("loud", "0")),
        *(("AGENT_JOBS_STRUCTURED", text, "one of 0, 1") for text in ("2", "01", "-1", "text", "structuredContent")),
        *(("AGENT_JOBS_MAX_WAIT_S", text, "1 to 3600") for text in (
            "0", "0.5", "-1", "3600.1", "nan", "inf", "-inf", "soon", "1 s", "1,5", "0x10",
        )),
        *(("AGENT_JOBS_START_TIMEOUT_S", text, "1 to 900") for text in ("0", "901", "nan", "two")),
        *(("AGENT_JOBS_FOLLOW", text, "auto, never") for text in ("all", "-1", "1.5", "2 streams", "²", "9" * 5000)),
        *(("AGENT_JOBS_DAILY_BUDGET_USD", text, "above 0") for text in (
            "0", "-1", "nan", "inf", "$20", "20 USD", "1,5",
        )),
        *(("AGENT_JOBS_SECRETS", text, "never their values") for text in ("1A", "A B", "A;B", "$A", "A=b", "\u00c4")),
        ("AGENT_JOBS_PRESETS", "~nobody-of-this-name/presets.toml", "full path"),
        ("AGENT_JOBS_DATA_DIR", "~nobody-of-this-name/jobs", ""),
        *((name, text, "starts with / or ~") for name in ("AGENT_JOBS_DATA_DIR", "AGENT_JOBS_RESULT_DIR") for text in (
            "jobs", "./jobs", "../jobs", ".", "$HOME/jobs", "%APPDATA%/jobs", '"/tmp/jobs"', "tmp/~",
        )),
        ("AGENT_JOBS_PRICES", "~nobody-of-this-name/prices.toml", ""),
        ("AGENT_JOBS_TOOLBOX", "~nobody-of-this-name/tools.json", "full path"),
        *(("AGENT_JOBS_TOOL_CONCURRENCY", text, "1 to 9999") for text in ("0", "-1", "many", "1.5")),
        ("AGENT_JOBS_FILE_ROOTS", "~nobody-of-this-name/jobs", ""),
        ("AGENT_JOBS_FILE_ROOTS", os.pathsep, "absolute folders"),
        *(("AGENT_JOBS_SECRETS", text, "never their values") for text in (",", " , ,")),
        *(("AGENT_JOBS_TOOLBOX_OWNERS", text, "names of owners") for text in (",", " , ,", "a\x07")),
        *(("AGENT_JOBS_CALLBACK_HOSTS", text, "1 to 65535") for text in ("a:0", "a:99999", "b,a:65536", "[::1]:00000")),
        *(("AGENT_JOBS_CALLBACK_HOSTS", text, "no https://") for text in (",", "a:", "a:-1", "a:123456", "a,,b")),
        *(("AGENT_JOBS_OWNER_KEYS_DIR", text, "no folder") for text in ("/no/such/keys", "/dev/null", "keys")),
        *(("AGENT_JOBS_FILE_ROOTS", text, "absolute") for text in ("src", "./src", "..", f"/{os.pathsep}src")),
        *(("AGENT_JOBS_FILE_ROOTS", text, "exist") for text in (
            "/no/such/folder", __file__, "/dev/null", "/\0", "/" + "x" * 5000, f"/{os.pathsep}/no/such/folder",
        )),
    ],
)  # fmt: skip
def test_unusable_value_is_refused_by_its_name_with_the_accepted_ones(name: str, text: str, hint: str):
    with pytest.raises(ConfigError) as refusal:
        Settings.from_env({name: text})
    assert name in str(refusal.value)
    assert hint in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("notify 'me", "quotes"),
        ("''", "first word"),
        ("no-such-program --secret", "first word"),
        ("/no/such/program", "first word"),
        ("/tmp", "first word"),
        ("~nobody-of-this-name/notify", "starts with / or ~"),
        ("./notify", "starts with / or ~"),
        ("https://chat.example/hooks/t0ken", "starts with / or ~"),
    ],
)
def test_command_that_cannot_be_run_is_reported_and_stops_nothing(text: str, hint: str):
    settings = Settings.from_env({"AGENT_JOBS_ON_FINISH": text})
    assert settings.on_finish == ()
    [warning] = map(describe_error, settings.warnings)
    assert warning.startswith("AGENT_JOBS_ON_FINISH is not run because")
    assert hint in warning
    assert "secret" not in warning
    assert "t0ken" not in warning


@pytest.mark.parametrize("key", ["sk-caf\u00e9", "sk-\u200bpasted", "\ufeffsk-1", "sk-1\nsk-2", "sk-\x00", "sk-\udcff"])
@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_text_that_a_header_cannot_carry_is_refused_by_name_and_never_echoed(name: str, key: str):
    """The HTTP client could not be opened with such a value, and its own error names no setting."""
    with pytest.raises(ConfigError) as refusal:
        Settings.from_env({name: key})
    assert name in str(refusal.value)
    assert key not in str(refusal.value)


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_BASE_URL",
        "AGENT_JOBS_AUTH",
        "AGENT_JOBS_LOG_LEVEL",
        "AGENT_JOBS_MAX_WAIT_S",
        "AGENT_JOBS_DAILY_BUDGET_USD",
        "AGENT_JOBS_SECRETS",
        "AGENT_JOBS_FILE_ROOTS",
    ],
)
def test_secret_in_the_wrong_variable_is_not_echoed(name: str):
    with pytest.raises(ConfigError) as refusal:
        Settings.from_env({name: SECRET})
    assert SECRET not in str(refusal.value)


def test_key_is_shown_only_on_request():
    settings = Settings.from_env({"OPENAI_API_KEY": f" {SECRET}\n"})
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == SECRET
    assert SECRET not in f"{settings} {settings!r} {settings.api_key}"


def test_secrets_that_the_user_names_are_read_and_shown_only_on_request():
    settings = Settings.from_env({"AGENT_JOBS_SECRETS": "TOKEN,GONE", "TOKEN": f" {SECRET} ", "OTHER": "x"})
    assert {name: secret.get_secret_value() for name, secret in settings.secrets.items()} == {
        "TOKEN": SECRET,
        "GONE": "",
    }
    assert SECRET not in f"{settings} {settings!r}"


def test_secret_that_no_header_can_carry_is_refused_by_its_name():
    with pytest.raises(ConfigError, match="TOKEN") as refusal:
        Settings.from_env({"AGENT_JOBS_SECRETS": "TOKEN", "TOKEN": "caf\u00e9"})
    assert "caf" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AGENT_JOBS_LOGLEVEL", "did you mean AGENT_JOBS_LOG_LEVEL?"),
        ("AGENT_JOBS_MAX_CONCURENT", "did you mean AGENT_JOBS_MAX_CONCURRENT?"),
        ("AGENT_JOBS_ZZZZZZZZZZZZZZZZZZ", "Remove it."),
        ("AGENT_JOBS_X", "Remove it."),
    ],
)
def test_misspelt_variable_stops_nothing_and_is_reported_with_the_nearest(name: str, hint: str):
    settings = Settings.from_env({name: SECRET, "AGENT_JOBS_MODEL": "gpt-x"})
    assert settings.model == "gpt-x"
    [warning] = map(describe_error, settings.warnings)
    assert warning.startswith(f"{name} is not a setting")
    assert hint in warning
    assert SECRET not in warning


def test_result_folder_that_cannot_be_written_is_reported_and_one_that_can_be_made_is_not(tmp_path: Path):
    (tmp_path / "file").touch()
    [warning] = Settings.from_env({"AGENT_JOBS_RESULT_DIR": str(tmp_path / "file" / "out")}).warnings
    step = f"make {tmp_path / 'file'} a writable folder."
    assert MODEL.describe(warning).endswith(f"cannot be written to. Ask the user to {step}")
    assert describe_error(warning).endswith(f"cannot be written to. M{step[1:]}")
    assert Settings.from_env({"AGENT_JOBS_RESULT_DIR": str(tmp_path / "new" / "out")}).warnings == ()


def test_variable_with_the_name_of_a_word_in_a_refusal_is_no_mistake():
    settings, refused = Settings.from_env_leniently(
        {"AGENT_JOBS_SECRETS": "takes", "takes": "t", "AGENT_JOBS_FOLLOW": "all"}
    )
    assert len(refused) == 1
    assert settings == Settings(secrets={"takes": SecretStr("t")})


def test_settings_without_mistakes_are_in_force():
    environ = {"AGENT_JOBS_FOLLOW": "all", "AGENT_JOBS_AUTH": "none", "AGENT_JOBS_MODEL": "gpt-x"}
    settings, refused = Settings.from_env_leniently({**environ, "AGENT_JOBS_SECRETS": "T", "T": "\u00e9"})
    assert [sentence.split()[0] for sentence in refused] == ["AGENT_JOBS_AUTH", "T", "AGENT_JOBS_FOLLOW"]
    assert settings == Settings(model="gpt-x", secrets={"T": SecretStr("")})


def test_settings_do_not_change():
    settings = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.model = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_user_data_folder_is_used_without_a_setting():
    assert Settings(data_dir=Path("/somewhere")).data_path() == Path("/somewhere")
    own = Settings().data_path()
    assert own.is_absolute()
    assert own.name == "agent-jobs"


@given(st.dictionaries(st.sampled_from(NAMES), st.text()))
def test_any_environment_is_read_or_refused(environ: Mapping[str, str]):
    before = dict(environ)
    try:
        Settings.from_env(environ)
    except ConfigError as refusal:
        assert any(name in str(refusal) for name in NAMES)
    assert environ == before


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    file = folder / "openai-key"
    file.write_bytes(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("content", [b"sk-file", b"  sk-file \nsk-older\n", b"\xef\xbb\xbfsk-file\r\n"])
def test_key_comes_from_the_first_line_of_a_file_before_it_comes_from_the_environment(tmp_path: Path, content: bytes):
    file = key_file(tmp_path, content, mode=0o644)
    settings = Settings.from_env({"AGENT_JOBS_API_KEY_FILE": str(file), "OPENAI_API_KEY": "sk-other"})
    assert settings.api_key == SecretStr("sk-file")
    assert settings.api_key_file == file
    assert "sk-file" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "first line is empty"),
        (b"\nsk-second-line", "first line is empty"),
        (b"\xff\xfesk", "it is not text"),
        ("sk-caf\u00e9".encode(), "no header can carry"),
    ],
)
def test_key_file_without_a_key_is_refused_by_its_name_and_never_echoed(tmp_path: Path, content: bytes, hint: str):
    with pytest.raises(ConfigError, match=hint) as refusal:
        Settings.from_env({"AGENT_JOBS_API_KEY_FILE": str(key_file(tmp_path, content))})
    assert "AGENT_JOBS_API_KEY_FILE" in str(refusal.value)
    assert "sk-" not in str(refusal.value)


@pytest.mark.parametrize("path", ["/no/such/key", "/", "keys/openai", "~nobody-of-this-name/key", "/\0"])
def test_key_file_that_cannot_be_read_is_refused_by_its_name(path: str):
    with pytest.raises(ConfigError, match="AGENT_JOBS_API_KEY_FILE"):
        Settings.from_env({"AGENT_JOBS_API_KEY_FILE": path, "OPENAI_API_KEY": SECRET})


@pytest.mark.parametrize("reference", [
    "${OPENAI_API_KEY:-}", "${env:OPENAI_API_KEY}", "${user_config.openai_api_key}", "$SECRET", "$env:SECRET",
    "%SECRET%", "${input:SECRET}", "{{ SECRET }}", "{env:SECRET}", "$(cat SECRET)", '"$SECRET"', "Bearer ${SECRET}",
    "sk-${SECRET}", "undefined",
])  # fmt: skip
def test_reference_that_the_host_left_as_it_was_counts_as_no_key_and_is_named(reference: str, tmp_path: Path):
    settings = Settings.from_env({"OPENAI_API_KEY": reference})
    assert settings.api_key is None
    [warning] = map(describe_error, settings.warnings)
    assert warning.startswith("OPENAI_API_KEY is still a reference that the host did not fill in")
    assert "SECRET" not in warning
    by_file = {"OPENAI_API_KEY": reference, "AGENT_JOBS_API_KEY_FILE": str(key_file(tmp_path, b"sk-file"))}
    assert Settings.from_env(by_file).api_key == SecretStr("sk-file")


def test_field_of_a_bundle_that_was_left_empty_counts_as_not_set():
    """Claude Desktop passes on the placeholder of an empty optional field (linkedin-mcp-server#678)."""
    assert Settings.from_env({name: " ${user_config.x} " for name in NAMES if name != "OPENAI_API_KEY"}) == Settings()


def test_env_file_adds_only_unset_variables(tmp_path: Path):
    file = tmp_path / "my.env"
    file.write_bytes(
        b"\xef\xbb\xbf# a comment\r\n\r\n  # another\r\nOPENAI_API_KEY=sk-file\r\nexport A = 1 2 # 3 \nB='x \"y\"'\n"
        b'C="a=b"\nD=\nE="\nF=\'a" \nSET=file\nEMPTY=file\nTWICE=1\nTWICE=2\n'
    )
    environ = {"SET": "environment", "EMPTY": " ", "OTHER": "x"}
    assert add_env_file(environ, str(file)) == {
        "OPENAI_API_KEY": "sk-file",
        "A": "1 2 # 3",
        "B": 'x "y"',
        "C": "a=b",
        "D": "",
        "E": '"',
        "F": "'a\"",
        "SET": "environment",
        "EMPTY": "file",
        "TWICE": "2",
        "OTHER": "x",
    }
    assert environ == {"SET": "environment", "EMPTY": " ", "OTHER": "x"}


@pytest.mark.parametrize(
    "line", ["OPENAI_API_KEY sk-secret", "=sk-secret", "1A=sk-secret", "A-B=sk-secret", "A=\0sk-secret"]
)
def test_line_of_an_env_file_that_is_something_else_is_refused_by_its_number_and_never_echoed(
    tmp_path: Path, line: str
):
    file = tmp_path / "my.env"
    file.write_text(f"# mine\n{line}\n")
    with pytest.raises(ConfigError, match="Line 2") as refusal:
        add_env_file({}, str(file))
    assert "sk-secret" not in str(refusal.value)


def test_env_file_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "gone", tmp_path, tmp_path / "binary"):
        with pytest.raises(ConfigError, match="--env-file"):
            add_env_file({}, str(path))


#: Texts that are no key, with the words by which a refusal names them.
NOT_KEYS = [
    *((text, "has quotes around it") for text in (
        '"sk-secret"', "'sk-secret", 'sk-secret"', "`sk-secret`", '"sk-secret",',
    )),
    *((text, "typographic quotes") for text in ("\u201csk-secret\u201d", "\u2018sk-secret", "\u00absk-secret\u00bb")),
    *((text, "invisible character") for text in ("\u200bsk-secret", "sk-secret\u2060", "sk-\u00adsecret")),
    *((text, "not the '-' of the keyboard") for text in ("sk\u2011secret", "sk\u2013secret")),
    *((text, "a space or a line break") for text in ("sk-sec ret", "sk-sec\tret", "sk-proj-secret sk-secret")),
    *((text, "'Bearer'") for text in (
        "Bearer sk-secret", "bearer:sk-secret", "Authorization: Bearer sk-secret", "authorization: sk-secret",
    )),
    *((text, "NAME=value") for text in (
        "OPENAI_API_KEY=sk-secret", "export OPENAI_API_KEY = 'sk-secret'", "set OPENAI_API_KEY=sk-secret",
        '$env:OPENAI_API_KEY="sk-secret"', "- OPENAI_API_KEY=sk-secret", "key=sk-secret", "OPENAI_API_KEY: sk-secret",
        "x-api-key:sk-secret", '"OPENAI_API_KEY": "sk-secret"', "--api-key sk-secret", "OPENAI_API_KEY=",
    )),
    *((text, "placeholder") for text in (
        "sk-...", "sk-\u2026", "sk-xxxx", "sk-proj-XXXXXXXX", "****", "<your secret key>", "[YOUR KEY]", "your-api-key",
        "YOUR_OPENAI_API_KEY_HERE", "sk-your-key", "changeme", "CHANGE_ME", "replace-with-your-key", "OPENAI_API_KEY",
        "insert your key here", "sk-",
    )),
    *((text, "shortened") for text in ("sk-...cret", "sk-se****et")),
    *((text, "is a comment") for text in ("# the secret key", "// secret", "; secret", "#!/bin/secret")),
    *((text, "another file") for text in ("{", '{"key": "sk-secret"}', "-----BEGIN SECRET KEY-----")),
    ("op://vault/secret/key", "is an address"),
    ("~/.secret/key", "is a path"),
    ("sk-secret,", "a comma"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), NOT_KEYS)
def test_text_that_is_no_key_is_refused_by_its_kind_and_never_echoed(text: str, words: str, tmp_path: Path):
    file = key_file(tmp_path, f"{text}\nsk-secret\n".encode())
    for name, value in (("OPENAI_API_KEY", text), ("AGENT_JOBS_API_KEY_FILE", str(file))):
        with pytest.raises(ConfigError, match=name) as refusal:
            Settings.from_env({name: f" {value}\n"})
        assert words in str(refusal.value)
        assert "secret" not in str(refusal.value).lower()


def test_key_of_several_lines_is_refused_as_such():
    for key in ("sk-secret\nsk-secret", "sk-sec\r\nret"):
        with pytest.raises(ConfigError, match="line break"):
            Settings.from_env({"OPENAI_API_KEY": key})


@pytest.mark.parametrize("text", ["$SECRET", "${env:SECRET}", "%SECRET%", "sk-" + "secret" * 2000])
def test_key_file_without_the_key_itself_is_refused(text: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="Put the key") as refusal:
        Settings.from_env({"AGENT_JOBS_API_KEY_FILE": str(key_file(tmp_path, text.encode()))})
    assert "secret" not in str(refusal.value).lower()


@pytest.mark.parametrize("key", [
    "sk-1", "sk-proj-A_b-C", "ollama", "EMPTY", "none", "dummy", "x", "not-needed", "lm-studio", "aGVs_bG8=", "a_B==",
    "a.b.c", "id:secret", "/aB+c/d==", "pa$$word", "my-secret-key", "yourcompany-llm", "sk-change-of-plan",
])  # fmt: skip
def test_key_of_any_other_form_is_used_unchanged(key: str, tmp_path: Path):
    assert Settings.from_env({"OPENAI_API_KEY": f"\u00a0 {key} \n"}).api_key == SecretStr(key)
    assert Settings.from_env({"AGENT_JOBS_API_KEY_FILE": str(key_file(tmp_path, key.encode()))}).api_key == SecretStr(
        key
    )


async def test_unfilled_key_is_named_by_the_tools_and_jobs_can_be_read(settings: Settings, upstream: RunningServer):
    unfilled = Settings.from_env({
        "OPENAI_API_KEY": "$OPENAI_API_KEY", "OPENAI_BASE_URL": settings.base_url,
        "AGENT_JOBS_DATA_DIR": str(settings.data_dir),
    })  # fmt: skip
    async with hosting(unfilled) as host:
        refusal = await host.refused("agent_start", prompt="x")
        listed = await host.call("agent_list")
    assert refusal.startswith("No API key is set")
    assert "OPENAI_API_KEY is still a reference" in refusal
    assert listed["jobs"] == []
    assert upstream.emulator.counters()["creates"] == 0


@pytest.mark.parametrize(
    ("url", "corrected"),
    [
        ("https://api.openai.com/v1/responses", "https://api.openai.com/v1"),
        ("https://host.example/v1/responses/", "https://host.example/v1"),
        ("https://host.example/v1/Chat/Completions", "https://host.example/v1"),
        ("https://host.example/v1/completions", "https://host.example/v1"),
        ("https://host.example/v1/models//", "https://host.example/v1"),
        ("https://host.example/v1/embeddings", "https://host.example/v1"),
        ("https://host.example/v1/responses/resp_123", "https://host.example/v1"),
        ("https://host.example/responses", "https://host.example"),
        ("http://[::1]:8080/v1/responses#fragment", "http://[::1]:8080/v1"),
        ("https://host.example/v1/responses?api-version=preview&sig=secret",
         "https://host.example/v1?api-version=preview&sig=..."),
        ("https://r.openai.azure.com/openai/deployments/mine/chat/completions?api-version=2024-10-21",
         "https://r.openai.azure.com/openai/v1"),
    ],
)  # fmt: skip
def test_address_of_an_endpoint_is_refused_with_the_address_of_its_api(url: str, corrected: str):
    with pytest.raises(ConfigError, match=r"OPENAI_BASE_URL ends in /.*: remove it") as refusal:
        Settings.from_env({"OPENAI_BASE_URL": url})
    assert str(refusal.value).endswith(f" {corrected}.")
    Settings.from_env({"OPENAI_BASE_URL": corrected})


@pytest.mark.parametrize(
    "path", ["", "/", "/responses/v1", "/v1/models/mine/v1", "/inference", "/my-responses", "/v1beta/openai/"]
)
def test_address_that_only_resembles_an_endpoint_is_accepted(path: str):
    url = f"https://host.example{path}"
    assert Settings.from_env({"OPENAI_BASE_URL": url}).base_url == url
