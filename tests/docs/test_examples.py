"""Every example runs unchanged against the emulated API, and asserts what it demonstrates."""

import shlex
from pathlib import Path

import pytest
from machine import machine

EXAMPLES = Path(__file__).parents[2] / "examples"
#: The words at the end of each example's output.
SHOWN = {
    "start_and_poll": "emulated answer to: Why is the sky blue?",
    "batch": "3 results; today's jobs cost an unknown amount",
    "follow_up": "emulated answer to: Which of the two shows Saturn better?",
    "research": "[2] Emulated source 2 https://example.com/emulated/2",
    "review": "tokens, wrote",
    "structured": "emulated unit",
    "git_report": "It made 1 calls of this machine's tools; the first: git__log",
}
SHARED = {"tools", "git_server"}


def test_every_example_is_run() -> None:
    assert {example.stem for example in EXAMPLES.glob("*.py")} == SHOWN.keys() | SHARED


@pytest.mark.parametrize(("example", "shown"), SHOWN.items(), ids=SHOWN)
def test_example_runs(example: str, shown: str) -> None:
    assert shown in run(example)


def test_batch_of_one_question_runs() -> None:
    assert run("batch", "Why is the sky blue?").endswith("1 result; today's jobs cost an unknown amount\n")


def run(example: str, *arguments: str) -> str:
    """Run an example in an environment without a key, and return its output."""
    with machine() as here:
        without_key = ["env", "-u", "OPENAI_API_KEY", "-u", "OPENAI_BASE_URL"]
        ran = here.run(shlex.join([*without_key, str(here.python), str(EXAMPLES / f"{example}.py"), *arguments]))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
