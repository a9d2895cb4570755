"""Every example runs as it stands, against the emulated API, and asserts what it shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(example: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "AGENT_JOBS_"))}
    shown = subprocess.run([sys.executable, example], capture_output=True, text=True, env=bare, timeout=50, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "emulated answer" in shown.stdout
