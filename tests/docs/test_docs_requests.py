"""The statements of docs/requests.md and docs/presets.md are true."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from agent_jobs.request.body import build_body, shape_for_mode
from agent_jobs.request.hosted_tools import fill_in_secrets
from agent_jobs.request.options import OPTIONS
from agent_jobs.request.presets import Preset, load_our_presets, load_presets
from agent_jobs.settings.values import SecretStr

DOCS = Path(__file__).parents[2] / "docs"
PAGE, PRESETS = ((DOCS / name).read_text() for name in ("requests.md", "presets.md"))
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.S)]


def read_rows(heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading, each as the names in its first cell and the rest."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_makes_a_body_that_the_openai_sdk_would_send(example: dict[str, Any]) -> None:
    body = build_body(job_id="job_1", presets=load_presets(None), **example)
    adapter = TypeAdapter[Any](ResponseCreateParamsNonStreaming)
    checked = adapter.validate_python(shape_for_mode(body, "background"))
    list(checked.get("tools", ()))  # a list is checked only when it is read


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_every_option_is_in_its_table_and_no_other() -> None:
    named = [name for row in read_rows("Options") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(OPTIONS)


def test_when_to_use_each_preset_is_reported() -> None:
    assert re.findall(r"^\* \*\*`(\w+)`\*\*", PRESETS, re.M) == [*load_our_presets()]
    assert all(preset.model is None for preset in load_our_presets().values())


def test_every_key_of_a_preset_is_in_its_table() -> None:
    table = PRESETS.partition("| key | |")[2].partition("\n\n")[0]
    keys = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert sorted(keys) == sorted(field.name for field in fields(Preset))


def test_users_presets_can_be_written_as_shown(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PRESETS, re.S)
    path = tmp_path / "presets.toml"
    path.write_text(block)
    presets = load_presets(path)
    assert presets["deep_research"].model == "gpt-6.2-astra"
    assert build_body("x", job_id="job_1", preset="release_notes", presets=presets)["reasoning"] == {"effort": "medium"}


def test_secret_of_the_example_is_inserted() -> None:
    body = build_body(job_id="job_1", **EXAMPLES[-1])
    sent = fill_in_secrets(body, {"TRACKER_TOKEN": SecretStr("t")})
    assert sent["tools"][0]["headers"] == {"Authorization": "Bearer t"}
