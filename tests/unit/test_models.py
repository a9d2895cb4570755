"""The facts about models that need no request: which were shut down, and which arguments the others refuse."""

import re
from pathlib import Path
from typing import Any

import pytest

from agent_jobs.errors import RequestError
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.request.body import build_body
from agent_jobs.request.models import check_model, describe_retirement, load_models
from agent_jobs.request.presets import EFFORTS, load_our_presets

ROOT = Path(__file__).parents[2]
GONE = [(name, row) for row in load_models()["retired"] if row["on"] <= load_models()["as_of"] for name in row["names"]]
LEAVING = [
    (name, row) for row in load_models()["retired"] if row["on"] > load_models()["as_of"] for name in row["names"]
]


@pytest.mark.parametrize(("name", "row"), GONE)
def test_model_that_was_shut_down_is_refused_with_its_successor(name: str, row: dict[str, Any]) -> None:
    for model in (name, f"{name}-2025-01-31"):
        with pytest.raises(RequestError) as refusal:
            build_body("x", job_id="job_1", model=model)
        assert MODEL.describe(refusal.value).startswith(f"{model} was shut down on {row['on']}. Use {row['use']}")


def test_research_model_is_succeeded_by_the_preset() -> None:
    with pytest.raises(RequestError) as refusal:
        build_body("x", job_id="job_1", model="o3-deep-research-2025-06-26")
    assert MODEL.describe(refusal.value).endswith('Use gpt-6.1-sol with preset "deep_research".')


@pytest.mark.parametrize(("name", "row"), LEAVING)
def test_model_to_be_shut_down_is_accepted_and_explained_once_it_is_missing(name: str, row: Any) -> None:
    assert build_body("x", job_id="job_1", model=name)["model"] == name
    assert f"{row['on']}: use {row['use']}" in describe_retirement(name)


def test_unknown_model_has_no_known_facts() -> None:
    assert describe_retirement("gpt-9") == ""
    check_model("gpt-9", "minimal", ["temperature"])


def test_snapshot_may_be_shut_down_before_its_model() -> None:
    check_model("gpt-4o")
    check_model("gpt-4o-2024-08-06")
    with pytest.raises(RequestError):
        check_model("gpt-4o-2024-05-13")


def test_no_name_is_in_the_table_twice() -> None:
    for table in ("retired", "family"):
        names = [name for row in load_models()[table] for name in row["names"]]
        assert sorted(names) == sorted(set(names))


def test_no_source_or_page_names_a_model_that_was_shut_down() -> None:
    gone = {name for name, _ in GONE}
    named = {load_models()["default"], *(row["use"] for row in load_models()["retired"])}
    named |= {name for row in load_models()["family"] for name in row["names"]}
    named |= {preset.model for preset in load_our_presets().values() if preset.model}
    texts = [ROOT / "README.md", ROOT / ".env.example", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.py")]
    # The emulator is excluded: it names the models that a provider refuses, even those that were shut down.
    ours = (path for path in ROOT.glob("src/**/*") if path.suffix in (".py", ".toml") and "emulator" not in path.parts)
    texts += [path for path in ours if path.name != "models.toml"]
    for path in texts:
        named |= set(re.findall(r"[\w.-]*\w", path.read_text()))
    assert load_models()["default"] in named
    assert not gone & named


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        *((model, ("none", "minimal")) for model in ("gpt-6.2-astra", "gpt-6.2-sol", "gpt-6.1-sol", "gpt-6-astra")),
        *((model, ("minimal",)) for model in ("gpt-6-sol", "gpt-6-luna", "gpt-5.6", "gpt-5.6-terra")),
        ("gpt-6.2-sol-2026-11-17", ("none", "minimal")),
        ("gpt-9", ()),
    ],
)
def test_effort_that_a_model_refuses_is_answered_with_the_accepted_ones(model: str, refused: tuple[str, ...]) -> None:
    for effort in EFFORTS:
        if effort not in refused:
            assert build_body("x", job_id="job_1", model=model, effort=effort)["reasoning"] == {"effort": effort}
            continue
        with pytest.raises(RequestError) as refusal:
            build_body("x", job_id="job_1", model=model, effort=effort)
        assert f"effort {effort!r} is refused by {model}. Use one of " in MODEL.describe(refusal.value)
        assert MODEL.describe(refusal.value).endswith("low, medium, high, xhigh, max.")


def test_sampling_is_refused_by_models_that_reason() -> None:
    hot: dict[str, Any] = {"job_id": "job_1", "options": {"temperature": 1, "top_p": 0.5}}
    with pytest.raises(RequestError, match=r"options\.temperature is refused by gpt-6\.1-sol\."):
        build_body("x", **hot)
    with pytest.raises(RequestError, match=r"refused by gpt-6-luna without effort 'none'\."):
        build_body("x", model="gpt-6-luna", **hot)
    assert build_body("x", model="gpt-6-luna", effort="none", **hot)["temperature"] == 1


def test_names_of_models_are_not_checked_on_another_endpoint() -> None:
    body = build_body("x", job_id="job_1", model="gpt-4", effort="minimal", openai=False)
    assert body["model"] == "gpt-4"
    assert build_body("x", job_id="job_1", effort="minimal", options={"top_p": 1}, openai=False)["top_p"] == 1
