"""Presets: those of the program, and those of the user's own file."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from agent_jobs.errors import ConfigError
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.request.body import build_body
from agent_jobs.request.presets import Preset, load_our_presets, load_presets

OWN = """
[deep_research]
model = "gpt-6.2-astra"

[deep_research.options]
reasoning_summary = "concise"
max_tool_calls = 40

[notes-2]
description = "Release notes"
web_search = false
effort = "medium"
options = { verbosity = "low", metadata = { team = "a" } }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "presets.toml"


def test_built_in_presets_exist_without_a_file():
    presets = load_presets(None)
    assert [*presets] == ["deep_research", "think", "review", "quick"]
    assert presets is load_our_presets()


@pytest.mark.parametrize("name", load_our_presets())
def test_each_built_in_preset_has_a_description_and_a_prompt(name: str):
    preset = load_our_presets()[name]
    assert 0 < len(preset.description) <= 80
    assert "\n" not in preset.description
    asked = preset.fill_in_task("Why {is} the {task}?")
    assert f'preset="{name}"' in asked
    assert asked.endswith("\n\nWhy {is} the {task}?")
    assert preset.model is None


def test_file_of_the_user_adds_presets_and_changes_built_in_ones(file: Path):
    file.write_text(OWN)
    presets, ours = load_presets(file), load_our_presets()["deep_research"]
    assert [*presets] == [*load_our_presets(), "notes-2"]
    assert presets["think"] == load_our_presets()["think"]
    changed = presets["deep_research"]
    assert (changed.model, changed.effort, changed.web_search) == ("gpt-6.2-astra", ours.effort, True)
    assert (changed.description, changed.prompt) == (ours.description, ours.prompt)
    assert changed.options == {**ours.options, "reasoning_summary": "concise", "max_tool_calls": 40}
    body = build_body("x", job_id="job_1", preset="notes-2", presets=presets)
    assert (body["reasoning"], body["text"]) == ({"effort": "medium"}, {"verbosity": "low"})
    assert body["metadata"] == {"team": "a", "job_id": "job_1"}


def test_preset_without_a_prompt_gets_one(file: Path):
    file.write_text('[own]\ndescription = "Mine"')
    asked = load_presets(file)["own"].fill_in_task("Do it.")
    assert 'agent_start with preset="own"' in asked
    assert asked.endswith("Do it.")


def test_empty_file_changes_nothing(file: Path):
    file.write_text("# later\n")
    assert load_presets(file) == load_our_presets()


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("[own", "is not TOML"),
        ("own = 1", "[own] a preset is a table"),
        ("[Own]\ndescription = 'x'", "[Own] a preset's name accepts"),
        ("['a b']\ndescription = 'x'", "[a b] a preset's name accepts"),
        ("[own]\neffort = 'low'", "[own] description is missing"),
        ("[own]\ndescription = ''", "[own] description accepts a non-empty string, not"),
        ("[think]\nefort = 'low'", "[think] a preset does not accept 'efort'. Ask the user to write 'effort'."),
        ("[think]\neffort = 'hihg'", "[think] effort does not accept 'hihg'. Ask the user to write 'high'."),
        ("[think]\nmodel = 6", "[think] model accepts a non-empty string, not"),
        ("[think]\nweb_search = 'yes'", "[think] web_search accepts true or false, not"),
        ("[think]\nprompt = 'Think.'", "[think] prompt lacks {task}"),
        ("[think]\noptions = 'low'", "[think] options accepts an object"),
        (
            "[think.options]\nverbosty = 'low'",
            "[think] options does not accept 'verbosty'. Ask the user to write 'verbosity'.",
        ),
        ("[think.options]\nmax_output_tokens = 3", "[think] options.max_output_tokens accepts a whole number"),
        (
            "[think.options]\ntools = [{ type = 'mcp' }]",
            "options.tools mcp.server_label accepts a non-empty string, not",
        ),
        ("[think.options]\ntools = [{ type = 'later', on = 2026-11-20 }]", "[think] options contain a value that JSON"),
        ("[think.options]\ntools = [{ type = 'later', n = inf }]", "[think] options contain a value that JSON"),
        ("[think.options]\nmetadata = { on = 2026-11-20 }", "[think] options.metadata accepts"),
        ("[think.options]\nkey = 'one'", "[think] options.key belongs to one job"),
        ("[think.options]\ntimeout_s = 0", "[think] options.timeout_s accepts a number"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_its_path_and_the_key(file: Path, written: str, hint: str):
    file.write_text(written)
    with pytest.raises(ConfigError) as refusal:
        load_presets(file)
    assert MODEL.describe(refusal.value).startswith(f"AGENT_JOBS_PRESETS: {file}")
    assert hint in MODEL.describe(refusal.value)


def test_file_that_does_not_exist_or_is_no_text_is_refused_with_its_path(file: Path, tmp_path: Path):
    for path, hint in ((file, "No such file"), (tmp_path, "s a directory")):
        with pytest.raises(ConfigError, match=hint) as refusal:
            load_presets(path)
        assert str(path) in MODEL.describe(refusal.value)
    file.write_bytes(b"\xff\xfe[own]")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_presets(file)


def test_presets_do_not_change():
    preset = load_our_presets()["think"]
    with pytest.raises(FrozenInstanceError):
        preset.effort = "low"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        preset.options["verbosity"] = "high"  # pyright: ignore[reportIndexIssue]
    with pytest.raises(TypeError):
        load_our_presets()["own"] = Preset(description="", prompt="")  # pyright: ignore[reportIndexIssue]
