"""The program of docs/team-install.md lists the jobs of its token's owner."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from team_servers import Team

PAGE = (Path(__file__).parents[2] / "docs/team-install.md").read_text()


async def test_program_of_the_page_lists_the_jobs(
    team: Team, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    [program] = [block.partition("```")[0] for block in PAGE.split("```python\n")[1:]]
    token = await team.add_token("paula")
    async with team.host(token) as host:
        job_id = (await host.start(emulate={"duration_s": 1}))["job_id"]
    monkeypatch.setenv("AGENT_JOBS_TOKEN", token)
    assert "http://127.0.0.1:8000" in program
    program = program.replace("http://127.0.0.1:8000", team.url)

    def run_program() -> None:
        names: dict[str, Any] = {}
        exec(compile(program, "page", "exec"), names)

    await anyio.to_thread.run_sync(run_program)
    assert job_id in capsys.readouterr().out
