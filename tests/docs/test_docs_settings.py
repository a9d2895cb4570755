"""The descriptions of the settings are the same everywhere, and true."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent_jobs.cli.main import cli
from agent_jobs.errors import ConfigError
from agent_jobs.mcp_server.wait_limits import SDK_WAIT_CAP_S, WAIT_CAP_S, WAIT_CAPS_S
from agent_jobs.settings.settings import VARIABLES, Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))
#: A value that is refused by every variable that does not accept every text.
NONSENSE = "no such thing"


def collect_refusals() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in VARIABLES:
        try:
            Settings.from_env({name: NONSENSE})
        except ConfigError as error:
            found[name] = str(error)
    return found


def test_every_field_has_a_variable_and_every_variable_a_field():
    named = [variable.field for variable in VARIABLES.values()]
    assert sorted(named) == sorted({field.name for field in fields(Settings)} - {"warnings", "stored_key"})


def test_example_to_copy_sets_the_defaults():
    assert EXAMPLE.keys() == VARIABLES.keys()
    assert Settings.from_env(EXAMPLE) == Settings()


@pytest.mark.parametrize(("name", "refusal"), [*collect_refusals().items()])
def test_accepted_values_of_a_variable_are_those_of_its_refusal(name: str, refusal: str):
    assert refusal.startswith(f"{name} accepts {VARIABLES[name].accepts}")


def test_most_variables_refuse_something():
    assert len(collect_refusals()) >= 17


def test_waits_that_are_reported_are_those_that_hosts_get():
    waits = re.findall(r"(\d+) s\b", VARIABLES["AGENT_JOBS_MAX_WAIT_S"].about)
    assert {*map(float, waits)} - {60.0} == {SDK_WAIT_CAP_S, WAIT_CAP_S, *WAIT_CAPS_S.values()}


def test_config_prints_the_descriptions_of_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AGENT_JOBS_DATA_DIR", str(tmp_path))
    rows = json.loads(CliRunner().invoke(cli, ["config", "--explain", "--json"]).stdout)["settings"]
    page = (ROOT / "docs/settings.md").read_text().replace("`", "")
    for name, row in rows.items():
        assert f"| {name} |" in page
        assert row["about"].replace("'", "") in page.replace("'", "")
    shown = " ".join(CliRunner().invoke(cli, ["config", "--explain"]).stdout.split())
    assert all(row["about"] in shown for row in rows.values())
