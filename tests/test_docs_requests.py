"""What docs/requests.md says is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from agent_jobs.request import build, resolved, sent_as
from agent_jobs.request.options import NAMES
from agent_jobs.request.presets import load_presets, our_presets
from agent_jobs.settings import SecretStr

PAGE = (Path(__file__).parents[1] / "docs/requests.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.S)]


def rows(heading: str) -> list[list[str]]:
    """The rows of the table below a heading, each as the names in its first cell and the rest."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_makes_a_body_that_the_openai_sdk_would_send(example: dict[str, Any]) -> None:
    body = build(job_id="job_1", **example)
    adapter = TypeAdapter[Any](ResponseCreateParamsNonStreaming)
    checked = adapter.validate_python(sent_as(body, "background"))
    list(checked.get("tools", ()))  # checked only as they are read


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_every_preset_and_every_option_stands_in_its_table_and_no_other() -> None:
    assert [row[0].strip("`") for row in rows("Presets")[: len(our_presets())]] == [*our_presets()]
    named = [name for row in rows("Options") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(NAMES)


def test_the_users_presets_can_be_written_as_shown(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    path = tmp_path / "presets.toml"
    path.write_text(block)
    presets = load_presets(path)
    assert presets["deep_research"].model == "gpt-6.2-astra"
    assert build("x", job_id="job_1", preset="release_notes", presets=presets)["reasoning"] == {"effort": "medium"}


def test_the_secret_of_the_example_is_put_in() -> None:
    body = build(job_id="job_1", **EXAMPLES[-1])
    sent = resolved(body, {"TRACKER_TOKEN": SecretStr("t")})
    assert sent["tools"][0]["headers"] == {"Authorization": "Bearer t"}
