"""The user's command for finished jobs: its input, how often it runs, and that no job depends on it."""

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hosts import SPEED, Host, eventually, hosting, script_prompt
from processes import serving
from terminals import Terminal
from test_asking import script as asking_script
from test_stdio import start

from agent_jobs.clock import Clock, create_steady_clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine import on_finish_command
from agent_jobs.engine.on_finish import AT_ONCE, NEWS_S
from agent_jobs.engine.on_finish_command import STDERR_BYTES, OnFinishCommand
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

#: Writes its input to a file, in full or not at all.
HEAR = """
import json, os, sys, uuid
report = json.load(sys.stdin)
print("this is not for the host")
part = os.path.join({folder!r}, uuid.uuid4().hex)
with open(part, "w") as file:
    json.dump({{"report": report, "environ": dict(os.environ), "cwd": os.getcwd()}}, file)
os.rename(part, part + ".json")
"""


@dataclass(frozen=True)
class Ear:
    """A command that writes its input to a file."""

    folder: Path

    @property
    def words(self) -> tuple[str, ...]:
        return self.command(HEAR.format(folder=str(self.folder)))

    def command(self, program: str) -> tuple[str, ...]:
        """Return a command that runs a Python program."""
        return (sys.executable, "-c", program)

    def read_all(self) -> list[dict[str, Any]]:
        """Return everything that was written, in order."""
        files = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return [json.loads(file.read_text()) for file in files]

    def list_reports(self) -> list[dict[str, Any]]:
        return [each["report"] for each in self.read_all()]

    async def wait_for_reports(self, count: int = 1) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.read_all()) >= count)
        return self.list_reports()


@pytest.fixture
def ear(tmp_path: Path) -> Ear:
    (tmp_path / "ear").mkdir()
    return Ear(tmp_path / "ear")


@asynccontextmanager
async def hosting_with_command(settings: Settings, words: tuple[str, ...]) -> AsyncGenerator[Host]:
    async with hosting(replace(settings, on_finish=words)) as host:
        yield host


# The input of the command.


async def test_finished_job_is_reported_with_its_main_facts(settings: Settings, ear: Ear) -> None:
    async with hosting_with_command(settings, ear.words) as host:
        job = await host.start("Say hello", emulate={"duration_s": 0.2, "text": "Hello.\n\u00e9"}, batch="night")
        [report] = await ear.wait_for_reports()
    assert report["title"].startswith("Say hello")
    assert report == {
        "job_id": job["job_id"],
        "status": "completed",
        "title": report["title"],
        "model": "gpt-6.1-sol",
        "batch": "night",
        "created_at": report["created_at"],
        "elapsed_s": report["elapsed_s"],
        "output": "Hello.\n\u00e9",
    }


@pytest.mark.parametrize("end", ["incomplete", "failed"])
async def test_failed_job_is_reported_with_its_reason(settings: Settings, ear: Ear, end: str) -> None:
    async with hosting_with_command(settings, ear.words) as host:
        await host.start(emulate={"duration_s": 0.2, "end": end})
        [report] = await ear.wait_for_reports()
    assert (report["status"], "next" in report) == (end, False)
    assert report["error"]["code"]


@pytest.mark.parametrize("sent", [True, False], ids=["at work", "waiting for a slot"])
async def test_cancelled_job_is_reported(settings: Settings, ear: Ear, sent: bool) -> None:
    async with hosting_with_command(replace(settings, max_concurrent=1), ear.words) as host:
        jobs = [await host.start(emulate={"end": "never"}) for _ in range(2)]
        await host.call("agent_cancel", job_id=jobs[not sent]["job_id"])
        [report] = await ear.wait_for_reports()
        assert (report["job_id"], report["status"]) == (jobs[not sent]["job_id"], "cancelled")


async def test_question_is_reported_and_the_finished_job_too(settings: Settings, ear: Ear) -> None:
    async with hosting_with_command(settings, ear.words) as host:
        job = await host.start(**asking_script(function_calls=[{"name": "lookup", "arguments": {"word": "one"}}]))
        [report] = await ear.wait_for_reports()
        assert report["status"] == "input_required"
        [call] = report["needs"]
        assert (call["name"], json.loads(call["arguments"])) == ("lookup", {"word": "one"})
        await host.call("agent_reply", job_id=job["job_id"], outputs=[{"call_id": call["call_id"], "output": "found"}])
        assert [each["status"] for each in await ear.wait_for_reports(2)] == ["input_required", "completed"]


def list_results(folder: Path) -> list[Path]:
    return list((folder / "results").iterdir())


async def test_question_that_the_host_answers_at_once_is_not_reported(settings: Settings, ear: Ear) -> None:
    async with hosting(replace(settings, on_finish=ear.words), speed=1.0) as host:
        job = await host.start(**asking_script(function_calls=[{"name": "lookup", "arguments": {"word": "one"}}]))
        asked = await host.call("agent_poll", job_id=job["job_id"], wait_s=20)
        output = {"call_id": asked["needs"][0]["call_id"], "output": "found"}
        await host.call("agent_reply", job_id=job["job_id"], outputs=[output])
        await ear.wait_for_reports()
    assert [report["status"] for report in ear.list_reports()] == ["completed"]


async def test_long_output_is_reported_by_its_beginning_and_files_by_their_paths(
    settings: Settings, ear: Ear, tmp_path: Path
) -> None:
    settings = replace(settings, result_dir=tmp_path / "results")
    async with hosting_with_command(settings, ear.words) as host:
        await host.start(emulate={"duration_s": 0.2, "text": '"\n' * 40_000})
        [report] = await ear.wait_for_reports()
    assert report["bytes"] == 80_000
    assert ('"\n' * 40_000).startswith(report["output"])
    assert [str(path) for path in list_results(tmp_path)] == [report["result_path"]]


# The environment of the command.


async def test_environment_of_the_command_has_no_key_and_no_secret(
    settings: Settings, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"OPENAI_API_KEY": "sk-other", "COPY": "sk-secret", "TOKEN": "t0ken", "KEPT": "yes"}.items():
        monkeypatch.setenv(name, value)
    settings = replace(settings, secrets={"TOKEN": SecretStr("t0ken"), "EMPTY": SecretStr("")})
    async with hosting_with_command(settings, ear.words) as host:
        await host.start(emulate={"duration_s": 0.2})
        await ear.wait_for_reports()
    [heard] = ear.read_all()
    assert heard["environ"]["KEPT"] == "yes"
    assert not {"OPENAI_API_KEY", "COPY", "TOKEN"} & heard["environ"].keys()
    assert heard["cwd"] == str(settings.data_path())


# The number of runs.


async def test_finished_job_is_reported_once_by_several_processes(
    tmp_path: Path, upstream: RunningServer, ear: Ear
) -> None:
    command = {"AGENT_JOBS_ON_FINISH": shlex.join(ear.words)}
    with (
        serving(tmp_path / "data", upstream.base_url, **command) as one,
        serving(tmp_path / "data", upstream.base_url, **command) as other,
        serving(tmp_path / "data", upstream.base_url) as silent,
    ):
        servers = (one, other, silent)
        for server in servers:
            server.initialize()
        jobs = [
            start(servers[n % 3], {"duration_s": 0.5 + n % 4, "text": f"result {n}"}, options={"allow_duplicate": True})
            for n in range(12)
        ]
        await ear.wait_for_reports(12)
        for server in servers:
            assert server.end() == 0
    assert sorted(report["job_id"] for report in ear.list_reports()) == sorted(job["job_id"] for job in jobs)


def list_running(ear: Ear) -> list[int]:
    """Return the ids of the processes that wait in `HOLD`."""
    return [int(file.name) for file in ear.folder.glob("[0-9]*") if not file.suffix]


#: Writes a file with its process id, waits until the test lets it continue, and reports that; `HEAR` follows it.
HOLD = """
import os, sys, time
mark = os.path.join({folder!r}, str(os.getpid()))
open(mark, "w").close()
while not os.path.exists(os.path.join({folder!r}, "go")):
    time.sleep(0.02)
print("going on", file=sys.stderr, flush=True)
"""


async def test_command_outlives_its_killed_server_and_is_not_run_again(
    tmp_path: Path, upstream: RunningServer, ear: Ear
) -> None:
    words = ear.command((HOLD + HEAR).format(folder=str(ear.folder)))
    command = {"AGENT_JOBS_ON_FINISH": shlex.join(words)}
    with serving(tmp_path / "data", upstream.base_url, **command) as server:
        server.initialize()
        start(server, {"duration_s": 0.2, "text": "done"})
        await eventually(lambda: len(list_running(ear)) == 1)
        server.process.kill()
    with serving(tmp_path / "data", upstream.base_url, **command) as server:
        server.initialize()
        second = start(server, {"duration_s": 0.2, "text": "later"})
        await eventually(lambda: len(list_running(ear)) == 2)
        (ear.folder / "go").touch()
        await ear.wait_for_reports(2)
        assert server.end() == 0
    assert [report["output"] for report in ear.list_reports()].count("done") == 1
    assert second["job_id"] in {report["job_id"] for report in ear.list_reports()}
    assert len(list_running(ear)) == 2


async def test_job_that_a_dead_process_did_not_report_is_reported_by_the_next(
    tmp_path: Path, upstream: RunningServer, ear: Ear
) -> None:
    with serving(tmp_path / "data", upstream.base_url) as server:  # without a command, as if it died before
        server.initialize()
        job = start(server, {"duration_s": 0.2, "text": "done"}, wait_s=20)
        assert job["status"] == "completed"
        server.process.kill()
    with serving(tmp_path / "data", upstream.base_url, AGENT_JOBS_ON_FINISH=shlex.join(ear.words)) as server:
        server.initialize()
        assert [report["job_id"] for report in await ear.wait_for_reports()] == [job["job_id"]]


async def test_job_that_finished_long_ago_is_not_reported(settings: Settings, ear: Ear) -> None:
    async with hosting(settings) as host:
        await host.end((await host.start(emulate={"duration_s": 0.2}))["job_id"])
    later = create_steady_clock(SPEED)
    clock = Clock(SPEED, lambda: later() + NEWS_S + 60)
    async with hosting(replace(settings, on_finish=ear.words), clock=clock) as host:
        job = await host.start(emulate={"duration_s": 0.2})
        await ear.wait_for_reports()
    assert [report["job_id"] for report in ear.list_reports()] == [job["job_id"]]


async def test_adopted_job_is_reported_when_it_finishes_again(
    settings: Settings, upstream: RunningServer, ear: Ear
) -> None:
    async with hosting_with_command(settings, ear.words) as host:
        upstream.queue_fault(on="create", drop="after_accept")
        job = await host.start(emulate={"duration_s": 0.2, "text": "found"})
        [report] = await ear.wait_for_reports()
        assert report["error"]["code"] == "start_unconfirmed"
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        await (await host.app.engine()).adopt(job["job_id"], run["id"])
        assert [each["status"] for each in await ear.wait_for_reports(2)] == ["failed", "completed"]


# No job depends on the command.


async def test_jobs_continue_beside_hanging_commands_which_are_killed(
    settings: Settings, ear: Ear, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_finish_command, "LIMIT_S", 3 * SPEED)
    words = ("sh", "-c", f"sleep 600 & : >{shlex.quote(str(ear.folder))}/$!; wait")
    async with hosting_with_command(settings, words) as host:
        started = await host.call("agent_start", prompts=[script_prompt(f"{n}", {"duration_s": 0.2}) for n in range(6)])
        for job_id in started["job_ids"]:
            assert (await host.end(job_id))["status"] == "completed"
        await eventually(lambda: len(list_running(ear)) == AT_ONCE)
        await eventually(lambda: caplog.text.count("took longer than 3 s and was killed") == 6)
    children = list_running(ear)
    assert len(children) == 6
    await eventually(lambda: not any(map(is_alive, children)))


def is_alive(pid: int) -> bool:
    """Return True if a process runs, and is not just an unreaped child."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("program", "logged"),
    [
        ("import sys; sys.exit(7)", "ended with status 7"),
        (
            "import sys; print('x' * 90_000_000, file=sys.stderr); sys.exit('no \\x1b[2J such host')",
            "no  [2J such host",
        ),
        ("import sys; sys.exit(sys.stdin.read())", "(its last words repeat the job)"),
        ("import json, sys; sys.exit('sent: ' + json.load(sys.stdin)['output'])", "(its last words repeat the job)"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
    ],
    ids=["a status", "a flood", "all that it was given", "a part of that", "a signal"],
)
async def test_failure_of_a_command_is_logged_without_the_job(
    settings: Settings, ear: Ear, caplog: pytest.LogCaptureFixture, program: str, logged: str
) -> None:
    async with hosting_with_command(settings, ear.command(program)) as host:
        job = await host.start("the title", emulate={"duration_s": 0.2, "text": "quite secret"})
        await eventually(lambda: logged in caplog.text)
    line = next(line for line in caplog.text.splitlines() if logged in line)
    assert job["job_id"] in line
    assert "WARNING" in line
    assert "secret" not in caplog.text
    assert "the title" not in caplog.text


async def test_stderr_of_a_command_is_emptied_while_it_runs(
    settings: Settings, ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    flood = f"""
import os, sys, time
for _ in range(2):
    os.write(2, b"x" * {STDERR_BYTES + 1})
    while os.fstat(2).st_size > {STDERR_BYTES}:
        time.sleep(0.01)
sys.exit("the last words")
"""
    async with hosting_with_command(settings, ear.command(flood)) as host:
        await host.start(emulate={"duration_s": 0.2})
        await eventually(lambda: "AGENT_JOBS_ON_FINISH" in caplog.text)
    assert caplog.text.endswith("AGENT_JOBS_ON_FINISH ended with status 1: the last words\n")


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors and a shell")
def test_child_left_by_a_command_costs_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    def costs() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/dev/fd"))

    threads, descriptors = costs()
    OnFinishCommand(("sh", "-c", "sleep 600 & echo $! >child"), os.environ, tmp_path).run("job_1", {})
    after = costs()
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert after[0] <= threads
    assert after[1] <= descriptors


async def test_missing_command_is_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with hosting_with_command(settings, ("/nowhere/at-all",)) as host:
        job = await host.start(emulate={"duration_s": 0.2})
        await eventually(lambda: "cannot be started: No such file" in caplog.text)
        assert (await host.end(job["job_id"]))["status"] == "completed"


async def test_server_that_ends_leaves_the_command_running_and_logs_that(
    tmp_path: Path, upstream: RunningServer, ear: Ear
) -> None:
    words = ear.command((HOLD + HEAR).format(folder=str(ear.folder)))
    with serving(tmp_path / "data", upstream.base_url, AGENT_JOBS_ON_FINISH=shlex.join(words)) as server:
        server.initialize()
        start(server, {"duration_s": 0.2, "text": "done"})
        await eventually(lambda: len(list_running(ear)) == 1)
        assert server.end() == 0
        assert "1 runs of AGENT_JOBS_ON_FINISH continue without this process" in server.stderr()
    assert not ear.read_all()
    (ear.folder / "go").touch()
    assert [report["output"] for report in await ear.wait_for_reports()] == ["done"]


async def test_job_that_finishes_with_a_terminal_command_is_reported(
    tmp_path: Path, upstream: RunningServer, ear: Ear
) -> None:
    terminal = Terminal(upstream.base_url, tmp_path / "data")
    ran = terminal.pipe(
        "run", script_prompt("x", {"duration_s": 0.2, "text": "done"}), AGENT_JOBS_ON_FINISH=shlex.join(ear.words)
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n")
    assert [report["output"] for report in await ear.wait_for_reports()] == ["done"]


async def test_command_outlives_a_terminal_command_and_may_write_to_stderr(
    tmp_path: Path, upstream: RunningServer, ear: Ear
) -> None:
    words = ear.command((HOLD + HEAR).format(folder=str(ear.folder)))
    terminal = Terminal(upstream.base_url, tmp_path / "data")
    ran = terminal.pipe("run", script_prompt("x", {"text": "done"}), AGENT_JOBS_ON_FINISH=shlex.join(words))
    assert "1 runs of AGENT_JOBS_ON_FINISH continue without this process" in ran.stderr
    (ear.folder / "go").touch()
    assert [report["output"] for report in await ear.wait_for_reports()] == ["done"]
