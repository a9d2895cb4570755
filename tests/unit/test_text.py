"""Short forms of text, and the suggestion of the nearest name for every kind of misspelt name."""

import time
from collections.abc import Sequence

import pytest
from click.testing import CliRunner
from hosts import hosting

from agent_jobs.cli.main import cli
from agent_jobs.cli.times import format_local_time
from agent_jobs.cli.wording import describe_error
from agent_jobs.request.models import suggest_model
from agent_jobs.settings.settings import Settings
from agent_jobs.text import (
    ask_if_meant,
    compact_json,
    human_size,
    nearest,
    truncate,
    valid_unicode,
)
from agent_jobs.validation import choice_error


@pytest.mark.parametrize(
    ("name", "names", "meant"),
    [
        ("modle", ["mode", "model"], "model"),  # swapped letters before a shorter name
        ("QUICK", ["quick", "think"], "quick"),
        ("lm", ["roo", "lm-studio"], "lm-studio"),  # a beginning
        ("l", ["roo", "lm-studio"], None),
        ("x" * 100_000, ["roo"], None),
        ("", ["roo"], None),
        ("roo", [], None),
    ],
)
def test_nearest_name_is_the_intended_one(name: str, names: Sequence[str], meant: str | None):
    assert nearest(name, names) == meant


@pytest.mark.parametrize(
    ("given", "names", "facts"),
    [
        ("zzz", ["one", "two"], {"names": "one, two"}),
        ("zzz", [], {"names": "(none)"}),
        ("tow", ["one", "two"], {"near": "two"}),
    ],
)
def test_refusal_of_a_name_lists_all_names_if_no_name_is_near(given: str, names: list[str], facts: dict[str, str]):
    error = choice_error("{name} has no {given!r}.", "file", given, names)
    assert error.data == {"name": "file", "given": given, **facts}


def test_question_names_the_nearest_name_or_is_empty():
    assert ask_if_meant("tow", ["one", "two"]) == "Did you mean 'two'?"
    assert ask_if_meant("tow", ["one", "two"], cutoff=0.9) == ""
    assert ask_if_meant("zzz", ["one", "two"]) == ""


@pytest.mark.parametrize(
    ("text", "short"), [("", ""), ("abc", "abc"), ("abcd", "ab…"), ("\u4e2d" * 9, "\u4e2d\u4e2d…")]
)
def test_truncated_text_ends_in_an_ellipsis(text: str, short: str):
    assert truncate(text, 3) == short


def test_half_a_surrogate_pair_becomes_a_question_mark():
    assert valid_unicode("a\ud800b\U0001f600") == "a?b\U0001f600"


def test_compact_json_has_neither_blanks_nor_escaped_letters():
    assert compact_json({"a": [1, "\u00e9"], "b": None}) == '{"a":[1,"\u00e9"],"b":null}'


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20, "1.0 MiB"),
        (2**31, "2.0 GiB"),
    ],
)
def test_size_is_shown_in_the_largest_unit_that_fits(size_bytes: int, shown: str):
    assert human_size(size_bytes) == shown


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("lst", "list"),
        ("ls", "list"),
        ("Doctor", "doctor"),
        ("instal cursor", "install"),
        ("list --bacth", "--batch"),
        ("install cursor --dryrun", "--dry-run"),
        ("list --status quued", "queued"),
        ("result --part outlin job_1", "outline"),
        ("install claud", "claude-code"),
        ("install vs", "vscode"),
        ("install lmstudio", "lm-studio"),
        ("install cursor --scope projcet", "project"),
        ("uninstall claude_desktop", "claude-desktop"),
        ("completion bsh", "bash"),
    ],
)
def test_command_line_suggests_the_nearest_name(arguments: str, meant: str):
    refused = CliRunner().invoke(cli, arguments.split())
    assert refused.exit_code == 2
    assert f"Did you mean '{meant}'?" in refused.stderr


def test_command_that_resembles_none_is_refused_without_a_guess():
    refused = CliRunner().invoke(cli, ["zzzz"])
    assert refused.exit_code == 2
    assert "No such command 'zzzz'." in refused.stderr
    assert "Did you mean" not in refused.stderr


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("gpt-6.1-sool", "gpt-6.1-sol"),
        ("gpt6.1-sol", "gpt-6.1-sol"),
        ("GPT-6.1-SOL", "gpt-6.1-sol"),
        ("gpt-6.1-sol", None),
        ("llama-3.3-70b", None),
        ("gpt-none", None),
    ],
)
def test_model_that_upstream_does_not_know_is_answered_with_a_near_one(model: str, meant: str | None):
    assert suggest_model(model) == (f"Did you mean {meant!r}?" if meant else "")


async def test_job_that_names_a_misspelt_model_ends_with_the_near_one(settings: Settings):
    async with hosting(settings) as host:
        answer = await host.start(model="gpt-6.1-sool", wait_s=5)
    assert answer["error"]["message"].endswith("Did you mean 'gpt-6.1-sol'?")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AGENT_JOBS_MODLE", "AGENT_JOBS_MODEL"),
        ("AGENT_JOBS_LOGLEVEL", "AGENT_JOBS_LOG_LEVEL"),
        ("AGENT_JOBS_PRESET", "AGENT_JOBS_PRESETS"),
        ("AGENT_JOBS_OPENAI_API_KEY", "OPENAI_API_KEY"),
        ("AGENT_JOBS_API_KEY", "OPENAI_API_KEY"),
        ("AGENT_JOBS_KEY_FILE", "AGENT_JOBS_API_KEY_FILE"),
        ("AGENT_JOBS_OPENAI_BASEURL", "OPENAI_BASE_URL"),
        ("AGENT_JOBS_BASE_URL", "OPENAI_BASE_URL"),
        ("AGENT_JOBS_ORG_ID", "OPENAI_ORG_ID"),
        ("AGENT_JOB_MODEL", "AGENT_JOBS_MODEL"),
        ("agent_jobs_model", "AGENT_JOBS_MODEL"),
        ("OPENAI_APIKEY", "OPENAI_API_KEY"),
        ("OPENAI_KEY", "OPENAI_API_KEY"),
        ("OPEN_AI_API_KEY", "OPENAI_API_KEY"),
        ("OPENIA_API_KEY", "OPENAI_API_KEY"),
        ("openai_api_key", "OPENAI_API_KEY"),
        ("OPENAI_API_KEY_FILE", "AGENT_JOBS_API_KEY_FILE"),
        ("OPENAI_API_BASE", "OPENAI_BASE_URL"),
        ("OPENAI_BASEURL", "OPENAI_BASE_URL"),
    ],
)
def test_misnamed_variable_suggests_the_setting_and_hides_its_value(name: str, meant: str):
    [warning] = Settings.from_env({name: "sk-secret"}).warnings
    assert describe_error(warning) == (f"{name} is not a setting and has no effect: did you mean {meant}? Rename it.")


@pytest.mark.parametrize(
    "environ",
    [
        dict.fromkeys(["OPENAI_LOG", "OPENAI_ADMIN_KEY", "OPENAI_API_TYPE", "OPENROUTER_API_KEY", "OLLAMA_HOST"], "x"),
        {"AGENT_JOBSTATUS": "Succeeded", "AGENT_JOBNAME": "build"},  # Azure Pipelines
        {"_AGENT_JOBS_COMPLETE": "bash_complete"},
        {"OPENAI_API_KEY": "sk-1", "OPENAI_KEY": "x", "OPENAI_BASE_URL": "http://a/v1", "OPENAI_API_BASE": "http://b"},
    ],
)
def test_variables_of_other_programs_are_left_alone(environ: dict[str, str]):
    assert Settings.from_env(environ).warnings == ()


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC0", "2026-11-30 01:38:15 UTC"),
        ("CET-1", "2026-11-30 02:38:15 +01:00"),
        ("IST-5:30", "2026-11-30 07:08:15 +05:30"),
        ("NST3:30", "2026-11-29 22:08:15 -03:30"),
    ],
)
@pytest.mark.skipif(not hasattr(time, "tzset"), reason="no zone can be set")
def test_local_time_names_its_zone(monkeypatch: pytest.MonkeyPatch, zone: str, shown: str):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        local_time = format_local_time(1_796_002_695)
    time.tzset()
    assert local_time == shown


def test_token_of_a_team_server_is_no_misnamed_setting():
    assert Settings.from_env({"AGENT_JOBS_TOKEN": f"ajt_{'a' * 43}"}).warnings == ()
    assert "did you mean OPENAI_API_KEY?" in str(Settings.from_env({"AGENT_JOBS_TOKEN": "sk-secret"}).warnings[0])
