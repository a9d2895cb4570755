"""Every example runs as it stands, against the emulated API, and asserts what it shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
#: What each of them shows at its end.
SHOWN = {
    "start_and_poll": "emulated answer to: Why is the sky blue?",
    "batch": "3 results; today's jobs cost what is not known here",
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
    assert run("batch", "Why is the sky blue?").endswith("1 result; today's jobs cost what is not known here\n")


def run(example: str, *arguments: str) -> str:
    """Run an example; return what it printed."""
    left_out = ("OPENAI_", "AGENT_JOBS_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    ran = subprocess.run(
        [sys.executable, EXAMPLES / f"{example}.py", *arguments],
        capture_output=True, text=True, env=bare, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
