"""The statements of docs/on-finish.md are true, and its scripts run unchanged."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hosts import SPEED, eventually
from processes import serving
from test_asking import script as asking_script
from test_costs import PRICES, USAGE
from test_notify import Ear, hosting_with_command
from test_stdio import start

from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine import on_finish, on_finish_command
from agent_jobs.rendering import paging, questions
from agent_jobs.settings.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/on-finish.md").read_text()
SETTINGS = re.findall(r"^AGENT_JOBS_ON_FINISH=(.*)$", PAGE, re.M)
EXECUTABLE = 0o755
SETTLE_WAIT_S, ANSWER_WAIT_S = on_finish.FINALIZE_WAIT_S, on_finish.ANSWER_WAIT_S


def read_section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


@dataclass(frozen=True)
class Home:
    """A home folder with the page's scripts, and programs that only record their arguments."""

    folder: Path

    def write_script(self, heading: str, name: str) -> Path:
        """Write the script of a section to the place that the section names, and return its path."""
        assert f"`~/bin/{name}`" in read_section(heading)
        [text] = re.findall(r"```python\n(.*?)```", read_section(heading), re.S)
        return self.write_program(name, text)

    def write_program(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(EXECUTABLE)
        return path

    def stand_in(self, name: str) -> Path:
        """Create a program that writes its arguments into a file, and return the path of that file."""
        called = self.folder / f"{name}.called"
        part = f"{called}.part"
        self.write_program(
            name,
            f"#!{sys.executable}\nimport json, os, sys\njson.dump(sys.argv[1:], open({part!r}, 'w'))\n"
            f"os.rename({part!r}, {str(called)!r})\n",
        )
        return called

    def build_environment(self, **more: str) -> dict[str, str]:
        return {"HOME": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", **more}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


@dataclass(frozen=True)
class Chat:
    """A server that keeps the bodies that are posted to it."""

    url: str
    posted: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list[tuple[str | None, dict[str, Any]]])


@pytest.fixture
def chat() -> Iterator[Chat]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            chat.posted.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        chat = Chat(f"http://127.0.0.1:{server.server_port}/hooks/t0ken")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield chat
        server.shutdown()
        thread.join()


async def test_desktop_notification_is_shown_by_the_setting_of_the_page(
    tmp_path: Path, upstream: RunningServer, home: Home
) -> None:
    home.write_script("A desktop notification", "job-done")
    shown = home.stand_in("osascript" if sys.platform == "darwin" else "notify-send")
    setting = home.build_environment(AGENT_JOBS_ON_FINISH=SETTINGS[0])
    with serving(tmp_path / "data", upstream.base_url, **setting) as server:
        server.initialize()
        start(server, {"duration_s": 0.2, "text": "done"})
        await eventually(shown.exists)
        assert server.end() == 0
        assert server.stderr() == ""
    assert json.loads(shown.read_text())[-2] == "agent-jobs: completed"
    assert json.loads(shown.read_text())[-1].startswith("hello")


def test_macos_script_gets_the_title_as_an_argument(home: Home) -> None:
    script, shown = home.write_script("A desktop notification", "job-done"), home.stand_in("osascript")
    code = f"import sys; sys.platform = 'darwin'; exec(open({str(script)!r}).read())"
    report = {"job_id": "job_1", "status": "failed", "title": '" & quit'}
    ran = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(report), text=True, env=home.build_environment()
    )
    assert ran.returncode == 0
    called = json.loads(shown.read_text())
    assert called[::2][:3] == ["-e"] * 3
    assert called[-2:] == ["agent-jobs: failed", '" & quit']


async def test_chat_gets_the_message(tmp_path: Path, upstream: RunningServer, home: Home, chat: Chat) -> None:
    home.write_script("A chat webhook", "tell-chat")
    setting = home.build_environment(AGENT_JOBS_ON_FINISH="~/bin/tell-chat", CHAT_WEBHOOK=chat.url)
    with serving(tmp_path / "data", upstream.base_url, **setting) as server:
        server.initialize()
        start(server, {"duration_s": 0.2, "text": "All is \u00f6k."})
        await eventually(lambda: bool(chat.posted))
        assert server.end() == 0
        assert server.stderr() == ""
    [(kind, message)] = chat.posted
    assert kind == "application/json"
    assert message["text"].startswith("hello")
    assert message["text"].endswith(": completed\nAll is \u00f6k.")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the example is one of curl")
async def test_webhook_gets_the_job_unchanged(tmp_path: Path, upstream: RunningServer, home: Home, chat: Chat) -> None:
    setting = home.build_environment(AGENT_JOBS_ON_FINISH=SETTINGS[1], JOB_WEBHOOK=chat.url)
    with serving(tmp_path / "data", upstream.base_url, **setting) as server:
        server.initialize()
        job = start(server, {"duration_s": 0.2, "text": "done"})
        await eventually(lambda: bool(chat.posted))
    [(kind, report)] = chat.posted
    assert kind == "application/json"
    assert (report["job_id"], report["status"], report["output"]) == (job["job_id"], "completed", "done")


@pytest.fixture
def priced(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "prices.toml").write_text(PRICES)
    return replace(settings, prices=tmp_path / "prices.toml")


async def test_page_lists_every_field_and_no_other(priced: Settings, tmp_path: Path) -> None:
    (tmp_path / "ear").mkdir()
    ear = Ear(tmp_path / "ear")
    rows = [row.split("|")[1] for row in read_section("What it gets").splitlines() if row.startswith("| `")]
    fields = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    settings = replace(priced, result_dir=tmp_path / "results")
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    async with hosting_with_command(settings, ear.words) as host:
        await host.start(emulate={"duration_s": 0.2, "text": "x" * 30_000, "usage": USAGE}, batch="b")
        await host.start(emulate={"duration_s": 0.2, "end": "failed"})
        await host.start(emulate={"duration_s": 0.2, "text": "{}"}, options={"json_schema": schema})
        await host.start(emulate={"duration_s": 0.2, "images": 1})
        many = [{"name": "lookup", "arguments": {"n": n}} for n in range(questions.MAX_CALLS + 1)]
        await host.start(**asking_script(function_calls=many))
        reports = await ear.wait_for_reports(5)
    assert set().union(*reports) == fields


def test_figures_of_the_page_are_those_of_the_program() -> None:
    promised = " ".join(read_section("What is promised").split())
    words = {4: "four", 10: "ten", 3: "three"}
    assert f"At most {words[on_finish.AT_ONCE]} run at once" in promised
    assert f"After {on_finish_command.LIMIT_S / SPEED:g} s a command is killed" in promised
    assert f"within {words[round(on_finish.NEWS_S / 60)]} minutes" in promised
    assert f"waits {words[round(SETTLE_WAIT_S)]} seconds for files" in promised
    assert f"{words[round(ANSWER_WAIT_S)]} seconds for the host's model to answer" in promised
    assert f"beyond {on_finish_command.STDERR_BYTES / 1e6:g} MB" in promised
    assert (on_finish_command.LAST_S, f"{paging.OUTPUT_BYTES:,}") == (1.0, "24,000")
