"""docs/troubleshooting.md quotes the program's own messages, and explains every code."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import agent_jobs
from agent_jobs.attachments.protected_files import RefusedFileError
from agent_jobs.errors import AgentJobsError
from agent_jobs.jobs.response import RETRYABLE
from agent_jobs.rendering import answers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
#: Codes that only the provider sets.
UPSTREAM = {"content_filter", *RETRYABLE - {"interrupted"}}
#: Names by which a failure is read from a row or from the provider's answer.
FIELDS = {"error_code", "error_message", "reason"}


@cache
def parse_sources() -> list[ast.Module]:
    package = Path(agent_jobs.__file__).parent
    return [ast.parse(path.read_text()) for path in package.rglob("*.py") if "emulator" not in path.parts]


@cache
def list_texts() -> str:
    """Return every text of the program, one a line, with an ellipsis for each value."""

    def build_text(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(build_text, node.values))
        return re.sub(r"\{[^{}]*\}", "…", str(node.value)) if isinstance(node, ast.Constant) else "…"

    nodes = (node for tree in parse_sources() for node in ast.walk(tree))
    return "\n".join(build_text(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr))


def list_own_codes() -> Iterator[str]:
    """Return the error codes that agent-jobs itself gives to jobs."""
    for node in (node for tree in parse_sources() for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in ("mark_failed", "fail_job", "Failure"):
            texts = [each.value for one in node.args[:2] for each in ast.walk(one) if isinstance(each, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str) and re.fullmatch("[a-z]+(_[a-z]+)*", text))


def list_codes(heading: str) -> set[str]:
    table = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return {code for row in rows for code in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.mark.parametrize("quotation", re.findall(r"^> (.*)$", PAGE, re.M))
def test_every_quotation_is_reported_by_the_program(quotation: str) -> None:
    # The problem and the fix of an error are in two places of the source.
    for sentence in re.split(r"(?<=[.?…]) (?=[A-Z])", quotation):
        step = sentence.removeprefix("Ask the user to ").rstrip(".")
        pieces = [piece.strip() for piece in step.split("…") if len(piece.strip(" .:,")) > 1]
        assert pieces
        assert re.search(".*?".join(map(re.escape, pieces)), list_texts()), sentence


def test_there_are_quotations() -> None:
    assert len(re.findall(r"^> ", PAGE, re.M)) >= 20


def test_every_failure_code_of_agent_jobs_is_explained_and_no_other() -> None:
    known = {*list_own_codes()} - FIELDS | answers.NEXT_STEPS.keys()
    assert {"start_unconfirmed", "max_turns", "endpoint_lost", "upstream_rejected", "interrupted"} <= known
    assert list_codes("By failure code") == known | UPSTREAM


def test_every_code_of_a_refusal_is_explained_and_no_other() -> None:
    def list_subclasses(error: type[AgentJobsError]) -> Iterator[type[AgentJobsError]]:
        yield error
        for each in error.__subclasses__():
            yield from list_subclasses(each)

    given = {answers.render_error(each.__new__(each), "")["error"]["code"] for each in list_subclasses(AgentJobsError)}
    assert list_codes("By refusal") == given
    assert answers.render_error(RefusedFileError("x", "y", reason="z"), "")["error"]["code"] == "bad_request"
